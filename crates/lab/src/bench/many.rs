//! What many VIPs cost: processor time of daemons that have nothing to do, and the time until the last of
//! a thousand addresses answers at its new owner.

use super::stand::{Daemons, Stand};
use super::{Options, Outcome, System, brief};
use crate::Result;
use crate::fault::Fault;
use crate::probe::Window;
use crate::probe::stall::StallMeter;
use crate::probe::sweep::Sweep;
use crate::process::wait_until;
use crate::topology::wide_ipv4;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// So many VIPs are taken over at once.
pub(super) const MASS: usize = 1000;
/// How often; more costs time and tells little.
const MASS_REPEATS: usize = 3;
/// A VRRP id is a byte: four instances of keepalived carry the addresses.
const MASS_INSTANCES: usize = 4;
/// How long processor time is counted.
const COUNTED: Duration = Duration::from_secs(6);
/// How long daemons may take until every VIP has an owner.
const OWNED_MAX: Duration = Duration::from_secs(30);
/// How long all VIPs together may take to answer at their new owners.
const SWEPT_MAX: Duration = Duration::from_secs(10);
/// What a daemon does in its first seconds is not its idling: a VIP is announced four times.
const SETTLE: Duration = Duration::from_secs(2);
/// Lines of each node that are kept.
const SAID_MAX: usize = 8;

/// Processor time of daemons without work.
#[derive(Clone, Debug)]
pub struct Idle {
    /// Who.
    pub system: String,
    /// With how many VIPs.
    pub vips: usize,
    /// Hundredths of one processor, of the owner of all VIPs.
    pub owner: f64,
    /// The same, of the busiest other node.
    pub other: f64,
    /// Changes of owner while the time was taken; `None`: the system cannot be asked.
    pub takeovers: Option<u64>,
    /// For how long those were counted.
    pub time: Duration,
}

/// One takeover of many VIPs.
#[derive(Clone, Debug)]
pub struct Mass {
    /// Who.
    pub system: String,
    /// What happened.
    pub fault: Fault,
    /// How many VIPs.
    pub vips: usize,
    /// How many answered at a new owner at all.
    pub answered: usize,
    /// Until the first answered there.
    pub first: Duration,
    /// Until half of them did.
    pub median: Duration,
    /// Until the last did.
    pub last: Duration,
    /// The longest time that the machine itself stood still meanwhile.
    pub stall: Duration,
}

/// With how many VIPs a system is measured.
pub(super) const fn counts(system: System) -> &'static [usize] {
    match system {
        System::Buoy => &[1, 50, 250, MASS],
        // One VRRP instance each, as VIPs that move by themselves need: 255 are all that there are.
        System::Keepalived(_) => &[1, 50, 250],
    }
}

/// Idle daemons, and many VIPs at once.
pub(super) fn measure(
    options: &Options,
    systems: &[System],
    meter: &StallMeter,
    outcome: &mut Outcome,
) -> Result<()> {
    for system in systems {
        for vips in counts(*system) {
            println!("{} idles with {vips} VIPs.", system.name());
            let mut stand = match Stand::many(*system, *vips, *vips) {
                Ok(stand) => stand,
                Err(error) => {
                    outcome.notes.push(format!(
                        "{} with {vips} VIPs: {}",
                        system.name(),
                        brief(&error)
                    ));
                    continue;
                }
            };
            match idle(&mut stand, *vips) {
                Ok(idle) => outcome.idle.push(idle),
                Err(error) => {
                    outcome.notes.push(format!(
                        "{} with {vips} VIPs: {}",
                        system.name(),
                        brief(&error)
                    ));
                }
            }
            if *vips == MASS {
                mass(&mut stand, options, meter, outcome);
            }
        }
    }
    let fastest = System::Keepalived(Duration::from_millis(10));
    if systems.contains(&fastest) {
        let mut stand = Stand::many(fastest, MASS, MASS_INSTANCES)?;
        std::thread::sleep(SETTLE);
        mass(&mut stand, options, meter, outcome);
    }
    Ok(())
}

