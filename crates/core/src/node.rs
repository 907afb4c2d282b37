//! One node of the cluster: carries events to the machines and their actions out.
//!
//! The order within a step is the safety of the whole: first leases that have run out end, then the
//! event is taken, then the view is judged, and only then anything is said to the peers.

use crate::judge::Verdicts;
use crate::ownership::{self, Context, Judgement, Ownership, State};
use crate::peer::Peer;
use crate::random::Random;
use crate::voter::{Asker, Voter};
use crate::votes::lease_end;
use crate::{Ignored, Status};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use buoy_model::limits::{GROUPS_MAX, LEASE_HEARTBEATS_MIN, LEASE_WITHOUT_GATE, SILENT_HEARTBEATS};
use buoy_model::{
    Action, Cause, Claim, Desired, Event, Fact, Fitness, FrameKind, Grant, GroupId, Incarnation,
    Instant, LinkId, Mac, Message, MessageKind, NodeId, Record, Safety, Sequence, Timing, Verdict,
};
use core::net::IpAddr;
use core::time::Duration;

/// What a node is told once, at its start.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// This life; random, not zero.
    pub incarnation: Incarnation,
    /// Seed of the challenges; random.
    pub seed: u64,
    /// What stops this host from answering when its lease ends.
    pub fence: Fence,
    /// A fault put in on purpose, to show that the checkers see it.
    #[cfg(feature = "mutants")]
    pub mutation: Option<crate::Mutation>,
}

/// The strongest line of defence of this host; it decides the term that the node asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fence {
    /// The kernel gate: stops at the deadline itself.
    Gate,
    /// The kernel's address lifetime: stops within `KERNEL_FENCE_LAG` of the last refresh.
    Lifetime,
}

/// One node.
#[derive(Clone, Debug)]
pub struct Node {
    pub(crate) desired: Arc<Desired>,
    pub(crate) settings: Settings,
    pub(crate) random: Random,
    /// This node's place in `Desired::nodes`.
    pub(crate) me: usize,
    pub(crate) sequence: Sequence,
    pub(crate) peers: Vec<Peer>,
    pub(crate) voter: Voter,
    /// One for each of `Desired::groups`, in their order.
    pub(crate) owned: Vec<Ownership>,
    pub(crate) verdicts: Verdicts,
    pub(crate) links_down: Vec<LinkId>,
    pub(crate) draining: Option<String>,
    /// When the last group is given away even if nobody has taken it over.
    pub(crate) stop_at: Option<Instant>,
    /// Everything is given away for good.
    pub(crate) stopped: bool,
    /// Until then this node listens for owners before it takes anything.
    pub(crate) listening_until: Instant,
    pub(crate) beat_at: Instant,
    /// When a voter that has refused us can be asked again.
    pub(crate) ask_again_at: Option<Instant>,
    /// The view has changed: judge again.
    pub(crate) unsettled: bool,
    /// What we say of ourselves has changed: say so at once.
    pub(crate) news: bool,
    fresh: bool,
    pub(crate) ignored: Ignored,
    pub(crate) answered: Sequence,
    pub(crate) grants: Vec<Grant>,
    #[cfg(feature = "mutants")]
    pub(crate) delayed: Vec<(Instant, Action)>,
}

impl Node {
    /// A node that has just started: it knows nobody, votes for nobody and listens.
    pub fn new(now: Instant, desired: Arc<Desired>, settings: Settings) -> Self {
        let mut random = Random::new(settings.seed);
        let me = desired.node_index(desired.me).unwrap_or_default();
        let peers = (0..desired.nodes.len())
            .filter(|i| *i != me)
            .map(|i| Peer::new(desired.nodes[i].id, i, &mut random))
            .collect();
        let owned = desired.groups.iter().map(|_| Ownership::new()).collect();
        let listen =
            desired.timing.lease.max(desired.timing.heartbeat * (LEASE_HEARTBEATS_MIN + 1));
        let mut node = Self {
            desired,
            settings,
            random,
            me,
            sequence: Sequence(0),
            peers,
            voter: Voter::new(now),
            owned,
            verdicts: Verdicts::default(),
            links_down: Vec::new(),
            draining: None,
            stop_at: None,
            stopped: false,
            listening_until: now + listen,
            beat_at: now,
            ask_again_at: None,
            unsettled: true,
            news: false,
            fresh: true,
            ignored: Ignored::default(),
            answered: Sequence(0),
            grants: Vec::with_capacity(GROUPS_MAX),
            #[cfg(feature = "mutants")]
            delayed: Vec::new(),
        };
        node.mutate();
        node
    }

