//! Which names a gateway is called by, and which web pages may call it.
//!
//! A browser sends requests for whatever page it shows. A page whose name its owner points at this
//! machine is known by the `Host` header, and any other page by `Origin`.

use std::net::{IpAddr, SocketAddr};

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version, header};
use axum::response::{IntoResponse, Response};

use super::refusal::Refusal;

/// The names that a gateway is called by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::gateway) struct Hosts {
    /// None where any name may be meant.
    allowed: Option<Vec<String>>,
    scheme: &'static str,
}

impl Hosts {
    /// On loopback those of loopback; elsewhere those that are configured, or any if none is.
    pub(super) fn new(
        bound: SocketAddr,
        public_url: Option<&str>,
        configured: &[String],
        scheme: &'static str,
    ) -> Self {
        let own = bound.ip().to_canonical();
        let public = public_url.and_then(|url| url.parse::<Uri>().ok());
        let public = public.and_then(|url| Some(name(url.host()?)));
        let is_known = own.is_loopback() || public.is_some() || !configured.is_empty();
        let mut allowed: Vec<String> = configured.iter().map(|host| name(host)).collect();
        allowed.extend(public);
        if own.is_loopback() {
            allowed.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
        }
        if !own.is_unspecified() {
            allowed.push(own.to_string());
        }
        Self { allowed: is_known.then_some(allowed), scheme }
    }

    /// Whether the request means this gateway.
    pub(super) fn check(
        &self,
        version: Version,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(), Refusal> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let (first, second) = (hosts.next(), hosts.next());
        if second.is_some() {
            return Err(Refusal::host("there are several Host headers"));
        }
        let said = match first {
            Some(host) => Some(authority(host)?),
            None => None,
        };
        let aimed = uri.authority();
        let host = match (said.as_ref(), aimed) {
            (Some(said), Some(aimed)) if said != aimed => {
                return Err(Refusal::host("the Host header and the target differ"));
            }
            (Some(said), _) => said,
            (None, Some(aimed)) => aimed,
            // Only then is there none to check; it can't come from a browser.
            (None, None) if version == Version::HTTP_10 => return Ok(()),
            (None, None) => return Err(Refusal::host("there is no Host header")),
        };
        match &self.allowed {
            Some(allowed) if !allowed.contains(&name(host.host())) => Err(Refusal::misdirected()),
            _ => Ok(()),
        }
    }

    /// The origin of the page that a request comes from, if it's from one that may. A page of this
    /// gateway itself may where its name was checked.
    pub(super) fn origin(
        &self,
        configured: &[String],
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Option<HeaderValue>, Refusal> {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let Some(origin) = origins.next() else { return Ok(None) };
        if origins.next().is_some() {
            return Err(Refusal::origin());
        }
        let text = origin.to_str().map_err(|_other| Refusal::origin())?;
        if configured.iter().any(|known| known.trim_end_matches('/') == text) {
            return Ok(Some(origin.clone()));
        }
        let own = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let own = own.or_else(|| uri.authority().map(Authority::as_str)).unwrap_or_default();
        let is_own = text == format!("{}://{own}", self.scheme);
        if is_own && self.allowed.is_some() { Ok(None) } else { Err(Refusal::origin()) }
    }
}

fn authority(host: &HeaderValue) -> Result<Authority, Refusal> {
    let read = Authority::try_from(host.as_bytes()).ok();
    let plain = read.filter(|authority| !authority.as_str().contains('@'));
    plain.ok_or_else(|| Refusal::host("the Host header can't be read"))
}

/// A host as it's compared: lower case, no brackets, no dot at its end.
fn name(host: &str) -> String {
    let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().to_string(),
        Err(_name) => host.to_ascii_lowercase(),
    }
}

/// Whether a browser asks if it may ask.
pub(super) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// What a page of another origin may send, where it doesn't say what it will.
const SENT: &str = "authorization, content-type, accept, last-event-id, traceparent, x-request-id, \
                    a2a-version, a2a-extensions, mcp-protocol-version, mcp-session-id";

/// What such a page may read, besides what every page may.
const READ: &str =
    "x-request-id, retry-after, www-authenticate, a2a-extensions, mcp-session-id, etag";

