//! Tool calls: checked arguments, panics, deadlines, concurrency.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use neuroflow::actors::limits::TOOL_DEADLINE;
use neuroflow::{
    AgentBuilder, Answer, AnyTool, ManualClock, Node, Tool, ToolContext, ToolError, tool,
};
use serde_json::json;
use tokio::sync::{Barrier, Notify};
use tokio::task::JoinSet;

use crate::client::{begin_text, get_task, rpc, send_data, send_text};
use crate::support::{Nothing, actors, caller, eventually, loopback, output, said, start, state};

/// Two numbers.
#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Sum {
    a: i64,
    #[schemars(range(min = 0, max = 100))]
    b: i64,
    #[serde(default)]
    note: Option<Note>,
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Note {
    author: String,
}

/// Adds two numbers.
#[tool]
async fn add(sum: Sum) -> Result<i64, ToolError> {
    if let Some(note) = sum.note {
        return Err(ToolError::new("noted", note.author));
    }
    let total = sum.a + sum.b;
    if total > 1_000 { Err(ToolError::new("overflow", "the sum is too large")) } else { Ok(total) }
}

/// Is broken.
#[tool]
async fn explode(_: Nothing) -> Result<(), ToolError> {
    panic!("this tool is broken")
}

/// Waits until it's let go, and counts those that wait.
struct Hold {
    held: Arc<AtomicUsize>,
    let_go: Arc<Notify>,
}

impl Hold {
    fn new() -> (Self, Arc<AtomicUsize>, Arc<Notify>) {
        let (held, let_go) = (Arc::<AtomicUsize>::default(), Arc::<Notify>::default());
        (Self { held: Arc::clone(&held), let_go: Arc::clone(&let_go) }, held, let_go)
    }
}

impl Tool for Hold {
    type Arguments = Nothing;
    type Output = &'static str;

    fn name(&self) -> &'static str {
        "hold"
    }

    fn description(&self) -> &'static str {
        "Waits until it's let go."
    }

    async fn call(&self, _: Nothing, _: ToolContext) -> Result<&'static str, ToolError> {
        /// Counts down also when the call is dropped.
        struct Held(Arc<AtomicUsize>);
        impl Drop for Held {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        self.held.fetch_add(1, Ordering::SeqCst);
        let _held = Held(Arc::clone(&self.held));
        self.let_go.notified().await;
        Ok("let go")
    }
}

#[tokio::test]
async fn arguments_that_do_not_fit_are_refused_by_field() {
    let agent = caller(AgentBuilder::new("sums", "Adds.").tool(add));
    let (node, to) = start(Node::builder().agent(agent).gateway(loopback())).await;
    for (arguments, answer) in [
        (json!({ "a": 40, "b": 2 }), "done: 42"),
        (json!({ "a": 40 }), "invalid_argument: argument /b is missing"),
        (json!({ "a": "x", "b": 2 }), "invalid_argument: argument /a is not of type \"integer\""),
        (json!({ "a": 1.5, "b": 2 }), "invalid_argument: argument /a is not of type \"integer\""),
        (json!({ "a": 1, "b": 101 }), "argument /b is greater than the maximum of 100"),
        (json!({ "a": 1, "b": 1, "note": { "author": 7 } }), "argument /note"),
        (json!(7), "invalid_argument: arguments: is not of type \"object\""),
        // What the tool itself says is told apart from what the router says.
        (json!({ "a": 1_000, "b": 1 }), "tool_error: overflow: the sum is too large"),
        (json!({ "a": 1, "b": 1, "note": { "author": "me" } }), "tool_error: noted: me"),
    ] {
        let task = send_data(to, "/", json!({ "tool": "add", "arguments": arguments })).await;
        assert!(output(&task).contains(answer), "{arguments}: {}", output(&task));
    }
    node.stop().await;
}

#[tokio::test]
async fn a_tool_that_panics_fails_its_own_call_and_nothing_else() {
    let (hold, held, let_go) = Hold::new();
    let agent = AgentBuilder::new("calls", "Calls tools.").tool(explode).tool(hold).tool(add);
    let (node, to) = start(Node::builder().agent(caller(agent)).gateway(loopback())).await;
    let tools = |node: &Node| {
        let tree = node.census().tree();
        let tools = tree.iter().find(|actor| actor.path.to_string() == "/tools");
        tools.map(|actor| (actor.id, actor.generation)).expect("there is a tool router")
    };
    let before = tools(&node);
    let call = |tool: &'static str| json!({ "tool": tool, "arguments": { "a": 1, "b": 2 } });
    let (other, ()) = tokio::join!(send_data(to, "/", call("hold")), async {
        eventually("the call", || held.load(Ordering::SeqCst) == 1).await;
        for _ in 0..3 {
            let task = send_data(to, "/", call("explode")).await;
            assert_eq!(state(&task), "TASK_STATE_COMPLETED");
            assert!(output(&task).starts_with("interrupted: "), "{}", output(&task));
        }
        let_go.notify_waiters();
    });
    assert_eq!(output(&other), "done: \"let go\"");
    assert_eq!(output(&send_data(to, "/", call("add")).await), "done: 3");
    assert_eq!(tools(&node), before, "the router was restarted");
    let dead = node.kernel().post_mortems();
    assert_eq!(dead.iter().filter(|dead| dead.kind == "tool_call").count(), 3);
    assert!(dead.iter().all(|dead| dead.cause.to_string() == "panicked: this tool is broken"));
    node.stop().await;
}

