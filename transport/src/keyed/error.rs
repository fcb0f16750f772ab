//! Why a call with a key has no answer, and what a failed try means for the next one.

use neuroflow_kernel::{ParcelError, Refusal, RemoteError, StreamError};

use crate::session::retry::Tried;

/// Why a call with a key has no answer.
///
/// ```
/// use neuroflow_transport::KeyedError;
/// assert!(KeyedError::BeganAnew.may_have_run());
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyedError {
    /// No such target, or no way to it.
    #[error("the actor can't be asked")]
    Remote(#[from] RemoteError),
    /// The message or an answer isn't one.
    #[error("the message can't be archived, or the answer can't be read")]
    Parcel(#[from] ParcelError),
    /// The last try wasn't taken.
    #[error("the call was refused")]
    Refused {
        /// Why.
        #[source]
        why: Refusal,
        /// Whether an earlier try may have run.
        ran_before: bool,
    },
    /// The last try ended without a whole answer.
    #[error("the call has no whole answer")]
    Ended {
        /// Why.
        #[source]
        why: StreamError,
        /// Whether an earlier try may have run.
        ran_before: bool,
    },
    /// A try may have run, and the node has begun anew since, or left the cluster: nobody knows what it did
    /// before, so the call isn't sent again.
    #[error(
        "the node began anew or left while the call ran, and nobody knows any more what became of it"
    )]
    BeganAnew,
}

impl KeyedError {
    /// Whether the call may have run. If not, it's safe to make it again with any key.
    pub fn may_have_run(&self) -> bool {
        match self {
            Self::Remote(_) => false,
            Self::Parcel(_) | Self::BeganAnew => true,
            Self::Refused { ran_before, .. } => *ran_before,
            Self::Ended { why, ran_before } => *ran_before || why.may_have_run(),
        }
    }

    pub(super) fn after(mut self, ran: bool) -> Self {
        if let Self::Refused { ran_before, .. } | Self::Ended { ran_before, .. } = &mut self {
            *ran_before |= ran;
        }
        self
    }
}

/// What a failed try means for the next one.
pub(super) fn tried(error: &KeyedError) -> Tried {
    match error {
        KeyedError::Refused { why, .. } if why.is_retryable() => Tried::Later,
        KeyedError::Ended { why: StreamError::Overloaded, .. } => Tried::Later,
        KeyedError::Ended { why: StreamError::Lost, .. } => Tried::Lost,
        _ => Tried::Never,
    }
}
