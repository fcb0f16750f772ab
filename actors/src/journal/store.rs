//! The three ways to keep a journal, behind one face; blocking work goes to threads that may block.

use std::slice;
use std::sync::Arc;
use std::time::Duration;

use neuroflow_kernel::{Clock, Moment, Reply};
use tokio::sync::{Notify, OwnedRwLockWriteGuard};

#[cfg(not(feature = "postgres"))]
use super::absent::Postgres;
use super::codec::fits;
use super::condition::Condition;
use super::embedded::Embedded;
use super::memory::Memory;
#[cfg(feature = "postgres")]
use super::postgres::Postgres;
use super::{
    Append, AppendError, DatabaseError, HeadPage, JournalConfig, JournalDamage, JournalPlace,
    OpenError, ReadError, TaskHead, TaskLog, TaskQuery,
};
use crate::limits::{
    JOURNAL_APPEND_BYTES, JOURNAL_DAMAGE, JOURNAL_QUICK_BYTES, JOURNAL_RECORD_BYTES,
    RETENTION_STEP, SEGMENT_BYTES,
};

/// What was found when a journal was opened.
///
/// ```
/// fn lost(report: &neuroflow_actors::OpenReport) -> bool {
///     report.damages > 0
/// }
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct OpenReport {
    /// Tasks that are there; nothing is counted in a database.
    pub tasks: usize,
    /// Those that haven't ended.
    pub unfinished: usize,
    /// What is damaged, as much of it as is kept in memory.
    pub damage: Vec<JournalDamage>,
    /// All findings of damage.
    pub damages: usize,
    /// Whether the index of the last run could be used, so that little had to be read.
    pub from_index: bool,
}

/// What an embedded journal finds at its opening.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) damage: Vec<JournalDamage>,
    pub(super) damages: usize,
    pub(super) from_index: bool,
}

impl Findings {
    pub(super) fn add(&mut self, damage: JournalDamage) {
        tracing::error!(%damage, "damage of the journal");
        self.damages += 1;
        if self.damage.len() < JOURNAL_DAMAGE {
            self.damage.push(damage);
        }
    }
}

/// An open journal, which a [`JournalServer`](super::JournalServer) serves. It stays open over the
/// restarts of that.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use neuroflow_actors::{JournalConfig, JournalPlace, OpenedJournal};
/// use neuroflow_kernel::Clock;
/// let config = JournalConfig::new(JournalPlace::Memory);
/// let journal = OpenedJournal::open(config, Clock::system()).await?;
/// assert_eq!(journal.report().tasks, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct OpenedJournal {
    pub(super) store: Arc<Store>,
    pub(super) config: JournalConfig,
    /// More is kept than should wait for the next look.
    pub(super) due: Arc<Notify>,
    report: OpenReport,
}

impl OpenedJournal {
    /// Opens a journal, or makes it.
    ///
    /// # Errors
    /// Says why it can't be opened.
    pub async fn open(config: JournalConfig, clock: Clock) -> Result<Self, OpenError> {
        let (store, findings) = match &config.place {
            JournalPlace::Memory => (Store::Memory(Memory::default()), Findings::default()),
            JournalPlace::Directory(folder) => {
                let (folder, sync) = (folder.clone(), config.sync);
                let bytes = config.segment_bytes.min(SEGMENT_BYTES);
                let opened = blocking(move || Embedded::open(&folder, sync, bytes)).await;
                let (embedded, findings) = opened?;
                (Store::Embedded(Arc::new(embedded)), findings)
            }
            JournalPlace::Postgres(url) => {
                let postgres = Box::pin(Postgres::open(url, &config.node, clock)).await?;
                let condition = Condition::new("journal");
                (Store::Postgres(Box::new(postgres), condition), Findings::default())
            }
        };
        Ok(Self::of(store, findings, config))
    }

