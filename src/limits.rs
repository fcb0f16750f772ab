//! Every bound of the binary, with its reason.

use std::time::Duration;

/// Bytes of a configuration file: a thousand times what all settings need, and small enough to read
/// whatever the path turns out to be.
pub(crate) const CONFIG_BYTES: u64 = 1024 * 1024;

/// Bytes of one request to the control socket: the longest names a journal, by a path of up to 4 KiB,
/// and three ids of up to 512 bytes, in JSON.
pub(crate) const CONTROL_REQUEST_BYTES: usize = 16 * 1024;

/// Bytes of one answer of the control socket, as its client bounds it: the actors and post-mortems
/// below, at the longest paths that there can be, stay far under it.
pub(crate) const CONTROL_ANSWER_BYTES: u64 = 64 * 1024 * 1024;

/// Tasks in one answer of the control socket: as many as the journal has on a page.
pub(crate) const CONTROL_TASKS: usize = 1_000;

/// Bytes of a task's log in one answer, less its last line: an entry, which has 4 MiB, is twice as long
/// where bytes are written as digits, and a control character becomes seven in JSON within JSON.
pub(crate) const CONTROL_LOG_BYTES: usize = 4 * 1024 * 1024;

/// Looks at what has changed while all tasks are exported: one is enough unless tasks change in just
/// the moments between two pages.
pub(crate) const EXPORT_LOOKS: usize = 8;

/// Connections that the control socket serves at once; others wait in its backlog. It's for people
/// and their scripts.
pub(crate) const CONTROL_CONNECTIONS: usize = 8;

/// Files that a node opens at once, if it may: all of the gateway's connections, and half as many of everything else.
pub(crate) const OPEN_FILES: u64 = 49_152;

/// Time that one connection to the control socket may take, from accept to close.
pub(crate) const CONTROL_DEADLINE: Duration = Duration::from_secs(5);

/// Time that a node which is asked to drain has to say that it does: less than the connection that waits for it.
pub(crate) const DRAIN_ANSWER: Duration = Duration::from_secs(3);

/// How often its answer is looked for.
pub(crate) const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// Pause after a failed `accept`: out of file descriptors, usually, and then asking again at once
/// would only burn the processor.
pub(crate) const CONTROL_ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Actors in one answer: more than a person reads, and few enough to be written at once. What is
/// left out is counted.
pub(crate) const CONTROL_ACTORS: usize = 10_000;

/// Bytes of a path to a Unix socket: what `sockaddr_un` has room for, less its closing zero.
pub(crate) const SOCKET_PATH_BYTES: usize = 107;

/// Time between two looks of `tree --watch`.
pub(crate) const WATCH_PAUSE: Duration = Duration::from_secs(1);

/// Time that spans get to reach the collector when the process ends.
pub(crate) const TELEMETRY_SHUTDOWN: Duration = Duration::from_secs(3);

/// Time that the last words of a command get to reach whoever reads standard error.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(1);

/// Time that a node gets to end in its own way after a second signal, before the process is ended from
/// outside of it.
pub(crate) const AT_ONCE: Duration = Duration::from_millis(1_500);

/// Of the time to stop, what is kept for everything behind the gateway, unless a third of it is less:
/// agents, cells and links come to their end in a few seconds, however long requests may take.
pub(crate) const STOP_BEHIND: Duration = Duration::from_secs(10);

/// Bytes that `run` reads as the text to send: what the gateway takes too.
pub(crate) const RUN_TEXT_BYTES: u64 = 4 * 1024 * 1024;

/// Time that a `run` which is interrupted gives its task to be cancelled.
pub(crate) const RUN_STOP: Duration = Duration::from_secs(2);

/// Links of an error's chain that are printed.
pub(crate) const ERROR_CHAIN: usize = 16;

/// Bytes of a key file that are read: keys of this kind have a few hundred.
pub(crate) const CARD_KEY_BYTES: u64 = 64 * 1024;

/// Bytes of a file with one secret: tokens have some hundred.
pub(crate) const SECRET_BYTES: u64 = 64 * 1024;

/// Time for MCP servers to say what they have before `neuroflow tools` lists without them.
pub(crate) const TOOLS_WAIT: Duration = Duration::from_secs(45);

/// Pause between two looks at what MCP servers have said.
pub(crate) const TOOLS_PAUSE: Duration = Duration::from_millis(100);
