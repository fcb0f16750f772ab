//! Programs for clients: the tool `exec`, and the agent whose tasks the programs are.

use rmcp::ErrorData;
use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;

use super::{McpExec, agents};
use crate::agent::{
    Agent, AgentError, AgentProfile, Answer, Artifact, Ask, Content, Incoming, InputProblem,
    TaskContext, Turn,
};
use crate::gateway::shown;
use crate::tools::{ExecArguments, ExecTool, ToolProgress};

/// Runs programs for MCP clients, each as a task of its own: so they are journaled, owned by who asked,
/// waited for or asked for later, and cancelled with every process like any task.
///
/// ```
/// use neuroflow_actors::{Agent, McpPrograms};
/// assert_eq!(McpPrograms.profile().name, McpPrograms::NAME);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct McpPrograms;

impl McpPrograms {
    /// Its name in the tree and in the journal. It's no agent of the gateway's.
    pub const NAME: &'static str = "mcp.exec";
}

impl Agent for McpPrograms {
    fn profile(&self) -> AgentProfile {
        AgentProfile::new(Self::NAME, "Runs programs in cells for MCP clients.")
    }

    async fn run(&self, ask: Incoming, context: TaskContext) -> Result<Answer, AgentError> {
        let missing = AgentError::Input { field: "arguments", problem: InputProblem::Missing };
        let arguments: Value =
            serde_json::from_str(ask.json().ok_or(missing)?).map_err(|error| {
                AgentError::Input { field: "arguments", problem: InputProblem::Json(error) }
            })?;
        let (told, mut progress) = watch::channel(ToolProgress::default());
        let told = |progress| {
            told.send_replace(progress);
        };
        let mut call = std::pin::pin!(context.call_told(ExecTool::NAME, arguments, told));
        let called = loop {
            tokio::select! {
                biased;
                called = &mut call => break called,
                Ok(()) = progress.changed() => {}
            }
            let written = Written::from(progress.borrow_and_update().clone());
            context.say_turn(written.into_turn()).await?;
        };
        let report = called.map_err(AgentError::failed)?.text();
        Ok(Answer::artifact(Artifact::new("report", vec![Content::Json(report).into()])))
    }
}

/// What a program has written so far, as its task says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) bytes: u64,
    pub(super) line: String,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Count {
    written_bytes: u64,
}

impl From<ToolProgress> for Written {
    fn from(progress: ToolProgress) -> Self {
        Self { bytes: progress.written_bytes, line: progress.line }
    }
}

impl Written {
    fn into_turn(self) -> Turn {
        let mut turn = Turn::agent(self.line);
        // A number is always JSON.
        let count = serde_json::to_string(&Count { written_bytes: self.bytes }).unwrap_or_default();
        turn.parts.push(Content::Json(count).into());
        turn.parts.retain(|part| part.content != Content::Text(String::new()));
        turn
    }

    /// The count that a part has, if it's one.
    pub(super) fn bytes_of(json: &str) -> Option<u64> {
        serde_json::from_str::<Count>(json).ok().map(|count| count.written_bytes)
    }
}

/// What begins a program's task.
pub(super) fn ask(arguments: Option<JsonObject>, caller: Option<String>) -> Result<Ask, ErrorData> {
    let arguments = Value::Object(arguments.unwrap_or_default());
    let read: ExecArguments = serde_path_to_error::deserialize(&arguments)
        .map_err(|error| ErrorData::invalid_params(shown(&error.to_string()), None))?;
    if read.command.is_empty() {
        return Err(ErrorData::invalid_params("command must have a program", None));
    }
    let mut turn = Turn::user("");
    turn.parts = vec![Content::Json(arguments.to_string()).into()];
    let mut ask = Ask::new(turn);
    ask.caller = caller;
    Ok(ask)
}

pub(super) fn tool(exec: &McpExec) -> Tool {
    let description = format!(
        "Runs a program in a fresh sandbox cell at level {}: no network, a private file system, limits \
         on time and output. Answers with what it wrote and how it ended.",
        exec.level
    );
    let schema = schemars::schema_for!(ExecArguments).to_value();
    let mut tool = Tool::new(ExecTool::NAME, description, agents::object(schema));
    let title = format!("exec ({})", exec.level);
    // A cell starts empty and ends with the call: nothing outside is changed.
    tool.annotations =
        Some(ToolAnnotations::with_title(title).destructive(false).open_world(false));
    tool
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_that_are_none_are_refused_by_name() {
        let read = |json: Value| match json {
            Value::Object(object) => ask(Some(object), None),
            _ => ask(None, None),
        };
        for (json, words) in [
            (Value::Null, "missing field `command`"),
            (serde_json::json!({ "command": [] }), "command must have a program"),
            (serde_json::json!({ "command": ["a", 7] }), "command[1]: invalid type"),
            (serde_json::json!({ "command": ["a"], "cwd": "/" }), "unknown field `cwd`"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.message.contains(words), "{error:?}");
        }
        let fine = read(serde_json::json!({ "command": ["id"], "stdin": "x" })).unwrap();
        assert_eq!(fine.turn.parts.len(), 1);
    }
}
