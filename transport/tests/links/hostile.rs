//! Strangers get nothing; a peer that breaks the rules loses its link and harms nobody else.

use std::sync::Arc;
use std::time::Duration;

use neuroflow_kernel::{Header, StreamError};
use neuroflow_transport::limits::{
    EARLY_CANCELS, LANE_CREDIT_MESSAGES, LANE_LIMIT_BYTES, LARGE_KIB, MAX_MESSAGE_BYTES,
};
use neuroflow_transport::{Credential, LinkError, LinkState, LinksConfig, MemberState};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::world::{HOUR, Node, Work, World, all, all_with, now, soon, until};

#[tokio::test]
async fn a_node_of_another_cluster_gets_no_link() {
    let (ours, theirs) = (World::new(), World::new());
    let (a, stranger) = (ours.node("a").await, theirs.node("b").await);
    assert!(matches!(stranger.links.try_dial(a.address()).await, Err(LinkError::Connection(_))));
    assert!(matches!(a.links.try_dial(stranger.address()).await, Err(LinkError::Connection(_))));
    assert!(a.links.status().is_empty() && stranger.links.status().is_empty());
}

#[tokio::test]
async fn an_expired_certificate_gets_no_link() {
    let world = World::new();
    let a = world.node("a").await;
    // A node doesn't start with one that has expired, so it does so while the node runs.
    let old = world.authority.issue("b", &[], Duration::from_secs(8), now()).unwrap();
    let b = world.node_as(&old).await;
    until(|| now() > old.expires() + Duration::from_secs(1)).await;
    assert!(b.links.try_dial(a.address()).await.is_err());
    assert!(a.links.try_dial(b.address()).await.is_err());
}

#[tokio::test]
async fn a_node_does_not_link_to_itself() {
    let a = World::new().node("a").await;
    let refused = a.links.try_dial(a.address()).await;
    assert!(matches!(refused, Err(LinkError::Oneself | LinkError::Connection(_))), "{refused:?}");
    assert!(a.links.status().is_empty());
}

#[tokio::test]
async fn garbage_on_the_port_does_nothing() {
    let (a, b) = World::new().pair().await;
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for size in [0, 1, 20, 200, 1_200, 1_400] {
        for byte in [0x00, 0x40, 0xc0, 0xff] {
            socket.send_to(&vec![byte; size], b.address()).unwrap();
        }
    }
    assert_eq!(all(&a.far("agent://b/worker"), &Work::default()).await, Ok(vec![]));
}

/// A client that speaks TLS as a member of the cluster, and then what it likes.
async fn intruder(world: &World, to: &Node) -> (quinn::Endpoint, quinn::Connection) {
    let credential = world.credential("intruder", &[]);
    knock(Some(&credential), b"neuroflow/1", to).await.unwrap()
}

/// A client that believes every server, with this certificate, and asks to talk like this.
pub(crate) async fn knock(
    who: Option<&Credential>,
    alpn: &[u8],
    to: &Node,
) -> Result<(quinn::Endpoint, quinn::Connection), quinn::ConnectionError> {
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let connecting = endpoint.connect_with(client(who, alpn), to.address(), "any.node").unwrap();
    let connection = soon(connecting).await?;
    Ok((endpoint, connection))
}

/// What such a client is set up with.
pub(crate) fn client(who: Option<&Credential>, alpn: &[u8]) -> quinn::ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible(provider)));
    let mut tls = match who {
        Some(credential) => {
            let chain = CertificateDer::pem_slice_iter(credential.certificate_pem().as_bytes())
                .collect::<Result<Vec<_>, _>>()
                .unwrap();
            let key = PrivateKeyDer::from_pem_slice(credential.key_pem().as_bytes()).unwrap();
            tls.with_client_auth_cert(chain, key).unwrap()
        }
        None => tls.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![alpn.to_vec()];
    tls.enable_early_data = true;
    quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()))
}

