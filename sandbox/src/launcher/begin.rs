//! One launch: pipes, request, first answers.

use std::{
    ffi::CStr,
    future::poll_fn,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::PathBuf,
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use tokio::io::{Interest, unix::AsyncFd};

use super::{claim::Claim, offers::Offer, seat::Zygote};
use crate::{
    diagnosis::{Facts, diagnose},
    errno::Errno,
    error::LaunchError,
    level::Layer,
    limits,
    linux::{
        Failure,
        sys::{
            self, event, file,
            socket::{self, Wait},
            tree::Place,
            watch::watch,
        },
    },
    plan::Plan,
    profile::Profile,
    program::Program,
    report::Stages,
    running::{Parts, Patience, Process, Running},
    step::Step,
    zygote::protocol::{Cause, RECORD, Record, Request},
};

/// Why a launch came to nothing.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The zygote was gone before the request went out.
    NotSent,
    /// The zygote went while the request was with it, or the prepared cell did, and before a program can
    /// have run.
    Unserved,
    /// The zygote went while the request was with it.
    Lost,
    /// It hung for that long, and was given up.
    Stalled(Duration),
    /// The wall time was over before the program ran; the zygote is well.
    Overdue,
    /// The first process was ended before the program ran; the zygote is well.
    Killed,
    Pipes(Errno),
    Unreadable,
    Failed(Failure),
}

impl Refusal {
    /// The public error, with names instead of numbers.
    pub(super) fn into_error(self, plan: &[u8], facts: &Facts, program: &Program) -> LaunchError {
        let Failure { step, errno, detail } = match self {
            Self::NotSent | Self::Unserved => return LaunchError::LauncherGone,
            Self::Lost => return LaunchError::LauncherLost,
            Self::Stalled(waited) => return LaunchError::LauncherStalled { waited },
            Self::Overdue => return LaunchError::Overdue,
            Self::Killed => return LaunchError::Killed,
            Self::Pipes(source) => return LaunchError::Pipes { source },
            Self::Unreadable => return LaunchError::Unreadable,
            Self::Failed(failure) => failure,
        };
        if let Some((layer, reason, remedy)) = diagnose(step, errno, facts) {
            return LaunchError::Unavailable { layer, reason, remedy };
        }
        match step {
            Step::Execute => LaunchError::Program { path: program.path().into(), source: errno },
            Step::EnterDirectory => {
                let path = program.start_directory().map_or_else(PathBuf::new, PathBuf::from);
                LaunchError::Directory { path, source: errno }
            }
            Step::AdmitCell if errno.raw() == libc::EAGAIN => {
                LaunchError::TooManyCells { most: limits::MAX_CELLS }
            }
            Step::OpenSource
            | Step::RestrictSource
            | Step::AttachBind
            | Step::AttachLower
            | Step::MapOwner => {
                let index = usize::try_from(detail).unwrap_or(usize::MAX);
                let source =
                    Plan::parse(plan).and_then(|plan| plan.bind_source(index)).map(CStr::to_bytes);
                let path = std::ffi::OsStr::from_bytes(source.unwrap_or_default()).into();
                LaunchError::Bind { path, source: errno }
            }
            _ => LaunchError::Setup { step, source: errno },
        }
    }
}

/// What is to run, and under which terms.
#[derive(Debug)]
pub(super) struct Terms<'a> {
    pub(super) profile: &'a Profile,
    pub(super) program: &'a Program,
    pub(super) degraded: Vec<Layer>,
    pub(super) order: &'a [u8],
}

/// The answer, unless it takes longer than a zygote needs that doesn't hang.
async fn in_time<T>(
    zygote: &Zygote,
    patience: &mut Patience,
    answer: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    let mut answer = pin!(answer);
    let begun = event::now();
    poll_fn(|context| {
        if let Poll::Ready(answer) = answer.as_mut().poll(context) {
            return Poll::Ready(answer);
        }
        patience.poll_over(context).map(|()| {
            zygote.give_up();
            Err(Refusal::Stalled(Duration::from_nanos(event::now().saturating_sub(begun))))
        })
    })
    .await
}

