//! A task that is run again may use what its caller may, and nothing else.

use std::path::Path;
use std::sync::Arc;

use neuroflow::actors::{AccessConfig, FreshToken, JournalConfig, JournalPlace, RulesSource};
use neuroflow::{AgentBuilder, Answer, Node, NodeBuilder};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::access::{Files, Ping, call, token};
use crate::client::{message, task_of};
use crate::support::{loopback, output, pause, start, state};

/// Calls a tool once it's let go.
fn node(gate: &Arc<Semaphore>, journal: &Path, resumable: bool) -> NodeBuilder {
    let gate = Arc::clone(gate);
    let agent = AgentBuilder::new("caller", "Calls, if late.")
        .profile(|profile| profile.resumable = resumable)
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
    let place = JournalPlace::Directory(journal.to_owned());
    Node::builder().agent(agent).gateway(loopback()).journal(JournalConfig::new(place))
}

/// What comes of a task of each of these callers on a second node, whose agent is resumable, if that of the first one
/// was, or wasn't.
async fn second_runs(
    resumable: bool,
    access: Option<&AccessConfig>,
    callers: &[Option<&FreshToken>],
) -> Vec<String> {
    let files = Files::fresh();
    let within = |node: NodeBuilder| access.cloned().into_iter().fold(node, NodeBuilder::access);
    let gate = Arc::new(Semaphore::new(0));
    let (journal, left) = (files.path().join("journal"), files.path().join("left"));
    let (first, to) = start(within(node(&gate, &journal, resumable))).await;
    let mut tasks = Vec::new();
    for who in callers {
        let who = who.map(FreshToken::secret);
        let mut params = message(json!([{ "text": "call" }]));
        params["configuration"] = json!({ "returnImmediately": true });
        let begun = call(to, "/", who, "SendMessage", params).await;
        tasks.push((who, task_of(begun.json())["id"].as_str().expect("an id").to_owned()));
    }
    // As after a crash: the log as it is while the node runs.
    std::fs::create_dir(&left).expect("made");
    for name in ["format", "00000001.segment"] {
        std::fs::copy(journal.join(name), left.join(name)).expect("copied");
    }
    first.stop().await;
    gate.add_permits(callers.len());
    let (second, to) = start(within(node(&gate, &left, true))).await;
    let mut outputs = Vec::new();
    for (who, task) in tasks {
        let ended = async {
            loop {
                let read = call(to, "/", who, "GetTask", json!({ "id": task }));
                let task = read.await.json()["result"].take();
                if state(&task) == "TASK_STATE_COMPLETED" {
                    return task;
                }
                pause(20).await;
            }
        };
        let clock = neuroflow::Clock::system();
        let deadline = clock.now() + std::time::Duration::from_secs(30);
        outputs.push(output(&clock.before(deadline, ended).await.expect("it ends")).to_owned());
    }
    second.stop().await;
    outputs
}

#[tokio::test]
async fn a_second_run_has_the_rights_of_its_caller_also_if_the_agent_is_resumable_only_now() {
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
    for resumable in [true, false] {
        let outputs = second_runs(resumable, Some(&access), &[Some(&dev), Some(&guest)]).await;
        for (output, expected) in outputs.iter().zip(["done: ", "unknown_tool: "]) {
            assert!(output.starts_with(expected), "{outputs:?}");
        }
        // Where nobody is bounded, a second run isn't either, if that was noted.
        let outputs = second_runs(resumable, None, &[None]).await;
        let expected = if resumable { "done: " } else { "unknown_tool: " };
        assert!(outputs[0].starts_with(expected), "{outputs:?}");
    }
}
