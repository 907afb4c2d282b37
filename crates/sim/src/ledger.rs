//! Who serves which group, as the machines record it, and which changes are too many.
//!
//! `no_flap` and `minimal_moves` are windows of time in which only certain changes of owner are right:
//! so many for each group, from or to a certain host only, and an even spread at the end.

use crate::checker::Violation;
use core::ops::Range;

const SECOND: u64 = 1_000_000_000;
/// A group that changes hands so often is tossed to and fro, whatever breaks meanwhile.
const CHANGES_PER_SECOND_MAX: u32 = 40;

/// What may change its owner in a span of time.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Watch {
    /// From when to when, in nanoseconds.
    pub span: Range<u64>,
    /// How often one group may change hands.
    pub each: u32,
    /// How many changes there may be of all groups together.
    pub all: u32,
    /// The only host that may lose a group.
    pub from: Option<usize>,
    /// The only host that may get one.
    pub to: Option<usize>,
    /// The host that every change must be from or to.
    pub about: Option<usize>,
    /// The host that may neither lose a group nor get one.
    pub aloof: Option<usize>,
    /// Hosts over which the groups are spread with a difference of one at most in the end.
    pub spread: Vec<usize>,
}

/// Who serves what.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    groups: Vec<Entry>,
    watches: Vec<(Watch, Vec<u32>)>,
    /// Changes of owner in the whole run.
    pub(crate) changes: u64,
    /// When a group was last taken or given up.
    pub(crate) changed_at: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// Bits of the hosts that serve it.
    holders: u64,
    last: Option<usize>,
    /// Since when changes are counted, and how many there were.
    since: u64,
    lately: u32,
}

impl Ledger {
    pub(crate) fn new(groups: usize, watches: Vec<Watch>) -> Self {
        let counted = |watch| (watch, vec![0; groups]);
        Self {
            groups: vec![Entry::default(); groups],
            watches: watches.into_iter().map(counted).collect(),
            changes: 0,
            changed_at: 0,
        }
    }

    /// Who serves a group.
    pub(crate) fn holders(&self, group: usize) -> Vec<usize> {
        let holders = self.groups[group].holders;
        (0..64).filter(|host| holders & 1 << host != 0).collect()
    }

    /// A host begins to serve a group.
    pub(crate) fn acquired(&mut self, now: u64, group: usize, host: usize) -> Option<Violation> {
        let entry = &mut self.groups[group];
        let before = entry.last;
        entry.holders |= 1 << host;
        entry.last = Some(host);
        self.changed_at = now;
        if before == Some(host) {
            return None;
        }
        self.changes += 1;
        if now < entry.since + SECOND {
            entry.lately += 1;
        } else {
            (entry.since, entry.lately) = (now, 1);
        }
        if entry.lately > CHANGES_PER_SECOND_MAX {
            return Some(Violation::Flaps { at: now, group, changes: entry.lately });
        }
        for (watch, counts) in &mut self.watches {
            if !watch.span.contains(&now) {
                continue;
            }
            counts[group] += 1;
            let too_often = counts[group] > watch.each;
            let too_many = counts.iter().sum::<u32>() > watch.all;
            let wrong_from = watch.from.is_some_and(|from| before != Some(from));
            let wrong_to = watch.to.is_some_and(|to| host != to);
            let unrelated = watch.about.is_some_and(|about| before != Some(about) && host != about);
            if too_often || too_many {
                return Some(Violation::Flaps { at: now, group, changes: counts[group] });
            }
            let touched = watch.aloof.is_some_and(|aloof| before == Some(aloof) || host == aloof);
            if wrong_from || wrong_to || unrelated || touched {
                return Some(Violation::NeedlessMove { at: now, group, from: before, to: host });
            }
        }
        None
    }

    /// A host does not serve a group any more.
    pub(crate) fn released(&mut self, now: u64, group: usize, host: usize) {
        self.groups[group].holders &= !(1 << host);
        self.changed_at = now;
    }

    /// A host's agent is dead: it cannot say so, but it serves nothing.
    pub(crate) fn died(&mut self, host: usize) {
        self.groups.iter_mut().for_each(|entry| entry.holders &= !(1 << host));
    }

