//! What a segment begins with: its version, its number, and the salt of its records. Pure; every byte may be hostile.
//!
//! Contents are what clients have sent, and so may hold bytes that look like a record. Behind damage records are
//! searched for, contents and all: what tells a real one is eight random bytes of its segment, which nobody outside
//! knows. The first version had no salt: see `scan.rs` for what that costs.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use std::{fmt, io};

use ring::rand::{SecureRandom, SystemRandom};

use super::codec::{self, Fault, RECORD_MAGIC, Take};

/// The version of everything that is written below a journal's directory, but for its index.
pub(super) const FORMAT: u32 = 2;
/// The version without salts, whose segments are still read.
pub(super) const UNSALTED: u32 = 1;

/// A segment begins with this.
const SEGMENT_MAGIC: [u8; 8] = *b"NFLOWJNL";
/// Bytes before a segment's first record.
pub(super) const SEGMENT_HEADER: usize = 32;
const SALT_AT: usize = 16;
const SEGMENT_CHECKED: usize = 28;

/// What the first eight bytes of a segment's records are mixed with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Salt([u8; 8]);

impl Salt {
    /// That of the first version, which clients know.
    pub(super) const NONE: Self = Self([0; 8]);

    /// One that nobody knows.
    pub(super) fn fresh() -> io::Result<Self> {
        let mut bytes = [0; 8];
        let filled = SystemRandom::new().fill(&mut bytes);
        filled.map_err(|_unspecified| io::Error::other("the system has no random bytes"))?;
        Ok(Self(bytes))
    }

    #[cfg(test)]
    pub(super) const fn of(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_none(self) -> bool {
        self == Self::NONE
    }

    /// What a record with this checksum begins with.
    pub(super) fn sealed(self, crc: u32) -> [u8; 8] {
        let mut seal = self.0;
        let plain = RECORD_MAGIC.into_iter().chain(crc.to_le_bytes());
        for (salted, plain) in seal.iter_mut().zip(plain) {
            *salted ^= plain;
        }
        seal
    }

    /// What every record begins with.
    pub(super) fn mark(self) -> [u8; 4] {
        let [a, b, c, d, ..] = self.sealed(0);
        [a, b, c, d]
    }

    /// The salt under which a record with this checksum begins with this seal.
    fn between(seal: [u8; 8], crc: u32) -> Self {
        Self(Self(seal).sealed(crc))
    }
}

/// Logs don't tell it.
impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_none() { "Salt::NONE" } else { "Salt(..)" })
    }
}

/// Writes a segment's header.
pub(super) fn segment_header(number: u32, salt: Salt) -> [u8; SEGMENT_HEADER] {
    let mut bytes = Vec::with_capacity(SEGMENT_HEADER);
    bytes.extend(SEGMENT_MAGIC);
    bytes.extend(FORMAT.to_le_bytes());
    bytes.extend(number.to_le_bytes());
    bytes.extend(salt.0);
    bytes.resize(SEGMENT_CHECKED, 0);
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    let mut header = [0; SEGMENT_HEADER];
    for (to, from) in header.iter_mut().zip(bytes) {
        *to = from;
    }
    header
}

/// What a segment's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SegmentHeader {
    /// It's ours.
    Known { number: u32, salt: Salt },
    /// It's of another version.
    Version(u32),
    /// It isn't one, or its checksum doesn't fit.
    Damaged,
    /// The file ends before it does.
    Short,
}

