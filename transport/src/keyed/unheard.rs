//! The runs that nobody listens to any more: one task drives them all to their ends.
//!
//! A run goes on when the last link of its caller is lost. Who feeds it would wait for room in a stream that nobody
//! reads, and whatever else was its would stay with it.

use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_util::stream::{FuturesUnordered, StreamExt};

use super::execution::Orphan;

/// The runs, each once: no more than the windows know.
#[derive(Default)]
pub(super) struct Unheard {
    come: Mutex<Come>,
    /// The task's alone. Here, so that what was begun isn't lost with the task.
    driven: Mutex<FuturesUnordered<Orphan>>,
}

/// What the task hasn't seen yet.
#[derive(Default)]
struct Come {
    runs: Vec<Orphan>,
    task: Option<Waker>,
}

impl Unheard {
    /// One more run has no listener left.
    pub(super) fn take(&self, run: Orphan) {
        let mut come = self.come();
        come.runs.push(run);
        let task = come.task.take();
        drop(come);
        if let Some(task) = task {
            task.wake();
        }
    }

    fn come(&self) -> MutexGuard<'_, Come> {
        self.come.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at those that have something.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<Infallible> {
        let mut come = self.come();
        come.task = Some(cx.waker().clone());
        let runs = std::mem::take(&mut come.runs);
        drop(come);
        let mut driven = self.driven.lock().unwrap_or_else(PoisonError::into_inner);
        driven.extend(runs);
        while let Poll::Ready(Some(())) = driven.poll_next_unpin(cx) {}
        Poll::Pending
    }
}
