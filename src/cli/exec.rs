//! `neuroflow exec`: a program in a cell, as if it were run from the shell.
//!
//! The exit code is the program's; what isn't the program's doing has the codes that shells and
//! `timeout` have taught people: 124, 125, 126, 127, 128 and the signal.

mod report;
mod wishes;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use neuroflow::Level;
use neuroflow::kernel::{Clock, Elapsed, Moment};
use neuroflow::sandbox::limits::MAX_STDIN_BYTES;
use neuroflow::sandbox::{
    End, LaunchError, Launcher, LauncherError, Output, Profile, Program, Report, Running,
};
use neuroflow_telemetry::logs::LogError;
use tokio::task::{JoinError, JoinHandle};

use self::report::ExecReport;
pub(super) use self::wishes::WishError;
use self::wishes::Wishes;
use super::signal::{Caught, Signals};
use super::{Globals, telemetry};
use crate::config::{ConfigError, Overrides, level, levels, parse_duration};

/// Runs a program in a cell and passes its output and exit code on.
///
/// Exit codes: the program's own; 124 if its time was over; 125 if there was no cell or its output
/// was too much; 126 if the program can't be executed; 127 if it isn't there; 128 and the signal's
/// number if a signal ended it.
#[derive(Args, Debug)]
pub(super) struct Exec {
    /// How much stands between the program and this host; `sandbox.level` unless it's given
    #[arg(long, value_parser = level_parser())]
    level: Option<Level>,
    /// Time that the program may take, such as 10s; `sandbox.wall_time` unless it's given
    #[arg(long, value_name = "DURATION", value_parser = |text: &str| parse_duration(text))]
    timeout: Option<Duration>,
    /// Print one JSON report with output and end, instead of passing the output on
    #[arg(long)]
    json: bool,
    /// Let the program reach this host, through the cell's proxy, by HTTPS or at the port; may be
    /// given several times
    #[arg(long, value_name = "HOST[:PORT]")]
    allow: Vec<String>,
    /// Show a file or directory of this host at the same path, read-only; may be given several times
    #[arg(long, value_name = "PATH")]
    bind_ro: Vec<PathBuf>,
    /// Show a directory of this host as the working directory; what is written there is listed at the
    /// end, and thrown away unless --apply is given
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "json")]
    project: Option<PathBuf>,
    /// Make the changes in the project, if the program ended by itself with success and none of them
    /// is refused
    #[arg(long, requires = "project")]
    apply: bool,
    /// Allow the system calls of this profile instead of the level's
    #[arg(long, value_name = "FILE")]
    seccomp: Option<PathBuf>,
    /// Watch which system calls the program makes, and write the smallest profile that allows them.
    /// Nothing is refused meanwhile: for trusted programs only
    #[arg(long, value_name = "FILE", conflicts_with = "seccomp")]
    learn: Option<PathBuf>,
    #[command(flatten)]
    settings: Overrides,
    /// The program and its arguments; standard input is passed unless it's a terminal
    #[arg(required = true, last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(super) fn level_parser() -> impl TypedValueParser<Value = Level> {
    let names = levels().map(|level| level.to_string());
    PossibleValuesParser::new(names).try_map(|name| level(&name).ok_or(UnknownLevel))
}

/// The parser before has let a word through that isn't a level.
#[derive(Debug, thiserror::Error)]
#[error("there is no such level")]
struct UnknownLevel;

