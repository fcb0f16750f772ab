//! Many nodes in virtual time: joins, deaths, leaves, partitions, and what hostile members can't do.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashSet};

use super::super::record::LIST;
use super::super::record::tests::record;
use super::*;

/// Arrival, number, sender, receiver, message.
type Flying = (Moment, u64, usize, usize, Vec<u8>);

/// A network whose time the test moves.
struct World {
    now: Moment,
    nodes: BTreeMap<usize, Gossip>,
    /// Messages on their way, by arrival.
    wire: BinaryHeap<Reverse<Flying>>,
    sent: u64,
    bytes: u64,
    random: SmallRng,
    loss: f64,
    dead: HashSet<usize>,
    cut: HashSet<(usize, usize)>,
    dials: u64,
    /// What all speak.
    protocol: u16,
    /// Messages with a list of revoked nodes that are lost, and those that were sent.
    lists_lost: u64,
    lists_sent: u64,
}

const DELAY: Duration = Duration::from_millis(2);

fn id(number: usize) -> NodeId {
    NodeId::of_public_key(&number.to_le_bytes())
}

fn address(number: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], u16::try_from(number + 1).unwrap()))
}

impl World {
    fn new(count: usize) -> Self {
        let mut world = Self {
            now: Moment::ORIGIN,
            nodes: BTreeMap::new(),
            wire: BinaryHeap::new(),
            sent: 0,
            bytes: 0,
            random: SmallRng::seed_from_u64(7),
            loss: 0.0,
            dead: HashSet::new(),
            cut: HashSet::new(),
            dials: 0,
            protocol: LISTS_SINCE,
            lists_lost: 0,
            lists_sent: 0,
        };
        (0..count).for_each(|number| world.start(number, 1));
        world
    }

    fn start(&mut self, number: usize, start: u64) {
        let name = Name::new(format!("node-{number}")).unwrap();
        let seed = number as u64 * 1_000 + start;
        let record = Record { address: Some(address(number)), ..record(&["echo"]) };
        let gossip = Gossip::new(id(number), name, start, record, seed, self.now).unwrap();
        self.nodes.insert(number, gossip);
        self.dead.remove(&number);
    }

    fn number(&self, node: NodeId) -> usize {
        *self.nodes.keys().find(|number| id(**number) == node).unwrap()
    }

    fn is_cut(&self, a: usize, b: usize) -> bool {
        self.dead.contains(&a)
            || self.dead.contains(&b)
            || self.cut.contains(&(a, b))
            || self.cut.contains(&(b, a))
    }

    fn link(&mut self, a: usize, b: usize) {
        if a == b || self.is_cut(a, b) || self.nodes[&a].links.contains_key(&id(b)) {
            return;
        }
        for (own, other) in [(a, b), (b, a)] {
            let name = Name::new(format!("node-{other}")).unwrap();
            let operator = other == 0;
            let protocol = self.protocol;
            let peer =
                Linked { node: id(other), name, address: address(other), operator, protocol };
            self.nodes.get_mut(&own).unwrap().linked(peer, self.now);
            self.flush(own);
        }
    }

    fn unlink(&mut self, a: usize, b: usize, left: bool) {
        for (own, other) in [(a, b), (b, a)] {
            let Some(gossip) = self.nodes.get_mut(&own) else { continue };
            if gossip.links.contains_key(&id(other)) {
                gossip.unlinked(id(other), left && other == a, self.now);
                self.flush(own);
            }
        }
    }

    fn flush(&mut self, number: usize) {
        let outputs = self.nodes.get_mut(&number).unwrap().outputs();
        for output in outputs {
            match output {
                Output::Send { to, bytes, reliable } => {
                    let to = self.number(to);
                    self.sent += 1;
                    self.bytes += bytes.len() as u64;
                    if bytes.first() == Some(&LIST) {
                        self.lists_sent += 1;
                        if self.lists_sent <= self.lists_lost {
                            continue;
                        }
                    }
                    if self.is_cut(number, to) || !reliable && self.random.random_bool(self.loss) {
                        continue;
                    }
                    let at = self.now + DELAY;
                    self.wire.push(Reverse((at, self.sent, number, to, bytes)));
                }
                Output::Dial { node, address: at } => {
                    self.dials += 1;
                    let to = self.nodes.keys().copied().find(|to| address(*to) == at);
                    if let Some(to) = to.filter(|to| id(*to) == node) {
                        self.link(number, to);
                    }
                }
                Output::Revocations(list) => {
                    let text = String::from_utf8(list).unwrap();
                    let serial = text.trim_end().parse().unwrap();
                    let gossip = self.nodes.get_mut(&number).unwrap();
                    if serial > gossip.serial() {
                        gossip.revoked(serial, text.into());
                        self.flush(number);
                    }
                }
                Output::Drain { on, .. } => {
                    let gossip = self.nodes.get_mut(&number).unwrap();
                    let record = Record { draining: on, ..gossip.record.clone() };
                    gossip.describe(record).unwrap();
                    self.flush(number);
                }
            }
        }
    }

