//! What a log says about a task that was interrupted: pure. The agent's function is run again from
//! its beginning; what the log has of the first run is given back instead of done again.

use std::collections::VecDeque;

use neuroflow_kernel::{Parcel, RawParcel, WireMessage};
use rkyv::{Archive, Serialize};

use super::live::Earlier;
use super::reach::Unbounded;
use super::{ArchivedChange, Incoming, TaskEvent, TaskEvents, TaskState};
use crate::access::{Principal, PrincipalRecord};
use crate::journal::{EffectResult, Entry, EntryKind, JournalDamage, TaskLog};
use crate::tools::ToolBounds;

/// The key of events that the node makes, not the agent's function.
pub(super) const NODE: &str = "node";

/// The key of events by which the agent's function begins to wait for its client. Such a wait is over when the
/// node says that the task goes on (right behind a message: by that answer; else without one), or with the next
/// wait. In logs of older versions these events have no key: there a wait is over with the function's next event.
pub(super) const WAIT: &str = "wait";

/// The key of the entry by which a task is run again. It's durable before that run begins.
pub(super) const AGAIN: &str = "again";

/// The key of the entry by which a run counts no more, though it has brought nothing: its node was stopped in good
/// order, or its function waits for the client as the one before did.
pub(super) const STOOD: &str = "stood";

/// In a task's log: what its key says, and when.
#[derive(Archive, Serialize)]
pub(super) struct RunMark {
    at_ms: u64,
}

impl WireMessage for RunMark {
    const NAME: &'static str = "neuroflow.agent.run-mark";
    const VERSION: u16 = 1;
}

impl RunMark {
    /// It as an entry; none if it can't be archived, as so little always can.
    pub(super) fn entry(key: &str, at_ms: u64) -> Option<Entry> {
        let mark = Parcel::archive(&Self { at_ms }).ok()?;
        Some(Entry::new(EntryKind::Run, mark.as_raw().clone()).keyed(key))
    }
}

/// Runs that were begun again and have brought nothing of the task's own since: no event, no effect, and no result of
/// a tool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fruitless {
    pub(super) runs: u32,
    /// When the last of them began.
    pub(super) last_ms: u64,
}

impl Fruitless {
    fn mark(&mut self, key: &str, mark: RawParcel) {
        if key != AGAIN {
            *self = Self::default();
            return;
        }
        self.runs = self.runs.saturating_add(1);
        self.last_ms = mark.open::<RunMark>().map_or(0, |mark| mark.get().at_ms.to_native());
    }
}

/// What a second run of an agent's function is given.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// Events that the function has made and that are there: as many of those that it makes now
    /// aren't made again. Of each the id of the artifact that it brought, if it did.
    pub(super) events: VecDeque<Option<String>>,
    /// What came of each wait for the client that is over: its message, or nothing.
    pub(super) answers: VecDeque<Option<Incoming>>,
    /// Messages that came while the function didn't wait for one.
    pub(super) unread: Vec<Incoming>,
    /// Whether the function waited for its client when it was interrupted, and hasn't come to that
    /// again.
    pub(super) waits: bool,
    /// What isn't done again.
    pub(super) earlier: Earlier,
}

/// A log, understood.
#[derive(Debug)]
pub(super) struct Understood {
    pub(super) events: TaskEvents,
    /// What the task was begun with.
    pub(super) ask: Option<Incoming>,
    pub(super) replay: Replay,
    pub(super) caller: Caller,
    pub(super) fruitless: Fruitless,
    pub(super) damage: Vec<JournalDamage>,
}

