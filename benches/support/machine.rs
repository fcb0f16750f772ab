//! Where and on what a run was measured.

use std::process::Command;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// What someone needs to know to judge a file of figures.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    /// `git describe --always --dirty`, so that a run of uncommitted code says so.
    pub(crate) commit: String,
    pub(crate) machine: String,
    pub(crate) cores: usize,
    pub(crate) memory_bytes: u64,
    pub(crate) kernel: String,
    pub(crate) at_unix_s: u64,
    pub(crate) iterations: usize,
    /// Processes that wanted to run when the benchmark began: above 1, others were there.
    pub(crate) load: f64,
}

impl Run {
    pub(crate) fn here(iterations: usize) -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let memory = field("/proc/meminfo", "MemTotal").and_then(|text| leading_number(&text));
        let load = read("/proc/loadavg");
        Self {
            commit: commit(),
            machine: field("/proc/cpuinfo", "model name").unwrap_or_else(|| UNKNOWN.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_bytes: memory.unwrap_or_default() * 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            at_unix_s: since.as_secs(),
            iterations,
            load: load.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or_default(),
        }
    }

    pub(crate) fn print(&self) {
        println!(
            "neuroflow {}, {} × {}, Linux {}, load {}, {} iterations",
            self.commit, self.cores, self.machine, self.kernel, self.load, self.iterations,
        );
    }
}

/// Resident memory of a process: its number, or `self`.
pub(crate) fn resident_bytes(process: &str) -> u64 {
    let resident = field(&format!("/proc/{process}/status"), "VmRSS");
    let kibibytes = resident.and_then(|text| leading_number(&text));
    kibibytes.expect("a living process has resident memory") * 1024
}

const UNKNOWN: &str = "unknown";

fn commit() -> String {
    let described = Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    let text = described.ok().filter(|output| output.status.success());
    let text = text.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.unwrap_or_else(|| UNKNOWN.to_owned())
}

/// The value of the first line `name: value`.
fn field(path: &str, name: &str) -> Option<String> {
    let text = read(path);
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let mut values = lines.filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim());
    values.next().map(str::to_owned)
}

fn leading_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
