//! From profile and program to flat lists of steps. Pure: no system call, no clock, no file.
//!
//! A *plan* says what a cell is to be; an *order* says what runs in it. A prepared cell has carried
//! its plan out and waits for an order. Each is one byte string: a header, then entries, which
//! whoever carries it out ([`crate::linux`]) reads in place, needing no memory of its own.

mod encode;
mod view;

use std::{
    borrow::Cow,
    ffi::OsStr,
    path::{Path, PathBuf},
};

use crate::{
    level::Level,
    limits,
    profile::{Bind, Profile, View},
    program::Program,
};
use encode::Encoder;
pub(crate) use view::{BindAccess, Entry, Ground, MAX_PLAN_BINDS, Order, Plan};

/// What an order is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Run,
    /// Everything but the program: shows whether the host can give the level.
    Rehearse,
}

/// What the host gives of that which the profile's level asks for, as far as it isn't the same
/// everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the plan")]
pub(crate) struct Means<'a> {
    /// The version of Landlock's rules; 0 for none.
    pub(crate) landlock: u32,
    /// Whether groups limit the cell as a whole.
    pub(crate) groups: bool,
    /// Whether they leave its use of disks open, whatever the profile says.
    pub(crate) open_disks: bool,
    /// The system call filter's program.
    pub(crate) filter: Option<&'a [u8]>,
    /// Whether the filter only watches.
    pub(crate) learn: bool,
    /// Whether the filter leaves room for a program's process that is made ahead.
    pub(crate) ahead: bool,
    /// The modules of the interpreter whose fork the program will be.
    pub(crate) interpreter: Option<&'a str>,
}

/// Limits of a cell as a whole, for its groups. [`INHERIT`] leaves one open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GroupLimits {
    /// Thousandths of a core.
    pub(crate) cpu_milli: u64,
    pub(crate) cpu_weight: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) memory_high_bytes: u64,
    pub(crate) swap_bytes: u64,
    pub(crate) processes: u64,
    pub(crate) io_bytes_per_second: u64,
    pub(crate) io_operations_per_second: u64,
}

impl GroupLimits {
    pub(crate) const WORDS: usize = 8;

    pub(crate) fn words(&self) -> [u64; Self::WORDS] {
        [
            self.cpu_milli,
            self.cpu_weight,
            self.memory_bytes,
            self.memory_high_bytes,
            self.swap_bytes,
            self.processes,
            self.io_bytes_per_second,
            self.io_operations_per_second,
        ]
    }

    pub(crate) fn from_words(words: [u64; Self::WORDS]) -> Self {
        let [
            cpu_milli,
            cpu_weight,
            memory_bytes,
            memory_high_bytes,
            swap_bytes,
            processes,
            io_bytes_per_second,
            io_operations_per_second,
        ] = words;
        Self {
            cpu_milli,
            cpu_weight,
            memory_bytes,
            memory_high_bytes,
            swap_bytes,
            processes,
            io_bytes_per_second,
            io_operations_per_second,
        }
    }
}

/// Why a program can't be started under any profile.
///
/// ```
/// use neuroflow_sandbox::ProgramError;
///
/// assert_eq!(ProgramError::NoPath.to_string(), "the program has no path");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// The path is empty.
    #[error("the program has no path")]
    NoPath,
    /// The path has NUL in it.
    #[error("the program's path has a NUL in it")]
    PathHasNul,
    /// An argument has NUL in it.
    #[error("argument {index} has a NUL in it")]
    ArgumentHasNul {
        /// Which argument, counted from 0.
        index: usize,
    },
    /// There are too many arguments.
    #[error("{given} arguments, allowed are {most}")]
    TooManyArguments {
        /// How many there are.
        given: usize,
        /// The bound.
        most: usize,
    },
    /// Standard input is too long.
    #[error("{given} bytes of standard input, allowed are {most}")]
    InputTooLong {
        /// How long it is.
        given: usize,
        /// The bound.
        most: usize,
    },
    /// The working directory isn't an absolute path.
    #[error("working directory {path:?} is not an absolute path")]
    Directory {
        /// The path.
        path: PathBuf,
    },
    /// Arguments and environment together are too long.
    #[error("the plan has {given} bytes, allowed are {most}")]
    TooLong {
        /// How long the plan is.
        given: usize,
        /// The bound.
        most: usize,
    },
}

