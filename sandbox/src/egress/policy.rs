//! An allow-list in the form in which requests are compared with it.

use std::collections::HashSet;

use hyper::{
    Method,
    header::{HeaderName, HeaderValue},
};

use super::{
    address::Range,
    head,
    host::{Host, Pattern},
    path,
    resolver::Names,
    tls::{Connector, ConnectorError},
};
use crate::{
    limits,
    network::{EgressLimits, NetworkError, Rule, RuleField, Secret},
};

/// A checked allow-list.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) rules: Vec<Compiled>,
    pub(crate) limits: EgressLimits,
    pub(crate) names: Names,
}

/// A checked rule.
#[derive(Debug)]
pub(crate) struct Compiled {
    pattern: Pattern,
    ports: Vec<u16>,
    methods: Vec<Method>,
    path_prefixes: Vec<String>,
    ranges: Vec<Range>,
    pub(crate) injections: Vec<Injection>,
    pub(crate) upstream: Option<Connector>,
    pub(crate) opaque_tunnel: bool,
    pub(crate) max_bytes: Option<u64>,
}

/// A header that the proxy adds.
#[derive(Debug)]
pub(crate) struct Injection {
    pub(crate) name: HeaderName,
    /// Marked as sensitive, so that it shows nothing of itself.
    pub(crate) value: HeaderValue,
    pub(crate) secret: Secret,
}

impl Policy {
    pub(crate) fn compile(rules: &[Rule], bounds: &EgressLimits) -> Result<Self, NetworkError> {
        if rules.is_empty() {
            return Err(NetworkError::NoRules);
        }
        let (given, most) = (rules.len(), limits::MAX_EGRESS_RULES);
        if given > most {
            return Err(NetworkError::TooManyRules { given, most });
        }
        bounds.check()?;
        let rules = rules.iter().enumerate().map(|(index, rule)| Compiled::from(rule, index));
        Ok(Self {
            rules: rules.collect::<Result<_, _>>()?,
            limits: bounds.clone(),
            names: Names::default(),
        })
    }
}

impl Compiled {
    fn from(rule: &Rule, index: usize) -> Result<Self, NetworkError> {
        check_lengths(rule, index)?;
        let pattern = Pattern::parse(&rule.host).map_err(|problem| NetworkError::Host {
            rule: index,
            host: rule.host.clone(),
            problem,
        })?;
        if rule.ports.contains(&0) {
            return Err(NetworkError::Port { rule: index });
        }
        if rule.upstream_tls && rule.ports.contains(&80) {
            return Err(NetworkError::TlsPort { rule: index });
        }
        let ports = if rule.ports.is_empty() { vec![443] } else { rule.ports.clone() };
        let mut ranges: Vec<Range> = pattern.literal().map(Range::only).into_iter().collect();
        for range in &rule.private_ranges {
            ranges.push(range.parse().map_err(|_no_range| NetworkError::PrivateRange {
                rule: index,
                range: range.clone(),
            })?);
        }
        Ok(Self {
            pattern,
            ports,
            methods: methods(rule, index)?,
            path_prefixes: path_prefixes(rule, index)?,
            ranges,
            injections: injections(rule, index)?,
            upstream: connector(rule, index)?,
            opaque_tunnel: rule.opaque_tunnel,
            max_bytes: rule.max_bytes,
        })
    }

    pub(crate) fn fits_host(&self, host: &Host) -> bool {
        self.pattern.fits(host)
    }

    pub(crate) fn fits_port(&self, port: u16) -> bool {
        self.ports.contains(&port)
    }

    pub(crate) fn fits_method(&self, method: &Method) -> bool {
        *method != Method::TRACE && (self.methods.is_empty() || self.methods.contains(method))
    }

    pub(crate) fn has_methods(&self) -> bool {
        !self.methods.is_empty()
    }

    pub(crate) fn has_paths(&self) -> bool {
        !self.path_prefixes.is_empty()
    }

