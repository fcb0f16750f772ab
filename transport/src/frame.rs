//! Frames: a fixed header in little-endian, a name, an archive. No I/O; the bytes are hostile.
//!
//! Name and archive are padded with zeros to multiples of 16, so that an archive whose frame lies at
//! a multiple of 16 is aligned as well. `docs/PROTOCOL.md` has the layout.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod decoder;

use std::time::Duration;

pub(crate) use self::decoder::Decoder;
use crate::keyed::CallKey;
use crate::limits::MAX_MESSAGE_BYTES;
use neuroflow_kernel::{MessageId, RawParcel, TraceContext, limits::MAX_NAME_BYTES};

/// Bytes of a header.
pub(crate) const HEADER_BYTES: usize = 112;

const MAGIC: [u8; 4] = *b"NFLK";
const VERSION: u8 = 1;
const ALIGNMENT: usize = 16;
const NO_DEADLINE: u64 = u64::MAX;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The first frame of each side.
    Hello = 1,
    /// A message that is answered.
    Request = 2,
    /// A message that isn't.
    Notice = 3,
    /// One reply.
    Reply = 4,
    /// The end of the replies, good or early.
    End = 5,
    /// The caller has gone.
    Cancel = 6,
    /// How many requests and notices may have been sent since the lane began.
    Credit = 7,
    /// How many replies to a request may have been sent since it began.
    ReplyCredit = 8,
    /// Opens a lane.
    Lane = 9,
    /// The sender takes no new requests.
    Drain = 10,
    /// A message between members that a datagram can't carry.
    Gossip = 11,
    /// The answer to [`Drain`](Self::Drain): the sender has no calls on this lane that wait, and makes no more.
    Drained = 12,
    /// The actor of this name has no room for what has come already: nothing more is to be sent to it.
    Hold = 13,
    /// The actor of this name has room again.
    Resume = 14,
}

impl Kind {
    pub(crate) const ALL: [Self; 14] = [
        Self::Hello,
        Self::Request,
        Self::Notice,
        Self::Reply,
        Self::End,
        Self::Cancel,
        Self::Credit,
        Self::ReplyCredit,
        Self::Lane,
        Self::Drain,
        Self::Gossip,
        Self::Drained,
        Self::Hold,
        Self::Resume,
    ];

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }

    /// Whether its name is an actor's.
    pub(crate) fn is_for_an_actor(self) -> bool {
        matches!(self, Self::Request | Self::Notice | Self::Hold | Self::Resume)
    }

    fn has_archive(self) -> bool {
        matches!(self, Self::Request | Self::Notice | Self::Reply | Self::Gossip)
    }

    fn has_name(self) -> bool {
        matches!(self, Self::Hello | Self::Request | Self::Notice | Self::Hold | Self::Resume)
    }
}

/// A frame's header. Which fields mean something depends on the kind; the others are zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) kind: Kind,
    /// It's the last reply, and the end in good order.
    pub(crate) last: bool,
    pub(crate) archive_bytes: usize,
    pub(crate) name_bytes: usize,
    pub(crate) schema: u16,
    pub(crate) id: u64,
    pub(crate) message: MessageId,
    pub(crate) remaining: Option<Duration>,
    pub(crate) budget: u64,
    pub(crate) trace: TraceContext,
    pub(crate) hops: u8,
    pub(crate) lane: u8,
    pub(crate) sequence: u32,
    /// Of a request that runs once.
    pub(crate) key: CallKey,
    pub(crate) generation: u32,
    pub(crate) code: u8,
}

impl FrameHeader {
    pub(crate) fn new(kind: Kind, id: u64) -> Self {
        Self {
            kind,
            last: false,
            archive_bytes: 0,
            name_bytes: 0,
            schema: 0,
            id,
            message: MessageId::from(0),
            remaining: None,
            budget: 0,
            trace: TraceContext::NONE,
            hops: 0,
            lane: 0,
            sequence: 0,
            key: CallKey::NONE,
            generation: 0,
            code: 0,
        }
    }

    /// For what carries a parcel.
    pub(crate) fn of_parcel(kind: Kind, id: u64, parcel: &RawParcel) -> Self {
        Self {
            archive_bytes: parcel.as_bytes().len(),
            schema: parcel.version(),
            message: parcel.message(),
            ..Self::new(kind, id)
        }
    }

