//! `[mcp.NAME].oauth`: how tokens for a server over HTTP are had.

use std::path::PathBuf;

use neuroflow::actors::{AuthorizationServer, ClientProof, OAuth, OAuthGrant, ProofAlgorithm};
use serde::{Deserialize, Serialize};

use super::{McpProblem, Text, read_text};

/// The table, as it's written.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tokens {
    /// Who issues them; nobody else is shown a secret.
    issuer: String,
    client: String,
    secret: Option<Text>,
    /// A private key in place of the secret.
    key: Option<Text>,
    algorithm: Option<String>,
    refresh_token: Option<Text>,
    /// Where a refresh token that takes its place is kept.
    keep: Option<PathBuf>,
    #[serde(default)]
    scopes: Vec<String>,
    #[serde(default)]
    allow_private: bool,
}

impl Tokens {
    /// With its secrets.
    pub(super) fn read(&self) -> Result<OAuth, McpProblem> {
        let text = |setting, text: &Option<Text>| {
            text.as_ref().map(|text| read_text(setting, text)).transpose()
        };
        let secret = text("oauth.secret", &self.secret)?;
        let key = text("oauth.key", &self.key)?;
        let token = text("oauth.refresh_token", &self.refresh_token)?;
        let algorithm = match self.algorithm.as_deref() {
            None => ProofAlgorithm::Es256,
            Some(_) if key.is_none() => {
                let (setting, beside) = ("oauth.algorithm", "no oauth.key");
                return Err(McpProblem::Beside { setting, beside });
            }
            Some(name) => ProofAlgorithm::from_name(name)
                .ok_or_else(|| McpProblem::Algorithm { found: name.to_owned() })?,
        };
        let client = self.client.clone();
        let grant = match (secret, key, token) {
            (secret, None, Some(token)) => {
                OAuthGrant::RefreshToken { client, secret, token, kept: self.keep.clone() }
            }
            _ if self.keep.is_some() => {
                let (setting, beside) = ("oauth.keep", "no oauth.refresh_token");
                return Err(McpProblem::Beside { setting, beside });
            }
            (Some(secret), None, None) => {
                OAuthGrant::ClientCredentials { client, proof: ClientProof::Secret(secret) }
            }
            (None, Some(pem), None) => {
                let proof = ClientProof::Key { pem, algorithm };
                OAuthGrant::ClientCredentials { client, proof }
            }
            _ => return Err(McpProblem::Proof),
        };
        let server = AuthorizationServer::Only(self.issuer.clone());
        Ok(OAuth::new(server, grant).scopes(&self.scopes).allow_private(self.allow_private))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<OAuth, McpProblem> {
        let begin = "issuer = \"https://id.example\"\nclient = \"c\"\n";
        toml::from_str::<Tokens>(&format!("{begin}{text}")).unwrap().read()
    }

    #[test]
    fn one_way_to_prove_who_asks_is_needed_and_no_secret_is_shown() {
        let oauth = read("secret = \"s3cr3t\"\nscopes = [\"read\"]").unwrap();
        assert!(!format!("{oauth:?}").contains("s3cr3t"));
        assert!(read("refresh_token = \"t\"").is_ok());
        let kept = read("refresh_token = \"t\"\nkeep = \"/var/lib/neuroflow/crm.token\"").unwrap();
        assert!(!format!("{kept:?}").contains("\"t\""));
        let nothing = read("secret = \"s\"\nkeep = \"/var/lib/neuroflow/crm.token\"");
        assert!(matches!(nothing, Err(McpProblem::Beside { setting: "oauth.keep", .. })));
        assert!(read("key = \"pem\"\nalgorithm = \"RS256\"").is_ok(), "the key is looked at later");
        assert!(matches!(read(""), Err(McpProblem::Proof)));
        assert!(matches!(read("secret = \"s\"\nkey = \"k\""), Err(McpProblem::Proof)));
        let unknown = read("key = \"k\"\nalgorithm = \"HS256\"");
        assert!(matches!(unknown, Err(McpProblem::Algorithm { .. })));
        let useless = read("secret = \"s\"\nalgorithm = \"RS256\"");
        assert!(matches!(useless, Err(McpProblem::Beside { .. })));
    }
}
