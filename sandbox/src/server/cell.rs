//! The actor of one cell: launches it, carries what passes between it and its caller, and tells how it
//! ended.

use std::sync::Arc;
use std::time::Duration;

use neuroflow_kernel::{
    Actor, Clock, Context, Elapsed, Message, Moment, Parcel, RawParcel, ReplyStream, SpanGuard,
    SpanKind,
};
use tokio::sync::watch;

use super::{Replies, Verdict, Work, late, refuse, told};
use crate::error::LaunchError;
use crate::exec::{Ended, ExecEvent, ExecRefused, How, Stream};
use crate::launcher::Launcher;
use crate::limits::{SERVICE_GRACE, SERVICE_START};
use crate::meter::CellMeter;
use crate::output::Output;
use crate::profile::Profile;
use crate::program::Program;
use crate::report::{End, Report};
use crate::running::{CellInput, Running};

/// The one message of a cell's actor.
pub(super) struct Run {
    pub(super) launcher: Launcher,
    pub(super) profile: Profile,
    pub(super) work: Work,
    pub(super) meter: Arc<dyn CellMeter>,
    pub(super) arrived: Moment,
    /// When its caller stops waiting. Not in the header, by which the message would be refused.
    pub(super) deadline: Option<Moment>,
    pub(super) verdict: Option<watch::Receiver<Verdict>>,
}

impl Message for Run {
    fn name(&self) -> &'static str {
        "run"
    }

    fn archive(&self) -> Option<RawParcel> {
        match &self.work {
            Work::Exec(request) => request.archive(),
            Work::Serve(_) => None,
        }
    }
}

pub(super) struct CellActor;

impl Actor for CellActor {
    type Message = Run;
    type Error = std::convert::Infallible;
    const KIND: &'static str = "cell";

    async fn handle(
        &mut self,
        run: Run,
        context: &mut Context<Run>,
    ) -> Result<(), std::convert::Infallible> {
        let clock = context.clock().clone();
        let span = context.span("cell", SpanKind::Client);
        let cell = context.path().to_string();
        run.work(&cell, &clock, span).await;
        context.stop();
        Ok(())
    }
}

impl Work {
    /// The program, and its name without a path; none if the command is empty.
    fn program(&self) -> Option<(String, Program)> {
        let short = |program: &str| program.rsplit('/').next().unwrap_or(program).to_owned();
        match self {
            Self::Exec(request) => {
                let exec = request.parcel.get();
                let (program, arguments) = exec.command.split_first()?;
                let arguments = arguments.iter().map(rkyv::string::ArchivedString::as_str);
                let run = Program::of_command(program, arguments).stdin(exec.stdin.to_vec());
                Some((short(program), run))
            }
            Self::Serve(service) => {
                let (program, arguments) = service.command.split_first()?;
                let run = Program::new(program).args(arguments).interactive();
                Some((short(program), run))
            }
        }
    }
}

impl Run {
    async fn work(self, actor: &str, clock: &Clock, mut span: SpanGuard) {
        let Self { launcher, profile, work, meter, arrived, deadline, verdict } = self;
        let Some((short, program)) = work.program() else {
            return refuse(work.into_replies(), ExecRefused::EmptyCommand);
        };
        span.rename(short.clone());
        span.set("process.executable.name", short);
        span.set("neuroflow.sandbox.level", profile.level().to_string());
        let (replies, input) = match work {
            Work::Exec(request) => (request.replies, None),
            Work::Serve(service) => (service.events, Some(service.input)),
        };
        let longest = match input {
            None => profile.longest(),
            // Its life has no end of ours; this is for its start.
            Some(_) => SERVICE_START,
        };
        let deadline = deadline.unwrap_or_else(|| clock.now() + longest);

        let launched = tokio::select! {
            biased;
            () = replies.closed() => return span.fail("cancelled"),
            launched = launch(&launcher, &profile, &program, verdict, clock, deadline) => launched,
        };
        let cell = match launched {
            Ok(cell) => cell,
            Err(Unlaunched { code, refused }) => {
                span.fail(code);
                meter.refused(code);
                return refuse(replies, refused);
            }
        };
        let start = clock.now().since(arrived);
        meter.started(profile.level(), cell.is_prepared(), start);
        let arguments = program.arguments().iter().map(|argument| argument.to_string_lossy());
        let command: Vec<_> =
            std::iter::once(program.path().to_string_lossy()).chain(arguments).collect();
        let command: Vec<&str> = command.iter().map(AsRef::as_ref).collect();
        meter.began(actor, &profile, &command);

        let mut watch = Watch { meter: &*meter, actor, profile: &profile, end: None };
        // Dropping the future drops the cell, which ends everything in it.
        let report = tokio::select! {
            biased;
            () = replies.closed() => return span.fail("cancelled"),
            report = attend(cell, input, clock, deadline, &replies) => report,
        };
        let ended = ended(&report, start);
        for layer in &report.degraded {
            meter.degraded(report.level, *layer);
        }
        meter.ended(ended.how, &report);
        watch.end = Some((ended.how, &report));
        drop(watch);
        describe(&mut span, ended.how, &report);
        if send(&replies, &ExecEvent::Ended(ended)).await {
            replies.finish();
        }
    }
}

