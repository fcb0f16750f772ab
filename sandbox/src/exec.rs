//! The contract of the sandbox actor: a program to run in a cell, and what comes back.

mod older;

use neuroflow_kernel::{
    Message, Parcel, ParcelError, RawParcel, ReplySink, ReplyStream, Request, Rights, WireMessage,
    WireRequest,
};
use rkyv::{Archive, Serialize};

/// The right to run programs in cells.
pub const EXEC: Rights = Rights::bit(0);

/// The right to run services in cells: programs that are talked to for as long as both sides like.
pub const SERVE: Rights = Rights::bit(1);

/// A program to run. What it may do isn't here: the profile comes from the capability that the
/// request is sent through.
///
/// ```
/// use neuroflow_sandbox::Exec;
/// let exec = Exec::new(["uname", "-a"]);
/// assert_eq!(exec.command.len(), 2);
/// ```
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    /// The program, looked for in the cell's `PATH`, and its arguments.
    pub command: Vec<String>,
    /// What it reads.
    pub stdin: Vec<u8>,
}

impl Exec {
    /// A program that reads nothing.
    pub fn new<I: IntoIterator<Item: Into<String>>>(command: I) -> Self {
        Self { command: command.into_iter().map(Into::into).collect(), stdin: Vec::new() }
    }
}

impl WireMessage for Exec {
    const NAME: &'static str = "neuroflow.sandbox.exec";
    const VERSION: u16 = 1;
}

impl WireRequest for Exec {
    type Reply = ExecEvent;
}

/// One step of a running cell. The last one is `Ended` or `Refused`.
///
/// ```
/// use neuroflow_sandbox::{ExecEvent, Stream};
/// let event = ExecEvent::Output { stream: Stream::Stdout, bytes: b"hello\n".to_vec() };
/// assert!(!matches!(event, ExecEvent::Ended(_)));
/// ```
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub enum ExecEvent {
    /// The program has written something.
    Output {
        /// Where.
        stream: Stream,
        /// What.
        bytes: Vec<u8>,
    },
    /// Everything in the cell has ended.
    Ended(Ended),
    /// There was no cell.
    Refused(ExecRefused),
}

impl WireMessage for ExecEvent {
    const NAME: &'static str = "neuroflow.sandbox.exec-event";
    const VERSION: u16 = 3;

    fn upgrade(old: &RawParcel) -> Result<Self, ParcelError> {
        older::upgrade(old)
    }
}

/// Where a program writes.
///
/// ```
/// assert_ne!(neuroflow_sandbox::Stream::Stdout, neuroflow_sandbox::Stream::Stderr);
/// ```
#[derive(Archive, Serialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a cell ended, and what it cost.
///
/// ```
/// fn succeeded(ended: &neuroflow_sandbox::Ended) -> bool {
///     ended.how == neuroflow_sandbox::How::Exited(0)
/// }
/// ```
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Why.
    pub how: How,
    /// Whether bytes of standard output are missing.
    pub stdout_truncated: bool,
    /// Whether bytes of standard error are missing.
    pub stderr_truncated: bool,
    /// Processor time in user mode, in nanoseconds.
    pub user_ns: u64,
    /// Processor time in the kernel, in nanoseconds.
    pub system_ns: u64,
    /// Largest resident size of one process.
    pub peak_resident_bytes: u64,
    /// Time from the request to the program's first instruction, in nanoseconds.
    pub start_ns: u64,
    /// The level that it ran at.
    pub level: String,
    /// The layers that were in force.
    pub layers: Vec<String>,
    /// Layers of the level that weren't in force: the host could not give them, or, of the filter, the
    /// profile learns.
    pub degraded: Vec<String>,
    /// System calls that were refused, by name.
    pub denied: Vec<String>,
    /// Most memory at a time of the cell as a whole; 0 if nobody counted.
    pub peak_group_bytes: u64,
    /// Whether the cell was made ahead.
    pub prepared: bool,
    /// How long its threads stood still because of the processor limit, in nanoseconds. `None`, here and
    /// below: nobody counted.
    pub throttled_ns: Option<u64>,
    /// How long some thread waited for a processor, in nanoseconds.
    pub cpu_stalled_ns: Option<u64>,
    /// How long some thread waited for memory, in nanoseconds.
    pub memory_stalled_ns: Option<u64>,
    /// How long some thread waited for a disk, in nanoseconds.
    pub io_stalled_ns: Option<u64>,
    /// Time of each stage of the start, in the order of [`Stage::ALL`](crate::Stage::ALL), in
    /// nanoseconds.
    pub stages_ns: Vec<u64>,
    /// Requests that its proxy let out, if it had one.
    pub egress_allowed: u64,
    /// Requests that its proxy refused.
    pub egress_denied: u64,
}

/// The ways for a cell to end.
///
/// ```
/// assert_eq!(neuroflow_sandbox::How::WallTime.code(), "wall_time");
/// ```
#[derive(Archive, Serialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// The program ended with this status.
    Exited(i32),
    /// This signal ended the program.
    Signalled(i32),
    /// The profile's wall time or the request's deadline was over.
    WallTime,
    /// It wrote more than the profile allows.
    OutputLimit,
    /// Something outside of the cell ended it.
    Killed,
    /// The cell was out of memory.
    Memory,
    /// One of its processes had used its processor time up.
    CpuTime,
    /// It wrote a file past the limit.
    FileSize,
    /// It made a system call of another architecture.
    ForeignCall,
    /// It was killed, and processes of it may be left all the same.
    NotGone,
}

