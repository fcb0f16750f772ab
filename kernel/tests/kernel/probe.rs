//! An actor that does what a test tells it, the world that it lives in, and how to wait in it.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use neuroflow_kernel::{
    Actor, Address, CallError, ChildSpec, Context, Ended, Ending, Header, Intensity, Kernel,
    ManualClock, Message, Name, Observer, Reply, RestartPolicy, Rights, Spawn, StartError,
    Strategy, Supervisor, Unobserved,
};
use tokio::sync::Semaphore;

/// What a probe can be told.
pub(crate) enum Do {
    /// Answers with the number.
    Echo(u64, Reply<u64>),
    /// Like an echo, for those who hold [`SECRET`].
    Secret(u64, Reply<u64>),
    /// Writes into the log.
    Note(&'static str),
    /// Answers with the header that came.
    Header(Reply<Header>),
    /// Answers with the generation.
    Generation(Reply<u32>),
    /// Panics with the reply in its hands.
    Panic(Reply<u64>),
    /// Returns an error with the reply in its hands.
    Fail(Reply<u64>),
    /// Keeps the reply unanswered.
    Keep(Reply<u64>),
    /// Drops the reply.
    LetGo(Reply<u64>),
    /// Waits at a gate, then drops what was sent along.
    Wait(Gate, Option<Reply<u64>>),
    /// Says that it's there, then waits until the caller has gone.
    UntilClosed(Gate, Reply<u64>),
    /// Blocks without awaiting, until the gate opens. Needs a runtime of several threads.
    Block(Gate),
    /// Asks another, with the onward header, for the header that comes there.
    Relay(Address<Do>, Reply<Result<Header, CallError>>),
    /// Starts a child.
    Spawn(Box<Probe>, Spawn, Reply<Result<Address<Do>, StartError>>),
    /// Waits at a gate, then starts a child, all in one turn.
    WaitAndSpawn(Gate, Box<Probe>, Reply<Result<Address<Do>, StartError>>),
    /// Starts a supervisor below itself, with children of its own.
    Supervise(Box<(Name, RestartPolicy, Vec<ChildSpec>)>, Reply<Result<Supervisor, StartError>>),
    /// Ends a child.
    KillChild(Name, Reply<bool>),
    /// Runs a task that panics once the gate opens.
    PanicInTask(Gate),
    /// Runs a task that waits at the gate with something that notes its drop.
    Task(Gate, Dropped),
    /// Asks a supervisor to start a child, once the gate opens.
    StartBelow(Gate, Box<(Supervisor, ChildSpec)>),
    /// Stops itself.
    Stop,
}

/// The right that [`Do::Secret`] needs.
pub(crate) const SECRET: Rights = Rights::bit(3);

impl Message for Do {
    fn name(&self) -> &'static str {
        match self {
            Self::Echo(..) => "echo",
            Self::Secret(..) => "secret",
            Self::Note(_) => "note",
            Self::Header(_) => "header",
            Self::Generation(_) => "generation",
            Self::Panic(_) => "panic",
            Self::Fail(_) => "fail",
            Self::Keep(_) => "keep",
            Self::LetGo(_) => "let_go",
            Self::Wait(..) => "wait",
            Self::UntilClosed(..) => "until_closed",
            Self::Block(_) => "block",
            Self::Relay(..) => "relay",
            Self::Spawn(..) => "spawn",
            Self::WaitAndSpawn(..) => "wait_and_spawn",
            Self::Supervise(..) => "supervise",
            Self::KillChild(..) => "kill_child",
            Self::PanicInTask(_) => "panic_in_task",
            Self::Task(..) => "task",
            Self::StartBelow(..) => "start_below",
            Self::Stop => "stop",
        }
    }

    fn required_rights(&self) -> Rights {
        match self {
            Self::Secret(..) => SECRET,
            _ => Rights::NONE,
        }
    }
}

/// Where an actor waits until the test lets it through.
#[derive(Clone)]
pub(crate) struct Gate {
    arrived: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self { arrived: Arc::new(Semaphore::new(0)), open: Arc::new(Semaphore::new(0)) }
    }

    /// For the test: somebody is at the gate.
    pub(crate) async fn arrived(&self) {
        soon(self.arrived.acquire()).await.unwrap().forget();
    }

    /// For a test on several threads: somebody is at the gate, whenever that is.
    pub(crate) async fn reached(&self) {
        self.arrived.acquire().await.unwrap().forget();
    }

    /// For the test: lets everyone through from now on.
    pub(crate) fn open(&self) {
        self.open.close();
    }

    pub(crate) async fn pass(&self) {
        self.arrived.add_permits(1);
        let _open = self.open.acquire().await;
    }

    fn block(&self) {
        self.arrived.add_permits(1);
        while !self.open.is_closed() {
            std::thread::yield_now();
        }
    }
}

