//! Joining a cluster: a node that has no certificate yet is given one, over the link port of a node
//! that has the cluster's authority, for a token that works once and for a short time.
//!
//! The token pins the authority by its hash and the node that has invited by its id, so the node that joins
//! knows whom it talks to before it says the token's secret: another member, which could bring the token itself,
//! isn't told. Its own key never leaves it.

mod client;
mod door;
mod wire;

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use neuroflow_kernel::{Name, NameError};

pub use self::client::{Joined, join};
pub(crate) use self::door::{Door, serve};
pub use self::door::{Guest, Invitation};
pub(crate) use self::wire::ALPN;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub use self::wire::fuzz;
#[cfg(test)]
pub(crate) use self::wire::seeds;
use crate::identity::{AuthorityError, CertificateError, NodeId};
use crate::limits::{INVITE_LIFE, MAX_INVITES};

/// What every token begins with.
const PREFIX: &str = "nfj2.";

/// What those began with that didn't say who has invited.
const OLD_PREFIX: &str = "nfj1.";
const SECRET_BYTES: usize = 16;
const HASH_BYTES: usize = 32;

/// The hash of an authority's certificate.
type AuthorityHash = [u8; HASH_BYTES];

/// Whom to let in.
///
/// ```
/// use std::time::Duration;
/// let invite = neuroflow_transport::Invite::new("node-c").role("worker").valid(Duration::from_secs(600));
/// assert!(format!("{invite:?}").contains("node-c"));
/// ```
#[derive(Clone, Debug)]
pub struct Invite {
    node: String,
    roles: Vec<String>,
    valid: Duration,
    certificate_life: Duration,
    reach: Option<SocketAddr>,
}

impl Invite {
    /// A node of this name, within [`INVITE_LIFE`].
    pub fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            roles: Vec::new(),
            valid: INVITE_LIFE,
            certificate_life: crate::limits::CERTIFICATE_LIFE,
            reach: None,
        }
    }

    /// With this role too.
    #[must_use]
    pub fn role(mut self, role: &str) -> Self {
        self.roles.push(role.to_owned());
        self
    }

    /// Within this time.
    #[must_use]
    pub fn valid(mut self, valid: Duration) -> Self {
        self.valid = valid;
        self
    }

    /// To be joined at this address, if this node is reached by another than the one that it
    /// [advertises](crate::LinksConfig::advertise) or else listens at.
    #[must_use]
    pub fn reach(mut self, address: SocketAddr) -> Self {
        self.reach = Some(address);
        self
    }

    /// With a certificate that is valid for so long.
    #[must_use]
    pub fn certificate_life(mut self, life: Duration) -> Self {
        self.certificate_life = life;
        self
    }
}

/// A token as text: where to join and whom to find there, the authority's hash, and a secret.
///
/// ```
/// use neuroflow_transport::{JoinError, JoinToken};
/// assert!(matches!("nfj2.x".parse::<JoinToken>(), Err(JoinError::Malformed)));
/// assert!(matches!("nfj1.x".parse::<JoinToken>(), Err(JoinError::OldToken)));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    secret: [u8; SECRET_BYTES],
    authority: AuthorityHash,
    /// Who has invited, and alone may be told the secret.
    inviter: NodeId,
    address: SocketAddr,
    expires_ms: u64,
}

impl JoinToken {
    /// Where the node that signs listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// When it ends.
    pub fn expires(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.expires_ms)
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.address.to_string();
        let expires = self.expires_ms.to_le_bytes();
        let inviter = self.inviter.as_bytes();
        let parts = [&self.secret[..], &self.authority, inviter, &expires, address.as_bytes()];
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(parts.concat()))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("address", &self.address).finish_non_exhaustive()
    }
}

impl std::str::FromStr for JoinToken {
    type Err = JoinError;

    fn from_str(text: &str) -> Result<Self, JoinError> {
        let malformed = || JoinError::Malformed;
        let text = text.trim();
        if text.starts_with(OLD_PREFIX) {
            return Err(JoinError::OldToken);
        }
        let code = text.strip_prefix(PREFIX).ok_or_else(malformed)?;
        let bytes = URL_SAFE_NO_PAD.decode(code).map_err(|_other| malformed())?;
        let (secret, rest) = bytes.split_first_chunk().ok_or_else(malformed)?;
        let (authority, rest) = rest.split_first_chunk().ok_or_else(malformed)?;
        let (inviter, rest) = rest.split_first_chunk::<HASH_BYTES>().ok_or_else(malformed)?;
        let (expires, address) = rest.split_first_chunk().ok_or_else(malformed)?;
        let address = std::str::from_utf8(address).ok().and_then(|text| text.parse().ok());
        Ok(Self {
            secret: *secret,
            authority: *authority,
            inviter: NodeId::from(*inviter),
            expires_ms: u64::from_le_bytes(*expires),
            address: address.ok_or_else(malformed)?,
        })
    }
}