    /// Runs until `done` or for so long; says how long it took.
    fn run(&mut self, longest: Duration, done: impl Fn(&Self) -> bool) -> Option<Duration> {
        let begun = self.now;
        let end = begun + longest;
        // To look after every event would take longer than all events do.
        let mut look = self.now;
        loop {
            if self.now >= look {
                if done(self) {
                    return Some(self.now.since(begun));
                }
                look = self.now + Duration::from_millis(50);
            }
            let timers = self.nodes.iter().filter(|(number, _)| !self.dead.contains(*number));
            let timer = timers.map(|(number, gossip)| (gossip.next(), *number)).min();
            let message = self.wire.peek().map(|Reverse((at, ..))| *at);
            let next = match (timer, message) {
                (Some((timer, _)), Some(message)) => timer.min(message),
                (Some((timer, _)), None) => timer,
                (None, Some(message)) => message,
                (None, None) => end,
            };
            if next >= end {
                self.now = end;
                return done(self).then(|| self.now.since(begun));
            }
            self.now = self.now.max(next);
            if message == Some(next) {
                let Some(Reverse((_, _, from, to, bytes))) = self.wire.pop() else { continue };
                if !self.is_cut(from, to) {
                    let gossip = self.nodes.get_mut(&to).unwrap();
                    let _refused = gossip.received(id(from), &bytes, self.now);
                    self.flush(to);
                }
            } else if let Some((_, number)) = timer {
                self.nodes.get_mut(&number).unwrap().tick(self.now);
                self.flush(number);
            }
        }
    }

    /// All living nodes know exactly these as being there.
    fn agree_on(&self, there: &[usize]) -> bool {
        let expected: HashSet<NodeId> = there.iter().map(|number| id(*number)).collect();
        self.nodes.iter().filter(|(number, _)| there.contains(*number)).all(|(_, gossip)| {
            let members = gossip.members();
            let active = members.iter().filter(|member| member.state.is_active());
            let active: HashSet<NodeId> = active.map(|member| member.node).collect();
            active == expected
        })
    }

    /// Each node dials the first, and all find all.
    fn joined(count: usize) -> Self {
        let mut world = Self::new(count);
        (1..count).for_each(|number| world.link(number, 0));
        let all: Vec<usize> = (0..count).collect();
        assert!(world.run(Duration::from_secs(20), |world| world.agree_on(&all)).is_some());
        world
    }

    fn state(&self, at: usize, of: usize) -> Option<MemberState> {
        let members = self.nodes[&at].members();
        members.iter().find(|member| member.node == id(of)).map(|member| member.state)
    }
}

const NODES: usize = 50;

#[test]
fn a_cluster_of_fifty_knows_a_newcomer_within_three_seconds() {
    let mut world = World::joined(NODES);
    world.run(Duration::from_secs(30), |_| false);
    world.start(NODES, 1);
    world.link(NODES, 17);
    let all: Vec<usize> = (0..=NODES).collect();
    let took = world.run(Duration::from_secs(10), |world| world.agree_on(&all)).unwrap();
    assert!(took <= Duration::from_secs(3), "{took:?}");
}

#[test]
fn a_cluster_of_fifty_notices_a_death_within_five_seconds_whoever_dies() {
    for victim in [0, 13, 49] {
        let mut world = World::joined(NODES);
        world.run(Duration::from_secs(10), |_| false);
        world.dead.insert(victim);
        let left: Vec<usize> = (0..NODES).filter(|number| *number != victim).collect();
        let took = world.run(Duration::from_secs(20), |world| world.agree_on(&left)).unwrap();
        assert!(took <= Duration::from_secs(5), "{victim}: {took:?}");
        assert_eq!(world.state(7, victim), Some(MemberState::Dead));
    }
}

