//! The tasks of a running node's journal as the control socket gives them: in pages, as the lines that
//! `neuroflow tasks` prints. A line is of one moment of its task.

use neuroflow::actors::{
    HeadPage, Journal, JournalPlace, ReadError, TaskCursor, TaskLog, TaskQuery,
};
use serde::{Deserialize, Serialize};

use super::{Fault, FaultCode, Outcome};
use crate::limits::{CONTROL_LOG_BYTES, CONTROL_TASKS, ERROR_CHAIN};
use crate::task_text;

/// The journal of a node, and what it's called.
#[derive(Debug)]
pub(crate) struct NodeJournal {
    journal: Journal,
    name: String,
}

impl NodeJournal {
    pub(crate) fn new(journal: Journal, name: String) -> Self {
        Self { journal, name }
    }
}

/// What a journal is called by both ends of the socket; no URL of a database, which may have a password.
pub(crate) fn name(place: &JournalPlace) -> String {
    match place {
        JournalPlace::Memory => "memory".to_owned(),
        JournalPlace::Directory(path) => {
            // One that isn't there yet has no other name.
            let path = path.canonicalize().unwrap_or_else(|_missing| path.clone());
            path.to_string_lossy().into_owned()
        }
        _ => "database".to_owned(),
    }
}

/// What is asked of the tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TasksAsked {
    /// Of this journal only: another node may have the socket now.
    pub(crate) journal: String,
    /// Whether the lines are to be JSON.
    pub(crate) json: bool,
    pub(crate) wanted: Wanted,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Wanted {
    /// The agents that have tasks.
    Agents {},
    /// A page of one's tasks, the last changed first.
    Page {
        agent: String,
        state: Option<String>,
        context: Option<String>,
        since_ms: Option<u64>,
        after: Option<Place>,
        limit: usize,
    },
    /// The log of a task, from this line.
    Log { agent: String, task: String, from: usize },
}

/// The last task that was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Place {
    pub(crate) changed_ms: u64,
    pub(crate) task: String,
}

/// What was found.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TasksFound {
    Agents(Vec<String>),
    Page(TaskPage),
    Log(Option<LogPart>),
}

/// A page of tasks.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct TaskPage {
    pub(crate) rows: Vec<TaskRow>,
    pub(crate) total: usize,
    pub(crate) next: Option<Place>,
}

/// A task in one line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TaskRow {
    pub(crate) task: String,
    pub(crate) changed_ms: u64,
    pub(crate) line: String,
}

/// Lines of a task's log, and which is the next one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LogPart {
    pub(crate) lines: Vec<String>,
    pub(crate) next: Option<usize>,
}

/// Which tasks are wanted; none if it isn't that, or of a state that there isn't.
pub(crate) fn query(wanted: &Wanted) -> Option<TaskQuery> {
    let Wanted::Page { agent: _, state, context, since_ms, after, limit } = wanted else {
        return None;
    };
    let mut query = TaskQuery::first((*limit).min(CONTROL_TASKS));
    if let Some(state) = state {
        query.state = Some(task_text::state(state)?);
    }
    query.context.clone_from(context);
    query.since_ms = *since_ms;
    let after = after.clone();
    query.after = after.map(|Place { changed_ms, task }| TaskCursor { changed_ms, task });
    Some(query)
}

/// A page as lines.
pub(crate) fn page(page: HeadPage, json: bool) -> TaskPage {
    let rows = page.heads.iter().map(|head| TaskRow {
        task: head.task.clone(),
        changed_ms: head.changed_ms,
        line: task_text::head(head, json),
    });
    let rows = rows.collect();
    let next = page.next.map(|TaskCursor { changed_ms, task }| Place { changed_ms, task });
    TaskPage { rows, total: page.total, next }
}

/// The lines of a log from one of them, as many as fit into an answer. A log only grows, so that the
/// parts of one that is written meanwhile fit together.
pub(crate) fn part(log: &TaskLog, json: bool, from: usize) -> LogPart {
    let all = task_text::log(log, json);
    let (count, mut bytes) = (all.len(), 0);
    let fitting = |line: &String| {
        let fits = bytes < CONTROL_LOG_BYTES;
        bytes += line.len();
        fits
    };
    let lines: Vec<String> = all.into_iter().skip(from).take_while(fitting).collect();
    let next = from.saturating_add(lines.len());
    LogPart { lines, next: (next < count).then_some(next) }
}

