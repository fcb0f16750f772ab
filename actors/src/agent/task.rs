//! The actor of one task: runs the agent's function, and is what a cancellation kills.

use std::error::Error;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use neuroflow_kernel::{
    Actor, Address, CallError, Clock, Context, Header, Message, RawParcel, SpanKind, Tracer,
};
use tokio::sync::watch;

use super::call::Calls;
use super::effect::Effects;
use super::history::failure;
use super::live::Earlier;
use super::reach::Reach;
use super::reply::{self, INVALID_RESPONSE};
use super::work::WorkTime;
use super::{
    AgentCommand, AgentError, AgentProfile, Answer, AnyAgent, Artifact, Change, Conclusion,
    Incoming, Remains, ReplyProblem, TaskState, Turn,
};
use crate::limits::AGENT_ANSWER;
use crate::tools::{
    InvokeError, ToolBounds, ToolListing, ToolProgress, ToolResult, ToolsCommand, list_tools,
};

/// What a task is started with.
pub(super) struct TaskParts {
    pub(super) agent: AnyAgent,
    pub(super) profile: Arc<AgentProfile>,
    pub(super) task: String,
    pub(super) conversation: String,
    pub(super) server: Address<AgentCommand>,
    pub(super) tools: Option<Address<ToolsCommand>>,
    pub(super) reach: Reach,
    pub(super) clock: Clock,
    pub(super) tracer: Tracer,
    pub(super) earlier: Earlier,
    /// Where what is left of it goes.
    pub(super) left: Left,
}

/// What is left to do of tasks that are over, until the agent's actor looks.
pub(super) type Left = Arc<Mutex<Vec<Remains>>>;

pub(super) struct TaskActor {
    parts: TaskParts,
}

impl TaskActor {
    pub(super) fn new(parts: TaskParts) -> Self {
        Self { parts }
    }
}

/// The one message of a task's actor.
pub(super) struct Begin(pub(super) Incoming);

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

        let clock = &self.parts.clock;
        let deadline = clock.now() + self.parts.profile.task_deadline;
        let Earlier { effects, calls } = std::mem::take(&mut self.parts.earlier);
        // Goes with this future, whatever ends it: a kill and a panic too.
        let (alive, life) = watch::channel(());
        let task = TaskContext {
            task: self.parts.task.clone(),
            conversation: self.parts.conversation.clone(),
            header: context.onward().traced(span.context()),
            work: Arc::new(WorkTime::new(deadline)),
            profile: Arc::clone(&self.parts.profile),
            server: self.parts.server.clone(),
            tools: self.parts.tools.clone(),
            reach: self.parts.reach.clone(),
            clock: clock.clone(),
            tracer: self.parts.tracer.clone(),
            effects: Effects::of(effects),
            calls: Calls::of(calls),
            left: Arc::clone(&self.parts.left),
            life,
        };
        let run = self.parts.agent.run(begin.0, task.clone());
        let run = async {
            let mut run = pin!(run);
            let first = poll_fn(|context| Poll::Ready(run.as_mut().poll(context))).await;
            if let Poll::Ready(end) = first {
                return end;
            }
            // The journal waits for this, to have what is said at once together with the beginning.
            task.tell(Vec::new()).await?;
            run.await
        };
        let ended = task.work.limit(clock, run).await;
        // What the function has left running is over before anybody hears of the end.
        drop(alive);
        let ended = ended.map(|ended| ended.and_then(|answer| task.conclude(answer)));
        let changes = match ended {
            Some(Ok(changes)) => changes,
            Some(Err(error @ AgentError::Reply { .. })) => {
                span.fail(INVALID_RESPONSE);
                vec![failure(&error.to_string(), INVALID_RESPONSE)]
            }
            Some(Err(AgentError::Elsewhere { state, turn })) => {
                span.fail("elsewhere");
                vec![Change::Status { state, turn: turn.map(|turn| *turn) }]
            }
            Some(Err(error)) => {
                span.fail("agent_error");
                let turn = Some(Turn::agent(chain(&error)));
                vec![Change::Status { state: TaskState::Failed, turn }]
            }
            None => {
                span.fail("timeout");
                let turn = Some(Turn::agent("the task's time is up"));
                vec![Change::Status { state: TaskState::Failed, turn }]
            }
        };
        task.tell(changes).await?;
        context.stop();
        Ok(())
    }
}

