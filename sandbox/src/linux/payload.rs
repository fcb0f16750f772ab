//! The program's own process, between its start and exec. It shares the first process's memory
//! meanwhile, and allocates nothing, unless it was made ahead ([`super::ahead`]).

use std::{
    os::fd::IntoRawFd,
    sync::atomic::{AtomicI32, AtomicU32, Ordering},
};

use super::{
    At, Failure,
    sys::{
        credentials, event, file,
        process::{self, Sharing, Stack, StringList},
        seccomp,
    },
};
use crate::{
    errno::Errno,
    plan::{Entry, INHERIT, Order, Plan, RESOURCES, Resource},
    step::Step,
};

/// What the process needs, all of it made before it starts.
#[derive(Debug)]
pub(crate) struct Payload<'a> {
    pub(crate) plan: Plan<'a>,
    pub(crate) order: Order<'a>,
    pub(crate) arguments: StringList<'a>,
    pub(crate) environment: StringList<'a>,
    /// The host's hard limits, above which nothing can be set.
    pub(crate) ceilings: [u64; RESOURCES],
}

impl<'a> Payload<'a> {
    pub(crate) fn new(plan: &Plan<'a>, order: Order<'a>, ceilings: [u64; RESOURCES]) -> Self {
        let arguments = StringList::new(order.entries().filter_map(|entry| match entry {
            Entry::Argument { text } => Some(text),
            _ => None,
        }));
        let environment = StringList::new(order.entries().filter_map(|entry| match entry {
            Entry::Variable { text } => Some(text),
            _ => None,
        }));
        Self { plan: *plan, order, arguments, environment, ceilings }
    }

    /// Starts the program; returns when it is loaded.
    pub(super) fn start(&self, stack: &mut Stack) -> Result<Program, Failure> {
        let task =
            Task { payload: self, verdict: Verdict::default(), listener: AtomicI32::new(-1) };
        // A filter that the program takes by itself leaves its listener in the common table.
        let sharing = if self.plan.learn { Sharing::MemoryAndFiles } else { Sharing::Memory };
        let pid = process::spawn_sharing(stack, run, &task, sharing).at(Step::StartProcess)?;
        match task.verdict.failure() {
            None => {
                let listener = task.listener.load(Ordering::Acquire);
                Ok(Program { pid, listener: (listener >= 0).then_some(listener) })
            }
            Some(failure) => Err(failure),
        }
    }

    pub(super) fn enter_directory(&self) -> Result<(), Failure> {
        for entry in self.order.entries() {
            if let Entry::StartDirectory { path } = entry {
                file::enter(path).at(Step::EnterDirectory)?;
            }
        }
        Ok(())
    }

    /// Tries one path after the other, as a shell does: what isn't there is skipped, what can't be
    /// entered is remembered, everything else is the answer.
    pub(super) fn execute(&self) -> Errno {
        let mut answer = Errno::from_raw(libc::ENOENT);
        for entry in self.order.entries() {
            let Entry::Candidate { path } = entry else { continue };
            let errno = process::execute(path, &self.arguments, &self.environment);
            match errno.raw() {
                libc::ENOENT | libc::ENOTDIR => {}
                libc::EACCES => answer = errno,
                _ => return errno,
            }
        }
        answer
    }
}

/// A program that runs.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) pid: i32,
    /// Tells of its calls, if it took a filter by itself.
    pub(super) listener: Option<i32>,
}

#[derive(Debug)]
struct Task<'a> {
    payload: &'a Payload<'a>,
    verdict: Verdict,
    listener: AtomicI32,
}

/// Where the process says why it could not become the program: its parent stands still meanwhile.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    failed: AtomicU32,
    errno: AtomicU32,
    detail: AtomicU32,
}

impl Verdict {
    pub(super) fn fail(&self, failure: Failure) {
        self.errno.store(failure.errno.raw().cast_unsigned(), Ordering::Relaxed);
        self.detail.store(failure.detail, Ordering::Relaxed);
        self.failed.store(failure.step.number().into(), Ordering::Release);
    }

    pub(super) fn failure(&self) -> Option<Failure> {
        let step =
            u16::try_from(self.failed.load(Ordering::Acquire)).ok().and_then(Step::from_number)?;
        let errno = Errno::from_raw(self.errno.load(Ordering::Relaxed).cast_signed());
        Some(Failure { step, errno, detail: self.detail.load(Ordering::Relaxed) })
    }
}

extern "C" fn run(task: &Task<'_>) -> std::ffi::c_int {
    task.verdict.fail(match prepare(task.payload).and_then(|()| watch(task)) {
        Ok(()) => Failure { step: Step::Execute, errno: task.payload.execute(), detail: 0 },
        Err(failure) => failure,
    });
    NOT_STARTED
}

/// Takes a filter that only watches. From here to exec every other call would wait for an answer
/// that its parent, standing still, can't give.
fn watch(task: &Task<'_>) -> Result<(), Failure> {
    if !task.payload.plan.learn {
        return Ok(());
    }
    if let Some(filter) = task.payload.plan.filter()
        && let Some(listener) = seccomp::load(filter, true).at(Step::LoadFilter)?
    {
        task.listener.store(listener.into_raw_fd(), Ordering::Release);
    }
    Ok(())
}

fn prepare(payload: &Payload<'_>) -> Result<(), Failure> {
    detach()?;
    limit(&payload.plan, &payload.ceilings, |_| true)?;
    payload.enter_directory()
}

/// Away from the process that made this one, except that it dies with it.
pub(super) fn detach() -> Result<(), Failure> {
    credentials::on_parent_death(libc::SIGKILL).at(Step::ParentDeath)?;
    credentials::start_session().at(Step::StartSession)?;
    event::reset_signals().at(Step::ResetSignals)?;
    file::close_on_exec(3).at(Step::CloseDescriptors)
}

/// Sets the `wanted` ones of the plan's limits.
pub(super) fn limit(
    plan: &Plan<'_>,
    ceilings: &[u64; RESOURCES],
    wanted: impl Fn(Resource) -> bool,
) -> Result<(), Failure> {
    let limits = Resource::ALL.into_iter().zip(plan.resources).zip(ceilings);
    for (index, ((resource, value), ceiling)) in limits.enumerate() {
        // To leave a limit alone is to leave its soft value alone too.
        if value != INHERIT && wanted(resource) {
            credentials::set_limit(resource, value.min(*ceiling))
                .at_index(Step::LimitResource, index)?;
        }
    }
    Ok(())
}

/// Nobody reads this status: the failure itself is in the task.
pub(super) const NOT_STARTED: i32 = 127;
