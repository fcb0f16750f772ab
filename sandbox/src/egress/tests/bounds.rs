//! Bytes, connections and times.

use super::*;
use crate::limits;

fn bounds() -> EgressLimits {
    EgressLimits::default()
}

/// A response with this many bytes of body.
fn large(bytes: usize) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n{}", "x".repeat(bytes))
}

#[tokio::test]
async fn a_download_is_cut_at_the_byte() {
    let server = Server::saying(&large(300_000)).await;
    for (rule, bounds, reason) in [
        (server.rule(), bounds().bytes_down(100_000), EgressReason::BytesDown),
        (server.rule(), bounds().cell_bytes_down(100_000), EgressReason::CellBytesDown),
        (server.rule().max_bytes(100_000), bounds(), EgressReason::RuleBytes),
    ] {
        let scene = Scene::bounded([rule], bounds).await;
        let answer = scene.ask("GET", &server.host(), "/").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{reason:?}");
        assert!(answer.len() < 101_000, "{}", answer.len());
        let decision = scene.decision().await;
        assert_eq!(decision.reason, reason);
        let sent = if reason == EgressReason::RuleBytes { decision.bytes_up } else { 0 };
        assert_eq!(decision.bytes_down + sent, 100_000);
        assert_eq!(scene.tally.report().bytes_down, decision.bytes_down);
    }
}

#[tokio::test]
async fn an_upload_is_cut_at_the_byte() {
    let server = Server::saying(OK).await;
    for (bounds, reason) in [
        (bounds().bytes_up(50_000), EgressReason::BytesUp),
        (bounds().cell_bytes_up(50_000), EgressReason::CellBytesUp),
    ] {
        let scene = Scene::bounded([server.rule()], bounds).await;
        let host = server.host();
        let body = "x".repeat(200_000);
        let answer = scene
            .say(&format!("POST http://{host}/ HTTP/1.1\r\nHost: {host}\r\nContent-Length: 200000\r\n\r\n{body}"))
            .await;
        assert!(
            answer.contains(&format!("x-neuroflow-egress: cut; reason={}", reason.code())),
            "{answer}"
        );
        let decision = scene.decision().await;
        assert_eq!((decision.reason, decision.bytes_up), (reason, 50_000));
    }
    assert!(server.heard().iter().all(|heard| heard.len() <= 50_000));
}

#[tokio::test]
async fn a_cell_that_has_used_up_its_bytes_gets_no_more_by_new_connections() {
    let server = Server::saying(&large(1000)).await;
    let scene = Scene::bounded([server.rule()], bounds().cell_bytes_down(2500)).await;
    for _ in 0..5 {
        let _answer = scene.ask("GET", &server.host(), "/").await;
    }
    let report = scene.report(5).await;
    assert_eq!(report.bytes_down, 2500);
    assert_eq!(report.decisions[4].reason, EgressReason::CellBytesDown);
}

#[tokio::test]
async fn a_tunnel_is_cut_at_the_byte() {
    let mut tasks = JoinSet::new();
    let port = echo(&mut tasks).await;
    let rule = Rule::host(NAME).port(port).allow_private(LOCAL).opaque_tunnel();
    let scene = Scene::bounded([rule], bounds().bytes_up(1000)).await;
    let (mut client, _head) = scene.tunnel(&format!("{NAME}:{port}")).await;
    client.write_all(&[7; 5000]).await.unwrap();
    let mut back = Vec::new();
    let _reset = client.read_to_end(&mut back).await;
    let decision = scene.decision().await;
    assert_eq!((decision.reason, decision.bytes_up), (EgressReason::BytesUp, 1000));
    assert!(back.len() <= 1000);
}

