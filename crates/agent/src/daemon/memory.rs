//! Remembers for people what happened: changes of owner longest, and what is wrong now.

use buoy_api::view::DatedRecord;
use buoy_model::Record;
use buoy_model::limits::{CHANGES_MAX, RECORDS_MAX};
use std::collections::VecDeque;

/// What is remembered for people.
#[derive(Default)]
pub(super) struct Memory {
    /// Changes of owner, which nothing else drives out: every one is worth asking about later.
    changes: VecDeque<DatedRecord>,
    /// Everything else.
    records: VecDeque<DatedRecord>,
    /// The newest of those that had to go.
    forgotten: u64,
    /// The latest refusals of the kernel, each once.
    pub(super) refusals: VecDeque<String>,
    /// Why the file on disk is not the one that runs.
    pub(super) refused_file: Option<String>,
    /// Why what was edited since is not in force here.
    pub(super) refused_edits: Option<String>,
    pub(super) duplicate: Option<String>,
    /// What is wrong with looking for backends.
    pub(super) undiscovered: Vec<String>,
}

impl Memory {
    pub(super) fn keep(&mut self, dated: DatedRecord) {
        let (kept, most) = if dated.record.fact.is_change_of_owner() {
            (&mut self.changes, CHANGES_MAX)
        } else {
            (&mut self.records, RECORDS_MAX)
        };
        if kept.len() >= most {
            self.forgotten = kept.pop_front().map_or(0, |old| old.seq).max(self.forgotten);
        }
        kept.push_back(dated);
    }

    /// All that came after, oldest first, and whether some of it has been forgotten.
    pub(super) fn after(&self, seq: u64) -> (Vec<DatedRecord>, bool) {
        let newer = |kept: &VecDeque<DatedRecord>| {
            let first = kept.partition_point(|dated| dated.seq <= seq);
            kept.range(first..).cloned().collect::<Vec<_>>()
        };
        let mut all = newer(&self.changes);
        all.extend(newer(&self.records));
        all.sort_by_key(|dated| dated.seq);
        (all, seq < self.forgotten)
    }

    /// The latest of those that are meant, oldest first.
    pub(super) fn latest(
        &self,
        count: usize,
        is_meant: impl Fn(&Record) -> bool,
    ) -> Vec<DatedRecord> {
        let all = self.changes.iter().chain(&self.records);
        let mut all: Vec<&DatedRecord> = all.filter(|dated| is_meant(&dated.record)).collect();
        // By this node's own clock, which nobody can set; what is of one moment stays in its order.
        all.sort_by_key(|dated| dated.record.at);
        let skip = all.len().saturating_sub(count);
        all.into_iter().skip(skip).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use buoy_model::{Epoch, Fact, Instant, NodeId};

    #[test]
    fn noise_drives_no_change_of_owner_out_of_the_memory() {
        let mut memory = Memory::default();
        let record = |n: u64, fact| {
            let record = Record { at: Instant::from_nanos(n), group: None, fact };
            DatedRecord { seq: n, at: n, record }
        };
        let change = Fact::OwnerHeard { node: NodeId(1), epoch: Epoch(7) };
        memory.keep(record(0, change.clone()));
        for n in 1..=2 * RECORDS_MAX as u64 {
            memory.keep(record(n, Fact::Undrained { reason: String::new() }));
        }
        let all = memory.latest(usize::MAX, |_| true);
        assert_eq!(all.len(), RECORDS_MAX + 1);
        assert_eq!(all[0].record.fact, change);
        assert!(all.is_sorted_by_key(|dated| dated.record.at));
        assert_eq!(memory.latest(3, |_| true).len(), 3);
        let last = 2 * RECORDS_MAX as u64;
        assert_eq!(memory.latest(3, |_| true)[2].at, last, "the latest comes last");
        let seqs = |seq| memory.after(seq).0.iter().map(|d| d.seq).collect::<Vec<_>>();
        assert_eq!((seqs(last - 2), seqs(last)), (vec![last - 1, last], vec![]));
        let known = last - RECORDS_MAX as u64;
        assert!(!memory.after(known).1, "all that came after it is there");
        assert!(memory.after(known - 1).1, "something is forgotten, and that is said");
    }
}
