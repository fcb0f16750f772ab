//! The way out for the host's own clients: the rules and address checks that a cell's proxy has.
//!
//! Who dials here is our own code, so a connection carries what its owner likes and lasts as long as
//! they keep it: deadlines of requests are theirs. What an allow-list decides is where to.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper::Method;
use neuroflow_kernel::Clock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    decision::{Asked, Grant, decide},
    dial::dial,
    exchange::{Exchange, Shared},
    head::Overrides,
    host::{Host, HostProblem},
    meter::Upstream,
    policy::Policy,
    reason::EgressReason,
    resolver::Resolve,
    tally::Tally,
};
use crate::network::{Network, NetworkError};

/// Connects to what an allow-list names, and to nothing else: a name is looked up once, every address
/// is checked, and the checked address is the one that is dialled.
///
/// ```
/// use neuroflow_kernel::Clock;
/// use neuroflow_sandbox::{Network, Outlet, Rule};
/// let network = Network::allow([Rule::host("api.example.com").upstream_tls()]);
/// let outlet = Outlet::new(&network, "weather", Clock::system())?;
/// # let _ = outlet;
/// # Ok::<(), neuroflow_sandbox::OutletError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Outlet {
    policy: Arc<Policy>,
    resolver: Arc<dyn Resolve>,
    name: Arc<str>,
    clock: Clock,
}

impl Outlet {
    /// For the allow-list of a network. The name is what logs say instead of a cell's.
    ///
    /// # Errors
    ///
    /// When the network has no allow-list, or one with a mistake.
    pub fn new(
        network: &Network,
        name: impl Into<Arc<str>>,
        clock: Clock,
    ) -> Result<Self, OutletError> {
        let policy = network.policy()?.ok_or(OutletError::Closed)?;
        let resolver = policy.names.for_cell();
        Ok(Self { policy, resolver, name: name.into(), clock })
    }

    /// A connection for a request with this method and path, with TLS on it if the rule says so. Whoever
    /// asks for `https://` says that it has to.
    ///
    /// # Errors
    ///
    /// Why no rule allows it, that the rule has no TLS, or why nobody was reached.
    pub async fn connect(
        &self,
        method: &str,
        host: &str,
        port: u16,
        path: &str,
        has_to_be_tls: bool,
    ) -> Result<OutletStream, OutletError> {
        let host = Host::parse(host).map_err(|problem| OutletError::Host { problem })?;
        let asked = Method::from_bytes(method.as_bytes())
            .map_err(|_malformed| OutletError::Refused { reason: EgressReason::Malformed })?;
        let tally = Arc::new(Tally::of(self.name.to_string()));
        let (policy, resolver) = (Arc::clone(&self.policy), Arc::clone(&self.resolver));
        let shared = Shared { policy, tally, resolver, clock: self.clock.clone() };
        let exchange = Exchange::begin(Arc::new(shared));
        exchange.asked(method, Some(path));
        exchange.aimed_at(&host, port);
        let refused = |reason| OutletError::Refused { reason: exchange.ends(reason) };
        // What else the request says is the host's own.
        let overrides = Overrides::default();
        let plain = Asked::Plain { port: Some(port), method: &asked, path, overrides };
        let grant = decide(&exchange.shared.policy, &host, &plain).map_err(refused)?;
        if has_to_be_tls && !self.has_tls(grant) {
            exchange.ends(EgressReason::UpstreamTls);
            return Err(OutletError::InClear);
        }
        exchange.granted(grant);
        let stream = dial(&exchange, &host, grant).await.map_err(refused)?;
        exchange.passes();
        Ok(OutletStream { stream, exchange })
    }

    /// Whether the rule for such a request would have it sent in clear, so that whoever sets a client up can
    /// say so before the first one.
    ///
    /// ```
    /// use neuroflow_kernel::Clock;
    /// use neuroflow_sandbox::{Network, Outlet, Rule};
    /// let outlet = Outlet::new(&Network::allow([Rule::host("a.example")]), "a", Clock::system())?;
    /// assert!(outlet.is_in_clear("POST", "a.example", 443, "/"));
    /// assert!(!outlet.is_in_clear("POST", "b.example", 443, "/"), "nothing is sent there");
    /// # Ok::<(), neuroflow_sandbox::OutletError>(())
    /// ```
    pub fn is_in_clear(&self, method: &str, host: &str, port: u16, path: &str) -> bool {
        let Ok(host) = Host::parse(host) else { return false };
        let Ok(method) = Method::from_bytes(method.as_bytes()) else { return false };
        let overrides = Overrides::default();
        let plain = Asked::Plain { port: Some(port), method: &method, path, overrides };
        decide(&self.policy, &host, &plain).is_ok_and(|grant| !self.has_tls(grant))
    }

