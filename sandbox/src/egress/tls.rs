//! TLS from the proxy to the server, so that a secret never travels in clear.

#[cfg(feature = "egress-tls")]
pub(crate) use built::Connector;
#[cfg(not(feature = "egress-tls"))]
pub(crate) use unbuilt::Connector;

/// Why there is no connector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "egress-tls"),
    expect(dead_code, reason = "the others are for builds with the feature")
)]
pub(crate) enum ConnectorError {
    NotBuilt,
    /// The root of this index is no certificate.
    Root(usize),
    /// The system has none.
    NoRoots,
}

#[cfg(feature = "egress-tls")]
mod built {
    use std::{
        io,
        sync::{Arc, OnceLock},
    };

    use tokio_rustls::{
        TlsConnector,
        rustls::{
            ClientConfig, RootCertStore, crypto::ring, pki_types::CertificateDer,
            pki_types::ServerName,
        },
    };

    use super::{
        super::{host::Host, meter::Upstream},
        ConnectorError,
    };

    /// Speaks TLS 1.2 or 1.3 with servers whose certificate one of its roots vouches for.
    #[derive(Debug, Clone)]
    pub(crate) struct Connector(Arc<ClientConfig>);

    impl Connector {
        /// With these roots, or with the system's if there are none.
        pub(crate) fn trusting(roots: &[Vec<u8>]) -> Result<Self, ConnectorError> {
            if roots.is_empty() {
                return system();
            }
            let mut store = RootCertStore::empty();
            for (index, der) in roots.iter().enumerate() {
                let added = store.add(CertificateDer::from(der.as_slice()));
                added.map_err(|_malformed| ConnectorError::Root(index))?;
            }
            configure(store)
        }

        pub(crate) async fn connect(
            &self,
            host: &Host,
            stream: Box<dyn Upstream>,
        ) -> io::Result<Box<dyn Upstream>> {
            let name = match host {
                Host::Name(name) => ServerName::try_from(name.clone()).map_err(io::Error::other)?,
                Host::Address(address) => ServerName::from(*address),
            };
            let stream = TlsConnector::from(Arc::clone(&self.0)).connect(name, stream).await?;
            Ok(Box::new(stream))
        }
    }

    /// The system's roots are read once: some hundred files, for every cell with such a rule.
    fn system() -> Result<Connector, ConnectorError> {
        static SYSTEM: OnceLock<Result<Connector, ConnectorError>> = OnceLock::new();
        let read = || {
            let mut store = RootCertStore::empty();
            // Errors of single files leave the rest usable.
            let (added, _malformed) =
                store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if added == 0 { Err(ConnectorError::NoRoots) } else { configure(store) }
        };
        SYSTEM.get_or_init(read).clone()
    }

    fn configure(store: RootCertStore) -> Result<Connector, ConnectorError> {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions();
        // Fails for a provider without any suite of the versions only.
        let Ok(builder) = builder else { return Err(ConnectorError::NotBuilt) };
        let mut config = builder.with_root_certificates(store).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Tickets would tie one cell's connections to another's.
        config.resumption = tokio_rustls::rustls::client::Resumption::disabled();
        Ok(Connector(Arc::new(config)))
    }
}

#[cfg(not(feature = "egress-tls"))]
mod unbuilt {
    use std::{convert::Infallible, io};

    use super::{
        super::{host::Host, meter::Upstream},
        ConnectorError,
    };

    /// Never exists: a rule that needs one is refused.
    #[derive(Debug, Clone)]
    pub(crate) struct Connector(Infallible);

    impl Connector {
        pub(crate) fn trusting(_roots: &[Vec<u8>]) -> Result<Self, ConnectorError> {
            Err(ConnectorError::NotBuilt)
        }

        #[expect(clippy::unused_async, reason = "the signature of its twin")]
        pub(crate) async fn connect(
            &self,
            _host: &Host,
            _stream: Box<dyn Upstream>,
        ) -> io::Result<Box<dyn Upstream>> {
            match self.0 {}
        }
    }
}
