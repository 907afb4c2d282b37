//! The loop of an agent, as the real driver runs it, and what becomes of its actions.
//!
//! Read all that arrived, handle it, tick if a deadline has passed, do what was decided, in order.
//! Doing takes time now and then, and an agent may freeze or die between two actions.

use crate::agent::News;
use crate::checker::{self, Violation};
use crate::host::LIFETIME_LAG;
use crate::network::{self, Path, Recording};
use crate::trace::What;
use crate::world::{Planned, World};
use buoy_core::{Fence, Node};
use buoy_model::{
    Action, Event, Fact, Instant, Leg, LinkId, Mac, Message, MessageKind, Record, Rest, Safety,
    SharedLease, WireVersion,
};
use buoy_wire::Reject;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// A machine that ticks so often at one moment does not go on.
const TICKS_MAX: u32 = 8;
/// Of a thousand events, so many are followed by a look at the explanations.
const EXPLAINED: u64 = 4;

impl World {
    /// Something arrives at an agent, if there is one.
    pub(crate) fn tell(&mut self, host: usize, news: News) {
        if self.agents[host].is_running() {
            self.agents[host].arrive(news);
            self.run_agent(host);
        }
    }

    /// A datagram arrives at a host.
    pub(crate) fn arrive(&mut self, host: usize, leg: u8, again: bool, datagram: u32) {
        let hears = self.agents[host].is_running() && self.hosts[host].suspended == 0;
        if !hears {
            self.datagrams.leave(datagram);
        } else if self.agents[host].arrive(News::Datagram { datagram, leg, again }) {
            self.run_agent(host);
        } else {
            self.note(host, What::Overflowed);
            self.datagrams.leave(datagram);
        }
    }

    /// The agent's timer.
    pub(crate) fn wake(&mut self, host: usize, life: u32) {
        // One that was planned for later than another is not needed any more.
        if self.agents[host].life == life && self.agents[host].wake_at == self.now {
            self.agents[host].wake_at = u64::MAX;
            self.run_agent(host);
        }
    }

    /// One turn of the loop, and further ones until there is nothing to do.
    pub(crate) fn run_agent(&mut self, host: usize) {
        let mut ticks = 0;
        while self.is_free(host) {
            let agent = &mut self.agents[host];
            if let Some(news) = agent.next_news() {
                self.take(host, news);
                continue;
            }
            let Some(deadline) = agent.node.as_ref().and_then(Node::deadline) else { return };
            if self.hosts[host].clock.local(self.now) < deadline {
                self.plan_wake(host, deadline);
                return;
            }
            ticks += 1;
            if ticks > TICKS_MAX {
                self.violate(Violation::Spins { at: self.now, host });
                return;
            }
            self.note(host, What::Woke);
            self.handle(host, Event::Tick);
        }
    }

    fn is_free(&self, host: usize) -> bool {
        let agent = &self.agents[host];
        let runs = agent.frozen == 0 && self.hosts[host].suspended == 0;
        agent.is_running() && runs && !agent.stepping && self.violation.is_none()
    }

    fn plan_wake(&mut self, host: usize, deadline: Instant) {
        let agent = &self.agents[host];
        if agent.wake_at != u64::MAX && agent.wake_for == deadline {
            return;
        }
        // A timer is a little late, and now and then the processor is somebody else's.
        let late = if self.random.permille(4) && !self.calm { 4_000_000 } else { 80_000 };
        let at = self.hosts[host].clock.when(deadline).max(self.now) + self.random.within(0..late);
        let agent = &mut self.agents[host];
        if at < agent.wake_at {
            agent.wake_at = at;
            agent.wake_for = deadline;
            let (host, life) = (host as u8, agent.life);
            self.plan(at, Planned::Wakes { host, life });
        }
    }

