//! A path that carries little, and what goes ahead on it.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use neuroflow_kernel::{Clock, Header};
use neuroflow_transport::limits::LARGE_STREAMS;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use crate::world::{Work, World, soon, until};

/// Bytes a second that the path carries away from who dials.
const RATE: u64 = 400_000;

/// Forwards datagrams between whoever dials its address and this one; until it's dropped.
struct Path {
    address: SocketAddr,
    _ways: JoinSet<()>,
}

impl Path {
    async fn to(there: SocketAddr) -> Self {
        let near = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let far = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        far.connect(there).await.unwrap();
        let address = near.local_addr().unwrap();
        let dialler = Arc::new(OnceLock::new());
        let mut ways = JoinSet::new();
        let (from, to, who) = (Arc::clone(&near), Arc::clone(&far), Arc::clone(&dialler));
        ways.spawn(async move {
            let (clock, mut buffer) = (Clock::system(), vec![0; 65_536]);
            while let Ok((bytes, sender)) = from.recv_from(&mut buffer).await {
                let _known = who.set(sender).is_err();
                clock.sleep(Duration::from_micros(bytes as u64 * 1_000_000 / RATE)).await;
                // What isn't taken is lost, as on any path.
                let _lost = to.send(&buffer[..bytes]).await.is_err();
            }
        });
        ways.spawn(async move {
            let mut buffer = vec![0; 65_536];
            while let Ok(bytes) = far.recv(&mut buffer).await {
                if let Some(dialler) = dialler.get() {
                    let _lost = near.send_to(&buffer[..bytes], dialler).await.is_err();
                }
            }
        });
        Self { address, _ways: ways }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_says_of_itself_waits_for_no_large_message() {
    let world = World::new();
    let (a, b) = (world.node("a").await, world.node("b").await);
    let path = Path::to(b.address()).await;
    a.links.try_dial(path.address).await.unwrap();
    a.has_link_to("b").await;
    b.has_link_to("a").await;
    let is_draining = || {
        let members = b.links.members();
        members.iter().find(|member| member.name.as_str() == "a").map(|member| member.draining)
    };
    until(|| is_draining() == Some(false)).await;
    let far = a.far("agent://b/worker");
    // More than there are streams for, and less than there is credit for: the path carries them in a minute.
    for number in 0..LARGE_STREAMS + 4 {
        let work = Work { number, payload: vec![7; 2_500_000], ..Work::default() };
        soon(far.notify(Header::new(), &work)).await.unwrap();
    }
    let open = || a.links.status().iter().map(|link| link.streams).sum::<usize>();
    until(|| open() >= LARGE_STREAMS as usize).await;
    a.links.set_draining(true);
    until(|| is_draining() == Some(true)).await;
    assert_eq!(b.ledger.begun(), 0, "they are still on their way");
}
