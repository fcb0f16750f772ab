//! The one clock: monotonic moments, wall time, sleeps and deadlines, and a double that tests move.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use crate::sweep::{Sweep, Ticket};

/// A point on a kernel's clock, in nanoseconds since that clock began.
///
/// ```
/// use std::time::Duration;
/// use neuroflow_kernel::Clock;
/// let clock = Clock::system();
/// let start = clock.now();
/// assert!(start + Duration::from_secs(1) > start);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// The moment at which the clock began.
    pub const ORIGIN: Self = Self(0);

    pub(crate) const NEVER: Self = Self(u64::MAX);

    /// Time since `earlier`; zero if that is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Nanoseconds since the clock began.
    pub fn nanos(self) -> u64 {
        self.0
    }
}

impl std::ops::Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// A clock, cheap to clone.
///
/// ```
/// use neuroflow_kernel::Clock;
/// let clock = Clock::system();
/// assert!(clock.now() <= clock.now());
/// ```
#[derive(Clone)]
pub struct Clock(Arc<Inner>);

pub(crate) struct Inner {
    time: Time,
    sweep: Sweep,
}

enum Time {
    System {
        origin: Instant,
    },
    Manual {
        nanos: AtomicU64,
        /// The civil time at the clock's origin, in nanoseconds since the Unix epoch.
        wall_origin: AtomicI64,
    },
}

impl Clock {
    /// The machine's clock. Sleeps need a tokio runtime with its time driver on; so do deadlines, which
    /// all use that of the kernel that has this clock, or of somebody who waits if none has.
    pub fn system() -> Self {
        #[expect(clippy::disallowed_methods, reason = "this is the kernel clock")]
        let origin = Instant::now();
        Self::with(Time::System { origin })
    }

    fn with(time: Time) -> Self {
        Self(Arc::new(Inner { time, sweep: Sweep::default() }))
    }

    /// This moment.
    pub fn now(&self) -> Moment {
        self.0.now()
    }

    /// The civil time, for timestamps that people and other systems read.
    pub fn wall(&self) -> SystemTime {
        match &self.0.time {
            #[expect(clippy::disallowed_methods, reason = "this is the kernel clock")]
            Time::System { .. } => SystemTime::now(),
            Time::Manual { nanos, wall_origin } => {
                let origin = i128::from(wall_origin.load(Ordering::SeqCst));
                let since = origin + i128::from(nanos.load(Ordering::SeqCst));
                SystemTime::UNIX_EPOCH + Duration::from_nanos(u64::try_from(since).unwrap_or(0))
            }
        }
    }

    /// The civil time since the Unix epoch; none for a machine whose clock stands before it.
    ///
    /// ```
    /// use neuroflow_kernel::ManualClock;
    /// assert_eq!(ManualClock::new().clock().unix(), ManualClock::WALL_ORIGIN);
    /// ```
    pub fn unix(&self) -> Duration {
        self.wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }

    /// The same in milliseconds, as messages and journals have it.
    ///
    /// ```
    /// use neuroflow_kernel::ManualClock;
    /// assert_eq!(ManualClock::new().clock().unix_ms(), 1_577_836_800_000);
    /// ```
    pub fn unix_ms(&self) -> u64 {
        u64::try_from(self.unix().as_millis()).unwrap_or(u64::MAX)
    }

    /// Waits until `at`, with the precision of the runtime's timer.
    pub async fn sleep_until(&self, at: Moment) {
        match &self.0.time {
            Time::System { origin } => {
                let at = *origin + Duration::from_nanos(at.0);
                tokio::time::sleep_until(at.into()).await;
            }
            Time::Manual { .. } => self.alarm(at).await,
        }
    }

    /// Waits for `duration`, with the precision of the runtime's timer.
    pub async fn sleep(&self, duration: Duration) {
        self.sleep_until(self.now() + duration).await;
    }

    /// The answer of `future`, or [`Elapsed`] once `at` is past.
    ///
    /// Deadlines share one sweep and fire up to [`crate::limits::DEADLINE_RESOLUTION`] late.
    ///
    /// ```
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    /// # runtime.block_on(async {
    /// use std::time::Duration;
    /// use neuroflow_kernel::Clock;
    /// let clock = Clock::system();
    /// let soon = clock.now() + Duration::from_millis(10);
    /// assert!(clock.before(soon, std::future::pending::<()>()).await.is_err());
    /// assert_eq!(clock.before(soon, async { 1 }).await, Ok(1));
    /// # });
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Elapsed`] if the future wasn't ready in time; it's dropped then.
    pub async fn before<F: Future>(&self, at: Moment, future: F) -> Result<F::Output, Elapsed> {
        let mut future = std::pin::pin!(future);
        let mut alarm = self.alarm(at);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            Pin::new(&mut alarm).poll(cx).map(|()| Err(Elapsed))
        })
        .await
    }

    /// A kernel that has this clock lives on this runtime.
    pub(crate) fn settle(&self, home: tokio::runtime::Handle) {
        if let Time::System { .. } = self.0.time {
            Sweep::settle(&self.0, home);
        }
    }

    pub(crate) fn alarm(&self, at: Moment) -> Alarm<'_> {
        Alarm { clock: &self.0, at, ticket: None }
    }
}

impl Inner {
    pub(crate) fn now(&self) -> Moment {
        match &self.time {
            Time::System { origin } => {
                Moment(u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
            }
            Time::Manual { nanos, .. } => Moment(nanos.load(Ordering::SeqCst)),
        }
    }

    pub(crate) fn sweep(&self) -> &Sweep {
        &self.sweep
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").field("now", &self.now()).finish_non_exhaustive()
    }
}

/// The deadline came first.
///
/// ```
/// assert_eq!(neuroflow_kernel::Elapsed.to_string(), "the deadline has passed");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the deadline has passed")]
pub struct Elapsed;

/// Ready once the clock has reached a moment; costs two short locks, no timer of its own.
pub(crate) struct Alarm<'a> {
    clock: &'a Arc<Inner>,
    at: Moment,
    ticket: Option<Ticket>,
}

