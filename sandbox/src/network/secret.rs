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

    /// Whether these bytes hold the secret, or, as servers repeat the token without the scheme, its
    /// last word.
    pub(crate) fn is_in(&self, bytes: &[u8]) -> bool {
        let holds = |part: &[u8]| {
            !part.is_empty() && bytes.windows(part.len()).any(|window| window == part)
        };
        let word = self.0.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
        holds(&self.0) || (word.len() >= SHORTEST_WORD && holds(word))
    }
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
    }
}
