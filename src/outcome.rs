//! What became of a task that the host asked for itself.

use neuroflow_actors::{ArchivedChange, ArchivedContent, ArchivedTaskEvent, AskRefusal, TaskState};
use neuroflow_kernel::{Elapsed, ParcelError, Refusal, RemoteError, StreamError};

/// The end of a task, or the point at which it waits for its client: its state, and what was said and produced.
///
/// ```
/// let outcome = neuroflow::TaskOutcome::default();
/// assert!(outcome.text().is_empty());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskOutcome {
    task: String,
    context: String,
    /// Of the last event.
    generation: u64,
    state: Option<TaskState>,
    texts: Vec<String>,
    json: Vec<String>,
    said: Option<String>,
    refused: Option<AskRefusal>,
}

impl TaskOutcome {
    pub(crate) fn fold(&mut self, event: &ArchivedTaskEvent) {
        if self.task.is_empty() {
            event.task.as_str().clone_into(&mut self.task);
            event.context.as_str().clone_into(&mut self.context);
        }
        self.generation = self.generation.max(event.generation.to_native());
        match &event.change {
            ArchivedChange::Accepted { .. } | ArchivedChange::Continued { .. } => {}
            ArchivedChange::Refused(refusal) => self.refused = Some(refusal.into()),
            ArchivedChange::Status { state, turn } => {
                self.state = Some(TaskState::from(*state));
                let parts = turn.iter().flat_map(|turn| turn.parts.iter());
                for part in parts {
                    if let ArchivedContent::Text(text) = &part.content {
                        self.said = Some(text.to_string());
                    }
                }
            }
            ArchivedChange::Artifact { artifact, .. } => {
                for part in artifact.parts.iter() {
                    match &part.content {
                        ArchivedContent::Text(text) => self.texts.push(text.to_string()),
                        ArchivedContent::Json(json) => self.json.push(json.to_string()),
                        ArchivedContent::Bytes(_) | ArchivedContent::Url(_) => {}
                    }
                }
            }
        }
    }

    /// Whether there is nothing more to wait for, until the client says something.
    pub(crate) fn is_settled(&self) -> bool {
        self.state.is_some_and(|state| state.is_terminal() || state.is_interrupted())
    }

    /// The task's conversation.
    pub(crate) fn context(&self) -> &str {
        &self.context
    }

    /// Of the last event that is taken in.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Why there is no task.
    pub(crate) fn refused(&mut self) -> Option<AskRefusal> {
        self.refused.take()
    }

    /// The task's id.
    pub fn task(&self) -> &str {
        &self.task
    }

    /// The state that it ended in or waits in.
    pub fn state(&self) -> Option<TaskState> {
        self.state
    }

    /// The texts that it produced, one after another.
    pub fn text(&self) -> String {
        self.texts.concat()
    }

    /// The JSON values that it produced.
    pub fn json(&self) -> &[String] {
        &self.json
    }

    /// What the agent said last: if it failed, why.
    pub fn said(&self) -> Option<&str> {
        self.said.as_deref()
    }

    /// Whether it completed.
    pub fn is_completed(&self) -> bool {
        self.state == Some(TaskState::Completed)
    }
}

/// Why a host's request has no outcome.
///
/// ```
/// use neuroflow::AskError;
/// let error = AskError::UnknownAgent { agent: "ecko".into(), known: vec!["echo".into()] };
/// assert_eq!(error.to_string(), "there is no agent \"ecko\"; this node has: echo");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// The node has no such agent.
    #[error("there is no agent {agent:?}; this node has: {}", known.join(", "))]
    UnknownAgent {
        /// What was asked for.
        agent: String,
        /// The agents that are there.
        known: Vec<String>,
    },
    /// The request can't be archived.
    #[error("the request can't be archived")]
    Archive(#[source] ParcelError),
    /// The agent didn't take the request.
    #[error("the agent didn't take the request")]
    Refused(#[source] Refusal),
    /// The agent took the request and refused it.
    #[error("the agent refused the request")]
    Declined(#[source] AskRefusal),
    /// Not the name of an agent that can be reached.
    #[error("the name doesn't lead to an agent")]
    Target(#[from] RemoteError),
    /// The task's events ended early.
    #[error("the task's events ended early")]
    Interrupted(#[from] StreamError),
    /// The wait is over; the task goes on.
    #[error("the task hasn't ended in time")]
    TimedOut(#[from] Elapsed),
}
