//! What answers an MCP client: lists agents and `exec` as tools, calls them with progress and
//! cancellation, and shows their tasks as tasks.

use axum::http::request::Parts;
use neuroflow_kernel::{Address, Header, SpanKind, StreamError, TraceContext};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, CancelTaskParams, ContentBlock,
    CreateTaskResult, CustomRequest, CustomResult, ErrorCode, GetTaskParams, GetTaskResult,
    Implementation, InitializeRequestParams, ListToolsResult, PaginatedRequestParams,
    ServerCapabilities, ServerConfig, Tool, UpdateTaskParams,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::callee::Callee;
use super::listening::{Happened, Listening};
use super::outcome::Outcome;
use super::task::PublicId;
use super::visit::{self, Visit};
use super::{McpDoor, agents, programs, task};
use crate::agent::{ASK, AgentCommand, CANCEL, CancelError, READ};
use crate::gateway::{bytes, shown};
use crate::limits::AGENT_ANSWER;
use crate::tools::ExecTool;

/// Answers the requests of MCP clients.
///
/// ```
/// use neuroflow_actors::{McpDoor, McpHandler};
/// fn handler(door: &McpDoor) -> McpHandler {
///     door.handler()
/// }
/// ```
#[derive(Clone, Debug)]
pub struct McpHandler {
    door: McpDoor,
}

impl McpHandler {
    pub(super) fn new(door: McpDoor) -> Self {
        Self { door }
    }

    /// The tools that are there for whoever asks.
    fn tools(&self, visit: &Visit) -> Vec<Tool> {
        let seen = self.door.agents.iter().filter(|agent| visit.sees(agent));
        let exec = self.door.exec.as_ref().filter(|exec| visit.may_exec(exec));
        seen.map(agents::tool).chain(exec.map(programs::tool)).collect()
    }

