//! The journal in memory: the same contract, and nothing that survives.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::index::{Index, Known};
use super::store::check;
use super::{Append, AppendError, Entry, TaskLog};

/// A journal in memory.
#[derive(Debug, Default)]
pub(super) struct Memory {
    tasks: Mutex<Index<Vec<Entry>>>,
}

impl Memory {
    pub(super) fn tasks(&self) -> MutexGuard<'_, Index<Vec<Entry>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn append(&self, append: &Append) -> Result<(), AppendError> {
        check(append)?;
        let Append { head, entries } = append;
        let mut tasks = self.tasks();
        let found = tasks.get(&head.agent, &head.task).map_or(0, |known| known.entries);
        if found != head.entries {
            return Err(AppendError::Conflict { expected: head.entries, found });
        }
        let mut known = tasks.remove(&head.agent, &head.task).unwrap_or_else(|| Known {
            context: head.context.as_str().into(),
            caller: head.caller.as_deref().map(Into::into),
            state: head.state,
            at_ms: 0,
            generation: 0,
            entries: 0,
            bytes: 0,
            place: Vec::new(),
        });
        known.state = head.state;
        known.at_ms = head.changed_ms;
        known.generation = head.generation;
        known.entries += entries.len() as u64;
        let bytes = |entry: &Entry| (entry.key.len() + entry.parcel.as_bytes().len()) as u64;
        known.bytes += entries.iter().map(bytes).sum::<u64>();
        known.place.extend(entries.iter().cloned());
        tasks.put(&head.agent, &head.task, known);
        Ok(())
    }

    pub(super) fn read(&self, agent: &str, task: &str) -> Option<TaskLog> {
        let tasks = self.tasks();
        let entries = tasks.get(agent, task)?.place.clone();
        Some(TaskLog { head: tasks.head(agent, task)?, entries, damage: Vec::new() })
    }

    pub(super) fn remove(&self, removed: &[(String, String)]) -> usize {
        let mut tasks = self.tasks();
        removed.iter().filter(|(agent, task)| tasks.remove(agent, task).is_some()).count()
    }
}
