//! Tasks and their entries, for people and as JSON.

use std::fmt::Write as _;

use neuroflow::TaskState;
use neuroflow::actors::{
    ArchivedArtifact, ArchivedAsk, ArchivedCallEnd, ArchivedChange, ArchivedContent,
    ArchivedRecordedJson, ArchivedTaskEvent, ArchivedTurn, CallRecord, EffectResult, Entry,
    EntryKind, OutcomeRecord, TaskEvent, TaskHead, TaskLog,
};
use serde_json::{Value, json};

use crate::plain;

const STATES: [TaskState; 8] = [
    TaskState::Submitted,
    TaskState::Working,
    TaskState::InputRequired,
    TaskState::AuthRequired,
    TaskState::Completed,
    TaskState::Failed,
    TaskState::Canceled,
    TaskState::Rejected,
];

/// The state of this name.
pub(crate) fn state(name: &str) -> Option<TaskState> {
    STATES.into_iter().find(|state| word(*state) == name)
}

/// All names of states.
pub(crate) fn states() -> String {
    STATES.map(word).join(", ")
}

fn word(state: TaskState) -> &'static str {
    match state {
        TaskState::InputRequired => "input-required",
        TaskState::AuthRequired => "auth-required",
        state => state.as_str(),
    }
}

/// A task in one line.
pub(crate) fn head(head: &TaskHead, as_json: bool) -> String {
    let (when, state) = (time(head.changed_ms), word(head.state));
    if as_json {
        let line = json!({
            "agent": head.agent, "task": head.task, "context": head.context,
            "caller": head.caller, "state": state, "changed": when,
            "events": head.generation, "entries": head.entries,
        });
        return line.to_string();
    }
    let (agent, task) = (plain::name(&head.agent), plain::name(&head.task));
    format!("{when}  {state:<14}  {agent:<16}  {task}  ({} events)", head.generation)
}

/// A task's log, one entry per line.
pub(crate) fn log(log: &TaskLog, as_json: bool) -> Vec<String> {
    let (agent, task) = (&log.head.agent, &log.head.task);
    let first = (!as_json).then(|| head(&log.head, false));
    let entries = log.entries.iter().map(|entry| {
        let mut value = json!({
            "agent": agent, "task": task, "kind": kind(entry.kind),
            "key": entry.key, "version": entry.parcel.version(),
        });
        for (key, content) in content(entry) {
            value[key] = content;
        }
        if as_json { value.to_string() } else { format!("  {}", line(entry, &value)) }
    });
    let damages = log.damage.iter().map(|damage| {
        let damage = damage.to_string();
        if as_json {
            json!({ "agent": agent, "task": task, "damage": damage }).to_string()
        } else {
            format!("  damaged: {}", plain::name(&damage))
        }
    });
    first.into_iter().chain(entries).chain(damages).collect()
}

fn line(entry: &Entry, value: &Value) -> String {
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let shown = |key: &str| plain::text(&value[key].to_string());
    match entry.kind {
        EntryKind::Event => {
            format!("{:>4}  {}  {}", value["generation"], text("at"), shown("change"))
        }
        EntryKind::Call | EntryKind::Outcome => {
            let what = ["arguments", "result", "failed", "unreadable"];
            let what = what.into_iter().find(|key| !value[*key].is_null()).unwrap_or("result");
            let (kind, key) = (text("kind"), &entry.key);
            format!("      {}  {kind} {key:?}  {}", text("at"), shown(what))
        }
        _ => format!("      {} {:?}  {}", text("kind"), entry.key, shown("result")),
    }
}

fn kind(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Event => "event",
        EntryKind::Effect => "effect",
        EntryKind::PushConfig => "push-config",
        EntryKind::PushCursor => "push-cursor",
        EntryKind::Caller => "caller",
        EntryKind::Run => "run",
        EntryKind::Call => "call",
        EntryKind::Outcome => "outcome",
    }
}