/// Tells a browser that it may. An origin that is let in at all may send what headers it likes: which those are that
/// a protocol has, and libraries add, isn't known once and for all.
pub(super) fn preflight(origin: &HeaderValue, wanted: Option<&HeaderValue>) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    let set = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, DELETE"),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ];
    for (name, value) in set {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let sent = wanted.cloned().unwrap_or_else(|| HeaderValue::from_static(SENT));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, sent);
    headers.append(header::VARY, HeaderValue::from_static("access-control-request-headers"));
    allow(&mut response, Some(origin.clone()));
    response
}

/// Lets a page of this origin read the answer.
pub(super) fn allow(response: &mut Response, origin: Option<HeaderValue>) {
    let Some(origin) = origin else { return };
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(READ));
    headers.append(header::VARY, HeaderValue::from_static("origin"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(bound: &str, public: Option<&str>, configured: &[&str]) -> Hosts {
        let configured: Vec<String> = configured.iter().map(|host| (*host).to_owned()).collect();
        Hosts::new(bound.parse().unwrap(), public, &configured, "http")
    }

    fn headers(all: &[(header::HeaderName, &'static str)]) -> HeaderMap {
        all.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    fn status(hosts: &Hosts, host: &'static str) -> u16 {
        let headers = headers(&[(header::HOST, host)]);
        let checked = hosts.check(Version::HTTP_11, &Uri::from_static("/"), &headers);
        checked.map_or_else(|refusal| refusal.status(), |()| 200)
    }

    #[test]
    fn on_loopback_only_names_of_loopback_are_meant() {
        let local = hosts("127.0.0.1:80", None, &["Agents.Local"]);
        for host in [
            "localhost",
            "localhost:8080",
            "LOCALHOST.",
            "127.0.0.1:80",
            "[::1]:80",
            "agents.local",
        ] {
            assert_eq!(status(&local, host), 200, "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "127.0.0.2", "10.0.0.1"] {
            assert_eq!(status(&local, host), 421, "{host}");
        }
        for host in ["", "a@localhost", "local host", "localhost/"] {
            assert_eq!(status(&local, host), 400, "{host}");
        }
    }

    #[test]
    fn elsewhere_names_are_checked_once_they_are_known() {
        assert_eq!(status(&hosts("0.0.0.0:80", None, &[]), "any.example"), 200);
        let public = hosts("0.0.0.0:80", Some("https://agents.example/x"), &[]);
        assert_eq!(status(&public, "agents.example"), 200);
        assert_eq!(status(&public, "other.example"), 421);
        assert_eq!(status(&public, "localhost"), 421);
    }

    #[test]
    fn one_host_is_needed_and_it_is_the_targets() {
        let local = hosts("127.0.0.1:80", None, &[]);
        let check = |version, uri: &'static str, all: &[(header::HeaderName, &'static str)]| {
            let checked = local.check(version, &Uri::from_static(uri), &headers(all));
            checked.map_or_else(|refusal| refusal.status(), |()| 200)
        };
        assert_eq!(check(Version::HTTP_11, "/", &[]), 400);
        assert_eq!(check(Version::HTTP_10, "/", &[]), 200);
        assert_eq!(check(Version::HTTP_2, "http://localhost/", &[]), 200);
        let both = [(header::HOST, "localhost"), (header::HOST, "localhost")];
        assert_eq!(check(Version::HTTP_11, "/", &both), 400);
        let other = [(header::HOST, "127.0.0.1")];
        assert_eq!(check(Version::HTTP_2, "http://localhost/", &other), 400);
    }

    #[test]
    fn pages_of_other_origins_need_to_be_listed() {
        let local = hosts("127.0.0.1:80", None, &[]);
        let listed = ["https://app.example".to_owned()];
        let origin = |hosts: &Hosts, origin: &'static str| {
            let headers = headers(&[(header::HOST, "localhost:80"), (header::ORIGIN, origin)]);
            let checked = hosts.origin(&listed, &Uri::from_static("/"), &headers);
            checked.map(|origin| origin.is_some()).map_err(|refusal| refusal.status())
        };
        assert_eq!(origin(&local, "https://app.example"), Ok(true));
        assert_eq!(origin(&local, "http://localhost:80"), Ok(false));
        for other in
            ["null", "http://localhost:81", "https://app.example.evil", "http://app.example"]
        {
            assert_eq!(origin(&local, other), Err(403), "{other}");
        }
        // Where any name is taken, a page of that name may be anybody's.
        assert_eq!(origin(&hosts("0.0.0.0:80", None, &[]), "http://localhost:80"), Err(403));
    }
}
