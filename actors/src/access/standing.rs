//! Whether a credential is still good, for what goes on for longer than the request that brought it.

use std::sync::Arc;
use std::time::Duration;

use neuroflow_kernel::{Clock, Moment};
use tokio::sync::watch;

use super::server::Snapshot;
use super::{Principal, Rules};

/// Who asks, and what they have proved it with.
#[derive(Clone, Debug)]
pub(crate) struct Identified {
    pub(crate) principal: Principal,
    pub(crate) proof: Proof,
}

/// What is remembered of a credential. A certificate's end is its connection's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proof {
    /// From then on it isn't taken; since the Unix epoch.
    pub(super) until: Option<Duration>,
    /// The digest of a token of this node.
    pub(super) token: Option<[u8; 32]>,
}

/// Waits for a credential's end and for other rules.
#[derive(Debug)]
pub(crate) struct Standing {
    principal: Principal,
    token: Option<[u8; 32]>,
    until: Option<Moment>,
    /// Those that were looked at last.
    rules: Option<Arc<dyn Rules>>,
    changes: watch::Receiver<Option<Snapshot>>,
    clock: Clock,
}

/// What has come of a credential.
#[derive(Debug)]
pub(crate) enum Change {
    /// It isn't good any more.
    Ended,
    /// Its rules are these now, with their number.
    Rules(Arc<dyn Rules>, u64),
}

impl Standing {
    pub(super) fn new(
        identified: Identified,
        rules: Option<Arc<dyn Rules>>,
        changes: watch::Receiver<Option<Snapshot>>,
        clock: Clock,
    ) -> Self {
        let Identified { principal, proof: Proof { until, token } } = identified;
        let left = until.map(|until| until.saturating_sub(super::server::wall(&clock)));
        let until = left.map(|left| clock.now() + left);
        Self { principal, token, until, rules, changes, clock }
    }

    /// The next change. Dropping the future loses none.
    pub(crate) async fn changed(&mut self) -> Change {
        loop {
            let changed = match self.until {
                Some(until) => match self.clock.before(until, self.changes.changed()).await {
                    Ok(changed) => changed,
                    Err(_elapsed) => return Change::Ended,
                },
                None => self.changes.changed().await,
            };
            if changed.is_err() {
                // Nobody is left to say anything.
                let until = std::future::pending::<()>();
                match self.until {
                    Some(at) => drop(self.clock.before(at, until).await),
                    None => until.await,
                }
                return Change::Ended;
            }
            let current = self.changes.borrow();
            let Some(snapshot) = current.as_ref() else { continue };
            if self.token.is_some_and(|token| !snapshot.has(&token, &self.principal)) {
                return Change::Ended;
            }
            let is_known =
                self.rules.as_ref().is_some_and(|known| Arc::ptr_eq(known, &snapshot.rules));
            if !is_known {
                let rules = Arc::clone(&snapshot.rules);
                self.rules = Some(Arc::clone(&rules));
                return Change::Rules(rules, snapshot.generation);
            }
        }
    }
}
