//! Every bound of links between nodes, with its reason.

use std::time::Duration;

/// Bytes of one message between nodes: as much as a lane's byte credit, so that no single message
/// can hold more memory at the receiver than its peer was granted.
pub const MAX_MESSAGE_BYTES: usize = 32 * 1024 * 1024;

/// Archives above this travel on a stream of their own. Below it the copy into a shared buffer is
/// cheaper than opening a stream; above it one message would hold up the many behind it.
pub const SMALL_MESSAGE_BYTES: usize = 32 * 1024;

/// Long-lived streams that small messages share. A lost packet holds up its own lane only; with more
/// of them less is coalesced.
pub const LANES: u8 = 2;

/// Requests that a peer may have sent on one lane and that no mailbox has taken yet.
pub const LANE_CREDIT_MESSAGES: u64 = 4_096;

/// Bytes of such requests.
pub const LANE_CREDIT_BYTES: u64 = 32 * 1024 * 1024;

/// Messages that wait on one lane for actors without room before the peer is asked to send no more to those that most
/// wait for: a quarter of the lane's credit, so that those for others have the rest.
pub const WAITING_MESSAGES: u64 = LANE_CREDIT_MESSAGES / 4;

/// Bytes of such messages: a quarter as well.
pub const WAITING_BYTES: u64 = LANE_CREDIT_BYTES / 4;

/// Messages of one lane for which the peer has its credit back though they wait: for actors that it was asked to
/// send no more to. What was under way then is as much as the lane's credit, for each of some such actors.
pub const HELD_MESSAGES: usize = 65_536;

/// Bytes of such messages: what a peer that heeds nothing makes a lane hold beyond its credit.
pub const HELD_BYTES: usize = 64 * 1024 * 1024;

/// Actors of a peer that a lane knows to have no room: no more names than a peer may fill with that.
pub const HELD_NAMES: usize = 16_384;

/// Requests of one lane that wait for their answers: what a peer that never answers may hold here.
pub const LANE_CALLS: usize = 65_536;

/// Watches that have places beside those, so that whoever has many calls still hears of ends.
pub const WATCH_PLACES: usize = 1_024;

/// Messages of a lane's credit that are kept for watches: as many as somebody asks for at once. They are taken as soon
/// as they arrive, and their credit comes back.
pub const WATCH_CREDIT_MESSAGES: u64 = 64;

/// Bytes of that credit: so many watches, and what the last of other messages may be above the count of bytes.
pub const WATCH_CREDIT_BYTES: u64 = 96 * 1024;

/// How long a sender waits for one of those to end before it looks again: what it sends may need no answer, and
/// so no place among them.
pub const CALLS_PAUSE: Duration = Duration::from_millis(5);

/// Replies to one request that the caller hasn't taken yet: as many as a local reply stream holds.
pub const REPLY_CREDIT_MESSAGES: u64 = 64;

/// Bytes of such replies; one larger reply may pass when there is no other.
pub const REPLY_CREDIT_BYTES: u64 = 4 * 1024 * 1024;

/// Bytes that may wait to be written to a lane before replies are no longer asked for.
pub const LANE_HIGH_WATER_BYTES: usize = 1024 * 1024;

/// Bytes that may wait to be written to a lane at all: a peer that makes us answer and never reads
/// loses its link.
pub const LANE_LIMIT_BYTES: usize = 64 * 1024 * 1024;

/// Bytes of messages that are handed to a lane's stream before it's asked again what is urgent.
pub const WRITE_STEP_BYTES: usize = 64 * 1024;

/// Bytes of what overtakes messages before these get their turn: some hundred cancellations.
pub const URGENT_STEP_BYTES: usize = 16 * 1024;

/// Cancellations that a lane remembers of requests that haven't arrived: large ones, which have streams of
/// their own. As many as a peer may have under way, and those whose answer crossed the cancellation.
pub const EARLY_CANCELS: usize = 1_024;

/// Large messages that a link sends at once: with more of them each only comes later, and what has arrived of those
/// that find no room would hold up all. A peer may open [`GOSSIP_STREAMS`] more, so that what nodes say of themselves
/// waits for no large message.
pub const LARGE_STREAMS: u32 = 8;

/// Streams with one frame each that a peer may have open.
pub const LONE_STREAMS: u32 = LARGE_STREAMS + GOSSIP_STREAMS;

/// KiB of large messages that one link assembles at a time; what more comes waits in the peer.
pub const LARGE_KIB: u32 = 64 * 1024;

/// Archives above this aren't copied into the buffer that a lane's frames share, but queued as they
/// are: a buffer of its own costs about as much as copying this.
pub const COPY_BYTES: usize = 2 * 1024;

/// Turns of a lane's work before others get theirs.
pub const LANE_TURNS: usize = 32;

