//! Every bound of the servers, with its reason.
//!
//! Long, because who weighs one bound weighs it against the others: they stand in one place.

use std::time::Duration;

/// Tasks of one agent that may run at once. Past it a request is refused as overloaded, because a
/// task that waits for a place looks to its client like one that hangs. A caller who is known begins one while
/// it has fewer than are free, so that nobody takes them all.
pub const LIVE_TASKS: usize = 1_024;

/// Runs of a task, each begun after the end of a node, that bring nothing of the task's own before their node ends
/// too; after them it isn't run again. One may be bad luck and two an accident of the machine. From the third on the
/// task may well be what ends the node, and would do so at every start.
pub const TASK_RUNS: u32 = 3;

/// Time for which a task that has been run again for nothing is run while others like it wait: what ends a node with
/// its process mostly does so at once.
pub const TASK_TRIAL: Duration = Duration::from_secs(1);

/// Such tasks of a node that are tried one by one, each for up to [`TASK_TRIAL`]: those first that were begun last
/// before the node's end, for it's one of them most likely. Then as many may be tried at once as have been, so that
/// [`LIVE_TASKS`] run within half a minute.
pub const TASK_TRIALS_ALONE: usize = 16;

/// Bytes that the tasks of one agent which run may hold in memory: eight whole tasks, or 256 KiB for each that may
/// run. Past it what clients say is refused as overloaded, and what agents say is bounded by [`TASK_BYTES`] alone. A
/// caller who is known may add while its own tasks hold less than is free, so that nobody takes it all.
pub const LIVE_BYTES: usize = 256 * 1024 * 1024;

/// Ended tasks of one agent that can still be asked for.
pub const KEPT_TASKS: usize = 10_000;

/// Bytes of the events of one agent's ended tasks that are kept.
pub const KEPT_TASK_BYTES: usize = 64 * 1024 * 1024;

/// Events of one task. An agent that says more than this is at fault.
pub const TASK_EVENTS: usize = 10_000;

/// Bytes of one task's events.
pub const TASK_BYTES: usize = 32 * 1024 * 1024;

/// Clients that may follow one task at once: as many as a proxy that carries everybody has connections to the gateway.
pub const TASK_FOLLOWERS: usize = 16_384;

/// Time that a task may take unless its agent says otherwise.
pub const TASK_DEADLINE: Duration = Duration::from_hours(1);

/// Time that a tool call may take unless its caller has less left.
pub const TOOL_DEADLINE: Duration = Duration::from_mins(5);

/// Tool calls that may run at once.
pub const LIVE_TOOL_CALLS: usize = 4_096;

/// Bytes of the arguments of one tool call.
pub const TOOL_ARGUMENT_BYTES: usize = 1024 * 1024;

/// Restarts of tool sources within [`SOURCE_RESTARTS_WITHIN`] before they are given up: more than the
/// longest wait leaves room for, so never.
pub const SOURCE_RESTARTS: u32 = 10_000;

/// What restarts of tool sources are counted over: the wait before the next doubles for each.
pub const SOURCE_RESTARTS_WITHIN: Duration = Duration::from_mins(5);

/// Wait before the first restart of a tool source.
pub const SOURCE_RESTART_FIRST: Duration = Duration::from_millis(250);

/// Longest wait before a restart of a tool source: what an operator who has repaired it will wait.
pub const SOURCE_RESTART_MAX: Duration = Duration::from_secs(30);

/// Bytes of one message of an MCP server: a tool's result with an image in it, base64.
pub const MCP_MESSAGE_BYTES: usize = 4 * 1024 * 1024;

/// Bytes of the result of one call of an MCP tool, as JSON: it has to fit one message of ours, and a
/// model reads far less.
pub const MCP_RESULT_BYTES: usize = 1024 * 1024;

/// Lines of a stdio MCP server that aren't messages. Some print a greeting; one that goes on doesn't
/// speak the protocol.
pub const MCP_JUNK_LINES: u32 = 100;

/// Bytes of the last that a stdio MCP server has said on standard error, which its end is told with: the message
/// of a program that fails, with some of the lines that led to it.
pub const MCP_LAST_WORDS_BYTES: usize = 1024;

/// Messages of a stdio MCP server that may come at once; progress comes in bursts.
pub const MCP_BURST: u32 = 10_000;