    /// Opens a journal to look at it. In a database nothing is made, locked or counted, and a role that may only
    /// read will do. A directory is opened as by [`open`](Self::open), because it's one process's.
    ///
    /// # Errors
    /// Says why it can't be opened: [`OpenError::Absent`] if the database has none.
    pub async fn open_to_read(place: JournalPlace, clock: Clock) -> Result<Self, OpenError> {
        let JournalPlace::Postgres(url) = &place else {
            return Self::open(JournalConfig::new(place), clock).await;
        };
        let postgres = Box::pin(Postgres::open_to_read(url, clock)).await?;
        let store = Store::Postgres(Box::new(postgres), Condition::new("journal"));
        Ok(Self::of(store, Findings::default(), JournalConfig::new(place)))
    }

    fn of(store: Store, findings: Findings, config: JournalConfig) -> Self {
        let (tasks, unfinished) = match &store {
            Store::Memory(_) | Store::Postgres(..) => (0, 0),
            Store::Embedded(embedded) => {
                let catalog = embedded.catalog();
                (catalog.index.tasks(), catalog.index.unfinished_count())
            }
        };
        let Findings { damage, damages, from_index } = findings;
        let report = OpenReport { tasks, unfinished, damage, damages, from_index };
        Self { store: Arc::new(store), config, due: Arc::default(), report }
    }

    /// The agents that have tasks.
    ///
    /// # Errors
    /// Says why they can't be read.
    pub async fn agents(&self) -> Result<Vec<String>, ReadError> {
        self.store.agents().await
    }

    /// A page of tasks, as [`Journal::heads`](super::Journal::heads) gives it.
    ///
    /// # Errors
    /// Says why it can't be read.
    pub async fn heads(&self, agent: &str, query: TaskQuery) -> Result<HeadPage, ReadError> {
        self.store.heads(agent.to_owned(), query).await
    }

    /// A task's log, as [`Journal::read`](super::Journal::read) gives it.
    ///
    /// # Errors
    /// Says why it can't be read.
    pub async fn read(&self, agent: &str, task: &str) -> Result<Option<TaskLog>, ReadError> {
        self.store.read(agent.to_owned(), task.to_owned()).await
    }

    /// How it does, for readiness and metrics.
    pub fn condition(&self) -> Condition {
        self.store.condition().cloned().unwrap_or_else(|| Condition::new("journal"))
    }

    /// What was found.
    pub fn report(&self) -> &OpenReport {
        &self.report
    }
}

/// Appends, and who waits for them.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) appends: Vec<Append>,
    pub(super) reply: Results,
    /// When whoever waits for them gives up: they aren't begun after that.
    pub(super) until: Moment,
}

type Results = Reply<Vec<Result<(), AppendError>>>;

impl Waiting {
    pub(super) fn bytes(&self) -> usize {
        self.appends.iter().map(Append::bytes).sum()
    }

    /// None of them is taken.
    pub(super) fn refuse(self, error: &AppendError) {
        let _gone = self.reply.send(vec![Err(error.clone()); self.appends.len()]);
    }
}

/// A way to keep a journal.
#[derive(Debug)]
pub(super) enum Store {
    Memory(Memory),
    Embedded(Arc<Embedded>),
    Postgres(Box<Postgres>, Condition),
}

impl Store {
    /// How it does; memory always does well.
    pub(super) fn condition(&self) -> Option<&Condition> {
        match self {
            Self::Memory(_) => None,
            Self::Embedded(embedded) => Some(&embedded.condition),
            Self::Postgres(_, condition) => Some(condition),
        }
    }

    /// Whether it can go away without a word to anybody who asks it for nothing.
    pub(super) fn is_remote(&self) -> bool {
        matches!(self, Self::Postgres(..))
    }

    /// Looks how it does.
    pub(super) async fn probe(&self) {
        match self {
            Self::Memory(_) => {}
            Self::Embedded(embedded) => at_work(embedded, Embedded::probe).await,
            Self::Postgres(postgres, condition) => {
                // One that is busy may miss one look, and no two of them.
                let answered = match postgres.answers().await {
                    Err(DatabaseError::TimedOut { .. }) => postgres.answers().await,
                    answered => answered,
                };
                match answered {
                    Ok(()) => condition.took(),
                    Err(error) => condition.fell("database", &error),
                }
            }
        }
    }

