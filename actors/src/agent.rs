//! The contract of agents: what lies in an agent's mailbox, and what can be asked about its tasks.
//!
//! What is said is in `turn`, requests and events are in `event`, what a host defines in `define`
//! and `profile`.

mod call;
mod define;
mod effect;
mod end;
mod event;
pub(crate) mod history;
mod live;
mod order;
mod profile;
mod reach;
pub(crate) mod read;
mod record;
mod reply;
mod resume;
mod server;
mod task;
mod trials;
mod turn;
mod work;

use std::fmt;
use std::pin::Pin;

use neuroflow_kernel::{
    Address, CallError, Header, Message, Parcel, RawParcel, Reply, ReplySink, ReplyStream, Request,
    Rights, reply_stream,
};

use crate::journal::{AppendError, Entry, ReadError, TaskLog};

pub(crate) use define::CHAT;
pub use define::{
    Agent, AgentBuilder, AgentError, Answer, AnyAgent, Conclusion, Incoming, InputProblem,
};
pub use effect::EffectError;
pub use end::{EndTaskError, end_task};
pub use event::{
    ArchivedAsk, ArchivedAskRefusal, ArchivedChange, ArchivedTaskEvent, Ask, AskRefusal, Change,
    TaskEvent,
};
pub(crate) use history::failure;
pub(crate) use reply::{INVALID_RESPONSE, overlap};

pub use order::{AgentWay, ArchivedTaskOrder, ArchivedTaskWish, TaskOrder, TaskWish};
pub use profile::{AgentProfile, ExtendedProfile, Extension, Provider, Skill};
pub use reach::{ArchivedBoundedAsk, BoundedAsk};
pub use reply::ReplyProblem;
pub use server::AgentServer;
pub use task::{Chunk, TaskContext};
pub use trials::{Trial, Trials};
pub use turn::{
    ArchivedArtifact, ArchivedContent, ArchivedPart, ArchivedRole, ArchivedTurn, Artifact, Content,
    Part, Role, Turn,
};

pub use crate::journal::{ArchivedTaskState, TaskCursor, TaskQuery, TaskState};

/// The right to ask an agent something.
pub const ASK: Rights = Rights::bit(0);
/// The right to read an agent's tasks.
pub const READ: Rights = Rights::bit(1);
/// The right to cancel an agent's tasks.
pub const CANCEL: Rights = Rights::bit(2);

/// The events of a task so far, oldest first.
pub type TaskEvents = Vec<Parcel<TaskEvent>>;

