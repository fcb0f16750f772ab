//! Hosts that programs in cells may reach.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use neuroflow::sandbox::{Network, NetworkError, Rule};

use super::value::{Problem, Raw, Value, distinct, quoted};

/// A host and its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WayOut {
    host: String,
    port: Option<u16>,
}

/// Why a text is none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum NotAWay {
    /// The port isn't one.
    #[error("what is after the colon is no port")]
    Port(#[from] ParseIntError),
    /// The host isn't one that a rule can have.
    #[error("it isn't a host that can be allowed")]
    Host(#[from] Box<NetworkError>),
}

impl WayOut {
    /// The rule that allows it.
    pub(crate) fn rule(&self) -> Rule {
        let rule = Rule::host(self.host.as_str());
        self.port.into_iter().fold(rule, Rule::port)
    }
}

impl FromStr for WayOut {
    type Err = NotAWay;

    fn from_str(given: &str) -> Result<Self, NotAWay> {
        let (host, port) = match given.rsplit_once(':') {
            // More than one colon is an address of IPv6.
            Some((host, port)) if !host.contains(':') => (host, Some(port.parse()?)),
            _ => (given, None),
        };
        let way = Self { host: host.to_owned(), port };
        Network::allow([way.rule()]).check().map_err(Box::new)?;
        Ok(way)
    }
}

impl fmt::Display for WayOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => f.write_str(&self.host),
        }
    }
}

impl Value for Vec<WayOut> {
    const EXPECTED: &'static str =
        "a list of hosts, with ports where they aren't 443, such as \"pypi.org\"";

    fn read(raw: &Raw) -> Result<Self, Problem> {
        distinct(raw)
    }

    fn toml(&self) -> Option<String> {
        let ways: Vec<String> = self.iter().map(|way| quoted(&way.to_string())).collect();
        Some(format!("[{}]", ways.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<WayOut>, Problem> {
        Vec::read(&Raw::Plain(text.to_owned()))
    }

    #[test]
    fn hosts_come_with_and_without_ports() {
        let ways = read("pypi.org, *.example.com:8443").unwrap();
        assert_eq!(ways.toml().unwrap(), r#"["pypi.org", "*.example.com:8443"]"#);
        let listed = ways.iter().map(|way| Raw::Text(way.to_string())).collect();
        assert_eq!(Vec::<WayOut>::read(&Raw::List(listed)).unwrap(), ways);
        assert_eq!(read("").unwrap(), []);
    }

    #[test]
    fn what_is_no_host_is_refused() {
        assert!(matches!(read("pypi.org:https"), Err(Problem::WayOut(NotAWay::Port(_)))));
        assert!(matches!(read("https://pypi.org/"), Err(Problem::WayOut(_))));
        assert!(matches!(read("*"), Err(Problem::WayOut(NotAWay::Host(_)))));
        assert!(matches!(read("pypi.org,pypi.org"), Err(Problem::Twice)));
        assert!(matches!(Vec::<WayOut>::read(&Raw::Integer(1)), Err(Problem::Type)));
    }
}
