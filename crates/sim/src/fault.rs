//! What breaks, and a day full of it.
//!
//! Each seed has its own taste: it breaks a few kinds of things often rather than all kinds a
//! little, because faults find bugs in company (swarm testing, Groce et al. 2012).

use crate::agent::News;
use crate::clock::Clock;
use crate::host::Host;
use crate::network::Weather;
use crate::random::Random;
use crate::scenario::{self, LINK};
use crate::trace::What;
use crate::world::{Planned, World};
use buoy_model::{Order, Timing};
use core::ops::Range;
use core::time::Duration;
use std::sync::Arc;

const MS: u64 = 1_000_000;

/// One thing that breaks or is mended. Hosts and groups are named by their place, sets of them by bits.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(missing_docs, reason = "the fields are what they are called")]
pub enum Fault {
    /// The agent dies; the kernel keeps what it was told.
    CrashAgent { host: usize },
    /// The host loses power; it comes back with an empty kernel and another clock.
    CrashHost { host: usize },
    /// The agent ends in order.
    Stop { host: usize },
    /// A new agent starts where none runs.
    Start { host: usize },
    /// The agent gets no processor; its sockets fill up.
    Freeze { host: usize, time: Duration },
    /// Nothing gets from one set of hosts to another.
    Cut { from: u64, to: u64 },
    /// One such cut is mended.
    Mend { from: u64, to: u64 },
    /// The network changes its manners.
    Weather(Weather),
    /// The carrier of the VIPs' interface goes or comes.
    Carrier { host: usize, up: bool },
    /// An operator drains the node, or takes it back.
    Drain { host: usize, on: bool },
    /// Somebody deletes the addresses of a group by hand.
    Delete { host: usize, group: usize },
    /// Somebody else on the segment claims the addresses of a group.
    Claim { host: usize, group: usize },
    /// The node gets a configuration with this set of groups, and with other beats and terms than
    /// those of the scenario if they are given.
    Reload { host: usize, groups: u64, timing: Option<Timing> },
    /// The host's clock changes its rate.
    Drift { host: usize, ppm: i64 },
    /// So many datagrams of the past are delivered again.
    Replay { count: usize },
}

/// A fault and its true time in nanoseconds.
pub(crate) type Schedule = Vec<(u64, Fault)>;

/// What a seed likes to break.
const KINDS: usize = 14;

/// Faults between two moments, each with its repair where it has one (maybe after the end).
pub(crate) fn schedule(
    random: &mut Random,
    hosts: usize,
    groups: usize,
    drift_max: i64,
    span: Range<u64>,
) -> Schedule {
    let mut taste: [u64; KINDS] = core::array::from_fn(|_| random.pick(&[0, 0, 1, 1, 4]));
    if random.permille(500) {
        // A voter that has just started is silent for long: where nobody dies, more happens.
        taste[..3].fill(0);
    }
    // What needs company is rare if left to chance.
    taste[3..=5].iter_mut().for_each(|weight| *weight *= 2);
    taste[13] = random.pick(&[0, 2, 6]);
    let pace = random.pick(&[60, 150, 400, 1_000]) * MS;
    let mut faults = Schedule::new();
    let mut at = span.start;
    while at < span.end {
        one(random, &taste, (hosts, groups, drift_max), at, &mut faults);
        at += random.within(MS..2 * pace);
    }
    // Stable, so that faults of one moment keep their order.
    faults.sort_by_key(|(at, _)| *at);
    faults
}

