//! The one table of this crate's metrics: names, help texts, labels, buckets.
//!
//! Actors are counted by kind, never by path or id: kinds are few and fixed.

use crate::conventions::buckets;
use crate::instrument::{Counter, Gauge, Histogram, Metric};

/// Messages by how their handling ended.
pub const MESSAGES_HANDLED: Metric<Counter, 2> = Metric::counter(
    "neuroflow_actor_messages_handled_total",
    "Messages that left an actor's mailbox, by how their handling ended.",
    ["actor_kind", "outcome"],
);

/// How long messages wait.
pub const MAILBOX_WAIT: Metric<Histogram, 1> = Metric::histogram(
    "neuroflow_actor_mailbox_wait_seconds",
    "Time that messages waited in a mailbox. One message in 8 is timed.",
    ["actor_kind"],
    buckets::MESSAGE,
);

/// How long messages are handled.
pub const MESSAGE_HANDLE: Metric<Histogram, 1> = Metric::histogram(
    "neuroflow_actor_message_handle_seconds",
    "Time that actors took to handle a message. One message in 8 is timed.",
    ["actor_kind"],
    buckets::MESSAGE,
);

/// Living actors.
pub const ACTORS: Metric<Gauge, 1> =
    Metric::gauge("neuroflow_actors", "Actors that live, by kind.", ["actor_kind"]);

/// Waiting messages of all actors of a kind.
pub const MAILBOX_DEPTH: Metric<Gauge, 1> = Metric::gauge(
    "neuroflow_actor_mailbox_depth",
    "Messages that wait in the mailboxes of all actors of a kind.",
    ["actor_kind"],
);

/// Waiting messages of the busiest actor of a kind.
pub const MAILBOX_DEPTH_MAX: Metric<Gauge, 1> = Metric::gauge(
    "neuroflow_actor_mailbox_depth_max",
    "Messages that wait in the fullest mailbox of a kind of actor.",
    ["actor_kind"],
);

/// Actors that began.
pub const STARTED: Metric<Counter, 1> = Metric::counter(
    "neuroflow_actor_started_total",
    "Actors that started, restarts included.",
    ["actor_kind"],
);

/// Actors that ended.
pub const STOPPED: Metric<Counter, 2> = Metric::counter(
    "neuroflow_actor_stopped_total",
    "Actors that ended: stopped in good order, failed (also while starting), or killed.",
    ["actor_kind", "reason"],
);

/// Actors that were started again.
pub const RESTARTS: Metric<Counter, 1> = Metric::counter(
    "neuroflow_actor_restarts_total",
    "Actors that their supervisor started again.",
    ["actor_kind"],
);

/// Supervisors that gave up.
pub const ESCALATIONS: Metric<Counter, 0> = Metric::counter(
    "neuroflow_supervisor_escalations_total",
    "Supervisors that saw too many restarts and failed themselves.",
    [],
);

/// Spans that the collector took.
pub const SPANS_EXPORTED: Metric<Counter, 0> =
    Metric::counter("neuroflow_telemetry_spans_exported_total", "Spans sent to the collector.", []);

/// Spans that were lost.
pub const SPANS_DROPPED: Metric<Counter, 1> = Metric::counter(
    "neuroflow_telemetry_spans_dropped_total",
    "Spans that were lost: the queue was full, the export failed, or the exporter had shut down.",
    ["reason"],
);

/// Label values that were folded.
pub const FOLDED: Metric<Counter, 1> = Metric::counter(
    "neuroflow_telemetry_label_values_folded_total",
    "Look-ups of a metric's series that ended at the label value _other, by metric.",
    ["metric"],
);

/// Log lines that were lost.
pub const LOG_LINES_DROPPED: Metric<Counter, 0> = Metric::counter(
    "neuroflow_log_lines_dropped_total",
    "Log lines that were dropped because nobody read standard error fast enough.",
    [],
);

/// The version.
pub const BUILD_INFO: Metric<Gauge, 1> =
    Metric::gauge("neuroflow_build_info", "The running version; the value is 1.", ["version"]);

/// Processor time.
pub const PROCESS_CPU: Metric<Counter, 0> = Metric::counter(
    "process_cpu_seconds_total",
    "Processor time of the process, user and system, in seconds.",
    [],
);

/// Resident memory.
pub const PROCESS_RESIDENT: Metric<Gauge, 0> =
    Metric::gauge("process_resident_memory_bytes", "Resident memory of the process in bytes.", []);

/// Virtual memory.
pub const PROCESS_VIRTUAL: Metric<Gauge, 0> =
    Metric::gauge("process_virtual_memory_bytes", "Virtual memory of the process in bytes.", []);

/// Open file descriptors.
pub const PROCESS_OPEN_FDS: Metric<Gauge, 0> =
    Metric::gauge("process_open_fds", "Open file descriptors of the process.", []);

/// File descriptors that may be open.
pub const PROCESS_MAX_FDS: Metric<Gauge, 0> =
    Metric::gauge("process_max_fds", "File descriptors that the process may have open.", []);

/// Threads.
pub const PROCESS_THREADS: Metric<Gauge, 0> =
    Metric::gauge("process_threads", "Threads of the process.", []);

/// When the process started.
pub const PROCESS_START: Metric<Gauge, 0> = Metric::gauge(
    "process_start_time_seconds",
    "When the process started, in seconds of Unix time.",
    [],
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_texts_name_the_kernel_s_sampling() {
        let sample = format!("One message in {} is", neuroflow_kernel::limits::TIMING_SAMPLE);
        assert!(MAILBOX_WAIT.help().contains(&sample));
        assert!(MESSAGE_HANDLE.help().contains(&sample));
    }
}
