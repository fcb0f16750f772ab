//! Whether the lines of an audit log are what was written: pure.
//!
//! What it finds by itself: any changed byte, a missing, added, doubled or moved record, records of
//! another log, a signature by another key, more unsigned records than the writer leaves. A log that
//! was cut at a signature looks like a shorter log; to find that, it needs a later signature: the one
//! in the file beside the log, or one that was kept elsewhere.

use data_encoding::HEXLOWER;
use serde::Deserialize;

use super::chain::End;
use super::digest::Digest;
use super::key::PublicKey;
use super::record::{self, KEEPING, Keeping, NoRecord, Read, VERSION, signed};
use crate::limits::AUDIT_UNSIGNED_RECORDS;

/// What is wrong with an audit log.
///
/// ```
/// use neuroflow_actors::Verifier;
/// let fault = Verifier::new(None).line(b"{}").unwrap_err();
/// assert!(fault.to_string().contains("isn't a record"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The line isn't a record.
    #[error("it isn't a record of an audit log")]
    NoRecord,
    /// The last line has no end.
    #[error(
        "the last line is cut off, and no node is writing it; one was killed or the file was cut"
    )]
    Torn,
    /// The record was changed.
    #[error("record {seq} was changed: its hash is another")]
    Changed {
        /// Its number.
        seq: u64,
    },
    /// Another record should be here.
    #[error("record {found} is where record {expected} should be; one was removed, added or moved")]
    Sequence {
        /// The number that is next.
        expected: u64,
        /// The number that is there.
        found: u64,
    },
    /// It doesn't follow from the record before it.
    #[error(
        "record {seq} doesn't follow from the one before it, which was replaced or is another log's"
    )]
    Chain {
        /// Its number.
        seq: u64,
    },
    /// The first line of a file isn't what a file begins with, or such a line is elsewhere.
    #[error("record {seq} isn't where a file begins")]
    Beginning {
        /// Its number.
        seq: u64,
    },
    /// The format is a later one.
    #[error("the log is of version {found}; this program reads {VERSION}")]
    Version {
        /// Its version.
        found: u32,
    },
    /// A file of another log, or out of turn.
    #[error("record {seq} begins a file of another log, or one that isn't next")]
    File {
        /// Its number.
        seq: u64,
    },
    /// The log is signed with another key.
    #[error("the log is signed with the key {found}, and not with the one that was named")]
    Key {
        /// The key that it names.
        found: PublicKey,
    },
    /// A signature isn't one.
    #[error("the signature in record {seq} isn't one of the log's key for what is before it")]
    Signature {
        /// Its number.
        seq: u64,
    },
    /// A signature is missing.
    #[error(
        "{records} records up to record {seq} have no signature; a node leaves {AUDIT_UNSIGNED_RECORDS} at most"
    )]
    Unsigned {
        /// How many.
        records: u64,
        /// The last one's number.
        seq: u64,
    },
    /// The log is shorter than it was, or another.
    #[error(
        "record {signed}, of which a signature is kept, isn't there; the log was cut or replaced"
    )]
    Cut {
        /// The record that is missing.
        signed: u64,
    },
    /// There is no record in it.
    #[error("there is no record in it")]
    Empty,
}

/// What an unharmed log is.
///
/// ```
/// fn tail(verified: &neuroflow_actors::Verified) -> u64 {
///     verified.last - verified.signed
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// The number of the first record; not 1 if earlier files were moved elsewhere.
    pub first: u64,
    /// The number of the last record.
    pub last: u64,
    /// The hash of the last record.
    pub head: Digest,
    /// The last record that a signature vouches for, itself included.
    pub signed: u64,
    /// When that was signed, in milliseconds of Unix time.
    pub signed_at_ms: u64,
    /// The key of the signatures, as the log names it.
    pub key: PublicKey,
    /// Whether that is a key that was named from outside.
    pub key_checked: bool,
    /// Whether the last record is the signature of a node that has stopped in good order.
    pub closed: bool,
}

/// Reads a log line by line.
///
/// ```
/// use neuroflow_actors::{Fault, Verifier};
/// assert_eq!(Verifier::new(None).finish(), Err(Fault::Empty));
/// ```
#[derive(Debug)]
pub struct Verifier {
    trusted: Option<PublicKey>,
    kept: Option<Kept>,
    at: Option<Place>,
    begins_file: bool,
}

