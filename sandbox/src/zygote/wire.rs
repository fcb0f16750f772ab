//! Little-endian reading and writing that can't panic, whatever the bytes are.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::ffi::CStr;

/// Takes values from the front of a byte string; `None` where it is too short.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.rest.split_at_checked(length)?;
        self.rest = tail;
        Some(head)
    }

    /// A string of `length` bytes, its closing NUL included, with no other NUL in it.
    pub(crate) fn string(&mut self, length: usize) -> Option<&'a CStr> {
        CStr::from_bytes_with_nul(self.bytes(length)?).ok()
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.rest.split_first_chunk::<N>()?;
        self.rest = tail;
        Some(*head)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A length on the wire is 32 bits; it always fits where we run, and where it would not it is
    /// "too short".
    pub(crate) fn length(&mut self) -> Option<usize> {
        usize::try_from(self.u32()?).ok()
    }
}

/// Fills a fixed buffer from the front. The callers' layouts fit their buffers; what would not is
/// left out.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    room: &'a mut [u8],
}

impl<'a> Writer<'a> {
    pub(crate) fn new(room: &'a mut [u8]) -> Self {
        Self { room }
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        let room = std::mem::take(&mut self.room);
        if let Some((head, tail)) = room.split_at_mut_checked(bytes.len()) {
            head.copy_from_slice(bytes);
            self.room = tail;
        }
    }
}
