//! The holder's half of the lease protocol: whose votes it has for one group, and until when.

use buoy_model::limits::{DRIFT_DIVISOR, NODES_MAX};
use buoy_model::{Instant, Sequence};
use core::time::Duration;

#[derive(Clone, Debug)]
pub(crate) struct Votes {
    /// Answers to earlier heartbeats do not count: in between the group was given back.
    from: Sequence,
    /// Until when each member's vote stands, by its place in `Desired::nodes`.
    until: [Instant; NODES_MAX],
}

impl Votes {
    /// No votes; `from` is the first heartbeat that will ask.
    pub(crate) const fn new(from: Sequence) -> Self {
        Self { from, until: [Instant::ZERO; NODES_MAX] }
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

    /// Until when a majority stands: the end of the weakest vote that it needs.
    pub(crate) fn deadline(&self, majority: usize) -> Instant {
        debug_assert!(majority >= 1);
        debug_assert!(majority <= NODES_MAX);
        let mut until = self.until;
        until.sort_unstable();
        until[NODES_MAX - majority]
    }

    /// Whose vote stands.
    pub(crate) fn stands(&self, index: usize, now: Instant) -> bool {
        self.until.get(index).is_some_and(|until| now < *until)
    }

    /// Puts the votes where their members are now.
    pub(crate) fn renumber(&mut self, moved: impl Fn(usize) -> Option<usize>) {
        let before = core::mem::replace(&mut self.until, [Instant::ZERO; NODES_MAX]);
        for (old, until) in before.into_iter().enumerate() {
            if let Some(new) = moved(old).and_then(|i| self.until.get_mut(i)) {
                *new = until;
            }
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

    #[test]
    fn a_majority_stands_as_long_as_its_weakest_vote() {
        let mut votes = Votes::new(Sequence(1));
        votes.add(0, Sequence(1), at(50));
        assert_eq!(votes.deadline(2), Instant::ZERO);
        votes.add(2, Sequence(1), at(40));
        assert_eq!(votes.deadline(2), at(40));
        votes.add(1, Sequence(1), at(45));
        assert_eq!(votes.deadline(2), at(45));
        assert_eq!(votes.deadline(1), at(50));
    }

    #[test]
    fn an_answer_to_a_heartbeat_before_the_claim_does_not_count() {
        let mut votes = Votes::new(Sequence(5));
        votes.add(0, Sequence(4), at(50));
        assert_eq!(votes.deadline(1), Instant::ZERO);
        votes.add(0, Sequence(5), at(50));
        assert_eq!(votes.deadline(1), at(50));
    }

    #[test]
    fn an_older_answer_never_shortens_a_vote() {
        let mut votes = Votes::new(Sequence(1));
        votes.add(0, Sequence(3), at(50));
        votes.add(0, Sequence(2), at(40));
        assert_eq!(votes.deadline(1), at(50));
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
        assert!(votes.stands(0, at(19)));
        assert!(!votes.stands(1, at(1)));
    }
}
