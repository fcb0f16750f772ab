//! Headers that the proxy adds, and the cell never sees.

use std::{fmt::Write, sync::PoisonError};

use super::*;

const SECRET: &str = "Bearer s3cr3t-token";

#[tokio::test]
async fn the_server_sees_the_secret_and_the_cell_does_not() {
    let response = format!(
        "HTTP/1.1 200 {SECRET}\r\nContent-Length: 2\r\nAuthorization: {SECRET}\r\n\
         X-Echo: got {SECRET}\r\nLocation: http://x/?token=s3cr3t-token\r\n\
         X-Next: /?u=Bearer%20s3cr3t%2Dtoken\r\nX-Kept: 1\r\n\r\nok"
    );
    let server = Server::saying(&response).await;
    let rule = server.rule().inject("Authorization", SECRET).plaintext_secret_ok();
    let scene = Scene::with([rule]).await;
    let host = server.host();
    let request = format!(
        "GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\nAuthorization: mine\r\n\
         authorization: mine too\r\n\r\n"
    );
    let answer = scene.say(&request).await;
    assert_eq!(
        answer,
        "HTTP/1.1 200 OK\r\nx-kept: 1\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"
    );
    let heard = server.heard();
    assert_eq!(heard[0].matches("authorization").count(), 1, "{heard:?}");
    assert!(heard[0].contains(&format!("\r\nauthorization: {SECRET}\r\n")), "{heard:?}");
    assert!(!heard[0].contains("mine"), "{heard:?}");
    assert!(!format!("{:?}", scene.report(1).await).contains("s3cr3t"));
}

#[tokio::test]
async fn a_connection_header_does_not_take_the_secret_away() {
    let server = Server::saying(OK).await;
    let rule = server.rule().inject("x-api-key", "s3cr3t-token").plaintext_secret_ok();
    let scene = Scene::with([rule]).await;
    let host = server.host();
    let request = format!(
        "GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\nConnection: x-api-key, host\r\n\r\n"
    );
    assert!(scene.say(&request).await.starts_with("HTTP/1.1 200"));
    let heard = server.heard();
    assert!(heard[0].contains("x-api-key: s3cr3t-token\r\n"), "{heard:?}");
    assert!(heard[0].contains(&format!("host: {host}\r\n")), "{heard:?}");
}

#[tokio::test]
async fn a_request_that_the_rule_does_not_fit_gets_no_secret() {
    let server = Server::saying(OK).await;
    let rule = server.rule().path_prefix("/v1/").inject("x-api-key", SECRET).plaintext_secret_ok();
    let scene = Scene::with([rule, server.rule()]).await;
    assert!(scene.ask("GET", &server.host(), "/v1/x").await.starts_with("HTTP/1.1 200"));
    assert!(scene.ask("GET", &server.host(), "/v2/x").await.starts_with("HTTP/1.1 200"));
    // What the first rule finds ambiguous falls to the second, without the secret.
    assert!(scene.ask("GET", &server.host(), "/v1/../x").await.starts_with("HTTP/1.1 200"));
    let heard = server.heard();
    let holds: Vec<bool> = heard.iter().map(|request| request.contains(SECRET)).collect();
    assert_eq!(holds, [true, false, false]);
    let trace = scene.ask("TRACE", &server.host(), "/v1/x").await;
    assert_eq!(trace, refusal(EgressReason::Method));
}

#[tokio::test]
async fn a_rule_with_a_secret_is_not_passed_by_with_a_header() {
    let server = Server::saying(OK).await;
    let rule = server.rule().method("GET").path_prefix("/v1/");
    let scene = Scene::with([rule.inject("x-api-key", SECRET).plaintext_secret_ok()]).await;
    let host = server.host();
    for (header, reason) in [
        ("X-HTTP-Method-Override: DELETE", EgressReason::MethodOverride),
        ("x_http_method: DELETE", EgressReason::MethodOverride),
        ("X-Method-Override: DELETE", EgressReason::MethodOverride),
        ("X-Original-URL: /admin", EgressReason::PathOverride),
        ("x_rewrite_url: /admin", EgressReason::PathOverride),
    ] {
        let request =
            format!("GET http://{host}/v1/x HTTP/1.1\r\nHost: {host}\r\n{header}\r\n\r\n");
        assert_eq!(scene.say(&request).await, refusal(reason), "{header}");
    }
    assert_eq!(server.heard(), [""; 0]);
}

#[tokio::test]
async fn a_rule_with_a_secret_opens_no_tunnel() {
    let server = Server::saying(OK).await;
    let rule = server.rule().inject("x-api-key", SECRET).plaintext_secret_ok();
    let scene = Scene::with([rule]).await;
    let (mut client, head) = scene.tunnel(&server.host()).await;
    assert_eq!(head + &rest(&mut client).await, refusal(EgressReason::TunnelHidesRequest));
}

/// Keeps every event as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("neuroflow") || metadata.target().starts_with("hyper")
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        struct Text<'a>(&'a mut String);
        impl tracing::field::Visit for Text<'_> {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                write!(self.0, " {}={value:?}", field.name()).unwrap();
            }
        }
        let mut text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        text.push_str(event.metadata().target());
        event.record(&mut Text(&mut text));
        text.push('\n');
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn each_decision_is_logged_without_query_and_secret() {
    let log = Log::default();
    // With a single dispatcher, `tracing` asks the one of whichever thread logs first, which may
    // be another test's, and remembers that nobody listens.
    let _second = tracing::Dispatch::new(log.clone());
    let guard = tracing::subscriber::set_default(log.clone());
    let server = Server::saying(OK).await;
    let rule = server.rule().inject("x-api-key", SECRET).plaintext_secret_ok();
    let scene = Scene::with([rule]).await;
    let _answer = scene.ask("GET", &server.host(), "/v1/x?password=hidden").await;
    let _answer = scene.ask("GET", "other.example", "/y").await;
    scene.report(2).await;
    drop(guard);
    let text = log.0.lock().unwrap().clone();
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("verdict=")).collect();
    assert_eq!(lines.len(), 2, "{text}");
    let expected = format!(
        "neuroflow::egress message=egress cell=cell-1 host={NAME} port={} method=GET \
         path=\"/v1/x\" verdict=allowed reason=\"allowed\" bytes_up=",
        server.port()
    );
    assert!(lines[0].starts_with(&expected), "{}", lines[0]);
    assert!(lines[1].contains("host=other.example"), "{}", lines[1]);
    assert!(
        lines[1].contains("verdict=denied reason=\"host\" bytes_up=0 bytes_down=0"),
        "{}",
        lines[1]
    );
    assert!(!text.contains("hidden") && !text.contains("s3cr3t"), "{text}");
}