#[test]
fn nobody_dies_of_lost_datagrams() {
    let mut world = World::joined(20);
    world.loss = 0.2;
    let all: Vec<usize> = (0..20).collect();
    let wrong = world.run(Duration::from_mins(2), |world| !world.agree_on(&all));
    assert_eq!(wrong, None, "somebody was declared dead");
}

#[test]
fn a_node_that_leaves_is_gone_at_once_and_may_come_back() {
    let mut world = World::joined(10);
    (0..9).for_each(|other| world.unlink(9, other, true));
    world.dead.insert(9);
    assert_eq!(world.state(3, 9), Some(MemberState::Left));
    let left: Vec<usize> = (0..9).collect();
    assert!(world.agree_on(&left));
    world.start(9, 2);
    world.link(9, 4);
    let all: Vec<usize> = (0..10).collect();
    assert!(world.run(Duration::from_secs(3), |world| world.agree_on(&all)).is_some());
}

#[test]
fn a_node_whose_clock_was_set_back_comes_in_again() {
    let mut world = World::joined(5);
    world.dead.insert(4);
    world.run(Duration::from_secs(10), |_| false);
    (0..4).for_each(|other| world.unlink(4, other, false));
    world.start(4, 0);
    world.link(4, 1);
    let all: Vec<usize> = (0..5).collect();
    assert!(world.run(Duration::from_secs(5), |world| world.agree_on(&all)).is_some());
}

#[test]
fn two_halves_find_each_other_again() {
    let mut world = World::joined(10);
    let pairs: Vec<(usize, usize)> = (0..5).flat_map(|a| (5..10).map(move |b| (a, b))).collect();
    world.cut.extend(pairs.iter().copied());
    let half: Vec<usize> = (0..5).collect();
    assert!(world.run(Duration::from_secs(20), |world| world.agree_on(&half)).is_some());
    for (a, b) in &pairs {
        world.unlink(*a, *b, false);
    }
    world.run(Duration::from_secs(30), |_| false);
    world.cut.clear();
    // The links' actors dial again what they have lost.
    for (a, b) in &pairs {
        world.link(*a, *b);
    }
    let all: Vec<usize> = (0..10).collect();
    assert!(world.run(Duration::from_secs(10), |world| world.agree_on(&all)).is_some());
}

#[test]
fn what_a_node_says_of_itself_reaches_all() {
    let mut world = World::joined(10);
    let described = Record { address: Some(address(6)), ..record(&["echo", "shell"]) };
    world.nodes.get_mut(&6).unwrap().describe(described).unwrap();
    world.nodes.get_mut(&6).unwrap().set_load(42);
    world.flush(6);
    let knows = |world: &World, at: usize| {
        let members = world.nodes[&at].members();
        members.iter().any(|member| member.offers("shell") && member.load == 42)
    };
    let all = |world: &World| (0..10).all(|at| knows(world, at));
    assert!(world.run(PULSE_PERIOD * 2, all).is_some());
}

#[test]
fn only_an_operator_drains_others() {
    let mut world = World::joined(3);
    let asks = |world: &mut World, from: usize| {
        world.nodes.get_mut(&from).unwrap().ask_to_drain(id(2), true).unwrap();
        world.flush(from);
        world.run(Duration::from_secs(1), |world| world.nodes[&2].record.draining)
    };
    assert_eq!(asks(&mut world, 1), None, "it has no role");
    assert!(asks(&mut world, 0).is_some());
}

#[test]
fn a_hostile_member_makes_us_dial_a_bounded_number_of_nodes_and_know_none() {
    let mut world = World::joined(3);
    let before = world.dials;
    let made_up = |nth: u64| Identity {
        node: NodeId::of_public_key(&[&nth.to_le_bytes()[..], b"made up"].concat()),
        start: 1,
        address: address(200),
    };
    for round in 0..200_u64 {
        let mut packet = Vec::new();
        let (src, dst) = (world.nodes[&1].own(), world.nodes[&2].own());
        let message = foca::Message::Gossip;
        let header = foca::Header { src, src_incarnation: 0, dst, message };
        foca::Codec::encode_header(&mut Layout, &header, &mut packet).unwrap();
        packet.extend_from_slice(&100_u16.to_be_bytes());
        for nth in 0..100 {
            let member = foca::Member::alive(made_up(round * 100 + nth));
            foca::Codec::encode_member(&mut Layout, &member, &mut packet).unwrap();
        }
        let victim = world.nodes.get_mut(&2).unwrap();
        victim.received(id(1), &Note::Swim(&packet).encode(), world.now).unwrap();
        assert!(victim.heard.len() <= MAX_HEARD && victim.known.len() == 2);
    }
    let long = HEARSAY_PAUSE * (HEARSAY_DIALS + 2);
    world.run(long, |_| false);
    assert!(world.nodes[&2].heard.is_empty(), "those who don't answer are forgotten");
    assert!(world.dials - before <= MAX_HEARD as u64 * u64::from(HEARSAY_DIALS + 1));
    assert!(world.agree_on(&[0, 1, 2]));
}