    /// Bytes of the whole frame.
    pub(crate) fn frame_bytes(&self) -> usize {
        HEADER_BYTES
            .saturating_add(padded(self.name_bytes))
            .saturating_add(padded(self.archive_bytes))
    }

    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let remaining = self.remaining.map_or(NO_DEADLINE, |remaining| {
            u64::try_from(remaining.as_micros()).unwrap_or(NO_DEADLINE).min(LONGEST_MICROS)
        });
        let flags = u16::from(self.last);
        let mut bytes = [0; HEADER_BYTES];
        let mut rest = bytes.as_mut_slice();
        let mut put = |field: &[u8]| {
            if let Some((place, after)) =
                std::mem::take(&mut rest).split_at_mut_checked(field.len())
            {
                place.copy_from_slice(field);
                rest = after;
            }
        };
        put(&MAGIC);
        put(&[VERSION, self.kind as u8]);
        put(&flags.to_le_bytes());
        put(&u32::try_from(self.archive_bytes).unwrap_or(u32::MAX).to_le_bytes());
        put(&u16::try_from(self.name_bytes).unwrap_or(u16::MAX).to_le_bytes());
        put(&self.schema.to_le_bytes());
        put(&self.id.to_le_bytes());
        put(&self.message.get().to_le_bytes());
        put(&remaining.to_le_bytes());
        put(&self.budget.to_le_bytes());
        put(&self.trace.to_bytes());
        put(&[self.hops, self.lane]);
        put(&self.sequence.to_le_bytes());
        put(&self.key.bytes());
        put(&self.generation.to_le_bytes());
        put(&[self.code]);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, FrameError> {
        let mut fields = Fields(bytes);
        if fields.take::<4>() != MAGIC {
            return Err(FrameError::Magic);
        }
        let [version, kind] = fields.take();
        if version != VERSION {
            return Err(FrameError::Version { found: version });
        }
        let kind = Kind::from_number(kind).ok_or(FrameError::Kind { found: kind })?;
        let flags = u16::from_le_bytes(fields.take());
        let archive_bytes = u32::from_le_bytes(fields.take()) as usize;
        let name_bytes = usize::from(u16::from_le_bytes(fields.take()));
        let schema = u16::from_le_bytes(fields.take());
        let id = u64::from_le_bytes(fields.take());
        let message = MessageId::from(u64::from_le_bytes(fields.take()));
        let remaining = u64::from_le_bytes(fields.take());
        let budget = u64::from_le_bytes(fields.take());
        let trace = TraceContext::from_bytes(fields.take());
        let [hops, lane] = fields.take();
        let sequence = u32::from_le_bytes(fields.take());
        let key: [u8; 16] = fields.take();
        let keyed = key != CallKey::NONE.bytes();
        let generation = u32::from_le_bytes(fields.take());
        let [code] = fields.take();
        let misplaced = keyed && kind != Kind::Request;
        if flags > 1 || misplaced || fields.0.iter().any(|byte| *byte != 0) {
            return Err(FrameError::Reserved);
        }
        if archive_bytes > MAX_MESSAGE_BYTES {
            return Err(FrameError::TooLarge { bytes: archive_bytes });
        }
        if name_bytes > MAX_NAME_BYTES {
            return Err(FrameError::NameTooLong { bytes: name_bytes });
        }
        if archive_bytes > 0 && !kind.has_archive() || name_bytes > 0 && !kind.has_name() {
            return Err(FrameError::Body { kind: kind as u8 });
        }
        Ok(Self {
            kind,
            last: flags & 1 != 0,
            archive_bytes,
            name_bytes,
            schema,
            id,
            message,
            remaining: (remaining != NO_DEADLINE).then(|| Duration::from_micros(remaining)),
            budget,
            trace,
            hops,
            lane,
            sequence,
            key: if keyed { CallKey::from_bytes(key) } else { CallKey::NONE },
            generation,
            code,
        })
    }
}

/// The longest remaining time that a header can say.
const LONGEST_MICROS: u64 = NO_DEADLINE - 1;

/// `bytes` rounded up to the alignment of archives.
pub(crate) fn padded(bytes: usize) -> usize {
    bytes.checked_next_multiple_of(ALIGNMENT).unwrap_or(usize::MAX)
}

/// As many zeros as may follow a name or an archive.
pub(crate) const ZEROS: [u8; ALIGNMENT] = [0; ALIGNMENT];

/// Reads fields one after another; what isn't there is zero, and an array's length is known.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk() {
            Some((field, rest)) => {
                self.0 = rest;
                *field
            }
            None => [0; N],
        }
    }
}

/// Why bytes aren't a frame. Whoever sends such bytes loses its link.
///
/// ```
/// use neuroflow_transport::FrameError;
/// assert_eq!(FrameError::Kind { found: 99 }.to_string(), "there is no kind of frame 99");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// It doesn't begin as a frame does.
    #[error("the bytes don't begin as a frame does")]
    Magic,
    /// Another version of the layout.
    #[error("a frame of version {found}; this build knows version {VERSION}")]
    Version {
        /// The frame's.
        found: u8,
    },
    /// No such kind.
    #[error("there is no kind of frame {found}")]
    Kind {
        /// The frame's.
        found: u8,
    },
    /// Bytes that must be zero aren't.
    #[error("reserved bytes of a frame aren't zero")]
    Reserved,
    /// More than a message may have.
    #[error("a frame declares {bytes} bytes; {MAX_MESSAGE_BYTES} are allowed at most")]
    TooLarge {
        /// As declared.
        bytes: usize,
    },
    /// More than a name may have.
    #[error("a frame declares a name of {bytes} bytes; {MAX_NAME_BYTES} are allowed")]
    NameTooLong {
        /// As declared.
        bytes: usize,
    },
    /// A kind that has no name or no archive declares one.
    #[error("a frame of kind {kind} has a body that its kind doesn't have")]
    Body {
        /// The kind.
        kind: u8,
    },
    /// The name isn't a text.
    #[error("a frame's name isn't UTF-8")]
    Name(#[source] std::str::Utf8Error),
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame")]
    Truncated,
    /// A kind that has no business on this stream.
    #[error("a frame of kind {kind} where there may be none")]
    Misplaced {
        /// The kind.
        kind: u8,
    },
}

/// Reads a stream of frames in pieces; for the fuzzer.
///
/// ```sh
/// cargo +nightly fuzz run link_frames
/// ```
///
/// # Panics
/// When a frame that was read isn't written the same way.
#[cfg(any(test, fuzzing))]
pub fn fuzz(bytes: &[u8]) {
    let Some((piece, stream)) = bytes.split_first() else { return };
    let mut decoder = Decoder::new(MAX_MESSAGE_BYTES);
    for piece in stream.chunks(usize::from(*piece).max(1)) {
        let mut input = piece;
        loop {
            match decoder.next(&mut input) {
                Ok(Some(frame)) => {
                    let again = FrameHeader::decode(&frame.header.encode());
                    assert_eq!(again.as_ref(), Ok(&frame.header));
                    assert_eq!(frame.archive.len(), frame.header.archive_bytes);
                }
                Ok(None) => break,
                Err(_refused) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests;
