//! Names, messages, bounded mailboxes, capabilities, supervision, one clock.
//!
//! The kernel knows nothing of models, HTTP, QUIC or processes; it would be as useful if AI agents
//! did not exist. It's built on `ractor`, whose actors, links and priority signals it uses, and
//! closes what that leaves open: mailboxes have a bound, an address names one life or follows a
//! name, every message carries its deadline, trace and budget, and authority is passed, never
//! looked up.

pub mod limits;

mod id;
mod name;

mod budget;
mod clock;
mod sweep;
mod trace;

mod header;

mod message;
mod parcel;

mod capability;

mod address;
mod mailbox;
mod reply;
mod slot;

mod actor;
mod restart;
mod supervisor;

mod registry;

mod event;
mod monitor;
mod remote;

mod core;
mod kernel;

pub use id::{ActorId, Generation, GrantId};
pub use name::{Name, NameError, Path};

pub use budget::{Budget, BudgetSpent};
pub use clock::{Clock, Elapsed, ManualClock, Moment};
pub use trace::{InTrace, TraceContext, TraceError, current_trace};

pub use header::Header;

pub use message::{Archivable, Message, Request, WireMessage, WireRequest};
pub use parcel::{MessageId, Parcel, ParcelError, RawParcel};

pub use capability::{AttenuateError, Denied, Grant, Restriction, Rights};

pub use address::{Address, AskError, CallError, Refusal, SendError};
pub use mailbox::ActorState;
pub use reply::{Reply, ReplySink, ReplyStream, SinkError, StreamError, reply_stream};

pub use actor::{Actor, Context, Ended, Ending, Spawn, StartError, TaskRefused};
pub use restart::{
    Backoff, Decision, ExitKind, Intensity, Restart, RestartHistory, RestartPolicy, Strategy,
    decide,
};
pub use supervisor::{ChildSpec, Supervisor, SupervisorError};

pub use registry::{LookupError, Scope};

pub use event::{
    Cause, FailedMessage, KindObserver, Lifecycle, Observer, Outcome, PostMortem, Span, SpanGuard,
    SpanKind, SpanValue, Subject, Timing, Tracer, TrailEntry, Unobserved,
};
pub use monitor::{Down, Fall, Monitor, MonitorRefused};
pub use remote::{
    Chosen, DeliverError, RawReplies, RemoteError, RemotePort, RemoteTarget, Unheard,
};

pub use core::ActorInfo;
pub use kernel::{Census, Kernel, KernelBuilder};
