//! Remembers for people what happened: changes of owner longest, and what is wrong now.

use buoy_api::view::DatedRecord;
use buoy_api::words::Words;
use buoy_model::limits::{CHANGES_MAX, RECORDS_MAX};
use buoy_model::{Desired, GroupId, Record};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// What is remembered for people.
#[derive(Default)]
pub(super) struct Memory {
    /// Changes of owner, which nothing else drives out: every one is worth asking about later.
    changes: VecDeque<DatedRecord>,
    /// Everything else.
    records: VecDeque<DatedRecord>,
    /// The newest of those that had to go.
    forgotten: u64,
    /// VIPs that have left the configuration and are remembered all the same, by name.
    gone: BTreeMap<GroupId, Arc<str>>,
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
    /// Another configuration holds: what is remembered of VIPs that it has not, and what still comes, has their names.
    pub(super) fn leave(&mut self, before: &Desired, after: &Desired) {
        let left = before.groups.iter().filter(|group| after.group(group.id).is_none());
        let gone: BTreeMap<GroupId, Arc<str>> =
            left.map(|group| (group.id, group.name.as_str().into())).collect();
        if gone.is_empty() {
            return;
        }
        for dated in self.changes.iter_mut().chain(&mut self.records) {
            if let Some(name) = dated.record.group.and_then(|group| gone.get(&group)) {
                dated.vip = Some(Arc::clone(name));
            }
        }
        self.gone.extend(gone);
        let all = self.changes.iter().chain(&self.records);
        let known: BTreeSet<GroupId> = all.filter_map(|dated| dated.record.group).collect();
        let is_new = |group: &GroupId| before.group(*group).is_some();
        self.gone.retain(|group, _| known.contains(group) || is_new(group));
    }

    /// The name of the VIP that a record is about, also where that has left the configuration.
    pub(super) fn vip(&self, words: &Words<'_>, record: &Record) -> Option<String> {
        let left = record.group.filter(|group| words.desired().group(*group).is_none());
        let gone = left.and_then(|group| self.gone.get(&group));
        gone.map(|name| name.as_ref().to_owned()).or_else(|| words.vip(record))
    }

