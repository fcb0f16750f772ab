//! One life of an actor as its senders see it: bounded room, and an end that's known at once.
//!
//! The messages lie in a queue of the kernel's own, and `ractor` carries only wake-ups: whoever
//! still waits is refused the moment that a life ends, however long its children take to stop.
//!
//! An actor without children stays at its queue from one message to the next; only kills, which
//! reach it there, and stops, which call it away, concern it otherwise. One with children goes back
//! to `ractor`'s loop after each message, where it hears of their ends.

mod blocks;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::sync::{Notify, Semaphore};

use self::blocks::Blocks;
use crate::address::Refusal;
use crate::capability::Grant;
use crate::clock::{Clock, Moment};
use crate::header::Header;
use crate::id::{ActorId, Generation};
use crate::limits::TIMING_SAMPLE;
use crate::message::Message;
use crate::monitor::{Down, Fall};
use crate::name::Path;
use crate::reply::{Fate, drop_with};
use crate::slot::Lineage;

/// A message with all that travels with it.
pub(crate) struct Envelope<M> {
    pub(crate) header: Header,
    pub(crate) grant: Option<Arc<Grant>>,
    /// When it was sent, if this message's times are sampled.
    pub(crate) sent: Option<Moment>,
    /// Whether the actor was idle when it came, so that it can't have waited for long.
    pub(crate) found_idle: bool,
    pub(crate) work: Work<M>,
}

pub(crate) enum Work<M> {
    Message(M),
    /// The actor's own reminder; it holds no place.
    Reminder(M),
    /// A background task of the actor panicked, and takes the actor with it.
    TaskPanicked(String),
    /// An actor that this one is linked to has ended, and takes it along.
    Linked(Down),
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
    handled: AtomicU64,
    state: AtomicU8,
    /// While it starts, and while it hears of a child's end.
    busy: AtomicBool,
    /// It was told to stop, and doesn't stay at its queue any more.
    stopping: AtomicBool,
    reported: AtomicBool,
    /// How it ended, once it's gone: killed unless it said otherwise.
    fall: AtomicU8,
    gone: Notify,
}

pub(crate) struct Birth {
    pub(crate) path: Path,
    pub(crate) kind: &'static str,
    pub(crate) capacity: usize,
    pub(crate) clock: Clock,
    pub(crate) lineage: Arc<Lineage>,
}

