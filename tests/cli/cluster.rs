//! `cluster init`, `invite` and `join`, `node init`, and a node that has links.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use crate::scene::{Scratch, Server, mode};

#[test]
fn a_cluster_and_its_nodes_are_made_and_serve() {
    let scratch = Scratch::new();
    let ran = scratch.output(&["cluster", "init", "example", "--dir", "ca"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    for node in ["a", "b"] {
        let made = ["node", "init", node, "--authority", "ca", "--dir", node, "--role", "worker"];
        let ran = scratch.output(&made);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert!(ran.stdout.starts_with(&format!("{node} ")), "{}", ran.stdout);
        scratch.output(&made).failed_with(1, &["node-key.pem", "never overwritten"]);
    }
    for (name, expected) in [("ca/authority-key.pem", 0o600), ("a/node-key.pem", 0o600)] {
        assert_eq!(mode(&scratch.path(name)), expected, "{name}");
    }
    let identity = format!("--cluster-identity={}", scratch.path("a").display());
    let server = Server::start(&scratch, &["--cluster-listen=127.0.0.1:0", &identity]);
    let socket = format!("--control-socket={}", server.socket.display());
    let ran = scratch.output(&["tree", &socket]);
    assert!(ran.code == 0 && ran.stdout.contains("cluster"), "{}{}", ran.stdout, ran.stderr);
}

#[test]
fn what_is_missing_is_named() {
    let scratch = Scratch::new();
    let unnamed = scratch.output(&["serve", "--cluster-listen=127.0.0.1:0"]);
    unnamed.failed_with(2, &["cluster.identity", "neuroflow node init"]);
    let gone = ["serve", "--cluster-listen=127.0.0.1:0", "--cluster-identity=nowhere"];
    scratch.output(&gone).failed_with(2, &["cluster.identity", "nowhere/node.pem"]);
    let made = ["node", "init", "a", "--authority", "nowhere", "--dir", "a"];
    scratch.output(&made).failed_with(1, &["nowhere/authority.pem", "can't be read"]);
    scratch.output(&["cluster", "init", "no/name", "--dir", "ca"]).failed_with(1, &["authority"]);
}

#[test]
fn a_node_is_invited_and_joins_and_a_token_works_once() {
    let scratch = Scratch::new();
    assert_eq!(scratch.output(&["cluster", "init", "example", "--dir", "ca"]).code, 0);
    let invite = ["cluster", "invite", "c", "--authority", "ca", "--listen", "127.0.0.1:0"];
    let mut inviting = scratch
        .neuroflow(&[&invite[..], &["--role", "worker"]].concat())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the built binary");
    let mut out = BufReader::new(inviting.stdout.take().expect("a pipe"));
    let mut token = String::new();
    out.read_line(&mut token).expect("a token");
    let joining = ["cluster", "join", token.trim(), "--dir", "c"];
    // A folder that is in use uses nothing up.
    scratch.file("node.pem", "");
    let there = scratch.output(&["cluster", "join", token.trim(), "--dir", "."]);
    there.failed_with(1, &["node.pem", "is there already"]);
    let joined = scratch.output(&joining);
    assert_eq!(joined.code, 0, "{}", joined.stderr);
    assert!(joined.stdout.starts_with("c "), "{}", joined.stdout);
    let mut said = String::new();
    out.read_to_string(&mut said).expect("who has joined");
    assert_eq!(said, joined.stdout);
    assert!(inviting.wait().expect("it ends").success());
    assert_eq!(mode(&scratch.path("c/node-key.pem")), 0o600);
    let again = scratch.output(&["cluster", "join", token.trim(), "--dir", "d"]);
    again.failed_with(1, &["no certificate was given", "127.0.0.1"]);

    let identity = format!("--cluster-identity={}", scratch.path("c").display());
    let server = Server::start(&scratch, &["--cluster-listen=127.0.0.1:0", &identity]);
    let socket = format!("--control-socket={}", server.socket.display());
    let ran = scratch.output(&["tree", &socket]);
    assert!(ran.code == 0 && ran.stdout.contains("cluster"), "{}{}", ran.stdout, ran.stderr);
}

#[test]
fn an_invitation_that_nobody_takes_ends_and_so_does_its_token() {
    let scratch = Scratch::new();
    assert_eq!(scratch.output(&["cluster", "init", "example", "--dir", "ca"]).code, 0);
    let invite = ["cluster", "invite", "c", "--authority", "ca", "--listen", "127.0.0.1:0"];
    let ran = scratch.output(&[&invite[..], &["--within", "100ms"]].concat());
    ran.failed_with(1, &["nobody has joined", "--within"]);
    let token = ran.stdout.trim();
    scratch.output(&["cluster", "join", token, "--dir", "c"]).failed_with(1, &["has expired"]);
    let nonsense = scratch.output(&["cluster", "join", "nonsense", "--dir", "c"]);
    nonsense.failed_with(1, &["isn't a token", "nfj1."]);
    let invite = ["cluster", "invite", "c", "--authority", "nowhere", "--listen", "127.0.0.1:0"];
    scratch.output(&invite).failed_with(1, &["nowhere/authority.pem"]);
}