/// A signature from outside of the log.
#[derive(Debug)]
struct Kept {
    seq: u64,
    hash: Digest,
    at: u64,
    prev: Digest,
    signature: Vec<u8>,
    seen: bool,
}

/// What is known after a line.
#[derive(Debug)]
struct Place {
    first: u64,
    end: End,
    key: PublicKey,
    signed: u64,
    signed_at: u64,
    /// Whether the record before this one, or this one, says that the node has stopped.
    stopped: bool,
    closed: bool,
}

#[derive(Deserialize)]
struct Kind {
    kind: String,
}

impl Verifier {
    /// With the key that has to have signed; without one, the key that the log names is taken.
    pub fn new(trusted: Option<PublicKey>) -> Self {
        Self { trusted, kept: None, at: None, begins_file: true }
    }

    /// Holds the log against a signature of it that was kept beside it or elsewhere: a line of it.
    ///
    /// # Errors
    /// Says that the line isn't a signature.
    pub fn against(mut self, line: &[u8]) -> Result<Self, Fault> {
        let (record, hash) = read(line.trim_ascii_end())?;
        let fault = Fault::Signature { seq: record.seq };
        let Ok(Keeping::Signature { signature }) = serde_json::from_str(record.event.get()) else {
            return Err(fault);
        };
        let signature = HEXLOWER.decode(signature.as_bytes()).map_err(|_other| fault)?;
        let (seq, at, prev) = (record.seq, record.at, record.prev);
        self.kept = Some(Kept { seq, hash, at, prev, signature, seen: false });
        Ok(self)
    }

    /// The next line begins a file.
    pub fn begin_file(&mut self) {
        self.begins_file = true;
    }

