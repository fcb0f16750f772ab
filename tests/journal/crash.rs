//! The built node under load, killed at any moment: what was acknowledged is there afterwards.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::now;
use crate::folder::Folder;

/// Kills, at least.
const KILLS: usize = 200;
/// Asks of a client, at most: fewer than memory keeps tasks.
const ASKS: usize = 5_000;
/// Clients that ask without a pause.
const CLIENTS: usize = 4;

/// What clients were told: the last state of each task.
type Told = Arc<Mutex<HashMap<String, String>>>;

#[test]
fn two_hundred_kills_lose_no_task_that_was_acknowledged() {
    let folder = Folder::new();
    let told: Told = Arc::default();
    let begun = now();
    for round in 0..KILLS {
        let node = Killable::start(folder.path());
        let over = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (told, over, gateway) = (told.clone(), over.clone(), node.gateway);
                std::thread::Builder::new()
                    .spawn(move || ask_until_killed(gateway, client, &told, &over))
                    .expect("a thread")
            })
            .collect();
        // At a different moment of the work each time.
        std::thread::sleep(Duration::from_micros(20_000 + (round as u64 * 7_919) % 60_000));
        over.store(true, Ordering::SeqCst);
        node.kill();
        for client in clients {
            client.join().expect("a client doesn't panic");
        }
        if round % 20 == 19 {
            account_for(&folder, &told);
        }
    }
    account_for(&folder, &told);
    let acknowledged = told.lock().expect("no client panicked").len();
    assert!(acknowledged > KILLS, "{acknowledged} tasks in {:?}", begun.elapsed());
}

/// Every task that a client was told of is there; what had ended is as it was, and nothing is still
/// at work.
fn account_for(folder: &Folder, told: &Told) {
    let node = Killable::start(folder.path());
    let told = told.lock().expect("no client panicked");
    for (task, state) in told.iter() {
        let request = json!({ "id": task });
        let answer = call(node.gateway, "GetTask", &request)
            .unwrap_or_else(|| panic!("the node doesn't answer for {task}"));
        let found = answer["result"]["status"]["state"].as_str();
        let found = found.unwrap_or_else(|| panic!("{task}, told as {state}, is lost: {answer}"));
        match state.as_str() {
            "TASK_STATE_COMPLETED" => assert_eq!(found, state, "{task} has changed"),
            // It was running when the node was killed, and the agent isn't resumable.
            _ => assert!(["TASK_STATE_COMPLETED", "TASK_STATE_FAILED"].contains(&found), "{found}"),
        }
        let artifacts = answer["result"]["artifacts"].as_array().map_or(0, Vec::len);
        assert_eq!(artifacts, usize::from(found == "TASK_STATE_COMPLETED"), "{task}: {answer}");
    }
    drop(told);
    node.kill();
}

fn ask_until_killed(gateway: SocketAddr, client: usize, told: &Told, over: &AtomicBool) {
    let mut number = 0;
    while !over.load(Ordering::SeqCst) && number < ASKS {
        number += 1;
        // Some don't wait for the end.
        let at_once = number % 3 == 0;
        let request = json!({
            "message": {
                "messageId": format!("{client}-{number}"),
                "role": "ROLE_USER",
                "parts": [{ "text": "hello" }],
            },
            "configuration": { "returnImmediately": at_once },
        });
        let Some(answer) = call(gateway, "SendMessage", &request) else { continue };
        let task = &answer["result"]["task"];
        let (Some(id), Some(state)) = (task["id"].as_str(), task["status"]["state"].as_str())
        else {
            continue;
        };
        told.lock().expect("no client panicked").insert(id.to_owned(), state.to_owned());
    }
}

/// One JSON-RPC call on a connection of its own; nothing if the node goes away meanwhile.
pub(crate) fn call(gateway: SocketAddr, method: &str, params: &Value) -> Option<Value> {
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
    let mut stream = TcpStream::connect(gateway).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    let head = format!(
        "POST / HTTP/1.1\r\nhost: {gateway}\r\ncontent-type: application/json\r\n\
         a2a-version: 1.0\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    // A body that was cut off isn't an acknowledgement.
    serde_json::from_str(body).ok()
}

/// A node that is killed, never stopped.
pub(crate) struct Killable {
    process: Child,
    pub(crate) gateway: SocketAddr,
}

impl Killable {
    fn start(folder: &Path) -> Self {
        Self::start_with(folder, "off")
    }

    fn start_with(folder: &Path, socket: &str) -> Self {
        Self::start_at(&format!("file://{}", folder.join("journal").display()), socket)
    }

    pub(crate) fn start_at(journal: &str, socket: &str) -> Self {
        let mut process = neuroflow(&["serve", "--gateway-listen", "127.0.0.1:0"]);
        process.args(["--telemetry-metrics-listen", "off", "--control-socket", socket]);
        process.args(["--agents-enabled", "echo", "--log-filter", "error"]);
        process.args(["--journal-url", journal]);
        process.env("NEUROFLOW_GATEWAY_PUSH_ALLOW_PRIVATE", "true");
        process.stdout(Stdio::piped());
        let mut process = process.spawn().expect("the built binary starts");
        let mut lines = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        let gateway = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, url) = line.split_once("gateway     http://")?;
            url.trim_end_matches('/').parse().ok()
        });
        let gateway = gateway.expect("the node says where its gateway is");
        Self { process, gateway }
    }

    pub(crate) fn kill(mut self) {
        self.process.kill().expect("it still runs");
        self.process.wait().expect("a child can be waited for");
    }
}

#[expect(clippy::disallowed_methods, reason = "the built node is what is killed")]
pub(crate) fn neuroflow(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_neuroflow"));
    command.args(arguments).stdin(Stdio::null()).current_dir("/");
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("NEUROFLOW_") || name.starts_with("OTEL_") {
            command.env_remove(&*name);
        }
    }
    command
}

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
