//! `cluster init`, `node init`, and a node that has links.

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
