//! Bodies of requests on their way through the door: they have an end.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use futures_util::future::BoxFuture;
use http_body_util::Limited;
use hyper::body::{Frame, SizeHint};
use neuroflow_kernel::Clock;

use crate::limits::{BODY_BYTES, BODY_DEADLINE, BODY_SLACK, BODY_SLACK_BYTES};

/// A request's body that ends in an error once it's too long or too slow. Those who read it have
/// bounds of their own, which are a little tighter and have better words.
pub(super) fn bounded(body: Body, clock: &Clock) -> Body {
    if body.is_end_stream() {
        return body;
    }
    let clock = clock.clone();
    let late: Sleep = Box::pin(async move { clock.sleep(BODY_DEADLINE + BODY_SLACK).await });
    Body::new(Limited::new(Timed { body, late }, BODY_BYTES + BODY_SLACK_BYTES))
}

type Sleep = BoxFuture<'static, ()>;

struct Timed {
    body: Body,
    late: Sleep,
}

/// The body didn't arrive in time.
#[derive(Debug)]
struct Late;

impl fmt::Display for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the body didn't arrive in time")
    }
}

impl std::error::Error for Late {}

impl HttpBody for Timed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        self.late.as_mut().poll(cx).map(|()| Some(Err(axum::Error::new(Late))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, StreamBody};
    use neuroflow_kernel::ManualClock;

    #[tokio::test]
    async fn a_body_that_never_comes_ends_in_time() {
        let time = ManualClock::new();
        let never = futures_util::stream::pending::<Result<Frame<Bytes>, axum::Error>>();
        let mut body = bounded(Body::new(StreamBody::new(never)), &time.clock());
        let mut next = std::pin::pin!(body.frame());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(next.as_mut().poll(&mut cx).is_pending());
        time.advance(BODY_DEADLINE + BODY_SLACK);
        assert!(matches!(next.as_mut().poll(&mut cx), Poll::Ready(Some(Err(_)))));
    }
}
