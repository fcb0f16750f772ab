//! Bytes on their way to a lane: small frames share a buffer, larger archives lie beside it.

use std::sync::atomic::Ordering;

use bytes::{BufMut, Bytes, BytesMut};
use neuroflow_kernel::RawParcel;

use super::Meters;
use crate::frame::{FrameHeader, ZEROS, padded};
use crate::limits::{COPY_BYTES, SMALL_MESSAGE_BYTES};
use crate::session::order::{Order, Piece};

/// What waits to be written, in order, and what overtakes it.
#[derive(Default)]
pub(super) struct Staged {
    urgent: BytesMut,
    chunks: Vec<Piece<Bytes>>,
    buffer: BytesMut,
    chunked: usize,
    /// What the next buffer has room for: more while they fill up.
    room: usize,
    /// Messages that begin in `buffer`.
    begun: u64,
    counts: Counts,
    /// Messages for streams of their own.
    pub(super) large: Vec<Large>,
}

/// What was staged and isn't in the link's meters yet: one message's part in them would cost as much as
/// its frame.
#[derive(Default)]
struct Counts {
    messages: u64,
    bytes: u64,
    copied: u64,
}

/// A message that gets a stream of its own.
pub(super) struct Large {
    pub(super) head: Bytes,
    pub(super) body: Bytes,
}

/// A parcel as the owner of bytes that are written as they are.
struct Owner(RawParcel);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// Room of a buffer, and of one in a burst. A full one is left to what writes it, and another one begun:
/// to make it larger would be to copy it, and what is urgent goes between two.
const BUFFER_BYTES: usize = 4 * 1024;
const BURST_BYTES: usize = 32 * 1024;

impl Staged {
    pub(super) fn bytes(&self) -> usize {
        self.urgent.len() + self.chunked + self.buffer.len()
    }

    /// A frame without name or archive.
    pub(super) fn push(&mut self, header: &FrameHeader) {
        self.reserve(crate::frame::HEADER_BYTES);
        self.buffer.put_slice(&header.encode());
    }

    /// The same, ahead of all messages.
    pub(super) fn push_urgent(&mut self, header: &FrameHeader) {
        self.urgent.put_slice(&header.encode());
    }

    /// A frame with a name and no archive, ahead of all messages.
    pub(super) fn push_urgent_named(&mut self, mut header: FrameHeader, name: &str) {
        header.name_bytes = name.len();
        put(&mut self.urgent, &header, name);
    }

    /// A small message that goes ahead of all others.
    pub(super) fn push_urgent_parcel(
        &mut self,
        mut header: FrameHeader,
        name: &str,
        parcel: &RawParcel,
    ) {
        let bytes = parcel.as_bytes();
        header.name_bytes = name.len();
        self.count(&header, bytes.len());
        put(&mut self.urgent, &header, name);
        self.urgent.put_slice(bytes);
        self.urgent.put_slice(padding(bytes.len()));
    }

    pub(super) fn push_parcel(&mut self, mut header: FrameHeader, name: &str, parcel: RawParcel) {
        let bytes = parcel.as_bytes().len();
        header.name_bytes = name.len();
        self.count(&header, if bytes > COPY_BYTES { 0 } else { bytes });
        if bytes > SMALL_MESSAGE_BYTES {
            let mut head = BytesMut::with_capacity(crate::frame::HEADER_BYTES + padded(name.len()));
            put(&mut head, &header, name);
            let body = Bytes::from_owner(Owner(parcel));
            self.large.push(Large { head: head.freeze(), body });
            return;
        }
        // Counted behind the room for it, which may be another buffer's.
        if bytes > COPY_BYTES {
            self.reserve(crate::frame::HEADER_BYTES + padded(name.len()));
            self.begun += 1;
            put(&mut self.buffer, &header, name);
            self.close_buffer(false);
            let pad = Bytes::from_static(padding(bytes));
            self.chunked += bytes + pad.len();
            let body = Bytes::from_owner(Owner(parcel));
            self.chunks.push(Piece { bytes: body, requests: 0, whole: pad.is_empty() });
            if !pad.is_empty() {
                self.chunks.push(Piece { bytes: pad, requests: 0, whole: true });
            }
        } else {
            self.reserve(header.frame_bytes());
            self.begun += 1;
            put(&mut self.buffer, &header, name);
            self.buffer.put_slice(parcel.as_bytes());
            self.buffer.put_slice(padding(bytes));
        }
    }

    fn count(&mut self, header: &FrameHeader, copied: usize) {
        self.counts.messages += 1;
        self.counts.bytes += header.frame_bytes() as u64;
        self.counts.copied += copied as u64;
    }

    /// Room for a frame, or the part of one that comes here.
    fn reserve(&mut self, bytes: usize) {
        if self.buffer.capacity() - self.buffer.len() >= bytes {
            return;
        }
        if !self.buffer.is_empty() {
            self.close_buffer(true);
            self.room = (2 * self.room).clamp(2 * BUFFER_BYTES, BURST_BYTES);
        }
        self.buffer = BytesMut::with_capacity(self.room.max(BUFFER_BYTES).max(bytes));
    }

    /// Ends the shared buffer; `whole` says that a frame ends there too.
    fn close_buffer(&mut self, whole: bool) {
        if !self.buffer.is_empty() {
            let bytes = self.buffer.split().freeze();
            self.chunked += bytes.len();
            let requests = std::mem::take(&mut self.begun);
            self.chunks.push(Piece { bytes, requests, whole });
        }
    }

