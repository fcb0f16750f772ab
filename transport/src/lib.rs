//! Links between nodes: an actor on another node is asked like one of this process.
//!
//! Nodes prove by certificate who they are ([`Credential`], [`Trust`]), keep one QUIC connection
//! per pair ([`LinksConfig`], [`Links`]), and offer actors to one another by name
//! ([`Links::export`], [`Links::resolve`]). The archive that a sender writes once is what the wire
//! carries. Frames, credit and handshake are state machines without I/O and clock.

pub mod limits;

mod frame;
mod session;

mod identity;

mod directory;
mod membership;
mod placement;

mod export;
mod link;

mod capability;
mod join;
mod keyed;
mod life;
mod watch;

mod endpoint;
mod observer;
mod seed;
mod unlinked;

#[cfg(test)]
#[path = "../../tests/shared/eventually.rs"]
mod eventually;
#[cfg(test)]
mod fuzzed;
#[cfg(test)]
mod simulation;

pub use frame::FrameError;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub use frame::fuzz as fuzz_frames;
pub use session::Violation;
pub use session::handshake::HelloError;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub use session::handshake::fuzz as fuzz_handshake;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub use session::script::fuzz as fuzz_session;

pub use identity::{
    Authority, AuthorityError, CertificateError, Credential, ListFileError, NodeId, NodeIdError,
    Renewed, RevocationError, Revocations, Trust,
};

pub use export::{Allowed, ExportError};
pub use link::{LinkError, LinkState, LinkStatus};

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub use capability::fuzz as fuzz_capability;
pub use capability::{CapabilityError, CapabilityId, CapabilityToken, Terms};
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub use join::fuzz as fuzz_join;
pub use join::{Guest, Invitation, Invite, InviteError, JoinError, JoinToken, Joined, join};
pub use keyed::{CallKey, KeyedError};
pub use life::LifeError;

pub use directory::{Member, MemberState};
pub use membership::Offer;

pub use endpoint::{
    DrainError, GossipStatus, Links, LinksConfig, LinksError, ListenError, StrangerStatus,
};
pub use observer::{ClusterEvent, ClusterObserver};
pub use seed::{SeedError, SeedStatus, ServiceName, ServiceNameError};
pub use unlinked::Unlinked;
