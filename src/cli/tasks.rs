//! `neuroflow tasks`: what the journal of a node, or of a database, has of its tasks.

mod source;

use std::collections::HashSet;
use std::io::{self, Write};

use clap::{Args, Subcommand};
use neuroflow::actors::{JournalPlace, OpenError, ReadError};

use self::source::Source;
use super::{CliError, Globals, SUCCESS, small_runtime};
use crate::config::{JournalUrl, Overrides, default_directory};
use crate::control::{self, ControlClientError, Place, TaskPage, Wanted};
use crate::limits::{CONTROL_TASKS, EXPORT_LOOKS};
use crate::plain;
use crate::task_text;

/// Looks at the tasks in the journal.
///
/// Whether its node runs or not: a directory belongs to the node that runs on it, which is then asked by
/// its control socket.
#[derive(Args, Debug)]
pub(super) struct TasksCommand {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    settings: Overrides,
}

#[derive(Debug, Subcommand)]
enum Action {
    List(List),
    Show(Show),
    Export(Export),
}

/// Lists tasks, the last changed first.
#[derive(Args, Debug)]
struct List {
    /// Of this agent only
    #[arg(long)]
    agent: Option<String>,
    /// In this state only, such as "failed"
    #[arg(long)]
    state: Option<String>,
    /// Of this conversation only
    #[arg(long)]
    context: Option<String>,
    /// At most so many of each agent
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// Print JSON lines
    #[arg(long)]
    json: bool,
}

/// Shows the log of one task.
#[derive(Args, Debug)]
struct Show {
    /// Its id
    task: String,
    /// Its agent; found out unless it's given
    #[arg(long)]
    agent: Option<String>,
    /// Print JSON lines
    #[arg(long)]
    json: bool,
}

/// Writes every entry of every task as a line of JSON.
#[derive(Args, Debug)]
struct Export {
    /// Of this agent only
    #[arg(long)]
    agent: Option<String>,
}