fn one(
    random: &mut Random,
    taste: &[u64; KINDS],
    (hosts, groups, drift_max): (usize, usize, i64),
    at: u64,
    faults: &mut Schedule,
) {
    let host = random.index(hosts);
    let group = random.index(groups);
    let all = (1 << hosts) - 1;
    let repair = at + logarithmic(random, 20 * MS, 4_000 * MS);
    let mut then = |fault, repaired| faults.extend([(at, fault), (repair, repaired)]);
    match weighted(random, taste) {
        0 => then(Fault::CrashAgent { host }, Fault::Start { host }),
        1 => then(Fault::CrashHost { host }, Fault::Start { host }),
        2 => then(Fault::Stop { host }, Fault::Start { host }),
        3 => {
            let time = Duration::from_nanos(logarithmic(random, MS, 5_000 * MS));
            faults.push((at, Fault::Freeze { host, time }));
        }
        4 => {
            // One host, or any split, cut off in both directions.
            let side = if random.permille(400) { 1 << host } else { random.within(1..all + 1) };
            apart(side, all & !side, at..repair, faults);
        }
        5 => {
            let (from, to) = (1 << host, random.within(1..all + 1));
            let (from, to) = if random.permille(500) { (from, to) } else { (to, from) };
            then(Fault::Cut { from, to }, Fault::Mend { from, to });
        }
        6 => {
            let weather = [Weather::CALM, Weather::BUSY, Weather::BAD, Weather::FAR];
            let next = random.index(weather.len());
            faults.push((at, Fault::Weather(weather[next].clone())));
        }
        7 => then(Fault::Carrier { host, up: false }, Fault::Carrier { host, up: true }),
        8 => then(Fault::Drain { host, on: true }, Fault::Drain { host, on: false }),
        9 => faults.push((at, Fault::Delete { host, group })),
        10 => faults.push((at, Fault::Claim { host, group })),
        11 => {
            // The file reaches each host when it does, and some never.
            let groups = random.within(0..1 << groups);
            let timing = random.permille(150).then(|| scenario::timing(random));
            for host in 0..hosts {
                let at = at + random.within(0..500 * MS);
                if random.permille(800) {
                    faults.push((at, Fault::Reload { host, groups, timing }));
                }
            }
        }
        12 => {
            let ppm = random.drift(drift_max);
            faults.push((at, Fault::Drift { host, ppm }));
            faults.push((repair, Fault::Replay { count: 1 + random.index(50) }));
        }
        _ => feud(random, hosts, at, faults),
    }
}

/// Nothing gets from one side to the other, nor back.
fn apart(side: u64, other: u64, time: Range<u64>, faults: &mut Schedule) {
    for (from, to) in [(side, other), (other, side)] {
        faults.push((time.start, Fault::Cut { from, to }));
        faults.push((time.end, Fault::Mend { from, to }));
    }
}

/// Two hosts that do not hear each other want the same things, and those whose votes they need have
/// troubles of their own: this is where a promise that is broken shows.
fn feud(random: &mut Random, hosts: usize, at: u64, faults: &mut Schedule) {
    let owner = random.index(hosts);
    let rival = (owner + 1 + random.index(hosts - 1)) % hosts;
    let end = at + random.within(500 * MS..3_000 * MS);
    apart(1 << owner, 1 << rival, at..end, faults);
    for _ in 0..random.within(2..9) {
        let at = random.within(at..end);
        let host = random.index(hosts);
        let soon = at + logarithmic(random, MS, 300 * MS);
        match random.index(5) {
            0 => {
                faults.push((at, Fault::CrashAgent { host }));
                faults.push((at + random.within(MS..40 * MS), Fault::Start { host }));
            }
            1 => {
                let time = Duration::from_nanos(soon - at);
                faults.push((at, Fault::Freeze { host: owner, time }));
            }
            2 => faults.push((at, Fault::Replay { count: 20 })),
            3 => {
                let (from, to) = (1 << owner, u64::MAX);
                faults.extend([(at, Fault::Cut { from, to }), (soon, Fault::Mend { from, to })]);
            }
            _ => {
                faults.push((at, Fault::Weather(Weather::FAR)));
                faults.push((soon, Fault::Weather(Weather::CALM)));
            }
        }
    }
}

fn weighted(random: &mut Random, weights: &[u64; KINDS]) -> usize {
    let sum: u64 = weights.iter().sum();
    if sum == 0 {
        return random.index(KINDS);
    }
    let mut left = random.within(0..sum);
    weights
        .iter()
        .position(|w| {
            let here = left < *w;
            left = left.saturating_sub(*w);
            here
        })
        .unwrap_or_default()
}

/// Short ones as often as long ones, whatever the unit.
fn logarithmic(random: &mut Random, min: u64, max: u64) -> u64 {
    let doublings = (max / min).ilog2() + 1;
    let scale = min << random.within(0..doublings.into());
    random.within(scale..2 * scale).min(max)
}