/// Messages per second of a stdio MCP server, over time.
pub const MCP_MESSAGES_PER_SECOND: u32 = 1_000;

/// Bytes between an MCP server in a cell and its client that neither has taken yet.
pub const MCP_PIPE_BYTES: usize = 64 * 1024;

/// Tools of one MCP server; no model can choose among more.
pub const MCP_TOOLS: usize = 512;

/// Pages of one list of an MCP server's tools.
pub const MCP_PAGES: usize = 64;

/// Bytes of the description of one MCP tool; the rest is cut.
pub const MCP_DESCRIPTION_BYTES: usize = 8 * 1024;

/// Bytes of the argument schema of one MCP tool.
pub const MCP_SCHEMA_BYTES: usize = 64 * 1024;

/// Bytes of the argument schemas of all tools of one source: four times what the largest servers have.
pub const SOURCE_SCHEMA_BYTES: usize = 2 * 1024 * 1024;

/// Different regular expressions in the schemas of one source. Each is [`SCHEMA_PATTERN_BYTES`] at most,
/// so all of them take 64 MiB at most.
pub const SOURCE_PATTERNS: usize = 128;

/// Bytes of one compiled regular expression of a source's schema: `^https://.{1,250}$` has room, and
/// `\p{L}{200}` hasn't.
pub const SCHEMA_PATTERN_BYTES: usize = 512 * 1024;

/// Schemas, words of lists and patterns that a source's schema may have looked at for one value, with
/// references followed: ten times what the largest published ones have.
pub const SCHEMA_STEPS: u64 = 10_000;

/// Schemas within schemas that a check by a source's schema may be in: each takes stack.
pub const SCHEMA_DEPTH: u64 = 256;

/// Levels of arguments: as deep as JSON is read.
pub const SCHEMA_LEVELS: usize = 129;

/// Bytes of the pointer to a schema that others refer to by the name it gives itself: each such reference becomes
/// as long.
pub const SCHEMA_POINTER_BYTES: usize = 256;

/// Steps that it may take to find out what a source's schema takes: a few hundredths of a second.
pub const SCHEMA_READING: usize = 1_000_000;

/// Steps of one check of arguments by a source's schema: a second.
pub const SCHEMA_WORK: u64 = 20_000_000;

/// Steps up to which such a check says what doesn't fit. To say it can take some hundred bytes a step.
pub const SCHEMA_DETAIL: u64 = 50_000;

/// Calls of one MCP server that may run at once.
pub const MCP_CALLS: usize = 64;

/// Time for an MCP server to start and say what it has, unless its configuration says otherwise: an
/// interpreter's start with a package's imports.
pub const MCP_START: Duration = Duration::from_secs(30);

/// Time for one call of an MCP tool, unless its configuration says otherwise.
pub const MCP_CALL: Duration = Duration::from_mins(1);

/// Wait before the tools of an MCP server are listed again after a change, so that many changes are
/// one list.
pub const MCP_RELIST_PAUSE: Duration = Duration::from_millis(500);

/// Longest such wait, where a server ends what it was asked to tell changes by again and again.
pub const MCP_RELIST_MAX: Duration = Duration::from_mins(1);

/// Messages to an MCP server that it hasn't taken, up to which it's listened to: its calls at once, each
/// with its cancellation.
pub const MCP_UNSENT: usize = 2 * MCP_CALLS;

/// Bytes of the answers among them: one of the largest, because an answer repeats the id that was asked
/// with.
pub const MCP_UNSENT_BYTES: usize = MCP_MESSAGE_BYTES;

/// How much longer than a call may take a message to an MCP server may wait to be taken, before its session
/// ends: a call that is late is given up first.
pub const MCP_UNSENT_GRACE: Duration = Duration::from_secs(2);

/// Time for an MCP server that has let a call time out, and said nothing meanwhile, to answer a ping: one that is
/// there does so at once, and one that is busy with what nobody waits for any more has had the time of the call.
pub const MCP_PING: Duration = Duration::from_secs(5);

/// Sessions of MCP clients of the earlier version at once; each has a task and some queues.
pub const MCP_SESSIONS: usize = 1_024;

