//! Seeds: what a service is called, and what came of looking one up and dialling it.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use hickory_resolver::net::NetError;

use crate::limits::SEED_DEADLINE;
use crate::link::LinkError;

/// The name that service records are looked up by: `_neuroflow._udp.agents.example`.
///
/// Without service and protocol, `agents.example` is that name too.
///
/// ```
/// use neuroflow_transport::ServiceName;
/// let given: ServiceName = "_links._udp.agents.svc.cluster.local".parse()?;
/// let short: ServiceName = "agents.example".parse()?;
/// assert_eq!(short.as_str(), "_neuroflow._udp.agents.example");
/// assert_ne!(given, short);
/// # Ok::<(), neuroflow_transport::ServiceNameError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceName(String);

impl ServiceName {
    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ServiceName {
    type Err = ServiceNameError;

    fn from_str(text: &str) -> Result<Self, ServiceNameError> {
        let name =
            if text.starts_with('_') { text.to_owned() } else { format!("{SERVICE}.{text}") };
        let relative = name.strip_suffix('.').unwrap_or(&name);
        if relative.len() > MAX_NAME_BYTES {
            return Err(ServiceNameError::Length { bytes: relative.len() });
        }
        let (mut labels, mut outer) = (0, 0);
        for label in relative.split('.') {
            let plain = label.strip_prefix('_').unwrap_or(label);
            let is_lawful = !plain.is_empty()
                && label.len() <= MAX_LABEL_BYTES
                && plain.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            if !is_lawful {
                return Err(ServiceNameError::Label { label: label.to_owned() });
            }
            labels += 1;
            outer += usize::from(label.starts_with('_') && labels <= 2);
        }
        // A service, a protocol, and whose they are.
        if outer != 2 || labels < 3 { Err(ServiceNameError::Form) } else { Ok(Self(name)) }
    }
}

/// Why a text isn't the name of a service.
///
/// ```
/// use neuroflow_transport::{ServiceName, ServiceNameError};
/// let error = "_links.agents.example".parse::<ServiceName>().unwrap_err();
/// assert_eq!(error, ServiceNameError::Form);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceNameError {
    /// It isn't of the form.
    #[error("a service is called like _neuroflow._udp.agents.example, or agents.example for short")]
    Form,
    /// What is between two dots is no part of a name.
    #[error("{label:?} is no part of a name: 1 to 63 letters, digits and hyphens are")]
    Label {
        /// What is between the dots.
        label: String,
    },
    /// It's too long.
    #[error("a name has 253 bytes at most, this one {bytes}")]
    Length {
        /// How long it is.
        bytes: usize,
    },
}

/// What the protocol's own service is called.
const SERVICE: &str = "_neuroflow._udp";

/// The longest name and the longest part of one that DNS can carry.
const MAX_NAME_BYTES: usize = 253;
const MAX_LABEL_BYTES: usize = 63;

/// A seed, and what came of it the last time that it was looked up and dialled.
///
/// ```
/// use neuroflow_transport::Links;
/// fn unmet(links: &Links) -> Vec<String> {
///     let seeds = links.seeds().into_iter();
///     seeds.filter(|seed| seed.failure.is_some()).map(|seed| seed.name).collect()
/// }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SeedStatus {
    /// Its address, its host with the port, or `srv:` and its service.
    pub name: String,
    /// Why there is no link to where it leads; nothing if there is one, or that is this node itself.
    pub failure: Option<Arc<SeedError>>,
}

/// Why a seed has led to no link. It's looked up and dialled again.
///
/// ```
/// use neuroflow_transport::SeedError;
/// fn is_to_come(error: &SeedError) -> bool {
///     matches!(error, SeedError::Absent | SeedError::Hosts | SeedError::Unanswered { .. })
/// }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SeedError {
    /// The system's name servers aren't known.
    #[error("the system's name servers can't be read; /etc/resolv.conf should have them")]
    Servers(#[source] NetError),
    /// There was no answer in time.
    #[error("no answer within {} s", SEED_DEADLINE.as_secs())]
    TimedOut,
    /// The system's resolver found no such host.
    #[error("the host's addresses weren't found")]
    Host(#[source] std::io::Error),
    /// There is no such service.
    #[error("there are no service records of this name")]
    Absent,
    /// Its records say that there is no such service here: their target is `.`.
    #[error("its service records say that it isn't offered")]
    Withheld,
    /// The look-up failed: the name server refuses, fails, or answers what isn't an answer.
    #[error("the service records couldn't be looked up")]
    Service(#[source] NetError),
    /// Service records are there, but no address of any host that they name.
    #[error("none of the hosts of its service records has an address")]
    Hosts,
    /// Addresses are there, but none of them leads to a link.
    #[error("none of {addresses} addresses has led to a link")]
    Unanswered {
        /// How many were dialled.
        addresses: usize,
        /// What kept the last from being one.
        #[source]
        source: LinkError,
    },
}

/// What a seed is.
#[derive(Clone, Debug)]
pub(crate) enum Sought {
    Address(SocketAddr),
    /// A host and a port.
    Host(String),
    Service(ServiceName),
}

pub(crate) struct Seed {
    pub(crate) sought: Sought,
    failure: Mutex<Option<Arc<SeedError>>>,
}

impl Seed {
    pub(crate) fn new(sought: Sought) -> Self {
        Self { sought, failure: Mutex::default() }
    }

    pub(crate) fn came_to(&self, outcome: Result<(), SeedError>) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = outcome.err().map(Arc::new);
    }

    pub(crate) fn status(&self) -> SeedStatus {
        let name = match &self.sought {
            Sought::Address(address) => address.to_string(),
            Sought::Host(host) => host.clone(),
            Sought::Service(service) => format!("srv:{service}"),
        };
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
        SeedStatus { name, failure }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_named_in_full_or_for_short() {
        let read = |text: &str| text.parse::<ServiceName>();
        for good in ["_a._udp.b", "_neuroflow._udp.agents.example.", "_links._tcp._x.example"] {
            assert_eq!(read(good).unwrap().as_str(), good);
        }
        assert_eq!(read("example").unwrap().to_string(), "_neuroflow._udp.example");
        for (bad, error) in [
            ("_a.example.org", ServiceNameError::Form),
            ("_a._udp", ServiceNameError::Form),
            ("_a._udp.", ServiceNameError::Form),
            ("", ServiceNameError::Form),
            ("_a._udp..b", ServiceNameError::Label { label: String::new() }),
            ("_._udp.b", ServiceNameError::Label { label: "_".to_owned() }),
            ("a b", ServiceNameError::Label { label: "a b".to_owned() }),
            ("nodes.example:7946", ServiceNameError::Label { label: "example:7946".to_owned() }),
        ] {
            assert_eq!(read(bad).unwrap_err(), error, "{bad}");
        }
        let label = "a".repeat(64);
        assert_eq!(read(&label).unwrap_err(), ServiceNameError::Label { label });
        let long = ["a"; 130].join(".");
        assert_eq!(read(&long).unwrap_err(), ServiceNameError::Length { bytes: 275 });
    }
}
