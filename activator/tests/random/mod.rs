//! Inputs that nobody has thought of, from fixed seeds.
//!
//! ROUSE_TEST_CASES multiplies the number of inputs (default 1).

use std::io::Write;

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

/// So many generators with their seeds. The factor is printed once, on stderr itself: what println!
/// writes is shown of tests that fail only.
pub(crate) fn cases(count: u64) -> impl Iterator<Item = (u64, Random)> {
    let factor = std::env::var("ROUSE_TEST_CASES").ok().and_then(|text| text.parse().ok());
    let factor = factor.unwrap_or(1_u64);
    static SAID: std::sync::Once = std::sync::Once::new();
    SAID.call_once(|| {
        let _ = writeln!(std::io::stderr(), "ROUSE_TEST_CASES={factor}");
    });
    (1..=count * factor).map(|seed| (seed, Random(seed)))
}
