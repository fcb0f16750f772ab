//! The contract of agents: what is asked of one, the events of a task, and how a host defines one.
//!
//! Long, because it's the whole contract in reading order: types, their documents, and no behaviour
//! but the closures that make an agent.

pub(crate) mod read;
mod record;
mod server;
mod task;

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use neuroflow_kernel::{
    Address, CallError, Header, Message, Parcel, ParcelError, RawParcel, Refusal, Reply, ReplySink,
    ReplyStream, Request, Rights, WireMessage, WireRequest, reply_stream,
};
use rkyv::{Archive, Serialize};

use crate::limits::TASK_DEADLINE;
use crate::tools::{AnyTool, InvokeError, Tool};

pub use record::TaskState;
pub use server::AgentServer;
pub use task::TaskContext;

/// The right to ask an agent something.
pub const ASK: Rights = Rights::bit(0);
/// The right to read an agent's tasks.
pub const READ: Rights = Rights::bit(1);
/// The right to cancel an agent's tasks.
pub const CANCEL: Rights = Rights::bit(2);

/// One message of a conversation.
///
/// ```
/// use neuroflow_actors::{Content, Part, Role, Turn};
/// let turn = Turn::user("What is the time?");
/// assert_eq!(turn.role, Role::User);
/// assert_eq!(turn.parts, [Part::from(Content::Text("What is the time?".into()))]);
/// ```
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The sender's id for it.
    pub id: String,
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub parts: Vec<Part>,
    /// A JSON object, or nothing.
    pub metadata: Option<String>,
}

impl Turn {
    /// A user's text.
    pub fn user(text: impl Into<String>) -> Self {
        Self::text(Role::User, text.into())
    }

    /// An agent's text.
    pub fn agent(text: impl Into<String>) -> Self {
        Self::text(Role::Agent, text.into())
    }

    fn text(role: Role, text: String) -> Self {
        let parts = vec![Part::from(Content::Text(text))];
        Self { id: record::new_id(), role, parts, metadata: None }
    }
}

/// Who speaks.
///
/// ```
/// assert_ne!(neuroflow_actors::Role::User, neuroflow_actors::Role::Agent);
/// ```
#[derive(Archive, Serialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Whoever asks.
    User,
    /// The agent.
    Agent,
}

/// A piece of a message or artifact.
///
/// ```
/// use neuroflow_actors::{Content, Part};
/// let part = Part::from(Content::Bytes(vec![0x89, b'P', b'N', b'G']));
/// assert!(part.media_type.is_none());
/// ```
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The content.
    pub content: Content,
    /// Its media type.
    pub media_type: Option<String>,
    /// Its file name.
    pub filename: Option<String>,
    /// A JSON object, or nothing.
    pub metadata: Option<String>,
}

impl From<Content> for Part {
    fn from(content: Content) -> Self {
        Self { content, media_type: None, filename: None, metadata: None }
    }
}

/// The content of a part.
///
/// ```
/// let content = neuroflow_actors::Content::Json("{\"answer\":42}".into());
/// assert_ne!(content, neuroflow_actors::Content::Text("{\"answer\":42}".into()));
/// ```
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Where the content is.
    Url(String),
    /// A JSON value.
    Json(String),
}

/// Something that a task has produced.
///
/// ```
/// use neuroflow_actors::Artifact;
/// let artifact = Artifact::text("greeting", "hello");
/// assert_eq!(artifact.name, "greeting");
/// ```
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// Its id within the task.
    pub id: String,
    /// A name for people.
    pub name: String,
    /// What it is.
    pub description: String,
    /// Its content.
    pub parts: Vec<Part>,
}

impl Artifact {
    /// A text.
    pub fn text(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(name, vec![Part::from(Content::Text(text.into()))])
    }

    /// Any parts.
    pub fn new(name: impl Into<String>, parts: Vec<Part>) -> Self {
        Self { id: record::new_id(), name: name.into(), description: String::new(), parts }
    }
}

