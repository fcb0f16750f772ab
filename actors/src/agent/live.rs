//! A task that runs: its events, those of them that are durable, and who waits for what. Nothing
//! here waits or asks a clock.

use std::collections::HashMap;

use neuroflow_kernel::{Header, Moment, Parcel, Reply, ReplySink, SinkError};

use super::call::CallLog;
use super::history::failure;
use super::reach::Reach;
use super::record::{Record, RecordError};
use super::reply::INVALID_RESPONSE;
use super::resume::{AGAIN, NODE, Replay, RunMark, STOOD, WAIT};
use super::{CancelError, Change, Incoming, TaskEvent, TaskEvents, TaskState, Turn};
use crate::held::{Held, Holdings};
use crate::journal::{Append, AppendError, Entry, EntryKind, TaskHead};
use crate::limits::CALLS_UNSENT_BYTES;

/// Who makes an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The agent's function.
    Agent,
    /// The same, which waits for its client from now on.
    Wait,
    /// The node around it.
    Node,
}

type Kept = Reply<Result<(), AppendError>>;
pub(super) type Follower = ReplySink<Parcel<TaskEvent>>;

/// What the actor of a task is started with.
pub(super) struct Run {
    pub(super) ask: Incoming,
    pub(super) reach: Reach,
    pub(super) earlier: Earlier,
    pub(super) header: Header,
}

/// What is there of an earlier run that the next one doesn't do again.
#[derive(Debug, Default)]
pub(super) struct Earlier {
    /// Results of effects, as JSON.
    pub(super) effects: HashMap<String, String>,
    pub(super) calls: CallLog,
}

impl Earlier {
    /// Bytes of it that are kept.
    pub(super) fn held(&self) -> usize {
        let effects = self.effects.iter().map(|(key, json)| key.len() + json.len());
        effects.sum::<usize>() + self.calls.held()
    }
}

/// A task that runs.
pub(super) struct Live {
    pub(super) record: Record,
    /// What it holds: its record, whose bytes its messages are too, and what its function has of effects.
    held: Held,
    /// Bytes of those, which the function has until it ends.
    effects: usize,
    pub(super) followers: Vec<Follower>,
    /// Those that an event brings along, by its number: what comes before it doesn't tell them that
    /// it's durable.
    joining: Vec<(u64, Follower)>,
    /// What a new task is to do, until it's durable that there is one.
    pub(super) run: Option<Run>,
    /// Where the client's next message goes, while the agent waits for it.
    pub(super) waiting: Option<Reply<Option<Incoming>>>,
    /// Messages that came while it didn't.
    pub(super) unread: Vec<Incoming>,
    /// What an earlier run has done already.
    replay: Replay,
    /// Whether it's run again, and has brought nothing of its own since.
    fruitless: bool,
    /// The ids of artifacts that this run names anew, and those by which an earlier run has handed them out.
    renamed: HashMap<String, String>,
    /// Whoever cancelled it, until the journal has that.
    cancels: Vec<Reply<Result<TaskEvents, CancelError>>>,
    /// Events that the journal has.
    durable: usize,
    /// Those of them that followers have heard of.
    told: usize,
    /// Entries that the journal has.
    entries: u64,
    pending: Pending,
    flight: Option<Flight>,
    /// Its run is over, because the journal didn't take something of it.
    pub(super) stranded: bool,
    /// Until when the journal may still have something of it that isn't known to be there.
    pub(super) unsettled: Option<Moment>,
}

/// What isn't on its way to the journal yet.
#[derive(Default)]
struct Pending {
    entries: Vec<Entry>,
    events: usize,
    kept: Vec<Kept>,
    /// Bytes of entries that nobody waits for.
    noted_bytes: usize,
}

/// What is on its way to the journal.
struct Flight {
    entries: u64,
    events: usize,
    kept: Vec<Kept>,
}

impl Live {
    pub(super) fn new(record: Record, holdings: &Holdings) -> Self {
        let mut held = holdings.of(record.caller());
        held.set(record.bytes());
        Self {
            record,
            held,
            effects: 0,
            followers: Vec::new(),
            joining: Vec::new(),
            run: None,
            waiting: None,
            unread: Vec::new(),
            replay: Replay::default(),
            fruitless: false,
            renamed: HashMap::new(),
            cancels: Vec::new(),
            durable: 0,
            told: 0,
            entries: 0,
            pending: Pending::default(),
            flight: None,
            stranded: false,
            unsettled: None,
        }
    }

