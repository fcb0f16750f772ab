//! One run of a keyed call: what it has said so far, and those that listen.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker, ready};

use neuroflow_kernel::{Clock, RawParcel, StreamError};

use super::{Call, PeerCalls};
use crate::export::{Source, Waiting};
use crate::limits::{KEYED_ANSWER_BYTES, KEYED_REPLY_BYTES};

/// A run, shared by the window that knows it and all that have joined it.
pub(super) struct Execution {
    told: Mutex<Told>,
    /// Whom to wake; apart, because the source may wake us while it's asked.
    listeners: Mutex<Vec<Waker>>,
    /// What the source rings.
    bell: Waker,
    /// Requests that have joined it and not left. Changes under the lock of the window that knows it.
    joined: AtomicUsize,
    /// Whether it's among those that nobody listened to: there it stays to its end.
    driven: AtomicBool,
}

/// Doesn't hold the run: its source holds this.
struct Bell(Weak<Execution>);

#[derive(Default)]
struct Told {
    stage: Stage,
    replies: Vec<RawParcel>,
    bytes: usize,
}

#[derive(Default)]
enum Stage {
    #[default]
    Beginning,
    /// Its actor's mailbox is full.
    Waiting(Waiting),
    Running(Box<dyn Source>),
    /// In good order, or not.
    Over(Option<StreamError>),
}

impl Execution {
    pub(super) fn new() -> Arc<Self> {
        Arc::new_cyclic(|own| Self {
            told: Mutex::default(),
            listeners: Mutex::default(),
            bell: Waker::from(Arc::new(Bell(Weak::clone(own)))),
            joined: AtomicUsize::new(0),
            driven: AtomicBool::new(false),
        })
    }

    /// One request more has joined it.
    pub(super) fn joins(&self) {
        self.joined.fetch_add(1, Ordering::AcqRel);
    }

    /// How many have joined it and not left.
    pub(super) fn listening(&self) -> usize {
        self.joined.load(Ordering::Acquire)
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        // A source that panicked is dropped by whoever asked it; the rest is as it was.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn runs(&self, source: Box<dyn Source>) {
        self.turn(Stage::Running(source));
        self.tell();
    }

    pub(super) fn waits(&self, waiting: Waiting) {
        self.turn(Stage::Waiting(waiting));
        self.tell();
    }

    /// It ends here, wherever it was.
    pub(super) fn ends(&self, why: StreamError) {
        self.turn(Stage::Over(Some(why)));
        self.tell();
    }

    fn turn(&self, to: Stage) {
        let mut told = self.told();
        if matches!(told.stage, Stage::Over(_)) {
            return;
        }
        let before = std::mem::replace(&mut told.stage, to);
        drop(told);
        // Not under the lock: it's code of others.
        drop(before);
    }

    /// Drops the answer, and ends the run if that goes on: whoever asks again is told that there was one.
    pub(super) fn forget(&self) {
        let mut told = self.told();
        let over = Stage::Over(Some(StreamError::Forgotten));
        let before = std::mem::replace(&mut told.stage, over);
        let replies = std::mem::take(&mut told.replies);
        drop(told);
        // Not under the lock: it's code of others.
        drop((before, replies));
        self.tell();
    }

    fn tell(&self) {
        let listeners = {
            let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *listeners)
        };
        listeners.into_iter().for_each(Waker::wake);
    }

    fn listen(&self, waker: &Waker) {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        if !listeners.iter().any(|known| known.will_wake(waker)) {
            listeners.push(waker.clone());
        }
    }

    /// Where it is, to whoever is alone with it.
    fn left_at(&self) -> LeftAt {
        match self.told().stage {
            Stage::Beginning | Stage::Waiting(_) => LeftAt::Beginning,
            Stage::Running(_) => LeftAt::Running,
            Stage::Over(_) => LeftAt::End,
        }
    }

    /// Whether its actor's mailbox has it, or never will; to whoever sees that first, why not.
    fn poll_begun(&self, cx: &Context<'_>) -> Poll<Option<StreamError>> {
        self.listen(cx.waker());
        let mut inner = Context::from_waker(&self.bell);
        let mut told = self.told();
        let waiting = match &mut told.stage {
            Stage::Beginning => return Poll::Pending,
            Stage::Waiting(waiting) => waiting,
            Stage::Running(_) | Stage::Over(_) => return Poll::Ready(None),
        };
        let (to, why) = match ready!(waiting.as_mut().poll(&mut inner)) {
            Ok(Some(source)) => (Stage::Running(source), None),
            Ok(None) => {
                (Stage::Over(Some(StreamError::Interrupted)), Some(StreamError::Interrupted))
            }
            Err(why) => (Stage::Over(Some(why)), Some(why)),
        };
        let before = std::mem::replace(&mut told.stage, to);
        drop(told);
        // Not under the lock: it's code of others.
        drop(before);
        self.tell();
        Poll::Ready(why)
    }

    /// The reply at this place, or the end; and to whoever sees it first, what has come of it.
    fn poll(&self, at: usize, cx: &Context<'_>) -> Poll<(Heard, Option<Came>)> {
        self.listen(cx.waker());
        let mut inner = Context::from_waker(&self.bell);
        let mut told = self.told();
        let mut came = None;
        loop {
            if let Some(reply) = told.replies.get(at) {
                return Poll::Ready((Heard::Reply(reply.clone()), came));
            }
            let source = match &mut told.stage {
                Stage::Over(why) => return Poll::Ready((Heard::End(*why), came)),
                Stage::Beginning | Stage::Waiting(_) => return Poll::Pending,
                Stage::Running(source) => source,
            };
            let over = match ready!(source.poll_next(&mut inner)) {
                Some(Ok(reply)) => {
                    let bytes = reply.as_bytes().len().max(KEYED_REPLY_BYTES);
                    came = Some(Came::More(bytes));
                    told.bytes = told.bytes.saturating_add(bytes);
                    if told.bytes <= KEYED_ANSWER_BYTES {
                        told.replies.push(reply);
                        continue;
                    }
                    told.replies.clear();
                    told.bytes = 0;
                    Some(StreamError::Forgotten)
                }
                Some(Err(why)) => Some(why),
                None => None,
            };
            came = Some(Came::Whole(told.bytes));
            told.stage = Stage::Over(over);
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        if let Some(execution) = self.0.upgrade() {
            execution.tell();
        }
    }
}

