//! Whether what an agent says is something that its clients can be told: pure.

use serde::de::IgnoredAny;
use serde_json::Map;

use super::{AgentProfile, Artifact, Change, Content, Part, Turn};
use crate::limits::PARTS;

/// The reason of a task that failed because its agent has said what can't be told.
pub(crate) const INVALID_RESPONSE: &str = "invalid_response";

/// What is wrong with something that an agent says.
///
/// ```
/// let problem = neuroflow_actors::ReplyProblem::Empty;
/// assert_eq!(problem.to_string(), "has no parts; give it one at least");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplyProblem {
    /// There is nothing in it.
    #[error("has no parts; give it one at least")]
    Empty,
    /// It's in more pieces than a message may have.
    #[error("has {parts} parts; {PARTS} are allowed")]
    TooMany {
        /// The pieces.
        parts: usize,
    },
    /// It isn't the JSON that it's said to be.
    #[error("isn't valid JSON: {0}")]
    Json(#[source] serde_json::Error),
    /// It isn't a JSON object.
    #[error("must be a JSON object: {0}")]
    Object(#[source] serde_json::Error),
    /// It's of a type that the agent's profile doesn't name.
    #[error("is {found:?}; the agent's output modes are {known}")]
    MediaType {
        /// The type.
        found: String,
        /// Those that it names.
        known: String,
    },
}

/// Where it is, and what is wrong there.
pub(super) type Fault = (String, ReplyProblem);

/// Checks what a task wants to tell.
pub(super) fn check(changes: &[Change], profile: &AgentProfile) -> Result<(), Fault> {
    for change in changes {
        match change {
            Change::Status { turn: Some(turn), .. } => said(turn, profile)?,
            Change::Artifact { artifact, .. } => produced(artifact, profile)?,
            _ => {}
        }
    }
    Ok(())
}

pub(super) fn said(turn: &Turn, profile: &AgentProfile) -> Result<(), Fault> {
    object("message.metadata", turn.metadata.as_deref())?;
    parts("message", &turn.parts, profile)
}

fn produced(artifact: &Artifact, profile: &AgentProfile) -> Result<(), Fault> {
    object("artifact.metadata", artifact.metadata.as_deref())?;
    parts("artifact", &artifact.parts, profile)
}

fn parts(of: &str, parts: &[Part], profile: &AgentProfile) -> Result<(), Fault> {
    let all = || format!("{of}.parts");
    if parts.is_empty() {
        return Err((all(), ReplyProblem::Empty));
    }
    if parts.len() > PARTS {
        return Err((all(), ReplyProblem::TooMany { parts: parts.len() }));
    }
    for (at, part) in parts.iter().enumerate() {
        let field = |name: &str| format!("{of}.parts[{at}].{name}");
        if let Content::Json(json) = &part.content {
            let read = serde_json::from_str::<IgnoredAny>(json);
            read.map_err(|error| (field("data"), ReplyProblem::Json(error)))?;
        }
        object(&field("metadata"), part.metadata.as_deref())?;
        if let Some(found) = &part.media_type
            && !profile.output_modes.iter().any(|mode| overlap(mode, found))
        {
            let (found, known) = (found.clone(), profile.output_modes.join(", "));
            return Err((field("mediaType"), ReplyProblem::MediaType { found, known }));
        }
    }
    Ok(())
}

fn object(field: &str, json: Option<&str>) -> Result<(), Fault> {
    let Some(json) = json else { return Ok(()) };
    match serde_json::from_str::<Map<String, serde_json::Value>>(json) {
        Ok(_object) => Ok(()),
        Err(error) => Err((field.to_owned(), ReplyProblem::Object(error))),
    }
}

/// Whether something can be of both media types, parameters aside; `*` is any.
pub(crate) fn overlap(one: &str, other: &str) -> bool {
    let split = |mode: &'_ str| {
        let essence = mode.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        essence.split_once('/').map_or((essence.clone(), "*".to_owned()), |(kind, sub)| {
            (kind.to_owned(), sub.to_owned())
        })
    };
    let same = |one: &str, other: &str| one == other || one == "*" || other == "*";
    let ((kind, sub), (other_kind, other_sub)) = (split(one), split(other));
    same(&kind, &other_kind) && same(&sub, &other_sub)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::TaskState;

    fn fault(part: Part) -> Option<(String, String)> {
        let profile = AgentProfile::new("a", "b");
        let change =
            Change::from(Artifact::new("x", vec![Content::Text("fine".into()).into(), part]));
        let fault = check(&[change], &profile).err();
        fault.map(|(field, problem)| (field, problem.to_string()))
    }

    #[test]
    fn what_cannot_be_told_is_named_with_its_place() {
        assert_eq!(fault(Content::Json("[1, {}]".into()).into()), None);
        assert_eq!(fault(Content::Bytes(vec![0xff]).into()), None);
        let own = Part { media_type: Some("TEXT/plain; x=y".into()), ..fine() };
        assert_eq!(fault(own), None);
        for (part, field, words) in [
            (Content::Json("{".into()).into(), "artifact.parts[1].data", "isn't valid JSON"),
            (
                Part { metadata: Some("[]".into()), ..fine() },
                "artifact.parts[1].metadata",
                "must be a JSON object",
            ),
            (
                Part { media_type: Some("image/png".into()), ..fine() },
                "artifact.parts[1].mediaType",
                "is \"image/png\"; the agent's output modes are text/plain",
            ),
        ] {
            let (found, problem) = fault(part).expect("a fault");
            assert!(found == field && problem.starts_with(words), "{found} {problem}");
        }
    }

    #[test]
    fn messages_and_artifacts_have_parts_and_not_too_many() {
        let profile = AgentProfile::new("a", "b");
        let mut turn = Turn::agent("");
        let mut judge = |parts: Vec<Part>| {
            turn.parts.clone_from(&parts);
            let status = Change::Status { state: TaskState::Working, turn: Some(turn.clone()) };
            let said = check(&[status], &profile).err().map(|(field, _)| field);
            let produced = check(&[Artifact::new("x", parts).into()], &profile);
            (said, produced.err().map(|(field, _)| field))
        };
        let both = || (Some("message.parts".to_owned()), Some("artifact.parts".to_owned()));
        assert_eq!(judge(Vec::new()), both());
        assert_eq!(judge(vec![fine(); PARTS]), (None, None));
        assert_eq!(judge(vec![fine(); PARTS + 1]), both());
    }

    #[test]
    fn media_types_overlap_by_kind_and_wildcard() {
        assert!(overlap("text/plain", "TEXT/plain; charset=utf-8"));
        assert!(overlap("*/*", "image/png") && overlap("image/*", "image/png"));
        assert!(overlap("text", "text/markdown"));
        assert!(!overlap("text/plain", "text/markdown") && !overlap("text/*", "image/png"));
    }

    fn fine() -> Part {
        Content::Text("fine".into()).into()
    }
}
