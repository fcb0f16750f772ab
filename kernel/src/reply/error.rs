//! What may go wrong on the way back.

use std::fmt;

use super::INTERRUPTED;
use crate::address::Refusal;
use crate::capability::Denied;

/// Why an item wasn't taken; it comes back.
///
/// ```
/// use neuroflow_kernel::{SinkError, reply_stream};
/// let (sink, stream) = reply_stream();
/// drop(stream);
/// assert!(matches!(sink.try_send(5), Err(SinkError::Closed(5))));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError<T> {
    /// The consumer is slower than the producer.
    #[error("the consumer doesn't keep up")]
    Full(T),
    /// The consumer has gone.
    #[error("the consumer has gone")]
    Closed(T),
}

impl<T> fmt::Debug for SinkError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full",
            Self::Closed(_) => "Closed",
        })
    }
}

/// Why a stream ended early.
///
/// ```
/// assert!(neuroflow_kernel::StreamError::Interrupted.to_string().contains("early"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The producer ended without finishing.
    #[error("the stream ended early")]
    Interrupted,
    /// The producer panicked.
    #[error("the producer of the stream panicked")]
    Panicked,
    /// The consumer was too slow and was cut off.
    #[error("the consumer didn't keep up and was cut off")]
    Lagged,
    /// The link to the other node broke. Whether the request was handled isn't known.
    #[error("the link to the other node was lost")]
    Lost,
    /// The deadline passed before the stream had ended.
    #[error("the deadline passed before the end of the stream")]
    DeadlineExceeded,
    /// The other node has no actor of this name that the sender may ask.
    #[error("the other node has no such actor for this sender")]
    Unknown,
    /// What was sent isn't a request that the other node's actor takes.
    #[error("the other node's actor takes other messages or versions")]
    Mismatch,
    /// The other node's actor, or the node, has no room for the request.
    #[error("the actor on the other node is overloaded")]
    Overloaded,
    /// The address names a life that is over.
    #[error("that life of the actor is over")]
    Stale,
    /// The actor has ended for good.
    #[error("the actor on the other node has stopped")]
    Stopped,
    /// The other node's capability doesn't allow the request.
    #[error("the other node denies the request")]
    Denied,
    /// The request was handled before, and its answer isn't kept any more, or was too large for that.
    #[error("the request was handled, and its answer isn't kept")]
    Forgotten,
    /// The capability lacks a right that the request needs.
    #[error("the capability doesn't have the rights that the request needs")]
    Rights,
    /// The capability was taken back, or one that it was derived from.
    #[error("the capability was revoked")]
    Revoked,
    /// The capability's time is over.
    #[error("the capability has expired")]
    Expired,
    /// As many messages as the capability allows have passed.
    #[error("the capability is used up")]
    UsedUp,
    /// The capability was changed, or not signed by whom it should be.
    #[error("the capability isn't a genuine one of the other node")]
    Forged,
    /// The capability is for another node.
    #[error("the capability is for another node than the sender's")]
    NotHolder,
    /// The capability claims more than what it was derived from.
    #[error("the capability claims more than what it was derived from")]
    Widened,
}

impl StreamError {
    /// Every reason, at the place of its code less two.
    const ALL: [Self; 18] = [
        Self::Panicked,
        Self::Lagged,
        Self::Lost,
        Self::DeadlineExceeded,
        Self::Unknown,
        Self::Mismatch,
        Self::Overloaded,
        Self::Stale,
        Self::Stopped,
        Self::Denied,
        Self::Forgotten,
        Self::Rights,
        Self::Revoked,
        Self::Expired,
        Self::UsedUp,
        Self::Forged,
        Self::NotHolder,
        Self::Widened,
    ];

    /// The number that stands for it between nodes: 0 for an early end without a reason, 2 and up
    /// for the others. 1 is the end in good order, which is no error.
    pub fn code(self) -> u8 {
        let place = Self::ALL.iter().position(|error| *error == self);
        place.and_then(|place| u8::try_from(place).ok()).map_or(INTERRUPTED, |place| place + 2)
    }

    /// The reason that a number stands for.
    pub fn from_code(code: u8) -> Option<Self> {
        match code {
            INTERRUPTED => Some(Self::Interrupted),
            code => Self::ALL.get(usize::from(code.checked_sub(2)?)).copied(),
        }
    }

    /// Whether the request may have been handled: it's only surely not where it was refused.
    pub fn may_have_run(self) -> bool {
        match self {
            Self::Interrupted
            | Self::Panicked
            | Self::Lagged
            | Self::Lost
            | Self::DeadlineExceeded
            | Self::Forgotten => true,
            Self::Unknown
            | Self::Mismatch
            | Self::Overloaded
            | Self::Stale
            | Self::Stopped
            | Self::Denied
            | Self::Rights
            | Self::Revoked
            | Self::Expired
            | Self::UsedUp
            | Self::Forged
            | Self::NotHolder
            | Self::Widened => false,
        }
    }

    /// Whether the request was surely not handled and may be taken a little later.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Overloaded)
    }
}

/// What a refusal is to whoever waits for replies.
impl From<&Refusal> for StreamError {
    fn from(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::Overloaded { .. } | Refusal::Restarting => Self::Overloaded,
            Refusal::Stale { .. } => Self::Stale,
            Refusal::Stopped => Self::Stopped,
            Refusal::Expired => Self::DeadlineExceeded,
            Refusal::Unreachable(_) => Self::Lost,
            Refusal::Denied(Denied::Rights { .. }) => Self::Rights,
            Refusal::Denied(Denied::Revoked) => Self::Revoked,
            Refusal::Denied(Denied::Expired) => Self::Expired,
            Refusal::Denied(Denied::UsedUp) => Self::UsedUp,
            Refusal::TooManyHops { .. } => Self::Denied,
        }
    }
}