/// Says what the cell is to be. Two profiles with the same plan can share prepared cells.
pub(crate) fn plan(profile: &Profile, means: &Means<'_>) -> Result<Vec<u8>, ProgramError> {
    let mut plan = Encoder::plan(
        flags(profile, means),
        means.landlock,
        resources(profile, means.groups),
        &group_limits(profile, means.open_disks),
    );
    if profile.level != Level::Minimal {
        plan_files(&mut plan, profile);
    }
    if let Some(filter) = means.filter {
        plan.filter(filter);
    }
    if let Some(modules) = means.interpreter {
        plan.interpreter(modules);
    }
    bounded(plan.finish())
}

/// Says what is to run in the cell.
pub(crate) fn order(
    profile: &Profile,
    program: &Program,
    purpose: Purpose,
) -> Result<Vec<u8>, ProgramError> {
    check(program)?;
    let wall = u64::try_from(profile.wall_time.as_nanos()).unwrap_or(u64::MAX);
    let flags = if purpose == Purpose::Rehearse { view::REHEARSE } else { 0 };
    let mut order = Encoder::order(flags, wall);
    plan_program(&mut order, profile, program);
    bounded(order.finish())
}

fn bounded(bytes: Vec<u8>) -> Result<Vec<u8>, ProgramError> {
    if bytes.len() > limits::MAX_PLAN_BYTES {
        return Err(ProgramError::TooLong { given: bytes.len(), most: limits::MAX_PLAN_BYTES });
    }
    Ok(bytes)
}

fn flags(profile: &Profile, means: &Means<'_>) -> u16 {
    let paranoid = profile.level == Level::Paranoid;
    let bare = profile.level >= Level::Strict;
    let rows = [
        (profile.level == Level::Minimal, view::MINIMAL),
        (profile.has_loopback(), view::LOOPBACK),
        (profile.has_egress(), view::EGRESS),
        (!profile.has_loopback() && !profile.has_egress(), view::QUIET),
        (paranoid, view::NO_PROC),
        (paranoid, view::NO_EXECUTE),
        (bare, view::BARE_PROC),
        (means.groups, view::GROUPS),
        (means.learn, view::LEARN),
        (means.ahead, view::AHEAD),
    ];
    rows.into_iter().filter(|(on, _)| *on).fold(0, |all, (_, flag)| all | flag)
}

fn group_limits(profile: &Profile, open_disks: bool) -> GroupLimits {
    let of_disks = |limit: Option<u64>| limit.filter(|_| !open_disks).unwrap_or(INHERIT);
    GroupLimits {
        cpu_milli: profile.cpu_milli.map_or(INHERIT, u64::from),
        cpu_weight: profile.cpu_weight.into(),
        memory_bytes: profile.memory_bytes,
        memory_high_bytes: profile.memory_high_bytes.unwrap_or(INHERIT),
        swap_bytes: profile.swap_bytes,
        // The first process of the cell counts too.
        processes: u64::from(profile.processes).saturating_add(1),
        io_bytes_per_second: of_disks(profile.io_bytes_per_second),
        io_operations_per_second: of_disks(profile.io_operations_per_second),
    }
}

fn check(program: &Program) -> Result<(), ProgramError> {
    let has_nul = |text: &OsStr| text.as_encoded_bytes().contains(&0);
    if program.path().is_empty() {
        return Err(ProgramError::NoPath);
    }
    if has_nul(program.path()) {
        return Err(ProgramError::PathHasNul);
    }
    let arguments = program.arguments();
    if arguments.len() > limits::MAX_ARGUMENTS {
        return Err(ProgramError::TooManyArguments {
            given: arguments.len(),
            most: limits::MAX_ARGUMENTS,
        });
    }
    if let Some(index) = arguments.iter().position(|argument| has_nul(argument)) {
        return Err(ProgramError::ArgumentHasNul { index });
    }
    if program.piped_input().len() > limits::MAX_STDIN_BYTES {
        return Err(ProgramError::InputTooLong {
            given: program.piped_input().len(),
            most: limits::MAX_STDIN_BYTES,
        });
    }
    match program.start_directory() {
        Some(path) if !path.is_absolute() || has_nul(path.as_os_str()) => {
            Err(ProgramError::Directory { path: path.to_owned() })
        }
        _ => Ok(()),
    }
}

