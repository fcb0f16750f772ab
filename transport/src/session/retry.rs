//! When a call with a key is sent again, and when that would be unsafe. No I/O and no clock.

use std::time::Duration;

use neuroflow_kernel::{Backoff, Moment};

use crate::limits::{KEYED_RETRY_MAX, KEYED_RETRY_MIN};

/// One call over all its tries.
#[derive(Debug)]
pub(crate) struct Retry {
    deadline: Moment,
    tries: u32,
    /// The start of the callee's node in which it may have run.
    ran: Option<u64>,
}

/// What became of a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tried {
    /// It surely didn't run, and may later.
    Later,
    /// It surely didn't run, and won't.
    Never,
    /// The answer is missing.
    Lost,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// To try again after this time.
    Again(Duration),
    /// To tell the caller.
    GiveUp,
}

const BACKOFF: Backoff = Backoff { first: KEYED_RETRY_MIN, max: KEYED_RETRY_MAX };

impl Retry {
    pub(crate) fn new(deadline: Moment) -> Self {
        Self { deadline, tries: 0, ran: None }
    }

    /// Whether a try in this start of the callee's node is safe: another start doesn't know what ran
    /// in the one before.
    pub(crate) fn is_safe_in(&self, incarnation: u64) -> bool {
        self.ran.is_none_or(|ran| ran == incarnation)
    }

    /// Whether it may have run.
    pub(crate) fn may_have_run(&self) -> bool {
        self.ran.is_some()
    }

    /// A try in this start of the callee's node has failed.
    pub(crate) fn failed(
        &mut self,
        tried: Tried,
        incarnation: u64,
        now: Moment,
        jitter: f64,
    ) -> Step {
        self.tries = self.tries.saturating_add(1);
        match tried {
            Tried::Never => return Step::GiveUp,
            Tried::Later => {}
            Tried::Lost => self.ran = self.ran.or(Some(incarnation)),
        }
        let wait = BACKOFF.delay(self.tries, jitter);
        if now + wait >= self.deadline { Step::GiveUp } else { Step::Again(wait) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment::ORIGIN;

    #[test]
    fn what_may_have_run_is_only_tried_again_where_that_is_known() {
        let mut retry = Retry::new(NOW + Duration::from_mins(1));
        assert!(matches!(retry.failed(Tried::Later, 1, NOW, 0.5), Step::Again(_)));
        assert!(retry.is_safe_in(2) && !retry.may_have_run());
        assert!(matches!(retry.failed(Tried::Lost, 2, NOW, 0.5), Step::Again(_)));
        assert!(retry.is_safe_in(2) && !retry.is_safe_in(3) && retry.may_have_run());
        // What comes later doesn't undo what may have been.
        assert!(matches!(retry.failed(Tried::Later, 2, NOW, 0.5), Step::Again(_)));
        assert!(retry.may_have_run());
        assert_eq!(retry.failed(Tried::Never, 2, NOW, 0.5), Step::GiveUp);
    }

    #[test]
    fn no_try_begins_after_the_deadline_and_waits_grow_up_to_a_bound() {
        let mut retry = Retry::new(NOW + Duration::from_secs(2));
        let (mut now, mut tries) = (NOW, 0);
        while let Step::Again(wait) = retry.failed(Tried::Later, 1, now, 0.5) {
            assert!(wait <= KEYED_RETRY_MAX);
            now = now + wait;
            tries += 1;
        }
        assert!(now < NOW + Duration::from_secs(2));
        assert!((3..100).contains(&tries), "{tries}");
    }
}
