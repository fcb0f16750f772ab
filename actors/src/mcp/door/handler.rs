//! What answers an MCP client: lists agents and `exec` as tools, calls them with progress and
//! cancellation, and shows their tasks as tasks.

use axum::http::request::Parts;
use neuroflow_kernel::{Address, Header, ReplyStream, SpanKind, StreamError, TraceContext};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, CancelTaskParams, ContentBlock,
    CreateTaskResult, CustomRequest, CustomResult, ErrorCode, GetTaskParams, GetTaskResult,
    Implementation, InitializeRequestParams, ListToolsResult, PaginatedRequestParams,
    ProgressNotificationParam, ServerCapabilities, ServerConfig, Tool, UpdateTaskParams,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::callee::Callee;
use super::outcome::Outcome;
use super::task::PublicId;
use super::visit::{self, Hold, Visit};
use super::{McpDoor, agents, programs, task};
use crate::agent::{ASK, AgentCommand, CANCEL, CancelError, READ, TaskEvent, follow};
use crate::gateway::{bytes, shown};
use crate::limits::{AGENT_ANSWER, MCP_STILL_AT_IT};
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
        let who = visit.caller();
        let ask = match callee.ask(request.arguments, who.clone()) {
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
        let mut events = agents::ask(&address, &ask, header.clone()).await?;
        let (mut outcome, mut hold) = (Outcome::default(), visit.holds());
        let mut progress = Progress::of(&context);
        let mut stay = visit.stay();
        let clock = &self.door.clock;
        let begun = clock.now();
        // Who knows tasks gets one when it takes long; others wait.
        let knows_tasks = context.client_capabilities().is_some_and(|it| it.supports_tasks())
            && callee.is_read_by(&visit);
        let patience = async {
            if knows_tasks {
                clock.sleep(self.door.task_after).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        let mut patience = std::pin::pin!(patience);
        let mut is_impatient = false;
        // An agent says itself how far it is; of a program is told what it writes, or that it's still there.
        if let Callee::Program(exec) = callee {
            progress.written(0, format!("running at level {}", exec.level)).await;
        }
        let mut still = begun + MCP_STILL_AT_IT;
        while !outcome.is_settled() {
            if is_impatient && !outcome.task.is_empty() {
                let task = task::task(name, &outcome);
                return Ok(CallToolResponse::Task(CreateTaskResult::new(task)));
            }
            let tick = async {
                match callee {
                    Callee::Agent(_) => std::future::pending().await,
                    Callee::Program(_) => clock.sleep_until(still).await,
                }
            };
            tokio::select! {
                biased;
                () = context.ct.cancelled() => {
                    // It's the caller's own call, whatever else it may do.
                    self.withdraw(callee, outcome, events, who).await?;
                    span.fail("cancelled");
                    return Ok(CallToolResult::error(vec![ContentBlock::text("cancelled")]).into());
                }
                lost = callee.lost(&mut stay) => {
                    span.fail("lost");
                    return Err(self.leave(callee, outcome, events, who, lost).await);
                }
                event = events.next() => match event {
                    Some(Ok(event)) => {
                        if let Err(busy) = hold.grow(bytes([&event])) {
                            span.fail("busy");
                            return Err(self.leave(callee, outcome, events, who, busy).await);
                        }
                        if let Some(said) = outcome.fold(&event) {
                            match callee {
                                Callee::Agent(_) => progress.step(said).await,
                                // Its report is no progress.
                                Callee::Program(_) if outcome.has_result() => {}
                                Callee::Program(_) => {
                                    progress.written(outcome.written, said).await;
                                    still = clock.now() + MCP_STILL_AT_IT;
                                }
                            }
                        }
                    }
                    Some(Err(StreamError::Lagged)) => {
                        let header = header.clone();
                        let seen = self.follow(callee, header, &outcome, who.clone(), &mut hold);
                        match seen.await {
                            Ok(seen) => (outcome, events) = seen,
                            Err(error) => {
                                span.fail("lagged");
                                return Err(self.leave(callee, outcome, events, who, error).await);
                            }
                        }
                    }
                    Some(Err(error)) => {
                        span.fail("broken");
                        let broken = agents::broken(error);
                        return Err(self.leave(callee, outcome, events, who, broken).await);
                    }
                    None => break,
                },
                () = &mut patience, if !is_impatient => is_impatient = true,
                () = tick => {
                    let seconds = clock.now().since(begun).as_secs();
                    progress.written(outcome.written, format!("running for {seconds} s")).await;
                    still = clock.now() + MCP_STILL_AT_IT;
                }
            }
        }
        let result = callee.result(outcome);
        if result.is_error == Some(true) {
            span.fail("agent_error");
        }
        Ok(result.into())
    }

    /// The call as it is, in place of what was known of it, and what is to come of it.
    async fn follow(
        &self,
        callee: Callee<'_>,
        header: Header,
        known: &Outcome,
        caller: Option<String>,
        hold: &mut Hold<'_>,
    ) -> Result<(Outcome, ReplyStream<neuroflow_kernel::Parcel<TaskEvent>>), ErrorData> {
        let header = header.within(&self.door.clock, AGENT_ANSWER);
        let _place = callee.reads(&self.door.clock).await?;
        let followed = follow(callee.address(), header, &known.task, caller.as_deref(), None).await;
        let followed = followed.map_err(|error| agents::unavailable(error.code()))?;
        let (so_far, to_come) = followed.ok_or_else(task::unknown)?;
        hold.replace(bytes(&so_far))?;
        let outcome = Outcome::since(&so_far, Some(known.call)).ok_or_else(task::unknown)?;
        Ok((outcome, to_come))
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
    async fn leave(
        &self,
        callee: Callee<'_>,
        outcome: Outcome,
        events: ReplyStream<neuroflow_kernel::Parcel<TaskEvent>>,
        caller: Option<String>,
        mut why: ErrorData,
    ) -> ErrorData {
        match callee {
            Callee::Agent(_) => why.data = task::named(callee.name(), &outcome),
            Callee::Program(_) => {
                if let Err(error) = self.withdraw(callee, outcome, events, caller).await {
                    return error;
                }
            }
        }
        why
    }

    /// Cancels what was asked for, also where nothing was heard of it yet: what isn't begun by the time that this
    /// gives up isn't, once nobody waits for it.
    async fn withdraw(
        &self,
        callee: Callee<'_>,
        mut outcome: Outcome,
        mut events: ReplyStream<neuroflow_kernel::Parcel<TaskEvent>>,
        caller: Option<String>,
    ) -> Result<(), ErrorData> {
        if outcome.task.is_empty() {
            let clock = &self.door.clock;
            match clock.before(clock.now() + AGENT_ANSWER, events.next()).await {
                Ok(Some(Ok(event))) => drop(outcome.fold(&event)),
                _ => return Ok(()),
            }
        }
        self.cancel(callee.address(), &outcome.task, caller).await
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

/// Tells a client that wants to hear it how far its call has come.
struct Progress<'a> {
    context: &'a RequestContext<RoleServer>,
    token: Option<rmcp::model::ProgressToken>,
    last: Mark,
}

/// How far a call was when its client heard of it last. A client has to hear more each time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Mark {
    whole: u32,
    /// How often it has heard that there is nothing more.
    still: u32,
}

impl Mark {
    /// So much has been done. Past what a number of the protocol tells apart it's as if nothing more were.
    fn at(self, done: u64) -> Self {
        let whole = u32::try_from(done).unwrap_or(u32::MAX);
        if whole > self.whole {
            return Self { whole, still: 0 };
        }
        Self { still: self.still.saturating_add(1), ..self }
    }

    /// The whole number that is done, and less than one more for each time that it stayed the same.
    fn value(self) -> f64 {
        f64::from(self.whole) + (1.0 - 1.0 / (f64::from(self.still) + 1.0))
    }
}

impl<'a> Progress<'a> {
    fn of(context: &'a RequestContext<RoleServer>) -> Self {
        Self { context, token: context.meta.get_progress_token(), last: Mark::default() }
    }

    /// An agent has said something more.
    async fn step(&mut self, said: String) {
        self.tell(u64::from(self.last.whole).saturating_add(1), said).await;
    }

    /// A program has written so many bytes.
    async fn written(&mut self, bytes: u64, said: String) {
        self.tell(bytes, said).await;
    }

    async fn tell(&mut self, done: u64, said: String) {
        let Some(token) = &self.token else { return };
        self.last = self.last.at(done);
        let params = ProgressNotificationParam::new(token.clone(), self.last.value());
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
