//! The extended card.

use a2a_pb::protojson as pb;

use neuroflow_kernel::Rights;

use super::Visit;
use crate::gateway::error::A2aError;

impl Visit<'_> {
    /// What only callers read that have proved who they are.
    pub(in crate::gateway) async fn extended_card(
        &self,
        request: &pb::GetExtendedAgentCardRequest,
    ) -> Result<pb::AgentCard, A2aError> {
        let served = self.enter(&request.tenant, Rights::NONE).await?;
        if served.agent.profile.extended.is_none() {
            return Err(A2aError::UnsupportedOperation { operation: "an extended card" });
        }
        let Some(card) = &served.extended else {
            return Err(A2aError::ExtendedAgentCardNotConfigured);
        };
        if self.caller().is_none() {
            return Err(A2aError::AuthenticationRequired);
        }
        self.check_describe(served).await?;
        Ok(card.clone())
    }
}
