//! Every bound of the telemetry, with its reason.

use std::time::Duration;

/// Values that one label of one metric may have; whatever comes after them is counted as
/// [`OTHER`](crate::OTHER).
///
/// Prometheus advises fewer than ten series for most metrics and an alarm above a hundred. A label
/// value is often chosen by whoever configures or calls the node, so it needs a bound here.
pub const MAX_LABEL_VALUES: usize = 64;

/// Series of one metric, over all its labels together: the product of several labels grows fast.
pub const MAX_SERIES: usize = 512;

/// Bytes of a label value; a longer one is counted as [`OTHER`](crate::OTHER).
pub const MAX_LABEL_BYTES: usize = 128;

/// Spans that may wait for export. At some hundred bytes each, well below a megabyte or two.
pub const SPAN_QUEUE: usize = 2_048;

/// Spans of one export request: what the OpenTelemetry specification recommends.
pub const SPAN_BATCH: usize = 512;

/// How long a span waits for others before it's exported.
pub const EXPORT_DELAY: Duration = Duration::from_secs(2);

/// Time that one export may take, its retries included. Spans queue meanwhile, and are dropped and
/// counted when the queue is full.
pub const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of a span's text attribute; the rest is cut off, so that a queue of spans stays small.
pub const MAX_ATTRIBUTE_BYTES: usize = 4 * 1024;

/// Resource attributes that the environment or the host may add.
pub const MAX_RESOURCE_ATTRIBUTES: usize = 64;

/// Connections to the metrics endpoint at a time: one or two Prometheus servers, and a person.
pub const MAX_CONNECTIONS: usize = 16;

/// How long a connection to the metrics endpoint lives, from accept to close. It serves one
/// request, so that a client that dawdles holds its seat no longer than this.
pub const CONNECTION_LIFE: Duration = Duration::from_secs(10);

/// Time that a scrape may wait for the scrape before it: they run one at a time, because each walks
/// over all actors.
pub const SCRAPE_WAIT: Duration = Duration::from_secs(5);

/// Pause after a failed `accept`: out of file descriptors, usually, and then asking again at once
/// would only burn the processor.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Time that open scrapes get to finish when the endpoint stops; less than the kernel's
/// `STOP_DEADLINE`.
pub const DRAIN: Duration = Duration::from_secs(2);

/// Levels of an error's causes that a log line names.
pub const MAX_CAUSES: usize = 8;

/// Bytes of log lines that may wait for whoever reads standard error, and as many again that are
/// being written: some thousand lines, a burst of a second or two.
pub const LOG_QUEUE_BYTES: usize = 1024 * 1024;

/// Bytes of one value in a log line: more of it is said in a number. Clients and servers name things in what is logged.
pub const LOG_VALUE_BYTES: usize = 4 * 1024;

/// Time that waiting log lines get to be written when the process ends.
pub const LOG_FLUSH: Duration = Duration::from_secs(1);
