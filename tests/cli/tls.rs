//! `serve` with TLS and client certificates, from its settings to an answer.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rcgen::SanType;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto::ring,
};

use crate::ca::Ca;
use crate::scene::{Scratch, Server, first_text, send_message};

type Identity = (CertificateDer<'static>, PrivatePkcs8KeyDer<'static>);

/// The status and the body of an answer over TLS, to a client that trusts this CA.
fn exchange(
    server: &Server,
    ca: &Ca,
    identity: Option<Identity>,
    request: &str,
) -> std::io::Result<(u16, String)> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.certificate.der().clone()).expect("a CA");
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            builder.with_client_auth_cert(vec![certificate], key.into()).expect("an identity")
        }
    };
    let name = ServerName::try_from("127.0.0.1").expect("a name");
    let session = ClientConnection::new(Arc::new(config), name).expect("a session");
    let stream = TcpStream::connect(server.gateway)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut stream = StreamOwned::new(session, stream);
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.expect("a status"), body.to_owned()))
}

fn ask(text: &str) -> String {
    let body = send_message(text);
    format!(
        "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
         A2A-Version: 1.0\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

const CARD: &str = "GET /.well-known/agent-card.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\
                    Connection: close\r\n\r\n";

#[test]
fn the_built_node_speaks_tls_and_knows_clients_by_their_certificates() {
    let (scratch, ca, clients) = (Scratch::new(), Ca::fresh(), Ca::fresh());
    let (certificate, key) = ca.server();
    let policy = r#"permit(principal == Certificate::"spiffe://example/ci", action, resource);"#;
    let config = format!(
        "[agents]\nenabled = [\"echo\"]\n[tls]\ncertificate = {:?}\nkey = {:?}\n\
         client_ca = {:?}\n[policy]\nfile = {:?}\n",
        scratch.file("node.crt", &certificate.pem()),
        scratch.secret("node.key", &key.serialize_pem()),
        scratch.file("clients.crt", &clients.certificate.pem()),
        scratch.file("policy.cedar", policy),
    );
    let config = scratch.file("node.toml", &config);
    let mut server = Server::start(&scratch, &["--config", &config]);
    let banner = &server.banner;
    assert!(banner.contains(&format!("gateway     https://{}/", server.gateway)), "{banner}");
    assert!(banner.contains(&format!("curl -s https://{}/ ", server.gateway)), "{banner}");

    let identity = |uri: &str| -> Option<Identity> {
        let (certificate, key) = clients.issue(SanType::URI(uri.try_into().expect("a URI")));
        Some((certificate.der().clone(), PrivatePkcs8KeyDer::from(key.serialize_der())))
    };
    let known = exchange(&server, &ca, identity("spiffe://example/ci"), &ask("hello"));
    let (status, body) = known.expect("an answer");
    assert_eq!(status, 200, "{body}");
    assert_eq!(first_text(&serde_json::from_str(&body).expect("JSON")), "hello");
    let other = exchange(&server, &ca, identity("spiffe://example/other"), &ask("hello"));
    assert_eq!(other.expect("an answer").0, 404, "nothing is permitted to it");
    let nobody = exchange(&server, &ca, None, &ask("hello"));
    assert_eq!(nobody.expect("an answer").0, 401);
    // The card says where it is, by TLS, and how to prove who one is.
    let (status, card) = exchange(&server, &ca, None, CARD).expect("a card");
    assert_eq!(status, 200);
    assert!(card.contains(&format!("https://{}/", server.gateway)), "{card}");
    assert!(card.contains("\"mtls\""), "{card}");
    // A client that trusts another CA gets no further than the handshake; nor does plain HTTP.
    let strange = exchange(&server, &Ca::fresh(), None, CARD).expect_err("no handshake");
    assert_eq!(strange.kind(), std::io::ErrorKind::InvalidData, "{strange}");
    let mut plain = TcpStream::connect(server.gateway).expect("a connection");
    plain.set_read_timeout(Some(Duration::from_secs(20))).expect("a deadline");
    plain.write_all(CARD.as_bytes()).expect("a request");
    let mut said = Vec::new();
    // An alert of TLS at most, or a reset.
    let _end = plain.read_to_end(&mut said);
    assert!(!said.starts_with(b"HTTP/"), "{}", String::from_utf8_lossy(&said));
    server.process.signal("TERM");
    assert_eq!(server.process.exit_code(), 0);
}

#[test]
fn a_file_of_tls_that_cannot_be_used_is_named_with_its_setting() {
    let (scratch, ca) = (Scratch::new(), Ca::fresh());
    let (certificate, key) = ca.server();
    let certificate = format!("--tls-certificate={}", scratch.file("node.crt", &certificate.pem()));
    let serve = |key: &str| {
        let key = format!("--tls-key={key}");
        let socket = "--control-socket=off";
        scratch.output(&["serve", "--agents-enabled=echo", socket, &certificate, &key])
    };
    let path = scratch.secret("wrong.key", "no key at all");
    serve(&path).failed_with(2, &["change tls.certificate, tls.key or tls.client_ca"]);
    let path = scratch.file("open.key", &key.serialize_pem());
    serve(&path).failed_with(2, &["open.key can be read by others", "chmod go-rwx"]);
}
