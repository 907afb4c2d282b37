//! `buoy status`: the whole cluster on one screen, as this node sees it.

mod wide;

use crate::AgentSocket;
use crate::failure::Failure;
use crate::output::{self, Form};
use crate::table::{Align, Table, Tone, plain, wrapped};
use buoy_api::{
    ClientError, ClusterStatus, EventView, NodeView, ServiceView, TimingView, VipAddressView,
    VipView, words,
};
use std::time::Duration;

/// Longest time between two looks with `--watch`.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Events at the foot of the screen.
const EVENTS_SHOWN: usize = 5;
/// Where there is none.
pub(crate) const NO_VIP: &str = "no VIP: add a [[vip]] to the file and run `buoy reload`\n";
/// Clears a terminal and starts at its top.
const CLEAR: &str = "\x1b[2J\x1b[H";

#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    agent: AgentSocket,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Look,
    /// Go on with every change, and at least every second, until Ctrl-C; JSON is one object a line then
    #[arg(short, long)]
    watch: bool,
}

/// The forms of this answer.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
enum Look {
    /// For people.
    #[default]
    #[value(alias = "text")]
    Table,
    /// For people with a wide terminal: also legs, votes, leases, who is next, and every backend.
    Wide,
    /// For programs.
    Json,
    /// For people who read much, and for files.
    Yaml,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let client = arguments.agent.client()?;
    if !arguments.watch {
        let status = client.status()?;
        return match arguments.output {
            Look::Json => output::value(Form::Json, &status),
            Look::Yaml => output::value(Form::Yaml, &status),
            look @ (Look::Table | Look::Wide) => output::text(&drawn(&status, look)),
        };
    }
    loop {
        let mut shown = Ok(());
        let ended = client.follow_status(LOOK_EVERY, |answer| {
            shown = show(arguments.output, answer);
            shown.is_ok()
        });
        shown?;
        // An agent that restarts is worth waiting for, before one's eyes.
        if let Err(error) = ended {
            show(arguments.output, Err(error))?;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// One look of many.
fn show(look: Look, answer: Result<ClusterStatus, ClientError>) -> Result<(), Failure> {
    match (look, answer) {
        (Look::Json, Ok(status)) => output::item(Form::Json, &status),
        (Look::Yaml, Ok(status)) => output::item(Form::Yaml, &status),
        (Look::Json | Look::Yaml, Err(error)) => Err(error.into()),
        (Look::Table | Look::Wide, Ok(status)) => draw(&drawn(&status, look)),
        (Look::Table | Look::Wide, Err(error)) => draw(&format!("{error}\n")),
    }
}

fn drawn(status: &ClusterStatus, look: Look) -> String {
    screen(status, look == Look::Wide, (output::colour(), output::wrap()))
}

pub(crate) fn draw(screen: &str) -> Result<(), Failure> {
    let before = if output::terminal() { CLEAR } else { "" };
    output::text(&format!("{before}{screen}\n"))
}

/// The screen as text.
fn screen(status: &ClusterStatus, is_wide: bool, (colour, width): (bool, usize)) -> String {
    let mut text = heading(status);
    if let Some(reason) = &status.draining {
        let left = status.drain_left_ms;
        let left = left.map_or_else(String::new, |ms| format!(", for another {}", span(ms)));
        text.push_str(&format!("DRAINED {} takes no VIP: {}{left}\n", status.node, plain(reason)));
    }
    if let Some(reason) = &status.cordoned {
        let what = "takes a VIP only if no other node can";
        text.push_str(&format!("CORDONED {} {what}: {}\n", status.node, plain(reason)));
    }
    if status.witness {
        text.push_str(&format!("WITNESS {} votes and never owns\n", status.node));
    }
    text.push_str(&tables(status, is_wide, colour));
    let mut list = |heading: &str, lines: &[String], wrap: bool| {
        for (n, line) in lines.iter().enumerate() {
            let heading = if n == 0 { format!("\n{heading}\n") } else { String::new() };
            let line = if wrap { wrapped(&plain(line), 4, width) } else { plain(line) };
            text.push_str(&format!("{heading}  {line}\n"));
        }
    };
    list("PROBLEMS", &status.problems, true);
    list("DEFENCES (`buoy doctor` says what to do about one that lacks)", &status.defences, true);
    list("SAFETY", &safety(status), true);
    let latest = status.events.len().saturating_sub(EVENTS_SHOWN);
    let latest: Vec<_> = status.events[latest..].iter().map(event).collect();
    list("LATEST (`buoy events` has more)", &latest, false);
    text
}

/// What there is to say of each node and each VIP.
fn tables(status: &ClusterStatus, is_wide: bool, colour: bool) -> String {
    let nodes = match is_wide {
        true => wide::nodes(&status.nodes).render(colour),
        false => nodes(&status.nodes).render(colour),
    };
    let vips = match (status.vips.is_empty(), is_wide) {
        (true, _) => NO_VIP.to_owned(),
        (false, true) => wide::vips(&status.vips).render(colour),
        (false, false) => vips(&status.vips).render(colour),
    };
    let backends = wide::backends(status).filter(|_| is_wide);
    let backends = backends.map_or_else(String::new, |all| format!("\n{}", all.render(colour)));
    format!("\n{nodes}\n{vips}{backends}")
}

/// What the safeties in use mean, and how often it came to two owners.
fn safety(status: &ClusterStatus) -> Vec<String> {
    let mut lines = status.safety.clone();
    if status.overlaps > 0 {
        let times = match status.overlaps {
            1 => "once".to_owned(),
            n => format!("{n} times"),
        };
        lines.push(format!(
            "two nodes served one VIP at once, {times} since this agent started (`buoy events`)"
        ));
    }
    lines
}

/// As in "lease 36 ms", or "lease 120 ms (36 ms when calm)".
fn lease(timing: &TimingView) -> String {
    match timing.term_ms {
        Some(term) if term > timing.lease_ms => {
            format!("lease {} ({} when calm)", span(term), span(timing.lease_ms))
        }
        Some(_) | None => format!("lease {}", span(timing.lease_ms)),
    }
}

fn heading(status: &ClusterStatus) -> String {
    let alive = status.nodes.iter().filter(|node| node.alive).count();
    let known = status.nodes.iter().filter_map(|node| node.digest.as_ref());
    let same = known.filter(|digest| **digest != status.digest).count() == 0;
    format!(
        "CLUSTER {}  {} nodes, {alive} heard  config {} ({}), generation {}  {}  seen from {}\n",
        status.cluster,
        status.nodes.len(),
        status.digest,
        if same { "same on all heard" } else { "NOT the same on all" },
        status.generation,
        lease(&status.timing),
        status.node,
    )
}

pub(crate) fn nodes(nodes: &[NodeView]) -> Table<5> {
    let mut table = Table::new([
        ("NODE", Align::Left),
        ("STATE", Align::Left),
        ("OWNS", Align::Right),
        ("RTT", Align::Right),
        ("ADDRESS", Align::Left),
    ]);
    for node in nodes {
        let tone = if node.alive && (node.me || node.hears_us) { Tone::Plain } else { Tone::Wrong };
        table.row(
            tone,
            [
                if node.me { format!("{} *", node.name) } else { node.name.clone() },
                node.state.clone(),
                node.owns.to_string(),
                node.round_trip_ms.filter(|_| node.alive).map_or_else(String::new, span),
                node.address.clone(),
            ],
        );
    }
    table
}

pub(crate) fn vips(vips: &[VipView]) -> Table<7> {
    let mut table = Table::new([
        ("VIP", Align::Left),
        ("ADDRESS", Align::Left),
        ("OWNER", Align::Left),
        ("EPOCH", Align::Right),
        ("SINCE", Align::Right),
        ("SERVICES", Align::Left),
        ("PROBLEM", Align::Left),
    ]);
    for vip in vips {
        let tone = if vip.problem.is_some() { Tone::Wrong } else { Tone::Plain };
        let address = |n: usize| vip.addresses.get(n).map(address);
        let service = |n: usize| vip.services.get(n).map(service);
        table.row(
            tone,
            [
                vip.name.clone(),
                address(0).unwrap_or_default(),
                owner(vip),
                vip.epoch.to_string(),
                vip.since_ms.map_or_else(String::new, span),
                service(0).unwrap_or_default(),
                vip.problem.clone().unwrap_or_default(),
            ],
        );
        // A VIP of several addresses or services goes on below itself.
        for n in 1..vip.addresses.len().max(vip.services.len()) {
            let mut cells = [const { String::new() }; 7];
            cells[1] = address(n).unwrap_or_default();
            cells[5] = service(n).unwrap_or_default();
            table.continuation(tone, cells);
        }
    }
    table
}

/// As in `10.0.0.100/24`, or `10.0.0.100/24 (XDP)` where it is on no interface.
fn address(address: &VipAddressView) -> String {
    let by_xdp = if address.answered { " (XDP)" } else { "" };
    format!("{}{by_xdp}", address.address)
}

/// As in `lb1`, or `lb1 (held)`.
fn owner(vip: &VipView) -> String {
    let held = if vip.held.is_some() { " (held)" } else { "" };
    let router =
        || vip.router.as_ref().map_or_else(String::new, |router| format!("router {router}"));
    vip.owner.as_ref().map_or_else(router, |owner| format!("{owner}{held}"))
}

/// As in `443/tcp 2/3 up`, `443/tcp 2/3 up, 17 over limit`, or `22/tcp local` where the owner itself is behind it.
fn service(service: &ServiceView) -> String {
    let limited = service.limited.filter(|n| *n > 0);
    let limited = limited.map_or_else(String::new, |n| format!(", {n} over limit"));
    if service.backends.is_empty() {
        return format!("{} local{limited}", service.port);
    }
    format!("{} {}/{} up{limited}", service.port, service.up, service.backends.len())
}

fn event(event: &EventView) -> String {
    let time = crate::events::moment(event.at);
    let vip = event.vip.as_ref().map_or_else(String::new, |vip| format!("{vip}: "));
    format!("{time}  {vip}{}", event.sentence)
}

/// Milliseconds as people say them.
pub(crate) fn span(millis: f64) -> String {
    words::span(Duration::try_from_secs_f64(millis / 1e3).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use buoy_api::{BackendView, HeldView};

    pub(super) fn status() -> ClusterStatus {
        let node = |name: &str, alive: bool, state: &str| NodeView {
            name: name.into(),
            address: "10.0.0.11:4747".into(),
            me: name == "lb1",
            alive,
            round_trip_ms: (name == "lb2").then_some(0.23),
            hears_us: alive,
            digest: Some("00007f3c".into()),
            state: state.into(),
            ..NodeView::default()
        };
        let address =
            |address: &str| VipAddressView { address: address.into(), ..VipAddressView::default() };
        let https = ServiceView {
            port: "443/tcp".into(),
            backends: vec![BackendView::default(); 3],
            up: 2,
            ..ServiceView::default()
        };
        let web = VipView {
            name: "web".into(),
            addresses: vec![address("10.0.0.100/24"), address("2001:db8::100/64")],
            owner: Some("lb1".into()),
            epoch: 41,
            since_ms: Some(183_600_000.0),
            services: vec![https],
            problem: Some("web3: HTTP 503".into()),
            ..VipView::default()
        };
        let db = VipView {
            name: "db".into(),
            addresses: vec![address("10.0.0.200/24")],
            epoch: 7,
            ..VipView::default()
        };
        ClusterStatus {
            cluster: "prod".into(),
            node: "lb1".into(),
            digest: "00007f3c".into(),
            generation: 2,
            timing: TimingView { lease_ms: 36.0, term_ms: Some(36.0), ..TimingView::default() },
            nodes: vec![node("lb1", true, "healthy"), node("lb2", true, "healthy")],
            vips: vec![web, db],
            ..ClusterStatus::default()
        }
    }

    #[test]
    fn the_cluster_fits_one_screen() {
        let expected = "\
CLUSTER prod  2 nodes, 2 heard  config 00007f3c (same on all heard), generation 2  lease 36 ms  seen from lb1

NODE   STATE    OWNS     RTT  ADDRESS
lb1 *  healthy     0       -  10.0.0.11:4747
lb2    healthy     0  0.2 ms  10.0.0.11:4747

VIP  ADDRESS           OWNER  EPOCH  SINCE  SERVICES        PROBLEM
web  10.0.0.100/24     lb1       41   2d3h  443/tcp 2/3 up  web3: HTTP 503
     2001:db8::100/64
db   10.0.0.200/24     -          7      -  -               -
";
        assert_eq!(screen(&status(), false, (false, usize::MAX)), expected);
    }

    #[test]
    fn what_is_wrong_and_what_happened_stand_below() {
        let mut status = status();
        status.nodes[1].digest = Some("dead".into());
        status.draining = Some("kernel upgrade (by root)".into());
        status.drain_left_ms = Some(240_000.0);
        status.cordoned = Some("disk (by ann)".into());
        status.witness = true;
        status.overlaps = 2;
        status.timing.term_ms = Some(120.0);
        status.vips[0].held = Some(HeldView::default());
        status.vips[0].services[0].limited = Some(17);
        status.safety = vec!["exclusive: never two owners".into()];
        status.problems = vec!["lb2 runs another configuration".into(), "two".into()];
        status.defences = vec!["the kernel gate stands on eth0".into()];
        status.events = (0..7)
            .map(|n| EventView {
                seq: None,
                at: n,
                node: None,
                vip: (n == 6).then(|| "web".into()),
                sentence: format!("event {n}"),
                ..EventView::default()
            })
            .collect();
        let screen = screen(&status, false, (false, usize::MAX));
        let foot = "
PROBLEMS
  lb2 runs another configuration
  two

DEFENCES (`buoy doctor` says what to do about one that lacks)
  the kernel gate stands on eth0

SAFETY
  exclusive: never two owners
  two nodes served one VIP at once, 2 times since this agent started (`buoy events`)

LATEST (`buoy events` has more)
  1970-01-01 00:00:00.002  event 2
  1970-01-01 00:00:00.003  event 3
  1970-01-01 00:00:00.004  event 4
  1970-01-01 00:00:00.005  event 5
  1970-01-01 00:00:00.006  web: event 6
";
        assert!(screen.ends_with(foot), "{screen}");
        assert!(screen.contains("NOT the same on all"), "{screen}");
        let drained = "\nDRAINED lb1 takes no VIP: kernel upgrade (by root), for another 4m0s\n";
        assert!(screen.contains(drained), "{screen}");
        let cordoned = "\nCORDONED lb1 takes a VIP only if no other node can: disk (by ann)\n";
        assert!(screen.contains(cordoned), "{screen}");
        assert!(screen.contains("\nWITNESS lb1 votes and never owns\n"), "{screen}");
        assert!(screen.contains("  lease 120 ms (36 ms when calm)  "), "{screen}");
        assert!(screen.contains("  lb1 (held)  "), "{screen}");
        assert!(screen.contains("  443/tcp 2/3 up, 17 over limit  "), "{screen}");
    }

    #[test]
    fn a_cluster_without_vips_says_how_to_get_one() {
        let status = ClusterStatus { vips: vec![], ..status() };
        assert!(screen(&status, false, (false, usize::MAX)).contains("\nno VIP: add a [[vip]]"));
    }
}
