//! The contract of tokens for MCP servers over HTTP (OAuth 2.1): whose they are, who issues them, and
//! why there is none.
//!
//! The exchange itself is the protocol's library's; every request of it goes out through our own rules.

mod authorizer;
mod kept;
mod proof;
mod road;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use rmcp::transport::AuthError;

pub(super) use authorizer::Authorizer;
pub use kept::KeptTokenError;
pub(super) use road::Road;

/// How tokens for an MCP server are had. Nothing is asked for before the server demands one.
///
/// ```
/// use neuroflow_actors::{AuthorizationServer, ClientProof, OAuth, OAuthGrant};
/// let by = AuthorizationServer::Only("https://id.example.com".into());
/// let client = "neuroflow".into();
/// let proof = ClientProof::Secret("s3cr3t".into());
/// let oauth = OAuth::new(by, OAuthGrant::ClientCredentials { client, proof }).scopes(["read"]);
/// assert!(!format!("{oauth:?}").contains("s3cr3t"));
/// ```
#[derive(Clone, Debug)]
pub struct OAuth {
    server: AuthorizationServer,
    grant: OAuthGrant,
    scopes: Vec<String>,
    allow_private: bool,
}

impl OAuth {
    /// Tokens of this server by this grant, with the scopes that the MCP server asks for.
    pub fn new(server: AuthorizationServer, grant: OAuthGrant) -> Self {
        Self { server, grant, scopes: Vec::new(), allow_private: false }
    }

    /// Asks for these scopes in place of those that the MCP server names. What it demands beyond them
    /// later is asked for as well.
    #[must_use]
    pub fn scopes(mut self, scopes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.scopes = scopes.into_iter().map(Into::into).collect();
        self
    }

    /// Whether authorization servers may have private addresses and speak in clear: for tests, and for
    /// those of one's own network.
    #[must_use]
    pub fn allow_private(mut self, allow: bool) -> Self {
        self.allow_private = allow;
        self
    }

    pub(super) fn allows_private(&self) -> bool {
        self.allow_private
    }

    /// Whether a key that is to prove something can, and what is kept is what a node has kept.
    pub(super) fn check(&self) -> Result<(), OAuthError> {
        match &self.grant {
            OAuthGrant::ClientCredentials {
                proof: ClientProof::Key { pem, algorithm }, ..
            } => proof::key(pem, *algorithm).map(drop),
            OAuthGrant::RefreshToken { client, token, kept: Some(file), .. } => {
                kept::Refresh::new(client, token, Some(file)).token()?;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Which authorization server is shown what proves who the client is.
///
/// ```
/// use neuroflow_actors::AuthorizationServer;
/// let ours = AuthorizationServer::Only("https://id.example.com".into());
/// assert_ne!(ours, AuthorizationServer::Named);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuthorizationServer {
    /// This issuer and no other, whatever the MCP server says.
    Only(String),
    /// Whichever the MCP server names. A secret of the client's is then shown to whomever that is.
    Named,
}

impl AuthorizationServer {
    /// Whether the issuer that was found may be shown what proves who the client is.
    fn trust(&self, found: Option<&str>) -> Result<(), OAuthError> {
        match self {
            Self::Only(wanted) if found != Some(wanted.as_str()) => {
                let found = found.map(ToOwned::to_owned);
                Err(OAuthError::OtherIssuer { wanted: wanted.clone(), found })
            }
            Self::Only(_) | Self::Named => Ok(()),
        }
    }
}

/// What a token is given for.
///
/// ```
/// use neuroflow_actors::{ClientProof, OAuthGrant};
/// let grant = OAuthGrant::ClientCredentials {
///     client: "neuroflow".into(),
///     proof: ClientProof::Secret("s3cr3t".into()),
/// };
/// assert!(!format!("{grant:?}").contains("s3cr3t"));
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub enum OAuthGrant {
    /// For being who the client is: there is no person.
    ClientCredentials {
        /// The client's id.
        client: String,
        /// What shows that it's the client.
        proof: ClientProof,
    },
    /// For a refresh token that somebody was given before. Servers may replace it at each use: what takes
    /// its place is lost with the node, unless it's kept.
    RefreshToken {
        /// The id of the client that it was given to.
        client: String,
        /// That client's secret, if it has one.
        secret: Option<String>,
        /// The token.
        token: String,
        /// The file for what takes its place, which the node makes, readable by its own user only. Each
        /// node needs its own.
        kept: Option<PathBuf>,
    },
    /// For a person's consent, by a code and its proof key (PKCE).
    Consent {
        /// How the person is asked.
        consent: Arc<dyn Consent>,
        /// How the client is known.
        registration: Registration,
    },
}

impl fmt::Debug for OAuthGrant {
    /// Without secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientCredentials { client, proof } => f
                .debug_struct("ClientCredentials")
                .field("client", client)
                .field("proof", proof)
                .finish(),
            Self::RefreshToken { client, .. } => {
                f.debug_struct("RefreshToken").field("client", client).finish_non_exhaustive()
            }
            Self::Consent { consent, registration } => f
                .debug_struct("Consent")
                .field("consent", consent)
                .field("registration", registration)
                .finish(),
        }
    }
}

/// What shows that the client is who it says.
///
/// ```
/// use neuroflow_actors::ClientProof;
/// assert_eq!(format!("{:?}", ClientProof::Secret("s3cr3t".into())), "Secret(..)");
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub enum ClientProof {
    /// A secret that it shares with the authorization server.
    Secret(String),
    /// A key of its own, with which it signs an assertion (`private_key_jwt`).
    Key {
        /// The private key, PEM.
        pem: String,
        /// What it signs with.
        algorithm: ProofAlgorithm,
    },
}

impl fmt::Debug for ClientProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret(_) => f.write_str("Secret(..)"),
            Self::Key { algorithm, .. } => write!(f, "Key({algorithm:?}, ..)"),
        }
    }
}

