//! The kernel's actors.

use std::convert::Infallible;
use std::panic::panic_any;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use neuroflow::kernel::{
    Actor, Address, Backoff, ChildSpec, Context, Header, Intensity, Kernel, Message, Name,
    Observer, Reply, RestartPolicy, Restriction, Rights, Spawn, Supervisor,
};

use crate::counting::Counting;

use super::plain::{Crash, grown_per_actor, silence_crashes};

/// A kernel with what is measured in it.
pub(super) struct Ours {
    kernel: Kernel,
    observer: Arc<Counting>,
    /// Follows the name, as every address does that a supervisor's child has.
    counter: Address<Command>,
    granted: Address<Command>,
    nursery: Address<Nurse>,
    fragile: Address<Command>,
    crashed: CrashTime,
}

type CrashTime = Arc<Mutex<Option<Instant>>>;

impl Ours {
    pub(super) async fn start() -> Self {
        silence_crashes();
        let observer = Arc::new(Counting::default());
        let kernel = Kernel::builder().observer(Arc::clone(&observer) as Arc<dyn Observer>);
        let kernel = kernel.start().await.expect("a kernel starts");
        let often = Intensity { restarts: u32::MAX, within: Duration::from_secs(1) };
        let policy =
            RestartPolicy { intensity: often, backoff: Backoff::NONE, ..RestartPolicy::default() };
        let (supervisor, spec) =
            Supervisor::spec("bench", policy, Vec::new()).expect("a valid name");
        kernel.root().start(spec).await.expect("a supervisor starts");
        let crashed = CrashTime::default();
        let counter = add(&supervisor, "counter", Counter::default).await;
        let nursery = add(&supervisor, "nursery", || Nursery).await;
        let time = Arc::clone(&crashed);
        let fragile =
            add(&supervisor, "fragile", move || Counter { total: 0, crashed: Arc::clone(&time) });
        let fragile = fragile.await;
        let restriction = Restriction::new().rights(Rights::bit(0));
        let granted = counter.attenuate(restriction).expect("a first derivation");
        Self { kernel, observer, counter, granted, nursery, fragile, crashed }
    }

    /// Time in which one producer sends `count` messages and the actor has added them up.
    pub(super) async fn tell(&self, count: usize) -> Duration {
        let before = self.total().await;
        let begun = Instant::now();
        for number in 0..as_number(count) {
            let told = self.counter.tell(Header::new(), Command::Add(number)).await;
            told.expect("a mailbox that is emptied has room in time");
        }
        let total = self.total().await;
        let took = begun.elapsed();
        assert_eq!(total - before, sum_below(count), "every message was counted once");
        took
    }

    async fn total(&self) -> u64 {
        self.counter.call(Header::new(), Command::Total).await.expect("the counter answers")
    }

    pub(super) async fn call(&self, count: usize) -> Duration {
        call(&self.counter, count).await
    }

    pub(super) async fn call_granted(&self, count: usize) -> Duration {
        call(&self.granted, count).await
    }

    /// Time in which an actor starts `count` children, one after another.
    pub(super) async fn spawn(&self, count: usize) -> Duration {
        let began = |reply| Nurse::Begin { count, greet: false, reply };
        let born = self.nursery.call(Header::new(), began).await.expect("the children start");
        assert_eq!(born.living, count, "every child lives");
        let left = self.nursery.call(Header::new(), Nurse::Clear).await.expect("children stop");
        assert_eq!(left, 0, "no child is left");
        born.took
    }

    /// Time from a panic to the first answer of the next life, through the name.
    pub(super) async fn restart(&self) -> Duration {
        let former = self.fragile.generation().expect("the actor lives");
        self.fragile.tell(Header::new(), Command::Crash).await.expect("the crash is taken");
        loop {
            // Until the panic has happened a call still enters the life that will end by it.
            let answered = self.fragile.call(Header::new(), |reply| Command::Double(7, reply));
            if let Ok(doubled) = answered.await {
                let ended = Instant::now();
                assert_eq!(doubled, 14, "the answer is right");
                assert_eq!(self.fragile.generation(), Some(former.next()), "by the next life");
                let begun = self.crashed.lock().unwrap_or_else(PoisonError::into_inner).take();
                return ended - begun.expect("the panic was timed");
            }
        }
    }