/// The cell, if its program runs in time. What has waited for that waits for its end then.
async fn until_it_runs(
    zygote: &Zygote,
    terms: &Terms<'_>,
    answer: impl Future<Output = Result<Running, Refusal>>,
) -> Result<Running, Refusal> {
    let wall_time = terms.profile.wall_time;
    let asked_for = event::calendar();
    let mut patience = Patience::new(wall_time.min(limits::LAUNCH_WAIT));
    let mut cell = in_time(zygote, &mut patience, answer).await?;
    cell.wait_with(patience, wall_time);
    cell.asked_for(asked_for);
    Ok(cell)
}

/// Starts a cell and waits until its program runs.
pub(super) async fn launch(
    zygote: &Arc<Zygote>,
    plan: &[u8],
    terms: &Terms<'_>,
) -> Result<Running, Refusal> {
    until_it_runs(zygote, terms, ask_for_cell(zygote, plan, terms)).await
}

async fn ask_for_cell(
    zygote: &Arc<Zygote>,
    plan: &[u8],
    terms: &Terms<'_>,
) -> Result<Running, Refusal> {
    if zygote.is_dead() {
        return Err(Refusal::NotSent);
    }
    let (theirs, ours) = streams(terms).await.map_err(Refusal::Pipes)?;
    let (report, their_report) = socket::pair().map_err(Refusal::Pipes)?;
    let [input, output, error] = &theirs;
    let [input, output, error] = [input.as_fd(), output.as_fd(), error.as_fd()];
    let both = [plan, terms.order].concat();
    if both.len() <= limits::INLINE_PLAN_BYTES {
        let request = Request::Launch { plan, order: terms.order };
        let passed = [input, output, error, their_report.as_fd()];
        send(zygote, [&request.header(), &both], &passed).await?;
    } else {
        let file = file::sealed(&both).map_err(Refusal::Pipes)?;
        let request = Request::LaunchFromFile { plan: plan.len(), length: both.len() };
        let passed = [input, output, error, their_report.as_fd(), file.as_fd()];
        send(zygote, [&request.header(), &[]], &passed).await?;
    }
    // Only the cell may hold its ends from here on, or their closing would never be seen.
    drop((theirs, their_report));
    let report = watch(report, Interest::READABLE).map_err(Refusal::Pipes)?;
    // While the cell is at work.
    let ours = ours.watched().map_err(Refusal::Pipes)?;
    let begun = first_answers(&report, Known::default(), terms.profile).await?;
    finish(zygote, report, ours, begun, terms, Origin::Made, None)
}

/// Gives a prepared cell its order, and waits until its program runs.
pub(super) async fn claim(
    zygote: &Arc<Zygote>,
    offer: Offer,
    terms: &Terms<'_>,
) -> Result<Running, Refusal> {
    until_it_runs(zygote, terms, give_order(zygote, offer, terms)).await
}

async fn give_order(
    zygote: &Arc<Zygote>,
    offer: Offer,
    terms: &Terms<'_>,
) -> Result<Running, Refusal> {
    let Offer { cell, report, pidfd, egress, is_urgent } = offer;
    let (theirs, ours) = streams(terms).await.map_err(Refusal::Pipes)?;
    let mut claim = Claim::make(zygote, cell, terms.profile).await?;
    let [input, output, error] = &theirs;
    let [input, output, error] = [input.as_fd(), output.as_fd(), error.as_fd()];
    let gone = |_errno| Refusal::NotSent;
    let order = terms.order;
    if order.len() <= limits::INLINE_PLAN_BYTES {
        let header = Request::Run { order }.header();
        socket::send(report.as_fd(), [&header, order], &[input, output, error], Wait::No)
            .map_err(gone)?;
    } else {
        let file = file::sealed(order).map_err(Refusal::Pipes)?;
        let header = Request::RunFromFile { length: order.len() }.header();
        let passed = [input, output, error, file.as_fd()];
        socket::send(report.as_fd(), [&header, &[]], &passed, Wait::No).map_err(gone)?;
    }
    drop(theirs);
    // From here on the cell ends when this future does.
    let process = Process::new(pidfd, terms.profile.level);
    if is_urgent {
        claim.wake();
    }
    let report = watch(report, Interest::READABLE).map_err(Refusal::Pipes)?;
    let ours = ours.watched().map_err(Refusal::Pipes)?;
    let known = Known { process: Some(process), egress, overlay: None };
    let begun = first_answers(&report, known, terms.profile).await?;
    let origin = if begun.joined { Origin::Joined } else { Origin::Prepared };
    finish(zygote, report, ours, begun, terms, origin, Some(claim))
}

