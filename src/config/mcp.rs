//! The MCP servers of the file, `[mcp.NAME]`: each a table of its own, so they have neither
//! variables nor flags. Secrets are read from where the file says, when the servers are set up.

mod tokens;

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use neuroflow::actors::{Forms, McpMeter, McpSource, McpTransport, ToolFilter};
use neuroflow::sandbox::{Network, Profile, ProfileError, Rule};
use neuroflow::{Level, NameError};
use serde::{Deserialize, Serialize, Serializer};

use super::choice::level;
use super::error::{ConfigError, without_text};
use super::unit::{UnitError, parse_duration, parse_size};
use super::value::masked;
use super::{Builtin, Loaded};
use crate::limits::SECRET_BYTES;
use tokens::Tokens;

/// The servers of a file, by name.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(crate) struct McpServers {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    mcp: BTreeMap<String, Server>,
}

/// One server, as it's written.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Server {
    /// The program of one over standard streams.
    command: Option<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, Text>,
    /// The level of its cell, or "off".
    cell: Option<String>,
    #[serde(default)]
    read_only: Vec<PathBuf>,
    #[serde(default)]
    writable: Vec<PathBuf>,
    /// Hosts that its cell may reach, on port 443.
    #[serde(default)]
    hosts: Vec<String>,
    memory: Option<String>,
    /// Where one over HTTP is.
    #[serde(serialize_with = "shown")]
    url: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, Text>,
    /// How tokens for it are had.
    oauth: Option<Tokens>,
    /// What is done with its forms: "decline" or "defaults".
    forms: Option<String>,
    /// The tools that are let in; all if it's not there.
    tools: Option<Vec<String>>,
    /// The agents that may use them, or "*".
    agents: Vec<String>,
    start: Option<String>,
    call: Option<String>,
}

/// A text, or where it is.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(untagged)]
enum Text {
    Here(String),
    There(Place),
}

/// Where a text is.
#[derive(Clone, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Place {
    Env(String),
    File(PathBuf),
}

impl Serialize for Text {
    /// A text may be a key, and isn't shown.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Here(_) => serializer.serialize_str("***"),
            Self::There(place) => place.serialize(serializer),
        }
    }
}

/// A URL without what may be a secret.
#[expect(clippy::ref_option, reason = "this is how a field is given")]
fn shown<S: Serializer>(url: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    url.as_deref().map(masked).serialize(serializer)
}

impl fmt::Debug for Text {
    /// A text may be a key, and isn't shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here(_) => f.write_str("Here(..)"),
            Self::There(Place::Env(name)) => f.debug_tuple("Env").field(name).finish(),
            Self::There(Place::File(path)) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// What is wrong with a server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum McpProblem {
    /// Neither or both ways to reach it.
    #[error("needs either command or url, and not both")]
    Way,
    /// Nobody may use it.
    #[error("agents is empty; name agents, or \"*\" for all")]
    Agents,
    /// There is no such agent.
    #[error("agents names {agent:?}, which isn't one; the binary has {known}")]
    Agent { agent: String, known: String },
    /// A setting of the other way.
    #[error("{setting} means nothing beside {beside}; leave it out")]
    Beside { setting: &'static str, beside: &'static str },
    /// No level.
    #[error(
        "cell is {found:?}; it should be \"standard\", \"strict\", \"paranoid\", or \"off\" for none"
    )]
    Cell { found: String },
    /// Nothing, or too much, that proves who asks.
    #[error("oauth needs either secret, or key, or refresh_token (with or without secret)")]
    Proof,
    /// No algorithm.
    #[error("oauth.algorithm is {found:?}; it should be \"ES256\", \"ES384\" or \"RS256\"")]
    Algorithm { found: String },
    /// No way with forms.
    #[error("forms is {found:?}; it should be \"decline\" or \"defaults\"")]
    Forms { found: String },
    /// No time or size.
    #[error("{setting} isn't a whole number with a unit, such as {example:?}")]
    Unit {
        setting: &'static str,
        example: &'static str,
        #[source]
        source: UnitError,
    },
    /// A variable isn't there.
    #[error(
        "{setting} is in the environment variable {variable}, which isn't set or isn't Unicode"
    )]
    Variable { setting: String, variable: String },
    /// A file can't be read.
    #[error("{setting} is in the file {}, which can't be read", path.display())]
    File {
        setting: String,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The cell can't have that.
    #[error("its cell can't have these settings")]
    Profile(#[from] ProfileError),
    /// Its name is none.
    #[error("its name isn't valid")]
    Name(#[from] NameError),
}

impl McpServers {
    /// Reads them out of a whole file.
    pub(super) fn read(path: &Path, text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|mut source| {
            let line = without_text(&mut source, text);
            ConfigError::McpTable { path: path.to_owned(), line, source: Box::new(source) }
        })
    }

    /// Whether one of them runs in a cell.
    pub(crate) fn need_sandbox(&self) -> bool {
        self.mcp.values().any(|server| server.command.is_some())
    }

    /// Their names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.mcp.keys().map(String::as_str)
    }
}

