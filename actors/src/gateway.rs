//! The contract of the gateway: what it serves, where, and how it can fail.

mod card;
mod convert;
mod cursor;
mod door;
mod error;
mod grpc;
mod http;
mod json;
mod jsonrpc;
mod openai;
mod openapi;
mod operations;
mod page;
mod pauses;
mod push;
mod reads;
mod rest;
mod server;
mod signature;
mod sse;
mod task_view;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use neuroflow_kernel::{Address, ChildSpec, Message, NameError, Parcel, Tracer};

use crate::agent::{AgentCommand, AgentProfile, TaskEvent};
use crate::audit::Audit;
use crate::journal::Condition;
use crate::limits::BLOCKING_WAIT;

#[cfg(feature = "mcp")]
pub(crate) use door::{Admitted, CREDENTIAL_ENDED, Denial, Entrance, Lost, Tenure, UNRECORDED};
pub use door::{DoorConfig, RequestId, TlsError, TlsFiles};
#[cfg(feature = "mcp")]
pub(crate) use json::{has_values_within, shown};
pub use push::{
    PushBasis, PushCommand, PushConfig, PushCreator, PushError, PushJournal, PushOptions,
    PushPlace, PushRecord, PushSecret, PushShared, PushStartError, PushStore, PushStoreError,
    PushTask, WebhookProblem, push_child,
};
pub use signature::{CardKey, CardKeyError};

use server::GatewayServer;

/// An agent as the gateway serves it.
///
/// ```
/// use neuroflow_actors::{AgentCommand, AgentProfile, GatewayAgent};
/// use neuroflow_kernel::Address;
/// fn served(address: Address<AgentCommand>) -> GatewayAgent {
///     GatewayAgent::new(AgentProfile::new("echo", "Says what it hears."), address)
/// }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GatewayAgent {
    /// The content of its card.
    pub profile: AgentProfile,
    /// A capability with the rights to ask, read and cancel.
    pub address: Address<AgentCommand>,
    /// Places of those who read its tasks.
    reads: reads::Reads,
}

impl GatewayAgent {
    /// The agent behind a capability to ask, read and cancel, with the content of its card.
    pub fn new(profile: AgentProfile, address: Address<AgentCommand>) -> Self {
        Self { profile, address, reads: reads::Reads::default() }
    }
}

/// Bytes of events.
pub(crate) fn bytes<'a>(events: impl IntoIterator<Item = &'a Parcel<TaskEvent>>) -> usize {
    events.into_iter().map(|event| event.as_raw().as_bytes().len()).sum()
}

/// What a gateway is started with.
///
/// ```
/// use neuroflow_actors::GatewayConfig;
/// let config = GatewayConfig::new("127.0.0.1:0".parse()?);
/// assert!(config.agents.is_empty());
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct GatewayConfig {
    /// Where it listens. Port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The URL that clients know it by, if it isn't the one that it listens on.
    pub public_url: Option<String>,
    /// Its agents; the first one answers at the root.
    pub agents: Vec<GatewayAgent>,
    /// The version in the cards.
    pub version: String,
    /// Signs the cards.
    pub card_key: Option<CardKey>,
    /// How clients prove who they are, as the cards say it: any of these lets a client in.
    pub security: Vec<SecurityScheme>,
    /// The server for push notifications; without one none is sent.
    pub push: Option<Address<PushCommand>>,
    /// Who is let in, and how.
    pub door: DoorConfig,
    /// How long a blocking request waits for its task to end.
    pub blocking_wait: Duration,
    /// Whether a request without a trace context of its own is traced.
    pub sample: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Who counts the requests.
    pub meter: Arc<dyn Meter>,
    /// Where decisions are recorded.
    pub audit: Audit,
    /// What requests can't do without: while one of these takes nothing, `/readyz` says no.
    pub needs: Vec<Condition>,
    /// Further routes, which are served beside its own.
    pub mounts: Vec<Mount>,
}

impl GatewayConfig {
    /// A gateway at this address, without agents, traces or meter.
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            public_url: None,
            agents: Vec::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            card_key: None,
            security: Vec::new(),
            push: None,
            door: DoorConfig::default(),
            blocking_wait: BLOCKING_WAIT,
            sample: Arc::new(|| false),
            meter: Arc::new(Unmetered),
            audit: Audit::off(),
            needs: Vec::new(),
            mounts: Vec::new(),
        }
    }
}

impl fmt::Debug for GatewayConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayConfig")
            .field("listen", &self.listen)
            .field("agents", &self.agents)
            .finish_non_exhaustive()
    }
}

/// Further routes of a gateway, made when it's known where it listens. None may be one of its own.
///
/// ```
/// use axum::Router;
/// use axum::routing::get;
/// use neuroflow_actors::Mount;
/// let mount = Mount::new(|_address| Router::new().route("/hello", get(|| async { "hello" })));
/// # let _ = mount;
/// ```
#[derive(Clone)]
pub struct Mount {
    make: Arc<dyn Fn(SocketAddr) -> axum::Router + Send + Sync>,
    described: Vec<(&'static str, &'static str)>,
}

impl Mount {
    /// From how the routes are made.
    pub fn new(make: impl Fn(SocketAddr) -> axum::Router + Send + Sync + 'static) -> Self {
        Self { make: Arc::new(make), described: Vec::new() }
    }

