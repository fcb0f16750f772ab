//! A connection whose other end has to keep pace: who doesn't read what it's sent, or doesn't begin to
//! speak, is cut off.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::BoxFuture;
use neuroflow_kernel::Clock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::limits::WRITE_STALL;

/// A stream on which a write that doesn't move for [`WRITE_STALL`] is an error.
pub(super) struct Paced<S> {
    stream: S,
    clock: Clock,
    /// Runs while a write waits.
    stalled: Option<BoxFuture<'static, ()>>,
}

impl<S> Paced<S> {
    pub(super) fn new(stream: S, clock: Clock) -> Self {
        Self { stream, clock, stalled: None }
    }

    /// The error if a write has waited for too long.
    fn stall<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let clock = &self.clock;
        let stalled = self.stalled.get_or_insert_with(|| sleep(clock.clone(), WRITE_STALL));
        ready!(stalled.as_mut().poll(cx));
        self.stalled = None;
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn moved<T>(
        &mut self,
        polled: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if polled.is_pending() {
            return self.stall(cx);
        }
        self.stalled = None;
        polled
    }
}

fn sleep(clock: Clock, time: Duration) -> BoxFuture<'static, ()> {
    Box::pin(async move { clock.sleep(time).await })
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.moved(polled, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.moved(polled, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.moved(polled, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.moved(polled, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use neuroflow_kernel::ManualClock;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn who_does_not_read_is_cut_off_and_who_reads_slowly_is_not() {
        let time = ManualClock::new();
        let (near, mut far) = tokio::io::duplex(8);
        let mut paced = Paced::new(near, time.clock());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        paced.write_all(&[0; 8]).await.unwrap();
        for _ in 0..3 {
            let polled = Pin::new(&mut paced).poll_write(&mut cx, &[0; 4]);
            assert!(polled.is_pending());
            time.advance(WRITE_STALL / 2);
            far.read_exact(&mut [0; 4]).await.unwrap();
            paced.write_all(&[0; 4]).await.unwrap();
        }
        assert!(Pin::new(&mut paced).poll_write(&mut cx, &[0; 4]).is_pending());
        time.advance(WRITE_STALL);
        let Poll::Ready(Err(error)) = Pin::new(&mut paced).poll_write(&mut cx, &[0; 4]) else {
            panic!("it still waits");
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