/// Believes every server.
#[derive(Debug)]
struct Gullible(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// What a node has held at most for one of the links of its intruders.
fn most_held(node: &Node) -> usize {
    let status = node.links.status();
    let intruders = status.iter().filter(|link| link.name.as_str() == "intruder");
    intruders.map(|link| link.most_buffered_bytes).max().expect("an intruder")
}

/// A node holds no more than that for who says little, whatever it declares.
const LITTLE: usize = 64 * 1024;

/// Another caller of the same node is answered, long before its deadline.
async fn answers(asker: &Node) {
    let header = Header::new().within(asker.clock(), Duration::from_secs(10));
    let work = Work { replies: 2, ..Work::default() };
    assert_eq!(all_with(&asker.far("agent://b/worker"), header, &work).await, Ok(vec![0, 1]));
}

/// A frame's header by hand, as `docs/PROTOCOL.md` has it.
fn frame(kind: u8, fields: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; 112];
    bytes[..4].copy_from_slice(b"NFLK");
    bytes[4] = 1;
    bytes[5] = kind;
    bytes[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
    for (at, field) in fields {
        bytes[*at..*at + field.len()].copy_from_slice(field);
    }
    bytes
}

/// A request for the worker, by hand.
fn request(id: u64, work: &Work) -> Vec<u8> {
    let work = neuroflow_kernel::Parcel::archive(work).unwrap();
    let bytes = work.as_raw().as_bytes();
    let mut request = frame(
        2,
        &[
            (8, &u32::try_from(bytes.len()).unwrap().to_le_bytes()),
            (12, &6_u16.to_le_bytes()),
            (14, &1_u16.to_le_bytes()),
            (16, &id.to_le_bytes()),
            (24, &work.as_raw().message().get().to_le_bytes()),
        ],
    );
    request.extend_from_slice(b"worker\0\0\0\0\0\0\0\0\0\0");
    request.extend_from_slice(bytes);
    request.resize(request.len().next_multiple_of(16), 0);
    request
}

fn hello(oldest: u16, newest: u32, credit: u32) -> Vec<u8> {
    let mut bytes = frame(
        1,
        &[
            (12, &8_u16.to_le_bytes()),
            (14, &oldest.to_le_bytes()),
            (16, &77_u64.to_le_bytes()),
            (40, &1_000_000_u64.to_le_bytes()),
            (75, &[1]),
            (76, &credit.to_le_bytes()),
            (96, &newest.to_le_bytes()),
        ],
    );
    bytes.extend_from_slice(b"intruder");
    bytes.extend_from_slice(&[0; 8]);
    bytes
}

/// What comes with a first packet could be sent again by anybody who has seen it (RFC 9001, section 9.2).
#[tokio::test]
async fn nothing_is_said_before_the_handshake_is_done() {
    let world = World::new();
    let a = world.node("a").await;
    let config = client(Some(&world.credential("intruder", &[])), b"neuroflow/1");
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let dial = || endpoint.connect_with(config.clone(), a.address(), "any.node").unwrap();
    let first = soon(dial()).await.unwrap();
    // What it would come back with arrives with this.
    until(|| first.stats().frame_rx.handshake_done == 1).await;
    assert!(dial().into_0rtt().is_err(), "it could send before the node knows who it is");
}

fn code(error: &quinn::ConnectionError) -> Option<u64> {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) => Some(close.error_code.into_inner()),
        _ => None,
    }
}

