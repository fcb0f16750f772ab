//! Turns to read an agent's tasks, each of which may be large: what many ask for at once would be in memory before any
//! of it is counted.

use std::sync::Arc;

use neuroflow_kernel::Clock;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::GatewayAgent;
use crate::limits::{AGENT_ANSWER, TASK_READS};

/// The places of those who read the tasks of one agent.
#[derive(Clone, Debug)]
pub(super) struct Reads(Arc<Semaphore>);

impl Default for Reads {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(TASK_READS)))
    }
}

impl GatewayAgent {
    /// A place to read its tasks from, once it's this one's turn; none if that doesn't come in time. It's held from the
    /// question until what came of it is counted.
    pub(crate) async fn reads(&self, clock: &Clock) -> Option<SemaphorePermit<'_>> {
        let turn = self.reads.0.acquire();
        clock.before(clock.now() + AGENT_ANSWER, turn).await.ok()?.ok()
    }
}
