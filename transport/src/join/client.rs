//! The node that joins: makes its key, finds out whom it talks to, and asks for its certificate.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use neuroflow_kernel::Clock;
use quinn::crypto::rustls::QuicClientConfig;
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::wire::{Kind, hear, say};
use super::{JoinError, JoinToken, Refused, hash};
use crate::identity::{Credential, Subject, Trust, guest_config, judge};
use crate::limits::JOIN_DEADLINE;

/// What a node has once it has joined.
///
/// ```
/// use neuroflow_transport::{Joined, LinksConfig};
/// fn links(joined: Joined, listen: std::net::SocketAddr) -> LinksConfig {
///     LinksConfig::new(listen, joined.credential, joined.trust)
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Joined {
    /// Its key and certificate.
    pub credential: Credential,
    /// Whom it trusts.
    pub trust: Trust,
    /// The authority's certificate, as written to a file.
    pub authority_pem: String,
}

/// Joins the cluster that a token is for.
///
/// ```
/// use neuroflow_kernel::Clock;
/// use neuroflow_transport::{JoinError, Joined, join};
/// async fn joins(token: &str) -> Result<Joined, JoinError> {
///     join(&token.parse()?, &Clock::system()).await
/// }
/// ```
///
/// # Errors
/// Says whether the token was refused and why, or what kept the two from talking.
pub async fn join(token: &JoinToken, clock: &Clock) -> Result<Joined, JoinError> {
    let address = token.address;
    let local: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let mut endpoint = quinn::Endpoint::client(local).map_err(JoinError::Socket)?;
    let config = QuicClientConfig::try_from(guest_config(super::wire::ALPN)?)?;
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(config)));
    let deadline = clock.now() + JOIN_DEADLINE;
    let joined = clock.before(deadline, ask(&endpoint, token)).await;
    endpoint.close(quinn::VarInt::from_u32(0), b"");
    let _silent = clock.before(clock.now() + FAREWELL, endpoint.wait_idle()).await;
    let joined = joined.unwrap_or(Err(JoinError::TimedOut { address }));
    // Once nobody is invited, nobody answers.
    match joined {
        Err(error) if error.is_retryable() && clock.unix_ms() >= token.expires_ms => {
            Err(JoinError::Expired)
        }
        joined => joined,
    }
}

/// Time for the last packet, without which the other end waits for its deadline.
const FAREWELL: std::time::Duration = std::time::Duration::from_millis(500);

async fn ask(endpoint: &quinn::Endpoint, token: &JoinToken) -> Result<Joined, JoinError> {
    let address = token.address;
    let dial = |source| JoinError::Dial { address, source };
    let unreachable = |source| JoinError::Unreachable { address, source };
    let connecting = endpoint.connect(address, "any.node").map_err(dial)?;
    let connection = connecting.await.map_err(unreachable)?;
    let (mut send, mut recv) = connection.open_bi().await.map_err(unreachable)?;
    let closed = || match connection.close_reason() {
        Some(source) => unreachable(source),
        None => JoinError::Answer,
    };
    say(&mut send, Kind::Hello, &[]).await.ok_or_else(closed)?;
    let (_, authority) = hear(&mut recv, &[Kind::Authority]).await.ok_or_else(closed)?;
    let authority_pem = String::from_utf8(authority).map_err(|_other| JoinError::Answer)?;
    let certificate = CertificateDer::from_pem_slice(authority_pem.as_bytes());
    let certificate = certificate.map_err(|_other| JoinError::OtherAuthority)?;
    if hash(&certificate) != token.authority {
        return Err(JoinError::OtherAuthority);
    }
    let trust = Trust::from_pem(&authority_pem)?;
    // Whoever sent it is of the cluster only if it's signed by it: certificates are public.
    let chain = connection.peer_identity();
    let chain = chain.and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    let chain =
        chain.filter(|chain| judge(&trust, chain).is_ok()).ok_or(JoinError::OtherAuthority)?;
    // Any member, also one that was shut out, has a certificate of the cluster. Who has invited has its key as well.
    let leaf = chain.first().map(Subject::of).transpose()?;
    if leaf.is_none_or(|leaf| leaf.id != token.inviter) {
        return Err(JoinError::OtherNode { address });
    }
    let key = KeyPair::generate_for(&PKCS_ED25519)?;
    let request = CertificateParams::default().serialize_request(&key)?;
    let request = [&token.secret[..], request.der()].concat();
    say(&mut send, Kind::Request, &request).await.ok_or_else(closed)?;
    let answers = [Kind::Certificate, Kind::Refused];
    let answer = match hear(&mut recv, &answers).await.ok_or_else(closed)? {
        (Kind::Certificate, answer) => answer,
        (_, why) => {
            return Err(Refused::to_join_error(why.first().copied().unwrap_or_default()));
        }
    };
    let certificate = String::from_utf8(answer).map_err(|_other| JoinError::Answer)?;
    let credential = Credential::from_pem(&certificate, &key.serialize_pem())?;
    Ok(Joined { credential, trust, authority_pem })
}