    /// Moves all that is to be written to the end of `order`; says how many bytes that is. Messages are
    /// counted there if they are `requests`.
    pub(super) fn take(
        &mut self,
        order: &mut Order<Bytes>,
        requests: bool,
        meters: &Meters,
    ) -> usize {
        if self.counts.messages > 0 {
            let Counts { messages, bytes, copied } = std::mem::take(&mut self.counts);
            meters.sent_messages.fetch_add(messages, Ordering::Relaxed);
            meters.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
            meters.copied_bytes.fetch_add(copied, Ordering::Relaxed);
        }
        self.room = if self.chunks.is_empty() { BUFFER_BYTES } else { self.room };
        self.close_buffer(true);
        let urgent = self.urgent.len();
        if urgent > 0 {
            order.push_urgent(self.urgent.split().freeze());
        }
        for mut piece in self.chunks.drain(..) {
            if !requests {
                piece.requests = 0;
            }
            order.push(piece);
        }
        urgent + std::mem::take(&mut self.chunked)
    }
}

fn put(buffer: &mut BytesMut, header: &FrameHeader, name: &str) {
    buffer.put_slice(&header.encode());
    if !name.is_empty() {
        buffer.put_slice(name.as_bytes());
        buffer.put_slice(padding(name.len()));
    }
}

/// The zeros that follow so many bytes.
pub(super) fn padding(bytes: usize) -> &'static [u8] {
    ZEROS.get(..padded(bytes).saturating_sub(bytes)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use neuroflow_kernel::MessageId;

    use super::*;
    use crate::frame::{Decoder, Kind};

    #[test]
    fn frames_of_all_sizes_come_out_in_order_and_large_archives_are_not_copied() {
        let (mut staged, meters) = (Staged::default(), Meters::default());
        let sizes = [0, 1, 256, COPY_BYTES, COPY_BYTES + 1, SMALL_MESSAGE_BYTES, 7];
        for size in sizes {
            let bytes = vec![u8::try_from(size % 251).unwrap(); size];
            let parcel = RawParcel::new(MessageId::of("test"), 1, &bytes);
            let header = FrameHeader::of_parcel(Kind::Request, size as u64, &parcel);
            staged.push_parcel(header, "echo", parcel);
            staged.push(&FrameHeader::new(Kind::Cancel, 9));
        }
        staged.push_urgent(&FrameHeader::new(Kind::Credit, 3));
        let total = staged.bytes();
        let (mut order, mut writing) = (Order::new(), VecDeque::new());
        assert_eq!(staged.take(&mut order, true, &meters), total);
        assert_eq!(staged.bytes(), 0);
        order.next(&mut writing);
        assert_eq!(order.requests(), sizes.len() as u64);
        let copied = meters.copied_bytes.load(Ordering::Relaxed);
        assert_eq!(copied, (1 + 256 + COPY_BYTES + 7) as u64);

        let stream: Vec<u8> = writing.into_iter().flatten().collect();
        assert_eq!(stream.len(), total);
        let (mut decoder, mut rest) = (Decoder::new(SMALL_MESSAGE_BYTES), stream.as_slice());
        assert_eq!(decoder.next(&mut rest).unwrap().unwrap().header.kind, Kind::Credit);
        for size in sizes {
            let frame = decoder.next(&mut rest).unwrap().unwrap();
            assert_eq!((frame.header.id, frame.archive.len()), (size as u64, size));
            assert_eq!(decoder.name(), Ok("echo"));
            assert_eq!(decoder.next(&mut rest).unwrap().unwrap().header.kind, Kind::Cancel);
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn a_large_message_is_kept_apart_and_shares_its_bytes() {
        let (mut staged, meters) = (Staged::default(), Meters::default());
        let bytes = vec![7; SMALL_MESSAGE_BYTES + 1];
        let parcel = RawParcel::new(MessageId::of("test"), 1, &bytes);
        let header = FrameHeader::of_parcel(Kind::Request, 1, &parcel);
        staged.push_parcel(header, "echo", parcel.clone());
        assert_eq!(staged.take(&mut Order::new(), true, &meters), 0);
        assert_eq!(staged.large[0].body.as_ptr(), parcel.as_bytes().as_ptr());
        assert_eq!(meters.copied_bytes.load(Ordering::Relaxed), 0);
        assert_eq!(meters.sent_messages.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_burst_is_in_pieces_of_whole_frames_and_what_was_staged_is_never_moved() {
        let (mut staged, meters) = (Staged::default(), Meters::default());
        let parcel = RawParcel::new(MessageId::of("test"), 1, &[7; 300]);
        let header = FrameHeader::of_parcel(Kind::Notice, 0, &parcel);
        let frame = FrameHeader { name_bytes: 4, ..header.clone() }.frame_bytes();
        for _ in 0..1_000 {
            staged.push_parcel(header.clone(), "echo", parcel.clone());
        }
        let (mut order, mut writing) = (Order::new(), VecDeque::new());
        assert_eq!(staged.take(&mut order, true, &meters), 1_000 * frame);
        let (mut messages, mut pieces) = (0, 0);
        while messages < 1_000 {
            order.next(&mut writing);
            for bytes in writing.drain(..) {
                assert!(bytes.len() % frame == 0 && bytes.len() <= BURST_BYTES);
                messages += bytes.len() / frame;
                pieces += 1;
            }
            assert_eq!(order.requests(), messages as u64);
        }
        assert!(pieces < 20, "{pieces}");
        assert_eq!(meters.sent_bytes.load(Ordering::Relaxed), 1_000 * frame as u64);
        // A lone message afterwards begins anew with little.
        staged.push_parcel(header.clone(), "echo", parcel.clone());
        staged.take(&mut order, true, &meters);
        for _ in 0..100 {
            staged.push_parcel(header.clone(), "echo", parcel.clone());
            assert!(staged.buffer.capacity() <= BURST_BYTES);
            staged.take(&mut order, true, &meters);
        }
        assert!(staged.buffer.capacity() <= BUFFER_BYTES);
    }
}
