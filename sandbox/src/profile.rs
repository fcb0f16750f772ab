//! What a cell may use. Checked once, when it is built; a profile that exists is valid.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use crate::{level::Level, limits};

/// Level and limits of a cell.
///
/// Every default is bounded and safe; a call that loosens one is visible in the code.
///
/// ```
/// use std::time::Duration;
/// use neuroflow_sandbox::{Level, Profile};
///
/// let profile = Profile::builder(Level::Standard)
///     .wall_time(Duration::from_secs(5))
///     .memory(256 << 20)
///     .env("GREETING", "hello")
///     .build()?;
/// assert_eq!(profile.level(), Level::Standard);
/// # Ok::<(), neuroflow_sandbox::ProfileError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    pub(crate) level: Level,
    pub(crate) wall_time: Duration,
    pub(crate) memory_bytes: u64,
    pub(crate) processes: u32,
    pub(crate) open_files: u32,
    pub(crate) file_size_bytes: u64,
    pub(crate) output_bytes: u64,
    pub(crate) workdir_bytes: u64,
    pub(crate) variables: Vec<(OsString, OsString)>,
    pub(crate) binds: Vec<Bind>,
    pub(crate) loopback: bool,
}

impl Profile {
    /// Starts a profile with the defaults of [`crate::limits`].
    pub fn builder(level: Level) -> ProfileBuilder {
        ProfileBuilder {
            profile: Self {
                level,
                wall_time: limits::DEFAULT_WALL_TIME,
                memory_bytes: limits::DEFAULT_MEMORY_BYTES,
                processes: limits::DEFAULT_PROCESSES,
                open_files: limits::DEFAULT_OPEN_FILES,
                file_size_bytes: limits::DEFAULT_FILE_SIZE_BYTES,
                output_bytes: limits::DEFAULT_OUTPUT_BYTES,
                workdir_bytes: limits::DEFAULT_WORKDIR_BYTES,
                variables: Vec::new(),
                binds: Vec::new(),
                loopback: false,
            },
            beyond_minimal: None,
        }
    }

    /// The level that a cell of this profile has, or isn't started at all.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Output that the cell may write before it is ended.
    pub fn output_bytes(&self) -> u64 {
        self.output_bytes
    }

    /// How long the cell may run.
    pub fn longest(&self) -> Duration {
        self.wall_time
    }

    pub(crate) fn bind_at(&self, inside: &Path) -> bool {
        self.binds.iter().any(|bind| bind.inside == inside)
    }
}

/// A host path that the cell sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bind {
    pub(crate) host: PathBuf,
    pub(crate) inside: PathBuf,
    pub(crate) writable: bool,
}

/// Collects the settings of a [`Profile`]; made by [`Profile::builder`].
///
/// ```
/// use neuroflow_sandbox::{Level, Profile, ProfileError, Setting};
///
/// let refused = Profile::builder(Level::Standard).open_files(1).build();
/// assert!(matches!(refused, Err(ProfileError::OutOfRange { setting: Setting::OpenFiles, .. })));
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct ProfileBuilder {
    profile: Profile,
    beyond_minimal: Option<Setting>,
}

impl ProfileBuilder {
    /// How long the cell may run, from its start, whatever it does.
    pub fn wall_time(mut self, longest: Duration) -> Self {
        self.profile.wall_time = longest;
        self
    }

    /// Address space of **each process** (`RLIMIT_AS`).
    ///
    /// This is no limit for the cell as a whole: with `n` processes it may use `n` times as much,
    /// and what it writes to `/work`, `/tmp` and `/dev/shm` comes on top. Programs that reserve far
    /// more than they use (some garbage collectors, WebAssembly engines) need a large value.
    pub fn memory(mut self, bytes: u64) -> Self {
        self.profile.memory_bytes = bytes;
        self
    }

    /// Processes and threads at a time in the whole cell. Needs [`Level::Standard`]: without own
    /// user ids the kernel would count all processes of the host's user.
    pub fn processes(mut self, most: u32) -> Self {
        self.profile.processes = most;
        self.beyond_minimal.get_or_insert(Setting::Processes);
        self
    }

    /// Open files of each process.
    pub fn open_files(mut self, most: u32) -> Self {
        self.profile.open_files = most;
        self
    }

    /// Largest file that the cell can write.
    pub fn file_size(mut self, bytes: u64) -> Self {
        self.profile.file_size_bytes = bytes;
        self
    }

    /// Bytes on standard output and standard error together; past them the cell is ended.
    pub fn output(mut self, bytes: u64) -> Self {
        self.profile.output_bytes = bytes;
        self
    }

