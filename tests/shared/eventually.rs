//! Waiting for what has to become so: for how long is said here, once, and who waited in vain says for what.
//!
//! Included by the test programs of several crates.
#![allow(dead_code, reason = "each test program waits in ways of its own")]

use std::{
    fmt::Display,
    panic::Location,
    time::{Duration, Instant},
};

/// More than any loaded machine has needed. Nothing but a failure takes as long.
const PATIENCE: Duration = Duration::from_secs(90);

/// Between two looks, some of which are at all processes of the machine.
const PAUSE: Duration = Duration::from_millis(10);

/// Waits until `is_so`; `what` is what didn't happen otherwise.
pub(crate) async fn eventually(what: impl Display, mut is_so: impl FnMut() -> bool) {
    let wait = Wait::begin();
    while !is_so() {
        wait.goes_on(&what);
        pause().await;
    }
}

/// The same, of what has to be asked for.
pub(crate) async fn eventually_async(what: impl Display, mut is_so: impl AsyncFnMut() -> bool) {
    let wait = Wait::begin();
    while !is_so().await {
        wait.goes_on(&what);
        pause().await;
    }
}

/// The same, of a thread.
pub(crate) fn eventually_blocking(what: impl Display, mut is_so: impl FnMut() -> bool) {
    let wait = Wait::begin();
    while !is_so() {
        wait.goes_on(&what);
        std::thread::sleep(PAUSE);
    }
}

/// Waits until `is_so`, where the line that says so is clear enough.
#[track_caller]
pub(crate) fn until(is_so: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let line = Location::caller();
    eventually(format!("what is waited for in {line}"), is_so)
}

struct Wait(Instant);

impl Wait {
    #[expect(clippy::disallowed_methods, reason = "tests wait for real processes")]
    fn begin() -> Self {
        Self(Instant::now())
    }

    fn goes_on(&self, what: &dyn Display) {
        assert!(self.0.elapsed() < PATIENCE, "{what} didn't happen within {PATIENCE:?}");
    }
}

#[expect(clippy::disallowed_methods, reason = "tests wait for real processes")]
async fn pause() {
    tokio::time::sleep(PAUSE).await;
}