/// Such sessions of one principal: a client has one, and nobody has more clients than that at a time
/// but those whose sessions were left behind. So sixteen principals at least have room.
pub const MCP_PRINCIPAL_SESSIONS: usize = 64;

/// Wait for a call of an MCP client that knows tasks, before it's answered with one: most answers come
/// earlier, and need no second request then.
pub const MCP_TASK_AFTER: Duration = Duration::from_secs(2);

/// How often who calls a tool hears of its progress, at most: as often as somebody who waits looks.
pub const TOOL_PROGRESS: Duration = Duration::from_secs(1);

/// Bytes of the line of a program's output that progress shows: a wide terminal's.
pub const PROGRESS_LINE_BYTES: usize = 256;

/// How often an MCP client that wants progress hears that its program runs on: often enough for the usual
/// time-outs of clients, which progress puts off, and seldom enough to cost nothing.
pub const MCP_STILL_AT_IT: Duration = Duration::from_secs(2);

/// Rounds of one call of an MCP tool that asks back: more than any dialogue with nobody needs.
pub const MCP_ROUNDS: usize = 8;

/// How often an MCP client is told to ask for a task.
pub const MCP_POLL: Duration = Duration::from_secs(1);

/// Time for one request to an authorization server.
pub const OAUTH_REQUEST: Duration = Duration::from_secs(10);

/// Time for a token without a person: some look-ups of where to ask, and the asking.
pub const OAUTH_DEADLINE: Duration = Duration::from_secs(30);

/// Time for a token with a person, who reads, thinks and looks for a password.
pub const CONSENT_DEADLINE: Duration = Duration::from_mins(10);

/// Bytes of an authorization server's answer; the largest is its description.
pub const OAUTH_BYTES: usize = 256 * 1024;

/// Bytes of the file of a kept refresh token: tokens that are documents by themselves have some KiB.
pub const KEPT_TOKEN_BYTES: u64 = 64 * 1024;

/// How often one request to an MCP server gets another token: one that is refreshed, one from the
/// beginning, and one with more scopes.
pub const OAUTH_RENEWALS: u32 = 3;

/// How long a client's assertion is good: it's used at once, and clocks differ.
pub const ASSERTION_LIFE: Duration = Duration::from_mins(5);

/// Time for an MCP server over HTTP to take a connection and answer with a head; what follows has
/// the deadline of the call.
pub const MCP_HTTP_HEAD: Duration = Duration::from_secs(30);

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

/// Connections that the gateway holds at once. An address, of IPv6 its network of 64 bits, has one more while it has
/// fewer than are free, so that nobody takes them all; half of them are for a proxy that carries everybody. There are fewer
/// if the process may not open as many files.
pub const CONNECTIONS: usize = 32_768;

/// The part of the files that the process may have open which connections leave to the journal, cells, links and
/// whatever agents open: one of so many.
pub const DESCRIPTORS_KEPT: usize = 4;

/// Wait after a connection couldn't be accepted, for lack of descriptors as a rule: trying at once
/// would only keep a processor busy and fill the log.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Time that a client gets to send the head of a request, the next one of a connection too.
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

/// Time that a decision about a request may wait for the audit log.
pub const AUDIT_WAIT: Duration = Duration::from_secs(5);

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

/// Refusals of one peer that the audit log has one by one, and the other log too, before [`REFUSALS_COUNTED`] is over: enough to
/// see what somebody tried.
pub const LISTED_REFUSALS: u64 = 5;

/// How often the logs are told how many more there were.
pub const REFUSALS_COUNTED: Duration = Duration::from_mins(1);

/// Peers whose refusals are told apart meanwhile: with what is recorded of each, some 2 MiB a minute at
/// the very most.
pub const REFUSED_PEERS: usize = 1_024;

/// How often the files of an audit log are listed to verify it while its node begins new ones: it takes a node
/// seconds to fill a file, and a moment to list them.
pub const AUDIT_LISTINGS: usize = 16;

/// Bytes of one line of an audit log: no event is near it.
pub const AUDIT_LINE_BYTES: usize = 16 * 1024;

/// Bytes of an identifier that an audit log keeps as it is; a longer one is kept as its digest.
pub const AUDIT_ID_BYTES: usize = 128;

/// Bytes of a key file: keys of this kind have a hundred.
pub const AUDIT_KEY_BYTES: u64 = 4 * 1024;

