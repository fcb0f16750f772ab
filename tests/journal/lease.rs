//! One instance per key in the whole cluster, whatever becomes of nodes and of the database.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use neuroflow::actors::{Fence, LeaseError, Leases, Place, Singleton};
use neuroflow::kernel::{Actor, Address, Clock, Context, Header, Kernel, Message, Reply, Restart};

use crate::cluster::Cluster;
use crate::eventually::{eventually_async, until};

/// How many live, how many ever have at once, and how they are to start.
#[derive(Clone, Default)]
struct Census {
    living: Arc<AtomicI64>,
    most: Arc<AtomicI64>,
    fences: Arc<AtomicU64>,
    /// Starts that are still to fail.
    failing: Arc<AtomicU32>,
    /// What a start takes.
    start_ms: Arc<AtomicU64>,
}

/// Counts itself.
struct Only {
    census: Census,
    fence: Fence,
}

impl Only {
    fn new(census: &Census, fence: Fence) -> Self {
        let living = census.living.fetch_add(1, Ordering::SeqCst) + 1;
        census.most.fetch_max(living, Ordering::SeqCst);
        census.fences.fetch_max(fence.get(), Ordering::SeqCst);
        Self { census: census.clone(), fence }
    }
}

impl Drop for Only {
    fn drop(&mut self) {
        self.census.living.fetch_sub(1, Ordering::SeqCst);
    }
}

enum Do {
    Fence(Reply<u64>),
    Panic,
    /// To work on this until it's killed.
    Work,
}

impl Message for Do {
    fn name(&self) -> &'static str {
        "do"
    }
}

#[derive(Debug, thiserror::Error)]
#[error("told to fail")]
struct Broken;

impl Actor for Only {
    type Message = Do;
    type Error = Broken;
    const KIND: &'static str = "only";

    async fn started(&mut self, context: &mut Context<Do>) -> Result<(), Broken> {
        let takes = Duration::from_millis(self.census.start_ms.load(Ordering::SeqCst));
        if !takes.is_zero() {
            context.clock().sleep(takes).await;
        }
        let less = |starts: u32| starts.checked_sub(1);
        let fails = self.census.failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
        if fails.is_ok() { Err(Broken) } else { Ok(()) }
    }

    async fn handle(&mut self, told: Do, _: &mut Context<Do>) -> Result<(), Broken> {
        match told {
            Do::Fence(reply) => {
                let _gone = reply.send(self.fence.get());
            }
            Do::Panic => panic!("told to panic"),
            Do::Work => std::future::pending().await,
        }
        Ok(())
    }
}

struct Node {
    kernel: Kernel,
    leases: Leases,
    only: Singleton<Do>,
}

/// Long enough that a busy machine renews in time.
const TERM: Duration = Duration::from_secs(6);

impl Node {
    async fn start(url: &str, name: &str, census: &Census) -> Self {
        let kernel = Kernel::builder().start().await.expect("a kernel");
        let leases = Leases::open(url, name, kernel.clock().clone()).await.expect("leases");
        let census = census.clone();
        let make = move |fence| Only::new(&census, fence);
        let (spec, only) = leases.singleton("ledger/1", TERM, make).expect("a singleton");
        kernel.root().start(spec.restart(Restart::Permanent)).await.expect("started");
        Self { kernel, leases, only }
    }

