//! Pauses of who follows a task and is cut off: one that runs on another node, or has as many followers as it may,
//! cuts off whoever follows it at once, and is looked at from time to time.

use neuroflow_kernel::{Backoff, Clock, Moment};

/// What is known of the looks that brought nothing.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    /// The last event at the look before.
    seen: u64,
    in_vain: u32,
    /// The end of the pause that was begun.
    until: Option<Moment>,
}

impl Pauses {
    /// Waits until who has come to this event may follow again: at once after something new, because that one was
    /// only slow, and else longer each time. Dropping the future doesn't begin the pause anew.
    pub(super) async fn wait(&mut self, reached: u64, backoff: Backoff, clock: &Clock) {
        if reached > self.seen {
            *self = Self { seen: reached, ..Self::default() };
            return;
        }
        let until = self.until.unwrap_or_else(|| {
            self.in_vain = self.in_vain.saturating_add(1);
            clock.now() + backoff.delay(self.in_vain, Backoff::jitter())
        });
        self.until = Some(until);
        clock.sleep_until(until).await;
        self.until = None;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;
    use neuroflow_kernel::ManualClock;

    use super::*;

    #[test]
    fn pauses_grow_until_there_is_something_new_and_go_on_where_they_were() {
        let backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_mins(1) };
        let (time, mut pauses) = (ManualClock::new(), Pauses::default());
        let clock = time.clock();
        let looks = |pauses: &mut Pauses, reached| {
            // In steps, each of which begins the wait once more.
            let mut steps = 0;
            while pauses.wait(reached, backoff, &clock).now_or_never().is_none() {
                time.advance(Duration::from_millis(100));
                steps += 1;
            }
            steps
        };
        assert_eq!(looks(&mut pauses, 3), 0);
        assert!((5..=10).contains(&looks(&mut pauses, 3)));
        assert!((10..=20).contains(&looks(&mut pauses, 3)));
        assert_eq!(looks(&mut pauses, 4), 0);
        assert!((5..=10).contains(&looks(&mut pauses, 4)));
    }
}
