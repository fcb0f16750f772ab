//! The membership of one node as a state machine: links, messages and moments in, messages and dials out.
//!
//! `foca` finds out who is alive. Around it this keeps the rule that a node counts only once it has proved
//! itself to us: its record comes over its own link, whose certificate says who it is. What others say of a
//! node that we don't know leads to a dial, within bounds.
//!
//! Long, because every event of the one state machine is here. What `foca` asks of it is in `shell`.

mod shell;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use foca::{Foca, State};
use neuroflow_kernel::{Moment, Name};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use self::shell::{Shell, config};
use super::record::{LISTS_SINCE, Note, NoteError, Record};
use super::swim::{Identity, Layout, Malformed, NOWHERE, believe};
use crate::directory::{Member, MemberState};
use crate::identity::NodeId;
use crate::limits::{
    GOSSIP_DIALS, HEARSAY_DIALS, HEARSAY_PAUSE, HEARSAY_WAIT, LIST_PAUSE, MAX_GOSSIP_BYTES,
    MAX_HEARD, MAX_MEMBERS, OBJECTION_PAUSE, PULSE_PERIOD,
};

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Output {
    /// Send this to a node that there is a link to; so that it arrives, if it must.
    Send { to: NodeId, bytes: Vec<u8>, reliable: bool },
    /// Dial a node that was heard of.
    Dial { node: NodeId, address: SocketAddr },
    /// A peer has a list of nodes that were shut out.
    Revocations(Vec<u8>),
    /// An operator elsewhere wants this node to drain, or to stop draining.
    Drain { by: NodeId, on: bool },
}

/// Who is at the other end of a new link.
#[derive(Clone, Debug)]
pub(crate) struct Linked {
    pub(crate) node: NodeId,
    pub(crate) name: Name,
    /// Where the link comes from.
    pub(crate) address: SocketAddr,
    /// Whether its certificate lets it order others about.
    pub(crate) operator: bool,
    /// What both speak.
    pub(crate) protocol: u16,
}

