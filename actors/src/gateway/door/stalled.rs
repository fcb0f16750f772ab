//! A stream of HTTP/2 whose client has to keep pace: who gives an answer no room for too long has its stream
//! reset, and the others of its connection go on. Of HTTP/1.1 the connection is the stream: see `paced`.
//!
//! The protocol's library asks a body for its next piece once there is room for it, and not before. So an answer
//! that was begun, or has given a piece out, and isn't asked again has no room. The library waits for that alone;
//! its task is given up here, and it says so to the client by a reset (`CANCEL`).

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use hyper::rt::Executor;
use hyper_util::rt::TokioExecutor;
use neuroflow_kernel::Clock;

use super::silent::{Open, Traffic};
use crate::limits::WRITE_STALL;

tokio::task_local! {
    /// How many pieces the answer of this task's stream has given out and not been asked again after; none while
    /// it has nothing to give.
    static GIVEN: Arc<Given>;
}

/// Counts upwards with each piece; the lowest bit says whether one is out.
#[derive(Debug, Default)]
pub(super) struct Given(AtomicU64);

impl Given {
    /// A piece is out, or will be.
    pub(super) fn gives(&self) {
        // One task does all of this.
        let count = self.0.load(Ordering::Relaxed) | 1;
        self.0.store(count.wrapping_add(2), Ordering::Relaxed);
    }

    /// It was asked for more, and there is nothing yet.
    pub(super) fn is_asked(&self) {
        self.0.store(self.0.load(Ordering::Relaxed) & !1, Ordering::Relaxed);
    }

    /// Which piece is out.
    pub(super) fn out(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|count| count & 1 == 1)
    }
}

/// Runs the streams of an HTTP/2 connection, each for as long as its client keeps pace.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    pub(super) clock: Clock,
    pub(super) traffic: Arc<Traffic>,
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let given = Arc::<Given>::default();
        let stream = Box::pin(GIVEN.scope(Arc::clone(&given), stream));
        let (clock, open) = (self.clock.clone(), self.traffic.begin());
        TokioExecutor::new().execute(Watched { stream, given, clock, late: None, _open: open });
    }
}

/// A stream's task, which ends when its client gives it no room for [`WRITE_STALL`].
struct Watched<F> {
    stream: Pin<Box<F>>,
    given: Arc<Given>,
    clock: Clock,
    /// Which piece waits for room, and until when.
    late: Option<(u64, Sleep)>,
    _open: Open,
}

type Sleep = BoxFuture<'static, ()>;

impl<F: Future<Output = ()>> Future for Watched<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let Some(out) = self.given.out() else {
            self.late = None;
            return Poll::Pending;
        };
        if self.late.as_ref().is_none_or(|(piece, _)| *piece != out) {
            let clock = self.clock.clone();
            self.late = Some((out, Box::pin(async move { clock.sleep(WRITE_STALL).await })));
        }
        let Some((_, late)) = &mut self.late else { return Poll::Pending };
        late.as_mut().poll(cx).map(|()| tracing::debug!("a stream is reset that nobody reads"))
    }
}

/// What counts the pieces of this task's answer; none where its connection is its stream.
pub(super) fn given() -> Option<Arc<Given>> {
    GIVEN.try_with(Arc::clone).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use neuroflow_kernel::ManualClock;
    use std::task::Waker;

    #[test]
    fn who_takes_nothing_loses_the_stream_and_who_takes_a_little_or_waits_does_not() {
        let time = ManualClock::new();
        let mut cx = Context::from_waker(Waker::noop());
        let given = Arc::<Given>::default();
        let begin = || Watched {
            stream: Box::pin(std::future::pending::<()>()),
            given: Arc::clone(&given),
            clock: time.clock(),
            late: None,
            _open: Arc::<Traffic>::default().begin(),
        };
        let mut stream = Box::pin(begin());
        let mut after = |wait| {
            assert!(stream.as_mut().poll(&mut cx).is_pending());
            time.advance(wait);
            stream.as_mut().poll(&mut cx).is_ready()
        };
        assert!(!after(WRITE_STALL * 9), "it has nothing to give");
        for _ in 0..4 {
            given.gives();
            assert!(!after(WRITE_STALL / 2), "a little is taken each time");
        }
        given.is_asked();
        assert!(!after(WRITE_STALL * 9), "all was taken");
        given.gives();
        assert!(!after(WRITE_STALL / 2));
        assert!(after(WRITE_STALL / 2));
    }
}
