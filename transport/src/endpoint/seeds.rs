//! Seeds by name: looked up by the system's resolver for as long as this node has no link.

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::stream::{FuturesUnordered, StreamExt};
use neuroflow_kernel::{Address, Header};

use super::{ClusterCommand, Shared};
use crate::limits::{MAX_SEED_ADDRESSES, SEED_DEADLINE, SEED_PAUSE};
use crate::link::connect;

/// Dials what a name stands for, again and again while there is no link.
pub(super) async fn follow(shared: Arc<Shared>, own: Address<ClusterCommand>, name: String) {
    loop {
        let is_alone = shared.peers.all().iter().all(|peer| peer.link().is_none());
        if is_alone {
            let addresses = look_up(&shared, &name).await;
            let dials = addresses.into_iter().map(|address| connect::dial(&shared, address, None));
            let mut dials: FuturesUnordered<_> = dials.collect();
            while let Some(dialled) = dials.next().await {
                if let Ok(established) = dialled {
                    let arrived = ClusterCommand::Arrived(Box::new(established));
                    if own.tell(Header::new(), arrived).await.is_err() {
                        return;
                    }
                }
            }
        }
        shared.clock.sleep(SEED_PAUSE).await;
    }
}

async fn look_up(shared: &Shared, name: &str) -> Vec<SocketAddr> {
    let at = shared.clock.now() + SEED_DEADLINE;
    let found = shared.clock.before(at, tokio::net::lookup_host(name)).await;
    // A name that isn't there yet may be later.
    let Ok(Ok(addresses)) = found else { return Vec::new() };
    addresses.take(MAX_SEED_ADDRESSES).collect()
}
