//! `neuroflow mcp`: the node's agents for one MCP client, over standard input and output.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use neuroflow::actors::{McpMeter, McpServeError};
use neuroflow::kernel::Clock;
use neuroflow::{BootError, McpServer, Node, NodeBuilder};
use neuroflow_telemetry::logs::LogError;

use super::serve::builtin;
use super::signal::Signals;
use super::{CliError, FAILURE, Globals, SUCCESS, USAGE, small_runtime, telemetry};
use crate::config::{ConfigError, Loaded, Overrides};
use crate::limits::RUN_STOP;

/// Serves one MCP client over standard input and output.
///
/// Standard output has the protocol and nothing else; logs go to standard error. It ends when its
/// input does, or with a signal.
#[derive(Args, Debug)]
pub(super) struct Mcp {
    #[command(flatten)]
    settings: Overrides,
}

/// Why the client wasn't served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum McpCommandError {
    /// The log can't be set up.
    #[error("the log can't be set up; change log.filter")]
    Log(#[from] LogError),
    /// Signals can't be caught.
    #[error("the system refused to set up signals")]
    Signals(#[source] std::io::Error),
    /// The node didn't start.
    #[error("the node didn't start; `neuroflow doctor` says what this host can give")]
    Boot(#[from] BootError),
    /// The session didn't begin, or failed.
    #[error("the MCP client can't be served")]
    Serve(#[from] McpServeError),
}

impl McpCommandError {
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Log(_) => USAGE,
            _ => FAILURE,
        }
    }
}

impl Mcp {
    pub(super) fn run(self, globals: Globals<'_>) -> Result<u8, CliError> {
        let loaded = globals.load(&self.settings)?;
        let _log = telemetry::quiet_log(&loaded).map_err(McpCommandError::from)?;
        let runtime = small_runtime()?;
        let served = runtime.block_on(serve(&loaded, globals.clock));
        // Standard input is read by a thread that nobody can call back.
        runtime.shutdown_background();
        served
    }
}

async fn serve(loaded: &Loaded, clock: &Clock) -> Result<u8, CliError> {
    let mut signals = Signals::catch().map_err(McpCommandError::Signals)?;
    let meter: Arc<dyn McpMeter> = Arc::new(Uncounted);
    let node = node(loaded, clock, &meter)?;
    let server = McpServer { http: false, exec: loaded.config.mcp_server.exec };
    let node = node.mcp_server(server).start().await.map_err(McpCommandError::from)?;
    let ended = match node.mcp_door() {
        Some(door) => {
            let (input, output) = (tokio::io::stdin(), tokio::io::stdout());
            tokio::select! {
                served = door.serve(input, output) => {
                    served.map(|()| SUCCESS).map_err(McpCommandError::from)
                }
                caught = signals.next() => Ok(caught.exit_code()),
            }
        }
        None => Ok(SUCCESS),
    };
    node.stop_within(RUN_STOP).await;
    Ok(ended?)
}

/// A node with the configured agents and MCP servers, and a sandbox if anybody needs one.
pub(super) fn node(
    loaded: &Loaded,
    clock: &Clock,
    meter: &Arc<dyn McpMeter>,
) -> Result<NodeBuilder, ConfigError> {
    // Its only client has gone when it stops.
    let mut builder = Node::builder().clock(clock.clone()).drain_within(Duration::ZERO);
    if needs_sandbox(loaded) {
        builder = builder.sandbox(loaded.sandbox()?);
    }
    for agent in &loaded.config.agents.enabled {
        builder = builder.agent(builtin(*agent));
    }
    Ok(loaded.mcp_sources(meter)?.into_iter().fold(builder, NodeBuilder::mcp))
}

/// Whether anything runs in cells.
pub(super) fn needs_sandbox(loaded: &Loaded) -> bool {
    loaded.config.agents.enabled.iter().any(|agent| agent.needs_cells())
        || loaded.config.mcp_server.exec
        || loaded.mcp.need_sandbox()
}

/// A command that ends soon has nobody to tell its figures.
#[derive(Debug)]
pub(super) struct Uncounted;

impl McpMeter for Uncounted {
    fn session(&self, _: &str, _: bool) {}

    fn called(&self, _: &str, _: &'static str, _: Duration) {}
}
