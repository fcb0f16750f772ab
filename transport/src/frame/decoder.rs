//! Frames out of a stream of hostile bytes, whatever pieces it comes in.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use neuroflow_kernel::RawParcel;
use rkyv::util::AlignedVec;

use super::{FrameError, FrameHeader, HEADER_BYTES, padded};

/// Takes frames out of a stream of bytes, whatever pieces it comes in.
///
/// It never holds more than one frame, and grows with what has arrived: a peer that declares much
/// and sends little makes it hold little.
#[derive(Debug)]
pub(crate) struct Decoder {
    limit: usize,
    header: [u8; HEADER_BYTES],
    have: usize,
    pub(super) open: Option<Open>,
    name: Vec<u8>,
    /// Bytes of archives that were copied, also when what holds one has grown.
    copied: usize,
}

/// A frame whose header is there.
#[derive(Debug)]
pub(super) struct Open {
    header: FrameHeader,
    name_left: usize,
    name_padding: usize,
    pub(super) archive: AlignedVec,
    archive_left: usize,
    archive_padding: usize,
}

/// A whole frame; its name is at [`Decoder::name`] until the next one is taken.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) header: FrameHeader,
    pub(crate) archive: AlignedVec,
}

impl Frame {
    pub(crate) fn into_parcel(self) -> (FrameHeader, RawParcel) {
        let Self { header, archive } = self;
        let parcel = RawParcel::from_aligned(header.message, header.schema, archive);
        (header, parcel)
    }
}

impl Decoder {
    /// Refuses archives of more than `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, header: [0; HEADER_BYTES], have: 0, open: None, name: Vec::new(), copied: 0 }
    }

    /// The name of the frame that was taken last.
    pub(crate) fn name(&self) -> Result<&str, FrameError> {
        std::str::from_utf8(&self.name).map_err(FrameError::Name)
    }

    /// Bytes of archives that were copied since this was asked last.
    pub(crate) fn take_copied(&mut self) -> usize {
        std::mem::take(&mut self.copied)
    }

    /// Whether it's between two frames.
    pub(crate) fn is_idle(&self) -> bool {
        self.have == 0 && self.open.is_none()
    }

    /// The next frame, if `input` completes one; takes from `input` what it has read.
    pub(crate) fn next(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, FrameError> {
        if self.is_idle()
            && let Some(frame) = self.whole(input)?
        {
            return Ok(Some(frame));
        }
        if self.open.is_none() {
            let Some(header) = self.take_header(input) else { return Ok(None) };
            let header = self.read(&header)?;
            self.name.clear();
            let (name, archive) = (header.name_bytes, header.archive_bytes);
            let room = archive.min(input.len());
            self.open = Some(Open {
                header,
                name_left: name,
                name_padding: padded(name).saturating_sub(name),
                archive: AlignedVec::with_capacity(room),
                archive_left: archive,
                archive_padding: padded(archive).saturating_sub(archive),
            });
        }
        let Some(open) = &mut self.open else { return Ok(None) };
        self.name.extend_from_slice(take(input, &mut open.name_left));
        skip_zeros(input, &mut open.name_padding)?;
        if open.archive_left > 0 {
            let piece = take(input, &mut open.archive_left);
            let grows = open.archive.capacity().saturating_sub(open.archive.len()) < piece.len();
            let moved = if grows { open.archive.len() } else { 0 };
            self.copied = self.copied.saturating_add(piece.len()).saturating_add(moved);
            open.archive.extend_from_slice(piece);
        }
        skip_zeros(input, &mut open.archive_padding)?;
        let left = [open.name_left, open.name_padding, open.archive_left, open.archive_padding];
        if left.iter().any(|left| *left > 0) {
            return Ok(None);
        }
        Ok(self.open.take().map(|open| Frame { header: open.header, archive: open.archive }))
    }

    /// A frame that is here from its beginning to its end, as nearly every small one is: nothing is kept
    /// of it in between.
    fn whole(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, FrameError> {
        let Some((header, mut rest)) = input.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let header = self.read(header)?;
        let (mut name, mut archive) = (header.name_bytes, header.archive_bytes);
        let mut name_padding = padded(name).saturating_sub(name);
        let mut archive_padding = padded(archive).saturating_sub(archive);
        if rest.len() < padded(name).saturating_add(padded(archive)) {
            return Ok(None);
        }
        self.name.clear();
        self.name.extend_from_slice(take(&mut rest, &mut name));
        skip_zeros(&mut rest, &mut name_padding)?;
        let mut aligned = AlignedVec::with_capacity(archive);
        self.copied = self.copied.saturating_add(archive);
        aligned.extend_from_slice(take(&mut rest, &mut archive));
        skip_zeros(&mut rest, &mut archive_padding)?;
        *input = rest;
        Ok(Some(Frame { header, archive: aligned }))
    }

    fn read(&self, header: &[u8; HEADER_BYTES]) -> Result<FrameHeader, FrameError> {
        let header = FrameHeader::decode(header)?;
        if header.archive_bytes > self.limit {
            return Err(FrameError::TooLarge { bytes: header.archive_bytes });
        }
        Ok(header)
    }

    fn take_header(&mut self, input: &mut &[u8]) -> Option<[u8; HEADER_BYTES]> {
        if self.have == 0
            && let Some((header, rest)) = input.split_first_chunk::<HEADER_BYTES>()
        {
            *input = rest;
            return Some(*header);
        }
        let mut missing = HEADER_BYTES.saturating_sub(self.have);
        let piece = take(input, &mut missing);
        let end = self.have.saturating_add(piece.len());
        if let Some(place) = self.header.get_mut(self.have..end) {
            place.copy_from_slice(piece);
        }
        self.have = end;
        if missing > 0 {
            return None;
        }
        self.have = 0;
        Some(self.header)
    }
}

/// Takes up to `left` bytes from `input`, and counts them off.
fn take<'a>(input: &mut &'a [u8], left: &mut usize) -> &'a [u8] {
    let count = input.len().min(*left);
    let (piece, rest) = input.split_at(count);
    *input = rest;
    *left = left.saturating_sub(count);
    piece
}

fn skip_zeros(input: &mut &[u8], left: &mut usize) -> Result<(), FrameError> {
    let zeros = take(input, left).iter().all(|byte| *byte == 0);
    zeros.then_some(()).ok_or(FrameError::Reserved)
}
