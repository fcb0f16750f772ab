//! What becomes of callers when a link or a node is lost, and how links come back.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use neuroflow_kernel::{AskError, Clock, Header, ManualClock, Refusal, StreamError};
use neuroflow_transport::limits::FORGET_DEAD;
use neuroflow_transport::{LinkState, LinksConfig, SeedError};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use crate::world::{HOUR, Node, Work, World, all, now, soon, until};

#[tokio::test]
async fn a_killed_node_ends_its_callers_at_once_and_later_ones_too() {
    let (a, b) = World::new().pair().await;
    let far = a.far("agent://b/worker");
    let waiting = Work { wait: true, ..Work::default() };
    let mut stream = soon(far.ask(Header::new(), &waiting)).await.unwrap();
    until(|| b.ledger.begun() == 1).await;
    drop(b.kernel);
    assert!(matches!(soon(stream.next()).await, Some(Err(StreamError::Lost))));
    assert!(soon(stream.next()).await.is_none());
    a.has_lost("b").await;
    let refused = soon(far.ask(Header::new(), &waiting)).await.unwrap_err();
    assert!(matches!(refused, AskError::Refused(Refusal::Unreachable(_))));
}

#[tokio::test]
async fn work_for_a_lost_caller_is_cancelled() {
    let (a, b) = World::new().pair().await;
    let waiting = Work { wait: true, ..Work::default() };
    let _stream = soon(a.far("agent://b/worker").ask(Header::new(), &waiting)).await.unwrap();
    until(|| b.ledger.begun() == 1).await;
    a.kernel.stop().await;
    until(|| b.ledger.cancelled() == 1).await;
}

#[tokio::test]
async fn a_link_comes_back_when_its_node_does() {
    let world = World::new();
    let a = world.node("a").await;
    let credential = world.credential("b", &[]);
    let config =
        |listen: std::net::SocketAddr| LinksConfig::new(listen, credential.clone(), world.trust());
    let b = Node::start(config(quiet_place(1)), 8).await;
    let at = b.address();
    a.links.dial(at).await;
    a.has_link_to("b").await;
    let far = a.far("agent://b/worker");
    assert_eq!(all(&far, &Work::default()).await, Ok(vec![]));
    b.kernel.stop().await;
    a.has_lost("b").await;
    until(|| std::net::UdpSocket::bind(at).is_ok()).await;
    let b = Node::start(config(at), 8).await;
    a.has_link_to("b").await;
    assert_eq!(all(&far, &Work::default()).await, Ok(vec![]));
    assert_eq!(b.ledger.begun(), 1);
    assert!(a.links.status()[0].reconnects >= 1);
}

#[tokio::test]
async fn who_has_left_is_forgotten_in_time_and_not_dialled_any_more() {
    let (world, time) = (World::new(), ManualClock::new());
    let listen = "127.0.0.1:0".parse().unwrap();
    let config = LinksConfig::new(listen, world.credential("a", &[]), world.trust());
    let a = Node::start_by(time.clock(), config, 8).await;
    let config = LinksConfig::new(quiet_place(4), world.credential("b", &[]), world.trust());
    let b = Node::start(config, 8).await;
    let place = b.address();
    a.links.dial(place).await;
    a.has_link_to("b").await;
    let counts = || a.links.members().iter().any(|member| !member.own);
    until(|| {
        time.advance(Duration::from_millis(10));
        counts()
    })
    .await;
    b.kernel.stop().await;
    a.has_lost("b").await;
    until(|| std::net::UdpSocket::bind(place).is_ok()).await;
    let nobody = UdpSocket::bind(place).await.unwrap();
    // It's dialled for as long as it's remembered.
    time.advance(FORGET_DEAD / 2);
    soon(nobody.recv(&mut [0; 2_048])).await.unwrap();
    assert_eq!(a.state_of("b"), Some(LinkState::Down));
    until(|| {
        time.advance(Duration::from_secs(5));
        a.links.status().is_empty() && !counts()
    })
    .await;
    // So its actor ends, with the last dial that was under way.
    let is_there = || a.kernel.tree().iter().any(|it| it.path.to_string() == "/cluster/b");
    until(|| {
        time.advance(Duration::from_secs(5));
        !is_there()
    })
    .await;
    let quiet = Clock::system();
    let hears = async |nobody: &UdpSocket| {
        let at = quiet.now() + Duration::from_millis(300);
        quiet.before(at, nobody.recv(&mut [0; 2_048])).await.is_ok()
    };
    soon(async { while hears(&nobody).await {} }).await;
    time.advance(FORGET_DEAD);
    assert!(!hears(&nobody).await, "somebody is still dialled");
}

