//! The index as a file, so that a start doesn't read the whole journal again. It's never needed:
//! without it, or with a damaged one, the segments are read.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use super::catalog::{Catalog, Chain};
use super::codec::{Position, Take, state_code, state_of};
use super::index::{Index, Known};

/// The file's name; it's written beside it first.
const NAME: &str = "index";
const NEXT: &str = "index.next";
const MAGIC: [u8; 8] = *b"NFLOWIDX";
/// The version of this file, which has its own: where records are hasn't changed with how they begin.
const FORMAT: u32 = 1;

/// What an index covers: everything before this place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Covers {
    pub(super) segment: u32,
    pub(super) offset: u64,
}

/// An index, as bytes.
pub(super) fn encode(index: &Index<Chain>, covers: Covers) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(covers.segment.to_le_bytes());
    body.extend(covers.offset.to_le_bytes());
    body.extend((index.tasks() as u64).to_le_bytes());
    for (agent, task, known) in index.each() {
        for name in [agent, task, &known.context] {
            body.extend(u16::try_from(name.len()).unwrap_or(u16::MAX).to_le_bytes());
            body.extend(name.as_bytes());
        }
        body.push(u8::from(known.caller.is_some()));
        let caller = known.caller.as_deref().unwrap_or_default();
        body.extend(u16::try_from(caller.len()).unwrap_or(u16::MAX).to_le_bytes());
        body.extend(caller.as_bytes());
        body.push(state_code(known.state));
        for number in [known.at_ms, known.generation, known.entries, known.bytes] {
            body.extend(number.to_le_bytes());
        }
        let Position { segment, offset, len } = known.place.last;
        for number in [segment, offset, len] {
            body.extend(number.to_le_bytes());
        }
        body.extend(u16::try_from(known.place.spans.len()).unwrap_or(u16::MAX).to_le_bytes());
        for (segment, bytes) in known.place.spans.iter().take(u16::MAX.into()) {
            body.extend(segment.to_le_bytes());
            body.extend(bytes.to_le_bytes());
        }
    }
    let mut file = Vec::with_capacity(body.len().saturating_add(16));
    file.extend(MAGIC);
    file.extend(FORMAT.to_le_bytes());
    file.extend(crc32fast::hash(&body).to_le_bytes());
    file.extend(body);
    file
}

/// Reads an index; none if it's damaged or of another version.
pub(super) fn decode(file: &[u8]) -> Option<(Catalog, Covers)> {
    let mut take = Take(file);
    if take.bytes(MAGIC.len())? != MAGIC || take.u32()? != FORMAT {
        return None;
    }
    if take.u32()? != crc32fast::hash(take.0) {
        return None;
    }
    let covers = Covers { segment: take.u32()?, offset: take.u64()? };
    let tasks = take.u64()?;
    let mut catalog = Catalog::default();
    for _ in 0..tasks {
        let (agent, task, context) = (take.text()?, take.text()?, take.text()?);
        let called = take.u8()? != 0;
        let caller = Some(take.text()?).filter(|_| called).map(Into::into);
        let state = state_of(take.u8()?)?;
        let (at_ms, generation, entries, bytes) =
            (take.u64()?, take.u64()?, take.u64()?, take.u64()?);
        let last = Position { segment: take.u32()?, offset: take.u32()?, len: take.u32()? };
        let spans = take.u16()?;
        let spans = (0..spans).map(|_| Some((take.u32()?, take.u32()?))).collect::<Option<_>>()?;
        let place = Chain { last, spans };
        let context = context.into();
        let known = Known { context, caller, state, at_ms, generation, entries, bytes, place };
        catalog.put(agent, task, known);
    }
    Some((catalog, covers))
}

/// Writes an index in place of the one before, or leaves that.
pub(super) fn write(folder: &Path, bytes: &[u8]) -> io::Result<()> {
    let next = folder.join(NEXT);
    let written = File::create(&next).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&next, folder.join(NAME))
    });
    if written.is_err() {
        // Half an index helps nobody, and takes up what little room there may be.
        let _not_there = fs::remove_file(&next);
    }
    written
}

/// Reads a folder's index; none if there is none that can be used.
pub(super) fn read(folder: &Path) -> Option<(Catalog, Covers)> {
    decode(&fs::read(folder.join(NAME)).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::TaskState;

    #[test]
    fn an_index_is_read_as_written_and_refused_with_any_flipped_bit() {
        let mut catalog = Catalog::default();
        for number in 0..3_u32 {
            let mut place = Chain::default();
            place.add(Position { segment: 1, offset: 32, len: 100 });
            place.add(Position { segment: 2, offset: 32, len: 50 + number });
            let known = Known {
                context: "c".into(),
                caller: Some("me".into()),
                state: TaskState::Failed,
                at_ms: 5,
                generation: 2,
                entries: 2,
                bytes: 150,
                place,
            };
            catalog.put("a", &format!("t{number}"), known);
        }
        let covers = Covers { segment: 2, offset: 82 };
        let bytes = encode(&catalog.index, covers);
        let (read, of) = decode(&bytes).unwrap();
        assert_eq!((read.index.tasks(), of), (3, covers));
        assert_eq!(read.live_in(1), 300);
        assert_eq!(read.live_in(2), 153);
        assert_eq!(read.index.head("a", "t1"), catalog.index.head("a", "t1"));
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            assert!(decode(&flipped).is_none(), "byte {at}");
            assert!(decode(&bytes[..at]).is_none(), "cut at {at}");
        }
    }
}
