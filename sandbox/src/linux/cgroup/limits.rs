//! Limits of a group: which file takes which value, and whether the kernel has taken it.

use std::{ffi::CString, os::fd::AsFd};

use thiserror::Error;

use super::{
    devices::Device,
    tree::{self, Hierarchy, Tree, Version},
};
use crate::{diagnosis::Controller, errno::Errno, linux::sys::directory};

/// What a group may use. `None`: as much as the group around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Limits {
    /// Processor time, in thousandths of a processor.
    pub(crate) cpu_millis: Option<u32>,
    /// Share of a contended processor: 1 to 10000, usually 100.
    pub(crate) cpu_weight: Option<u16>,
    /// Memory, after which the kernel kills. It counts whole pages, so what is left of a page is
    /// not given.
    pub(crate) memory_max: Option<u64>,
    /// Memory, after which the kernel slows down and takes back. With version 1 only a preference
    /// when the whole machine is short of memory.
    pub(crate) memory_high: Option<u64>,
    /// Swap. Version 1 limits memory and swap together, so there it needs `memory_max`.
    pub(crate) swap_max: Option<u64>,
    /// Processes and threads, the first process included.
    pub(crate) pids_max: Option<u32>,
    /// Use of each disk.
    pub(crate) io: Option<IoLimits>,
}

/// What may be read from and written to each disk, per second. Version 1 doesn't see writes that go
/// through the page cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct IoLimits {
    pub(crate) read_bytes: Option<u64>,
    pub(crate) write_bytes: Option<u64>,
    pub(crate) read_operations: Option<u64>,
    pub(crate) write_operations: Option<u64>,
}

impl Limits {
    /// Without those that this controller keeps.
    pub(crate) fn without(self, controller: Controller) -> Self {
        match controller {
            Controller::Cpu => Self { cpu_millis: None, cpu_weight: None, ..self },
            Controller::Memory => Self { memory_max: None, memory_high: None, ..self },
            Controller::Swap => Self { swap_max: None, ..self },
            Controller::Pids => Self { pids_max: None, ..self },
            Controller::Io => Self { io: None, ..self },
        }
    }
}

/// Why a limit isn't in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub(crate) enum LimitError {
    #[error("no control group limits {controller} here")]
    Missing { controller: Controller },
    #[error("{controller}: {file} was refused: {errno}")]
    Refused { controller: Controller, file: &'static str, errno: Errno },
    #[error("{controller}: {file} doesn't hold what was written")]
    NotHeld { controller: Controller, file: &'static str },
}

impl LimitError {
    #[cfg(test)]
    pub(crate) fn controller(&self) -> Controller {
        match self {
            Self::Missing { controller }
            | Self::Refused { controller, .. }
            | Self::NotHeld { controller, .. } => *controller,
        }
    }

    /// The control file, if there is one.
    #[cfg(test)]
    pub(crate) fn file(&self) -> Option<&'static str> {
        match self {
            Self::Missing { .. } => None,
            Self::Refused { file, .. } | Self::NotHeld { file, .. } => Some(file),
        }
    }

    /// As one number: `ENODEV` without a controller, `EIO` if the kernel holds something else.
    pub(crate) fn errno(&self) -> Errno {
        match self {
            Self::Missing { .. } => Errno::from_raw(libc::ENODEV),
            Self::Refused { errno, .. } => *errno,
            Self::NotHeld { .. } => Errno::from_raw(libc::EIO),
        }
    }
}

/// Sets limits and reads back each.
pub(super) fn apply(
    tree: &Tree,
    group: &CString,
    devices: &[Device],
    limits: &Limits,
) -> Result<(), LimitError> {
    let page = directory::page_size();
    for controller in Controller::ALL {
        let wanted = |version| writes(limits, controller, version, page, devices);
        let Some(hierarchy) = tree.holder(controller) else {
            if wanted(Version::Unified).is_empty() {
                continue;
            }
            return Err(LimitError::Missing { controller });
        };
        if hierarchy.version == Version::Legacy
            && controller == Controller::Swap
            && limits.swap_max.is_some()
            && limits.memory_max.is_none()
        {
            return Err(LimitError::Missing { controller: Controller::Memory });
        }
        for write in wanted(hierarchy.version) {
            write.perform(hierarchy, group)?;
        }
    }
    Ok(())
}

/// One value for one control file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Write {
    controller: Controller,
    file: &'static str,
    value: String,
    held: Held,
}

/// What the file says when the limit is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    /// What was written.
    Same,
    /// This number: the written one in whole pages.
    Number(u64),
    /// A line that begins with this device and has the written words.
    Line,
    /// What was written; or, refused as `EINVAL`, no quota of its own: version 1 refuses more than
    /// the group around has, and that one's quota holds then.
    QuotaOrAbove,
}

