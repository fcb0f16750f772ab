//! `cluster init`, `invite` and `join`, `node init`, and a node that has links.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::promtool;
use crate::scene::{Scratch, Server, audited, get, mode, set_mode};

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
    let left = std::fs::read_dir(scratch.path("a")).unwrap().count();
    assert_eq!(left, 3, "nothing is left of how they were written");
    let identity = format!("--cluster-identity={}", scratch.path("a").display());
    // What we trust nobody else may write, and our key nobody else may read.
    for (name, mode, word) in [
        ("node-key.pem", 0o644, "read"),
        ("node.pem", 0o664, "written"),
        ("authority.pem", 0o646, "written"),
        ("revocations.txt", 0o666, "written"),
    ] {
        let path = scratch.path("a").join(name);
        let was = path.exists().then(|| crate::scene::mode(&path));
        if was.is_none() {
            std::fs::write(&path, "").unwrap();
        }
        set_mode(&path, mode);
        let ran = scratch.output(&["serve", "--cluster-listen=127.0.0.1:0", &identity]);
        ran.failed_with(2, &[name, &format!("can be {word} by others"), "chmod go-"]);
        match was {
            Some(was) => set_mode(&path, was),
            None => std::fs::remove_file(&path).unwrap(),
        }
    }
    // A secret that is mounted for a program is often root's, and its group's to read.
    let key = scratch.path("a/node-key.pem");
    set_mode(&key, if is_root(&key) { 0o440 } else { 0o400 });
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
    for alone in ["--cluster-identity=a", "--cluster-seeds=127.0.0.1:7946"] {
        scratch.output(&["serve", alone]).failed_with(2, &["needs cluster.listen"]);
    }
    let gone = ["serve", "--cluster-listen=127.0.0.1:0", "--cluster-identity=nowhere"];
    scratch.output(&gone).failed_with(2, &["cluster.identity", "nowhere/node.pem"]);
    let made = ["node", "init", "a", "--authority", "nowhere", "--dir", "a"];
    scratch.output(&made).failed_with(1, &["nowhere/authority.pem", "can't be read"]);
    scratch.output(&["cluster", "init", "no/name", "--dir", "ca"]).failed_with(1, &["authority"]);
}

