//! Where the tasks are read: in the journal itself, or at the node that has it.

use std::path::PathBuf;

use neuroflow::actors::{JournalPlace, OpenError, OpenedJournal};
use neuroflow::kernel::Clock;

use super::TasksError;
use crate::config::SocketPath;
use crate::control::{
    self, ControlRequest, LogPart, Outcome, TaskPage, TasksAsked, TasksFound, Wanted, ask,
};

/// A journal that can be read. Both ways give the same lines.
pub(super) enum Source {
    Opened(Box<OpenedJournal>),
    Running(Running),
}

/// A node that runs, and has the journal.
pub(super) struct Running {
    socket: PathBuf,
    journal: String,
    clock: Clock,
}

impl Source {
    /// Opens the journal at this place, only to read it, or finds the node that has it open.
    pub(super) async fn find(
        place: JournalPlace,
        socket: Option<SocketPath>,
        clock: &Clock,
    ) -> Result<Self, TasksError> {
        if let JournalPlace::Directory(path) = &place
            && !path.join("format").exists()
        {
            // Opening it would make it.
            return Err(TasksError::Absent { place: path.display().to_string() });
        }
        let journal = control::name(&place);
        let held = match &place {
            JournalPlace::Memory => None,
            place => match OpenedJournal::open_to_read(place.clone(), clock.clone()).await {
                Ok(opened) => return Ok(Self::Opened(Box::new(opened))),
                Err(OpenError::Locked { place }) => Some(place),
                Err(OpenError::Absent { place }) => return Err(TasksError::Absent { place }),
                Err(error) => return Err(error.into()),
            },
        };
        let refused = |source| match held {
            Some(place) => TasksError::Held { place, source },
            None => TasksError::Memory { source },
        };
        let socket = match socket {
            Some(SocketPath::At(socket)) => socket,
            Some(SocketPath::Off) => return Err(refused(None)),
            None => control::default_path().map_err(TasksError::System)?,
        };
        let running = Running { socket, journal, clock: clock.clone() };
        match running.ask(false, Wanted::Agents {}).await {
            Ok(_) => Ok(Self::Running(running)),
            Err(TasksError::Ask(source)) => Err(refused(Some(source))),
            Err(error) => Err(error),
        }
    }

    /// The agents that have tasks.
    pub(super) async fn agents(&self) -> Result<Vec<String>, TasksError> {
        match self {
            Self::Opened(journal) => Ok(journal.agents().await?),
            Self::Running(node) => match node.ask(false, Wanted::Agents {}).await? {
                TasksFound::Agents(agents) => Ok(agents),
                _ => Err(TasksError::Other),
            },
        }
    }

    /// A page of an agent's tasks.
    pub(super) async fn page(&self, wanted: Wanted, json: bool) -> Result<TaskPage, TasksError> {
        match self {
            Self::Opened(journal) => {
                let query = control::query(&wanted).ok_or(TasksError::Other)?;
                let Wanted::Page { agent, .. } = wanted else { return Err(TasksError::Other) };
                Ok(control::page(journal.heads(&agent, query).await?, json))
            }
            Self::Running(node) => match node.ask(json, wanted).await? {
                TasksFound::Page(page) => Ok(page),
                _ => Err(TasksError::Other),
            },
        }
    }

    /// A part of a task's log, from this line; none if there is no such task.
    pub(super) async fn log(
        &self,
        agent: &str,
        task: &str,
        (json, from): (bool, usize),
    ) -> Result<Option<LogPart>, TasksError> {
        match self {
            Self::Opened(journal) => {
                let log = journal.read(agent, task).await?;
                Ok(log.map(|log| control::part(&log, json, from)))
            }
            Self::Running(node) => {
                let (agent, task) = (agent.to_owned(), task.to_owned());
                match node.ask(json, Wanted::Log { agent, task, from }).await? {
                    TasksFound::Log(part) => Ok(part),
                    _ => Err(TasksError::Other),
                }
            }
        }
    }
}

impl Running {
    async fn ask(&self, json: bool, wanted: Wanted) -> Result<TasksFound, TasksError> {
        let asked = TasksAsked { journal: self.journal.clone(), json, wanted };
        match ask(&self.socket, &self.clock, &ControlRequest::Tasks(asked)).await? {
            Outcome::Tasks(found) => Ok(found),
            _ => Err(TasksError::Other),
        }
    }
}