// Access.

/// Bytes of a file of tokens, policies, keys or certificates: ten times what the largest is likely to
/// have.
pub const ACCESS_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// Bearer tokens of one file: kept in memory, and more than anybody looks after by hand.
pub const TOKENS: usize = 10_000;

/// Groups of one principal that count: policies are evaluated over all of them.
pub const GROUPS: usize = 128;

/// Bytes of a bearer token: what fits an HTTP head together with everything else; issuers stay below
/// it because widespread servers refuse more.
pub const TOKEN_BYTES: usize = 16 * 1024;

/// Bytes of a group's name, a subject, or another text that an issuer chooses.
pub const CLAIM_BYTES: usize = 512;

/// How far an issuer's clock may be off from ours.
pub const CLOCK_SKEW: Duration = Duration::from_mins(1);

/// The longest life of a JWT that is believed: a stolen one is of use for as long.
pub const TOKEN_LIFE: Duration = Duration::from_hours(24);

/// Keys of one issuer: two while it changes them, and a few for several algorithms.
pub const ISSUER_KEYS: usize = 64;

/// Bytes of an issuer's answer.
pub const ISSUER_BYTES: usize = 512 * 1024;

/// Time that an issuer gets for an answer.
pub const ISSUER_DEADLINE: Duration = Duration::from_secs(10);

/// How often an issuer's keys are read again.
pub const ISSUER_REFRESH: Duration = Duration::from_hours(1);

/// Pause between two looks because of a key that isn't known: whoever invents key ids may cost the
/// issuer no more than this.
pub const UNKNOWN_KEY_PAUSE: Duration = Duration::from_secs(10);

/// First pause after an issuer didn't answer; doubled each time.
pub const ISSUER_BACKOFF: Duration = Duration::from_secs(1);

/// The longest pause after an issuer didn't answer.
pub const ISSUER_BACKOFF_MOST: Duration = Duration::from_mins(5);

/// Requests that wait for an issuer's keys at once; others are told that their key isn't known.
pub const KEY_WAITERS: usize = 256;

/// How often files of tokens, policies and certificates are looked at.
pub const FILE_POLL: Duration = Duration::from_secs(2);

/// How often an open connection looks at the end of its client's certificate, and a stream at that of its
/// credential: seldom enough to cost nothing, and often enough to notice that the wall clock was set.
pub const CREDENTIAL_LOOK: Duration = Duration::from_mins(1);

/// Time that the answer to an MCP call gets to say that its credential has ended, before its stream is
/// closed: it's said at once, and a client that reads slowly should hear of it too.
pub const LAST_WORD: Duration = Duration::from_secs(2);

/// Time that answers get on a connection whose client's certificate has ended.
pub const EXPIRED_CONNECTION: Duration = Duration::from_secs(30);

/// Principals whose rates are kept apart; with more of them at once, all share one allowance.
pub const LIMITED_PRINCIPALS: usize = 10_000;

/// Capabilities for callers that are kept, so that not every request is judged anew.
pub const CALLER_GRANTS: usize = 10_000;

/// JWTs that are remembered as checked.
pub const VERIFIED_TOKENS: usize = 10_000;

/// Media types that a client may say it takes.
pub const OUTPUT_MODES: usize = 64;

/// Tasks on a page of a list unless the client says otherwise; A2A has this default.
pub const LIST_PAGE: usize = 50;

/// Tasks that a client may ask for at once; A2A has this bound.
pub const LIST_PAGE_LONGEST: usize = 100;

/// Bytes of the events of a page's tasks: past it the page ends early, so that a hundred large tasks
/// aren't in memory at once. One task fits, however large.
pub const LIST_BYTES: usize = 4 * 1024 * 1024;

/// Bytes of tasks' events in the answers of a gateway that aren't sent yet: eight whole tasks. Past it who asks for
/// another is refused as overloaded; a caller who is known gets one while its own hold less than is free. Written as
/// JSON they may be six times as long, if they are all control characters.
pub const UNSENT_BYTES: usize = 256 * 1024 * 1024;

/// Bytes that don't count: as many as an answer's socket buffers anyhow.
pub const UNSENT_SMALL: usize = 16 * 1024;

