//! The contract of access: who asks, what may be done to what, and who decides that.
//!
//! A gateway turns a request's credential into a [`Principal`], and what that may do into a narrowed
//! capability to the agent, which carries a [`CallerGrant`] down to the tools. So nothing behind the
//! gateway reads a policy from a message.

#[cfg(not(feature = "access"))]
mod absent;
mod bearer;
mod certificate;
mod credential;
mod file;
#[cfg(feature = "access")]
mod issuer;
#[cfg(feature = "access")]
mod jwks;
#[cfg(feature = "access")]
mod jwt;
mod keys;
#[cfg(feature = "access")]
mod memory;
#[cfg(feature = "access")]
mod policy;
mod principal;
mod server;
mod standing;
mod throttle;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use neuroflow_kernel::{Message, Reply, Rights};
use neuroflow_sandbox::Level;

use crate::audit::Audit;

pub use bearer::{FreshToken, TokenFileError, TokenName, TokenProblem};
pub use certificate::{CertificateError, PeerCertificate};
pub use credential::{AuthError, Credential};
pub use file::FileError;
#[cfg(feature = "access")]
pub use jwks::{DiscoveryError, KeySetError};
#[cfg(feature = "access")]
pub use jwt::JwtError;
#[cfg(feature = "access")]
pub use policy::{CedarPolicies, PolicyError, PolicyLocation};
pub use principal::{Principal, PrincipalKind};
pub use server::{Access, access_child};
pub use throttle::{Limits, Throttled};

pub(crate) use file::{read as read_file, sha256};
pub(crate) use principal::PrincipalRecord;
pub(crate) use standing::{Change, Identified, Proof, Standing};
pub(crate) use throttle::Place;

/// Something that a principal may be allowed to do.
///
/// ```
/// use neuroflow_actors::Action;
/// assert_eq!(Action::CallTool.name(), "call_tool");
/// assert_eq!(Action::from_name("ask"), Some(Action::Ask));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// Begin or go on with a task of an agent, or use one of its skills.
    Ask,
    /// Read one's own tasks of an agent, and be told of them.
    Read,
    /// Cancel one's own tasks of an agent.
    Cancel,
    /// Have everybody's tasks of an agent count as one's own, and read and cancel them unless a policy forbids that.
    Supervise,
    /// Read an agent's extended card.
    Describe,
    /// Have a tool called.
    CallTool,
    /// Have programs run in cells of a level.
    RunLevel,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Ask,
        Self::Read,
        Self::Cancel,
        Self::Supervise,
        Self::Describe,
        Self::CallTool,
        Self::RunLevel,
    ];

    /// Its name in policies.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ask => "ask",
            Self::Read => "read",
            Self::Cancel => "cancel",
            Self::Supervise => "supervise",
            Self::Describe => "describe",
            Self::CallTool => "call_tool",
            Self::RunLevel => "run_level",
        }
    }

    /// The action of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.name() == name)
    }
}

/// What something is done to.
///
/// ```
/// use neuroflow_actors::Target;
/// let target = Target::Tool { agent: Some("shell"), tool: "exec" };
/// assert_eq!(target.to_string(), "Tool::\"exec\" of Agent::\"shell\"");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Target<'a> {
    /// An agent.
    Agent(&'a str),
    /// A skill of an agent.
    Skill {
        /// The agent.
        agent: &'a str,
        /// The skill's id.
        skill: &'a str,
    },
    /// A tool, called for an agent or straight away.
    Tool {
        /// The agent that calls it.
        agent: Option<&'a str>,
        /// The tool's name.
        tool: &'a str,
    },
    /// A level of the sandbox.
    Level(Level),
}

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(agent) => write!(f, "Agent::{agent:?}"),
            Self::Skill { agent, skill } => write!(f, "Skill::{skill:?} of Agent::{agent:?}"),
            Self::Tool { agent: None, tool } => write!(f, "Tool::{tool:?}"),
            Self::Tool { agent: Some(agent), tool } => {
                write!(f, "Tool::{tool:?} of Agent::{agent:?}")
            }
            Self::Level(level) => write!(f, "Level::\"{level}\""),
        }
    }
}

