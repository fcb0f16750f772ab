//! Agents, the tool router and the gateway, as supervised actors.

pub mod limits;

mod access;
mod agent;
mod audit;
mod builtin;
mod exchange;
mod gateway;
mod held;
#[cfg(feature = "mcp")]
mod mcp;

mod journal;
mod lease;
mod lock;
mod sole;
mod tools;

pub use access::{
    Access, AccessConfig, AccessError, AccessMeter, Action, AuthError, CallerGrant,
    CertificateError, Credential, FileError, FreshToken, Issuer, Limits, PeerCertificate,
    Principal, PrincipalKind, Rules, RulesSource, Ruling, Target, Throttled, TokenFileError,
    TokenName, TokenProblem, Unrestricted, access_child,
};
#[cfg(feature = "access")]
pub use access::{
    CedarPolicies, DiscoveryError, JwtError, KeySetError, PolicyError, PolicyLocation,
};
pub use agent::{
    ASK, Agent, AgentBuilder, AgentCommand, AgentError, AgentProfile, AgentServer, AgentWay,
    Answer, AnyAgent, ArchivedArtifact, ArchivedAsk, ArchivedAskRefusal, ArchivedBoundedAsk,
    ArchivedChange, ArchivedContent, ArchivedPart, ArchivedRole, ArchivedTaskEvent,
    ArchivedTaskOrder, ArchivedTaskState, ArchivedTaskWish, ArchivedTurn, Artifact, Ask,
    AskRefusal, BoundedAsk, CANCEL, CancelError, Change, Chunk, Conclusion, Content, EffectError,
    EndTaskError, ExtendedProfile, Extension, Incoming, InputProblem, Part, Provider, READ,
    ReplyProblem, Role, Skill, TaskContext, TaskCursor, TaskEvent, TaskEvents, TaskOrder, TaskPage,
    TaskQuery, TaskState, TaskWish, Trial, Trials, Turn, end_task, follow,
};
pub use audit::{
    Audit, AuditConfig, AuditError, AuditEvent, AuditId, Audited, AuditedCells, Digest, Fault,
    KeyError, NoDigest, PublicKey, SyncPolicy, Unrecorded, Verdict, Verified, Verifier,
    VerifyFailure, audit_child, verify_files,
};
pub use builtin::{Echo, Proxy, ProxyPlace, ProxyRoute, Python, Shell};
pub use gateway::{
    CardKey, CardKeyError, DoorConfig, GatewayAgent, GatewayConfig, GatewayError, Meter, Metered,
    Mount, PushBasis, PushCommand, PushConfig, PushCreator, PushError, PushJournal, PushOptions,
    PushPlace, PushRecord, PushSecret, PushShared, PushStartError, PushStore, PushStoreError,
    PushTask, RequestId, SecurityScheme, TlsError, TlsFiles, WebhookProblem, gateway_child,
    push_child,
};
pub use journal::{
    APPEND, Append, AppendError, ArchivedCallEnd, ArchivedCallRecord, ArchivedOutcomeRecord,
    ArchivedRecordedJson, CallEnd, CallRecord, Condition, DamageKind, DatabaseError, EffectResult,
    Entry, EntryKind, HeadPage, Journal, JournalCommand, JournalConfig, JournalDamage,
    JournalPlace, JournalServer, OpenError, OpenReport, OpenedJournal, OutcomeRecord, READ_LOG,
    REMOVE, ReadError, RecordedJson, Retention, TaskHead, TaskLog, UrlError,
};
pub use lease::{
    Fence, Holder, LeaseError, Leases, LeasesConfig, Place, Singleton, SingletonError,
};
#[cfg(feature = "mcp")]
pub use mcp::{
    Asking, AuthorizationServer, Breach, ClientProof, Consent, ConsentError, Forms, HttpError,
    KeptTokenError, McpDoor, McpError, McpExec, McpHandler, McpMeter, McpPrograms, McpServeError,
    McpSetupError, McpSource, McpStep, McpTransport, OAuth, OAuthError, OAuthGrant, ProofAlgorithm,
    Registration, ToolFilter, mcp_routes,
};
pub use sole::{Far, MakeServer, Shard, SoleAgent, SoleCommand, SoleParts, SoleWatch, sole_child};
pub use tools::{
    AnyTool, ArchivedToolBounds, ExecArguments, ExecOutput, ExecTool, INVOKE, Invoke, InvokeError,
    Offer, Offered, Outcome, Problem, PythonArguments, PythonTool, Refused, SchemaError,
    SchemaExcess, Tool, ToolBounds, ToolContext, ToolEntry, ToolError, ToolGrant, ToolListing,
    ToolProgress, ToolResult, ToolServer, ToolSource, ToolsCommand, Unfit, invoke, invoke_told,
    list_tools,
};
