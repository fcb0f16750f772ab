//! Accepts a cell's connections and carries each to its end.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use http_body_util::{Either, Full};
use hyper::{
    Method, Request, Response, body::Incoming, header, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use neuroflow_kernel::Clock;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream},
};

use super::{
    answer::{self, Body},
    decision::{Asked, decide},
    dial::dial,
    exchange::{Exchange, Shared},
    forward::forward,
    head::{self, Overrides, Target},
    policy::Policy,
    reason::EgressReason,
    resolver::Resolve,
    tally::Tally,
    tunnel::Tunnel,
};
use crate::limits;

/// A proxy that is ready to run, and the counts that outlive it.
#[derive(Debug)]
pub(crate) struct Egress {
    pub(crate) proxy: Proxy,
    pub(crate) tally: Arc<Tally>,
}

/// Serves a listening socket, which may be in a cell's network namespace; what it connects to is in
/// that of the host. Needs a runtime with I/O.
#[cfg(unix)]
pub(crate) fn serve(
    listener: std::os::fd::OwnedFd,
    policy: Arc<Policy>,
    cell: String,
    clock: Clock,
) -> Result<Egress, crate::errno::Errno> {
    let listener = std::net::TcpListener::from(listener);
    let ready = listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener));
    let ready = ready.map_err(|error| {
        crate::errno::Errno::from_raw(error.raw_os_error().unwrap_or(libc::EINVAL))
    })?;
    let resolver = policy.names.for_cell();
    Ok(Egress::of(ready, policy, cell, clock, resolver))
}

impl Egress {
    pub(crate) fn of(
        listener: TcpListener,
        policy: Arc<Policy>,
        cell: String,
        clock: Clock,
        resolver: Arc<dyn Resolve>,
    ) -> Self {
        let tally = Arc::new(Tally::of(cell));
        let shared = Arc::new(Shared { policy, tally: Arc::clone(&tally), resolver, clock });
        Self { proxy: Proxy { listener, shared }, tally }
    }
}

