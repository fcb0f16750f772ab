//! `tasks`: agents and their tasks, and nothing of what the node keeps for itself.

use crate::scene::{Scratch, Server, post};

#[test]
fn what_the_node_keeps_of_webhooks_is_no_agents_task() {
    let scratch = Scratch::new();
    let config = scratch.file("neuroflow.toml", "[gateway]\npush_allow_private = true\n");
    let journal = format!("--journal-url=file://{}", scratch.path("journal").display());
    let mut server = Server::start(&scratch, &["--config", &config, &journal]);
    // Nobody listens there, so that the configuration stays.
    let message = serde_json::json!({
        "message": { "messageId": "1", "role": "ROLE_USER", "parts": [{ "text": "hello" }] },
        "configuration": {
            "taskPushNotificationConfig": {
                "url": "http://127.0.0.1:9/", "token": "secret-of-the-webhook",
            },
        },
    });
    let call = serde_json::json!({
        "jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": message,
    });
    let (status, body) = post(server.gateway, "/agents/echo", &call.to_string());
    assert_eq!(status, 200, "{body}");
    let answer: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    let task = answer["result"]["task"]["id"].as_str().expect("a task").to_owned();
    let socket = format!("--control-socket={}", server.socket.display());
    let look = |what: &[&str]| {
        let ran = scratch.output(&[&["tasks", &journal, &socket][..], what].concat());
        assert_eq!(ran.code, 0, "{ran:?}");
        // The same before and behind what is wanted.
        let behind = scratch.output(&[&["tasks"], what, &[&journal, &socket]].concat());
        assert_eq!((behind.code, &behind.stdout), (0, &ran.stdout), "{behind:?}");
        assert!(ran.stdout.contains(&task), "{ran:?}");
        assert!(!ran.stdout.contains("/push"), "{ran:?}");
        assert!(!ran.stdout.contains("secret-of-the-webhook"), "{ran:?}");
    };
    let all: [&[&str]; 3] = [&["list"], &["list", "--json"], &["export"]];
    for what in all {
        look(what);
    }
    server.process.signal("TERM");
    assert_eq!(server.process.exit_code(), 0, "{}", server.process.stderr());
    for what in all {
        look(what);
    }
}

#[test]
fn the_help_of_each_command_names_the_journal_and_the_socket() {
    let scratch = Scratch::new();
    for of in [&["tasks"][..], &["tasks", "list"], &["tasks", "show"], &["tasks", "export"]] {
        let help = scratch.output(&[of, &["--help"]].concat()).stdout;
        assert!(help.contains("--journal-url") && help.contains("--control-socket"), "{help}");
        assert!(!help.contains("--sandbox-level"), "{help}");
    }
    for of in [&["tree"][..], &["cluster", "status"], &["cluster", "drain"], &["cluster", "invite"]]
    {
        let help = scratch.output(&[of, &["--help"]].concat()).stdout;
        assert!(help.contains("--control-socket") && !help.contains(" --socket"), "{help}");
        assert!(!help.contains("--sandbox-level"), "{help}");
    }
}

#[test]
fn what_was_said_commands_no_terminal_when_it_is_shown() {
    let scratch = Scratch::new();
    let server = Server::start(&scratch, &["--agents-enabled=echo"]);
    let answer = server.ask("/agents/echo", "a\u{9b}2J\u{202e}b\x1b[1A\u{7f}");
    let task = answer["result"]["task"]["id"].as_str().expect("a task");
    let socket = format!("--control-socket={}", server.socket.display());
    let ran = scratch.output(&["tasks", &socket, "show", task]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains(r"a\u{9b}2J\u{202e}b\u001b[1A\u{7f}"), "{ran:?}");
    assert!(!ran.stdout.contains(['\u{9b}', '\u{202e}', '\x1b', '\u{7f}']), "{ran:?}");
}
