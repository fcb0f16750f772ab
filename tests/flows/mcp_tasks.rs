//! Tasks of the Model Context Protocol: a call that takes long is answered with one, which is asked
//! for, comes to its end, or is cancelled.

use std::sync::Arc;

use neuroflow::actors::{Chunk, FreshToken};
use neuroflow::{AgentBuilder, Answer, AnyAgent, Artifact, McpServer, Node, Turn};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::access::{self, Files, token};
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

/// Pieces of two artifacts that come by turns, and one that's produced twice: the result has each once and whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_has_each_artifact_as_it_is_in_the_end() {
    let agent = AgentBuilder::new("author", "Writes by turns.").on_ask(|_, context| async move {
        let piece = |id: &str, text: &str| Artifact { id: id.into(), ..Artifact::text(id, text) };
        context.artifact_chunk(piece("log", "one "), Chunk::First).await?;
        context.produce(piece("answer", "draft")).await?;
        context.artifact_chunk(piece("log", "two"), Chunk::Last).await?;
        context.produce(piece("answer", "final")).await?;
        Ok(Answer::artifact(Artifact::text("more", "end")))
    });
    let builder = Node::builder().agent(agent).gateway(loopback());
    let (node, to) = start(builder.mcp_server(McpServer { http: true, exec: false })).await;
    let call = json!({ "name": "author", "arguments": { "message": "go" } });
    let answer = Client::new(to, None).call("tools/call", call).await;
    let blocks = answer["result"]["content"].as_array().unwrap_or_else(|| panic!("{answer}"));
    let texts: Vec<&Value> = blocks.iter().map(|block| &block["text"]).collect();
    assert_eq!(texts, ["one two", "final", "end"], "{answer}");
    node.stop().await;
}

/// A task that has ended never works again: the answer to a question is another call, with a task of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_ended_with_a_question_stays_as_it_is_when_that_is_answered() {
    let gate = Arc::new(Semaphore::new(0));
    let way = Arc::clone(&gate);
    let slow = AgentBuilder::new("slow", "Asks back, and takes long.").on_ask(move |_, context| {
        let gate = Arc::clone(&way);
        async move {
            gate.acquire().await.expect("a gate").forget();
            let answer = context.ask_user(Turn::agent("which city?")).await?;
            gate.acquire().await.expect("a gate").forget();
            Ok(Answer::text(format!("{} it is", answer.text())))
        }
    });
    let builder = Node::builder().agent(slow).agent(asking()).gateway(loopback());
    let (node, to) = start(builder.mcp_server(McpServer { http: true, exec: false })).await;
    let client = Client::new(to, None);
    let call = async |tool: &str, arguments: Value| {
        client.call("tools/call", json!({ "name": tool, "arguments": arguments })).await
    };
    let begun = async |arguments: Value| {
        let answer = call("slow", arguments).await;
        assert_eq!(answer["result"]["status"], "working", "{answer}");
        answer["result"]["taskId"].as_str().expect("an id").to_owned()
    };
    let first = begun(json!({ "message": "go" })).await;
    gate.add_permits(1);
    let asked = until(&client, &first, "completed").await;
    assert_eq!(asked["result"]["content"][0]["text"], "which city?", "{asked}");

    // Who has the id of one agent's task and says something to another is told so.
    let other = call("asking", json!({ "message": "Rome", "taskId": first })).await;
    let words = &other["result"]["content"][0]["text"];
    assert_eq!(other["result"]["isError"], true, "{other}");
    assert_eq!(words, r#"taskId is of a task of "slow", not of "asking""#, "{other}");
    let second = begun(json!({ "message": "Rome", "taskId": first })).await;
    assert_ne!(first, second);
    until(&client, &second, "working").await;
    let get =
        async |id: &str| client.call("tasks/get", json!({ "taskId": id })).await["result"].clone();
    assert_eq!(get(&first).await, asked);
    // It's over, so there is nothing of it to cancel.
    let cancelled = client.call("tasks/cancel", json!({ "taskId": first })).await;
    assert!(cancelled.get("error").is_none(), "{cancelled}");
    assert_eq!(get(&second).await["status"], "working");
    gate.add_permits(1);
    let done = until(&client, &second, "completed").await;
    assert_eq!(done["result"]["content"][0]["text"], "Rome it is", "{done}");
    assert_eq!(get(&first).await, asked);

    // The task as a whole is known without a call's number, and goes on by that name too.
    let (whole, _call) = second.rsplit_once('/').expect("a number");
    assert_eq!(get(whole).await["result"]["content"], done["result"]["content"]);
    let over = call("slow", json!({ "message": "Rome", "taskId": whole })).await;
    let words = &over["result"]["content"][0]["text"];
    assert_eq!(words, "the task is already completed", "{over}");
    for id in
        [format!("{whole}/2"), format!("{whole}/99"), format!("{whole}/x"), format!("{whole}/")]
    {
        let unknown = client.call("tasks/get", json!({ "taskId": id })).await;
        assert_eq!(error(&unknown), (-32602, "there is no such task"), "{id}");
    }
    // One that waits for its client and is given up is cancelled, and says so as a whole.
    let third = begun(json!({ "message": "go" })).await;
    gate.add_permits(1);
    let asked = until(&client, &third, "completed").await;
    let cancelled = client.call("tasks/cancel", json!({ "taskId": third })).await;
    assert!(cancelled.get("error").is_none(), "{cancelled}");
    let (whole, _call) = third.rsplit_once('/').expect("a number");
    until(&client, whole, "cancelled").await;
    assert_eq!(get(&third).await, asked);
    node.stop().await;
}

/// Who may ask and not read is told by the call itself what comes of it, however long that takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_read_tasks_waits_for_the_answer() {
    let (gate, files) = (Arc::new(Semaphore::new(0)), Files::fresh());
    let [asks, reads] = ["asks", "reads"].map(|name| token(name, &[]));
    let tokens = files.write("tokens", &[&asks, &reads].map(FreshToken::line).join("\n"));
    let policy = r#"
        permit(principal, action == Action::"ask", resource);
        permit(principal == Token::"reads", action == Action::"read", resource);
    "#;
    let access = access::config(&tokens, &files.write("policy", policy));
    let builder = Node::builder().agent(gated(&gate)).gateway(loopback()).access(access);
    let (node, to) = start(builder.mcp_server(McpServer { http: true, exec: false })).await;
    let call = async |token: &FreshToken| {
        let call = json!({ "name": "gated", "arguments": { "message": "go" } });
        Client::new(to, Some(token)).call("tools/call", call).await
    };
    let waiting = call(&asks);
    tokio::pin!(waiting);
    // The other's call has taken long by the time that it's answered with a task; the first one waits on.
    let task = tokio::select! {
        answered = &mut waiting => panic!("{answered}"),
        task = call(&reads) => task,
    };
    assert_eq!(task["result"]["resultType"], "task", "{task}");
    gate.add_permits(2);
    let answer = waiting.await;
    assert_eq!(answer["result"]["content"][0]["text"], "through", "{answer}");
    node.stop().await;
}
