//! Calls with a key: sent as often as it takes, run once.

use std::time::Duration;

use futures_util::future::join_all;
use neuroflow_kernel::{Header, Parcel, Refusal, StreamError};
use neuroflow_transport::limits::LANE_CREDIT_BYTES;
use neuroflow_transport::{CallKey, KeyedError};

use crate::world::{Done, Node, Work, World, soon, until};

async fn call(node: &Node, target: &str, key: &str, work: &Work) -> Result<Vec<u32>, KeyedError> {
    let header = Header::new().within(node.clock(), Duration::from_secs(15));
    let answer = soon(node.links.call(target, header, CallKey::of(key), work)).await;
    answer.map(|answer| answer.iter().map(number).collect())
}

fn number(reply: &Parcel<Done>) -> u32 {
    reply.get().number.to_native()
}

const B: &str = "agent://b/worker";

#[tokio::test]
async fn the_same_key_runs_once_and_its_answer_is_told_again() {
    let world = World::new();
    let (a, b) = world.pair().await;
    let work = Work { replies: 3, bytes: 10, ..Work::default() };
    for _ in 0..3 {
        assert_eq!(call(&a, B, "one", &work).await.unwrap(), [0, 1, 2]);
    }
    assert_eq!(b.ledger.begun(), 1);
    assert_eq!(call(&a, B, "two", &work).await.unwrap(), [0, 1, 2]);
    assert_eq!(b.ledger.begun(), 2);
    // Another node's key is another key, and so is this node's own.
    let c = world.node("c").await;
    c.links.try_dial(b.address()).await.unwrap();
    assert_eq!(call(&c, B, "one", &work).await.unwrap(), [0, 1, 2]);
    assert_eq!(call(&b, B, "one", &work).await.unwrap(), [0, 1, 2]);
    assert_eq!(call(&b, B, "one", &work).await.unwrap(), [0, 1, 2]);
    assert_eq!(b.ledger.begun(), 4);
}

#[tokio::test]
async fn a_second_call_joins_the_first_while_that_runs() {
    let (a, b) = World::new().pair().await;
    let work = Work { replies: 2, wait: true, ..Work::default() };
    let (first, second, ()) =
        tokio::join!(call(&a, B, "one", &work), call(&a, B, "one", &work), async {
            until(|| b.ledger.begun() == 1).await;
            b.ledger.gate.close();
        });
    assert_eq!((first.unwrap(), second.unwrap()), (vec![0, 1], vec![0, 1]));
    assert_eq!(b.ledger.begun(), 1);
}

#[tokio::test]
async fn a_lost_link_is_no_loss_to_a_call_with_a_key() {
    let (a, b) = World::new().pair().await;
    let work = Work { replies: 1, wait: true, ..Work::default() };
    let (answer, ()) = tokio::join!(call(&a, B, "one", &work), async {
        until(|| b.ledger.begun() == 1).await;
        for times in 1..4 {
            assert!(a.links.reconnect(b.links.id()));
            until(|| a.links.status()[0].reconnects >= times).await;
            a.has_link_to("b").await;
            b.has_link_to("a").await;
        }
        b.ledger.gate.close();
    });
    assert_eq!(answer.unwrap(), [0]);
    assert_eq!((b.ledger.begun(), b.ledger.cancelled()), (1, 0));
}

/// A worker with so many places, behind its gate, whom two others may ask.
async fn two_askers(world: &World, places: usize) -> (Node, Node, Node) {
    let (a, b) = (world.node("a").await, world.node_with("b", places, |config| config).await);
    let c = world.node("c").await;
    for node in [&a, &c] {
        node.links.try_dial(b.address()).await.unwrap();
        node.has_link_to("b").await;
    }
    b.has_link_to("a").await;
    b.has_link_to("c").await;
    (a, b, c)
}

