//! Where push configurations are kept, and what records come to: the later one counts.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use futures_util::future::BoxFuture;

use super::{PushConfig, PushCreator, PushRecord, PushTask};
use crate::access::Principal;

/// The future of something that is kept or read.
pub(super) type Storing<'a, T> = BoxFuture<'a, Result<T, PushStoreError>>;

/// Keeps the records of push configurations, in order per task. It's written by one actor, which waits
/// for the answer about a task before it says more of that one; deliveries ask it beside that. What several nodes
/// share keeps apart what each of them delivers, and answers the last three; else what they say by themselves
/// will do.
///
/// ```
/// use neuroflow_actors::PushStore;
/// async fn count(store: &dyn PushStore) -> usize {
///     store.load().await.map_or(0, |tasks| tasks.len())
/// }
/// ```
pub trait PushStore: Send + Sync + fmt::Debug + 'static {
    /// Keeps one more record of a task.
    fn append<'a>(&'a self, task: &'a PushTask, record: &'a PushRecord) -> Storing<'a, ()>;

    /// The records of every task that has a configuration of this node's.
    fn load(&self) -> Storing<'_, Vec<(PushTask, Vec<PushRecord>)>>;

    /// What is in force of a task, if other nodes may have changed that.
    #[expect(unused_variables, reason = "for a store that nobody shares they are all the same")]
    fn shared<'a>(&'a self, task: &'a PushTask) -> Storing<'a, Option<PushShared>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Whether this node's configuration of this id is in force: another node may have ended it.
    #[expect(unused_variables, reason = "for a store that nobody shares they are all the same")]
    fn stands<'a>(&'a self, task: &'a PushTask, id: &'a str) -> Storing<'a, bool> {
        Box::pin(std::future::ready(Ok(true)))
    }

    /// Ends the configuration of this id that this principal has made and another node delivers.
    #[expect(unused_variables, reason = "for a store that nobody shares they are all the same")]
    fn withdraw<'a>(
        &'a self,
        task: &'a PushTask,
        id: &'a str,
        by: &'a Principal,
    ) -> Storing<'a, ()> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// What is in force of a task in a store that several nodes share.
///
/// ```
/// use neuroflow_actors::PushShared;
/// let nobody = PushShared::default();
/// assert!(nobody.own.is_empty() && nobody.others.is_empty());
/// ```
#[derive(Clone, Debug, Default)]
pub struct PushShared {
    /// The ids of this node's configurations.
    pub own: Vec<String>,
    /// The other nodes' configurations, each as a [`PushRecord::Config`] that begins where it has come to.
    pub others: Vec<PushRecord>,
}

/// Why a record isn't kept or read.
///
/// ```
/// use neuroflow_actors::PushStoreError;
/// let error = PushStoreError::Failed(std::io::Error::other("full").into());
/// assert!(error.to_string().contains("store"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PushStoreError {
    /// The store's own error.
    #[error("the store of push configurations doesn't work")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
}

/// Outlives the actor that uses it, but not the node.
#[derive(Debug, Default)]
pub(super) struct PushMemory(Mutex<BTreeMap<PushTask, Vec<PushRecord>>>);

impl PushStore for PushMemory {
    fn append<'a>(&'a self, task: &'a PushTask, record: &'a PushRecord) -> Storing<'a, ()> {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let records = tasks.entry(task.clone()).or_default();
        let is_config = |kept: &PushRecord| matches!(kept, PushRecord::Config { .. });
        records.retain(|kept| {
            let replaced = match record {
                PushRecord::Reached { .. } => !is_config(kept),
                PushRecord::Config { .. } | PushRecord::Ended { .. } => true,
            };
            kept.id() != record.id() || !replaced
        });
        if !matches!(record, PushRecord::Ended { .. }) {
            records.push(record.clone());
        }
        if records.is_empty() {
            tasks.remove(task);
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn load(&self) -> Storing<'_, Vec<(PushTask, Vec<PushRecord>)>> {
        let tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all = tasks.iter().map(|(task, records)| (task.clone(), records.clone())).collect();
        Box::pin(std::future::ready(Ok(all)))
    }
}

/// A configuration that is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) config: PushConfig,
    pub(super) caller: Option<String>,
    pub(super) creator: Box<PushCreator>,
    /// The generation up to which events were taken.
    pub(super) reached: u64,
}

impl Kept {
    /// As it would be kept.
    pub(super) fn to_record(&self) -> PushRecord {
        PushRecord::Config {
            config: self.config.clone(),
            caller: self.caller.clone(),
            creator: self.creator.clone(),
            after: self.reached,
        }
    }
}

/// What the records of a task come to, by the ids of the configurations.
pub(super) fn fold(records: Vec<PushRecord>) -> BTreeMap<String, Kept> {
    let mut kept = BTreeMap::new();
    for record in records {
        match record {
            PushRecord::Config { config, caller, creator, after } => {
                let id = config.id.clone();
                kept.insert(id, Kept { config, caller, creator, reached: after });
            }
            PushRecord::Reached { id, generation } => {
                if let Some(kept) = kept.get_mut(&id) {
                    kept.reached = kept.reached.max(generation);
                }
            }
            PushRecord::Ended { id } => {
                kept.remove(&id);
            }
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::super::PushBasis;
    use super::*;
    use crate::access::Principal;

    fn config(id: &str, url: &str, after: u64) -> PushRecord {
        let creator = Box::new(PushCreator::of(&Principal::anonymous(), PushBasis::Read));
        PushRecord::Config { config: PushConfig::new(id, url), caller: None, creator, after }
    }

    fn reached(id: &str, generation: u64) -> PushRecord {
        PushRecord::Reached { id: id.to_owned(), generation }
    }

    #[tokio::test]
    async fn memory_keeps_what_counts_and_nothing_else() {
        let memory = PushMemory::default();
        let task = PushTask { agent: "echo".to_owned(), task: "t".to_owned() };
        let records = [
            config("a", "https://a.example/", 0),
            reached("a", 2),
            config("b", "https://b.example/", 1),
            reached("a", 5),
            reached("b", 3),
            config("b", "https://c.example/", 7),
        ];
        for record in &records {
            memory.append(&task, record).await.unwrap();
        }
        let mut loaded = memory.load().await.unwrap();
        let (_, kept) = loaded.pop().unwrap();
        assert_eq!(kept.len(), 3);
        assert_eq!(fold(kept), fold(records.to_vec()));
        for id in ["a", "b"] {
            memory.append(&task, &PushRecord::Ended { id: id.to_owned() }).await.unwrap();
        }
        assert!(memory.load().await.unwrap().is_empty());
    }

    #[test]
    fn a_replaced_configuration_begins_anew_and_an_ended_one_is_gone() {
        let records = vec![
            config("a", "https://a.example/", 0),
            reached("a", 9),
            config("a", "https://b.example/", 4),
            reached("gone", 3),
        ];
        let kept = fold(records.clone());
        assert_eq!((kept["a"].reached, kept["a"].config.url.as_str()), (4, "https://b.example/"));
        let ended = PushRecord::Ended { id: "a".to_owned() };
        assert!(fold([records, vec![ended]].concat()).is_empty());
    }
}
