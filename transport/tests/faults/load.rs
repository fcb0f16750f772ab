//! Callers that ask again and again, and keep account of how each call has ended.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use neuroflow_kernel::{Address, AskError, Clock, Header, Request};
use neuroflow_transport::Links;
use tokio::task::JoinSet;

use crate::node::Work;

/// How much later than its deadline a call may end.
const GRACE: Duration = Duration::from_secs(1);

/// Every so many calls one has a stream of its own.
const LARGE_EVERY: u64 = 16;
const LARGE_BYTES: usize = 100_000;
const SMALL_BYTES: usize = 256;

/// How long the machine has kept this process from running at most: that's no fault of a link.
#[derive(Clone, Default)]
pub(crate) struct Stall(Arc<AtomicU64>);

impl Stall {
    /// Watches on a thread of its own, so that what blocks the runtime is no excuse.
    #[expect(clippy::disallowed_methods, reason = "it measures the machine")]
    pub(crate) fn watch() -> Self {
        const TICK: Duration = Duration::from_millis(10);
        let stall = Self::default();
        let worst = Arc::clone(&stall.0);
        std::thread::spawn(move || {
            loop {
                let before = std::time::Instant::now();
                std::thread::sleep(TICK);
                let late = before.elapsed().saturating_sub(TICK).as_millis();
                worst.fetch_max(u64::try_from(late).unwrap_or(u64::MAX), Ordering::Relaxed);
            }
        });
        stall
    }

    pub(crate) fn worst(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// The loads of a node.
pub(crate) struct Loads {
    clock: Clock,
    links: Links,
    stall: Stall,
    next: Arc<AtomicU64>,
    running: HashMap<String, Load>,
}

struct Load {
    callers: JoinSet<()>,
    stop: Arc<AtomicBool>,
    tally: Arc<Tally>,
}

/// How calls have ended, by reason.
#[derive(Default)]
struct Tally(Mutex<BTreeMap<String, u64>>);

impl Tally {
    fn count(&self, what: &str) {
        *self.0.lock().unwrap().entry(what.to_owned()).or_default() += 1;
    }

    fn at_least(&self, what: &str, number: u64) {
        let mut counts = self.0.lock().unwrap();
        let count = counts.entry(what.to_owned()).or_default();
        *count = number.max(*count);
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counts = self.0.lock().unwrap();
        for always in ["asked", "answered", "late", "wrong"] {
            write!(f, "{always}={} ", counts.get(always).unwrap_or(&0))?;
        }
        for (what, count) in counts.iter() {
            write!(f, "{what}={count} ")?;
        }
        Ok(())
    }
}

impl Loads {
    pub(crate) fn new(clock: Clock, links: Links, stall: Stall) -> Self {
        // Numbers of another life of this node are others.
        let first = u64::from(std::process::id()) << 32;
        Self { clock, links, stall, next: Arc::new(AtomicU64::new(first)), running: HashMap::new() }
    }

    fn caller(&self, target: &str, deadline: Duration, tally: &Arc<Tally>) -> Caller {
        Caller {
            clock: self.clock.clone(),
            actor: self.links.resolve(target).expect("a target"),
            deadline,
            next: Arc::clone(&self.next),
            stall: self.stall.clone(),
            tally: Arc::clone(tally),
        }
    }

    pub(crate) fn start(&mut self, name: &str, target: &str, callers: u32, deadline: Duration) {
        let (stop, tally) = (Arc::new(AtomicBool::new(false)), Arc::<Tally>::default());
        let mut set = JoinSet::new();
        for _ in 0..callers {
            let (caller, stop) = (self.caller(target, deadline, &tally), Arc::clone(&stop));
            set.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    caller.ask().await;
                }
            });
        }
        self.running.insert(name.to_owned(), Load { callers: set, stop, tally });
    }

    pub(crate) fn so_far(&self, name: &str) -> String {
        self.running[name].tally.to_string()
    }

    pub(crate) async fn stop(&mut self, name: &str) -> String {
        let mut load = self.running.remove(name).expect("a load of this name");
        load.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = load.callers.join_next().await {
            ended.expect("a caller doesn't panic");
        }
        load.tally.to_string()
    }

    /// A few calls, one after another.
    pub(crate) async fn try_a_few(&self, target: &str, times: u32) -> String {
        let tally = Arc::default();
        let caller = self.caller(target, Duration::from_secs(5), &tally);
        for _ in 0..times {
            caller.ask().await;
        }
        tally.to_string()
    }
}

struct Caller {
    clock: Clock,
    actor: Address<Request<Work>>,
    deadline: Duration,
    next: Arc<AtomicU64>,
    stall: Stall,
    tally: Arc<Tally>,
}

impl Caller {
    async fn ask(&self) {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let bytes = if id.is_multiple_of(LARGE_EVERY) { LARGE_BYTES } else { SMALL_BYTES };
        let work = Work { id, payload: vec![7; bytes] };
        let start = self.clock.now();
        self.tally.count("asked");
        let header = Header::new().within(&self.clock, self.deadline);
        let end = match self.actor.ask(header, &work).await {
            Ok(mut stream) => match stream.next().await {
                Some(Ok(done)) if done.get().id.to_native() == id => "answered".to_owned(),
                Some(Ok(_another)) => "wrong".to_owned(),
                Some(Err(error)) => format!("{error:?}"),
                None => "empty".to_owned(),
            },
            Err(AskError::Refused(_)) => "refused".to_owned(),
            Err(error) => format!("{error:?}").replace(' ', "-"),
        };
        let took = self.clock.now().since(start);
        let over = took.saturating_sub(self.deadline);
        self.tally.at_least("worst_ms", u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        if over > GRACE + self.stall.worst() {
            self.tally.count("late");
        }
        self.tally.count(&end);
        if end == "refused" {
            // There is no link; who asks on and on would only heat the machine.
            self.clock.sleep(Duration::from_millis(10)).await;
        }
    }
}
