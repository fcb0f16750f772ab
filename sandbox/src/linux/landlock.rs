//! The second wall behind the mounts: what may be read, executed and written, said again as rules
//! that the kernel checks on their own.
//!
//! Everything is asked for that the kernel's version knows; what a version doesn't know isn't
//! promised. After the rules are in force, a file that permission bits and mounts would let everybody
//! read must not open, no TCP port can be bound or connected to, and neither an abstract socket nor a
//! process from before is within reach: that is the proof that they are. No process outside has a number
//! inside, so that process is a child which has ended and isn't reaped yet.

use std::{
    ffi::CStr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use super::{
    At, Failure, Prepared,
    sys::{
        Result, credentials, file,
        landlock::{self as sys, Ruleset},
        process::{self, Stack},
        socket,
    },
};
use crate::{
    errno::Errno,
    limits,
    plan::{Entry, Ground, Plan},
    step::Step,
};

/// A file of the cell's root that everybody may read by its permission bits, and that no rule allows.
pub(crate) const GUARD: &CStr = c"/.guard";

/// Makes the rules about what each cell has, as far as the version of Landlock goes that `ground`
/// names. To be called before the plan puts anything over that.
pub(super) fn begin(ground: Ground) -> std::result::Result<OwnedFd, Failure> {
    let version = ground.landlock;
    let all = files(version);
    let scopes =
        if has_scopes(ground) { sys::SCOPE_ABSTRACT_SOCKETS | sys::SCOPE_SIGNALS } else { 0 };
    let network = if forbids_tcp(ground) { sys::BIND_TCP | sys::CONNECT_TCP } else { 0 };
    let made = Ruleset { files: all, network, scopes }.create().at(Step::MakeRules)?;
    let rules = made.as_fd();
    if network != 0 && ground.egress {
        sys::allow_port(rules, sys::CONNECT_TCP, limits::EGRESS_PORT).at(Step::MakeRules)?;
    }
    allow(rules, c"/", sys::READ_DIRECTORY).at(Step::MakeRules)?;
    for path in READABLE {
        match file::is_link(path) {
            Ok(false) => allow(rules, path, READ & all).at(Step::MakeRules)?,
            // What it leads to is below another of these, or not to be read.
            Ok(true) => {}
            // Hosts differ in which of the top directories they have.
            Err(errno) if errno.raw() == libc::ENOENT => {}
            Err(errno) => return Err(errno).at(Step::MakeRules),
        }
    }
    allow(rules, c"/dev", (sys::READ_FILE | sys::WRITE_FILE | sys::READ_DIRECTORY) & all)
        .at(Step::MakeRules)?;
    if !ground.no_proc {
        // Programs write to files of their own there, such as `comm` and `oom_score_adj`.
        allow(rules, c"/proc", (READ | sys::WRITE_FILE) & all).at(Step::MakeRules)?;
    }
    Ok(made)
}

/// Adds the rules about what the plan alone has: about the very mounts, and not what their paths lead to.
pub(super) fn complete(
    rules: BorrowedFd<'_>,
    plan: &Plan<'_>,
    prepared: &Prepared,
    overlay: Option<BorrowedFd<'_>>,
) -> std::result::Result<(), Failure> {
    let mut sources = prepared.iter().map(|source| source.as_ref().map(AsFd::as_fd));
    let all = files(plan.landlock);
    let writable = all & !(sys::MAKE_CHARACTER_DEVICE | sys::MAKE_BLOCK_DEVICE);
    for entry in plan.entries() {
        match entry {
            Entry::Tmpfs { target, .. } => {
                allow(rules, target, writable).at(Step::MakeRules)?;
            }
            Entry::Overlay { .. } => {
                sources.next();
                allow_mount(rules, overlay, writable)?;
            }
            Entry::Bind { access, .. } => {
                let rights = if access.writable { writable } else { READ & all };
                allow_mount(rules, sources.next().flatten(), rights)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn allow_mount(
    rules: BorrowedFd<'_>,
    mount: Option<BorrowedFd<'_>>,
    rights: u64,
) -> std::result::Result<(), Failure> {
    let mount = mount.ok_or(Errno::from_raw(libc::EINVAL)).at(Step::MakeRules)?;
    allow_below(rules, mount, rights).at(Step::MakeRules)
}

/// Whether the rules are about TCP: where there is a loopback device, they aren't.
pub(super) fn forbids_tcp(ground: Ground) -> bool {
    ground.landlock >= 4 && !ground.loopback
}

/// Whether abstract sockets and signals outside are out of reach.
pub(super) fn has_scopes(ground: Ground) -> bool {
    ground.landlock >= 6
}

/// Puts the calling process under these rules.
pub(super) fn restrict(
    rules: BorrowedFd<'_>,
    ground: Ground,
    stack: &mut Stack,
) -> std::result::Result<(), Failure> {
    let outside = has_scopes(ground).then(|| Outside::new(stack)).transpose();
    let outside = outside.at(Step::VerifyRules)?;
    sys::restrict_self(rules).at(Step::EnterRules)?;
    verify().at(Step::VerifyRules)?;
    if forbids_tcp(ground) {
        verify_tcp().at(Step::VerifyRules)?;
    }
    outside.map_or(Ok(()), Outside::verify).at(Step::VerifyRules)
}

/// What is there before the rules, and so outside of them.
struct Outside {
    socket: OwnedFd,
    /// A child that has ended: the caller has no other.
    child: i32,
}

impl Outside {
    fn new(stack: &mut Stack) -> Result<Self> {
        Ok(Self { socket: socket::abstract_one()?, child: process::spawn_ended(stack)? })
    }

    /// None of it is within reach.
    fn verify(self) -> Result<()> {
        let signals = refused(process::kill(self.child, 0));
        process::reap(true)?;
        signals.and(refused(socket::connect_to_itself(self.socket.as_fd())))
    }
}

/// Whether the scope forbade it.
fn refused(answer: Result<()>) -> Result<()> {
    match answer {
        Err(errno) if errno.raw() == libc::EPERM => Ok(()),
        Err(other) => Err(other),
        Ok(()) => Err(credentials::NOT_AS_SET),
    }
}

/// The way to `path` has to be ours: links on it are followed.
fn allow(rules: BorrowedFd<'_>, path: &CStr, rights: u64) -> Result<()> {
    let place = file::open(path, libc::O_PATH | libc::O_CLOEXEC)?;
    allow_below(rules, place.as_fd(), rights)
}

/// What a rule of a directory may say is more than what one of a file may.
fn allow_below(rules: BorrowedFd<'_>, place: BorrowedFd<'_>, rights: u64) -> Result<()> {
    let directory = file::status(place)?.is_directory;
    let rights = if directory { rights } else { rights & OF_FILES };
    sys::allow_below(rules, rights, place)
}

fn verify() -> Result<()> {
    match file::open(GUARD, libc::O_RDONLY | libc::O_CLOEXEC) {
        Err(errno) if errno.raw() == libc::EACCES => Ok(()),
        Err(other) => Err(other),
        Ok(_) => Err(credentials::NOT_AS_SET),
    }
}

/// No rule names either port. Nothing is sent: whatever the answer, the address is this network's own.
fn verify_tcp() -> Result<()> {
    let stream = match socket::tcp() {
        // Without TCP in the kernel there is nothing to forbid.
        Err(errno) if errno.raw() == libc::EAFNOSUPPORT => return Ok(()),
        other => other?,
    };
    let refused = Err(Errno::from_raw(libc::EACCES));
    let (bound, connected) = (
        socket::bind_local(stream.as_fd(), 0),
        socket::connect_local(stream.as_fd(), UNNAMED_PORT),
    );
    if bound == refused && connected == refused { Ok(()) } else { Err(credentials::NOT_AS_SET) }
}

/// All rights about files that the version knows.
fn files(version: u32) -> u64 {
    let first = READ
        | sys::WRITE_FILE
        | sys::REMOVE_DIRECTORY
        | sys::REMOVE_FILE
        | sys::MAKE_CHARACTER_DEVICE
        | sys::MAKE_DIRECTORY
        | sys::MAKE_FILE
        | sys::MAKE_SOCKET
        | sys::MAKE_FIFO
        | sys::MAKE_BLOCK_DEVICE
        | sys::MAKE_LINK;
    let later = [(2, sys::REFER), (3, sys::TRUNCATE), (5, sys::DEVICE_IOCTL)];
    later.iter().filter(|(from, _)| version >= *from).fold(first, |all, (_, right)| all | right)
}

/// A port that is nobody's.
const UNNAMED_PORT: u16 = 1;
const READ: u64 = sys::EXECUTE | sys::READ_FILE | sys::READ_DIRECTORY;
const OF_FILES: u64 =
    sys::EXECUTE | sys::WRITE_FILE | sys::READ_FILE | sys::TRUNCATE | sys::DEVICE_IOCTL;

/// Where programs, libraries and their settings are. Links among them lead to places that are themselves
/// in the list.
const READABLE: [&CStr; 8] =
    [c"/usr", c"/bin", c"/sbin", c"/lib", c"/lib32", c"/lib64", c"/libx32", c"/etc"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_rules_nothing_is_proven() {
        let not_as_set = Err(credentials::NOT_AS_SET);
        assert_eq!(verify_tcp(), not_as_set);
        let socket = socket::abstract_one().unwrap();
        assert_eq!(refused(socket::connect_to_itself(socket.as_fd())), not_as_set);
        assert_eq!(refused(process::kill(process::own_pid(), 0)), not_as_set);
        // No cell's root, so no guard.
        assert!(verify().is_err());
    }

    #[test]
    fn versions_only_add() {
        let mut known = 0;
        for version in 1..=9 {
            let all = files(version);
            assert_eq!(all & known, known);
            known = all;
        }
        assert_eq!(files(1).count_ones(), 13);
        assert_eq!(files(9).count_ones(), 16);
    }
}
