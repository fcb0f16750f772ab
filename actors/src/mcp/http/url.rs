//! The URL of a server, taken apart. Pure.

use axum::http::Uri;

use super::HttpError;

/// Where requests go.
#[derive(Debug)]
pub(in crate::mcp) struct Target {
    authority: String,
    host: String,
    port: u16,
    path: String,
    is_tls: bool,
}

impl Target {
    pub(in crate::mcp) fn parse(url: &str) -> Result<Self, HttpError> {
        let uri: Uri = url.parse().map_err(|_malformed| HttpError::Url)?;
        let default = match uri.scheme_str() {
            Some("https") => 443,
            Some("http") => 80,
            _ => return Err(HttpError::Url),
        };
        let authority = uri.authority().ok_or(HttpError::Url)?;
        if authority.as_str().contains('@') || authority.host().is_empty() || url.contains('#') {
            return Err(HttpError::Url);
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            authority: authority.as_str().to_owned(),
            host: authority.host().to_owned(),
            port: authority.port_u16().unwrap_or(default),
            path: path.to_owned(),
            is_tls: default == 443,
        })
    }

    /// Host and port as the URL has them.
    pub(in crate::mcp) fn authority(&self) -> &str {
        &self.authority
    }

    /// Without the brackets of an IPv6 address.
    pub(in crate::mcp) fn bare_host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// Whether both are of the same scheme, host and port.
    pub(in crate::mcp) fn is_same_origin(&self, other: &Self) -> bool {
        let same_host = self.host.eq_ignore_ascii_case(&other.host);
        same_host && (self.is_tls, self.port) == (other.is_tls, other.port)
    }

    pub(in crate::mcp) fn port(&self) -> u16 {
        self.port
    }

    pub(in crate::mcp) fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Whether it's this machine, by its address; names can lead anywhere.
    pub(in crate::mcp) fn is_loopback(&self) -> bool {
        self.bare_host().parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// With the query.
    pub(in crate::mcp) fn path(&self) -> &str {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let target = Target::parse("https://mcp.example.com/v1/mcp?a=b").unwrap();
        assert_eq!((target.bare_host(), target.port()), ("mcp.example.com", 443));
        assert_eq!((target.authority(), target.path()), ("mcp.example.com", "/v1/mcp?a=b"));
        let target = Target::parse("http://127.0.0.1:8931").unwrap();
        assert_eq!((target.bare_host(), target.port(), target.path()), ("127.0.0.1", 8931, "/"));
    }

    #[test]
    fn what_could_be_read_differently_is_refused() {
        for url in ["", "mcp.example.com", "ftp://a.example/", "https://u:p@a.example/", "/mcp"] {
            assert!(Target::parse(url).is_err(), "{url}");
        }
    }
}
