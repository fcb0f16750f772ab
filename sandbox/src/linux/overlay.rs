//! A copy-on-write view of a tree: reads come from below, changes go to a tmpfs, which the host looks
//! at when the cell has ended.

use std::{
    ffi::CStr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use super::{
    At, Failure,
    sys::{
        file,
        mount::{self, Forbid},
    },
    target::Target,
};
use crate::step::Step;

/// Mounts `lower` at `target` so that it can be written to, and returns the directory that the
/// changes go to, and the overlay. `options` bound the tmpfs for the changes. The working directory
/// becomes `/`. `forbid` is about the overlay.
///
/// The kernel takes the parts of an overlay by path, from the caller's own mount table. So they are
/// put to `target` first, named relative to it, and taken away again; the overlay then lies there
/// alone.
///
/// Before Linux 6.6 a tmpfs keeps no attributes, so an overlay can't note that a directory hides
/// another: removing a directory of `lower`, or making one in its place, is `EIO` in the cell.
///
/// What is mounted below `lower` can't be seen through an overlay, and a kernel that has locked it
/// there refuses the whole with `EINVAL`. Where an owner of `lower` has no id in the cell, the
/// cell can't change what is his: map the owners first.
pub(crate) fn mount(
    lower: BorrowedFd<'_>,
    target: &Target<'_>,
    options: &CStr,
    forbid: Forbid,
) -> Result<(OwnedFd, OwnedFd), Failure> {
    let changes = mount::tmpfs_detached(options).at(Step::MountChanges)?;
    target.attach(changes.as_fd()).at(Step::MountChanges)?;
    file::enter_open(changes.as_fd()).at(Step::MountChanges)?;
    for directory in [LOWER, UPPER, WORK] {
        file::make_directory(directory).at(Step::MountChanges)?;
    }
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    let upper = file::open(UPPER, flags).at(Step::MountChanges)?;
    mount::attach(lower, LOWER).at(Step::AttachLower)?;
    let overlay = mount::overlay(LOWER, UPPER, WORK, forbid).at(Step::MountOverlay)?;
    mount::detach(LOWER).at(Step::HideParts)?;
    mount::detach_here().at(Step::HideParts)?;
    file::enter(c"/").at(Step::HideParts)?;
    target.attach(overlay.as_fd()).at(Step::MountOverlay)?;
    Ok((upper, overlay))
}

const LOWER: &CStr = c"lower";
const UPPER: &CStr = c"upper";
const WORK: &CStr = c"work";
