//! A client that proves itself with a key (RFC 7523): the assertion, and the request with it. Pure.

use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rmcp::transport::auth::AuthorizationMetadata;
use serde::Deserialize;
use serde_json::{Value, json};
use url::form_urlencoded::Serializer;
use uuid::Uuid;

use super::{OAuthError, ProofAlgorithm};
use crate::limits::ASSERTION_LIFE;

impl ProofAlgorithm {
    fn algorithm(self) -> Algorithm {
        match self {
            Self::Rs256 => Algorithm::RS256,
            Self::Es256 => Algorithm::ES256,
            Self::Es384 => Algorithm::ES384,
        }
    }
}

/// The key of a PEM.
pub(super) fn key(pem: &str, algorithm: ProofAlgorithm) -> Result<EncodingKey, OAuthError> {
    let key = match algorithm {
        ProofAlgorithm::Rs256 => EncodingKey::from_rsa_pem(pem.as_bytes()),
        ProofAlgorithm::Es256 | ProofAlgorithm::Es384 => EncodingKey::from_ec_pem(pem.as_bytes()),
    };
    key.map_err(|source| OAuthError::Key { algorithm, source })
}

/// Whether the authorization server says that it takes no such signature.
pub(super) fn check(
    metadata: &AuthorizationMetadata,
    algorithm: ProofAlgorithm,
) -> Result<(), OAuthError> {
    let lists = |name: &str, word: &str| match metadata.additional_fields.get(name) {
        Some(Value::Array(known)) => known.iter().any(|known| known == word),
        _ => true,
    };
    let taken = lists("token_endpoint_auth_methods_supported", "private_key_jwt")
        && lists("token_endpoint_auth_signing_alg_values_supported", algorithm.name());
    if taken { Ok(()) } else { Err(OAuthError::Unsupported { algorithm }) }
}

/// Who is asked for which token, and who asks.
pub(super) struct Claim<'a> {
    pub(super) client: &'a str,
    pub(super) issuer: &'a str,
    pub(super) resource: &'a str,
    pub(super) scopes: &'a [String],
    /// Since the Unix epoch.
    pub(super) now: Duration,
}

/// The body of the token's request.
pub(super) fn form(
    claim: &Claim<'_>,
    pem: &str,
    algorithm: ProofAlgorithm,
) -> Result<String, OAuthError> {
    let now = claim.now.as_secs();
    let claims = json!({
        "iss": claim.client, "sub": claim.client, "aud": claim.issuer, "iat": now,
        "exp": now.saturating_add(ASSERTION_LIFE.as_secs()), "jti": Uuid::new_v4().to_string(),
    });
    let mut header = Header::new(algorithm.algorithm());
    header.typ = Some("client-authentication+jwt".to_owned());
    let assertion = jsonwebtoken::encode(&header, &claims, &key(pem, algorithm)?)
        .map_err(|source| OAuthError::Key { algorithm, source })?;
    let mut form = Serializer::new(String::new());
    form.append_pair("grant_type", "client_credentials")
        .append_pair(
            "client_assertion_type",
            "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        )
        .append_pair("client_assertion", &assertion)
        .append_pair("resource", claim.resource);
    if !claim.scopes.is_empty() {
        form.append_pair("scope", &claim.scopes.join(" "));
    }
    Ok(form.finish())
}

/// A token that was given, and for how long.
#[derive(Deserialize)]
pub(super) struct Given {
    pub(super) access_token: String,
    token_type: String,
    pub(super) expires_in: Option<u64>,
}

#[derive(Deserialize)]
struct Fault {
    error: String,
}

/// What an authorization server has answered.
pub(super) fn read(status: u16, body: &[u8]) -> Result<Given, OAuthError> {
    if status != 200 {
        let fault = serde_json::from_slice::<Fault>(body).map(|fault| fault.error);
        let mut error = fault.unwrap_or_default();
        error.truncate(error.floor_char_boundary(FAULT_BYTES));
        return Err(OAuthError::Refused { status, error });
    }
    let given: Given = serde_json::from_slice(body).map_err(OAuthError::Answer)?;
    if given.token_type.eq_ignore_ascii_case("bearer") {
        Ok(given)
    } else {
        Err(OAuthError::Refused { status, error: "token_type".to_owned() })
    }
}

/// Bytes of an authorization server's word for why it refuses; the standard's have twenty.
const FAULT_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    fn pem() -> String {
        rcgen::KeyPair::generate().unwrap().serialize_pem()
    }

    fn claim(scopes: &[String]) -> Claim<'_> {
        Claim {
            client: "c & d",
            issuer: "https://id.example",
            resource: "https://mcp.example/mcp",
            scopes,
            now: Duration::from_secs(1_000),
        }
    }

    #[test]
    fn the_request_names_its_resource_and_the_client_only_in_the_assertion() {
        let scopes = ["a".to_owned(), "b".to_owned()];
        let form = form(&claim(&scopes), &pem(), ProofAlgorithm::Es256).unwrap();
        let fields: std::collections::BTreeMap<_, _> =
            url::form_urlencoded::parse(form.as_bytes()).into_owned().collect();
        assert_eq!(fields["resource"], "https://mcp.example/mcp");
        assert_eq!((fields["scope"].as_str(), fields.get("client_id")), ("a b", None));
        let claims = fields["client_assertion"].split('.').nth(1).unwrap();
        let claims = URL_SAFE_NO_PAD.decode(claims).unwrap();
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!(
            (&claims["iss"], &claims["aud"]),
            (&json!("c & d"), &json!("https://id.example"))
        );
        assert_eq!(claims["exp"].as_u64().unwrap(), 1_000 + ASSERTION_LIFE.as_secs());
    }

    #[test]
    fn a_key_of_another_kind_is_refused() {
        let unfit = key(&pem(), ProofAlgorithm::Rs256).map(drop).unwrap_err();
        assert_eq!(unfit.code(), "key");
        assert!(key("no key", ProofAlgorithm::Es256).is_err());
    }

    #[test]
    fn what_is_no_bearer_token_is_refused() {
        assert!(read(200, br#"{"access_token":"t","token_type":"bearer"}"#).is_ok());
        for (status, body, code) in [
            (200, r#"{"access_token":"t","token_type":"DPoP"}"#, "refused"),
            (200, r#"{"token_type":"Bearer"}"#, "answer"),
            (400, r#"{"error":"invalid_client"}"#, "refused"),
            (500, "<html>", "refused"),
        ] {
            let refused = read(status, body.as_bytes()).map(drop).unwrap_err();
            assert_eq!(refused.code(), code, "{body}");
        }
    }

    #[test]
    fn a_server_that_lists_other_proofs_is_not_shown_this_one() {
        let metadata =
            |value: Value| serde_json::from_value::<AuthorizationMetadata>(value).unwrap();
        let base = json!({ "authorization_endpoint": "https://a", "token_endpoint": "https://a" });
        assert!(check(&metadata(base.clone()), ProofAlgorithm::Es256).is_ok());
        let mut other = base;
        other["token_endpoint_auth_methods_supported"] = json!(["client_secret_post"]);
        let refused = check(&metadata(other), ProofAlgorithm::Es256).unwrap_err();
        assert_eq!(refused.code(), "unsupported");
    }
}
