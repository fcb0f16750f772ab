//! Identities are what the authority signed, and nothing else is let in.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::ServerName;
use rustls::{CertificateError as Refused, ClientConnection, Error, ServerConnection};

use super::*;

const HOUR: Duration = Duration::from_hours(1);

#[expect(
    clippy::disallowed_methods,
    reason = "certificates are checked against the machine's time"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

struct Node {
    credential: Credential,
    trust: Trust,
}

fn node(authority: &Authority, name: &str) -> Node {
    let credential = authority.issue(name, &["worker"], HOUR, now()).unwrap();
    Node { credential, trust: Trust::from_pem(authority.certificate_pem()).unwrap() }
}

/// Shakes hands in memory; gives what the first side that refused said.
fn shake(dialler: &Node, acceptor: &Node, expected: Option<&NodeId>) -> Result<(), Error> {
    let client = Presented::new(&dialler.credential).unwrap();
    let server = Presented::new(&acceptor.credential).unwrap();
    let client = Arc::new(client_config(&client, &dialler.trust).unwrap());
    let server = Arc::new(server_config(&server, &acceptor.trust, None).unwrap());
    let name = ServerName::try_from(peer_name(expected)).unwrap();
    let mut client = ClientConnection::new(client, name).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    for _ in 0..4 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut read = wire.as_slice();
        while !read.is_empty() {
            server.read_tls(&mut read).unwrap();
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut read = wire.as_slice();
        while !read.is_empty() {
            client.read_tls(&mut read).unwrap();
            client.process_new_packets()?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    assert_eq!(server.alpn_protocol(), Some(b"neuroflow/1".as_slice()));
    assert_eq!(server.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    Ok(())
}

#[test]
fn nodes_of_one_cluster_trust_each_other() {
    let authority = Authority::create("one", now()).unwrap();
    let (a, b) = (node(&authority, "a"), node(&authority, "b"));
    assert_eq!(shake(&a, &b, Some(&b.credential.id())), Ok(()));
    assert_eq!(shake(&a, &b, None), Ok(()));
}

#[test]
fn another_cluster_gets_nothing() {
    let (one, two) = (Authority::create("one", now()).unwrap(), Authority::create("two", now()));
    let (a, mut stranger) = (node(&one, "a"), node(&two.unwrap(), "a"));
    let unknown = Error::InvalidCertificate(Refused::UnknownIssuer);
    assert_eq!(shake(&a, &stranger, None), Err(unknown.clone()));
    // A stranger that trusts everybody isn't trusted for it.
    stranger.trust = a.trust.clone();
    assert_eq!(shake(&stranger, &a, None), Err(unknown));
}

#[test]
fn the_node_that_answers_must_be_the_one_that_was_meant() {
    let authority = Authority::create("one", now()).unwrap();
    let (a, b) = (node(&authority, "a"), node(&authority, "b"));
    let refused = shake(&a, &b, Some(&a.credential.id()));
    assert_eq!(refused, Err(Error::InvalidCertificate(Refused::NotValidForName)));
}

#[test]
fn a_revoked_node_is_refused_on_either_side() {
    let authority = Authority::create("one", now()).unwrap();
    let (a, b) = (node(&authority, "a"), node(&authority, "b"));
    a.trust.revoke(b.credential.id());
    let revoked = Err(Error::InvalidCertificate(Refused::Revoked));
    assert_eq!(shake(&a, &b, None), revoked);
    assert_eq!(shake(&b, &a, None), revoked);
}

#[test]
fn an_expired_certificate_is_refused() {
    let authority = Authority::create("one", now()).unwrap();
    let (a, mut b) = (node(&authority, "a"), node(&authority, "b"));
    let long_ago = now() - 10 * HOUR;
    b.credential = authority.issue("b", &[], HOUR, long_ago).unwrap();
    for refused in [shake(&a, &b, None), shake(&b, &a, None)] {
        let Err(Error::InvalidCertificate(reason)) = refused else { panic!("{refused:?}") };
        assert!(matches!(reason, Refused::Expired | Refused::ExpiredContext { .. }), "{reason:?}");
    }
    assert!(b.credential.expires() < now());
}

#[test]
fn a_renewed_certificate_keeps_the_id_only_with_its_key() {
    let authority = Authority::create("one", now()).unwrap();
    let (a, b) = (node(&authority, "a"), node(&authority, "b"));
    let swapped = Credential::from_pem(a.credential.certificate_pem(), b.credential.key_pem());
    assert!(matches!(swapped, Err(CertificateError::OtherKey)));
    assert!(a.credential.has_role("worker") && !a.credential.has_role("admin"));
    let id = a.credential.id();
    assert_eq!(id.to_string().parse::<NodeId>().unwrap(), id);
}

#[test]
fn an_id_is_64_digits_of_either_case_and_nothing_else() {
    let id = NodeId::from([0x0f; 32]);
    for text in ["0f".repeat(32), "0F".repeat(32)] {
        assert_eq!(text.parse(), Ok(id));
    }
    for text in ["+f".repeat(32), "0f".repeat(31), "0f".repeat(33), "f".repeat(63), "é".repeat(32)]
    {
        assert_eq!(text.parse::<NodeId>(), Err(NodeIdError { text }));
    }
}