/// A request to an agent. It's answered with the events of the task that it begins, until that has
/// ended. Who stops listening doesn't stop the task.
///
/// ```
/// use neuroflow_actors::{Ask, Turn};
/// use neuroflow_kernel::Parcel;
/// let ask = Ask { context: None, turn: Turn::user("hello"), caller: None };
/// assert_eq!(Parcel::archive(&ask)?.get().turn.parts.len(), 1);
/// # Ok::<(), neuroflow_kernel::ParcelError>(())
/// ```
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The conversation that it continues.
    pub context: Option<String>,
    /// What is said.
    pub turn: Turn,
    /// Who asks, as far as a gateway or link has made sure of it.
    pub caller: Option<String>,
}

impl WireMessage for Ask {
    const NAME: &'static str = "neuroflow.agent.ask";
    const VERSION: u16 = 1;
}

impl WireRequest for Ask {
    type Reply = TaskEvent;
}

/// One event of a task. Events are numbered from 1 without a gap.
///
/// ```
/// use neuroflow_actors::{Change, TaskEvent, TaskState};
/// let event = TaskEvent {
///     task: "t".into(), context: "c".into(), generation: 1, at_ms: 0,
///     change: Change::Status { state: TaskState::Working, turn: None },
/// };
/// assert!(!TaskState::Working.is_terminal());
/// # let _ = event;
/// ```
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub struct TaskEvent {
    /// The task.
    pub task: String,
    /// Its conversation.
    pub context: String,
    /// The event's number.
    pub generation: u64,
    /// When, in milliseconds of Unix time.
    pub at_ms: u64,
    /// What has changed.
    pub change: Change,
}

impl WireMessage for TaskEvent {
    const NAME: &'static str = "neuroflow.agent.task-event";
    const VERSION: u16 = 1;
}

/// What an event changes.
///
/// ```
/// use neuroflow_actors::{Artifact, Change};
/// let change = Change::Artifact(Artifact::text("greeting", "hello"));
/// assert!(matches!(change, Change::Artifact(_)));
/// ```
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The task was accepted, with this message.
    Accepted {
        /// What was asked.
        turn: Turn,
    },
    /// Its state is another, or the agent says something.
    Status {
        /// The state.
        state: TaskState,
        /// What the agent says.
        turn: Option<Turn>,
    },
    /// It has produced something.
    Artifact(Artifact),
}

/// The events of a task so far, oldest first.
pub type TaskEvents = Vec<Parcel<TaskEvent>>;

/// What lies in an agent's mailbox.
///
/// ```
/// use neuroflow_actors::AgentCommand;
/// use neuroflow_kernel::Message;
/// fn label(command: &AgentCommand) -> &'static str {
///     command.name()
/// }
/// ```
#[derive(Debug)]
pub enum AgentCommand {
    /// Begin a task. Needs [`ASK`].
    Ask(Request<Ask>),
    /// The events of a task; none if there is no such task. Needs [`READ`].
    Read {
        /// Its id.
        task: String,
        /// The answer.
        reply: Reply<Option<TaskEvents>>,
    },
    /// The events of a task so far, and from now on; none if there is no such task. Needs [`READ`].
    Follow {
        /// Its id.
        task: String,
        /// Takes the events to come, until the task has ended.
        events: ReplySink<Parcel<TaskEvent>>,
        /// The answer.
        reply: Reply<Option<TaskEvents>>,
    },
    /// End a task and everything that works for it. Needs [`CANCEL`].
    Cancel {
        /// Its id.
        task: String,
        /// The events, the cancellation included.
        reply: Reply<Result<TaskEvents, CancelError>>,
    },
    /// A task's own progress. It comes from the task's actor, which alone has the owner's address.
    Progress {
        /// Its id.
        task: String,
        /// What has changed.
        change: Change,
    },
}

/// No outside capability has this right: it's for the agent's own children.
const PROGRESS: Rights = Rights::bit(31);

impl Message for AgentCommand {
    fn name(&self) -> &'static str {
        match self {
            Self::Ask(_) => "ask",
            Self::Read { .. } => "read",
            Self::Follow { .. } => "follow",
            Self::Cancel { .. } => "cancel",
            Self::Progress { .. } => "progress",
        }
    }

    fn required_rights(&self) -> Rights {
        match self {
            Self::Ask(_) => ASK,
            Self::Read { .. } | Self::Follow { .. } => READ,
            Self::Cancel { .. } => CANCEL,
            Self::Progress { .. } => PROGRESS,
        }
    }

    fn archive(&self) -> Option<RawParcel> {
        match self {
            Self::Ask(request) => request.archive(),
            _ => None,
        }
    }
}

