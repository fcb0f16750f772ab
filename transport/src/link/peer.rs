//! What senders know of a peer: whether there is a link, and its lanes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use neuroflow_kernel::Moment;
use tokio::sync::{Notify, Semaphore};

use super::outbox::Lane;
use super::{LinkState, LinkStatus, Meters};
use crate::identity::{NodeId, Subject};
use crate::limits::MAX_PEERS;
use crate::session::handshake::Agreed;

/// A connection that is in use.
pub(crate) struct Link {
    pub(crate) number: u64,
    pub(crate) connection: quinn::Connection,
    pub(crate) lanes: Vec<Arc<Lane>>,
    pub(crate) agreed: Agreed,
    pub(crate) incarnation: u64,
    /// Whether this node dialled.
    pub(crate) dialled: bool,
    pub(crate) since: Moment,
    /// Whether calls are being swept; the sweeper parks when there are none.
    pub(crate) sweeping: AtomicBool,
    pub(crate) sweep: Notify,
    /// The peer has said that it leaves the cluster.
    pub(crate) left: AtomicBool,
    /// Room for gossip that a datagram can't carry.
    pub(crate) gossip_streams: Arc<Semaphore>,
}

impl Link {
    /// There is a call that has to be watched.
    pub(crate) fn watch(&self) {
        if !self.sweeping.load(Ordering::SeqCst) && !self.sweeping.swap(true, Ordering::SeqCst) {
            self.sweep.notify_one();
        }
    }
}

/// A peer, for as long as this node lives.
pub(crate) struct Peer {
    pub(crate) id: NodeId,
    pub(crate) meters: Arc<Meters>,
    /// Told when something changes that a waiting sender waits for.
    pub(crate) changed: Arc<Notify>,
    state: RwLock<Standing>,
    about: Mutex<About>,
    dialling: AtomicBool,
}

enum Standing {
    Down,
    Up(Arc<Link>),
    Revoked,
}

struct About {
    subject: Subject,
    address: SocketAddr,
}

impl Peer {
    fn new(subject: Subject, address: SocketAddr) -> Arc<Self> {
        Arc::new(Self {
            id: subject.id,
            meters: Arc::default(),
            changed: Arc::default(),
            state: RwLock::new(Standing::Down),
            about: Mutex::new(About { subject, address }),
            dialling: AtomicBool::new(false),
        })
    }

