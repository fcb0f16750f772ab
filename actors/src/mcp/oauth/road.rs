//! The way of OAuth's requests. Those to the MCP server pass the allow-list that it's reached by; all
//! others go to public addresses and over TLS, for it's the MCP server that names them.

use std::sync::Arc;

use axum::body::Bytes;
use axum::http::{HeaderValue, Request, Response, header};
use http_body_util::Full;
use neuroflow_kernel::{Clock, Moment};
use neuroflow_sandbox::{Outbound, OutboundError, OutboundStream, Outlet};
use rmcp::transport::{OAuthHttpClient, OAuthHttpClientFuture, OAuthHttpRequest};

use crate::audit::uses::{Decision, Shown, Uses};
use crate::exchange::{self, Place};
use crate::limits::{OAUTH_BYTES, OAUTH_REQUEST};
use crate::mcp::HttpError;

/// Makes the requests; redirects aren't followed.
#[derive(Debug)]
pub(in crate::mcp) struct Road {
    pub(in crate::mcp) outlet: Outlet,
    pub(in crate::mcp) target: Arc<Place>,
    pub(in crate::mcp) outbound: Outbound,
    pub(in crate::mcp) clock: Clock,
    pub(in crate::mcp) uses: Uses,
}

/// Why a request isn't answered.
#[derive(Debug, thiserror::Error)]
enum RoadError {
    #[error("{url:?} isn't asked in clear")]
    InClear { url: String },
    #[error("no connection to {url:?}")]
    Connect {
        url: String,
        #[source]
        source: OutboundError,
    },
    #[error("the request isn't answered")]
    Http(#[from] HttpError),
}

impl Road {
    async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, RoadError> {
        let by = self.clock.now() + OAUTH_REQUEST;
        let exchange = self.exchange(request, by);
        self.clock.before(by, exchange).await.map_err(|_elapsed| HttpError::Late)?
    }

    async fn connect(
        &self,
        url: &str,
        aim: &Place,
        method: &str,
        by: Moment,
    ) -> Result<Box<dyn OutboundStream>, RoadError> {
        let (host, port) = (aim.host(), aim.port());
        if aim.is_same_origin(&self.target) {
            let stream = self.outlet.connect(method, host, port, aim.path(), aim.is_tls()).await;
            self.uses.connected(host, port, (&stream).into());
            return Ok(Box::new(stream.map_err(HttpError::from)?));
        }
        if !aim.is_tls() && self.outbound.is_public_only() {
            self.uses.connected(host, port, Decision::IN_CLEAR);
            return Err(RoadError::InClear { url: url.to_owned() });
        }
        let stream = self.outbound.connect(host, port, aim.is_tls(), by).await;
        self.uses.connected(host, port, (&stream).into());
        stream.map_err(|source| RoadError::Connect { url: url.to_owned(), source })
    }

    async fn exchange(
        &self,
        request: Request<Vec<u8>>,
        by: Moment,
    ) -> Result<Response<Vec<u8>>, RoadError> {
        let url = request.uri().to_string();
        let aim = Place::parse(&url).map_err(|_other| HttpError::Url)?;
        let stream = self.connect(&url, &aim, request.method().as_str(), by).await?;
        let (mut head, body) = request.into_parts();
        // Forms are what tokens are asked for with, and those show what proves who asks.
        let kind = head.headers.get(header::CONTENT_TYPE);
        if kind.is_some_and(|kind| kind.as_bytes().starts_with(FORM.as_bytes())) {
            self.uses.note(Shown::Proof);
        }
        head.uri = aim.target().parse().map_err(|_malformed| HttpError::Url)?;
        let host = HeaderValue::from_str(aim.authority()).map_err(|_malformed| HttpError::Url)?;
        head.headers.insert(header::HOST, host);
        let request = Request::from_parts(head, Full::new(Bytes::from(body)));
        let (head, body) =
            exchange::ask(stream, request).await.map_err(HttpError::from)?.into_parts();
        let body = body.whole(OAUTH_BYTES).await.map_err(HttpError::from)?;
        Ok(Response::from_parts(head, body))
    }
}

impl OAuthHttpClient for Road {
    fn execute(&self, request: OAuthHttpRequest) -> OAuthHttpClientFuture<'_> {
        Box::pin(async move { Ok(self.send(request.request).await?) })
    }
}

impl Road {
    /// Posts a form; gives status and body.
    pub(super) async fn post(
        &self,
        url: &str,
        form: String,
    ) -> Result<(u16, Vec<u8>), Box<dyn std::error::Error + Send + Sync>> {
        let request = Request::post(url)
            .header(header::CONTENT_TYPE, FORM)
            .header(header::ACCEPT, "application/json")
            .body(form.into_bytes())?;
        let (head, body) = self.send(request).await?.into_parts();
        Ok((head.status.as_u16(), body))
    }
}

const FORM: &str = "application/x-www-form-urlencoded";
