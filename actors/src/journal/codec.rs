//! The bytes of a record, of which there is one per entry. Pure; every byte may be hostile.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use neuroflow_kernel::MessageId;

use super::heading::Salt;
use super::{EntryKind, TaskState};
use crate::limits::{JOURNAL_NAME_BYTES, JOURNAL_RECORD_BYTES};

/// A record begins with this under its segment's salt, at an offset that divides by eight.
pub(super) const RECORD_MAGIC: [u8; 4] = *b"NFJR";
/// Bytes of a record before its names.
const FIXED: usize = 76;
/// Records begin, and contents begin, where the offset divides by this.
pub(super) const ALIGN: usize = 8;

/// Where a record is. Nowhere: all zero, which is a segment's header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) segment: u32,
    pub(super) offset: u32,
    pub(super) len: u32,
}

impl Position {
    pub(super) fn is_nowhere(self) -> bool {
        self.len == 0
    }
}

/// What a record is: an entry, or the mark that its task was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordKind {
    Entry(EntryKind),
    Removed,
}

impl RecordKind {
    fn code(self) -> u8 {
        match self {
            Self::Entry(kind) => entry_code(kind),
            Self::Removed => REMOVED,
        }
    }

    fn of(code: u8) -> Option<Self> {
        if code == REMOVED { Some(Self::Removed) } else { entry_kind(code).map(Self::Entry) }
    }
}

const REMOVED: u8 = 255;

/// The number of a kind of entries, on disk and in databases.
pub(super) fn entry_code(kind: EntryKind) -> u8 {
    match kind {
        EntryKind::Event => 1,
        EntryKind::Effect => 2,
        EntryKind::PushConfig => 3,
        EntryKind::PushCursor => 4,
        EntryKind::Caller => 5,
        EntryKind::Run => 6,
        EntryKind::Call => 7,
        EntryKind::Outcome => 8,
    }
}

/// The kind of this number.
pub(super) fn entry_kind(code: u8) -> Option<EntryKind> {
    match code {
        1 => Some(EntryKind::Event),
        2 => Some(EntryKind::Effect),
        3 => Some(EntryKind::PushConfig),
        4 => Some(EntryKind::PushCursor),
        5 => Some(EntryKind::Caller),
        6 => Some(EntryKind::Run),
        7 => Some(EntryKind::Call),
        8 => Some(EntryKind::Outcome),
        _ => None,
    }
}

/// The number of a state, on disk and in databases. Never changed, only added to.
pub(super) fn state_code(state: TaskState) -> u8 {
    match state {
        TaskState::Submitted => 1,
        TaskState::Working => 2,
        TaskState::Completed => 3,
        TaskState::Failed => 4,
        TaskState::Canceled => 5,
        TaskState::InputRequired => 6,
        TaskState::AuthRequired => 7,
        TaskState::Rejected => 8,
    }
}

/// The state of this number.
pub(super) fn state_of(code: u8) -> Option<TaskState> {
    match code {
        1 => Some(TaskState::Submitted),
        2 => Some(TaskState::Working),
        3 => Some(TaskState::Completed),
        4 => Some(TaskState::Failed),
        5 => Some(TaskState::Canceled),
        6 => Some(TaskState::InputRequired),
        7 => Some(TaskState::AuthRequired),
        8 => Some(TaskState::Rejected),
        _ => None,
    }
}

/// More records of the same append follow.
pub(super) const MORE: u8 = 1;
/// A copy that replaces what the task had before.
pub(super) const MOVED: u8 = 2;
/// The task is somebody's, even if that name is empty.
pub(super) const CALLED: u8 = 4;

/// The head of a record: all but its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head<'a> {
    pub(super) kind: RecordKind,
    pub(super) flags: u8,
    pub(super) state: TaskState,
    pub(super) message: MessageId,
    pub(super) version: u16,
    pub(super) number: u64,
    pub(super) generation: u64,
    pub(super) at_ms: u64,
    pub(super) previous: Position,
    pub(super) agent: &'a str,
    pub(super) task: &'a str,
    /// Of the task's first record only.
    pub(super) context: &'a str,
    /// Of the task's first record only, and nobody without [`CALLED`].
    pub(super) caller: &'a str,
    pub(super) key: &'a str,
}

