//! What the telemetry is told: who the service is, and where its traces go.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::conventions::resource;
use crate::export::{ExportError, check};
use crate::limits::{EXPORT_DELAY, EXPORT_TIMEOUT, SPAN_BATCH, SPAN_QUEUE};
use crate::sampler::Sampler;

/// What a [`Telemetry`](crate::Telemetry) is made of. The default counts and exports nothing.
///
/// ```
/// use neuroflow_telemetry::{TelemetryConfig, TraceConfig};
/// let config = TelemetryConfig::default()
///     .service("billing-agents")
///     .version("1.4.0")
///     .namespace("shop")
///     .traces(TraceConfig::collector("http://localhost:4318"));
/// assert!(config.exports_traces());
/// ```
#[derive(Clone, Debug, Default)]
pub struct TelemetryConfig {
    pub(crate) resource: BTreeMap<String, String>,
    pub(crate) traces: Option<TraceConfig>,
}

impl TelemetryConfig {
    /// The service's name; `neuroflow` unless it's set.
    #[must_use]
    pub fn service(self, name: impl Into<String>) -> Self {
        self.attribute(resource::SERVICE_NAME, name)
    }

    /// The service's version; this crate's unless it's set.
    #[must_use]
    pub fn version(self, version: impl Into<String>) -> Self {
        self.attribute(resource::SERVICE_VERSION, version)
    }

    /// What tells the service from others of its name.
    #[must_use]
    pub fn namespace(self, namespace: impl Into<String>) -> Self {
        self.attribute(resource::SERVICE_NAMESPACE, namespace)
    }

    /// Which instance of the service this is, such as the node's id; random unless it's set.
    #[must_use]
    pub fn instance(self, id: impl Into<String>) -> Self {
        self.attribute(resource::SERVICE_INSTANCE_ID, id)
    }

    /// A further attribute of the resource.
    #[must_use]
    pub fn attribute(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.resource.insert(name.into(), value.into());
        self
    }

    /// Exports traces.
    #[must_use]
    pub fn traces(mut self, traces: TraceConfig) -> Self {
        self.traces = Some(traces);
        self
    }

    /// Whether traces can be exported as it's said, which a [`Telemetry`](crate::Telemetry) checks too.
    ///
    /// ```
    /// use neuroflow_telemetry::{TelemetryConfig, TraceConfig};
    /// let traces = TraceConfig::collector("http://collector:4318/?key=1");
    /// assert!(TelemetryConfig::default().traces(traces).check().is_err());
    /// ```
    ///
    /// # Errors
    /// Says what is wrong with the endpoint or a header.
    pub fn check(&self) -> Result<(), ExportError> {
        self.traces.as_ref().map_or(Ok(()), |traces| check(traces).map(drop))
    }

    /// Whether traces are exported.
    pub fn exports_traces(&self) -> bool {
        self.traces.is_some()
    }
}

/// Where traces go, and how many of them.
///
/// ```
/// use neuroflow_telemetry::{Sampler, TraceConfig};
/// let traces = TraceConfig::collector("http://collector:4318")
///     .header("authorization", "Bearer secret")
///     .sampler(Sampler::ratio(0.1)?);
/// assert_eq!(traces.endpoint(), "http://collector:4318/v1/traces");
/// assert!(!format!("{traces:?}").contains("secret"));
/// # Ok::<(), neuroflow_telemetry::RatioError>(())
/// ```
#[derive(Clone)]
pub struct TraceConfig {
    pub(crate) endpoint: String,
    /// The path was added behind a query or a fragment.
    pub(crate) astray: bool,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) sampler: Sampler,
    pub(crate) queue: usize,
    pub(crate) batch: usize,
    pub(crate) delay: Duration,
    pub(crate) timeout: Duration,
}

impl TraceConfig {
    /// To a collector's OTLP/HTTP port, such as `http://localhost:4318`: the path is added.
    pub fn collector(base: impl AsRef<str>) -> Self {
        let base = base.as_ref();
        let astray = base.contains(['?', '#']);
        Self { astray, ..Self::at(format!("{}/v1/traces", base.trim_end_matches('/'))) }
    }

    /// To this very address.
    pub fn at(endpoint: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            astray: false,
            headers: BTreeMap::new(),
            sampler: Sampler::ALWAYS,
            queue: SPAN_QUEUE,
            batch: SPAN_BATCH,
            delay: EXPORT_DELAY,
            timeout: EXPORT_TIMEOUT,
        }
    }

    /// A header of every export. Those of the environment's `OTEL_EXPORTER_OTLP_HEADERS`, which
    /// the exporter reads for itself, win over it.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// Which new traces are recorded; all unless it's set.
    #[must_use]
    pub fn sampler(mut self, sampler: Sampler) -> Self {
        self.sampler = sampler;
        self
    }

    /// Spans that may wait, at least 1; [`SPAN_QUEUE`] unless it's set.
    #[must_use]
    pub fn queue(mut self, spans: usize) -> Self {
        self.queue = spans.max(1);
        self
    }

    /// Spans of one export, at least 1; [`SPAN_BATCH`] unless it's set.
    #[must_use]
    pub fn batch(mut self, spans: usize) -> Self {
        self.batch = spans.max(1);
        self
    }

    /// How long a span waits for others; [`EXPORT_DELAY`] unless it's set.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Time that one export may take; [`EXPORT_TIMEOUT`] unless it's set.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The address, with its path.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

impl fmt::Debug for TraceConfig {
    /// Without the headers' values and the endpoint's credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TraceConfig")
            .field("endpoint", &without_credentials(&self.endpoint))
            .field("astray", &self.astray)
            .field("headers", &self.headers.keys())
            .field("sampler", &self.sampler)
            .field("queue", &self.queue)
            .field("batch", &self.batch)
            .field("delay", &self.delay)
            .field("timeout", &self.timeout)
            .finish()
    }
}

/// A URL for logs and errors: without `user:password@`, and without a query, where keys travel.
pub(crate) fn without_credentials(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let host = authority.rsplit('@').next().unwrap_or_default();
    if scheme.is_empty() { format!("{host}{path}") } else { format!("{scheme}://{host}{path}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_shown() {
        let shown = |url| without_credentials(url);
        assert_eq!(shown("http://u:p@host:4318/v1/traces?key=k"), "http://host:4318/v1/traces");
        assert_eq!(shown("http://host"), "http://host");
        assert_eq!(shown("u:p@host"), "host");
        let config = TelemetryConfig::default().traces(TraceConfig::at("http://u:p@host/x"));
        assert!(!format!("{config:?}").contains("u:p"));
    }

    #[test]
    fn a_collector_s_address_gets_its_path_once() {
        for base in ["http://host:4318", "http://host:4318/"] {
            assert_eq!(TraceConfig::collector(base).endpoint(), "http://host:4318/v1/traces");
        }
        assert_eq!(TraceConfig::at("http://host/x").endpoint(), "http://host/x");
    }
}
