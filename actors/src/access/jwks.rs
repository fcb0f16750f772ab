//! An issuer's keys (RFC 7517): read with bounds, found by discovery, and when to look again.

use std::collections::HashMap;
use std::path::PathBuf;

use axum::http::{Request, header};
use http_body_util::Full;
use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse,
    ThumbprintHash,
};
use jsonwebtoken::{Algorithm, DecodingKey};
use neuroflow_kernel::{Clock, Moment};
use neuroflow_sandbox::{Outbound, OutboundError, OutboundStream};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use serde_json::Value;

use super::Issuer;
use crate::audit::Digest;
use crate::audit::uses::{Decision, Uses};
use crate::exchange::{self, Place, USER_AGENT};
use crate::limits::{ISSUER_BYTES, ISSUER_DEADLINE, ISSUER_KEYS};

/// Bytes of an RSA key's modulus, at least: 2048 bits. Shorter ones can be broken.
const RSA_BYTES: usize = 256;

/// The keys of an issuer that can sign, by their ids.
#[derive(Debug, Default)]
pub(super) struct KeySet(HashMap<String, Key>);

/// A key, and what it's for.
pub(super) struct Key {
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) key: DecodingKey,
    /// Of the key itself (RFC 7638): another one may come to have its id.
    pub(super) thumbprint: String,
}

/// The key that a token was signed with, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Signer {
    pub(super) id: String,
    pub(super) algorithm: Algorithm,
    pub(super) thumbprint: String,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("algorithms", &self.algorithms).finish_non_exhaustive()
    }
}

/// Why a key set isn't taken.
///
/// ```
/// assert!(neuroflow_actors::KeySetError::Empty.to_string().contains("key"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeySetError {
    /// It isn't a key set.
    #[error("it isn't a JSON object with keys")]
    Json(#[from] serde_json::Error),
    /// None of its keys can be used.
    #[error("it has no key with an id that signs with RS, PS, ES or EdDSA")]
    Empty,
    /// It has more than any issuer needs.
    #[error("it has {count} keys; {ISSUER_KEYS} are read")]
    TooMany {
        /// Its keys.
        count: usize,
    },
    /// Two keys have the same id.
    #[error("two of its keys have the id {id:?}")]
    Twice {
        /// The id.
        id: String,
    },
}

#[derive(Deserialize)]
struct Raw {
    keys: Vec<Value>,
}

impl KeySet {
    /// Reads a key set. Keys for other purposes are passed over.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, KeySetError> {
        let Raw { keys } = serde_json::from_slice(bytes)?;
        if keys.len() > ISSUER_KEYS {
            return Err(KeySetError::TooMany { count: keys.len() });
        }
        let mut set = HashMap::new();
        for key in keys {
            let Ok(jwk) = serde_json::from_value::<Jwk>(key) else { continue };
            let Some((id, key)) = usable(&jwk) else { continue };
            if set.insert(id.clone(), key).is_some() {
                return Err(KeySetError::Twice { id });
            }
        }
        if set.is_empty() { Err(KeySetError::Empty) } else { Ok(Self(set)) }
    }

    pub(super) fn find(&self, id: &str) -> Option<&Key> {
        self.0.get(id)
    }

    /// Whether a key is still there, for what was signed with it.
    pub(super) fn has(&self, signer: &Signer) -> bool {
        self.find(&signer.id).is_some_and(|key| {
            key.thumbprint == signer.thumbprint && key.algorithms.contains(&signer.algorithm)
        })
    }

    /// Of which keys they are, whatever their order.
    pub(super) fn digest(&self) -> Digest {
        let mut keys: Vec<String> =
            self.0.iter().map(|(id, key)| format!("{id} {}\n", key.thumbprint)).collect();
        keys.sort_unstable();
        Digest::of(keys.concat().as_bytes())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

fn usable(jwk: &Jwk) -> Option<(String, Key)> {
    let common = &jwk.common;
    let id = common.key_id.clone()?;
    if common.public_key_use.as_ref().is_some_and(|it| *it != PublicKeyUse::Signature) {
        return None;
    }
    let verifies = |all: &Vec<KeyOperations>| all.contains(&KeyOperations::Verify);
    if common.key_operations.as_ref().is_some_and(|all| !verifies(all)) {
        return None;
    }
    let mut algorithms = possible(jwk)?;
    if let Some(declared) = common.key_algorithm {
        algorithms.retain(|algorithm| same(*algorithm, declared));
    }
    if algorithms.is_empty() {
        return None;
    }
    let key = DecodingKey::from_jwk(jwk).ok()?;
    let thumbprint = jwk.thumbprint(ThumbprintHash::SHA256).ok()?;
    Some((id, Key { algorithms, key, thumbprint }))
}

/// What a key of this type can sign with. A shared secret can be no public key.
fn possible(jwk: &Jwk) -> Option<Vec<Algorithm>> {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    match &jwk.algorithm {
        AlgorithmParameters::RSA(key) => {
            let modulus = URL_SAFE_NO_PAD.decode(key.n.trim_end_matches('=')).ok()?;
            let leading = modulus.iter().take_while(|byte| **byte == 0).count();
            let long = modulus.len().saturating_sub(leading) >= RSA_BYTES;
            long.then(|| {
                vec![
                    Algorithm::RS256,
                    Algorithm::RS384,
                    Algorithm::RS512,
                    Algorithm::PS256,
                    Algorithm::PS384,
                    Algorithm::PS512,
                ]
            })
        }
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => Some(vec![Algorithm::ES256]),
            EllipticCurve::P384 => Some(vec![Algorithm::ES384]),
            _ => None,
        },
        AlgorithmParameters::OctetKeyPair(key) => match key.curve {
            EllipticCurve::Ed25519 => Some(vec![Algorithm::EdDSA]),
            _ => None,
        },
        _ => None,
    }
}

