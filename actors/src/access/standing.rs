//! Whether a credential is still good, for what goes on for longer than the request that brought it.

use std::sync::Arc;
use std::time::Duration;

use neuroflow_kernel::Clock;
use tokio::sync::watch;

use super::server::Snapshot;
use super::{Principal, Rules};
use crate::limits::CREDENTIAL_LOOK;

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
    /// What a token of an issuer was signed with.
    #[cfg(feature = "access")]
    pub(super) signer: Option<Arc<super::jwks::Signer>>,
}

/// Waits for a credential's end and for other rules.
#[derive(Debug)]
pub(crate) struct Standing {
    principal: Principal,
    proof: Proof,
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
        let Identified { principal, proof } = identified;
        Self { principal, proof, rules, changes, clock }
    }

    #[cfg(feature = "mcp")]
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The next change. Dropping the future loses none.
    pub(crate) async fn changed(&mut self) -> Change {
        loop {
            let patience = match self.proof.until {
                None => Duration::MAX,
                // It's looked at again and again, because the wall clock may be set meanwhile.
                Some(until) => match until.checked_sub(self.clock.unix()) {
                    None | Some(Duration::ZERO) => return Change::Ended,
                    Some(left) => left.min(CREDENTIAL_LOOK),
                },
            };
            let look = self.clock.now() + patience;
            let changed = async {
                if self.changes.changed().await.is_err() {
                    // Nobody is left to say anything.
                    std::future::pending::<()>().await;
                }
            };
            if self.clock.before(look, changed).await.is_err() {
                continue;
            }
            let current = self.changes.borrow();
            let Some(snapshot) = current.as_ref() else { continue };
            if !snapshot.takes(&self.proof, &self.principal) {
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
