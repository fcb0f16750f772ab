//! Bodies of answers: a connection that goes on whenever its body is read, and bounds on what is
//! kept of it.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Bytes;
use futures_util::Stream;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1::Connection;
use hyper_util::rt::TokioIo;
use neuroflow_sandbox::OutletStream;

use super::HttpError;

type Wire = Connection<TokioIo<OutletStream>, Full<Bytes>>;

/// An answer's body, and the connection that it comes over. Dropping it closes the connection.
pub(super) struct Driven {
    connection: Option<Pin<Box<Wire>>>,
    body: Incoming,
}

impl Driven {
    pub(super) fn new(connection: Pin<Box<Wire>>, body: Incoming) -> Self {
        Self { connection: Some(connection), body }
    }
}

impl fmt::Debug for Driven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driven").finish_non_exhaustive()
    }
}

impl Body for Driven {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(connection) = &mut self.connection
            && connection.as_mut().poll(context).is_ready()
        {
            // How it ended is told by the body.
            self.connection = None;
        }
        Pin::new(&mut self.body).poll_frame(context)
    }
}

/// The whole of a body, if it isn't larger.
pub(super) async fn whole(body: Driven, limit: usize) -> Result<Bytes, HttpError> {
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(HttpError::TooLarge { limit }),
        Err(error) => match error.downcast::<hyper::Error>() {
            Ok(error) => Err(HttpError::Exchange(*error)),
            Err(_other) => Err(HttpError::TooLarge { limit }),
        },
    }
}

/// The bytes of an event stream, cut off at an event that is too large.
pub(super) struct Events {
    body: Driven,
    size: EventSize,
}

impl Events {
    pub(super) fn new(body: Driven, limit: usize) -> Self {
        Self { body, size: EventSize { limit, bytes: 0, ends_line: false } }
    }
}

impl Stream for Events {
    type Item = Result<Bytes, HttpError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match std::task::ready!(Pin::new(&mut self.body).poll_frame(context)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                Some(Ok(frame)) => {
                    let Ok(bytes) = frame.into_data() else { continue };
                    return Poll::Ready(Some(self.size.take(&bytes).map(|()| bytes)));
                }
            }
        }
    }
}

/// How much of the event that isn't complete has come.
struct EventSize {
    limit: usize,
    bytes: usize,
    /// Whether the last byte, carriage returns aside, ended a line.
    ends_line: bool,
}

impl EventSize {
    fn take(&mut self, bytes: &[u8]) -> Result<(), HttpError> {
        for byte in bytes {
            self.bytes = self.bytes.saturating_add(1);
            match byte {
                b'\n' if self.ends_line => self.bytes = 0,
                b'\n' => self.ends_line = true,
                b'\r' => {}
                _ => self.ends_line = false,
            }
            if self.bytes > self.limit {
                return Err(HttpError::TooLarge { limit: self.limit });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_bounded_and_the_stream_is_not() {
        let mut size = EventSize { limit: 16, bytes: 0, ends_line: false };
        for _ in 0..100 {
            size.take(b"data: a\r\n\r\n").unwrap();
        }
        assert!(size.take(b"data: aaaaaaaa").is_ok());
        assert!(matches!(size.take(b"aaaaaaaa"), Err(HttpError::TooLarge { limit: 16 })));
    }
}
