//! Event streams of any length, and a bound on each event.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Bytes;
use futures_util::Stream;
use hyper::body::Body;

use super::HttpError;
use crate::exchange::Answer;

/// The bytes of an event stream, cut off at an event that is too large.
pub(super) struct Events {
    body: Answer,
    size: EventSize,
}

impl Events {
    pub(super) fn new(body: Answer, limit: usize) -> Self {
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
