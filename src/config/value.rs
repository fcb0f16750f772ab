//! The types of settings: how each is read from a file, a variable or a flag, and written back.

use std::fmt;
use std::net::{AddrParseError, SocketAddr};
use std::num::{ParseFloatError, ParseIntError, TryFromIntError};
use std::path::{Path, PathBuf};
use std::str::{FromStr, ParseBoolError};
use std::time::Duration;

use neuroflow_telemetry::{RatioError, Sampler};

use super::NotAWay;
use super::unit::{UnitError, format_duration, format_size, parse_duration, parse_size};

/// A value as its source has it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Raw {
    /// From a variable or a flag, where everything is text.
    Plain(String),
    /// A text of the file.
    Text(String),
    /// A whole number of the file.
    Integer(i64),
    /// A number of the file.
    Float(f64),
    /// `true` or `false` of the file.
    Boolean(bool),
    /// A list of the file.
    List(Vec<Raw>),
    /// Something else of the file.
    Other(&'static str),
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(text) | Self::Text(text) => write!(f, "{text:?}"),
            Self::Integer(number) => number.fmt(f),
            Self::Float(number) => number.fmt(f),
            Self::Boolean(value) => value.fmt(f),
            Self::List(items) => {
                let items: Vec<String> = items.iter().map(ToString::to_string).collect();
                write!(f, "[{}]", items.join(", "))
            }
            Self::Other(what) => f.write_str(what),
        }
    }
}

