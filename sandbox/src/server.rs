//! The sandbox actor: one supervised actor per cell, which owns it from the launch to the end.

use std::convert::Infallible;
use std::error::Error;
use std::time::Duration;

use neuroflow_kernel::{
    Actor, Clock, Context, Elapsed, Ended as ChildEnded, Message, Moment, Name, Parcel, RawParcel,
    ReplySink, Request, SpanGuard, SpanKind, Spawn,
};

use crate::cell::{Cell, Output};
use crate::error::{LaunchError, LauncherError};
use crate::exec::{Ended, Exec, ExecEvent, ExecRefused, How, SandboxCommand, Stream};
use crate::launcher::Launcher;
use crate::limits::LIVE_CELLS;
use crate::profile::Profile;
use crate::program::Program;
use crate::report::{End, Report};

type Replies = ReplySink<Parcel<ExecEvent>>;

/// The sandbox as an actor.
///
/// ```
/// use neuroflow_kernel::ChildSpec;
/// use neuroflow_sandbox::{Level, Profile, SandboxServer};
/// let profile = Profile::builder(Level::Standard).build()?;
/// let (spec, _address) =
///     ChildSpec::new("sandbox", move || SandboxServer::new(profile.clone()))?;
/// assert_eq!(spec.name().as_str(), "sandbox");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SandboxServer {
    profile: Profile,
    launcher: Option<Launcher>,
    cells: u64,
}

impl SandboxServer {
    /// A sandbox whose cells have this profile, unless the capability that a request came through
    /// carries another [`Profile`] as its policy.
    pub fn new(profile: Profile) -> Self {
        Self { profile, launcher: None, cells: 0 }
    }

    async fn begin(&mut self, request: Request<Exec>, context: &mut Context<SandboxCommand>) {
        let Request { parcel, replies } = request;
        let Some(launcher) = self.launcher.clone() else { return };
        let live = context.child_count();
        if live >= LIVE_CELLS {
            let cells = u64::try_from(live).unwrap_or(u64::MAX);
            return refuse(replies, ExecRefused::Busy { cells });
        }
        self.cells += 1;
        let Ok(name) = Name::new(format!("cell-{}", self.cells)) else { return };
        let granted = context.grant().and_then(|grant| grant.policy::<Profile>());
        let profile = granted.unwrap_or(&self.profile).clone();
        let header = context.onward();
        let run = Run { launcher, profile, parcel, replies };
        let options = Spawn::default().mailbox(1).stop_within(CELL_STOP);
        if let Ok(actor) = context.spawn(name, CellActor, options).await {
            // A fresh actor with room for one message takes it.
            let _taken = actor.try_tell(header, run);
        }
    }
}

/// Time that a cell's actor gets to end when the sandbox stops; killing a cell takes less.
const CELL_STOP: Duration = Duration::from_millis(500);

impl Actor for SandboxServer {
    type Message = SandboxCommand;
    type Error = LauncherError;
    const KIND: &'static str = "sandbox";

    async fn started(
        &mut self,
        _context: &mut Context<SandboxCommand>,
    ) -> Result<(), LauncherError> {
        self.launcher = Some(Launcher::start()?);
        Ok(())
    }

    async fn handle(
        &mut self,
        command: SandboxCommand,
        context: &mut Context<SandboxCommand>,
    ) -> Result<(), LauncherError> {
        let SandboxCommand::Exec(request) = command;
        self.begin(request, context).await;
        Ok(())
    }

    async fn child_ended(
        &mut self,
        _ended: ChildEnded,
        _context: &mut Context<SandboxCommand>,
    ) -> Result<(), LauncherError> {
        // Whoever asked has been told by the end of the reply stream.
        Ok(())
    }
}

/// The one message of a cell's actor.
struct Run {
    launcher: Launcher,
    profile: Profile,
    parcel: Parcel<Exec>,
    replies: Replies,
}

impl Message for Run {
    fn name(&self) -> &'static str {
        "run"
    }

    fn archive(&self) -> Option<RawParcel> {
        Some(self.parcel.as_raw().clone())
    }
}

struct CellActor;

impl Actor for CellActor {
    type Message = Run;
    type Error = Infallible;
    const KIND: &'static str = "cell";