    fn take(&mut self, host: usize, news: News) {
        match news {
            News::Datagram { datagram, leg, again } => self.hear(host, datagram, leg, again),
            News::Link { link, up } => self.handle(host, Event::Link { link, up }),
            News::AddressLost { link, address } => {
                self.handle(host, Event::AddressLost { link, address });
            }
            News::ForeignClaim { link, address } => {
                let mac = Mac([2, 0, 0, 0, 0, 0xee]);
                self.handle(host, Event::ForeignClaim { link, address, mac });
            }
            News::Fitness { group, fitness } => {
                self.handle(host, Event::Fitness { group, fitness });
            }
            News::Reload => {
                let desired = Arc::clone(&self.agents[host].desired);
                self.handle(host, Event::Reload(desired));
            }
            News::Order(order) => self.handle(host, Event::Order(order)),
            News::Stop => self.handle(host, Event::Stop),
        }
    }

    fn hear(&mut self, host: usize, at: u32, leg: u8, again: bool) {
        let (cluster, me) = (self.cluster, self.scenario.hosts[host].id);
        let mut message = std::mem::take(&mut self.opened);
        let datagram = self.datagrams.content(at);
        let opened = if self.scenario.sealed {
            self.keyring.open(cluster, me, &datagram.bytes, &mut message)
        } else {
            std::mem::swap(&mut message, &mut datagram.message);
            Ok(())
        };
        // An old program does not understand the new form.
        let foreign = self.agents[host].speaks < message.version;
        match opened.and(if foreign { Err(Reject::Version) } else { Ok(()) }) {
            Ok(()) => {
                let from = self.scenario.place(message.header.from).unwrap_or(usize::MAX);
                let (kind, sequence) = (message.kind, message.header.sequence);
                self.note(host, What::Heard { from, leg, kind, sequence });
                self.handle(host, Event::Heard { message: &message, leg: Leg(leg) });
            }
            Err(reject) => {
                self.note(host, What::Rejected(reject));
                if !again && !foreign {
                    self.violate(Violation::Misunderstood { at: self.now, host, reject });
                }
            }
        }
        if !self.scenario.sealed {
            std::mem::swap(&mut message, &mut self.datagrams.content(at).message);
        }
        self.opened = message;
        self.datagrams.leave(at);
    }

    fn handle(&mut self, host: usize, event: Event<'_>) {
        let now = self.hosts[host].clock.local(self.now);
        let Some(node) = &mut self.agents[host].node else { return };
        let mut decided = std::mem::take(&mut self.decided);
        node.handle(now, event, &mut decided);
        // Without a gate nothing stops a kernel call that was decided before a freeze and is made
        // after it: what such a host does, it does at once here (`lib.rs`: what is not simulated).
        let slow = self.hosts[host].fence == Fence::Gate && self.random.permille(30);
        if slow && !self.calm {
            self.agents[host].todo.extend(decided.drain(..));
            self.plan_step(host);
        } else {
            decided.drain(..).for_each(|action| self.apply(host, action));
            if self.random.permille(EXPLAINED) {
                self.explain(host);
            }
        }
        self.decided = decided;
    }

    pub(crate) fn plan_step(&mut self, host: usize) {
        let agent = &mut self.agents[host];
        agent.stepping = true;
        let life = agent.life;
        let pause = self.random.pick(&[5_000, 50_000, 500_000]);
        let at = self.now + self.random.within(1..pause);
        self.plan(at, Planned::Steps { host: host as u8, life });
    }

    /// Does the next thing that was decided.
    pub(crate) fn step(&mut self, host: usize, life: u32) {
        if self.agents[host].life != life {
            return;
        }
        self.agents[host].stepping = false;
        if self.agents[host].frozen > 0 || self.hosts[host].suspended > 0 {
            self.agents[host].halted = true;
            return;
        }
        match self.agents[host].todo.pop_front() {
            Some(action) => {
                self.apply(host, action);
                self.plan_step(host);
            }
            None => self.run_agent(host),
        }
    }

