//! A chat completion request as a request to an agent: pure.
//!
//! The last message's text is what is asked. A conversation of several messages, tools, and the form that the answer
//! is to have, go beside it as one JSON part with the members `messages`, `tools`, `tool_choice` and
//! `response_format` as the client wrote them.

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error};
use serde_json::{Map, Value};

use super::ChatError;
use crate::agent::{CHAT, Content, Part, Turn};
use crate::limits::{CHAT_MESSAGES, CHAT_TOOLS, PARTS};

/// What is read of a request; what else it says about models has no meaning for agents.
#[derive(Debug, Deserialize)]
pub(super) struct ChatRequest {
    pub(super) model: String,
    messages: Vec<Value>,
    #[serde(default)]
    pub(super) stream: Option<bool>,
    #[serde(default)]
    stream_options: Option<Object<StreamOptions>>,
    #[serde(default)]
    tools: Option<Vec<Value>>,
    #[serde(default)]
    tool_choice: Option<Value>,
    #[serde(default)]
    response_format: Option<Value>,
    #[serde(default)]
    n: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: Option<bool>,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    #[serde(default)]
    content: Option<MessageContent>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum MessageContent {
    Text(String),
    Parts(Vec<Object<MessagePart>>),
}

#[derive(Deserialize)]
struct MessagePart {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    refusal: Option<String>,
    #[serde(default)]
    image_url: Option<Object<ImageUrl>>,
}

#[derive(Deserialize)]
struct ImageUrl {
    url: String,
}

/// What is written as an object. Without that a list passes for one, its items for the fields in their order.
#[derive(Debug)]
struct Object<T>(T);

impl<'de, T: DeserializeOwned> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let members = Map::deserialize(deserializer)?;
        T::deserialize(Value::Object(members)).map(Self).map_err(D::Error::custom)
    }
}

impl ChatRequest {
    pub(super) fn read(body: &[u8]) -> Result<Self, ChatError> {
        if let Err(source) = serde_json::from_slice::<serde::de::IgnoredAny>(body) {
            return Err(ChatError::Json { source });
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

    pub(super) fn is_streamed(&self) -> bool {
        self.stream.unwrap_or_default()
    }

    pub(super) fn wants_usage(&self) -> bool {
        self.stream_options.as_ref().and_then(|it| it.0.include_usage).unwrap_or_default()
    }

    /// The form that the answer is to have, unless it's text. To give it is the agent's.
    fn form(&self) -> Result<Option<&Value>, ChatError> {
        let Some(form) = self.response_format.as_ref().filter(|form| !form.is_null()) else {
            return Ok(None);
        };
        match form.get("type").and_then(Value::as_str) {
            Some("text") => Ok(None),
            Some("json_object" | "json_schema") => Ok(Some(form)),
            _ => {
                let problem = "must be one of text, json_object, json_schema";
                Err(ChatError::invalid("response_format.type", problem))
            }
        }
    }

    /// What is said to the agent.
    pub(super) fn turn(&self) -> Result<Turn, ChatError> {
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
            let Object(read) = Object::<Message>::deserialize(message)
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
        let choice = self.tool_choice.as_ref().filter(|choice| !choice.is_null());
        let form = self.form()?;
        let is_more = self.messages.len() > 1 || !tools.is_empty() || choice.is_some();
        if parts.is_empty() && !is_more {
            return Err(ChatError::invalid(format!("messages[{last}].content"), "is missing"));
        }
        if is_more || form.is_some() {
            let mut beside = Map::new();
            beside.insert("messages".to_owned(), Value::Array(self.messages.clone()));
            if !tools.is_empty() {
                beside.insert("tools".to_owned(), Value::Array(tools.to_vec()));
            }
            if let Some(choice) = choice {
                beside.insert("tool_choice".to_owned(), choice.clone());
            }
            if let Some(form) = form {
                beside.insert("response_format".to_owned(), form.clone());
            }
            let media_type = Some(CHAT.to_owned());
            let content = Content::Json(Value::Object(beside).to_string());
            parts.push(Part { media_type, ..Part::from(content) });
        }
        if parts.len() > PARTS {
            let problem = format!("has more than {PARTS} parts");
            return Err(ChatError::invalid(format!("messages[{last}].content"), problem));
        }
        Ok(Turn { parts, ..Turn::user("") })
    }
}

/// The parts of a message; all are checked, those of the last one are used.
fn content(field: &str, content: Option<MessageContent>) -> Result<Vec<Part>, ChatError> {
    let parts = match content {
        None => return Ok(Vec::new()),
        Some(MessageContent::Text(text)) => return Ok(vec![Part::from(Content::Text(text))]),
        Some(MessageContent::Parts(parts)) => parts,
    };
    let parts = parts.into_iter().enumerate().map(|(at, Object(part))| {
        let field = format!("{field}.content[{at}]");
        // A model's earlier answer may have been none, which it said in words.
        let text = if part.kind == "refusal" { part.refusal } else { part.text };
        match (part.kind.as_str(), text, part.image_url) {
            ("text" | "refusal", Some(text), _) => Ok(Part::from(Content::Text(text))),
            ("image_url", _, Some(Object(image))) => Ok(Part::from(Content::Url(image.url))),
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
    use serde_json::json;

    use super::*;

    fn turn(request: &Value) -> Result<Turn, String> {
        let request = ChatRequest::read(request.to_string().as_bytes());
        request.and_then(|request| request.turn()).map_err(|error| error.to_string())
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
            (user(json!([["text", "hi"]])), "messages[0] "),
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
}
