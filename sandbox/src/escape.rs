//! The escape suite: attacks on cells, from inside and around them, and what has to stop each.
//!
//! Every attempt runs in a cell of its own as the host program's own executable, which a
//! constructor diverts before `main`; so whoever links this crate can attack its own host. An
//! attempt is stopped only if the evidence names the layer: an error number alone counts where a
//! control, the same attempt without a cell, shows that nothing else would have said it.

mod expected;
mod judge;

#[cfg(target_os = "linux")]
mod catalogue;
#[cfg(target_os = "linux")]
mod conclude;
#[cfg(target_os = "linux")]
mod plain;
#[cfg(target_os = "linux")]
pub(crate) mod probe;
#[cfg(target_os = "linux")]
mod races;
#[cfg(target_os = "linux")]
mod rebinding;
#[cfg(target_os = "linux")]
mod record;
#[cfg(target_os = "linux")]
mod scene;
mod stale;
#[cfg(target_os = "linux")]
mod suite;

use std::{fmt, io, path::PathBuf};

use crate::{
    error::{LaunchError, LauncherError},
    level::{Layer, Level},
};

#[cfg(not(target_os = "linux"))]
pub use crate::absent::escape::Suite;
pub use judge::{Attack, Judgement};
#[cfg(target_os = "linux")]
pub use suite::Suite;

/// One way to attack a cell.
///
/// ```
/// use neuroflow_sandbox::escape::{Class, Suite};
///
/// let files = Suite::attempts().filter(|attempt| attempt.class == Class::HostFiles);
/// assert!(files.count() > 10);
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Attempt {
    /// A short name that stays the same over versions.
    pub name: &'static str,
    /// What it goes for.
    pub class: Class,
    /// One sentence: what it does.
    pub about: &'static str,
    /// Whether it belongs to the subset that takes less than a second in all.
    pub quick: bool,
    /// Whether, and how, it is shown to work without a cell.
    pub control: Control,
    /// What it may do where nothing stops it.
    pub reach: Reach,
    pub(crate) goal: Goal,
    pub(crate) limits: Limits,
    pub(crate) signs: &'static [Sign],
}

/// What an attempt goes for.
///
/// ```
/// assert_eq!(neuroflow_sandbox::escape::Class::HostFiles.to_string(), "host files");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Class {
    /// Files and devices outside of the cell.
    HostFiles,
    /// Other processes, their memory, and what they share.
    Processes,
    /// More rights than the program was given.
    Privileges,
    /// Parts of the kernel that a program rarely needs and that often have holes.
    Kernel,
    /// Typing into somebody's terminal.
    Terminal,
    /// Anybody who listens.
    Network,
    /// More of the machine than was granted, and life after the end.
    Resources,
    /// The moments while a cell is built.
    Races,
}

impl Class {
    /// All classes, in the order in which they are attacked.
    pub const ALL: [Self; 8] = [
        Self::HostFiles,
        Self::Processes,
        Self::Privileges,
        Self::Kernel,
        Self::Terminal,
        Self::Network,
        Self::Resources,
        Self::Races,
    ];
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::HostFiles => "host files",
            Self::Processes => "processes",
            Self::Privileges => "privileges",
            Self::Kernel => "kernel surface",
            Self::Terminal => "terminal",
            Self::Network => "network",
            Self::Resources => "resources",
            Self::Races => "races",
        })
    }
}

/// How an attempt is shown to work where no cell is.
///
/// ```
/// use neuroflow_sandbox::escape::{Control, Suite};
///
/// let shown = Suite::attempts().filter(|attempt| !matches!(attempt.control, Control::None(_)));
/// assert!(shown.count() > 40);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// The same probe in a plain child of the host succeeds.
    Plain,
    /// The same, if the host is root.
    Root,
    /// There is none, and this is why.
    None(&'static str),
}

/// What an attempt may do where nothing stops it.
///
/// ```
/// use neuroflow_sandbox::escape::{Class, Reach, Suite};
///
/// let bombs = Suite::attempts().filter(|attempt| attempt.reach == Reach::Bounded);
/// assert!(bombs.into_iter().any(|attempt| attempt.class == Class::Resources));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// It shows that it could, and does no harm.
    Harmless,
    /// It runs only where a limit that is promised stops it.
    Bounded,
}

/// What stands in the way: a layer, or what the crate's own processes do.
///
/// ```
/// use neuroflow_sandbox::{Layer, escape::Wall};
///
/// assert_eq!(Wall::Layer(Layer::Seccomp).to_string(), "system call filter");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Wall {
    /// One of the level's layers.
    Layer(Layer),
    /// The cell's first process, which nobody inside can look into or touch.
    FirstProcess,
    /// Only descriptors that were passed on purpose are open.
    Descriptors,
    /// The cell was ended when its time was over.
    WallTime,
    /// The cell was ended when it had written too much.
    OutputLimit,
    /// The launch was refused, or undone.
    Launcher,
    /// The proxy outside of the cell, which has a list of what may be reached.
    Egress,
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layer(layer) => layer.fmt(f),
            Self::FirstProcess => f.write_str("guarded first process"),
            Self::Descriptors => f.write_str("closed descriptors"),
            Self::WallTime => f.write_str("wall time"),
            Self::OutputLimit => f.write_str("output limit"),
            Self::Launcher => f.write_str("launcher"),
            Self::Egress => f.write_str("egress rules"),
        }
    }
}

