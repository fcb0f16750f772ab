//! A node's endpoint: links to all peers behind one port, and what this node offers them.
//!
//! Long, because it's the crate's door: every call of `Links` has its documentation and its example here.

mod cluster;
mod congestion;
mod ends;
mod passed;
mod port;
mod renewal;
mod revival;
mod revocations;
mod seeds;
mod server;
mod socket;
mod strangers;
#[cfg(test)]
mod tests;
mod tuning;

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use neuroflow_kernel::{
    Address, ChildSpec, Clock, Down, Header, Message, MessageId, Name, NameError, RemoteError,
    RemoteTarget, Request, WireRequest,
};

use crate::capability::{Capabilities, Signer};
use crate::directory::Directory;
use crate::export::{Allowed, ExportError, Exports};
use crate::identity::{
    Authority, CertificateError, Credential, Kept, ListFileError, NodeId, Presented,
    RevocationError, Trust,
};
use crate::join::Door;
use crate::keyed::pinned::Pins;
use crate::limits::{FAREWELL, HANDSHAKE_DEADLINE, LEAVE};
use crate::link::peer::{Link, Peers};
use crate::link::{CloseCode, LinkError, LinkStatus, connect};
use crate::membership::{GossipMeters, Inbox};
use crate::observer::{ClusterObserver, Told};
use crate::seed::{Seed, SeedStatus, ServiceName, Sought};
use crate::session::handshake::{Hello, NEWEST, OLDEST};

use self::cluster::Choosing;
pub use self::cluster::{DrainError, GossipStatus};
use self::passed::Passed;
pub use self::server::ListenError;
use self::strangers::StrangerMeters;
pub use self::strangers::StrangerStatus;

/// What a node needs to have links.
///
/// ```
/// # use std::time::{Duration, SystemTime};
/// use neuroflow_transport::{Authority, LinksConfig, Trust};
/// # let authority = Authority::create("example", SystemTime::now())?;
/// # let node = authority.issue("node-a", &[], Duration::from_secs(60), SystemTime::now())?;
/// let trust = Trust::from_pem(authority.certificate_pem())?;
/// let config = LinksConfig::new("127.0.0.1:0".parse()?, node, trust)
///     .seed("127.0.0.1:7946".parse()?);
/// assert!(format!("{config:?}").contains("7946"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct LinksConfig {
    listen: SocketAddr,
    credential: Credential,
    trust: Trust,
    seeds: Vec<Sought>,
    name_servers: Vec<SocketAddr>,
    authority: Option<Arc<Authority>>,
    advertise: Option<SocketAddr>,
    capacity: u32,
    build: String,
    revocations: Option<PathBuf>,
    leave: Duration,
    certificate_file: Option<PathBuf>,
    newest: u16,
    observers: Vec<Arc<dyn ClusterObserver>>,
}

impl LinksConfig {
    /// Listens at this address, as this node, for those that are trusted; port 0 lets the system
    /// choose.
    pub fn new(listen: SocketAddr, credential: Credential, trust: Trust) -> Self {
        Self {
            listen,
            credential,
            trust,
            seeds: Vec::new(),
            name_servers: Vec::new(),
            authority: None,
            advertise: None,
            capacity: CAPACITY,
            build: env!("CARGO_PKG_VERSION").to_owned(),
            revocations: None,
            leave: LEAVE,
            certificate_file: None,
            newest: NEWEST,
            observers: Vec::new(),
        }
    }

    /// Where to find a node. For as long as this one runs, the address is dialled while no link leads there: within
    /// seconds at first and when the link there is lost, within [`SEED_ROUND`](crate::limits::SEED_ROUND) at last.
    /// Whoever of the cluster answers is taken, also with another key than before.
    #[must_use]
    pub fn seed(mut self, address: SocketAddr) -> Self {
        self.seeds.push(Sought::Address(address));
        self
    }

