//! OpenTelemetry's names that this crate writes itself, pinned, so that an upgrade is a change of
//! this file. Spans come named by the servers that make them.
//!
//! ```
//! use neuroflow_telemetry::conventions::resource;
//! assert_eq!(resource::SERVICE_NAME, "service.name");
//! ```

/// The schema that the core names follow.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";

/// The instrumentation scope of every span.
pub const SCOPE: &str = "neuroflow";

/// Attributes of the resource: what produces the telemetry.
pub mod resource {
    /// The service, the same for all its instances.
    pub const SERVICE_NAME: &str = "service.name";
    /// Its version.
    pub const SERVICE_VERSION: &str = "service.version";
    /// Which instance of it.
    pub const SERVICE_INSTANCE_ID: &str = "service.instance.id";
    /// What tells it from other services of the same name.
    pub const SERVICE_NAMESPACE: &str = "service.namespace";
    /// The host.
    pub const HOST_NAME: &str = "host.name";
    /// The process.
    pub const PROCESS_PID: &str = "process.pid";
}

/// Attributes of spans.
pub mod attribute {
    /// The kind of error; there exactly when a span's status is an error.
    pub const ERROR_TYPE: &str = "error.type";
}

/// Bucket bounds that the conventions give.
pub mod buckets {
    /// Seconds of HTTP and remote procedure calls.
    pub const REQUEST: &[f64] =
        &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
    /// Seconds of messages between actors of one process: far finer than any request.
    pub const MESSAGE: &[f64] =
        &[1e-6, 5e-6, 1e-5, 5e-5, 1e-4, 5e-4, 1e-3, 5e-3, 1e-2, 5e-2, 0.1, 0.5, 1.0, 5.0];
}
