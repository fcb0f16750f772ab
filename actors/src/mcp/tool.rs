//! A tool of an MCP server, as the router has it.

use std::sync::Arc;
use std::time::Duration;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, InputRequest, InputRequests,
    InputResponses,
};
use rmcp::service::Peer;
use rmcp::{RoleClient, ServiceError};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::pulse::{Pulse, takes_others};
use super::{Forms, McpMeter, content};
use crate::limits::{MCP_RESULT_BYTES, MCP_ROUNDS};
use crate::tools::{Calling, DynTool, ToolContext, ToolError};

/// What the tools of one session share.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) name: String,
    pub(super) peer: Peer<RoleClient>,
    pub(super) places: Semaphore,
    pub(super) call: Duration,
    pub(super) forms: Forms,
    pub(super) meter: Arc<dyn McpMeter>,
    pub(super) pulse: Arc<Pulse>,
}

/// One tool.
pub(super) struct McpTool {
    /// What agents call it by.
    pub(super) name: String,
    /// What the server calls it.
    pub(super) remote: String,
    pub(super) description: String,
    pub(super) schema: Value,
    pub(super) server: Arc<Server>,
}

impl DynTool for McpTool {
    fn name(&self) -> &str {
        &self.name
    }

    fn description(&self) -> &str {
        &self.description
    }

    fn schema(&self) -> Value {
        self.schema.clone()
    }

    fn call(&self, arguments: Value, context: ToolContext) -> Calling<'_> {
        Box::pin(async move {
            let clock = context.clock();
            let begun = clock.now();
            let result = self.ask(arguments, &context).await;
            let outcome = result.as_ref().map_or_else(ToolError::code, |_| "done");
            self.server.meter.called(&self.server.name, outcome, clock.now().since(begun));
            result
        })
    }
}

impl McpTool {
    /// Asks until there is a result, or the tool has asked back too often.
    async fn rounds(&self, mut params: CallToolRequestParams) -> Result<CallToolResult, ToolError> {
        for _ in 0..MCP_ROUNDS {
            let answered = self.server.peer.call_tool_once(params.clone()).await;
            match answered.inspect_err(|error| self.server.pulse.note(error)).map_err(failure)? {
                CallToolResponse::Complete(result) => return Ok(result),
                CallToolResponse::InputRequired(asked) => {
                    let answers = |asked| answers(asked, self.server.forms);
                    params.input_responses = asked.input_requests.map(answers).transpose()?;
                    params.request_state = asked.request_state;
                }
                _ => break,
            }
        }
        Err(input_required())
    }

    /// Dropping this tells the server that nobody waits any more.
    async fn ask(&self, arguments: Value, context: &ToolContext) -> Result<String, ToolError> {
        let server = &self.server;
        let Ok(_place) = server.places.try_acquire() else {
            return Err(ToolError::new("mcp_busy", "too many calls of this server are running"));
        };
        let Value::Object(arguments) = arguments else {
            return Err(ToolError::new("invalid_arguments", "the arguments aren't an object"));
        };
        let params = CallToolRequestParams::new(self.remote.clone()).with_arguments(arguments);
        let clock = context.clock();
        let (within, heard) = (clock.now() + server.call, server.pulse.heard());
        let answered = clock.before(within, self.rounds(params)).await;
        let Ok(result) = answered else {
            server.pulse.doubt(heard);
            let text = format!("the server didn't answer within {:?}", server.call);
            return Err(ToolError::new("mcp_timeout", text));
        };
        let result = result?;
        if result.is_error == Some(true) {
            return Err(ToolError::new("mcp_tool", bounded(content::complaint(&result))));
        }
        let unreadable =
            |error| ToolError::new("mcp_protocol", "the result isn't JSON").caused_by(error);
        let json = content::value(result).and_then(|value| serde_json::to_string(&value));
        let json = json.map_err(unreadable)?;
        if json.len() > MCP_RESULT_BYTES {
            let text = format!("the result has more than {MCP_RESULT_BYTES} bytes");
            return Err(ToolError::new("mcp_too_large", text));
        }
        Ok(json)
    }
}

/// What is answered to a tool that asks back while nobody is there: to a form what is said of forms, and
/// there are no folders to speak of. Nobody's model is lent to a server.
fn answers(requests: InputRequests, forms: Forms) -> Result<InputResponses, ToolError> {
    let answer = |(key, request)| match request {
        InputRequest::Elicitation(form) => {
            let answer = serde_json::to_value(forms.answer(&form.params));
            let unwritable = |error| {
                ToolError::new("mcp_protocol", "the form can't be answered").caused_by(error)
            };
            Ok((key, answer.map_err(unwritable)?))
        }
        InputRequest::ListRoots(_) => Ok((key, json!({ "roots": [] }))),
        _ => Err(input_required()),
    };
    requests.into_iter().map(answer).collect()
}

fn input_required() -> ToolError {
    ToolError::new("mcp_input_required", "the tool wants input that nobody can give it")
}

fn failure(error: ServiceError) -> ToolError {
    let (code, text) = match &error {
        ServiceError::McpError(error) => {
            ("mcp_refused", format!("the server refused: {}", error.message))
        }
        ServiceError::TransportSend(_) if takes_others(&error) => {
            ("mcp_unavailable", "the server didn't take the call".to_owned())
        }
        ServiceError::TransportSend(_) | ServiceError::TransportClosed => {
            ("mcp_unavailable", "the server's session is over; another is being begun".to_owned())
        }
        ServiceError::Cancelled { .. } => {
            ("mcp_cancelled", "the server gave the call up".to_owned())
        }
        _ => ("mcp_protocol", "the server's answer isn't one to this call".to_owned()),
    };
    ToolError::new(code, bounded(text)).caused_by(error)
}

/// A server's words, for a model or a log.
fn bounded(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(COMPLAINT_BYTES));
    text
}

/// Bytes of a server's complaint that are handed on.
const COMPLAINT_BYTES: usize = 8 * 1024;
