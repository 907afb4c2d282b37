//! What this node has promised to others: the voter's half of the lease protocol.
//!
//! A voter promises a group to one life of one node at a time, and not to another before the term
//! has run out on its own clock. After a start it may have forgotten a promise, so it makes none for
//! the longest term there is. A heartbeat that does not ask for a group gives its promise back.

use alloc::vec::Vec;
use buoy_model::limits::{DRIFT_DIVISOR, LEASE_MAX, VOTER_GROUPS_MAX};
use buoy_model::{Claim, Epoch, Grant, GroupId, Incarnation, Instant, NodeId, Verdict};
use core::time::Duration;

#[derive(Clone, Debug)]
pub(crate) struct Voter {
    silent_until: Instant,
    /// Sorted by group. An entry outlives its promise, to remember the epoch.
    promises: Vec<Promise>,
    /// Breaks the promise, to show that the checkers see it.
    #[cfg(feature = "mutants")]
    pub(crate) forgetful: bool,
}

#[derive(Clone, Copy, Debug)]
struct Promise {
    group: GroupId,
    epoch: Epoch,
    node: NodeId,
    incarnation: Incarnation,
    until: Instant,
}

/// Who asks, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker {
    pub(crate) node: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) term: Duration,
}

impl Voter {
    /// A voter that may have forgotten what an earlier life promised.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            silent_until: now + LEASE_MAX + LEASE_MAX / DRIFT_DIVISOR,
            promises: Vec::with_capacity(VOTER_GROUPS_MAX),
            #[cfg(feature = "mutants")]
            forgetful: false,
        }
    }

    /// Answers a heartbeat: one verdict for each group it asks for; the rest is taken back.
    pub(crate) fn hear(
        &mut self,
        now: Instant,
        asker: Asker,
        claims: &[Claim],
        grants: &mut Vec<Grant>,
    ) {
        grants.clear();
        for promise in &mut self.promises {
            let asked = claims.binary_search_by_key(&promise.group, |c| c.group);
            if !asked.is_ok_and(|i| claims[i].kind.asks()) {
                promise.give_back(asker);
            }
        }
        for claim in claims {
            if !claim.kind.asks() {
                self.learn(claim.group, claim.epoch);
                continue;
            }
            let verdict = self.ask(now, asker, claim.group, claim.epoch);
            let epoch = self.epoch(claim.group);
            grants.push(Grant { group: claim.group, verdict, epoch });
        }
    }

    /// Promises one group, or says why not.
    pub(crate) fn ask(
        &mut self,
        now: Instant,
        asker: Asker,
        group: GroupId,
        epoch: Epoch,
    ) -> Verdict {
        if now < self.silent_until {
            self.learn(group, epoch);
            return Verdict::Silent { remaining: self.silent_until.since(now) };
        }
        let Some(promise) = self.entry(now, group) else {
            // Full of live promises: as good as silent, and it says so.
            return Verdict::Silent { remaining: LEASE_MAX };
        };
        promise.epoch = promise.epoch.max(epoch);
        let (node, remaining) = (promise.node, promise.until.since(now));
        let is_theirs = node == asker.node && promise.incarnation == asker.incarnation;
        if !remaining.is_zero() && !is_theirs && !self.is_forgetful() {
            return Verdict::Promised { to: node, remaining };
        }
        if let Some(promise) = self.entry(now, group) {
            promise.node = asker.node;
            promise.incarnation = asker.incarnation;
            // A shorter term than before (after a reload) does not shorten what was promised.
            let until = now + asker.term;
            promise.until = if is_theirs { promise.until.max(until) } else { until };
        }
        Verdict::Granted
    }

    /// Takes one group back from its asker.
    pub(crate) fn give_back(&mut self, asker: Asker, group: GroupId) {
        if let Ok(i) = self.promises.binary_search_by_key(&group, |p| p.group) {
            self.promises[i].give_back(asker);
        }
    }

    /// The highest epoch heard of.
    pub(crate) fn epoch(&self, group: GroupId) -> Epoch {
        let found = self.promises.binary_search_by_key(&group, |p| p.group);
        found.map_or(Epoch(0), |i| self.promises[i].epoch)
    }

    /// Until when it promises nothing.
    pub(crate) const fn silent_until(&self) -> Instant {
        self.silent_until
    }

    /// Speaks at once, to show that the checkers see it.
    #[cfg(feature = "mutants")]
    pub(crate) fn end_silence(&mut self) {
        self.silent_until = Instant::ZERO;
    }

    fn learn(&mut self, group: GroupId, epoch: Epoch) {
        if epoch == Epoch(0) {
            return;
        }
        if let Some(promise) = self.entry(Instant::ZERO, group) {
            promise.epoch = promise.epoch.max(epoch);
        }
    }

    /// The group's entry, made if need be; `None` when there is no room.
    fn entry(&mut self, now: Instant, group: GroupId) -> Option<&mut Promise> {
        let at = match self.promises.binary_search_by_key(&group, |p| p.group) {
            Ok(i) => return Some(&mut self.promises[i]),
            Err(i) => i,
        };
        let mut at = at;
        if self.promises.len() >= VOTER_GROUPS_MAX {
            self.promises.retain(|p| now < p.until);
            if self.promises.len() >= VOTER_GROUPS_MAX {
                return None;
            }
            at = self.promises.partition_point(|p| p.group < group);
        }
        let nobody = Promise {
            group,
            epoch: Epoch(0),
            node: NodeId(0),
            incarnation: Incarnation(0),
            until: Instant::ZERO,
        };
        self.promises.insert(at, nobody);
        self.promises.get_mut(at)
    }

    #[cfg(feature = "mutants")]
    const fn is_forgetful(&self) -> bool {
        self.forgetful
    }

    #[cfg(not(feature = "mutants"))]
    #[expect(clippy::unused_self, reason = "has a body with the feature `mutants`")]
    const fn is_forgetful(&self) -> bool {
        false
    }
}

