//! The port for whoever has to account for a cluster: who is let in, shut out, and heeded, as it's decided.

use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use neuroflow_kernel::Name;

use crate::identity::NodeId;

/// Is told of what a node's links decide. It must not block: it's called where that is decided.
///
/// ```
/// use neuroflow_transport::{ClusterEvent, ClusterObserver};
/// #[derive(Debug)]
/// struct Printer;
/// impl ClusterObserver for Printer {
///     fn decided(&self, event: ClusterEvent<'_>) {
///         println!("{event:?}");
///     }
/// }
/// ```
pub trait ClusterObserver: Send + Sync + fmt::Debug + 'static {
    /// This was decided.
    fn decided(&self, event: ClusterEvent<'_>);
}

/// What a node's links have decided about others, or another node about this one.
///
/// ```
/// use neuroflow_transport::{ClusterEvent, NodeId};
/// let lost = NodeId::of_public_key(b"a key that was stolen");
/// assert!(format!("{:?}", ClusterEvent::ShutOut { node: lost }).contains("ShutOut"));
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum ClusterEvent<'a> {
    /// A node has a link: its certificate is one of this cluster.
    Linked {
        /// Which.
        node: NodeId,
        /// Its name, as its certificate says.
        name: &'a Name,
        /// Where it is.
        address: SocketAddr,
    },
    /// A node was given a certificate, for a token of this node's.
    Joined {
        /// Which.
        node: NodeId,
        /// The name in its certificate.
        name: &'a Name,
        /// The roles in it.
        roles: &'a [String],
    },
    /// A token of this node's was brought, and nothing given for it.
    JoinRefused {
        /// The name that it was to have.
        name: &'a str,
        /// Why: `used`, `expired`, `malformed`.
        reason: &'static str,
    },
    /// A node that wasn't shut out before is.
    ShutOut {
        /// Which.
        node: NodeId,
    },
    /// This list of nodes that are shut out counts, from now on or from the start.
    ListTaken {
        /// As it was signed.
        text: &'a str,
    },
    /// What the list's file has isn't a list of this cluster, or it can't be read or written: the list that
    /// is known counts on. Said once until that is over.
    ListRefused,
    /// An operator's node has had this one drain, or stop draining.
    Drained {
        /// Which.
        by: NodeId,
        /// Whether it's to drain.
        on: bool,
    },
    /// This node presents another certificate of its own.
    Renewed {
        /// Its own id.
        node: NodeId,
    },
    /// The certificate's file has another one, which isn't presented.
    RenewalRefused {
        /// Its own id.
        node: NodeId,
    },
}

/// The observers, and whom they were told of as shut out.
#[derive(Debug, Default)]
pub(crate) struct Told {
    observers: Vec<Arc<dyn ClusterObserver>>,
    out: Mutex<HashSet<NodeId>>,
}

impl Told {
    pub(crate) fn new(observers: Vec<Arc<dyn ClusterObserver>>) -> Self {
        Self { observers, out: Mutex::default() }
    }

    pub(crate) fn decided(&self, event: ClusterEvent<'_>) {
        for observer in &self.observers {
            observer.decided(event);
        }
    }

    /// This list was known before the node had links: it names whom nobody needs to be told of anew.
    pub(crate) fn began_with(&self, text: &str, nodes: &[NodeId]) {
        self.out.lock().unwrap_or_else(PoisonError::into_inner).extend(nodes);
        self.decided(ClusterEvent::ListTaken { text });
    }

    /// A node is shut out; said once for each.
    pub(crate) fn shut_out(&self, node: NodeId) {
        if self.out.lock().unwrap_or_else(PoisonError::into_inner).insert(node) {
            self.decided(ClusterEvent::ShutOut { node });
        }
    }
}
