//! What an A2A request can fail with, and how each binding says it.
//!
//! Codes, statuses and reasons: A2A 1.0.1, section "Error handling"; JSON-RPC 2.0, section 5.1.

use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::door::{self, CREDENTIAL_ENDED};
use super::json::shown;
use crate::access::Action;
use crate::agent::TaskState;

/// What a client has written, and may be of any length, goes in as [`shown`].
#[derive(Debug, thiserror::Error)]
pub(super) enum A2aError {
    #[error("there is no task {task:?}")]
    TaskNotFound { task: String },
    #[error("task {task:?} is already {}", state.as_str())]
    TaskNotCancelable { task: String, state: TaskState },
    #[error("task {task:?} has no push notification configuration {config:?}")]
    PushConfigNotFound { task: String, config: String },
    #[error("this agent sends no push notifications")]
    PushNotificationNotSupported,
    #[error("this agent doesn't offer {operation}")]
    UnsupportedOperation { operation: &'static str },
    #[error("task {task:?} is already {}: it can't be {wish}", state.as_str())]
    TaskEnded { task: String, state: TaskState, wish: &'static str },
    #[error("another node has task {task:?}; send this to that one")]
    Elsewhere { task: String },
    #[error("the body must be {expected}, not {found:?}")]
    ContentTypeNotSupported { expected: &'static str, found: String },
    #[error("{field} is {found:?}; this agent has {known}")]
    MediaTypeNotSupported { field: String, found: String, known: String },
    #[error("the agent's answer can't be told, and task {task:?} has failed: {problem}")]
    InvalidAgentResponse { task: String, problem: String },
    #[error("an extended card needs authentication, which this node doesn't have; set it up first")]
    ExtendedAgentCardNotConfigured,
    #[error("this agent requires the extension {uri:?}; name it in the header A2A-Extensions")]
    ExtensionSupportRequired { uri: String },
    #[error("A2A version {found:?} isn't spoken here; send the header A2A-Version: 1.0")]
    VersionNotSupported { found: String },
    #[error("only who has proved who they are may do that")]
    AuthenticationRequired,
    #[error("{CREDENTIAL_ENDED}")]
    CredentialEnded,
    #[error("you may not {} with this agent; who decides that is its node's policy", action.name())]
    Forbidden { action: Action },
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
    #[error("{}", door::UNRECORDED)]
    Unrecorded,
    #[error("the time that the call was given is up; what it has begun goes on")]
    DeadlineExceeded,
    #[error(
        "whether the agent has taken the message isn't known; look for its task before sending it again"
    )]
    Unheard,
    #[error("the answer can't be written")]
    Unwritable,
}

impl A2aError {
    pub(super) fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Self {
        let (field, problem) = (shown(&field.into()), shown(&problem.into()));
        Self::InvalidParams { field, problem }
    }

    pub(super) fn invalid_request(field: &str, problem: &str) -> Self {
        Self::InvalidRequest { field: field.to_owned(), problem: shown(problem) }
    }

    pub(super) fn no_method(method: &str) -> Self {
        Self::MethodNotFound { method: shown(method) }
    }

    pub(super) fn no_version(found: &str) -> Self {
        Self::VersionNotSupported { found: shown(found) }
    }

    pub(super) fn content_type(expected: &'static str, found: &str) -> Self {
        Self::ContentTypeNotSupported { expected, found: shown(found) }
    }

