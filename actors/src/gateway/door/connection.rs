//! One connection: TLS if it's spoken, then HTTP/1.1 or HTTP/2, each step within its time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use neuroflow_kernel::Clock;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tower::Layer;

use super::paced::Paced;
use super::silent::Traffic;
use super::stalled::Streams;
use super::tls::Tls;
use crate::access::PeerCertificate;
use crate::limits::{
    CONNECTION_STREAMS, CREDENTIAL_LOOK, EXPIRED_CONNECTION, HEAD_BYTES, HEAD_DEADLINE,
    HEADER_LINES, PREFACE_PAUSE, RESET_STREAMS, STREAM_KEEP_ALIVE, STREAM_KEEP_ALIVE_ANSWER,
};

/// The other end of a connection.
#[derive(Clone, Debug)]
pub(in crate::gateway) struct Peer {
    address: SocketAddr,
    certificate: Option<Arc<PeerCertificate>>,
}

impl Peer {
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn certificate(&self) -> Option<&PeerCertificate> {
        self.certificate.as_deref()
    }
}

/// Serves one connection to its end, or until `stopping` if nothing was said on it yet.
pub(in crate::gateway) async fn serve_connection(
    (stream, address): (TcpStream, SocketAddr),
    tls: Option<Tls>,
    router: Router,
    clock: Clock,
    watcher: Watcher,
    mut stopping: watch::Receiver<bool>,
) {
    let opened = async {
        match tls {
            Some(tls) => encrypted(stream, address, &tls, &clock).await,
            None => plain(stream, address, &clock).await,
        }
    };
    // On the heap while it lasts: a connection that is open for hours has no use for it any more, nor
    // for the other version's state.
    let opened = tokio::select! {
        opened = Box::pin(opened) => opened,
        _ = stopping.changed() => None,
    };
    let Some(Opened { stream, peer, is_http2 }) = opened else { return };
    let certificate = peer.certificate.clone();
    let service = TowerToHyperService::new(Extension(peer).layer(router));
    let io = TokioIo::new(Paced::new(stream, clock.clone()));
    let served = match (certificate, is_http2) {
        (None, false) => watcher.watch(first().serve_connection(io, service)).await,
        (certificate, is_http2) => {
            let (own, traffic) = (GracefulShutdown::new(), Arc::<Traffic>::default());
            let ended = ended(certificate, is_http2.then_some(&*traffic), &clock, stopping);
            let served = if is_http2 {
                let streams = Streams { clock: clock.clone(), traffic: Arc::clone(&traffic) };
                let served = own.watch(second(streams).serve_connection(io, service));
                Box::pin(until(served, own, ended, &traffic, &clock)).await
            } else {
                let served = own.watch(first().serve_connection(io, service));
                Box::pin(until(served, own, ended, &traffic, &clock)).await
            };
            // Whoever drains waits for this as for the others.
            drop(watcher);
            served
        }
    };
    if let Err(error) = served {
        tracing::debug!(error = &error as &dyn std::error::Error, "connection ended");
    }
}

/// Serves a connection until it ends or is ended: then it takes no new request, and what it answers
/// gets its time.
async fn until<E>(
    served: impl Future<Output = Result<(), E>>,
    own: GracefulShutdown,
    ended: impl Future<Output = End>,
    traffic: &Traffic,
    clock: &Clock,
) -> Result<(), E> {
    let mut served = Box::pin(served);
    let end = tokio::select! {
        served = &mut served => return served,
        end = ended => end,
    };
    // Asked to, it says goodbye; it has ended when `served` is through.
    let mut closing = Box::pin(own.shutdown());
    let closed = async {
        tokio::select! {
            biased;
            served = &mut served => served,
            () = &mut closing => (&mut served).await,
        }
    };
    match end {
        End::Drain => closed.await,
        End::Expired => {
            let late = clock.now() + EXPIRED_CONNECTION;
            clock.before(late, closed).await.unwrap_or(Ok(()))
        }
        // Whoever has asked for something in the last moment is answered.
        End::Silent => tokio::select! {
            closed = closed => closed,
            () = traffic.ceases(clock) => Ok(()),
        },
    }
}

/// Why a connection is ended from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The gateway stops, and waits for what was begun.
    Drain,
    /// Its client's certificate isn't valid any more.
    Expired,
    /// Its client doesn't ask for anything.
    Silent,
}