    /// A name with a port, such as that of a headless service. For as long as this node runs, the name is looked up (A
    /// and AAAA records), and what it stands for is dialled where no link leads to: every few seconds while the node
    /// has no link, else within [`SEED_ROUND`](crate::limits::SEED_ROUND).
    #[must_use]
    pub fn seed_name(mut self, name: impl Into<String>) -> Self {
        self.seeds.push(Sought::Host(name.into()));
        self
    }

    /// A service, whose nodes and their ports are found by SRV records. They are looked up as often as a name is
    /// ([`seed_name`](Self::seed_name)), and those of the lowest priority number are dialled, all at once; if there is
    /// a link to none of them then, those of the next.
    #[must_use]
    pub fn seed_service(mut self, service: ServiceName) -> Self {
        self.seeds.push(Sought::Service(service));
        self
    }

    /// Name servers to ask for services and what they lead to, instead of those that the system has.
    #[must_use]
    pub fn name_servers(mut self, servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.name_servers.extend(servers);
        self
    }

    /// Lets this node sign others, which it invites with [`Links::invite`].
    #[must_use]
    pub fn authority(mut self, authority: Authority) -> Self {
        self.authority = Some(Arc::new(authority));
        self
    }

    /// Where other nodes reach this one, if that isn't where it listens: behind an address translation.
    #[must_use]
    pub fn advertise(mut self, address: SocketAddr) -> Self {
        self.advertise = Some(address);
        self
    }

    /// The node's weight among those that offer the same agent; 100 unless it's set. With 0 nothing is
    /// placed on it.
    #[must_use]
    pub fn capacity(mut self, capacity: u32) -> Self {
        self.capacity = capacity;
        self
    }

    /// What other nodes are told of this one's build.
    #[must_use]
    pub fn build(mut self, build: impl Into<String>) -> Self {
        self.build = build.into();
        self
    }

    /// Keeps the list of revoked nodes in this file, which needn't be there yet: it's read again when it
    /// changes, and written when another node knows a newer list. What isn't signed by the cluster's
    /// authority, or older than what is known, isn't taken.
    #[must_use]
    pub fn revocations(mut self, file: impl Into<PathBuf>) -> Self {
        self.revocations = Some(file.into());
        self
    }

