//! The node's socket and timers under QUIC: as few system calls and wake-ups as they can do with.
//!
//! The usual ones watch a socket for room to send as well, and each datagram that leaves the socket
//! makes some: one wake-up for nothing per datagram. They read again after a read that has emptied
//! the socket, and set a timer anew for every packet.

use std::future::Future;
use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use futures_util::future::BoxFuture;
use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::limits::{MAX_PACKET_BYTES, RECEIVE_CALL_BYTES, SEND_CALL_BYTES};

/// What QUIC runs on.
#[derive(Debug)]
pub(super) struct Ground;

impl Runtime for Ground {
    fn new_timer(&self, due: Instant) -> Pin<Box<dyn AsyncTimer>> {
        Box::pin(LateTimer { timer: TokioRuntime.new_timer(due), set: due, due })
    }

    fn spawn(&self, future: BoxFuture<'static, ()>) {
        TokioRuntime.spawn(future);
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Ok(Arc::new(Socket::new(socket)?))
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

/// A timer that is set anew only when it's due earlier, or has run out too early. Nearly every packet
/// moves a connection's next deadline, and nearly always to a later time.
#[derive(Debug)]
struct LateTimer {
    timer: Pin<Box<dyn AsyncTimer>>,
    /// When it runs out; not after `due`.
    set: Instant,
    due: Instant,
}

impl AsyncTimer for LateTimer {
    fn reset(mut self: Pin<&mut Self>, due: Instant) {
        self.due = due;
        if due < self.set {
            self.set = due;
            self.timer.as_mut().reset(due);
        }
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            if self.set >= self.due {
                return Poll::Ready(());
            }
            let due = self.due;
            self.set = due;
            self.timer.as_mut().reset(due);
        }
    }
}

/// Whoever waits for room to send waits on this: the same socket, watched for room. It's there only
/// while somebody waits.
type Room = Arc<AsyncFd<UdpSocket>>;

#[derive(Debug)]
struct Socket {
    /// Watched for datagrams only.
    inner: AsyncFd<UdpSocket>,
    state: UdpSocketState,
    full: Mutex<Option<Room>>,
}

/// A socket that is watched for this.
#[expect(deprecated, reason = "its successor is unsafe; a socket keeps its descriptor")]
fn watched(socket: UdpSocket, interest: Interest) -> io::Result<AsyncFd<UdpSocket>> {
    AsyncFd::with_interest(socket, interest)
}

impl Socket {
    fn new(socket: UdpSocket) -> io::Result<Self> {
        Ok(Self {
            state: UdpSocketState::new((&socket).into())?,
            inner: watched(socket, Interest::READABLE)?,
            full: Mutex::new(None),
        })
    }

    fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let sent = self.state.send(self.inner.get_ref().into(), transmit);
        if let Err(error) = &sent
            && error.kind() == ErrorKind::WouldBlock
        {
            self.fill()?;
        }
        sent
    }