    /// The code of JSON-RPC.
    pub(super) fn code(&self) -> i32 {
        match self {
            Self::Parse { .. } => -32700,
            Self::InvalidRequest { .. }
            | Self::BodyTooLarge { .. }
            | Self::BodyTimedOut
            | Self::BodyCutOff
            | Self::AuthenticationRequired
            | Self::CredentialEnded
            | Self::Forbidden { .. } => -32600,
            Self::MethodNotFound { .. } => -32601,
            Self::InvalidParams { .. } | Self::AgentNotFound { .. } => -32602,
            Self::Busy
            | Self::Unavailable { .. }
            | Self::Unrecorded
            | Self::DeadlineExceeded
            | Self::Unheard
            | Self::Unwritable => -32603,
            Self::TaskNotFound { .. } | Self::PushConfigNotFound { .. } => -32001,
            Self::TaskNotCancelable { .. } => -32002,
            Self::PushNotificationNotSupported => -32003,
            Self::UnsupportedOperation { .. } | Self::TaskEnded { .. } | Self::Elsewhere { .. } => {
                -32004
            }
            Self::ContentTypeNotSupported { .. } | Self::MediaTypeNotSupported { .. } => -32005,
            Self::InvalidAgentResponse { .. } => -32006,
            Self::ExtendedAgentCardNotConfigured => -32007,
            Self::ExtensionSupportRequired { .. } => -32008,
            Self::VersionNotSupported { .. } => -32009,
        }
    }

    /// The HTTP status under JSON-RPC, whose errors travel with 200; what HTTP itself has a word for
    /// says that word too.
    pub(super) fn rpc_status(&self) -> u16 {
        match self {
            Self::ContentTypeNotSupported { .. } => 415,
            Self::BodyTooLarge { .. }
            | Self::BodyTimedOut
            | Self::BodyCutOff
            | Self::AgentNotFound { .. }
            | Self::AuthenticationRequired
            | Self::Forbidden { .. }
            | Self::Busy
            | Self::Unavailable { .. }
            | Self::Unrecorded => self.rest_status(),
            _ => 200,
        }
    }

    /// The HTTP status under HTTP+JSON.
    pub(super) fn rest_status(&self) -> u16 {
        match self {
            Self::BodyTooLarge { .. } => 413,
            Self::BodyTimedOut => 408,
            Self::AuthenticationRequired | Self::CredentialEnded => 401,
            Self::Forbidden { .. } => 403,
            Self::TaskNotFound { .. }
            | Self::PushConfigNotFound { .. }
            | Self::AgentNotFound { .. }
            | Self::MethodNotFound { .. } => 404,
            Self::Busy | Self::Unavailable { .. } | Self::Unrecorded => 503,
            Self::DeadlineExceeded | Self::Unheard => 504,
            Self::InvalidAgentResponse { .. } | Self::Unwritable => 500,
            _ => 400,
        }
    }

    /// The code of gRPC.
    pub(super) fn grpc_code(&self) -> Code {
        match self {
            Self::TaskNotFound { .. }
            | Self::PushConfigNotFound { .. }
            | Self::AgentNotFound { .. } => Code::NotFound,
            Self::TaskNotCancelable { .. }
            | Self::PushNotificationNotSupported
            | Self::UnsupportedOperation { .. }
            | Self::TaskEnded { .. }
            | Self::Elsewhere { .. }
            | Self::ExtendedAgentCardNotConfigured
            | Self::ExtensionSupportRequired { .. }
            | Self::VersionNotSupported { .. } => Code::FailedPrecondition,
            Self::AuthenticationRequired | Self::CredentialEnded => Code::Unauthenticated,
            Self::Forbidden { .. } => Code::PermissionDenied,
            Self::MethodNotFound { .. } => Code::Unimplemented,
            Self::Busy | Self::Unavailable { .. } | Self::Unrecorded => Code::Unavailable,
            Self::BodyTimedOut | Self::DeadlineExceeded | Self::Unheard => Code::DeadlineExceeded,
            Self::BodyTooLarge { .. } => Code::ResourceExhausted,
            Self::InvalidAgentResponse { .. } | Self::Unwritable => Code::Internal,
            _ => Code::InvalidArgument,
        }
    }

