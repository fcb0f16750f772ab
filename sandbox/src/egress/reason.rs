//! Why a request was let through, refused, or ended early.

use std::fmt;

/// The one reason of a decision; stable codes for logs and metrics.
///
/// ```
/// use neuroflow_sandbox::{EgressReason, EgressVerdict};
///
/// assert_eq!(EgressReason::Host.code(), "host");
/// assert_eq!(EgressReason::Host.verdict(), EgressVerdict::Denied);
/// assert_eq!(EgressReason::Idle.verdict(), EgressVerdict::Cut);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum EgressReason {
    /// A rule allows it, and it came to its end.
    Allowed,

    /// The bytes are no request, or the head is too large.
    Malformed,
    /// A plain request in another version than HTTP/1.1.
    HttpVersion,
    /// The target isn't `http://host/path`, nor `host:port` after `CONNECT`.
    NotProxyRequest,
    /// The target's scheme isn't `http`; HTTPS goes through `CONNECT`.
    Scheme,
    /// Both `Content-Length` and `Transfer-Encoding`, one of them twice, or another encoding than
    /// `chunked`.
    Framing,
    /// A bare carriage return or line feed in the head.
    LineEnding,
    /// No `Host` header, several, or one that contradicts the target.
    HostMismatch,
    /// The host has a second reading, or the port is none.
    HostSyntax,
    /// User and password in the target.
    Userinfo,
    /// No rule names the host.
    Host,
    /// The target is an address that no rule names.
    AddressLiteral,
    /// No rule for the host names the port.
    Port,
    /// No rule for the host and port names the method.
    Method,
    /// No rule for the host, port and method names the path.
    Path,
    /// The path has a second reading, and the rule speaks of paths.
    PathAmbiguous,
    /// A header names another method than the request, and the rule speaks of methods.
    MethodOverride,
    /// A header names another path than the request, and the rule speaks of paths.
    PathOverride,
    /// The rule speaks of methods, paths or headers, which can't be seen in a tunnel: use `http://`.
    TunnelHidesRequest,
    /// The name resolves to loopback addresses.
    AddressLoopback,
    /// The name resolves to private addresses.
    AddressPrivate,
    /// The name resolves to link-local addresses.
    AddressLinkLocal,
    /// The name resolves to a service that hands out the machine's credentials.
    AddressMetadata,
    /// The name resolves to multicast addresses.
    AddressMulticast,
    /// The name resolves to addresses that aren't given out to hosts.
    AddressReserved,
    /// The tunnel's TLS hello names another server, or none.
    ServerName,
    /// The tunnel's TLS hello has a second, encrypted hello in it.
    EncryptedHello,
    /// The tunnel doesn't begin with TLS.
    NotTls,
    /// The cell has used up its connections.
    Connections,
    /// The head, or the tunnel's first record, took too long.
    HeadTime,

    /// The name has no address.
    Unresolved,
    /// The name didn't resolve in time.
    ResolveTime,
    /// No address took the connection.
    Unreachable,
    /// No address took the connection in time.
    ConnectTime,
    /// The TLS handshake failed, such as for an invalid certificate.
    UpstreamTls,
    /// The server's response isn't one, or it closed without.
    UpstreamResponse,

    /// The connection sent as many bytes as it may.
    BytesUp,
    /// The connection received as many bytes as it may.
    BytesDown,
    /// The cell sent as many bytes as it may.
    CellBytesUp,
    /// The cell received as many bytes as it may.
    CellBytesDown,
    /// The connection passed as many bytes as its rule allows.
    RuleBytes,
    /// No byte passed for too long.
    Idle,
    /// The connection lasted too long.
    TotalTime,
    /// The cell or the proxy ended first.
    Stopped,
}

/// What a reason means for the request.
///
/// ```
/// use neuroflow_sandbox::EgressVerdict;
///
/// assert_eq!(EgressVerdict::Denied.to_string(), "denied");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EgressVerdict {
    /// It passed, to its end.
    Allowed,
    /// The policy refused it; nothing of it left the machine.
    Denied,
    /// It was allowed and couldn't be carried out.
    Failed,
    /// It was allowed and ended early, at a bound.
    Cut,
}

