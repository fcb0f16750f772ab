//! `audit verify`, on logs that a real node has written.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};
use ring::signature::{ED25519, UnparsedPublicKey};

use crate::scene::{Scratch, Server, audited, first_text, mode};

/// A log of a node that has run one program and was stopped.
fn log(scratch: &Scratch) -> PathBuf {
    let log = scratch.path("audit.log");
    let flag = format!("--audit-file={}", log.display());
    let mut server = Server::start(scratch, &[&flag]);
    assert_eq!(first_text(&server.ask("/", "echo secret-word")), "secret-word\n");
    server.process.signal("TERM");
    assert_eq!(server.process.exit_code(), 0, "{}", server.process.stderr());
    log
}

#[test]
fn a_node_accounts_for_itself_and_its_cells() {
    let scratch = Scratch::new();
    let log = log(&scratch);
    let text = fs::read_to_string(&log).unwrap();
    let kinds: Vec<String> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
        .map(|line| line["record"]["event"]["kind"].as_str().expect("a kind").to_owned())
        .filter(|kind| kind != "signature")
        .collect();
    let expected = [
        "file",
        "opened",
        "node_started",
        "authorisation",
        "capability_use",
        "cell_started",
        "cell_ended",
        "node_stopped",
    ];
    assert_eq!(kinds, expected);
    // Who asked for the program that ran is found by the trace.
    let traced = ["authorisation", "capability_use", "cell_started", "cell_ended"];
    let traces: HashSet<Option<String>> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
        .map(|line| line["record"].clone())
        .filter(|record| traced.iter().any(|kind| record["event"]["kind"] == *kind))
        .map(|record| record["trace"].as_str().map(str::to_owned))
        .collect();
    assert!(traces.len() == 1 && !traces.contains(&None), "{traces:?}");
    for part in
        ["\"level\":\"strict\"", "\"how\":\"exited\"", "\"target\":\"exec\"", "\"profile\":\""]
    {
        assert!(text.contains(part), "{part} isn't in {text}");
    }
    // What a program is told or says isn't the log's business.
    assert!(!text.contains("secret-word"), "{text}");
    for name in ["audit.log", "audit.log.key"] {
        assert_eq!(mode(&scratch.path(name)), 0o600, "{name}");
    }

    let ran = scratch.output(&["audit", "verify", "audit.log", "--key", "audit.log.pub"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    for words in ["are as they were written", "signed up to record", "audit.log.head"] {
        assert!(ran.stdout.contains(words), "{words:?} isn't in {}", ran.stdout);
    }
    assert!(!ran.stdout.contains("name it with --key"), "{}", ran.stdout);
    let ran = scratch.output(&["audit", "verify", "audit.log", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(report["last"], text.lines().count());
    assert_eq!(
        (report["closed"].as_bool(), report["key_checked"].as_bool()),
        (Some(true), Some(false))
    );
}

#[test]
fn changes_cuts_and_moves_are_found_and_named() {
    let scratch = Scratch::new();
    let log = log(&scratch);
    let text = fs::read_to_string(&log).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let at = lines.iter().position(|line| line.contains("cell_started")).unwrap();
    let record = format!("record {}", at + 1);
    let place = format!("line {}", at + 1);
    let verify = |lines: &[String], words: &[&str]| {
        fs::write(&log, lines.join("\n") + "\n").unwrap();
        scratch.output(&["audit", "verify", "audit.log"]).failed_with(1, words);
    };
    let whole: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();

    let mut changed = whole.clone();
    changed[at] = changed[at].replace("strict", "standard");
    verify(&changed, &[&record, &place, "was changed"]);
    let mut removed = whole.clone();
    removed.remove(at);
    verify(&removed, &[&place, "removed, added or moved"]);
    let mut moved = whole.clone();
    moved.swap(at, at + 1);
    verify(&moved, &[&place, "removed, added or moved"]);
    let mut doubled = whole.clone();
    doubled.insert(at, whole[at].clone());
    verify(&doubled, &["removed, added or moved"]);
    verify(&whole[..whole.len() - 1], &["was cut"]);
    fs::write(&log, &text[..text.len() - 5]).unwrap();
    scratch.output(&["audit", "verify", "audit.log"]).failed_with(1, &["cut off"]);
}

#[test]
fn a_log_is_verified_by_what_the_protocol_says_of_it_alone() {
    let scratch = Scratch::new();
    let text = fs::read_to_string(log(&scratch)).unwrap();
    // RFC 8410: the key is the last 32 of 44 bytes.
    let pem = fs::read_to_string(scratch.path("audit.log.pub")).unwrap();
    let der: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = STANDARD.decode(der).unwrap();
    let key = UnparsedPublicKey::new(&ED25519, &der[12..]);
    let (mut prev, mut signed) = ("0".repeat(64), 0);
    for (line, seq) in text.lines().zip(1_u64..) {
        let body = line.strip_prefix("{\"record\":").and_then(|it| it.strip_suffix("\"}"));
        let (record, hash) = body.and_then(|it| it.rsplit_once(",\"hash\":\"")).expect("a line");
        let bytes = [b"neuroflow.audit.1\n", record.as_bytes()].concat();
        assert_eq!(HEXLOWER.encode(digest(&SHA256, &bytes).as_ref()), hash, "line {seq}");
        let record: serde_json::Value = serde_json::from_str(record).expect("JSON");
        assert_eq!((record["seq"].as_u64(), record["prev"].as_str()), (Some(seq), Some(&*prev)));
        let event = &record["event"];
        assert_eq!(event["kind"] == "file", seq == 1, "what a file begins with");
        if event["kind"] == "file" {
            assert_eq!(event["key"], HEXLOWER.encode(&der[12..]));
        }
        if event["kind"] == "signature" {
            let at = record["at"].as_u64().expect("a time");
            let prev = HEXLOWER.decode(prev.as_bytes()).unwrap();
            let message = [
                b"neuroflow.audit.signature.1\n",
                &seq.to_le_bytes()[..],
                &at.to_le_bytes(),
                &prev,
            ]
            .concat();
            let signature = event["signature"].as_str().expect("a signature").as_bytes();
            key.verify(&message, &HEXLOWER.decode(signature).unwrap()).expect("it's the key's");
            signed = seq;
        }
        prev = hash.to_owned();
    }
    assert_eq!(signed, text.lines().count() as u64, "a node that stopped has signed all");
    let head = fs::read_to_string(scratch.path("audit.log.head")).unwrap();
    assert_eq!(Some(head.trim_end()), text.lines().last());
}

#[test]
fn another_key_and_what_is_no_key_are_refused() {
    let scratch = Scratch::new();
    let _log = log(&scratch);
    let other = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
        -----END PUBLIC KEY-----\n";
    let other = scratch.file("other.pem", other);
    let ran = scratch.output(&["audit", "verify", "audit.log", "--key", &other]);
    ran.failed_with(1, &["not with the one that was named"]);
    let ran = scratch.output(&["audit", "verify", "audit.log", "--key", "audit.log"]);
    ran.failed_with(2, &["--key", "public key in PEM"]);
    let ran = scratch.output(&["audit", "verify", "none.log"]);
    ran.failed_with(2, &["none.log", "can't be read", "nothing is known"]);
    assert!(!ran.stderr.contains("vouched"), "{}", ran.stderr);
}

#[test]
fn a_node_takes_its_own_log_up_and_no_other() {
    let scratch = Scratch::new();
    let log = log(&scratch);
    let flag = format!("--audit-file={}", log.display());
    let flags = ["--agents-enabled=echo", flag.as_str()];
    let mut server = Server::start(&scratch, &flags);
    // Killed: its last records may have no signature, and the next node goes on behind them.
    server.process.signal("KILL");
    server.process.exit_code();
    drop(server);
    let server = Server::start(&scratch, &flags);
    let second = ["serve", "--gateway-listen=127.0.0.1:0", "--control-socket=off", &flag];
    let second =
        [&second[..], &["--telemetry-metrics-listen=off", "--agents-enabled=echo"]].concat();
    scratch.output(&second).failed_with(1, &["audit.file", "another node"]);
    drop(server);
    let text = fs::read_to_string(&log).unwrap();
    assert!(scratch.output(&["audit", "verify", "audit.log"]).code == 0, "{text}");
    fs::write(&log, text.replacen("strict", "paranoid", 1)).unwrap();
    scratch.output(&second).failed_with(1, &["audit log", "was changed"]);
}

#[test]
fn what_a_full_disk_has_left_of_a_key_keeps_no_node_from_starting() {
    let scratch = Scratch::new();
    scratch.secret("audit.log.key", "");
    let log = log(&scratch);
    let ran = scratch.output(&["audit", "verify", "audit.log", "--key", "audit.log.pub"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let left = |entry: fs::DirEntry| entry.file_name().to_string_lossy().ends_with(".new");
    let folder = fs::read_dir(log.parent().unwrap()).unwrap();
    assert!(!folder.map(Result::unwrap).any(left), "nothing is left of how it was written");
}

#[test]
fn the_digest_of_the_configuration_is_of_its_values() {
    let scratch = Scratch::new();
    let digest = |name: &str, flags: &[&str]| {
        let log = format!("--audit-file={}", scratch.path("audit.log").display());
        let mut server =
            Server::start(&scratch, &[&["--agents-enabled=echo", &log], flags].concat());
        let started = audited(&scratch.path("audit.log"), "node_started", |_| true);
        server.process.signal("TERM");
        assert_eq!(server.process.exit_code(), 0, "{name}");
        fs::remove_file(scratch.path("audit.log")).unwrap();
        fs::remove_file(scratch.path("audit.log.head")).unwrap();
        started[0]["config"].as_str().expect("a digest").to_owned()
    };
    let server =
        |agents: &str| format!("[mcp.files]\nurl = \"http://127.0.0.1:9\"\nagents = {agents}\n");
    let [narrow, wide] = ["[\"echo\"]", "[\"*\"]"].map(|agents| {
        let file = scratch.file("mcp.toml", &server(agents));
        digest(agents, &["--config", &file])
    });
    assert_ne!(narrow, wide, "who may use a server's tools is part of it");
    let file = scratch
        .file("other.toml", &format!("# Moved.\n[stop]\ndeadline = \"9s\"\n{}", server("[\"*\"]")));
    let moved = digest("file", &["--config", &file]);
    let file = scratch.file("third.toml", &server("[\"*\"]"));
    let flagged = digest("flag", &["--config", &file, "--stop-deadline=9s"]);
    assert_eq!(moved, flagged, "where a value came from isn't");
}