    /// Size of `/work`, a tmpfs. Needs [`Level::Standard`].
    pub fn workdir_size(mut self, bytes: u64) -> Self {
        self.profile.workdir_bytes = bytes;
        self.beyond_minimal.get_or_insert(Setting::Workdir);
        self
    }

    /// Adds or replaces one variable of the environment, which otherwise holds `PATH`, `HOME` and
    /// `LANG` only.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        let (name, value) = (name.into(), value.into());
        self.profile.variables.retain(|(known, _)| *known != name);
        self.profile.variables.push((name, value));
        self
    }

    /// Shows a host file or directory, read-only. Needs [`Level::Standard`].
    pub fn bind_read_only(self, host: impl Into<PathBuf>, inside: impl Into<PathBuf>) -> Self {
        self.bind(host.into(), inside.into(), false)
    }

    /// Shows a host file or directory, writable. Needs [`Level::Standard`].
    ///
    /// An unprivileged host's cell acts with the host's own id. A privileged host's cell acts with
    /// the id of the bind's owner where the file system supports mapped mounts, but never with the
    /// id of root: a bind that root owns stays under its permission bits.
    pub fn bind_read_write(self, host: impl Into<PathBuf>, inside: impl Into<PathBuf>) -> Self {
        self.bind(host.into(), inside.into(), true)
    }

    /// Whether `127.0.0.1` works inside. Needs [`Level::Standard`].
    pub fn loopback(mut self, on: bool) -> Self {
        self.profile.loopback = on;
        self.beyond_minimal.get_or_insert(Setting::Loopback);
        self
    }

    /// Checks everything.
    ///
    /// # Errors
    ///
    /// The first setting that is out of its range, malformed, or not to be had at the level.
    pub fn build(self) -> Result<Profile, ProfileError> {
        let profile = self.profile;
        if let (Level::Minimal, Some(setting)) = (profile.level, self.beyond_minimal) {
            return Err(ProfileError::NeedsLevel { setting, level: Level::Standard });
        }
        check_ranges(&profile)?;
        check_variables(&profile.variables)?;
        check_binds(&profile.binds)?;
        Ok(profile)
    }

    fn bind(mut self, host: PathBuf, inside: PathBuf, writable: bool) -> Self {
        self.profile.binds.push(Bind { host, inside, writable });
        self.beyond_minimal.get_or_insert(Setting::Binds);
        self
    }
}

/// Names a setting of a profile in errors.
///
/// ```
/// assert_eq!(neuroflow_sandbox::Setting::OpenFiles.to_string(), "open files");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Setting {
    /// [`ProfileBuilder::wall_time`], in milliseconds.
    WallTime,
    /// [`ProfileBuilder::memory`], in bytes.
    Memory,
    /// [`ProfileBuilder::processes`].
    Processes,
    /// [`ProfileBuilder::open_files`].
    OpenFiles,
    /// [`ProfileBuilder::file_size`], in bytes.
    FileSize,
    /// [`ProfileBuilder::output`], in bytes.
    Output,
    /// [`ProfileBuilder::workdir_size`], in bytes.
    Workdir,
    /// [`ProfileBuilder::env`], how many.
    Environment,
    /// The binds, how many.
    Binds,
    /// [`ProfileBuilder::loopback`].
    Loopback,
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
            Self::Loopback => "loopback",
        })
    }
}

/// Why a profile is refused.
///
/// ```
/// use neuroflow_sandbox::{Level, Profile, ProfileError};
///
/// let refused = Profile::builder(Level::Standard).bind_read_only("/srv", "/a/../etc").build();
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

fn check_ranges(profile: &Profile) -> Result<(), ProfileError> {
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
    let rows = [
        (
            Setting::WallTime,
            milliseconds(profile.wall_time),
            1,
            milliseconds(limits::MAX_WALL_TIME),
        ),
        (Setting::Memory, profile.memory_bytes, limits::MIN_MEMORY_BYTES, limits::MAX_MEMORY_BYTES),
        (Setting::Processes, profile.processes.into(), 1, limits::MAX_PROCESSES.into()),
        (
            Setting::OpenFiles,
            profile.open_files.into(),
            limits::MIN_OPEN_FILES.into(),
            limits::MAX_OPEN_FILES.into(),
        ),
        (Setting::FileSize, profile.file_size_bytes, 0, limits::MAX_FILE_SIZE_BYTES),
        (Setting::Output, profile.output_bytes, 0, limits::MAX_OUTPUT_BYTES),
        (
            Setting::Workdir,
            profile.workdir_bytes,
            limits::MIN_WORKDIR_BYTES,
            limits::MAX_WORKDIR_BYTES,
        ),
        (Setting::Environment, count(profile.variables.len()), 0, count(limits::MAX_VARIABLES)),
        (Setting::Binds, count(profile.binds.len()), 0, count(limits::MAX_BINDS)),
    ];
    for (setting, given, least, most) in rows {
        if !(least..=most).contains(&given) {
            return Err(ProfileError::OutOfRange { setting, given, least, most });
        }
    }
    Ok(())
}

