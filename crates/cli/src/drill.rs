//! `buoy drill`: breaks the owner of a VIP on purpose, again and again, and says how long each step of the
//! takeover took.
//!
//! In the lab of `buoy lab up` every kind of fault is real. On a live cluster there is only what is planned, and only with
//! consent: this node is drained and put back, or the VIP alone is moved to another node and back, from any node.

mod moves;

use crate::failure::Failure;
use crate::output;
use crate::table::{Align, Table, Tone};
use buoy_api::{Client, ClusterStatus, PhasesView, SOCKET_DEFAULT, VipView};
use buoy_lab::standing::{Drill, Standing};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// Time between two looks while waiting.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a cluster may take to be whole: a restarted voter is silent for 2.5 s.
const WHOLE_MAX: Duration = Duration::from_secs(30);
/// How long a takeover may take.
const TAKEOVER_MAX: Duration = Duration::from_secs(15);
/// How long the record of a takeover may wait for the first packet.
const RECORD_MAX: Duration = Duration::from_secs(3);

#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// The VIP, by name or by address
    vip: String,
    /// What happens to its owner, or to it; on a live cluster `move` or `drain`
    #[arg(long, value_enum, default_value_t = Kind::Drain)]
    kind: Kind,
    /// How often
    #[arg(long, value_name = "N", default_value_t = 3)]
    repeat: usize,
    /// The agent of a live cluster's node; without it the lab of `buoy lab up`, if one stands
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// With --kind move: to which node, and back; without it to the next best
    #[arg(long, value_name = "NODE")]
    to: Option<String>,
    /// With --kind move: for the record
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// On a live cluster: yes, move the VIP, or with --kind drain every VIP of this node
    #[arg(long)]
    yes: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum Kind {
    /// The agent is killed (lab)
    Kill,
    /// The agent is frozen (lab)
    Freeze,
    /// The cable is pulled (lab)
    Link,
    /// The node is taken out of service
    Drain,
    /// The VIP alone goes to another node and back (live cluster)
    Move,
}

impl Kind {
    /// As a fault of the lab; `None`: that is none.
    const fn drill(self) -> Option<Drill> {
        match self {
            Self::Kill => Some(Drill::Kill),
            Self::Freeze => Some(Drill::Freeze),
            Self::Link => Some(Drill::Link),
            Self::Drain => Some(Drill::Drain),
            Self::Move => None,
        }
    }
}

/// One takeover.
#[derive(Debug, PartialEq)]
struct Takeover {
    from: String,
    to: String,
    /// What the new owner recorded, where it could be asked.
    phases: Option<PhasesView>,
    /// From the order until this command saw it done; the command looks every 20 ms.
    seen: Duration,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let lab = if arguments.socket.is_none() { Standing::find() } else { None };
    let Some(drill) = arguments.kind.drill() else { return moves::run(arguments, lab.as_ref()) };
    if arguments.to.is_some() || arguments.reason.is_some() {
        return Err(Failure::failed("`--to` and `--reason` go with `--kind move`"));
    }
    let takeovers = match lab {
        Some(lab) => in_lab(arguments, drill, &lab)?,
        None => live(arguments, drill)?,
    };
    output::text(&table(&takeovers).render(output::colour()))?;
    output::text(&summary(&takeovers))
}

fn in_lab(arguments: &Arguments, drill: Drill, lab: &Standing) -> Result<Vec<Takeover>, Failure> {
    let mut takeovers = Vec::new();
    for number in 1..=arguments.repeat {
        let owner = whole(lab, &arguments.vip)?;
        let started = Instant::now();
        lab.inject(drill, &owner.node).map_err(Failure::failed)?;
        let took = taken_over(lab, &arguments.vip, &owner, started);
        // Whatever came of it, the lab is mended.
        lab.heal(drill, &owner.node).map_err(Failure::failed)?;
        let takeover = took?;
        output::text(&format!("{number}: {}\n", sentence(&takeover)))?;
        takeovers.push(takeover);
    }
    Ok(takeovers)
}

