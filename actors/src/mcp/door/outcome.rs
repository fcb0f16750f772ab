//! An agent's task as the result of a tool call, folded from its events. Pure.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use neuroflow_kernel::Parcel;
use rkyv::Archived;
use rmcp::model::{CallToolResult, ContentBlock, Resource, ResourceContents};
use serde_json::{Map, Value, json};

use super::programs::Written;
use crate::agent::{
    ArchivedChange, ArchivedContent, ArchivedPart, AskRefusal, Part, TaskEvent, TaskState,
};

/// What is known of a task, from one call of it on.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) task: String,
    /// The number of the event with which that began.
    pub(super) call: u64,
    /// Whether the call is over, and more of the task has come after it.
    pub(super) is_past: bool,
    context: String,
    pub(super) state: Option<TaskState>,
    said: Vec<String>,
    /// What it said last while it worked.
    at_work: Option<String>,
    /// What a program has written so far.
    pub(super) written: u64,
    produced: Vec<Produced>,
    pub(super) refused: Option<AskRefusal>,
    pub(super) begun_ms: u64,
    pub(super) changed_ms: u64,
}

/// What an artifact has become.
#[derive(Debug, Default)]
struct Produced {
    id: String,
    blocks: Vec<ContentBlock>,
    data: Vec<Value>,
    /// Whether it ends with a text, which may go on.
    is_open: bool,
}

impl Outcome {
    /// Of the call that began with the event of this number, up to where it's settled; of all calls without. None if
    /// no call has begun there.
    pub(super) fn since(events: &[Parcel<TaskEvent>], call: Option<u64>) -> Option<Self> {
        let mut outcome = Self::default();
        let Some(call) = call else {
            for event in events {
                outcome.fold(event);
            }
            return Some(outcome);
        };
        let at = events.iter().position(|event| event.get().generation.to_native() == call)?;
        let (first, rest) = events.get(at..)?.split_first()?;
        let change = &first.get().change;
        if !matches!(change, ArchivedChange::Accepted { .. } | ArchivedChange::Continued { .. }) {
            return None;
        }
        outcome.fold(first);
        for event in rest {
            // What the client says next is another call's.
            outcome.is_past = outcome.is_settled();
            if outcome.is_past {
                break;
            }
            outcome.fold(event);
        }
        Some(outcome)
    }

    /// Takes an event; what a client would want to hear of it while it waits, if anything.
    pub(super) fn fold(&mut self, event: &Parcel<TaskEvent>) -> Option<String> {
        let event = event.get();
        if self.task.is_empty() {
            event.task.as_str().clone_into(&mut self.task);
            event.context.as_str().clone_into(&mut self.context);
            self.call = event.generation.to_native();
            self.begun_ms = event.at_ms.to_native();
        }
        self.changed_ms = event.at_ms.to_native();
        match &event.change {
            ArchivedChange::Accepted { .. } | ArchivedChange::Continued { .. } => None,
            ArchivedChange::Refused(refusal) => {
                self.refused = Some(refusal.into());
                None
            }
            ArchivedChange::Status { state, turn } => {
                let state = TaskState::from(*state);
                self.state = Some(state);
                let parts = || turn.iter().flat_map(|turn| turn.parts.iter());
                let said: Vec<String> = parts().filter_map(text).collect();
                if state == TaskState::Working {
                    let written = parts().find_map(written);
                    self.written = written.unwrap_or(self.written);
                    let unsaid = written.map(|bytes| format!("{bytes} bytes written"));
                    let heard = if said.is_empty() { unsaid } else { Some(said.join("\n")) };
                    self.at_work = heard.clone().or(self.at_work.take());
                    return heard;
                }
                self.said = said;
                None
            }
            ArchivedChange::Artifact { artifact, append, .. } => {
                self.artifact(&artifact.id, *append).take(&artifact.parts, *append);
                Some(format!("produced {}", artifact.name))
            }
        }
    }

    /// The artifact of this id, which stands where it was first: empty unless something is added to it.
    fn artifact(&mut self, id: &str, append: bool) -> &mut Produced {
        let empty = || Produced { id: id.to_owned(), ..Produced::default() };
        let found = self.produced.iter().position(|former| former.id == id);
        let at = found.unwrap_or_else(|| {
            self.produced.push(empty());
            self.produced.len() - 1
        });
        let produced = &mut self.produced[at];
        if !append {
            *produced = empty();
        }
        produced
    }

