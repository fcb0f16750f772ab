//! The contract of the journal: the ordered, numbered log of every task, and what may be asked of it.
//!
//! A task's log has one writer, the actor of its agent, and each append names the number of entries
//! that its writer knows of: two nodes that believe to own a task can't both go on.

#[cfg(not(feature = "postgres"))]
mod absent;
mod call;
mod catalog;
mod codec;
mod condition;
mod embedded;
mod error;
mod heading;
mod index;
mod memory;
mod near;
mod opening;
mod pace;
#[cfg(feature = "postgres")]
mod postgres;
mod reclaim;
mod reserve;
mod retention;
mod scan;
mod segment;
mod server;
mod snapshot;
mod store;
mod task;

use std::path::PathBuf;

use neuroflow_kernel::{
    Address, CallError, Clock, Header, Message, RawParcel, Refusal, Reply, Rights, WireMessage,
};
use rkyv::{Archive, Serialize};

use crate::limits::{JOURNAL_DEADLINE, SEGMENT_BYTES};

pub use call::{
    ArchivedCallEnd, ArchivedCallRecord, ArchivedOutcomeRecord, ArchivedRecordedJson, CallEnd,
    CallRecord, OutcomeRecord, RecordedJson,
};
pub use condition::Condition;
pub(crate) use condition::try_room;
pub use error::{
    AppendError, DamageKind, DatabaseError, JournalDamage, OpenError, ReadError, UrlError,
};
pub use retention::Retention;
pub use server::JournalServer;
pub use store::{OpenReport, OpenedJournal};
pub use task::{ArchivedTaskState, TaskCursor, TaskQuery, TaskState};

/// The right to append to tasks.
pub const APPEND: Rights = Rights::bit(0);
/// The right to read tasks and lists of them.
pub const READ_LOG: Rights = Rights::bit(1);
/// The right to remove ended tasks.
pub const REMOVE: Rights = Rights::bit(2);

/// Whose log it is where clients want to be told of a task: no agent's, because names of actors have no slash.
/// In a database the log's context names the task (`agent/task`), and the log goes when that is removed.
pub(crate) const PUSH: &str = "/push";

/// What an entry of a task's log is.
///
/// ```
/// assert_ne!(neuroflow_actors::EntryKind::Event, neuroflow_actors::EntryKind::Effect);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// An event, as clients see it.
    Event,
    /// The result of something that must not be done twice; its key is the entry's.
    Effect,
    /// Where a client wants to be told of events; the last one of a key counts.
    PushConfig,
    /// How far a push delivery has come; the last one of a key counts.
    PushCursor,
    /// Whom the task works for, where rules say what that may use; else, if it may be run again, that it may use
    /// everything.
    Caller,
    /// That the task is run again after a node's end, or that it has outlived such a run; its key says which.
    Run,
    /// That a tool call was begun. A second entry with its key is a second call, whose first one had no result here.
    Call,
    /// What came of the call with this key.
    Outcome,
}

/// One entry of a task's log: an archive as it lay in a mailbox, and what it's filed under.
///
/// ```
/// use neuroflow_actors::{Entry, EffectResult, EntryKind};
/// use neuroflow_kernel::Parcel;
/// let result = Parcel::archive(&EffectResult { json: "42".into() })?;
/// let entry = Entry::new(EntryKind::Effect, result.as_raw().clone()).keyed("charge");
/// assert_eq!(entry.key, "charge");
/// # Ok::<(), neuroflow_kernel::ParcelError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// What it's filed under within its kind; empty for events.
    pub key: String,
    /// The archive, with the name and version of its type.
    pub parcel: RawParcel,
}

impl Entry {
    /// An entry without a key.
    pub fn new(kind: EntryKind, parcel: RawParcel) -> Self {
        Self { kind, key: String::new(), parcel }
    }

    /// An event.
    pub fn event(parcel: RawParcel) -> Self {
        Self::new(EntryKind::Event, parcel)
    }

    /// The same entry with a key.
    #[must_use]
    pub fn keyed(mut self, key: impl Into<String>) -> Self {
        self.key = key.into();
        self
    }
}

/// The result of an effect, as the journal keeps it.
///
/// ```
/// use neuroflow_actors::EffectResult;
/// assert_eq!(EffectResult { json: "true".into() }.json, "true");
/// ```
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub struct EffectResult {
    /// A JSON value.
    pub json: String,
}

impl WireMessage for EffectResult {
    const NAME: &'static str = "neuroflow.journal.effect-result";
    const VERSION: u16 = 1;
}

