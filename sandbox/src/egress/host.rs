//! The one spelling of a host; whatever has a second reading is refused.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::address;

/// A host name in lower case without a final dot, or an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    Name(String),
    Address(IpAddr),
}

/// Why a text isn't taken as a host.
///
/// ```
/// use neuroflow_sandbox::{HostProblem, Network, NetworkError, Rule};
///
/// let refused = Network::allow([Rule::host("0x7f.1")]).check();
/// assert!(matches!(refused, Err(NetworkError::Host { problem: HostProblem::Numeric, .. })));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostProblem {
    /// There is none.
    #[error("is empty")]
    Empty,
    /// A name has 253 bytes at most, a label 63.
    #[error("is longer than a name may be")]
    TooLong,
    /// Letters, digits, `-`, `_` and `.` make a name; an international name is written `xn--...`.
    #[error("has a character that no host name has (write international names as xn--...)")]
    Character,
    /// Two dots in a row, one at the begin, or `-` at the end of a label.
    #[error("has a malformed label")]
    Label,
    /// The last label is a number, but the whole is no dotted quad: `2130706433`, `0x7f.1`,
    /// `0177.0.0.1`.
    #[error("is a number that isn't a plain IPv4 address")]
    Numeric,
    /// What stands in brackets is no IPv6 address, or has a zone.
    #[error("isn't a plain IPv6 address")]
    Bracket,
    /// A wildcard for everything below a top-level domain, or not at the front.
    #[error("has a wildcard that isn't of the form *.example.com")]
    Wildcard,
}

impl Host {
    /// Reads a host as it stands in a URI: a name, a dotted quad, or IPv6 in brackets.
    pub(crate) fn parse(text: &str) -> Result<Self, HostProblem> {
        if let Some(inner) = text.strip_prefix('[') {
            let address = inner.strip_suffix(']').map(str::parse::<Ipv6Addr>);
            return match address {
                Some(Ok(address)) => Ok(Self::Address(address::plain(address.into()))),
                _ => Err(HostProblem::Bracket),
            };
        }
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() {
            return Err(HostProblem::Empty);
        }
        if text.len() > 253 {
            return Err(HostProblem::TooLong);
        }
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if !text.bytes().all(letter) {
            return Err(HostProblem::Character);
        }
        for label in text.split('.') {
            if label.len() > 63 {
                return Err(HostProblem::TooLong);
            }
            if label.is_empty() || label.starts_with('-') || label.ends_with('-') {
                return Err(HostProblem::Label);
            }
        }
        if ends_in_number(text) {
            // The standard library takes four decimal parts without leading zeros and nothing else;
            // the C library takes far more, which is why such a text must never come there.
            let address = text.parse::<Ipv4Addr>();
            return address.map(|a| Self::Address(a.into())).or(Err(HostProblem::Numeric));
        }
        Ok(Self::Name(text.to_ascii_lowercase()))
    }
}

/// Whether a resolver may take the name for an address (as in the URL standard's host parser).
fn ends_in_number(text: &str) -> bool {
    let last = text.rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    last.bytes().all(|byte| byte.is_ascii_digit())
        || hex.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// Which hosts a rule speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pattern {
    Exactly(Host),
    /// Any name of one or more labels in front of this one, which begins with a dot.
    Below(String),
}

impl Pattern {
    /// Reads a rule's host.
    pub(crate) fn parse(text: &str) -> Result<Self, HostProblem> {
        let Some(parent) = text.strip_prefix("*.") else {
            if text.contains('*') {
                return Err(HostProblem::Wildcard);
            }
            // Without brackets as well, as people write it.
            return match text.parse::<Ipv6Addr>() {
                Ok(address) => Ok(Self::Exactly(Host::Address(address::plain(address.into())))),
                Err(_not_one) => Host::parse(text).map(Self::Exactly),
            };
        };
        match Host::parse(parent)? {
            Host::Name(name) if name.contains('.') => Ok(Self::Below(format!(".{name}"))),
            _ => Err(HostProblem::Wildcard),
        }
    }