    /// Takes up a follower with the next event that is made.
    pub(super) fn join(&mut self, follower: Follower) {
        self.joining.push((self.record.generation().saturating_add(1), follower));
    }

    /// Whether those have gone who would be told that there is such a task: they may ask again.
    pub(super) fn is_abandoned(&self) -> bool {
        // Of one that is run again they know.
        !self.fruitless
            && !self.joining.is_empty()
            && self.joining.iter().all(|(_, follower)| follower.is_closed())
    }

    /// How many follow it, or are about to.
    pub(super) fn followed(&self) -> usize {
        self.followers.len() + self.joining.len()
    }

    /// A task as the journal has it.
    pub(super) fn restored(
        record: Record,
        entries: u64,
        mut replay: Replay,
        holdings: &Holdings,
    ) -> Self {
        let unread = std::mem::take(&mut replay.unread);
        let durable = record.events().len();
        Self { unread, replay, durable, told: durable, entries, ..Self::new(record, holdings) }
    }

    /// Its function has so much more of effects.
    pub(super) fn give(&mut self, bytes: usize) {
        self.effects += bytes;
        self.count();
    }

    /// After whatever has changed what it holds.
    fn count(&mut self) {
        self.held.set(self.record.bytes() + self.effects);
    }

    /// Adds an event, which nobody sees before it's durable, and gives what has come of it. An agent that says
    /// too much is at fault.
    pub(super) fn append(
        &mut self,
        mut change: Change,
        origin: Origin,
        at_ms: u64,
    ) -> Option<Parcel<TaskEvent>> {
        if origin != Origin::Node {
            if let Some(known) = self.replay.events.pop_front() {
                self.repeated(change, known);
                return None;
            }
            // The next wait says itself that one is over, and the end of the task needn't.
            if origin == Origin::Agent && !ends(&change) {
                self.settle(at_ms);
            }
            self.fruitless = false;
            self.adapt(&mut change);
        }
        let event = match self.record.append(change, at_ms) {
            Ok(event) => event,
            Err(RecordError::Ended { .. }) => return None,
            Err(error @ (RecordError::Full | RecordError::Archive(_))) => {
                let task = self.record.task();
                tracing::warn!(%task, error = &error as &dyn std::error::Error, "task failed");
                let end = failure(&error.to_string(), INVALID_RESPONSE);
                self.record.append(end, at_ms).ok()?
            }
        };
        let entry = Entry::event(event.as_raw().clone());
        self.pending.entries.push(match origin {
            Origin::Agent => entry,
            Origin::Wait => entry.keyed(WAIT),
            Origin::Node => entry.keyed(NODE),
        });
        self.pending.events += 1;
        self.count();
        Some(event)
    }

    /// Adds what its function has made, all in one append. An end of it isn't in the log, or it wouldn't run: so neither
    /// is what comes together with that, however much an earlier run had made by then.
    pub(super) fn progress(&mut self, changes: Vec<Change>, at_ms: u64) {
        if changes.iter().any(ends) {
            self.replay.events.clear();
        }
        for change in changes {
            self.append(change, Origin::Agent, at_ms);
        }
    }

    /// What an earlier run has made already isn't made again. Ids of artifacts are random: what this run adds to
    /// one belongs to that of the earlier run.
    fn repeated(&mut self, change: Change, known: Option<String>) {
        if let (Change::Artifact { artifact, .. }, Some(known)) = (change, known)
            && artifact.id != known
        {
            self.renamed.insert(artifact.id, known);
        }
    }

    /// Has an artifact go by the id that clients know, and a task stay its client's turn while its function waits.
    fn adapt(&mut self, change: &mut Change) {
        match change {
            Change::Artifact { artifact, .. } => {
                if let Some(known) = self.renamed.get(&artifact.id) {
                    artifact.id.clone_from(known);
                }
            }
            Change::Status { state: state @ TaskState::Working, .. } => {
                let waits = self.record.state();
                if waits.is_interrupted() && self.waiting.is_some() {
                    *state = waits;
                }
            }
            _ => {}
        }
    }

    /// If the agent waits no longer, notes that nobody has answered, before anything else that comes of it.
    pub(super) fn settle(&mut self, at_ms: u64) {
        if self.waiting.take_if(|waiting| waiting.is_closed()).is_some() {
            let working = Change::Status { state: TaskState::Working, turn: None };
            self.append(working, Origin::Node, at_ms);
        }
    }

    /// Notes something with what is appended next.
    pub(super) fn note(&mut self, entry: Entry) {
        self.pending.entries.push(entry);
    }