impl Future for Alarm<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let inner = self.clock;
        if let Some(ticket) = &self.ticket {
            let due = inner.sweep.poll(ticket, cx.waker());
            // The runtime that the sweep was on may have ended.
            if due.is_pending() && matches!(inner.time, Time::System { .. }) {
                Sweep::tick(inner);
            }
            return due;
        }
        if self.at == Moment::NEVER {
            return Poll::Pending;
        }
        let ticket = inner.sweep.register(self.at, cx.waker());
        match &inner.time {
            Time::System { .. } => Sweep::tick(inner),
            // Nobody sweeps for a moment that is already past on a clock that stands still.
            Time::Manual { .. } if inner.now() >= self.at => {
                inner.sweep.remove(&ticket);
                return Poll::Ready(());
            }
            Time::Manual { .. } => {}
        }
        self.ticket = Some(ticket);
        Poll::Pending
    }
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.clock.sweep.remove(&ticket);
        }
    }
}

/// A clock that stands still until a test moves it.
///
/// ```
/// use std::time::Duration;
/// use neuroflow_kernel::ManualClock;
/// let time = ManualClock::new();
/// let clock = time.clock();
/// let before = clock.now();
/// time.advance(Duration::from_secs(60));
/// assert_eq!(clock.now().since(before), Duration::from_secs(60));
/// ```
#[derive(Clone, Debug)]
pub struct ManualClock(Clock);

impl ManualClock {
    /// 2020-01-01T00:00:00Z, 18 262 days after the Unix epoch: when every manual clock begins.
    pub const WALL_ORIGIN: Duration = Duration::from_hours(24 * 18_262);

    /// A clock at its origin.
    pub fn new() -> Self {
        let origin = i64::try_from(Self::WALL_ORIGIN.as_nanos()).unwrap_or(0);
        let (nanos, wall_origin) = (AtomicU64::new(0), AtomicI64::new(origin));
        Self(Clock::with(Time::Manual { nanos, wall_origin }))
    }

    /// The clock to hand out.
    pub fn clock(&self) -> Clock {
        self.0.clone()
    }

    /// Moves time on and wakes whoever waited for a moment that is now past.
    pub fn advance(&self, duration: Duration) {
        if let Time::Manual { nanos, .. } = &self.0.0.time {
            let step = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
            nanos.fetch_add(step, Ordering::SeqCst);
        }
        self.0.0.sweep.fire(self.0.now());
    }