    /// Whether a commit of so many bytes is done sooner than it's handed to another thread.
    pub(super) fn is_quick(&self, bytes: usize) -> bool {
        let quick = match self {
            Self::Memory(_) => true,
            Self::Embedded(embedded) => embedded.pace.is_quick(),
            Self::Postgres(..) => false,
        };
        quick && bytes <= JOURNAL_QUICK_BYTES
    }

    /// Appends what fits, and tells everybody, right here. What would have to be waited for is given
    /// back.
    pub(super) fn commit_here(&self, batch: Vec<Waiting>, clock: &Clock) -> Option<Vec<Waiting>> {
        match self {
            Self::Memory(memory) => {
                for Waiting { appends, reply, .. } in batch {
                    let appends = appends.iter();
                    let _gone = reply.send(appends.map(|append| memory.append(append)).collect());
                }
                None
            }
            Self::Embedded(embedded) => {
                commit_to(embedded, batch, clock);
                None
            }
            Self::Postgres(..) => Some(batch),
        }
    }

    /// Appends to one task right here, unless something would have to be waited for: another commit that
    /// is under way, or the end of all work.
    pub(super) fn append_here(
        &self,
        append: &Append,
        clock: &Clock,
    ) -> Option<Result<(), AppendError>> {
        match self {
            Self::Memory(memory) => Some(memory.append(append)),
            Self::Embedded(embedded) => {
                let _here = embedded.work.try_read().ok()?;
                embedded.try_commit(slice::from_ref(append), clock)?.pop()
            }
            Self::Postgres(..) => None,
        }
    }

    /// Appends what fits, and tells everybody.
    pub(super) async fn commit(&self, batch: Vec<Waiting>, clock: &Clock) {
        match self {
            Self::Memory(_) => drop(self.commit_here(batch, clock)),
            Self::Embedded(embedded) => {
                let clock = clock.clone();
                at_work(embedded, move |embedded| commit_to(embedded, batch, &clock)).await;
            }
            Self::Postgres(postgres, condition) => {
                let (appends, replies) = split(batch);
                let answers = postgres.commit(&appends).await;
                heed(condition, &answers);
                answer(replies, answers);
            }
        }
    }

    pub(super) async fn read(
        &self,
        agent: String,
        task: String,
    ) -> Result<Option<TaskLog>, ReadError> {
        match self {
            Self::Memory(memory) => Ok(memory.read(&agent, &task)),
            Self::Embedded(embedded) => {
                at_work(embedded, move |embedded| embedded.read(&agent, &task)).await
            }
            Self::Postgres(postgres, _) => postgres.read(&agent, &task).await,
        }
    }

    pub(super) async fn head(
        &self,
        agent: String,
        task: String,
    ) -> Result<Option<TaskHead>, ReadError> {
        match self {
            Self::Memory(memory) => Ok(memory.tasks().head(&agent, &task)),
            Self::Embedded(embedded) => Ok(embedded.catalog().index.head(&agent, &task)),
            Self::Postgres(postgres, _) => postgres.head(&agent, &task).await,
        }
    }

    pub(super) async fn heads(
        &self,
        agent: String,
        query: TaskQuery,
    ) -> Result<HeadPage, ReadError> {
        match self {
            Self::Memory(memory) => Ok(memory.tasks().page(&agent, &query)),
            Self::Embedded(embedded) => {
                let page =
                    move |embedded: &Embedded| Ok(embedded.catalog().index.page(&agent, &query));
                at_work(embedded, page).await
            }
            Self::Postgres(postgres, _) => postgres.heads(&agent, &query).await,
        }
    }

    pub(super) async fn agents(&self) -> Result<Vec<String>, ReadError> {
        let mut agents = match self {
            Self::Memory(memory) => memory.tasks().agents(),
            Self::Embedded(embedded) => embedded.catalog().index.agents(),
            Self::Postgres(postgres, _) => postgres.agents().await?,
        };
        // What the node itself keeps lies under names that no agent can have.
        agents.retain(|name| !name.contains('/'));
        Ok(agents)
    }

