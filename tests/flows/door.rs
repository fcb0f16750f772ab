//! The gateway's door: names and origins, TLS with certificates that change, clients that don't play
//! by the rules, and the end of a node that is about to stop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use neuroflow::actors::limits::HEAD_DEADLINE;
use neuroflow::actors::{AccessConfig, AuditConfig, RulesSource, TlsFiles};
use neuroflow::{
    AgentBuilder, AnyAgent, Echo, GatewayConfig, ManualClock, Meter, Metered, Node, NodeBuilder,
};
use rcgen::{Certificate, KeyPair, SanType};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

use crate::access::{Files, token};
use crate::audit::audited;
use crate::ca::Ca;
use crate::client::{Connection, message, post as posted, request, within};
use crate::streams::fields;
use crate::support::{eventually, loopback, pause, start};

fn echo(change: impl FnOnce(&mut GatewayConfig)) -> NodeBuilder {
    let mut gateway = GatewayConfig::new(loopback());
    change(&mut gateway);
    Node::builder().agent(AnyAgent::new(Echo)).gateway_with(gateway)
}

/// What a plain request is answered with.
async fn exchange(to: SocketAddr, head: &str) -> crate::client::Response {
    let mut connection = Connection::open(to).await;
    connection.send(head.as_bytes()).await.expect("it is sent");
    connection.receive().await.expect("an answer")
}

#[tokio::test]
async fn pages_that_only_pretend_to_be_local_are_refused() {
    let app = "https://app.example";
    let (node, to) = start(echo(|gateway| gateway.door.origins = vec![app.to_owned()])).await;
    let get = |headers: &str| format!("GET /agents HTTP/1.1\r\n{headers}\r\n\r\n");
    let port = to.port();
    for (headers, status) in [
        (format!("host: localhost:{port}"), 200),
        (format!("host: 127.0.0.1:{port}"), 200),
        ("host: evil.example".to_owned(), 421),
        (format!("host: localhost.evil.example:{port}"), 421),
        ("x: y".to_owned(), 400),
        ("host: localhost\r\nhost: localhost".to_owned(), 400),
        (format!("host: localhost:{port}\r\norigin: http://localhost:{port}"), 200),
        (format!("host: localhost:{port}\r\norigin: http://evil.example"), 403),
        ("host: localhost\r\norigin: null".to_owned(), 403),
    ] {
        let response = exchange(to, &get(&headers)).await;
        assert_eq!(response.status, status, "{headers} {}", response.text());
        assert!(response.header("access-control-allow-origin").is_none(), "{headers}");
    }
    let response = exchange(to, &get(&format!("host: localhost\r\norigin: {app}"))).await;
    assert_eq!(response.status, 200);
    assert_eq!(response.header("access-control-allow-origin"), Some(app));
    let asks = |origin: &str| {
        format!(
            "OPTIONS / HTTP/1.1\r\nhost: localhost\r\norigin: {origin}\r\n\
             access-control-request-method: POST\r\n\
             access-control-request-headers: content-type,mcp-method,mcp-param-x\r\n\r\n"
        )
    };
    let preflight = exchange(to, &asks(app)).await;
    assert_eq!(
        (preflight.status, preflight.header("access-control-allow-origin")),
        (204, Some(app))
    );
    // Protocols and libraries have headers of their own, and not all of them are known.
    let sent = preflight.header("access-control-allow-headers");
    assert_eq!(sent, Some("content-type,mcp-method,mcp-param-x"));
    assert_eq!(exchange(to, &asks("https://evil.example")).await.status, 403);
    node.stop().await;
}

#[tokio::test]
async fn every_answer_has_the_id_of_its_request() {
    let (node, to) = start(echo(|_| ())).await;
    let mut connection = Connection::open(to).await;
    let body = request("SendMessage", message(json!([{ "text": "hi" }])));
    let own = connection.post_with("/", &[("x-request-id", "trace-me.1")], &body).await;
    assert_eq!((own.status, own.header("x-request-id")), (200, Some("trace-me.1")));
    let forged = connection.post_with("/", &[("x-request-id", "a b\"c")], &body).await;
    let made = forged.header("x-request-id").expect("an id");
    assert!(made.len() == 32 && made.bytes().all(|byte| byte.is_ascii_hexdigit()), "{made}");
    let refused = connection.post_with("/", &[("origin", "null")], &body).await;
    assert_eq!((refused.status, refused.header("x-request-id").map(str::len)), (403, Some(32)));
    node.stop().await;
}

