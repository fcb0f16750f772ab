//! Durations and sizes as people write them: a whole number and its unit, nothing else.

use std::num::ParseIntError;
use std::time::Duration;

/// Units of time, in milliseconds, the largest first.
const TIMES: &[(&str, u64)] =
    &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Units of size, in bytes, the largest first.
const SIZES: &[(&str, u64)] =
    &[("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Why a text isn't a quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum UnitError {
    /// It has no unit, or one that isn't known here.
    #[error("its unit is {found:?} and should be one of {known}")]
    Unit { found: String, known: String },
    /// There is no whole number before the unit.
    #[error("there is no whole number before its unit")]
    Number(#[from] ParseIntError),
    /// It's too large.
    #[error("it's too large")]
    Overflow,
}

/// A duration such as `55s`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    parse(text, TIMES).map(Duration::from_millis)
}

/// A size such as `512MiB`, in bytes.
pub(crate) fn parse_size(text: &str) -> Result<u64, UnitError> {
    parse(text, SIZES)
}

/// The duration in the largest unit that leaves no rest.
pub(crate) fn format_duration(duration: Duration) -> String {
    format(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), TIMES)
}

/// The size in the largest unit that leaves no rest.
pub(crate) fn format_size(bytes: u64) -> String {
    format(bytes, SIZES)
}

fn parse(text: &str, units: &[(&str, u64)]) -> Result<u64, UnitError> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        let known = units.iter().rev().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        return Err(UnitError::Unit { found: unit.to_owned(), known });
    };
    number.parse::<u64>()?.checked_mul(*factor).ok_or(UnitError::Overflow)
}

fn format(amount: u64, units: &[(&str, u64)]) -> String {
    let fits = |(_, factor): &&(&str, u64)| amount > 0 && amount.is_multiple_of(*factor);
    let last = ("", 1);
    let (unit, factor) = units.iter().find(fits).or_else(|| units.last()).unwrap_or(&last);
    format!("{}{unit}", amount / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_come_back() {
        for text in ["0ms", "250ms", "55s", "2m", "36h", "7d"] {
            assert_eq!(format_duration(parse_duration(text).unwrap()), text);
        }
        for text in ["0B", "1B", "1025B", "64KiB", "512MiB", "3GiB", "2TiB"] {
            assert_eq!(format_size(parse_size(text).unwrap()), text);
        }
        assert_eq!(parse_duration("120s"), Ok(Duration::from_mins(2)));
    }

    #[test]
    fn nothing_is_guessed() {
        for text in ["", "10", " 1s", "1 s", "1s ", "1.5s", "-1s", "1S", "1min", "1m30s", "+1s"] {
            assert!(parse_duration(text).is_err(), "{text:?}");
        }
        for text in ["512", "512MB", "512mib", "0x10B", "1e3B"] {
            assert!(parse_size(text).is_err(), "{text:?}");
        }
        assert!(matches!(parse_duration("s"), Err(UnitError::Number(_))));
        assert_eq!(parse_size("99999999999TiB"), Err(UnitError::Overflow));
    }
}
