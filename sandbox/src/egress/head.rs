//! What a request's head has to look like, and what of it is passed on.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use std::borrow::Cow;

use hyper::{
    HeaderMap, Method, Uri, Version,
    header::{self, HeaderName, HeaderValue},
    http::uri::Scheme,
};

use super::{host::Host, path, policy::Injection, reason::EgressReason};
use crate::network::Secret;

/// A request's target in its one spelling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Tunnel { host: Host, port: u16 },
    Plain { host: Host, port: Option<u16> },
}

/// Looks at the raw head for what the parser repairs silently: it takes bare line feeds, drops a
/// repeated `Content-Length`, prefers `Transfer-Encoding`, and of several encodings undoes the last.
/// All of it is only ever seen where somebody wants two readers to disagree; and of a body that is
/// encoded twice the next reader would be told one encoding (RFC 9112, 6.1).
pub(crate) fn scan(head: &[u8]) -> Result<(), EgressReason> {
    let mut lengths = 0_u8;
    let mut encodings = 0_u8;
    let mut rest = head;
    let mut is_first = true;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let (line, after) = rest.split_at_checked(end).unwrap_or((rest, &[]));
        rest = after.get(1..).unwrap_or_default();
        let Some(line) = line.strip_suffix(b"\r") else { return Err(EgressReason::LineEnding) };
        if line.contains(&b'\r') {
            return Err(EgressReason::LineEnding);
        }
        if line.is_empty() {
            // Empty lines before the request are lawful.
            if is_first {
                continue;
            }
            break;
        }
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if !is_first {
            lengths = lengths.saturating_add(name.eq_ignore_ascii_case(b"content-length").into());
            let is_encoding = name.eq_ignore_ascii_case(b"transfer-encoding");
            if is_encoding && !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                return Err(EgressReason::Framing);
            }
            encodings = encodings.saturating_add(is_encoding.into());
        }
        is_first = false;
    }
    if lengths.saturating_add(encodings) > 1 { Err(EgressReason::Framing) } else { Ok(()) }
}

/// Reads the target, and checks that the `Host` header says the same.
///
/// `CONNECT` is taken in HTTP/1.0 as well, where it needs no `Host`: Python's standard library sent
/// it so until 3.12, and a tunnel has no framing that the version could change.
pub(crate) fn target(
    method: &Method,
    uri: &Uri,
    version: Version,
    headers: &HeaderMap,
) -> Result<Target, EgressReason> {
    let Some(whole) = uri.authority() else { return Err(EgressReason::NotProxyRequest) };
    let is_tunnel = *method == Method::CONNECT;
    match uri.scheme() {
        None if !is_tunnel => return Err(EgressReason::NotProxyRequest),
        Some(_) if is_tunnel => return Err(EgressReason::NotProxyRequest),
        Some(scheme) if *scheme != Scheme::HTTP => return Err(EgressReason::Scheme),
        _ => {}
    }
    if !is_tunnel && version != Version::HTTP_11 {
        return Err(EgressReason::HttpVersion);
    }
    let (host, port) = authority(whole.as_str())?;

    let mut named = headers.get_all(header::HOST).iter();
    match (named.next(), named.next()) {
        (Some(value), None) => {
            let value = value.to_str().map_err(|_not_text| EgressReason::HostMismatch)?;
            let (named, named_port) =
                authority(value).map_err(|_malformed| EgressReason::HostMismatch)?;
            let ports_agree = match named_port {
                // Clients leave it out where it is the scheme's, and many in any case for a tunnel.
                None => is_tunnel || port.unwrap_or(80) == 80,
                Some(named) => named == port.unwrap_or(80),
            };
            if named != host || !ports_agree {
                return Err(EgressReason::HostMismatch);
            }
        }
        (None, _) if version == Version::HTTP_10 => {}
        _ => return Err(EgressReason::HostMismatch),
    }
    match (is_tunnel, port) {
        (true, Some(port)) => Ok(Target::Tunnel { host, port }),
        (true, None) => Err(EgressReason::HostSyntax),
        (false, port) => Ok(Target::Plain { host, port }),
    }
}

