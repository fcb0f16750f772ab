//! `neuroflow tasks` beside a running node, after its end, and without it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::crash::{Told, ask_until_killed};
use crate::folder::Folder;
use crate::killable::{Killable, call, neuroflow};

#[test]
fn tasks_are_listed_shown_and_exported_beside_a_running_node_and_after_it() {
    let folder = Folder::new();
    let socket = folder.path().join("control.sock").display().to_string();
    let node = Killable::start_with(folder.path(), &socket);
    let send = |id: &str| {
        let request = json!({ "message": {
            "messageId": id, "role": "ROLE_USER", "parts": [{ "text": "hello there" }],
        }});
        let answer = call(node.gateway, "SendMessage", &request).expect("answered");
        answer["result"]["task"]["id"].as_str().expect("a task").to_owned()
    };
    let task = send("1");
    for id in ["2", "3", "4", "5"] {
        send(id);
    }

    let url = format!("file://{}", folder.path().join("journal").display());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let run = |socket: &str, action: &[&str]| {
        let mut command = neuroflow(&["tasks", "--journal-url", &url, "--control-socket", socket]);
        command.args(action).output().expect("the built binary")
    };
    let actions: [&[&str]; 7] = [
        &["list"],
        &["list", "--state", "completed", "--limit", "2"],
        &["list", "--state", "failed"],
        &["list", "--json"],
        &["show", &task],
        &["show", &task, "--json", "--agent", "echo"],
        &["export"],
    ];
    let all = || -> Vec<String> {
        let said = actions.iter().map(|action| run(&socket, action));
        said.map(|said| {
            assert_eq!(said.status.code(), Some(0), "{}", text(&said.stderr));
            text(&said.stdout)
        })
        .collect()
    };
    let running = all();
    let [_, listed, failed, _, shown, _, exported] = &running[..] else { panic!("{running:?}") };
    assert!(listed.contains("echo") && listed.contains("3 more of echo"), "{listed}");
    assert_eq!(failed, "");
    let none = text(&run(&socket, &["list", "--state", "failed"]).stderr);
    assert!(none.contains("no such task in /") && none.contains("journal"), "{none}");
    assert!(shown.contains("hello there") && shown.contains("completed"), "{shown}");
    let lines: Vec<Value> =
        exported.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 5 * 4, "{exported}");
    assert_eq!(lines[0]["change"]["accepted"]["message"]["parts"][0]["text"], "hello there");
    assert_eq!(lines[3]["change"]["state"], "completed");
    let unknown = text(&run(&socket, &["show", "nothing"]).stderr);
    assert!(unknown.contains("neuroflow tasks list"), "{unknown}");

    // Without its socket it can't be asked, and the directory isn't anybody else's.
    let nowhere = folder.path().join("nowhere.sock").display().to_string();
    for socket in ["off", &nowhere] {
        let refused = run(socket, &["list"]);
        assert_eq!(refused.status.code(), Some(1));
        let error = text(&refused.stderr);
        assert!(error.contains("another node has the journal"), "{error}");
        assert!(error.contains("--control-socket"), "{error}");
    }
    // Nor is its socket that of another journal.
    let other = Folder::new();
    let another = Killable::start(other.path());
    let url = format!("file://{}", other.path().join("journal").display());
    let mut command = neuroflow(&["tasks", "--journal-url", &url, "--control-socket", &socket]);
    let refused = command.arg("list").output().expect("the built binary");
    let error = text(&refused.stderr);
    assert!(error.contains("its journal is") && refused.stdout.is_empty(), "{error}");
    another.kill();

    node.kill();
    assert_eq!(all(), running, "the journal itself says what its node has said");
}

#[test]
fn tasks_in_memory_are_shown_by_their_node_alone_while_it_works() {
    let folder = Folder::new();
    let socket = folder.path().join("control.sock").display().to_string();
    let node = Killable::start_at("memory", &socket);
    let over = Arc::new(AtomicBool::new(false));
    let told: Told = Arc::default();
    let client = {
        let (told, over, gateway) = (told.clone(), over.clone(), node.gateway);
        let ask = move || ask_until_killed(gateway, 0, &told, &over);
        std::thread::Builder::new().spawn(ask).expect("a thread")
    };
    let run = |action: &[&str]| {
        let mut command =
            neuroflow(&["tasks", "--journal-url", "memory", "--control-socket", &socket]);
        let said = command.args(action).output().expect("the built binary");
        (said.status.code(), String::from_utf8_lossy(&said.stdout).into_owned(), said.stderr)
    };
    for _ in 0..3 {
        while told.lock().expect("no panic").is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let (code, exported, _) = run(&["export"]);
        assert_eq!(code, Some(0));
        // Each task's log is whole up to some event.
        let mut last: HashMap<String, u64> = HashMap::new();
        for line in exported.lines() {
            let entry: Value = serde_json::from_str(line).expect("JSON");
            let task = entry["task"].as_str().expect("a task").to_owned();
            let generation = entry["generation"].as_u64().expect("an event");
            let before = last.insert(task, generation).unwrap_or(0);
            assert_eq!(generation, before + 1, "{line}");
        }
        assert!(!last.is_empty());
    }
    over.store(true, Ordering::SeqCst);
    client.join().expect("a client doesn't panic");
    let (_, exported, _) = run(&["export"]);
    for task in told.lock().expect("no panic").keys() {
        assert!(exported.contains(task.as_str()), "{task} isn't exported");
    }
    node.kill();
    let (code, _, error) = run(&["list"]);
    let error = String::from_utf8_lossy(&error);
    assert!(code == Some(1) && error.contains("only its running node"), "{error}");
}
