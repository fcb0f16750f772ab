//! The contract of tools: how one is defined, called, and answered.
//!
//! Long, because each type that a tool meets has its documentation and its example here. The caller's side is in
//! `tools/invoke.rs`.

mod bounds;
pub(crate) mod exec;
mod invoke;
mod listing;
mod older;
mod python;
mod said;
mod schema;
mod server;
mod source;

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use neuroflow_kernel::{
    Clock, Header, Message, ParcelError, RawParcel, Reply, Request, Rights, Tracer, WireMessage,
    WireRequest,
};
use rkyv::{Archive, Serialize};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::limits::TOOL_ARGUMENT_BYTES;

pub use bounds::{ArchivedToolBounds, ToolBounds};
pub use exec::{ExecArguments, ExecOutput, ExecTool};
pub(crate) use invoke::invoke_json;
pub use invoke::{InvokeError, ToolResult, invoke, invoke_told};
pub use listing::{ToolListing, list_tools};
pub use python::{PythonArguments, PythonTool};
pub use schema::{Problem, SchemaError, SchemaExcess};
pub use server::{ToolEntry, ToolServer};
pub use source::{Offer, Offered, ToolSource, Unfit};

/// The right to call tools.
pub const INVOKE: Rights = Rights::bit(0);

/// A request to run a tool.
///
/// ```
/// use neuroflow_actors::Invoke;
/// let invoke = Invoke { tool: "add".into(), arguments: r#"{"a":1,"b":2}"#.into() };
/// assert_eq!(invoke.tool, "add");
/// ```
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Invoke {
    /// The tool's name.
    pub tool: String,
    /// A JSON object.
    pub arguments: String,
}

impl WireMessage for Invoke {
    const NAME: &'static str = "neuroflow.tools.invoke";
    const VERSION: u16 = 1;
    const SIZE_LIMIT: usize = TOOL_ARGUMENT_BYTES + 1024;
}

impl WireRequest for Invoke {
    type Reply = Outcome;
}

/// What a tool call has come to.
///
/// ```
/// use neuroflow_actors::Outcome;
/// assert_ne!(Outcome::Done { json: "1".into() }, Outcome::Done { json: "2".into() });
/// ```
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The result.
    Done {
        /// A JSON value.
        json: String,
    },
    /// There is none.
    Refused(Refused),
    /// None yet: the call goes on, and another outcome follows.
    Progress(ToolProgress),
}

impl WireMessage for Outcome {
    const NAME: &'static str = "neuroflow.tools.outcome";
    const VERSION: u16 = 2;

    fn upgrade(old: &RawParcel) -> Result<Self, ParcelError> {
        older::upgrade(old)
    }
}

/// How far a call has come.
///
/// ```
/// use neuroflow_actors::ToolProgress;
/// let progress = ToolProgress { written_bytes: 6, line: "hello".into() };
/// assert!(progress > ToolProgress::default());
/// ```
#[derive(Archive, Serialize, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ToolProgress {
    /// What a program has written so far, in bytes.
    pub written_bytes: u64,
    /// The last line of it, for people: without control characters, and no longer than
    /// [`PROGRESS_LINE_BYTES`](crate::limits::PROGRESS_LINE_BYTES).
    pub line: String,
}

/// Why a tool call has no result.
///
/// ```
/// use neuroflow_actors::Refused;
/// let refused = Refused::Unknown { tool: "fly".into() };
/// assert_eq!(refused.to_string(), "there is no tool \"fly\" for this agent");
/// ```
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The tool isn't there, or isn't granted to the caller.
    #[error("there is no tool {tool:?} for this agent")]
    Unknown {
        /// What was asked for.
        tool: String,
    },
    /// An argument doesn't fit the tool's schema.
    #[error("{} {problem}", if field.is_empty() { "arguments:".to_owned() } else { format!("argument {field}") })]
    Argument {
        /// Where: a JSON pointer, empty for the arguments as a whole.
        field: String,
        /// What is wrong.
        problem: String,
    },
    /// As many calls as may run are running.
    #[error("too many tool calls are running")]
    Busy,
    /// Its time was up.
    #[error("the tool's time was up")]
    TimedOut,
    /// The tool says no.
    #[error("{code}: {message}")]
    Failed {
        /// A word that programs can decide by.
        code: String,
        /// For people.
        message: String,
    },
}

