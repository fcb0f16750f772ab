//! `shell`: runs a command in a cell and answers with its output.

use serde::Serialize;

use crate::agent::{
    Agent, AgentError, AgentProfile, Answer, Artifact, Content, Incoming, InputProblem, Part,
    TaskContext,
};
use crate::tools::{ExecArguments, ExecOutput, ExecTool, ToolResult};

/// An agent that runs a command in a cell.
///
/// A text is a line for `/bin/sh`; a JSON part such as `{"command": ["id", "-u"]}` is a program and
/// its arguments. The artifact `output` has what was written as text, and a JSON part that says how
/// the program ended.
///
/// ```
/// use neuroflow_actors::{Agent, Shell};
/// assert_eq!(Shell.shared_tools(), ["exec"]);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Shell;

impl Agent for Shell {
    fn profile(&self) -> AgentProfile {
        let mut profile = AgentProfile::new(
            "shell",
            "Runs a shell command in a sandbox cell and answers with its output.",
        );
        profile.skills[0].examples = vec!["uname -a; id".to_owned()];
        profile.input_modes.push("application/json".to_owned());
        profile.output_modes.push("application/json".to_owned());
        profile
    }

    fn shared_tools(&self) -> Vec<String> {
        vec![ExecTool::NAME.to_owned()]
    }

    async fn run(&self, ask: Incoming, context: TaskContext) -> Result<Answer, AgentError> {
        let line = |line| {
            let command = vec!["/bin/sh".to_owned(), "-c".to_owned(), line];
            ExecArguments { command, stdin: String::new() }
        };
        let arguments = arguments(&ask, line)?;
        answer(context.call(ExecTool::NAME, arguments).await?)
    }
}

/// What a program wrote, and how it ended.
pub(super) fn answer(result: ToolResult) -> Result<Answer, AgentError> {
    let report = result.text();
    let output: ExecOutput = result.into().map_err(|error| AgentError::Tool(error.into()))?;
    let mut text = output.stdout;
    text.push_str(&output.stderr);
    let parts = vec![Part::from(Content::Text(text)), Part::from(Content::Json(report))];
    Ok(Answer::artifact(Artifact::new("output", parts)))
}

/// The arguments of a tool: the JSON that was said, or what `of_text` makes of a text.
pub(super) fn arguments<T: Serialize>(
    ask: &Incoming,
    of_text: impl FnOnce(String) -> T,
) -> Result<serde_json::Value, AgentError> {
    let invalid = |problem| AgentError::Input { field: "message.parts", problem };
    if let Some(json) = ask.json() {
        return serde_json::from_str(json).map_err(|error| invalid(InputProblem::Json(error)));
    }
    let text = ask.text();
    if text.trim().is_empty() {
        return Err(invalid(InputProblem::Empty));
    }
    serde_json::to_value(of_text(text)).map_err(|error| invalid(InputProblem::Json(error)))
}
