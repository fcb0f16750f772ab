//! One task's events and the state that follows from them: pure, without actors or clock.

use neuroflow_kernel::{Parcel, ParcelError};

use super::{Change, TaskCursor, TaskEvent, TaskEvents, TaskQuery, TaskState};
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
            events: Vec::new(),
            bytes: 0,
        }
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

    /// The events after this generation.
    pub(super) fn events_after(&self, generation: Option<u64>) -> TaskEvents {
        // Event n is at index n - 1.
        let seen = generation.map_or(0, |seen| usize::try_from(seen).unwrap_or(usize::MAX));
        self.events.get(seen..).unwrap_or_default().to_vec()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a caller may know of it: everybody may if it isn't known who asks.
    pub(super) fn is_visible_to(&self, caller: Option<&str>) -> bool {
        caller.is_none() || self.caller.as_deref() == caller
    }

    /// Whether it's among those that are asked for, wherever the page begins.
    pub(super) fn fits(&self, query: &TaskQuery) -> bool {
        self.is_visible_to(query.caller.as_deref())
            && query.context.as_ref().is_none_or(|context| *context == self.context)
            && query.state.is_none_or(|state| state == self.state)
            && query.since_ms.is_none_or(|since| self.changed_ms >= since)
    }

    /// Its place in the list of tasks.
    pub(super) fn place(&self) -> TaskCursor {
        TaskCursor { changed_ms: self.changed_ms, task: self.task.clone() }
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
        let generation = u64::try_from(self.events.len()).unwrap_or(u64::MAX).saturating_add(1);
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
    fn events_after_a_generation_are_those_that_were_not_seen() {
        let mut record = Record::new("t".into(), "c".into(), None);
        record.append(accepted(), 1).unwrap();
        record.append(status(TaskState::Working), 2).unwrap();
        let seen = |generation| record.events_after(generation).len();
        assert_eq!([seen(None), seen(Some(0)), seen(Some(1)), seen(Some(2))], [2, 2, 1, 0]);
        assert_eq!(seen(Some(u64::MAX)), 0);
    }

    #[test]
    fn a_known_caller_sees_its_own_tasks_only() {
        let record = Record::new("t".into(), "c".into(), Some("alice".into()));
        assert!(record.is_visible_to(Some("alice")) && record.is_visible_to(None));
        assert!(!record.is_visible_to(Some("bob")));
        assert!(!Record::new("t".into(), "c".into(), None).is_visible_to(Some("bob")));
    }

    #[test]
    fn a_query_is_met_by_context_state_and_time_of_the_last_status() {
        let mut record = Record::new("t".into(), "c".into(), None);
        record.append(accepted(), 5).unwrap();
        record.append(status(TaskState::Working), 7).unwrap();
        record.append(Artifact::text("a", "b").into(), 9).unwrap();
        let fits = |change: fn(&mut TaskQuery)| {
            let mut query = TaskQuery::first(1);
            change(&mut query);
            record.fits(&query)
        };
        assert!(fits(|_| {}));
        assert!(fits(|query| query.since_ms = Some(7)));
        assert!(!fits(|query| query.since_ms = Some(8)));
        assert!(fits(|query| query.state = Some(TaskState::Working)));
        assert!(!fits(|query| query.state = Some(TaskState::Submitted)));
        assert!(fits(|query| query.context = Some("c".into())));
        assert!(!fits(|query| query.context = Some("d".into())));
        assert!(!fits(|query| query.caller = Some("bob".into())));
        assert_eq!(record.place().changed_ms, 7);
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
