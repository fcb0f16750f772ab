//! What a cell may use. Checked once, when it is built; a profile that exists is valid.
//!
//! The file is long by its table of settings: each has a setter with its documentation, and a check.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    marker::PhantomData,
    path::{Component, Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::{
    egress::Policy,
    level::Level,
    limits,
    network::{Network, NetworkError},
    seccomp::SeccompProfile,
};

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
    pub(crate) memory_high_bytes: Option<u64>,
    pub(crate) swap_bytes: u64,
    pub(crate) address_space_bytes: Option<u64>,
    pub(crate) cpu_milli: Option<u32>,
    pub(crate) cpu_weight: u32,
    pub(crate) io_bytes_per_second: Option<u64>,
    pub(crate) io_operations_per_second: Option<u64>,
    pub(crate) processes: u32,
    pub(crate) open_files: u32,
    pub(crate) file_size_bytes: u64,
    pub(crate) output_bytes: u64,
    pub(crate) workdir_bytes: u64,
    pub(crate) overlay_bytes: u64,
    pub(crate) inodes: u64,
    pub(crate) variables: Vec<(OsString, OsString)>,
    pub(crate) binds: Vec<Bind>,
    pub(crate) network: Network,
    pub(crate) egress: EgressPolicy,
    pub(crate) allow_degraded: bool,
    pub(crate) seccomp: Option<Arc<SeccompProfile>>,
    pub(crate) learn: bool,
}

impl Profile {
    /// Starts a profile with the defaults of [`crate::limits`].
    pub fn builder(level: Level) -> ProfileBuilder {
        ProfileBuilder::new(level)
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

    /// The same for a service: a program that is talked to for as long as both sides like. Its cell
    /// lives for [`limits::SERVICE_TIME`], and what it writes isn't counted: whoever reads it holds
    /// it up.
    ///
    /// ```
    /// use neuroflow_sandbox::{Level, Profile, limits};
    /// let profile = Profile::builder(Level::Strict).build()?.for_service();
    /// assert_eq!(profile.longest(), limits::SERVICE_TIME);
    /// # Ok::<(), neuroflow_sandbox::ProfileError>(())
    /// ```
    #[must_use]
    pub fn for_service(mut self) -> Self {
        self.wall_time = limits::SERVICE_TIME;
        self.output_bytes = u64::MAX;
        self
    }

    /// Whether the cell may do without layers that the host can't give.
    pub fn allows_degraded(&self) -> bool {
        self.allow_degraded
    }

    /// Everything that it allows, as text of no certain form: two profiles that differ in more than
    /// secrets have different texts, in one version of this crate.
    pub fn written(&self) -> String {
        // The rules of the network say it all; what they were compiled to says nothing more.
        format!("{:?}", Self { egress: EgressPolicy::default(), ..self.clone() })
    }

    pub(crate) fn limits_io(&self) -> bool {
        self.io_bytes_per_second.is_some() || self.io_operations_per_second.is_some()
    }

    pub(crate) fn has_loopback(&self) -> bool {
        self.network.has_loopback()
    }

    pub(crate) fn has_egress(&self) -> bool {
        self.egress.0.is_some()
    }

    /// The host directory that is shown copy-on-write.
    pub(crate) fn project(&self) -> Option<&Path> {
        let copied = self.binds.iter().find(|bind| bind.view == View::CopyOnWrite);
        copied.map(|bind| bind.host.as_path())
    }

    pub(crate) fn bind_at(&self, inside: &Path) -> bool {
        self.binds.iter().any(|bind| bind.inside == inside)
    }
}

/// The network's rules as the proxy has them. They follow from the network, so they make no
/// difference between two profiles.
#[derive(Debug, Clone, Default)]
pub(crate) struct EgressPolicy(pub(crate) Option<Arc<Policy>>);

impl PartialEq for EgressPolicy {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for EgressPolicy {}

/// A host path that the cell sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bind {
    pub(crate) host: PathBuf,
    pub(crate) inside: PathBuf,
    pub(crate) view: View,
}

/// How the cell sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    ReadOnly,
    Writable,
    /// Writable, but what is written goes elsewhere.
    CopyOnWrite,
}

/// Collects the settings of a [`Profile`]; made by [`Profile::builder`].
///
/// ```
/// use neuroflow_sandbox::{Level, Profile, ProfileError, Setting};
///
/// let refused = Profile::builder(Level::Standard).open_files(1).build();
/// assert!(matches!(refused, Err(ProfileError::OutOfRange { setting: Setting::OpenFiles, .. })));
/// ```
///
/// What it builds is the profile itself or, for [`crate::Cell::builder`], the cell around it.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct ProfileBuilder<T = Profile> {
    profile: Profile,
    beyond_minimal: Option<Setting>,
    beyond_standard: Option<Setting>,
    builds: PhantomData<fn() -> T>,
}

