//! What an agent has produced, as a chat completion or as its chunks: pure.
//!
//! An agent says tool calls, and how many tokens it has used, by a JSON part with the members
//! `tool_calls` or `usage`; `content` beside them is text. Without its word nothing is known of tokens,
//! and nothing is said.

use rkyv::Archived;
use serde::Serialize;
use serde_json::{Value, json};

use crate::agent::{ArchivedContent, Artifact};

/// What is said once per completion.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) id: String,
    pub(super) model: String,
    pub(super) created: u64,
}

/// What was answered so far.
#[derive(Debug, Default)]
pub(super) struct Reading {
    text: String,
    /// Whether there was any, which may be told already.
    has_text: bool,
    /// Whether what is told isn't needed any more.
    forgets: bool,
    tool_calls: Vec<Value>,
    usage: Option<Value>,
    /// JSON that isn't an answer by itself, the first of it.
    data: Option<String>,
}

/// What a piece of output adds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Delta {
    Text(String),
    ToolCalls(Vec<Value>),
}

impl Reading {
    /// From now on texts are only told, and not kept for the whole completion.
    pub(super) fn forget(&mut self) {
        self.forgets = true;
    }

    /// Bytes of the text that is kept.
    pub(super) fn bytes(&self) -> usize {
        self.text.len()
    }

    /// Takes an artifact, or a piece of one; gives what is new.
    pub(super) fn take(&mut self, artifact: &Archived<Artifact>) -> Vec<Delta> {
        let mut deltas = Vec::new();
        for part in artifact.parts.iter() {
            match &part.content {
                ArchivedContent::Text(text) => self.text(text, &mut deltas),
                ArchivedContent::Url(url) => self.text(url, &mut deltas),
                ArchivedContent::Json(json) => self.json(json, &mut deltas),
                // Bytes have no place in a text.
                ArchivedContent::Bytes(_) => {}
            }
        }
        deltas
    }

    /// Takes what the agent asks its client: the completion ends with it.
    pub(super) fn ask(&mut self, question: &str) -> Vec<Delta> {
        let mut deltas = Vec::new();
        self.text(question, &mut deltas);
        deltas
    }

    fn text(&mut self, text: &str, deltas: &mut Vec<Delta>) {
        if !text.is_empty() {
            self.has_text = true;
            if !self.forgets {
                self.text.push_str(text);
            }
            deltas.push(Delta::Text(text.to_owned()));
        }
    }

    fn json(&mut self, json: &str, deltas: &mut Vec<Delta>) {
        let Ok(Value::Object(members)) = serde_json::from_str(json) else {
            return self.text(json, deltas);
        };
        let is_answer = members.contains_key("tool_calls") || members.contains_key("usage");
        if !is_answer {
            // Data beside the text, such as the report of a cell: readers of a chat have no use of it,
            // unless it's all that there is.
            self.data.get_or_insert_with(|| json.to_owned());
            return;
        }
        if let Some(usage @ Value::Object(_)) = members.get("usage") {
            self.usage = Some(usage.clone());
        }
        if let Some(Value::String(text)) = members.get("content") {
            self.text(text, deltas);
        }
        if let Some(Value::Array(calls)) = members.get("tool_calls") {
            let first = self.tool_calls.len();
            let calls = calls.iter().enumerate();
            let calls: Vec<Value> =
                calls.filter_map(|(at, call)| tool_call(first + at, call)).collect();
            self.tool_calls.extend(calls.iter().cloned());
            if !calls.is_empty() {
                deltas.push(Delta::ToolCalls(calls));
            }
        }
    }

    /// Nothing more comes.
    pub(super) fn finish(&mut self) -> Vec<Delta> {
        let mut deltas = Vec::new();
        if !self.has_text
            && self.tool_calls.is_empty()
            && let Some(data) = self.data.take()
        {
            self.text(&data, &mut deltas);
        }
        deltas
    }

    fn finish_reason(&self) -> &'static str {
        if self.tool_calls.is_empty() { "stop" } else { "tool_calls" }
    }

    /// The whole completion.
    pub(super) fn completion(mut self, head: &Head) -> Value {
        let _in_the_text = self.finish();
        let finish_reason = self.finish_reason();
        let mut message = json!({ "role": "assistant", "content": self.text, "refusal": null });
        if !self.tool_calls.is_empty() {
            if self.text.is_empty() {
                message["content"] = Value::Null;
            }
            for call in self.tool_calls.iter_mut().filter_map(Value::as_object_mut) {
                call.remove(AT);
            }
            message["tool_calls"] = self.tool_calls.into();
        }
        let choice = json!({
            "index": 0, "message": message, "logprobs": null, "finish_reason": finish_reason,
        });
        let mut completion = json!({
            "id": head.id,
            "object": "chat.completion",
            "created": head.created,
            "model": head.model,
            "choices": [choice],
        });
        if let Some(usage) = self.usage {
            completion["usage"] = usage;
        }
        completion
    }

    /// The chunk that says that nothing follows.
    pub(super) fn last_chunk(&self, head: &Head) -> Value {
        chunk(head, &json!({}), Some(self.finish_reason()))
    }

    /// The chunk for who has asked for the usage; it's null if the agent hasn't said it.
    pub(super) fn usage_chunk(&self, head: &Head) -> Value {
        let mut chunk = chunk(head, &json!({}), None);
        chunk["choices"] = json!([]);
        chunk["usage"] = self.usage.clone().unwrap_or(Value::Null);
        chunk
    }
}