/// Why there was no cell, or its output couldn't be passed on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum ExecError {
    /// The configuration isn't valid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A flag can't be done.
    #[error(transparent)]
    Wish(#[from] WishError),
    /// The log can't be set up.
    #[error("the log can't be set up; change log.filter")]
    Log(#[from] LogError),
    /// There is no runtime, or signals can't be caught.
    #[error("the system refused threads or signals; raise the limit of processes (ulimit -u)")]
    System(#[source] io::Error),
    /// Standard input can't be read.
    #[error("standard input can't be read; redirect it from /dev/null if it isn't needed")]
    Input(#[source] io::Error),
    /// The reader of standard input has panicked.
    #[error("standard input can't be read; redirect it from /dev/null if it isn't needed")]
    Reader(#[from] JoinError),
    /// Standard input is too long.
    #[error(
        "standard input has more than {MAX_STDIN_BYTES} bytes; put the data in a file and bind it into the cell"
    )]
    InputTooLong,
    /// Standard input didn't end.
    #[error(
        "standard input didn't end before the program's time was over; redirect it from /dev/null \
         if it isn't needed, or give more time with --timeout"
    )]
    InputOpen(#[source] Elapsed),
    /// There is no launcher.
    #[error("the sandbox can't be started; run `neuroflow doctor` to see why")]
    Launcher(#[from] LauncherError),
    /// The cell didn't start.
    #[error("the program wasn't started; {}", advice(.0))]
    Launch(#[from] LaunchError),
    /// Its time was over before it began.
    #[error("the program's time was over before its cell was ready; give more with --timeout")]
    TooShort(#[source] LaunchError),
    /// It wrote too much.
    #[error("the program was ended because it wrote more than {most} bytes; raise sandbox.output")]
    OutputLimit { most: u64 },
    /// It ran into another limit.
    #[error("the program was ended: {what}")]
    Limit { what: Limit, code: u8 },
    /// The launcher died.
    #[error("the cell was lost with its launcher; try again")]
    Lost,
    /// It was killed, and doesn't end.
    #[error("the cell was killed and isn't gone: processes of it may be left")]
    NotGone,
    /// The report can't be written as JSON.
    #[error("the report can't be written")]
    Report(#[from] serde_json::Error),
    /// The output can't be written.
    #[error("the program's output can't be written; redirect it to where there is room")]
    Output(#[source] io::Error),
}

/// A limit that ended a program, and the setting that raises it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Limit {
    Memory,
    CpuTime,
    FileSize,
    ForeignCall,
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Memory => "its cell was out of memory; raise sandbox.memory",
            Self::CpuTime => "it had used its processor time up; raise sandbox.wall_time",
            Self::FileSize => "it wrote a file past the limit; raise sandbox.file_size",
            Self::ForeignCall => "it made a system call of another architecture",
        })
    }
}

fn advice(error: &LaunchError) -> &'static str {
    match error {
        LaunchError::Program { .. } => "name a program that is there inside the cell",
        LaunchError::Unavailable { .. } => "run `neuroflow doctor`, or choose another --level",
        _ => "run `neuroflow doctor`, or try again",
    }
}

/// How long a reader gets for what is left of a program that didn't end by itself. One that reads takes it at
/// once.
const LAST_OUTPUT_WAIT: Duration = Duration::from_secs(1);
/// The program's time was over, as `timeout` says it.
const TIMED_OUT: u8 = 124;
/// Neither the program's fault nor its merit, as `timeout` says it.
const OWN_FAILURE: u8 = 125;
/// The program is there and can't be executed, as shells say it.
const NOT_EXECUTABLE: u8 = 126;
/// The program isn't there, as shells say it.
const NOT_FOUND: u8 = 127;
/// The reader of the output has gone, as shells say it: ended by SIGPIPE.
const NOBODY_READS: u8 = 141;
/// Added to the number of the signal that ended it, as shells say it.
const SIGNAL_BASE: i32 = 128;
/// The signals by which a kernel enforces limits, as Linux numbers them.
const SIGXCPU: i32 = 24;
const SIGXFSZ: i32 = 25;
const SIGSYS: i32 = 31;
/// `ENOENT` and `ENOTDIR`, the errors of a path that leads nowhere.
const NOWHERE: [i32; 2] = [2, 20];

impl ExecError {
    /// Whether whoever read the output has gone, which needs no words.
    pub(super) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Launch(LaunchError::Program { source, .. })
                if NOWHERE.contains(&source.raw()) =>
            {
                NOT_FOUND
            }
            Self::Launch(LaunchError::Program { .. }) => NOT_EXECUTABLE,
            Self::TooShort(_) | Self::InputOpen(_) => TIMED_OUT,
            Self::Limit { code, .. } => *code,
            _ if self.is_broken_pipe() => NOBODY_READS,
            _ => OWN_FAILURE,
        }
    }
}