impl Loaded {
    /// The MCP servers, with their secrets.
    pub(crate) fn mcp_sources(
        &self,
        meter: &Arc<dyn McpMeter>,
    ) -> Result<Vec<McpSource>, ConfigError> {
        let source = |(name, server): (&String, &Server)| {
            let source = server.source(name, self).map_err(|problem| ConfigError::Mcp {
                server: name.clone(),
                problem: Box::new(problem),
            });
            source.map(|source| source.meter(Arc::clone(meter)))
        };
        self.mcp.mcp.iter().map(source).collect()
    }
}

impl Server {
    fn source(&self, name: &str, loaded: &Loaded) -> Result<McpSource, McpProblem> {
        neuroflow::Name::new(name)?;
        let transport = match (&self.command, &self.url) {
            (Some(command), None) => {
                if !self.headers.is_empty() {
                    return Err(McpProblem::Beside { setting: "headers", beside: "command" });
                }
                if self.oauth.is_some() {
                    return Err(McpProblem::Beside { setting: "oauth", beside: "command" });
                }
                let command = std::iter::once(command).chain(&self.args).cloned();
                McpTransport::cell(command, self.profile(loaded)?)
            }
            (None, Some(url)) => {
                self.check_beside_url()?;
                McpTransport::http(url, texts("headers", &self.headers)?)
            }
            _ => return Err(McpProblem::Way),
        };
        let mut source = McpSource::new(name, transport);
        if let Some(tools) = &self.tools {
            source = source.tools(ToolFilter::only(tools));
        }
        if let Some(tokens) = &self.oauth {
            source = source.oauth(tokens.read()?);
        }
        source = match self.forms.as_deref() {
            None | Some("decline") => source,
            Some("defaults") => source.forms(Forms::Defaults),
            Some(other) => return Err(McpProblem::Forms { found: other.to_owned() }),
        };
        if self.agents.is_empty() {
            return Err(McpProblem::Agents);
        }
        source = if self.agents.iter().any(|agent| agent == "*") {
            source.for_all_agents()
        } else {
            self.check_agents()?;
            source.agents(&self.agents)
        };
        if let Some(time) = duration("start", self.start.as_deref())? {
            source = source.start_within(time);
        }
        if let Some(time) = duration("call", self.call.as_deref())? {
            source = source.call_within(time);
        }
        Ok(source)
    }

    fn check_agents(&self) -> Result<(), McpProblem> {
        let known = || Builtin::ALL.into_iter().map(Builtin::name);
        match self.agents.iter().find(|agent| !known().any(|name| name == agent.as_str())) {
            None => Ok(()),
            Some(agent) => {
                let known = known().collect::<Vec<_>>().join(", ");
                Err(McpProblem::Agent { agent: agent.clone(), known })
            }
        }
    }