#[tokio::test]
async fn a_member_that_breaks_the_rules_is_closed_and_the_others_go_on() {
    let world = World::new();
    let (a, b) = world.pair().await;
    let notice = |id: u64| {
        let mut bytes = frame(3, &[(12, &6_u16.to_le_bytes()), (16, &id.to_le_bytes())]);
        bytes.extend_from_slice(b"worker");
        bytes.extend_from_slice(&[0; 10]);
        bytes
    };
    let request = |id: u64| {
        let mut bytes = notice(id);
        bytes[5] = 2;
        bytes
    };
    let good = || hello(1, 1, 100);
    let huge = frame(2, &[(8, &u32::MAX.to_le_bytes())]);
    let over = [good(), frame(2, &[(8, &40_000_u32.to_le_bytes())])].concat();
    let flood: Vec<u8> =
        std::iter::once(good()).chain((0..5).map(|_| frame(1, &[]))).flatten().collect();
    let cases: [(&str, Vec<u8>, u64); 7] = [
        ("garbage", vec![0x55; 4_000], 2),
        ("no hello", request(1), 2),
        ("a newer protocol only", hello(9, 12, 100), 3),
        ("a huge frame", [good(), huge].concat(), 2),
        ("a large frame on a lane", over, 2),
        ("a second hello", flood, 2),
        ("reserved bytes", [good(), frame(6, &[(105, &[1])])].concat(), 2),
    ];
    for (case, bytes, expected) in cases {
        let (_endpoint, connection) = intruder(&world, &b).await;
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        // The peer may close before all is written.
        let _closed = send.write_all(&bytes).await;
        let closed = soon(connection.closed()).await;
        assert_eq!(code(&closed), Some(expected), "{case}: {closed:?}");
        assert!(most_held(&b) <= LITTLE, "{case}: {}", most_held(&b));
        answers(&a).await;
    }
}

#[tokio::test]
async fn more_than_was_granted_is_a_violation_and_replays_of_unknown_ids_are_ignored() {
    let world = World::new();
    let b = world.node_with("b", 1, |config| config).await;
    let (_endpoint, connection) = intruder(&world, &b).await;
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(&hello(1, 1, 100)).await.unwrap();
    let mut answer = [0; 112];
    soon(recv.read_exact(&mut answer)).await.unwrap();
    assert_eq!((&answer[..4], answer[5]), (b"NFLK".as_slice(), 1));
    // Replies, ends, cancellations and credit for calls that never were.
    for kind in [4, 5, 6, 8] {
        send.write_all(&frame(kind, &[(16, &99_u64.to_le_bytes())])).await.unwrap();
    }
    // A worker that is busy, so that notices wait within the credit; then more than that.
    b.worker
        .notify(neuroflow_kernel::Header::new(), &Work { wait: true, ..Work::default() })
        .await
        .unwrap();
    until(|| b.ledger.begun() == 1).await;
    let mut notice = request(0, &Work::default());
    notice[5] = 3;
    let bytes = notice.len() - frame(3, &[]).len();
    let flood = async {
        loop {
            if send.write_all(&notice).await.is_err() {
                return;
            }
        }
    };
    soon(flood).await;
    assert_eq!(code(&soon(connection.closed()).await), Some(2));
    let granted = usize::try_from(LANE_CREDIT_MESSAGES).unwrap() * bytes;
    assert!(most_held(&b) <= granted + LITTLE, "{} of {granted}", most_held(&b));
    // What waited for the actor goes with the link.
    until(|| b.links.status()[0].buffered_bytes == 0).await;
}

#[tokio::test]
async fn a_peer_that_sends_a_byte_now_and_then_is_given_up_and_keeps_nobody_waiting() {
    let world = World::new();
    let (a, b) = world.pair().await;
    let (_endpoint, connection) = intruder(&world, &b).await;
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    let trickle = async {
        for byte in hello(1, 1, 100).iter().cycle() {
            if send.write_all(&[*byte]).await.is_err() {
                return;
            }
            answers(&a).await;
            b.clock().sleep(Duration::from_millis(50)).await;
        }
    };
    soon(trickle).await;
    assert_ne!(b.state_of("intruder"), Some(LinkState::Up));

    // After the handshake it may take its time; it's its own link that waits.
    let (_endpoint, connection) = intruder(&world, &b).await;
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(&hello(1, 1, 100)).await.unwrap();
    soon(recv.read_exact(&mut [0; 112])).await.unwrap();
    for byte in frame(2, &[(8, &30_000_u32.to_le_bytes())]) {
        send.write_all(&[byte]).await.unwrap();
        answers(&a).await;
    }
    assert!(most_held(&b) <= LITTLE, "{}", most_held(&b));
}