    /// Is to be run again, once that is durable: a run that ends with its node has been counted then. Gives the run
    /// back if it can't be noted.
    pub(super) fn run_again(&mut self, run: Run, at_ms: u64) -> Option<Run> {
        self.fruitless = true;
        let Some(mark) = RunMark::entry(AGAIN, at_ms) else { return Some(run) };
        self.note(mark);
        self.run.replace(run)
    }

    /// Whether it's run again, and it isn't known yet what comes of that.
    pub(super) fn is_tried(&self) -> bool {
        self.fruitless && !self.stranded
    }

    /// Its node doesn't end by what it's run again for: that run counts no more.
    pub(super) fn stood(&mut self, at_ms: u64) {
        if std::mem::take(&mut self.fruitless) {
            self.pending.entries.extend(RunMark::entry(STOOD, at_ms));
        }
    }

    /// The journal had no place for the mark of a run, and nothing else was on its way: gives the run, which isn't
    /// counted then. A task that only waits needs no place to go on.
    pub(super) fn unmarked(&mut self) -> Option<Run> {
        let of_mark = |flight: &Flight| flight.events == 0 && flight.kept.is_empty();
        if !self.fruitless || !self.flight.as_ref().is_some_and(of_mark) {
            return None;
        }
        let run = self.run.take()?;
        self.flight = None;
        Some(run)
    }

    /// Keeps the result of an effect, and tells once it's durable.
    pub(super) fn keep(&mut self, entry: Entry, kept: Kept, at_ms: u64) {
        self.settle(at_ms);
        self.fruitless = false;
        // What the function has of it is what the entry is made of.
        self.give(entry.key.len() + entry.parcel.as_bytes().len());
        self.pending.entries.push(entry);
        self.pending.kept.push(kept);
    }

    /// Keeps an entry of a tool call, and tells once it's durable if somebody waits for that: a second run doesn't make
    /// the call. Says whether it's to be sent now.
    pub(super) fn noted(&mut self, entry: Entry, kept: Option<Kept>, at_ms: u64) -> bool {
        let Some(kept) = kept else {
            self.pending.noted_bytes += entry.parcel.as_bytes().len();
            self.pending.entries.push(entry);
            return self.pending.noted_bytes >= CALLS_UNSENT_BYTES;
        };
        self.settle(at_ms);
        self.fruitless = false;
        self.pending.entries.push(entry);
        self.pending.kept.push(kept);
        true
    }

    /// The agent waits for its client: gives what an earlier run was answered.
    pub(super) fn wait(
        &mut self,
        (state, turn): (TaskState, Turn),
        reply: Reply<Option<Incoming>>,
        at_ms: u64,
    ) {
        let replayed = !self.replay.events.is_empty();
        self.append(Change::Status { state, turn: Some(turn) }, Origin::Wait, at_ms);
        match self.replay.answers.pop_front() {
            // Where it went on without an answer then, it does so now, and for the same reason.
            Some(said) if replayed => {
                let _gone = reply.send(said);
            }
            _ => {
                self.stood(at_ms);
                self.replay.waits = false;
                self.waiting = Some(reply);
            }
        }
    }

    /// Gives the agent what its client says: at once if it waits for that, or as soon as its second
    /// run has come to where the first one waited. Says whether it goes on with it. What was to be settled is.
    pub(super) fn answer(&mut self, said: Incoming) -> bool {
        if let Some(waiting) = self.waiting.take() {
            // Who has stopped to wait since that was settled doesn't take the message along.
            self.unread.extend(waiting.send(Some(said)).err().flatten());
            return true;
        }
        if std::mem::take(&mut self.replay.waits) {
            self.replay.answers.push_back(Some(said));
            return true;
        }
        self.unread.push(said);
        false
    }

    /// Whether it has more to do than to wait for its client.
    pub(super) fn works(&self) -> bool {
        !self.stranded && !self.record.state().is_interrupted()
    }

    /// Whether what its client says is an answer.
    pub(super) fn is_asking(&self) -> bool {
        self.replay.waits || self.waiting.as_ref().is_some_and(|waiting| !waiting.is_closed())
    }

    pub(super) fn cancel(&mut self, reply: Reply<Result<TaskEvents, CancelError>>) {
        // It isn't begun any more.
        self.run = None;
        self.cancels.push(reply);
    }

    /// What the journal is to have next; none if there is nothing, or if something is on its way.
    pub(super) fn take_off(&mut self, agent: &str) -> Option<Append> {
        if self.flight.is_some() || self.pending.entries.is_empty() {
            return None;
        }
        let Pending { entries, events, kept, .. } = std::mem::take(&mut self.pending);
        let head = TaskHead { entries: self.entries, ..self.record.head(agent) };
        self.flight = Some(Flight { entries: entries.len() as u64, events, kept });
        Some(Append { head, entries })
    }

