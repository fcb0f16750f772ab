//! `tree` and the control socket behind it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use crate::scene::{Scratch, Server, mode};

fn ask(server: &Server, request: &[u8]) -> serde_json::Value {
    let mut stream = UnixStream::connect(&server.socket).expect("a connection");
    stream.write_all(request).expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    serde_json::from_str(&answer).expect("JSON")
}

#[test]
fn the_socket_is_private_and_answers_in_versioned_json() {
    let scratch = Scratch::new();
    let server = Server::start(&scratch, &["--agents-enabled=echo"]);
    assert_eq!(mode(&server.socket), 0o600);
    assert_eq!(mode(server.socket.parent().unwrap()), 0o700);
    let answer = ask(&server, b"{\"command\":\"tree\"}\n");
    assert_eq!(answer["version"], 1);
    assert_eq!(answer["tree"]["node"]["pid"], server.process.0.id());
    let actors = answer["tree"]["actors"].as_array().unwrap();
    let echo = actors.iter().find(|actor| actor["path"] == "/agents/echo").unwrap();
    assert_eq!((&echo["kind"], &echo["state"]), (&"agent".into(), &"running".into()));
    assert_eq!(echo["mailbox"]["depth"], 0);
    assert!(echo["mailbox"]["capacity"].as_u64().unwrap() > 0);
    assert_eq!((&echo["restarts"], &echo["handled"]), (&0.into(), &0.into()));
    assert!(echo["age_seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(answer["tree"]["post_mortems"], serde_json::json!([]));
}

#[test]
fn a_request_that_is_none_is_answered_and_harms_nobody() {
    let scratch = Scratch::new();
    let server = Server::start(&scratch, &["--agents-enabled=echo"]);
    let answer = ask(&server, b"{\"command\":\"stop\"}\n");
    assert_eq!(answer["error"]["code"], "malformed_request");
    let answer = ask(&server, &vec![b'x'; 16 * 1024 + 1]);
    assert_eq!(answer["error"]["code"], "request_too_large");
    // Connections that say nothing take no place from those that do for long.
    let _silent: Vec<UnixStream> =
        (0..4).map(|_| UnixStream::connect(&server.socket).unwrap()).collect();
    assert_eq!(ask(&server, b"{\"command\":\"tree\"}\n")["version"], 1);
}

#[test]
fn the_tree_is_drawn() {
    let scratch = Scratch::new();
    let server = Server::start(&scratch, &[]);
    let socket = server.socket.to_str().unwrap();
    let ran = scratch.output(&["tree", "--socket", socket]);
    assert_eq!(ran.code, 0, "{ran:?}");
    for text in ["ACTOR", "├─ agents", "│  ├─ echo", "│  └─ shell", "└─ tools", "0/1024"]
    {
        assert!(ran.stdout.contains(text), "{text:?} isn't in {}", ran.stdout);
    }
    let ran = scratch.output(&["tree", "--socket", socket, "--json"]);
    let answer: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(answer["version"], 1);
}

#[test]
fn without_a_node_it_says_how_to_start_one() {
    let scratch = Scratch::new();
    let ran = scratch.output(&["tree", "--socket", "nothing.sock"]);
    ran.failed_with(1, &["nothing.sock", "neuroflow serve", "--control-socket"]);
}

#[test]
fn a_second_node_cannot_take_the_socket_and_one_after_a_crash_can() {
    let scratch = Scratch::new();
    let mut server = Server::start(&scratch, &["--agents-enabled=echo"]);
    let socket = format!("--control-socket={}", server.socket.display());
    let second =
        ["serve", "--gateway-listen=127.0.0.1:0", "--telemetry-metrics-listen=off", &socket];
    scratch.output(&second).failed_with(1, &["another node is running", "control.socket"]);
    server.process.signal("KILL");
    server.process.exit_code();
    assert!(server.socket.exists(), "a killed node leaves its socket");
    let server = Server::start(&scratch, &["--agents-enabled=echo"]);
    assert_eq!(ask(&server, b"{\"command\":\"tree\"}\n")["version"], 1);
}
