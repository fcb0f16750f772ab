//! Who is in the cluster: the contract. A node's membership is an actor below `/cluster`.
//!
//! Nodes find each other by gossip over their links and find out by SWIM who is alive. What is decided
//! there is a pure function of messages and moments; the actor moves them.

pub(crate) mod gossip;
pub(crate) mod record;
pub(crate) mod server;
mod swim;

use std::sync::atomic::AtomicU64;
use std::sync::{PoisonError, RwLock};

use bytes::Bytes;
use neuroflow_kernel::{Address, Header, Message};

use self::gossip::Linked;
pub use self::record::Offer;
use crate::identity::NodeId;
use crate::link::gossip::Place;

/// What the membership's actor is told.
#[derive(Debug)]
pub(crate) enum MembershipCommand {
    /// There is a link to a node that gossips.
    Linked(Box<Linked>),
    /// The link to a node is over; `left` if the node said so itself.
    Unlinked { node: NodeId, left: bool },
    /// A peer's message has arrived, and has this place among those of its link.
    Received { from: NodeId, bytes: Bytes, place: Place },
    /// What this node says of itself may have changed.
    Describe,
    /// There is a newer list of nodes that were shut out. If this is lost, the list is told of later, by a pulse.
    Revoked,
    /// Time has passed.
    Tick,
    /// Asks another node to drain, or to stop draining.
    Drain { node: NodeId, on: bool },
}

/// The way to the membership's actor, for links that may be there before it is.
#[derive(Debug, Default)]
pub(crate) struct Inbox(RwLock<Option<Address<MembershipCommand>>>);

impl Inbox {
    pub(crate) fn open(&self, address: Address<MembershipCommand>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(address);
    }

    /// Tells it, if it has room: news come again, and links are compared every second.
    pub(crate) fn tell(&self, command: MembershipCommand) {
        let address = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(address) = address {
            let _full = address.try_tell(Header::new(), command).is_err();
        }
    }
}

/// What a node's gossip and placement count.
#[derive(Debug, Default)]
pub(crate) struct GossipMeters {
    pub(crate) sent: AtomicU64,
    pub(crate) sent_bytes: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) placed_here: AtomicU64,
    pub(crate) placed_far: AtomicU64,
    pub(crate) unplaced: AtomicU64,
    pub(crate) list_failures: AtomicU64,
    pub(crate) certificate_failures: AtomicU64,
}

impl Message for MembershipCommand {
    fn name(&self) -> &'static str {
        match self {
            Self::Linked(_) => "linked",
            Self::Unlinked { .. } => "unlinked",
            Self::Received { .. } => "received",
            Self::Describe => "describe",
            Self::Revoked => "revoked",
            Self::Tick => "tick",
            Self::Drain { .. } => "drain",
        }
    }
}
