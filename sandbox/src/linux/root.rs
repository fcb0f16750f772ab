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
        Result, file,
        mount::{self, Forbid, ProcView},
        tree,
    },
    target::Target,
};
use crate::{
    errno::Errno,
    plan::{Entry, Ground, MAX_PLAN_BINDS, Plan},
    step::Step,
};

/// Detached mounts that the zygote has taken from the host's tree, in the order of the plan.
pub(crate) type Prepared = [Option<OwnedFd>; MAX_PLAN_BINDS];

/// What a bind must not be used for. `no_execute` is the plan's: what the cell can write to can't be
/// executed.
pub(crate) fn forbidden(writable: bool, no_execute: bool) -> Forbid {
    Forbid { write: !writable, device: true, execute: writable && no_execute }
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

/// A plan's overlay.
#[derive(Debug)]
pub(super) struct Overlaid {
    /// The directory that the changes go to.
    pub(super) upper: OwnedFd,
    /// What is below.
    pub(super) below: tree::Place,
    /// What the cell sees.
    pub(super) shown: OwnedFd,
}

/// Carries the plan's entries out, in their order. `own` is the caller's directory below the zygote's
/// `/proc`.
pub(super) fn furnish(
    plan: &Plan<'_>,
    prepared: &Prepared,
    own: BorrowedFd<'_>,
) -> std::result::Result<Option<Overlaid>, Failure> {
    let (mut overlaid, mut overlay_options) = (None, c"");
    let mut has_binds = false;
    let mut sources = prepared.iter().enumerate();
    for entry in plan.entries() {
        match entry {
            Entry::Bind { target, access, .. } => {
                let (index, source) = next(&mut sources)?;
                let forbid = forbidden(access.writable, plan.no_execute);
                bind(source, target, forbid).at_index(Step::AttachBind, index)?;
                has_binds = true;
            }
            Entry::OverlayOptions { options } => overlay_options = options,
            Entry::Overlay { target, .. } => {
                let (index, source) = next(&mut sources)?;
                let below = file::status(source).at_index(Step::AttachLower, index)?;
                let target = Target::make(target, below.is_directory);
                let target = target.at_index(Step::AttachLower, index)?;
                let forbid = forbidden(true, plan.no_execute);
                let (upper, shown) = overlay::mount(source, &target, overlay_options, forbid)?;
                mounted::verify_bind(&target, forbid).at(Step::MountOverlay)?;
                overlaid = Some(Overlaid { upper, below: below.place, shown });
            }
            Entry::Tmpfs { target, options } => {
                mount::tmpfs(target, options, plan.no_execute).at(Step::MountTmpfs)?;
                mounted::verify_tmpfs(target, options, plan.no_execute).at(Step::MountTmpfs)?;
            }
            _ => {}
        }
    }
    if has_binds {
        mounted::verify_furnished(own, plan)?;
    }
    verify().at(Step::VerifyRoot)?;
    Ok(overlaid)
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
fn bind(source: BorrowedFd<'_>, target: &CStr, forbid: Forbid) -> Result<()> {
    let target = Target::make(target, file::status(source)?.is_directory)?;
    target.attach(source)?;
    mounted::verify_bind(&target, forbid)
}

const INVALID: Errno = Errno::from_raw(libc::EINVAL);
