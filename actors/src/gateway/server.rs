//! The gateway's actor: listens, serves connections, and drains them when it stops.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use neuroflow_kernel::{Actor, Clock, Context, Tracer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::http::{Shared, router};
use super::openai::cancel_abandoned;
use super::{GatewayCommand, GatewayConfig, GatewayError};
use crate::limits::{
    ABANDONED_TASKS, CONNECTION_STREAMS, CONNECTIONS, HEAD_BYTES, HEAD_DEADLINE, PREFACE_PAUSE,
    STREAM_KEEP_ALIVE,
};

/// The gateway as an actor. Made by [`gateway_child`](super::gateway_child).
///
/// ```
/// use neuroflow_actors::GatewayServer;
/// use neuroflow_kernel::Actor;
/// assert_eq!(GatewayServer::KIND, "gateway");
/// ```
#[derive(Debug)]
pub struct GatewayServer {
    config: GatewayConfig,
    tracer: Tracer,
    bound: Arc<watch::Sender<Option<SocketAddr>>>,
    running: Option<Running>,
}

/// What the stop needs.
struct Running {
    shared: Arc<Shared>,
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
        let base_url = match &self.config.public_url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("http://{address}"),
        };
        let (config, tracer) = (self.config.clone(), self.tracer.clone());
        let (abandon, abandoned) = mpsc::channel(ABANDONED_TASKS);
        let shared = Shared::new(config, &base_url, context.clock().clone(), tracer, abandon)?;
        let cancel = cancel_abandoned(abandoned, context.clock().clone());
        let (drain, draining) = oneshot::channel();
        let (end, drained) = oneshot::channel();
        let work = serve(listener, Arc::clone(&shared), draining, end);
        if context.task(cancel).is_err() || context.task(work).is_err() {
            // A fresh actor has no other task.
            return Err(GatewayError::NoAgents);
        }
        self.running = Some(Running { shared, drain, drained });
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

    async fn stopping(&mut self, _context: &mut Context<GatewayCommand>) {
        if let Some(running) = self.running.take() {
            running.shared.drain();
            // Either end may be gone already, and then there is nothing left to drain.
            let _gone = running.drain.send(());
            let _gone = running.drained.await;
        }
    }
}

/// Accepts until told to drain, then lets what was begun come to its end.
async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    mut draining: oneshot::Receiver<()>,
    end: oneshot::Sender<()>,
) {
    let clock = shared.clock.clone();
    let service = TowerToHyperService::new(router(shared));
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE).max_buf_size(HEAD_BYTES);
    let mut http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    http2
        .timer(TokioTimer::new())
        .keep_alive_interval(STREAM_KEEP_ALIVE)
        .max_concurrent_streams(CONNECTION_STREAMS)
        .max_header_list_size(u32::try_from(HEAD_BYTES).unwrap_or(u32::MAX));
    let graceful = GracefulShutdown::new();
    // Whoever hasn't said anything yet isn't waited for.
    let (stop, stopping) = watch::channel(false);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        // Past the limit new connections wait in the listener's backlog.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
        let stream = tokio::select! {
            _ = &mut draining => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _peer)) => stream,
                Err(error) => {
                    // Usually out of descriptors: connections that end give some back.
                    tracing::warn!(error = &error as &dyn std::error::Error, "accept failed");
                    tokio::task::yield_now().await;
                    continue;
                }
            },
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(error = &error as &dyn std::error::Error, "no TCP_NODELAY");
        }
        let (clock, service, watcher) = (clock.clone(), service.clone(), graceful.watcher());
        let (http, http2, mut stopping) = (http.clone(), http2.clone(), stopping.clone());
        connections.spawn(async move {
            let spoken = tokio::select! {
                spoken = speaks_http2(&stream, &clock) => spoken,
                _ = stopping.changed() => None,
            };
            let served = match spoken {
                Some(true) => {
                    let connection = http2.serve_connection(TokioIo::new(stream), service);
                    watcher.watch(connection).await
                }
                Some(false) => {
                    let connection = http.serve_connection(TokioIo::new(stream), service);
                    watcher.watch(connection).await
                }
                None => Ok(()),
            };
            if let Err(error) = served {
                tracing::debug!(error = &error as &dyn std::error::Error, "connection ended");
            }
            drop(place);
        });
    }
    drop(listener);
    stop.send_replace(true);
    graceful.shutdown().await;
    // If nobody waits, the gateway was killed and not stopped.
    let _gone = end.send(());
}

/// Whether a client begins with the preface of HTTP/2; nothing if it says nothing in time. Its bytes
/// are left where they are.
async fn speaks_http2(stream: &TcpStream, clock: &Clock) -> Option<bool> {
    let deadline = clock.now() + HEAD_DEADLINE;
    let mut begun = [0; PREFACE.len()];
    loop {
        let peeked = clock.before(deadline, stream.peek(&mut begun)).await.ok()?.ok()?;
        let said = begun.get(..peeked)?;
        if peeked == 0 {
            return None;
        }
        if !PREFACE.starts_with(said) {
            return Some(false);
        }
        if peeked == PREFACE.len() {
            return Some(true);
        }
        // A part of the preface is there already, so that the socket won't tell of more.
        if clock.now() >= deadline {
            return None;
        }
        clock.sleep(PREFACE_PAUSE).await;
    }
}

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
