//! A task that is run again may use what its caller may, and nothing else.

use std::sync::Arc;

use neuroflow::actors::{AccessConfig, JournalConfig, JournalPlace, RulesSource};
use neuroflow::{AgentBuilder, Answer, Node, NodeBuilder};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::access::{Files, Ping, call, token};
use crate::client::{message, task_of};
use crate::support::{loopback, output, pause, start, state};

/// Calls a tool once it's let go.
fn node(gate: &Arc<Semaphore>, journal: &Files) -> NodeBuilder {
    let gate = Arc::clone(gate);
    let agent = AgentBuilder::new("caller", "Calls, if late.")
        .profile(|profile| profile.resumable = true)
        .tool(Ping)
        .on_ask(move |_, context| {
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await.expect("it's open").forget();
                Ok(Answer::text(match context.call("ping", json!({})).await {
                    Ok(result) => format!("done: {}", result.value()),
                    Err(error) => format!("{}: {error}", error.code()),
                }))
            }
        });
    let place = JournalPlace::Directory(journal.path().join("journal"));
    Node::builder().agent(agent).gateway(loopback()).journal(JournalConfig::new(place))
}

#[tokio::test]
async fn a_second_run_has_the_rights_of_its_caller() {
    let files = Files::fresh();
    let (dev, guest) = (token("dev", &["dev"]), token("guest", &[]));
    let tokens = files.write("tokens", &format!("{}\n{}", dev.line(), guest.line()));
    let policy = r#"
        permit(principal, action in [Action::"ask", Action::"read"], resource);
        permit(principal in Group::"dev", action == Action::"call_tool", resource);
    "#;
    let mut access = AccessConfig::default();
    access.tokens = Some(tokens);
    access.rules = RulesSource::File(files.write("policy", policy));
    let gate = Arc::new(Semaphore::new(0));
    let (first, to) = start(node(&gate, &files).access(access.clone())).await;
    let mut tasks = Vec::new();
    for who in [&dev, &guest] {
        let mut params = message(json!([{ "text": "call" }]));
        params["configuration"] = json!({ "returnImmediately": true });
        let begun = call(to, "/", Some(who.secret()), "SendMessage", params).await;
        let task = task_of(begun.json())["id"].as_str().expect("an id").to_owned();
        tasks.push((who, task));
    }
    first.stop().await;
    gate.add_permits(2);
    let (second, to) = start(node(&gate, &files).access(access)).await;
    for ((who, task), expected) in tasks.iter().zip(["done: ", "unknown_tool: "]) {
        let ended = async {
            loop {
                let read = call(to, "/", Some(who.secret()), "GetTask", json!({ "id": task }));
                let task = read.await.json()["result"].take();
                if state(&task) == "TASK_STATE_COMPLETED" {
                    return task;
                }
                pause(20).await;
            }
        };
        let clock = neuroflow::Clock::system();
        let deadline = clock.now() + std::time::Duration::from_secs(30);
        let task = clock.before(deadline, ended).await.expect("it ends");
        assert!(output(&task).starts_with(expected), "{task}");
    }
    second.stop().await;
}
