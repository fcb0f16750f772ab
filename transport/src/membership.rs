//! Who is in the cluster: the contract. A node's membership is an actor below `/cluster`.
//!
//! Nodes find each other by gossip over their links and find out by SWIM who is alive. What is decided
//! there is a pure function of messages and moments; the actor moves them.

pub(crate) mod gossip;
pub(crate) mod record;
pub(crate) mod server;
mod swim;

use bytes::Bytes;
use neuroflow_kernel::Message;

use self::gossip::Linked;
pub use self::record::Offer;
use crate::identity::NodeId;

/// What the membership's actor is told.
#[derive(Debug)]
pub(crate) enum MembershipCommand {
    /// There is a link to a node that gossips.
    Linked(Box<Linked>),
    /// The link to a node is over; `left` if the node said so itself.
    Unlinked { node: NodeId, left: bool },
    /// A peer's message has arrived.
    Received { from: NodeId, bytes: Bytes },
    /// What this node says of itself may have changed.
    Describe,
    /// Asks another node to drain, or to stop draining.
    Drain { node: NodeId, on: bool },
}

impl Message for MembershipCommand {
    fn name(&self) -> &'static str {
        match self {
            Self::Linked(_) => "linked",
            Self::Unlinked { .. } => "unlinked",
            Self::Received { .. } => "received",
            Self::Describe => "describe",
            Self::Drain { .. } => "drain",
        }
    }
}
