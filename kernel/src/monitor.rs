//! The end of an actor as whoever watches it is told: once, and in the same words for an actor of
//! this process and for one on another node.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::AbortHandle;

use crate::id::Generation;
use crate::limits::MAX_TASKS;

/// An actor that was watched is no more, or can't be watched any longer.
///
/// ```
/// use neuroflow_kernel::{Down, Fall};
/// fn may_still_live(down: &Down) -> bool {
///     matches!(down.fall, Fall::Lost)
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Down {
    /// The life that was watched; none if there was none, or if the node was lost before it said.
    pub generation: Option<Generation>,
    /// How it ended.
    pub fall: Fall,
}

impl Down {
    /// The end of a life, as a link tells it.
    pub fn new(generation: Option<Generation>, fall: Fall) -> Self {
        Self { generation, fall }
    }

    /// Whether whoever is linked to it goes down with it.
    pub fn is_failure(&self) -> bool {
        self.fall != Fall::Stopped
    }
}

impl fmt::Display for Down {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.generation {
            Some(generation) => write!(f, "life {generation} {}", self.fall.as_str()),
            None => f.write_str(self.fall.as_str()),
        }
    }
}

/// The ways in which one stops being there.
///
/// ```
/// use neuroflow_kernel::Fall;
/// assert_eq!(Fall::from_code(Fall::Lost.code()), Some(Fall::Lost));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fall {
    /// It was killed.
    Killed,
    /// It ended in good order.
    Stopped,
    /// It failed or panicked.
    Failed,
    /// There was nothing to watch: that life is over, the next one hasn't begun, or the other node
    /// offers no such actor to this one.
    Absent,
    /// Its node or the link to it was lost. Whether it still lives isn't known.
    Lost,
}

impl Fall {
    const ALL: [Self; 5] = [Self::Killed, Self::Stopped, Self::Failed, Self::Absent, Self::Lost];

    /// What happened, in a few words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Killed => "was killed",
            Self::Stopped => "has stopped",
            Self::Failed => "has failed",
            Self::Absent => "isn't there",
            Self::Lost => "is out of reach",
        }
    }

    /// The number that stands for it between nodes.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// What a number stands for.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|fall| *fall as u8 == code)
    }
}

/// One actor's watch over another. It lasts as long as the watching life, unless it's
/// [ended](Self::end).
///
/// ```
/// # use neuroflow_kernel::{Address, Context, Down, Message};
/// # enum Command { Down(Down) }
/// # impl Message for Command { fn name(&self) -> &'static str { "down" } }
/// fn glance<N: Message>(context: &mut Context<Command>, other: &Address<N>) {
///     if let Ok(watch) = context.monitor(other, Command::Down) {
///         watch.end();
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Monitor {
    task: AbortHandle,
    ended: Arc<AtomicBool>,
}

impl Monitor {
    pub(crate) fn new(task: AbortHandle, ended: Arc<AtomicBool>) -> Self {
        Self { task, ended }
    }

    /// Watches no longer. Only what lies in the mailbox already still comes.
    pub fn end(self) {
        self.ended.store(true, Ordering::Release);
        self.task.abort();
    }
}

/// An actor watches and does as much beside its messages as it may.
///
/// ```
/// assert!(neuroflow_kernel::MonitorRefused.to_string().contains("tasks"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the actor already has {MAX_TASKS} background tasks, and each watch is one")]
pub struct MonitorRefused;