    pub(crate) fn fits_path(&self, path: &str) -> bool {
        let mut prefixes = self.path_prefixes.iter();
        self.path_prefixes.is_empty() || prefixes.any(|prefix| path::is_below(path, prefix))
    }

    /// Whether the rule can be held without seeing inside.
    pub(crate) fn fits_tunnel(&self) -> bool {
        self.methods.is_empty()
            && self.path_prefixes.is_empty()
            && self.injections.is_empty()
            && self.upstream.is_none()
    }

    pub(crate) fn permits(&self, address: std::net::IpAddr) -> bool {
        self.ranges.iter().any(|range| range.permits(address))
    }
}

fn check_lengths(rule: &Rule, index: usize) -> Result<(), NetworkError> {
    let most = limits::MAX_RULE_ENTRIES;
    for (field, given) in [
        (RuleField::Ports, rule.ports.len()),
        (RuleField::Methods, rule.methods.len()),
        (RuleField::PathPrefixes, rule.path_prefixes.len()),
        (RuleField::PrivateRanges, rule.private_ranges.len()),
        (RuleField::Injections, rule.injections.len()),
        (RuleField::TrustRoots, rule.trust_roots.len()),
    ] {
        if given > most {
            return Err(NetworkError::TooMany { rule: index, field, given, most });
        }
    }
    Ok(())
}

fn methods(rule: &Rule, index: usize) -> Result<Vec<Method>, NetworkError> {
    let parse = |text: &String| match Method::from_bytes(text.as_bytes()) {
        Ok(method) if method != Method::CONNECT && method != Method::TRACE => Ok(method),
        _ => Err(NetworkError::Method { rule: index, method: text.clone() }),
    };
    rule.methods.iter().map(parse).collect()
}

fn path_prefixes(rule: &Rule, index: usize) -> Result<Vec<String>, NetworkError> {
    let parse = |text: &String| {
        // A query or fragment would never match, and a space would never come.
        let foreign = text.contains(['?', '#', ' ']) || !text.is_ascii();
        if foreign || text.len() > limits::MAX_PATH_PREFIX_BYTES || path::check(text).is_err() {
            return Err(NetworkError::PathPrefix { rule: index, prefix: text.clone() });
        }
        Ok(text.clone())
    };
    rule.path_prefixes.iter().map(parse).collect()
}

fn injections(rule: &Rule, index: usize) -> Result<Vec<Injection>, NetworkError> {
    let mut seen = HashSet::new();
    let mut all = Vec::with_capacity(rule.injections.len());
    for (header, secret) in &rule.injections {
        let name = match HeaderName::from_bytes(header.as_bytes()) {
            Ok(name) if !head::is_ours(&name) && seen.insert(name.clone()) => name,
            _ => return Err(NetworkError::Header { rule: index, header: header.clone() }),
        };
        let bytes = secret.bytes();
        let is_fit = !bytes.is_empty()
            && bytes.len() <= limits::MAX_SECRET_BYTES
            && bytes.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
        let mut value = match HeaderValue::from_bytes(bytes) {
            Ok(value) if is_fit => value,
            _ => return Err(NetworkError::SecretValue { rule: index, header: header.clone() }),
        };
        value.set_sensitive(true);
        if !rule.upstream_tls && !rule.plaintext_secret {
            return Err(NetworkError::PlaintextSecret { rule: index, header: header.clone() });
        }
        all.push(Injection { name, value, secret: secret.clone() });
    }
    Ok(all)
}

