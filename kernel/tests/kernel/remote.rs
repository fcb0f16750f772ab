//! The port for links: two kernels and a link in memory that carries bytes between them.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use neuroflow_kernel::{
    Actor, Address, AskError, AttenuateError, Budget, ChildSpec, Chosen, Clock, Context, Denied,
    Header, Moment, Parcel, RawParcel, RawReplies, Refusal, RemoteError, RemotePort, RemoteTarget,
    Request, Restriction, StreamError, TraceContext, WireMessage, WireRequest, limits,
};
use tokio::sync::{Notify, Semaphore};

use crate::probe::{Log, SECOND, World, hangs, settle, soon, until};

#[derive(rkyv::Archive, rkyv::Serialize)]
struct Count {
    up_to: u32,
}

#[derive(rkyv::Archive, rkyv::Serialize)]
struct Number {
    value: u32,
}

impl WireMessage for Count {
    const NAME: &'static str = "test.count";
    const VERSION: u16 = 1;
}

impl WireMessage for Number {
    const NAME: &'static str = "test.number";
    const VERSION: u16 = 1;
}

impl WireRequest for Count {
    type Reply = Number;
}

/// Counts on the other node.
struct Counter {
    log: Log,
}

impl Actor for Counter {
    type Message = Request<Count>;
    type Error = std::convert::Infallible;
    const KIND: &'static str = "counter";

    async fn handle(
        &mut self,
        Request { parcel, replies }: Request<Count>,
        context: &mut Context<Request<Count>>,
    ) -> Result<(), Self::Error> {
        let header = context.header();
        self.log.note(format!(
            "asked: budget {:?}, hops {}, deadline in {:?}",
            header.remaining_budget().remaining(),
            header.hops(),
            header.deadline().map(|at| at.since(context.clock().now())),
        ));
        for value in 0..parcel.get().up_to.to_native() {
            if replies.send(Parcel::archive(&Number { value }).unwrap()).await.is_err() {
                self.log.note("the caller went");
                return Ok(());
            }
        }
        if parcel.get().up_to != u32::MAX {
            replies.finish();
        }
        Ok(())
    }
}

/// A link that copies bytes: nothing but bytes and header fields cross it.
struct Loopback {
    clock: Clock,
    peer: Address<Request<Count>>,
    peer_clock: Clock,
    credit: AtomicUsize,
    refusals: AtomicUsize,
    up: AtomicBool,
    changed: Notify,
    garble: AtomicBool,
    cut: Arc<Semaphore>,
    seen: Mutex<Vec<(String, Option<u64>)>>,
    log: Log,
}

impl Loopback {
    fn new(here: &World, there: &World, peer: Address<Request<Count>>) -> Arc<Self> {
        Arc::new(Self {
            clock: here.kernel.clock().clone(),
            peer,
            peer_clock: there.kernel.clock().clone(),
            credit: AtomicUsize::new(100),
            refusals: AtomicUsize::new(0),
            up: AtomicBool::new(true),
            changed: Notify::new(),
            garble: AtomicBool::new(false),
            cut: Arc::new(Semaphore::new(0)),
            seen: Mutex::default(),
            log: here.log.clone(),
        })
    }

    fn refill(&self, credit: usize) {
        self.credit.store(credit, Ordering::SeqCst);
        self.changed.notify_waiters();
    }
}

