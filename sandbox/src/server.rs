//! The sandbox actor: admits requests, and has one supervised actor per cell, which owns it from the
//! launch to the end. Long, because the request, its admission and its cell's end share one state.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use neuroflow_kernel::{
    Actor, Clock, Context, Elapsed, Ended as ChildEnded, GrantId, Header, Message, Moment, Name,
    Parcel, RawParcel, ReplySink, ReplyStream, Request, SpanGuard, SpanKind, Spawn,
};

use tokio::sync::watch;

use crate::admission::{Admission, Bounds, Decision};
use crate::apart::apart;
use crate::error::LaunchError;
use crate::escape::{Suite, SuiteError};
use crate::exec::{Ended, Exec, ExecEvent, ExecRefused, How, SandboxCommand, Service, Stream};
use crate::interpreter::Interpreter;
use crate::launcher::{Launcher, Warm};
use crate::limits::{self, SERVICE_GRACE, SERVICE_START};
use crate::meter::{CellMeter, Uncounted};
use crate::output::Output;
use crate::profile::Profile;
use crate::program::Program;
use crate::report::{End, Report};
use crate::running::{CellInput, Running};

type Replies = ReplySink<Parcel<ExecEvent>>;

/// The sandbox as an actor.
///
/// It doesn't start on a host that can't give the profile's level. Requests that come while as many
/// cells run as may wait, each holder of a capability in a queue of its own.
///
/// ```
/// use neuroflow_kernel::ChildSpec;
/// use neuroflow_sandbox::{Level, Profile, SandboxServer, Warm};
/// let profile = Profile::builder(Level::Strict).build()?;
/// let (spec, _address) = ChildSpec::new("sandbox", move || {
///     let server = SandboxServer::new(profile.clone());
///     server.warm(Warm { least: 2, most: 16 }).cells(32, 256).actor()
/// })?;
/// assert_eq!(spec.name().as_str(), "sandbox");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct SandboxServer {
    profile: Profile,
    warm: Option<Warm>,
    interpreter: Option<(Interpreter, Warm)>,
    bounds: Bounds,
    meter: Arc<dyn CellMeter>,
    attack_first: bool,
}

impl SandboxServer {
    /// A sandbox whose cells have this profile, unless the capability that a request came through
    /// carries another [`Profile`] as its policy.
    pub fn new(profile: Profile) -> Self {
        let bounds = Bounds {
            running: limits::LIVE_CELLS,
            waiting: limits::WAITING_CELLS,
            waiting_each: limits::WAITING_CELLS / 4,
        };
        let meter = Arc::new(Uncounted);
        Self { profile, warm: None, interpreter: None, bounds, meter, attack_first: false }
    }

    /// Keeps cells of the profile ready.
    #[must_use]
    pub fn warm(mut self, warm: Warm) -> Self {
        self.warm = Some(warm);
        self
    }

    /// Keeps a Python interpreter running, and cells of the profile with forks of it ready. A command
    /// `python3 -I -B -c TEXT`, or with a script's path instead of `-c TEXT`, runs in such a fork.
    ///
    /// ```
    /// use neuroflow_sandbox::{Interpreter, Level, Profile, SandboxServer, Warm};
    /// let profile = Profile::builder(Level::Strict).build()?;
    /// let warm = Warm { least: 1, most: 4 };
    /// let server = SandboxServer::new(profile).interpreter(Interpreter::python(), warm);
    /// # Ok::<(), neuroflow_sandbox::ProfileError>(())
    /// ```
    #[must_use]
    pub fn interpreter(mut self, interpreter: Interpreter, warm: Warm) -> Self {
        self.interpreter = Some((interpreter, warm));
        self
    }

    /// How many cells run at a time, and how many requests may wait for one. One holder of a
    /// capability has a quarter of the places to wait, and at least one.
    #[must_use]
    pub fn cells(mut self, running: usize, waiting: usize) -> Self {
        let running = running.clamp(1, limits::MAX_CELLS);
        self.bounds = Bounds { running, waiting, waiting_each: waiting.div_ceil(4) };
        self
    }

