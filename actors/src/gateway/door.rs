//! The door around all routes: who is let in, as what, and what every request and answer carries.
//!
//! It knows no operation. Handlers behind it find an [`Admitted`] in the request's extensions.

mod admitted;
mod body;
mod connection;
mod connections;
mod grants;
mod host;
mod outgoing;
mod paced;
mod refusal;
mod request_id;
mod silent;
mod stalled;
mod tenure;
mod tls;
mod unlisted;
mod unread;
mod unsent;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use neuroflow_kernel::{Clock, Header, Moment, TraceContext};

use super::http::known_method;
use super::json::shown;
use super::{Meter, Metered, SecurityScheme};
use crate::access::{
    Access, AccessMeter, AuthError, Credential, Identified, Place, Principal, PrincipalKind, Proof,
};
use crate::audit::{Audit, AuditEvent, AuditId, Verdict};
use crate::limits::{AUDIT_WAIT, REFUSALS_COUNTED};

pub(crate) use admitted::{Admitted, Denial};
pub(super) use connection::{Peer, serve_connection};
pub(super) use connections::Connections;
pub(crate) use grants::Entrance;
pub(super) use grants::Grants;
pub(super) use host::Hosts;
pub(super) use refusal::Refusal;
pub use request_id::RequestId;
pub(crate) use tenure::{CREDENTIAL_ENDED, Lost, Tenure};
pub(super) use tls::Tls;
pub use tls::{TlsError, TlsFiles};
use unlisted::Unlisted;
pub(crate) use unsent::Unsent;

/// What the door of a gateway is made of.
///
/// ```
/// use neuroflow_actors::DoorConfig;
/// let door = DoorConfig::default();
/// assert!(door.access.is_none() && door.tls.is_none());
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct DoorConfig {
    /// Who is let in; without it, everybody.
    pub access: Option<Access>,
    /// The files of a TLS listener; without them it speaks plainly.
    pub tls: Option<TlsFiles>,
    /// Names that clients may call the gateway by, besides those that it can tell itself.
    pub hosts: Vec<String>,
    /// Origins whose web pages may use the gateway, such as `https://app.example.org`.
    pub origins: Vec<String>,
    /// How long the gateway still accepts when it's about to stop, with `/readyz` saying no, so that
    /// whoever balances loads can take it out.
    pub drain_delay: Duration,
    /// Where decisions are recorded.
    pub audit: Audit,
}

/// The door of a running gateway.
#[derive(Debug)]
pub(super) struct Door {
    config: DoorConfig,
    hosts: Hosts,
    grants: Arc<Grants>,
    unlisted: Unlisted,
    /// The same for the other log.
    unlogged: Unlisted,
    answers: unsent::Answers,
    meter: Arc<dyn Meter>,
    clock: Clock,
}

/// Where there is no access, nobody counts.
#[derive(Debug)]
struct Uncounted;

impl AccessMeter for Uncounted {}

fn meter(access: Option<&Access>) -> Arc<dyn AccessMeter> {
    match access {
        Some(access) => Arc::clone(&access.config().meter),
        None => Arc::new(Uncounted),
    }
}

impl Door {
    pub(super) fn new(
        config: DoorConfig,
        hosts: Hosts,
        requests: Arc<dyn Meter>,
        clock: Clock,
    ) -> Arc<Self> {
        let decisions = meter(config.access.as_ref());
        let grants = Arc::new(Grants::new(decisions, config.audit.clone(), clock.clone()));
        let (unlisted, unlogged) = (Unlisted::default(), Unlisted::default());
        let (answers, meter) = (unsent::Answers::default(), requests);
        Arc::new(Self { config, hosts, grants, unlisted, unlogged, answers, meter, clock })
    }

