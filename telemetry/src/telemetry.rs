//! The telemetry of one kernel: what it hands to the kernel, and what it gives to the outside.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use neuroflow_kernel::{Census, Observer};
use opentelemetry::{InstrumentationScope, Key, KeyValue, Value};
use opentelemetry_sdk::Resource;

use crate::census::Watched;
use crate::config::TelemetryConfig;
use crate::conventions::{SCHEMA_URL, SCOPE, resource};
use crate::export::{ExportError, Exporter, ShutdownError, SpanCounts};
use crate::instrument::MetricError;
use crate::instruments::{Instruments, RenderError};
use crate::limits::MAX_RESOURCE_ATTRIBUTES;
use crate::metrics::BUILD_INFO;
use crate::observer::Recorder;
use crate::process;
use crate::sampler::Sampler;

/// Metrics and traces of one kernel, cheap to clone. It installs nothing global: a host program
/// can have its own telemetry beside it.
///
/// ```
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
/// # runtime.block_on(async {
/// use neuroflow_kernel::Kernel;
/// use neuroflow_telemetry::{Telemetry, TelemetryConfig};
/// let telemetry = Telemetry::new(TelemetryConfig::default())?;
/// let kernel = Kernel::builder().observer(telemetry.observer()).start().await?;
/// telemetry.watch(kernel.census());
/// assert!(telemetry.render()?.contains("neuroflow_actors{actor_kind=\"supervisor\"} 1"));
/// kernel.stop().await;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Telemetry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    instruments: Instruments,
    watched: Watched,
    recorder: Arc<Recorder>,
    exporter: Option<Arc<Exporter>>,
    sampler: Sampler,
}

impl Telemetry {
    /// Makes the metrics, and the exporter if traces are to be exported: a thread of its own.
    ///
    /// # Errors
    /// Says what is wrong with the configuration.
    pub fn new(config: TelemetryConfig) -> Result<Self, TelemetryError> {
        let instruments = Instruments::new()?;
        let watched = Watched::default();
        watched.register(&instruments)?;
        process::register(&instruments)?;
        let attributes = resource(config.resource)?;
        let version = attributes.get_ref(&Key::new(resource::SERVICE_VERSION));
        let version = version.map_or(Cow::Borrowed(VERSION), Value::as_str);
        instruments.register(&BUILD_INFO)?.with([&version]).set(1.0);
        let counts = SpanCounts::register(&instruments)?;
        let mut sampler = Sampler::NEVER;
        let mut exporter = None;
        if let Some(traces) = &config.traces {
            sampler = traces.sampler;
            exporter = Some(Arc::new(Exporter::new(traces, &attributes, scope(), counts)?));
        }
        let recorder = Arc::new(Recorder::new(&instruments, exporter.clone())?);
        Ok(Self(Arc::new(Inner { instruments, watched, recorder, exporter, sampler })))
    }

    /// The observer, for [`KernelBuilder::observer`](neuroflow_kernel::KernelBuilder::observer).
    pub fn observer(&self) -> Arc<dyn Observer> {
        Arc::clone(&self.0.recorder) as Arc<dyn Observer>
    }

    /// Counts this kernel's living actors and waiting messages at every scrape from now on.
    pub fn watch(&self, census: Census) {
        self.0.watched.watch(census);
    }

    /// The registry, for further metrics.
    pub fn instruments(&self) -> &Instruments {
        &self.0.instruments
    }

    /// Which new traces to record: none unless traces are exported. A remote parent's decision
    /// goes before it.
    pub fn sampler(&self) -> Sampler {
        self.0.sampler
    }

    /// All metrics in the Prometheus text format. It walks over all actors and reads files below
    /// `/proc`: call it where it may take some milliseconds.
    ///
    /// # Errors
    /// A metric can't be encoded.
    pub fn render(&self) -> Result<String, RenderError> {
        self.0.instruments.render()
    }

