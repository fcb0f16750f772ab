//! Who has the token of one MCP server, and gets another one when the server wants that. It outlives
//! sessions, so that a session that is begun anew needs no consent anew.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use neuroflow_kernel::{Clock, Moment};
use rmcp::transport::auth::{AuthorizationMetadata, OAuthClientConfig};
use rmcp::transport::{
    AuthError, AuthorizationManager, AuthorizationRequest, AuthorizationSession,
    ClientCredentialsConfig, CredentialStore, StoredCredentials, WWWAuthenticateParams,
};
use serde_json::json;
use tokio::sync::Mutex;
use url::Url;

use super::kept::{Refresh, Store};
use super::proof::{self, Claim};
use super::{
    ClientProof, Consent, OAuth, OAuthError, OAuthGrant, ProofAlgorithm, Registration, Road,
};
use crate::limits::{CONSENT_DEADLINE, OAUTH_DEADLINE};

/// The token of one MCP server.
pub(in crate::mcp) struct Authorizer {
    oauth: OAuth,
    /// The server's URL, which is the resource that tokens are for.
    resource: Url,
    road: Arc<Road>,
    /// The latest refresh token, if one was given.
    refresh: Option<Refresh>,
    clock: Clock,
    state: Mutex<State>,
}

impl fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorizer").field("oauth", &self.oauth).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    held: Held,
    /// Scopes that were demanded and asked for, beyond the first ones.
    demanded: BTreeSet<String>,
}

/// Who holds the token.
#[derive(Default)]
enum Held {
    #[default]
    Nobody,
    /// The protocol's library, which knows when it ends and how to refresh it.
    Manager(Box<AuthorizationManager>),
    /// We ourselves.
    Own { token: String, until: Option<Moment> },
}

impl Authorizer {
    pub(in crate::mcp) fn new(oauth: OAuth, resource: Url, road: Road, clock: Clock) -> Self {
        let refresh = match &oauth.grant {
            OAuthGrant::RefreshToken { client, token, kept, .. } => {
                Some(Refresh::new(client, token, kept.as_deref()))
            }
            _ => None,
        };
        Self { oauth, resource, road: Arc::new(road), refresh, clock, state: Mutex::default() }
    }

    /// The token, if there is one that is good as far as we know.
    pub(in crate::mcp) async fn token(&self) -> Result<Option<String>, OAuthError> {
        let state = self.state.lock().await;
        self.held(&state.held).await
    }

    async fn held(&self, held: &Held) -> Result<Option<String>, OAuthError> {
        match held {
            Held::Nobody => Ok(None),
            Held::Own { token, until } => {
                let is_good = until.is_none_or(|until| self.clock.now() < until);
                Ok(is_good.then(|| token.clone()))
            }
            Held::Manager(manager) => match manager.get_access_token().await {
                Ok(token) => Ok(Some(token)),
                Err(AuthError::AuthorizationRequired) => Ok(None),
                Err(error) => Err(error.into()),
            },
        }
    }

    /// Gets another token after the server has answered a request that had `rejected` with a challenge.
    /// `is_first` is whether this is the first for that request.
    pub(in crate::mcp) async fn renew(
        &self,
        rejected: Option<&str>,
        challenge: &str,
        is_first: bool,
    ) -> Result<(), OAuthError> {
        let deadline = match &self.oauth.grant {
            OAuthGrant::Consent { .. } => CONSENT_DEADLINE,
            _ => OAUTH_DEADLINE,
        };
        let renewed = Box::pin(self.renewed(rejected, challenge, is_first));
        let by = self.clock.now() + deadline;
        self.clock.before(by, renewed).await.map_err(|_elapsed| OAuthError::Late)?
    }

