//! The access actor, which keeps files and keys fresh, and the handle that gateways ask.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use neuroflow_kernel::{
    Actor, Address, ChildSpec, Clock, Context, Header, NameError, Reply, TraceContext,
};
use tokio::sync::watch;

use super::bearer::Tokens;
use super::credential::{AuthError, Credential};
use super::file::{self, Contents};
use super::keys::Schedule;
use super::throttle::{Place, Throttle, Throttled};
use super::{
    AccessCommand, AccessConfig, AccessError, Identified, Principal, PrincipalKind, Proof, Rules,
    RulesSource, Ruling, Standing, TokenFileError, Unrestricted,
};
#[cfg(feature = "access")]
use super::{jwks, jwt, memory};
use crate::audit::{AuditEvent, Digest, Verdict};
use crate::limits::FILE_POLL;

/// What requests are judged by, as it was last found valid.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    tokens: Arc<Tokens>,
    pub(super) rules: Arc<dyn Rules>,
    #[cfg(feature = "access")]
    pub(super) keys: Arc<jwks::KeySet>,
    /// Counts the changes.
    pub(super) generation: u64,
}

impl Snapshot {
    /// Whether a credential is still taken for this principal's. Its end in time is waited for by
    /// whoever asks.
    pub(super) fn takes(&self, proof: &Proof, principal: &Principal) -> bool {
        let holder = |token| self.tokens.at(token, Duration::ZERO).map(|(holder, _)| holder);
        let is_there = |token| holder(token).is_ok_and(|holder| holder == principal);
        #[cfg(feature = "access")]
        if proof.signer.as_ref().is_some_and(|signer| !self.keys.has(signer)) {
            return false;
        }
        proof.token.as_ref().is_none_or(is_there)
    }
}

/// Says who asks and what they may do; cheap to clone.
///
/// ```
/// use neuroflow_actors::{AccessConfig, access_child};
/// use neuroflow_kernel::Clock;
/// let (spec, access) = access_child(AccessConfig::default(), &Clock::system())?;
/// assert_eq!(spec.name().as_str(), "access");
/// assert!(!access.authenticates());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Access(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: AccessConfig,
    clock: Clock,
    current: watch::Receiver<Option<Snapshot>>,
    #[cfg_attr(not(feature = "access"), expect(dead_code, reason = "asked for keys only"))]
    actor: Address<AccessCommand>,
    throttle: Throttle,
    #[cfg(feature = "access")]
    verified: memory::Memory,
}

impl Access {
    /// Whether requests need a credential.
    pub fn authenticates(&self) -> bool {
        self.0.config.authenticates()
    }

    /// Whether a credential of this kind is taken: for the cards, which tell clients.
    pub(crate) fn config(&self) -> &AccessConfig {
        &self.0.config
    }

    /// The rules of this moment, and their number, which changes with them.
    ///
    /// # Errors
    /// They haven't been read yet.
    pub fn rules(&self) -> Result<(Arc<dyn Rules>, u64), AuthError> {
        let current = self.0.current.borrow();
        let snapshot = current.as_ref().ok_or(AuthError::NotReady)?;
        Ok((Arc::clone(&snapshot.rules), snapshot.generation))
    }

    /// Who brings this credential.
    ///
    /// # Errors
    /// Says why that isn't known.
    pub async fn authenticate(&self, credential: Credential<'_>) -> Result<Principal, AuthError> {
        Ok(self.identify(credential).await?.principal)
    }

    /// The same, with what is remembered of the credential.
    pub(crate) async fn identify(
        &self,
        credential: Credential<'_>,
    ) -> Result<Identified, AuthError> {
        let plain = |principal| Identified { principal, proof: Proof::default() };
        match credential {
            Credential::Bearer(token) if self.authenticates() => self.bearer(token).await,
            other => self.without_token(&other).map(plain),
        }
    }

