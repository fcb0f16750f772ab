//! What who isn't of the cluster finds out at the port: that there is TLS, and nothing of who speaks what.

use neuroflow_transport::{Authority, Invite, join};
use quinn::ConnectionError;

use crate::hostile::knock;
use crate::world::{Node, World, soon};

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
