//! News of a group that is out of memory, where version 1 has the memory controller. The kernel tells all
//! groups below the one that ran out, and before it ends anything: whose want it is, the group's own counter
//! says a moment later.

use std::{
    ffi::CString,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use super::{
    tree::{self, Tree, Version},
    usage::{self, Ledger},
};
use crate::{
    diagnosis::Controller,
    errno::Errno,
    linux::sys::{self, directory, event, file},
};

/// Makes one silent until it rings again.
pub(super) fn hush(alarm: BorrowedFd<'_>) {
    // It fails if it hasn't rung, which is as good.
    file::read(alarm, &mut [0; COUNT]).ok();
}

/// Bytes of what a counter says.
const COUNT: usize = 8;

/// Asks to be told. `None` where nobody needs to be, or the kernel can't: then the rest of a cell
/// lives until its own end, as before.
pub(super) fn set(tree: &Tree, group: &CString, ledger: &Ledger) -> Option<OwnedFd> {
    let memory = tree.holder(Controller::Memory)?;
    if memory.version != Version::Legacy {
        return None;
    }
    let directory = memory.subtree.as_fd();
    let asked = || -> sys::Result<OwnedFd> {
        let control = ledger.page(Version::Legacy, usage::EVENTS);
        let control = control.ok_or(Errno::from_raw(libc::ENOENT))?;
        let alarm = event::counter()?;
        let registry = tree::path(&[group.as_bytes(), b"/cgroup.event_control"])?;
        let registry = directory::open_at(directory, &registry, libc::O_WRONLY)?;
        let line = format!("{} {}", alarm.as_raw_fd(), control.as_raw_fd());
        file::write(registry.as_fd(), line.as_bytes())?;
        Ok(alarm)
    };
    asked().ok()
}
