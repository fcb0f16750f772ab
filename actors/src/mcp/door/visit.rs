//! Who makes a request, and what that may do: over HTTP as the gateway has found out, over streams
//! everything, because whoever started the program is there.

use std::sync::Arc;

use axum::http::request::Parts;
use neuroflow_kernel::{Address, Rights, TraceContext};
use rmcp::model::ErrorCode;
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer};

use super::McpExec;
use crate::access::{Action, Target};
use crate::agent::{ASK, AgentCommand, READ};
use crate::gateway::{
    Admitted, CREDENTIAL_ENDED, Denial, Entrance, GatewayAgent, Lost, Tenure, UNRECORDED, shown,
};
use crate::tools::ExecTool;

/// A request's principal; none over streams.
#[derive(Clone, Debug)]
pub(super) struct Visit(Option<Admitted>);

impl Visit {
    pub(super) fn of(context: &RequestContext<RoleServer>) -> Self {
        let parts = context.extensions.get::<Parts>();
        Self(parts.and_then(|parts| parts.extensions.get::<Admitted>().cloned()))
    }

    /// Part of this trace.
    pub(super) fn traced(self, trace: TraceContext) -> Self {
        Self(self.0.map(|admitted| admitted.traced(trace)))
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
    pub(super) async fn enter(
        &self,
        agent: &GatewayAgent,
        rights: Rights,
        missing: impl FnOnce() -> ErrorData,
    ) -> Result<Address<AgentCommand>, ErrorData> {
        let Some(admitted) = &self.0 else { return Ok(agent.address.clone()) };
        match entered(admitted, agent, rights).await {
            Ok(entrance) => Ok(entrance.address.clone()),
            Err(denial) => Err(denied(denial, missing)),
        }
    }

    /// Whether who asks may read the tasks of an agent.
    pub(super) fn may_read(&self, agent: &GatewayAgent) -> bool {
        self.0.as_ref().is_none_or(|admitted| admitted.has(agent, READ))
    }

    /// Has the answer hold so many bytes more, if there is room for them. Over a stream there is one client, and
    /// it reads what it's sent.
    pub(super) fn hold(&self, bytes: usize) -> Result<(), ErrorData> {
        let has_room = self.0.as_ref().is_none_or(|admitted| admitted.unsent().grow(bytes));
        if has_room { Ok(()) } else { Err(busy()) }
    }

    /// What the answer to a call holds: nothing yet.
    pub(super) fn holds(&self) -> Hold<'_> {
        Hold { visit: self, bytes: 0 }
    }

    /// Watches over who makes a call, for as long as that is at work.
    pub(super) fn stay(&self) -> Stay {
        Stay(self.0.as_ref().and_then(Admitted::tenure))
    }

    /// Whether programs may be run, at the level that there is: for who looks what there is.
    pub(super) fn may_exec(&self, exec: &McpExec) -> bool {
        self.0.as_ref().is_none_or(|admitted| permits_exec(admitted, exec))
    }

    /// Lets programs be run. `missing` is as for an agent.
    pub(super) async fn exec(
        &self,
        exec: &McpExec,
        missing: impl FnOnce() -> ErrorData,
    ) -> Result<(), ErrorData> {
        let Some(admitted) = &self.0 else { return Ok(()) };
        for (action, target) in needs_of(exec) {
            match admitted.permits(action, target).recorded().await {
                Ok(()) => {}
                Err(Denial::Forbidden(_)) => return Err(missing()),
                Err(denial) => return Err(denied(denial, missing)),
            }
        }
        Ok(())
    }
}

/// What the answer to a call holds while it's put together.
#[derive(Debug)]
pub(super) struct Hold<'a> {
    visit: &'a Visit,
    bytes: usize,
}

impl Hold<'_> {
    /// It holds so much more; see [`Visit::hold`].
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), ErrorData> {
        self.visit.hold(bytes)?;
        self.bytes += bytes;
        Ok(())
    }

    /// It holds so much in place of what it held.
    pub(super) fn replace(&mut self, bytes: usize) -> Result<(), ErrorData> {
        let before = std::mem::take(&mut self.bytes);
        if let Some(admitted) = &self.visit.0 {
            admitted.unsent().shrink(before);
        }
        self.grow(bytes)
    }
}

/// A call doesn't outlive the credential that it was made with, nor the policy that allowed it.
#[derive(Debug)]
pub(super) struct Stay(Option<Tenure>);

impl Stay {
    /// Returns once a call of this agent has to end, and says why.
    pub(super) async fn lost_agent(&mut self, agent: &GatewayAgent) -> ErrorData {
        self.lost(|admitted| {
            let entered = admitted.enter(agent, ASK).noted();
            entered
                .and_then(|_entrance| admitted.ask(agent, None).noted())
                .map_err(|denial| denied(denial, || unknown(&agent.profile.name)))
        })
        .await
    }

    /// The same for a program.
    pub(super) async fn lost_exec(&mut self, exec: &McpExec) -> ErrorData {
        self.lost(
            |admitted| {
                if permits_exec(admitted, exec) { Ok(()) } else { Err(unknown(ExecTool::NAME)) }
            },
        )
        .await
    }

    async fn lost(&mut self, still: impl FnMut(&Admitted) -> Result<(), ErrorData>) -> ErrorData {
        let Some(tenure) = &mut self.0 else { return std::future::pending().await };
        match tenure.lost(still).await {
            Lost::Credential => ErrorData::new(ErrorCode::INVALID_REQUEST, CREDENTIAL_ENDED, None),
            Lost::Right(error) => error,
        }
    }
}

async fn entered(
    admitted: &Admitted,
    agent: &GatewayAgent,
    rights: Rights,
) -> Result<Arc<Entrance>, Denial> {
    let entrance = admitted.enter(agent, rights).recorded().await?;
    if rights.contains(ASK) {
        admitted.ask(agent, None).recorded().await?;
    }
    Ok(entrance)
}

fn permits_exec(admitted: &Admitted, exec: &McpExec) -> bool {
    needs_of(exec).iter().all(|(action, target)| admitted.permits(*action, *target).noted().is_ok())
}

/// What has to be permitted for programs to run.
fn needs_of(exec: &McpExec) -> [(Action, Target<'static>); 2] {
    let tool = Target::Tool { agent: None, tool: ExecTool::NAME };
    [(Action::CallTool, tool), (Action::RunLevel, Target::Level(exec.level))]
}

fn denied(denial: Denial, missing: impl FnOnce() -> ErrorData) -> ErrorData {
    match denial {
        Denial::Hidden => missing(),
        Denial::Forbidden(_) => forbidden(),
        Denial::Unrecorded => ErrorData::internal_error(UNRECORDED, None),
    }
}

/// That answers which nobody reads, or questions of many, leave no room for one more.
pub(super) fn busy() -> ErrorData {
    ErrorData::internal_error("too much is asked for at once; try again later", None)
}

pub(super) fn unknown(tool: &str) -> ErrorData {
    ErrorData::invalid_params(format!("there is no tool {:?}", shown(tool)), None)
}

pub(super) fn forbidden() -> ErrorData {
    ErrorData::new(ErrorCode::INVALID_REQUEST, "this isn't allowed", None)
}