    /// Takes the next line, without its line feed.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn line(&mut self, line: &[u8]) -> Result<(), Fault> {
        let (record, hash) = read(line)?;
        self.follows(&record)?;
        let seq = record.seq;
        let kind: Kind =
            serde_json::from_str(record.event.get()).map_err(|_no_event| Fault::NoRecord)?;
        let keeping = if KEEPING.contains(&kind.kind.as_str()) {
            let keeping = serde_json::from_str(record.event.get());
            Some(keeping.map_err(|_no_event| Fault::NoRecord)?)
        } else {
            None
        };
        match (&keeping, self.begins_file) {
            (Some(Keeping::File { version, log, number, key }), true) => {
                self.file(&record, *version, log, *number, key)?;
            }
            (Some(Keeping::File { .. }), false) | (_, true) => {
                return Err(Fault::Beginning { seq });
            }
            _ => {}
        }
        self.begins_file = false;
        let Some(place) = &mut self.at else { return Err(Fault::Beginning { seq }) };
        if let Some(Keeping::Signature { signature }) = &keeping {
            let message = signed(seq, record.at, record.prev);
            let signature = HEXLOWER.decode(signature.as_bytes()).unwrap_or_default();
            if !place.key.has_signed(&message, &signature) {
                return Err(Fault::Signature { seq });
            }
            (place.signed, place.signed_at, place.end.unsigned) = (seq, record.at, 0);
            place.closed = place.stopped;
        } else {
            place.end.unsigned += 1;
            place.closed = false;
            if place.end.unsigned > AUDIT_UNSIGNED_RECORDS {
                return Err(Fault::Unsigned { records: place.end.unsigned, seq });
            }
        }
        place.stopped = kind.kind == "node_stopped";
        (place.end.seq, place.end.hash) = (seq, hash);
        if let Some(kept) = &mut self.kept
            && kept.seq == seq
        {
            if kept.hash != hash {
                return Err(Fault::Cut { signed: seq });
            }
            kept.seen = true;
        }
        Ok(())
    }

    fn follows(&self, record: &Read<'_>) -> Result<(), Fault> {
        let seq = record.seq;
        let Some(place) = &self.at else {
            let is_first = seq == 1 && record.prev != Digest::ZERO;
            return if is_first || seq == 0 { Err(Fault::Chain { seq }) } else { Ok(()) };
        };
        let expected = place.end.seq.saturating_add(1);
        if seq != expected {
            return Err(Fault::Sequence { expected, found: seq });
        }
        if record.prev == place.end.hash { Ok(()) } else { Err(Fault::Chain { seq }) }
    }

    fn file(
        &mut self,
        record: &Read<'_>,
        version: u32,
        log: &str,
        number: u64,
        key: &str,
    ) -> Result<(), Fault> {
        let seq = record.seq;
        if version != VERSION {
            return Err(Fault::Version { found: version });
        }
        let key = PublicKey::from_hex(key).ok_or(Fault::NoRecord)?;
        if self.trusted.is_some_and(|trusted| trusted != key) {
            return Err(Fault::Key { found: key });
        }
        match &mut self.at {
            None => {
                let (log, hash) = (log.to_owned(), record.prev);
                let before = seq.saturating_sub(1);
                let end = End { seq: before, hash, unsigned: 0, log, file: number };
                let (stopped, closed) = (false, false);
                let place =
                    Place { first: seq, end, key, signed: 0, signed_at: 0, stopped, closed };
                self.at = Some(place);
            }
            Some(place) => {
                // A key that is replaced in the middle of a log would be anybody's.
                let next = place.end.file.saturating_add(1);
                if place.end.log != log || number != next || place.key != key {
                    return Err(Fault::File { seq });
                }
                place.end.file = number;
            }
        }
        Ok(())
    }

    /// The log has no further line.
    ///
    /// # Errors
    /// Says what is missing.
    pub fn finish(self) -> Result<Verified, Fault> {
        let Some(place) = self.at else { return Err(Fault::Empty) };
        if let Some(kept) = self.kept {
            let message = signed(kept.seq, kept.at, kept.prev);
            if !place.key.has_signed(&message, &kept.signature) {
                return Err(Fault::Signature { seq: kept.seq });
            }
            // One from before the first record vouches for nothing that is here.
            if !kept.seen && kept.seq >= place.first {
                return Err(Fault::Cut { signed: kept.seq });
            }
        }
        Ok(Verified {
            first: place.first,
            last: place.end.seq,
            head: place.end.hash,
            signed: place.signed,
            signed_at_ms: place.signed_at,
            key: place.key,
            key_checked: self.trusted.is_some(),
            closed: place.closed,
        })
    }

    /// Where the log ends, for whoever goes on writing it.
    pub(super) fn end(&self) -> Option<&End> {
        self.at.as_ref().map(|place| &place.end)
    }
}

