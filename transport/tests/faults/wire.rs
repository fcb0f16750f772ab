//! The wire between hosts: forwards datagrams, and loses, doubles, delays, reorders, damages and
//! replays them as told.
//!
//! It takes the place of a queueing discipline, which not every kernel has, and throws dice that a
//! seed repeats. Host `i` reaches host `j` through a door, a socket at the wire's address on the
//! network of `i`; what `j` gets comes from the door on its own network that leads back to `i`.
#![expect(clippy::disallowed_methods, reason = "a wire has no kernel and no supervisor")]

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use crate::hosts::{DOORS, PORT};
use crate::node::{line, number, say};

/// What happens to packets in one direction, in thousandths where nothing else is said.
#[derive(Clone, Copy, Default)]
struct Rules {
    loss: u64,
    double: u64,
    /// Late by some milliseconds, so that others overtake.
    reorder: u64,
    /// A bit is another.
    damage: u64,
    /// One from before follows.
    replay: u64,
    /// Milliseconds, for all.
    delay: u64,
    /// Bytes; what is larger is lost without a word.
    most: Option<u64>,
}

impl FromStr for Rules {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut rules = Self::default();
        for (name, value) in text.split_whitespace().filter_map(|rule| rule.split_once('=')) {
            let value = value.parse()?;
            match name {
                "loss" => rules.loss = value,
                "double" => rules.double = value,
                "reorder" => rules.reorder = value,
                "damage" => rules.damage = value,
                "replay" => rules.replay = value,
                "delay" => rules.delay = value,
                "most" => rules.most = Some(value),
                other => panic!("{other} isn't a rule"),
            }
        }
        Ok(rules)
    }
}

/// How much later a packet is that others overtake.
const OVERTAKEN_MS: u64 = 7;

/// Packets that may come again.
const REMEMBERED: usize = 64;

/// Packets under way with a delay, in one direction: what a slow line holds.
const UNDER_WAY: usize = 4_096;

/// The rules of a direction, and how many packets they have spoilt.
type Shared = Arc<Mutex<(Rules, u64)>>;

pub(crate) async fn run() {
    let hosts = u8::try_from(number("FAULTS_HOSTS")).expect("few hosts");
    let seed = number("FAULTS_SEED");
    let mut doors = HashMap::new();
    for (from, to) in pairs(hosts) {
        let address = SocketAddr::from(([10, 77, from, 1], DOORS + u16::from(to)));
        let socket = UdpSocket::bind(address).await.expect("a door");
        doors.insert((from, to), Arc::new(socket));
    }
    let (mut rules, mut wires) = (HashMap::new(), JoinSet::new());
    for (from, to) in pairs(hosts) {
        let shared = Shared::default();
        rules.insert((from, to), Arc::clone(&shared));
        let dice = Dice(seed ^ (u64::from(from) << 8 | u64::from(to)));
        let (source, target) = (Arc::clone(&doors[&(from, to)]), Arc::clone(&doors[&(to, from)]));
        let there = SocketAddr::from(([10, 77, to, 2], PORT));
        wires.spawn(forward(source, target, there, shared, dice));
    }
    say("up");
    while let Some(line) = line().await {
        let mut words = line.splitn(3, ' ');
        let mut host = || words.next().and_then(|word| word.parse().ok()).expect("a host");
        let direction: (u8, u8) = (host(), host());
        let new = words.next().unwrap_or_default().parse().expect("rules");
        let (_, spoilt) = std::mem::replace(&mut *rules[&direction].lock().unwrap(), (new, 0));
        say(&format!("spoilt={spoilt}"));
    }
}

fn pairs(hosts: u8) -> impl Iterator<Item = (u8, u8)> {
    (1..=hosts).flat_map(move |from| (1..=hosts).map(move |to| (from, to))).filter(|(a, b)| a != b)
}

async fn forward(
    source: Arc<UdpSocket>,
    target: Arc<UdpSocket>,
    there: SocketAddr,
    rules: Shared,
    mut dice: Dice,
) {
    let mut buffer = vec![0; 65_536];
    let mut before: VecDeque<Vec<u8>> = VecDeque::new();
    let mut late = JoinSet::new();
    loop {
        // An error tells of a host that was away.
        let Ok(bytes) = source.recv(&mut buffer).await else { continue };
        let (now, spoilt) = (rules.lock().unwrap().0, || rules.lock().unwrap().1 += 1);
        while late.try_join_next().is_some() {}
        let small = now.most.is_none_or(|most| bytes as u64 <= most);
        if !small || dice.falls(now.loss) {
            spoilt();
            continue;
        }
        let mut packet = buffer[..bytes].to_vec();
        if now.replay > 0 {
            before.push_back(packet.clone());
            if before.len() > REMEMBERED {
                before.pop_front();
            }
        }
        if dice.falls(now.damage) {
            let at = dice.below(bytes as u64);
            packet[at] ^= 1 << dice.below(8);
            spoilt();
        }
        let mut packets = vec![packet];
        if dice.falls(now.double) {
            packets.push(packets[0].clone());
            spoilt();
        }
        if dice.falls(now.replay) {
            packets.push(before[dice.below(before.len() as u64)].clone());
            spoilt();
        }
        for packet in packets {
            let overtaken = if dice.falls(now.reorder) { OVERTAKEN_MS } else { 0 };
            let delay = Duration::from_millis(now.delay + overtaken);
            if delay.is_zero() {
                let _away = target.send_to(&packet, there).await;
            } else if late.len() < UNDER_WAY {
                spoilt();
                let target = Arc::clone(&target);
                late.spawn(async move {
                    tokio::time::sleep(delay).await;
                    let _away = target.send_to(&packet, there).await;
                });
            }
        }
    }
}

/// Random numbers that a seed repeats (`SplitMix64`).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> usize {
        usize::try_from(self.roll() % bound.max(1)).expect("small")
    }

    /// Whether something happens that happens so often in a thousand times.
    fn falls(&mut self, thousandths: u64) -> bool {
        (self.below(1_000) as u64) < thousandths
    }
}
