//! Tokens of an issuer (JWS in compact form, RFC 7515 and 7519), judged without I/O and clock.
//!
//! The header says which key and algorithm it wants; the key says which algorithms it's for. Only an
//! algorithm that both name is tried, and never one with a shared secret. So neither `none` nor an
//! HMAC over a public key is a signature here.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Issuer;
use super::jwks::{KeySet, Signer};
use super::principal::Principal;
use crate::limits::{CLAIM_BYTES, GROUPS, TOKEN_LIFE};

/// Why a JWT isn't believed.
///
/// ```
/// use neuroflow_actors::JwtError;
/// assert_eq!(JwtError::Algorithm.code(), "algorithm");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JwtError {
    /// Not three parts, or not of base64url and JSON.
    #[error("the token isn't a JWT")]
    Malformed,
    /// `none`, one with a shared secret, or one that its key isn't for.
    #[error("the token's algorithm isn't taken; sign it with RS, PS, ES or EdDSA")]
    Algorithm,
    /// A kind of JWT that isn't for access, or an extension that has to be understood.
    #[error("the token is of another type")]
    Type,
    /// It doesn't say which key has signed it.
    #[error("the token names no key (kid)")]
    NoKeyId,
    /// The issuer has no such key.
    #[error("the token's key isn't among its issuer's")]
    UnknownKey,
    /// Somebody else has signed it, or it was changed.
    #[error("the token's signature isn't valid")]
    Signature,
    /// Another issuer.
    #[error("the token is from another issuer")]
    Issuer,
    /// It's meant for others.
    #[error("the token is for another audience")]
    Audience,
    /// No subject.
    #[error("the token has no subject")]
    Subject,
    /// It doesn't say when it ends.
    #[error("the token doesn't say when it expires")]
    NoExpiry,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// It's valid later.
    #[error("the token isn't valid yet")]
    NotYet,
    /// It was issued in the future.
    #[error("the token was issued in the future")]
    IssuedLater,
    /// It's valid for longer than is believed.
    #[error("the token is valid for more than {TOKEN_LIFE:?}")]
    TooLongLived,
    /// A claim is of another type or too long.
    #[error("a claim of the token isn't what it should be")]
    Claim,
}

impl JwtError {
    /// A stable word for logs and metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Algorithm => "algorithm",
            Self::Type => "type",
            Self::NoKeyId => "no_key_id",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Subject => "subject",
            Self::NoExpiry => "no_expiry",
            Self::Expired => "expired",
            Self::NotYet => "not_yet",
            Self::IssuedLater => "issued_later",
            Self::TooLongLived => "too_long_lived",
            Self::Claim => "claim",
        }
    }
}

/// The algorithms that are taken: a list, so that a new one of the library isn't.
const ALGORITHMS: [(&str, Algorithm); 9] = [
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];

#[derive(Deserialize)]
struct Head {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<Value>,
}

/// A token whose signature has been checked and whose claims hold now.
#[derive(Clone, Debug)]
pub(super) struct Verified {
    pub(super) principal: Principal,
    /// From then on it has to be refused; since the Unix epoch.
    pub(super) until: Duration,
    /// Its issuer may take that back earlier.
    pub(super) signer: Arc<Signer>,
}

/// Whether it has the form of a JWT.
pub(super) fn is_jwt(token: &str) -> bool {
    token.bytes().filter(|byte| *byte == b'.').count() == 2
}

