//! Whether this node serves one group: the state machine between a judgement and the kernel.
//!
//! `Node` judges (who should have it, who has it); the votes say for how long we may. Serving ends in
//! one order only: close the gate, remove the addresses, then let the next heartbeat say so.

use crate::announce::Announcements;
use crate::budget::Watch;
use crate::orders::GroupOrders;
use crate::rhythm::{self, Lifetime};
use crate::votes::{Renewals, Votes};
use crate::vrrp_group::Routers;
use alloc::boxed::Box;
use alloc::vec::Vec;
use buoy_model::limits::KERNEL_FENCE_LAG;
use buoy_model::{
    Action, Cause, ClaimKind, Epoch, Fact, Fitness, FrameKind, Group, Guard, Instant, NodeId,
    Record, Safety, Sequence, SharedLease,
};
use core::time::Duration;

#[derive(Clone, Debug)]
pub(crate) struct Ownership {
    pub(crate) state: State,
    /// The highest epoch heard of.
    pub(crate) epoch: Epoch,
    pub(crate) last_change: Option<Record>,
    /// How well this node could serve it, by its own checks.
    pub(crate) fitness: Fitness,
    /// Since when it sees too few backends.
    pub(crate) unserved_since: Option<Instant>,
    /// Whether it was fit since its services are what they are: what is lost then is more than what never was.
    pub(crate) has_served: bool,
    /// What operators want of it.
    pub(crate) orders: GroupOrders,
    /// The elections that decide about it, where VRRP does.
    pub(crate) routers: Option<Box<Routers>>,
    /// For how long it was served, and for how long not.
    pub(crate) watch: Watch,
}

/// Each timer lives in the one state that uses it.
#[derive(Clone, Debug)]
pub(crate) enum State {
    /// Asks for nothing, and not before `quiet_until`: two in a row for the same votes step back at random.
    Idle { quiet_until: Instant },
    /// Asks for votes. Ready: the addresses are in place behind a closed gate, since their owner yields.
    Wanting { since: Instant, cause: Cause, votes: Votes, ready: bool },
    /// Serves.
    Holding(Holding),
}

#[derive(Clone, Debug)]
pub(crate) struct Holding {
    pub(crate) since: Instant,
    pub(crate) votes: Votes,
    /// The end of the lease by its own votes.
    until: Instant,
    /// It lasts as long as the lease that it shares with the other groups, too.
    pub(crate) shares: bool,
    /// The group goes elsewhere.
    pub(crate) yielding: Option<Yielding>,
    /// When the kernel's address lifetimes are renewed.
    refresh_at: Instant,
    pub(crate) announcements: Announcements,
}

/// A group that is about to go elsewhere.
#[derive(Clone, Debug)]
pub(crate) struct Yielding {
    pub(crate) cause: Cause,
    /// Who is to have it.
    pub(crate) to: NodeId,
    /// It is given up then at the latest, even if nobody is ready; `None`: it need not go at all.
    at: Option<Instant>,
}

/// What `Node` thinks of this node and this group.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Judgement {
    /// It is ours to have. From an owner that yields: be ready to serve before it stops.
    Take { cause: Cause, from: Option<NodeId> },
    /// It is not ours to ask for; keep it if we have it.
    Leave,
    /// That node should have it: keep it until it is ready, then give it up.
    Yield { cause: Cause, to: NodeId },
    /// Give it up now.
    GiveUp(Cause),
}

/// What a step needs to know besides its own state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    pub(crate) now: Instant,
    pub(crate) group: &'a Group,
    pub(crate) gated: bool,
    pub(crate) lifetime: Lifetime,
    pub(crate) majority: usize,
    /// The sequence of the next heartbeat.
    pub(crate) next: Sequence,
    /// The end of the lease that this group can share with others of its kind.
    pub(crate) shared_until: Instant,
    /// The end of a lease that is fed by ourselves now.
    pub(crate) own_lease_end: Instant,
    /// How long a successor may take to get ready.
    pub(crate) patience: Duration,
}

