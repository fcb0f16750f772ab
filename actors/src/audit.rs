//! The contract of the audit log: what is recorded, how it's asked for, and how it can fail.
//!
//! No event has a field that can hold a secret: words of the program itself, digests, numbers,
//! addresses, and identifiers that are kept by their digest when they look like anything else.

mod cells;
mod chain;
mod digest;
mod file;
mod key;
mod record;
mod server;
#[cfg(any(feature = "mcp", feature = "access"))]
pub(crate) mod uses;
mod verify;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use neuroflow_kernel::{
    Address, CallError, ChildSpec, Header, Message, NameError, Refusal, Reply, TraceContext,
};
use serde::Serialize;

use crate::journal::Condition;
use crate::limits::AUDIT_QUEUE;

pub use cells::AuditedCells;
pub use digest::{AuditId, Digest, NoDigest};
pub use file::{Audited, VerifyFailure, verify_files};
pub use key::{KeyError, PublicKey};
pub use verify::{Fault, Verified, Verifier};

use server::AuditServer;

/// Something that has to be accounted for.
///
/// ```
/// use neuroflow_actors::{AuditEvent, AuditId, Verdict};
/// let event = AuditEvent::Authorisation {
///     principal: Some(AuditId::new("alice")),
///     action: "agent.ask",
///     resource: AuditId::new("shell"),
///     verdict: Verdict::Denied,
///     reason: "no_policy",
/// };
/// assert_eq!(event.kind(), "authorisation");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum AuditEvent {
    /// The node has started.
    NodeStarted {
        /// Its version.
        version: AuditId,
        /// Of its configuration.
        config: Option<Digest>,
    },
    /// The node has stopped in good order.
    NodeStopped,
    /// Somebody has shown, or not shown, who they are.
    Authentication {
        /// How: `bearer`, `jwt`, `mtls`.
        scheme: &'static str,
        /// Who, if that is known.
        principal: Option<AuditId>,
        /// Where from.
        peer: Option<IpAddr>,
        /// What came of it.
        verdict: Verdict,
        /// Why, in one of the program's own words.
        reason: &'static str,
    },
    /// It was decided whether somebody may do something.
    Authorisation {
        /// Who; nobody where authentication is off.
        principal: Option<AuditId>,
        /// What.
        action: &'static str,
        /// With what.
        resource: AuditId,
        /// The decision.
        verdict: Verdict,
        /// Why, in one of the program's own words.
        reason: &'static str,
    },
    /// A request wasn't let in, whoever it's from.
    RequestRefused {
        /// Who, if that was asked.
        principal: Option<AuditId>,
        /// Where from.
        peer: Option<IpAddr>,
        /// Why, in one of the program's own words.
        reason: &'static str,
    },
    /// More requests weren't let in, for want of a credential or otherwise, than are in the log one by
    /// one.
    RefusalsUnlisted {
        /// Where from; nowhere in particular for those of too many peers at once.
        peer: Option<IpAddr>,
        /// How many since the last such record, or the start.
        requests: u64,
    },
    /// A capability was used.
    CapabilityUse {
        /// Whose it is.
        holder: AuditId,
        /// What it's for: `tool`, `exec`.
        capability: &'static str,
        /// On what.
        target: AuditId,
        /// Whether it had the right.
        verdict: Verdict,
    },
    /// A program runs in a cell.
    CellStarted {
        /// The cell's actor.
        cell: AuditId,
        /// Its level.
        level: AuditId,
        /// Of its profile.
        profile: Digest,
        /// Of the program's path and arguments.
        program: Digest,
    },
    /// A cell has ended.
    CellEnded {
        /// The cell's actor.
        cell: AuditId,
        /// Its level.
        level: AuditId,
        /// How.
        how: &'static str,
        /// Layers that it had to do without.
        degraded: Vec<AuditId>,
        /// System calls that it was refused.
        denied_calls: u64,
        /// Requests to other machines of which no event is in the log, because they were too many.
        unlisted_requests: u64,
    },
    /// There was no cell.
    CellRefused {
        /// Why, in one of the program's own words.
        reason: AuditId,
    },
    /// Something wanted to reach another machine.
    Egress {
        /// What: a cell's actor, or a server of the node.
        source: AuditId,
        /// The host that was asked for.
        host: AuditId,
        /// The port.
        port: u16,
        /// The address that was connected to.
        address: Option<IpAddr>,
        /// The decision.
        verdict: Verdict,
        /// Why, in one of the program's own words.
        reason: &'static str,
        /// Bytes that left.
        bytes_up: u64,
        /// Bytes that came in.
        bytes_down: u64,
    },
    /// A credential was used.
    CredentialUse {
        /// Which: its name, never what it is.
        credential: AuditId,
        /// By what.
        user: AuditId,
        /// For what.
        purpose: &'static str,
    },
    /// A source of tools, such as an MCP server, offers others than before.
    ToolsOffered {
        /// The source: `mcp/NAME`.
        source: AuditId,
        /// How many there are now.
        tools: usize,
        /// Of their names, descriptions and arguments, and of who may call them.
        digest: Digest,
        /// How many weren't taken.
        refused: usize,
    },
    /// Something was decided about a node of the cluster, or asked of it.
    Membership {
        /// What: `invite`, `joined`, `shut_out`, `drain`, `undrain`.
        action: &'static str,
        /// Which node, by name or id.
        node: AuditId,
        /// The roles that it's given.
        roles: Vec<AuditId>,
        /// Which other node wants it; nobody: the operator here, or the cluster's authority.
        by: Option<AuditId>,
        /// The decision.
        verdict: Verdict,
        /// Why, in one of the program's own words.
        reason: &'static str,
    },
    /// A part of the configuration was replaced, or not.
    ConfigChanged {
        /// Which part.
        part: &'static str,
        /// Of the new one.
        digest: Digest,
        /// Whether it was taken.
        verdict: Verdict,
    },
}

