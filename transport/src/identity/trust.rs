//! Whom a node trusts: what the cluster's authority has signed, and nobody on the revocation list.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::NodeId;
use super::certificate::CertificateError;

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
}

impl Trust {
    /// Trusts what these authorities have signed: one, or two while one replaces the other.
    ///
    /// # Errors
    /// Says that the text has no certificate, or one that is no authority's.
    pub fn from_pem(authorities_pem: &str) -> Result<Self, CertificateError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authorities_pem.as_bytes()) {
            roots.add(certificate?)?;
        }
        if roots.is_empty() {
            return Err(CertificateError::Empty);
        }
        Ok(Self { roots: Arc::new(roots), revoked: Arc::default() })
    }

    /// Shuts a node out. Its links are closed by
    /// [`Links::revoke`](crate::Links::revoke), which calls this.
    pub fn revoke(&self, node: NodeId) {
        self.revoked.write().unwrap_or_else(PoisonError::into_inner).insert(node);
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
            .finish()
    }
}