/// What lies in an agent's mailbox.
///
/// Where a command has a `caller`, a task of anybody else's is as good as none; without one every
/// task is there.
///
/// ```
/// use neuroflow_actors::AgentCommand;
/// use neuroflow_kernel::Message;
/// fn label(command: &AgentCommand) -> &'static str {
///     command.name()
/// }
/// ```
#[derive(Debug)]
pub enum AgentCommand {
    /// Begin a task, or say something to one. Needs [`ASK`].
    Ask(Request<Ask>),
    /// The same by another node, whose rules bound what may be used for it. Needs [`ASK`].
    BoundedAsk(Request<BoundedAsk>),
    /// The events of a task; none if there is no such task. Needs [`READ`].
    Read {
        /// Its id.
        task: String,
        /// Whose it must be.
        caller: Option<String>,
        /// The answer.
        reply: Reply<Option<TaskEvents>>,
    },
    /// The events of a task so far, and from then on; none if there is no such task. Between the two
    /// nothing is missing and nothing is twice. Needs [`READ`].
    Follow {
        /// Its id.
        task: String,
        /// Whose it must be.
        caller: Option<String>,
        /// The answer has the events after this generation only.
        after: Option<u64>,
        /// Takes the events to come, until the task has ended.
        events: ReplySink<Parcel<TaskEvent>>,
        /// The answer.
        reply: Reply<Option<TaskEvents>>,
    },
    /// One page of the tasks. Needs [`READ`].
    List {
        /// Which of them.
        query: TaskQuery,
        /// The answer.
        reply: Reply<TaskPage>,
    },
    /// End a task and everything that works for it. Needs [`CANCEL`].
    Cancel {
        /// Its id.
        task: String,
        /// Whose it must be.
        caller: Option<String>,
        /// The events, the cancellation included.
        reply: Reply<Result<TaskEvents, CancelError>>,
    },
    /// Another node wants something of a task that it has begun here. Needs [`READ`] or [`CANCEL`].
    Order(Request<TaskOrder>),
    /// There is something left to do of a task that is over, such as telling another node. It comes from what
    /// the agent's function leaves behind.
    Leave,
    /// A task's own progress. It comes from the task's actor, which alone has the owner's address.
    Progress {
        /// Its id.
        task: String,
        /// What has changed since the last time, in order; nothing if it only says that it works.
        changes: Vec<Change>,
    },
    /// A task waits for its client's next message. It comes from the task's actor.
    Wait {
        /// Its id.
        task: String,
        /// The state that it waits in.
        state: TaskState,
        /// What the agent asks for.
        turn: Turn,
        /// Takes the message. None if the task is run again, and nobody had answered here when it was run before.
        reply: Reply<Option<Incoming>>,
    },
    /// Keep the result of an effect; answered once it's durable. It comes from the task's actor.
    Keep {
        /// The task.
        task: String,
        /// The effect.
        key: String,
        /// Its result.
        json: String,
        /// The answer.
        reply: Reply<Result<(), AppendError>>,
    },
    /// Keep an entry of a tool call. It comes from the task's actor.
    Note {
        /// The task.
        task: String,
        /// The entry.
        entry: Entry,
        /// Answered once it's durable. Without, it goes with what the task says next.
        kept: Option<Reply<Result<(), AppendError>>>,
    },
    /// The journal has taken what it was given of these tasks, or not. It comes from the agent's
    /// actor itself.
    Landed(Vec<(String, Result<(), AppendError>)>),
    /// What the journal has of a task that it didn't take something of. It comes from the agent's
    /// actor itself.
    Reread {
        /// The task.
        task: String,
        /// Its log.
        log: Result<Option<TaskLog>, ReadError>,
    },
    /// A task's actor has ended, and may not have told so. It comes from the agent's actor itself.
    Gone {
        /// The task.
        task: String,
        /// Its end, if it has told none.
        change: Change,
    },
    /// Run a task again that may be what has ended the node. It comes from the agent's actor itself.
    Try {
        /// The task.
        task: String,
        /// Its turn, until it's known what comes of it.
        trial: Trial,
    },
    /// How many tasks live. It comes from whoever has started the agent's actor.
    Live {
        /// Whether those count that wait for their clients.
        waiting: bool,
        /// The answer.
        reply: Reply<usize>,
    },
    /// Tell once no task works that would be lost with this process: none but such as wait for their clients, or go on
    /// at the next start. It's told late, or never, where more are begun meanwhile. Needs [`READ`].
    Drain {
        /// The answer.
        reply: Reply<()>,
    },
    /// Messages that came while the task didn't wait for one; the next time there are none. It comes
    /// from the task's actor.
    Unread {
        /// Its id.
        task: String,
        /// The answer, oldest first.
        reply: Reply<Vec<Incoming>>,
    },
}

/// What is left to do of a task that is over. Whoever has the agent's own actor does it beside its work.
pub(crate) struct Remains(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Remains {
    pub(crate) fn new(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Box::pin(work))
    }
}

impl fmt::Debug for Remains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remains").finish_non_exhaustive()
    }
}

/// No outside capability has this right: it's for the agent's own children.
pub(crate) const PROGRESS: Rights = Rights::bit(31);

