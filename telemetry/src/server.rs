//! The actor that serves `/metrics` to Prometheus.
//!
//! It listens on loopback unless told otherwise, answers one request per connection, and forgets
//! clients that dawdle. A restarted one binds again.

mod door;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::{CONNECTION, CONTENT_TYPE, HeaderName};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use neuroflow_kernel::{
    Actor, Address, CallError, ChildSpec, Clock, Context, Header, Message, NameError, Reply,
    TaskRefused,
};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};
use tracing::{error, info, warn};

use self::door::Door;
use crate::limits::{DRAIN, SCRAPE_WAIT};
use crate::telemetry::Telemetry;

/// Where metrics are served: `127.0.0.1:9464` unless it's set.
///
/// ```
/// use neuroflow_telemetry::server::MetricsConfig;
/// let config = MetricsConfig::default().address(([127, 0, 0, 1], 0).into());
/// assert!(format!("{config:?}").contains("127.0.0.1:0"));
/// ```
#[derive(Clone, Debug)]
pub struct MetricsConfig {
    listen: Listen,
}

#[derive(Clone, Debug)]
enum Listen {
    Address(SocketAddr),
    Listener(Arc<StdListener>),
}

impl MetricsConfig {
    /// The port that OpenTelemetry's Prometheus exporters use.
    pub const PORT: u16 = 9464;

    /// Listens on this address; with port 0, on any that is free.
    #[must_use]
    pub fn address(mut self, address: SocketAddr) -> Self {
        self.listen = Listen::Address(address);
        self
    }

    /// Listens on this socket, such as one that a service manager has opened. It stays open over
    /// restarts.
    #[must_use]
    pub fn listener(mut self, listener: StdListener) -> Self {
        self.listen = Listen::Listener(Arc::new(listener));
        self
    }
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { listen: Listen::Address(SocketAddr::from((Ipv4Addr::LOCALHOST, Self::PORT))) }
    }
}

/// The endpoint as a child for a supervisor, and the handle that knows where it listens.
///
/// ```
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
/// # runtime.block_on(async {
/// use neuroflow_kernel::Kernel;
/// use neuroflow_telemetry::server::{self, MetricsConfig};
/// use neuroflow_telemetry::{Telemetry, TelemetryConfig};
/// let telemetry = Telemetry::new(TelemetryConfig::default())?;
/// let kernel = Kernel::builder().observer(telemetry.observer()).start().await?;
/// let config = MetricsConfig::default().address(([127, 0, 0, 1], 0).into());
/// let (spec, endpoint) = server::child(&telemetry, &config)?;
/// kernel.root().start(spec).await?;
/// assert_ne!(endpoint.address().await?.port(), 0);
/// kernel.stop().await;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// Never in practice: the child's name is fixed.
pub fn child(
    telemetry: &Telemetry,
    config: &MetricsConfig,
) -> Result<(ChildSpec, MetricsEndpoint), NameError> {
    let (telemetry, config) = (telemetry.clone(), config.clone());
    let factory = move || MetricsServer {
        telemetry: telemetry.clone(),
        listen: config.listen.clone(),
        running: None,
    };
    let (spec, address) = ChildSpec::new("telemetry", factory)?;
    Ok((spec, MetricsEndpoint { address }))
}

/// Knows where metrics are served. It follows the endpoint over restarts.
///
/// ```
/// use neuroflow_telemetry::server::MetricsEndpoint;
/// async fn url(endpoint: &MetricsEndpoint) -> Result<String, neuroflow_kernel::CallError> {
///     Ok(format!("http://{}/metrics", endpoint.address().await?))
/// }
/// ```
#[derive(Clone, Debug)]
pub struct MetricsEndpoint {
    address: Address<Ask>,
}

impl MetricsEndpoint {
    /// The address that it's bound to.
    ///
    /// # Errors
    /// Says why the endpoint didn't answer: usually that it isn't started, or has stopped.
    pub async fn address(&self) -> Result<SocketAddr, CallError> {
        self.address.call(Header::new(), Ask::Bound).await
    }
}

/// What the endpoint can be asked.
#[derive(Debug)]
enum Ask {
    Bound(Reply<SocketAddr>),
}

impl Message for Ask {
    fn name(&self) -> &'static str {
        "bound"
    }
}

struct MetricsServer {
    telemetry: Telemetry,
    listen: Listen,
    running: Option<Running>,
}

struct Running {
    bound: SocketAddr,
    stop: oneshot::Sender<()>,
    stopped: oneshot::Receiver<()>,
}

impl Actor for MetricsServer {
    type Message = Ask;
    type Error = MetricsServerError;
    const KIND: &'static str = "telemetry";

    async fn started(&mut self, context: &mut Context<Ask>) -> Result<(), MetricsServerError> {
        let (listener, bound) = listen(&self.listen).await?;
        let door = Door::new(listener, context.clock().clone());
        let scrapes = Scrapes {
            telemetry: self.telemetry.clone(),
            clock: context.clock().clone(),
            one: Arc::new(Semaphore::new(1)),
        };
        let router = Router::new().fallback(answer).with_state(scrapes);
        let (stop, asked) = oneshot::channel();
        let (over, stopped) = oneshot::channel();
        let serve = async move {
            let asked = async { asked.await.unwrap_or_default() };
            let served = axum::serve(door, router).with_graceful_shutdown(asked).await;
            if let Err(error) = served {
                error!(error = &error as &dyn std::error::Error, "metrics are no longer served");
            }
            // Nobody waits if the actor has failed.
            let _unheard = over.send(());
        };
        context.task(serve).map_err(|TaskRefused { .. }| MetricsServerError::Busy)?;
        info!(address = %bound, "metrics are served");
        self.running = Some(Running { bound, stop, stopped });
        Ok(())
    }