    /// Takes one event; what is to be done is appended to `out`, to be applied in order.
    pub fn handle(&mut self, now: Instant, event: Event<'_>, out: &mut Vec<Action>) {
        #[cfg(feature = "mutants")]
        let from = out.len();
        if core::mem::take(&mut self.fresh) {
            // Whatever an earlier life left behind is not leased to this one.
            self.desired.groups.iter().for_each(|g| ownership::fence(g, Instant::ZERO, out));
        }
        self.expire(now, out);
        match event {
            Event::Tick => self.tick(now, out),
            Event::Heard { message, leg } => self.hear(now, message, leg, out),
            Event::Link { link, up } => self.link(now, link, up, out),
            Event::AddressLost { link, address } => self.restore(now, link, address, out),
            Event::ForeignClaim { link, address, mac } => {
                self.defend(now, link, address, mac, out);
            }
            Event::Fitness { group, fitness } => self.fitness(group, fitness),
            Event::Reload(desired) => self.reload(now, desired, out),
            Event::Order(order) => self.order(now, order, out),
            Event::Stop => {
                self.stop_at.get_or_insert(now + self.desired.timing.lease);
                self.beat_now();
            }
        }
        self.settle(now, out);
        #[cfg(feature = "mutants")]
        self.delay_release(now, from, out);
        self.check_invariants(now);
    }

    /// When to call `handle` with `Event::Tick`.
    pub fn deadline(&self) -> Option<Instant> {
        let silence = self.silence();
        let mut due = self.beat_at;
        let mut earliest = |at: Option<Instant>| due = at.map_or(due, |at| due.min(at));
        self.owned.iter().for_each(|o| earliest(o.deadline()));
        self.peers.iter().for_each(|p| earliest(p.silent_at(silence)));
        earliest(self.ask_again_at);
        earliest(self.verdicts.review_at);
        earliest(self.stop_at);
        Some(due)
    }

    /// What this node knows and why it does what it does.
    pub fn status(&self, now: Instant) -> Status {
        crate::why::status(self, now)
    }

    /// The term this node asks for: what its kernel's fence needs.
    pub(crate) fn term(&self) -> Duration {
        match self.settings.fence {
            Fence::Gate => self.desired.timing.lease,
            Fence::Lifetime => LEASE_WITHOUT_GATE,
        }
    }

    /// How long a peer may be silent.
    pub(crate) fn silence(&self) -> Duration {
        let Timing { heartbeat, lease, .. } = self.desired.timing;
        // Not much sooner than the lease ends: to want it earlier gains nothing.
        (heartbeat * SILENT_HEARTBEATS + heartbeat / 2).max(lease * 7 / 10)
    }

    pub(crate) fn me(&self) -> Asker {
        Asker { node: self.desired.me, incarnation: self.settings.incarnation, term: self.term() }
    }