/// Whom a task works for.
#[derive(Debug)]
pub(super) enum Caller {
    /// Somebody who may use everything.
    Unbounded,
    /// Somebody for whom rules say what it may use.
    Known(Principal),
    /// Somebody for whom another node has said what it may use.
    Within(ToolBounds),
    /// What the log has isn't understood, or it has nothing of that, because the agent wasn't resumable or by an older
    /// version: there's nothing that it may use.
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
        caller: Caller::Unknown,
        fruitless: Fruitless::default(),
        damage: log.damage,
    };
    let replay = &mut understood.replay;
    // What was said, if it isn't known yet whether that was an answer.
    let mut said = None;
    let mut open = None;
    for entry in log.entries {
        match entry.kind {
            EntryKind::Effect => {
                understood.fruitless = Fruitless::default();
                if let Ok(result) = entry.parcel.open::<EffectResult>() {
                    replay.earlier.effects.insert(entry.key, result.get().json.to_string());
                }
                continue;
            }
            EntryKind::Call => {
                replay.earlier.calls.begun(&entry.parcel);
                continue;
            }
            EntryKind::Outcome => {
                if replay.earlier.calls.ended(entry.key, entry.parcel) {
                    understood.fruitless = Fruitless::default();
                }
                continue;
            }
            EntryKind::Event => {}
            EntryKind::Caller => {
                understood.caller = caller(entry.parcel);
                continue;
            }
            EntryKind::Run => {
                understood.fruitless.mark(&entry.key, entry.parcel);
                continue;
            }
            EntryKind::PushConfig | EntryKind::PushCursor => continue,
        }
        let Ok(event) = entry.parcel.open::<TaskEvent>() else { continue };
        let ours = entry.key != NODE;
        let change = &event.get().change;
        let state = match change {
            ArchivedChange::Status { state, .. } => Some(TaskState::from(*state)),
            _ => None,
        };
        // The node says right behind an answer that the task goes on, and so where there won't be one.
        let goes_on = !ours && state == Some(TaskState::Working);
        let answer = said.take();
        match open {
            Some(_) if goes_on && answer.is_some() => {
                open = None;
                replay.answers.push_back(answer);
            }
            Some(Wait::Noted) if goes_on => {
                open = None;
                replay.answers.push_back(None);
            }
            _ => replay.unread.extend(answer),
        }
        if ours && (open != Some(Wait::Noted) || entry.key == WAIT) {
            // It went on without an answer: the wait was over.
            replay.answers.extend(open.is_some().then_some(None));
            open = begins(&entry.key, state);
        }
        match change {
            ArchivedChange::Accepted { .. } => understood.ask = Incoming::of(event.clone()),
            ArchivedChange::Continued { .. } => said = Incoming::of(event.clone()),
            _ => {}
        }
        if ours {
            understood.fruitless = Fruitless::default();
            replay.events.push_back(match change {
                ArchivedChange::Artifact { artifact, .. } => Some(artifact.id.to_string()),
                _ => None,
            });
        }
        understood.events.push(event);
    }
    replay.waits = open.is_some();
    replay.unread.extend(said);
    understood
}

/// How it's known that a wait is over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// The log says so.
    Noted,
    /// By what the function does next.
    Unnoted,
}

/// The wait that an event of the function begins, if any.
fn begins(key: &str, state: Option<TaskState>) -> Option<Wait> {
    match state {
        _ if key == WAIT => Some(Wait::Noted),
        Some(state) if state.is_interrupted() => Some(Wait::Unnoted),
        _ => None,
    }
}

