//! Why a profile is refused.

use std::{ffi::OsString, fmt, path::PathBuf};

use crate::{level::Level, network::NetworkError};

/// Names a setting of a profile in errors.
///
/// ```
/// assert_eq!(neuroflow_sandbox::Setting::OpenFiles.to_string(), "open files");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Setting {
    /// [`ProfileBuilder::wall_time`](super::ProfileBuilder::wall_time), in milliseconds.
    WallTime,
    /// [`ProfileBuilder::memory`](super::ProfileBuilder::memory), in bytes.
    Memory,
    /// [`ProfileBuilder::processes`](super::ProfileBuilder::processes).
    Processes,
    /// [`ProfileBuilder::open_files`](super::ProfileBuilder::open_files).
    OpenFiles,
    /// [`ProfileBuilder::file_size`](super::ProfileBuilder::file_size), in bytes.
    FileSize,
    /// [`ProfileBuilder::output`](super::ProfileBuilder::output), in bytes.
    Output,
    /// [`ProfileBuilder::workdir_size`](super::ProfileBuilder::workdir_size), in bytes.
    Workdir,
    /// [`ProfileBuilder::env`](super::ProfileBuilder::env), how many.
    Environment,
    /// The binds, how many.
    Binds,
    /// [`ProfileBuilder::network`](super::ProfileBuilder::network).
    Network,
    /// [`ProfileBuilder::memory_high`](super::ProfileBuilder::memory_high), in bytes.
    MemoryHigh,
    /// [`ProfileBuilder::swap`](super::ProfileBuilder::swap), in bytes.
    Swap,
    /// [`ProfileBuilder::address_space`](super::ProfileBuilder::address_space), in bytes.
    AddressSpace,
    /// [`ProfileBuilder::cpu_milli`](super::ProfileBuilder::cpu_milli).
    Cpu,
    /// [`ProfileBuilder::cpu_weight`](super::ProfileBuilder::cpu_weight).
    CpuWeight,
    /// [`ProfileBuilder::io_bandwidth`](super::ProfileBuilder::io_bandwidth), in bytes per second.
    IoBandwidth,
    /// [`ProfileBuilder::io_operations`](super::ProfileBuilder::io_operations), per second.
    IoOperations,
    /// [`ProfileBuilder::inodes`](super::ProfileBuilder::inodes).
    Inodes,
    /// [`ProfileBuilder::copy_on_write`](super::ProfileBuilder::copy_on_write), how many, or its size in bytes.
    CopyOnWrite,
    /// [`ProfileBuilder::seccomp`](super::ProfileBuilder::seccomp) or [`ProfileBuilder::learn`](super::ProfileBuilder::learn).
    Seccomp,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WallTime => "wall time (ms)",
            Self::Memory => "memory (bytes)",
            Self::Processes => "processes",
            Self::OpenFiles => "open files",
            Self::FileSize => "file size (bytes)",
            Self::Output => "output (bytes)",
            Self::Workdir => "working directory (bytes)",
            Self::Environment => "environment variables",
            Self::Binds => "binds",
            Self::Network => "network",
            Self::MemoryHigh => "memory high (bytes)",
            Self::Swap => "swap (bytes)",
            Self::AddressSpace => "address space (bytes)",
            Self::Cpu => "processor (thousandths of a core)",
            Self::CpuWeight => "processor weight",
            Self::IoBandwidth => "io bandwidth (bytes per second)",
            Self::IoOperations => "io operations (per second)",
            Self::Inodes => "inodes",
            Self::CopyOnWrite => "copy on write",
            Self::Seccomp => "system call filter",
        })
    }
}

/// Why a profile is refused.
///
/// ```
/// use neuroflow_sandbox::{Level, Profile, ProfileError};
///
/// let refused = Profile::builder(Level::Standard).bind_ro("/srv", "/a/../etc").build();
/// assert!(matches!(refused, Err(ProfileError::InnerPath { .. })));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// A number is outside its bounds.
    #[error("{setting} is {given}, allowed are {least} to {most}")]
    OutOfRange {
        /// Which number.
        setting: Setting,
        /// What was asked for.
        given: u64,
        /// The lower bound.
        least: u64,
        /// The upper bound.
        most: u64,
    },
    /// The setting means nothing at the profile's level.
    #[error("{setting} needs level {level}")]
    NeedsLevel {
        /// Which setting.
        setting: Setting,
        /// The lowest level that has it.
        level: Level,
    },
    /// The level rules the setting out.
    #[error("{setting} can't be had at level {level}; choose a lower one, or leave it out")]
    NotAtLevel {
        /// Which setting.
        setting: Setting,
        /// The level.
        level: Level,
    },
    /// A rule of the network makes no sense.
    #[error("the network's rules can't be used")]
    Network(#[from] NetworkError),
    /// The name of a variable is empty or has `=` or NUL in it, or its value has NUL in it.
    #[error("environment variable {name:?} is malformed")]
    Variable {
        /// The variable's name.
        name: OsString,
    },
    /// A host path isn't absolute, is too long, or has NUL in it.
    #[error("host path {path:?} is not an absolute path")]
    HostPath {
        /// The path.
        path: PathBuf,
    },
    /// An inner path isn't a plain absolute path, or lies in a place that the cell keeps for
    /// itself.
    #[error("inner path {path:?} is not a plain absolute path outside of /proc and /dev")]
    InnerPath {
        /// The path.
        path: PathBuf,
    },
    /// Two binds have the same inner path.
    #[error("two binds for inner path {path:?}")]
    InnerPathTwice {
        /// The path.
        path: PathBuf,
    },
}
