//! One task's events and the state that follows from them: pure, without actors or clock.

use neuroflow_kernel::{Parcel, ParcelError};

use super::{ArchivedChange, Change, TaskEvent, TaskEvents, TaskState};
use crate::limits::{TASK_BYTES, TASK_EVENTS};

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
    caller: Option<String>,
    state: TaskState,
    /// When the state last changed.
    changed_ms: u64,
    /// The last event's number.
    generation: u64,
    events: TaskEvents,
    bytes: usize,
}

impl Record {
    pub(super) fn new(task: String, context: String, caller: Option<String>) -> Self {
        Self {
            task,
            context,
            caller,
            state: TaskState::Submitted,
            changed_ms: 0,
            generation: 0,
            events: Vec::new(),
            bytes: 0,
        }
    }

    /// A task whose events were kept. Some may be lost, but none is after the `last`.
    pub(super) fn restored(
        (task, context, caller): (String, String, Option<String>),
        events: TaskEvents,
        last: u64,
    ) -> Self {
        let mut record = Self::new(task, context, caller);
        for event in &events {
            let event = event.get();
            let at_ms = event.at_ms.to_native();
            match &event.change {
                ArchivedChange::Status { state, .. } => {
                    record.state = (*state).into();
                    record.changed_ms = at_ms;
                }
                ArchivedChange::Accepted { .. } => record.changed_ms = at_ms,
                _ => {}
            }
        }
        record.bytes = events.iter().map(|event| event.as_raw().as_bytes().len()).sum();
        record.generation = last;
        record.events = events;
        record
    }

    pub(super) fn context(&self) -> &str {
        &self.context
    }

    pub(super) fn state(&self) -> TaskState {
        self.state
    }

    pub(super) fn events(&self) -> &TaskEvents {
        &self.events
    }

    pub(super) fn task(&self) -> &str {
        &self.task
    }

    pub(super) fn caller(&self) -> Option<&str> {
        self.caller.as_deref()
    }

    pub(super) fn changed_ms(&self) -> u64 {
        self.changed_ms
    }

    /// Bytes of its events.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The number of the last event.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether a caller may know of it: everybody may if it isn't known who asks.
    pub(super) fn is_visible_to(&self, caller: Option<&str>) -> bool {
        caller.is_none() || self.caller.as_deref() == caller
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
            _ => self.state,
        };
        let full = self.events.len() >= TASK_EVENTS || self.bytes >= TASK_BYTES;
        if full && !state.is_terminal() {
            return Err(RecordError::Full);
        }
        let generation = self.generation.saturating_add(1);
        let event = TaskEvent {
            task: self.task.clone(),
            context: self.context.clone(),
            generation,
            at_ms,
            change,
        };
        let parcel = Parcel::archive(&event)?;
        if matches!(event.change, Change::Accepted { .. } | Change::Status { .. }) {
            self.changed_ms = at_ms;
        }
        self.generation = generation;
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
    use crate::agent::{Artifact, Ask, Turn};

    fn status(state: TaskState) -> Change {
        Change::Status { state, turn: None }
    }

    fn accepted() -> Change {
        Change::Accepted { ask: Ask::new(Turn::user("hi")) }
    }

    #[test]
    fn a_restored_record_goes_on_where_it_was() {
        let mut record = Record::new("t".into(), "c".into(), Some("alice".into()));
        record.append(accepted(), 1).unwrap();
        record.append(status(TaskState::InputRequired), 2).unwrap();
        let of = ("t".to_owned(), "c".to_owned(), Some("alice".to_owned()));
        let mut restored = Record::restored(of, record.events().clone(), 2);
        assert_eq!((restored.state(), restored.changed_ms()), (TaskState::InputRequired, 2));
        restored.append(status(TaskState::Working), 3).unwrap();
        assert_eq!(restored.events()[2].get().generation.to_native(), 3);
    }

    #[test]
    fn a_known_caller_sees_its_own_tasks_only() {
        let record = Record::new("t".into(), "c".into(), Some("alice".into()));
        assert!(record.is_visible_to(Some("alice")) && record.is_visible_to(None));
        assert!(!record.is_visible_to(Some("bob")));
        assert!(!Record::new("t".into(), "c".into(), None).is_visible_to(Some("bob")));
    }

    #[test]
    fn events_are_numbered_without_a_gap_and_the_end_is_final() {
        let mut record = Record::new("t".into(), "c".into(), None);
        record.append(accepted(), 1).unwrap();
        record.append(status(TaskState::Working), 2).unwrap();
        record.append(Artifact::text("a", "b").into(), 3).unwrap();
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
        let mut record = Record::new("t".into(), "c".into(), None);
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