impl Exec {
    pub(super) fn run(self, globals: Globals<'_>) -> Result<u8, ExecError> {
        let mut settings = self.settings;
        if let Some(level) = self.level {
            settings.set("sandbox.level", level.to_string());
        }
        if let Some(timeout) = self.timeout {
            settings.set("sandbox.wall_time", format!("{}ms", timeout.as_millis()));
        }
        let loaded = globals.load(&settings)?;
        let _log = telemetry::quiet_log(&loaded)?;
        let wishes = Wishes {
            allow: self.allow,
            bind_ro: self.bind_ro,
            project: self.project,
            apply: self.apply,
            seccomp: self.seccomp,
            learn: self.learn,
        };
        let profile = wishes.profile(&loaded)?;
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().map_err(ExecError::System)?;
        let work = execute(&profile, self.command, self.json, &wishes, globals.clock);
        let ended = runtime.block_on(work);
        // A reader that waits for the rest of standard input must not hold the exit up.
        runtime.shutdown_background();
        ended
    }
}

async fn execute(
    profile: &Profile,
    command: Vec<OsString>,
    json: bool,
    wishes: &Wishes,
    clock: &Clock,
) -> Result<u8, ExecError> {
    let mut signals = Signals::catch().map_err(ExecError::System)?;
    let launcher = Launcher::start_async().await?;
    let mut command = command.into_iter();
    let program = Program::new(command.next().unwrap_or_default()).args(command);
    let input = tokio::select! {
        input = read_input(profile.longest(), clock) => input?,
        caught = signals.next() => return Ok(caught.exit_code()),
    };
    let program = program.stdin(input);
    let launched = tokio::select! {
        launched = launcher.launch(profile, &program) => launched,
        caught = signals.next() => return Ok(caught.exit_code()),
    };
    let cell = launched.map_err(|error| match error {
        // The wall time counts from the launch on, and ends a cell that isn't ready yet as well.
        LaunchError::Overdue => ExecError::TooShort(error),
        other => other.into(),
    })?;
    let mut sink = Sink { kept: json.then(ExecReport::default), writing: None };
    let mut cell = cell;
    let overlay = cell.overlay();
    let (report, mut caught) = follow(cell, &mut signals, &mut sink, clock).await?;
    wishes.finish(&report, caught, overlay)?;
    if let Some(kept) = sink.kept.take() {
        sink.begin(io::stdout().as_fd(), kept.text(&report)?.into_bytes())?;
        tokio::select! {
            written = sink.written() => written?,
            signal = signals.next() => caught = caught.or(Some(signal)),
        }
    }
    if let Some(caught) = caught {
        return Ok(caught.exit_code());
    }
    exit_code(&report, profile, json)
}

/// All of standard input, unless it's a terminal. The wait for its end counts as the program's.
async fn read_input(longest: Duration, clock: &Clock) -> Result<Vec<u8>, ExecError> {
    if io::stdin().is_terminal() {
        return Ok(Vec::new());
    }
    let read = tokio::task::spawn_blocking(|| {
        let most = u64::try_from(MAX_STDIN_BYTES).unwrap_or(u64::MAX);
        let mut input = Vec::new();
        io::stdin().lock().take(most.saturating_add(1)).read_to_end(&mut input).map(|_| input)
    });
    let read = clock.before(clock.now() + longest, read).await.map_err(ExecError::InputOpen)?;
    let input = read?.map_err(ExecError::Input)?;
    if input.len() > MAX_STDIN_BYTES { Err(ExecError::InputTooLong) } else { Ok(input) }
}

/// Where output goes: on, or into the report. One piece at a time is on its way, written by a thread that may
/// wait for its reader, so that this one still hears of signals and of the cell's end.
#[derive(Debug, Default)]
struct Sink {
    kept: Option<ExecReport>,
    writing: Option<JoinHandle<io::Result<()>>>,
}

impl Sink {
    fn take(&mut self, output: Output) -> Result<(), ExecError> {
        match (&mut self.kept, output) {
            (Some(kept), output) => kept.keep(output),
            (None, Output::Stdout(bytes)) => self.begin(io::stdout().as_fd(), bytes)?,
            (None, Output::Stderr(bytes)) => self.begin(io::stderr().as_fd(), bytes)?,
        }
        Ok(())
    }

    /// To the descriptor itself: a thread that waits holds nothing that somebody else needs at the end.
    fn begin(&mut self, to: BorrowedFd<'_>, bytes: Vec<u8>) -> Result<(), ExecError> {
        let mut to = File::from(to.try_clone_to_owned().map_err(ExecError::Output)?);
        self.writing = Some(tokio::task::spawn_blocking(move || to.write_all(&bytes)));
        Ok(())
    }

