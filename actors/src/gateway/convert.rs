//! A2A's data model to and from the agents' own.

use a2a_pb::protojson as pb;
use pbjson_types::value::Kind;
use rkyv::Archived;
use serde_json::Value;

use super::error::A2aError;
use super::json::{self, Json};
use crate::agent::{ArchivedContent, ArchivedRole, Artifact, Content, Part, Role, TaskState, Turn};
use crate::limits::{CLIENT_ID_BYTES, PARTS};

/// A client's message, checked.
pub(super) fn turn(message: pb::Message) -> Result<Turn, A2aError> {
    client_id("message.messageId", &message.message_id)?;
    if message.message_id.is_empty() {
        return Err(A2aError::invalid("message.messageId", "is missing"));
    }
    let role = match pb::Role::try_from(message.role) {
        Ok(pb::Role::User) => Role::User,
        Ok(pb::Role::Agent) => Role::Agent,
        _ => return Err(A2aError::invalid("message.role", "must be ROLE_USER or ROLE_AGENT")),
    };
    if message.parts.is_empty() {
        return Err(A2aError::invalid("message.parts", "needs at least one part"));
    }
    if message.parts.len() > PARTS {
        return Err(A2aError::invalid("message.parts", format!("has more than {PARTS} parts")));
    }
    let parts = message.parts.into_iter().enumerate();
    let parts = parts.map(|(at, part)| read_part(at, part)).collect::<Result<Vec<_>, _>>()?;
    let metadata = json_object("message.metadata", message.metadata.as_ref())?;
    Ok(Turn {
        id: message.message_id,
        role,
        parts,
        metadata,
        extensions: message.extensions,
        references: message.reference_task_ids,
    })
}

/// Checks an identifier that a client has chosen.
pub(super) fn client_id(field: &str, id: &str) -> Result<(), A2aError> {
    if id.len() > CLIENT_ID_BYTES {
        let problem = format!("has {} bytes; {CLIENT_ID_BYTES} are allowed", id.len());
        return Err(A2aError::invalid(field, problem));
    }
    // Not every database takes each of them in a text.
    if id.chars().any(char::is_control) {
        return Err(A2aError::invalid(field, "has a control character; send it without"));
    }
    Ok(())
}

fn read_part(at: usize, part: pb::Part) -> Result<Part, A2aError> {
    let field = |name: &str| format!("message.parts[{at}]{name}");
    let content = match part.content {
        Some(pb::part::Content::Text(text)) => Content::Text(text),
        Some(pb::part::Content::Raw(bytes)) => Content::Bytes(bytes),
        Some(pb::part::Content::Url(url)) => Content::Url(url),
        Some(pb::part::Content::Data(value)) => Content::Json(json(&field(".data"), &value)?),
        None => {
            return Err(A2aError::invalid(field(""), "needs one of text, raw, url and data"));
        }
    };
    let some = |text: String| (!text.is_empty()).then_some(text);
    Ok(Part {
        content,
        media_type: some(part.media_type),
        filename: some(part.filename),
        metadata: json_object(&field(".metadata"), part.metadata.as_ref())?,
    })
}

/// A client's metadata, or nothing.
pub(super) fn json_object(
    field: &str,
    object: Option<&pbjson_types::Struct>,
) -> Result<Option<String>, A2aError> {
    object.map(|object| json(field, object)).transpose()
}

/// A value as its sender wrote it, but for numbers that no double can hold.
fn json(field: &str, value: &impl json::Write) -> Result<String, A2aError> {
    let written = json::write(&Json(value))?;
    String::from_utf8(written).map_err(|_not| A2aError::invalid(field, "isn't text"))
}

/// A turn as a message of a task.
pub(super) fn message(turn: &Archived<Turn>, task: &str, context: &str) -> pb::Message {
    pb::Message {
        message_id: turn.id.to_string(),
        context_id: context.to_owned(),
        task_id: task.to_owned(),
        role: i32::from(match turn.role {
            ArchivedRole::User => pb::Role::User,
            ArchivedRole::Agent => pb::Role::Agent,
        }),
        parts: turn.parts.iter().map(write_part).collect(),
        metadata: read_object(turn.metadata.as_deref()),
        extensions: turn.extensions.iter().map(ToString::to_string).collect(),
        reference_task_ids: turn.references.iter().map(ToString::to_string).collect(),
    }
}

pub(super) fn artifact(artifact: &Archived<Artifact>) -> pb::Artifact {
    pb::Artifact {
        artifact_id: artifact.id.to_string(),
        name: artifact.name.to_string(),
        description: artifact.description.to_string(),
        parts: artifact.parts.iter().map(write_part).collect(),
        metadata: read_object(artifact.metadata.as_deref()),
        extensions: artifact.extensions.iter().map(ToString::to_string).collect(),
    }
}