/// The state after `Ended`: the actor's value, its children and its tasks are no more.
const GONE: u8 = ActorState::Ended as u8 + 1;

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
            handled: AtomicU64::new(0),
            state: AtomicU8::new(ActorState::Starting as u8),
            busy: AtomicBool::new(true),
            stopping: AtomicBool::new(false),
            reported: AtomicBool::new(false),
            fall: AtomicU8::new(Fall::Killed.code()),
            gone: Notify::new(),
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
        if !self.is_open() {
            self.room.close();
        }
    }

    /// Whether nothing but its messages concerns it.
    fn stays(&self) -> bool {
        self.is_open() && !self.stopping.load(Ordering::Acquire)
    }

    /// Whether it takes messages, now or once it has started.
    pub(crate) fn is_open(&self) -> bool {
        self.state.load(Ordering::Acquire) < ActorState::Stopping as u8
    }

    /// Whether nothing of this life is left.
    pub(crate) fn is_gone(&self) -> bool {
        self.state.load(Ordering::Acquire) == GONE
    }

    /// Nothing of this life is left: whoever waits for that goes on.
    pub(crate) fn depart(&self) {
        self.state.fetch_max(GONE, Ordering::AcqRel);
        self.room.close();
        self.gone.notify_waiters();
    }

    /// How this life ends, said before it departs.
    pub(crate) fn fall(&self, fall: Fall) {
        self.fall.store(fall.code(), Ordering::Release);
    }

    /// Waits until nothing of this life is left, and says how it ended.
    pub(crate) async fn down(&self) -> Down {
        self.gone().await;
        let fall = Fall::from_code(self.fall.load(Ordering::Acquire)).unwrap_or(Fall::Killed);
        Down::new(Some(self.generation), fall)
    }

    /// Waits until nothing of this life is left.
    pub(crate) async fn gone(&self) {
        let mut gone = std::pin::pin!(self.gone.notified());
        // Enrolled before the look, so that a departure in between isn't missed.
        gone.as_mut().enable();
        if !self.is_gone() {
            gone.await;
        }
    }

    /// Whether nobody was told of this life's end yet; true once.
    pub(crate) fn take_report(&self) -> bool {
        !self.reported.swap(true, Ordering::AcqRel)
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

    /// The message that held a place has left the mailbox, to be handled.
    pub(crate) fn leave(&self) {
        // The actor alone counts, so this needs no read-modify-write.
        self.handled.store(self.handled() + 1, Ordering::Relaxed);
        self.room.add_permits(1);
    }

    /// The actor has done what didn't come through its mailbox.
    pub(crate) fn rest(&self) {
        self.busy.store(false, Ordering::Release);
    }

    /// The actor has something to do that didn't come through its mailbox.
    pub(crate) fn toil(&self) {
        self.busy.store(true, Ordering::Release);
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
    /// message is refused like those that were already waiting: its reply side says so.
    fn push(&self, header: Header, grant: Option<Arc<Grant>>, message: M);
}

/// Tells an actor that something lies in its mailbox.
pub(crate) struct Wake;

/// An actor's own mailbox.
pub(crate) struct Mailbox<M: Message> {
    pub(crate) vitals: Arc<Vitals>,
    pub(crate) actor: ractor::ActorRef<Wake>,
    queue: Mutex<Queue<M>>,
}

struct Queue<M> {
    open: bool,
    pushed: u64,
    waiting: Blocks<Envelope<M>>,
    actor: Attention,
}

/// What the actor is attending to, which decides how it's called to its queue.
enum Attention {
    /// `ractor`'s loop.
    Elsewhere,
    /// `ractor`'s loop, where a wake-up message is under way to it.
    Called,
    /// A message. It looks at the queue again when it has handled that.
    Busy,
    /// The queue, which is empty.
    Here(Waker),
}

/// How an actor is called to its queue.
enum Call {
    Needless,
    Message,
    Waker(Waker),
}

impl<M> Queue<M> {
    /// Called when something was put into the queue.
    fn call(&mut self) -> Call {
        match std::mem::replace(&mut self.actor, Attention::Busy) {
            Attention::Here(waker) => Call::Waker(waker),
            Attention::Elsewhere => {
                self.actor = Attention::Called;
                Call::Message
            }
            former @ (Attention::Called | Attention::Busy) => {
                self.actor = former;
                Call::Needless
            }
        }
    }

    /// The actor goes back to `ractor`'s loop.
    fn turn_away(&mut self) -> Call {
        self.actor = Attention::Elsewhere;
        if self.waiting.is_empty() { Call::Needless } else { self.call() }
    }
}

impl<M: Message> Mailbox<M> {
    pub(crate) fn new(vitals: Arc<Vitals>, actor: ractor::ActorRef<Wake>) -> Arc<Self> {
        let actor_is = Attention::Elsewhere;
        let queue = Queue { open: true, pushed: 0, waiting: Blocks::new(), actor: actor_is };
        Arc::new(Self { vitals, actor, queue: Mutex::new(queue) })
    }

    fn queue(&self) -> MutexGuard<'_, Queue<M>> {
        // No code of others runs under this lock, so a poisoned queue is still a valid one.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Not under the lock of the queue: a waker is code of others.
    fn make(&self, call: Call) {
        match call {
            Call::Needless => {}
            Call::Waker(waker) => waker.wake(),
            Call::Message => {
                // An error says that this life has ended, and then the queue is or will be closed.
                let _ended = self.actor.send_message(Wake).is_err();
            }
        }
    }

    /// Puts what the actor does next into `next`, if something waits.
    ///
    /// An envelope is large, and one that is handed on from future to future is copied each time.
    pub(crate) fn take(&self, next: &mut Option<Envelope<M>>) {
        let mut queue = self.queue();
        *next = queue.waiting.pop_front();
        queue.actor = if next.is_some() { Attention::Busy } else { Attention::Elsewhere };
    }

    /// The actor goes back to `ractor`'s loop, and is called again if something waits.
    pub(crate) fn turn_away(&self) {
        let call = self.queue().turn_away();
        self.make(call);
    }

    /// Puts what the actor does next into `next` as soon as there is something; nothing if it's called away.
    pub(crate) async fn next(&self, next: &mut Option<Envelope<M>>) {
        std::future::poll_fn(|cx| self.poll_next(cx, next)).await;
    }

    fn poll_next(&self, cx: &mut Context<'_>, next: &mut Option<Envelope<M>>) -> Poll<()> {
        // A queue that is never empty must not keep this thread for itself.
        let budget = ready!(tokio::task::coop::poll_proceed(cx));
        let mut queue = self.queue();
        if !self.vitals.stays() {
            let call = queue.turn_away();
            drop(queue);
            self.make(call);
            *next = None;
            return Poll::Ready(());
        }
        *next = queue.waiting.pop_front();
        if next.is_some() {
            queue.actor = Attention::Busy;
            budget.made_progress();
            return Poll::Ready(());
        }
        queue.actor = Attention::Here(cx.waker().clone());
        Poll::Pending
    }

    /// Puts what the actor itself has to do before all that waits. It takes no place.
    pub(crate) fn interject(&self, work: Work<M>) {
        let envelope =
            Envelope { header: Header::new(), grant: None, sent: None, found_idle: true, work };
        let mut queue = self.queue();
        if !queue.open {
            return;
        }
        queue.waiting.push_front(envelope);
        let call = queue.call();
        drop(queue);
        self.make(call);
    }

    /// Refuses what waits and what is still to come.
    pub(crate) fn close(&self) {
        let (waiting, actor) = {
            let mut queue = self.queue();
            queue.open = false;
            let actor = std::mem::replace(&mut queue.actor, Attention::Elsewhere);
            (std::mem::take(&mut queue.waiting), actor)
        };
        // Not under the lock: its waker may be the last that holds the task, and all in it.
        drop(actor);
        let places = waiting.iter().filter(|e| matches!(e.work, Work::Message(_))).count();
        self.vitals.room.add_permits(places);
        if !waiting.is_empty() {
            drop_with(Fate::Refused(self.vitals.ending()), waiting);
        }
    }
}

impl<M: Message> fmt::Debug for Mailbox<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Mailbox").field(&self.vitals).finish()
    }
}

