//! A proxy: an agent that stands for one of another node. Its tasks are this node's own, and each is done by a task
//! of that other agent.

mod far;

use std::fmt;
use std::sync::Arc;

use neuroflow_kernel::RemoteError;

use self::far::{Far, Heard};
use crate::agent::{
    Agent, AgentError, AgentProfile, AgentWay, Answer, ArchivedChange, ArchivedTaskEvent, Ask,
    AskRefusal, Change, Incoming, TaskContext, TaskState, Turn, failure, read,
};
use crate::limits::PROXY_AGAIN;

/// An agent that stands for one of another node: what it's asked goes there, and what comes back is told as it
/// comes. Ending its task ends the one there.
///
/// A profile that is `resumable` says that the agent there may be run again: then a task that was interrupted here
/// goes on with the one there, and one whose node was lost is begun again elsewhere.
///
/// Rules say here which tools may be used for whom. They reach as far as this knows the tools there by name: see
/// [`tools`](Self::tools).
///
/// ```
/// use std::sync::Arc;
/// use neuroflow_actors::{Agent, AgentProfile, Proxy};
/// use neuroflow_kernel::RemoteError;
/// let route = |_place: neuroflow_actors::ProxyPlace<'_>| {
///     Err(RemoteError::Unsupported { target: "agent://*/billing".to_owned() })
/// };
/// let proxy = Proxy::new(AgentProfile::new("billing", "Knows the bills."), Arc::new(route));
/// assert_eq!(proxy.profile().name, "billing");
/// ```
pub struct Proxy {
    profile: AgentProfile,
    route: ProxyRoute,
    tools: Vec<String>,
}