    async fn handle(&mut self, run: Run, context: &mut Context<Run>) -> Result<(), Infallible> {
        let clock = context.clock().clone();
        let deadline = context.header().deadline();
        let span = context.span("cell", SpanKind::Client);
        run.work(&clock, deadline, span).await;
        context.stop();
        Ok(())
    }
}

impl Run {
    async fn work(self, clock: &Clock, deadline: Option<Moment>, mut span: SpanGuard) {
        let exec = self.parcel.get();
        let Some((program, arguments)) = exec.command.split_first() else {
            return refuse(self.replies, ExecRefused::EmptyCommand);
        };
        let short = program.rsplit('/').next().unwrap_or(program).to_owned();
        span.rename(short.clone());
        span.set("process.executable.name", short);
        span.set("neuroflow.sandbox.level", self.profile.level().to_string());
        let program = Program::new(program.as_str())
            .args(arguments.iter().map(rkyv::string::ArchivedString::as_str))
            .stdin(exec.stdin.to_vec());
        let deadline = deadline.unwrap_or_else(|| clock.now() + self.profile.longest());

        let replies = self.replies;
        let begun = clock.now();
        let launch = clock.before(deadline, self.launcher.launch(&self.profile, &program));
        let launched = tokio::select! {
            biased;
            () = replies.closed() => return span.fail("cancelled"),
            launched = launch => launched,
        };
        let cell = match launched {
            Ok(Ok(cell)) => cell,
            Ok(Err(error)) => {
                span.fail(error.code());
                return refuse(replies, refusal(&error));
            }
            Err(Elapsed) => {
                span.fail("timeout");
                let message = "the cell wasn't ready before the deadline".to_owned();
                return refuse(
                    replies,
                    ExecRefused::Launch { code: "timeout".to_owned(), message },
                );
            }
        };
        let start = clock.now().since(begun);
        // Dropping the future drops the cell, which ends everything in it.
        let report = tokio::select! {
            biased;
            () = replies.closed() => return span.fail("cancelled"),
            report = follow(cell, clock, deadline, &replies) => report,
        };
        let ended = ended(&report, start);
        match ended.how {
            How::Exited(status) => {
                span.set("process.exit.code", i64::from(status));
                if status != 0 {
                    span.fail("exit");
                }
            }
            other => span.fail(other.code()),
        }
        if send(&replies, &ExecEvent::Ended(ended)).await {
            replies.finish();
        }
    }
}

/// Streams the cell's output until everything in it has ended, by the deadline at the latest.
async fn follow(mut cell: Cell, clock: &Clock, deadline: Moment, replies: &Replies) -> Report {
    let stream = async {
        while let Some(output) = cell.next().await {
            let (stream, bytes) = match output {
                Output::Stdout(bytes) => (Stream::Stdout, bytes),
                Output::Stderr(bytes) => (Stream::Stderr, bytes),
            };
            if !send(replies, &ExecEvent::Output { stream, bytes }).await {
                break;
            }
        }
    };
    // A consumer that doesn't read holds the output up, and the deadline ends that too.
    let in_time = clock.before(deadline, stream).await;
    if in_time.is_err() {
        cell.kill();
        let mut report = cell.finish().await;
        report.end = End::WallTime;
        return report;
    }
    cell.finish_by(clock.sleep_until(deadline)).await
}

/// Whether the consumer has taken it.
async fn send(replies: &Replies, event: &ExecEvent) -> bool {
    match Parcel::archive(event) {
        Ok(parcel) => replies.send(parcel).await.is_ok(),
        Err(_too_large) => false,
    }
}

fn refuse(replies: Replies, refused: ExecRefused) {
    if let Ok(parcel) = Parcel::archive(&ExecEvent::Refused(refused))
        && replies.try_send(parcel).is_ok()
    {
        replies.finish();
    }
}

fn refusal(error: &LaunchError) -> ExecRefused {
    match error {
        LaunchError::Program { path, source } => ExecRefused::Program {
            program: path.display().to_string(),
            problem: source.to_string(),
        },
        other => {
            let mut message = other.to_string();
            let mut cause = other.source();
            while let Some(error) = cause {
                message.push_str(": ");
                message.push_str(&error.to_string());
                cause = error.source();
            }
            ExecRefused::Launch { code: other.code().to_owned(), message }
        }
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
    }
}
