//! Whether a path has one reading only, and lies below a prefix.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

/// Times that a path is decoded in search of a second reading; deeper nesting is refused.
pub(crate) const ROUNDS: usize = 4;

/// The path has another reading: dot segments, empty segments, encoded or backward slashes, in any
/// depth of encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ambiguous;

/// Checks that servers of every habit see the same segments in the path.
pub(crate) fn check(path: &str) -> Result<(), Ambiguous> {
    let mut bytes = path.as_bytes().to_vec();
    let segments = count(&bytes);
    for round in 0..ROUNDS {
        check_once(&bytes)?;
        if count(&bytes) != segments {
            return Err(Ambiguous);
        }
        let decoded = decode(&bytes);
        // A path that was encoded properly may still hold a bare percent sign afterwards.
        if round == 0 && !is_encoded_well(&bytes) {
            return Err(Ambiguous);
        }
        if decoded == bytes {
            return Ok(());
        }
        bytes = decoded;
    }
    Err(Ambiguous)
}

/// Whether the path is the prefix or lies below it, at the border of a segment.
pub(crate) fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/'))
}

/// Number of segments.
fn count(bytes: &[u8]) -> usize {
    bytes.split(|byte| *byte == b'/').count()
}

fn check_once(bytes: &[u8]) -> Result<(), Ambiguous> {
    let Some(rest) = bytes.strip_prefix(b"/") else { return Err(Ambiguous) };
    let rest = rest.strip_suffix(b"/").unwrap_or(rest);
    if bytes.iter().any(|byte| *byte == b'\\' || byte.is_ascii_control()) {
        return Err(Ambiguous);
    }
    if rest.is_empty() {
        return if bytes.len() == 1 { Ok(()) } else { Err(Ambiguous) };
    }
    for segment in rest.split(|byte| *byte == b'/') {
        // Some servers cut parameters off before they look for dots: `..;x`.
        let name = segment.split(|byte| *byte == b';').next().unwrap_or_default();
        if segment.is_empty() || name == b"." || name == b".." {
            return Err(Ambiguous);
        }
    }
    Ok(())
}

/// Replaces each escape; what isn't one stays.
pub(crate) fn decode(bytes: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, after)) = rest.split_first() {
        let escape = if *first == b'%' { escape(after) } else { None };
        decoded.push(escape.unwrap_or(*first));
        rest = if escape.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    decoded
}

fn is_encoded_well(bytes: &[u8]) -> bool {
    bytes.split(|byte| *byte == b'%').skip(1).all(|after| escape(after).is_some())
}

/// The byte that two hexadecimal digits stand for.
fn escape(after: &[u8]) -> Option<u8> {
    let (high, low) = (digit(*after.first()?)?, digit(*after.get(1)?)?);
    Some((high << 4) | low)
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_paths_pass() {
        for path in [
            "/",
            "/v1",
            "/v1/",
            "/v1/a.b/..c/c..",
            "/v1/a%20b",
            "/v1/%C3%BC",
            "/v1/a;b=c",
            "/v1/...",
            "/v1/:get",
            "/v1/a,b",
            "/v1/100%25",
            "/@scope/pkg",
        ] {
            assert_eq!(check(path), Ok(()), "{path}");
        }
    }

    #[test]
    fn paths_with_a_second_reading_are_refused() {
        for path in [
            "",
            "*",
            "v1",
            "//",
            "/v1//x",
            "//v1",
            "/v1/./x",
            "/v1/../admin",
            "/..",
            "/v1/..",
            "/v1/%2e%2e/admin",
            "/v1/%2E./admin",
            "/v1/.%2e",
            "/v1/..%2fadmin",
            "/v1%2fadmin",
            "/v1/%5cadmin",
            "/v1\\..\\admin",
            "/v1/%252e%252e/admin",
            "/v1/%25252e%25252e/admin",
            "/v1/..;/admin",
            "/v1/..;x=y/admin",
            "/v1/%2e%2e%3b/admin",
            "/v1/%00",
            "/v1/%0d%0aX",
            "/v1/%zz",
            "/v1/%2",
            "/v1/%",
            "/v1/%2525252525252e",
            "/v1/x%2f%2fy",
            "/v1/x//",
        ] {
            assert_eq!(check(path), Err(Ambiguous), "{path}");
        }
    }

    #[test]
    fn a_prefix_ends_at_a_border() {
        for (path, prefix, below) in [
            ("/v1/x", "/v1/", true),
            ("/v1/", "/v1/", true),
            ("/v1", "/v1/", false),
            ("/v1", "/v1", true),
            ("/v1/x", "/v1", true),
            ("/v10", "/v1", false),
            ("/V1/x", "/v1/", false),
            ("/%761/x", "/v1/", false),
            ("/anything", "/", true),
        ] {
            assert_eq!(is_below(path, prefix), below, "{path} {prefix}");
        }
    }

    proptest! {
        #[test]
        fn no_accepted_path_climbs(segments in proptest::collection::vec(
            "(\\.|%2e|%252e|%2f|%5c|a|;|/|\\\\|%25){0,4}", 0..6)) {
            let path = format!("/v1/{}", segments.join("/"));
            if check(&path).is_ok() {
                let mut decoded = path.into_bytes();
                for _ in 0..ROUNDS {
                    decoded = decode(&decoded);
                }
                let text = String::from_utf8_lossy(&decoded).into_owned();
                prop_assert!(!text.split('/').any(|s| s.split(';').next() == Some("..")));
                prop_assert!(!text.contains('\\') && !text.contains("//"));
            }
        }
    }
}
