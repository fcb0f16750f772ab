//! What an A2A request can fail with, and how JSON-RPC says it.
//!
//! Codes and reasons: A2A 1.0.1, section "Error handling"; JSON-RPC 2.0, section 5.1.

use serde_json::{Value, json};

use crate::agent::TaskState;

#[derive(Debug, thiserror::Error)]
pub(super) enum A2aError {
    #[error("there is no task {task:?}")]
    TaskNotFound { task: String },
    #[error("task {task:?} is already {}", state.as_str())]
    TaskNotCancelable { task: String, state: TaskState },
    #[error("this agent sends no push notifications")]
    PushNotificationNotSupported,
    #[error("this agent doesn't offer {operation}")]
    UnsupportedOperation { operation: &'static str },
    #[error("the body must be application/json, not {found:?}")]
    ContentTypeNotSupported { found: String },
    #[error("A2A version {found:?} isn't spoken here; send the header A2A-Version: 1.0")]
    VersionNotSupported { found: String },
    #[error("the body isn't JSON: {source}")]
    Parse { source: serde_json::Error },
    #[error("not a JSON-RPC 2.0 request: {field} {problem}")]
    InvalidRequest { field: String, problem: String },
    #[error("there is no method {method:?}")]
    MethodNotFound { method: String },
    #[error("{field} {problem}")]
    InvalidParams { field: String, problem: String },
    #[error("there is no agent {agent:?} here; there are: {known}")]
    AgentNotFound { agent: String, known: String },
    #[error("the body is larger than {limit} bytes")]
    BodyTooLarge { limit: usize },
    #[error("the body didn't arrive in time")]
    BodyTimedOut,
    #[error("the body couldn't be read")]
    BodyCutOff,
    #[error("the agent is busy; try again later")]
    Busy,
    #[error("the agent isn't available: {code}")]
    Unavailable { code: &'static str },
    #[error("the answer can't be written")]
    Unwritable,
}

impl A2aError {
    pub(super) fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::InvalidParams { field: field.into(), problem: problem.into() }
    }

    pub(super) fn code(&self) -> i32 {
        match self {
            Self::Parse { .. } => -32700,
            Self::InvalidRequest { .. }
            | Self::BodyTooLarge { .. }
            | Self::BodyTimedOut
            | Self::BodyCutOff => -32600,
            Self::MethodNotFound { .. } => -32601,
            Self::InvalidParams { .. } | Self::AgentNotFound { .. } => -32602,
            Self::Busy | Self::Unavailable { .. } | Self::Unwritable => -32603,
            Self::TaskNotFound { .. } => -32001,
            Self::TaskNotCancelable { .. } => -32002,
            Self::PushNotificationNotSupported => -32003,
            Self::UnsupportedOperation { .. } => -32004,
            Self::ContentTypeNotSupported { .. } => -32005,
            Self::VersionNotSupported { .. } => -32009,
        }
    }

    /// JSON-RPC errors travel with 200; what HTTP itself has a word for says that word too.
    pub(super) fn status(&self) -> u16 {
        match self {
            Self::BodyTooLarge { .. } => 413,
            Self::BodyTimedOut => 408,
            Self::BodyCutOff => 400,
            Self::ContentTypeNotSupported { .. } => 415,
            Self::AgentNotFound { .. } => 404,
            Self::Busy | Self::Unavailable { .. } => 503,
            _ => 200,
        }
    }

    fn reason(&self) -> Option<&'static str> {
        Some(match self {
            Self::TaskNotFound { .. } => "TASK_NOT_FOUND",
            Self::TaskNotCancelable { .. } => "TASK_NOT_CANCELABLE",
            Self::PushNotificationNotSupported => "PUSH_NOTIFICATION_NOT_SUPPORTED",
            Self::UnsupportedOperation { .. } => "UNSUPPORTED_OPERATION",
            Self::ContentTypeNotSupported { .. } => "CONTENT_TYPE_NOT_SUPPORTED",
            Self::VersionNotSupported { .. } => "VERSION_NOT_SUPPORTED",
            _ => return None,
        })
    }

    /// The field at fault.
    fn field(&self) -> Option<&str> {
        match self {
            Self::InvalidRequest { field, .. } | Self::InvalidParams { field, .. } => Some(field),
            Self::MethodNotFound { .. } => Some("method"),
            Self::AgentNotFound { .. } => Some("agent"),
            _ => None,
        }
    }

    /// The `error` member of a JSON-RPC response.
    pub(super) fn to_json(&self) -> Value {
        let message = self.to_string();
        let mut data = Vec::new();
        if let Some(reason) = self.reason() {
            data.push(json!({
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": reason,
                "domain": "a2a-protocol.org",
            }));
        }
        if let Some(field) = self.field() {
            data.push(json!({
                "@type": "type.googleapis.com/google.rpc.BadRequest",
                "fieldViolations": [{ "field": field, "description": message }],
            }));
        }
        json!({ "code": self.code(), "message": message, "data": data })
    }
}
