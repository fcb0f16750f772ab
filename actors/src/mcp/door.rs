//! The node as an MCP server: its agents as tools, and `exec` in a cell if that is granted.

mod agents;
mod callee;
mod handler;
mod http;
mod listening;
mod outcome;
mod programs;
mod progress;
mod sessions;
mod task;
mod visit;

use std::sync::Arc;
use std::time::Duration;

use neuroflow_kernel::{Address, Clock, Tracer};
use neuroflow_sandbox::Level;
use rmcp::ServiceExt;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::agent::AgentCommand;
use crate::gateway::GatewayAgent;
use crate::limits::MCP_TASK_AFTER;

pub use self::handler::McpHandler;
pub use self::http::mcp_routes;
pub use self::programs::McpPrograms;

/// What the node offers to MCP clients.
///
/// ```
/// use neuroflow_actors::McpDoor;
/// use neuroflow_kernel::{Clock, Tracer, Unobserved};
/// use std::sync::Arc;
/// let clock = Clock::system();
/// let tracer = Tracer::new(clock.clone(), Arc::new(Unobserved));
/// let door = McpDoor::new(Vec::new(), clock, tracer);
/// # let _ = door;
/// ```
#[derive(Clone, Debug)]
pub struct McpDoor {
    pub(super) agents: Arc<[GatewayAgent]>,
    pub(super) exec: Option<McpExec>,
    pub(super) clock: Clock,
    pub(super) tracer: Tracer,
    pub(super) task_after: Duration,
}

/// The tool `exec` for MCP clients.
///
/// ```
/// use neuroflow_actors::{AgentCommand, McpExec};
/// use neuroflow_kernel::Address;
/// use neuroflow_sandbox::Level;
/// fn exec(programs: Address<AgentCommand>) -> McpExec {
///     McpExec { programs, level: Level::Strict }
/// }
/// ```
#[derive(Clone, Debug)]
pub struct McpExec {
    /// An agent [`McpPrograms`] that may call `exec`.
    pub programs: Address<AgentCommand>,
    /// The level that its cells have.
    pub level: Level,
}

impl McpDoor {
    /// With these agents as tools.
    pub fn new(agents: Vec<GatewayAgent>, clock: Clock, tracer: Tracer) -> Self {
        let agents = agents.into();
        Self { agents, exec: None, clock, tracer, task_after: MCP_TASK_AFTER }
    }

    /// With `exec` as a tool.
    #[must_use]
    pub fn exec(mut self, exec: Option<McpExec>) -> Self {
        self.exec = exec;
        self
    }

    /// How long a call of a client that knows tasks is waited for before it's answered with a task.
    #[must_use]
    pub fn task_after(mut self, wait: Duration) -> Self {
        self.task_after = wait;
        self
    }

    /// What answers a client's requests.
    pub fn handler(&self) -> McpHandler {
        McpHandler::new(self.clone())
    }

    /// Serves one client over a pair of streams, until it has closed its end.
    ///
    /// # Errors
    /// Says why no session was begun.
    pub async fn serve(
        &self,
        read: impl AsyncRead + Send + Unpin + 'static,
        write: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Result<(), McpServeError> {
        let running = self.handler().serve((read, write)).await;
        let running = running.map_err(|source| McpServeError::Begin(Box::new(source)))?;
        running.waiting().await?;
        Ok(())
    }
}

/// Why a client isn't served.
///
/// ```
/// fn told(error: &neuroflow_actors::McpServeError) -> String {
///     error.to_string()
/// }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum McpServeError {
    /// It doesn't begin a session.
    #[error("the client didn't begin a session")]
    Begin(#[source] Box<rmcp::service::ServerInitializeError>),
    /// The session's task failed.
    #[error("the session failed")]
    Session(#[from] tokio::task::JoinError),
}