impl Write {
    fn perform(&self, hierarchy: &Hierarchy, group: &CString) -> Result<(), LimitError> {
        let Self { controller, file, .. } = *self;
        let refused = |errno| LimitError::Refused { controller, file, errno };
        let path = tree::path(&[group.as_bytes(), b"/", file.as_bytes()]).map_err(refused)?;
        let subtree = hierarchy.subtree.as_fd();
        let mut answer = [0; 4096];
        let length =
            match directory::exchange_at(subtree, &path, self.value.as_bytes(), &mut answer) {
                Ok(length) => length,
                Err(errno) if errno.raw() == libc::EINVAL && self.held == Held::QuotaOrAbove => {
                    let length = directory::read_at(subtree, &path, &mut answer);
                    let answer = answer.get(..length.map_err(refused)?).unwrap_or_default();
                    let none = answer.trim_ascii() == b"-1";
                    return if none { Ok(()) } else { Err(refused(errno)) };
                }
                Err(errno) => return Err(refused(errno)),
            };
        let answer = String::from_utf8_lossy(answer.get(..length).unwrap_or_default());
        if self.is_held(&answer) { Ok(()) } else { Err(LimitError::NotHeld { controller, file }) }
    }

    fn is_held(&self, answer: &str) -> bool {
        match self.held {
            Held::Same | Held::QuotaOrAbove => answer.trim() == self.value,
            Held::Number(expected) => answer.trim().parse() == Ok(expected),
            Held::Line => {
                let words = |line: &str| -> Vec<String> {
                    line.split_ascii_whitespace().map(str::to_owned).collect()
                };
                let wanted = words(&self.value);
                answer.lines().map(words).any(|line| {
                    line.first() == wanted.first() && wanted.iter().all(|word| line.contains(word))
                })
            }
        }
    }
}

/// What to write for one controller, in this order.
fn writes(
    limits: &Limits,
    controller: Controller,
    version: Version,
    page: u64,
    devices: &[Device],
) -> Vec<Write> {
    let same = |file, value: String| Write { controller, file, value, held: Held::Same };
    let bytes = |file, bytes: u64| Write {
        controller,
        file,
        value: bytes.to_string(),
        held: Held::Number(bytes - bytes % page),
    };
    let mut writes = Vec::new();
    match (controller, version) {
        (Controller::Cpu, Version::Unified) => {
            let bandwidth = limits.cpu_millis.map(Bandwidth::new);
            writes.extend(
                bandwidth.map(|Bandwidth { quota, period }| {
                    same("cpu.max", format!("{quota} {period}"))
                }),
            );
            writes.extend(limits.cpu_weight.map(|weight| same("cpu.weight", weight.to_string())));
        }
        (Controller::Cpu, Version::Legacy) => {
            if let Some(Bandwidth { quota, period }) = limits.cpu_millis.map(Bandwidth::new) {
                if period != USUAL_PERIOD {
                    writes.push(same("cpu.cfs_period_us", period.to_string()));
                }
                let held = Held::QuotaOrAbove;
                writes.push(Write { held, ..same("cpu.cfs_quota_us", quota.to_string()) });
            }
            writes.extend(limits.cpu_weight.map(|weight| {
                // The usual 100 is 1024 shares; fewer than two don't exist.
                same("cpu.shares", (u64::from(weight) * 1024 / 100).max(2).to_string())
            }));
        }
        (Controller::Memory, Version::Unified) => {
            writes.extend(limits.memory_high.map(|high| bytes("memory.high", high)));
            if let Some(most) = limits.memory_max {
                writes.push(bytes("memory.max", most));
                // A cell without one of its processes is of no use to anybody.
                writes.push(same("memory.oom.group", "1".to_owned()));
            }
        }
        (Controller::Memory, Version::Legacy) => {
            writes.extend(limits.memory_max.map(|most| bytes("memory.limit_in_bytes", most)));
            writes.extend(limits.memory_high.map(|high| bytes("memory.soft_limit_in_bytes", high)));
        }
        (Controller::Swap, Version::Unified) => {
            writes.extend(limits.swap_max.map(|swap| bytes("memory.swap.max", swap)));
        }
        (Controller::Swap, Version::Legacy) => {
            // Never below the memory limit, which is there first.
            writes.extend(limits.swap_max.zip(limits.memory_max).map(|(swap, memory)| {
                bytes("memory.memsw.limit_in_bytes", memory.saturating_add(swap))
            }));
        }
        (Controller::Pids, _) => {
            writes.extend(limits.pids_max.map(|most| same("pids.max", most.to_string())));
        }
        (Controller::Io, version) => {
            if let Some(io) = limits.io {
                for device in devices {
                    io.write(*device, version, &mut writes);
                }
            }
        }
    }
    writes
}