impl EgressReason {
    /// A stable word for logs and metrics.
    pub fn code(self) -> &'static str {
        self.row().1
    }

    /// What it means for the request.
    pub fn verdict(self) -> EgressVerdict {
        self.row().0
    }

    /// One sentence for whoever wrote the program in the cell.
    pub(crate) fn message(self) -> &'static str {
        self.row().2
    }

    fn row(self) -> (EgressVerdict, &'static str, &'static str) {
        use EgressVerdict::{Allowed, Cut, Denied, Failed};
        match self {
            Self::Allowed => (Allowed, "allowed", "a rule allows it"),
            Self::Malformed => (Denied, "malformed", "not an HTTP/1.1 request"),
            Self::HttpVersion => (Denied, "http_version", "plain requests need HTTP/1.1"),
            Self::NotProxyRequest => {
                (Denied, "not_a_proxy_request", "send http://host/path, or CONNECT host:port")
            }
            Self::Scheme => (Denied, "scheme", "https goes through CONNECT"),
            Self::Framing => {
                (Denied, "framing", "the length of the body can be read in more than one way")
            }
            Self::LineEnding => (Denied, "line_ending", "lines of the head end in CR LF"),
            Self::HostMismatch => (Denied, "host_mismatch", "Host header and target differ"),
            Self::HostSyntax => (Denied, "host_syntax", "not a plain host name, or no port"),
            Self::Userinfo => (Denied, "userinfo", "no user or password in the target"),
            Self::Host => (Denied, "host", "no rule names this host"),
            Self::AddressLiteral => (Denied, "address_literal", "no rule names this address"),
            Self::Port => (Denied, "port", "no rule for this host names the port"),
            Self::Method => (Denied, "method", "no rule for this host allows the method"),
            Self::Path => (Denied, "path", "no rule for this host allows the path"),
            Self::PathAmbiguous => {
                (Denied, "path_ambiguous", "servers may read this path in two ways")
            }
            Self::MethodOverride => (
                Denied,
                "method_override",
                "a header names another method, as some servers read it",
            ),
            Self::PathOverride => {
                (Denied, "path_override", "a header names another path, as some servers read it")
            }
            Self::TunnelHidesRequest => (
                Denied,
                "tunnel_hides_request",
                "the rule needs to see method, path and headers: use http:// instead of a tunnel",
            ),
            Self::AddressLoopback => (Denied, "address_loopback", "the name is a loopback address"),
            Self::AddressPrivate => (Denied, "address_private", "the name is a private address"),
            Self::AddressLinkLocal => {
                (Denied, "address_link_local", "the name is a link-local address")
            }
            Self::AddressMetadata => (Denied, "address_metadata", "the name is a metadata service"),
            Self::AddressMulticast => {
                (Denied, "address_multicast", "the name is a multicast address")
            }
            Self::AddressReserved => (Denied, "address_reserved", "the name is a reserved address"),
            Self::ServerName => {
                (Denied, "server_name", "the TLS hello doesn't name the tunnel's host")
            }
            Self::EncryptedHello => (Denied, "encrypted_hello", "the TLS hello hides another one"),
            Self::NotTls => (Denied, "not_tls", "the tunnel doesn't begin with TLS"),
            Self::Connections => (Denied, "connections", "the cell has used up its connections"),
            Self::Unresolved => (Failed, "unresolved", "the name has no address"),
            Self::ResolveTime => (Failed, "resolve_timeout", "the name didn't resolve in time"),
            Self::Unreachable => (Failed, "unreachable", "the host takes no connection"),
            Self::ConnectTime => (Failed, "connect_timeout", "the host didn't answer in time"),
            Self::UpstreamTls => (Failed, "upstream_tls", "TLS with the host failed"),
            Self::UpstreamResponse => (Failed, "upstream_response", "the host sent no response"),
            Self::BytesUp => (Cut, "bytes_up", "the connection sent all it may"),
            Self::BytesDown => (Cut, "bytes_down", "the connection received all it may"),
            Self::CellBytesUp => (Cut, "cell_bytes_up", "the cell sent all it may"),
            Self::CellBytesDown => (Cut, "cell_bytes_down", "the cell received all it may"),
            Self::RuleBytes => {
                (Cut, "rule_bytes", "the connection passed all that its rule allows")
            }
            Self::HeadTime => (Denied, "head_timeout", "the request came too slowly"),
            Self::Idle => (Cut, "idle", "nothing passed for too long"),
            Self::TotalTime => (Cut, "total_timeout", "the connection lasted too long"),
            Self::Stopped => (Cut, "stopped", "the cell ended"),
        }
    }
}

impl fmt::Display for EgressReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl fmt::Display for EgressVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Failed => "failed",
            Self::Cut => "cut",
        })
    }
}
