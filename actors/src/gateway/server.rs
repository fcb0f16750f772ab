//! The gateway's actor: listens, serves connections, and drains them when it stops.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use axum::Router;
use hyper_util::server::graceful::GracefulShutdown;
use neuroflow_kernel::{Actor, Clock, Context, Tracer};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::door::{self, Connections, Door, Tls, serve_connection};
use super::http::{Shared, router};
use super::openai::cancel_abandoned;
use super::{GatewayCommand, GatewayConfig, GatewayError};
use crate::limits::{ABANDONED_TASKS, ACCEPT_PAUSE};

/// The gateway as an actor. Made by [`gateway_child`](super::gateway_child).
#[derive(Debug)]
pub(super) struct GatewayServer {
    config: GatewayConfig,
    tracer: Tracer,
    bound: Arc<watch::Sender<Option<SocketAddr>>>,
    running: Option<Running>,
}

/// What the stop needs.
struct Running {
    shared: Arc<Shared>,
    door: Arc<Door>,
    drain: oneshot::Sender<()>,
    drained: oneshot::Receiver<()>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").finish_non_exhaustive()
    }
}

impl GatewayServer {
    pub(super) fn new(
        config: GatewayConfig,
        tracer: Tracer,
        bound: Arc<watch::Sender<Option<SocketAddr>>>,
    ) -> Self {
        Self { config, tracer, bound, running: None }
    }
}

impl Actor for GatewayServer {
    type Message = GatewayCommand;
    type Error = GatewayError;
    const KIND: &'static str = "gateway";

    async fn started(&mut self, context: &mut Context<GatewayCommand>) -> Result<(), GatewayError> {
        // A restart comes back to the port that the first start was given.
        let listen = self.bound.borrow().unwrap_or(self.config.listen);
        let refused = |source| GatewayError::Listen { address: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let door = &self.config.door;
        let tls = match &door.tls {
            Some(files) => Some(Tls::load(files.clone()).await?),
            None => None,
        };
        let base_url = match &self.config.public_url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("{}://{}", door::scheme(tls.is_some()), told(address)),
        };
        let clock = context.clock().clone();
        let hosts = door::hosts(door, address, self.config.public_url.as_deref());
        let meter = &self.config.meter;
        let door = Door::new(door.clone(), hosts, Arc::clone(meter), clock.clone());
        let connections = Connections::new(Connections::most(), Arc::clone(meter), clock.clone());
        let (mut config, tracer) = (self.config.clone(), self.tracer.clone());
        if config.security.is_empty() {
            config.security = door.schemes();
        }
        let (abandon, abandoned) = mpsc::channel(ABANDONED_TASKS);
        let shared = Shared::new(config, &base_url, clock.clone(), tracer, abandon)?;
        let cancel = cancel_abandoned(abandoned, clock.clone());
        if let Some(tls) = tls.clone() {
            // A fresh actor has room for these few tasks.
            let audit = self.config.door.audit.clone();
            let _started = context.task(tls.refresh(clock.clone(), door.meter(), audit));
        }
        let _started = context.task(Arc::clone(&door).account());
        let (drain, draining) = oneshot::channel();
        let (end, drained) = oneshot::channel();
        let router = Arc::clone(&door).around(router(&shared, address));
        let work = serve(Listening { listener, tls, router, clock, connections }, draining, end);
        if context.task(cancel).is_err() || context.task(work).is_err() {
            // A fresh actor has no other task.
            return Err(GatewayError::NoAgents);
        }
        self.running = Some(Running { shared, door, drain, drained });
        self.bound.send_replace(Some(address));
        Ok(())
    }

    async fn handle(
        &mut self,
        command: GatewayCommand,
        _context: &mut Context<GatewayCommand>,
    ) -> Result<(), GatewayError> {
        match command {}
    }

    async fn stopping(&mut self, context: &mut Context<GatewayCommand>) {
        if let Some(running) = self.running.take() {
            running.shared.drain();
            let delay = self.config.door.drain_delay;
            if !delay.is_zero() {
                context.clock().sleep(delay).await;
            }
            // Either end may be gone already, and then there is nothing left to drain.
            let _gone = running.drain.send(());
            let _gone = running.drained.await;
            running.door.note_unlisted();
        }
    }
}

/// The address that cards say. One that stands for all of the machine's is none that anybody could ask: then
/// it's the machine's own towards others, which may not be the one that clients know it by.
fn told(address: SocketAddr) -> SocketAddr {
    if !address.ip().to_canonical().is_unspecified() {
        return address;
    }
    // One that listens for the later protocol has the earlier one too, which more clients reach.
    let earlier = outward(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::from(FAR_4).into()).ok();
    let later = || outward(Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::from(FAR_6).into()).ok();
    let outward = earlier.or_else(|| later().filter(|_| address.is_ipv6()));
    let told = SocketAddr::new(outward.unwrap_or(Ipv4Addr::LOCALHOST.into()), address.port());
    tracing::warn!(
        listens = %address, %told,
        "the gateway listens on all addresses, and its cards have to say one; set gateway.public_url \
         to the URL that clients reach it by"
    );
    told
}

/// The address that packets of this machine to another would have. None is sent.
fn outward(any: IpAddr, far: IpAddr) -> std::io::Result<IpAddr> {
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect((far, FAR_PORT))?;
    Ok(socket.local_addr()?.ip())
}

/// Addresses of nobody, for documents (RFC 5737, RFC 3849): the way to them is the way to everybody.
const FAR_4: [u8; 4] = [192, 0, 2, 1];
const FAR_6: [u16; 8] = [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1];
/// Any will do.
const FAR_PORT: u16 = 9;

/// What accepting needs.
struct Listening {
    listener: TcpListener,
    tls: Option<Tls>,
    router: Router,
    clock: Clock,
    connections: Connections,
}

/// Accepts until told to drain, then lets what was begun come to its end.
async fn serve(
    listening: Listening,
    mut draining: oneshot::Receiver<()>,
    end: oneshot::Sender<()>,
) {
    let Listening { listener, tls, router, clock, mut connections } = listening;
    let graceful = GracefulShutdown::new();
    // Whoever hasn't said anything yet isn't waited for.
    let (stop, stopping) = watch::channel(false);
    let mut serving = JoinSet::new();
    loop {
        while serving.try_join_next().is_some() {}
        let free = tokio::select! {
            _ = &mut draining => break,
            free = connections.free() => free,
        };
        let Ok(free) = free else { break };
        let accepted = tokio::select! {
            _ = &mut draining => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    connections.failed(&error);
                    clock.sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let Some(place) = connections.hold(free, accepted.1.ip()) else { continue };
        if let Err(error) = accepted.0.set_nodelay(true) {
            tracing::debug!(error = &error as &dyn std::error::Error, "no TCP_NODELAY");
        }
        // In a box, or it would be in its task twice.
        let served = Box::pin(serve_connection(
            accepted,
            tls.clone(),
            router.clone(),
            clock.clone(),
            graceful.watcher(),
            stopping.clone(),
        ));
        serving.spawn(async move {
            served.await;
            drop(place);
        });
    }
    drop(listener);
    stop.send_replace(true);
    graceful.shutdown().await;
    // If nobody waits, the gateway was killed and not stopped.
    let _gone = end.send(());
}