impl Ownership {
    pub(crate) fn new(group: &Group) -> Self {
        Self {
            state: State::Idle { quiet_until: Instant::ZERO },
            epoch: Epoch(0),
            last_change: None,
            fitness: Fitness::Fit,
            unserved_since: None,
            has_served: false,
            orders: GroupOrders { held: None, moving: None },
            routers: Routers::new(group),
            watch: Watch::default(),
        }
    }

    /// Its services are others now: nothing is known of their backends.
    pub(crate) fn forget_backends(&mut self) {
        self.has_served = false;
        self.unserved_since = None;
        match &self.fitness {
            Fitness::Fit | Fitness::NoBackend => self.fitness = Fitness::Unchecked,
            Fitness::Unchecked | Fitness::CheckFails { .. } => {}
        }
    }

    pub(crate) const fn is_fit(&self) -> bool {
        matches!(self.fitness, Fitness::Fit)
    }

    /// What to say of the group in a heartbeat, if it can be ours at all.
    pub(crate) const fn claim(&self) -> ClaimKind {
        match &self.state {
            State::Idle { .. } if self.is_fit() => ClaimKind::Eligible,
            State::Idle { .. } => ClaimKind::Reluctant,
            State::Wanting { .. } => ClaimKind::Wants,
            State::Holding(Holding { yielding: Some(_), .. }) => ClaimKind::Yields,
            State::Holding(Holding { yielding: None, .. }) => ClaimKind::Holds,
        }
    }

    pub(crate) const fn holding(&self) -> Option<&Holding> {
        match &self.state {
            State::Holding(holding) => Some(holding),
            State::Idle { .. } | State::Wanting { .. } => None,
        }
    }

    /// Who is to have it, where this node gives it away.
    pub(crate) fn yields_to(&self) -> NodeId {
        let yielding = self.holding().and_then(|h| h.yielding.as_ref());
        yielding.map_or(NodeId(0), |y| y.to)
    }

    pub(crate) const fn is_wanting(&self) -> bool {
        matches!(self.state, State::Wanting { .. })
    }

    /// Whether each of its votes must be counted for it alone.
    pub(crate) const fn has_own_lease(&self) -> bool {
        match &self.state {
            State::Idle { .. } => false,
            State::Wanting { .. } => true,
            State::Holding(holding) => !holding.shares,
        }
    }

    /// Follows a judgement. Every pair of state and judgement is spelled out.
    pub(crate) fn judged(&mut self, c: Context<'_>, judgement: Judgement, out: &mut Vec<Action>) {
        match (&mut self.state, judgement) {
            (State::Idle { quiet_until }, Judgement::Take { .. }) if c.now < *quiet_until => {}
            (State::Idle { .. }, Judgement::Take { cause, from }) => self.take(c, cause, from, out),
            (
                State::Idle { quiet_until },
                Judgement::Leave | Judgement::Yield { .. } | Judgement::GiveUp(_),
            ) => {
                if *quiet_until <= c.now {
                    *quiet_until = Instant::ZERO;
                }
            }

            (State::Wanting { ready, .. }, Judgement::Take { from, .. }) => {
                if !*ready && is_ready_early(c, from) {
                    *ready = true;
                    make_ready(c, out);
                }
            }
            (
                State::Wanting { .. },
                Judgement::Leave | Judgement::Yield { .. } | Judgement::GiveUp(_),
            ) => self.stop_wanting(c.group, Instant::ZERO, out),

            (State::Holding(holding), Judgement::Take { .. } | Judgement::Leave) => {
                holding.yielding = None;
            }
            (State::Holding(holding), Judgement::Yield { cause, to }) => {
                let before = holding.yielding.as_ref().and_then(|y| y.at);
                let at = must_go(&cause).then_some(before.unwrap_or(c.now + c.patience));
                if at.is_some_and(|at| at <= c.now) {
                    self.hand_over(c, cause, out);
                } else {
                    holding.yielding = Some(Yielding { cause, to, at });
                }
            }
            (State::Holding(_), Judgement::GiveUp(cause)) => {
                self.release(c.now, c.group, cause, out);
            }
        }
    }