impl Head<'_> {
    /// Whether it says nothing of what the task had before: the mark that it was removed, or the first of a copy.
    pub(super) fn begins_anew(&self) -> bool {
        let copies = self.flags & MOVED != 0 && self.previous.is_nowhere();
        self.kind == RecordKind::Removed || copies
    }
}

/// A record, read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    pub(super) head: Head<'a>,
    /// None if it doesn't fit its checksum.
    pub(super) body: Option<&'a [u8]>,
    /// Bytes until the next record.
    pub(super) len: usize,
}

/// Why there is no record at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// What is there isn't the head of a record.
    Head,
    /// The file ends before the head does.
    Short,
    /// The head is whole, and the file ends before the content does.
    Cut,
}

/// Appends a record to `out`, and says how many bytes it has. Names and body are as long as
/// [`fits`] allows.
pub(super) fn write(out: &mut Vec<u8>, salt: Salt, head: &Head<'_>, body: &[u8]) -> u32 {
    let start = out.len();
    let names = [head.agent, head.task, head.context, head.caller, head.key];
    let lengths = names.map(|name| u16::try_from(name.len()).unwrap_or(u16::MAX));
    out.extend([0; 8]);
    out.extend(crc32fast::hash(body).to_le_bytes());
    out.extend(u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend(head.message.get().to_le_bytes());
    out.extend(head.number.to_le_bytes());
    out.extend(head.generation.to_le_bytes());
    out.extend(head.at_ms.to_le_bytes());
    out.extend(head.previous.segment.to_le_bytes());
    out.extend(head.previous.offset.to_le_bytes());
    out.extend(head.previous.len.to_le_bytes());
    out.extend(head.version.to_le_bytes());
    out.extend([head.kind.code(), head.flags]);
    for length in lengths {
        out.extend(length.to_le_bytes());
    }
    out.extend([state_code(head.state), 0]);
    for name in names {
        out.extend(name.as_bytes());
    }
    let crc = out.get(start.saturating_add(8)..).map_or(0, crc32fast::hash);
    if let Some(place) = out.get_mut(start..start.saturating_add(8)) {
        place.copy_from_slice(&salt.sealed(crc));
    }
    pad(out, start);
    out.extend(body);
    pad(out, start);
    u32::try_from(out.len().saturating_sub(start)).unwrap_or(u32::MAX)
}

fn pad(out: &mut Vec<u8>, start: usize) {
    let len = out.len().saturating_sub(start);
    out.resize(start.saturating_add(len.next_multiple_of(ALIGN)), 0);
}

/// The first name that is longer than it may be, with its bytes.
pub(super) fn fits(names: &[(&'static str, &str)]) -> Result<(), (&'static str, usize)> {
    match names.iter().find(|(_, name)| name.len() > JOURNAL_NAME_BYTES) {
        Some((field, name)) => Err((field, name.len())),
        None => Ok(()),
    }
}

/// Reads the record that `bytes` begin with.
pub(super) fn read(bytes: &[u8], salt: Salt) -> Result<Record<'_>, Fault> {
    let Framed { seal, checked, body_crc, head, lengths, body_at, body_len, len } = framed(bytes)?;
    if !bytes.starts_with(&salt.mark()) || salt.sealed(crc32fast::hash(checked)) != seal {
        return Err(Fault::Head);
    }
    let mut take = Take(checked.get(FIXED.saturating_sub(8)..).ok_or(Fault::Short)?);
    let names = lengths.map(|length| take.bytes(length).and_then(text));
    let [Some(agent), Some(task), Some(context), Some(caller), Some(key)] = names else {
        return Err(Fault::Head);
    };
    let (kind, state) = (RecordKind::of(head.kind), state_of(head.state));
    let (Some(kind), Some(state)) = (kind, state) else { return Err(Fault::Head) };
    let whole = bytes.get(..len).ok_or(Fault::Cut)?;
    let body = whole.get(body_at..body_at.saturating_add(body_len)).ok_or(Fault::Cut)?;
    let head = Head {
        kind,
        flags: head.flags,
        state,
        message: head.message,
        version: head.version,
        number: head.number,
        generation: head.generation,
        at_ms: head.at_ms,
        previous: head.previous,
        agent,
        task,
        context,
        caller,
        key,
    };
    let body = (crc32fast::hash(body) == body_crc).then_some(body);
    Ok(Record { head, body, len })
}

/// The seal that `bytes` begin with if they are a record, and the checksum below it.
pub(super) fn seal(bytes: &[u8]) -> Option<([u8; 8], u32)> {
    let Framed { seal, checked, .. } = framed(bytes).ok()?;
    Some((seal, crc32fast::hash(checked)))
}

/// How long the record without salt is that `bytes` begin with, but for one flipped bit in its head. None if that
/// isn't what is wrong with it.
pub(super) fn len_but_for_a_bit(bytes: &[u8]) -> Option<usize> {
    let most = FIXED.saturating_add(JOURNAL_NAME_BYTES.saturating_mul(NAMES));
    let mut head = bytes.get(..most.min(bytes.len()))?.to_vec();
    (0..head.len()).find_map(|at| {
        (0..8).find_map(|bit| {
            let flip = |head: &mut [u8]| head.get_mut(at).map(|byte| *byte ^= 1 << bit);
            flip(&mut head)?;
            let framed = framed(&head).ok();
            let whole =
                framed.filter(|it| Salt::NONE.sealed(crc32fast::hash(it.checked)) == it.seal);
            let len = whole.map(|whole| whole.len);
            flip(&mut head)?;
            len
        })
    })
}

/// A head as its lengths divide it, whether it fits its checksum or not.
struct Framed<'a> {
    seal: [u8; 8],
    /// What the head's checksum is of.
    checked: &'a [u8],
    body_crc: u32,
    head: FixedHead,
    lengths: [usize; NAMES],
    body_at: usize,
    body_len: usize,
    /// Of the record.
    len: usize,
}

const NAMES: usize = 5;

fn framed(bytes: &[u8]) -> Result<Framed<'_>, Fault> {
    let mut take = Take(bytes.get(..FIXED).ok_or(Fault::Short)?);
    let Some(Fixed { seal, body_crc, body_len, lengths, head }) = Fixed::take(&mut take) else {
        return Err(Fault::Short);
    };
    let lengths = lengths.map(usize::from);
    let body_len = usize::try_from(body_len).unwrap_or(usize::MAX);
    if lengths.iter().any(|length| *length > JOURNAL_NAME_BYTES) || body_len > JOURNAL_RECORD_BYTES
    {
        return Err(Fault::Head);
    }
    // Each is at most a known bound, so the sums can't overflow.
    let names_len = lengths.iter().fold(0_usize, |sum, length| sum.saturating_add(*length));
    let head_len = FIXED.saturating_add(names_len);
    let body_at = head_len.next_multiple_of(ALIGN);
    let len = body_at.saturating_add(body_len).next_multiple_of(ALIGN);
    let checked = bytes.get(8..head_len).ok_or(Fault::Short)?;
    Ok(Framed { seal, checked, body_crc, head, lengths, body_at, body_len, len })
}