impl RemotePort for Loopback {
    fn send(
        &self,
        target: &RemoteTarget,
        header: &Header,
        parcel: RawParcel,
        replies: Arc<dyn RawReplies>,
        now: Moment,
    ) -> Result<(), RemoteError> {
        let name = target.to_string();
        if !self.up.load(Ordering::SeqCst) {
            return Err(RemoteError::Unreachable { target: name });
        }
        let less = |credit: usize| credit.checked_sub(1);
        if self.credit.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_err() {
            self.refusals.fetch_add(1, Ordering::SeqCst);
            return Err(RemoteError::Saturated { target: name });
        }
        self.seen.lock().unwrap().push((name, header.remaining_budget().remaining()));
        let remaining = header.deadline().map(|at| at.since(now));
        let mut there = Header::new()
            .traced(TraceContext::from_bytes(header.trace().to_bytes()))
            .budget(header.remaining_budget());
        if let Some(remaining) = remaining {
            there = there.within(&self.peer_clock, remaining);
        }
        for _ in 0..header.hops() {
            there = there.forward(neuroflow_kernel::ActorId::NOBODY);
        }
        let (peer, cut, log) = (self.peer.clone(), Arc::clone(&self.cut), self.log.clone());
        let garble = self.garble.load(Ordering::SeqCst);
        tokio::task::JoinSet::new().detach_with(async move {
            let raw = copy(&parcel, false);
            let request = raw.open::<Count>().unwrap();
            let made = |replies| Request { parcel: request, replies };
            let Ok(mut stream) = peer.stream(there, made).await else { return };
            loop {
                tokio::select! {
                    () = replies.closed() => {
                        log.note("cancelled over the link");
                        return;
                    }
                    _cut = cut.acquire() => return,
                    item = stream.next() => match item {
                        Some(Ok(reply)) => {
                            replies.room().await;
                            let raw = copy(reply.as_raw(), garble);
                            if let Err(error) = replies.deliver(raw) {
                                log.note(format!("not delivered: {error}"));
                                return;
                            }
                        }
                        Some(Err(_)) => return,
                        None => {
                            replies.finish();
                            return;
                        }
                    },
                }
            }
        });
        Ok(())
    }

    fn ready<'a>(&'a self, _target: &'a RemoteTarget, _bytes: usize) -> BoxFuture<'a, ()> {
        Box::pin(self.changed.notified())
    }

    fn clock(&self) -> &Clock {
        &self.clock
    }
}

/// What arrives at the other end: other memory, and bytes that somebody may have changed.
fn copy(parcel: &RawParcel, garble: bool) -> RawParcel {
    let bytes = if garble { vec![0; 3] } else { parcel.as_bytes().to_vec() };
    RawParcel::new(parcel.message(), parcel.version(), &bytes)
}

