//! Capabilities across nodes: tokens that a node signs for another, which narrows them by itself.
//!
//! A token is a chain of blocks. The first is signed by the node whose actor it's about, each later
//! one by the node that held it before. There is no secret in it: only the node that holds it, as
//! mutual TLS has proved, can use it. A kept library would be `biscuit-auth`; it brings a second
//! implementation of Ed25519, SHA-2 and Protobuf beside ours, and a language for what is four
//! comparisons here.

mod held;
mod issuer;
mod signature;
mod token;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub use self::token::fuzz;
#[cfg(test)]
pub(crate) use self::token::tests::seeds;

use std::fmt;
use std::time::Duration;

use data_encoding::HEXLOWER;
use neuroflow_kernel::{AttenuateError, ParcelError, Restriction, Rights, StreamError};

pub(crate) use self::issuer::Capabilities;
pub(crate) use self::signature::Signer;
use crate::identity::NodeId;
use crate::limits::{CAPABILITY_BLOCKS, CAPABILITY_LIFE, CAPABILITY_TOKEN_BYTES, MAX_CAPABILITIES};

/// What a token allows: for how long at least that must be said.
///
/// ```
/// use std::time::Duration;
/// use neuroflow_kernel::Rights;
/// let terms = neuroflow_transport::Terms::new(Duration::from_secs(60)).uses(3).rights(Rights::bit(0));
/// assert!(format!("{terms:?}").contains('3'));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    valid: Duration,
    rights: Rights,
    uses: Option<u64>,
}

impl Terms {
    /// Allows everything for so long.
    pub fn new(valid: Duration) -> Self {
        Self { valid, rights: Rights::ALL, uses: None }
    }

    /// Keeps only these rights.
    #[must_use]
    pub fn rights(mut self, rights: Rights) -> Self {
        self.rights = rights;
        self
    }

    /// Allows so many messages.
    #[must_use]
    pub fn uses(mut self, uses: u64) -> Self {
        self.uses = Some(uses);
        self
    }
}

/// A block's number: of a capability, or of one that was derived from it.
///
/// ```
/// use neuroflow_transport::{CapabilityId, Links};
/// fn take_back(links: &Links, id: CapabilityId) -> bool {
///     links.revoke_capability(id).is_ok()
/// }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CapabilityId([u8; 16]);

impl fmt::Display for CapabilityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        HEXLOWER.encode_display(&self.0).fmt(f)
    }
}

impl fmt::Debug for CapabilityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CapabilityId({self})")
    }
}

/// A capability as text, to be sent to the node that it's for.
///
/// ```
/// use neuroflow_transport::{CapabilityError, CapabilityToken};
/// let refused = "hello".parse::<CapabilityToken>().unwrap_err();
/// assert!(matches!(refused, CapabilityError::Malformed));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapabilityToken {
    text: String,
    id: CapabilityId,
    holder: NodeId,
    issuer: NodeId,
}

impl CapabilityToken {
    /// The number of its last block, by which its issuer revokes it and nothing before it.
    pub fn id(&self) -> CapabilityId {
        self.id
    }

    /// The node that can use it.
    pub fn holder(&self) -> NodeId {
        self.holder
    }

    /// The node whose actor it's about.
    pub fn issuer(&self) -> NodeId {
        self.issuer
    }
}

impl fmt::Display for CapabilityToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::str::FromStr for CapabilityToken {
    type Err = CapabilityError;

    fn from_str(text: &str) -> Result<Self, CapabilityError> {
        let token = token::Token::from_text(text)?;
        let (first, last) = (token.first(), token.last());
        let (id, holder, issuer) = (last.id, last.holder, first.issuer);
        Ok(Self { text: text.to_owned(), id, holder, issuer })
    }
}

/// Why a capability can't be made, or is refused.
///
/// ```
/// use neuroflow_transport::CapabilityError;
/// assert_eq!(CapabilityError::UsedUp.to_string(), "the capability is used up");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CapabilityError {
    /// Not a token.
    #[error(
        "this isn't a capability: it begins with {} and has at most {CAPABILITY_TOKEN_BYTES} bytes",
        token::PREFIX
    )]
    Malformed,
    /// A signature isn't the one of the node that should have signed.
    #[error("the capability was changed, or signed by somebody who doesn't hold it")]
    Forged,
    /// Another node's.
    #[error("the capability is about an actor of another node")]
    OtherIssuer,
    /// It's for another node.
    #[error("the capability is for node {}, and not for this one", holder.short())]
    OtherHolder {
        /// The node that it's for.
        holder: NodeId,
    },
    /// A block claims more than the one before it.
    #[error("the capability claims more than what it was derived from")]
    Widened,
    /// Its time is over.
    #[error("the capability has expired")]
    Expired,
    /// As many messages as it allows have passed.
    #[error("the capability is used up")]
    UsedUp,
    /// It was taken back, or one that it was derived from.
    #[error("the capability was revoked")]
    Revoked,
    /// The node that made it has begun anew since.
    #[error("the node that made the capability has begun anew since")]
    BeganAnew,
    /// It's about actors that take other messages.
    #[error("the capability is about an actor that takes other messages")]
    OtherMessage,
    /// It's about an actor of this very node.
    #[error("the capability is about an actor of this node, which has its address")]
    Own,
    /// More time than may be.
    #[error("the terms' time of {valid:?} is none, or more than {CAPABILITY_LIFE:?}")]
    Life {
        /// What was asked for.
        valid: Duration,
    },
    /// Derived as often as may be.
    #[error("a capability can be derived {} times", CAPABILITY_BLOCKS - 1)]
    TooLong,
    /// As many as may be.
    #[error("this node has {MAX_CAPABILITIES} capabilities out, and revoked ones are counted")]
    TooMany,
    /// The address can't be narrowed.
    #[error("the address can't be narrowed")]
    Attenuate(#[from] AttenuateError),
    /// The terms can't be written.
    #[error("the capability can't be written")]
    Archive(#[from] ParcelError),
    /// The system has no random numbers, or the key doesn't sign.
    #[error("the node's key can't sign")]
    Key(#[source] rustls::Error),
    /// No random number to be had.
    #[error("the system gives no random numbers")]
    Random,
}

impl CapabilityError {
    /// As the holder's messages are answered.
    pub(crate) fn to_stream_error(&self) -> StreamError {
        match self {
            Self::OtherHolder { .. } => StreamError::NotHolder,
            Self::Widened => StreamError::Widened,
            Self::Expired => StreamError::Expired,
            Self::UsedUp => StreamError::UsedUp,
            Self::Revoked => StreamError::Revoked,
            Self::BeganAnew => StreamError::Stale,
            Self::OtherMessage => StreamError::Mismatch,
            Self::TooMany => StreamError::Overloaded,
            _ => StreamError::Forged,
        }
    }
}

/// What a block allows, as the kernel keeps it.
pub(crate) fn restriction(
    rights: Rights,
    uses: Option<u64>,
    expires: neuroflow_kernel::Moment,
) -> Restriction {
    let restriction = Restriction::new().rights(rights).expires(expires);
    match uses {
        Some(uses) => restriction.uses(uses),
        None => restriction,
    }
}
