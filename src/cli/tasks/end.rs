//! `neuroflow tasks end`: the end of a task whose node doesn't run, perhaps because of that task.

use std::io::Write;

use clap::Args;
use neuroflow::actors::{
    EndTaskError, Journal, JournalConfig, JournalPlace, JournalServer, OpenError, OpenedJournal,
    end_task,
};
use neuroflow::kernel::{ChildSpec, Clock, Kernel};

use super::TasksError;
use super::source::exists;
use crate::cli::CliError;
use crate::plain;

/// Ends a task as failed, by hand, while its node doesn't run.
///
/// A task of a node that runs is cancelled there.
#[derive(Args, Debug)]
pub(super) struct End {
    /// Its id
    task: String,
    /// Its agent; found out unless it's given
    #[arg(long)]
    agent: Option<String>,
}

impl End {
    pub(super) async fn run(
        self,
        place: JournalPlace,
        node: String,
        clock: &Clock,
        out: &mut dyn Write,
    ) -> Result<(), CliError> {
        let opened = open(place, node, clock).await?;
        let kernel =
            Kernel::builder().clock(clock.clone()).start().await.map_err(TasksError::Journal)?;
        let ended = self.end(opened, &kernel, clock).await;
        // The journal's actor writes what the next start reads sooner.
        kernel.stop().await;
        let agent = ended?;
        writeln!(out, "{} of {} is failed", plain::name(&self.task), plain::name(&agent))?;
        Ok(())
    }

    /// Gives the task's agent.
    async fn end(
        &self,
        opened: OpenedJournal,
        kernel: &Kernel,
        clock: &Clock,
    ) -> Result<String, CliError> {
        let served = opened.clone();
        let (spec, address) = ChildSpec::new("journal", move || JournalServer::new(served.clone()))
            .map_err(|error| TasksError::Journal(error.into()))?;
        kernel.root().start(spec).await.map_err(TasksError::Journal)?;
        let journal = Journal::new(address);
        let agents = match &self.agent {
            Some(agent) => vec![agent.clone()],
            None => opened.agents().await.map_err(TasksError::Read)?,
        };
        for agent in agents {
            match end_task(&journal, &agent, &self.task, clock).await {
                Ok(()) => return Ok(agent),
                Err(EndTaskError::Unknown) => {}
                Err(source) => {
                    let task = self.task.clone();
                    return Err(TasksError::NotEnded { task, source }.into());
                }
            }
        }
        Err(TasksError::UnknownTask { task: self.task.clone() }.into())
    }
}

/// Opens the journal as its node does, which then can't run.
async fn open(
    place: JournalPlace,
    node: String,
    clock: &Clock,
) -> Result<OpenedJournal, TasksError> {
    exists(&place)?;
    if matches!(place, JournalPlace::Memory) {
        return Err(TasksError::NotKept);
    }
    let mut config = JournalConfig::new(place);
    config.node = node;
    // What is removed is for the node to say.
    config.retention.age = None;
    (config.retention.tasks, config.retention.bytes) = (usize::MAX, u64::MAX);
    match OpenedJournal::open(config, clock.clone()).await {
        Err(OpenError::Locked { place }) => Err(TasksError::Runs { place }),
        opened => Ok(opened?),
    }
}