/// Reads of one agent's tasks by a gateway that may be under way at once, each with a whole task in it or a page of
/// them. The others wait for their turn: a read takes a fraction of a millisecond.
pub const TASK_READS: usize = 16;

/// Time after which a stream without an event says that it lives: below the time-outs of usual
/// proxies.
pub const STREAM_KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Extensions that a client may name.
pub const CLIENT_EXTENSIONS: usize = 64;

/// Seconds that a client may use a card without asking again.
pub const CARD_AGE_SECONDS: u32 = 300;

/// Streams that one connection of HTTP/2 may have open: as many as usual servers allow.
pub const CONNECTION_STREAMS: u32 = 256;

/// Pause between two looks at a connection on which a part of HTTP/2's preface has come.
pub const PREFACE_PAUSE: Duration = Duration::from_millis(2);

/// Time that an append to the journal may take: that of any call, so that a caller with a deadline
/// of its own isn't surprised.
pub const JOURNAL_DEADLINE: Duration = neuroflow_kernel::limits::CALL_DEADLINE;

/// Appends that may wait for the disk. With as many tasks at a time as an agent may have, each
/// waits once; past it the disk is too slow for what is asked of it.
pub const JOURNAL_QUEUE: usize = 8_192;

/// Appends of one commit. Past a few hundred the cost of a flush is shared well enough.
pub const JOURNAL_BATCH: usize = 2_048;

/// Calls to the journal that an agent may have under way, each with all that its tasks have by then.
/// One is enough while the journal answers; where an answer stays out, the others aren't held up.
pub const JOURNAL_CALLS: usize = 16;

/// A disk whose commits take no longer than this on average is quick, and may be waited for where one
/// stands: the way to another thread and back takes as long.
pub const JOURNAL_QUICK: Duration = Duration::from_micros(50);

/// What one commit counts at most in that average: an interruption by another program ends a quick pace for
/// some commits only, and a disk that is slow throughout is known by a few.
pub const JOURNAL_SLOW: Duration = Duration::from_millis(1);

/// Commits that the average goes back, about.
pub const JOURNAL_PACE_COMMITS: u32 = 16;

/// Bytes that a quick disk takes in that time: more of them aren't waited for where one stands.
pub const JOURNAL_QUICK_BYTES: usize = 128 * 1024;

/// Bytes of one commit: what a disk takes in a few milliseconds.
pub const JOURNAL_BATCH_BYTES: usize = 8 * 1024 * 1024;

/// Bytes of the content of one entry: a message, and nothing larger.
pub const JOURNAL_RECORD_BYTES: usize = neuroflow_kernel::limits::MESSAGE_BYTES;

/// Bytes of the result of an effect, as JSON: what an entry of the journal has, but for the frame around it.
pub const EFFECT_BYTES: usize = JOURNAL_RECORD_BYTES - 1024;

/// Tool calls that a task's log has, as many as events. Those behind them are made, and not noted: an agent that asks
/// a tool once a second for days is at no fault.
pub const TASK_CALLS: usize = 10_000;

/// Bytes that a task's log has of its tool calls, as many as of its events. Of what comes behind them it has digests.
pub const TASK_CALL_BYTES: usize = TASK_BYTES;

/// Bytes of a tool call's arguments that its task's log has. They are there for people, who don't read more; a call is
/// known again by the digest of all of them.
pub const CALL_ARGUMENT_BYTES: usize = 16 * 1024;

/// The same of its result, if the task can't be run again. Else nothing can be left out, up to [`EFFECT_BYTES`].
pub const CALL_RESULT_BYTES: usize = 16 * 1024;

/// The same of why it has failed.
pub const CALL_MESSAGE_BYTES: usize = 1024;

/// Bytes of a tool's name in the log: more than a tool can have whose name is a
/// [`Name`](neuroflow_kernel::Name), so that only what is no tool is cut.
pub const CALL_NAME_BYTES: usize = 256;

/// Bytes of noted calls that wait for what their task says next, in order to share its flush: little for each of
/// [`LIVE_TASKS`].
pub const CALLS_UNSENT_BYTES: usize = 64 * 1024;

/// Bytes of the entries of one append: as much as a whole task may have, with a KiB for each call besides its contents.
pub const JOURNAL_APPEND_BYTES: usize =
    TASK_BYTES + TASK_CALL_BYTES + TASK_CALLS * 1024 + JOURNAL_RECORD_BYTES;

