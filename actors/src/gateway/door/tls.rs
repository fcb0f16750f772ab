//! TLS of the listener: certificate, key, and the CA of clients, read again when they change.
//!
//! A connection keeps the configuration that it began with, so a change interrupts none.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use neuroflow_kernel::{Clock, TraceContext};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::sync::watch;

use crate::access::{AccessMeter, FileError, read_file};
use crate::audit::{Audit, AuditEvent, Digest, Verdict};
use crate::limits::FILE_POLL;

/// The files of a TLS listener, all of them PEM.
///
/// ```
/// use neuroflow_actors::TlsFiles;
/// let files = TlsFiles::new("cert.pem", "key.pem");
/// assert!(files.client_ca.is_none());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsFiles {
    /// The certificate, and those between it and the CA.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The CAs whose clients' certificates are taken.
    pub client_ca: Option<PathBuf>,
}

impl TlsFiles {
    /// Without certificates of clients.
    pub fn new(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self { certificate: certificate.into(), key: key.into(), client_ca: None }
    }
}

/// Why there is no TLS.
///
/// ```
/// use neuroflow_actors::TlsError;
/// let error = TlsError::NoCertificate { path: "cert.pem".into() };
/// assert!(error.to_string().starts_with("cert.pem"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file can't be read.
    #[error("a file of the listener's TLS can't be read")]
    File(#[from] FileError),
    /// A file isn't PEM.
    #[error("{} isn't PEM", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// A file has no certificate in it.
    #[error("{} has no certificate in it", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key don't fit, or one of them isn't one.
    #[error("certificate {} and key {} can't be used together", certificate.display(), key.display())]
    Pair {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// A CA isn't one.
    #[error("{} has no CA that can vouch for clients", path.display())]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::server::VerifierBuilderError,
    },
    /// This build's cryptography has no version of TLS.
    #[error("this build's cryptography has no version of TLS")]
    Versions(#[from] rustls::Error),
}

/// The configuration of this moment.
#[derive(Clone, Debug)]
pub(in crate::gateway) struct Tls {
    files: TlsFiles,
    current: watch::Receiver<Arc<ServerConfig>>,
    sender: Arc<watch::Sender<Arc<ServerConfig>>>,
    digest: [u8; 32],
}

impl Tls {
    /// Reads the files.
    pub(in crate::gateway) async fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let (config, digest) = read(files.clone()).await?;
        let (sender, current) = watch::channel(config);
        Ok(Self { files, current, sender: Arc::new(sender), digest })
    }

    pub(super) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.borrow())
    }

    /// Looks at the files again and again. Those that can't be used change nothing.
    pub(in crate::gateway) async fn refresh(
        mut self,
        clock: Clock,
        meter: Arc<dyn AccessMeter>,
        audit: Audit,
    ) {
        let changed = |digest, verdict| {
            let changed = AuditEvent::ConfigChanged { part: "certificate", digest, verdict };
            audit.note(TraceContext::NONE, changed);
        };
        let mut refused = None;
        loop {
            clock.sleep(FILE_POLL).await;
            match read(self.files.clone()).await {
                Ok((_, digest)) if digest == self.digest => {}
                Ok((config, digest)) => {
                    changed(Digest::from(digest), Verdict::Allowed);
                    self.digest = digest;
                    refused = None;
                    self.sender.send_replace(config);
                    meter.reload("certificate", true);
                    tracing::info!("the listener's certificate was read again");
                }
                Err(error) => {
                    // Each complaint once.
                    let text = error.to_string();
                    if refused.as_ref() != Some(&text) {
                        meter.reload("certificate", false);
                        // What can't be read has no digest.
                        changed(Digest::ZERO, Verdict::Denied);
                        let error = &error as &dyn std::error::Error;
                        tracing::error!(error, "the changed certificate isn't taken over");
                    }
                    refused = Some(text);
                }
            }
        }
    }
}

async fn read(files: TlsFiles) -> Result<(Arc<ServerConfig>, [u8; 32]), TlsError> {
    let build = tokio::task::spawn_blocking(move || build(&files));
    match build.await {
        Ok(built) => built,
        // It doesn't panic and nobody cancels it.
        Err(_gone) => Err(TlsError::Versions(rustls::Error::General("not read".to_owned()))),
    }
}

fn build(files: &TlsFiles) -> Result<(Arc<ServerConfig>, [u8; 32]), TlsError> {
    let (certificate, key) = (read_file(&files.certificate)?, read_file(&files.key)?);
    let mut digests = [certificate.digest, key.digest, [0; 32]];
    let chain = certificates(&files.certificate, &certificate.bytes)?;
    let private = PrivateKeyDer::from_pem_slice(&key.bytes)
        .map_err(|source| TlsError::Pem { path: files.key.clone(), source })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let contents = read_file(path)?;
            if let Some(last) = digests.last_mut() {
                *last = contents.digest;
            }
            let mut roots = RootCertStore::empty();
            // What isn't a CA is counted out; none at all is refused below.
            let (_added, _ignored) =
                roots.add_parsable_certificates(certificates(path, &contents.bytes)?);
            // A client without one may still have a token; who has neither is told so over HTTP.
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|source| TlsError::ClientCa { path: path.clone(), source })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, private).map_err(|source| TlsError::Pair {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        source,
    })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    if files.client_ca.is_some() {
        // A resumed session would bring its certificate along without a look at its end.
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok((Arc::new(config), crate::access::sha256(&digests.concat())))
}

fn certificates(path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let read = read.map_err(|source| TlsError::Pem { path: path.to_owned(), source })?;
    if read.is_empty() {
        return Err(TlsError::NoCertificate { path: path.to_owned() });
    }
    Ok(read)
}
