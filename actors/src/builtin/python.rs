//! `python`: runs code in a cell and answers with its output.

use super::shell::{answer, arguments};
use crate::agent::{Agent, AgentError, AgentProfile, Answer, Incoming, TaskContext};
use crate::tools::{PythonArguments, PythonTool};

/// An agent that runs Python code in a cell.
///
/// A text is the code; a JSON part such as `{"code": "print(input())", "stdin": "42"}` says what it
/// reads besides. The answer is that of [`Shell`](crate::Shell).
///
/// ```
/// use neuroflow_actors::{Agent, Python};
/// assert_eq!(Python.shared_tools(), ["python"]);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Python;

impl Agent for Python {
    fn profile(&self) -> AgentProfile {
        let mut profile = AgentProfile::new(
            "python",
            "Runs Python code in a sandbox cell and answers with its output.",
        );
        profile.skills[0].examples = vec!["print(sum(range(10)))".to_owned()];
        profile.input_modes.push("application/json".to_owned());
        profile.output_modes.push("application/json".to_owned());
        profile
    }

    fn shared_tools(&self) -> Vec<String> {
        vec![PythonTool::NAME.to_owned()]
    }

    async fn run(&self, ask: Incoming, context: TaskContext) -> Result<Answer, AgentError> {
        let code = |code| PythonArguments { code, stdin: String::new() };
        let arguments = arguments(&ask, code)?;
        answer(context.call(PythonTool::NAME, arguments).await?)
    }
}
