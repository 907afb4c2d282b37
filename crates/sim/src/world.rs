//! Runs a scenario: moves true time from event to event and carries everything between the hosts.

use crate::agent::{Agent, News};
use crate::checker::{self, CONVERGENCE, Fitness, RESTLESS, STABLE, Violation};
use crate::clock::Clock;
use crate::datagram::Datagrams;
use crate::fault::Fault;
use crate::host::Host;
use crate::ledger::Ledger;
use crate::network::Network;
use crate::random::Random;
use crate::scenario::{HostPlan, LINK, Scenario};
use crate::statistics::Statistics;
use crate::trace::{Trace, What};
use buoy_model::{Action, ClusterId, Message};
use buoy_wire::{Key, Keyring};
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::sync::Arc;

/// How often a calm cluster is looked at, in heartbeats; and how seldom at most, in nanoseconds.
const LOOKS_PER_BEAT: u64 = 2;
const LOOK_MAX: u64 = 50_000_000;

/// A cluster in motion.
#[derive(Debug)]
pub struct World {
    pub(crate) scenario: Scenario,
    pub(crate) now: u64,
    pub(crate) hosts: Vec<Host>,
    pub(crate) agents: Vec<Agent>,
    pub(crate) network: Network,
    pub(crate) datagrams: Datagrams,
    pub(crate) ledger: Ledger,
    pub(crate) random: Random,
    pub(crate) trace: Trace,
    pub(crate) statistics: Statistics,
    pub(crate) calm: bool,
    /// Until then an owner may still change for a good reason.
    pub(crate) restless_until: u64,
    /// Since when nobody answers for each address.
    pub(crate) silent_since: Vec<Option<u64>>,
    /// Since when every group has had the owner it should have.
    settled_since: Option<u64>,
    over: bool,
    pub(crate) cluster: ClusterId,
    pub(crate) keyring: Keyring,
    queue: BinaryHeap<Reverse<Entry>>,
    planned: u64,
    pub(crate) composed: Message,
    pub(crate) opened: Message,
    pub(crate) decided: Vec<Action>,
    pub(crate) violation: Option<Violation>,
}

/// Something that is planned. The order of moments decides, then that of planning.
#[derive(Clone, Copy, Debug)]
struct Entry {
    at: u64,
    number: u64,
    planned: Planned,
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.at.cmp(&other.at).then(self.number.cmp(&other.number))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }

    // The heap asks this one, and asks often.
    fn le(&self, other: &Self) -> bool {
        (self.at, self.number) <= (other.at, other.number)
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Entry {}

/// What is to happen at a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Planned {
    Fault(u32),
    Calm,
    Look,
    Spread,
    Arrives { to: u8, leg: u8, again: bool, datagram: u32 },
    Wakes { host: u8, life: u32 },
    Steps { host: u8, life: u32 },
    Thaws { host: u8, life: u32 },
    Resumes { host: u8 },
    Hangs { host: u8, life: u32 },
    Mourns { host: u8, life: u32 },
    Sweeps { host: u8, life: u32 },
    Starts { host: u8, life: u32 },
    Expires { host: u8, address: u16 },
}

/// A run that kept every promise.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Outcome {
    /// The hash of the trace; of nothing where none is kept.
    pub hash: u64,
    /// How long after the last fault the cluster was settled for good, in nanoseconds.
    pub settled_after: u64,
    /// How much time was simulated, in nanoseconds.
    pub simulated: u64,
    /// How many groups each host has in the end.
    pub loads: Vec<usize>,
    /// What it was made of.
    pub statistics: Statistics,
}