    fn without_token(&self, credential: &Credential<'_>) -> Result<Principal, AuthError> {
        match credential {
            Credential::None if self.authenticates() => Err(AuthError::Missing),
            Credential::None | Credential::Bearer(_) => Ok(Principal::anonymous()),
            Credential::Certificate(certificate) if self.0.config.certificates => {
                // TLS has looked at it once, and this connection may have been open for long.
                if certificate.has_ended(&self.0.clock) {
                    return Err(AuthError::CertificateExpired);
                }
                Ok(certificate.principal().clone())
            }
            // It was sent to a gateway that asks for none: not a reason to refuse.
            Credential::Certificate(_) if !self.authenticates() => Ok(Principal::anonymous()),
            Credential::Certificate(_) => Err(AuthError::CertificateNotTaken),
        }
    }

    /// Watches over a credential, for what goes on after its request.
    pub(crate) fn standing(
        &self,
        identified: Identified,
        rules: Option<Arc<dyn Rules>>,
    ) -> Standing {
        Standing::new(identified, rules, self.0.current.clone(), self.0.clock.clone())
    }

    async fn bearer(&self, token: &str) -> Result<Identified, AuthError> {
        let snapshot = self.snapshot()?;
        let now = self.0.clock.unix();
        if Tokens::is_ours(token) {
            let digest = file::sha256(token.as_bytes());
            let (principal, until) = snapshot.tokens.at(&digest, now)?;
            let proof = Proof { until, token: Some(digest), ..Proof::default() };
            return Ok(Identified { principal: principal.clone(), proof });
        }
        #[cfg(feature = "access")]
        if self.0.config.issuer.is_some() && jwt::is_jwt(token) {
            let jwt::Verified { principal, until, signer } = self.jwt(token, now, snapshot).await?;
            let proof = Proof { until: Some(until), token: None, signer: Some(signer) };
            return Ok(Identified { principal, proof });
        }
        Err(AuthError::UnknownToken)
    }

    #[cfg(feature = "access")]
    async fn jwt(
        &self,
        token: &str,
        now: Duration,
        snapshot: Snapshot,
    ) -> Result<jwt::Verified, AuthError> {
        let Some(issuer) = &self.0.config.issuer else { return Err(AuthError::UnknownToken) };
        let digest = file::sha256(token.as_bytes());
        if let Some(known) = self.0.verified.find(&digest, now, snapshot.generation) {
            return Ok(known);
        }
        let mut snapshot = snapshot;
        let verified = match jwt::verify(token, &snapshot.keys, issuer, now) {
            Err(jwt::JwtError::UnknownKey) => {
                let deadline = crate::limits::ISSUER_DEADLINE;
                let header = Header::new().within(&self.0.clock, deadline);
                // Without an answer the keys are those that are known.
                let _asked = self.0.actor.call(header, |reply| AccessCommand::Keys { reply }).await;
                snapshot = self.snapshot()?;
                jwt::verify(token, &snapshot.keys, issuer, now)?
            }
            judged => judged?,
        };
        self.0.verified.keep(digest, verified.clone(), snapshot.generation, now);
        Ok(verified)
    }

    /// The principal that was known as this one, as it is now; none if its credentials aren't taken
    /// any more. What an issuer or a CA has said of it stays as it was: nobody can ask them again.
    pub(crate) fn known_as(&self, principal: &Principal) -> Option<Principal> {
        let config = &self.0.config;
        let is_known = match principal.kind() {
            PrincipalKind::Token => {
                let snapshot = self.snapshot().ok()?;
                return snapshot.tokens.holder(principal.name(), self.0.clock.unix());
            }
            PrincipalKind::Anonymous => !self.authenticates(),
            PrincipalKind::Certificate => config.certificates,
            PrincipalKind::User => {
                let said = principal.facts().find(|(name, _)| *name == "issuer");
                said.is_some_and(|(_, said)| {
                    config.issuer.as_ref().is_some_and(|issuer| issuer.url == said)
                })
            }
        };
        is_known.then(|| principal.clone())
    }