    /// What the tool of this name stands for.
    fn callee(&self, name: &str) -> Option<Callee<'_>> {
        let agent = self.door.agents.iter().find(|agent| agent.profile.name == name);
        let exec = self.door.exec.as_ref().filter(|_| name == ExecTool::NAME);
        agent.map(Callee::Agent).or(exec.map(Callee::Program))
    }

    async fn ask(
        &self,
        callee: Callee<'_>,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let name = callee.name();
        let mut span = self.span(&context, name);
        let visit = Visit::of(&context).traced(span.context());
        let entered = callee.enter(&visit, ASK, || visit::unknown(name)).await;
        let address = entered.inspect_err(|_| span.fail("denied"))?;
        let ask = match callee.ask(request.arguments, visit.caller()) {
            Ok(ask) => ask,
            // Whoever wrote them can write them anew: that is the model, which sees results and no errors.
            Err(unfit) => {
                span.fail("arguments");
                return Ok(CallToolResult::error(vec![ContentBlock::text(unfit.message)]).into());
            }
        };
        if let Callee::Agent(_) = callee {
            span.set("gen_ai.agent.name", name.to_owned());
        }
        let header = Header::new().traced(span.context());
        let events = agents::ask(&address, &ask, header.clone()).await?;
        let mut call = Listening::open(&self.door, callee, &visit, &context, header, events).await;
        while !call.outcome.is_settled() {
            if call.is_long && !call.outcome.task.is_empty() {
                let task = task::task(name, &call.outcome);
                return Ok(CallToolResponse::Task(CreateTaskResult::new(task)));
            }
            match call.next().await {
                Happened::Cancelled => {
                    // It's the caller's own call, whatever else it may do.
                    self.withdraw(call).await?;
                    span.fail("cancelled");
                    return Ok(CallToolResult::error(vec![ContentBlock::text("cancelled")]).into());
                }
                Happened::Lost(why) => {
                    span.fail("lost");
                    return Err(self.leave(call, why).await);
                }
                Happened::Told(Ok(event)) => {
                    if let Err(busy) = call.heard(&event).await {
                        span.fail("busy");
                        return Err(self.leave(call, busy).await);
                    }
                }
                Happened::Told(Err(StreamError::Lagged)) => {
                    if let Err(why) = call.again().await {
                        span.fail("lagged");
                        return Err(self.leave(call, why).await);
                    }
                }
                Happened::Told(Err(error)) => {
                    span.fail("broken");
                    return Err(self.leave(call, agents::broken(error)).await);
                }
                Happened::Over => break,
                Happened::Long => call.is_long = true,
                Happened::Tick => call.tick().await,
            }
        }
        let result = callee.result(call.outcome);
        if result.is_error == Some(true) {
            span.fail("agent_error");
        }
        Ok(result.into())
    }

    /// The task of this public id, as it is.
    async fn read(
        &self,
        id: &str,
        context: &RequestContext<RoleServer>,
    ) -> Result<(Callee<'_>, Outcome), ErrorData> {
        let id = PublicId::read(id)?;
        let callee = self.callee(id.tool).ok_or_else(task::unknown)?;
        let visit = Visit::of(context);
        let address = callee.enter(&visit, READ, task::unknown).await?;
        let outcome = self.outcome(callee, &address, id, &visit).await?;
        Ok((callee, outcome))
    }

    /// What this id means of the task's events.
    async fn outcome(
        &self,
        callee: Callee<'_>,
        address: &Address<AgentCommand>,
        id: PublicId<'_>,
        visit: &Visit,
    ) -> Result<Outcome, ErrorData> {
        let caller = visit.caller();
        let header = Header::new().within(&self.door.clock, AGENT_ANSWER);
        let command = |reply| AgentCommand::Read { task: id.task.to_owned(), caller, reply };
        let _place = callee.reads(&self.door.clock).await?;
        let events = address.call(header, command).await;
        let events = events.map_err(|error| agents::unavailable(error.code()))?;
        let events = events.ok_or_else(task::unknown)?;
        visit.hold(bytes(&events))?;
        Outcome::since(&events, id.call).ok_or_else(task::unknown)
    }

    /// What a call is answered with that can't go on here. An agent's task goes on: its caller comes again, with
    /// another credential or once there is room.
    async fn leave(&self, call: Listening<'_>, mut why: ErrorData) -> ErrorData {
        match call.callee {
            Callee::Agent(_) => why.data = task::named(call.callee.name(), &call.outcome),
            Callee::Program(_) => {
                if let Err(error) = self.withdraw(call).await {
                    return error;
                }
            }
        }
        why
    }

    /// Cancels what was asked for, also where nothing was heard of it yet: what isn't begun by the time that this
    /// gives up isn't, once nobody waits for it.
    async fn withdraw(&self, mut call: Listening<'_>) -> Result<(), ErrorData> {
        if call.outcome.task.is_empty() {
            let clock = &self.door.clock;
            match clock.before(clock.now() + AGENT_ANSWER, call.events.next()).await {
                Ok(Some(Ok(event))) => drop(call.outcome.fold(&event)),
                _ => return Ok(()),
            }
        }
        self.cancel(call.callee.address(), &call.outcome.task, call.caller).await
    }

    async fn cancel(
        &self,
        agent: &Address<AgentCommand>,
        id: &str,
        caller: Option<String>,
    ) -> Result<(), ErrorData> {
        let header = Header::new().within(&self.door.clock, AGENT_ANSWER);
        let command = |reply| AgentCommand::Cancel { task: id.to_owned(), caller, reply };
        match agent.call(header, command).await {
            // It had come to its end by itself, which is as good.
            Ok(Ok(_) | Err(CancelError::Ended { .. })) => Ok(()),
            Ok(Err(CancelError::Unknown)) => Err(task::unknown()),
            Ok(Err(error)) => Err(ErrorData::internal_error(error.to_string(), None)),
            Err(error) => Err(agents::unavailable(error.code())),
        }
    }

    fn span(
        &self,
        context: &RequestContext<RoleServer>,
        tool: &str,
    ) -> neuroflow_kernel::SpanGuard {
        let parts = context.extensions.get::<Parts>();
        let sent = parts.and_then(|parts| parts.headers.get("traceparent"));
        let parent = sent
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.parse::<TraceContext>().ok());
        let name = format!("tools/call {tool}");
        let mut span = match parent {
            Some(parent) => {
                let mut span = self.door.tracer.span(parent, name, SpanKind::Server);
                span.remote_parent();
                span
            }
            None => self.door.tracer.root(false, name, SpanKind::Server),
        };
        span.set("mcp.method.name", "tools/call");
        span.set("gen_ai.tool.name", tool.to_owned());
        span
    }
}

