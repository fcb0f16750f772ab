//! `shell`: runs a command in a cell and answers with its output.

use crate::agent::{
    Agent, AgentError, AgentProfile, Answer, Artifact, Content, Incoming, InputProblem, Part,
    TaskContext,
};
use crate::tools::{ExecArguments, ExecOutput, ExecTool};

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
        let arguments = arguments(&ask)?;
        let result = context.call(ExecTool::NAME, arguments).await?;
        let report = result.text();
        let output: ExecOutput = result.into().map_err(|error| AgentError::Tool(error.into()))?;
        let mut text = output.stdout;
        text.push_str(&output.stderr);
        let parts = vec![Part::from(Content::Text(text)), Part::from(Content::Json(report))];
        Ok(Answer::artifact(Artifact::new("output", parts)))
    }
}

fn arguments(ask: &Incoming) -> Result<serde_json::Value, AgentError> {
    let invalid = |problem| AgentError::Input { field: "message.parts", problem };
    if let Some(json) = ask.json() {
        return serde_json::from_str(json).map_err(|error| invalid(InputProblem::Json(error)));
    }
    let line = ask.text();
    if line.trim().is_empty() {
        return Err(invalid(InputProblem::Empty));
    }
    let command = ["/bin/sh", "-c", &line].map(str::to_owned).to_vec();
    let arguments = ExecArguments { command, stdin: String::new() };
    serde_json::to_value(arguments).map_err(|error| invalid(InputProblem::Json(error)))
}