#[tokio::test]
async fn a_seed_is_dialled_until_it_is_there() {
    let world = World::new();
    let nobody = UdpSocket::bind(quiet_place(2)).await.unwrap();
    let place = nobody.local_addr().unwrap();
    let a = world.node_with("a", 8, |config| config.seed(place)).await;
    // It has dialled, and nobody has answered.
    soon(nobody.recv(&mut [0; 2_048])).await.unwrap();
    let seed = || a.links.seeds().remove(0);
    assert_eq!(seed().name, place.to_string());
    let unanswered =
        |error: &SeedError| matches!(error, SeedError::Unanswered { addresses: 1, .. });
    until(|| seed().failure.is_some_and(|error| unanswered(&error))).await;
    drop(nobody);
    let credential = world.credential("b", &[]);
    let config = LinksConfig::new(place, credential, world.trust());
    let _b = Node::start(config, 8).await;
    a.has_link_to("b").await;
    until(|| seed().failure.is_none()).await;
}

#[tokio::test]
async fn a_seed_that_comes_back_with_another_key_is_found_at_its_address() {
    let world = World::new();
    let config = |at| LinksConfig::new(at, world.credential("b", &[]), world.trust());
    let old = Node::start(config(quiet_place(3)), 8).await;
    let place = old.address();
    let a = world.node_with("a", 8, |config| config.seed(place)).await;
    a.has_link_to("b").await;
    old.kernel.stop().await;
    a.has_lost("b").await;
    until(|| std::net::UdpSocket::bind(place).is_ok()).await;
    // It knows nobody.
    let new = Node::start(config(place), 8).await;
    assert_ne!(new.links.id(), old.links.id());
    let is_up = |link: &neuroflow_transport::LinkStatus| {
        link.node == new.links.id() && link.state == LinkState::Up
    };
    until(|| a.links.status().iter().any(is_up)).await;
}

#[tokio::test]
async fn a_seed_that_has_led_to_the_node_itself_may_lead_elsewhere_later() {
    let world = World::new();
    // An address that somebody in between leads to one node or another.
    let between = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let virtual_ip = between.local_addr().unwrap();
    let a = world.node_with("a", 8, |config| config.seed(virtual_ip)).await;
    let behind = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let target = Arc::new(Mutex::new(a.address()));
    let to = Arc::clone(&target);
    let mut passing = JoinSet::new();
    passing.spawn(async move {
        let (mut there, mut back) = (vec![0; 65_536], vec![0; 65_536]);
        let mut from = None;
        loop {
            tokio::select! {
                came = between.recv_from(&mut there) => {
                    let (bytes, whom) = came.unwrap();
                    from = Some(whom);
                    let to = *to.lock().unwrap();
                    behind.send_to(&there[..bytes], to).await.unwrap();
                }
                came = behind.recv_from(&mut back) => {
                    let (bytes, _) = came.unwrap();
                    if let Some(whom) = from {
                        between.send_to(&back[..bytes], whom).await.unwrap();
                    }
                }
            }
        }
    });
    // It has dialled itself, and hung up.
    until(|| a.links.strangers().failed > 0).await;
    let b = world.node("b").await;
    *target.lock().unwrap() = b.address();
    a.has_link_to("b").await;
    assert!(a.links.status().iter().all(|link| link.node == b.links.id()));
}

/// An address of this machine that no other test or program listens at, so that a port there is still
/// free when it's needed again.
fn quiet_place(nth: u8) -> std::net::SocketAddr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    std::net::SocketAddr::from(([127, 100 + nth, high, low.clamp(1, 254)], 0))
}

#[tokio::test]
async fn when_both_dial_one_connection_stays() {
    let world = World::new();
    for _ in 0..10 {
        let (a, b) = (world.node("a").await, world.node("b").await);
        let (from_a, from_b) =
            tokio::join!(a.links.try_dial(b.address()), b.links.try_dial(a.address()));
        assert!(from_a.is_ok() || from_b.is_ok(), "{from_a:?} {from_b:?}");
        a.has_link_to("b").await;
        b.has_link_to("a").await;
        for (node, far) in [(&a, "agent://b/worker"), (&b, "agent://a/worker")] {
            assert_eq!(all(&node.far(far), &Work::default()).await, Ok(vec![]));
        }
        assert_eq!(a.links.status().len() + b.links.status().len(), 2);
    }
}

#[tokio::test]
async fn a_revoked_node_loses_its_link_and_gets_no_other() {
    let (a, b) = World::new().pair().await;
    let waiting = Work { wait: true, ..Work::default() };
    let mut stream = soon(b.far("agent://a/worker").ask(Header::new(), &waiting)).await.unwrap();
    until(|| a.ledger.begun() == 1).await;
    a.links.revoke(b.links.id());
    assert!(matches!(soon(stream.next()).await, Some(Err(StreamError::Lost))));
    assert!(b.links.try_dial(a.address()).await.is_err());
    assert_eq!(a.state_of("b"), Some(LinkState::Revoked));
    let refused = soon(a.far("agent://b/worker").ask(Header::new(), &waiting)).await.unwrap_err();
    assert!(matches!(refused, AskError::Refused(Refusal::Unreachable(_))));
}