/// Frames that have come on a lane after which others get their turn, however few bytes they have: about a
/// millisecond of small ones.
pub const LANE_FRAMES: usize = 4_096;

/// Bytes that are read from a lane before others get their turn.
pub const READ_CHUNK_BYTES: usize = 256 * 1024;

/// How often calls whose caller has gone or whose deadline has passed are looked for. As late may a
/// cancellation leave; the alternative is a future per call, which costs more than the call's frame.
pub const SWEEP_INTERVAL: Duration = Duration::from_millis(5);

/// Time that the handshake of a new connection may take, TLS included.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);

/// A link on which nothing has arrived for so long is lost. Also how long the death of a machine goes
/// unnoticed; keep-alives are sent four times as often.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// How long what other nodes have asked may go on when a node stops, unless it's told otherwise: more than most
/// calls take, and less than whoever stops it is likely to wait.
pub const LEAVE: Duration = Duration::from_secs(5);

/// Time that a node has for its farewells after that: the links' actors end, and the last packets get out.
pub const FAREWELL: Duration = Duration::from_secs(2);

/// The first wait before a lost link is dialled again.
pub const REDIAL_MIN: Duration = Duration::from_millis(50);

/// The longest wait before a lost link is dialled again.
pub const REDIAL_MAX: Duration = Duration::from_secs(5);

/// How long after its last end an actor of the links has lived well enough for its restarts to be counted anew:
/// a few of the longest waits.
pub const REVIVAL_CALM: Duration = Duration::from_secs(30);

/// Largest packet that path discovery tries: four make a call to the system. What a packet costs, however
/// much is in it, is most of what bytes cost on a path that carries such packets: against 6 500, large messages
/// are half as fast again. With larger ones a small message waits longer than needed behind a large one.
pub const MAX_PACKET_BYTES: u16 = 16_000;

/// Bytes of packets that are given to the system in one call: no more than a datagram may have, headers
/// included.
pub const SEND_CALL_BYTES: usize = 65_000;

/// Bytes of packets that the system gives in one piece: as many as a datagram may have.
pub const RECEIVE_CALL_BYTES: usize = 65_536;

/// Bytes that may be in flight however long they take: four of the largest packets. While the receiver runs on
/// another core and sleeps in between, a round trip of little takes longer than [`QUEUEING`] allows, and so
/// little is sent, and it sleeps again: with half as much a link can stay at a third of its speed.
pub const IN_FLIGHT_BYTES: u64 = 64 * 1024;

/// How much longer than on an idle path a round trip may take before less is sent: what a small
/// message waits behind a large one.
pub const QUEUEING: Duration = Duration::from_micros(100);

/// How long a path's best round trip is believed: it may have become another path. Then little is sent
/// for a round trip, so that the next one is seen without a queue.
pub const BEST_TRIP_LIFE: Duration = Duration::from_mins(1);

/// Bytes per connection that were written and not acknowledged. As much as the peer lets us write, so
/// that what large messages have written never keeps a lane from writing; how much of it is in
/// flight, the congestion window says. Archives are held by reference.
pub const SEND_WINDOW_BYTES: u64 = CONNECTION_WINDOW_BYTES as u64;

/// Bytes that a peer may send on one stream before they are read.
pub const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// Bytes that a peer may send on one connection before they are read: as much as on all its streams,
/// so that large messages that wait for room never use up what the lanes need.
pub const CONNECTION_WINDOW_BYTES: u32 = STREAM_WINDOW_BYTES * (LONE_STREAMS + LANES as u32);

/// Bytes that the system holds for the node's socket, each way, if it allows so many: what arrives
/// while others run. With the 208 KiB that it holds by itself, a burst on a fast path loses packets.
pub const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Peers that one node keeps links to: a full mesh of a few hundred nodes.
pub const MAX_PEERS: usize = 1_024;

/// Connections from strangers that may be in their handshake at once.
pub const MAX_HANDSHAKES: usize = 256;

/// Bytes of a stranger's datagrams that wait until it's decided whether it may shake hands: its first flight, some
/// certificates included.
pub const STRANGER_BYTES: u64 = 16 * 1024;

/// Bytes of all such datagrams.
pub const STRANGERS_BYTES: u64 = STRANGER_BYTES * MAX_HANDSHAKES as u64;

/// Keyed calls of one peer that a node knows: those that run, and those that have run within
/// [`KEYED_TIME`]. A peer that makes more in that time waits, for to forget one would be to run it twice.
pub const KEYED_CALLS: usize = 16_384;

/// Keyed calls of this node to `agent://*/<name>` whose node is remembered, for as long as that one knows them: as many
/// as four nodes know, some 100 a second. One that makes more waits.
pub const PINNED_CALLS: usize = 4 * KEYED_CALLS;