    fn apply(&mut self, host: usize, action: Action) {
        match action {
            Action::Heartbeat { .. } | Action::Answer { .. } | Action::PrepareGoodbye { .. } => {
                self.send(host, &action);
            }
            Action::Renew { lease, until } => self.renew(host, lease, until),
            Action::Fence { address, until, lease, .. } => {
                self.note(host, What::Gate { address, until, lease });
                let Some(place) = self.scenario.address(address) else { return };
                let before = self.hosts[host].answers(self.now, place);
                self.hosts[host].set_gate(place, until, lease);
                self.changes(host, place, before);
            }
            Action::AddAddress { link, cidr, valid_lifetime: valid, presence: _ } => {
                self.note(host, What::Added { cidr, valid });
                let Some(place) = self.scenario.address(cidr.address()) else { return };
                let before = self.hosts[host].answers(self.now, place);
                let lag = self.random.within(0..LIFETIME_LAG.as_nanos() as u64);
                let lag = Duration::from_nanos(lag);
                let end = self.hosts[host].add(self.now, link, place, valid, lag);
                let (host, address) = (host as u8, place as u16);
                self.plan(end, Planned::Expires { host, address });
                self.changes(host.into(), place, before);
            }
            Action::RemoveAddress { cidr, .. } => {
                self.note(host, What::Removed { cidr });
                let Some(place) = self.scenario.address(cidr.address()) else { return };
                self.hosts[host].remove(place);
                self.answered(place);
            }
            Action::Announce { address, kind, .. } => {
                self.note(host, What::Announced { address, kind });
            }
            // No group of a scenario has virtual routers; those have a segment of their own.
            Action::Advertise { .. } => {}
            Action::Record(record) => self.record(host, record),
            Action::Stopped => self.stopped(host),
        }
    }

    fn renew(&mut self, host: usize, lease: SharedLease, until: Instant) {
        self.note(host, What::Renewed { lease, until });
        if !self.hosts[host].renew(self.now, lease, until) {
            return;
        }
        for place in 0..self.scenario.addresses.len() {
            if self.hosts[host].shares(place, lease) {
                self.begins(host, place);
            }
        }
    }

    fn record(&mut self, host: usize, record: Record) {
        self.statistics.fact(self.now, &record.fact);
        let group = record
            .group
            .and_then(|id| self.scenario.groups.binary_search_by_key(&id, |group| group.id).ok());
        if let (Fact::Acquired { .. }, Some(group)) = (&record.fact, group)
            && let Some(violation) = self.ledger.acquired(self.now, group, host)
        {
            self.violate(violation);
        }
        if let (Fact::Released { .. }, Some(group)) = (&record.fact, group) {
            self.ledger.released(self.now, group, host);
        }
        if let Fact::Damped { remaining, .. } = record.fact {
            // Its groups go back when that is over.
            let until = self.now + remaining.as_nanos() as u64 * 65 / 64;
            self.restless_until = self.restless_until.max(until + 1_000_000_000);
        }
        self.note(host, What::Fact(record));
    }

    fn stopped(&mut self, host: usize) {
        self.note(host, What::Stopped);
        self.ledger.died(host);
        self.bury(host);
        if self.calm && !self.scenario.down.contains(&host) {
            let life = self.agents[host].life;
            self.plan(self.now + 10_000_000, Planned::Starts { host: host as u8, life });
        }
    }

    fn send(&mut self, host: usize, action: &Action) {
        let now = self.hosts[host].clock.local(self.now);
        let Some(node) = &mut self.agents[host].node else { return };
        let Some(to) = node.compose(now, action, &mut self.composed) else { return };
        let Some(to) = self.scenario.place(to) else { return };
        if self.agents[host].speaks == WireVersion::V1 && !speak_as_before(&mut self.composed) {
            return;
        }
        let (kind, sequence) = (self.composed.kind, self.composed.header.sequence);
        let at = self.datagrams.take();
        let datagram = self.datagrams.content(at);
        if self.scenario.sealed {
            self.keyring.seal(&self.composed, &mut datagram.bytes);
        } else {
            std::mem::swap(&mut datagram.message, &mut self.composed);
        }
        if kind == MessageKind::Goodbye {
            if let Some(before) = self.agents[host].goodbyes[to].replace(at) {
                self.datagrams.leave(before);
            }
            return;
        }
        self.note(host, What::Sent { to, kind, sequence });
        self.carry(host, to, at, network::ORDINARY);
        self.datagrams.leave(at);
    }