#[test]
fn a_hostile_member_cannot_take_anothers_name_or_number() {
    let mut world = World::joined(4);
    let (src, dst) = (world.nodes[&1].own(), world.nodes[&2].own());
    let packet = |header: foca::Header<Identity>, members: &[foca::Member<Identity>]| {
        let mut packet = Vec::new();
        foca::Codec::encode_header(&mut Layout, &header, &mut packet).unwrap();
        packet.extend_from_slice(&u16::try_from(members.len()).unwrap().to_be_bytes());
        for member in members {
            foca::Codec::encode_member(&mut Layout, member, &mut packet).unwrap();
        }
        Note::Swim(&packet).encode()
    };
    let header =
        |src| foca::Header { src, src_incarnation: 0, dst, message: foca::Message::Gossip };
    let third = world.nodes[&3].own();
    let now = world.now;
    let victim = world.nodes.get_mut(&2).unwrap();
    let spoofed = victim.received(id(1), &packet(header(third), &[]), now);
    assert!(matches!(spoofed, Err(GossipError::Packet(_))));
    let displaced = Identity { start: u64::MAX, address: address(200), ..third };
    let said = packet(header(src), &[foca::Member::alive(displaced)]);
    victim.received(id(1), &said, now).unwrap();
    assert_eq!(victim.known[&id(3)].start, third.start);
    // Said to be dead, a node objects.
    let said = packet(header(src), &[foca::Member::down(third)]);
    victim.received(id(1), &said, now).unwrap();
    world.flush(2);
    let back = world.run(Duration::from_secs(5), |world| world.agree_on(&[0, 1, 2, 3]));
    assert!(back.is_some(), "it never came back");
    // Nor can it use up the numbers of a start.
    let victim = world.nodes.get_mut(&2).unwrap();
    victim.received(id(1), &Note::Later { start: u64::MAX }.encode(), now).unwrap();
    assert!(victim.own().start < 100);
}

#[test]
fn a_member_that_speaks_of_later_starts_all_the_time_makes_a_node_tell_of_itself_now_and_then() {
    let mut world = World::joined(4);
    let mut now = world.now;
    let victim = world.nodes.get_mut(&2).unwrap();
    let said = |victim: &mut Gossip, from: usize, now: Moment| {
        let start = victim.own().start;
        victim.outputs();
        victim.received(id(from), &Note::Later { start }.encode(), now).unwrap();
        assert_eq!(victim.own().start == start, victim.outputs().is_empty());
        victim.own().start - start
    };
    for _ in 0..3 {
        let rose: u64 = (0..100).map(|_| said(victim, 1, now)).sum();
        assert_eq!(rose, 1);
        assert_eq!(said(victim, 3, now), 1, "another one is heeded");
        now = now + OBJECTION_PAUSE;
    }
}

#[test]
fn whatever_a_member_says_of_its_start_a_node_is_back_after_the_next() {
    for said in [u64::MAX, u64::MAX / 2, 1 + SET_BACK_MS, SET_BACK_MS] {
        let mut world = World::joined(4);
        let now = world.now;
        let victim = world.nodes.get_mut(&2).unwrap();
        victim.received(id(1), &Note::Later { start: said }.encode(), now).unwrap();
        world.flush(2);
        world.run(Duration::from_secs(5), |world| world.agree_on(&[0, 1, 2, 3]));
        world.dead.insert(2);
        world.run(Duration::from_secs(30), |_| false);
        for other in [0, 1, 3] {
            world.unlink(2, other, false);
        }
        world.start(2, 30_001);
        for peer in [0, 1, 3] {
            world.link(2, peer);
        }
        let back = world.run(Duration::from_secs(10), |world| world.agree_on(&[0, 1, 2, 3]));
        assert!(back.is_some(), "{said} keeps it out");
    }
}

