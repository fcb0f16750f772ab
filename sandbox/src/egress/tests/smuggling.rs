//! Requests that two readers would read differently.

use super::*;

#[tokio::test]
async fn what_two_readers_could_read_differently_is_refused() {
    let server = Server::saying(OK).await;
    let scene = Scene::with([server.rule()]).await;
    let host = server.host();
    let body = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n";
    for (request, reason) in [
        (
            format!(
                "POST http://{host}/ HTTP/1.1\r\nHost: {host}\r\nContent-Length: 45\r\n{chunked}\r\n{body}"
            ),
            EgressReason::Framing,
        ),
        (
            format!(
                "POST http://{host}/ HTTP/1.1\r\nHost: {host}\r\n{chunked}Content-Length: 45\r\n\r\n{body}"
            ),
            EgressReason::Framing,
        ),
        (
            format!(
                "POST http://{host}/ HTTP/1.1\r\nHost: {host}\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab"
            ),
            EgressReason::Framing,
        ),
        (
            format!(
                "POST http://{host}/ HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: gzip, chunked\r\n\r\n{body}"
            ),
            EgressReason::Framing,
        ),
        (
            format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\nX: y\r\n\r\n"),
            EgressReason::LineEnding,
        ),
        (format!("GET http://{host}/ HTTP/1.1\nHost: {host}\n\n"), EgressReason::LineEnding),
        (
            format!("GET http://{host}/ HTTP/1.1\r\nHost: {NAME}\r\n\r\n"),
            EgressReason::HostMismatch,
        ),
        (
            format!("GET http://{host}/ HTTP/1.1\r\nHost: evil.example\r\n\r\n"),
            EgressReason::HostMismatch,
        ),
        (
            format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\nHost: {host}\r\n\r\n"),
            EgressReason::HostMismatch,
        ),
        (format!("GET http://{host}/ HTTP/1.1\r\n\r\n"), EgressReason::HostMismatch),
        (
            format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 3\r\n\r\nabc"),
            EgressReason::Framing,
        ),
        (
            format!("CONNECT {host} HTTP/1.1\r\nHost: evil.example:443\r\n\r\n"),
            EgressReason::HostMismatch,
        ),
        (format!("GET https://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"), EgressReason::Scheme),
        (format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), EgressReason::NotProxyRequest),
        (format!("GET {host} HTTP/1.1\r\nHost: {host}\r\n\r\n"), EgressReason::NotProxyRequest),
        (format!("OPTIONS * HTTP/1.1\r\nHost: {host}\r\n\r\n"), EgressReason::NotProxyRequest),
    ] {
        assert_eq!(scene.say(&request).await, refusal(reason), "{request}");
    }
    // The answer has the version of the question.
    let old = format!("GET http://{host}/ HTTP/1.0\r\nHost: {host}\r\n\r\n");
    let answer = scene.say(&old).await;
    assert!(
        answer.starts_with("HTTP/1.0 403 Forbidden: plain requests need HTTP/1.1\r\n"),
        "{answer}"
    );
    assert!(answer.contains("x-neuroflow-egress: denied; reason=http_version\r\n"), "{answer}");
    assert_eq!(server.heard(), [""; 0]);
}

#[tokio::test]
async fn what_the_parser_refuses_is_recorded_as_malformed() {
    let server = Server::saying(OK).await;
    let scene = Scene::with([server.rule()]).await;
    let host = server.host();
    let head = format!("POST http://{host}/ HTTP/1.1\r\nHost: {host}\r\n");
    let requests = [
        format!("{head}X: a\r\n folded\r\n\r\n"),
        format!("{head}X : a\r\n\r\n"),
        format!("{head}X: a\rY: b\r\n\r\n"),
        format!("{head}X: a\0b\r\n\r\n"),
        format!("{head}: a\r\n\r\n"),
        format!("{head}Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        format!("{head}Content-Length: +2\r\n\r\nab"),
        format!("{head}Content-Length: -1\r\n\r\n"),
        format!("{head}Content-Length: 99999999999999999999\r\n\r\n"),
        format!("{head}Transfer-Encoding: gzip\r\n\r\n"),
        format!("{head}Transfer-Encoding: chunked, gzip\r\n\r\n"),
        format!("GET  http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        format!("GET http://{host}/\tx HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        format!("GET http://exa\0mple.com/ HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        "GET http://b\u{fc}cher.example/ HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n".to_owned(),
        format!("{head}X: {}\r\n\r\n", "a".repeat(70_000)),
        format!("{head}{}\r\n", "X: a\r\n".repeat(200)),
    ];
    for request in &requests {
        let answer = scene.say(request).await;
        let start: String = request.chars().take(90).collect();
        let is_refused = answer.is_empty()
            || ["400 Bad Request", "431 Request Header", "414 URI Too Long"]
                .iter()
                .any(|status| answer.starts_with(&format!("HTTP/1.1 {status}")));
        assert!(is_refused, "{start:?}: {answer}");
    }
    let report = scene.report(requests.len()).await;
    assert_eq!(report.denied, requests.len() as u64);
    for decision in &report.decisions {
        assert_eq!(decision.reason, EgressReason::Malformed, "{report:?}");
    }
    assert_eq!(server.heard(), [""; 0]);
}

#[tokio::test]
async fn a_malformed_body_ends_the_request_and_is_not_passed_on_as_whole() {
    let server = Server::saying(OK).await;
    let scene = Scene::with([server.rule()]).await;
    let host = server.host();
    let head = format!(
        "POST http://{host}/ HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    for body in ["5\r\nabcdeXX0\r\n\r\n", "zz\r\n\r\n", "ffffffffffffffffff\r\na"] {
        let _answer = scene.say(&format!("{head}{body}")).await;
    }
    for heard in server.heard() {
        assert!(!heard.ends_with("0\r\n\r\n"), "{heard:?}");
    }
}