/// Decides what principals may do. It must not block.
///
/// ```
/// use neuroflow_actors::{Action, Principal, Rules, Target, Ruling};
/// #[derive(Debug)]
/// struct ReadOnly;
/// impl Rules for ReadOnly {
///     fn decide(&self, _: &Principal, action: Action, _: &Target<'_>) -> Ruling {
///         Ruling::by_rule(action == Action::Read, "read-only")
///     }
/// }
/// let ruling = ReadOnly.decide(&Principal::anonymous(), Action::Ask, &Target::Agent("echo"));
/// assert!(!ruling.allowed);
/// ```
pub trait Rules: Send + Sync + fmt::Debug + 'static {
    /// Whether the principal may do that, by what is said of this very action. A gateway asks for the `ruling`, which
    /// has what follows from other actions too.
    fn decide(&self, principal: &Principal, action: Action, target: &Target<'_>) -> Ruling;

    /// Whether everybody may do everything, so that nothing has to be asked or remembered.
    fn is_unrestricted(&self) -> bool {
        false
    }
}

impl dyn Rules {
    /// Whether the principal may do that: by what is said of the action, and where nothing is, by what follows from
    /// another. Who may supervise an agent may read and cancel its tasks, unless that is forbidden.
    ///
    /// ```
    /// use neuroflow_actors::{Action, Principal, Rules, Ruling, Target};
    /// #[derive(Debug)]
    /// struct Overseer;
    /// impl Rules for Overseer {
    ///     fn decide(&self, _: &Principal, action: Action, _: &Target<'_>) -> Ruling {
    ///         match action {
    ///             Action::Supervise => Ruling::by_rule(true, "may look"),
    ///             Action::Cancel => Ruling::by_rule(false, "and not touch"),
    ///             _ => Ruling::by_default(),
    ///         }
    ///     }
    /// }
    /// let (rules, who): (&dyn Rules, _) = (&Overseer, Principal::anonymous());
    /// assert!(rules.ruling(&who, Action::Read, &Target::Agent("echo")).allowed);
    /// assert!(rules.ruling(&who, Action::Cancel, &Target::Agent("echo")).is_forbidden());
    /// ```
    pub fn ruling(&self, principal: &Principal, action: Action, target: &Target<'_>) -> Ruling {
        let own = self.decide(principal, action, target);
        let follows = matches!(action, Action::Read | Action::Cancel);
        if own.allowed || own.is_forbidden() || !follows {
            return own;
        }
        let mut above = self.decide(principal, Action::Supervise, target);
        if !above.allowed {
            return own;
        }
        above.errors.splice(..0, own.errors);
        above
    }
}

/// A decision, and what has decided it.
///
/// ```
/// let ruling = neuroflow_actors::Ruling::by_rule(true, "everybody");
/// assert_eq!(ruling.policies, ["everybody"]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// Whether it's allowed.
    pub allowed: bool,
    /// The policies that decided: those that allow it, or those that forbid it, whatever others allow. None if nothing
    /// allowed it.
    pub policies: Vec<String>,
    /// Policies that couldn't be evaluated and so didn't count, and why.
    pub errors: Vec<String>,
}

impl Ruling {
    /// Decided by one rule.
    pub fn by_rule(allowed: bool, rule: &str) -> Self {
        Self { allowed, policies: vec![rule.to_owned()], errors: Vec::new() }
    }

    /// Nothing allowed it.
    pub fn by_default() -> Self {
        Self { allowed: false, policies: Vec::new(), errors: Vec::new() }
    }

    /// Whether something forbids it, so that it doesn't follow from anything else either.
    ///
    /// ```
    /// use neuroflow_actors::Ruling;
    /// assert!(Ruling::by_rule(false, "never").is_forbidden());
    /// assert!(!Ruling::by_default().is_forbidden());
    /// ```
    pub fn is_forbidden(&self) -> bool {
        !self.allowed && !self.policies.is_empty()
    }
}

/// Allows everything: for a gateway that asks nobody who they are.
///
/// ```
/// use neuroflow_actors::{Action, Principal, Rules, Target, Unrestricted};
/// let (nobody, agent) = (Principal::anonymous(), Target::Agent("echo"));
/// assert!(Unrestricted.decide(&nobody, Action::Ask, &agent).allowed);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Unrestricted;

