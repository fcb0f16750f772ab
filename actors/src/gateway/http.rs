//! The routes: health, cards, the directory, and the bindings of A2A; and what all of these share.

mod rest;
mod rpc;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use a2a_pb::protojson as pb;
use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Extension, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use chrono::{DateTime, Utc};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use neuroflow_kernel::{Address, Clock, Header, Moment, SpanGuard, SpanKind, TraceContext, Tracer};
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::mpsc;

use super::card::Cards;
use super::cursor::Cursors;
use super::door::Admitted;
use super::error::A2aError;
use super::json::shown;
use super::openai::{self, Abandoned};
use super::openapi;
use super::operations::{Place, Visit};
use super::page::{Audience, Page};
use super::push::PushCommand;
use super::signature::SignError;
use super::{GatewayAgent, GatewayConfig, GatewayError, Metered, grpc};
use crate::limits::{BODY_BYTES, BODY_DEADLINE, CLIENT_EXTENSIONS};

/// What every request needs.
pub(super) struct Shared {
    config: GatewayConfig,
    pub(super) clock: Clock,
    tracer: Tracer,
    /// Each agent with its card, by name.
    agents: BTreeMap<String, Served>,
    /// The agent that answers at the root, with the root's URL in its card.
    root: Served,
    /// All cards, as JSON, in the order of the agents' configuration.
    cards: Vec<(GatewayAgent, Box<RawValue>)>,
    /// All of them as one document.
    directory: Page,
    /// Of the paths.
    description: Page,
    /// The public keys that the cards are signed with.
    keys: Option<Page>,
    cursors: Cursors,
    /// Where tasks are named that nobody can ask for any more.
    abandoned: mpsc::Sender<Abandoned>,
    started_s: u64,
    ready: AtomicBool,
}

/// An agent with its cards.
pub(super) struct Served {
    pub(super) agent: GatewayAgent,
    card: Page,
    /// None if there is nothing to add, or nobody can prove who they are.
    pub(super) extended: Option<pb::AgentCard>,
}

impl Shared {
    pub(super) fn new(
        config: GatewayConfig,
        base_url: &str,
        clock: Clock,
        tracer: Tracer,
        abandoned: mpsc::Sender<Abandoned>,
    ) -> Result<Arc<Self>, GatewayError> {
        let cards = Cards {
            base_url,
            version: &config.version,
            security: &config.security,
            pushes: config.push.is_some(),
        };
        let keys_url = format!("{base_url}{KEYS_PATH}");
        let signed = |mut card: pb::AgentCard| -> Result<pb::AgentCard, SignError> {
            if let Some(key) = &config.card_key {
                card.signatures = key.sign(&card, &keys_url)?;
            }
            Ok(card)
        };
        let modified = DateTime::<Utc>::from(clock.wall());
        let serve = |agent: &GatewayAgent, at_root| {
            let profile = &agent.profile;
            let written = || -> Result<(Box<RawValue>, Served), SignError> {
                let card = to_raw_value(&signed(cards.card(profile, at_root))?)?;
                let extended = cards.extended(profile, at_root).map(signed).transpose()?;
                let page = Page::new(card.get().as_bytes().to_vec(), modified);
                Ok((card, Served { agent: agent.clone(), card: page, extended }))
            };
            written().map_err(|error| {
                let agent = profile.name.clone();
                match error {
                    SignError::Card(source) => GatewayError::Card { agent, source },
                    SignError::Random => GatewayError::Random,
                }
            })
        };
        let first = config.agents.first().ok_or(GatewayError::NoAgents)?;
        let (_, root) = serve(first, true)?;
        let (mut agents, mut all) = (BTreeMap::new(), Vec::new());
        for agent in &config.agents {
            let (card, served) = serve(agent, false)?;
            all.push((agent.clone(), card));
            agents.insert(agent.profile.name.clone(), served);
        }
        let unwritable = |source| GatewayError::Card { agent: "/agents".to_owned(), source };
        let agents_of_all = all.iter().map(|(_, card)| &**card).collect();
        let directory =
            serde_json::to_vec(&Directory { agents: agents_of_all }).map_err(unwritable)?;
        let description =
            openapi::document(base_url, &config.version, &config.security, &config.mounts);
        let description = description.to_string().into_bytes();
        let keys = config
            .card_key
            .as_ref()
            .map(|key| Page::new(key.public_set().to_string().into_bytes(), modified));
        Ok(Arc::new(Self {
            abandoned,
            started_s: clock.unix().as_secs(),
            cursors: Cursors::new().map_err(|_no_source| GatewayError::Random)?,
            cards: all,
            directory: Page::new(directory, modified),
            description: Page::new(description, modified),
            keys,
            config,
            clock,
            tracer,
            agents,
            root,
            ready: AtomicBool::new(true),
        }))
    }

