//! Why there is no configuration, and where a value came from.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use neuroflow::sandbox::ProfileError;

use super::value::Problem;

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
    /// The file is larger than any configuration.
    #[error("the configuration file {} is larger than {most} bytes; name another with --config", path.display())]
    TooLarge { path: PathBuf, most: u64 },
    /// The file isn't TOML.
    #[error("{} isn't valid TOML; `neuroflow config --print-default` prints a file to start from", path.display())]
    Syntax {
        path: PathBuf,
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
    /// It would be reachable for others.
    #[error(
        "{key} is {address} ({origin}), which other machines can reach, and this version has no \
         authentication: whoever reaches it could use every agent. Listen on 127.0.0.1 and put a \
         proxy that authenticates in front, or set \
         gateway.allow_remote_without_authentication = true"
    )]
    Remote { key: &'static str, address: SocketAddr, origin: Origin },
    /// The sandbox refuses the limits of its cells.
    #[error("the settings below `sandbox` don't fit; change the one that is named")]
    Sandbox(#[from] ProfileError),
}