/// How often remembered ones that are past their time are looked for, once there is no room: all are looked at.
pub const PINNED_SWEEP: Duration = Duration::from_secs(1);

/// Bytes of answers to one peer's keyed calls, of those that go on and of those that are kept for when it asks
/// again.
pub const KEYED_BYTES: usize = 32 * 1024 * 1024;

/// Bytes of the answer to one keyed call: as much as an ordinary message.
pub const KEYED_ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// Bytes that one reply to a keyed call counts at least: about what a kept one takes besides its content, so that
/// neither bound is of content alone.
pub const KEYED_REPLY_BYTES: usize = 128;

/// How long a node knows a keyed call after it ended: twice as long as a caller tries, so that a try
/// that is late on its way still finds it.
pub const KEYED_TIME: Duration = Duration::from_mins(10);

/// How long a caller tries a keyed call at most, whatever its deadline.
pub const KEYED_CALL_TIME: Duration = Duration::from_mins(5);

/// How often keyed calls that are past their time are looked for: a small part of that time.
pub const KEYED_SWEEP: Duration = Duration::from_secs(30);

/// The first wait before a keyed call is tried again: less than a link needs to come back.
pub const KEYED_RETRY_MIN: Duration = Duration::from_millis(20);

/// The longest wait before a keyed call is tried again.
pub const KEYED_RETRY_MAX: Duration = Duration::from_secs(1);

/// Blocks of a capability: a first one and those derived from it. One grant of the kernel each, which
/// allows 8 from an owner's address.
pub const CAPABILITY_BLOCKS: usize = 6;

/// Bytes of a capability: six blocks with the largest keys have less than half of it.
pub const CAPABILITY_TOKEN_BYTES: usize = 8 * 1024;

/// How long a capability may be valid: as long its issuer has to count its uses.
pub const CAPABILITY_LIFE: Duration = Duration::from_hours(24 * 30);

/// Capabilities that a node has out, and derived ones that it took back.
pub const MAX_CAPABILITIES: usize = 65_536;

/// Derived capabilities, of one that a node has out, whose uses it counts.
pub const CAPABILITY_DERIVED: usize = 1_024;

/// Capabilities that one peer has presented.
pub const PEER_CAPABILITIES: usize = 4_096;

/// How soon a capability is shown again on a connection after a message with it was refused: what its issuer had no
/// room for, it may have room for by then, and to verify it takes more than to refuse a message.
pub const SHOW_PAUSE: Duration = Duration::from_secs(1);

/// Watches over this node's actors that one peer may hold: as many as it has actors that depend on
/// another, and no more than one lane's calls.
pub const PEER_WATCHES: usize = 16_384;

/// How soon a watch is asked for again that the peer had no room for: a part of the time in which the end of a machine
/// is noticed.
pub const WATCH_PAUSE: Duration = Duration::from_millis(500);

/// Time for the first reply to a request whose header carries no deadline: its place among the lane's
/// calls isn't held for ever by an actor that never looks at it. As long as a call waits.
pub const FIRST_REPLY_DEADLINE: Duration = neuroflow_kernel::limits::CALL_DEADLINE;

/// Names that a node may export.
pub const MAX_EXPORTS: usize = 65_536;

/// Kinds of messages that a name takes beside its first: each message is compared with all of them.
pub const MAX_KINDS_BESIDE: usize = 8;

/// How long a node's certificate is valid unless its maker says otherwise.
pub const CERTIFICATE_LIFE: Duration = Duration::from_hours(24 * 90);

/// How long a cluster's own certificate is valid.
pub const AUTHORITY_LIFE: Duration = Duration::from_hours(24 * 3_650);

/// How long an invitation is valid unless its maker says otherwise.
pub const INVITE_LIFE: Duration = Duration::from_mins(10);

/// Invitations that a node has out.
pub const MAX_INVITES: usize = 256;

/// Bytes of one message of a join: a few certificates.
pub const MAX_JOIN_BYTES: usize = 64 * 1024;

/// Time that a join may take: a handshake, three messages and a signature.
pub const JOIN_DEADLINE: Duration = Duration::from_secs(10);

/// Bytes of a certificate or key file that are read at most.
pub const MAX_PEM_BYTES: u64 = 64 * 1024;

/// Members that a node knows at once: as many as it may have links to.
pub const MAX_MEMBERS: usize = MAX_PEERS;

/// Nodes that a node has heard of and that have not proved themselves to it yet. What others say leads
/// to a dial, so this bounds how much a member can make us dial.
pub const MAX_HEARD: usize = 256;

/// Dials of nodes that were heard of, at a time.
pub const GOSSIP_DIALS: usize = 16;