    /// Sets the civil time, forward or back, as who corrects a machine's clock does. Moments go on from
    /// where they were, and nobody who waits for one is woken.
    ///
    /// ```
    /// use std::time::Duration;
    /// use neuroflow_kernel::ManualClock;
    /// let time = ManualClock::new();
    /// let (now, wall) = (time.clock().now(), time.clock().wall());
    /// time.set_wall(wall - Duration::from_hours(3));
    /// assert_eq!((time.clock().now(), time.clock().wall() < wall), (now, true));
    /// ```
    pub fn set_wall(&self, to: SystemTime) {
        if let Time::Manual { nanos, wall_origin } = &self.0.0.time {
            let to = to.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
            let to = i64::try_from(to).unwrap_or(i64::MAX);
            let since = i64::try_from(nanos.load(Ordering::SeqCst)).unwrap_or(i64::MAX);
            wall_origin.store(to.saturating_sub(since), Ordering::SeqCst);
        }
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sleep_on_a_manual_clock_ends_when_time_is_moved_and_not_before() {
        let time = ManualClock::new();
        let clock = time.clock();
        let mut sleep: Pin<&mut dyn Future<Output = ()>> =
            std::pin::pin!(clock.sleep(Duration::from_secs(5)));
        let ready = |sleep: &mut Pin<&mut dyn Future<Output = ()>>| {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            sleep.as_mut().poll(&mut cx).is_ready()
        };
        assert!(!ready(&mut sleep));
        time.advance(Duration::from_secs(4));
        assert!(!ready(&mut sleep));
        time.advance(Duration::from_secs(1));
        assert!(ready(&mut sleep));
    }

    #[tokio::test]
    async fn setting_the_civil_time_moves_no_deadline() {
        let time = ManualClock::new();
        let clock = time.clock();
        let day = Duration::from_hours(24);
        let (begun, at) = (clock.wall(), clock.now() + Duration::from_secs(5));
        let mut waiting = std::pin::pin!(clock.before(at, std::future::pending::<()>()));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        time.set_wall(begun + day);
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        time.set_wall(begun - day);
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        time.advance(Duration::from_secs(5));
        assert_eq!(waiting.await, Err(Elapsed));
        assert_eq!(clock.wall(), begun - day + Duration::from_secs(5));
    }

    #[tokio::test]
    async fn a_deadline_fires_and_leaves_nothing_behind() {
        let clock = Clock::system();
        let at = clock.now() + Duration::from_millis(3);
        assert_eq!(clock.before(at, std::future::pending::<()>()).await, Err(Elapsed));
        assert_eq!(clock.before(at + Duration::from_secs(9), async { 7 }).await, Ok(7));
        assert_eq!(clock.0.sweep.waiting(), 0);
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    }

    /// A wait on `runtime` that has begun, and that nobody goes on with.
    fn abandoned(
        runtime: &tokio::runtime::Runtime,
        clock: &Clock,
    ) -> Pin<Box<dyn Future<Output = Result<(), Elapsed>>>> {
        let (clock, at) = (clock.clone(), clock.now() + Duration::from_hours(1));
        let mut wait: Pin<Box<dyn Future<Output = _>>> =
            Box::pin(async move { clock.before(at, std::future::pending::<()>()).await });
        runtime.block_on(async {
            assert!(
                std::future::poll_fn(|cx| Poll::Ready(wait.as_mut().poll(cx))).await.is_pending()
            );
        });
        wait
    }

    /// The runtime's own timer, which no sweep stands behind, ends a wait that is lost.
    async fn ends(clock: &Clock) -> bool {
        let soon = clock.now() + Duration::from_millis(1);
        tokio::select! {
            late = clock.before(soon, std::future::pending::<()>()) => late == Err(Elapsed),
            () = clock.sleep(Duration::from_secs(20)) => false,
        }
    }

    #[test]
    fn deadlines_run_on_the_kernels_runtime_whoever_waits_first() {
        let (foreign, own) = (runtime(), runtime());
        let kernel = own.block_on(crate::Kernel::builder().start()).unwrap();
        let _wait = abandoned(&foreign, kernel.clock());
        assert!(own.block_on(ends(kernel.clock())));
    }

    #[test]
    fn a_kernel_takes_the_sweep_over_from_who_has_waited_before() {
        let (foreign, own, clock) = (runtime(), runtime(), Clock::system());
        let _wait = abandoned(&foreign, &clock);
        let kernel = own.block_on(crate::Kernel::builder().clock(clock).start()).unwrap();
        assert!(own.block_on(ends(kernel.clock())));
    }

    #[test]
    fn a_runtime_without_a_timer_has_deadlines_where_there_is_a_kernel() {
        let bare = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let own = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_time()
            .build()
            .unwrap();
        let kernel = own.block_on(crate::Kernel::builder().start()).unwrap();
        let clock = kernel.clock().clone();
        let soon = clock.now() + Duration::from_millis(1);
        let patience = own.spawn({
            let clock = clock.clone();
            async move { clock.sleep(Duration::from_secs(20)).await }
        });
        let ends = bare.block_on(async {
            tokio::select! {
                late = clock.before(soon, std::future::pending::<()>()) => late == Err(Elapsed),
                _ = patience => false,
            }
        });
        assert!(ends);
    }

    #[test]
    fn who_waits_goes_on_when_the_runtime_of_the_sweep_ends() {
        let (first, second, clock) = (runtime(), runtime(), Clock::system());
        let _wait = abandoned(&first, &clock);
        assert!(!clock.0.sweep.is_parked());
        let mut first = Some(first);
        let goes_on = second.block_on(async {
            let mut ends = std::pin::pin!(ends(&clock));
            let begun = std::future::poll_fn(|cx| Poll::Ready(ends.as_mut().poll(cx))).await;
            assert!(begun.is_pending());
            if let Some(first) = first.take() {
                first.shutdown_background();
            }
            ends.await
        });
        assert!(goes_on);
    }

    #[test]
    fn a_clock_outlives_the_runtime_of_its_kernel() {
        let (own, other) = (runtime(), runtime());
        let kernel = own.block_on(crate::Kernel::builder().start()).unwrap();
        let clock = kernel.clock().clone();
        drop(own);
        assert!(other.block_on(ends(&clock)));
    }

    #[tokio::test]
    async fn a_parked_sweep_starts_again() {
        let clock = Clock::system();
        for _ in 0..2 {
            let at = clock.now() + Duration::from_millis(1);
            assert_eq!(clock.before(at, std::future::pending::<()>()).await, Err(Elapsed));
            while !clock.0.sweep.is_parked() {
                clock.sleep(Duration::from_millis(20)).await;
            }
        }
    }
}