/// Where a task stands.
///
/// ```
/// use neuroflow_actors::{TaskHead, TaskState};
/// let head = TaskHead {
///     agent: "echo".into(), task: "t".into(), context: "c".into(), caller: None,
///     state: TaskState::Working, changed_ms: 0, generation: 2, entries: 2,
/// };
/// assert!(!head.state.is_terminal());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskHead {
    /// Its agent.
    pub agent: String,
    /// Its id.
    pub task: String,
    /// Its conversation.
    pub context: String,
    /// Whose it is.
    pub caller: Option<String>,
    /// Its state.
    pub state: TaskState,
    /// When its state last changed, in milliseconds of Unix time.
    pub changed_ms: u64,
    /// The number of its last event.
    pub generation: u64,
    /// Entries in its log, events included.
    pub entries: u64,
}

/// Entries for one task's log: all of them are kept, or none.
///
/// ```
/// use neuroflow_actors::{Append, TaskHead, TaskState};
/// let head = TaskHead {
///     agent: "echo".into(), task: "t".into(), context: "c".into(), caller: None,
///     state: TaskState::Submitted, changed_ms: 0, generation: 0, entries: 0,
/// };
/// assert_eq!(Append { head, entries: Vec::new() }.head.entries, 0);
/// ```
#[derive(Clone, Debug)]
pub struct Append {
    /// Where the task stands once they are appended; its `entries` says how many the writer knows
    /// of so far, and the append is refused if the log has another number.
    pub head: TaskHead,
    /// The entries.
    pub entries: Vec<Entry>,
}

impl Append {
    /// Bytes of its entries.
    pub(crate) fn bytes(&self) -> usize {
        self.entries.iter().map(|entry| entry.parcel.as_bytes().len()).sum()
    }
}

/// A task's log, read.
///
/// ```
/// fn events(log: &neuroflow_actors::TaskLog) -> usize {
///     log.entries.iter().filter(|entry| entry.kind == neuroflow_actors::EntryKind::Event).count()
/// }
/// ```
#[derive(Clone, Debug)]
pub struct TaskLog {
    /// Where the task stands.
    pub head: TaskHead,
    /// Its entries in order, without those that are damaged.
    pub entries: Vec<Entry>,
    /// What can't be read any more.
    pub damage: Vec<JournalDamage>,
}

/// A page of tasks.
///
/// ```
/// assert_eq!(neuroflow_actors::HeadPage::default().total, 0);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeadPage {
    /// The tasks.
    pub heads: Vec<TaskHead>,
    /// How many there are on all pages together.
    pub total: usize,
    /// Where the next page begins; none on the last one.
    pub next: Option<TaskCursor>,
}

/// Where a journal lies, and how it keeps it.
///
/// ```
/// use neuroflow_actors::{JournalConfig, JournalPlace};
/// let config = JournalConfig::new(JournalPlace::parse("file:///var/lib/neuroflow/journal")?);
/// assert!(config.sync);
/// # Ok::<(), neuroflow_actors::UrlError>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct JournalConfig {
    /// Where.
    pub place: JournalPlace,
    /// Whether an append waits until the disk has it. Without it, what the last seconds brought
    /// survives the end of the process, but not that of the machine.
    pub sync: bool,
    /// What is removed, and when.
    pub retention: Retention,
    /// Which of the nodes on one database this is: unfinished tasks are its own.
    pub node: String,
    /// How long a segment of a directory becomes, [`SEGMENT_BYTES`] at most. The oldest gives its room back as a whole;
    /// so on a small disk they should be shorter.
    pub segment_bytes: u64,
}

impl JournalConfig {
    /// The defaults, at this place.
    pub fn new(place: JournalPlace) -> Self {
        let retention = match place {
            JournalPlace::Memory => Retention::in_memory(),
            _ => Retention::on_disk(),
        };
        let (node, segment_bytes) = ("node".to_owned(), SEGMENT_BYTES);
        Self { place, sync: true, retention, node, segment_bytes }
    }
}

/// Where a journal lies.
///
/// ```
/// use neuroflow_actors::JournalPlace;
/// assert!(matches!(JournalPlace::parse("memory"), Ok(JournalPlace::Memory)));
/// assert!(JournalPlace::parse("ftp://example.org").is_err());
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum JournalPlace {
    /// In this process's memory: nothing survives its end.
    Memory,
    /// In this directory.
    Directory(PathBuf),
    /// In the `PostgreSQL` database of this URL; needs the feature `postgres`.
    Postgres(String),
}