#[tokio::test]
async fn packed_bodies_and_endless_heads_are_refused() {
    let (node, to) = start(echo(|_| ())).await;
    let mut connection = Connection::open(to).await;
    for encoding in ["gzip", "br", "deflate, gzip", "identity, gzip"] {
        let response =
            connection.post_with("/", &[("content-encoding", encoding)], b"\x1f\x8b").await;
        assert_eq!(response.status, 415, "{encoding} {}", response.text());
        assert_eq!(response.header("accept-encoding"), Some("identity"));
    }
    let body = request("SendMessage", message(json!([{ "text": "hi" }])));
    let plain = connection.post_with("/", &[("content-encoding", "identity")], &body).await;
    assert_eq!(plain.status, 200, "{}", plain.text());
    let lines = "x-line: y\r\n".repeat(101);
    let many = format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\n{lines}\r\n");
    assert_eq!(exchange(to, &many).await.status, 431);
    node.stop().await;
}

/// Clients' libraries send heads and bodies apart. Who is refused meanwhile must still get the answer, and can ask
/// again on the same connection.
#[tokio::test]
async fn what_is_refused_before_its_body_is_there_keeps_its_connection() {
    let (node, to) = start(echo(|_| ())).await;
    let body = request("SendMessage", message(json!([{ "text": "hi" }])));
    for (path, headers, status) in [
        ("/nowhere", &[][..], 404),
        ("/", &[("origin", "null")], 403),
        ("/", &[("content-encoding", "gzip")], 415),
    ] {
        let whole = posted(path, headers, &body);
        let (head, rest) = whole.split_at(whole.len() - body.len());
        let mut connection = Connection::open(to).await;
        connection.send(head).await.expect("it is sent");
        pause(50).await;
        connection.send(rest).await.expect("nobody has hung up");
        let refused = connection.receive().await.expect("an answer");
        assert_eq!(refused.status, status, "{}", refused.text());
        assert_eq!(connection.get("/healthz").await.status, 200, "{path} {headers:?}");
    }
    // Nobody waits for what comes only if it's asked for, what is too much to throw away, or what never comes.
    for headers in [
        &[("expect", "100-continue"), ("content-length", "9")][..],
        &[("content-length", "100000")],
        &[("content-length", "9")],
    ] {
        let mut connection = Connection::open(to).await;
        connection.send(&posted("/nowhere", headers, b"")).await.expect("it is sent");
        let refused = connection.receive().await.expect("an answer");
        assert_eq!(refused.status, 404, "{headers:?} {}", refused.text());
        assert!(connection.ended().await.is_empty(), "{headers:?}");
    }
    node.stop().await;
}

struct Tls {
    files: Files,
    ca: Ca,
    paths: TlsFiles,
}

impl Tls {
    fn fresh() -> Self {
        let (files, ca) = (Files::fresh(), Ca::fresh());
        let (certificate, key) = ca.server();
        let certificate = files.write("crt", &certificate.pem());
        let paths = TlsFiles::new(certificate, files.write("key", &key.serialize_pem()));
        Self { files, ca, paths }
    }

    fn connector(&self, identity: Option<(Vec<u8>, Vec<u8>)>, alpn: &[&str]) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.certificate.der().clone()).expect("a CA");
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => builder
                .with_client_auth_cert(
                    vec![CertificateDer::from(certificate)],
                    PrivatePkcs8KeyDer::from(key).into(),
                )
                .expect("an identity"),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }
}

/// A certificate and its key, as TLS takes them.
fn der((certificate, key): &(Certificate, KeyPair)) -> (Vec<u8>, Vec<u8>) {
    (certificate.der().to_vec(), key.serialize_der())
}

