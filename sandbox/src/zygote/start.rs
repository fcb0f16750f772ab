//! Starting one cell: everything that has to be decided or made is made here, before the fork.

#![expect(unsafe_code, reason = "forking needs the promise that there is one thread")]

use std::{
    ffi::{CStr, CString, OsStr},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::PathBuf,
};

use super::{
    cells::Cell,
    nursery::{self, Nursery},
    owner,
    process::{Zygote, refuse, tell},
    protocol::Record,
};
use crate::{
    errno::Errno,
    linux::{
        At, Failure, Point, Prepared,
        build::Nest,
        cgroup::{self, Group},
        child::{self, Launch, Work},
        joint::Invitation,
        nest,
        seedling::Sort,
        sys::{
            event, file,
            process::{self, ALL_NAMESPACES, CELL_NAMESPACES, Forked, NEW_USER, Stack, StringList},
            socket::{self, MAX_PASSED, Wait},
        },
    },
    plan::{Entry, MAX_PLAN_BINDS, Order, Plan, is_writable},
    step::Step,
};

/// Descriptors that came with a request.
pub(super) type Passed = [Option<OwnedFd>; MAX_PASSED];
/// The report's place among them, after the three streams.
pub(super) const REPORT: usize = 3;

/// What became of a start.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    /// The socket for the host's proxy.
    pub(super) egress: Option<OwnedFd>,
    pub(super) cell: Cell,
}

/// Starts a cell and tells its host. `None` if that failed, which the host has been told as well.
pub(super) fn cell(
    zygote: &mut Zygote,
    plan: &[u8],
    order: &[u8],
    passed: Passed,
) -> Option<(i32, Cell)> {
    let begun = event::now();
    let (Some(plan), Some(order)) = (Plan::parse(plan), Order::parse(order)) else {
        let errno = Errno::from_raw(libc::EINVAL);
        refuse(&passed, Failure { step: Step::ReadPlan, errno, detail: 0 });
        return None;
    };
    let [Some(input), Some(output), Some(error), Some(report), None] = passed else { return None };
    // The first process has its own copy; this one stays for telling of its end.
    let own_report = match copy(&report) {
        Ok(copy) => copy,
        Err(failure) => {
            tell(report.as_fd(), failed(failure));
            return None;
        }
    };
    let work = Work::Now { order, streams: [input, output, error] };
    match start(zygote, plan, work, report, begun) {
        Ok(Started { pid, pidfd, egress, mut cell }) => {
            let record = Record::Launched.encode();
            let passed = [Some(pidfd.as_fd()), egress.as_ref().map(AsFd::as_fd)];
            let passed: Vec<BorrowedFd<'_>> = passed.into_iter().flatten().collect();
            // If the host is gone the poller says so at once, and the cell ends.
            socket::send(own_report.as_fd(), [&record, &[]], &passed, Wait::No).ok();
            cell.report = Some(own_report);
            cell.deadline = Some(begun.saturating_add(order.wall_nanoseconds));
            Some((pid, cell))
        }
        Err(failure) => {
            tell(own_report.as_fd(), failed(failure));
            None
        }
    }
}

/// Starts a cell that waits for its order. Returns the host's end of its report socket beside it.
pub(super) fn waiting(zygote: &mut Zygote, plan: Plan<'_>) -> Result<(Started, OwnedFd), Failure> {
    let begun = event::now();
    let (host, cell) = socket::pair().at(Step::AdmitCell)?;
    let own_report = copy(&cell)?;
    let mut started = start(zygote, plan, Work::Later, cell, begun)?;
    started.cell.report = Some(own_report);
    Ok((started, host))
}

fn copy(report: &OwnedFd) -> Result<OwnedFd, Failure> {
    report.try_clone().map_err(|error| {
        let errno = Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
        Failure { step: Step::AdmitCell, errno, detail: 0 }
    })
}

