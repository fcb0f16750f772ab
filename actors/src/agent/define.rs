//! How a host defines an agent: its function, what that is given, and what it answers.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use neuroflow_kernel::{CallError, Parcel, ParcelError, RawParcel, Refusal};
use rkyv::Archive;

use super::effect::EffectError;
use super::{
    AgentProfile, ArchivedAsk, ArchivedChange, ArchivedContent, Artifact, Ask, ReplyProblem,
    TaskContext, TaskEvent, TaskState, Turn,
};
use crate::tools::{AnyTool, InvokeError, Tool};

/// What an agent concludes a task with.
///
/// ```
/// use neuroflow_actors::Answer;
/// let answer = Answer::text("42");
/// assert_eq!(answer.artifacts().len(), 1);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub(super) artifacts: Vec<Artifact>,
    pub(super) conclusion: Conclusion,
    pub(super) turn: Option<Turn>,
}

/// How an answer ends its task.
///
/// ```
/// assert_eq!(neuroflow_actors::Answer::done().conclusion(), neuroflow_actors::Conclusion::Completed);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conclusion {
    /// It's done.
    #[default]
    Completed,
    /// The agent won't do it.
    Rejected,
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
        Self { artifacts: vec![artifact], ..Self::default() }
    }

    /// The agent won't do what was asked, and says why.
    pub fn rejected(turn: Turn) -> Self {
        let turn = Some(turn);
        Self { artifacts: Vec::new(), conclusion: Conclusion::Rejected, turn }
    }

    /// Something said at the end.
    #[must_use]
    pub fn saying(mut self, turn: Turn) -> Self {
        self.turn = Some(turn);
        self
    }

    /// The artifacts.
    pub fn artifacts(&self) -> &[Artifact] {
        &self.artifacts
    }

    /// How the task ends.
    pub fn conclusion(&self) -> Conclusion {
        self.conclusion
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
    /// The tool router doesn't say what tools there are.
    #[error("the tools can't be listed")]
    Tools(#[source] CallError),
    /// An event is too large to be sent.
    #[error("an event can't be archived")]
    Event(#[from] ParcelError),
    /// The agent's own actor doesn't answer.
    #[error("the agent doesn't take its task's events")]
    Server(#[from] Refusal),
    /// The agent's own actor doesn't answer a question.
    #[error("the agent doesn't answer its task")]
    Unanswered(#[source] CallError),
    /// The client was asked for something and didn't say anything.
    #[error("the client didn't answer within {} s", waited.as_secs())]
    Silence {
        /// How long the task has waited.
        waited: Duration,
    },
    /// The task has ended: what its function has left running can do nothing for it any more.
    #[error("the task has ended")]
    TaskEnded,
    /// The result of an effect isn't kept, or can't be given back.
    #[error("an effect isn't kept")]
    Effect(#[from] EffectError),
    /// What it says is nothing that its clients can be told. The task fails for that reason, and whoever
    /// waits for an answer is told that there is none that is valid.
    #[error("{field} {problem}")]
    Reply {
        /// Where.
        field: String,
        /// What is wrong with it.
        #[source]
        problem: ReplyProblem,
    },
    /// What does the task for it elsewhere has ended it otherwise than by completing it, and has said this.
    #[error("the task is {} elsewhere", state.as_str())]
    Elsewhere {
        /// The state that the task is in.
        state: TaskState,
        /// What was said.
        turn: Option<Box<Turn>>,
    },
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
/// let ask = Ask::new(Turn::user("hello"));
/// let incoming = Incoming::new(Parcel::archive(&ask)?);
/// assert_eq!(incoming.text(), "hello");
/// # Ok::<(), neuroflow_kernel::ParcelError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Incoming(Said);

#[derive(Clone, Debug)]
enum Said {
    Alone(Parcel<Ask>),
    /// As the event by which its task has it, whose bytes are there anyway. It's one that has a request.
    Event(Parcel<TaskEvent>),
}

impl Incoming {
    /// Takes the parcel.
    pub fn new(parcel: Parcel<Ask>) -> Self {
        Self(Said::Alone(parcel))
    }

    /// What is said by an event, if that is what a client has said. No byte of it is copied.
    pub(super) fn of(event: Parcel<TaskEvent>) -> Option<Self> {
        asked(&event).is_some().then_some(Self(Said::Event(event)))
    }

    /// The archive.
    pub fn get(&self) -> &<Ask as Archive>::Archived {
        match &self.0 {
            Said::Alone(parcel) => parcel.get(),
            Said::Event(event) => {
                asked(event).unwrap_or_else(|| unreachable!("`of` takes no other event"))
            }
        }
    }

    /// Its bytes, as whatever they are part of.
    pub(super) fn as_raw(&self) -> &RawParcel {
        match &self.0 {
            Said::Alone(parcel) => parcel.as_raw(),
            Said::Event(event) => event.as_raw(),
        }
    }

    /// The text parts, joined by line breaks.
    pub fn text(&self) -> String {
        let texts = self.get().turn.parts.iter().filter_map(|part| match &part.content {
            ArchivedContent::Text(text) => Some(text.as_str()),
            _ => None,
        });
        texts.collect::<Vec<_>>().join("\n")
    }

    /// The first JSON part that a client has sent as such.
    pub fn json(&self) -> Option<&str> {
        self.first_json(|media_type| media_type != Some(CHAT))
    }

    /// What a chat completion came with beside its last message, if it came by that way: an object with
    /// `messages`, the whole conversation as the client wrote it, and with its `tools`, `tool_choice` and
    /// `response_format`, if it has them. None for a single message with none of those.
    ///
    /// ```
    /// use neuroflow_actors::{Ask, Incoming, Turn};
    /// use neuroflow_kernel::Parcel;
    /// let ask = Parcel::archive(&Ask::new(Turn::user("hello")))?;
    /// assert!(Incoming::new(ask).chat().is_none());
    /// # Ok::<(), neuroflow_kernel::ParcelError>(())
    /// ```
    pub fn chat(&self) -> Option<&str> {
        self.first_json(|media_type| media_type == Some(CHAT))
    }

    fn first_json(&self, of: impl Fn(Option<&str>) -> bool) -> Option<&str> {
        self.get().turn.parts.iter().find_map(|part| match &part.content {
            ArchivedContent::Json(json) if of(part.media_type.as_deref()) => Some(json.as_str()),
            _ => None,
        })
    }
}

/// The media type of the part that has a chat completion's conversation.
pub(crate) const CHAT: &str = "application/vnd.neuroflow.chat+json";

fn asked(event: &Parcel<TaskEvent>) -> Option<&ArchivedAsk> {
    match &event.get().change {
        ArchivedChange::Accepted { ask } | ArchivedChange::Continued { ask } => Some(ask),
        _ => None,
    }
}

type Running<'a> = BoxFuture<'a, Result<Answer, AgentError>>;

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

    pub(super) fn run(&self, ask: Incoming, context: TaskContext) -> Running<'_> {
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
        let name = self.profile.name.clone();
        change(&mut self.profile);
        self.profile.name = name;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_profile_keeps_the_agents_name() {
        let built = AgentBuilder::new("shout", "Says it louder.").profile(|profile| {
            *profile = AgentProfile::new("whisper", "Says it softly.");
        });
        let agent = built.on_ask(|ask, _| async move { Ok(Answer::text(ask.text())) });
        let profile = agent.profile();
        assert_eq!((&*profile.name, &*profile.description), ("shout", "Says it softly."));
    }
}
