//! More work than there is room for is refused at once, and passes without a trace.

use std::sync::Arc;

use neuroflow::actors::FreshToken;
use neuroflow::actors::limits::{LIVE_BYTES, LIVE_TASKS};
use neuroflow::{AgentBuilder, Answer, AnyAgent, Echo, Node, NodeBuilder};
use serde_json::json;
use tokio::sync::Notify;

use crate::access::{Files, config, token};
use crate::client::{Connection, message, post, request, rpc, send_text, task_of};
use crate::support::{actors, eventually, loopback, output, pause, start, state, task_that_is};

fn waiting(let_go: &Arc<Notify>) -> AnyAgent {
    let let_go = Arc::clone(let_go);
    AgentBuilder::new("waits", "Waits until it's let go.").on_ask(move |_, _| {
        let let_go = Arc::clone(&let_go);
        async move {
            let_go.notified().await;
            Ok(Answer::text("let go"))
        }
    })
}

/// Begins a task, whose end isn't waited for.
fn begin_and_return() -> Vec<u8> {
    let mut params = message(json!([{ "text": "wait" }]));
    params["configuration"] = json!({ "returnImmediately": true });
    request("SendMessage", params)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_past_the_limit_are_refused_with_a_time_to_retry() {
    let let_go = Arc::new(Notify::new());
    let node = Node::builder().agent(waiting(&let_go)).agent(AnyAgent::new(Echo));
    let (node, to) = start(node.gateway(loopback())).await;
    let before = actors(&node);
    let begin = begin_and_return();
    let mut connection = Connection::open(to).await;
    let mut tasks = Vec::new();
    for _ in 0..LIVE_TASKS {
        let response = connection.post("/", &begin).await;
        assert_eq!(response.status, 200);
        let task = task_of(response.json());
        tasks.push(task["id"].as_str().expect("a task has an id").to_owned());
    }
    for _ in 0..20 {
        let response = connection.post("/", &begin).await;
        assert_eq!(response.status, 503);
        assert_eq!(response.header("retry-after"), Some("1"));
        let answer = response.json();
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(1), &json!(-32603)));
        assert_eq!(answer["error"]["message"], "the agent is busy; try again later");
    }
    // The limit is each agent's own, and reading needs no room.
    assert_eq!(output_of_echo(to).await, "hi");
    let answer = rpc(to, "/", "GetTask", json!({ "id": tasks[7] })).await;
    assert_eq!(state(&answer["result"]), "TASK_STATE_WORKING");
    // One that ends makes room for one.
    let answer = rpc(to, "/", "CancelTask", json!({ "id": tasks[7] })).await;
    assert_eq!(state(&answer["result"]), "TASK_STATE_CANCELED");
    assert_eq!(connection.post("/", &begin).await.status, 200);
    assert_eq!(connection.post("/", &begin).await.status, 503);

    eventually("the end of all tasks", || {
        let_go.notify_waiters();
        actors(&node) == before
    })
    .await;
    // An actor is gone before its task's end is durable, and that is seen then.
    let last = task_that_is(to, &tasks[LIVE_TASKS - 1], "TASK_STATE_COMPLETED").await;
    assert_eq!(output(&last), "let go");
    assert_eq!(connection.post("/", &begin).await.status, 200);
    node.stop().await;
}

