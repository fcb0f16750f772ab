//! An agent's task as a task of the protocol.

use rmcp::ErrorData;
use rmcp::model::{DetailedTask, JsonObject, Task, TaskPayload, TaskStatus};
use serde_json::{Value, json};

use super::callee::Callee;
use super::outcome::Outcome;
use crate::agent::TaskState;
use crate::limits::MCP_POLL;

/// The agent's name and the task's id, in one: a name has no slash.
pub(super) fn public_id(agent: &str, task: &str) -> String {
    format!("{agent}/{task}")
}

pub(super) fn parts(id: &str) -> Result<(&str, &str), ErrorData> {
    id.split_once('/').ok_or_else(unknown)
}

/// The task's id, for an error after which it goes on; none if it hasn't begun.
pub(super) fn named(agent: &str, outcome: &Outcome) -> Option<Value> {
    let id = (!outcome.task.is_empty()).then(|| public_id(agent, &outcome.task))?;
    Some(json!({ "taskId": id }))
}

pub(super) fn unknown() -> ErrorData {
    ErrorData::invalid_params("there is no such task", None)
}

/// The task without its result.
pub(super) fn task(agent: &str, outcome: &Outcome) -> Task {
    let id = public_id(agent, &outcome.task);
    let mut task =
        Task::new(id, TaskStatus::Working, time(outcome.begun_ms), time(outcome.changed_ms));
    task.status_message = outcome.status();
    let poll = u64::try_from(MCP_POLL.as_millis()).unwrap_or(u64::MAX);
    task.with_poll_interval_ms(poll)
}

/// The task with what its state has. One that waits for its client has its question as its result:
/// the answer is a call of the agent with the task's id.
pub(super) fn detailed(callee: Callee<'_>, outcome: Outcome) -> Result<DetailedTask, ErrorData> {
    let task = task(callee.name(), &outcome);
    let payload = match outcome.state {
        _ if !outcome.is_settled() => TaskPayload::Working,
        Some(TaskState::Canceled) => TaskPayload::Cancelled,
        _ => TaskPayload::Completed { result: object(callee, outcome)? },
    };
    Ok(DetailedTask::new(task, payload))
}

fn object(callee: Callee<'_>, outcome: Outcome) -> Result<JsonObject, ErrorData> {
    match serde_json::to_value(callee.result(outcome)) {
        Ok(Value::Object(object)) => Ok(object),
        _ => Err(ErrorData::internal_error("the result can't be written", None)),
    }
}

/// RFC 3339 in UTC with milliseconds.
fn time(unix_ms: u64) -> String {
    i64::try_from(unix_ms)
        .ok()
        .and_then(chrono::DateTime::from_timestamp_millis)
        .map(|time| time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
        .unwrap_or_default()
}
