//! The holder's half of the lease protocol: whose votes it has for one group, and until when.

use crate::placement::Members;
use buoy_model::limits::{DRIFT_DIVISOR, NODES_MAX};
use buoy_model::{Instant, Sequence};
use core::time::Duration;

/// The votes for one group.
#[derive(Clone, Debug)]
pub(crate) struct Votes {
    /// Answers to earlier heartbeats do not count: in between the group was given back.
    from: Sequence,
    /// Until when each member's vote stands that was given for this group by name, by its place in
    /// `Desired::nodes`.
    until: [Instant; NODES_MAX],
    /// Members whose last answer granted the list without this group.
    excepted: Members,
}

/// For each member: the last heartbeat that it granted whole, and when its votes end then.
#[derive(Clone, Debug)]
pub(crate) struct Renewals {
    last: [Renewal; NODES_MAX],
    /// Groups that asked before this heartbeat share one lease: all of its votes are for them too.
    shared_from: Sequence,
    /// The end of the shared lease. It never moves back while a group shares it.
    pub(crate) shared_until: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Renewal {
    answered: Sequence,
    until: Instant,
}

impl Renewals {
    pub(crate) const fn new() -> Self {
        let none = Renewal { answered: Sequence(0), until: Instant::ZERO };
        Self { last: [none; NODES_MAX], shared_from: Sequence(0), shared_until: Instant::ZERO }
    }

    /// Whether this answer is to a later heartbeat than the last one of this member.
    pub(crate) fn is_news(&self, index: usize, answered: Sequence) -> bool {
        self.last.get(index).is_some_and(|last| last.answered < answered)
    }

    /// A member granted all that this heartbeat asked for; an answer that was overtaken says no more.
    pub(crate) fn add(&mut self, index: usize, answered: Sequence, until: Instant) {
        if self.is_news(index, answered) {
            self.last[index] = Renewal { answered, until };
        }
    }

    /// Moves the end of the shared lease on; whether it moved.
    pub(crate) fn renew(&mut self, majority: usize) -> bool {
        let until = self.common(majority).until;
        let later = self.shared_until < until;
        self.shared_until = self.shared_until.max(until);
        later
    }

    /// Lets a group that asks since `from` share the lease; false when it has fewer votes than that.
    pub(crate) fn admit(&mut self, votes: &Votes, majority: usize) -> bool {
        let common = self.common(majority);
        // An end of longer terms than today's is a promise of earlier groups only.
        let is_theirs = common.until == self.shared_until && common.until != Instant::ZERO;
        if !is_theirs || !votes.excepted.is_empty() || common.answered < votes.from {
            return false;
        }
        self.shared_from = self.shared_from.max(votes.from);
        true
    }

    /// What the strongest majority has granted: the end of its weakest vote, and the earliest of the
    /// heartbeats that it answered.
    fn common(&self, majority: usize) -> Renewal {
        debug_assert!(majority >= 1);
        debug_assert!(majority <= NODES_MAX);
        let mut line = self.last;
        for renewal in line.iter_mut().filter(|r| r.answered < self.shared_from) {
            renewal.until = Instant::ZERO;
        }
        line.sort_unstable_by_key(|r| core::cmp::Reverse(r.until));
        let strongest = &line[..majority];
        Renewal {
            answered: strongest.iter().map(|r| r.answered).min().unwrap_or_default(),
            until: strongest[majority - 1].until,
        }
    }

    /// Puts the renewals where their members are now.
    pub(crate) fn renumber(&mut self, moved: impl Fn(usize) -> Option<usize>) {
        let before = core::mem::replace(&mut self.last, Self::new().last);
        for (old, renewal) in before.into_iter().enumerate() {
            if let Some(new) = moved(old).and_then(|i| self.last.get_mut(i)) {
                *new = renewal;
            }
        }
    }
}

impl Votes {
    /// No votes; `from` is the first heartbeat that will ask.
    pub(crate) const fn new(from: Sequence) -> Self {
        Self { from, until: [Instant::ZERO; NODES_MAX], excepted: Members::NONE }
    }

