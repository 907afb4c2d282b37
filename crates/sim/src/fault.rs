//! What breaks, what is ordered, and how each is done to the world.

use crate::agent::News;
use crate::clock::Clock;
use crate::host::Host;
use crate::network::{EVERY_LEG, Weather};
use crate::scenario::LINK;
use crate::trace::What;
use crate::world::{Planned, World};
use buoy_model::{Fitness, Order, Timing, WireVersion};
use core::time::Duration;
use std::sync::Arc;

const MS: u64 = 1_000_000;

/// One thing that breaks, is mended or is ordered. Hosts and groups are named by their place, sets of
/// them by bits.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(missing_docs, reason = "the fields are what they are called")]
pub enum Fault {
    /// The agent dies; the kernel keeps what it was told. Where there is a supervisor, it sees it.
    CrashAgent { host: usize },
    /// The host loses power; it comes back with an empty kernel and another clock.
    CrashHost { host: usize },
    /// The agent ends in order.
    Stop { host: usize },
    /// A new agent starts where none runs.
    Start { host: usize },
    /// The agent, or all programs of the host, get no processor; the sockets fill up. Where there is a
    /// supervisor, it ends an agent that hangs alone.
    Freeze { host: usize, time: Duration, alone: bool },
    /// The host sleeps: its kernel hears and says nothing, and its clock goes on.
    Suspend { host: usize, time: Duration },
    /// Nothing gets from one set of hosts to another.
    Cut { from: u64, to: u64 },
    /// One such cut is mended.
    Mend { from: u64, to: u64 },
    /// Nothing gets from one set of hosts to another on this leg.
    CutLeg { leg: usize, from: u64, to: u64 },
    /// One such cut is mended.
    MendLeg { leg: usize, from: u64, to: u64 },
    /// The network changes its manners.
    Weather(Weather),
    /// The carrier of the VIPs' interface goes or comes, and with it the leg on it.
    Carrier { host: usize, up: bool },
    /// An operator drains the node, or takes it back.
    Drain { host: usize, on: bool },
    /// An operator drains the node for so long.
    DrainFor { host: usize, time: Duration },
    /// An operator lets the node take nothing new, or anything again.
    Cordon { host: usize, on: bool },
    /// An operator moves a group, wherever it is.
    Move { group: usize, to: usize },
    /// An operator keeps a group where it is, until it is released or for so long.
    Hold { group: usize, time: Option<Duration> },
    /// An operator lets a group go where it belongs.
    Release { group: usize },
    /// The host's own checks of a group fail or pass.
    Unfit { host: usize, group: usize, fitness: Fitness },
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
    /// The agent is replaced by one of the newest version.
    Upgrade { host: usize },
}

/// A fault and its true time in nanoseconds.
pub(crate) type Schedule = Vec<(u64, Fault)>;

impl Fault {
    /// What it is called in reports, in their order.
    pub const NAMES: [&'static str; 21] = [
        "crash of an agent",
        "power loss",
        "stop",
        "start",
        "freeze",
        "suspend",
        "cut",
        "cut of one leg",
        "weather",
        "carrier",
        "drain",
        "move",
        "hold or release",
        "check fails or passes",
        "foreign deletion",
        "foreign claim",
        "reload",
        "clock drift",
        "replay",
        "upgrade",
        "cordon",
    ];

    /// Its place in `NAMES`; repairs of the network are not counted.
    pub const fn kind(&self) -> Option<usize> {
        Some(match self {
            Self::CrashAgent { .. } => 0,
            Self::CrashHost { .. } => 1,
            Self::Stop { .. } => 2,
            Self::Start { .. } => 3,
            Self::Freeze { .. } => 4,
            Self::Suspend { .. } => 5,
            Self::Cut { .. } => 6,
            Self::CutLeg { .. } => 7,
            Self::Weather(_) => 8,
            Self::Carrier { .. } => 9,
            Self::Drain { .. } | Self::DrainFor { .. } => 10,
            Self::Move { .. } => 11,
            Self::Hold { .. } | Self::Release { .. } => 12,
            Self::Unfit { .. } => 13,
            Self::Delete { .. } => 14,
            Self::Claim { .. } => 15,
            Self::Reload { .. } => 16,
            Self::Drift { .. } => 17,
            Self::Replay { .. } => 18,
            Self::Upgrade { .. } => 19,
            Self::Cordon { .. } => 20,
            Self::Mend { .. } | Self::MendLeg { .. } => return None,
        })
    }
}

