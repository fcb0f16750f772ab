//! What is said and produced: turns, parts, artifacts.

use rkyv::{Archive, Serialize};

use super::record;

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
    /// URIs of the extensions that its sender has used in it.
    pub extensions: Vec<String>,
    /// Ids of other tasks that it's about.
    pub references: Vec<String>,
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
        Self {
            id: record::new_id(),
            role,
            parts,
            metadata: None,
            extensions: Vec::new(),
            references: Vec::new(),
        }
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
    /// A JSON object, or nothing.
    pub metadata: Option<String>,
    /// URIs of the extensions that the agent has used in it.
    pub extensions: Vec<String>,
}

impl Artifact {
    /// A text.
    pub fn text(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(name, vec![Part::from(Content::Text(text.into()))])
    }

    /// Any parts.
    pub fn new(name: impl Into<String>, parts: Vec<Part>) -> Self {
        Self {
            id: record::new_id(),
            name: name.into(),
            description: String::new(),
            parts,
            metadata: None,
            extensions: Vec::new(),
        }
    }
}
