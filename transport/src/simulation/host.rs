//! A node of the simulation: its clock, its links, its membership, and what it asks and answers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use neuroflow_kernel::{Moment, Name};
use rand::RngExt;
use rand::rngs::SmallRng;

use super::World;
use super::asks::{Ask, End};
use super::wire::{Alone, Packet};
use crate::identity::NodeId;
use crate::limits::{HANDSHAKE_DEADLINE, IDLE_TIMEOUT, REDIAL_MAX, REDIAL_MIN};
use crate::membership::gossip::{Gossip, Linked, Output};
use crate::membership::record::Record;
use crate::membership::record::tests::record;
use crate::session::handshake::{NEWEST, Verdict, verdict};
use crate::session::keyed::{Bounds, KeyedWindow};
use crate::session::retry::{Retry, Step, Tried};

use super::line::Line;

/// Between signs of life on an idle link.
const PING: Duration = Duration::from_secs(1);

/// Packets that a frozen process finds when it's thawed.
const SOCKET_PACKETS: usize = 512;

const KEYED: Bounds = Bounds { calls: 4_096, bytes: 1 << 20, time: Duration::from_mins(10) };

pub(super) struct Host {
    own: usize,
    /// The number of its start; none while it's down.
    pub(super) life: u64,
    down: bool,
    pub(super) frozen: bool,
    offset: Duration,
    /// How much faster its clock runs, in millionths.
    fast: u128,
    gossip: Option<Gossip>,
    pub(super) lines: BTreeMap<usize, Line>,
    dialling: BTreeMap<usize, (u64, Duration)>,
    redial: BTreeMap<usize, (u32, Duration)>,
    /// Connections that were let in.
    met: BTreeSet<u64>,
    waiting: Vec<Packet>,
    /// Asks of this node without an end.
    pub(super) pending: BTreeSet<usize>,
    /// Calls with a key that are to be sent again.
    again: Vec<(Moment, usize)>,
    pub(super) keyed: KeyedWindow<usize, ()>,
    pub(super) runs: BTreeMap<usize, Run>,
}

/// A call with a key that runs or has run.
#[derive(Default)]
pub(super) struct Run {
    pub(super) is_done: bool,
    /// Connections and numbers that wait for its end.
    pub(super) waiters: Vec<(usize, u64, u64)>,
    pub(super) ready: Duration,
}

pub(super) fn id(own: usize) -> NodeId {
    NodeId::of_public_key(&own.to_le_bytes())
}

fn address(own: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], u16::try_from(own + 1).unwrap()))
}

fn name(own: usize) -> Name {
    Name::new(format!("node-{own}")).unwrap()
}

impl Host {
    pub(super) fn new(own: usize, random: &mut SmallRng) -> Self {
        let mut host = Self {
            own,
            life: 0,
            down: true,
            frozen: false,
            offset: Duration::from_secs(random.random_range(0..100_000)),
            fast: random.random_range(980_000..1_020_000),
            gossip: None,
            lines: BTreeMap::new(),
            dialling: BTreeMap::new(),
            redial: BTreeMap::new(),
            met: BTreeSet::new(),
            waiting: Vec::new(),
            pending: BTreeSet::new(),
            again: Vec::new(),
            keyed: KeyedWindow::new(KEYED),
            runs: BTreeMap::new(),
        };
        host.start(Duration::ZERO, random);
        host
    }

    /// Its own clock, which is off and runs at its own pace.
    pub(super) fn clock(&self, now: Duration) -> Moment {
        let nanos = now.as_nanos() * self.fast / 1_000_000;
        Moment::ORIGIN + self.offset + Duration::from_nanos(u64::try_from(nanos).unwrap())
    }

    pub(super) fn start(&mut self, now: Duration, random: &mut SmallRng) {
        self.life += 1;
        self.down = false;
        let record = Record { address: Some(address(self.own)), ..record(&["echo"]) };
        let (id, seed, now_here) = (id(self.own), random.random(), self.clock(now));
        let gossip = Gossip::new(id, name(self.own), self.life, record, seed, now_here);
        self.gossip = Some(gossip.unwrap());
        // The seed, which it dials until there is a link.
        self.redial.insert(usize::from(self.own == 0), (0, now));
    }