#[tokio::test]
async fn a_request_that_comes_again_while_it_is_served_is_a_violation() {
    let world = World::new();
    let b = world.node("b").await;
    let (_endpoint, connection) = intruder(&world, &b).await;
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    let work = Work { wait: true, ..Work::default() };
    let request = request(5, &work);
    send.write_all(&[hello(1, 1, 100), request.clone()].concat()).await.unwrap();
    until(|| b.ledger.begun() == 1).await;
    let _closed = send.write_all(&request).await;
    assert_eq!(code(&soon(connection.closed()).await), Some(2));
    until(|| b.ledger.cancelled() == 1).await;
    assert_eq!(b.ledger.begun(), 1);
    assert!(most_held(&b) <= LITTLE, "{}", most_held(&b));
}

#[tokio::test]
async fn cancellations_of_what_never_comes_are_forgotten_oldest_first() {
    let world = World::new();
    let b = world.node("b").await;
    let (_endpoint, connection) = intruder(&world, &b).await;
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    send.write_all(&hello(1, 1, 100)).await.unwrap();
    // Several times as many as are remembered, and none of a request that there is.
    let most = u64::try_from(EARLY_CANCELS).unwrap();
    let last = 100 + 8 * most;
    for id in 100..=last {
        send.write_all(&frame(6, &[(16, &id.to_le_bytes())])).await.unwrap();
    }
    send.write_all(&request(4, &Work::default())).await.unwrap();
    until(|| b.ledger.begun() == 1).await;
    assert!(most_held(&b) <= LITTLE, "{}", most_held(&b));
    // The last ones still count, and the first don't any more: large ones, which cancellations may overtake.
    for (number, id) in [(1, last), (2, last + 1 - most), (3, last - most), (4, 100)] {
        let work = Work { number, payload: vec![7; 40_000], ..Work::default() };
        let mut stream = connection.open_uni().await.unwrap();
        stream.write_all(&request(id, &work)).await.unwrap();
        stream.finish().unwrap();
    }
    until(|| b.ledger.begun() == 3).await;
    let mut ran = b.ledger.numbers.lock().unwrap().clone();
    ran.sort_unstable();
    assert_eq!(ran, [0, 3, 4]);
    assert_eq!(b.state_of("intruder"), Some(LinkState::Up));
}

#[tokio::test]
async fn a_large_request_that_its_cancellation_overtook_does_not_run() {
    let world = World::new();
    let b = world.node("b").await;
    let (_endpoint, connection) = intruder(&world, &b).await;
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    let request = |id: u8, payload: usize| {
        let work = Work { number: u32::from(id), payload: vec![7; payload], ..Work::default() };
        request(id.into(), &work)
    };
    let cancel = frame(6, &[(16, &[5])]);
    send.write_all(&[hello(1, 1, 100), cancel, request(4, 0)].concat()).await.unwrap();
    until(|| b.ledger.begun() == 1).await;
    for id in [5, 6] {
        let mut stream = connection.open_uni().await.unwrap();
        stream.write_all(&request(id, 40_000)).await.unwrap();
        stream.finish().unwrap();
    }
    until(|| b.ledger.begun() == 2).await;
    assert_eq!(*b.ledger.numbers.lock().unwrap(), [4, 6]);
}

