//! A2A's operations: one function each, the same for every binding.

mod card;
mod chat;
mod following;
mod push;
mod send;
mod standing;
mod tasks;

use std::sync::{Arc, OnceLock};

use neuroflow_kernel::{Address, CallError, Clock, Header, Parcel, Refusal, ReplyStream, Rights};
use tokio::sync::SemaphorePermit;

use super::door::{Admitted, Denial, Entrance};
use super::error::A2aError;
use super::http::{Served, Shared};
use super::{bytes, convert};
use crate::access::{Action, Target};
use crate::agent::{
    AgentCommand, ArchivedAskRefusal, AskRefusal, TaskEvent, TaskEvents, TaskState,
};
use crate::limits::AGENT_ANSWER;

pub(super) use following::{Following, Update, Updates};
pub(super) use standing::Allowed;

/// One request, whatever binding it came by.
pub(super) struct Visit<'a> {
    pub(super) shared: &'a Arc<Shared>,
    /// The agent and the tenant that the path names.
    pub(super) place: Place<'a>,
    /// Trace, and whatever else goes on to the agent.
    pub(super) header: Header,
    /// What the door has found out about who asks.
    admitted: Admitted,
    /// Extensions that the client speaks.
    pub(super) extensions: Vec<String>,
    /// The generation after which a follower's events begin.
    pub(super) last_event: Option<u64>,
    entered: OnceLock<Entered<'a>>,
}

/// An agent, and the way to it that who asks has.
struct Entered<'a> {
    served: &'a Served,
    entrance: Arc<Entrance>,
}

/// Which agent a request means, whether or not there is one, and where it says so.
#[derive(Clone, Copy, Debug)]
enum Meant<'a> {
    /// None in particular.
    Root,
    /// By the path.
    Named(&'a str),
    /// By the field of the request.
    Tenant(&'a str),
}

impl Meant<'_> {
    fn served(self, shared: &Shared) -> Option<&Served> {
        match self {
            Self::Root => Some(shared.root()),
            Self::Named(name) | Self::Tenant(name) => shared.served(name),
        }
    }
}

/// Where a path leads, as far as it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place<'a> {
    pub(super) agent: Option<&'a str>,
    pub(super) tenant: Option<&'a str>,
}

impl<'a> Visit<'a> {
    pub(super) fn new(
        shared: &'a Arc<Shared>,
        place: Place<'a>,
        header: Header,
        admitted: Admitted,
    ) -> Self {
        Self {
            shared,
            place,
            header,
            admitted,
            extensions: Vec::new(),
            last_event: None,
            entered: OnceLock::new(),
        }
    }

