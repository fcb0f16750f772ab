//! Plain requests of the cell that go out as HTTPS.

use std::sync::Arc;

use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};

use super::*;

const SECRET: &str = "Bearer s3cr3t-token";

/// A TLS server for a name with a certificate of its own authority.
struct Secure {
    port: u16,
    root: Vec<u8>,
    heard: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl Secure {
    async fn named(name: &str) -> Self {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let root = cert.der().to_vec();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![CertificateDer::from(root.clone())], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&heard);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            loop {
                let (stream, _peer) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut request = String::new();
                while !is_whole(&request) {
                    let mut piece = [0; 4096];
                    let count = stream.read(&mut piece).await.unwrap();
                    request.push_str(&String::from_utf8_lossy(&piece[..count]));
                }
                kept.lock().unwrap().push(request);
                stream.write_all(OK.as_bytes()).await.unwrap();
                let _closed = stream.shutdown().await;
            }
        });
        Self { port, root, heard, _tasks: tasks }
    }

    fn rule(&self) -> Rule {
        Rule::host(NAME).port(self.port).allow_private(LOCAL).upstream_tls()
    }
}

#[tokio::test]
async fn the_secret_goes_out_under_tls() {
    let server = Secure::named(NAME).await;
    let rule = server.rule().trust_root(server.root.clone()).inject("authorization", SECRET);
    let scene = Scene::with([rule]).await;
    let host = format!("{NAME}:{}", server.port);
    let answer = scene.ask("GET", &host, "/v1/x").await;
    assert_eq!(answer, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok");
    let expected = format!(
        "GET /v1/x HTTP/1.1\r\nauthorization: {SECRET}\r\nhost: {host}\r\nconnection: close\r\n\r\n"
    );
    assert_eq!(*server.heard.lock().unwrap(), [expected]);
    let decision = scene.decision().await;
    assert!(decision.bytes_up > 300, "the handshake counts: {decision:?}");
}

#[tokio::test]
async fn a_server_that_nobody_vouches_for_gets_no_request() {
    // Another authority; the right one but another name; and a server without TLS.
    let server = Secure::named(NAME).await;
    let other = Secure::named("other.example").await;
    let mut tasks = JoinSet::new();
    let clear = echo(&mut tasks).await;
    let clear_rule = Rule::host(NAME).port(clear).allow_private(LOCAL).upstream_tls();
    for (rule, port) in [
        (server.rule().trust_root(other.root.clone()), server.port),
        (other.rule().trust_root(other.root.clone()), other.port),
        (clear_rule.trust_root(server.root.clone()), clear),
    ] {
        let scene = Scene::with([rule.inject("authorization", SECRET)]).await;
        let answer = scene.ask("GET", &format!("{NAME}:{port}"), "/").await;
        assert!(answer.starts_with("HTTP/1.1 502 Bad Gateway: "), "{answer}");
        assert!(answer.contains("failed; reason=upstream_tls"), "{answer}");
    }
    assert!(server.heard.lock().unwrap().is_empty() && other.heard.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_handshake_that_hangs_is_given_up() {
    let silent = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let root = Secure::named(NAME).await.root;
    let rule = Rule::host(NAME).port(port).allow_private(LOCAL).upstream_tls().trust_root(root);
    let bounds = EgressLimits::default().connect_time(Duration::from_millis(100));
    let scene = Scene::bounded([rule], bounds).await;
    let answer = scene.ask("GET", &format!("{NAME}:{port}"), "/").await;
    assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
    assert_eq!(scene.decision().await.reason, EgressReason::ConnectTime);
}

#[tokio::test]
async fn a_tunnel_of_a_real_client_passes_the_look_at_its_hello() {
    use tokio_rustls::{
        TlsConnector,
        rustls::{ClientConfig, RootCertStore, pki_types::ServerName},
    };
    let server = Secure::named(NAME).await;
    let rule = Rule::host(NAME).port(server.port).allow_private(LOCAL);
    let scene = Scene::with([rule]).await;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(server.root.clone())).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (client, head) = scene.tunnel(&format!("{NAME}:{}", server.port)).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let connector = TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from(NAME).unwrap();
    let mut client = connector.connect(name, client).await.unwrap();
    client.write_all(b"GET /inside HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _closed = client.read_to_end(&mut answer).await;
    assert_eq!(String::from_utf8_lossy(&answer), OK);
    assert!(server.heard.lock().unwrap()[0].starts_with("GET /inside"));
}
