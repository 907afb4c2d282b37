//! One node of the cluster: carries events to the machines and their actions out.
//!
//! The order within a step is the safety of the whole: first leases that have run out end, then the
//! event is taken, then the view is judged, and only then anything is said to the peers.

use crate::budget::Renewed;
use crate::damping::Damping;
use crate::judge::Verdicts;
use crate::legs::Legs;
use crate::ownership::{self, Context, Judgement, Ownership};
use crate::peer::Peer;
use crate::random::Random;
use crate::rest::Pace;
use crate::rhythm::Lifetime;
use crate::speak::{Reply, Scratch};
use crate::tempo::Tempo;
use crate::voter::{Asker, Voter};
use crate::votes::{Renewals, lease_end};
use crate::{Ignored, Status};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use buoy_model::limits::{GROUPS_MAX, LEASE_HEARTBEATS_MIN, LEASE_WITHOUT_GATE};
use buoy_model::{
    Action, Cause, Claim, Desired, Event, Fact, Fitness, GroupId, Incarnation, Instant, LinkId,
    ListVersion, Record, Safety, Sequence, Timing,
};
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

/// Which of the shared leases some group lives on.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Sharers {
    pub(crate) majority: bool,
    pub(crate) looped: bool,
}

/// A switch port that comes up may pass nothing for a while, and neighbours are to be found again.
const LISTEN_AFTER_CARRIER: Duration = Duration::from_secs(1);

