//! The cell's own root: first everything of the host that is needed is taken as detached mounts,
//! then the root changes, then the pieces are put into place. No path is ever resolved in both
//! worlds at once, so a link in one can't lead into the other.

use std::os::fd::{AsFd, OwnedFd};

use super::{
    At, Failure,
    sys::{
        Result, credentials, file,
        mount::{self, Forbid},
        socket,
    },
};
use crate::{
    plan::{BindAccess, Entry, MAX_PLAN_BINDS, Plan},
    step::Step,
};

/// Detached mounts on their way from the host's tree to the cell's.
#[derive(Debug)]
pub(super) struct Sources {
    binds: [Option<OwnedFd>; MAX_PLAN_BINDS],
    proc: OwnedFd,
}

impl Sources {
    /// Opens what the plan binds, except what `prepared` has already.
    pub(super) fn open(
        plan: &Plan<'_>,
        prepared: &[Option<OwnedFd>; MAX_PLAN_BINDS],
    ) -> std::result::Result<Self, Failure> {
        let mut binds = [const { None }; MAX_PLAN_BINDS];
        let entries = plan.entries().filter_map(|entry| match entry {
            Entry::Bind { source, access, .. } => Some((source, access)),
            _ => None,
        });
        for (index, ((source, access), (slot, ready))) in
            entries.zip(binds.iter_mut().zip(prepared)).enumerate()
        {
            if ready.is_some() {
                continue;
            }
            let copy = mount::copy(source).at_index(Step::OpenSource, index)?;
            mount::restrict(copy.as_fd(), forbidden(access))
                .at_index(Step::RestrictSource, index)?;
            *slot = Some(copy);
        }
        let proc = mount::new_proc().at(Step::MountProc)?;
        Ok(Self { binds, proc })
    }
}

/// What a bind must not be used for.
pub(crate) fn forbidden(access: BindAccess) -> Forbid {
    Forbid {
        write: !access.writable && !access.device,
        device: !access.device,
        execute: access.device,
    }
}

/// Leaves the host's tree for an empty root.
pub(super) fn change(plan: &Plan<'_>) -> std::result::Result<(), Failure> {
    let Some(Entry::Root { options }) = plan.entries().next() else {
        return Err(invalid()).at(Step::MountRoot);
    };
    // Any directory will do to mount the new root on, and this one exists wherever the zygote could
    // start.
    mount::tmpfs(MOUNT_POINT, options).at(Step::MountRoot)?;
    file::enter(MOUNT_POINT).at(Step::MountRoot)?;
    mount::pivot_here().at(Step::PivotRoot)?;
    mount::detach_here().at(Step::DetachHost)?;
    file::enter(c"/").at(Step::PivotRoot)
}

/// Carries the plan's entries out, in their order.
pub(super) fn furnish(
    plan: &Plan<'_>,
    sources: &Sources,
    prepared: &[Option<OwnedFd>; MAX_PLAN_BINDS],
) -> std::result::Result<(), Failure> {
    let mut binds = sources.binds.iter().zip(prepared).enumerate();
    for entry in plan.entries() {
        match entry {
            Entry::HostName { name } => {
                credentials::set_host_name(name.to_bytes()).at(Step::SetHostName)?;
            }
            Entry::Directory { path } => file::make_directory(path).at(Step::MakeDirectory)?,
            Entry::File { path, contents } => file::create(path, contents).at(Step::WriteFile)?,
            Entry::Symlink { path, target } => file::symlink(target, path).at(Step::MakeSymlink)?,
            Entry::Bind { target, .. } => {
                let (index, (own, prepared)) =
                    binds.next().ok_or_else(invalid).at(Step::AttachBind)?;
                let source = own.as_ref().or(prepared.as_ref());
                let source = source.ok_or_else(invalid).at_index(Step::AttachBind, index)?;
                attach(source, target).at_index(Step::AttachBind, index)?;
            }
            Entry::Tmpfs { target, options } => {
                mount::tmpfs(target, options).at(Step::MountTmpfs)?;
            }
            Entry::Proc { target } => {
                mount::attach(sources.proc.as_fd(), target).at(Step::MountProc)?;
            }
            Entry::Root { .. }
            | Entry::StartDirectory { .. }
            | Entry::Candidate { .. }
            | Entry::Argument { .. }
            | Entry::Variable { .. } => {}
        }
    }
    file::write_once(MAX_USER_NAMESPACES, b"0").at(Step::ForbidNesting)?;
    if plan.loopback {
        socket::raise_loopback().at(Step::RaiseLoopback)?;
    }
    mount::seal_root().at(Step::SealRoot)
}

/// Puts a mount onto a directory or a file, whichever it is itself.
fn attach(source: &OwnedFd, target: &std::ffi::CStr) -> Result<()> {
    if file::status(source.as_fd())?.is_directory {
        file::make_directory(target)?;
    } else {
        match file::create(target, b"") {
            Err(errno) if errno.raw() != libc::EEXIST => return Err(errno),
            _ => {}
        }
    }
    mount::attach(source.as_fd(), target)
}

fn invalid() -> crate::errno::Errno {
    crate::errno::Errno::from_raw(libc::EINVAL)
}

const MOUNT_POINT: &std::ffi::CStr = c"/proc";
/// Counts for the caller's user namespace; 0 means that nobody inside can make another.
const MAX_USER_NAMESPACES: &std::ffi::CStr = c"/proc/sys/user/max_user_namespaces";
