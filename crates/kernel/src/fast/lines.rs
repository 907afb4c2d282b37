//! The slot tables of the services in their map: services that have equal ones share one.
//!
//! A shared table changes for all who have it, or a service that is to have another one is placed anew.

use super::extents::Extents;
use super::memory::Region;
use buoy_model::Slot;
use buoy_xdp::forward::{SLOTS_IN_LINE, Service};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

pub(super) struct Lines {
    region: Region,
    free: Extents,
    /// By their first line.
    tables: BTreeMap<u32, Table>,
}

struct Table {
    /// How many services lead to it.
    users: u32,
    slots: Arc<[Slot]>,
}

impl Lines {
    pub(super) fn new(region: Region) -> Self {
        // The first line is nobody's: a service without slots leads there.
        Self { free: Extents::new(1..region.len()), region, tables: BTreeMap::new() }
    }

    /// Knows again the table of a service of an earlier run; whether it can be one.
    pub(super) fn adopt(&mut self, service: &Service) -> bool {
        let range = lines_of(service);
        if range.is_empty() {
            return true;
        }
        let length = usize::try_from(service.slots_count).unwrap_or(usize::MAX);
        if let Some(table) = self.tables.get_mut(&range.start) {
            let is_same = table.slots.len() == length;
            table.users += u32::from(is_same);
            return is_same;
        }
        if !self.free.take_at(range.clone()) {
            return false;
        }
        let slots = range.clone().flat_map(|line| self.read(line)).take(length).collect();
        self.tables.insert(range.start, Table { users: 1, slots });
        true
    }

    /// A place for a table: with those who have the same one, or where nothing is yet.
    pub(super) fn place(&mut self, slots: &Arc<[Slot]>, like: Option<u32>) -> Option<Range<u32>> {
        let length = u32::try_from(slots.len()).ok()?.div_ceil(SLOTS_IN_LINE);
        if length == 0 {
            return Some(0..0);
        }
        if let Some(first) = like
            && let Some(table) = self.tables.get_mut(&first)
            && is_same(&table.slots, slots)
        {
            table.users += 1;
            return Some(first..first + length);
        }
        let range = self.free.take(length)?;
        self.store(range.start, slots);
        self.tables.insert(range.start, Table { users: 1, slots: Arc::clone(slots) });
        Some(range)
    }

    /// Writes another table, of as many slots, over this one. Each slot is read by itself, so each
    /// changes by itself.
    pub(super) fn rewrite(&mut self, first: u32, slots: &Arc<[Slot]>) {
        let Some(table) = self.tables.get_mut(&first) else { return };
        let known = std::mem::replace(&mut table.slots, Arc::clone(slots));
        if !is_same(&known, slots) {
            self.store(first, slots);
        }
    }

    /// No program looks at this service any more.
    pub(super) fn release(&mut self, service: &Service) {
        let range = lines_of(service);
        let Some(table) = self.tables.get_mut(&range.start) else { return };
        table.users -= 1;
        if table.users == 0 {
            self.tables.remove(&range.start);
            self.free.give_back(range);
        }
    }

    /// How many services lead to the table that begins there.
    pub(super) fn users(&self, first: u32) -> usize {
        let table = self.tables.get(&first);
        table.map_or(0, |table| usize::try_from(table.users).unwrap_or(usize::MAX))
    }

    /// Whether the table that begins there is that one.
    pub(super) fn is(&self, first: u32, slots: &Arc<[Slot]>) -> bool {
        self.tables.get(&first).is_some_and(|table| is_same(&table.slots, slots))
    }

    /// What a service has.
    pub(super) fn slots(&self, service: &Service) -> Arc<[Slot]> {
        let table = self.tables.get(&lines_of(service).start);
        table.map_or_else(|| Arc::from([]), |table| Arc::clone(&table.slots))
    }

    fn store(&self, first: u32, slots: &[Slot]) {
        for (line, slots) in (first..).zip(slots.chunks(SLOTS_IN_LINE as usize)) {
            for (at, pair) in slots.chunks(2).enumerate() {
                let word = pair.iter().rev().fold(0, |word, slot| {
                    word << 32 | u64::from(slot.current) | u64::from(slot.previous) << 16
                });
                self.region.change(line, at, word);
            }
        }
    }

    fn read(&self, line: u32) -> Vec<Slot> {
        let words = self.region.read::<{ SLOTS_IN_LINE as usize / 2 }>(line);
        let slots = words.into_iter().flat_map(|word| {
            let [a, b, c, d, e, f, g, h] = word.to_le_bytes();
            let slot = |current, previous| Slot {
                current: u16::from_le_bytes(current),
                previous: u16::from_le_bytes(previous),
            };
            [slot([a, b], [c, d]), slot([e, f], [g, h])]
        });
        slots.collect()
    }
}

/// Whether two tables say the same: seen at once where they are one.
pub(super) fn is_same(one: &Arc<[Slot]>, other: &Arc<[Slot]>) -> bool {
    Arc::ptr_eq(one, other) || one == other
}

pub(super) const fn lines_of(service: &Service) -> Range<u32> {
    let first = service.slots_first / SLOTS_IN_LINE;
    first..first + service.slots_count.div_ceil(SLOTS_IN_LINE)
}
