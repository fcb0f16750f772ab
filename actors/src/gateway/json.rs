//! `ProtoJSON` as A2A has it: reading with the path of what is wrong, writing in one pass.
//!
//! What `pbjson` writes by itself has whole numbers as 0.0 and times that end in `+00:00`.

mod count;
mod tree;

use a2a_pb::protojson as pb;
use pbjson_types::value::Kind;
use pbjson_types::{Struct, Timestamp};
use serde::de::DeserializeOwned;
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use super::error::A2aError;
use crate::limits::{BODY_VALUES, SHOWN_BYTES};

pub(crate) use count::has_values_within;
use tree::{Reading, Tree};

/// Reads an object; the error names the field that doesn't fit, below `root`.
pub(super) fn read<T: DeserializeOwned>(json: &[u8], root: &str) -> Result<T, A2aError> {
    let is_json = || serde_json::from_slice::<serde::de::IgnoredAny>(json);
    if !json.trim_ascii_start().starts_with(b"{") {
        return match is_json() {
            Ok(_) => Err(A2aError::invalid(root, "must be an object")),
            Err(source) => Err(A2aError::Parse { source }),
        };
    }
    // A value takes a byte, and one between it and the next: what is short can't have so many.
    if json.len() / 2 > BODY_VALUES && has_values_within(json, BODY_VALUES).is_ok_and(|fits| !fits)
    {
        return Err(A2aError::invalid(root, format!("has more than {BODY_VALUES} values")));
    }
    // The generated readers know the usual text, and are fast with it.
    if !json.windows(NULL.len()).any(|part| part == NULL)
        && let Ok(read) = serde_json::from_slice(json)
    {
        return Ok(read);
    }
    let located = |error: serde_path_to_error::Error<serde_json::Error>| {
        let path = error.path();
        let at_root = path.iter().next().is_none();
        let field = if at_root { root.to_owned() } else { path.to_string() };
        A2aError::invalid(field, error.inner().to_string())
    };
    let mut reader = serde_json::Deserializer::from_slice(json);
    let tree: Tree =
        serde_path_to_error::deserialize(&mut reader).map_err(|error| match is_json() {
            // A number that nothing can hold is JSON all the same.
            Ok(_) => located(error),
            Err(source) => A2aError::Parse { source },
        })?;
    // What follows the object.
    reader.end().map_err(|source| A2aError::Parse { source })?;
    serde_path_to_error::deserialize::<_, T>(Reading::from(tree)).map_err(located)
}

/// What says that the generated readers may not understand a text: nearly all that they don't has it.
const NULL: &[u8] = b"null";

/// As much of a text as an error says: names and values in it are the client's, and of any length. A character
/// counts as it's shown, which may take several.
pub(crate) fn shown(text: &str) -> String {
    let mut bytes = 0;
    let is_past = |char: char| {
        bytes += char.escape_debug().map(char::len_utf8).sum::<usize>();
        bytes > SHOWN_BYTES
    };
    let end = text.find(is_past);
    match end.and_then(|end| text.get(..end)) {
        Some(beginning) => format!("{beginning}..."),
        None => text.to_owned(),
    }
}

/// Writes what is serializable. Text, numbers and lists can't fail but for memory.
pub(super) fn write(value: &impl Serialize) -> Result<Vec<u8>, A2aError> {
    let mut json = Vec::with_capacity(FIRST_ROOM);
    serde_json::to_writer(&mut json, value).map_err(|_cannot| A2aError::Unwritable)?;
    Ok(json)
}

/// Room for a usual answer.
const FIRST_ROOM: usize = 1_024;

/// A message of the protocol as `ProtoJSON`.
pub(super) struct Json<'a, T>(pub(super) &'a T);

impl<T: Write> Serialize for Json<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.write(serializer)
    }
}

/// What can be written by [`Json`].
pub(super) trait Write {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>;
}

/// A list of messages.
struct Many<'a, T>(&'a [T]);

impl<T: Write> Serialize for Many<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for item in self.0 {
            list.serialize_element(&Json(item))?;
        }
        list.end()
    }
}

/// Members of an object. What has its default value is left out, unless it's required.
struct Members<M>(M);

