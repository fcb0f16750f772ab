//! A chat completion request as a request to an agent: pure.
//!
//! The last message's text is what is asked. A conversation of several messages, tools, and the form that the answer
//! is to have, go beside it as one JSON part with the members `messages`, `tools`, `tool_choice` and
//! `response_format` as the client wrote them.

use serde::de::Error;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::ChatError;
use crate::agent::{CHAT, Content, Part, Turn};
use crate::gateway::json;
use crate::limits::{BODY_VALUES, CHAT_MESSAGES, CHAT_TOOLS, PARTS};

/// What is read of a request; what else it says about models has no meaning for agents. What is handed on stays as
/// it's written: as values it would take a hundred times its bytes.
#[derive(Debug, Deserialize)]
pub(super) struct ChatRequest<'a> {
    model: String,
    #[serde(borrow)]
    messages: Vec<&'a RawValue>,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default, borrow)]
    stream_options: Option<&'a RawValue>,
    #[serde(default, borrow)]
    tools: Option<Vec<&'a RawValue>>,
    #[serde(default, borrow)]
    tool_choice: Option<&'a RawValue>,
    #[serde(default, borrow)]
    response_format: Option<&'a RawValue>,
    #[serde(default)]
    n: Option<u64>,
}

/// What is left of a request while its answer is waited for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) model: String,
    pub(super) is_streamed: bool,
    pub(super) wants_usage: bool,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: Option<bool>,
}

#[derive(Deserialize)]
struct Message<'a> {
    role: String,
    #[serde(default, borrow)]
    content: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct MessagePart<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    refusal: Option<String>,
    #[serde(default, borrow)]
    image_url: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ImageUrl {
    url: String,
}

#[derive(Deserialize)]
struct Form {
    #[serde(rename = "type")]
    kind: String,
}

/// What goes beside the last text.
#[derive(Serialize)]
struct Beside<'a> {
    messages: &'a [&'a RawValue],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    tools: &'a [&'a RawValue],
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<&'a RawValue>,
}

/// Reads what is written as an object. Without that a list passes for one, its items for the fields in their order.
fn object<'a, T: Deserialize<'a>>(json: &'a RawValue) -> Result<T, serde_json::Error> {
    if json.get().starts_with('{') {
        serde_json::from_str(json.get())
    } else {
        Err(Error::custom("must be an object"))
    }
}

impl<'a> ChatRequest<'a> {
    pub(super) fn read(body: &'a [u8]) -> Result<Self, ChatError> {
        match json::has_values_within(body, BODY_VALUES) {
            Ok(true) => {}
            Ok(false) => {
                let problem = format!("has more than {BODY_VALUES} values");
                return Err(ChatError::invalid("body", problem));
            }
            Err(source) => return Err(ChatError::Json { source }),
        }
        if !body.trim_ascii_start().starts_with(b"{") {
            return Err(ChatError::invalid("body", "must be an object"));
        }
        let json = &mut serde_json::Deserializer::from_slice(body);
        serde_path_to_error::deserialize(json).map_err(|error| {
            let (path, problem) = (error.path(), error.inner().to_string());
            if path.iter().next().is_some() {
                return ChatError::invalid(path.to_string(), problem);
            }
            let missing = problem.strip_prefix("missing field `");
            match missing.and_then(|field| field.split('`').next()) {
                Some(field) => ChatError::invalid(field, "is missing"),
                None => ChatError::invalid("body", problem),
            }
        })
    }

    /// What is said to the agent, and what is to be known besides.
    pub(super) fn asked(self) -> Result<(Asked, Turn), ChatError> {
        let options = self.stream_options.map(object::<StreamOptions>).transpose();
        let options =
            options.map_err(|error| ChatError::invalid("stream_options", error.to_string()))?;
        let turn = self.turn()?;
        let asked = Asked {
            model: self.model,
            is_streamed: self.stream.unwrap_or_default(),
            wants_usage: options.and_then(|it| it.include_usage).unwrap_or_default(),
        };
        Ok((asked, turn))
    }

