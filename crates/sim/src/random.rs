//! The one source of chance: SplitMix64 (Steele, Lea, Flood 2014), so that a seed is a whole run.

use core::ops::Range;

/// A stream of numbers that follows from its seed alone.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The stream of that seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Another stream, so that one consumer's appetite does not change what the next one sees.
    pub fn fork(&mut self) -> Self {
        Self(self.next())
    }

    /// The next 64 bits.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number of the range, which must not be empty.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        debug_assert!(range.start < range.end);
        // The upper half of a product instead of a remainder: no division (Lemire 2019).
        let wide = u128::from(self.next()) * u128::from(range.end - range.start);
        range.start + (wide >> 64) as u64
    }

    /// An index into so many things, of which there must be one.
    pub fn index(&mut self, len: usize) -> usize {
        self.within(0..len as u64) as usize
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.index(from.len())]
    }

    /// True so many times in a thousand.
    pub fn permille(&mut self, n: u64) -> bool {
        n > 0 && self.within(0..1000) < n
    }

    /// A clock's rate error of at most so many parts per million.
    pub fn drift(&mut self, max: i64) -> i64 {
        self.within(0..2 * max as u64 + 1) as i64 - max
    }
}

/// At least one of these and at most so many, in their order.
pub(crate) fn some<T: Copy>(random: &mut Random, from: &[T], max: usize) -> Vec<T> {
    if max == 0 {
        return Vec::new();
    }
    let mut picked: Vec<_> = from.iter().copied().filter(|_| random.permille(500)).collect();
    picked.truncate(max);
    if picked.is_empty() { vec![random.pick(from)] } else { picked }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_the_published_stream() {
        let mut random = Random::new(1_234_567);
        assert_eq!(random.next(), 6_457_827_717_110_365_317);
        assert_eq!(random.next(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn ranges_are_kept() {
        let mut random = Random::new(1);
        for _ in 0..1000 {
            assert!((3..5).contains(&random.within(3..5)));
            assert!(random.drift(5).abs() <= 5);
        }
    }
}
