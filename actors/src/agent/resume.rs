//! What a log says about a task that was interrupted: pure. The agent's function is run again from
//! its beginning; what the log has of the first run is given back instead of done again.

use std::collections::{HashMap, VecDeque};

use neuroflow_kernel::RawParcel;

use super::{ArchivedChange, Incoming, TaskEvent, TaskEvents, TaskState, ToolBounds};
use crate::access::{Principal, PrincipalRecord};
use crate::journal::{EffectResult, EntryKind, JournalDamage, TaskLog};

/// The key of events that the node makes, not the agent's function.
pub(super) const NODE: &str = "node";

/// What a second run of an agent's function is given.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// Events that the function has made and that are there: as many of those that it makes now
    /// aren't made again.
    pub(super) events: usize,
    /// What came of each wait for the client that is over: its message, or nothing.
    pub(super) answers: VecDeque<Option<Incoming>>,
    /// Messages that came while the function didn't wait for one.
    pub(super) unread: Vec<Incoming>,
    /// Whether the function waited for its client when it was interrupted, and hasn't come to that
    /// again.
    pub(super) waits: bool,
    /// Results of effects, as JSON.
    pub(super) effects: HashMap<String, String>,
}

/// A log, understood.
#[derive(Debug)]
pub(super) struct Understood {
    pub(super) events: TaskEvents,
    /// What the task was begun with.
    pub(super) ask: Option<Incoming>,
    pub(super) replay: Replay,
    /// Whom it works for, if rules say what that may use.
    pub(super) caller: Option<Caller>,
    pub(super) damage: Vec<JournalDamage>,
}

/// Whom a task works for.
#[derive(Debug)]
pub(super) enum Caller {
    Known(Principal),
    /// Somebody for whom another node has said what it may use.
    Within(ToolBounds),
    /// What the log has isn't understood, and so there's nothing that it may use.
    Unknown,
}

/// The events of a log that can be read, for those who ask about an ended task.
pub(super) fn events(log: TaskLog) -> TaskEvents {
    for damage in &log.damage {
        tracing::error!(task = %log.head.task, %damage, "damage of the journal");
    }
    let task = log.head.task;
    let events = log.entries.into_iter().filter(|entry| entry.kind == EntryKind::Event);
    let open = |parcel: RawParcel| match parcel.open::<TaskEvent>() {
        Ok(event) => Some(event),
        Err(error) => {
            tracing::error!(%task, error = &error as &dyn std::error::Error, "an event can't be read");
            None
        }
    };
    events.filter_map(|entry| open(entry.parcel)).collect()
}

/// Understands the log of a task that hasn't ended.
pub(super) fn understand(log: TaskLog) -> Understood {
    let mut understood = Understood {
        events: Vec::new(),
        ask: None,
        replay: Replay::default(),
        caller: None,
        damage: log.damage,
    };
    let replay = &mut understood.replay;
    // What was said, if it isn't known yet whether that was an answer.
    let mut said = None;
    for entry in log.entries {
        match entry.kind {
            EntryKind::Effect => {
                if let Ok(result) = entry.parcel.open::<EffectResult>() {
                    replay.effects.insert(entry.key, result.get().json.to_string());
                }
                continue;
            }
            EntryKind::Event => {}
            EntryKind::Caller => {
                understood.caller = Some(caller(entry.parcel));
                continue;
            }
            EntryKind::PushConfig | EntryKind::PushCursor => continue,
        }
        let Ok(event) = entry.parcel.open::<TaskEvent>() else { continue };
        let ours = entry.key != NODE;
        let change = &event.get().change;
        if let Some(said) = said.take() {
            // The node says right behind an answer that the task goes on.
            let works = matches!(change, ArchivedChange::Status { state, .. }
                if TaskState::from(*state) == TaskState::Working);
            if replay.waits && !ours && works {
                replay.waits = false;
                replay.answers.push_back(Some(said));
            } else {
                replay.unread.push(said);
            }
        }
        if ours {
            replay.events += 1;
        }
        match change {
            ArchivedChange::Accepted { .. } => understood.ask = Incoming::of(event.clone()),
            ArchivedChange::Continued { .. } => said = Incoming::of(event.clone()),
            ArchivedChange::Status { state, .. } if ours => {
                // It went on without an answer: the wait was over.
                let waits = TaskState::from(*state).is_interrupted();
                let over = std::mem::replace(&mut replay.waits, waits);
                replay.answers.extend(over.then_some(None));
            }
            _ if ours && std::mem::take(&mut replay.waits) => replay.answers.push_back(None),
            _ => {}
        }
        understood.events.push(event);
    }
    replay.unread.extend(said);
    understood
}

fn caller(record: RawParcel) -> Caller {
    if let Ok(bounds) = record.clone().open::<ToolBounds>() {
        return Caller::Within(bounds.get().into());
    }
    let record = record.open::<PrincipalRecord>().ok();
    let known = record.and_then(|record| record.get().principal());
    known.map_or(Caller::Unknown, Caller::Known)
}
