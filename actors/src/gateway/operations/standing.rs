//! Whether who opened a stream of a task's updates may still follow it: a stream doesn't outlive the
//! credential that it was opened with, nor the policy that allowed it.

use std::sync::Arc;

use neuroflow_kernel::Rights;

use super::Visit;
use crate::access::Action;
use crate::agent::ASK;
use crate::gateway::door::{Admitted, Denial, Lost, Tenure};
use crate::gateway::error::A2aError;
use crate::gateway::http::{Served, Shared};

/// What a stream needs to go on.
pub(in crate::gateway) struct Allowed {
    needs: Needs,
    tenure: Tenure,
}

struct Needs {
    shared: Arc<Shared>,
    agent: String,
    right: Rights,
    /// The skill that was asked for, if the right is to ask.
    skill: Option<String>,
    /// Whether the task may be somebody else's.
    all: bool,
}

impl Visit<'_> {
    /// For a stream that needs `right`, and that for this `skill`; none where nobody has to prove anything.
    pub(super) fn allowed(
        &self,
        served: &Served,
        right: Rights,
        skill: Option<String>,
    ) -> Option<Box<Allowed>> {
        let tenure = self.admitted.tenure()?;
        let needs = Needs {
            shared: Arc::clone(self.shared),
            agent: served.agent.profile.name.clone(),
            right,
            skill,
            all: self.caller().is_some() && self.owner().is_none(),
        };
        Some(Box::new(Allowed { needs, tenure }))
    }
}

impl Allowed {
    /// Returns once the stream has to end, and says why. Dropping the future loses nothing.
    pub(in crate::gateway) async fn lost(&mut self) -> A2aError {
        match self.tenure.lost(|admitted| self.needs.met(admitted)).await {
            Lost::Credential => A2aError::CredentialEnded,
            Lost::Right(error) => error,
        }
    }
}

impl Needs {
    fn met(&self, admitted: &Admitted) -> Result<(), A2aError> {
        let hidden = || A2aError::Forbidden { action: Action::Read };
        let served = self.shared.served(&self.agent).ok_or_else(hidden)?;
        let entered = admitted.enter(&served.agent, self.right).noted();
        let entrance = entered.map_err(|denial| match denial {
            Denial::Forbidden(action) => A2aError::Forbidden { action },
            Denial::Hidden | Denial::Unrecorded => hidden(),
        })?;
        if self.right.contains(ASK) {
            let asked = admitted.ask(&served.agent, self.skill.as_deref()).noted();
            asked.map_err(|_denied| A2aError::Forbidden { action: Action::Ask })?;
        }
        if self.all && !entrance.sees_all {
            return Err(A2aError::Forbidden { action: Action::Supervise });
        }
        Ok(())
    }
}