impl World {
    /// The scenario at its first moment.
    pub fn new(mut scenario: Scenario, trace: Trace) -> Self {
        let addresses = scenario.groups.iter().flat_map(|group| &group.addresses);
        scenario.addresses = addresses.map(|address| address.cidr.address()).collect();
        scenario.addresses.sort_unstable();
        // Stable, so that faults of one moment keep their order.
        scenario.faults.sort_by_key(|(at, _)| *at);
        let mut random = Random::new(scenario.seed ^ 0x5eed);
        let addresses = scenario.addresses.len();
        let host = |plan: &HostPlan| {
            Host::new(Clock::new(0, plan.clock, plan.drift), plan.fence, addresses)
        };
        let everything = u64::MAX;
        let desired = |i| Arc::new(scenario.desired(i, everything, scenario.timing, 1));
        let agent = |(i, plan): (usize, &HostPlan)| Agent::new(desired(i), plan.speaks);
        let (hosts, legs) = (scenario.hosts.len(), scenario.legs.len());
        let key = Key::new([7; buoy_model::limits::KEY_LEN]);
        let mut world = Self {
            now: 0,
            hosts: scenario.hosts.iter().map(host).collect(),
            agents: scenario.hosts.iter().enumerate().map(agent).collect(),
            network: Network::new(hosts, legs, scenario.weather.clone(), random.fork()),
            datagrams: Datagrams::default(),
            ledger: Ledger::new(scenario.groups.len(), scenario.watches.clone()),
            random,
            trace,
            statistics: Statistics::default(),
            calm: false,
            restless_until: scenario.calm_at + RESTLESS.as_nanos() as u64,
            silent_since: vec![None; addresses],
            settled_since: None,
            over: false,
            cluster: ClusterId::of("sim"),
            keyring: Keyring::new(vec![key]).expect("one key makes a keyring"),
            queue: BinaryHeap::new(),
            planned: 0,
            composed: Message::default(),
            opened: Message::default(),
            decided: Vec::new(),
            violation: None,
            scenario,
        };
        world.plan_scenario();
        world
    }

    fn plan_scenario(&mut self) {
        // What ends at a moment ends before something breaks at it.
        for watch in self.scenario.watches.clone() {
            self.plan(watch.span.end, Planned::Spread);
        }
        self.plan_fault(0);
        self.plan(self.scenario.calm_at, Planned::Calm);
    }

    /// One at a time: a day of hours has thousands, and every event would have to pass them.
    fn plan_fault(&mut self, i: u32) {
        let Some((at, _)) = self.scenario.faults.get(i as usize) else { return };
        if *at < self.scenario.calm_at {
            self.plan(*at, Planned::Fault(i));
        }
    }

    /// The trace so far.
    pub const fn trace(&self) -> &Trace {
        &self.trace
    }

    /// How much time was simulated so far, in nanoseconds.
    pub const fn simulated(&self) -> u64 {
        self.now
    }

    /// Runs to the end, or to the first broken promise.
    pub fn run(&mut self) -> Result<Outcome, Violation> {
        for host in 0..self.hosts.len() {
            self.start(host);
        }
        while let Some(Reverse(Entry { at, planned, .. })) = self.queue.pop() {
            debug_assert!(self.now <= at);
            self.now = at;
            self.statistics.events += 1;
            self.happen(planned);
            if let Some(violation) = self.violation.take() {
                return Err(violation);
            }
            if self.over {
                break;
            }
        }
        self.statistics.changes = self.ledger.changes;
        Ok(Outcome {
            hash: self.trace.hash(),
            settled_after: self.settled_since.unwrap_or(self.now) - self.scenario.calm_at,
            simulated: self.now,
            loads: checker::loads(&self.scenario, &self.hosts, self.now),
            statistics: self.statistics,
        })
    }

