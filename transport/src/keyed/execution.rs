//! One run of a keyed call: what it has said so far, and those that listen.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};

use neuroflow_kernel::{Clock, RawParcel, StreamError};

use super::{Call, PeerCalls};
use crate::export::{Source, Waiting};
use crate::limits::KEYED_ANSWER_BYTES;

/// A run, shared by the window that knows it and all that have joined it.
pub(super) struct Execution {
    told: Mutex<Told>,
    /// Whom to wake; apart, because the source may wake us while it's asked.
    listeners: Mutex<Vec<Waker>>,
    /// What the source rings.
    bell: Waker,
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
        })
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        // A source that panicked is dropped by whoever asked it; the rest is as it was.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn runs(&self, source: Box<dyn Source>) {
        self.turn(Stage::Running(source));
    }

    pub(super) fn waits(&self, waiting: Waiting) {
        self.turn(Stage::Waiting(waiting));
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
            let over = match &mut told.stage {
                Stage::Over(why) => return Poll::Ready((Heard::End(*why), came)),
                Stage::Beginning => return Poll::Pending,
                Stage::Waiting(waiting) => {
                    match std::task::ready!(waiting.as_mut().poll(&mut inner)) {
                        Ok(Some(source)) => {
                            told.stage = Stage::Running(source);
                            continue;
                        }
                        Ok(None) => Some(StreamError::Interrupted),
                        Err(why) => Some(why),
                    }
                }
                Stage::Running(source) => match std::task::ready!(source.poll_next(&mut inner)) {
                    Some(Ok(reply)) => {
                        let bytes = reply.as_bytes().len();
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
                },
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

/// One request's share in a run.
pub(super) struct Joined {
    execution: Arc<Execution>,
    calls: Arc<PeerCalls>,
    call: Call,
    clock: Clock,
    at: usize,
    over: bool,
}

impl Joined {
    pub(super) fn new(
        execution: Arc<Execution>,
        calls: Arc<PeerCalls>,
        call: Call,
        clock: Clock,
    ) -> Self {
        Self { execution, calls, call, clock, at: 0, over: false }
    }
}

impl Source for Joined {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<RawParcel, StreamError>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let (heard, came) = std::task::ready!(self.execution.poll(self.at, cx));
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
        Poll::Ready(match heard {
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
        // The window and this are all that hold it: nobody else waits.
        if !self.over && Arc::strong_count(&self.execution) <= 2 {
            self.execution.ends(StreamError::Interrupted);
            let why = Some(StreamError::Interrupted);
            self.calls.ended(&self.call, why, 0, self.clock.now());
        }
    }
}
