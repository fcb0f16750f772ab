//! A task, a bounded channel and a oneshot: what an actor can't be cheaper than.

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::ours::{as_number, sum_below};
use super::plain::grown_per_actor;

pub(super) struct Channels {
    counter: mpsc::Sender<Command>,
}

impl Channels {
    pub(super) fn start() -> Self {
        Self { counter: counter() }
    }

    pub(super) async fn tell(&self, count: usize) -> Duration {
        let before = self.total().await;
        let begun = Instant::now();
        for number in 0..as_number(count) {
            self.counter.send(Command::Add(number)).await.expect("the task lives");
        }
        let total = self.total().await;
        let took = begun.elapsed();
        assert_eq!(total - before, sum_below(count), "every message was counted once");
        took
    }

    async fn total(&self) -> u64 {
        let (reply, answer) = oneshot::channel();
        self.counter.send(Command::Total(reply)).await.expect("the task lives");
        answer.await.expect("the task answers")
    }

    pub(super) async fn call(&self, count: usize) -> Duration {
        let begun = Instant::now();
        for number in 0..as_number(count) {
            assert_eq!(double(&self.counter, number).await, number * 2, "the answer is right");
        }
        begun.elapsed()
    }

    pub(super) async fn spawn(&self, count: usize) -> Duration {
        let mut children = Vec::with_capacity(count);
        let begun = Instant::now();
        for _ in 0..count {
            children.push(counter());
        }
        let took = begun.elapsed();
        for child in children {
            assert_eq!(double(&child, 1).await, 2, "every task lives");
        }
        took
    }

    pub(super) async fn idle(count: usize) -> u64 {
        let mut children = Vec::with_capacity(count);
        let begin = async {
            for _ in 0..count {
                let child = counter();
                assert_eq!(double(&child, 1).await, 2, "every task lives");
                children.push(child);
            }
            children.len()
        };
        grown_per_actor(count, begin).await
    }
}

async fn double(counter: &mpsc::Sender<Command>, number: u64) -> u64 {
    let (reply, answer) = oneshot::channel();
    counter.send(Command::Double(number, reply)).await.expect("the task lives");
    answer.await.expect("the task answers")
}

enum Command {
    Add(u64),
    Double(u64, oneshot::Sender<u64>),
    Total(oneshot::Sender<u64>),
}

fn counter() -> mpsc::Sender<Command> {
    let (counter, mut commands) = mpsc::channel(neuroflow::kernel::limits::MAILBOX_CAPACITY);
    tokio::spawn(async move {
        let mut total = 0;
        while let Some(command) = commands.recv().await {
            match command {
                Command::Add(number) => total += number,
                Command::Double(number, reply) => {
                    reply.send(number * 2).expect("the caller waits");
                }
                Command::Total(reply) => reply.send(total).expect("the caller waits"),
            }
        }
    });
    counter
}