/// Why a message of a peer is dropped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum GossipError {
    #[error("the message can't be read")]
    Note(#[from] NoteError),
    #[error("the packet can't be read, or speaks for another")]
    Packet(#[from] Malformed),
    #[error("SWIM refuses the packet")]
    Swim(#[from] foca::Error),
    #[error("there is no link to the sender")]
    Unlinked,
    #[error("there are as many members as may be")]
    Full,
    #[error("the sender's certificate doesn't have the role for this")]
    Role,
}

/// The role that lets a node drain others.
pub(crate) const OPERATOR: &str = "operator";

/// Members that a newcomer asks for all others.
const ASKED_AT_FIRST: usize = 3;

struct Known {
    start: u64,
    version: u64,
    name: Name,
    address: SocketAddr,
    record: Record,
    load: u32,
    left: bool,
}

struct Heard {
    address: SocketAddr,
    start: u64,
    at: Moment,
    dials: u32,
}

/// A node's membership.
pub(crate) struct Gossip {
    name: Name,
    swim: Foca<Identity, Layout, SmallRng, foca::NoCustomBroadcast>,
    shell: Shell,
    random: SmallRng,
    record: Record,
    archive: Vec<u8>,
    version: u64,
    load: u32,
    // In order, so that the same events lead to the same packets.
    links: BTreeMap<NodeId, Linked>,
    known: BTreeMap<NodeId, Known>,
    heard: BTreeMap<NodeId, Heard>,
    pulse: Moment,
    out: Vec<Output>,
    changed: bool,
    /// The newest list of revoked nodes, and its serial.
    revocations: Option<(u64, Arc<str>)>,
    /// Who was asked for a newer one last, and when.
    asked: Option<(NodeId, Moment)>,
    /// Which peers have made this node object, and when.
    objected: BTreeMap<NodeId, Moment>,
    /// No number of a start beyond this is believed when others say it.
    latest: u64,
}

impl Gossip {
    /// Of a node that starts now, in milliseconds of Unix time.
    pub(crate) fn new(
        node: NodeId,
        name: Name,
        start: u64,
        record: Record,
        seed: u64,
        now: Moment,
    ) -> Result<Self, NoteError> {
        let own = Identity { node, start, address: record.address.unwrap_or(NOWHERE) };
        let mut random = SmallRng::seed_from_u64(seed);
        let swim = Foca::new(own, config(), SmallRng::seed_from_u64(random.random()), Layout);
        let record = record.bounded();
        let archive = record.encode()?.to_vec();
        let first = random.random_range(Duration::ZERO..PULSE_PERIOD);
        Ok(Self {
            name,
            swim,
            shell: Shell::new(now),
            random,
            record,
            archive,
            version: 1,
            load: 0,
            links: BTreeMap::new(),
            known: BTreeMap::new(),
            heard: BTreeMap::new(),
            pulse: now + first,
            out: Vec::new(),
            changed: true,
            revocations: None,
            asked: None,
            objected: BTreeMap::new(),
            latest: start.saturating_add(SET_BACK_MS),
        })
    }

    /// The nodes that there are links to.
    pub(crate) fn links(&self) -> Vec<NodeId> {
        self.links.keys().copied().collect()
    }

    pub(crate) fn has_link(&self, node: &NodeId) -> bool {
        self.links.contains_key(node)
    }

    /// Whether this node is a member, or was one not long ago.
    pub(crate) fn remembers(&self, node: &NodeId) -> bool {
        self.known.contains_key(node)
    }

    fn own(&self) -> Identity {
        *self.swim.identity()
    }

    /// What is to be done by now.
    pub(crate) fn outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.out)
    }

    /// Whether [`members`](Self::members) says something else than when this was asked last.
    pub(crate) fn has_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// When [`tick`](Self::tick) has something to do again.
    pub(crate) fn next(&self) -> Moment {
        let timer = self.shell.next();
        let heard = self.heard.values().map(|heard| heard.at).min();
        [timer, heard].into_iter().flatten().fold(self.pulse, Moment::min)
    }

    /// This node describes itself anew.
    pub(crate) fn describe(&mut self, record: Record) -> Result<(), NoteError> {
        let record = record.bounded();
        if record == self.record {
            return Ok(());
        }
        self.archive = record.encode()?.to_vec();
        self.record = record;
        self.version = self.version.saturating_add(1);
        self.changed = true;
        self.introduce_everywhere();
        Ok(())
    }

    /// There is a newer list of nodes that were shut out: all peers are told.
    pub(crate) fn revoked(&mut self, serial: u64, list: Arc<str>) {
        self.revocations = Some((serial, list));
        self.asked = None;
        self.changed = true;
        for peer in self.links() {
            self.offer_list(peer);
        }
    }

    /// Sends the list of revoked nodes, or, if it's long, only says which one it is: of all its peers a node
    /// needs to hear a long one from one.
    fn offer_list(&mut self, to: NodeId) {
        let Some((_, list)) = &self.revocations else { return };
        let bytes = Note::Revocations(list.as_bytes()).encode();
        if bytes.len() <= MAX_GOSSIP_BYTES {
            self.out.push(Output::Send { to, bytes, reliable: true });
        } else {
            self.pulse(to);
        }
    }

    /// A peer has this list of revoked nodes: it's asked for it if it's newer, unless it or another was asked
    /// just now.
    fn want_list(&mut self, from: NodeId, serial: u64) {
        if serial <= self.serial() {
            return;
        }
        let now = self.shell.now;
        let is_early = self.asked.is_some_and(|(whom, at)| {
            now.since(at) < if whom == from { LIST_PAUSE * 4 } else { LIST_PAUSE }
        });
        if !is_early {
            self.asked = Some((from, now));
            self.send(from, &Note::WantList, false);
        }
    }

    /// Which list of revoked nodes this node has; 0 for none.
    pub(crate) fn serial(&self) -> u64 {
        self.revocations.as_ref().map_or(0, |(serial, _)| *serial)
    }

    fn pulse(&mut self, to: NodeId) {
        let Some(peer) = self.links.get(&to) else { return };
        let list = (peer.protocol >= LISTS_SINCE).then(|| self.serial());
        let (start, version, load) = (self.own().start, self.version, self.load);
        self.send(to, &Note::Pulse { start, version, load, list }, false);
    }

    /// What waits at this node's agents.
    pub(crate) fn set_load(&mut self, load: u32) {
        self.changed |= self.load != load;
        self.load = load;
    }

    /// There is a link to this node.
    pub(crate) fn linked(&mut self, peer: Linked, now: Moment) {
        let node = peer.node;
        self.shell.now = now;
        self.links.insert(node, peer);
        self.heard.remove(&node);
        self.introduce(node);
        self.offer_list(node);
        if let Some(known) = self.known.get(&node) {
            // If one of us counts the other as dead, this is how that is found out and objected to.
            let identity = known.identity(node);
            let _unsaid = self.swim.announce(identity, &mut self.shell).is_err();
            self.settle();
        }
    }

    /// The link to this node is over; `left` if the node said so itself.
    pub(crate) fn unlinked(&mut self, node: NodeId, left: bool, now: Moment) {
        self.shell.now = now;
        self.links.remove(&node);
        if left && let Some(known) = self.known.get_mut(&node) {
            known.left = true;
            let gone = foca::Member::new(known.identity(node), 0, State::Down);
            let _unsaid = self.swim.apply_many([gone].into_iter(), true, &mut self.shell).is_err();
            self.settle();
            self.changed = true;
        }
    }

    /// A peer's message has arrived.
    pub(crate) fn received(
        &mut self,
        from: NodeId,
        bytes: &[u8],
        now: Moment,
    ) -> Result<(), GossipError> {
        self.shell.now = now;
        if !self.links.contains_key(&from) {
            return Err(GossipError::Unlinked);
        }
        match Note::decode(bytes)? {
            Note::Swim(packet) => self.swim_packet(from, packet)?,
            Note::Record { start, version, archive } => {
                self.recorded(from, start, version, archive)?;
            }
            Note::Pulse { start, version, load, list } => {
                self.pulsed(from, start, version, load);
                self.want_list(from, list.unwrap_or_default());
            }
            Note::Want => self.introduce(from),
            Note::WantList => {
                if let Some((_, list)) = &self.revocations {
                    let bytes = Note::Revocations(list.as_bytes()).encode();
                    self.out.push(Output::Send { to: from, bytes, reliable: true });
                }
            }
            Note::Later { start } => self.object(from, start)?,
            Note::Drain { on } => {
                if !self.links.get(&from).is_some_and(|peer| peer.operator) {
                    return Err(GossipError::Role);
                }
                self.out.push(Output::Drain { by: from, on });
            }
            Note::Revocations(list) => self.out.push(Output::Revocations(list.to_vec())),
            Note::Unknown => {}
        }
        Ok(())
    }

    fn pulsed(&mut self, from: NodeId, start: u64, version: u64, load: u32) {
        match self.known.get_mut(&from) {
            Some(known) if start < known.start => {
                let later = Note::Later { start: known.start };
                self.send(from, &later, false);
            }
            Some(known) if (start, version) == (known.start, known.version) => {
                self.changed |= known.load != load;
                known.load = load;
            }
            _ => self.send(from, &Note::Want, false),
        }
    }

    fn swim_packet(&mut self, from: NodeId, packet: &[u8]) -> Result<(), GossipError> {
        let known = &self.known;
        let own = self.own();
        let believed = believe(from, &own, packet, |id| known.get(id).map(|it| it.start))?;
        if let Some(start) = believed.later_self {
            self.object(from, start)?;
        }
        for identity in believed.heard {
            self.hear(&identity);
        }
        let Some(sender) = self.known.get_mut(&from) else {
            self.send(from, &Note::Want, false);
            return Ok(());
        };
        // A node says itself that it has begun anew.
        sender.start = sender.start.max(believed.start);
        let handled = self.swim.handle_data(&believed.packet, &mut self.shell);
        self.settle();
        Ok(handled?)
    }

    fn recorded(
        &mut self,
        from: NodeId,
        start: u64,
        version: u64,
        archive: &[u8],
    ) -> Result<(), GossipError> {
        let Some(link) = self.links.get(&from) else { return Err(GossipError::Unlinked) };
        let before = self.known.get(&from).map(|known| (known.start, known.version));
        match before {
            Some((known, _)) if start < known => {
                self.send(from, &Note::Later { start: known }, false);
                return Ok(());
            }
            Some(known) if (start, version) <= known => return Ok(()),
            None if self.known.len() >= MAX_MEMBERS => return Err(GossipError::Full),
            _ => {}
        }
        let record = Record::decode(archive)?;
        let known = Known {
            start,
            version,
            name: link.name.clone(),
            address: record.address.unwrap_or(link.address),
            record,
            load: 0,
            left: false,
        };
        let identity = known.identity(from);
        self.known.insert(from, known);
        self.heard.remove(&from);
        self.changed = true;
        if before.is_none_or(|(known, _)| known < start) {
            let alive = [foca::Member::alive(identity)];
            let applied = self.swim.apply_many(alive.into_iter(), true, &mut self.shell);
            self.settle();
            applied?;
            if self.known.len() <= ASKED_AT_FIRST {
                let _unsaid = self.swim.announce(identity, &mut self.shell).is_err();
                self.settle();
            }
        }
        Ok(())
    }

    /// Others know a later start of this node than it does itself: its clock was set back, or it was
    /// declared dead. It goes on as a start later still; for one peer once in a while, since it tells all others.
    fn object(&mut self, from: NodeId, start: u64) -> Result<(), GossipError> {
        // From there on a number can only grow by one at a time, so nobody can use them up. The node's next start
        // believes in more, and so in whatever number this one was brought to.
        if start < self.own().start || start > self.latest {
            return Ok(());
        }
        let now = self.shell.now;
        if self.objected.get(&from).is_some_and(|at| now.since(*at) < OBJECTION_PAUSE) {
            return Ok(());
        }
        self.objected.insert(from, now);
        let own = Identity { start: start.saturating_add(1), ..self.own() };
        let changed = self.swim.change_identity(own, &mut self.shell);
        self.introduce_everywhere();
        self.settle();
        Ok(changed?)
    }

    fn hear(&mut self, identity: &Identity) {
        let node = identity.node;
        let full = self.heard.len() >= MAX_HEARD;
        let is_known = self.links.contains_key(&node) || identity.address == NOWHERE;
        if is_known || full && !self.heard.contains_key(&node) {
            return;
        }
        let wait = self.random.random_range(Duration::ZERO..HEARSAY_WAIT);
        let at = self.shell.now + wait;
        let heard = Heard { address: identity.address, start: identity.start, at, dials: 0 };
        let entry = self.heard.entry(node).or_insert(heard);
        if entry.start < identity.start {
            (entry.start, entry.address) = (identity.start, identity.address);
        }
    }

    /// The moment has come that [`next`](Self::next) named.
    pub(crate) fn tick(&mut self, now: Moment) {
        self.shell.now = now;
        while let Some(timer) = self.shell.due() {
            // An error is foca's about itself, and it goes on.
            let _unsaid = self.swim.handle_timer(timer, &mut self.shell).is_err();
            self.settle();
        }
        let mut dials = GOSSIP_DIALS;
        for (node, heard) in &mut self.heard {
            if heard.at > now || dials == 0 {
                continue;
            }
            dials -= 1;
            heard.dials = heard.dials.saturating_add(1);
            heard.at = now + HEARSAY_PAUSE;
            self.out.push(Output::Dial { node: *node, address: heard.address });
        }
        self.heard.retain(|_, heard| heard.dials <= HEARSAY_DIALS);
        if self.pulse <= now {
            self.pulse = now + PULSE_PERIOD;
            for peer in self.links() {
                self.pulse(peer);
            }
            self.forget_the_dead();
            self.objected.retain(|_, at| now.since(*at) < OBJECTION_PAUSE);
        }
    }

    /// Those whom SWIM has forgotten are forgotten here too.
    fn forget_the_dead(&mut self) {
        let before = self.known.len();
        let swim: HashMap<NodeId, State> = self.states();
        let links = &self.links;
        self.known.retain(|node, _| swim.contains_key(node) || links.contains_key(node));
        self.changed |= self.known.len() != before;
    }

    fn states(&self) -> HashMap<NodeId, State> {
        self.swim.iter_membership_state().map(|member| (member.id().node, member.state())).collect()
    }

    /// All members, this one included.
    pub(crate) fn members(&self) -> Vec<Member> {
        let states = self.states();
        let own = self.own();
        let itself = member(own.node, &self.name, own.address, &self.record, self.load);
        let mut members = vec![Member { own: true, ..itself }];
        members.extend(self.known.iter().map(|(node, known)| {
            let state = match states.get(node) {
                Some(State::Alive) => MemberState::Alive,
                Some(State::Suspect) => MemberState::Suspect,
                _ if known.left => MemberState::Left,
                _ => MemberState::Dead,
            };
            let member = member(*node, &known.name, known.address, &known.record, known.load);
            Member { state, ..member }
        }));
        members
    }

    fn introduce_everywhere(&mut self) {
        for peer in self.links() {
            self.introduce(peer);
        }
    }

    fn introduce(&mut self, to: NodeId) {
        let (start, version) = (self.own().start, self.version);
        let bytes = Note::Record { start, version, archive: &self.archive }.encode();
        self.out.push(Output::Send { to, bytes, reliable: true });
    }

    /// Asks another member to drain, or to stop draining; it heeds operators only.
    pub(crate) fn ask_to_drain(&mut self, node: NodeId, on: bool) -> Result<(), GossipError> {
        if !self.links.contains_key(&node) {
            return Err(GossipError::Unlinked);
        }
        let bytes = Note::Drain { on }.encode();
        self.out.push(Output::Send { to: node, bytes, reliable: true });
        Ok(())
    }

    fn send(&mut self, to: NodeId, note: &Note<'_>, reliable: bool) {
        self.out.push(Output::Send { to, bytes: note.encode(), reliable });
    }

    /// Takes over what foca wants done.
    fn settle(&mut self) {
        let links = &self.links;
        for (to, bytes) in self.shell.packets.drain(..) {
            // To others there is nothing to send it by, and it will be said again.
            if links.contains_key(&to) {
                self.out.push(Output::Send { to, bytes, reliable: false });
            }
        }
        self.changed |= std::mem::take(&mut self.shell.changed);
        if std::mem::take(&mut self.shell.renewed) {
            self.introduce_everywhere();
        }
    }
}

/// A clock that was set back further than by a hundred years between two starts isn't one.
const SET_BACK_MS: u64 = 100 * 366 * 24 * 60 * 60 * 1_000;

impl Known {
    fn identity(&self, node: NodeId) -> Identity {
        Identity { node, start: self.start, address: self.address }
    }
}

fn member(node: NodeId, name: &Name, address: SocketAddr, record: &Record, load: u32) -> Member {
    Member {
        node,
        name: name.clone(),
        state: MemberState::Alive,
        address,
        oldest_protocol: record.oldest,
        newest_protocol: record.newest,
        build: record.build.clone(),
        capacity: record.capacity,
        load,
        draining: record.draining,
        certificate_expires: SystemTime::UNIX_EPOCH
            .checked_add(Duration::from_secs(record.certificate_expires))
            .unwrap_or(SystemTime::UNIX_EPOCH),
        agents: record.offers.clone(),
        own: false,
    }
}

#[cfg(test)]
mod tests;
