//! Tasks of the Model Context Protocol: a call that takes long is answered with one, which is asked
//! for, comes to its end, or is cancelled.

use std::sync::Arc;

use neuroflow::{AgentBuilder, Answer, AnyAgent, McpServer, Node, Turn};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::mcp_access::{Client, error};
use crate::support::{eventually, loopback, pause, start};

/// An agent that goes on when it's let.
fn gated(gate: &Arc<Semaphore>) -> AnyAgent {
    let gate = Arc::clone(gate);
    AgentBuilder::new("gated", "Waits at a gate.").on_ask(move |_, context| {
        let gate = Arc::clone(&gate);
        async move {
            context.say("on its way").await?;
            gate.acquire().await.expect("a gate").forget();
            Ok(Answer::text("through"))
        }
    })
}

fn asking() -> AnyAgent {
    AgentBuilder::new("asking", "Asks back.").on_ask(|_, context| async move {
        let answer = context.ask_user(Turn::agent("which city?")).await?;
        Ok(Answer::text(format!("{} it is", answer.text())))
    })
}

pub(crate) async fn until(client: &Client, id: &str, status: &str) -> Value {
    let mut seen = Value::Null;
    for _ in 0..1_000 {
        let answer = client.call("tasks/get", json!({ "taskId": id })).await;
        seen = answer["result"].clone();
        if seen["status"] == status {
            return seen;
        }
        pause(20).await;
    }
    panic!("it never was {status}: {seen}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_takes_long_is_a_task_for_clients_that_know_tasks() {
    let gate = Arc::new(Semaphore::new(0));
    let builder = Node::builder().agent(gated(&gate)).agent(asking()).gateway(loopback());
    let (node, to) = start(builder.mcp_server(McpServer { http: true, exec: false })).await;
    let client = Client::new(to, None);
    let begin = async || {
        let call = json!({ "name": "gated", "arguments": { "message": "go" } });
        let answer = client.call("tools/call", call).await;
        let task = &answer["result"];
        assert_eq!(
            (&task["resultType"], &task["status"]),
            (&json!("task"), &json!("working")),
            "{answer}"
        );
        assert!(task["pollIntervalMs"].as_u64().is_some_and(|it| it > 0), "{answer}");
        task["taskId"].as_str().expect("an id").to_owned()
    };
    let (first, second) = tokio::join!(begin(), begin());
    assert_ne!(first, second);
    until(&client, &first, "working").await;
    // One is cancelled, with its actor, and the other comes to its end.
    let cancelled = client.call("tasks/cancel", json!({ "taskId": first })).await;
    assert!(cancelled.get("error").is_none(), "{cancelled}");
    until(&client, &first, "cancelled").await;
    gate.add_permits(1);
    let done = until(&client, &second, "completed").await;
    assert_eq!(done["result"]["content"][0]["text"], "through", "{done}");
    assert_eq!(done["result"]["isError"], false, "{done}");
    // An answer that nobody waits for is taken and ignored.
    let unasked = json!({ "taskId": second, "inputResponses": {} });
    let taken = client.call("tasks/update", unasked).await;
    assert!(taken.get("error").is_none() && taken["result"].is_object(), "{taken}");
    // What has ended can be asked for again, and what never was can't.
    assert_eq!(until(&client, &second, "completed").await, done);
    for id in ["gated/none", "none/none", "none"] {
        for method in ["tasks/get", "tasks/cancel", "tasks/update"] {
            let params = json!({ "taskId": id, "inputResponses": {} });
            let answer = client.call(method, params).await;
            assert_eq!(error(&answer), (-32602, "there is no such task"), "{method} {id}");
        }
    }
    let tree = || node.census().tree();
    eventually("the end of both tasks", || {
        !tree().iter().any(|actor| actor.path.to_string().starts_with("/agents/gated/"))
    })
    .await;
    // An agent that asks back is answered by another call.
    let call = json!({ "name": "asking", "arguments": { "message": "go" } });
    let asked = client.call("tools/call", call).await;
    let structured = &asked["result"]["structuredContent"];
    assert_eq!(structured["state"], "waiting for input", "{asked}");
    // A model that is shown the text alone knows what to answer to.
    let texts = asked["result"]["content"].as_array().expect("blocks");
    let told = texts.last().and_then(|block| block["text"].as_str()).expect("a text");
    assert_eq!(&serde_json::from_str::<serde_json::Value>(told).expect("JSON"), structured);
    let task = &structured["taskId"];
    let call = json!({ "name": "asking", "arguments": { "message": "Rome", "taskId": task } });
    let answered = client.call("tools/call", call).await;
    assert_eq!(answered["result"]["content"][0]["text"], "Rome it is", "{answered}");
    node.stop().await;
}