/// The part of a record's head that has always the same length.
struct Fixed {
    seal: [u8; 8],
    body_crc: u32,
    body_len: u32,
    lengths: [u16; NAMES],
    head: FixedHead,
}

struct FixedHead {
    kind: u8,
    flags: u8,
    state: u8,
    message: MessageId,
    version: u16,
    number: u64,
    generation: u64,
    at_ms: u64,
    previous: Position,
}

impl Fixed {
    fn take(take: &mut Take<'_>) -> Option<Self> {
        let (seal, body_crc, body_len) = (take.array()?, take.u32()?, take.u32()?);
        let message = MessageId::from(take.u64()?);
        let (number, generation, at_ms) = (take.u64()?, take.u64()?, take.u64()?);
        let previous = Position { segment: take.u32()?, offset: take.u32()?, len: take.u32()? };
        let version = take.u16()?;
        let (kind, flags) = (take.u8()?, take.u8()?);
        let lengths = [take.u16()?, take.u16()?, take.u16()?, take.u16()?, take.u16()?];
        let state = take.u8()?;
        let head =
            FixedHead { kind, flags, state, message, version, number, generation, at_ms, previous };
        Some(Self { seal, body_crc, body_len, lengths, head })
    }
}

/// The offset of the next place behind `from` where a record may begin.
pub(super) fn next_mark(bytes: &[u8], from: usize, salt: Salt) -> Option<usize> {
    let mark = salt.mark();
    let mut at = from.next_multiple_of(ALIGN);
    loop {
        if bytes.get(at..)?.starts_with(&mark) {
            return Some(at);
        }
        at = at.checked_add(ALIGN)?;
    }
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// Takes numbers and bytes from the front.
pub(super) struct Take<'a>(pub(super) &'a [u8]);