/// What lies in the tool router's mailbox.
///
/// ```
/// use neuroflow_actors::ToolsCommand;
/// use neuroflow_kernel::Message;
/// fn label(command: &ToolsCommand) -> &'static str {
///     command.name()
/// }
/// ```
#[derive(Debug)]
pub enum ToolsCommand {
    /// Run a tool. Needs [`INVOKE`] and a capability with a [`ToolGrant`].
    Invoke(Request<Invoke>),
    /// Say what there is: through a capability with a [`ToolGrant`] what that reaches, without one
    /// everything. Needs [`INVOKE`].
    List {
        /// The answer, by name.
        reply: Reply<Vec<ToolListing>>,
    },
    /// A source's tools from now on. It comes from the router's own children, which alone have its
    /// full address.
    Offer(Offer),
}

/// No outside capability has this right: it's for the router's own children.
const OFFER: Rights = Rights::bit(31);

impl Message for ToolsCommand {
    fn name(&self) -> &'static str {
        match self {
            Self::Invoke(_) => "invoke",
            Self::List { .. } => "list",
            Self::Offer(_) => "offer",
        }
    }

    fn required_rights(&self) -> Rights {
        match self {
            Self::Invoke(_) | Self::List { .. } => INVOKE,
            Self::Offer(_) => OFFER,
        }
    }

    fn archive(&self) -> Option<RawParcel> {
        match self {
            Self::Invoke(request) => request.archive(),
            _ => None,
        }
    }
}

/// The policy in a capability to the tool router: whose tools it reaches.
///
/// ```
/// use neuroflow_actors::ToolGrant;
/// let grant = ToolGrant { owner: "coder".into(), shared: vec!["exec".into()] };
/// assert!(grant.shared.contains(&"exec".to_string()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolGrant {
    /// The agent whose own tools it reaches.
    pub owner: String,
    /// Names of the shared tools that it reaches.
    pub shared: Vec<String>,
}

/// A tool: an async function with typed arguments.
///
/// The `#[tool]` attribute makes one of an `async fn`: its doc comment is the description.
///
/// ```
/// use neuroflow_actors::{Tool, ToolContext, ToolError};
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// struct Sum { a: i64, b: i64 }
/// struct Add;
/// impl Tool for Add {
///     type Arguments = Sum;
///     type Output = i64;
///     fn name(&self) -> &'static str { "add" }
///     fn description(&self) -> &'static str { "Adds two numbers." }
///     async fn call(&self, sum: Sum, _: ToolContext) -> Result<i64, ToolError> {
///         sum.a.checked_add(sum.b).ok_or_else(|| ToolError::new("overflow", "the sum is too large"))
///     }
/// }
/// ```
pub trait Tool: Send + Sync + 'static {
    /// The arguments; their JSON Schema is what callers see and what is checked.
    type Arguments: DeserializeOwned + JsonSchema + Send;
    /// The result.
    type Output: serde::Serialize + Send;

    /// Its name: a [`Name`](neuroflow_kernel::Name).
    fn name(&self) -> &'static str;

    /// What it does, for whoever decides to call it.
    fn description(&self) -> &'static str;

    /// The level of the cells that it runs programs of its caller's in; none if it runs none.
    fn level(&self) -> Option<neuroflow_sandbox::Level> {
        None
    }

    /// Does it. Dropped at the next `await` when the caller has gone or the time is up.
    fn call(
        &self,
        arguments: Self::Arguments,
        context: ToolContext,
    ) -> impl Future<Output = Result<Self::Output, ToolError>> + Send;
}

/// What a running tool is given.
///
/// ```
/// fn deadline(context: &neuroflow_actors::ToolContext) -> Option<neuroflow_kernel::Moment> {
///     context.header().deadline()
/// }
/// ```
#[derive(Clone, Debug)]
pub struct ToolContext {
    header: Header,
    clock: Clock,
    tracer: Tracer,
    told: said::Told,
}

