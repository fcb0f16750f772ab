//! How long a caller waits: the header `grpc-timeout`. Pure.
//!
//! gRPC over HTTP/2, "Requests": `TimeoutValue TimeoutUnit`, where the value is at most eight digits.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName};

use super::A2aError;

const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Digits that a value may have, by the specification.
const DIGITS: usize = 8;

/// The time that a call has, from its arrival; `None` if it has all the time there is.
pub(super) fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, A2aError> {
    let mut values = headers.get_all(TIMEOUT).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let wrong = || {
        let problem = format!(
            "must be given once, as one to {DIGITS} digits and a unit, which is one of H, M, S, m, u and n"
        );
        A2aError::invalid(TIMEOUT.as_str(), problem)
    };
    if values.next().is_some() {
        return Err(wrong());
    }
    let (digits, unit) = value
        .to_str()
        .ok()
        .and_then(|text| text.split_at_checked(text.len().checked_sub(1)?))
        .ok_or_else(wrong)?;
    if digits.is_empty()
        || digits.len() > DIGITS
        || !digits.bytes().all(|byte| byte.is_ascii_digit())
    {
        return Err(wrong());
    }
    let value: u64 = digits.parse().map_err(|_too_large| wrong())?;
    Ok(Some(match unit {
        "H" => Duration::from_hours(value),
        "M" => Duration::from_mins(value),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return Err(wrong()),
    }))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn read(value: &[u8]) -> Result<Option<Duration>, A2aError> {
        let value = HeaderValue::from_bytes(value).unwrap();
        timeout(&HeaderMap::from_iter([(TIMEOUT, value)]))
    }

    #[test]
    fn every_unit_is_read() {
        for (value, nanos) in [
            ("0n", 0),
            ("1n", 1),
            ("2u", 2_000),
            ("3m", 3_000_000),
            ("4S", 4_000_000_000),
            ("5M", 300_000_000_000),
            ("99999999H", 99_999_999 * 3_600_000_000_000),
            ("00000001S", 1_000_000_000),
        ] {
            let read = read(value.as_bytes()).unwrap().unwrap();
            assert_eq!(read.as_nanos(), nanos, "{value}");
        }
        assert!(timeout(&HeaderMap::new()).unwrap().is_none());
    }

    #[test]
    fn what_is_no_timeout_is_refused_by_name() {
        let refused = |refusal: Result<Option<Duration>, A2aError>| {
            let refusal = refusal.unwrap_err();
            assert!(
                matches!(&refusal, A2aError::InvalidParams { field, .. } if field == "grpc-timeout")
            );
        };
        for value in [
            &b""[..],
            b"S",
            b"1",
            b"1s",
            b"1h",
            b"-1S",
            b"+1S",
            b" 1S",
            b"1 S",
            b"1.5S",
            b"123456789S",
            b"1\xc3\xb1",
        ] {
            refused(read(value));
        }
        let mut twice = HeaderMap::new();
        twice.append(TIMEOUT, HeaderValue::from_static("1S"));
        twice.append(TIMEOUT, HeaderValue::from_static("2S"));
        refused(timeout(&twice));
    }
}