/// Why nobody is invited.
///
/// ```
/// assert!(neuroflow_transport::InviteError::NoAuthority.to_string().contains("authority"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InviteError {
    /// This node can't sign.
    #[error("this node doesn't have the cluster's authority: LinksConfig::authority gives it one")]
    NoAuthority,
    /// It doesn't listen yet.
    #[error("this node doesn't listen yet, so there is nowhere to join")]
    NotListening,
    /// Nobody can dial where it's to be reached: it listens on all addresses, and which of them others reach isn't
    /// known.
    #[error(
        "nobody can dial {address}: say where the new node reaches this one, with --reach (Invite::reach), or set \
         cluster.advertise"
    )]
    Nowhere {
        /// Where it would be joined.
        address: SocketAddr,
    },
    /// Not a name for a node or a role.
    #[error("the name of the node or of a role isn't valid")]
    Name(#[from] NameError),
    /// As many as may be.
    #[error("there are {MAX_INVITES} invitations already")]
    TooMany,
    /// The authority's certificate can't be read.
    #[error("the authority's certificate can't be read")]
    Certificate(#[from] CertificateError),
    /// The system has no random numbers.
    #[error("the system gives no random numbers")]
    Random,
}

/// Why a node didn't join.
///
/// ```
/// assert!(!neuroflow_transport::JoinError::Used.is_retryable());
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// Not a token.
    #[error("this isn't a token of an invitation: it begins with {PREFIX}")]
    Malformed,
    /// A token of an older build, which doesn't say who has invited.
    #[error(
        "this token is of an older build, and doesn't say who has invited: update that node, and invite anew"
    )]
    OldToken,
    /// No socket of its own.
    #[error("no socket can be had to join with")]
    Socket(#[source] std::io::Error),
    /// TLS can't be set up.
    #[error("TLS can't be set up to join")]
    Tls(#[from] rustls::Error),
    /// The cipher that QUIC begins with is missing.
    #[error("the cipher that QUIC begins with is missing")]
    Cipher(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
    /// It can't even be tried.
    #[error("{address} can't be dialled")]
    Dial {
        /// Whom.
        address: SocketAddr,
        /// Why.
        #[source]
        source: quinn::ConnectError,
    },
    /// Nobody answers there, or nobody who has an invitation out.
    #[error("nobody who has invited answers at {address}")]
    Unreachable {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: quinn::ConnectionError,
    },
    /// It took too long.
    #[error("{address} didn't finish within {:?}", crate::limits::JOIN_DEADLINE)]
    TimedOut {
        /// Where.
        address: SocketAddr,
    },
    /// The stream ended early, or what came isn't an answer.
    #[error("the node that was asked gave no whole answer")]
    Answer,
    /// Whoever answered isn't of the cluster that the token is for.
    #[error("whoever answered isn't of the cluster that the token is for; the secret wasn't told")]
    OtherAuthority,
    /// Whoever answered is of the cluster, and hasn't invited.
    #[error("{address} is another node than the one that has invited; the secret wasn't told")]
    OtherNode {
        /// Where.
        address: SocketAddr,
    },
    /// The node there knows no such invitation.
    #[error("the node that was asked knows no such invitation")]
    Unknown,
    /// Another node has used it.
    #[error("the invitation was used by another node")]
    Used,
    /// Its time is over.
    #[error("the invitation has expired")]
    Expired,
    /// The request isn't one.
    #[error("the node that was asked doesn't take the request")]
    Refused,
    /// A key or a request can't be made.
    #[error("no key or request can be made")]
    Key(#[from] rcgen::Error),
    /// What was given can't be used.
    #[error("the certificate that was given can't be used")]
    Certificate(#[from] CertificateError),
}

impl JoinError {
    /// Whether the same token may work a little later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Answer)
    }
}

/// Why a request for a certificate is refused at its signer.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("unknown")]
    Unknown,
    #[error("used")]
    Used,
    #[error("expired")]
    Expired,
    #[error("not a request")]
    Request(#[from] AuthorityError),
}

impl Refused {
    fn code(&self) -> u8 {
        match self {
            Self::Unknown => 1,
            Self::Used => 2,
            Self::Expired => 3,
            Self::Request(_) => 4,
        }
    }

    /// In one word.
    fn reason(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Used => "used",
            Self::Expired => "expired",
            Self::Request(_) => "malformed",
        }
    }

    fn to_join_error(code: u8) -> JoinError {
        match code {
            1 => JoinError::Unknown,
            2 => JoinError::Used,
            3 => JoinError::Expired,
            _ => JoinError::Refused,
        }
    }
}

fn hash(bytes: &[u8]) -> AuthorityHash {
    *NodeId::of_public_key(bytes).as_bytes()
}

/// Names as a certificate takes them.
fn names(invite: &Invite) -> Result<(), NameError> {
    Name::new(&invite.node)?;
    invite.roles.iter().try_for_each(|role| Name::new(role).map(|_| ()))
}