    /// All that was in memory is gone. Gives the asks that nobody waits for any more.
    pub(super) fn crash(&mut self) -> Vec<usize> {
        self.down = true;
        self.gossip = None;
        self.lines.clear();
        self.dialling.clear();
        self.redial.clear();
        self.met.clear();
        self.waiting.clear();
        self.again.clear();
        self.keyed = KeyedWindow::new(KEYED);
        self.runs.clear();
        std::mem::take(&mut self.pending).into_iter().collect()
    }

    pub(super) fn is_there(&self) -> bool {
        !self.down && !self.frozen
    }

    pub(super) fn is_down(&self) -> bool {
        self.down
    }

    pub(super) fn take_waiting(&mut self) -> Vec<Packet> {
        std::mem::take(&mut self.waiting)
    }

    /// Whether a connection is still of use to it.
    pub(super) fn has(&self, connection: u64) -> bool {
        self.lines.values().any(|line| line.connection == connection)
            || self.dialling.values().any(|(dialled, _)| *dialled == connection)
    }

    pub(super) fn has_spoken(&mut self, to: usize, now: Duration) {
        if let Some(line) = self.lines.get_mut(&to) {
            line.spoke = now;
        }
    }

    pub(super) fn assert_is_whole(&self, hosts: usize) {
        let own = self.own;
        assert!(self.is_there(), "host {own} isn't there");
        let others: Vec<usize> = (0..hosts).filter(|other| *other != own).collect();
        assert_eq!(self.lines.keys().copied().collect::<Vec<_>>(), others, "links of host {own}");
        let members = self.gossip.as_ref().unwrap().members();
        let there = members.iter().filter(|member| member.state.is_active()).count();
        assert_eq!(there, hosts, "members that host {own} knows");
        self.lines.values().for_each(Line::assert_is_idle);
        assert!(self.pending.is_empty() && self.again.is_empty(), "host {own}");
        assert!(self.runs.values().all(|run| run.is_done), "host {own}");
    }
}

impl World {
    pub(super) fn tick(&mut self, own: usize) {
        if !self.hosts[own].is_there() {
            return;
        }
        let now_here = self.hosts[own].clock(self.now);
        if let Some(gossip) = &mut self.hosts[own].gossip {
            gossip.tick(now_here);
        }
        self.gossip(own);
        let peers: Vec<usize> = self.hosts[own].lines.keys().copied().collect();
        for peer in peers {
            let Some(line) = self.hosts[own].lines.get(&peer) else { continue };
            let connection = line.connection;
            if self.now.saturating_sub(line.heard) >= IDLE_TIMEOUT {
                self.close(own, peer);
                continue;
            }
            if self.now.saturating_sub(line.spoke) >= PING {
                self.send(own, peer, Packet::Ping { connection, from: own }, 0);
            }
            self.look_after(own, peer);
        }
        self.dial_due(own);
        self.finish_runs(own);
        self.send_again(own, now_here);
        self.ask(own, now_here);
        self.none_is_late(own, now_here);
    }

    /// Nobody waits for longer than a second past the deadline, but for the end of an answer that has begun.
    fn none_is_late(&self, own: usize, now_here: Moment) {
        for number in &self.hosts[own].pending {
            let latest = self.asks.see(*number).deadline + Duration::from_secs(1);
            let ask = self.asks.see(*number);
            assert!(now_here <= latest || ask.has_begun, "{number} waits on: {ask:?}");
        }
    }

    fn gossip(&mut self, own: usize) {
        let Some(gossip) = &mut self.hosts[own].gossip else { return };
        for output in gossip.outputs() {
            match output {
                Output::Send { to, bytes, reliable } => {
                    let to = (0..self.hosts.len()).find(|host| id(*host) == to).unwrap();
                    let Some(line) = self.hosts[own].lines.get_mut(&to) else { continue };
                    let connection = line.connection;
                    let packet = if reliable {
                        let (number, kind) = (line.next_alone(), Alone::Gossip);
                        Packet::Alone { connection, from: own, number, kind, bytes }
                    } else {
                        Packet::Gossip { connection, from: own, bytes }
                    };
                    self.send(own, to, packet, 0);
                }
                Output::Dial { node, .. } => {
                    let to = (0..self.hosts.len()).find(|host| id(*host) == node).unwrap();
                    let now = self.now;
                    self.hosts[own].redial.entry(to).or_insert((0, now));
                }
                Output::Revocations(_) | Output::Drain { .. } => {}
            }
        }
    }

