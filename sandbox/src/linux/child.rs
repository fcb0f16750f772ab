//! The first process of a cell: builds the cell around itself, waits for an order if it was made
//! ahead, starts the program, collects whatever dies, and tells the host how the program ended. It
//! never executes anything itself, so its memory and its environment stay ours, and nobody inside can
//! look into it.

use std::{
    mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use super::{
    At, Failure, Prepared,
    build::{Ahead, Built, Nest, enter_groups, fit, settle},
    joint::Invitation,
    keeper, later, lockdown,
    payload::Payload,
    sys::{
        Result as SysResult, credentials, event, file,
        process::{self, Stack},
        socket::{self, MAX_SENT, Wait},
    },
    warden::{self, Warden},
};
use crate::{
    errno::Errno,
    plan::{MAX_PLAN_BINDS, Order, Plan, RESOURCES},
    report::{STAGES, Usage},
    step::Step,
    zygote::{entry::CONTROL, protocol::Record},
};

/// Everything the first process needs, made by the zygote before the fork.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    pub(crate) plan: Plan<'a>,
    pub(crate) work: Work<'a>,
    pub(crate) stack: Box<Stack>,
    pub(crate) report: OwnedFd,
    /// Readable when the zygote is dead.
    pub(crate) zygote: BorrowedFd<'a>,
    /// `/dev/null`.
    pub(crate) null: BorrowedFd<'a>,
    /// The host's hard limits, above which nothing can be set.
    pub(crate) ceilings: [u64; RESOURCES],
    /// What a cell with namespaces needs.
    pub(crate) nest: Option<Nest<'a>>,
    /// What the plan shows of the host.
    pub(crate) prepared: Prepared,
    /// The interpreter whose fork is to become the program.
    pub(crate) interpreter: Option<Invitation<'a>>,
    /// How many capabilities the kernel knows.
    pub(crate) capabilities: u64,
    /// When the zygote began.
    pub(crate) begun: u64,
}

/// What the process is to run.
#[derive(Debug)]
pub(crate) enum Work<'a> {
    /// This.
    Now { order: Order<'a>, streams: [OwnedFd; 3] },
    /// What the host will say on the report socket.
    Later,
}

/// Runs the first process. `launch` came over by the fork; its destructor never runs.
pub(crate) fn run(launch: &mut Launch<'_>) -> ! {
    let mut clock = Clock::start(launch.begun);
    let built = build(launch, &mut clock);
    conclude(launch, built, clock)
}

/// Carries the order out, if the cell could be built, and ends.
pub(super) fn conclude(
    launch: &mut Launch<'_>,
    built: Result<Built, Failure>,
    mut clock: Clock,
) -> ! {
    let code = match built.and_then(|built| work(launch, built, &mut clock)) {
        Ok(code) => code,
        Err(Failure { step, errno, detail }) => {
            send(launch.report.as_fd(), Record::Failed { step, errno, detail })
        }
    };
    // The host has been told. Taking the cell apart takes longer than the host needs to hear it. A filter
    // that doesn't let the program's process be made ahead may not know this call either.
    if launch.plan.ahead {
        process::yield_processor();
    }
    process::exit(code)
}

/// The cell around the program. Its last act is to look whether the zygote still lives: if it died
/// before the cell was tied to it, this is where the cell notices.
fn build(launch: &mut Launch<'_>, clock: &mut Clock) -> Result<Built, Failure> {
    clock.lap();
    hang_up(launch.null).at(Step::CloseDescriptors)?;
    credentials::on_parent_death(if launch.plan.minimal { libc::SIGTERM } else { libc::SIGKILL })
        .at(Step::ParentDeath)?;
    let built = if let Some(nest) = &launch.nest {
        enter_groups(nest)?;
        keep_only_needed(launch).at(Step::CloseDescriptors)?;
        let is_invited = launch.interpreter.is_some();
        // Under the filter there may be no making one.
        let is_ahead = launch.plan.ahead && !is_invited && matches!(launch.work, Work::Later);
        let lifeline = is_ahead.then(file::pipe).transpose().at(Step::StartProcess)?;
        let (own, ticket) = settle(nest, launch.plan.ground(), is_invited, clock)?;
        let privileged = nest.privileged;
        let built = fit(launch, own.as_fd(), Ahead::Nothing { ticket }, privileged, clock)?;
        Built { lifeline, ..built }
    } else {
        keep_only_needed(launch).at(Step::CloseDescriptors)?;
        credentials::start_session().at(Step::StartSession)?;
        event::hold_signals().at(Step::ResetSignals)?;
        credentials::adopt_orphans().at(Step::AdoptOrphans)?;
        lockdown::forbid_privileges()?;
        Built { listener: None, guest: None, lifeline: None }
    };
    look_for(launch.zygote)?;
    clock.lap();
    if matches!(launch.work, Work::Now { .. }) && send(launch.report.as_fd(), Record::Built) == LOST
    {
        // The zygote may die without having said that there is this process; and a host that has heard of
        // nothing may try again.
        return Err(Errno::from_raw(libc::EPIPE)).at(Step::StartProcess);
    }
    Ok(built)
}

