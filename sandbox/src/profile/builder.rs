//! Collecting the settings of a profile. Long by their number: each has a setter with its documentation.

use std::{ffi::OsString, marker::PhantomData, path::PathBuf, sync::Arc, time::Duration};

use super::{Bind, EgressPolicy, Profile, ProfileError, Setting, View, check};
use crate::{level::Level, limits, network::Network, seccomp::SeccompProfile};

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
    ///
    /// So is a link on the way to `inside`, which what another bind shows may have, unless it is one of
    /// the cell's own root, such as `/bin`. Directories that are missing on that way are made.
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
        check::ranges(&profile)?;
        check::variables(&profile.variables)?;
        check::binds(&profile.binds)?;
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