/// Why there is no cell.
struct Unlaunched {
    /// For whoever counts.
    code: &'static str,
    /// For whoever asked.
    refused: ExecRefused,
}

/// Launches a program by the deadline, once its level is known to hold.
async fn launch(
    launcher: &Launcher,
    profile: &Profile,
    program: &Program,
    verdict: Option<watch::Receiver<Verdict>>,
    clock: &Clock,
    deadline: Moment,
) -> Result<Running, Unlaunched> {
    if let Some(verdict) = verdict {
        let known = clock.before(deadline, known(verdict)).await;
        if let Some((code, message)) = barred(known) {
            let refused = ExecRefused::Launch { code: code.to_owned(), message };
            return Err(Unlaunched { code, refused });
        }
    }
    match clock.before(deadline, launcher.launch(profile, program)).await {
        Ok(Ok(cell)) => Ok(cell),
        Ok(Err(error)) => Err(Unlaunched { code: error.code(), refused: refusal(&error) }),
        Err(Elapsed) => {
            let refused = late("the cell wasn't ready before the deadline");
            Err(Unlaunched { code: "timeout", refused })
        }
    }
}

/// What a trace says of a cell's end.
fn describe(span: &mut SpanGuard, how: How, report: &Report) {
    span.set("neuroflow.sandbox.prepared", report.prepared);
    if !report.denials.is_empty() {
        let calls: Vec<&str> = report.denials.iter().map(|denial| denial.call.as_str()).collect();
        span.set("neuroflow.sandbox.denied", calls.join(","));
    }
    match how {
        How::Exited(status) => {
            span.set("process.exit.code", i64::from(status));
            if status != 0 {
                span.fail("exit");
            }
        }
        other => span.fail(other.code()),
    }
}

/// Why nothing is launched at a level of which this is known by the deadline: a stable word, and a text.
fn barred(known: Result<Verdict, Elapsed>) -> Option<(&'static str, String)> {
    match known {
        Ok(Verdict::Holds) => None,
        Ok(Verdict::Fails { code, why }) => Some((code, why)),
        Ok(Verdict::Open) => Some(("unproven", "the attacks aren't over".to_owned())),
        Err(Elapsed) => {
            Some(("timeout", "the attacks weren't over before the deadline".to_owned()))
        }
    }
}

/// What the attacks have shown, once they are over.
async fn known(mut verdict: watch::Receiver<Verdict>) -> Verdict {
    match verdict.wait_for(|verdict| *verdict != Verdict::Open).await {
        Ok(verdict) => verdict.clone(),
        Err(_stopping) => {
            let why = "the attacks were interrupted".to_owned();
            Verdict::Fails { code: "unproven", why }
        }
    }
}

/// Tells the meter that a cell is gone, however it went.
struct Watch<'a> {
    meter: &'a dyn CellMeter,
    actor: &'a str,
    profile: &'a Profile,
    end: Option<(How, &'a Report)>,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.meter.gone(self.actor, self.profile, self.end);
    }
}

/// Carries what passes between a cell and its caller, to the end of the cell.
async fn attend(
    mut cell: Running,
    input: Option<ReplyStream<Vec<u8>>>,
    clock: &Clock,
    deadline: Moment,
    replies: &Replies,
) -> Report {
    match (input, cell.take_stdin()) {
        (Some(input), Some(stdin)) => converse(cell, stdin, input, clock, replies).await,
        _ => follow(cell, clock, deadline, replies).await,
    }
}

/// Carries both directions until the program has ended, or its caller has ended its input and it
/// goes on for too long.
async fn converse(
    mut cell: Running,
    mut stdin: CellInput,
    mut input: ReplyStream<Vec<u8>>,
    clock: &Clock,
    replies: &Replies,
) -> Report {
    let read = relay(&mut cell, replies);
    // Apart from reading, so that a program that waits for room to write is still heard.
    let feed = async {
        while let Some(Ok(bytes)) = input.next().await {
            if stdin.write(&bytes).await.is_err() {
                // It has closed its input, which is its right. What it still says counts.
                return std::future::pending().await;
            }
        }
        drop(stdin);
        clock.sleep(SERVICE_GRACE).await;
    };
    let is_overdue = tokio::select! {
        () = read => false,
        () = feed => true,
    };
    if is_overdue {
        cell.kill();
    }
    cell.finish_by(clock.sleep(SERVICE_GRACE)).await
}

