//! Cancelling a task ends every process that works for it; going away doesn't.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use neuroflow::{
    AgentBuilder, AgentError, Answer, AnyAgent, GatewayConfig, ManualClock, Node, TaskContext,
};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::client::{
    Connection, begin_text, get_task, message, post, request, rpc, send_text, task_of,
};
use crate::support::{
    actors, eventually, loopback, marker, output, pause, processes_with, profile, shell_node,
    standard, start, state,
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
    let (node, to) = start(shell_node().drain_within(Duration::ZERO)).await;
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

/// What a task did that the agent's function has spawned: one thing after the other.
#[derive(Clone, Default)]
struct Spawned {
    /// What became of each.
    ends: Arc<Mutex<Vec<String>>>,
    /// How often the work of its effect was done.
    paid: Arc<AtomicUsize>,
}

impl Spawned {
    async fn act(self, marker: String, context: TaskContext) {
        let note = |what: &str, end: String| {
            self.ends.lock().expect("no panic").push(format!("{what}: {end}"));
        };
        let sleep = json!({ "command": ["sleep", marker] });
        for what in ["running call", "later call"] {
            let end = match context.call("exec", &sleep).await {
                Ok(_done) => "done".to_owned(),
                Err(error) => error.code().to_owned(),
            };
            note(what, end);
        }
        let paid = Arc::clone(&self.paid);
        let pay = async move { Ok(paid.fetch_add(1, Ordering::SeqCst)) };
        let refusal = |error: AgentError| match error {
            AgentError::TaskEnded => "task_ended".to_owned(),
            error => error.to_string(),
        };
        note("effect", context.effect("pay", pay).await.map_or_else(refusal, |_| "done".into()));
        note("word", context.say("still here").await.map_or_else(refusal, |()| "said".into()));
    }
}

/// An agent that leaves a call running when it's let through the gate, and returns or panics then.
fn spawning(spawned: &Spawned, gate: &Arc<Semaphore>) -> AnyAgent {
    let (spawned, gate) = (spawned.clone(), Arc::clone(gate));
    let agent = AgentBuilder::new("spawns", "Doesn't wait for what it spawns.");
    let agent = agent.profile(|profile| profile.task_deadline = Duration::from_mins(5));
    agent.shared_tool("exec").on_ask(move |ask, context| {
        let (spawned, gate) = (spawned.clone(), Arc::clone(&gate));
        let text = ask.text();
        let (end, marker) = text.split_once(' ').expect("two words");
        let (panics, marker) = (end == "panic", marker.to_owned());
        async move {
            #[expect(clippy::disallowed_methods, reason = "it's what agents do")]
            drop(tokio::spawn(spawned.act(marker, context)));
            let _open = gate.acquire().await;
            assert!(!panics, "as it was told");
            Ok(Answer::done())
        }
    })
}

/// However the task ends, what the function has spawned can do nothing for it any more.
#[tokio::test]
async fn what_a_function_has_spawned_ends_with_its_task() {
    for end in ["cancel", "return", "panic", "timeout"] {
        let (spawned, gate) = (Spawned::default(), Arc::new(Semaphore::new(0)));
        let (time, marker) = (ManualClock::new(), marker());
        let long = profile(standard().wall_time(Duration::from_mins(20)));
        let node = Node::builder().agent(spawning(&spawned, &gate)).sandbox(long);
        let (node, to) = start(node.clock(time.clock()).gateway(loopback())).await;
        let task = begin_text(to, "/", &format!("{end} {marker}")).await;
        eventually("the process", || processes_with(&marker).len() == 1).await;
        let state_then = match end {
            "cancel" => {
                rpc(to, "/", "CancelTask", json!({ "id": task })).await;
                "TASK_STATE_CANCELED"
            }
            "timeout" => {
                time.advance(Duration::from_mins(5));
                "TASK_STATE_FAILED"
            }
            end => {
                gate.add_permits(1);
                if end == "panic" { "TASK_STATE_FAILED" } else { "TASK_STATE_COMPLETED" }
            }
        };
        eventually("the end of what was spawned", || {
            spawned.ends.lock().expect("no panic").len() == 4
        })
        .await;
        let ends = spawned.ends.lock().expect("no panic").clone();
        let all = ["running call", "later call", "effect", "word"];
        let mut ended = all.map(|what| format!("{what}: task_ended"));
        if end == "timeout" {
            // The call has the same deadline.
            ended[0].clone_from(&ends[0]);
        }
        assert_eq!(ends, ended, "{end}");
        assert_eq!(spawned.paid.load(Ordering::SeqCst), 0, "{end}");
        eventually("the end of the process", || processes_with(&marker).is_empty()).await;
        let mut ended = get_task(to, "/", &task).await;
        while state(&ended) == "TASK_STATE_WORKING" {
            pause(10).await;
            ended = get_task(to, "/", &task).await;
        }
        assert_eq!(state(&ended), state_then, "{end}: {ended}");
        node.stop().await;
    }
}
