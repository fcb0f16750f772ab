//! A first process that is made before anybody asks for it. It has namespaces, groups, ids and a root,
//! and waits for a plan. All that is fixed about that plan is its [`Sort`].
//!
//! It is what a cell is between its clone and its lockdown: code of ours alone, out of everybody's
//! sight, with rights in a user namespace that nobody else is in, and tied to the zygote's life.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::{
    At, Failure, Point, Prepared,
    build::{Ahead, Nest, enter_groups, fit, settle},
    child::{self, Clock, LOST, Launch, Work, close_all_but, conclude, hang_up, look_for},
    landlock, lockdown,
    sys::{
        Result as SysResult, credentials, event,
        process::{self, Stack},
        socket::{self, MAX_SENT, Received, Wait},
    },
};
use crate::{
    errno::Errno,
    plan::{Ground, GroupLimits, MAX_PLAN_BINDS, Order, Plan, RESOURCES},
    step::Step,
    zygote::protocol::{Record, Request},
};

/// What of a plan such a process must know ahead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sort {
    pub(crate) ground: Ground,
    /// The limits of its groups, if it is in any.
    pub(crate) limits: Option<GroupLimits>,
    /// The mount points of its root.
    pub(crate) points: Vec<Point>,
}

/// Everything it needs, made by the zygote before the fork.
#[derive(Debug)]
pub(crate) struct Seedling<'a> {
    pub(crate) ground: Ground,
    pub(crate) nest: Nest<'a>,
    /// Where its plan will come.
    pub(crate) desk: OwnedFd,
    pub(crate) stack: Box<Stack>,
    /// Where its plan is put: as long as the longest request.
    pub(crate) room: &'a mut [u8],
    /// Readable when the zygote is dead.
    pub(crate) zygote: BorrowedFd<'a>,
    /// `/dev/null`.
    pub(crate) null: BorrowedFd<'a>,
    pub(crate) ceilings: [u64; RESOURCES],
    pub(crate) capabilities: u64,
}

/// The most mounts that can be handed over with a plan, its four other descriptors beside them.
pub(crate) const MOST_HANDED: usize = MAX_SENT - 4;

/// Runs the process. `seedling` came over by the fork. Whatever fails before there is a plan, only the
/// zygote hears of, by the process's end; if a plan is on its way by then, its host hears of it too.
pub(crate) fn run(mut seedling: Seedling<'_>) -> ! {
    let datagram = std::mem::take(&mut seedling.room);
    seedling.stack.warm_up();
    let desk = seedling.desk.as_fd();
    let (own, rules) = match grow(&seedling) {
        Ok(grown) => grown,
        Err(failure) => wither(desk, failure, datagram),
    };
    let Ok(Received { length, passed }) = wait(desk, datagram) else { process::exit(LOST) };
    let request = Request::parse(datagram.get(..length).unwrap_or_default());
    let Some(Request::Become { begun, plan, order }) = request else { process::exit(LOST) };
    let mut clock = Clock::start(begun);
    clock.lap();
    clock.leave_out(MADE_AHEAD);
    let mut passed = passed.into_iter();
    let next = [passed.next(), passed.next(), passed.next(), passed.next()];
    let [Some(Some(input)), Some(Some(output)), Some(Some(error)), Some(Some(report))] = next
    else {
        process::exit(LOST)
    };
    let (Some(plan), Some(order)) = (Plan::parse(plan), Order::parse(order)) else {
        let errno = Errno::from_raw(libc::EINVAL);
        let failed = Record::Failed { step: Step::ReadPlan, errno, detail: 0 };
        process::exit(child::send(report.as_fd(), failed))
    };
    let mut prepared: Prepared = [const { None }; MAX_PLAN_BINDS];
    for (slot, mount) in prepared.iter_mut().zip(passed) {
        *slot = mount;
    }
    let Seedling { nest, stack, zygote, null, ceilings, capabilities, .. } = seedling;
    let mut launch = Launch {
        plan,
        work: Work::Now { order, streams: [input, output, error] },
        stack,
        report,
        zygote,
        null,
        ceilings,
        nest: None,
        prepared,
        interpreter: None,
        capabilities,
        begun,
    };
    let ahead = Ahead::Rules(rules);
    let built =
        fit(&mut launch, own.as_fd(), ahead, nest.privileged, &mut clock).and_then(|built| {
            look_for(zygote)?;
            clock.lap();
            Ok(built)
        });
    conclude(&mut launch, built, clock)
}

/// Everything that needs no plan. Returns what [`settle`] does, and the first of Landlock's rules.
fn grow(seedling: &Seedling<'_>) -> Result<(OwnedFd, Option<OwnedFd>), Failure> {
    let Seedling { ground, nest, desk, zygote, null, capabilities, .. } = seedling;
    hang_up(*null).at(Step::CloseDescriptors)?;
    credentials::on_parent_death(libc::SIGKILL).at(Step::ParentDeath)?;
    enter_groups(nest)?;
    let mut needed =
        [desk.as_raw_fd(), nest.root.as_raw_fd(), zygote.as_raw_fd(), null.as_raw_fd()]
            .map(i32::unsigned_abs);
    close_all_but(&mut needed, *null).at(Step::CloseDescriptors)?;
    let begun = event::now();
    let (own, _) = settle(nest, *ground, false, &mut Clock::start(begun))?;
    lockdown::empty_bounding_set(*capabilities)?;
    let rules = (ground.landlock > 0).then(|| landlock::begin(*ground)).transpose()?;
    look_for(*zygote)?;
    Ok((own, rules))
}

/// Takes no plan any more, and ends. The zygote may have handed one over already.
fn wither(desk: BorrowedFd<'_>, Failure { step, errno, detail }: Failure, room: &mut [u8]) -> ! {
    // Then the zygote's next plan is refused, and goes to a process made from scratch.
    socket::refuse_more(desk).ok();
    let received: SysResult<Received<MAX_SENT>> = socket::receive_with(desk, room, Wait::No);
    let report = received.ok().and_then(|received| received.passed.into_iter().nth(3)?);
    let failed = Record::Failed { step, errno, detail };
    process::exit(report.map_or(LOST, |report| child::send(report.as_fd(), failed)))
}

/// Waits for the plan.
fn wait(desk: BorrowedFd<'_>, datagram: &mut [u8]) -> Result<Received<MAX_SENT>, Failure> {
    loop {
        match socket::receive_with(desk, datagram, Wait::Yes) {
            Err(errno) if errno.raw() == libc::EINTR => {}
            other => return other.at(Step::ReadPlan),
        }
    }
}

/// The stages groups, identity and root.
const MADE_AHEAD: usize = 3;
