//! A task's tool calls in its log: each that was begun, and what came of it. A second run that makes the same call
//! is given the result that the log has.
//!
//! A call is known again by its tool, its arguments, and the how manieth of its like it is in its run. By its place
//! among all calls it wouldn't be: those of an effect that is there aren't made again, and of those that a function
//! has spawned another comes first each time.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use data_encoding::HEXLOWER;
use neuroflow_kernel::{Address, Header, Parcel, RawParcel, WireMessage};
use ring::digest::{Context, SHA256};

use super::{AgentCommand, TaskContext};
use crate::journal::{
    AppendError, ArchivedCallEnd, ArchivedRecordedJson, CallEnd, CallRecord, Entry, EntryKind,
    OutcomeRecord, RecordedJson,
};
use crate::limits::{
    CALL_ARGUMENT_BYTES, CALL_MESSAGE_BYTES, CALL_NAME_BYTES, CALL_RESULT_BYTES, EFFECT_BYTES,
    EFFECT_SETTLED, TASK_CALL_BYTES, TASK_CALLS,
};
use crate::tools::{InvokeError, ToolProgress, ToolResult, ToolsCommand, invoke_json};

tokio::task_local! {
    /// The key of the effect that is done.
    static EFFECT: String;
}

/// `work` as that of an effect: its calls are no others' like.
pub(super) async fn within<F: Future>(effect: &str, work: F) -> F::Output {
    EFFECT.scope(effect.to_owned(), work).await
}

/// What a log has of tool calls.
#[derive(Debug, Default)]
pub(super) struct CallLog {
    /// Results, by the key of the call.
    results: HashMap<String, String>,
    calls: usize,
    /// Of all their entries.
    bytes: usize,
}

impl CallLog {
    /// A call was begun.
    pub(super) fn begun(&mut self, record: &RawParcel) {
        self.calls += 1;
        self.bytes += record.as_bytes().len();
    }

    /// A call has ended. Says whether its result is there, so that it isn't made again.
    pub(super) fn ended(&mut self, key: String, record: RawParcel) -> bool {
        self.bytes += record.as_bytes().len();
        let Ok(record) = record.open::<OutcomeRecord>() else { return false };
        let ArchivedCallEnd::Done(ArchivedRecordedJson::Whole(json)) = &record.get().end else {
            return false;
        };
        self.results.insert(key, json.to_string());
        true
    }

    /// Bytes that are kept of it.
    pub(super) fn held(&self) -> usize {
        self.results.iter().map(|(key, json)| key.len() + json.len()).sum()
    }
}

/// The tool calls of one run of a task.
#[derive(Clone, Default)]
pub(super) struct Calls(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    log: CallLog,
    /// Those that this run has begun, and how many there are of each kind.
    begun: usize,
    alike: HashMap<[u8; 16], u64>,
}

/// A call that is begun.
#[derive(Debug, PartialEq, Eq)]
enum Begun {
    /// An earlier run had this result.
    Known(String),
    /// It's noted under this key.
    Noted(String),
    /// There were too many to note them all.
    Unnoted,
}