/// What stopped an attempt.
///
/// ```
/// use neuroflow_sandbox::{Layer, escape::{Stopped, Wall}};
///
/// let stopped = Stopped { layer: Wall::Layer(Layer::PrivateRoot), evidence: "open: ENOENT".into() };
/// assert_eq!(stopped.to_string(), "private root (open: ENOENT)");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// Which wall.
    pub layer: Wall,
    /// What shows that it was this one.
    pub evidence: String,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.layer, self.evidence)
    }
}

/// How an attempt ended.
///
/// ```
/// use neuroflow_sandbox::escape::Outcome;
///
/// assert_ne!(Outcome::Succeeded("read it".into()), Outcome::Unclear("read it".into()));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// A wall stopped it.
    Stopped(Stopped),
    /// It got what it wanted, which is this.
    Succeeded(String),
    /// This host refuses it to everybody, so that it shows nothing here.
    Moot(String),
    /// It wasn't tried, for this reason.
    NotTried(&'static str),
    /// It wasn't tried, because this host lacks the layer that has to stop it, which the cell may.
    Degraded(Layer),
    /// It failed in a way that names no wall, or its control failed.
    Unclear(String),
}

/// One attempt in a peer's cell.
///
/// ```no_run
/// # fn doc(comparison: &neuroflow_sandbox::escape::Comparison) {
/// println!("{}: {:?}", comparison.attempt.name, comparison.outcome);
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Comparison {
    /// What was tried.
    pub attempt: &'static Attempt,
    /// How it ended. A wall's name is a guess by the error number: a peer says nothing of its own.
    pub outcome: Outcome,
}

/// Why attacks can't be made, or what they showed.
///
/// ```
/// use neuroflow_sandbox::{Level, escape::SuiteError};
///
/// let breached = SuiteError::Breached { level: Level::Standard, attempts: vec!["read-host-file"] };
/// assert_eq!(breached.to_string(), "level standard doesn't hold here: read-host-file got through");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SuiteError {
    /// What the attacks go for could not be prepared on this host.
    #[error("{what} could not be prepared for the attacks; make room in {place:?} and try again")]
    Scene {
        /// Which target.
        what: &'static str,
        /// Where.
        place: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The host's own executable is gone or replaced, so that it can't be the attacker.
    #[error("this program's own file can't be found; restart it, it may have been updated")]
    Executable {
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A cell for an attack didn't start.
    #[error("the cell for {attempt} didn't start")]
    Launch {
        /// Which attempt.
        attempt: &'static str,
        /// Why.
        #[source]
        source: Box<LaunchError>,
    },
    /// There is no launcher.
    #[error("no launcher for the attacks")]
    Launcher(#[from] LauncherError),
    /// An attempt without a cell could not be started.
    #[error("{runner} for {attempt} didn't start")]
    Control {
        /// Which attempt.
        attempt: &'static str,
        /// What should have run it.
        runner: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Attempts that the level promises to stop got through.
    #[error("level {level} doesn't hold here: {} got through", attempts.join(", "))]
    Breached {
        /// Which level.
        level: Level,
        /// The names of the attempts.
        attempts: Vec<&'static str>,
    },
}

impl SuiteError {
    /// A stable word: `breached` if something got through, `unproven` if nobody knows.
    ///
    /// ```
    /// use neuroflow_sandbox::{LauncherError, escape::SuiteError};
    ///
    /// assert_eq!(SuiteError::Launcher(LauncherError::Silent).code(), "unproven");
    /// ```
    pub fn code(&self) -> &'static str {
        match self {
            Self::Breached { .. } => "breached",
            _ => "unproven",
        }
    }
}

/// What an attempt wants, and so when it has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// What its probe says.
    Reach,
    /// To be still there after the end, or to hold the end up.
    Outlive,
    /// The host does it and looks itself.
    Around,
}

/// Which limits the attacked cell has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limits {
    /// Enough for every probe.
    Usual,
    /// Little of everything.
    Tight,
    /// The same, and an end soon.
    Short,
    /// As usual, with a proxy that lets a little out.
    Proxied,
}

/// What shows that a wall stopped the attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sign {
    /// The attempt failed with this error number.
    Errno(i32, Wall),
    /// It failed in this call with this error number.
    Call(&'static str, i32, Wall),
    /// Its program was ended by this signal.
    Signal(i32, Wall),
    /// The cell was ended because of this wall.
    Ended(Wall),
    /// It did what it wanted and left nothing behind.
    Gone(Wall),
}