impl JournalPlace {
    /// Reads `memory`, `file:///path`, or `postgres://user:password@host/database`.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        if text == "memory" {
            return Ok(Self::Memory);
        }
        if let Some(path) = text.strip_prefix("file://") {
            let absolute = path.starts_with('/').then(|| Self::Directory(PathBuf::from(path)));
            return absolute.ok_or(UrlError::Relative);
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Self::Postgres(text.to_owned()));
        }
        Err(UrlError::Scheme)
    }
}

impl std::fmt::Debug for JournalPlace {
    /// Without the password that a URL may have.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Memory => f.write_str("Memory"),
            Self::Directory(path) => f.debug_tuple("Directory").field(path).finish(),
            Self::Postgres(_) => f.debug_tuple("Postgres").finish_non_exhaustive(),
        }
    }
}

/// What lies in the journal's mailbox.
///
/// ```
/// use neuroflow_actors::JournalCommand;
/// use neuroflow_kernel::Message;
/// fn label(command: &JournalCommand) -> &'static str {
///     command.name()
/// }
/// ```
#[derive(Debug)]
pub enum JournalCommand {
    /// Append to tasks. Answered once that's durable, each by itself. Needs [`APPEND`].
    Append {
        /// What, in order.
        appends: Vec<Append>,
        /// What became of each.
        reply: Reply<Vec<Result<(), AppendError>>>,
    },
    /// A task's log; none if there is no such task. Needs [`READ_LOG`].
    Read {
        /// Its agent.
        agent: String,
        /// Its id.
        task: String,
        /// The answer.
        reply: Reply<Result<Option<TaskLog>, ReadError>>,
    },
    /// Where a task stands; none if there is no such task. Needs [`READ_LOG`].
    Head {
        /// Its agent.
        agent: String,
        /// Its id.
        task: String,
        /// The answer.
        reply: Reply<Result<Option<TaskHead>, ReadError>>,
    },
    /// A page of tasks. Needs [`READ_LOG`].
    Heads {
        /// Their agent.
        agent: String,
        /// Which.
        query: TaskQuery,
        /// The answer.
        reply: Reply<Result<HeadPage, ReadError>>,
    },
    /// The agents that have tasks; not the node itself, which keeps what it has to know of them under
    /// names with a slash. Needs [`READ_LOG`].
    Agents {
        /// The answer.
        reply: Reply<Result<Vec<String>, ReadError>>,
    },
    /// The tasks of an agent that haven't ended, oldest first. Needs [`READ_LOG`].
    Unfinished {
        /// The agent.
        agent: String,
        /// The answer.
        reply: Reply<Result<Vec<TaskHead>, ReadError>>,
    },
    /// Remove an ended task. Says whether there was one. Needs [`REMOVE`].
    Remove {
        /// Its agent.
        agent: String,
        /// Its id.
        task: String,
        /// The answer.
        reply: Reply<Result<bool, AppendError>>,
    },
}

impl Message for JournalCommand {
    fn name(&self) -> &'static str {
        match self {
            Self::Append { .. } => "append",
            Self::Read { .. } => "read",
            Self::Head { .. } => "head",
            Self::Heads { .. } => "heads",
            Self::Agents { .. } => "agents",
            Self::Unfinished { .. } => "unfinished",
            Self::Remove { .. } => "remove",
        }
    }

    fn required_rights(&self) -> Rights {
        match self {
            Self::Append { .. } => APPEND,
            Self::Read { .. }
            | Self::Head { .. }
            | Self::Heads { .. }
            | Self::Agents { .. }
            | Self::Unfinished { .. } => READ_LOG,
            Self::Remove { .. } => REMOVE,
        }
    }
}

/// A capability to the journal, cheap to clone.
///
/// ```
/// use neuroflow_actors::{Journal, ReadError, TaskQuery};
/// async fn count(journal: &Journal) -> Result<usize, ReadError> {
///     Ok(journal.heads("echo", TaskQuery::first(1)).await?.total)
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Journal {
    address: Address<JournalCommand>,
    near: Option<near::Near>,
}

impl Journal {
    /// Through this address.
    pub fn new(address: Address<JournalCommand>) -> Self {
        Self { address, near: None }
    }

    /// Whoever has an open journal itself needn't send what takes less time to do: lone appends of
    /// agents to a quick disk are made where they stand.
    ///
    /// ```
    /// use neuroflow_actors::{Journal, JournalCommand, OpenedJournal};
    /// use neuroflow_kernel::Address;
    /// fn of_this_process(opened: &OpenedJournal, address: Address<JournalCommand>) -> Journal {
    ///     Journal::new(address).near(opened)
    /// }
    /// ```
    #[must_use]
    pub fn near(mut self, opened: &OpenedJournal) -> Self {
        self.near = Some(near::Near::new(opened));
        self
    }

