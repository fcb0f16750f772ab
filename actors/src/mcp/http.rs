//! An MCP server over streamable HTTP: the client below the protocol's transport. Every connection
//! goes through an [`Outlet`], so its rules and address checks hold for each request; redirects aren't
//! followed, and everything that is read has a bound.

mod events;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::http::response::Parts;
use axum::http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http_body_util::Full;
use neuroflow_kernel::Clock;
use neuroflow_sandbox::{Outlet, OutletError};
use rmcp::model::{
    ClientJsonRpcMessage, ClientRequest, ErrorData, JsonRpcMessage, ServerJsonRpcMessage,
};
use rmcp::transport::streamable_http_client::{
    AuthRequiredError, StreamableHttpClient, StreamableHttpClientTransportConfig,
    StreamableHttpError, StreamableHttpPostResponse,
};
use sse_stream::{Error as SseError, Sse, SseStream};

use self::events::Events;
use super::OAuthError;
use super::oauth::Authorizer;
use crate::audit::uses::{Shown, Uses};
use crate::exchange::{self, Answer, AnswerError, Place};
use crate::limits::{MCP_HTTP_HEAD, MCP_MESSAGE_BYTES, OAUTH_RENEWALS};

/// Why an MCP server over HTTP isn't reached, or its answer isn't taken.
///
/// ```
/// use neuroflow_actors::HttpError;
/// assert_eq!(HttpError::Late.code(), "late");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The URL isn't one that can be used.
    #[error("the URL must be http:// or https:// with a host, and without user or fragment")]
    Url,
    /// A header isn't one.
    #[error("header {name:?} can't be sent")]
    Header {
        /// Its name.
        name: String,
    },
    /// The allow-list or the network says no.
    #[error("no connection to the server")]
    Outlet(#[from] OutletError),
    /// The exchange broke off.
    #[error("the exchange with the server broke off")]
    Exchange(#[from] hyper::Error),
    /// No answer began in time.
    #[error("the server didn't begin an answer within {MCP_HTTP_HEAD:?}")]
    Late,
    /// The answer is too large.
    #[error("the server's answer has more than {limit} bytes")]
    TooLarge {
        /// What is allowed.
        limit: usize,
    },
    /// Our own message can't be written.
    #[error("the message can't be written")]
    Message(#[from] serde_json::Error),
    /// The request can't be made.
    #[error("the request can't be made")]
    Request(#[from] axum::http::Error),
    /// The server demands a token, and there is none.
    #[error("there is no token for the server")]
    OAuth(#[source] Box<OAuthError>),
}

impl From<AnswerError> for HttpError {
    fn from(error: AnswerError) -> Self {
        match error {
            AnswerError::TooLarge { limit } => Self::TooLarge { limit },
            AnswerError::Broken(error) => Self::Exchange(error),
        }
    }
}

impl HttpError {
    /// A stable word for logs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Url => "url",
            Self::Header { .. } => "header",
            Self::Outlet(error) => error.code(),
            Self::Exchange(_) => "exchange",
            Self::Late => "late",
            Self::TooLarge { .. } => "too_large",
            Self::Message(_) => "message",
            Self::Request(_) => "request",
            Self::OAuth(error) => error.code(),
        }
    }
}

type Failure = StreamableHttpError<HttpError>;

fn failed(error: impl Into<HttpError>) -> Failure {
    StreamableHttpError::Client(error.into())
}

/// Makes requests of one server.
#[derive(Clone, Debug)]
pub(super) struct Client {
    outlet: Outlet,
    target: Arc<Place>,
    headers: Arc<[(HeaderName, HeaderValue)]>,
    clock: Clock,
    authorizer: Option<Arc<Authorizer>>,
    uses: Uses,
}

/// The client, and how the transport uses it.
pub(super) fn client(
    url: &str,
    target: Place,
    outlet: &Outlet,
    headers: &[(String, String)],
    clock: &Clock,
    uses: Uses,
) -> Result<(Client, StreamableHttpClientTransportConfig), HttpError> {
    let header = |(name, value): &(String, String)| {
        let unfit = || HttpError::Header { name: name.clone() };
        let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_malformed| unfit())?;
        let mut value = HeaderValue::from_str(value).map_err(|_malformed| unfit())?;
        // It may be a key, and shows nothing of itself.
        value.set_sensitive(true);
        Ok((parsed, value))
    };
    let headers = headers.iter().map(header).collect::<Result<_, HttpError>>()?;
    let client = Client {
        outlet: outlet.clone(),
        target: Arc::new(target),
        headers,
        clock: clock.clone(),
        authorizer: None,
        uses,
    };
    let config = StreamableHttpClientTransportConfig::with_uri(url)
        .max_sse_event_size(MCP_MESSAGE_BYTES)
        .max_json_response_size(MCP_MESSAGE_BYTES)
        // In a session that the engine began by itself nobody would list the tools, which may be others.
        .reinit_on_expired_session(false);
    Ok((client, config))
}

/// What is special about one request.
struct Wish {
    method: Method,
    accept: &'static str,
    session: Option<Arc<str>>,
    last_event: Option<String>,
    headers: HashMap<HeaderName, HeaderValue>,
    body: Option<Vec<u8>>,
    token: Option<String>,
}

impl Client {
    /// Where it sends requests.
    pub(super) fn target(&self) -> Arc<Place> {
        Arc::clone(&self.target)
    }

    /// Has tokens from now on.
    pub(super) fn authorise(&mut self, authorizer: Authorizer) {
        self.authorizer = Some(Arc::new(authorizer));
    }

    /// Makes a request with a token, if the server demands one, and again with another one, if it
    /// wants another.
    async fn authorised<T, F>(&self, request: impl Fn(Option<String>) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let Some(authorizer) = &self.authorizer else { return request(None).await };
        let no_token = |error| failed(HttpError::OAuth(Box::new(error)));
        for renewal in 0..OAUTH_RENEWALS {
            let token = Box::pin(authorizer.token()).await.map_err(no_token)?;
            match request(token.clone()).await {
                Err(StreamableHttpError::AuthRequired(required)) => {
                    let challenge = &required.www_authenticate_header;
                    // Boxed, because it's rare and large.
                    let renewed = authorizer.renew(token.as_deref(), challenge, renewal == 0);
                    Box::pin(renewed).await.map_err(no_token)?;
                }
                ended => return ended,
            }
        }
        request(Box::pin(authorizer.token()).await.map_err(no_token)?).await
    }

    async fn send(&self, wish: Wish) -> Result<Response<Answer>, HttpError> {
        let target = &self.target;
        let mut request = Request::builder()
            .method(&wish.method)
            .uri(target.target())
            .header(header::HOST, target.authority())
            .header(header::ACCEPT, wish.accept);
        if wish.body.is_some() {
            request = request.header(header::CONTENT_TYPE, JSON);
        }
        if let Some(session) = &wish.session {
            request = request.header(SESSION, session.as_ref());
        }
        if let Some(last) = &wish.last_event {
            request = request.header("last-event-id", last);
        }
        if let Some(token) = &wish.token {
            let mut value = HeaderValue::try_from(format!("Bearer {token}"))
                .map_err(axum::http::Error::from)?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        for (name, value) in wish.headers.iter().chain(self.headers.iter().map(|(n, v)| (n, v))) {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(Bytes::from(wish.body.unwrap_or_default())))?;
        let exchange = async {
            let (host, port, path) = (target.host(), target.port(), target.path());
            let (method, tls) = (wish.method.as_str(), target.is_tls());
            let connected = self.outlet.connect(method, host, port, path, tls).await;
            self.uses.connected(host, port, (&connected).into());
            let stream = connected?;
            if wish.token.is_some() {
                self.uses.note(Shown::Token);
            }
            if !self.headers.is_empty() {
                self.uses.note(Shown::Headers);
            }
            Ok(exchange::ask(stream, request).await?)
        };
        let by = self.clock.now() + MCP_HTTP_HEAD;
        self.clock.before(by, exchange).await.map_err(|_elapsed| HttpError::Late)?
    }

    async fn post(
        &self,
        message: &ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        headers: HashMap<HeaderName, HeaderValue>,
        token: Option<String>,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        let body = serde_json::to_vec(message).map_err(failed)?;
        let had_session = session.is_some();
        let method = Method::POST;
        let accept = "application/json, text/event-stream";
        let (last_event, body) = (None, Some(body));
        let wish = Wish { method, accept, session, last_event, headers, body, token };
        let (head, body) = self.send(wish).await.map_err(failed)?.into_parts();
        let status = head.status;
        if let Some(refused) = self.unauthorised(&head) {
            return Err(refused);
        }
        if matches!(status, StatusCode::ACCEPTED | StatusCode::NO_CONTENT) {
            return Ok(StreamableHttpPostResponse::Accepted);
        }
        if status == StatusCode::NOT_FOUND && had_session {
            return Err(StreamableHttpError::SessionExpired);
        }
        let text = |name: &str| {
            let value = head.headers.get(name).and_then(|value| value.to_str().ok());
            value.map(ToOwned::to_owned)
        };
        let (session, kind) = (text(SESSION), text("content-type"));
        let essence = kind.as_deref().unwrap_or_default().split(';').next().unwrap_or_default();
        let essence = essence.trim().to_ascii_lowercase();
        // A message without an answer of its own: whatever comes back, it was taken.
        let is_request = matches!(message, ClientJsonRpcMessage::Request(_));
        if !status.is_success() {
            let body = body.whole(MCP_MESSAGE_BYTES).await.map_err(failed)?;
            return refusal(message, had_session, status, essence == JSON, &body, session);
        }
        match essence.as_str() {
            EVENTS => {
                let events = Events::new(body, MCP_MESSAGE_BYTES);
                let stream = SseStream::from_bytes_stream(events).boxed();
                Ok(StreamableHttpPostResponse::Sse(stream, session))
            }
            JSON if is_request => {
                let body = body.whole(MCP_MESSAGE_BYTES).await.map_err(failed)?;
                let message: ServerJsonRpcMessage = serde_json::from_slice(&body)?;
                Ok(StreamableHttpPostResponse::Json(message, session))
            }
            _ if !is_request => Ok(StreamableHttpPostResponse::Accepted),
            _ => Err(StreamableHttpError::UnexpectedContentType(kind)),
        }
    }

    /// Whether the server demands a token, or another one. Who can have some needs no challenge to
    /// know where to ask; and one that is forbidden something for another reason than its scopes
    /// isn't helped by another token.
    fn unauthorised(&self, head: &Parts) -> Option<Failure> {
        let challenge = head.headers.get(header::WWW_AUTHENTICATE);
        let challenge = challenge.and_then(|challenge| challenge.to_str().ok());
        let can_have = self.authorizer.is_some();
        let challenge = match head.status {
            StatusCode::UNAUTHORIZED if can_have => challenge.unwrap_or_default(),
            StatusCode::FORBIDDEN if can_have => {
                challenge.filter(|challenge| challenge.contains("insufficient_scope"))?
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => challenge?,
            _ => return None,
        };
        Some(StreamableHttpError::AuthRequired(AuthRequiredError::new(challenge.to_owned())))
    }
}

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";
const SESSION: &str = "mcp-session-id";

/// What an answer with an error's status is: a protocol's error, a sign of an earlier version, or
/// neither.
fn refusal(
    message: &ClientJsonRpcMessage,
    had_session: bool,
    status: StatusCode,
    is_json: bool,
    body: &[u8],
    session: Option<String>,
) -> Result<StreamableHttpPostResponse, Failure> {
    let told = match serde_json::from_slice::<ServerJsonRpcMessage>(body) {
        Ok(JsonRpcMessage::Error(error)) if is_json => Some(error),
        _ => None,
    };
    if let ClientJsonRpcMessage::Request(request) = message
        && matches!(request.request, ClientRequest::DiscoverRequest(_))
        && status.is_client_error()
        && !had_session
    {
        // Who doesn't know the question can't echo its id: it's of an earlier version.
        let unknown = || ErrorData::invalid_request(format!("HTTP {status}"), None);
        let error = told.map_or_else(unknown, |told| told.error);
        let answer = ServerJsonRpcMessage::error(error, Some(request.id.clone()));
        return Ok(StreamableHttpPostResponse::Json(answer, None));
    }
    match told {
        Some(error) => Ok(StreamableHttpPostResponse::Json(JsonRpcMessage::Error(error), session)),
        None => {
            Err(StreamableHttpError::UnexpectedServerResponse(Cow::Owned(format!("HTTP {status}"))))
        }
    }
}

impl StreamableHttpClient for Client {
    type Error = HttpError;

    async fn post_message(
        &self,
        _uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        _auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        let post = |token| self.post(&message, session_id.clone(), custom_headers.clone(), token);
        self.authorised(post).await
    }

    async fn delete_session(
        &self,
        _uri: Arc<str>,
        session_id: Arc<str>,
        _auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<(), Failure> {
        // A token that isn't good any more isn't replaced to say good-bye.
        let token = match &self.authorizer {
            Some(authorizer) => Box::pin(authorizer.token()).await.unwrap_or_default(),
            None => None,
        };
        let wish = Wish {
            method: Method::DELETE,
            accept: JSON,
            session: Some(session_id),
            last_event: None,
            headers: custom_headers,
            body: None,
            token,
        };
        let status = self.send(wish).await.map_err(failed)?.status();
        if status.is_success() {
            return Ok(());
        }
        Err(StreamableHttpError::ServerDoesNotSupportDeleteSession)
    }

    async fn get_stream(
        &self,
        _uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        _auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<BoxStream<'static, Result<Sse, SseError>>, Failure> {
        let listen = |token| async {
            let wish = Wish {
                method: Method::GET,
                accept: EVENTS,
                session: session_id.clone(),
                last_event: last_event_id.clone(),
                headers: custom_headers.clone(),
                body: None,
                token,
            };
            let (head, body) = self.send(wish).await.map_err(failed)?.into_parts();
            if let Some(refused) = self.unauthorised(&head) {
                return Err(refused);
            }
            let kind = head.headers.get(header::CONTENT_TYPE);
            let is_stream = kind.is_some_and(|kind| kind.as_bytes().starts_with(EVENTS.as_bytes()));
            if !head.status.is_success() || !is_stream {
                return Err(StreamableHttpError::ServerDoesNotSupportSse);
            }
            let events = Events::new(body, MCP_MESSAGE_BYTES);
            Ok(SseStream::from_bytes_stream(events).boxed())
        };
        self.authorised(listen).await
    }
}
