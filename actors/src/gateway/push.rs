//! The contract of push notifications: where clients want to be told of a task's events.
//!
//! Each configuration has an actor that follows the task and posts its events in order. How far it
//! has come is kept with it, so that a node that starts again goes on behind the last event that was
//! taken. An event may be posted twice then, never left out for that reason.
//!
//! Nodes may share a store. Each delivers what was set at it, and sees and ends what was set at others.

mod creator;
mod delivery;
mod journal;
mod older;
mod places;
mod retry;
mod server;
mod store;
mod webhook;

use std::fmt;
use std::sync::Arc;

use neuroflow_kernel::{
    Address, ChildSpec, Message, Name, NameError, ParcelError, RawParcel, Reply, StartError,
    WireMessage,
};
use rkyv::{Archive, Archived, Serialize};

use super::{GatewayAgent, Meter};
use crate::access::{Access, Principal};
use crate::audit::{Audit, Unrecorded};
use crate::limits::{PUSH_CONFIGS, PUSH_DELIVERIES, PUSH_POSTS};
use places::Places;
use server::{PushServer, Shared};

pub use creator::{PushBasis, PushCreator};
pub use journal::PushJournal;
pub use server::PushStartError;
pub use store::{PushShared, PushStore, PushStoreError};
pub use webhook::WebhookProblem;

/// Text that is sent to a webhook and shown to nobody else.
///
/// ```
/// let secret = neuroflow_actors::PushSecret::new("hunter2");
/// assert!(!format!("{secret:?}").contains("hunter2"));
/// ```
#[derive(Archive, Serialize, Clone, PartialEq, Eq)]
pub struct PushSecret(String);

impl PushSecret {
    /// This text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PushSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PushSecret({} bytes)", self.0.len())
    }
}

/// Where a client wants to be told of a task's events.
///
/// ```
/// use neuroflow_actors::PushConfig;
/// let config = PushConfig::new("c-1", "https://example.org/hook");
/// assert!(config.token.is_none());
/// ```
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub struct PushConfig {
    /// Its id within the task.
    pub id: String,
    /// The webhook.
    pub url: String,
    /// What the receiver knows the notification by.
    pub token: Option<PushSecret>,
    /// The scheme and the credentials of the `Authorization` header.
    pub authorization: Option<(String, PushSecret)>,
}

impl PushConfig {
    /// A webhook that asks for nothing.
    pub fn new(id: impl Into<String>, url: impl Into<String>) -> Self {
        Self { id: id.into(), url: url.into(), token: None, authorization: None }
    }

    fn read(archived: &Archived<Self>) -> Self {
        Self {
            id: archived.id.to_string(),
            url: archived.url.to_string(),
            token: archived.token.as_ref().map(|token| PushSecret::new(token.0.as_str())),
            authorization: archived.authorization.as_ref().map(|authorization| {
                let (scheme, credentials) = (&authorization.0, &authorization.1);
                (scheme.to_string(), PushSecret::new(credentials.0.as_str()))
            }),
        }
    }
}

/// Whose events are told.
///
/// ```
/// use neuroflow_actors::PushTask;
/// let task = PushTask { agent: "echo".into(), task: "t".into() };
/// assert_eq!(task, task.clone());
/// ```
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PushTask {
    /// The agent.
    pub agent: String,
    /// Its task.
    pub task: String,
}

/// What is kept of a task's configurations: the later record counts.
///
/// ```
/// use neuroflow_actors::PushRecord;
/// let record = PushRecord::Reached { id: "c-1".into(), generation: 7 };
/// assert_eq!(record.id(), "c-1");
/// ```
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub enum PushRecord {
    /// There is a configuration.
    Config {
        /// It.
        config: PushConfig,
        /// Whose the task must be.
        caller: Option<String>,
        /// Who has made it.
        creator: Box<PushCreator>,
        /// The generation after which its events begin.
        after: u64,
    },
    /// The events up to this generation were taken, or given up.
    Reached {
        /// The configuration.
        id: String,
        /// The generation.
        generation: u64,
    },
    /// The configuration is no more.
    Ended {
        /// The configuration.
        id: String,
    },
}

