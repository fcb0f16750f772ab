//! What a supervisor does when a child ends: a pure function of policy, history and event.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use crate::clock::Moment;

/// Whether a child is started again after it has ended.
///
/// ```
/// use neuroflow_kernel::Restart;
/// assert_eq!(Restart::default(), Restart::Permanent);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Restart {
    /// Always.
    #[default]
    Permanent,
    /// After a failure, not after a normal end.
    Transient,
    /// Never.
    Temporary,
}

/// Which children a failure of one takes along.
///
/// ```
/// use neuroflow_kernel::Strategy;
/// assert_eq!(Strategy::RestForOne.affected(1, 3), 1..3);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Strategy {
    /// Only the one that ended.
    #[default]
    OneForOne,
    /// All.
    OneForAll,
    /// The one that ended and those that were started after it.
    RestForOne,
}

impl Strategy {
    /// The positions, in start order, that a failure at `failed` of `count` children affects.
    pub fn affected(self, failed: usize, count: usize) -> std::ops::Range<usize> {
        match self {
            Self::OneForOne => failed..failed.saturating_add(1).min(count),
            Self::OneForAll => 0..count,
            Self::RestForOne => failed..count,
        }
    }
}

/// How many restarts a supervisor may do in how much time before it gives up itself.
///
/// ```
/// use std::time::Duration;
/// use neuroflow_kernel::Intensity;
/// let patient = Intensity { restarts: 10, within: Duration::from_secs(60) };
/// assert!(patient.restarts > Intensity::default().restarts);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intensity {
    /// Restarts that are allowed.
    pub restarts: u32,
    /// The time that they are counted over.
    pub within: Duration,
}

impl Default for Intensity {
    /// Three in five seconds: a fault that comes back that fast isn't healed by another restart.
    fn default() -> Self {
        Self { restarts: 3, within: Duration::from_secs(5) }
    }
}

/// How long to wait before a restart: doubled for each recent one, then spread by jitter.
///
/// ```
/// use std::time::Duration;
/// use neuroflow_kernel::Backoff;
/// let backoff = Backoff::default();
/// assert!(backoff.delay(1, 0.0) < backoff.delay(4, 0.0));
/// assert!(backoff.delay(40, 1.0) <= backoff.max);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The wait before the first restart.
    pub first: Duration,
    /// The longest wait.
    pub max: Duration,
}

impl Backoff {
    /// No wait: for children whose failures can't be caused by others.
    pub const NONE: Self = Self { first: Duration::ZERO, max: Duration::ZERO };

    /// The wait before recent restart number `nth` (from 1). `jitter` in 0..=1 takes away up to
    /// half of it, so that children that failed together don't come back together.
    pub fn delay(self, nth: u32, jitter: f64) -> Duration {
        let doublings = nth.saturating_sub(1).min(31);
        let full = self.first.saturating_mul(1 << doublings).min(self.max);
        let jitter = if jitter.is_finite() { jitter.clamp(0.0, 1.0) } else { 0.0 };
        // Half of it, then subtracted: the longest duration times 1.0 would overflow.
        full.saturating_sub(full.mul_f64(0.5 * jitter))
    }

    /// A random number in 0..=1 for [`delay`](Self::delay), which itself always says the same.
    ///
    /// ```
    /// use neuroflow_kernel::Backoff;
    /// let (backoff, jitter) = (Backoff::default(), Backoff::jitter());
    /// assert!((0.0..=1.0).contains(&jitter));
    /// assert!(backoff.delay(3, jitter) <= backoff.delay(3, 0.0));
    /// ```
    pub fn jitter() -> f64 {
        let bits = RandomState::new().build_hasher().finish();
        f64::from(u32::try_from(bits >> 32).unwrap_or_default()) / f64::from(u32::MAX)
    }
}

impl Default for Backoff {
    /// 10 ms to 5 s: shorter than a person notices, and longer than a busy port needs.
    fn default() -> Self {
        Self { first: Duration::from_millis(10), max: Duration::from_secs(5) }
    }
}

/// A supervisor's policy: plain data.
///
/// ```
/// use neuroflow_kernel::{RestartPolicy, Strategy};
/// let policy = RestartPolicy { strategy: Strategy::OneForAll, ..RestartPolicy::default() };
/// assert_eq!(policy.intensity.restarts, 3);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RestartPolicy {
    /// Whom a failure takes along.
    pub strategy: Strategy,
    /// When the supervisor gives up.
    pub intensity: Intensity,
    /// How long it waits before it restarts.
    pub backoff: Backoff,
}

/// A supervisor's recent restarts; it never holds more than the intensity allows.
///
/// ```
/// use neuroflow_kernel::RestartHistory;
/// assert_eq!(RestartHistory::default().recent(), 0);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestartHistory {
    times: VecDeque<Moment>,
}

impl RestartHistory {
    /// Restarts that still count.
    pub fn recent(&self) -> usize {
        self.times.len()
    }
}

/// How a child ended, as far as the decision cares.
///
/// ```
/// use neuroflow_kernel::ExitKind;
/// assert_ne!(ExitKind::Normal, ExitKind::Failed);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitKind {
    /// It stopped by itself or was asked to.
    Normal,
    /// It panicked, returned an error, was killed, or couldn't start.
    Failed,
}

