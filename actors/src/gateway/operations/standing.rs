//! Whether who opened a stream of a task's updates may still follow it: a stream doesn't outlive the
//! credential that it was opened with, nor the policy that allowed it.

use std::sync::Arc;

use neuroflow_kernel::Rights;

use super::Visit;
use crate::access::{Action, Change, Standing};
use crate::gateway::door::{Admitted, Denial};
use crate::gateway::error::A2aError;
use crate::gateway::http::{Served, Shared};

/// What a stream needs to go on.
pub(super) struct Allowed {
    shared: Arc<Shared>,
    agent: String,
    admitted: Admitted,
    right: Rights,
    /// Whether the task may be somebody else's.
    needs_all: bool,
    standing: Standing,
}

impl Visit<'_> {
    /// For a stream that needs `right`; none where nobody has to prove anything.
    pub(super) fn allowed(&self, served: &Served, right: Rights) -> Option<Box<Allowed>> {
        let standing = self.admitted.standing()?;
        Some(Box::new(Allowed {
            shared: Arc::clone(self.shared),
            agent: served.agent.profile.name.clone(),
            admitted: self.admitted.clone(),
            right,
            needs_all: self.caller().is_some() && self.owner().is_none(),
            standing,
        }))
    }
}

impl Allowed {
    /// Returns once the stream has to end, and says why. Dropping the future loses nothing.
    pub(super) async fn lost(&mut self) -> A2aError {
        loop {
            match self.standing.changed().await {
                Change::Ended => return A2aError::CredentialEnded,
                Change::Rules(rules, generation) => {
                    self.admitted.now_under(rules, generation);
                    if let Err(error) = self.still() {
                        return error;
                    }
                }
            }
        }
    }

    fn still(&self) -> Result<(), A2aError> {
        let hidden = || A2aError::Forbidden { action: Action::Read };
        let served = self.shared.served(&self.agent).ok_or_else(hidden)?;
        let entrance =
            self.admitted.enter(&served.agent, self.right).map_err(|denial| match denial {
                Denial::Forbidden(action) => A2aError::Forbidden { action },
                Denial::Hidden => hidden(),
            })?;
        if self.needs_all && !entrance.sees_all {
            return Err(A2aError::Forbidden { action: Action::Supervise });
        }
        Ok(())
    }
}
