//! Messages, calls, starts, restarts and memory of actors, beside plain `ractor` and plain tokio.
//!
//! Ours carries all that the product has: header, capability, deadline, bounded mailbox, trail,
//! panic boundary, and an observer that counts. `ractor` is the same version with the same features
//! and nothing around it; tokio is a task, a bounded channel and a oneshot: the limit.

mod channels;
mod ours;
mod plain;

use std::process::Command;
use std::time::Duration;

use channels::Channels;
use futures_util::future::BoxFuture;
use ours::Ours;
use plain::Plain;

use crate::support::{Aim, Arguments, Figure, Samples, Unit, child_arguments, on_workers};

pub(crate) const FIGURES: &[&str] = &[TELL, CALL, SINGLE, GRANTED, SPAWN, RESTART, MEMORY];

const TELL: &str = "kernel/tell";
const CALL: &str = "kernel/call";
const SINGLE: &str = "kernel/call-single";
const GRANTED: &str = "kernel/call-granted";
const SPAWN: &str = "kernel/spawn";
const RESTART: &str = "kernel/restart";
const MEMORY: &str = "kernel/memory";

/// Messages of one `tell` sample: many times the mailbox, so that its bound is part of the figure.
const TELLS: usize = 10_000;
/// Calls of one `call` sample: one alone is shorter than what the clock resolves well.
const CALLS: usize = 1_000;
/// Calls timed alone in each round, for the tail that a mean over many hides.
const SINGLE_CALLS: usize = 50;
/// Actors started for one `spawn` sample.
const SPAWNS: usize = 200;
/// Idle actors whose memory is measured.
const IDLE: usize = 100_000;
/// Processes that memory is measured in: it hardly varies.
const MEMORY_ROUNDS: usize = 3;

const RACTOR: &str = "ractor";
const RACTOR_TIMEOUT: &str = "ractor with its timeout";
const CHANNEL: &str = "tokio mpsc";
const ONESHOT: &str = "tokio mpsc + oneshot";

pub(crate) fn measure(arguments: &Arguments) -> Vec<Figure> {
    let mut figures = Vec::new();
    let wants = FIGURES.iter().filter(|figure| arguments.wants(figure)).copied();
    let wants: Vec<&'static str> = wants.collect();
    if wants.iter().any(|figure| *figure != MEMORY) {
        let iterations = arguments.iterations;
        let wants = wants.clone();
        figures.extend(on_workers(async move { rounds(&wants, iterations).await }));
    }
    if wants.contains(&MEMORY) {
        figures.push(memory(arguments.iterations.min(MEMORY_ROUNDS)));
    }
    figures
}