/// Why a value isn't what it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Problem {
    /// It's of another type.
    #[error("it's of another type")]
    Type,
    /// Not an address.
    #[error("it isn't an address with a port")]
    Address(#[from] AddrParseError),
    /// Not a whole number.
    #[error("it isn't a whole number")]
    Integer(#[from] ParseIntError),
    /// Out of range.
    #[error("it's out of range")]
    Range(#[from] TryFromIntError),
    /// Not a number.
    #[error("it isn't a number")]
    Float(#[from] ParseFloatError),
    /// Not a ratio.
    #[error("it's out of range")]
    Ratio(#[from] RatioError),
    /// Not yes or no.
    #[error("it's neither true nor false")]
    Boolean(#[from] ParseBoolError),
    /// Not a number with a unit.
    #[error("it isn't a whole number with a unit")]
    Unit(#[from] UnitError),
    /// Not a URL.
    #[error("it doesn't begin with http:// or https:// and a host")]
    Url,
    /// Not the name of a service.
    #[error(transparent)]
    Service(#[from] neuroflow::transport::ServiceNameError),
    /// Not the place of a journal.
    #[error(transparent)]
    Journal(#[from] neuroflow::actors::UrlError),
    /// Not one of a few words.
    #[error("it's none of those")]
    Word,
    /// Nothing in it.
    #[error("it's empty")]
    Empty,
    /// The same twice.
    #[error("an entry is there twice")]
    Twice,
    /// Not a host that cells can reach.
    #[error(transparent)]
    WayOut(#[from] NotAWay),
}

/// The type of a setting.
pub(crate) trait Value: Sized {
    /// What a value looks like, for errors: "a …".
    const EXPECTED: &'static str;

    fn read(raw: &Raw) -> Result<Self, Problem>;

    /// As the file has it; none if it isn't set.
    fn toml(&self) -> Option<String>;

    /// The value if nobody gives one and the table has none.
    fn absent() -> Option<Self> {
        None
    }

    /// A value that isn't one, as an error may show it.
    fn shown(raw: &Raw) -> String {
        raw.to_string()
    }
}

pub(super) fn text(raw: &Raw) -> Result<&str, Problem> {
    match raw {
        Raw::Plain(text) | Raw::Text(text) => Ok(text),
        _ => Err(Problem::Type),
    }
}

/// The texts of a list, or of a text with commas.
pub(super) fn texts(raw: &Raw) -> Result<Vec<&str>, Problem> {
    match raw {
        Raw::Plain(text) => {
            Ok(text.split(',').map(str::trim).filter(|each| !each.is_empty()).collect())
        }
        Raw::List(items) => items.iter().map(text).collect(),
        _ => Err(Problem::Type),
    }
}

/// A list of things that may stand in it once.
pub(super) fn distinct<T>(raw: &Raw) -> Result<Vec<T>, Problem>
where
    T: FromStr + PartialEq,
    Problem: From<T::Err>,
{
    let mut list = Vec::new();
    for each in texts(raw)? {
        let each = each.parse()?;
        if list.contains(&each) {
            return Err(Problem::Twice);
        }
        list.push(each);
    }
    Ok(list)
}

/// A text in quotes: what is escaped here is escaped in TOML too.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

impl<T: Value> Value for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn read(raw: &Raw) -> Result<Self, Problem> {
        T::read(raw).map(Some)
    }

    fn toml(&self) -> Option<String> {
        self.as_ref().and_then(Value::toml)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn shown(raw: &Raw) -> String {
        T::shown(raw)
    }
}

impl Value for SocketAddr {
    const EXPECTED: &'static str = "an address with a port such as \"127.0.0.1:8080\"";

    fn read(raw: &Raw) -> Result<Self, Problem> {
        Ok(text(raw)?.parse()?)
    }

    fn toml(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

/// Where metrics are served, if they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MetricsAddress(Option<SocketAddr>);

impl MetricsAddress {
    pub(crate) fn address(self) -> Option<SocketAddr> {
        self.0
    }
}

impl Value for MetricsAddress {
    const EXPECTED: &'static str = "an address with a port such as \"127.0.0.1:9464\", or \"off\"";

    fn read(raw: &Raw) -> Result<Self, Problem> {
        match text(raw)? {
            "off" => Ok(Self(None)),
            address => Ok(Self(Some(address.parse()?))),
        }
    }

    fn toml(&self) -> Option<String> {
        self.0.map_or_else(|| Some(quoted("off")), |address| address.toml())
    }
}

/// An HTTP URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint(String);

impl Endpoint {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Without what may be a secret.
    pub(crate) fn masked(&self) -> String {
        masked(&self.0)
    }
}

impl Value for Endpoint {
    const EXPECTED: &'static str = "a URL that begins with http:// or https:// and a host";

    fn read(raw: &Raw) -> Result<Self, Problem> {
        let url = text(raw)?;
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        let host = rest.and_then(|rest| rest.split('/').next()).unwrap_or_default();
        let plain = url.bytes().all(|byte| byte.is_ascii_graphic());
        if host.is_empty() || !plain { Err(Problem::Url) } else { Ok(Self(url.to_owned())) }
    }

    fn toml(&self) -> Option<String> {
        Some(quoted(&self.masked()))
    }

    /// Without `user:password@` and without a query, where keys travel.
    fn shown(raw: &Raw) -> String {
        let Ok(url) = text(raw) else { return raw.to_string() };
        let url = url.split(['?', '#']).next().unwrap_or_default();
        let (scheme, rest) = url.split_once("://").map_or(("", url), |(s, rest)| (s, rest));
        let host = rest.rsplit('@').next().unwrap_or_default();
        if scheme.is_empty() { format!("{host:?}") } else { format!("\"{scheme}://{host}\"") }
    }
}

/// A URL to be shown: that there is a user and a query is told, and not what they are.
pub(super) fn masked(url: &str) -> String {
    let (address, query) = match url.find(['?', '#']) {
        Some(at) => (&url[..at], "?***"),
        None => (url, ""),
    };
    let (scheme, rest) = address.split_once("://").unwrap_or(("", address));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = match authority.rsplit_once('@') {
        Some((_user, host)) => format!("***@{host}"),
        None => authority.to_owned(),
    };
    let scheme = if scheme.is_empty() { String::new() } else { format!("{scheme}://") };
    format!("{scheme}{host}{path}{query}")
}

impl Value for Duration {
    const EXPECTED: &'static str = "a duration such as \"250ms\", \"55s\", \"5m\" or \"1h\"";

    fn read(raw: &Raw) -> Result<Self, Problem> {
        Ok(parse_duration(text(raw)?)?)
    }

    fn toml(&self) -> Option<String> {
        Some(quoted(&format_duration(*self)))
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ByteSize(u64);

impl ByteSize {
    pub(crate) fn bytes(self) -> u64 {
        self.0
    }
}

impl Value for ByteSize {
    const EXPECTED: &'static str = "a size such as \"64KiB\", \"512MiB\" or \"2GiB\"";

    fn read(raw: &Raw) -> Result<Self, Problem> {
        Ok(Self(parse_size(text(raw)?)?))
    }

    fn toml(&self) -> Option<String> {
        Some(quoted(&format_size(self.0)))
    }
}

/// A number from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ratio(f64);

impl Ratio {
    pub(crate) fn number(self) -> f64 {
        self.0
    }
}

impl Value for Ratio {
    const EXPECTED: &'static str = "a number from 0 to 1";

    fn read(raw: &Raw) -> Result<Self, Problem> {
        let number = match raw {
            Raw::Plain(text) => text.parse()?,
            Raw::Float(number) => *number,
            Raw::Integer(0) => 0.0,
            Raw::Integer(1) => 1.0,
            Raw::Integer(_) | Raw::Text(_) | Raw::Boolean(_) | Raw::List(_) | Raw::Other(_) => {
                return Err(Problem::Type);
            }
        };
        Sampler::ratio(number)?;
        Ok(Self(number))
    }

    fn toml(&self) -> Option<String> {
        Some(format!("{:?}", self.0))
    }
}

macro_rules! whole_number {
    ($($Type:ty),+) => { $(
        impl Value for $Type {
            const EXPECTED: &'static str = "a whole number";

            fn read(raw: &Raw) -> Result<Self, Problem> {
                match raw {
                    Raw::Plain(text) => Ok(text.parse()?),
                    Raw::Integer(number) => Ok(Self::try_from(*number)?),
                    _ => Err(Problem::Type),
                }
            }

            fn toml(&self) -> Option<String> {
                Some(self.to_string())
            }
        }
    )+ };
}
whole_number!(u16, u32);

impl Value for bool {
    const EXPECTED: &'static str = "true or false";

    fn read(raw: &Raw) -> Result<Self, Problem> {
        match raw {
            Raw::Plain(text) => Ok(text.parse()?),
            Raw::Boolean(value) => Ok(*value),
            _ => Err(Problem::Type),
        }
    }

    fn toml(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Value for String {
    const EXPECTED: &'static str = "a text such as \"info,neuroflow=debug\"";

    fn read(raw: &Raw) -> Result<Self, Problem> {
        match text(raw)? {
            "" => Err(Problem::Empty),
            text => Ok(text.to_owned()),
        }
    }

    fn toml(&self) -> Option<String> {
        Some(quoted(self))
    }
}

macro_rules! path_or_off {
    ($($(#[$about:meta])* $Type:ident: $expected:literal;)+) => { $(
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub(crate) enum $Type {
            Off,
            At(PathBuf),
        }

        impl Value for $Type {
            const EXPECTED: &'static str = $expected;

            fn read(raw: &Raw) -> Result<Self, Problem> {
                match text(raw)? {
                    "" => Err(Problem::Empty),
                    "off" => Ok(Self::Off),
                    path => Ok(Self::At(path.into())),
                }
            }

            fn toml(&self) -> Option<String> {
                match self {
                    Self::Off => Some(quoted("off")),
                    Self::At(path) => path.to_str().map(quoted),
                }
            }
        }
    )+ };
}
path_or_off! {
    /// Where a socket is, if there is one.
    SocketPath: "a path such as \"/run/neuroflow/control.sock\", or \"off\"";
    /// Where a log is, if there is one.
    LogPath: "a path such as \"/var/lib/neuroflow/audit.log\", or \"off\"";
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FilePath(PathBuf);

impl FilePath {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Value for FilePath {
    const EXPECTED: &'static str = "the path of a file or folder";

    fn read(raw: &Raw) -> Result<Self, Problem> {
        match text(raw)? {
            "" => Err(Problem::Empty),
            path => Ok(Self(path.into())),
        }
    }

    fn toml(&self) -> Option<String> {
        self.0.to_str().map(quoted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain<T: Value>(text: &str) -> Result<T, Problem> {
        T::read(&Raw::Plain(text.to_owned()))
    }

    #[test]
    fn a_number_in_quotes_is_no_number() {
        assert!(matches!(u32::read(&Raw::Text("64".to_owned())), Err(Problem::Type)));
        assert_eq!(plain::<u32>("64").unwrap(), 64);
        assert!(matches!(u32::read(&Raw::Integer(-1)), Err(Problem::Range(_))));
        assert!(matches!(Duration::read(&Raw::Integer(60)), Err(Problem::Type)));
    }

    #[test]
    fn credentials_of_a_url_are_not_shown() {
        let shown = |url: &str| Endpoint::shown(&Raw::Text(url.to_owned()));
        assert_eq!(shown("htp://u:secret@host/x?key=secret"), "\"htp://host/x\"");
        assert!(!shown("u:secret@host").contains("secret"));
        let printed = |url: &str| plain::<Endpoint>(url).unwrap().toml().unwrap();
        assert_eq!(printed("http://u:secret@host/x?key=secret"), "\"http://***@host/x?***\"");
        assert_eq!(printed("http://host/@x#secret"), "\"http://host/@x?***\"");
        assert_eq!(printed("https://host:1"), "\"https://host:1\"");
    }

    #[test]
    fn urls_have_a_scheme_and_a_host() {
        assert!(plain::<Endpoint>("https://host/path").is_ok());
        for bad in ["", "host:4318", "http://", "http:///x", "grpc://host", "http://ho st"] {
            assert!(plain::<Endpoint>(bad).is_err(), "{bad}");
        }
    }
}
