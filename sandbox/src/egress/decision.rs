//! Which rule lets a request through, or why none does.

use hyper::Method;

use super::{
    head::Overrides,
    host::Host,
    path,
    policy::{Compiled, Policy},
    reason::EgressReason,
};

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked<'a> {
    Tunnel { port: u16 },
    Plain { port: Option<u16>, method: &'a Method, path: &'a str, overrides: Overrides },
}

/// The rule and the port to connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) rule: usize,
    pub(crate) port: u16,
}

/// The first rule that fits. Otherwise the reason of the one that came closest, so that the answer
/// says what is missing.
pub(crate) fn decide(
    policy: &Policy,
    host: &Host,
    asked: &Asked<'_>,
) -> Result<Grant, EgressReason> {
    let mut closest = match host {
        Host::Name(_) => EgressReason::Host,
        Host::Address(_) => EgressReason::AddressLiteral,
    };
    for (index, rule) in policy.rules.iter().enumerate() {
        if !rule.fits_host(host) {
            continue;
        }
        match judge(rule, asked) {
            Ok(port) => return Ok(Grant { rule: index, port }),
            Err(reason) if rank(reason) > rank(closest) => closest = reason,
            Err(_farther) => {}
        }
    }
    Err(closest)
}

fn judge(rule: &Compiled, asked: &Asked<'_>) -> Result<u16, EgressReason> {
    match *asked {
        Asked::Tunnel { port } if !rule.fits_port(port) => Err(EgressReason::Port),
        Asked::Tunnel { .. } if !rule.fits_tunnel() => Err(EgressReason::TunnelHidesRequest),
        Asked::Tunnel { port } => Ok(port),
        Asked::Plain { port, method, path, overrides } => {
            let port = port_of(rule, port);
            if !rule.fits_port(port) {
                return Err(EgressReason::Port);
            }
            if !rule.fits_method(method) {
                return Err(EgressReason::Method);
            }
            if rule.has_methods() && overrides.method {
                return Err(EgressReason::MethodOverride);
            }
            if rule.has_paths() && path::check(path).is_err() {
                return Err(EgressReason::PathAmbiguous);
            }
            if !rule.fits_path(path) {
                return Err(EgressReason::Path);
            }
            if rule.has_paths() && overrides.path {
                return Err(EgressReason::PathOverride);
            }
            Ok(port)
        }
    }
}

/// `http://host` and `http://host:80` are the same target; with TLS it stands for 443.
fn port_of(rule: &Compiled, port: Option<u16>) -> u16 {
    match port.unwrap_or(80) {
        80 if rule.upstream.is_some() => 443,
        port => port,
    }
}

