//! The membership's actor: moves messages, moments and dials between the state machine and the links.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use neuroflow_kernel::{Actor, Address, Context, Header, Moment};

use super::gossip::{Gossip, GossipError, Linked, OPERATOR, Output};
use super::record::{NoteError, Record};
use super::{MembershipCommand, Offer};
use crate::directory::{Member, MemberState};
use crate::endpoint::{ClusterCommand, Shared};
use crate::identity::NodeId;
use crate::link::connect;
use crate::link::gossip::{GOSSIP_SINCE, send};
use crate::link::peer::Peer;
use crate::observer::ClusterEvent;
use crate::session::handshake::OLDEST;

/// Why the membership's actor doesn't start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum MembershipError {
    /// What the node says of itself can't be written down.
    #[error("the node's record can't be written")]
    Record(#[from] NoteError),
}

/// Keeps a node's membership.
pub(crate) struct MembershipServer {
    shared: Arc<Shared>,
    cluster: Address<ClusterCommand>,
    gossip: Option<Gossip>,
    reconciled: Moment,
}

/// How late a timer of the membership may be.
const TICK: Duration = Duration::from_millis(20);

/// How often links are compared with what the membership knows of them: a full mailbox may have lost news.
const RECONCILE: Duration = Duration::from_secs(1);

impl MembershipServer {
    pub(crate) fn new(shared: Arc<Shared>, cluster: Address<ClusterCommand>) -> Self {
        Self { shared, cluster, gossip: None, reconciled: Moment::ORIGIN }
    }

    fn tick(&mut self, now: Moment) {
        if now.since(self.reconciled) >= RECONCILE {
            self.reconciled = now;
            self.shared.end_unwelcome();
            self.list();
            self.reconcile(now);
            self.describe();
        }
        if let Some(gossip) = &mut self.gossip
            && gossip.next() <= now
        {
            gossip.tick(now);
        }
        self.show();
    }

