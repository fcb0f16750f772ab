//! An `http` or `https` URL, taken apart. Pure.

use axum::http::Uri;
use axum::http::uri::PathAndQuery;

/// Where requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    authority: String,
    host: String,
    port: u16,
    target: String,
    is_tls: bool,
}

/// What is wrong with a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PlaceError {
    #[error("isn't a URL with a host")]
    Syntax,
    #[error("must begin with https:// or http://")]
    Scheme,
    #[error("has a user in it")]
    Userinfo,
    #[error("has a fragment")]
    Fragment,
}

impl Place {
    pub(crate) fn parse(url: &str) -> Result<Self, PlaceError> {
        if url.contains('#') {
            return Err(PlaceError::Fragment);
        }
        let uri: Uri = url.parse().map_err(|_invalid| PlaceError::Syntax)?;
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(PlaceError::Scheme),
        };
        let authority = uri.authority().ok_or(PlaceError::Syntax)?;
        if authority.as_str().contains('@') {
            return Err(PlaceError::Userinfo);
        }
        let host = authority.host().to_owned();
        if host.is_empty() {
            return Err(PlaceError::Syntax);
        }
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let target = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        Ok(Self { authority: authority.as_str().to_owned(), host, port, target, is_tls })
    }

    /// Host and port as the URL has them: what the `Host` header says.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// An IPv6 address stands in brackets.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Path and query: what the request line says.
    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    #[cfg(any(feature = "access", feature = "mcp"))]
    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    #[cfg(feature = "access")]
    pub(crate) fn has_query(&self) -> bool {
        self.target.contains('?')
    }
}

#[cfg(feature = "mcp")]
impl Place {
    /// Whether both are of the same scheme, host and port.
    pub(crate) fn is_same_origin(&self, other: &Self) -> bool {
        let same_host = self.host.eq_ignore_ascii_case(&other.host);
        same_host && (self.is_tls, self.port) == (other.is_tls, other.port)
    }

    /// Whether it's this machine, by its address; names can lead anywhere.
    pub(crate) fn is_loopback(&self) -> bool {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> (String, u16, bool, String) {
        let place = Place::parse(url).unwrap();
        (place.host, place.port, place.is_tls, place.target)
    }

    #[test]
    fn a_url_is_taken_apart() {
        let all = |host: &str, port, is_tls, target: &str| {
            (host.to_owned(), port, is_tls, target.to_owned())
        };
        let url = "https://example.org:8443/a/b?c=d";
        assert_eq!(parse(url), all("example.org", 8443, true, "/a/b?c=d"));
        assert_eq!(Place::parse(url).unwrap().authority(), "example.org:8443");
        assert_eq!(Place::parse(url).unwrap().path(), "/a/b");
        assert_eq!(parse("http://example.org?x"), all("example.org", 80, false, "/?x"));
        assert_eq!(parse("https://127.0.0.1"), all("127.0.0.1", 443, true, "/"));
        assert_eq!(parse("http://[2606:4700::1]/"), all("[2606:4700::1]", 80, false, "/"));
    }

    #[test]
    fn what_could_be_read_differently_is_refused() {
        for (url, problem) in [
            ("", PlaceError::Syntax),
            ("http://", PlaceError::Syntax),
            ("http:///x", PlaceError::Syntax),
            ("http://a b/", PlaceError::Syntax),
            ("example.org", PlaceError::Scheme),
            ("/hook", PlaceError::Scheme),
            ("ftp://a.example/", PlaceError::Scheme),
            ("https://u:p@a.example/", PlaceError::Userinfo),
            ("https://a.example/#b", PlaceError::Fragment),
        ] {
            assert_eq!(Place::parse(url), Err(problem), "{url}");
        }
    }

    #[cfg(feature = "mcp")]
    #[test]
    fn origins_and_loopback_are_told() {
        let place = |url| Place::parse(url).unwrap();
        assert!(place("http://A.example/x").is_same_origin(&place("http://a.example:80/y")));
        assert!(!place("http://a.example/").is_same_origin(&place("https://a.example:80/")));
        assert!(place("http://[::1]:1/").is_loopback() && place("http://127.1.2.3/").is_loopback());
        assert!(!place("http://localhost/").is_loopback());
    }
}
