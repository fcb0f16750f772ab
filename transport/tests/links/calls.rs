//! Asking an actor on another node, as if it were here.

use std::time::Duration;

use neuroflow_kernel::{
    Address, AskError, Budget, Header, Parcel, Refusal, RemoteError, ReplySink, Request,
    Restriction, StreamError, TraceContext,
};
use neuroflow_transport::{Allowed, LinkState};

use crate::world::{Node, Other, Work, World, all, soon, until};

#[tokio::test]
async fn an_actor_on_another_node_is_asked_like_a_local_one() {
    let (a, b) = World::new().pair().await;
    let far = a.far("agent://b/worker");
    let by_id = a.far(&format!("agent://{}/worker", b.links.id()));
    let back = b.far("agent://a/worker");
    let own = b.far("agent://b/worker");
    for address in [&far, &by_id, &back, &own] {
        let work = Work { replies: 3, ..Work::default() };
        assert_eq!(all(address, &work).await, Ok(vec![0, 1, 2]));
    }
    assert!(own.path().is_some() && far.path().is_none());
}

#[tokio::test]
async fn what_travels_with_a_message_crosses_the_link() {
    let (a, b) = World::new().pair().await;
    let trace = TraceContext::root(true);
    let header = Header::new()
        .traced(trace)
        .budget(Budget::units(9))
        .within(a.clock(), Duration::from_mins(1))
        .forward(neuroflow_kernel::ActorId::NOBODY);
    let work = Work { replies: 1, ..Work::default() };
    let mut stream = soon(a.far("agent://b/worker").ask(header, &work)).await.unwrap();
    soon(stream.next()).await.unwrap().unwrap();
    let seen = b.ledger.headers.lock().unwrap().pop().unwrap();
    assert_eq!((seen.trace(), seen.hops()), (trace, 1));
    assert_eq!(seen.remaining_budget(), Budget::units(9));
    let left = seen.deadline().unwrap().since(b.clock().now());
    assert!(left > Duration::from_secs(20) && left <= Duration::from_mins(1));
}

#[tokio::test]
async fn long_streams_and_large_replies_come_whole_and_in_order() {
    let (a, _b) = World::new().pair().await;
    let far = a.far("agent://b/worker");
    let many = Work { replies: 3_000, bytes: 100, ..Work::default() };
    assert_eq!(all(&far, &many).await.unwrap(), (0..3_000).collect::<Vec<_>>());
    // Every other reply has a stream of its own, and the small ones overtake it.
    let mixed = Work { replies: 60, bytes: 10, large: 300_000, ..Work::default() };
    assert_eq!(all(&far, &mixed).await.unwrap(), (0..60).collect::<Vec<_>>());
    let huge = Work { replies: 2, bytes: 10, large: 20_000_000, ..Work::default() };
    assert_eq!(all(&far, &huge).await.unwrap(), [0, 1]);
}

#[tokio::test]
async fn a_slow_reader_of_one_stream_keeps_nobody_else_waiting() {
    let (a, b) = World::new().pair().await;
    let far = a.far("agent://b/worker");
    let many = Work { replies: 2_000, ..Work::default() };
    let mut slow = soon(far.ask(Header::new(), &many)).await.unwrap();
    assert_eq!(soon(slow.next()).await.unwrap().unwrap().get().number, 0);
    // The worker itself is busy with the slow one; the lane isn't.
    let (spec, other) = neuroflow_kernel::ChildSpec::new("echo", || Echo).unwrap();
    b.kernel.root().start(spec).await.unwrap();
    b.links.export("echo", other, Allowed::Everyone).unwrap();
    let echo = a.far("agent://b/echo");
    for _ in 0..50 {
        assert_eq!(all(&echo, &Work::default()).await, Ok(vec![]));
    }
    for number in 1..2_000 {
        assert_eq!(soon(slow.next()).await.unwrap().unwrap().get().number, number);
    }
    assert!(soon(slow.next()).await.is_none());
}

/// Finishes at once.
struct Echo;