/// Fails if the zygote is dead.
pub(super) fn look_for(zygote: BorrowedFd<'_>) -> Result<(), Failure> {
    if event::is_readable(zygote, 0).at(Step::ParentDeath)? {
        return Err(Errno::from_raw(libc::ESRCH)).at(Step::ParentDeath);
    }
    Ok(())
}

/// Takes the order and carries it out.
fn work(launch: &mut Launch<'_>, built: Built, clock: &mut Clock) -> Result<i32, Failure> {
    match mem::replace(&mut launch.work, Work::Later) {
        Work::Now { order, streams } => {
            let Launch { plan, stack, report, ceilings, .. } = launch;
            let payload = Payload::new(plan, order, *ceilings);
            begin(&payload, streams, stack, report.as_fd(), built.listener, clock)
        }
        Work::Later => later::carry_out(launch, built, clock),
    }
}

/// Starts the program, and stays until it has ended.
pub(super) fn begin(
    payload: &Payload<'_>,
    streams: [OwnedFd; 3],
    stack: &mut Stack,
    report: BorrowedFd<'_>,
    listener: Option<OwnedFd>,
    clock: &mut Clock,
) -> Result<i32, Failure> {
    let begun = clock.last;
    for (stream, number) in streams.iter().zip(0..) {
        file::place(stream.as_fd(), number).at(Step::PlaceStreams)?;
    }
    drop(streams);
    let signals =
        (!payload.plan.minimal).then(event::child_signals).transpose().at(Step::ResetSignals)?;
    // What is done before the program starts needn't be done while somebody waits for its start.
    keep_only([
        Some(report),
        listener.as_ref().map(AsFd::as_fd),
        signals.as_ref().map(AsFd::as_fd),
    ])?;
    let program = if payload.order.rehearse { None } else { Some(payload.start(stack)?) };
    clock.finish();
    let taken = program.as_ref().and_then(|program| program.listener);
    // Only the program may hold its streams, or they would not end with it.
    file::close_range(0, FIRST_FREE.unsigned_abs() - 1).at(Step::CloseDescriptors)?;
    let stages = clock.stages;
    let Some(program) = program else {
        return Ok(send(report, Record::Ran { stages, status: 0, usage: Usage::default() }));
    };
    let Some(signals) = signals else {
        send(report, Record::Started { stages });
        return Ok(keeper::keep(program.pid, report));
    };
    let watched = match taken {
        Some(fd) => Some(file::inherited(fd).at(Step::LoadFilter)?),
        None => listener,
    };
    let warden = || {
        let warden = Warden::new(program.pid, signals, watched, payload.plan.learn);
        warden.until(begun, payload.order.wall_nanoseconds)
    };
    accompany(program.pid, warden, report, stages)
}

/// Tells that the program runs, and stays until it has ended.
pub(super) fn accompany(
    program: i32,
    warden: impl FnOnce() -> Warden,
    report: BorrowedFd<'_>,
    stages: [u64; STAGES],
) -> Result<i32, Failure> {
    // Where the program was loaded on this process's processor, it may have run to its end meanwhile.
    if let Some((status, usage)) = warden::reap(program).at(Step::StartProcess)? {
        return Ok(send(report, Record::Ran { stages, status, usage }));
    }
    send(report, Record::Started { stages });
    Ok(warden().watch(report))
}