fn caller(record: RawParcel) -> Caller {
    if record.clone().open::<Unbounded>().is_ok() {
        return Caller::Unbounded;
    }
    if let Ok(bounds) = record.clone().open::<ToolBounds>() {
        return Caller::Within(bounds.get().into());
    }
    let record = record.open::<PrincipalRecord>().ok();
    let known = record.and_then(|record| record.get().principal());
    known.map_or(Caller::Unknown, Caller::Known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::reach::Reach;
    use crate::agent::{Artifact, Ask, Change, Turn};
    use crate::journal::{CallEnd, OutcomeRecord, RecordedJson, TaskHead};

    /// A log of these events, each with its key.
    fn read(events: Vec<(&str, Change)>) -> Understood {
        let of = |(generation, (key, change))| {
            let (task, context) = ("t".to_owned(), "c".to_owned());
            let event = Parcel::archive(&TaskEvent { task, context, generation, at_ms: 0, change });
            Entry::event(event.unwrap().as_raw().clone()).keyed(key)
        };
        let entries: Vec<Entry> = (1..).zip(events).map(of).collect();
        understand(TaskLog { head: head(entries.len() as u64), entries, damage: Vec::new() })
    }

    fn head(entries: u64) -> TaskHead {
        TaskHead {
            agent: "a".into(),
            task: "t".into(),
            context: "c".into(),
            caller: None,
            state: TaskState::Working,
            changed_ms: 0,
            generation: entries,
            entries,
        }
    }

    fn status(state: TaskState) -> Change {
        Change::Status { state, turn: None }
    }

    fn asks() -> Change {
        status(TaskState::InputRequired)
    }

    fn works() -> Change {
        status(TaskState::Working)
    }

    fn draft() -> Change {
        Artifact::text("draft", "a draft").into()
    }

    fn says(text: &str) -> Change {
        Change::Continued { ask: Ask::new(Turn::user(text)) }
    }

    /// What came of each wait, what was said besides, and whether it waits.
    fn waits(understood: &Understood) -> (Vec<Option<String>>, Vec<String>, bool) {
        let replay = &understood.replay;
        let text = |said: &Incoming| said.text();
        let answers = replay.answers.iter().map(|said| said.as_ref().map(text)).collect();
        (answers, replay.unread.iter().map(text).collect(), replay.waits)
    }

    #[test]
    fn only_a_task_of_which_the_log_says_so_may_use_everything() {
        let silent = read(vec![(NODE, works())]);
        assert!(matches!(silent.caller, Caller::Unknown), "{:?}", silent.caller);
        let of = |reach: Reach| caller(reach.entry().expect("it's noted").parcel);
        assert!(matches!(of(Reach::Whole), Caller::Unbounded));
        let bounds = ToolBounds { tools: vec!["count".into()], levels: vec![] };
        assert!(matches!(of(Reach::Within(bounds.clone())), Caller::Within(it) if it == bounds));
        let newer = RawParcel::new(neuroflow_kernel::MessageId::of("newer"), 1, &[]);
        assert!(matches!(caller(newer), Caller::Unknown));
    }

    #[test]
    fn runs_count_until_one_brings_something_of_the_tasks_own() {
        let mark = |key, at_ms| RunMark::entry(key, at_ms).expect("it's little");
        let event = |key: &str| {
            let (task, context) = ("t".to_owned(), "c".to_owned());
            let event = TaskEvent { task, context, generation: 1, at_ms: 0, change: works() };
            Entry::event(Parcel::archive(&event).unwrap().as_raw().clone()).keyed(key)
        };
        let effect = || {
            let result = Parcel::archive(&EffectResult { json: "1".into() }).unwrap();
            Entry::new(EntryKind::Effect, result.as_raw().clone()).keyed("pay")
        };
        let outcome = |end| {
            let outcome = Parcel::archive(&OutcomeRecord { end, at_ms: 5 }).unwrap();
            Entry::new(EntryKind::Outcome, outcome.as_raw().clone()).keyed("look#1")
        };
        let called = || outcome(CallEnd::Done(RecordedJson::of("1", 1)));
        let failed = outcome(CallEnd::Failed { code: "busy".into(), message: String::new() });
        let runs = |entries: Vec<Entry>| {
            let log = TaskLog { head: head(entries.len() as u64), entries, damage: Vec::new() };
            let Fruitless { runs, last_ms } = understand(log).fruitless;
            (runs, last_ms)
        };
        assert_eq!(runs(vec![event("")]), (0, 0));
        assert_eq!(runs(vec![event(""), mark(AGAIN, 5), mark(AGAIN, 7)]), (2, 7));
        // What clients say and the node notes of that isn't the task's own.
        assert_eq!(runs(vec![mark(AGAIN, 5), event(NODE), mark(AGAIN, 7)]), (2, 7));
        // A call without a result is made again.
        assert_eq!(runs(vec![mark(AGAIN, 5), failed, mark(AGAIN, 7)]), (2, 7));
        for own in [event(""), event(WAIT), effect(), called(), mark(STOOD, 6)] {
            assert_eq!(runs(vec![mark(AGAIN, 5), own.clone(), mark(AGAIN, 7)]), (1, 7));
            assert_eq!(runs(vec![mark(AGAIN, 5), own]), (0, 0));
        }
    }

    #[test]
    fn a_wait_goes_on_over_what_the_function_does_until_the_node_says_that_it_is_over() {
        let open = vec![("", works()), (WAIT, asks()), ("", asks()), ("", draft())];
        let of = |rest: Vec<(&'static str, Change)>| read([open.clone(), rest].concat());
        assert_eq!(waits(&of(vec![])), (vec![], vec![], true));
        let events = of(vec![]).replay.events;
        assert_eq!(events.len(), 4);
        assert!(events.iter().take(3).all(Option::is_none) && events[3].is_some());
        let answered = vec![(NODE, says("x")), (NODE, works())];
        assert_eq!(waits(&of(answered)), (vec![Some("x".into())], vec![], false));
        // Over without an answer, and what comes then isn't one.
        let over = of(vec![(NODE, works()), (NODE, says("x")), ("", works())]);
        assert_eq!(waits(&over), (vec![None], vec!["x".into()], false));
        // The next wait ends the one before it.
        let next = of(vec![(WAIT, asks()), (NODE, says("x")), (NODE, works())]);
        assert_eq!(waits(&next), (vec![None, Some("x".into())], vec![], false));
    }

    #[test]
    fn in_the_log_of_an_older_version_a_wait_is_over_with_what_the_function_does_next() {
        assert_eq!(waits(&read(vec![("", works()), ("", asks())])), (vec![], vec![], true));
        for next in [works(), draft()] {
            let log = vec![("", asks()), (NODE, says("x")), ("", next)];
            assert_eq!(waits(&read(log)), (vec![None], vec!["x".into()], false));
        }
        let answered = vec![("", asks()), (NODE, says("x")), (NODE, works()), ("", asks())];
        assert_eq!(waits(&read(answered)), (vec![Some("x".into())], vec![], true));
        // This version has noted the end of a wait that the older one had begun.
        let both = vec![("", asks()), (NODE, works()), (NODE, says("x")), ("", works())];
        assert_eq!(waits(&read(both)), (vec![None], vec!["x".into()], false));
    }
}
