//! What comes after an attempt at a notification: pure.

use std::time::Duration;

use crate::limits::{PUSH_AGE, PUSH_ATTEMPTS, PUSH_BACKOFF};

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// The receiver has answered with this status, and may have said when to come again.
    Answered { status: u16, again_after: Option<Duration> },
    /// Nobody has answered, or not in time.
    Unanswered,
    /// The address must not be connected to, or can't be read.
    Forbidden,
}

/// What to do then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It's there.
    Delivered,
    /// Try again after this time.
    Again(Duration),
    /// This one isn't taken; go on with the next.
    Skip,
    /// Send nothing there any more.
    End,
}

/// Decides, after attempt number `nth` (from 1) at a notification that is `age` old. `jitter` in 0..=1.
pub(super) fn decide(attempt: Attempt, nth: u32, age: Duration, jitter: f64) -> Next {
    let again_after = match attempt {
        Attempt::Answered { status: 200..=299, .. } => return Next::Delivered,
        // The receiver asks not to be told any more.
        Attempt::Answered { status: 410, .. } | Attempt::Forbidden => return Next::End,
        Attempt::Answered { status: 408 | 425 | 429 | 500..=599, again_after } => again_after,
        // A redirection isn't followed: it would lead where nobody has looked.
        Attempt::Answered { .. } => return Next::Skip,
        Attempt::Unanswered => None,
    };
    let pause = PUSH_BACKOFF.delay(nth, jitter).max(again_after.unwrap_or_default());
    if nth >= PUSH_ATTEMPTS || age.saturating_add(pause) > PUSH_AGE {
        return Next::Skip;
    }
    Next::Again(pause)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16) -> Attempt {
        Attempt::Answered { status, again_after: None }
    }

    #[test]
    fn what_may_pass_is_tried_again_and_what_will_not_is_not() {
        let young = Duration::ZERO;
        for status in [200, 202, 204] {
            assert_eq!(decide(answered(status), 1, young, 0.0), Next::Delivered, "{status}");
        }
        for status in [301, 302, 307, 308, 400, 401, 404] {
            assert_eq!(decide(answered(status), 1, young, 0.0), Next::Skip, "{status}");
        }
        assert_eq!(decide(answered(410), 1, young, 0.0), Next::End);
        assert_eq!(decide(Attempt::Forbidden, 1, young, 0.0), Next::End);
        for attempt in [answered(500), answered(503), answered(429), Attempt::Unanswered] {
            let first = decide(attempt, 1, young, 0.0);
            assert_eq!(first, Next::Again(PUSH_BACKOFF.first), "{attempt:?}");
            assert_eq!(decide(attempt, 3, young, 0.0), Next::Again(PUSH_BACKOFF.first * 4));
            assert_eq!(decide(attempt, 1, young, 1.0), Next::Again(PUSH_BACKOFF.first / 2));
        }
    }

    #[test]
    fn it_ends_after_so_many_attempts_or_so_long() {
        assert_eq!(decide(Attempt::Unanswered, PUSH_ATTEMPTS, Duration::ZERO, 0.0), Next::Skip);
        assert_eq!(decide(Attempt::Unanswered, 1, PUSH_AGE, 0.0), Next::Skip);
        let soon = Attempt::Answered { status: 503, again_after: Some(Duration::from_secs(9)) };
        assert_eq!(decide(soon, 1, Duration::ZERO, 0.0), Next::Again(Duration::from_secs(9)));
        let never = Attempt::Answered { status: 503, again_after: Some(PUSH_AGE * 2) };
        assert_eq!(decide(never, 1, Duration::ZERO, 0.0), Next::Skip);
    }
}
