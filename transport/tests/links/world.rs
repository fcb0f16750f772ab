//! Nodes of one cluster, an actor that does what it's asked, and how to wait.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use neuroflow_kernel::{
    Actor, Address, ChildSpec, Clock, Context, Header, Kernel, Parcel, Request, Rights,
    StreamError, WireMessage, WireRequest,
};
use neuroflow_transport::{Allowed, Authority, Credential, LinkState, Links, LinksConfig, Trust};
use tokio::sync::Semaphore;

pub(crate) use crate::eventually::until;

pub(crate) const LONG: Duration = Duration::from_secs(20);
pub(crate) const HOUR: Duration = Duration::from_hours(1);

/// What the worker is asked.
#[derive(Default, rkyv::Archive, rkyv::Serialize)]
pub(crate) struct Work {
    /// Replies to give; none of them ever ends if there are as many as may be.
    pub(crate) replies: u32,
    /// Bytes of each reply, and every other one as large as `large`.
    pub(crate) bytes: u32,
    pub(crate) large: u32,
    /// Waits at the gate before it answers.
    pub(crate) wait: bool,
    /// Panics instead.
    pub(crate) panic: bool,
    /// Needs [`SECRET`].
    pub(crate) secret: bool,
    pub(crate) number: u32,
    pub(crate) payload: Vec<u8>,
    /// What it belongs to.
    pub(crate) of: Option<String>,
}

#[derive(rkyv::Archive, rkyv::Serialize)]
pub(crate) struct Done {
    pub(crate) number: u32,
    pub(crate) payload: Vec<u8>,
}

impl WireMessage for Work {
    const NAME: &'static str = "test.work";
    const VERSION: u16 = 1;
    const SIZE_LIMIT: usize = 24 * 1024 * 1024;
}

impl WireMessage for Done {
    const NAME: &'static str = "test.done";
    const VERSION: u16 = 1;
    const SIZE_LIMIT: usize = 24 * 1024 * 1024;
}

/// The right that secret work needs.
pub(crate) const SECRET: Rights = Rights::bit(3);

impl WireRequest for Work {
    type Reply = Done;

    fn rights(work: &ArchivedWork) -> Rights {
        if work.secret { SECRET } else { Rights::NONE }
    }

    fn affinity(work: &ArchivedWork) -> Option<&str> {
        work.of.as_deref()
    }
}

/// Another request, which no worker takes.
#[derive(rkyv::Archive, rkyv::Serialize)]
pub(crate) struct Other;

impl WireMessage for Other {
    const NAME: &'static str = "test.other";
    const VERSION: u16 = 1;
}

impl WireRequest for Other {
    type Reply = Done;
}

/// What the worker has seen, and the gate that it waits at.
#[derive(Clone)]
pub(crate) struct Ledger {
    pub(crate) begun: Arc<AtomicUsize>,
    pub(crate) cancelled: Arc<AtomicUsize>,
    pub(crate) numbers: Arc<Mutex<Vec<u32>>>,
    pub(crate) headers: Arc<Mutex<Vec<Header>>>,
    pub(crate) gate: Arc<Semaphore>,
}

impl Ledger {
    fn new() -> Self {
        Self {
            begun: Arc::default(),
            cancelled: Arc::default(),
            numbers: Arc::default(),
            headers: Arc::default(),
            gate: Arc::new(Semaphore::new(0)),
        }
    }

    pub(crate) fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    pub(crate) fn cancelled(&self) -> usize {
        self.cancelled.load(Ordering::SeqCst)
    }
}

struct Worker(Ledger);

impl Actor for Worker {
    type Message = Request<Work>;
    type Error = Infallible;
    const KIND: &'static str = "worker";

    async fn handle(
        &mut self,
        Request { parcel, replies }: Request<Work>,
        context: &mut Context<Request<Work>>,
    ) -> Result<(), Infallible> {
        let work = parcel.get();
        let ledger = &self.0;
        ledger.headers.lock().unwrap().push(context.header().clone());
        ledger.numbers.lock().unwrap().push(work.number.to_native());
        ledger.begun.fetch_add(1, Ordering::SeqCst);
        assert!(!work.panic, "told to panic");
        if work.wait {
            tokio::select! {
                _open = ledger.gate.acquire() => {}
                () = replies.closed() => {
                    ledger.cancelled.fetch_add(1, Ordering::SeqCst);
                    return Ok(());
                }
            }
        }
        for number in 0..work.replies.to_native() {
            let bytes = if number % 2 == 1 { work.large.max(work.bytes) } else { work.bytes };
            let payload = vec![7; bytes.to_native() as usize];
            if replies.send(Parcel::archive(&Done { number, payload }).unwrap()).await.is_err() {
                ledger.cancelled.fetch_add(1, Ordering::SeqCst);
                return Ok(());
            }
        }
        replies.finish();
        Ok(())
    }
}