    /// Waits until this node holds the key with a higher fence than this.
    async fn held_after(&mut self, before: u64) -> (Fence, Address<Do>) {
        let clock = self.kernel.clock().clone();
        let deadline = clock.now() + Duration::from_mins(1);
        loop {
            let held = clock.before(deadline, self.only.held()).await;
            let (fence, address) = held.expect("in time").expect("the keeper lives");
            if fence.get() > before {
                return (fence, address);
            }
            assert!(clock.now() < deadline, "the fence doesn't rise");
            clock.sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn fence(address: &Address<Do>) -> u64 {
    address.call(Header::new(), Do::Fence).await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_holds_a_key_and_the_next_one_follows() {
    let cluster = Cluster::start();
    let (url, census) = (cluster.url(), Census::default());
    let mut a = Node::start(&url, "a", &census).await;
    let (first, address) = a.held_after(0).await;
    assert_eq!(fence(&address).await, first.get());
    // One that fails is there again, with a higher fence.
    address.tell(Header::new(), Do::Panic).await.expect("told");
    address.down().await;
    let (second, address) = a.held_after(first.get()).await;
    let mut b = Node::start(&url, "b", &census).await;
    let place = b.only.place().await.expect("a place");
    assert!(matches!(place, Place::There(ref holder) if holder.node == "a"), "{place:?}");
    assert!(matches!(a.only.place().await, Ok(Place::Here(_))));
    // Longer than a term, with renewals.
    a.kernel.clock().sleep(TERM + TERM / 6).await;
    assert_eq!(fence(&address).await, second.get());
    a.kernel.stop().await;
    let (third, _) = b.held_after(second.get()).await;
    let holder = b.leases.holder("ledger/1").await.expect("an answer").expect("a holder");
    assert_eq!((holder.node.as_str(), holder.fence), ("b", third));
    // One that is killed gives nothing back; the term ends all the same.
    drop(b.kernel);
    let mut c = Node::start(&url, "c", &census).await;
    c.held_after(third.get()).await;
    assert_eq!(census.most.load(Ordering::SeqCst), 1);
    c.kernel.stop().await;
    assert_eq!(census.living.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_is_gone_before_its_term_is_over_when_the_database_stays_away() {
    let mut cluster = Cluster::start();
    let (url, census) = (cluster.url(), Census::default());
    let mut a = Node::start(&url, "a", &census).await;
    let (first, address) = a.held_after(0).await;
    // What is only cut off goes on.
    cluster.cut_off();
    a.kernel.clock().sleep(TERM).await;
    assert_eq!(fence(&address).await, first.get());
    cluster.halt();
    let clock = a.kernel.clock().clone();
    let ended = clock.before(clock.now() + Duration::from_mins(1), address.down()).await;
    assert!(ended.is_ok() && census.living.load(Ordering::SeqCst) == 0);
    assert!(a.only.place().await.is_err());
    cluster.resume();
    a.held_after(first.get()).await;
    assert_eq!(census.most.load(Ordering::SeqCst), 1);
    a.kernel.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_is_told_to_stop_is_gone_before_its_term_is_over_all_the_same() {
    let mut cluster = Cluster::start();
    let (url, census) = (cluster.url(), Census::default());
    let mut a = Node::start(&url, "a", &census).await;
    let (first, address) = a.held_after(0).await;
    address.tell(Header::new(), Do::Work).await.expect("told");
    let mut b = Node::start(&url, "b", &census).await;
    // It goes away right after the key was kept, so that it's a long way to the end of the term.
    let rest = "SELECT extract(epoch FROM expires - now()) FROM neuroflow_lease";
    let rest = || cluster.query(rest).and_then(|rest| rest.parse::<f64>().ok());
    until(|| rest().is_some_and(|rest| rest > TERM.as_secs_f64() * 0.95)).await;
    cluster.halt();
    // Just before the instance would be killed, its node stops, for which it would get longer than the term is.
    let clock = a.kernel.clock().clone();
    clock.sleep(TERM * 3 / 4).await;
    let stop = async {
        a.kernel.stop().await;
    };
    let next = async {
        clock.sleep(TERM / 4).await;
        cluster.resume();
        b.held_after(first.get()).await;
    };
    tokio::join!(stop, next);
    assert_eq!(census.most.load(Ordering::SeqCst), 1, "the old instance and the new one");
    b.kernel.stop().await;
    assert_eq!(census.living.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_cannot_start_is_tried_until_it_can_and_others_may_have_its_key() {
    let cluster = Cluster::start();
    let (url, census) = (cluster.url(), Census::default());
    census.failing.store(6, Ordering::SeqCst);
    let mut a = Node::start(&url, "a", &census).await;
    let free = async || matches!(a.leases.holder("ledger/1").await, Ok(None));
    let failed = || census.failing.load(Ordering::SeqCst) < 3;
    eventually_async("a key given up after failures", async || failed() && free().await).await;
    // More often than any supervisor would have restarted it, in less time.
    let (first, address) = a.held_after(6).await;
    assert_eq!((first.get(), fence(&address).await), (7, 7));
    // One that can't start here does so elsewhere, long before it's tried here again.
    let others = Census::default();
    let mut b = Node::start(&url, "b", &others).await;
    census.failing.store(u32::MAX, Ordering::SeqCst);
    address.tell(Header::new(), Do::Panic).await.expect("told");
    b.held_after(first.get()).await;
    assert_eq!(census.living.load(Ordering::SeqCst), 0);
    assert!(matches!(a.only.place().await, Ok(Place::There(holder)) if holder.node == "b"));
    // It waits for its turn here all the same.
    census.failing.store(0, Ordering::SeqCst);
    b.kernel.stop().await;
    a.held_after(first.get()).await;
    a.kernel.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_goes_on_while_its_key_is_kept_and_is_given_up_before_another_can_have_it() {
    let mut cluster = Cluster::start();
    let (url, census) = (cluster.url(), Census::default());
    let takes = |time: Duration| {
        let ms = u64::try_from(time.as_millis()).expect("a few seconds");
        census.start_ms.store(ms, Ordering::SeqCst);
    };
    takes(TERM + TERM / 6);
    let mut a = Node::start(&url, "a", &census).await;
    let (first, address) = a.held_after(0).await;
    assert_eq!(first.get(), 1, "renewals have kept it while it started");
    takes(Duration::from_secs(9));
    address.tell(Header::new(), Do::Panic).await.expect("told");
    address.down().await;
    until(|| census.living.load(Ordering::SeqCst) == 1).await;
    let clock = a.kernel.clock().clone();
    let since = clock.now();
    cluster.halt();
    until(|| census.living.load(Ordering::SeqCst) == 0).await;
    let lived = clock.now().since(since);
    assert!(lived < TERM, "another node could have had the key: {lived:?}");
    takes(Duration::ZERO);
    cluster.resume();
    a.held_after(first.get()).await;
    assert_eq!(census.most.load(Ordering::SeqCst), 1);
    a.kernel.stop().await;
}

/// Has whoever asks who holds a key wait for the answer, and nobody else.
const SLOW_LOOKS: &str = "
    CREATE FUNCTION slow() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
        IF current_query() LIKE 'SELECT node, fence%' THEN PERFORM pg_sleep(60); END IF;
        RETURN true;
    END $$;
    ALTER TABLE neuroflow_lease RENAME TO elsewhere;
    CREATE VIEW neuroflow_lease AS SELECT * FROM elsewhere WHERE slow()";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_kept_however_many_wait_to_be_told_who_has_it() {
    let cluster = Cluster::start();
    let (url, census) = (cluster.url(), Census::default());
    let mut a = Node::start(&url, "a", &census).await;
    let (first, address) = a.held_after(0).await;
    cluster.query(SLOW_LOOKS).expect("it's slow from now on");
    let clock = a.kernel.clock().clone();
    let until = clock.now() + TERM + TERM / 2;
    while clock.now() < until {
        let asks = futures_util::future::join_all((0..16).map(|_| a.leases.holder("ledger/1")));
        assert!(asks.await.iter().all(Result::is_err), "nobody is told");
    }
    assert_eq!(fence(&address).await, first.get());
    assert_eq!(census.fences.load(Ordering::SeqCst), first.get());
    a.kernel.stop().await;
}

#[tokio::test]
async fn without_a_database_it_says_so() {
    let nowhere = Leases::unconfigured();
    let census = Census::default();
    let refused = nowhere.singleton("ledger", TERM, move |fence| Only::new(&census, fence));
    assert!(matches!(refused, Err(LeaseError::Unconfigured)));
    assert!(matches!(nowhere.holder("ledger").await, Err(LeaseError::Unconfigured)));
    let clock = Clock::system();
    let away = Leases::open("postgres:///none?host=/nowhere", "a", clock).await;
    assert!(matches!(away, Err(LeaseError::Database(_))));
}
