//! An agent's task as the result of a tool call, folded from its events. Pure.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use neuroflow_kernel::Parcel;
use rmcp::model::{CallToolResult, ContentBlock, Resource, ResourceContents};
use serde_json::{Map, Value, json};

use super::programs::Written;
use crate::agent::{
    ArchivedChange, ArchivedContent, ArchivedPart, AskRefusal, TaskEvent, TaskState,
};

/// What is known of a task.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) task: String,
    context: String,
    pub(super) state: Option<TaskState>,
    said: Vec<String>,
    /// What it said last while it worked.
    at_work: Option<String>,
    /// What a program has written so far.
    pub(super) written: u64,
    blocks: Vec<ContentBlock>,
    data: Vec<Value>,
    pub(super) refused: Option<AskRefusal>,
    pub(super) begun_ms: u64,
    pub(super) changed_ms: u64,
}

impl Outcome {
    pub(super) fn of(events: &[Parcel<TaskEvent>]) -> Self {
        let mut outcome = Self::default();
        for event in events {
            outcome.fold(event);
        }
        outcome
    }

    /// Takes an event; what a client would want to hear of it while it waits, if anything.
    pub(super) fn fold(&mut self, event: &Parcel<TaskEvent>) -> Option<String> {
        let event = event.get();
        if self.task.is_empty() {
            event.task.as_str().clone_into(&mut self.task);
            event.context.as_str().clone_into(&mut self.context);
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
                for part in artifact.parts.iter() {
                    self.take(part, *append, &artifact.id);
                }
                Some(format!("produced {}", artifact.name))
            }
        }
    }

    fn take(&mut self, part: &ArchivedPart, append: bool, artifact: &str) {
        let kind = part.media_type.as_ref().map(rkyv::string::ArchivedString::as_str);
        let block = match &part.content {
            ArchivedContent::Text(more) => {
                if let (true, Some(ContentBlock::Text(last))) = (append, self.blocks.last_mut()) {
                    last.text.push_str(more);
                    return;
                }
                ContentBlock::text(more.as_str())
            }
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
                        let name = part.filename.as_ref().map_or(artifact, |name| name.as_str());
                        let uri = format!("artifact:{artifact}/{name}");
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

    /// Whether it has produced something.
    pub(super) fn has_result(&self) -> bool {
        !self.blocks.is_empty() || !self.data.is_empty()
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
        let mut blocks = self.blocks;
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
        structured.insert("data".to_owned(), Value::Array(self.data));
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
        let Some(report) = self.data.pop().filter(|_| is_done) else {
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
    use crate::agent::{Artifact, Ask, Change, Content, Part, Turn};

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
        let outcome = Outcome::of(&events(vec![
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

    #[test]
    fn a_program_is_its_report_or_the_reason_that_there_is_none() {
        let ended = |report: &str| {
            let report = Artifact::new("report", vec![Content::Json(report.into()).into()]);
            let changes = vec![report.into(), status(TaskState::Completed, None)];
            serde_json::to_value(Outcome::of(&events(changes)).into_program_result()).unwrap()
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
            let result = Outcome::of(&events(vec![change])).into_program_result();
            let result = serde_json::to_value(result).unwrap();
            assert_eq!(
                (&result["isError"], &result["content"][0]["text"]),
                (&json!(true), &json!(words))
            );
        }
    }

    #[test]
    fn a_failure_is_an_error_with_words_and_a_question_is_none() {
        let failed = Outcome::of(&events(vec![status(TaskState::Failed, Some("no such city"))]));
        let result = serde_json::to_value(failed.into_result()).unwrap();
        assert_eq!(
            (&result["isError"], &result["content"][0]["text"]),
            (&json!(true), &json!("no such city"))
        );
        let asks =
            Outcome::of(&events(vec![status(TaskState::InputRequired, Some("which city?"))]));
        assert!(asks.is_settled());
        let result = serde_json::to_value(asks.into_result()).unwrap();
        assert_eq!(
            (&result["isError"], &result["content"][0]["text"]),
            (&json!(false), &json!("which city?"))
        );
    }
}
