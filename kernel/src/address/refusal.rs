//! Why a message isn't taken, or a call not answered.

use std::fmt;
use std::sync::Arc;

use crate::capability::Denied;
use crate::id::Generation;
use crate::limits::MAX_HOPS;
use crate::parcel::ParcelError;

/// A message that wasn't taken, and why.
///
/// ```
/// use neuroflow_kernel::{Address, Header, Message, Refusal};
/// # struct Job(u32);
/// # impl Message for Job { fn name(&self) -> &'static str { "job" } }
/// fn offer(worker: &Address<Job>, job: Job) -> Option<Job> {
///     match worker.try_tell(Header::new(), job) {
///         Ok(()) => None,
///         Err(refused) => Some(refused.message), // nothing is lost
///     }
/// }
/// ```
pub struct SendError<M> {
    /// The message, given back.
    pub message: M,
    /// Why.
    pub reason: Refusal,
}

impl<M> fmt::Debug for SendError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendError").field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl<M> fmt::Display for SendError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl<M> std::error::Error for SendError<M> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.reason)
    }
}

/// Why an address doesn't take a message.
///
/// ```
/// use neuroflow_kernel::Refusal;
/// assert!(Refusal::Overloaded { capacity: 8 }.is_retryable());
/// assert!(!Refusal::Stopped.is_retryable());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The mailbox is full, and stayed so until the deadline.
    #[error("the mailbox is full (capacity {capacity})")]
    Overloaded {
        /// Messages that it holds; 0 if a link's credit is used up.
        capacity: usize,
    },
    /// The address names a life that is over; the actor lives on in a later one.
    #[error("generation {generation} of the actor is over")]
    Stale {
        /// The life that the address names.
        generation: Generation,
    },
    /// The name has no life right now; its supervisor is restarting it.
    #[error("the actor is being restarted")]
    Restarting,
    /// The actor has ended for good.
    #[error("the actor has stopped")]
    Stopped,
    /// The capability doesn't allow it.
    #[error("denied")]
    Denied(#[from] Denied),
    /// Its deadline had passed before it was handled.
    #[error("the deadline of the message has passed")]
    Expired,
    /// The message has passed through too many actors: probably a loop.
    #[error("the message has passed through {hops} actors; {MAX_HOPS} are allowed")]
    TooManyHops {
        /// Actors passed.
        hops: u8,
    },
    /// The other node can't be reached.
    #[error("the node is unreachable")]
    Unreachable(#[source] Arc<crate::remote::RemoteError>),
}

impl Refusal {
    /// A stable word for metrics and protocols.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Overloaded { .. } => "overloaded",
            Self::Stale { .. } => "stale",
            Self::Restarting => "restarting",
            Self::Stopped => "stopped",
            Self::Denied(_) => "denied",
            Self::Expired => "deadline_exceeded",
            Self::TooManyHops { .. } => "too_many_hops",
            Self::Unreachable(_) => "unreachable",
        }
    }

    /// Whether the same message may be taken a little later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Overloaded { .. } | Self::Restarting | Self::Unreachable(_))
    }
}

/// Why a call has no answer.
///
/// ```
/// use neuroflow_kernel::CallError;
/// assert_eq!(CallError::Panicked.code(), "panicked");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The message wasn't taken, or the actor's life ended while it waited in the mailbox.
    #[error("the call was refused")]
    Refused(#[from] Refusal),
    /// No answer came in time. The callee may still be at work until it looks at its reply side.
    #[error("no answer before the deadline")]
    DeadlineExceeded,
    /// The actor panicked while it handled this call.
    #[error("the actor panicked while it handled the call")]
    Panicked,
    /// The actor let go of the reply without an answer.
    #[error("the actor dropped the call without an answer")]
    Unanswered,
}

impl CallError {
    pub(super) fn from_refusal(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Expired => Self::DeadlineExceeded,
            refusal => Self::Refused(refusal),
        }
    }

    /// A stable word for metrics and protocols.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.code(),
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Panicked => "panicked",
            Self::Unanswered => "unanswered",
        }
    }

    /// Whether the same call is safe to send again: it was never handled.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.is_retryable())
    }
}

/// Why a wire request wasn't sent.
///
/// ```
/// use neuroflow_kernel::{AskError, Refusal};
/// assert_eq!(AskError::from(Refusal::Stopped).to_string(), "the request was refused");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// It can't be archived.
    #[error("the request can't be archived")]
    Archive(#[from] ParcelError),
    /// It wasn't taken.
    #[error("the request was refused")]
    Refused(#[from] Refusal),
}
