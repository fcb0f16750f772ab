//! What an agent is for: the content of its card.

use std::time::Duration;

use crate::limits::{INPUT_WAIT, TASK_DEADLINE, TASK_RUNS};

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
    /// Time that one task may take. Waiting for its client isn't counted.
    pub task_deadline: Duration,
    /// Time that a task waits for its client's next message.
    pub input_wait: Duration,
    /// Whether clients may follow its tasks as a stream.
    pub streaming: bool,
    /// Whether clients may have the events of its tasks sent to them, where the node does that.
    pub push_notifications: bool,
    /// Whether a task that a crash has interrupted may be run again from its beginning.
    pub resumable: bool,
    /// How many runs of such a task, one after another, may end with their node and bring nothing of its own before
    /// it isn't run again, for it may be what ends the node. More than [`TASK_RUNS`](crate::limits::TASK_RUNS) is for
    /// nodes that are known to be killed from outside.
    pub fruitless_runs: u32,
    /// Extensions of the protocol that it speaks.
    pub extensions: Vec<Extension>,
    /// What only clients read that have proved who they are.
    pub extended: Option<ExtendedProfile>,
    /// Its version, if it isn't the node's.
    pub version: Option<String>,
    /// Who offers it.
    pub provider: Option<Provider>,
    /// Where people read about it.
    pub documentation_url: Option<String>,
    /// A picture of it.
    pub icon_url: Option<String>,
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
            input_wait: INPUT_WAIT,
            streaming: true,
            push_notifications: true,
            resumable: false,
            fruitless_runs: TASK_RUNS,
            extensions: Vec::new(),
            extended: None,
            version: None,
            provider: None,
            documentation_url: None,
            icon_url: None,
        }
    }
}

/// An extension of A2A that an agent speaks.
///
/// ```
/// let extension = neuroflow_actors::Extension::new("https://example.org/ext/tone/v1");
/// assert!(!extension.required);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Extension {
    /// Its name.
    pub uri: String,
    /// How the agent uses it.
    pub description: String,
    /// Whether a client that doesn't speak it is refused.
    pub required: bool,
    /// Its own settings: a JSON object, or nothing.
    pub params: Option<String>,
}

impl Extension {
    /// An extension that clients may use.
    pub fn new(uri: impl Into<String>) -> Self {
        Self { uri: uri.into(), description: String::new(), required: false, params: None }
    }

    /// One that clients must speak.
    #[must_use]
    pub fn required(mut self) -> Self {
        self.required = true;
        self
    }
}

/// What only clients read that have proved who they are: it's added to the public card.
///
/// ```
/// let extended = neuroflow_actors::ExtendedProfile::default();
/// assert!(extended.skills.is_empty());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtendedProfile {
    /// Another description, in the place of the public one.
    pub description: Option<String>,
    /// Further skills.
    pub skills: Vec<Skill>,
}

/// Who offers an agent.
///
/// ```
/// use neuroflow_actors::Provider;
/// let provider = Provider { organization: "Example".into(), url: "https://example.org".into() };
/// assert_eq!(provider.organization, "Example");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Its name.
    pub organization: String,
    /// Its site.
    pub url: String,
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

impl Skill {
    /// A skill of which only the id is known, of an agent that is described like this.
    pub fn named(id: &str, description: &str) -> Self {
        Self {
            id: id.to_owned(),
            name: id.to_owned(),
            description: description.to_owned(),
            tags: vec![id.to_owned()],
            examples: Vec::new(),
        }
    }
}
