//! Requests to an agent, and the events of its tasks: what every view of a task is made from.

use neuroflow_kernel::{WireMessage, WireRequest};
use rkyv::{Archive, Serialize};

use super::{Artifact, TaskState, Turn};

/// A request to an agent. It's answered with the events of a task, from the one that this request
/// makes until the task has ended. Who stops listening doesn't stop the task.
///
/// ```
/// use neuroflow_actors::{Ask, Turn};
/// use neuroflow_kernel::Parcel;
/// let ask = Ask::new(Turn::user("hello"));
/// assert_eq!(Parcel::archive(&ask)?.get().turn.parts.len(), 1);
/// # Ok::<(), neuroflow_kernel::ParcelError>(())
/// ```
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The task that it continues; a new one is begun without.
    pub task: Option<String>,
    /// The conversation that it's part of: the task's own, where one is continued.
    pub context: Option<String>,
    /// What is said.
    pub turn: Turn,
    /// Who asks, as far as a gateway or link has made sure of it.
    pub caller: Option<String>,
    /// The tenant that the client named.
    pub tenant: Option<String>,
    /// Media types that the client takes; any if there is none.
    pub accepted_output: Vec<String>,
    /// URIs of the extensions that are in force.
    pub extensions: Vec<String>,
    /// The request's own metadata: a JSON object, or nothing.
    pub metadata: Option<String>,
}

impl Ask {
    /// A new task, asked for by nobody in particular.
    pub fn new(turn: Turn) -> Self {
        Self {
            task: None,
            context: None,
            turn,
            caller: None,
            tenant: None,
            accepted_output: Vec::new(),
            extensions: Vec::new(),
            metadata: None,
        }
    }

    /// Asked by somebody who never comes back for what becomes of it: a life of the agent that finds its task
    /// unfinished ends it, where it would run another again.
    #[must_use]
    pub(crate) fn ending_with_asker(mut self) -> Self {
        self.metadata = Some(ENDS_WITH_ASKER.to_owned());
        self
    }

    /// Part of this conversation.
    #[must_use]
    pub fn in_context(mut self, context: impl Into<String>) -> Self {
        self.context = Some(context.into());
        self
    }

    /// Part of a conversation of its own, unless it names one or a task: what follows can be sent to where
    /// this is handled, though only the conversation is known.
    #[must_use]
    pub fn named(mut self) -> Self {
        if self.task.is_none() {
            self.context.get_or_insert_with(super::record::new_id);
        }
        self
    }
}

/// The metadata of such a request. It's in the journal with the request: a version that doesn't know it runs the task
/// again, and a client that sends the same gets what it says.
const ENDS_WITH_ASKER: &str = r#"{"neuroflow":{"endsWithAsker":true}}"#;

impl ArchivedAsk {
    /// Whether nobody would ever hear of what a second run of its task makes.
    pub(crate) fn ends_with_asker(&self) -> bool {
        self.metadata.as_deref() == Some(ENDS_WITH_ASKER)
    }
}

impl WireMessage for Ask {
    const NAME: &'static str = "neuroflow.agent.ask";
    const VERSION: u16 = 1;
}

impl WireRequest for Ask {
    type Reply = TaskEvent;

    /// Its conversation.
    fn affinity(ask: &ArchivedAsk) -> Option<&str> {
        ask.context.as_deref()
    }
}

/// One event of a task. Events are numbered from 1 without a gap.
///
/// ```
/// use neuroflow_actors::{Change, TaskEvent, TaskState};
/// let event = TaskEvent {
///     task: "t".into(), context: "c".into(), generation: 1, at_ms: 0,
///     change: Change::Status { state: TaskState::Working, turn: None },
/// };
/// assert!(!TaskState::Working.is_terminal());
/// # let _ = event;
/// ```
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub struct TaskEvent {
    /// The task.
    pub task: String,
    /// Its conversation.
    pub context: String,
    /// The event's number; 0 if it's no event of the task but says why a request was refused.
    pub generation: u64,
    /// When, in milliseconds of Unix time.
    pub at_ms: u64,
    /// What has changed.
    pub change: Change,
}

impl WireMessage for TaskEvent {
    const NAME: &'static str = "neuroflow.agent.task-event";
    const VERSION: u16 = 1;
}

/// What an event changes.
///
/// ```
/// use neuroflow_actors::{Artifact, Change};
/// let change = Change::from(Artifact::text("greeting", "hello"));
/// assert!(matches!(change, Change::Artifact { append: false, last: true, .. }));
/// ```
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The task was accepted. It has all that the agent's function needs to be run again.
    Accepted {
        /// What was asked.
        ask: Ask,
    },
    /// The client said something more.
    Continued {
        /// What was said.
        ask: Ask,
    },
    /// Its state is another, or the agent says something.
    Status {
        /// The state.
        state: TaskState,
        /// What the agent says.
        turn: Option<Turn>,
    },
    /// It has produced something.
    Artifact {
        /// What, or a piece of it.
        artifact: Artifact,
        /// Whether the parts follow those that the artifact of this id has already.
        append: bool,
        /// Whether nothing more of it will come.
        last: bool,
    },
    /// A request was refused. It's told to whoever asked, and part of no task.
    Refused(AskRefusal),
}

impl From<Artifact> for Change {
    /// A whole artifact.
    fn from(artifact: Artifact) -> Self {
        Self::Artifact { artifact, append: false, last: true }
    }
}

/// Why an agent refuses a request.
///
/// ```
/// use neuroflow_actors::{AskRefusal, TaskState};
/// let refusal = AskRefusal::Ended { state: TaskState::Completed };
/// assert_eq!(refusal.to_string(), "the task is already completed");
/// ```
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskRefusal {
    /// It has as much to do as it may have.
    #[error("the agent is busy")]
    Busy,
    /// It has no such task, or none of this caller's.
    #[error("there is no such task")]
    UnknownTask,
    /// The task has ended: nothing can be said to it any more.
    #[error("the task is already {}", state.as_str())]
    Ended {
        /// The state.
        state: TaskState,
    },
    /// Another node has the task.
    #[error("another node has the task")]
    Elsewhere,
    /// The journal doesn't take it, so that it would be lost with the node.
    #[error("the journal doesn't take the task")]
    Unkept,
    /// The task belongs to another conversation.
    #[error("the task is part of another context")]
    OtherContext,
}

impl From<&ArchivedAskRefusal> for AskRefusal {
    fn from(refusal: &ArchivedAskRefusal) -> Self {
        match refusal {
            ArchivedAskRefusal::Busy => Self::Busy,
            ArchivedAskRefusal::UnknownTask => Self::UnknownTask,
            ArchivedAskRefusal::Ended { state } => Self::Ended { state: (*state).into() },
            ArchivedAskRefusal::Elsewhere => Self::Elsewhere,
            ArchivedAskRefusal::Unkept => Self::Unkept,
            ArchivedAskRefusal::OtherContext => Self::OtherContext,
        }
    }
}
