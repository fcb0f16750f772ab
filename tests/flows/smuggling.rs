//! Requests that two readers could read differently: what is read, or the exact refusal, and that
//! nothing behind them is taken for a request.

use std::net::SocketAddr;

use neuroflow::{AnyAgent, Echo, Node};

use crate::client::Connection;
use crate::support::{loopback, start};

/// The status of each answer that bytes get.
async fn answers(to: SocketAddr, bytes: &[u8]) -> Vec<u16> {
    let mut connection = Connection::open(to).await;
    connection.send(bytes).await.expect("it is sent");
    // No more will come: a server that still waits for a body ends then.
    connection.finish_sending().await.expect("the end is sent");
    let said = String::from_utf8_lossy(&connection.ended().await).into_owned();
    let answers = said.split("HTTP/1.1 ").skip(1);
    answers.map(|answer| answer[..3].parse().expect("a status")).collect()
}

/// A request that is answered only if it's taken for one.
const NEXT: &str = "GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// A POST that would be refused by what it asks for, with 200 and an error of JSON-RPC: whether it's
/// read at all is what counts.
fn post(headers: &str, body: &str) -> Vec<u8> {
    let head = "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    format!("{head}{headers}\r\n{body}").into_bytes()
}

fn chunked(more: &str, body: &str) -> Vec<u8> {
    post(&format!("transfer-encoding: chunked\r\n{more}"), body)
}

async fn check(cases: &[(&str, Vec<u8>, &[u16])]) {
    let (node, to) = start(Node::builder().agent(AnyAgent::new(Echo)).gateway(loopback())).await;
    for (name, bytes, expected) in cases {
        assert_eq!(answers(to, bytes).await, *expected, "{name}");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_body_has_one_length() {
    let none = format!("0\r\n\r\n{NEXT}");
    let hidden = NEXT.len();
    let two = |first: usize, second: usize| {
        format!("content-length: {first}\r\ncontent-length: {second}\r\n")
    };
    check(&[
        // The chunks count, and whoever sees it otherwise finds the connection closed.
        ("a length and chunks", chunked("content-length: 5\r\n", &none), &[200]),
        (
            "chunks and a length",
            post("content-length: 5\r\ntransfer-encoding: chunked\r\n", &none),
            &[200],
        ),
        ("two lengths", post(&two(0, hidden), NEXT), &[400]),
        ("two lengths, the longer first", post(&two(hidden, 0), NEXT), &[400]),
        ("twice the same length", post(&two(2, 2), &format!("{{}}{NEXT}")), &[200, 200]),
        ("a list of lengths", post("content-length: 2, 2\r\n", "{}"), &[400]),
        ("a length with a sign", post("content-length: +2\r\n", "{}"), &[400]),
        ("less than nothing", post("content-length: -1\r\n", "{}"), &[400]),
        ("hexadecimal", post("content-length: 0x2\r\n", "{}"), &[400]),
        ("a space before the colon", post("content-length : 2\r\n", "{}"), &[400]),
        (
            "a body of a GET",
            format!(
                "GET /healthz HTTP/1.1\r\nhost: localhost\r\ncontent-length: {hidden}\r\n\r\n{NEXT}"
            )
            .into_bytes(),
            &[200],
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_body_is_coded_in_chunks_or_not_at_all() {
    let none = format!("0\r\n\r\n{NEXT}");
    let coded = |coding: &str| post(&format!("transfer-encoding: {coding}\r\n"), &none);
    let body = |body: &str| chunked("", &format!("{body}0\r\n\r\n{NEXT}"));
    check(&[
        ("chunks", coded("chunked"), &[200, 200]),
        ("in capitals", coded("CHUNKED"), &[200, 200]),
        ("an unknown coding", coded("xchunked"), &[400]),
        ("none, then chunks", coded("identity, chunked"), &[400]),
        ("packed, then chunks", coded("gzip, chunked"), &[400]),
        ("chunks, then none", coded("chunked, identity"), &[400]),
        ("chunks of chunks", coded("chunked, chunked"), &[400]),
        ("twice", chunked("transfer-encoding: chunked\r\n", &none), &[400]),
        ("chunks and none", chunked("transfer-encoding: identity\r\n", &none), &[400]),
        (
            "an older version has no chunks",
            b"POST / HTTP/1.0\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
                .to_vec(),
            &[400],
        ),
        ("an extension that ends early", body("2;a\n{}\r\n"), &[400]),
        ("a size that ends early", body("2\n{}\r\n"), &[400]),
        ("a size beyond all sizes", body("fffffffffffffffff\r\n{}\r\n"), &[400]),
        ("a size with a sign", body("-2\r\n{}\r\n"), &[400]),
        ("more than its size", body("1\r\n{}\r\n"), &[400]),
        // What comes after a body changes nothing of what came before it.
        (
            "trailers",
            chunked(
                "",
                &format!("2\r\n{{}}\r\n0\r\ncontent-length: 9\r\nhost: evil\r\n\r\n{NEXT}"),
            ),
            &[200, 200],
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_head_has_one_reading() {
    let head = |line: &str| format!("{line}\r\nhost: localhost\r\n\r\n{NEXT}").into_bytes();
    check(&[
        ("a folded line", post("x-a: b\r\n c: d\r\ncontent-length: 2\r\n", "{}"), &[400]),
        (
            "a folded coding",
            post("x-a: b\r\n transfer-encoding: chunked\r\ncontent-length: 2\r\n", "{}"),
            &[400],
        ),
        (
            "a folded length",
            post("x-a: b\r\n\tcontent-length: 0\r\ncontent-length: 2\r\n", "{}"),
            &[400],
        ),
        // A line may end so, says RFC 9112: then it ends there for everything that follows from it.
        (
            "a line feed alone",
            post(&format!("x-a: b\ncontent-length: {}\r\n", NEXT.len()), NEXT),
            &[200],
        ),
        (
            "two lengths by a line feed",
            post("content-length: 0\ncontent-length: 2\r\n", "{}"),
            &[400],
        ),
        (
            "a carriage return alone",
            post("x-a: b\rcontent-length: 5\r\ncontent-length: 2\r\n", "{}"),
            &[400],
        ),
        ("a zero byte", post("x-a: b\0c\r\ncontent-length: 2\r\n", "{}"), &[400]),
        ("a name with a space", post("x a: b\r\ncontent-length: 2\r\n", "{}"), &[400]),
        ("no version", head("GET /healthz"), &[400]),
        ("another version", head("GET /healthz HTTP/2.0"), &[400]),
        ("a space in the target", head("GET /healthz /x HTTP/1.1"), &[400]),
        ("a target of another host", head("GET http://evil.example/healthz HTTP/1.1"), &[400, 200]),
        ("a tunnel", head("CONNECT localhost:80 HTTP/1.1"), &[400, 200]),
        (
            "an upgrade that isn't spoken",
            head("GET /healthz HTTP/1.1\r\nconnection: upgrade\r\nupgrade: h2c"),
            &[200, 200],
        ),
        ("empty lines before it", format!("\r\n\r\n{NEXT}").into_bytes(), &[200]),
    ])
    .await;
}
