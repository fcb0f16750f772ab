//! The contract of MCP servers whose tools agents use: where one is, what of it is let in, and how it
//! fails.
//!
//! One that speaks over standard streams runs in a cell, and one over HTTP is reached through an
//! egress allow-list. Either way it's somebody else's program: what it says is bounded, every wait
//! has an end, and its actor is restarted with a growing wait when it breaks off.

mod cell;
mod client;
mod content;
mod door;
mod error;
mod filter;
mod form;
mod gate;
mod http;
mod lines;
mod name;
mod oauth;
mod pulse;
mod session;
mod setup;
mod tool;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use neuroflow_kernel::{Address, Clock};
use neuroflow_sandbox::{Network, Profile, SandboxCommand};

use crate::audit::Audit;
use crate::limits::{MCP_CALL, MCP_START};
use crate::tools::ToolSource;

pub use door::{McpDoor, McpExec, McpHandler, McpPrograms, McpServeError, mcp_routes};
pub use error::{McpError, McpStep};
pub use filter::ToolFilter;
pub use form::Forms;
pub use http::HttpError;
pub use lines::Breach;
pub use oauth::{
    Asking, AuthorizationServer, ClientProof, Consent, ConsentError, KeptTokenError, OAuth,
    OAuthError, OAuthGrant, ProofAlgorithm, Registration,
};
pub use setup::McpSetupError;

/// An MCP server whose tools agents use.
///
/// ```
/// use neuroflow_actors::{McpSource, McpTransport, ToolFilter};
/// use neuroflow_sandbox::{Level, Profile};
/// let profile = Profile::builder(Level::Strict).bind_ro("/srv/notes", "/notes").build()?;
/// let files = McpSource::new("files", McpTransport::cell(["mcp-server-files", "/notes"], profile))
///     .tools(ToolFilter::only(["read_*", "list_directory"]))
///     .agents(["coder"]);
/// assert_eq!(files.name(), "files");
/// # Ok::<(), neuroflow_sandbox::ProfileError>(())
/// ```
#[derive(Clone, Debug)]
pub struct McpSource {
    name: String,
    transport: McpTransport,
    filter: ToolFilter,
    agents: Option<Vec<String>>,
    start: Duration,
    call: Duration,
    oauth: Option<OAuth>,
    forms: Forms,
    meter: Arc<dyn McpMeter>,
    audit: Audit,
}

impl McpSource {
    /// A server by this name, whose tools are all let in and are for no agent yet.
    pub fn new(name: impl Into<String>, transport: McpTransport) -> Self {
        Self {
            name: name.into(),
            transport,
            filter: ToolFilter::all(),
            agents: Some(Vec::new()),
            start: MCP_START,
            call: MCP_CALL,
            oauth: None,
            forms: Forms::default(),
            meter: Arc::new(Uncounted),
            audit: Audit::off(),
        }
    }

    /// Which of its tools are let in.
    #[must_use]
    pub fn tools(mut self, filter: ToolFilter) -> Self {
        self.filter = filter;
        self
    }

    /// The agents that may use them.
    #[must_use]
    pub fn agents(mut self, agents: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.agents = Some(agents.into_iter().map(Into::into).collect());
        self
    }

    /// Lets every agent of the node use them.
    #[must_use]
    pub fn for_all_agents(mut self) -> Self {
        self.agents = None;
        self
    }

    /// Time for its start, and for a list of its tools.
    #[must_use]
    pub fn start_within(mut self, time: Duration) -> Self {
        self.start = time;
        self
    }

    /// Time for one call.
    #[must_use]
    pub fn call_within(mut self, time: Duration) -> Self {
        self.call = time;
        self
    }

    /// How tokens for it are had, if it's reached over HTTP and demands some.
    #[must_use]
    pub fn oauth(mut self, oauth: OAuth) -> Self {
        self.oauth = Some(oauth);
        self
    }

    /// What is done with forms that it wants filled in.
    #[must_use]
    pub fn forms(mut self, forms: Forms) -> Self {
        self.forms = forms;
        self
    }

    /// Who counts.
    #[must_use]
    pub fn meter(mut self, meter: Arc<dyn McpMeter>) -> Self {
        self.meter = meter;
        self
    }

