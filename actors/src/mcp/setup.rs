//! From a description of an MCP server to the way to it: a capability or an outlet.

use neuroflow_kernel::{Address, AttenuateError, Clock, NameError, Restriction};
use neuroflow_sandbox::{
    Level, Network, Outbound, Outlet, OutletError, Rule, SERVE, SandboxCommand,
};
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;

use super::http::{self, Client, HttpError};
use super::oauth::{Authorizer, Road};
use super::{McpSource, McpTransport, OAuth, OAuthError, name};
use crate::audit::uses::Uses;
use crate::exchange::Place;

/// How the actor of a server reaches it.
#[derive(Clone, Debug)]
pub(super) enum Way {
    Cell { command: Vec<String>, sandbox: Address<SandboxCommand> },
    Http { client: Box<Client>, config: StreamableHttpClientTransportConfig },
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
    /// Its tools could have the names of another server's.
    #[error(
        "mcp.{server}: the name has `__` in it, or `_` at its end, which divides it from tools' names"
    )]
    Divided {
        /// The server.
        server: String,
    },
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
    /// Tokens would be sent in clear to another machine.
    #[error("mcp.{server}.oauth would send tokens in clear; use https:// in mcp.{server}.url")]
    TokenInClear {
        /// The server.
        server: String,
    },
    /// A server over standard streams takes no tokens.
    #[error(
        "mcp.{server}.oauth is for a server over HTTP; leave it out beside mcp.{server}.command"
    )]
    NoTokens {
        /// The server.
        server: String,
    },
    /// It would be sent two credentials.
    #[error("mcp.{server} has oauth and a header \"authorization\"; leave one of them out")]
    TwoCredentials {
        /// The server.
        server: String,
    },
    /// Its tokens can't be had.
    #[error("mcp.{server}.oauth can't be used")]
    OAuth {
        /// The server.
        server: String,
        /// Why.
        #[source]
        source: Box<OAuthError>,
    },
}

pub(super) fn way(
    source: &McpSource,
    sandbox: Option<&Address<SandboxCommand>>,
    clock: &Clock,
) -> Result<Way, McpSetupError> {
    let server = || source.name.clone();
    if !name::divides(&source.name) {
        return Err(McpSetupError::Divided { server: server() });
    }
    match &source.transport {
        McpTransport::Cell { command, profile } => {
            if source.oauth.is_some() {
                return Err(McpSetupError::NoTokens { server: server() });
            }
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
            let target = Place::parse(url).map_err(|_other| unfit(HttpError::Url))?;
            if !headers.is_empty() && !target.is_tls() && !target.is_loopback() {
                return Err(McpSetupError::InClear { server: server() });
            }
            let network = network.clone().unwrap_or_else(|| Network::allow([rule(&target)]));
            let outlet = Outlet::new(&network, source.origin(), clock.clone())
                .map_err(|error| McpSetupError::Network { server: server(), source: error })?;
            let (host, port) = (target.host(), target.port());
            if target.is_tls() && outlet.is_in_clear("POST", host, port, target.path()) {
                let source = OutletError::InClear;
                return Err(McpSetupError::Network { server: server(), source });
            }
            let uses = Uses::new(source.audit.clone(), &source.origin());
            let (mut client, config) =
                http::client(url, target, &outlet, headers, clock, uses.clone()).map_err(unfit)?;
            if let Some(oauth) = &source.oauth {
                check(oauth, &client, headers, &source.name)?;
                let resource = url.parse().map_err(|_malformed| unfit(HttpError::Url))?;
                let road = Road {
                    outlet,
                    target: client.target(),
                    outbound: Outbound::new(clock.clone()).allow_private(oauth.allows_private()),
                    clock: clock.clone(),
                    uses,
                };
                client.authorise(Authorizer::new(oauth.clone(), resource, road, clock.clone()));
            }
            Ok(Way::Http { client: Box::new(client), config })
        }
    }
}

/// Whether tokens can be had and sent as it's described.
fn check(
    oauth: &OAuth,
    client: &Client,
    headers: &[(String, String)],
    name: &str,
) -> Result<(), McpSetupError> {
    let (server, target) = (name.to_owned(), client.target());
    if headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization")) {
        return Err(McpSetupError::TwoCredentials { server });
    }
    if !target.is_tls() && !target.is_loopback() && !oauth.allows_private() {
        return Err(McpSetupError::TokenInClear { server });
    }
    oauth.check().map_err(|source| McpSetupError::OAuth { server, source: Box::new(source) })
}

/// What a URL names, and nothing else.
fn rule(target: &Place) -> Rule {
    let rule = Rule::host(target.host()).port(target.port());
    if target.is_tls() { rule.upstream_tls() } else { rule }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Audit;

    /// What the URL says has to be so on the way, or keys could be read there.
    #[test]
    fn a_server_over_https_is_not_reached_by_a_rule_without_tls() {
        let set_up = |rule: Rule| {
            let headers = vec![("authorization".to_owned(), "Bearer 12345".to_owned())];
            let network = Some(Network::allow([rule]));
            let url = "https://mcp.example.com/mcp".to_owned();
            let source = McpSource::new("a", McpTransport::Http { url, headers, network });
            way(&source.audit(Audit::off()), None, &Clock::system())
        };
        let rule = || Rule::host("mcp.example.com").port(443);
        let refused = set_up(rule()).unwrap_err();
        assert!(
            matches!(&refused, McpSetupError::Network { source: OutletError::InClear, .. }),
            "{refused:?}"
        );
        assert!(set_up(rule().upstream_tls()).is_ok());
    }
}
