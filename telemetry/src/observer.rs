//! The kernel's observer: counts messages and lives, logs lives, takes spans.
//!
//! It holds instruments only, never the census of the kernel that it watches: the kernel holds its
//! observer, and the two would keep each other alive for ever.

use std::sync::Arc;

use neuroflow_kernel::{KindObserver, Lifecycle, Observer, Outcome, Span, Timing};

use crate::export::Exporter;
use crate::family::Family;
use crate::instrument::{Counter, Histogram, MetricError};
use crate::instruments::Instruments;
use crate::lifecycle;
use crate::metrics::{
    ESCALATIONS, MAILBOX_WAIT, MESSAGE_HANDLE, MESSAGES_HANDLED, RESTARTS, STARTED, STOPPED,
};

#[derive(Debug)]
pub(crate) struct Recorder {
    handled: Family<Counter, 2>,
    waited: Family<Histogram, 1>,
    took: Family<Histogram, 1>,
    started: Family<Counter, 1>,
    stopped: Family<Counter, 2>,
    restarts: Family<Counter, 1>,
    escalations: Counter,
    exporter: Option<Arc<Exporter>>,
}

impl Recorder {
    pub(crate) fn new(
        instruments: &Instruments,
        exporter: Option<Arc<Exporter>>,
    ) -> Result<Self, MetricError> {
        Ok(Self {
            handled: instruments.register(&MESSAGES_HANDLED)?,
            waited: instruments.register(&MAILBOX_WAIT)?,
            took: instruments.register(&MESSAGE_HANDLE)?,
            started: instruments.register(&STARTED)?,
            stopped: instruments.register(&STOPPED)?,
            restarts: instruments.register(&RESTARTS)?,
            escalations: instruments.register(&ESCALATIONS)?.with([]),
            exporter,
        })
    }
}

impl Observer for Recorder {
    fn lifecycle(&self, event: &Lifecycle<'_>) {
        match event {
            Lifecycle::Started { actor } => self.started.with([actor.kind]).increment(),
            Lifecycle::Stopped { actor } => {
                self.stopped.with([actor.kind, STOPPED_REASON]).increment();
            }
            Lifecycle::Failed { actor, .. } => {
                self.stopped.with([actor.kind, FAILED_REASON]).increment();
            }
            Lifecycle::Killed { actor } => {
                self.stopped.with([actor.kind, KILLED_REASON]).increment();
            }
            Lifecycle::Restarted { kind, .. } => self.restarts.with([kind]).increment(),
            Lifecycle::Escalated { .. } => self.escalations.increment(),
            _ => {}
        }
        lifecycle::log(event);
    }

    fn kind(&self, kind: &'static str) -> Arc<dyn KindObserver> {
        // A rate needs a zero to start from.
        for reason in [STOPPED_REASON, FAILED_REASON, KILLED_REASON] {
            self.stopped.with([kind, reason]);
        }
        self.started.with([kind]);
        self.restarts.with([kind]);
        Arc::new(OfKind {
            handled: Outcome::ALL.map(|outcome| self.handled.with([kind, outcome.as_str()])),
            waited: self.waited.with([kind]),
            took: self.took.with([kind]),
        })
    }

    fn span(&self, span: &Span) {
        if let Some(exporter) = &self.exporter {
            exporter.take(span);
        }
    }
}

const STOPPED_REASON: &str = "stopped";
const FAILED_REASON: &str = "failed";
const KILLED_REASON: &str = "killed";

/// The instruments of one kind of actor, found once.
#[derive(Debug)]
struct OfKind {
    /// In the order of [`Outcome::ALL`].
    handled: [Counter; Outcome::ALL.len()],
    waited: Histogram,
    took: Histogram,
}

impl KindObserver for OfKind {
    fn handled(&self, _message: &'static str, outcome: Outcome, timing: Option<Timing>) {
        // The first is by far the most frequent.
        if let Some(at) = Outcome::ALL.iter().position(|known| *known == outcome) {
            self.handled[at].increment();
        }
        if let Some(timing) = timing {
            self.waited.record(timing.waited);
            self.took.record(timing.handled);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn messages_are_counted_by_kind_and_outcome() {
        let instruments = Instruments::new().unwrap();
        let recorder = Recorder::new(&instruments, None).unwrap();
        let agents = recorder.kind("agent");
        let timing = Timing { waited: Duration::from_micros(3), handled: Duration::from_secs(1) };
        agents.handled("ask", Outcome::Ok, Some(timing));
        agents.handled("ask", Outcome::Ok, None);
        agents.handled("ask", Outcome::Expired, None);
        let text = instruments.render().unwrap();
        let has = |line: &str| assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        has("neuroflow_actor_messages_handled_total{actor_kind=\"agent\",outcome=\"ok\"} 2");
        has("neuroflow_actor_messages_handled_total{actor_kind=\"agent\",outcome=\"expired\"} 1");
        has("neuroflow_actor_messages_handled_total{actor_kind=\"agent\",outcome=\"denied\"} 0");
        has("neuroflow_actor_mailbox_wait_seconds_count{actor_kind=\"agent\"} 1");
        has("neuroflow_actor_mailbox_wait_seconds_bucket{actor_kind=\"agent\",le=\"0.000005\"} 1");
        has("neuroflow_actor_message_handle_seconds_sum{actor_kind=\"agent\"} 1");
        has("neuroflow_actor_stopped_total{actor_kind=\"agent\",reason=\"killed\"} 0");
    }
}
