//! Runs a scenario: moves true time from event to event and carries everything between the hosts.
//!
//! An agent's loop is what the real driver does: read all that arrived, handle it, tick if a deadline
//! has passed, do what was decided, in order. Doing takes time now and then, and an agent may freeze
//! or die between two actions.

use crate::agent::{Agent, News};
use crate::checker::{self, CONVERGENCE, Fitness, RESTLESS, STABLE, Violation};
use crate::clock::Clock;
use crate::host::{Host, LIFETIME_LAG};
use crate::network::Network;
use crate::random::Random;
use crate::scenario::{LINK, Scenario};
use crate::trace::{Trace, What};
use buoy_core::{Fence, Node, Settings};
use buoy_model::{Action, Cause, ClusterId, Event, Fact, Incarnation, Leg, Mac, Message, Safety};
use buoy_wire::{Key, Keyring};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// A machine that ticks so often at one moment does not go on.
const TICKS_MAX: u32 = 8;

/// A cluster in motion.
#[derive(Debug)]
pub struct World {
    pub(crate) scenario: Scenario,
    pub(crate) now: u64,
    pub(crate) hosts: Vec<Host>,
    pub(crate) agents: Vec<Agent>,
    pub(crate) network: Network,
    pub(crate) random: Random,
    pub(crate) trace: Trace,
    pub(crate) statistics: Statistics,
    pub(crate) calm: bool,
    /// Since when every group has had the owner it should have.
    settled_since: Option<u64>,
    keyring: Keyring,
    queue: BinaryHeap<Reverse<(u64, u64, Planned)>>,
    planned: u64,
    composed: Message,
    opened: Message,
    decided: Vec<Action>,
    violation: Option<Violation>,
}

/// What is to happen at a moment. The order of moments decides, then that of planning.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Planned {
    Fault(usize),
    Calm,
    Arrives { to: usize, bytes: Vec<u8>, again: bool },
    Wakes { host: usize, life: u64 },
    Steps { host: usize, life: u64 },
    Thaws { host: usize, life: u64 },
    Starts { host: usize },
    Expires { host: usize, address: IpAddr },
}

/// What a run was made of.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Statistics {
    /// Events of any kind.
    pub events: u64,
    /// Datagrams sent.
    pub datagrams: u64,
    /// Groups that a node took.
    pub acquired: u64,
    /// Of these, from an owner that fell silent.
    pub taken_over: u64,
    /// Leases that ended because a majority or the processor was missing.
    pub expired: u64,
    /// Times a host answered for an address while its agent was dead or frozen.
    pub orphaned: u64,
    /// Faults.
    pub faults: u64,
    /// When a node last took a group, in nanoseconds.
    pub last_acquired: u64,
}

/// A run that kept every promise.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Outcome {
    /// The hash of the trace.
    pub hash: u64,
    /// How long after the last fault the cluster was settled for good, in nanoseconds.
    pub settled_after: u64,
    /// How many groups each host has in the end.
    pub loads: Vec<usize>,
    /// What it was made of.
    pub statistics: Statistics,
}

impl World {
    /// The scenario at its first moment; `keep_all` keeps the whole trace.
    pub fn new(scenario: Scenario, keep_all: bool) -> Self {
        let mut random = Random::new(scenario.seed ^ 0x5eed);
        let everything = u64::MAX;
        let host =
            |plan: &crate::HostPlan| Host::new(Clock::new(0, plan.clock, plan.drift), plan.fence);
        let agent = |i| Agent::new(Arc::new(scenario.desired(i, everything, scenario.timing, 1)));
        let key = Key::new([7; buoy_model::limits::KEY_LEN]);
        let mut world = Self {
            now: 0,
            hosts: scenario.hosts.iter().map(host).collect(),
            agents: (0..scenario.hosts.len()).map(agent).collect(),
            network: Network::new(scenario.hosts.len(), scenario.weather.clone(), random.fork()),
            random,
            trace: Trace::new(keep_all),
            statistics: Statistics::default(),
            calm: false,
            settled_since: None,
            keyring: Keyring::new(vec![key]).expect("one key makes a keyring"),
            queue: BinaryHeap::new(),
            planned: 0,
            composed: Message::default(),
            opened: Message::default(),
            decided: Vec::new(),
            violation: None,
            scenario,
        };
        for (i, (at, _)) in world.scenario.faults.clone().iter().enumerate() {
            if *at < world.scenario.calm_at {
                world.plan(*at, Planned::Fault(i));
            }
        }
        world.plan(world.scenario.calm_at, Planned::Calm);
        world
    }

