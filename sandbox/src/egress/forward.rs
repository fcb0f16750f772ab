//! Plain requests: read whole, written anew, answered by the server.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_util::future::BoxFuture;
use http_body_util::Either;
use hyper::{
    Method, Request, Response, Uri, Version,
    body::{Body as _, Bytes, Frame, Incoming, SizeHint},
    client::conn::http1,
    header::{self, HeaderValue},
};
use hyper_util::rt::TokioIo;

use super::{
    answer::Body, decision::Grant, dial::dial, exchange::Exchange, head, host::Host,
    reason::EgressReason,
};
use crate::limits;

/// Sends the request to the host that a rule has allowed for it, and returns its response.
///
/// Each request has a connection of its own to the server: nothing that one leaves behind can be
/// taken for the answer to another.
pub(crate) async fn forward(
    exchange: &Arc<Exchange>,
    request: Request<Incoming>,
    host: &Host,
    grant: Grant,
) -> Result<Response<Body>, EgressReason> {
    let rule = exchange.rule(grant).ok_or(EgressReason::Host)?;
    let is_head = *request.method() == Method::HEAD;
    let request = rewrite(exchange, request, host, grant)?;
    let stream = dial(exchange, host, grant).await?;
    exchange.passes();

    let head_bytes =
        usize::try_from(exchange.shared.policy.limits.head_bytes).unwrap_or(usize::MAX);
    let mut builder = http1::Builder::new();
    builder.max_buf_size(head_bytes).max_headers(limits::EGRESS_HEADERS);
    let handshake = builder.handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|_closed| EgressReason::UpstreamResponse)?;
    let mut connection: Connection = Some(Box::pin(connection));
    let response = {
        let mut sending = std::pin::pin!(sender.send_request(request));
        // The connection moves on only as it's polled, and nobody else does that.
        std::future::poll_fn(|cx| {
            drive(&mut connection, cx);
            sending.as_mut().poll(cx)
        })
        .await
    };
    let response = response.map_err(|error| {
        tracing::debug!(target: "neuroflow::egress", %host, %error, "no response");
        EgressReason::UpstreamResponse
    })?;
    let (mut parts, body) = response.into_parts();
    if parts.status.is_informational() {
        // Nobody has asked for another protocol.
        return Err(EgressReason::UpstreamResponse);
    }
    if !head::is_only_chunked(&parts.headers) {
        return Err(EgressReason::UpstreamResponse);
    }
    head::incoming(&mut parts.headers, &rule.injections, is_head);
    let exchange = Arc::clone(exchange);
    let relay = Relay { body, connection, exchange };
    // Only status and headers come along: extensions hold the server's own wording of the status.
    let mut response = Response::new(Either::Right(relay));
    *response.status_mut() = parts.status;
    *response.headers_mut() = parts.headers;
    Ok(response)
}

/// The request as the server sees it: origin form, the `Host` that was checked, secrets added.
fn rewrite(
    exchange: &Exchange,
    request: Request<Incoming>,
    host: &Host,
    grant: Grant,
) -> Result<Request<Outgoing>, EgressReason> {
    let rule = exchange.rule(grant).ok_or(EgressReason::Host)?;
    let (parts, body) = request.into_parts();
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let uri: Uri = target.parse().map_err(|_no_target| EgressReason::NotProxyRequest)?;
    let usual = if rule.upstream.is_some() { 443 } else { 80 };
    let named =
        if grant.port == usual { host.to_string() } else { format!("{host}:{}", grant.port) };
    let named = HeaderValue::try_from(named).map_err(|_no_value| EgressReason::HostSyntax)?;

    let mut rewritten = Request::new(Outgoing(body));
    *rewritten.method_mut() = parts.method;
    *rewritten.uri_mut() = uri;
    *rewritten.version_mut() = Version::HTTP_11;
    *rewritten.headers_mut() = parts.headers;
    head::outgoing(rewritten.headers_mut(), named, &rule.injections);
    let body = rewritten.body();
    if !body.is_end_stream() && body.size_hint().exact().is_none() {
        // Of a body whose length isn't known, `hyper` sends nothing where the method has none as a rule.
        let chunked = HeaderValue::from_static("chunked");
        rewritten.headers_mut().insert(header::TRANSFER_ENCODING, chunked);
    }
    Ok(rewritten)
}

type Connection = Option<BoxFuture<'static, hyper::Result<()>>>;

fn drive(connection: &mut Connection, cx: &mut Context<'_>) {
    if let Some(running) = connection
        && let Poll::Ready(ended) = running.as_mut().poll(cx)
    {
        *connection = None;
        // The body or the response ends with the same error, and is who is asked.
        if let Err(error) = ended {
            tracing::debug!(target: "neuroflow::egress", %error, "connection to the server ended");
        }
    }
}

/// A request's body without its trailers, which would be headers that nobody has looked at.
#[derive(Debug)]
struct Outgoing(Incoming);

impl hyper::body::Body for Outgoing {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        poll_data(&mut self.0, cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// A response's body together with the connection that it comes from.
pub(crate) struct Relay {
    body: Incoming,
    connection: Connection,
    exchange: Arc<Exchange>,
}

impl hyper::body::Body for Relay {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        drive(&mut this.connection, cx);
        let frame = ready!(poll_data(&mut this.body, cx));
        if let Some(Err(_cut)) = &frame {
            this.exchange.ends(EgressReason::UpstreamResponse);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn poll_data(
    body: &mut Incoming,
    cx: &mut Context<'_>,
) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
    loop {
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
        match frame {
            Some(Ok(frame)) if !frame.is_data() => {}
            other => return Poll::Ready(other),
        }
    }
}
