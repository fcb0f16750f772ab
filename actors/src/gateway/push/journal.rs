//! Push configurations in the journal: each task that has some has a log of its own there, under a
//! name that no agent can have, with this store as its one writer.
//!
//! Nodes that share the journal have a log each, so that a node that starts again finds what it has to deliver, and
//! nothing else. What one of them ends of another's it writes into that one's log, as whose it stays: that one looks
//! before each post.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use neuroflow_kernel::{Clock, Parcel};
use rkyv::Archived;

use super::store::{Kept, PushShared, PushStore, PushStoreError, Storing, fold};
use super::{PushConfig, PushCreator, PushRecord, PushTask};
use crate::access::Principal;
use crate::agent::TaskState;
use crate::journal::{
    Append, AppendError, Entry, EntryKind, Journal, PUSH, TaskHead, TaskLog, TaskQuery,
};
use crate::limits::{JOURNAL_PAGE, PUSH_STORE_ATTEMPTS};

/// Keeps push configurations in the journal.
///
/// ```
/// use std::sync::Arc;
/// use neuroflow_actors::{Journal, PushJournal, PushOptions};
/// use neuroflow_kernel::Clock;
/// fn kept(journal: Journal, clock: Clock) -> PushOptions {
///     let mut options = PushOptions::default();
///     options.store = Some(Arc::new(PushJournal::new(journal, clock)));
///     options
/// }
/// ```
#[derive(Debug)]
pub struct PushJournal {
    journal: Journal,
    clock: Clock,
    /// This node's name, if others have the journal too.
    node: Option<String>,
    logs: Mutex<BTreeMap<PushTask, Log>>,
}

/// What is known of a task's log.
#[derive(Clone, Debug)]
struct Log {
    name: String,
    /// None if that has to be read again.
    entries: Option<u64>,
    /// The configurations that are in force.
    configs: Vec<String>,
}

impl Log {
    fn read(name: String, log: Option<&TaskLog>) -> Self {
        let configs = log.map(|log| fold(records(log)).into_keys().collect()).unwrap_or_default();
        Self { name, entries: Some(log.map_or(0, |log| log.head.entries)), configs }
    }
}

impl PushJournal {
    /// In this journal, which has to let it append and read. In a database, where it has to be one that is
    /// [near](Journal::near), it's beside other nodes.
    pub fn new(journal: Journal, clock: Clock) -> Self {
        let node = journal.shared_as().map(str::to_owned);
        Self { journal, clock, node, logs: Mutex::default() }
    }

    /// The name of the log that this node has of a task. One that an earlier build has begun had the task's name
    /// alone, and goes on under it.
    fn own(&self, task: &PushTask) -> (String, Option<Log>) {
        let known = self.logs.lock().unwrap_or_else(PoisonError::into_inner).get(task).cloned();
        let own = known.as_ref().map_or_else(|| self.own_name(task), |log| log.name.clone());
        (own, known)
    }

    fn own_name(&self, task: &PushTask) -> String {
        let task = name(task);
        self.node.as_ref().map_or_else(|| task.clone(), |node| format!("{node}/{task}"))
    }

    fn remember(&self, task: &PushTask, log: Log) {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        // A log that is over may be removed by the journal, and then begins anew.
        let is_over = log.entries.is_some() && log.configs.is_empty();
        if is_over || (log.entries.is_none() && log.name == self.own_name(task)) {
            logs.remove(task);
        } else {
            logs.insert(task.clone(), log);
        }
    }

    async fn look_up(&self, task: &PushTask) -> Result<Log, PushStoreError> {
        let (name, known) = self.own(task);
        if let Some(log) = known.filter(|log| log.entries.is_some()) {
            return Ok(log);
        }
        let read = self.journal.read(PUSH, &name).await.map_err(failed)?;
        Ok(Log::read(name, read.as_ref()))
    }

    async fn add(&self, task: &PushTask, record: &PushRecord) -> Result<(), PushStoreError> {
        let parcel = Parcel::archive(record).map_err(failed)?;
        let mut attempt = 1;
        loop {
            let log = self.look_up(task).await?;
            let is_new = matches!(record, PushRecord::Config { .. });
            if !is_new && !log.configs.iter().any(|known| known == record.id()) {
                // Another node has ended it.
                return Ok(());
            }
            match self.put(task, log.clone(), record, &parcel).await {
                Ok(log) => {
                    self.remember(task, log);
                    return Ok(());
                }
                Err(error) => {
                    // How many there are now is read before the next one.
                    self.remember(task, Log { entries: None, ..log });
                    again(error, attempt)?;
                }
            }
            attempt += 1;
        }
    }