    pub(super) fn keep(&mut self, dated: DatedRecord) {
        let vip = dated.record.group.and_then(|group| self.gone.get(&group).cloned());
        let dated = DatedRecord { vip, ..dated };
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

    /// Whether what is written is not what runs.
    pub(super) const fn is_refused(&self) -> bool {
        self.refused_file.is_some() || self.refused_edits.is_some()
    }

    /// The latest that are meant of all that came after, oldest first, and whether some of that has been forgotten.
    pub(super) fn after(
        &self,
        seq: u64,
        most: usize,
        is_meant: impl Fn(&DatedRecord) -> bool,
    ) -> (Vec<DatedRecord>, bool) {
        // From both ends at once: of thousands that are kept, only those that are asked for are looked at.
        let newer = |kept: &VecDeque<DatedRecord>| kept.partition_point(|dated| dated.seq <= seq);
        let mut changes = self.changes.range(newer(&self.changes)..).rev().peekable();
        let mut records = self.records.range(newer(&self.records)..).rev().peekable();
        let mut all = Vec::new();
        while all.len() < most {
            let is_change = match (changes.peek(), records.peek()) {
                (Some(change), Some(record)) => record.seq < change.seq,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (None, None) => break,
            };
            let next = if is_change { changes.next() } else { records.next() };
            all.extend(next.filter(|dated| is_meant(dated)).cloned());
        }
        all.reverse();
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
    fn what_happened_to_a_vip_has_its_name_when_it_is_gone() {
        let sample = crate::sample::desired(&["10.0.0.100"], "eth0", Vec::new());
        let group = sample.groups[0].clone();
        let mut memory = Memory::default();
        let fact = Fact::OwnerHeard { node: NodeId(1), epoch: Epoch(7) };
        let about = |id, seq| DatedRecord {
            seq,
            at: seq,
            record: Record { at: Instant::from_nanos(seq), group: id, fact: fact.clone() },
            vip: None,
        };
        memory.keep(about(Some(group.id), 1));
        memory.keep(about(None, 2));
        memory.leave(&sample, &sample);
        assert!(memory.gone.is_empty(), "it is there");
        let without = Desired { groups: Vec::new(), ..sample.clone() };
        memory.leave(&sample, &without);
        let names: Vec<_> = memory.latest(9, |_| true).into_iter().map(|dated| dated.vip).collect();
        assert_eq!(names, [Some(Arc::from(group.name.as_str())), None]);
        // What still comes has it too.
        let late = about(Some(group.id), 3);
        let name = memory.vip(&Words::new(&without), &late.record);
        assert_eq!(name.as_ref(), Some(&group.name));
        memory.keep(late);
        assert_eq!(memory.latest(1, |_| true)[0].vip.as_deref(), Some(group.name.as_str()));
        // The next one that goes: of the first one there are records still.
        let other = buoy_model::Group {
            id: GroupId(group.id.0 + 1),
            name: "other".into(),
            ..group.clone()
        };
        let next = other.id;
        let with_other = Desired { groups: vec![other], ..sample.clone() };
        memory.leave(&with_other, &without);
        assert_eq!((memory.gone.len(), memory.gone.contains_key(&next)), (2, true));
        memory.changes.clear();
        memory.leave(&sample, &without);
        assert_eq!(
            memory.gone.keys().collect::<Vec<_>>(),
            [&group.id],
            "nobody asks for it any more"
        );
    }

    #[test]
    fn noise_drives_no_change_of_owner_out_of_the_memory() {
        let mut memory = Memory::default();
        let record = |n: u64, fact| {
            let record = Record { at: Instant::from_nanos(n), group: None, fact };
            DatedRecord { seq: n, at: n, record, vip: None }
        };
        let change = Fact::OwnerHeard { node: NodeId(1), epoch: Epoch(7) };
        memory.keep(record(1, change.clone()));
        for n in 2..=2 * RECORDS_MAX as u64 {
            memory.keep(record(n, Fact::Undrained { reason: String::new() }));
        }
        let all = memory.latest(usize::MAX, |_| true);
        assert_eq!(all.len(), RECORDS_MAX + 1);
        assert_eq!(all[0].record.fact, change);
        assert!(all.is_sorted_by_key(|dated| dated.record.at));
        assert_eq!(memory.latest(3, |_| true).len(), 3);
        let last = 2 * RECORDS_MAX as u64;
        assert_eq!(memory.latest(3, |_| true)[2].at, last, "the latest comes last");
        let meant = |seq, most, is_meant: fn(&DatedRecord) -> bool| {
            let (all, lost) = memory.after(seq, most, is_meant);
            (all.iter().map(|dated| dated.seq).collect::<Vec<_>>(), lost)
        };
        let after = |seq| meant(seq, usize::MAX, |_| true);
        let seqs = |seq| after(seq).0;
        assert_eq!((seqs(last - 2), seqs(last)), (vec![last - 1, last], vec![]));
        let known = last - RECORDS_MAX as u64;
        assert!(!after(known).1, "all that came after it is there");
        assert!(after(known - 1).1, "something is forgotten, and that is said");
        assert_eq!(meant(0, 2, |_| true).0, [last - 1, last], "the latest ones, oldest first");
        assert_eq!(meant(0, 2, |dated| dated.seq.is_multiple_of(2)).0, [last - 2, last]);
        let is_change = |dated: &DatedRecord| dated.record.fact.is_change_of_owner();
        assert_eq!(meant(0, 2, is_change).0.len(), 1, "it is found behind all the noise");
        let all = memory.after(0, usize::MAX, |_| true).0;
        assert!(all.is_sorted_by_key(|dated| dated.seq) && all.len() == RECORDS_MAX + 1);
    }
}
