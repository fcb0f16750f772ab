//! A new task for who speaks another protocol than A2A: its events, and nothing folded.

use std::collections::VecDeque;

use neuroflow_kernel::{Parcel, Request};

use super::following::Following;
use super::{Allowed, Visit, declined, refused};
use crate::agent::{ASK, AgentCommand, ArchivedChange, Ask, Turn};
use crate::gateway::error::A2aError;
use crate::gateway::pauses::Pauses;

impl Visit<'_> {
    /// Begins a task that is nobody's once its client has gone: its events, and what it takes to be told of them.
    pub(in crate::gateway) async fn begin(
        &self,
        turn: Turn,
    ) -> Result<(Following, Option<Box<Allowed>>), A2aError> {
        let served = self.enter("", ASK).await?;
        self.check_skill(served, None).await?;
        let ask = Ask { caller: self.caller(), ..Ask::new(turn).ending_with_asker() };
        let parcel = Parcel::archive(&ask)
            .map_err(|error| A2aError::invalid("messages", error.to_string()))?;
        drop(ask);
        let address = self.address(served);
        let command = |replies| AgentCommand::Ask(Request { parcel, replies });
        let mut events = address
            .stream(self.header.clone(), command)
            .await
            .map_err(|refusal| refused(&refusal))?;
        let first = self.first(&mut events).await?;
        if let ArchivedChange::Refused(refusal) = &first.get().change {
            return Err(declined(refusal, ""));
        }
        let following = Following {
            // The gateway's own: it ends what its client has left, whoever that is.
            agent: served.agent.address.clone(),
            unsent: self.admitted.unsent().clone(),
            header: self.header.clone(),
            clock: self.clock().clone(),
            caller: self.caller(),
            task: first.get().task.to_string(),
            last: first.get().generation.to_native(),
            ready: VecDeque::new(),
            to_come: Some(events),
            pauses: Pauses::default(),
        };
        Ok((following, self.allowed(served, ASK, None)))
    }
}