    /// What to wait on, if the system had no room for the last datagram.
    fn full(&self) -> Option<Room> {
        self.full.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn fill(&self) -> io::Result<()> {
        let mut full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
        if full.is_none() {
            let same = self.inner.get_ref().try_clone()?;
            *full = Some(Arc::new(watched(same, Interest::WRITABLE)?));
        }
        Ok(())
    }

    /// There is room again.
    fn drain(&self, room: &Room) {
        let mut full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
        if full.as_ref().is_some_and(|full| Arc::ptr_eq(full, room)) {
            *full = None;
        }
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Sender { socket: self, waiting: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let Some(segment) = transmit.segment_size else { return self.send(transmit) };
        // Of what was sent before there was no more room, the receiver takes one copy.
        parts(transmit.contents, segment).try_for_each(|contents| {
            let segment_size = (contents.len() > segment).then_some(segment);
            let Transmit { destination, ecn, src_ip, .. } = *transmit;
            self.send(&Transmit { destination, ecn, contents, segment_size, src_ip })
        })
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.inner.poll_read_ready(cx))?;
            match self.state.recv(self.inner.get_ref().into(), bufs, meta) {
                Ok(received) => {
                    // Fewer than there is room for: the socket is empty, and what comes now says so
                    // again. What came since the look above isn't forgotten by this.
                    if received < bufs.len() {
                        ready.clear_ready();
                    }
                    return Poll::Ready(Ok(received));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.get_ref().local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        // QUIC makes room for so many of the largest packets, of which fewer come in one piece.
        let most = RECEIVE_CALL_BYTES.div_ceil(usize::from(MAX_PACKET_BYTES));
        self.state.gro_segments().min(most)
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

/// Packets of this size, as many at a time as the system takes in one call. QUIC bounds their number and not
/// their bytes, and what is too much for a call would be lost without a word.
fn parts(packets: &[u8], size: usize) -> impl Iterator<Item = &[u8]> {
    let whole = (SEND_CALL_BYTES / size.max(1)).max(1) * size.max(1);
    packets.chunks(whole)
}

type Waiting = Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

/// A connection's place among those that wait for room.
struct Sender {
    socket: Arc<Socket>,
    waiting: Option<Waiting>,
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").field("waits", &self.waiting.is_some()).finish_non_exhaustive()
    }
}

impl UdpPoller for Sender {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.waiting.is_none() {
            let Some(room) = self.socket.full() else { return Poll::Ready(Ok(())) };
            let socket = Arc::clone(&self.socket);
            self.waiting = Some(Box::pin(async move {
                room.writable().await?.retain_ready();
                socket.drain(&room);
                Ok(())
            }));
        }
        let Some(waiting) = &mut self.waiting else { return Poll::Ready(Ok(())) };
        let done = ready!(waiting.as_mut().poll(cx));
        self.waiting = None;
        Poll::Ready(done)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};
    use std::time::Duration;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn pair() -> (Arc<dyn AsyncUdpSocket>, UdpSocket) {
        let bind = || UdpSocket::bind("127.0.0.1:0").unwrap();
        let (ours, other) = (bind(), bind());
        ours.set_nonblocking(true).unwrap();
        (Ground.wrap_udp_socket(ours).unwrap(), other)
    }

    /// Takes what has arrived.
    fn receive(socket: &dyn AsyncUdpSocket, cx: &mut Context<'_>) -> Poll<usize> {
        let mut buffers = [[0; 2_048]; 4];
        let mut slices = buffers.each_mut().map(|buffer| IoSliceMut::new(buffer));
        let mut meta = [RecvMeta::default(); 4];
        socket.poll_recv(cx, &mut slices, &mut meta).map(Result::unwrap)
    }

    #[tokio::test]
    async fn what_comes_after_an_emptying_read_wakes_the_reader() {
        let (socket, other) = pair();
        for round in 0..50_u8 {
            other.send_to(&[round], socket.local_addr().unwrap()).unwrap();
            let received = std::future::poll_fn(|cx| receive(&*socket, cx)).await;
            assert_eq!(received, 1);
            let idle = std::future::poll_fn(|cx| Poll::Ready(receive(&*socket, cx))).await;
            assert!(idle.is_pending());
        }
    }

    #[tokio::test]
    async fn a_burst_is_read_whole_and_then_nothing_is_waited_for() {
        let (socket, other) = pair();
        for burst in [1, 2, 3, 9, 40, 1, 64] {
            for _ in 0..burst {
                other.send_to(&[7; 20], socket.local_addr().unwrap()).unwrap();
            }
            let mut left = burst;
            while left > 0 {
                left -= std::future::poll_fn(|cx| receive(&*socket, cx)).await;
            }
            let idle = std::future::poll_fn(|cx| Poll::Ready(receive(&*socket, cx))).await;
            assert!(idle.is_pending(), "{burst}");
        }
    }

    #[tokio::test]
    async fn a_datagram_that_leaves_wakes_nobody() {
        let (socket, other) = pair();
        let count = Arc::<Count>::default();
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        let mut poller = Arc::clone(&socket).create_io_poller();
        let transmit = Transmit {
            destination: other.local_addr().unwrap(),
            ecn: None,
            contents: &[7; 300],
            segment_size: None,
            src_ip: None,
        };
        assert!(receive(&*socket, &mut cx).is_pending());
        for _ in 0..20 {
            assert!(matches!(poller.as_mut().poll_writable(&mut cx), Poll::Ready(Ok(()))));
            socket.try_send(&transmit).unwrap();
            other.recv(&mut [0; 2_048]).unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(count.0.load(Ordering::SeqCst), 0);
        // And one that arrives does.
        other.send_to(&[1], socket.local_addr().unwrap()).unwrap();
        while count.0.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn packets_that_are_too_much_for_one_call_leave_in_several() {
        let (socket, other) = pair();
        let (size, count) = (16_000, 10);
        let contents: Vec<u8> = (0..count).flat_map(|number| vec![number; size]).collect();
        let transmit = Transmit {
            destination: other.local_addr().unwrap(),
            ecn: None,
            contents: &contents[..contents.len() - 1],
            segment_size: Some(size),
            src_ip: None,
        };
        // As many as fit in the receiver's own buffer by itself, one after another.
        let reader = std::thread::scope(|threads| {
            let reading = threads.spawn(|| {
                let mut buffer = vec![0; 65_536];
                other.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                (0..count)
                    .map(|_| other.recv(&mut buffer).map(|bytes| (bytes, buffer[0])))
                    .collect::<io::Result<Vec<_>>>()
            });
            socket.try_send(&transmit).unwrap();
            reading.join().unwrap()
        });
        let expected = (0..count).map(|number| (size - usize::from(number + 1 == count), number));
        assert_eq!(reader.unwrap(), expected.collect::<Vec<_>>());
    }

    #[test]
    fn a_part_is_a_number_of_packets_and_no_more_than_a_call_takes() {
        let packets = vec![0; 10 * 16_000 - 7];
        for size in [1, 1_200, 6_500, 9_000, 16_000, 32_000, 65_507, 200_000] {
            let parts: Vec<usize> = parts(&packets, size).map(<[u8]>::len).collect();
            assert_eq!(parts.iter().sum::<usize>(), packets.len());
            let (last, whole) = parts.split_last().unwrap();
            assert!(
                whole.iter().all(|part| part % size == 0 && *part <= SEND_CALL_BYTES.max(size))
            );
            assert!(*last <= SEND_CALL_BYTES.max(size));
        }
    }

    #[tokio::test]
    async fn a_sender_without_room_waits_until_there_is_some() {
        let bind = || UdpSocket::bind("127.0.0.1:0").unwrap();
        let (ours, other) = (bind(), bind());
        ours.set_nonblocking(true).unwrap();
        let socket = Arc::new(Socket::new(ours).unwrap());
        let mut poller = Arc::clone(&socket).create_io_poller();
        drop(other);
        // The system says so; here nothing is in its way.
        socket.fill().unwrap();
        assert!(socket.full().is_some());
        std::future::poll_fn(|cx| poller.as_mut().poll_writable(cx)).await.unwrap();
        assert!(socket.full().is_none());
    }

    #[tokio::test]
    async fn a_timer_runs_out_when_it_is_due_and_not_before_however_it_was_moved() {
        let start = Ground.now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut timer = Ground.new_timer(at(10));
        for (moves, due) in [(vec![30, 20], 20), (vec![5_000, 40], 40), (vec![50], 50)] {
            for to in moves {
                timer.as_mut().reset(at(to));
            }
            std::future::poll_fn(|cx| timer.as_mut().poll(cx)).await;
            assert!(Ground.now() >= at(due), "{due}");
        }
    }
}