    async fn renewed(
        &self,
        rejected: Option<&str>,
        challenge: &str,
        is_first: bool,
    ) -> Result<(), OAuthError> {
        let mut state = self.state.lock().await;
        let now = self.held(&state.held).await?;
        if now.is_some() && now.as_deref() != rejected {
            // Another request was quicker.
            return Ok(());
        }
        let params = WWWAuthenticateParams::parse(challenge, &self.resource);
        if params.is_insufficient_scope() {
            let scopes = params.scope.unwrap_or_default();
            let wanted: BTreeSet<String> =
                scopes.split_whitespace().map(ToOwned::to_owned).collect();
            if wanted.is_subset(&state.demanded) {
                return Err(OAuthError::Scopes { scopes });
            }
            state.demanded.extend(wanted);
            return self.step_up(&mut state, &scopes, challenge).await;
        }
        if let (true, Some(_), Held::Manager(manager)) = (is_first, rejected, &state.held) {
            match manager.refresh_token().await {
                Ok(_kept_by_the_manager) => return Ok(()),
                Err(AuthError::AuthorizationRequired | AuthError::TokenRefreshRejected(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        state.held = self.obtain(challenge, &state.demanded).await?;
        Ok(())
    }

    /// With a person the same client asks for more; without one it's as at the beginning.
    async fn step_up(
        &self,
        state: &mut State,
        scopes: &str,
        challenge: &str,
    ) -> Result<(), OAuthError> {
        if let OAuthGrant::Consent { consent, .. } = &self.oauth.grant
            && let Held::Manager(manager) = std::mem::take(&mut state.held)
        {
            let page = manager.request_scope_upgrade(scopes).await?;
            let redirect = consent.redirect_uri();
            let session = AuthorizationSession::for_scope_upgrade(*manager, page, redirect);
            state.held = consented(consent.as_ref(), session).await?;
            return Ok(());
        }
        state.held = self.obtain(challenge, &state.demanded).await?;
        Ok(())
    }

    /// From the server's word on who issues its tokens to a token.
    async fn obtain(
        &self,
        challenge: &str,
        demanded: &BTreeSet<String>,
    ) -> Result<Held, OAuthError> {
        let road = Arc::clone(&self.road);
        let mut manager =
            AuthorizationManager::new_with_oauth_http_client(self.resource.clone(), road).await?;
        let challenge = (!challenge.is_empty()).then_some(challenge);
        let found = manager.resolve_metadata_from_challenge(challenge).await?;
        let metadata = found.metadata;
        self.oauth.server.trust(metadata.issuer.as_deref())?;
        manager.set_metadata(metadata.clone());
        match &self.oauth.grant {
            OAuthGrant::ClientCredentials { client, proof } => {
                let scopes = self.scopes(&manager, demanded).await;
                match proof {
                    ClientProof::Secret(secret) => {
                        let config = ClientCredentialsConfig::ClientSecret {
                            client_id: client.clone(),
                            client_secret: secret.clone(),
                            scopes,
                            resource: Some(self.resource.to_string()),
                        };
                        manager.validate_client_credentials_metadata(&config)?;
                        manager.configure_client_credentials(&config)?;
                        manager.exchange_client_credentials(&config).await?;
                        Ok(Held::Manager(Box::new(manager)))
                    }
                    ClientProof::Key { pem, algorithm } => {
                        self.prove(client, pem, *algorithm, &metadata, &scopes).await
                    }
                }
            }
            OAuthGrant::RefreshToken { client, secret, token, kept } => {
                let refresh = self.refresh.clone();
                let refresh =
                    refresh.unwrap_or_else(|| Refresh::new(client, token, kept.as_deref()));
                let token = refresh.latest().await?;
                // Nobody is sent back anywhere.
                let mut config = OAuthClientConfig::new(client, "http://127.0.0.1/");
                config.client_secret.clone_from(secret);
                manager.configure_client(config)?;
                let given = json!({
                    "access_token": "", "token_type": "bearer", "refresh_token": token,
                });
                let given = serde_json::from_value(given).map_err(OAuthError::Answer)?;
                let stored = StoredCredentials::new(client.clone(), Some(given), Vec::new(), None);
                let store = Store::new(refresh);
                store.save(stored.with_issuer(metadata.issuer)).await?;
                manager.set_credential_store(store);
                manager.refresh_token().await?;
                Ok(Held::Manager(Box::new(manager)))
            }
            OAuthGrant::Consent { consent, registration } => {
                let request = request(consent.as_ref(), registration);
                let request = if self.oauth.scopes.is_empty() && demanded.is_empty() {
                    request.with_initial_scope_selection()
                } else {
                    request.with_scopes(self.scopes(&manager, demanded).await)
                };
                let session = AuthorizationSession::new(manager, request).await;
                let session = session.map_err(|(_manager, error)| error)?;
                consented(consent.as_ref(), session).await
            }
        }
    }

    /// The scopes to ask for: ours or the server's, and what it has demanded since.
    async fn scopes(
        &self,
        manager: &AuthorizationManager,
        demanded: &BTreeSet<String>,
    ) -> Vec<String> {
        let mut scopes = self.oauth.scopes.clone();
        if scopes.is_empty() {
            scopes = manager.select_initial_scopes(&[]).await;
        }
        for scope in demanded {
            if !scopes.contains(scope) {
                scopes.push(scope.clone());
            }
        }
        scopes
    }

    async fn prove(
        &self,
        client: &str,
        pem: &str,
        algorithm: ProofAlgorithm,
        metadata: &AuthorizationMetadata,
        scopes: &[String],
    ) -> Result<Held, OAuthError> {
        proof::check(metadata, algorithm)?;
        let now = self.clock.unix();
        let issuer = metadata.issuer.as_deref().unwrap_or(&metadata.token_endpoint);
        let claim = Claim { client, issuer, resource: self.resource.as_str(), scopes, now };
        let form = proof::form(&claim, pem, algorithm)?;
        let posted = self.road.post(&metadata.token_endpoint, form).await;
        let (status, body) = posted.map_err(OAuthError::Request)?;
        let given = proof::read(status, &body)?;
        let life = given.expires_in.map(Duration::from_secs);
        let until = life.map(|life| self.clock.now() + life);
        Ok(Held::Own { token: given.access_token, until })
    }
}

fn request(consent: &dyn Consent, registration: &Registration) -> AuthorizationRequest {
    let request = AuthorizationRequest::new(consent.redirect_uri());
    match registration {
        Registration::Known { client, secret: None } => request.with_preregistered_client(client),
        Registration::Known { client, secret: Some(secret) } => {
            request.with_preregistered_client(client).with_client_secret(secret)
        }
        Registration::Document { url } => {
            request.with_client_name("neuroflow").with_client_metadata_url(url)
        }
        Registration::Dynamic { name } => request.with_client_name(name),
    }
}

async fn consented(
    consent: &dyn Consent,
    session: AuthorizationSession,
) -> Result<Held, OAuthError> {
    let back = consent.ask(session.get_authorization_url()).await?;
    session.handle_callback_url(&back).await?;
    Ok(Held::Manager(Box::new(session.auth_manager)))
}
