//! How long an actor that has ended waits before it begins anew. No I/O and no clock.

use std::collections::HashMap;
use std::time::Duration;

use neuroflow_kernel::{Moment, Name};

use crate::limits::{MAX_PEERS, REVIVAL_CALM};
use crate::link::connect::REDIAL;

/// The ends of actors that are not long ago.
#[derive(Debug, Default)]
pub(super) struct Revivals(HashMap<Name, (u32, Moment)>);

impl Revivals {
    /// The actor of this name has ended, and is to wait for so long.
    pub(super) fn wait(&mut self, name: Name, now: Moment, jitter: f64) -> Duration {
        if self.0.len() > MAX_PEERS {
            self.0.retain(|_, (_, at)| now.since(*at) < REVIVAL_CALM);
        }
        let (times, at) = self.0.entry(name).or_insert((0, now));
        *times = if now.since(*at) < REVIVAL_CALM { times.saturating_add(1) } else { 1 };
        *at = now;
        REDIAL.delay(*times, jitter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{REDIAL_MAX, REDIAL_MIN};

    #[test]
    fn what_ends_again_and_again_waits_longer_and_what_has_lived_for_a_while_does_not() {
        let (mut revivals, mut now) = (Revivals::default(), Moment::ORIGIN);
        let name = Name::new("membership").unwrap();
        let mut wait = |now| revivals.wait(name.clone(), now, 0.0);
        let first = wait(now);
        assert_eq!(first, REDIAL_MIN);
        let mut last = first;
        for _ in 0..20 {
            now = now + last;
            let next = wait(now);
            assert!(next >= last && next <= REDIAL_MAX, "{last:?} {next:?}");
            last = next;
        }
        assert_eq!(last, REDIAL_MAX);
        assert_eq!(wait(now + last + REVIVAL_CALM), first);
    }
}
