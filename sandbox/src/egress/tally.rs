//! What a cell has used so far: bytes, connections, decisions.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use super::{
    reason::EgressVerdict,
    report::{Decision, EgressReport},
};
use crate::limits;

/// Shared by a proxy's connections and whoever reads the report.
#[derive(Debug)]
pub(crate) struct Tally {
    cell: String,
    pub(crate) up: Counter,
    pub(crate) down: Counter,
    pub(crate) connections: Counter,
    kept: Mutex<EgressReport>,
}

impl Tally {
    pub(crate) fn of(cell: String) -> Self {
        Self {
            cell,
            up: Counter::default(),
            down: Counter::default(),
            connections: Counter::default(),
            kept: Mutex::default(),
        }
    }

    /// Logs, counts and keeps a decision.
    pub(crate) fn record(&self, decision: Decision) {
        let verdict = decision.verdict();
        tracing::info!(
            target: "neuroflow::egress",
            cell = %self.cell,
            host = %decision.host,
            port = decision.port,
            method = %decision.method,
            path = decision.path.as_deref().unwrap_or_default(),
            verdict = %verdict,
            reason = decision.reason.code(),
            bytes_up = decision.bytes_up,
            bytes_down = decision.bytes_down,
            "egress"
        );
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        *kept.counts.entry(decision.reason).or_default() += 1;
        if verdict == EgressVerdict::Denied {
            kept.denied += 1;
        } else {
            kept.allowed += 1;
        }
        if kept.decisions.len() < limits::EGRESS_DECISIONS {
            kept.decisions.push(decision);
        } else {
            kept.dropped += 1;
        }
    }

    /// Everything so far. Bytes of running connections are counted, their decisions come at their
    /// end.
    pub(crate) fn report(&self) -> EgressReport {
        let mut report = self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
        report.bytes_up = self.up.get();
        report.bytes_down = self.down.get();
        report
    }
}

/// A number with an upper bound, of which parts are taken in advance.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Adds as much of `wanted` as fits below `most`, and says how much that was.
    pub(crate) fn take(&self, wanted: u64, most: u64) -> u64 {
        let mut taken = 0;
        let _before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            taken = wanted.min(most.saturating_sub(used));
            Some(used.saturating_add(taken))
        });
        taken
    }

    /// Returns what was taken and not used.
    pub(crate) fn give_back(&self, unused: u64) {
        self.0.fetch_sub(unused, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::egress::EgressReason;

    #[test]
    fn a_counter_never_passes_its_bound() {
        let counter = Counter::default();
        assert_eq!(counter.take(7, 10), 7);
        assert_eq!(counter.take(7, 10), 3);
        assert_eq!(counter.take(1, 10), 0);
        counter.give_back(2);
        assert_eq!(counter.take(7, 10), 2);
        assert_eq!(counter.get(), 10);
        assert_eq!(counter.take(1, 5), 0);
    }

    #[test]
    fn the_newest_decisions_are_dropped_and_counted() {
        let tally = Tally::of("c".to_owned());
        let decision = |port| Decision {
            host: "a.example".to_owned(),
            port,
            method: "GET".to_owned(),
            path: None,
            rule: None,
            address: None,
            reason: if port % 2 == 0 { EgressReason::Host } else { EgressReason::Idle },
            bytes_up: 0,
            bytes_down: 0,
        };
        let most = u16::try_from(limits::EGRESS_DECISIONS).unwrap();
        for port in 0..most + 6 {
            tally.record(decision(port));
        }
        let report = tally.report();
        assert_eq!(report.decisions.len(), limits::EGRESS_DECISIONS);
        assert_eq!(report.decisions[0].port, 0);
        assert_eq!(report.dropped, 6);
        assert_eq!(report.allowed + report.denied, u64::from(most) + 6);
        assert_eq!(report.denied, u64::from(most) / 2 + 3);
        let (host, idle) = (EgressReason::Host, EgressReason::Idle);
        assert_eq!(report.counts, BTreeMap::from([(host, report.denied), (idle, report.allowed)]));
    }
}
