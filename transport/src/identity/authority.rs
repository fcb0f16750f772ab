//! A cluster's own certificate authority: makes it, reads it, and signs nodes.

use std::fmt;
use std::time::{Duration, SystemTime};

use neuroflow_kernel::{Name, NameError};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519, PublicKeyData,
    SanType, SubjectPublicKeyInfo,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::NodeId;
use super::certificate::{CertificateError, Credential, Subject, role_uri};
use super::revocation::signed_by;
use crate::limits::AUTHORITY_LIFE;

/// A clock that is behind by less than this takes a certificate that was made just now.
const SKEW: Duration = Duration::from_mins(5);

/// What signs the certificates of a cluster's nodes. Who has its key can add nodes.
///
/// ```
/// use std::time::SystemTime;
/// use neuroflow_transport::Authority;
/// let made = Authority::create("example", SystemTime::now())?;
/// let read = Authority::from_pem(made.certificate_pem(), made.key_pem())?;
/// assert_eq!(read.certificate_pem(), made.certificate_pem());
/// # Ok::<(), neuroflow_transport::AuthorityError>(())
/// ```
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    key_pem: String,
}

impl Authority {
    /// Makes the authority of a new cluster.
    ///
    /// # Errors
    /// Says what is wrong with the name, or that no key could be made.
    pub fn create(cluster: &str, now: SystemTime) -> Result<Self, AuthorityError> {
        let mut params = params(cluster, AUTHORITY_LIFE, now)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let certificate = params.self_signed(&key)?;
        let (certificate_pem, key_pem) = (certificate.pem(), key.serialize_pem());
        Ok(Self { issuer: Issuer::new(params, key), certificate_pem, key_pem })
    }

    /// Reads one that was made before, here or by another tool.
    ///
    /// # Errors
    /// Says that certificate or key can't be used.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, AuthorityError> {
        let issuer = Issuer::from_ca_cert_pem(certificate_pem, KeyPair::from_pem(key_pem)?)?;
        let (certificate_pem, key_pem) = (certificate_pem.to_owned(), key_pem.to_owned());
        Ok(Self { issuer, certificate_pem, key_pem })
    }

    /// Makes a key and a certificate for a node of this name.
    ///
    /// # Errors
    /// Says what is wrong with the name or a role, or that no key could be made.
    pub fn issue(
        &self,
        node: &str,
        roles: &[&str],
        life: Duration,
        now: SystemTime,
    ) -> Result<Credential, AuthorityError> {
        let params = node_params(node, roles, life, now)?;
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Credential::from_pem(&certificate.pem(), &key.serialize_pem())?)
    }

    /// Makes another certificate for a node that this authority has signed before: of the same key, name and
    /// roles, valid from now on. The node's key isn't needed.
    ///
    /// ```
    /// # use std::time::{Duration, SystemTime};
    /// use neuroflow_transport::Authority;
    /// # let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
    /// let authority = Authority::create("example", now)?;
    /// let node = authority.issue("node-a", &["worker"], day, now)?;
    /// let made = authority.renew(node.certificate_pem(), 90 * day, now)?;
    /// let renewed = node.renewed(&made.certificate_pem)?;
    /// assert!(renewed.id() == node.id() && renewed.expires() > node.expires());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Says that the certificate can't be read, or isn't of this authority.
    pub fn renew(
        &self,
        certificate_pem: &str,
        life: Duration,
        now: SystemTime,
    ) -> Result<Renewed, AuthorityError> {
        let leaf = CertificateDer::pem_slice_iter(certificate_pem.as_bytes()).next();
        let leaf = leaf.ok_or(CertificateError::Empty)?.map_err(CertificateError::Pem)?;
        let (_, read) =
            x509_parser::parse_x509_certificate(&leaf).map_err(CertificateError::Certificate)?;
        let own = self.signing_key().subject_public_key_info();
        if !signed_by(&own, read.tbs_certificate.as_ref(), &read.signature_value.data) {
            return Err(AuthorityError::Stranger);
        }
        let Subject { name, roles, .. } = Subject::of(&leaf)?;
        let roles: Vec<&str> = roles.iter().map(String::as_str).collect();
        let params = node_params(name.as_str(), &roles, life, now)?;
        let key = SubjectPublicKeyInfo::from_der(read.public_key().raw)?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let Subject { id, name, expires, .. } = Subject::of(certificate.der())?;
        Ok(Renewed { id, name, expires, certificate_pem: certificate.pem() })
    }

    /// Signs the key of a request (PKCS #10, in DER), which proves that its sender has that key; what
    /// else it asks for isn't looked at.
    pub(crate) fn sign(
        &self,
        request: &[u8],
        node: &str,
        roles: &[&str],
        life: Duration,
        now: SystemTime,
    ) -> Result<Signed, AuthorityError> {
        let request = CertificateSigningRequestParams::from_der(&request.into())?;
        let params = node_params(node, roles, life, now)?;
        let certificate = params.signed_by(&request.public_key, &self.issuer)?;
        let Subject { id, name, .. } = Subject::of(certificate.der())?;
        Ok(Signed { id, name, certificate_pem: certificate.pem() })
    }

    /// What signs.
    pub(super) fn signing_key(&self) -> &KeyPair {
        self.issuer.key()
    }

    /// The certificate that every node of the cluster trusts.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The key, as written to a file that nobody else may read.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// Another certificate of a node.
