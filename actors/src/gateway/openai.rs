//! The agents for clients that speak `OpenAI`'s chat completions: each agent is a model.
//!
//! Unlike with A2A, a client that goes away ends its task: nobody could ever ask for it again.

mod answer;
mod request;

use std::collections::VecDeque;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{Request, StatusCode};
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use futures_util::stream;
use neuroflow_kernel::{Address, Clock, Header, Moment, Parcel};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::door::Admitted;
use super::error::A2aError;
use super::http::{Observed, Served, Shared, answer_json, event_stream, read_body, retry_after};
use super::json::shown;
use super::operations::{Allowed, Following, Place};
use crate::agent::{
    AgentCommand, ArchivedChange, ArchivedContent, ArchivedTurn, TaskEvent, TaskState,
};
use crate::limits::{AGENT_ANSWER, CHAT_WAIT, STREAM_KEEP_ALIVE};

use answer::{Delta, Head, Reading, first_chunk};
use request::{Asked, ChatRequest};

/// Their routes.
pub(super) fn routes() -> [(&'static str, MethodRouter<Arc<Shared>>); 3] {
    [
        ("/v1/models", get(models)),
        ("/v1/models/{model}", get(model)),
        ("/v1/chat/completions", post(chat)),
    ]
}

/// Why there is no completion. What a client has written, and may be of any length, goes in as [`shown`].
#[derive(Debug, thiserror::Error)]
enum ChatError {
    #[error("the body isn't JSON: {source}")]
    Json { source: serde_json::Error },
    #[error("{field} {problem}")]
    Invalid { field: String, problem: String },
    #[error("there is no model {model:?}; GET /v1/models lists them")]
    UnknownModel { model: String },
    #[error("the task has failed{}{reason}", if reason.is_empty() { "" } else { ": " })]
    Ended { code: &'static str, reason: String },
    #[error("the agent needs an authorization, which can't be given here; ask it over A2A")]
    AuthRequired,
    #[error("the task didn't end in time, and was cancelled")]
    TimedOut,
    #[error("answers that aren't read leave no room for this one; the task was cancelled")]
    NoRoom,
    #[error(transparent)]
    Gateway(#[from] A2aError),
}

impl ChatError {
    fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid { field: shown(&field.into()), problem: shown(&problem.into()) }
    }

    fn no_model(model: &str) -> Self {
        Self::UnknownModel { model: shown(model) }
    }

    /// What has run, or may have, isn't answered with what clients take for a reason to try again: 408, 409, 429
    /// and 500 upwards.
    fn status(&self) -> StatusCode {
        match self {
            Self::Json { .. } | Self::Invalid { .. } => StatusCode::BAD_REQUEST,
            Self::UnknownModel { .. } => StatusCode::NOT_FOUND,
            Self::Ended { .. }
            | Self::TimedOut
            | Self::NoRoom
            | Self::Gateway(A2aError::Unheard) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::AuthRequired => StatusCode::FORBIDDEN,
            Self::Gateway(error) => {
                StatusCode::from_u16(error.rest_status()).unwrap_or(StatusCode::BAD_REQUEST)
            }
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Json { .. } => "invalid_json",
            Self::Invalid { .. } => "invalid_value",
            Self::UnknownModel { .. } => "model_not_found",
            Self::Ended { code, .. } => code,
            Self::AuthRequired => "authorization_required",
            Self::TimedOut => "task_timed_out",
            Self::NoRoom => "no_room",
            Self::Gateway(A2aError::BodyTooLarge { .. }) => "body_too_large",
            Self::Gateway(A2aError::Busy) => "busy",
            Self::Gateway(A2aError::Unheard) => "outcome_unknown",
            Self::Gateway(A2aError::CredentialEnded) => "credential_ended",
            Self::Gateway(_) => "refused",
        }
    }

    /// What JSON-RPC would say, for those who count.
    fn rpc_code(&self) -> i32 {
        match self {
            Self::Json { .. } => -32700,
            Self::Invalid { .. } | Self::UnknownModel { .. } => -32602,
            Self::Ended { .. } | Self::AuthRequired | Self::TimedOut | Self::NoRoom => -32603,
            Self::Gateway(error) => error.code(),
        }
    }

    fn to_json(&self) -> Value {
        let kind = match self.status() {
            StatusCode::UNPROCESSABLE_ENTITY => "agent_error",
            StatusCode::UNAUTHORIZED => "authentication_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        let param = match self {
            Self::Invalid { field, .. } => Some(field.as_str()),
            Self::UnknownModel { .. } => Some("model"),
            _ => None,
        };
        let message = self.to_string();
        let (code, param) = (self.code(), param);
        json!({ "error": { "message": message, "type": kind, "param": param, "code": code } })
    }
}

async fn models(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Response {
    let (head, _body) = request.into_parts();
    let mut observed = Observed::begin(&shared, &head);
    observed.operation("ListModels");
    let created = shared.started_s();
    let admitted = head.extensions.get::<Admitted>();
    let seen = admitted.into_iter().flat_map(|admitted| shared.seen(admitted));
    let data: Vec<Value> = seen.map(|agent| described(&agent.profile.name, created)).collect();
    observed.end(None, 200, None);
    answer_json(StatusCode::OK, json!({ "object": "list", "data": data }).to_string())
}

async fn model(
    State(shared): State<Arc<Shared>>,
    Path(model): Path<String>,
    request: Request<Body>,
) -> Response {
    let (head, _body) = request.into_parts();
    let mut observed = Observed::begin(&shared, &head);
    observed.operation("GetModel");
    let sees = |served: &Served| {
        head.extensions.get::<Admitted>().is_some_and(|admitted| admitted.sees(&served.agent))
    };
    let (status, body, error) = if shared.served(&model).is_some_and(sees) {
        (StatusCode::OK, described(&model, shared.started_s()), None)
    } else {
        let error = ChatError::no_model(&model);
        (error.status(), error.to_json(), Some(error.rpc_code()))
    };
    observed.end(None, status.as_u16(), error);
    answer_json(status, body.to_string())
}

fn described(name: &str, created: u64) -> Value {
    json!({ "id": name, "object": "model", "created": created, "owned_by": "neuroflow" })
}

async fn chat(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    let mut observed = Observed::begin(&shared, &head);
    observed.operation("CreateChatCompletion");
    let mut agent = None;
    let completed = async {
        // The body is gone before its task is waited for, which may take minutes.
        let (asked, turn) = {
            let body = read_body(&shared, body).await?;
            ChatRequest::read(&body)?.asked()?
        };
        let place = Place { agent: Some(&asked.model), tenant: None };
        let visit = observed.visit(&shared, place, &head)?;
        let begun = visit.begin(turn).await;
        agent = visit.entered().map(|served| served.agent.profile.name.clone());
        let (following, allowed) = begun.map_err(|error| match error {
            A2aError::AgentNotFound { agent, .. } => ChatError::no_model(&agent),
            other => other.into(),
        })?;
        let work = Work::of(&shared, following, allowed, &asked);
        if asked.is_streamed {
            return Ok(event_stream(work.stream(asked.wants_usage)));
        }
        let completion = work.whole().await?;
        Ok(answer_json(StatusCode::OK, completion.to_string()))
    };
    let completed: Result<Response, ChatError> = completed.await;
    let error = completed.as_ref().err().map(ChatError::rpc_code);
    let mut response =
        completed.unwrap_or_else(|error| answer_json(error.status(), error.to_json().to_string()));
    retry_after(&mut response);
    if let Some(agent) = agent {
        observed.span.set("gen_ai.agent.name", agent);
    }
    observed.end(None, response.status().as_u16(), error);
    response
}

/// A task whose client has gone away.
pub(super) struct Abandoned {
    agent: Address<AgentCommand>,
    task: String,
    caller: Option<String>,
}

/// Cancels tasks that nobody can ask for any more.
pub(super) async fn cancel_abandoned(mut abandoned: mpsc::Receiver<Abandoned>, clock: Clock) {
    while let Some(Abandoned { agent, task, caller }) = abandoned.recv().await {
        let header = Header::new().within(&clock, AGENT_ANSWER);
        let name = task.clone();
        let command = |reply| AgentCommand::Cancel { task, caller, reply };
        match agent.call(header, command).await {
            // It has ended by itself meanwhile.
            Ok(Ok(_) | Err(_)) => {}
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, task = name, "an abandoned task isn't cancelled");
            }
        }
    }
}

/// Has its task cancelled, unless the task has ended before.
struct Leash {
    to: mpsc::Sender<Abandoned>,
    task: Option<Abandoned>,
}

impl Drop for Leash {
    fn drop(&mut self) {
        let Some(abandoned) = self.task.take() else { return };
        match self.to.try_send(abandoned) {
            Ok(()) => {}
            Err(TrySendError::Full(Abandoned { task, .. })) => {
                tracing::warn!(task, "an abandoned task isn't cancelled: too many at once");
            }
            // The node stops, and its agents end with it.
            Err(TrySendError::Closed(Abandoned { task, .. })) => {
                tracing::debug!(task, "an abandoned task isn't cancelled: the gateway has ended");
            }
        }
    }
}

/// A completion in the making.
struct Work {
    head: Head,
    following: Following,
    /// What it needs to go on; none if it needs nothing.
    allowed: Option<Box<Allowed>>,
    reading: Reading,
    leash: Leash,
    clock: Clock,
    deadline: Moment,
}

/// What an event means for the completion.
enum Step {
    Said(Vec<Delta>),
    Done(Vec<Delta>),
}

impl Work {
    fn of(
        shared: &Shared,
        following: Following,
        allowed: Option<Box<Allowed>>,
        asked: &Asked,
    ) -> Self {
        let clock = shared.clock.clone();
        let head = Head {
            id: format!("chatcmpl-{}", following.task),
            model: asked.model.clone(),
            created: clock.unix().as_secs(),
        };
        let task = Abandoned {
            agent: following.agent.clone(),
            task: following.task.clone(),
            caller: following.caller.clone(),
        };
        let leash = Leash { to: shared.abandoned(), task: Some(task) };
        let deadline = clock.now() + CHAT_WAIT;
        Self { head, following, allowed, reading: Reading::default(), leash, clock, deadline }
    }

    async fn whole(mut self) -> Result<Value, ChatError> {
        let mut held = 0;
        while let Step::Said(_) = self.step().await? {
            let bytes = self.reading.bytes();
            if !self.following.unsent.grow(bytes - held) {
                return Err(ChatError::NoRoom);
            }
            held = bytes;
        }
        Ok(self.reading.completion(&self.head))
    }

    async fn step(&mut self) -> Result<Step, ChatError> {
        let (following, allowed) = (&mut self.following, &mut self.allowed);
        let event = async {
            let Some(allowed) = allowed else { return following.next().await };
            tokio::select! {
                biased;
                lost = allowed.lost() => Err(lost),
                event = following.next() => event,
            }
        };
        match self.clock.before(self.deadline, event).await {
            Ok(Ok(Some(event))) => self.take(&event),
            Ok(Ok(None)) => Err(ChatError::Ended { code: "task_lost", reason: String::new() }),
            Ok(Err(error)) => Err(error.into()),
            Err(_elapsed) => Err(ChatError::TimedOut),
        }
    }

    fn take(&mut self, event: &Parcel<TaskEvent>) -> Result<Step, ChatError> {
        let (state, turn) = match &event.get().change {
            ArchivedChange::Artifact { artifact, .. } => {
                return Ok(Step::Said(self.reading.take(artifact)));
            }
            ArchivedChange::Status { state, turn } => (TaskState::from(*state), turn.as_ref()),
            _ => return Ok(Step::Said(Vec::new())),
        };
        if state.is_terminal() {
            self.leash.task = None;
        }
        let reason = || turn.map(text).unwrap_or_default();
        match state {
            TaskState::Submitted | TaskState::Working => Ok(Step::Said(Vec::new())),
            TaskState::Completed => Ok(Step::Done(self.reading.finish())),
            // The answer to the question comes with the next completion, to another task.
            TaskState::InputRequired => Ok(Step::Done(self.reading.ask(&reason()))),
            TaskState::AuthRequired => Err(ChatError::AuthRequired),
            TaskState::Failed => Err(ChatError::Ended { code: "task_failed", reason: reason() }),
            TaskState::Canceled => {
                Err(ChatError::Ended { code: "task_canceled", reason: reason() })
            }
            TaskState::Rejected => {
                Err(ChatError::Ended { code: "task_rejected", reason: reason() })
            }
        }
    }

    /// The completion as server-sent events.
    fn stream(mut self, wants_usage: bool) -> Body {
        self.reading.forget();
        let ready = VecDeque::from([event(&first_chunk(&self.head))]);
        let begun = (self, ready, false);
        let events = stream::unfold(begun, move |(mut work, mut ready, mut over)| async move {
            loop {
                if let Some(bytes) = ready.pop_front() {
                    return Some((Ok::<_, std::convert::Infallible>(bytes), (work, ready, over)));
                }
                if over {
                    return None;
                }
                work.following.wanted();
                let silent = work.clock.now() + STREAM_KEEP_ALIVE;
                let clock = work.clock.clone();
                let (deltas, done) = match clock.before(silent, work.step()).await {
                    Err(_elapsed) => {
                        ready.push_back(Bytes::from_static(b": \n\n"));
                        continue;
                    }
                    Ok(Ok(Step::Said(deltas))) => (deltas, false),
                    Ok(Ok(Step::Done(deltas))) => (deltas, true),
                    Ok(Err(error)) => {
                        ready.push_back(event(&error.to_json()));
                        over = true;
                        continue;
                    }
                };
                ready.extend(deltas.into_iter().map(|delta| event(&delta.chunk(&work.head))));
                if done {
                    ready.push_back(event(&work.reading.last_chunk(&work.head)));
                    if wants_usage {
                        ready.push_back(event(&work.reading.usage_chunk(&work.head)));
                    }
                    ready.push_back(Bytes::from_static(b"data: [DONE]\n\n"));
                    over = true;
                }
            }
        });
        Body::from_stream(events)
    }
}

/// One event. JSON has no line break outside of its texts, and inside they are escaped.
fn event(chunk: &Value) -> Bytes {
    format!("data: {chunk}\n\n").into()
}

/// What the agent has said in words.
fn text(turn: &ArchivedTurn) -> String {
    let texts = turn.parts.iter().filter_map(|part| match &part.content {
        ArchivedContent::Text(text) => Some(text.as_str()),
        _ => None,
    });
    texts.collect::<Vec<_>>().join("\n")
}