/// The events of a task so far, and those to come; none if there is no such task. Who doesn't keep
/// up with an agent that says much at once is cut off, and follows anew.
///
/// ```
/// use neuroflow_actors::{AgentCommand, follow};
/// use neuroflow_kernel::{Address, CallError, Header};
/// async fn count(agent: &Address<AgentCommand>, task: &str) -> Result<usize, CallError> {
///     let followed = follow(agent, Header::new(), task).await?;
///     Ok(followed.map_or(0, |(so_far, _to_come)| so_far.len()))
/// }
/// ```
///
/// # Errors
/// Says why the agent doesn't answer.
pub async fn follow(
    agent: &Address<AgentCommand>,
    header: Header,
    task: &str,
) -> Result<Option<(TaskEvents, ReplyStream<Parcel<TaskEvent>>)>, CallError> {
    let (events, to_come) = reply_stream();
    let command = |reply| AgentCommand::Follow { task: task.to_owned(), events, reply };
    let so_far = agent.call(header, command).await?;
    Ok(so_far.map(|so_far| (so_far, to_come)))
}

/// Why a task can't be cancelled.
///
/// ```
/// use neuroflow_actors::{CancelError, TaskState};
/// let error = CancelError::Ended { state: TaskState::Completed };
/// assert_eq!(error.to_string(), "the task is already completed");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CancelError {
    /// There is no such task.
    #[error("there is no such task")]
    Unknown,
    /// It's in a final state.
    #[error("the task is already {}", state.as_str())]
    Ended {
        /// The state.
        state: TaskState,
    },
}

/// What an agent is for: the content of its card.
///
/// ```
/// use neuroflow_actors::AgentProfile;
/// let profile = AgentProfile::new("echo", "Says what it hears.");
/// assert_eq!(profile.name, "echo");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AgentProfile {
    /// Its name: a [`Name`](neuroflow_kernel::Name) in the tree, and a segment of its URL.
    pub name: String,
    /// What it does, for people and other agents.
    pub description: String,
    /// What it can do.
    pub skills: Vec<Skill>,
    /// Media types that it takes.
    pub input_modes: Vec<String>,
    /// Media types that it gives.
    pub output_modes: Vec<String>,
    /// Time that one task may take.
    pub task_deadline: Duration,
}

impl AgentProfile {
    /// A profile with one skill, named and described as the agent is, for text in and out.
    pub fn new(name: impl Into<String>, description: impl Into<String>) -> Self {
        let (name, description) = (name.into(), description.into());
        let skill = Skill {
            id: name.clone(),
            name: name.clone(),
            description: description.clone(),
            tags: vec![name.clone()],
            examples: Vec::new(),
        };
        Self {
            name,
            description,
            skills: vec![skill],
            input_modes: vec!["text/plain".to_owned()],
            output_modes: vec!["text/plain".to_owned()],
            task_deadline: TASK_DEADLINE,
        }
    }
}

/// One thing that an agent can do.
///
/// ```
/// use neuroflow_actors::AgentProfile;
/// let skill = &AgentProfile::new("echo", "Says what it hears.").skills[0];
/// assert_eq!(skill.id, "echo");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skill {
    /// Its id within the agent.
    pub id: String,
    /// A name for people.
    pub name: String,
    /// What it does.
    pub description: String,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// Requests that it can serve.
    pub examples: Vec<String>,
}

/// What an agent concludes a task with.
///
/// ```
/// use neuroflow_actors::Answer;
/// let answer = Answer::text("42");
/// assert_eq!(answer.artifacts().len(), 1);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    artifacts: Vec<Artifact>,
}

impl Answer {
    /// Nothing more than what was produced on the way.
    pub fn done() -> Self {
        Self::default()
    }

    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::artifact(Artifact::text("answer", text))
    }

    /// An artifact.
    pub fn artifact(artifact: Artifact) -> Self {
        Self { artifacts: vec![artifact] }
    }

    /// The artifacts.
    pub fn artifacts(&self) -> &[Artifact] {
        &self.artifacts
    }
}

