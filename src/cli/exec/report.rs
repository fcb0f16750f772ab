//! The report of `exec --json`.

use std::collections::BTreeMap;

use neuroflow::sandbox::{EgressReport, EgressVerdict, End, GroupUsage, Output, Report};
use serde::Serialize;

use super::ExecError;

/// What was written so far.
#[derive(Debug, Default)]
pub(super) struct ExecReport {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// The JSON. The names of the first six are those of the `exec` tool's answer.
#[derive(Debug, Serialize)]
struct Json<'a> {
    ended: &'static str,
    exit_code: Option<i32>,
    signal: Option<i32>,
    stdout: std::borrow::Cow<'a, str>,
    stderr: std::borrow::Cow<'a, str>,
    truncated: bool,
    level: String,
    layers: Vec<String>,
    start_seconds: f64,
    user_seconds: f64,
    system_seconds: f64,
    peak_resident_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_cell_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_processes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    processes_refused: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    throttled_periods: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    throttled_seconds: Option<f64>,
    /// Of what was counted: what threads waited for, and for how long.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    stalled_seconds: BTreeMap<&'static str, f64>,
    prepared: bool,
    boundary: String,
    degraded: Vec<String>,
    denied: BTreeMap<&'a str, u32>,
    stages: BTreeMap<String, f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    egress: Vec<Request<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    egress_counts: Option<Counts>,
}

/// All decisions of the egress proxy, those that aren't listed included.
#[derive(Debug, Serialize)]
struct Counts {
    allowed: u64,
    denied: u64,
    unlisted: u64,
    bytes_up: u64,
    bytes_down: u64,
    reasons: BTreeMap<&'static str, u64>,
}

impl From<&EgressReport> for Counts {
    fn from(report: &EgressReport) -> Self {
        let reasons = report.counts.iter().map(|(reason, count)| (reason.code(), *count));
        Self {
            allowed: report.allowed,
            denied: report.denied,
            unlisted: report.dropped,
            bytes_up: report.bytes_up,
            bytes_down: report.bytes_down,
            reasons: reasons.collect(),
        }
    }
}

/// What a group counted of waiting, by what was waited for; `all`: by all threads at once.
fn stalls(group: &GroupUsage) -> BTreeMap<&'static str, f64> {
    let counted = [
        ("cpu", group.cpu_stalled),
        ("memory", group.memory_stalled),
        ("memory_all", group.memory_stalled_fully),
        ("io", group.io_stalled),
        ("io_all", group.io_stalled_fully),
    ];
    counted.into_iter().filter_map(|(what, time)| Some((what, time?.as_secs_f64()))).collect()
}

/// A decision of the egress proxy.
#[derive(Debug, Serialize)]
struct Request<'a> {
    host: &'a str,
    port: u16,
    method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    reason: &'static str,
    allowed: bool,
    bytes_up: u64,
    bytes_down: u64,
}

/// The word for an end, with the program's status or the signal that ended it.
pub(super) fn ending(end: End) -> (&'static str, Option<i32>, Option<i32>) {
    match end {
        End::Exited(status) => ("exited", Some(status), None),
        End::Signalled(signal) => ("signalled", None, Some(signal)),
        End::WallTime => ("wall_time", None, None),
        End::OutputLimit => ("output_limit", None, None),
        End::Memory => ("memory", None, None),
        End::CpuTime => ("cpu_time", None, Some(super::SIGXCPU)),
        End::FileSize => ("file_size", None, Some(super::SIGXFSZ)),
        End::ForeignCall => ("foreign_call", None, Some(super::SIGSYS)),
        End::Cancelled => ("cancelled", None, None),
        End::LauncherLost => ("launcher_lost", None, None),
        End::NotGone => ("not_gone", None, None),
        _ => ("killed", None, None),
    }
}

impl ExecReport {
    pub(super) fn keep(&mut self, output: Output) {
        match output {
            Output::Stdout(bytes) => self.stdout.extend_from_slice(&bytes),
            Output::Stderr(bytes) => self.stderr.extend_from_slice(&bytes),
        }
    }

    /// The report, with the end of its last line.
    pub(super) fn text(&self, report: &Report) -> Result<String, ExecError> {
        let (ended, exit_code, signal) = ending(report.end);
        let json = Json {
            ended,
            exit_code,
            signal,
            stdout: String::from_utf8_lossy(&self.stdout),
            stderr: String::from_utf8_lossy(&self.stderr),
            truncated: report.truncated.stdout || report.truncated.stderr,
            level: report.level.to_string(),
            layers: report.layers().iter().map(ToString::to_string).collect(),
            start_seconds: report.stages.total().as_secs_f64(),
            user_seconds: report.usage.user.as_secs_f64(),
            system_seconds: report.usage.system.as_secs_f64(),
            peak_resident_bytes: report.usage.peak_resident_bytes,
            peak_cell_bytes: report.group.memory_peak_bytes,
            peak_processes: report.group.processes_peak,
            processes_refused: report.group.processes_refused,
            throttled_periods: report.group.throttled_periods,
            throttled_seconds: report.group.throttled.map(|time| time.as_secs_f64()),
            stalled_seconds: stalls(&report.group),
            prepared: report.prepared,
            boundary: report.boundary.to_string(),
            degraded: report.degraded.iter().map(ToString::to_string).collect(),
            denied: report
                .denials
                .iter()
                .map(|denial| (denial.call.as_str(), denial.count))
                .collect(),
            stages: report
                .stages
                .iter()
                .map(|(stage, time)| (format!("{stage:?}").to_lowercase(), time.as_secs_f64()))
                .collect(),
            egress: report
                .egress
                .iter()
                .flat_map(|egress| &egress.decisions)
                .map(|decision| Request {
                    host: &decision.host,
                    port: decision.port,
                    method: &decision.method,
                    path: decision.path.as_deref(),
                    reason: decision.reason.code(),
                    allowed: decision.verdict() == EgressVerdict::Allowed,
                    bytes_up: decision.bytes_up,
                    bytes_down: decision.bytes_down,
                })
                .collect(),
            egress_counts: report.egress.as_ref().map(Counts::from),
        };
        Ok(serde_json::to_string_pretty(&json)? + "\n")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_cell_that_may_still_run_is_not_told_as_killed() {
        let word = |end| ending(end).0;
        assert_eq!(word(End::NotGone), "not_gone");
        assert_eq!(word(End::LauncherLost), "launcher_lost");
        assert_eq!(word(End::Killed), "killed");
    }

    #[test]
    fn only_what_was_counted_is_told() {
        assert!(stalls(&GroupUsage::default()).is_empty());
        let group = GroupUsage {
            cpu_stalled: Some(Duration::from_millis(1500)),
            io_stalled_fully: Some(Duration::ZERO),
            ..GroupUsage::default()
        };
        assert_eq!(stalls(&group), BTreeMap::from([("cpu", 1.5), ("io_all", 0.0)]));
    }
}
