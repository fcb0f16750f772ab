//! Every bound of the kernel, with its reason.

use std::time::Duration;

/// Messages that may wait in a mailbox unless its child spec says otherwise.
///
/// Large enough to absorb a burst, small enough that a stuck actor is noticed by its senders
/// (as `Overloaded`) within a few thousand messages.
pub const MAILBOX_CAPACITY: usize = 1_024;

/// Envelopes that an empty mailbox keeps room for: a burst must not leave its memory behind.
pub const IDLE_QUEUE_ROOM: usize = 64;

/// How long a sender waits whose header carries no deadline: for the answer to a call, and for room
/// otherwise. Everything that waits has an end.
pub const CALL_DEADLINE: Duration = Duration::from_secs(30);

/// How late a deadline may fire. One sweep serves every waiting call, so that a call doesn't pay
/// for a timer of its own.
pub const DEADLINE_RESOLUTION: Duration = Duration::from_millis(5);

/// How long the deadline sweep goes on ticking without work before it parks itself.
pub const SWEEP_LINGER: Duration = Duration::from_secs(1);

/// Items that may wait between a producer and a consumer of one reply stream.
pub const STREAM_CAPACITY: usize = 64;

/// Actors that a message may pass through before it's refused as a loop.
pub const MAX_HOPS: u8 = 32;

/// Grants that may be derived from one another, root to leaf: bounds the walk that every message
/// through a capability takes.
pub const MAX_GRANT_DEPTH: usize = 8;

/// Names in a path: deep enough for `/agents/<name>/task/<id>` below nested supervisors.
pub const MAX_PATH_DEPTH: usize = 16;

/// Bytes of one name.
pub const MAX_NAME_BYTES: usize = 128;

/// Time that an actor's `started` hook may take. A supervisor's takes as long as its children's together.
pub const START_DEADLINE: Duration = Duration::from_secs(10);

/// Time that a child gets to stop before it's killed, unless its spec says otherwise.
pub const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// Children of one actor or supervisor.
pub const MAX_CHILDREN: usize = 200_000;

/// Background tasks of one actor.
pub const MAX_TASKS: usize = 4_096;

/// Last messages remembered of an actor, for its post-mortem.
pub const TRAIL_LENGTH: usize = 8;

/// Post-mortems that a kernel keeps, newest first.
pub const POST_MORTEMS: usize = 64;

/// Bytes of a failing message that a post-mortem keeps. A longer archive is kept by its length only.
pub const POST_MORTEM_MESSAGE_BYTES: usize = 64 * 1024;

/// One message in so many has its waiting and handling time measured; all are counted.
///
/// Reading the clock three times costs more than delivering a message; a power of two, so that the
/// choice is a mask.
pub const TIMING_SAMPLE: u64 = 8;

/// Attributes of one span.
pub const MAX_SPAN_ATTRIBUTES: usize = 32;

/// Boxes, lists and texts inside one another in an archive from outside: checking one is recursive,
/// and hostile bytes must not choose how deep the stack grows.
pub const MAX_ARCHIVE_DEPTH: usize = 128;

/// Bytes that a buffer begins with into which a message is archived: an event of an agent is a few
/// hundred long, and a buffer that grows is copied each time.
pub const ARCHIVE_ROOM: usize = 384;

/// Bytes of a message archive unless its type says otherwise.
pub const MESSAGE_BYTES: usize = 4 * 1024 * 1024;