fn read(line: &[u8]) -> Result<(Read<'_>, Digest), Fault> {
    record::read(line).map_err(|error| match error {
        NoRecord::Form => Fault::NoRecord,
        NoRecord::Hash { seq } => Fault::Changed { seq },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::key::SigningKey;
    use crate::audit::{AuditEvent, AuditId, Verdict};
    use proptest::prelude::*;

    /// A signed log of one file with so many events, a signature after every third.
    fn log(key: &SigningKey, events: u64) -> Vec<Vec<u8>> {
        let mut end = End::empty("log".to_owned());
        let mut bytes = Vec::new();
        end.begin_file(1, key, &mut bytes).unwrap();
        for number in 0..events {
            let event = AuditEvent::Authorisation {
                principal: Some(AuditId::new("alice")),
                action: "agent.ask",
                resource: AuditId::new(format!("agent-{number}")),
                verdict: Verdict::Denied,
                reason: "no_policy",
            };
            end.append(number, None, &event, &mut bytes).unwrap();
            if number % 3 == 2 {
                bytes.extend(end.sign(number, key).unwrap());
            }
        }
        bytes.extend(end.sign(events, key).unwrap());
        let lines = bytes.split_inclusive(|byte| *byte == b'\n');
        lines.map(|line| line.trim_ascii_end().to_vec()).collect()
    }

    fn check(lines: &[Vec<u8>], key: Option<PublicKey>, kept: &[u8]) -> Result<Verified, Fault> {
        let mut verifier = Verifier::new(key).against(kept)?;
        lines.iter().try_for_each(|line| verifier.line(line))?;
        verifier.finish()
    }

    #[test]
    fn an_unharmed_log_is_found_unharmed() {
        let key = SigningKey::fresh();
        let lines = log(&key, 7);
        let verified = check(&lines, Some(key.public()), lines.last().unwrap()).unwrap();
        assert_eq!((verified.first, verified.last), (1, lines.len() as u64));
        assert_eq!(verified.signed, verified.last);
        assert!(verified.key_checked && !verified.closed);
    }

    proptest! {
        #[test]
        fn any_single_change_of_a_signed_log_is_found(
            events in 1..20_u64,
            change in 0..5_u8,
            first in any::<prop::sample::Index>(),
            second in any::<prop::sample::Index>(),
            byte in any::<prop::sample::Index>(),
            flip in 0..8_u32,
        ) {
            let key = SigningKey::fresh();
            let whole = log(&key, events);
            let kept = whole.last().unwrap().clone();
            let (first, second) = (first.index(whole.len()), second.index(whole.len()));
            let mut lines = whole.clone();
            match change {
                0 => {
                    let at = byte.index(lines[first].len());
                    lines[first][at] ^= 1 << flip;
                }
                1 => drop(lines.remove(first)),
                2 => lines.swap(first, second),
                3 => lines.insert(second, whole[first].clone()),
                _ => lines.truncate(first),
            }
            prop_assume!(lines != whole);
            prop_assert!(check(&lines, Some(key.public()), &kept).is_err());
        }
    }

    #[test]
    fn a_log_that_is_written_anew_is_found_by_its_key() {
        let (key, thief) = (SigningKey::fresh(), SigningKey::fresh());
        let (lines, forged) = (log(&key, 4), log(&thief, 4));
        let kept = lines.last().unwrap();
        let found = thief.public();
        assert_eq!(check(&forged, Some(key.public()), kept), Err(Fault::Key { found }));
        // Without a key from outside, the signature that was kept gives it away.
        assert!(matches!(check(&forged, None, kept), Err(Fault::Cut { .. })));
        // Records of one in the other.
        let mixed = [&lines[..3], &forged[3..]].concat();
        assert_eq!(check(&mixed, Some(key.public()), kept), Err(Fault::Chain { seq: 4 }));
    }

    #[test]
    fn each_fault_names_its_record() {
        let key = SigningKey::fresh();
        let lines = log(&key, 7);
        let kept = lines.last().unwrap().clone();
        let fault = |lines: &[Vec<u8>]| check(lines, Some(key.public()), &kept).unwrap_err();
        let mut changed = lines.clone();
        let at = changed[2].windows(5).position(|it| it == b"alice").unwrap();
        changed[2][at] = b'b';
        assert_eq!(fault(&changed), Fault::Changed { seq: 3 });
        let mut removed = lines.clone();
        removed.remove(3);
        assert_eq!(fault(&removed), Fault::Sequence { expected: 4, found: 5 });
        let mut doubled = lines.clone();
        doubled.insert(3, lines[2].clone());
        assert_eq!(fault(&doubled), Fault::Sequence { expected: 4, found: 3 });
        // Cut at a signature: nothing but the kept one tells.
        let cut = &lines[..5];
        assert_eq!(fault(cut), Fault::Cut { signed: lines.len() as u64 });
        assert!(check(cut, None, &lines[4]).is_ok());
        assert_eq!(fault(&lines[1..]), Fault::Beginning { seq: 2 });
    }

    #[test]
    fn more_unsigned_records_than_a_node_leaves_are_a_fault() {
        let key = SigningKey::fresh();
        let mut end = End::empty("log".to_owned());
        let mut bytes = Vec::new();
        end.begin_file(1, &key, &mut bytes).unwrap();
        for at in 0..AUDIT_UNSIGNED_RECORDS {
            end.append(at, None, &AuditEvent::NodeStopped, &mut bytes).unwrap();
        }
        let mut verifier = Verifier::new(None);
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let checked = lines.map(|line| verifier.line(line)).collect::<Result<Vec<_>, _>>();
        let records = AUDIT_UNSIGNED_RECORDS + 1;
        assert_eq!(checked, Err(Fault::Unsigned { records, seq: records }));
    }
}