    /// Who counts.
    #[must_use]
    pub fn meter(mut self, meter: Arc<dyn CellMeter>) -> Self {
        self.meter = meter;
        self
    }

    /// Puts another meter around the one that counts.
    #[must_use]
    pub fn meter_around(
        mut self,
        wrap: impl FnOnce(Arc<dyn CellMeter>) -> Arc<dyn CellMeter>,
    ) -> Self {
        self.meter = wrap(self.meter);
        self
    }

    /// Attacks the profile's level on this host with the quick part of the escape suite before the
    /// first program runs; what gets through ends the sandbox. Requests wait for it, a second at
    /// most. A profile that may do without layers is attacked without those that this host lacks.
    ///
    /// Every request is refused with the code `breached` if something got through, and with `unproven`
    /// if the attacks couldn't be made.
    #[must_use]
    pub fn attack_first(mut self, on: bool) -> Self {
        self.attack_first = on;
        self
    }

    /// What its cells may use.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Keeps ready what is to be.
    fn fill(&self, launcher: &Launcher) -> Result<(), LaunchError> {
        if let Some(warm) = self.warm {
            launcher.keep_warm(&self.profile, warm)?;
        }
        if let Some((interpreter, warm)) = &self.interpreter {
            launcher.keep_interpreter_warm(&self.profile, interpreter, *warm)?;
        }
        Ok(())
    }

    /// The actor.
    pub fn actor(self) -> SandboxActor {
        let admission = Admission::new(self.bounds);
        let owners = BTreeMap::new();
        let (server, launcher, verdict) = (self, None, None);
        SandboxActor { server, launcher, verdict, cells: 0, admission, owners }
    }
}

impl From<Profile> for SandboxServer {
    fn from(profile: Profile) -> Self {
        Self::new(profile)
    }
}

/// The running actor of a [`SandboxServer`].
///
/// ```
/// use neuroflow_sandbox::{Level, Profile, SandboxServer};
/// let profile = Profile::builder(Level::Minimal).build()?;
/// let _actor = SandboxServer::new(profile).actor();
/// # Ok::<(), neuroflow_sandbox::ProfileError>(())
/// ```
#[derive(Debug)]
pub struct SandboxActor {
    server: SandboxServer,
    launcher: Option<Launcher>,
    /// What the attacks have shown, if there were to be any.
    verdict: Option<watch::Receiver<Verdict>>,
    cells: u64,
    admission: Admission<GrantId, Waiting>,
    /// Whose the running cells are, by the names of their actors.
    owners: BTreeMap<Name, GrantId>,
}

/// What is known of the level.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// It is being attacked.
    Open,
    Holds,
    /// It doesn't hold, or nobody knows whether it does: which of the two, as a stable word, and why.
    Fails {
        code: &'static str,
        why: String,
    },
}

/// A request that may have to wait.
#[derive(Debug)]
struct Waiting {
    work: Work,
    profile: Profile,
    header: Header,
    arrived: Moment,
}

/// What is to be run.
#[derive(Debug)]
enum Work {
    Exec(Request<Exec>),
    Serve(Service),
}

impl Work {
    fn is_wanted(&self) -> bool {
        match self {
            Self::Exec(request) => !request.replies.is_closed(),
            Self::Serve(service) => !service.events.is_closed(),
        }
    }

    fn into_replies(self) -> Replies {
        match self {
            Self::Exec(request) => request.replies,
            Self::Serve(service) => service.events,
        }
    }
}

