//! An agent's task as a task of the protocol.

use std::fmt;

use rmcp::ErrorData;
use rmcp::model::{DetailedTask, JsonObject, Task, TaskPayload, TaskStatus};
use serde_json::{Value, json};

use super::callee::Callee;
use super::outcome::Outcome;
use crate::agent::TaskState;
use crate::limits::MCP_POLL;

/// What a client knows of a task by. Names have no slash, and neither have the ids of tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PublicId<'a> {
    /// The agent's name, or that of the tool.
    pub(super) tool: &'a str,
    pub(super) task: &'a str,
    /// The number of the event with which the call began: a task that has asked something is answered by another
    /// call, which comes to an end of its own. None for the task as a whole.
    pub(super) call: Option<u64>,
}

impl<'a> PublicId<'a> {
    pub(super) fn read(id: &'a str) -> Result<Self, ErrorData> {
        let (tool, task) = id.split_once('/').ok_or_else(unknown)?;
        let Some((task, call)) = task.split_once('/') else {
            return Ok(Self { tool, task, call: None });
        };
        let number = call.parse().ok().filter(|number: &u64| number.to_string() == call);
        Ok(Self { tool, task, call: Some(number.ok_or_else(unknown)?) })
    }

    fn of(tool: &'a str, outcome: &'a Outcome) -> Self {
        Self { tool, task: &outcome.task, call: Some(outcome.call) }
    }
}

impl fmt::Display for PublicId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tool, self.task)?;
        self.call.map_or(Ok(()), |call| write!(f, "/{call}"))
    }
}

/// The task's id, for an error after which it goes on; none if it hasn't begun.
pub(super) fn named(agent: &str, outcome: &Outcome) -> Option<Value> {
    let id = (!outcome.task.is_empty()).then(|| PublicId::of(agent, outcome))?;
    Some(json!({ "taskId": id.to_string() }))
}

pub(super) fn unknown() -> ErrorData {
    ErrorData::invalid_params("there is no such task", None)
}

/// The task of a call, without its result.
pub(super) fn task(agent: &str, outcome: &Outcome) -> Task {
    of_id(PublicId::of(agent, outcome).to_string(), outcome)
}

fn of_id(id: String, outcome: &Outcome) -> Task {
    let mut task =
        Task::new(id, TaskStatus::Working, time(outcome.begun_ms), time(outcome.changed_ms));
    task.status_message = outcome.status();
    let poll = u64::try_from(MCP_POLL.as_millis()).unwrap_or(u64::MAX);
    task.with_poll_interval_ms(poll)
}

/// The task of this id with what its state has. One that waits for its client has its question as its result:
/// the answer is a call of the agent with the task's id.
pub(super) fn detailed(
    id: String,
    callee: Callee<'_>,
    outcome: Outcome,
) -> Result<DetailedTask, ErrorData> {
    let task = of_id(id, &outcome);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written() {
        for (text, call) in [("a/t", None), ("a/t/1", Some(1)), ("a/t/20", Some(20))] {
            let id = PublicId::read(text).unwrap();
            assert_eq!(id, PublicId { tool: "a", task: "t", call });
            assert_eq!(id.to_string(), text);
        }
        for text in ["a", "", "a/t/", "a/t/x", "a/t/01", "a/t/+1", "a/t/1/2", "a/t/-1"] {
            assert!(PublicId::read(text).is_err(), "{text}");
        }
    }
}