fn invalid((field, problem): (String, ReplyProblem)) -> AgentError {
    AgentError::Reply { field, problem }
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
/// A copy may be taken elsewhere, such as to tasks that the function spawns. What is done with it ends with the
/// task: once the function has returned or failed, its time is up, or it was cancelled, calls and effects that are
/// under way are dropped, down to the last process, and none begins; what is said then is refused
/// ([`InvokeError::TaskEnded`], [`AgentError::TaskEnded`]). So who spawns calls has to wait for them.
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
    pub(super) task: String,
    conversation: String,
    /// Without a deadline, for that one moves.
    pub(super) header: Header,
    work: Arc<WorkTime>,
    profile: Arc<AgentProfile>,
    pub(super) server: Address<AgentCommand>,
    tools: Option<Address<ToolsCommand>>,
    reach: Reach,
    pub(super) clock: Clock,
    tracer: Tracer,
    pub(super) effects: Effects,
    pub(super) calls: Calls,
    left: Left,
    /// Closed when the task has ended.
    life: watch::Receiver<()>,
}

/// Which piece of an artifact it is that is handed out.
///
/// ```
/// assert_ne!(neuroflow_actors::Chunk::First, neuroflow_actors::Chunk::Last);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// The first of several. What the artifact of this id had before is replaced.
    First,
    /// One that follows others.
    Next,
    /// The last of several.
    Last,
}

impl TaskContext {
    /// The task's id.
    pub fn task(&self) -> &str {
        &self.task
    }

    /// The id of the conversation that the task is part of.
    pub fn conversation(&self) -> &str {
        &self.conversation
    }

    /// The header for messages that work for this task.
    pub fn header(&self) -> Header {
        self.header.clone().until(self.work.deadline())
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
        self.say_turn(Turn::agent(text)).await
    }

    /// The same with what isn't text alone.
    ///
    /// # Errors
    /// Says what of it nobody can be told, or why the agent's actor doesn't take it.
    pub async fn say_turn(&self, turn: Turn) -> Result<(), AgentError> {
        let turn = Some(turn);
        self.tell_checked(Change::Status { state: TaskState::Working, turn }).await
    }

    /// Hands out something that the task has produced.
    ///
    /// # Errors
    /// Says what of it nobody can be told, or why the agent's actor doesn't take it.
    pub async fn produce(&self, artifact: Artifact) -> Result<(), AgentError> {
        self.tell_checked(artifact.into()).await
    }

    /// Hands out a piece of an artifact. The pieces of one have the same id; if the task is run again, those of the
    /// second run are added to what clients have of the first one.
    ///
    /// ```
    /// use neuroflow_actors::{AgentError, Artifact, Chunk, TaskContext};
    /// async fn count(context: &TaskContext) -> Result<(), AgentError> {
    ///     let one = Artifact::text("count", "one ");
    ///     let two = Artifact { id: one.id.clone(), ..Artifact::text("count", "two") };
    ///     context.artifact_chunk(one, Chunk::First).await?;
    ///     context.artifact_chunk(two, Chunk::Last).await
    /// }
    /// ```
    ///
    /// # Errors
    /// Says what of it nobody can be told, or why the agent's actor doesn't take it.
    pub async fn artifact_chunk(&self, piece: Artifact, chunk: Chunk) -> Result<(), AgentError> {
        let (append, last) = (chunk != Chunk::First, chunk == Chunk::Last);
        self.tell_checked(Change::Artifact { artifact: piece, append, last }).await
    }

