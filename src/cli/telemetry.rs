//! From the configuration to the telemetry and the log.

use neuroflow_telemetry::logs::{self, LogConfig, LogError, LogGuard};
use neuroflow_telemetry::{EnvironmentError, TelemetryConfig};

use crate::config::Loaded;

/// What the telemetry is told: the environment's `OTEL_*` variables, and over them what is set in
/// the configuration.
pub(super) fn telemetry(loaded: &Loaded) -> Result<TelemetryConfig, EnvironmentError> {
    let given = &loaded.config.telemetry;
    let endpoint = given.otlp_endpoint.as_ref().map(|endpoint| endpoint.as_str().to_owned());
    let ratio = loaded.is_set("telemetry.sample_ratio").then_some(given.sample_ratio.number());
    let variable = |name: &str| match (name, &endpoint, ratio) {
        ("OTEL_EXPORTER_OTLP_ENDPOINT", Some(endpoint), _) => Some(endpoint.clone()),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", Some(_), _) => None,
        ("OTEL_TRACES_SAMPLER", _, Some(_)) => Some("parentbased_traceidratio".to_owned()),
        ("OTEL_TRACES_SAMPLER_ARG", _, Some(ratio)) => Some(ratio.to_string()),
        _ => std::env::var(name).ok(),
    };
    TelemetryConfig::default().version(env!("CARGO_PKG_VERSION")).environment(variable)
}

/// Logs as configured.
pub(super) fn log(loaded: &Loaded) -> Result<LogGuard, LogError> {
    let log = &loaded.config.log;
    logs::init(&LogConfig::default().format(log.format).filter(log.filter.as_str()))
}

/// Logs as configured, but of a command that answers and ends only what went wrong.
pub(super) fn quiet_log(loaded: &Loaded) -> Result<LogGuard, LogError> {
    let log = &loaded.config.log;
    let filter = if loaded.is_set("log.filter") { log.filter.as_str() } else { "warn" };
    logs::init(&LogConfig::default().format(log.format).filter(filter))
}
