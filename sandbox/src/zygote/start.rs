//! Starting one cell: everything that may allocate happens here, before the fork.

#![expect(unsafe_code, reason = "forking needs the promise that there is one thread")]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::{
    cells::Cell,
    owner,
    process::{Zygote, refuse, tell},
    protocol::{Cause, Record},
};
use crate::{
    errno::Errno,
    limits,
    linux::{
        At, Failure, Identity,
        child::{self, Ids, Launch},
        payload::Payload,
        sys::{
            self, event, file,
            process::{self, CELL_NAMESPACES, Forked, NEW_USER, Stack},
            socket::{self, MAX_PASSED, Wait},
        },
    },
    plan::{MAX_PLAN_BINDS, Plan},
    step::Step,
};

/// Descriptors that came with a request.
pub(super) type Passed = [Option<OwnedFd>; MAX_PASSED];
/// The report's place among them, after the three streams.
pub(super) const REPORT: usize = 3;

/// Starts a cell and tells its host. `None` if that failed, which the host has been told as well.
pub(super) fn cell(zygote: &mut Zygote, plan: &[u8], passed: Passed) -> Option<(i32, Cell)> {
    let begun = event::now();
    let Some(plan) = Plan::parse(plan) else {
        refuse(
            &passed,
            Failure { step: Step::ReadPlan, errno: Errno::from_raw(libc::EINVAL), detail: 0 },
        );
        return None;
    };
    let [Some(input), Some(output), Some(error), Some(report), None] = passed else { return None };
    // The first process has its own copy; this one stays for telling of its end.
    let own_report = match report.try_clone() {
        Ok(copy) => copy,
        Err(error) => {
            let errno = Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
            tell(report.as_fd(), failed(Failure { step: Step::AdmitCell, errno, detail: 0 }));
            return None;
        }
    };
    match fork(zygote, plan, [input, output, error], report, begun) {
        Ok((pid, pidfd)) => {
            let record = Record::Launched.encode();
            // If the host is gone the poller says so at once, and the cell ends.
            socket::send(own_report.as_fd(), [&record, &[]], &[pidfd.as_fd()], Wait::No).ok();
            let deadline = begun.saturating_add(plan.wall_nanoseconds);
            Some((
                pid,
                Cell { report: own_report, deadline, minimal: plan.minimal, cause: Cause::None },
            ))
        }
        Err(failure) => {
            tell(own_report.as_fd(), failed(failure));
            None
        }
    }
}

fn fork(
    zygote: &mut Zygote,
    plan: Plan<'_>,
    streams: [OwnedFd; 3],
    report: OwnedFd,
    begun: u64,
) -> Result<(i32, OwnedFd), Failure> {
    zygote.started = zygote.started.wrapping_add(1);
    zygote.adopts |= plan.minimal;
    let host_id = if plan.minimal { None } else { zygote.identity.host_id(zygote.started) };
    let (ids, release) = ids(zygote.identity, host_id)?;
    let prepared = match host_id {
        Some(host_id) => owner::prepare(&plan, host_id)?,
        None => [const { None }; MAX_PLAN_BINDS],
    };
    let mut launch = Launch {
        payload: Payload::new(plan, zygote.ceilings),
        stack: Stack::new(),
        streams,
        report,
        zygote: zygote.pidfd.as_fd(),
        ids,
        prepared,
        capabilities: zygote.capabilities,
        begun,
    };
    let namespaces = if plan.minimal { 0 } else { CELL_NAMESPACES };
    // SAFETY: this is the zygote, which never starts a thread.
    match unsafe { process::fork(namespaces) }.at(Step::Clone)? {
        Forked::Child => child::run(&mut launch),
        Forked::Parent { pid, pidfd } => {
            if let (Some(host_id), Some(release)) = (host_id, release)
                && let Err(errno) = write_maps(pid, host_id, release.as_fd())
            {
                // It waits for the map and ends by itself when `release` closes; this is only
                // faster.
                process::kill(pid, libc::SIGKILL).ok();
                return Err(errno).at(Step::WriteIdMap);
            }
            Ok((pid, pidfd))
        }
    }
}

/// How the cell gets its ids, and what to write to when the zygote has done its part.
fn ids(identity: Identity, host_id: Option<u32>) -> Result<(Ids, Option<OwnedFd>), Failure> {
    match identity {
        Identity::Range { .. } if host_id.is_some() => {
            let (done, release) = file::pipe().at(Step::WriteIdMap)?;
            Ok((Ids::Await(done), Some(release)))
        }
        Identity::Range { .. } => Ok((Ids::Write { users: Vec::new(), groups: Vec::new() }, None)),
        Identity::Own { user, group } => {
            let line = |outer: u32| format!("{} {outer} 1\n", limits::INNER_ID).into_bytes();
            Ok((Ids::Write { users: line(user), groups: line(group) }, None))
        }
    }
}

/// Maps the one inner id to `host_id` and lets the cell go on.
fn write_maps(pid: i32, host_id: u32, release: BorrowedFd<'_>) -> sys::Result<()> {
    let line = format!("{} {host_id} 1\n", limits::INNER_ID);
    owner::write_map(pid, "uid_map", &line)?;
    owner::write_map(pid, "gid_map", &line)?;
    file::write(release, &[1])?;
    Ok(())
}

/// Tries whether a process can start with these namespaces, and tells.
pub(super) fn probe(namespaces: u64, passed: Passed) {
    let [Some(report), None, None, None, None] = passed else { return };
    // SAFETY: this is the zygote, which never starts a thread.
    let errno = match unsafe { process::fork((namespaces & CELL_NAMESPACES) | NEW_USER) } {
        Ok(Forked::Child) => process::exit(0),
        Ok(Forked::Parent { .. }) => None,
        Err(errno) => Some(errno),
    };
    tell(report.as_fd(), Record::Probed { errno });
}

fn failed(Failure { step, errno, detail }: Failure) -> Record {
    Record::Failed { step, errno, detail }
}