#[tokio::test]
async fn a_certificate_from_a_clock_that_is_ahead_is_good_within_minutes() {
    let world = World::new();
    let a = world.node("a").await;
    for (minutes, good) in [(4, true), (20, false)] {
        let ahead = now() + Duration::from_mins(minutes);
        let credential = world.authority.issue("b", &[], HOUR, ahead).unwrap();
        let b = world.node_as(&credential).await;
        assert_eq!(b.links.try_dial(a.address()).await.is_ok(), good, "{minutes}");
        if !good {
            assert!(a.links.try_dial(b.address()).await.is_err());
        }
    }
}

#[tokio::test]
async fn a_peer_that_never_reads_is_cut_off_or_waits_and_others_go_on() {
    let world = World::new();
    let (a, b) = world.pair().await;
    let (_endpoint, connection) = intruder(&world, &b).await;
    let (mut send, recv) = connection.open_bi().await.unwrap();
    send.write_all(&hello(1, 1, 100)).await.unwrap();
    let work = Work { replies: 60, bytes: 30_000, ..Work::default() };
    for id in 1..200_u64 {
        send.write_all(&request(id, &work)).await.unwrap();
    }
    // The worker is held up by one who doesn't read for no longer than that one's streams take up: all of its
    // requests are worked off, or it has lost its link.
    until(|| b.ledger.begun() == 199 || connection.close_reason().is_some()).await;
    answers(&a).await;
    assert!(most_held(&b) <= LANE_LIMIT_BYTES / 2, "{}", most_held(&b));
    drop(recv);
    connection.close(0_u32.into(), b"");
    let far = a.far("agent://b/worker");
    let after = all(&far, &Work { replies: 1, ..Work::default() }).await;
    assert!(matches!(after, Ok(_) | Err(StreamError::Overloaded)), "{after:?}");
}

#[tokio::test]
async fn a_peer_that_declares_much_and_sends_nothing_holds_room_of_its_own_link_alone() {
    let world = World::new();
    let (a, b) = world.pair().await;
    let (_endpoint, connection) = intruder(&world, &b).await;
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(&hello(1, 1, 100)).await.unwrap();
    soon(recv.read_exact(&mut [0; 112])).await.unwrap();
    let most = u32::try_from(MAX_MESSAGE_BYTES).unwrap();
    let mut declared = frame(
        3,
        &[(8, &most.to_le_bytes()), (12, &6_u16.to_le_bytes()), (14, &1_u16.to_le_bytes())],
    );
    declared.extend_from_slice(b"worker\0\0\0\0\0\0\0\0\0\0");
    let mut streams = Vec::new();
    for _ in 0..neuroflow_transport::limits::LONE_STREAMS {
        let mut stream = connection.open_uni().await.unwrap();
        stream.write_all(&declared).await.unwrap();
        streams.push(stream);
    }
    let room = LARGE_KIB as usize * 1024;
    until(|| most_held(&b) == room).await;
    // Small messages of others, and large ones, find theirs.
    answers(&a).await;
    let large = Work { payload: vec![7; 8 * 1024 * 1024], ..Work::default() };
    assert_eq!(all(&a.far("agent://b/worker"), &large).await, Ok(vec![]));
    assert_eq!(most_held(&b), room);
    connection.close(0_u32.into(), b"");
    let held = || b.links.status().iter().map(|link| link.buffered_bytes).sum::<usize>();
    until(|| held() == 0).await;
}

/// A member's record, as `docs/PROTOCOL.md` has it.
#[derive(rkyv::Archive, rkyv::Serialize)]
struct Record {
    address: Option<std::net::SocketAddr>,
    oldest: u16,
    newest: u16,
    build: String,
    capacity: u32,
    draining: bool,
    certificate_expires: u64,
    offers: Vec<Offer>,
}

#[derive(rkyv::Archive, rkyv::Serialize)]
struct Offer {
    name: String,
    skills: Vec<String>,
}

