//! Every bound of the servers, with its reason.

use std::time::Duration;

/// Tasks of one agent that may run at once. Past it a request is refused as overloaded, because a
/// task that waits for a place looks to its client like one that hangs.
pub const LIVE_TASKS: usize = 1_024;

/// Ended tasks of one agent that can still be asked for.
pub const KEPT_TASKS: usize = 10_000;

/// Bytes of the events of one agent's ended tasks that are kept.
pub const KEPT_TASK_BYTES: usize = 64 * 1024 * 1024;

/// Events of one task. An agent that says more than this is at fault.
pub const TASK_EVENTS: usize = 10_000;

/// Bytes of one task's events.
pub const TASK_BYTES: usize = 32 * 1024 * 1024;

/// Clients that may follow one task at once.
pub const TASK_FOLLOWERS: usize = 256;

/// Time that a task may take unless its agent says otherwise.
pub const TASK_DEADLINE: Duration = Duration::from_hours(1);

/// Time that a tool call may take unless its caller has less left.
pub const TOOL_DEADLINE: Duration = Duration::from_mins(5);

/// Tool calls that may run at once.
pub const LIVE_TOOL_CALLS: usize = 4_096;

/// Bytes of the arguments of one tool call.
pub const TOOL_ARGUMENT_BYTES: usize = 1024 * 1024;

/// Bytes of a program's output that the tool `exec` hands on, several times what a model can read.
/// An answer of the shell has them as text and once more as JSON, where one byte can become six,
/// and all of that must fit one message.
pub const EXEC_OUTPUT_BYTES: usize = 512 * 1024;

/// Bytes of the body of one HTTP request.
pub const BODY_BYTES: usize = 4 * 1024 * 1024;

/// Nesting of a JSON body; `serde_json` has the same bound, and this one names it.
pub const JSON_DEPTH: usize = 128;

/// Bytes of the head of one HTTP request.
pub const HEAD_BYTES: usize = 32 * 1024;

/// Connections that the gateway holds at once.
pub const CONNECTIONS: usize = 16_384;

/// Time that a client gets to send the head of a request.
pub const HEAD_DEADLINE: Duration = Duration::from_secs(10);

/// Time that a client gets to send the body of a request.
pub const BODY_DEADLINE: Duration = Duration::from_secs(30);

/// Time that a blocking `SendMessage` waits for the task to end before it answers with the task as
/// it is: below the time-outs of usual clients and proxies.
pub const BLOCKING_WAIT: Duration = Duration::from_secs(55);

/// Time that the gateway waits for an agent's answer about a task.
pub const AGENT_ANSWER: Duration = Duration::from_secs(5);

/// Bytes of an identifier that a client chooses.
pub const CLIENT_ID_BYTES: usize = 256;

/// Parts of one message or artifact.
pub const PARTS: usize = 1_024;

/// Time that a task waits for its client's next message, unless its agent says otherwise: people
/// sleep over an answer, but a question that nobody answers must not keep a place for ever.
pub const INPUT_WAIT: Duration = Duration::from_hours(24);

/// Messages to a task that it hasn't read: a client that talks on without an answer is refused.
pub const UNREAD_MESSAGES: usize = 16;

/// Events that may wait for the audit log's actor, and as many again for its writer: a burst of a few
/// seconds. Past it a decision waits until its deadline, and a note is counted as lost.
pub const AUDIT_QUEUE: usize = 4_096;

/// Records that are written, and synchronised, at once.
pub const AUDIT_BATCH: usize = 256;

/// Records that may follow the last signature of an audit log: what could be changed unseen by
/// whoever can write the file and stops the node.
pub const AUDIT_UNSIGNED_RECORDS: u64 = 512;

/// How long a record of an audit log may stay unsigned.
pub const AUDIT_SIGN_INTERVAL: Duration = Duration::from_secs(1);

/// How long a written record may stay out of the disk where each one isn't waited for.
pub const AUDIT_SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// Bytes of one file of an audit log, before the next one is begun: it's read whole when a node
/// starts, which takes a fraction of a second.
pub const AUDIT_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// Bytes of one line of an audit log: no event is near it.
pub const AUDIT_LINE_BYTES: usize = 16 * 1024;

/// Bytes of an identifier that an audit log keeps as it is; a longer one is kept as its digest.
pub const AUDIT_ID_BYTES: usize = 128;

/// Bytes of a key file: keys of this kind have a hundred.
pub const AUDIT_KEY_BYTES: u64 = 4 * 1024;
