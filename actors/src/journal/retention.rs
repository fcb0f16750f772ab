//! What is removed, and when: pure.

use std::time::Duration;

use crate::limits::{KEPT_TASK_BYTES, KEPT_TASKS};

use super::index::{Index, Kept, Known};

/// What is kept of ended tasks. Those that haven't ended are always kept.
///
/// ```
/// use neuroflow_actors::Retention;
/// assert!(Retention::on_disk().tasks > Retention::in_memory().tasks);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retention {
    /// For how long; for ever if none.
    pub age: Option<Duration>,
    /// How many.
    pub tasks: usize,
    /// Bytes of all of them.
    pub bytes: u64,
}

impl Retention {
    /// What memory has room for.
    pub fn in_memory() -> Self {
        Self { age: None, tasks: KEPT_TASKS, bytes: KEPT_TASK_BYTES as u64 }
    }

    /// What a disk has room for: a month, and as many tasks as an index in memory should know.
    pub fn on_disk() -> Self {
        Self { age: Some(MONTH), tasks: 200_000, bytes: 8 * 1024 * 1024 * 1024 }
    }

    /// Whether so much is there that it shouldn't wait for the next look. An eighth more than is
    /// kept, so that a removal is worth its write.
    pub(super) fn is_urgent(&self, ended: Kept) -> bool {
        let tasks = self.tasks as u64;
        ended.tasks > tasks.saturating_add(tasks / 8)
            || ended.bytes > self.bytes.saturating_add(self.bytes / 8)
    }

    /// How much more there is than is kept.
    pub(super) fn excess(&self, ended: Kept) -> Kept {
        Kept {
            tasks: ended.tasks.saturating_sub(self.tasks as u64),
            bytes: ended.bytes.saturating_sub(self.bytes),
        }
    }

    /// The tasks to remove at this time, `most` of them.
    pub(super) fn due<P>(
        &self,
        index: &Index<P>,
        age_limit_ms: Option<u64>,
        most: usize,
    ) -> Vec<(String, String)> {
        let mut excess = self.excess(index.ended());
        index.oldest_ended(most, |known: &Known<P>| {
            let aged = age_limit_ms.is_some_and(|limit| known.at_ms < limit);
            excess.takes(known.bytes) || aged
        })
    }
}

impl Kept {
    /// Counts a task of so many bytes out, if there is anything left; says whether there was.
    pub(super) fn takes(&mut self, bytes: u64) -> bool {
        let any = *self != Self::default();
        self.tasks = self.tasks.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        any
    }
}

const MONTH: Duration = Duration::from_hours(24 * 30);

/// Tells the age limit, and that the wall clock jumped: a clock that is set forward by a year must
/// not remove a year.
#[derive(Debug, Default)]
pub(super) struct AgeGuard {
    /// Wall time and steady time of the last look.
    last: Option<(Duration, Duration)>,
}

/// Wall clocks are corrected by less than this while they run; a larger step is a jump.
const JUMP: Duration = Duration::from_mins(10);

impl AgeGuard {
    /// The time before which a task is too old; none if nothing is, or if the clock has jumped
    /// since the last look.
    pub(super) fn limit_ms(
        &mut self,
        age: Option<Duration>,
        wall: Duration,
        steady: Duration,
    ) -> Result<Option<u64>, Duration> {
        let last = self.last.replace((wall, steady));
        if let Some((last_wall, last_steady)) = last {
            let ahead = wall.saturating_sub(last_wall);
            let passed = steady.saturating_sub(last_steady);
            if ahead > passed + JUMP {
                return Err(ahead.saturating_sub(passed));
            }
        }
        let limit = age.map(|age| wall.saturating_sub(age));
        Ok(limit.map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::TaskState;

    fn index(tasks: u64) -> Index<()> {
        let mut index = Index::default();
        for at_ms in 0..tasks {
            let known = Known {
                context: "c".into(),
                caller: None,
                state: TaskState::Completed,
                at_ms,
                generation: 1,
                entries: 1,
                bytes: 10,
                place: (),
            };
            index.put("a", &format!("t{at_ms:03}"), known);
        }
        index
    }

    #[test]
    fn the_oldest_go_by_age_count_and_bytes() {
        let keep = Retention { age: None, tasks: 100, bytes: 10_000 };
        assert!(keep.due(&index(50), None, 100).is_empty());
        assert_eq!(keep.due(&index(50), Some(7), 100).len(), 7);
        assert_eq!(Retention { tasks: 40, ..keep }.due(&index(50), None, 100).len(), 10);
        assert_eq!(Retention { bytes: 455, ..keep }.due(&index(50), None, 100).len(), 5);
        assert_eq!(Retention { tasks: 0, ..keep }.due(&index(50), None, 20).len(), 20);
        assert!(!Retention { tasks: 48, ..keep }.is_urgent(index(50).ended()));
        assert!(Retention { tasks: 40, ..keep }.is_urgent(index(50).ended()));
    }

    #[test]
    fn a_jump_of_the_clock_removes_nothing() {
        let hours = Duration::from_hours;
        let mut guard = AgeGuard::default();
        assert_eq!(guard.limit_ms(Some(hours(1)), hours(10), hours(0)), Ok(Some(9 * 3_600_000)));
        // A year forward.
        assert!(guard.limit_ms(Some(hours(1)), hours(8_770), hours(1)).is_err());
        // It's the time from then on: whoever set it meant it.
        assert!(guard.limit_ms(Some(hours(1)), hours(8_771), hours(2)).is_ok());
        // Back again.
        assert_eq!(guard.limit_ms(Some(hours(1)), hours(12), hours(3)), Ok(Some(11 * 3_600_000)));
        assert_eq!(guard.limit_ms(None, hours(13), hours(4)), Ok(None));
    }
}