trait Detach {
    fn detach_with(self, work: impl Future<Output = ()> + Send + 'static);
}

impl Detach for tokio::task::JoinSet<()> {
    fn detach_with(mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.spawn(work);
        self.detach_all();
    }
}

struct Cluster {
    here: World,
    there: World,
    link: Arc<Loopback>,
    remote: Address<Request<Count>>,
    counter: Address<Request<Count>>,
}

async fn cluster() -> Cluster {
    let (here, there) = (World::new().await, World::new().await);
    let log = there.log.clone();
    let (spec, counter) = ChildSpec::new("counter", move || Counter { log: log.clone() }).unwrap();
    there.kernel.root().start(spec).await.unwrap();
    let link = Loopback::new(&here, &there, counter.clone());
    let target: RemoteTarget = "agent://b/counter".parse().unwrap();
    let remote = Address::remote(Arc::clone(&link) as Arc<dyn RemotePort>, target);
    Cluster { here, there, link, remote, counter }
}

#[tokio::test]
async fn a_remote_actor_is_asked_like_a_local_one() {
    let cluster = cluster().await;
    for address in [&cluster.counter, &cluster.remote] {
        let mut stream = soon(address.ask(Header::new(), &Count { up_to: 3 })).await.unwrap();
        for value in 0..3 {
            let reply = soon(stream.next()).await.unwrap().unwrap();
            assert_eq!(reply.get().value, value);
        }
        assert!(soon(stream.next()).await.is_none());
    }
    assert_eq!(cluster.link.seen.lock().unwrap().len(), 1);
    assert!(cluster.remote.generation().is_none() && cluster.remote.path().is_none());
    assert_eq!(cluster.remote.mailbox_depth(), 0);
}

#[tokio::test]
async fn deadline_budget_and_hops_cross_the_link() {
    let cluster = cluster().await;
    // The clocks of two nodes don't agree, so the deadline crosses as remaining time.
    cluster.there.time.advance(SECOND * 500);
    let header = cluster.here.within(SECOND * 5).budget(Budget::units(8));
    let header = header.forward(neuroflow_kernel::ActorId::NOBODY);
    let lent = cluster.remote.attenuate(Restriction::new().budget(Budget::units(6))).unwrap();
    let _stream = soon(lent.ask(header, &Count { up_to: 1 })).await.unwrap();
    settle().await;
    let log = cluster.there.log.take();
    assert_eq!(log, ["asked: budget Some(6), hops 1, deadline in Some(5s)"]);
    let seen = cluster.link.seen.lock().unwrap();
    assert_eq!(*seen, [("agent://b/counter".to_owned(), Some(6))]);
}

#[tokio::test]
async fn dropping_the_stream_cancels_on_the_other_node() {
    let cluster = cluster().await;
    let stream = soon(cluster.remote.ask(Header::new(), &Count { up_to: 10_000 })).await.unwrap();
    settle().await;
    assert!(!cluster.there.log.has("the caller went"));
    drop(stream);
    until(|| cluster.there.log.has("the caller went")).await;
}

/// A slow caller stops the link from reading, and so the other node from producing.
#[tokio::test]
async fn a_slow_caller_slows_the_other_node_down_and_loses_nothing() {
    let cluster = cluster().await;
    let count = limits::STREAM_CAPACITY * 20;
    let up_to = u32::try_from(count).unwrap();
    let mut stream = soon(cluster.remote.ask(Header::new(), &Count { up_to })).await.unwrap();
    settle().await;
    for value in 0..up_to {
        assert_eq!(soon(stream.next()).await.unwrap().unwrap().get().value, value);
    }
    assert!(soon(stream.next()).await.is_none());
    assert!(cluster.here.log.take().is_empty());
}

#[tokio::test]
async fn a_lost_peer_ends_the_stream_with_an_error() {
    let cluster = cluster().await;
    let mut stream =
        soon(cluster.remote.ask(Header::new(), &Count { up_to: 10_000 })).await.unwrap();
    assert!(soon(stream.next()).await.unwrap().is_ok());
    settle().await;
    cluster.link.cut.close();
    let mut last = None;
    while let Some(item) = soon(stream.next()).await {
        last = Some(item.map(|_| ()));
    }
    assert_eq!(last, Some(Err(StreamError::Interrupted)));
}

#[tokio::test]
async fn bytes_that_are_no_reply_are_refused_at_the_boundary() {
    let cluster = cluster().await;
    cluster.link.garble.store(true, Ordering::SeqCst);
    let mut stream = soon(cluster.remote.ask(Header::new(), &Count { up_to: 1 })).await.unwrap();
    assert!(matches!(soon(stream.next()).await, Some(Err(StreamError::Interrupted))));
    until(|| cluster.here.log.has("not delivered: the reply isn't valid")).await;
}

#[tokio::test]
async fn a_saturated_link_is_waited_for_until_the_deadline() {
    let cluster = cluster().await;
    cluster.link.refill(0);
    let header = cluster.here.within(SECOND);
    let mut ask = Box::pin(cluster.remote.ask(header, &Count { up_to: 1 }));
    assert!(hangs(&mut ask).await);
    // Woken without effect: others were faster. It waits on.
    for _ in 0..3 {
        cluster.link.refill(0);
        assert!(hangs(&mut ask).await);
    }
    assert_eq!(cluster.link.refusals.load(Ordering::SeqCst), 4);
    cluster.here.time.advance(SECOND);
    let refused = soon(ask).await.unwrap_err();
    assert!(matches!(refused, AskError::Refused(Refusal::Overloaded { capacity: 0 })));

    let mut ask = Box::pin(cluster.remote.ask(Header::new(), &Count { up_to: 1 }));
    assert!(hangs(&mut ask).await);
    cluster.link.refill(1);
    let mut stream = soon(ask).await.unwrap();
    assert_eq!(soon(stream.next()).await.unwrap().unwrap().get().value, 0);
}

#[tokio::test]
async fn an_unreachable_node_is_a_typed_error_with_the_message_given_back() {
    let cluster = cluster().await;
    cluster.link.up.store(false, Ordering::SeqCst);
    let (replies, mut stream) = neuroflow_kernel::reply_stream();
    let request = Request { parcel: Parcel::archive(&Count { up_to: 1 }).unwrap(), replies };
    let refused = cluster.remote.try_tell(Header::new(), request).unwrap_err();
    let Refusal::Unreachable(error) = &refused.reason else { panic!("{:?}", refused.reason) };
    let target = "agent://b/counter".to_owned();
    assert_eq!(**error, RemoteError::Unreachable { target });
    // The reply side came back too: the very stream still works.
    cluster.link.up.store(true, Ordering::SeqCst);
    cluster.remote.try_tell(Header::new(), refused.message).unwrap();
    assert_eq!(soon(stream.next()).await.unwrap().unwrap().get().value, 0);
}

#[tokio::test]
async fn a_capability_holds_for_a_remote_actor_too() {
    let cluster = cluster().await;
    let lent = cluster.remote.attenuate(Restriction::new().uses(1)).unwrap();
    let _stream = soon(lent.ask(Header::new(), &Count { up_to: 1 })).await.unwrap();
    let refused = soon(lent.ask(Header::new(), &Count { up_to: 1 })).await.unwrap_err();
    assert!(matches!(refused, AskError::Refused(Refusal::Denied(Denied::UsedUp))));
    assert!(cluster.remote.accepting::<Request<Count>>(|request| request).is_none());
    // Its actor would get the message without.
    let unread = cluster.remote.attenuate(Restriction::new().uses(1).policy("read only"));
    assert_eq!(unread.unwrap_err(), AttenuateError::Unreadable);
    assert!(cluster.counter.attenuate(Restriction::new().policy("read only")).is_ok());
}

#[tokio::test]
async fn who_wants_no_reply_has_none_to_drop() {
    let cluster = cluster().await;
    for address in [&cluster.counter, &cluster.remote] {
        soon(address.notify(Header::new(), &Count { up_to: 1_000 })).await.unwrap();
        until(|| !cluster.there.log.take().is_empty()).await;
        settle().await;
        assert!(!cluster.there.log.has("the caller went"));
    }
}

/// What belongs to a node, which the port is to find out.
#[derive(rkyv::Archive, rkyv::Serialize)]
struct Errand {
    node: String,
}

impl WireMessage for Errand {
    const NAME: &'static str = "test.errand";
    const VERSION: u16 = 1;
}

impl WireRequest for Errand {
    type Reply = Number;