impl World {
    /// Breaks or mends one thing. What is broken already stays as it is.
    pub(crate) fn break_(&mut self, fault: Fault) {
        match fault {
            Fault::CrashAgent { host } => self.crash(host),
            Fault::CrashHost { host } => self.cut_power(host),
            Fault::Stop { host } => self.tell(host, News::Stop),
            Fault::Start { host } => self.restart(host),
            Fault::Freeze { host, time, alone } => self.freeze(host, time, alone),
            Fault::Suspend { host, time } => self.suspend(host, time),
            Fault::Cut { from, to } => self.network.cut(EVERY_LEG, from, to, false),
            Fault::Mend { from, to } => self.network.cut(EVERY_LEG, from, to, true),
            Fault::CutLeg { leg, from, to } => self.network.cut(1 << leg, from, to, false),
            Fault::MendLeg { leg, from, to } => self.network.cut(1 << leg, from, to, true),
            Fault::Weather(weather) => self.network.weather = weather,
            Fault::Carrier { host, up } => self.carrier(host, up),
            Fault::Drain { host, on } => self.drain(host, on),
            Fault::DrainFor { host, time } => {
                let until = Some(self.hosts[host].clock.local(self.now) + time);
                self.tell(host, News::Order(Order::Drain { reason: reason(), until }));
            }
            Fault::Cordon { host, on } => self.cordon(host, on),
            Fault::Move { group, to } => self.order(group, |id, world| {
                let to = world.scenario.hosts[to].id;
                Order::Move { group: id, to, reason: reason() }
            }),
            Fault::Hold { group, time } => self.hold(group, time),
            Fault::Release { group } => {
                self.order(group, |group, _| Order::Release { group, reason: reason() });
            }
            Fault::Unfit { host, group, fitness } => {
                let group = self.scenario.groups[group].id;
                self.tell(host, News::Fitness { group, fitness });
            }
            Fault::Delete { host, group } => self.delete(host, group),
            Fault::Claim { host, group } => self.claim(host, group),
            Fault::Reload { host, groups, timing } => self.reload(host, groups, timing),
            Fault::Drift { host, ppm } => self.bend(host, ppm),
            Fault::Replay { count } => self.replay(count),
            Fault::Upgrade { host } => {
                self.agents[host].speaks = WireVersion::V2;
                self.crash(host);
                self.restart(host);
            }
        }
    }

    /// The host loses power.
    fn cut_power(&mut self, host: usize) {
        self.kill(host);
        let carrier = self.hosts[host].carrier;
        let drift = self.scenario.hosts[host].drift;
        // The clock of a host counts from its boot.
        let boot = self.random.within(1_000 * MS..20_000 * MS);
        let clock = Clock::new(self.now, boot, drift);
        let fence = self.hosts[host].fence;
        self.hosts[host] = Host::new(clock, fence, self.scenario.addresses.len());
        self.hosts[host].carrier = carrier;
    }

    fn bend(&mut self, host: usize, ppm: i64) {
        self.hosts[host].clock.bend(self.now, ppm);
        // The kernel's timers follow the clock.
        let addresses: Vec<_> = self.hosts[host].addresses().collect();
        for address in addresses {
            if let Some(at) = self.hosts[host].expiry(address) {
                let (host, address) = (host as u8, address as u16);
                self.plan(at.max(self.now), Planned::Expires { host, address });
            }
        }
    }

    pub(crate) fn carrier(&mut self, host: usize, up: bool) {
        if self.hosts[host].carrier != up {
            self.hosts[host].carrier = up;
            let leg = self.scenario.legs.iter().position(|link| *link == LINK);
            if let Some(leg) = leg.filter(|_| !self.calm) {
                self.network.cut(1 << leg, 1 << host, u64::MAX, up);
                self.network.cut(1 << leg, u64::MAX, 1 << host, up);
            }
            self.tell(host, News::Link { link: LINK, up });
        }
    }

    /// Said again even if it is so already: an order may have had an end.
    pub(crate) fn drain(&mut self, host: usize, on: bool) {
        self.agents[host].draining = on;
        let order = if on {
            Order::Drain { reason: reason(), until: None }
        } else {
            Order::Undrain { reason: reason() }
        };
        self.tell(host, News::Order(order));
    }

    pub(crate) fn cordon(&mut self, host: usize, on: bool) {
        let order = if on {
            Order::Cordon { reason: reason() }
        } else {
            Order::Uncordon { reason: reason() }
        };
        self.tell(host, News::Order(order));
    }

    /// Tells whoever serves a group.
    pub(crate) fn order(
        &mut self,
        group: usize,
        order: impl Fn(buoy_model::GroupId, &Self) -> Order,
    ) {
        let id = self.scenario.groups[group].id;
        for host in self.ledger.holders(group) {
            let order = order(id, self);
            self.note(host, What::Ordered(format!("{order:?}")));
            self.tell(host, News::Order(order));
        }
    }

    fn hold(&mut self, group: usize, time: Option<Duration>) {
        for host in self.ledger.holders(group) {
            let until = time.map(|time| self.hosts[host].clock.local(self.now) + time);
            let order =
                Order::Hold { group: self.scenario.groups[group].id, reason: reason(), until };
            self.tell(host, News::Order(order));
        }
    }

    fn delete(&mut self, host: usize, group: usize) {
        for (link, address, place) in self.scenario.places(group) {
            if self.hosts[host].remove(place) {
                self.tell(host, News::AddressLost { link, address });
            }
        }
    }

    fn claim(&mut self, host: usize, group: usize) {
        for (link, address, _) in self.scenario.places(group) {
            self.tell(host, News::ForeignClaim { link, address });
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
            if let Some(recording) = self.network.replay() {
                let at = self.now + self.random.within(0..20 * MS);
                self.datagrams.keep(recording.datagram);
                let (to, leg, datagram) = (recording.to, recording.leg, recording.datagram);
                self.plan(at, Planned::Arrives { to, leg, again: true, datagram });
            }
        }
    }
}

fn reason() -> String {
    "simulated".into()
}