    /// Looks whether the calm cluster is settled, and for long enough to end.
    fn look(&mut self) {
        let beat = self.scenario.timing.heartbeat.as_nanos() as u64;
        self.plan(self.now + (beat / LOOKS_PER_BEAT).min(LOOK_MAX), Planned::Look);
        let restless = self.now < self.restless_until;
        let running = self.agents.iter().filter(|agent| agent.is_running()).count();
        let fitness: Vec<_> = (0..self.hosts.len())
            .map(|host| Fitness {
                running: self.agents[host].is_running(),
                draining: self.agents[host].draining,
                carrier: self.hosts[host].carrier,
                // Of two that are left neither hears anybody there; and a link of the others that was
                // seen to flap is not better until it has held for a while.
                unheard: self.scenario.unheard == Some(host) && running > 2 && !restless,
            })
            .collect();
        let unsettled = checker::unsettled(&self.scenario, &self.hosts, &fitness, self.now);
        let bound = self.scenario.calm_at + CONVERGENCE.as_nanos() as u64;
        let stable = STABLE.as_nanos() as u64;
        let watched = self.settled_since.is_some_and(|since| since + stable <= self.now);
        let changed = self.settled_since.is_some_and(|since| since < self.ledger.changed_at);
        if watched && !restless && (changed || unsettled.is_some()) {
            self.violate(Violation::Unstable { at: self.now });
            return;
        }
        match unsettled {
            Some(unsettled) if bound <= self.now && !restless => self.violate(unsettled.into()),
            Some(_) => self.settled_since = None,
            None if changed => self.settled_since = Some(self.now),
            None => _ = self.settled_since.get_or_insert(self.now),
        }
        let patient = self.scenario.patient || self.scenario.unheard.is_some();
        let end = bound.max(self.restless_until) + 4 * stable;
        self.over = watched && self.settled_since.is_some() && (!patient || end <= self.now);
        if self.over {
            self.explain_all();
        }
    }

    pub(crate) fn violate(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }

    pub(crate) fn plan(&mut self, at: u64, planned: Planned) {
        self.planned += 1;
        self.queue.push(Reverse(Entry { at, number: self.planned, planned }));
    }

    pub(crate) fn note(&mut self, host: usize, what: What) {
        self.trace.push(self.now, Some(host), what);
    }

    fn happen(&mut self, planned: Planned) {
        match planned {
            Planned::Fault(i) => {
                let fault = self.scenario.faults[i as usize].1.clone();
                self.trace.push(self.now, None, What::Broke(fault.clone()));
                self.statistics.fault(&fault);
                self.plan_fault(i + 1);
                self.break_(fault);
            }
            Planned::Calm => self.calm_down(),
            Planned::Look => self.look(),
            Planned::Spread => {
                if let Some(violation) = self.ledger.spread(self.now) {
                    self.violate(violation);
                }
            }
            Planned::Arrives { to, leg, again, datagram } => {
                self.arrive(to.into(), leg, again, datagram);
            }
            Planned::Wakes { host, life } => self.wake(host.into(), life),
            Planned::Steps { host, life } => self.step(host.into(), life),
            Planned::Thaws { host, life } => self.thaw(host.into(), life),
            Planned::Resumes { host } => self.resume(host.into()),
            Planned::Hangs { host, life } => self.hangs(host.into(), life),
            Planned::Mourns { host, life } => self.mourn(host.into(), life),
            Planned::Sweeps { host, life } => self.sweep(host.into(), life),
            Planned::Starts { host, life } => {
                if self.agents[usize::from(host)].life == life {
                    self.start(host.into());
                }
            }
            Planned::Expires { host, address } => self.expire(host.into(), address.into()),
        }
    }

    /// Everything is mended, except for what the scenario leaves broken.
    fn calm_down(&mut self) {
        self.trace.push(self.now, None, What::Calm);
        self.calm = true;
        self.network.heal();
        if let Some(host) = self.scenario.unheard {
            let leg = self.scenario.legs.iter().position(|link| *link == LINK);
            for (from, to) in [(1 << host, u64::MAX), (u64::MAX, 1 << host)] {
                self.network.cut(1 << leg.unwrap_or_default(), from, to, false);
            }
        }
        for host in 0..self.hosts.len() {
            let down = self.scenario.down.contains(&host);
            let drained = self.scenario.drained.contains(&host);
            self.hosts[host].suspended = 0;
            if down {
                self.bury(host);
                continue;
            }
            if !self.agents[host].is_running() {
                self.start(host);
            }
            self.agents[host].frozen = 0;
            self.reload(host, u64::MAX, None);
            self.carrier(host, true);
            self.drain(host, drained);
            self.cordon(host, self.scenario.cordoned.contains(&host));
            for group in 0..self.scenario.groups.len() {
                let (id, fitness) = (self.scenario.groups[group].id, buoy_model::Fitness::Fit);
                self.tell(host, News::Fitness { group: id, fitness });
            }
            self.go_on(host);
        }
        for group in 0..self.scenario.groups.len() {
            self.break_(Fault::Release { group });
        }
        self.plan(self.now, Planned::Look);
    }
}
