//! What who isn't of the cluster finds out at the port: that there is TLS, and nothing of who speaks what.

use neuroflow_transport::limits::MAX_HANDSHAKES;
use neuroflow_transport::{Authority, Invite, LinkState, join};
use quinn::ConnectionError;

use crate::hostile::{client, knock};
use crate::world::{Node, Work, World, all, soon, until};

/// What links ask to talk with, and what those who join do.
const LINK: &[u8] = b"neuroflow/1";
const JOIN: &[u8] = b"neuroflow-join/1";

/// Other words: later versions of ours, an earlier one, and others' altogether.
const OTHERS: [&[u8]; 5] = [b"neuroflow/0", b"neuroflow/2", b"neuroflow/3", b"neuroflow", b"h3"];

/// The alerts of TLS, as QUIC carries them: no certificate was shown, or nobody talks like that.
const NO_CERTIFICATE: u64 = 0x100 + 116;
const NO_PROTOCOL: u64 = 0x100 + 120;

/// With what code, and with what words, a stranger is told to go; nothing else comes.
async fn told(
    node: &Node,
    who: Option<&neuroflow_transport::Credential>,
    alpn: &[u8],
) -> (u64, String) {
    let closed = match knock(who, alpn, node).await {
        Err(refused) => refused,
        // A client is done with TLS before its certificate was looked at.
        Ok((_endpoint, connection)) => {
            let read = async {
                let (mut send, mut recv) = connection.open_bi().await?;
                // It may be closed by then.
                let _closed = send.write_all(b"hello?").await;
                let mut first = [0];
                let heard = recv.read(&mut first).await;
                assert!(heard.is_err(), "{heard:?}");
                Ok::<(), ConnectionError>(())
            };
            let _closed = soon(read).await;
            assert!(connection.stats().frame_rx.datagram == 0);
            soon(connection.closed()).await
        }
    };
    match closed {
        ConnectionError::ConnectionClosed(close) => {
            let reason = String::from_utf8_lossy(&close.reason).into_owned();
            (u64::from(close.error_code), reason)
        }
        ConnectionError::ApplicationClosed(close) => {
            assert!(close.reason.is_empty(), "{close:?}");
            (close.error_code.into_inner(), String::new())
        }
        other => panic!("{other:?}"),
    }
}

/// The words tell nothing of us.
fn is_silent(said: &str) {
    let said = said.to_lowercase();
    assert!(!said.contains("neuroflow") && !said.contains("version"), "{said}");
    assert!(!said.contains(|letter: char| letter.is_ascii_digit()), "{said}");
}

#[tokio::test]
async fn a_stranger_is_told_nothing_of_versions_whatever_it_asks_to_talk() {
    let (world, foreign) = (World::new(), World::new());
    let authority = &world.authority;
    let authority = Authority::from_pem(authority.certificate_pem(), authority.key_pem()).unwrap();
    let plain = world.node("a").await;
    let inviter = world.node_with("b", 8, |config| config.authority(authority)).await;
    let (theirs, ours) = (foreign.credential("c", &["operator"]), world.credential("d", &[]));
    for node in [&plain, &inviter] {
        // A later protocol of ours is as unknown as any other word, and so is joining, while nobody is invited.
        let unknown = told(node, None, b"h3").await;
        assert_eq!(unknown.0, NO_PROTOCOL);
        is_silent(&unknown.1);
        for who in [None, Some(&theirs), Some(&ours)] {
            for alpn in OTHERS.into_iter().chain([JOIN]) {
                assert_eq!(told(node, who, alpn).await, unknown, "{alpn:?}");
            }
        }
        let (code, said) = told(node, None, LINK).await;
        assert_eq!(code, NO_CERTIFICATE, "{said}");
        is_silent(&said);
        let (code, said) = told(node, Some(&theirs), LINK).await;
        assert!((0x100..0x200).contains(&code), "{code}: {said}");
        is_silent(&said);
        assert!(node.links.status().is_empty());
    }

    // An open door is for who joins; whoever comes for a link without a certificate hears nothing there either.
    let invitation = inviter.links.invite(Invite::new("e")).unwrap();
    assert!(knock(None, JOIN, &inviter).await.is_ok());
    assert_eq!(told(&inviter, None, LINK).await, (0, String::new()));
    for alpn in OTHERS {
        assert_eq!(told(&inviter, None, alpn).await.0, NO_PROTOCOL, "{alpn:?}");
    }
    assert_eq!(told(&plain, None, JOIN).await.0, NO_PROTOCOL);
    let token = invitation.token().to_string().parse().unwrap();
    assert!(soon(join(&token, inviter.clock())).await.is_ok());
    assert!(inviter.links.status().is_empty());
}

