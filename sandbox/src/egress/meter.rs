//! Counts the bytes of one connection and ends it at a bound, to the byte.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use neuroflow_kernel::{Clock, Moment};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    reason::EgressReason,
    tally::{Counter, Tally},
};
use crate::network::EgressLimits;

/// A connection to a server: metered TCP, with or without TLS on it.
pub(crate) trait Upstream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Upstream for T {}

/// The bytes of one connection, and when the last one passed.
#[derive(Debug)]
pub(crate) struct Meter {
    tally: Arc<Tally>,
    clock: Clock,
    bounds: EgressLimits,
    /// Of the rule that allowed it, both directions together.
    of_rule: AtomicU64,
    passed: Counter,
    up: Counter,
    down: Counter,
    active: Mutex<Moment>,
    /// The bound that was met first.
    met: Mutex<Option<EgressReason>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

impl Meter {
    pub(crate) fn of(tally: Arc<Tally>, clock: Clock, bounds: EgressLimits) -> Self {
        let active = Mutex::new(clock.now());
        Self {
            tally,
            clock,
            bounds,
            of_rule: AtomicU64::new(u64::MAX),
            passed: Counter::default(),
            up: Counter::default(),
            down: Counter::default(),
            active,
            met: Mutex::new(None),
        }
    }

    pub(crate) fn bound_by_rule(&self, most: Option<u64>) {
        self.of_rule.store(most.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn up(&self) -> u64 {
        self.up.get()
    }

    pub(crate) fn down(&self) -> u64 {
        self.down.get()
    }

    pub(crate) fn met(&self) -> Option<EgressReason> {
        *self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn active(&self) -> Moment {
        *self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn touch(&self) {
        *self.active.lock().unwrap_or_else(PoisonError::into_inner) = self.clock.now();
    }

    /// The counters of a way with their bounds, narrow ones first.
    fn counters(&self, way: Way) -> [(&Counter, u64, EgressReason); 3] {
        let rule = (&self.passed, self.of_rule.load(Ordering::Relaxed), EgressReason::RuleBytes);
        let bounds = &self.bounds;
        match way {
            Way::Up => [
                rule,
                (&self.up, bounds.bytes_up, EgressReason::BytesUp),
                (&self.tally.up, bounds.cell_bytes_up, EgressReason::CellBytesUp),
            ],
            Way::Down => [
                rule,
                (&self.down, bounds.bytes_down, EgressReason::BytesDown),
                (&self.tally.down, bounds.cell_bytes_down, EgressReason::CellBytesDown),
            ],
        }
    }

    /// Takes up to `wanted` bytes from every counter. Zero if one of them has none left.
    fn take(&self, way: Way, wanted: usize) -> (usize, EgressReason) {
        let wanted = u64::try_from(wanted).unwrap_or(u64::MAX);
        let counters = self.counters(way);
        let mut fits = wanted;
        let mut narrowest = EgressReason::Allowed;
        for (index, (counter, most, reason)) in counters.iter().enumerate() {
            let taken = counter.take(fits, *most);
            if taken < fits {
                narrowest = *reason;
                for (earlier, ..) in counters.iter().take(index) {
                    earlier.give_back(fits - taken);
                }
                fits = taken;
            }
        }
        (usize::try_from(fits).unwrap_or(usize::MAX), narrowest)
    }

    fn give_back(&self, way: Way, unused: usize) {
        let unused = u64::try_from(unused).unwrap_or(0);
        for (counter, ..) in self.counters(way) {
            counter.give_back(unused);
        }
    }

    fn end(&self, reason: EgressReason) -> io::Error {
        self.met.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
        io::Error::new(io::ErrorKind::QuotaExceeded, reason.code())
    }
}

/// A stream under a meter.
#[derive(Debug)]
pub(crate) struct Metered<S> {
    stream: S,
    meter: Arc<Meter>,
}

impl<S> Metered<S> {
    pub(crate) fn of(stream: S, meter: Arc<Meter>) -> Self {
        meter.touch();
        Self { stream, meter }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let (taken, narrowest) = this.meter.take(Way::Down, buffer.remaining());
        if taken == 0 {
            // A stream that ends exactly here has kept to its bound.
            let mut byte = [0];
            let mut one = ReadBuf::new(&mut byte);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut one))?;
            return Poll::Ready(match one.filled() {
                [] => Ok(()),
                _ => Err(this.meter.end(narrowest)),
            });
        }
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(taken));
        let read = Pin::new(&mut this.stream).poll_read(cx, &mut part);
        let filled = part.filled().len();
        buffer.advance(filled);
        this.meter.give_back(Way::Down, taken - filled);
        if filled > 0 {
            this.meter.touch();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let (taken, narrowest) = this.meter.take(Way::Up, bytes.len());
        if taken == 0 {
            return Poll::Ready(Err(this.meter.end(narrowest)));
        }
        let part = bytes.get(..taken).unwrap_or(bytes);
        let wrote = Pin::new(&mut this.stream).poll_write(cx, part);
        let count = match &wrote {
            Poll::Ready(Ok(count)) => *count,
            Poll::Ready(Err(_)) | Poll::Pending => 0,
        };
        this.meter.give_back(Way::Up, taken - count);
        if count > 0 {
            this.meter.touch();
        }
        wrote
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn meter(bounds: EgressLimits) -> (Arc<Meter>, Arc<Tally>) {
        let tally = Arc::new(Tally::of("c".to_owned()));
        (Arc::new(Meter::of(Arc::clone(&tally), Clock::system(), bounds)), tally)
    }

    #[tokio::test]
    async fn exactly_the_allowed_bytes_are_read() {
        let (meter, tally) = meter(EgressLimits::default().bytes_down(10));
        let mut stream = Metered::of(&b"0123456789"[..], Arc::clone(&meter));
        let mut all = Vec::new();
        assert_eq!(stream.read_to_end(&mut all).await.unwrap(), 10);
        assert_eq!((meter.down(), tally.down.get(), meter.met()), (10, 10, None));

        let mut stream = Metered::of(&b"x"[..], Arc::clone(&meter));
        assert!(stream.read_to_end(&mut all).await.is_err());
        assert_eq!(meter.met(), Some(EgressReason::BytesDown));
        assert_eq!((meter.down(), all.len()), (10, 10));
    }

    #[tokio::test]
    async fn exactly_the_allowed_bytes_are_written() {
        let (meter, tally) = meter(EgressLimits::default().cell_bytes_up(4));
        let mut stream = Metered::of(Vec::new(), Arc::clone(&meter));
        assert!(stream.write_all(b"012345").await.is_err());
        assert_eq!(meter.met(), Some(EgressReason::CellBytesUp));
        assert_eq!((stream.stream.as_slice(), meter.up(), tally.up.get()), (&b"0123"[..], 4, 4));
    }

    #[tokio::test]
    async fn a_rules_bound_is_for_both_directions() {
        let (meter, _tally) = meter(EgressLimits::default());
        meter.bound_by_rule(Some(6));
        let mut out = Metered::of(Vec::new(), Arc::clone(&meter));
        out.write_all(b"0123").await.unwrap();
        let mut stream = Metered::of(&b"0123"[..], Arc::clone(&meter));
        let mut all = Vec::new();
        assert!(stream.read_to_end(&mut all).await.is_err());
        assert_eq!((all.as_slice(), meter.met()), (&b"01"[..], Some(EgressReason::RuleBytes)));
    }
}
