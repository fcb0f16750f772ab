//! The `exec` tool: a program in a cell.

use neuroflow_kernel::{Address, ParcelError, Refusal, Request, StreamError};
use neuroflow_sandbox::{
    ArchivedExecEvent, ArchivedHow, ArchivedStream, Exec, ExecRefused, Level, SandboxCommand,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::said::Said;
use super::{Tool, ToolContext, ToolError};
use crate::limits::EXEC_OUTPUT_BYTES;

/// Runs a program in a cell, with the profile of the capability that it holds.
///
/// ```
/// use neuroflow_actors::{ExecTool, Tool};
/// use neuroflow_kernel::Address;
/// use neuroflow_sandbox::{Level, SandboxCommand};
/// fn tool(sandbox: Address<SandboxCommand>) -> ExecTool {
///     ExecTool::new(sandbox, Level::Strict)
/// }
/// ```
#[derive(Clone, Debug)]
pub struct ExecTool {
    sandbox: Address<SandboxCommand>,
    level: Level,
}

impl ExecTool {
    /// The tool's name.
    pub const NAME: &'static str = "exec";

    /// With a capability to the sandbox, and the level of its profile, by which callers are judged.
    pub fn new(sandbox: Address<SandboxCommand>, level: Level) -> Self {
        Self { sandbox, level }
    }
}

/// The program to run.
///
/// ```
/// use neuroflow_actors::ExecArguments;
/// let arguments: ExecArguments = serde_json::from_str(r#"{"command":["id"]}"#)?;
/// assert_eq!(arguments.command, ["id"]);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(description = "The program to run.")]
pub struct ExecArguments {
    /// The program and its arguments; no shell in between.
    #[schemars(length(min = 1))]
    pub command: Vec<String>,
    /// What the program reads from standard input.
    #[serde(default)]
    pub stdin: String,
}

/// What the program wrote, and how it ended.
///
/// ```
/// fn succeeded(output: &neuroflow_actors::ExecOutput) -> bool {
///     output.exit_code == Some(0)
/// }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct ExecOutput {
    /// Why the cell ended: `exited`, `signalled`, `killed`, or the limit that ended it: `wall_time`,
    /// `output_limit`, `memory`, `cpu_time`, `file_size`.
    pub ended: String,
    /// The program's status, if it ended by itself.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Standard output; bytes that aren't UTF-8 are replaced.
    pub stdout: String,
    /// Standard error; bytes that aren't UTF-8 are replaced.
    pub stderr: String,
    /// Whether output is missing.
    pub truncated: bool,
    /// The level that the cell ran at.
    pub level: String,
    /// System calls that were refused, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub denied: Vec<String>,
}

/// Why a program didn't run to an end that could be reported.
#[derive(Debug, thiserror::Error)]
enum ExecError {
    #[error("the sandbox didn't take the request")]
    Sandbox(#[from] Refusal),
    #[error("the cell's events ended early")]
    Interrupted(#[from] StreamError),
    #[error("the request is too large")]
    Request(#[from] ParcelError),
}

impl Tool for ExecTool {
    type Arguments = ExecArguments;
    type Output = ExecOutput;

    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn description(&self) -> &'static str {
        "Runs a program in a sandbox cell: a private file system, no network unless it was \
         allowed, limits on time and output. Answers with what it wrote and how it ended."
    }

    fn level(&self) -> Option<Level> {
        Some(self.level)
    }

    async fn call(
        &self,
        arguments: ExecArguments,
        context: ToolContext,
    ) -> Result<ExecOutput, ToolError> {
        run(&self.sandbox, arguments, &context).await
    }
}

/// Runs a program, and waits for its end.
pub(super) async fn run(
    sandbox: &Address<SandboxCommand>,
    arguments: ExecArguments,
    context: &ToolContext,
) -> Result<ExecOutput, ToolError> {
    let exec = Exec { command: arguments.command, stdin: arguments.stdin.into_bytes() };
    let failed =
        |error: ExecError| ToolError::new("sandbox", "the program wasn't run").caused_by(error);
    let parcel = neuroflow_kernel::Parcel::archive(&exec).map_err(|error| failed(error.into()))?;
    let command = |replies| SandboxCommand::Exec(Request { parcel, replies });
    let header = context.header().clone();
    let stream = sandbox.stream(header, command).await;
    let mut events = stream.map_err(|refusal| failed(refusal.into()))?;

    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut room = EXEC_OUTPUT_BYTES;
    let mut cut = false;
    let mut said = Said::default();
    while let Some(event) = events.next().await {
        let event = event.map_err(|error| failed(error.into()))?;
        match event.get() {
            // The program runs on to its own end, also when nothing more of it is kept.
            ArchivedExecEvent::Output { stream, bytes } => {
                context.progress(said.more(stream, bytes));
                let kept = bytes.get(..room).unwrap_or(bytes);
                room -= kept.len();
                cut |= kept.len() < bytes.len();
                match stream {
                    ArchivedStream::Stdout => stdout.extend_from_slice(kept),
                    ArchivedStream::Stderr => stderr.extend_from_slice(kept),
                }
            }
            ArchivedExecEvent::Ended(ended) => {
                let mut output = ExecOutput {
                    stdout: String::from_utf8_lossy(&stdout).into_owned(),
                    stderr: String::from_utf8_lossy(&stderr).into_owned(),
                    truncated: cut || ended.stdout_truncated || ended.stderr_truncated,
                    level: ended.level.to_string(),
                    denied: ended.denied.iter().map(ToString::to_string).collect(),
                    ..ExecOutput::default()
                };
                output.describe(&ended.how);
                return Ok(output);
            }
            ArchivedExecEvent::Refused(refused) => {
                let refused = ExecRefused::from(refused);
                return Err(ToolError::new("refused", refused.to_string()).caused_by(refused));
            }
        }
    }
    Err(failed(StreamError::Interrupted.into()))
}

impl ExecOutput {
    fn describe(&mut self, how: &ArchivedHow) {
        match how {
            ArchivedHow::Exited(status) => self.exit_code = Some(status.to_native()),
            ArchivedHow::Signalled(signal) => self.signal = Some(signal.to_native()),
            ArchivedHow::WallTime
            | ArchivedHow::OutputLimit
            | ArchivedHow::Killed
            | ArchivedHow::Memory
            | ArchivedHow::CpuTime
            | ArchivedHow::FileSize
            | ArchivedHow::ForeignCall
            | ArchivedHow::NotGone => {}
        }
        neuroflow_sandbox::How::from(how).code().clone_into(&mut self.ended);
    }
}
