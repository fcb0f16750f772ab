//! The routes: health, cards, and the JSON-RPC binding. Each request becomes one call and one answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use neuroflow_kernel::{Clock, Header, SpanGuard, SpanKind, TraceContext, Tracer};

use super::card::card;
use super::error::A2aError;
use super::jsonrpc::{self, Call, Id};
use super::operations::Operation;
use super::{GatewayAgent, GatewayConfig, GatewayError};
use crate::limits::{BODY_BYTES, BODY_DEADLINE};

/// What every request needs.
pub(super) struct Shared {
    config: GatewayConfig,
    clock: Clock,
    tracer: Tracer,
    /// Each agent with its card, by name.
    agents: BTreeMap<String, Served>,
    /// The agent that answers at the root, with the root's URL in its card.
    root: Served,
    ready: AtomicBool,
}

struct Served {
    agent: GatewayAgent,
    card: Bytes,
}

impl Shared {
    pub(super) fn new(
        config: GatewayConfig,
        base_url: &str,
        clock: Clock,
        tracer: Tracer,
    ) -> Result<Arc<Self>, GatewayError> {
        let serve = |agent: &GatewayAgent, url: &str| {
            let name = &agent.profile.name;
            let written = card(&agent.profile, url, &config.version);
            let card = written
                .map_err(|source| GatewayError::Card { agent: name.clone(), source })?
                .into();
            Ok(Served { agent: agent.clone(), card })
        };
        let first = config.agents.first().ok_or(GatewayError::NoAgents)?;
        let root = serve(first, &format!("{base_url}/"))?;
        let mut agents = BTreeMap::new();
        for agent in &config.agents {
            let name = agent.profile.name.clone();
            let url = format!("{base_url}/agents/{name}");
            agents.insert(name, serve(agent, &url)?);
        }
        let ready = AtomicBool::new(true);
        Ok(Arc::new(Self { config, clock, tracer, agents, root, ready }))
    }

    /// From now on `/readyz` says no.
    pub(super) fn drain(&self) {
        self.ready.store(false, Ordering::Release);
    }

    fn served(&self, agent: &str) -> Result<&Served, A2aError> {
        self.agents.get(agent).ok_or_else(|| A2aError::AgentNotFound {
            agent: agent.to_owned(),
            known: self.agents.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
        })
    }
}

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", post(root_rpc))
        .route("/agents/{agent}", post(agent_rpc))
        .route("/.well-known/agent-card.json", get(root_card))
        .route("/agents/{agent}/.well-known/agent-card.json", get(agent_card))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(shared)
}

async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    if shared.ready.load(Ordering::Acquire) {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response()
    }
}

async fn root_card(State(shared): State<Arc<Shared>>) -> Response {
    json(StatusCode::OK, shared.root.card.clone())
}

async fn agent_card(State(shared): State<Arc<Shared>>, Path(agent): Path<String>) -> Response {
    match shared.served(&agent) {
        Ok(served) => json(StatusCode::OK, served.card.clone()),
        Err(error) => {
            let body = serde_json::json!({ "error": error.to_json() }).to_string();
            json(StatusCode::NOT_FOUND, body)
        }
    }
}

async fn root_rpc(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Response {
    let agent = &shared.root.agent;
    answer(&shared, Ok(agent), request).await
}

async fn agent_rpc(
    State(shared): State<Arc<Shared>>,
    Path(agent): Path<String>,
    request: Request<Body>,
) -> Response {
    let agent = shared.served(&agent).map(|served| &served.agent);
    answer(&shared, agent, request).await
}

/// Reads the call, does it, and writes the answer; counts and traces it.
async fn answer(
    shared: &Shared,
    agent: Result<&GatewayAgent, A2aError>,
    request: Request<Body>,
) -> Response {
    let begun = shared.clock.now();
    let (head, body) = request.into_parts();
    let mut span = begin_span(shared, &head.headers);
    let mut method = "unknown";
    let result = serve(shared, agent, &head, body, &mut span, &mut method).await;
    let (status, error, body) = match result {
        Ok(body) => (200, None, body),
        Err((id, error)) => {
            span.fail(error.code().to_string());
            (error.status(), Some(error.code()), jsonrpc::failure(&id, &error))
        }
    };
    span.set("http.response.status_code", i64::from(status));
    shared.config.meter.request(method, status, error, shared.clock.now().since(begun));
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(status, body);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        let retry = header::HeaderValue::from_static("1");
        response.headers_mut().insert(header::RETRY_AFTER, retry);
    }
    response
}

