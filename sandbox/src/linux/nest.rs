//! From a fork of the zygote to a warm interpreter: it sees the root that cells see, has one
//! capability, the right to enter cells' namespaces, and no way to another.

use std::{
    ffi::CStr,
    os::fd::{AsFd, BorrowedFd},
};

use super::{
    At, Failure, root,
    sys::{
        credentials, event, file,
        process::{self, NEW_NET, NEW_NS, StringList},
    },
};
use crate::step::Step;

/// What the interpreter starts with.
#[derive(Debug)]
pub(crate) struct Nest<'a> {
    /// The root that all cells share.
    pub(crate) root: BorrowedFd<'a>,
    /// What the interpreter runs: its standard input.
    pub(crate) text: BorrowedFd<'a>,
    /// Where it listens.
    pub(crate) door: BorrowedFd<'a>,
    pub(crate) null: BorrowedFd<'a>,
    /// How many capabilities the kernel knows.
    pub(crate) capabilities: u64,
    /// Where the interpreter may be.
    pub(crate) candidates: &'a [&'a CStr],
    pub(crate) arguments: StringList<'a>,
    pub(crate) environment: StringList<'a>,
}

/// Becomes the interpreter. If that fails, the zygote sees the exit.
pub(crate) fn run(nest: &Nest<'_>) -> ! {
    if enter(nest).is_ok() {
        for path in nest.candidates {
            // The next one may be there.
            process::execute(path, &nest.arguments, &nest.environment);
        }
    }
    process::exit(NOT_STARTED)
}

fn enter(nest: &Nest<'_>) -> Result<(), Failure> {
    credentials::on_parent_death(libc::SIGKILL).at(Step::ParentDeath)?;
    event::reset_signals().at(Step::ResetSignals)?;
    // Out of the way of the places that are filled below.
    let copy = |fd| file::copy_from(fd, FIRST_FREE).at(Step::PlaceStreams);
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    let own = file::open(c"/proc/self/ns/pid", flags).at(Step::PlaceStreams)?;
    let (text, door, own) = (copy(nest.text)?, copy(nest.door)?, copy(own.as_fd())?);
    let (null, root) = (copy(nest.null)?, copy(nest.root)?);
    // The zygote may be in a cell's network.
    process::unshare(NEW_NS | NEW_NET).at(Step::Clone)?;
    root::change(root.as_fd(), None)?;
    credentials::start_session().at(Step::StartSession)?;
    for (fd, place) in [&text, &null, &null, &door, &own].into_iter().zip(0..) {
        file::place(fd.as_fd(), place).at(Step::PlaceStreams)?;
    }
    file::close_on_exec(PLACED).at(Step::CloseDescriptors)?;
    credentials::keep_only(credentials::ADMINISTER, nest.capabilities)
        .at(Step::DropCapabilities)?;
    credentials::forbid_privileges().at(Step::ForbidPrivileges)
}

/// How many places are filled.
const PLACED: u32 = 5;
const FIRST_FREE: i32 = 16;
const NOT_STARTED: i32 = 127;