    fn affinity(errand: &ArchivedErrand) -> Option<&str> {
        Some(&errand.node)
    }
}

/// A link to each node, without room at first.
struct Fork {
    clock: Clock,
    open: Mutex<Vec<String>>,
    changed: Notify,
    sent: Mutex<Vec<String>>,
}

impl Fork {
    fn is_open(&self, target: &RemoteTarget) -> bool {
        self.open.lock().unwrap().iter().any(|node| target.node() == Some(node))
    }

    fn open(&self, node: &str) {
        self.open.lock().unwrap().push(node.to_owned());
        self.changed.notify_waiters();
    }
}

impl RemotePort for Fork {
    fn choose(&self, target: &RemoteTarget, affinity: Option<&str>) -> Option<Chosen> {
        affinity.map(|node| Chosen::There(target.clone().on_node(node)))
    }

    fn send(
        &self,
        target: &RemoteTarget,
        _: &Header,
        _: RawParcel,
        _: Arc<dyn RawReplies>,
        _: Moment,
    ) -> Result<(), RemoteError> {
        let name = target.to_string();
        if !self.is_open(target) {
            return Err(RemoteError::Saturated { target: name });
        }
        self.sent.lock().unwrap().push(name);
        Ok(())
    }

    fn ready<'a>(&'a self, target: &'a RemoteTarget, _bytes: usize) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            while !self.is_open(target) {
                self.changed.notified().await;
            }
        })
    }

    fn clock(&self) -> &Clock {
        &self.clock
    }
}

#[tokio::test]
async fn each_message_waits_for_the_link_that_is_chosen_for_it() {
    let world = World::new().await;
    let port = Arc::new(Fork {
        clock: world.kernel.clock().clone(),
        open: Mutex::default(),
        changed: Notify::new(),
        sent: Mutex::default(),
    });
    let target: RemoteTarget = "agent://*/counter".parse().unwrap();
    let address = Address::remote(Arc::clone(&port) as Arc<dyn RemotePort>, target);
    let mut sending = tokio::task::JoinSet::new();
    for node in ["a", "b", "a"] {
        let address = address.clone();
        let errand = Errand { node: node.to_owned() };
        sending.spawn(async move { address.notify(Header::new(), &errand).await });
    }
    settle().await;
    assert!(port.sent.lock().unwrap().is_empty());
    port.open("b");
    soon(sending.join_next()).await.unwrap().unwrap().unwrap();
    settle().await;
    assert_eq!(*port.sent.lock().unwrap(), ["agent://b/counter"], "the others wait on");
    port.open("a");
    for sent in soon(sending.join_all()).await {
        sent.unwrap();
    }
    assert_eq!(port.sent.lock().unwrap()[1..], ["agent://a/counter"; 2]);
}
