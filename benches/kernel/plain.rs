//! Plain `ractor`: its own actors, without anything of ours.

#![expect(
    clippy::ok_expect,
    clippy::match_wild_err_arm,
    reason = "ractor's errors hold the message, which can't be printed"
)]

use std::any::Any;
use std::panic::panic_any;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use ractor::rpc::CallResult;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use tokio::sync::Notify;

use super::ours::{as_number, sum_below};
use crate::support::resident_bytes;

pub(super) struct Plain {
    counter: ActorRef<Command>,
    nursery: ActorRef<Nurse>,
    fragile: Arc<Fragile>,
}

/// What a program has to keep by itself to reach an actor across its restarts.
struct Fragile {
    current: RwLock<ActorRef<Command>>,
    changed: Notify,
    crashed: CrashTime,
}

type CrashTime = Arc<Mutex<Option<Instant>>>;

impl Plain {
    pub(super) async fn start() -> Self {
        silence_crashes();
        let (counter, _task) =
            Actor::spawn(None, Counter, CrashTime::default()).await.expect("the actor starts");
        let (nursery, _task) = Actor::spawn(None, Nursery, ()).await.expect("the actor starts");
        let (ready, fragile) = tokio::sync::oneshot::channel();
        Actor::spawn(None, Guardian, ready).await.expect("the actor starts");
        let fragile = fragile.await.expect("the guardian has started its child");
        Self { counter, nursery, fragile }
    }

    pub(super) async fn tell(&self, count: usize) -> Duration {
        let before = self.total().await;
        let begun = Instant::now();
        for number in 0..as_number(count) {
            self.counter.send_message(Command::Add(number)).ok().expect("the actor lives");
        }
        let total = self.total().await;
        let took = begun.elapsed();
        assert_eq!(total - before, sum_below(count), "every message was counted once");
        took
    }

    async fn total(&self) -> u64 {
        answered(self.counter.call(Command::Total, None).await)
    }

    pub(super) async fn call(&self, count: usize, timeout: Option<Duration>) -> Duration {
        let begun = Instant::now();
        for number in 0..as_number(count) {
            let doubled = self.counter.call(|reply| Command::Double(number, reply), timeout).await;
            assert_eq!(answered(doubled), number * 2, "the answer is right");
        }
        begun.elapsed()
    }

    pub(super) async fn spawn(&self, count: usize) -> Duration {
        let began = |reply| Nurse::Begin { count, greet: false, reply };
        let born = answered(self.nursery.call(began, None).await);
        assert_eq!(born.living, count, "every child lives");
        let left = answered(self.nursery.call(Nurse::Clear, None).await);
        assert_eq!(left, 0, "no child is left");
        born.took
    }

    pub(super) async fn restart(&self) -> Duration {
        let former = self.fragile.current().get_id();
        self.fragile.current().send_message(Command::Crash).ok().expect("the actor lives");
        loop {
            let changed = self.fragile.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            let current = self.fragile.current();
            let doubled = current.call(|reply| Command::Double(7, reply), None).await;
            if let Ok(CallResult::Success(doubled)) = doubled {
                let ended = Instant::now();
                assert_eq!(doubled, 14, "the answer is right");
                assert_ne!(current.get_id(), former, "by the next life");
                let crashed = &self.fragile.crashed;
                let begun = crashed.lock().unwrap_or_else(PoisonError::into_inner).take();
                return ended - begun.expect("the panic was timed");
            }
            if current.get_id() == former {
                changed.await;
            }
        }
    }

    pub(super) async fn idle(count: usize) -> u64 {
        let plain = Self::start().await;
        let nursery = plain.nursery.clone();
        let begin = async move {
            let began = |reply| Nurse::Begin { count, greet: true, reply };
            answered(nursery.call(began, None).await).living
        };
        grown_per_actor(count, begin).await
    }
}

impl Fragile {
    fn current(&self) -> ActorRef<Command> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn answered<T, M>(answer: Result<CallResult<T>, ractor::MessagingErr<M>>) -> T {
    match answer {
        Ok(CallResult::Success(value)) => value,
        Ok(_) => panic!("the actor didn't answer"),
        Err(_) => panic!("the actor has ended"),
    }
}

enum Command {
    Add(u64),
    Double(u64, RpcReplyPort<u64>),
    Total(RpcReplyPort<u64>),
    Crash,
}

struct Counter;

struct Count {
    total: u64,
    crashed: CrashTime,
}

impl Actor for Counter {
    type Msg = Command;
    type State = Count;
    type Arguments = CrashTime;