    /// Whether the groups are spread as the watches that have just ended want it.
    pub(crate) fn spread(&self, now: u64) -> Option<Violation> {
        let ended = |watch: &&(Watch, Vec<u32>)| watch.0.span.end == now;
        self.watches.iter().filter(ended).find_map(|(watch, _)| {
            let load = |host: &usize| {
                self.groups.iter().filter(|entry| entry.holders & 1 << host != 0).count()
            };
            let loads: Vec<_> = watch.spread.iter().map(load).collect();
            let most = loads.iter().max().copied().unwrap_or_default();
            let least = loads.iter().min().copied().unwrap_or_default();
            (most > least + 1).then_some(Violation::Uneven { at: now, loads })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch() -> Watch {
        Watch {
            span: 10..20,
            each: 1,
            all: 9,
            from: None,
            to: None,
            about: None,
            aloof: None,
            spread: vec![0, 1],
        }
    }

    #[test]
    fn one_change_too_many_is_a_flap_and_only_within_the_span() {
        let mut ledger = Ledger::new(1, vec![watch()]);
        assert_eq!(ledger.acquired(5, 0, 0), None);
        assert_eq!(ledger.acquired(9, 0, 1), None);
        assert_eq!(ledger.acquired(10, 0, 0), None);
        assert_eq!(ledger.acquired(11, 0, 0), None, "it had it before");
        assert!(matches!(ledger.acquired(12, 0, 1), Some(Violation::Flaps { changes: 2, .. })));
        assert_eq!(ledger.acquired(20, 0, 0), None);
        assert_eq!(ledger.changes, 5);
    }

    #[test]
    fn a_group_that_is_tossed_to_and_fro_flaps_whatever_breaks() {
        let mut ledger = Ledger::new(1, vec![]);
        let mut toss = |n: u64, every: u64| {
            (0..n).find_map(|i| ledger.acquired(n * SECOND + i * every, 0, (i % 2) as usize))
        };
        assert_eq!(toss(100, SECOND / 20), None);
        assert!(matches!(toss(1_000, 2_000_000), Some(Violation::Flaps { .. })));
    }

    #[test]
    fn a_group_that_need_not_move_must_not() {
        let mut ledger = Ledger::new(2, vec![Watch { from: Some(1), ..watch() }]);
        ledger.acquired(1, 0, 0);
        ledger.acquired(1, 1, 1);
        assert_eq!(ledger.acquired(15, 1, 0), None);
        assert!(matches!(ledger.acquired(15, 0, 1), Some(Violation::NeedlessMove { .. })));
        let mut ledger = Ledger::new(2, vec![Watch { to: Some(1), ..watch() }]);
        ledger.acquired(1, 0, 0);
        assert_eq!(ledger.acquired(15, 0, 1), None);
        assert!(matches!(ledger.acquired(15, 1, 0), Some(Violation::NeedlessMove { .. })));
        let aloof = vec![Watch { aloof: Some(1), each: 9, ..watch() }];
        let mut ledger = Ledger::new(2, aloof);
        assert_eq!(ledger.acquired(5, 0, 1), None);
        assert_eq!(ledger.acquired(10, 1, 2), None);
        assert!(ledger.acquired(11, 1, 1).is_some(), "it may get none");
        assert!(ledger.acquired(12, 0, 2).is_some(), "it may lose none");
        let mut ledger = Ledger::new(2, vec![Watch { about: Some(1), each: 9, ..watch() }]);
        ledger.acquired(1, 0, 0);
        assert_eq!(ledger.acquired(15, 0, 1), None, "to it");
        assert_eq!(ledger.acquired(15, 0, 2), None, "from it");
        assert!(matches!(ledger.acquired(15, 0, 0), Some(Violation::NeedlessMove { .. })));
    }

    #[test]
    fn a_difference_of_two_is_uneven() {
        let mut ledger = Ledger::new(3, vec![watch()]);
        ledger.acquired(1, 0, 0);
        assert_eq!(ledger.spread(20), None);
        ledger.acquired(1, 1, 0);
        assert_eq!(ledger.spread(19), None, "not over yet");
        assert!(matches!(ledger.spread(20), Some(Violation::Uneven { .. })));
        ledger.acquired(1, 2, 1);
        assert_eq!(ledger.spread(20), None);
        ledger.died(1);
        assert!(ledger.spread(20).is_some());
        assert_eq!(ledger.holders(1), [0]);
        ledger.released(2, 1, 0);
        assert_eq!(ledger.spread(20), None);
    }
}