/// What an answer has become by being asked for.
enum Came {
    /// So many bytes longer.
    More(usize),
    /// Whole, and so long.
    Whole(usize),
}

enum Heard {
    Reply(RawParcel),
    End(Option<StreamError>),
}

/// Where a run was left.
enum LeftAt {
    /// Its actor's mailbox doesn't have it.
    Beginning,
    Running,
    End,
}

/// A run, and where it's known.
#[derive(Clone)]
pub(super) struct Run {
    pub(super) execution: Arc<Execution>,
    pub(super) calls: Arc<PeerCalls>,
    pub(super) call: Call,
    pub(super) clock: Clock,
}

impl Run {
    fn poll_begun(&self, cx: &Context<'_>) -> Poll<()> {
        if let Some(why) = ready!(self.execution.poll_begun(cx)) {
            self.calls.ended(&self.call, Some(why), 0, self.clock.now());
        }
        Poll::Ready(())
    }

    /// The reply at this place, or the end.
    fn poll(&self, at: usize, cx: &Context<'_>) -> Poll<Heard> {
        let (heard, came) = ready!(self.execution.poll(at, cx));
        let now = self.clock.now();
        match came {
            Some(Came::Whole(bytes)) => {
                let why = match &heard {
                    Heard::Reply(_) | Heard::End(None) => None,
                    Heard::End(Some(why)) => Some(*why),
                };
                self.calls.ended(&self.call, why, bytes, now);
                // Those that listen too find the end.
                self.execution.tell();
            }
            Some(Came::More(bytes)) => self.calls.grew(&self.call, bytes, now),
            None => {}
        }
        Poll::Ready(heard)
    }

    /// Nobody wants it any more, if nobody else has joined it.
    fn cancel(&self) {
        let window = self.calls.window();
        if self.execution.listening() > 1 {
            return;
        }
        drop(window);
        self.execution.ends(StreamError::Interrupted);
        self.calls.ended(&self.call, Some(StreamError::Interrupted), 0, self.clock.now());
    }

    /// One that had joined it goes, after so many replies. The last one leaves it to those that nobody listens to,
    /// unless it hasn't begun: then it wasn't run, and whoever sends it again is the first.
    fn leave(&self, at: usize) {
        let mut window = self.calls.window();
        if self.execution.joined.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        match self.execution.left_at() {
            LeftAt::Beginning => {
                window.not_run(&self.call);
                drop(window);
                self.execution.ends(StreamError::Interrupted);
            }
            LeftAt::Running => {
                drop(window);
                if !self.execution.driven.swap(true, Ordering::AcqRel)
                    && let Some(unheard) = self.calls.unheard.upgrade()
                {
                    unheard.take(Orphan { run: self.clone(), at });
                }
            }
            LeftAt::End => {}
        }
    }
}

/// A run that nobody listens to, or nobody did: over when that is.
pub(super) struct Orphan {
    run: Run,
    at: usize,
}

impl Future for Orphan {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        while let Heard::Reply(_) = ready!(self.run.poll(self.at, cx)) {
            self.at += 1;
        }
        Poll::Ready(())
    }
}

/// One request's share in a run.
pub(super) struct Joined {
    run: Run,
    at: usize,
    over: bool,
}

impl Joined {
    /// Of a request that the run has counted already.
    pub(super) fn new(run: Run) -> Self {
        Self { run, at: 0, over: false }
    }

    /// Whether its actor's mailbox has it, or never will.
    pub(super) fn has_begun(&self) -> bool {
        !matches!(self.run.execution.left_at(), LeftAt::Beginning)
    }

    /// Waits for that.
    pub(super) async fn begun(&self) {
        std::future::poll_fn(|cx| self.run.poll_begun(cx)).await;
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.run.leave(self.at);
    }
}

impl Source for Joined {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<RawParcel, StreamError>>> {
        if self.over {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(self.run.poll(self.at, cx)) {
            Heard::Reply(reply) => {
                self.at += 1;
                Some(Ok(reply))
            }
            Heard::End(why) => {
                self.over = true;
                why.map(Err)
            }
        })
    }

    fn cancelled(&mut self) {
        if !self.over {
            self.run.cancel();
        }
    }
}
