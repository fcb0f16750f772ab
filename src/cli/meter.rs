//! The gateway's requests as metrics: the gateway doesn't know the telemetry, this file knows both.

use std::time::Duration;

use neuroflow::Meter;
use neuroflow_telemetry::conventions::buckets;
use neuroflow_telemetry::{Counter, Family, Histogram, Instruments, Metric, MetricError};

/// Requests to the gateway, named as OpenTelemetry's conventions have it.
const REQUESTS: Metric<Histogram, 3> = Metric::histogram(
    "http_server_request_duration_seconds",
    "Time from the head of a request to its answer.",
    ["http_request_method", "a2a_method", "http_response_status_code"],
    buckets::REQUEST,
);

/// Answers that are errors.
const ERRORS: Metric<Counter, 1> = Metric::counter(
    "neuroflow_gateway_rpc_errors_total",
    "JSON-RPC errors that the gateway has answered with, by code.",
    ["code"],
);

/// Counts the gateway's requests.
#[derive(Debug)]
pub(super) struct GatewayMeter {
    requests: Family<Histogram, 3>,
    errors: Family<Counter, 1>,
}

impl GatewayMeter {
    pub(super) fn new(instruments: &Instruments) -> Result<Self, MetricError> {
        Ok(Self {
            requests: instruments.register(&REQUESTS)?,
            errors: instruments.register(&ERRORS)?,
        })
    }
}

impl Meter for GatewayMeter {
    fn request(&self, operation: &'static str, status: u16, error: Option<i32>, took: Duration) {
        // The gateway reports its JSON-RPC routes, and those take POST only.
        match status {
            200 => self.requests.with(["POST", operation, "200"]).record(took),
            other => self.requests.with(["POST", operation, &other.to_string()]).record(took),
        }
        if let Some(code) = error {
            self.errors.with([&code.to_string()]).increment();
        }
    }
}