    /// From now on `/readyz` says no.
    pub(super) fn drain(&self) {
        self.ready.store(false, Ordering::Release);
    }

    /// The agent of this name, whether or not who asks may know that there is one.
    pub(super) fn served(&self, agent: &str) -> Option<&Served> {
        self.agents.get(agent)
    }

    /// The agents that are there for who asks.
    pub(super) fn seen<'a>(
        &'a self,
        admitted: &'a Admitted,
    ) -> impl Iterator<Item = &'a GatewayAgent> {
        self.agents.values().map(|served| &served.agent).filter(|agent| admitted.sees(agent))
    }

    /// That there is no such agent for who asks, whether or not there is one for others.
    pub(super) fn no_agent(&self, agent: &str, admitted: &Admitted) -> A2aError {
        let known: Vec<&str> =
            self.seen(admitted).map(|agent| agent.profile.name.as_str()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        A2aError::AgentNotFound { agent: shown(agent), known }
    }

    pub(super) fn root(&self) -> &Served {
        &self.root
    }

    pub(super) fn push(&self) -> Option<&Address<PushCommand>> {
        self.config.push.as_ref()
    }

    /// When this gateway was started, in seconds of Unix time.
    pub(super) fn started_s(&self) -> u64 {
        self.started_s
    }

    pub(super) fn abandoned(&self) -> mpsc::Sender<Abandoned> {
        self.abandoned.clone()
    }

    pub(super) fn blocking_wait(&self) -> Duration {
        self.config.blocking_wait
    }

    pub(super) fn cursors(&self) -> &Cursors {
        &self.cursors
    }
}

#[derive(serde::Serialize)]
struct Directory<'a> {
    agents: Vec<&'a RawValue>,
}

const KEYS_PATH: &str = "/.well-known/jwks.json";

/// All routes of a gateway that listens there.
pub(super) fn router(shared: &Arc<Shared>, address: SocketAddr) -> Router {
    let mounts = shared.config.mounts.clone();
    let metered = |label| from_fn_with_state((Arc::clone(shared), label), meter);
    let routed =
        |router: Router<_>, (path, method): (_, MethodRouter<_>)| router.route(path, method);
    let paged = |router: Router<_>, (path, method): (_, MethodRouter<_>)| {
        router.route(path, method.layer(metered(path)))
    };
    let own = calls().into_iter().fold(Router::new(), routed);
    let own = pages().into_iter().fold(own, paged);
    let own = own.fallback(rest_call).with_state(Arc::clone(shared));
    mounts.iter().fold(own, |routes, mount| {
        routes.merge(mount.routes(address).layer(metered(mount.label())))
    })
}

/// Everything but the HTTP+JSON binding, whose paths `axum` can't tell apart.
#[cfg(test)]
pub(super) fn routes() -> Vec<(&'static str, MethodRouter<Arc<Shared>>)> {
    calls().into_iter().chain(pages()).collect()
}

/// What asks an agent for something, and counts itself: only its body says what it is.
fn calls() -> Vec<(&'static str, MethodRouter<Arc<Shared>>)> {
    let mut calls = vec![
        ("/", post(root_rpc)),
        ("/agents/{agent}", post(agent_rpc)),
        ("/lf.a2a.v1.A2AService/{method}", post(grpc_call)),
    ];
    calls.extend(openai::routes());
    calls
}

/// What is there to be read.
fn pages() -> Vec<(&'static str, MethodRouter<Arc<Shared>>)> {
    vec![
        ("/agents", get(directory)),
        ("/.well-known/agent-card.json", get(root_card)),
        ("/agents/{agent}/.well-known/agent-card.json", get(agent_card)),
        (KEYS_PATH, get(keys)),
        ("/healthz", get(|| async { "ok\n" })),
        ("/readyz", get(readyz)),
        (openapi::PATH, get(description)),
    ]
}