    /// Looks at this file every second. Once it has another certificate of this node, of the same key and name and
    /// valid now, that one is presented to who makes a link from then on; links that stand go on. What can't be
    /// used is counted and left alone; of that, what isn't valid yet is presented once it is.
    #[must_use]
    pub fn certificate_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.certificate_file = Some(file.into());
        self
    }

    /// How long what other nodes have asked may go on when this node stops; 5 s unless it's set. It ends sooner
    /// if all is answered sooner. What isn't answered then is lost to those who asked.
    #[must_use]
    pub fn leave_within(mut self, time: Duration) -> Self {
        self.leave = time;
        self
    }

    /// Speaks no newer protocol than this, also with those who could: until all nodes of a cluster have a build
    /// that can be gone back from.
    #[must_use]
    pub fn newest_protocol(mut self, newest: u16) -> Self {
        self.newest = newest;
        self
    }

    /// One more who is told of what the links decide.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn ClusterObserver>) -> Self {
        self.observers.push(observer);
        self
    }

    /// The node's name, as its certificate says.
    pub fn name(&self) -> &Name {
        self.credential.name()
    }

    /// The actor `cluster`, and the links that it keeps.
    ///
    /// # Errors
    /// Says that the key or the list of revoked nodes can't be used, that other nodes wouldn't take the certificate, or
    /// that this build doesn't speak the protocol. A certificate that isn't valid yet is no error: clocks are set while
    /// machines start, and from then on the node has links without anybody's help.
    pub fn child(self, clock: Clock) -> Result<(ChildSpec, Links), LinksError> {
        if !(OLDEST..=NEWEST).contains(&self.newest) {
            return Err(LinksError::Protocol { asked: self.newest });
        }
        match self.credential.check(&self.trust) {
            Ok(()) | Err(CertificateError::NotValidYet) => {}
            Err(refused) => return Err(refused.into()),
        }
        let presented = Presented::new(&self.credential)?;
        let told = Arc::new(Told::new(self.observers));
        let kept = match self.revocations {
            Some(path) => Some(Kept::open(path, &self.trust, &told)?),
            None => None,
        };
        let (own, start) = (self.credential.id(), incarnation());
        let capabilities = Capabilities::new(own, start, self.trust.clone(), clock.clone());
        let shared = Arc::new(Shared {
            capabilities: Arc::clone(&capabilities),
            door: self
                .authority
                .map(|authority| Door::new(authority, clock.clone(), Arc::clone(&told))),
            told,
            signer: Signer::new(&self.credential)?,
            id: self.credential.id(),
            name: self.credential.name().clone(),
            digits: self.credential.id().to_string(),
            incarnation: start,
            clock,
            exports: Arc::default(),
            trust: self.trust,
            presented,
            peers: Peers::default(),
            listen: Mutex::new(self.listen),
            seeds: self.seeds.into_iter().map(Seed::new).collect(),
            name_servers: self.name_servers,
            endpoint: RwLock::new(None),
            connections: AtomicU64::new(0),
            firsts: Mutex::default(),
            advertise: self.advertise,
            capacity: self.capacity,
            build: self.build,
            skills: RwLock::default(),
            draining: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            directory: Directory::default(),
            membership: Inbox::default(),
            gossip_meters: GossipMeters::default(),
            strangers: StrangerMeters::default(),
            pins: Mutex::default(),
            kept,
            leave: self.leave,
            certificate_file: self.certificate_file,
            newest: self.newest,
            credential: RwLock::new(self.credential),
        });
        let watch = crate::watch::WatchService::new(&shared.exports);
        shared.exports.offer(vec![Arc::new(watch), Arc::new(capabilities)]);
        let server = Arc::clone(&shared);
        let (spec, cluster) =
            ChildSpec::new("cluster", move || server::ClusterServer::new(Arc::clone(&server)))?;
        let spec = spec.stop_within(self.leave.saturating_add(FAREWELL));
        Ok((spec, Links { shared, cluster }))
    }
}

