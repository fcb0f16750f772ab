//! How much may be in flight: what cubic allows, as long as packets don't wait for one another.
//!
//! Cubic alone fills whatever queue there is, the receiver's socket included, and a small message
//! waits behind it however urgent its stream is. So a second bound falls when all packets of a round
//! trip took longer than the path needs, and rises when they didn't.
//!
//! A round trip takes longer for other reasons, too: a receiver that sleeps between two bursts has to be
//! woken. Less in flight makes that worse, so the bound has a floor that carries a fast path through it.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};
use quinn_proto::RttEstimator;

use crate::limits::{BEST_TRIP_LIFE, IN_FLIGHT_BYTES, QUEUEING};

/// Makes a controller per connection.
#[derive(Debug, Default)]
pub(super) struct PromptConfig(Arc<CubicConfig>);

impl ControllerFactory for PromptConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let cubic = Arc::clone(&self.0).build(now, current_mtu);
        Box::new(Prompt { cubic, bound: Bound::new(), round: now, epoch: now })
    }
}

/// Cubic within a bound.
struct Prompt {
    cubic: Box<dyn Controller>,
    bound: Bound,
    /// When the present round trip began: what was sent later belongs to it.
    round: Instant,
    /// Since when round trips are compared.
    epoch: Instant,
}

impl Controller for Prompt {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.cubic.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.bound.sample(now.saturating_duration_since(sent));
        if sent >= self.round {
            self.bound.end_round(self.cubic.window(), app_limited);
            self.round = now;
            if now.saturating_duration_since(self.epoch) > BEST_TRIP_LIFE {
                self.bound.begin_epoch();
                self.epoch = now;
            }
        }
        // Cubic doesn't grow by what it didn't decide.
        let bounded = self.bound.bytes < self.cubic.window();
        self.cubic.on_ack(now, sent, bytes, app_limited || bounded, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.cubic.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.cubic.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.cubic.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.cubic.window().min(self.bound.bytes)
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = self.cubic.metrics();
        metrics.congestion_window = self.window();
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        let Self { cubic, bound, round, epoch } = self;
        Box::new(Self { cubic: cubic.clone_box(), bound: *bound, round: *round, epoch: *epoch })
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// The bound alone, without clock and packets.
#[derive(Clone, Copy, Debug)]
struct Bound {
    bytes: u64,
    /// The quickest packet of the present round trip: late acknowledgements aren't queues.
    quickest: Duration,
    /// The quickest one of this epoch and of the one before.
    best: [Duration; 2],
    /// It has never fallen, so it's doubled.
    young: bool,
}

impl Bound {
    fn new() -> Self {
        Self {
            bytes: IN_FLIGHT_BYTES,
            quickest: Duration::MAX,
            best: [Duration::MAX; 2],
            young: true,
        }
    }

    fn sample(&mut self, took: Duration) {
        self.quickest = self.quickest.min(took);
    }

    /// What was best before the last epoch counts no more.
    fn begin_epoch(&mut self) {
        self.best = [Duration::MAX, self.best[0]];
        self.bytes = self.bytes.min(IN_FLIGHT_BYTES);
        self.young = true;
    }

    /// A round trip is over.
    fn end_round(&mut self, window: u64, app_limited: bool) {
        let quickest = std::mem::replace(&mut self.quickest, Duration::MAX);
        self.best[0] = self.best[0].min(quickest);
        let least = self.best[0].min(self.best[1]);
        let goal = least.saturating_add(QUEUEING.max(least / 4));
        if quickest > goal {
            self.bytes = (self.bytes.min(window) / 4 * 3).max(IN_FLIGHT_BYTES);
            self.young = false;
        } else if !app_limited && self.bytes <= window {
            let more = if self.young { self.bytes } else { self.bytes / 4 };
            self.bytes = self.bytes.saturating_add(more);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes in flight after so many round trips on a path that takes `least` and carries so many
    /// bytes a millisecond.
    fn after(rounds: u32, least: Duration, bytes_per_ms: u64) -> u64 {
        let mut bound = Bound::new();
        // The handshake waits for nobody.
        bound.sample(least);
        bound.end_round(u64::MAX, true);
        for _ in 0..rounds {
            let sending = Duration::from_micros(bound.bytes * 1_000 / bytes_per_ms);
            bound.sample(sending.max(least) + Duration::from_millis(25));
            bound.sample(sending.max(least));
            bound.end_round(u64::MAX, false);
        }
        bound.bytes
    }

    #[test]
    fn a_long_fast_path_is_filled_and_a_queue_is_kept_short() {
        let megabytes = |bytes: u64| bytes / 1_000_000;
        // 100 ms at 1 GB/s hold 100 MB, which it reaches within a dozen round trips.
        for rounds in [13, 60] {
            let long = after(rounds, Duration::from_millis(100), 1_000_000);
            assert!((90..270).contains(&megabytes(long)), "{long}");
        }
        // The same speed next door holds what is sent in the goal's time.
        let near = after(60, Duration::from_micros(50), 1_000_000);
        assert!((100_000..200_000).contains(&near), "{near}");
        // A slow neighbour has the least.
        assert_eq!(after(60, Duration::from_micros(50), 10_000), IN_FLIGHT_BYTES);
    }

    #[test]
    fn a_path_that_has_become_longer_is_filled_after_an_epoch_or_two() {
        let mut bound = Bound::new();
        let rounds = |bound: &mut Bound, took: u64| {
            for _ in 0..12 {
                bound.sample(Duration::from_millis(took));
                bound.end_round(10_000_000, false);
            }
            bound.bytes
        };
        assert!(rounds(&mut bound, 1) > 10_000_000);
        assert!(rounds(&mut bound, 80) < 1_000_000);
        bound.begin_epoch();
        assert_eq!(rounds(&mut bound, 80), IN_FLIGHT_BYTES);
        bound.begin_epoch();
        assert!(rounds(&mut bound, 80) > 10_000_000);
    }

    #[test]
    fn what_nobody_uses_does_not_grow() {
        let mut bound = Bound::new();
        for (window, app_limited) in [(u64::MAX, true), (IN_FLIGHT_BYTES - 1, false)] {
            bound.sample(Duration::from_micros(60));
            bound.end_round(window, app_limited);
            assert_eq!(bound.bytes, IN_FLIGHT_BYTES);
        }
    }
}