/// Why a task failed. Its text is for the client.
///
/// ```
/// use neuroflow_actors::AgentError;
/// let error = AgentError::Input { field: "parts", problem: InputProblem::Missing };
/// # use neuroflow_actors::InputProblem;
/// assert_eq!(error.to_string(), "parts is missing");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// What was asked isn't something that the agent can work with.
    #[error("{field} {problem}")]
    Input {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        problem: InputProblem,
    },
    /// A tool call failed.
    #[error("a tool call failed")]
    Tool(#[from] InvokeError),
    /// An event is too large to be sent.
    #[error("an event can't be archived")]
    Event(#[from] ParcelError),
    /// The agent's own actor doesn't answer.
    #[error("the agent doesn't take its task's events")]
    Server(#[from] Refusal),
    /// The agent's own error.
    #[error(transparent)]
    Failed(Box<dyn Error + Send + Sync>),
}

impl AgentError {
    /// The agent's own error.
    pub fn failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed(error.into())
    }
}

/// What is wrong with an input.
///
/// ```
/// assert_eq!(neuroflow_actors::InputProblem::Empty.to_string(), "is empty");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InputProblem {
    /// It isn't there.
    #[error("is missing")]
    Missing,
    /// There is nothing in it.
    #[error("is empty")]
    Empty,
    /// It isn't the JSON that it should be.
    #[error("isn't valid: {0}")]
    Json(#[from] serde_json::Error),
}

/// An agent: an async function of what is asked. Each task runs it in an actor of its own.
///
/// ```
/// use neuroflow_actors::{Agent, AgentError, AgentProfile, Answer, Incoming, TaskContext};
/// struct Shout;
/// impl Agent for Shout {
///     fn profile(&self) -> AgentProfile {
///         AgentProfile::new("shout", "Says it louder.")
///     }
///     async fn run(&self, ask: Incoming, _: TaskContext) -> Result<Answer, AgentError> {
///         Ok(Answer::text(ask.text().to_uppercase()))
///     }
/// }
/// ```
pub trait Agent: Send + Sync + 'static {
    /// What it's for.
    fn profile(&self) -> AgentProfile;

    /// Tools that belong to it alone.
    fn tools(&self) -> Vec<AnyTool> {
        Vec::new()
    }

    /// Names of the node's shared tools that it may call.
    fn shared_tools(&self) -> Vec<String> {
        Vec::new()
    }

    /// Works on one task. Dropped at the next `await` when the task is cancelled or its time is up.
    fn run(
        &self,
        ask: Incoming,
        context: TaskContext,
    ) -> impl Future<Output = Result<Answer, AgentError>> + Send;
}

/// What was asked, read in place.
///
/// ```
/// use neuroflow_actors::{Ask, Incoming, Turn};
/// use neuroflow_kernel::Parcel;
/// let ask = Ask { context: None, turn: Turn::user("hello"), caller: None };
/// let incoming = Incoming::new(Parcel::archive(&ask)?);
/// assert_eq!(incoming.text(), "hello");
/// # Ok::<(), neuroflow_kernel::ParcelError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Incoming {
    parcel: Parcel<Ask>,
}

impl Incoming {
    /// Takes the parcel.
    pub fn new(parcel: Parcel<Ask>) -> Self {
        Self { parcel }
    }

    /// The archive.
    pub fn get(&self) -> &<Ask as Archive>::Archived {
        self.parcel.get()
    }

    /// The text parts, joined by line breaks.
    pub fn text(&self) -> String {
        let texts = self.get().turn.parts.iter().filter_map(|part| match &part.content {
            ArchivedContent::Text(text) => Some(text.as_str()),
            _ => None,
        });
        texts.collect::<Vec<_>>().join("\n")
    }

    /// The first JSON part.
    pub fn json(&self) -> Option<&str> {
        self.get().turn.parts.iter().find_map(|part| match &part.content {
            ArchivedContent::Json(json) => Some(json.as_str()),
            _ => None,
        })
    }
}

type Running<'a> = Pin<Box<dyn Future<Output = Result<Answer, AgentError>> + Send + 'a>>;

