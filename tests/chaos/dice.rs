//! The dice: everything that is left to chance in a run, from one seed.

use std::time::Duration;

/// Small, repeatable, and random enough.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        // Neighbouring seeds must not give neighbouring runs, and zero would stay zero.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Another one that throws on its own.
    pub(crate) fn another(&mut self) -> Self {
        Self::new(self.next())
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// From `from` to `to`, both of them possible.
    pub(crate) fn between(&mut self, from: u64, to: u64) -> u64 {
        from + (self.next() >> 11) % (to - from + 1)
    }

    pub(crate) fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.between(from, to))
    }

    pub(crate) fn is_even(&mut self) -> bool {
        self.between(0, 1) == 0
    }

    /// One of these.
    pub(crate) fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.between(0, of.len() as u64 - 1)).unwrap()]
    }

    /// One of these, each as often as it weighs.
    pub(crate) fn weighed<T: Copy>(&mut self, of: &[(T, u64)]) -> T {
        let mut left = self.between(1, of.iter().map(|(_, weight)| weight).sum());
        for (what, weight) in of {
            if left <= *weight {
                return *what;
            }
            left -= weight;
        }
        unreachable!("the weights were summed up")
    }
}