    /// The reason that the protocol has for its own errors.
    fn reason(&self) -> Option<&'static str> {
        Some(match self {
            Self::TaskNotFound { .. } | Self::PushConfigNotFound { .. } => "TASK_NOT_FOUND",
            Self::TaskNotCancelable { .. } => "TASK_NOT_CANCELABLE",
            Self::PushNotificationNotSupported => "PUSH_NOTIFICATION_NOT_SUPPORTED",
            Self::UnsupportedOperation { .. } | Self::TaskEnded { .. } | Self::Elsewhere { .. } => {
                "UNSUPPORTED_OPERATION"
            }
            Self::ContentTypeNotSupported { .. } | Self::MediaTypeNotSupported { .. } => {
                "CONTENT_TYPE_NOT_SUPPORTED"
            }
            Self::InvalidAgentResponse { .. } => "INVALID_AGENT_RESPONSE",
            Self::ExtendedAgentCardNotConfigured => "EXTENDED_AGENT_CARD_NOT_CONFIGURED",
            Self::ExtensionSupportRequired { .. } => "EXTENSION_SUPPORT_REQUIRED",
            Self::VersionNotSupported { .. } => "VERSION_NOT_SUPPORTED",
            // What no code of JSON-RPC says.
            Self::AuthenticationRequired | Self::CredentialEnded => "UNAUTHENTICATED",
            Self::Forbidden { .. } => "PERMISSION_DENIED",
            Self::DeadlineExceeded | Self::Unheard => "DEADLINE_EXCEEDED",
            _ => return None,
        })
    }

    /// The reason where no code of JSON-RPC says it: clients tell errors apart by it.
    fn reason_without_code(&self) -> &'static str {
        self.reason().unwrap_or(match self.code() {
            -32700 | -32600 => "INVALID_REQUEST",
            -32601 => "METHOD_NOT_FOUND",
            -32602 => "INVALID_PARAMS",
            _ => "INTERNAL_ERROR",
        })
    }

    /// What programs tell it by from others of its reason.
    fn word(&self) -> Option<&'static str> {
        matches!(self, Self::Elsewhere { .. }).then_some("elsewhere")
    }

    /// The field at fault.
    fn field(&self) -> Option<&str> {
        match self {
            Self::InvalidRequest { field, .. }
            | Self::InvalidParams { field, .. }
            | Self::MediaTypeNotSupported { field, .. } => Some(field),
            Self::MethodNotFound { .. } => Some("method"),
            Self::AgentNotFound { .. } => Some("agent"),
            _ => None,
        }
    }

    fn details(&self, reason: Option<&str>, message: &str) -> Vec<Value> {
        let mut details = Vec::new();
        if let Some(reason) = reason {
            let mut info = json!({
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": reason,
                "domain": DOMAIN,
            });
            if let Some(word) = self.word() {
                info["metadata"] = json!({ CODE: word });
            }
            details.push(info);
        }
        if let Some(field) = self.field() {
            details.push(json!({
                "@type": "type.googleapis.com/google.rpc.BadRequest",
                "fieldViolations": [{ "field": field, "description": message }],
            }));
        }
        details
    }

    /// The `error` member of a JSON-RPC response.
    pub(super) fn to_json(&self) -> Value {
        let message = self.to_string();
        let data = self.details(self.reason(), &message);
        json!({ "code": self.code(), "message": message, "data": data })
    }

    /// The body of an answer of HTTP+JSON.
    pub(super) fn to_rest(&self) -> Value {
        let message = self.to_string();
        let details = self.details(Some(self.reason_without_code()), &message);
        let status = code_name(self.grpc_code());
        json!({ "error": {
            "code": self.rest_status(), "status": status, "message": message, "details": details,
        } })
    }

    /// The status of gRPC.
    pub(super) fn to_status(&self) -> Status {
        let message = self.to_string();
        let mut details = ErrorDetails::new();
        let metadata: std::collections::HashMap<_, _> =
            self.word().map(|word| (CODE.to_owned(), word.to_owned())).into_iter().collect();
        details.set_error_info(self.reason_without_code(), DOMAIN, metadata);
        if let Some(field) = self.field() {
            details.add_bad_request_violation(field, message.clone());
        }
        Status::with_error_details(self.grpc_code(), message, details)
    }
}

const DOMAIN: &str = "a2a-protocol.org";

/// What the metadata of an `ErrorInfo` has its word under, as in what the door refuses.
const CODE: &str = "code";

/// The name of a code in `google.rpc.Code`.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::NotFound => "NOT_FOUND",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Unauthenticated => "UNAUTHENTICATED",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Unavailable => "UNAVAILABLE",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        _ => "INTERNAL",
    }
}