impl SandboxActor {
    async fn begin(&mut self, work: Work, context: &mut Context<SandboxCommand>) {
        let granted = context.grant().and_then(|grant| grant.policy::<Profile>());
        let profile = granted.unwrap_or(&self.server.profile).clone();
        let profile = match work {
            Work::Exec(_) => profile,
            Work::Serve(_) => profile.for_service(),
        };
        let owner = context.header().grant();
        let arrived = context.clock().now();
        let waiting = Waiting { work, profile, header: context.onward(), arrived };
        self.admission.retain(|waiting| waiting.work.is_wanted());
        match self.admission.offer(owner, waiting) {
            Decision::Start(waiting) => self.start(owner, waiting, context).await,
            Decision::Wait => {}
            Decision::Refuse(waiting) => {
                let cells = u64::try_from(self.admission.running()).unwrap_or(u64::MAX);
                self.server.meter.refused("busy");
                refuse(waiting.work.into_replies(), ExecRefused::Busy { cells });
            }
        }
        self.tell_load();
    }

    async fn start(
        &mut self,
        owner: GrantId,
        waiting: Waiting,
        context: &mut Context<SandboxCommand>,
    ) {
        self.cells += 1;
        let name = Name::new(format!("cell-{}", self.cells));
        let (Ok(name), Some(launcher)) = (name, self.launcher.clone()) else {
            return self.admission.ended(owner);
        };
        let Waiting { work, profile, header, arrived } = waiting;
        let meter = Arc::clone(&self.server.meter);
        let verdict = self.verdict.clone();
        let run = Run { launcher, profile, work, meter, arrived, verdict };
        let options = Spawn::default().mailbox(1).stop_within(CELL_STOP);
        match context.spawn(name.clone(), CellActor, options).await {
            Ok(actor) => {
                self.owners.insert(name, owner);
                // A fresh actor with room for one message takes it.
                let _taken = actor.try_tell(header, run);
            }
            Err(_stopping) => self.admission.ended(owner),
        }
    }

    fn tell_load(&self) {
        self.server.meter.load(self.admission.running(), self.admission.waiting());
    }
}

/// Time that a cell's actor gets to end when the sandbox stops; killing a cell takes less.
const CELL_STOP: Duration = Duration::from_millis(500);

/// Attacks the level of a profile, on its terms, and tells the verdict.
async fn attack(launcher: Launcher, profile: Profile, tell: watch::Sender<Verdict>) {
    let level = profile.level();
    let held = match Suite::prepare(&launcher) {
        Ok(suite) => suite.on_terms_of(&profile).hold(level).await,
        Err(error) => Err(error),
    };
    let verdict = match held {
        Ok(()) => Verdict::Holds,
        Err(error) => {
            let (code, why) = (error.code(), told(&error));
            if matches!(error, SuiteError::Breached { .. }) {
                tracing::error!(%level, %why, "the sandbox doesn't hold, and runs nothing");
            } else {
                tracing::error!(%level, %why, "the sandbox isn't shown to hold, and runs nothing");
            }
            Verdict::Fails { code, why }
        }
    };
    tell.send_replace(verdict);
}

impl Actor for SandboxActor {
    type Message = SandboxCommand;
    type Error = LaunchError;
    const KIND: &'static str = "sandbox";

    async fn started(&mut self, context: &mut Context<SandboxCommand>) -> Result<(), LaunchError> {
        let launcher = Launcher::start_async().await?;
        // A level that can't be had is an error now, not when the first program is to run.
        launcher.rehearse(&self.server.profile).await?;
        if self.server.attack_first {
            let (tell, verdict) = watch::channel(Verdict::Open);
            let attack = attack(launcher.clone(), self.server.profile.clone(), tell);
            self.verdict = context.task(attack).is_ok().then_some(verdict);
        }
        let (filler, server) = (launcher.clone(), self.server.clone());
        // Filters are compiled for it, which no other actor waits for.
        let filled = apart(move || Ok(server.fill(&filler)));
        filled.await??;
        self.launcher = Some(launcher);
        Ok(())
    }

    async fn handle(
        &mut self,
        command: SandboxCommand,
        context: &mut Context<SandboxCommand>,
    ) -> Result<(), LaunchError> {
        let work = match command {
            SandboxCommand::Exec(request) => Work::Exec(request),
            SandboxCommand::Serve(service) => Work::Serve(service),
        };
        self.begin(work, context).await;
        Ok(())
    }

