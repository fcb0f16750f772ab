//! Plain requests: which pass, and what of them.

use super::*;

#[tokio::test]
async fn an_allowed_request_is_answered_by_the_server() {
    let server = Server::saying(OK).await;
    let scene = Scene::with([server.rule().method("GET").path_prefix("/v1/")]).await;
    let answer = scene.ask("GET", &server.host(), "/v1/x?token=t").await;
    assert_eq!(answer, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok");
    let expected = format!(
        "GET /v1/x?token=t HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
        server.host()
    );
    assert_eq!(server.heard(), std::slice::from_ref(&expected));

    let decision = scene.decision().await;
    assert_eq!(decision.host, NAME);
    assert_eq!(decision.port, server.port());
    assert_eq!((decision.method.as_str(), decision.path.as_deref()), ("GET", Some("/v1/x")));
    assert_eq!((decision.reason, decision.rule), (EgressReason::Allowed, Some(0)));
    assert_eq!(decision.address, Some(LOCAL.parse().unwrap()));
    let report = scene.tally.report();
    assert_eq!((report.allowed, report.denied), (1, 0));
    let (up, down) = (expected.len() as u64, OK.len() as u64);
    assert_eq!((report.bytes_up, report.bytes_down), (up, down));
    assert_eq!((decision.bytes_up, decision.bytes_down), (up, down));
}

#[tokio::test]
async fn each_part_of_a_rule_is_held_and_named_in_the_refusal() {
    let server = Server::saying(OK).await;
    let scene = Scene::with([server.rule().method("GET").path_prefix("/v1/")]).await;
    let host = server.host();
    for (method, host, path, reason) in [
        ("GET", "other.example", "/v1/x", EgressReason::Host),
        ("GET", "x.api.test.example", "/v1/x", EgressReason::Host),
        ("GET", "127.0.0.1", "/v1/x", EgressReason::AddressLiteral),
        ("GET", NAME, "/v1/x", EgressReason::Port),
        ("POST", &host, "/v1/x", EgressReason::Method),
        ("get", &host, "/v1/x", EgressReason::Method),
        ("TRACE", &host, "/v1/x", EgressReason::Method),
        ("GET", &host, "/v2/x", EgressReason::Path),
        ("GET", &host, "/v1", EgressReason::Path),
        ("GET", &host, "/v1/../v2", EgressReason::PathAmbiguous),
        ("GET", &host, "/v1/%2e%2e/v2", EgressReason::PathAmbiguous),
        ("GET", &host, "/v1//x", EgressReason::PathAmbiguous),
        ("GET", &host, "/v1/%2Fx", EgressReason::PathAmbiguous),
    ] {
        assert_eq!(scene.ask(method, host, path).await, refusal(reason), "{method} {host} {path}");
    }
    assert_eq!(server.heard(), [""; 0]);
    let report = scene.report(13).await;
    assert_eq!((report.allowed, report.denied), (0, 13));
    assert_eq!((report.bytes_up, report.bytes_down), (0, 0));
    assert_eq!(scene.script.asked(), 0, "nothing is looked up before the rules were");
}

#[tokio::test]
async fn bodies_pass_in_both_directions() {
    let response = "HTTP/1.1 201 Whatever The Server Says\r\nTransfer-Encoding: chunked\r\n\
                    X-Kept: yes\r\nTrailer: x-t\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-T: 1\r\n\r\n";
    let server = Server::saying(response).await;
    let scene = Scene::with([server.rule()]).await;
    let host = server.host();
    let head = format!("POST http://{host}/ HTTP/1.1\r\nHost: {host}\r\n");
    let answer = scene.say(&format!("{head}Content-Length: 5\r\n\r\nhello")).await;
    assert_eq!(
        answer,
        "HTTP/1.1 201 Created\r\nx-kept: yes\r\nconnection: close\r\n\
         transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    );
    let chunked = "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Late: 1\r\n\r\n";
    let _answer = scene.say(&format!("{head}Expect: 100-continue\r\n{chunked}")).await;
    let heard = server.heard();
    assert!(heard[0].ends_with("content-length: 5\r\n\r\nhello"), "{heard:?}");
    assert!(
        heard[1].ends_with("transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        "{heard:?}"
    );
}

/// Methods whose requests have no body as a rule may have one.
#[tokio::test]
async fn a_body_of_unknown_length_passes_with_any_method() {
    let server = Server::saying(OK).await;
    let scene = Scene::with([server.rule()]).await;
    let host = server.host();
    for method in ["GET", "HEAD", "DELETE", "POST"] {
        let head = format!("{method} http://{host}/ HTTP/1.1\r\nHost: {host}\r\n");
        let body = "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
        let _answer = scene.say(&format!("{head}{body}")).await;
        let heard = server.heard().pop().unwrap();
        let (head, body) = heard.split_once("\r\n\r\n").unwrap();
        assert_eq!(head.matches("transfer-encoding: chunked").count(), 1, "{heard}");
        assert_eq!(body, "5\r\nhello\r\n0\r\n\r\n", "{method}");
    }
    let _answer = scene.ask("GET", &host, "/").await;
    let heard = server.heard().pop().unwrap();
    assert!(!heard.contains("transfer-encoding") && heard.ends_with("\r\n\r\n"), "{heard}");
}

#[tokio::test]
async fn a_connection_carries_one_request() {
    let server = Server::saying(OK).await;
    let scene = Scene::with([server.rule()]).await;
    let host = server.host();
    let one = format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let answer = scene.say(&one.repeat(2)).await;
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    assert_eq!(server.heard().len(), 1);
    assert_eq!(scene.decision().await.reason, EgressReason::Allowed);
}

#[tokio::test]
async fn a_response_to_head_keeps_its_length_and_has_no_body() {
    let server = Server::saying("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n").await;
    let scene = Scene::with([server.rule()]).await;
    let answer = scene.ask("HEAD", &server.host(), "/").await;
    assert_eq!(answer, "HTTP/1.1 200 OK\r\ncontent-length: 7\r\nconnection: close\r\n\r\n");
}

#[tokio::test]
async fn hop_headers_stay_here() {
    let response = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: x-hop\r\nX-Hop: 1\r\n\
                    Keep-Alive: timeout=9\r\nProxy-Authenticate: Basic\r\nUpgrade: h2c\r\n\
                    X-NeuroFlow-Egress: allowed\r\nX-Kept: 1\r\n\r\nok";
    let server = Server::saying(response).await;
    let scene = Scene::with([server.rule()]).await;
    let host = server.host();
    let request = format!(
        "GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\nConnection: keep-alive, X-Mine\r\n\
         X-Mine: 1\r\nProxy-Authorization: Basic eDp5\r\nProxy-Connection: keep-alive\r\n\
         TE: trailers\r\nUpgrade: websocket\r\nAccept: */*\r\n\r\n"
    );
    let answer = scene.say(&request).await;
    let expected =
        "HTTP/1.1 200 OK\r\nx-kept: 1\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
    assert_eq!(answer, expected);
    let expected =
        format!("GET / HTTP/1.1\r\naccept: */*\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    assert_eq!(server.heard(), [expected]);
}

#[tokio::test]
async fn failures_of_the_server_are_no_refusals() {
    for (response, why) in [
        ("", "nothing"),
        ("garbage\r\n\r\n", "no response"),
        ("HTTP/1.1 200 OK\r\nX: a\r\n folded\r\n\r\n", "a folded header"),
        ("HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: x\r\n\r\n", "a split response"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "two lengths"),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            "an upgrade",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
            "an encoding that nobody has asked for",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nab",
            "one that ends with the connection",
        ),
    ] {
        let server = Server::saying(response).await;
        let scene = Scene::with([server.rule()]).await;
        let answer = scene.ask("GET", &server.host(), "/").await;
        assert!(answer.starts_with("HTTP/1.1 502 Bad Gateway: "), "{why}: {answer}");
        assert!(answer.contains("x-neuroflow-egress: failed; reason=upstream_response"), "{why}");
        assert!(!answer.contains("ookie"), "{why}");
        assert_eq!(scene.decision().await.reason, EgressReason::UpstreamResponse, "{why}");
        assert_eq!(scene.tally.report().allowed, 1);
    }
}

#[tokio::test]
async fn a_response_that_breaks_off_is_not_passed_off_as_whole() {
    let server =
        Server::saying("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab").await;
    let scene = Scene::with([server.rule()]).await;
    let answer = scene.ask("GET", &server.host(), "/").await;
    // What was already passed on can't be taken back, but no last chunk says that it was all.
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(!answer.ends_with("0\r\n\r\n"), "{answer}");
    assert_eq!(scene.decision().await.reason, EgressReason::UpstreamResponse);
}

#[tokio::test]
async fn names_and_hosts_that_are_not_there_are_told_apart() {
    let gone = TcpListener::bind((LOCAL, 0)).await.unwrap().local_addr().unwrap().port();
    let rules = [
        Rule::host(NAME).port(gone).allow_private(LOCAL),
        Rule::host("unknown.example").port(80),
        Rule::host("empty.example").port(80),
    ];
    let scene = Scene::with(rules).await;
    scene.script.answer("empty.example", &[&[]]);
    let gone = format!("{NAME}:{gone}");
    for (host, code) in [
        (gone.as_str(), "unreachable"),
        ("unknown.example", "unresolved"),
        ("empty.example", "unresolved"),
    ] {
        let answer = scene.ask("GET", host, "/").await;
        assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
        assert!(answer.contains(&format!("failed; reason={code}")), "{answer}");
    }
}
