//! What the control group of a cell counted. Pure.

use std::time::Duration;

/// What a cell as a whole used, as its control group counted it. `None`: this host doesn't count
/// it.
///
/// ```
/// use neuroflow_sandbox::{GroupUsage, LimitHit};
///
/// let usage = GroupUsage { oom_kills: Some(1), ..GroupUsage::default() };
/// assert_eq!(usage.limits_hit(), [LimitHit::Memory { kills: 1 }]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GroupUsage {
    /// Processor time in user mode.
    pub cpu_user: Option<Duration>,
    /// Processor time in the kernel.
    pub cpu_system: Option<Duration>,
    /// Most memory at a time: all processes, their page cache and their tmpfs.
    pub memory_peak_bytes: Option<u64>,
    /// Most processes and threads at a time.
    pub processes_peak: Option<u64>,
    /// Scheduling periods in which the processor limit was reached.
    pub throttled_periods: Option<u64>,
    /// How long threads stood still for that.
    pub throttled: Option<Duration>,
    /// Processes that the kernel ended for want of memory.
    pub oom_kills: Option<u64>,
    /// Processes and threads that could not be started.
    pub processes_refused: Option<u64>,
    /// How long some thread waited for a processor.
    pub cpu_stalled: Option<Duration>,
    /// How long some thread waited for memory.
    pub memory_stalled: Option<Duration>,
    /// How long all threads waited for memory at once.
    pub memory_stalled_fully: Option<Duration>,
    /// How long some thread waited for a disk.
    pub io_stalled: Option<Duration>,
    /// How long all threads waited for a disk at once.
    pub io_stalled_fully: Option<Duration>,
    /// Bytes read from disks.
    pub read_bytes: Option<u64>,
    /// Bytes written to disks.
    pub written_bytes: Option<u64>,
}

/// A limit of the control group that a cell ran into.
///
/// ```
/// use neuroflow_sandbox::LimitHit;
///
/// assert_ne!(LimitHit::Memory { kills: 1 }, LimitHit::Processes { refused: 1 });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LimitHit {
    /// The kernel ended this many processes for want of memory.
    Memory {
        /// How many.
        kills: u64,
    },
    /// This many processes and threads could not be started.
    Processes {
        /// How many.
        refused: u64,
    },
    /// The processor limit held threads back.
    Processor {
        /// In how many scheduling periods.
        periods: u64,
    },
}

impl GroupUsage {
    /// The limits that the cell ran into, the gravest first.
    pub fn limits_hit(&self) -> Vec<LimitHit> {
        let counted = |count: Option<u64>| count.filter(|count| *count > 0);
        let memory = counted(self.oom_kills).map(|kills| LimitHit::Memory { kills });
        let processes =
            counted(self.processes_refused).map(|refused| LimitHit::Processes { refused });
        let processor =
            counted(self.throttled_periods).map(|periods| LimitHit::Processor { periods });
        memory.into_iter().chain(processes).chain(processor).collect()
    }