/// Streams the cell's output until everything in it has ended, by the deadline at the latest.
async fn follow(mut cell: Running, clock: &Clock, deadline: Moment, replies: &Replies) -> Report {
    // A consumer that doesn't read holds the output up, and the deadline ends that too.
    let in_time = clock.before(deadline, relay(&mut cell, replies)).await;
    if in_time.is_err() {
        cell.kill();
        let mut report = cell.finish().await;
        // What may still run has no other end.
        if !matches!(report.end, End::NotGone | End::LauncherLost) {
            report.end = End::WallTime;
        }
        return report;
    }
    cell.finish_by(clock.sleep_until(deadline)).await
}

/// Passes output on until there is no more, or nobody takes it.
async fn relay(cell: &mut Running, replies: &Replies) {
    while let Some(output) = cell.next().await {
        let (stream, bytes) = match output {
            Output::Stdout(bytes) => (Stream::Stdout, bytes),
            Output::Stderr(bytes) => (Stream::Stderr, bytes),
        };
        if !send(replies, &ExecEvent::Output { stream, bytes }).await {
            break;
        }
    }
}

/// Whether the consumer has taken it.
async fn send(replies: &Replies, event: &ExecEvent) -> bool {
    match Parcel::archive(event) {
        Ok(parcel) => replies.send(parcel).await.is_ok(),
        Err(_too_large) => false,
    }
}

fn refusal(error: &LaunchError) -> ExecRefused {
    match error {
        LaunchError::Program { path, source } => ExecRefused::Program {
            program: path.display().to_string(),
            problem: source.to_string(),
        },
        other => ExecRefused::Launch { code: other.code().to_owned(), message: told(other) },
    }
}

fn ended(report: &Report, start: Duration) -> Ended {
    let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    Ended {
        how: match report.end {
            End::Exited(status) => How::Exited(status),
            End::Signalled(signal) => How::Signalled(signal),
            End::WallTime => How::WallTime,
            End::OutputLimit => How::OutputLimit,
            End::Memory => How::Memory,
            End::CpuTime => How::CpuTime,
            End::FileSize => How::FileSize,
            End::ForeignCall => How::ForeignCall,
            End::NotGone => How::NotGone,
            End::Cancelled | End::Killed | End::LauncherLost => How::Killed,
        },
        stdout_truncated: report.truncated.stdout,
        stderr_truncated: report.truncated.stderr,
        user_ns: nanoseconds(report.usage.user),
        system_ns: nanoseconds(report.usage.system),
        peak_resident_bytes: report.usage.peak_resident_bytes,
        start_ns: nanoseconds(start),
        level: report.level.to_string(),
        layers: report.layers().iter().map(ToString::to_string).collect(),
        degraded: report.degraded.iter().map(ToString::to_string).collect(),
        denied: report.denials.iter().map(|denial| denial.call.clone()).collect(),
        peak_group_bytes: report.group.memory_peak_bytes.unwrap_or_default(),
        prepared: report.prepared,
        throttled_ns: report.group.throttled.map(nanoseconds),
        cpu_stalled_ns: report.group.cpu_stalled.map(nanoseconds),
        memory_stalled_ns: report.group.memory_stalled.map(nanoseconds),
        io_stalled_ns: report.group.io_stalled.map(nanoseconds),
        stages_ns: report.stages.iter().map(|(_, time)| nanoseconds(time)).collect(),
        egress_allowed: report.egress.as_ref().map_or(0, |egress| egress.allowed),
        egress_denied: report.egress.as_ref().map_or(0, |egress| egress.denied),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_level_that_is_shown_to_hold_runs_anything() {
        let code = |known| barred(known).map(|(code, _)| code);
        assert_eq!(code(Ok(Verdict::Holds)), None);
        let fails = Verdict::Fails { code: "breached", why: String::new() };
        assert_eq!(code(Ok(fails)), Some("breached"));
        assert_eq!(code(Ok(Verdict::Open)), Some("unproven"));
        // The attacks go on, and the time of whoever asked is over.
        let (attacks, verdict) = watch::channel(Verdict::Open);
        let clock = Clock::system();
        let late = clock.before(clock.now(), known(verdict.clone())).await;
        assert_eq!(code(late), Some("timeout"));
        drop(attacks);
        assert_eq!(code(Ok(known(verdict).await)), Some("unproven"), "they were interrupted");
    }
}
