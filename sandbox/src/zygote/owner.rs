//! Host paths for cells, as detached mounts. A privileged zygote can show a directory to a cell as
//! if the directory's owner were the cell.

#![expect(unsafe_code, reason = "forking needs the promise that there is one thread")]

use std::{
    ffi::{CStr, CString},
    os::fd::{AsFd, OwnedFd},
};

use super::nursery::Nursery;
use crate::{
    errno::Errno,
    linux::{
        At, Failure, Prepared, forbidden,
        sys::{
            self, file, mount,
            process::{self, Forked, NEW_NS, NEW_USER},
            socket::{self, Received, Wait},
        },
    },
    plan::{Entry, MAX_PLAN_BINDS, Plan},
    step::Step,
};

/// Takes what the plan shows of the host, in the order of the plan.
pub(super) fn prepare(
    nursery: &Nursery,
    plan: &Plan<'_>,
    host_id: u32,
) -> Result<Prepared, Failure> {
    let mut prepared = [const { None }; MAX_PLAN_BINDS];
    let binds = plan.entries().filter_map(|entry| match entry {
        Entry::Bind { source, access, .. } if access.writable => Some((source, Use::Writable)),
        Entry::Bind { source, .. } => Some((source, Use::ReadOnly)),
        Entry::Overlay { source, .. } => Some((source, Use::Copied)),
        _ => None,
    });
    let mut binds = binds.zip(&mut prepared).enumerate().peekable();
    if binds.peek().is_none() {
        return Ok(prepared);
    }
    nursery.outside(|| {
        binds.try_for_each(|(index, ((source, usage), slot))| {
            let forbid = forbidden(usage == Use::Writable, plan.no_execute);
            let copy = take(nursery, source, usage, host_id, index)?;
            mount::restrict(copy.as_fd(), forbid).at_index(Step::RestrictSource, index)?;
            *slot = Some(copy);
            Ok(())
        })
    })?;
    Ok(prepared)
}

/// What a host path is shown for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    ReadOnly,
    Writable,
    /// Below an overlay: it is never written to itself.
    Copied,
}

fn take(
    nursery: &Nursery,
    source: &CStr,
    usage: Use,
    host_id: u32,
    index: usize,
) -> Result<OwnedFd, Failure> {
    let copy = mount::copy_straight(source).at_index(Step::OpenSource, index)?;
    let status = file::status(copy.as_fd()).at_index(Step::OpenSource, index)?;
    // Never as root: a set-user-id file that the cell leaves in the directory would be root's
    // outside. Where nothing is left in it, its owner may be anybody.
    let mappable = usage == Use::Copied || (status.uid != 0 && status.gid != 0);
    if nursery.is_privileged() && mappable {
        let users = users(status.uid, status.gid, host_id).at_index(Step::MapOwner, index)?;
        match mount::map_owners(copy.as_fd(), users.as_fd()) {
            // The file system can't: the bind stays under its permission bits, which is less, not
            // more.
            Err(errno) if errno.raw() == libc::EINVAL => {}
            other => other.at_index(Step::MapOwner, index)?,
        }
    }
    Ok(copy)
}

/// A user namespace that says: `user` and `group` on disk are `host_id` in the cell's mount. It
/// takes a process to make one; the namespace outlives it.
fn users(user: u32, group: u32, host_id: u32) -> sys::Result<OwnedFd> {
    let (waits, holds) = file::pipe()?;
    // SAFETY: this is the zygote, which never starts a thread.
    match unsafe { process::fork(NEW_USER, None) }? {
        Forked::Child => {
            // The copy of the writing end would keep this process waiting for itself.
            drop(holds);
            file::read(waits.as_fd(), &mut [0]).ok();
            process::exit(0)
        }
        Forked::Parent { pid, .. } => {
            let made = write_map(pid, "uid_map", &format!("{user} {host_id} 1\n"))
                .and_then(|()| write_map(pid, "gid_map", &format!("{group} {host_id} 1\n")))
                .and_then(|()| {
                    file::open(&path(pid, "ns/user")?, libc::O_RDONLY | libc::O_CLOEXEC)
                });
            process::kill(pid, libc::SIGKILL).ok();
            made
        }
    }
}

/// A copy of the caller's mount table, of a user namespace below the caller's. It takes a process to
/// make one; the table outlives it.
pub(super) fn locked_table() -> sys::Result<OwnedFd> {
    let (ours, theirs) = socket::pair()?;
    // SAFETY: this is the zygote, which never starts a thread.
    match unsafe { process::fork(NEW_USER | NEW_NS, None) }? {
        Forked::Child => {
            let opened = file::open(c"/proc/self/ns/mnt", libc::O_RDONLY | libc::O_CLOEXEC);
            if let Ok(table) = opened {
                socket::send(theirs.as_fd(), [b"table", &[]], &[table.as_fd()], Wait::No).ok();
            }
            process::exit(0)
        }
        Forked::Parent { .. } => {
            drop(theirs);
            let Received { passed: [table, ..], .. } =
                socket::receive(ours.as_fd(), &mut [0; 8], Wait::Yes)?;
            table.ok_or(Errno::from_raw(libc::ESRCH))
        }
    }
}

/// Writes one of a child's id maps.
fn write_map(pid: i32, name: &str, line: &str) -> sys::Result<()> {
    file::write_once(&path(pid, name)?, line.as_bytes())
}

fn path(pid: i32, name: &str) -> sys::Result<CString> {
    CString::new(format!("/proc/{pid}/{name}")).map_err(|_nul| Errno::from_raw(libc::EINVAL))
}