impl IoLimits {
    fn write(&self, device: Device, version: Version, writes: &mut Vec<Write>) {
        let (controller, held) = (Controller::Io, Held::Line);
        let parts = [
            ("rbps", "blkio.throttle.read_bps_device", self.read_bytes),
            ("wbps", "blkio.throttle.write_bps_device", self.write_bytes),
            ("riops", "blkio.throttle.read_iops_device", self.read_operations),
            ("wiops", "blkio.throttle.write_iops_device", self.write_operations),
        ];
        let parts = parts.into_iter().filter_map(|(key, file, limit)| Some((key, file, limit?)));
        match version {
            Version::Unified => {
                let words: Vec<String> =
                    parts.map(|(key, _, limit)| format!("{key}={limit}")).collect();
                if !words.is_empty() {
                    let value = format!("{device} {}", words.join(" "));
                    writes.push(Write { controller, file: "io.max", value, held });
                }
            }
            Version::Legacy => writes.extend(parts.map(|(_, file, limit)| {
                let value = format!("{device} {limit}");
                Write { controller, file, value, held }
            })),
        }
    }
}

/// Microseconds of processor time per period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bandwidth {
    quota: u64,
    period: u64,
}

impl Bandwidth {
    /// The kernel takes quotas from a millisecond on and periods up to a second, so small fractions
    /// need a longer period.
    fn new(millis: u32) -> Self {
        let millis = u64::from(millis.max(1));
        let period =
            if millis * USUAL_PERIOD / 1000 >= LEAST_QUOTA { USUAL_PERIOD } else { LONGEST_PERIOD };
        Self { quota: millis * period / 1000, period }
    }
}

const USUAL_PERIOD: u64 = 100_000;
const LONGEST_PERIOD: u64 = 1_000_000;
const LEAST_QUOTA: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: Device = Device { major: 8, minor: 0 };

    fn all() -> Limits {
        Limits {
            cpu_millis: Some(1500),
            cpu_weight: Some(50),
            memory_max: Some(32 << 20),
            memory_high: Some((24 << 20) + 1),
            swap_max: Some(0),
            pids_max: Some(16),
            io: Some(IoLimits {
                read_bytes: Some(1 << 20),
                write_operations: Some(100),
                ..IoLimits::default()
            }),
        }
    }

    fn files(limits: &Limits, version: Version) -> Vec<(&'static str, String)> {
        let writes = Controller::ALL
            .into_iter()
            .flat_map(|controller| writes(limits, controller, version, 4096, &[DISK]));
        writes.map(|write| (write.file, write.value)).collect()
    }

    #[test]
    fn version_2_takes_them_like_this() {
        let expected = [
            ("cpu.max", "150000 100000"),
            ("cpu.weight", "50"),
            ("memory.high", "25165825"),
            ("memory.max", "33554432"),
            ("memory.oom.group", "1"),
            ("memory.swap.max", "0"),
            ("pids.max", "16"),
            ("io.max", "8:0 rbps=1048576 wiops=100"),
        ];
        assert_eq!(files(&all(), Version::Unified), expected.map(|(f, v)| (f, v.to_owned())));
    }

    #[test]
    fn version_1_takes_them_like_this() {
        let expected = [
            ("cpu.cfs_quota_us", "150000"),
            ("cpu.shares", "512"),
            ("memory.limit_in_bytes", "33554432"),
            ("memory.soft_limit_in_bytes", "25165825"),
            ("memory.memsw.limit_in_bytes", "33554432"),
            ("pids.max", "16"),
            ("blkio.throttle.read_bps_device", "8:0 1048576"),
            ("blkio.throttle.write_iops_device", "8:0 100"),
        ];
        assert_eq!(files(&all(), Version::Legacy), expected.map(|(f, v)| (f, v.to_owned())));
    }

    #[test]
    fn nothing_wanted_is_nothing_written() {
        for version in [Version::Unified, Version::Legacy] {
            assert_eq!(files(&Limits::default(), version), []);
            let none = Controller::ALL.into_iter().fold(all(), Limits::without);
            assert_eq!(none, Limits::default());
        }
    }

    #[test]
    fn every_quota_is_one_that_the_kernel_takes() {
        for millis in [0, 1, 9, 10, 999, 1000, 64_000, u32::MAX] {
            let Bandwidth { quota, period } = Bandwidth::new(millis);
            assert!(quota >= LEAST_QUOTA, "{millis}");
            assert!(period <= LONGEST_PERIOD, "{millis}");
            assert_eq!(quota * 1000 / period, u64::from(millis.max(1)), "{millis}");
        }
    }

    #[test]
    fn what_is_held_is_compared_with_what_was_meant() {
        let held = |write: &Write, answer| write.is_held(answer);
        let [high] = &writes(&all(), Controller::Memory, Version::Unified, 4096, &[])[..1] else {
            unreachable!("one was asked for")
        };
        // Whole pages only.
        assert!(held(high, "25165824\n"));
        assert!(!held(high, "25165825\n"));
        assert!(!held(high, "max\n"));
        let io = &writes(&all(), Controller::Io, Version::Unified, 4096, &[DISK])[0];
        assert!(held(io, "254:0 rbps=1\n8:0 rbps=1048576 wbps=max riops=max wiops=100\n"));
        assert!(!held(io, "8:0 rbps=1048576 wbps=max riops=max wiops=max\n"));
        assert!(!held(io, "254:0 rbps=1048576 wbps=max riops=max wiops=100\n"));
        assert!(!held(io, ""));
    }
}
