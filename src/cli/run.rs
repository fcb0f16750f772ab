//! `neuroflow run`: one request to one agent, without a server.

use std::io::{self, IsTerminal, Read, Write};
use std::time::Duration;

use clap::Args;
use clap::builder::PossibleValuesParser;
use neuroflow::kernel::Clock;
use neuroflow::{AskError, BootError, Node, TaskOutcome, TaskState};
use neuroflow_telemetry::logs::LogError;

use super::serve::builtin;
use super::signal::{Caught, Signals};
use super::{CliError, FAILURE, Globals, SUCCESS, USAGE, small_runtime, telemetry};
use crate::config::{Builtin, Loaded, Overrides};
use crate::limits::{RUN_STOP, RUN_TEXT_BYTES};

/// Asks an agent once and prints its answer.
///
/// Exits with 0 if the task completed, and with 1 if it failed. Ctrl-C cancels the task.
#[derive(Args, Debug)]
pub(super) struct Run {
    /// The agent; the first of `agents.enabled` unless it's given
    #[arg(long, value_name = "NAME", value_parser = names())]
    agent: Option<String>,
    /// What to say; read from standard input unless it's given
    text: Option<String>,
    #[command(flatten)]
    settings: Overrides,
}

fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(Builtin::ALL.map(Builtin::name))
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum RunError {
    /// The log can't be set up.
    #[error("the log can't be set up; change log.filter")]
    Log(#[from] LogError),
    /// Nothing to say.
    #[error("there is nothing to say; give a text as an argument, or on standard input")]
    NoText,
    /// Too much to say.
    #[error("the text has more than {RUN_TEXT_BYTES} bytes; give a shorter one")]
    TooLong,
    /// Standard input can't be read.
    #[error("standard input can't be read as text; give the text as an argument")]
    Input(#[source] io::Error),
    /// Signals can't be caught.
    #[error("the system refused to set up signals")]
    Signals(#[source] io::Error),
    /// The node didn't start.
    #[error("the agent's node didn't start; `neuroflow doctor` says what this host can give")]
    Boot(#[from] BootError),
    /// The agent doesn't answer.
    #[error("the agent doesn't answer; try again")]
    Ask(#[from] AskError),
    /// The task didn't complete.
    #[error("the task is {}: {}", state.map_or("unfinished", TaskState::as_str), said.as_deref().unwrap_or("the agent didn't say why"))]
    NotCompleted { state: Option<TaskState>, said: Option<String> },
}

impl RunError {
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Log(_) | Self::NoText | Self::TooLong | Self::Input(_) => USAGE,
            _ => FAILURE,
        }
    }
}

impl Run {
    pub(super) fn run(self, globals: Globals<'_>, out: &mut dyn Write) -> Result<u8, CliError> {
        let loaded = globals.load(&self.settings)?;
        let _log = telemetry::quiet_log(&loaded).map_err(RunError::from)?;
        let text = match self.text {
            Some(text) => text,
            None => read_text()?,
        };
        if text.trim().is_empty() {
            return Err(RunError::NoText.into());
        }
        let named = |name: &str| Builtin::ALL.into_iter().find(|agent| agent.name() == name);
        let agent = self.agent.as_deref().and_then(named);
        let agent = agent.or_else(|| loaded.config.agents.enabled.first().copied());
        let agent = agent.unwrap_or(Builtin::Shell);
        let runtime = small_runtime()?;
        let asked = runtime.block_on(ask(&loaded, globals.clock, agent, &text));
        runtime.shutdown_background();
        match asked? {
            Asked::Ended(outcome) => answer(&outcome, out),
            Asked::Cancelled(caught) => Ok(caught.exit_code()),
        }
    }
}

fn read_text() -> Result<String, RunError> {
    let input = io::stdin();
    if input.is_terminal() {
        return Err(RunError::NoText);
    }
    let mut text = String::new();
    input.lock().take(RUN_TEXT_BYTES + 1).read_to_string(&mut text).map_err(RunError::Input)?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > RUN_TEXT_BYTES {
        return Err(RunError::TooLong);
    }
    Ok(text)
}

enum Asked {
    Ended(TaskOutcome),
    Cancelled(Caught),
}

async fn ask(
    loaded: &Loaded,
    clock: &Clock,
    agent: Builtin,
    text: &str,
) -> Result<Asked, CliError> {
    let mut signals = Signals::catch().map_err(RunError::Signals)?;
    // A task that is interrupted is to end, and not to be waited for.
    let mut builder = Node::builder().clock(clock.clone()).drain_within(Duration::ZERO);
    builder = builder.agent(builtin(agent));
    if agent.needs_cells() {
        // One task: nothing is kept ready for a second.
        builder = builder.sandbox(loaded.profile()?);
    }
    let node = builder.start().await.map_err(RunError::from)?;
    let asked = tokio::select! {
        outcome = node.ask(agent.name(), text) => outcome.map(Asked::Ended).map_err(RunError::from),
        caught = signals.next() => Ok(Asked::Cancelled(caught)),
    };
    // The task's actors end with their node, and its cell with them.
    node.stop_within(RUN_STOP).await;
    Ok(asked?)
}

/// The texts that were produced, or if there are none the JSON values.
fn answer(outcome: &TaskOutcome, out: &mut dyn Write) -> Result<u8, CliError> {
    let text = outcome.text();
    if text.is_empty() {
        outcome.json().iter().try_for_each(|json| writeln!(out, "{json}"))?;
    } else {
        out.write_all(text.as_bytes())?;
        if !text.ends_with('\n') {
            writeln!(out)?;
        }
    }
    if outcome.is_completed() {
        return Ok(SUCCESS);
    }
    out.flush()?;
    let said = outcome.said().map(str::to_owned);
    Err(RunError::NotCompleted { state: outcome.state(), said }.into())
}