impl<M: Message> Inbox<M> for Mailbox<M> {
    fn vitals(&self) -> &Arc<Vitals> {
        &self.vitals
    }

    fn push(&self, header: Header, grant: Option<Arc<Grant>>, message: M) {
        let mut queue = self.queue();
        if !queue.open {
            drop(queue);
            self.vitals.room.add_permits(1);
            drop_with(Fate::Refused(self.vitals.ending()), message);
            return;
        }
        let sampled = queue.pushed & (TIMING_SAMPLE - 1) == 0;
        queue.pushed = queue.pushed.wrapping_add(1);
        let found_idle = match queue.actor {
            Attention::Here(_) => true,
            Attention::Elsewhere => !self.vitals.busy.load(Ordering::Acquire),
            Attention::Called | Attention::Busy => false,
        };
        let sent = sampled.then(|| self.vitals.clock.now());
        let work = Work::Message(message);
        queue.waiting.push_back(Envelope { header, grant, sent, found_idle, work });
        let call = queue.call();
        drop(queue);
        self.make(call);
    }
}

/// Something that can be told to stop in good order.
pub(crate) trait Stop: Send + Sync {
    /// Tells the actor to stop after the message that it's handling.
    fn stop(&self);
}

impl<M: Message> Stop for Mailbox<M> {
    fn stop(&self) {
        // First, so that the actor finds it when it's called away.
        self.actor.stop(None);
        self.vitals.stopping.store(true, Ordering::Release);
        // The lock orders this: either the actor sees the flag, or its waker is there.
        let mut queue = self.queue();
        let call = match std::mem::replace(&mut queue.actor, Attention::Busy) {
            Attention::Here(waker) => Call::Waker(waker),
            former => {
                queue.actor = former;
                Call::Needless
            }
        };
        drop(queue);
        self.make(call);
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

    fn push(&self, header: Header, grant: Option<Arc<Grant>>, message: N) {
        self.inner.push(header, grant, (self.map)(message));
    }
}
