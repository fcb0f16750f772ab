//! The time that a task may work: it stands still while the task waits for its client.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use neuroflow_kernel::{Clock, Moment};

/// When a task's time is up.
#[derive(Debug)]
pub(super) struct WorkTime {
    deadline: Mutex<Moment>,
    /// Held by whoever asks the client something: it's asked one thing at a time.
    asking: tokio::sync::Mutex<()>,
}

impl WorkTime {
    pub(super) fn new(deadline: Moment) -> Self {
        Self { deadline: Mutex::new(deadline), asking: tokio::sync::Mutex::default() }
    }

    /// The moment, as it stands now.
    pub(super) fn deadline(&self) -> Moment {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, deadline: Moment) {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner) = deadline;
    }

    /// Stands still until the pause is dropped, for `longest` at most.
    pub(super) async fn pause<'a>(&'a self, clock: &'a Clock, longest: Duration) -> Pause<'a> {
        let alone = self.asking.lock().await;
        let begun = clock.now();
        let left = self.deadline().since(begun);
        self.set(begun + longest + left);
        Pause { work: self, clock, left, _alone: alone }
    }

    /// The end of `work`, or nothing once its time is up, also if the work has ended by that: what it
    /// waited for may have had the same deadline, and who is told of it first is chance.
    pub(super) async fn limit<F: Future>(&self, clock: &Clock, work: F) -> Option<F::Output> {
        let mut work = pin!(work);
        loop {
            let deadline = self.deadline();
            // A pause begins and ends while the work is polled.
            let step = poll_fn(|context| match work.as_mut().poll(context) {
                Poll::Ready(end) if clock.now() < self.deadline() => Poll::Ready(Some(Some(end))),
                Poll::Ready(_late) => Poll::Ready(Some(None)),
                Poll::Pending if self.deadline() != deadline => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            });
            match clock.before(deadline, step).await {
                Ok(Some(end)) => return end,
                Err(_elapsed) if self.deadline() <= clock.now() => return None,
                Ok(None) | Err(_) => {}
            }
        }
    }
}

/// A wait that isn't counted as work.
pub(super) struct Pause<'a> {
    work: &'a WorkTime,
    clock: &'a Clock,
    left: Duration,
    _alone: tokio::sync::MutexGuard<'a, ()>,
}

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        self.work.set(self.clock.now() + self.left);
    }
}

#[cfg(test)]
mod tests {
    use neuroflow_kernel::ManualClock;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn a_pause_is_not_counted_and_has_an_end_of_its_own() {
        let time = ManualClock::new();
        let clock = time.clock();
        let work = WorkTime::new(clock.now() + 10 * SECOND);
        time.advance(4 * SECOND);
        let pause = work.pause(&clock, 100 * SECOND).await;
        assert_eq!(work.deadline(), clock.now() + 106 * SECOND);
        time.advance(50 * SECOND);
        drop(pause);
        assert_eq!(work.deadline(), clock.now() + 6 * SECOND);
    }

    #[tokio::test]
    async fn time_is_up_after_a_pause_as_it_would_have_been_without() {
        let time = ManualClock::new();
        let clock = time.clock();
        let work = WorkTime::new(clock.now() + 10 * SECOND);
        let (resume, resumed) = tokio::sync::oneshot::channel();
        let run = async {
            let pause = work.pause(&clock, 100 * SECOND).await;
            resumed.await.unwrap();
            drop(pause);
            std::future::pending::<()>().await;
        };
        let ended = std::cell::Cell::new(false);
        let limited = async {
            assert_eq!(work.limit(&clock, run).await, None);
            ended.set(true);
        };
        let steps = async {
            let settle = || async {
                for _ in 0..10 {
                    tokio::task::yield_now().await;
                }
            };
            settle().await;
            // Past the first deadline, within the pause.
            time.advance(50 * SECOND);
            settle().await;
            assert!(!ended.get());
            resume.send(()).unwrap();
            settle().await;
            time.advance(9 * SECOND);
            settle().await;
            assert!(!ended.get());
            time.advance(2 * SECOND);
        };
        tokio::join!(limited, steps);
    }
}