/// First packets of so many clients, each of another connection, as they are on the wire.
async fn first_packets(count: usize) -> Vec<Vec<u8>> {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = socket.local_addr().unwrap();
    let clients = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let mut packets: Vec<Vec<u8>> = Vec::new();
    let mut bytes = vec![0; 2_048];
    for _ in 0..count {
        let connecting = clients.connect_with(client(None, LINK), to, "any.node").unwrap();
        // The first one that isn't a repetition, of this one or of those before it.
        loop {
            let length = soon(socket.recv(&mut bytes)).await.unwrap();
            let first = bytes[..length].to_vec();
            if length >= 1_200 && !packets.iter().any(|known| id(known) == id(&first)) {
                packets.push(first);
                break;
            }
        }
        drop(connecting);
    }
    packets
}

/// The connection's id, as who dials has chosen it.
fn id(packet: &[u8]) -> &[u8] {
    let length = usize::from(packet[5]);
    &packet[6..6 + length]
}

/// How many are told at once to prove where they are; the others of them hold a place until the deadline.
const MANY: usize = MAX_HANDSHAKES + 64;

#[tokio::test]
async fn a_flood_of_first_packets_from_made_up_senders_holds_so_many_places_and_no_longer_than_a_handshake()
 {
    let (a, b) = World::new().pair().await;
    let before = b.links.strangers();
    assert_eq!(before.handshakes, 0);
    let packets = first_packets(MANY).await;
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for packet in &packets {
        socket.send_to(packet, b.address()).await.unwrap();
        tokio::task::yield_now().await;
    }
    until(|| b.links.strangers().retried > 0).await;
    // Members are there beside all of them, and a new one finds its place.
    assert_eq!(all(&a.far("agent://b/worker"), &Work::default()).await, Ok(vec![]));
    // The same again, and what nobody would send: cut off, of another version, with a token of nobody's, a retry and
    // a list of versions for a connection that isn't there.
    for packet in &packets {
        socket.send_to(&packet[..packet.len() / 2], b.address()).await.unwrap();
        for (at, byte) in [(1, 0x7a), (packet.len() - 1, 0), (0, 0xf0), (6, 0xee)] {
            let mut broken = packet.clone();
            broken[at] ^= byte;
            socket.send_to(&broken, b.address()).await.unwrap();
        }
        let mut versions = packet[..64].to_vec();
        versions[1..5].fill(0);
        socket.send_to(&versions, b.address()).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(all(&a.far("agent://b/worker"), &Work::default()).await, Ok(vec![]));
    let most = b.links.strangers();
    assert!(most.most_handshakes <= MAX_HANDSHAKES, "{most:?}");
    assert!(most.connections <= before.connections + 2 * MAX_HANDSHAKES, "{most:?}");
    // Nobody answers the retries, and those who hold a place lose it.
    until(|| b.links.strangers().handshakes == 0).await;
    until(|| b.links.strangers().connections <= before.connections).await;
    assert!(b.links.status().len() == 1 && b.state_of("a") == Some(LinkState::Up));
}

#[tokio::test]
async fn whoever_is_shut_out_and_keeps_dialling_holds_nothing() {
    let world = World::new();
    let (a, b) = world.pair().await;
    let credential = world.credential("intruder", &[]);
    let (_endpoint, connection) = knock(Some(&credential), LINK, &b).await.unwrap();
    until(|| b.state_of("intruder").is_some()).await;
    let id = b.links.status().iter().find(|link| link.name.as_str() == "intruder").unwrap().node;
    b.links.revoke(id);
    soon(connection.closed()).await;
    let before = b.links.strangers();
    for _ in 0..40 {
        // A client is done with TLS before its certificate was looked at.
        if let Ok((_endpoint, connection)) = knock(Some(&credential), LINK, &b).await {
            soon(connection.closed()).await;
        }
    }
    until(|| b.links.strangers().failed >= before.failed + 40).await;
    until(|| b.links.strangers().connections <= 1).await;
    let after = b.links.strangers();
    assert_eq!(after.handshakes, 0, "{after:?}");
    assert!(after.most_handshakes <= 2, "{after:?}");
    let status = b.links.status();
    assert_eq!(status.len(), 2);
    let shut = status.iter().find(|link| link.node == id).unwrap();
    assert_eq!((shut.state, shut.buffered_bytes), (LinkState::Revoked, 0));
    assert_eq!(all(&a.far("agent://b/worker"), &Work::default()).await, Ok(vec![]));
}
