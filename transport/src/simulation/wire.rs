//! What travels between hosts, and what becomes of it on the way.

use std::time::Duration;

use rand::RngExt;

use super::{Event, World};

/// What happens to packets in one direction.
#[derive(Clone, Copy, Default)]
pub(super) struct Path {
    pub(super) cut: bool,
    pub(super) loss: f64,
    pub(super) double: f64,
    pub(super) delay: Duration,
    /// Up to this much more, so that packets overtake one another.
    pub(super) jitter: Duration,
}

/// A packet of a connection.
#[derive(Clone)]
pub(super) enum Packet {
    Dial {
        connection: u64,
        from: usize,
        life: u64,
    },
    Accept {
        connection: u64,
        from: usize,
        life: u64,
    },
    /// The acceptor's own dial stays.
    Superseded {
        connection: u64,
        from: usize,
    },
    Closed {
        connection: u64,
        from: usize,
    },
    /// A lost one isn't sent again.
    Ping {
        connection: u64,
        from: usize,
    },
    Gossip {
        connection: u64,
        from: usize,
        bytes: Vec<u8>,
    },
    /// A piece of the lane's stream.
    Piece {
        connection: u64,
        from: usize,
        number: u64,
        bytes: Vec<u8>,
    },
    /// On a stream of its own, of which this is all.
    Alone {
        connection: u64,
        from: usize,
        number: u64,
        kind: Alone,
        bytes: Vec<u8>,
    },
}

/// What has a stream of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Alone {
    Message,
    Gossip,
}

impl Packet {
    pub(super) fn connection(&self) -> u64 {
        match self {
            Self::Dial { connection, .. }
            | Self::Accept { connection, .. }
            | Self::Superseded { connection, .. }
            | Self::Closed { connection, .. }
            | Self::Ping { connection, .. }
            | Self::Gossip { connection, .. }
            | Self::Piece { connection, .. }
            | Self::Alone { connection, .. } => *connection,
        }
    }

    pub(super) fn from(&self) -> usize {
        match self {
            Self::Dial { from, .. }
            | Self::Accept { from, .. }
            | Self::Superseded { from, .. }
            | Self::Closed { from, .. }
            | Self::Ping { from, .. }
            | Self::Gossip { from, .. }
            | Self::Piece { from, .. }
            | Self::Alone { from, .. } => *from,
        }
    }

    /// Whether it's sent again until it arrives or its connection ends.
    fn is_reliable(&self) -> bool {
        matches!(self, Self::Piece { .. } | Self::Alone { .. })
    }
}

/// How long each packet takes at least.
const WIRE: Duration = Duration::from_micros(300);

/// How long it takes to find out that a packet is lost, at first and at most.
const RESEND: Duration = Duration::from_millis(150);
const RESEND_MOST: u32 = 3;

impl World {
    pub(super) fn send(&mut self, from: usize, to: usize, packet: Packet, tries: u32) {
        let path = self.paths.get(&(from, to)).copied().unwrap_or_default();
        self.hosts[from].has_spoken(to, self.now);
        if path.cut || self.falls(path.loss) {
            if packet.is_reliable() {
                let wait = RESEND * 2_u32.pow(tries.min(RESEND_MOST));
                self.after(wait, Event::Again { from, to, packet, tries: tries + 1 });
            }
            return;
        }
        let copies = 1 + u32::from(self.falls(path.double));
        for _ in 0..copies {
            let jitter = self.random.random_range(Duration::ZERO..=path.jitter);
            let takes = WIRE + path.delay + jitter;
            self.after(takes, Event::Arrives { to, packet: packet.clone() });
        }
    }
}
