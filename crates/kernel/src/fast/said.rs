//! What this host has told others of words that its programs change, and which of them it was told itself.
//!
//! A flow's word is this host's own from the first packet that the programs here have seen of it; until then it may
//! be what another host said, and that host may say something else. Nobody but the programs writes a word that is
//! this host's own.

/// Of one array of words.
pub(super) struct Said {
    /// Each word as it was told, or heard, last.
    words: Vec<u64>,
    /// One bit for each: it was heard, and not told.
    heard: Vec<u64>,
}

impl Said {
    /// What is there already is nobody's news, and not known to be this host's own.
    pub(super) fn new(words: impl Iterator<Item = u64>) -> Self {
        let words: Vec<u64> = words.collect();
        Self { heard: vec![u64::MAX; words.len().div_ceil(64)], words }
    }

    /// The word as it was told last.
    pub(super) fn last(&self, at: usize) -> u64 {
        self.words.get(at).copied().unwrap_or(0)
    }

    /// The first places from `from` on whose word is another one than was told, and that one.
    pub(super) fn other<'s>(
        &'s self,
        from: usize,
        now: impl Iterator<Item = u64> + 's,
    ) -> impl Iterator<Item = (usize, u64)> + 's {
        let known = self.words.get(from..).unwrap_or_default().iter();
        let pairs = (from..).zip(known.zip(now));
        pairs.filter_map(|(at, (known, now))| (*known != now).then_some((at, now)))
    }

    /// It is told now.
    pub(super) fn tell(&mut self, at: usize, word: u64) {
        self.set(at, word, false);
    }

    /// It was written because another host said it.
    pub(super) fn hear(&mut self, at: usize, word: u64) {
        self.set(at, word, true);
    }

    /// Whether the word that is there now may be replaced by what another host says.
    pub(super) fn is_heard(&self, at: usize, now: u64) -> bool {
        let bit = self.heard.get(at / 64).is_some_and(|bits| bits >> (at % 64) & 1 == 1);
        bit && self.last(at) == now
    }

    fn set(&mut self, at: usize, word: u64, is_heard: bool) {
        if let (Some(known), Some(bits)) = (self.words.get_mut(at), self.heard.get_mut(at / 64)) {
            *known = word;
            *bits = *bits & !(1 << (at % 64)) | u64::from(is_heard) << (at % 64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_ones_own_from_the_first_packet_on() {
        let mut said = Said::new([0, 7, 0].into_iter());
        assert!(said.is_heard(1, 7), "who knows");
        assert!(!said.is_heard(1, 8), "a packet came");
        said.tell(1, 8);
        assert!(!said.is_heard(1, 8), "and it was told");
        said.hear(2, 5);
        assert!(said.is_heard(2, 5) && !said.is_heard(2, 6));
        let other: Vec<_> = said.other(0, [1, 8, 6].into_iter()).collect();
        assert_eq!(other, [(0, 1), (2, 6)]);
        let other: Vec<_> = said.other(1, [8, 6].into_iter()).collect();
        assert_eq!(other, [(2, 6)]);
    }
}
