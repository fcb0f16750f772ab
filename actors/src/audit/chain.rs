//! The end of an audit log, and what is appended to it: pure.

use serde::Serialize;

use super::digest::Digest;
use super::key::SigningKey;
use super::record::{Keeping, Record, VERSION, signed};

/// Where a log ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// The number of the last record.
    pub(super) seq: u64,
    /// Its hash.
    pub(super) hash: Digest,
    /// Records after the last signature.
    pub(super) unsigned: u64,
    /// The log's id.
    pub(super) log: String,
    /// The number of its last file.
    pub(super) file: u64,
}

impl End {
    /// Of a log that has no record.
    pub(super) fn empty(log: String) -> Self {
        Self { seq: 0, hash: Digest::ZERO, unsigned: 0, log, file: 0 }
    }

    /// Appends a record to `lines`, and gives its number.
    pub(super) fn append(
        &mut self,
        at: u64,
        trace: Option<String>,
        event: &impl Serialize,
        lines: &mut Vec<u8>,
    ) -> Result<u64, serde_json::Error> {
        let seq = self.seq.saturating_add(1);
        self.hash = Record { seq, at, prev: self.hash, trace, event }.write(lines)?;
        self.seq = seq;
        self.unsigned += 1;
        Ok(seq)
    }

    /// Begins the next file.
    pub(super) fn begin_file(
        &mut self,
        at: u64,
        key: &SigningKey,
        lines: &mut Vec<u8>,
    ) -> Result<(), serde_json::Error> {
        self.file += 1;
        let log = self.log.clone();
        let key = key.public().to_string();
        let begin = Keeping::File { version: VERSION, log, number: self.file, key };
        self.append(at, None, &begin, lines).map(|_seq| ())
    }

    /// Vouches for everything so far; gives the line.
    pub(super) fn sign(&mut self, at: u64, key: &SigningKey) -> Result<Vec<u8>, serde_json::Error> {
        let message = signed(self.seq.saturating_add(1), at, self.hash);
        let signature = key.sign(&message);
        let mut line = Vec::new();
        self.append(at, None, &Keeping::Signature { signature }, &mut line)?;
        self.unsigned = 0;
        Ok(line)
    }
}