    /// Whether it has produced something.
    pub(super) fn has_result(&self) -> bool {
        self.produced.iter().any(|it| !it.blocks.is_empty() || !it.data.is_empty())
    }

    /// Whether there is nothing more to wait for, until the client says something.
    pub(super) fn is_settled(&self) -> bool {
        self.refused.is_some()
            || self.state.is_some_and(|state| state.is_terminal() || state.is_interrupted())
    }

    /// What the agent says of its state.
    pub(super) fn words(&self) -> Option<String> {
        (!self.said.is_empty()).then(|| self.said.join("\n"))
    }

    /// What a client that asks is told of the state: while the agent works, what it said last.
    pub(super) fn status(&self) -> Option<String> {
        self.words().or_else(|| self.at_work.clone().filter(|_| !self.is_settled()))
    }

    /// The result of the call.
    pub(super) fn into_result(self) -> CallToolResult {
        let failed = match self.state {
            Some(TaskState::Failed | TaskState::Rejected | TaskState::Canceled) => true,
            _ => self.refused.is_some(),
        };
        let (mut blocks, mut data) = (Vec::new(), Vec::new());
        for produced in self.produced {
            blocks.extend(produced.blocks);
            data.extend(produced.data);
        }
        if let Some(refused) = &self.refused {
            blocks.push(ContentBlock::text(refused.to_string()));
        }
        blocks.extend(self.said.iter().map(ContentBlock::text));
        if blocks.is_empty() && failed {
            let state = self.state.map_or("unfinished", TaskState::as_str);
            blocks.push(ContentBlock::text(format!("the task is {state}")));
        }
        let mut structured = Map::new();
        structured.insert("taskId".to_owned(), json!(self.task));
        structured.insert("contextId".to_owned(), json!(self.context));
        structured.insert("state".to_owned(), json!(self.state.map_or("", TaskState::as_str)));
        structured.insert("data".to_owned(), Value::Array(data));
        let structured = Value::Object(structured);
        if self.state.is_some_and(TaskState::is_interrupted) {
            // Who shows a model the text alone shows it what to answer to.
            blocks.push(ContentBlock::text(structured.to_string()));
        }
        let mut result =
            if failed { CallToolResult::error(blocks) } else { CallToolResult::success(blocks) };
        result.structured_content = Some(structured);
        result
    }
}

impl Outcome {
    /// The result of a program's call: what it wrote and how it ended. One that didn't end with status 0
    /// has failed.
    pub(super) fn into_program_result(mut self) -> CallToolResult {
        let is_done = self.state == Some(TaskState::Completed);
        let report = self.produced.last_mut().and_then(|produced| produced.data.pop());
        let Some(report) = report.filter(|_| is_done) else {
            let words = self.words().or(self.refused.map(|refused| refused.to_string()));
            let state = self.state.map_or("unfinished", TaskState::as_str);
            let words = words.unwrap_or_else(|| format!("the program is {state}"));
            return CallToolResult::error(vec![ContentBlock::text(words)]);
        };
        let blocks = vec![ContentBlock::text(report.to_string())];
        let mut result = if report.get("exit_code").and_then(Value::as_i64) == Some(0) {
            CallToolResult::success(blocks)
        } else {
            CallToolResult::error(blocks)
        };
        result.structured_content = Some(report);
        result
    }
}

impl Produced {
    fn take(&mut self, parts: &Archived<Vec<Part>>, append: bool) {
        for (index, part) in parts.iter().enumerate() {
            // A text that comes in pieces is one.
            let goes_on = append && index == 0 && self.is_open;
            self.is_open = matches!(part.content, ArchivedContent::Text(_));
            match (&part.content, self.blocks.last_mut()) {
                (ArchivedContent::Text(more), Some(ContentBlock::Text(last))) if goes_on => {
                    last.text.push_str(more);
                }
                _ => self.take_part(part),
            }
        }
    }

