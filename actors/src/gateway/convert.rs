//! A2A's data model to and from the agents' own.

use a2a_pb::protojson as pb;
use pbjson_types::value::Kind;
use rkyv::Archived;
use serde_json::Value;

use super::error::A2aError;
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

fn json_object(
    field: &str,
    object: Option<&pbjson_types::Struct>,
) -> Result<Option<String>, A2aError> {
    object.map(|object| json(field, object)).transpose()
}

/// A value as its sender wrote it, but for numbers that no double can hold.
fn json(field: &str, value: &impl serde::Serialize) -> Result<String, A2aError> {
    let unwritable = |error: serde_json::Error| A2aError::invalid(field, error.to_string());
    let mut json = serde_json::to_value(value).map_err(unwritable)?;
    whole_numbers(&mut json);
    Ok(json.to_string())
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

fn read_object(json: Option<&str>) -> Option<pbjson_types::Struct> {
    json.and_then(|json| serde_json::from_str(json).ok())
}

/// Writes whole numbers as such: `google.protobuf.Value` knows doubles only, and 0 became 0.0.
pub(super) fn whole_numbers(json: &mut Value) {
    match json {
        Value::Number(number) => {
            // Up to 2^53 a double holds every whole number.
            const EXACT: f64 = 9_007_199_254_740_992.0;
            if let Some(value) = number.as_f64()
                && number.is_f64()
                && value.fract() == 0.0
                && value.abs() <= EXACT
            {
                #[expect(clippy::cast_possible_truncation, reason = "whole and within 2^53")]
                let whole = value as i64;
                *number = whole.into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(members) => members.values_mut().for_each(whole_numbers),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
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
