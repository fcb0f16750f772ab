//! From an address, or a stranger who knocks, to a connection that can carry messages.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use neuroflow_kernel::Backoff;
use quinn::{Connection, RecvStream, SendStream};
use rustls::pki_types::CertificateDer;

use super::lane::lane_decoder;
use super::peer::{Dialling, Peer};
use super::staged::padding;
use super::{CloseCode, LinkError};
use crate::endpoint::Shared;
use crate::frame::{Decoder, FrameError, FrameHeader, Kind};
use crate::identity::{NodeId, Subject, peer_name};
use crate::limits::{HANDSHAKE_DEADLINE, READ_CHUNK_BYTES, REDIAL_MAX, REDIAL_MIN};
use crate::session::Violation;
use crate::session::handshake::{Agreed, Hello, Verdict, verdict};

/// Between tries to have a link.
pub(crate) const REDIAL: Backoff = Backoff { first: REDIAL_MIN, max: REDIAL_MAX };

/// A connection whose handshake is done.
pub(crate) struct Established {
    pub(crate) connection: Connection,
    pub(crate) subject: Subject,
    pub(crate) incarnation: u64,
    pub(crate) agreed: Agreed,
    pub(crate) lanes: Vec<LaneStream>,
    pub(crate) dialled: bool,
    /// Held until the link is up, so that the peer's dial finds that ours stands.
    pub(crate) claim: Option<Dialling>,
}

impl std::fmt::Debug for Established {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Established").field("peer", &self.subject.name).finish_non_exhaustive()
    }
}

/// A lane's stream after its first frame.
pub(crate) struct LaneStream {
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
    pub(crate) decoder: Decoder,
    pub(crate) unread: Bytes,
}

/// Dials. `expected` is the node that must answer, if that is known.
pub(crate) async fn dial(
    shared: &Shared,
    address: SocketAddr,
    expected: Option<NodeId>,
) -> Result<Established, LinkError> {
    let at = shared.clock.now() + HANDSHAKE_DEADLINE;
    let dialled = shared.clock.before(at, dial_now(shared, address, expected)).await;
    dialled.unwrap_or(Err(LinkError::TimedOut))
}

async fn dial_now(
    shared: &Shared,
    address: SocketAddr,
    expected: Option<NodeId>,
) -> Result<Established, LinkError> {
    let endpoint = shared.endpoint().ok_or(quinn::ConnectionError::LocallyClosed)?;
    let connecting = endpoint
        .connect(address, &peer_name(expected.as_ref()))
        .map_err(|source| LinkError::Dial { address, source })?;
    let connection = connecting.await?;
    let shut = |code: CloseCode, error: LinkError| {
        code.close(&connection);
        error
    };
    let (subject, peer) = meet(shared, &connection)?;
    if peer.link().is_some() {
        return Err(shut(CloseCode::Superseded, LinkError::Linked));
    }
    let claim = peer.dial().ok_or_else(|| shut(CloseCode::Superseded, LinkError::Superseded))?;
    let (mut send, recv) = connection.open_bi().await?;
    let ours = shared.hello();
    say(&mut send, &ours).await?;
    let (theirs, stream) = listen(send, recv).await.map_err(superseded)?;
    let agreed =
        ours.agree(&theirs).map_err(|error| shut(CloseCode::Incompatible, error.into()))?;
    let mut lanes = vec![stream];
    for lane in 1..agreed.lanes {
        let (mut send, recv) = connection.open_bi().await?;
        send.write_all(&FrameHeader { lane, ..FrameHeader::new(Kind::Lane, 0) }.encode()).await?;
        lanes.push(LaneStream { send, recv, decoder: lane_decoder(), unread: Bytes::new() });
    }
    Ok(Established {
        connection,
        subject,
        incarnation: theirs.incarnation,
        agreed,
        lanes,
        dialled: true,
        claim: Some(claim),
    })
}

/// The peer keeps its own dial.
fn superseded(error: LinkError) -> LinkError {
    let (LinkError::Connection(closed)
    | LinkError::Read(quinn::ReadError::ConnectionLost(closed))
    | LinkError::Write(quinn::WriteError::ConnectionLost(closed))) = &error
    else {
        return error;
    };
    match closed {
        quinn::ConnectionError::ApplicationClosed(close)
            if close.error_code == quinn::VarInt::from_u32(CloseCode::Superseded as u32) =>
        {
            LinkError::Superseded
        }
        _ => error,
    }
}

/// Answers who knocks, in this way if not in the usual one. A stranger doesn't get past TLS.
pub(crate) async fn accept(
    shared: &Shared,
    incoming: quinn::Incoming,
    server: Option<Arc<quinn::ServerConfig>>,
) -> Result<Established, LinkError> {
    let at = shared.clock.now() + HANDSHAKE_DEADLINE;
    let accepted = shared.clock.before(at, accept_now(shared, incoming, server)).await;
    accepted.unwrap_or(Err(LinkError::TimedOut))
}