    pub(super) async fn unfinished(&self, agent: String) -> Result<Vec<TaskHead>, ReadError> {
        match self {
            Self::Memory(memory) => Ok(memory.tasks().unfinished(&agent)),
            Self::Embedded(embedded) => Ok(embedded.catalog().index.unfinished(&agent)),
            Self::Postgres(postgres, _) => postgres.unfinished(&agent).await,
        }
    }

    /// Removes a task if it has ended.
    pub(super) async fn remove_ended(
        &self,
        agent: String,
        task: String,
    ) -> Result<bool, AppendError> {
        let ended = match self {
            Self::Memory(memory) => {
                memory.tasks().get(&agent, &task).is_some_and(|known| known.state.is_terminal())
            }
            Self::Embedded(embedded) => {
                let catalog = embedded.catalog();
                catalog.index.get(&agent, &task).is_some_and(|known| known.state.is_terminal())
            }
            // It looks for itself.
            Self::Postgres(..) => true,
        };
        Ok(ended && self.remove(vec![(agent, task)]).await? > 0)
    }

    async fn remove(&self, tasks: Vec<(String, String)>) -> Result<usize, AppendError> {
        match self {
            Self::Memory(memory) => Ok(memory.remove(&tasks)),
            Self::Embedded(embedded) => {
                at_work(embedded, move |embedded| embedded.remove(&tasks)).await
            }
            Self::Postgres(postgres, _) => postgres.remove(&tasks).await,
        }
    }

    /// Whether more is there than should wait for the next look.
    pub(super) fn is_urgent(&self, config: &JournalConfig) -> bool {
        match self {
            Self::Memory(memory) => config.retention.is_urgent(memory.tasks().ended()),
            Self::Embedded(embedded) => {
                config.retention.is_urgent(embedded.catalog().index.ended())
            }
            Self::Postgres(postgres, _) => config.retention.is_urgent(postgres.ended()),
        }
    }

    /// Removes what isn't kept any longer. Says how many tasks that were.
    pub(super) async fn retain(
        &self,
        config: &JournalConfig,
        age_limit_ms: Option<u64>,
    ) -> Result<usize, AppendError> {
        let keep = &config.retention;
        let mut removed = 0;
        loop {
            let due = match self {
                Self::Memory(memory) => keep.due(&memory.tasks(), age_limit_ms, RETENTION_STEP),
                Self::Embedded(embedded) => {
                    keep.due(&embedded.catalog().index, age_limit_ms, RETENTION_STEP)
                }
                Self::Postgres(postgres, _) => postgres.due(keep, age_limit_ms).await?,
            };
            if due.is_empty() {
                return Ok(removed);
            }
            removed += match (self.remove(due).await, self) {
                (Err(AppendError::DiskFull { .. }), Self::Embedded(embedded)) => {
                    let keep = *keep;
                    at_work(embedded, move |embedded| embedded.make_way(&keep, age_limit_ms))
                        .await?
                }
                (removed, _) => removed?,
            };
        }
    }

    /// Gives the room of removed tasks back to the disk, and writes the index if that has become
    /// worth it.
    pub(super) async fn tidy(&self, indexed: &mut u32) -> Result<(), AppendError> {
        let Self::Embedded(embedded) = self else { return Ok(()) };
        loop {
            if !at_work(embedded, Embedded::reclaim).await? {
                break;
            }
        }
        at_work(embedded, |embedded| embedded.reserve.make()).await;
        let segment = embedded.writer().segment.number;
        if segment != *indexed {
            *indexed = segment;
            self.snapshot().await;
        }
        Ok(())
    }

