//! Why there is no configuration, and where a value came from.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use neuroflow::sandbox::ProfileError;

use super::mcp::McpProblem;
use super::proxy::ProxyProblem;
use super::value::Problem;
use crate::owner::CareError;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The table of settings.
    Default,
    /// A line of a file, from 1.
    File { path: PathBuf, line: usize },
    /// An environment variable.
    Variable { name: String },
    /// A flag.
    Flag { name: String },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable { name } => write!(f, "the environment variable {name}"),
            Self::Flag { name } => write!(f, "--{name}"),
        }
    }
}

/// Takes the text of the file out of an error, which says the line that is wrong otherwise: that could hold
/// a key. Gives the number of the line, from 1.
pub(super) fn without_text(source: &mut toml::de::Error, text: &str) -> usize {
    source.set_input(None);
    source.span().map_or(1, |span| line(text, span.start))
}

/// The number of the line at a place of a text, from 1.
pub(super) fn line(text: &str, at: usize) -> usize {
    let before = text.get(..at).unwrap_or_default();
    before.bytes().filter(|byte| *byte == b'\n').count() + 1
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ConfigError {
    /// The file can't be read.
    #[error("the configuration file {} can't be read; name another with --config", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// Others could have written the file.
    #[error(transparent)]
    Care(#[from] CareError),
    /// The file is larger than any configuration.
    #[error("the configuration file {} is larger than {most} bytes; name another with --config", path.display())]
    TooLarge { path: PathBuf, most: u64 },
    /// The file isn't TOML.
    #[error(
        "{}:{line} isn't valid TOML; `neuroflow config --print-default` prints a file to start from",
        path.display()
    )]
    Syntax {
        path: PathBuf,
        line: usize,
        #[source]
        source: Box<toml::de::Error>,
    },
    /// There is no such setting.
    #[error(
        "there is no setting {key:?} ({origin}); the nearest is {nearest:?}, and \
         `neuroflow config --print-default` prints all of them"
    )]
    UnknownKey { key: String, origin: Origin, nearest: String },
    /// A section of the file is a value.
    #[error(
        "{section:?} is a section, but {origin} gives it a value; write [{section}] and its settings below"
    )]
    Section { section: &'static str, origin: Origin },
    /// A value isn't what it should be.
    #[error("{key} is {found} ({origin}); it should be {expected}")]
    Value {
        key: &'static str,
        found: String,
        origin: Origin,
        expected: &'static str,
        #[source]
        problem: Box<Problem>,
    },
    /// A variable isn't Unicode.
    #[error("{origin} isn't valid Unicode; set it anew")]
    Unicode { origin: Origin },
    /// It would be reachable for others, whoever they are.
    #[error(
        "gateway.listen is {address} ({origin}), which other machines can reach, and nobody has to \
         say who they are: whoever reaches it could use every agent. Set auth.tokens, auth.issuer or \
         tls.client_ca, or listen on 127.0.0.1, or set \
         gateway.allow_remote_without_authentication = true"
    )]
    Remote { address: SocketAddr, origin: Origin },
    /// Tokens would travel where others can read them.
    #[error(
        "gateway.listen is {address} ({origin}), which other machines can reach, and it speaks without \
         TLS: whoever sees a token could use it. Set tls.certificate and tls.key, or \
         tls.terminated_upstream = true if a proxy in front speaks TLS"
    )]
    RemotePlain { address: SocketAddr, origin: Origin },
    /// The metrics would be reachable for others.
    #[error(
        "telemetry.metrics_listen is {address} ({origin}), which other machines can reach, and metrics \
         have no authentication. Listen on 127.0.0.1, or set \
         gateway.allow_remote_without_authentication = true"
    )]
    RemoteMetrics { address: SocketAddr, origin: Origin },
    /// There is to be a cluster, and nobody says who this node is.
    #[error("cluster.listen needs cluster.identity: the folder that `neuroflow node init` writes")]
    NoIdentity,
    /// No cell could run.
    #[error("sandbox.cells is 0 ({origin}), and no program could run; set it to 1 at least")]
    NoCells { origin: Origin },
    /// Nobody can dial it.
    #[error(
        "cluster.advertise is {address} ({origin}), which nobody can dial; set it to the address and port \
         that other nodes reach this one at, or leave it out"
    )]
    Advertise { address: SocketAddr, origin: Origin },
    /// The journal isn't where leases can be.
    #[error(
        "cluster.leases is \"journal\" ({origin}), and journal.url isn't a PostgreSQL database, which \
         alone can decide for many nodes; set cluster.leases or journal.url to the URL of one"
    )]
    LeasesOfJournal { origin: Origin },
    /// A lease can't last so long, or so short.
    #[error("cluster.lease_term is {term:?} ({origin}); set it to {least:?} to {most:?}")]
    LeaseTerm { term: Duration, least: Duration, most: Duration, origin: Origin },
    /// One agent is to be there in two ways.
    #[error(
        "the agent {agent:?} is in {one} ({origin}) and in {other}; take it out of one of them"
    )]
    AgentTwice { agent: &'static str, one: &'static str, other: &'static str, origin: Origin },
    /// Requests would have next to no time to end.
    #[error(
        "gateway.drain_delay is {delay:?} ({origin}), and stop.deadline, of which it's a part, is \
         {deadline:?}; set stop.deadline to twice the delay at least"
    )]
    DrainDelay { delay: Duration, deadline: Duration, origin: Origin },
    /// One setting means nothing without another.
    #[error("{key} needs {needed}; set both or none")]
    Incomplete { key: &'static str, needed: &'static str },
    /// Everybody would be denied everything.
    #[error(
        "with authentication, what no policy permits is denied, and there is no policy: set policy.file \
         to a file such as `permit(principal, action, resource);`, which permits everything to all \
         who say who they are"
    )]
    NoPolicy,
    /// A table of an agent of other nodes can't be read.
    #[error("a table [proxy.NAME] isn't one ({}:{line})", path.display())]
    ProxyTable {
        path: PathBuf,
        line: usize,
        #[source]
        source: Box<toml::de::Error>,
    },
    /// An agent of other nodes can't be offered as it's described.
    #[error("proxy.{proxy} can't be offered")]
    Proxy {
        proxy: String,
        #[source]
        problem: Box<ProxyProblem>,
    },
    /// A table of an MCP server can't be read.
    #[error("a table [mcp.NAME] isn't one ({}:{line})", path.display())]
    McpTable {
        path: PathBuf,
        line: usize,
        #[source]
        source: Box<toml::de::Error>,
    },
    /// An MCP server can't be used as it's described.
    #[error("mcp.{server} can't be used")]
    Mcp {
        server: String,
        #[source]
        problem: Box<McpProblem>,
    },
    /// The sandbox refuses the limits of its cells.
    #[error("the settings below `sandbox` don't fit; change the one that is named")]
    Sandbox(#[from] ProfileError),
}
