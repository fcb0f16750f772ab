//! The listener behind the endpoint: it seats so many clients, each for so long.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::serve::Listener;
use neuroflow_kernel::Clock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::warn;

use crate::limits::{ACCEPT_PAUSE, CONNECTION_LIFE, MAX_CONNECTIONS};

/// Accepts while there are seats; the others wait in the system's own queue.
pub(super) struct Door {
    listener: TcpListener,
    clock: Clock,
    seats: Arc<Semaphore>,
}

impl Door {
    pub(super) fn new(listener: TcpListener, clock: Clock) -> Self {
        Self { listener, clock, seats: Arc::new(Semaphore::new(MAX_CONNECTIONS)) }
    }
}

impl Listener for Door {
    type Io = Visit;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Visit, SocketAddr) {
        loop {
            let accepted = match Arc::clone(&self.seats).acquire_owned().await {
                Ok(seat) => self.listener.accept().await.map(|accepted| (accepted, seat)),
                Err(closed) => Err(io::Error::other(closed)),
            };
            match accepted {
                Ok(((stream, address), seat)) => {
                    let clock = self.clock.clone();
                    let over = Box::pin(async move { clock.sleep(CONNECTION_LIFE).await });
                    return (Visit { stream, over, _seat: seat }, address);
                }
                Err(error) => {
                    warn!(%error, "the metrics endpoint can't accept a connection");
                    self.clock.sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends when its time is over, whatever the client does.
pub(super) struct Visit {
    stream: TcpStream,
    over: Pin<Box<dyn Future<Output = ()> + Send>>,
    _seat: OwnedSemaphorePermit,
}

impl Visit {
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.over.as_mut().poll(cx) {
            Poll::Pending => Ok(()),
            Poll::Ready(()) => {
                // A finished future can't be asked again, and the answer must stay the same.
                self.over = Box::pin(std::future::ready(()));
                Err(io::ErrorKind::TimedOut.into())
            }
        }
    }
}

impl AsyncRead for Visit {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Visit {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use neuroflow_kernel::ManualClock;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn door(clock: Clock) -> (Door, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let door = Door::new(listener, clock);
        let address = door.local_addr().unwrap();
        (door, address)
    }

    #[tokio::test]
    async fn a_client_that_says_nothing_is_put_out() {
        let time = ManualClock::new();
        let (mut door, address) = door(time.clock()).await;
        let _client = TcpStream::connect(address).await.unwrap();
        let (mut visit, _) = door.accept().await;
        let mut byte = [0];
        let mut read = std::pin::pin!(visit.read(&mut byte));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(read.as_mut().poll(&mut cx).is_pending());
        time.advance(CONNECTION_LIFE);
        assert_eq!(read.await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(visit.write(b"x").await.is_err());
    }

    #[tokio::test]
    async fn there_are_so_many_seats_and_a_free_one_is_given_on() {
        let clock = Clock::system();
        let (mut door, address) = door(clock.clone()).await;
        let mut clients = Vec::new();
        let mut visits = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            clients.push(TcpStream::connect(address).await.unwrap());
            visits.push(door.accept().await);
        }
        let _late = TcpStream::connect(address).await.unwrap();
        let soon = clock.now() + Duration::from_millis(50);
        assert!(clock.before(soon, door.accept()).await.is_err());
        visits.pop();
        let soon = clock.now() + Duration::from_secs(5);
        assert!(clock.before(soon, door.accept()).await.is_ok());
    }
}