#[tokio::test]
async fn a_call_ends_with_its_deadline_and_a_task_with_its_own() {
    let time = ManualClock::new();
    let (hold, held, _let_go) = Hold::new();
    let hold = AnyTool::new(hold);
    let patient = AgentBuilder::new("patient", "Waits for a tool.").shared_tool("hold");
    let hasty = AgentBuilder::new("hasty", "Has less time than a tool.")
        .shared_tool("hold")
        .profile(|profile| profile.task_deadline = TOOL_DEADLINE / 2);
    let node = Node::builder().agent(caller(patient)).agent(caller(hasty)).tool(hold);
    let (node, to) = start(node.gateway(loopback()).clock(time.clock())).await;
    let call = json!({ "message": { "messageId": "m", "role": "ROLE_USER", "parts": [
        { "data": { "tool": "hold", "arguments": {} } },
    ] }, "configuration": { "returnImmediately": true } });
    let mut tasks = Vec::new();
    for agent in ["/agents/patient", "/agents/hasty"] {
        let answer = rpc(to, agent, "SendMessage", call.clone()).await;
        let id = answer["result"]["task"]["id"].as_str().expect("a task").to_owned();
        tasks.push((agent, id));
    }
    eventually("the calls", || held.load(Ordering::SeqCst) == 2).await;

    time.advance(TOOL_DEADLINE / 2 + Duration::from_secs(1));
    eventually("the end of the hasty call", || held.load(Ordering::SeqCst) == 1).await;
    let hasty = ended(to, &tasks[1]).await;
    assert_eq!(state(&hasty), "TASK_STATE_FAILED");
    assert_eq!(said(&hasty), "the task's time is up");
    time.advance(TOOL_DEADLINE / 2);
    let patient = ended(to, &tasks[0]).await;
    assert_eq!(output(&patient), "timeout: the tool's time was up");
    assert_eq!(held.load(Ordering::SeqCst), 0, "the tool goes on");
    node.stop().await;
}

/// The task, once it has ended.
async fn ended(to: std::net::SocketAddr, (agent, id): &(&str, String)) -> serde_json::Value {
    loop {
        let task = get_task(to, agent, id).await;
        if state(&task) != "TASK_STATE_WORKING" {
            return task;
        }
        crate::support::pause(10).await;
    }
}

#[tokio::test]
async fn calls_run_beside_each_other() {
    const CALLS: usize = 32;
    /// Ends when all calls have begun.
    struct Meet(Barrier);
    impl Tool for Meet {
        type Arguments = Nothing;
        type Output = ();
        fn name(&self) -> &'static str {
            "meet"
        }
        fn description(&self) -> &'static str {
            "Waits for the others."
        }
        async fn call(&self, _: Nothing, _: ToolContext) -> Result<(), ToolError> {
            self.0.wait().await;
            Ok(())
        }
    }
    let agent = AgentBuilder::new("many", "Calls a tool many times at once.");
    let agent = agent.tool(Meet(Barrier::new(CALLS))).on_ask(|_, context| async move {
        let mut calls = JoinSet::new();
        for _ in 0..CALLS {
            let context = context.clone();
            calls.spawn(async move { context.call("meet", json!({})).await.is_ok() });
        }
        let done = calls.join_all().await.into_iter().filter(|done| *done).count();
        Ok(Answer::text(done.to_string()))
    });
    let (node, to) = start(Node::builder().agent(agent).gateway(loopback())).await;
    assert_eq!(output(&send_text(to, "/", "go").await), CALLS.to_string());
    node.stop().await;
}

#[tokio::test]
async fn a_cancelled_task_ends_its_calls() {
    let (hold, held, _let_go) = Hold::new();
    let agent = AgentBuilder::new("waits", "Waits for a tool.").tool(hold);
    let agent = agent.on_ask(|_, context| async move {
        context.call("hold", json!({})).await?;
        Ok(Answer::done())
    });
    let (node, to) = start(Node::builder().agent(agent).gateway(loopback())).await;
    let before = actors(&node);
    let task = begin_text(to, "/", "go").await;
    eventually("the call", || held.load(Ordering::SeqCst) == 1).await;
    assert!(actors(&node).contains(&"/tools/hold-1".to_owned()), "{:?}", actors(&node));
    let answer = rpc(to, "/", "CancelTask", json!({ "id": task })).await;
    assert_eq!(state(&answer["result"]), "TASK_STATE_CANCELED");
    eventually("the end of the call", || held.load(Ordering::SeqCst) == 0).await;
    eventually("the end of its actors", || actors(&node) == before).await;
    node.stop().await;
}