/// The first chunk, which says who speaks.
pub(super) fn first_chunk(head: &Head) -> Value {
    chunk(head, &json!({ "role": "assistant", "content": "" }), None)
}

impl Delta {
    pub(super) fn chunk(self, head: &Head) -> Value {
        let delta = match self {
            Self::Text(text) => json!({ "content": text }),
            Self::ToolCalls(mut calls) => {
                for call in &mut calls {
                    let index = call.as_object_mut().and_then(|call| call.remove(AT));
                    call["index"] = index.unwrap_or_default();
                }
                json!({ "tool_calls": calls })
            }
        };
        chunk(head, &delta, None)
    }
}

/// Where a call's place among all is kept until it's written: chunks say it, whole answers don't.
const AT: &str = "index";

fn chunk(head: &Head, delta: &impl Serialize, finish_reason: Option<&str>) -> Value {
    let choice = json!({
        "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason,
    });
    json!({
        "id": head.id,
        "object": "chat.completion.chunk",
        "created": head.created,
        "model": head.model,
        "choices": [choice],
    })
}

/// A call as clients expect it: with an id, and its arguments as text.
fn tool_call(at: usize, call: &Value) -> Option<Value> {
    let function = call.get("function").unwrap_or(call);
    let name = function.get("name")?.as_str()?;
    let arguments = match function.get("arguments") {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => "{}".to_owned(),
    };
    let id = call.get("id").and_then(Value::as_str).map(str::to_owned);
    let id = id.unwrap_or_else(|| format!("call_{}", uuid::Uuid::new_v4().simple()));
    let function = json!({ "name": name, "arguments": arguments });
    Some(json!({ "id": id, "type": "function", "function": function, AT: at }))
}

#[cfg(test)]
mod tests {
    use neuroflow_kernel::Parcel;

    use super::*;
    use crate::agent::{Change, Content, Part, TaskEvent};

    fn take(reading: &mut Reading, parts: Vec<Content>) -> Vec<Delta> {
        let artifact = Artifact::new("a", parts.into_iter().map(Part::from).collect());
        let event = TaskEvent {
            task: "t".into(),
            context: "c".into(),
            generation: 1,
            at_ms: 0,
            change: Change::from(artifact),
        };
        let parcel = Parcel::archive(&event).unwrap();
        let crate::agent::ArchivedChange::Artifact { artifact, .. } = &parcel.get().change else {
            panic!("an artifact");
        };
        reading.take(artifact)
    }

    fn head() -> Head {
        Head { id: "chatcmpl-1".into(), model: "echo".into(), created: 7 }
    }

    #[test]
    fn text_is_the_answer_and_data_beside_it_is_not() {
        let mut reading = Reading::default();
        let report = Content::Json(r#"{"exit":0}"#.into());
        let deltas = take(&mut reading, vec![Content::Text("hello".into()), report]);
        assert_eq!(deltas, [Delta::Text("hello".into())]);
        let completion = reading.completion(&head());
        assert_eq!(completion["choices"][0]["message"]["content"], "hello");
        assert_eq!(completion["choices"][0]["finish_reason"], "stop");
        assert!(completion.get("usage").is_none(), "{completion}");
    }

    #[test]
    fn tool_calls_and_usage_are_what_the_agent_says() {
        let mut reading = Reading::default();
        let json = json!({
            "tool_calls": [
                { "id": "x", "function": { "name": "add", "arguments": { "a": 1 } } },
                { "name": "sub" },
                { "nothing": true },
            ],
            "usage": { "prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7 },
        });
        let deltas = take(&mut reading, vec![Content::Json(json.to_string())]);
        let chunk = deltas[0].clone().chunk(&head());
        let calls = &chunk["choices"][0]["delta"]["tool_calls"];
        assert_eq!((&calls[0]["index"], &calls[1]["index"]), (&json!(0), &json!(1)));
        assert_eq!(reading.usage_chunk(&head())["usage"]["total_tokens"], 7);
        assert_eq!(reading.last_chunk(&head())["choices"][0]["finish_reason"], "tool_calls");
        let completion = reading.completion(&head());
        let message = &completion["choices"][0]["message"];
        assert_eq!(message["content"], Value::Null);
        assert_eq!(message["tool_calls"][0]["function"]["arguments"], r#"{"a":1}"#);
        assert_eq!(message["tool_calls"].as_array().unwrap().len(), 2);
        assert!(message["tool_calls"][0].get("index").is_none(), "{message}");
        assert_eq!(completion["usage"]["prompt_tokens"], 3);
    }

    #[test]
    fn data_is_the_answer_if_there_is_nothing_else() {
        let mut reading = Reading::default();
        assert!(take(&mut reading, vec![Content::Json(r#"{"a":1}"#.into())]).is_empty());
        assert_eq!(reading.finish(), [Delta::Text(r#"{"a":1}"#.into())]);
    }
}
