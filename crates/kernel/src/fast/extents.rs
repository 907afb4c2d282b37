//! Which places of an array are free, as ranges.

use std::collections::BTreeMap;
use std::ops::Range;

/// The free ranges of an array, by their start; no two touch.
#[derive(Clone, Debug)]
pub(super) struct Extents {
    free: BTreeMap<u32, u32>,
}

impl Extents {
    /// All of it is free.
    pub(super) fn new(range: Range<u32>) -> Self {
        let mut extents = Self { free: BTreeMap::new() };
        extents.give_back(range);
        extents
    }

    /// The lowest free range of that length; an empty one is always there.
    pub(super) fn take(&mut self, length: u32) -> Option<Range<u32>> {
        if length == 0 {
            return Some(0..0);
        }
        let (&start, &end) = self.free.iter().find(|&(start, end)| end - start >= length)?;
        self.free.remove(&start);
        if start + length < end {
            self.free.insert(start + length, end);
        }
        Some(start..start + length)
    }

    /// Takes this very range, if all of it is free.
    pub(super) fn take_at(&mut self, range: Range<u32>) -> bool {
        if range.is_empty() {
            return true;
        }
        let Some((&start, &end)) = self.free.range(..=range.start).next_back() else {
            return false;
        };
        if end < range.end {
            return false;
        }
        self.free.remove(&start);
        if start < range.start {
            self.free.insert(start, range.start);
        }
        if range.end < end {
            self.free.insert(range.end, end);
        }
        true
    }

    /// The range is free again.
    pub(super) fn give_back(&mut self, range: Range<u32>) {
        if range.is_empty() {
            return;
        }
        let Range { mut start, mut end } = range;
        if let Some((&before, &before_end)) = self.free.range(..start).next_back() {
            debug_assert!(before_end <= start, "given back twice");
            if before_end == start {
                self.free.remove(&before);
                start = before;
            }
        }
        if let Some(after_end) = self.free.remove(&end) {
            end = after_end;
        }
        self.free.insert(start, end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_grows_together_again() {
        let mut extents = Extents::new(0..100);
        let parts: Vec<_> = [10, 20, 30].map(|n| extents.take(n).unwrap()).into();
        assert_eq!(parts, [0..10, 10..30, 30..60]);
        assert_eq!(extents.take(41), None);
        for at in [1, 0, 2] {
            extents.give_back(parts[at].clone());
        }
        assert_eq!(extents.take(100), Some(0..100));
        assert_eq!(extents.take(1), None);
        assert_eq!(extents.take(0), Some(0..0));
    }

    #[test]
    fn a_range_is_taken_where_it_was() {
        let mut extents = Extents::new(1..100);
        assert!(extents.take_at(10..20));
        assert!(!extents.take_at(15..25));
        assert!(!extents.take_at(5..11));
        assert!(!extents.take_at(0..1));
        assert!(extents.take_at(5..10));
        assert_eq!(extents.take(4), Some(1..5));
        assert_eq!(extents.take(80), Some(20..100));
        extents.give_back(5..20);
        assert_eq!(extents.take(15), Some(5..20));
    }
}