/// Checks signature and claims. `now` is the time since the Unix epoch.
pub(super) fn verify(
    token: &str,
    keys: &KeySet,
    issuer: &Issuer,
    now: Duration,
) -> Result<Verified, JwtError> {
    let (message, signature) = token.rsplit_once('.').ok_or(JwtError::Malformed)?;
    let (head, claims) = message.split_once('.').ok_or(JwtError::Malformed)?;
    if claims.contains('.') {
        return Err(JwtError::Malformed);
    }
    let head: Head = decode(head)?;
    let named = ALGORITHMS.iter().find(|(name, _)| *name == head.alg);
    let (_, algorithm) = named.ok_or(JwtError::Algorithm)?;
    // A client that must understand an extension to trust the token doesn't, if it knows none.
    let types = ["jwt", "at+jwt", "application/at+jwt"];
    let typ = head.typ.as_deref().map(str::to_ascii_lowercase);
    if head.crit.is_some() || typ.is_some_and(|typ| !types.contains(&typ.as_str())) {
        return Err(JwtError::Type);
    }
    let kid = head.kid.ok_or(JwtError::NoKeyId)?;
    let key = keys.find(&kid).ok_or(JwtError::UnknownKey)?;
    if !key.algorithms.contains(algorithm) {
        return Err(JwtError::Algorithm);
    }
    let signed = jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key.key, *algorithm);
    if !signed.is_ok_and(|is_valid| is_valid) {
        return Err(JwtError::Signature);
    }
    let signer = Signer { id: kid, algorithm: *algorithm, thumbprint: key.thumbprint.clone() };
    let (principal, until) = judge(&decode(claims)?, issuer, now)?;
    Ok(Verified { principal, until, signer: Arc::new(signer) })
}

fn decode<T: serde::de::DeserializeOwned>(part: &str) -> Result<T, JwtError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_other| JwtError::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_other| JwtError::Malformed)
}

/// Whether the claims of a signed token hold now: whose they are, and until when.
fn judge(
    claims: &Map<String, Value>,
    issuer: &Issuer,
    now: Duration,
) -> Result<(Principal, Duration), JwtError> {
    if text(claims, "iss")? != Some(issuer.url.as_str()) {
        return Err(JwtError::Issuer);
    }
    let audience = texts(claims, "aud")?;
    if !audience.contains(&issuer.audience.as_str()) {
        return Err(JwtError::Audience);
    }
    let expires = moment(claims, "exp")?.ok_or(JwtError::NoExpiry)?;
    let until = expires.saturating_add(issuer.skew);
    if until <= now {
        return Err(JwtError::Expired);
    }
    let soon = now.saturating_add(issuer.skew);
    if moment(claims, "nbf")?.is_some_and(|begin| begin > soon) {
        return Err(JwtError::NotYet);
    }
    let issued = moment(claims, "iat")?;
    if issued.is_some_and(|issued| issued > soon) {
        return Err(JwtError::IssuedLater);
    }
    if expires.saturating_sub(issued.unwrap_or(now)) > TOKEN_LIFE {
        return Err(JwtError::TooLongLived);
    }
    let subject = text(claims, "sub")?.filter(|subject| !subject.is_empty());
    let subject = subject.ok_or(JwtError::Subject)?;
    let groups = texts(claims, &issuer.groups_claim)?;
    if groups.len() > GROUPS {
        return Err(JwtError::Claim);
    }
    Ok((Principal::user(subject, &issuer.url, groups), until))
}

fn text<'a>(claims: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, JwtError> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) if is_claim(text) => Ok(Some(text)),
        Some(_) => Err(JwtError::Claim),
    }
}

/// Tasks are kept under who has begun them, and not every database takes a control character in a text.
fn is_claim(text: &str) -> bool {
    text.len() <= CLAIM_BYTES && !text.chars().any(char::is_control)
}

/// A text, or a list of them.
fn texts<'a>(claims: &'a Map<String, Value>, name: &str) -> Result<Vec<&'a str>, JwtError> {
    match claims.get(name) {
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| item.as_str().filter(|text| is_claim(text)))
            .collect::<Option<_>>()
            .ok_or(JwtError::Claim),
        _ => Ok(text(claims, name)?.into_iter().collect()),
    }
}

