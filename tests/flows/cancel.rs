//! Cancelling a task ends every process that works for it; going away doesn't.

use std::time::Duration;

use neuroflow::{AgentBuilder, Answer, GatewayConfig, ManualClock, Node};
use serde_json::json;

use crate::client::{
    Connection, begin_text, get_task, message, post, request, rpc, send_text, task_of,
};
use crate::support::{
    actors, eventually, loopback, marker, output, pause, processes_with, shell_node, start, state,
};

/// A child, a daemon of a session of its own, and both deaf to polite signals.
pub(crate) fn family(marker: &str) -> String {
    format!(
        "trap '' TERM HUP INT; sleep {marker} & \
         (setsid sh -c 'trap \"\" TERM HUP INT; sleep {marker} & sleep {marker}' &) ; \
         sleep {marker}"
    )
}

#[tokio::test]
async fn cancelling_a_task_kills_every_process_of_its_cell() {
    let (node, to) = start(shell_node()).await;
    let before = actors(&node);
    let (marker, bystander) = (marker(), marker());
    let task = begin_text(to, "/", &family(&marker)).await;
    let other = begin_text(to, "/", &format!("sleep {bystander}")).await;
    eventually("the family", || processes_with(&marker).len() == 4).await;
    eventually("the bystander", || processes_with(&bystander).len() == 1).await;

    let answer = rpc(to, "/", "CancelTask", json!({ "id": task })).await;
    assert_eq!(state(&answer["result"]), "TASK_STATE_CANCELED");
    assert_eq!(answer["result"]["id"], json!(task));
    eventually("the end of the family", || processes_with(&marker).is_empty()).await;
    assert_eq!(processes_with(&bystander).len(), 1, "another task's process was killed");
    assert_eq!(state(&get_task(to, "/", &task).await), "TASK_STATE_CANCELED");
    assert_eq!(state(&get_task(to, "/", &other).await), "TASK_STATE_WORKING");

    let answer = rpc(to, "/", "CancelTask", json!({ "id": other })).await;
    assert_eq!(state(&answer["result"]), "TASK_STATE_CANCELED");
    eventually("the end of all actors", || actors(&node) == before).await;
    node.stop().await;
}

#[tokio::test]
async fn what_has_ended_or_never_was_cannot_be_cancelled() {
    let (node, to) = start(shell_node()).await;
    let running = begin_text(to, "/", "sleep 50").await;
    let done = send_text(to, "/", "true").await;
    let done = done["id"].as_str().expect("a task has an id");
    let cancel = |task: &str| rpc(to, "/", "CancelTask", json!({ "id": task }));
    assert!(cancel(&running).await.get("error").is_none());
    for (task, state) in [(running.as_str(), "canceled"), (done, "completed")] {
        let error = cancel(task).await["error"].take();
        assert_eq!(error["code"], -32002);
        assert_eq!(error["data"][0]["reason"], "TASK_NOT_CANCELABLE");
        assert_eq!(error["data"][0]["domain"], "a2a-protocol.org");
        let message = error["message"].as_str().expect("a message");
        assert!(message.contains(task) && message.ends_with(state), "{message}");
    }
    for method in ["CancelTask", "GetTask"] {
        let error = rpc(to, "/", method, json!({ "id": "no-such-task" })).await["error"].take();
        assert_eq!(error["code"], -32001);
        assert_eq!(error["data"][0]["reason"], "TASK_NOT_FOUND");
    }
    // Another agent's task is none of this one's.
    let mine = begin_text(to, "/", "sleep 50").await;
    let error = rpc(to, "/agents/echo", "CancelTask", json!({ "id": mine })).await["error"].take();
    assert_eq!(error["code"], -32001);
    assert_eq!(state(&get_task(to, "/", &mine).await), "TASK_STATE_WORKING");
    node.stop().await;
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_its_task_running() {
    let (node, to) = start(shell_node()).await;
    let marker = marker();
    let line = format!("echo here; timeout 2 sleep {marker}; echo still here");
    let mut connection = Connection::open(to).await;
    let body = request("SendMessage", message(json!([{ "text": line }])));
    connection.send(&post("/", &[], &body)).await.expect("the request is sent");
    eventually("the process", || !processes_with(&marker).is_empty()).await;
    drop(connection);
    let tree = node.census().tree();
    let task = tree.iter().find(|actor| actor.kind == "task").expect("the task's actor");
    let task = task.path.to_string().rsplit('/').next().unwrap_or_default().to_owned();
    pause(300).await;
    assert!(!processes_with(&marker).is_empty(), "the process was killed");
    assert_eq!(state(&get_task(to, "/", &task).await), "TASK_STATE_WORKING");
    let mut ended = get_task(to, "/", &task).await;
    while state(&ended) == "TASK_STATE_WORKING" {
        pause(50).await;
        ended = get_task(to, "/", &task).await;
    }
    assert_eq!(output(&ended), "here\nstill here\n");
    node.stop().await;
}

#[tokio::test]
async fn a_client_may_ask_not_to_wait() {
    let (node, to) = start(shell_node()).await;
    let mut params = message(json!([{ "text": "sleep 1; echo later" }]));
    params["configuration"] = json!({ "returnImmediately": true, "historyLength": 0 });
    let task = task_of(rpc(to, "/", "SendMessage", params).await);
    assert!(["TASK_STATE_SUBMITTED", "TASK_STATE_WORKING"].contains(&state(&task)), "{task}");
    assert_eq!((task.get("artifacts"), task.get("history")), (None, None));
    let id = task["id"].as_str().expect("a task has an id");
    let mut task = get_task(to, "/", id).await;
    while state(&task) != "TASK_STATE_COMPLETED" {
        pause(50).await;
        task = get_task(to, "/", id).await;
    }
    assert_eq!(output(&task), "later\n");
    node.stop().await;
}

#[tokio::test]
async fn a_wait_that_takes_too_long_is_answered_with_the_task_as_it_is() {
    let time = ManualClock::new();
    let agent = AgentBuilder::new("waits", "Waits.").on_ask(|_, context| async move {
        context.say("patience").await?;
        context.clock().sleep(Duration::from_secs(100)).await;
        Ok(Answer::text("at last"))
    });
    let mut config = GatewayConfig::new(loopback());
    config.blocking_wait = Duration::from_secs(40);
    let node = Node::builder().agent(agent).clock(time.clock()).gateway_with(config);
    let (node, to) = start(node).await;
    let working = || {
        let tree = node.census().tree();
        tree.iter().any(|actor| actor.kind == "agent" && actor.handled >= 3)
    };
    let (task, ()) = tokio::join!(send_text(to, "/", "go"), async {
        eventually("the task's first words", working).await;
        time.advance(Duration::from_secs(41));
    });
    assert_eq!(state(&task), "TASK_STATE_WORKING");
    assert_eq!(task["status"]["message"]["parts"][0]["text"], "patience");
    let id = task["id"].as_str().expect("a task has an id");
    time.advance(Duration::from_mins(1));
    let mut task = get_task(to, "/", id).await;
    while state(&task) == "TASK_STATE_WORKING" {
        pause(10).await;
        task = get_task(to, "/", id).await;
    }
    assert_eq!(output(&task), "at last");
    node.stop().await;
}