    /// How clients can prove who they are, for the cards.
    pub(super) fn schemes(&self) -> Vec<SecurityScheme> {
        let Some(access) = &self.config.access else { return Vec::new() };
        let config = access.config();
        let tokens = config.tokens.as_ref().map(|_| SecurityScheme::Bearer { format: None });
        let issuer = config.issuer.as_ref().map(|issuer| SecurityScheme::OpenIdConnect {
            url: format!("{}/.well-known/openid-configuration", issuer.url.trim_end_matches('/')),
        });
        let certificates = config.certificates.then_some(SecurityScheme::MutualTls);
        tokens.into_iter().chain(issuer).chain(certificates).collect()
    }

    /// Who counts.
    pub(super) fn meter(&self) -> Arc<dyn AccessMeter> {
        meter(self.config.access.as_ref())
    }

    /// Puts the door around all routes.
    pub(super) fn around(self: Arc<Self>, router: Router) -> Router {
        router.layer(axum::middleware::from_fn_with_state(self, pass))
    }

    /// Whether the request may go on, and as whose.
    async fn admit(&self, request: &Parts, id: &RequestId) -> Result<Entry, Refusal> {
        self.hosts.check(request.version, &request.uri, &request.headers)?;
        let origin = self.hosts.origin(&self.config.origins, &request.uri, &request.headers)?;
        refuse_encoded(&request.headers)?;
        refuse_coded(&request.headers)?;
        let peer = request.extensions.get::<Peer>().cloned();
        let (identified, place) = if is_open(&request.method, request.uri.path()) {
            (anonymous(), None)
        } else {
            match &self.config.access {
                Some(access) => self.authenticate(access, request, peer.as_ref()).await?,
                None => (anonymous(), None),
            }
        };
        let rules = match &self.config.access {
            Some(access) => Some(access.rules().map_err(|error| Refusal::unauthenticated(&error))?),
            None => None,
        };
        let access = self.config.access.clone();
        let known = &identified.principal;
        let caller = Some(known.id()).filter(|_| known.kind() != PrincipalKind::Anonymous);
        let answer = (id.clone(), self.answers.of(caller));
        let admitted = Admitted::new(identified, access, rules, Arc::clone(&self.grants), answer);
        Ok(Entry { admitted, origin, place })
    }

    /// Who makes the request, and its place among those of the same. Who is let in too often is known, but not let
    /// in: that is recorded as other refusals are.
    async fn authenticate(
        &self,
        access: &Access,
        request: &Parts,
        peer: Option<&Peer>,
    ) -> Result<(Identified, Option<Place>), Refusal> {
        let certificate = peer.and_then(Peer::certificate);
        let values = request.headers.get_all(header::AUTHORIZATION).iter();
        let values: Option<Vec<&str>> = values.map(|value| value.to_str().ok()).collect();
        let read = values.ok_or(AuthError::Malformed);
        let read = read.and_then(|values| Credential::read(&values, certificate));
        let scheme = match &read {
            Ok(Credential::Certificate(_)) => "mtls",
            Ok(Credential::None) => "none",
            // Three parts between dots: no token of ours has one in it.
            Ok(Credential::Bearer(token)) if token.contains('.') => "jwt",
            _ => "bearer",
        };
        let judged = match read {
            Ok(credential) => access.identify(credential).await,
            Err(error) => Err(error),
        };
        let (principal, outcome) = match &judged {
            Ok(known) => (Some(AuditId::new(known.principal.id())), "ok"),
            Err(error) => (None, error.code()),
        };
        access.config().meter.authentication(outcome);
        let place = match &judged {
            Ok(known) => access.admit(&known.principal).inspect_err(|_throttled| {
                access.config().meter.throttled();
                self.note_refusal(peer, Some(&known.principal), "throttled");
            })?,
            Err(_) => None,
        };
        let address = peer.map(|peer| peer.address().ip());
        if access.authenticates() && (judged.is_ok() || self.lists(address)) {
            let verdict = if judged.is_ok() { Verdict::Allowed } else { Verdict::Denied };
            let event = AuditEvent::Authentication {
                scheme,
                principal,
                peer: address,
                verdict,
                reason: outcome,
            };
            let header = Header::new().within(&self.clock, AUDIT_WAIT);
            if let Err(error) = self.config.audit.decide(header, event).await {
                // The log itself says once that it takes nothing, and counts what it refuses.
                tracing::debug!(error = &error as &dyn std::error::Error, "not in the audit log");
                return Err(Refusal::unavailable(UNRECORDED));
            }
        }
        let identified = judged.map_err(|error| Refusal::unauthenticated(&error))?;
        Ok((identified, place))
    }
}