    /// The form that the answer is to have, unless it's text. To give it is the agent's.
    fn form(&self) -> Result<Option<&'a RawValue>, ChatError> {
        let Some(form) = self.response_format else { return Ok(None) };
        match object::<Form>(form).as_ref().map(|form| form.kind.as_str()) {
            Ok("text") => Ok(None),
            Ok("json_object" | "json_schema") => Ok(Some(form)),
            _ => {
                let problem = "must be one of text, json_object, json_schema";
                Err(ChatError::invalid("response_format.type", problem))
            }
        }
    }

    fn turn(&self) -> Result<Turn, ChatError> {
        if self.n.is_some_and(|count| count != 1) {
            return Err(ChatError::invalid("n", "must be 1; an agent gives one answer"));
        }
        if self.messages.len() > CHAT_MESSAGES {
            let problem = format!("has more than {CHAT_MESSAGES} entries");
            return Err(ChatError::invalid("messages", problem));
        }
        let tools = self.tools.as_deref().unwrap_or_default();
        if tools.len() > CHAT_TOOLS {
            let problem = format!("has more than {CHAT_TOOLS} entries");
            return Err(ChatError::invalid("tools", problem));
        }
        let Some(last) = self.messages.len().checked_sub(1) else {
            return Err(ChatError::invalid("messages", "needs at least one message"));
        };
        let mut parts = Vec::new();
        for (at, message) in self.messages.iter().enumerate() {
            let field = format!("messages[{at}]");
            let read = object::<Message<'_>>(message)
                .map_err(|error| ChatError::invalid(&*field, error.to_string()))?;
            let known = ["developer", "system", "user", "assistant", "tool", "function"];
            if !known.contains(&read.role.as_str()) {
                let problem = format!("must be one of {}", known.join(", "));
                return Err(ChatError::invalid(format!("{field}.role"), problem));
            }
            let said = content(&field, read.content)?;
            if at == last {
                parts = said;
            }
        }
        let response_format = self.form()?;
        let is_more = self.messages.len() > 1 || !tools.is_empty() || self.tool_choice.is_some();
        if parts.is_empty() && !is_more {
            return Err(ChatError::invalid(format!("messages[{last}].content"), "is missing"));
        }
        if is_more || response_format.is_some() {
            let tool_choice = self.tool_choice;
            let beside = Beside { messages: &self.messages, tools, tool_choice, response_format };
            let beside = serde_json::to_string(&beside)
                .map_err(|error| ChatError::invalid("messages", error.to_string()))?;
            let media_type = Some(CHAT.to_owned());
            parts.push(Part { media_type, ..Part::from(Content::Json(beside)) });
        }
        if parts.len() > PARTS {
            let problem = format!("has more than {PARTS} parts");
            return Err(ChatError::invalid(format!("messages[{last}].content"), problem));
        }
        Ok(Turn { parts, ..Turn::user("") })
    }
}

