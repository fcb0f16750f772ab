//! Where a task stands, and which tasks are wanted: what the journal keeps lists by, and agents show.

use rkyv::{Archive, Serialize};

/// Where a task stands, as A2A has it.
///
/// ```
/// use neuroflow_actors::TaskState;
/// assert!(TaskState::Canceled.is_terminal());
/// assert!(TaskState::InputRequired.is_interrupted());
/// assert_eq!(TaskState::Working.as_str(), "working");
/// ```
#[derive(Archive, Serialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[rkyv(derive(Clone, Copy, Debug, PartialEq, Eq))]
pub enum TaskState {
    /// Accepted, not begun.
    Submitted,
    /// The agent is at work.
    Working,
    /// The agent waits for its client's next message.
    InputRequired,
    /// The agent waits for its client to prove something.
    AuthRequired,
    /// Done.
    Completed,
    /// The agent gave up, panicked or ran out of time.
    Failed,
    /// Somebody cancelled it.
    Canceled,
    /// The agent won't do it.
    Rejected,
}

impl TaskState {
    /// Whether nothing follows.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Canceled | Self::Rejected)
    }

    /// Whether it's the client's turn.
    pub fn is_interrupted(self) -> bool {
        matches!(self, Self::InputRequired | Self::AuthRequired)
    }

    /// The state in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::Working => "working",
            Self::InputRequired => "waiting for input",
            Self::AuthRequired => "waiting for authorization",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
            Self::Rejected => "rejected",
        }
    }
}

impl From<ArchivedTaskState> for TaskState {
    fn from(state: ArchivedTaskState) -> Self {
        match state {
            ArchivedTaskState::Submitted => Self::Submitted,
            ArchivedTaskState::Working => Self::Working,
            ArchivedTaskState::InputRequired => Self::InputRequired,
            ArchivedTaskState::AuthRequired => Self::AuthRequired,
            ArchivedTaskState::Completed => Self::Completed,
            ArchivedTaskState::Failed => Self::Failed,
            ArchivedTaskState::Canceled => Self::Canceled,
            ArchivedTaskState::Rejected => Self::Rejected,
        }
    }
}

/// Which tasks of an agent are wanted, the one whose state changed last first.
///
/// ```
/// use neuroflow_actors::{TaskQuery, TaskState};
/// let mut waiting = TaskQuery::first(50);
/// waiting.state = Some(TaskState::InputRequired);
/// assert!(waiting.after.is_none());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskQuery {
    /// Whose they must be; anybody's if it isn't known who asks.
    pub caller: Option<String>,
    /// Of this conversation only.
    pub context: Option<String>,
    /// In this state only.
    pub state: Option<TaskState>,
    /// With a state that is of this moment or later, in milliseconds of Unix time.
    pub since_ms: Option<u64>,
    /// Only those that follow this one in the order of the list.
    pub after: Option<TaskCursor>,
    /// At most so many.
    pub limit: usize,
}

impl TaskQuery {
    /// The first tasks, whatever their state and whoever's they are.
    pub fn first(limit: usize) -> Self {
        Self { caller: None, context: None, state: None, since_ms: None, after: None, limit }
    }
}

/// A place in the list of tasks: the last one that was seen.
///
/// ```
/// use neuroflow_actors::TaskCursor;
/// let older = TaskCursor { changed_ms: 1, task: "a".into() };
/// let newer = TaskCursor { changed_ms: 2, task: "b".into() };
/// assert!(newer < older, "the one that changed last comes first");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskCursor {
    /// When its state last changed, in milliseconds of Unix time.
    pub changed_ms: u64,
    /// Its id.
    pub task: String,
}

impl Ord for TaskCursor {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.changed_ms.cmp(&self.changed_ms).then_with(|| self.task.cmp(&other.task))
    }
}

impl PartialOrd for TaskCursor {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