#[tokio::test]
async fn connections_are_counted_and_the_next_one_is_refused() {
    let server = Server::saying(OK).await;
    let scene = Scene::bounded([server.rule()], bounds().connections(2)).await;
    for _ in 0..2 {
        assert!(scene.ask("GET", &server.host(), "/").await.starts_with("HTTP/1.1 200"));
    }
    let refused = scene.ask("GET", &server.host(), "/").await;
    assert_eq!(refused, refusal(EgressReason::Connections));
    assert_eq!(server.heard().len(), 2);
    for _ in 1..limits::EGRESS_REFUSALS {
        let refused = scene.ask("GET", &server.host(), "/").await;
        assert_eq!(refused, refusal(EgressReason::Connections));
    }
    // Nobody listens any more.
    assert!(TcpStream::connect(scene.address).await.is_err());
    let all = 2 + usize::try_from(limits::EGRESS_REFUSALS).unwrap();
    assert_eq!(scene.report(all).await.denied, limits::EGRESS_REFUSALS);
}

#[tokio::test]
async fn a_thousand_connections_pass_a_few_at_a_time() {
    let server = Server::saying(OK).await;
    let scene = Scene::bounded([server.rule()], bounds().concurrent(16)).await;
    let (address, host) = (scene.address, server.host());
    let request = format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let mut clients = JoinSet::new();
    for _ in 0..1000 {
        while clients.len() >= 100 {
            clients.join_next().await.unwrap().unwrap();
        }
        let request = request.clone();
        clients.spawn(async move {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(request.as_bytes()).await.unwrap();
            assert!(rest(&mut client).await.starts_with("HTTP/1.1 200 OK"));
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    let report = scene.report(1000).await;
    assert_eq!((report.allowed, report.denied, report.dropped), (1000, 0, 0));
}

#[tokio::test]
async fn further_clients_wait_at_the_bound() {
    let mut tasks = JoinSet::new();
    let port = echo(&mut tasks).await;
    let rule = Rule::host(NAME).port(port).allow_private(LOCAL).opaque_tunnel();
    let scene = Scene::bounded([rule], bounds().concurrent(1)).await;
    let target = format!("{NAME}:{port}");
    let (first, head) = scene.tunnel(&target).await;
    assert!(head.starts_with("HTTP/1.1 200"));
    let soon = scene.clock.now() + Duration::from_millis(100);
    let mut waiting = std::pin::pin!(scene.tunnel(&target));
    assert!(scene.clock.before(soon, waiting.as_mut()).await.is_err());
    drop(first);
    assert!(waiting.await.1.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_slow_head_is_not_waited_for() {
    let server = Server::saying(OK).await;
    let scene =
        Scene::bounded([server.rule()], bounds().head_time(Duration::from_millis(100))).await;
    let mut client = scene.client().await;
    let begun = scene.clock.now();
    for _ in 0..40 {
        // A byte now and then keeps nothing alive.
        if client.write_all(b"G").await.is_err() {
            break;
        }
        scene.clock.sleep(Duration::from_millis(20)).await;
    }
    let decision = scene.decision().await;
    assert_eq!(decision.reason, EgressReason::HeadTime);
    assert!(scene.clock.now().since(begun) < Duration::from_secs(5));
    // Nor is the first record of a tunnel.
    let (mut client, head) = scene.tunnel(&server.host()).await;
    assert!(head.starts_with("HTTP/1.1 200"));
    assert_eq!(rest(&mut client).await, "");
    assert_eq!(scene.report(2).await.decisions[1].reason, EgressReason::HeadTime);
}

#[tokio::test]
async fn a_client_that_never_reads_is_cut_when_nothing_passes() {
    let server = Server::saying(&large(20_000_000)).await;
    let scene =
        Scene::bounded([server.rule()], bounds().idle_time(Duration::from_millis(200))).await;
    let mut client = scene.client().await;
    let host = server.host();
    let request = format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let decision = scene.decision().await;
    assert_eq!(decision.reason, EgressReason::Idle);
    assert!(decision.bytes_down < 20_000_000, "the proxy doesn't hold what nobody reads");
    drop(client);
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    let silent = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let rule = || Rule::host(NAME).port(port).allow_private(LOCAL).opaque_tunnel();
    let brief = Duration::from_millis(150);
    for (bounds, reason) in [
        (bounds().idle_time(brief), EgressReason::Idle),
        (bounds().total_time(brief), EgressReason::TotalTime),
    ] {
        let scene = Scene::bounded([rule()], bounds).await;
        let _nothing = scene.ask("GET", &format!("{NAME}:{port}"), "/").await;
        assert_eq!(scene.decision().await.reason, reason);
        let (mut client, _head) = scene.tunnel(&format!("{NAME}:{port}")).await;
        assert_eq!(rest(&mut client).await, "");
        assert_eq!(scene.report(2).await.decisions[1].reason, reason);
    }
}

#[tokio::test]
async fn a_half_open_tunnel_passes_what_is_left() {
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let rule = Rule::host(NAME).port(port).allow_private(LOCAL).opaque_tunnel();
    let scene = Scene::with([rule]).await;
    let (mut client, _head) = scene.tunnel(&format!("{NAME}:{port}")).await;
    let (mut server, _peer) = listener.accept().await.unwrap();
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(rest(&mut server).await, "question");
    server.write_all(b"answer").await.unwrap();
    drop(server);
    assert_eq!(rest(&mut client).await, "answer");
    assert_eq!(scene.decision().await.reason, EgressReason::Allowed);
}

#[tokio::test]
async fn a_name_that_takes_too_long_is_given_up() {
    #[derive(Debug)]
    struct Never;
    impl Resolve for Never {
        fn resolve(&self, _name: String) -> Lookup {
            Box::pin(std::future::pending())
        }
    }
    let network = Network::allow([Rule::host(NAME).port(80)])
        .limits(bounds().resolve_time(Duration::from_millis(50)));
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let policy = network.policy().unwrap().unwrap();
    let egress = Egress::of(listener, policy, "c".to_owned(), Clock::system(), Arc::new(Never));
    let mut tasks = JoinSet::new();
    tasks.spawn(egress.proxy.run(std::future::pending()));
    let mut client = TcpStream::connect(address).await.unwrap();
    let request = format!("GET http://{NAME}/ HTTP/1.1\r\nHost: {NAME}\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let answer = rest(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 504 Gateway Timeout: "), "{answer}");
    assert!(answer.contains("x-neuroflow-egress: failed; reason=resolve_timeout"), "{answer}");
}

#[tokio::test]
async fn the_end_of_the_proxy_ends_every_connection_and_records_it() {
    let mut tasks = JoinSet::new();
    let port = echo(&mut tasks).await;
    let rule = Rule::host(NAME).port(port).allow_private(LOCAL).opaque_tunnel();
    let mut scene = Scene::with([rule]).await;
    let target = format!("{NAME}:{port}");
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(scene.tunnel(&target).await.0);
    }
    scene.end().await;
    for client in &mut clients {
        assert_eq!(rest(client).await, "");
    }
    assert!(TcpStream::connect(scene.address).await.is_err());
    let report = scene.report(5).await;
    assert!(
        report.decisions.iter().all(|decision| decision.reason == EgressReason::Stopped),
        "{report:?}"
    );
}

#[tokio::test]
async fn a_refused_upload_still_sees_its_answer() {
    let scene = Scene::with([Rule::host(NAME)]).await;
    for _ in 0..20 {
        let mut client = scene.client().await;
        let head = "POST http://other.example/ HTTP/1.1\r\nHost: other.example\r\nContent-Length: 100000\r\n\r\n";
        client.write_all(head.as_bytes()).await.unwrap();
        client.write_all(&vec![b'x'; 100_000]).await.unwrap();
        assert_eq!(rest(&mut client).await, refusal(EgressReason::Host));
    }
}

#[tokio::test]
async fn a_client_that_keeps_sending_after_a_refusal_is_not_listened_to_for_ever() {
    let scene = Scene::with([Rule::host(NAME)]).await;
    let mut client = scene.client().await;
    let begun = scene.clock.now();
    let head = "POST http://other.example/ HTTP/1.1\r\nHost: other.example\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    while client.write_all(b"5\r\nabcde\r\n").await.is_ok() {
        scene.clock.sleep(Duration::from_millis(10)).await;
        assert!(scene.clock.now().since(begun) < limits::EGRESS_LINGER_TIME * 10);
    }
}