    /// Names a path in the gateway's own description, with what a POST does there.
    #[must_use]
    pub fn describe(mut self, path: &'static str, summary: &'static str) -> Self {
        self.described.push((path, summary));
        self
    }

    pub(crate) fn routes(&self, address: SocketAddr) -> axum::Router {
        (self.make)(address)
    }

    /// What its requests are counted as: the first path that it describes.
    pub(crate) fn label(&self) -> &'static str {
        self.described.first().map_or("mount", |(path, _)| path)
    }
}

impl fmt::Debug for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mount").field("described", &self.described).finish_non_exhaustive()
    }
}

/// A way for clients to prove who they are, as a card says it.
///
/// ```
/// assert_eq!(neuroflow_actors::SecurityScheme::MutualTls.name(), "mtls");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SecurityScheme {
    /// A token in the header `Authorization`.
    Bearer {
        /// What kind of token, such as `JWT`.
        format: Option<String>,
    },
    /// A token of an issuer of `OpenID` Connect.
    OpenIdConnect {
        /// Where the issuer describes itself.
        url: String,
    },
    /// A certificate.
    MutualTls,
}

impl SecurityScheme {
    /// Its name in the card.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Bearer { .. } => "bearer",
            Self::OpenIdConnect { .. } => "openIdConnect",
            Self::MutualTls => "mtls",
        }
    }
}

/// Counts the requests of a gateway. It must not block.
///
/// ```
/// use neuroflow_actors::{Metered, Meter};
/// #[derive(Debug)]
/// struct Printer;
/// impl Meter for Printer {
///     fn request(&self, request: &Metered) {
///         println!("{} {} {}", request.method, request.operation, request.status);
///     }
/// }
/// ```
pub trait Meter: Send + Sync + fmt::Debug + 'static {
    /// A request was answered, or refused, or the stream that answers it has begun.
    fn request(&self, request: &Metered);

    /// A connection was refused, because its address has as many as are free for all others.
    fn connection_refused(&self) {}

    /// A push notification was posted, or not: `delivered`, or why it wasn't taken.
    fn push(&self, _outcome: &'static str) {}
}

#[derive(Debug)]
struct Unmetered;

impl Meter for Unmetered {
    fn request(&self, _: &Metered) {}
}

/// A request that was answered.
///
/// ```
/// fn failed(request: &neuroflow_actors::Metered) -> bool {
///     request.status >= 400 || request.error.is_some()
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metered {
    /// The HTTP method, or `_OTHER` if it's none of the known ones.
    pub method: &'static str,
    /// The operation; the path of a page or of further routes; `refused` of what isn't let in; `unknown`.
    pub operation: &'static str,
    /// The status of HTTP.
    pub status: u16,
    /// The code that JSON-RPC has for what went wrong, whatever the binding. None for pages and further
    /// routes.
    pub error: Option<i32>,
    /// Time from the request's head to the answer, or to the beginning of the stream that answers it.
    pub took: Duration,
}

/// Why a gateway doesn't start.
///
/// ```
/// use neuroflow_actors::GatewayError;
/// let error = GatewayError::NoAgents;
/// assert!(error.to_string().contains("agent"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GatewayError {
    /// There is nothing to serve.
    #[error("the gateway has no agent to serve; enable at least one")]
    NoAgents,
    /// The address can't be listened on.
    #[error("can't listen on {address}; choose another with gateway.listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// There is no TLS.
    #[error("the gateway can't speak TLS; check tls.certificate, tls.key and tls.client_ca")]
    Tls(#[from] TlsError),
    /// The system gives no randomness.
    #[error("the system has no randomness to give")]
    Random,
    /// The card of an agent can't be written.
    #[error("the card of agent {agent} can't be written")]
    Card {
        /// The agent.
        agent: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// What lies in a gateway's mailbox: nothing, for its work comes from the network.
#[derive(Debug)]
enum GatewayCommand {}

impl Message for GatewayCommand {
    fn name(&self) -> &'static str {
        match *self {}
    }
}

/// The gateway as a child, and where it listens once it's started.
///
/// ```
/// use std::sync::Arc;
/// use neuroflow_actors::{GatewayConfig, gateway_child};
/// use neuroflow_kernel::{Clock, Tracer, Unobserved};
/// let tracer = Tracer::new(Clock::system(), Arc::new(Unobserved));
/// let (spec, bound) = gateway_child(GatewayConfig::new("127.0.0.1:0".parse()?), tracer)?;
/// assert_eq!(spec.name().as_str(), "gateway");
/// assert!(bound.borrow().is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Says what is wrong with the name.
pub fn gateway_child(
    config: GatewayConfig,
    tracer: Tracer,
) -> Result<(ChildSpec, tokio::sync::watch::Receiver<Option<SocketAddr>>), NameError> {
    let (bound, address) = tokio::sync::watch::channel(None);
    let bound = Arc::new(bound);
    let factory = move || GatewayServer::new(config.clone(), tracer.clone(), Arc::clone(&bound));
    let (spec, _nobody_sends) = ChildSpec::new("gateway", factory)?;
    Ok((spec, address))
}