/// Counts a request that doesn't count itself.
async fn meter(
    State((shared, operation)): State<(Arc<Shared>, &'static str)>,
    request: Request<Body>,
    next: Next,
) -> Response {
    let (method, begun) = (known_method(request.method()), shared.clock.now());
    let response = next.run(request).await;
    let took = shared.clock.now().since(begun);
    let status = response.status().as_u16();
    shared.config.meter.request(&Metered { method, operation, status, error: None, took });
    response
}

/// A method as metrics and spans may name it.
pub(super) fn known_method(method: &Method) -> &'static str {
    let known = ["GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH", "CONNECT", "TRACE"];
    known.into_iter().find(|known| method == *known).unwrap_or("_OTHER")
}

async fn description(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    shared.description.answer(&headers)
}

async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    let no = |why: String| (StatusCode::SERVICE_UNAVAILABLE, why).into_response();
    if !shared.ready.load(Ordering::Acquire) {
        return no("draining\n".to_owned());
    }
    let trouble =
        shared.config.needs.iter().find_map(|need| Some((need.server(), need.trouble()?)));
    match trouble {
        Some((server, reason)) => no(format!("{server}: {reason}\n")),
        None => "ready\n".into_response(),
    }
}

async fn root_card(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    shared.root.card.answer(&headers)
}

async fn agent_card(
    State(shared): State<Arc<Shared>>,
    Path(agent): Path<String>,
    Extension(admitted): Extension<Admitted>,
    headers: HeaderMap,
) -> Response {
    match shared.served(&agent).filter(|served| admitted.sees(&served.agent)) {
        Some(served) if admitted.is_restricted() => {
            served.card.clone().to(Audience::OneCaller).answer(&headers)
        }
        Some(served) => served.card.answer(&headers),
        None => {
            let error = shared.no_agent(&agent, &admitted);
            answer_json(StatusCode::NOT_FOUND, error.to_rest().to_string())
        }
    }
}

/// The cards of the agents that are there for who asks.
async fn directory(
    State(shared): State<Arc<Shared>>,
    Extension(admitted): Extension<Admitted>,
    headers: HeaderMap,
) -> Response {
    if !admitted.is_restricted() {
        return shared.directory.answer(&headers);
    }
    let seen = shared.cards.iter().filter(|(agent, _)| admitted.sees(agent));
    let agents = seen.map(|(_, card)| &**card).collect();
    match serde_json::to_vec(&Directory { agents }) {
        Ok(body) => {
            let now = DateTime::<Utc>::from(shared.clock.wall());
            Page::new(body, now).to(Audience::OneCaller).answer(&headers)
        }
        Err(_unwritable) => answer_json(
            StatusCode::INTERNAL_SERVER_ERROR,
            A2aError::Unwritable.to_rest().to_string(),
        ),
    }
}

