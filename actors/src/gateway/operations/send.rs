//! Sending a message: to begin a task or to go on with one, waiting or as a stream.

use std::collections::VecDeque;

use a2a_pb::protojson as pb;
use neuroflow_kernel::{Header, Parcel, Request};
use pbjson_types::value::Kind;

use super::following::{End, Following};
use super::{Update, Updates, Visit, declined, history_length, is_settled, refused};
use crate::agent::{
    ASK, AgentCommand, AgentProfile, ArchivedChange, Ask, TaskEvent, TaskState, overlap,
};
use crate::gateway::convert;
use crate::gateway::error::A2aError;
use crate::gateway::http::Served;
use crate::gateway::json::shown;
use crate::gateway::pauses::Pauses;
use crate::gateway::task_view::{TaskView, invalid_reply, state_after};
use crate::limits::{CLIENT_ID_BYTES, OUTPUT_MODES};

/// A message that an agent has taken.
struct Taken {
    /// The task as the message has left it. Its events are put together when it's answered: until then they are
    /// in memory once, with the task itself.
    so_far: Vec<Parcel<TaskEvent>>,
    state: TaskState,
    following: Following,
    history: Option<usize>,
    immediately: bool,
    /// What the answer has to say beside the task.
    note: Option<pbjson_types::Struct>,
}

impl Visit<'_> {
    /// Begins a task or goes on with one, and waits until it has ended or waits for its client,
    /// unless asked not to.
    pub(in crate::gateway) async fn send(
        &self,
        request: pb::SendMessageRequest,
    ) -> Result<pb::SendMessageResponse, A2aError> {
        let served = self.enter(&request.tenant, ASK).await?;
        let deadline = self.clock().now() + self.shared.blocking_wait();
        let mut taken = self.take(served, request, self.header.clone().until(deadline)).await?;
        while !taken.immediately && !is_settled(taken.state) {
            match self.clock().before(deadline, taken.following.next()).await {
                // What there is no room for is there when the client asks for the task.
                Ok(Ok(Some(event))) if self.hold([&event]).is_err() => break,
                Ok(Ok(Some(event))) => {
                    invalid_reply(event.get()).map_or(Ok(()), Err)?;
                    taken.state = state_after(event.get()).unwrap_or(taken.state);
                    taken.so_far.push(event);
                }
                Ok(Err(error)) => return Err(error),
                // It goes on; the client can ask for it later.
                Ok(Ok(None)) | Err(_) => break,
            }
        }
        let mut task = TaskView::of(&taken.so_far).into_task(taken.history);
        task.metadata = taken.note;
        let payload = pb::send_message_response::Payload::Task(task);
        Ok(pb::SendMessageResponse { payload: Some(payload) })
    }

    /// Begins a task or goes on with one: the task as it is, then what becomes of it.
    pub(in crate::gateway) async fn send_streaming(
        &self,
        request: pb::SendMessageRequest,
    ) -> Result<Updates, A2aError> {
        let served = self.enter(&request.tenant, ASK).await?;
        if !served.agent.profile.streaming {
            return Err(A2aError::UnsupportedOperation { operation: "streaming" });
        }
        let wanted = request.message.as_ref().and_then(skill).map(str::to_owned);
        let taken = self.take(served, request, self.header.clone()).await?;
        let view = TaskView::of(&taken.so_far);
        let first = Update::snapshot(&view, taken.history).noting(taken.note);
        let over = End::ClientsTurn.is_at(taken.state);
        let allowed = self.allowed(served, ASK, wanted);
        Ok(Updates::new(Some(first), taken.following, End::ClientsTurn, allowed).over_if(over))
    }

    async fn take(
        &self,
        served: &Served,
        request: pb::SendMessageRequest,
        header: Header,
    ) -> Result<Taken, A2aError> {
        let configuration = request.configuration.unwrap_or_default();
        let history = history_length("configuration.historyLength", configuration.history_length)?;
        let modes = configuration.accepted_output_modes;
        check_output(&served.agent.profile, &modes)?;
        let Some(message) = request.message else {
            return Err(A2aError::invalid("message", "is missing"));
        };
        check_input(&served.agent.profile, &message)?;
        self.check_skill(served, skill(&message)).await?;
        convert::client_id("message.contextId", &message.context_id)?;
        convert::client_id("message.taskId", &message.task_id)?;
        let given = |id: &String| (!id.is_empty()).then(|| id.clone());
        let (task, context) = (given(&message.task_id), given(&message.context_id));
        let tenant = given(&request.tenant).or_else(|| self.place.tenant.map(str::to_owned));
        let parcel = Parcel::archive(&Ask {
            task: task.clone(),
            context,
            turn: convert::turn(message)?,
            caller: self.caller(),
            tenant,
            accepted_output: modes,
            extensions: self.activated(),
            metadata: convert::json_object("metadata", request.metadata.as_ref())?,
        })
        .map_err(|error| A2aError::invalid("message", error.to_string()))?;
        drop(request.metadata);

        let push = configuration.task_push_notification_config;
        let push = self.reserve_inline_push(served, task.as_deref(), push).await?;
        let command = |replies| AgentCommand::Ask(Request { parcel, replies });
        let address = &self.address(served);
        let mut events =
            address.stream(header, command).await.map_err(|refusal| refused(&refusal))?;
        let first = self.first(&mut events).await?;
        if let ArchivedChange::Refused(refusal) = &first.get().change {
            return Err(declined(refusal, task.as_deref().unwrap_or_default()));
        }
        let own = first.get().generation.to_native();
        let (so_far, ready) = if own == 1 {
            (vec![first], VecDeque::new())
        } else {
            // The task as the message has left it: with the one event that goes with it, that the
            // agent is at work again. What has come of it since then comes after that.
            let read = self.read(served, &first.get().task).await;
            // It's taken, and isn't to be sent again.
            let mut so_far = read.map_err(|_error| A2aError::Unheard)?;
            let after =
                so_far.iter().position(|event| event.get().generation.to_native() > own + 1);
            let later = so_far.split_off(after.unwrap_or(so_far.len()));
            (so_far, later.into())
        };
        let state = so_far.iter().rev().find_map(|event| state_after(event.get()));
        let id = so_far.first().map(|event| event.get().task.to_string()).unwrap_or_default();
        let last = so_far.last().map_or(own, |event| event.get().generation.to_native());
        let following = Following {
            agent: address.clone(),
            unsent: self.admitted.unsent().clone(),
            header: self.header.clone(),
            clock: self.clock().clone(),
            caller: self.caller(),
            task: id.clone(),
            last,
            ready,
            to_come: Some(events),
            pauses: Pauses::default(),
        };
        let is_told = self.keep_inline_push(served, (&id, own), push).await;
        let note = (!is_told).then(unpushed);
        let immediately = configuration.return_immediately;
        let state = state.unwrap_or(TaskState::Submitted);
        Ok(Taken { so_far, state, following, history, immediately, note })
    }
}

