//! Whether this node serves one group: the state machine between a judgement and the kernel.
//!
//! `Node` judges (who should have it, who has it); the votes say for how long we may. Serving ends in
//! one order only: close the gate, remove the addresses, then let the next heartbeat say so.

use crate::announce::Announcements;
use crate::votes::Votes;
use alloc::vec::Vec;
use buoy_model::limits::{
    ADDRESS_REFRESH, KERNEL_FENCE_LAG, VALID_LIFETIME_GATED, VALID_LIFETIME_UNGATED,
};
use buoy_model::{
    Action, Cause, ClaimKind, Epoch, Fact, Fitness, FrameKind, Group, Guard, Instant, NodeId,
    Record, Safety, Sequence,
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
}

/// Each timer lives in the one state that uses it.
#[derive(Clone, Debug)]
pub(crate) enum State {
    /// Asks for nothing, and not before `quiet_until`: two in a row for the same votes step back at random.
    Idle { quiet_until: Instant },
    /// Asks for votes.
    Wanting { since: Instant, cause: Cause, votes: Votes },
    /// Serves.
    Holding(Holding),
}

#[derive(Clone, Debug)]
pub(crate) struct Holding {
    pub(crate) since: Instant,
    pub(crate) votes: Votes,
    /// The end of the lease.
    pub(crate) until: Instant,
    /// The group goes elsewhere, for this reason, when somebody else has it or at that moment.
    pub(crate) yielding: Option<(Cause, Instant)>,
    /// When the kernel's address lifetimes are renewed.
    refresh_at: Instant,
    pub(crate) announcements: Announcements,
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
    pub(crate) majority: usize,
    /// The sequence of the next heartbeat.
    pub(crate) next: Sequence,
    /// The end of a lease that is fed by ourselves now.
    pub(crate) own_lease_end: Instant,
    /// How long a planned handover may take where two owners are allowed.
    pub(crate) patience: Duration,
}

