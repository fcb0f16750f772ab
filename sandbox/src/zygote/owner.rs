//! Binds of a privileged zygote: it can reach every host path, and can show a directory to a cell
//! as if the directory's owner were the cell.

#![expect(unsafe_code, reason = "forking needs the promise that there is one thread")]

use std::{
    ffi::CString,
    os::fd::{AsFd, OwnedFd},
};

use crate::{
    errno::Errno,
    linux::{
        At, Failure, forbidden,
        sys::{
            self, file, mount,
            process::{self, Forked, NEW_USER},
        },
    },
    plan::{Entry, MAX_PLAN_BINDS, Plan},
    step::Step,
};

/// Takes the binds that the profile names, as detached mounts.
pub(super) fn prepare(
    plan: &Plan<'_>,
    host_id: u32,
) -> Result<[Option<OwnedFd>; MAX_PLAN_BINDS], Failure> {
    let mut prepared = [const { None }; MAX_PLAN_BINDS];
    let binds = plan.entries().filter_map(|entry| match entry {
        Entry::Bind { source, access, .. } => Some((source, access)),
        _ => None,
    });
    for (index, ((source, access), slot)) in binds.zip(&mut prepared).enumerate() {
        if !access.foreign {
            continue;
        }
        let copy = mount::copy(source).at_index(Step::OpenSource, index)?;
        let status = file::status(copy.as_fd()).at_index(Step::OpenSource, index)?;
        // Never as root: a set-user-id file that the cell leaves in the directory would be root's
        // outside.
        if status.uid != 0 && status.gid != 0 {
            let users = users(status.uid, status.gid, host_id).at_index(Step::MapOwner, index)?;
            match mount::map_owners(copy.as_fd(), users.as_fd()) {
                // The file system can't: the bind stays under its permission bits, which is less,
                // not more.
                Err(errno) if errno.raw() == libc::EINVAL => {}
                other => other.at_index(Step::MapOwner, index)?,
            }
        }
        mount::restrict(copy.as_fd(), forbidden(access)).at_index(Step::RestrictSource, index)?;
        *slot = Some(copy);
    }
    Ok(prepared)
}

/// A user namespace that says: `user` and `group` on disk are `host_id` in the cell's mount. It
/// takes a process to make one; the namespace outlives it.
fn users(user: u32, group: u32, host_id: u32) -> sys::Result<OwnedFd> {
    let (waits, holds) = file::pipe()?;
    // SAFETY: this is the zygote, which never starts a thread.
    match unsafe { process::fork(NEW_USER) }? {
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

/// Writes one of a child's id maps.
pub(super) fn write_map(pid: i32, name: &str, line: &str) -> sys::Result<()> {
    file::write_once(&path(pid, name)?, line.as_bytes())
}

fn path(pid: i32, name: &str) -> sys::Result<CString> {
    CString::new(format!("/proc/{pid}/{name}")).map_err(|_nul| Errno::from_raw(libc::EINVAL))
}
