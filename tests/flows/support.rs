//! Nodes, agents that do what a test needs, and a look at the machine's processes.

use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use neuroflow::sandbox::ProfileBuilder;
use neuroflow::{
    AgentBuilder, Answer, AnyAgent, Clock, Echo, Level, Node, NodeBuilder, Profile, Shell,
};
use serde_json::{Value, json};

use crate::client::rpc;
pub(crate) use crate::eventually::eventually;
use crate::untried::untried;

/// The agent `shell` at the root, `echo` beside it, and a sandbox.
pub(crate) fn shell_node() -> NodeBuilder {
    let node = Node::builder().agent(AnyAgent::new(Shell)).agent(AnyAgent::new(Echo));
    node.sandbox(profile(standard())).gateway(loopback())
}

pub(crate) async fn start(node: NodeBuilder) -> (Node, SocketAddr) {
    let node = node.start().await.expect("the node starts");
    let gateway = node.gateway().expect("the node has a gateway");
    (node, gateway)
}

pub(crate) fn standard() -> ProfileBuilder {
    Profile::builder(Level::Standard).wall_time(Duration::from_secs(30))
}

pub(crate) fn profile(builder: ProfileBuilder) -> Profile {
    builder.build().expect("the profile is valid")
}

/// Loopback, on a port that the system chooses.
pub(crate) fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// The text of the first artifact.
pub(crate) fn output(task: &Value) -> &str {
    let text = task["artifacts"][0]["parts"][0]["text"].as_str();
    text.unwrap_or_else(|| panic!("no text in {task}"))
}

/// The JSON part of the first artifact.
pub(crate) fn report(task: &Value) -> &Value {
    let report = &task["artifacts"][0]["parts"][1]["data"];
    assert!(report.is_object(), "no JSON part in {task}");
    report
}

pub(crate) fn state(task: &Value) -> &str {
    task["status"]["state"].as_str().unwrap_or_else(|| panic!("no state in {task}"))
}

/// What the agent said last.
pub(crate) fn said(task: &Value) -> &str {
    let text = task["status"]["message"]["parts"][0]["text"].as_str();
    text.unwrap_or_else(|| panic!("no message in {task}"))
}

/// The generation of an agent's actor.
pub(crate) fn generation(node: &Node, path: &str) -> u32 {
    let tree = node.census().tree();
    let actor = tree.iter().find(|actor| actor.path.to_string() == path);
    actor.unwrap_or_else(|| panic!("no {path} among {tree:?}")).generation.get()
}

/// Paths of the living actors below `/`.
pub(crate) fn actors(node: &Node) -> Vec<String> {
    node.census().tree().iter().map(|actor| actor.path.to_string()).collect()
}

/// Text that no other test and no other process has in its arguments.
pub(crate) fn marker() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // `sleep` takes it as seconds; the fraction is what makes it unique.
    format!("8765.{}{:04}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Living processes of this machine that have `text` as an argument.
pub(crate) fn processes_with(text: &str) -> Vec<u32> {
    let arguments = |pid: u32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let has = |pid: &u32| {
        String::from_utf8_lossy(&arguments(*pid)).split('\0').any(|argument| argument == text)
    };
    processes().filter(has).collect()
}

/// The child of this process that a cell's process descends from: its node's zygote.
pub(crate) fn zygote_above(mut pid: u32) -> u32 {
    let own = std::process::id();
    loop {
        let parent = parent(pid).expect("the process lives");
        if parent == own {
            return pid;
        }
        assert!(parent > 1, "{pid} doesn't descend from this test");
        pid = parent;
    }
}

/// Whether it lives, or hasn't been reaped, as a child of this process.
pub(crate) fn is_child(pid: u32) -> bool {
    parent(pid) == Some(std::process::id())
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(1)?.parse().ok()
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").expect("/proc can be read");
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Ends a process that this test has started.
#[expect(clippy::disallowed_methods, reason = "how tests send a signal without unsafe code")]
pub(crate) fn kill(pid: u32) {
    let status = std::process::Command::new("kill").arg("-KILL").arg(pid.to_string()).status();
    assert!(status.expect("kill runs").success());
}

/// The task, once it's in a state.
pub(crate) async fn task_that_is(to: SocketAddr, id: &str, wanted: &str) -> Value {
    for _ in 0..1_000 {
        let answer = rpc(to, "/", "GetTask", json!({ "id": id })).await;
        if state(&answer["result"]) == wanted {
            return answer["result"].clone();
        }
        pause(20).await;
    }
    panic!("task {id} didn't become {wanted}");
}

pub(crate) async fn pause(milliseconds: u64) {
    Clock::system().sleep(Duration::from_millis(milliseconds)).await;
}

/// The arguments of a tool that needs none.
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub(crate) struct Nothing {}

/// An agent that calls the tool of a data part `{"tool": .., "arguments": ..}` and answers with
/// `done: <result>` or `<code>: <error>`.
pub(crate) fn caller(builder: AgentBuilder) -> AnyAgent {
    builder.on_ask(|ask, context| async move {
        let call: Value = serde_json::from_str(ask.json().unwrap_or("{}")).unwrap_or_default();
        let tool = call["tool"].as_str().unwrap_or_default();
        Ok(Answer::text(match context.call(tool, &call["arguments"]).await {
            Ok(result) => format!("done: {}", result.value()),
            Err(error) => format!("{}: {error}", error.code()),
        }))
    })
}

/// Runs a program of the host to its end, and gives what it printed or complained of.
#[expect(clippy::disallowed_methods, reason = "clients and other hosts are processes of their own")]
pub(crate) fn run_program(
    command: &[&str],
    environment: &[(&str, &str)],
) -> Result<String, String> {
    let output = std::process::Command::new(command[0])
        .args(&command[1..])
        .envs(environment.iter().copied())
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(|error| format!("{}: {error}", command[0]))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(format!("{}: {}{}", output.status, text(&output.stdout), text(&output.stderr)))
    }
}

/// The MCP clients and servers of the public registries, as `tools/setup test` installs them. Without
/// them a test has nothing to do, which is said.
pub(crate) fn mcp_packages() -> Option<std::path::PathBuf> {
    let place = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/mcp");
    if place.join(".complete").exists() {
        return Some(place);
    }
    let why = format!("{} isn't there; run `tools/setup test`", place.display());
    untried("what speaks the Model Context Protocol elsewhere", why);
    None
}