/// Where a cell comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Made,
    Prepared,
    /// Prepared, with an interpreter's fork in it.
    Joined,
}

fn finish(
    zygote: &Arc<Zygote>,
    report: AsyncFd<OwnedFd>,
    ours: Streams<AsyncFd<OwnedFd>>,
    begun: Begun,
    terms: &Terms<'_>,
    origin: Origin,
    claim: Option<Claim>,
) -> Result<Running, Refusal> {
    let Streams { stdin, stdout, stderr } = ours;
    let Begun { process, stages, heard, egress, overlay, .. } = begun;
    let parts = Parts {
        stdin,
        stdout,
        stderr,
        report,
        process,
        stages,
        heard,
        egress,
        overlay,
        claim,
        zygote: Arc::clone(zygote),
        degraded: terms.degraded.clone(),
        prepared: origin != Origin::Made,
        forked: origin == Origin::Joined,
    };
    Running::new(parts, terms.profile, terms.program).map_err(Refusal::Pipes)
}

/// Asks whether a process can start with these namespaces; an error number says why not.
pub(super) async fn probe(zygote: &Arc<Zygote>, namespaces: u64) -> Result<Option<Errno>, Refusal> {
    let mut patience = Patience::new(Duration::ZERO);
    in_time(zygote, &mut patience, ask_for_namespaces(zygote, namespaces)).await
}

async fn ask_for_namespaces(zygote: &Zygote, namespaces: u64) -> Result<Option<Errno>, Refusal> {
    let (report, theirs) = socket::pair().map_err(Refusal::Pipes)?;
    send(zygote, [&Request::Probe { namespaces }.header(), &[]], &[theirs.as_fd()]).await?;
    drop(theirs);
    let report = watch(report, Interest::READABLE).map_err(Refusal::Pipes)?;
    match next_record(&report).await? {
        (Record::Probed { errno }, _) => Ok(errno),
        _ => Err(Refusal::Unreadable),
    }
}

/// What is known when a program runs.
#[derive(Debug)]
struct Begun {
    process: Process,
    stages: Stages,
    /// A short program may have been refused calls, and ended, before the zygote has said that it
    /// exists.
    heard: Vec<Record>,
    egress: Option<OwnedFd>,
    overlay: Option<(OwnedFd, Place)>,
    /// Whether the program is an interpreter's fork.
    joined: bool,
}

/// What is known before.
#[derive(Debug, Default)]
struct Known {
    process: Option<Process>,
    egress: Option<OwnedFd>,
    overlay: Option<(OwnedFd, Place)>,
}

/// The zygote says that the process exists, the process says that the program runs; in either
/// order.
async fn first_answers(
    report: &AsyncFd<OwnedFd>,
    known: Known,
    profile: &Profile,
) -> Result<Begun, Refusal> {
    let Known { mut process, mut egress, mut overlay } = known;
    let (mut started, mut heard, mut joined) = (None, Vec::new(), false);
    // A prepared cell takes its order without a word.
    let mut is_certain = process.is_none();
    loop {
        let (record, [first, second]) = match next_record(report).await {
            // Something is always said before a program runs.
            Err(Refusal::Lost) if is_certain => return Err(Refusal::Unserved),
            heard => heard?,
        };
        is_certain = false;
        match (record, first) {
            (Record::Launched, Some(pidfd)) => {
                process = Some(Process::new(pidfd, profile.level));
                egress = second;
            }
            (Record::Joined, _) => joined = true,
            (Record::Built, _) => {}
            (Record::Unused, _) => return Err(Refusal::Unserved),
            // The first process has found its zygote dead.
            (Record::Failed { step: Step::ParentDeath, errno, .. }, _)
                if errno.raw() == libc::ESRCH =>
            {
                return Err(Refusal::Unserved);
            }
            (Record::Overlay { device, inode }, Some(upper)) => {
                overlay = Some((upper, Place { device, inode }));
            }
            (Record::Started { stages }, _) => started = Some(Stages::from_nanoseconds(stages)),
            (Record::Ran { stages, status, usage }, _) => {
                started = Some(Stages::from_nanoseconds(stages));
                heard.push(Record::Ended { status, usage });
            }
            (
                record @ (Record::Ended { .. }
                | Record::Denied { .. }
                | Record::Seen { .. }
                | Record::Lasting),
                _,
            ) if heard.len() < MOST_HEARD => heard.push(record),
            (Record::Failed { step, errno, detail }, _) => {
                return Err(Refusal::Failed(Failure { step, errno, detail }));
            }
            // The first process ended before it could say anything.
            (Record::Reaped { cause: Cause::WallTime, .. }, _) => return Err(Refusal::Overdue),
            (Record::Reaped { .. }, _) => return Err(Refusal::Killed),
            _ => return Err(Refusal::Unreadable),
        }
        match (process.take(), started) {
            (Some(process), Some(stages)) => {
                return Ok(Begun { process, stages, heard, egress, overlay, joined });
            }
            (waiting, _) => process = waiting,
        }
    }
}

