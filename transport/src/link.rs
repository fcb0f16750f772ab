//! Links: the contract. A link is one connection to one peer, owned by the actor `/cluster/<peer>`.
//!
//! Requests don't pass through that actor: a sender writes its frame into the outbox of a lane and
//! wakes the lane's task, which reads and writes one stream of the connection. The actor takes over
//! connections, dials again when one is lost, and says how things stand.

pub(crate) mod connect;
pub(crate) mod gossip;
pub(crate) mod lane;
pub(crate) mod large;
pub(crate) mod outbox;
pub(crate) mod peer;
pub(crate) mod server;

mod served;
mod staged;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use neuroflow_kernel::{Message, Name};

use crate::frame::FrameError;
use crate::identity::NodeId;
use crate::session::Violation;
use crate::session::handshake::HelloError;

/// What a link's actor is told.
#[derive(Debug)]
pub(crate) enum LinkCommand {
    /// A connection whose handshake is done becomes the link.
    Take(Box<connect::Established>),
    /// The connection of this number is over.
    Lost(u64),
    /// A try to dial has failed; the next one follows.
    Redial,
}

impl Message for LinkCommand {
    fn name(&self) -> &'static str {
        match self {
            Self::Take(_) => "take",
            Self::Lost(_) => "lost",
            Self::Redial => "redial",
        }
    }
}

/// Whether a peer can be asked.
///
/// ```
/// assert_eq!(neuroflow_transport::LinkState::Up.as_str(), "up");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkState {
    /// It can.
    Up,
    /// It can't; it's being dialled.
    Down,
    /// It was shut out.
    Revoked,
}

impl LinkState {
    /// The state in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Revoked => "revoked",
        }
    }
}

/// How a link stands.
///
/// ```
/// fn slow(links: &neuroflow_transport::Links) -> usize {
///     let slow = std::time::Duration::from_millis(200);
///     links.status().iter().filter(|link| link.rtt.is_some_and(|rtt| rtt > slow)).count()
/// }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LinkStatus {
    /// The peer's id.
    pub node: NodeId,
    /// The peer's name.
    pub name: Name,
    /// Whether it can be asked.
    pub state: LinkState,
    /// Where it was reached last.
    pub address: SocketAddr,
    /// The protocol that both speak, while the link is up.
    pub protocol: Option<u16>,
    /// When the peer's certificate ends.
    pub certificate_expires: SystemTime,
    /// The peer's roles.
    pub roles: Vec<String>,
    /// The time of a round trip, while the link is up.
    pub rtt: Option<Duration>,
    /// Packets that were lost on this connection.
    pub lost_packets: u64,
    /// Streams of the link that are open: its lanes, and one for each large message on its way, sent or received.
    pub streams: usize,
    /// Calls that wait for their answers.
    pub open_calls: usize,
    /// Connections that were made after the first.
    pub reconnects: u64,
    /// Messages and replies sent.
    pub sent_messages: u64,
    /// Bytes of their frames.
    pub sent_bytes: u64,
    /// Messages and replies received.
    pub received_messages: u64,
    /// Bytes of their archives.
    pub received_bytes: u64,
    /// Bytes that this node holds for the link: messages that no mailbox has taken, large ones that are still
    /// coming, and what waits to be written.
    pub buffered_bytes: usize,
    /// The most that it ever held.
    pub most_buffered_bytes: usize,
    /// Bytes of archives that were copied into shared buffers before they were encrypted.
    pub copied_bytes: u64,
    /// Bytes of archives that were copied out of packets, into the aligned buffers that they are read in.
    pub received_copied_bytes: u64,
    /// Sends that found no credit.
    pub credit_waits: u64,
}

/// What a link counts over all its connections.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    pub(crate) reconnects: AtomicU64,
    pub(crate) sent_messages: AtomicU64,
    pub(crate) sent_bytes: AtomicU64,
    pub(crate) received_messages: AtomicU64,
    pub(crate) received_bytes: AtomicU64,
    /// Large messages on their way, sent or received.
    pub(crate) large: AtomicUsize,
    pub(crate) buffered: AtomicUsize,
    pub(crate) most_buffered: AtomicUsize,
    pub(crate) copied_bytes: AtomicU64,
    pub(crate) received_copied_bytes: AtomicU64,
    pub(crate) credit_waits: AtomicU64,
}