    /// Asks the client something and waits for its next message to this task, which is
    /// `INPUT_REQUIRED` meanwhile, also if something is said beside. The wait isn't counted as work; it has a
    /// bound of its own, the profile's `input_wait`.
    ///
    /// ```
    /// use neuroflow_actors::{AgentError, Answer, Incoming, TaskContext, Turn};
    /// async fn run(_: Incoming, context: TaskContext) -> Result<Answer, AgentError> {
    ///     let name = context.ask_user(Turn::agent("What is your name?")).await?;
    ///     Ok(Answer::text(format!("Hello, {}!", name.text())))
    /// }
    /// ```
    ///
    /// # Errors
    /// Says whether nobody answered in time, or the agent's own actor doesn't.
    pub async fn ask_user(&self, turn: Turn) -> Result<Incoming, AgentError> {
        self.wait(TaskState::InputRequired, turn).await
    }

    /// Asks the client to prove or permit something, and waits for its next message to this task,
    /// which is `AUTH_REQUIRED` meanwhile. What the message proves is the agent's to judge.
    ///
    /// # Errors
    /// Says whether nobody answered in time, or the agent's own actor doesn't.
    pub async fn require_auth(&self, turn: Turn) -> Result<Incoming, AgentError> {
        self.wait(TaskState::AuthRequired, turn).await
    }

    pub(crate) async fn wait(&self, state: TaskState, turn: Turn) -> Result<Incoming, AgentError> {
        reply::said(&turn, &self.profile).map_err(invalid)?;
        self.while_it_lasts(self.asked(state, turn)).await.unwrap_or(Err(AgentError::TaskEnded))
    }

    async fn asked(&self, state: TaskState, turn: Turn) -> Result<Incoming, AgentError> {
        let waited = self.profile.input_wait;
        let _pause = self.work.pause(&self.clock, waited).await;
        let header = self.header.clone().within(&self.clock, waited);
        let command = |reply| AgentCommand::Wait { task: self.task.clone(), state, turn, reply };
        match self.server.call(header, command).await {
            Ok(Some(said)) => Ok(said),
            Ok(None) | Err(CallError::DeadlineExceeded) => Err(AgentError::Silence { waited }),
            Err(error) => Err(AgentError::Unanswered(error)),
        }
    }

    /// What the client has said meanwhile without being asked, oldest first; each message once.
    ///
    /// # Errors
    /// Says why the agent's own actor doesn't answer.
    pub async fn said_meanwhile(&self) -> Result<Vec<Incoming>, AgentError> {
        self.lasts()?;
        let header = self.header.clone().within(&self.clock, AGENT_ANSWER);
        let command = |reply| AgentCommand::Unread { task: self.task.clone(), reply };
        self.server.call(header, command).await.map_err(AgentError::Unanswered)
    }

    /// Calls a tool and waits for its result. Dropping the future cancels the call, down to the
    /// process that may work for it, and so does the end of the task.
    ///
    /// Call and result are in the task's log; clients are told of neither. If the agent is resumable, the journal has the
    /// result before it's given back, and a run after a crash that makes the same call (this tool with these arguments,
    /// the first or second or third time) is given that result. A call whose result isn't there is made again: where
    /// twice would be wrong, the tool has to know its work again by the arguments. Nor is an error kept, or a result of
    /// more than [`EFFECT_BYTES`](crate::limits::EFFECT_BYTES), or one behind
    /// [`TASK_CALL_BYTES`](crate::limits::TASK_CALL_BYTES) of the task's.
    ///
    /// # Errors
    /// Says whether the tool isn't there or isn't granted, the arguments don't fit, it failed, or the journal doesn't
    /// keep its result.
    pub async fn call(
        &self,
        tool: &str,
        arguments: impl serde::Serialize,
    ) -> Result<ToolResult, InvokeError> {
        self.call_told(tool, arguments, |_progress| {}).await
    }

    /// The same, and tells how far the call has come while it goes on.
    ///
    /// # Errors
    /// Says whether the tool isn't there or isn't granted, the arguments don't fit, or it failed.
    pub async fn call_told(
        &self,
        tool: &str,
        arguments: impl serde::Serialize,
        told: impl FnMut(ToolProgress),
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
        let header = self.header().traced(span.context());
        let call = async {
            let arguments = serde_json::to_string(&arguments)?;
            self.called(tools, header, tool, arguments, told).await
        };
        let result = self.while_it_lasts(call).await.unwrap_or(Err(InvokeError::TaskEnded));
        if let Err(error) = &result {
            span.fail(error.code());
        }
        result
    }