    fn check_beside_url(&self) -> Result<(), McpProblem> {
        let of_cells = [
            ("args", !self.args.is_empty()),
            ("env", !self.env.is_empty()),
            ("cell", self.cell.is_some()),
            ("read_only", !self.read_only.is_empty()),
            ("writable", !self.writable.is_empty()),
            ("hosts", !self.hosts.is_empty()),
            ("memory", self.memory.is_some()),
        ];
        match of_cells.into_iter().find(|(_, is_set)| *is_set) {
            Some((setting, _)) => Err(McpProblem::Beside { setting, beside: "url" }),
            None => Ok(()),
        }
    }

    /// The node's profile, with what the server has of its own.
    fn profile(&self, loaded: &Loaded) -> Result<Profile, McpProblem> {
        let own = match self.cell.as_deref() {
            None => loaded.config.sandbox.level,
            Some("off") => Level::Minimal,
            Some(name) => match level(name) {
                Some(level) if level != Level::Minimal => level,
                _ => return Err(McpProblem::Cell { found: name.to_owned() }),
            },
        };
        let mut profile = loaded.builder_at(own);
        if let Some(memory) = &self.memory {
            let unfit = |source| McpProblem::Unit { setting: "memory", example: "1GiB", source };
            profile = profile.memory(parse_size(memory).map_err(unfit)?);
        }
        for (name, value) in texts("env", &self.env)? {
            profile = profile.env(name, value);
        }
        for path in &self.read_only {
            profile = profile.bind_ro(path, path);
        }
        for path in &self.writable {
            profile = profile.bind_rw(path, path);
        }
        if !self.hosts.is_empty() {
            profile = profile.network(Network::allow(self.hosts.iter().map(Rule::host)));
        }
        Ok(profile.build()?)
    }
}

fn duration(setting: &'static str, text: Option<&str>) -> Result<Option<Duration>, McpProblem> {
    let unfit = |source| McpProblem::Unit { setting, example: "30s", source };
    text.map(parse_duration).transpose().map_err(unfit)
}

/// Names with their texts, wherever those are.
fn texts(table: &str, texts: &BTreeMap<String, Text>) -> Result<Vec<(String, String)>, McpProblem> {
    let read = |(name, text): (&String, &Text)| {
        Ok((name.clone(), read_text(&format!("{table}.{name}"), text)?))
    };
    texts.iter().map(read).collect()
}

/// A text, wherever it is.
fn read_text(setting: &str, text: &Text) -> Result<String, McpProblem> {
    let setting = || setting.to_owned();
    match text {
        Text::Here(text) => Ok(text.clone()),
        Text::There(Place::Env(variable)) => std::env::var(variable).map_err(|_unset| {
            McpProblem::Variable { setting: setting(), variable: variable.clone() }
        }),
        Text::There(Place::File(path)) => read_secret(path).map_err(|source| McpProblem::File {
            setting: setting(),
            path: path.clone(),
            source,
        }),
    }
}

/// A file with one secret, without the line break at its end.
fn read_secret(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(SECRET_BYTES).read_to_string(&mut text)?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<McpServers, ConfigError> {
        McpServers::read(Path::new("test.toml"), text)
    }

    #[test]
    fn a_server_is_read_and_secrets_are_not_shown() {
        let servers = read(
            "[gateway]\nlisten = \"127.0.0.1:1\"\n[mcp.files]\ncommand = \"server\"\nargs = [\"/srv\"]\n\
             agents = [\"shell\"]\nenv = { KEY = \"s3cr3t\", TOKEN = { env = \"TOKEN\" } }\n",
        )
        .unwrap();
        assert!(servers.need_sandbox());
        assert!(!format!("{servers:?}").contains("s3cr3t"));
    }

    #[test]
    fn a_mistake_names_its_line_and_shows_nothing_of_it() {
        let error = read("[mcp.files]\nagents = [\"*\"]\nkey = \"s3cr3t\"\n").unwrap_err();
        assert!(error.to_string().contains("test.toml:3"), "{error}");
        let told = format!("{error} {}", std::error::Error::source(&error).unwrap());
        assert!(told.contains("unknown field `key`") && !told.contains("s3cr3t"), "{told}");
    }
}