    fn take_part(&mut self, part: &ArchivedPart) {
        let kind = part.media_type.as_ref().map(rkyv::string::ArchivedString::as_str);
        let block = match &part.content {
            ArchivedContent::Text(text) => ContentBlock::text(text.as_str()),
            ArchivedContent::Json(json) => {
                if let Ok(value) = serde_json::from_str(json) {
                    self.data.push(value);
                }
                ContentBlock::text(json.as_str())
            }
            ArchivedContent::Bytes(bytes) => {
                let data = BASE64_STANDARD.encode(bytes);
                match kind {
                    Some(kind) if kind.starts_with("image/") => ContentBlock::image(data, kind),
                    Some(kind) if kind.starts_with("audio/") => ContentBlock::audio(data, kind),
                    _ => {
                        let name = part.filename.as_ref().map_or(&*self.id, |name| name.as_str());
                        let uri = format!("artifact:{}/{name}", self.id);
                        let blob = ResourceContents::blob(data, uri);
                        ContentBlock::resource(match kind {
                            Some(kind) => blob.with_mime_type(kind),
                            None => blob,
                        })
                    }
                }
            }
            ArchivedContent::Url(url) => {
                let name = part.filename.as_ref().map_or(url.as_str(), |name| name.as_str());
                let mut link = Resource::new(url.as_str(), name);
                link.mime_type = kind.map(ToOwned::to_owned);
                ContentBlock::resource_link(link)
            }
        };
        self.blocks.push(block);
    }
}

fn text(part: &ArchivedPart) -> Option<String> {
    match &part.content {
        ArchivedContent::Text(text) => Some(text.to_string()),
        _ => None,
    }
}

/// What a program has written, if it's the part that says so.
fn written(part: &ArchivedPart) -> Option<u64> {
    match &part.content {
        ArchivedContent::Json(json) => Written::bytes_of(json),
        _ => None,
    }
}