    fn snapshot(&self) -> Result<Snapshot, AuthError> {
        self.0.current.borrow().clone().ok_or(AuthError::NotReady)
    }

    /// Lets one request of a principal in, for as long as its place is kept.
    pub(crate) fn admit(&self, principal: &Principal) -> Result<Option<Place>, Throttled> {
        self.0.throttle.admit(principal.id())
    }
}

/// With authentication nothing is allowed that no policy allows.
#[derive(Clone, Copy, Debug)]
struct NothingAllowed;

impl Rules for NothingAllowed {
    fn decide(&self, _: &Principal, _: super::Action, _: &super::Target<'_>) -> Ruling {
        Ruling::by_default()
    }
}

/// The access actor as a child, and the handle that gateways ask.
///
/// ```
/// use neuroflow_actors::{AccessConfig, access_child};
/// use neuroflow_kernel::Clock;
/// let (spec, _access) = access_child(AccessConfig::default(), &Clock::system())?;
/// assert_eq!(spec.name().as_str(), "access");
/// # Ok::<(), neuroflow_kernel::NameError>(())
/// ```
///
/// # Errors
/// Says what is wrong with the name.
pub fn access_child(config: AccessConfig, clock: &Clock) -> Result<(ChildSpec, Access), NameError> {
    let (sender, current) = watch::channel(None);
    let sender = Arc::new(sender);
    let own = config.clone();
    let (spec, actor) =
        ChildSpec::new("access", move || AccessServer::new(own.clone(), Arc::clone(&sender)))?;
    let throttle = Throttle::new(config.limits, clock.clone());
    let shared = Shared {
        config,
        clock: clock.clone(),
        current,
        actor,
        throttle,
        #[cfg(feature = "access")]
        verified: memory::Memory::default(),
    };
    Ok((spec, Access(Arc::new(shared))))
}

/// The actor behind an [`Access`]. Made by [`access_child`].
#[derive(Debug)]
#[cfg_attr(
    not(feature = "access"),
    expect(dead_code, reason = "issuers and policies need the feature")
)]
pub(super) struct AccessServer {
    pub(super) config: AccessConfig,
    current: Arc<watch::Sender<Option<Snapshot>>>,
    pub(super) tokens: Watched,
    pub(super) rules: Watched,
    pub(super) schedule: Option<Schedule>,
    pub(super) waiting: Vec<Reply<()>>,
}

/// What was last seen of a file, good or not.
#[derive(Debug, Default)]
pub(super) struct Watched {
    digest: Option<[u8; 32]>,
    /// Whether it couldn't be read, which is logged once.
    is_unreadable: bool,
}

impl AccessServer {
    fn new(config: AccessConfig, current: Arc<watch::Sender<Option<Snapshot>>>) -> Self {
        let (tokens, rules) = (Watched::default(), Watched::default());
        Self { config, current, tokens, rules, schedule: None, waiting: Vec::new() }
    }

    /// What there is before any file was read.
    fn blank(&self) -> Snapshot {
        let rules: Arc<dyn Rules> = match &self.config.rules {
            RulesSource::Given(rules) => Arc::clone(rules),
            RulesSource::ByAuthentication if !self.config.authenticates() => Arc::new(Unrestricted),
            RulesSource::ByAuthentication | RulesSource::File(_) => Arc::new(NothingAllowed),
        };
        Snapshot {
            tokens: Arc::default(),
            rules,
            #[cfg(feature = "access")]
            keys: Arc::default(),
            generation: 0,
        }
    }

    pub(super) fn publish(&self, change: impl FnOnce(&mut Snapshot)) {
        self.current.send_modify(|current| {
            let snapshot = current.get_or_insert_with(|| self.blank());
            change(snapshot);
            snapshot.generation += 1;
        });
    }