    /// The trace so far.
    pub const fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Runs to the end, or to the first broken promise.
    pub fn run(&mut self) -> Result<Outcome, Violation> {
        for host in 0..self.hosts.len() {
            self.start(host);
        }
        while let Some(Reverse((at, _, planned))) = self.queue.pop() {
            debug_assert!(self.now <= at);
            self.now = at;
            if self.calm && self.is_over()? {
                break;
            }
            self.statistics.events += 1;
            self.happen(planned);
            if let Some(violation) = self.violation.take() {
                return Err(violation);
            }
        }
        Ok(Outcome {
            hash: self.trace.hash(),
            settled_after: self.settled_since.unwrap_or(self.now) - self.scenario.calm_at,
            loads: checker::loads(&self.scenario, &self.hosts, self.now),
            statistics: self.statistics,
        })
    }

    /// Whether the cluster has been settled for long enough; an error when it should be and is not.
    fn is_over(&mut self) -> Result<bool, Violation> {
        let fitness: Vec<_> = (self.hosts.iter().zip(&self.agents))
            .map(|(host, agent)| Fitness {
                running: agent.is_running(),
                draining: agent.draining,
                carrier: host.carrier,
            })
            .collect();
        let bound = self.scenario.calm_at + CONVERGENCE.as_nanos() as u64;
        let stable = STABLE.as_nanos() as u64;
        let settled = checker::unsettled(&self.scenario, &self.hosts, &fitness, self.now);
        let watched = self.settled_since.is_some_and(|since| since + stable <= self.now);
        let restless = self.now < self.scenario.calm_at + RESTLESS.as_nanos() as u64;
        match settled {
            Some(unsettled) if watched && !restless => {
                return Err(Violation::Unstable { at: self.now, group: unsettled.group });
            }
            Some(unsettled) if bound <= self.now => return Err(unsettled.into()),
            Some(_) => self.settled_since = None,
            None => _ = self.settled_since.get_or_insert(self.now),
        }
        Ok(watched && (!self.scenario.patient || bound + stable <= self.now))
    }

    pub(crate) fn plan(&mut self, at: u64, planned: Planned) {
        self.planned += 1;
        self.queue.push(Reverse((at, self.planned, planned)));
    }

    pub(crate) fn note(&mut self, host: usize, what: What) {
        self.trace.push(self.now, Some(host), what);
    }

    fn happen(&mut self, planned: Planned) {
        match planned {
            Planned::Fault(i) => {
                let fault = self.scenario.faults[i].1.clone();
                self.trace.push(self.now, None, What::Broke(fault.clone()));
                self.statistics.faults += 1;
                self.break_(fault);
            }
            Planned::Calm => self.calm_down(),
            Planned::Arrives { to, bytes, again } => self.tell(to, News::Datagram { bytes, again }),
            // One that was planned for later than another is not needed any more.
            Planned::Wakes { host, life }
                if self.agents[host].life == life && self.agents[host].wake_at == self.now =>
            {
                self.agents[host].wake_at = u64::MAX;
                self.run_agent(host);
            }
            Planned::Steps { host, life } if self.agents[host].life == life => {
                self.agents[host].stepping = false;
                self.step(host);
            }
            Planned::Thaws { host, life } if self.agents[host].life == life => self.thaw(host),
            Planned::Wakes { .. } | Planned::Steps { .. } | Planned::Thaws { .. } => {}
            Planned::Starts { host } => self.start(host),
            Planned::Expires { host, address } => self.expire(host, address),
        }
    }