    /// What was counted after `before`. Peaks and kills stay what they are.
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "there are no groups"))]
    pub(crate) fn since(self, before: &Self) -> Self {
        let time = |now: Option<Duration>, before: Option<Duration>| {
            now.map(|now| now.saturating_sub(before.unwrap_or_default()))
        };
        let count = |now: Option<u64>, before: Option<u64>| {
            now.map(|now| now.saturating_sub(before.unwrap_or_default()))
        };
        Self {
            cpu_user: time(self.cpu_user, before.cpu_user),
            cpu_system: time(self.cpu_system, before.cpu_system),
            throttled_periods: count(self.throttled_periods, before.throttled_periods),
            throttled: time(self.throttled, before.throttled),
            processes_refused: count(self.processes_refused, before.processes_refused),
            cpu_stalled: time(self.cpu_stalled, before.cpu_stalled),
            memory_stalled: time(self.memory_stalled, before.memory_stalled),
            memory_stalled_fully: time(self.memory_stalled_fully, before.memory_stalled_fully),
            io_stalled: time(self.io_stalled, before.io_stalled),
            io_stalled_fully: time(self.io_stalled_fully, before.io_stalled_fully),
            read_bytes: count(self.read_bytes, before.read_bytes),
            written_bytes: count(self.written_bytes, before.written_bytes),
            ..self
        }
    }

    /// As numbers for the wire; times in microseconds.
    pub(crate) fn to_words(self) -> [u64; WORDS] {
        let time = |time: Option<Duration>| {
            time.map(|time| u64::try_from(time.as_micros()).unwrap_or(NOT_COUNTED - 1))
        };
        [
            time(self.cpu_user),
            time(self.cpu_system),
            self.memory_peak_bytes,
            self.processes_peak,
            self.throttled_periods,
            time(self.throttled),
            self.oom_kills,
            self.processes_refused,
            time(self.cpu_stalled),
            time(self.memory_stalled),
            time(self.memory_stalled_fully),
            time(self.io_stalled),
            time(self.io_stalled_fully),
            self.read_bytes,
            self.written_bytes,
        ]
        .map(|word| word.unwrap_or(NOT_COUNTED))
    }

    /// From the numbers of [`to_words`](Self::to_words).
    pub(crate) fn from_words(words: &[u64; WORDS]) -> Self {
        let words = words.map(|word| (word != NOT_COUNTED).then_some(word));
        let time = |word: Option<u64>| word.map(Duration::from_micros);
        let [
            cpu_user,
            cpu_system,
            memory_peak_bytes,
            processes_peak,
            throttled_periods,
            throttled,
            oom_kills,
            processes_refused,
            cpu_stalled,
            memory_stalled,
            memory_stalled_fully,
            io_stalled,
            io_stalled_fully,
            read_bytes,
            written_bytes,
        ] = words;
        Self {
            cpu_user: time(cpu_user),
            cpu_system: time(cpu_system),
            memory_peak_bytes,
            processes_peak,
            throttled_periods,
            throttled: time(throttled),
            oom_kills,
            processes_refused,
            cpu_stalled: time(cpu_stalled),
            memory_stalled: time(memory_stalled),
            memory_stalled_fully: time(memory_stalled_fully),
            io_stalled: time(io_stalled),
            io_stalled_fully: time(io_stalled_fully),
            read_bytes,
            written_bytes,
        }
    }
}

/// Numbers of a usage on the wire.
pub(crate) const WORDS: usize = 15;
/// On the wire: the host doesn't count it.
const NOT_COUNTED: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::Noise;

    #[test]
    fn the_wire_keeps_everything() {
        let mut noise = Noise::new(7);
        for _ in 0..200 {
            let words = std::array::from_fn(|_| match noise.next() % 3 {
                0 => NOT_COUNTED,
                _ => noise.next() >> 12,
            });
            assert_eq!(GroupUsage::from_words(&words).to_words(), words);
        }
        assert_eq!(GroupUsage::from_words(&[NOT_COUNTED; WORDS]), GroupUsage::default());
    }

    #[test]
    fn what_was_counted_before_is_another_cells() {
        let before = GroupUsage::from_words(&[3; WORDS]);
        let now = GroupUsage::from_words(&[10; WORDS]);
        let since = now.since(&before);
        let apart = GroupUsage {
            memory_peak_bytes: Some(10),
            processes_peak: Some(10),
            oom_kills: Some(10),
            ..GroupUsage::from_words(&[7; WORDS])
        };
        assert_eq!(since, apart);
        assert_eq!(now.since(&GroupUsage::default()), now);
        assert_eq!(GroupUsage::default().since(&now), GroupUsage::default());
    }

    #[test]
    fn the_gravest_limit_comes_first() {
        let usage = GroupUsage {
            throttled_periods: Some(3),
            oom_kills: Some(1),
            processes_refused: Some(0),
            ..GroupUsage::default()
        };
        assert_eq!(
            usage.limits_hit(),
            [LimitHit::Memory { kills: 1 }, LimitHit::Processor { periods: 3 }]
        );
        assert_eq!(GroupUsage::default().limits_hit(), []);
    }
}