/// A node whose agent waits, and that may be asked by these alone.
fn known_to(files: &Files, callers: [&FreshToken; 2], let_go: &Arc<Notify>) -> NodeBuilder {
    let tokens = files.write("tokens", &callers.map(FreshToken::line).join("\n"));
    let policy = files.write("policy", "permit(principal, action, resource);");
    let node = Node::builder().agent(waiting(let_go)).access(config(&tokens, &policy));
    node.gateway(loopback())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_as_many_tasks_as_are_free_begins_no_more_and_others_do() {
    let let_go = Arc::new(Notify::new());
    let files = Files::fresh();
    let [greedy, modest] = ["greedy", "modest"].map(|name| token(name, &[]));
    let (node, to) = start(known_to(&files, [&greedy, &modest], &let_go)).await;
    let before = actors(&node);
    let mut connection = Connection::open(to).await;
    let begin = begin_and_return();
    let mut begin = async |who: &FreshToken| {
        let bearer = format!("Bearer {}", who.secret());
        connection.post_with("/", &[("authorization", bearer.as_str())], &begin).await.status
    };
    for _ in 0..LIVE_TASKS / 2 {
        assert_eq!(begin(&greedy).await, 200);
    }
    assert_eq!(begin(&greedy).await, 503, "that is as many as are free");
    for _ in 0..LIVE_TASKS / 4 {
        assert_eq!(begin(&modest).await, 200);
    }
    assert_eq!(begin(&modest).await, 503, "so is that");
    assert_eq!(begin(&greedy).await, 503);
    eventually("the end of all tasks", || {
        let_go.notify_waiters();
        actors(&node) == before
    })
    .await;
    while begin(&greedy).await != 200 {
        pause(20).await;
    }
    node.stop().await;
}

/// As many bytes as one message may have, about.
const LONG: usize = 4_000_000;

/// As many of them as one task may have, about.
const PER_TASK: usize = 7;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_holds_as_many_bytes_as_are_free_adds_no_more_and_others_do() {
    let let_go = Arc::new(Notify::new());
    let files = Files::fresh();
    let [greedy, modest] = ["greedy", "modest"].map(|name| token(name, &[]));
    let (node, to) = start(known_to(&files, [&greedy, &modest], &let_go)).await;
    let mut connection = Connection::open(to).await;
    let mut call = async |who: &FreshToken, body: &[u8]| {
        let bearer = format!("Bearer {}", who.secret());
        connection.post_with("/", &[("authorization", bearer.as_str())], body).await
    };
    let say = |task: Option<&str>, bytes: usize| {
        let mut params = message(json!([{ "text": "x".repeat(bytes) }]));
        params["configuration"] = json!({ "returnImmediately": true, "historyLength": 0 });
        if let Some(task) = task {
            params["message"]["taskId"] = json!(task);
        }
        request("SendMessage", params)
    };
    // Each task has as many of them as it may, and the agent reads none.
    let mut tasks: Vec<String> = Vec::new();
    for number in 0..=LIVE_BYTES / 2 / LONG {
        let task = tasks.last().filter(|_| number % PER_TASK != 0);
        let said = call(&greedy, &say(task.map(String::as_str), LONG)).await;
        assert_eq!(said.status, 200, "after {number} messages");
        let said = task_of(said.json());
        if number % PER_TASK == 0 {
            tasks.push(said["id"].as_str().expect("an id").to_owned());
        }
    }
    let refused = call(&greedy, &say(Some(&tasks[0]), 1)).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert_eq!(refused.json()["error"]["message"], "the agent is busy; try again later");
    assert_eq!(call(&greedy, &say(None, 1)).await.status, 503);
    assert_eq!(call(&modest, &say(None, LONG)).await.status, 200, "others have room");

    // A task that ends gives back all that it has held, and no more than that.
    let end = request("CancelTask", json!({ "id": tasks[0] }));
    assert_eq!(call(&greedy, &end).await.status, 200);
    let begun = call(&greedy, &say(None, LONG)).await.json();
    let task = task_of(begun)["id"].as_str().expect("an id").to_owned();
    for _ in 1..PER_TASK {
        task_of(call(&greedy, &say(Some(&task), LONG)).await.json());
    }
    assert_eq!(call(&greedy, &say(Some(&task), 1)).await.status, 503);
    node.stop().await;
}

async fn output_of_echo(to: std::net::SocketAddr) -> String {
    output(&send_text(to, "/agents/echo", "hi").await).to_owned()
}

/// A follower of a task that doesn't keep up is cut off; a client that waits for the end of the
/// task mustn't notice.
#[tokio::test]
async fn a_task_that_says_much_at_once_is_still_waited_for() {
    let agent = AgentBuilder::new("talks", "Says much at once.").on_ask(|_, context| async move {
        for number in 0..500 {
            context.say(number.to_string()).await?;
        }
        context.clock().sleep(std::time::Duration::from_millis(300)).await;
        for number in 0..500 {
            context.produce(neuroflow::Artifact::text("number", number.to_string())).await?;
        }
        Ok(Answer::done())
    });
    let (node, to) = start(Node::builder().agent(agent).gateway(loopback())).await;
    let task = send_text(to, "/", "go").await;
    assert_eq!(state(&task), "TASK_STATE_COMPLETED");
    assert_eq!(task["artifacts"].as_array().map(Vec::len), Some(500));
    assert_eq!(task["history"].as_array().map(Vec::len), Some(501));

    let outcome = node.ask("talks", "go").await.expect("an outcome");
    let numbers: String = (0..500).map(|number: u32| number.to_string()).collect();
    assert!(outcome.is_completed() && outcome.text() == numbers, "{outcome:?}");
    node.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_nobody_up() {
    let (node, to) = start(Node::builder().agent(AnyAgent::new(Echo)).gateway(loopback())).await;
    let large = message(json!([{ "text": "x".repeat(1_000_000) }]));
    let request = post("/", &[], &request("SendMessage", large));
    let mut deaf = Vec::new();
    for _ in 0..4 {
        let mut connection = Connection::open(to).await;
        connection.send(&request).await.expect("the request is sent");
        deaf.push(connection);
    }
    for _ in 0..50 {
        assert_eq!(output_of_echo(to).await, "hi");
    }
    // Nothing was lost for them either.
    for mut connection in deaf {
        let task = task_of(connection.receive().await.expect("an answer").json());
        assert_eq!(output(&task).len(), 1_000_000);
    }
    node.stop().await;
}

#[tokio::test]
async fn many_idle_connections_leave_room_for_work() {
    let (node, to) = start(Node::builder().agent(AnyAgent::new(Echo)).gateway(loopback())).await;
    let mut idle = Vec::new();
    for _ in 0..400 {
        idle.push(Connection::open(to).await);
    }
    assert_eq!(output_of_echo(to).await, "hi");
    assert_eq!(idle[399].get("/healthz").await.status, 200);
    node.stop().await;
}
