//! A request's body that nobody has read when its answer is there. Of HTTP/1.1 the library closes a connection
//! whose request wasn't read to the end; a client that is still sending it then may lose the answer to the
//! reset that follows. So a short body is waited for, and what was sent in vain is thrown away: as RFC 9112
//! section 9.6 has a server do before it closes, and here the connection goes on.

use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::request::Parts;
use axum::http::{Version, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Frame, SizeHint};
use neuroflow_kernel::Clock;

use crate::limits::{UNREAD_BYTES, UNREAD_DEADLINE};

/// The body of such a request, and where it's found again if it wasn't read.
pub(super) fn kept(head: &Parts, body: Body) -> (Body, Unread) {
    // Whoever waits to be told to go on, and isn't told, sends nothing. A stream of HTTP/2 is reset
    // after its answer, and nobody else's suffers.
    let goes_on = head.version <= Version::HTTP_11 && !head.headers.contains_key(header::EXPECT);
    if !goes_on || body.is_end_stream() || body.size_hint().lower() > UNREAD_BYTES as u64 {
        return (body, Unread(None));
    }
    let rest = Arc::<Mutex<Option<Body>>>::default();
    let kept = Kept { body, rest: Some(Arc::clone(&rest)) };
    (Body::new(kept), Unread(Some(rest)))
}

/// A body that nobody may have begun to read. Whoever has, and didn't come to its end, knows why: it's too long,
/// or late.
pub(super) struct Unread(Option<Arc<Mutex<Option<Body>>>>);

impl Unread {
    /// Reads it, up to [`UNREAD_BYTES`] and for [`UNREAD_DEADLINE`]. A body that somebody still holds is left
    /// to them.
    pub(super) async fn discard(self, clock: &Clock) {
        let rest =
            self.0.and_then(|rest| rest.lock().unwrap_or_else(PoisonError::into_inner).take());
        let Some(rest) = rest else { return };
        let mut rest = Limited::new(rest, UNREAD_BYTES);
        let read = async { while let Some(Ok(_thrown_away)) = rest.frame().await {} };
        let _in_time = clock.before(clock.now() + UNREAD_DEADLINE, read).await;
    }
}

struct Kept {
    body: Body,
    /// Where the body goes when this is dropped, until somebody begins to read it.
    rest: Option<Arc<Mutex<Option<Body>>>>,
}

impl HttpBody for Kept {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.rest = None;
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(rest) = self.rest.take() {
            let body = mem::take(&mut self.body);
            *rest.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        }
    }
}
