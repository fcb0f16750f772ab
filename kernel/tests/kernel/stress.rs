//! Many producers, random panics, stops and restarts: every call ends, and no place is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use neuroflow_kernel::{
    Address, Backoff, CallError, ChildSpec, Clock, Header, Intensity, Kernel, Refusal,
    RestartPolicy, Spawn, Strategy,
};

use crate::probe::{Do, Log, Probe, SECOND};

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        // Knuth's MMIX generator; its high bits are the good ones.
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

async fn kernel() -> Kernel {
    let policy = RestartPolicy {
        strategy: Strategy::OneForOne,
        intensity: Intensity { restarts: u32::MAX, within: SECOND },
        backoff: Backoff::NONE,
    };
    Kernel::builder().policy(policy).start().await.unwrap()
}

async fn start(kernel: &Kernel, name: &str, room: usize) -> Address<Do> {
    let log = Log::default();
    let own = name.to_owned();
    let (spec, address) = ChildSpec::new(name, move || Probe::new(&own, &log)).unwrap();
    kernel.root().start(spec.mailbox(room)).await.unwrap();
    address
}

/// What a call may end with; anything else is a bug.
fn lawful(ended: Result<u64, CallError>) -> bool {
    match ended {
        Ok(_) | Err(CallError::Panicked | CallError::Unanswered) => true,
        Err(CallError::Refused(refusal)) => matches!(
            refusal,
            Refusal::Stale { .. } | Refusal::Overloaded { .. } | Refusal::Restarting
        ),
        Err(_) => false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_call_ends_and_no_place_is_lost() {
    const PRODUCERS: u64 = 16;
    const ROUNDS: u64 = 600;
    let kernel = kernel().await;
    let mut targets = Vec::new();
    for (name, room) in [("small", 1), ("medium", 4), ("large", 1_000)] {
        targets.push(start(&kernel, name, room).await);
    }
    let counts = Arc::new([const { AtomicUsize::new(0) }; 3]);
    let mut producers = tokio::task::JoinSet::new();
    for seed in 0..PRODUCERS {
        let (targets, counts, clock) =
            (targets.clone(), Arc::clone(&counts), kernel.clock().clone());
        producers.spawn(async move {
            let mut dice = Dice(seed);
            for _ in 0..ROUNDS {
                let target = &targets[usize::try_from(dice.roll(3)).unwrap()];
                // Far longer than the test: a call that ends by it has hung.
                let header = Header::new().within(&clock, SECOND * 600);
                let life = match dice.roll(2) {
                    0 => target.this_life().unwrap_or_else(|_between| target.clone()),
                    _ => target.clone(),
                };
                let ended = match dice.roll(40) {
                    0 => life.call(header, Do::Panic).await,
                    1 => life.call(header, Do::Fail).await,
                    2 => life.call(header, Do::LetGo).await,
                    3 => {
                        let _maybe = life.try_tell(header, Do::Stop);
                        continue;
                    }
                    4 => {
                        // Cancelled, at any point of its way.
                        let call = life.call(header, |reply| Do::Echo(1, reply));
                        tokio::select! {
                            biased;
                            ended = call => ended,
                            () = tokio::task::yield_now() => continue,
                        }
                    }
                    5 => {
                        let _maybe = life.try_tell(header, Do::Note("x"));
                        continue;
                    }
                    _ => life.call(header, |reply| Do::Echo(1, reply)).await,
                };
                let which = match &ended {
                    Ok(_) => 0,
                    Err(CallError::Refused(_)) => 1,
                    Err(_) => 2,
                };
                counts[which].fetch_add(1, Ordering::Relaxed);
                assert!(lawful(ended.clone()), "{ended:?}");
            }
        });
    }
    while let Some(done) = producers.join_next().await {
        done.unwrap();
    }
    // All three kinds of end were really tried.
    assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) > 0), "{counts:?}");
    for target in &targets {
        // Stops that nobody waited for may still be ahead of the call.
        for _ in 0..PRODUCERS * ROUNDS {
            let ended = target.call(Header::new(), |reply| Do::Echo(5, reply)).await;
            assert!(lawful(ended.clone()), "{ended:?}");
            if ended.is_ok() {
                break;
            }
            tokio::task::yield_now().await;
        }
        assert!(matches!(target.call(Header::new(), |reply| Do::Echo(5, reply)).await, Ok(5)));
        assert_eq!(target.mailbox_depth(), 0);
    }
    assert_eq!(kernel.census().count(), 4);
    kernel.stop().await;
    assert_eq!(kernel.census().count(), 0);
}

/// Stops of the whole tree while work comes in from everywhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stop_under_load_ends_every_call() {
    for round in 0..20_u64 {
        let kernel = kernel().await;
        let mut targets = Vec::new();
        for name in ["a", "b", "c", "d"] {
            targets.push(start(&kernel, name, 8).await);
        }
        for parent in &targets {
            for child in ["x", "y"] {
                let probe = Box::new(Probe::new(child, &Log::default()));
                let spawn = |reply| Do::Spawn(probe, Spawn::default(), reply);
                parent.call(Header::new(), spawn).await.unwrap().unwrap();
            }
        }
        let mut producers = tokio::task::JoinSet::new();
        for seed in 0..8 {
            let (targets, clock) = (targets.clone(), kernel.clock().clone());
            producers.spawn(async move {
                let mut dice = Dice(round * 100 + seed);
                loop {
                    let target = &targets[usize::try_from(dice.roll(4)).unwrap()];
                    let header = Header::new().within(&clock, SECOND * 600);
                    let ended = match dice.roll(20) {
                        0 => target.call(header, Do::Panic).await,
                        1 => target.call(header, Do::Keep).await,
                        _ => target.call(header, |reply| Do::Echo(1, reply)).await,
                    };
                    match ended {
                        Err(CallError::Refused(Refusal::Stopped)) => return,
                        Err(CallError::DeadlineExceeded) => panic!("a call has hung"),
                        _ => {}
                    }
                }
            });
        }
        let keeps_going = async {
            Clock::system().sleep(SECOND / 1_000 * u32::try_from(round).unwrap()).await;
            // Kept replies hang until their actor panics or stops.
            match round % 3 {
                0 => drop(kernel),
                1 => kernel.stop().await,
                _ => assert!(kernel.stop_within(SECOND * 60).await),
            }
        };
        keeps_going.await;
        while let Some(done) = producers.join_next().await {
            done.unwrap();
        }
    }
}