fn plan_files(plan: &mut Encoder, profile: &Profile) {
    for (path, bytes) in [
        ("/tmp", limits::SCRATCH_BYTES),
        ("/dev/shm", limits::SCRATCH_BYTES),
        (WORKDIR, profile.workdir_bytes),
    ] {
        if !profile.bind_at(Path::new(path)) {
            let inodes = profile.inodes;
            plan.tmpfs(path, &format!("mode={},size={bytes},nr_inodes={inodes}", mode(path)));
        }
    }
    // Outer binds first, or they would hide the inner ones.
    let mut binds: Vec<&Bind> = profile.binds.iter().collect();
    binds.sort_by_key(|bind| bind.inside.components().count());
    for bind in binds {
        match bind.view {
            View::ReadOnly => plan.bind(&bind.host, &bind.inside, false),
            View::Writable => plan.bind(&bind.host, &bind.inside, true),
            View::CopyOnWrite => {
                let (bytes, inodes) = (profile.overlay_bytes, profile.inodes);
                let options = format!("size={bytes},nr_inodes={inodes},mode=755");
                plan.overlay(&bind.host, &bind.inside, &options);
            }
        }
    }
}

fn plan_program(plan: &mut Encoder, profile: &Profile, program: &Program) {
    plan.start_directory(start_directory(profile, program));
    for (name, value) in environment(profile) {
        plan.variable(name, &value);
    }
    for candidate in candidates(profile, program) {
        plan.candidate(&candidate);
    }
    plan.argument(program.path());
    for argument in program.arguments() {
        plan.argument(argument);
    }
}

/// Where a cell's programs are at home.
fn home(profile: &Profile) -> &'static str {
    if profile.level == Level::Minimal { "/" } else { WORKDIR }
}

/// Where the program starts.
pub(crate) fn start_directory<'a>(profile: &Profile, program: &'a Program) -> &'a Path {
    program.start_directory().unwrap_or(Path::new(home(profile)))
}

/// The locale of programs whose profile names no other, and of warm interpreters.
pub(crate) const LOCALE: &str = "C.UTF-8";

/// The program's variables: a fixed minimum, and what the profile names.
pub(crate) fn environment(profile: &Profile) -> Vec<(&OsStr, Cow<'_, OsStr>)> {
    let is_free = |name: &str| !profile.variables.iter().any(|(known, _)| known == name);
    let mut all = Vec::new();
    for (name, value) in [("PATH", SEARCH_PATH), ("HOME", home(profile)), ("LANG", LOCALE)] {
        if is_free(name) {
            all.push((OsStr::new(name), Cow::Borrowed(OsStr::new(value))));
        }
    }
    if profile.has_egress() {
        for name in PROXY_VARIABLES.into_iter().filter(|name| is_free(name)) {
            let proxy = format!("http://127.0.0.1:{}", limits::EGRESS_PORT);
            all.push((OsStr::new(name), Cow::Owned(proxy.into())));
        }
    }
    let named = profile.variables.iter();
    all.extend(named.map(|(name, value)| (name.as_os_str(), Cow::Borrowed(value.as_os_str()))));
    all
}

/// Where the program may be, in the order in which it is tried.
pub(crate) fn candidates(profile: &Profile, program: &Program) -> Vec<PathBuf> {
    let path = program.path();
    if path.as_encoded_bytes().contains(&b'/') {
        return vec![path.into()];
    }
    let named = profile.variables.iter().find(|(name, _)| name == "PATH");
    let search = named.map_or(OsStr::new(SEARCH_PATH), |(_, value)| value.as_os_str());
    let places = std::env::split_paths(search).filter(|directory| directory.is_absolute());
    places.map(|directory| directory.join(path)).collect()
}

/// The kernel's sixteen resources, in the order in which a plan lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resource {
    CpuSeconds,
    FileSize,
    Data,
    Stack,
    Core,
    Resident,
    Processes,
    OpenFiles,
    LockedMemory,
    AddressSpace,
    FileLocks,
    PendingSignals,
    MessageQueues,
    Nice,
    RealTimePriority,
    RealTimeMicroseconds,
}