/// Closes everything else but the streams.
pub(super) fn keep_only<const KEPT: usize>(
    kept: [Option<BorrowedFd<'_>>; KEPT],
) -> Result<(), Failure> {
    keep_from(FIRST_FREE.unsigned_abs(), kept)
}

/// Closes everything else from `first` on.
pub(super) fn keep_from<const KEPT: usize>(
    first: u32,
    kept: [Option<BorrowedFd<'_>>; KEPT],
) -> Result<(), Failure> {
    let mut needed = kept.map(|fd| fd.map_or(u32::MAX, |fd| fd.as_raw_fd().unsigned_abs()));
    close_gaps(&mut needed, first).at(Step::CloseDescriptors)
}

/// The fork copied the zygote's whole table, other cells' reports among it. The places of the
/// streams stay taken, by `/dev/null`, so that no descriptor of ours comes to lie there.
fn keep_only_needed(launch: &Launch<'_>) -> SysResult<()> {
    const SINGLE: usize = 6;
    let mut needed = [u32::MAX; SINGLE + MAX_PLAN_BINDS + MAX_SENT];
    let streams = match &launch.work {
        Work::Now { streams, .. } => streams.as_slice(),
        Work::Later => &[],
    };
    let single = streams.iter().chain([&launch.report]).map(AsRawFd::as_raw_fd);
    let single = single.chain([launch.zygote.as_raw_fd()]);
    let binds = launch.prepared.iter().flatten().chain(launch.nest.iter().map(|nest| &nest.root));
    let invited = launch
        .interpreter
        .iter()
        .flat_map(|invitation| invitation.groups.iter().copied().chain([invitation.door]))
        .map(|fd| fd.as_raw_fd());
    let all = single.chain(binds.map(AsRawFd::as_raw_fd)).chain(invited);
    for (slot, fd) in needed.iter_mut().zip(all) {
        *slot = fd.unsigned_abs();
    }
    close_all_but(&mut needed, launch.null)
}

/// Lets go of the copy of the zygote's socket to the host, before anything else is done: as long as
/// anybody has one, a host whose zygote was killed doesn't notice, and sends where nobody reads.
pub(super) fn hang_up(null: BorrowedFd<'_>) -> SysResult<()> {
    file::place(null, CONTROL)
}

/// Closes what isn't needed, with `null` in the places of the streams.
pub(super) fn close_all_but(needed: &mut [u32], null: BorrowedFd<'_>) -> SysResult<()> {
    for place in 0..FIRST_FREE {
        file::place(null, place)?;
    }
    close_gaps(needed, FIRST_FREE.unsigned_abs())
}

/// Closes all descriptors from `next` on but `needed`.
fn close_gaps(needed: &mut [u32], mut next: u32) -> SysResult<()> {
    needed.sort_unstable();
    for fd in needed.iter().copied().filter(|fd| *fd != u32::MAX) {
        if next < fd {
            file::close_range(next, fd - 1)?;
        }
        next = fd + 1;
    }
    file::close_range(next, u32::MAX)
}

/// Tells the host. If that fails the host is gone, and there is nobody to tell.
#[expect(clippy::large_types_passed_by_value, reason = "it is written out at once, and no more")]
pub(super) fn send(report: BorrowedFd<'_>, record: Record) -> i32 {
    match socket::send(report, [&record.encode(), &[]], &[], Wait::Yes) {
        Ok(()) => 0,
        Err(_gone) => LOST,
    }
}

/// Exit status of a first process that could not report, or had nothing to; the zygote reports its end in
/// any case.
pub(super) const LOST: i32 = 1;

/// Exit status of a first process that has ended its cell because the wall time was over.
pub(crate) const OVERDUE: i32 = 2;

/// The number after the streams'.
const FIRST_FREE: i32 = 3;

/// Measures the stages.
pub(super) struct Clock {
    last: u64,
    next: usize,
    stages: [u64; STAGES],
}

impl Clock {
    pub(super) fn start(begun: u64) -> Self {
        Self { last: begun, next: 0, stages: [0; STAGES] }
    }

    pub(super) fn lap(&mut self) {
        let now = event::now();
        if let Some(stage) = self.stages.get_mut(self.next) {
            *stage = now.saturating_sub(self.last);
        }
        self.last = now;
        self.next += 1;
    }

    /// The next stages were over before the clock started.
    pub(super) fn leave_out(&mut self, stages: usize) {
        self.next += stages;
    }

    /// What has passed since belongs to no stage.
    pub(super) fn skip(&mut self) {
        self.last = event::now();
    }

    /// The last stage has begun then, and ends.
    pub(super) fn began(&mut self, at: u64) {
        self.last = at;
        self.finish();
    }

    pub(super) fn stages(&self) -> [u64; STAGES] {
        self.stages
    }

    /// The last stage ends.
    pub(super) fn finish(&mut self) {
        self.next = STAGES - 1;
        self.lap();
    }
}
