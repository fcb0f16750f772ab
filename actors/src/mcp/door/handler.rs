//! What answers an MCP client: lists agents and `exec` as tools, calls them with progress and
//! cancellation, and shows agents' tasks as tasks.

use axum::http::request::Parts;
use neuroflow_kernel::{Address, Header, ReplyStream, SpanKind, StreamError, TraceContext};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, CancelTaskParams, ContentBlock,
    CreateTaskResult, GetTaskParams, GetTaskResult, Implementation, ListToolsResult,
    PaginatedRequestParams, ProgressNotificationParam, ServerCapabilities, ServerConfig, Tool,
    ToolAnnotations,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::Value;

use super::agents::{self, Message};
use super::outcome::Outcome;
use super::visit::{self, Visit};
use super::{McpDoor, McpExec, task};
use crate::agent::{ASK, AgentCommand, CANCEL, CancelError, READ, TaskEvent, follow};
use crate::gateway::GatewayAgent;
use crate::limits::AGENT_ANSWER;
use crate::tools::{ExecArguments, ExecTool, InvokeError, Refused, invoke};

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
        seen.map(agents::tool).chain(exec.map(exec_tool)).collect()
    }

    fn agent(&self, name: &str) -> Option<&GatewayAgent> {
        self.door.agents.iter().find(|agent| agent.profile.name == name)
    }

    async fn ask(
        &self,
        agent: &GatewayAgent,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let visit = Visit::of(&context);
        let (who, address) =
            (visit.caller(), visit.enter(agent, ASK, || visit::unknown(&agent.profile.name))?);
        let ask = Message::read(request.arguments)?.into_ask(who.clone());
        let mut span = self.span(&context, &agent.profile.name);
        span.set("gen_ai.agent.name", agent.profile.name.clone());
        let header = Header::new().traced(span.context());
        let mut events = agents::ask(&address, &ask, header.clone()).await?;
        let mut outcome = Outcome::default();
        let mut progress = Progress::of(&context);
        let mut stay = visit.stay();
        // Who knows tasks gets one when it takes long; others wait.
        let knows_tasks = context.client_capabilities().is_some_and(|it| it.supports_tasks());
        let patience = async {
            if knows_tasks {
                self.door.clock.sleep(self.door.task_after).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        let mut patience = std::pin::pin!(patience);
        let mut is_impatient = false;
        while !outcome.is_settled() {
            if is_impatient && !outcome.task.is_empty() {
                let task = task::task(&agent.profile.name, &outcome);
                return Ok(CallToolResponse::Task(CreateTaskResult::new(task)));
            }
            tokio::select! {
                biased;
                () = context.ct.cancelled() => {
                    // It's the caller's own call, whatever else it may do.
                    self.cancel(&agent.address, &outcome.task, who).await?;
                    span.fail("cancelled");
                    return Ok(CallToolResult::error(vec![ContentBlock::text("cancelled")]).into());
                }
                mut lost = stay.lost_agent(agent) => {
                    // The task goes on: its caller comes again with another credential.
                    lost.data = task::named(&agent.profile.name, &outcome);
                    span.fail("lost");
                    return Err(lost);
                }
                event = events.next() => match event {
                    Some(Ok(event)) => {
                        if let Some(said) = outcome.fold(&event) {
                            progress.tell(said).await;
                        }
                    }
                    Some(Err(StreamError::Lagged)) => {
                        let header = header.clone();
                        let seen = self.follow(agent, header, &outcome.task, who.as_deref()).await?;
                        (outcome, events) = seen;
                    }
                    Some(Err(error)) => return Err(agents::broken(error)),
                    None => break,
                },
                () = &mut patience, if !is_impatient => is_impatient = true,
            }
        }
        let result = outcome.into_result();
        if result.is_error == Some(true) {
            span.fail("agent_error");
        }
        Ok(result.into())
    }

    /// The task as it is, and what is to come of it.
    async fn follow(
        &self,
        agent: &GatewayAgent,
        header: Header,
        id: &str,
        caller: Option<&str>,
    ) -> Result<(Outcome, ReplyStream<neuroflow_kernel::Parcel<TaskEvent>>), ErrorData> {
        let header = header.within(&self.door.clock, AGENT_ANSWER);
        let followed = follow(&agent.address, header, id, caller, None).await;
        let followed = followed.map_err(|error| agents::unavailable(error.code()))?;
        let (so_far, to_come) = followed.ok_or_else(task::unknown)?;
        Ok((Outcome::of(&so_far), to_come))
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

    async fn exec(
        &self,
        exec: &McpExec,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let visit = Visit::of(&context);
        if !visit.may_exec(exec) {
            // Nor is it among the tools that it's shown.
            return Err(visit::unknown(ExecTool::NAME));
        }
        let span = self.span(&context, ExecTool::NAME);
        let header = Header::new().traced(span.context());
        let arguments = Value::Object(request.arguments.unwrap_or_default());
        let call = invoke(&exec.tools, header, ExecTool::NAME, arguments);
        let mut stay = visit.stay();
        // Dropping the call ends the cell.
        let called = tokio::select! {
            biased;
            () = context.ct.cancelled() => {
                return Ok(CallToolResult::error(vec![ContentBlock::text("cancelled")]).into());
            }
            lost = stay.lost_exec(exec) => return Err(lost),
            called = call => called,
        };
        match called {
            Ok(result) => {
                let value = result.value().clone();
                let text = ContentBlock::text(value.to_string());
                let failed = value.get("exit_code").and_then(Value::as_i64) != Some(0);
                let mut result = if failed {
                    CallToolResult::error(vec![text])
                } else {
                    CallToolResult::success(vec![text])
                };
                result.structured_content = Some(value);
                Ok(result.into())
            }
            Err(InvokeError::Refused(refused @ Refused::Argument { .. })) => {
                Err(ErrorData::invalid_params(refused.to_string(), None))
            }
            Err(error) => {
                Ok(CallToolResult::error(vec![ContentBlock::text(error.to_string())]).into())
            }
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

fn exec_tool(exec: &McpExec) -> Tool {
    let description = format!(
        "Runs a program in a fresh sandbox cell at level {}: no network, a private file system, limits \
         on time and output. Answers with what it wrote and how it ended.",
        exec.level
    );
    let schema = schemars::schema_for!(ExecArguments).to_value();
    let mut tool = Tool::new(ExecTool::NAME, description, agents::object(schema));
    let title = format!("exec ({})", exec.level);
    // A cell starts empty and ends with the call: nothing outside is changed.
    tool.annotations =
        Some(ToolAnnotations::with_title(title).destructive(false).open_world(false));
    tool
}

/// Tells a client that wants to hear it how far its call has come.
struct Progress<'a> {
    context: &'a RequestContext<RoleServer>,
    token: Option<rmcp::model::ProgressToken>,
    steps: u32,
}

impl<'a> Progress<'a> {
    fn of(context: &'a RequestContext<RoleServer>) -> Self {
        Self { context, token: context.meta.get_progress_token(), steps: 0 }
    }

    async fn tell(&mut self, said: String) {
        let Some(token) = &self.token else { return };
        self.steps += 1;
        let params = ProgressNotificationParam::new(token.clone(), f64::from(self.steps));
        let told = self.context.peer.notify_progress(params.with_message(said)).await;
        if let Err(error) = told {
            tracing::debug!(%error, "a client doesn't take progress");
        }
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
        _request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(self.tools(&Visit::of(&context))))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        if let Some(agent) = self.agent(&request.name) {
            return self.ask(agent, request, context).await;
        }
        match &self.door.exec {
            Some(exec) if request.name == ExecTool::NAME => self.exec(exec, request, context).await,
            _ => Err(visit::unknown(&request.name)),
        }
    }

    async fn get_task(
        &self,
        request: GetTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetTaskResult, ErrorData> {
        let (name, id) = task::parts(&request.task_id)?;
        let agent = self.agent(name).ok_or_else(task::unknown)?;
        let visit = Visit::of(&context);
        let (caller, address) = (visit.caller(), visit.enter(agent, READ, task::unknown)?);
        let header = Header::new().within(&self.door.clock, AGENT_ANSWER);
        let command = |reply| AgentCommand::Read { task: id.to_owned(), caller, reply };
        let events = address.call(header, command).await;
        let events = events.map_err(|error| agents::unavailable(error.code()))?;
        let outcome = Outcome::of(&events.ok_or_else(task::unknown)?);
        Ok(GetTaskResult::new(task::detailed(name, outcome)?))
    }

    async fn cancel_task(
        &self,
        request: CancelTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        let (name, id) = task::parts(&request.task_id)?;
        let agent = self.agent(name).ok_or_else(task::unknown)?;
        let visit = Visit::of(&context);
        self.cancel(&visit.enter(agent, CANCEL, task::unknown)?, id, visit.caller()).await
    }
}