/// That the task is there, and its push configuration isn't.
fn unpushed() -> pbjson_types::Struct {
    let with = |name: &str, kind| {
        let value = pbjson_types::Value { kind: Some(kind) };
        pbjson_types::Struct { fields: [(name.to_owned(), value)].into() }
    };
    let said = with("pushNotification", Kind::StringValue("not_kept".to_owned()));
    with("neuroflow", Kind::StructValue(said))
}

/// The skill that a message asks for by name, in its metadata: the protocol has no field for it.
fn skill(message: &pb::Message) -> Option<&str> {
    match message.metadata.as_ref()?.fields.get("skill")?.kind.as_ref()? {
        Kind::StringValue(skill) => Some(skill),
        _ => None,
    }
}

/// An agent none of whose output a client takes can do nothing for it.
fn check_output(profile: &AgentProfile, accepted: &[String]) -> Result<(), A2aError> {
    const FIELD: &str = "configuration.acceptedOutputModes";
    if accepted.len() > OUTPUT_MODES {
        let problem = format!("has more than {OUTPUT_MODES} entries");
        return Err(A2aError::invalid(FIELD, problem));
    }
    if let Some(long) = accepted.iter().find(|mode| mode.len() > CLIENT_ID_BYTES) {
        convert::client_id(FIELD, long)?;
    }
    let fits = |mode: &String| profile.output_modes.iter().any(|own| overlap(own, mode));
    if accepted.is_empty() || accepted.iter().any(fits) {
        return Ok(());
    }
    Err(A2aError::MediaTypeNotSupported {
        field: FIELD.to_owned(),
        found: shown(&accepted.join(", ")),
        known: profile.output_modes.join(", "),
    })
}

/// A part that says what it is must be something that the agent takes.
fn check_input(profile: &AgentProfile, message: &pb::Message) -> Result<(), A2aError> {
    for (at, part) in message.parts.iter().enumerate() {
        let mode = &part.media_type;
        if !mode.is_empty() && !profile.input_modes.iter().any(|own| overlap(own, mode)) {
            let field = format!("message.parts[{at}].mediaType");
            convert::client_id(&field, mode)?;
            let known = profile.input_modes.join(", ");
            return Err(A2aError::MediaTypeNotSupported { field, found: mode.clone(), known });
        }
    }
    Ok(())
}