/// A stream with this note between members.
fn note(note: &[u8]) -> Vec<u8> {
    let bytes = u32::try_from(note.len()).unwrap().to_le_bytes();
    let mut stream = [frame(11, &[(8, &bytes)]).as_slice(), note].concat();
    stream.resize(stream.len().next_multiple_of(16), 0);
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_load_changes_all_the_time_makes_nobody_die() {
    let world = World::new();
    let (b, c) = world.pair().await;
    let stands = |of: &Node, at: &Node| {
        let members = at.links.members();
        let member = members.iter().find(|member| member.node == of.links.id());
        member.map(|member| member.state)
    };
    let alive = Some(MemberState::Alive);
    until(|| stands(&b, &c) == alive && stands(&c, &b) == alive).await;
    let (_endpoint, connection) = intruder(&world, &b).await;
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(&hello(1, 2, 100)).await.unwrap();
    soon(recv.read_exact(&mut [0; 112])).await.unwrap();
    // As much as a record may say, so that to look at it costs something.
    let offer = |nth: usize| Offer {
        name: format!("agent-{nth}"),
        skills: (0..24).map(|skill| format!("s{skill}")).collect(),
    };
    let record = Record {
        address: None,
        oldest: 1,
        newest: 2,
        build: String::new(),
        capacity: 1,
        draining: false,
        certificate_expires: 4_000_000_000,
        offers: (0..256).map(offer).collect(),
    };
    let archive = rkyv::to_bytes::<rkyv::rancor::Error>(&record).unwrap();
    let (start, version) = (77_u64.to_le_bytes(), 1_u64.to_le_bytes());
    let mut stream = connection.open_uni().await.unwrap();
    let said = [&[2], start.as_slice(), &version, &archive].concat();
    stream.write_all(&note(&said)).await.unwrap();
    stream.finish().unwrap();
    until(|| b.links.members().iter().any(|member| member.name.as_str() == "intruder")).await;
    let flood = async {
        for load in 0_u32.. {
            let pulse = [&[3], start.as_slice(), &version, &load.to_le_bytes()].concat();
            connection.send_datagram(pulse.into()).unwrap();
            if load % 8 == 0 {
                // Others run on this machine, too.
                b.clock().sleep(Duration::from_millis(1)).await;
            }
        }
    };
    let watch = async {
        // Longer than it takes to be suspected and given up.
        for _ in 0..160 {
            b.clock().sleep(Duration::from_millis(50)).await;
            assert_ne!(stands(&c, &b), Some(MemberState::Dead), "to the one that is flooded");
            assert_ne!(stands(&b, &c), Some(MemberState::Dead), "to the other");
        }
    };
    tokio::select! {
        () = flood => panic!("there is always a next load"),
        () = watch => {}
    }
}

#[tokio::test]
async fn a_node_that_is_shut_out_in_mid_handshake_gets_no_link() {
    let world = World::new();
    let b = world.node("b").await;
    let (_endpoint, connection) = intruder(&world, &b).await;
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    // It has proved who it is, and hasn't said anything yet: there is no link that could be ended.
    until(|| b.state_of("intruder") == Some(LinkState::Down)).await;
    let id = b.links.status()[0].node;
    b.links.revoke(id);
    send.write_all(&hello(1, 1, 100)).await.unwrap();
    assert_eq!(code(&soon(connection.closed()).await), Some(4));
    assert_eq!(b.state_of("intruder"), Some(LinkState::Revoked));
}

#[tokio::test]
async fn whoever_is_shut_out_by_whatever_way_loses_the_link() {
    let world = World::new();
    let trust = world.trust();
    let credential = world.credential("a", &[]);
    let config = LinksConfig::new("127.0.0.1:0".parse().unwrap(), credential, trust.clone());
    let (a, b) = (Node::start(config, 8).await, world.node("b").await);
    a.links.try_dial(b.address()).await.unwrap();
    a.has_link_to("b").await;
    // Past the links, which nobody tells.
    trust.revoke(b.links.id());
    until(|| a.state_of("b") == Some(LinkState::Revoked)).await;
    assert!(b.links.try_dial(a.address()).await.is_err());
}
