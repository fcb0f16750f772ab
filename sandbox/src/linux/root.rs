//! The cell's own root: a copy of the shared one takes the place of the zygote's, then what belongs
//! to this cell alone is put into it. No path is ever resolved in both worlds at once, so a link in
//! one can't lead into the other.

use std::{
    ffi::CStr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use super::{
    At, Failure, Templates, mounted, overlay,
    sys::{
        Result,
        file::{self, Status},
        mount::{self, Forbid, ProcView},
        tree,
    },
};
use crate::{
    errno::Errno,
    plan::{Entry, Ground, MAX_PLAN_BINDS, Plan},
    step::Step,
};

/// Detached mounts that the zygote has taken from the host's tree, in the order of the plan.
pub(crate) type Prepared = [Option<OwnedFd>; MAX_PLAN_BINDS];

/// What a bind must not be used for.
pub(crate) fn forbidden(writable: bool) -> Forbid {
    Forbid { write: !writable, device: true, execute: false }
}

/// A `/proc` for the new process ids, made while the zygote's is in sight; a plan without one has
/// none.
pub(super) fn proc(ground: Ground) -> std::result::Result<Option<OwnedFd>, Failure> {
    if ground.no_proc {
        return Ok(None);
    }
    let view = if ground.bare_proc { ProcView::Processes } else { ProcView::Whole };
    mount::new_proc(view).at(Step::MountProc).map(Some)
}

/// Leaves the zygote's tree for `root`, a detached copy of the shared one, and puts `proc` into it.
pub(super) fn change(
    root: BorrowedFd<'_>,
    proc: Option<BorrowedFd<'_>>,
) -> std::result::Result<(), Failure> {
    mount::attach(root, Templates::MARK).at(Step::MountRoot)?;
    file::enter(Templates::MARK).at(Step::MountRoot)?;
    mount::pivot_here().at(Step::PivotRoot)?;
    mount::detach_here().at(Step::DetachHost)?;
    file::enter(c"/").at(Step::PivotRoot)?;
    proc.map_or(Ok(()), |proc| mount::attach(proc, c"/proc").at(Step::MountProc))
}

/// Carries the plan's entries out, in their order. Returns the upper directory of the overlay and what is
/// below it, if the plan has one. `own` is the caller's directory below the zygote's `/proc`.
pub(super) fn furnish(
    plan: &Plan<'_>,
    prepared: &Prepared,
    own: BorrowedFd<'_>,
) -> std::result::Result<Option<(OwnedFd, tree::Place)>, Failure> {
    let (mut upper, mut overlay_options) = (None, c"");
    let mut has_binds = false;
    let mut sources = prepared.iter().enumerate();
    for entry in plan.entries() {
        match entry {
            Entry::Directory { path } => file::make_directory(path).at(Step::MakeDirectory)?,
            Entry::Bind { target, access, .. } => {
                let (index, source) = next(&mut sources)?;
                attach(source, target).at_index(Step::AttachBind, index)?;
                mounted::verify_bind(target, access.writable).at_index(Step::AttachBind, index)?;
                has_binds = true;
            }
            Entry::OverlayOptions { options } => overlay_options = options,
            Entry::Overlay { target, .. } => {
                let (index, source) = next(&mut sources)?;
                let below = make_place(source, target).at_index(Step::AttachLower, index)?.place;
                upper = Some((overlay::mount(source, target, overlay_options)?, below));
                mounted::verify_bind(target, true).at(Step::MountOverlay)?;
            }
            Entry::Tmpfs { target, options } => {
                mount::tmpfs(target, options, plan.no_execute).at(Step::MountTmpfs)?;
                mounted::verify_tmpfs(target, options, plan.no_execute).at(Step::MountTmpfs)?;
            }
            _ => {}
        }
    }
    if has_binds {
        mounted::verify_below(own, plan)?;
    }
    verify().at(Step::VerifyRoot)?;
    Ok(upper)
}

/// The root is read-only, and nothing of the zygote's is above it.
fn verify() -> Result<()> {
    let root = file::status_at(c"/")?;
    let above = file::status_at(c"/..")?;
    let host = file::status_at(Templates::MARK);
    let gone = matches!(host, Err(errno) if errno.raw() == libc::ENOENT);
    if root.is_read_only && root.inode == above.inode && root.device == above.device && gone {
        Ok(())
    } else {
        Err(super::sys::credentials::NOT_AS_SET)
    }
}

type Sources<'a> = std::iter::Enumerate<std::slice::Iter<'a, Option<OwnedFd>>>;

fn next<'a>(sources: &mut Sources<'a>) -> std::result::Result<(usize, BorrowedFd<'a>), Failure> {
    let (index, source) = sources.next().ok_or(INVALID).at(Step::AttachBind)?;
    let source = source.as_ref().ok_or(INVALID).at_index(Step::AttachBind, index)?;
    Ok((index, source.as_fd()))
}

/// Puts a mount onto a directory or a file, whichever it is itself.
fn attach(source: BorrowedFd<'_>, target: &CStr) -> Result<()> {
    make_place(source, target)?;
    mount::attach(source, target)
}

/// Returns what the source is.
fn make_place(source: BorrowedFd<'_>, target: &CStr) -> Result<Status> {
    // Outside of the writable directories the place is there already, and can't be made.
    let status = file::status(source)?;
    let made =
        if status.is_directory { file::make_directory(target) } else { file::create(target, b"") };
    match made {
        Err(errno) if ![libc::EEXIST, libc::EROFS].contains(&errno.raw()) => Err(errno),
        _ => Ok(status),
    }
}

const INVALID: Errno = Errno::from_raw(libc::EINVAL);