/// Reads a segment's header. Every version has its own number and the checksum at these places.
pub(super) fn read_segment_header(bytes: &[u8]) -> SegmentHeader {
    let Some(header) = bytes.get(..SEGMENT_HEADER) else { return SegmentHeader::Short };
    let mut take = Take(header);
    let (Some(magic), Some(version), Some(number), Some(salt)) =
        (take.bytes(8), take.u32(), take.u32(), take.array())
    else {
        return SegmentHeader::Short;
    };
    if magic != SEGMENT_MAGIC {
        return SegmentHeader::Damaged;
    }
    let crc = header.get(..SEGMENT_CHECKED).map(crc32fast::hash);
    let sealed = header.get(SEGMENT_CHECKED..).and_then(|rest| Take(rest).u32()) == crc;
    match (version, sealed) {
        // A flipped bit in the version isn't another version.
        (_, false) => SegmentHeader::Damaged,
        (FORMAT, true) => SegmentHeader::Known { number, salt: Salt(salt) },
        (UNSALTED, true) => SegmentHeader::Known { number, salt: Salt::NONE },
        (version, true) => SegmentHeader::Version(version),
    }
}

/// The salt of a segment whose header is damaged: that of its first record, which lies where no content can, or
/// what the header has at its place.
pub(super) fn recovered_salt(segment: &[u8]) -> Salt {
    let records = segment.get(SEGMENT_HEADER..).unwrap_or_default();
    let of_record = codec::seal(records).map(|(seal, crc)| Salt::between(seal, crc));
    let fits = |salt: &Salt| {
        let Ok(first) = codec::read(records, *salt) else { return false };
        let rest = records.get(first.len..).unwrap_or_default();
        // A damaged head would give a salt too, but one that nothing else fits.
        let follows = rest.is_empty() || !matches!(codec::read(rest, *salt), Err(Fault::Head));
        first.body.is_some() && follows
    };
    let of_header = segment.get(SALT_AT..).and_then(|rest| Take(rest).array()).map(Salt);
    of_record.filter(fits).or(of_header).unwrap_or(Salt::NONE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::TaskState;
    use crate::journal::codec::{Head, Position, RecordKind};

    const SALT: Salt = Salt::of([7; 8]);

    #[test]
    fn a_segment_header_tells_versions_from_damage() {
        let header = segment_header(9, SALT);
        let known = |salt| SegmentHeader::Known { number: 9, salt };
        assert_eq!(read_segment_header(&header), known(SALT));
        assert_eq!(read_segment_header(&header[..20]), SegmentHeader::Short);
        let mut flipped = header;
        flipped[13] ^= 1;
        assert_eq!(read_segment_header(&flipped), SegmentHeader::Damaged);
        let of_version = |version| {
            let mut other = header;
            other[8] = version;
            let crc = crc32fast::hash(&other[..SEGMENT_CHECKED]).to_le_bytes();
            other[SEGMENT_CHECKED..].copy_from_slice(&crc);
            read_segment_header(&other)
        };
        assert_eq!(of_version(3), SegmentHeader::Version(3));
        // Whatever the first version has there isn't a salt.
        assert_eq!(of_version(1), known(Salt::NONE));
    }

    #[test]
    fn a_salt_is_recovered_from_the_first_record_or_what_is_left_of_the_header() {
        let head = |number| Head {
            kind: RecordKind::Removed,
            flags: 0,
            state: TaskState::Working,
            message: neuroflow_kernel::MessageId::from(0),
            version: 0,
            number,
            generation: 1,
            at_ms: 1,
            previous: Position::default(),
            agent: "a",
            task: "t",
            context: "",
            caller: "",
            key: "",
        };
        for salt in [SALT, Salt::NONE] {
            let mut segment = segment_header(1, salt).to_vec();
            codec::write(&mut segment, salt, &head(1), b"content");
            codec::write(&mut segment, salt, &head(2), b"content");
            assert_eq!(recovered_salt(&segment), salt);
            let mut without_header = segment.clone();
            without_header[..SEGMENT_HEADER].fill(0xEE);
            assert_eq!(recovered_salt(&without_header), salt);
            // In the number of the first record.
            segment[SEGMENT_HEADER + 24] ^= 1;
            assert_eq!(recovered_salt(&segment), salt);
        }
        assert_ne!(Salt::fresh().unwrap(), Salt::fresh().unwrap());
    }
}
