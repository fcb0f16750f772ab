//! One task's events and the state that follows from them: pure, without actors or clock.

use neuroflow_kernel::{Parcel, ParcelError};
use rkyv::{Archive, Serialize};

use super::{Change, TaskEvent, TaskEvents};
use crate::limits::{TASK_BYTES, TASK_EVENTS};

/// Where a task stands, as A2A has it.
///
/// ```
/// use neuroflow_actors::TaskState;
/// assert!(TaskState::Canceled.is_terminal());
/// assert_eq!(TaskState::Working.as_str(), "working");
/// ```
#[derive(Archive, Serialize, Clone, Copy, Debug, PartialEq, Eq)]
#[rkyv(derive(Clone, Copy, Debug, PartialEq, Eq))]
pub enum TaskState {
    /// Accepted, not begun.
    Submitted,
    /// The agent is at work.
    Working,
    /// Done.
    Completed,
    /// The agent gave up, panicked or ran out of time.
    Failed,
    /// Somebody cancelled it.
    Canceled,
}

impl TaskState {
    /// Whether nothing follows.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Canceled)
    }

    /// The state in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::Working => "working",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }
}

impl From<ArchivedTaskState> for TaskState {
    fn from(state: ArchivedTaskState) -> Self {
        match state {
            ArchivedTaskState::Submitted => Self::Submitted,
            ArchivedTaskState::Working => Self::Working,
            ArchivedTaskState::Completed => Self::Completed,
            ArchivedTaskState::Failed => Self::Failed,
            ArchivedTaskState::Canceled => Self::Canceled,
        }
    }
}

/// Why an event can't be added to a task.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    #[error("the task is already {}", state.as_str())]
    Ended { state: TaskState },
    #[error("a task may have {TASK_EVENTS} events and {TASK_BYTES} bytes of them")]
    Full,
    #[error("the event can't be archived")]
    Archive(#[from] ParcelError),
}

/// A task: its events in order.
pub(super) struct Record {
    task: String,
    context: String,
    state: TaskState,
    events: TaskEvents,
    bytes: usize,
}

impl Record {
    pub(super) fn new(task: String, context: String) -> Self {
        Self { task, context, state: TaskState::Submitted, events: Vec::new(), bytes: 0 }
    }

    pub(super) fn state(&self) -> TaskState {
        self.state
    }

    pub(super) fn events(&self) -> &TaskEvents {
        &self.events
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Numbers the change, archives it, and keeps it. The end of a task always has room.
    pub(super) fn append(
        &mut self,
        change: Change,
        at_ms: u64,
    ) -> Result<Parcel<TaskEvent>, RecordError> {
        if self.state.is_terminal() {
            return Err(RecordError::Ended { state: self.state });
        }
        let state = match &change {
            Change::Status { state, .. } => *state,
            Change::Accepted { .. } | Change::Artifact(_) => self.state,
        };
        let full = self.events.len() >= TASK_EVENTS || self.bytes >= TASK_BYTES;
        if full && !state.is_terminal() {
            return Err(RecordError::Full);
        }
        let generation = u64::try_from(self.events.len()).unwrap_or(u64::MAX).saturating_add(1);
        let event = TaskEvent {
            task: self.task.clone(),
            context: self.context.clone(),
            generation,
            at_ms,
            change,
        };
        let parcel = Parcel::archive(&event)?;
        self.state = state;
        self.bytes += parcel.as_raw().as_bytes().len();
        self.events.push(parcel.clone());
        Ok(parcel)
    }
}

/// A random id. It's a name that nobody can guess, and no authority by itself.
pub(super) fn new_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::{Artifact, Turn};

    fn status(state: TaskState) -> Change {
        Change::Status { state, turn: None }
    }

    #[test]
    fn events_are_numbered_without_a_gap_and_the_end_is_final() {
        let mut record = Record::new("t".into(), "c".into());
        record.append(Change::Accepted { turn: Turn::user("hi") }, 1).unwrap();
        record.append(status(TaskState::Working), 2).unwrap();
        record.append(Change::Artifact(Artifact::text("a", "b")), 3).unwrap();
        record.append(status(TaskState::Completed), 4).unwrap();
        let numbers: Vec<u64> =
            record.events().iter().map(|event| event.get().generation.to_native()).collect();
        assert_eq!(numbers, [1, 2, 3, 4]);
        let late = record.append(status(TaskState::Working), 5).unwrap_err();
        assert!(matches!(late, RecordError::Ended { state: TaskState::Completed }));
        assert_eq!(record.events().len(), 4);
    }

    #[test]
    fn a_task_that_says_too_much_is_full_but_can_still_end() {
        let mut record = Record::new("t".into(), "c".into());
        for at in 0..TASK_EVENTS as u64 {
            record.append(status(TaskState::Working), at).unwrap();
        }
        assert!(matches!(record.append(status(TaskState::Working), 0), Err(RecordError::Full)));
        record.append(status(TaskState::Failed), 0).unwrap();
        assert_eq!(record.state(), TaskState::Failed);
    }

    #[test]
    fn ids_differ() {
        assert_ne!(new_id(), new_id());
        assert_eq!(new_id().len(), 36);
    }
}
