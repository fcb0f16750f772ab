//! The way of a span to the collector: a bounded queue, a thread of its own, and a count of every
//! span that gets lost. Nothing here is global, and nothing of it waits on an actor's thread.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::uri::{InvalidUri, Scheme, Uri};
use axum::http::{HeaderName, HeaderValue};
use opentelemetry::InstrumentationScope;
use opentelemetry_otlp::{ExporterBuildError, Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanExporter, SpanProcessor,
};
use tracing::{info, warn};

use crate::config::{TraceConfig, without_credentials};
use crate::family::Family;
use crate::instrument::{Counter, MetricError};
use crate::instruments::Instruments;
use crate::metrics::{SPANS_DROPPED, SPANS_EXPORTED};
use crate::span;

/// Takes spans and sends them in batches.
#[derive(Debug)]
pub(crate) struct Exporter {
    processor: BatchSpanProcessor,
    scope: InstrumentationScope,
    flow: Arc<Flow>,
    queue: usize,
}

/// What the taking and the sending side know of each other.
#[derive(Debug)]
struct Flow {
    endpoint: String,
    counts: SpanCounts,
    /// Spans that were taken and not yet sent. Never more than the queue of the processor holds,
    /// so that it never has to drop one itself, which it would do without telling.
    waiting: AtomicUsize,
    closed: AtomicBool,
    /// The shutdown's deadline is past: what still waits is dropped at once.
    abandoned: AtomicBool,
    failing: AtomicBool,
}

/// The counters of exported and lost spans. They exist without an exporter too, as zeros.
#[derive(Clone, Debug)]
pub(crate) struct SpanCounts {
    exported: Counter,
    queue_full: Counter,
    export_failed: Counter,
    shut_down: Counter,
}

impl SpanCounts {
    pub(crate) fn register(instruments: &Instruments) -> Result<Self, MetricError> {
        let dropped: Family<Counter, 1> = instruments.register(&SPANS_DROPPED)?;
        Ok(Self {
            exported: instruments.register(&SPANS_EXPORTED)?.with([]),
            queue_full: dropped.with(["queue_full"]),
            export_failed: dropped.with(["export_failed"]),
            shut_down: dropped.with(["shut_down"]),
        })
    }
}

impl Exporter {
    pub(crate) fn new(
        config: &TraceConfig,
        resource: &Resource,
        scope: InstrumentationScope,
        counts: SpanCounts,
    ) -> Result<Self, ExportError> {
        let endpoint = check(config)?;
        let mut otlp = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(&config.endpoint)
            .with_timeout(config.timeout)
            .with_headers(HashMap::from_iter(config.headers.clone()))
            .build()?;
        otlp.set_resource(resource);
        let flow = Arc::new(Flow {
            endpoint,
            counts,
            waiting: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            failing: AtomicBool::new(false),
        });
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(config.queue)
            .with_max_export_batch_size(config.batch.min(config.queue))
            .with_scheduled_delay(config.delay)
            .build();
        let counting = Counting { otlp, flow: Arc::clone(&flow) };
        let processor = BatchSpanProcessor::new(counting, batches);
        Ok(Self { processor, scope, flow, queue: config.queue })
    }

    /// Takes a span, or drops and counts it. Never waits.
    pub(crate) fn take(&self, span: &neuroflow_kernel::Span) {
        let flow = &self.flow;
        if flow.closed.load(Ordering::Relaxed) {
            flow.counts.shut_down.increment();
            return;
        }
        if flow.waiting.fetch_add(1, Ordering::Relaxed) >= self.queue {
            flow.waiting.fetch_sub(1, Ordering::Relaxed);
            flow.counts.queue_full.increment();
            return;
        }
        self.processor.on_end(span::data(span, &self.scope));
    }