/// Where the agent of a proxy is to be found.
///
/// ```
/// use neuroflow_actors::ProxyPlace;
/// assert_ne!(ProxyPlace::Conversation("c"), ProxyPlace::Node("c"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyPlace<'a> {
    /// Wherever this conversation is placed now.
    Conversation(&'a str),
    /// On this node, by the id that a [`AgentWay`] has.
    Node(&'a str),
}

/// What finds the agent of a proxy.
pub type ProxyRoute = Arc<dyn Fn(ProxyPlace<'_>) -> Result<AgentWay, RemoteError> + Send + Sync>;

impl Proxy {
    /// A proxy with this profile, for the agent that the route leads to.
    pub fn new(profile: AgentProfile, route: ProxyRoute) -> Self {
        Self { profile, route, tools: Vec::new() }
    }

    /// Names of tools of the agent there. Of these, a client whom rules don't permit everything may have those used
    /// that they do permit, as tools of the agent here; any others are for clients without rules.
    #[must_use]
    pub fn tools(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.tools = names.into_iter().map(Into::into).collect();
        self
    }

    /// One run of the task elsewhere, to its end. `part` says what the runs before it have had.
    async fn pass(&self, part: &mut Part<'_>) -> Result<Answer, End> {
        let mut far = Far::begin(&self.route, part).await?;
        loop {
            match far.next(part.context).await? {
                Heard::Event(event) => {
                    if let Some(end) = self.hear(event.get(), part, &mut far).await? {
                        far.is_over();
                        return end.map_err(End::Agent);
                    }
                }
                Heard::Client(said) => {
                    part.unasked += 1;
                    let what = format!("unasked {}", part.unasked);
                    far.say(part, &said, &what).await?;
                }
            }
        }
    }

    /// Tells what an event says, and gives the end of the task if it is one.
    async fn hear(
        &self,
        event: &ArchivedTaskEvent,
        part: &mut Part<'_>,
        far: &mut Far,
    ) -> Result<Option<Result<Answer, AgentError>>, End> {
        let (state, turn) = match &event.change {
            ArchivedChange::Accepted { .. } => return Ok(None),
            ArchivedChange::Continued { .. } => {
                part.answered = false;
                return Ok(None);
            }
            ArchivedChange::Refused(refusal) => return Err(End::refused(refusal.into())),
            ArchivedChange::Artifact { artifact, append, last } => {
                let artifact = read::artifact(artifact);
                part.tell(Change::Artifact { artifact, append: *append, last: *last }).await?;
                return Ok(None);
            }
            ArchivedChange::Status { state, turn } => {
                (TaskState::from(*state), turn.as_ref().map(read::turn))
            }
        };
        match state {
            // What it says while it waits is no other question.
            _ if state.is_interrupted() && part.answered => {
                if turn.is_some() {
                    part.tell(Change::Status { state: TaskState::Working, turn }).await?;
                }
                Ok(None)
            }
            TaskState::Submitted | TaskState::Working => {
                if turn.is_some() {
                    part.tell(Change::Status { state: TaskState::Working, turn }).await?;
                }
                Ok(None)
            }
            TaskState::InputRequired | TaskState::AuthRequired => {
                let said = part.wait(state, turn).await?;
                let what = format!("answer {}", part.waits);
                far.say(part, &said, &what).await?;
                part.answered = true;
                Ok(None)
            }
            TaskState::Completed => {
                let done = Answer::done();
                Ok(Some(Ok(turn.into_iter().fold(done, Answer::saying))))
            }
            TaskState::Failed | TaskState::Canceled | TaskState::Rejected => {
                Ok(Some(Err(AgentError::Elsewhere { state, turn: turn.map(Box::new) })))
            }
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("name", &self.profile.name).finish_non_exhaustive()
    }
}

impl Agent for Proxy {
    fn profile(&self) -> AgentProfile {
        self.profile.clone()
    }

    async fn run(&self, ask: Incoming, context: TaskContext) -> Result<Answer, AgentError> {
        let mut part = Part {
            ask: read::ask(ask.get()),
            context: &context,
            tools: &self.tools,
            resumable: self.profile.resumable,
            run: 0,
            told: 0,
            known: 0,
            said: Vec::new(),
            waits: 0,
            answered: false,
            unasked: 0,
        };
        loop {
            match self.pass(&mut part).await {
                Ok(answer) => return Ok(answer),
                Err(End::Agent(error)) => return Err(error),
                Err(End::Lost(lost)) => {
                    tracing::info!(
                        task = context.task(),
                        run = part.run,
                        ?lost,
                        "a task's node was lost"
                    );
                    if !part.resumable || lost.is_final() || part.run >= PROXY_AGAIN {
                        return Err(lost.into());
                    }
                    part.again();
                }
            }
        }
    }
}

/// What this side of a task knows.
struct Part<'a> {
    ask: Ask,
    context: &'a TaskContext,
    /// Those of the agent there that rules here may permit.
    tools: &'a [String],
    resumable: bool,
    /// How often the task has been begun again elsewhere.
    run: u32,
    /// Changes that this run has had.
    told: usize,
    /// Changes that earlier runs have told: as many of this one aren't told again.
    known: usize,
    /// What the client has answered.
    said: Vec<Incoming>,
    /// How many of those answers this run has had.
    waits: usize,
    /// It was told of one, and hasn't said yet that it was.
    answered: bool,
    /// Messages that the client has said without being asked.
    unasked: usize,
}

impl Part<'_> {
    async fn tell(&mut self, change: Change) -> Result<(), End> {
        self.told += 1;
        if self.told <= self.known {
            return Ok(());
        }
        self.context.tell_checked(change).await.map_err(End::Agent)
    }

    /// What the client answers, or has answered an earlier run.
    async fn wait(&mut self, state: TaskState, turn: Option<Turn>) -> Result<Incoming, End> {
        let known = self.said.get(self.waits).cloned();
        self.waits += 1;
        if let Some(known) = known {
            return Ok(known);
        }
        let turn = turn.unwrap_or_else(|| Turn::agent(""));
        let said = self.context.wait(state, turn).await.map_err(End::Agent)?;
        self.said.push(said.clone());
        Ok(said)
    }

    fn again(&mut self) {
        self.run += 1;
        self.known = self.known.max(self.told);
        (self.told, self.waits, self.answered) = (0, 0, false);
    }
}

/// Why a run elsewhere has no answer.
enum End {
    /// Nobody knows what has become of it, or it wasn't begun.
    Lost(Loss),
    /// The task here fails.
    Agent(AgentError),
}

impl End {
    /// What the other agent refuses.
    fn refused(refusal: AskRefusal) -> Self {
        match refusal {
            AskRefusal::UnknownTask | AskRefusal::Elsewhere => Self::Lost(Loss::Forgotten),
            refusal => Self::Agent(declined(&refusal.to_string(), "refused")),
        }
    }
}

/// What was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    /// No node could be asked.
    Unreachable,
    /// The node has no such agent, or not for this one.
    Absent,
    /// The node doesn't know of bounds, and the task has some.
    Boundless,
    /// The node was lost with the task.
    Node,
    /// The node is there, and knows nothing of the task.
    Forgotten,
}

impl Loss {
    /// Whether another try would end in the same way.
    fn is_final(self) -> bool {
        matches!(self, Self::Unreachable | Self::Absent | Self::Boundless)
    }
}

impl From<Loss> for AgentError {
    fn from(loss: Loss) -> Self {
        match loss {
            Loss::Unreachable => {
                declined("no node that has the agent can be reached", "unreachable")
            }
            Loss::Absent => declined("the node doesn't offer the agent to this one", "absent"),
            Loss::Boundless => {
                declined("the node can't keep to what may be used for whoever asks", "boundless")
            }
            Loss::Node => declined("the node that had the task was lost", "node_lost"),
            Loss::Forgotten => declined("the node that had the task has begun anew", "node_lost"),
        }
    }
}

/// A failure with a reason for programs.
fn declined(text: &str, reason: &'static str) -> AgentError {
    let Change::Status { state, turn } = failure(text, reason) else {
        return AgentError::Elsewhere { state: TaskState::Failed, turn: None };
    };
    AgentError::Elsewhere { state, turn: turn.map(Box::new) }
}