    /// Appends to a task right here, unless it's better sent.
    pub(crate) fn append_here(
        &self,
        append: &Append,
        clock: &Clock,
    ) -> Option<Result<(), AppendError>> {
        self.near.as_ref()?.append(append, clock)
    }

    /// Whether what it has is there for the next process, as far as that's known here.
    pub(crate) fn outlives_the_process(&self) -> bool {
        self.near.as_ref().is_some_and(near::Near::outlives_the_process)
    }

    /// This node's name among those that have the same journal, as far as that is known: one that is near, in a
    /// database.
    pub(crate) fn shared_as(&self) -> Option<&str> {
        self.near.as_ref()?.shared_as()
    }

    /// The address.
    pub fn address(&self) -> &Address<JournalCommand> {
        &self.address
    }

    /// Appends to a task, and returns once that is durable. Past [`JOURNAL_DEADLINE`] the caller
    /// isn't told any more, and has to read the task to know.
    ///
    /// # Errors
    /// Says why nothing was appended, or that it isn't known.
    pub async fn append(&self, append: Append) -> Result<(), AppendError> {
        let result = self.append_all(vec![append]).await.pop();
        result.unwrap_or(Err(AppendError::Closed { source: None }))
    }

    /// Appends to several tasks, as [`append`](Self::append) does to each: one may be refused and the
    /// next one taken. The answers are in the order of what was given.
    pub async fn append_all(&self, appends: Vec<Append>) -> Vec<Result<(), AppendError>> {
        let count = appends.len();
        let append = |reply| JournalCommand::Append { appends, reply };
        match self.address.call(Header::new(), append).await {
            Ok(results) => results,
            Err(error) => vec![Err(error.into()); count],
        }
    }

    /// A task's log; none if there is no such task.
    ///
    /// # Errors
    /// Says why it can't be read.
    pub async fn read(&self, agent: &str, task: &str) -> Result<Option<TaskLog>, ReadError> {
        let (agent, task) = (agent.to_owned(), task.to_owned());
        self.address
            .call(Header::new(), |reply| JournalCommand::Read { agent, task, reply })
            .await?
    }

    /// Where a task stands, without its log; none if there is no such task.
    ///
    /// # Errors
    /// Says why it can't be read.
    pub async fn head(&self, agent: &str, task: &str) -> Result<Option<TaskHead>, ReadError> {
        let (agent, task) = (agent.to_owned(), task.to_owned());
        self.address
            .call(Header::new(), |reply| JournalCommand::Head { agent, task, reply })
            .await?
    }

    /// A page of tasks, the last changed first.
    ///
    /// # Errors
    /// Says why it can't be read.
    pub async fn heads(&self, agent: &str, query: TaskQuery) -> Result<HeadPage, ReadError> {
        let agent = agent.to_owned();
        self.address
            .call(Header::new(), |reply| JournalCommand::Heads { agent, query, reply })
            .await?
    }

    /// The agents that have tasks.
    ///
    /// # Errors
    /// Says why they can't be read.
    pub async fn agents(&self) -> Result<Vec<String>, ReadError> {
        self.address.call(Header::new(), |reply| JournalCommand::Agents { reply }).await?
    }

    /// The tasks of an agent that haven't ended, oldest first.
    ///
    /// # Errors
    /// Says why they can't be read.
    pub async fn unfinished(&self, agent: &str) -> Result<Vec<TaskHead>, ReadError> {
        let agent = agent.to_owned();
        self.address
            .call(Header::new(), |reply| JournalCommand::Unfinished { agent, reply })
            .await?
    }

    /// Removes an ended task. Says whether there was one.
    ///
    /// # Errors
    /// Says why it's still there.
    pub async fn remove(&self, agent: &str, task: &str) -> Result<bool, AppendError> {
        let (agent, task) = (agent.to_owned(), task.to_owned());
        self.address
            .call(Header::new(), |reply| JournalCommand::Remove { agent, task, reply })
            .await
            .map_err(AppendError::from)?
    }
}

impl From<CallError> for AppendError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::DeadlineExceeded => Self::TimedOut { after: JOURNAL_DEADLINE },
            CallError::Refused(Refusal::Overloaded { .. }) => Self::Overloaded,
            source => Self::Closed { source: Some(source) },
        }
    }
}