fn idle(stand: &mut Stand, vips: usize) -> Result<Idle> {
    stand.wait_owned(OWNED_MAX)?;
    std::thread::sleep(SETTLE);
    let began = Idling::begin(stand)?;
    std::thread::sleep(COUNTED);
    began.end(stand, vips)
}

/// Many VIPs of Buoy that stand by themselves for a long time.
pub(super) struct Standing {
    stand: Stand,
    vips: usize,
    began: Idling,
    /// How much each node had said by then.
    said: Vec<usize>,
}

impl Standing {
    pub(super) fn begin(vips: usize) -> Result<Self> {
        let mut stand = Stand::many(System::Buoy, vips, vips)?;
        stand.wait_owned(OWNED_MAX)?;
        std::thread::sleep(SETTLE);
        let said = stand.nodes().iter().map(|node| stand.log(node).lines().count()).collect();
        let began = Idling::begin(&mut stand)?;
        Ok(Self { stand, vips, began, said })
    }

    /// What it cost, and the first lines that the nodes wrote meanwhile.
    pub(super) fn end(mut self) -> Result<(Idle, Vec<String>)> {
        let idle = self.began.end(&mut self.stand, self.vips)?;
        let mut said = Vec::new();
        for (node, before) in self.stand.nodes().into_iter().zip(&self.said) {
            let log = self.stand.log(node);
            let lines = log.lines().skip(*before).take(SAID_MAX);
            said.extend(lines.map(|line| format!("{node}: {line}")));
        }
        Ok((idle, said))
    }
}

/// The counters of a system when its idling began.
struct Idling {
    from: Instant,
    used: Vec<Duration>,
    epochs: Option<u64>,
}

impl Idling {
    fn begin(stand: &mut Stand) -> Result<Self> {
        let epochs = stand.epochs();
        Ok(Self { from: Instant::now(), used: stand.used()?, epochs })
    }

    fn end(&self, stand: &mut Stand, vips: usize) -> Result<Idle> {
        let (used, time) = (stand.used()?, self.from.elapsed());
        let share = |(after, before): (&Duration, &Duration)| {
            100.0 * after.saturating_sub(*before).as_secs_f64() / time.as_secs_f64()
        };
        let shares: Vec<f64> = used.iter().zip(&self.used).map(share).collect();
        let epochs = stand.epochs().zip(self.epochs);
        Ok(Idle {
            system: stand.system.name(),
            vips,
            owner: shares.first().copied().unwrap_or_default(),
            other: shares.iter().skip(1).copied().fold(0.0, f64::max),
            takeovers: epochs.map(|(after, before)| after.saturating_sub(before)),
            time,
        })
    }
}

/// Cuts the owner of all VIPs off, and (where there is such a thing) takes it out of service.
fn mass(stand: &mut Stand, options: &Options, meter: &StallMeter, outcome: &mut Outcome) {
    let faults: &[Fault] = match stand.system {
        System::Buoy => &[Fault::SilentCut, Fault::Kill, Fault::Drain],
        System::Keepalived(_) => &[Fault::SilentCut, Fault::Terminate],
    };
    println!("{}: {MASS} VIPs taken over at once.", stand.system.name());
    for fault in faults {
        for _ in 0..MASS_REPEATS.min(options.repeat) {
            match stand.sweep(*fault, meter) {
                Ok(mass) => {
                    let ms = mass.last.as_secs_f64() * 1e3;
                    println!(
                        "  {}: {} answer, the last after {ms:.0} ms",
                        fault.name(),
                        mass.answered
                    );
                    outcome.mass.push(mass);
                }
                Err(error) => {
                    let system = stand.system.name();
                    let error = brief(&error);
                    outcome.notes.push(format!("{system}, {MASS} VIPs, {}: {error}", fault.name()));
                    return;
                }
            }
        }
    }
}

impl Stand {
    /// Waits until every VIP has an owner.
    fn wait_owned(&mut self, at_most: Duration) -> Result<()> {
        match &self.daemons {
            Daemons::Buoy(buoy) => {
                let all = |status: &buoy_api::ClusterStatus| {
                    !status.vips.is_empty() && status.vips.iter().all(|vip| vip.owner.is_some())
                };
                buoy.wait_status("n1", at_most, "an owner for every VIP", all).map(drop)
            }
            Daemons::Keepalived(_) => {
                wait_until(at_most, "keepalived to settle", || Ok(self.is_ready())).map(drop)
            }
        }
    }