    /// Where uses of its credentials are recorded; a node's builder sets it.
    #[must_use]
    pub fn audit(mut self, audit: Audit) -> Self {
        self.audit = audit;
        self
    }

    /// The agents that it names; they aren't all that may use its tools if it's [for all](Self::for_all_agents).
    pub fn named_agents(&self) -> &[String] {
        self.agents.as_deref().unwrap_or_default()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The origin that its tools are listed with.
    pub fn origin(&self) -> String {
        format!("mcp/{}", self.name)
    }

    /// As a source for the tool router. What runs in a cell needs the sandbox: its own capability,
    /// with the right to serve and its profile, is narrowed from this one.
    ///
    /// # Errors
    /// Says what can't be used: the name, the URL, a header, or that there is no sandbox.
    pub fn into_source(
        self,
        sandbox: Option<&Address<SandboxCommand>>,
        clock: &Clock,
    ) -> Result<ToolSource, McpSetupError> {
        let way = setup::way(&self, sandbox, clock)?;
        Ok(client::source(self, way, clock.clone())?)
    }
}

/// How an MCP server is reached.
///
/// ```
/// use neuroflow_actors::McpTransport;
/// let key = ("authorization".to_owned(), "Bearer 12345".to_owned());
/// let weather = McpTransport::http("https://mcp.example.com/mcp", vec![key]);
/// assert!(!format!("{weather:?}").contains("12345"));
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub enum McpTransport {
    /// A program in a cell, over its standard streams.
    Cell {
        /// The program and its arguments.
        command: Vec<String>,
        /// What the cell may use.
        profile: Box<Profile>,
    },
    /// Streamable HTTP.
    Http {
        /// Its URL.
        url: String,
        /// Headers of every request, such as `authorization`. They aren't sent in clear, but to this
        /// machine.
        headers: Vec<(String, String)>,
        /// The allow-list that requests pass; unless it's given, what the URL names and nothing else.
        network: Option<Network>,
    },
}

impl McpTransport {
    /// A program in a cell with this profile.
    pub fn cell(command: impl IntoIterator<Item = impl Into<String>>, profile: Profile) -> Self {
        let command = command.into_iter().map(Into::into).collect();
        Self::Cell { command, profile: Box::new(profile) }
    }

    /// Streamable HTTP with these headers in every request.
    pub fn http(url: impl Into<String>, headers: Vec<(String, String)>) -> Self {
        Self::Http { url: url.into(), headers, network: None }
    }
}

impl fmt::Debug for McpTransport {
    /// Without arguments, which may have keys in them, and without the values of headers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cell { command, .. } => {
                let program = command.first().map(String::as_str).unwrap_or_default();
                f.debug_struct("Cell").field("program", &program).finish_non_exhaustive()
            }
            Self::Http { headers, .. } => {
                let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
                f.debug_struct("Http").field("headers", &names).finish_non_exhaustive()
            }
        }
    }
}

/// Counts what MCP servers do. It must not block.
///
/// ```
/// use std::time::Duration;
/// use neuroflow_actors::McpMeter;
/// #[derive(Debug)]
/// struct Printer;
/// impl McpMeter for Printer {
///     fn session(&self, server: &str, is_up: bool) {
///         println!("{server} {is_up}");
///     }
///     fn called(&self, server: &str, outcome: &'static str, took: Duration) {
///         println!("{server} {outcome} {took:?}");
///     }
/// }
/// ```
pub trait McpMeter: Send + Sync + fmt::Debug + 'static {
    /// A server has said what it has, or has broken off.
    fn session(&self, server: &str, is_up: bool);

    /// A call has ended: `done`, or the word of its error.
    fn called(&self, server: &str, outcome: &'static str, took: Duration);

    /// A server runs without walls around it, because somebody wanted that.
    fn unconfined(&self, _server: &str) {}
}

#[derive(Debug)]
struct Uncounted;

impl McpMeter for Uncounted {
    fn session(&self, _: &str, _: bool) {}

    fn called(&self, _: &str, _: &'static str, _: Duration) {}
}
