//! Who knocks at the port and hasn't proved yet who it is: let in so many at a time, and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use futures_util::stream::{FuturesUnordered, StreamExt};
use neuroflow_kernel::{Address, Header};

use super::{ClusterCommand, Links, Shared};
use crate::join::Door;
use crate::limits::MAX_HANDSHAKES;
use crate::link::connect;

/// What those cost who knock at a node's port, as long as they haven't proved who they are.
///
/// ```
/// fn is_flooded(links: &neuroflow_transport::Links) -> bool {
///     links.strangers().retried > 0
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StrangerStatus {
    /// Connections that the port has a state of, those of links included.
    pub connections: usize,
    /// Handshakes that go on.
    pub handshakes: usize,
    /// The most that ever went on at once; [`MAX_HANDSHAKES`] are allowed.
    pub most_handshakes: usize,
    /// Those who knocked and didn't become a peer: not of the cluster, shut out, silent, or not needed.
    pub failed: u64,
    /// Those who were told to prove first that they are where they say, because many knocked.
    pub retried: u64,
    /// Those who weren't answered, because even more did.
    pub ignored: u64,
}

/// The counters behind it.
#[derive(Debug, Default)]
pub(crate) struct StrangerMeters {
    handshakes: AtomicUsize,
    most: AtomicUsize,
    failed: AtomicU64,
    retried: AtomicU64,
    ignored: AtomicU64,
}

impl StrangerMeters {
    fn go_on(&self, handshakes: usize) {
        self.handshakes.store(handshakes, Ordering::Relaxed);
        self.most.fetch_max(handshakes, Ordering::Relaxed);
    }
}

impl Links {
    /// What strangers cost this node now, and have cost it.
    pub fn strangers(&self) -> StrangerStatus {
        let meters = &self.shared.strangers;
        let connections = self.shared.endpoint().map(|endpoint| endpoint.open_connections());
        StrangerStatus {
            connections: connections.unwrap_or_default(),
            handshakes: meters.handshakes.load(Ordering::Relaxed),
            most_handshakes: meters.most.load(Ordering::Relaxed),
            failed: meters.failed.load(Ordering::Relaxed),
            retried: meters.retried.load(Ordering::Relaxed),
            ignored: meters.ignored.load(Ordering::Relaxed),
        }
    }
}

/// The door for strangers, and how the node answers while that is open.
pub(super) type Doorway = (Arc<Door>, Arc<quinn::ServerConfig>);

/// Lets peers in, so many at a time.
pub(super) async fn accept(
    shared: Arc<Shared>,
    endpoint: quinn::Endpoint,
    doorway: Option<Doorway>,
    own: Address<ClusterCommand>,
) {
    let meters = &shared.strangers;
    let mut shaking = FuturesUnordered::new();
    loop {
        meters.go_on(shaking.len());
        tokio::select! {
            incoming = endpoint.accept() => match incoming {
                // When many shake hands, only those who are where they say: a datagram's sender can
                // be made up, and would hold a place until the deadline.
                Some(incoming)
                    if shaking.len() >= MAX_HANDSHAKES / 2
                        && !incoming.remote_address_validated()
                        && incoming.may_retry() =>
                {
                    meters.retried.fetch_add(1, Ordering::Relaxed);
                    // Not retried, it's ignored: either way it's for the peer to come again.
                    let _ignored = incoming.retry().is_err();
                }
                Some(incoming) if shaking.len() < MAX_HANDSHAKES => {
                    // While nobody is invited, joining is a word like any other that isn't known here.
                    let is_leaving = shared.leaving.load(Ordering::SeqCst);
                    let open = doorway.as_ref().filter(|(door, _)| door.is_open() && !is_leaving);
                    let server = open.map(|(_, server)| Arc::clone(server));
                    shaking.push(connect::accept(&shared, incoming, server));
                }
                Some(incoming) => {
                    meters.ignored.fetch_add(1, Ordering::Relaxed);
                    incoming.ignore();
                }
                None => return,
            },
            Some(shaken) = shaking.next() => match shaken {
                Ok(established) => {
                    let arrived = ClusterCommand::Arrived(Box::new(established));
                    let _ended = own.tell(Header::new(), arrived).await.is_err();
                }
                Err(_stranger) => {
                    meters.failed.fetch_add(1, Ordering::Relaxed);
                }
            },
        }
    }
}
