//! Tasks that take their node along: each is run again a few times, and then no more, and the others go on.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use neuroflow::actors::{ArchivedChange, TaskEvent, TaskQuery, limits::TASK_RUNS};
use neuroflow::{AgentBuilder, Answer, AnyAgent, Node, NodeBuilder, TaskState, Turn};
use serde_json::{Value, json};

use crate::cluster::now;
use crate::folder::Folder;
use crate::killable::{ANNOUNCED, Killable, Line, neuroflow};
use crate::scene::{Scene, config};
use crate::tasks::told;

/// Says to this program, started once more, that it's the node, and where.
const ROLE: &str = "NEUROFLOW_TEST_AGAIN";
/// What lets the agent `steady` come to its end.
const OPEN: &str = "open";
/// A moment by which something has to have come, on a machine that is slow.
const LONG: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn role_again() {
    let Some(folder) = std::env::var_os(ROLE) else { return };
    let folder = PathBuf::from(folder);
    let resumable = |name: &str| {
        AgentBuilder::new(name, "Is run again.").profile(|profile| profile.resumable = true)
    };
    let open = folder.join(OPEN);
    let steady = resumable("steady").on_ask(move |_, context| {
        let open = open.clone();
        async move {
            context.say("begun").await?;
            while !open.exists() {
                context.clock().sleep(Duration::from_millis(4)).await;
            }
            Ok(Answer::text("done"))
        }
    });
    let asker = resumable("asker").on_ask(|_, context| async move {
        let name = context.ask_user(Turn::agent("who?")).await?;
        Ok(Answer::text(name.text()))
    });
    let guilty = resumable("guilty").on_ask(|_, _| async { std::process::abort() });
    let agents: [AnyAgent; 3] = [steady, asker, guilty];
    let node = agents.into_iter().fold(Node::builder(), NodeBuilder::agent);
    let node = node.journal(config(&folder.join("journal")));
    let node = node.gateway("127.0.0.1:0".parse().expect("an address"));
    let node = node.start().await.expect("the node starts");
    let gateway = node.gateway().expect("a gateway");
    writeln!(std::io::stdout(), "{ANNOUNCED}{gateway}/").expect("somebody reads it");
    std::future::pending::<()>().await;
}

fn start(folder: &Path) -> Result<Killable, std::process::ExitStatus> {
    Killable::try_role("again::role_again", ROLE, folder)
}

fn call(gateway: SocketAddr, path: &str, method: &str, params: &Value) -> Option<Value> {
    Line::open(gateway)?.call(path, method, params)
}

/// Begins a task; none if the node ends by it before it says so.
fn begin(gateway: SocketAddr, agent: &str) -> Option<String> {
    let request = json!({
        "message": { "messageId": "1", "role": "ROLE_USER", "parts": [{ "text": "go" }] },
        "configuration": { "returnImmediately": true },
    });
    let answer = call(gateway, &format!("/agents/{agent}"), "SendMessage", &request)?;
    Some(answer["result"]["task"]["id"].as_str().expect("an id").to_owned())
}

