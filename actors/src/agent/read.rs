//! Values out of archives, where something has to be kept or changed.

use super::{ArchivedContent, ArchivedPart, ArchivedRole, ArchivedTurn, Content, Part, Role, Turn};

pub(crate) fn turn(turn: &ArchivedTurn) -> Turn {
    Turn {
        id: turn.id.to_string(),
        role: match turn.role {
            ArchivedRole::User => Role::User,
            ArchivedRole::Agent => Role::Agent,
        },
        parts: turn.parts.iter().map(part).collect(),
        metadata: turn.metadata.as_ref().map(ToString::to_string),
    }
}

pub(crate) fn part(part: &ArchivedPart) -> Part {
    Part {
        content: match &part.content {
            ArchivedContent::Text(text) => Content::Text(text.to_string()),
            ArchivedContent::Bytes(bytes) => Content::Bytes(bytes.to_vec()),
            ArchivedContent::Url(url) => Content::Url(url.to_string()),
            ArchivedContent::Json(json) => Content::Json(json.to_string()),
        },
        media_type: part.media_type.as_ref().map(ToString::to_string),
        filename: part.filename.as_ref().map(ToString::to_string),
        metadata: part.metadata.as_ref().map(ToString::to_string),
    }
}