    async fn child_ended(
        &mut self,
        ended: ChildEnded,
        context: &mut Context<SandboxCommand>,
    ) -> Result<(), LaunchError> {
        // Whoever asked has been told by the end of the reply stream.
        if let Some(owner) = self.owners.remove(&ended.name) {
            self.admission.ended(owner);
        }
        self.admission.retain(|waiting| waiting.work.is_wanted());
        while let Some((owner, waiting)) = self.admission.next() {
            self.start(owner, waiting, context).await;
        }
        self.tell_load();
        Ok(())
    }

    async fn stopping(&mut self, _context: &mut Context<SandboxCommand>) {
        for waiting in self.admission.drain() {
            refuse(waiting.work.into_replies(), ExecRefused::Stopping);
        }
    }
}

/// The one message of a cell's actor.
struct Run {
    launcher: Launcher,
    profile: Profile,
    work: Work,
    meter: Arc<dyn CellMeter>,
    arrived: Moment,
    verdict: Option<watch::Receiver<Verdict>>,
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

struct CellActor;

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
        let deadline = context.header().deadline();
        let span = context.span("cell", SpanKind::Client);
        let cell = context.path().to_string();
        run.work(&cell, &clock, deadline, span).await;
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
    async fn work(self, actor: &str, clock: &Clock, deadline: Option<Moment>, mut span: SpanGuard) {
        let Some((short, program)) = self.work.program() else {
            return refuse(self.work.into_replies(), ExecRefused::EmptyCommand);
        };
        span.rename(short.clone());
        span.set("process.executable.name", short);
        span.set("neuroflow.sandbox.level", self.profile.level().to_string());
        let (replies, input) = match self.work {
            Work::Exec(request) => (request.replies, None),
            Work::Serve(service) => (service.events, Some(service.input)),
        };
        let longest = match input {
            None => self.profile.longest(),
            // Its life has no end of ours; this is for its start.
            Some(_) => SERVICE_START,
        };
        let deadline = deadline.unwrap_or_else(|| clock.now() + longest);

        let (begun, meter) = (self.arrived, self.meter);
        if let Some(verdict) = self.verdict {
            let known = tokio::select! {
                biased;
                () = replies.closed() => return span.fail("cancelled"),
                known = clock.before(deadline, known(verdict)) => known,
            };
            if let Ok(Verdict::Fails { code, why }) = known {
                span.fail(code);
                meter.refused(code);
                let refused = ExecRefused::Launch { code: code.to_owned(), message: why };
                return refuse(replies, refused);
            }
        }
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
                meter.refused(error.code());
                return refuse(replies, refusal(&error));
            }
            Err(Elapsed) => {
                span.fail("timeout");
                meter.refused("timeout");
                let message = "the cell wasn't ready before the deadline".to_owned();
                return refuse(
                    replies,
                    ExecRefused::Launch { code: "timeout".to_owned(), message },
                );
            }
        };
        let start = clock.now().since(begun);
        meter.started(self.profile.level(), cell.is_prepared(), start);
        let arguments = program.arguments().iter().map(|argument| argument.to_string_lossy());
        let command: Vec<_> =
            std::iter::once(program.path().to_string_lossy()).chain(arguments).collect();
        let command: Vec<&str> = command.iter().map(AsRef::as_ref).collect();
        meter.began(actor, &self.profile, &command);
        let mut watch = Watch { meter: &*meter, actor, profile: &self.profile, end: None };
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
        span.set("neuroflow.sandbox.prepared", report.prepared);
        if !report.denials.is_empty() {
            let calls: Vec<&str> =
                report.denials.iter().map(|denial| denial.call.as_str()).collect();
            span.set("neuroflow.sandbox.denied", calls.join(","));
        }
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
    let read = async {
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
        other => ExecRefused::Launch { code: other.code().to_owned(), message: told(other) },
    }
}

/// An error and its causes in one line.
fn told(error: &dyn Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        message.push_str(": ");
        message.push_str(&error.to_string());
        cause = error.source();
    }
    message
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