    pub(super) fn hears_gossip(&mut self, own: usize, from: usize, bytes: &[u8]) {
        let now_here = self.hosts[own].clock(self.now);
        if let Some(gossip) = &mut self.hosts[own].gossip {
            // Between two that both know each other, nothing is refused but what foca finds odd.
            let _odd = gossip.received(id(from), bytes, now_here).is_err();
        }
        self.gossip(own);
    }

    fn dial_due(&mut self, own: usize) {
        let now = self.now;
        let over: Vec<(usize, u64)> = self.hosts[own]
            .dialling
            .iter()
            .filter(|(_, (_, until))| *until <= now)
            .map(|(peer, (connection, _))| (*peer, *connection))
            .collect();
        for (peer, connection) in over {
            self.hosts[own].dialling.remove(&peer);
            self.send(own, peer, Packet::Closed { connection, from: own }, 0);
        }
        let due: Vec<usize> = self.hosts[own]
            .redial
            .iter()
            .filter(|(_, (_, at))| *at <= now)
            .map(|(peer, _)| *peer)
            .collect();
        for peer in due {
            let host = &mut self.hosts[own];
            if host.lines.contains_key(&peer) {
                host.redial.remove(&peer);
                continue;
            }
            if host.dialling.contains_key(&peer) {
                continue;
            }
            self.connections += 1;
            let (connection, life) = (self.connections, host.life);
            host.dialling.insert(peer, (connection, now + HANDSHAKE_DEADLINE));
            if let Some((tries, at)) = host.redial.get_mut(&peer) {
                *tries += 1;
                let wait = (REDIAL_MIN * 2_u32.pow((*tries).min(8))).min(REDIAL_MAX);
                *at = now + wait.mul_f64(self.random.random_range(0.5..1.0));
            }
            self.send(own, peer, Packet::Dial { connection, from: own, life }, 0);
        }
    }

    /// This end gives the link up, and says so as far as it's heard.
    pub(super) fn close(&mut self, own: usize, peer: usize) {
        if let Some(connection) = self.lose(own, peer) {
            self.send(own, peer, Packet::Closed { connection, from: own }, 0);
        }
    }

    /// The link is over: who waits is told, what runs for the peer ends.
    fn lose(&mut self, own: usize, peer: usize) -> Option<u64> {
        let now = self.now;
        let host = &mut self.hosts[own];
        let mut line = host.lines.remove(&peer)?;
        host.redial.insert(peer, (0, now + REDIAL_MIN));
        let now_here = host.clock(now);
        if let Some(gossip) = &mut host.gossip {
            gossip.unlinked(id(peer), false, now_here);
        }
        let callers: Vec<usize> = line.session.calls.drain().collect();
        for number in callers {
            self.tried(own, number, Tried::Lost, line.life, End::Lost);
        }
        self.gossip(own);
        Some(line.connection)
    }

    fn up(&mut self, own: usize, peer: usize, connection: u64, life: u64, dialled: bool) {
        if self.hosts[own].lines.contains_key(&peer) {
            self.close(own, peer);
        }
        let now = self.now;
        let host = &mut self.hosts[own];
        host.dialling.remove(&peer);
        host.redial.remove(&peer);
        host.lines.insert(peer, Line::new(connection, life, dialled, now));
        let linked = Linked {
            node: id(peer),
            name: name(peer),
            address: address(peer),
            operator: false,
            protocol: NEWEST,
        };
        let now_here = host.clock(now);
        if let Some(gossip) = &mut host.gossip {
            gossip.linked(linked, now_here);
        }
        self.gossip(own);
    }