impl neuroflow_kernel::Actor for Echo {
    type Message = Request<Work>;
    type Error = std::convert::Infallible;
    const KIND: &'static str = "echo";

    async fn handle(
        &mut self,
        request: Request<Work>,
        _: &mut neuroflow_kernel::Context<Request<Work>>,
    ) -> Result<(), Self::Error> {
        request.replies.finish();
        Ok(())
    }
}

#[tokio::test]
async fn dropping_the_stream_cancels_on_the_other_node() {
    let (a, b) = World::new().pair().await;
    let waiting = Work { wait: true, ..Work::default() };
    let stream = soon(a.far("agent://b/worker").ask(Header::new(), &waiting)).await.unwrap();
    until(|| b.ledger.begun() == 1).await;
    drop(stream);
    until(|| b.ledger.cancelled() == 1).await;
}

#[tokio::test]
async fn a_call_that_isnt_answered_ends_at_its_deadline() {
    let (a, b) = World::new().pair().await;
    let header = Header::new().within(a.clock(), Duration::from_millis(200));
    let waiting = Work { wait: true, ..Work::default() };
    let mut stream = soon(a.far("agent://b/worker").ask(header, &waiting)).await.unwrap();
    assert!(matches!(soon(stream.next()).await, Some(Err(StreamError::DeadlineExceeded))));
    until(|| b.ledger.cancelled() == 1).await;
}

#[tokio::test]
async fn refusals_have_reasons() {
    let world = World::new();
    let (a, b) = world.pair().await;
    let work = Work::default();
    assert_eq!(all(&a.far("agent://b/nobody"), &work).await, Err(StreamError::Unknown));
    let stale = all(&a.far("agent://b/worker#7"), &work).await;
    assert_eq!(stale, Err(StreamError::Stale));
    assert_eq!(all(&a.far("agent://b/worker#1"), &work).await, Ok(vec![]));

    let other: Address<Request<Other>> = a.links.resolve("agent://b/worker").unwrap();
    let mut stream = soon(other.ask(Header::new(), &Other)).await.unwrap();
    assert!(matches!(soon(stream.next()).await, Some(Err(StreamError::Mismatch))));

    let none = b.worker.attenuate(Restriction::new()).unwrap();
    b.links.export("lent", none.clone(), Allowed::Everyone).unwrap();
    assert_eq!(all(&a.far("agent://b/lent"), &work).await, Ok(vec![]));
    none.revoke().unwrap();
    assert_eq!(all(&a.far("agent://b/lent"), &work).await, Err(StreamError::Revoked));

    for (allowed, answer) in [
        (Allowed::Role("worker".into()), Ok(vec![])),
        (Allowed::Role("admin".into()), Err(StreamError::Unknown)),
        (Allowed::Nodes(vec![a.links.id()]), Ok(vec![])),
        (Allowed::Nodes(vec![b.links.id()]), Err(StreamError::Unknown)),
    ] {
        b.links.export("some", b.worker.clone(), allowed).unwrap();
        assert_eq!(all(&a.far("agent://b/some"), &work).await, answer);
    }
    assert!(b.links.withdraw("some"));
    assert_eq!(all(&a.far("agent://b/some"), &work).await, Err(StreamError::Unknown));

    let refused = soon(a.far("agent://c/worker").ask(Header::new(), &work)).await.unwrap_err();
    let AskError::Refused(Refusal::Unreachable(error)) = refused else { panic!("{refused:?}") };
    assert!(matches!(*error, RemoteError::Unreachable { .. }));
    let anywhere = a.links.resolve::<Work>("agent://*/nobody");
    assert!(matches!(anywhere, Err(RemoteError::Unplaced { .. })));
}

#[tokio::test]
async fn a_panic_reaches_the_caller_and_the_old_life_is_stale() {
    let (a, _b) = World::new().pair().await;
    let far = a.far("agent://b/worker");
    let panicking = Work { panic: true, ..Work::default() };
    assert_eq!(all(&far, &panicking).await, Err(StreamError::Panicked));
    assert_eq!(all(&far, &Work::default()).await, Ok(vec![]));
    let old = all(&a.far("agent://b/worker#1"), &Work::default()).await;
    assert_eq!(old, Err(StreamError::Stale));
}

