//! The exact matches of the settings: which services have one, and when a place may be another one's.
//!
//! A program reads the key of an entry and then its way. So a place never gets another key while there is a way: the key
//! goes first, the way when no program can have seen that key any more, and the next change of services may take it.

use super::{EXACT_IPV4, EXACT_IPV6, Key, Placed, Tables};
use buoy_xdp::exact::{self, Exact};
use buoy_xdp::forward::EXACT_MAX;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// Words of an entry of each family, the last of which is its way. Without the first one nothing matches it.
const IPV4: usize = 2;
const IPV6: usize = 4;

/// The words of an entry, and where among all of them it begins.
struct Entry<'a> {
    at: usize,
    words: &'a [u64],
}

fn words(exact: &Exact) -> (usize, usize, [u64; IPV6]) {
    let place = exact.place();
    match exact.key {
        exact::Key::V4(key) => (EXACT_IPV4 + IPV4 * place, IPV4, [key, exact.way, 0, 0]),
        exact::Key::V6([rest, high, low]) => {
            (EXACT_IPV6 + IPV6 * place, IPV6, [rest, high, low, exact.way])
        }
    }
}

impl Tables {
    /// Of two services with one place, the one that has it keeps it.
    pub(super) fn write_exact(&self, next: &BTreeMap<Key, Placed>) {
        let mut wanted: BTreeMap<usize, [u64; IPV6]> = BTreeMap::new();
        for placed in next.values() {
            let Some(exact) = Exact::of(&placed.service) else { continue };
            let (at, length, words) = words(&exact);
            let entry = wanted.entry(at).or_insert(words);
            if self.has_key(at, &words[..length - 1]) {
                *entry = words;
            }
        }
        for (first, count, length) in [(EXACT_IPV4, EXACT_MAX, IPV4), (EXACT_IPV6, EXACT_MAX, IPV6)]
        {
            for at in (first..).step_by(length).take(count) {
                match wanted.get(&at) {
                    Some(words) => self.lead(&Entry { at, words: &words[..length] }),
                    None => drop(self.settings.change(0, at, 0)),
                }
            }
        }
    }

    /// An entry becomes this one if its place is free, or its own already; else it becomes free.
    fn lead(&self, entry: &Entry<'_>) {
        let Entry { at, words } = *entry;
        let Some((way, key)) = words.split_last() else { return };
        let of_way = at + key.len();
        let is_free = self.exact_word(at) == 0 && self.exact_word(of_way) == 0;
        if !self.has_key(at, key) && !is_free {
            self.settings.change(0, at, 0);
            return;
        }
        self.settings.change(0, of_way, *way);
        for (after, word) in key.iter().enumerate().rev() {
            self.settings.change(0, at + after, *word);
        }
    }

    /// No program can have seen the keys any more that were taken away.
    pub(super) fn free_exact(&self) {
        for (first, length) in [(EXACT_IPV4, IPV4), (EXACT_IPV6, IPV6)] {
            for at in (first..).step_by(length).take(EXACT_MAX) {
                if self.exact_word(at) == 0 {
                    self.settings.change(0, at + length - 1, 0);
                }
            }
        }
    }

    fn has_key(&self, at: usize, key: &[u64]) -> bool {
        key.iter().enumerate().all(|(after, word)| self.exact_word(at + after) == *word)
    }

    fn exact_word(&self, at: usize) -> u64 {
        self.settings.word(0, at).load(Ordering::Relaxed)
    }
}
