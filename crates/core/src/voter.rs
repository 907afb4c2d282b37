//! What this node has promised to others: the voter's half of the lease protocol.
//!
//! A voter promises a group to one life of one node at a time, and not to another before the term
//! has run out on its own clock. After a start it may have forgotten a promise, so it makes none for
//! the longest term there is. A heartbeat that does not ask for a group gives its promise back.

use alloc::vec::Vec;
use buoy_model::limits::{DRIFT_DIVISOR, LEASE_MAX, NODES_MAX, VOTER_GROUPS_MAX};
use buoy_model::{
    Claim, Epoch, Grant, GroupId, Incarnation, Instant, ListVersion, NodeId, Verdict,
};
use core::time::Duration;

#[derive(Clone, Debug)]
pub(crate) struct Voter {
    silent_until: Instant,
    /// Sorted by group. An entry outlives its promise, to remember the epoch.
    promises: Vec<Promise>,
    /// Lists of claims that were granted whole: a heartbeat that repeats one renews all of it.
    standing: Vec<Standing>,
    /// Breaks the promise, to show that the checkers see it.
    #[cfg(feature = "mutants")]
    pub(crate) forgetful: bool,
    /// Honours a repeat of a list that it does not know.
    #[cfg(feature = "mutants")]
    pub(crate) credulous: bool,
}

#[derive(Clone, Copy, Debug)]
struct Promise {
    group: GroupId,
    epoch: Epoch,
    node: NodeId,
    incarnation: Incarnation,
    until: Instant,
    /// Renewed with the rest of the list of its asker.
    stands: bool,
}

/// One asker's list, granted whole.
#[derive(Clone, Copy, Debug)]
struct Standing {
    node: NodeId,
    incarnation: Incarnation,
    list: ListVersion,
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
            standing: Vec::with_capacity(NODES_MAX),
            #[cfg(feature = "mutants")]
            forgetful: false,
            #[cfg(feature = "mutants")]
            credulous: false,
        }
    }

    /// Answers a heartbeat with all its claims: what it does not ask for is taken back, and `grants`
    /// has a verdict for each group that it asks for.
    pub(crate) fn hear(
        &mut self,
        now: Instant,
        asker: Asker,
        list: ListVersion,
        claims: &[Claim],
        grants: &mut Vec<Grant>,
    ) {
        grants.clear();
        self.unbind(asker.node);
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
        if grants.iter().all(|g| g.verdict == Verdict::Granted) && list != ListVersion(0) {
            self.bind(now, asker, list);
        }
    }

    /// Answers a heartbeat that repeats a list which was granted whole; false when this one was not.
    pub(crate) fn repeat(&mut self, now: Instant, asker: Asker, list: ListVersion) -> bool {
        let credulous = self.is_credulous();
        let Some(standing) = self.standing.iter_mut().find(|s| s.node == asker.node) else {
            return false;
        };
        let is_known = standing.incarnation == asker.incarnation && standing.list == list;
        // Once it has run out, another may have been promised a part of it.
        let is_live = is_known && now < standing.until;
        if !is_live && !credulous {
            return false;
        }
        // A shorter term than before does not shorten what was promised.
        standing.until = standing.until.max(now + asker.term);
        true
    }

    /// From now on a repeat of the list renews all that its asker was promised.
    fn bind(&mut self, now: Instant, asker: Asker, list: ListVersion) {
        let Asker { node, incarnation, term } = asker;
        for promise in &mut self.promises {
            if promise.node == node && promise.incarnation == incarnation {
                promise.stands = promise.until != Instant::ZERO;
            }
        }
        self.standing.retain(|s| now < s.until);
        self.standing.push(Standing { node, incarnation, list, until: now + term });
    }

    /// Each promise to this node stands for itself again, for as long as it was renewed.
    fn unbind(&mut self, node: NodeId) {
        let Some(i) = self.standing.iter().position(|s| s.node == node) else { return };
        let standing = self.standing.swap_remove(i);
        let of = |p: &&mut Promise| p.node == node && p.incarnation == standing.incarnation;
        for promise in self.promises.iter_mut().filter(of).filter(|p| p.stands) {
            promise.until = promise.until.max(standing.until);
            promise.stands = false;
        }
    }

    /// Until when a promise stands.
    fn until(&self, promise: &Promise) -> Instant {
        if !promise.stands {
            return promise.until;
        }
        let of = |s: &&Standing| s.node == promise.node && s.incarnation == promise.incarnation;
        let standing = self.standing.iter().find(of);
        standing.map_or(promise.until, |s| promise.until.max(s.until))
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
        let promise = *promise;
        let until = self.until(&promise);
        let remaining = until.since(now);
        let is_theirs = promise.node == asker.node && promise.incarnation == asker.incarnation;
        if !remaining.is_zero() && !is_theirs && !self.is_forgetful() {
            return Verdict::Promised { to: promise.node, remaining };
        }
        if let Some(promise) = self.entry(now, group) {
            promise.node = asker.node;
            promise.incarnation = asker.incarnation;
            promise.stands = false;
            // A shorter term than before does not shorten what was promised.
            let asked = now + asker.term;
            promise.until = if is_theirs { until.max(asked) } else { asked };
        }
        Verdict::Granted
    }

    /// Takes back everything that one life of a node was promised: it said goodbye.
    pub(crate) fn give_back_all(&mut self, asker: Asker) {
        self.unbind(asker.node);
        self.promises.iter_mut().for_each(|p| p.give_back(asker));
    }

    /// Takes one group back from its asker.
    pub(crate) fn give_back(&mut self, asker: Asker, group: GroupId) {
        let Ok(i) = self.promises.binary_search_by_key(&group, |p| p.group) else { return };
        if self.promises[i].stands && self.promises[i].node == asker.node {
            // A repeat of the list would bring it back.
            self.unbind(asker.node);
        }
        self.promises[i].give_back(asker);
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
            let standing = core::mem::take(&mut self.standing);
            self.promises.retain(|p| now < p.until || (p.stands && lasts(&standing, p, now)));
            self.standing = standing;
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
            stands: false,
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

    #[cfg(feature = "mutants")]
    const fn is_credulous(&self) -> bool {
        self.credulous
    }

    #[cfg(not(feature = "mutants"))]
    #[expect(clippy::unused_self, reason = "has a body with the feature `mutants`")]
    const fn is_credulous(&self) -> bool {
        false
    }
}

