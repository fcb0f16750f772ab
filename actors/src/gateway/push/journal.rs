//! Push configurations in the journal: each task that has some has a log of its own there, under a
//! name that no agent can have, with this store as its one writer.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use neuroflow_kernel::{Clock, Parcel};
use rkyv::Archived;

use super::store::{PushStore, PushStoreError, Storing, fold};
use super::{PushConfig, PushCreator, PushRecord, PushTask};
use crate::agent::TaskState;
use crate::journal::{Append, Entry, EntryKind, Journal, TaskHead, TaskLog};

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
    logs: Mutex<BTreeMap<PushTask, Log>>,
}

/// What is known of a task's log.
#[derive(Clone, Debug, Default)]
struct Log {
    entries: u64,
    /// The configurations that are in force.
    configs: Vec<String>,
}

/// The journal's name for whom the logs belong to. No agent has it: names of actors have no slash.
const OWNER: &str = "/push";

impl PushJournal {
    /// In this journal, which has to let it append and read.
    pub fn new(journal: Journal, clock: Clock) -> Self {
        Self { journal, clock, logs: Mutex::default() }
    }

    fn known(&self, task: &PushTask) -> Option<Log> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).get(task).cloned()
    }

    fn remember(&self, task: &PushTask, log: Log) {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        // A log that is over may be removed by the journal, and then begins anew.
        if log.configs.is_empty() {
            logs.remove(task);
        } else {
            logs.insert(task.clone(), log);
        }
    }

    async fn look_up(&self, task: &PushTask) -> Result<Log, PushStoreError> {
        if let Some(log) = self.known(task) {
            return Ok(log);
        }
        let read = self.journal.read(OWNER, &name(task)).await.map_err(failed)?;
        Ok(read.map_or_else(Log::default, |log| Log {
            entries: log.head.entries,
            configs: fold(records(&log)).into_keys().collect(),
        }))
    }

    async fn add(&self, task: &PushTask, record: &PushRecord) -> Result<(), PushStoreError> {
        let mut log = self.look_up(task).await?;
        let (kind, id) = match record {
            PushRecord::Config { config, .. } => {
                log.configs.retain(|known| *known != config.id);
                log.configs.push(config.id.clone());
                (EntryKind::PushConfig, &config.id)
            }
            PushRecord::Reached { id, .. } => (EntryKind::PushCursor, id),
            PushRecord::Ended { id } => {
                log.configs.retain(|known| known != id);
                (EntryKind::PushConfig, id)
            }
        };
        let parcel = Parcel::archive(record).map_err(failed)?;
        let over = log.configs.is_empty();
        let head = TaskHead {
            agent: OWNER.to_owned(),
            task: name(task),
            context: String::new(),
            caller: None,
            state: if over { TaskState::Completed } else { TaskState::Working },
            changed_ms: self.clock.unix_ms(),
            generation: 0,
            entries: log.entries,
        };
        let entry = Entry::new(kind, parcel.as_raw().clone()).keyed(id);
        let appended = self.journal.append(Append { head, entries: vec![entry] }).await;
        if let Err(error) = appended {
            // How many there are now is read before the next one.
            self.remember(task, Log::default());
            return Err(failed(error));
        }
        log.entries += 1;
        self.remember(task, log);
        Ok(())
    }

    async fn all(&self) -> Result<Vec<(PushTask, Vec<PushRecord>)>, PushStoreError> {
        let mut all = Vec::new();
        for head in self.journal.unfinished(OWNER).await.map_err(failed)? {
            let Some((agent, task)) = head.task.split_once('/') else { continue };
            let task = PushTask { agent: agent.to_owned(), task: task.to_owned() };
            let Some(log) = self.journal.read(OWNER, &head.task).await.map_err(failed)? else {
                continue;
            };
            let records = records(&log);
            let configs = fold(records.clone()).into_keys().collect();
            self.remember(&task, Log { entries: log.head.entries, configs });
            all.push((task, records));
        }
        Ok(all)
    }
}

impl PushStore for PushJournal {
    fn append<'a>(&'a self, task: &'a PushTask, record: &'a PushRecord) -> Storing<'a, ()> {
        Box::pin(self.add(task, record))
    }

    fn load(&self) -> Storing<'_, Vec<(PushTask, Vec<PushRecord>)>> {
        Box::pin(self.all())
    }
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