/// Any agent, behind a pointer.
///
/// ```
/// use neuroflow_actors::{AnyAgent, Echo};
/// let agent = AnyAgent::new(Echo);
/// assert_eq!(agent.profile().name, "echo");
/// ```
#[derive(Clone)]
pub struct AnyAgent(Arc<dyn DynAgent>);

trait DynAgent: Send + Sync {
    fn profile(&self) -> AgentProfile;
    fn tools(&self) -> Vec<AnyTool>;
    fn shared_tools(&self) -> Vec<String>;
    fn run(&self, ask: Incoming, context: TaskContext) -> Running<'_>;
}

impl<A: Agent> DynAgent for A {
    fn profile(&self) -> AgentProfile {
        Agent::profile(self)
    }

    fn tools(&self) -> Vec<AnyTool> {
        Agent::tools(self)
    }

    fn shared_tools(&self) -> Vec<String> {
        Agent::shared_tools(self)
    }

    fn run(&self, ask: Incoming, context: TaskContext) -> Running<'_> {
        Box::pin(Agent::run(self, ask, context))
    }
}

impl AnyAgent {
    /// Wraps an agent.
    pub fn new(agent: impl Agent) -> Self {
        Self(Arc::new(agent))
    }

    /// What it's for.
    pub fn profile(&self) -> AgentProfile {
        self.0.profile()
    }

    /// Tools that belong to it alone.
    pub fn tools(&self) -> Vec<AnyTool> {
        self.0.tools()
    }

    /// Names of the node's shared tools that it may call.
    pub fn shared_tools(&self) -> Vec<String> {
        self.0.shared_tools()
    }

    fn run(&self, ask: Incoming, context: TaskContext) -> Running<'_> {
        self.0.run(ask, context)
    }
}

impl fmt::Debug for AnyAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AnyAgent").field(&self.profile().name).finish()
    }
}

/// An agent made of a closure and tools: what a host program needs most often.
///
/// ```
/// use neuroflow_actors::{AgentBuilder, Answer};
/// let agent = AgentBuilder::new("shout", "Says it louder.")
///     .on_ask(|ask, _context| async move { Ok(Answer::text(ask.text().to_uppercase())) });
/// assert_eq!(agent.profile().name, "shout");
/// ```
#[derive(Debug)]
pub struct AgentBuilder {
    profile: AgentProfile,
    tools: Vec<AnyTool>,
    shared: Vec<String>,
}

impl AgentBuilder {
    /// An agent with this name and description.
    pub fn new(name: impl Into<String>, description: impl Into<String>) -> Self {
        let profile = AgentProfile::new(name, description);
        Self { profile, tools: Vec::new(), shared: Vec::new() }
    }

    /// Another profile, whose name stays this agent's.
    #[must_use]
    pub fn profile(mut self, change: impl FnOnce(&mut AgentProfile)) -> Self {
        change(&mut self.profile);
        self
    }

    /// A tool of its own.
    #[must_use]
    pub fn tool(mut self, tool: impl Tool) -> Self {
        self.tools.push(AnyTool::new(tool));
        self
    }

    /// A shared tool of the node, such as `exec`, that it may call.
    #[must_use]
    pub fn shared_tool(mut self, name: impl Into<String>) -> Self {
        self.shared.push(name.into());
        self
    }

    /// What it does with a request.
    pub fn on_ask<F, R>(self, run: F) -> AnyAgent
    where
        F: Fn(Incoming, TaskContext) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Answer, AgentError>> + Send + 'static,
    {
        AnyAgent::new(FunctionAgent {
            profile: self.profile,
            tools: self.tools,
            shared: self.shared,
            run,
        })
    }
}

struct FunctionAgent<F> {
    profile: AgentProfile,
    tools: Vec<AnyTool>,
    shared: Vec<String>,
    run: F,
}

impl<F, R> Agent for FunctionAgent<F>
where
    F: Fn(Incoming, TaskContext) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Answer, AgentError>> + Send + 'static,
{
    fn profile(&self) -> AgentProfile {
        self.profile.clone()
    }

    fn tools(&self) -> Vec<AnyTool> {
        self.tools.clone()
    }

    fn shared_tools(&self) -> Vec<String> {
        self.shared.clone()
    }

    async fn run(&self, ask: Incoming, context: TaskContext) -> Result<Answer, AgentError> {
        (self.run)(ask, context).await
    }
}