async fn connect(to: SocketAddr, connector: &TlsConnector) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(to).await.expect("a connection");
    let name = ServerName::try_from("127.0.0.1").expect("a name");
    connector.connect(name, stream).await.expect("TLS")
}

/// The status of a POST that asks the agent, and the whole answer.
async fn post(stream: &mut TlsStream<TcpStream>, more: &str) -> (u16, String) {
    let body = request("SendMessage", message(json!([{ "text": "hello" }])));
    let head = format!(
        "POST / HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n\
         a2a-version: 1.0\r\n{more}content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.expect("a head");
    stream.write_all(&body).await.expect("a body");
    let mut answer = Vec::new();
    loop {
        let read = stream.read_buf(&mut answer).await.expect("an answer");
        assert!(read > 0, "it ended after {}", String::from_utf8_lossy(&answer));
        let text = String::from_utf8_lossy(&answer);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if length.and_then(|length| length.parse().ok()) == Some(body.len()) {
                let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
                return (status.expect("a status"), text.into_owned());
            }
        }
    }
}

fn peer(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    let certificates = stream.get_ref().1.peer_certificates().expect("a certificate");
    certificates[0].to_vec()
}

#[tokio::test]
async fn a_changed_certificate_is_shown_to_new_connections_and_ends_no_old_one() {
    let tls = Tls::fresh();
    let paths = tls.paths.clone();
    let log = tls.files.path().join("audit.log");
    let builder = echo(|gateway| gateway.door.tls = Some(paths));
    let (node, to) = start(builder.audit(AuditConfig::new(&log))).await;
    let verdicts = || -> Vec<String> {
        let changes = audited(&log, "config_changed").into_iter();
        let changes = changes.filter(|event| event["part"] == "certificate");
        changes.map(|event| event["verdict"].as_str().expect("a verdict").to_owned()).collect()
    };
    let connector = tls.connector(None, &["http/1.1"]);
    let mut old = connect(to, &connector).await;
    assert_eq!(post(&mut old, "").await.0, 200);
    // A key that doesn't fit changes nothing.
    let (certificate, key) = tls.ca.server();
    let (before, der) = (peer(&old), certificate.der().to_vec());
    tls.files.write("crt", &certificate.pem());
    tls.files.write("key", &key.serialize_pem());
    for _ in 0..600 {
        if peer(&connect(to, &connector).await) == der {
            break;
        }
        pause(50).await;
    }
    assert_eq!(peer(&connect(to, &connector).await), der);
    assert_ne!(before, der);
    assert_eq!(post(&mut old, "").await.0, 200);
    // While only one of the two files was there, they may have been looked at.
    eventually("the change in the log", || verdicts().last().is_some_and(|it| it == "allowed"))
        .await;
    let taken = verdicts().len();
    tls.files.write("key", "no key");
    eventually("the refusal in the log", || verdicts().len() > taken).await;
    assert_eq!(verdicts()[taken..], ["denied"]);
    let mut still = connect(to, &connector).await;
    assert_eq!((peer(&still), post(&mut still, "").await.0), (der, 200));
    // HTTP/2 is offered, and plain requests get no further.
    let second = connect(to, &tls.connector(None, &["h2", "http/1.1"])).await;
    assert_eq!(second.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut plain = Connection::open(to).await;
    plain.send(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("it is sent");
    assert!(plain.receive().await.is_err());
    node.stop().await;
}

#[tokio::test]
async fn a_clients_certificate_says_who_asks() {
    let mut tls = Tls::fresh();
    let clients = Ca::fresh();
    tls.paths.client_ca = Some(tls.files.write("clients", &clients.certificate.pem()));
    let mut access = AccessConfig::default();
    access.certificates = true;
    let ci = token("ci", &[]);
    access.tokens = Some(tls.files.write("tokens", ci.line()));
    access.rules = RulesSource::File(tls.files.write(
        "policy",
        r#"permit(principal == Certificate::"spiffe://example/ci", action, resource);"#,
    ));
    let paths = tls.paths.clone();
    let builder = echo(|gateway| gateway.door.tls = Some(paths)).access(access);
    let (node, to) = start(builder).await;
    let name = |uri: &str| SanType::URI(uri.try_into().expect("a URI"));
    let identity = |uri: &str| Some(der(&clients.issue(name(uri))));
    let known = tls.connector(identity("spiffe://example/ci"), &[]);
    assert_eq!(post(&mut connect(to, &known).await, "").await.0, 200);
    let other = tls.connector(identity("spiffe://example/other"), &[]);
    assert_eq!(post(&mut connect(to, &other).await, "").await.0, 404);
    let nobody = tls.connector(None, &[]);
    let (status, answer) = post(&mut connect(to, &nobody).await, "").await;
    assert!(status == 401 && answer.contains("www-authenticate: Bearer"), "{answer}");
    // A token goes before a certificate: it's for this request.
    let bearer = format!("authorization: Bearer {}\r\n", ci.secret());
    assert_eq!(post(&mut connect(to, &known).await, &bearer).await.0, 404);
    // One of another CA ends the handshake, which TLS 1.3 says after it.
    let strange = der(&Ca::fresh().issue(name("spiffe://example/ci")));
    let strange = tls.connector(Some(strange), &[]);
    let mut refused = connect(to, &strange).await;
    let _sent = refused.write_all(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").await;
    assert!(refused.read(&mut [0; 1]).await.is_err());
    node.stop().await;
}

#[tokio::test]
async fn a_connection_ends_with_its_clients_certificate() {
    let mut tls = Tls::fresh();
    let clients = Ca::fresh();
    tls.paths.client_ca = Some(tls.files.write("clients", &clients.certificate.pem()));
    let mut access = AccessConfig::default();
    access.certificates = true;
    access.rules =
        RulesSource::File(tls.files.write("policy", "permit(principal, action, resource);"));
    let paths = tls.paths.clone();
    // TLS looks at the machine's time: the node's begins there too, and then moves on.
    let (time, day) = (ManualClock::new(), Duration::from_hours(24));
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("a time");
    time.advance(now.saturating_sub(ManualClock::WALL_ORIGIN));
    let builder = echo(|gateway| gateway.door.tls = Some(paths)).access(access);
    let (node, to) = start(builder.clock(time.clock())).await;
    let name = SanType::URI("spiffe://example/ci".try_into().expect("a URI"));
    let identity = Some(der(&clients.issue_until(name, Some(now + day))));
    let mut first = connect(to, &tls.connector(identity.clone(), &["http/1.1"])).await;
    assert_eq!(post(&mut first, "").await.0, 200);
    let mut second = connect(to, &tls.connector(identity, &["h2"])).await;
    second.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("a preface");
    second.write_all(&frame(4, 0, 0, b"")).await.expect("settings");
    second.write_all(&frame(6, 0, 0, b"no hurry")).await.expect("a ping");
    let mut received = Vec::new();
    // The ping's answer: it's served.
    while !kinds(&received).contains(&6) {
        assert!(second.read_buf(&mut received).await.expect("frames") > 0, "it has ended");
    }
    assert!(!kinds(&received).contains(&7), "{received:?}");
    time.advance(day * 2);
    // It doesn't answer, and so is cut off when its time is over.
    let goodbye = tokio::select! {
        end = within(second.read_to_end(&mut received)) => end,
        () = async { loop { time.advance(Duration::from_secs(30)); pause(20).await; } } => {
            unreachable!("time goes on")
        }
    };
    // Without a goodbye of TLS there is one of HTTP/2.
    assert!(goodbye.is_ok() || kinds(&received).contains(&7), "{goodbye:?}");
    assert!(kinds(&received).contains(&7), "{received:?}");
    let mut rest = Vec::new();
    let _end = within(first.read_to_end(&mut rest)).await;
    assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    node.stop().await;
}

/// The kinds of the frames that were received as a whole.
fn kinds(mut received: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    while let Some(head) = received.first_chunk::<9>() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let length = 9 + usize::try_from(length).expect("a short frame");
        if received.len() < length {
            break;
        }
        kinds.push(head[3]);
        received = &received[length..];
    }
    kinds
}

#[tokio::test]
async fn a_gateway_without_its_certificate_does_not_start() {
    let tls = Tls::fresh();
    let (other, _) = Ca::fresh().server();
    tls.files.write("crt", &other.pem());
    let mut missing = tls.paths.clone();
    missing.key = PathBuf::from("/nowhere/key");
    for paths in [tls.paths.clone(), missing] {
        let error = echo(|gateway| gateway.door.tls = Some(paths)).start().await;
        let error = error.expect_err("it doesn't start");
        let causes =
            std::iter::successors(Some(&error as &dyn std::error::Error), |it| it.source());
        assert!(causes.map(ToString::to_string).any(|text| text.contains("tls.certificate")));
    }
}

/// A frame of HTTP/2.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

#[tokio::test]
async fn a_client_that_opens_and_resets_without_end_is_cut_off() {
    let (node, to) = start(echo(|_| ())).await;
    let mut stream = TcpStream::connect(to).await.expect("a connection");
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("a preface");
    stream.write_all(&frame(4, 0, 0, b"")).await.expect("settings");
    // GET http://localhost/healthz: indexed fields, and two literals.
    let mut head = vec![0x82, 0x86, 0x04, 8];
    head.extend(b"/healthz");
    head.extend([0x01, 9]);
    head.extend(b"localhost");
    let mut burst = Vec::new();
    for index in 0..20_000_u32 {
        let id = 2 * index + 1;
        burst.extend(frame(1, 0x05, id, &head));
        burst.extend(frame(3, 0, id, &8_u32.to_be_bytes()));
    }
    let (mut reader, mut writer) = stream.into_split();
    let sending = async {
        // It's cut off in the middle of it.
        let _cut = writer.write_all(&burst).await;
    };
    let reading = async {
        let mut received = Vec::new();
        let _end = reader.read_to_end(&mut received).await;
        received
    };
    // The server ends the connection: a client that only waits would wait for ever.
    let clock = neuroflow::kernel::Clock::system();
    let deadline = clock.now() + Duration::from_secs(30);
    let both = async { tokio::join!(sending, reading) };
    let ended = clock.before(deadline, both).await;
    let ((), received) = ended.expect("the server cuts the connection off");
    // GOAWAY, "enhance your calm", unless the reset of the connection has overtaken it.
    let goaway = received.windows(9).any(|head| head[3] == 7);
    assert!(goaway || received.len() < 200_000, "{} bytes", received.len());
    assert_eq!(Connection::open(to).await.get("/healthz").await.status, 200);
    node.stop().await;
}

/// A client of HTTP/2 that answers pings.
struct Ponging {
    stream: TcpStream,
    received: Vec<u8>,
    /// The kinds of the frames that have come.
    kinds: Vec<u8>,
    has_ended: bool,
}

impl Ponging {
    async fn open(to: SocketAddr, sent: &[u8]) -> Self {
        let mut stream = TcpStream::connect(to).await.expect("a connection");
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("a preface");
        stream.write_all(&frame(4, 0, 0, b"")).await.expect("settings");
        stream.write_all(sent).await.expect("it is sent");
        Self { stream, received: Vec::new(), kinds: Vec::new(), has_ended: false }
    }

    /// Takes what has come so far.
    async fn look(&mut self) {
        let mut more = [0; 4_096];
        loop {
            match self.stream.try_read(&mut more) {
                Ok(read @ 1..) => self.received.extend_from_slice(&more[..read]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Ok(0) | Err(_) => {
                    self.has_ended = true;
                    break;
                }
            }
        }
        while let Some(head) = self.received.first_chunk::<9>() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let (kind, flags) = (head[3], head[4]);
            let length = 9 + usize::try_from(length).expect("a short frame");
            if self.received.len() < length {
                break;
            }
            let whole: Vec<u8> = self.received.drain(..length).collect();
            if (kind, flags & 1) == (6, 0) {
                // It may be gone already.
                let _sent = self.stream.write_all(&frame(6, 1, 0, &whole[9..])).await;
            }
            self.kinds.push(kind);
        }
    }

    async fn until(&mut self, kind: u8) {
        for _ in 0..1_000 {
            self.look().await;
            if self.kinds.contains(&kind) {
                return;
            }
            pause(20).await;
        }
        panic!("{:?}", self.kinds);
    }
}

/// Whoever only answers pings would have a connection for ever, and all of them in the end.
#[tokio::test]
async fn a_peer_that_says_nothing_over_http2_loses_its_connection() {
    let (headers, goaway) = (1, 7);
    let time = ManualClock::new();
    let slow = AgentBuilder::new("slow", "Never ends.").on_ask(|_, _| std::future::pending());
    let builder = Node::builder().agent(slow).gateway(loopback()).clock(time.clock());
    // Its task never ends, and the clock stands still.
    let builder = builder.drain_within(Duration::ZERO);
    let (node, to) = start(builder).await;
    let page = frame(headers, 5, 1, &fields("/healthz", &[]));
    let sse = [("content-type", "application/json"), ("a2a-version", "1.0")];
    let stream = frame(headers, 4, 1, &fields("/", &sse));
    let body = request("SendStreamingMessage", message(json!([{ "text": "go" }])));
    let stream = [stream, frame(0, 1, 1, &body)].concat();
    let mut silent = Ponging::open(to, b"").await;
    let mut asked = Ponging::open(to, &page).await;
    let mut busy = Ponging::open(to, &stream).await;
    asked.until(headers).await;
    busy.until(headers).await;
    for _ in 0..700 {
        for peer in [&mut silent, &mut asked, &mut busy] {
            peer.look().await;
        }
        if silent.has_ended && asked.has_ended {
            break;
        }
        time.advance(HEAD_DEADLINE / 2);
        pause(20).await;
    }
    for peer in [&silent, &asked] {
        assert!(peer.has_ended && peer.kinds.contains(&goaway), "{:?}", peer.kinds);
    }
    assert!(!busy.has_ended && !busy.kinds.contains(&goaway), "{:?}", busy.kinds);
    assert_eq!(Connection::open(to).await.get("/healthz").await.status, 200);
    drop(busy);
    node.stop().await;
}

/// The requests of a gateway, by operation and status.
#[derive(Debug, Default)]
struct Counted(std::sync::Mutex<Vec<(&'static str, u16)>>);

impl Meter for Counted {
    fn request(&self, request: &Metered) {
        self.0.lock().expect("no panic").push((request.operation, request.status));
    }
}

#[tokio::test]
async fn what_is_not_let_in_is_counted() {
    let files = Files::fresh();
    let policy = files.write("policy", "permit(principal, action, resource);");
    let access = crate::access::config(&files.write("tokens", ""), &policy);
    let counted = Arc::<Counted>::default();
    let metered = Arc::clone(&counted);
    let (node, to) = start(echo(|gateway| gateway.meter = metered).access(access)).await;
    let mut connection = Connection::open(to).await;
    assert_eq!(connection.get("/agents").await.status, 401);
    assert_eq!(connection.post_with("/", &[("origin", "null")], b"{}").await.status, 403);
    assert_eq!(connection.get("/healthz").await.status, 200);
    let counted = counted.0.lock().expect("no panic").clone();
    assert_eq!(counted, [("refused", 401), ("refused", 403), ("/healthz", 200)]);
    node.stop().await;
}

#[tokio::test]
async fn a_node_that_is_about_to_stop_says_so_while_it_still_accepts() {
    let time = ManualClock::new();
    let delay = Duration::from_secs(5);
    let builder = echo(|gateway| gateway.door.drain_delay = delay).clock(time.clock());
    let (node, to) = start(builder).await;
    let ((), ()) = tokio::join!(node.stop(), async {
        for _ in 0..1_000 {
            if Connection::open(to).await.get("/readyz").await.status == 503 {
                break;
            }
            pause(10).await;
        }
        let mut late = Connection::open(to).await;
        assert_eq!(late.get("/readyz").await.status, 503);
        let body = request("SendMessage", message(json!([{ "text": "late" }])));
        assert_eq!(late.post("/", &body).await.status, 200);
        time.advance(delay);
        eventually("the end of listening", || std::net::TcpStream::connect(to).is_err()).await;
    });
}