async fn ended(
    certificate: Option<Arc<PeerCertificate>>,
    traffic: Option<&Traffic>,
    clock: &Clock,
    mut stopping: watch::Receiver<bool>,
) -> End {
    let expired = async {
        let Some(certificate) = certificate else { return std::future::pending().await };
        while !certificate.has_ended(clock) {
            let left = certificate.ends().saturating_sub(clock.unix()) + Duration::from_secs(1);
            clock.sleep(left.min(CREDENTIAL_LOOK)).await;
        }
    };
    let silent = async {
        match traffic {
            Some(traffic) => traffic.ceases(clock).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = expired => End::Expired,
        () = silent => End::Silent,
        _ = stopping.wait_for(|stopping| *stopping) => End::Drain,
    }
}

/// A connection that speaks HTTP.
struct Opened {
    stream: Box<dyn Stream>,
    peer: Peer,
    is_http2: bool,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn encrypted(
    stream: TcpStream,
    address: SocketAddr,
    tls: &Tls,
    clock: &Clock,
) -> Option<Opened> {
    let shaken = TlsAcceptor::from(tls.current()).accept(stream);
    let stream = match clock.before(clock.now() + HEAD_DEADLINE, shaken).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%address, error = &error as &dyn std::error::Error, "no TLS");
            return None;
        }
        Err(_elapsed) => return None,
    };
    let (_, session) = stream.get_ref();
    let is_http2 = session.alpn_protocol() == Some(b"h2");
    let certificate = session.peer_certificates().and_then(|chain| chain.first());
    let certificate = certificate.and_then(|der| match PeerCertificate::read(der) {
        Ok(certificate) => Some(Arc::new(certificate)),
        Err(error) => {
            // Its requests are those of somebody who has none.
            tracing::info!(%address, %error, "a client's certificate can't be used");
            None
        }
    });
    Some(Opened { stream: Box::new(stream), peer: Peer { address, certificate }, is_http2 })
}

async fn plain(stream: TcpStream, address: SocketAddr, clock: &Clock) -> Option<Opened> {
    let is_http2 = speaks_http2(&stream, clock).await?;
    Some(Opened { stream: Box::new(stream), peer: Peer { address, certificate: None }, is_http2 })
}

fn first() -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_headers(HEADER_LINES)
        .max_buf_size(HEAD_BYTES);
    http
}

fn second(streams: Streams) -> http2::Builder<Streams> {
    let mut http = http2::Builder::new(streams);
    http.timer(TokioTimer::new())
        .keep_alive_interval(STREAM_KEEP_ALIVE)
        .keep_alive_timeout(STREAM_KEEP_ALIVE_ANSWER)
        .max_concurrent_streams(CONNECTION_STREAMS)
        .max_pending_accept_reset_streams(RESET_STREAMS)
        .max_local_error_reset_streams(RESET_STREAMS)
        .max_header_list_size(u32::try_from(HEAD_BYTES).unwrap_or(u32::MAX));
    http
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

#[cfg(test)]
mod tests {
    use super::*;
    use neuroflow_kernel::ManualClock;
    use std::future::{pending, ready};
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    #[test]
    fn what_is_answered_on_an_expired_connection_gets_a_little_time_and_otherwise_all_of_it() {
        let mut cx = Context::from_waker(Waker::noop());
        for (end, is_open, time_left, is_cut) in [
            (End::Expired, true, EXPIRED_CONNECTION, true),
            (End::Drain, true, EXPIRED_CONNECTION, false),
            (End::Silent, true, HEAD_DEADLINE, false),
            (End::Silent, false, HEAD_DEADLINE, true),
        ] {
            let time = ManualClock::new();
            let (clock, traffic) = (time.clock(), Arc::<Traffic>::default());
            let _open = is_open.then(|| traffic.begin());
            let never = pending::<Result<(), ()>>();
            let own = GracefulShutdown::new();
            let mut served = pin!(until(never, own, ready(end), &traffic, &clock));
            assert!(served.as_mut().poll(&mut cx).is_pending());
            time.advance(time_left.saturating_sub(Duration::from_millis(1)));
            assert!(served.as_mut().poll(&mut cx).is_pending());
            time.advance(Duration::from_millis(1));
            assert_eq!(served.as_mut().poll(&mut cx) == Poll::Ready(Ok(())), is_cut, "{end:?}");
        }
    }
}
