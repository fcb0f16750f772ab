//! Why an allow-list is refused.

use std::fmt;

use super::bounds::EgressLimit;
use crate::egress::HostProblem;

/// Why an allow-list is refused. `rule` is the rule's index, from 0.
///
/// ```
/// use neuroflow_sandbox::{Network, NetworkError, Rule};
///
/// let in_clear = Rule::host("api.example.com").port(80).inject("x-api-key", "12345");
/// let refused = Network::allow([in_clear]).check();
/// assert!(matches!(refused, Err(NetworkError::PlaintextSecret { rule: 0, .. })));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// No rule at all; [`Network::none`](crate::Network::none) says that better.
    #[error("the allow-list has no rule: use `Network::none` or `Network::loopback`")]
    NoRules,
    /// More rules than [`limits::MAX_EGRESS_RULES`](crate::limits::MAX_EGRESS_RULES).
    #[error("the allow-list has {given} rules, allowed are {most}")]
    TooManyRules {
        /// How many there are.
        given: usize,
        /// How many may be.
        most: usize,
    },
    /// A field of a rule has too many entries.
    #[error("rule {rule} has {given} {field}, allowed are {most}")]
    TooMany {
        /// Which rule.
        rule: usize,
        /// Which field.
        field: RuleField,
        /// How many there are.
        given: usize,
        /// How many may be.
        most: usize,
    },
    /// The host isn't a host.
    #[error("rule {rule}: host {host:?} {problem}")]
    Host {
        /// Which rule.
        rule: usize,
        /// The host as it was given.
        host: String,
        /// What is wrong with it.
        problem: HostProblem,
    },
    /// Port 0.
    #[error("rule {rule}: port 0 can't be connected to")]
    Port {
        /// Which rule.
        rule: usize,
    },
    /// Port 80 with [`Rule::upstream_tls`](crate::Rule::upstream_tls), under which it stands for 443.
    #[error(
        "rule {rule}: port 80 stands for 443 with `upstream_tls`: name the port that speaks TLS"
    )]
    TlsPort {
        /// Which rule.
        rule: usize,
    },
    /// The method isn't one, or is `CONNECT` or `TRACE`.
    #[error(
        "rule {rule}: method {method:?} can't be allowed (tunnels need no method, TRACE never is)"
    )]
    Method {
        /// Which rule.
        rule: usize,
        /// The method.
        method: String,
    },
    /// The prefix doesn't begin with `/`, is too long, or has a second reading.
    #[error(
        "rule {rule}: path prefix {prefix:?} isn't plain: begin with / and use no .., // or escapes of them"
    )]
    PathPrefix {
        /// Which rule.
        rule: usize,
        /// The prefix.
        prefix: String,
    },
    /// The private range is neither an address nor `address/length`.
    #[error("rule {rule}: private range {range:?} isn't an address or address/length")]
    PrivateRange {
        /// Which rule.
        rule: usize,
        /// The range.
        range: String,
    },
    /// The header can't be injected: no name of a header, given twice, or one that frames messages
    /// or is for one hop only.
    #[error("rule {rule}: header {header:?} can't be injected")]
    Header {
        /// Which rule.
        rule: usize,
        /// The header's name.
        header: String,
    },
    /// The secret is empty, too long, or has a byte that no header's value has.
    #[error("rule {rule}: the secret for header {header:?} isn't a header's value")]
    SecretValue {
        /// Which rule.
        rule: usize,
        /// The header's name.
        header: String,
    },
    /// The secret would be sent in clear.
    #[error(
        "rule {rule}: the secret for header {header:?} would be sent in clear: add `upstream_tls` or, knowingly, `plaintext_secret_ok`"
    )]
    PlaintextSecret {
        /// Which rule.
        rule: usize,
        /// The header's name.
        header: String,
    },
    /// The crate was built without its feature `egress-tls`.
    #[error("rule {rule}: `upstream_tls` needs the crate's feature `egress-tls`")]
    TlsNotBuilt {
        /// Which rule.
        rule: usize,
    },
    /// A trust root isn't a certificate.
    #[error("rule {rule}: trust root {root} isn't an X.509 certificate in DER")]
    TrustRoot {
        /// Which rule.
        rule: usize,
        /// Which of its roots, from 0.
        root: usize,
    },
    /// The system has no certificate authorities.
    #[error(
        "rule {rule}: the system trusts no certificate authority: install them or use `trust_root`"
    )]
    NoTrustRoots {
        /// Which rule.
        rule: usize,
    },
    /// Trust roots without [`Rule::upstream_tls`](crate::Rule::upstream_tls).
    #[error("rule {rule}: trust roots mean nothing without `upstream_tls`")]
    UnusedTrustRoots {
        /// Which rule.
        rule: usize,
    },
    /// A bound is outside its range.
    #[error("{limit} is {given}, allowed are {least} to {most}")]
    OutOfRange {
        /// Which bound.
        limit: EgressLimit,
        /// What was asked for.
        given: u64,
        /// The lower end.
        least: u64,
        /// The upper end.
        most: u64,
    },
}

impl NetworkError {
    /// The rule that is refused, if it is one.
    pub fn rule(&self) -> Option<usize> {
        match self {
            Self::NoRules | Self::TooManyRules { .. } | Self::OutOfRange { .. } => None,
            Self::TooMany { rule, .. }
            | Self::Host { rule, .. }
            | Self::Port { rule }
            | Self::TlsPort { rule }
            | Self::Method { rule, .. }
            | Self::PathPrefix { rule, .. }
            | Self::PrivateRange { rule, .. }
            | Self::Header { rule, .. }
            | Self::SecretValue { rule, .. }
            | Self::PlaintextSecret { rule, .. }
            | Self::TlsNotBuilt { rule }
            | Self::TrustRoot { rule, .. }
            | Self::NoTrustRoots { rule }
            | Self::UnusedTrustRoots { rule } => Some(*rule),
        }
    }
}

/// Names a field of a rule in errors.
///
/// ```
/// assert_eq!(neuroflow_sandbox::RuleField::PathPrefixes.to_string(), "path prefixes");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RuleField {
    /// [`Rule::port`](crate::Rule::port).
    Ports,
    /// [`Rule::method`](crate::Rule::method).
    Methods,
    /// [`Rule::path_prefix`](crate::Rule::path_prefix).
    PathPrefixes,
    /// [`Rule::allow_private`](crate::Rule::allow_private).
    PrivateRanges,
    /// [`Rule::inject`](crate::Rule::inject).
    Injections,
    /// [`Rule::trust_root`](crate::Rule::trust_root).
    TrustRoots,
}

impl fmt::Display for RuleField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ports => "ports",
            Self::Methods => "methods",
            Self::PathPrefixes => "path prefixes",
            Self::PrivateRanges => "private ranges",
            Self::Injections => "injected headers",
            Self::TrustRoots => "trust roots",
        })
    }
}
