//! The clock and its double: every wait of the kernel ends when a test says so.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use neuroflow_kernel::{Clock, Elapsed, ManualClock, Moment};

use crate::probe::{SECOND, hangs, soon};

#[tokio::test]
async fn time_stands_still_until_it_is_moved() {
    let time = ManualClock::new();
    let clock = time.clock();
    assert_eq!(clock.now(), Moment::ORIGIN);
    let wall = clock.wall();
    let mut sleep: Pin<Box<dyn Future<Output = ()>>> = Box::pin(clock.sleep(SECOND));
    assert!(hangs(&mut sleep).await);
    time.advance(SECOND);
    soon(sleep).await;
    assert_eq!(clock.now(), Moment::ORIGIN + SECOND);
    assert_eq!(clock.wall().duration_since(wall).unwrap(), SECOND);
}

#[tokio::test]
async fn a_moment_that_is_past_is_not_waited_for() {
    let time = ManualClock::new();
    time.advance(SECOND);
    soon(time.clock().sleep_until(Moment::ORIGIN)).await;
    let past = time.clock().before(Moment::ORIGIN, std::future::pending::<()>()).await;
    assert_eq!(past, Err(Elapsed));
    // What is ready wins against its deadline.
    assert_eq!(time.clock().before(Moment::ORIGIN, async { 1 }).await, Ok(1));
}

#[tokio::test]
async fn everyone_whose_time_has_come_is_woken_and_nobody_else() {
    let time = ManualClock::new();
    let woken = Arc::new(AtomicUsize::new(0));
    let mut sleeps = tokio::task::JoinSet::new();
    for second in 1..=1_000_u32 {
        let (clock, woken) = (time.clock(), Arc::clone(&woken));
        sleeps.spawn(async move {
            clock.sleep_until(Moment::ORIGIN + SECOND * second).await;
            woken.fetch_add(1, Ordering::SeqCst);
        });
    }
    for _ in 0..10 {
        crate::probe::settle().await;
        time.advance(SECOND * 100);
    }
    crate::probe::until(|| woken.load(Ordering::SeqCst) == 1_000).await;
    while sleeps.join_next().await.is_some() {}
}

/// Waiters come and go on several threads while the sweep parks and starts again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_wake_up_of_the_shared_sweep_is_lost() {
    let clock = Clock::system();
    let mut waits = tokio::task::JoinSet::new();
    for task in 0..64_u32 {
        let clock = clock.clone();
        waits.spawn(async move {
            for turn in 0..20 {
                let soon = clock.now() + SECOND / 1_000 * ((task + turn) % 7);
                let late = clock.before(soon, std::future::pending::<()>()).await;
                assert_eq!(late, Err(Elapsed));
                let _ready = clock.before(soon + SECOND, async {}).await;
            }
        });
    }
    while let Some(done) = waits.join_next().await {
        done.unwrap();
    }
}