    /// Appends to a log, this node's or another's.
    async fn put(
        &self,
        task: &PushTask,
        mut log: Log,
        record: &PushRecord,
        parcel: &Parcel<PushRecord>,
    ) -> Result<Log, AppendError> {
        let id = record.id();
        log.configs.retain(|known| known != id || matches!(record, PushRecord::Reached { .. }));
        let kind = match record {
            PushRecord::Config { .. } => {
                log.configs.push(id.to_owned());
                EntryKind::PushConfig
            }
            PushRecord::Reached { .. } => EntryKind::PushCursor,
            PushRecord::Ended { .. } => EntryKind::PushConfig,
        };
        let over = log.configs.is_empty();
        let entries = log.entries.unwrap_or_default();
        let head = TaskHead {
            agent: PUSH.to_owned(),
            task: log.name.clone(),
            context: self.node.as_ref().map(|_| name(task)).unwrap_or_default(),
            caller: None,
            state: if over { TaskState::Completed } else { TaskState::Working },
            changed_ms: self.clock.unix_ms(),
            generation: 0,
            entries,
        };
        let entry = Entry::new(kind, parcel.as_raw().clone()).keyed(id);
        self.journal.append(Append { head, entries: vec![entry] }).await?;
        log.entries = Some(entries + 1);
        Ok(log)
    }

    async fn all(&self) -> Result<Vec<(PushTask, Vec<PushRecord>)>, PushStoreError> {
        let mut all = Vec::new();
        for head in self.journal.unfinished(PUSH).await.map_err(failed)? {
            let of = if head.context.is_empty() { &head.task } else { &head.context };
            let Some((agent, task)) = of.split_once('/') else { continue };
            let task = PushTask { agent: agent.to_owned(), task: task.to_owned() };
            let Some(log) = self.journal.read(PUSH, &head.task).await.map_err(failed)? else {
                continue;
            };
            self.remember(&task, Log::read(head.task, Some(&log)));
            all.push((task, records(&log)));
        }
        Ok(all)
    }

    /// The configurations of this node that are in force, whoever was the last to write.
    async fn in_force(&self, task: &PushTask) -> Result<Vec<String>, PushStoreError> {
        let (name, known) = self.own(task);
        let head = self.journal.head(PUSH, &name).await.map_err(failed)?;
        let entries = head.map(|head| head.entries);
        if let Some(known) = known.filter(|known| entries.is_some() && known.entries == entries) {
            return Ok(known.configs);
        }
        let log = self.journal.read(PUSH, &name).await.map_err(failed)?;
        Ok(Log::read(name, log.as_ref()).configs)
    }

    /// What other nodes have of a task.
    async fn others(
        &self,
        task: &PushTask,
    ) -> Result<Vec<(Log, BTreeMap<String, Kept>)>, PushStoreError> {
        let (own, _) = self.own(task);
        let mut query = TaskQuery::first(JOURNAL_PAGE);
        (query.context, query.state) = (Some(name(task)), Some(TaskState::Working));
        let page = self.journal.heads(PUSH, query).await.map_err(failed)?;
        // An earlier build had one log for all nodes, whose last writer has it.
        let names = page.heads.into_iter().map(|head| head.task).chain([name(task)]);
        let mut others = Vec::new();
        for other in names.filter(|name| *name != own) {
            if let Some(log) = self.journal.read(PUSH, &other).await.map_err(failed)? {
                others.push((Log::read(other, Some(&log)), fold(records(&log))));
            }
        }
        Ok(others)
    }

    async fn look(&self, task: &PushTask) -> Result<Option<PushShared>, PushStoreError> {
        if self.node.is_none() {
            return Ok(None);
        }
        let others = self.others(task).await?;
        let others = others.iter().flat_map(|(_, kept)| kept.values().map(Kept::to_record));
        Ok(Some(PushShared { own: self.in_force(task).await?, others: others.collect() }))
    }

    async fn end(&self, task: &PushTask, id: &str, by: &Principal) -> Result<(), PushStoreError> {
        if self.node.is_none() {
            return Ok(());
        }
        let record = PushRecord::Ended { id: id.to_owned() };
        let parcel = Parcel::archive(&record).map_err(failed)?;
        let mut attempt = 1;
        loop {
            let mut behind = None;
            for (log, kept) in self.others(task).await? {
                if !kept.get(id).is_some_and(|kept| kept.creator.is(by)) {
                    continue;
                }
                match self.put(task, log, &record, &parcel).await {
                    Ok(_) => {}
                    Err(error) => behind = Some(error),
                }
            }
            let Some(error) = behind else { return Ok(()) };
            again(error, attempt)?;
            attempt += 1;
        }
    }
}

impl PushStore for PushJournal {
    fn append<'a>(&'a self, task: &'a PushTask, record: &'a PushRecord) -> Storing<'a, ()> {
        Box::pin(self.add(task, record))
    }

    fn load(&self) -> Storing<'_, Vec<(PushTask, Vec<PushRecord>)>> {
        Box::pin(self.all())
    }

    fn shared<'a>(&'a self, task: &'a PushTask) -> Storing<'a, Option<PushShared>> {
        Box::pin(self.look(task))
    }

    fn stands<'a>(&'a self, task: &'a PushTask, id: &'a str) -> Storing<'a, bool> {
        Box::pin(async move {
            let alone = self.node.is_none();
            Ok(alone || self.in_force(task).await?.iter().any(|known| known == id))
        })
    }

    fn withdraw<'a>(
        &'a self,
        task: &'a PushTask,
        id: &'a str,
        by: &'a Principal,
    ) -> Storing<'a, ()> {
        Box::pin(self.end(task, id, by))
    }
}