    pub(crate) fn link(&self) -> Option<Arc<Link>> {
        match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            Standing::Up(link) => Some(Arc::clone(link)),
            _ => None,
        }
    }

    pub(crate) fn is_revoked(&self) -> bool {
        matches!(*self.state.read().unwrap_or_else(PoisonError::into_inner), Standing::Revoked)
    }

    pub(crate) fn subject(&self) -> Subject {
        self.about.lock().unwrap_or_else(PoisonError::into_inner).subject.clone()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.about.lock().unwrap_or_else(PoisonError::into_inner).address
    }

    /// The link is up; gives the one that it replaces.
    pub(crate) fn up(
        &self,
        link: Arc<Link>,
        subject: Subject,
        address: SocketAddr,
    ) -> Option<Arc<Link>> {
        *self.about.lock().unwrap_or_else(PoisonError::into_inner) = About { subject, address };
        self.change(Standing::Up(link))
    }

    /// The link of this number is over; says whether it was the current one.
    pub(crate) fn down(&self, number: u64) -> bool {
        if self.link().is_none_or(|link| link.number != number) {
            return false;
        }
        self.change(Standing::Down);
        true
    }

    pub(crate) fn revoke(&self) -> Option<Arc<Link>> {
        self.change(Standing::Revoked)
    }

    fn change(&self, to: Standing) -> Option<Arc<Link>> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let before = match &*state {
            // Nothing leads back from there.
            Standing::Revoked => return None,
            _ => std::mem::replace(&mut *state, to),
        };
        drop(state);
        self.changed.notify_waiters();
        match before {
            Standing::Up(link) => Some(link),
            _ => None,
        }
    }

    /// Claims the right to dial; nothing if somebody is at it.
    pub(crate) fn dial(self: &Arc<Self>) -> Option<Dialling> {
        let free = !self.dialling.swap(true, Ordering::SeqCst);
        free.then(|| Dialling(Arc::clone(self)))
    }

    /// Whether a connection that this node dialled stands, or is about to, and has to stay for both
    /// ends to keep the same one.
    pub(crate) fn stands(&self, incarnation: u64, young: impl Fn(Moment) -> bool) -> bool {
        self.dialling.load(Ordering::SeqCst)
            || self.link().is_some_and(|link| {
                link.dialled && link.incarnation == incarnation && young(link.since)
            })
    }

    pub(crate) fn status(&self) -> LinkStatus {
        let link = self.link();
        let stats = link.as_ref().map(|link| link.connection.stats());
        let About { subject, address } =
            &*self.about.lock().unwrap_or_else(PoisonError::into_inner);
        let state = match (&link, self.is_revoked()) {
            (Some(_), _) => LinkState::Up,
            (None, true) => LinkState::Revoked,
            (None, false) => LinkState::Down,
        };
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        LinkStatus {
            node: self.id,
            name: subject.name.clone(),
            state,
            address: *address,
            protocol: link.as_ref().map(|link| link.agreed.version),
            certificate_expires: subject.expires,
            roles: subject.roles.clone(),
            rtt: stats.as_ref().map(|stats| stats.path.rtt),
            lost_packets: stats.as_ref().map_or(0, |stats| stats.path.lost_packets),
            open_calls: link
                .iter()
                .flat_map(|link| &link.lanes)
                .map(|lane| lane.open_calls())
                .sum(),
            reconnects: read(&self.meters.reconnects),
            sent_messages: read(&self.meters.sent_messages),
            sent_bytes: read(&self.meters.sent_bytes),
            received_messages: read(&self.meters.received_messages),
            received_bytes: read(&self.meters.received_bytes),
            copied_bytes: read(&self.meters.copied_bytes),
            credit_waits: read(&self.meters.credit_waits),
        }
    }
}

/// The right to dial a peer, until it's dropped.
pub(crate) struct Dialling(Arc<Peer>);

impl Drop for Dialling {
    fn drop(&mut self) {
        self.0.dialling.store(false, Ordering::SeqCst);
    }
}

/// All peers that this node has ever had a link to.
#[derive(Default)]
pub(crate) struct Peers(RwLock<Known>);

#[derive(Default)]
struct Known {
    by_id: HashMap<NodeId, Arc<Peer>>,
    /// By name and by the digits of the id: what stands in `agent://<node>/…`.
    by_text: HashMap<String, Arc<Peer>>,
}

impl Peers {
    pub(crate) fn named(&self, node: &str) -> Option<Arc<Peer>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).by_text.get(node).cloned()
    }

    pub(crate) fn get(&self, node: &NodeId) -> Option<Arc<Peer>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).by_id.get(node).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Peer>> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.by_id.values().cloned().collect()
    }

    /// The peer of this certificate; nothing if there are as many as may be.
    pub(crate) fn meet(&self, subject: &Subject, address: SocketAddr) -> Option<Arc<Peer>> {
        if let Some(peer) = self.get(&subject.id) {
            return Some(peer);
        }
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.by_id.len() >= MAX_PEERS {
            return None;
        }
        let peer = known
            .by_id
            .entry(subject.id)
            .or_insert_with(|| Peer::new(subject.clone(), address))
            .clone();
        known.by_text.insert(subject.id.to_string(), Arc::clone(&peer));
        // A name goes to whoever comes last: the one before may be the same machine with a new key.
        known.by_text.insert(subject.name.to_string(), Arc::clone(&peer));
        Some(peer)
    }
}
