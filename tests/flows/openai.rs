//! Agents as models of the `OpenAI` API.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use neuroflow::actors::{JournalConfig, JournalPlace};
use neuroflow::{AgentBuilder, AgentError, Answer, AnyAgent, Artifact, Content, Echo, Node, Part};
use serde_json::{Value, json};

use crate::a2a_client::{install, installed};
use crate::access::Files;
use crate::client::{Connection, begin_text, post, rpc};
use crate::support::{eventually, loopback, pause, run_program, shell_node, start};

/// The client, as the Python package index has it.
const PACKAGE: &str = "openai==3.57.0";

/// Offers calls of the first tool that it's given, and reads the results.
fn adder() -> AnyAgent {
    AgentBuilder::new("adder", "Adds.").on_ask(|ask, _| async move {
        let beside: Value = serde_json::from_str(ask.chat().unwrap_or("{}")).unwrap_or_default();
        let messages = beside["messages"].as_array().cloned().unwrap_or_default();
        if messages.last().is_some_and(|last| last["role"] == "tool") {
            let (result, count) = (ask.text(), messages.len());
            return Ok(Answer::text(format!("it is {result} after {count} messages")));
        }
        let name = beside["tools"][0]["function"]["name"].clone();
        let call = json!({ "tool_calls": [{ "name": name, "arguments": { "a": 1, "b": 2 } }] });
        let part = Part::from(Content::Json(call.to_string()));
        Ok(Answer::artifact(Artifact::new("call", vec![part])))
    })
}