impl AuditEvent {
    /// Its kind, as the log has it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NodeStarted { .. } => "node_started",
            Self::NodeStopped => "node_stopped",
            Self::Authentication { .. } => "authentication",
            Self::Authorisation { .. } => "authorisation",
            Self::RequestRefused { .. } => "request_refused",
            Self::RefusalsUnlisted { .. } => "refusals_unlisted",
            Self::CapabilityUse { .. } => "capability_use",
            Self::CellStarted { .. } => "cell_started",
            Self::CellEnded { .. } => "cell_ended",
            Self::CellRefused { .. } => "cell_refused",
            Self::Egress { .. } => "egress",
            Self::CredentialUse { .. } => "credential_use",
            Self::ToolsOffered { .. } => "tools_offered",
            Self::Membership { .. } => "membership",
            Self::ConfigChanged { .. } => "config_changed",
        }
    }
}

/// A decision.
///
/// ```
/// assert_ne!(neuroflow_actors::Verdict::Allowed, neuroflow_actors::Verdict::Denied);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Yes.
    Allowed,
    /// No.
    Denied,
    /// Yes, and it couldn't be carried out to its end.
    Failed,
}

/// When a record is on disk.
///
/// ```
/// assert_eq!(neuroflow_actors::SyncPolicy::default(), neuroflow_actors::SyncPolicy::Each);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Before whoever asked is told that it's recorded. Those who ask at the same time share one
    /// synchronisation.
    #[default]
    Each,
    /// At the latest [`AUDIT_SYNC_INTERVAL`](crate::limits::AUDIT_SYNC_INTERVAL) after that. What a
    /// node's end leaves in the system's cache isn't lost, what a machine's end leaves there is.
    Interval,
}

/// What an audit log is started with.
///
/// ```
/// use neuroflow_actors::{AuditConfig, SyncPolicy};
/// let config = AuditConfig::new("/var/lib/neuroflow/audit.log");
/// assert!(config.required && config.sync == SyncPolicy::Each);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditConfig {
    /// The file that is written to; full ones are renamed to it with a number behind.
    pub file: PathBuf,
    /// The key that signs, in a file that only its owner may read; made if it isn't there.
    pub key: PathBuf,
    /// When a record is on disk.
    pub sync: SyncPolicy,
    /// Whether a decision that can't be recorded is refused.
    pub required: bool,
    /// Of the node's configuration.
    pub config: Option<Digest>,
    /// The node's version.
    pub version: String,
}