/// Waits for a state of a task; none if the node ends before.
fn until(gateway: SocketAddr, agent: &str, task: &str, wanted: &str) -> Option<Value> {
    let begun = now();
    loop {
        let path = format!("/agents/{agent}");
        let answer = call(gateway, &path, "GetTask", &json!({ "id": task }))?;
        if answer["result"]["status"]["state"] == wanted {
            return Some(answer);
        }
        assert!(begun.elapsed() < LONG, "{agent}: {answer}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether the task that ends nodes ends before this one does.
fn outlives(gateway: SocketAddr) -> bool {
    let begun = now();
    loop {
        let Some(answer) = call(gateway, "/agents/guilty", "ListTasks", &json!({})) else {
            return false;
        };
        if answer["result"]["tasks"][0]["status"]["state"] == "TASK_STATE_FAILED" {
            return true;
        }
        assert!(begun.elapsed() < LONG, "{answer}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_task_that_takes_its_node_along_is_ended_and_the_others_go_on() {
    let folder = Folder::new();
    let node = start(folder.path()).expect("nothing is there to end it");
    let gateway = node.gateway;
    let steady = [(); 2].map(|()| begin(gateway, "steady").expect("it lives"));
    let asker = begin(gateway, "asker").expect("it lives");
    until(gateway, "asker", &asker, "TASK_STATE_INPUT_REQUIRED").expect("it lives");
    for task in &steady {
        let said = |it: &Value| it["result"]["status"]["message"].is_object();
        let begun = now();
        let looks = || until(gateway, "steady", task, "TASK_STATE_WORKING").expect("it lives");
        while !said(&looks()) {
            assert!(begun.elapsed() < LONG);
        }
    }
    let _told = begin(gateway, "guilty");
    node.ended();

    // Each start ends by the same task, until it isn't run again.
    let (mut ends, begun) = (0, now());
    let node = loop {
        assert!(begun.elapsed() < 5 * LONG, "{ends} ends");
        if let Ok(node) = start(folder.path()) {
            if outlives(node.gateway) {
                break node;
            }
            node.ended();
        }
        ends += 1;
    };
    assert_eq!(ends, TASK_RUNS);
    until(node.gateway, "asker", &asker, "TASK_STATE_INPUT_REQUIRED").expect("it lives");
    node.kill();

    // Who waits for a client may do so over any number of ends.
    let node = start(folder.path()).expect("it lives");
    until(node.gateway, "asker", &asker, "TASK_STATE_INPUT_REQUIRED").expect("it lives");
    std::fs::write(folder.path().join(OPEN), "").expect("it's opened");
    for task in &steady {
        until(node.gateway, "steady", task, "TASK_STATE_COMPLETED").expect("it lives");
    }
    let answer = json!({ "message": {
        "messageId": "2", "role": "ROLE_USER", "taskId": asker, "parts": [{ "text": "ann" }],
    } });
    call(node.gateway, "/agents/asker", "SendMessage", &answer).expect("an answer");
    until(node.gateway, "asker", &asker, "TASK_STATE_COMPLETED").expect("it lives");
    node.kill();
    let end = runtime().block_on(last_of(folder.path(), "guilty"));
    assert!(end.contains("crashed_again"), "{end}");
}

#[test]
fn a_task_is_ended_by_hand_while_its_node_does_not_run() {
    let folder = Folder::new();
    let node = start(folder.path()).expect("nothing is there to end it");
    let steady = begin(node.gateway, "steady").expect("it lives");
    until(node.gateway, "steady", &steady, "TASK_STATE_WORKING").expect("it lives");
    let journal = format!("--journal-url=file://{}", folder.path().join("journal").display());
    let end = || {
        let mut end = neuroflow(&["tasks", &journal, "end", &steady]);
        let end = end.output().expect("it runs");
        (end.status.code(), String::from_utf8_lossy(&end.stderr).into_owned())
    };
    let (code, said) = end();
    assert!(code == Some(1) && said.contains("a node runs on the journal"), "{said}");
    node.kill();
    let (code, said) = end();
    assert_eq!((code, said.as_str()), (Some(0), ""));
    let (code, said) = end();
    assert!(code == Some(1) && said.contains("the task is failed already"), "{said}");
    let last = runtime().block_on(last_of(folder.path(), "steady"));
    assert!(last.contains("ended_by_hand"), "{last}");
    let node = start(folder.path()).expect("it lives");
    until(node.gateway, "steady", &steady, "TASK_STATE_FAILED").expect("it lives");
    node.kill();
}

/// The last that the journal has of an agent's only task, which has failed.
async fn last_of(folder: &Path, agent: &str) -> String {
    let scene = Scene::at(&folder.join("journal")).await;
    let page = scene.journal.heads(agent, TaskQuery::first(9)).await.expect("readable");
    let [head] = &page.heads[..] else { panic!("{:?}", page.heads) };
    assert_eq!(head.state, TaskState::Failed);
    let log = scene.journal.read(agent, &head.task).await.expect("readable").expect("it's there");
    let last = log.entries.last().expect("an entry").parcel.clone();
    scene.stop().await;
    let event = last.open::<TaskEvent>().expect("an event");
    let ArchivedChange::Status { turn, .. } = &event.get().change else {
        panic!("no end: {}", told(event.get()))
    };
    let metadata = turn.as_ref().and_then(|turn| turn.metadata.as_deref());
    format!("{} {}", told(event.get()), metadata.unwrap_or_default())
}

fn runtime() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().expect("a runtime starts")
}