fn same(algorithm: Algorithm, declared: KeyAlgorithm) -> bool {
    let name = declared.to_string();
    name == format!("{algorithm:?}")
}

/// Why an issuer's keys can't be had.
///
/// ```
/// use neuroflow_actors::DiscoveryError;
/// let error = DiscoveryError::Status { url: "https://id.example/jwks".into(), status: 500 };
/// assert!(error.to_string().contains("500"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiscoveryError {
    /// The URL isn't one that is asked.
    #[error("{url:?} isn't a URL such as https://id.example.org/path, without user or query")]
    Url {
        /// The URL.
        url: String,
    },
    /// The file of its CA can't be read.
    #[error("the file of the issuer's CA can't be read")]
    File(#[from] super::FileError),
    /// The file of its CA isn't PEM.
    #[error("{} isn't PEM", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// The file of its CA has no certificate in it.
    #[error("{} has no certificate in it", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The certificates of its CA can't be trusted.
    #[error("the certificates of {} can't be used", path.display())]
    Trust {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: OutboundError,
    },
    /// There is no connection.
    #[error("{url} can't be reached")]
    Connect {
        /// The URL.
        url: String,
        /// Why.
        #[source]
        source: OutboundError,
    },
    /// The answer isn't HTTP.
    #[error("{url} didn't answer")]
    Http {
        /// The URL.
        url: String,
        /// Why.
        #[source]
        source: hyper::Error,
    },
    /// It took too long.
    #[error("{url} didn't answer within {ISSUER_DEADLINE:?}")]
    TimedOut {
        /// The URL.
        url: String,
    },
    /// Another status than 200. A redirect isn't followed: the document's place is fixed.
    #[error("{url} answered with status {status}")]
    Status {
        /// The URL.
        url: String,
        /// The status.
        status: u16,
    },
    /// The answer is too large, or was cut off.
    #[error("the answer of {url} has more than {ISSUER_BYTES} bytes or was cut off")]
    Body {
        /// The URL.
        url: String,
    },
    /// Not a discovery document.
    #[error("{url} isn't a discovery document")]
    Document {
        /// The URL.
        url: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The document is another issuer's.
    #[error("the discovery document at {url} is of the issuer {found:?}")]
    OtherIssuer {
        /// The URL.
        url: String,
        /// Whose.
        found: String,
    },
    /// The keys aren't a set of keys.
    #[error("the keys at {url} can't be taken over")]
    Keys {
        /// The URL.
        url: String,
        /// Why.
        #[source]
        source: KeySetError,
    },
}

#[derive(Deserialize)]
struct Document {
    issuer: String,
    jwks_uri: String,
}

/// Reads an issuer's keys, by discovery unless it's known where they are.
pub(super) async fn fetch(
    issuer: &Issuer,
    clock: &Clock,
    uses: &Uses,
) -> Result<KeySet, DiscoveryError> {
    let deadline = clock.now() + ISSUER_DEADLINE;
    let outbound = &outbound(issuer, clock).await?;
    let url = match &issuer.keys_url {
        Some(url) => url.clone(),
        None => discover(issuer, outbound, clock, uses, deadline).await?,
    };
    let bytes = get(&url, outbound, clock, uses, deadline).await?;
    KeySet::parse(&bytes).map_err(|source| DiscoveryError::Keys { url, source })
}

/// The way to the issuer. Its CA is read each time, so that a changed one counts.
async fn outbound(issuer: &Issuer, clock: &Clock) -> Result<Outbound, DiscoveryError> {
    let outbound = Outbound::new(clock.clone()).allow_private(issuer.allow_private);
    let Some(path) = issuer.ca.clone() else { return Ok(outbound) };
    let own = path.clone();
    let read = tokio::task::spawn_blocking(move || super::read_file(&own));
    // It doesn't panic and nobody cancels it.
    let Ok(read) = read.await else { return Ok(outbound) };
    let certificates = CertificateDer::pem_slice_iter(&read?.bytes)
        .map(|certificate| certificate.map(|der| der.to_vec()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| DiscoveryError::Pem { path: path.clone(), source })?;
    if certificates.is_empty() {
        return Err(DiscoveryError::NoCertificate { path });
    }
    outbound.trust(&certificates).map_err(|source| DiscoveryError::Trust { path, source })
}

/// Where an issuer's document says that its keys are.
async fn discover(
    issuer: &Issuer,
    outbound: &Outbound,
    clock: &Clock,
    uses: &Uses,
    deadline: Moment,
) -> Result<String, DiscoveryError> {
    let base = issuer.url.trim_end_matches('/');
    let url = format!("{base}/.well-known/openid-configuration");
    let bytes = get(&url, outbound, clock, uses, deadline).await?;
    let document: Document = serde_json::from_slice(&bytes)
        .map_err(|source| DiscoveryError::Document { url: url.clone(), source })?;
    if document.issuer == issuer.url {
        Ok(document.jwks_uri)
    } else {
        Err(DiscoveryError::OtherIssuer { url, found: document.issuer })
    }
}

/// Whether an issuer's addresses can be asked at all.
pub(super) fn check(issuer: &Issuer) -> Result<(), DiscoveryError> {
    let urls = [Some(&issuer.url), issuer.keys_url.as_ref()];
    urls.into_iter().flatten().try_for_each(|url| place(url, issuer.allow_private).map(drop))
}

/// Takes a URL apart. `http` only where private addresses are allowed, which is for tests.
fn place(url: &str, allow_http: bool) -> Result<Place, DiscoveryError> {
    let place = Place::parse(url).ok();
    place
        .filter(|place| (place.is_tls() || allow_http) && !place.has_query())
        .ok_or_else(|| DiscoveryError::Url { url: url.to_owned() })
}

async fn get(
    url: &str,
    outbound: &Outbound,
    clock: &Clock,
    uses: &Uses,
    deadline: Moment,
) -> Result<Vec<u8>, DiscoveryError> {
    let place = place(url, !outbound.is_public_only())?;
    let stream = outbound.connect(place.host(), place.port(), place.is_tls(), deadline).await;
    uses.connected(place.host(), place.port(), Decision::from(&stream));
    let stream =
        stream.map_err(|source| DiscoveryError::Connect { url: url.to_owned(), source })?;
    let asked = clock.before(deadline, read(url, &place, stream)).await;
    asked.map_err(|_elapsed| DiscoveryError::TimedOut { url: url.to_owned() })?
}

async fn read(
    url: &str,
    place: &Place,
    stream: Box<dyn OutboundStream>,
) -> Result<Vec<u8>, DiscoveryError> {
    let request = Request::get(place.path())
        .header(header::HOST, place.authority())
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, USER_AGENT)
        .body(Full::default())
        .map_err(|_other| DiscoveryError::Url { url: url.to_owned() })?;
    let failed = |source| DiscoveryError::Http { url: url.to_owned(), source };
    let response = exchange::ask(stream, request).await.map_err(failed)?;
    let status = response.status().as_u16();
    if status != 200 {
        return Err(DiscoveryError::Status { url: url.to_owned(), status });
    }
    let body = response.into_body().whole(ISSUER_BYTES).await;
    body.map_err(|_cut| DiscoveryError::Body { url: url.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(keys: &Value) -> Result<KeySet, KeySetError> {
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes())
    }

    fn ec(change: &Value) -> Value {
        let mut key = json!({
            "kty": "EC", "crv": "P-256", "kid": "a",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        });
        for (name, value) in change.as_object().unwrap() {
            key[name] = value.clone();
        }
        key
    }

    #[test]
    fn keys_that_cannot_sign_are_passed_over() {
        assert_eq!(parse(&json!([ec(&json!({}))])).unwrap().len(), 1);
        for key in [
            json!({ "kty": "oct", "kid": "a", "k": "c2VjcmV0" }),
            json!({ "kty": "RSA", "kid": "a", "e": "AQAB", "n": "AQAB" }),
            json!({ "kty": "new", "kid": "a" }),
            ec(&json!({ "use": "enc" })),
            ec(&json!({ "key_ops": ["encrypt"] })),
            ec(&json!({ "alg": "RS256" })),
            ec(&json!({ "crv": "P-521" })),
            json!(7),
        ] {
            assert!(matches!(parse(&json!([key])), Err(KeySetError::Empty)), "{key}");
        }
        let mut nameless = ec(&json!({}));
        nameless.as_object_mut().unwrap().remove("kid");
        assert!(matches!(parse(&json!([nameless])), Err(KeySetError::Empty)));
    }

    #[test]
    fn a_key_is_there_as_long_as_id_algorithm_and_the_key_itself_are() {
        let signer = |set: &KeySet, id: &str| Signer {
            id: id.to_owned(),
            algorithm: Algorithm::ES256,
            thumbprint: set.find(id).unwrap().thumbprint.clone(),
        };
        let set = parse(&json!([ec(&json!({}))])).unwrap();
        let signer = signer(&set, "a");
        assert!(set.has(&signer));
        // What else is said of a key may change.
        assert!(
            parse(&json!([ec(&json!({ "alg": "ES256", "use": "sig" }))])).unwrap().has(&signer)
        );
        let renamed = parse(&json!([ec(&json!({ "kid": "b" }))])).unwrap();
        let replaced = parse(&json!([ec(&json!({
            "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
            "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
        }))]))
        .unwrap();
        assert!(!renamed.has(&signer) && !replaced.has(&signer));
        assert!(!set.has(&Signer { algorithm: Algorithm::ES384, ..signer }));
    }

    #[test]
    fn a_set_has_bounds_and_each_id_once() {
        let two = json!([ec(&json!({})), ec(&json!({}))]);
        assert!(matches!(parse(&two), Err(KeySetError::Twice { .. })));
        let many = vec![json!({}); ISSUER_KEYS + 1];
        assert!(matches!(parse(&json!(many)), Err(KeySetError::TooMany { .. })));
        assert!(matches!(KeySet::parse(b"[]"), Err(KeySetError::Json(_))));
    }

    #[test]
    fn only_plain_https_urls_are_asked() {
        for url in ["", "id.example", "http://id.example", "https://u@id.example", "https://a/?b"] {
            let issuer = Issuer::new(url, "neuroflow");
            assert!(matches!(check(&issuer), Err(DiscoveryError::Url { .. })), "{url}");
        }
        assert!(check(&Issuer::new("https://id.example:8443/realm", "neuroflow")).is_ok());
        let mut private = Issuer::new("http://127.0.0.1:1", "neuroflow");
        private.allow_private = true;
        assert!(check(&private).is_ok());
    }
}
