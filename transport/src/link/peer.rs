//! What senders know of a peer: whether there is a link, and its lanes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use neuroflow_kernel::{Moment, Name};
use tokio::sync::{Notify, Semaphore};

use super::outbox::Lane;
use super::{LinkState, LinkStatus, Meters};
use crate::identity::{NodeId, Subject};
use crate::limits::{FORGET_DEAD, MAX_PEERS};
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
    /// Room for large messages that this node sends.
    pub(crate) large_streams: Arc<Semaphore>,
    /// Room for gossip that a datagram can't carry.
    pub(crate) gossip_streams: Arc<Semaphore>,
    /// Room for the peer's gossip at the membership.
    pub(crate) gossip_places: Arc<Semaphore>,
}

impl Link {
    /// Whether the peer has said that it takes no new requests.
    pub(crate) fn is_draining(&self) -> bool {
        self.lanes.iter().any(|lane| lane.draining.load(Ordering::Relaxed))
    }

    /// There is a call that has to be watched.
    pub(crate) fn watch(&self) {
        if !self.sweeping.load(Ordering::SeqCst) && !self.sweeping.swap(true, Ordering::SeqCst) {
            self.sweep.notify_one();
        }
    }
}

/// A peer, until the membership has forgotten it, or its place is needed for another long after it was there.
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
    Down { since: Moment },
    Up(Arc<Link>),
    Revoked,
}

struct About {
    subject: Subject,
    address: SocketAddr,
}