impl Door {
    /// Whether one more refusal is recorded by itself.
    fn lists(&self, peer: Option<IpAddr>) -> bool {
        self.config.audit.is_on() && self.unlisted.lists(peer)
    }

    /// Records that a request isn't let in, unless its peer has had enough of that.
    fn note_refusal(
        &self,
        peer: Option<&Peer>,
        principal: Option<&Principal>,
        reason: &'static str,
    ) {
        let peer = peer.map(|peer| peer.address().ip());
        if !self.lists(peer) {
            return;
        }
        let named = principal.filter(|known| known.kind() != PrincipalKind::Anonymous);
        let principal = named.map(|known| AuditId::new(known.id()));
        let refused = AuditEvent::RequestRefused { principal, peer, reason };
        self.config.audit.note(TraceContext::NONE, refused);
    }

    /// Says and counts that a request isn't let in.
    fn tell_refused(&self, head: &Parts, id: &RequestId, refusal: &Refusal, begun: Moment) {
        let peer = head.extensions.get::<Peer>();
        if self.unlogged.lists(peer.map(|peer| peer.address().ip())) {
            tracing::info!(
                request_id = id.as_str(),
                code = refusal.code(),
                status = refusal.status(),
                path = shown(head.uri.path()),
                "request refused"
            );
        }
        if matches!(refusal.code(), "host" | "origin") {
            self.note_refusal(peer, None, refusal.code());
        }
        let (method, status) = (known_method(&head.method), refusal.status());
        let took = self.clock.now().since(begun);
        self.meter.request(&Metered { method, operation: REFUSED, status, error: None, took });
    }

    /// Records how many requests were refused that aren't told of by themselves.
    pub(super) fn note_unlisted(&self) {
        for (peer, requests) in self.unlogged.take() {
            let peer = peer.map(tracing::field::display);
            tracing::info!(peer, requests, "more requests refused");
        }
        for (peer, requests) in self.unlisted.take() {
            let unlisted = AuditEvent::RefusalsUnlisted { peer, requests };
            self.config.audit.note(TraceContext::NONE, unlisted);
        }
    }

    /// Does so from time to time.
    pub(super) async fn account(self: Arc<Self>) {
        loop {
            self.clock.sleep(REFUSALS_COUNTED).await;
            self.note_unlisted();
        }
    }
}

fn anonymous() -> Identified {
    Identified { principal: Principal::anonymous(), proof: Proof::default() }
}

/// Why a request isn't done whose decisions have to be recorded.
pub(crate) const UNRECORDED: &str = "the audit log can't record the request";

/// The operation of what isn't let in, in metrics: nobody has looked what it is.
const REFUSED: &str = "refused";

/// A request that is let in.
struct Entry {
    admitted: Admitted,
    /// The origin of the web page that it comes from, if it may.
    origin: Option<HeaderValue>,
    place: Option<Place>,
}

