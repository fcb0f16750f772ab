//! Whom a node trusts: what the cluster's authority has signed, and nobody on the revocation list.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::NodeId;
use super::certificate::CertificateError;
use super::revocation::{RevocationError, Revocations};

/// The authorities of a cluster, and the nodes that it has shut out. Clones share the list.
///
/// ```
/// use std::time::SystemTime;
/// use neuroflow_transport::{Authority, NodeId, Trust};
/// let authority = Authority::create("example", SystemTime::now())?;
/// let trust = Trust::from_pem(authority.certificate_pem())?;
/// let lost = NodeId::of_public_key(b"a key that was stolen");
/// trust.revoke(lost);
/// assert!(trust.is_revoked(&lost));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Trust {
    pub(super) roots: Arc<RootCertStore>,
    revoked: Arc<RwLock<HashSet<NodeId>>>,
    /// The authorities' public keys.
    keys: Arc<[Vec<u8>]>,
    /// The newest list that one of them has signed.
    list: Arc<RwLock<Listed>>,
}

/// A list and its text.
type Listed = (Revocations, Option<Arc<str>>);

impl Trust {
    /// Trusts what these authorities have signed: one, or two while one replaces the other.
    ///
    /// # Errors
    /// Says that the text has no certificate, or one that is no authority's.
    pub fn from_pem(authorities_pem: &str) -> Result<Self, CertificateError> {
        let mut roots = RootCertStore::empty();
        let mut keys = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(authorities_pem.as_bytes()) {
            let certificate = certificate?;
            let (_, read) = x509_parser::parse_x509_certificate(&certificate)?;
            keys.push(read.public_key().raw.to_vec());
            roots.add(certificate)?;
        }
        if roots.is_empty() {
            return Err(CertificateError::Empty);
        }
        Ok(Self {
            roots: Arc::new(roots),
            revoked: Arc::default(),
            keys: keys.into(),
            list: Arc::default(),
        })
    }

    /// Shuts a node out. Its links end within a second, and at once by
    /// [`Links::revoke`](crate::Links::revoke), which calls this.
    pub fn revoke(&self, node: NodeId) {
        self.revoked.write().unwrap_or_else(PoisonError::into_inner).insert(node);
    }

    pub(super) fn authority_keys(&self) -> impl Iterator<Item = &[u8]> {
        self.keys.iter().map(Vec::as_slice)
    }

    /// Shuts out the nodes of a list that one of the authorities has signed, if it's newer than the one
    /// before. Gives the nodes that it names then, and nothing if it's known already.
    ///
    /// # Errors
    /// Says what is wrong with the list.
    pub fn take_revocations(&self, text: &str) -> Result<Option<Vec<NodeId>>, RevocationError> {
        let list = Revocations::verify(text, self)?;
        let mut newest = self.list.write().unwrap_or_else(PoisonError::into_inner);
        if newest.1.is_some() && list.serial() <= newest.0.serial() {
            return Ok(None);
        }
        let nodes: Vec<NodeId> = list.nodes().collect();
        *newest = (list, Some(text.into()));
        drop(newest);
        for node in &nodes {
            self.revoke(*node);
        }
        Ok(Some(nodes))
    }

    /// The newest list that was taken, as it was signed.
    pub fn revocations(&self) -> Option<Arc<str>> {
        self.list.read().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    /// The newest list that was taken, and its serial.
    pub(crate) fn newest_list(&self) -> Option<(u64, Arc<str>)> {
        let list = self.list.read().unwrap_or_else(PoisonError::into_inner);
        Some((list.0.serial(), list.1.clone()?))
    }

    /// Whether a node was shut out.
    pub fn is_revoked(&self, node: &NodeId) -> bool {
        self.revoked.read().unwrap_or_else(PoisonError::into_inner).contains(node)
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let revoked = self.revoked.read().unwrap_or_else(PoisonError::into_inner).len();
        f.debug_struct("Trust")
            .field("authorities", &self.roots.len())
            .field("revoked", &revoked)
            .finish_non_exhaustive()
    }
}
