//! One line of an audit log, to and from bytes: pure.
//!
//! A line is `{"record":R,"hash":"H"}` and a line feed, where R is the record as it stands there and H
//! the SHA-256 of [`DOMAIN`] and R. There is one way to write what is around R, so that no byte of a
//! line can be another unseen.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::digest::Digest;
use crate::limits::AUDIT_LINE_BYTES;

/// What is hashed before a record, so that its hash is nothing else's. It names the format's version.
const DOMAIN: &[u8] = b"neuroflow.audit.1\n";

const BEFORE: &str = r#"{"record":"#;
const BETWEEN: &str = r#","hash":""#;
const BEHIND: &str = r#""}"#;

/// A record as it's written.
#[derive(Debug, Serialize)]
pub(super) struct Record<'a, E> {
    pub(super) seq: u64,
    pub(super) at: u64,
    pub(super) prev: Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) trace: Option<String>,
    pub(super) event: &'a E,
}

impl<E: Serialize> Record<'_, E> {
    /// Appends the line, and gives its hash.
    pub(super) fn write(&self, line: &mut Vec<u8>) -> Result<Digest, serde_json::Error> {
        let record = serde_json::to_vec(self)?;
        let hash = Digest::of_all(&[DOMAIN, &record]);
        line.extend_from_slice(BEFORE.as_bytes());
        line.extend_from_slice(&record);
        line.extend_from_slice(BETWEEN.as_bytes());
        line.extend_from_slice(hash.to_string().as_bytes());
        line.extend_from_slice(BEHIND.as_bytes());
        line.push(b'\n');
        Ok(hash)
    }
}

/// A record as it's read.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Read<'a> {
    pub(super) seq: u64,
    pub(super) at: u64,
    pub(super) prev: Digest,
    #[serde(default, rename = "trace")]
    _trace: Option<String>,
    #[serde(borrow)]
    pub(super) event: &'a RawValue,
}

/// Why a line isn't a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRecord {
    /// It isn't written as a line is.
    Form,
    /// Its hash is another's.
    Hash { seq: u64 },
}

/// Reads a line, without its line feed, and checks its hash.
pub(super) fn read(line: &[u8]) -> Result<(Read<'_>, Digest), NoRecord> {
    if line.len() > AUDIT_LINE_BYTES {
        return Err(NoRecord::Form);
    }
    let text = std::str::from_utf8(line).map_err(|_not_utf8| NoRecord::Form)?;
    let text = text.strip_prefix(BEFORE).and_then(|text| text.strip_suffix(BEHIND));
    let (record, hash) = text.and_then(|it| it.rsplit_once(BETWEEN)).ok_or(NoRecord::Form)?;
    let hash: Digest = hash.parse().map_err(|_no_digest| NoRecord::Form)?;
    let read: Read<'_> = serde_json::from_str(record).map_err(|_no_record| NoRecord::Form)?;
    if Digest::of_all(&[DOMAIN, record.as_bytes()]) != hash {
        return Err(NoRecord::Hash { seq: read.seq });
    }
    Ok((read, hash))
}

/// What the log says about itself, beside the events.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Keeping {
    /// The first record of a file.
    File {
        /// Of the format.
        version: u32,
        /// The log's own id.
        log: String,
        /// Which of its files this is, from 1.
        number: u64,
        /// The public key of the signatures.
        key: String,
    },
    /// A node has taken the log up, and cut so many bytes of an unfinished line off.
    Opened { cut_bytes: u64 },
    /// So many events couldn't be recorded.
    Lost { events: u64 },
    /// Vouches for everything before it.
    Signature { signature: String },
}

/// The version of the format that is written here.
pub(super) const VERSION: u32 = 1;

/// The kinds of [`Keeping`].
pub(super) const KEEPING: [&str; 4] = ["file", "opened", "lost", "signature"];

/// What a signature is made over.
pub(super) fn signed(seq: u64, at: u64, prev: Digest) -> Vec<u8> {
    let mut message = b"neuroflow.audit.signature.1\n".to_vec();
    message.extend_from_slice(&seq.to_le_bytes());
    message.extend_from_slice(&at.to_le_bytes());
    message.extend_from_slice(prev.bytes());
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::AuditEvent;

    fn line() -> Vec<u8> {
        let event = AuditEvent::NodeStopped;
        let record = Record { seq: 7, at: 1, prev: Digest::ZERO, trace: None, event: &event };
        let mut line = Vec::new();
        record.write(&mut line).unwrap();
        line.pop();
        line
    }

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let line = line();
        let (record, _hash) = read(&line).unwrap();
        assert_eq!((record.seq, record.at, record.prev), (7, 1, Digest::ZERO));
        assert_eq!(record.event.get(), r#"{"kind":"node_stopped"}"#);
    }

    #[test]
    fn no_byte_of_a_line_can_be_another() {
        let line = line();
        for at in 0..line.len() {
            for flip in 0..8 {
                let mut changed = line.clone();
                changed[at] ^= 1 << flip;
                assert!(read(&changed).is_err(), "byte {at}, bit {flip}");
            }
        }
        for end in 0..line.len() {
            assert!(read(&line[..end]).is_err(), "cut at {end}");
        }
    }
}
