//! The `python` tool: a Python program in a cell.

use neuroflow_kernel::Address;
use neuroflow_sandbox::{Level, SandboxCommand};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::exec::{ExecArguments, ExecOutput, run};
use super::{Tool, ToolContext, ToolError};

/// Runs Python code in a cell, with the profile of the capability that it holds: in a fork of a warm
/// interpreter where the sandbox keeps one.
///
/// ```
/// use neuroflow_actors::{PythonTool, Tool};
/// use neuroflow_kernel::Address;
/// use neuroflow_sandbox::{Level, SandboxCommand};
/// fn tool(sandbox: Address<SandboxCommand>) -> PythonTool {
///     PythonTool::new(sandbox, Level::Strict)
/// }
/// ```
#[derive(Clone, Debug)]
pub struct PythonTool {
    sandbox: Address<SandboxCommand>,
    level: Level,
}

impl PythonTool {
    /// The tool's name.
    pub const NAME: &'static str = "python";

    /// With a capability to the sandbox, and the level of its profile, by which callers are judged.
    pub fn new(sandbox: Address<SandboxCommand>, level: Level) -> Self {
        Self { sandbox, level }
    }
}

/// The code to run.
///
/// ```
/// use neuroflow_actors::PythonArguments;
/// let arguments: PythonArguments = serde_json::from_str(r#"{"code":"print(6 * 7)"}"#)?;
/// assert_eq!(arguments.code, "print(6 * 7)");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(description = "The code to run.")]
pub struct PythonArguments {
    /// A program for Python 3, which prints what it has to say.
    #[schemars(length(min = 1))]
    pub code: String,
    /// What the program reads from standard input.
    #[serde(default)]
    pub stdin: String,
}

impl Tool for PythonTool {
    type Arguments = PythonArguments;
    type Output = ExecOutput;

    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn description(&self) -> &'static str {
        "Runs Python 3 code in a sandbox cell: a private file system, no network unless it was \
         allowed, limits on time and output. Answers with what it printed and how it ended."
    }

    fn level(&self) -> Option<Level> {
        Some(self.level)
    }

    async fn call(
        &self,
        arguments: PythonArguments,
        context: ToolContext,
    ) -> Result<ExecOutput, ToolError> {
        let PythonArguments { code, stdin } = arguments;
        let flags = ["python3", "-I", "-B", "-c"].map(str::to_owned);
        let command = flags.into_iter().chain([code]).collect();
        run(&self.sandbox, ExecArguments { command, stdin }, &context).await
    }
}