async fn rounds(wants: &[&'static str], iterations: usize) -> Vec<Figure> {
    let contestants = Contestants {
        ours: Ours::start().await,
        plain: Plain::start().await,
        channels: Channels::start(),
    };
    let mut figures = Vec::new();
    for figure in wants {
        figures.extend(contestants.figure(figure, iterations).await);
    }
    contestants.ours.stop().await;
    figures
}

struct Contestants {
    ours: Ours,
    plain: Plain,
    channels: Channels,
}

impl Contestants {
    async fn figure(&self, name: &str, iterations: usize) -> Option<Figure> {
        let Self { ours, plain, channels } = self;
        let figure = match name {
            TELL => {
                let [ours, plain, channels] = interleave(iterations, TELLS, |at| {
                    Box::pin(async move {
                        match at {
                            0 => ours.tell(TELLS).await,
                            1 => plain.tell(TELLS).await,
                            _ => channels.tell(TELLS).await,
                        }
                    })
                })
                .await;
                Figure::new(name, Aim::None, &ours)
                    .beside(RACTOR, &plain)
                    .beside(CHANNEL, &channels)
            }
            CALL => {
                let [ours, plain, timeout, channels] = interleave(iterations, CALLS, |at| {
                    Box::pin(async move {
                        match at {
                            0 => ours.call(CALLS).await,
                            1 => plain.call(CALLS, None).await,
                            2 => plain.call(CALLS, Some(TIMEOUT)).await,
                            _ => channels.call(CALLS).await,
                        }
                    })
                })
                .await;
                Figure::new(name, CALL_AIM, &ours)
                    .beside(RACTOR, &plain)
                    .beside(RACTOR_TIMEOUT, &timeout)
                    .beside(ONESHOT, &channels)
            }
            SINGLE => {
                let iterations = iterations * SINGLE_CALLS;
                let [ours, plain, timeout, channels] = interleave(iterations, 1, |at| {
                    Box::pin(async move {
                        match at {
                            0 => ours.call(1).await,
                            1 => plain.call(1, None).await,
                            2 => plain.call(1, Some(TIMEOUT)).await,
                            _ => channels.call(1).await,
                        }
                    })
                })
                .await;
                Figure::new(name, Aim::None, &ours)
                    .beside(RACTOR, &plain)
                    .beside(RACTOR_TIMEOUT, &timeout)
                    .beside(ONESHOT, &channels)
            }
            GRANTED => {
                let [granted, owner] = interleave(iterations, CALLS, |at| {
                    Box::pin(async move {
                        match at {
                            0 => ours.call_granted(CALLS).await,
                            _ => ours.call(CALLS).await,
                        }
                    })
                })
                .await;
                Figure::new(name, Aim::None, &granted).beside("ours, not attenuated", &owner)
            }
            SPAWN => {
                let [ours, plain, channels] = interleave(iterations, SPAWNS, |at| {
                    Box::pin(async move {
                        match at {
                            0 => ours.spawn(SPAWNS).await,
                            1 => plain.spawn(SPAWNS).await,
                            _ => channels.spawn(SPAWNS).await,
                        }
                    })
                })
                .await;
                Figure::new(name, Aim::None, &ours)
                    .beside(RACTOR, &plain)
                    .beside("tokio task + mpsc", &channels)
            }
            RESTART => {
                let [ours, plain] = interleave(iterations, 1, |at| {
                    Box::pin(async move {
                        match at {
                            0 => ours.restart().await,
                            _ => plain.restart().await,
                        }
                    })
                })
                .await;
                Figure::new(name, Aim::None, &ours).beside("ractor, supervised by hand", &plain)
            }
            _ => return None,
        };
        Some(figure)
    }
}

/// All our bookkeeping included, a call costs at most this much of plain `ractor`'s without timeout.
const CALL_AIM: Aim = Aim::Ratio(1.3);

/// As long as the kernel's own deadline of a call that names none.
const TIMEOUT: Duration = neuroflow::kernel::limits::CALL_DEADLINE;

type Turn<'a> = BoxFuture<'a, Duration>;

/// In each round each of `N` contestants has its turn, each round another one first. The first
/// round warms up and isn't counted.
async fn interleave<'a, const N: usize>(
    iterations: usize,
    operations: usize,
    turn: impl Fn(usize) -> Turn<'a>,
) -> [Samples; N] {
    let mut samples = std::array::from_fn(|_| Samples::new(Unit::Nanoseconds));
    for round in 0..=iterations {
        for at in 0..N {
            let contestant = (at + round) % N;
            let took = turn(contestant).await;
            if round > 0 {
                samples[contestant].took(took, operations);
            }
        }
    }
    samples
}

/// Resident memory of an idle actor that has handled one message, each contestant in fresh
/// processes of its own.
fn memory(rounds: usize) -> Figure {
    let mut samples = [OURS, RACTOR, CHANNEL].map(|_| Samples::new(Unit::Bytes));
    for _ in 0..rounds {
        for (contestant, samples) in [OURS, RACTOR, CHANNEL].iter().zip(&mut samples) {
            let own = std::env::current_exe().expect("the benchmark's own path");
            let child = Command::new(own).args(child_arguments(contestant, IDLE)).output();
            let output = child.expect("the benchmark starts itself");
            let text = String::from_utf8_lossy(&output.stdout);
            let complaint = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{contestant} failed: {complaint}");
            samples.push(text.trim().parse().expect("the child prints a number"));
        }
    }
    let [ours, plain, channels] = &samples;
    Figure::new(MEMORY, MEMORY_AIM, ours).beside(RACTOR, plain).beside(CHANNEL, channels)
}

/// What our part of an idle actor may cost beyond `ractor`'s.
const MEMORY_AIM: Aim = Aim::Beyond(2_048.0);

const OURS: &str = "ours";

/// Prints the memory of one of `count` idle actors: the whole work of a child process.
pub(crate) fn child(contestant: &str, count: usize) {
    let bytes = match contestant {
        OURS => on_workers(Ours::idle(count)),
        RACTOR => on_workers(Plain::idle(count)),
        CHANNEL => on_workers(Channels::idle(count)),
        other => panic!("there is no contestant {other}"),
    };
    println!("{bytes}");
}