    /// Bytes of resident memory that one of `count` idle actors costs.
    pub(super) async fn idle(count: usize) -> u64 {
        let ours = Self::start().await;
        let nursery = ours.nursery.clone();
        let begin = async move {
            let began = |reply| Nurse::Begin { count, greet: true, reply };
            nursery.call(Header::new(), began).await.expect("the children start").living
        };
        let bytes = grown_per_actor(count, begin).await;
        assert!(ours.kernel.tree().len() > count, "all of them are in the tree");
        ours.kernel.stop_within(Duration::from_mins(1)).await;
        bytes
    }

    pub(super) async fn stop(self) {
        self.kernel.stop().await;
        assert_ne!(self.observer.handled(), 0, "the observer has counted");
    }
}

async fn add<A: Actor>(
    supervisor: &Supervisor,
    name: &str,
    factory: impl Fn() -> A + Send + Sync + 'static,
) -> Address<A::Message> {
    let (spec, address) = ChildSpec::new(name, factory).expect("a valid name");
    supervisor.start(spec).await.expect("the actor starts");
    address
}

async fn call(counter: &Address<Command>, count: usize) -> Duration {
    let begun = Instant::now();
    for number in 0..as_number(count) {
        let doubled = counter.call(Header::new(), |reply| Command::Double(number, reply)).await;
        assert_eq!(doubled.expect("the counter answers"), number * 2, "the answer is right");
    }
    begun.elapsed()
}

pub(super) fn as_number(count: usize) -> u64 {
    u64::try_from(count).expect("a count fits")
}

pub(super) fn sum_below(count: usize) -> u64 {
    (0..as_number(count)).sum()
}

enum Command {
    Add(u64),
    Double(u64, Reply<u64>),
    Total(Reply<u64>),
    Crash,
}

impl Message for Command {
    fn name(&self) -> &'static str {
        match self {
            Self::Add(_) => "add",
            Self::Double(..) => "double",
            Self::Total(_) => "total",
            Self::Crash => "crash",
        }
    }

    fn required_rights(&self) -> Rights {
        Rights::bit(0)
    }
}

#[derive(Default)]
struct Counter {
    total: u64,
    crashed: CrashTime,
}

impl Actor for Counter {
    type Message = Command;
    type Error = Infallible;
    const KIND: &'static str = "counter";

    async fn handle(
        &mut self,
        command: Command,
        _context: &mut Context<Command>,
    ) -> Result<(), Infallible> {
        match command {
            Command::Add(number) => self.total += number,
            Command::Double(number, reply) => reply.send(number * 2).expect("the caller waits"),
            Command::Total(reply) => reply.send(self.total).expect("the caller waits"),
            Command::Crash => {
                *self.crashed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                panic_any(Crash);
            }
        }
        Ok(())
    }
}

enum Nurse {
    Begin { count: usize, greet: bool, reply: Reply<Born> },
    Clear(Reply<usize>),
}

struct Born {
    took: Duration,
    living: usize,
}

impl Message for Nurse {
    fn name(&self) -> &'static str {
        match self {
            Self::Begin { .. } => "begin",
            Self::Clear(_) => "clear",
        }
    }
}

/// Starts children.
struct Nursery;

impl Actor for Nursery {
    type Message = Nurse;
    type Error = Infallible;
    const KIND: &'static str = "nursery";

    async fn handle(
        &mut self,
        nurse: Nurse,
        context: &mut Context<Nurse>,
    ) -> Result<(), Infallible> {
        match nurse {
            Nurse::Begin { count, greet, reply } => {
                let begun = Instant::now();
                for number in 0..count {
                    let name = Name::new(format!("child-{number}")).expect("a valid name");
                    let child = context.spawn(name, Counter::default(), Spawn::default()).await;
                    let child = child.expect("the child starts");
                    if greet {
                        let doubled =
                            child.call(Header::new(), |reply| Command::Double(1, reply)).await;
                        assert_eq!(doubled.expect("the child answers"), 2);
                    }
                }
                let born = Born { took: begun.elapsed(), living: context.child_count() };
                reply.send(born).ok().expect("the caller waits");
            }
            Nurse::Clear(reply) => {
                context.stop_children().await;
                reply.send(context.child_count()).expect("the caller waits");
            }
        }
        Ok(())
    }
}
