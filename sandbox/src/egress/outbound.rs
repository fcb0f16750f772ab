//! Connections of the host itself to addresses that others name: webhooks, key sets of issuers.
//!
//! The rules are those of a cell's proxy: one look-up, a look at every address, and no other address
//! is dialled. So a name that changes its mind between check and use leads nowhere.

use std::{fmt, net::IpAddr, sync::Arc};

use neuroflow_kernel::{Clock, Moment};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    dial::{connect, reachable},
    host::{Host, HostProblem},
    reason::EgressReason,
    resolver::{Resolve, System},
    tls::Connector,
};

/// A connection, with or without TLS on it.
///
/// ```
/// fn takes(stream: tokio::net::TcpStream) -> Box<dyn neuroflow_sandbox::OutboundStream> {
///     Box::new(stream)
/// }
/// ```
pub trait OutboundStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> OutboundStream for T {}

/// Dials public addresses only, unless told otherwise; cheap to clone.
///
/// ```
/// use neuroflow_kernel::Clock;
/// use neuroflow_sandbox::Outbound;
/// let outbound = Outbound::new(Clock::system());
/// assert!(!outbound.clone().allow_private(true).trust(&[])?.is_public_only());
/// assert!(outbound.is_public_only());
/// # Ok::<(), neuroflow_sandbox::OutboundError>(())
/// ```
#[derive(Clone)]
pub struct Outbound {
    clock: Clock,
    resolver: Arc<dyn Resolve>,
    private: bool,
    connector: Option<Connector>,
}

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbound").field("private", &self.private).finish_non_exhaustive()
    }
}

impl Outbound {
    /// To public addresses, with the system's certificates.
    pub fn new(clock: Clock) -> Self {
        let resolver = Arc::new(System::for_cell());
        Self { clock, resolver, private: false, connector: None }
    }

    /// Dials loopback and private addresses too: for tests, and for services of one's own network.
    /// Services that hand out a machine's credentials stay closed.
    #[must_use]
    pub fn allow_private(mut self, allow: bool) -> Self {
        self.private = allow;
        self
    }

    /// Trusts these certificates (DER) in place of the system's; an empty list changes nothing.
    ///
    /// # Errors
    /// Says which one is no certificate, or that this build has no TLS.
    pub fn trust(mut self, roots: &[Vec<u8>]) -> Result<Self, OutboundError> {
        if !roots.is_empty() {
            self.connector = Some(connector(roots)?);
        }
        Ok(self)
    }

    /// Whether private addresses are closed.
    pub fn is_public_only(&self) -> bool {
        !self.private
    }

    /// Whether a host may be connected to, as far as that can be told without looking it up: a name may
    /// lead to a closed address yet.
    ///
    /// # Errors
    /// Says that the host can't be read, or is a closed address.
    pub fn check(&self, host: &str) -> Result<(), OutboundError> {
        match Host::parse(host)? {
            Host::Address(address) => self.reachable(&[address]).map(|_open| ()),
            Host::Name(_) => Ok(()),
        }
    }

    fn reachable(&self, found: &[IpAddr]) -> Result<Vec<IpAddr>, OutboundError> {
        let permits = |address: IpAddr| {
            let closed = super::address::closed(address);
            self.private && closed != Some(super::address::Closed::Metadata)
        };
        reachable(permits, found).map_err(refused)
    }

    /// Connects before `deadline`; with TLS if `is_tls`, which checks the certificate for the host.
    ///
    /// # Errors
    /// Says whether the host can't be read, its addresses are closed, or nobody answered.
    pub async fn connect(
        &self,
        host: &str,
        port: u16,
        is_tls: bool,
        deadline: Moment,
    ) -> Result<Box<dyn OutboundStream>, OutboundError> {
        let host = Host::parse(host)?;
        let found = match &host {
            Host::Address(address) => vec![*address],
            Host::Name(name) => {
                let lookup = self.resolver.resolve(name.clone());
                let found = self.clock.before(deadline, lookup).await;
                let found = found.map_err(|_elapsed| refused(EgressReason::ResolveTime))?;
                found.map_err(|source| OutboundError::Unresolved { source })?
            }
        };
        let open = self.reachable(&found)?;
        let (stream, _address) =
            connect(&self.clock, &open, port, deadline).await.map_err(refused)?;
        // Where it can't be set, small requests are only later.
        let _slower = stream.set_nodelay(true);
        if !is_tls {
            return Ok(Box::new(stream));
        }
        let connector = match &self.connector {
            Some(connector) => connector.clone(),
            None => connector(&[])?,
        };
        match self.clock.before(deadline, connector.connect(&host, Box::new(stream))).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(source)) => Err(OutboundError::Tls { source }),
            Err(_elapsed) => Err(refused(EgressReason::ConnectTime)),
        }
    }
}

fn refused(reason: EgressReason) -> OutboundError {
    OutboundError::Refused { reason }
}

fn connector(roots: &[Vec<u8>]) -> Result<Connector, OutboundError> {
    use super::tls::ConnectorError;
    Connector::trusting(roots).map_err(|error| match error {
        ConnectorError::NotBuilt => OutboundError::Unsupported,
        ConnectorError::Root(index) => OutboundError::Root { index },
        ConnectorError::NoRoots => OutboundError::NoRoots,
    })
}

