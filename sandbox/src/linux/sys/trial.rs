//! Real processes for tests of this crate: started in a control group, awaited by their number.

#![expect(unsafe_code, reason = "system calls; see each block")]

use std::{
    ffi::CString,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use super::{
    Result, check, event,
    process::{self, Ending, Forked, StringList},
};

/// A running shell.
#[derive(Debug)]
pub(crate) struct Trial {
    pub(crate) pid: i32,
    pidfd: OwnedFd,
}

impl Trial {
    /// Starts `/bin/sh -c script` in a group of version 2 and after `enter`, which may only make
    /// system calls.
    pub(crate) fn start(
        group: Option<BorrowedFd<'_>>,
        enter: impl FnOnce() -> Result<()>,
        script: &str,
    ) -> Result<Self> {
        let script = CString::new(script).expect("no NUL in a test's script");
        let arguments = [c"sh", c"-c", script.as_c_str()];
        let arguments = StringList::new(arguments.into_iter());
        let environment = StringList::new([c"PATH=/usr/bin:/bin"].into_iter());
        // SAFETY: the test has threads, so the child may meet locks that nobody opens; it takes
        // none: it makes system calls until it executes another program.
        match unsafe { process::fork(0, group) }? {
            Forked::Child => {
                if enter().is_ok() {
                    process::execute(c"/bin/sh", &arguments, &environment);
                }
                process::exit(NOT_STARTED)
            }
            Forked::Parent { pid, pidfd } => Ok(Self { pid, pidfd }),
        }
    }

    /// Waits for its end. `None`: it still runs after this time.
    pub(crate) fn wait(&self, milliseconds: i32) -> Result<Option<Ending>> {
        if !event::is_readable(self.pidfd.as_fd(), milliseconds)? {
            return Ok(None);
        }
        let mut status = 0;
        // SAFETY: the status is live and ours.
        check(unsafe { libc::waitpid(self.pid, &raw mut status, 0) })?;
        Ok(Some(process::ending(status)))
    }
}

/// The status of a shell that didn't come into its group.
pub(crate) const NOT_STARTED: i32 = 99;

/// Takes a cgroup namespace of its own.
pub(crate) fn own_cgroup_namespace() -> Result<()> {
    // SAFETY: changes what the calling process sees of the control groups, and no memory.
    check(unsafe { libc::unshare(libc::CLONE_NEWCGROUP) })?;
    Ok(())
}
