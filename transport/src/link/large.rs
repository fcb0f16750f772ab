//! Messages on streams of their own: one frame per stream, written and read without a shared buffer.

use std::sync::Arc;

use bytes::Bytes;
use neuroflow_kernel::RawParcel;
use quinn::{Connection, RecvStream};
use rkyv::util::AlignedVec;
use tokio::sync::Semaphore;

use super::staged::{Large, padding};
use super::{LinkError, Meters, UnderWay};
use crate::frame::{FrameError, FrameHeader, HEADER_BYTES, Kind, padded};
use crate::limits::{LARGE_KIB, MAX_LIST_BYTES, READ_CHUNK_BYTES};
use crate::session::Violation;

/// A large message that has arrived.
pub(crate) struct Received {
    pub(crate) header: FrameHeader,
    pub(crate) name: String,
    pub(crate) parcel: RawParcel,
    /// It's on its way until it's looked at.
    pub(crate) _under_way: UnderWay,
}

/// Behind all lanes: what is large can wait.
const PRIORITY: i32 = -1;

/// Sends one, once there is room for it among `streams`.
pub(super) async fn send(
    connection: Connection,
    large: Large,
    streams: Arc<Semaphore>,
    meters: Arc<Meters>,
) -> Result<(), LinkError> {
    // The semaphore is never closed.
    let _room = streams.acquire().await;
    let mut stream = connection.open_uni().await?;
    let _under_way = UnderWay::new(&meters);
    // An error says that the stream is closed, and then the write says so too.
    let _closed = stream.set_priority(PRIORITY);
    let pad = Bytes::from_static(padding(large.body.len()));
    stream.write_all_chunks(&mut [large.head, large.body, pad]).await?;
    let _closed = stream.finish();
    // What is written may wait here for long, and its stream is the peer's until all has arrived.
    let _arrived = stream.stopped().await;
    Ok(())
}

/// Reads one. `room` bounds what all of a link hold while they are read.
pub(crate) async fn receive(
    mut stream: RecvStream,
    lanes: u8,
    room: &Semaphore,
    meters: &Arc<Meters>,
) -> Result<Received, LinkError> {
    let mut under_way = UnderWay::new(meters);
    let mut header = [0; HEADER_BYTES];
    exactly(&mut stream, &mut header).await?;
    let header = FrameHeader::decode(&header)?;
    if !matches!(header.kind, Kind::Request | Kind::Notice | Kind::Reply | Kind::Gossip) {
        return Err(FrameError::Misplaced { kind: header.kind as u8 }.into());
    }
    if header.kind == Kind::Gossip && header.archive_bytes > MAX_LIST_BYTES {
        return Err(FrameError::TooLarge { bytes: header.archive_bytes }.into());
    }
    if header.lane >= lanes {
        return Err(Violation::Lane.into());
    }
    let mut name = vec![0; padded(header.name_bytes)];
    exactly(&mut stream, &mut name).await?;
    let padding = name.split_off(header.name_bytes);
    if padding.iter().any(|byte| *byte != 0) {
        return Err(FrameError::Reserved.into());
    }
    let name = String::from_utf8(name).map_err(|error| FrameError::Name(error.utf8_error()))?;
    let kib = u32::try_from(header.archive_bytes.div_ceil(1024)).unwrap_or(LARGE_KIB);
    // The semaphore is never closed.
    let _room = room.acquire_many(kib.min(LARGE_KIB)).await;
    under_way.holds(header.archive_bytes);
    let mut archive = AlignedVec::with_capacity(header.archive_bytes);
    let mut left = header.archive_bytes;
    let mut pad = padded(left) - left;
    while left + pad > 0 {
        let limit = READ_CHUNK_BYTES.min(left + pad);
        let Some(chunk) = stream.read_chunk(limit, true).await? else {
            return Err(FrameError::Truncated.into());
        };
        let (body, rest) = chunk.bytes.split_at(chunk.bytes.len().min(left));
        archive.extend_from_slice(body);
        left -= body.len();
        pad -= rest.len();
        if rest.iter().any(|byte| *byte != 0) {
            return Err(FrameError::Reserved.into());
        }
    }
    let parcel = RawParcel::from_aligned(header.message, header.schema, archive);
    Ok(Received { header, name, parcel, _under_way: under_way })
}

async fn exactly(stream: &mut RecvStream, bytes: &mut [u8]) -> Result<(), LinkError> {
    stream.read_exact(bytes).await.map_err(|error| match error {
        quinn::ReadExactError::FinishedEarly(_) => FrameError::Truncated.into(),
        quinn::ReadExactError::ReadError(error) => LinkError::from(error),
    })
}