/// What a client's key signs with.
///
/// ```
/// use neuroflow_actors::ProofAlgorithm;
/// assert_eq!(ProofAlgorithm::from_name("ES256"), Some(ProofAlgorithm::Es256));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProofAlgorithm {
    /// RSA with SHA-256.
    Rs256,
    /// ECDSA on P-256.
    Es256,
    /// ECDSA on P-384.
    Es384,
}

impl ProofAlgorithm {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Rs256, Self::Es256, Self::Es384];

    /// Its name in JOSE.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
        }
    }

    /// The algorithm of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }
}

/// How an authorization server knows the client that a person consents to.
///
/// ```
/// use neuroflow_actors::Registration;
/// let shown = Registration::Document { url: "https://app.example.com/client.json".into() };
/// assert!(format!("{shown:?}").contains("client.json"));
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub enum Registration {
    /// It was registered before.
    Known {
        /// Its id.
        client: String,
        /// Its secret, if it has one.
        secret: Option<String>,
    },
    /// By the document at this URL, which says what the client is. Servers that don't read such
    /// documents are asked to register it.
    Document {
        /// The URL.
        url: String,
    },
    /// It registers itself by this name.
    Dynamic {
        /// The name.
        name: String,
    },
}

impl fmt::Debug for Registration {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known { client, .. } => {
                f.debug_struct("Known").field("client", client).finish_non_exhaustive()
            }
            Self::Document { url } => f.debug_struct("Document").field("url", url).finish(),
            Self::Dynamic { name } => f.debug_struct("Dynamic").field("name", name).finish(),
        }
    }
}

/// What comes of asking a person.
///
/// ```
/// use neuroflow_actors::{Asking, ConsentError};
/// fn nobody() -> Asking<'static> {
///     Box::pin(async { Err(ConsentError::new("nobody is there")) })
/// }
/// # let _ = nobody();
/// ```
pub type Asking<'a> = BoxFuture<'a, Result<String, ConsentError>>;

/// Takes a person to the authorization server's page: opens a browser, and waits for what comes back to
/// the redirect URI. It's the host program's, and its requests are the person's.
///
/// ```
/// use neuroflow_actors::{Asking, Consent, ConsentError};
/// #[derive(Debug)]
/// struct Printed;
/// impl Consent for Printed {
///     fn redirect_uri(&self) -> &str {
///         "http://127.0.0.1:7777/callback"
///     }
///     fn ask<'a>(&'a self, url: &'a str) -> Asking<'a> {
///         Box::pin(async move { Err(ConsentError::new(format!("please visit {url}"))) })
///     }
/// }
/// assert!(Printed.redirect_uri().starts_with("http://127.0.0.1"));
/// ```
pub trait Consent: Send + Sync + fmt::Debug + 'static {
    /// Where the authorization server sends the person back to.
    fn redirect_uri(&self) -> &str;

    /// Shows the page at this URL, and gives the whole URL that the person was sent back to.
    fn ask<'a>(&'a self, url: &'a str) -> Asking<'a>;
}