/// Why there are no links.
///
/// ```
/// use neuroflow_transport::{CertificateError, LinksError};
/// assert!(matches!(LinksError::from(CertificateError::Empty), LinksError::Certificate(_)));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinksError {
    /// The node's certificate or key can't be used.
    #[error("the node's certificate or key can't be used")]
    Certificate(#[from] CertificateError),
    /// The actor's name isn't one.
    #[error("the actor's name isn't valid")]
    Name(#[from] NameError),
    /// The list of revoked nodes can't be used.
    #[error("the list of revoked nodes can't be used")]
    Revocations(#[from] ListFileError),
    /// The newest protocol that is to be spoken isn't one.
    #[error("there is no protocol {asked}: this build speaks {OLDEST} to {NEWEST}")]
    Protocol {
        /// What was asked for.
        asked: u16,
    },
}

/// A node's weight unless it says otherwise.
const CAPACITY: u32 = 100;

/// Which start of a node this is: another number after each.
fn incarnation() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

/// What all parts of a node's links share.
pub(crate) struct Shared {
    pub(crate) id: NodeId,
    pub(crate) name: Name,
    digits: String,
    incarnation: u64,
    pub(crate) clock: Clock,
    pub(crate) exports: Arc<Exports>,
    pub(crate) capabilities: Arc<Capabilities>,
    pub(crate) signer: Signer,
    pub(crate) door: Option<Arc<Door>>,
    pub(crate) trust: Trust,
    pub(crate) presented: Arc<Presented>,
    pub(crate) peers: Peers,
    /// Where to listen; after the first start the port that it got then.
    pub(crate) listen: Mutex<SocketAddr>,
    pub(crate) seeds: Vec<Seed>,
    /// Whom to ask for services; nobody: those that the system has.
    pub(crate) name_servers: Vec<SocketAddr>,
    endpoint: RwLock<Option<quinn::Endpoint>>,
    connections: AtomicU64,
    /// The first connection to each peer, so that later ones count as reconnects.
    firsts: Mutex<HashMap<NodeId, u64>>,
    pub(crate) advertise: Option<SocketAddr>,
    pub(crate) capacity: u32,
    pub(crate) build: String,
    /// What offered agents say that they can do.
    pub(crate) skills: RwLock<HashMap<String, Vec<String>>>,
    pub(crate) draining: AtomicBool,
    /// The node stops, and says so to its peers.
    pub(crate) leaving: AtomicBool,
    pub(crate) directory: Directory,
    pub(crate) membership: Inbox,
    pub(crate) gossip_meters: GossipMeters,
    strangers: StrangerMeters,
    pins: Mutex<Pins>,
    /// The file that the list of revoked nodes is kept in, if it is.
    pub(crate) kept: Option<Kept>,
    /// How long what others have asked may go on when the node stops.
    leave: Duration,
    /// The file that may have another certificate.
    certificate_file: Option<PathBuf>,
    /// What is presented, with its key.
    credential: RwLock<Credential>,
    /// The newest protocol that is spoken.
    pub(crate) newest: u16,
    /// Who is told of what is decided.
    pub(crate) told: Arc<Told>,
}

impl Shared {
    pub(crate) fn endpoint(&self) -> Option<quinn::Endpoint> {
        self.endpoint.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_endpoint(&self, endpoint: Option<quinn::Endpoint>) {
        *self.endpoint.write().unwrap_or_else(PoisonError::into_inner) = endpoint;
    }

    fn credential(&self) -> Credential {
        self.credential.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn hello(&self) -> Hello {
        Hello::ours(self.incarnation, self.name.as_str(), self.newest)
    }

    pub(crate) fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn first_connection(&self, peer: NodeId, this: u64) -> u64 {
        let mut firsts = self.firsts.lock().unwrap_or_else(PoisonError::into_inner);
        *firsts.entry(peer).or_insert(this)
    }

    pub(crate) fn pins(&self) -> MutexGuard<'_, Pins> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_own(&self, node: &str) -> bool {
        node == self.name.as_str() || node == self.digits
    }
}

/// What the cluster's actor is told.
pub(crate) enum ClusterCommand {
    /// A connection's handshake is done.
    Arrived(Box<connect::Established>),
    /// Dials a node until it answers.
    Dial(SocketAddr),
    /// The membership begins anew.
    Gossip,
    /// The actor of this peer's link begins anew.
    Keep(NodeId),
}

impl Message for ClusterCommand {
    fn name(&self) -> &'static str {
        match self {
            Self::Arrived(_) => "arrived",
            Self::Dial(_) => "dial",
            Self::Gossip => "gossip",
            Self::Keep(_) => "keep",
        }
    }
}

/// A node's links. It's the [`RemotePort`](neuroflow_kernel::RemotePort) behind remote addresses; clones are the same.
///
/// Messages from one sender to one actor arrive in the order in which they were sent, as far as they
/// are small ([`SMALL_MESSAGE_BYTES`](crate::limits::SMALL_MESSAGE_BYTES)); larger ones may be
/// overtaken. Replies to one request never are. A message is delivered at most once.
///
/// ```
/// use neuroflow_kernel::{Address, RemoteError, Request, WireRequest};
/// use neuroflow_transport::Links;
/// fn far<W: WireRequest>(links: &Links) -> Result<Address<Request<W>>, RemoteError> {
///     links.resolve("agent://node-b/echo")
/// }
/// ```
#[derive(Clone)]
pub struct Links {
    pub(crate) shared: Arc<Shared>,
    cluster: Address<ClusterCommand>,
}

impl Links {
    /// This node's id.
    pub fn id(&self) -> NodeId {
        self.shared.id
    }

    /// This node's name.
    pub fn name(&self) -> &Name {
        &self.shared.name
    }

    /// Where this node listens, once its actor `cluster` has started.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.shared.endpoint().and_then(|endpoint| endpoint.local_addr().ok())
    }

    /// Offers an actor to other nodes under a name. What they may do is what this address allows.
    ///
    /// # Errors
    /// Says what is wrong with the name, or that there are too many.
    pub fn export<W: WireRequest>(
        &self,
        name: &str,
        address: Address<Request<W>>,
        allowed: Allowed,
    ) -> Result<(), ExportError> {
        self.shared.exports.insert(name, address, allowed, None)
    }

    /// Like [`export`](Self::export), for an actor that passes on what it's asked: who watches this name is told
    /// how that ends to which it's passed, which `behind` waits for.
    ///
    /// # Errors
    /// Says what is wrong with the name, or that there are too many.
    pub fn export_passing<W: WireRequest>(
        &self,
        name: &str,
        address: Address<Request<W>>,
        allowed: Allowed,
        behind: impl Fn() -> BoxFuture<'static, Down> + Send + Sync + 'static,
    ) -> Result<(), ExportError> {
        self.shared.exports.insert(name, address, allowed, Some(Arc::new(behind)))
    }

    /// Offers, under a name that is offered already, what takes messages of another kind: whoever may ask the one
    /// may ask the other. Who watches the name watches the first one.
    ///
    /// # Errors
    /// Says that nothing is offered under this name.
    pub fn export_beside<W: WireRequest>(
        &self,
        name: &str,
        address: Address<Request<W>>,
    ) -> Result<(), ExportError> {
        self.shared.exports.insert_beside(name, address)
    }

    /// Takes an offer back; says whether there was one.
    pub fn withdraw(&self, name: &str) -> bool {
        self.shared.exports.remove(name)
    }

    /// The names that this node offers.
    pub fn exports(&self) -> Vec<String> {
        self.shared.exports.names()
    }

    /// The address of an actor by name: `agent://<node>/<name>`, where the node is its name or id.
    /// For an actor of this node it's the one that was exported.
    ///
    /// # Errors
    /// Says that the text isn't of this form, or that this node offers no such actor for such
    /// messages.
    pub fn resolve<W: WireRequest>(
        &self,
        target: &str,
    ) -> Result<Address<Request<W>>, RemoteError> {
        self.address(target.parse()?)
    }

    /// Like [`resolve`](Self::resolve), for a target that was parsed.
    ///
    /// # Errors
    /// Says that this node offers no such actor for such messages, or that no node is named.
    pub fn address<W: WireRequest>(
        &self,
        target: RemoteTarget,
    ) -> Result<Address<Request<W>>, RemoteError> {
        match target.node() {
            Some(node) if self.shared.is_own(node) => {
                let own = self.shared.exports.own(target.name());
                let own =
                    own.ok_or_else(|| RemoteError::Unreachable { target: target.to_string() })?;
                if self.shared.exports.passes(target.name()) {
                    let port = Passed(self.clone(), MessageId::of(W::NAME));
                    return Ok(Address::remote(Arc::new(port), target));
                }
                Ok(own)
            }
            Some(_) => Ok(Address::remote(Arc::new(self.clone()), target)),
            // Each address has a key of its own, so that many are spread.
            None => self.placed(target, &incarnation().to_le_bytes(), Choosing::ByMessage),
        }
    }

    /// Dials a node, again and again until it answers. Its name and id come from its certificate. It's no seed by
    /// that: once it has been gone for as long as the membership remembers it, nobody dials it any more.
    pub async fn dial(&self, address: SocketAddr) {
        // An error says that the actor has ended, and this node's links with it.
        let _ended = self.cluster.tell(Header::new(), ClusterCommand::Dial(address)).await;
    }

    /// Dials a node once, and waits until there is a link, or says why there is none.
    ///
    /// # Errors
    /// Says what kept the two from having a link.
    pub async fn try_dial(&self, address: SocketAddr) -> Result<NodeId, LinkError> {
        let established = connect::dial(&self.shared, address, None).await?;
        let id = established.subject.id;
        let arrived = ClusterCommand::Arrived(Box::new(established));
        let _ended = self.cluster.tell(Header::new(), arrived).await;
        let at = self.shared.clock.now() + HANDSHAKE_DEADLINE;
        let up = self.shared.clock.before(at, self.is_up(id)).await;
        up.map_or(Err(LinkError::TimedOut), |()| Ok(id))
    }

    async fn is_up(&self, node: NodeId) {
        let Some(peer) = self.shared.peers.get(&node) else { return };
        loop {
            let mut changed = std::pin::pin!(peer.changed.notified());
            // Enrolled before the look, so that a change in between isn't missed.
            changed.as_mut().enable();
            if peer.link().is_some() {
                return;
            }
            changed.await;
        }
    }

    /// Shuts a node out: its links end, and it gets no new one.
    pub fn revoke(&self, node: NodeId) {
        self.shared.trust.revoke(node);
        self.shared.told.shut_out(node);
        self.shared.shut_out(&node);
    }

    /// Whether a node was shut out, by [`revoke`](Self::revoke) or a list of the cluster's authority.
    pub fn is_shut_out(&self, node: &NodeId) -> bool {
        self.shared.trust.is_revoked(node)
    }

    /// Ends the link to a node, which is then dialled anew. What was asked over it is lost. Says whether
    /// there was one.
    pub fn reconnect(&self, node: NodeId) -> bool {
        let link = self.shared.peers.get(&node).and_then(|peer| peer.link());
        if let Some(link) = &link {
            CloseCode::Shutdown.close(&link.connection);
        }
        link.is_some()
    }

    /// Takes a list of nodes that the cluster's authority has shut out, if it's newer than the one before:
    /// their links end here, and the list goes to all members. Says whether it was newer.
    ///
    /// # Errors
    /// Says what is wrong with the list.
    pub fn take_revocations(&self, text: &str) -> Result<bool, RevocationError> {
        self.shared.take_list(text)
    }

    /// Presents another certificate of the same key and name from now on. Links that stand go on, until the
    /// certificate ends that they were made with.
    ///
    /// # Errors
    /// Says that the certificate is of another key or name, that the cluster doesn't trust it, or that it can't
    /// be used.
    pub fn renew(&self, credential: &Credential) -> Result<(), CertificateError> {
        self.shared.renew(credential)
    }

    /// Tells all peers that this node takes no new requests; what runs goes on.
    pub fn drain(&self) {
        self.shared.drain();
    }

    /// How the links stand, by name.
    pub fn status(&self) -> Vec<LinkStatus> {
        let peers = self.shared.peers.all();
        let mut status: Vec<LinkStatus> = peers.iter().map(|peer| peer.status()).collect();
        status.sort_by(|a, b| (&a.name, a.node).cmp(&(&b.name, b.node)));
        status
    }

    /// The seeds, and what came of them the last time that they were looked up and dialled.
    pub fn seeds(&self) -> Vec<SeedStatus> {
        self.shared.seeds.iter().map(Seed::status).collect()
    }

    pub(crate) fn link(
        &self,
        target: &RemoteTarget,
    ) -> Option<(Arc<crate::link::peer::Peer>, Arc<Link>)> {
        let peer = self.shared.peers.named(target.node()?)?;
        let link = peer.link()?;
        Some((peer, link))
    }
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links").field("node", &self.shared.name).finish_non_exhaustive()
    }
}
