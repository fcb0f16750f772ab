//! The MCP endpoint over streamable HTTP, both eras. It stands behind a gateway's door, which has
//! checked `Host` and `Origin` and says who asks.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::State;
use axum::http::{HeaderMap, Request, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Collected};
use neuroflow_kernel::Moment;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, ServerHandler};
use serde_json::json;

use super::sessions::{Full, Sessions};
use crate::gateway::{Admitted, Tenure, has_values_within};
use crate::limits::{BODY_BYTES, BODY_VALUES, LAST_WORD};

/// Routes with the endpoint `/mcp`, where each session of the earlier version, and each request of the
/// later one, is answered by a handler of its own. The handler may be the node's, or any other of the
/// protocol's library. They belong into a [`Mount`](crate::Mount): a request that hasn't come through a
/// gateway's door is refused.
///
/// ```
/// use neuroflow_actors::{McpDoor, Mount, mcp_routes};
/// fn mount(door: McpDoor) -> Mount {
///     Mount::new(move |_address| {
///         let door = door.clone();
///         mcp_routes(move || door.handler())
///     })
/// }
/// ```
pub fn mcp_routes<H: ServerHandler>(handler: impl Fn() -> H + Send + Sync + 'static) -> Router {
    let sessions = Arc::new(Sessions::default());
    // The door has one rule for all that is behind it; a second one here would be another.
    let config = StreamableHttpServerConfig::default()
        .disable_allowed_hosts()
        .disable_allowed_origins()
        .with_max_request_body_bytes(BODY_BYTES);
    let service = StreamableHttpService::new(move || Ok(handler()), Arc::clone(&sessions), config);
    Router::new().route_service("/mcp", service).layer(from_fn_with_state(sessions, own_session))
}

/// Lets nobody use the session of somebody else, nor begin too many.
async fn own_session(
    State(sessions): State<Arc<Sessions>>,
    request: Request<Body>,
    next: Next,
) -> Response {
    let Some(admitted) = request.extensions().get::<Admitted>() else {
        return (StatusCode::FORBIDDEN, "this is served through a gateway only\n").into_response();
    };
    let caller = admitted.caller();
    if let Some(session) = request.headers().get(SESSION) {
        let is_foreign = |id| sessions.is_foreign(id, caller.as_deref());
        if session.to_str().is_ok_and(is_foreign) {
            return (StatusCode::NOT_FOUND, "Not Found: Session not found").into_response();
        }
    }
    let tenure = admitted.tenure();
    let is_json = is_of(request.headers(), "application/json");
    let request = match weighed(request).await {
        Ok(request) => request,
        Err(refused) => return refused,
    };
    match Sessions::asked_by(caller, next.run(request)).await {
        // The protocol's library says of a text that it can't read that its kind is wrong.
        Ok(response) if is_json && response.status() == StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            unreadable()
        }
        Ok(response) => match tenure {
            Some(tenure) if is_stream(&response) => response.map(|body| bounded(body, tenure)),
            _ => response,
        },
        Err(full) => {
            let status = match full {
                Full::Principal => StatusCode::TOO_MANY_REQUESTS,
                Full::Node => StatusCode::SERVICE_UNAVAILABLE,
            };
            let retry = [(header::RETRY_AFTER, "60")];
            (status, retry, format!("{full}\n")).into_response()
        }
    }
}

fn is_stream(response: &Response) -> bool {
    is_of(response.headers(), "text/event-stream")
}

fn is_of(headers: &HeaderMap, kind: &str) -> bool {
    let sent = headers.get(header::CONTENT_TYPE);
    sent.is_some_and(|sent| sent.as_bytes().starts_with(kind.as_bytes()))
}

/// A request whose body has no more values than the gateway takes elsewhere: in memory each is many times its text, and
/// some stay there for as long as a call runs.
async fn weighed(request: Request<Body>) -> Result<Request<Body>, Response> {
    let (parts, body) = request.into_parts();
    // What is announced as too large isn't waited for.
    if body.size_hint().lower() > BODY_BYTES as u64 {
        return Ok(Request::from_parts(parts, body));
    }
    let body = match body.collect().await.map(Collected::to_bytes) {
        Ok(whole) if has_values_within(&whole, BODY_VALUES).is_ok_and(|fits| !fits) => {
            let text = format!("the body has more than {BODY_VALUES} values");
            return Err(refusal(&ErrorData::invalid_request(text, None)));
        }
        Ok(whole) => Body::from(whole),
        // The protocol's library says what it says of a body that ends so.
        Err(error) => Body::from_stream(stream::once(ready(Err::<Bytes, _>(error)))),
    };
    Ok(Request::from_parts(parts, body))
}

fn unreadable() -> Response {
    refusal(&ErrorData::parse_error("the body isn't one JSON-RPC message", None))
}

/// Nothing says which request it was, if it was one.
fn refusal(error: &ErrorData) -> Response {
    let answer = json!({ "jsonrpc": "2.0", "id": null, "error": error });
    (StatusCode::BAD_REQUEST, Json(answer)).into_response()
}

/// A stream that ends with the credential that it was asked for with. The call that it answers, if it
/// does that, ends by itself and gets a moment to say so.
fn bounded(body: Body, tenure: Tenure) -> Body {
    let begun = (body.into_data_stream(), tenure, None::<Moment>);
    let parts = stream::unfold(begun, |(mut body, mut tenure, mut last)| async move {
        let next = loop {
            let Some(at) = last else {
                tokio::select! {
                    biased;
                    _ended = tenure.lost(|_rules| Ok::<_, Infallible>(())) => {
                        last = Some(tenure.clock().now() + LAST_WORD);
                        continue;
                    }
                    next = body.next() => break next,
                }
            };
            break tenure.clock().before(at, body.next()).await.unwrap_or(None);
        };
        Some((next?, (body, tenure, last)))
    });
    Body::from_stream(parts)
}

const SESSION: &str = "mcp-session-id";
