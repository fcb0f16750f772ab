//! The messages of a join: a kind, a length, bytes. The bytes are hostile on both sides.

use quinn::{RecvStream, SendStream};

use crate::limits::MAX_JOIN_BYTES;

/// The protocol's name and version in the handshake.
pub(crate) const ALPN: &[u8] = b"neuroflow-join/1";

const HEAD_BYTES: usize = 5;

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
    let mut bytes = [0; HEAD_BYTES];
    stream.read_exact(&mut bytes).await.ok()?;
    let (kind, length) = head(bytes, kinds)?;
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await.ok()?;
    Some((kind, bytes))
}

/// The kind and the length of a message, if it's of one of these kinds and no longer than one may be.
fn head(bytes: [u8; HEAD_BYTES], kinds: &[Kind]) -> Option<(Kind, usize)> {
    let [kind, length @ ..] = bytes;
    let kind = kinds.iter().copied().find(|known| *known as u8 == kind)?;
    let length = u32::from_le_bytes(length) as usize;
    (length <= MAX_JOIN_BYTES).then_some((kind, length))
}

/// What the fuzzer calls: a token's text, or what a stranger says at the door: a head, then a request that the
/// authority is to sign.
///
/// ```sh
/// cargo +nightly fuzz run link_join
/// ```
///
/// # Panics
/// When a token that was read isn't the same again, or a length is taken that may not be.
#[cfg(any(test, fuzzing))]
pub fn fuzz(bytes: &[u8]) {
    use std::sync::OnceLock;
    use std::time::{Duration, SystemTime};

    use crate::identity::Authority;

    static AUTHORITY: OnceLock<Option<Authority>> = OnceLock::new();
    let text = std::str::from_utf8(bytes).ok();
    if let Some(token) = text.and_then(|text| text.parse::<super::JoinToken>().ok()) {
        assert_eq!(token.to_string().parse().ok(), Some(token), "a token is its text");
    }
    let Some((first, said)) = bytes.split_first_chunk() else { return };
    let Some((_, length)) = head(*first, &[Kind::Request]) else { return };
    assert!(length <= MAX_JOIN_BYTES);
    let Some((_secret, request)) = said.split_at_checked(super::SECRET_BYTES) else { return };
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let authority = AUTHORITY.get_or_init(|| Authority::create("fuzzed", now).ok());
    if let Some(authority) = authority {
        // Signed or refused; either way it comes back.
        let _signed = authority.sign(request, "node", &[], Duration::from_mins(1), now).is_ok();
    }
}

/// What the fuzzer's target reads, for damage.
#[cfg(test)]
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
    let said = [&[7; super::SECRET_BYTES][..], request.der()].concat();
    let length = u32::try_from(said.len()).unwrap().to_le_bytes();
    let token = super::JoinToken {
        secret: [7; super::SECRET_BYTES],
        authority: [9; super::HASH_BYTES],
        inviter: [5; super::HASH_BYTES].into(),
        address: "10.0.0.7:7946".parse().unwrap(),
        expires_ms: 1_700_000_000_000,
    };
    vec![[&[Kind::Request as u8][..], &length, &said].concat(), token.to_string().into_bytes()]
}