/// The JSON Schema of the structured part.
pub(super) fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "taskId": { "type": "string", "description": "The task, to continue it with." },
            "contextId": { "type": "string", "description": "The conversation." },
            "state": { "type": "string", "description": "Where the task stands." },
            "data": { "type": "array", "description": "What it produced as JSON." }
        },
        "required": ["taskId", "contextId", "state", "data"]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::{Artifact, Ask, Change, Content, Turn};

    fn events(changes: Vec<Change>) -> Vec<Parcel<TaskEvent>> {
        let numbered = changes.into_iter().zip(1..);
        let event = |(change, generation)| TaskEvent {
            task: "t1".into(),
            context: "c1".into(),
            generation,
            at_ms: 1_000 + generation,
            change,
        };
        numbered.map(event).map(|event| Parcel::archive(&event).unwrap()).collect()
    }

    fn whole(events: &[Parcel<TaskEvent>]) -> Outcome {
        Outcome::since(events, None).unwrap()
    }

    fn status(state: TaskState, said: Option<&str>) -> Change {
        Change::Status { state, turn: said.map(Turn::agent) }
    }

    #[test]
    fn parts_become_the_blocks_that_they_are() {
        let image = Part { media_type: Some("image/png".into()), ..Content::Bytes(vec![0]).into() };
        let bytes = Part { filename: Some("a.bin".into()), ..Content::Bytes(vec![1]).into() };
        let parts = vec![
            Content::Text("hello".into()).into(),
            Content::Json(r#"{"a":1}"#.into()).into(),
            image,
            bytes,
            Content::Url("https://a.example/x".into()).into(),
        ];
        let outcome = whole(&events(vec![
            Change::Accepted { ask: Ask::new(Turn::user("hi")) },
            status(TaskState::Working, Some("one moment")),
            Artifact::new("answer", parts).into(),
            status(TaskState::Completed, None),
        ]));
        assert!(outcome.is_settled());
        let result = serde_json::to_value(outcome.into_result()).unwrap();
        let kinds: Vec<&str> = result["content"]
            .as_array()
            .unwrap()
            .iter()
            .map(|b| b["type"].as_str().unwrap())
            .collect();
        assert_eq!(kinds, ["text", "text", "image", "resource", "resource_link"]);
        assert_eq!(result["isError"], false);
        assert_eq!(result["structuredContent"]["data"], json!([{ "a": 1 }]));
        assert_eq!(result["structuredContent"]["contextId"], "c1");
        let schema = jsonschema::validator_for(&schema()).unwrap();
        assert!(schema.is_valid(&result["structuredContent"]));
    }

    fn piece(id: &str, parts: &[Content], append: bool) -> Change {
        let parts = parts.iter().cloned().map(Part::from).collect();
        let artifact = Artifact { id: id.into(), ..Artifact::new(id, parts) };
        Change::Artifact { artifact, append, last: false }
    }

    #[test]
    fn pieces_belong_to_the_artifact_of_their_id_and_a_whole_one_replaces_it() {
        let text = |text: &str| Content::Text(text.into());
        let json = |json: &str| Content::Json(json.into());
        let outcome = whole(&events(vec![
            piece("log", &[text("a")], false),
            piece("answer", &[text("draft"), json("1")], false),
            piece("log", &[text("b"), text("c")], true),
            piece("count", &[json("2")], false),
            piece("count", &[text("d")], true),
            piece("answer", &[text("final"), json("3")], false),
        ]));
        let result = serde_json::to_value(outcome.into_result()).unwrap();
        let blocks = result["content"].as_array().unwrap().iter();
        let texts: Vec<&str> = blocks.map(|block| block["text"].as_str().unwrap()).collect();
        assert_eq!(texts, ["ab", "c", "final", "3", "2", "d"]);
        assert_eq!(result["structuredContent"]["data"], json!([3, 2]));
    }

    #[test]
    fn a_call_is_settled_once_and_what_comes_later_is_of_the_next() {
        let ask = |text: &str| Ask::new(Turn::user(text));
        let events = events(vec![
            Change::Accepted { ask: ask("go") },
            status(TaskState::InputRequired, Some("which city?")),
            Change::Continued { ask: ask("Rome") },
            status(TaskState::Working, None),
            Artifact::text("answer", "Rome it is").into(),
            status(TaskState::Completed, None),
        ]);
        let first = |events| {
            let outcome = Outcome::since(events, Some(1)).unwrap();
            assert!(outcome.is_settled());
            (outcome.is_past, serde_json::to_value(outcome.into_result()).unwrap())
        };
        let (was_past, before) = first(&events[..2]);
        let (is_past, after) = first(&events);
        assert_eq!(((was_past, is_past), &before), ((false, true), &after));
        let second = Outcome::since(&events[..4], Some(3)).unwrap();
        assert!(!second.is_settled() && second.call == 3);
        let result = Outcome::since(&events, Some(3)).unwrap().into_result();
        let result = serde_json::to_value(result).unwrap();
        assert_eq!(result["content"], json!([{ "type": "text", "text": "Rome it is" }]));
        // No call has begun there.
        assert!([0, 2, 4, 7].into_iter().all(|call| Outcome::since(&events, Some(call)).is_none()));
    }

    #[test]
    fn a_program_is_its_report_or_the_reason_that_there_is_none() {
        let ended = |report: &str| {
            let report = Artifact::new("report", vec![Content::Json(report.into()).into()]);
            let changes = vec![report.into(), status(TaskState::Completed, None)];
            serde_json::to_value(whole(&events(changes)).into_program_result()).unwrap()
        };
        let fine = ended(r#"{"exit_code":0,"stdout":"x"}"#);
        assert_eq!(
            (&fine["isError"], &fine["structuredContent"]["stdout"]),
            (&json!(false), &json!("x"))
        );
        assert_eq!(ended(r#"{"exit_code":null,"signal":9}"#)["isError"], true);
        for (change, words) in [
            (status(TaskState::Failed, Some("no such program")), "no such program"),
            (status(TaskState::Canceled, None), "the program is canceled"),
            (Change::Refused(AskRefusal::Busy), "the agent is busy"),
        ] {
            let result = whole(&events(vec![change])).into_program_result();
            let result = serde_json::to_value(result).unwrap();
            assert_eq!(
                (&result["isError"], &result["content"][0]["text"]),
                (&json!(true), &json!(words))
            );
        }
    }

    #[test]
    fn a_failure_is_an_error_with_words_and_a_question_is_none() {
        let failed = whole(&events(vec![status(TaskState::Failed, Some("no such city"))]));
        let result = serde_json::to_value(failed.into_result()).unwrap();
        assert_eq!(
            (&result["isError"], &result["content"][0]["text"]),
            (&json!(true), &json!("no such city"))
        );
        let asks = whole(&events(vec![status(TaskState::InputRequired, Some("which city?"))]));
        assert!(asks.is_settled());
        let result = serde_json::to_value(asks.into_result()).unwrap();
        assert_eq!(
            (&result["isError"], &result["content"][0]["text"]),
            (&json!(false), &json!("which city?"))
        );
    }
}