    /// Processor time of each node's daemon so far, the first node first.
    fn used(&mut self) -> Result<Vec<Duration>> {
        let nodes = self.nodes();
        let peer = self.daemons.peer();
        nodes.into_iter().map(|node| Ok(peer.process(node)?.cpu_time())).collect()
    }

    /// What a node has written so far.
    fn log(&self, node: &str) -> String {
        match &self.daemons {
            Daemons::Buoy(buoy) => std::fs::read_to_string(buoy.log(node)).unwrap_or_default(),
            Daemons::Keepalived(_) => String::new(),
        }
    }

    /// The epochs of all VIPs together: it grows by one with every takeover.
    fn epochs(&self) -> Option<u64> {
        match &self.daemons {
            Daemons::Buoy(buoy) => {
                let status = buoy.status("n1").ok()?;
                Some(status.vips.iter().map(|vip| u64::from(vip.epoch)).sum())
            }
            Daemons::Keepalived(_) => None,
        }
    }

    /// One fault at the owner of all VIPs, and until when each answers elsewhere.
    fn sweep(&mut self, fault: Fault, meter: &StallMeter) -> Result<Mass> {
        let vips: Vec<Ipv4Addr> = (0..MASS).map(wide_ipv4).collect();
        let owner = self.gather(&vips)?;
        let old = self.segment.host(&owner)?.mac();
        let before = Instant::now();
        let sweep = Sweep::start(self.segment.inside("observer")?, &vips, old)?;
        fault.inject(&self.segment, self.daemons.peer(), &owner)?;
        // A command that cuts takes a while; a signal and an order do not.
        let from = if fault == Fault::SilentCut { Instant::now() } else { before };
        let _some_never = wait_until(SWEPT_MAX, "all VIPs", || Ok(sweep.answered().len() == MASS));
        let mut times: Vec<Duration> =
            sweep.answered().into_iter().map(|at| at.saturating_duration_since(from)).collect();
        times.sort_unstable();
        let stall = meter.worst(Window { from: before, to: Instant::now() });
        drop(sweep);
        fault.heal(&self.segment, self.daemons.peer(), &owner)?;
        Ok(Mass {
            system: self.system.name(),
            fault,
            vips: MASS,
            answered: times.len(),
            first: times.first().copied().unwrap_or_default(),
            median: times.get(times.len() / 2).copied().unwrap_or_default(),
            last: times.last().copied().unwrap_or_default(),
            stall,
        })
    }

    /// Brings all VIPs to one node; which one.
    fn gather(&mut self, vips: &[Ipv4Addr]) -> Result<String> {
        wait_until(OWNED_MAX, "a node that could take over", || Ok(self.is_ready()))?;
        if let Daemons::Buoy(buoy) = &mut self.daemons {
            use crate::peer::Peer;
            let all = |status: &buoy_api::ClusterStatus| {
                !status.vips.is_empty() && status.vips.iter().all(|vip| vip.mine)
            };
            if !buoy.status("n1").is_ok_and(|status| all(&status)) {
                buoy.drain("n2", true)?;
                buoy.drain("n3", true)?;
                buoy.wait_status("n1", OWNED_MAX, "all VIPs on n1", all)?;
                buoy.drain("n2", false)?;
                buoy.drain("n3", false)?;
                wait_until(OWNED_MAX, "nodes that could take over", || Ok(self.is_ready()))?;
            }
            return Ok("n1".to_owned());
        }
        // Without a word for it, the one that answers for the first address has them all, or none does.
        let address = vips.first().copied().unwrap_or(Ipv4Addr::UNSPECIFIED);
        let arp =
            crate::probe::arp::ArpObserver::start(self.segment.inside("observer")?, &[address])?;
        let mut owner = None;
        wait_until(OWNED_MAX, "one owner", || {
            owner = self.owner(&arp, address);
            Ok(owner.is_some())
        })?;
        owner.ok_or(crate::Error::Unknown { what: "owner".to_owned() })
    }
}