/// Why there is no connection.
///
/// ```
/// use neuroflow_sandbox::{EgressReason, OutboundError};
/// let error = OutboundError::Refused { reason: EgressReason::AddressLoopback };
/// assert!(error.is_forbidden());
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutboundError {
    /// The host has a second reading, or none.
    #[error("the host can't be read")]
    Host(#[from] HostProblem),
    /// The name isn't known.
    #[error("the name can't be resolved")]
    Unresolved {
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Its addresses are closed, or nobody answered in time.
    #[error("no connection: {}", reason.code())]
    Refused {
        /// Why.
        reason: EgressReason,
    },
    /// The other end has no certificate for the host, or none that is trusted.
    #[error("no TLS with the host; check its certificate, or name the one to trust")]
    Tls {
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// One of the certificates to trust is none.
    #[error("certificate {index} of those to trust can't be read")]
    Root {
        /// Which one, from 0.
        index: usize,
    },
    /// The system trusts nobody.
    #[error("this system has no certificates to trust; install its CA bundle")]
    NoRoots,
    /// This build has no TLS.
    #[error("this build has no TLS for its own connections; build with the feature egress-tls")]
    Unsupported,
}

impl OutboundError {
    /// Whether the address isn't to be dialled, however often one tries.
    pub fn is_forbidden(&self) -> bool {
        matches!(
            self,
            Self::Host(_)
                | Self::Refused {
                    reason: EgressReason::AddressLoopback
                        | EgressReason::AddressPrivate
                        | EgressReason::AddressLinkLocal
                        | EgressReason::AddressMetadata
                        | EgressReason::AddressMulticast
                        | EgressReason::AddressReserved
                }
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn dial(outbound: &Outbound, host: &str, port: u16) -> Result<(), OutboundError> {
        let deadline = outbound.clock.now() + Duration::from_secs(5);
        outbound.connect(host, port, false, deadline).await.map(drop)
    }

    #[tokio::test]
    async fn private_addresses_are_closed_unless_allowed_and_metadata_always() {
        let outbound = Outbound::new(Clock::system());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in ["127.0.0.1", "localhost", "[::1]", "10.0.0.1", "169.254.169.254"] {
            let error = dial(&outbound, host, port).await.unwrap_err();
            assert!(error.is_forbidden(), "{host}: {error:?}");
        }
        let outbound = outbound.allow_private(true);
        assert!(dial(&outbound, "127.0.0.1", port).await.is_ok());
        let error = dial(&outbound, "169.254.169.254", port).await.unwrap_err();
        assert!(error.is_forbidden(), "{error:?}");
        assert!(dial(&outbound, "127.1", port).await.unwrap_err().is_forbidden());
    }

    /// Answers with another address each time, the first of them first.
    #[derive(Debug)]
    struct Changing(Vec<&'static str>, std::sync::atomic::AtomicUsize);

    impl Resolve for Changing {
        fn resolve(&self, _name: String) -> super::super::resolver::Lookup {
            let turn = self.1.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let address = self.0.get(turn).or(self.0.last()).map(|it| it.parse().unwrap());
            Box::pin(std::future::ready(Ok(address.into_iter().collect())))
        }
    }

    #[tokio::test]
    async fn a_name_that_changes_its_mind_leads_nowhere() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // What is looked at is what is dialled: there is no second look-up in between.
        let names = Arc::new(Changing(vec!["127.0.0.1", "10.0.0.1"], 0.into()));
        let mut outbound = Outbound::new(Clock::system()).allow_private(true);
        outbound.resolver = Arc::clone(&names) as Arc<dyn Resolve>;
        assert!(dial(&outbound, "hook.example", port).await.is_ok());
        assert_eq!(names.1.load(std::sync::atomic::Ordering::SeqCst), 1);
        // A name that was public when it was registered and isn't any more.
        let mut outbound = Outbound::new(Clock::system());
        outbound.resolver = Arc::new(Changing(vec!["127.0.0.1"], 0.into()));
        assert!(outbound.check("hook.example").is_ok());
        let error = dial(&outbound, "hook.example", port).await.unwrap_err();
        assert!(error.is_forbidden(), "{error:?}");
        assert!(outbound.check("127.0.0.1").is_err() && outbound.check("8.8.8.8").is_ok());
    }

    #[tokio::test]
    async fn a_certificate_that_nobody_vouches_for_is_refused() {
        let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let outbound = Outbound::new(Clock::system()).allow_private(true);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let trusting = outbound.trust(&[key.cert.der().to_vec()]).unwrap();
        let deadline = trusting.clock.now() + Duration::from_secs(5);
        let dialled = trusting.connect("127.0.0.1", port, true, deadline);
        let accept = async { drop(listener.accept().await.unwrap()) };
        let (dialled, ()) = tokio::join!(dialled, accept);
        assert!(matches!(dialled.map(drop), Err(OutboundError::Tls { .. })));
    }
}
