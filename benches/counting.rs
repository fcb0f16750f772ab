//! An observer that counts what telemetry counts, so that every figure includes being watched.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use neuroflow::kernel::{KindObserver, Lifecycle, Observer, Outcome, Span, Timing};

/// Outcomes, and two histograms of the sampled times.
#[derive(Debug, Default)]
pub(crate) struct Counting {
    lifecycle: AtomicU64,
    messages: Arc<Messages>,
}

#[derive(Debug, Default)]
struct Messages {
    ok: AtomicU64,
    other: AtomicU64,
    waited: Histogram,
    handled: Histogram,
}

impl Counting {
    /// Messages that were handled without an error.
    pub(crate) fn handled(&self) -> u64 {
        self.messages.ok.load(Ordering::Relaxed)
    }
}

impl Observer for Counting {
    fn lifecycle(&self, _event: &Lifecycle<'_>) {
        self.lifecycle.fetch_add(1, Ordering::Relaxed);
    }

    fn kind(&self, _kind: &'static str) -> Arc<dyn KindObserver> {
        Arc::clone(&self.messages) as Arc<dyn KindObserver>
    }

    fn span(&self, _span: &Span) {}
}

impl KindObserver for Messages {
    fn handled(&self, _message: &'static str, outcome: Outcome, timing: Option<Timing>) {
        let counter = if outcome == Outcome::Ok { &self.ok } else { &self.other };
        counter.fetch_add(1, Ordering::Relaxed);
        if let Some(timing) = timing {
            self.waited.record(timing.waited);
            self.handled.record(timing.handled);
        }
    }
}

#[derive(Debug, Default)]
struct Histogram {
    /// By the binary order of magnitude of the nanoseconds.
    buckets: [AtomicU64; 32],
    sum: AtomicU64,
}

impl Histogram {
    fn record(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let order = usize::try_from(nanos.max(1).ilog2()).unwrap_or_default();
        self.buckets[order.min(self.buckets.len() - 1)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(nanos, Ordering::Relaxed);
    }
}