/// What keeps parameters from being read.
fn misfit<T: DeserializeOwned>(params: Option<Value>) -> String {
    match serde_path_to_error::deserialize::<_, T>(params.unwrap_or_default()) {
        Err(error) if error.path().iter().next().is_some() => format!("params.{error}"),
        Err(error) => format!("params: {}", error.inner()),
        Ok(_) => "the parameters aren't those of this method".to_owned(),
    }
}

impl ServerHandler for McpHandler {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder().enable_tools().enable_tasks().build();
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new("neuroflow", env!("CARGO_PKG_VERSION")))
            .with_instructions(
                "Each tool is an agent. An answer has a contextId to continue the conversation with; \
                 an agent that asks back has a taskId to answer to.",
            )
    }

    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        // All of them are on one page, so nobody has been given the beginning of another.
        if request.is_some_and(|request| request.cursor.is_some()) {
            return Err(ErrorData::invalid_params("there is no such cursor", None));
        }
        Ok(ListToolsResult::with_all_items(self.tools(&Visit::of(&context))))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        match self.callee(&request.name) {
            Some(callee) => self.ask(callee, request, context).await,
            None => Err(visit::unknown(&request.name)),
        }
    }

    /// A method that is there comes this way only if its parameters can't be read: the protocol's library
    /// takes it for one that it doesn't know then.
    async fn on_custom_request(
        &self,
        request: CustomRequest,
        context: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        let CustomRequest { method, params, .. } = request;
        let problem = match method.as_str() {
            // The later version has no such method, and says its version with each request.
            "initialize" if context.meta.protocol_version().is_none() => {
                misfit::<InitializeRequestParams>(params)
            }
            "tools/list" => misfit::<PaginatedRequestParams>(params),
            "tools/call" => misfit::<CallToolRequestParams>(params),
            "tasks/get" => misfit::<GetTaskParams>(params),
            "tasks/cancel" => misfit::<CancelTaskParams>(params),
            "tasks/update" => misfit::<UpdateTaskParams>(params),
            _ => return Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, shown(&method), None)),
        };
        Err(ErrorData::invalid_params(shown(&problem), None))
    }

    async fn get_task(
        &self,
        request: GetTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetTaskResult, ErrorData> {
        let (callee, outcome) = self.read(&request.task_id, &context).await?;
        Ok(GetTaskResult::new(task::detailed(request.task_id, callee, outcome)?))
    }

    /// No task of ours asks for input this way, and answers that nobody waits for are ignored.
    async fn update_task(
        &self,
        request: UpdateTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.read(&request.task_id, &context).await.map(|_there| ())
    }

    async fn cancel_task(
        &self,
        request: CancelTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        let id = PublicId::read(&request.task_id)?;
        let callee = self.callee(id.tool).ok_or_else(task::unknown)?;
        let visit = Visit::of(&context);
        let address = callee.enter(&visit, CANCEL, task::unknown).await?;
        // A call that is over isn't cancelled by what has come after it.
        if id.call.is_some() && self.outcome(callee, callee.address(), id, &visit).await?.is_past {
            return Ok(());
        }
        self.cancel(&address, id.task, visit.caller()).await
    }
}
