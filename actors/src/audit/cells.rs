//! The sandbox's cells and their requests to other machines, as events of the audit log.

use std::sync::Arc;
use std::time::Duration;

use neuroflow_sandbox::{CellMeter, Decision, EgressVerdict, How, Layer, Level, Profile, Report};

use neuroflow_kernel::current_trace;

use super::{Audit, AuditEvent, AuditId, Digest, Verdict};

/// Notes every cell, and hands on to whoever counts them.
///
/// ```
/// use std::sync::Arc;
/// use neuroflow_actors::{Audit, AuditedCells};
/// use neuroflow_sandbox::{Level, Profile, SandboxServer};
/// let profile = Profile::builder(Level::Strict).build()?;
/// let server = SandboxServer::new(profile)
///     .meter_around(|inner| Arc::new(AuditedCells::new(Audit::off(), inner)));
/// # let _ = server;
/// # Ok::<(), neuroflow_sandbox::ProfileError>(())
/// ```
#[derive(Debug)]
pub struct AuditedCells {
    audit: Audit,
    inner: Arc<dyn CellMeter>,
}

impl AuditedCells {
    /// Notes in `audit`; counts with `inner`.
    pub fn new(audit: Audit, inner: Arc<dyn CellMeter>) -> Self {
        Self { audit, inner }
    }

    fn note(&self, event: AuditEvent) {
        self.audit.note(current_trace(), event);
    }
}

impl CellMeter for AuditedCells {
    fn began(&self, cell: &str, profile: &Profile, command: &[&str]) {
        let mut program = Vec::new();
        for argument in command {
            program.extend_from_slice(argument.as_bytes());
            program.push(0);
        }
        self.note(AuditEvent::CellStarted {
            cell: AuditId::new(cell),
            level: AuditId::new(profile.level().to_string()),
            profile: Digest::of(profile.written().as_bytes()),
            program: Digest::of(&program),
        });
        self.inner.began(cell, profile, command);
    }

    fn gone(&self, cell: &str, profile: &Profile, end: Option<(How, &Report)>) {
        let egress = end.and_then(|(_, report)| report.egress.as_ref());
        for decision in egress.iter().flat_map(|egress| &egress.decisions) {
            self.note(egress_event(cell, decision));
        }
        let denials = end.map(|(_, report)| report.denials.as_slice()).unwrap_or_default();
        let degraded = end.map(|(_, report)| report.degraded.as_slice()).unwrap_or_default();
        self.note(AuditEvent::CellEnded {
            cell: AuditId::new(cell),
            level: AuditId::new(profile.level().to_string()),
            how: end.map_or("cancelled", |(how, _)| how.code()),
            degraded: degraded.iter().map(|layer| AuditId::new(layer.to_string())).collect(),
            denied_calls: denials.iter().map(|denial| u64::from(denial.count)).sum(),
            unlisted_requests: egress.map_or(0, |egress| egress.dropped),
        });
        self.inner.gone(cell, profile, end);
    }

    fn started(&self, level: Level, prepared: bool, took: Duration) {
        self.inner.started(level, prepared, took);
    }

    fn ended(&self, how: How, report: &Report) {
        self.inner.ended(how, report);
    }

    fn refused(&self, code: &str) {
        self.note(AuditEvent::CellRefused { reason: AuditId::new(code) });
        self.inner.refused(code);
    }

    fn load(&self, running: usize, waiting: usize) {
        self.inner.load(running, waiting);
    }

    fn degraded(&self, level: Level, layer: Layer) {
        self.inner.degraded(level, layer);
    }
}

/// Neither the path nor the query is in it: secrets travel there.
fn egress_event(cell: &str, decision: &Decision) -> AuditEvent {
    AuditEvent::Egress {
        source: AuditId::new(cell),
        host: AuditId::new(&decision.host),
        port: decision.port,
        address: decision.address,
        verdict: match decision.verdict() {
            EgressVerdict::Allowed => Verdict::Allowed,
            EgressVerdict::Denied => Verdict::Denied,
            EgressVerdict::Failed | EgressVerdict::Cut => Verdict::Failed,
        },
        reason: decision.reason.code(),
        bytes_up: decision.bytes_up,
        bytes_down: decision.bytes_down,
    }
}