/// How many resources there are.
pub(crate) const RESOURCES: usize = 16;
/// Leaves a resource as the host has it.
pub(crate) const INHERIT: u64 = u64::MAX;

impl Resource {
    pub(crate) const ALL: [Self; RESOURCES] = [
        Self::CpuSeconds,
        Self::FileSize,
        Self::Data,
        Self::Stack,
        Self::Core,
        Self::Resident,
        Self::Processes,
        Self::OpenFiles,
        Self::LockedMemory,
        Self::AddressSpace,
        Self::FileLocks,
        Self::PendingSignals,
        Self::MessageQueues,
        Self::Nice,
        Self::RealTimePriority,
        Self::RealTimeMicroseconds,
    ];
}

/// The value of every resource; none is left out by oversight, because the match is complete.
pub(crate) fn resources(profile: &Profile, groups: bool) -> [u64; RESOURCES] {
    Resource::ALL.map(|resource| match resource {
        // A process with many threads may use many times the wall time; more than this is an error
        // in accounting.
        Resource::CpuSeconds => {
            let seconds = profile.wall_time.as_secs().saturating_add(1);
            seconds.saturating_mul(profile.processes.into())
        }
        Resource::FileSize => profile.file_size_bytes,
        // A group counts what is really used, of all processes together, so that programs which
        // reserve far more than they use can run.
        Resource::Data => {
            if groups {
                INHERIT
            } else {
                profile.memory_bytes
            }
        }
        Resource::AddressSpace => match profile.address_space_bytes {
            Some(bytes) => bytes,
            None if groups => INHERIT,
            None => profile.memory_bytes,
        },
        Resource::Stack => STACK_BYTES,
        // The first process of the cell counts too. A group speaks first, because it counts what it
        // refuses.
        Resource::Processes if profile.level != Level::Minimal => {
            let behind = if groups { BEHIND_GROUP } else { 0 };
            u64::from(profile.processes).saturating_add(1).saturating_add(behind)
        }
        Resource::OpenFiles => profile.open_files.into(),
        Resource::LockedMemory => LOCKED_BYTES,
        Resource::PendingSignals => PENDING_SIGNALS,
        Resource::MessageQueues => QUEUE_BYTES,
        // Without own user ids the count is that of all the host user's processes; the other two do
        // nothing in any kernel that has namespaces.
        Resource::Processes | Resource::Resident | Resource::FileLocks => INHERIT,
        Resource::Core => CORE_BYTES,
        Resource::Nice | Resource::RealTimePriority | Resource::RealTimeMicroseconds => 0,
    })
}

/// Whether the cell has a writable file system of its own at or around the path.
pub(crate) fn is_writable(path: &Path) -> bool {
    [WORKDIR, "/tmp", "/dev/shm"].iter().any(|writable| path.starts_with(writable))
}

/// `/tmp` and `/dev/shm` are anybody's, the working directory is the cell's own.
fn mode(path: &str) -> &'static str {
    if path == WORKDIR { "755" } else { "1777" }
}

/// Where the program starts, and the home of the cell's user.
pub(crate) const WORKDIR: &str = "/work";
/// What programs look for to find a proxy; there is no agreement about the case.
const PROXY_VARIABLES: [&str; 4] = ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"];
const SEARCH_PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";
/// The kernel's default for a first process; `memory` bounds what is really used.
const STACK_BYTES: u64 = 8 << 20;
/// No core file has room in one byte. It isn't 0, because a host that pipes cores into a program of
/// its own ignores this limit, and would run that program on a cell's memory, except for the value
/// 1.
const CORE_BYTES: u64 = 1;
/// Processes by which the second limit lies behind that of the group.
const BEHIND_GROUP: u64 = 8;
/// Enough for a key or a password to stay out of swap.
const LOCKED_BYTES: u64 = 64 << 10;
/// Signals waiting for a cell that handles none are kernel memory.
const PENDING_SIGNALS: u64 = 1024;
/// Message queues are kernel memory too.
const QUEUE_BYTES: u64 = 64 << 10;
#[cfg(test)]
mod tests {
    use super::*;