    /// Counts a vote from the moment the heartbeat was *sent*: the voter's term began later.
    pub(crate) fn add(&mut self, index: usize, answered: Sequence, end: Instant) {
        if answered < self.from {
            return;
        }
        if let Some(until) = self.until.get_mut(index) {
            *until = (*until).max(end);
        }
    }

    /// Whether the member's last answer granted the list without this group.
    pub(crate) const fn except(&mut self, index: usize, is_excepted: bool) {
        self.excepted =
            if is_excepted { self.excepted.with(index) } else { self.excepted.without(index) };
    }

    /// Until when a majority stands: the end of the weakest vote that it needs.
    pub(crate) fn deadline(&self, renewals: &Renewals, majority: usize) -> Instant {
        debug_assert!(majority >= 1);
        debug_assert!(majority <= NODES_MAX);
        let mut until: [Instant; NODES_MAX] =
            core::array::from_fn(|index| self.vote(renewals, index));
        until.sort_unstable();
        until[NODES_MAX - majority]
    }

    /// Until when one member's vote stands.
    fn vote(&self, renewals: &Renewals, index: usize) -> Instant {
        let by_name = self.until.get(index).copied().unwrap_or(Instant::ZERO);
        match renewals.last.get(index) {
            Some(whole) if self.from <= whole.answered && !self.excepted.contains(index) => {
                by_name.max(whole.until)
            }
            Some(_) | None => by_name,
        }
    }

    /// Whose vote stands.
    pub(crate) fn stands(&self, renewals: &Renewals, index: usize, now: Instant) -> bool {
        now < self.vote(renewals, index)
    }