    fn take(&mut self, c: Context<'_>, cause: Cause, from: Option<NodeId>, out: &mut Vec<Action>) {
        let votes = Votes::new(c.next);
        let ready = is_ready_early(c, from);
        self.state = State::Wanting { since: c.now, cause, votes, ready };
        if ready {
            make_ready(c, out);
        }
        match c.group.safety {
            Safety::Exclusive => {}
            Safety::Available => self.acquire(c, c.own_lease_end, out),
        }
    }

    /// Asks no more, and takes back what was made ready.
    pub(crate) fn stop_wanting(
        &mut self,
        group: &Group,
        quiet_until: Instant,
        out: &mut Vec<Action>,
    ) {
        let State::Wanting { ready, .. } = self.state else { return };
        if ready {
            remove_addresses(group, out);
        }
        self.state = State::Idle { quiet_until };
    }

    /// Gives the group to its successor, and does not ask for it while that one gets the votes.
    pub(crate) fn hand_over(&mut self, c: Context<'_>, cause: Cause, out: &mut Vec<Action>) {
        self.release(c.now, c.group, cause, out);
        self.state = State::Idle { quiet_until: c.now + c.patience * 2 };
    }

    /// Another serves it now: the votes are given, and there is nothing left to be quiet for.
    pub(crate) const fn another_serves(&mut self) {
        if let State::Idle { quiet_until } = &mut self.state {
            *quiet_until = Instant::ZERO;
        }
    }

    /// A vote came in, or time went by: perhaps we may serve, perhaps for longer.
    pub(crate) fn counted(
        &mut self,
        c: Context<'_>,
        renewals: &mut Renewals,
        out: &mut Vec<Action>,
    ) {
        let lag = if c.gated { Duration::ZERO } else { KERNEL_FENCE_LAG };
        match (&mut self.state, c.group.safety) {
            (State::Idle { .. }, Safety::Exclusive | Safety::Available) => {}
            (State::Wanting { votes, .. }, Safety::Exclusive) => {
                let until = votes.deadline(renewals, c.majority);
                if c.now + lag < until {
                    self.acquire(c, until, out);
                }
            }
            (State::Wanting { .. }, Safety::Available) => {}
            (State::Holding(holding), Safety::Exclusive) => {
                if holding.shares {
                    return;
                }
                let until = holding.votes.deadline(renewals, c.majority);
                let later = holding.until < until;
                holding.until = holding.until.max(until);
                holding.shares = renewals.admit(&holding.votes, c.majority);
                if later || holding.shares {
                    let lease = holding.shares.then_some(SharedLease::Majority);
                    fence(c.group, holding.until, lease, out);
                }
            }
            // The loop renews the lease of all of them at once.
            (State::Holding(_), Safety::Available) => {}
        }
    }

    /// A voter excepts this group from what it grants: its lease is its own again.
    pub(crate) fn part(&mut self, c: Context<'_>, out: &mut Vec<Action>) {
        let State::Holding(holding) = &mut self.state else { return };
        if core::mem::take(&mut holding.shares) {
            holding.until = holding.until.max(c.shared_until);
            fence(c.group, holding.until, None, out);
        }
    }

    /// Serves a group that VRRP decides about: no votes are asked for.
    pub(crate) fn take_for_vrrp(&mut self, c: Context<'_>, cause: Cause, out: &mut Vec<Action>) {
        let votes = Votes::new(c.next);
        self.state = State::Wanting { since: c.now, cause, votes, ready: false };
        self.acquire(c, c.own_lease_end, out);
    }