    /// Sends what waits and ends, within `deadline`. Blocks.
    pub(crate) fn shut_down(&self, deadline: Duration) -> Result<(), ShutdownError> {
        if self.flow.closed.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let counts = &self.flow.counts;
        let failed_before = counts.export_failed.get();
        let ended = self.processor.shutdown_with_timeout(deadline);
        self.flow.abandoned.store(true, Ordering::Relaxed);
        match ended {
            Err(OTelSdkError::Timeout(_)) => {
                let spans = self.flow.waiting.load(Ordering::Relaxed);
                return Err(ShutdownError::TimedOut { deadline, spans });
            }
            Err(source) => return Err(ShutdownError::Processor { source }),
            Ok(()) => {}
        }
        // The processor's answer doesn't say whether the collector took the last spans.
        match counts.export_failed.get() - failed_before {
            0 => Ok(()),
            spans => Err(ShutdownError::Lost { spans, endpoint: self.flow.endpoint.clone() }),
        }
    }
}

/// Sends batches and counts what became of them.
struct Counting {
    otlp: opentelemetry_otlp::SpanExporter,
    flow: Arc<Flow>,
}

impl fmt::Debug for Counting {
    /// Without the exporter, which would show its headers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counting").field("flow", &self.flow).finish_non_exhaustive()
    }
}

impl SpanExporter for Counting {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let size = batch.len();
        let spans = u64::try_from(size).unwrap_or(u64::MAX);
        let flow = &self.flow;
        if flow.abandoned.load(Ordering::Relaxed) {
            flow.counts.shut_down.add(spans);
            flow.waiting.fetch_sub(size, Ordering::Relaxed);
            return Err(OTelSdkError::AlreadyShutdown);
        }
        let sent = self.otlp.export(batch).await;
        flow.waiting.fetch_sub(size, Ordering::Relaxed);
        // Only changes are logged: a collector that stays away would fill the log otherwise.
        match &sent {
            Ok(()) => {
                flow.counts.exported.add(spans);
                if flow.failing.swap(false, Ordering::Relaxed) {
                    info!(endpoint = flow.endpoint, "the collector takes spans again");
                }
            }
            Err(error) => {
                flow.counts.export_failed.add(spans);
                if !flow.failing.swap(true, Ordering::Relaxed) {
                    warn!(
                        endpoint = flow.endpoint,
                        error = error as &dyn std::error::Error,
                        "the collector doesn't take spans: they are dropped and counted"
                    );
                }
            }
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.otlp.shutdown_with_timeout(timeout)
    }

    fn shutdown(&self) -> OTelSdkResult {
        self.otlp.shutdown()
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.otlp.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.otlp.set_resource(resource);
    }
}

/// The endpoint as logs may show it, if traces can be sent to it.
pub(crate) fn check(config: &TraceConfig) -> Result<String, ExportError> {
    let endpoint = check_endpoint(&config.endpoint)?;
    if config.astray {
        return Err(ExportError::Astray { endpoint });
    }
    check_headers(config)?;
    Ok(endpoint)
}

/// The endpoint as logs may show it, if it's one that can be reached.
fn check_endpoint(endpoint: &str) -> Result<String, ExportError> {
    let shown = without_credentials(endpoint);
    let uri: Uri = match endpoint.parse() {
        Ok(uri) => uri,
        Err(source) => return Err(ExportError::Endpoint { endpoint: shown, source }),
    };
    match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTP => Ok(shown),
        Some(scheme) if *scheme == Scheme::HTTPS => {
            Err(ExportError::TlsMissing { endpoint: shown })
        }
        _ => Err(ExportError::Scheme { endpoint: shown }),
    }
}

fn check_headers(config: &TraceConfig) -> Result<(), ExportError> {
    // The exporter would leave out what isn't valid, and not say so.
    for (name, value) in &config.headers {
        let valid =
            HeaderName::from_bytes(name.as_bytes()).is_ok() && HeaderValue::from_str(value).is_ok();
        if !valid {
            return Err(ExportError::Header { name: name.clone() });
        }
    }
    Ok(())
}

