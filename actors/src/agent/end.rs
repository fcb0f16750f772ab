//! The end of a task that no node runs, by whoever has its journal instead.

use neuroflow_kernel::Clock;

use super::TaskState;
use super::history::failure;
use super::record::Record;
use super::resume::{NODE, events};
use crate::journal::{Append, AppendError, Entry, Journal, ReadError, TaskHead};

/// Why a task isn't ended.
///
/// ```
/// use neuroflow_actors::{EndTaskError, TaskState};
/// let over = EndTaskError::Ended { state: TaskState::Completed };
/// assert_eq!(over.to_string(), "the task is completed already");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndTaskError {
    /// There is no such task.
    #[error("there is no such task")]
    Unknown,
    /// It has ended.
    #[error("the task is {} already", state.as_str())]
    Ended {
        /// How.
        state: TaskState,
    },
    /// It's of another node on the same database.
    #[error("the task is another node's; open the journal by that one's name")]
    Elsewhere,
    /// It can't be read.
    #[error("the task can't be read")]
    Read(#[from] ReadError),
    /// Its end can't be kept.
    #[error("the journal doesn't take the end of the task")]
    Append(#[from] AppendError),
}

/// Ends a task as failed, with the reason `ended_by_hand`. It's for a journal whose agents don't run: one that did
/// would lose the task, as to another node.
///
/// ```
/// use neuroflow_actors::{EndTaskError, Journal, end_task};
/// use neuroflow_kernel::Clock;
/// async fn end(journal: &Journal) -> Result<(), EndTaskError> {
///     end_task(journal, "shop", "6f1c0e5e", &Clock::system()).await
/// }
/// ```
///
/// # Errors
/// Says why it's as it was.
pub async fn end_task(
    journal: &Journal,
    agent: &str,
    task: &str,
    clock: &Clock,
) -> Result<(), EndTaskError> {
    let log = journal.read(agent, task).await?.ok_or(EndTaskError::Unknown)?;
    let TaskHead { task, context, caller, state, generation, entries, .. } = log.head.clone();
    if state.is_terminal() {
        return Err(EndTaskError::Ended { state });
    }
    if journal.unfinished(agent).await?.iter().all(|own| own.task != task) {
        return Err(EndTaskError::Elsewhere);
    }
    let mut record = Record::restored((task, context, caller), events(log), generation);
    let end = failure("somebody has ended the task while its node didn't run", "ended_by_hand");
    let event = record.append(end, clock.unix_ms());
    // So little can be archived, and what hasn't ended has room for it.
    let event = event.map_err(|_full| EndTaskError::Ended { state })?;
    let head = TaskHead { entries, ..record.head(agent) };
    let entry = Entry::event(event.as_raw().clone()).keyed(NODE);
    Ok(journal.append(Append { head, entries: vec![entry] }).await?)
}
