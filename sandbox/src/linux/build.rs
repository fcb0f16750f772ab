//! What a first process builds around itself, in two parts: what all cells have in common, and what
//! the plan says. A process that is made ahead ([`super::seedling`]) does the first part, and waits
//! between the two.

use std::{
    ffi::CStr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use super::{
    At, Failure, Namespaces,
    child::{Clock, Launch},
    is_root_outside,
    joint::{Guest, Terms, Ticket},
    landlock, lockdown, mounted, root,
    sys::{
        Result as SysResult, credentials, directory, file,
        process::{self, NEW_CGROUP},
        seccomp,
        socket::{self, Wait},
        tree,
    },
};
use crate::{limits, plan::Ground, step::Step, zygote::protocol::Record};

/// What the nursery gives to a cell.
#[derive(Debug)]
pub(crate) struct Nest<'a> {
    /// A copy of the shared root, detached.
    pub(crate) root: OwnedFd,
    /// The id, in the zygote's user namespace, that the cell's id stands for.
    pub(crate) host_id: u32,
    /// Whether the zygote could give its groups up.
    pub(crate) privileged: bool,
    /// The zygote's own.
    pub(crate) namespaces: Namespaces,
    /// Files of groups to enter by writing to them.
    pub(crate) groups: &'a [BorrowedFd<'a>],
}

/// Into the groups. Those of version 2 the process was born in.
pub(super) fn enter_groups(nest: &Nest<'_>) -> Result<(), Failure> {
    for group in nest.groups {
        file::write(*group, b"0").at(Step::EnterGroup)?;
    }
    process::unshare(NEW_CGROUP).at(Step::Clone)
}

/// Ids and a root: what cells have in common. Returns the process's own directory below the zygote's
/// `/proc`, since the cell may have none, and what a fork of an interpreter needs to come in, if one
/// `is_invited`.
pub(super) fn settle(
    nest: &Nest<'_>,
    ground: Ground,
    is_invited: bool,
    clock: &mut Clock,
) -> Result<(OwnedFd, Option<Ticket>), Failure> {
    credentials::start_session().at(Step::StartSession)?;
    clock.lap();
    let own = file::open(c"/proc/self", libc::O_PATH | libc::O_CLOEXEC).at(Step::WriteIdMap)?;
    take_ids(nest, own.as_fd())?;
    nest.namespaces.verify_left(own.as_fd()).at(Step::VerifyNamespaces)?;
    // Both need the zygote's `/proc`, which goes with its root.
    forbid_nesting().at(Step::ForbidNesting)?;
    let proc = root::proc(ground)?;
    let ticket = is_invited.then(Ticket::open).transpose()?;
    clock.lap();
    root::change(nest.root.as_fd(), proc.as_ref().map(AsFd::as_fd))?;
    mounted::verify(own.as_fd(), ground)?;
    clock.lap();
    Ok((own, ticket))
}

/// What there is when the cell is ready for its program.
pub(super) struct Built {
    /// Tells of refused calls.
    pub(super) listener: Option<OwnedFd>,
    /// An interpreter's fork that is coming.
    pub(super) guest: Option<Guest>,
    /// By which the first process sees that the program's has become the program, if that is made ahead.
    pub(super) lifeline: Option<(OwnedFd, OwnedFd)>,
}

/// What was done before the plan was known.
pub(super) enum Ahead {
    Nothing {
        ticket: Option<Ticket>,
    },
    /// The bounding set is empty, and these are the first of Landlock's rules.
    Rules(Option<OwnedFd>),
}