    /// Serves it until then, which VRRP promises.
    pub(crate) fn extend(&mut self, c: Context<'_>, until: Instant, out: &mut Vec<Action>) {
        let State::Holding(holding) = &mut self.state else { return };
        if holding.until < until {
            holding.until = until;
            fence(c.group, until, None, out);
        }
    }

    fn acquire(&mut self, c: Context<'_>, until: Instant, out: &mut Vec<Action>) {
        let idle = State::Idle { quiet_until: Instant::ZERO };
        let State::Wanting { since, cause, votes, ready: _ } =
            core::mem::replace(&mut self.state, idle)
        else {
            debug_assert!(false, "only what is wanted is acquired");
            return;
        };
        self.epoch.0 += 1;
        let (shares, lease) = match (c.group.safety, c.group.vrrp.is_empty()) {
            (Safety::Exclusive, true | false) | (Safety::Available, false) => (false, None),
            (Safety::Available, true) => (true, Some(SharedLease::Loop)),
        };
        let refresh = c.lifetime.refresh;
        let holding = Holding {
            since: c.now,
            votes,
            until,
            shares,
            yielding: None,
            refresh_at: c.now + (refresh - rhythm::early(c.group.id, refresh)),
            announcements: Announcements::begin(c.now, c.group.id),
        };
        fence(c.group, until, lease, out);
        add_addresses(c, until, out);
        self.state = State::Holding(holding);
        self.serve(c, out);
        let fact = Fact::Acquired { epoch: self.epoch, cause, took: c.now.since(since) };
        self.record(c.now, c.group, fact, out);
    }

    /// Does what is due while serving: renews addresses, announces.
    pub(crate) fn serve(&mut self, c: Context<'_>, out: &mut Vec<Action>) {
        let State::Holding(holding) = &mut self.state else { return };
        if holding.refresh_at <= c.now {
            holding.refresh_at = rhythm::next(holding.refresh_at, c.now, c.lifetime.refresh);
            add_addresses(c, holding.until(c.shared_until), out);
        }
        if holding.announcements.is_due(c.now) {
            announce(c.group, FrameKind::Gratuitous, out);
        }
    }

    /// Ends serving, in the one safe order; the heartbeat that says so comes after these actions.
    pub(crate) fn release(
        &mut self,
        now: Instant,
        group: &Group,
        cause: Cause,
        out: &mut Vec<Action>,
    ) {
        debug_assert!(self.holding().is_some(), "only what is held is released");
        self.state = State::Idle { quiet_until: Instant::ZERO };
        fence(group, Instant::ZERO, None, out);
        remove_addresses(group, out);
        self.record(now, group, Fact::Released { epoch: self.epoch, cause }, out);
    }

    /// Steps back from a tie for a while.
    pub(crate) fn step_back(&mut self, group: &Group, until: Instant, out: &mut Vec<Action>) {
        match self.state {
            State::Wanting { .. } => self.stop_wanting(group, until, out),
            State::Idle { .. } | State::Holding(_) => {}
        }
    }

    /// When something here is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let elects_at = self.routers.as_ref().and_then(|routers| routers.deadline());
        let earlier = |due: Instant, at: Option<Instant>| at.map_or(due, |at| due.min(at));
        match &self.state {
            State::Idle { quiet_until } if *quiet_until == Instant::ZERO => elects_at,
            State::Idle { quiet_until } => Some(earlier(*quiet_until, elects_at)),
            State::Wanting { .. } => elects_at,
            State::Holding(h) => {
                let due = h.refresh_at.min(h.announcements.deadline());
                // The end of a shared lease is one deadline for all, and the node's to know.
                let due = if h.shares { due } else { due.min(h.until) };
                let gone_at = h.yielding.as_ref().and_then(|y| y.at);
                Some(earlier(earlier(due, gone_at), elects_at))
            }
        }
    }

    pub(crate) fn record(&mut self, at: Instant, group: &Group, fact: Fact, out: &mut Vec<Action>) {
        let record = Record { at, group: Some(group.id), fact };
        self.last_change = Some(record.clone());
        out.push(Action::Record(record));
    }
}