    fn entries(profile: &Profile, program: &Program) -> Vec<String> {
        let plan = plan(profile, &Means::default()).unwrap();
        let order = order(profile, program, Purpose::Run).unwrap();
        let (plan, order) = (Plan::parse(&plan).unwrap(), Order::parse(&order).unwrap());
        plan.entries().chain(order.entries()).map(|entry| format!("{entry:?}")).collect()
    }

    fn position(entries: &[String], part: &str) -> usize {
        let found = entries.iter().position(|entry| entry.contains(part));
        found.unwrap_or_else(|| panic!("no {part} in {entries:#?}"))
    }

    #[test]
    fn a_standard_plan_has_its_parts_in_order() {
        let profile = Profile::builder(Level::Standard)
            .bind_rw("/srv/b", "/work/deep/data")
            .bind_ro("/srv/a", "/work")
            .build()
            .unwrap();
        let entries = entries(&profile, &Program::new("echo").arg("hi"));
        let outer = position(&entries, r#"target: "/work","#);
        let inner = position(&entries, r#"target: "/work/deep/data","#);
        assert!(outer < inner);
        assert!(!entries.iter().any(|entry| entry.contains("Tmpfs") && entry.contains("/work")));
        assert!(
            position(&entries, "/usr/local/bin/echo") < position(&entries, r#""/usr/bin/echo""#)
        );
        assert!(
            position(&entries, r#"Argument { text: "echo" }"#)
                < position(&entries, r#"text: "hi""#)
        );
    }

    #[test]
    fn a_minimal_plan_touches_no_file_system() {
        let profile =
            Profile::builder(Level::Minimal).env("PATH", "/opt/bin:relative").build().unwrap();
        let entries = entries(&profile, &Program::new("tool"));
        assert_eq!(entries.iter().filter(|entry| entry.contains("Candidate")).count(), 1);
        assert!(entries.iter().all(|entry| !entry.contains("Bind") && !entry.contains("Tmpfs")));
        assert_eq!(entries.iter().filter(|entry| entry.contains("PATH=")).count(), 1);
    }

    #[test]
    fn every_resource_is_considered() {
        let profile =
            Profile::builder(Level::Standard).processes(7).memory(64 << 20).build().unwrap();
        let values = resources(&profile, false);
        let index = |resource| Resource::ALL.iter().position(|known| *known == resource).unwrap();
        let value = |resource| values[index(resource)];
        assert_eq!(value(Resource::Core), 1);
        assert_eq!(value(Resource::Processes), 8);
        assert_eq!(value(Resource::AddressSpace), 64 << 20);
        let minimal = Profile::builder(Level::Minimal).build().unwrap();
        assert_eq!(resources(&minimal, false)[index(Resource::Processes)], INHERIT);
        assert_eq!(resources(&profile, true)[index(Resource::AddressSpace)], INHERIT);
        assert_eq!(group_limits(&profile, false).processes, 8);
    }

    #[test]
    fn group_limits_round_trip() {
        let words = std::array::from_fn(|index| index as u64);
        assert_eq!(GroupLimits::from_words(words).words(), words);
    }

    #[test]
    fn bad_programs_are_named() {
        let profile = Profile::builder(Level::Standard).build().unwrap();
        let refused = |program: Program| order(&profile, &program, Purpose::Run).unwrap_err();
        assert_eq!(refused(Program::new("")), ProgramError::NoPath);
        assert_eq!(refused(Program::new("a\0b")), ProgramError::PathHasNul);
        assert_eq!(
            refused(Program::new("a").arg("x").arg("\0")),
            ProgramError::ArgumentHasNul { index: 1 }
        );
        assert!(matches!(
            refused(Program::new("a").directory("tmp")),
            ProgramError::Directory { .. }
        ));
        let many = Program::new("a").args(std::iter::repeat_n("x", limits::MAX_ARGUMENTS + 1));
        assert!(matches!(refused(many), ProgramError::TooManyArguments { .. }));
        let long = Program::new("a").args(std::iter::repeat_n("x".repeat(100_000), 11));
        assert!(matches!(refused(long), ProgramError::TooLong { .. }));
    }
}