#[tokio::test]
async fn notices_arrive_in_order_and_past_a_full_mailbox_too() {
    let world = World::new();
    let (a, b) = (world.node("a").await, world.node_with("b", 4, |config| config).await);
    a.links.try_dial(b.address()).await.unwrap();
    a.has_link_to("b").await;
    let far = a.far("agent://b/worker");
    let first = Work { wait: true, ..Work::default() };
    soon(far.notify(Header::new(), &first)).await.unwrap();
    for number in 1..500 {
        soon(far.notify(Header::new(), &Work { number, ..Work::default() })).await.unwrap();
    }
    until(|| b.ledger.begun() == 1).await;
    b.ledger.gate.close();
    until(|| b.ledger.begun() == 500).await;
    assert_eq!(*b.ledger.numbers.lock().unwrap(), (0..500).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_actor_without_room_slows_its_senders_and_refuses_at_their_deadline() {
    let world = World::new();
    let (a, b) = (world.node("a").await, world.node_with("b", 1, |config| config).await);
    a.links.try_dial(b.address()).await.unwrap();
    a.has_link_to("b").await;
    let far = a.far("agent://b/worker");
    let busy = Work { wait: true, ..Work::default() };
    let _running = soon(far.ask(Header::new(), &busy)).await.unwrap();
    until(|| b.ledger.begun() == 1).await;
    let _waiting = soon(far.ask(Header::new(), &busy)).await.unwrap();
    let header = Header::new().within(a.clock(), Duration::from_millis(200));
    let mut stream = soon(far.ask(header, &Work::default())).await.unwrap();
    let refused = soon(stream.next()).await.unwrap().map(|_| ()).unwrap_err();
    assert!(matches!(refused, StreamError::Overloaded | StreamError::DeadlineExceeded));
}

#[tokio::test]
async fn a_cancelled_request_that_waits_for_room_is_never_handled() {
    let world = World::new();
    let (a, b) = (world.node("a").await, world.node_with("b", 1, |config| config).await);
    a.links.try_dial(b.address()).await.unwrap();
    a.has_link_to("b").await;
    let far = a.far("agent://b/worker");
    let busy = Work { wait: true, ..Work::default() };
    let _running = soon(far.ask(Header::new(), &busy)).await.unwrap();
    until(|| b.ledger.begun() == 1).await;
    let place = Work { number: 1, ..Work::default() };
    let _place = soon(far.ask(Header::new(), &place)).await.unwrap();
    let mut given_up = Vec::new();
    for number in [2, 3] {
        let work = Work { number, ..Work::default() };
        given_up.push(soon(far.ask(Header::new(), &work)).await.unwrap());
    }
    let last = Work { number: 4, ..Work::default() };
    let mut last = soon(far.ask(Header::new(), &last)).await.unwrap();
    drop(given_up);
    // A cancellation leaves with the next sweep, and this one follows it on the same lane.
    a.clock().sleep(Duration::from_millis(200)).await;
    b.ledger.gate.close();
    assert!(soon(last.next()).await.is_none());
    assert_eq!(*b.ledger.numbers.lock().unwrap(), [0, 1, 4]);
}

#[tokio::test]
async fn a_sender_that_outruns_its_peer_waits_for_credit_and_loses_nothing() {
    let (a, b) = World::new().pair().await;
    let far = a.far("agent://b/worker");
    for number in 0..20_000 {
        soon(far.notify(Header::new(), &Work { number, ..Work::default() })).await.unwrap();
    }
    until(|| b.ledger.begun() == 20_000).await;
    let status = &a.links.status()[0];
    assert!(status.credit_waits > 0 && status.sent_messages == 20_000);
    assert!(b.ledger.numbers.lock().unwrap().is_sorted());
}

#[tokio::test]
async fn large_messages_arrive_whole_and_are_not_copied_by_the_sender() {
    let (a, b) = World::new().pair().await;
    let far = a.far("agent://b/worker");
    for bytes in [1_000, 3_000, 33_000, 1_000_000, 20_000_000] {
        let before = a.links.status()[0].copied_bytes;
        let received = b.links.status()[0].clone();
        let work = Work { replies: 1, payload: vec![1; bytes], ..Work::default() };
        assert_eq!(all(&far, &work).await, Ok(vec![0]));
        let copied = a.links.status()[0].copied_bytes - before;
        assert_eq!(copied > 0, bytes < 2_000, "{bytes}: {copied}");
        // The receiver copies once, out of packets; in small pieces it may move what it has once more.
        let now = &b.links.status()[0];
        let archives = now.received_bytes - received.received_bytes;
        let copied = now.received_copied_bytes - received.received_copied_bytes;
        assert!(copied >= archives, "{bytes}: {copied} of {archives}");
        assert!(
            bytes < 32_000 && copied <= 2 * archives || copied == archives,
            "{bytes}: {copied}"
        );
    }
    assert_eq!(b.ledger.begun(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_finds_no_place_among_the_open_calls_waits_for_one_and_does_not_spin() {
    const CALLS: usize = neuroflow_transport::limits::LANE_CALLS;
    let world = World::new();
    let (a, b) = (world.node("a").await, world.node_with("b", CALLS + 8, |config| config).await);
    a.links.try_dial(b.address()).await.unwrap();
    a.has_link_to("b").await;
    let far = a.far("agent://b/worker");
    let waiting = Work { wait: true, ..Work::default() };
    let mut open = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        open.push(soon(far.ask(Header::new(), &waiting)).await.unwrap());
    }
    let before = a.links.status()[0].credit_waits;
    let header = Header::new().within(a.clock(), Duration::from_millis(500));
    let refused = soon(far.ask(header, &waiting)).await.unwrap_err();
    assert!(matches!(refused, AskError::Refused(Refusal::Overloaded { .. })), "{refused:?}");
    let tries = a.links.status()[0].credit_waits - before;
    assert!((1..1_000).contains(&tries), "{tries}");
    // What needs no answer needs no place.
    soon(far.notify(Header::new(), &Work { number: 1, ..Work::default() })).await.unwrap();
    // A place that becomes free is somebody's.
    let mut next = tokio::task::JoinSet::new();
    next.spawn(async move { far.ask(Header::new(), &Work::default()).await.map(|_| ()) });
    open.truncate(CALLS - 1);
    soon(next.join_next()).await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_without_room_slows_its_own_senders_and_nobody_elses() {
    const NOTICES: u32 = 20_000;
    let world = World::new();
    let (a, b) = (world.node("a").await, world.node_with("b", 1, |config| config).await);
    // Of so many names some take the worker's lane.
    let (spec, echo) = neuroflow_kernel::ChildSpec::new("echo", || Echo).unwrap();
    b.kernel.root().start(spec).await.unwrap();
    let names: Vec<String> = (0..16).map(|nth| format!("echo-{nth}")).collect();
    for name in &names {
        b.links.export(name, echo.clone(), Allowed::Everyone).unwrap();
    }
    a.links.try_dial(b.address()).await.unwrap();
    a.has_link_to("b").await;
    let far = a.far("agent://b/worker");
    soon(far.notify(Header::new(), &Work { wait: true, ..Work::default() })).await.unwrap();
    let mut sending = tokio::task::JoinSet::new();
    sending.spawn(async move {
        for number in 1..NOTICES {
            soon(far.notify(Header::new(), &Work { number, ..Work::default() })).await.unwrap();
        }
    });
    until(|| a.links.status()[0].credit_waits > 0).await;
    // A notice waits meanwhile, within its own bound.
    for name in &names {
        let echo = a.far(&format!("agent://b/{name}"));
        for _ in 0..20 {
            assert_eq!(all(&echo, &Work::default()).await, Ok(vec![]));
        }
    }
    assert_eq!(b.ledger.begun(), 1);
    b.ledger.gate.close();
    soon(sending.join_next()).await.unwrap().unwrap();
    until(|| b.ledger.begun() == NOTICES as usize).await;
    assert_eq!(*b.ledger.numbers.lock().unwrap(), (0..NOTICES).collect::<Vec<_>>());
}

/// Never answers, and takes its time for each.
struct Slow(std::sync::Arc<tokio::sync::Semaphore>);

impl neuroflow_kernel::Actor for Slow {
    type Message = Request<Work>;
    type Error = std::convert::Infallible;
    const KIND: &'static str = "slow";

    async fn handle(
        &mut self,
        _: Request<Work>,
        _: &mut neuroflow_kernel::Context<Request<Work>>,
    ) -> Result<(), Self::Error> {
        let _open = self.0.acquire().await;
        Ok(())
    }
}

/// One node, and another with so many actors that have no room.
async fn slow_ones(many: usize) -> (Node, Node, Vec<Address<Request<Work>>>) {
    let (a, b) = World::new().pair().await;
    let mut slow = Vec::new();
    for nth in 0..many {
        let (name, gate) = (format!("slow-{nth}"), b.ledger.gate.clone());
        let (spec, actor) =
            neuroflow_kernel::ChildSpec::new(&name, move || Slow(gate.clone())).unwrap();
        b.kernel.root().start(spec.mailbox(1)).await.unwrap();
        b.links.export(&name, actor, Allowed::Everyone).unwrap();
        slow.push(a.far(&format!("agent://b/{name}")));
    }
    (a, b, slow)
}

/// Tells it of so much work, or as much as finds room soon. None has a deadline: it waits for as long as it takes.
async fn fill(a: &Node, far: &Address<Request<Work>>, most: u32) {
    for number in 0..most {
        let parcel = Parcel::archive(&Work { number, ..Work::default() }).unwrap();
        let mut notice = Some(Request { parcel, replies: ReplySink::unheard() });
        for _ in 0..20 {
            let Some(untold) = notice.take() else { break };
            if let Err(unsent) = far.try_tell(Header::new(), untold) {
                notice = Some(unsent.message);
                a.clock().sleep(Duration::from_millis(5)).await;
            }
        }
        if notice.is_some() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn some_actors_without_room_starve_neither_others_nor_watches() {
    // On either lane more than have what they are told, all together, within its credit.
    let (a, b, slow) = slow_ones(12).await;
    // Of so many names some take either lane.
    let (spec, echo) = neuroflow_kernel::ChildSpec::new("echo", || Echo).unwrap();
    b.kernel.root().start(spec).await.unwrap();
    let names: Vec<String> = (0..16).map(|nth| format!("echo-{nth}")).collect();
    for name in &names {
        b.links.export(name, echo.clone(), Allowed::Everyone).unwrap();
    }
    for far in &slow {
        fill(&a, far, 1_000).await;
    }
    let watch = tokio::task::JoinSet::from_iter([a.far("agent://b/echo-0").down()]);
    for name in &names {
        let far = a.far(&format!("agent://b/{name}"));
        assert_eq!(all(&far, &Work::default()).await, Ok(vec![]), "{name}");
        soon(a.links.this_life::<Work>(&format!("agent://b/{name}"))).await.unwrap();
    }
    // Who watches hears of an end, and of nothing else.
    assert!(watch.len() == 1 && a.state_of("b") == Some(LinkState::Up));
    let echo = neuroflow_kernel::Name::new("echo").unwrap();
    b.kernel.root().stop_child(&echo).await.unwrap();
    let heard = soon(watch.join_all()).await;
    assert_eq!(heard[0].fall, neuroflow_kernel::Fall::Stopped);
    b.ledger.gate.close();
    // And the slow ones are asked again once they have room.
    for far in &slow {
        soon(far.notify(Header::new(), &Work::default())).await.unwrap();
    }
}
