//! The messages of a join: a kind, a length, bytes. The bytes are hostile on both sides.

use quinn::{RecvStream, SendStream};

use crate::limits::MAX_JOIN_BYTES;

/// The protocol's name and version in the handshake.
pub(crate) const ALPN: &[u8] = b"neuroflow-join/1";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Who wants to join is there.
    Hello = 0,
    /// The authority's certificates, in PEM.
    Authority = 1,
    /// The secret, and a request for a certificate.
    Request = 2,
    /// The certificate, in PEM.
    Certificate = 3,
    /// One byte: why not.
    Refused = 4,
}

pub(super) async fn say(stream: &mut SendStream, kind: Kind, bytes: &[u8]) -> Option<()> {
    let length = u32::try_from(bytes.len()).ok()?;
    let head = [&[kind as u8][..], &length.to_le_bytes()].concat();
    stream.write_all(&[&head, bytes].concat()).await.ok()
}

/// The next message, if it's of one of these kinds.
pub(super) async fn hear(stream: &mut RecvStream, kinds: &[Kind]) -> Option<(Kind, Vec<u8>)> {
    let mut head = [0; 5];
    stream.read_exact(&mut head).await.ok()?;
    let [kind, length @ ..] = head;
    let kind = kinds.iter().copied().find(|known| *known as u8 == kind)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_JOIN_BYTES {
        return None;
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await.ok()?;
    Some((kind, bytes))
}