impl Promise {
    fn give_back(&mut self, asker: Asker) {
        if self.node == asker.node && self.incarnation == asker.incarnation {
            self.until = Instant::ZERO;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use buoy_model::ClaimKind;

    const TERM: Duration = Duration::from_millis(50);
    const GROUP: GroupId = GroupId(7);

    fn asker(node: u32) -> Asker {
        Asker { node: NodeId(node), incarnation: Incarnation(u64::from(node) * 10), term: TERM }
    }

    fn ready() -> (Voter, Instant) {
        let voter = Voter::new(Instant::ZERO);
        let now = voter.silent_until();
        (voter, now)
    }

    fn claim(kind: ClaimKind) -> Vec<Claim> {
        vec![Claim::new(GROUP, kind, Epoch(1))]
    }

    fn ask(voter: &mut Voter, now: Instant, node: u32, kind: ClaimKind) -> Vec<Verdict> {
        let mut grants = Vec::new();
        voter.hear(now, asker(node), &claim(kind), &mut grants);
        grants.iter().map(|g| g.verdict).collect()
    }

    #[test]
    fn after_a_start_it_promises_nothing_for_the_longest_term() {
        let (mut voter, ready) = ready();
        let early = ready - Duration::from_nanos(1);
        assert!(matches!(
            ask(&mut voter, early, 1, ClaimKind::Wants)[..],
            [Verdict::Silent { .. }]
        ));
        assert_eq!(ask(&mut voter, ready, 1, ClaimKind::Wants), [Verdict::Granted]);
        assert!(ready >= Instant::ZERO + LEASE_MAX);
    }

    #[test]
    fn a_promise_stands_until_its_term_is_over() {
        let (mut voter, now) = ready();
        assert_eq!(ask(&mut voter, now, 1, ClaimKind::Wants), [Verdict::Granted]);
        let last = now + TERM - Duration::from_nanos(1);
        let remaining = Duration::from_nanos(1);
        let refused = Verdict::Promised { to: NodeId(1), remaining };
        assert_eq!(ask(&mut voter, last, 2, ClaimKind::Wants), [refused]);
        assert_eq!(ask(&mut voter, now + TERM, 2, ClaimKind::Wants), [Verdict::Granted]);
    }

    #[test]
    fn a_shorter_term_does_not_shorten_a_promise() {
        let (mut voter, now) = ready();
        let long = Asker { term: TERM * 4, ..asker(1) };
        voter.ask(now, long, GROUP, Epoch(0));
        voter.ask(now, asker(1), GROUP, Epoch(0));
        assert!(matches!(
            voter.ask(now + TERM * 2, asker(2), GROUP, Epoch(0)),
            Verdict::Promised { .. }
        ));
    }

    #[test]
    fn a_heartbeat_without_the_claim_gives_it_back() {
        let (mut voter, now) = ready();
        ask(&mut voter, now, 1, ClaimKind::Holds);
        assert_eq!(ask(&mut voter, now, 1, ClaimKind::Eligible), []);
        assert_eq!(ask(&mut voter, now, 2, ClaimKind::Wants), [Verdict::Granted]);
        let mut grants = Vec::new();
        voter.hear(now, asker(2), &[], &mut grants);
        assert_eq!(ask(&mut voter, now, 3, ClaimKind::Wants), [Verdict::Granted]);
    }

    #[test]
    fn only_the_holder_can_give_it_back() {
        let (mut voter, now) = ready();
        ask(&mut voter, now, 1, ClaimKind::Holds);
        ask(&mut voter, now, 2, ClaimKind::Eligible);
        assert!(matches!(
            ask(&mut voter, now, 2, ClaimKind::Wants)[..],
            [Verdict::Promised { .. }]
        ));
    }

    #[test]
    fn a_new_life_of_the_holder_is_another_node() {
        let (mut voter, now) = ready();
        ask(&mut voter, now, 1, ClaimKind::Holds);
        let reborn = Asker { incarnation: Incarnation(99), ..asker(1) };
        let verdict = voter.ask(now, reborn, GROUP, Epoch(0));
        assert!(matches!(verdict, Verdict::Promised { .. }));
    }

    #[test]
    fn it_remembers_the_highest_epoch_after_the_promise_is_over() {
        let (mut voter, now) = ready();
        voter.ask(now, asker(1), GROUP, Epoch(41));
        voter.ask(now + TERM, asker(2), GROUP, Epoch(3));
        assert_eq!(voter.epoch(GROUP), Epoch(41));
    }

    #[test]
    fn a_full_table_refuses_instead_of_forgetting() {
        let (mut voter, now) = ready();
        for g in 0..VOTER_GROUPS_MAX {
            let group = GroupId(u32::try_from(g).unwrap() + 100);
            assert_eq!(voter.ask(now, asker(1), group, Epoch(0)), Verdict::Granted);
        }
        assert!(matches!(voter.ask(now, asker(1), GROUP, Epoch(0)), Verdict::Silent { .. }));
        assert_eq!(voter.ask(now + TERM, asker(1), GROUP, Epoch(0)), Verdict::Granted);
    }
}
