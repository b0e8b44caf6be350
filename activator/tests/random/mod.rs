//! Inputs that nobody has thought of, from fixed seeds.
//!
//! ROUSE_TEST_CASES multiplies the number of inputs (default 1).

/// xorshift64*, Vigna 2016.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 16).unwrap() % bound
    }
}

/// So many generators with their seeds.
pub(crate) fn cases(count: u64) -> impl Iterator<Item = (u64, Random)> {
    let factor = std::env::var("ROUSE_TEST_CASES").ok().and_then(|text| text.parse().ok());
    (1..=count * factor.unwrap_or(1_u64)).map(|seed| (seed, Random(seed)))
}