    /// Writes the index; without it the next start takes longer, and nothing else.
    pub(super) async fn snapshot(&self) {
        let Self::Embedded(embedded) = self else { return };
        at_work(embedded, |embedded| {
            if let Err(error) = embedded.snapshot() {
                tracing::warn!(
                    folder = %embedded.folder().display(),
                    error = &error as &dyn std::error::Error,
                    "the journal's index can't be written; the next start reads the whole journal"
                );
            }
        })
        .await;
    }

    /// Waits until no thread works on it: one that was begun goes on when who waits for it is ended.
    /// No other begins while what this gives is kept.
    pub(super) async fn settle(&self) -> Option<Settled> {
        let Self::Embedded(embedded) = self else { return None };
        Some(Arc::clone(&embedded.work).write_owned().await)
    }
}

pub(super) type Settled = OwnedRwLockWriteGuard<()>;

fn commit_to(embedded: &Embedded, batch: Vec<Waiting>, clock: &Clock) {
    let (appends, replies) = split(batch);
    let answers = embedded.commit(&appends, clock);
    answer(replies, answers);
}

/// Works on a directory, on a thread that may block. [`Store::settle`] waits for its end.
async fn at_work<T: Send + 'static>(
    embedded: &Arc<Embedded>,
    work: impl FnOnce(&Embedded) -> T + Send + 'static,
) -> T {
    let here = Arc::clone(&embedded.work).read_owned().await;
    let embedded = Arc::clone(embedded);
    blocking(move || {
        let done = work(&embedded);
        // The directory isn't kept locked by this thread when the work counts as over.
        drop(embedded);
        drop(here);
        done
    })
    .await
}

/// All appends in one list, and who waits for how many of them.
fn split(batch: Vec<Waiting>) -> (Vec<Append>, Vec<(usize, Results)>) {
    let mut all = Vec::new();
    let mut replies = Vec::with_capacity(batch.len());
    for Waiting { mut appends, reply, .. } in batch {
        replies.push((appends.len(), reply));
        if all.is_empty() {
            all = appends;
        } else {
            all.append(&mut appends);
        }
    }
    (all, replies)
}

/// What the answers of a database say of it.
fn heed(condition: &Condition, answers: &[Result<(), AppendError>]) {
    for answer in answers {
        match answer {
            Ok(()) => condition.took(),
            Err(error) => {
                condition.refuse(error.code(), 1);
                if let Some(trouble) = error.trouble() {
                    condition.fell(trouble, error);
                }
            }
        }
    }
}

fn answer(replies: Vec<(usize, Results)>, answers: Vec<Result<(), AppendError>>) {
    let mut answers = answers.into_iter();
    for (count, reply) in replies {
        // Whoever has gone reads the task to know.
        let _gone = reply.send(answers.by_ref().take(count).collect());
    }
}

/// Runs what blocks on a thread that may. If it panics, so does this.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down, and so nobody polls this again.
            Err(_cancelled) => std::future::pending().await,
        },
    }
}

/// Whether names and contents are as long as they may be.
pub(super) fn check(append: &Append) -> Result<(), AppendError> {
    let head = &append.head;
    let caller = head.caller.as_deref().unwrap_or_default();
    let names = [
        ("agent", &*head.agent),
        ("task", &*head.task),
        ("context", &*head.context),
        ("caller", caller),
    ];
    let keys = append.entries.iter().map(|entry| ("key", &*entry.key));
    let too_large = |(field, bytes)| AppendError::TooLarge { field, bytes };
    fits(&names).map_err(too_large)?;
    let mut sum = 0;
    for (key, entry) in keys.zip(&append.entries) {
        fits(&[key]).map_err(too_large)?;
        let bytes = entry.parcel.as_bytes().len();
        sum += bytes;
        if bytes > JOURNAL_RECORD_BYTES || sum > JOURNAL_APPEND_BYTES {
            return Err(AppendError::TooLarge { field: "entries", bytes: sum });
        }
    }
    Ok(())
}

/// The kernel's times, as ages are reckoned by.
pub(super) fn times(clock: &Clock) -> (Duration, Duration) {
    (clock.unix(), Duration::from_nanos(clock.now().nanos()))
}
