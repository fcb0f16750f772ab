//! Prometheus metrics, OpenTelemetry traces and structured logs of a kernel.
//!
//! [`Telemetry`] hands the kernel an observer and gives the numbers out; [`server`] serves them to
//! Prometheus; [`logs`] makes log lines that carry the trace of the message being handled. Without
//! all of it a node behaves the same. Nothing global is installed unless [`logs::init`] is called.

pub mod conventions;
pub mod limits;
pub mod metrics;

mod family;
mod instrument;
mod instruments;

mod census;
mod process;

mod config;
mod environment;
mod sampler;

mod export;
mod span;

mod causes;
mod lifecycle;
mod observer;
mod telemetry;

pub mod logs;
pub mod server;

pub use telemetry::{Telemetry, TelemetryError};

pub use config::{TelemetryConfig, TraceConfig};
pub use environment::EnvironmentError;
pub use export::{ExportError, ShutdownError};
pub use sampler::{RatioError, Sampler};

pub use family::{Family, OTHER};
pub use instrument::{Counter, Gauge, Histogram, Instrument, Metric, MetricError};
pub use instruments::{Instruments, RenderError};
