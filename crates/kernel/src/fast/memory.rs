//! One array of the programs in our memory, as elements of 64-bit words.

use super::FastError;
use crate::sys;
use aya::maps::MapData;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// An array, mapped.
pub(super) struct Region {
    /// Kept open for its memory.
    _map: MapData,
    memory: sys::Shared,
    /// Words of one element.
    words: usize,
}

impl Region {
    pub(super) fn new(map: MapData, words: usize) -> Result<Self, FastError> {
        let wrong = |reason: String| FastError::Load { reason };
        let info = map.info().map_err(|e| wrong(e.to_string()))?;
        let length = usize::try_from(info.max_entries()).unwrap_or(0) * words;
        let memory = sys::Shared::map(&map.fd(), length)
            .map_err(|e| wrong(format!("its maps cannot be mapped into memory: {e}")))?;
        Ok(Self { _map: map, memory, words })
    }

    /// How many elements there are.
    pub(super) const fn len(&self) -> u32 {
        // Lengths of BPF arrays are 32 bits.
        (self.memory.words().len() / self.words) as u32
    }

    /// One word of an element.
    pub(super) fn word(&self, element: u32, at: usize) -> &AtomicU64 {
        debug_assert!(at < self.words);
        &self.memory.words()[usize::try_from(element).unwrap_or(usize::MAX) * self.words + at]
    }

    /// The words in this range, counted over all elements.
    pub(super) fn words(&self, range: Range<usize>) -> &[AtomicU64] {
        self.memory.words().get(range).unwrap_or_default()
    }

    pub(super) fn read<const N: usize>(&self, element: u32) -> [u64; N] {
        debug_assert_eq!(N, self.words);
        std::array::from_fn(|at| self.word(element, at).load(Ordering::Acquire))
    }

    /// Writes an element that nothing leads to yet.
    pub(super) fn write<const N: usize>(&self, element: u32, words: [u64; N]) {
        debug_assert_eq!(N, self.words);
        for (at, word) in words.into_iter().enumerate() {
            self.word(element, at).store(word, Ordering::Release);
        }
    }

    /// The first elements become those of another array, as far as both are.
    pub(super) fn copy(&self, from: &Self) {
        for (to, from) in self.memory.words().iter().zip(from.memory.words()) {
            to.store(from.load(Ordering::Acquire), Ordering::Release);
        }
    }

    /// Stores a word if it is another one, and says whether it was. A program that sees it sees what was stored before
    /// it, too. It does not wait until all processors see it, which is most of what a store would cost.
    pub(super) fn change(&self, element: u32, at: usize, value: u64) -> bool {
        let word = self.word(element, at);
        let changes = word.load(Ordering::Relaxed) != value;
        if changes {
            word.store(value, Ordering::Release);
        }
        changes
    }
}
