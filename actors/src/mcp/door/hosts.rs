//! Whom the MCP endpoint believes to be meant: its names, and the web pages that may use it. Pure.

use std::net::SocketAddr;

use axum::http::Uri;

/// Names in `Host` and `Origin` that the endpoint answers to. A page of any other site, or a name
/// that somebody points at this machine, gets nothing.
///
/// ```
/// use neuroflow_actors::McpHosts;
/// let hosts = McpHosts::new("127.0.0.1:8080".parse()?, Some("https://agents.example.org"));
/// assert!(hosts.hosts().contains(&"agents.example.org".to_owned()));
/// assert!(hosts.origins().contains(&"https://agents.example.org:443".to_owned()));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct McpHosts {
    hosts: Vec<String>,
    origins: Vec<String>,
}

impl McpHosts {
    /// The address that is listened on, the names of loopback if it's that, and the public URL's.
    pub fn new(listen: SocketAddr, public_url: Option<&str>) -> Self {
        let mut hosts = Vec::new();
        let mut origins = Vec::new();
        let port = listen.port();
        let mut add = |name: String| {
            origins.push(format!("http://{name}:{port}"));
            hosts.push(name);
        };
        let own = match listen {
            SocketAddr::V4(address) => address.ip().to_string(),
            SocketAddr::V6(address) => format!("[{}]", address.ip()),
        };
        if listen.ip().to_canonical().is_loopback() || listen.ip().is_unspecified() {
            for name in ["localhost", "127.0.0.1", "[::1]"] {
                add(name.to_owned());
            }
        } else {
            add(own);
        }
        if let Some((authority, host, origin)) = public_url.and_then(public) {
            hosts.push(host);
            hosts.push(authority);
            origins.push(origin);
        }
        hosts.dedup();
        Self { hosts, origins }
    }

    /// The names in `Host`.
    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// The origins.
    pub fn origins(&self) -> &[String] {
        &self.origins
    }
}

/// Authority, host and origin of a URL.
fn public(url: &str) -> Option<(String, String, String)> {
    let uri: Uri = url.parse().ok()?;
    let scheme = uri.scheme_str()?;
    let authority = uri.authority()?;
    let port = authority.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    let host = authority.host().to_owned();
    let origin = format!("{scheme}://{host}:{port}");
    Some((authority.as_str().to_owned(), host, origin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_its_names_and_others_their_own() {
        let hosts = McpHosts::new("127.0.0.1:8080".parse().unwrap(), None);
        assert_eq!(hosts.hosts(), ["localhost", "127.0.0.1", "[::1]"]);
        assert!(hosts.origins().contains(&"http://localhost:8080".to_owned()));
        let hosts = McpHosts::new("10.1.2.3:80".parse().unwrap(), Some("https://a.example:8443/x"));
        assert_eq!(hosts.hosts(), ["10.1.2.3", "a.example", "a.example:8443"]);
        assert_eq!(hosts.origins(), ["http://10.1.2.3:80", "https://a.example:8443"]);
    }
}
