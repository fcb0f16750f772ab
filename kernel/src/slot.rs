//! What a name stands for: one life after another, and at last none.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use tokio::sync::Notify;

use crate::address::Refusal;
use crate::clock::Clock;
use crate::id::Generation;
use crate::mailbox::{Inbox, Mapped};
use crate::message::Message;

/// What the lives of one supervised actor share.
pub(crate) struct Lineage {
    generation: AtomicU32,
    over: AtomicBool,
    changed: Notify,
    clock: OnceLock<Clock>,
}

impl Lineage {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            generation: AtomicU32::new(Generation::UNBORN.get()),
            over: AtomicBool::new(false),
            changed: Notify::new(),
            clock: OnceLock::new(),
        })
    }

    /// The clock of the kernel that began the first life.
    pub(crate) fn clock(&self) -> Option<&Clock> {
        self.clock.get()
    }

    pub(crate) fn begin_life(&self, clock: &Clock) -> Generation {
        self.clock.get_or_init(|| clock.clone());
        self.over.store(false, Ordering::Release);
        Generation::from_number(self.generation.fetch_add(1, Ordering::AcqRel).saturating_add(1))
    }

    /// No further life will follow.
    pub(crate) fn close(&self) {
        self.over.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}

/// Finds the life that a name stands for.
pub(crate) trait Resolve<M>: Send + Sync {
    fn current(&self) -> Option<Arc<dyn Inbox<M>>>;
    fn lineage(&self) -> &Arc<Lineage>;
}

/// A name's place: empty before the first life and between two.
pub(crate) struct Slot<M> {
    lineage: Arc<Lineage>,
    current: RwLock<Option<Arc<dyn Inbox<M>>>>,
}

impl<M: Message> Slot<M> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { lineage: Lineage::new(), current: RwLock::new(None) })
    }

    pub(crate) fn occupy(&self, inbox: Arc<dyn Inbox<M>>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(inbox);
        self.lineage.changed.notify_waiters();
    }
}

impl<M: Message> Resolve<M> for Slot<M> {
    fn current(&self) -> Option<Arc<dyn Inbox<M>>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner).clone()?;
        current.vitals().is_open().then_some(current)
    }

    fn lineage(&self) -> &Arc<Lineage> {
        &self.lineage
    }
}

/// A name seen through a function that makes its message out of another.
pub(crate) struct MappedSlot<M, N> {
    pub(crate) inner: Arc<dyn Resolve<M>>,
    pub(crate) map: fn(N) -> M,
}

impl<M: Message, N: Message> Resolve<N> for MappedSlot<M, N> {
    fn current(&self) -> Option<Arc<dyn Inbox<N>>> {
        Some(Arc::new(Mapped { inner: self.inner.current()?, map: self.map }))
    }

    fn lineage(&self) -> &Arc<Lineage> {
        self.inner.lineage()
    }
}

/// Waits until the name has a living actor behind it, or never will again.
pub(crate) async fn await_life<M>(slot: &dyn Resolve<M>) -> Result<Arc<dyn Inbox<M>>, Refusal> {
    loop {
        let mut changed = std::pin::pin!(slot.lineage().changed.notified());
        // Enrolled before the look, so that a change in between isn't missed.
        changed.as_mut().enable();
        if let Some(inbox) = slot.current() {
            return Ok(inbox);
        }
        if slot.lineage().is_over() {
            return Err(Refusal::Stopped);
        }
        changed.await;
    }
}

/// Waits until the name has a living actor with room in its mailbox, and takes a place there.
pub(crate) async fn await_room<M>(slot: &dyn Resolve<M>) -> Result<Arc<dyn Inbox<M>>, Refusal> {
    loop {
        let inbox = await_life(slot).await?;
        // A life that ends meanwhile isn't the last word: the name may get another.
        if inbox.vitals().wait_for_room().await.is_ok() {
            return Ok(inbox);
        }
    }
}
