//! The gateway's requests and the sandbox's cells as metrics: those don't know the telemetry, this
//! file knows both sides.

use std::time::Duration;

use neuroflow::actors::{AccessMeter, Action, McpMeter};
use neuroflow::sandbox::{CellMeter, How, Layer, Level, Report};
use neuroflow::{Meter, Metered, Node};
use neuroflow_telemetry::conventions::buckets;
use neuroflow_telemetry::{Counter, Family, Gauge, Histogram, Instruments, Metric, MetricError};

use super::cluster_meter::number;

/// Requests to the gateway, named as OpenTelemetry's conventions have it.
const REQUESTS: Metric<Histogram, 3> = Metric::histogram(
    "http_server_request_duration_seconds",
    "Time from the head of a request to its answer, or to the beginning of the stream that answers it. \
     a2a_method is the operation; for pages and MCP it's the path, and refused for what isn't let in.",
    ["http_request_method", "a2a_method", "http_response_status_code"],
    buckets::REQUEST,
);

/// Answers that are errors.
const ERRORS: Metric<Counter, 1> = Metric::counter(
    "neuroflow_gateway_rpc_errors_total",
    "Answers of the gateway that are errors, by the code that JSON-RPC has for them in any binding.",
    ["code"],
);

/// Connections of who has enough of them.
const REFUSED_CONNECTIONS: Metric<Counter, 0> = Metric::counter(
    "neuroflow_gateway_connections_refused_total",
    "Connections that were closed at once, because their address had as many as were free for all others.",
    [],
);

/// Push notifications.
const PUSHES: Metric<Counter, 1> = Metric::counter(
    "neuroflow_push_notifications_total",
    "Attempts at push notifications, by outcome: delivered, or why they weren't taken.",
    ["outcome"],
);

/// Counts the gateway's requests.
#[derive(Debug)]
pub(super) struct GatewayMeter {
    requests: Family<Histogram, 3>,
    errors: Family<Counter, 1>,
    refused_connections: Family<Counter, 0>,
    pushes: Family<Counter, 1>,
}

impl GatewayMeter {
    pub(super) fn new(instruments: &Instruments) -> Result<Self, MetricError> {
        Ok(Self {
            requests: instruments.register(&REQUESTS)?,
            errors: instruments.register(&ERRORS)?,
            refused_connections: instruments.register(&REFUSED_CONNECTIONS)?,
            pushes: instruments.register(&PUSHES)?,
        })
    }
}

impl Meter for GatewayMeter {
    fn request(&self, request: &Metered) {
        let Metered { method, operation, took, .. } = *request;
        match request.status {
            200 => self.requests.with([method, operation, "200"]).record(took),
            other => self.requests.with([method, operation, &other.to_string()]).record(took),
        }
        if let Some(code) = request.error {
            self.errors.with([&code.to_string()]).increment();
        }
    }

    fn connection_refused(&self) {
        self.refused_connections.with([]).increment();
    }

    fn push(&self, outcome: &'static str) {
        self.pushes.with([outcome]).increment();
    }
}

/// Whether the journal takes what it's given.
const JOURNAL_UP: Metric<Gauge, 0> = Metric::gauge(
    "neuroflow_journal_up",
    "Whether the journal takes what it's given; /readyz says why it doesn't.",
    [],
);

/// What the journal hasn't taken.
const JOURNAL_REFUSED: Metric<Counter, 1> = Metric::counter(
    "neuroflow_journal_refused_total",
    "Appends that the journal hasn't taken, by reason.",
    ["reason"],
);

/// Whether the audit log takes what it's given.
const AUDIT_UP: Metric<Gauge, 0> = Metric::gauge(
    "neuroflow_audit_up",
    "Whether the audit log, if there is one, takes what it's given.",
    [],
);

/// Decisions that weren't recorded.
const AUDIT_REFUSED: Metric<Counter, 1> = Metric::counter(
    "neuroflow_audit_refused_total",
    "Decisions that were refused because the audit log didn't take them, by reason.",
    ["reason"],
);

/// Events that weren't recorded.
const AUDIT_LOST: Metric<Counter, 0> =
    Metric::counter("neuroflow_audit_lost_total", "Events that are missing in the audit log.", []);