    /// Something arrives at an agent, if there is one.
    pub(crate) fn tell(&mut self, host: usize, news: News) {
        if !self.agents[host].is_running() {
            return;
        }
        if self.agents[host].arrive(news) {
            self.run_agent(host);
        } else {
            self.note(host, What::Overflowed);
        }
    }

    /// Begins a life of an agent.
    pub(crate) fn start(&mut self, host: usize) {
        let now = self.hosts[host].clock.local(self.now);
        let settings = Settings {
            incarnation: Incarnation(self.random.next() | 1),
            seed: self.random.next(),
            fence: self.hosts[host].fence,
            #[cfg(feature = "mutants")]
            mutation: self.scenario.mutation,
        };
        let node = Node::new(now, Arc::clone(&self.agents[host].desired), settings);
        self.agents[host].start(node);
        self.note(host, What::Started);
        if !self.hosts[host].carrier {
            self.agents[host].arrive(News::Link { link: LINK, up: false });
        }
        self.run_agent(host);
    }

    fn thaw(&mut self, host: usize) {
        let agent = &mut self.agents[host];
        agent.frozen = agent.frozen.saturating_sub(1);
        if agent.frozen == 0 {
            self.note(host, What::Resumed);
            self.go_on(host);
        }
    }

    /// Where it was: between two steps, or at the head of its loop.
    fn go_on(&mut self, host: usize) {
        if std::mem::take(&mut self.agents[host].halted) {
            self.plan_step(host);
        } else {
            self.run_agent(host);
        }
    }

    /// One turn of the loop, and further ones until there is nothing to do.
    fn run_agent(&mut self, host: usize) {
        let mut ticks = 0;
        while self.is_free(host) {
            let now = self.hosts[host].clock.local(self.now);
            let agent = &mut self.agents[host];
            let Some(deadline) = agent.node.as_ref().map(Node::deadline) else { return };
            if let Some(news) = agent.next_news() {
                self.take(host, news);
            } else if deadline.is_some_and(|at| at <= now) {
                ticks += 1;
                if ticks > TICKS_MAX {
                    self.violation.get_or_insert(Violation::Spins { at: self.now, host });
                    return;
                }
                self.note(host, What::Woke);
                self.handle(host, Event::Tick);
            } else {
                self.plan_wake(host);
                return;
            }
        }
    }

    fn is_free(&self, host: usize) -> bool {
        let agent = &self.agents[host];
        agent.is_running() && agent.frozen == 0 && !agent.stepping && self.violation.is_none()
    }

    fn plan_wake(&mut self, host: usize) {
        let agent = &self.agents[host];
        let Some(deadline) = agent.node.as_ref().and_then(Node::deadline) else { return };
        // A timer is a little late, and now and then the processor is somebody else's.
        let late = if self.random.permille(4) && !self.calm { 4_000_000 } else { 80_000 };
        let at = self.hosts[host].clock.when(deadline).max(self.now) + self.random.within(0..late);
        if at < self.agents[host].wake_at {
            self.agents[host].wake_at = at;
            let life = self.agents[host].life;
            self.plan(at, Planned::Wakes { host, life });
        }
    }

    fn take(&mut self, host: usize, news: News) {
        match news {
            News::Datagram { bytes, again } => self.hear(host, &bytes, again),
            News::Link { link, up } => self.handle(host, Event::Link { link, up }),
            News::AddressLost { link, address } => {
                self.handle(host, Event::AddressLost { link, address });
            }
            News::ForeignClaim { link, address } => {
                let mac = Mac([2, 0, 0, 0, 0, 0xee]);
                self.handle(host, Event::ForeignClaim { link, address, mac });
            }
            News::Reload => {
                let desired = Arc::clone(&self.agents[host].desired);
                self.handle(host, Event::Reload(desired));
            }
            News::Order(order) => self.handle(host, Event::Order(order)),
            News::Stop => self.handle(host, Event::Stop),
        }
    }