/// What to do.
///
/// ```
/// use neuroflow_kernel::Decision;
/// assert_ne!(Decision::Forget, Decision::Escalate);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Let it be gone.
    Forget,
    /// Restart the affected children after a wait.
    Restart {
        /// The wait.
        after: Duration,
    },
    /// Too many restarts: stop everything and fail.
    Escalate,
}

/// Decides, and gives the history that goes with the decision.
///
/// ```
/// use neuroflow_kernel::{Decision, ExitKind, Moment, Restart, RestartHistory, RestartPolicy, decide};
/// let policy = RestartPolicy::default();
/// let none = RestartHistory::default();
/// let (decision, history) =
///     decide(&policy, none, Restart::Permanent, ExitKind::Failed, Moment::ORIGIN, 0.0);
/// assert_eq!(decision, Decision::Restart { after: policy.backoff.first });
/// assert_eq!(history.recent(), 1);
/// ```
pub fn decide(
    policy: &RestartPolicy,
    mut history: RestartHistory,
    restart: Restart,
    exit: ExitKind,
    now: Moment,
    jitter: f64,
) -> (Decision, RestartHistory) {
    let wanted = match restart {
        Restart::Permanent => true,
        Restart::Transient => exit == ExitKind::Failed,
        Restart::Temporary => false,
    };
    if !wanted {
        return (Decision::Forget, history);
    }
    history.times.retain(|&time| now.since(time) < policy.intensity.within);
    let nth = u32::try_from(history.times.len()).unwrap_or(u32::MAX).saturating_add(1);
    if nth > policy.intensity.restarts {
        return (Decision::Escalate, history);
    }
    history.times.push_back(now);
    (Decision::Restart { after: policy.backoff.delay(nth, jitter) }, history)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn restart() -> impl proptest::strategy::Strategy<Value = Restart> {
        prop_oneof![Just(Restart::Permanent), Just(Restart::Transient), Just(Restart::Temporary)]
    }

    fn exit() -> impl proptest::strategy::Strategy<Value = ExitKind> {
        prop_oneof![Just(ExitKind::Normal), Just(ExitKind::Failed)]
    }

    proptest! {
        /// Over any sequence of ends: never more restarts in a window than the intensity allows,
        /// an escalation exactly when one more would be needed, waits within their bounds, and
        /// nobody restarted who shouldn't be.
        #[test]
        fn intensity_holds_over_any_history(
            restarts in 0u32..6,
            within_ms in 1u64..5_000,
            first_ms in 0u64..100,
            max_ms in 0u64..1_000,
            events in proptest::collection::vec((restart(), exit(), 0u64..3_000, 0.0f64..=1.0), 0..60),
        ) {
            let policy = RestartPolicy {
                strategy: super::Strategy::OneForOne,
                intensity: Intensity { restarts, within: Duration::from_millis(within_ms) },
                backoff: Backoff {
                    first: Duration::from_millis(first_ms),
                    max: Duration::from_millis(max_ms),
                },
            };
            let mut now = Moment::ORIGIN;
            let mut history = RestartHistory::default();
            let mut done: Vec<Moment> = Vec::new();
            for (restart, exit, gap_ms, jitter) in events {
                now = now + Duration::from_millis(gap_ms);
                let in_window =
                    done.iter().filter(|&&at| now.since(at) < policy.intensity.within).count();
                let before = history.clone();
                let (decision, after) = decide(&policy, history, restart, exit, now, jitter);
                history = after;
                match decision {
                    Decision::Forget => {
                        prop_assert!(restart == Restart::Temporary
                            || (restart == Restart::Transient && exit == ExitKind::Normal));
                        prop_assert_eq!(&history, &before);
                    }
                    Decision::Restart { after } => {
                        prop_assert_ne!(restart, Restart::Temporary);
                        prop_assert!(restart == Restart::Permanent || exit == ExitKind::Failed);
                        prop_assert!(in_window < restarts as usize);
                        prop_assert!(after <= policy.backoff.max);
                        done.push(now);
                    }
                    Decision::Escalate => prop_assert_eq!(in_window, restarts as usize),
                }
                prop_assert!(history.recent() <= restarts as usize);
            }
        }

        #[test]
        fn a_wait_is_between_half_and_all_of_its_bound(
            first_ms in proptest::num::u64::ANY,
            max_ms in proptest::num::u64::ANY,
            nth in proptest::num::u32::ANY,
            jitter in proptest::num::f64::ANY,
        ) {
            let backoff = Backoff {
                first: Duration::from_millis(first_ms),
                max: Duration::from_secs(max_ms),
            };
            let longest = backoff.delay(nth, 0.0);
            let wait = backoff.delay(nth, jitter);
            prop_assert!(longest <= backoff.max);
            prop_assert!(wait <= longest);
            prop_assert!(wait >= (longest / 2).saturating_sub(Duration::from_micros(1))
                || longest.as_secs() > 1 << 20);
        }

        #[test]
        fn the_failed_child_is_always_affected(failed in 0usize..20, more in 1usize..20) {
            let count = failed + more;
            for strategy in [super::Strategy::OneForOne, super::Strategy::OneForAll, super::Strategy::RestForOne] {
                let affected = strategy.affected(failed, count);
                prop_assert!(affected.contains(&failed));
                prop_assert!(affected.end <= count);
            }
        }
    }
}