    /// A datagram goes out on every leg; so many of a thousand are recorded.
    pub(crate) fn carry(&mut self, from: usize, to: usize, datagram: u32, permille: u64) {
        for leg in 0..self.scenario.legs.len() {
            self.statistics.datagrams += 1;
            let recording = Recording { to: to as u8, leg: leg as u8, datagram };
            let (kept, forgotten) = self.network.record(recording, permille);
            if kept {
                self.datagrams.keep(datagram);
            }
            if let Some(forgotten) = forgotten {
                self.datagrams.leave(forgotten.datagram);
            }
            let copies = self.network.carry(Path { from, to, leg });
            if copies[0].is_none() {
                self.note(from, What::Lost { to, leg });
            }
            for delay in copies.into_iter().flatten() {
                let (to, leg) = (to as u8, leg as u8);
                self.datagrams.keep(datagram);
                self.plan(self.now + delay, Planned::Arrives { to, leg, again: false, datagram });
            }
        }
    }

    /// The kernel takes an address off whose lifetime is over.
    pub(crate) fn expire(&mut self, host: usize, place: usize) {
        if let Some(link) = self.hosts[host].expire(self.now, place) {
            self.answered(place);
            self.lost(host, link, self.scenario.addresses[place]);
        }
    }

    fn lost(&mut self, host: usize, link: LinkId, address: IpAddr) {
        self.note(host, What::Expired { address });
        self.tell(host, News::AddressLost { link, address });
    }

    /// Whether a host answers for an address may have changed.
    fn changes(&mut self, host: usize, place: usize, before: bool) {
        if !before {
            self.begins(host, place);
        } else if !self.hosts[host].answers(self.now, place) {
            self.answered(place);
        }
    }

    /// `single_owner`: a host may begin to answer for an address, so nobody else may do so now.
    pub(crate) fn begins(&mut self, host: usize, place: usize) {
        if !self.hosts[host].answers(self.now, place) {
            return;
        }
        self.answered(place);
        let address = self.scenario.addresses[place];
        let has = |group: &&buoy_model::Group| {
            group.addresses.iter().any(|a| a.cidr.address() == address)
        };
        let group = self.scenario.groups.iter().find(has);
        if group.is_none_or(|group| group.safety != Safety::Exclusive) {
            return;
        }
        if let Some(other) = checker::second_owner(&self.hosts, host, self.now, place) {
            let hosts = [host, other];
            self.violate(Violation::TwoOwners { at: self.now, address, hosts });
        }
    }

    /// Notes for how long nobody answered for an address.
    pub(crate) fn answered(&mut self, place: usize) {
        let since = &mut self.silent_since[place];
        if self.hosts.iter().any(|host| host.answers(self.now, place)) {
            if let Some(since) = since.take() {
                let gap = self.now - since;
                self.statistics.longest_gap = self.statistics.longest_gap.max(gap);
            }
        } else {
            since.get_or_insert(self.now);
        }
    }

    /// `why_is_true`: what a node says of its decisions is what it decided.
    fn explain(&mut self, host: usize) {
        let now = self.hosts[host].clock.local(self.now);
        let Some(node) = &self.agents[host].node else { return };
        self.statistics.explained += 1;
        if let Err(contradiction) = node.why_agrees(now) {
            self.violate(Violation::Untrue { at: self.now, host, contradiction });
        }
    }

    /// The same for all, in the end.
    pub(crate) fn explain_all(&mut self) {
        for host in 0..self.hosts.len() {
            if self.is_free(host) {
                self.explain(host);
            }
        }
    }
}

/// Makes a message what a program of the first version would have sent; false where it would have
/// sent nothing.
fn speak_as_before(message: &mut Message) -> bool {
    if message.version == WireVersion::V1 {
        return message.kind != MessageKind::Goodbye;
    }
    if message.kind != MessageKind::Heartbeat || message.repeats {
        return false;
    }
    message.version = WireVersion::V1;
    message.list = buoy_model::ListVersion(0);
    message.rest = Rest::Unsaid;
    message.claims.iter_mut().for_each(|claim| {
        (claim.held, claim.to) = (false, buoy_model::NodeId(0));
    });
    true
}