/// Tells the kernel's gate until when the group's addresses may be answered for.
pub(crate) fn fence(
    group: &Group,
    until: Instant,
    lease: Option<SharedLease>,
    out: &mut Vec<Action>,
) {
    for address in &group.addresses {
        if let Some(link) = address.link {
            let address = address.cidr.address();
            out.push(Action::Fence { address, link, until, lease, guard: guard(group) });
        }
    }
}

/// Connections through a service survive a move, so only what ends here is silenced altogether.
pub(crate) const fn guard(group: &Group) -> Guard {
    match (group.safety, group.services.is_empty()) {
        (Safety::Exclusive, true) => Guard::Traffic,
        (Safety::Exclusive, false) | (Safety::Available, true | false) => Guard::Neighbours,
    }
}

/// Puts the addresses on their interfaces, or renews them there: unless the kernel could still
/// answer for them after the end of the lease.
pub(crate) fn add_addresses(c: Context<'_>, until: Instant, out: &mut Vec<Action>) {
    let valid_lifetime = c.lifetime.valid;
    let gone_at = match (c.gated, c.group.safety) {
        (true, Safety::Exclusive | Safety::Available) | (false, Safety::Available) => Instant::ZERO,
        // Without a gate the kernel's lifetime is the fence.
        (false, Safety::Exclusive) => c.now + KERNEL_FENCE_LAG,
    };
    if until < gone_at {
        return;
    }
    for address in &c.group.addresses {
        if let Some(link) = address.link {
            let (cidr, presence) = (address.cidr, address.presence);
            out.push(Action::AddAddress { link, cidr, valid_lifetime, presence });
        }
    }
}

/// Behind a closed gate the address harms nobody, and is there when the votes are.
const fn is_ready_early(c: Context<'_>, from: Option<NodeId>) -> bool {
    match c.group.safety {
        Safety::Exclusive => from.is_some() && c.gated,
        Safety::Available => false,
    }
}

/// Whether a group is given up although its successor does not come forward. What is well where it is
/// stays there, rather than to have no owner for a while.
const fn must_go(cause: &Cause) -> bool {
    match cause {
        Cause::Failback { .. } | Cause::Moved { .. } => false,
        Cause::NoOwner
        | Cause::OwnerSilent { .. }
        | Cause::OwnerReleased { .. }
        | Cause::OwnerDied { .. }
        | Cause::CheckFailed { .. }
        | Cause::Unheard { .. }
        | Cause::LeaseExpired
        | Cause::Drain
        | Cause::Stop
        | Cause::CarrierLost { .. }
        | Cause::BetterOwner { .. }
        | Cause::RouterSilent { .. }
        | Cause::RouterReleased
        | Cause::RouterWorse { .. }
        | Cause::RouterBetter { .. }
        | Cause::NoBackend
        | Cause::Reload
        | Cause::Stalled => true,
    }
}

fn make_ready(c: Context<'_>, out: &mut Vec<Action>) {
    fence(c.group, Instant::ZERO, None, out);
    add_addresses(c, Instant::ZERO, out);
}

fn remove_addresses(group: &Group, out: &mut Vec<Action>) {
    for address in &group.addresses {
        if let Some(link) = address.link {
            let (cidr, presence) = (address.cidr, address.presence);
            out.push(Action::RemoveAddress { link, cidr, presence });
        }
    }
}

impl Holding {
    /// The end of the lease.
    pub(crate) fn until(&self, shared_until: Instant) -> Instant {
        if self.shares { self.until.max(shared_until) } else { self.until }
    }
}

/// Tells the segments who has the addresses.
pub(crate) fn announce(group: &Group, kind: FrameKind, out: &mut Vec<Action>) {
    for address in &group.addresses {
        if let Some(link) = address.link {
            out.push(Action::Announce { link, address: address.cidr.address(), kind });
        }
    }
}

#[cfg(test)]
#[path = "ownership_tests.rs"]
mod tests;