/// Why there is nothing to look at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum TasksError {
    /// Nobody says where the journal is.
    #[error("nobody says where the journal is; name it with --journal-url")]
    Nowhere,
    /// Memory is its process's, and that isn't found.
    #[error(
        "journal.url is \"memory\", which only its running node can show; name that one's control \
         socket with --control-socket, or another journal with --journal-url"
    )]
    Memory {
        #[source]
        source: Option<ControlClientError>,
    },
    /// Its node runs, and isn't found.
    #[error(
        "another node has the journal {place}, and can't be asked; name its control socket with \
         --control-socket, or stop it"
    )]
    Held {
        place: String,
        #[source]
        source: Option<ControlClientError>,
    },
    /// The node doesn't answer, or refuses.
    #[error(transparent)]
    Ask(#[from] ControlClientError),
    /// The answer is to something else.
    #[error("the node answers something else; use the node's own binary")]
    Other,
    /// Our own user can't be found out.
    #[error("the system refused to say who you are; name the socket with --control-socket")]
    System(#[source] io::Error),
    /// There is no such directory, or nothing of ours in the database.
    #[error("there is no journal in {place}; name another with --journal-url")]
    Absent { place: String },
    /// It can't be opened.
    #[error("the journal can't be looked at")]
    Open(#[from] OpenError),
    /// It can't be read.
    #[error("the journal can't be read")]
    Read(#[from] ReadError),
    /// There is no such task.
    #[error("there is no task {task:?} in the journal; `neuroflow tasks list` lists them")]
    UnknownTask { task: String },
    /// There is no such state.
    #[error("there is no state {state:?}; write one of {}", task_text::states())]
    UnknownState { state: String },
}

impl TasksCommand {
    pub(super) fn run(self, globals: Globals<'_>, out: &mut dyn Write) -> Result<u8, CliError> {
        let loaded = globals.load(&self.settings)?;
        let url = loaded.config.journal.url.as_ref().map(JournalUrl::place).cloned();
        let place = url.or_else(|| default_directory().map(JournalPlace::Directory));
        let place = place.ok_or(TasksError::Nowhere)?;
        let (socket, name) = (loaded.config.control.socket, control::name(&place));
        small_runtime()?.block_on(async {
            let journal = Source::find(place, socket, globals.clock).await?;
            match self.action {
                Action::List(list) => list.run(&journal, &name, out).await?,
                Action::Show(show) => show.run(&journal, out).await?,
                Action::Export(export) => export.run(&journal, out).await?,
            }
            Ok(SUCCESS)
        })
    }
}

/// The agents that are asked for.
async fn agents(journal: &Source, wanted: Option<String>) -> Result<Vec<String>, TasksError> {
    match wanted {
        Some(agent) => Ok(vec![agent]),
        None => journal.agents().await,
    }
}

impl List {
    async fn run(self, journal: &Source, name: &str, out: &mut dyn Write) -> Result<(), CliError> {
        if let Some(state) = self.state.as_ref().filter(|state| task_text::state(state).is_none()) {
            return Err(TasksError::UnknownState { state: state.clone() }.into());
        }
        let mut any = false;
        for agent in agents(journal, self.agent.clone()).await? {
            let (mut written, mut after) = (0, None);
            let total = loop {
                let wanted = Wanted::Page {
                    agent: agent.clone(),
                    state: self.state.clone(),
                    context: self.context.clone(),
                    since_ms: None,
                    after,
                    limit: self.limit.saturating_sub(written),
                };
                let TaskPage { rows, total, next } = journal.page(wanted, self.json).await?;
                for row in &rows {
                    writeln!(out, "{}", row.line)?;
                }
                written += rows.len();
                after = next;
                if after.is_none() || written >= self.limit {
                    break total;
                }
            };
            any |= total > 0;
            if !self.json && total > written {
                let more = total - written;
                writeln!(out, "  and {more} more of {}; raise --limit", plain::name(&agent))?;
            }
        }
        if !self.json && !any {
            // It may be another journal than the one that was meant. A program reads no task at all.
            writeln!(io::stderr(), "no such task in {name}")?;
        }
        Ok(())
    }
}

/// Writes a task's log. Says whether there is such a task.
async fn write_log(
    journal: &Source,
    (agent, task): (&str, &str),
    json: bool,
    out: &mut dyn Write,
) -> Result<bool, CliError> {
    let mut from = 0;
    loop {
        let Some(part) = journal.log(agent, task, (json, from)).await? else {
            // Whatever was written of it is the whole, if it has been removed since.
            return Ok(from > 0);
        };
        for line in &part.lines {
            writeln!(out, "{line}")?;
        }
        match part.next {
            Some(next) => from = next,
            None => return Ok(true),
        }
    }
}

impl Show {
    async fn run(self, journal: &Source, out: &mut dyn Write) -> Result<(), CliError> {
        for agent in agents(journal, self.agent).await? {
            if write_log(journal, (&agent, &self.task), self.json, out).await? {
                return Ok(());
            }
        }
        Err(TasksError::UnknownTask { task: self.task }.into())
    }
}

impl Export {
    async fn run(self, journal: &Source, out: &mut dyn Write) -> Result<(), CliError> {
        for agent in agents(journal, self.agent).await? {
            // A task that changes moves to the front, which has been passed by then: what has changed
            // since is looked at again.
            let (mut seen, mut since) = (HashSet::new(), None);
            for _ in 0..EXPORT_LOOKS {
                let known = seen.len();
                since = export(journal, &agent, since, &mut seen, out).await?.or(since);
                if known > 0 && known == seen.len() || seen.is_empty() {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// Writes the logs of an agent's tasks that have changed since, and aren't written yet. Says when the
/// last change was.
async fn export(
    journal: &Source,
    agent: &str,
    since_ms: Option<u64>,
    seen: &mut HashSet<String>,
    out: &mut dyn Write,
) -> Result<Option<u64>, CliError> {
    let (mut last, mut after): (Option<u64>, Option<Place>) = (None, None);
    loop {
        let wanted = Wanted::Page {
            agent: agent.to_owned(),
            state: None,
            context: None,
            since_ms,
            after,
            limit: CONTROL_TASKS,
        };
        let page = journal.page(wanted, true).await?;
        last = last.or_else(|| page.rows.first().map(|row| row.changed_ms));
        for row in page.rows {
            if !seen.contains(&row.task) {
                write_log(journal, (agent, &row.task), true, out).await?;
                seen.insert(row.task);
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok(last);
        }
    }
}