#[test]
fn gossip_of_an_idle_cluster_is_small() {
    let mut world = World::joined(NODES);
    world.run(Duration::from_secs(30), |_| false);
    let (sent, bytes) = (world.sent, world.bytes);
    world.run(Duration::from_mins(1), |_| false);
    let per_node = |sum: u64| sum / (60 * NODES as u64);
    let (sent, bytes) = (per_node(world.sent - sent), per_node(world.bytes - bytes));
    // Four packets of a probe twice a second, and a pulse for each peer every two.
    assert!(sent <= 40 && bytes <= 4_096, "{sent} messages and {bytes} bytes a second");
}

/// A list of this serial with so many bytes.
fn list(serial: u64, bytes: usize) -> Arc<str> {
    let text = serial.to_string();
    (text.clone() + &" ".repeat(bytes - text.len())).into()
}

fn know_list(world: &World, serial: u64) -> bool {
    world.nodes.values().all(|gossip| gossip.serial() == serial)
}

#[test]
fn a_long_list_of_revoked_nodes_reaches_all_and_each_hears_it_about_once() {
    let mut world = World::joined(20);
    for (serial, bytes) in [(1, 100), (2, 2 * MAX_GOSSIP_BYTES)] {
        world.lists_sent = 0;
        let now = world.now;
        let first = world.nodes.get_mut(&3).unwrap();
        first.shell.now = now;
        first.revoked(serial, list(serial, bytes));
        world.flush(3);
        let took = world.run(Duration::from_secs(30), |world| know_list(world, serial));
        assert!(took.is_some_and(|took| took < Duration::from_secs(1)), "{serial}: {took:?}");
    }
    assert!(world.lists_sent < 2 * 20, "{}", world.lists_sent);
    // Who comes later has it as well.
    world.start(20, 1);
    world.link(20, 7);
    assert!(world.run(Duration::from_secs(5), |world| know_list(world, 2)).is_some());
}

#[test]
fn a_list_that_is_lost_is_asked_for_again() {
    for bytes in [100, 2 * MAX_GOSSIP_BYTES] {
        let mut world = World::joined(5);
        world.lists_lost = 12;
        world.loss = 0.2;
        world.nodes.get_mut(&0).unwrap().revoked(7, list(7, bytes));
        world.flush(0);
        let all = world.run(Duration::from_mins(1), |world| know_list(world, 7));
        assert!(all.is_some() && world.lists_sent > 12, "{bytes}: {}", world.lists_sent);
    }
}

#[test]
fn who_only_says_that_it_has_a_newer_list_keeps_nobody_from_it() {
    let mut world = World::joined(3);
    let liar = Note::Pulse { start: 1, version: 1, load: 0, list: Some(u64::MAX) }.encode();
    world.nodes.get_mut(&0).unwrap().revoked(7, list(7, 2 * MAX_GOSSIP_BYTES));
    // Its words are the only ones that arrive until later.
    world.nodes.get_mut(&0).unwrap().outputs();
    let deadline = world.now + Duration::from_secs(20);
    while world.nodes[&1].serial() != 7 {
        assert!(world.now < deadline);
        let now = world.now;
        world.nodes.get_mut(&1).unwrap().received(id(2), &liar, now).unwrap();
        world.flush(1);
        world.run(Duration::from_millis(100), |_| false);
    }
}

#[test]
fn an_older_member_is_sent_what_it_understands() {
    let mut world = World::new(2);
    world.protocol = LISTS_SINCE - 1;
    world.link(0, 1);
    world.run(Duration::from_secs(1), |_| false);
    let gossip = world.nodes.get_mut(&0).unwrap();
    gossip.revoked(1, list(1, 100));
    gossip.revoked(2, list(2, 2 * MAX_GOSSIP_BYTES));
    gossip.pulse(id(1));
    let kinds: Vec<(u8, usize)> = gossip
        .outputs()
        .into_iter()
        .filter_map(|output| match output {
            Output::Send { bytes, .. } => Some((bytes[0], bytes.len())),
            _ => None,
        })
        .collect();
    assert_eq!(kinds, [(LIST, 101), (3, 21), (3, 21)]);
}