/// Why traces can't be exported.
///
/// ```
/// use neuroflow_telemetry::{ExportError, Telemetry, TelemetryConfig, TelemetryError, TraceConfig};
/// let config = TelemetryConfig::default().traces(TraceConfig::at("https://collector/v1/traces"));
/// let error = Telemetry::new(config).unwrap_err();
/// assert!(matches!(error, TelemetryError::Export(ExportError::TlsMissing { .. })));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The endpoint isn't a URL.
    #[error("the trace endpoint {endpoint:?} isn't a URL")]
    Endpoint {
        /// The endpoint, without credentials.
        endpoint: String,
        /// Why.
        #[source]
        source: InvalidUri,
    },
    /// The endpoint isn't an `http` URL.
    #[error("the trace endpoint {endpoint:?} has to begin with http://")]
    Scheme {
        /// The endpoint, without credentials.
        endpoint: String,
    },
    /// The endpoint wants TLS, which this build doesn't have.
    #[error("this build can't reach {endpoint}: send traces to a local collector over http://")]
    TlsMissing {
        /// The endpoint, without credentials.
        endpoint: String,
    },
    /// The path for traces would stand behind a query or a fragment.
    #[error(
        "the collector's address {endpoint} has a query or a fragment, behind which no path can stand; \
         name the whole address with OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, or leave it out"
    )]
    Astray {
        /// The endpoint, without credentials and query.
        endpoint: String,
    },
    /// A header's name or value isn't valid. The value isn't quoted: it may be a secret.
    #[error("the header {name:?} of the trace export isn't valid")]
    Header {
        /// Its name.
        name: String,
    },
    /// The exporter couldn't be made.
    #[error("the trace exporter can't be made")]
    Exporter(#[from] ExporterBuildError),
}

/// Why some spans weren't sent before the end.
///
/// ```
/// use std::time::Duration;
/// use neuroflow_telemetry::ShutdownError;
/// let error = ShutdownError::TimedOut { deadline: Duration::from_secs(3), spans: 7 };
/// assert_eq!(error.to_string(), "7 spans weren't sent within 3s");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShutdownError {
    /// The collector didn't answer in time.
    #[error("{spans} spans weren't sent within {deadline:?}")]
    TimedOut {
        /// The deadline.
        deadline: Duration,
        /// Spans that waited.
        spans: usize,
    },
    /// The collector refused the last spans, or can't be reached.
    #[error("{endpoint} didn't take the last {spans} spans")]
    Lost {
        /// Spans that were lost.
        spans: u64,
        /// The endpoint, without credentials.
        endpoint: String,
    },
    /// The exporter's thread has ended before.
    #[error("the exporter has already ended")]
    Processor {
        /// What it said.
        #[source]
        source: OTelSdkError,
    },
    /// The runtime has stopped the shutdown.
    #[error("the shutdown was stopped")]
    Stopped(#[from] tokio::task::JoinError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_that_cannot_work_is_an_error_that_keeps_its_secrets() {
        assert!(check_endpoint("http://localhost:4318/v1/traces").is_ok());
        let tls = check_endpoint("https://u:secret@host/v1/traces").unwrap_err();
        assert!(matches!(tls, ExportError::TlsMissing { .. }));
        assert!(!tls.to_string().contains("secret"));
        assert!(matches!(check_endpoint("host:4318"), Err(ExportError::Scheme { .. })));
        assert!(matches!(check_endpoint("grpc://host"), Err(ExportError::Scheme { .. })));
        assert!(matches!(check_endpoint("http://a b"), Err(ExportError::Endpoint { .. })));
    }

    #[test]
    fn a_header_that_would_be_left_out_is_an_error() {
        let config = TraceConfig::collector("http://host").header("x-key", "line\nbreak");
        let error = check_headers(&config).unwrap_err();
        assert_eq!(error.to_string(), "the header \"x-key\" of the trace export isn't valid");
        let config = TraceConfig::collector("http://host").header("not a name", "x");
        assert!(matches!(check_headers(&config), Err(ExportError::Header { .. })));
    }
}
