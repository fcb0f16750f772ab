//! Whether a disk is quick: what decides where its commits are done.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::limits::{JOURNAL_PACE_COMMITS, JOURNAL_QUICK, JOURNAL_SLOW};

/// How long commits take. Where that's less than the way to another thread and back, they are done
/// where they are asked for: a disk that isn't one, or whose flushes nobody waits for.
#[derive(Debug)]
pub(super) struct Pace {
    /// A running average, in nanoseconds.
    mean: AtomicU64,
}

impl Default for Pace {
    /// A disk is slow until it shows that it isn't.
    fn default() -> Self {
        Self { mean: AtomicU64::new(nanos(JOURNAL_SLOW)) }
    }
}

impl Pace {
    pub(super) fn is_quick(&self) -> bool {
        self.mean.load(Ordering::Relaxed) <= nanos(JOURNAL_QUICK)
    }

    pub(super) fn took(&self, time: Duration) {
        // One commit at a time: nothing is lost between the look and the change.
        let mean = self.mean.load(Ordering::Relaxed);
        let others = mean * u64::from(JOURNAL_PACE_COMMITS - 1);
        let mean = (others + nanos(time.min(JOURNAL_SLOW))) / u64::from(JOURNAL_PACE_COMMITS);
        self.mean.store(mean, Ordering::Relaxed);
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Commits of `time` until the pace is what is asked for.
    fn until(pace: &Pace, quick: bool, time: Duration) -> usize {
        (0..1_000).take_while(|_| pace.is_quick() != quick).map(|_| pace.took(time)).count()
    }

    #[test]
    fn a_disk_is_quick_by_its_average_and_an_interruption_is_soon_forgotten() {
        let (quick, slow) = (JOURNAL_QUICK / 3, JOURNAL_SLOW * 20);
        let pace = Pace::default();
        assert!(!pace.is_quick(), "nothing is known yet");
        assert!((30..70).contains(&until(&pace, true, quick)));
        for _ in 0..1_000 {
            pace.took(quick);
        }
        pace.took(JOURNAL_QUICK * 4);
        assert!(pace.is_quick(), "a short interruption");
        pace.took(slow);
        assert!(!pace.is_quick(), "a long one");
        assert!(until(&pace, true, quick) < 16);
        assert!(until(&pace, false, slow) <= 1, "a disk that is slow from now on");
        assert_eq!(until(&pace, true, JOURNAL_QUICK * 2), 1_000);
    }
}