impl PushRecord {
    /// The configuration that it's about.
    pub fn id(&self) -> &str {
        match self {
            Self::Config { config, .. } => &config.id,
            Self::Reached { id, .. } | Self::Ended { id } => id,
        }
    }
}

impl WireMessage for PushRecord {
    const NAME: &'static str = "neuroflow.push.record";
    const VERSION: u16 = 2;

    fn upgrade(old: &RawParcel) -> Result<Self, ParcelError> {
        older::upgrade(old)
    }
}

/// Room for one more configuration of the node, until it's dropped.
///
/// ```
/// use neuroflow_actors::{Principal, PushCommand, PushConfig};
/// use neuroflow_kernel::{Address, CallError, Header};
/// async fn has_room(push: &Address<PushCommand>, config: PushConfig) -> Result<bool, CallError> {
///     let (agent, task, by) = ("echo".to_owned(), None, Principal::anonymous());
///     let place = |reply| PushCommand::Reserve { agent, task, by, config, reply };
///     Ok(push.call(Header::new(), place).await?.is_ok())
/// }
/// ```
#[derive(Debug)]
pub struct PushPlace {
    places: Arc<Places>,
    /// The id of the principal that has it.
    who: String,
}

impl Drop for PushPlace {
    fn drop(&mut self) {
        self.places.give_back(&self.who);
    }
}

/// What lies in the mailbox of the server for push notifications.
///
/// ```
/// use neuroflow_actors::PushCommand;
/// use neuroflow_kernel::Message;
/// fn label(command: &PushCommand) -> &'static str {
///     command.name()
/// }
/// ```
#[derive(Debug)]
pub enum PushCommand {
    /// Check a configuration as if it were to be kept, and hold a place for it: for who has something to
    /// do before, which isn't undone if it then isn't kept.
    Reserve {
        /// The agent whose task it's for.
        agent: String,
        /// The task, if there is one yet.
        task: Option<String>,
        /// Who is to make it.
        by: Principal,
        /// Where to.
        config: PushConfig,
        /// The place; none is needed for one that replaces another.
        reply: Reply<Result<Option<PushPlace>, PushError>>,
    },
    /// Keep a configuration; one of the same creator with the same id is replaced.
    Create {
        /// Whose events.
        task: PushTask,
        /// Whose the task must be.
        caller: Option<String>,
        /// Who makes it: its right is asked for again before each notification.
        creator: Box<PushCreator>,
        /// Where to.
        config: PushConfig,
        /// The generation after which its events begin.
        after: u64,
        /// The place that is held for it; without one, a free one is taken.
        place: Option<PushPlace>,
        /// The answer, once its deliveries have begun.
        reply: Reply<Result<(), PushError>>,
    },
    /// The configurations of a task that a principal has made, ordered by id.
    List {
        /// Which task.
        task: PushTask,
        /// Who has made them.
        by: Principal,
        /// The answer.
        reply: Reply<Result<Vec<PushConfig>, PushError>>,
    },
    /// Forget a configuration. Says whether there was one.
    Delete {
        /// Its task.
        task: PushTask,
        /// Who has made it: another's isn't there.
        by: Principal,
        /// Its id.
        id: String,
        /// The answer.
        reply: Reply<Result<bool, PushError>>,
    },
    /// A delivery has come this far. It comes from the delivery's actor.
    Reached {
        /// Its task.
        task: PushTask,
        /// The configuration.
        id: String,
        /// Whose word it is: one whose configuration was replaced has no say about the next.
        delivery: Name,
        /// The generation.
        generation: u64,
        /// The answer, once that is kept.
        reply: Reply<()>,
    },
    /// A delivery has nothing more to do. It comes from the delivery's actor.
    Over {
        /// Its task.
        task: PushTask,
        /// The configuration.
        id: String,
        /// Whose word it is.
        delivery: Name,
    },
    /// The store has taken how far a delivery has come, or not. It comes from the server itself.
    Landed {
        /// The delivery's task.
        task: PushTask,
    },
}