impl AuditConfig {
    /// A log in this file, with its key beside it.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        let file = file.into();
        Self {
            key: file::beside(&file, "key"),
            file,
            sync: SyncPolicy::default(),
            required: true,
            config: None,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// The way to the audit log, cheap to clone; or to none, which takes everything.
///
/// ```
/// use neuroflow_actors::{Audit, AuditEvent};
/// use neuroflow_kernel::TraceContext;
/// // Without a log nothing is recorded, and nothing fails.
/// Audit::off().note(TraceContext::default(), AuditEvent::NodeStopped);
/// ```
#[derive(Clone, Default)]
pub struct Audit(Option<Arc<Door>>);

struct Door {
    address: Address<AuditCommand>,
    losses: Arc<Losses>,
    required: bool,
}

/// What isn't in the log.
#[derive(Debug)]
struct Losses {
    /// Notes that the log had no room for; the next record says how many.
    waiting: AtomicU64,
    /// All of them since the start.
    ever: AtomicU64,
    condition: Condition,
}

impl Losses {
    fn add(&self, notes: u64) {
        self.waiting.fetch_add(notes, Ordering::Relaxed);
        self.ever.fetch_add(notes, Ordering::Relaxed);
    }
}

impl Audit {
    /// No log.
    pub fn off() -> Self {
        Self::default()
    }

    /// Whether there is a log.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Records what is to be done if it's recorded only; where recording isn't required, it's
    /// [noted](Self::note). Gives the record's number, if there is one.
    ///
    /// # Errors
    /// Says why it isn't recorded; it must not be done then.
    pub async fn decide(
        &self,
        header: Header,
        event: AuditEvent,
    ) -> Result<Option<u64>, Unrecorded> {
        match &self.0 {
            Some(door) if door.required => self.record(header, event).await,
            Some(_) => {
                self.note(header.trace(), event);
                Ok(None)
            }
            None => Ok(None),
        }
    }

    /// Records, and waits until that is done. Gives the record's number, if there is a log.
    ///
    /// # Errors
    /// Says why it isn't recorded.
    pub async fn record(
        &self,
        header: Header,
        event: AuditEvent,
    ) -> Result<Option<u64>, Unrecorded> {
        let Some(door) = &self.0 else { return Ok(None) };
        let command = |reply| AuditCommand::Record { event, reply };
        match door.address.call(header, command).await {
            Ok(recorded) => recorded.map(Some),
            Err(error) => {
                let error = Unrecorded::from(error);
                door.losses.condition.refuse(error.code(), 1);
                Err(error)
            }
        }
    }

    /// How the log does, if there is one; for readiness and metrics.
    pub fn condition(&self) -> Option<&Condition> {
        self.0.as_ref().map(|door| &door.losses.condition)
    }

    /// Whether a decision that can't be recorded is refused.
    pub fn is_required(&self) -> bool {
        self.0.as_ref().is_some_and(|door| door.required)
    }

    /// Events that are missing in the log since the start, each of which a record accounts for once
    /// there is room.
    pub fn lost(&self) -> u64 {
        self.0.as_ref().map_or(0, |door| door.losses.ever.load(Ordering::Relaxed))
    }

    /// Records without waiting. What there is no room for is counted, and the count is recorded.
    pub fn note(&self, trace: TraceContext, event: AuditEvent) {
        let Some(door) = &self.0 else { return };
        let header = Header::new().traced(trace);
        if let Err(refused) = door.address.try_tell(header, AuditCommand::Note { event }) {
            door.losses.add(1);
            let kind = refused.message.name();
            tracing::error!(kind, reason = %refused.reason, "not in the audit log");
        }
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audit").field("on", &self.is_on()).finish_non_exhaustive()
    }
}

/// What lies in the audit log's mailbox.
#[derive(Debug)]
enum AuditCommand {
    /// Record it, and say so.
    Record {
        /// What.
        event: AuditEvent,
        /// The record's number, or why there is none.
        reply: Reply<Result<u64, Unrecorded>>,
    },
    /// Record it.
    Note {
        /// What.
        event: AuditEvent,
    },
}

impl Message for AuditCommand {
    fn name(&self) -> &'static str {
        match self {
            Self::Record { .. } => "record",
            Self::Note { .. } => "note",
        }
    }
}

/// Why an event isn't recorded.
///
/// ```
/// use neuroflow_actors::Unrecorded;
/// use neuroflow_kernel::CallError;
/// let error = Unrecorded::from(CallError::DeadlineExceeded);
/// assert!(error.to_string().contains("audit log"));
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unrecorded {
    /// The disk is full.
    #[error(
        "the disk of the audit log is full; make room, or move full files of the log elsewhere"
    )]
    Full {
        /// What the system says.
        #[source]
        source: Arc<io::Error>,
    },
    /// The file can't be written.
    #[error("the audit log can't be written")]
    Write {
        /// What the system says.
        #[source]
        source: Arc<io::Error>,
    },
    /// The disk has failed to flush, and nothing is recorded until the node is started anew: nobody knows what it has.
    #[error("the audit log's disk has failed; check it, and start the node anew")]
    Broken {
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// The log's actor doesn't answer.
    #[error("the audit log doesn't answer")]
    Unanswered(#[from] CallError),
}

impl Unrecorded {
    /// A stable word for metrics and readiness.
    ///
    /// ```
    /// use neuroflow_actors::Unrecorded;
    /// use neuroflow_kernel::CallError;
    /// assert_eq!(Unrecorded::from(CallError::DeadlineExceeded).code(), "unanswered");
    /// ```
    pub fn code(&self) -> &'static str {
        match self {
            Self::Full { .. } => "disk_full",
            Self::Write { .. } => "io",
            Self::Broken { .. } => "broken",
            Self::Unanswered(_) => "unanswered",
        }
    }
}