impl Calls {
    /// Of a task whose log has these.
    pub(super) fn of(log: CallLog) -> Self {
        Self(Arc::new(Mutex::new(State { log, ..State::default() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, tool: &str, arguments: &str) -> Begun {
        if self.state().begun >= TASK_CALLS {
            return Begun::Unnoted;
        }
        let effect = EFFECT.try_with(Clone::clone).unwrap_or_default();
        let digest = digest([&effect, tool, &canonical(arguments)]);
        let mut state = self.state();
        state.begun += 1;
        let alike = state.alike.entry(digest).or_default();
        *alike += 1;
        let key = key(tool, digest, *alike);
        if let Some(result) = state.log.results.remove(&key) {
            return Begun::Known(result);
        }
        if state.log.calls >= TASK_CALLS {
            return Begun::Unnoted;
        }
        state.log.calls += 1;
        Begun::Noted(key)
    }

    /// A value as it's recorded where it may have `most` bytes, and the task's calls what is left.
    fn recorded(&self, json: &str, most: usize) -> RecordedJson {
        let left = TASK_CALL_BYTES.saturating_sub(self.state().log.bytes);
        RecordedJson::of(json, most.min(left))
    }

    /// A record as an entry; none if it can't be archived, as so little always can.
    fn entry<T>(&self, kind: EntryKind, key: &str, record: &T) -> Option<Entry>
    where
        T: WireMessage,
    {
        let parcel = Parcel::archive(record).ok()?;
        self.state().log.bytes += parcel.as_raw().as_bytes().len();
        Some(Entry::new(kind, parcel.as_raw().clone()).keyed(key))
    }
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls").finish_non_exhaustive()
    }
}

/// Arguments without the order of their members, which is another in each process for some types.
fn canonical(json: &str) -> String {
    match serde_json::from_str::<serde_json::Value>(json) {
        Ok(mut value) => {
            value.sort_all_objects();
            value.to_string()
        }
        Err(_too_deep) => json.to_owned(),
    }
}

fn digest(texts: [&str; 3]) -> [u8; 16] {
    let mut context = Context::new(&SHA256);
    for text in texts {
        context.update(&(text.len() as u64).to_le_bytes());
        context.update(text.as_bytes());
    }
    let mut half = [0; 16];
    let all = context.finish();
    half.iter_mut().zip(all.as_ref()).for_each(|(byte, of)| *byte = *of);
    half
}

fn key(tool: &str, digest: [u8; 16], alike: u64) -> String {
    format!("{}#{}#{alike}", cut(tool, CALL_NAME_BYTES), HEXLOWER.encode(&digest))
}

fn cut(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or_default()
}

impl TaskContext {
    /// Makes a call, unless the log has its result.
    pub(super) async fn called(
        &self,
        tools: &Address<ToolsCommand>,
        header: Header,
        tool: &str,
        arguments: String,
        told: impl FnMut(ToolProgress),
    ) -> Result<ToolResult, InvokeError> {
        let key = match self.calls.begin(tool, &arguments) {
            Begun::Known(result) => return ToolResult::read(&result),
            Begun::Unnoted => {
                let json = invoke_json(tools, header, tool, arguments, told).await?;
                return ToolResult::read(&json);
            }
            Begun::Noted(key) => key,
        };
        let call = CallRecord {
            tool: cut(tool, CALL_NAME_BYTES).to_owned(),
            arguments: self.calls.recorded(&arguments, CALL_ARGUMENT_BYTES),
            at_ms: self.clock.unix_ms(),
        };
        self.note(self.calls.entry(EntryKind::Call, &key, &call)).await;
        let json = invoke_json(tools, header, tool, arguments, told).await;
        let done = json.and_then(|json| Ok((ToolResult::read(&json)?, json)));
        let most = if self.is_resumable() { EFFECT_BYTES } else { CALL_RESULT_BYTES };
        let end = match &done {
            Ok((_, json)) => CallEnd::Done(self.calls.recorded(json, most)),
            Err(error) => CallEnd::Failed {
                code: error.code().to_owned(),
                message: cut(&error.to_string(), CALL_MESSAGE_BYTES).to_owned(),
            },
        };
        // What isn't given to a second run needn't be there before this one goes on.
        let is_kept = matches!(end, CallEnd::Done(RecordedJson::Whole(_))) && self.is_resumable();
        let outcome = OutcomeRecord { end, at_ms: self.clock.unix_ms() };
        let entry = self.calls.entry(EntryKind::Outcome, &key, &outcome);
        if is_kept && let Some(entry) = entry {
            self.keep_outcome(entry).await?;
        } else {
            self.note(entry).await;
        }
        done.map(|(result, _)| result)
    }

    /// Has an entry in the log before whatever the task says next.
    async fn note(&self, entry: Option<Entry>) {
        let Some(entry) = entry else { return };
        let note = AgentCommand::Note { task: self.task.clone(), entry, kept: None };
        // The only error is that the agent has ended, and so the task.
        let _ended = self.server.tell(Header::new(), note).await;
    }

    /// Returns once the log has the entry.
    async fn keep_outcome(&self, entry: Entry) -> Result<(), InvokeError> {
        let header = self.header.clone().within(&self.clock, EFFECT_SETTLED);
        let task = self.task.clone();
        let note = |kept| AgentCommand::Note { task, entry, kept: Some(kept) };
        let kept = self.server.call(header, note).await.unwrap_or_else(|error| Err(error.into()));
        kept.map_err(|source: AppendError| InvokeError::Unkept { source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(json: &str) -> RawParcel {
        let end = CallEnd::Done(RecordedJson::Whole(json.into()));
        Parcel::archive(&OutcomeRecord { end, at_ms: 1 }).expect("it's little").as_raw().clone()
    }

    /// The key of a call that is noted.
    fn noted(calls: &Calls, tool: &str, arguments: &str) -> String {
        match calls.begin(tool, arguments) {
            Begun::Noted(key) => key,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_second_run_is_given_each_result_once_and_for_the_same_call_only() {
        let first = Calls::default();
        let keys =
            ["{\"a\":1,\"b\":2}", "{\"a\":1,\"b\":2}", "{}"].map(|it| noted(&first, "t", it));
        let mut log = CallLog::default();
        for (key, json) in keys.into_iter().zip(["1", "2", "3"]) {
            log.begun(&done("null"));
            assert!(log.ended(key, done(json)));
        }
        let known = |result: &str| Begun::Known(result.to_owned());
        let again = Calls::of(log);
        // Whatever comes between them and in which order their members are.
        noted(&again, "t", "{\"a\":2}");
        noted(&again, "other", "{}");
        assert_eq!(again.begin("t", "{}"), known("3"));
        assert_eq!(again.begin("t", "{ \"b\": 2, \"a\": 1 }"), known("1"));
        assert_eq!(again.begin("t", "{\"a\":1,\"b\":2}"), known("2"));
        noted(&again, "t", "{\"a\":1,\"b\":2}");
        noted(&again, "t", "{}");
    }

    #[test]
    fn what_failed_or_is_known_by_its_digest_is_called_again() {
        let failed = CallEnd::Failed { code: "busy".into(), message: String::new() };
        for end in [failed, CallEnd::Done(RecordedJson::of("12", 1))] {
            let first = Calls::default();
            let key = noted(&first, "t", "{}");
            let mut log = CallLog::default();
            let outcome = Parcel::archive(&OutcomeRecord { end, at_ms: 1 }).expect("little");
            assert!(!log.ended(key.clone(), outcome.as_raw().clone()));
            assert_eq!(noted(&Calls::of(log), "t", "{}"), key);
        }
    }

    #[tokio::test]
    async fn the_calls_of_an_effect_are_no_others_like() {
        let calls = Calls::default();
        let (one, inside) = (noted(&calls, "t", "{}"), async { noted(&calls, "t", "{}") });
        let inside = within("pay", inside).await;
        let two = noted(&calls, "t", "{}");
        let [one, inside, two] = [&one, &inside, &two].map(|key| key.rsplit_once('#').expect("#"));
        assert_eq!((one.0, one.1, two.1), (two.0, "1", "2"));
        assert!(inside.0 != one.0 && inside.1 == "1");
    }

    #[test]
    fn a_log_has_so_many_calls_and_so_many_bytes_of_them() {
        let calls = Calls::default();
        let whole = |json: &RecordedJson| matches!(json, RecordedJson::Whole(_));
        let large = "x".repeat(TASK_CALL_BYTES / 2);
        assert!(whole(&calls.recorded(&large, TASK_CALL_BYTES)));
        for _ in 0..2 {
            let end = CallEnd::Done(RecordedJson::of(&large[..EFFECT_BYTES], EFFECT_BYTES));
            let record = OutcomeRecord { end, at_ms: 1 };
            while calls.state().log.bytes < TASK_CALL_BYTES {
                assert!(calls.entry(EntryKind::Outcome, "k", &record).is_some());
            }
        }
        assert!(!whole(&calls.recorded("1", TASK_CALL_BYTES)), "no room is left");
        for _ in 0..TASK_CALLS {
            noted(&calls, "t", "{}");
        }
        assert_eq!(calls.begin("t", "{}"), Begun::Unnoted);
        // A second run has as many less as are there.
        let log = CallLog { calls: TASK_CALLS - 1, ..CallLog::default() };
        let again = Calls::of(log);
        noted(&again, "t", "{}");
        assert_eq!(again.begin("t", "{}"), Begun::Unnoted);
    }

    #[test]
    fn a_key_fits_the_journal_whatever_the_tool_is_called() {
        let name = "ü".repeat(1_000);
        let key = noted(&Calls::default(), &name, "{}");
        assert!(key.len() <= crate::limits::JOURNAL_NAME_BYTES, "{}", key.len());
    }

    #[test]
    fn the_largest_result_fits_an_entry_of_the_journal() {
        let calls = Calls::default();
        let end = CallEnd::Done(calls.recorded(&"x".repeat(EFFECT_BYTES), EFFECT_BYTES));
        let entry = calls.entry(EntryKind::Outcome, "k", &OutcomeRecord { end, at_ms: u64::MAX });
        let bytes = entry.expect("it can be archived").parcel.as_bytes().len();
        assert!((EFFECT_BYTES..=crate::limits::JOURNAL_RECORD_BYTES).contains(&bytes), "{bytes}");
    }
}