/// What a request goes through, one after the other.
async fn pass(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    let begun = door.clock.now();
    let (mut head, body) = request.into_parts();
    let id = RequestId::of(&head.headers);
    let shape = refusal::Shape::of(&head.method, head.uri.path(), &head.headers);
    let (body, unread) = unread::kept(&head, body);
    let mut response = match door.admit_or_preflight(&head, &id).await {
        Ok(Passage::Preflight(origin)) => {
            drop(body);
            host::preflight(&origin, head.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS))
        }
        Ok(Passage::Entry(entry)) => {
            let Entry { admitted, origin, place } = *entry;
            tracing::debug!(
                request_id = id.as_str(), principal = admitted.principal().id(),
                method = %head.method, path = head.uri.path(), "request"
            );
            let unsent = admitted.unsent().clone();
            head.extensions.insert(admitted);
            head.extensions.insert(id.clone());
            let body = body::bounded(body, &door.clock);
            let response = next.run(Request::from_parts(head, body)).await;
            let mut response = response.map(|body| outgoing::holding(body, place, unsent));
            host::allow(&mut response, origin);
            response
        }
        Err(refusal) => {
            door.tell_refused(&head, &id, &refusal, begun);
            drop(body);
            refusal.into_response(shape)
        }
    };
    unread.discard(&door.clock).await;
    response.headers_mut().insert(request_id::NAME, id.to_header());
    response
}

/// What is done with a request that isn't refused.
enum Passage {
    /// A browser asks whether it may ask.
    Preflight(HeaderValue),
    Entry(Box<Entry>),
}

impl Door {
    async fn admit_or_preflight(
        &self,
        request: &Parts,
        id: &RequestId,
    ) -> Result<Passage, Refusal> {
        if !host::is_preflight(&request.method, &request.headers) {
            return Ok(Passage::Entry(Box::new(self.admit(request, id).await?)));
        }
        // It can't carry a credential, and is answered here.
        self.hosts.check(request.version, &request.uri, &request.headers)?;
        let origin = self.hosts.origin(&self.config.origins, &request.uri, &request.headers)?;
        origin.map(Passage::Preflight).ok_or_else(Refusal::origin)
    }
}

/// Paths that are for everybody: whether it lives, and how to prove who one is. The cards of single
/// agents aren't among them: there who asks decides which agents there are.
fn is_open(method: &Method, path: &str) -> bool {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return false;
    }
    let well_known = ["/.well-known/agent-card.json", "/.well-known/jwks.json"];
    ["/healthz", "/readyz", "/openapi.json"].contains(&path) || well_known.contains(&path)
}

/// Nothing here unpacks a body: a small one that becomes a huge one is refused unseen.
fn refuse_encoded(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    let plain = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if encodings.all(plain) { Ok(()) } else { Err(Refusal::encoding()) }
}

/// A body is sent in chunks or it isn't: readers differ in what they make of other codings, and of
/// several. What has a length beside it, the library reads as chunks, and closes the connection.
fn refuse_coded(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let chunked = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"chunked");
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(only), None) if chunked(only) => Ok(()),
        _ => Err(Refusal::coding()),
    }
}

/// The address that a gateway listens on, and whether with TLS.
pub(super) fn scheme(is_tls: bool) -> &'static str {
    if is_tls { "https" } else { "http" }
}

/// Builds the door for an address.
pub(super) fn hosts(config: &DoorConfig, bound: SocketAddr, public_url: Option<&str>) -> Hosts {
    Hosts::new(bound, public_url, &config.hosts, scheme(config.tls.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_paths_are_few_and_only_read() {
        for path in [
            "/healthz",
            "/readyz",
            "/openapi.json",
            "/.well-known/agent-card.json",
            "/.well-known/jwks.json",
        ] {
            assert!(is_open(&Method::GET, path) && is_open(&Method::HEAD, path), "{path}");
            assert!(!is_open(&Method::POST, path), "{path}");
        }
        for path in [
            "/",
            "/agents",
            "/agents/echo",
            "/healthz/",
            "/tasks",
            "/agents/.well-known/agent-card.json",
            "/agents/echo/.well-known/agent-card.json",
            "/agents/a/b/.well-known/agent-card.json",
            "/echo/.well-known/agent-card.json",
            "//healthz",
        ] {
            assert!(!is_open(&Method::GET, path), "{path}");
        }
    }
}