/// Whether another attempt may help: it does where somebody else was quicker.
fn again(error: AppendError, attempt: u32) -> Result<(), PushStoreError> {
    let behind = matches!(error, AppendError::Conflict { .. });
    if behind && attempt < PUSH_STORE_ATTEMPTS { Ok(()) } else { Err(failed(error)) }
}

/// An agent's name has no slash.
fn name(task: &PushTask) -> String {
    format!("{}/{}", task.agent, task.task)
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> PushStoreError {
    PushStoreError::Failed(Box::new(error))
}

/// The records that can be read; the journal has reported what can't.
fn records(log: &TaskLog) -> Vec<PushRecord> {
    let entries = log.entries.iter();
    let entries =
        entries.filter(|entry| matches!(entry.kind, EntryKind::PushConfig | EntryKind::PushCursor));
    let opened = entries.filter_map(|entry| entry.parcel.clone().open::<PushRecord>().ok());
    opened.map(|parcel| record(parcel.get())).collect()
}

fn record(archived: &Archived<PushRecord>) -> PushRecord {
    use super::ArchivedPushRecord as Kept;
    match archived {
        Kept::Config { config, caller, creator, after } => PushRecord::Config {
            config: PushConfig::read(config),
            caller: caller.as_ref().map(ToString::to_string),
            creator: Box::new(PushCreator::read(creator)),
            after: after.to_native(),
        },
        Kept::Reached { id, generation } => {
            PushRecord::Reached { id: id.to_string(), generation: generation.to_native() }
        }
        Kept::Ended { id } => PushRecord::Ended { id: id.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use neuroflow_kernel::{ChildSpec, Kernel};

    use super::super::{PushBasis, PushSecret};
    use super::*;
    use crate::access::Principal;
    use crate::journal::{JournalConfig, JournalPlace, JournalServer, OpenedJournal};

    async fn journal(folder: &std::path::Path) -> (Kernel, PushJournal) {
        let kernel = Kernel::builder().start().await.unwrap();
        let config = JournalConfig::new(JournalPlace::Directory(folder.to_owned()));
        let opened = OpenedJournal::open(config, kernel.clock().clone()).await.unwrap();
        let (spec, address) =
            ChildSpec::new("journal", move || JournalServer::new(opened.clone())).unwrap();
        kernel.root().start(spec).await.unwrap();
        let store = PushJournal::new(Journal::new(address), kernel.clock().clone());
        (kernel, store)
    }

    #[tokio::test]
    async fn what_is_in_force_outlives_the_node() {
        let folder = std::env::temp_dir().join(format!("push-{}", uuid::Uuid::new_v4()));
        let task = PushTask { agent: "echo".to_owned(), task: "t/1".to_owned() };
        let other = PushTask { agent: "echo".to_owned(), task: "t2".to_owned() };
        let mut config = PushConfig::new("a", "https://a.example/");
        config.token = Some(PushSecret::new("token"));
        config.authorization = Some(("Bearer".to_owned(), PushSecret::new("secret")));
        let caller = Some("alice".to_owned());
        let creator = PushCreator::of(&Principal::token("alice", ["dev"]), PushBasis::Read);
        let creator = Box::new(creator);
        let made = PushRecord::Config {
            config: config.clone(),
            caller: caller.clone(),
            creator: creator.clone(),
            after: 3,
        };
        let reached = PushRecord::Reached { id: "a".to_owned(), generation: 7 };
        let ended = PushRecord::Ended { id: "a".to_owned() };

        let (kernel, store) = journal(&folder).await;
        for record in [&made, &reached] {
            store.append(&task, record).await.unwrap();
        }
        for record in [&made, &ended] {
            store.append(&other, record).await.unwrap();
        }
        kernel.stop().await;
        drop(kernel);

        let (kernel, store) = journal(&folder).await;
        let mut loaded = store.load().await.unwrap();
        let (found, records) = loaded.pop().unwrap();
        assert!(loaded.is_empty());
        assert_eq!(found, task);
        let kept = fold(records);
        assert_eq!((&kept["a"].config, &kept["a"].caller), (&config, &caller));
        assert_eq!((kept["a"].reached, &kept["a"].creator), (7, &creator));
        // It goes on where it was, also in a log that was over.
        store.append(&task, &ended).await.unwrap();
        store.append(&other, &made).await.unwrap();
        let loaded = store.load().await.unwrap();
        assert_eq!(loaded.iter().map(|(task, _)| task).collect::<Vec<_>>(), [&other]);
        kernel.stop().await;
        std::fs::remove_dir_all(folder).unwrap();
    }
}
