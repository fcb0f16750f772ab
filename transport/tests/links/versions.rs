//! Nodes of two protocols side by side, as in a rolling upgrade: what both know works both ways.

use neuroflow_kernel::{Fall, Header};
use neuroflow_transport::{CallKey, LinksError, Member};

use crate::world::{Node, Work, World, all, soon, until};

/// The newest protocol, and one that there isn't.
const NEWEST: u16 = 3;
const UNKNOWN: u16 = 4;

fn protocol(node: &Node, peer: &str) -> Option<u16> {
    let status = node.links.status();
    status.iter().find(|link| link.name.as_str() == peer).and_then(|link| link.protocol)
}

fn member(node: &Node, name: &str) -> Option<Member> {
    node.links.members().into_iter().find(|member| member.name.as_str() == name)
}

async fn older(world: &World, name: &str, newest: u16) -> Node {
    world.node_with(name, 4, |config| config.newest_protocol(newest)).await
}

/// Everything that callers do, from one to the other.
async fn talk(from: &Node, to: &Node) {
    let name = to.links.name().to_string();
    let target = format!("agent://{name}/worker");
    let far = from.far(&target);
    let mixed = Work { replies: 40, bytes: 10, large: 60_000, ..Work::default() };
    assert_eq!(all(&far, &mixed).await.unwrap(), (0..40).collect::<Vec<_>>());
    let before = to.ledger.begun();
    let key = CallKey::random().unwrap();
    for _ in 0..2 {
        let once = Work { replies: 1, ..Work::default() };
        let answer = soon(from.links.call(&target, Header::new(), key, &once)).await.unwrap();
        assert_eq!(answer.len(), 1);
    }
    assert_eq!(to.ledger.begun(), before + 1, "a call with a key runs once");
    // More than its mailbox and the lane take at once: with an older peer by credit alone.
    let before = to.ledger.begun();
    for number in 100..2_100 {
        soon(far.notify(Header::new(), &Work { number, ..Work::default() })).await.unwrap();
    }
    until(|| to.ledger.begun() == before + 2_000).await;
    let numbers = to.ledger.numbers.lock().unwrap()[before..].to_vec();
    assert_eq!(numbers, (100..2_100).collect::<Vec<_>>());
    // Who drops the stream cancels there.
    let (begun, cancelled) = (to.ledger.begun(), to.ledger.cancelled());
    let waits = Work { wait: true, ..Work::default() };
    let stream = soon(far.ask(Header::new(), &waits)).await.unwrap();
    until(|| to.ledger.begun() == begun + 1).await;
    drop(stream);
    until(|| to.ledger.cancelled() == cancelled + 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_protocols_live_side_by_side() {
    let world = World::new();
    for old in 1..NEWEST {
        let (a, b) =
            (world.node_with("a", 4, |config| config).await, older(&world, "b", old).await);
        let c = world.node_with("c", 4, |config| config).await;
        // Either dials the other once.
        a.links.try_dial(b.address()).await.unwrap();
        b.links.try_dial(c.address()).await.unwrap();
        a.links.dial(c.address()).await;
        for (node, peers) in [(&a, ["b", "c"]), (&b, ["a", "c"]), (&c, ["a", "b"])] {
            for peer in peers {
                node.has_link_to(peer).await;
            }
        }
        assert_eq!((protocol(&a, "b"), protocol(&b, "a")), (Some(old), Some(old)));
        assert_eq!((protocol(&b, "c"), protocol(&c, "b")), (Some(old), Some(old)));
        assert_eq!((protocol(&a, "c"), protocol(&c, "a")), (Some(NEWEST), Some(NEWEST)));
        for (from, to) in [(&a, &b), (&b, &a), (&b, &c), (&a, &c)] {
            talk(from, to).await;
        }
        if old > 1 {
            // Each says of itself what it speaks, and is placed on.
            for node in [&a, &b, &c] {
                until(|| node.links.placement("worker", b"key").len() == 3).await;
                let spoken =
                    |name| member(node, name).map(|it| (it.oldest_protocol, it.newest_protocol));
                assert_eq!(spoken("a"), Some((1, NEWEST)));
                assert_eq!(spoken("b"), Some((1, old)));
            }
        }
        // The end of what is watched arrives across, and a node that leaves waits for no answer that
        // its peer doesn't know.
        let (of_b, of_a) = (a.far("agent://b/worker").down(), b.far("agent://a/worker").down());
        let stops = async {
            until(|| watches(&a) > 0 && watches(&b) > 0).await;
            b.kernel.stop().await;
        };
        let (of_b, of_a, ()) = soon(async { tokio::join!(of_b, of_a, stops) }).await;
        assert!(matches!(of_b.fall, Fall::Stopped | Fall::Lost), "{of_b:?}");
        assert_eq!(of_a.fall, Fall::Lost);
        a.has_lost("b").await;
        talk(&a, &c).await;
    }
}

/// Watches of others that this node waits for.
fn watches(node: &Node) -> usize {
    node.links.status().iter().map(|link| link.open_calls).sum()
}

#[tokio::test]
async fn a_protocol_that_there_is_not_is_refused() {
    let world = World::new();
    for unknown in [0, UNKNOWN] {
        let listen = "127.0.0.1:0".parse().unwrap();
        let config = neuroflow_transport::LinksConfig::new(
            listen,
            world.credential("a", &[]),
            world.trust(),
        );
        let a = world.node("b").await;
        let refused = config.newest_protocol(unknown).child(a.clock().clone()).unwrap_err();
        assert!(matches!(refused, LinksError::Protocol { asked } if asked == unknown), "{refused}");
    }
}
