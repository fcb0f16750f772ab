//! The attacker: this program again, diverted before `main`, for one attempt.
//!
//! It has what the crate has and nothing else: no artifact has to be built, shipped or found.

mod files;
mod kernel;
pub(super) mod mounts;
mod namespaces;
mod network;
mod privileges;
mod processes;
mod proxy;
mod resources;
mod terminal;

use std::{collections::BTreeMap, io, io::Write, os::unix::ffi::OsStrExt};

use super::record::Said;
use crate::{
    errno::Errno,
    linux::sys::{
        self, file,
        probe::{self, Alone, Argument, Call},
        process,
    },
};

/// One attempt in the attacked place: what it got, or the call that failed.
pub(super) type Trial = Result<String, Stop>;
/// How an attempt is made.
pub(super) type Try = fn(&Probe) -> Trial;

/// The call that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stop {
    pub(super) call: &'static str,
    pub(super) errno: Errno,
}

impl Stop {
    pub(super) fn new(call: &'static str, errno: i32) -> Self {
        Self { call, errno: Errno::from_raw(errno) }
    }
}

/// Names the call of a failure.
pub(super) trait In<T> {
    fn within(self, call: &'static str) -> Result<T, Stop>;
}

impl<T> In<T> for io::Result<T> {
    fn within(self, call: &'static str) -> Result<T, Stop> {
        self.map_err(|error| Stop::new(call, error.raw_os_error().unwrap_or(libc::EIO)))
    }
}

impl<T> In<T> for sys::Result<T> {
    fn within(self, call: &'static str) -> Result<T, Stop> {
        self.map_err(|errno| Stop { call, errno })
    }
}

/// What an attempt is given.
#[derive(Debug)]
pub(super) struct Probe {
    pub(super) alone: Alone,
    parameters: BTreeMap<String, String>,
}

impl Probe {
    /// A target that the scene has named; one that this host hasn't got is missing.
    pub(super) fn target(&self, name: &'static str) -> Result<&str, Stop> {
        let found = self.parameters.get(name).map(String::as_str);
        found.ok_or_else(|| Stop::new(name, libc::ENODEV))
    }

    pub(super) fn number(&self, name: &'static str) -> Result<i32, Stop> {
        self.target(name)?.parse().map_err(|_not_a_number| Stop::new(name, libc::EINVAL))
    }

    /// A path of its own in a directory that may be written.
    pub(super) fn scratch(&self, name: &str) -> Result<String, Stop> {
        Ok(format!("{}/{name}-{}", self.target("scratch")?, process::own_pid()))
    }

    /// The cell's first process; outside of cells another one, that it may look into as a cell's
    /// program might hope to.
    pub(super) fn first_process(&self) -> Result<i32, Stop> {
        self.number("first")
    }

    /// Whether there are no walls around: a control, or a level that sees the host's mounts.
    pub(super) fn is_outside(&self) -> bool {
        self.parameters.contains_key("outside")
    }

    /// Whether this is the control: the same without a cell.
    pub(super) fn is_control(&self) -> bool {
        self.parameters.contains_key("control")
    }
}

/// Makes the attempt that the arguments name, and says how it went.
pub(crate) fn run(alone: Alone) -> ! {
    let mut arguments = std::env::args_os().skip(2);
    let name = arguments.next().unwrap_or_default();
    if name == VICTIM {
        be_a_victim();
    }
    // A probe that hangs where no cell ends it is ended by the kernel.
    probe::end_after(LONGEST);
    let parameters = arguments.filter_map(|argument| {
        let text = std::str::from_utf8(argument.as_bytes()).ok()?;
        let (name, value) = text.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    });
    let probe = Probe { alone, parameters: parameters.collect() };
    let known =
        super::catalogue::entries().find(|entry| entry.attempt.name.as_bytes() == name.as_bytes());
    let Some(attempt) = known.and_then(|entry| entry.inside) else { process::exit(UNKNOWN) };
    let said = match attempt(&probe) {
        Ok(what) => Said::Succeeded(what),
        Err(Stop { call, errno }) => Said::Failed { call: call.to_owned(), errno },
    };
    say(&said);
    process::exit(0)
}

/// Is there until its host lets go of it.
fn be_a_victim() -> ! {
    may_be_traced();
    let ready = io::stdout().write_all(b".").and_then(|()| io::stdout().flush());
    if ready.is_ok() {
        io::copy(&mut io::stdin(), &mut io::sink()).ok();
    }
    process::exit(0)
}

/// Anybody of the same user may trace this process, whatever the host's policy about others.
pub(super) fn may_be_traced() {
    const SET_TRACER: i32 = 0x5961_6d61;
    const ANYBODY: i32 = -1;
    // A host without such a policy doesn't know the option.
    call(Call::Prctl, [n(SET_TRACER), n(ANYBODY), n(0), n(0), n(0)]).ok();
}

/// Says it now, for attempts that don't come back.
pub(super) fn say(said: &Said) {
    // If nobody listens there is nobody to tell.
    io::stdout().write_all(said.encode().as_bytes()).and_then(|()| io::stdout().flush()).ok();
}

/// Makes a call and names it.
pub(super) fn call<const N: usize>(what: Call, arguments: [Argument<'_>; N]) -> Result<i64, Stop> {
    probe::call(what, arguments).within(what.name())
}

pub(super) const fn n(number: i32) -> Argument<'static> {
    Argument::Number(number)
}

pub(super) const NULL: Argument<'static> = Argument::Number(0);

/// Whether a file holds what the scene has put into it.
pub(super) fn read_secret(path: &str) -> Trial {
    let bytes = std::fs::read(path).within("openat")?;
    if bytes.starts_with(super::scene::SECRET.as_bytes()) {
        Ok(format!("read the secret through {path}"))
    } else {
        Err(Stop::new("read", libc::ENOENT))
    }
}

/// A text for a call.
pub(super) fn text(text: impl Into<Vec<u8>>) -> Result<std::ffi::CString, Stop> {
    std::ffi::CString::new(text).map_err(|_nul| Stop::new("text", libc::EINVAL))
}

/// Opens for what `flags` say, and nothing more.
pub(super) fn open(path: &str, flags: i32) -> Result<std::os::fd::OwnedFd, Stop> {
    file::open(&text(path)?, flags | libc::O_CLOEXEC).within("openat")
}

/// Instead of an attempt: a process for others to attack.
pub(super) const VICTIM: &str = "victim";
/// Longer than any cell of the suite may take, and the longest that a control can hang.
const LONGEST: u32 = 20;
/// Exit status when the arguments name no attempt.
const UNKNOWN: i32 = 125;

/// The attempts that are made from inside, by class.
pub(super) const GROUPS: [&[super::catalogue::Entry]; 10] = [
    files::ENTRIES,
    mounts::ENTRIES,
    processes::ENTRIES,
    privileges::ENTRIES,
    namespaces::ENTRIES,
    kernel::ENTRIES,
    terminal::ENTRIES,
    network::ENTRIES,
    proxy::ENTRIES,
    resources::ENTRIES,
];