/// Who owns the VIP, and in which epoch.
struct Owner {
    node: String,
    epoch: u32,
}

/// Waits until all agents hear each other, vote, and agree on an owner.
fn whole(lab: &Standing, vip: &str) -> Result<Owner, Failure> {
    let deadline = Instant::now() + WHOLE_MAX;
    loop {
        let ask = |(_, socket): &(String, PathBuf)| Client::connect(socket).ok()?.status().ok();
        let statuses: Vec<ClusterStatus> = lab.agents.iter().filter_map(ask).collect();
        if let Some(status) = statuses.first()
            && find(status, vip).is_none()
        {
            return Err(no_such_vip(status, vip));
        }
        let mut lacks: Vec<String> = statuses.iter().flat_map(lacking).collect();
        if statuses.len() < lab.agents.len() {
            lacks.push(format!("{} of {} agents answer", statuses.len(), lab.agents.len()));
        }
        let owners: Vec<_> = statuses.iter().filter_map(|status| find(status, vip)).collect();
        let first = owners.first().map(|vip| (vip.owner.clone(), vip.epoch));
        if owners.iter().any(|vip| Some(&vip.owner) != first.as_ref().map(|(owner, _)| owner)) {
            lacks.push(format!("the nodes do not agree on the owner of {vip}"));
        }
        if let Some((Some(node), epoch)) = first
            && lacks.is_empty()
        {
            return Ok(Owner { node, epoch });
        }
        if deadline < Instant::now() {
            let (seconds, lacks) = (WHOLE_MAX.as_secs(), lacks.join("; "));
            return Err(Failure::failed(format!("the lab was not whole for {seconds} s: {lacks}")));
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// What keeps a node, or its view of the others, from being well.
fn lacking(status: &ClusterStatus) -> Vec<String> {
    let me = &status.node;
    let mut lacks = Vec::new();
    if status.draining.is_some() {
        lacks.push(format!("{me} is drained"));
    }
    for node in &status.nodes {
        let well = node.votes_in_ms.is_none() && !node.draining;
        if !well || !(node.me || (node.alive && node.hears_us)) {
            lacks.push(format!("{} is {}, as {me} sees it", node.name, node.state));
        }
    }
    lacks
}

/// Waits until another node owns the VIP and has recorded how that went.
fn taken_over(
    lab: &Standing,
    vip: &str,
    before: &Owner,
    started: Instant,
) -> Result<Takeover, Failure> {
    let mut seen = None;
    while started.elapsed() < TAKEOVER_MAX {
        for (node, socket) in lab.agents.iter().filter(|(node, _)| *node != before.node) {
            let Some(why) = Client::connect(socket).ok().and_then(|c| c.why(vip).ok()) else {
                continue;
            };
            if !why.vip.mine || why.vip.epoch <= before.epoch {
                continue;
            }
            let seen = *seen.get_or_insert_with(|| started.elapsed());
            let phases = why.phases.filter(|phases| phases.epoch == why.vip.epoch);
            if phases.is_some() || seen + RECORD_MAX < started.elapsed() {
                let (from, to) = (before.node.clone(), node.clone());
                return Ok(Takeover { from, to, phases, seen });
            }
        }
        thread::sleep(LOOK_EVERY);
    }
    let seconds = TAKEOVER_MAX.as_secs();
    Err(Failure::failed(format!("nobody took {vip} over from {} in {seconds} s", before.node)))
}

fn live(arguments: &Arguments, drill: Drill) -> Result<Vec<Takeover>, Failure> {
    if arguments.kind != Kind::Drain {
        return Err(Failure::failed(format!(
            "`--kind {}` breaks a host, which this command does in the lab only: `buoy lab up` first, or \
             use `--kind move` or `--kind drain` here",
            drill.name()
        )));
    }
    let client = Client::connect(arguments.socket.as_deref().unwrap_or(SOCKET_DEFAULT.as_ref()))?;
    let status = client.status()?;
    let vip = find(&status, &arguments.vip).ok_or_else(|| no_such_vip(&status, &arguments.vip))?;
    let name = vip.name.clone();
    if !vip.mine {
        let owner = vip.owner.as_deref().unwrap_or("nobody");
        return Err(Failure::failed(format!(
            "{owner} owns {name}, not {}: run the drill on its owner",
            status.node
        )));
    }
    if !arguments.yes {
        let owned = status.vips.iter().filter(|vip| vip.mine).count();
        return Err(Failure::failed(format!(
            "this takes {} out of service, and moves all {owned} VIPs that it owns: say --yes if you \
             mean it",
            status.node
        )));
    }
    let mut takeovers = Vec::new();
    for number in 1..=arguments.repeat {
        let away = move_away(&client, &name, &status.node)?;
        output::text(&format!("{number}: {}\n", sentence(&away)))?;
        let to = away.to.clone();
        takeovers.push(away);
        match move_back(&client, &name, &to, &status.node)? {
            Some(back) => {
                output::text(&format!("{number}: {}\n", sentence(&back)))?;
                takeovers.push(back);
            }
            None if number < arguments.repeat => {
                output::text(&format!(
                    "{name} stays at {to}: its failback is {}. Go on there, or set failback = \"now\" \
                     for the drill.\n",
                    vip.failback
                ))?;
                break;
            }
            None => output::text(&format!("{name} stays at {to}\n"))?,
        }
    }
    Ok(takeovers)
}

/// Drains this node until it has given the VIP away, and puts it back in any case.
fn move_away(client: &Client, vip: &str, me: &str) -> Result<Takeover, Failure> {
    let started = Instant::now();
    client.drain(Some("drill".to_owned()))?;
    let moved = wait(started, TAKEOVER_MAX, client, |status| {
        let vip = find(status, vip)?;
        vip.owner.clone().filter(|owner| !vip.mine && owner != me)
    });
    let put_back = client.undrain(Some("the drill is over".into()));
    let to = moved?.ok_or_else(|| {
        Failure::failed(format!("nobody took {vip} over: `buoy why {vip}` says why"))
    })?;
    put_back?;
    // How its steps went is recorded where it was taken over, which this node cannot ask.
    Ok(Takeover { from: me.to_owned(), to, phases: None, seen: started.elapsed() })
}

/// Waits for the VIP to come back by itself; `None`: it does not.
fn move_back(
    client: &Client,
    vip: &str,
    from: &str,
    me: &str,
) -> Result<Option<Takeover>, Failure> {
    let started = Instant::now();
    let back = wait(started, TAKEOVER_MAX, client, |status| find(status, vip)?.mine.then_some(()))?;
    if back.is_none() {
        return Ok(None);
    }
    let seen = started.elapsed();
    let recorded = Instant::now();
    let mut phases = None;
    while phases.is_none() && recorded.elapsed() < RECORD_MAX {
        let why = client.why(vip)?;
        phases = why.phases.filter(|phases| phases.epoch == why.vip.epoch);
        thread::sleep(LOOK_EVERY);
    }
    Ok(Some(Takeover { from: from.to_owned(), to: me.to_owned(), phases, seen }))
}

fn wait<T>(
    started: Instant,
    at_most: Duration,
    client: &Client,
    found: impl Fn(&ClusterStatus) -> Option<T>,
) -> Result<Option<T>, Failure> {
    while started.elapsed() < at_most {
        if let Some(found) = found(&client.status()?) {
            return Ok(Some(found));
        }
        thread::sleep(LOOK_EVERY);
    }
    Ok(None)
}

fn find<'a>(status: &'a ClusterStatus, name: &str) -> Option<&'a VipView> {
    let has = |vip: &VipView| vip.addresses.iter().any(|a| bare(&a.address) == bare(name));
    status.vips.iter().find(|vip| vip.name == name || has(vip))
}

/// An address without its prefix.
fn bare(address: &str) -> &str {
    address.split('/').next().unwrap_or(address)
}

fn no_such_vip(status: &ClusterStatus, vip: &str) -> Failure {
    let names: Vec<&str> = status.vips.iter().map(|vip| vip.name.as_str()).collect();
    Failure::failed(format!("there is no VIP {vip}: there are {}", names.join(", ")))
}

fn sentence(takeover: &Takeover) -> String {
    let Takeover { from, to, phases, seen } = takeover;
    match phases {
        Some(phases) => format!("{from} -> {to}, {:.1} ms", total(phases)),
        None => format!("{from} -> {to}, seen after {} ms", seen.as_millis()),
    }
}

/// From the last sign of life of the old owner until the address was announced at the new one.
fn total(phases: &PhasesView) -> f64 {
    phases.detect_ms + phases.announce_ms.max(phases.address_ms)
}

fn table(takeovers: &[Takeover]) -> Table<8> {
    let mut table = Table::new([
        ("FROM", Align::Left),
        ("TO", Align::Left),
        ("DETECT", Align::Right),
        ("VOTES", Align::Right),
        ("ADDRESS", Align::Right),
        ("ANNOUNCE", Align::Right),
        ("PACKET", Align::Right),
        ("TOTAL MS", Align::Right),
    ]);
    for takeover in takeovers {
        let cells = match &takeover.phases {
            Some(phases) => [
                Some(phases.detect_ms),
                Some(phases.decide_ms),
                Some(phases.address_ms),
                Some(phases.announce_ms),
                phases.first_packet_ms,
                Some(total(phases)),
            ],
            None => [None; 6],
        };
        let [detect, votes, address, announce, packet, total] =
            cells.map(|cell| cell.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}")));
        let (from, to) = (takeover.from.clone(), takeover.to.clone());
        table.row(Tone::Plain, [from, to, detect, votes, address, announce, packet, total]);
    }
    table
}

fn summary(takeovers: &[Takeover]) -> String {
    let mut totals: Vec<f64> =
        takeovers.iter().filter_map(|t| t.phases.as_ref()).map(total).collect();
    totals.sort_by(f64::total_cmp);
    let (Some(best), Some(worst)) = (totals.first(), totals.last()) else {
        return "The steps are recorded at the new owner: `buoy events` there shows them.\n"
            .to_owned();
    };
    let median = totals[(totals.len() - 1) / 2];
    format!(
        "best {best:.1} ms, middle {median:.1} ms, worst {worst:.1} ms (takeovers recorded: {})\n\
         (detect: how long the old owner had been silent, 0 where somebody said that it is gone; the others count from \
         the decision to take over)\n",
        totals.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takeover(detect_ms: f64, announce_ms: f64) -> Takeover {
        let phases = PhasesView { detect_ms, announce_ms, ..PhasesView::default() };
        Takeover {
            from: "n1".to_owned(),
            to: "n2".to_owned(),
            phases: Some(phases),
            seen: Duration::from_millis(40),
        }
    }

    #[test]
    fn the_summary_has_the_best_the_middle_and_the_worst() {
        let takeovers = [takeover(30.0, 5.0), takeover(0.0, 2.0), takeover(31.0, 1.0)];
        let text = summary(&takeovers);
        assert!(
            text.starts_with("best 2.0 ms, middle 32.0 ms, worst 35.0 ms (takeovers recorded: 3)")
        );
    }

    #[test]
    fn what_was_not_recorded_is_not_invented() {
        let unknown = Takeover { phases: None, ..takeover(0.0, 0.0) };
        assert_eq!(sentence(&unknown), "n1 -> n2, seen after 40 ms");
        assert!(summary(&[unknown]).contains("recorded at the new owner"));
    }

    #[test]
    fn a_vip_is_found_by_name_and_by_address() {
        let addresses = vec![buoy_api::VipAddressView {
            address: "10.0.0.100/24".to_owned(),
            ..Default::default()
        }];
        let vip = VipView { name: "web".to_owned(), addresses, ..VipView::default() };
        let status = ClusterStatus { vips: vec![vip], ..ClusterStatus::default() };
        for name in ["web", "10.0.0.100", "10.0.0.100/24"] {
            assert!(find(&status, name).is_some(), "{name}");
        }
        assert!(find(&status, "10.0.0.1").is_none());
    }
}