fn begin_span(shared: &Shared, headers: &HeaderMap) -> SpanGuard {
    let sent = headers.get("traceparent").and_then(|value| value.to_str().ok());
    let parent = sent.and_then(|text| text.parse::<TraceContext>().ok());
    let mut span = match parent {
        Some(parent) => {
            let mut span = shared.tracer.span(parent, "a2a", SpanKind::Server);
            span.remote_parent();
            span
        }
        None => shared.tracer.root((shared.config.sample)(), "a2a", SpanKind::Server),
    };
    span.set("a2a.protocol.version", "1.0");
    span.set("http.request.method", "POST");
    span
}

async fn serve(
    shared: &Shared,
    agent: Result<&GatewayAgent, A2aError>,
    head: &Parts,
    body: Body,
    span: &mut SpanGuard,
    method: &mut &'static str,
) -> Result<Vec<u8>, (Id, A2aError)> {
    let nobody = |error| (Id::NULL, error);
    check_content_type(&head.headers).map_err(nobody)?;
    let body = read_body(shared, body).await.map_err(nobody)?;
    let call = jsonrpc::read(&body)?;
    let known = METHODS.iter().find(|known| **known == call.method);
    *method = known.copied().unwrap_or("unknown");
    span.rename(*method);
    span.set("a2a.method.name", *method);
    let result = async {
        check_version(head)?;
        let agent = agent?;
        span.set("gen_ai.agent.name", agent.profile.name.clone());
        let operation = Operation {
            agent,
            clock: &shared.clock,
            header: Header::new().traced(span.context()),
            blocking_wait: shared.config.blocking_wait,
        };
        dispatch(&operation, &call).await
    };
    let result = result.await.and_then(|result| jsonrpc::success(&call.id, &result));
    result.map_err(|error| (call.id.clone(), error))
}

/// The methods of A2A 1.0, which metrics and spans may be named after.
const METHODS: [&str; 11] = [
    "SendMessage",
    "GetTask",
    "CancelTask",
    "SendStreamingMessage",
    "SubscribeToTask",
    "ListTasks",
    "GetExtendedAgentCard",
    "CreateTaskPushNotificationConfig",
    "GetTaskPushNotificationConfig",
    "ListTaskPushNotificationConfigs",
    "DeleteTaskPushNotificationConfig",
];

async fn dispatch(
    operation: &Operation<'_>,
    call: &Call<'_>,
) -> Result<serde_json::Value, A2aError> {
    let unsupported = |operation| Err(A2aError::UnsupportedOperation { operation });
    match call.method.as_str() {
        "SendMessage" => operation.send(call.params()?).await,
        "GetTask" => operation.get(call.params()?).await,
        "CancelTask" => operation.cancel(call.params()?).await,
        "SendStreamingMessage" => unsupported("SendStreamingMessage"),
        "SubscribeToTask" => unsupported("SubscribeToTask"),
        "ListTasks" => unsupported("ListTasks"),
        "GetExtendedAgentCard" => unsupported("GetExtendedAgentCard"),
        "CreateTaskPushNotificationConfig"
        | "GetTaskPushNotificationConfig"
        | "ListTaskPushNotificationConfigs"
        | "DeleteTaskPushNotificationConfig" => Err(A2aError::PushNotificationNotSupported),
        method => Err(A2aError::MethodNotFound { method: method.to_owned() }),
    }
}

fn check_content_type(headers: &HeaderMap) -> Result<(), A2aError> {
    let found = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    let essence = found.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(A2aError::ContentTypeNotSupported { found: essence.to_owned() })
}

/// `Major.Minor`, the patch ignored, in a header or else in the query; a client that says nothing
/// speaks 0.3.
fn check_version(head: &Parts) -> Result<(), A2aError> {
    let header = head.headers.get("a2a-version").map(|value| value.to_str().unwrap_or_default());
    let mut query = head.uri.query().unwrap_or_default().split('&');
    let query = query.find_map(|pair| pair.strip_prefix("A2A-Version="));
    let sent = header.or(query).unwrap_or("0.3");
    let mut numbers = sent.trim().split('.');
    if numbers.next() == Some("1") && numbers.next() == Some("0") {
        return Ok(());
    }
    Err(A2aError::VersionNotSupported { found: sent.to_owned() })
}

async fn read_body(shared: &Shared, body: Body) -> Result<Bytes, A2aError> {
    // What is announced as too large isn't waited for.
    if body.size_hint().lower() > BODY_BYTES as u64 {
        return Err(A2aError::BodyTooLarge { limit: BODY_BYTES });
    }
    let deadline = shared.clock.now() + BODY_DEADLINE;
    let whole = Limited::new(body, BODY_BYTES).collect();
    match shared.clock.before(deadline, whole).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(A2aError::BodyTooLarge { limit: BODY_BYTES })
        }
        Ok(Err(_cut_off)) => Err(A2aError::BodyCutOff),
        Err(_elapsed) => Err(A2aError::BodyTimedOut),
    }
}

fn json(status: StatusCode, body: impl Into<Body>) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.into()).into_response()
}