/// What an entry holds; what can't be read says so. Push configurations have credentials in them,
/// and aren't shown.
fn content(entry: &Entry) -> Vec<(&'static str, Value)> {
    match entry.kind {
        EntryKind::Event => match entry.parcel.clone().open::<TaskEvent>() {
            Ok(parcel) => event(parcel.get()),
            Err(error) => vec![("unreadable", error.to_string().into())],
        },
        EntryKind::Effect => match entry.parcel.clone().open::<EffectResult>() {
            Ok(result) => vec![("result", parsed(&result.get().json))],
            Err(error) => vec![("unreadable", error.to_string().into())],
        },
        EntryKind::Call => match entry.parcel.clone().open::<CallRecord>() {
            Ok(call) => vec![
                ("tool", call.get().tool.as_str().into()),
                ("arguments", recorded(&call.get().arguments)),
                ("at", time(call.get().at_ms.to_native()).into()),
            ],
            Err(error) => vec![("unreadable", error.to_string().into())],
        },
        EntryKind::Outcome => match entry.parcel.clone().open::<OutcomeRecord>() {
            Ok(outcome) => {
                let end = match &outcome.get().end {
                    ArchivedCallEnd::Done(json) => ("result", recorded(json)),
                    ArchivedCallEnd::Failed { code, message } => {
                        let failed = json!({ "code": code.as_str(), "message": message.as_str() });
                        ("failed", failed)
                    }
                };
                vec![end, ("at", time(outcome.get().at_ms.to_native()).into())]
            }
            Err(error) => vec![("unreadable", error.to_string().into())],
        },
        EntryKind::PushConfig | EntryKind::PushCursor | EntryKind::Caller | EntryKind::Run => {
            Vec::new()
        }
    }
}

/// A value, or what the journal has in its place.
fn recorded(json: &ArchivedRecordedJson) -> Value {
    match json {
        ArchivedRecordedJson::Whole(json) => parsed(json),
        ArchivedRecordedJson::Digest { bytes, sha256 } => {
            json!({ "bytes": bytes.to_native(), "sha256": hex(sha256) })
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        // Writing into a text doesn't fail.
        let _written = write!(hex, "{byte:02x}");
        hex
    })
}

fn event(event: &ArchivedTaskEvent) -> Vec<(&'static str, Value)> {
    let change = match &event.change {
        ArchivedChange::Accepted { ask } => json!({ "accepted": asked(ask) }),
        ArchivedChange::Continued { ask } => json!({ "continued": asked(ask) }),
        ArchivedChange::Status { state, turn } => {
            let state = word(TaskState::from(*state));
            match turn.as_ref() {
                Some(turn) => json!({ "state": state, "message": said(turn) }),
                None => json!({ "state": state }),
            }
        }
        ArchivedChange::Artifact { artifact, append, last } => {
            json!({ "artifact": produced(artifact), "append": append, "last": last })
        }
        ArchivedChange::Refused(_) => json!("refused"),
    };
    vec![
        ("generation", event.generation.to_native().into()),
        ("at", time(event.at_ms.to_native()).into()),
        ("change", change),
    ]
}

fn asked(ask: &ArchivedAsk) -> Value {
    json!({ "caller": ask.caller.as_deref(), "message": said(&ask.turn) })
}

fn said(turn: &ArchivedTurn) -> Value {
    let parts: Vec<Value> = turn.parts.iter().map(|part| piece(&part.content)).collect();
    match turn.metadata.as_ref() {
        Some(metadata) => json!({ "parts": parts, "metadata": parsed(metadata) }),
        None => json!({ "parts": parts }),
    }
}

fn produced(artifact: &ArchivedArtifact) -> Value {
    let parts: Vec<Value> = artifact.parts.iter().map(|part| piece(&part.content)).collect();
    json!({ "id": artifact.id.as_str(), "name": artifact.name.as_str(), "parts": parts })
}

fn piece(content: &ArchivedContent) -> Value {
    match content {
        ArchivedContent::Text(text) => json!({ "text": text.as_str() }),
        ArchivedContent::Json(json) => json!({ "data": parsed(json) }),
        ArchivedContent::Url(url) => json!({ "url": url.as_str() }),
        ArchivedContent::Bytes(bytes) => json!({ "hex": hex(bytes) }),
    }
}

/// JSON within JSON; a text if it isn't any.
fn parsed(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or_else(|_| json.into())
}

/// A time as people write it, in UTC.
fn time(ms: u64) -> String {
    let (days, second) = (ms / 86_400_000, ms / 1_000 % 86_400);
    // Counted in eras of 400 years from the 1st of March of year 0: leap days are at their ends.
    let day = days + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (month, year) = if month < 10 { (month + 3, year) } else { (month - 9, year + 1) };
    let year = era * 400 + year;
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_people_write_them() {
        assert_eq!(time(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(time(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(time(1_709_251_199_999), "2024-02-29T23:59:59.999Z");
        assert_eq!(time(4_102_444_800_000), "2100-01-01T00:00:00.000Z");
    }

    #[test]
    fn states_are_found_by_their_names() {
        for known in STATES {
            assert_eq!(state(word(known)), Some(known));
        }
        assert_eq!(state("Working"), None);
    }
}
