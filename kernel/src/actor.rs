//! Actors: the trait, how they are started, and how they end.

mod children;
mod context;
mod life;

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

pub use self::context::Context;
pub(crate) use self::life::{Start, start_actor};

use crate::event::{Cause, PostMortem};
use crate::id::ActorId;
use crate::limits::{MAILBOX_CAPACITY, MAX_CHILDREN, MAX_TASKS, START_DEADLINE, STOP_DEADLINE};
use crate::message::Message;
use crate::name::{Name, NameError, Path};
use crate::restart::ExitKind;

/// An actor: state that handles one message at a time.
///
/// An error or a panic ends this life; the supervisor decides about the next one. Callers whose
/// messages were being handled or were waiting get a typed error at once.
///
/// ```
/// use std::convert::Infallible;
/// use neuroflow_kernel::{Actor, Context, Message, Reply};
/// enum Command { Add(u64), Total(Reply<u64>) }
/// impl Message for Command {
///     fn name(&self) -> &'static str {
///         match self { Self::Add(_) => "add", Self::Total(_) => "total" }
///     }
/// }
/// #[derive(Default)]
/// struct Counter { total: u64 }
/// impl Actor for Counter {
///     type Message = Command;
///     type Error = Infallible;
///     const KIND: &'static str = "counter";
///
///     async fn handle(&mut self, command: Command, _: &mut Context<Command>) -> Result<(), Infallible> {
///         match command {
///             Command::Add(amount) => self.total += amount,
///             Command::Total(reply) => { let _ = reply.send(self.total); }
///         }
///         Ok(())
///     }
/// }
/// ```
pub trait Actor: Send + 'static {
    /// What it takes.
    type Message: Message;
    /// What ends it.
    type Error: Error + Send + Sync + 'static;
    /// Its kind, for metrics and the tree: one fixed word.
    const KIND: &'static str;

    /// Runs before the first message. Whoever starts the actor waits for it, up to
    /// [`START_DEADLINE`].
    fn started(
        &mut self,
        _context: &mut Context<Self::Message>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send {
        std::future::ready(Ok(()))
    }

    /// Handles one message.
    fn handle(
        &mut self,
        message: Self::Message,
        context: &mut Context<Self::Message>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// A child of this actor has ended. Not called for children that this actor stops itself.
    fn child_ended(
        &mut self,
        _ended: Ended,
        _context: &mut Context<Self::Message>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send {
        std::future::ready(Ok(()))
    }

    /// Runs after the last message, when the actor was asked to stop; its children still live.
    fn stopping(
        &mut self,
        _context: &mut Context<Self::Message>,
    ) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// How a child ended.
///
/// ```
/// use neuroflow_kernel::{Ended, Ending};
/// fn is_failure(ended: &Ended) -> bool {
///     !matches!(ended.ending, Ending::Stopped)
/// }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Ended {
    /// Its identity.
    pub id: ActorId,
    /// Its name below its parent.
    pub name: Name,
    /// How.
    pub ending: Ending,
}

/// The ways to end.
///
/// ```
/// use neuroflow_kernel::{Ending, ExitKind};
/// assert_eq!(Ending::Killed.exit_kind(), ExitKind::Failed);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Ending {
    /// In good order.
    Stopped,
    /// It was killed.
    Killed,
    /// It failed.
    Failed(Arc<PostMortem>),
}

impl Ending {
    /// What a supervisor's decision needs to know of it.
    pub fn exit_kind(&self) -> ExitKind {
        match self {
            Self::Stopped => ExitKind::Normal,
            Self::Killed | Self::Failed(_) => ExitKind::Failed,
        }
    }
}

/// Why an actor didn't start.
///
/// ```
/// use neuroflow_kernel::{NameError, StartError};
/// assert!(matches!(StartError::from(NameError::Empty), StartError::Name(_)));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Its name isn't one.
    #[error("the child's name isn't valid")]
    Name(#[from] NameError),
    /// A sibling has this name.
    #[error("there is already a child named {name}")]
    Taken {
        /// The name.
        name: Name,
    },
    /// The parent has as many children as it may.
    #[error("the parent has {count} children; {MAX_CHILDREN} are allowed")]
    TooMany {
        /// Its children.
        count: usize,
    },
    /// Its `started` hook failed or panicked.
    #[error("{path} failed to start")]
    Failed {
        /// The actor.
        path: Path,
        /// Why.
        #[source]
        cause: Cause,
    },
    /// Its `started` hook took too long.
    #[error("{path} didn't start within {START_DEADLINE:?}")]
    TimedOut {
        /// The actor.
        path: Path,
    },
    /// The parent is about to stop.
    #[error("the parent of {path} is stopping")]
    ParentStopping {
        /// The actor.
        path: Path,
    },
    /// The supervisor didn't take the command.
    #[error("the supervisor didn't take the child")]
    Supervisor(#[from] crate::address::CallError),
}

/// How an actor is started as a child.
///
/// ```
/// use std::time::Duration;
/// let options = neuroflow_kernel::Spawn::default().mailbox(16).stop_within(Duration::from_secs(1));
/// assert!(format!("{options:?}").contains("16"));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Spawn {
    pub(crate) mailbox: usize,
    pub(crate) stop_within: Duration,
    pub(crate) start_within: Duration,
}

impl Spawn {
    /// Messages that may wait; at least 1.
    #[must_use]
    pub fn mailbox(mut self, messages: usize) -> Self {
        self.mailbox = messages.clamp(1, Semaphore::MAX_PERMITS);
        self
    }

    /// The time that it gets to stop before it's killed.
    #[must_use]
    pub fn stop_within(mut self, deadline: Duration) -> Self {
        self.stop_within = deadline;
        self
    }

    /// For a supervisor, which starts and stops as long as its children do, each within deadlines of its own.
    pub(crate) fn of_a_supervisor(self) -> Self {
        Self { start_within: Duration::MAX, stop_within: Duration::MAX, ..self }
    }
}

impl Default for Spawn {
    fn default() -> Self {
        let (start_within, stop_within) = (START_DEADLINE, STOP_DEADLINE);
        Self { mailbox: MAILBOX_CAPACITY, stop_within, start_within }
    }
}

/// An actor has as many background tasks as it may; the work comes back.
///
/// ```
/// let refused = neuroflow_kernel::TaskRefused { work: async {} };
/// assert!(refused.to_string().contains("tasks"));
/// ```
#[derive(thiserror::Error)]
#[error("the actor already has {MAX_TASKS} background tasks")]
pub struct TaskRefused<F> {
    /// What was to be done.
    pub work: F,
}

impl<F> fmt::Debug for TaskRefused<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskRefused").finish_non_exhaustive()
    }
}