/// Splits `host:port`; the port may be absent, but not empty.
pub(crate) fn authority(text: &str) -> Result<(Host, Option<u16>), EgressReason> {
    if text.contains('@') {
        return Err(EgressReason::Userinfo);
    }
    let end = match text.find(']') {
        Some(bracket) => bracket.saturating_add(1),
        None => text.find(':').unwrap_or(text.len()),
    };
    let (host, rest) = text.split_at_checked(end).ok_or(EgressReason::HostSyntax)?;
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => None,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => match digits.parse() {
            Ok(port) if port > 0 => Some(port),
            _ => return Err(EgressReason::HostSyntax),
        },
        _ => return Err(EgressReason::HostSyntax),
    };
    let host = Host::parse(host).map_err(|_problem| EgressReason::HostSyntax)?;
    Ok((host, port))
}

/// Whether headers name a method or a path of their own, which many servers act on instead of the request's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Overrides {
    pub(crate) method: bool,
    pub(crate) path: bool,
}

impl Overrides {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        for name in headers.keys() {
            match unified(name).as_str() {
                "x-http-method-override" | "x-http-method" | "x-method-override" => {
                    found.method = true;
                }
                "x-original-url" | "x-rewrite-url" => found.path = true,
                _ => {}
            }
        }
        found
    }
}

/// As gateways read it that make variables of headers: `x_key` is `x-key` to them.
fn unified(name: &HeaderName) -> String {
    name.as_str().replace('_', "-")
}

/// Whether a response's body is in no encoding but the one that is undone and written anew. No other was
/// asked for (RFC 9112, 7.4), and the cell would be told nothing of it.
pub(crate) fn is_only_chunked(headers: &HeaderMap) -> bool {
    let mut encodings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let is_plain =
        |value: &HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
    encodings.next().is_none_or(is_plain) && encodings.next().is_none()
}

/// Whether the header is the proxy's own business: it frames messages, or is for one hop only.
pub(crate) fn is_ours(name: &HeaderName) -> bool {
    HOP.contains(name) || *name == header::HOST || name.as_str().starts_with("proxy-")
}