    /// Reads the files that have changed. The first error is given back; the old content stays.
    async fn look(&mut self) -> Result<(), AccessError> {
        let tokens = match self.config.tokens.clone() {
            Some(path) => self.look_at_tokens(&path).await,
            None => Ok(()),
        };
        let rules = match self.config.rules.clone() {
            RulesSource::File(path) => self.look_at_rules(&path).await,
            _ => Ok(()),
        };
        tokens.and(rules)
    }

    async fn look_at_tokens(&mut self, path: &Path) -> Result<(), AccessError> {
        let Some(contents) = self.tokens.read(path).await? else { return Ok(()) };
        let parsed = Tokens::parse(&contents.bytes).map_err(|(line, problem)| {
            AccessError::Tokens(TokenFileError { path: path.to_owned(), line, problem })
        });
        let parsed = self.judge("tokens", path, &contents, parsed)?;
        self.publish(|snapshot| snapshot.tokens = Arc::new(parsed));
        Ok(())
    }

    /// Says what came of a file, counts and records it.
    pub(super) fn judge<T>(
        &self,
        what: &'static str,
        path: &Path,
        contents: &Contents,
        parsed: Result<T, AccessError>,
    ) -> Result<T, AccessError> {
        self.config.meter.reload(what, parsed.is_ok());
        let changed = AuditEvent::ConfigChanged {
            part: what,
            digest: Digest::of(&contents.bytes),
            verdict: if parsed.is_ok() { Verdict::Allowed } else { Verdict::Denied },
        };
        self.config.audit.note(TraceContext::NONE, changed);
        if parsed.is_ok() {
            tracing::info!(file = %path.display(), "{what} read");
        }
        parsed
    }
}

impl Watched {
    /// The contents, if they aren't those of the last time.
    pub(super) async fn read(&mut self, path: &Path) -> Result<Option<Contents>, AccessError> {
        let path = path.to_owned();
        let read = tokio::task::spawn_blocking(move || file::read(&path));
        // It doesn't panic and isn't cancelled; if it were, the next look would make up for it.
        let Ok(read) = read.await else { return Ok(None) };
        match read {
            Ok(contents) => {
                self.is_unreadable = false;
                let is_known = self.digest.replace(contents.digest) == Some(contents.digest);
                Ok((!is_known).then_some(contents))
            }
            Err(_known) if self.is_unreadable => Ok(None),
            Err(error) => {
                self.is_unreadable = true;
                Err(error.into())
            }
        }
    }
}

impl Actor for AccessServer {
    type Message = AccessCommand;
    type Error = AccessError;
    const KIND: &'static str = "access";

    async fn started(&mut self, context: &mut Context<AccessCommand>) -> Result<(), AccessError> {
        let is_first = self.current.borrow().is_none();
        self.check_issuer(context)?;
        match self.look().await {
            // A later life has what the former one knew.
            Err(error) if !is_first => warn(&error),
            looked => looked?,
        }
        self.publish(|_snapshot| {});
        let (me, clock) = (context.address(), context.clock().clone());
        let look_again = async move {
            loop {
                clock.sleep(FILE_POLL).await;
                if me.tell(Header::new(), AccessCommand::Look).await.is_err() {
                    return;
                }
            }
        };
        // A fresh actor has no other task.
        let _started = context.task(look_again);
        self.fetch_if_due(context);
        Ok(())
    }

    async fn handle(
        &mut self,
        command: AccessCommand,
        context: &mut Context<AccessCommand>,
    ) -> Result<(), AccessError> {
        match command {
            AccessCommand::Look => {
                if let Err(error) = self.look().await {
                    warn(&error);
                }
                self.fetch_if_due(context);
            }
            AccessCommand::Keys { reply } => self.keys_wanted(reply, context),
            AccessCommand::Fetched(outcome) => self.fetched(outcome, context),
        }
        Ok(())
    }
}

fn warn(error: &AccessError) {
    let error = error as &dyn std::error::Error;
    tracing::error!(error, "a changed file isn't taken over; what was read before stays");
}
