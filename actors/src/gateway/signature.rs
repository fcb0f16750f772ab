//! Signing cards: JWS with ES256 over the card's canonical form (RFC 7515, RFC 8785).

use std::fmt;
use std::sync::Arc;

use a2a_pb::protojson as pb;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Map, Value, json};

/// The key that a gateway signs its cards with.
///
/// ```
/// use neuroflow_actors::{CardKey, CardKeyError};
/// let error = CardKey::from_pem(b"not a key").unwrap_err();
/// assert!(matches!(error, CardKeyError::Pem(_)));
/// ```
#[derive(Clone)]
pub struct CardKey(Arc<Inner>);

struct Inner {
    pair: EcdsaKeyPair,
    /// The thumbprint of the public key (RFC 7638).
    id: String,
}

/// Why a key can't sign cards.
///
/// ```
/// use neuroflow_actors::CardKey;
/// let pem = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
/// assert!(CardKey::from_pem(pem).unwrap_err().to_string().contains("P-256"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CardKeyError {
    /// It isn't a private key in PEM.
    #[error("not a private key in PEM (PKCS #8)")]
    Pem(#[source] rustls::pki_types::pem::Error),
    /// It's another kind of key.
    #[error("not an ECDSA key of the curve P-256: {0}")]
    Kind(ring::error::KeyRejected),
}

impl CardKey {
    /// A private key in PEM (PKCS #8) of the curve P-256, with its public key, as
    /// `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256` writes it.
    ///
    /// # Errors
    /// Says what it is instead.
    pub fn from_pem(pem: &[u8]) -> Result<Self, CardKeyError> {
        let key = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(CardKeyError::Pem)?;
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, key.secret_pkcs8_der(), &random)
            .map_err(CardKeyError::Kind)?;
        let (x, y) = coordinates(&pair);
        // The members that identify a key, in the order that the thumbprint has them.
        let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        let id = ring::digest::digest(&ring::digest::SHA256, members.as_bytes());
        let id = BASE64.encode(id);
        Ok(Self(Arc::new(Inner { pair, id })))
    }

    /// The public key as a set of one (RFC 7517).
    pub(super) fn public_set(&self) -> Value {
        let (x, y) = coordinates(&self.0.pair);
        json!({ "keys": [{
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.0.id,
            "x": x, "y": y,
        }] })
    }

    /// Signs a card, whose key set is to be found at `keys`: in its canonical form, and once more in that of
    /// clients that take out what is empty before they canonicalise, where that is another. A card is right if any
    /// of its signatures is.
    pub(super) fn sign(
        &self,
        card: &pb::AgentCard,
        keys: &str,
    ) -> Result<Vec<pb::AgentCardSignature>, SignError> {
        let unsigned = pb::AgentCard { signatures: Vec::new(), ..card.clone() };
        let mut forms = vec![serde_json_canonicalizer::to_vec(&unsigned)?];
        let filled = filled(serde_json::to_value(&unsigned)?).unwrap_or_else(|| json!({}));
        forms.push(serde_json_canonicalizer::to_vec(&filled)?);
        forms.dedup();
        let header = json!({ "alg": "ES256", "typ": "JOSE", "kid": self.0.id, "jku": keys });
        let protected = BASE64.encode(header.to_string());
        let signed = forms.into_iter().map(|payload| {
            let input = format!("{protected}.{}", BASE64.encode(payload));
            let signature = self.0.pair.sign(&SystemRandom::new(), input.as_bytes())?;
            let signature = BASE64.encode(signature);
            Ok(pb::AgentCardSignature { protected: protected.clone(), signature, header: None })
        });
        signed.collect()
    }
}

/// A value without what is empty in it, at any depth; none if nothing is left. A card has few levels.
fn filled(value: Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::String(text) => (!text.is_empty()).then_some(Value::String(text)),
        Value::Array(items) => {
            let items: Vec<Value> = items.into_iter().filter_map(filled).collect();
            (!items.is_empty()).then_some(Value::Array(items))
        }
        Value::Object(members) => {
            let members = members.into_iter();
            let members: Map<String, Value> =
                members.filter_map(|(name, value)| Some((name, filled(value)?))).collect();
            (!members.is_empty()).then_some(Value::Object(members))
        }
        other => Some(other),
    }
}

/// Why a card isn't signed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SignError {
    #[error("the card can't be written")]
    Card(#[from] serde_json::Error),
    #[error("the system has no randomness to give")]
    Random,
}

impl From<ring::error::Unspecified> for SignError {
    fn from(_says_nothing: ring::error::Unspecified) -> Self {
        Self::Random
    }
}

fn coordinates(pair: &EcdsaKeyPair) -> (String, String) {
    // An uncompressed point: 4, then both coordinates of 32 bytes.
    let point = pair.public_key().as_ref().get(1..).unwrap_or_default();
    let (x, y) = point.split_at(point.len() / 2);
    (BASE64.encode(x), BASE64.encode(y))
}

impl fmt::Debug for CardKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CardKey").field("id", &self.0.id).finish_non_exhaustive()
    }
}

// The other library comes with that feature.
#[cfg(feature = "access")]
#[cfg(test)]
mod tests {
    use super::*;

    /// A key of its own for each test.
    fn key() -> CardKey {
        let random = SystemRandom::new();
        let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let der = base64::prelude::BASE64_STANDARD.encode(der);
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{der}\n-----END PRIVATE KEY-----\n");
        CardKey::from_pem(pem.as_bytes()).unwrap()
    }

    #[test]
    fn another_library_finds_the_signature_right_and_a_changed_card_wrong() {
        let key = key();
        let card = pb::AgentCard { name: "\u{e4}cho".into(), ..pb::AgentCard::default() };
        let mut signatures = key.sign(&card, "https://example.org/keys").unwrap();
        assert_eq!(signatures.len(), 1, "nothing in it is empty");
        let signature = signatures.remove(0);
        let set: jsonwebtoken::jwk::JwkSet = serde_json::from_value(key.public_set()).unwrap();
        let public = jsonwebtoken::DecodingKey::from_jwk(&set.keys[0]).unwrap();
        let verify = |name: &str| {
            let payload = BASE64.encode(format!(r#"{{"name":"{name}"}}"#));
            let signed = format!("{}.{payload}", signature.protected);
            let algorithm = jsonwebtoken::Algorithm::ES256;
            let (signature, signed) = (&signature.signature, signed.as_bytes());
            jsonwebtoken::crypto::verify(signature, signed, &public, algorithm).unwrap()
        };
        assert!(verify("\u{e4}cho"));
        assert!(!verify("echo"));
        let header = BASE64.decode(&signature.protected).unwrap();
        let header: Value = serde_json::from_slice(&header).unwrap();
        assert_eq!((&header["alg"], &header["typ"]), (&"ES256".into(), &"JOSE".into()));
        assert_eq!(header["kid"], key.public_set()["keys"][0]["kid"]);
    }

    #[test]
    fn what_is_empty_is_taken_out_at_any_depth() {
        let card = json!({
            "a": "", "b": [], "c": {}, "d": null, "e": [{ "x": { "y": [""] } }], "f": false, "g": 0,
            "h": [{}, { "s": "t", "u": "" }],
        });
        let expected = json!({ "f": false, "g": 0, "h": [{ "s": "t" }] });
        assert_eq!(filled(card), Some(expected));
        assert_eq!(filled(json!({ "a": [{}] })), None);
    }
}