/// Seconds since the Unix epoch; some issuers send fractions.
fn moment(claims: &Map<String, Value>, name: &str) -> Result<Option<Duration>, JwtError> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => {
            let seconds = number.as_f64().ok_or(JwtError::Claim)?;
            let since = Duration::try_from_secs_f64(seconds).map_err(|_other| JwtError::Claim)?;
            Ok(Some(since))
        }
        Some(_) => Err(JwtError::Claim),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonwebtoken::{EncodingKey, Header};
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
    use serde_json::json;

    const NOW: Duration = Duration::from_secs(1_700_000_000);

    /// A key of the issuer `https://id.example` with the id `k1`.
    struct Signer {
        private: Vec<u8>,
        set: Value,
    }

    impl Signer {
        fn fresh() -> Self {
            let random = ring::rand::SystemRandom::new();
            let private =
                EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
            let pair = EcdsaKeyPair::from_pkcs8(
                &ECDSA_P256_SHA256_FIXED_SIGNING,
                private.as_ref(),
                &random,
            );
            let point = pair.unwrap().public_key().as_ref().to_vec();
            let set = json!({ "keys": [{
                "kty": "EC", "crv": "P-256", "kid": "k1", "use": "sig", "alg": "ES256",
                "x": URL_SAFE_NO_PAD.encode(&point[1..33]),
                "y": URL_SAFE_NO_PAD.encode(&point[33..65]),
            }] });
            Self { private: private.as_ref().to_vec(), set }
        }

        fn keys(&self) -> KeySet {
            KeySet::parse(self.set.to_string().as_bytes()).unwrap()
        }

        fn sign_with(&self, header: &Header, claims: &Value) -> String {
            let key = EncodingKey::from_ec_der(&self.private);
            jsonwebtoken::encode(header, claims, &key).unwrap()
        }

        fn sign(&self, change: &Value) -> String {
            let mut header = Header::new(Algorithm::ES256);
            header.kid = Some("k1".to_owned());
            self.sign_with(&header, &claims(change))
        }
    }

    fn claims(change: &Value) -> Value {
        let now = NOW.as_secs();
        let mut claims = json!({
            "iss": "https://id.example", "aud": "neuroflow", "sub": "alice",
            "iat": now - 10, "exp": now + 600, "groups": ["dev", "ops"],
        });
        for (name, value) in change.as_object().unwrap() {
            if value.is_null() {
                claims.as_object_mut().unwrap().remove(name);
            } else {
                claims[name] = value.clone();
            }
        }
        claims
    }

    fn issuer() -> Issuer {
        Issuer::new("https://id.example", "neuroflow")
    }

    fn judged(signer: &Signer, token: &str) -> Result<Principal, JwtError> {
        verify(token, &signer.keys(), &issuer(), NOW).map(|verified| verified.principal)
    }

    #[test]
    fn a_token_of_the_issuer_says_who_asks() {
        let signer = Signer::fresh();
        let alice = judged(&signer, &signer.sign(&json!({}))).unwrap();
        assert_eq!(alice.id(), "user:alice@https://id.example");
        assert_eq!(alice.groups(), ["dev", "ops"]);
        let one = signer.sign(&json!({ "groups": "dev", "aud": ["other", "neuroflow"] }));
        assert_eq!(judged(&signer, &one).unwrap().groups(), ["dev"]);
        let none = signer.sign(&json!({ "groups": null }));
        assert!(judged(&signer, &none).unwrap().groups().is_empty());
    }

    #[test]
    fn every_claim_is_looked_at() {
        let signer = Signer::fresh();
        let now = NOW.as_secs();
        for (change, error) in [
            (json!({ "iss": "https://id.example/" }), JwtError::Issuer),
            (json!({ "iss": null }), JwtError::Issuer),
            (json!({ "iss": 7 }), JwtError::Claim),
            (json!({ "aud": "other" }), JwtError::Audience),
            (json!({ "aud": null }), JwtError::Audience),
            (json!({ "aud": [7] }), JwtError::Claim),
            (json!({ "exp": now - 60 }), JwtError::Expired),
            (json!({ "exp": null }), JwtError::NoExpiry),
            (json!({ "exp": "later" }), JwtError::Claim),
            (json!({ "exp": -1 }), JwtError::Claim),
            (json!({ "exp": now + 90_000 }), JwtError::TooLongLived),
            (json!({ "nbf": now + 61 }), JwtError::NotYet),
            (json!({ "iat": now + 61 }), JwtError::IssuedLater),
            (json!({ "sub": null }), JwtError::Subject),
            (json!({ "sub": "" }), JwtError::Subject),
            (json!({ "sub": "x".repeat(CLAIM_BYTES + 1) }), JwtError::Claim),
            (json!({ "sub": "a\u{0}b" }), JwtError::Claim),
            (json!({ "groups": ["a\nb"] }), JwtError::Claim),
            (json!({ "groups": vec!["g"; GROUPS + 1] }), JwtError::Claim),
        ] {
            assert_eq!(judged(&signer, &signer.sign(&change)), Err(error), "{change}");
        }
        // Clocks may be off by a minute.
        for change in [
            json!({ "exp": now - 59 }),
            json!({ "nbf": now + 60 }),
            json!({ "iat": now + 60 }),
            json!({ "exp": 1_700_000_100.5 }),
        ] {
            assert!(judged(&signer, &signer.sign(&change)).is_ok(), "{change}");
        }
    }

    #[test]
    fn only_the_issuers_own_signature_counts() {
        let (signer, other) = (Signer::fresh(), Signer::fresh());
        assert_eq!(judged(&signer, &other.sign(&json!({}))), Err(JwtError::Signature));
        let token = signer.sign(&json!({}));
        let (head, rest) = token.split_once('.').unwrap();
        let (_, signature) = rest.split_once('.').unwrap();
        let forged = URL_SAFE_NO_PAD.encode(claims(&json!({ "sub": "root" })).to_string());
        let forged = format!("{head}.{forged}.{signature}");
        assert_eq!(judged(&signer, &forged), Err(JwtError::Signature));
        let cut = format!("{head}.{}.", rest.split_once('.').unwrap().0);
        assert_eq!(judged(&signer, &cut), Err(JwtError::Signature));
    }

    #[test]
    fn the_header_chooses_nothing_that_the_key_is_not_for() {
        let signer = Signer::fresh();
        let body = URL_SAFE_NO_PAD.encode(claims(&json!({})).to_string());
        let with_head = |head: Value| {
            let head = URL_SAFE_NO_PAD.encode(head.to_string());
            judged(&signer, &format!("{head}.{body}.AAAA"))
        };
        for alg in ["none", "None", "HS256", "HS512", "RS256", "ES384", "ES256K", ""] {
            let head = json!({ "alg": alg, "kid": "k1" });
            assert_eq!(with_head(head), Err(JwtError::Algorithm), "{alg}");
        }
        assert_eq!(with_head(json!({ "alg": "ES256" })), Err(JwtError::NoKeyId));
        let unknown = json!({ "alg": "ES256", "kid": "k2" });
        assert_eq!(with_head(unknown), Err(JwtError::UnknownKey));
        let critical = json!({ "alg": "ES256", "kid": "k1", "crit": ["exp"] });
        assert_eq!(with_head(critical), Err(JwtError::Type));
        let logout = json!({ "alg": "ES256", "kid": "k1", "typ": "logout+jwt" });
        assert_eq!(with_head(logout), Err(JwtError::Type));
        for token in ["", ".", "..", "a.b.c", "a.b", "a.b.c.d", "e30.e30.e30"] {
            assert_eq!(judged(&signer, token), Err(JwtError::Malformed), "{token}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_a_token(token in "[A-Za-z0-9_.-]{0,200}") {
            let judged = verify(&token, &KeySet::default(), &issuer(), NOW);
            proptest::prop_assert!(judged.is_err());
        }
    }
}