    fn hear(&mut self, host: usize, bytes: &[u8], again: bool) {
        let (cluster, me) = (ClusterId::of("sim"), self.scenario.hosts[host].id);
        let mut message = std::mem::take(&mut self.opened);
        match self.keyring.open(cluster, me, bytes, &mut message) {
            Ok(()) => {
                let from = self.scenario.place(message.header.from).unwrap_or(usize::MAX);
                let (kind, sequence) = (message.kind, message.header.sequence);
                self.note(host, What::Heard { from, kind, sequence });
                self.handle(host, Event::Heard { message: &message, leg: Leg(0) });
            }
            Err(reject) => {
                self.note(host, What::Rejected(reject));
                if !again {
                    let at = self.now;
                    self.violation.get_or_insert(Violation::Misunderstood { at, host, reject });
                }
            }
        }
        self.opened = message;
    }

    fn handle(&mut self, host: usize, event: Event<'_>) {
        let now = self.hosts[host].clock.local(self.now);
        let agent = &mut self.agents[host];
        let Some(node) = &mut agent.node else { return };
        node.handle(now, event, &mut self.decided);
        agent.todo.extend(self.decided.drain(..));
        // Without a gate nothing stops a kernel call that was decided before a freeze and is made
        // after it: what such a host does, it does at once here (`lib.rs`: what is not simulated).
        let slow = self.hosts[host].fence == Fence::Gate && self.random.permille(30);
        if slow && !self.calm {
            self.plan_step(host);
        } else {
            while self.step_once(host) {}
        }
    }

    fn plan_step(&mut self, host: usize) {
        let agent = &mut self.agents[host];
        agent.stepping = true;
        let life = agent.life;
        let pause = self.random.pick(&[5_000, 50_000, 500_000]);
        let at = self.now + self.random.within(1..pause);
        self.plan(at, Planned::Steps { host, life });
    }

    fn step(&mut self, host: usize) {
        if self.agents[host].frozen > 0 {
            self.agents[host].halted = true;
        } else if self.step_once(host) {
            self.plan_step(host);
        } else {
            self.run_agent(host);
        }
    }

    /// Does the next thing that was decided; false when there is none.
    fn step_once(&mut self, host: usize) -> bool {
        let Some(action) = self.agents[host].todo.pop_front() else { return false };
        self.apply(host, action);
        true
    }

    fn apply(&mut self, host: usize, action: Action) {
        match action {
            Action::Heartbeat { .. } | Action::Answer { .. } => self.send(host, &action),
            Action::PrepareGoodbye { .. } | Action::Renew { .. } => {}
            Action::Fence { address, until, .. } => {
                self.note(host, What::Gate { address, until });
                self.hosts[host].set_gate(address, until);
                self.check_owners(host, address);
            }
            Action::AddAddress { link, cidr, valid_lifetime } => {
                self.note(host, What::Added { cidr, valid: valid_lifetime });
                let lag = self.random.within(0..LIFETIME_LAG.as_nanos() as u64);
                let lag = Duration::from_nanos(lag);
                let end = self.hosts[host].add(self.now, link, cidr, valid_lifetime, lag);
                self.plan(end, Planned::Expires { host, address: cidr.address() });
                self.check_owners(host, cidr.address());
            }
            Action::RemoveAddress { cidr, .. } => {
                self.note(host, What::Removed { cidr });
                self.hosts[host].remove(cidr.address());
            }
            Action::Announce { address, kind, .. } => {
                self.note(host, What::Announced { address, kind });
            }
            Action::Record(record) => {
                self.count(&record.fact);
                self.note(host, What::Fact(record));
            }
            Action::Stopped => {
                self.note(host, What::Stopped);
                self.agents[host].die();
                if self.calm && !self.scenario.down.contains(&host) {
                    self.plan(self.now + 10_000_000, Planned::Starts { host });
                }
            }
        }
    }

