//! An issuer of JWTs: its discovery document and its keys over HTTP on loopback, and the tokens that it signs.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use neuroflow::actors::{AccessConfig, Issuer, RulesSource};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::loopback;

/// An issuer on loopback, with one key.
pub(crate) struct TestIssuer {
    pub(crate) url: String,
    pub(crate) private: Vec<u8>,
    pub(crate) public: Vec<u8>,
    keys: Arc<Mutex<String>>,
}

impl TestIssuer {
    pub(crate) async fn start() -> Self {
        let random = SystemRandom::new();
        let private = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random);
        let private = private.expect("a key").as_ref().to_vec();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &private, &random);
        let public = pair.expect("a key").public_key().as_ref().to_vec();
        let listener = tokio::net::TcpListener::bind(loopback()).await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let keys = Arc::new(Mutex::new(key_set("k1", &public)));
        let document = json!({ "issuer": url, "jwks_uri": format!("{url}/jwks") });
        serve_documents(listener, document.to_string(), Arc::clone(&keys));
        Self { url, private, public, keys }
    }

    /// From now on this issuer has the other's key only, by this id.
    pub(crate) fn replace_key(&self, kid: &str, other: &Self) {
        *self.keys.lock().expect("no panic") = key_set(kid, &other.public);
    }

    /// A token of this issuer, signed with the other's key.
    pub(crate) fn sign_with(&self, other: &Self, kid: &str, change: &Value) -> String {
        sign(&other.private, Some(kid), &self.claims(change))
    }

    pub(crate) fn config(&self, policy: &Path) -> AccessConfig {
        let mut config = AccessConfig::default();
        let mut issuer = Issuer::new(&self.url, "neuroflow");
        issuer.allow_private = true;
        config.issuer = Some(issuer);
        config.rules = RulesSource::File(policy.to_owned());
        config
    }

    pub(crate) fn claims(&self, change: &Value) -> Value {
        let now = SystemTime::UNIX_EPOCH.elapsed().expect("a time").as_secs();
        let mut claims = json!({
            "iss": self.url, "aud": "neuroflow", "sub": "alice", "iat": now, "exp": now + 600,
        });
        for (name, value) in change.as_object().expect("an object") {
            claims[name] = match value.as_i64() {
                // Moments are told from now.
                Some(offset) => json!(i64::try_from(now).expect("it fits") + offset),
                None => value.clone(),
            };
        }
        claims
    }

    pub(crate) fn sign(&self, kid: Option<&str>, change: &Value) -> String {
        sign(&self.private, kid, &self.claims(change))
    }
}

fn sign(private: &[u8], kid: Option<&str>, claims: &Value) -> String {
    let mut header = Header::new(Algorithm::ES256);
    header.kid = kid.map(str::to_owned);
    let key = EncodingKey::from_ec_der(private);
    jsonwebtoken::encode(&header, claims, &key).expect("a token")
}

fn key_set(kid: &str, public: &[u8]) -> String {
    let (x, y) = (base64url(&public[1..33]), base64url(&public[33..65]));
    let key = json!({ "kty": "EC", "crv": "P-256", "kid": kid, "use": "sig", "x": x, "y": y });
    json!({ "keys": [key] }).to_string()
}

pub(crate) fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte));
        let word = word << (8 * (3 - chunk.len()));
        for index in 0..=chunk.len() {
            let digit = (word >> (18 - 6 * index)) & 63;
            text.push(char::from(DIGITS[digit as usize]));
        }
    }
    text
}

#[expect(clippy::disallowed_methods, reason = "an issuer is a server of its own")]
fn serve_documents(listener: tokio::net::TcpListener, document: String, keys: Arc<Mutex<String>>) {
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = vec![0; 4096];
            let read = stream.read(&mut head).await.unwrap_or_default();
            let is_keys = head[..read].starts_with(b"GET /jwks ");
            let body =
                if is_keys { keys.lock().expect("no panic").clone() } else { document.clone() };
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            let _gone = stream.write_all(answer.as_bytes()).await;
        }
    });
}
