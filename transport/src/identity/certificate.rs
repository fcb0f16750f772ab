//! A node's certificate as others read it, and with its key as it presents it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use neuroflow_kernel::{Name, NameError};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::SigningKey;
use x509_parser::extensions::GeneralName;

use super::tls::judge;
use super::{NodeId, Trust};

/// How a role stands in a certificate, among the alternative names.
const ROLE_URI: &str = "neuroflow:role:";

/// A node's certificates and its private key.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use neuroflow_transport::{Authority, Credential};
/// let authority = Authority::create("example", SystemTime::now())?;
/// let node = authority.issue("node-a", &["worker"], Duration::from_secs(3_600), SystemTime::now())?;
/// let read = Credential::from_pem(node.certificate_pem(), node.key_pem())?;
/// assert_eq!((read.id(), read.name().as_str()), (node.id(), "node-a"));
/// assert!(read.has_role("worker"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Credential {
    pub(super) chain: Vec<CertificateDer<'static>>,
    certificate_pem: String,
    key_pem: String,
    subject: Subject,
}

impl Credential {
    /// Reads what [`Authority::issue`](super::Authority::issue) or another tool wrote: the node's
    /// certificate first, then those between it and the cluster's authority.
    ///
    /// # Errors
    /// Says whether certificate or key can't be read, or don't belong together.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, CertificateError> {
        let chain = CertificateDer::pem_slice_iter(certificate_pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()?;
        let leaf = chain.first().ok_or(CertificateError::Empty)?;
        let subject = Subject::of(leaf)?;
        let credential = Self {
            subject,
            chain,
            certificate_pem: certificate_pem.to_owned(),
            key_pem: key_pem.to_owned(),
        };
        let signer = rustls::crypto::ring::sign::any_supported_type(&credential.key()?)?;
        let public = signer.public_key().map(|spki| NodeId::of_public_key(&spki));
        if public != Some(credential.id()) {
            return Err(CertificateError::OtherKey);
        }
        Ok(credential)
    }

    /// The same key with another certificate, such as one that [`Authority::renew`](super::Authority::renew)
    /// has made.
    ///
    /// # Errors
    /// Says that the certificate can't be read, or isn't of this key and name.
    pub fn renewed(&self, certificate_pem: &str) -> Result<Self, CertificateError> {
        let renewed = Self::from_pem(certificate_pem, &self.key_pem)?;
        if renewed.name() != self.name() {
            return Err(CertificateError::OtherName { name: renewed.name().clone() });
        }
        Ok(renewed)
    }

    /// Whether nodes of this trust would take it now, by the machine's time.
    ///
    /// ```
    /// # use std::time::{Duration, SystemTime};
    /// use neuroflow_transport::{Authority, CertificateError, Trust};
    /// # let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
    /// let authority = Authority::create("example", now)?;
    /// let trust = Trust::from_pem(authority.certificate_pem())?;
    /// let old = authority.issue("node-a", &[], day, now - 3 * day)?;
    /// assert!(matches!(old.check(&trust), Err(CertificateError::Expired)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Says whether it's the time or the authority. Whether the node was shut out isn't looked at.
    pub fn check(&self, trust: &Trust) -> Result<(), CertificateError> {
        judge(trust, &self.chain)
    }

    pub(super) fn key(&self) -> Result<PrivateKeyDer<'static>, CertificateError> {
        Ok(PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())?)
    }

    /// The key, to sign with.
    pub(crate) fn signing_key(&self) -> Result<Arc<dyn SigningKey>, CertificateError> {
        Ok(rustls::crypto::ring::sign::any_supported_type(&self.key()?)?)
    }

    /// The node's id.
    pub fn id(&self) -> NodeId {
        self.subject.id
    }

    /// The node's name.
    pub fn name(&self) -> &Name {
        &self.subject.name
    }

    /// Whether the authority gave it this role.
    pub fn has_role(&self, role: &str) -> bool {
        self.subject.roles.iter().any(|held| held == role)
    }

    /// When its certificate ends.
    pub fn expires(&self) -> SystemTime {
        self.subject.expires
    }

    /// The certificates, as written to a file.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The private key, as written to a file that nobody else may read.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("subject", &self.subject).finish_non_exhaustive()
    }
}

/// Whom a certificate is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) id: NodeId,
    pub(crate) name: Name,
    pub(crate) roles: Vec<String>,
    pub(crate) expires: SystemTime,
}

impl Subject {
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Result<Self, CertificateError> {
        let (_, read) = x509_parser::parse_x509_certificate(certificate)?;
        let id = NodeId::of_public_key(read.public_key().raw);
        let name = read.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        let name = Name::new(name.unwrap_or_default())?;
        let alternative = read.subject_alternative_name()?;
        let roles = alternative
            .iter()
            .flat_map(|names| &names.value.general_names)
            .filter_map(|name| match name {
                GeneralName::URI(uri) => uri.strip_prefix(ROLE_URI).map(str::to_owned),
                _ => None,
            })
            .collect();
        let seconds = u64::try_from(read.validity().not_after.timestamp()).unwrap_or(0);
        let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        Ok(Self { id, name, roles, expires })
    }
}

/// How a role is written into a certificate.
pub(super) fn role_uri(role: &str) -> String {
    format!("{ROLE_URI}{role}")
}

/// Why a certificate or its key can't be used.
///
/// ```
/// use neuroflow_transport::{CertificateError, Credential};
/// assert!(matches!(Credential::from_pem("", ""), Err(CertificateError::Empty)));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// There is none in the text.
    #[error("the text has no certificate: it begins with -----BEGIN CERTIFICATE-----")]
    Empty,
    /// Not PEM.
    #[error("the certificate or key isn't PEM")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// Not a certificate.
    #[error("the certificate can't be read")]
    Certificate(#[from] x509_parser::nom::Err<x509_parser::error::X509Error>),
    /// An extension that can't be read.
    #[error("the certificate's alternative names can't be read")]
    Names(#[from] x509_parser::error::X509Error),
    /// The common name isn't a node's.
    #[error("the certificate's common name isn't a node's name")]
    Name(#[from] NameError),
    /// A key that TLS can't use.
    #[error("the key can't be used: Ed25519 and ECDSA P-256 can")]
    Key(#[from] rustls::Error),
    /// The certificate names another node.
    #[error("the certificate names {name}, another node")]
    OtherName {
        /// Whom it names.
        name: Name,
    },
    /// Its time is over.
    #[error(
        "the certificate has expired: where the authority's key is, `neuroflow node renew` makes another of the same key"
    )]
    Expired,
    /// Its time hasn't come.
    #[error(
        "the certificate isn't valid yet: this machine's clock is behind, or its maker's was ahead"
    )]
    NotValidYet,
    /// No authority of the cluster has signed it.
    #[error(
        "none of the authorities that are trusted has signed the certificate: both have to be of one cluster"
    )]
    Untrusted,
    /// The key belongs to another certificate.
    #[error("the key doesn't belong to the certificate")]
    OtherKey,
}