impl Rules for Unrestricted {
    fn decide(&self, _: &Principal, _: Action, _: &Target<'_>) -> Ruling {
        Ruling::by_rule(true, "unrestricted")
    }

    fn is_unrestricted(&self) -> bool {
        true
    }
}

/// What a capability says about whom it was narrowed for. It's the policy of a gateway's capability
/// to an agent, and of the agent's to the tools while it works for that principal.
///
/// ```
/// use std::sync::Arc;
/// use neuroflow_actors::{CallerGrant, Principal, Unrestricted};
/// let grant = CallerGrant::new(Principal::anonymous(), Arc::new(Unrestricted));
/// assert!(grant.permits_tool(Some("shell"), "exec") && grant.sees_all("shell"));
/// ```
#[derive(Clone, Debug)]
pub struct CallerGrant {
    principal: Principal,
    rules: Arc<dyn Rules>,
}

impl CallerGrant {
    /// For a principal, under the rules of this moment.
    pub fn new(principal: Principal, rules: Arc<dyn Rules>) -> Self {
        Self { principal, rules }
    }

    /// For whom.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Whether the principal may do that.
    pub fn permits(&self, action: Action, target: &Target<'_>) -> bool {
        self.rules.ruling(&self.principal, action, target).allowed
    }

    /// Whether there are no rules that could forbid anything.
    pub fn is_unrestricted(&self) -> bool {
        self.rules.is_unrestricted()
    }

    /// Whether a tool may be called, for an agent or straight away.
    pub fn permits_tool(&self, agent: Option<&str>, tool: &str) -> bool {
        self.permits(Action::CallTool, &Target::Tool { agent, tool })
    }

    /// Whether programs may run in cells of this level.
    pub fn permits_level(&self, level: Level) -> bool {
        self.permits(Action::RunLevel, &Target::Level(level))
    }

    /// Whether tasks of others are the principal's own too, for what it may do with its own.
    pub fn sees_all(&self, agent: &str) -> bool {
        self.permits(Action::Supervise, &Target::Agent(agent))
    }
}

/// Where a gateway's access comes from.
///
/// ```
/// use neuroflow_actors::AccessConfig;
/// let config = AccessConfig::default();
/// assert!(!config.authenticates());
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AccessConfig {
    /// The file of bearer tokens.
    pub tokens: Option<PathBuf>,
    /// Who issues tokens that are JWTs.
    pub issuer: Option<Issuer>,
    /// Whether a client's certificate is a credential. Which ones are taken, TLS decides.
    pub certificates: bool,
    /// What principals may do.
    pub rules: RulesSource,
    /// What a principal may have at once.
    pub limits: Limits,
    /// Who counts decisions.
    pub meter: Arc<dyn AccessMeter>,
    /// Where it's recorded that tokens or policies were replaced; a node's builder sets it.
    pub audit: Audit,
}

impl Default for AccessConfig {
    fn default() -> Self {
        Self {
            tokens: None,
            issuer: None,
            certificates: false,
            rules: RulesSource::default(),
            limits: Limits::default(),
            meter: Arc::new(Uncounted),
            audit: Audit::off(),
        }
    }
}

impl AccessConfig {
    /// Whether a request needs a credential.
    pub fn authenticates(&self) -> bool {
        self.tokens.is_some() || self.issuer.is_some() || self.certificates
    }
}

