//! A2A's operations on an agent: one function each, the same for every binding.

use std::time::Duration;

use a2a_pb::protojson as pb;
use neuroflow_kernel::{CallError, Clock, Header, Parcel, Refusal, ReplyStream, Request};
use serde_json::Value;

use super::GatewayAgent;
use super::convert;
use super::error::A2aError;
use super::task_view::TaskView;
use crate::agent::{AgentCommand, Ask, CancelError, TaskEvent, TaskEvents, follow};
use crate::limits::AGENT_ANSWER;

/// What an operation is done with.
pub(super) struct Operation<'a> {
    pub(super) agent: &'a GatewayAgent,
    pub(super) clock: &'a Clock,
    pub(super) header: Header,
    pub(super) blocking_wait: Duration,
}

impl Operation<'_> {
    /// Begins a task, and waits for its end unless asked not to.
    pub(super) async fn send(&self, request: pb::SendMessageRequest) -> Result<Value, A2aError> {
        no_tenant(&request.tenant)?;
        let configuration = request.configuration.unwrap_or_default();
        let history = history_length("configuration.historyLength", configuration.history_length)?;
        if configuration.task_push_notification_config.is_some() {
            return Err(A2aError::PushNotificationNotSupported);
        }
        let Some(message) = request.message else {
            return Err(A2aError::invalid("message", "is missing"));
        };
        convert::client_id("message.contextId", &message.context_id)?;
        convert::client_id("message.taskId", &message.task_id)?;
        if !message.task_id.is_empty() {
            self.read(&message.task_id).await?;
            return Err(A2aError::UnsupportedOperation { operation: "further messages to a task" });
        }
        let context = (!message.context_id.is_empty()).then(|| message.context_id.clone());
        let ask = Ask { context, ..Ask::new(convert::turn(message)?) };
        let parcel = Parcel::archive(&ask)
            .map_err(|error| A2aError::invalid("message", error.to_string()))?;

        let deadline = self.clock.now() + self.blocking_wait;
        let header = self.header.clone().until(deadline);
        let command = |replies| AgentCommand::Ask(Request { parcel, replies });
        let mut events = self
            .agent
            .address
            .stream(header, command)
            .await
            .map_err(|refusal| refused(&refusal))?;
        let mut view = TaskView::new();
        // The first event comes at once: the task is accepted. Without one it was not.
        match self.clock.before(self.clock.now() + AGENT_ANSWER, events.next()).await {
            Ok(Some(Ok(event))) if event.get().generation > 0 => view.fold(&event),
            Ok(_) => return Err(A2aError::Busy),
            Err(_elapsed) => return Err(A2aError::Unavailable { code: "deadline_exceeded" }),
        }
        while !configuration.return_immediately && !view.state().is_terminal() {
            match self.clock.before(deadline, events.next()).await {
                Ok(Some(Ok(event))) => view.fold(&event),
                // The task is still there, whatever became of this stream of its events.
                Ok(Some(Err(_)) | None) => {
                    let so_far;
                    (so_far, events) = self.follow(view.id()).await?;
                    view = TaskView::of(&so_far);
                }
                // It goes on; the client can ask for it later.
                Err(_elapsed) => break,
            }
        }
        Ok(serde_json::json!({ "task": view.into_json(history)? }))
    }

    /// The task as it is.
    pub(super) async fn get(&self, request: pb::GetTaskRequest) -> Result<Value, A2aError> {
        no_tenant(&request.tenant)?;
        let history = history_length("historyLength", request.history_length)?;
        let events = self.read(required("id", &request.id)?).await?;
        TaskView::of(&events).into_json(history)
    }

    /// Ends the task and everything that works for it.
    pub(super) async fn cancel(&self, request: pb::CancelTaskRequest) -> Result<Value, A2aError> {
        no_tenant(&request.tenant)?;
        let task = required("id", &request.id)?;
        let header = self.header.clone().within(self.clock, AGENT_ANSWER);
        let command = |reply| AgentCommand::Cancel { task: task.to_owned(), caller: None, reply };
        let cancelled = self.agent.address.call(header, command).await.map_err(unanswered)?;
        match cancelled {
            Ok(events) => TaskView::of(&events).into_json(None),
            Err(CancelError::Unknown) => Err(A2aError::TaskNotFound { task: task.to_owned() }),
            Err(CancelError::Ended { state }) => {
                Err(A2aError::TaskNotCancelable { task: task.to_owned(), state })
            }
        }
    }

    async fn follow(
        &self,
        task: &str,
    ) -> Result<(TaskEvents, ReplyStream<Parcel<TaskEvent>>), A2aError> {
        let header = self.header.clone().within(self.clock, AGENT_ANSWER);
        let followed =
            follow(&self.agent.address, header, task, None, None).await.map_err(unanswered)?;
        followed.ok_or_else(|| A2aError::TaskNotFound { task: task.to_owned() })
    }

    async fn read(&self, task: &str) -> Result<TaskEvents, A2aError> {
        let header = self.header.clone().within(self.clock, AGENT_ANSWER);
        let command = |reply| AgentCommand::Read { task: task.to_owned(), caller: None, reply };
        let events = self.agent.address.call(header, command).await.map_err(unanswered)?;
        events.ok_or_else(|| A2aError::TaskNotFound { task: task.to_owned() })
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

fn no_tenant(tenant: &str) -> Result<(), A2aError> {
    if tenant.is_empty() {
        return Ok(());
    }
    Err(A2aError::invalid("tenant", "must be empty: this agent's card names no tenant"))
}

fn history_length(field: &str, length: Option<i32>) -> Result<Option<usize>, A2aError> {
    match length.map(usize::try_from) {
        None => Ok(None),
        Some(Ok(length)) => Ok(Some(length)),
        Some(Err(_negative)) => Err(A2aError::invalid(field, "must not be negative")),
    }
}