    /// The journal has what was on its way: followers see it, but for the beginning of a task, which
    /// they see with what the task says at once. Says whether the task has ended.
    pub(super) fn landed(&mut self) -> bool {
        let Some(Flight { entries, events, kept }) = self.flight.take() else { return false };
        self.entries += entries;
        self.durable += events;
        if self.run.is_none() {
            self.tell();
        }
        for reply in kept {
            let _gone = reply.send(Ok(()));
        }
        self.is_over()
    }

    fn is_over(&self) -> bool {
        self.record.state().is_terminal()
            && self.flight.is_none()
            && self.pending.entries.is_empty()
    }

    /// Followers hear of all that is durable.
    pub(super) fn tell(&mut self) {
        let seen = std::mem::replace(&mut self.told, self.durable);
        let events = self.record.events().get(seen..self.durable).unwrap_or_default();
        let Some(last) = events.last().map(|event| event.get().generation.to_native()) else {
            return;
        };
        let mut kept = Vec::with_capacity(self.followed());
        kept.extend(self.followers.drain(..).filter_map(|follower| told(follower, events)));
        for (at, joined) in self.joining.extract_if(.., |(at, _)| *at <= last) {
            let first = events.partition_point(|event| event.get().generation < at);
            kept.extend(told(joined, events.get(first..).unwrap_or_default()));
        }
        self.followers = kept;
    }

    /// Those whose message isn't durable, and won't be.
    pub(super) fn unjoined(&mut self) -> impl Iterator<Item = Follower> + use<> {
        std::mem::take(&mut self.joining).into_iter().map(|(_, follower)| follower)
    }

    /// The journal didn't take it: whoever waits for it is told.
    pub(super) fn lost(&mut self, error: &AppendError) {
        self.tell();
        let waiting = std::mem::take(&mut self.pending).kept;
        let flying = self.flight.take().into_iter().flat_map(|flight| flight.kept);
        for reply in waiting.into_iter().chain(flying) {
            let _gone = reply.send(Err(error.clone()));
        }
        self.waiting = None;
        self.run = None;
        self.stranded = true;
        // Its function is ended: nobody reads what is left of messages, whose record may be another's soon, and
        // of effects.
        self.unread.clear();
        self.replay.answers.clear();
        self.effects = 0;
        self.count();
    }

    /// What the journal has of it, after something wasn't known to be there.
    pub(super) fn found(&mut self, record: Record, entries: u64) {
        self.durable = record.events().len();
        self.told = self.told.min(self.durable);
        (self.record, self.entries) = (record, entries);
        self.count();
        self.tell();
    }

    /// Whether anything of it is durable.
    pub(super) fn is_known(&self) -> bool {
        self.durable > 0
    }

    /// The durable events after this generation.
    pub(super) fn events_after(&self, generation: Option<u64>) -> TaskEvents {
        let durable = self.record.events().get(..self.durable).unwrap_or_default();
        let seen = generation.unwrap_or(0);
        durable.iter().filter(|event| event.get().generation > seen).cloned().collect()
    }

    /// It has ended: everybody is told.
    pub(super) fn finish(self) {
        let events = self.events_after(None);
        self.followers.into_iter().for_each(ReplySink::finish);
        let state = self.record.state();
        for reply in self.cancels {
            let _gone = reply.send(match state {
                TaskState::Canceled => Ok(events.clone()),
                state => Err(CancelError::Ended { state }),
            });
        }
    }

    /// Everything of the run, in one append, for a node that stops and can't wait for one after the
    /// other.
    pub(super) fn last_append(&mut self, agent: &str) -> Option<(Append, usize)> {
        let flying = self.flight.take();
        let Pending { entries, events, .. } = std::mem::take(&mut self.pending);
        if flying.is_none() && entries.is_empty() {
            return None;
        }
        // The journal takes appends in order: once it answers this one, it has what was flying.
        let before = flying.as_ref().map_or(0, |flight| flight.entries);
        let seen = flying.map_or(0, |flight| flight.events);
        let head = TaskHead { entries: self.entries + before, ..self.record.head(agent) };
        Some((Append { head, entries }, seen + events))
    }

    /// Tells the events of the last append.
    pub(super) fn last_landed(&mut self, events: usize) {
        self.durable += events;
        self.tell();
    }

