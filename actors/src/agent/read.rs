//! Values out of archives, where something has to be kept or changed.

use rkyv::Archived;

use super::{
    ArchivedArtifact, ArchivedAsk, ArchivedContent, ArchivedPart, ArchivedRole, ArchivedTurn,
    Artifact, Ask, Content, Part, Role, Turn,
};

/// A request as its sender made it.
pub(crate) fn ask(ask: &ArchivedAsk) -> Ask {
    Ask {
        task: text(&ask.task),
        context: text(&ask.context),
        turn: turn(&ask.turn),
        caller: text(&ask.caller),
        tenant: text(&ask.tenant),
        accepted_output: texts(&ask.accepted_output),
        extensions: texts(&ask.extensions),
        metadata: text(&ask.metadata),
    }
}

pub(crate) fn turn(turn: &ArchivedTurn) -> Turn {
    Turn {
        id: turn.id.to_string(),
        role: match turn.role {
            ArchivedRole::User => Role::User,
            ArchivedRole::Agent => Role::Agent,
        },
        parts: turn.parts.iter().map(part).collect(),
        metadata: text(&turn.metadata),
        extensions: texts(&turn.extensions),
        references: texts(&turn.references),
    }
}

impl From<&ArchivedArtifact> for Artifact {
    fn from(archived: &ArchivedArtifact) -> Self {
        artifact(archived)
    }
}

pub(crate) fn artifact(artifact: &ArchivedArtifact) -> Artifact {
    Artifact {
        id: artifact.id.to_string(),
        name: artifact.name.to_string(),
        description: artifact.description.to_string(),
        parts: artifact.parts.iter().map(part).collect(),
        metadata: text(&artifact.metadata),
        extensions: texts(&artifact.extensions),
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
        media_type: text(&part.media_type),
        filename: text(&part.filename),
        metadata: text(&part.metadata),
    }
}

fn text(text: &Archived<Option<String>>) -> Option<String> {
    text.as_ref().map(ToString::to_string)
}

fn texts(texts: &Archived<Vec<String>>) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}