impl Message for PushCommand {
    fn name(&self) -> &'static str {
        match self {
            Self::Reserve { .. } => "reserve",
            Self::Create { .. } => "create",
            Self::List { .. } => "list",
            Self::Delete { .. } => "delete",
            Self::Reached { .. } => "reached",
            Self::Over { .. } => "over",
            Self::Landed { .. } => "landed",
        }
    }
}

/// Why a configuration isn't kept or forgotten.
///
/// ```
/// use neuroflow_actors::{PushError, WebhookProblem};
/// let error = PushError::Url(WebhookProblem::Scheme);
/// assert!(error.to_string().contains("https"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// Nothing may be sent there.
    #[error("url {0}")]
    Url(#[from] WebhookProblem),
    /// A text can't be sent in a header, or is too long for one.
    #[error("{field} must be printable ASCII, and not longer than servers take")]
    Header {
        /// Which one.
        field: &'static str,
    },
    /// The task has as many of the principal's as it may.
    #[error("the task has {PUSH_CONFIGS} configurations of yours already; delete one")]
    TooMany,
    /// Another principal has a configuration with that id.
    #[error("id is in use by another; choose one of your own")]
    Taken,
    /// The node has as many as it may, or the principal has as many as are free.
    #[error("the node follows as many tasks for others as it may; try again later")]
    Full,
    /// The agent isn't among those whose tasks are followed.
    #[error("there is no agent {agent:?} whose tasks are followed here")]
    UnknownAgent {
        /// Its name.
        agent: String,
    },
    /// The actor that would deliver doesn't start.
    #[error("the deliveries can't be started")]
    Start(#[from] StartError),
    /// It can't be kept.
    #[error("the configuration can't be kept")]
    Store(#[from] PushStoreError),
    /// The audit log doesn't take it.
    #[error("the configuration can't be recorded")]
    Audit(#[from] Unrecorded),
}

/// What the server for push notifications is started with.
///
/// ```
/// use neuroflow_actors::PushOptions;
/// assert!(!PushOptions::default().allow_private);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PushOptions {
    /// Whether webhooks may have loopback and private addresses: for tests, and for receivers in one's
    /// own network. Services that hand out a machine's credentials stay closed.
    pub allow_private: bool,
    /// Certificates (DER) to trust in place of the system's.
    pub roots: Vec<Vec<u8>>,
    /// Configurations that the node has at once.
    pub deliveries: usize,
    /// Notifications that the node posts at once, one at least. The others wait, which is no failure of their
    /// receivers.
    pub posts: usize,
    /// Where configurations outlive the node, if they do.
    pub store: Option<Arc<dyn PushStore>>,
    /// Who says whether a configuration's creator may still be told; without it everybody may.
    pub access: Option<Access>,
    /// Who counts.
    pub meter: Option<Arc<dyn Meter>>,
    /// Where connections and uses of credentials are noted.
    pub audit: Audit,
}

impl Default for PushOptions {
    fn default() -> Self {
        Self {
            allow_private: false,
            roots: Vec::new(),
            deliveries: PUSH_DELIVERIES,
            posts: PUSH_POSTS,
            store: None,
            access: None,
            meter: None,
            audit: Audit::default(),
        }
    }
}

/// The server for push notifications as a child, and the way to it.
///
/// ```
/// use neuroflow_actors::{PushOptions, push_child};
/// let (spec, _push) = push_child(PushOptions::default(), Vec::new())?;
/// assert_eq!(spec.name().as_str(), "push");
/// # Ok::<(), neuroflow_kernel::NameError>(())
/// ```
///
/// # Errors
/// Says what is wrong with the name.
pub fn push_child(
    options: PushOptions,
    agents: Vec<GatewayAgent>,
) -> Result<(ChildSpec, Address<PushCommand>), NameError> {
    let shared = Shared::new(&options);
    let factory = move || PushServer::new(options.clone(), agents.clone(), shared.clone());
    ChildSpec::new("push", factory)
}
