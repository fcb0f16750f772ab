//! What became of a task that the host asked for itself.

use std::error::Error;
use std::fmt;

use neuroflow_actors::{
    ArchivedChange, ArchivedContent, ArchivedTaskEvent, Artifact, Ask, AskRefusal, Content,
    TaskState, Turn,
};
use neuroflow_kernel::{Elapsed, ParcelError, Refusal, RemoteError, StreamError};

/// The end of a task, or the point at which it waits for its client: its state, and what was said and produced.
///
/// ```
/// use neuroflow::{AgentBuilder, Answer, Header, Node, Turn};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tailor = AgentBuilder::new("tailor", "Makes suits.").on_ask(|_, context| async move {
///     let colour = context.ask_user(Turn::agent("Which colour?")).await?;
///     Ok(Answer::text(format!("a {} suit", colour.text())))
/// });
/// let node = Node::builder().agent(tailor).start().await?;
/// let asked = node.ask("tailor", "a suit").await?;
/// assert_eq!(asked.said(), Some("Which colour?"));
/// let answered = node.ask_with("tailor", asked.answer(Turn::user("blue")), Header::new()).await?;
/// assert_eq!(answered.completed()?.text(), "a blue suit");
/// # node.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskOutcome {
    task: String,
    context: String,
    /// Of the last event.
    generation: u64,
    state: Option<TaskState>,
    artifacts: Vec<Artifact>,
    said: Option<String>,
    refused: Option<AskRefusal>,
}

impl TaskOutcome {
    pub(crate) fn fold(&mut self, event: &ArchivedTaskEvent) {
        if self.task.is_empty() {
            event.task.as_str().clone_into(&mut self.task);
            event.context.as_str().clone_into(&mut self.context);
        }
        self.generation = self.generation.max(event.generation.to_native());
        match &event.change {
            ArchivedChange::Accepted { .. } | ArchivedChange::Continued { .. } => {}
            ArchivedChange::Refused(refusal) => self.refused = Some(refusal.into()),
            ArchivedChange::Status { state, turn } => {
                self.state = Some(TaskState::from(*state));
                let parts = turn.iter().flat_map(|turn| turn.parts.iter());
                for part in parts {
                    if let ArchivedContent::Text(text) = &part.content {
                        self.said = Some(text.to_string());
                    }
                }
            }
            ArchivedChange::Artifact { artifact, append, .. } => {
                self.produce(artifact.into(), *append);
            }
        }
    }

    fn produce(&mut self, piece: Artifact, append: bool) {
        match self.artifacts.iter_mut().rev().find(|former| former.id == piece.id) {
            Some(former) if append => former.parts.extend(piece.parts),
            Some(former) => *former = piece,
            None => self.artifacts.push(piece),
        }
    }

    /// Whether there is nothing more to wait for, until the client says something.
    pub(crate) fn is_settled(&self) -> bool {
        self.state.is_some_and(|state| state.is_terminal() || state.is_interrupted())
    }

    /// Of the last event that is taken in.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Why there is no task.
    pub(crate) fn refused(&mut self) -> Option<AskRefusal> {
        self.refused.take()
    }

    /// The task's id.
    pub fn task(&self) -> &str {
        &self.task
    }

    /// The task's conversation: by it a request finds where the task is, in a cluster too.
    pub fn context(&self) -> &str {
        &self.context
    }

    /// The state that it ended in or waits in.
    pub fn state(&self) -> Option<TaskState> {
        self.state
    }

    /// What it produced, each whole, in the order in which they were begun.
    pub fn artifacts(&self) -> &[Artifact] {
        &self.artifacts
    }

    /// The texts that it produced, one after another; empty as well if it has failed.
    /// [`completed`](Self::completed) tells these apart.
    pub fn text(&self) -> String {
        let texts = self.contents().filter_map(|content| match content {
            Content::Text(text) => Some(text.as_str()),
            _ => None,
        });
        texts.collect()
    }

    /// The JSON values that it produced.
    pub fn json(&self) -> Vec<&str> {
        let values = self.contents().filter_map(|content| match content {
            Content::Json(json) => Some(json.as_str()),
            _ => None,
        });
        values.collect()
    }

    fn contents(&self) -> impl Iterator<Item = &Content> {
        self.artifacts.iter().flat_map(|artifact| &artifact.parts).map(|part| &part.content)
    }

    /// What the agent said last: if it failed, why.
    pub fn said(&self) -> Option<&str> {
        self.said.as_deref()
    }

    /// Whether it completed.
    pub fn is_completed(&self) -> bool {
        self.state == Some(TaskState::Completed)
    }

