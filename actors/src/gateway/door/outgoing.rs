//! The body of an answer on its way out. It holds its request's place and what it has in memory until it has come
//! to its end, and is given out in pieces, so that who reads slowly is seen to read, and what is read is free.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};

use super::stalled::{self, Given};
use super::unsent::Unsent;
use crate::access::Place;
use crate::limits::STREAM_PIECE_BYTES;

/// The answer's body with what it holds.
pub(super) fn holding(body: Body, place: Option<Place>, unsent: Unsent) -> Body {
    if body.is_end_stream() {
        return body;
    }
    let given = stalled::given();
    if let Some(given) = &given {
        given.gives();
    }
    Body::new(Outgoing { body, given, rest: Bytes::new(), _place: place, _unsent: unsent })
}

struct Outgoing {
    body: Body,
    /// None where the connection is the stream.
    given: Option<Arc<Given>>,
    /// Of the last piece.
    rest: Bytes,
    _place: Option<Place>,
    _unsent: Unsent,
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut is_new = false;
        if self.rest.is_empty() {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => {
                    if let Some(given) = &self.given {
                        given.is_asked();
                    }
                    return Poll::Pending;
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => (self.rest, is_new) = (data, true),
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                over @ Poll::Ready(_) => return over,
            }
        }
        let piece = if is_new && self.rest.len() <= STREAM_PIECE_BYTES {
            std::mem::take(&mut self.rest)
        } else {
            // A copy: a part would keep the whole in memory for as long as it waits to be sent itself.
            let piece = self.rest.len().min(STREAM_PIECE_BYTES);
            Bytes::copy_from_slice(&self.rest.split_to(piece))
        };
        if let Some(given) = &self.given {
            given.gives();
        }
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
    use crate::gateway::door::unsent::Answers;
    use http_body_util::{BodyExt, Full};

    #[tokio::test]
    async fn a_body_comes_in_pieces_and_says_how_much_is_left() {
        let whole: Vec<u8> = (0..100_000_u32).map(|at| at.to_le_bytes()[0]).collect();
        let body = Body::new(Full::new(Bytes::from(whole.clone())));
        let (mut body, mut read) = (holding(body, None, Answers::default().of(None)), Vec::new());
        while let Some(frame) = body.frame().await {
            let piece = frame.unwrap().into_data().unwrap();
            assert!(piece.len() <= STREAM_PIECE_BYTES);
            read.extend_from_slice(&piece);
            assert_eq!(body.size_hint().exact(), Some((whole.len() - read.len()) as u64));
            assert_eq!(body.is_end_stream(), read.len() == whole.len());
        }
        assert_eq!(read, whole);
    }
}