/// Answers from the node's journal.
pub(super) async fn answer(journal: Option<&NodeJournal>, asked: TasksAsked) -> Outcome {
    let Some(node) = journal else {
        let message = "the node has no journal yet; ask again".to_owned();
        return Outcome::Error(Fault { code: FaultCode::NoJournal, message });
    };
    if node.name != asked.journal {
        let message = format!("its journal is {}", node.name);
        return Outcome::Error(Fault { code: FaultCode::OtherJournal, message });
    }
    let found = match find(&node.journal, asked).await {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err(Fault {
            code: FaultCode::MalformedRequest,
            message: format!("there is no such state; it's one of {}", task_text::states()),
        }),
        Err(error) => Err(Fault { code: FaultCode::Unreadable, message: chain(&error) }),
    };
    found.map_or_else(Outcome::Error, Outcome::Tasks)
}

async fn find(journal: &Journal, asked: TasksAsked) -> Result<Option<TasksFound>, ReadError> {
    let TasksAsked { json, wanted, .. } = asked;
    Ok(Some(match &wanted {
        Wanted::Agents {} => TasksFound::Agents(journal.agents().await?),
        Wanted::Page { agent, .. } => match query(&wanted) {
            Some(query) => TasksFound::Page(page(journal.heads(agent, query).await?, json)),
            None => return Ok(None),
        },
        Wanted::Log { agent, task, from } => {
            let log = journal.read(agent, task).await?;
            TasksFound::Log(log.map(|log| part(&log, json, *from)))
        }
    }))
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let causes: Vec<String> = causes.take(ERROR_CHAIN).map(ToString::to_string).collect();
    causes.join(": ")
}

#[cfg(test)]
mod tests {
    use neuroflow::TaskState;
    use neuroflow::actors::{EffectResult, Entry, EntryKind, TaskHead};
    use neuroflow::kernel::Parcel;

    use super::*;

    fn log(entries: usize, bytes: usize) -> TaskLog {
        let head = TaskHead {
            agent: "echo".into(),
            task: "t".into(),
            context: "c".into(),
            caller: None,
            state: TaskState::Working,
            changed_ms: 0,
            generation: 1,
            entries: entries as u64,
        };
        let entry = |number: usize| {
            let json = format!("\"{}\"", "x".repeat(bytes));
            let result = Parcel::archive(&EffectResult { json }).unwrap();
            let entry = Entry::new(EntryKind::Effect, result.as_raw().clone());
            entry.keyed(number.to_string())
        };
        TaskLog { head, entries: (0..entries).map(entry).collect(), damage: Vec::new() }
    }

    #[test]
    fn the_parts_of_a_long_log_are_the_whole() {
        let long = log(7, CONTROL_LOG_BYTES / 3);
        for json in [true, false] {
            let (mut lines, mut from, mut parts) = (Vec::new(), Some(0), 0);
            while let Some(begin) = from {
                let part = part(&long, json, begin);
                assert!(!part.lines.is_empty());
                lines.extend(part.lines);
                from = part.next;
                parts += 1;
            }
            assert_eq!(lines, task_text::log(&long, json));
            assert_eq!(parts, 3, "{json}");
        }
    }

    #[test]
    fn a_part_past_the_end_is_the_last() {
        let part = part(&log(1, 3), true, usize::MAX);
        assert_eq!((part.lines.len(), part.next), (0, None));
    }

    #[test]
    fn requests_name_states_that_there_are() {
        let of = |state: &str| Wanted::Page {
            agent: "echo".into(),
            state: Some(state.into()),
            context: None,
            since_ms: None,
            after: None,
            limit: usize::MAX,
        };
        assert_eq!(query(&of("input-required")).unwrap().limit, CONTROL_TASKS);
        assert!(query(&of("Working")).is_none());
        assert!(query(&Wanted::Agents {}).is_none());
    }
}