    async fn handle(
        &mut self,
        ask: Ask,
        _context: &mut Context<Ask>,
    ) -> Result<(), MetricsServerError> {
        let Ask::Bound(reply) = ask;
        if let Some(running) = &self.running {
            let _gone = reply.send(running.bound);
        }
        Ok(())
    }

    async fn stopping(&mut self, context: &mut Context<Ask>) {
        let Some(running) = self.running.take() else { return };
        let _over = running.stop.send(());
        let clock = context.clock();
        if clock.before(clock.now() + DRAIN, running.stopped).await.is_err() {
            warn!("a scrape didn't end in time");
        }
    }
}

async fn listen(listen: &Listen) -> Result<(TcpListener, SocketAddr), MetricsServerError> {
    let bound = match listen {
        Listen::Address(address) => TcpListener::bind(address)
            .await
            .map_err(|source| MetricsServerError::bind(*address, source))?,
        Listen::Listener(listener) => {
            let own = listener.try_clone().map_err(MetricsServerError::Listener)?;
            own.set_nonblocking(true).map_err(MetricsServerError::Listener)?;
            TcpListener::from_std(own).map_err(MetricsServerError::Listener)?
        }
    };
    let address = bound.local_addr().map_err(MetricsServerError::Listener)?;
    Ok((bound, address))
}

/// Why metrics aren't served.
///
/// ```
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
/// # runtime.block_on(async {
/// use neuroflow_kernel::{Kernel, StartError};
/// use neuroflow_telemetry::server::{self, MetricsConfig};
/// use neuroflow_telemetry::{Telemetry, TelemetryConfig};
/// let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
/// let telemetry = Telemetry::new(TelemetryConfig::default())?;
/// let kernel = Kernel::builder().start().await?;
/// let config = MetricsConfig::default().address(taken.local_addr()?);
/// let (spec, _) = server::child(&telemetry, &config)?;
/// assert!(matches!(kernel.root().start(spec).await, Err(StartError::Failed { .. })));
/// kernel.stop().await;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsServerError {
    /// Something else listens there.
    #[error("{address} is taken: choose another port for metrics, or 0 for any that is free")]
    Taken {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The port is one of the system's.
    #[error("{address} isn't allowed: choose a port for metrics above 1023")]
    Forbidden {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The host doesn't have this address, or the system refuses for some other reason.
    #[error("can't listen on {address} for metrics: choose an address that this host has")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The given socket isn't one to listen on.
    #[error("the socket given for metrics can't be used")]
    Listener(#[source] io::Error),
    /// The actor couldn't begin a task.
    #[error("the metrics endpoint has no room for its task")]
    Busy,
}

impl MetricsServerError {
    fn bind(address: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::Taken { address, source },
            io::ErrorKind::PermissionDenied => Self::Forbidden { address, source },
            _ => Self::Bind { address, source },
        }
    }
}

/// What a request needs.
#[derive(Clone)]
struct Scrapes {
    telemetry: Telemetry,
    clock: Clock,
    /// Held by the scrape that runs: each walks over all actors.
    one: Arc<Semaphore>,
}

/// The one page; everything else isn't found.
async fn answer(State(scrapes): State<Scrapes>, method: Method, uri: Uri) -> Response {
    if method != Method::GET || uri.path() != "/metrics" {
        return (StatusCode::NOT_FOUND, [CLOSE]).into_response();
    }
    let deadline = scrapes.clock.now() + SCRAPE_WAIT;
    match scrapes.clock.before(deadline, scrapes.render()).await {
        Ok(Some(text)) => ([(CONTENT_TYPE, TEXT_FORMAT), CLOSE], text).into_response(),
        Ok(None) => (StatusCode::INTERNAL_SERVER_ERROR, [CLOSE]).into_response(),
        Err(_elapsed) => (StatusCode::SERVICE_UNAVAILABLE, [CLOSE]).into_response(),
    }
}

impl Scrapes {
    /// Renders on a thread for blocking work; none if that fails.
    async fn render(&self) -> Option<String> {
        // The semaphore is never closed.
        let seat = Arc::clone(&self.one).acquire_owned().await.ok()?;
        let telemetry = self.telemetry.clone();
        let render = move || {
            // Held until the work is done, also if nobody waits for it any more.
            let _seat = seat;
            telemetry.render()
        };
        match tokio::task::spawn_blocking(render).await {
            Ok(Ok(text)) => Some(text),
            Ok(Err(error)) => {
                error!(error = &error as &dyn std::error::Error, "metrics can't be rendered");
                None
            }
            Err(panicked) => {
                error!(error = &panicked as &dyn std::error::Error, "metrics can't be rendered");
                None
            }
        }
    }
}

/// The format's name in HTTP.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One request per connection: what a connection may cost is then known.
const CLOSE: (HeaderName, &str) = (CONNECTION, "close");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bind_error_names_address_and_remedy() {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 80));
        let text = |kind| MetricsServerError::bind(address, io::Error::from(kind)).to_string();
        assert!(text(io::ErrorKind::AddrInUse).starts_with("127.0.0.1:80 is taken: choose"));
        assert!(text(io::ErrorKind::PermissionDenied).contains("above 1023"));
        assert!(text(io::ErrorKind::AddrNotAvailable).contains("127.0.0.1:80"));
    }

    #[test]
    fn it_listens_on_loopback_by_default() {
        let Listen::Address(address) = MetricsConfig::default().listen else { panic!("address") };
        assert!(address.ip().is_loopback());
    }
}