fn lasts(standing: &[Standing], promise: &Promise, now: Instant) -> bool {
    standing.iter().any(|s| s.node == promise.node && now < s.until)
}

impl Promise {
    fn give_back(&mut self, asker: Asker) {
        if self.node == asker.node && self.incarnation == asker.incarnation {
            self.until = Instant::ZERO;
            self.stands = false;
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
    const LIST: ListVersion = ListVersion(3);

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
        voter.hear(now, asker(node), LIST, &claim(kind), &mut grants);
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
        voter.hear(now, asker(2), LIST, &[], &mut grants);
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
    fn a_repeat_renews_what_was_granted_whole_and_nothing_else() {
        let (mut voter, now) = ready();
        assert!(!voter.repeat(now, asker(1), LIST), "never heard of it");
        ask(&mut voter, now, 1, ClaimKind::Holds);
        let half = now + TERM / 2;
        assert!(!voter.repeat(half, asker(1), ListVersion(4)), "another list");
        let reborn = Asker { incarnation: Incarnation(99), ..asker(1) };
        assert!(!voter.repeat(half, reborn, LIST), "another life");
        assert!(voter.repeat(half, asker(1), LIST));
        let refused = Verdict::Promised { to: NodeId(1), remaining: TERM / 2 };
        assert_eq!(ask(&mut voter, now + TERM, 2, ClaimKind::Wants), [refused]);
        assert_eq!(ask(&mut voter, half + TERM, 2, ClaimKind::Wants), [Verdict::Granted]);
    }

    #[test]
    fn a_list_that_has_run_out_is_not_revived_by_a_repeat() {
        let (mut voter, now) = ready();
        ask(&mut voter, now, 1, ClaimKind::Holds);
        assert_eq!(ask(&mut voter, now + TERM, 2, ClaimKind::Wants), [Verdict::Granted]);
        assert!(!voter.repeat(now + TERM, asker(1), LIST), "a part of it is another's now");
        let (mut voter, now) = ready();
        ask(&mut voter, now, 1, ClaimKind::Holds);
        assert!(!voter.repeat(now + TERM, asker(1), LIST), "it must be asked again");
    }

    #[test]
    fn a_group_given_back_alone_does_not_come_back_with_its_list() {
        let (mut voter, now) = ready();
        ask(&mut voter, now, 1, ClaimKind::Holds);
        voter.give_back(asker(1), GROUP);
        assert!(!voter.repeat(now, asker(1), LIST));
        assert_eq!(ask(&mut voter, now, 2, ClaimKind::Wants), [Verdict::Granted]);
    }

    #[test]
    fn the_lists_of_two_askers_do_not_touch_each_other() {
        let (mut voter, now) = ready();
        let other = vec![Claim::new(GroupId(9), ClaimKind::Holds, Epoch(1))];
        ask(&mut voter, now, 1, ClaimKind::Holds);
        voter.hear(now, asker(2), LIST, &other, &mut Vec::new());
        let later = now + TERM / 2;
        assert!(voter.repeat(later, asker(1), LIST));
        assert!(voter.repeat(later, asker(2), LIST));
        for (group, node) in [(GROUP, 1), (GroupId(9), 2)] {
            let remaining = TERM / 2;
            let refused = Verdict::Promised { to: NodeId(node), remaining };
            assert_eq!(voter.ask(now + TERM, asker(3), group, Epoch(0)), refused);
        }
    }

    #[test]
    fn a_list_with_a_refusal_does_not_stand() {
        let (mut voter, now) = ready();
        ask(&mut voter, now, 1, ClaimKind::Holds);
        assert!(matches!(
            ask(&mut voter, now, 2, ClaimKind::Wants)[..],
            [Verdict::Promised { .. }]
        ));
        assert!(!voter.repeat(now, asker(2), LIST), "it must be asked group by group");
        assert!(voter.repeat(now, asker(1), LIST), "the other's list stands");
    }

    #[test]
    fn what_was_renewed_by_repeats_outlives_the_next_list_and_the_next_life() {
        let (mut voter, now) = ready();
        ask(&mut voter, now, 1, ClaimKind::Holds);
        let later = now + TERM / 2;
        assert!(voter.repeat(later, asker(1), LIST));
        let reborn = Asker { incarnation: Incarnation(99), ..asker(1) };
        let mut grants = Vec::new();
        voter.hear(later, reborn, LIST, &claim(ClaimKind::Wants), &mut grants);
        let remaining = TERM;
        assert_eq!(grants[0].verdict, Verdict::Promised { to: NodeId(1), remaining });
        assert_eq!(ask(&mut voter, later + TERM, 2, ClaimKind::Wants), [Verdict::Granted]);
    }

    #[test]
    fn a_list_without_the_group_gives_it_back_although_it_stood() {
        let (mut voter, now) = ready();
        ask(&mut voter, now, 1, ClaimKind::Holds);
        assert!(voter.repeat(now, asker(1), LIST));
        ask(&mut voter, now, 1, ClaimKind::Eligible);
        assert_eq!(ask(&mut voter, now, 2, ClaimKind::Wants), [Verdict::Granted]);
    }

    #[test]
    fn a_goodbye_gives_everything_back_that_this_life_had() {
        let (mut voter, now) = ready();
        ask(&mut voter, now, 1, ClaimKind::Holds);
        assert!(voter.repeat(now, asker(1), LIST));
        voter.give_back_all(Asker { incarnation: Incarnation(99), ..asker(1) });
        assert!(matches!(
            ask(&mut voter, now, 2, ClaimKind::Wants)[..],
            [Verdict::Promised { .. }]
        ));
        voter.give_back_all(asker(1));
        assert_eq!(ask(&mut voter, now, 2, ClaimKind::Wants), [Verdict::Granted]);
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