fn start(
    zygote: &mut Zygote,
    plan: Plan<'_>,
    work: Work<'_>,
    report: OwnedFd,
    begun: u64,
) -> Result<Started, Failure> {
    if plan.minimal {
        zygote.started = zygote.started.wrapping_add(1);
        if zygote.nursery.is_some() {
            // That kind of cell has to see the host as the host program does.
            return Err(GONE).at(Step::ReadPlan);
        }
        zygote.adopts = true;
        let prepared = [const { None }; MAX_PLAN_BINDS];
        let launch = launch(zygote, plan, work, report, begun, prepared);
        let (pid, pidfd) = fork(launch, 0, None)?;
        let cell = Cell::new(true);
        return Ok(Started { pid, pidfd, egress: None, cell });
    }
    let host_id = next_id(zygote)?;
    let nursery = nursery_of(zygote)?;
    let prepared = owner::prepare(nursery, &plan, host_id)?;
    let points = points(&plan, &prepared)?;
    let root = nursery.templates.with(&points)?;
    let limits = plan.groups.then_some(plan.group_limits);
    let mut group = limits.map(|limits| nursery.group(&limits)).transpose()?;
    if matches!(work, Work::Now { .. }) {
        zygote.stock.want(Sort { ground: plan.ground(), limits, points });
    }
    let Some(Ok(nursery)) = &mut zygote.nursery else { return Err(GONE).at(Step::ReadPlan) };
    let network = nursery.networks.take()?;
    let egress = if plan.loopback || plan.egress { nursery::connect(plan.egress)? } else { None };
    let (entry, namespaces) = (group.as_ref().map(Group::entry), nursery.namespaces);
    let files: Vec<BorrowedFd<'_>> = entry.iter().flat_map(|entry| entry.legacy()).collect();
    let mut guest_files = files.clone();
    let mut unified_file = None;
    let mut door = None;
    if let Some(modules) = plan.interpreter() {
        door = Some(zygote.interpreters.door_of(modules).ok_or(GONE).at(Step::JoinCell)?);
        unified_file = entry.map(cgroup::Entry::unified_file).transpose().at(Step::LimitGroup)?;
    }
    guest_files.extend(unified_file.iter().flatten().map(AsFd::as_fd));
    let privileged = nursery.is_privileged();
    let nest = Nest { root, host_id, privileged, namespaces, groups: &files };
    let unified = entry.as_ref().and_then(|entry| entry.unified());
    let interpreter = door.map(|door| Invitation { door, groups: &guest_files });
    let launch = Launch {
        nest: Some(nest),
        interpreter,
        ..launch(zygote, plan, work, report, begun, prepared)
    };
    let Some(Ok(nursery)) = &zygote.nursery else { return Err(GONE).at(Step::Clone) };
    nursery.act_as(host_id)?;
    let forked = fork(launch, CELL_NAMESPACES, unified);
    // What is opened or made from here on is the zygote's own again.
    nursery.act_as_itself()?;
    let (pid, pidfd) = forked?;
    let mut cell = Cell::new(false);
    cell.host_id = Some(host_id);
    // Where other sockets were possible, something may stay: not for another cell.
    cell.network = plan.quiet.then_some(network);
    if let Some(group) = &mut group {
        group.entered();
    }
    cell.group = group;
    // A fork of the interpreter holds ways into the group, and may be on them yet.
    cell.group_limits = limits.filter(|_| plan.interpreter().is_none());
    Ok(Started { pid, pidfd, egress, cell })
}

fn launch<'a>(
    zygote: &'a Zygote,
    plan: Plan<'a>,
    work: Work<'a>,
    report: OwnedFd,
    begun: u64,
    prepared: Prepared,
) -> Launch<'a> {
    Launch {
        plan,
        work,
        stack: Stack::new(),
        report,
        zygote: zygote.pidfd.as_fd(),
        null: zygote.null.as_fd(),
        ceilings: zygote.ceilings,
        nest: None,
        prepared,
        interpreter: None,
        capabilities: zygote.capabilities,
        begun,
    }
}

/// An outer id that no living cell has.
pub(super) fn next_id(zygote: &mut Zygote) -> Result<u32, Failure> {
    let identity = nursery_of(zygote)?.identity;
    zygote.started = zygote.started.wrapping_add(1);
    // Ids come round again; the next one may still be a living cell's.
    while identity.gives_each_its_own() && zygote.cells.has_id(identity.host_id(zygote.started)) {
        zygote.started = zygote.started.wrapping_add(1);
    }
    Ok(identity.host_id(zygote.started))
}

pub(super) fn nursery_of(zygote: &mut Zygote) -> Result<&mut Nursery, Failure> {
    match &mut zygote.nursery {
        Some(Ok(nursery)) => Ok(nursery),
        Some(Err(failure)) => Err(*failure),
        None => Err(GONE).at(Step::ReadPlan),
    }
}