    async fn pre_start(
        &self,
        _myself: ActorRef<Command>,
        crashed: CrashTime,
    ) -> Result<Count, ActorProcessingErr> {
        Ok(Count { total: 0, crashed })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Command>,
        command: Command,
        count: &mut Count,
    ) -> Result<(), ActorProcessingErr> {
        match command {
            Command::Add(number) => count.total += number,
            Command::Double(number, reply) => {
                reply.send(number * 2).ok().expect("the caller waits");
            }
            Command::Total(reply) => reply.send(count.total).ok().expect("the caller waits"),
            Command::Crash => {
                let mut crashed = count.crashed.lock().unwrap_or_else(PoisonError::into_inner);
                *crashed = Some(Instant::now());
                drop(crashed);
                panic_any(Crash);
            }
        }
        Ok(())
    }
}

enum Nurse {
    Begin { count: usize, greet: bool, reply: RpcReplyPort<Born> },
    Clear(RpcReplyPort<usize>),
}

struct Born {
    took: Duration,
    living: usize,
}

/// Starts children.
struct Nursery;

impl Actor for Nursery {
    type Msg = Nurse;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Nurse>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<Nurse>,
        nurse: Nurse,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        match nurse {
            Nurse::Begin { count, greet, reply } => {
                let begun = Instant::now();
                for _ in 0..count {
                    let crashed = CrashTime::default();
                    let child = Actor::spawn_linked(None, Counter, crashed, myself.get_cell());
                    let (child, _task) = child.await.expect("the child starts");
                    if greet {
                        let doubled = child.call(|reply| Command::Double(1, reply), None).await;
                        assert_eq!(answered(doubled), 2);
                    }
                }
                let took = begun.elapsed();
                let born = Born { took, living: myself.get_children().len() };
                reply.send(born).ok().expect("the caller waits");
            }
            Nurse::Clear(reply) => {
                myself.stop_children_and_wait(None, None).await;
                reply.send(myself.get_children().len()).ok().expect("the caller waits");
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<Nurse>,
        _event: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

/// The least that restarts an actor and tells where it's now.
struct Guardian;

impl Actor for Guardian {
    type Msg = ();
    type State = Arc<Fragile>;
    type Arguments = tokio::sync::oneshot::Sender<Arc<Fragile>>;

    async fn pre_start(
        &self,
        myself: ActorRef<()>,
        ready: Self::Arguments,
    ) -> Result<Arc<Fragile>, ActorProcessingErr> {
        let crashed = CrashTime::default();
        let arguments = Arc::clone(&crashed);
        let (first, _task) =
            Actor::spawn_linked(None, Counter, arguments, myself.get_cell()).await?;
        let fragile =
            Arc::new(Fragile { current: RwLock::new(first), changed: Notify::new(), crashed });
        ready.send(Arc::clone(&fragile)).ok().expect("the benchmark waits");
        Ok(fragile)
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<()>,
        event: SupervisionEvent,
        fragile: &mut Arc<Fragile>,
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorFailed(..) = event {
            let crashed = Arc::clone(&fragile.crashed);
            let (next, _task) =
                Actor::spawn_linked(None, Counter, crashed, myself.get_cell()).await?;
            *fragile.current.write().unwrap_or_else(PoisonError::into_inner) = next;
            fragile.changed.notify_waiters();
        }
        Ok(())
    }
}

/// What the restarted actors panic with.
pub(super) struct Crash;

/// Panics that are part of the benchmark print nothing; all others do.
pub(super) fn silence_crashes() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let payload: &dyn Any = panic.payload();
            if !payload.is::<Crash>() {
                loud(panic);
            }
        }));
    });
}

/// Bytes of resident memory for each of the `count` actors that `begin` starts.
pub(super) async fn grown_per_actor(count: usize, begin: impl Future<Output = usize>) -> u64 {
    let before = resident_bytes("self");
    assert_eq!(begin.await, count, "every actor lives");
    (resident_bytes("self") - before) / as_number(count)
}