impl Message for AgentCommand {
    fn name(&self) -> &'static str {
        match self {
            Self::Ask(_) => "ask",
            Self::BoundedAsk(_) => "bounded_ask",
            Self::Read { .. } => "read",
            Self::Follow { .. } => "follow",
            Self::List { .. } => "list",
            Self::Cancel { .. } => "cancel",
            Self::Order(_) => "order",
            Self::Leave => "leave",
            Self::Progress { .. } => "progress",
            Self::Wait { .. } => "wait",
            Self::Live { .. } => "live",
            Self::Drain { .. } => "drain",
            Self::Unread { .. } => "unread",
            Self::Keep { .. } => "keep",
            Self::Note { .. } => "note",
            Self::Landed(_) => "landed",
            Self::Reread { .. } => "reread",
            Self::Gone { .. } => "gone",
            Self::Try { .. } => "try",
        }
    }

    fn required_rights(&self) -> Rights {
        match self {
            Self::Ask(_) | Self::BoundedAsk(_) => ASK,
            Self::Read { .. } | Self::Follow { .. } | Self::List { .. } | Self::Drain { .. } => {
                READ
            }
            Self::Cancel { .. } => CANCEL,
            Self::Order(request) => request.required_rights(),
            Self::Leave
            | Self::Progress { .. }
            | Self::Wait { .. }
            | Self::Live { .. }
            | Self::Unread { .. }
            | Self::Keep { .. }
            | Self::Note { .. }
            | Self::Landed(_)
            | Self::Reread { .. }
            | Self::Gone { .. }
            | Self::Try { .. } => PROGRESS,
        }
    }

    fn archive(&self) -> Option<RawParcel> {
        match self {
            Self::Ask(request) => request.archive(),
            Self::BoundedAsk(request) => request.archive(),
            Self::Order(request) => request.archive(),
            _ => None,
        }
    }
}

/// Some of an agent's tasks.
///
/// ```
/// let page = neuroflow_actors::TaskPage::default();
/// assert!(page.tasks.is_empty() && page.next.is_none());
/// ```
#[derive(Clone, Debug, Default)]
pub struct TaskPage {
    /// The events of each, in the order of the list.
    pub tasks: Vec<TaskEvents>,
    /// Where the next page begins, if there is one.
    pub next: Option<TaskCursor>,
    /// Tasks that fit the query, wherever the page begins.
    pub total: usize,
}

/// The events of a task so far, and those to come; none if there is no such task, or if it isn't this
/// caller's. Who doesn't keep up with an agent that says much at once is cut off, and follows anew.
///
/// ```
/// use neuroflow_actors::{AgentCommand, follow};
/// use neuroflow_kernel::{Address, CallError, Header};
/// async fn count(agent: &Address<AgentCommand>, task: &str) -> Result<usize, CallError> {
///     let followed = follow(agent, Header::new(), task, None, None).await?;
///     Ok(followed.map_or(0, |(so_far, _to_come)| so_far.len()))
/// }
/// ```
///
/// # Errors
/// Says why the agent doesn't answer.
pub async fn follow(
    agent: &Address<AgentCommand>,
    header: Header,
    task: &str,
    caller: Option<&str>,
    after: Option<u64>,
) -> Result<Option<(TaskEvents, ReplyStream<Parcel<TaskEvent>>)>, CallError> {
    let (events, to_come) = reply_stream();
    let (task, caller) = (task.to_owned(), caller.map(str::to_owned));
    let command = |reply| AgentCommand::Follow { task, caller, after, events, reply };
    let so_far = agent.call(header, command).await?;
    Ok(so_far.map(|so_far| (so_far, to_come)))
}

/// Why a task can't be cancelled.
///
/// ```
/// use neuroflow_actors::{CancelError, TaskState};
/// let error = CancelError::Ended { state: TaskState::Completed };
/// assert_eq!(error.to_string(), "the task is already completed");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CancelError {
    /// There is no such task.
    #[error("there is no such task")]
    Unknown,
    /// Another node has it.
    #[error("another node has the task")]
    Elsewhere,
    /// It's in a final state.
    #[error("the task is already {}", state.as_str())]
    Ended {
        /// The state.
        state: TaskState,
    },
}
