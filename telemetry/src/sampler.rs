//! Which new traces are recorded: a ratio, decided from random bits.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Decides for the root of a trace whether it's recorded; everything below follows its root.
///
/// ```
/// use neuroflow_telemetry::Sampler;
/// let half = Sampler::ratio(0.5)?;
/// assert!(half.decide(0));
/// assert!(!half.decide(u64::MAX));
/// assert!(Sampler::ALWAYS.sample());
/// assert!(!Sampler::NEVER.sample());
/// # Ok::<(), neuroflow_telemetry::RatioError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampler {
    /// Of 2^63 equally likely numbers, so many lead to a recorded trace.
    threshold: u64,
}

impl Sampler {
    /// Records every trace.
    pub const ALWAYS: Self = Self { threshold: 1 << 63 };
    /// Records none.
    pub const NEVER: Self = Self { threshold: 0 };

    /// Records this share of the traces, from 0 to 1.
    ///
    /// # Errors
    /// The ratio isn't a number from 0 to 1.
    pub fn ratio(ratio: f64) -> Result<Self, RatioError> {
        if !(0.0..=1.0).contains(&ratio) {
            return Err(RatioError { ratio });
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "the product is within 0..=2^63, and the last bits of a ratio don't matter"
        )]
        let threshold = (ratio * Self::ALWAYS.threshold as f64) as u64;
        Ok(Self { threshold })
    }

    /// The decision for these random bits: the same bits, the same decision.
    pub fn decide(self, random: u64) -> bool {
        random >> 1 < self.threshold
    }

    /// The decision for fresh random bits.
    pub fn sample(self) -> bool {
        // `RandomState` is seeded by the operating system: random enough to choose traces.
        self.decide(RandomState::new().build_hasher().finish())
    }
}

/// A sampling ratio that isn't one.
///
/// ```
/// let error = neuroflow_telemetry::Sampler::ratio(1.5).unwrap_err();
/// assert_eq!(error.to_string(), "1.5 isn't a ratio from 0 to 1");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{ratio} isn't a ratio from 0 to 1")]
pub struct RatioError {
    /// The ratio.
    pub ratio: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_are_exact() {
        assert_eq!(Sampler::ratio(1.0), Ok(Sampler::ALWAYS));
        assert_eq!(Sampler::ratio(0.0), Ok(Sampler::NEVER));
        assert!(Sampler::ALWAYS.decide(u64::MAX));
        assert!(!Sampler::NEVER.decide(0));
        assert!(Sampler::ratio(f64::NAN).is_err());
        assert!(Sampler::ratio(-0.1).is_err());
    }

    #[test]
    fn a_tenth_is_about_a_tenth() {
        let tenth = Sampler::ratio(0.1).unwrap();
        let sampled = (0..10_000).filter(|_| tenth.sample()).count();
        assert!((700..1_300).contains(&sampled), "{sampled}");
    }
}