/// Each refused call is told once, and counted once at the end.
const MOST_HEARD: usize = 2 * limits::MAX_DENIALS;

async fn next_record(report: &AsyncFd<OwnedFd>) -> Result<(Record, [Option<OwnedFd>; 2]), Refusal> {
    let mut bytes = [0; RECORD];
    let received = report
        .async_io(Interest::READABLE, |socket| {
            let mut receive = || socket::receive(socket.as_fd(), &mut bytes, Wait::No);
            match receive() {
                // The other side went without having read all. What it said before comes after that.
                Err(errno) if errno.raw() == libc::ECONNRESET => Ok(receive()?),
                other => Ok(other?),
            }
        })
        .await;
    match received {
        Ok(received) if received.length == 0 => Err(Refusal::Lost),
        Ok(received) => {
            let [first, second, ..] = received.passed;
            let record = Record::parse(&bytes).ok_or(Refusal::Unreadable)?;
            Ok((record, [first, second]))
        }
        Err(error) if error.raw_os_error() == Some(libc::ECONNRESET) => Err(Refusal::Lost),
        Err(_unexpected) => Err(Refusal::Unreadable),
    }
}

/// Sends a request; waits while the zygote has too many before it.
pub(super) async fn send(
    zygote: &Zygote,
    parts: [&[u8]; 2],
    passed: &[std::os::fd::BorrowedFd<'_>],
) -> Result<(), Refusal> {
    let not_sent = |errno: Errno| match errno.raw() {
        libc::EPIPE | libc::ECONNRESET | libc::ENOTCONN => Refusal::NotSent,
        _ => Refusal::Pipes(errno),
    };
    match socket::send(zygote.control(), parts, passed, Wait::No) {
        Err(errno) if errno.raw() == libc::EAGAIN => {}
        other => return other.map_err(not_sent),
    }
    // The control socket belongs to no runtime, so that a launcher may be used from several; a copy
    // of it does.
    let broken = |_error: std::io::Error| Refusal::Pipes(Errno::from_raw(libc::EIO));
    let copy = zygote.control().try_clone_to_owned().map_err(broken)?;
    let writable = watch(copy, Interest::WRITABLE).map_err(Refusal::Pipes)?;
    let sent = writable
        .async_io(Interest::WRITABLE, |socket| {
            Ok(socket::send(socket.as_fd(), parts, passed, Wait::No)?)
        })
        .await;
    sent.map_err(|error| not_sent(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))))
}

/// Our ends of a cell's streams. There is none for an input that is a file.
#[derive(Debug)]
struct Streams<Output> {
    stdin: Option<OwnedFd>,
    stdout: Output,
    stderr: Output,
}

impl Streams<OwnedFd> {
    fn watched(self) -> sys::Result<Streams<AsyncFd<OwnedFd>>> {
        let Self { stdin, stdout, stderr } = self;
        let output = |pipe| watch(pipe, Interest::READABLE);
        Ok(Streams { stdin, stdout: output(stdout)?, stderr: output(stderr)? })
    }
}

