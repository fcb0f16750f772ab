//! Gossip on a link: as datagrams, and what is too large for one or has to arrive on a stream of its own.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use neuroflow_kernel::Clock;
use tokio::sync::OwnedSemaphorePermit;

use super::LinkError;
use super::peer::Link;
use super::staged::padding;
use crate::endpoint::Shared;
use crate::frame::{FrameError, FrameHeader, Kind};
use crate::identity::NodeId;
use crate::limits::{HANDSHAKE_DEADLINE, MAX_GOSSIP_BYTES, MAX_LIST_BYTES};
use crate::membership::MembershipCommand;
use crate::membership::record::{LIST, LISTS_SINCE};

/// The first protocol with gossip.
pub(crate) const GOSSIP_SINCE: u16 = 2;

/// Before what is large, and behind what callers wait for.
const PRIORITY: i32 = 0;

/// One of the messages of a link that the membership hasn't handled: until this is dropped.
#[derive(Debug)]
pub(crate) struct Place(
    #[expect(dead_code, reason = "it's there to be dropped")] OwnedSemaphorePermit,
);

/// What is left to be done of a send.
pub(crate) type Rest = BoxFuture<'static, ()>;

/// Sends a message between members. What a datagram can't carry goes on a stream, which is for the caller
/// to run. When as many streams as may be are under way it's dropped: it will be said again.
pub(crate) fn send(link: &Arc<Link>, bytes: Bytes, reliable: bool, clock: &Clock) -> Option<Rest> {
    let fits = link.connection.max_datagram_size().is_some_and(|most| bytes.len() <= most);
    if fits && !reliable {
        // An error says that the connection is over.
        let _over = link.connection.send_datagram(bytes).is_err();
        return None;
    }
    if bytes.len() > longest(link, &bytes) {
        return None;
    }
    let place = Arc::clone(&link.gossip_streams).try_acquire_owned().ok()?;
    let (link, clock) = (Arc::clone(link), clock.clone());
    Some(Box::pin(async move {
        let at = clock.now() + HANDSHAKE_DEADLINE;
        let _late = clock.before(at, on_stream(&link, bytes)).await;
        drop(place);
    }))
}

/// Bytes that this message may have on this link.
fn longest(link: &Link, bytes: &[u8]) -> usize {
    let is_list = bytes.first() == Some(&LIST);
    if is_list && link.agreed.version >= LISTS_SINCE { MAX_LIST_BYTES } else { MAX_GOSSIP_BYTES }
}

/// A message has come on a stream of its own. It's dropped if the peer sends more than is handled: it will be said
/// again. A list of revoked nodes, which may be long, is looked at here and now, so that a peer can't fill a mailbox
/// with them.
pub(crate) fn arrived(
    link: &Link,
    shared: &Shared,
    from: NodeId,
    bytes: &[u8],
) -> Result<(), FrameError> {
    if bytes.len() > longest(link, bytes) {
        return Err(FrameError::TooLarge { bytes: bytes.len() });
    }
    if let Some((&LIST, list)) = bytes.split_first() {
        shared.gossip_meters.received.fetch_add(1, Ordering::Relaxed);
        shared.hear_list(list);
    } else if let Ok(place) = Arc::clone(&link.gossip_places).try_acquire_owned() {
        let (bytes, place) = (Bytes::copy_from_slice(bytes), Place(place));
        shared.membership.tell(MembershipCommand::Received { from, bytes, place });
    }
    Ok(())
}

async fn on_stream(link: &Link, bytes: Bytes) -> Result<(), LinkError> {
    let header = FrameHeader { archive_bytes: bytes.len(), ..FrameHeader::new(Kind::Gossip, 0) };
    let mut stream = link.connection.open_uni().await?;
    let _closed = stream.set_priority(PRIORITY);
    let head = Bytes::copy_from_slice(&header.encode());
    let pad = Bytes::from_static(padding(bytes.len()));
    stream.write_all_chunks(&mut [head, bytes, pad]).await?;
    let _closed = stream.finish();
    Ok(())
}

/// Hands over the datagrams of a link until it's over: no more at a time than are handled, so that one peer's
/// never take the places of the others'. What comes meanwhile waits in the connection, and the oldest go first.
pub(crate) async fn receive(link: Arc<Link>, shared: Arc<Shared>, from: NodeId) {
    while let Ok(place) = Arc::clone(&link.gossip_places).acquire_owned().await {
        let Ok(bytes) = link.connection.read_datagram().await else { return };
        let place = Place(place);
        shared.membership.tell(MembershipCommand::Received { from, bytes, place });
    }
}