/// Says its answer piece by piece, and what it has cost.
fn talker() -> AnyAgent {
    AgentBuilder::new("talker", "Talks.").on_ask(|_, context| async move {
        for word in ["one ", "two ", "three"] {
            context.produce(Artifact::text("word", word)).await?;
        }
        let usage = json!({
            "usage": { "prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7 },
        });
        let part = Part::from(Content::Json(usage.to_string()));
        Ok(Answer::artifact(Artifact::new("usage", vec![part])))
    })
}

fn failing() -> AnyAgent {
    AgentBuilder::new("failing", "Fails.")
        .on_ask(|_, _| async move { Err::<Answer, _>(AgentError::failed("on purpose")) })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_official_client_agrees() {
    let Some(packages) = installed(PACKAGE, install_client).await else { return };
    let node = Node::builder().agent(AnyAgent::new(Echo)).agent(adder()).agent(talker());
    let (node, to) = start(node.agent(failing()).gateway(loopback())).await;
    let run = move || {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/flows/openai_client.py");
        let packages = packages.to_string_lossy().into_owned();
        let environment = [("PYTHONPATH", packages.as_str()), ("NO_PROXY", "*")];
        run_program(&["python3", script, &format!("http://{to}")], &environment)
    };
    let said = tokio::task::spawn_blocking(run).await.expect("it doesn't panic");
    let said = said.unwrap_or_else(|complaint| panic!("{complaint}"));
    assert_eq!(said, "the official client agrees\n");
    node.stop().await;
}

fn install_client() -> Result<PathBuf, String> {
    install("openai-python", |target| {
        let pip = ["python3", "-m", "pip", "install", "--quiet", "--target", target, PACKAGE];
        run_program(&pip, &[]).map(drop)
    })
}

/// What the last message says is run, whatever came before it.
#[tokio::test]
async fn an_agent_that_knows_nothing_of_conversations_answers_the_last_message() {
    let (node, to) = start(shell_node()).await;
    let user = |text: &str| json!({ "role": "user", "content": text });
    let said = [user("echo one"), json!({ "role": "assistant", "content": "one" })];
    let tool = json!({ "type": "function", "function": { "name": "none", "parameters": {} } });
    let mut connection = Connection::open(to).await;
    for (messages, more) in [
        (vec![json!({ "role": "system", "content": "be brief" }), user("echo two")], json!({})),
        ([&said[..], &[user("echo two")]].concat(), json!({})),
        (vec![user("echo two")], json!({ "tools": [tool], "tool_choice": "auto" })),
        (vec![user("echo two")], json!({ "response_format": { "type": "json_object" } })),
    ] {
        let mut body = json!({ "model": "shell", "messages": messages });
        body.as_object_mut().expect("an object").extend(more.as_object().expect("one").clone());
        let answer = connection.post("/v1/chat/completions", body.to_string().as_bytes()).await;
        assert_eq!(answer.status, 200, "{body}: {}", answer.text());
        assert_eq!(answer.json()["choices"][0]["message"]["content"], "two\n", "{body}");
    }
    node.stop().await;
}

/// Raises a flag when it's dropped.
struct Flag(Arc<AtomicBool>);

impl Drop for Flag {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_task() {
    for stream in [false, true] {
        let (began, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (begin, end) = (Arc::clone(&began), Arc::clone(&ended));
        let patient = AgentBuilder::new("patient", "Never ends.").on_ask(move |_, context| {
            let flag = Flag(Arc::clone(&end));
            begin.store(true, Ordering::SeqCst);
            async move {
                context.clock().sleep(std::time::Duration::from_hours(1)).await;
                drop(flag);
                Ok(Answer::done())
            }
        });
        let (node, to) = start(Node::builder().agent(patient).gateway(loopback())).await;
        let body = json!({
            "model": "patient", "stream": stream,
            "messages": [{ "role": "user", "content": "x" }],
        });
        let mut connection = Connection::open(to).await;
        let request = post("/v1/chat/completions", &[], body.to_string().as_bytes());
        connection.send(&request).await.expect("the request is sent");
        eventually("the task's begin", || began.load(Ordering::SeqCst)).await;
        assert!(!ended.load(Ordering::SeqCst));
        drop(connection);
        eventually("the task's end", || ended.load(Ordering::SeqCst)).await;
        node.stop().await;
    }
}

#[tokio::test]
async fn broken_requests_are_answered_in_the_apis_own_form() {
    let node = Node::builder().agent(AnyAgent::new(Echo)).gateway(loopback());
    let (node, to) = start(node).await;
    let mut connection = Connection::open(to).await;
    for (body, status, code, param) in [
        ("{", 400, "invalid_json", Value::Null),
        ("[]", 400, "invalid_value", json!("?")),
        (r#"{"model":"echo"}"#, 400, "invalid_value", json!("?")),
        (
            r#"{"model":"echo","messages":[{"role":"user"}]}"#,
            400,
            "invalid_value",
            json!("messages[0].content"),
        ),
        (
            r#"{"model":"gpt","messages":[{"role":"user","content":"x"}]}"#,
            404,
            "model_not_found",
            json!("model"),
        ),
    ] {
        let answer = connection.post("/v1/chat/completions", body.as_bytes()).await;
        let error = answer.json()["error"].clone();
        assert_eq!(
            (answer.status, error["code"].as_str()),
            (status, Some(code)),
            "{body}: {error}"
        );
        if param != "?" {
            assert_eq!(error["param"], param, "{body}");
        }
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()));
        assert_eq!(error["type"], "invalid_request_error");
    }
    let head = post("/v1/chat/completions", &[("content-length", "5242880")], b"");
    let mut connection = Connection::open(to).await;
    connection.send(&head).await.expect("the head is sent");
    let answer = connection.receive().await.expect("an answer");
    assert_eq!(
        (answer.status, answer.json()["error"]["code"].as_str()),
        (413, Some("body_too_large"))
    );
    node.stop().await;
}

/// The folder as it is at a moment is what a node leaves that is killed then.
#[tokio::test]
async fn a_completion_that_a_node_has_left_is_not_run_again() {
    let (files, runs) = (Files::fresh(), Arc::new(AtomicUsize::new(0)));
    let node = |folder: &str| {
        let runs = Arc::clone(&runs);
        let patient = AgentBuilder::new("patient", "Never ends.")
            .profile(|profile| profile.resumable = true)
            .on_ask(move |_, context| {
                runs.fetch_add(1, Ordering::SeqCst);
                async move {
                    context.clock().sleep(std::time::Duration::from_hours(1)).await;
                    Ok(Answer::done())
                }
            });
        let journal = JournalConfig::new(JournalPlace::Directory(files.path().join(folder)));
        Node::builder().agent(patient).journal(journal).gateway(loopback())
    };
    let states = async |to| {
        let list = rpc(to, "/", "ListTasks", json!({})).await;
        let tasks = list["result"]["tasks"].as_array().expect("tasks").clone();
        let mut states: Vec<String> = tasks
            .iter()
            .map(|task| task["status"]["state"].as_str().expect("one").into())
            .collect();
        states.sort();
        (states, tasks)
    };
    let (first, to) = start(node("first")).await;
    let body = json!({
        "model": "patient", "stream": true, "messages": [{ "role": "user", "content": "x" }],
    });
    let mut connection = Connection::open(to).await;
    let request = post("/v1/chat/completions", &[], body.to_string().as_bytes());
    connection.send(&request).await.expect("the request is sent");
    let other = begin_text(to, "/", "x").await;
    // Nothing is on its way to the journal then.
    for attempt in 0_u32.. {
        let working = ["TASK_STATE_WORKING"; 2];
        if states(to).await.0 == working && runs.load(Ordering::SeqCst) == 2 {
            break;
        }
        assert!(attempt < 1_000, "both are never at work");
        pause(10).await;
    }
    copy(&files.path().join("first"), &files.path().join("second"));
    let (second, to) = start(node("second")).await;
    eventually("the other task's second run", || runs.load(Ordering::SeqCst) == 3).await;
    let (states, tasks) = states(to).await;
    assert_eq!(states, ["TASK_STATE_FAILED", "TASK_STATE_WORKING"], "{tasks:?}");
    let failed = tasks.iter().find(|task| task["id"] != other).expect("the completion's");
    let metadata = &failed["status"]["message"]["metadata"];
    assert_eq!(metadata["neuroflow"]["reason"], "interrupted", "{failed}");
    second.stop().await;
    assert_eq!(runs.load(Ordering::SeqCst), 3);
    drop(connection);
    first.stop().await;
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("a directory");
    for file in std::fs::read_dir(from).expect("it's there") {
        let file = file.expect("an entry");
        std::fs::copy(file.path(), to.join(file.file_name())).expect("copied");
    }
}