#[test]
fn a_node_is_asked_at_its_default_socket() {
    let scratch = Scratch::new();
    let asking: [&[&str]; 4] =
        [&["status"], &["status", "--json"], &["drain", "a"], &["invite", "c"]];
    for asked in asking {
        let ran = scratch.output(&[&["cluster"], asked].concat());
        ran.failed_with(
            1,
            &["no node listens on", "runtime/neuroflow/control.sock", "--control-socket"],
        );
    }
    scratch.output(&["tree"]).failed_with(1, &["no node listens on", "runtime/neuroflow"]);
    assert_eq!(scratch.output(&["cluster", "init", "example", "--dir", "ca"]).code, 0);
    let made = scratch.output(&["node", "init", "a", "--authority", "ca", "--dir", "a"]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    let flags = ["--cluster-listen=127.0.0.1:0", "--cluster-identity=a", "--cluster-authority=ca"];
    let _server = Server::start_at_default(&scratch, &flags);
    for asked in asking {
        let ran = scratch.output(&[&["cluster"], asked].concat());
        assert_eq!(ran.code, 0, "{asked:?}: {}", ran.stderr);
    }
    assert_eq!(scratch.output(&["tree"]).code, 0);
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
    nonsense.failed_with(1, &["isn't a token", "nfj2."]);
    let old = scratch.output(&["cluster", "join", "nfj1.AAAA", "--dir", "c"]);
    old.failed_with(1, &["older build", "invite anew"]);
    // Which of the machine's addresses the new node reaches isn't known here.
    let everywhere = ["cluster", "invite", "c", "--authority", "ca", "--listen", "0.0.0.0:0"];
    let nowhere = scratch.output(&everywhere);
    nowhere.failed_with(1, &["nobody can dial 0.0.0.0", "--reach"]);
    assert_eq!(nowhere.stdout, "");
    let reached = [&everywhere[..], &["--reach", "127.0.0.1:7950", "--within", "100ms"]].concat();
    let reached = scratch.output(&reached);
    reached.failed_with(1, &["nobody has joined"]);
    assert!(reached.stdout.starts_with("nfj2."), "{}", reached.stdout);
    let invite = ["cluster", "invite", "c", "--authority", "nowhere", "--listen", "127.0.0.1:0"];
    scratch.output(&invite).failed_with(1, &["nowhere/authority.pem"]);
}

/// A node that serves with this identity, at a port of its own.
fn serve(scratch: &Scratch, identity: &std::path::Path, more: &[&str]) -> Server {
    let identity = format!("--cluster-identity={}", identity.display());
    Server::start(scratch, &[&["--cluster-listen=127.0.0.1:0", &identity], more].concat())
}

/// Waits until the node's status satisfies this.
fn status(
    scratch: &Scratch,
    server: &Server,
    holds: impl Fn(&serde_json::Value) -> bool,
) -> serde_json::Value {
    let socket = server.socket.display().to_string();
    for _ in 0..600 {
        let ran = scratch.output(&["cluster", "status", "--json", "--socket", &socket]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let status: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
        if holds(&status["cluster"]) {
            return status["cluster"].clone();
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("the cluster's status never became that");
}

fn member<'a>(cluster: &'a serde_json::Value, name: &str) -> Option<&'a serde_json::Value> {
    cluster["members"].as_array()?.iter().find(|member| member["name"] == name)
}

#[test]
fn a_running_node_invites_and_shuts_out_without_a_restart() {
    let (scratch, second, third) = (Scratch::new(), Scratch::new(), Scratch::new());
    assert_eq!(scratch.output(&["cluster", "init", "example", "--dir", "ca"]).code, 0);
    for node in ["a", "b"] {
        let made = scratch.output(&["node", "init", node, "--authority", "ca", "--dir", node]);
        assert_eq!(made.code, 0, "{}", made.stderr);
    }
    let authority = format!("--cluster-authority={}", scratch.path("ca").display());
    let log = scratch.path("audit.log");
    let audit = format!("--audit-file={}", log.display());
    let more = [&authority, "--cluster-capacity=7", &audit];
    let a = serve(&scratch, &scratch.path("a"), &more);
    let own = status(&scratch, &a, |cluster| member(cluster, "a").is_some());
    let own = member(&own, "a").expect("itself");
    assert_eq!(own["capacity"], 7);
    let address = own["address"].as_str().expect("an address").to_owned();
    let seeds = format!("--cluster-seeds={address}");

    let heard = scratch.path("heard.log");
    let hears = format!("--audit-file={}", heard.display());
    let b = serve(&second, &scratch.path("b"), &[&seeds, &hears]);
    let socket = a.socket.display().to_string();
    let unable = b.socket.display().to_string();
    let unable = scratch.output(&["cluster", "invite", "c", "--socket", &unable]);
    unable.failed_with(1, &["cluster.authority", "--authority"]);
    let invited = scratch.output(&["cluster", "invite", "c", "--role", "x", "--socket", &socket]);
    assert_eq!(invited.code, 0, "{}", invited.stderr);
    // Who lets somebody in has it in its own log, before the token is handed out.
    let invited_once = [json!({
        "kind": "membership", "action": "invite", "node": "c", "roles": ["x"], "by": null,
        "verdict": "allowed", "reason": "control_socket",
    })];
    assert_eq!(audited(&log, "membership", |_| true), invited_once);
    let joined = scratch.output(&["cluster", "join", invited.stdout.trim(), "--dir", "c"]);
    assert_eq!(joined.code, 0, "{}", joined.stderr);
    let id = joined.stdout.split_whitespace().nth(1).expect("an id").to_owned();
    let given = audited(&log, "membership", |event| event["action"] == "joined");
    assert_eq!(given[1]["node"], id.as_str(), "{given:?}");
    assert_eq!((&given[1]["roles"], &given[1]["verdict"]), (&json!(["x"]), &json!("allowed")));
    let used = scratch.output(&["cluster", "join", invited.stdout.trim(), "--dir", "again"]);
    assert_eq!(used.code, 1, "{}", used.stdout);
    audited(&log, "membership", |event| event["reason"] == "used" && event["verdict"] == "denied");
    let c = serve(&third, &scratch.path("c"), &[&seeds]);
    for server in [&a, &b] {
        status(&scratch, server, |it| member(it, "c").is_some_and(|c| c["state"] == "alive"));
    }

    let (ca, identity) = (scratch.path("ca"), scratch.path("a"));
    let (ca, identity) = (ca.to_str().expect("a path"), identity.to_str().expect("a path"));
    let revoke = ["cluster", "revoke", &id, "--authority", ca, "--identity", identity];
    let revoked = scratch.output(&revoke);
    assert_eq!(revoked.code, 0, "{}", revoked.stderr);
    for server in [&a, &b] {
        status(&scratch, server, |it| member(it, "c").is_some_and(|c| c["state"] == "revoked"));
    }
    // Both have it in their logs: who has read the list, and who has heard of it; and whom they let in before.
    for log in [&log, &heard] {
        let is_out = |event: &Value| event["action"] == "shut_out" && event["node"] == id.as_str();
        let out = audited(log, "membership", is_out);
        assert_eq!(out.iter().filter(|event| is_out(event)).count(), 1, "{out:?}");
        let lists = audited(log, "config_changed", |event| event["part"] == "revocations");
        assert!(lists.iter().all(|event| event["verdict"] == "allowed"), "{lists:?}");
        audited(log, "authentication", |event| {
            event["scheme"] == "link" && event["principal"] == id.as_str()
        });
    }
    // The other node has heard of it, and keeps it over a restart, with nobody there to tell it.
    let list = std::fs::read_to_string(scratch.path("a/revocations.txt")).expect("a list");
    let kept = || std::fs::read_to_string(scratch.path("b/revocations.txt"));
    for _ in 0..600 {
        if kept().is_ok_and(|kept| kept == list) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(kept().expect("it's kept"), list);
    drop((a, b));
    let b = serve(&second, &scratch.path("b"), &[]);
    let alone = status(&scratch, &b, |cluster| member(cluster, "b").is_some());
    let address = member(&alone, "b").expect("itself")["address"].as_str().expect("one").to_owned();
    drop(c);
    let seeds = format!("--cluster-seeds={address}");
    let c = serve(&third, &scratch.path("c"), &[&seeds]);
    let d = scratch.output(&["node", "init", "d", "--authority", "ca", "--dir", "d"]);
    assert_eq!(d.code, 0, "{}", d.stderr);
    let fourth = Scratch::new();
    let _d = serve(&fourth, &scratch.path("d"), &[&seeds]);
    let seen = status(&scratch, &b, |it| member(it, "d").is_some_and(|d| d["state"] == "alive"));
    assert!(member(&seen, "c").is_none_or(|c| c["state"] == "revoked"), "{seen}");
    drop(c);
    // A list that isn't the authority's is refused at the start.
    let forged = list.replace("serial 1", "serial 8");
    std::fs::write(scratch.path("a/revocations.txt"), forged).expect("a file");
    let identity = format!("--cluster-identity={}", scratch.path("a").display());
    let refused = scratch.output(&["serve", "--cluster-listen=127.0.0.1:0", &identity]);
    refused.failed_with(2, &["cluster.revocations", "a/revocations.txt"]);
}

#[test]
fn settings_of_the_cluster_that_do_not_fit_are_named() {
    let scratch = Scratch::new();
    for (flag, texts) in [
        ("--cluster-advertise=10.0.0.7:7946", ["cluster.advertise", "cluster.listen"]),
        ("--cluster-singletons=python", ["cluster.singletons", "cluster.leases"]),
        ("--cluster-leases=file:///x", ["cluster.leases", "postgres://"]),
    ] {
        scratch.output(&["serve", flag]).failed_with(2, &texts);
    }
    for cluster in ["ca", "other"] {
        assert_eq!(scratch.output(&["cluster", "init", "example", "--dir", cluster]).code, 0);
    }
    let made = scratch.output(&["node", "init", "a", "--authority", "ca", "--dir", "a"]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    let on = ["serve", "--cluster-listen=127.0.0.1:0", "--cluster-identity=a"];
    let nowhere = [&on[..], &["--cluster-advertise=0.0.0.0:7946"]].concat();
    scratch.output(&nowhere).failed_with(2, &["cluster.advertise", "nobody can dial"]);
    let unnamed = [&on[..], &["--cluster-seeds=srv:agents.example:7946"]].concat();
    scratch.output(&unnamed).failed_with(2, &["cluster.seeds", "example:7946"]);
    let strange = [&on[..], &["--cluster-authority=other"]].concat();
    scratch.output(&strange).failed_with(2, &["cluster.authority", "other"]);
    let away = ["--cluster-leases=postgres:///x?host=/nowhere", "--cluster-sharded=python"];
    let gone = scratch.output(&[&on[..], &away].concat());
    gone.failed_with(1, &["cluster.leases"]);
}

#[test]
fn a_certificate_that_nobody_takes_is_named_with_what_to_do() {
    let scratch = Scratch::new();
    for cluster in ["ca", "other"] {
        assert_eq!(scratch.output(&["cluster", "init", "example", "--dir", cluster]).code, 0);
    }
    for (node, valid) in [("old", "1s"), ("strange", "1h")] {
        let init = ["node", "init", node, "--authority", "ca", "--dir", node, "--valid", valid];
        assert_eq!(scratch.output(&init).code, 0);
    }
    let copied =
        std::fs::copy(scratch.path("other/authority.pem"), scratch.path("strange/authority.pem"));
    copied.expect("another authority");
    // Past the end of the first one's certificate.
    std::thread::sleep(std::time::Duration::from_secs(2));
    for (identity, texts) in [
        ("--cluster-identity=old", ["old/node.pem", "has expired", "neuroflow node renew"]),
        ("--cluster-identity=strange", ["strange/node.pem", "authorities", "of one cluster"]),
    ] {
        let refused = scratch.output(&["serve", "--cluster-listen=127.0.0.1:0", identity]);
        refused.failed_with(2, &texts);
    }
}

/// The cluster's metrics are there, and Prometheus's own tool finds nothing wrong with any.
fn check_metrics(server: &Server) {
    let (status, text) = get(server.metrics, "/metrics");
    assert_eq!(status, 200, "{text}");
    for name in [
        "neuroflow_link_up",
        "neuroflow_link_rtt_seconds",
        "neuroflow_link_streams",
        "neuroflow_link_buffered_bytes",
        "neuroflow_link_open_calls",
        "neuroflow_link_sent_messages_total",
        "neuroflow_link_sent_bytes_total",
        "neuroflow_link_received_messages_total",
        "neuroflow_link_received_bytes_total",
        "neuroflow_link_copied_bytes_total",
        "neuroflow_link_received_copied_bytes_total",
        "neuroflow_link_credit_waits_total",
        "neuroflow_link_reconnects_total",
        "neuroflow_link_lost_packets_total",
        "neuroflow_cluster_members",
        "neuroflow_node_certificate_expiry_seconds",
        "neuroflow_gossip_messages_total",
        "neuroflow_gossip_sent_bytes_total",
        "neuroflow_revocation_file_failures_total",
        "neuroflow_placements_total",
    ] {
        assert!(text.contains(&format!("# TYPE {name} ")), "{name} isn't in {text}");
    }
    promtool::check(&text);
}

#[test]
fn a_certificate_is_renewed_with_the_same_key_and_a_running_node_presents_it() {
    let scratch = Scratch::new();
    assert_eq!(scratch.output(&["cluster", "init", "example", "--dir", "ca"]).code, 0);
    let made = ["node", "init", "a", "--authority", "ca", "--dir", "a", "--valid", "2h"];
    let made = scratch.output(&made);
    assert_eq!(made.code, 0, "{}", made.stderr);
    let log = scratch.path("audit.log");
    let a = serve(&scratch, &scratch.path("a"), &[&format!("--audit-file={}", log.display())]);
    let left = |cluster: &serde_json::Value| {
        let own = member(cluster, "a")?;
        own["certificate_expires_seconds"].as_f64()
    };
    status(&scratch, &a, |cluster| left(cluster).is_some_and(|left| left < 7_300.0));
    let key = std::fs::read(scratch.path("a/node-key.pem")).expect("a key");
    let renew = ["node", "renew", "--authority", "ca", "--dir", "a", "--valid", "5h"];
    let renewed = scratch.output(&renew);
    assert_eq!((renewed.code, &renewed.stdout), (0, &made.stdout), "{}", renewed.stderr);
    assert_eq!(std::fs::read(scratch.path("a/node-key.pem")).expect("a key"), key);
    status(&scratch, &a, |cluster| left(cluster).is_some_and(|left| left > 10_000.0));
    audited(&log, "config_changed", |event| {
        event["part"] == "node_certificate" && event["verdict"] == "allowed"
    });
    // Another authority, and a node that was shut out.
    assert_eq!(scratch.output(&["cluster", "init", "other", "--dir", "other"]).code, 0);
    let other = ["node", "renew", "--authority", "other", "--dir", "a"];
    scratch.output(&other).failed_with(1, &["hasn't signed the certificate"]);
    let id = made.stdout.split_whitespace().nth(1).expect("an id");
    assert_eq!(scratch.output(&["cluster", "revoke", id, "--authority", "ca"]).code, 0);
    scratch.output(&renew).failed_with(1, &["was shut out", id]);
}

#[test]
fn a_node_drains_others_only_as_an_operator_and_says_what_became_of_it() {
    let (scratch, second) = (Scratch::new(), Scratch::new());
    assert_eq!(scratch.output(&["cluster", "init", "example", "--dir", "ca"]).code, 0);
    for (node, role) in [("a", "operator"), ("b", "worker")] {
        let made = ["node", "init", node, "--authority", "ca", "--dir", node, "--role", role];
        assert_eq!(scratch.output(&made).code, 0);
    }
    let logs = ["a", "b"].map(|node| scratch.path(&format!("{node}.log")));
    let audits = logs.clone().map(|log| format!("--audit-file={}", log.display()));
    let a = serve(&scratch, &scratch.path("a"), &[&audits[0]]);
    let own = status(&scratch, &a, |cluster| member(cluster, "a").is_some());
    let id = member(&own, "a").expect("itself")["id"].as_str().expect("an id").to_owned();
    let address = member(&own, "a").expect("itself")["address"].as_str().expect("an address");
    let seeds = format!("--cluster-seeds={address}");
    let b = serve(&second, &scratch.path("b"), &[&seeds, &audits[1]]);
    let (operator, worker) = (a.socket.display().to_string(), b.socket.display().to_string());

    let is_linked = |cluster: &serde_json::Value, name| {
        member(cluster, name).is_some_and(|member| member["link"]["state"] == "up")
    };
    status(&scratch, &a, |cluster| is_linked(cluster, "b"));
    status(&scratch, &b, |cluster| is_linked(cluster, "a"));
    let refused = scratch.output(&["cluster", "drain", "a", "--socket", &worker]);
    refused.failed_with(1, &["role operator"]);
    let unknown = scratch.output(&["cluster", "drain", "c", "--socket", &operator]);
    unknown.failed_with(1, &["no link to a node", "c"]);
    for (undo, state) in [(&["--undo"][..0], "draining"), (&["--undo"][..], "takes work")] {
        let ask = [&["cluster", "drain", "b", "--socket", &operator], undo].concat();
        let asked = scratch.output(&ask);
        assert_eq!(asked.code, 0, "{}", asked.stderr);
        assert!(asked.stdout.trim_end().ends_with(state), "{}", asked.stdout);
        let draining = state == "draining";
        status(&scratch, &a, |cluster| {
            member(cluster, "b").is_some_and(|it| it["draining"] == draining)
        });
    }
    let own = scratch.output(&["cluster", "drain", "b", "--socket", &worker]);
    assert_eq!(own.code, 0, "{}", own.stderr);
    status(&scratch, &a, |it| member(it, "b").is_some_and(|it| it["draining"] == true));
    let row = row_of(&scratch, &operator, "b");
    assert!(row.contains("alive, draining"), "{row}");
    // Each has in its log what was asked at its socket, and what it did because another wanted it.
    let told = |log: &std::path::Path, last: (&str, &str)| -> Vec<[String; 4]> {
        let events = audited(log, "membership", |event| {
            (event["action"].as_str(), event["reason"].as_str()) == (Some(last.0), Some(last.1))
        });
        let texts = |event: &Value| {
            ["action", "node", "by", "verdict"]
                .map(|name| event[name].as_str().unwrap_or("-").to_owned())
        };
        events.iter().map(texts).collect()
    };
    let expected = [
        ["drain", "c", "-", "allowed"],
        ["drain", "c", "-", "failed"],
        ["drain", "b", "-", "allowed"],
        ["undrain", "b", "-", "allowed"],
    ];
    assert_eq!(told(&logs[0], ("undrain", "control_socket")), expected);
    let expected = [
        ["drain", "a", "-", "allowed"],
        ["drain", "a", "-", "failed"],
        ["drain", "self", &id, "allowed"],
        ["undrain", "self", &id, "allowed"],
        ["drain", "b", "-", "allowed"],
    ];
    let seen = told(&logs[1], ("undrain", "operator"));
    assert_eq!(seen, expected);
}

/// The line of a node in the status as text.
fn row_of(scratch: &Scratch, socket: &str, name: &str) -> String {
    let ran = scratch.output(&["cluster", "status", "--socket", socket]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let mut lines = ran.stdout.lines();
    let heads: Vec<&str> = lines.next().expect("a head").split_whitespace().collect();
    let expected = "NODE STATE ADDRESS RTT LOST STREAMS CALLS PROTOCOL BUILD CERTIFICATE AGENTS";
    assert_eq!(heads, expected.split(' ').collect::<Vec<_>>());
    let is_of = |line: &&str| line.split_whitespace().next() == Some(name);
    lines.find(is_of).unwrap_or_else(|| panic!("{name} isn't in {}", ran.stdout)).to_owned()
}

#[test]
fn the_status_and_the_metrics_say_how_a_link_stands_and_nothing_of_one_that_is_down() {
    let (scratch, second) = (Scratch::new(), Scratch::new());
    assert_eq!(scratch.output(&["cluster", "init", "example", "--dir", "ca"]).code, 0);
    for node in ["a", "b"] {
        let made = ["node", "init", node, "--authority", "ca", "--dir", node];
        assert_eq!(scratch.output(&made).code, 0);
    }
    let a = serve(&scratch, &scratch.path("a"), &[]);
    let own = status(&scratch, &a, |cluster| member(cluster, "a").is_some());
    let address = member(&own, "a").expect("itself")["address"].as_str().expect("an address");
    let b = serve(&second, &scratch.path("b"), &[&format!("--cluster-seeds={address}")]);
    let is_up = |cluster: &serde_json::Value| {
        member(cluster, "b").is_some_and(|b| b["state"] == "alive" && b["link"]["state"] == "up")
    };
    let seen = status(&scratch, &a, is_up);
    let link = &member(&seen, "b").expect("a member")["link"];
    assert!(link["rtt_seconds"].as_f64().is_some_and(|rtt| rtt > 0.0), "{link}");
    assert_eq!((&link["streams"], &link["protocol"]), (&2.into(), &3.into()), "{link}");
    for count in
        ["lost_packets", "open_calls", "reconnects", "copied_bytes", "received_copied_bytes"]
    {
        assert!(link[count].is_u64(), "{count}: {link}");
    }
    let row = row_of(&scratch, &a.socket.display().to_string(), "b");
    assert!(row.contains("alive") && row.contains("s  "), "{row}");
    assert!(row.contains("3 of 1-3") && row.contains(" d  "), "{row}");
    check_metrics(&a);
    let said = get(a.metrics, "/metrics").1;
    assert!(said.contains("neuroflow_link_up{peer=\"b\"} 1\n"), "{said}");
    assert!(said.contains("neuroflow_link_rtt_seconds{peer=\"b\"} 0.0"), "{said}");

    drop(b);
    let down =
        status(&scratch, &a, |it| member(it, "b").is_some_and(|b| b["link"]["state"] == "down"));
    let link = &member(&down, "b").expect("a member")["link"];
    assert_eq!((&link["state"], &link["rtt_seconds"]), (&"down".into(), &().into()), "{link}");
    let row = row_of(&scratch, &a.socket.display().to_string(), "b");
    assert!(row.contains("  -  "), "{row}");
    let said = get(a.metrics, "/metrics").1;
    assert!(said.contains("neuroflow_link_up{peer=\"b\"} 0\n"), "{said}");
    assert!(!said.contains("neuroflow_link_rtt_seconds{"), "{said}");
}

fn is_root(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).expect("a file").uid() == 0
}
