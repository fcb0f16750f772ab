//! The program's own process, between its start and exec. It shares the first process's memory
//! meanwhile.

use std::sync::atomic::{AtomicU32, Ordering};

use super::{
    At, Failure,
    sys::{
        credentials, event, file,
        process::{self, Stack, StringList},
    },
};
use crate::{
    errno::Errno,
    plan::{Entry, INHERIT, Plan, RESOURCES, Resource},
    step::Step,
};

/// What the process needs, all of it made before the first fork.
#[derive(Debug)]
pub(crate) struct Payload<'a> {
    pub(crate) plan: Plan<'a>,
    pub(crate) arguments: StringList<'a>,
    pub(crate) environment: StringList<'a>,
    /// The host's hard limits, above which nothing can be set.
    pub(crate) ceilings: [u64; RESOURCES],
}

impl<'a> Payload<'a> {
    pub(crate) fn new(plan: Plan<'a>, ceilings: [u64; RESOURCES]) -> Self {
        let arguments = StringList::new(plan.entries().filter_map(|entry| match entry {
            Entry::Argument { text } => Some(text),
            _ => None,
        }));
        let environment = StringList::new(plan.entries().filter_map(|entry| match entry {
            Entry::Variable { text } => Some(text),
            _ => None,
        }));
        Self { plan, arguments, environment, ceilings }
    }

    /// Starts the program; returns when it is loaded.
    pub(super) fn start(&self, stack: &mut Stack) -> Result<i32, Failure> {
        let task = Task {
            payload: self,
            failed: AtomicU32::new(0),
            errno: AtomicU32::new(0),
            detail: AtomicU32::new(0),
        };
        let pid = process::spawn_sharing(stack, run, &task).at(Step::StartProcess)?;
        match task.failure() {
            None => Ok(pid),
            Some(failure) => Err(failure),
        }
    }
}

/// Where the process says why it could not become the program: its parent stands still meanwhile.
#[derive(Debug)]
struct Task<'a> {
    payload: &'a Payload<'a>,
    failed: AtomicU32,
    errno: AtomicU32,
    detail: AtomicU32,
}

impl Task<'_> {
    fn fail(&self, failure: Failure) {
        self.errno.store(failure.errno.raw().cast_unsigned(), Ordering::Relaxed);
        self.detail.store(failure.detail, Ordering::Relaxed);
        self.failed.store(failure.step.number().into(), Ordering::Release);
    }

    fn failure(&self) -> Option<Failure> {
        let step =
            u16::try_from(self.failed.load(Ordering::Acquire)).ok().and_then(Step::from_number)?;
        let errno = Errno::from_raw(self.errno.load(Ordering::Relaxed).cast_signed());
        Some(Failure { step, errno, detail: self.detail.load(Ordering::Relaxed) })
    }
}

extern "C" fn run(task: &Task<'_>) -> std::ffi::c_int {
    task.fail(match prepare(task.payload) {
        Ok(()) => Failure { step: Step::Execute, errno: execute(task.payload), detail: 0 },
        Err(failure) => failure,
    });
    NOT_STARTED
}

fn prepare(payload: &Payload<'_>) -> Result<(), Failure> {
    credentials::on_parent_death(libc::SIGKILL).at(Step::ParentDeath)?;
    credentials::start_session().at(Step::StartSession)?;
    event::reset_signals().at(Step::ResetSignals)?;
    file::close_on_exec(3).at(Step::CloseDescriptors)?;
    let limits = Resource::ALL.into_iter().zip(payload.plan.resources).zip(payload.ceilings);
    for (index, ((resource, wanted), ceiling)) in limits.enumerate() {
        // To leave a limit alone is to leave its soft value alone too.
        if wanted != INHERIT {
            credentials::set_limit(resource, wanted.min(ceiling))
                .at_index(Step::LimitResource, index)?;
        }
    }
    for entry in payload.plan.entries() {
        if let Entry::StartDirectory { path } = entry {
            file::enter(path).at(Step::EnterDirectory)?;
        }
    }
    Ok(())
}

/// Tries one path after the other, as a shell does: what isn't there is skipped, what can't be
/// entered is remembered, everything else is the answer.
fn execute(payload: &Payload<'_>) -> Errno {
    let mut answer = Errno::from_raw(libc::ENOENT);
    for entry in payload.plan.entries() {
        let Entry::Candidate { path } = entry else { continue };
        let errno = process::execute(path, &payload.arguments, &payload.environment);
        match errno.raw() {
            libc::ENOENT | libc::ENOTDIR => {}
            libc::EACCES => answer = errno,
            _ => return errno,
        }
    }
    answer
}

/// Nobody reads this status: the failure itself is in the task.
const NOT_STARTED: i32 = 127;