    /// Sends the spans that wait, and ends the export; spans that come later are counted as lost.
    /// Call it last, when the kernel has stopped. It takes `deadline` at most, also when the
    /// collector is gone, and does nothing if no traces are exported or it was called before.
    ///
    /// On a tokio runtime the waiting is done on a thread for blocking work, elsewhere right here.
    ///
    /// ```
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// # runtime.block_on(async {
    /// use std::time::Duration;
    /// use neuroflow_telemetry::{Telemetry, TelemetryConfig};
    /// let telemetry = Telemetry::new(TelemetryConfig::default())?;
    /// telemetry.shutdown(Duration::from_secs(3)).await?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// Says how many spans were lost.
    pub async fn shutdown(&self, deadline: Duration) -> Result<(), ShutdownError> {
        let Some(exporter) = self.0.exporter.clone() else { return Ok(()) };
        match tokio::runtime::Handle::try_current() {
            // On a runtime with one thread, waiting right here would keep that thread from the
            // work that the exporter may need it for.
            Ok(runtime) => runtime.spawn_blocking(move || exporter.shut_down(deadline)).await?,
            Err(_no_runtime) => exporter.shut_down(deadline),
        }
    }
}

/// Why there is no telemetry.
///
/// ```
/// use neuroflow_telemetry::{Telemetry, TelemetryConfig, TelemetryError, TraceConfig};
/// let config = TelemetryConfig::default().traces(TraceConfig::collector("grpc://host:4317"));
/// assert!(matches!(Telemetry::new(config), Err(TelemetryError::Export(_))));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// A metric of this crate wasn't registered.
    #[error("the metrics can't be made")]
    Metrics(#[from] MetricError),
    /// Traces can't be exported as configured.
    #[error("traces can't be exported")]
    Export(#[from] ExportError),
    /// There are more resource attributes than allowed.
    #[error("{count} resource attributes; {MAX_RESOURCE_ATTRIBUTES} are allowed")]
    Attributes {
        /// How many.
        count: usize,
    },
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn scope() -> InstrumentationScope {
    InstrumentationScope::builder(SCOPE).with_version(VERSION).with_schema_url(SCHEMA_URL).build()
}

fn resource(mut attributes: BTreeMap<String, String>) -> Result<Resource, TelemetryError> {
    let count = attributes.len();
    if count > MAX_RESOURCE_ATTRIBUTES {
        return Err(TelemetryError::Attributes { count });
    }
    let mut default = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            attributes.entry(name.to_owned()).or_insert(value);
        }
    };
    default(resource::SERVICE_NAME, Some(SCOPE.to_owned()));
    default(resource::SERVICE_VERSION, Some(VERSION.to_owned()));
    default(resource::SERVICE_INSTANCE_ID, Some(uuid::Uuid::new_v4().to_string()));
    default(resource::HOST_NAME, host_name());
    let attributes = attributes.into_iter().map(|(name, value)| KeyValue::new(name, value));
    let pid = KeyValue::new(resource::PROCESS_PID, i64::from(std::process::id()));
    Ok(Resource::builder_empty().with_schema_url(attributes.chain([pid]), SCHEMA_URL).build())
}

/// The host's name, where the system has it in a file.
fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resource_has_what_the_conventions_ask_for() {
        let config = TelemetryConfig::default().namespace("shop").attribute("team", "x");
        let resource = resource(config.resource).unwrap();
        let get = |name: &'static str| resource.get(&Key::new(name)).map(|v| v.to_string());
        assert_eq!(get("service.name").as_deref(), Some("neuroflow"));
        assert_eq!(get("service.version").as_deref(), Some(VERSION));
        assert_eq!(get("service.namespace").as_deref(), Some("shop"));
        assert_eq!(get("team").as_deref(), Some("x"));
        assert_eq!(get("process.pid"), Some(std::process::id().to_string()));
        assert_eq!(get("service.instance.id").unwrap().len(), 36);
        assert_eq!(resource.schema_url(), Some(SCHEMA_URL));
        assert_eq!(cfg!(target_os = "linux"), get("host.name").is_some());
    }

    #[test]
    fn what_is_given_wins_over_what_is_found() {
        let config = TelemetryConfig::default().service("mine").instance("node-1");
        let resource = resource(config.resource).unwrap();
        let get = |name: &'static str| resource.get(&Key::new(name)).map(|v| v.to_string());
        assert_eq!(get("service.name").as_deref(), Some("mine"));
        assert_eq!(get("service.instance.id").as_deref(), Some("node-1"));
    }

    #[test]
    fn the_observer_does_not_hold_the_telemetry() {
        let telemetry = Telemetry::new(TelemetryConfig::default()).unwrap();
        let observer = telemetry.observer();
        let inner = Arc::downgrade(&telemetry.0);
        drop(telemetry);
        assert!(inner.upgrade().is_none(), "a kernel that holds its observer would hold itself");
        drop(observer);
    }
}
