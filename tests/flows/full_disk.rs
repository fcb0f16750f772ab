//! A node whose disk is full: every door refuses new work in its own words, everything that was taken can be read
//! in all of them, and with room again it goes on.

use std::net::SocketAddr;
use std::path::Path;

use neuroflow::actors::{AuditConfig, JournalConfig, JournalPlace};
use neuroflow::{AnyAgent, Echo, McpServer, Node};
use serde_json::{Value, json};

use crate::access::{ALL, Files, ask, config, node, token};
use crate::client::{Connection, message};
use crate::mcp_access::Client;
use crate::protocol::{Binding, Peer};
use crate::small_disk;
use crate::support::{loopback, output, pause, start};

#[test]
fn every_door_of_a_node_on_a_full_disk_refuses_and_shows() {
    let files = Files::fresh();
    let test = "full_disk::every_door_of_a_node_on_a_full_disk_refuses_and_shows";
    small_disk::run(test, files.path(), async |disk| refuses_and_shows(disk).await);
}

fn text(text: &str) -> Value {
    message(json!([{ "text": text }]))
}

async fn chat(to: SocketAddr, text: &str, stream: bool) -> (u16, String) {
    let body = json!({
        "model": "echo", "stream": stream, "messages": [{ "role": "user", "content": text }],
    });
    let mut connection = Connection::open(to).await;
    let answer = connection.post("/v1/chat/completions", body.to_string().as_bytes()).await;
    (answer.status, answer.text())
}

async fn refuses_and_shows(disk: &Path) {
    let journal = JournalConfig::new(JournalPlace::Directory(disk.join("journal")));
    let builder = Node::builder().agent(AnyAgent::new(Echo)).gateway(loopback()).journal(journal);
    let (node, to) = start(builder.mcp_server(McpServer { http: true, exec: false })).await;
    let peers = Binding::ALL.map(|binding| Peer::new(binding, to, None));
    let mut kept = Vec::new();
    for peer in &peers {
        let sent = peer.call("SendMessage", text("before")).await.expect("there is room");
        kept.push(sent["task"].clone());
    }
    let ballast = disk.join("ballast");
    // The system gives what there is, and then no more.
    let _full = std::fs::write(&ballast, vec![1; 4 * 1024 * 1024]);
    let large = "x".repeat(64 * 1024);
    for (peer, code) in peers.iter().zip([-32603, 503, 14]) {
        for operation in ["SendMessage", "SendStreamingMessage"] {
            let fault = if operation == "SendMessage" {
                peer.call(operation, text(&large)).await.expect_err("there is no room")
            } else {
                peer.stream(operation, text(&large)).await.err().expect("there is no room")
            };
            assert_eq!(
                (fault.code, fault.reason.as_str(), fault.message.as_str()),
                (code, "INTERNAL_ERROR", "the agent isn't available: not_kept"),
                "{operation} {:?}",
                peer.binding
            );
        }
    }
    for stream in [false, true] {
        let (status, body) = chat(to, &large, stream).await;
        let error: Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{body}"));
        assert_eq!((status, &error["error"]["code"]), (503, &json!("refused")), "{body}");
    }
    let mcp = Client::new(to, None);
    let call = async |text: &str| {
        let call = json!({ "name": "echo", "arguments": { "message": text } });
        mcp.call("tools/call", call).await["result"].clone()
    };
    let refused = call(&large).await;
    assert_eq!(refused["isError"], true, "{refused}");
    let said = refused["content"][0]["text"].as_str().expect("words");
    assert_eq!(said, "the journal doesn't take the task");
    // Nothing of that has become a task, and all that was one can be read in every binding.
    for peer in &peers {
        let listed = peer.call("ListTasks", json!({})).await.expect("it can be read");
        assert_eq!(listed["totalSize"], 3, "{:?}", peer.binding);
        for task in &kept {
            let id = json!({ "id": task["id"] });
            let shown = peer.call("GetTask", id).await.expect("it can be read");
            assert_eq!(shown["artifacts"], task["artifacts"], "{:?}", peer.binding);
        }
    }
    let mut connection = Connection::open(to).await;
    let ready = connection.get("/readyz").await;
    assert_eq!((ready.status, ready.text().as_str()), (503, "journal: disk_full\n"));

    std::fs::remove_file(&ballast).expect("removed");
    // Nobody asks for anything that would show it.
    ready_again(to).await;
    for peer in &peers {
        let sent = peer.call("SendMessage", text(&large)).await.expect("there is room again");
        assert_eq!(output(&sent["task"]), large);
    }
    assert_eq!(chat(to, "after", false).await.0, 200);
    assert_eq!(call("after").await["isError"], false);
    node.stop().await;
}

/// Waits until the node takes work again.
async fn ready_again(to: SocketAddr) {
    let mut connection = Connection::open(to).await;
    for _ in 0..1_000 {
        if connection.get("/readyz").await.status == 200 {
            return;
        }
        pause(10).await;
    }
    panic!("it isn't ready again");
}

#[test]
fn a_node_that_cannot_record_what_it_decides_is_not_ready_until_it_can() {
    let files = Files::fresh();
    let test = "full_disk::a_node_that_cannot_record_what_it_decides_is_not_ready_until_it_can";
    small_disk::run(test, files.path(), async |disk| refuses_unrecorded(disk).await);
}

async fn refuses_unrecorded(disk: &Path) {
    let ci = token("ci", &[]);
    let written = |name: &str, text: &str| {
        let path = disk.join(name);
        std::fs::write(&path, text).expect("there is room");
        path
    };
    let access = config(&written("tokens", ci.line()), &written("policy", ALL));
    let audit = AuditConfig::new(disk.join("audit.log"));
    let (node, to) = start(node(access).audit(audit)).await;
    assert_eq!(ask(to, "/", Some(ci.secret())).await.status, 200, "there is room");
    let mut connection = Connection::open(to).await;
    assert_eq!(connection.get("/readyz").await.text(), "ready\n");
    let ballast = disk.join("ballast");
    // The system gives what there is, and then no more.
    let _full = std::fs::write(&ballast, vec![1; 4 * 1024 * 1024]);
    let mut requests = 0..100;
    while ask(to, "/", Some(ci.secret())).await.status == 200 {
        assert!(requests.next().is_some(), "the rest of a page is a few records");
    }
    let ready = connection.get("/readyz").await;
    assert_eq!((ready.status, ready.text().as_str()), (503, "audit: disk_full\n"));
    let audit = node.audit().condition().expect("there is a log");
    assert!(audit.refused().iter().any(|(reason, count)| *reason == "disk_full" && *count > 0));
    assert_eq!(node.conditions().len(), 2);
    std::fs::remove_file(&ballast).expect("removed");
    ready_again(to).await;
    assert_eq!(ask(to, "/", Some(ci.secret())).await.status, 200, "there is room again");
    node.stop().await;
}
