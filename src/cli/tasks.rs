//! `neuroflow tasks`: what the journal of a stopped node, or of a database, has of its tasks.

mod print;

use std::io::Write;

use clap::{Args, Subcommand};
use neuroflow::TaskState;
use neuroflow::actors::{
    JournalConfig, JournalPlace, OpenError, OpenedJournal, ReadError, TaskHead, TaskQuery,
};
use neuroflow::kernel::Clock;

use super::{CliError, Globals, SUCCESS, small_runtime};
use crate::config::{JournalUrl, Loaded, Overrides, default_directory};

/// Looks at the tasks in the journal.
///
/// A directory belongs to the node that runs on it: stop that first, or ask it over its gateway. A
/// database can be looked at while its nodes run.
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
    /// Memory can't be looked at from outside.
    #[error(
        "journal.url is \"memory\", which nobody else can look at; name another with --journal-url"
    )]
    Memory,
    /// There is no such directory.
    #[error("there is no journal at {place}; name another with --journal-url")]
    Absent { place: String },
    /// It can't be opened.
    #[error(
        "the journal can't be looked at; if its node runs, stop it, or ask it over its gateway"
    )]
    Open(#[from] OpenError),
    /// It can't be read.
    #[error("the journal can't be read")]
    Read(#[from] ReadError),
    /// There is no such task.
    #[error("there is no task {task:?} in the journal; `neuroflow tasks list` lists them")]
    UnknownTask { task: String },
    /// There is no such state.
    #[error("there is no state {state:?}; write one of {}", print::states())]
    UnknownState { state: String },
}

impl TasksCommand {
    pub(super) fn run(self, globals: Globals<'_>, out: &mut dyn Write) -> Result<u8, CliError> {
        let loaded = Loaded::from_process(globals.source, &self.settings)?;
        let url = loaded.config.journal.url.as_ref().map(JournalUrl::place).cloned();
        let place = url.or_else(|| default_directory().map(JournalPlace::Directory));
        let place = place.ok_or(TasksError::Nowhere)?;
        small_runtime()?.block_on(self.action.run(place, globals.clock, out))
    }
}

impl Action {
    async fn run(
        self,
        place: JournalPlace,
        clock: &Clock,
        out: &mut dyn Write,
    ) -> Result<u8, CliError> {
        match &place {
            JournalPlace::Memory => return Err(TasksError::Memory.into()),
            // Opening it would make it.
            JournalPlace::Directory(path) if !path.join("format").exists() => {
                return Err(TasksError::Absent { place: path.display().to_string() }.into());
            }
            _ => {}
        }
        let mut config = JournalConfig::new(place);
        // Nobody's tasks are ours.
        config.node = format!("neuroflow-tasks-{}", std::process::id());
        let journal = OpenedJournal::open(config, clock.clone()).await;
        let journal = journal.map_err(TasksError::from)?;
        match self {
            Self::List(list) => list.run(&journal, out).await?,
            Self::Show(show) => show.run(&journal, out).await?,
            Self::Export(export) => export.run(&journal, out).await?,
        }
        Ok(SUCCESS)
    }
}

/// The agents that are asked for.
async fn agents(
    journal: &OpenedJournal,
    wanted: Option<String>,
) -> Result<Vec<String>, TasksError> {
    match wanted {
        Some(agent) => Ok(vec![agent]),
        None => Ok(journal.agents().await?),
    }
}

impl List {
    async fn run(self, journal: &OpenedJournal, out: &mut dyn Write) -> Result<(), CliError> {
        let named = |state: String| {
            let found = print::state(&state);
            found.ok_or(TasksError::UnknownState { state })
        };
        let state: Option<TaskState> = self.state.map(named).transpose()?;
        for agent in agents(journal, self.agent).await? {
            let mut query = TaskQuery::first(self.limit);
            query.state = state;
            query.context.clone_from(&self.context);
            let page = journal.heads(&agent, query).await.map_err(TasksError::from)?;
            for head in &page.heads {
                if self.json {
                    writeln!(out, "{}", print::head_json(head))?;
                } else {
                    print::head(out, head)?;
                }
            }
            if !self.json && page.total > page.heads.len() {
                let more = page.total - page.heads.len();
                writeln!(out, "  and {more} more of {agent}; raise --limit")?;
            }
        }
        Ok(())
    }
}

impl Show {
    async fn run(self, journal: &OpenedJournal, out: &mut dyn Write) -> Result<(), CliError> {
        for agent in agents(journal, self.agent).await? {
            if let Some(log) = journal.read(&agent, &self.task).await.map_err(TasksError::from)? {
                return Ok(print::log(out, &log, self.json)?);
            }
        }
        Err(TasksError::UnknownTask { task: self.task }.into())
    }
}

impl Export {
    async fn run(self, journal: &OpenedJournal, out: &mut dyn Write) -> Result<(), CliError> {
        for agent in agents(journal, self.agent).await? {
            let mut query = TaskQuery::first(PAGE);
            loop {
                let page = journal.heads(&agent, query.clone()).await.map_err(TasksError::from)?;
                for TaskHead { task, .. } in &page.heads {
                    let log = journal.read(&agent, task).await.map_err(TasksError::from)?;
                    if let Some(log) = log {
                        print::log(out, &log, true)?;
                    }
                }
                query.after = page.next;
                if query.after.is_none() {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// Tasks that are listed at once while all are written.
const PAGE: usize = 1_000;