    fn send(&mut self, host: usize, action: &Action) {
        let now = self.hosts[host].clock.local(self.now);
        let Some(node) = &mut self.agents[host].node else { return };
        let Some(to) = node.compose(now, action, &mut self.composed) else { return };
        let Some(to) = self.scenario.place(to) else { return };
        let (kind, sequence) = (self.composed.kind, self.composed.header.sequence);
        let mut bytes = Vec::new();
        self.keyring.seal(&self.composed, &mut bytes);
        self.statistics.datagrams += 1;
        let copies = self.network.carry(host, to, &bytes);
        let what = match copies[0] {
            Some(_) => What::Sent { to, kind, sequence },
            None => What::Lost { to },
        };
        self.note(host, what);
        for delay in copies.into_iter().flatten() {
            let arrives = Planned::Arrives { to, bytes: bytes.clone(), again: false };
            self.plan(self.now + delay, arrives);
        }
    }

    fn expire(&mut self, host: usize, address: IpAddr) {
        if let Some(link) = self.hosts[host].expire(self.now, address) {
            self.note(host, What::Expired { address });
            self.tell(host, News::AddressLost { link, address });
        }
    }

    /// `single_owner`. A host can begin to answer only by an action, so it is enough to look then.
    fn check_owners(&mut self, host: usize, address: IpAddr) {
        let group = self
            .scenario
            .groups
            .iter()
            .find(|group| group.addresses.iter().any(|a| a.cidr.address() == address));
        if group.is_none_or(|group| group.safety != Safety::Exclusive) {
            return;
        }
        if let Some(other) = checker::second_owner(&self.hosts, host, self.now, address) {
            let hosts = [host, other];
            self.violation.get_or_insert(Violation::TwoOwners { at: self.now, address, hosts });
        }
    }

    fn count(&mut self, fact: &Fact) {
        match fact {
            Fact::Acquired { cause, .. } => {
                self.statistics.acquired += 1;
                self.statistics.last_acquired = self.now;
                if let Cause::OwnerSilent { .. } = cause {
                    self.statistics.taken_over += 1;
                }
            }
            Fact::Released { cause: Cause::LeaseExpired | Cause::Stalled, .. } => {
                self.statistics.expired += 1;
            }
            Fact::Released { .. }
            | Fact::OwnerHeard { .. }
            | Fact::PeerUp { .. }
            | Fact::PeerDown { .. }
            | Fact::DuplicateNode { .. }
            | Fact::PeerGoodbye { .. }
            | Fact::Served { .. }
            | Fact::Overlap { .. }
            | Fact::Unheard { .. }
            | Fact::Damped { .. }
            | Fact::Tempo { .. }
            | Fact::Held { .. }
            | Fact::Freed { .. }
            | Fact::Conflict { .. }
            | Fact::Restored { .. }
            | Fact::Link { .. }
            | Fact::Stalled { .. }
            | Fact::Drained { .. }
            | Fact::Undrained => {}
        }
    }

    /// Everything is mended, except for what the scenario leaves broken.
    fn calm_down(&mut self) {
        self.trace.push(self.now, None, What::Calm);
        self.calm = true;
        self.network.heal();
        for host in 0..self.hosts.len() {
            let down = self.scenario.down.contains(&host);
            let drained = self.scenario.drained.contains(&host);
            if down {
                self.agents[host].die();
                continue;
            }
            if !self.agents[host].is_running() {
                self.start(host);
            }
            self.agents[host].frozen = 0;
            self.reload(host, u64::MAX, None);
            self.carrier(host, true);
            self.drain(host, drained);
            self.go_on(host);
        }
    }
}
