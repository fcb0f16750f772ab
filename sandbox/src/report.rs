//! How a cell ended and what it cost.

use std::time::Duration;

use crate::{
    account::GroupUsage,
    egress::EgressReport,
    level::{Boundary, Layer, Level},
    limits,
};

/// The end of a cell.
///
/// ```no_run
/// # async fn doc(cell: neuroflow_sandbox::Running) {
/// use neuroflow_sandbox::End;
///
/// let report = cell.finish().await;
/// assert_eq!(report.end, End::Exited(0));
/// println!("{:?} of processor time", report.usage.user + report.usage.system);
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Why it ended.
    pub end: End,
    /// What it used, its own start included.
    pub usage: Usage,
    /// What its control group counted; all `None` without one.
    pub group: GroupUsage,
    /// The level it ran at.
    pub level: Level,
    /// Layers of the level that the host could not give, and the profile allowed to do without; and the
    /// system call filter where the profile learns, because that one lets every call pass.
    pub degraded: Vec<Layer>,
    /// What separated it from the rest of the machine.
    pub boundary: Boundary,
    /// System calls that were refused, by name.
    pub denials: Vec<Denial>,
    /// Of a cell that learns: the smallest system call profile that would have let it run, as TOML.
    pub learned: Option<String>,
    /// What the proxy has decided, if the network has an allow-list.
    pub egress: Option<EgressReport>,
    /// Time per start-up stage.
    pub stages: Stages,
    /// Whether the cell was made ahead: then its last stage alone was waited for.
    pub prepared: bool,
    /// Whether the program ran in a fork of a warm interpreter.
    pub forked: bool,
    /// Whether output is missing.
    pub truncated: Truncated,
}

impl Report {
    /// The layers that were in force while the program ran.
    pub fn layers(&self) -> Vec<Layer> {
        let all = self.level.layers().iter().copied();
        all.filter(|layer| !self.degraded.contains(layer)).collect()
    }

    /// Whether the program ended by itself with status 0.
    pub fn is_success(&self) -> bool {
        self.end == End::Exited(0)
    }
}

/// Why a cell ended. Whatever the reason: nothing of it runs any more.
///
/// ```
/// use neuroflow_sandbox::End;
///
/// assert_ne!(End::Exited(137), End::Signalled(9));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// The program ended with this status.
    Exited(i32),
    /// This signal ended the program; it came from inside the cell or from a resource limit.
    Signalled(i32),
    /// The wall time was over.
    WallTime,
    /// The cell was out of memory, and the kernel ended its program.
    Memory,
    /// Its processor time was used up: the signal that says so ended the program, and it had used as much as
    /// the least of such limits.
    CpuTime,
    /// It wrote a file past the limit. The signal of such a limit is all that is known of it, and a program can
    /// send that to itself.
    FileSize,
    /// It made a system call that no program of its kind makes: of another architecture. Here too a program may
    /// have sent itself the signal.
    ForeignCall,
    /// It wrote more than the profile allows.
    OutputLimit,
    /// The caller ended it.
    Cancelled,
    /// Something outside ended it: the kernel short of memory, or an operator.
    Killed,
    /// The launcher's process died, and the cell with it; or it hung until the cell was ended without it.
    LauncherLost,
    /// It was killed, and wasn't gone when it could be waited for no longer: processes of it may be left. All
    /// other ends say that none is.
    NotGone,
}

impl End {
    /// The end of a program that a signal has ended, which says for some what limit it ran into.
    #[cfg(unix)]
    pub(crate) fn of_signal(signal: i32, usage: &Usage) -> Self {
        match signal {
            // A program may send itself the signal. The kernel sends it to nobody who has used less.
            libc::SIGXCPU if usage.user + usage.system >= limits::LEAST_CPU_TIME => Self::CpuTime,
            libc::SIGXFSZ => Self::FileSize,
            libc::SIGSYS => Self::ForeignCall,
            signal => Self::Signalled(signal),
        }
    }
}

/// What a cell used, as its control groups count it: everything, to the last moment. Without them, what its
/// processes have told those that waited for them: what was killed, or left behind, isn't in it.
///
/// ```
/// assert_eq!(neuroflow_sandbox::Usage::default().peak_resident_bytes, 0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Processor time in user mode, all processes.
    pub user: Duration,
    /// Processor time in the kernel, all processes; building the cell is part of it.
    pub system: Duration,
    /// Most memory at a time: of all processes together where a group counts it, files in memory included,
    /// and not less than the largest resident size of one process that was waited for. Never below that of
    /// the first process, which is a few MiB.
    pub peak_resident_bytes: u64,
}

/// A refused system call.
///
/// ```
/// let denial = neuroflow_sandbox::Denial { call: "mount".to_owned(), count: 2 };
/// assert_eq!(denial.call, "mount");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// Its name.
    pub call: String,
    /// How often. A cell that was killed may have made more.
    pub count: u32,
}

/// Which stream lost bytes to the output limit.
///
/// ```
/// assert!(!neuroflow_sandbox::Truncated::default().stdout);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Truncated {
    /// Bytes of standard output are missing.
    pub stdout: bool,
    /// Bytes of standard error are missing.
    pub stderr: bool,
}

/// A stretch of a cell's start.
///
/// ```
/// use neuroflow_sandbox::Stage;
///
/// assert_eq!(Stage::ALL.len(), 9);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// From the zygote's first call to the first instruction of the cell: groups, network and other
    /// namespaces.
    Clone,
    /// Into the groups, and away from what was inherited.
    Groups,
    /// Id map, ids, `/proc`.
    Identity,
    /// New root in place, old root gone.
    Root,
    /// Binds and file systems of the cell's own.
    Mounts,
    /// Capabilities dropped and read back.
    Lockdown,
    /// Landlock's rules.
    Rules,
    /// System call filter.
    Filter,
    /// Program loaded.
    Execute,
}

/// How many stages there are.
pub(crate) const STAGES: usize = 9;

impl Stage {
    /// All stages in the order they happen.
    pub const ALL: [Self; STAGES] = [
        Self::Clone,
        Self::Groups,
        Self::Identity,
        Self::Root,
        Self::Mounts,
        Self::Lockdown,
        Self::Rules,
        Self::Filter,
        Self::Execute,
    ];
}

/// Time per start-up stage, measured by the cell itself. Where the first process came from the zygote's
/// stock, [`Stage::Clone`] is the hand-over to it, and the stages that it had behind it are zero.
///
/// ```
/// use neuroflow_sandbox::Stages;
///
/// assert_eq!(Stages::default().total(), std::time::Duration::ZERO);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stages {
    nanoseconds: [u64; STAGES],
}

impl Stages {
    /// Each stage with its time.
    pub fn iter(&self) -> impl Iterator<Item = (Stage, Duration)> + '_ {
        Stage::ALL.into_iter().zip(self.nanoseconds.iter().map(|time| Duration::from_nanos(*time)))
    }

    /// From the zygote's first call to the loaded program.
    pub fn total(&self) -> Duration {
        self.iter().map(|(_, time)| time).sum()
    }

    pub(crate) fn from_nanoseconds(nanoseconds: [u64; STAGES]) -> Self {
        Self { nanoseconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_keep_their_order() {
        let stages = Stages::from_nanoseconds([1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(stages.total(), Duration::from_nanos(45));
        assert_eq!(stages.iter().last(), Some((Stage::Execute, Duration::from_nanos(9))));
    }
}