/// Registers how the journal and the audit log do.
pub(super) fn conditions(instruments: &Instruments, node: &Node) -> Result<(), MetricError> {
    for condition in node.conditions() {
        let (up, refused) = match condition.server() {
            "journal" => (&JOURNAL_UP, &JOURNAL_REFUSED),
            _ => (&AUDIT_UP, &AUDIT_REFUSED),
        };
        let of = condition.clone();
        let is_up = move || vec![([], if of.trouble().is_none() { 1.0 } else { 0.0 })];
        instruments.read_gauges(up, is_up)?;
        let count = |(reason, count): (&str, u64)| ([reason.to_owned()], number(count));
        let refusals = move || condition.refused().into_iter().map(count).collect();
        instruments.read_counters(refused, refusals)?;
    }
    let audit = node.audit().clone();
    if audit.is_on() {
        instruments.read_counters(&AUDIT_LOST, move || vec![([], number(audit.lost()))])?;
    }
    Ok(())
}

/// Who said who they are, and who didn't.
const AUTHENTICATIONS: Metric<Counter, 1> = Metric::counter(
    "neuroflow_authentications_total",
    "Requests by what came of their credential: ok, or why it wasn't taken.",
    ["outcome"],
);

/// What was allowed.
const AUTHORISATIONS: Metric<Counter, 2> = Metric::counter(
    "neuroflow_authorisations_total",
    "Decisions of the policies, by action.",
    ["action", "decision"],
);

/// Who asked for too much.
const THROTTLED: Metric<Counter, 0> = Metric::counter(
    "neuroflow_throttled_requests_total",
    "Requests beyond what their principal may have at once.",
    [],
);

/// Changed files.
const RELOADS: Metric<Counter, 2> = Metric::counter(
    "neuroflow_access_reloads_total",
    "Tokens, policies, keys and certificates that have changed, by whether they were taken over.",
    ["what", "outcome"],
);

/// Counts what access decides.
#[derive(Debug)]
pub(super) struct AccessCounts {
    authentications: Family<Counter, 1>,
    authorisations: Family<Counter, 2>,
    throttled: Family<Counter, 0>,
    reloads: Family<Counter, 2>,
}

impl AccessCounts {
    pub(super) fn new(instruments: &Instruments) -> Result<Self, MetricError> {
        Ok(Self {
            authentications: instruments.register(&AUTHENTICATIONS)?,
            authorisations: instruments.register(&AUTHORISATIONS)?,
            throttled: instruments.register(&THROTTLED)?,
            reloads: instruments.register(&RELOADS)?,
        })
    }
}

impl AccessMeter for AccessCounts {
    fn authentication(&self, outcome: &'static str) {
        self.authentications.with([outcome]).increment();
    }

    fn authorisation(&self, action: Action, allowed: bool) {
        let decision = if allowed { "allowed" } else { "denied" };
        self.authorisations.with([action.name(), decision]).increment();
    }

    fn throttled(&self) {
        self.throttled.with([]).increment();
    }

    fn reload(&self, what: &'static str, taken: bool) {
        let outcome = if taken { "taken" } else { "refused" };
        self.reloads.with([what, outcome]).increment();
    }
}

/// Starts of cells.
const STARTS: Metric<Histogram, 2> = Metric::histogram(
    "neuroflow_cell_start_duration_seconds",
    "Time from a request to the running program, waiting for a place included.",
    ["level", "prepared"],
    buckets::REQUEST,
);

/// Ends of cells.
const ENDS: Metric<Counter, 2> = Metric::counter(
    "neuroflow_cells_ended_total",
    "Cells that have ended, by why: exited, or the limit or signal that ended them.",
    ["level", "how"],
);

/// Requests without a cell.
const REFUSED: Metric<Counter, 1> = Metric::counter(
    "neuroflow_cells_refused_total",
    "Requests for a cell that got none, by reason.",
    ["code"],
);

/// Refused system calls.
const DENIED: Metric<Counter, 2> = Metric::counter(
    "neuroflow_cell_denied_calls_total",
    "System calls that cells were refused, by name.",
    ["level", "call"],
);

/// Missing layers.
const DEGRADED: Metric<Counter, 2> = Metric::counter(
    "neuroflow_cell_degraded_total",
    "Cells that did without a layer of their level, which the configuration allows.",
    ["level", "layer"],
);

/// Processor time.
const CPU: Metric<Counter, 1> = Metric::counter(
    "neuroflow_cell_cpu_microseconds_total",
    "Processor time that cells have used.",
    ["level"],
);

