//! What a request brings to say who asks, and why that isn't enough.

use super::certificate::PeerCertificate;
use crate::limits::TOKEN_BYTES;

/// What a request brings.
///
/// ```
/// use neuroflow_actors::Credential;
/// let credential = Credential::read(&["Bearer nf_abc"], None)?;
/// assert!(matches!(credential, Credential::Bearer("nf_abc")));
/// # Ok::<(), neuroflow_actors::AuthError>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Credential<'a> {
    /// Nothing.
    None,
    /// A bearer token.
    Bearer(&'a str),
    /// The certificate of the connection.
    Certificate(&'a PeerCertificate),
}

impl<'a> Credential<'a> {
    /// From the values of the `Authorization` header and the certificate of the connection. A token
    /// counts before a certificate: it's what the client chose for this request.
    ///
    /// # Errors
    /// Says what can't be read.
    pub fn read(
        authorization: &[&'a str],
        certificate: Option<&'a PeerCertificate>,
    ) -> Result<Self, AuthError> {
        let value = match authorization {
            [] => return Ok(certificate.map_or(Self::None, Self::Certificate)),
            [value] => value,
            // Which of them another reader would take is anybody's guess.
            _ => return Err(AuthError::Ambiguous),
        };
        let (scheme, token) = value.split_once(' ').ok_or(AuthError::Scheme)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(AuthError::Scheme);
        }
        let token = token.trim_matches(' ');
        if token.len() > TOKEN_BYTES {
            return Err(AuthError::TooLong);
        }
        if token.is_empty() || !token.bytes().all(is_token_byte) {
            return Err(AuthError::Malformed);
        }
        Ok(Self::Bearer(token))
    }
}

/// RFC 6750, section 2.1.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte)
}

/// Why a request's credential doesn't say who asks.
///
/// ```
/// use neuroflow_actors::AuthError;
/// assert_eq!(AuthError::Expired.code(), "expired");
/// assert_eq!(AuthError::Missing.to_string(), "a credential is needed");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// There is none.
    #[error("a credential is needed")]
    Missing,
    /// Several `Authorization` headers.
    #[error("there are several Authorization headers; send one")]
    Ambiguous,
    /// Not `Bearer`.
    #[error("the Authorization header must be Bearer and a token")]
    Scheme,
    /// Not a token.
    #[error("the token has characters that no token has")]
    Malformed,
    /// Longer than any token of ours.
    #[error("the token has more than {TOKEN_BYTES} bytes")]
    TooLong,
    /// Nobody has it.
    #[error("the token isn't known")]
    UnknownToken,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// A JWT that isn't valid.
    #[cfg(feature = "access")]
    #[error("{0}")]
    Jwt(#[from] super::jwt::JwtError),
    /// The certificate names nobody.
    #[error("the client certificate can't be used")]
    Certificate(#[from] super::certificate::CertificateError),
    /// The certificate's time is over, while its connection was open.
    #[error("the client certificate has expired; connect again with another")]
    CertificateExpired,
    /// A kind of credential that isn't taken here.
    #[error("client certificates aren't taken here; send a token")]
    CertificateNotTaken,
    /// The files and keys that decide aren't there yet.
    #[error("access isn't ready yet; try again")]
    NotReady,
}

impl AuthError {
    /// A stable word for logs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Ambiguous => "ambiguous",
            Self::Scheme => "scheme",
            Self::Malformed => "malformed",
            Self::TooLong => "too_long",
            Self::UnknownToken => "unknown_token",
            Self::Expired => "expired",
            #[cfg(feature = "access")]
            Self::Jwt(error) => error.code(),
            Self::Certificate(_) => "certificate",
            Self::CertificateExpired => "certificate_expired",
            Self::CertificateNotTaken => "certificate_not_taken",
            Self::NotReady => "not_ready",
        }
    }

    /// The `error` of the challenge (RFC 6750, section 3.1); none if nothing was sent.
    pub fn challenge(&self) -> Option<&'static str> {
        match self {
            Self::Missing => None,
            Self::Ambiguous | Self::Scheme | Self::Malformed | Self::TooLong => {
                Some("invalid_request")
            }
            _ => Some("invalid_token"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bearer_token_is_read_and_all_else_is_refused() {
        let read = |values: &[&'static str]| Credential::read(values, None);
        assert!(matches!(read(&[]), Ok(Credential::None)));
        assert!(matches!(read(&["bearer  a.b-c"]), Ok(Credential::Bearer("a.b-c"))));
        assert!(matches!(read(&["Bearer a", "Bearer a"]), Err(AuthError::Ambiguous)));
        assert!(matches!(read(&["Basic YTpi"]), Err(AuthError::Scheme)));
        assert!(matches!(read(&["Bearer"]), Err(AuthError::Scheme)));
        assert!(matches!(read(&["Bearer "]), Err(AuthError::Malformed)));
        assert!(matches!(read(&["Bearer a, Bearer b"]), Err(AuthError::Malformed)));
        let long: &str = format!("Bearer {}", "a".repeat(TOKEN_BYTES + 1)).leak();
        assert!(matches!(read(&[long]), Err(AuthError::TooLong)));
    }
}