/// Messages that a node's peer has sent it.
fn received(node: &Node, peer: &str) -> u64 {
    let status = node.links.status();
    status.iter().find(|link| link.name.as_str() == peer).map_or(0, |link| link.received_messages)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_wait_for_room_when_their_node_dies_leave_the_room_to_others() {
    let (a, b, c) = two_askers(&World::new(), 4).await;
    let Node { kernel, links, .. } = a;
    let work = Work { wait: true, ..Work::default() };
    let one = |nth: usize| {
        let header = Header::new().within(b.clock(), Duration::from_mins(1));
        links.call(B, header, CallKey::of(&nth.to_string()), &work)
    };
    tokio::select! {
        _ended = join_all((0..12).map(one)) => panic!("nobody has answered"),
        () = async {
            until(|| b.ledger.begun() == 1 && received(&b, "a") == 12).await;
            drop(kernel);
            b.has_lost("a").await;
        } => {}
    }
    b.ledger.gate.close();
    let plain = Work { replies: 1, ..Work::default() };
    assert_eq!(soon(call(&c, B, "one", &plain)).await.unwrap(), [0]);
    until(|| b.worker.mailbox_depth() == 0).await;
    soon(b.worker.notify(Header::new(), &plain)).await.unwrap();
    // What had no place wasn't run, and nothing else was twice.
    until(|| b.ledger.begun() == 1 + 4 + 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_whose_caller_is_gone_holds_up_nobody_and_is_told_when_that_comes_back() {
    let world = World::new();
    let credential = world.credential("a", &[]);
    let (a, b) = (world.node_as(&credential).await, world.node("b").await);
    let c = world.node("c").await;
    for node in [&a, &c] {
        node.links.try_dial(b.address()).await.unwrap();
        node.has_link_to("b").await;
    }
    b.has_link_to("a").await;
    let Node { kernel, links, .. } = a;
    // More than a stream of replies holds.
    let work = Work { replies: 200, wait: true, ..Work::default() };
    let header = Header::new().within(b.clock(), Duration::from_mins(1));
    tokio::select! {
        _ended = links.call(B, header, CallKey::of("one"), &work) => panic!("it waits"),
        () = async {
            until(|| b.ledger.begun() == 1).await;
            drop(kernel);
            b.has_lost("a").await;
        } => {}
    }
    b.ledger.gate.close();
    let plain = Work { replies: 1, ..Work::default() };
    assert_eq!(call(&c, B, "other", &plain).await.unwrap(), [0]);
    let a = world.node_as(&credential).await;
    a.links.try_dial(b.address()).await.unwrap();
    let told = call(&a, B, "one", &work).await.unwrap();
    assert_eq!(told, (0..200).collect::<Vec<_>>());
    assert_eq!((b.ledger.begun(), b.ledger.cancelled()), (2, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_waits_for_room_runs_once_whatever_links_are_lost() {
    let (a, b, _c) = two_askers(&World::new(), 1).await;
    let busy = Work { wait: true, ..Work::default() };
    for begun in [1, 1] {
        soon(b.worker.notify(Header::new(), &busy)).await.unwrap();
        until(|| b.ledger.begun() == begun).await;
    }
    let work = Work { replies: 1, number: 7, ..Work::default() };
    let (first, second, ()) =
        tokio::join!(call(&a, B, "one", &work), call(&a, B, "one", &work), async {
            until(|| received(&b, "a") >= 2).await;
            for times in 1..4 {
                let before = received(&b, "a");
                assert!(a.links.reconnect(b.links.id()));
                until(|| a.links.status()[0].reconnects >= times).await;
                until(|| received(&b, "a") >= before + 2).await;
            }
            b.ledger.gate.close();
        });
    assert_eq!((first.unwrap(), second.unwrap()), (vec![0], vec![0]));
    let numbers = b.ledger.numbers.lock().unwrap().clone();
    assert_eq!(numbers, [0, 0, 7]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_wait_for_room_take_their_senders_credit() {
    const MIB: usize = 1024 * 1024;
    let (a, b, _c) = two_askers(&World::new(), 1).await;
    let work = Work { wait: true, payload: vec![7; MIB], ..Work::default() };
    let one = |nth: usize| {
        let header = Header::new().within(a.clock(), Duration::from_mins(1));
        a.links.call(B, header, CallKey::of(&nth.to_string()), &work)
    };
    let held = || {
        let status = b.links.status();
        status.iter().find(|link| link.name.as_str() == "a").map_or(0, |link| link.buffered_bytes)
    };
    let (ended, ()) = tokio::join!(join_all((0..24).map(one)), async {
        // All but what is handled and what is in the mailbox, and more than is read at a time.
        until(|| held() >= 20 * MIB).await;
        assert!(held() <= usize::try_from(LANE_CREDIT_BYTES).unwrap() + 2 * MIB, "{}", held());
        b.ledger.gate.close();
    });
    assert!(ended.iter().all(Result::is_ok));
    assert_eq!(b.ledger.begun(), 24);
    until(|| held() == 0).await;
}

#[tokio::test]
async fn a_call_isnt_sent_to_a_node_that_began_anew_while_it_may_have_run() {
    let world = World::new();
    let a = world.node("a").await;
    let credential = world.credential("b", &[]);
    let b = world.node_as(&credential).await;
    a.links.dial(b.address()).await;
    a.has_link_to("b").await;
    let work = Work { wait: true, ..Work::default() };
    let (answer, b) = tokio::join!(call(&a, B, "one", &work), async {
        until(|| b.ledger.begun() == 1).await;
        b.kernel.stop().await;
        // Another port: the old one may be somebody else's by now.
        let b = world.node_as(&credential).await;
        b.links.dial(a.address()).await;
        b
    });
    let error = answer.unwrap_err();
    assert!(matches!(error, KeyedError::BeganAnew) && error.may_have_run(), "{error}");
    assert_eq!(b.ledger.begun(), 0);
}

#[tokio::test]
async fn a_call_waits_for_a_node_that_isnt_there_yet() {
    let world = World::new();
    let a = world.node("a").await;
    let work = Work { replies: 1, ..Work::default() };
    let (answer, b) = tokio::join!(call(&a, B, "one", &work), async {
        let b = world.node("b").await;
        b.links.dial(a.address()).await;
        b
    });
    assert_eq!(answer.unwrap(), [0]);
    assert_eq!(b.ledger.begun(), 1);
}

#[tokio::test]
async fn what_didnt_run_says_so() {
    let (a, b) = World::new().pair().await;
    let unknown = call(&a, "agent://b/nobody", "one", &Work::default()).await.unwrap_err();
    assert!(matches!(unknown, KeyedError::Ended { why: StreamError::Unknown, .. }));
    assert!(!unknown.may_have_run());
    let stale = call(&a, "agent://b/worker#9", "one", &Work::default()).await.unwrap_err();
    assert!(matches!(stale, KeyedError::Ended { why: StreamError::Stale, .. }));
    // It wasn't run, so the key is free.
    assert!(call(&a, "agent://b/worker#1", "one", &Work::default()).await.is_ok());
    let header = Header::new().within(a.clock(), Duration::from_millis(300));
    let key = CallKey::random().unwrap();
    let nowhere = soon(a.links.call("agent://z/worker", header, key, &Work::default())).await;
    let nowhere = nowhere.unwrap_err();
    assert!(matches!(nowhere, KeyedError::Refused { why: Refusal::Unreachable(_), .. }));
    assert!(!nowhere.may_have_run());
    assert_eq!(b.ledger.begun(), 1);
}

#[tokio::test]
async fn a_failure_is_told_again_and_an_answer_too_large_to_keep_is_said_to_be() {
    let (a, b) = World::new().pair().await;
    let panic = Work { panic: true, ..Work::default() };
    for _ in 0..2 {
        let error = call(&a, B, "one", &panic).await.unwrap_err();
        assert!(matches!(error, KeyedError::Ended { why: StreamError::Panicked, .. }));
        assert!(error.may_have_run());
    }
    assert_eq!(b.ledger.begun(), 1);
    let large = Work { replies: 2, large: 5_000_000, ..Work::default() };
    for _ in 0..2 {
        let error = call(&a, B, "two", &large).await.unwrap_err();
        assert!(matches!(error, KeyedError::Ended { why: StreamError::Forgotten, .. }), "{error}");
    }
    assert_eq!(b.ledger.begun(), 2);
}

#[tokio::test]
async fn who_gives_up_cancels_the_run() {
    let (a, b) = World::new().pair().await;
    let work = Work { wait: true, ..Work::default() };
    // Also on its own node.
    for (nth, who) in [&a, &b].into_iter().enumerate() {
        let (begun, cancelled) = (b.ledger.begun(), b.ledger.cancelled());
        let header = Header::new().within(who.clock(), Duration::from_millis(200));
        let key = CallKey::of("one");
        let late = soon(who.links.call(B, header, key, &work)).await.unwrap_err();
        assert!(matches!(late, KeyedError::Ended { why: StreamError::DeadlineExceeded, .. }));
        assert!(late.may_have_run());
        until(|| b.ledger.cancelled() == cancelled + 1).await;
        let again = call(who, B, "one", &work).await.unwrap_err();
        assert!(matches!(again, KeyedError::Ended { why: StreamError::Interrupted, .. }), "{nth}");
        assert_eq!(b.ledger.begun(), begun + 1);
        // Without a word.
        tokio::select! {
            _ended = call(who, B, "two", &work) => panic!("it waits"),
            () = until(|| b.ledger.begun() == begun + 2) => {}
        }
        until(|| b.ledger.cancelled() == cancelled + 2).await;
    }
}

#[tokio::test]
async fn a_run_that_another_has_joined_outlives_who_gives_it_up() {
    let (_a, b) = World::new().pair().await;
    let work = Work { replies: 1, wait: true, ..Work::default() };
    let header = Header::new().within(b.clock(), Duration::from_millis(200));
    let (brief, patient) = tokio::join!(
        async {
            let late = soon(b.links.call(B, header, CallKey::of("one"), &work)).await;
            b.ledger.gate.close();
            late
        },
        call(&b, B, "one", &work)
    );
    assert!(brief.unwrap_err().may_have_run());
    assert_eq!((patient.unwrap(), b.ledger.cancelled()), (vec![0], 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_has_asked_for_ends_when_it_is_shut_out() {
    for linked in [true, false] {
        let (a, b) = World::new().pair().await;
        let Node { kernel, links, .. } = a;
        let work = Work { wait: true, ..Work::default() };
        let header = Header::new().within(b.clock(), Duration::from_mins(1));
        tokio::select! {
            ended = links.call(B, header, CallKey::of("one"), &work) => panic!("{:?}", ended.map(drop)),
            () = async {
                until(|| b.ledger.begun() == 1).await;
                if !linked {
                    drop(kernel);
                    b.has_lost("a").await;
                }
                b.links.revoke(links.id());
                until(|| b.ledger.cancelled() == 1).await;
            } => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_node_the_same_key_goes_to_the_same_node_or_nobody_can_know() {
    let world = World::new();
    // Nothing is placed on the one that asks.
    let a = world.node_with("a", 8, |config| config.capacity(0)).await;
    let (b, c) = (world.node("b").await, world.node("c").await);
    for node in [&b, &c] {
        a.links.dial(node.address()).await;
    }
    until(|| a.links.placement("worker", b"any").len() == 2).await;
    let work = Work { replies: 1, ..Work::default() };
    for _ in 0..3 {
        assert_eq!(call(&a, "agent://*/worker", "one", &work).await.unwrap(), [0]);
    }
    let (ran, other) = if b.ledger.begun() == 1 { (b, c) } else { (c, b) };
    assert_eq!((ran.ledger.begun(), other.ledger.begun()), (1, 0));
    // A call that surely didn't run isn't bound to anybody.
    let unknown = call(&a, "agent://*/nobody", "one", &work).await.unwrap_err();
    assert!(!unknown.may_have_run(), "{unknown}");
    let gone = ran.links.id();
    drop(ran.kernel);
    until(|| a.links.placement("worker", b"any") == [other.links.id()]).await;
    let header = Header::new().within(a.clock(), Duration::from_millis(300));
    let again = a.links.call("agent://*/worker", header, CallKey::of("one"), &work);
    let again = soon(again).await.unwrap_err();
    assert!(again.may_have_run(), "{again}: {gone:?} isn't there to say");
    assert_eq!(other.ledger.begun(), 0);
    assert_eq!(call(&a, "agent://*/worker", "two", &work).await.unwrap(), [0]);
    assert_eq!(other.ledger.begun(), 1);
}

/// One on which nothing is placed, and two others that it can ask.
async fn asker_and_two(world: &World) -> (Node, Node, Node) {
    let a = world.node_with("a", 8, |config| config.capacity(0)).await;
    let brief =
        |config: neuroflow_transport::LinksConfig| config.leave_within(Duration::from_millis(100));
    let (b, c) = (world.node_with("b", 8, brief).await, world.node_with("c", 8, brief).await);
    for node in [&b, &c] {
        a.links.dial(node.address()).await;
        node.has_link_to("a").await;
    }
    until(|| a.links.placement("worker", b"any").len() == 2).await;
    (a, b, c)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_placed_call_whose_link_is_cut_stays_where_it_runs_wherever_others_are_placed() {
    let world = World::new();
    let (a, b, c) = asker_and_two(&world).await;
    let work = Work { replies: 1, wait: true, ..Work::default() };
    let place = "agent://*/worker";
    let (first, second, (ran, other)) =
        tokio::join!(call(&a, place, "one", &work), call(&a, place, "one", &work), async {
            until(|| b.ledger.begun() + c.ledger.begun() == 1).await;
            let (ran, other) = if b.ledger.begun() == 1 { (&b, &c) } else { (&c, &b) };
            ran.links.set_draining(true);
            until(|| a.links.placement("worker", b"any") == [other.links.id()]).await;
            for times in 1..4 {
                let before = || {
                    let status = a.links.status();
                    let link = status.iter().find(|link| link.node == ran.links.id());
                    link.map_or(0, |link| link.reconnects)
                };
                assert!(a.links.reconnect(ran.links.id()));
                until(|| before() >= times).await;
                a.has_link_to(ran.links.name().as_str()).await;
                ran.has_link_to("a").await;
            }
            ran.ledger.gate.close();
            (ran, other)
        });
    assert_eq!((first.unwrap(), second.unwrap()), (vec![0], vec![0]));
    assert_eq!((ran.ledger.begun(), other.ledger.begun()), (1, 0));
    assert_eq!(call(&a, place, "one", &work).await.unwrap(), [0], "told again");
    assert_eq!((ran.ledger.begun(), other.ledger.begun()), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_placed_call_whose_node_leaves_may_have_run_and_goes_nowhere_else() {
    let world = World::new();
    let (a, b, c) = asker_and_two(&world).await;
    let work = Work { replies: 1, wait: true, ..Work::default() };
    let place = "agent://*/worker";
    let (answer, other) = tokio::join!(call(&a, place, "one", &work), async {
        until(|| b.ledger.begun() + c.ledger.begun() == 1).await;
        let (ran, other) = if b.ledger.begun() == 1 { (b, c) } else { (c, b) };
        ran.kernel.stop().await;
        other
    });
    // Long before its deadline: nobody can say any more what became of it.
    let error = answer.unwrap_err();
    assert!(matches!(error, KeyedError::BeganAnew) && error.may_have_run(), "{error}");
    let again = call(&a, place, "one", &work).await.unwrap_err();
    assert!(matches!(again, KeyedError::BeganAnew), "{again}");
    assert_eq!(other.ledger.begun(), 0);
}
