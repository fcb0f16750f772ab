//! A header's value that the cell must not see.

use std::{fmt, sync::Arc};

/// The value of a header that the proxy adds; see [`Rule::inject`](crate::Rule::inject).
///
/// It shows nothing of itself, compares in a time that doesn't depend on the content, and clones
/// share one copy. Its memory isn't wiped at the end: the string that it was made from, and the
/// buffers of the HTTP implementation, would outlive it anyway.
///
/// ```
/// use neuroflow_sandbox::Secret;
///
/// let secret = Secret::from("Bearer 12345");
/// assert_eq!(format!("{secret:?}"), "Secret(..)");
/// assert_eq!(secret, Secret::from("Bearer 12345"));
/// ```
#[derive(Clone)]
pub struct Secret(Arc<[u8]>);

impl Secret {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether these bytes hold the secret or, as servers repeat a token without its scheme and one cookie of
    /// several, a part of it.
    pub(crate) fn is_in(&self, bytes: &[u8]) -> bool {
        let holds = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
        (!self.0.is_empty() && holds(&self.0)) || self.parts().any(holds)
    }

    /// Its words without the scheme, each whole, and the value of one that is `name=value`.
    fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let between = |byte: &u8| b" \t;,".contains(byte);
        // `Bearer`, before what is secret.
        let scheme = self.0.iter().position(|byte| *byte == b' ').unwrap_or_default();
        let is_scheme = self.0.iter().take(scheme).all(u8::is_ascii_alphanumeric);
        let behind = self.0.get(if is_scheme { scheme } else { 0 }..).unwrap_or_default();
        let words = behind.split(between).flat_map(|word| {
            let mut sides = word.splitn(2, |byte| *byte == b'=');
            [Some(word), sides.nth(1)].into_iter().flatten()
        });
        // Quotes and padding are left out as often as not.
        words.map(|word| unpadded(unquoted(word))).filter(|word| word.len() >= SHORTEST_WORD)
    }
}

/// Without quotes around it.
fn unquoted(word: &[u8]) -> &[u8] {
    let word = word.strip_prefix(b"\"").unwrap_or(word);
    word.strip_suffix(b"\"").unwrap_or(word)
}

/// Without the signs that base 64 ends with.
fn unpadded(word: &[u8]) -> &[u8] {
    let end = word.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last.saturating_add(1));
    word.get(..end).unwrap_or_default()
}

/// Shorter words are found in anything.
const SHORTEST_WORD: usize = 6;

impl<T: Into<String>> From<T> for Secret {
    fn from(value: T) -> Self {
        Self(value.into().into_bytes().into())
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        if self.0.len() != other.0.len() {
            return false;
        }
        let pairs = self.0.iter().zip(other.0.iter());
        std::hint::black_box(pairs.fold(0, |differences, (a, b)| differences | (a ^ b))) == 0
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_compare_by_value() {
        assert_eq!(Secret::from("abc"), Secret::from("abc".to_owned()));
        assert_ne!(Secret::from("abc"), Secret::from("abd"));
        assert_ne!(Secret::from("abc"), Secret::from("abcd"));
    }

    #[test]
    fn it_is_found_whole_or_by_its_token() {
        let secret = Secret::from("Bearer s3cr3t-token");
        assert!(secret.is_in(b"x Bearer s3cr3t-token y"));
        assert!(secret.is_in(b"token=s3cr3t-token"));
        assert!(!secret.is_in(b"Bearer"));
        assert!(!Secret::from("Basic x").is_in(b"xyz"));
        assert!(!Secret::from("").is_in(b"xyz"));
    }

    #[test]
    fn it_is_found_by_each_of_its_parts() {
        let cookies = Secret::from("session=S3CRETONE; csrf=tokentoken; a=b");
        assert!(cookies.is_in(b"session=S3CRETONE; Path=/; HttpOnly"));
        assert!(cookies.is_in(b"sid=\"S3CRETONE\""));
        assert!(cookies.is_in(b"x-csrf tokentoken"));
        assert!(!cookies.is_in(b"a=b; session=other"));
        let basic = Secret::from("Basic dXNlcjpwYXNzd29yZA==");
        assert!(basic.is_in(b"auth=dXNlcjpwYXNzd29yZA"));
        assert!(!basic.is_in(b"Basic realm"));
        let digest = Secret::from("Digest username=\"mallory\", response=\"6629fae49393a053\"");
        assert!(digest.is_in(b"6629fae49393a053") && digest.is_in(b"to mallory"));
        assert!(!digest.is_in(b"username and response"));
    }
}