/// Bytes of an id or key in the journal.
pub const JOURNAL_NAME_BYTES: usize = 512;

/// Time after which the journal has answered about an effect's result, or never will: it goes behind what its task
/// has under way, and each of the two may take as long as an append may, as may the agent's own actor.
pub const EFFECT_SETTLED: Duration = JOURNAL_DEADLINE.saturating_mul(3);

/// Time until a task that the journal didn't take something of is looked at again.
pub const JOURNAL_RETRY: Duration = Duration::from_secs(1);

/// Time after which what the journal hasn't answered isn't on its way any more: a commit that has
/// begun while its caller still waited may go on for as long again.
pub const JOURNAL_SETTLED: Duration = JOURNAL_DEADLINE.saturating_mul(2);

/// Pause between two looks whether a journal or audit log that takes nothing takes something again: a
/// node that isn't asked for anything meanwhile is ready again within this time.
pub const TROUBLE_LOOK: Duration = Duration::from_secs(2);

/// Pause between two looks whether a journal's database is still there, while nothing else shows it: with
/// two [`DATABASE_DEADLINE`]s, a node stays ready for that long without one.
pub const QUIET_LOOK: Duration = Duration::from_secs(5);

/// Bytes that a look at a disk tries to write: more than most requests and their answers have.
pub const PROBE_BYTES: usize = 64 * 1024;

/// Tasks on one page of a list.
pub const JOURNAL_PAGE: usize = 1_000;

/// Bytes of its disk that a journal keeps for making room where a full disk has none: marks that some two thousand tasks
/// are removed, or a copy of what lies in an old segment and is needed, and hardly anything of the disk.
pub const RESERVE_BYTES: usize = 256 * 1024;

/// Bytes of one segment of the journal. The oldest is removed as a whole, so it should be small
/// against all of them; each has an open file, so there should be few.
pub const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// Findings of damage that are kept in memory; all of them are logged.
pub const JOURNAL_DAMAGE: usize = 1_024;

/// Tasks that are copied out of an old segment before others get their turn.
pub const JOURNAL_MOVED_TASKS: usize = 256;

/// Time between two looks at what may be removed.
pub const RETENTION_SWEEP: Duration = Duration::from_secs(30);

/// Tasks that one look removes before others get their turn.
pub const RETENTION_STEP: usize = 2_048;

/// Entries that one statement removes from a database, unless a single task has more: some 100 ms of the
/// [`DATABASE_DEADLINE`] on a server without a load.
pub const RETENTION_ENTRIES: u64 = 20_000;

/// Connections to the journal's database: one that writes, the others read.
pub const DATABASE_CONNECTIONS: u32 = 8;

/// Time that one statement, or connecting, may take.
pub const DATABASE_DEADLINE: Duration = Duration::from_secs(5);

/// Time for the tables and their indexes at a start: an index that an earlier build didn't make is built
/// over all tasks that are there, some millions of them.
pub const DATABASE_PREPARE: Duration = Duration::from_mins(5);

/// The longest wait before connecting to a database again.
pub const DATABASE_BACKOFF: Duration = Duration::from_secs(2);

/// Push notification configurations that a principal has of one task: one for each system that has to know
/// of it.
pub const PUSH_CONFIGS: usize = 16;

/// Configurations of a node whose task goes on; each has an actor that follows it. A principal that is known
/// makes one while it has fewer than are free, so that nobody takes them all.
pub const PUSH_DELIVERIES: usize = 10_000;

/// Notifications that a node posts at once: each has a connection, and a process often has no more than 1 024
/// descriptors for all it does. At a tenth of a second each that is 2 500 in a second.
pub const PUSH_POSTS: usize = 256;

/// Bytes of a webhook's URL, as much as servers take.
pub const PUSH_URL_BYTES: usize = 2_048;

/// Bytes of a webhook's token, or of its credentials: what fits into a header that servers take.
pub const PUSH_SECRET_BYTES: usize = 4_096;

/// Time that a webhook gets for one notification, connection and handshake included. A2A asks for ten
/// to thirty seconds.
pub const PUSH_TIMEOUT: Duration = Duration::from_secs(15);

