//! What `foca` is set up with and runs in: its timers and packets, kept until they are done.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use foca::{Config, Notification, PeriodicParams, Runtime, Timer};
use neuroflow_kernel::Moment;

use super::super::record::Note;
use super::super::swim::Identity;
use crate::identity::NodeId;
use crate::limits::{
    FORGET_DEAD, GOSSIP_PERIOD, MAX_GOSSIP_BYTES, PROBE_PERIOD, PROBE_RTT, SUSPICION,
};

/// How `foca` is set up.
pub(super) fn config() -> Config {
    let periodic = |frequency, members| PeriodicParams { frequency, num_members: count(members) };
    Config {
        probe_period: PROBE_PERIOD,
        probe_rtt: PROBE_RTT,
        num_indirect_probes: count(3),
        max_transmissions: NonZeroU8::MIN.saturating_add(9),
        suspect_to_down_after: SUSPICION,
        remove_down_after: Some(FORGET_DEAD),
        max_packet_size: count(MAX_GOSSIP_BYTES - 1),
        notify_down_members: true,
        periodic_announce: Some(periodic(Duration::from_secs(10), 1)),
        periodic_announce_to_down_members: None,
        periodic_gossip: Some(periodic(GOSSIP_PERIOD, 3)),
    }
}

fn count(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN)
}

/// What foca asks for, until it's done.
pub(super) struct Shell {
    pub(super) now: Moment,
    timers: BinaryHeap<Reverse<Due>>,
    numbers: u64,
    /// What is to be sent, and to whom.
    pub(super) packets: Vec<(NodeId, Vec<u8>)>,
    /// Whether somebody stands otherwise than before.
    pub(super) changed: bool,
    /// Whether this node has objected to being dead, as another one of itself.
    pub(super) renewed: bool,
}

impl Shell {
    pub(super) fn new(now: Moment) -> Self {
        let (timers, packets) = (BinaryHeap::new(), Vec::new());
        Self { now, timers, numbers: 0, packets, changed: false, renewed: false }
    }

    /// The moment of the next timer.
    pub(super) fn next(&self) -> Option<Moment> {
        self.timers.peek().map(|Reverse(due)| due.at)
    }

    /// A timer whose moment has come.
    pub(super) fn due(&mut self) -> Option<Timer<Identity>> {
        let Reverse(due) = self.timers.peek()?;
        if due.at > self.now {
            return None;
        }
        self.timers.pop().map(|Reverse(due)| due.timer)
    }
}

impl Runtime<Identity> for Shell {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        self.renewed |= matches!(notification, Notification::Rejoin(_));
        self.changed = true;
    }

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        self.packets.push((to.node, Note::Swim(data).encode()));
    }

    fn submit_after(&mut self, timer: Timer<Identity>, after: Duration) {
        self.numbers += 1;
        let due = Due { at: self.now + after, number: self.numbers, timer };
        self.timers.push(Reverse(due));
    }
}

/// A timer of foca's, by moment and then in the order in which they were set.
struct Due {
    at: Moment,
    number: u64,
    timer: Timer<Identity>,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}
