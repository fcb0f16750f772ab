//! One life of an actor as its senders see it: bounded room, and an end that's known at once.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use tokio::sync::{Notify, Semaphore};

use crate::address::Refusal;
use crate::capability::Grant;
use crate::clock::{Clock, Moment};
use crate::header::Header;
use crate::id::{ActorId, Generation};
use crate::limits::TIMING_SAMPLE;
use crate::message::Message;
use crate::name::Path;

/// A message with all that travels with it.
pub(crate) struct Envelope<M> {
    pub(crate) header: Header,
    pub(crate) grant: Option<Arc<Grant>>,
    /// When it was sent, if this message's times are sampled.
    pub(crate) sent: Option<Moment>,
    pub(crate) work: Work<M>,
}

pub(crate) enum Work<M> {
    Message(M),
    /// A background task of the actor panicked, and takes the actor with it.
    TaskPanicked(String),
}

/// What an actor is doing.
///
/// ```
/// assert_eq!(neuroflow_kernel::ActorState::Running.as_str(), "running");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ActorState {
    /// Its `started` hook runs.
    Starting,
    /// It takes messages.
    Running,
    /// Its `stopping` hook runs.
    Stopping,
    /// This life is over.
    Ended,
}

impl ActorState {
    /// The state in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Ended => "ended",
        }
    }
}

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

/// The part of a life that doesn't depend on its message type.
pub(crate) struct Vitals {
    pub(crate) id: ActorId,
    pub(crate) path: Path,
    pub(crate) kind: &'static str,
    pub(crate) generation: Generation,
    pub(crate) born: Moment,
    pub(crate) capacity: usize,
    pub(crate) clock: Clock,
    pub(crate) lineage: Arc<Lineage>,
    room: Semaphore,
    sent: AtomicU64,
    handled: AtomicU64,
    state: AtomicU8,
}

pub(crate) struct Birth {
    pub(crate) path: Path,
    pub(crate) kind: &'static str,
    pub(crate) capacity: usize,
    pub(crate) clock: Clock,
    pub(crate) lineage: Arc<Lineage>,
}

impl Vitals {
    pub(crate) fn new(birth: Birth) -> Self {
        Self {
            id: ActorId::next(),
            generation: birth.lineage.begin_life(&birth.clock),
            born: birth.clock.now(),
            path: birth.path,
            kind: birth.kind,
            capacity: birth.capacity,
            clock: birth.clock,
            lineage: birth.lineage,
            room: Semaphore::new(birth.capacity),
            sent: AtomicU64::new(0),
            handled: AtomicU64::new(0),
            state: AtomicU8::new(ActorState::Starting as u8),
        }
    }

    pub(crate) fn state(&self) -> ActorState {
        match self.state.load(Ordering::Acquire) {
            0 => ActorState::Starting,
            1 => ActorState::Running,
            2 => ActorState::Stopping,
            _ => ActorState::Ended,
        }
    }

    /// Moves on; a state never comes back.
    pub(crate) fn enter(&self, state: ActorState) {
        self.state.fetch_max(state as u8, Ordering::AcqRel);
        if state == ActorState::Ended {
            self.room.close();
        }
    }

    /// Messages that wait.
    pub(crate) fn depth(&self) -> usize {
        self.capacity.saturating_sub(self.room.available_permits())
    }

    pub(crate) fn handled(&self) -> u64 {
        self.handled.load(Ordering::Relaxed)
    }

    /// Takes one place in the mailbox, if there is one.
    pub(crate) fn try_enter(&self) -> Result<(), Refusal> {
        match self.room.try_acquire() {
            Ok(place) => {
                place.forget();
                Ok(())
            }
            Err(tokio::sync::TryAcquireError::NoPermits) => {
                Err(Refusal::Overloaded { capacity: self.capacity })
            }
            Err(tokio::sync::TryAcquireError::Closed) => Err(self.ending()),
        }
    }

    /// Waits for a place in the mailbox.
    pub(crate) async fn wait_for_room(&self) -> Result<(), Refusal> {
        match self.room.acquire().await {
            Ok(place) => {
                place.forget();
                Ok(())
            }
            Err(_closed) => Err(self.ending()),
        }
    }

    /// The message that held a place has left the mailbox.
    pub(crate) fn leave(&self) {
        self.handled.fetch_add(1, Ordering::Relaxed);
        self.room.add_permits(1);
    }

    /// The send time of the next message, if it's one whose times are measured.
    pub(crate) fn stamp(&self) -> Option<Moment> {
        let count = self.sent.fetch_add(1, Ordering::Relaxed);
        (count & (TIMING_SAMPLE - 1) == 0).then(|| self.clock.now())
    }

    /// What a sender is told whose message this life won't handle.
    pub(crate) fn ending(&self) -> Refusal {
        if self.lineage.is_over() {
            Refusal::Stopped
        } else {
            Refusal::Stale { generation: self.generation }
        }
    }
}

impl fmt::Debug for Vitals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{} ({})", self.path, self.generation, self.state().as_str())
    }
}

/// Takes messages for one life of an actor.
pub(crate) trait Inbox<M>: Send + Sync {
    fn vitals(&self) -> &Arc<Vitals>;

    /// Puts a message that was admitted into the mailbox. If the life has ended since then, the
    /// message is dropped like those that were already waiting: its reply side says so.
    fn push(&self, envelope: Envelope<M>);
}

/// An actor's own mailbox.
pub(crate) struct Mailbox<M: Message> {
    pub(crate) vitals: Arc<Vitals>,
    pub(crate) actor: ractor::ActorRef<Envelope<M>>,
}

impl<M: Message> Inbox<M> for Mailbox<M> {
    fn vitals(&self) -> &Arc<Vitals> {
        &self.vitals
    }

    fn push(&self, envelope: Envelope<M>) {
        // The error holds nothing but the message of a life that has ended.
        let _ended = self.actor.send_message(envelope).is_err();
    }
}

/// A mailbox seen through a function that makes its message out of another.
pub(crate) struct Mapped<M, N> {
    pub(crate) inner: Arc<dyn Inbox<M>>,
    pub(crate) map: fn(N) -> M,
}

impl<M: Message, N: Message> Inbox<N> for Mapped<M, N> {
    fn vitals(&self) -> &Arc<Vitals> {
        self.inner.vitals()
    }

    fn push(&self, envelope: Envelope<N>) {
        let Envelope { header, grant, sent, work } = envelope;
        let work = match work {
            Work::Message(message) => Work::Message((self.map)(message)),
            Work::TaskPanicked(text) => Work::TaskPanicked(text),
        };
        self.inner.push(Envelope { header, grant, sent, work });
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
        (current.vitals().state() != ActorState::Ended).then_some(current)
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
        let changed = slot.lineage().changed.notified();
        let mut changed = std::pin::pin!(changed);
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
