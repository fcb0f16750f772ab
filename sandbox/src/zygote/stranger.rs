//! A process that has left root, as the processes of a root's cells have: on it, zygote and host try
//! whether they may end a cell.
//!
//! A signal to another id takes a capability, in whoever sends it, and in whose death the kernel sends it
//! for. A root without it starts cells that nobody ends.

#![expect(unsafe_code, reason = "forking needs the promise that there is one thread")]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::linux::sys::{
    self, credentials, event,
    process::{self, Forked},
    socket::{self, Wait},
};

/// See the module. It ends with the lifeline.
#[derive(Debug)]
pub(super) struct Stranger {
    process: OwnedFd,
    lifeline: OwnedFd,
}

impl Stranger {
    /// One with this id, unless the calling process has left root itself; then it has the same id, which
    /// is another one than the host's.
    pub(super) fn make(id: u32) -> sys::Result<Self> {
        let (ours, theirs) = socket::pair()?;
        let (user, _) = credentials::effective_ids();
        // SAFETY: this is the zygote, which never starts a thread.
        match unsafe { process::fork(0, None) }? {
            Forked::Child => {
                drop(ours);
                // Where no process can take another id, there is none to end.
                if user != 0 || credentials::set_ids(id, id).is_ok() {
                    socket::send(theirs.as_fd(), [b"changed", &[]], &[], Wait::No).ok();
                    socket::receive(theirs.as_fd(), &mut [0; 8], Wait::Yes).ok();
                }
                process::exit(0)
            }
            Forked::Parent { pidfd, .. } => {
                drop(theirs);
                socket::receive(ours.as_fd(), &mut [0; 8], Wait::Yes)?;
                Ok(Self { process: pidfd, lifeline: ours })
            }
        }
    }

    /// Whether the calling process may end it.
    pub(super) fn is_mortal(&self) -> bool {
        is_mortal(self.process.as_fd())
    }

    /// What the host needs for the same trial.
    pub(super) fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.process.as_fd(), self.lifeline.as_fd()]
    }
}

/// Whether the calling process may end that process, or could have as long as it was there.
pub(crate) fn is_mortal(process: BorrowedFd<'_>) -> bool {
    let ended = event::signal(process, NO_SIGNAL);
    !matches!(ended, Err(errno) if errno.raw() == libc::EPERM)
}

/// Asks for the right alone.
const NO_SIGNAL: i32 = 0;