    fn has_tls(&self, grant: Grant) -> bool {
        self.policy.rules.get(grant.rule).is_some_and(|rule| rule.upstream.is_some())
    }
}

/// A connection of an [`Outlet`]. Its decision is logged when it's dropped.
///
/// ```
/// fn is_stream(stream: neuroflow_sandbox::OutletStream) -> impl tokio::io::AsyncRead {
///     stream
/// }
/// ```
pub struct OutletStream {
    stream: Box<dyn Upstream>,
    exchange: Arc<Exchange>,
}

impl std::fmt::Debug for OutletStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutletStream").finish_non_exhaustive()
    }
}

impl Drop for OutletStream {
    fn drop(&mut self) {
        self.exchange.is_over();
    }
}

impl AsyncRead for OutletStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for OutletStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Why there is no connection.
///
/// ```
/// use neuroflow_kernel::Clock;
/// use neuroflow_sandbox::{Network, Outlet, OutletError};
/// let closed = Outlet::new(&Network::none(), "weather", Clock::system());
/// assert!(matches!(closed, Err(OutletError::Closed)));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OutletError {
    /// The network has no allow-list.
    #[error("the network allows nothing outside; name hosts with `Network::allow`")]
    Closed,
    /// The allow-list has a mistake.
    #[error("the allow-list isn't valid")]
    Network(#[from] NetworkError),
    /// The host isn't one.
    #[error("the host {problem}")]
    Host {
        /// What is wrong with it.
        problem: HostProblem,
    },
    /// It has to be TLS, and the rule has none.
    #[error("the rule for the host has no TLS; give it `Rule::upstream_tls`")]
    InClear,
    /// A rule or a check of the address says no, or nobody was reached.
    #[error("no connection: {reason}")]
    Refused {
        /// Why.
        reason: EgressReason,
    },
}

impl OutletError {
    /// A stable word for logs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Network(_) => "network",
            Self::Host { .. } => "host_syntax",
            Self::InClear => "in_clear",
            Self::Refused { reason } => reason.code(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::network::Rule;

    fn outlet(rule: Rule) -> Outlet {
        Outlet::new(&Network::allow([rule]), "test", Clock::system()).unwrap()
    }

    #[tokio::test]
    async fn what_a_rule_names_is_reached_and_nothing_else() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let named = outlet(Rule::host("127.0.0.1").port(port).path_prefix("/mcp"));
        let (stream, accepted) = tokio::join!(
            named.connect("POST", "127.0.0.1", port, "/mcp", false),
            listener.accept()
        );
        let (mut stream, mut peer) = (stream.unwrap(), accepted.unwrap().0);
        stream.write_all(b"ping").await.unwrap();
        let mut heard = [0; 4];
        peer.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"ping");
        for (host, port, path, reason) in [
            ("127.0.0.1", port, "/other", EgressReason::Path),
            ("127.0.0.1", 1, "/mcp", EgressReason::Port),
            ("127.0.0.2", port, "/mcp", EgressReason::AddressLiteral),
        ] {
            let refused = named.connect("POST", host, port, path, false).await.unwrap_err();
            assert_eq!(refused, OutletError::Refused { reason });
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_is_not_followed() {
        let outlet = outlet(Rule::host("localhost").port(80));
        let refused = outlet.connect("POST", "localhost", 80, "/", false).await;
        let reason = EgressReason::AddressLoopback;
        assert_eq!(refused.unwrap_err(), OutletError::Refused { reason });
    }

    /// Somebody who wants `https://` isn't given a connection that everybody on the way can read.
    #[tokio::test]
    async fn what_has_to_be_tls_is_not_sent_in_clear() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let outlet = outlet(Rule::host("127.0.0.1").port(port));
        assert!(outlet.is_in_clear("POST", "127.0.0.1", port, "/"));
        let refused = outlet.connect("POST", "127.0.0.1", port, "/", true).await;
        assert_eq!(refused.unwrap_err(), OutletError::InClear);
    }
}
