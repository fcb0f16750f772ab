//! What a node says of itself, and the messages around SWIM's packets. Hostile bytes until they are read.

use std::net::SocketAddr;

use rkyv::util::AlignedVec;

use crate::limits::{MAX_OFFERS, MAX_RECORD_BYTES, MAX_SKILL_BYTES, MAX_SKILLS};

/// An agent that a member offers.
///
/// ```
/// let offer = neuroflow_transport::Offer::new("echo").skill("repeat");
/// assert_eq!((offer.name.as_str(), offer.skills.len()), ("echo", 1));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[non_exhaustive]
pub struct Offer {
    /// The name to ask it by.
    pub name: String,
    /// What it says it can do.
    pub skills: Vec<String>,
}

impl Offer {
    /// An agent without skills.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), skills: Vec::new() }
    }

    /// One more skill.
    #[must_use]
    pub fn skill(mut self, skill: impl Into<String>) -> Self {
        self.skills.push(skill.into());
        self
    }
}

/// What a node says of itself. It comes over the node's own link, so that its certificate vouches for it.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub(crate) struct Record {
    /// Where it listens, if that isn't where its link comes from.
    pub(crate) address: Option<SocketAddr>,
    pub(crate) oldest: u16,
    pub(crate) newest: u16,
    /// Its build, for people.
    pub(crate) build: String,
    pub(crate) capacity: u32,
    pub(crate) draining: bool,
    /// Seconds since 1970.
    pub(crate) certificate_expires: u64,
    pub(crate) offers: Vec<Offer>,
}

/// A message between members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Note<'a> {
    /// A packet of SWIM's.
    Swim(&'a [u8]),
    /// The sender's record: of which start it is, and the how manieth of that.
    Record { start: u64, version: u64, archive: &'a [u8] },
    /// The sender's load, which record is its newest, and to those who can ask for it which list of revoked
    /// nodes it has (0 for none).
    Pulse { start: u64, version: u64, load: u32, list: Option<u64> },
    /// The sender lacks the receiver's record.
    Want,
    /// The sender knows of a later start of the receiver than the receiver itself.
    Later { start: u64 },
    /// The newest list of nodes that were shut out.
    Revocations(&'a [u8]),
    /// An operator wants the receiver to drain, or to stop draining.
    Drain { on: bool },
    /// The sender lacks the list of revoked nodes that the receiver says it has.
    WantList,
    /// A kind of a later version: ignored.
    Unknown,
}

/// The kind of a message that carries a list of revoked nodes.
pub(crate) const LIST: u8 = 6;

/// The first protocol whose members say which list of revoked nodes they have, ask for it, and carry it at any
/// length that it may have.
pub(crate) const LISTS_SINCE: u16 = 3;

/// Bytes that aren't a message between members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum NoteError {
    #[error("the message is cut off")]
    Truncated,
    #[error("the record isn't valid")]
    Record,
    #[error("the record says more than it may")]
    Bounds,
}

impl<'a> Note<'a> {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(32);
        match self {
            Self::Swim(packet) => {
                bytes.push(1);
                bytes.extend_from_slice(packet);
            }
            Self::Record { start, version, archive } => {
                bytes.push(2);
                bytes.extend_from_slice(&start.to_le_bytes());
                bytes.extend_from_slice(&version.to_le_bytes());
                bytes.extend_from_slice(archive);
            }
            Self::Pulse { start, version, load, list } => {
                bytes.push(3);
                bytes.extend_from_slice(&start.to_le_bytes());
                bytes.extend_from_slice(&version.to_le_bytes());
                bytes.extend_from_slice(&load.to_le_bytes());
                if let Some(list) = list {
                    bytes.extend_from_slice(&list.to_le_bytes());
                }
            }
            Self::Want => bytes.push(4),
            Self::Later { start } => {
                bytes.push(5);
                bytes.extend_from_slice(&start.to_le_bytes());
            }
            Self::Revocations(list) => {
                bytes.push(LIST);
                bytes.extend_from_slice(list);
            }
            Self::Drain { on } => bytes.extend_from_slice(&[7, u8::from(*on)]),
            Self::WantList => bytes.push(8),
            Self::Unknown => {}
        }
        bytes
    }

    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, NoteError> {
        let (kind, mut rest) = bytes.split_first().ok_or(NoteError::Truncated)?;
        Ok(match *kind {
            1 => Self::Swim(rest),
            2 => {
                let (start, version) = (u64_of(&mut rest)?, u64_of(&mut rest)?);
                Self::Record { start, version, archive: rest }
            }
            3 => {
                let (start, version) = (u64_of(&mut rest)?, u64_of(&mut rest)?);
                let (load, mut rest) = rest.split_first_chunk().ok_or(NoteError::Truncated)?;
                let list = u64_of(&mut rest).ok();
                Self::Pulse { start, version, load: u32::from_le_bytes(*load), list }
            }
            4 => Self::Want,
            5 => Self::Later { start: u64_of(&mut rest)? },
            LIST => Self::Revocations(rest),
            7 => Self::Drain { on: *rest.first().ok_or(NoteError::Truncated)? != 0 },
            8 => Self::WantList,
            _ => Self::Unknown,
        })
    }
}