impl Peer {
    fn new(subject: Subject, address: SocketAddr, now: Moment) -> Arc<Self> {
        Arc::new(Self {
            id: subject.id,
            meters: Arc::default(),
            changed: Arc::default(),
            state: RwLock::new(Standing::Down { since: now }),
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

    /// Whether it can be asked for something new. The directory hears later of one that leaves.
    pub(crate) fn takes_requests(&self) -> bool {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        matches!(&*state, Standing::Up(link) if !link.is_draining())
    }

    fn is_up(&self) -> bool {
        matches!(*self.state.read().unwrap_or_else(PoisonError::into_inner), Standing::Up(_))
    }

    /// Since when there is neither a link nor a try to have one.
    fn gone_since(&self) -> Option<Moment> {
        if self.dialling.load(Ordering::SeqCst) {
            return None;
        }
        match *self.state.read().unwrap_or_else(PoisonError::into_inner) {
            Standing::Down { since } => Some(since),
            Standing::Up(_) => None,
            // Whom this node trusts says who is shut out; this is only remembered.
            Standing::Revoked => Some(Moment::ORIGIN),
        }
    }

    /// When the certificate of the present link, or of the last one, ends.
    pub(crate) fn expires(&self) -> SystemTime {
        self.about.lock().unwrap_or_else(PoisonError::into_inner).subject.expires
    }

    pub(crate) fn subject(&self) -> Subject {
        self.about.lock().unwrap_or_else(PoisonError::into_inner).subject.clone()
    }

    /// Where it is, as far as is known: a peer may move while its link stands.
    pub(crate) fn address(&self) -> SocketAddr {
        if let Some(link) = self.link() {
            return link.connection.remote_address();
        }
        self.about.lock().unwrap_or_else(PoisonError::into_inner).address
    }

    /// The link is up; gives the one that it replaces.
    fn up(&self, link: Arc<Link>, subject: Subject, address: SocketAddr) -> Option<Arc<Link>> {
        *self.about.lock().unwrap_or_else(PoisonError::into_inner) = About { subject, address };
        self.change(Standing::Up(link))
    }

    /// The link of this number is over; says whether it was the current one.
    pub(crate) fn down(&self, number: u64, now: Moment) -> bool {
        let Some(link) = self.link().filter(|link| link.number == number) else { return false };
        // Where it was last is where it's dialled.
        let address = link.connection.remote_address();
        self.about.lock().unwrap_or_else(PoisonError::into_inner).address = address;
        self.change(Standing::Down { since: now });
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
        let (subject, address) = (self.subject(), self.address());
        let state = match (&link, self.is_revoked()) {
            (Some(_), _) => LinkState::Up,
            (None, true) => LinkState::Revoked,
            (None, false) => LinkState::Down,
        };
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        LinkStatus {
            node: self.id,
            name: subject.name,
            state,
            address,
            protocol: link.as_ref().map(|link| link.agreed.version),
            certificate_expires: subject.expires,
            roles: subject.roles,
            rtt: stats.as_ref().map(|stats| stats.path.rtt),
            lost_packets: stats.as_ref().map_or(0, |stats| stats.path.lost_packets),
            streams: link
                .as_ref()
                .map_or(0, |link| link.lanes.len() + self.meters.large.load(Ordering::Relaxed)),
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
            buffered_bytes: self.meters.buffered.load(Ordering::Relaxed),
            most_buffered_bytes: self.meters.most_buffered.load(Ordering::Relaxed),
            copied_bytes: read(&self.meters.copied_bytes),
            received_copied_bytes: read(&self.meters.received_copied_bytes),
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

/// The peers that this node has met: as many as may be, and of those that have gone the latest.
#[derive(Default)]
pub(crate) struct Peers(RwLock<Known>);

#[derive(Default)]
struct Known {
    by_id: HashMap<NodeId, Arc<Peer>>,
    /// By name and by the digits of the id: what stands in `agent://<node>/…`. Of those who have the same name,
    /// who came last is last.
    by_text: HashMap<String, Vec<Arc<Peer>>>,
}

impl Known {
    fn name(&mut self, text: &str, peer: &Arc<Peer>) {
        self.unname(text, peer.id);
        self.by_text.entry(text.to_owned()).or_default().push(Arc::clone(peer));
    }

    fn unname(&mut self, text: &str, id: NodeId) {
        if let Some(peers) = self.by_text.get_mut(text) {
            peers.retain(|peer| peer.id != id);
            if peers.is_empty() {
                self.by_text.remove(text);
            }
        }
    }

    /// Makes room: forgets who has been gone for longest, if that is long enough. Says whether there was one.
    fn forget_one(&mut self, now: Moment) -> bool {
        let gone = self.by_id.values().filter_map(|peer| Some((peer.gone_since()?, peer.id)));
        let Some((since, id)) = gone.min() else { return false };
        if now.since(since) < FORGET_DEAD {
            return false;
        }
        self.forget(id);
        true
    }

    fn forget(&mut self, id: NodeId) {
        if let Some(peer) = self.by_id.remove(&id) {
            self.unname(&id.to_string(), id);
            self.unname(peer.subject().name.as_str(), id);
        }
    }
}

impl Peers {
    pub(crate) fn named(&self, node: &str) -> Option<Arc<Peer>> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let peers = known.by_text.get(node)?;
        peers.iter().rev().find(|peer| peer.is_up()).or(peers.last()).cloned()
    }

    /// Forgets those who have been gone for long and are no members any more. Their actors find that out, and end;
    /// who was shut out has none.
    pub(crate) fn forget_gone(&self, now: Moment, is_member: impl Fn(&NodeId) -> bool) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let is_gone = |peer: &&Arc<Peer>| {
            let since = peer.gone_since().filter(|_| !peer.is_revoked());
            since.is_some_and(|since| now.since(since) >= FORGET_DEAD) && !is_member(&peer.id)
        };
        let gone: Vec<NodeId> = known.by_id.values().filter(is_gone).map(|peer| peer.id).collect();
        for id in gone {
            known.forget(id);
        }
    }

    /// The link of a peer is up; gives the one that it replaces. The peer's name is its from now on, whoever
    /// has had it before.
    pub(crate) fn up(
        &self,
        peer: &Arc<Peer>,
        link: Arc<Link>,
        subject: Subject,
        address: SocketAddr,
    ) -> Option<Arc<Link>> {
        let (before, name): (Name, Name) = (peer.subject().name, subject.name.clone());
        // Nobody is forgotten meanwhile; who was just before is known again.
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let replaced = peer.up(link, subject, address);
        known.by_id.insert(peer.id, Arc::clone(peer));
        known.name(&peer.id.to_string(), peer);
        known.unname(before.as_str(), peer.id);
        known.name(name.as_str(), peer);
        replaced
    }

    pub(crate) fn get(&self, node: &NodeId) -> Option<Arc<Peer>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).by_id.get(node).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Peer>> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.by_id.values().cloned().collect()
    }

    /// The peer of this certificate; nothing if there are as many as may be.
    pub(crate) fn meet(
        &self,
        subject: &Subject,
        address: SocketAddr,
        now: Moment,
    ) -> Option<Arc<Peer>> {
        if let Some(peer) = self.get(&subject.id) {
            return Some(peer);
        }
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.by_id.len() >= MAX_PEERS && !known.forget_one(now) {
            return None;
        }
        let peer = known
            .by_id
            .entry(subject.id)
            .or_insert_with(|| Peer::new(subject.clone(), address, now))
            .clone();
        known.name(&subject.id.to_string(), &peer);
        // A name goes to whoever comes last: the one before may be the same machine with a new key.
        known.name(subject.name.as_str(), &peer);
        Some(peer)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn subject(number: usize) -> Subject {
        Subject {
            id: NodeId::of_public_key(&number.to_le_bytes()),
            name: Name::new(format!("node-{number}")).unwrap(),
            roles: Vec::new(),
            expires: SystemTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn who_has_been_gone_for_long_and_is_no_member_is_forgotten() {
        let peers = Peers::default();
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let met: Vec<Arc<Peer>> = (0..4)
            .map(|number| peers.meet(&subject(number), address, Moment::ORIGIN).unwrap())
            .collect();
        let member = |id: &NodeId| *id == met[0].id;
        met[1].revoke();
        let dialling = met[2].dial();
        let second = Duration::from_secs(1);
        peers.forget_gone(Moment::ORIGIN + FORGET_DEAD.saturating_sub(second), member);
        assert_eq!(peers.all().len(), 4, "none of them for long");
        peers.forget_gone(Moment::ORIGIN + FORGET_DEAD, member);
        assert!(met[..3].iter().all(|peer| peers.get(&peer.id).is_some()));
        assert!(peers.get(&met[3].id).is_none() && peers.named("node-3").is_none());
        drop(dialling);
        peers.forget_gone(Moment::ORIGIN + FORGET_DEAD, member);
        assert!(peers.get(&met[2].id).is_none());
        assert_eq!(peers.all().len(), 2, "a member, and who was shut out");
    }

    #[test]
    fn a_newcomer_gets_the_place_of_who_has_been_gone_for_longest() {
        let peers = Peers::default();
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let meet = |number: usize, at: Duration| {
            peers.meet(&subject(number), address, Moment::ORIGIN + at)
        };
        let second = Duration::from_secs(1);
        let dialled = meet(0, Duration::ZERO).unwrap();
        let dialling = dialled.dial();
        for number in 1..MAX_PEERS {
            assert!(meet(number, second).is_some());
        }
        assert!(meet(1, second).is_some(), "known already");
        assert!(meet(MAX_PEERS, second * 2).is_none(), "nobody has been gone for long");
        assert!(meet(MAX_PEERS, second + FORGET_DEAD).is_some());
        assert_eq!(peers.all().len(), MAX_PEERS);
        assert!(peers.get(&subject(0).id).is_some(), "it's being dialled");
        assert!(peers.named(&format!("node-{MAX_PEERS}")).is_some());
        let gone = (1..MAX_PEERS).find(|number| peers.get(&subject(*number).id).is_none());
        let gone = subject(gone.unwrap());
        assert!(peers.named(gone.name.as_str()).is_none());
        assert!(peers.named(&gone.id.to_string()).is_none());
        drop(dialling);
        assert!(meet(MAX_PEERS + 1, FORGET_DEAD).is_some());
        assert!(peers.get(&subject(0).id).is_none());
    }
}
