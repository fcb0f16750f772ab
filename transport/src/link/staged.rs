//! Bytes on their way to a lane: small frames share a buffer, larger archives lie beside it.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use bytes::{BufMut, Bytes, BytesMut};
use neuroflow_kernel::RawParcel;

use super::Meters;
use crate::frame::{FrameHeader, ZEROS, padded};
use crate::limits::{COPY_BYTES, SMALL_MESSAGE_BYTES};

/// What waits to be written, in order.
#[derive(Default)]
pub(super) struct Staged {
    chunks: VecDeque<Bytes>,
    buffer: BytesMut,
    chunked: usize,
    /// Messages for streams of their own.
    pub(super) large: Vec<Large>,
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

/// Room that a buffer begins with.
const BUFFER_BYTES: usize = 4 * 1024;

impl Staged {
    pub(super) fn bytes(&self) -> usize {
        self.chunked + self.buffer.len()
    }

    /// A frame without name or archive.
    pub(super) fn push(&mut self, header: &FrameHeader) {
        self.reserve(crate::frame::HEADER_BYTES);
        self.buffer.put_slice(&header.encode());
    }

    pub(super) fn push_parcel(
        &mut self,
        mut header: FrameHeader,
        name: &str,
        parcel: RawParcel,
        meters: &Meters,
    ) {
        let bytes = parcel.as_bytes().len();
        header.name_bytes = name.len();
        meters.sent_messages.fetch_add(1, Ordering::Relaxed);
        meters.sent_bytes.fetch_add(header.frame_bytes() as u64, Ordering::Relaxed);
        if bytes > SMALL_MESSAGE_BYTES {
            let mut head = BytesMut::with_capacity(crate::frame::HEADER_BYTES + padded(name.len()));
            put(&mut head, &header, name);
            let body = Bytes::from_owner(Owner(parcel));
            self.large.push(Large { head: head.freeze(), body });
            return;
        }
        if bytes > COPY_BYTES {
            self.reserve(crate::frame::HEADER_BYTES + padded(name.len()));
            put(&mut self.buffer, &header, name);
            self.close_buffer();
            self.chunked += bytes;
            self.chunks.push_back(Bytes::from_owner(Owner(parcel)));
        } else {
            self.reserve(header.frame_bytes());
            put(&mut self.buffer, &header, name);
            self.buffer.put_slice(parcel.as_bytes());
            meters.copied_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        self.buffer.put_slice(padding(bytes));
    }

    fn reserve(&mut self, bytes: usize) {
        if self.buffer.capacity() - self.buffer.len() < bytes {
            self.buffer.reserve(bytes.max(BUFFER_BYTES));
        }
    }

    fn close_buffer(&mut self) {
        if !self.buffer.is_empty() {
            let chunk = self.buffer.split().freeze();
            self.chunked += chunk.len();
            self.chunks.push_back(chunk);
        }
    }

    /// Moves all that is to be written to the end of `writing`; says how many bytes that is.
    pub(super) fn take(&mut self, writing: &mut VecDeque<Bytes>) -> usize {
        self.close_buffer();
        writing.append(&mut self.chunks);
        std::mem::take(&mut self.chunked)
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
            staged.push_parcel(header, "echo", parcel, &meters);
            staged.push(&FrameHeader::new(Kind::Cancel, 9));
        }
        let total = staged.bytes();
        let mut writing = VecDeque::new();
        assert_eq!(staged.take(&mut writing), total);
        assert_eq!(staged.bytes(), 0);
        let copied = meters.copied_bytes.load(Ordering::Relaxed);
        assert_eq!(copied, (1 + 256 + COPY_BYTES + 7) as u64);

        let stream: Vec<u8> = writing.into_iter().flatten().collect();
        assert_eq!(stream.len(), total);
        let (mut decoder, mut rest) = (Decoder::new(SMALL_MESSAGE_BYTES), stream.as_slice());
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
        staged.push_parcel(header, "echo", parcel.clone(), &meters);
        assert_eq!(staged.bytes(), 0);
        assert_eq!(staged.large[0].body.as_ptr(), parcel.as_bytes().as_ptr());
        assert_eq!(meters.copied_bytes.load(Ordering::Relaxed), 0);
    }
}