/// Attempts at one notification.
pub const PUSH_ATTEMPTS: u32 = 10;

/// How long one notification is tried. A receiver that is away for longer reads the task when it's back.
pub const PUSH_AGE: Duration = Duration::from_mins(15);

/// Pauses between attempts: doubled from the first to the longest.
pub const PUSH_BACKOFF: neuroflow_kernel::Backoff =
    neuroflow_kernel::Backoff { first: Duration::from_millis(500), max: Duration::from_mins(2) };

/// Notifications in a row that a webhook may miss before it gets no more.
pub const PUSH_MISSED: u32 = 3;

/// Lives of a delivery's actor: one that panics on the same event again isn't started for ever.
pub const PUSH_LIVES: u32 = 3;

/// How long a configuration is kept on a node that doesn't have its agent: whoever has left that out by
/// mistake has put it back by then, and nobody else can end it.
pub const PUSH_ORPHANED: Duration = Duration::from_hours(1);

/// Pauses between looks at a task that runs on another node of the same database, for a stream of its updates:
/// short enough for who watches, and for a thousand streams 200 small questions to the database in a second.
pub const FOLLOW_BACKOFF: neuroflow_kernel::Backoff =
    neuroflow_kernel::Backoff { first: Duration::from_millis(250), max: Duration::from_secs(5) };

/// How often a record of a push configuration is tried to be kept while other nodes, which share the journal, are
/// quicker to write into the same log: each has one or two records to add, and few of them want to at once.
pub const PUSH_STORE_ATTEMPTS: u32 = 5;

/// How often a delivery looks for its task while the agent doesn't answer.
pub const PUSH_FOLLOW_ATTEMPTS: u32 = 20;

/// JSON values of one body. As many bytes as that a value takes, with its name, in usual data: a body of
/// [`BODY_BYTES`] has sixteen for each. One can do with four, and takes some 300 in memory while it's read.
pub const BODY_VALUES: usize = BODY_BYTES / 16;

/// Messages of one chat completion: a long conversation, which is bounded by the body anyway.
pub const CHAT_MESSAGES: usize = 2_048;

/// Tools that one chat completion may offer: what models take.
pub const CHAT_TOOLS: usize = 128;

/// How long a chat completion waits for its task, after which that is cancelled: as long as usual
/// clients wait.
pub const CHAT_WAIT: Duration = Duration::from_mins(10);

/// Tasks of clients that have gone away and that wait to be cancelled.
pub const ABANDONED_TASKS: usize = 1_024;

/// Bytes of a request's id that a client chooses.
pub const REQUEST_ID_BYTES: usize = 128;

/// Header lines of one request: browsers send about 20, proxies add a few.
pub const HEADER_LINES: usize = 100;

/// Streams of a connection that a client may have reset before they were taken up, and that were reset
/// for its errors: with more of them the connection ends, because opening and resetting costs it
/// nothing.
pub const RESET_STREAMS: usize = 20;

/// Time that a client gets to answer a ping.
pub const STREAM_KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(20);

/// Time that a client gets to take a part of what it's sent.
pub const WRITE_STALL: Duration = Duration::from_secs(30);

/// Bytes that an answer over HTTP/2 is given out in: a frame's, so that who takes one within
/// [`WRITE_STALL`] is known to read.
pub const STREAM_PIECE_BYTES: usize = 16 * 1024;

/// What a body gets beyond [`BODY_DEADLINE`] before its stream fails: whoever reads it gives up first,
/// with an answer.
pub const BODY_SLACK: Duration = Duration::from_secs(5);

/// What a body gets beyond [`BODY_BYTES`], for the same reason.
pub const BODY_SLACK_BYTES: usize = 64 * 1024;

/// How much of a request that is answered already is read, so that its connection can go on: a usual request. Of a
/// longer one it's cheaper to close.
pub const UNREAD_BYTES: usize = 64 * 1024;

/// How long that is waited for: what a client sends together is there after a round trip around the world.
pub const UNREAD_DEADLINE: Duration = Duration::from_millis(500);

/// Bytes of a client's own text that an error repeats: enough to find the place, and no way to have
/// megabytes sent back.
pub const SHOWN_BYTES: usize = 512;