impl How {
    /// A stable word for metrics, spans and protocols.
    pub fn code(self) -> &'static str {
        match self {
            Self::Exited(_) => "exited",
            Self::Signalled(_) => "signalled",
            Self::WallTime => "wall_time",
            Self::OutputLimit => "output_limit",
            Self::Killed => "killed",
            Self::Memory => "memory",
            Self::CpuTime => "cpu_time",
            Self::FileSize => "file_size",
            Self::ForeignCall => "foreign_call",
            Self::NotGone => "not_gone",
        }
    }
}

/// Why there was no cell.
///
/// ```
/// use neuroflow_sandbox::ExecRefused;
/// assert_eq!(ExecRefused::EmptyCommand.code(), "empty_command");
/// ```
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExecRefused {
    /// The command names no program.
    #[error("command is empty; its first element is the program")]
    EmptyCommand,
    /// As many cells as may are running, and there is no place to wait.
    #[error("{cells} cells are running and as many requests wait as may")]
    Busy {
        /// How many.
        cells: u64,
    },
    /// The sandbox stops, and the request was still waiting.
    #[error("the sandbox is stopping")]
    Stopping,
    /// The program isn't there or can't be executed.
    #[error("command[0]: {program} could not be executed: {problem}")]
    Program {
        /// The program.
        program: String,
        /// Why.
        problem: String,
    },
    /// The host can't give what the profile's level promises, or failed to.
    #[error("{message}")]
    Launch {
        /// A stable word.
        code: String,
        /// What happened, and the remedy if there is one.
        message: String,
    },
}

impl ExecRefused {
    /// A stable word for metrics, spans and protocols.
    pub fn code(&self) -> &str {
        match self {
            Self::EmptyCommand => "empty_command",
            Self::Busy { .. } => "busy",
            Self::Stopping => "stopping",
            Self::Program { .. } => "program",
            Self::Launch { code, .. } => code,
        }
    }
}

/// A program that is talked to while it runs. Its profile is that of the capability, as
/// [`Profile::for_service`](crate::Profile::for_service) makes it. It doesn't cross nodes: its
/// streams are of this process.
///
/// ```
/// use neuroflow_kernel::{Address, Header, Refusal, reply_stream};
/// use neuroflow_sandbox::{SandboxCommand, Service};
/// async fn serve(sandbox: &Address<SandboxCommand>) -> Result<(), Refusal> {
///     let (to_program, input) = reply_stream();
///     let command = vec!["cat".to_owned()];
///     let serve = |events| SandboxCommand::Serve(Service { command, input, events });
///     let mut events = sandbox.stream(Header::new(), serve).await?;
///     to_program.send(b"hello".to_vec()).await.ok();
///     let _said = events.next().await;
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct Service {
    /// The program, looked for in the cell's `PATH`, and its arguments.
    pub command: Vec<String>,
    /// What it reads, piece by piece. When this ends, so does its standard input, and it gets
    /// [`limits::SERVICE_GRACE`](crate::limits::SERVICE_GRACE) to end by itself.
    pub input: ReplyStream<Vec<u8>>,
    /// Takes what it writes, and its end. Dropping the other side ends the cell.
    pub events: ReplySink<Parcel<ExecEvent>>,
}

/// What lies in the sandbox actor's mailbox.
///
/// ```
/// use neuroflow_kernel::Message;
/// fn label(command: &neuroflow_sandbox::SandboxCommand) -> &'static str {
///     command.name()
/// }
/// ```
#[derive(Debug)]
pub enum SandboxCommand {
    /// Run a program. Needs [`EXEC`]. Dropping the stream of events ends the cell.
    Exec(Request<Exec>),
    /// Run a service. Needs [`SERVE`]. The header's deadline is for its start, not for its life.
    Serve(Service),
}

impl Message for SandboxCommand {
    fn name(&self) -> &'static str {
        match self {
            Self::Exec(_) => "exec",
            Self::Serve(_) => "serve",
        }
    }

    fn required_rights(&self) -> Rights {
        match self {
            Self::Exec(_) => EXEC,
            Self::Serve(_) => SERVE,
        }
    }

    fn archive(&self) -> Option<RawParcel> {
        match self {
            Self::Exec(request) => request.archive(),
            Self::Serve(_) => None,
        }
    }
}

impl From<&ArchivedHow> for How {
    fn from(how: &ArchivedHow) -> Self {
        match how {
            ArchivedHow::Exited(status) => Self::Exited(status.to_native()),
            ArchivedHow::Signalled(signal) => Self::Signalled(signal.to_native()),
            ArchivedHow::WallTime => Self::WallTime,
            ArchivedHow::OutputLimit => Self::OutputLimit,
            ArchivedHow::Killed => Self::Killed,
            ArchivedHow::Memory => Self::Memory,
            ArchivedHow::CpuTime => Self::CpuTime,
            ArchivedHow::FileSize => Self::FileSize,
            ArchivedHow::ForeignCall => Self::ForeignCall,
            ArchivedHow::NotGone => Self::NotGone,
        }
    }
}

impl From<&ArchivedExecRefused> for ExecRefused {
    fn from(refused: &ArchivedExecRefused) -> Self {
        match refused {
            ArchivedExecRefused::EmptyCommand => Self::EmptyCommand,
            ArchivedExecRefused::Busy { cells } => Self::Busy { cells: cells.to_native() },
            ArchivedExecRefused::Stopping => Self::Stopping,
            ArchivedExecRefused::Program { program, problem } => {
                Self::Program { program: program.to_string(), problem: problem.to_string() }
            }
            ArchivedExecRefused::Launch { code, message } => {
                Self::Launch { code: code.to_string(), message: message.to_string() }
            }
        }
    }
}
