//! A task as A2A shows it, folded from its events, and each event as an update: pure.

use a2a_pb::protojson as pb;
use neuroflow_kernel::Parcel;
use rkyv::Archived;
use serde_json::Value;

use super::convert;
use super::error::A2aError;
use crate::agent::{
    ArchivedArtifact, ArchivedChange, ArchivedContent, ArchivedTurn, INVALID_RESPONSE, TaskEvent,
    TaskState,
};

/// The events of one task, folded one by one.
#[derive(Debug)]
pub(super) struct TaskView {
    task: pb::Task,
    state: TaskState,
    message: Option<pb::Message>,
    changed_ms: u64,
    generation: u64,
}

impl TaskView {
    pub(super) fn new() -> Self {
        Self {
            task: pb::Task::default(),
            state: TaskState::Submitted,
            message: None,
            changed_ms: 0,
            generation: 0,
        }
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
        self.generation = event.generation.to_native();
        let message = |turn: &ArchivedTurn| convert::message(turn, &event.task, &event.context);
        match &event.change {
            ArchivedChange::Accepted { ask } => {
                event.task.as_str().clone_into(&mut self.task.id);
                event.context.as_str().clone_into(&mut self.task.context_id);
                self.changed_ms = event.at_ms.to_native();
                self.task.history.push(message(&ask.turn));
            }
            ArchivedChange::Continued { ask } => {
                // What the client answers belongs before its answer.
                self.task.history.extend(self.message.take());
                self.task.history.push(message(&ask.turn));
            }
            ArchivedChange::Status { state, turn } => {
                self.state = TaskState::from(*state);
                self.changed_ms = event.at_ms.to_native();
                let said = turn.as_ref().map(message);
                self.task.history.extend(std::mem::replace(&mut self.message, said));
            }
            ArchivedChange::Artifact { artifact, append, .. } => self.produce(artifact, *append),
            ArchivedChange::Refused(_) => {}
        }
    }

    fn produce(&mut self, artifact: &ArchivedArtifact, append: bool) {
        let piece = convert::artifact(artifact);
        let same = |former: &&mut pb::Artifact| former.artifact_id == piece.artifact_id;
        match self.task.artifacts.iter_mut().find(same) {
            Some(former) if append => former.parts.extend(piece.parts),
            Some(former) => *former = piece,
            None => self.task.artifacts.push(piece),
        }
    }

    pub(super) fn state(&self) -> TaskState {
        self.state
    }

    /// The number of the last event in it.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// The task, with at most `history` of the latest messages.
    pub(super) fn to_task(&self, history: Option<usize>) -> pb::Task {
        let messages = &self.task.history;
        let surplus = history.map_or(0, |kept| messages.len().saturating_sub(kept));
        pb::Task {
            id: self.task.id.clone(),
            context_id: self.task.context_id.clone(),
            artifacts: self.task.artifacts.clone(),
            history: messages.get(surplus..).unwrap_or_default().to_vec(),
            metadata: None,
            status: Some(status(self.state, self.message.clone(), self.changed_ms)),
        }
    }

    /// As [`to_task`](Self::to_task), where the view isn't needed any more.
    pub(super) fn into_task(mut self, history: Option<usize>) -> pb::Task {
        if let Some(kept) = history {
            let surplus = self.task.history.len().saturating_sub(kept);
            self.task.history.drain(..surplus);
        }
        self.task.status = Some(status(self.state, self.message, self.changed_ms));
        self.task
    }
}

fn status(state: TaskState, message: Option<pb::Message>, at_ms: u64) -> pb::TaskStatus {
    let timestamp = Some(convert::timestamp(at_ms));
    pb::TaskStatus { state: i32::from(convert::state(state)), message, timestamp }
}

/// An event as the update that its followers get; none for what the client itself has said.
pub(super) fn update(event: &Archived<TaskEvent>) -> Option<pb::StreamResponse> {
    use pb::stream_response::Payload;
    let (task_id, context_id) = (event.task.to_string(), event.context.to_string());
    let payload = match &event.change {
        ArchivedChange::Status { state, turn } => {
            let said =
                turn.as_ref().map(|turn| convert::message(turn, &event.task, &event.context));
            let status = Some(status((*state).into(), said, event.at_ms.to_native()));
            Payload::StatusUpdate(pb::TaskStatusUpdateEvent {
                task_id,
                context_id,
                status,
                metadata: None,
            })
        }
        ArchivedChange::Artifact { artifact, append, last } => {
            Payload::ArtifactUpdate(pb::TaskArtifactUpdateEvent {
                task_id,
                context_id,
                artifact: Some(convert::artifact(artifact)),
                append: *append,
                last_chunk: *last,
                metadata: None,
            })
        }
        ArchivedChange::Accepted { .. }
        | ArchivedChange::Continued { .. }
        | ArchivedChange::Refused(_) => return None,
    };
    Some(pb::StreamResponse { payload: Some(payload) })
}

