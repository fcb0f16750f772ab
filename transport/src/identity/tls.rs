//! TLS as links use it: version 1.3 only, both sides prove who they are, nothing is resumed.
//!
//! A resumed session skips the check of the certificate, and with it expiry and revocation; early
//! data can be replayed. So there is neither.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureScheme,
};

use super::certificate::{Credential, Subject};
use super::{NodeId, Trust};
use crate::join::{ALPN as JOIN_ALPN, Door};

/// The protocol's name and version in the handshake.
const ALPN: &[u8] = b"neuroflow/1";

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The certificate that a node presents; it can be replaced while links stand.
#[derive(Debug)]
pub(crate) struct Presented(RwLock<(Arc<CertifiedKey>, SystemTime)>);

impl Presented {
    pub(crate) fn new(credential: &Credential) -> Result<Arc<Self>, super::CertificateError> {
        Ok(Arc::new(Self(RwLock::new((certified(credential)?, credential.expires())))))
    }

    pub(crate) fn replace(&self, credential: &Credential) -> Result<(), super::CertificateError> {
        let replaced = (certified(credential)?, credential.expires());
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = replaced;
        Ok(())
    }

    fn get(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner).0)
    }

    /// When the certificate ends.
    pub(crate) fn expires(&self) -> SystemTime {
        self.0.read().unwrap_or_else(PoisonError::into_inner).1
    }
}

fn certified(credential: &Credential) -> Result<Arc<CertifiedKey>, super::CertificateError> {
    let key = rustls::crypto::ring::sign::any_supported_type(&credential.key()?)?;
    Ok(Arc::new(CertifiedKey::new(credential.chain.clone(), key)))
}

impl ResolvesServerCert for Presented {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.get())
    }
}

impl ResolvesClientCert for Presented {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.get())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// How a node answers who dials; with a door that is open, who wants to join as well.
pub(crate) fn server_config(
    presented: &Arc<Presented>,
    trust: &Trust,
    door: Option<&Arc<Door>>,
) -> Result<ServerConfig, Error> {
    let chain = WebPkiClientVerifier::builder_with_provider(Arc::clone(&trust.roots), provider())
        .build()
        .map_err(|error| Error::General(error.to_string()))?;
    let (trust, door) = (trust.clone(), door.cloned());
    let is_joinable = door.is_some();
    let verifier = Arc::new(Callers { chain, trust, door, provider: provider() });
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::clone(presented) as _);
    config.alpn_protocols = vec![ALPN.to_vec()];
    if is_joinable {
        config.alpn_protocols.push(JOIN_ALPN.to_vec());
    }
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

pub(crate) fn client_config(
    presented: &Arc<Presented>,
    trust: &Trust,
) -> Result<ClientConfig, Error> {
    let verifier = Arc::new(Callees { trust: trust.clone(), provider: provider() });
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::clone(presented) as _);
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(config)
}

/// The server name under which a dialler says whom it expects: a host name has labels of at most 63
/// characters, and an id has 64 digits. It isn't sent.
pub(crate) fn peer_name(node: Option<&NodeId>) -> String {
    match node {
        Some(node) => {
            let digits = node.to_string();
            let (high, low) = digits.split_at(32);
            format!("{high}.{low}")
        }
        None => ANY.to_owned(),
    }
}

const ANY: &str = "any.node";

/// Refuses a node that was shut out, and one that isn't the one expected.
fn admit(
    trust: &Trust,
    certificate: &CertificateDer<'_>,
    expected: Option<&str>,
) -> Result<(), Error> {
    let subject = Subject::of(certificate)
        .map_err(|_unreadable| Error::InvalidCertificate(CertificateError::BadEncoding))?;
    if trust.is_revoked(&subject.id) {
        return Err(Error::InvalidCertificate(CertificateError::Revoked));
    }
    if expected.is_some_and(|name| name != ANY && name != peer_name(Some(&subject.id))) {
        return Err(Error::InvalidCertificate(CertificateError::NotValidForName));
    }
    Ok(())
}

/// The part of a verifier that has nothing to do with whom it trusts: whether who presents a certificate
/// has its key. The two traits of verifiers have the same methods for it, and nothing in common.
macro_rules! signatures_by_provider {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(
                message,
                cert,
                dss,
                &self.provider.signature_verification_algorithms,
            )
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(
                message,
                cert,
                dss,
                &self.provider.signature_verification_algorithms,
            )
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.provider.signature_verification_algorithms.supported_schemes()
        }
    };
}

/// Checks nodes that dial.
struct Callers {
    chain: Arc<dyn ClientCertVerifier>,
    trust: Trust,
    /// Where strangers may be invited.
    door: Option<Arc<Door>>,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callers").field("trust", &self.trust).finish_non_exhaustive()
    }
}

impl ClientCertVerifier for Callers {
    /// Only while somebody is invited, a node without a certificate gets as far as the door.
    fn client_auth_mandatory(&self) -> bool {
        !self.door.as_ref().is_some_and(|door| door.is_open())
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A stranger isn't told whose cluster this is.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        admit(&self.trust, end_entity, None)?;
        Ok(verified)
    }

    signatures_by_provider!();
}

/// For a node that has no certificate yet, and finds out afterwards whom it talks to.
pub(crate) fn guest_config(alpn: &[u8]) -> Result<ClientConfig, Error> {
    let verifier = Arc::new(Anybody { provider: provider() });
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(config)
}

/// Whether a chain is of a node that this authority has signed, and is valid now.
pub(crate) fn judge(
    trust: &Trust,
    chain: &[CertificateDer<'_>],
) -> Result<(), super::CertificateError> {
    let (end_entity, intermediates) = chain.split_first().ok_or(super::CertificateError::Empty)?;
    let algorithms = provider().signature_verification_algorithms.all;
    let now = UnixTime::now();
    let judged = ParsedCertificate::try_from(end_entity).and_then(|certificate| {
        let roots = &trust.roots;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            roots,
            intermediates,
            now,
            algorithms,
        )
    });
    judged.map_err(|error| match error {
        Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => super::CertificateError::Expired,
        Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => super::CertificateError::NotValidYet,
        _ => super::CertificateError::Untrusted,
    })
}

/// Takes any certificate, as long as whoever presents it has its key.
#[derive(Debug)]
struct Anybody {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    signatures_by_provider!();
}

/// Checks nodes that were dialled: by their key, as their address says nothing.
#[derive(Debug)]
struct Callees {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Callees {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &self.trust.roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        admit(&self.trust, end_entity, Some(&server_name.to_str()))?;
        Ok(ServerCertVerified::assertion())
    }

    signatures_by_provider!();
}