/// Counts what access decides. It must not block.
///
/// ```
/// use neuroflow_actors::AccessMeter;
/// #[derive(Debug)]
/// struct Printer;
/// impl AccessMeter for Printer {
///     fn authentication(&self, outcome: &'static str) {
///         println!("authentication: {outcome}");
///     }
/// }
/// ```
pub trait AccessMeter: Send + Sync + fmt::Debug + 'static {
    /// A request said who asks, `ok` or the code of an [`AuthError`].
    fn authentication(&self, _outcome: &'static str) {}
    /// A principal may do something, or not.
    fn authorisation(&self, _action: Action, _allowed: bool) {}
    /// A principal has asked for more than it may.
    fn throttled(&self) {}
    /// Tokens, policies, certificates or an issuer's keys have changed, and were taken over or not.
    fn reload(&self, _what: &'static str, _taken: bool) {}
}

#[derive(Debug)]
struct Uncounted;

impl AccessMeter for Uncounted {}

/// Where the rules come from.
///
/// ```
/// use neuroflow_actors::RulesSource;
/// assert!(matches!(RulesSource::default(), RulesSource::ByAuthentication));
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum RulesSource {
    /// Without authentication everything is allowed, and with it nothing.
    #[default]
    ByAuthentication,
    /// A file of Cedar policies, read again when it changes.
    File(PathBuf),
    /// The host program's own.
    Given(Arc<dyn Rules>),
}

/// An issuer of JWTs, found by `OpenID` Connect discovery.
///
/// ```
/// use neuroflow_actors::Issuer;
/// let issuer = Issuer::new("https://id.example.org", "neuroflow");
/// assert_eq!(issuer.groups_claim, "groups");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Issuer {
    /// Its identifier: a URL, below which its discovery document is.
    pub url: String,
    /// Who a token has to be meant for.
    pub audience: String,
    /// Where its keys are, if there is no discovery document.
    pub keys_url: Option<String>,
    /// The claim with the groups of a principal: a text or a list of texts.
    pub groups_claim: String,
    /// How far its clock may be off.
    pub skew: std::time::Duration,
    /// Whether its addresses may be private ones.
    pub allow_private: bool,
    /// A file of certificates (PEM) to trust in place of the system's.
    pub ca: Option<PathBuf>,
}

impl Issuer {
    /// With the usual claim of groups, and a minute of skew.
    pub fn new(url: impl Into<String>, audience: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            audience: audience.into(),
            keys_url: None,
            groups_claim: "groups".to_owned(),
            skew: crate::limits::CLOCK_SKEW,
            allow_private: false,
            ca: None,
        }
    }
}

/// Why access can't be set up, or a changed file isn't taken over.
///
/// ```
/// use neuroflow_actors::AccessError;
/// let error = AccessError::Unsupported { setting: "policy.file" };
/// assert!(error.to_string().contains("policy.file"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// A file can't be read.
    #[error("a file of the gateway's access can't be read")]
    File(#[from] FileError),
    /// The file of tokens isn't one.
    #[error("the file of tokens can't be taken over")]
    Tokens(#[from] TokenFileError),
    /// The policies aren't valid.
    #[cfg(feature = "access")]
    #[error("the policies can't be taken over")]
    Policy(#[from] PolicyError),
    /// The issuer's address can't be used.
    #[cfg(feature = "access")]
    #[error("the issuer of tokens can't be asked")]
    Issuer(#[from] DiscoveryError),
    /// This build lacks what the setting needs.
    #[error("{setting} needs the feature access, which this build doesn't have")]
    Unsupported {
        /// What asks for it.
        setting: &'static str,
    },
}

/// What lies in the mailbox of the access actor.
#[derive(Debug)]
#[cfg_attr(
    not(feature = "access"),
    expect(dead_code, reason = "without issuers there are no keys")
)]
enum AccessCommand {
    /// Look at the issuer's keys again, because a token names one that isn't known. Answered when
    /// that is done, or at once if it was done a moment ago.
    Keys {
        /// The answer.
        reply: Reply<()>,
    },
    /// The actor's own: look whether files have changed and keys are due.
    Look,
    /// The actor's own: what the issuer has said.
    Fetched(keys::Outcome),
}

/// The right to have the issuer's keys looked at.
const KEYS: Rights = Rights::bit(0);

/// No outside capability has this right: it's for the actor's own tasks.
const OWN: Rights = Rights::bit(31);

impl Message for AccessCommand {
    fn name(&self) -> &'static str {
        match self {
            Self::Keys { .. } => "keys",
            Self::Look => "look",
            Self::Fetched(_) => "fetched",
        }
    }

    fn required_rights(&self) -> Rights {
        match self {
            Self::Keys { .. } => KEYS,
            Self::Look | Self::Fetched(_) => OWN,
        }
    }
}