impl<'a> Take<'a> {
    pub(super) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A text behind its length.
    pub(super) fn text(&mut self) -> Option<&'a str> {
        let len = self.u16()?;
        self.bytes(usize::from(len)).and_then(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: Salt = Salt::of(*b"a salt..");

    fn head(key: &str) -> Head<'_> {
        Head {
            kind: RecordKind::Entry(EntryKind::Effect),
            flags: MORE,
            state: TaskState::Working,
            message: MessageId::of("test"),
            version: 3,
            number: 7,
            generation: 5,
            at_ms: 1_700_000_000_000,
            previous: Position { segment: 1, offset: 96, len: 128 },
            agent: "echo",
            task: "a-task",
            context: "",
            caller: "me",
            key,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut bytes = Vec::new();
        let first = write(&mut bytes, SALT, &head("charge"), b"hello");
        let second = write(&mut bytes, SALT, &head(""), &[]);
        assert_eq!(bytes.len(), (first + second) as usize);
        let record = read(&bytes, SALT).unwrap();
        assert_eq!(record.head, head("charge"));
        assert_eq!(record.body, Some(&b"hello"[..]));
        let next = read(&bytes[record.len..], SALT).unwrap();
        assert_eq!((next.head.key, next.body), ("", Some(&[][..])));
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let mut bytes = Vec::new();
        write(&mut bytes, SALT, &head("charge"), b"hello, world");
        let mut heads = 0;
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                match read(&flipped, SALT) {
                    Err(_) => heads += 1,
                    Ok(record) if record.body.is_none() => {}
                    // Nobody reads the padding.
                    Ok(record) => assert_eq!(record.head, head("charge"), "byte {at}"),
                }
            }
        }
        assert!(heads > 500, "{heads}");
    }

    #[test]
    fn every_cut_is_found() {
        let mut bytes = Vec::new();
        write(&mut bytes, SALT, &head("charge"), b"hello, world");
        for at in 0..bytes.len() {
            assert!(read(&bytes[..at], SALT).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_record_under_another_salt_is_none() {
        let mut bytes = Vec::new();
        write(&mut bytes, Salt::NONE, &head(""), b"x");
        assert!(bytes.starts_with(&RECORD_MAGIC));
        assert_eq!(read(&bytes, SALT).unwrap_err(), Fault::Head);
        assert_eq!(next_mark(&bytes, 0, SALT), None);
        // The right mark alone isn't enough.
        bytes[..4].copy_from_slice(&SALT.mark());
        assert_eq!(read(&bytes, SALT).unwrap_err(), Fault::Head);
    }

    #[test]
    fn a_head_with_one_flipped_bit_still_says_how_long_its_record_is() {
        let mut bytes = Vec::new();
        write(&mut bytes, Salt::NONE, &head("charge"), b"hello, world");
        let head_len = 76 + "echo".len() + "a-task".len() + "me".len() + "charge".len();
        for at in 0..head_len {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            assert_eq!(len_but_for_a_bit(&flipped), Some(bytes.len()), "byte {at}");
            flipped[(at + 9) % head_len] ^= 2;
            assert_eq!(len_but_for_a_bit(&flipped), None, "byte {at}");
        }
    }

    #[test]
    fn the_next_record_is_found_behind_damage() {
        let mut bytes = vec![0xAA; 40];
        write(&mut bytes, SALT, &head(""), b"x");
        assert_eq!(next_mark(&bytes, 0, SALT), Some(40));
        assert_eq!(next_mark(&bytes, 41, SALT), None);
    }

    #[test]
    fn every_state_has_its_own_number() {
        for code in 0..=u8::MAX {
            if let Some(state) = state_of(code) {
                assert_eq!(state_code(state), code);
            }
        }
    }
}
