//! The caller's side of a tool call: how it's made, what comes of it, and what is heard of it meanwhile.

use neuroflow_kernel::{Address, AskError, Header, ParcelError, Request, StreamError};
use serde::de::DeserializeOwned;

use crate::journal::AppendError;

use super::{ArchivedOutcome, ArchivedRefused, Invoke, Refused, ToolProgress, ToolsCommand};

/// A tool's result.
///
/// ```
/// fn total(result: &neuroflow_actors::ToolResult) -> Option<i64> {
///     result.value().as_i64()
/// }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct ToolResult(serde_json::Value);

impl ToolResult {
    /// From JSON.
    pub(crate) fn read(json: &str) -> Result<Self, InvokeError> {
        Ok(Self(serde_json::from_str(json)?))
    }

    /// The JSON value.
    pub fn value(&self) -> &serde_json::Value {
        &self.0
    }

    /// A string as it is, anything else as JSON.
    pub fn text(&self) -> String {
        self.0.as_str().map_or_else(|| self.0.to_string(), ToOwned::to_owned)
    }

    /// The result as a `T`.
    ///
    /// # Errors
    /// Says why it isn't one.
    pub fn into<T: DeserializeOwned>(self) -> Result<T, serde_json::Error> {
        serde_json::from_value(self.0)
    }
}

/// Why a tool call has no result, as the caller sees it.
///
/// ```
/// use neuroflow_actors::{InvokeError, Refused};
/// let error = InvokeError::from(Refused::Busy);
/// assert_eq!(error.code(), "busy");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvokeError {
    /// The router or the tool refused.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The arguments or the result aren't JSON.
    #[error("not valid JSON")]
    Json(#[from] serde_json::Error),
    /// The request wasn't taken.
    #[error("the tool router didn't take the call")]
    Router(#[from] AskError),
    /// The call ended without a result: the tool panicked or its actor was ended.
    #[error("the tool call ended without a result")]
    Interrupted(#[from] StreamError),
    /// The result isn't a valid archive.
    #[error("the tool's answer can't be read")]
    Answer(#[from] ParcelError),
    /// The task that the call works for has ended, and the call with it.
    #[error("the task has ended, and its tool calls with it")]
    TaskEnded,
    /// The tool has done it, and the journal doesn't keep the result, so that a second run would call it again.
    #[error("the journal doesn't keep the tool's result")]
    Unkept {
        /// Why.
        #[source]
        source: AppendError,
    },
}

impl InvokeError {
    pub(crate) fn unknown(tool: &str) -> Self {
        Self::Refused(Refused::Unknown { tool: tool.to_owned() })
    }

    /// A stable word for metrics, spans and decisions.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused(Refused::Unknown { .. }) => "unknown_tool",
            Self::Refused(Refused::Argument { .. }) => "invalid_argument",
            Self::Refused(Refused::Busy) => "busy",
            Self::Refused(Refused::TimedOut) => "timeout",
            Self::Refused(Refused::Failed { .. }) => "tool_error",
            Self::Json(_) => "invalid_json",
            Self::Router(_) => "unavailable",
            Self::Interrupted(_) => "interrupted",
            Self::Answer(_) => "invalid_answer",
            Self::TaskEnded => "task_ended",
            Self::Unkept { .. } => "not_kept",
        }
    }
}

/// Calls a tool through a capability to the router. Dropping the future cancels the call.
///
/// ```
/// use neuroflow_actors::{InvokeError, ToolsCommand, invoke};
/// use neuroflow_kernel::{Address, Header};
/// async fn add(tools: &Address<ToolsCommand>) -> Result<Option<i64>, InvokeError> {
///     let sum = invoke(tools, Header::new(), "add", serde_json::json!({ "a": 1, "b": 2 })).await?;
///     Ok(sum.value().as_i64())
/// }
/// ```
///
/// # Errors
/// Says whether the tool isn't there or isn't granted, the arguments don't fit, or it failed.
pub async fn invoke(
    tools: &Address<ToolsCommand>,
    header: Header,
    tool: &str,
    arguments: impl serde::Serialize,
) -> Result<ToolResult, InvokeError> {
    invoke_told(tools, header, tool, arguments, |_progress| {}).await
}

/// The same, and tells how far the call has come while it goes on.
///
/// ```
/// use neuroflow_actors::{InvokeError, ToolResult, ToolsCommand, invoke_told};
/// use neuroflow_kernel::{Address, Header};
/// async fn build(tools: &Address<ToolsCommand>) -> Result<ToolResult, InvokeError> {
///     let make = serde_json::json!({ "command": ["make"] });
///     invoke_told(tools, Header::new(), "exec", make, |progress| println!("{}", progress.line)).await
/// }
/// ```
///
/// # Errors
/// Says whether the tool isn't there or isn't granted, the arguments don't fit, or it failed.
pub async fn invoke_told(
    tools: &Address<ToolsCommand>,
    header: Header,
    tool: &str,
    arguments: impl serde::Serialize,
    told: impl FnMut(ToolProgress),
) -> Result<ToolResult, InvokeError> {
    let arguments = serde_json::to_string(&arguments)?;
    ToolResult::read(&invoke_json(tools, header, tool, arguments, told).await?)
}

/// The same, from JSON to JSON.
pub(crate) async fn invoke_json(
    tools: &Address<ToolsCommand>,
    header: Header,
    tool: &str,
    arguments: String,
    mut told: impl FnMut(ToolProgress),
) -> Result<String, InvokeError> {
    let message = Invoke { tool: tool.to_owned(), arguments };
    let parcel = neuroflow_kernel::Parcel::archive(&message).map_err(AskError::from)?;
    let command = |replies| ToolsCommand::Invoke(Request { parcel, replies });
    let mut outcomes = tools.stream(header, command).await.map_err(AskError::from)?;
    while let Some(outcome) = outcomes.next().await {
        match outcome?.get() {
            ArchivedOutcome::Done { json } => return Ok(json.to_string()),
            ArchivedOutcome::Refused(refused) => return Err(refused.to_refused().into()),
            ArchivedOutcome::Progress(progress) => told(ToolProgress {
                written_bytes: progress.written_bytes.to_native(),
                line: progress.line.to_string(),
            }),
        }
    }
    Err(StreamError::Interrupted.into())
}

impl ArchivedRefused {
    pub(super) fn to_refused(&self) -> Refused {
        match self {
            Self::Unknown { tool } => Refused::Unknown { tool: tool.to_string() },
            Self::Argument { field, problem } => {
                Refused::Argument { field: field.to_string(), problem: problem.to_string() }
            }
            Self::Busy => Refused::Busy,
            Self::TimedOut => Refused::TimedOut,
            Self::Failed { code, message } => {
                Refused::Failed { code: code.to_string(), message: message.to_string() }
            }
        }
    }
}
