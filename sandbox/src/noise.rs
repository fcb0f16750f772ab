//! Reproducible random bytes for tests of the parsers.

/// A xorshift generator: the same seed gives the same bytes, so a failure repeats.
pub(crate) struct Noise {
    state: u64,
}

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1 }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    /// Up to `longest` bytes.
    pub(crate) fn bytes(&mut self, longest: u64) -> Vec<u8> {
        let length = self.next() % (longest + 1);
        (0..length).map(|_| self.next().to_le_bytes()[3]).collect()
    }
}
