//! Agents as tools: their descriptions, their arguments, and asking one.

use std::sync::Arc;

use neuroflow_kernel::{Address, Header, Parcel, ReplyStream, Request, StreamError};
use rmcp::ErrorData;
use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use serde_json::{Value, json};

use super::outcome;
use super::task::PublicId;
use crate::agent::{AgentCommand, Ask, Content, TaskEvent, Turn};
use crate::gateway::{GatewayAgent, shown};
use crate::limits::CLIENT_ID_BYTES;

/// What a client says to an agent.
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Message {
    message: Option<String>,
    data: Option<Value>,
    context_id: Option<String>,
    task_id: Option<String>,
}

/// The agent as a tool.
pub(super) fn tool(agent: &GatewayAgent) -> Tool {
    let profile = &agent.profile;
    let schema = json!({
        "type": "object",
        "properties": {
            "message": { "type": "string", "description": "What to say to the agent." },
            "data": { "description": "JSON for the agent, beside or instead of a message." },
            "contextId": {
                "type": "string",
                "description": "A conversation to continue: the contextId of an earlier answer."
            },
            "taskId": {
                "type": "string",
                "description": "A task that asked something: the taskId of its answer."
            }
        },
        "anyOf": [{ "required": ["message"] }, { "required": ["data"] }],
        "additionalProperties": false
    });
    let mut tool = Tool::new(profile.name.clone(), description(agent), object(schema));
    tool.output_schema = Some(object(outcome::schema()));
    // What an agent does is its own affair: nobody may take it for harmless.
    tool.annotations = Some(ToolAnnotations::with_title(profile.name.clone()).open_world(true));
    tool
}

fn description(agent: &GatewayAgent) -> String {
    let profile = &agent.profile;
    let mut text = profile.description.clone();
    for skill in profile.skills.iter().filter(|skill| skill.name != profile.name) {
        text.push_str("\n- ");
        text.push_str(&skill.name);
        text.push_str(": ");
        text.push_str(&skill.description);
    }
    text
}

pub(super) fn object(value: Value) -> Arc<JsonObject> {
    Arc::new(match value {
        Value::Object(object) => object,
        _ => JsonObject::new(),
    })
}

impl Message {
    /// What is said to the agent of this name.
    pub(super) fn read(agent: &str, arguments: Option<JsonObject>) -> Result<Self, ErrorData> {
        let arguments = Value::Object(arguments.unwrap_or_default());
        let mut message: Self = serde_path_to_error::deserialize(arguments)
            .map_err(|error| ErrorData::invalid_params(shown(&error.to_string()), None))?;
        if message.message.is_none() && message.data.is_none() {
            return Err(ErrorData::invalid_params("message or data is missing", None));
        }
        for (field, id) in [("contextId", &message.context_id), ("taskId", &message.task_id)] {
            // Not every database takes control characters in a text.
            let is_wrong = |id: &String| {
                !(1..=CLIENT_ID_BYTES).contains(&id.len()) || id.chars().any(char::is_control)
            };
            if id.as_ref().is_some_and(is_wrong) {
                let text = format!(
                    "{field} must have 1 to {CLIENT_ID_BYTES} bytes and no control character"
                );
                return Err(ErrorData::invalid_params(text, None));
            }
        }
        // Who was answered with a task knows it by its public id.
        if let Some(id) = message.task_id.as_deref().filter(|id| id.contains('/')) {
            let id = PublicId::read(id)?;
            if id.tool != agent {
                let text = format!("taskId is of a task of {:?}, not of {agent:?}", id.tool);
                return Err(ErrorData::invalid_params(text, None));
            }
            message.task_id = Some(id.task.to_owned());
        }
        Ok(message)
    }

    pub(super) fn into_ask(self, caller: Option<String>) -> Ask {
        let text = self.message.map(|text| Content::Text(text).into());
        let data = self.data.map(|data| Content::Json(data.to_string()).into());
        let mut turn = Turn::user("");
        turn.parts = text.into_iter().chain(data).collect();
        let mut ask = Ask::new(turn);
        ask.task = self.task_id;
        ask.context = self.context_id;
        ask.caller = caller;
        ask
    }
}

/// Begins a task, or continues one, and gives its events.
pub(super) async fn ask(
    agent: &Address<AgentCommand>,
    ask: &Ask,
    header: Header,
) -> Result<ReplyStream<Parcel<TaskEvent>>, ErrorData> {
    let parcel =
        Parcel::archive(ask).map_err(|error| ErrorData::invalid_params(error.to_string(), None))?;
    let command = |replies| AgentCommand::Ask(Request { parcel, replies });
    agent.stream(header, command).await.map_err(|refusal| unavailable(refusal.code()))
}

pub(super) fn unavailable(code: &str) -> ErrorData {
    ErrorData::internal_error(format!("the agent isn't available ({code})"), None)
}

pub(super) fn broken(error: StreamError) -> ErrorData {
    ErrorData::internal_error(format!("the agent broke off: {error}"), None)
}