fn u64_of(bytes: &mut &[u8]) -> Result<u64, NoteError> {
    let (number, rest) = bytes.split_first_chunk().ok_or(NoteError::Truncated)?;
    *bytes = rest;
    Ok(u64::from_le_bytes(*number))
}

impl Record {
    pub(crate) fn encode(&self) -> Result<AlignedVec, NoteError> {
        let archive = rkyv::to_bytes::<rkyv::rancor::Error>(self).map_err(invalid)?;
        if archive.len() > MAX_RECORD_BYTES {
            return Err(NoteError::Bounds);
        }
        Ok(archive)
    }

    pub(crate) fn decode(archive: &[u8]) -> Result<Self, NoteError> {
        if archive.len() > MAX_RECORD_BYTES {
            return Err(NoteError::Bounds);
        }
        let mut aligned = AlignedVec::<16>::with_capacity(archive.len());
        aligned.extend_from_slice(archive);
        let read =
            rkyv::access::<ArchivedRecord, rkyv::rancor::Error>(&aligned).map_err(invalid)?;
        let fits = |offer: &ArchivedOffer| {
            neuroflow_kernel::Name::new(offer.name.as_str()).is_ok()
                && offer.skills.len() <= MAX_SKILLS
                && offer.skills.iter().all(|skill| skill.len() <= MAX_SKILL_BYTES)
        };
        if read.build.len() > MAX_SKILL_BYTES
            || read.offers.len() > MAX_OFFERS
            || !read.offers.iter().all(fits)
        {
            return Err(NoteError::Bounds);
        }
        rkyv::deserialize::<Self, rkyv::rancor::Error>(read).map_err(invalid)
    }

    /// The same within the bounds: what is too much isn't said.
    pub(crate) fn bounded(mut self) -> Self {
        self.offers.truncate(MAX_OFFERS);
        for offer in &mut self.offers {
            offer.skills.retain(|skill| skill.len() <= MAX_SKILL_BYTES);
            offer.skills.truncate(MAX_SKILLS);
        }
        // Long skills of many agents may still be too much together.
        while self.encode().is_err() && !self.offers.is_empty() {
            let longest = self.offers.iter_mut().max_by_key(|offer| offer.skills.len());
            match longest {
                Some(offer) if !offer.skills.is_empty() => offer.skills.clear(),
                _ => self.offers.truncate(self.offers.len() / 2),
            }
        }
        self
    }
}

fn invalid(_why: rkyv::rancor::Error) -> NoteError {
    NoteError::Record
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn record(offers: &[&str]) -> Record {
        Record {
            address: None,
            oldest: 1,
            newest: 2,
            build: "test".to_owned(),
            capacity: 100,
            draining: false,
            certificate_expires: 4_000_000_000,
            offers: offers.iter().map(|name| Offer::new(*name).skill("repeat")).collect(),
        }
    }

    #[test]
    fn a_record_survives_the_wire_and_bounds_hold() {
        let said = record(&["echo", "shell"]);
        assert_eq!(Record::decode(&said.encode().unwrap()), Ok(said));
        let many: Vec<String> = (0..=MAX_OFFERS).map(|nth| format!("agent-{nth}")).collect();
        let many = record(&many.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(Record::decode(&many.encode().unwrap()), Err(NoteError::Bounds));
        assert_eq!(many.bounded().offers.len(), MAX_OFFERS);
        let bad = record(&["no/name"]);
        assert_eq!(Record::decode(&bad.encode().unwrap()), Err(NoteError::Bounds));
        let mut long = record(&["a", "b"]);
        long.offers[0].skills = vec!["s".repeat(MAX_SKILL_BYTES); 4_000];
        assert!(matches!(long.encode(), Err(NoteError::Bounds)));
        assert!(long.bounded().encode().is_ok());
    }

    #[test]
    fn notes_survive_the_wire() {
        for note in [
            Note::Swim(b"packet"),
            Note::Record { start: 1, version: 2, archive: b"archive" },
            Note::Pulse { start: 1, version: 2, load: 3, list: None },
            Note::Pulse { start: 1, version: 2, load: 3, list: Some(4) },
            Note::WantList,
            Note::Want,
            Note::Later { start: 9 },
            Note::Revocations(b"list"),
            Note::Drain { on: true },
        ] {
            let bytes = note.encode();
            assert_eq!(Note::decode(&bytes), Ok(note));
        }
        assert_eq!(Note::decode(&[200, 1, 2]), Ok(Note::Unknown));
        assert_eq!(Note::decode(&[]), Err(NoteError::Truncated));
        assert_eq!(Note::decode(&[2, 1]), Err(NoteError::Truncated));
    }

    proptest! {
        #[test]
        fn hostile_records_are_refused_or_within_bounds(
            at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in 0..64_usize,
        ) {
            let mut bytes = record(&["echo", "shell", "python"]).encode().unwrap().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes.truncate(bytes.len() - cut);
            if let Ok(read) = Record::decode(&bytes) {
                prop_assert!(read.offers.len() <= MAX_OFFERS);
            }
        }
    }
}
