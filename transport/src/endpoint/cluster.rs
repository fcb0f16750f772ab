//! The cluster as a node sees it: its members, what is placed where, and draining.

use std::any::Any;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use neuroflow_kernel::{
    Address, Chosen, Clock, Down, Fall, Header, MessageId, Moment, RawParcel, RawReplies,
    RemoteError, RemotePort, RemoteTarget, Request, WireRequest,
};

use super::Links;
use crate::directory::Member;
use crate::identity::NodeId;
use crate::membership::MembershipCommand;
use crate::membership::gossip::OPERATOR;
use crate::watch;

impl Links {
    /// The members of the cluster that this node knows, itself included, by name.
    pub fn members(&self) -> Vec<Member> {
        self.shared.directory.view().members.clone()
    }

    /// What this node's gossip and placement have counted.
    pub fn gossip(&self) -> GossipStatus {
        let meters = &self.shared.gossip_meters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        GossipStatus {
            sent: read(&meters.sent),
            sent_bytes: read(&meters.sent_bytes),
            received: read(&meters.received),
            refused: read(&meters.refused),
            placed_here: read(&meters.placed_here),
            placed_elsewhere: read(&meters.placed_far),
            unplaced: read(&meters.unplaced),
            list_failures: read(&meters.list_failures),
            certificate_failures: read(&meters.certificate_failures),
        }
    }

    /// What an agent that this node offers says that it can do; told to all members.
    pub fn describe(&self, name: &str, skills: Vec<String>) {
        let mut described = self.shared.skills.write().unwrap_or_else(PoisonError::into_inner);
        described.insert(name.to_owned(), skills);
        drop(described);
        self.shared.membership.tell(MembershipCommand::Describe);
    }

    /// From now on nothing is placed on this node, or again. What runs there goes on, and who names
    /// the node is still served.
    pub fn set_draining(&self, on: bool) {
        self.shared.draining.store(on, Ordering::SeqCst);
        self.shared.membership.tell(MembershipCommand::Describe);
    }

    /// Whether this node is draining.
    pub fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::SeqCst)
    }

    /// Asks another member to drain, or to stop draining. It heeds nodes whose certificate has the role
    /// `operator`; that it has shows in [`members`](Self::members).
    ///
    /// # Errors
    /// Says that there is no link to such a member, or that this node's certificate doesn't have the role.
    pub fn ask_to_drain(&self, node: &str, on: bool) -> Result<NodeId, DrainError> {
        if self.shared.is_own(node) {
            self.set_draining(on);
            return Ok(self.shared.id);
        }
        let peer = self.shared.peers.named(node).filter(|peer| peer.link().is_some());
        let peer = peer.ok_or_else(|| DrainError::Unreachable { node: node.to_owned() })?;
        if !self.shared.credential().has_role(OPERATOR) {
            return Err(DrainError::Role);
        }
        self.shared.membership.tell(MembershipCommand::Drain { node: peer.id, on });
        Ok(peer.id)
    }

    /// The address of an agent wherever it's placed: among the nodes that are there, don't drain and
    /// offer it, the first in the order of `key`, by their capacity. The same key leads to the same node
    /// for as long as that is there; then to the next. This node may be the one.
    ///
    /// # Errors
    /// Says that nobody offers it now.
    pub fn resolve_for<W: WireRequest>(
        &self,
        agent: &str,
        key: &[u8],
    ) -> Result<Address<Request<W>>, RemoteError> {
        let target: RemoteTarget = format!("agent://*/{agent}").parse()?;
        self.placed(target, key, Choosing::ByKey)
    }

    /// Where an agent is placed for a key: the nodes in order.
    pub fn placement(&self, agent: &str, key: &[u8]) -> Vec<NodeId> {
        self.shared.directory.view().place(agent, key)
    }

    pub(super) fn placed<W: WireRequest>(
        &self,
        target: RemoteTarget,
        key: &[u8],
        choosing: Choosing,
    ) -> Result<Address<Request<W>>, RemoteError> {
        let placed = Placed::<W> {
            links: self.clone(),
            key: key.into(),
            choosing,
            order: Mutex::default(),
            request: PhantomData,
        };
        if placed.order(&target).is_empty() {
            return Err(RemoteError::Unplaced { target: target.to_string() });
        }
        Ok(Address::remote(Arc::new(placed), target))
    }

    /// The first node in the order of a key that can be asked for this agent now; whichever node it names.
    pub fn first_placed(&self, target: &RemoteTarget, key: &[u8]) -> Option<NodeId> {
        let shared = &self.shared;
        shared.directory.view().place(target.name(), key).into_iter().find(|node| {
            let takes = || shared.peers.get(node).is_some_and(|peer| peer.takes_requests());
            *node == shared.id || takes()
        })
    }
}

/// Why another node isn't asked to drain.
///
/// ```
/// use neuroflow_transport::DrainError;
/// assert!(DrainError::Role.to_string().contains("operator"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DrainError {
    /// Nobody of this name or id can be asked.
    #[error("there is no link to a node {node:?}")]
    Unreachable {
        /// Who was named.
        node: String,
    },
    /// The others don't heed this node.
    #[error(
        "this node's certificate doesn't have the role {OPERATOR}, so no other heeds it; ask a node that has it, \
         or the node itself"
    )]
    Role,
}

