//! The way to a journal past its mailbox, for appends that are done sooner than they are sent. They may overtake
//! what waits there, which is of other tasks: an agent has one append of a task on its way at a time.

use std::sync::Arc;

use neuroflow_kernel::Clock;
use tokio::sync::Notify;

use super::store::Store;
use super::{Append, AppendError, JournalConfig, OpenedJournal};

/// A journal that is open in this process.
#[derive(Clone, Debug)]
pub(super) struct Near {
    store: Arc<Store>,
    config: Arc<JournalConfig>,
    due: Arc<Notify>,
}

impl Near {
    pub(super) fn new(opened: &OpenedJournal) -> Self {
        let OpenedJournal { store, config, due, .. } = opened;
        let config = Arc::new(config.clone());
        Self { store: Arc::clone(store), config, due: Arc::clone(due) }
    }

    pub(super) fn outlives_the_process(&self) -> bool {
        !matches!(*self.store, Store::Memory(_))
    }

    /// This node's name, if others may have the journal too.
    pub(super) fn shared_as(&self) -> Option<&str> {
        self.store.is_remote().then_some(&*self.config.node)
    }

    /// Appends right here, unless it's better sent.
    pub(super) fn append(&self, append: &Append, clock: &Clock) -> Option<Result<(), AppendError>> {
        if !self.store.is_quick(append.bytes()) {
            return None;
        }
        let done = self.store.append_here(append, clock)?;
        if self.store.is_urgent(&self.config) {
            self.due.notify_one();
        }
        Some(done)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{JournalPlace, TaskHead};
    use super::*;
    use crate::journal::TaskState;

    fn append(entries: u64) -> Append {
        let head = TaskHead {
            agent: "echo".to_owned(),
            task: "t".to_owned(),
            context: "c".to_owned(),
            caller: None,
            state: TaskState::Working,
            changed_ms: 0,
            generation: entries,
            entries,
        };
        Append { head, entries: Vec::new() }
    }

    async fn open(place: JournalPlace) -> OpenedJournal {
        OpenedJournal::open(JournalConfig::new(place), Clock::system()).await.unwrap()
    }

    #[tokio::test]
    async fn a_quick_disk_has_appends_at_once_unless_something_is_under_way() {
        let folder = std::env::temp_dir().join(format!("near-{}", uuid::Uuid::new_v4()));
        let opened = open(JournalPlace::Directory(folder.clone())).await;
        let (near, clock) = (Near::new(&opened), Clock::system());
        let Store::Embedded(embedded) = &*opened.store else { panic!("a directory") };

        assert!(near.append(&append(0), &clock).is_none(), "nothing is known of the disk yet");
        for _ in 0..1_000 {
            embedded.pace.took(Duration::ZERO);
        }
        assert!(matches!(near.append(&append(0), &clock), Some(Ok(()))));
        assert!(opened.read("echo", "t").await.unwrap().is_some());
        let conflict = near.append(&append(7), &clock);
        assert!(matches!(conflict, Some(Err(AppendError::Conflict { expected: 7, found: 0 }))));

        let writer = embedded.writer();
        assert!(near.append(&append(0), &clock).is_none(), "another commit is under way");
        drop(writer);
        let settled = opened.store.settle().await;
        assert!(near.append(&append(0), &clock).is_none(), "all work is over");
        drop(settled);
        assert!(near.append(&append(0), &clock).is_some());
        drop((near, opened));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[tokio::test]
    async fn memory_has_them_at_once_and_says_when_there_is_too_much() {
        let opened = open(JournalPlace::Memory).await;
        let mut near = Near::new(&opened);
        let mut config = JournalConfig::clone(&near.config);
        config.retention.tasks = 0;
        near.config = Arc::new(config);
        let mut ended = append(0);
        ended.head.state = TaskState::Completed;
        assert!(matches!(near.append(&ended, &Clock::system()), Some(Ok(()))));
        let told = Clock::system();
        let by = told.now() + Duration::from_secs(10);
        told.before(by, opened.due.notified()).await.unwrap();
    }
}
