//! Programs for MCP clients, in both versions: a task for who knows tasks, progress for who wants it,
//! and cancelled with every process.

use neuroflow::{AnyAgent, Echo, McpServer, Node, NodeBuilder};
use serde_json::{Value, json};

use crate::cancel::family;
use crate::mcp_access::{Client, error};
use crate::mcp_tasks::until;
use crate::support::{
    actors, eventually, kill, loopback, marker, pause, processes_with, profile, standard, start,
};

fn node() -> NodeBuilder {
    let node = Node::builder().agent(AnyAgent::new(Echo)).sandbox(profile(standard()));
    node.gateway(loopback()).mcp_server(McpServer { http: true, exec: true })
}

fn shell(line: &str) -> Value {
    json!({ "command": ["sh", "-c", line] })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_takes_long_is_a_task_for_clients_that_know_tasks() {
    let (node, to) = start(node()).await;
    let client = Client::new(to, None);
    let before = actors(&node);
    let begin = async |line: String| {
        let call = json!({ "name": "exec", "arguments": shell(&line) });
        let answer = client.call("tools/call", call).await;
        let task = &answer["result"];
        assert_eq!(
            (&task["resultType"], &task["status"]),
            (&json!("task"), &json!("working")),
            "{answer}"
        );
        let id = task["taskId"].as_str().expect("an id").to_owned();
        assert!(id.starts_with("exec/"), "{id}");
        id
    };
    let marker = marker();
    let (endless, failing) =
        tokio::join!(begin(family(&marker)), begin("sleep 4; echo late; exit 3".to_owned()));
    until(&client, &endless, "working").await;
    eventually("the family", || processes_with(&marker).len() == 4).await;
    let cancelled = client.call("tasks/cancel", json!({ "taskId": endless })).await;
    assert!(cancelled.get("error").is_none(), "{cancelled}");
    eventually("the family's end", || processes_with(&marker).is_empty()).await;
    until(&client, &endless, "cancelled").await;
    // The other one comes to its own end, and is told as if it had been waited for.
    let done = until(&client, &failing, "completed").await;
    let result = &done["result"];
    let ended = &result["structuredContent"];
    assert_eq!((&ended["stdout"], &ended["exit_code"]), (&json!("late\n"), &json!(3)), "{done}");
    assert_eq!((&ended["level"], &result["isError"]), (&json!("standard"), &json!(true)), "{done}");
    for method in ["tasks/get", "tasks/cancel"] {
        let answer = client.call(method, json!({ "taskId": "exec/none" })).await;
        assert_eq!(error(&answer), (-32602, "there is no such task"), "{method}");
    }
    // One that is quick is no task.
    let call = json!({ "name": "exec", "arguments": shell("echo quick") });
    let quick = client.call("tools/call", call).await;
    assert_eq!(quick["result"]["structuredContent"]["stdout"], "quick\n", "{quick}");
    let call = json!({ "name": "exec", "arguments": { "command": [] } });
    let wrong = client.call("tools/call", call).await;
    // That is a result, which the model sees that has written them.
    assert_eq!(wrong["result"]["isError"], true, "{wrong}");
    assert_eq!(wrong["result"]["content"][0]["text"], "command must have a program", "{wrong}");
    eventually("the end of all actors", || actors(&node) == before).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_program_hears_that_it_runs_and_ends_it_by_giving_up() {
    let (node, to) = start(node()).await;
    let client = Client::new(to, None);
    let before = actors(&node);
    let session = async || {
        let begun = client.begin().await;
        begun.header("mcp-session-id").expect("a session").to_owned()
    };
    let (own, other) = (session().await, session().await);
    let markers = [marker(), marker(), marker()];
    let mut calls = Vec::new();
    for (marker, session) in markers.iter().zip([Some(&own), Some(&other), None]) {
        let session = session.map(String::as_str);
        calls.push(client.calling(session, 5, "exec", &shell(&family(marker))).await);
    }
    for call in &mut calls {
        call.until("running at level standard").await;
        call.until("running for ").await;
    }
    for marker in &markers {
        eventually("the family", || processes_with(marker).len() == 4).await;
    }
    let lives = || markers.each_ref().map(|marker| !processes_with(marker).is_empty());
    let last = calls.pop().expect("three");
    // The earlier version says so.
    let cancelled = json!({
        "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 5 },
    });
    assert_eq!(client.tell(&own, &cancelled).await, 202);
    eventually("the end of the first family", || lives() == [false, true, true]).await;
    // A session that ends takes its calls with it.
    assert_eq!(client.end(&other).await, 202);
    eventually("the end of the second family", || lives() == [false, false, true]).await;
    // The later version has no other way than to go.
    drop(last);
    eventually("the end of the third family", || lives() == [false; 3]).await;
    eventually("the end of all actors", || actors(&node) == before).await;
    node.stop().await;
}

/// Ends the program that a cell's shell waits for, so that the shell goes on.
async fn let_go(marker: &str) {
    eventually("the wait", || processes_with(marker).len() == 1).await;
    processes_with(marker).into_iter().for_each(kill);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_is_what_the_program_has_written_so_far() {
    let (node, to) = start(node()).await;
    let client = Client::new(to, None);
    let session = client.begin().await;
    let session = session.header("mcp-session-id").expect("a session").to_owned();
    let script = |waits: &[String; 2]| {
        let [first, second] = waits;
        shell(&format!(
            "exec 2>/dev/null; printf 'one\\ntwo\\n'; sleep {first}; \
             printf '\\033[31mthree\\033[0m\\rfour'; sleep {second}; echo; exit 3"
        ))
    };
    for session in [Some(session.as_str()), None] {
        let waits = [marker(), marker()];
        let mut call = client.calling(session, 5, "exec", &script(&waits)).await;
        call.until("\"two\"").await;
        // Nothing more is written, and it's still there.
        call.until("running for").await;
        let_go(&waits[0]).await;
        call.until("\"four\"").await;
        let_go(&waits[1]).await;
        let told = call.progress();
        let last = call.last().await.expect("an answer");
        let ended = &last["result"]["structuredContent"];
        assert_eq!((&ended["exit_code"], &last["result"]["isError"]), (&json!(3), &json!(true)));
        assert!(told.is_sorted_by(|(a, _), (b, _)| a < b), "it's more each time: {told:?}");
        let at = |words: &str| -> Vec<u64> {
            let of = told.iter().filter(|(_, said)| said.starts_with(words));
            // The whole number is that of bytes.
            of.map(|(progress, _)| format!("{:.0}", progress.floor()).parse().expect("a number"))
                .collect()
        };
        assert_eq!(at("running at level standard"), [0], "{told:?}");
        assert_eq!((at("two"), at("four")), (vec![8], vec![27]), "{told:?}");
        let still = at("running for");
        assert!(!still.is_empty() && still.iter().all(|bytes| [8, 27].contains(bytes)), "{told:?}");
    }
    // Who knows tasks asks for it.
    let waits = [marker(), marker()];
    let call = json!({ "name": "exec", "arguments": script(&waits) });
    let id = client.call("tools/call", call).await["result"]["taskId"].clone();
    let mut said = Value::Null;
    for words in ["two", "four"] {
        for _ in 0..1_000 {
            said = client.call("tasks/get", json!({ "taskId": id })).await["result"].clone();
            if said["statusMessage"] == words {
                break;
            }
            pause(20).await;
        }
        assert_eq!((&said["statusMessage"], &said["status"]), (&json!(words), &json!("working")));
        let_go(&waits[usize::from(words == "four")]).await;
    }
    let done = until(&client, id.as_str().expect("an id"), "completed").await;
    assert_eq!(done["result"]["structuredContent"]["stdout"].as_str().map(str::len), Some(28));
    node.stop().await;
}