impl Ownership {
    pub(crate) const fn new() -> Self {
        Self {
            state: State::Idle { quiet_until: Instant::ZERO },
            epoch: Epoch(0),
            last_change: None,
            fitness: Fitness::Fit,
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

    /// Follows a judgement. Every pair of state and judgement is spelled out.
    pub(crate) fn judged(&mut self, c: Context<'_>, judgement: Judgement, out: &mut Vec<Action>) {
        match (&mut self.state, judgement) {
            (State::Idle { quiet_until }, Judgement::Take { .. }) if c.now < *quiet_until => {}
            (State::Idle { .. }, Judgement::Take { cause, .. }) => self.take(c, cause, out),
            (
                State::Idle { quiet_until },
                Judgement::Leave | Judgement::Yield { .. } | Judgement::GiveUp(_),
            ) => {
                if *quiet_until <= c.now {
                    *quiet_until = Instant::ZERO;
                }
            }

            (State::Wanting { .. }, Judgement::Take { .. }) => {}
            (
                State::Wanting { .. },
                Judgement::Leave | Judgement::Yield { .. } | Judgement::GiveUp(_),
            ) => self.state = State::Idle { quiet_until: Instant::ZERO },

            (State::Holding(holding), Judgement::Take { .. } | Judgement::Leave) => {
                holding.yielding = None;
            }
            (State::Holding(holding), Judgement::Yield { cause, .. }) => match c.group.safety {
                Safety::Exclusive => self.release(c.now, c.group, cause, out),
                Safety::Available => {
                    let (cause, at) = holding.yielding.get_or_insert((cause, c.now + c.patience));
                    if *at <= c.now {
                        let cause = cause.clone();
                        self.release(c.now, c.group, cause, out);
                    }
                }
            },
            (State::Holding(_), Judgement::GiveUp(cause)) => {
                self.release(c.now, c.group, cause, out);
            }
        }
    }

    fn take(&mut self, c: Context<'_>, cause: Cause, out: &mut Vec<Action>) {
        let votes = Votes::new(c.next);
        match c.group.safety {
            Safety::Exclusive => self.state = State::Wanting { since: c.now, cause, votes },
            Safety::Available => {
                self.state = State::Wanting { since: c.now, cause, votes };
                self.acquire(c, c.own_lease_end, out);
            }
        }
    }

    /// A vote came in, or time went by: perhaps we may serve, perhaps for longer.
    pub(crate) fn counted(&mut self, c: Context<'_>, out: &mut Vec<Action>) {
        let lag = if c.gated { Duration::ZERO } else { KERNEL_FENCE_LAG };
        match (&mut self.state, c.group.safety) {
            (State::Idle { .. }, Safety::Exclusive | Safety::Available) => {}
            (State::Wanting { votes, .. }, Safety::Exclusive) => {
                let until = votes.deadline(c.majority);
                if c.now + lag < until {
                    self.acquire(c, until, out);
                }
            }
            (State::Wanting { .. }, Safety::Available) => {}
            (State::Holding(holding), Safety::Exclusive) => {
                let until = holding.votes.deadline(c.majority);
                if until > holding.until {
                    holding.until = until;
                    fence(c.group, until, out);
                }
            }
            (State::Holding(holding), Safety::Available) => {
                holding.until = c.own_lease_end.max(holding.until);
                fence(c.group, holding.until, out);
            }
        }
    }

    fn acquire(&mut self, c: Context<'_>, until: Instant, out: &mut Vec<Action>) {
        let idle = State::Idle { quiet_until: Instant::ZERO };
        let State::Wanting { since, cause, votes } = core::mem::replace(&mut self.state, idle)
        else {
            debug_assert!(false, "only what is wanted is acquired");
            return;
        };
        self.epoch.0 += 1;
        let holding = Holding {
            since: c.now,
            votes,
            until,
            yielding: None,
            refresh_at: c.now + ADDRESS_REFRESH,
            announcements: Announcements::begin(c.now),
        };
        fence(c.group, until, out);
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
            holding.refresh_at = c.now + ADDRESS_REFRESH;
            add_addresses(c, holding.until, out);
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
        fence(group, Instant::ZERO, out);
        for address in &group.addresses {
            if let Some(link) = address.link {
                out.push(Action::RemoveAddress { link, cidr: address.cidr });
            }
        }
        self.record(now, group, Fact::Released { epoch: self.epoch, cause }, out);
    }

    /// Steps back from a tie for a while.
    pub(crate) fn step_back(&mut self, until: Instant) {
        match self.state {
            State::Wanting { .. } => self.state = State::Idle { quiet_until: until },
            State::Idle { .. } | State::Holding(_) => {}
        }
    }

    /// When something here is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Idle { quiet_until } if *quiet_until == Instant::ZERO => None,
            State::Idle { quiet_until } => Some(*quiet_until),
            State::Wanting { .. } => None,
            State::Holding(h) => {
                let due = h.until.min(h.refresh_at).min(h.announcements.deadline());
                Some(h.yielding.as_ref().map_or(due, |(_, at)| due.min(*at)))
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
pub(crate) fn fence(group: &Group, until: Instant, out: &mut Vec<Action>) {
    for address in &group.addresses {
        if let Some(link) = address.link {
            let address = address.cidr.address();
            out.push(Action::Fence { address, link, until, lease: None, guard: guard(group) });
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
    let (valid_lifetime, gone_at) = match (c.gated, c.group.safety) {
        (true, Safety::Exclusive | Safety::Available) => (VALID_LIFETIME_GATED, Instant::ZERO),
        (false, Safety::Available) => (VALID_LIFETIME_UNGATED, Instant::ZERO),
        // Without a gate the kernel's lifetime is the fence.
        (false, Safety::Exclusive) => (VALID_LIFETIME_UNGATED, c.now + KERNEL_FENCE_LAG),
    };
    if until < gone_at {
        return;
    }
    for address in &c.group.addresses {
        if let Some(link) = address.link {
            out.push(Action::AddAddress { link, cidr: address.cidr, valid_lifetime });
        }
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