impl From<io::Error> for Unrecorded {
    fn from(error: io::Error) -> Self {
        let source = Arc::new(error);
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { source },
            _ => Self::Write { source },
        }
    }
}

/// Why an audit log doesn't start.
///
/// ```
/// use neuroflow_actors::AuditError;
/// let error = AuditError::Taken { file: "audit.log".into() };
/// assert!(error.to_string().contains("audit.log"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// A file of it can't be read or written.
    #[error("{} can't be used for the audit log", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Another node writes it.
    #[error("another node writes the audit log {}; give each its own", file.display())]
    Taken {
        /// The log.
        file: PathBuf,
    },
    /// What is there was changed, or isn't an audit log.
    #[error(
        "the audit log that is there isn't as it was written; keep its files, and begin a new one elsewhere"
    )]
    Broken(#[from] VerifyFailure),
    /// There is no key to sign with.
    #[error("the audit log can't be signed")]
    Key(#[from] KeyError),
    /// Its actor has as many tasks as it may.
    #[error("the audit log's writer can't be started")]
    Writer(#[source] Refusal),
}

/// The audit log as a child, and the way to it.
///
/// ```
/// use neuroflow_actors::{AuditConfig, audit_child};
/// let (spec, audit) = audit_child(AuditConfig::new("/var/lib/neuroflow/audit.log"))?;
/// assert_eq!(spec.name().as_str(), "audit");
/// assert!(audit.is_on());
/// # Ok::<(), neuroflow_kernel::NameError>(())
/// ```
///
/// # Errors
/// Says what is wrong with the name.
pub fn audit_child(config: AuditConfig) -> Result<(ChildSpec, Audit), NameError> {
    let (waiting, ever) = (AtomicU64::new(0), AtomicU64::new(0));
    let losses = Arc::new(Losses { waiting, ever, condition: Condition::new("audit") });
    let (required, counted) = (config.required, Arc::clone(&losses));
    let factory = move || AuditServer::new(config.clone(), Arc::clone(&counted));
    let (spec, address) = ChildSpec::new("audit", factory)?;
    let audit = Audit(Some(Arc::new(Door { address, losses, required })));
    Ok((spec.mailbox(AUDIT_QUEUE), audit))
}