/// Hop-by-hop headers (RFC 9110, 7.6.1), and those with which framing is written anew.
const HOP: [HeaderName; 9] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("keep-alive"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// What the proxy itself says in a response, so that no server can say it.
pub(crate) const VERDICT: HeaderName = HeaderName::from_static("x-neuroflow-egress");

/// The headers of the request that goes out.
pub(crate) fn outgoing(headers: &mut HeaderMap, host: HeaderValue, injections: &[Injection]) {
    strip_hop(headers);
    for injection in injections {
        let alike: Vec<HeaderName> = headers
            .keys()
            .filter(|name| unified(name) == injection.name.as_str())
            .cloned()
            .collect();
        for name in alike {
            headers.remove(name);
        }
        headers.insert(injection.name.clone(), injection.value.clone());
    }
    headers.insert(header::HOST, host);
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
}

/// The headers of the response that the cell sees.
pub(crate) fn incoming(headers: &mut HeaderMap, injections: &[Injection], keep_length: bool) {
    // Of a response to HEAD the length is information, not framing.
    let length = if keep_length { headers.get(header::CONTENT_LENGTH).cloned() } else { None };
    strip_hop(headers);
    headers.remove(VERDICT);
    let told: Vec<HeaderName> = headers
        .iter()
        .filter(|(name, value)| {
            injections.iter().any(|injection| {
                injection.name == **name || is_told(&injection.secret, value.as_bytes())
            })
        })
        .map(|(name, _value)| name.clone())
        .collect();
    for name in told {
        headers.remove(name);
    }
    if let Some(length) = length {
        headers.insert(header::CONTENT_LENGTH, length);
    }
}

/// Whether a value says a secret, as it is or encoded as in a URL.
fn is_told(secret: &Secret, value: &[u8]) -> bool {
    let mut value = Cow::Borrowed(value);
    for _ in 0..=path::ROUNDS {
        if secret.is_in(&value) {
            return true;
        }
        let decoded = path::decode(&value);
        if decoded == *value {
            return false;
        }
        value = Cow::Owned(decoded);
    }
    // Nobody encodes so deep who doesn't hide something.
    true
}

fn strip_hop(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect();
    for name in listed {
        headers.remove(name);
    }
    let ours: Vec<HeaderName> = headers.keys().filter(|name| is_ours(name)).cloned().collect();
    for name in ours {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(rows: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in rows {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        map
    }

    fn read(method: &Method, uri: &str, host: &[&str]) -> Result<Target, EgressReason> {
        let rows: Vec<(&str, &str)> = host.iter().map(|host| ("host", *host)).collect();
        target(method, &uri.parse().unwrap(), Version::HTTP_11, &headers(&rows))
    }

    #[test]
    fn host_and_target_have_to_agree() {
        let name = Host::Name("a.example".to_owned());
        let plain = |port| Ok(Target::Plain { host: name.clone(), port });
        let tunnel = |port| Ok(Target::Tunnel { host: name.clone(), port });
        let (get, connect) = (Method::GET, Method::CONNECT);
        for (method, uri, host, expected) in [
            (&get, "http://a.example/x", &["a.example"][..], plain(None)),
            (&get, "http://A.example./x", &["a.EXAMPLE:80"], plain(None)),
            (&get, "http://a.example:80/x", &["a.example"], plain(Some(80))),
            (&get, "http://a.example:81/x", &["a.example:81"], plain(Some(81))),
            (&get, "http://a.example:81/x", &["a.example"], Err(EgressReason::HostMismatch)),
            (&get, "http://a.example/x", &["a.example:81"], Err(EgressReason::HostMismatch)),
            (&get, "http://a.example/x", &["b.example"], Err(EgressReason::HostMismatch)),
            (&get, "http://a.example/x", &[], Err(EgressReason::HostMismatch)),
            (&get, "http://a.example/x", &[""], Err(EgressReason::HostMismatch)),
            (
                &get,
                "http://a.example/x",
                &["a.example", "a.example"],
                Err(EgressReason::HostMismatch),
            ),
            (&get, "https://a.example/x", &["a.example"], Err(EgressReason::Scheme)),
            (&get, "ftp://a.example/x", &["a.example"], Err(EgressReason::Scheme)),
            (&get, "/x", &["a.example"], Err(EgressReason::NotProxyRequest)),
            (&get, "a.example:80", &["a.example"], Err(EgressReason::NotProxyRequest)),
            (&get, "http://u:p@a.example/", &["a.example"], Err(EgressReason::Userinfo)),
            (&get, "http://2130706433/", &["2130706433"], Err(EgressReason::HostSyntax)),
            (&get, "http://a.example:0/", &["a.example:0"], Err(EgressReason::HostSyntax)),
            (&connect, "a.example:443", &["a.example:443"], tunnel(443)),
            (&connect, "a.example:443", &["a.example"], tunnel(443)),
            (&connect, "a.example:443", &["b.example:443"], Err(EgressReason::HostMismatch)),
            (&connect, "a.example:443", &["a.example:444"], Err(EgressReason::HostMismatch)),
            (&connect, "a.example", &["a.example"], Err(EgressReason::HostSyntax)),
            (&connect, "http://a.example/", &["a.example"], Err(EgressReason::NotProxyRequest)),
            (&connect, "/x", &["a.example"], Err(EgressReason::NotProxyRequest)),
        ] {
            assert_eq!(read(method, uri, host), expected, "{method} {uri} {host:?}");
        }
    }

    #[test]
    fn only_a_tunnel_may_be_asked_for_in_the_old_version() {
        let old = |method: &Method, uri: &str| {
            target(method, &uri.parse().unwrap(), Version::HTTP_10, &HeaderMap::new())
        };
        assert!(old(&Method::CONNECT, "a.example:443").is_ok());
        assert_eq!(old(&Method::GET, "http://a.example/"), Err(EgressReason::HttpVersion));
    }

    #[test]
    fn authorities_are_split_in_one_way() {
        for text in [
            "a.example:",
            "a.example:x",
            "a.example:+1",
            "a.example:65536",
            "a.example:1:2",
            "[::1]x",
            "[::1]:",
            "::1",
            "a.example :80",
            ":80",
            "",
            "a]b:80",
            "[::1",
            "a.example:080000000080",
        ] {
            assert_eq!(authority(text), Err(EgressReason::HostSyntax), "{text:?}");
        }
        let loopback = Host::Address("::1".parse().unwrap());
        assert_eq!(authority("[::1]:8080"), Ok((loopback, Some(8080))));
    }

    #[test]
    fn what_the_parser_repairs_is_refused() {
        let scan = |lines: &str| scan(format!("GET http://a/ HTTP/1.1\r\n{lines}").as_bytes());
        for lines in [
            "\r\n",
            "Content-Length: 3\r\n\r\nContent-Length: 4\r\n",
            "Te: x\r\n\r\n\nabc",
            "transfer-encoding:\t Chunked \r\n\r\n",
            "X: content-length:\r\n\r\n",
        ] {
            assert_eq!(scan(lines), Ok(()), "{lines:?}");
        }
        for lines in [
            "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            "Transfer-Encoding: chunked\r\ncontent-length: 3\r\n\r\n",
            "Content-Length: 3\r\nContent-Length: 3\r\n\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "Transfer-Encoding: gzip, chunked\r\n\r\n",
            "Transfer-Encoding: chunked;q=1\r\n\r\n",
            "Transfer-Encoding: , chunked\r\n\r\n",
            "Transfer-Encoding:\r\n\r\n",
        ] {
            assert_eq!(scan(lines), Err(EgressReason::Framing), "{lines:?}");
        }
        for lines in ["X: y\n\r\n", "X: y\r\n\n", "X: y\rZ: z\r\n\r\n"] {
            assert_eq!(scan(lines), Err(EgressReason::LineEnding), "{lines:?}");
        }
        assert_eq!(super::scan(b"\r\nGET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n"), Ok(()));
    }

    #[test]
    fn headers_that_override_are_found_in_every_spelling() {
        let found = |name| Overrides::of(&headers(&[("accept", "*/*"), (name, "x")]));
        for name in [
            "X-HTTP-Method-Override",
            "x_http_method_override",
            "X-HTTP-Method",
            "X-Method_Override",
        ] {
            assert_eq!(found(name), Overrides { method: true, path: false }, "{name}");
        }
        for name in ["X-Original-URL", "x_original_url", "X-Rewrite-Url"] {
            assert_eq!(found(name), Overrides { method: false, path: true }, "{name}");
        }
        for name in ["x-method", "x-http-methods", "x-forwarded-for", "x-url"] {
            assert_eq!(found(name), Overrides::default(), "{name}");
        }
    }

    #[test]
    fn a_response_has_one_encoding_at_most() {
        for rows in
            [&[][..], &[("transfer-encoding", "chunked")], &[("transfer-encoding", " Chunked")]]
        {
            assert!(is_only_chunked(&headers(rows)), "{rows:?}");
        }
        for rows in [
            &[("transfer-encoding", "gzip, chunked")][..],
            &[("transfer-encoding", "gzip")],
            &[("transfer-encoding", "gzip"), ("transfer-encoding", "chunked")],
            &[("transfer-encoding", "chunked"), ("transfer-encoding", "gzip")],
            &[("transfer-encoding", "")],
        ] {
            assert!(!is_only_chunked(&headers(rows)), "{rows:?}");
        }
    }

    #[test]
    fn hop_headers_stay_and_the_secret_goes_out_only() {
        let injections = [Injection {
            name: HeaderName::from_static("x-api-key"),
            value: HeaderValue::from_static("Bearer s3cr3t-token"),
            secret: "Bearer s3cr3t-token".into(),
        }];
        let mut request = headers(&[
            ("connection", "x-hop, close"),
            ("x-hop", "1"),
            ("proxy-authorization", "Basic x"),
            ("proxy-connection", "keep-alive"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("x-api-key", "mine"),
            ("X-Api-Key", "mine too"),
            ("x_api_key", "mine as well"),
            ("host", "other.example"),
            ("accept", "*/*"),
        ]);
        outgoing(&mut request, HeaderValue::from_static("a.example"), &injections);
        let expected = headers(&[
            ("accept", "*/*"),
            ("x-api-key", "Bearer s3cr3t-token"),
            ("host", "a.example"),
            ("connection", "close"),
        ]);
        assert_eq!(request, expected);

        let mut response = headers(&[
            ("x-api-key", "x"),
            ("x-echo", "you sent s3cr3t-token"),
            ("x-echo-encoded", "s3cr3t%2Dtoken"),
            ("x-echo-encoded-twice", "s3cr3t%252Dtoken"),
            ("x-neuroflow-egress", "allowed"),
            ("content-type", "text/plain"),
            ("keep-alive", "timeout=5"),
            ("content-length", "5"),
        ]);
        incoming(&mut response, &injections, true);
        let expected = headers(&[("content-type", "text/plain"), ("content-length", "5")]);
        assert_eq!(response, expected);
    }
}