#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<VecDeque<String>>>);

impl Log {
    pub(crate) fn note(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push_back(line.into());
    }

    /// What was noted since the last time.
    pub(crate) fn take(&self) -> Vec<String> {
        self.0.lock().unwrap().drain(..).collect()
    }

    pub(crate) fn has(&self, line: &str) -> bool {
        self.0.lock().unwrap().iter().any(|noted| noted == line)
    }
}

/// Notes that it was dropped.
pub(crate) struct Dropped(pub Log, pub String);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.note(format!("{} dropped", self.1));
    }
}

#[derive(Debug, thiserror::Error)]
#[error("told to fail")]
pub(crate) struct Broken;

pub(crate) struct Probe {
    pub(crate) name: String,
    pub(crate) log: Log,
    /// Where the `stopping` hook waits.
    pub(crate) at_stop: Option<Gate>,
    /// Where the `started` hook waits.
    pub(crate) at_start: Option<Gate>,
    /// Starts that are still to fail.
    pub(crate) failing_starts: Arc<AtomicUsize>,
    kept: Vec<Reply<u64>>,
    _dropped: Dropped,
}

impl Probe {
    pub(crate) fn new(name: &str, log: &Log) -> Self {
        Self {
            name: name.to_owned(),
            log: log.clone(),
            at_stop: None,
            at_start: None,
            failing_starts: Arc::default(),
            kept: Vec::new(),
            _dropped: Dropped(log.clone(), name.to_owned()),
        }
    }

    fn note(&self, what: &str) {
        self.log.note(format!("{} {what}", self.name));
    }
}

impl Actor for Probe {
    type Message = Do;
    type Error = Broken;
    const KIND: &'static str = "probe";

    async fn started(&mut self, _: &mut Context<Do>) -> Result<(), Broken> {
        if let Some(gate) = &self.at_start {
            gate.pass().await;
        }
        let less = |starts: usize| starts.checked_sub(1);
        if self.failing_starts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok() {
            self.note("failed to start");
            return Err(Broken);
        }
        self.note("started");
        Ok(())
    }

    async fn handle(&mut self, what: Do, context: &mut Context<Do>) -> Result<(), Broken> {
        match what {
            Do::Echo(number, reply) | Do::Secret(number, reply) => answer(reply, number),
            Do::Note(text) => self.note(text),
            Do::Header(reply) => answer(reply, context.header().clone()),
            Do::Generation(reply) => answer(reply, context.generation().get()),
            Do::Panic(_reply) => panic!("told to panic"),
            Do::Fail(_reply) => return Err(Broken),
            Do::Keep(reply) => self.kept.push(reply),
            Do::LetGo(reply) => drop(reply),
            Do::Wait(gate, reply) => {
                gate.pass().await;
                drop(reply);
            }
            Do::UntilClosed(gate, mut reply) => {
                gate.arrived.add_permits(1);
                reply.closed().await;
                self.note("saw the caller go");
            }
            Do::Block(gate) => tokio::task::block_in_place(|| gate.block()),
            Do::Relay(other, reply) => {
                answer(reply, other.call(context.onward(), Do::Header).await);
            }
            Do::Spawn(probe, options, reply) => {
                let name = Name::new(&probe.name).unwrap();
                answer(reply, context.spawn(name, *probe, options).await);
            }
            Do::WaitAndSpawn(gate, probe, reply) => {
                gate.pass().await;
                let name = Name::new(&probe.name).unwrap();
                answer(reply, context.spawn(name, *probe, Spawn::default()).await);
            }
            Do::Supervise(team, reply) => {
                let (name, policy, children) = *team;
                answer(reply, context.supervise(name, policy, children).await);
            }
            Do::KillChild(name, reply) => answer(reply, context.kill_child(&name).await),
            Do::PanicInTask(gate) => {
                let work = async move {
                    gate.pass().await;
                    panic!("a task told to panic");
                };
                assert!(context.task(work).is_ok());
            }
            Do::Task(gate, dropped) => {
                let work = async move {
                    gate.pass().await;
                    drop(dropped);
                };
                assert!(context.task(work).is_ok());
            }
            Do::StartBelow(gate, below) => {
                gate.pass().await;
                let (supervisor, spec) = *below;
                let started = supervisor.start(spec).await.is_ok();
                self.note(&format!("started one: {started}"));
            }
            Do::Stop => context.stop(),
        }
        Ok(())
    }

