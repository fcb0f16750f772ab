//! The report of `exec --json`.

use std::io::Write;

use neuroflow::sandbox::{End, Output, Report};
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
}

impl ExecReport {
    pub(super) fn keep(&mut self, output: Output) {
        match output {
            Output::Stdout(bytes) => self.stdout.extend_from_slice(&bytes),
            Output::Stderr(bytes) => self.stderr.extend_from_slice(&bytes),
        }
    }

    pub(super) fn write(&self, report: &Report, out: &mut dyn Write) -> Result<(), ExecError> {
        let (ended, exit_code, signal) = match report.end {
            End::Exited(status) => ("exited", Some(status), None),
            End::Signalled(signal) => ("signalled", None, Some(signal)),
            End::WallTime => ("wall_time", None, None),
            End::OutputLimit => ("output_limit", None, None),
            End::Cancelled => ("cancelled", None, None),
            _ => ("killed", None, None),
        };
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
        };
        let text = serde_json::to_string_pretty(&json)?;
        writeln!(out, "{text}").map_err(ExecError::Output)
    }
}