impl<M: SerializeMap> Members<M> {
    fn begin<S>(serializer: S) -> Result<Self, S::Error>
    where
        S: Serializer<SerializeMap = M>,
    {
        serializer.serialize_map(None).map(Self)
    }

    fn required(&mut self, name: &'static str, value: &impl Serialize) -> Result<(), M::Error> {
        self.0.serialize_entry(name, value)
    }

    fn text(&mut self, name: &'static str, text: &str) -> Result<(), M::Error> {
        if text.is_empty() { Ok(()) } else { self.required(name, &text) }
    }

    fn texts(&mut self, name: &'static str, texts: &[String]) -> Result<(), M::Error> {
        if texts.is_empty() { Ok(()) } else { self.required(name, &texts) }
    }

    fn flag(&mut self, name: &'static str, flag: bool) -> Result<(), M::Error> {
        if flag { self.required(name, &true) } else { Ok(()) }
    }

    fn message(
        &mut self,
        name: &'static str,
        message: Option<&impl Write>,
    ) -> Result<(), M::Error> {
        message.map_or(Ok(()), |message| self.required(name, &Json(message)))
    }

    fn messages(&mut self, name: &'static str, messages: &[impl Write]) -> Result<(), M::Error> {
        if messages.is_empty() { Ok(()) } else { self.required(name, &Many(messages)) }
    }

    fn end(self) -> Result<M::Ok, M::Error> {
        self.0.end()
    }
}

impl Write for pb::Task {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut members = Members::begin(serializer)?;
        members.required("id", &self.id)?;
        members.text("contextId", &self.context_id)?;
        members.message("status", self.status.as_ref())?;
        members.messages("artifacts", &self.artifacts)?;
        members.messages("history", &self.history)?;
        members.message("metadata", self.metadata.as_ref())?;
        members.end()
    }
}

impl Write for pb::TaskStatus {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut members = Members::begin(serializer)?;
        members.required("state", &self.state().as_str_name())?;
        members.message("message", self.message.as_ref())?;
        members.message("timestamp", self.timestamp.as_ref())?;
        members.end()
    }
}

impl Write for pb::Message {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut members = Members::begin(serializer)?;
        members.required("messageId", &self.message_id)?;
        members.text("contextId", &self.context_id)?;
        members.text("taskId", &self.task_id)?;
        members.required("role", &self.role().as_str_name())?;
        members.required("parts", &Many(&self.parts))?;
        members.message("metadata", self.metadata.as_ref())?;
        members.texts("extensions", &self.extensions)?;
        members.texts("referenceTaskIds", &self.reference_task_ids)?;
        members.end()
    }
}

impl Write for pb::Artifact {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut members = Members::begin(serializer)?;
        members.required("artifactId", &self.artifact_id)?;
        members.text("name", &self.name)?;
        members.text("description", &self.description)?;
        members.required("parts", &Many(&self.parts))?;
        members.message("metadata", self.metadata.as_ref())?;
        members.texts("extensions", &self.extensions)?;
        members.end()
    }
}

impl Write for pb::Part {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use base64::Engine;
        let mut members = Members::begin(serializer)?;
        match &self.content {
            Some(pb::part::Content::Text(text)) => members.required("text", text)?,
            Some(pb::part::Content::Raw(bytes)) => {
                members.required("raw", &base64::prelude::BASE64_STANDARD.encode(bytes))?;
            }
            Some(pb::part::Content::Url(url)) => members.required("url", url)?,
            Some(pb::part::Content::Data(value)) => members.required("data", &Json(value))?,
            None => {}
        }
        members.message("metadata", self.metadata.as_ref())?;
        members.text("filename", &self.filename)?;
        members.text("mediaType", &self.media_type)?;
        members.end()
    }
}

impl Write for pb::TaskStatusUpdateEvent {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut members = Members::begin(serializer)?;
        members.required("taskId", &self.task_id)?;
        members.required("contextId", &self.context_id)?;
        members.message("status", self.status.as_ref())?;
        members.message("metadata", self.metadata.as_ref())?;
        members.end()
    }
}

impl Write for pb::TaskArtifactUpdateEvent {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut members = Members::begin(serializer)?;
        members.required("taskId", &self.task_id)?;
        members.required("contextId", &self.context_id)?;
        members.message("artifact", self.artifact.as_ref())?;
        members.flag("append", self.append)?;
        members.flag("lastChunk", self.last_chunk)?;
        members.message("metadata", self.metadata.as_ref())?;
        members.end()
    }
}

