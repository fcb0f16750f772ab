//! How a server does that the whole node needs, the journal or the audit log: what readiness and metrics are
//! told of it.
//!
//! The server says it where things happen, and everybody else looks without asking it. A change is
//! logged, and what follows from it isn't.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::limits::PROBE_BYTES;

/// Whether a server takes what it's given, and how often it didn't. Cheap to clone.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use neuroflow_actors::{JournalConfig, JournalPlace, OpenedJournal};
/// use neuroflow_kernel::Clock;
/// let config = JournalConfig::new(JournalPlace::Memory);
/// let journal = OpenedJournal::open(config, Clock::system()).await?.condition();
/// assert_eq!((journal.server(), journal.trouble()), ("journal", None));
/// assert!(journal.refused().is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Condition(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    server: &'static str,
    /// Whether there is trouble: what is looked at on the way of every append.
    is_down: AtomicBool,
    trouble: Mutex<Option<&'static str>>,
    refused: Mutex<BTreeMap<&'static str, u64>>,
    fell: Notify,
}

impl Condition {
    /// Of a server that does well.
    pub(crate) fn new(server: &'static str) -> Self {
        Self(Arc::new(Inner {
            server,
            is_down: AtomicBool::new(false),
            trouble: Mutex::default(),
            refused: Mutex::default(),
            fell: Notify::new(),
        }))
    }

    /// Which server: `journal` or `audit`.
    pub fn server(&self) -> &'static str {
        self.0.server
    }

    /// Why it takes nothing now, in one of the program's own words; nothing if it does.
    pub fn trouble(&self) -> Option<&'static str> {
        if self.0.is_down.load(Ordering::Acquire) { *locked(&self.0.trouble) } else { None }
    }

    /// How often it didn't take something, by the reason.
    pub fn refused(&self) -> Vec<(&'static str, u64)> {
        locked(&self.0.refused).iter().map(|(reason, count)| (*reason, *count)).collect()
    }

    /// It has taken something.
    pub(crate) fn took(&self) {
        if !self.0.is_down.load(Ordering::Acquire) {
            return;
        }
        let mut trouble = locked(&self.0.trouble);
        self.0.is_down.store(false, Ordering::Release);
        if trouble.take().is_some() {
            tracing::info!(server = self.0.server, "it takes again what it's given");
        }
    }

    /// It can't take anything.
    pub(crate) fn fell(&self, reason: &'static str, error: &(dyn std::error::Error + 'static)) {
        let mut trouble = locked(&self.0.trouble);
        if trouble.replace(reason) != Some(reason) {
            self.0.is_down.store(true, Ordering::Release);
            tracing::error!(server = self.0.server, reason, error, "it takes nothing now");
            self.0.fell.notify_waiters();
        }
    }

    /// It hasn't taken so many.
    pub(crate) fn refuse(&self, reason: &'static str, count: u64) {
        if count > 0 {
            *locked(&self.0.refused).entry(reason).or_default() += count;
        }
    }

    /// Waits until there is trouble.
    pub(crate) async fn in_trouble(&self) {
        loop {
            let fell = self.0.fell.notified();
            if self.trouble().is_some() {
                return;
            }
            fell.await;
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether there is room on a disk again: writes a file there, and removes it. Blocks.
pub(crate) fn try_room(path: &Path) -> io::Result<()> {
    let written = File::create(path).and_then(|mut file| {
        file.write_all(&vec![0; PROBE_BYTES])?;
        file.sync_all()
    });
    let removed = fs::remove_file(path);
    written.and(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn trouble_is_there_until_something_is_taken() {
        let condition = Condition::new("journal");
        condition.took();
        assert_eq!(condition.trouble(), None);
        let full = io::Error::from(io::ErrorKind::StorageFull);
        for _ in 0..2 {
            condition.fell("disk_full", &full);
            condition.refuse("disk_full", 2);
        }
        condition.in_trouble().await;
        assert_eq!(condition.trouble(), Some("disk_full"));
        condition.fell("broken", &full);
        assert_eq!(condition.trouble(), Some("broken"));
        condition.took();
        assert_eq!(condition.trouble(), None);
        assert_eq!(condition.refused(), [("disk_full", 4)]);
    }

    #[test]
    fn a_try_leaves_nothing_behind() {
        let path = std::env::temp_dir().join(format!("room-{}", uuid::Uuid::new_v4()));
        try_room(&path).unwrap();
        assert!(!path.exists());
        assert!(try_room(&path.join("nowhere")).is_err());
    }
}
