//! What QUIC does below links while they are used: a node's socket moves, and keys are replaced.

use std::convert::Infallible;
use std::future::Future;
use std::net::UdpSocket;
use std::time::{Duration, SystemTime};

use neuroflow_kernel::{
    Actor, Address, ChildSpec, Clock, Context, Header, Kernel, Parcel, Request, WireMessage,
    WireRequest,
};

use super::*;
use crate::eventually::until;
use crate::identity::Authority;
use crate::link::LinkState;

/// Counts from 0.
#[derive(rkyv::Archive, rkyv::Serialize)]
struct Count {
    to: u32,
}

#[derive(rkyv::Archive, rkyv::Serialize)]
struct Number {
    number: u32,
    payload: Vec<u8>,
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

struct Counter;

impl Actor for Counter {
    type Message = Request<Count>;
    type Error = Infallible;
    const KIND: &'static str = "counter";

    async fn handle(
        &mut self,
        Request { parcel, replies }: Request<Count>,
        context: &mut Context<Request<Count>>,
    ) -> Result<(), Infallible> {
        let to = parcel.get().to.to_native();
        // Apart, so that a long stream keeps no short one waiting.
        let counting = async move {
            for number in 0..to {
                // Every hundredth has a stream of its own.
                let bytes = if number % 100 == 99 { 40_000 } else { 200 };
                let reply = Number { number, payload: vec![7; bytes] };
                if replies.send(Parcel::archive(&reply).unwrap()).await.is_err() {
                    return;
                }
            }
            replies.finish();
        };
        assert!(context.task(counting).is_ok());
        Ok(())
    }
}

struct Node {
    _kernel: Kernel,
    links: Links,
}

impl Node {
    #[expect(
        clippy::disallowed_methods,
        reason = "certificates are checked against the machine's time"
    )]
    async fn start(authority: &Authority, name: &str) -> Self {
        let hour = Duration::from_hours(1);
        let credential = authority.issue(name, &[], hour, SystemTime::now()).unwrap();
        let trust = Trust::from_pem(authority.certificate_pem()).unwrap();
        let kernel = Kernel::builder().start().await.unwrap();
        let (spec, counter) = ChildSpec::new("counter", || Counter).unwrap();
        kernel.root().start(spec).await.unwrap();
        let config = LinksConfig::new("127.0.0.1:0".parse().unwrap(), credential, trust);
        let (spec, links) = config.child(kernel.clock().clone()).unwrap();
        links.export("counter", counter, Allowed::Everyone).unwrap();
        kernel.root().start(spec).await.unwrap();
        Self { _kernel: kernel, links }
    }

    /// The only link of this node.
    fn link(&self) -> Arc<Link> {
        self.shared().peers.all()[0].link().expect("a link")
    }

    fn shared(&self) -> &Shared {
        &self.links.shared
    }

    fn counter(&self, of: &Self) -> Address<Request<Count>> {
        self.links.resolve(&format!("agent://{}/counter", of.links.id())).unwrap()
    }
}

/// Two nodes with a link that the first has dialled.
#[expect(
    clippy::disallowed_methods,
    reason = "certificates are checked against the machine's time"
)]
async fn pair() -> (Node, Node) {
    let authority = Authority::create("test", SystemTime::now()).unwrap();
    let (a, b) = (Node::start(&authority, "a").await, Node::start(&authority, "b").await);
    a.links.try_dial(b.links.local_address().unwrap()).await.unwrap();
    until(|| b.links.status().iter().any(|link| link.state == LinkState::Up)).await;
    (a, b)
}

async fn soon<F: Future>(future: F) -> F::Output {
    let clock = Clock::system();
    clock.before(clock.now() + Duration::from_secs(20), future).await.expect("it didn't happen")
}

const LONG: u32 = 3_000;

/// Reads a long stream, with short ones beside it, and does this now and then meanwhile.
async fn counted(counter: Address<Request<Count>>, now_and_then: impl Fn(u32)) {
    let mut stream = soon(counter.ask(Header::new(), &Count { to: LONG })).await.unwrap();
    for number in 0..LONG {
        let reply = soon(stream.next()).await.unwrap().unwrap();
        assert_eq!(reply.get().number.to_native(), number);
        assert!(reply.get().payload.iter().all(|byte| *byte == 7));
        if number % 200 == 100 {
            now_and_then(number);
            let mut short = soon(counter.ask(Header::new(), &Count { to: 2 })).await.unwrap();
            for expected in 0..2 {
                let reply = soon(short.next()).await.unwrap().unwrap();
                assert_eq!(reply.get().number.to_native(), expected);
            }
            assert!(soon(short.next()).await.is_none());
        }
    }
    assert!(soon(stream.next()).await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_socket_moves_loses_nothing_and_keeps_the_links_that_it_dialled() {
    let (a, b) = pair().await;
    let links = (a.link().number, b.link().number);
    let moves = |number: u32| {
        if number == 100 || number == 1_500 {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_nonblocking(true).unwrap();
            a.shared().endpoint().unwrap().rebind(socket).unwrap();
        }
    };
    let before = b.link().connection.remote_address();
    tokio::join!(counted(a.counter(&b), moves), counted(b.counter(&a), |_| ()));
    let moved = a.links.local_address().unwrap();
    assert_ne!(before, moved);
    until(|| b.links.status()[0].address == moved).await;
    assert_eq!((a.link().number, b.link().number), links);
    assert_eq!((a.links.status()[0].reconnects, b.links.status()[0].reconnects), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_are_replaced_in_mid_stream_lose_nothing() {
    let (a, b) = pair().await;
    let links = (a.link().number, b.link().number);
    let update = |number: u32| {
        let of = if number % 400 == 100 { &a } else { &b };
        of.link().connection.force_key_update();
    };
    tokio::join!(counted(a.counter(&b), update), counted(b.counter(&a), |_| ()));
    assert_eq!((a.link().number, b.link().number), links);
    assert_eq!((a.links.status()[0].reconnects, b.links.status()[0].reconnects), (0, 0));
    assert_eq!(a.link().connection.close_reason(), None);
}