    /// Puts the votes where their members are now.
    pub(crate) fn renumber(&mut self, moved: impl Fn(usize) -> Option<usize>) {
        let before = core::mem::replace(&mut self.until, [Instant::ZERO; NODES_MAX]);
        let excepted = core::mem::replace(&mut self.excepted, Members::NONE);
        for (old, until) in before.into_iter().enumerate() {
            let Some(new) = moved(old).filter(|new| *new < NODES_MAX) else { continue };
            self.until[new] = until;
            self.except(new, excepted.contains(old));
        }
    }
}

/// The end of a term that began at `sent`, as far as a holder may trust its own clock.
pub(crate) fn lease_end(sent: Instant, term: Duration) -> Instant {
    sent + (term - term / DRIFT_DIVISOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    fn none() -> Renewals {
        Renewals::new()
    }

    #[test]
    fn a_majority_stands_as_long_as_its_weakest_vote() {
        let mut votes = Votes::new(Sequence(1));
        votes.add(0, Sequence(1), at(50));
        assert_eq!(votes.deadline(&none(), 2), Instant::ZERO);
        votes.add(2, Sequence(1), at(40));
        assert_eq!(votes.deadline(&none(), 2), at(40));
        votes.add(1, Sequence(1), at(45));
        assert_eq!(votes.deadline(&none(), 2), at(45));
        assert_eq!(votes.deadline(&none(), 1), at(50));
    }

    #[test]
    fn an_answer_to_a_heartbeat_before_the_claim_does_not_count() {
        let mut votes = Votes::new(Sequence(5));
        votes.add(0, Sequence(4), at(50));
        let mut renewals = none();
        renewals.add(0, Sequence(4), at(50));
        assert_eq!(votes.deadline(&renewals, 1), Instant::ZERO);
        renewals.add(0, Sequence(5), at(60));
        assert_eq!(votes.deadline(&renewals, 1), at(60));
        votes.add(0, Sequence(5), at(70));
        assert_eq!(votes.deadline(&renewals, 1), at(70));
    }

    #[test]
    fn an_older_answer_never_shortens_a_vote() {
        let mut votes = Votes::new(Sequence(1));
        votes.add(0, Sequence(3), at(50));
        votes.add(0, Sequence(2), at(40));
        assert_eq!(votes.deadline(&none(), 1), at(50));
        let mut renewals = none();
        renewals.add(0, Sequence(3), at(50));
        renewals.add(0, Sequence(2), at(90));
        assert_eq!(Votes::new(Sequence(1)).deadline(&renewals, 1), at(50));
    }

    #[test]
    fn a_vote_for_the_list_is_none_for_what_it_excepts() {
        let mut votes = Votes::new(Sequence(1));
        let mut renewals = none();
        renewals.add(0, Sequence(3), at(50));
        renewals.add(1, Sequence(3), at(60));
        votes.except(1, true);
        assert_eq!(votes.deadline(&renewals, 2), Instant::ZERO);
        assert!(!renewals.admit(&votes, 2), "it has fewer votes than the list");
        votes.except(1, false);
        assert_eq!(votes.deadline(&renewals, 2), at(50));
    }

    #[test]
    fn a_shared_lease_ends_with_the_weakest_vote_that_its_majority_needs() {
        let mut renewals = none();
        renewals.add(0, Sequence(3), at(50));
        assert!(!renewals.renew(2), "one of three");
        renewals.add(1, Sequence(3), at(40));
        assert!(renewals.renew(2));
        assert_eq!(renewals.shared_until, at(40));
        renewals.add(2, Sequence(4), at(45));
        assert!(renewals.renew(2));
        assert_eq!(renewals.shared_until, at(45));
        assert!(!renewals.renew(2));
    }

    #[test]
    fn a_group_shares_the_lease_only_with_the_votes_of_its_own_time() {
        let mut renewals = none();
        renewals.add(0, Sequence(3), at(50));
        renewals.add(1, Sequence(9), at(52));
        renewals.renew(2);
        assert!(renewals.admit(&Votes::new(Sequence(3)), 2));
        assert!(!renewals.admit(&Votes::new(Sequence(4)), 2), "one vote is older than the claim");
        renewals.add(0, Sequence(10), at(55));
        renewals.renew(2);
        assert!(renewals.admit(&Votes::new(Sequence(9)), 2));
        // Now a vote from before the ninth heartbeat, however long, is no vote for all of them.
        renewals.add(2, Sequence(8), at(500));
        renewals.add(0, Sequence(11), at(56));
        renewals.renew(2);
        assert_eq!(renewals.shared_until, at(52));
    }

    #[test]
    fn a_longer_term_of_yesterday_is_no_lease_for_a_new_group() {
        let mut renewals = none();
        renewals.add(0, Sequence(3), at(300));
        renewals.add(1, Sequence(3), at(300));
        renewals.renew(2);
        renewals.add(0, Sequence(5), at(60));
        renewals.add(1, Sequence(5), at(60));
        assert!(!renewals.renew(2));
        assert_eq!(renewals.shared_until, at(300), "those that share it were promised so much");
        assert!(!renewals.admit(&Votes::new(Sequence(5)), 2));
        assert_eq!(Votes::new(Sequence(5)).deadline(&renewals, 2), at(60));
        renewals.add(0, Sequence(6), at(310));
        renewals.add(1, Sequence(6), at(310));
        renewals.renew(2);
        assert!(renewals.admit(&Votes::new(Sequence(5)), 2));
    }

    #[test]
    fn the_holder_gives_up_the_margin_that_clocks_may_differ_by() {
        let end = lease_end(Instant::ZERO, Duration::from_millis(64));
        assert_eq!(end, at(63));
    }

    #[test]
    fn votes_follow_their_members() {
        let mut votes = Votes::new(Sequence(1));
        votes.add(0, Sequence(1), at(10));
        votes.add(1, Sequence(1), at(20));
        votes.renumber(|old| (old == 1).then_some(0));
        assert!(votes.stands(&none(), 0, at(19)));
        assert!(!votes.stands(&none(), 1, at(1)));
    }
}
