//! What a tool stands for: an agent, or programs in cells. Both are tasks; they differ in who may, in
//! their arguments, and in what their result looks like.

use neuroflow_kernel::{Address, Clock, Rights};
use rmcp::ErrorData;
use rmcp::model::{CallToolResult, JsonObject};
use tokio::sync::SemaphorePermit;

use super::McpExec;
use super::agents::Message;
use super::outcome::Outcome;
use super::programs;
use super::visit::{self, Stay, Visit};
use crate::agent::{AgentCommand, Ask};
use crate::gateway::GatewayAgent;
use crate::tools::ExecTool;

#[derive(Clone, Copy, Debug)]
pub(super) enum Callee<'a> {
    Agent(&'a GatewayAgent),
    Program(&'a McpExec),
}

impl<'a> Callee<'a> {
    /// The tool's name, which is the beginning of the public ids of its tasks.
    pub(super) fn name(self) -> &'a str {
        match self {
            Self::Agent(agent) => &agent.profile.name,
            Self::Program(_) => ExecTool::NAME,
        }
    }

    /// Whose tasks its calls are, with all rights.
    pub(super) fn address(self) -> &'a Address<AgentCommand> {
        match self {
            Self::Agent(agent) => &agent.address,
            Self::Program(exec) => &exec.programs,
        }
    }

    /// The way in, for something that needs these rights; see [`Visit::enter`].
    pub(super) async fn enter(
        self,
        visit: &Visit,
        rights: Rights,
        missing: impl FnOnce() -> ErrorData,
    ) -> Result<Address<AgentCommand>, ErrorData> {
        match self {
            Self::Agent(agent) => visit.enter(agent, rights, missing).await,
            // Who may not isn't shown the tool either.
            Self::Program(exec) => {
                visit.exec(exec, missing).await?;
                Ok(exec.programs.clone())
            }
        }
    }

    /// Whether who calls it may read the task of the call: who may not is told by the call alone what becomes of it.
    pub(super) fn is_read_by(self, visit: &Visit) -> bool {
        match self {
            Self::Agent(agent) => visit.may_read(agent),
            // Who may run programs may do the rest.
            Self::Program(_) => true,
        }
    }

    /// This one's turn to read its tasks.
    pub(super) async fn reads(
        self,
        clock: &Clock,
    ) -> Result<Option<SemaphorePermit<'a>>, ErrorData> {
        match self {
            Self::Agent(agent) => agent.reads(clock).await.map(Some).ok_or_else(visit::busy),
            // Their tasks are small: what a program writes is cut.
            Self::Program(_) => Ok(None),
        }
    }

    pub(super) fn ask(
        self,
        arguments: Option<JsonObject>,
        caller: Option<String>,
    ) -> Result<Ask, ErrorData> {
        match self {
            Self::Agent(agent) => {
                Ok(Message::read(&agent.profile.name, arguments)?.into_ask(caller))
            }
            Self::Program(_) => programs::ask(arguments, caller),
        }
    }

    /// Returns once a call of it has to end, and says why.
    pub(super) async fn lost(self, stay: &mut Stay) -> ErrorData {
        match self {
            Self::Agent(agent) => stay.lost_agent(agent).await,
            Self::Program(exec) => stay.lost_exec(exec).await,
        }
    }

    pub(super) fn result(self, outcome: Outcome) -> CallToolResult {
        match self {
            Self::Agent(_) => outcome.into_result(),
            Self::Program(_) => outcome.into_program_result(),
        }
    }
}