    pub(crate) fn fits(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Exactly(own), host) => own == host,
            (Self::Below(parent), Host::Name(name)) => {
                name.strip_suffix(parent.as_str()).is_some_and(|labels| !labels.is_empty())
            }
            (Self::Below(_), Host::Address(_)) => false,
        }
    }

    /// The address that the rule names, if it names one.
    pub(crate) fn literal(&self) -> Option<IpAddr> {
        match self {
            Self::Exactly(Host::Address(address)) => Some(*address),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Host {
        Host::Name(text.to_owned())
    }

    fn address(text: &str) -> Host {
        Host::Address(text.parse().unwrap())
    }

    #[test]
    fn a_host_has_one_spelling() {
        for (text, expected) in [
            ("api.example.com", name("api.example.com")),
            ("API.Example.COM.", name("api.example.com")),
            ("localhost", name("localhost")),
            ("_dmarc.example.com", name("_dmarc.example.com")),
            ("xn--bcher-kva.example", name("xn--bcher-kva.example")),
            ("1.2.3.4.example", name("1.2.3.4.example")),
            ("0x7f.1.x", name("0x7f.1.x")),
            ("127.0.0.1", address("127.0.0.1")),
            ("127.0.0.1.", address("127.0.0.1")),
            ("[::1]", address("::1")),
            ("[::ffff:127.0.0.1]", address("127.0.0.1")),
            ("[::FFFF:7f00:1]", address("127.0.0.1")),
        ] {
            assert_eq!(Host::parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn spellings_with_a_second_reading_are_refused() {
        use HostProblem::{Bracket, Character, Empty, Label, Numeric, TooLong};
        let long = "a.".repeat(127) + "a";
        let label = "a".repeat(64) + ".example";
        for (text, problem) in [
            ("", Empty),
            (".", Empty),
            ("2130706433", Numeric),
            ("0x7f.1", Numeric),
            ("0x7F000001", Numeric),
            ("0x", Numeric),
            ("127.1", Numeric),
            ("127.0.0.0x1", Numeric),
            ("0177.0.0.1", Numeric),
            ("127.0.0.01", Numeric),
            ("256.0.0.1", Numeric),
            ("1.2.3.4.5", Numeric),
            ("example.123", Numeric),
            ("example.com..", Label),
            ("a..b", Label),
            (".example.com", Label),
            ("-a.example", Label),
            ("a-.example", Label),
            ("user@example.com", Character),
            ("example.com%00.evil", Character),
            ("%31%32%37.0.0.1", Character),
            ("exa\0mple.com", Character),
            ("example.com\r\nx", Character),
            ("example.com:80", Character),
            ("example.com/x", Character),
            ("example.com#x", Character),
            ("example.com\\x", Character),
            ("bücher.example", Character),
            ("１２７.0.0.1", Character),
            ("127。0。0。1", Character),
            ("*.example.com", Character),
            ("::1", Character),
            ("[::1", Bracket),
            ("[::1%25lo]", Bracket),
            ("[127.0.0.1]", Bracket),
            ("[v1.x]", Bracket),
            ("[]", Bracket),
            (&long, TooLong),
            (&label, TooLong),
        ] {
            assert_eq!(Host::parse(text), Err(problem), "{text:?}");
        }
    }

    #[test]
    fn a_wildcard_is_for_any_depth_but_not_for_the_apex() {
        let pattern = Pattern::parse("*.Example.com").unwrap();
        let fits = |text: &str| pattern.fits(&Host::parse(text).unwrap());
        assert!(fits("a.example.com"));
        assert!(fits("A.b.c.EXAMPLE.com."));
        assert!(!fits("example.com"));
        assert!(!fits("notexample.com"));
        assert!(!fits("a.example.com.evil.net"));
        assert!(!fits("127.0.0.1"));
        for text in [
            "*",
            "*.",
            "*.com",
            "a.*.com",
            "*a.example.com",
            "**.example.com",
            "*.*.example.com",
            "*.127.0.0.1",
            "*.[::1]",
        ] {
            assert!(Pattern::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_rule_may_name_an_address() {
        let expected = Some("::1".parse().unwrap());
        assert_eq!(Pattern::parse("::1").unwrap().literal(), expected);
        assert_eq!(Pattern::parse("[::1]").unwrap().literal(), expected);
        assert!(Pattern::parse("10.0.0.1").unwrap().fits(&Host::parse("[::ffff:a00:1]").unwrap()));
    }

    proptest! {
        #[test]
        fn what_is_taken_as_a_name_is_never_an_address_for_the_system(text in "[0-9a-fxX.]{1,20}") {
            if let Ok(Host::Name(name)) = Host::parse(&text) {
                // What `inet_aton` reads ends in a number.
                let last = name.rsplit('.').next().unwrap();
                prop_assert!(!last.starts_with(|c: char| c.is_ascii_digit())
                    || last.chars().any(|c| !c.is_ascii_digit()));
                prop_assert!(name.parse::<IpAddr>().is_err());
            }
        }

        #[test]
        fn parsing_is_idempotent(text in "\\PC{0,40}") {
            if let Ok(host) = Host::parse(&text) {
                prop_assert_eq!(Host::parse(&host.to_string()), Ok(host));
            }
        }
    }
}