    /// Lets go of followers that have gone, before the list would grow.
    pub(super) fn prune(&mut self) {
        if self.followers.len() == self.followers.capacity() {
            self.followers.retain(|follower| !follower.is_closed());
        }
    }
}

/// Whether nothing follows.
fn ends(change: &Change) -> bool {
    matches!(change, Change::Status { state, .. } if state.is_terminal())
}

/// Tells a follower these events, all at once. It's one no longer if it doesn't keep up, or has gone.
fn told(follower: Follower, events: &[Parcel<TaskEvent>]) -> Option<Follower> {
    match follower.try_send_all(events.iter().cloned()) {
        Ok(()) => Some(follower),
        // It can read the task instead; waiting for it would hold up the others.
        Err(SinkError::Full(_)) => {
            follower.cut_off();
            None
        }
        Err(_gone) => None,
    }
}

/// An entry with the result of an effect.
pub(super) fn effect(key: String, json: String) -> Result<Entry, neuroflow_kernel::ParcelError> {
    let result = Parcel::archive(&crate::journal::EffectResult { json })?;
    Ok(Entry::new(EntryKind::Effect, result.as_raw().clone()).keyed(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::{Artifact, Ask};
    use crate::limits::{LIVE_BYTES, TASK_EVENTS};

    fn record() -> Record {
        Record::new("t".into(), "c".into(), Some("ann".into()))
    }

    fn say(live: &mut Live, text: &str) -> Option<Incoming> {
        let ask = Ask::new(Turn::user(text));
        live.append(Change::Continued { ask }, Origin::Node, 0).and_then(Incoming::of)
    }

    /// What its events have of bytes, counted one by one.
    fn bytes(live: &Live) -> usize {
        live.record.events().iter().map(|event| event.as_raw().as_bytes().len()).sum()
    }

    #[test]
    fn a_task_counts_for_what_it_holds_until_it_is_gone() {
        let holdings = Holdings::within(LIVE_BYTES);
        let mut live = Live::new(record(), &holdings);
        assert_eq!(holdings.bytes(), 0);
        let ask = Ask::new(Turn::user("x".repeat(10_000)));
        live.append(Change::Accepted { ask }, Origin::Node, 0);
        assert!(holdings.bytes() > 10_000);
        let accepted = live.record.events().clone();
        let said = say(&mut live, &"y".repeat(20_000)).expect("a message");
        assert!(!live.answer(said));
        live.append(Artifact::text("made", "z".repeat(30_000)).into(), Origin::Agent, 0);
        assert_eq!(holdings.bytes(), bytes(&live));
        assert!(holdings.bytes() > 60_000);
        live.give(500);
        live.give(70);
        assert_eq!(holdings.bytes(), bytes(&live) + 570);

        let of = ("t".to_owned(), "c".to_owned(), Some("ann".to_owned()));
        let restored = Record::restored(of, accepted, 1);
        let mut other = Live::restored(restored, 1, Replay::default(), &holdings);
        assert_eq!(holdings.bytes(), bytes(&live) + 570 + bytes(&other));
        // The journal has less of the first one than was thought.
        live.lost(&AppendError::Overloaded);
        assert_eq!(holdings.bytes(), bytes(&live) + bytes(&other));
        assert!(live.unread.is_empty(), "it would keep what the record has no more");
        live.found(std::mem::replace(&mut other.record, record()), 1);
        drop(other);
        assert_eq!(holdings.bytes(), bytes(&live));
        assert!((10_000..11_000).contains(&holdings.bytes()));
        live.append(failure("lost", "not_kept"), Origin::Node, 0);
        assert_eq!(holdings.bytes(), bytes(&live));
        live.finish();
        assert_eq!(holdings.bytes(), 0);
    }

    #[test]
    fn an_unread_message_is_no_second_copy() {
        let mut live = Live::new(record(), &Holdings::within(LIVE_BYTES));
        let said = say(&mut live, "hello").expect("a message");
        assert!(!live.answer(said));
        let kept = live.record.events()[0].as_raw().as_bytes();
        assert_eq!(live.unread[0].as_raw().as_bytes().as_ptr(), kept.as_ptr());
        assert_eq!(live.unread[0].text(), "hello");
    }

    #[test]
    fn a_message_that_a_task_has_no_room_for_is_none() {
        let mut live = Live::new(record(), &Holdings::within(LIVE_BYTES));
        for _ in 0..TASK_EVENTS {
            assert!(say(&mut live, "hello").is_some());
        }
        assert!(say(&mut live, "hello").is_none());
        assert_eq!(live.record.state(), TaskState::Failed);
    }
}
