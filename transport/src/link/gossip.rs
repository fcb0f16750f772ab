//! Gossip on a link: as datagrams, and what is too large for one or has to arrive on a stream of its own.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use neuroflow_kernel::Clock;

use super::LinkError;
use super::peer::Link;
use super::staged::padding;
use crate::endpoint::Shared;
use crate::frame::{FrameHeader, Kind};
use crate::identity::NodeId;
use crate::limits::{HANDSHAKE_DEADLINE, MAX_GOSSIP_BYTES};
use crate::membership::MembershipCommand;

/// The first protocol with gossip.
pub(crate) const GOSSIP_SINCE: u16 = 2;

/// Before what is large, and behind what callers wait for.
const PRIORITY: i32 = 0;

/// What is left to be done of a send.
pub(crate) type Rest = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Sends a message between members. What a datagram can't carry goes on a stream, which is for the caller
/// to run. When as many streams as may be are under way it's dropped: it will be said again.
pub(crate) fn send(link: &Arc<Link>, bytes: Bytes, reliable: bool, clock: &Clock) -> Option<Rest> {
    let fits = link.connection.max_datagram_size().is_some_and(|most| bytes.len() <= most);
    if fits && !reliable {
        // An error says that the connection is over.
        let _over = link.connection.send_datagram(bytes).is_err();
        return None;
    }
    if bytes.len() > MAX_GOSSIP_BYTES {
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

/// Hands over the datagrams of a link until it's over.
pub(crate) async fn receive(link: Arc<Link>, shared: Arc<Shared>, from: NodeId) {
    while let Ok(bytes) = link.connection.read_datagram().await {
        shared.membership.tell(MembershipCommand::Received { from, bytes });
    }
}