impl<T: From<Profile>> ProfileBuilder<T> {
    pub(crate) fn new(level: Level) -> Self {
        Self {
            profile: Profile {
                level,
                wall_time: limits::DEFAULT_WALL_TIME,
                memory_bytes: limits::DEFAULT_MEMORY_BYTES,
                memory_high_bytes: None,
                swap_bytes: 0,
                address_space_bytes: None,
                cpu_milli: Some(limits::DEFAULT_CPU_MILLI),
                cpu_weight: limits::DEFAULT_CPU_WEIGHT,
                io_bytes_per_second: None,
                io_operations_per_second: None,
                processes: limits::DEFAULT_PROCESSES,
                open_files: limits::DEFAULT_OPEN_FILES,
                file_size_bytes: limits::DEFAULT_FILE_SIZE_BYTES,
                output_bytes: limits::DEFAULT_OUTPUT_BYTES,
                workdir_bytes: limits::DEFAULT_WORKDIR_BYTES,
                overlay_bytes: limits::DEFAULT_WORKDIR_BYTES,
                inodes: limits::WRITABLE_INODES,
                variables: Vec::new(),
                binds: Vec::new(),
                network: Network::none(),
                egress: EgressPolicy::default(),
                allow_degraded: false,
                seccomp: None,
                learn: false,
            },
            beyond_minimal: None,
            beyond_standard: None,
            builds: PhantomData,
        }
    }

    /// How long the cell may run, from its start, whatever it does.
    pub fn wall_time(mut self, longest: Duration) -> Self {
        self.profile.wall_time = longest;
        self
    }

    /// Memory.
    ///
    /// From [`Level::Strict`] on it limits the cell as a whole: all processes, their page cache, and
    /// what is written to `/work`, `/tmp` and `/dev/shm`; past it the kernel ends processes of the
    /// cell. Below, it limits the address space of **each process** (`RLIMIT_AS`), and programs that
    /// reserve far more than they use need a large value.
    pub fn memory(mut self, bytes: u64) -> Self {
        self.profile.memory_bytes = bytes;
        self
    }

    /// Memory past which the cell is slowed down and its caches are given up (`memory.high`). Needs
    /// [`Level::Strict`]. Where version 1 of cgroups holds the memory controller it's only a wish.
    pub fn memory_high(mut self, bytes: u64) -> Self {
        self.profile.memory_high_bytes = Some(bytes);
        self.beyond_standard.get_or_insert(Setting::MemoryHigh);
        self
    }

    /// Swap that the cell may use; none if not called. Needs [`Level::Strict`].
    pub fn swap(mut self, bytes: u64) -> Self {
        self.profile.swap_bytes = bytes;
        self.beyond_standard.get_or_insert(Setting::Swap);
        self
    }

    /// Address space of each process (`RLIMIT_AS`), apart from [`memory`](Self::memory).
    pub fn address_space(mut self, bytes: u64) -> Self {
        self.profile.address_space_bytes = Some(bytes);
        self
    }

    /// Processor time per time, in thousandths of a core: 1000 if not called, `None` for no limit.
    /// In force from [`Level::Strict`] on.
    pub fn cpu_milli(mut self, most: impl Into<Option<u32>>) -> Self {
        self.profile.cpu_milli = most.into();
        self.beyond_standard.get_or_insert(Setting::Cpu);
        self
    }