/// How far a request came with a rule.
fn rank(reason: EgressReason) -> u8 {
    match reason {
        EgressReason::Port => 1,
        EgressReason::TunnelHidesRequest | EgressReason::Method => 2,
        EgressReason::MethodOverride => 3,
        EgressReason::Path => 4,
        EgressReason::PathAmbiguous => 5,
        EgressReason::PathOverride => 6,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{EgressLimits, Rule};

    fn policy(rules: &[Rule]) -> Policy {
        Policy::compile(rules, &EgressLimits::default()).unwrap()
    }

    fn tunnel(policy: &Policy, host: &str, port: u16) -> Result<Grant, EgressReason> {
        decide(policy, &Host::parse(host).unwrap(), &Asked::Tunnel { port })
    }

    fn plain(
        policy: &Policy,
        method: &Method,
        host: &str,
        port: Option<u16>,
        path: &str,
    ) -> Result<Grant, EgressReason> {
        let overrides = Overrides::default();
        decide(policy, &Host::parse(host).unwrap(), &Asked::Plain { port, method, path, overrides })
    }

    #[test]
    fn what_no_rule_names_is_refused() {
        let policy = policy(&[Rule::host("a.example"), Rule::host("*.b.example").port(8443)]);
        assert_eq!(tunnel(&policy, "A.example.", 443), Ok(Grant { rule: 0, port: 443 }));
        assert_eq!(tunnel(&policy, "x.b.example", 8443), Ok(Grant { rule: 1, port: 8443 }));
        assert_eq!(tunnel(&policy, "a.example", 80), Err(EgressReason::Port));
        assert_eq!(tunnel(&policy, "x.b.example", 443), Err(EgressReason::Port));
        assert_eq!(tunnel(&policy, "b.example", 8443), Err(EgressReason::Host));
        assert_eq!(tunnel(&policy, "evil.example", 443), Err(EgressReason::Host));
        assert_eq!(tunnel(&policy, "93.184.216.34", 443), Err(EgressReason::AddressLiteral));
    }

    #[test]
    fn an_address_is_allowed_by_a_rule_that_names_it() {
        let policy = policy(&[Rule::host("93.184.216.34"), Rule::host("*.a.example")]);
        assert!(tunnel(&policy, "93.184.216.34", 443).is_ok());
        assert_eq!(tunnel(&policy, "93.184.216.35", 443), Err(EgressReason::AddressLiteral));
    }

    #[test]
    fn plain_http_needs_its_port_named() {
        let get = Method::GET;
        let policy = policy(&[Rule::host("a.example"), Rule::host("b.example").port(80)]);
        assert_eq!(plain(&policy, &get, "a.example", None, "/"), Err(EgressReason::Port));
        assert!(plain(&policy, &get, "a.example", Some(443), "/").is_ok());
        assert_eq!(plain(&policy, &get, "b.example", None, "/"), Ok(Grant { rule: 1, port: 80 }));
    }

    #[test]
    fn the_reason_is_that_of_the_closest_rule() {
        let policy = policy(&[
            Rule::host("a.example").port(80).method("GET").path_prefix("/v1/"),
            Rule::host("a.example").port(81),
        ]);
        for (method, port, path, expected) in [
            (Method::GET, None, "/v1/x", Ok(Grant { rule: 0, port: 80 })),
            (Method::POST, None, "/v1/x", Err(EgressReason::Method)),
            (Method::GET, None, "/v2/x", Err(EgressReason::Path)),
            (Method::GET, None, "/v1/%2e%2e/v2", Err(EgressReason::PathAmbiguous)),
            (Method::GET, Some(82), "/v1/x", Err(EgressReason::Port)),
            (Method::TRACE, Some(81), "/", Err(EgressReason::Method)),
            (Method::DELETE, Some(81), "/../x", Ok(Grant { rule: 1, port: 81 })),
        ] {
            assert_eq!(
                plain(&policy, &method, "a.example", port, path),
                expected,
                "{method} {path}"
            );
        }
        assert_eq!(tunnel(&policy, "a.example", 80), Err(EgressReason::TunnelHidesRequest));
        assert!(tunnel(&policy, "a.example", 81).is_ok());
    }

    #[test]
    fn a_rule_is_not_passed_by_with_a_header() {
        let host = || Rule::host("a.example").port(80);
        let ask = |rules: &[Rule], method, path| {
            let asked = Asked::Plain {
                port: None,
                method: &Method::GET,
                path: "/v1/x",
                overrides: Overrides { method, path },
            };
            decide(&policy(rules), &Host::parse("a.example").unwrap(), &asked)
        };
        let granted = |rule| Ok(Grant { rule, port: 80 });
        let methods = [host().method("GET")];
        assert_eq!(ask(&methods, true, true), Err(EgressReason::MethodOverride));
        assert_eq!(ask(&methods, false, true), granted(0));
        let paths = [host().path_prefix("/v1/")];
        assert_eq!(ask(&paths, true, true), Err(EgressReason::PathOverride));
        assert_eq!(ask(&paths, true, false), granted(0));
        // A rule that speaks of neither lets it through, without the first one's secrets.
        assert_eq!(ask(&[host().method("GET"), host()], true, false), granted(1));
    }

    #[cfg(feature = "egress-tls")]
    #[test]
    fn port_80_stands_for_443_where_the_proxy_speaks_tls() {
        let get = Method::GET;
        let policy = policy(&[Rule::host("a.example").upstream_tls()]);
        for port in [None, Some(80), Some(443)] {
            let granted = plain(&policy, &get, "a.example", port, "/");
            assert_eq!(granted, Ok(Grant { rule: 0, port: 443 }));
        }
        assert_eq!(plain(&policy, &get, "a.example", Some(8080), "/"), Err(EgressReason::Port));
        assert_eq!(tunnel(&policy, "a.example", 443), Err(EgressReason::TunnelHidesRequest));
    }
}