impl Meters {
    /// A part of the link that held `before` holds `now`.
    pub(crate) fn holds(&self, before: usize, now: usize) {
        if now > before {
            let held = self.buffered.fetch_add(now - before, Ordering::Relaxed) + (now - before);
            self.most_buffered.fetch_max(held, Ordering::Relaxed);
        } else if now < before {
            self.buffered.fetch_sub(before - now, Ordering::Relaxed);
        }
    }
}

/// A large message on its way, counted while this is held.
pub(crate) struct UnderWay {
    meters: Arc<Meters>,
    /// What this node holds of it.
    bytes: usize,
}

impl UnderWay {
    pub(crate) fn new(meters: &Arc<Meters>) -> Self {
        meters.large.fetch_add(1, Ordering::Relaxed);
        Self { meters: Arc::clone(meters), bytes: 0 }
    }

    /// There is room for so many bytes of it.
    pub(crate) fn holds(&mut self, bytes: usize) {
        self.meters.holds(self.bytes, bytes);
        self.bytes = bytes;
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.meters.large.fetch_sub(1, Ordering::Relaxed);
        self.meters.holds(self.bytes, 0);
    }
}

/// Why a connection isn't made, or ends.
///
/// ```
/// use neuroflow_transport::LinkError;
/// assert_eq!(LinkError::Superseded.to_string(), "the peer's own dial came first");
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// It can't even be tried.
    #[error("{address} can't be dialled")]
    Dial {
        /// The peer.
        address: SocketAddr,
        /// Why.
        #[source]
        source: quinn::ConnectError,
    },
    /// The connection failed or ended: no such host, another cluster, silence.
    #[error("the connection failed")]
    Connection(#[from] quinn::ConnectionError),
    /// A stream couldn't be written.
    #[error("a stream of the connection can't be written")]
    Write(#[from] quinn::WriteError),
    /// A stream couldn't be read.
    #[error("a stream of the connection can't be read")]
    Read(#[from] quinn::ReadError),
    /// The peer took too long.
    #[error("the handshake took longer than {:?}", crate::limits::HANDSHAKE_DEADLINE)]
    TimedOut,
    /// The peer proved nothing that names a node.
    #[error("the peer's certificate doesn't name a node")]
    Certificate(#[from] Arc<crate::identity::CertificateError>),
    /// Both trust each other and can't talk.
    #[error("the peer's hello can't be accepted")]
    Hello(#[from] HelloError),
    /// The peer sent bytes that are no frames.
    #[error("the peer sent what isn't a frame")]
    Frame(#[from] FrameError),
    /// The peer broke the rules.
    #[error("the peer broke the protocol")]
    Violation(#[from] Violation),
    /// Both dialled, and the other dial stays.
    #[error("the peer's own dial came first")]
    Superseded,
    /// The node that answered is this one.
    #[error("the address is this node's own")]
    Oneself,
    /// This node has as many peers as it may, and none of them has been gone for long.
    #[error("this node has {} peers, and may have no more", crate::limits::MAX_PEERS)]
    Full,
    /// There is a link already.
    #[error("there is a link to that node already")]
    Linked,
}

/// The codes with which a connection is closed. They tell a peer that has proved who it is, and
/// nobody else: before that TLS has closed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseCode {
    Shutdown = 0,
    Superseded = 1,
    Violation = 2,
    Incompatible = 3,
    Revoked = 4,
    Leaving = 5,
    Expired = 6,
    Full = 7,
}

impl CloseCode {
    /// Whether the peer has closed the connection with this code.
    pub(crate) fn was_said(self, connection: &quinn::Connection) -> bool {
        matches!(connection.close_reason(), Some(quinn::ConnectionError::ApplicationClosed(close))
            if close.error_code == quinn::VarInt::from_u32(self as u32))
    }

    pub(crate) fn close(self, connection: &quinn::Connection) {
        connection.close(quinn::VarInt::from_u32(self as u32), b"");
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
