//! How much a principal may ask for: requests in time, and requests at once.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::Clock as GovernorClock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use neuroflow_kernel::Clock;

use crate::limits::LIMITED_PRINCIPALS;

/// What a principal may have; without a number, as much as there is.
///
/// ```
/// use neuroflow_actors::Limits;
/// let limits = Limits { per_second: std::num::NonZeroU32::new(10), ..Limits::default() };
/// assert!(limits.concurrent.is_none());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Requests per second, on average.
    pub per_second: Option<NonZeroU32>,
    /// Requests that may come at once before the average counts; as many as per second unless set.
    pub burst: Option<NonZeroU32>,
    /// Requests that are answered at a time, streams for as long as they last.
    pub concurrent: Option<NonZeroU32>,
}

/// A principal has asked for more than it may.
///
/// ```
/// use std::time::Duration;
/// let throttled = neuroflow_actors::Throttled { retry_after: Duration::from_millis(1_200) };
/// assert_eq!(throttled.seconds(), 2);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many requests; try again in {} s", self.seconds())]
pub struct Throttled {
    /// When it's worth trying again.
    pub retry_after: Duration,
}

impl Throttled {
    /// For `Retry-After`, which has whole seconds: rounded up, at least one.
    pub fn seconds(&self) -> u64 {
        self.retry_after.as_millis().div_ceil(1_000).max(1).try_into().unwrap_or(u64::MAX)
    }
}

type Rate = RateLimiter<String, DashMapStateStore<String>, KernelTime, NoOpMiddleware<Nanos>>;

/// The kernel's clock, as the library asks for it.
#[derive(Clone)]
struct KernelTime(Clock);

impl GovernorClock for KernelTime {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.now().nanos().into()
    }
}

/// The limits of all principals.
pub(crate) struct Throttle {
    time: KernelTime,
    rate: Option<Rate>,
    concurrent: Option<NonZeroU32>,
    running: Arc<Mutex<HashMap<String, u32>>>,
}

impl std::fmt::Debug for Throttle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Throttle").field("concurrent", &self.concurrent).finish_non_exhaustive()
    }
}

/// A request that counts until this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    key: String,
    running: Arc<Mutex<HashMap<String, u32>>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = running.get_mut(&self.key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                running.remove(&self.key);
            }
        }
    }
}

/// The key of those for whom there is no room any more.
const REST: &str = "";

impl Throttle {
    pub(crate) fn new(limits: Limits, clock: Clock) -> Self {
        let time = KernelTime(clock);
        let rate = limits.per_second.map(|per_second| {
            let quota = Quota::per_second(per_second);
            let quota = quota.allow_burst(limits.burst.unwrap_or(per_second));
            RateLimiter::new(quota, DashMapStateStore::default(), time.clone())
        });
        Self { time, rate, concurrent: limits.concurrent, running: Arc::default() }
    }

    /// Lets one request in, for as long as its place is kept.
    pub(crate) fn admit(&self, principal: &str) -> Result<Option<Place>, Throttled> {
        if let Some(rate) = &self.rate
            && let Err(early) = rate.check_key(&key(rate, principal).to_owned())
        {
            let retry_after = early.wait_time_from(self.time.now());
            return Err(Throttled { retry_after });
        }
        let Some(most) = self.concurrent else { return Ok(None) };
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let count = running.entry(principal.to_owned()).or_default();
        if *count >= most.get() {
            // When one of them will end nobody knows.
            return Err(Throttled { retry_after: Duration::from_secs(1) });
        }
        *count += 1;
        Ok(Some(Place { key: principal.to_owned(), running: Arc::clone(&self.running) }))
    }
}

/// What a principal is counted by. Where there are too many, those are forgotten who haven't asked
/// for a while, and if that isn't enough, all share one allowance.
fn key<'a>(rate: &Rate, principal: &'a str) -> &'a str {
    if rate.len() >= LIMITED_PRINCIPALS {
        rate.retain_recent();
    }
    if rate.len() < LIMITED_PRINCIPALS { principal } else { REST }
}

#[cfg(test)]
mod tests {
    use super::*;
    use neuroflow_kernel::ManualClock;

    fn number(number: u32) -> Option<NonZeroU32> {
        NonZeroU32::new(number)
    }

    #[test]
    fn a_burst_passes_and_then_the_rate_counts_for_each_alone() {
        let time = ManualClock::new();
        let limits = Limits { per_second: number(10), burst: number(3), concurrent: None };
        let throttle = Throttle::new(limits, time.clock());
        for _ in 0..3 {
            assert!(throttle.admit("a").is_ok());
        }
        let throttled = throttle.admit("a").unwrap_err();
        assert_eq!(throttled.retry_after, Duration::from_millis(100));
        assert_eq!(throttled.seconds(), 1);
        assert!(throttle.admit("b").is_ok());
        time.advance(Duration::from_millis(100));
        assert!(throttle.admit("a").is_ok());
        assert!(throttle.admit("a").is_err());
    }

    #[test]
    fn a_place_counts_until_it_is_dropped() {
        let limits = Limits { concurrent: number(2), ..Limits::default() };
        let throttle = Throttle::new(limits, ManualClock::new().clock());
        let first = throttle.admit("a").unwrap();
        let _second = throttle.admit("a").unwrap();
        assert!(throttle.admit("a").is_err());
        assert!(throttle.admit("b").unwrap().is_some());
        drop(first);
        assert!(throttle.admit("a").unwrap().is_some());
        assert_eq!(throttle.running.lock().unwrap().len(), 1);
    }

    #[test]
    fn the_number_of_principals_has_a_bound() {
        let time = ManualClock::new();
        let limits = Limits { per_second: number(1), ..Limits::default() };
        let throttle = Throttle::new(limits, time.clock());
        for index in 0..LIMITED_PRINCIPALS {
            assert!(throttle.admit(&index.to_string()).is_ok());
        }
        // They share one allowance.
        assert!(throttle.admit("x").is_ok());
        assert!(throttle.admit("y").is_err());
        time.advance(Duration::from_mins(1));
        assert!(throttle.admit("z").is_ok());
        assert_eq!(throttle.rate.as_ref().unwrap().len(), 1);
    }
}