    /// Itself, if it completed.
    ///
    /// # Errors
    /// Has it, if it has failed, was cancelled or rejected, or waits for its client.
    pub fn completed(self) -> Result<Self, NotCompleted> {
        if self.is_completed() { Ok(self) } else { Err(NotCompleted(Box::new(self))) }
    }

    /// What goes on with a task that waits for its client, here or elsewhere in the cluster.
    pub fn answer(&self, turn: Turn) -> Ask {
        Ask { task: Some(self.task.clone()), ..Ask::new(turn).in_context(&self.context) }
    }
}

/// A task that didn't complete.
///
/// ```
/// let error = neuroflow::TaskOutcome::default().completed().unwrap_err();
/// assert_eq!(error.to_string(), "the task is without a state");
/// assert_eq!(error.outcome().state(), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotCompleted(Box<TaskOutcome>);

impl NotCompleted {
    /// What became of it instead.
    pub fn outcome(&self) -> &TaskOutcome {
        &self.0
    }
}

impl fmt::Display for NotCompleted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the task is {}", self.0.state.map_or("without a state", TaskState::as_str))?;
        self.0.said().map_or(Ok(()), |said| write!(f, ": {said}"))
    }
}

impl Error for NotCompleted {}

/// Why a host's request has no outcome.
///
/// ```
/// use neuroflow::AskError;
/// let error = AskError::UnknownAgent { agent: "ecko".into(), known: vec!["echo".into()] };
/// assert_eq!(error.to_string(), "there is no agent \"ecko\"; this node has: echo");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// The node has no such agent.
    #[error("there is no agent {agent:?}; this node has: {}", known.join(", "))]
    UnknownAgent {
        /// What was asked for.
        agent: String,
        /// The agents that are there.
        known: Vec<String>,
    },
    /// The request can't be archived.
    #[error("the request can't be archived")]
    Archive(#[source] ParcelError),
    /// The agent didn't take the request.
    #[error("the agent didn't take the request")]
    Refused(#[source] Refusal),
    /// The agent took the request and refused it.
    #[error("the agent refused the request")]
    Declined(#[source] AskRefusal),
    /// Not the name of an agent that can be reached.
    #[error("the name doesn't lead to an agent")]
    Target(#[from] RemoteError),
    /// The task's events ended early.
    #[error("the task's events ended early")]
    Interrupted(#[from] StreamError),
    /// The wait is over; the task goes on.
    #[error("the task hasn't ended in time")]
    TimedOut(#[from] Elapsed),
}

#[cfg(test)]
mod tests {
    use neuroflow_actors::{Change, TaskEvent};
    use neuroflow_kernel::Parcel;

    use super::*;

    fn outcome(changes: Vec<Change>) -> TaskOutcome {
        let mut outcome = TaskOutcome::default();
        for (generation, change) in (1..).zip(changes) {
            let (task, context) = ("t".to_owned(), "c".to_owned());
            let event = TaskEvent { task, context, generation, at_ms: 0, change };
            outcome.fold(Parcel::archive(&event).unwrap().get());
        }
        outcome
    }

    #[test]
    fn artifacts_are_whole_in_the_end() {
        let piece = |id: &str, text: &str, append| {
            let artifact = Artifact { id: id.into(), ..Artifact::text("log", text) };
            Change::Artifact { artifact, append, last: false }
        };
        let json = Artifact::new("data", vec![Content::Json("7".into()).into()]);
        let outcome = outcome(vec![
            piece("a", "lost", false),
            piece("a", "1", false),
            piece("b", "x", false),
            piece("a", "2", true),
            json.into(),
        ]);
        assert_eq!(outcome.artifacts().len(), 3);
        assert_eq!(outcome.artifacts()[0].parts.len(), 2);
        assert_eq!((outcome.text().as_str(), outcome.json()), ("12x", vec!["7"]));
    }

    #[test]
    fn a_task_that_failed_is_no_completed_one_and_says_why() {
        let turn = Some(Turn::agent("no"));
        let failed = outcome(vec![Change::Status { state: TaskState::Failed, turn }]);
        let error = failed.completed().unwrap_err();
        assert_eq!(error.to_string(), "the task is failed: no");
        assert_eq!(error.outcome().said(), Some("no"));
        let done = Change::Status { state: TaskState::Completed, turn: None };
        assert!(outcome(vec![done]).completed().is_ok());
    }

    #[test]
    fn an_answer_is_to_the_task_and_its_conversation() {
        let asking = Change::Status { state: TaskState::InputRequired, turn: None };
        let answer = outcome(vec![asking]).answer(Turn::user("x"));
        assert_eq!((answer.task.as_deref(), answer.context.as_deref()), (Some("t"), Some("c")));
    }
}
