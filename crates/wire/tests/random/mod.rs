//! Inputs for parsers that follow from a seed: numbers, and bytes that are mostly the edges.

/// How many inputs each parser gets; `make fuzz` asks for more.
pub(crate) fn inputs() -> usize {
    let asked = std::env::var("FUZZ_CASES").ok().and_then(|n| n.parse::<usize>().ok());
    asked.unwrap_or(20_000) * 10
}

/// SplitMix64 (Steele, Lea, Flood 2014).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Mostly the edges, where parsers break.
    pub(crate) fn byte(&mut self) -> u8 {
        let edges = [0, 1, 2, 3, 4, 0x7f, 0x80, 0xff];
        let any = self.next() as u8;
        if self.below(2) == 0 { any } else { edges[self.below(edges.len())] }
    }

    pub(crate) fn bytes(&mut self, max: usize) -> Vec<u8> {
        let len = self.below(max + 1);
        (0..len).map(|_| self.byte()).collect()
    }
}
