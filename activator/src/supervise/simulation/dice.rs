//! Chance.

/// xorshift64*: enough for this, and the same everywhere.
#[derive(Debug)]
pub(super) struct Dice(u64);

impl Dice {
    /// Seeds beside each other throw nothing alike.
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }

    pub(super) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    pub(super) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    /// Microseconds: none, a few, or seconds.
    pub(super) fn delay(&mut self) -> u64 {
        let most = *self.pick(&[1, 1000, 10_000_000]);
        self.below(most)
    }
}