fn connector(rule: &Rule, index: usize) -> Result<Option<Connector>, NetworkError> {
    if !rule.upstream_tls {
        return if rule.trust_roots.is_empty() {
            Ok(None)
        } else {
            Err(NetworkError::UnusedTrustRoots { rule: index })
        };
    }
    Connector::trusting(&rule.trust_roots).map(Some).map_err(|error| match error {
        ConnectorError::NotBuilt => NetworkError::TlsNotBuilt { rule: index },
        ConnectorError::Root(root) => NetworkError::TrustRoot { rule: index, root },
        ConnectorError::NoRoots => NetworkError::NoTrustRoots { rule: index },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{EgressLimit, Network};

    fn check(rule: Rule) -> Result<(), NetworkError> {
        Network::allow([Rule::host("fine.example"), rule]).check()
    }

    fn host() -> Rule {
        Rule::host("a.example")
    }

    #[test]
    fn a_mistake_names_the_rule_and_the_field() {
        assert_eq!(Network::allow([]).check(), Err(NetworkError::NoRules));
        for (rule, text) in [
            (Rule::host("*.com"), "rule 1: host \"*.com\" has a wildcard"),
            (Rule::host("bücher.de"), "international names as xn--"),
            (Rule::host("http://a.example"), "rule 1: host"),
            (host().port(0), "rule 1: port 0"),
            (host().port(80).upstream_tls(), "port 80 stands for 443"),
            (host().method("CONNECT"), "method \"CONNECT\""),
            (host().method("TRACE"), "method \"TRACE\""),
            (host().method("GET "), "method \"GET \""),
            (host().path_prefix("v1"), "path prefix \"v1\""),
            (host().path_prefix("/a/../b"), "path prefix"),
            (host().path_prefix("/a?b"), "path prefix"),
            (host().allow_private("10.0.0.0/0"), "private range \"10.0.0.0/0\""),
            (host().allow_private("localhost"), "private range"),
            (host().inject("Host", "x").upstream_tls(), "header \"Host\""),
            (host().inject("content-length", "1").upstream_tls(), "header"),
            (host().inject("proxy-x", "1").upstream_tls(), "header"),
            (host().inject("a b", "1").upstream_tls(), "header"),
            (host().inject("x", "1").inject("X", "2").upstream_tls(), "header \"X\""),
            (host().inject("x", "").upstream_tls(), "secret for header \"x\""),
            (host().inject("x", "a\r\nb").upstream_tls(), "secret for header \"x\""),
            (host().inject("x", "hidden"), "in clear"),
            (host().trust_root([1]), "nothing without `upstream_tls`"),
            (host().ports(1..=33), "33 ports"),
        ] {
            let error = check(rule).unwrap_err();
            assert_eq!(error.rule(), Some(1));
            assert!(error.to_string().contains(text), "{error}");
            assert!(!error.to_string().contains("hidden"));
        }
    }

    #[test]
    fn bounds_are_checked() {
        let bound = |bounds| Network::allow([host()]).limits(bounds).check();
        assert!(bound(EgressLimits::default()).is_ok());
        let refused = bound(EgressLimits::default().concurrent(0)).unwrap_err();
        assert!(matches!(refused, NetworkError::OutOfRange { limit: EgressLimit::Concurrent, .. }));
        let refused = bound(EgressLimits::default().head_bytes(100)).unwrap_err();
        assert!(matches!(refused, NetworkError::OutOfRange { limit: EgressLimit::HeadBytes, .. }));
        assert_eq!(refused.rule(), None);
    }

    #[cfg(feature = "egress-tls")]
    #[test]
    fn a_trust_root_has_to_be_a_certificate() {
        let refused = check(host().upstream_tls().trust_root(b"no certificate".to_vec()));
        assert_eq!(refused, Err(NetworkError::TrustRoot { rule: 1, root: 0 }));
    }

    #[cfg(not(feature = "egress-tls"))]
    #[test]
    fn without_the_feature_a_rule_with_tls_is_refused() {
        assert_eq!(check(host().upstream_tls()), Err(NetworkError::TlsNotBuilt { rule: 1 }));
    }

    #[test]
    fn the_policy_shows_no_secret() {
        let rule = host().port(80).inject("x", "s3cr3t-value").plaintext_secret_ok();
        let policy = Policy::compile(&[rule], &EgressLimits::default()).unwrap();
        assert!(!format!("{policy:?}").contains("s3cr3t"));
    }
}