/// A cluster's authority.
pub(crate) struct World {
    pub(crate) authority: Authority,
}

/// A node with a worker.
pub(crate) struct Node {
    pub(crate) kernel: Kernel,
    pub(crate) links: Links,
    pub(crate) worker: Address<Request<Work>>,
    pub(crate) ledger: Ledger,
}

#[expect(
    clippy::disallowed_methods,
    reason = "certificates are checked against the machine's time"
)]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

impl World {
    pub(crate) fn new() -> Self {
        Self { authority: Authority::create("test", now()).unwrap() }
    }

    pub(crate) fn credential(&self, name: &str, roles: &[&str]) -> Credential {
        self.authority.issue(name, roles, HOUR, now()).unwrap()
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust::from_pem(self.authority.certificate_pem()).unwrap()
    }

    pub(crate) async fn node(&self, name: &str) -> Node {
        self.node_with(name, 1_024, |config| config).await
    }

    pub(crate) async fn node_with(
        &self,
        name: &str,
        mailbox: usize,
        adjust: impl FnOnce(LinksConfig) -> LinksConfig,
    ) -> Node {
        let listen = "127.0.0.1:0".parse().unwrap();
        let config = LinksConfig::new(listen, self.credential(name, &["worker"]), self.trust());
        Node::start(adjust(config), mailbox).await
    }

    /// A node with this identity, at whatever port: another start of the same one, if there was one before.
    pub(crate) async fn node_as(&self, credential: &Credential) -> Node {
        let listen = "127.0.0.1:0".parse().unwrap();
        Node::start(LinksConfig::new(listen, credential.clone(), self.trust()), 8).await
    }

    /// Two nodes with a link that `a` has dialled.
    pub(crate) async fn pair(&self) -> (Node, Node) {
        let (a, b) = (self.node("a").await, self.node("b").await);
        a.links.try_dial(b.address()).await.unwrap();
        a.has_link_to("b").await;
        b.has_link_to("a").await;
        (a, b)
    }
}

impl Node {
    pub(crate) async fn start(config: LinksConfig, mailbox: usize) -> Self {
        Self::start_by(Clock::system(), config, mailbox).await
    }

    /// The same by another clock.
    pub(crate) async fn start_by(clock: Clock, config: LinksConfig, mailbox: usize) -> Self {
        let kernel = Kernel::builder().clock(clock).start().await.unwrap();
        let ledger = Ledger::new();
        let own = ledger.clone();
        let (spec, worker) = ChildSpec::new("worker", move || Worker(own.clone())).unwrap();
        kernel.root().start(spec.mailbox(mailbox)).await.unwrap();
        let (spec, links) = config.child(kernel.clock().clone()).unwrap();
        links.export("worker", worker.clone(), Allowed::Everyone).unwrap();
        kernel.root().start(spec).await.unwrap();
        Self { kernel, links, worker, ledger }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.links.local_address().unwrap()
    }

    pub(crate) fn clock(&self) -> &Clock {
        self.kernel.clock()
    }

    pub(crate) fn far(&self, target: &str) -> Address<Request<Work>> {
        self.links.resolve(target).unwrap()
    }

    pub(crate) fn state_of(&self, name: &str) -> Option<LinkState> {
        let status = self.links.status();
        status.iter().find(|link| link.name.as_str() == name).map(|link| link.state)
    }

    pub(crate) async fn has_link_to(&self, name: &str) {
        until(|| self.state_of(name) == Some(LinkState::Up)).await;
    }

    pub(crate) async fn has_lost(&self, name: &str) {
        until(|| self.state_of(name) != Some(LinkState::Up)).await;
    }
}

/// The numbers of all replies, and how the stream ended.
pub(crate) async fn all(
    address: &Address<Request<Work>>,
    work: &Work,
) -> Result<Vec<u32>, StreamError> {
    all_with(address, Header::new(), work).await
}

/// The same, with this header.
pub(crate) async fn all_with(
    address: &Address<Request<Work>>,
    header: Header,
    work: &Work,
) -> Result<Vec<u32>, StreamError> {
    let mut stream = soon(address.ask(header, work)).await.unwrap();
    let mut numbers = Vec::new();
    while let Some(reply) = soon(stream.next()).await {
        numbers.push(reply?.get().number.to_native());
    }
    Ok(numbers)
}

/// The answer of `future`, which must come within a time that no quiet machine needs.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    let clock = Clock::system();
    clock.before(clock.now() + LONG, future).await.expect("it didn't happen")
}
