//! From profile and program to a flat list of steps. Pure: no system call, no clock, no file.
//!
//! The list is one byte string: a header with level, wall time and resource limits, then entries.
//! Whoever carries it out ([`crate::linux`]) reads it in place and needs no memory of its own.
//! Later layers are further entries.

mod encode;
mod view;

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use crate::{
    level::Level,
    limits,
    profile::{Bind, Profile},
    program::Program,
};
use encode::Encoder;
pub(crate) use view::{BindAccess, Entry, MAX_PLAN_BINDS, Plan};

/// What of the host's tree a cell may see, as found when the launcher started.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Layout {
    /// The directories of programs and libraries, and where one is only a link.
    pub(crate) top: Vec<(PathBuf, Top)>,
    /// Files and directories below `/etc` that programs need and that hold no secret.
    pub(crate) etc: Vec<PathBuf>,
}

/// How the host has one of the top directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Top {
    Directory,
    Link(OsString),
}

/// What a plan is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Run,
    /// Everything but the program: shows whether the host can give the level.
    Rehearse,
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

/// Writes the plan.
pub(crate) fn plan(
    profile: &Profile,
    program: &Program,
    layout: &Layout,
    purpose: Purpose,
) -> Result<Vec<u8>, ProgramError> {
    check(program)?;
    let mut plan = Encoder::new(profile, purpose, resources(profile));
    if profile.level != Level::Minimal {
        plan_root(&mut plan, profile, layout);
    }
    plan_program(&mut plan, profile, program);
    let bytes = plan.finish();
    if bytes.len() > limits::MAX_PLAN_BYTES {
        return Err(ProgramError::TooLong { given: bytes.len(), most: limits::MAX_PLAN_BYTES });
    }
    Ok(bytes)
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
    if program.input().len() > limits::MAX_STDIN_BYTES {
        return Err(ProgramError::InputTooLong {
            given: program.input().len(),
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

fn plan_root(plan: &mut Encoder, profile: &Profile, layout: &Layout) {
    plan.root(&format!("mode=755,size={},nr_inodes={}", limits::ROOT_BYTES, limits::ROOT_INODES));
    plan.host_name(HOST_NAME);
    for directory in ["/etc", "/dev", "/dev/shm", "/proc", "/tmp", WORKDIR, "/run", "/var"] {
        plan.directory(Path::new(directory));
    }
    plan.symlink("/var/tmp", OsStr::new("../tmp"));
    for (path, top) in &layout.top {
        match top {
            Top::Directory => plan.bind(path, path, Access::System),
            Top::Link(target) => plan.symlink(path, target),
        }
    }
    for (path, contents) in FILES {
        plan.file(Path::new(path), contents.as_bytes());
    }
    for path in &layout.etc {
        plan_ancestors(plan, path);
        plan.bind(path, path, Access::System);
    }
    for device in DEVICES {
        plan.bind(Path::new(device), Path::new(device), Access::Device);
    }
    for (path, target) in DEVICE_LINKS {
        plan.symlink(path, OsStr::new(target));
    }
    plan.proc("/proc");
    for (path, bytes) in [
        ("/tmp", limits::SCRATCH_BYTES),
        ("/dev/shm", limits::SCRATCH_BYTES),
        (WORKDIR, profile.workdir_bytes),
    ] {
        if !profile.bind_at(Path::new(path)) {
            plan.tmpfs(
                path,
                &format!("mode={},size={bytes},nr_inodes={}", mode(path), limits::WRITABLE_INODES),
            );
        }
    }
    // Outer binds first, or they would hide the inner ones.
    let mut binds: Vec<&Bind> = profile.binds.iter().collect();
    binds.sort_by_key(|bind| bind.inside.components().count());
    for bind in binds {
        plan_ancestors(plan, &bind.inside);
        plan.bind(
            &bind.host,
            &bind.inside,
            if bind.writable { Access::Writable } else { Access::ReadOnly },
        );
    }
}

/// Directories that a path needs around it; making one that is there is no error.
fn plan_ancestors(plan: &mut Encoder, path: &Path) {
    let ancestors: Vec<&Path> =
        path.ancestors().skip(1).filter(|path| path.parent().is_some()).collect();
    for ancestor in ancestors.into_iter().rev() {
        plan.directory(ancestor);
    }
}

fn plan_program(plan: &mut Encoder, profile: &Profile, program: &Program) {
    let home = if profile.level == Level::Minimal { "/" } else { WORKDIR };
    plan.start_directory(program.start_directory().unwrap_or(Path::new(home)));

    let defaults = [("PATH", SEARCH_PATH), ("HOME", home), ("LANG", "C.UTF-8")];
    let named = |name: &str| profile.variables.iter().find(|(known, _)| known == name);
    for (name, value) in defaults {
        if named(name).is_none() {
            plan.variable(OsStr::new(name), OsStr::new(value));
        }
    }
    for (name, value) in &profile.variables {
        plan.variable(name, value);
    }

    let path = program.path();
    if path.as_encoded_bytes().contains(&b'/') {
        plan.candidate(Path::new(path));
    } else {
        let search = named("PATH").map_or(OsStr::new(SEARCH_PATH), |(_, value)| value.as_os_str());
        for directory in std::env::split_paths(search).filter(|directory| directory.is_absolute()) {
            plan.candidate(&directory.join(path));
        }
    }
    plan.argument(path);
    for argument in program.arguments() {
        plan.argument(argument);
    }
}

/// How a bind may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    System,
    Device,
    ReadOnly,
    Writable,
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
fn resources(profile: &Profile) -> [u64; RESOURCES] {
    Resource::ALL.map(|resource| match resource {
        // A process with many threads may use many times the wall time; more than this is an error
        // in accounting.
        Resource::CpuSeconds => {
            let seconds = profile.wall_time.as_secs().saturating_add(1);
            seconds.saturating_mul(profile.processes.into())
        }
        Resource::FileSize => profile.file_size_bytes,
        Resource::Data | Resource::AddressSpace => profile.memory_bytes,
        Resource::Stack => STACK_BYTES,
        // The first process of the cell counts too.
        Resource::Processes if profile.level != Level::Minimal => {
            u64::from(profile.processes).saturating_add(1)
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

/// `/tmp` and `/dev/shm` are anybody's, the working directory is the cell's own.
fn mode(path: &str) -> &'static str {
    if path == WORKDIR { "755" } else { "1777" }
}

/// Where the program starts, and the home of the cell's user.
pub(crate) const WORKDIR: &str = "/work";
const HOST_NAME: &str = "cell";
const SEARCH_PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";
/// The kernel's default for a first process; `memory` bounds what is really used.
const STACK_BYTES: u64 = 8 << 20;
/// No core file has room in one byte. It isn't 0, because a host that pipes cores into a program of
/// its own ignores this limit, and would run that program on a cell's memory, except for the value
/// 1.
const CORE_BYTES: u64 = 1;
/// Enough for a key or a password to stay out of swap.
const LOCKED_BYTES: u64 = 64 << 10;
/// Signals waiting for a cell that handles none are kernel memory.
const PENDING_SIGNALS: u64 = 1024;
/// Message queues are kernel memory too.
const QUEUE_BYTES: u64 = 64 << 10;
const DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];
const DEVICE_LINKS: [(&str, &str); 4] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
];
const FILES: [(&str, &str); 5] = [
    (
        "/etc/passwd",
        "root:x:0:0:root:/:/usr/sbin/nologin\ncell:x:1000:1000:cell:/work:/bin/sh\n\
         nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
    ),
    ("/etc/group", "root:x:0:\ncell:x:1000:\nnogroup:x:65534:\n"),
    ("/etc/hosts", "127.0.0.1 localhost cell\n::1 localhost cell\n"),
    ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\nservices: files\n"),
    ("/etc/hostname", "cell\n"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout {
            top: vec![
                ("/usr".into(), Top::Directory),
                ("/bin".into(), Top::Link("usr/bin".into())),
            ],
            etc: vec!["/etc/ssl/certs".into()],
        }
    }

    fn entries(profile: &Profile, program: &Program) -> Vec<String> {
        let bytes = plan(profile, program, &layout(), Purpose::Run).unwrap();
        let plan = Plan::parse(&bytes).unwrap();
        plan.entries().map(|entry| format!("{entry:?}")).collect()
    }

    fn position(entries: &[String], part: &str) -> usize {
        let found = entries.iter().position(|entry| entry.contains(part));
        found.unwrap_or_else(|| panic!("no {part} in {entries:#?}"))
    }

    #[test]
    fn a_standard_plan_has_its_parts_in_order() {
        let profile = Profile::builder(Level::Standard)
            .bind_read_write("/srv/b", "/work/deep/data")
            .bind_read_only("/srv/a", "/work")
            .build()
            .unwrap();
        let entries = entries(&profile, &Program::new("echo").arg("hi"));
        assert_eq!(position(&entries, "Root"), 0);
        let outer = position(&entries, r#"target: "/work","#);
        let parent = position(&entries, r#"Directory { path: "/work/deep" }"#);
        let inner = position(&entries, r#"target: "/work/deep/data","#);
        assert!(outer < parent && parent < inner);
        assert!(position(&entries, "/etc/ssl\"") < position(&entries, "/etc/ssl/certs"));
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
        let values = resources(&profile);
        let value =
            |resource| values[Resource::ALL.iter().position(|known| *known == resource).unwrap()];
        assert_eq!(value(Resource::Core), 1);
        assert_eq!(value(Resource::Processes), 8);
        assert_eq!(value(Resource::AddressSpace), 64 << 20);
        let minimal = Profile::builder(Level::Minimal).build().unwrap();
        let index = Resource::ALL.iter().position(|known| *known == Resource::Processes).unwrap();
        assert_eq!(resources(&minimal)[index], INHERIT);
    }

    #[test]
    fn bad_programs_are_named() {
        let profile = Profile::builder(Level::Standard).build().unwrap();
        let refused =
            |program: Program| plan(&profile, &program, &layout(), Purpose::Run).unwrap_err();
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