/// What decides where a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choosing {
    /// The key alone, which somebody has chosen.
    ByKey,
    /// What the message belongs to; the key if it belongs to nothing.
    ByMessage,
}

/// What a node's gossip and placement have counted.
///
/// ```
/// fn refused(links: &neuroflow_transport::Links) -> bool {
///     links.gossip().refused > 0
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GossipStatus {
    /// Messages sent to members.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Messages received from members.
    pub received: u64,
    /// Of those, messages that were no messages, or said what the sender may not say.
    pub refused: u64,
    /// Messages to `agent://*/name` that went to this node's own agent.
    pub placed_here: u64,
    /// Messages to `agent://*/name` that went to another node.
    pub placed_elsewhere: u64,
    /// Messages to `agent://*/name` that no node was there for.
    pub unplaced: u64,
    /// Looks at the file of revoked nodes at which it couldn't be read or written, or wasn't a list.
    pub list_failures: u64,
    /// Changes of the file of the node's certificate after which it couldn't be read, or had none that can be
    /// presented.
    pub certificate_failures: u64,
}

/// A port whose node the placement chooses, for each message anew.
struct Placed<W> {
    links: Links,
    key: Box<[u8]>,
    choosing: Choosing,
    /// The order, and the version of the directory that it's of.
    order: Mutex<(u64, Arc<[NodeId]>)>,
    request: PhantomData<fn(W)>,
}

impl<W: WireRequest> Placed<W> {
    fn order(&self, target: &RemoteTarget) -> Arc<[NodeId]> {
        let view = self.links.shared.directory.view();
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        if order.0 != view.version || order.1.is_empty() {
            *order = (view.version, view.place(target.name(), &self.key).into());
        }
        Arc::clone(&order.1)
    }

    /// The first node that can be asked now.
    fn chosen(&self, target: &RemoteTarget) -> Option<Choice> {
        self.first(&self.order(target), target)
    }

    /// The first node that can be asked now, for this message.
    fn chosen_for(&self, target: &RemoteTarget, affinity: Option<&str>) -> Option<Choice> {
        if self.choosing == Choosing::ByMessage
            && let Some(affinity) = affinity
        {
            let view = self.links.shared.directory.view();
            return self.first(&view.place(target.name(), affinity.as_bytes()), target);
        }
        self.chosen(target)
    }

    fn first(&self, order: &[NodeId], target: &RemoteTarget) -> Option<Choice> {
        let shared = &self.links.shared;
        order.iter().find_map(|node| {
            if *node == shared.id {
                return shared
                    .exports
                    .typed(target.name(), MessageId::of(W::NAME))
                    .map(Choice::Own);
            }
            let peer = shared.peers.get(node)?;
            peer.takes_requests().then(|| Choice::Far(named(peer.id, target)))
        })
    }
}

enum Choice {
    /// An actor of this node, by its address.
    Own(Arc<dyn Any + Send + Sync>),
    Far(RemoteTarget),
}

/// The same agent on one node.
fn named(node: NodeId, target: &RemoteTarget) -> RemoteTarget {
    target.clone().on_node(&node.to_string())
}

impl<W: WireRequest> RemotePort for Placed<W> {
    fn choose(&self, target: &RemoteTarget, affinity: Option<&str>) -> Option<Chosen> {
        match self.chosen_for(target, affinity)? {
            Choice::Own(actor) => Some(Chosen::Here(actor)),
            Choice::Far(target) => Some(Chosen::There(target)),
        }
    }

    fn stays(&self) {
        self.links.shared.gossip_meters.placed_here.fetch_add(1, Ordering::Relaxed);
    }

    fn send(
        &self,
        target: &RemoteTarget,
        header: &Header,
        parcel: RawParcel,
        replies: Arc<dyn RawReplies>,
        now: Moment,
    ) -> Result<(), RemoteError> {
        let meters = &self.links.shared.gossip_meters;
        if target.node().is_none() {
            meters.unplaced.fetch_add(1, Ordering::Relaxed);
            return Err(RemoteError::Unplaced { target: target.to_string() });
        }
        let sent = self.links.send(target, header, parcel, replies, now);
        if sent.is_ok() {
            meters.placed_far.fetch_add(1, Ordering::Relaxed);
        }
        sent
    }

    fn ready<'a>(&'a self, target: &'a RemoteTarget, bytes: usize) -> BoxFuture<'a, ()> {
        self.links.ready(target, bytes)
    }

    fn down<'a>(&'a self, target: &'a RemoteTarget) -> BoxFuture<'a, Down> {
        Box::pin(async move {
            match self.chosen(target) {
                Some(Choice::Own(_)) => match self.links.shared.exports.owned(target.name()) {
                    Some(actor) => actor.down().await,
                    None => Down::new(None, Fall::Absent),
                },
                Some(Choice::Far(target)) => {
                    watch::down(Arc::new(self.links.clone()), &target).await
                }
                None => Down::new(None, Fall::Lost),
            }
        })
    }

    fn clock(&self) -> &Clock {
        &self.links.shared.clock
    }
}