impl ToolContext {
    /// The header for messages that work for this call.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The kernel's clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Begins spans.
    pub fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    /// Tells who called how far it has come. Only the last of what is told in
    /// [`TOOL_PROGRESS`](crate::limits::TOOL_PROGRESS) is heard.
    pub fn progress(&self, progress: ToolProgress) {
        self.told.tell(progress);
    }
}

/// Why a tool has no result.
///
/// ```
/// use neuroflow_actors::ToolError;
/// let error = ToolError::new("not_found", "no such city");
/// assert_eq!(error.code(), "not_found");
/// ```
#[derive(Debug, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ToolError {
    code: &'static str,
    message: String,
    #[source]
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl ToolError {
    /// A word that programs can decide by, and a text for people.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), source: None }
    }

    /// With what caused it.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The word.
    pub fn code(&self) -> &'static str {
        self.code
    }
}

pub(crate) type Calling<'a> = Pin<Box<dyn Future<Output = Result<String, ToolError>> + Send + 'a>>;

/// Any tool, behind a pointer.
///
/// ```
/// # use neuroflow_actors::{Tool, ToolContext, ToolError};
/// # #[derive(serde::Deserialize, schemars::JsonSchema)] struct Nothing {}
/// # struct Noop;
/// # impl Tool for Noop {
/// #     type Arguments = Nothing; type Output = ();
/// #     fn name(&self) -> &'static str { "noop" }
/// #     fn description(&self) -> &'static str { "Does nothing." }
/// #     async fn call(&self, _: Nothing, _: ToolContext) -> Result<(), ToolError> { Ok(()) }
/// # }
/// let tool = neuroflow_actors::AnyTool::new(Noop);
/// assert_eq!(tool.name(), "noop");
/// ```
#[derive(Clone)]
pub struct AnyTool(Arc<dyn DynTool>);

/// A tool whose arguments are JSON that fits its schema.
pub(crate) trait DynTool: Send + Sync {
    fn name(&self) -> &str;
    fn description(&self) -> &str;
    fn schema(&self) -> serde_json::Value;
    fn level(&self) -> Option<neuroflow_sandbox::Level> {
        None
    }
    fn call(&self, arguments: serde_json::Value, context: ToolContext) -> Calling<'_>;
}

impl<T: Tool> DynTool for T {
    fn name(&self) -> &str {
        Tool::name(self)
    }

    fn description(&self) -> &str {
        Tool::description(self)
    }

    fn level(&self) -> Option<neuroflow_sandbox::Level> {
        Tool::level(self)
    }

    fn schema(&self) -> serde_json::Value {
        schemars::schema_for!(T::Arguments).to_value()
    }

    fn call(&self, arguments: serde_json::Value, context: ToolContext) -> Calling<'_> {
        Box::pin(async move {
            let unfit = |error| {
                ToolError::new("invalid_arguments", "the arguments don't fit").caused_by(error)
            };
            let arguments: T::Arguments = serde_json::from_value(arguments).map_err(unfit)?;
            let output = Tool::call(self, arguments, context).await?;
            let unfit =
                |error| ToolError::new("invalid_output", "the result isn't JSON").caused_by(error);
            serde_json::to_string(&output).map_err(unfit)
        })
    }
}

impl AnyTool {
    /// Wraps a tool.
    pub fn new(tool: impl Tool) -> Self {
        Self(Arc::new(tool))
    }

    #[cfg(feature = "mcp")]
    pub(crate) fn of(tool: impl DynTool + 'static) -> Self {
        Self(Arc::new(tool))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// What it does.
    pub fn description(&self) -> &str {
        self.0.description()
    }

    /// The JSON Schema of its arguments.
    pub fn schema(&self) -> serde_json::Value {
        self.0.schema()
    }

    /// The level of the cells that it runs programs of its caller's in; none if it runs none.
    pub fn level(&self) -> Option<neuroflow_sandbox::Level> {
        self.0.level()
    }

    fn call(&self, arguments: serde_json::Value, context: ToolContext) -> Calling<'_> {
        self.0.call(arguments, context)
    }
}

impl fmt::Debug for AnyTool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AnyTool").field(&self.name()).finish()
    }
}
