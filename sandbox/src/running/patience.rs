//! How long the host waits for a zygote. By a timer of the kernel's, because a host's runtime may have
//! none: a cell needs its descriptors watched, and no more.

use std::{
    os::fd::{AsFd, OwnedFd},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::io::{Interest, unix::AsyncFd};

use crate::{
    limits,
    linux::sys::{event, watch::watch},
};

/// The last moment at which the zygote has to have answered.
#[derive(Debug)]
pub(crate) struct Patience {
    /// In nanoseconds of the monotonic clock.
    until: u64,
    /// There from the first wait on.
    timer: Option<AsyncFd<OwnedFd>>,
}

impl Patience {
    /// With what may take so long if nothing hangs.
    pub(crate) fn new(longest: Duration) -> Self {
        Self { until: after(longest), timer: None }
    }

    /// From now on, with what may take so long.
    pub(super) fn begin_anew(&mut self, longest: Duration) {
        self.set(after(longest));
    }

    /// From now on there is nothing left to do for the zygote but to say so.
    pub(super) fn hurry(&mut self) {
        let until = after(Duration::ZERO);
        if until < self.until {
            self.set(until);
        }
    }

    fn set(&mut self, until: u64) {
        self.until = until;
        if let Some(timer) = &self.timer {
            // It fails for no moment and no timer.
            event::set_timer(timer.get_ref().as_fd(), until).ok();
        }
    }

    /// Ready when the moment has come. A host that has no descriptor left for a timer waits for as long as
    /// it takes, and not for less.
    pub(crate) fn poll_over(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.timer.is_none() {
            let set = event::timer().and_then(|timer| {
                event::set_timer(timer.as_fd(), self.until)?;
                watch(timer, Interest::READABLE)
            });
            self.timer = set.ok();
        }
        let Some(timer) = &self.timer else { return Poll::Pending };
        loop {
            let mut heard = ready!(timer.poll_read_ready(context));
            if event::now() >= self.until {
                return Poll::Ready(());
            }
            // It was set anew since it rang.
            if let Ok(guard) = &mut heard {
                guard.clear_ready();
            }
        }
    }
}

/// The moment after so long, and the time that a zygote has to say anything.
fn after(longest: Duration) -> u64 {
    let longest = longest.saturating_add(limits::ANSWER_WAIT).as_nanos();
    event::now().saturating_add(u64::try_from(longest).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[test]
    fn it_needs_no_timer_of_the_runtimes_and_can_be_set_anew() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_io().build().unwrap();
        runtime.block_on(async {
            let mut patience = Patience::new(Duration::from_hours(1));
            let pending = poll_fn(|context| Poll::Ready(patience.poll_over(context))).await;
            assert!(pending.is_pending());
            patience.hurry();
            let pending = poll_fn(|context| Poll::Ready(patience.poll_over(context))).await;
            assert!(pending.is_pending());
            patience.set(event::now() + 20_000_000);
            poll_fn(|context| patience.poll_over(context)).await;
            patience.begin_anew(Duration::from_hours(1));
            let pending = poll_fn(|context| Poll::Ready(patience.poll_over(context))).await;
            assert!(pending.is_pending());
        });
    }
}
