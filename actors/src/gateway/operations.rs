//! A2A's operations: one function each, the same for every binding.

mod card;
mod chat;
mod following;
mod push;
mod send;
mod tasks;

use std::sync::{Arc, OnceLock};

use neuroflow_kernel::{CallError, Clock, Header, Refusal, Rights};

use super::convert;
use super::error::A2aError;
use super::http::{Served, Shared};
use crate::agent::{ArchivedAskRefusal, AskRefusal, TaskEvents, TaskState};
use crate::limits::AGENT_ANSWER;

pub(super) use following::{Following, Update, Updates};

/// One request, whatever binding it came by.
pub(super) struct Visit<'a> {
    pub(super) shared: &'a Arc<Shared>,
    /// The agent and the tenant that the path names.
    pub(super) place: Place<'a>,
    /// Trace, and whatever else goes on to the agent.
    pub(super) header: Header,
    /// Who asks, as far as that is known.
    pub(super) caller: Option<String>,
    /// Extensions that the client speaks.
    pub(super) extensions: Vec<String>,
    /// The generation after which a follower's events begin.
    pub(super) last_event: Option<u64>,
    entered: OnceLock<&'a Served>,
}

/// Where a path leads, as far as it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place<'a> {
    pub(super) agent: Option<&'a str>,
    pub(super) tenant: Option<&'a str>,
}

impl<'a> Visit<'a> {
    pub(super) fn new(shared: &'a Arc<Shared>, place: Place<'a>, header: Header) -> Self {
        Self {
            shared,
            place,
            header,
            caller: None,
            extensions: Vec::new(),
            last_event: None,
            entered: OnceLock::new(),
        }
    }

    /// The agent that is meant, by path or by tenant, for an operation that needs `right`. A client
    /// that doesn't speak what the agent requires is refused.
    fn enter(&self, tenant: &str, right: Rights) -> Result<&'a Served, A2aError> {
        let served = self.find(tenant)?;
        tracing::trace!(agent = served.agent.profile.name, ?right, "request");
        let required = served.agent.profile.extensions.iter().filter(|known| known.required);
        for extension in required {
            if !self.extensions.contains(&extension.uri) {
                return Err(A2aError::ExtensionSupportRequired { uri: extension.uri.clone() });
            }
        }
        let _first = self.entered.set(served);
        Ok(served)
    }

    fn find(&self, tenant: &str) -> Result<&'a Served, A2aError> {
        let by_path = self.place.tenant.unwrap_or_default();
        if !tenant.is_empty() && !by_path.is_empty() && tenant != by_path {
            return Err(A2aError::invalid("tenant", "isn't the tenant of the path"));
        }
        let said = tenant;
        let tenant = if tenant.is_empty() { by_path } else { tenant };
        convert::client_id("tenant", tenant)?;
        match self.place.agent {
            Some(agent) if tenant.is_empty() || tenant == agent => self.shared.served(agent),
            Some(_) => Err(A2aError::invalid("tenant", "isn't the agent of the path")),
            None if tenant.is_empty() => Ok(self.shared.root()),
            None if by_path.is_empty() => self
                .shared
                .served(said)
                .map_err(|error| A2aError::invalid("tenant", format!("names no agent: {error}"))),
            None => self.shared.served(tenant),
        }
    }

    /// The agent whose turn it was, once that is known.
    pub(super) fn entered(&self) -> Option<&'a Served> {
        self.entered.get().copied()
    }

    /// Extensions that client and agent both speak.
    pub(super) fn activated(&self) -> Vec<String> {
        let Some(served) = self.entered() else { return Vec::new() };
        let known = |uri: &&String| {
            served.agent.profile.extensions.iter().any(|extension| extension.uri == **uri)
        };
        self.extensions.iter().filter(known).cloned().collect()
    }

    fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// For a question that the agent answers at once.
    fn soon(&self) -> Header {
        self.header.clone().within(self.clock(), AGENT_ANSWER)
    }

    async fn read(&self, served: &Served, task: &str) -> Result<TaskEvents, A2aError> {
        use crate::agent::AgentCommand;
        let caller = self.caller.clone();
        let command = |reply| AgentCommand::Read { task: task.to_owned(), caller, reply };
        let events = served.agent.address.call(self.soon(), command).await.map_err(unanswered)?;
        events.ok_or_else(|| A2aError::TaskNotFound { task: task.to_owned() })
    }
}

/// Whether a blocking request has waited long enough.
fn is_settled(state: TaskState) -> bool {
    state.is_terminal() || state.is_interrupted()
}

fn declined(refusal: &ArchivedAskRefusal, task: &str) -> A2aError {
    let task = task.to_owned();
    match AskRefusal::from(refusal) {
        AskRefusal::Busy => A2aError::Busy,
        AskRefusal::UnknownTask => A2aError::TaskNotFound { task },
        AskRefusal::Ended { state } => A2aError::TaskEnded { task, state, wish: "continued" },
        AskRefusal::OtherContext => {
            A2aError::invalid("message.contextId", "isn't the context of the task")
        }
    }
}

fn refused(refusal: &Refusal) -> A2aError {
    if matches!(refusal, Refusal::Overloaded { .. }) {
        A2aError::Busy
    } else {
        A2aError::Unavailable { code: refusal.code() }
    }
}

fn unanswered(error: CallError) -> A2aError {
    match error {
        CallError::Refused(refusal) => refused(&refusal),
        other => A2aError::Unavailable { code: other.code() },
    }
}

fn required<'a>(field: &str, value: &'a str) -> Result<&'a str, A2aError> {
    convert::client_id(field, value)?;
    if value.is_empty() { Err(A2aError::invalid(field, "is missing")) } else { Ok(value) }
}

fn history_length(field: &str, length: Option<i32>) -> Result<Option<usize>, A2aError> {
    match length.map(usize::try_from) {
        None => Ok(None),
        Some(Ok(length)) => Ok(Some(length)),
        Some(Err(_negative)) => Err(A2aError::invalid(field, "must not be negative")),
    }
}