    /// The agent that is meant, by path or by tenant, for an operation that needs `right`. A client
    /// that doesn't speak what the agent requires is refused.
    async fn enter(&self, tenant: &str, right: Rights) -> Result<&'a Served, A2aError> {
        let meant = self.find(tenant)?;
        let served = meant.served(self.shared).ok_or_else(|| self.missing(meant))?;
        let name = &served.agent.profile.name;
        tracing::trace!(agent = name, ?right, request_id = self.admitted.request_id(), "request");
        let entered = self.admitted.enter(&served.agent, right).recorded().await;
        let entrance = entered.map_err(|denial| match denial {
            Denial::Forbidden(action) => A2aError::Forbidden { action },
            Denial::Hidden => self.missing(meant),
            Denial::Unrecorded => A2aError::Unrecorded,
        })?;
        let required = served.agent.profile.extensions.iter().filter(|known| known.required);
        for extension in required {
            if !self.extensions.contains(&extension.uri) {
                return Err(A2aError::ExtensionSupportRequired { uri: extension.uri.clone() });
            }
        }
        let _first = self.entered.set(Entered { served, entrance });
        Ok(served)
    }

    /// That there is no such agent, in the same words for one that is hidden from who asks.
    fn missing(&self, meant: Meant<'_>) -> A2aError {
        let none = |name| self.shared.no_agent(name, &self.admitted);
        match meant {
            Meant::Root => none("/"),
            Meant::Named(name) => none(name),
            Meant::Tenant(name) => {
                A2aError::invalid("tenant", format!("names no agent: {}", none(name)))
            }
        }
    }

    /// Whether who asks may ask for this skill, or for whatever the agent makes of the message.
    async fn check_skill(&self, served: &Served, skill: Option<&str>) -> Result<(), A2aError> {
        let asked = self.admitted.ask(&served.agent, skill).recorded().await;
        asked.map_err(|denial| denied(denial, Action::Ask))
    }

    /// Whether who asks may read what isn't on the public card.
    async fn check_describe(&self, served: &Served) -> Result<(), A2aError> {
        let target = Target::Agent(&served.agent.profile.name);
        let permitted = self.admitted.permits(Action::Describe, target).recorded().await;
        permitted.map_err(|denial| denied(denial, Action::Describe))
    }

    /// Who asks, as tasks know them; none if nobody has said that.
    fn caller(&self) -> Option<String> {
        self.admitted.caller()
    }

    /// Whose tasks are looked at: the caller's own, or everybody's for who may supervise.
    fn owner(&self) -> Option<String> {
        let sees_all = self.entered.get().is_some_and(|entered| entered.entrance.sees_all);
        self.caller().filter(|_| !sees_all)
    }

    /// The capability to the agent that was entered, narrowed for who asks.
    fn address(&self, served: &Served) -> Address<AgentCommand> {
        match self.entered.get() {
            Some(entered) => entered.entrance.address.clone(),
            None => served.agent.address.clone(),
        }
    }

    fn find<'t>(&self, tenant: &'t str) -> Result<Meant<'t>, A2aError>
    where
        'a: 't,
    {
        let by_path = self.place.tenant.unwrap_or_default();
        if !tenant.is_empty() && !by_path.is_empty() && tenant != by_path {
            return Err(A2aError::invalid("tenant", "isn't the tenant of the path"));
        }
        let said = tenant;
        let tenant = if tenant.is_empty() { by_path } else { tenant };
        convert::client_id("tenant", tenant)?;
        match self.place.agent {
            Some(agent) if tenant.is_empty() || tenant == agent => Ok(Meant::Named(agent)),
            Some(_) => Err(A2aError::invalid("tenant", "isn't the agent of the path")),
            None if tenant.is_empty() => Ok(Meant::Root),
            None if by_path.is_empty() => Ok(Meant::Tenant(said)),
            None => Ok(Meant::Named(tenant)),
        }
    }

    /// The agent whose turn it was, once that is known.
    pub(super) fn entered(&self) -> Option<&'a Served> {
        self.entered.get().map(|entered| entered.served)
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

    /// What comes at once of a message: it was taken, or why not. One that isn't taken by the time that this gives
    /// up begins no task any more: whoever asked has gone.
    async fn first(
        &self,
        events: &mut ReplyStream<Parcel<TaskEvent>>,
    ) -> Result<Parcel<TaskEvent>, A2aError> {
        let soon = self.clock().now() + AGENT_ANSWER;
        match self.clock().before(soon, events.next()).await {
            Ok(Some(Ok(event))) => Ok(event),
            Ok(Some(Err(error))) if !error.may_have_run() => Err(A2aError::Busy),
            Ok(Some(Err(_)) | None) | Err(_) => Err(A2aError::Unheard),
        }
    }

    async fn read(&self, served: &Served, task: &str) -> Result<TaskEvents, A2aError> {
        let caller = self.owner();
        let _place = self.reads(served).await?;
        let command = |reply| AgentCommand::Read { task: task.to_owned(), caller, reply };
        let events = self.address(served).call(self.soon(), command).await.map_err(unanswered)?;
        let events = events.ok_or_else(|| A2aError::TaskNotFound { task: task.to_owned() })?;
        self.hold(&events)?;
        Ok(events)
    }

    /// This one's turn to read tasks of the agent.
    async fn reads<'s>(&self, served: &'s Served) -> Result<SemaphorePermit<'s>, A2aError> {
        served.agent.reads(self.clock()).await.ok_or(A2aError::Busy)
    }

    /// Has the answer hold these events, if there is room for them.
    fn hold<'e>(
        &self,
        events: impl IntoIterator<Item = &'e Parcel<TaskEvent>>,
    ) -> Result<(), A2aError> {
        let has_room = self.admitted.unsent().grow(bytes(events));
        if has_room { Ok(()) } else { Err(A2aError::Busy) }
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
        AskRefusal::Elsewhere => A2aError::Elsewhere { task },
        AskRefusal::Unkept => A2aError::Unavailable { code: "not_kept" },
        AskRefusal::OtherContext => {
            A2aError::invalid("message.contextId", "isn't the context of the task")
        }
    }
}

/// What is said to who has entered, and so sees the agent.
fn denied(denial: Denial, action: Action) -> A2aError {
    match denial {
        Denial::Forbidden(_) | Denial::Hidden => A2aError::Forbidden { action },
        Denial::Unrecorded => A2aError::Unrecorded,
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