async fn accept_now(
    shared: &Shared,
    incoming: quinn::Incoming,
    server: Option<Arc<quinn::ServerConfig>>,
) -> Result<Established, LinkError> {
    let connection = match server {
        Some(server) => incoming.accept_with(server)?.await?,
        None => incoming.accept()?.await?,
    };
    if let Some(door) = &shared.door
        && is_guest(&connection)
    {
        let _gone = crate::join::serve(door, &connection).await;
        CloseCode::Shutdown.close(&connection);
        return Err(quinn::ConnectionError::LocallyClosed.into());
    }
    let shut = |code: CloseCode, error: LinkError| {
        code.close(&connection);
        error
    };
    let (subject, peer) = meet(shared, &connection)?;
    let (send, recv) = connection.accept_bi().await?;
    let (theirs, mut stream) =
        listen(send, recv).await.map_err(|error| shut(CloseCode::Violation, error))?;
    let young = |since| shared.clock.now().since(since) < HANDSHAKE_DEADLINE;
    let stands = peer.stands(theirs.incarnation, young);
    if verdict(shared.id.as_bytes(), subject.id.as_bytes(), stands) == Verdict::KeepOurs {
        return Err(shut(CloseCode::Superseded, LinkError::Superseded));
    }
    let ours = shared.hello();
    let agreed =
        ours.agree(&theirs).map_err(|error| shut(CloseCode::Incompatible, error.into()))?;
    say(&mut stream.send, &ours).await?;
    let mut lanes = vec![stream];
    for lane in 1..agreed.lanes {
        let (send, recv) = connection.accept_bi().await?;
        let (header, _, stream) = first_frame(send, recv).await?;
        if header.kind != Kind::Lane || header.lane != lane {
            return Err(shut(CloseCode::Violation, Violation::Lane.into()));
        }
        lanes.push(stream);
    }
    Ok(Established {
        connection,
        subject,
        incarnation: theirs.incarnation,
        agreed,
        lanes,
        dialled: false,
        claim: None,
    })
}

/// Whether the other end wants to join, and not to talk.
fn is_guest(connection: &Connection) -> bool {
    let data = connection.handshake_data();
    let data = data.and_then(|any| any.downcast::<quinn::crypto::rustls::HandshakeData>().ok());
    data.and_then(|data| data.protocol).is_some_and(|protocol| protocol == crate::join::ALPN)
}

/// Who is at the other end, as its certificate says.
fn meet(shared: &Shared, connection: &Connection) -> Result<(Subject, Arc<Peer>), LinkError> {
    let chain = connection.peer_identity();
    let chain = chain.and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    let leaf = chain.as_ref().and_then(|chain| chain.first());
    let subject = leaf.map_or(Err(crate::identity::CertificateError::Empty), Subject::of);
    let subject = subject.map_err(Arc::new)?;
    if subject.id == shared.id {
        CloseCode::Superseded.close(connection);
        return Err(LinkError::Oneself);
    }
    // Once more than in the handshake, which may have begun before the node was shut out.
    let is_shut_out = shared.trust.is_revoked(&subject.id);
    let peer = shared.peers.meet(&subject, connection.remote_address(), shared.clock.now());
    if is_shut_out || peer.as_ref().is_some_and(|peer| peer.is_revoked()) {
        CloseCode::Revoked.close(connection);
        return Err(quinn::ConnectionError::LocallyClosed.into());
    }
    let Some(peer) = peer else {
        CloseCode::Full.close(connection);
        return Err(LinkError::Full);
    };
    Ok((subject, peer))
}

async fn say(send: &mut SendStream, hello: &Hello) -> Result<(), LinkError> {
    let mut bytes = hello.to_header().encode().to_vec();
    bytes.extend_from_slice(hello.name.as_bytes());
    bytes.extend_from_slice(padding(hello.name.len()));
    send.write_all(&bytes).await?;
    Ok(())
}

async fn listen(send: SendStream, recv: RecvStream) -> Result<(Hello, LaneStream), LinkError> {
    let (header, name, stream) = first_frame(send, recv).await?;
    Ok((Hello::from_frame(&header, &name).map_err(LinkError::Hello)?, stream))
}

async fn first_frame(
    send: SendStream,
    mut recv: RecvStream,
) -> Result<(FrameHeader, String, LaneStream), LinkError> {
    // The lanes carry what senders wait for.
    let _closed = send.set_priority(1);
    let mut decoder = Decoder::new(0);
    loop {
        let chunk = recv.read_chunk(READ_CHUNK_BYTES, true).await?.ok_or(FrameError::Truncated)?;
        let mut input = &chunk.bytes[..];
        if let Some(frame) = decoder.next(&mut input)? {
            let name = decoder.name()?.to_owned();
            let unread = chunk.bytes.slice(chunk.bytes.len() - input.len()..);
            let stream = LaneStream { send, recv, decoder: lane_decoder(), unread };
            return Ok((frame.header, name, stream));
        }
    }
}
