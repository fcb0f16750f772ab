//! The gateway and the official clients of its protocol understand each other.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use neuroflow::actors::{ExtendedProfile, Extension, PushOptions, Skill};
use neuroflow::{AgentBuilder, Answer, AnyAgent, Node, Turn};

use crate::access::{ALL, Files, config, token};
use crate::support::{loopback, output, run_program, shell_node, start};
use crate::turns::curious;
use crate::untried::untried;

/// The client in Python, as the package index has it.
const PYTHON: &str = "a2a-sdk[http-server,grpc,signing]==1.3.0";

/// The client in JavaScript, and what its bindings need.
const JAVASCRIPT: [&str; 3] =
    ["@a2a-js/sdk@1.3.0", "@grpc/grpc-js@1.14.7", "@bufbuild/protobuf@2.17.0"];

const BINDINGS: [&str; 3] = ["JSONRPC", "HTTP+JSON", "GRPC"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_official_client_agrees_over_every_binding() {
    let Some(packages) = installed("the client in Python", install_python).await else { return };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/flows/a2a_client.py");
    agree(["python3", script], ("PYTHONPATH", packages)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_official_client_in_javascript_agrees_over_every_binding() {
    let found = installed("the client in JavaScript", install_javascript).await;
    let Some(packages) = found else { return };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/flows/a2a_client.mjs");
    agree(["node", script], ("A2A_PACKAGES", packages)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_official_client_proves_itself_and_is_notified_over_every_binding() {
    let Some(packages) = installed("the client in Python", install_python).await else { return };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/flows/guarded_client.py");
    agree_guarded(["python3", script], ("PYTHONPATH", packages)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_official_client_in_javascript_proves_itself_and_is_notified_over_every_binding() {
    let found = installed("the client in JavaScript", install_javascript).await;
    let Some(packages) = found else { return };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/flows/guarded_client.mjs");
    agree_guarded(["node", script], ("A2A_PACKAGES", packages)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_for_the_command_line_agrees() {
    let Some(folder) = installed("a2acli", prepared_a2acli).await else { return };
    let (node, to) = start(shell_node().agent(curious())).await;
    for binding in ["jsonrpc", "rest"] {
        let program = folder.join("a2acli").to_string_lossy().into_owned();
        let card = format!("http://{to}");
        let run = |arguments: &[&str]| {
            let with = ["--agent-card", &card, "--transport", binding, "--output", "json"];
            let command: Vec<String> = [&program as &str]
                .iter()
                .chain(arguments)
                .chain(&with)
                .map(|text| (*text).to_owned())
                .collect();
            tokio::task::spawn_blocking(move || {
                let command: Vec<&str> = command.iter().map(String::as_str).collect();
                run_program(&command, &[("NO_PROXY", "*")])
            })
        };
        let json = |said: Result<String, String>| -> serde_json::Value {
            let said = said.unwrap_or_else(|complaint| panic!("{binding}: {complaint}"));
            serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
        };
        let sent = json(run(&["send", "echo to be sent"]).await.expect("it ran"));
        assert_eq!(output(&sent["task"]).trim_end(), "to be sent", "{sent}");
        let streamed = run(&["send", "--stream", "echo streamed"]).await.expect("it ran");
        let streamed = streamed.unwrap_or_else(|complaint| panic!("{binding}: {complaint}"));
        let last = streamed.lines().last().unwrap_or_default();
        assert!(last.contains("TASK_STATE_COMPLETED"), "{streamed}");
        let id = sent["task"]["id"].as_str().expect("an id");
        let read = json(run(&["task", "get", id]).await.expect("it ran"));
        assert_eq!(read["id"], id, "{read}");
        let listed = json(run(&["task", "list"]).await.expect("it ran"));
        assert!(listed["tasks"].as_array().is_some_and(|tasks| tasks.len() >= 2), "{listed}");
        let ended = run(&["task", "cancel", id]).await.expect("it ran");
        assert!(ended.is_err_and(|said| said.contains("TASK_NOT_CANCELABLE")));
    }
    node.stop().await;
}

/// `tools/setup test` builds it.
fn prepared_a2acli() -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin");
    let is_there = folder.join("a2acli").exists();
    is_there.then_some(folder).ok_or_else(|| "run tools/setup test".to_owned())
}

/// Runs a client's script once per binding, against a node that lets everybody in.
async fn agree(command: [&'static str; 2], packages: (&'static str, PathBuf)) {
    let (node, to) = start(shell_node().agent(curious())).await;
    agrees(command, packages, &format!("http://{to}"), None).await;
    node.stop().await;
}

/// The same against one that wants to know who asks.
async fn agree_guarded(command: [&'static str; 2], packages: (&'static str, PathBuf)) {
    let files = Files::fresh();
    let known = token("known", &[]);
    let access = config(&files.write("tokens", known.line()), &files.write("policy", ALL));
    let mut push = PushOptions::default();
    push.allow_private = true;
    // Its card is for everybody as it's the first agent's.
    let node = Node::builder().agent(guarded()).gateway(loopback());
    let (node, to) = start(node.access(access).push_notifications(push)).await;
    agrees(command, packages, &format!("http://{to}"), Some(known.secret())).await;
    node.stop().await;
}

/// An agent whose clients have to know an extension, and that has a longer card.
fn guarded() -> AnyAgent {
    AgentBuilder::new("guarded", "Asks back.")
        .profile(|profile| {
            profile.extensions = vec![Extension::new("https://example.org/ext/needed").required()];
            let description = Some("For those who are known.".to_owned());
            let skills = vec![Skill::named("more", "Does more.")];
            profile.extended = Some(ExtendedProfile { description, skills });
        })
        .on_ask(|ask, context| async move {
            let rest = context.ask_user(Turn::agent("And then?")).await?;
            Ok(Answer::text(format!("{}, {}", ask.text(), rest.text())))
        })
}

async fn agrees(
    command: [&'static str; 2],
    packages: (&'static str, PathBuf),
    url: &str,
    token: Option<&str>,
) {
    for binding in BINDINGS {
        let place = packages.1.to_string_lossy().into_owned();
        let line = [command[0], command[1], url, binding].into_iter().chain(token);
        let line: Vec<String> = line.map(str::to_owned).collect();
        let run = move || {
            let line: Vec<&str> = line.iter().map(String::as_str).collect();
            run_program(&line, &[(packages.0, place.as_str()), ("NO_PROXY", "*")])
        };
        let said = tokio::task::spawn_blocking(run).await.expect("it doesn't panic");
        let said = said.unwrap_or_else(|complaint| panic!("{binding}: {complaint}"));
        assert!(said.ends_with("the official client agrees\n"), "{binding}: {said}");
    }
}

/// A client's packages; none if they can't be had.
pub(crate) async fn installed(
    what: &str,
    install: fn() -> Result<PathBuf, String>,
) -> Option<PathBuf> {
    match tokio::task::spawn_blocking(install).await.expect("it doesn't panic") {
        Ok(packages) => Some(packages),
        Err(why) => {
            untried(what, format!("it can't be installed: {why}"));
            None
        }
    }
}

pub(crate) fn install_python() -> Result<PathBuf, String> {
    install("a2a-python-1.3.0", |target| {
        let pip = ["python3", "-m", "pip", "install", "--quiet", "--target", target, PYTHON];
        run_program(&pip, &[]).map(drop)
    })
}

pub(crate) fn install_javascript() -> Result<PathBuf, String> {
    install("a2a-javascript-1.3.0", |target| {
        let mut npm = vec!["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix"];
        npm.push(target);
        npm.extend(JAVASCRIPT);
        run_program(&npm, &[]).map(drop)
    })
}

/// Installs below the build directory, once; gives the folder.
pub(crate) fn install(
    name: &str,
    into: impl FnOnce(&str) -> Result<(), String>,
) -> Result<PathBuf, String> {
    // Several tests want the same, and package managers at work on one cache get in each other's way.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if place.exists() {
        return Ok(place);
    }
    // It comes to its place whole or not at all, whoever else installs it at the same time.
    let partial = place.with_extension(std::process::id().to_string());
    std::fs::create_dir_all(&partial).map_err(|error| error.to_string())?;
    let installed = into(&partial.to_string_lossy());
    if installed.is_err() || std::fs::rename(&partial, &place).is_err() {
        std::fs::remove_dir_all(&partial).ok();
    }
    installed.map(|()| place)
}