impl World {
    /// Breaks or mends one thing. What is broken already stays as it is.
    pub(crate) fn break_(&mut self, fault: Fault) {
        match fault {
            Fault::CrashAgent { host } => self.kill(host),
            Fault::CrashHost { host } => self.cut_power(host),
            Fault::Stop { host } => self.tell(host, News::Stop),
            Fault::Start { host } if !self.agents[host].is_running() => self.restart(host),
            Fault::Start { .. } => {}
            Fault::Freeze { host, time } => self.freeze(host, time),
            Fault::Cut { from, to } => self.network.cut(from, to, false),
            Fault::Mend { from, to } => self.network.cut(from, to, true),
            Fault::Weather(weather) => self.network.weather = weather,
            Fault::Carrier { host, up } => self.carrier(host, up),
            Fault::Drain { host, on } => self.drain(host, on),
            Fault::Delete { host, group } => self.delete(host, group),
            Fault::Claim { host, group } => self.claim(host, group),
            Fault::Reload { host, groups, timing } => self.reload(host, groups, timing),
            Fault::Drift { host, ppm } => self.bend(host, ppm),
            Fault::Replay { count } => self.replay(count),
        }
    }

    fn kill(&mut self, host: usize) {
        if self.agents[host].is_running() {
            self.count_orphans(host);
            self.note(host, What::Died);
            self.agents[host].die();
        }
    }

    fn cut_power(&mut self, host: usize) {
        self.kill(host);
        let carrier = self.hosts[host].carrier;
        let drift = self.scenario.hosts[host].drift;
        // The clock of a host counts from its boot.
        let boot = self.random.within(1_000 * MS..20_000 * MS);
        self.hosts[host] = Host::new(Clock::new(self.now, boot, drift), self.hosts[host].fence);
        self.hosts[host].carrier = carrier;
    }

    fn restart(&mut self, host: usize) {
        // The driver removes what an earlier life has left, if it gets to it.
        if self.random.permille(500) {
            let left: Vec<_> = self.hosts[host].addresses().collect();
            for address in left {
                self.hosts[host].remove(address);
            }
        }
        self.start(host);
    }

    fn freeze(&mut self, host: usize, time: Duration) {
        if !self.agents[host].is_running() {
            return;
        }
        self.count_orphans(host);
        let agent = &mut self.agents[host];
        agent.frozen += 1;
        let life = agent.life;
        let at = self.now + time.as_nanos() as u64;
        self.plan(at, Planned::Thaws { host, life });
    }

    fn bend(&mut self, host: usize, ppm: i64) {
        self.hosts[host].clock.bend(self.now, ppm);
        // The kernel's timers follow the clock.
        let addresses: Vec<_> = self.hosts[host].addresses().collect();
        for address in addresses {
            if let Some(at) = self.hosts[host].expiry(address) {
                self.plan(at.max(self.now), Planned::Expires { host, address });
            }
        }
    }

    fn count_orphans(&mut self, host: usize) {
        let serving = self.hosts[host].addresses();
        let serving = serving.filter(|address| self.hosts[host].answers(self.now, *address));
        self.statistics.orphaned += serving.count() as u64;
    }

    pub(crate) fn carrier(&mut self, host: usize, up: bool) {
        if self.hosts[host].carrier != up {
            self.hosts[host].carrier = up;
            self.tell(host, News::Link { link: LINK, up });
        }
    }

    pub(crate) fn drain(&mut self, host: usize, on: bool) {
        if self.agents[host].is_running() && self.agents[host].draining != on {
            self.agents[host].draining = on;
            let reason = "simulated".into();
            let order = if on { Order::Drain { reason, until: None } } else { Order::Undrain };
            self.tell(host, News::Order(order));
        }
    }

    fn delete(&mut self, host: usize, group: usize) {
        for address in self.scenario.groups[group].addresses.clone() {
            let address = address.cidr.address();
            if self.hosts[host].remove(address) {
                self.tell(host, News::AddressLost { link: LINK, address });
            }
        }
    }

    fn claim(&mut self, host: usize, group: usize) {
        for address in self.scenario.groups[group].addresses.clone() {
            let address = address.cidr.address();
            self.tell(host, News::ForeignClaim { link: LINK, address });
        }
    }

    /// The file is there for the next life, too.
    pub(crate) fn reload(&mut self, host: usize, groups: u64, timing: Option<Timing>) {
        let timing = timing.unwrap_or(self.scenario.timing);
        let generation = self.agents[host].desired.generation + 1;
        let desired = self.scenario.desired(host, groups, timing, generation);
        self.agents[host].desired = Arc::new(desired);
        self.tell(host, News::Reload);
    }

    fn replay(&mut self, count: usize) {
        for _ in 0..count {
            if let Some((to, bytes)) = self.network.replay() {
                let at = self.now + self.random.within(0..20 * MS);
                self.plan(at, Planned::Arrives { to, bytes, again: true });
            }
        }
    }
}