    async fn child_ended(&mut self, ended: Ended, context: &mut Context<Do>) -> Result<(), Broken> {
        let how = match ended.ending {
            Ending::Stopped => "stopped",
            Ending::Killed => "was killed",
            Ending::Failed(_) => "failed",
            _ => "ended",
        };
        self.note(&format!("saw that {} {how}", ended.name));
        assert!(context.header().deadline().is_none(), "a hook has no message's header");
        Ok(())
    }

    async fn stopping(&mut self, context: &mut Context<Do>) {
        self.note("stopping");
        assert!(context.header().deadline().is_none(), "a hook has no message's header");
        if let Some(gate) = &self.at_stop {
            gate.pass().await;
        }
    }
}

fn answer<T>(reply: Reply<T>, value: T) {
    // The caller may have gone.
    let _gone = reply.send(value).is_err();
}

/// A kernel on a clock that stands still.
pub(crate) struct World {
    pub(crate) time: ManualClock,
    pub(crate) kernel: Kernel,
    pub(crate) log: Log,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::observed(Arc::new(Unobserved)).await
    }

    pub(crate) async fn observed(observer: Arc<dyn Observer>) -> Self {
        Self::build(observer, policy(Strategy::OneForOne)).await
    }

    pub(crate) async fn with(policy: RestartPolicy) -> Self {
        Self::build(Arc::new(Unobserved), policy).await
    }

    async fn build(observer: Arc<dyn Observer>, policy: RestartPolicy) -> Self {
        let time = ManualClock::new();
        let builder = Kernel::builder().clock(time.clock()).observer(observer).policy(policy);
        let kernel = builder.start().await.unwrap();
        Self { time, kernel, log: Log::default() }
    }

    /// A child that isn't started yet.
    pub(crate) fn spec(&self, name: &'static str) -> (ChildSpec, Address<Do>) {
        let log = self.log.clone();
        ChildSpec::new(name, move || Probe::new(name, &log)).unwrap()
    }

    /// A child that isn't started yet, whose probe the test adjusts.
    pub(crate) fn spec_of(
        &self,
        name: &'static str,
        adjust: impl Fn(&mut Probe) + Send + Sync + 'static,
    ) -> (ChildSpec, Address<Do>) {
        let log = self.log.clone();
        let make = move || {
            let mut probe = Probe::new(name, &log);
            adjust(&mut probe);
            probe
        };
        ChildSpec::new(name, make).unwrap()
    }

    /// A child of the root.
    pub(crate) async fn start(&self, name: &'static str) -> Address<Do> {
        let (spec, address) = self.spec(name);
        self.kernel.root().start(spec).await.unwrap();
        address
    }

    /// A header whose deadline is so far from now.
    pub(crate) fn within(&self, duration: Duration) -> Header {
        Header::new().within(self.kernel.clock(), duration)
    }

    /// Moves time past every back-off.
    pub(crate) fn pass_backoff(&self) {
        self.time.advance(SECOND);
    }

    /// Waits until the child is in this life.
    pub(crate) async fn generation(&self, address: &Address<Do>, generation: u32) {
        until(|| address.generation().is_some_and(|now| now.get() == generation)).await;
    }
}

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// A policy whose back-off is at most a second, and that hardly ever gives up.
pub(crate) fn policy(strategy: Strategy) -> RestartPolicy {
    let mut policy = RestartPolicy { strategy, ..RestartPolicy::default() };
    policy.intensity = Intensity { restarts: 1_000, within: Duration::from_hours(1) };
    policy.backoff.max = SECOND;
    policy
}

/// The answer of `future`, which must come without the clock's help.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    for _ in 0..TURNS {
        let polled = std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
        if let Poll::Ready(output) = polled {
            return output;
        }
        tokio::task::yield_now().await;
    }
    panic!("it didn't happen by itself");
}

/// Waits until `condition` holds, which must come without the clock's help.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    for _ in 0..TURNS {
        if condition() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("it never became true");
}

/// Lets everyone else go as far as they get.
pub(crate) async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

/// Lets the future go as far as it gets, and says that it isn't done.
pub(crate) async fn hangs<F: Future + Unpin>(future: &mut F) -> bool {
    for _ in 0..200 {
        let polled =
            std::future::poll_fn(|cx| Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx))).await;
        if polled.is_ready() {
            return false;
        }
        tokio::task::yield_now().await;
    }
    true
}

const TURNS: usize = 200_000;
