//! The program's process of a prepared cell, which is there before its order is: it does what needs no
//! order, takes the order from the host itself, and becomes the program.
//!
//! Between the host's word and the program's first instruction then stand one wake-up and one `exec`:
//! no other process has to run, and none has to be made. Until that `exec` it shares the first process's
//! memory, which stands still meanwhile; so it may allocate there.

use std::{
    ffi::c_int,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicU64, Ordering},
};

use super::{
    At, Failure,
    child::{LOST, OVERDUE},
    later::Arrival,
    payload::{self, NOT_STARTED, Payload, Verdict},
    sys::{
        event, file,
        process::{self, Stack},
    },
};
use crate::{
    plan::{Plan, RESOURCES, Resource},
    step::Step,
};

/// A program that was started by its order.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) pid: i32,
    /// When the order came.
    pub(super) at: u64,
    /// Nanoseconds that it has from then on.
    pub(super) wall: u64,
}

/// Makes the process, and returns when it has become the program, or ended. `None` when it ended
/// without an order: the host has let go of the cell, or somebody has killed it.
pub(super) fn start(
    plan: &Plan<'_>,
    ceilings: [u64; RESOURCES],
    stack: &mut Stack,
    report: BorrowedFd<'_>,
    lifeline: (OwnedFd, OwnedFd),
    timer: BorrowedFd<'_>,
) -> Result<Option<Begun>, Failure> {
    let (at, wall, verdict) = (AtomicU64::new(0), AtomicU64::new(0), Verdict::default());
    let task = Task { plan, ceilings, report, timer, at, wall, verdict };
    // Whatever keeps the program from beginning keeps it no longer than its wall time.
    let overdue = (timer, OVERDUE);
    let pid =
        process::spawn_waiting(stack, run, &task, lifeline, overdue).at(Step::StartProcess)?;
    if let Some(failure) = task.verdict.failure() {
        return Err(failure);
    }
    let (at, wall) = (task.at.load(Ordering::Acquire), task.wall.load(Ordering::Acquire));
    Ok((at > 0).then_some(Begun { pid, at, wall }))
}

#[derive(Debug)]
struct Task<'a> {
    plan: &'a Plan<'a>,
    /// The host's hard limits, above which nothing can be set.
    ceilings: [u64; RESOURCES],
    /// Where the order comes.
    report: BorrowedFd<'a>,
    /// Set when it comes.
    timer: BorrowedFd<'a>,
    /// When it came; 0 before.
    at: AtomicU64,
    /// How long the program has, in nanoseconds.
    wall: AtomicU64,
    verdict: Verdict,
}

extern "C" fn run(task: &Task<'_>) -> c_int {
    match task.carry_out() {
        Ok(code) => code,
        Err(failure) => {
            task.verdict.fail(failure);
            NOT_STARTED
        }
    }
}

impl Task<'_> {
    /// Returns only where no program is executed.
    fn carry_out(&self) -> Result<c_int, Failure> {
        payload::detach()?;
        payload::limit(self.plan, &self.ceilings, |resource| !is_late(resource))?;
        let Some(mut arrival) = Arrival::wait(self.report)? else { return Ok(LOST) };
        let now = event::now();
        self.at.store(now, Ordering::Release);
        let streams = arrival.take_streams()?;
        let order = arrival.order()?;
        self.wall.store(order.wall_nanoseconds, Ordering::Release);
        event::set_timer(self.timer, now.saturating_add(order.wall_nanoseconds))
            .at(Step::StartProcess)?;
        for (stream, number) in streams.iter().zip(0..) {
            file::place(stream.as_fd(), number).at(Step::PlaceStreams)?;
        }
        if order.rehearse {
            return Ok(0);
        }
        let payload = Payload::new(self.plan, order, self.ceilings);
        payload::limit(self.plan, &self.ceilings, is_late)?;
        payload.enter_directory()?;
        Err(Failure { step: Step::Execute, errno: payload.execute(), detail: 0 })
    }
}

/// Whether the limit could be in the way of the order: of its streams, or of memory for it.
fn is_late(resource: Resource) -> bool {
    matches!(resource, Resource::OpenFiles | Resource::AddressSpace | Resource::Data)
}