    fn describe(&mut self) {
        let record = self.shared.record();
        if let Some(gossip) = &mut self.gossip {
            gossip.set_load(self.shared.exports.waiting());
            if gossip.describe(record).is_err() {
                self.shared.gossip_meters.refused.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Tells the members of the newest list of revoked nodes, unless they were told.
    fn list(&mut self) {
        if let (Some(gossip), Some((serial, list))) =
            (&mut self.gossip, self.shared.trust.newest_list())
            && gossip.serial() < serial
        {
            gossip.revoked(serial, list);
        }
    }

    fn reconcile(&mut self, now: Moment) {
        let Some(gossip) = &mut self.gossip else { return };
        let mut up = HashMap::new();
        for peer in self.shared.peers.all() {
            if gossips(&peer) {
                up.insert(peer.id, peer);
            }
        }
        for node in gossip.links() {
            if !up.contains_key(&node) {
                gossip.unlinked(node, false, now);
            }
        }
        for (node, peer) in up {
            if !gossip.has_link(&node) {
                gossip.linked(linked(&peer), now);
            }
        }
        // A seed is dialled all the same: by its address, not as this peer.
        self.shared.peers.forget_gone(now, |node| gossip.remembers(node));
    }

    fn received(&mut self, from: NodeId, bytes: &Bytes, now: Moment) {
        let Some(gossip) = &mut self.gossip else { return };
        let meters = &self.shared.gossip_meters;
        meters.received.fetch_add(1, Ordering::Relaxed);
        let refused = match gossip.received(from, bytes, now) {
            Err(GossipError::Unlinked) => {
                self.reconcile(now);
                let Some(gossip) = &mut self.gossip else { return };
                gossip.received(from, bytes, now)
            }
            done => done,
        };
        if refused.is_err() {
            self.shared.gossip_meters.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Does what the state machine wants done.
    fn carry_out(&mut self, context: &mut Context<MembershipCommand>) {
        let Some(gossip) = &mut self.gossip else { return };
        for output in gossip.outputs() {
            match output {
                Output::Send { to, bytes, reliable } => {
                    let Some(link) = self.shared.peers.get(&to).and_then(|peer| peer.link()) else {
                        continue;
                    };
                    let meters = &self.shared.gossip_meters;
                    meters.sent.fetch_add(1, Ordering::Relaxed);
                    meters.sent_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    if let Some(work) = send(&link, bytes.into(), reliable, context.clock()) {
                        // What isn't sent now is said again.
                        let _full = context.task(work).is_err();
                    }
                }
                Output::Dial { node, address } => {
                    let work = dial(Arc::clone(&self.shared), self.cluster.clone(), node, address);
                    let _full = context.task(work).is_err();
                }
                Output::Revocations(list) => self.shared.hear_list(&list),
                Output::Drain { by, on } => {
                    self.shared.told.decided(ClusterEvent::Drained { by, on });
                    self.shared.draining.store(on, Ordering::SeqCst);
                    let own = context.address();
                    let _full = own.try_tell(Header::new(), MembershipCommand::Describe).is_err();
                }
            }
        }
    }

    /// Shows how the members stand, if that has changed. All of it is made anew, so not at each message.
    fn show(&mut self) {
        let Some(gossip) = &mut self.gossip else { return };
        if gossip.has_changed() {
            let members = gossip.members().into_iter().map(|member| self.shared.judged(member));
            self.shared.directory.show(members.collect());
        }
    }
}

impl Shared {
    /// A peer has a list of revoked nodes: if it's newer than ours and the authority's, it's ours from now on.
    pub(crate) fn hear_list(&self, list: &[u8]) {
        let taken = std::str::from_utf8(list).ok().map(|text| self.take_list(text));
        if !matches!(taken, Some(Ok(_))) {
            self.gossip_meters.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What this node says of itself now.
    fn record(&self) -> Record {
        let seconds = |at: SystemTime| {
            at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
        };
        let skills = self.skills.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let offers = self.exports.names().into_iter().map(|name| {
            let skills = skills.get(&name).cloned().unwrap_or_default();
            skills.into_iter().fold(Offer::new(name), Offer::skill)
        });
        Record {
            address: self.advertised(),
            oldest: OLDEST,
            newest: self.newest,
            build: self.build.clone(),
            capacity: self.capacity,
            draining: self.draining.load(Ordering::SeqCst) || self.leaving.load(Ordering::SeqCst),
            certificate_expires: seconds(self.presented.expires()),
            offers: offers.collect(),
        }
    }

    /// Where others reach this node, if that isn't where its packets come from.
    fn advertised(&self) -> Option<SocketAddr> {
        let bound = self.endpoint().and_then(|endpoint| endpoint.local_addr().ok());
        self.advertise.or(bound.filter(|address| !address.ip().is_unspecified()))
    }

    fn judged(&self, member: Member) -> Member {
        if self.trust.is_revoked(&member.node) {
            return Member { state: MemberState::Revoked, ..member };
        }
        member
    }
}

fn gossips(peer: &Peer) -> bool {
    peer.link().is_some_and(|link| link.agreed.version >= GOSSIP_SINCE)
}

/// A peer as the state machine knows it.
pub(crate) fn linked(peer: &Peer) -> Linked {
    let subject = peer.subject();
    let operator = subject.roles.iter().any(|role| role == OPERATOR);
    let protocol = peer.link().map_or(GOSSIP_SINCE, |link| link.agreed.version);
    Linked { node: peer.id, name: subject.name, address: peer.address(), operator, protocol }
}

/// Dials a node that was heard of, unless it has come by itself.
async fn dial(
    shared: Arc<Shared>,
    cluster: Address<ClusterCommand>,
    node: NodeId,
    address: SocketAddr,
) {
    if shared.peers.get(&node).is_some_and(|peer| peer.link().is_some() || peer.is_revoked()) {
        return;
    }
    if let Ok(established) = connect::dial(&shared, address, Some(node)).await {
        let arrived = ClusterCommand::Arrived(Box::new(established));
        let _ended = cluster.tell(Header::new(), arrived).await.is_err();
    }
}

impl Actor for MembershipServer {
    type Message = MembershipCommand;
    type Error = MembershipError;
    const KIND: &'static str = "membership";

    async fn started(
        &mut self,
        context: &mut Context<MembershipCommand>,
    ) -> Result<(), MembershipError> {
        let clock = context.clock().clone();
        let now = clock.now();
        let start = clock.unix_ms();
        let seed = RandomState::new().build_hasher().finish();
        let shared = &self.shared;
        let (node, name) = (shared.id, shared.name.clone());
        self.gossip = Some(Gossip::new(node, name, start, shared.record(), seed, now)?);
        shared.membership.open(context.address());
        self.list();
        self.reconcile(now);
        self.carry_out(context);
        self.show();
        let own = context.address();
        let ticking = async move {
            loop {
                clock.sleep(TICK).await;
                if own.tell(Header::new(), MembershipCommand::Tick).await.is_err() {
                    return;
                }
            }
        };
        let _full = context.task(ticking).is_err();
        Ok(())
    }

    async fn handle(
        &mut self,
        command: MembershipCommand,
        context: &mut Context<MembershipCommand>,
    ) -> Result<(), MembershipError> {
        let now = context.clock().now();
        match command {
            MembershipCommand::Linked(peer) => {
                if let Some(gossip) = &mut self.gossip {
                    gossip.linked(*peer, now);
                }
            }
            MembershipCommand::Unlinked { node, left } => {
                if let Some(gossip) = &mut self.gossip {
                    gossip.unlinked(node, left, now);
                }
            }
            MembershipCommand::Received { from, bytes, place } => {
                self.received(from, &bytes, now);
                drop(place);
            }
            MembershipCommand::Describe => self.describe(),
            MembershipCommand::Revoked => self.list(),
            MembershipCommand::Tick => self.tick(now),
            MembershipCommand::Drain { node, on } => {
                if let Some(gossip) = &mut self.gossip {
                    // Whoever asked sees by the member's state whether it was heeded.
                    let _gone = gossip.ask_to_drain(node, on).is_err();
                }
            }
        }
        self.carry_out(context);
        Ok(())
    }
}
