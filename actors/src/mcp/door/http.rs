//! The MCP endpoint over streamable HTTP: both eras, `Host` and `Origin` checked, sessions bounded.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Method, Request, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use rmcp::ServerHandler;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};

use super::McpHosts;
use crate::limits::{BODY_BYTES, MCP_SESSIONS};

/// Routes with the endpoint `/mcp`, where each session of the earlier version, and each request of the
/// later one, is answered by a handler of its own. The handler may be the node's, or any other of the
/// protocol's library.
///
/// ```
/// use neuroflow_actors::{McpDoor, McpHosts, mcp_routes};
/// fn routes(door: McpDoor, hosts: &McpHosts) -> axum::Router {
///     mcp_routes(move || door.handler(), hosts)
/// }
/// ```
pub fn mcp_routes<H: ServerHandler>(
    handler: impl Fn() -> H + Send + Sync + 'static,
    hosts: &McpHosts,
) -> Router {
    let sessions = Arc::new(LocalSessionManager::default());
    let config = StreamableHttpServerConfig::default()
        .with_allowed_hosts(hosts.hosts())
        .with_allowed_origins(hosts.origins())
        .enforce_origin_validation()
        .with_max_request_body_bytes(BODY_BYTES);
    let service = StreamableHttpService::new(move || Ok(handler()), Arc::clone(&sessions), config);
    Router::new().route_service("/mcp", service).layer(from_fn_with_state(sessions, bound_sessions))
}

/// A request without a session may begin one, and there is room for so many only.
async fn bound_sessions(
    State(sessions): State<Arc<LocalSessionManager>>,
    request: Request<Body>,
    next: Next,
) -> Response {
    let begins = request.method() == Method::POST && !request.headers().contains_key(SESSION);
    if begins && sessions.sessions.read().await.len() >= MCP_SESSIONS {
        let retry = [(header::RETRY_AFTER, "60")];
        return (StatusCode::SERVICE_UNAVAILABLE, retry, "too many sessions\n").into_response();
    }
    next.run(request).await
}

const SESSION: &str = "mcp-session-id";