/// The cell's ends of its streams (input, output, error), and ours, which never wait.
async fn streams(terms: &Terms<'_>) -> sys::Result<([OwnedFd; 3], Streams<OwnedFd>)> {
    let program = terms.program;
    let (their_input, stdin) = if let Some(input) = program.sealed_input() {
        (input.reader_for(terms.profile.level).await?, None)
    } else {
        let (theirs, ours) = file::pipe()?;
        (theirs, Some(ours))
    };
    let (stdout, their_output) = file::pipe()?;
    let (stderr, their_error) = file::pipe()?;
    // An input that nothing is written to is only closed.
    let is_written = program.is_interactive() || !program.piped_input().is_empty();
    let stdin = stdin.filter(|_| is_written);
    for end in stdin.iter().chain([&stdout, &stderr]) {
        file::set_nonblocking(end.as_fd())?;
    }
    Ok(([their_input, their_output, their_error], Streams { stdin, stdout, stderr }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        level::Level,
        report::{STAGES, Usage},
    };

    fn profile() -> Profile {
        Profile::builder(Level::Standard).build().unwrap()
    }

    async fn answers(records: &[Record]) -> Result<Begun, Refusal> {
        let (ours, theirs) = socket::pair().unwrap();
        // Stands in for a process descriptor, which a test must not have: dropping one ends its
        // process.
        let (stand_in, _) = file::pipe().unwrap();
        for record in records {
            let passed = [stand_in.as_fd()];
            let passed = if *record == Record::Launched { &passed[..] } else { &[] };
            socket::send(theirs.as_fd(), [&record.encode(), &[]], passed, Wait::No).unwrap();
        }
        drop(theirs);
        first_answers(&watch(ours, Interest::READABLE).unwrap(), Known::default(), &profile()).await
    }

    #[tokio::test]
    async fn answers_come_in_any_order() {
        let started = Record::Started { stages: [1; STAGES] };
        let ended = Record::Ended { status: 0, usage: Usage::default() };
        assert!(answers(&[Record::Launched, started]).await.unwrap().heard.is_empty());
        assert!(answers(&[started, Record::Launched, ended]).await.unwrap().heard.is_empty());
        // A program that was faster than its zygote.
        let begun = answers(&[started, ended, Record::Launched]).await.unwrap();
        assert_eq!(begun.heard, [ended]);
        let ran = Record::Ran { stages: [1; STAGES], status: 0, usage: Usage::default() };
        assert_eq!(answers(&[Record::Launched, ran]).await.unwrap().heard, [ended]);
        assert_eq!(answers(&[ran, Record::Launched]).await.unwrap().heard, [ended]);
    }

    #[tokio::test]
    async fn what_was_said_before_an_order_went_unread_is_heard() {
        let (ours, theirs) = socket::pair().unwrap();
        socket::send(ours.as_fd(), [b"order", b""], &[], Wait::No).unwrap();
        socket::send(theirs.as_fd(), [&Record::Unused.encode(), &[]], &[], Wait::No).unwrap();
        drop(theirs);
        let report = watch(ours, Interest::READABLE).unwrap();
        assert!(matches!(next_record(&report).await, Ok((Record::Unused, _))));
        assert!(matches!(next_record(&report).await, Err(Refusal::Lost)));
    }

    #[tokio::test]
    async fn silence_and_nonsense_are_told_apart() {
        // Once something was said, a program may have run.
        assert!(matches!(answers(&[Record::Launched]).await, Err(Refusal::Lost)));
        assert!(matches!(answers(&[Record::Built]).await, Err(Refusal::Lost)));
        assert!(matches!(answers(&[]).await, Err(Refusal::Unserved)));
        assert!(matches!(answers(&[Record::Unused]).await, Err(Refusal::Unserved)));
        let orphaned = Record::Failed {
            step: Step::ParentDeath,
            errno: Errno::from_raw(libc::ESRCH),
            detail: 0,
        };
        assert!(matches!(answers(&[Record::Built, orphaned]).await, Err(Refusal::Unserved)));
        assert!(matches!(
            answers(&[Record::Probed { errno: None }]).await,
            Err(Refusal::Unreadable)
        ));
        let (usage, groups) = (Usage::default(), crate::account::GroupUsage::default());
        let reaped = |cause| Record::Reaped { cause, usage, groups };
        let overdue = answers(&[Record::Launched, reaped(Cause::WallTime)]).await;
        assert!(matches!(overdue, Err(Refusal::Overdue)));
        let killed = answers(&[Record::Launched, reaped(Cause::None)]).await;
        assert!(matches!(killed, Err(Refusal::Killed)));
        let failed =
            Record::Failed { step: Step::Execute, errno: Errno::from_raw(libc::ENOENT), detail: 0 };
        assert!(matches!(answers(&[failed]).await, Err(Refusal::Failed(_))));
    }
}
