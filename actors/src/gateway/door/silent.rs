//! A connection of HTTP/2 on which nothing is open: it's closed as an HTTP/1.1 connection is whose client sends no
//! head. The protocol's library has a time for that one only, and pings keep the other alive for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use neuroflow_kernel::Clock;

use crate::limits::HEAD_DEADLINE;

/// How many streams of one connection were begun, and how many of those have ended.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    begun: AtomicU64,
    ended: AtomicU64,
}

impl Traffic {
    /// A stream is open for as long as this is held.
    pub(super) fn begin(self: &Arc<Self>) -> Open {
        self.begun.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(self))
    }

    /// Returns once nothing has been open for [`HEAD_DEADLINE`]: exactly then if there never was anything, and after
    /// as long again at the latest.
    pub(super) async fn ceases(&self, clock: &Clock) {
        // Looked at from time to time, so that no stream has to wake its connection.
        loop {
            let before = self.seen();
            clock.sleep(HEAD_DEADLINE).await;
            if before.0 == before.1 && self.seen() == before {
                return;
            }
        }
    }

    fn seen(&self) -> (u64, u64) {
        (self.begun.load(Ordering::Relaxed), self.ended.load(Ordering::Relaxed))
    }
}

/// One open stream.
#[derive(Debug)]
pub(super) struct Open(Arc<Traffic>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use neuroflow_kernel::ManualClock;
    use std::pin::pin;
    use std::task::{Context, Waker};

    #[test]
    fn what_was_never_open_ceases_in_time_and_what_is_open_never_does() {
        let (time, mut cx) = (ManualClock::new(), Context::from_waker(Waker::noop()));
        let (clock, traffic) = (time.clock(), Arc::<Traffic>::default());
        let mut after = |ceases: &mut std::pin::Pin<&mut dyn Future<Output = ()>>| {
            assert!(ceases.as_mut().poll(&mut cx).is_pending());
            time.advance(HEAD_DEADLINE);
            ceases.as_mut().poll(&mut cx).is_ready()
        };
        assert!(after(&mut (pin!(traffic.ceases(&clock)) as _)));
        let open = traffic.begin();
        let mut ceases =
            pin!(traffic.ceases(&clock)) as std::pin::Pin<&mut dyn Future<Output = ()>>;
        for _ in 0..9 {
            assert!(!after(&mut ceases), "it's open");
        }
        drop(open);
        assert!(!after(&mut ceases), "it was open");
        drop(traffic.begin());
        assert!(!after(&mut ceases), "another was");
        assert!(after(&mut ceases));
    }
}
