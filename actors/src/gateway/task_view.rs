//! A task as A2A shows it, folded from its events: pure.

use a2a_pb::protojson as pb;
use neuroflow_kernel::Parcel;
use serde_json::Value;

use super::convert;
use super::error::A2aError;
use crate::agent::{ArchivedChange, TaskEvent, TaskState};

/// The events of one task, folded one by one.
#[derive(Debug)]
pub(super) struct TaskView {
    task: pb::Task,
    state: TaskState,
    changed_ms: u64,
}

impl TaskView {
    pub(super) fn new() -> Self {
        let status = pb::TaskStatus { state: 0, message: None, timestamp: None };
        let task = pb::Task { status: Some(status), ..pb::Task::default() };
        Self { task, state: TaskState::Submitted, changed_ms: 0 }
    }

    pub(super) fn of(events: &[Parcel<TaskEvent>]) -> Self {
        let mut view = Self::new();
        for event in events {
            view.fold(event);
        }
        view
    }

    pub(super) fn fold(&mut self, event: &Parcel<TaskEvent>) {
        let event = event.get();
        match &event.change {
            ArchivedChange::Accepted { ask } => {
                event.task.as_str().clone_into(&mut self.task.id);
                event.context.as_str().clone_into(&mut self.task.context_id);
                self.changed_ms = event.at_ms.to_native();
                let said = convert::message(&ask.turn, &event.task, &event.context);
                self.task.history.push(said);
            }
            ArchivedChange::Continued { ask } => {
                let said = convert::message(&ask.turn, &event.task, &event.context);
                let former = self.task.status.as_mut().and_then(|status| status.message.take());
                self.task.history.extend(former);
                self.task.history.push(said);
            }
            ArchivedChange::Status { state, turn } => {
                self.state = TaskState::from(*state);
                self.changed_ms = event.at_ms.to_native();
                let said =
                    turn.as_ref().map(|turn| convert::message(turn, &event.task, &event.context));
                let former = self
                    .task
                    .status
                    .as_mut()
                    .and_then(|status| std::mem::replace(&mut status.message, said));
                self.task.history.extend(former);
            }
            ArchivedChange::Artifact { artifact, append, .. } => {
                let piece = convert::artifact(artifact);
                let same = |former: &&mut pb::Artifact| former.artifact_id == piece.artifact_id;
                match self.task.artifacts.iter_mut().find(same) {
                    Some(former) if *append => former.parts.extend(piece.parts),
                    Some(former) => *former = piece,
                    None => self.task.artifacts.push(piece),
                }
            }
            ArchivedChange::Refused(_) => {}
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.task.id
    }

    pub(super) fn state(&self) -> TaskState {
        self.state
    }

    /// `ProtoJSON`, with at most `history` of the latest messages.
    pub(super) fn into_json(mut self, history: Option<usize>) -> Result<Value, A2aError> {
        if let Some(kept) = history {
            let surplus = self.task.history.len().saturating_sub(kept);
            self.task.history.drain(..surplus);
        }
        if let Some(status) = &mut self.task.status {
            status.state = i32::from(convert::state(self.state));
        }
        let has_data = has_data(&self.task);
        let mut json = serde_json::to_value(&self.task).map_err(|_cannot| A2aError::Unwritable)?;
        if has_data {
            convert::whole_numbers(&mut json);
        }
        if let Some(status) = json.get_mut("status").and_then(Value::as_object_mut) {
            status.insert("timestamp".to_owned(), Value::String(timestamp(self.changed_ms)));
        }
        Ok(json)
    }
}

/// Whether a task carries JSON of somebody else's.
fn has_data(task: &pb::Task) -> bool {
    let status = task.status.iter().filter_map(|status| status.message.as_ref());
    let messages = task.history.iter().chain(status).flat_map(|message| &message.parts);
    let artifacts = task.artifacts.iter().flat_map(|artifact| &artifact.parts);
    let is_data = |part: &pb::Part| {
        part.metadata.is_some() || matches!(part.content, Some(pb::part::Content::Data(_)))
    };
    messages.chain(artifacts).any(is_data)
}

/// RFC 3339 in UTC with milliseconds and `Z`, as A2A writes it.
fn timestamp(unix_ms: u64) -> String {
    i64::try_from(unix_ms)
        .ok()
        .and_then(chrono::DateTime::from_timestamp_millis)
        .map(|time| time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::{Artifact, Ask, Change, Content, Turn};

    fn event(generation: u64, change: Change) -> Parcel<TaskEvent> {
        let event = TaskEvent {
            task: "t1".into(),
            context: "c1".into(),
            generation,
            at_ms: 1_700_000_000_123 + generation,
            change,
        };
        Parcel::archive(&event).unwrap()
    }

    fn said(text: &str) -> Change {
        Change::Status { state: TaskState::Working, turn: Some(Turn::agent(text)) }
    }

    #[test]
    fn events_fold_into_the_task_that_a2a_shows() {
        let events = [
            event(1, Change::Accepted { ask: Ask::new(Turn::user("hi")) }),
            event(2, said("one moment")),
            event(3, Artifact::text("answer", "hello").into()),
            event(4, Change::Status { state: TaskState::Completed, turn: None }),
        ];
        let json = TaskView::of(&events).into_json(None).unwrap();
        assert_eq!(json["id"], "t1");
        assert_eq!(json["contextId"], "c1");
        assert_eq!(json["status"]["state"], "TASK_STATE_COMPLETED");
        assert_eq!(json["status"]["timestamp"], "2023-11-14T22:13:20.127Z");
        assert_eq!(json["artifacts"][0]["parts"][0]["text"], "hello");
        assert_eq!(json["history"][0]["role"], "ROLE_USER");
        assert_eq!(json["history"][1]["parts"][0]["text"], "one moment");
    }

    #[test]
    fn whole_numbers_stay_whole() {
        let json = Content::Json(r#"{"a":[0,1.5,-3],"b":9007199254740993}"#.into());
        let events = [
            event(1, Change::Accepted { ask: Ask::new(Turn::user("hi")) }),
            event(2, Artifact::new("data", vec![json.into()]).into()),
        ];
        let json = TaskView::of(&events).into_json(None).unwrap();
        let data = &json["artifacts"][0]["parts"][0]["data"];
        assert_eq!(data.to_string(), r#"{"a":[0,1.5,-3],"b":9007199254740992}"#);
    }

    #[test]
    fn history_is_cut_from_the_front_and_zero_omits_it() {
        let events = [
            event(1, Change::Accepted { ask: Ask::new(Turn::user("hi")) }),
            event(2, said("a")),
            event(3, said("b")),
        ];
        let json = TaskView::of(&events).into_json(Some(1)).unwrap();
        assert_eq!(json["history"].as_array().unwrap().len(), 1);
        assert_eq!(json["history"][0]["parts"][0]["text"], "a");
        assert_eq!(json["status"]["message"]["parts"][0]["text"], "b");
        assert_eq!(TaskView::of(&events).into_json(Some(0)).unwrap().get("history"), None);
    }
}