/// A successor may take so many heartbeats to get ready, or a lease if that is longer.
const PATIENCE_HEARTBEATS: u32 = 10;

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
    /// Whose votes this node has for all that it asks for.
    pub(crate) renewals: Renewals,
    /// The end of the lease that the loop itself renews (`Safety::Available`).
    pub(crate) loop_until: Instant,
    /// What was left of those leases when they were renewed.
    pub(crate) renewed: Renewed,
    pub(crate) tempo: Tempo,
    /// Whether it rests.
    pub(crate) pace: Pace,
    /// What this node says of its groups, and the name of that list.
    pub(crate) said: Vec<Claim>,
    pub(crate) list: ListVersion,
    /// What is said may have changed.
    pub(crate) unsaid: bool,
    /// Some group has votes of its own to be counted.
    pub(crate) counts: bool,
    /// One for each of `Desired::groups`, in their order.
    pub(crate) owned: Vec<Ownership>,
    pub(crate) verdicts: Verdicts,
    pub(crate) links_down: Vec<LinkId>,
    /// Peers were heard when an interface lost its carrier.
    heard_before_carrier_loss: bool,
    pub(crate) draining: Option<String>,
    /// When the drain ends by itself.
    pub(crate) drain_until: Option<Instant>,
    /// Why this node takes only what nobody else can, by order.
    pub(crate) cordoned: Option<String>,
    /// What came and went lately.
    pub(crate) damping: Damping,
    /// When each peer was heard, leg by leg.
    pub(crate) legs: Legs,
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
    /// The time of listening for owners was over once since it began.
    pub(crate) has_listened: bool,
    /// When a group needs a look, but for what all of them share; `None` until it is looked up again.
    due: Option<Instant>,
    due_is_known: bool,
    /// Which leases are shared by any group.
    pub(crate) sharers: Sharers,
    pub(crate) ignored: Ignored,
    pub(crate) reply: Reply,
    pub(crate) scratch: Scratch,
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
        let owned = desired.groups.iter().map(Ownership::new).collect();
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
            renewals: Renewals::new(),
            loop_until: Instant::ZERO,
            renewed: Renewed::new(),
            tempo: Tempo::default(),
            pace: Pace::Usual { stirred_at: now },
            said: Vec::with_capacity(GROUPS_MAX),
            list: ListVersion(0),
            unsaid: true,
            counts: false,
            owned,
            verdicts: Verdicts::default(),
            links_down: Vec::new(),
            heard_before_carrier_loss: false,
            draining: None,
            drain_until: None,
            cordoned: None,
            damping: Damping::default(),
            legs: Legs::default(),
            stop_at: None,
            stopped: false,
            listening_until: now + listen,
            beat_at: now,
            ask_again_at: None,
            unsettled: true,
            news: false,
            fresh: true,
            has_listened: false,
            due: None,
            due_is_known: false,
            sharers: Sharers::default(),
            ignored: Ignored::default(),
            reply: Reply::default(),
            scratch: Scratch::default(),
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
            self.desired.groups.iter().for_each(|g| ownership::fence(g, Instant::ZERO, None, out));
        }
        self.expire(now, out);
        match event {
            Event::Tick => self.tick(now, out),
            Event::Heard { message, leg } => self.hear(now, message, leg, out),
            Event::Link { link, up } => self.link(now, link, up, out),
            Event::AddressLost { link, address } => self.restore(now, link, address, out),
            Event::ForeignClaim { link, address, mac } => {
                self.defend(now, (link, address), mac, out);
            }
            Event::Fitness { group, fitness } => self.fitness(now, group, fitness),
            Event::Advert(heard) => self.hear_advert(now, heard, out),
            Event::Weight { group, weight } => self.weigh(group, weight),
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
        if !core::mem::replace(&mut self.due_is_known, true) {
            self.due = self.owned.iter().filter_map(Ownership::deadline).min();
            self.sharers = self.find_sharers();
            self.watch_uptime(now);
        }
        self.check_invariants(now);
    }

    /// When to call `handle` with `Event::Tick`.
    pub fn deadline(&self) -> Option<Instant> {
        let mut due = self.beat_at;
        let mut earliest = |at: Option<Instant>| due = at.map_or(due, |at| due.min(at));
        earliest(self.due);
        earliest(self.lease_due());
        self.peers.iter().for_each(|p| earliest(p.silent_at(self.silence_of(p))));
        earliest(self.ask_again_at);
        earliest(self.verdicts.review_at);
        earliest(self.verdicts.orders_end_at);
        earliest(self.damping.deadline());
        earliest(self.stop_at);
        earliest(self.overdue());
        Some(due)
    }

    /// What this node knows and why it does what it does.
    pub fn status(&self, now: Instant) -> Status {
        crate::why::status(self, now, None)
    }

    /// The same of some groups alone, in the order of their ids: the others are not explained.
    pub fn status_about(&self, now: Instant, groups: &[GroupId]) -> Status {
        crate::why::status(self, now, Some(groups))
    }

    /// The term this node asks for: what its kernel's fence needs, and the network.
    pub(crate) fn term(&self) -> Duration {
        match self.settings.fence {
            Fence::Gate => self.tempo.term(self.desired.timing),
            Fence::Lifetime => LEASE_WITHOUT_GATE,
        }
    }

    pub(crate) fn me(&self) -> Asker {
        Asker { node: self.desired.me, incarnation: self.settings.incarnation, term: self.term() }
    }

    pub(crate) fn context<'a>(&self, now: Instant, desired: &'a Desired, i: usize) -> Context<'a> {
        let Timing { heartbeat, lease, .. } = desired.timing;
        let group = &desired.groups[i];
        let gated = self.settings.fence == Fence::Gate;
        Context {
            now,
            group,
            gated,
            lifetime: Lifetime::of(gated, desired.groups.len()),
            majority: self.majority(desired),
            next: Sequence(self.sequence.0 + 1),
            shared_until: self.shared_until(group.safety),
            own_lease_end: lease_end(now, self.tempo.term(desired.timing)),
            patience: lease.max(heartbeat * PATIENCE_HEARTBEATS),
        }
    }

    /// The end of the lease that groups of this kind can share.
    pub(crate) const fn shared_until(&self, safety: Safety) -> Instant {
        match safety {
            Safety::Exclusive => self.renewals.shared_until,
            Safety::Available => self.loop_until,
        }
    }

    /// When a shared lease ends that some group lives on.
    fn lease_due(&self) -> Option<Instant> {
        let ends = |safety: Safety, shares: bool| shares.then(|| self.shared_until(safety));
        let Sharers { majority, looped } = self.sharers;
        let ends = [ends(Safety::Exclusive, majority), ends(Safety::Available, looped)];
        ends.into_iter().flatten().min()
    }

    fn find_sharers(&self) -> Sharers {
        let mut sharers = Sharers::default();
        for (group, ownership) in self.desired.groups.iter().zip(&self.owned) {
            let shares = ownership.holding().is_some_and(|h| h.shares);
            match group.safety {
                Safety::Exclusive => sharers.majority |= shares,
                Safety::Available => sharers.looped |= shares,
            }
        }
        sharers
    }

    /// Something about a group has changed that its deadline depends on.
    pub(crate) const fn look_again(&mut self) {
        self.due_is_known = false;
        self.counts = true;
    }

    /// Ends every lease that has run out, before anything else is looked at.
    fn expire(&mut self, now: Instant, out: &mut Vec<Action>) {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if !is_due(self.due) && !is_due(self.lease_due()) {
            return;
        }
        let desired = Arc::clone(&self.desired);
        let (heartbeat, term) = (desired.timing.heartbeat, self.term());
        let mut late = Duration::ZERO;
        for (i, group) in desired.groups.iter().enumerate() {
            let shared_until = self.shared_until(group.safety);
            let Some(holding) = self.owned[i].holding() else { continue };
            let until = holding.until(shared_until);
            if now < until {
                // It outlives what it shared: from here on its end is its own to wait for.
                if holding.shares && shared_until <= now && group.safety == Safety::Exclusive {
                    let context = self.context(now, &desired, i);
                    self.owned[i].part(context, out);
                    self.look_again();
                }
                continue;
            }
            late = late.max(now.since(until));
            let cause = match group.safety {
                Safety::Exclusive => Cause::LeaseExpired,
                Safety::Available => Cause::Stalled,
            };
            self.owned[i].release(now, group, cause, out);
            self.listen_again(now, &desired, i);
            self.voter.give_back(self.me(), group.id);
            // After a stall the peers' news waits in the sockets: read it before judging.
            self.listening_until = now + heartbeat;
            self.has_listened = false;
            self.look_again();
            self.beat_now();
        }
        if late > term {
            let fact = Fact::Stalled { late };
            out.push(Action::Record(Record { at: now, group: None, fact }));
        }
    }

    fn tick(&mut self, now: Instant, out: &mut Vec<Action>) {
        let timing = self.desired.timing;
        let late = now.since(self.beat_at);
        if late > timing.heartbeat / 2 {
            // What could not be heard meanwhile is not held against anybody.
            self.peers.iter_mut().for_each(|p| p.excuse(late, now));
            self.tempo.gap(now, timing, timing.heartbeat + late);
        }
        for i in 0..self.peers.len() {
            let silence = self.silence_of(&self.peers[i]);
            if let Some(silent) = self.peers[i].expire(now, silence) {
                self.stir(now);
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
        if self.due.is_some_and(|at| at <= now) {
            self.serve(now, out);
        }
        self.watch_time(now, out);
        self.end_orders(now, out);
        if self.stop_at.is_some() {
            self.unsettled = true;
        }
        if self.beat_at <= now {
            self.news = true;
            self.tempo.calm(now, timing);
            if let Some(term) = self.tempo.news(timing) {
                let fact = Fact::Tempo { term };
                out.push(Action::Record(Record { at: now, group: None, fact }));
            }
        }
        self.open(now);
    }

    /// Does what is due of the groups that are served, and judges anew.
    fn serve(&mut self, now: Instant, out: &mut Vec<Action>) {
        let desired = Arc::clone(&self.desired);
        for i in 0..self.owned.len() {
            let due = self.owned[i].deadline().is_some_and(|at| at <= now);
            if due {
                let context = self.context(now, &desired, i);
                self.owned[i].serve(context, out);
                self.elect(now, &desired, i, out);
                let is_judged = self.owned[i].deadline().is_none_or(|at| at <= now);
                self.unsettled |= is_judged;
            }
        }
        self.look_again();
    }

    /// The time of listening for owners is over.
    fn open(&mut self, now: Instant) {
        if !self.has_listened && self.listening_until <= now {
            self.has_listened = true;
            self.unsettled = true;
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
        self.owned[i].counted(context, &mut self.renewals, out);
        self.look_again();
        if self.owned[i].claim() != before {
            self.news = true;
            self.unsettled = true;
            self.unsaid = true;
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
        self.note_carrier(now, link, up, out);
        let hears = self.peers.iter().any(Peer::is_alive);
        if !up {
            self.heard_before_carrier_loss |= hears;
        } else if core::mem::take(&mut self.heard_before_carrier_loss) && !hears {
            // That nobody is heard was our deafness: listen first, as at the start.
            self.listening_until = now + self.silence().max(LISTEN_AFTER_CARRIER);
            self.has_listened = false;
        }
        self.unsettled = true;
        self.news = true;
    }

    fn fitness(&mut self, now: Instant, group: GroupId, fitness: Fitness) {
        let Some(i) = self.desired.group_index(group) else { return };
        self.owned[i].has_served |= fitness == Fitness::Fit;
        if self.owned[i].fitness != fitness {
            let is_unserved = fitness == Fitness::NoBackend;
            self.owned[i].unserved_since = is_unserved.then_some(now);
            self.owned[i].fitness = fitness;
            // Not to know yet is neither to have lost something nor to have it back.
            if self.owned[i].fitness != Fitness::Unchecked {
                self.note_fitness(now, group, self.owned[i].is_fit());
            }
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
            self.watch_uptime(now);
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
        self.unsaid = true;
        crate::judge::look(self, now);
        // Groups of others first: where an orphan goes counts before a move for balance.
        for held in [false, true] {
            for i in 0..desired.groups.len() {
                if self.owned[i].holding().is_some() != held {
                    continue;
                }
                if self.owned[i].routers.is_some() {
                    self.elect(now, &desired, i, out);
                    continue;
                }
                let judgement = crate::judge::judge(self, now, i);
                self.follow(now, &desired, i, judgement, out);
            }
        }
        self.conclude(now, out);
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
        self.hand_over_if_wanted(now, desired, i, out);
        let after = self.owned[i].claim();
        self.look_again();
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
        self.unsaid = true;
    }

    pub(crate) const fn is_stopping(&self) -> bool {
        self.stop_at.is_some() || self.stopped
    }

    #[cfg(debug_assertions)]
    fn check_invariants(&self, now: Instant) {
        debug_assert_eq!(self.owned.len(), self.desired.groups.len());
        debug_assert_eq!(self.peers.len() + 1, self.desired.nodes.len());
        debug_assert_eq!(self.sharers, self.find_sharers());
        debug_assert_eq!(self.due, self.owned.iter().filter_map(Ownership::deadline).min());
        for (group, ownership) in self.desired.groups.iter().zip(&self.owned) {
            let Some(holding) = ownership.holding() else { continue };
            let until = holding.until(self.shared_until(group.safety));
            debug_assert!(now < until, "served past its lease");
            debug_assert!(ownership.epoch.0 > 0, "an owner begins an epoch");
            debug_assert!(self.desired.group(group.id).is_some());
        }
    }

    #[cfg(not(debug_assertions))]
    #[expect(clippy::unused_self, reason = "has a body in debug builds")]
    const fn check_invariants(&self, _now: Instant) {}
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;
