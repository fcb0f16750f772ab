//! `CONNECT`: which tunnels open, and what they may carry.

use super::*;
use crate::egress::hello::build::{extension, hello, server_name};

const OPENED: &str = "HTTP/1.1 200 OK\r\n\r\n";
const ACCESS_DENIED: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];

fn rule(port: u16) -> Rule {
    Rule::host(NAME).port(port).allow_private(LOCAL)
}

#[tokio::test]
async fn a_tunnel_carries_bytes_in_both_directions_and_its_ends() {
    let mut tasks = JoinSet::new();
    let port = echo(&mut tasks).await;
    let scene = Scene::with([rule(port)]).await;
    let (mut client, head) = scene.tunnel(&format!("{NAME}:{port}")).await;
    assert_eq!(head, OPENED);
    let mut sent = hello(&[server_name(NAME)]);
    sent.extend(vec![7; 100_000]);
    client.write_all(&sent).await.unwrap();
    client.shutdown().await.unwrap();
    let mut back = Vec::new();
    client.read_to_end(&mut back).await.unwrap();
    assert_eq!(back, sent);
    let decision = scene.decision().await;
    assert_eq!((decision.method.as_str(), decision.path), ("CONNECT", None));
    assert_eq!(decision.reason, EgressReason::Allowed);
    let all = sent.len() as u64;
    assert_eq!((decision.bytes_up, decision.bytes_down), (all, all));
}

#[tokio::test]
async fn bytes_that_come_with_the_request_belong_to_the_tunnel() {
    let mut tasks = JoinSet::new();
    let port = echo(&mut tasks).await;
    let scene = Scene::with([rule(port)]).await;
    let target = format!("{NAME}:{port}");
    let sent = hello(&[server_name(NAME)]);
    let mut client = scene.client().await;
    let mut all = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").into_bytes();
    all.extend(&sent);
    client.write_all(&all).await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(head(&mut client).await, OPENED);
    let mut back = Vec::new();
    client.read_to_end(&mut back).await.unwrap();
    assert_eq!(back, sent);
}

#[tokio::test]
async fn clients_that_speak_the_old_version_get_their_tunnel() {
    let mut tasks = JoinSet::new();
    let port = echo(&mut tasks).await;
    let scene = Scene::with([rule(port).opaque_tunnel()]).await;
    let mut client = scene.client().await;
    client.write_all(format!("CONNECT {NAME}:{port} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
    assert_eq!(head(&mut client).await, "HTTP/1.0 200 OK\r\n\r\n");
    client.write_all(b"anything").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(rest(&mut client).await, "anything");
}

#[tokio::test]
async fn tunnels_that_no_rule_names_are_refused() {
    let mut tasks = JoinSet::new();
    let port = echo(&mut tasks).await;
    let rules = [
        rule(port),
        Rule::host("paths.test.example").path_prefix("/v1/"),
        Rule::host("methods.test.example").method("GET"),
        Rule::host("8.8.8.8"),
    ];
    let scene = Scene::with(rules).await;
    for (target, reason) in [
        (format!("other.example:{port}"), EgressReason::Host),
        (format!("{NAME}:443"), EgressReason::Port),
        (format!("{LOCAL}:{port}"), EgressReason::AddressLiteral),
        (format!("[::ffff:127.0.0.1]:{port}"), EgressReason::AddressLiteral),
        ("8.8.4.4:443".to_owned(), EgressReason::AddressLiteral),
        ("169.254.169.254:80".to_owned(), EgressReason::AddressLiteral),
        ("paths.test.example:443".to_owned(), EgressReason::TunnelHidesRequest),
        ("methods.test.example:443".to_owned(), EgressReason::TunnelHidesRequest),
        ("8.8.8.8:80".to_owned(), EgressReason::Port),
        (NAME.to_owned(), EgressReason::HostSyntax),
        (format!("{NAME}:0"), EgressReason::HostSyntax),
    ] {
        let (mut client, head) = scene.tunnel(&target).await;
        assert_eq!(head + &rest(&mut client).await, refusal(reason), "{target}");
    }
    assert_eq!(scene.script.asked(), 0);
}

#[tokio::test]
async fn what_isnt_the_named_server_gets_no_byte_through() {
    let server = Server::saying(OK).await;
    let scene = Scene::with([server.rule()]).await;
    let cases = [
        (hello(&[server_name("evil.example")]), EgressReason::ServerName),
        (hello(&[extension(43, &[2, 3, 4])]), EgressReason::ServerName),
        (hello(&[server_name(NAME), extension(0xfe0d, &[0; 9])]), EgressReason::EncryptedHello),
        (hello(&[server_name(NAME), server_name("evil.example")]), EgressReason::NotTls),
        (b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_vec(), EgressReason::NotTls),
        (b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), EgressReason::NotTls),
        (hello(&[server_name(NAME)])[..20].to_vec(), EgressReason::NotTls),
        (Vec::new(), EgressReason::NotTls),
    ];
    for (index, (sent, reason)) in cases.iter().enumerate() {
        let (mut client, head) = scene.tunnel(&server.host()).await;
        assert_eq!(head, OPENED);
        client.write_all(sent).await.unwrap();
        client.shutdown().await.unwrap();
        let mut back = Vec::new();
        let _reset = client.read_to_end(&mut back).await;
        assert_eq!(back, ACCESS_DENIED, "{reason:?}");
        let report = scene.report(index + 1).await;
        assert_eq!(report.decisions[index].reason, *reason);
        assert_eq!((report.allowed, report.bytes_up), (0, 0));
    }
    assert!(server.heard().iter().all(String::is_empty), "{:?}", server.heard());
}

#[tokio::test]
async fn a_hello_in_pieces_is_waited_for() {
    let mut tasks = JoinSet::new();
    let port = echo(&mut tasks).await;
    let scene = Scene::with([rule(port)]).await;
    let (mut client, _head) = scene.tunnel(&format!("{NAME}:{port}")).await;
    let sent = hello(&[server_name(NAME)]);
    for piece in sent.chunks(9) {
        client.write_all(piece).await.unwrap();
        scene.clock.sleep(Duration::from_millis(2)).await;
    }
    let mut back = vec![0; sent.len()];
    client.read_exact(&mut back).await.unwrap();
    assert_eq!(back, sent);
}

#[tokio::test]
async fn a_tunnel_to_a_named_address_has_no_server_name() {
    let mut tasks = JoinSet::new();
    let port = echo(&mut tasks).await;
    let scene = Scene::with([Rule::host(LOCAL).port(port)]).await;
    let (mut client, head) = scene.tunnel(&format!("{LOCAL}:{port}")).await;
    assert_eq!(head, OPENED);
    let sent = hello(&[]);
    client.write_all(&sent).await.unwrap();
    let mut back = vec![0; sent.len()];
    client.read_exact(&mut back).await.unwrap();
    assert_eq!(back, sent);
}
