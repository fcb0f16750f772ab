//! One rule of an allow-list, as it is written down.

use super::Secret;

/// A host, and what a cell may do there. Whatever a rule doesn't restrict is allowed.
///
/// Two ways lead out of the cell. A **tunnel** (`CONNECT`) is what clients ask for before they
/// speak TLS; the proxy sees the host and port, and nothing of what is inside. A **plain request**
/// (`http://`) is seen whole. A rule that speaks of methods, paths or headers, or that wants TLS
/// from the proxy, is therefore for plain requests only.
///
/// ```
/// use neuroflow_sandbox::Rule;
///
/// let read_only = Rule::host("api.example.com").methods(["GET", "HEAD"]).upstream_tls();
/// let packages = Rule::host("*.pypi.org").max_bytes(64 << 20);
/// assert_ne!(read_only, packages);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a rule does nothing until it is in a `Network`"]
pub struct Rule {
    pub(crate) host: String,
    pub(crate) ports: Vec<u16>,
    pub(crate) methods: Vec<String>,
    pub(crate) path_prefixes: Vec<String>,
    pub(crate) private_ranges: Vec<String>,
    pub(crate) injections: Vec<(String, Secret)>,
    pub(crate) trust_roots: Vec<Vec<u8>>,
    pub(crate) upstream_tls: bool,
    pub(crate) plaintext_secret: bool,
    pub(crate) opaque_tunnel: bool,
    pub(crate) max_bytes: Option<u64>,
}

impl Rule {
    /// A rule for one host name, for all names below one (`*.example.com`: any depth, but not
    /// `example.com` itself), or for one IP address, which may then be private.
    pub fn host(host: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            ports: Vec::new(),
            methods: Vec::new(),
            path_prefixes: Vec::new(),
            private_ranges: Vec::new(),
            injections: Vec::new(),
            trust_roots: Vec::new(),
            upstream_tls: false,
            plaintext_secret: false,
            opaque_tunnel: false,
            max_bytes: None,
        }
    }

    /// Adds a port. A rule that names none is for port 443.
    ///
    /// What counts is the port that the proxy connects to: plain HTTP needs `.port(80)`, or
    /// [`Rule::upstream_tls`].
    pub fn port(mut self, port: u16) -> Self {
        self.ports.push(port);
        self
    }

    /// Adds ports; see [`Rule::port`].
    pub fn ports(mut self, ports: impl IntoIterator<Item = u16>) -> Self {
        self.ports.extend(ports);
        self
    }

    /// Adds a method, in the case in which it is sent. A rule that names none is for all but
    /// `TRACE`, which would show the cell what the proxy adds. Requests whose headers name another
    /// method (`X-HTTP-Method-Override` and its like) are refused under such a rule.
    pub fn method(mut self, method: impl Into<String>) -> Self {
        self.methods.push(method.into());
        self
    }

    /// Adds methods; see [`Rule::method`].
    pub fn methods<T: Into<String>>(mut self, methods: impl IntoIterator<Item = T>) -> Self {
        self.methods.extend(methods.into_iter().map(Into::into));
        self
    }

    /// Adds a prefix that the path has to have; it ends at the border of a segment, so `/v1` is for
    /// `/v1` and `/v1/x` but not for `/v10`. Paths that servers may read in two ways (`..`, `%2e`,
    /// `//`, `%2f`, `\`) are refused under such a rule, and requests whose headers name another
    /// (`X-Original-URL`, `X-Rewrite-URL`).
    pub fn path_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.path_prefixes.push(prefix.into());
        self
    }

    /// Lets the name resolve into this range (`10.1.0.0/16`, or one address) although it isn't
    /// public. The services that hand out a cloud machine's credentials stay closed unless the
    /// range is exactly that one address.
    pub fn allow_private(mut self, range: impl Into<String>) -> Self {
        self.private_ranges.push(range.into());
        self
    }

    /// Adds a header to each plain request; the cell never sees its value, and a header of this
    /// name that it sends itself is dropped.
    ///
    /// Response headers that repeat the secret are dropped as well. A server that repeats it in a
    /// body gives it away: inject into requests to servers only that don't.
    pub fn inject(mut self, header: impl Into<String>, secret: impl Into<Secret>) -> Self {
        self.injections.push((header.into(), secret.into()));
        self
    }

    /// Sends the cell's `http://` requests out as HTTPS: the proxy speaks TLS with the host and
    /// checks its certificate. Port 80 of the request stands for 443 then.
    pub fn upstream_tls(mut self) -> Self {
        self.upstream_tls = true;
        self
    }

    /// Trusts this certificate authority (DER) for [`Rule::upstream_tls`] *instead of* those of the
    /// system. May be called for several.
    pub fn trust_root(mut self, der: impl Into<Vec<u8>>) -> Self {
        self.trust_roots.push(der.into());
        self
    }

    /// Lets [`Rule::inject`] send the secret in clear, for a target on a trusted wire.
    pub fn plaintext_secret_ok(mut self) -> Self {
        self.plaintext_secret = true;
        self
    }

    /// Lets a tunnel carry anything. Otherwise it has to begin with a TLS hello that names the
    /// tunnel's host as its server, in clear.
    pub fn opaque_tunnel(mut self) -> Self {
        self.opaque_tunnel = true;
        self
    }

    /// Bytes of one connection, both directions together, beside the bounds of the cell.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = Some(bytes);
        self
    }
}