/// What the plan says, in a process that has settled. `own` is its directory below the zygote's `/proc`.
pub(super) fn fit(
    launch: &mut Launch<'_>,
    own: BorrowedFd<'_>,
    ahead: Ahead,
    privileged: bool,
    clock: &mut Clock,
) -> Result<Built, Failure> {
    let Launch { plan, stack, prepared, interpreter, .. } = launch;
    let (capabilities, ceilings) = (launch.capabilities, launch.ceilings);
    let report = launch.report.as_fd();
    let (is_bound, begun, ticket) = match ahead {
        Ahead::Nothing { ticket } => {
            let begun = (plan.landlock > 0).then(|| landlock::begin(plan.ground())).transpose()?;
            (false, begun, ticket)
        }
        Ahead::Rules(begun) => (true, begun, None),
    };
    let overlaid = root::furnish(plan, prepared, own)?;
    if let Some(root::Overlaid { upper, below, .. }) = &overlaid {
        let tree::Place { device, inode } = *below;
        let record = Record::Overlay { device, inode }.encode();
        socket::send(report, [&record, &[]], &[upper.as_fd()], Wait::Yes).at(Step::HideParts)?;
    }
    let overlay = overlaid.map(|overlaid| overlaid.shown);
    clock.lap();
    if !is_bound {
        lockdown::empty_bounding_set(capabilities)?;
    }
    lockdown::drop_all()?;
    clock.lap();
    let mut rules = None;
    if plan.landlock > 0 {
        let made = begun.ok_or(credentials::NOT_AS_SET).at(Step::MakeRules)?;
        let overlay = overlay.as_ref().map(AsFd::as_fd);
        landlock::complete(made.as_fd(), plan, prepared, overlay)?;
        landlock::restrict(made.as_fd(), plan.ground(), stack)?;
        rules = Some(made);
    }
    clock.lap();
    // A filter that only watches would stop this process too, so the program takes it by itself.
    let filter = plan.filter().filter(|_| !plan.learn);
    let listener = filter.map(|filter| take_filter(filter).at(Step::LoadFilter)).transpose()?;
    let terms = Terms { plan, ceilings, capabilities, alone: privileged };
    let guest = ticket
        .zip(*interpreter)
        .map(|(ticket, invitation)| ticket.redeem(invitation, &terms, rules.as_ref()));
    Ok(Built { listener, guest: guest.transpose()?, lifeline: None })
}

/// Nobody inside can make a further user namespace. Read back.
fn forbid_nesting() -> SysResult<()> {
    let mut room = [0; 32];
    let length = file::exchange(MAX_USER_NAMESPACES, b"0", &mut room)?;
    let set = room.get(..length).unwrap_or_default();
    if set.trim_ascii() == b"0" { Ok(()) } else { Err(credentials::NOT_AS_SET) }
}

/// Puts this process, and with it the program, under the filter. Returns what tells of refused calls.
fn take_filter(filter: &[u8]) -> SysResult<OwnedFd> {
    let listener = seccomp::load(filter, true)?.ok_or(credentials::NOT_AS_SET)?;
    if seccomp::mode()? == seccomp::FILTERED { Ok(listener) } else { Err(credentials::NOT_AS_SET) }
}

/// The inner ids, mapped by the cell itself: the zygote has taken the outer id before the fork, and
/// everybody may map the one that they are. Changing ids makes the kernel forget about the parent's
/// death, so that is said again.
fn take_ids(nest: &Nest<'_>, own: BorrowedFd<'_>) -> Result<(), Failure> {
    let mut line = [0; 32];
    let line = id_line(&mut line, nest.host_id);
    // The files belong to root while nobody may look into the process.
    credentials::set_dumpable(true).at(Step::WriteIdMap)?;
    for (file, contents) in [(c"setgroups", &b"deny"[..]), (c"uid_map", line), (c"gid_map", line)] {
        directory::write_at(own, file, contents).at(Step::WriteIdMap)?;
    }
    credentials::set_ids(limits::INNER_ID, limits::INNER_ID).at(Step::SetIds)?;
    credentials::set_dumpable(false).at(Step::SetIds)?;
    credentials::on_parent_death(libc::SIGKILL).at(Step::ParentDeath)?;
    let alone = !nest.privileged || credentials::has_no_groups().at(Step::VerifyIds)?;
    let first = credentials::is_first_with(limits::INNER_ID, limits::INNER_ID);
    let is_root = is_root_outside(limits::INNER_ID).at(Step::VerifyIds)?;
    if first.at(Step::VerifyIds)? && alone && !is_root {
        Ok(())
    } else {
        Err(credentials::NOT_AS_SET).at(Step::VerifyIds)
    }
}

/// `inner outer 1`, written without allocating.
fn id_line(room: &mut [u8; 32], host_id: u32) -> &[u8] {
    use std::io::Write;
    let mut rest = &mut room[..];
    // 32 bytes hold two numbers of ten digits.
    let written = writeln!(rest, "{} {host_id} 1", limits::INNER_ID).map(|()| 32 - rest.len());
    room.get(..written.unwrap_or_default()).unwrap_or_default()
}

/// Counts for the caller's user namespace; 0 means that nobody inside can make another.
const MAX_USER_NAMESPACES: &CStr = c"/proc/sys/user/max_user_namespaces";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_line_fits() {
        assert_eq!(id_line(&mut [0; 32], 7), b"1000 7 1\n");
        assert_eq!(id_line(&mut [0; 32], u32::MAX), b"1000 4294967295 1\n");
    }
}
