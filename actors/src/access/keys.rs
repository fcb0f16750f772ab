//! When an issuer's keys are read: a state without I/O.

use std::time::Duration;

use neuroflow_kernel::Moment;

use crate::limits::{ISSUER_BACKOFF, ISSUER_BACKOFF_MOST, ISSUER_REFRESH, UNKNOWN_KEY_PAUSE};

/// What came of reading them.
#[cfg(feature = "access")]
pub(crate) type Outcome = Result<super::jwks::KeySet, super::jwks::DiscoveryError>;
/// Nothing is ever read.
#[cfg(not(feature = "access"))]
pub(crate) type Outcome = std::convert::Infallible;

/// When to read the keys next.
#[derive(Debug)]
pub(super) struct Schedule {
    next: Moment,
    last: Option<Moment>,
    failures: u32,
    is_reading: bool,
}

#[cfg_attr(not(feature = "access"), expect(dead_code, reason = "issuers need the feature"))]
impl Schedule {
    /// Now, for the first time.
    pub(super) fn new(now: Moment) -> Self {
        Self { next: now, last: None, failures: 0, is_reading: false }
    }

    /// Whether it's time; if so, the caller reads them.
    pub(super) fn begin_if_due(&mut self, now: Moment) -> bool {
        let is_due = !self.is_reading && now >= self.next;
        self.begin_if(is_due, now)
    }

    /// Whether a key that isn't known is a reason to read them now; if so, the caller does.
    pub(super) fn begin_for_unknown(&mut self, now: Moment) -> bool {
        let rested = self.last.is_none_or(|last| now.since(last) >= UNKNOWN_KEY_PAUSE);
        // After failures the pause is the longer one.
        let allowed = self.failures == 0 || now >= self.next;
        self.begin_if(!self.is_reading && rested && allowed, now)
    }

    fn begin_if(&mut self, begin: bool, now: Moment) -> bool {
        if begin {
            self.is_reading = true;
            self.last = Some(now);
        }
        begin
    }

    pub(super) fn is_reading(&self) -> bool {
        self.is_reading
    }

    pub(super) fn succeeded(&mut self, now: Moment) {
        (self.is_reading, self.failures, self.next) = (false, 0, now + ISSUER_REFRESH);
    }

    pub(super) fn failed(&mut self, now: Moment) {
        let doubled = ISSUER_BACKOFF.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(0));
        let pause = if doubled.is_zero() { ISSUER_BACKOFF_MOST } else { doubled };
        self.is_reading = false;
        self.failures = self.failures.saturating_add(1);
        self.next = now + pause.min(ISSUER_BACKOFF_MOST).max(Duration::from_millis(1));
    }
}

#[cfg(all(test, feature = "access"))]
mod tests {
    use super::*;

    const START: Moment = Moment::ORIGIN;

    #[test]
    fn keys_are_read_at_once_then_every_hour() {
        let mut schedule = Schedule::new(START);
        assert!(schedule.begin_if_due(START));
        assert!(!schedule.begin_if_due(START), "one reading at a time");
        schedule.succeeded(START);
        assert!(
            !schedule.begin_if_due(START + ISSUER_REFRESH.saturating_sub(Duration::from_secs(1)))
        );
        assert!(schedule.begin_if_due(START + ISSUER_REFRESH));
    }

    #[test]
    fn failures_wait_longer_each_time_and_never_for_ever() {
        let mut schedule = Schedule::new(START);
        let mut now = START;
        let mut pauses = Vec::new();
        for _ in 0..40 {
            assert!(schedule.begin_if_due(now));
            schedule.failed(now);
            pauses.push(schedule.next.since(now));
            now = schedule.next;
        }
        assert_eq!(pauses[..3], [1, 2, 4].map(Duration::from_secs));
        assert!(pauses.is_sorted());
        assert_eq!(pauses[39], ISSUER_BACKOFF_MOST);
    }

    #[test]
    fn unknown_keys_cost_the_issuer_little() {
        let mut schedule = Schedule::new(START);
        assert!(schedule.begin_if_due(START));
        schedule.succeeded(START);
        assert!(!schedule.begin_for_unknown(START + Duration::from_secs(9)));
        let later = START + UNKNOWN_KEY_PAUSE;
        assert!(schedule.begin_for_unknown(later));
        assert!(!schedule.begin_for_unknown(later + UNKNOWN_KEY_PAUSE), "one reading at a time");
        schedule.failed(later);
        let soon = later + UNKNOWN_KEY_PAUSE;
        assert!(schedule.begin_for_unknown(soon));
    }
}
