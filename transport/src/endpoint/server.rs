//! The actor `cluster`: owns the socket, lets peers in, and has one child per peer.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use neuroflow_kernel::{
    Actor, Address, Backoff, Context, Ended, Header, Name, SendError, Spawn, StartError,
};

use super::revival::Revivals;
use super::socket::Ground;
use super::{ClusterCommand, Shared, renewal, revocations, seeds, strangers, tuning};
use crate::identity::NodeId;
use crate::limits::KEYED_SWEEP;
use crate::link::connect::REDIAL;
use crate::link::server::LinkServer;
use crate::link::{CloseCode, LinkCommand, LinkError, connect};
use crate::membership::MembershipCommand;
use crate::membership::server::MembershipServer;

/// Why a node doesn't listen, or its actor `cluster` ends.
///
/// ```
/// use neuroflow_transport::ListenError;
/// fn is_taken(error: &ListenError) -> bool {
///     matches!(error, ListenError::Bind { source, .. }
///         if source.kind() == std::io::ErrorKind::AddrInUse)
/// }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The socket can't be bound.
    #[error("can't listen at {address} for other nodes")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// TLS can't be set up.
    #[error("TLS can't be set up with this certificate and these authorities")]
    Tls(#[from] rustls::Error),
    /// The cipher that QUIC begins with is missing.
    #[error("the cipher that QUIC begins with is missing")]
    Cipher(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
    /// A bound of this crate that QUIC doesn't take.
    #[error("a bound is out of QUIC's range")]
    Setting(#[source] quinn::ConfigError),
    /// An idle time that QUIC doesn't take.
    #[error("the idle time is out of QUIC's range")]
    Idle(#[source] quinn::VarIntBoundsExceeded),
    /// A link's actor can't be started.
    #[error("the actor of a link can't be started")]
    Link(#[from] StartError),
}

pub(crate) struct ClusterServer {
    shared: Arc<Shared>,
    links: HashMap<NodeId, Address<LinkCommand>>,
    names: HashMap<Name, NodeId>,
    revivals: Revivals,
}

/// The name of the membership's actor among the links'.
const MEMBERSHIP: &str = "membership";

/// Messages that may wait at the membership: a few of each of many peers. What is lost comes again.
const MEMBERSHIP_MAILBOX: usize = 4_096;

impl ClusterServer {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, links: HashMap::new(), names: HashMap::new(), revivals: Revivals::default() }
    }

    /// The actor of a peer's link.
    async fn link(
        &mut self,
        id: NodeId,
        context: &mut Context<ClusterCommand>,
    ) -> Result<Option<Address<LinkCommand>>, ListenError> {
        if let Some(link) = self.links.get(&id) {
            return Ok(Some(link.clone()));
        }
        let Some(peer) = self.shared.peers.get(&id) else { return Ok(None) };
        let mut name = peer.subject().name;
        let taken = self.names.get(&name).is_some_and(|other| *other != id);
        if taken || name.as_str() == MEMBERSHIP {
            // Another has this name; the id tells them apart.
            name = Name::new(id.to_string()).map_err(StartError::from)?;
        }
        let server = LinkServer::new(Arc::clone(&self.shared), peer);
        let link = context.spawn(name.clone(), server, Spawn::default()).await?;
        self.names.insert(name, id);
        self.links.insert(id, link.clone());
        Ok(Some(link))
    }

    /// Starts the membership.
    async fn gossip(&self, context: &mut Context<ClusterCommand>) -> Result<(), ListenError> {
        let membership = MembershipServer::new(Arc::clone(&self.shared), context.address());
        let name = Name::new(MEMBERSHIP).map_err(StartError::from)?;
        let spawn = Spawn::default().mailbox(MEMBERSHIP_MAILBOX);
        context.spawn(name, membership, spawn).await?;
        Ok(())
    }

    /// Starts the actor of a peer's link, if it isn't there, and lets it dial.
    async fn redial(
        &mut self,
        id: NodeId,
        context: &mut Context<ClusterCommand>,
    ) -> Result<(), ListenError> {
        if let Some(link) = self.link(id, context).await? {
            let _full = link.try_tell(Header::new(), LinkCommand::Redial).is_err();
        }
        Ok(())
    }

    /// An actor of ours has ended, and is to begin anew: later each time, if it ends again and again.
    fn revive(&mut self, name: Name, by: ClusterCommand, context: &mut Context<ClusterCommand>) {
        let clock = context.clock().clone();
        let wait = self.revivals.wait(name, clock.now(), Backoff::jitter());
        let own = context.address();
        let work = async move {
            clock.sleep(wait).await;
            let _ended = own.tell(Header::new(), by).await.is_err();
        };
        // As many peers as there may be leave room for this.
        let _full = context.task(work).is_err();
    }

    fn dial(&self, address: SocketAddr, context: &mut Context<ClusterCommand>) {
        let (shared, own) = (Arc::clone(&self.shared), context.address());
        let work = async move {
            for nth in 1.. {
                match connect::dial(&shared, address, None).await {
                    Ok(established) => {
                        let arrived = ClusterCommand::Arrived(Box::new(established));
                        let _ended = own.tell(Header::new(), arrived).await.is_err();
                        return;
                    }
                    Err(LinkError::Linked | LinkError::Oneself) => return,
                    Err(_later) => {}
                }
                shared.clock.sleep(REDIAL.delay(nth, Backoff::jitter())).await;
            }
        };
        // As many peers as there may be leave room for this.
        let _full = context.task(work).is_err();
    }
}

impl Actor for ClusterServer {
    type Message = ClusterCommand;
    type Error = ListenError;
    const KIND: &'static str = "cluster";

    async fn started(&mut self, context: &mut Context<ClusterCommand>) -> Result<(), ListenError> {
        let shared = Arc::clone(&self.shared);
        shared.leaving.store(false, Ordering::SeqCst);
        let listen = *shared.listen.lock().unwrap_or_else(PoisonError::into_inner);
        let bind = |source| ListenError::Bind { address: listen, source };
        let server = tuning::server(&shared.presented, &shared.trust, None)?;
        let doorway = match &shared.door {
            Some(door) => {
                let open = tuning::server(&shared.presented, &shared.trust, Some(door))?;
                Some((Arc::clone(door), Arc::new(open)))
            }
            None => None,
        };
        let socket = std::net::UdpSocket::bind(listen).map_err(bind)?;
        tuning::socket(&socket);
        socket.set_nonblocking(true).map_err(bind)?;
        let ground = Arc::new(Ground);
        let mut endpoint = quinn::Endpoint::new(tuning::endpoint()?, Some(server), socket, ground)
            .map_err(bind)?;
        endpoint.set_default_client_config(tuning::client(&shared.presented, &shared.trust)?);
        let bound = endpoint.local_addr().map_err(bind)?;
        *shared.listen.lock().unwrap_or_else(PoisonError::into_inner) = bound;
        shared.set_endpoint(Some(endpoint.clone()));
        let accepting =
            strangers::accept(Arc::clone(&shared), endpoint, doorway, context.address());
        let _full = context.task(accepting).is_err();
        let forgetting = forget(Arc::clone(&shared));
        let _full = context.task(forgetting).is_err();
        let driving = drive(Arc::clone(&shared));
        let _full = context.task(driving).is_err();
        if shared.kept.is_some() {
            let keeping = revocations::follow(Arc::clone(&shared));
            let _full = context.task(keeping).is_err();
        }
        if shared.certificate_file.is_some() {
            let renewing = renewal::follow(Arc::clone(&shared));
            let _full = context.task(renewing).is_err();
        }
        for nth in 0..shared.seeds.len() {
            let following = seeds::follow(Arc::clone(&shared), context.address(), nth);
            // As many peers as there may be leave room for this.
            let _full = context.task(following).is_err();
        }
        self.gossip(context).await?;
        // Peers of an earlier life.
        for peer in shared.peers.all() {
            self.redial(peer.id, context).await?;
        }
        Ok(())
    }

    async fn handle(
        &mut self,
        command: ClusterCommand,
        context: &mut Context<ClusterCommand>,
    ) -> Result<(), ListenError> {
        match command {
            ClusterCommand::Arrived(established) => {
                let id = established.subject.id;
                if self.shared.trust.is_revoked(&id) {
                    CloseCode::Revoked.close(&established.connection);
                } else if let Some(link) = self.link(id, context).await? {
                    let take = LinkCommand::Take(established);
                    let taken = link.try_tell(Header::new(), take);
                    // Dropping a connection closes it, and the peer dials again.
                    drop(taken.map_err(|SendError { message, .. }| message));
                }
            }
            ClusterCommand::Dial(address) => self.dial(address, context),
            ClusterCommand::Gossip => self.gossip(context).await?,
            ClusterCommand::Keep(id) => self.redial(id, context).await?,
        }
        Ok(())
    }

    async fn child_ended(
        &mut self,
        ended: Ended,
        context: &mut Context<ClusterCommand>,
    ) -> Result<(), ListenError> {
        if ended.name.as_str() == MEMBERSHIP {
            self.revive(ended.name, ClusterCommand::Gossip, context);
            return Ok(());
        }
        let Some(id) = self.names.get(&ended.name).copied() else { return Ok(()) };
        self.links.remove(&id);
        self.names.remove(&ended.name);
        let peer = self.shared.peers.get(&id);
        if peer.is_none() {
            self.shared.forget(&id);
        }
        if peer.is_none_or(|peer| peer.is_revoked()) {
            return Ok(());
        }
        self.revive(ended.name, ClusterCommand::Keep(id), context);
        Ok(())
    }

    async fn stopping(&mut self, context: &mut Context<ClusterCommand>) {
        self.shared.leaving.store(true, Ordering::SeqCst);
        // From here on this node lets nobody in, and says of itself that it drains.
        if let Some(endpoint) = self.shared.endpoint() {
            endpoint.set_server_config(None);
        }
        self.shared.membership.tell(MembershipCommand::Describe);
        self.shared.drain();
        let at = context.clock().now() + self.shared.leave;
        let _unanswered = context.clock().before(at, self.shared.drained()).await;
        // From here on it objects to nothing that is said of it.
        if let Ok(membership) = Name::new(MEMBERSHIP) {
            let _gone = context.stop_child(&membership).await;
        }
        // Before the streams end, which would tell the peers less.
        for link in self.shared.peers.all().iter().filter_map(|peer| peer.link()) {
            CloseCode::Leaving.close(&link.connection);
        }
        context.stop_children().await;
        if let Some(endpoint) = self.shared.endpoint() {
            endpoint.close(quinn::VarInt::from_u32(0), b"");
            // The farewell gets out, or the peers find out by silence.
            let clock = context.clock();
            let at = clock.now() + LAST_PACKETS;
            let _silent = clock.before(at, endpoint.wait_idle()).await;
        }
    }
}

/// Time for the last packets of a node that stops.
const LAST_PACKETS: std::time::Duration = std::time::Duration::from_millis(500);

impl Drop for ClusterServer {
    /// However this life ended, its socket is free for the next.
    fn drop(&mut self) {
        if let Some(endpoint) = self.shared.endpoint() {
            endpoint.close(quinn::VarInt::from_u32(0), b"");
        }
        self.shared.set_endpoint(None);
    }
}

/// Forgets keyed calls that are past their time, also of peers that never come back.
async fn forget(shared: Arc<Shared>) {
    loop {
        shared.clock.sleep(KEYED_SWEEP).await;
        shared.exports.keyed.expire(shared.clock.now());
    }
}

/// Brings keyed calls to their ends whose callers' links are gone.
async fn drive(shared: Arc<Shared>) {
    match shared.exports.keyed.drive().await {}
}
