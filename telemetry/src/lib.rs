//! Prometheus metrics, OpenTelemetry traces and structured logs of a kernel.