impl Write for pb::SendMessageResponse {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use pb::send_message_response::Payload;
        let mut members = Members::begin(serializer)?;
        match &self.payload {
            Some(Payload::Task(task)) => members.required("task", &Json(task))?,
            Some(Payload::Message(message)) => members.required("message", &Json(message))?,
            None => {}
        }
        members.end()
    }
}

impl Write for pb::StreamResponse {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use pb::stream_response::Payload;
        let mut members = Members::begin(serializer)?;
        match &self.payload {
            Some(Payload::Task(task)) => members.required("task", &Json(task))?,
            Some(Payload::Message(message)) => members.required("message", &Json(message))?,
            Some(Payload::StatusUpdate(event)) => members.required("statusUpdate", &Json(event))?,
            Some(Payload::ArtifactUpdate(event)) => {
                members.required("artifactUpdate", &Json(event))?;
            }
            None => {}
        }
        members.end()
    }
}

impl Write for pb::ListTasksResponse {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut members = Members::begin(serializer)?;
        members.required("tasks", &Many(&self.tasks))?;
        members.required("nextPageToken", &self.next_page_token)?;
        members.required("pageSize", &self.page_size)?;
        members.required("totalSize", &self.total_size)?;
        members.end()
    }
}

/// RFC 3339 in UTC with milliseconds and `Z`.
impl Write for Timestamp {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let nanos = u32::try_from(self.nanos).unwrap_or_default();
        let time = chrono::DateTime::from_timestamp(self.seconds, nanos).unwrap_or_default();
        let format = time.format("%Y-%m-%dT%H:%M:%S%.3fZ");
        serializer.collect_str(&format)
    }
}

impl Write for Struct {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut members = serializer.serialize_map(Some(self.fields.len()))?;
        // In an order of its own, so that the same object is always the same text.
        let mut fields: Vec<_> = self.fields.iter().collect();
        fields.sort_unstable_by_key(|(name, _)| *name);
        for (name, value) in fields {
            members.serialize_entry(name, &Json(value))?;
        }
        members.end()
    }
}

impl Write for pbjson_types::Value {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.kind {
            None | Some(Kind::NullValue(_)) => serializer.serialize_unit(),
            Some(Kind::BoolValue(flag)) => serializer.serialize_bool(*flag),
            Some(Kind::NumberValue(number)) => match whole(*number) {
                Some(whole) => serializer.serialize_i64(whole),
                None => serializer.serialize_f64(*number),
            },
            Some(Kind::StringValue(text)) => serializer.serialize_str(text),
            Some(Kind::ListValue(list)) => Many(&list.values).serialize(serializer),
            Some(Kind::StructValue(object)) => object.write(serializer),
        }
    }
}