/// That the task has failed because its agent has said what nobody can be told.
pub(super) fn invalid_reply(event: &Archived<TaskEvent>) -> Option<A2aError> {
    let ArchivedChange::Status { state, turn } = &event.change else { return None };
    let turn = turn.as_ref().filter(|_| TaskState::from(*state) == TaskState::Failed)?;
    let metadata: Value = serde_json::from_str(turn.metadata.as_ref()?).ok()?;
    if metadata["neuroflow"]["reason"] != INVALID_RESPONSE {
        return None;
    }
    let problem = turn.parts.first().and_then(|part| match &part.content {
        ArchivedContent::Text(text) => Some(text.to_string()),
        _ => None,
    });
    let (task, problem) = (event.task.to_string(), problem.unwrap_or_default());
    Some(A2aError::InvalidAgentResponse { task, problem })
}

/// The state that an event leads to, if it's one that changes it.
pub(super) fn state_after(event: &Archived<TaskEvent>) -> Option<TaskState> {
    match &event.change {
        ArchivedChange::Status { state, .. } => Some((*state).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::json::{Json, write};
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

    fn shown(task: &pb::Task) -> serde_json::Value {
        serde_json::from_slice(&write(&Json(task)).unwrap()).unwrap()
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
        let json = shown(&TaskView::of(&events).into_task(None));
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
        let data = Content::Json(r#"{"a":[0,1.5,-3],"b":9007199254740993}"#.into());
        let events = [
            event(1, Change::Accepted { ask: Ask::new(Turn::user("hi")) }),
            event(2, Artifact::new("data", vec![data.into()]).into()),
        ];
        let json = shown(&TaskView::of(&events).into_task(None));
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
        let json = shown(&TaskView::of(&events).into_task(Some(1)));
        assert_eq!(json["history"].as_array().unwrap().len(), 1);
        assert_eq!(json["history"][0]["parts"][0]["text"], "a");
        assert_eq!(json["status"]["message"]["parts"][0]["text"], "b");
        assert_eq!(shown(&TaskView::of(&events).into_task(Some(0))).get("history"), None);
    }

    #[test]
    fn pieces_of_an_artifact_are_put_together_and_a_first_piece_begins_anew() {
        let piece = |text: &str, append| {
            let artifact = Artifact { id: "a".into(), ..Artifact::text("log", text) };
            Change::Artifact { artifact, append, last: false }
        };
        let events = [
            event(1, Change::Accepted { ask: Ask::new(Turn::user("hi")) }),
            event(2, piece("lost", false)),
            event(3, piece("one", false)),
            event(4, piece("two", true)),
            event(5, Artifact::text("other", "x").into()),
        ];
        let json = shown(&TaskView::of(&events).into_task(None));
        let parts = json["artifacts"][0]["parts"].as_array().unwrap();
        assert_eq!(
            (parts.len(), &parts[0]["text"], &parts[1]["text"]),
            (2, &"one".into(), &"two".into())
        );
        assert_eq!(json["artifacts"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn a_conversation_is_in_the_order_in_which_it_was_held() {
        let ask = |text: &str| Ask::new(Turn::user(text));
        let state = |state, text: &str| Change::Status { state, turn: Some(Turn::agent(text)) };
        let events = [
            event(1, Change::Accepted { ask: ask("tea") }),
            event(2, state(TaskState::InputRequired, "which?")),
            event(3, Change::Continued { ask: ask("green") }),
            event(4, Change::Status { state: TaskState::Working, turn: None }),
            event(5, state(TaskState::Completed, "done")),
        ];
        let json = shown(&TaskView::of(&events).into_task(None));
        let texts: Vec<&str> = json["history"]
            .as_array()
            .unwrap()
            .iter()
            .map(|message| message["parts"][0]["text"].as_str().unwrap())
            .collect();
        assert_eq!(texts, ["tea", "which?", "green"]);
        assert_eq!(json["status"]["message"]["parts"][0]["text"], "done");
    }

    #[test]
    fn the_client_gets_no_update_of_what_it_said_itself() {
        let given = event(1, Change::Accepted { ask: Ask::new(Turn::user("hi")) });
        assert!(update(given.get()).is_none());
        let artifact = Artifact::text("log", "x");
        let given = event(2, Change::Artifact { artifact, append: true, last: false });
        let update = update(given.get()).unwrap();
        let json: serde_json::Value =
            serde_json::from_slice(&write(&Json(&update)).unwrap()).unwrap();
        assert_eq!(json["artifactUpdate"]["append"], true);
        assert_eq!(json["artifactUpdate"].get("lastChunk"), None);
        assert_eq!(json["artifactUpdate"]["artifact"]["parts"][0]["text"], "x");
    }
}