/// Accepts connections and drives all of them in one future: dropping it ends everything.
#[derive(Debug)]
pub(crate) struct Proxy {
    listener: TcpListener,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Runs until `stop` completes, or the listener is of no use any more.
    pub(crate) async fn run(self, stop: impl Future<Output = ()>) {
        let Self { listener, shared } = self;
        let most = usize::try_from(shared.policy.limits.concurrent).unwrap_or(usize::MAX);
        let mut running = FuturesUnordered::new();
        let mut stop = std::pin::pin!(stop);
        // A pause in accepting; what runs goes on meanwhile.
        let mut pause = std::pin::pin!(None);
        let mut listener = Some(listener);
        let mut refusals = 0;
        loop {
            tokio::select! {
                biased;
                () = &mut stop => return,
                Some(()) = running.next() => {}
                () = over(pause.as_mut()), if pause.is_some() => pause.set(None),
                // At the bound, further clients wait in the listener's queue.
                accepted = accept(listener.as_ref()), if running.len() < most && pause.is_none() => match accepted {
                    Ok((stream, _peer)) => {
                        let exchange = Exchange::begin(Arc::clone(&shared));
                        refusals += u64::from(exchange.is_surplus);
                        if refusals == limits::EGRESS_REFUSALS {
                            // From here on the kernel refuses in the proxy's place.
                            listener = None;
                        }
                        running.push(serve_client(exchange, stream));
                    }
                    Err(error) if is_passing(&error) => {
                        tracing::warn!(target: "neuroflow::egress", %error, "no connection accepted");
                        pause.set(Some(shared.clock.sleep(limits::EGRESS_ACCEPT_PAUSE)));
                    }
                    Err(error) => {
                        tracing::error!(target: "neuroflow::egress", %error, "the listener is broken");
                        return;
                    }
                },
            }
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

async fn over<F: Future<Output = ()>>(pause: Pin<&mut Option<F>>) {
    if let Some(pause) = pause.as_pin_mut() {
        pause.await;
    }
}

/// Errors of one connection, or for want of descriptors or memory; not of the listener.
fn is_passing(error: &io::Error) -> bool {
    !matches!(
        error.raw_os_error(),
        Some(libc::EBADF | libc::EINVAL | libc::ENOTSOCK | libc::EOPNOTSUPP | libc::EFAULT)
    )
}

async fn serve_client(exchange: Arc<Exchange>, stream: TcpStream) {
    let served = async {
        // The client's own errors are its business: it is gone, and the decision is recorded.
        if let Err(error) = serve_request(&exchange, stream).await {
            tracing::debug!(target: "neuroflow::egress", %error, "connection of the cell ended");
        }
    };
    tokio::select! {
        () = served => {}
        reason = exchange.overdue() => {
            exchange.ends(reason);
        }
    }
    exchange.is_over();
}

/// Reads one request, answers it, and carries a tunnel if that is what it asked for.
async fn serve_request(exchange: &Arc<Exchange>, stream: TcpStream) -> io::Result<()> {
    let _slower = stream.set_nodelay(true);
    let head = Arc::new(Mutex::new(Some(Vec::new())));
    let promised = Arc::new(Mutex::new(None));
    let service = service_fn(|request: Request<Incoming>| {
        let is_tunnel = *request.method() == Method::CONNECT;
        let raw = lock(&head).take().unwrap_or_default();
        let (exchange, promised) = (Arc::clone(exchange), Arc::clone(&promised));
        let answered: Answering = Box::pin(async move {
            let response = match answer(&exchange, request, &raw, &promised).await {
                Ok(response) => response,
                Err(reason) => answer::refusal(exchange.ends(reason)),
            };
            Ok(answer::last(response, is_tunnel))
        });
        answered
    });
    let limits = &exchange.shared.policy.limits;
    let head_bytes = usize::try_from(limits.head_bytes).unwrap_or(usize::MAX);
    let recorded = Recorded { stream, head: Arc::clone(&head) };
    let mut connection = http1::Builder::new()
        .max_buf_size(head_bytes)
        .max_headers(crate::limits::EGRESS_HEADERS)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(recorded), service);
    let served = std::future::poll_fn(|cx| connection.poll_without_shutdown(cx)).await;
    let parts = connection.into_parts();
    let mut stream = parts.io.into_inner().stream;
    if let Err(error) = served {
        // Of a client that has sent nothing there is nothing to record.
        if error.is_parse() && lock(&head).as_ref().is_some_and(|raw| !raw.is_empty()) {
            exchange.ends(EgressReason::Malformed);
        }
        linger(exchange, &mut stream).await?;
        return Err(io::Error::other(error));
    }
    let tunnel = lock(&promised).take();
    match tunnel {
        Some(tunnel) => Tunnel::run(tunnel, exchange, stream, parts.read_buf).await,
        None => linger(exchange, &mut stream).await,
    }
}

type Answering = BoxFuture<'static, Result<Response<Body>, Infallible>>;

async fn answer(
    exchange: &Arc<Exchange>,
    request: Request<Incoming>,
    raw: &[u8],
    promised: &Mutex<Option<Tunnel>>,
) -> Result<Response<Body>, EgressReason> {
    let is_tunnel = *request.method() == Method::CONNECT;
    exchange.asked(request.method().as_str(), (!is_tunnel).then(|| request.uri().path()));
    if let Some(authority) = request.uri().authority() {
        exchange.asked_for(authority.as_str());
    }
    if exchange.is_surplus {
        return Err(EgressReason::Connections);
    }
    let shared = &exchange.shared;
    head::scan(raw)?;
    let target =
        head::target(request.method(), request.uri(), request.version(), request.headers())?;
    match target {
        Target::Tunnel { host, port } => {
            exchange.aimed_at(&host, port);
            // What follows is the tunnel's; a length would make a body of it.
            let headers = request.headers();
            if headers.contains_key(header::CONTENT_LENGTH)
                || headers.contains_key(header::TRANSFER_ENCODING)
            {
                return Err(EgressReason::Framing);
            }
            let grant = decide(&shared.policy, &host, &Asked::Tunnel { port })?;
            exchange.granted(grant);
            let is_opaque = exchange.rule(grant).is_some_and(|rule| rule.opaque_tunnel);
            let upstream = dial(exchange, &host, grant).await?;
            exchange.passes();
            *lock(promised) = Some(Tunnel { upstream, host, is_opaque });
            Ok(Response::new(Either::Left(Full::default())))
        }
        Target::Plain { host, port } => {
            exchange.aimed_at(&host, port.unwrap_or(80));
            let (method, path) = (request.method(), request.uri().path());
            let overrides = Overrides::of(request.headers());
            let asked = Asked::Plain { port, method, path, overrides };
            let grant = decide(&shared.policy, &host, &asked)?;
            exchange.granted(grant);
            forward(exchange, request, &host, grant).await
        }
    }
}

/// Closes the way back and reads on for a moment: a socket that is closed with unread bytes in it
/// sends a reset, which may overtake the answer.
async fn linger(exchange: &Exchange, stream: &mut TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    let rest = async {
        let mut sink = tokio::io::sink();
        let most = u64::try_from(limits::EGRESS_LINGER_BYTES).unwrap_or(u64::MAX);
        tokio::io::copy(&mut stream.take(most), &mut sink).await
    };
    let until = exchange.deadline(limits::EGRESS_LINGER_TIME);
    match exchange.shared.clock.before(until, rest).await {
        Ok(read) => read.map(|_bytes| ()),
        Err(_elapsed) => Ok(()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The cell's side of a connection, which keeps a copy of the head until the request was read.
struct Recorded {
    stream: TcpStream,
    head: Arc<Mutex<Option<Vec<u8>>>>,
}

impl AsyncRead for Recorded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let Some(head) = lock(&self.head).as_mut() {
            // Bounded by the parser, which gives up on a head that is too large.
            head.extend_from_slice(buffer.filled().get(before..).unwrap_or_default());
        }
        read
    }
}

impl AsyncWrite for Recorded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
