//! Failures stay where they happen, are told at once, and are remembered.

use std::sync::Arc;

use neuroflow::kernel::limits::POST_MORTEMS;
use neuroflow::{AgentBuilder, Answer, AnyAgent, Node};
use serde_json::json;
use tokio::sync::Notify;

use crate::client::{begin_text, get_task, rpc, send_text};
use crate::support::{
    eventually, generation, kill, loopback, marker, output, pause, processes_with, report, said,
    shell_node, start, state, zygote_above,
};

/// Panics when told so, and otherwise waits until it's let go.
fn fragile(let_go: &Arc<Notify>) -> AnyAgent {
    let let_go = Arc::clone(let_go);
    AgentBuilder::new("fragile", "Panics when told so.").on_ask(move |ask, _| {
        let let_go = Arc::clone(&let_go);
        async move {
            assert_ne!(ask.text(), "panic", "as it was told");
            let_go.notified().await;
            Ok(Answer::text("survived"))
        }
    })
}

#[tokio::test]
async fn an_agent_that_panics_fails_that_task_alone() {
    let let_go = Arc::new(Notify::new());
    let (node, to) = start(Node::builder().agent(fragile(&let_go)).gateway(loopback())).await;
    let other = begin_text(to, "/", "wait").await;
    // Nothing but the panic ends this request: the agent's own time is an hour.
    let task = send_text(to, "/", "panic").await;
    assert_eq!(state(&task), "TASK_STATE_FAILED");
    assert_eq!(said(&task), "the agent failed unexpectedly");

    assert_eq!(state(&get_task(to, "/", &other).await), "TASK_STATE_WORKING");
    eventually("the other task's end", || {
        let_go.notify_waiters();
        node.census().tree().iter().all(|actor| actor.kind != "task")
    })
    .await;
    assert_eq!(output(&get_task(to, "/", &other).await), "survived");
    assert_eq!(generation(&node, "/agents/fragile"), 1);

    let dead = node.kernel().post_mortems();
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].kind, "task");
    assert_eq!(dead[0].path.to_string(), format!("/agents/fragile/{}", id(&task)));
    assert!(dead[0].cause.to_string().contains("as it was told"), "{}", dead[0].cause);
    let message = dead[0].message.as_ref().expect("it was handling a message");
    assert!(message.name == "begin" && message.archive.is_some());
    node.stop().await;
}

#[tokio::test]
async fn as_many_failures_are_remembered_as_may_be_and_the_agent_lives_on() {
    let let_go = Arc::new(Notify::new());
    let (node, to) = start(Node::builder().agent(fragile(&let_go)).gateway(loopback())).await;
    let mut last = String::new();
    for _ in 0..POST_MORTEMS + 6 {
        let task = send_text(to, "/", "panic").await;
        assert_eq!(state(&task), "TASK_STATE_FAILED");
        last = id(&task);
    }
    let dead = node.kernel().post_mortems();
    assert_eq!(dead.len(), POST_MORTEMS);
    assert_eq!(dead[0].path.to_string(), format!("/agents/fragile/{last}"), "newest first");
    assert_eq!(generation(&node, "/agents/fragile"), 1);
    node.stop().await;
}

#[tokio::test]
async fn the_sandbox_outlives_its_zygote() {
    let (node, to) = start(shell_node()).await;
    let mut killed = Vec::new();
    // More often than a launcher tries in a row: each success counts anew.
    for round in 0..7 {
        let marker = marker();
        let task = begin_text(to, "/", &format!("sleep {marker}; echo not reached")).await;
        eventually("the cell", || !processes_with(&marker).is_empty()).await;
        let zygote = zygote_above(processes_with(&marker)[0]);
        assert!(!killed.contains(&zygote));
        kill(zygote);
        killed.push(zygote);
        // The cells of a zygote die with it, and whoever waits is told.
        eventually("the end of the cell", || processes_with(&marker).is_empty()).await;
        let task = loop {
            let task = get_task(to, "/", &task).await;
            if state(&task) != "TASK_STATE_WORKING" {
                break task;
            }
            pause(20).await;
        };
        assert_eq!(report(&task)["ended"], "killed");
        assert_eq!(output(&task), "");

        let task = send_text(to, "/", &format!("echo round {round}")).await;
        assert_eq!(output(&task), format!("round {round}\n"));
    }
    assert_eq!(generation(&node, "/sandbox"), 1);
    assert!(node.kernel().post_mortems().is_empty());
    node.stop().await;
}

#[tokio::test]
async fn the_tree_is_what_was_started() {
    let (node, to) = start(shell_node()).await;
    let task = begin_text(to, "/", "sleep 20").await;
    let wanted = format!("/agents/shell/{task}");
    let tree = || {
        let tree = node.census().tree();
        tree.iter().map(|actor| (actor.path.to_string(), actor.kind)).collect::<Vec<_>>()
    };
    eventually("the cell", || tree().iter().any(|(_, kind)| *kind == "cell")).await;
    let expected = [
        ("/", "supervisor"),
        ("/agents", "supervisor"),
        ("/agents/echo", "agent"),
        ("/agents/shell", "agent"),
        (wanted.as_str(), "task"),
        ("/drain", "drain"),
        ("/gateway", "gateway"),
        ("/journal", "journal"),
        ("/sandbox", "sandbox"),
        ("/sandbox/cell-1", "cell"),
        ("/tools", "tools"),
        ("/tools/exec-1", "tool_call"),
    ];
    assert_eq!(tree(), expected.map(|(path, kind)| (path.to_owned(), kind)));
    let answer = rpc(to, "/", "CancelTask", json!({ "id": task })).await;
    assert_eq!(state(&answer["result"]), "TASK_STATE_CANCELED");
    eventually("the end of the cell", || tree().len() == 9).await;
    node.stop().await;
}

fn id(task: &serde_json::Value) -> String {
    task["id"].as_str().expect("a task has an id").to_owned()
}
