//! The nodes that a node dials when it starts: addresses, and names that stand for some.

use std::net::SocketAddr;
use std::str::FromStr;

use neuroflow::transport::ServiceName;

use super::value::{Problem, Raw, Value, distinct, quoted};

/// A node to dial, or a name that is looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seed {
    Address(SocketAddr),
    Name(String),
    Service(ServiceName),
}

/// What the names of services begin with.
const SERVICE: &str = "srv:";

impl FromStr for Seed {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        if let Some(service) = text.strip_prefix(SERVICE) {
            return Ok(Self::Service(service.parse()?));
        }
        let malformed = match text.parse() {
            Ok(address) => return Ok(Self::Address(address)),
            Err(malformed) => malformed,
        };
        let label = |label: &str| {
            !label.is_empty()
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        match text.rsplit_once(':') {
            Some((host, port))
                if port.parse::<u16>().is_ok_and(|port| port != 0)
                    && host.bytes().any(|byte| byte.is_ascii_alphabetic())
                    && host.strip_suffix('.').unwrap_or(host).split('.').all(label) =>
            {
                Ok(Self::Name(text.to_owned()))
            }
            _ => Err(malformed.into()),
        }
    }
}

impl Value for Vec<Seed> {
    const EXPECTED: &'static str = "a list of addresses or names with ports such as \"10.0.0.7:7946\" or \"nodes.example:7946\", or of services such as \"srv:agents.example\"";

    fn read(raw: &Raw) -> Result<Self, Problem> {
        distinct(raw)
    }

    fn toml(&self) -> Option<String> {
        let seeds = self.iter().map(|seed| match seed {
            Seed::Address(address) => quoted(&address.to_string()),
            Seed::Name(name) => quoted(name),
            Seed::Service(service) => quoted(&format!("{SERVICE}{service}")),
        });
        Some(format!("[{}]", seeds.collect::<Vec<_>>().join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_addresses_and_names_is_read_and_written() {
        let plain = |text: &str| Vec::<Seed>::read(&Raw::Plain(text.to_owned()));
        assert!(plain("").unwrap().is_empty());
        let three = plain("10.0.0.7:7946, [::1]:7946, nodes.agents.svc:7946").unwrap();
        let written = "[\"10.0.0.7:7946\", \"[::1]:7946\", \"nodes.agents.svc:7946\"]";
        assert_eq!(three.toml().unwrap(), written);
        assert!(matches!(plain("[::1]:1,[::1]:1"), Err(Problem::Twice)));
        let services = plain("srv:agents.example, srv:_links._udp.agents.example.").unwrap();
        let written =
            "[\"srv:_neuroflow._udp.agents.example\", \"srv:_links._udp.agents.example.\"]";
        assert_eq!(services.toml().unwrap(), written);
        let twice = plain("srv:agents.example, srv:_neuroflow._udp.agents.example");
        assert!(matches!(twice, Err(Problem::Twice)));
        for bad in ["srv:", "srv:_neuroflow._udp", "srv:agents.example:7946"] {
            assert!(matches!(plain(bad), Err(Problem::Service(_))), "{bad}");
        }
        for bad in ["node-b", "node-b:0", "node b:1", "10.0.0:1", ":1", "a..b:1"] {
            assert!(plain(bad).is_err(), "{bad}");
        }
    }
}
