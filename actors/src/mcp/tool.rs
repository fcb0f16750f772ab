//! A tool of an MCP server, as the router has it.

use std::sync::Arc;
use std::time::Duration;

use neuroflow_kernel::Elapsed;
use rmcp::model::{CallToolRequestParams, CallToolResponse};
use rmcp::service::Peer;
use rmcp::{RoleClient, ServiceError};
use serde_json::Value;
use tokio::sync::Semaphore;

use super::{McpMeter, content};
use crate::limits::MCP_RESULT_BYTES;
use crate::tools::{Calling, DynTool, ToolContext, ToolError};

/// What the tools of one session share.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) name: String,
    pub(super) peer: Peer<RoleClient>,
    pub(super) places: Semaphore,
    pub(super) call: Duration,
    pub(super) meter: Arc<dyn McpMeter>,
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
        let within = clock.now() + server.call;
        let answered = clock.before(within, server.peer.call_tool_once(params)).await;
        let answer = match answered {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(failure(error)),
            Err(Elapsed) => {
                let text = format!("the server didn't answer within {:?}", server.call);
                return Err(ToolError::new("mcp_timeout", text));
            }
        };
        let CallToolResponse::Complete(result) = answer else {
            let text = "the tool wants more input while it runs, which isn't supported";
            return Err(ToolError::new("mcp_input_required", text));
        };
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

fn failure(error: ServiceError) -> ToolError {
    let (code, text) = match &error {
        ServiceError::McpError(error) => {
            ("mcp_refused", format!("the server refused: {}", error.message))
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
