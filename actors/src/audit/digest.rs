//! What stands in an audit log for a thing: a digest, or an identifier that can't be much else.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::AUDIT_ID_BYTES;

/// A SHA-256 digest.
///
/// ```
/// use neuroflow_actors::Digest;
/// let digest = Digest::of(b"");
/// assert!(digest.to_string().starts_with("e3b0c442"));
/// assert_eq!(digest.to_string().parse(), Ok(digest));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// What the first record of a log has in the place of its predecessor's.
    pub const ZERO: Self = Self([0; 32]);

    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::of_all(&[bytes])
    }

    /// Of these bytes, one after the other.
    pub(super) fn of_all(pieces: &[&[u8]]) -> Self {
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        for piece in pieces {
            context.update(piece);
        }
        let mut bytes = [0; 32];
        for (to, from) in bytes.iter_mut().zip(context.finish().as_ref()) {
            *to = *from;
        }
        Self(bytes)
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Digest {
    /// A digest that somebody else has made.
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        HEXLOWER.encode_display(&self.0).fmt(f)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// The text isn't 64 hexadecimal digits in lower case.
///
/// ```
/// assert!("E3".parse::<neuroflow_actors::Digest>().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a digest has 64 hexadecimal digits in lower case")]
pub struct NoDigest;

impl FromStr for Digest {
    type Err = NoDigest;

    fn from_str(text: &str) -> Result<Self, NoDigest> {
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_other| NoDigest)?;
        bytes.try_into().map(Self).map_err(|_length| NoDigest)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The name of something: of a principal, an agent, a host. What has spaces or control characters in
/// it, or is longer than a name is, stands there by its digest.
///
/// ```
/// use neuroflow_actors::AuditId;
/// assert_eq!(AuditId::new("alice@example.org").as_str(), "alice@example.org");
/// assert!(AuditId::new("Bearer abc").as_str().starts_with("sha256:"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct AuditId(String);

impl AuditId {
    /// Of this text.
    pub fn new(text: impl AsRef<str>) -> Self {
        let text = text.as_ref();
        let is_name = text.len() <= AUDIT_ID_BYTES && text.bytes().all(|it| it.is_ascii_graphic());
        if is_name {
            return Self(text.to_owned());
        }
        Self(format!("sha256:{}", Digest::of(text.as_bytes())))
    }

    /// As the log has it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AuditId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_name_is_kept_by_its_digest() {
        for text in ["two words", "line\nbreak", "\u{e4}", &"x".repeat(AUDIT_ID_BYTES + 1)] {
            let id = AuditId::new(text);
            assert!(id.as_str().starts_with("sha256:") && !id.as_str().contains(text), "{text}");
        }
    }
}