    pub(crate) fn context<'a>(&self, now: Instant, desired: &'a Desired, i: usize) -> Context<'a> {
        Context {
            now,
            group: &desired.groups[i],
            gated: self.settings.fence == Fence::Gate,
            majority: self.majority(desired),
            next: Sequence(self.sequence.0 + 1),
            own_lease_end: lease_end(now, desired.timing.lease),
            patience: desired.timing.lease,
        }
    }

    /// Ends every lease that has run out, before anything else is looked at.
    fn expire(&mut self, now: Instant, out: &mut Vec<Action>) {
        let desired = Arc::clone(&self.desired);
        for (group, ownership) in desired.groups.iter().zip(&mut self.owned) {
            let Some(holding) = ownership.holding() else { continue };
            if now < holding.until {
                continue;
            }
            let late = now.since(holding.until);
            let cause = match group.safety {
                Safety::Exclusive => Cause::LeaseExpired,
                Safety::Available => Cause::Stalled,
            };
            if late > desired.timing.lease {
                out.push(Action::Record(Record {
                    at: now,
                    group: None,
                    fact: Fact::Stalled { late },
                }));
            }
            ownership.release(now, group, cause, out);
            self.voter.give_back(
                Asker {
                    node: desired.me,
                    incarnation: self.settings.incarnation,
                    term: Duration::ZERO,
                },
                group.id,
            );
            // After a stall the peers' news waits in the sockets: read it before judging.
            self.listening_until = now + desired.timing.heartbeat;
            self.unsettled = true;
            self.news = true;
        }
    }

    fn tick(&mut self, now: Instant, out: &mut Vec<Action>) {
        let late = now.since(self.beat_at);
        if late > self.desired.timing.heartbeat {
            self.peers.iter_mut().for_each(|p| p.excuse(late, now));
        }
        let silence = self.silence();
        for i in 0..self.peers.len() {
            if let Some(silent) = self.peers[i].expire(now, silence) {
                self.lose(now, i, silent, out);
            }
        }
        if self.ask_again_at.is_some_and(|at| at <= now) {
            self.ask_again_at = None;
            self.news = true;
        }
        if self.verdicts.review_at.is_some_and(|at| at <= now) {
            self.verdicts.review_at = None;
            self.unsettled = true;
        }
        let desired = Arc::clone(&self.desired);
        for i in 0..self.owned.len() {
            let context = self.context(now, &desired, i);
            self.owned[i].serve(context, out);
            let due = self.owned[i].deadline().is_some_and(|at| at <= now);
            self.unsettled |= due;
        }
        if self.stop_at.is_some() {
            self.unsettled = true;
        }
        if self.beat_at <= now {
            self.news = true;
        }
    }

    /// Looks whether the votes for a group allow to serve it, or to serve it for longer.
    pub(crate) fn count(
        &mut self,
        now: Instant,
        desired: &Desired,
        i: usize,
        out: &mut Vec<Action>,
    ) {
        let before = self.owned[i].claim();
        let context = self.context(now, desired, i);
        self.owned[i].counted(context, out);
        if self.owned[i].claim() != before {
            self.news = true;
            self.unsettled = true;
        }
    }

    fn link(&mut self, now: Instant, link: LinkId, up: bool, out: &mut Vec<Action>) {
        let known = self.links_down.iter().position(|l| *l == link);
        match (known, up) {
            (Some(_), false) | (None, true) => return,
            (Some(i), true) => {
                self.links_down.swap_remove(i);
            }
            (None, false) => self.links_down.push(link),
        }
        if self.desired.groups.iter().any(|g| g.addresses.iter().any(|a| a.link == Some(link))) {
            let fact = Fact::Link { link, up };
            out.push(Action::Record(Record { at: now, group: None, fact }));
        }
        self.unsettled = true;
        self.news = true;
    }

    /// Somebody took an address of ours off the interface: put it back and say so.
    fn restore(&mut self, now: Instant, link: LinkId, address: IpAddr, out: &mut Vec<Action>) {
        let desired = Arc::clone(&self.desired);
        let Some(i) = held(&desired, &self.owned, link, address) else { return };
        let context = self.context(now, &desired, i);
        let State::Holding(holding) = &mut self.owned[i].state else { return };
        ownership::add_addresses(context, holding.until, out);
        holding.announcements.again(now);
        self.owned[i].serve(context, out);
        let group = Some(desired.groups[i].id);
        out.push(Action::Record(Record { at: now, group, fact: Fact::Restored { address } }));
    }

    /// Somebody says that an address of ours is theirs.
    fn defend(
        &mut self,
        now: Instant,
        link: LinkId,
        address: IpAddr,
        mac: Mac,
        out: &mut Vec<Action>,
    ) {
        let desired = Arc::clone(&self.desired);
        let Some(i) = held(&desired, &self.owned, link, address) else { return };
        let State::Holding(holding) = &mut self.owned[i].state else { return };
        let defended = holding.announcements.defend(now);
        if !defended {
            return;
        }
        out.push(Action::Announce { link, address, kind: FrameKind::Defence });
        let group = Some(desired.groups[i].id);
        let fact = Fact::Conflict { address, mac, defended };
        out.push(Action::Record(Record { at: now, group, fact }));
    }

    fn fitness(&mut self, group: GroupId, fitness: Fitness) {
        let Some(i) = self.desired.group_index(group) else { return };
        if self.owned[i].fitness != fitness {
            self.owned[i].fitness = fitness;
            self.beat_now();
        }
    }

    /// Judges until nothing changes, then speaks.
    fn settle(&mut self, now: Instant, out: &mut Vec<Action>) {
        // Serving a group changes the loads, which may change another judgement: twice is enough,
        // the rest comes with the next event.
        for _ in 0..2 {
            if !core::mem::take(&mut self.unsettled) {
                break;
            }
            self.judge_all(now, out);
        }
        if core::mem::take(&mut self.news) {
            self.speak(now, out);
        }
        if self.stop_at.is_some() && self.owned.iter().all(|o| o.holding().is_none()) {
            self.stop_at = None;
            self.stopped = true;
            out.push(Action::Stopped);
        }
    }

    fn judge_all(&mut self, now: Instant, out: &mut Vec<Action>) {
        let desired = Arc::clone(&self.desired);
        crate::judge::look(self, now);
        // Groups of others first: where an orphan goes counts before a move for balance.
        for held in [false, true] {
            for i in 0..desired.groups.len() {
                if self.owned[i].holding().is_some() != held {
                    continue;
                }
                let judgement = crate::judge::judge(self, now, i);
                self.follow(now, &desired, i, judgement, out);
            }
        }
    }

    fn follow(
        &mut self,
        now: Instant,
        desired: &Desired,
        i: usize,
        judgement: Judgement,
        out: &mut Vec<Action>,
    ) {
        let before = self.owned[i].claim();
        let context = self.context(now, desired, i);
        self.owned[i].judged(context, judgement, out);
        let after = self.owned[i].claim();
        if before == after {
            return;
        }
        self.news = true;
        if before.asks() && !after.asks() {
            self.voter.give_back(self.me(), desired.groups[i].id);
        }
        if before.serves() != after.serves() {
            self.unsettled = true;
        }
    }

    /// Lets the next heartbeat go out at once, and looks at everything anew.
    pub(crate) const fn beat_now(&mut self) {
        self.news = true;
        self.unsettled = true;
    }

    pub(crate) const fn is_stopping(&self) -> bool {
        self.stop_at.is_some() || self.stopped
    }

    pub(crate) fn announce_again(&mut self, now: Instant) {
        for ownership in &mut self.owned {
            if let State::Holding(holding) = &mut ownership.state {
                holding.announcements.again(now);
            }
        }
    }

    #[cfg(debug_assertions)]
    fn check_invariants(&self, now: Instant) {
        debug_assert_eq!(self.owned.len(), self.desired.groups.len());
        debug_assert_eq!(self.peers.len() + 1, self.desired.nodes.len());
        for (group, ownership) in self.desired.groups.iter().zip(&self.owned) {
            let Some(holding) = ownership.holding() else { continue };
            debug_assert!(now < holding.until, "served past its lease");
            debug_assert!(ownership.epoch.0 > 0, "an owner begins an epoch");
            debug_assert!(self.desired.group(group.id).is_some());
        }
    }

    #[cfg(not(debug_assertions))]
    #[expect(clippy::unused_self, reason = "has a body in debug builds")]
    const fn check_invariants(&self, _now: Instant) {}
}

/// The group that serves this address on this link.
fn held(desired: &Desired, owned: &[Ownership], link: LinkId, address: IpAddr) -> Option<usize> {
    desired.groups.iter().zip(owned).position(|(group, ownership)| {
        ownership.holding().is_some()
            && group.addresses.iter().any(|a| a.link == Some(link) && a.cidr.address() == address)
    })
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;
