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

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use hyper::rt::Executor;
use hyper_util::rt::TokioExecutor;
use neuroflow_kernel::Clock;

use crate::limits::{STREAM_PIECE_BYTES, WRITE_STALL};

tokio::task_local! {
    /// How many pieces the answer of this task's stream has given out and not been asked again after; none while
    /// it has nothing to give.
    static GIVEN: Arc<Given>;
}

/// Counts upwards with each piece; the lowest bit says whether one is out.
#[derive(Debug, Default)]
struct Given(AtomicU64);

impl Given {
    fn gives(&self) {
        // One task does all of this.
        let count = self.0.load(Ordering::Relaxed) | 1;
        self.0.store(count.wrapping_add(2), Ordering::Relaxed);
    }

    fn is_asked(&self) {
        self.0.store(self.0.load(Ordering::Relaxed) & !1, Ordering::Relaxed);
    }

    /// Which piece is out.
    fn out(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|count| count & 1 == 1)
    }
}

/// Runs the streams of HTTP/2 connections, each for as long as its client keeps pace.
#[derive(Clone, Debug)]
pub(super) struct Streams(pub(super) Clock);

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let given = Arc::<Given>::default();
        let stream = Box::pin(GIVEN.scope(Arc::clone(&given), stream));
        let clock = self.0.clone();
        TokioExecutor::new().execute(Watched { stream, given, clock, late: None });
    }
}

/// A stream's task, which ends when its client gives it no room for [`WRITE_STALL`].
struct Watched<F> {
    stream: Pin<Box<F>>,
    given: Arc<Given>,
    clock: Clock,
    /// Which piece waits for room, and until when.
    late: Option<(u64, Sleep)>,
}

type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

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

/// The answer's body, watched if its stream is: given out in pieces of
/// [`STREAM_PIECE_BYTES`], so that who reads slowly is seen to read.
pub(super) fn watched(body: Body) -> Body {
    if body.is_end_stream() {
        return body;
    }
    match GIVEN.try_with(Arc::clone) {
        Ok(given) => {
            given.gives();
            Body::new(Pieces { body, given, rest: Bytes::new() })
        }
        Err(_other_version) => body,
    }
}

struct Pieces {
    body: Body,
    given: Arc<Given>,
    /// Of the last piece.
    rest: Bytes,
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => {
                    self.given.is_asked();
                    return Poll::Pending;
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                over @ Poll::Ready(_) => return over,
            }
        }
        let piece = self.rest.len().min(STREAM_PIECE_BYTES);
        let piece = self.rest.split_to(piece);
        self.given.gives();
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut whole = SizeHint::new();
        whole.set_lower(hint.lower().saturating_add(rest));
        if let Some(upper) = hint.upper() {
            whole.set_upper(upper.saturating_add(rest));
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, Full};
    use neuroflow_kernel::ManualClock;
    use std::task::Waker;

    #[tokio::test]
    async fn a_body_comes_in_pieces_and_says_how_much_is_left() {
        let whole: Vec<u8> = (0..100_000_u32).map(|at| at.to_le_bytes()[0]).collect();
        let given = Arc::<Given>::default();
        let body = GIVEN.sync_scope(Arc::clone(&given), || {
            watched(Body::new(Full::new(Bytes::from(whole.clone()))))
        });
        assert!(given.out().is_some(), "it has something to give");
        let (mut body, mut read) = (body, Vec::new());
        while let Some(frame) = body.frame().await {
            let piece = frame.unwrap().into_data().unwrap();
            assert!(piece.len() <= STREAM_PIECE_BYTES);
            read.extend_from_slice(&piece);
            assert_eq!(body.size_hint().exact(), Some((whole.len() - read.len()) as u64));
            assert_eq!(body.is_end_stream(), read.len() == whole.len());
        }
        assert_eq!(read, whole);
        let outside = watched(Body::from("as it is"));
        assert_eq!(outside.size_hint().exact(), Some(8));
    }

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