fn check_variables(variables: &[(OsString, OsString)]) -> Result<(), ProfileError> {
    let malformed = |(name, value): &&(OsString, OsString)| {
        let bytes = name.as_encoded_bytes();
        bytes.is_empty() || bytes.contains(&b'=') || has_nul(name) || has_nul(value)
    };
    match variables.iter().find(malformed) {
        Some((name, _)) => Err(ProfileError::Variable { name: name.clone() }),
        None => Ok(()),
    }
}

fn check_binds(binds: &[Bind]) -> Result<(), ProfileError> {
    for (index, bind) in binds.iter().enumerate() {
        if !bind.host.is_absolute() || has_nul(bind.host.as_os_str()) || is_long(&bind.host) {
            return Err(ProfileError::HostPath { path: bind.host.clone() });
        }
        if !is_plain(&bind.inside) || is_kept(&bind.inside) {
            return Err(ProfileError::InnerPath { path: bind.inside.clone() });
        }
        if binds.iter().take(index).any(|earlier| earlier.inside == bind.inside) {
            return Err(ProfileError::InnerPathTwice { path: bind.inside.clone() });
        }
    }
    Ok(())
}

/// Absolute, without `.` and `..`, of bounded depth, and not the root itself. `Path::components`
/// swallows a `.` in the middle, so the bytes are looked at.
fn is_plain(path: &Path) -> bool {
    let bytes = path.as_os_str().as_encoded_bytes();
    let Some(rest) = bytes.strip_prefix(b"/") else { return false };
    let parts: Vec<&[u8]> = rest.split(|byte| *byte == b'/').collect();
    !has_nul(path.as_os_str())
        && !is_long(path)
        && parts.len() <= limits::MAX_PATH_DEPTH
        && parts.iter().all(|part| !part.is_empty() && *part != b"." && *part != b"..")
}

/// `/proc` and `/dev` are what the promises of the level rest on.
fn is_kept(inside: &Path) -> bool {
    let first = inside.components().find(|part| matches!(part, Component::Normal(_)));
    first.is_some_and(|part| part.as_os_str() == "proc" || part.as_os_str() == "dev")
}

fn is_long(path: &Path) -> bool {
    path.as_os_str().len() >= limits::MAX_PATH_BYTES
}

fn has_nul(text: &OsStr) -> bool {
    text.as_encoded_bytes().contains(&0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standard() -> ProfileBuilder {
        Profile::builder(Level::Standard)
    }

    #[test]
    fn defaults_are_valid_at_every_level() {
        for level in [Level::Minimal, Level::Standard, Level::Strict, Level::Paranoid] {
            assert!(Profile::builder(level).build().is_ok());
        }
    }

    #[test]
    fn inner_paths_are_plain() {
        for path in [
            "relative",
            "/",
            "//x",
            "/x/",
            "/./x",
            "/x/../y",
            "/proc",
            "/proc/x",
            "/dev/null",
            "/x\0y",
        ] {
            let refused = standard().bind_read_only("/srv", path).build();
            assert!(
                matches!(refused, Err(ProfileError::InnerPath { .. })),
                "{path:?}: {refused:?}"
            );
        }
        for path in ["/data", "/work", "/process", "/usr/local/x", "/a b/..c"] {
            assert!(standard().bind_read_only("/srv", path).build().is_ok(), "{path:?}");
        }
    }

    #[test]
    fn minimal_refuses_what_it_can_not_give() {
        let minimal = || Profile::builder(Level::Minimal);
        for refused in [
            minimal().bind_read_only("/srv", "/srv").build(),
            minimal().processes(4).build(),
            minimal().workdir_size(1 << 20).build(),
            minimal().loopback(true).build(),
        ] {
            assert!(matches!(
                refused,
                Err(ProfileError::NeedsLevel { level: Level::Standard, .. })
            ));
        }
    }

    #[test]
    fn variables_are_well_formed_and_unique() {
        for (name, value) in [("", "x"), ("a=b", "x"), ("a\0", "x"), ("a", "x\0")] {
            assert!(matches!(
                standard().env(name, value).build(),
                Err(ProfileError::Variable { .. })
            ));
        }
        let profile = standard().env("A", "1").env("A", "2").build();
        assert_eq!(profile.map(|profile| profile.variables.len()), Ok(1));
    }

    #[test]
    fn inner_paths_are_unique() {
        let twice = standard().bind_read_only("/a", "/x").bind_read_write("/b", "/x").build();
        assert!(matches!(twice, Err(ProfileError::InnerPathTwice { .. })));
    }
}
