//! From a description of an MCP server to the way to it: a capability or an outlet.

use neuroflow_kernel::{Address, AttenuateError, Clock, NameError, Restriction};
use neuroflow_sandbox::{Level, Network, Outlet, OutletError, Rule, SERVE, SandboxCommand};
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;

use super::http::{self, Client, HttpError, Target};
use super::{McpSource, McpTransport};

/// How the actor of a server reaches it.
#[derive(Clone, Debug)]
pub(super) enum Way {
    Cell { command: Vec<String>, sandbox: Address<SandboxCommand> },
    Http { client: Client, config: StreamableHttpClientTransportConfig },
}

/// Why an MCP server can't be used as it's described.
///
/// ```
/// use neuroflow_actors::{McpSetupError, McpSource, McpTransport};
/// use neuroflow_kernel::Clock;
/// let key = ("authorization".to_owned(), "Bearer 12345".to_owned());
/// let clear = McpTransport::http("http://mcp.example.com/mcp", vec![key]);
/// let refused = McpSource::new("weather", clear).into_source(None, &Clock::system());
/// assert!(matches!(refused, Err(McpSetupError::InClear { .. })));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum McpSetupError {
    /// Its name isn't one.
    #[error("the name of an MCP server isn't valid")]
    Name(#[from] NameError),
    /// Its command names no program.
    #[error("mcp.{server}.command is empty; its first element is the program")]
    NoCommand {
        /// The server.
        server: String,
    },
    /// It's to run in a cell, and there is no sandbox.
    #[error("mcp.{server}.command needs a sandbox, and the node has none")]
    NoSandbox {
        /// The server.
        server: String,
    },
    /// The sandbox can't be granted.
    #[error("mcp.{server} can't be granted the sandbox")]
    Grant {
        /// The server.
        server: String,
        /// Why.
        #[source]
        source: AttenuateError,
    },
    /// Its URL or headers can't be used.
    #[error("mcp.{server}.url or .headers can't be used")]
    Http {
        /// The server.
        server: String,
        /// Why.
        #[source]
        source: HttpError,
    },
    /// Its allow-list isn't one.
    #[error("mcp.{server} can't be reached by these rules")]
    Network {
        /// The server.
        server: String,
        /// Why.
        #[source]
        source: OutletError,
    },
    /// Headers would be sent in clear to another machine.
    #[error("mcp.{server}.headers would be sent in clear; use https:// in mcp.{server}.url")]
    InClear {
        /// The server.
        server: String,
    },
}

pub(super) fn way(
    source: &McpSource,
    sandbox: Option<&Address<SandboxCommand>>,
    clock: &Clock,
) -> Result<Way, McpSetupError> {
    let server = || source.name.clone();
    match &source.transport {
        McpTransport::Cell { command, profile } => {
            if command.first().is_none_or(String::is_empty) {
                return Err(McpSetupError::NoCommand { server: server() });
            }
            let sandbox = sandbox.ok_or_else(|| McpSetupError::NoSandbox { server: server() })?;
            if profile.level() == Level::Minimal {
                tracing::warn!(
                    server = %source.name,
                    "an MCP server runs without a cell: it has the node's files and network"
                );
                source.meter.unconfined(&source.name);
            }
            let narrowed = Restriction::new().rights(SERVE).policy(profile.as_ref().clone());
            let sandbox = sandbox
                .attenuate(narrowed)
                .map_err(|error| McpSetupError::Grant { server: server(), source: error })?;
            Ok(Way::Cell { command: command.clone(), sandbox })
        }
        McpTransport::Http { url, headers, network } => {
            let unfit = |error| McpSetupError::Http { server: server(), source: error };
            let target = Target::parse(url).map_err(unfit)?;
            if !headers.is_empty() && !target.is_tls() && !target.is_loopback() {
                return Err(McpSetupError::InClear { server: server() });
            }
            let network = network.clone().unwrap_or_else(|| Network::allow([rule(&target)]));
            let outlet = Outlet::new(&network, source.origin(), clock.clone())
                .map_err(|error| McpSetupError::Network { server: server(), source: error })?;
            let (client, config) =
                http::client(url, target, &outlet, headers, clock).map_err(unfit)?;
            Ok(Way::Http { client, config })
        }
    }
}

/// What a URL names, and nothing else.
fn rule(target: &Target) -> Rule {
    let host = target.host().trim_start_matches('[').trim_end_matches(']');
    let rule = Rule::host(host).port(target.port());
    if target.is_tls() { rule.upstream_tls() } else { rule }
}