/// The parts of a message; all are checked, those of the last one are used.
fn content(field: &str, content: Option<&RawValue>) -> Result<Vec<Part>, ChatError> {
    let Some(content) = content else { return Ok(Vec::new()) };
    let misfit = |error: serde_json::Error| {
        ChatError::invalid(format!("{field}.content"), error.to_string())
    };
    if content.get().starts_with('"') {
        let text = serde_json::from_str(content.get()).map_err(misfit)?;
        return Ok(vec![Part::from(Content::Text(text))]);
    }
    if !content.get().starts_with('[') {
        return Err(ChatError::invalid(format!("{field}.content"), "must be a text or a list"));
    }
    let parts: Vec<&RawValue> = serde_json::from_str(content.get()).map_err(misfit)?;
    let parts = parts.into_iter().enumerate().map(|(at, part)| {
        let field = format!("{field}.content[{at}]");
        let misfit = |error: serde_json::Error| ChatError::invalid(&*field, error.to_string());
        let part: MessagePart<'_> = object(part).map_err(misfit)?;
        let image = part.image_url.map(object::<ImageUrl>).transpose().map_err(misfit)?;
        // A model's earlier answer may have been none, which it said in words.
        let text = if part.kind == "refusal" { part.refusal } else { part.text };
        match (part.kind.as_str(), text, image) {
            ("text" | "refusal", Some(text), _) => Ok(Part::from(Content::Text(text))),
            ("image_url", _, Some(image)) => Ok(Part::from(Content::Url(image.url))),
            ("text" | "refusal" | "image_url", ..) => {
                Err(ChatError::invalid(field, "lacks what its type says"))
            }
            (other, ..) => {
                let problem = format!("is {other:?}; text, refusal and image_url are taken");
                Err(ChatError::invalid(format!("{field}.type"), problem))
            }
        }
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn turn(request: &Value) -> Result<Turn, String> {
        let body = request.to_string();
        let asked = ChatRequest::read(body.as_bytes()).and_then(ChatRequest::asked);
        asked.map(|(_, turn)| turn).map_err(|error| error.to_string())
    }

    fn asked(messages: &Value) -> Value {
        json!({ "model": "echo", "messages": messages })
    }

    #[test]
    fn one_message_is_its_text() {
        let turn = turn(&asked(&json!([{ "role": "user", "content": "hello" }]))).unwrap();
        assert_eq!(turn.parts, [Part::from(Content::Text("hello".into()))]);
        let parts = json!([
            { "type": "text", "text": "what is it?" },
            { "type": "image_url", "image_url": { "url": "https://example.org/a.png" } },
        ]);
        let turn = self::turn(&asked(&json!([{ "role": "user", "content": parts }]))).unwrap();
        let url = Content::Url("https://example.org/a.png".into());
        assert_eq!(turn.parts[1], Part::from(url));
        let no = json!([{ "type": "refusal", "refusal": "no" }]);
        let history = json!([
            { "role": "assistant", "content": no }, { "role": "user", "content": "please" },
        ]);
        assert_eq!(self::turn(&asked(&history)).unwrap().parts.len(), 2);
    }

    #[test]
    fn a_conversation_and_tools_go_beside_the_last_text() {
        let messages = json!([
            { "role": "system", "content": "Be brief." },
            { "role": "user", "content": "hello" },
        ]);
        let mut request = asked(&messages);
        request["tools"] = json!([{ "type": "function", "function": { "name": "add" } }]);
        request["tool_choice"] = json!("auto");
        let turn = turn(&request).unwrap();
        assert_eq!(turn.parts[0], Part::from(Content::Text("hello".into())));
        let Content::Json(beside) = &turn.parts[1].content else { panic!("{turn:?}") };
        let beside: Value = serde_json::from_str(beside).unwrap();
        assert_eq!((&beside["messages"], &beside["tools"]), (&messages, &request["tools"]));
        assert_eq!(beside["tool_choice"], "auto");
    }

    #[test]
    fn the_form_of_the_answer_goes_beside_the_text_unless_its_text() {
        let mut request = asked(&json!([{ "role": "user", "content": "hello" }]));
        for (form, is_told) in [
            (json!(null), false),
            (json!({ "type": "text" }), false),
            (json!({ "type": "json_object" }), true),
            (json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": {} } }), true),
        ] {
            request["response_format"] = form.clone();
            let turn = turn(&request).unwrap();
            assert_eq!(turn.parts.len() == 2, is_told, "{form}");
            if let Some(Content::Json(beside)) = turn.parts.get(1).map(|part| &part.content) {
                let beside: Value = serde_json::from_str(beside).unwrap();
                assert_eq!(beside["response_format"], form);
            }
        }
        for form in [json!("json"), json!({}), json!({ "type": "xml" })] {
            request["response_format"] = form;
            let problem = turn(&request).unwrap_err();
            assert!(problem.contains("response_format.type must be one of"), "{problem}");
        }
    }

    #[test]
    fn a_field_that_does_not_fit_is_named() {
        let user = |content: Value| asked(&json!([{ "role": "user", "content": content }]));
        let mut several = user(json!("x"));
        several["n"] = json!(2);
        for (request, words) in [
            (json!({ "messages": [] }), "model is missing"),
            (json!(["echo", [{ "role": "user", "content": "x" }]]), "body must be an object"),
            (asked(&json!([["user", "hi"]])), "messages[0] "),
            (user(json!([["text", "hi"]])), "messages[0].content[0] must be"),
            (user(json!([{ "type": "refusal", "text": "no" }])), "messages[0].content[0] lacks"),
            (json!({ "model": 7, "messages": [] }), "model"),
            (asked(&json!([])), "messages needs at least one message"),
            (asked(&json!(["x"])), "messages[0] "),
            (
                asked(&json!([{ "role": "oracle", "content": "x" }])),
                "messages[0].role must be one of",
            ),
            (user(json!(null)), "messages[0].content is missing"),
            (user(json!([{ "type": "input_audio" }])), "messages[0].content[0].type is"),
            (user(json!([{ "type": "text" }])), "messages[0].content[0] lacks"),
            (several, "n must be 1"),
        ] {
            let problem = turn(&request).unwrap_err();
            assert!(problem.contains(words), "{request}: {problem}");
        }
        assert!(matches!(ChatRequest::read(b"{"), Err(ChatError::Json { .. })));
    }

    #[test]
    fn what_is_handed_on_is_as_it_was_written_and_can_be_read() {
        let messages =
            r#"[ {"role":"system","content":"x","n":1.50}, {"role":"user","content":"y"} ]"#;
        let body = format!(r#"{{"model":"echo","messages":{messages}}}"#);
        let (_, turn) = ChatRequest::read(body.as_bytes()).unwrap().asked().unwrap();
        let Content::Json(beside) = &turn.parts[1].content else { panic!("{turn:?}") };
        assert!(beside.contains(r#"{"role":"system","content":"x","n":1.50}"#), "{beside}");
        for unreadable in [r#""\ud800""#, "1e999"] {
            let body = format!(
                r#"{{"model":"m","messages":[{{"role":"user","content":"x","y":{unreadable}}}]}}"#
            );
            let read = ChatRequest::read(body.as_bytes());
            assert!(matches!(read, Err(ChatError::Json { .. })), "{unreadable}");
        }
    }
}