fn fork(
    mut launch: Launch<'_>,
    namespaces: u64,
    group: Option<BorrowedFd<'_>>,
) -> Result<(i32, OwnedFd), Failure> {
    // SAFETY: this is the zygote, which never starts a thread.
    match unsafe { process::fork(namespaces, group) }.at(Step::Clone)? {
        Forked::Child => child::run(&mut launch),
        Forked::Parent { pid, pidfd } => Ok((pid, pidfd)),
    }
}

/// Starts an interpreter that imports these modules. Returns the socket on which it hears from
/// cells' first processes.
pub(super) fn interpreter(zygote: &mut Zygote, modules: &CStr) -> Result<(i32, OwnedFd), Failure> {
    let nursery = match &mut zygote.nursery {
        Some(Ok(nursery)) => nursery,
        Some(Err(failure)) => return Err(*failure),
        None => return Err(GONE).at(Step::ReadPlan),
    };
    let root = nursery.templates.with(&[])?;
    let text = file::sealed_text(BOOTSTRAP).at(Step::JoinCell)?;
    let (ours, theirs) = socket::pair().at(Step::JoinCell)?;
    let names: Vec<CString> = modules
        .to_bytes()
        .split(|byte| *byte == b' ')
        .filter(|name| !name.is_empty())
        .filter_map(|name| CString::new(name).ok())
        .collect();
    let fixed = [c"python3", c"-I", c"-B", c"-"].into_iter();
    let nest = nest::Nest {
        root: root.as_fd(),
        text: text.as_fd(),
        door: theirs.as_fd(),
        null: zygote.null.as_fd(),
        capabilities: zygote.capabilities,
        candidates: &PYTHON,
        arguments: StringList::new(fixed.chain(names.iter().map(CString::as_c_str))),
        environment: StringList::new(ENVIRONMENT.into_iter()),
    };
    // SAFETY: this is the zygote, which never starts a thread.
    match unsafe { process::fork(0, None) }.at(Step::Clone)? {
        Forked::Child => nest::run(&nest),
        Forked::Parent { pid, .. } => Ok((pid, ours)),
    }
}

const BOOTSTRAP: &[u8] = include_bytes!("../python/bootstrap.py");
/// Where cells look for programs.
const PYTHON: [&CStr; 3] = [c"/usr/local/bin/python3", c"/usr/bin/python3", c"/bin/python3"];
/// What a cell's program finds; forks take that of their order instead.
const ENVIRONMENT: [&CStr; 3] =
    [c"PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", c"HOME=/work", c"LANG=C.UTF-8"];

/// A cell with namespaces was asked for where there is no nursery.
pub(super) const GONE: Errno = Errno::from_raw(libc::EINVAL);

/// The mount table of a cell.
pub(super) fn mounts_of(pid: i32) -> Option<OwnedFd> {
    let path = std::ffi::CString::new(format!("/proc/{pid}/ns/mnt")).ok()?;
    file::open(&path, libc::O_RDONLY | libc::O_CLOEXEC).ok()
}

/// Where the plan mounts something outside of the writable directories.
pub(super) fn points(plan: &Plan<'_>, prepared: &Prepared) -> Result<Vec<Point>, Failure> {
    let binds = plan.entries().filter_map(|entry| match entry {
        Entry::Bind { target, .. } | Entry::Overlay { target, .. } => Some(target),
        _ => None,
    });
    let mut points = Vec::new();
    for (target, source) in binds.zip(prepared.iter().flatten()) {
        let inside = PathBuf::from(OsStr::from_bytes(target.to_bytes()));
        if !is_writable(&inside) {
            let is_directory = file::status(source.as_fd()).at(Step::AttachBind)?.is_directory;
            points.push(Point { inside, is_directory });
        }
    }
    Ok(points)
}

/// Tries whether a process can start with these namespaces, and tells.
pub(super) fn probe(namespaces: u64, passed: Passed) {
    let [Some(report), None, None, None, None] = passed else { return };
    // SAFETY: this is the zygote, which never starts a thread.
    let errno = match unsafe { process::fork((namespaces & ALL_NAMESPACES) | NEW_USER, None) } {
        Ok(Forked::Child) => process::exit(0),
        Ok(Forked::Parent { .. }) => None,
        Err(errno) => Some(errno),
    };
    tell(report.as_fd(), Record::Probed { errno });
}

fn failed(Failure { step, errno, detail }: Failure) -> Record {
    Record::Failed { step, errno, detail }
}
