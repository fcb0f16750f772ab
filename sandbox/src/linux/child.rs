//! The first process of a cell: builds the cell around itself, starts the program, collects
//! whatever dies, and tells the host how the program ended. It never executes anything itself, so
//! its memory and its environment stay ours, and nobody inside can look into it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::{
    At, Failure, keeper, lockdown,
    payload::Payload,
    root::{self, Sources},
    sys::{
        credentials, event, file,
        process::{self, Stack},
        socket::{self, Wait},
    },
};
use crate::{
    errno::Errno,
    limits,
    plan::MAX_PLAN_BINDS,
    report::{STAGES, Usage},
    step::Step,
    zygote::protocol::Record,
};

/// Everything the first process needs, made by the zygote before the fork.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    pub(crate) payload: Payload<'a>,
    pub(crate) stack: Box<Stack>,
    pub(crate) streams: [OwnedFd; 3],
    pub(crate) report: OwnedFd,
    /// Readable when the zygote is dead.
    pub(crate) zygote: BorrowedFd<'a>,
    pub(crate) ids: Ids,
    /// Binds that only a privileged zygote can take.
    pub(crate) prepared: [Option<OwnedFd>; MAX_PLAN_BINDS],
    /// How many capabilities the kernel knows.
    pub(crate) capabilities: u64,
    /// When the zygote began.
    pub(crate) begun: u64,
}

/// Who writes the id map.
#[derive(Debug)]
pub(crate) enum Ids {
    /// The zygote does, and a byte on this pipe says that it is done.
    Await(OwnedFd),
    /// The cell does, with these lines for users and groups.
    Write { users: Vec<u8>, groups: Vec<u8> },
}

/// Runs the first process. `launch` came over by the fork; its destructor never runs.
pub(crate) fn run(launch: &mut Launch<'_>) -> ! {
    let mut clock = Clock::start(launch.begun);
    let outcome = build(launch, &mut clock).and_then(|()| begin(launch, &mut clock));
    let code = match outcome {
        Ok(Some(program)) if launch.payload.plan.minimal => {
            keeper::keep(program, launch.report.as_fd())
        }
        Ok(Some(program)) => collect(program, launch.report.as_fd()),
        Ok(None) => {
            send(launch.report.as_fd(), Record::Ended { status: 0, usage: Usage::default() })
        }
        Err(Failure { step, errno, detail }) => {
            send(launch.report.as_fd(), Record::Failed { step, errno, detail })
        }
    };
    process::exit(code)
}

/// The cell around the program. Its last act is to look whether the zygote still lives: if it died
/// before the cell was tied to it, this is where the cell notices.
fn build(launch: &mut Launch<'_>, clock: &mut Clock) -> Result<(), Failure> {
    clock.lap();
    credentials::on_parent_death(if launch.payload.plan.minimal {
        libc::SIGTERM
    } else {
        libc::SIGKILL
    })
    .at(Step::ParentDeath)?;
    keep_only_needed(launch).at(Step::CloseDescriptors)?;
    credentials::start_session().at(Step::StartSession)?;
    if launch.payload.plan.minimal {
        event::hold_signals().at(Step::ResetSignals)?;
        credentials::adopt_orphans().at(Step::AdoptOrphans)?;
        lockdown::forbid_privileges()?;
    } else {
        build_standard(launch, clock)?;
    }
    if event::is_readable(launch.zygote, 0).at(Step::ParentDeath)? {
        return Err(Errno::from_raw(libc::ESRCH)).at(Step::ParentDeath);
    }
    clock.lap();
    Ok(())
}

fn build_standard(launch: &mut Launch<'_>, clock: &mut Clock) -> Result<(), Failure> {
    let plan = launch.payload.plan;
    let sources = Sources::open(&plan, &launch.prepared)?;
    clock.lap();
    take_ids(&launch.ids)?;
    clock.lap();
    root::change(&plan)?;
    clock.lap();
    root::furnish(&plan, &sources, &launch.prepared)?;
    clock.lap();
    lockdown::drop_all(launch.capabilities)
}

/// Starts the program. `None` if this is only a rehearsal.
fn begin(launch: &mut Launch<'_>, clock: &mut Clock) -> Result<Option<i32>, Failure> {
    let [input, output, error] = &launch.streams;
    for (stream, number) in [(input, 0), (output, 1), (error, 2)] {
        file::place(stream.as_fd(), number).at(Step::PlaceStreams)?;
    }
    let program = if launch.payload.plan.rehearse {
        None
    } else {
        Some(launch.payload.start(&mut launch.stack)?)
    };
    clock.lap();
    // Only the program may hold its streams, or they would not end with it. Everything else goes
    // too.
    let report = launch.report.as_raw_fd().unsigned_abs();
    close_gaps(&mut [report]).at(Step::CloseDescriptors)?;
    send(launch.report.as_fd(), Record::Started { stages: clock.stages });
    Ok(program)
}