    pub(super) fn arrives(&mut self, own: usize, packet: Packet) {
        let host = &mut self.hosts[own];
        if host.down {
            return;
        }
        if host.frozen {
            if host.waiting.len() < SOCKET_PACKETS {
                host.waiting.push(packet);
            } else {
                self.dropped(own, packet);
            }
            return;
        }
        let (connection, from) = (packet.connection(), packet.from());
        let dialled = host.dialling.get(&from).map(|(dialled, _)| *dialled);
        match packet {
            Packet::Dial { life, .. } => {
                if !host.met.insert(connection) {
                    return;
                }
                let young = |line: &Line| {
                    line.dialled
                        && line.life == life
                        && self.now.saturating_sub(line.since) < HANDSHAKE_DEADLINE
                };
                let stands = dialled.is_some() || host.lines.get(&from).is_some_and(young);
                let own_life = host.life;
                if verdict(id(own).as_bytes(), id(from).as_bytes(), stands) == Verdict::KeepOurs {
                    self.send(own, from, Packet::Superseded { connection, from: own }, 0);
                    return;
                }
                self.up(own, from, connection, life, false);
                let accept = Packet::Accept { connection, from: own, life: own_life };
                self.send(own, from, accept, 0);
            }
            Packet::Accept { life, .. } if dialled == Some(connection) => {
                self.up(own, from, connection, life, true);
            }
            Packet::Superseded { .. } if dialled == Some(connection) => {
                host.dialling.remove(&from);
            }
            Packet::Closed { .. } => {
                if dialled == Some(connection) {
                    host.dialling.remove(&from);
                }
                if host.lines.get(&from).is_some_and(|line| line.connection == connection) {
                    self.lose(own, from);
                }
            }
            // The acceptor is ahead of its answer.
            other if dialled == Some(connection) => {
                let wait = Duration::from_millis(5);
                self.after(wait, super::Event::Arrives { to: own, packet: other });
            }
            other => {
                let now = self.now;
                let line = host.lines.get_mut(&from);
                match line.filter(|line| line.connection == connection) {
                    Some(line) => {
                        line.heard = now;
                        self.on_link(own, from, other);
                    }
                    None if matches!(other, Packet::Superseded { .. }) => {}
                    None => self.send(own, from, Packet::Closed { connection, from: own }, 0),
                }
            }
        }
    }

    /// A full socket loses a packet; its sender finds out.
    fn dropped(&mut self, own: usize, packet: Packet) {
        if matches!(packet, Packet::Piece { .. } | Packet::Alone { .. }) {
            let from = packet.from();
            let again = super::Event::Again { from, to: own, packet, tries: 1 };
            self.after(Duration::from_millis(300), again);
        }
    }

    /// A try of an ask has failed: the caller is told, or it's tried again.
    pub(super) fn tried(&mut self, own: usize, number: usize, tried: Tried, life: u64, end: End) {
        let now_here = self.hosts[own].clock(self.now);
        let jitter = self.random.random_range(0.0..1.0);
        let Some(retry) = &mut self.asks.get(number).retry else {
            self.end(own, number, end);
            return;
        };
        match retry.failed(tried, life, now_here, jitter) {
            Step::Again(wait) => self.hosts[own].again.push((now_here + wait, number)),
            Step::GiveUp => self.end(own, number, End::GivenUp),
        }
    }

    pub(super) fn end(&mut self, own: usize, number: usize, end: End) {
        self.asks.end(number, end);
        assert!(self.hosts[own].pending.remove(&number), "ask {number} of host {own}");
    }

    fn send_again(&mut self, own: usize, now_here: Moment) {
        let again = std::mem::take(&mut self.hosts[own].again);
        for (at, number) in again {
            if at > now_here {
                self.hosts[own].again.push((at, number));
            } else if now_here >= self.asks.see(number).deadline {
                // Its process was frozen meanwhile; the caller's own wait is over.
                self.end(own, number, End::GivenUp);
            } else {
                self.asks.anew(number);
                self.request(own, number);
            }
        }
    }

    /// Now and then somebody asks something.
    fn ask(&mut self, own: usize, now_here: Moment) {
        let over = super::BROKEN + super::HEALING / 2;
        if self.now > over || !self.falls(0.3) {
            return;
        }
        let to = (own + self.random.random_range(1..self.hosts.len())) % self.hosts.len();
        let lasts = Duration::from_millis(self.random.random_range(50..6_000));
        let mut ask = Ask::new(own, to, now_here, lasts);
        ask.is_in_peace = self.now > super::BROKEN + super::HEALING / 3;
        match self.random.random_range(0..20) {
            0 => ask.silent = true,
            1 => ask.bytes = crate::limits::SMALL_MESSAGE_BYTES + 1,
            2 => ask.replies = 150,
            3..=4 => ask.leaves = Some(now_here + lasts / 3),
            5..=9 => ask.retry = Some(Retry::new(ask.deadline)),
            10 => ask.replies = 0,
            _ => ask.replies = self.random.random_range(1..4),
        }
        let number = self.asks.begin(ask);
        self.hosts[own].pending.insert(number);
        self.request(own, number);
    }
}

/// Nobody answers requests twice, so cancelled ones are remembered for as long as they may still come.
pub(super) type Cancelled = VecDeque<u64>;