/// Bytes of the key of a lease.
pub const LEASE_KEY_BYTES: usize = 100;

/// How long a lease lasts unless its maker says otherwise: so long nobody has what a lost node had, and five
/// times longer than a database usually needs to come back.
pub const LEASE_TERM: Duration = Duration::from_secs(15);

/// Conversations of a sharded agent that live on one node: each renews a lease three times per term.
pub const SOLE_KEPT: usize = 1_024;

/// How long an instance of a sharded agent without tasks is kept for the next request of its conversation.
pub const SOLE_IDLE: Duration = Duration::from_mins(10);

/// How long a request waits for this node to get a key, before it looks anew who has it.
pub const SOLE_LOOK: Duration = Duration::from_millis(500);

/// Requests for one agent that are on their way to its instances: half of the tasks that an actor may have.
pub const SOLE_ERRANDS: usize = 2_048;

/// Between tries to take a request to where the instance lives.
pub const SOLE_PAUSE: Duration = Duration::from_millis(100);

/// Instances that are asked at a time whether they are idle: few, as it's no hurry.
pub const SOLE_LOOKS: usize = 16;

/// Time that an instance gets to say how many tasks it has.
pub const SOLE_ANSWER: Duration = Duration::from_secs(1);

/// The shortest term of a lease: three renewals, a statement each, have to fit in.
pub const LEASE_TERM_MIN: Duration = Duration::from_secs(1);

/// The longest term of a lease: so long nobody has a key whose holder was lost.
pub const LEASE_TERM_MAX: Duration = Duration::from_hours(1);

/// Between tries to keep a lease while its database is away.
pub const LEASE_RETRY: Duration = Duration::from_millis(100);

/// Pauses before an instance that failed is tried again: the first is short, for most failures pass with the life;
/// the longest is less than a request waits for an instance.
pub const LEASE_BACKOFF: neuroflow_kernel::Backoff =
    neuroflow_kernel::Backoff { first: Duration::from_millis(100), max: Duration::from_secs(10) };

/// An instance that has failed after so long began well, and its next pause is the first one again: far longer than a
/// start may take, for one that fails at its end hasn't lived.
pub const LEASE_SETTLED: Duration = Duration::from_mins(1);

/// Connections to the database of the leases on which they are taken, as many on which they are given back, and as
/// many on which it's asked who has one: a statement that hangs leaves another.
pub const LEASE_CONNECTIONS: u32 = 2;

/// Those on which they are kept: as many conversations as may live here renew 205 times a second in a term of
/// [`LEASE_TERM`], which the four do with a database that takes 19 ms for each.
pub const LEASE_KEEPING: u32 = 4;

/// Orders of other nodes for tasks of one agent that are carried out at a time, those that follow for as long as
/// their tasks last: half of the background tasks that an actor may have.
pub const TASK_ORDERS: usize = 2_048;

/// Tries to reach the node that a proxied task is at, or is to be at, before it's given up; any answer begins the
/// count anew. With [`PROXY_PAUSES`] that's about six seconds: longer than a node needs to begin anew, or the
/// others to agree on its death.
pub const PROXY_TRIES: u32 = 8;

/// Pauses between them: doubled from the first to the longest.
pub const PROXY_PAUSES: neuroflow_kernel::Backoff = neuroflow_kernel::Backoff {
    first: Duration::from_millis(50),
    max: Duration::from_millis(1_600),
};

/// Times that a proxied task is begun again elsewhere after its node was lost, if its agent may be run again: more
/// deaths of nodes in one task are no accident.
pub const PROXY_AGAIN: u32 = 2;

/// How often a proxied task's client is listened to: what it says without being asked is as late.
pub const PROXY_LISTEN: Duration = Duration::from_secs(1);

/// Tries to cancel a proxied task at its node, with [`PROXY_PAUSES`] in between: about a minute, in which most
/// links come back. What isn't cancelled then ends by its own deadline.
pub const PROXY_CANCELS: u32 = 40;

/// Time that an agent which stops takes for what is left of its tasks, as cancelling them elsewhere: a good part of
/// what its supervisor gives it.
pub const REMAINS_TIME: Duration = Duration::from_secs(2);

/// Time that a node gets to answer an order for a task.
pub const PROXY_ANSWER: Duration = Duration::from_secs(5);