#[tokio::test]
async fn a_draining_node_takes_no_new_requests_and_finishes_the_old() {
    let (a, b) = World::new().pair().await;
    let far = a.far("agent://b/worker");
    let waiting = Work { wait: true, replies: 1, ..Work::default() };
    let mut stream = soon(far.ask(Header::new(), &waiting)).await.unwrap();
    until(|| b.ledger.begun() == 1).await;
    b.links.drain();
    let drained = async {
        while soon(far.ask(Header::new(), &Work::default())).await.is_ok() {
            a.clock().sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    soon(drained).await;
    b.ledger.gate.close();
    assert_eq!(soon(stream.next()).await.unwrap().unwrap().get().number, 0);
    assert!(soon(stream.next()).await.is_none());
}

#[tokio::test]
async fn a_node_that_stops_finishes_what_it_was_asked_and_takes_nothing_new() {
    let (a, b) = World::new().pair().await;
    let far = a.far("agent://b/worker");
    let waiting = Work { wait: true, replies: 4, large: 300_000, ..Work::default() };
    let mut stream = soon(far.ask(Header::new(), &waiting)).await.unwrap();
    until(|| b.ledger.begun() == 1).await;
    let Node { kernel, ledger, .. } = b;
    let mut stopping = JoinSet::new();
    stopping.spawn(async move { kernel.stop().await });
    loop {
        // Those that were under way when it began to leave are taken, and answered as well.
        match soon(far.ask(Header::new(), &Work::default())).await {
            Ok(_taken) => a.clock().sleep(std::time::Duration::from_millis(5)).await,
            Err(refused) => {
                assert!(matches!(refused, AskError::Refused(Refusal::Unreachable(_))));
                break;
            }
        }
    }
    ledger.gate.close();
    for number in 0..4 {
        assert_eq!(soon(stream.next()).await.unwrap().unwrap().get().number, number);
    }
    assert!(soon(stream.next()).await.is_none());
    soon(stopping.join_next()).await.unwrap().unwrap();
    a.has_lost("b").await;
}

#[tokio::test]
async fn a_node_that_stops_waits_neither_for_ever_nor_for_who_only_watches() {
    let world = World::new();
    let a = world.node("a").await;
    let hour = |config: LinksConfig| config.leave_within(HOUR);
    let b = world.node_with("b", 8, hour).await;
    a.links.try_dial(b.address()).await.unwrap();
    a.has_link_to("b").await;
    let mut watch = JoinSet::new();
    watch.spawn(a.far("agent://b/worker").down());
    until(|| a.links.status()[0].open_calls == 1).await;
    assert_eq!(all(&a.far("agent://b/worker"), &Work::default()).await, Ok(vec![]));
    soon(b.kernel.stop()).await;
    soon(watch.join_next()).await.unwrap().unwrap();

    let short = std::time::Duration::from_millis(100);
    let c = world.node_with("c", 8, |config| config.leave_within(short)).await;
    a.links.try_dial(c.address()).await.unwrap();
    a.has_link_to("c").await;
    let waiting = Work { wait: true, ..Work::default() };
    let mut stream = soon(a.far("agent://c/worker").ask(Header::new(), &waiting)).await.unwrap();
    until(|| c.ledger.begun() == 1).await;
    soon(c.kernel.stop()).await;
    assert!(matches!(soon(stream.next()).await, Some(Err(StreamError::Lost))));
}

#[tokio::test]
async fn a_link_ends_with_its_peers_certificate_and_comes_back_with_another() {
    let world = World::new();
    let a = world.node("a").await;
    // Longer than any machine takes to make a link.
    let life = std::time::Duration::from_secs(8);
    let short = world.authority.issue("b", &[], life, now()).unwrap();
    let longer = world.authority.renew(short.certificate_pem(), HOUR, now()).unwrap();
    let longer = short.renewed(&longer.certificate_pem).unwrap();
    let listen = "127.0.0.1:0".parse().unwrap();
    let config = LinksConfig::new(listen, short.clone(), world.trust());
    let b = Node::start(config, 8).await;
    a.links.try_dial(b.address()).await.unwrap();
    a.has_link_to("b").await;
    assert_eq!(a.links.status()[0].certificate_expires, short.expires());
    // Until then it may be lost and made again; afterwards it isn't.
    until(|| now() >= short.expires()).await;
    a.has_lost("b").await;
    b.links.renew(&longer).unwrap();
    a.has_link_to("b").await;
    assert_eq!(a.links.status()[0].certificate_expires, longer.expires());
    // Both dial anew, and of two links one ends; what is asked over that one is lost with it.
    let far = a.far("agent://b/worker");
    soon(async {
        while all(&far, &Work::default()).await != Ok(vec![]) {
            a.clock().sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_name_is_of_a_node_that_is_there() {
    let world = World::new();
    let a = world.node("a").await;
    let (first, second) = (world.node("b").await, world.node("b").await);
    for node in [&first, &second] {
        a.links.try_dial(node.address()).await.unwrap();
    }
    let far = a.far("agent://b/worker");
    assert_eq!(all(&far, &Work::default()).await, Ok(vec![]));
    assert_eq!((first.ledger.begun(), second.ledger.begun()), (0, 1), "who came last");
    let gone = second.links.id();
    second.kernel.stop().await;
    until(|| a.links.status().iter().any(|it| it.node == gone && it.state == LinkState::Down))
        .await;
    assert_eq!(all(&far, &Work::default()).await, Ok(vec![]));
    assert_eq!(first.ledger.begun(), 1);
}
