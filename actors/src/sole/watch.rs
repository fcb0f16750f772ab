//! Watching the instance of a singleton, wherever in the cluster it lives.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use neuroflow_kernel::{Address, Clock, Down, Fall, Header};

use super::server::Way;
use super::{Shard, SoleCommand};
use crate::agent::AgentCommand;
use crate::limits::{SOLE_LOOK, SOLE_PAUSE};

/// Waits for the end of a singleton's instance.
///
/// ```
/// use neuroflow_actors::SoleWatch;
/// use neuroflow_kernel::{Clock, Fall};
/// async fn was_lost(watch: &SoleWatch, clock: Clock) -> bool {
///     watch.down(clock).await.fall == Fall::Lost
/// }
/// ```
#[derive(Clone)]
pub struct SoleWatch {
    way: Arc<Way>,
    router: Address<SoleCommand>,
}

impl fmt::Debug for SoleWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SoleWatch").field("agent", &self.way.name).finish_non_exhaustive()
    }
}

impl SoleWatch {
    pub(super) fn new(way: Arc<Way>, router: Address<SoleCommand>) -> Self {
        Self { way, router }
    }

    /// Waits until the instance that lives now has ended, here or on another node, and says how. That nobody
    /// has it is [`Fall::Absent`]; [`Fall::Lost`], that its node or the way there was lost, or that the leases
    /// can't be asked who has it.
    pub fn down(&self, clock: Clock) -> impl Future<Output = Down> + Send + use<> {
        let own = self.clone();
        async move { own.watch(&clock).await }
    }

    async fn watch(&self, clock: &Clock) -> Down {
        let (way, nothing) = (&self.way, Down::new(None, Fall::Absent));
        let shard = Shard::only(&way.name);
        // A lease that was just taken is this node's a moment before its instance is there.
        let until = clock.now() + 2 * SOLE_LOOK;
        while clock.now() < until {
            match way.looks.holder(&shard.key).await {
                Ok(Some(holder)) if holder.node != way.node => {
                    return match (way.far)(&holder.node, &way.name) {
                        Ok(there) => there.asks.down().await,
                        Err(_unreachable) => Down::new(None, Fall::Lost),
                    };
                }
                Ok(Some(_own)) => {
                    if let Some(instance) = self.here(&shard, clock).await {
                        return instance.down().await;
                    }
                }
                Ok(None) => return nothing,
                Err(_nobody_says) => return Down::new(None, Fall::Lost),
            }
            clock.sleep(SOLE_PAUSE).await;
        }
        nothing
    }

    /// The instance, if this node has it.
    async fn here(&self, shard: &Shard, clock: &Clock) -> Option<Address<AgentCommand>> {
        let header = Header::new().within(clock, SOLE_LOOK);
        let shard = shard.clone();
        let keep = self.router.call(header, |reply| SoleCommand::Keep { shard, reply }).await;
        let mut keeper = keep.ok()??;
        let held = clock.before(clock.now() + SOLE_LOOK, keeper.held()).await;
        held.ok()?.map(|(_fence, instance)| instance)
    }
}