///
/// ```
/// use neuroflow_transport::Renewed;
/// fn said(renewed: &Renewed) -> String {
///     format!("{} {}", renewed.name, renewed.id)
/// }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Renewed {
    /// The node's id, which is what it was.
    pub id: NodeId,
    /// The node's name.
    pub name: Name,
    /// When the certificate ends.
    pub expires: SystemTime,
    /// The certificate, as written to a file.
    pub certificate_pem: String,
}

/// A certificate that was made for a key elsewhere.
pub(crate) struct Signed {
    pub(crate) id: NodeId,
    pub(crate) name: Name,
    pub(crate) certificate_pem: String,
}

fn node_params(
    node: &str,
    roles: &[&str],
    life: Duration,
    now: SystemTime,
) -> Result<CertificateParams, AuthorityError> {
    let mut params = params(node, life, now)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    for role in roles {
        let uri = role_uri(Name::new(role)?.as_str());
        params.subject_alt_names.push(SanType::URI(uri.try_into()?));
    }
    Ok(params)
}

fn params(
    name: &str,
    life: Duration,
    now: SystemTime,
) -> Result<CertificateParams, AuthorityError> {
    let name = Name::new(name)?;
    let mut params = CertificateParams::new([name.to_string()])?;
    params.distinguished_name.push(DnType::CommonName, name.as_str());
    params.not_before = now.checked_sub(SKEW).unwrap_or(now).into();
    params.not_after = (now + life).into();
    Ok(params)
}

/// Why an authority can't be made or read, or doesn't sign.
///
/// ```
/// use std::time::SystemTime;
/// use neuroflow_transport::{Authority, AuthorityError};
/// let refused = Authority::create("no/name", SystemTime::now()).unwrap_err();
/// assert!(matches!(refused, AuthorityError::Name(_)));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// Not a name for a cluster, a node or a role.
    #[error("the name of the cluster, the node or a role isn't valid")]
    Name(#[from] NameError),
    /// The certificate or key can't be made or read.
    #[error("the authority's certificate or key can't be made or read")]
    Authority(#[from] rcgen::Error),
    /// The certificate to be renewed is another authority's.
    #[error("this authority hasn't signed the certificate; use the one that has")]
    Stranger,
    /// What was signed can't be used.
    #[error("the new certificate can't be used")]
    Certificate(#[from] CertificateError),
}