fn write_part(part: &Archived<Part>) -> pb::Part {
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    let content = match &part.content {
        ArchivedContent::Text(text) => pb::part::Content::Text(text.to_string()),
        ArchivedContent::Bytes(bytes) => pb::part::Content::Raw(bytes.to_vec()),
        ArchivedContent::Url(url) => pb::part::Content::Url(url.to_string()),
        // An agent's JSON that isn't any is handed on as the text that it is.
        ArchivedContent::Json(json) => match serde_json::from_str(json) {
            Ok(value) => pb::part::Content::Data(proto_value(value)),
            Err(_not_json) => pb::part::Content::Text(json.to_string()),
        },
    };
    pb::Part {
        metadata: read_object(part.metadata.as_deref()),
        filename: text(part.filename.as_deref()),
        media_type: text(part.media_type.as_deref()),
        content: Some(content),
    }
}

/// Reads numbers as `google.protobuf.Value` has them, as doubles. `pbjson` refuses whole numbers that
/// a double can't hold, and the agent can't do anything about that.
fn proto_value(json: Value) -> pbjson_types::Value {
    let kind = match json {
        Value::Null => Kind::NullValue(0),
        Value::Bool(flag) => Kind::BoolValue(flag),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text),
        Value::Array(items) => {
            let values = items.into_iter().map(proto_value).collect();
            Kind::ListValue(pbjson_types::ListValue { values })
        }
        Value::Object(members) => {
            let fields = members.into_iter().map(|(name, value)| (name, proto_value(value)));
            Kind::StructValue(pbjson_types::Struct { fields: fields.collect() })
        }
    };
    pbjson_types::Value { kind: Some(kind) }
}

pub(super) fn read_object(json: Option<&str>) -> Option<pbjson_types::Struct> {
    match proto_value(serde_json::from_str(json?).ok()?).kind? {
        Kind::StructValue(object) => Some(object),
        _ => None,
    }
}

/// A time as the protocol has it.
pub(super) fn timestamp(unix_ms: u64) -> pbjson_types::Timestamp {
    let nanos = i32::try_from(unix_ms % 1_000 * 1_000_000).unwrap_or_default();
    pbjson_types::Timestamp { seconds: i64::try_from(unix_ms / 1_000).unwrap_or(i64::MAX), nanos }
}

/// Milliseconds of Unix time, rounded up so that a filter by it lets nothing through that is older. What is before
/// that time is as good as its beginning: no task is so old.
pub(super) fn unix_ms(field: &str, time: &pbjson_types::Timestamp) -> Result<u64, A2aError> {
    let wrong = || A2aError::invalid(field, "isn't a time");
    let seconds = u64::try_from(time.seconds.max(0)).map_err(|_negative| wrong())?;
    let nanos = u64::try_from(time.nanos).map_err(|_negative| wrong())?;
    seconds
        .checked_mul(1_000)
        .and_then(|ms| ms.checked_add(nanos.div_ceil(1_000_000)))
        .ok_or_else(wrong)
}

/// A state as a filter; none if it isn't given.
pub(super) fn wanted_state(field: &str, state: i32) -> Result<Option<TaskState>, A2aError> {
    Ok(Some(match pb::TaskState::try_from(state) {
        Ok(pb::TaskState::Unspecified) => return Ok(None),
        Ok(pb::TaskState::Submitted) => TaskState::Submitted,
        Ok(pb::TaskState::Working) => TaskState::Working,
        Ok(pb::TaskState::Completed) => TaskState::Completed,
        Ok(pb::TaskState::Failed) => TaskState::Failed,
        Ok(pb::TaskState::Canceled) => TaskState::Canceled,
        Ok(pb::TaskState::InputRequired) => TaskState::InputRequired,
        Ok(pb::TaskState::Rejected) => TaskState::Rejected,
        Ok(pb::TaskState::AuthRequired) => TaskState::AuthRequired,
        Err(_unknown) => return Err(A2aError::invalid(field, "isn't a state of a task")),
    }))
}

pub(super) fn state(state: TaskState) -> pb::TaskState {
    match state {
        TaskState::Submitted => pb::TaskState::Submitted,
        TaskState::Working => pb::TaskState::Working,
        TaskState::InputRequired => pb::TaskState::InputRequired,
        TaskState::AuthRequired => pb::TaskState::AuthRequired,
        TaskState::Rejected => pb::TaskState::Rejected,
        TaskState::Completed => pb::TaskState::Completed,
        TaskState::Failed => pb::TaskState::Failed,
        TaskState::Canceled => pb::TaskState::Canceled,
    }
}
