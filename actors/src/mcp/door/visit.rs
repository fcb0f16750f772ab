//! Who makes a request, and what that may do: over HTTP as the gateway has found out, over streams
//! everything, because whoever started the program is there.

use axum::http::request::Parts;
use neuroflow_kernel::{Address, Rights};
use rmcp::model::ErrorCode;
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer};

use super::McpExec;
use crate::access::{Action, Target};
use crate::agent::{ASK, AgentCommand};
use crate::gateway::{Admitted, Denial, GatewayAgent};
use crate::tools::ExecTool;

/// A request's principal; none over streams.
#[derive(Clone, Debug)]
pub(super) struct Visit(Option<Admitted>);

impl Visit {
    pub(super) fn of(context: &RequestContext<RoleServer>) -> Self {
        let parts = context.extensions.get::<Parts>();
        Self(parts.and_then(|parts| parts.extensions.get::<Admitted>().cloned()))
    }

    /// Whose tasks it makes.
    pub(super) fn caller(&self) -> Option<String> {
        self.0.as_ref().and_then(Admitted::caller)
    }

    /// Whether the agent is there at all for whoever asks.
    pub(super) fn sees(&self, agent: &GatewayAgent) -> bool {
        self.0.as_ref().is_none_or(|admitted| admitted.sees(agent))
    }

    /// The way to an agent, for something that needs these rights. `missing` is what is said of an
    /// agent that isn't there: one that is hidden from who asks is answered for in the same words.
    pub(super) fn enter(
        &self,
        agent: &GatewayAgent,
        rights: Rights,
        missing: impl FnOnce() -> ErrorData,
    ) -> Result<Address<AgentCommand>, ErrorData> {
        let Some(admitted) = &self.0 else { return Ok(agent.address.clone()) };
        let entered = admitted.enter(agent, rights).and_then(|entrance| {
            if rights.contains(ASK) {
                admitted.ask(agent, None)?;
            }
            Ok(entrance)
        });
        match entered {
            Ok(entrance) => Ok(entrance.address.clone()),
            Err(Denial::Hidden) => Err(missing()),
            Err(Denial::Forbidden(_)) => Err(forbidden()),
        }
    }

    /// Whether programs may be run, at the level that there is.
    pub(super) fn may_exec(&self, exec: &McpExec) -> bool {
        self.0.as_ref().is_none_or(|admitted| {
            let tool = Target::Tool { agent: None, tool: ExecTool::NAME };
            admitted.permits(Action::CallTool, &tool)
                && admitted.permits(Action::RunLevel, &Target::Level(exec.level))
        })
    }
}

pub(super) fn unknown(tool: &str) -> ErrorData {
    ErrorData::invalid_params(format!("there is no tool {tool:?}"), None)
}

pub(super) fn forbidden() -> ErrorData {
    ErrorData::new(ErrorCode::INVALID_REQUEST, "this isn't allowed", None)
}
