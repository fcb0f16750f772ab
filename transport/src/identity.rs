//! Who a node is: its key and certificate, the cluster's authority, and whom a node trusts.
//!
//! A node's id is the hash of its public key, so it survives a renewed certificate. Its name and
//! roles are what the authority has put into the certificate.

mod authority;
mod certificate;
mod kept;
mod revocation;
mod tls;
mod trust;

use std::fmt;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};

pub use self::authority::{Authority, AuthorityError, Renewed};
pub(crate) use self::certificate::Subject;
pub use self::certificate::{CertificateError, Credential};
pub(crate) use self::kept::Kept;
pub use self::kept::ListFileError;
pub use self::revocation::{RevocationError, Revocations};
pub(crate) use self::tls::{
    Presented, client_config, guest_config, judge, peer_name, server_config,
};
pub use self::trust::Trust;

/// A node's identity: the SHA-256 hash of its public key (the certificate's subject public key
/// info).
///
/// ```
/// use neuroflow_transport::NodeId;
/// let id: NodeId = "ab".repeat(32).parse()?;
/// assert_eq!(id.short(), "abababababab");
/// # Ok::<(), neuroflow_transport::NodeIdError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId([u8; 32]);

impl NodeId {
    /// The id of a public key, in the form in which certificates carry it.
    pub fn of_public_key(spki: &[u8]) -> Self {
        let mut id = [0; 32];
        let digest = ring::digest::digest(&ring::digest::SHA256, spki);
        id.copy_from_slice(digest.as_ref());
        Self(id)
    }

    /// The hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first digits, for people.
    pub fn short(&self) -> String {
        self.to_string().chars().take(12).collect()
    }
}

impl From<[u8; 32]> for NodeId {
    fn from(hash: [u8; 32]) -> Self {
        Self(hash)
    }
}

impl std::str::FromStr for NodeId {
    type Err = NodeIdError;

    fn from_str(text: &str) -> Result<Self, NodeIdError> {
        let malformed = || NodeIdError { text: text.chars().take(80).collect() };
        let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_other| malformed())?;
        bytes.try_into().map(Self).map_err(|_length| malformed())
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        HEXLOWER.encode_display(&self.0).fmt(f)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({})", self.short())
    }
}

/// A text that isn't a node id.
///
/// ```
/// let error = "node-a".parse::<neuroflow_transport::NodeId>().unwrap_err();
/// assert!(error.to_string().contains("64"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} isn't a node id: 64 hexadecimal digits")]
pub struct NodeIdError {
    /// What was given.
    pub text: String,
}

#[cfg(test)]
mod tests;