/// A whole number as such: `google.protobuf.Value` knows doubles only.
fn whole(number: f64) -> Option<i64> {
    // Up to 2^53 a double holds every whole number.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[expect(clippy::cast_possible_truncation, reason = "whole and within 2^53")]
    (number.fract() == 0.0 && number.abs() <= EXACT).then_some(number as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_was_read() {
        let json = r#"{"id":"t","contextId":"c","status":{"state":"TASK_STATE_AUTH_REQUIRED","message":{"messageId":"m","contextId":"c","taskId":"t","role":"ROLE_AGENT","parts":[{"text":""},{"raw":"AP8=","filename":"f","mediaType":"x/y"},{"url":"u"},{"data":[0,-3,1.5,true,null,"s",{"k":1}]}],"metadata":{"a":4503599627370496},"extensions":["e"],"referenceTaskIds":["r"]},"timestamp":"2023-11-14T22:13:20.120Z"},"artifacts":[{"artifactId":"a","name":"n","description":"d","parts":[{"text":"x"}]}],"history":[{"messageId":"m","role":"ROLE_USER","parts":[{"text":"hi"}]}],"metadata":{"k":{}}}"#;
        let task: pb::Task = read(json.as_bytes(), "task").unwrap();
        assert_eq!(String::from_utf8(write(&Json(&task)).unwrap()).unwrap(), json);
        // And it says the same as the generated code, but for numbers and times.
        let ours: serde_json::Value = serde_json::from_str(json).unwrap();
        let theirs = serde_json::to_value(&task).unwrap();
        assert_eq!(ours["artifacts"], theirs["artifacts"]);
        assert_eq!(ours["history"], theirs["history"]);
    }

    #[test]
    fn required_fields_are_there_when_they_are_empty() {
        let text = |value: &str, json: Vec<u8>| assert_eq!(String::from_utf8(json).unwrap(), value);
        let empty = r#"{"tasks":[],"nextPageToken":"","pageSize":0,"totalSize":0}"#;
        text(empty, write(&Json(&pb::ListTasksResponse::default())).unwrap());
        let empty = r#"{"artifactId":"","parts":[]}"#;
        text(empty, write(&Json(&pb::Artifact::default())).unwrap());
    }

    #[test]
    fn what_is_null_is_not_there_but_for_data() {
        let json = br#"{"tenant":null,"configuration":{"historyLength":1.0,"acceptedOutputModes":null},
            "message":{"messageId":"m","role":"ROLE_USER","contextId":null,"metadata":null,"parts":[
            {"text":"a","raw":null,"filename":null},{"data":null},{"data":{"a":null},"url":null}]}}"#;
        let request: pb::SendMessageRequest = read(json, "body").unwrap();
        assert_eq!(request.configuration.unwrap().history_length, Some(1));
        let message = request.message.unwrap();
        assert_eq!((message.context_id.as_str(), message.metadata), ("", None));
        let parts = String::from_utf8(write(&Many(&message.parts)).unwrap()).unwrap();
        assert_eq!(parts, r#"[{"text":"a"},{"data":null},{"data":{"a":null}}]"#);
        let list: pb::ListTasksRequest =
            read(br#"{"status":null,"pageSize":null}"#, "body").unwrap();
        assert_eq!(list, pb::ListTasksRequest::default());
        let twice = br#"{"message":{"parts":[{"text":"a","url":"b","raw":null}]}}"#;
        assert!(read::<pb::SendMessageRequest>(twice, "body").is_err());
    }

    #[test]
    fn numbers_in_free_json_are_doubles() {
        let json = br#"{"metadata":{"a":18446744073709551615,"b":-9223372036854775808,"c":{"tenant":[1,0.5]}}}"#;
        let request: pb::SendMessageRequest = read(json, "body").unwrap();
        let written = write(&Json(&request.metadata.unwrap())).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&written).unwrap();
        assert_eq!(value["a"].as_f64(), Some(18_446_744_073_709_551_615.0));
        assert_eq!(value["b"].as_f64(), Some(-9_223_372_036_854_775_808.0));
        assert_eq!(value["c"], serde_json::json!({ "tenant": [1, 0.5] }));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let error = |json: &str| match read::<pb::SendMessageRequest>(json.as_bytes(), "body") {
            Err(error) => (error.code(), error.to_string()),
            Ok(request) => panic!("{request:?}"),
        };
        assert_eq!(error("").0, -32700);
        assert_eq!(error("{").0, -32700);
        assert_eq!(error("[]"), (-32602, "body must be an object".to_owned()));
        assert!(error(r#"{"message":{"parts":[{"text":7}]}}"#).1.starts_with("message.parts[0]"));
        assert!(error(r#"{"message":{"role":"ROLE_KING"}}"#).1.starts_with("message.role"));
        assert_eq!(error(r#"{"message":{},"message":{}}"#).0, -32602);
        let long = format!(r#"{{"metadata":{{"{}":1e999}}}}"#, "\u{e4}".repeat(100_000));
        let (code, text) = error(&long);
        assert_eq!(code, -32602);
        assert!(text.len() < 3 * SHOWN_BYTES, "{}", text.len());
        for text in ["x", "\u{e4}", "\u{1}", "\"", "\u{10ffff}"] {
            let long = text.repeat(10_000);
            let part = shown(&long);
            assert!(long.starts_with(part.strip_suffix("...").unwrap()), "{text:?}");
            let shown = format!("{part:?}").len();
            assert!((SHOWN_BYTES - 10..SHOWN_BYTES + 10).contains(&shown), "{text:?}: {shown}");
        }
        assert_eq!(shown("x"), "x");
    }
}