async fn keys(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    match &shared.keys {
        Some(keys) => keys.answer(&headers),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn root_rpc(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Response {
    rpc::answer(&shared, Place::default(), request).await
}

async fn agent_rpc(
    State(shared): State<Arc<Shared>>,
    Path(agent): Path<String>,
    request: Request<Body>,
) -> Response {
    rpc::answer(&shared, Place { agent: Some(&agent), tenant: None }, request).await
}

async fn grpc_call(
    State(shared): State<Arc<Shared>>,
    Path(method): Path<String>,
    request: Request<Body>,
) -> Response {
    Box::pin(grpc::answer(&shared, &method, request)).await
}

async fn rest_call(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Response {
    rest::answer(&shared, request).await
}

/// The names that metrics and spans may have for an operation.
pub(super) const OPERATIONS: [&str; 14] = [
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
    "CreateChatCompletion",
    "ListModels",
    "GetModel",
];

/// A request that is counted and traced.
pub(super) struct Observed<'a> {
    shared: &'a Shared,
    begun: Moment,
    method: &'static str,
    operation: &'static str,
    pub(super) span: SpanGuard,
}

impl<'a> Observed<'a> {
    pub(super) fn begin(shared: &'a Shared, head: &Parts) -> Self {
        let sent = head.headers.get("traceparent").and_then(|value| value.to_str().ok());
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
        if let Some(admitted) = head.extensions.get::<Admitted>() {
            span.set("http.request.header.x-request-id", admitted.request_id().to_owned());
        }
        let method = known_method(&head.method);
        span.set("http.request.method", method);
        Self { shared, begun: shared.clock.now(), method, operation: "unknown", span }
    }

    /// What it turned out to ask for, if that is a known operation.
    pub(super) fn operation(&mut self, name: &str) {
        let known = OPERATIONS.iter().find(|known| **known == name);
        self.operation = known.copied().unwrap_or("unknown");
        self.span.rename(self.operation);
        self.span.set("a2a.method.name", self.operation);
    }

    /// The request as an operation has it.
    pub(super) fn visit<'v>(
        &self,
        shared: &'v Arc<Shared>,
        place: Place<'v>,
        head: &Parts,
    ) -> Result<Visit<'v>, A2aError> {
        // The door puts it there; a router without one lets nobody do anything.
        let admitted = head.extensions.get::<Admitted>().cloned();
        let admitted = admitted.ok_or(A2aError::AuthenticationRequired)?;
        let trace = self.span.context();
        let header = Header::new().traced(trace);
        let mut visit = Visit::new(shared, place, header, admitted.traced(trace));
        visit.extensions = extensions(&head.headers)?;
        if let Some(last) = head.headers.get("last-event-id") {
            let number = last.to_str().ok().and_then(|text| text.trim().parse().ok());
            let wrong = || A2aError::invalid("Last-Event-ID", "must be the id of an event");
            visit.last_event = Some(number.ok_or_else(wrong)?);
        }
        Ok(visit)
    }

    /// The request was answered. `error` is the code of JSON-RPC, whatever the binding.
    pub(super) fn end(mut self, visit: Option<&Visit<'_>>, status: u16, error: Option<i32>) {
        if let Some(served) = visit.and_then(Visit::entered) {
            self.span.set("gen_ai.agent.name", served.agent.profile.name.clone());
        }
        if let Some(error) = error {
            self.span.fail(error.to_string());
        }
        self.span.set("http.response.status_code", i64::from(status));
        let took = self.shared.clock.now().since(self.begun);
        let Self { method, operation, .. } = self;
        self.shared.config.meter.request(&Metered { method, operation, status, error, took });
    }
}

/// The extensions that a client speaks, each once.
fn extensions(headers: &HeaderMap) -> Result<Vec<String>, A2aError> {
    let mut named: Vec<String> = Vec::new();
    for value in headers.get_all(EXTENSIONS) {
        let wrong = |problem: &str| A2aError::invalid("A2A-Extensions", problem);
        let list = value.to_str().map_err(|_not| wrong("must be ASCII"))?;
        for uri in list.split(',').map(str::trim).filter(|uri| !uri.is_empty()) {
            if named.len() >= CLIENT_EXTENSIONS {
                return Err(wrong(&format!("names more than {CLIENT_EXTENSIONS}")));
            }
            if !named.iter().any(|other| other == uri) {
                named.push(uri.to_owned());
            }
        }
    }
    Ok(named)
}

/// What a response says of the extensions that are in force, if there are any.
pub(super) fn activated(visit: Option<&Visit<'_>>, response: &mut HeaderMap) {
    let activated = visit.map(Visit::activated).unwrap_or_default();
    if !activated.is_empty()
        && let Ok(value) = HeaderValue::from_str(&activated.join(", "))
    {
        response.insert(EXTENSIONS, value);
    }
}

const EXTENSIONS: HeaderName = HeaderName::from_static("a2a-extensions");

/// A stream of events, which nobody between here and the client may hold back.
pub(super) fn event_stream(body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, body).into_response()
}

/// The type of a body, without its parameters.
fn content_type(headers: &HeaderMap) -> &str {
    let found = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    found.unwrap_or_default().split(';').next().unwrap_or_default().trim()
}

/// `Major.Minor`, the patch ignored, in a header or else in the query; a client that says nothing
/// speaks 0.3.
pub(super) fn check_version(head: &Parts) -> Result<(), A2aError> {
    let header = head.headers.get("a2a-version").map(|value| value.to_str().unwrap_or_default());
    let mut query = head.uri.query().unwrap_or_default().split('&');
    let query = query.find_map(|pair| pair.strip_prefix("A2A-Version="));
    let sent = header.or(query).unwrap_or("0.3");
    let mut numbers = sent.trim().split('.');
    if numbers.next() == Some("1") && numbers.next() == Some("0") {
        return Ok(());
    }
    Err(A2aError::no_version(sent))
}

pub(super) async fn read_body(shared: &Shared, body: Body) -> Result<Bytes, A2aError> {
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

pub(super) fn answer_json(status: StatusCode, body: impl Into<Body>) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.into()).into_response()
}

/// Who is told to come back is told when.
pub(super) fn retry_after(response: &mut Response) {
    if response.status() == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
}
