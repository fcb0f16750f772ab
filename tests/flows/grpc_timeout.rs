//! A caller over gRPC says how long it waits, and has its answer by then. What it has begun goes on.
//!
//! The node's clock stands still until it's advanced, and so the client's own watch over the same time never
//! ends a call here.

use std::time::Duration;

use neuroflow::{AgentBuilder, Answer, ManualClock, Node};
use serde_json::{Value, json};

use crate::client::message;
use crate::protocol::{Binding, Fault, Peer};
use crate::support::{loopback, pause, start};

#[track_caller]
fn too_late(fault: &Fault) {
    assert_eq!((fault.code, fault.reason.as_str()), (4, "DEADLINE_EXCEEDED"), "{fault:?}");
    assert_eq!(fault.message, "the time that the call was given is up; what it has begun goes on");
}

#[tokio::test]
async fn a_call_ends_with_the_time_that_its_caller_gave_it_and_the_task_goes_on() {
    let time = ManualClock::new();
    let slow = AgentBuilder::new("slow", "Is at it.").on_ask(|_, context| async move {
        context.say("at it").await?;
        std::future::pending::<()>().await;
        Ok(Answer::text("never"))
    });
    let node = Node::builder().agent(slow).gateway(loopback()).clock(time.clock());
    // The tasks are never done, and the clock doesn't move while it stops.
    let (node, to) = start(node.drain_within(Duration::ZERO)).await;
    let hurried = Peer::new(Binding::Grpc, to, None).with("grpc-timeout", "10S");
    let patient = Peer::new(Binding::Grpc, to, None);
    let tasks = async || {
        let listed = patient.call("ListTasks", json!({})).await.expect("a list");
        listed["tasks"].as_array().expect("tasks").clone()
    };
    let at_work = async |expected: usize| {
        for _ in 0..1_000 {
            let tasks = tasks().await;
            let working = |task: &&Value| task["status"]["state"] == "TASK_STATE_WORKING";
            if tasks.iter().filter(working).count() == expected {
                return;
            }
            pause(20).await;
        }
        panic!("there are never {expected} tasks at work");
    };

    // A blocking call has no answer yet.
    let text = message(json!([{ "text": "begin" }]));
    let blocked = hurried.call("SendMessage", text.clone());
    let (answer, ()) = tokio::join!(blocked, async {
        at_work(1).await;
        time.advance(Duration::from_secs(11));
    });
    too_late(&answer.expect_err("no time"));

    // A stream ends in the middle.
    let mut stream = hurried.stream("SendStreamingMessage", text.clone()).await.expect("a stream");
    assert!(stream.next().await.expect("the task").get("task").is_some());
    at_work(2).await;
    time.advance(Duration::from_secs(11));
    too_late(&stream.fault().await);
    at_work(2).await;

    // What has its answer in time is like any other call.
    let listed = hurried.call("ListTasks", json!({})).await.expect("a list");
    assert_eq!(listed["tasks"].as_array().map(Vec::len), Some(2));

    for wrong in ["10", "S", "10s", "123456789m", "-1S"] {
        let peer = Peer::new(Binding::Grpc, to, None).with("grpc-timeout", wrong);
        let fault = peer.call("SendMessage", text.clone()).await.expect_err("no timeout");
        assert_eq!((fault.code, fault.field.as_deref()), (3, Some("grpc-timeout")), "{fault:?}");
    }
    assert_eq!(tasks().await.len(), 2, "nothing was begun");
    node.stop().await;
}
