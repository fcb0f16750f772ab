//! How links end: with whom this node doesn't trust any more, with certificates, and when it leaves.

use std::sync::PoisonError;

use super::Shared;
use crate::identity::{NodeId, RevocationError};
use crate::link::CloseCode;
use crate::link::lane::DRAINED_SINCE;
use crate::link::peer::Link;
use crate::membership::MembershipCommand;
use crate::observer::ClusterEvent;

impl Shared {
    /// The peer was forgotten, and so is whatever it had here.
    pub(super) fn forget(&self, peer: &NodeId) {
        self.exports.forget(peer);
        self.firsts.lock().unwrap_or_else(PoisonError::into_inner).remove(peer);
    }

    /// Takes a list of revoked nodes, if it's newer: their links end, and the members and the file are to
    /// have it. Says whether it was newer.
    pub(crate) fn take_list(&self, text: &str) -> Result<bool, RevocationError> {
        let Some(nodes) = self.trust.take_revocations(text)? else { return Ok(false) };
        self.list_taken(&nodes);
        Ok(true)
    }

    /// There is a newer list of revoked nodes, with these on it.
    pub(crate) fn list_taken(&self, nodes: &[NodeId]) {
        if let Some(text) = self.trust.revocations() {
            self.told.decided(ClusterEvent::ListTaken { text: &text });
        }
        for node in nodes {
            self.told.shut_out(*node);
            self.shut_out(node);
        }
        self.membership.tell(MembershipCommand::Revoked);
        if let Some(kept) = &self.kept {
            kept.changed.notify_one();
        }
    }

    /// Ends the link to a node that isn't trusted any more, here and now: no mailbox is in between that
    /// could be full. Its actor hears of the end and goes. What the node has asked for ends too, also what would go on
    /// without a link, and nobody uses a capability any more that it has had.
    pub(crate) fn shut_out(&self, node: &NodeId) {
        if let Some(peer) = self.peers.get(node)
            && let Some(link) = peer.revoke()
        {
            CloseCode::Revoked.close(&link.connection);
            link.lanes.iter().for_each(|lane| lane.close());
        }
        self.exports.keyed.forget(node);
        self.capabilities.shut_out(node);
    }

    /// Tells all peers that this node takes no new requests.
    pub(super) fn drain(&self) {
        for link in self.peers.all().iter().filter_map(|peer| peer.link()) {
            link.lanes.iter().for_each(|lane| lane.stage_drain());
        }
    }

    /// Waits until all peers that were told so wait for nothing more. Of those that don't answer that, nobody knows.
    pub(super) async fn drained(&self) {
        let is_busy = |link: &Link| {
            let answers = link.agreed.version >= DRAINED_SINCE;
            answers && link.lanes.iter().any(|lane| !lane.is_quiet())
        };
        for peer in self.peers.all() {
            loop {
                let mut changed = std::pin::pin!(peer.changed.notified());
                // Enrolled before the look, so that an answer in between isn't missed.
                changed.as_mut().enable();
                if !peer.link().is_some_and(|link| is_busy(&link)) {
                    break;
                }
                changed.await;
            }
        }
    }

    /// Ends links that shouldn't stand: to nodes that were shut out by other ways than a list, and to those
    /// whose certificate has ended. Such a one is dialled again, and gets a link if it has a new certificate.
    pub(crate) fn end_unwelcome(&self) {
        let now = self.clock.wall();
        for peer in self.peers.all() {
            if self.trust.is_revoked(&peer.id) && !peer.is_revoked() {
                self.told.shut_out(peer.id);
                self.shut_out(&peer.id);
            } else if peer.expires() <= now
                && let Some(link) = peer.link()
            {
                CloseCode::Expired.close(&link.connection);
            }
        }
    }
}
