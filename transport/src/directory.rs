//! Who is there and who offers what: a snapshot that senders read, which the membership writes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use neuroflow_kernel::Name;

use crate::identity::NodeId;
use crate::membership::Offer;
use crate::placement;

/// How a member stands.
///
/// ```
/// assert_eq!(neuroflow_transport::MemberState::Suspect.as_str(), "suspect");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemberState {
    /// It answers.
    Alive,
    /// It hasn't answered, and may object.
    Suspect,
    /// It hasn't objected.
    Dead,
    /// It has said that it goes.
    Left,
    /// It was shut out.
    Revoked,
}

impl MemberState {
    /// The state in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Dead => "dead",
            Self::Left => "left",
            Self::Revoked => "revoked",
        }
    }

    /// Whether it counts as there.
    pub fn is_active(self) -> bool {
        matches!(self, Self::Alive | Self::Suspect)
    }
}

/// A node of the cluster, as it described itself.
///
/// ```
/// fn offers(members: &[neuroflow_transport::Member], agent: &str) -> usize {
///     members.iter().filter(|member| member.offers(agent)).count()
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Member {
    /// Its id.
    pub node: NodeId,
    /// Its name, as its certificate says.
    pub name: Name,
    /// How it stands.
    pub state: MemberState,
    /// Where it listens.
    pub address: SocketAddr,
    /// The oldest protocol that it speaks.
    pub oldest_protocol: u16,
    /// The newest protocol that it speaks.
    pub newest_protocol: u16,
    /// Its build, as it says.
    pub build: String,
    /// Its weight among those that offer the same.
    pub capacity: u32,
    /// Messages that wait at its agents.
    pub load: u32,
    /// Whether nothing is to be placed on it.
    pub draining: bool,
    /// When its certificate ends.
    pub certificate_expires: SystemTime,
    /// What it offers.
    pub agents: Vec<Offer>,
    /// Whether it's the node that was asked.
    pub own: bool,
}

impl Member {
    /// Whether it offers this agent.
    pub fn offers(&self, agent: &str) -> bool {
        self.agents.iter().any(|offer| offer.name == agent)
    }
}

/// The directory. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Directory(Arc<RwLock<Arc<View>>>);

/// A state of it.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// Another number for each change of what may be placed where.
    pub(crate) version: u64,
    pub(crate) members: Vec<Member>,
    offers: HashMap<String, Vec<(NodeId, u32)>>,
}

impl Directory {
    pub(crate) fn view(&self) -> Arc<View> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Shows these members from now on.
    pub(crate) fn show(&self, mut members: Vec<Member>) {
        members.sort_by(|a, b| (&a.name, a.node).cmp(&(&b.name, b.node)));
        let mut offers: HashMap<String, Vec<(NodeId, u32)>> = HashMap::new();
        for member in members.iter().filter(|member| member.state.is_active() && !member.draining) {
            for offer in &member.agents {
                offers.entry(offer.name.clone()).or_default().push((member.node, member.capacity));
            }
        }
        let mut view = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let version = view.version + u64::from(offers != view.offers);
        *view = Arc::new(View { version, members, offers });
    }
}

impl View {
    /// The nodes that may serve a key of this agent, best first.
    pub(crate) fn place(&self, agent: &str, key: &[u8]) -> Vec<NodeId> {
        let candidates = self.offers.get(agent).map_or(&[][..], Vec::as_slice);
        placement::order(key, candidates.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(number: u8, state: MemberState, draining: bool) -> Member {
        Member {
            node: NodeId::from([number; 32]),
            name: Name::new(format!("node-{number}")).unwrap(),
            state,
            address: "127.0.0.1:1".parse().unwrap(),
            oldest_protocol: 1,
            newest_protocol: 2,
            build: String::new(),
            capacity: 100,
            load: 0,
            draining,
            certificate_expires: SystemTime::UNIX_EPOCH,
            agents: vec![Offer::new("echo")],
            own: false,
        }
    }

    #[test]
    fn only_those_who_are_there_and_stay_are_placed_on() {
        let directory = Directory::default();
        directory.show(vec![
            member(1, MemberState::Alive, false),
            member(2, MemberState::Dead, false),
            member(3, MemberState::Alive, true),
            member(4, MemberState::Suspect, false),
            member(5, MemberState::Left, false),
        ]);
        let view = directory.view();
        let mut placed = view.place("echo", b"key");
        placed.sort();
        assert_eq!(placed, [NodeId::from([1; 32]), NodeId::from([4; 32])]);
        assert!(view.place("shell", b"key").is_empty());
    }

    #[test]
    fn the_version_changes_with_what_may_be_placed_where() {
        let directory = Directory::default();
        directory.show(vec![member(1, MemberState::Alive, false)]);
        let first = directory.view().version;
        let mut busy = member(1, MemberState::Alive, false);
        busy.load = 7;
        directory.show(vec![busy]);
        assert_eq!(directory.view().version, first);
        directory.show(vec![member(1, MemberState::Alive, true)]);
        assert_eq!(directory.view().version, first + 1);
    }
}