    /// The end of the write that is on its way; never, if none is. Cancel safe.
    async fn written(&mut self) -> Result<(), ExecError> {
        let Some(writing) = &mut self.writing else { return std::future::pending().await };
        let written = writing.await;
        self.writing = None;
        written
            .map_err(|panicked| ExecError::Output(io::Error::other(panicked)))?
            .map_err(ExecError::Output)
    }
}

/// What the cell has next: a piece of output, unless one is being written, or its end.
async fn step(cell: &mut Running, is_writing: bool, is_gone: bool) -> Step {
    match (is_writing, is_gone) {
        (false, _) => Step::Output(cell.next().await),
        (true, false) => Step::Gone(cell.gone().await),
        (true, true) => std::future::pending().await,
    }
}

/// What a cell has next.
#[derive(Debug)]
enum Step {
    Output(Option<Output>),
    Gone(End),
}

/// Passes output on until the cell has ended, which a signal makes happen. A program that ended by itself is
/// heard out, however slow its reader is.
async fn follow(
    mut cell: Running,
    signals: &mut Signals,
    sink: &mut Sink,
    clock: &Clock,
) -> Result<(Report, Option<Caught>), ExecError> {
    let (mut caught, mut is_gone, mut last) = (None, false, None);
    loop {
        let is_writing = sink.writing.is_some();
        tokio::select! {
            biased;
            signal = signals.next(), if caught.is_none() => {
                caught = Some(signal);
                cell.kill();
                last = last.or(Some(clock.now() + LAST_OUTPUT_WAIT));
            }
            written = sink.written(), if is_writing => written?,
            () = moment(clock, last) => break,
            step = step(&mut cell, is_writing, is_gone) => match step {
                Step::Output(None) => break,
                // Dropping the cell ends the program, as SIGPIPE would.
                Step::Output(Some(output)) => sink.take(output)?,
                Step::Gone(end) => {
                    is_gone = true;
                    if !matches!(end, End::Exited(_) | End::Signalled(_)) {
                        last = last.or(Some(clock.now() + LAST_OUTPUT_WAIT));
                    }
                }
            },
        }
    }
    // A program may close its output and go on.
    let report = if caught.is_some() {
        cell.finish().await
    } else {
        let interrupted = async { caught = Some(signals.next().await) };
        cell.finish_by(interrupted).await
    };
    Ok((report, caught))
}

/// Until then; for ever, if that isn't known.
async fn moment(clock: &Clock, at: Option<Moment>) {
    match at {
        Some(at) => clock.sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn exit_code(report: &Report, profile: &Profile, json: bool) -> Result<u8, ExecError> {
    let low = |code: i32| u8::try_from(code & 0xff).unwrap_or(OWN_FAILURE);
    match report.end {
        End::Exited(status) => Ok(low(status)),
        End::Signalled(signal) => Ok(low(SIGNAL_BASE + signal)),
        End::WallTime => Ok(TIMED_OUT),
        // The report has said it already.
        End::OutputLimit if json => Ok(OWN_FAILURE),
        End::OutputLimit => Err(ExecError::OutputLimit { most: profile.output_bytes() }),
        // The signals that the kernel enforces them by.
        End::Memory => limit(Limit::Memory, low(SIGNAL_BASE + 9), json),
        End::CpuTime => limit(Limit::CpuTime, low(SIGNAL_BASE + SIGXCPU), json),
        End::FileSize => limit(Limit::FileSize, low(SIGNAL_BASE + SIGXFSZ), json),
        End::ForeignCall => limit(Limit::ForeignCall, low(SIGNAL_BASE + SIGSYS), json),
        // SIGKILL from outside of the cell.
        End::Cancelled | End::Killed => Ok(low(SIGNAL_BASE + 9)),
        End::NotGone => Err(ExecError::NotGone),
        _ => Err(ExecError::Lost),
    }
}

/// The JSON report has said it already.
fn limit(what: Limit, code: u8, json: bool) -> Result<u8, ExecError> {
    if json { Ok(code) } else { Err(ExecError::Limit { what, code }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use neuroflow::sandbox::Errno;

    #[test]
    fn a_program_that_is_not_there_is_told_from_one_that_cannot_run() {
        let code = |errno| {
            let source = Errno::from_raw(errno);
            ExecError::from(LaunchError::Program { path: "x".into(), source }).exit_code()
        };
        assert_eq!((code(2), code(13), code(8)), (127, 126, 126));
        assert_eq!(ExecError::from(LaunchError::LauncherLost).exit_code(), 125);
    }
}