    /// The tools that [`call`](Self::call) finds at this moment, by name: the agent's own, those that it shares, and
    /// what MCP servers offer it; of all that no more than may be used for whoever asked. So a model can be told of
    /// them.
    ///
    /// ```
    /// use neuroflow_actors::{AgentError, TaskContext};
    /// use serde_json::{Value, json};
    /// async fn functions(context: &TaskContext) -> Result<Vec<Value>, AgentError> {
    ///     let tools = context.tools().await?.into_iter().map(|tool| {
    ///         json!({ "name": tool.name, "description": tool.description, "parameters": tool.schema })
    ///     });
    ///     Ok(tools.collect())
    /// }
    /// ```
    ///
    /// # Errors
    /// Says why the tool router doesn't answer, or that the task has ended.
    pub async fn tools(&self) -> Result<Vec<ToolListing>, AgentError> {
        self.lasts()?;
        let Some(tools) = &self.tools else { return Ok(Vec::new()) };
        let header = self.header.clone().within(&self.clock, AGENT_ANSWER);
        list_tools(tools, header).await.map_err(AgentError::Tools)
    }

    /// Of these tools of an agent elsewhere, which may be used for whom this task works for; nothing if there
    /// are no bounds to that.
    pub(crate) fn bounds(&self, tools: &[String]) -> Option<ToolBounds> {
        self.reach.bounds(&self.profile.name, tools)
    }

    /// Whether it may be run again.
    pub(super) fn is_resumable(&self) -> bool {
        self.profile.resumable
    }

    /// What an answer comes to.
    fn conclude(&self, answer: Answer) -> Result<Vec<Change>, AgentError> {
        let mut changes: Vec<Change> = answer.artifacts.into_iter().map(Change::from).collect();
        let state = match answer.conclusion {
            Conclusion::Completed => TaskState::Completed,
            Conclusion::Rejected => TaskState::Rejected,
        };
        changes.push(Change::Status { state, turn: answer.turn });
        reply::check(&changes, &self.profile).map_err(invalid)?;
        Ok(changes)
    }

    pub(crate) async fn tell_checked(&self, change: Change) -> Result<(), AgentError> {
        let changes = vec![change];
        reply::check(&changes, &self.profile).map_err(invalid)?;
        self.lasts()?;
        Ok(self.tell(changes).await?)
    }

    /// What `work` comes to. It's dropped when the task ends, and isn't begun once it has.
    pub(super) async fn while_it_lasts<F: Future>(&self, work: F) -> Option<F::Output> {
        self.lasts().ok()?;
        let mut life = self.life.clone();
        tokio::select! {
            biased;
            _ended = life.changed() => None,
            done = work => Some(done),
        }
    }

    /// Of a task whose time is up the actor may not have heard yet.
    fn lasts(&self) -> Result<(), AgentError> {
        if self.life.has_changed().is_err() || self.clock.now() >= self.work.deadline() {
            return Err(AgentError::TaskEnded);
        }
        Ok(())
    }

    /// Has something done that is left of the task, whatever becomes of it. If the agent is stopped, it has
    /// [`REMAINS_TIME`](crate::limits::REMAINS_TIME); it isn't done then if the task is to be run again.
    pub(crate) fn leave(&self, remains: Remains) {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).push(remains);
        // An actor that takes no message is stopping, or has so much to do that it looks soon.
        let _looks = self.server.try_tell(Header::new(), AgentCommand::Leave).is_ok();
    }

    async fn tell(&self, changes: Vec<Change>) -> Result<(), neuroflow_kernel::Refusal> {
        let progress = AgentCommand::Progress { task: self.task.clone(), changes };
        let header = Header::new().traced(self.header.trace());
        self.server.tell(header, progress).await.map_err(|refused| refused.reason)
    }
}