/// Agents that a member may offer.
pub const MAX_OFFERS: usize = 256;

/// Skills of one offered agent.
pub const MAX_SKILLS: usize = 32;

/// Bytes of a skill's name.
pub const MAX_SKILL_BYTES: usize = 128;

/// Bytes of a member's record: all agents that it may offer, with a few short skills each.
pub const MAX_RECORD_BYTES: usize = 64 * 1024;

/// Bytes of one gossip packet: every member that may be there, as a newcomer is told of all at once.
/// What doesn't fit into a datagram goes on a stream of its own.
pub const MAX_GOSSIP_BYTES: usize = 128 * 1024;

/// Bytes of a message between members that carries a list of revoked nodes: its kind, and the longest list.
pub const MAX_LIST_BYTES: usize = MAX_REVOCATION_BYTES + 1;

/// How long a peer has to send the list of revoked nodes that it was asked for before another one is asked: some
/// round trips of a slow path. The same one isn't asked again before four times as long, so that who only says
/// that it has one keeps nobody from the list.
pub const LIST_PAUSE: Duration = Duration::from_secs(1);

/// Streams of gossip that one link reads at a time, and that a node sends at a time to one peer.
pub const GOSSIP_STREAMS: u32 = 4;

/// Messages of one link that the membership has and hasn't handled: several times what a peer says at once, and a
/// small part of the membership's mailbox.
pub const GOSSIP_PLACES: usize = 32;

/// Bytes of gossip datagrams that wait to be read or sent on a link; the oldest go first. Gossip
/// repeats itself.
pub const GOSSIP_BUFFER_BYTES: usize = 256 * 1024;

/// How often one peer makes a node go on as a later start of itself, of which it tells all others: less than
/// [`SUSPICION`], in which it has to object.
pub const OBJECTION_PAUSE: Duration = Duration::from_secs(1);

/// How often a node asks another whether it lives.
pub const PROBE_PERIOD: Duration = Duration::from_millis(500);

/// How long it waits before it asks others to ask. Above the round trip of a network of one region.
pub const PROBE_RTT: Duration = Duration::from_millis(200);

/// How long a node is suspected before it counts as dead: time to object.
pub const SUSPICION: Duration = Duration::from_secs(2);

/// How often news of members are passed on, while there are any.
pub const GOSSIP_PERIOD: Duration = Duration::from_millis(200);

/// How often a node says what load it has, and which record of it is the newest.
pub const PULSE_PERIOD: Duration = Duration::from_secs(2);

/// How long a dead member is remembered: longer than any packet that still says it lives.
pub const FORGET_DEAD: Duration = Duration::from_mins(10);

/// How long a node that was heard of waits before it's dialled, at most: it's likely to dial us.
pub const HEARSAY_WAIT: Duration = Duration::from_millis(300);

/// How long a node that was heard of and didn't answer isn't dialled again.
pub const HEARSAY_PAUSE: Duration = Duration::from_secs(5);

/// Times that a node that was heard of is dialled before it's forgotten.
pub const HEARSAY_DIALS: u32 = 5;

/// Nodes on a revocation list.
pub const MAX_REVOKED: usize = 4_096;

/// Bytes of a file that holds one.
pub const MAX_REVOCATION_BYTES: usize = MAX_REVOKED * 80 + 1_024;

/// How often the file of revoked nodes is looked at: who is shut out is to be so soon.
pub const REVOCATIONS_PAUSE: Duration = Duration::from_secs(1);

/// How often the file of the node's own certificate is looked at: often enough for who has just renewed it to see
/// that it's presented.
pub const CERTIFICATE_PAUSE: Duration = Duration::from_secs(1);

/// Addresses that a seed's name may lead to, and service records of one name that are heeded: one that answers
/// is enough.
pub const MAX_SEED_ADDRESSES: usize = 64;

/// How often a seed's name is looked up while the node has no link.
pub const SEED_PAUSE: Duration = Duration::from_secs(2);

/// The longest wait before a seed is looked up and dialled again while the node has links; jitter takes away up to half.
/// For so long nodes stay apart that began in groups which didn't find each other. Fifty nodes with one name look it up 70
/// times a minute, all together, and each of them dials what it stands for and no link leads to: itself, and who is gone.
pub const SEED_ROUND: Duration = Duration::from_mins(1);

/// How often it's looked in between whether a seed's links are lost, or the last one of all.
pub const SEED_LOOK: Duration = Duration::from_secs(1);

/// Time that a look-up of a seed's name may take, with those that a service record leads to.
pub const SEED_DEADLINE: Duration = Duration::from_secs(5);

/// Time that a name server has for one answer, if the system gives it more: the next one is asked while there is
/// time left of the look-up's.
pub const SEED_TRY: Duration = Duration::from_secs(2);
