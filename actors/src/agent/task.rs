//! The actor of one task: runs the agent's function, and is what a cancellation kills.

use std::error::Error;
use std::sync::Arc;

use neuroflow_kernel::{
    Actor, Address, Clock, Context, Header, Message, Parcel, RawParcel, SpanKind, Tracer,
};

use super::{
    AgentCommand, AgentError, AgentProfile, AnyAgent, Artifact, Ask, Change, Incoming, TaskState,
    Turn,
};
use crate::tools::{InvokeError, ToolResult, ToolsCommand, invoke};

/// What a task is started with.
pub(super) struct TaskParts {
    pub(super) agent: AnyAgent,
    pub(super) profile: Arc<AgentProfile>,
    pub(super) task: String,
    pub(super) server: Address<AgentCommand>,
    pub(super) tools: Option<Address<ToolsCommand>>,
    pub(super) clock: Clock,
    pub(super) tracer: Tracer,
}

pub(super) struct TaskActor {
    parts: TaskParts,
}

impl TaskActor {
    pub(super) fn new(parts: TaskParts) -> Self {
        Self { parts }
    }
}

/// The one message of a task's actor.
pub(super) struct Begin(pub(super) Parcel<Ask>);

impl Message for Begin {
    fn name(&self) -> &'static str {
        "begin"
    }

    fn archive(&self) -> Option<RawParcel> {
        Some(self.0.as_raw().clone())
    }
}

impl Actor for TaskActor {
    type Message = Begin;
    type Error = neuroflow_kernel::Refusal;
    const KIND: &'static str = "task";

    async fn handle(
        &mut self,
        begin: Begin,
        context: &mut Context<Begin>,
    ) -> Result<(), neuroflow_kernel::Refusal> {
        let agent = &self.parts.profile.name;
        let mut span = context.span(format!("invoke_agent {agent}"), SpanKind::Internal);
        span.set("gen_ai.operation.name", "invoke_agent");
        span.set("gen_ai.agent.name", agent.clone());

        let header = context.onward().traced(span.context());
        let task = TaskContext {
            task: self.parts.task.clone(),
            header: header.clone(),
            server: self.parts.server.clone(),
            tools: self.parts.tools.clone(),
            clock: self.parts.clock.clone(),
            tracer: self.parts.tracer.clone(),
        };
        task.tell(Change::Status { state: TaskState::Working, turn: None }).await?;
        let run = self.parts.agent.run(Incoming::new(begin.0), task.clone());
        let deadline = header.deadline().unwrap_or(neuroflow_kernel::Moment::ORIGIN);
        let end = match context.clock().before(deadline, run).await {
            Ok(Ok(answer)) => {
                for artifact in answer.artifacts {
                    task.tell(Change::Artifact(artifact)).await?;
                }
                Change::Status { state: TaskState::Completed, turn: None }
            }
            Ok(Err(error)) => {
                span.fail("agent_error");
                let turn = Some(Turn::agent(chain(&error)));
                Change::Status { state: TaskState::Failed, turn }
            }
            Err(_elapsed) => {
                span.fail("timeout");
                let turn = Some(Turn::agent("the task's time is up"));
                Change::Status { state: TaskState::Failed, turn }
            }
        };
        task.tell(end).await?;
        context.stop();
        Ok(())
    }
}

/// An error and its sources in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// What an agent's function works with: its tools, and the way to its task's followers.
///
/// ```
/// use neuroflow_actors::{AgentError, Answer, Incoming, TaskContext};
/// async fn run(ask: Incoming, context: TaskContext) -> Result<Answer, AgentError> {
///     context.say("looking it up").await?;
///     let found = context.call("search", serde_json::json!({ "query": ask.text() })).await?;
///     Ok(Answer::text(found.text()))
/// }
/// ```
#[derive(Clone, Debug)]
pub struct TaskContext {
    task: String,
    header: Header,
    server: Address<AgentCommand>,
    tools: Option<Address<ToolsCommand>>,
    clock: Clock,
    tracer: Tracer,
}

impl TaskContext {
    /// The task's id.
    pub fn task(&self) -> &str {
        &self.task
    }

    /// The header for messages that work for this task.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The kernel's clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Tells the task's followers something while the work goes on.
    ///
    /// # Errors
    /// Says why the agent's actor doesn't take it.
    pub async fn say(&self, text: impl Into<String>) -> Result<(), AgentError> {
        let turn = Some(Turn::agent(text));
        Ok(self.tell(Change::Status { state: TaskState::Working, turn }).await?)
    }

    /// Hands out something that the task has produced.
    ///
    /// # Errors
    /// Says why the agent's actor doesn't take it.
    pub async fn produce(&self, artifact: Artifact) -> Result<(), AgentError> {
        Ok(self.tell(Change::Artifact(artifact)).await?)
    }

    /// Calls a tool and waits for its result. Dropping the future cancels the call, down to the
    /// process that may work for it.
    ///
    /// # Errors
    /// Says whether the tool isn't there or isn't granted, the arguments don't fit, or it failed.
    pub async fn call(
        &self,
        tool: &str,
        arguments: impl serde::Serialize,
    ) -> Result<ToolResult, InvokeError> {
        let Some(tools) = &self.tools else {
            return Err(InvokeError::unknown(tool));
        };
        let mut span = self.tracer.span(
            self.header.trace(),
            format!("execute_tool {tool}"),
            SpanKind::Internal,
        );
        span.set("gen_ai.operation.name", "execute_tool");
        span.set("gen_ai.tool.name", tool.to_owned());
        let header = self.header.clone().traced(span.context());
        let result = invoke(tools, header, tool, arguments).await;
        if let Err(error) = &result {
            span.fail(error.code());
        }
        result
    }

    async fn tell(&self, change: Change) -> Result<(), neuroflow_kernel::Refusal> {
        let progress = AgentCommand::Progress { task: self.task.clone(), change };
        let header = Header::new().traced(self.header.trace());
        self.server.tell(header, progress).await.map_err(|refused| refused.reason)
    }
}