/// The inner ids. Changing ids makes the kernel forget about the parent's death, so that is said
/// again.
fn take_ids(ids: &Ids) -> Result<(), Failure> {
    match ids {
        Ids::Await(done) => {
            let mut byte = [0];
            match file::read(done.as_fd(), &mut byte) {
                Ok(1) => {}
                // The zygote could not write the map; it has told the host.
                Ok(_) => process::exit(0),
                Err(errno) => return Err(errno).at(Step::WriteIdMap),
            }
        }
        Ids::Write { users, groups } => {
            // The files belong to root while nobody may look into the process.
            credentials::set_dumpable(true).at(Step::WriteIdMap)?;
            file::write_once(c"/proc/self/setgroups", b"deny").at(Step::WriteIdMap)?;
            file::write_once(c"/proc/self/uid_map", users).at(Step::WriteIdMap)?;
            file::write_once(c"/proc/self/gid_map", groups).at(Step::WriteIdMap)?;
        }
    }
    if matches!(ids, Ids::Await(_)) {
        credentials::clear_groups().at(Step::ClearGroups)?;
    }
    credentials::set_ids(limits::INNER_ID, limits::INNER_ID).at(Step::SetIds)?;
    credentials::set_dumpable(false).at(Step::SetIds)?;
    credentials::on_parent_death(libc::SIGKILL).at(Step::ParentDeath)
}

/// The fork copied the zygote's whole table, other cells' reports among it.
fn keep_only_needed(launch: &Launch<'_>) -> super::sys::Result<()> {
    const SINGLE: usize = 6;
    let mut needed = [u32::MAX; SINGLE + MAX_PLAN_BINDS];
    let sync = match &launch.ids {
        Ids::Await(done) => Some(done.as_raw_fd()),
        Ids::Write { .. } => None,
    };
    let single = launch.streams.iter().chain([&launch.report]).map(AsRawFd::as_raw_fd);
    let single = single.chain([launch.zygote.as_raw_fd()]).chain(sync);
    let binds = launch.prepared.iter().flatten().map(AsRawFd::as_raw_fd);
    for (slot, fd) in needed.iter_mut().zip(single.chain(binds)) {
        *slot = fd.unsigned_abs();
    }
    close_gaps(&mut needed)
}

/// Closes all descriptors but `needed`.
fn close_gaps(needed: &mut [u32]) -> super::sys::Result<()> {
    needed.sort_unstable();
    let mut next = 0;
    for fd in needed.iter().copied().filter(|fd| *fd != u32::MAX) {
        if next < fd {
            file::close_range(next, fd - 1)?;
        }
        next = fd + 1;
    }
    file::close_range(next, u32::MAX)
}

/// Reaps everything until the program itself ends. Then this process ends, and the kernel ends the
/// rest.
fn collect(program: i32, report: BorrowedFd<'_>) -> i32 {
    loop {
        match process::reap(true) {
            Ok(Some(ended)) if ended.pid == program => {
                return send(report, Record::Ended { status: ended.status, usage: ended.usage });
            }
            Ok(_) => {}
            Err(errno) if errno.raw() == libc::EINTR => {}
            Err(_no_children) => return LOST,
        }
    }
}

/// Tells the host. If that fails the host is gone, and there is nobody to tell.
pub(super) fn send(report: BorrowedFd<'_>, record: Record) -> i32 {
    match socket::send(report, [&record.encode(), &[]], &[], Wait::Yes) {
        Ok(()) => 0,
        Err(_gone) => LOST,
    }
}

/// Exit status of a first process that could not report; the zygote reports its end in any case.
pub(super) const LOST: i32 = 1;

/// Measures the stages.
struct Clock {
    last: u64,
    next: usize,
    stages: [u64; STAGES],
}

impl Clock {
    fn start(begun: u64) -> Self {
        Self { last: begun, next: 0, stages: [0; STAGES] }
    }

    fn lap(&mut self) {
        let now = event::now();
        if let Some(stage) = self.stages.get_mut(self.next) {
            *stage = now.saturating_sub(self.last);
        }
        self.last = now;
        self.next += 1;
    }
}