/// Decisions of the cells' proxies.
const EGRESS: Metric<Counter, 2> = Metric::counter(
    "neuroflow_cell_egress_total",
    "Requests of cells to their proxies, by what became of them and why.",
    ["verdict", "reason"],
);

/// Running and waiting.
const LOAD: Metric<Gauge, 1> =
    Metric::gauge("neuroflow_cells", "Cells that run, and requests that wait for one.", ["state"]);

/// Counts the sandbox's cells.
#[derive(Debug)]
pub(super) struct SandboxMeter {
    starts: Family<Histogram, 2>,
    ends: Family<Counter, 2>,
    refused: Family<Counter, 1>,
    denied: Family<Counter, 2>,
    degraded: Family<Counter, 2>,
    cpu: Family<Counter, 1>,
    egress: Family<Counter, 2>,
    load: Family<Gauge, 1>,
}

impl SandboxMeter {
    pub(super) fn new(instruments: &Instruments) -> Result<Self, MetricError> {
        Ok(Self {
            starts: instruments.register(&STARTS)?,
            ends: instruments.register(&ENDS)?,
            refused: instruments.register(&REFUSED)?,
            denied: instruments.register(&DENIED)?,
            degraded: instruments.register(&DEGRADED)?,
            cpu: instruments.register(&CPU)?,
            egress: instruments.register(&EGRESS)?,
            load: instruments.register(&LOAD)?,
        })
    }
}

impl CellMeter for SandboxMeter {
    fn started(&self, level: Level, prepared: bool, took: Duration) {
        let prepared = if prepared { "true" } else { "false" };
        self.starts.with([&level.to_string(), prepared]).record(took);
    }

    fn ended(&self, how: How, report: &Report) {
        let level = report.level.to_string();
        self.ends.with([&level, how.code()]).increment();
        for denial in &report.denials {
            self.denied.with([&level, &denial.call]).add(denial.count.into());
        }
        let used = (report.usage.user + report.usage.system).as_micros();
        self.cpu.with([&level]).add(u64::try_from(used).unwrap_or(u64::MAX));
        for (reason, count) in report.egress.iter().flat_map(|egress| &egress.counts) {
            self.egress.with([&reason.verdict().to_string(), reason.code()]).add(*count);
        }
    }

    fn refused(&self, code: &str) {
        self.refused.with([code]).increment();
    }

    fn load(&self, running: usize, waiting: usize) {
        for (state, count) in [("running", running), ("waiting", waiting)] {
            self.load.with([state]).set(u32::try_from(count).map_or(f64::MAX, f64::from));
        }
    }

    fn degraded(&self, level: Level, layer: Layer) {
        self.degraded.with([&level.to_string(), &layer.to_string()]).increment();
    }
}

/// Sessions with MCP servers.
const MCP_SESSIONS: Metric<Gauge, 1> = Metric::gauge(
    "neuroflow_mcp_server_up",
    "Whether an MCP server has a session and has said what it has.",
    ["server"],
);

/// Calls of MCP tools.
const MCP_CALLS: Metric<Histogram, 2> = Metric::histogram(
    "neuroflow_mcp_call_duration_seconds",
    "Time of a call of an MCP server's tool, by how it ended.",
    ["server", "outcome"],
    buckets::REQUEST,
);

/// Servers without walls.
const MCP_UNCONFINED: Metric<Gauge, 1> = Metric::gauge(
    "neuroflow_mcp_server_unconfined",
    "MCP servers that run without a cell, which the configuration wants.",
    ["server"],
);

/// Counts what MCP servers do.
#[derive(Debug)]
pub(super) struct McpMetrics {
    sessions: Family<Gauge, 1>,
    calls: Family<Histogram, 2>,
    unconfined: Family<Gauge, 1>,
}

impl McpMetrics {
    pub(super) fn new(instruments: &Instruments) -> Result<Self, MetricError> {
        Ok(Self {
            sessions: instruments.register(&MCP_SESSIONS)?,
            calls: instruments.register(&MCP_CALLS)?,
            unconfined: instruments.register(&MCP_UNCONFINED)?,
        })
    }
}

impl McpMeter for McpMetrics {
    fn session(&self, server: &str, is_up: bool) {
        self.sessions.with([server]).set(if is_up { 1.0 } else { 0.0 });
    }

    fn called(&self, server: &str, outcome: &'static str, took: Duration) {
        self.calls.with([server, outcome]).record(took);
    }

    fn unconfined(&self, server: &str) {
        self.unconfined.with([server]).set(1.0);
    }
}