    /// Processor time per time, in cores. See [`cpu_milli`](Self::cpu_milli).
    pub fn cpu(self, cores: f64) -> Self {
        // A value that makes no sense becomes 0, which `build` refuses.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a conversion that saturates, with NaN as 0"
        )]
        let milli = (cores * 1000.0).round() as u32;
        self.cpu_milli(milli)
    }

    /// Share of the processors beside others that want them, 1 to 10 000; 100 if not called. Needs
    /// [`Level::Strict`].
    pub fn cpu_weight(mut self, weight: u32) -> Self {
        self.profile.cpu_weight = weight;
        self.beyond_standard.get_or_insert(Setting::CpuWeight);
        self
    }

    /// Bytes per second that the cell may read from, and write to, each disk. Needs
    /// [`Level::Strict`] and a host with an io controller.
    pub fn io_bandwidth(mut self, bytes_per_second: u64) -> Self {
        self.profile.io_bytes_per_second = Some(bytes_per_second);
        self.beyond_standard.get_or_insert(Setting::IoBandwidth);
        self
    }

    /// Reads, and writes, per second and disk. Needs [`Level::Strict`] and a host with an io
    /// controller.
    pub fn io_operations(mut self, per_second: u64) -> Self {
        self.profile.io_operations_per_second = Some(per_second);
        self.beyond_standard.get_or_insert(Setting::IoOperations);
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

    /// Files and directories in each of `/work`, `/tmp` and `/dev/shm`. Needs [`Level::Standard`].
    pub fn inodes(mut self, most: u64) -> Self {
        self.profile.inodes = most;
        self.beyond_minimal.get_or_insert(Setting::Inodes);
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
    ///
    /// Links on the way to it are followed by [`ProfileBuilder::build`], once. A link that takes
    /// the place of a part of the way later is not: the launch is refused
    /// ([`crate::LaunchError::Bind`], `ELOOP`), because whoever can swap it could have any
    /// directory of the host shown.
    pub fn bind_ro(self, host: impl Into<PathBuf>, inside: impl Into<PathBuf>) -> Self {
        self.bind(host.into(), inside.into(), View::ReadOnly)
    }

    /// Shows a host file or directory, writable. Needs [`Level::Standard`]. Links are followed as
    /// in [`ProfileBuilder::bind_ro`].
    ///
    /// An unprivileged host's cell acts with the host's own id. A privileged host's cell acts with
    /// the id of the bind's owner where the file system supports mapped mounts, but never with the
    /// id of root: a bind that root owns stays under its permission bits.
    pub fn bind_rw(self, host: impl Into<PathBuf>, inside: impl Into<PathBuf>) -> Self {
        self.bind(host.into(), inside.into(), View::Writable)
    }

    /// Shows a host directory as the working directory, `/work`, writable. See
    /// [`bind_rw`](Self::bind_rw). Needs [`Level::Standard`].
    pub fn workdir(self, host: impl Into<PathBuf>) -> Self {
        self.bind_rw(host, crate::plan::WORKDIR)
    }

    /// Shows a host directory as if it were writable, and keeps what is written apart: it is handed
    /// out as changes when the cell has ended, or thrown away. One per profile; needs
    /// [`Level::Standard`].
    pub fn copy_on_write(self, host: impl Into<PathBuf>, inside: impl Into<PathBuf>) -> Self {
        self.bind(host.into(), inside.into(), View::CopyOnWrite)
    }

    /// How much may be written to the directory of [`copy_on_write`](Self::copy_on_write).
    pub fn copy_on_write_size(mut self, bytes: u64) -> Self {
        self.profile.overlay_bytes = bytes;
        self.beyond_minimal.get_or_insert(Setting::CopyOnWrite);
        self
    }

    /// What the cell reaches: nothing if not called. Needs [`Level::Standard`], and a level below
    /// [`Level::Paranoid`], which has no sockets.
    pub fn network(mut self, network: Network) -> Self {
        self.profile.network = network;
        self.beyond_minimal.get_or_insert(Setting::Network);
        self
    }

    /// An own list of allowed system calls in place of the level's. Needs [`Level::Standard`].
    pub fn seccomp(mut self, profile: SeccompProfile) -> Self {
        self.profile.seccomp = Some(Arc::new(profile));
        self.beyond_minimal.get_or_insert(Setting::Seccomp);
        self
    }

    /// Lets every system call through and reports which were made, to make a list from. Such a cell
    /// has no filter, so only trusted programs belong in it. Needs [`Level::Standard`].
    pub fn learn(mut self, on: bool) -> Self {
        self.profile.learn = on;
        if on {
            self.beyond_minimal.get_or_insert(Setting::Seccomp);
        }
        self
    }

    /// Lets the cell do without those of its level's layers that the host can't give: control groups,
    /// the system call filter, Landlock, an outer id of its own. The report names what was missing.
    pub fn allow_degraded(mut self, allow: bool) -> Self {
        self.profile.allow_degraded = allow;
        self
    }

    /// Checks everything.
    ///
    /// # Errors
    ///
    /// The first setting that is out of its range, malformed, or not to be had at the level.
    pub fn build(self) -> Result<T, ProfileError> {
        let mut profile = self.profile;
        if let (Level::Minimal, Some(setting)) = (profile.level, self.beyond_minimal) {
            return Err(ProfileError::NeedsLevel { setting, level: Level::Standard });
        }
        if let (Level::Standard | Level::Minimal, Some(setting)) =
            (profile.level, self.beyond_standard)
        {
            return Err(ProfileError::NeedsLevel { setting, level: Level::Strict });
        }
        if profile.level == Level::Paranoid && profile.network != Network::none() {
            return Err(ProfileError::NotAtLevel {
                setting: Setting::Network,
                level: Level::Paranoid,
            });
        }
        profile.egress = EgressPolicy(profile.network.policy()?);
        check_ranges(&profile)?;
        check_variables(&profile.variables)?;
        check_binds(&profile.binds)?;
        for bind in &mut profile.binds {
            // What isn't there yet may come before a cell starts.
            if let Ok(straight) = bind.host.canonicalize() {
                bind.host = straight;
            }
        }
        Ok(profile.into())
    }

    fn bind(mut self, host: PathBuf, inside: PathBuf, view: View) -> Self {
        self.profile.binds.push(Bind { host, inside, view });
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
    /// [`ProfileBuilder::network`].
    Network,
    /// [`ProfileBuilder::memory_high`], in bytes.
    MemoryHigh,
    /// [`ProfileBuilder::swap`], in bytes.
    Swap,
    /// [`ProfileBuilder::address_space`], in bytes.
    AddressSpace,
    /// [`ProfileBuilder::cpu_milli`].
    Cpu,
    /// [`ProfileBuilder::cpu_weight`].
    CpuWeight,
    /// [`ProfileBuilder::io_bandwidth`], in bytes per second.
    IoBandwidth,
    /// [`ProfileBuilder::io_operations`], per second.
    IoOperations,
    /// [`ProfileBuilder::inodes`].
    Inodes,
    /// [`ProfileBuilder::copy_on_write`], how many, or its size in bytes.
    CopyOnWrite,
    /// [`ProfileBuilder::seccomp`] or [`ProfileBuilder::learn`].
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
        (
            Setting::CopyOnWrite,
            profile.overlay_bytes,
            limits::MIN_WORKDIR_BYTES,
            limits::MAX_WORKDIR_BYTES,
        ),
        (Setting::CopyOnWrite, count(overlays(profile)), 0, 1),
        (Setting::Inodes, profile.inodes, limits::MIN_INODES, limits::MAX_INODES),
        (Setting::CpuWeight, profile.cpu_weight.into(), 1, limits::MAX_CPU_WEIGHT.into()),
        (Setting::Swap, profile.swap_bytes, 0, limits::MAX_MEMORY_BYTES),
        (Setting::Environment, count(profile.variables.len()), 0, count(limits::MAX_VARIABLES)),
        (Setting::Binds, count(profile.binds.len()), 0, count(limits::MAX_BINDS)),
    ];
    let optional = [
        (
            Setting::Cpu,
            profile.cpu_milli.map(u64::from),
            limits::MIN_CPU_MILLI.into(),
            limits::MAX_CPU_MILLI.into(),
        ),
        (
            Setting::MemoryHigh,
            profile.memory_high_bytes,
            limits::MIN_MEMORY_BYTES,
            limits::MAX_MEMORY_BYTES,
        ),
        (
            Setting::AddressSpace,
            profile.address_space_bytes,
            limits::MIN_MEMORY_BYTES,
            limits::MAX_MEMORY_BYTES,
        ),
        (
            Setting::IoBandwidth,
            profile.io_bytes_per_second,
            limits::MIN_IO_BYTES,
            limits::MAX_MEMORY_BYTES,
        ),
        (Setting::IoOperations, profile.io_operations_per_second, 1, u32::MAX.into()),
    ];
    let given = optional.into_iter().filter_map(|(setting, given, least, most)| {
        given.map(|given| (setting, given, least, most))
    });
    for (setting, given, least, most) in rows.into_iter().chain(given) {
        if !(least..=most).contains(&given) {
            return Err(ProfileError::OutOfRange { setting, given, least, most });
        }
    }
    Ok(())
}

fn overlays(profile: &Profile) -> usize {
    profile.binds.iter().filter(|bind| bind.view == View::CopyOnWrite).count()
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
            let refused = standard().bind_ro("/srv", path).build();
            assert!(
                matches!(refused, Err(ProfileError::InnerPath { .. })),
                "{path:?}: {refused:?}"
            );
        }
        for path in ["/data", "/work", "/process", "/usr/local/x", "/a b/..c"] {
            assert!(standard().bind_ro("/srv", path).build().is_ok(), "{path:?}");
        }
    }

    #[test]
    fn minimal_refuses_what_it_can_not_give() {
        let minimal = || Profile::builder(Level::Minimal);
        for refused in [
            minimal().bind_ro("/srv", "/srv").build(),
            minimal().processes(4).build(),
            minimal().workdir_size(1 << 20).build(),
            minimal().network(Network::loopback()).build(),
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
        let twice = standard().bind_ro("/a", "/x").bind_rw("/b", "/x").build();
        assert!(matches!(twice, Err(ProfileError::InnerPathTwice { .. })));
    }
}
