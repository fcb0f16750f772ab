//! Why a launcher or a cell doesn't start.

use std::{io, path::PathBuf, time::Duration};

use crate::{
    diagnosis::{Reason, Remedy},
    errno::Errno,
    level::{Layer, Level},
    plan::ProgramError,
    seccomp::{CacheError, FilterError, SeccompError},
    step::Step,
};

/// Why there is no zygote.
///
/// ```
/// use neuroflow_sandbox::LauncherError;
///
/// assert_eq!(LauncherError::Silent.to_string(), "the new zygote didn't answer");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LauncherError {
    /// The operating system isn't Linux, and has nothing to attack but level `minimal`, which is no
    /// sandbox.
    #[error("it needs Linux")]
    NotLinux,
    /// The control socket could not be made.
    #[error("no control socket")]
    Socket {
        /// The kernel's answer.
        #[source]
        source: Errno,
    },
    /// The host's executable could not be started again.
    #[error("the host's executable could not be started again")]
    Spawn {
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The directory for compiled filters can't be used.
    #[error("the directory for compiled filters can't be used")]
    Cache(#[from] CacheError),
    /// The new process didn't become a zygote: its constructor didn't run, or it ended at once.
    #[error("the new zygote didn't answer")]
    Silent,
}

/// Why a cell didn't start. Nothing of it runs.
///
/// ```
/// use neuroflow_sandbox::{LaunchError, Errno};
///
/// let missing = LaunchError::Program { path: "/bin/nothing".into(), source: Errno::from_raw(2) };
/// assert_eq!(missing.code(), "program");
/// assert!(!missing.is_retryable());
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// The host can't give a layer that the level promises.
    #[error("{layer} is unavailable: {reason}; {remedy}")]
    Unavailable {
        /// Which layer.
        layer: Layer,
        /// Why.
        reason: Reason,
        /// What helps.
        remedy: Remedy,
    },
    /// The program could not be executed: not there, not executable, or not a format the kernel
    /// knows.
    #[error("program {path:?} could not be executed")]
    Program {
        /// The path or name as given.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: Errno,
    },
    /// The program's working directory could not be entered.
    #[error("working directory {path:?} could not be entered")]
    Directory {
        /// The path inside the cell.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: Errno,
    },
    /// A host path could not be shown to the cell.
    #[error("bind of {path:?} failed")]
    Bind {
        /// The host path.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: Errno,
    },
    /// Another step failed.
    #[error("could not {step}")]
    Setup {
        /// Which step.
        step: Step,
        /// The kernel's answer.
        #[source]
        source: Errno,
    },
    /// The program can't be started under any profile.
    #[error("the program is malformed")]
    Malformed(#[from] ProgramError),
    /// The host ran out of something for the cell's pipes.
    #[error("the host could not make the cell's pipes")]
    Pipes {
        /// The kernel's answer.
        #[source]
        source: Errno,
    },
    /// The launcher has as many cells as it can watch.
    #[error("there are {most} cells already")]
    TooManyCells {
        /// The bound.
        most: usize,
    },
    /// The level's system call profile, or the caller's, doesn't become a filter.
    #[error("the system call filter can't be made")]
    Filter(#[source] Box<FilterError>),
    /// The system call profile can't be read.
    #[error("the system call profile can't be read")]
    Seccomp(#[source] Box<SeccompError>),
    /// Cells of that kind can't be made ahead.
    #[error("cells of level {level} that only watch, or of level minimal, can't be made ahead")]
    NotPreparable {
        /// The level.
        level: Level,
    },
    /// The launcher has as many pools as it can keep.
    #[error("there are {most} pools already")]
    TooManyPools {
        /// The bound.
        most: usize,
    },
    /// Cells have no interpreter of that name.
    #[error("there is no {name} where cells look for programs; install it below /usr")]
    NoInterpreter {
        /// Its name.
        name: &'static str,
    },
    /// The zygote died while the cell was starting, and the program may have run. The next launch starts
    /// another zygote.
    #[error("the zygote died while the cell was starting, and the program may have run")]
    LauncherLost,
    /// The zygote died before the program can have run, and so did the one after it.
    #[error("two zygotes in a row died before the program could run")]
    LauncherGone,
    /// The zygote hung for so long that it was given up; the next launch starts another. The program may
    /// have run, or may yet begin, and is ended then.
    #[error(
        "the zygote hasn't answered for {} s and was given up; look whether the paths of all binds answer",
        waited.as_secs()
    )]
    LauncherStalled {
        /// How long it was waited for.
        waited: Duration,
    },
    /// The wall time was over before the program ran.
    #[error("the wall time was over before the program ran; give it more")]
    Overdue,
    /// Something outside ended the cell before the program ran.
    #[error("the cell was killed before the program ran")]
    Killed,
    /// Zygotes die faster than cells start.
    #[error("{restarts} zygotes died without starting a cell")]
    TooManyRestarts {
        /// How many.
        restarts: u32,
    },
    /// There is no zygote, and none can be started.
    #[error("there is no zygote")]
    Launcher(#[from] LauncherError),
    /// An answer that makes no sense: a different version of this crate, or damaged memory.
    #[error("the zygote's answer can't be read")]
    Unreadable,
}

impl From<FilterError> for LaunchError {
    fn from(error: FilterError) -> Self {
        Self::Filter(Box::new(error))
    }
}

impl From<SeccompError> for LaunchError {
    fn from(error: SeccompError) -> Self {
        Self::Seccomp(Box::new(error))
    }
}

impl LaunchError {
    /// A short name that stays the same over versions.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "unavailable",
            Self::Program { .. } => "program",
            Self::Directory { .. } => "directory",
            Self::Bind { .. } => "bind",
            Self::Setup { .. } => "setup",
            Self::Malformed(_) => "malformed",
            Self::Pipes { .. } => "pipes",
            Self::TooManyCells { .. } => "too-many-cells",
            Self::Filter(_) => "filter",
            Self::Seccomp(_) => "seccomp",
            Self::NotPreparable { .. } => "not-preparable",
            Self::TooManyPools { .. } => "too-many-pools",
            Self::NoInterpreter { .. } => "no-interpreter",
            Self::LauncherLost => "launcher-lost",
            Self::LauncherGone => "launcher-gone",
            Self::LauncherStalled { .. } => "launcher-stalled",
            Self::Overdue => "overdue",
            Self::Killed => "killed",
            Self::TooManyRestarts { .. } => "too-many-restarts",
            Self::Launcher(_) => "launcher",
            Self::Unreadable => "unreadable",
        }
    }

    /// Whether the same launch may succeed a moment later.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Pipes { .. }
                | Self::TooManyCells { .. }
                | Self::LauncherLost
                | Self::LauncherGone
                | Self::LauncherStalled { .. }
                | Self::Killed
        )
    }

    /// Whether the program may have run all the same, at least in part: whoever would have told was ended
    /// before. After every other error nothing has run, and the launch can be repeated without doubt.
    ///
    /// ```
    /// use neuroflow_sandbox::LaunchError;
    /// assert!(LaunchError::LauncherLost.is_unknown() && !LaunchError::LauncherGone.is_unknown());
    /// ```
    pub fn is_unknown(&self) -> bool {
        matches!(
            self,
            Self::LauncherLost
                | Self::LauncherStalled { .. }
                | Self::Overdue
                | Self::Killed
                | Self::Pipes { .. }
                | Self::Unreadable
        )
    }
}