/// Why there is no consent.
///
/// ```
/// let error = neuroflow_actors::ConsentError::new("the window was closed");
/// assert!(std::error::Error::source(&error).is_some());
/// ```
#[derive(Debug, thiserror::Error)]
#[error("nobody has consented")]
pub struct ConsentError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl ConsentError {
    /// With its cause.
    pub fn new(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(cause.into())
    }
}

/// Why there is no token for an MCP server.
///
/// ```
/// use neuroflow_actors::OAuthError;
/// let error = OAuthError::OtherIssuer {
///     wanted: "https://id.example.com".into(),
///     found: Some("https://id.example.net".into()),
/// };
/// assert_eq!(error.code(), "other_issuer");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OAuthError {
    /// The exchange failed, or what was said in it can't be believed.
    #[error("the exchange with the authorization server failed")]
    Exchange(#[source] Box<AuthError>),
    /// The MCP server names somebody whom the client isn't to trust.
    #[error(
        "the server names {found:?} as its authorization server, and only {wanted:?} is trusted"
    )]
    OtherIssuer {
        /// Who is trusted.
        wanted: String,
        /// Who was named; none if the server names nobody.
        found: Option<String>,
    },
    /// The person doesn't consent.
    #[error("no consent")]
    Consent(#[from] ConsentError),
    /// The client's key can't be used.
    #[error("the client's key isn't a private key (PEM) for {}", algorithm.name())]
    Key {
        /// What it should sign with.
        algorithm: ProofAlgorithm,
        /// Why.
        #[source]
        source: jsonwebtoken::errors::Error,
    },
    /// The authorization server takes no such proof.
    #[error("the authorization server takes no assertion signed with {}", algorithm.name())]
    Unsupported {
        /// What was offered.
        algorithm: ProofAlgorithm,
    },
    /// The refresh token that was kept can't be used.
    #[error("the kept refresh token can't be used")]
    Kept(#[from] KeptTokenError),
    /// The token's request can't be made, or isn't answered.
    #[error("the authorization server can't be asked for a token")]
    Request(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The answer isn't a token.
    #[error("the authorization server refuses a token with status {status} ({error:?})")]
    Refused {
        /// The status.
        status: u16,
        /// Its word for why, such as `invalid_client`.
        error: String,
    },
    /// The answer can't be read.
    #[error("the authorization server's answer isn't a token")]
    Answer(#[source] serde_json::Error),
    /// What was asked for again is what was asked for before.
    #[error("the server wants the scopes {scopes:?}, which were asked for already")]
    Scopes {
        /// The scopes.
        scopes: String,
    },
    /// It took too long.
    #[error("there was no token in time")]
    Late,
}

impl From<AuthError> for OAuthError {
    fn from(error: AuthError) -> Self {
        Self::Exchange(Box::new(error))
    }
}

impl OAuthError {
    /// A stable word for logs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Exchange(_) => "exchange",
            Self::OtherIssuer { .. } => "other_issuer",
            Self::Consent(_) => "consent",
            Self::Key { .. } => "key",
            Self::Unsupported { .. } => "unsupported",
            Self::Kept(_) => "kept",
            Self::Request(_) => "request",
            Self::Refused { .. } => "refused",
            Self::Answer(_) => "answer",
            Self::Scopes { .. } => "scopes",
            Self::Late => "late",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_issuer_that_is_named_is_shown_a_secret() {
        let ours = AuthorizationServer::Only("https://id.example.com".to_owned());
        assert!(ours.trust(Some("https://id.example.com")).is_ok());
        for other in [None, Some("https://id.example.com/"), Some("https://id.example.net")] {
            assert_eq!(ours.trust(other).unwrap_err().code(), "other_issuer");
        }
        assert!(AuthorizationServer::Named.trust(None).is_ok());
    }
}
