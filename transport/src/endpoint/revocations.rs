//! The file of revoked nodes while the node runs: looked at again and again, and written when others know more.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Shared;
use crate::identity::Kept;
use crate::limits::REVOCATIONS_PAUSE;
use crate::observer::ClusterEvent;

/// Keeps the file and what is known the same, the newer one in both.
pub(super) async fn follow(shared: Arc<Shared>) {
    let Some(kept) = &shared.kept else { return };
    let mut refused = false;
    loop {
        let looked = look(kept, &shared).await;
        let was_refused = std::mem::replace(&mut refused, looked.is_none());
        match looked {
            Some(nodes) if nodes.is_empty() => {}
            Some(nodes) => shared.list_taken(&nodes),
            None => {
                shared.gossip_meters.list_failures.fetch_add(1, Ordering::Relaxed);
                if !was_refused {
                    shared.told.decided(ClusterEvent::ListRefused);
                }
            }
        }
        let at = shared.clock.now() + REVOCATIONS_PAUSE;
        let _pause_is_over = shared.clock.before(at, kept.changed.notified()).await.is_err();
    }
}

/// The nodes that the file newly names; nothing if it can't be read or written, or isn't a list.
async fn look(kept: &Kept, shared: &Shared) -> Option<Vec<crate::identity::NodeId>> {
    let (file, trust) = (kept.file.clone(), shared.trust.clone());
    // A disk may take its time.
    tokio::task::spawn_blocking(move || file.reconcile(&trust)).await.ok()?.ok()
}
