//! First processes in stock: making one, and making a cell of one.

#![expect(unsafe_code, reason = "forking needs the promise that there is one thread")]

use std::{
    ffi::OsStr,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use super::{
    cells::{Cell, Desk},
    nursery, owner,
    process::Zygote,
    protocol::{Record, Request},
    start::{GONE, Passed, next_id, nursery_of, points},
};
use crate::{
    limits,
    linux::{
        At, Failure, Prepared,
        build::Nest,
        cgroup::Group,
        seedling::{self, MOST_HANDED, Seedling, Sort},
        sys::{
            event,
            process::{self, CELL_NAMESPACES, Forked, NEW_NET, Stack},
            socket::{self, Wait},
        },
    },
    plan::{Entry, Order, Plan, is_writable},
    step::Step,
};

/// Makes a first process of that sort, which waits for its plan.
pub(super) fn make(zygote: &mut Zygote, sort: Sort) -> Result<(i32, Cell), Failure> {
    let host_id = next_id(zygote)?;
    let nursery = nursery_of(zygote)?;
    let root = nursery.templates.with(&sort.points)?;
    let mut group = sort.limits.map(|limits| nursery.group(&limits)).transpose()?;
    let network = nursery.networks.take()?;
    let (socket, desk) = socket::pair().at(Step::AdmitCell)?;
    let entry = group.as_ref().map(Group::entry);
    let files: Vec<BorrowedFd<'_>> = entry.iter().flat_map(|entry| entry.legacy()).collect();
    let (privileged, namespaces) = (nursery.is_privileged(), nursery.namespaces);
    let seedling = Seedling {
        ground: sort.ground,
        nest: Nest { root, host_id, privileged, namespaces, groups: &files },
        desk,
        stack: Stack::new(),
        room: &mut zygote.room,
        zygote: zygote.pidfd.as_fd(),
        null: zygote.null.as_fd(),
        ceilings: zygote.ceilings,
        capabilities: zygote.capabilities,
    };
    let unified = entry.as_ref().and_then(|entry| entry.unified());
    let Some(Ok(nursery)) = &zygote.nursery else { return Err(GONE).at(Step::Clone) };
    nursery.act_as(host_id)?;
    // SAFETY: this is the zygote, which never starts a thread.
    let forked = unsafe { process::fork(CELL_NAMESPACES, unified) }.at(Step::Clone);
    if let Ok(Forked::Child) = forked {
        seedling::run(seedling)
    }
    // What is opened or made from here on is the zygote's own again.
    nursery.act_as_itself()?;
    let Forked::Parent { pid, pidfd } = forked? else { return Err(GONE).at(Step::Clone) };
    drop(seedling);
    if let Some(group) = &mut group {
        group.entered();
    }
    let group_limits = sort.limits;
    let seedling = Some(Desk { sort, socket, pidfd });
    let (host_id, network) = (Some(host_id), Some(network));
    Ok((pid, Cell { network, group, group_limits, host_id, seedling, ..Cell::new(false) }))
}

/// Makes a cell of a first process in the stock, if there is one for such a plan, and tells its host.
/// Returns its process id, or the descriptors if there is none.
pub(super) fn from_stock(
    zygote: &mut Zygote,
    plan: &[u8],
    order: &[u8],
    passed: Passed,
) -> Result<i32, Passed> {
    let begun = event::now();
    let (Some(parsed), Some(wall)) =
        (Plan::parse(plan), Order::parse(order).map(|order| order.wall_nanoseconds))
    else {
        return Err(passed);
    };
    let [Some(input), Some(output), Some(error), Some(report), None] = &passed else {
        return Err(passed);
    };
    if plan.len() + order.len() > limits::INLINE_PLAN_BYTES {
        return Err(passed);
    }
    let Some((pid, mounts, egress)) = choose(zygote, &parsed) else { return Err(passed) };
    let Some(cell) = zygote.cells.get_mut(pid) else { return Err(passed) };
    let Some(Desk { socket, pidfd, .. }) = cell.seedling.take() else { return Err(passed) };
    let streams = [input, output, error, report].into_iter();
    let handed: Vec<BorrowedFd<'_>> =
        streams.chain(mounts.iter().flatten()).map(AsFd::as_fd).collect();
    let beside = [Some(pidfd.as_fd()), egress.as_ref().map(AsFd::as_fd)];
    let beside: Vec<BorrowedFd<'_>> = beside.into_iter().flatten().collect();
    // Before the order goes out: a host that has heard of nothing knows that nothing has run. Where it
    // can't be told, the socket's end ends the process, and the next one is told of in its place.
    if socket::send(report.as_fd(), [&Record::Launched.encode()], &beside, Wait::No).is_err() {
        return Err(passed);
    }
    let header = Request::Become { begun, plan, order }.header();
    let parts = [&header[..], &begun.to_le_bytes(), plan, order];
    if socket::send(socket.as_fd(), parts, &handed, Wait::No).is_err() {
        // It is dead, and its end will be seen. The next one takes its place with the host.
        return Err(passed);
    }
    let [.., report, _] = passed;
    cell.report = report;
    cell.deadline = Some(begun.saturating_add(wall));
    if !parsed.quiet {
        // Where other sockets were possible, something may stay: not for another cell.
        cell.network = None;
    }
    Ok(pid)
}

/// A first process for such a plan, the mounts that the plan shows of the host, and the socket for the
/// host's proxy.
fn choose(zygote: &mut Zygote, plan: &Plan<'_>) -> Option<(i32, Prepared, Option<OwnedFd>)> {
    let limits = plan.groups.then_some(plan.group_limits);
    if plan.minimal || plan.interpreter().is_some() {
        return None;
    }
    let fits = |sort: &Sort| {
        sort.ground == plan.ground()
            && sort.limits == limits
            && sort.points.iter().map(|point| point.inside.as_path()).eq(targets(plan))
    };
    let (pid, sort) = zygote.cells.seedlings().find(|(_, sort)| fits(sort))?;
    let sort = sort.clone();
    let cell = zygote.cells.get_mut(pid)?;
    let (host_id, network) = (cell.host_id?, cell.network.as_ref()?);
    if plan.loopback || plan.egress {
        process::enter_namespace(network.as_fd(), NEW_NET).ok()?;
    }
    let Some(Ok(nursery)) = &zygote.nursery else { return None };
    // What fails here fails again for a process that is made for the plan, and is told then.
    let prepared = owner::prepare(nursery, plan, host_id).ok()?;
    if prepared.iter().flatten().count() > MOST_HANDED
        || points(plan, &prepared).ok()? != sort.points
    {
        return None;
    }
    let egress =
        if plan.loopback || plan.egress { nursery::connect(plan.egress).ok()? } else { None };
    zygote.stock.want(sort);
    Some((pid, prepared, egress))
}

/// Where the plan mounts something outside of the writable directories.
fn targets<'a>(plan: &Plan<'a>) -> impl Iterator<Item = &'a Path> {
    let binds = plan.entries().filter_map(|entry| match entry {
        Entry::Bind { target, .. } | Entry::Overlay { target, .. } => Some(target),
        _ => None,
    });
    let paths = binds.map(|target| Path::new(OsStr::from_bytes(target.to_bytes())));
    paths.filter(|inside| !is_writable(inside))
}
