//! Nodes under load that are killed time and again while old segments go, or on a database: what was acknowledged is
//! there, unless it's older than what is kept, and what isn't over goes on.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use neuroflow::actors::DamageKind;
use neuroflow::{AgentBuilder, Answer, AnyAgent, Echo, Node};
use serde_json::{Value, json};

use crate::cluster::{Cluster, now};
use crate::crash::{Told, ask_until_killed};
use crate::folder::Folder;
use crate::killable::{ANNOUNCED, Killable, Line, call};
use crate::scene::{Scene, config};

/// Says to this program, started once more, that it's the node, and where.
const ROLE: &str = "NEUROFLOW_TEST_SEGMENTS";
/// What lets the agent `keeper` come to its end.
const OPEN: &str = "open";
/// Bytes of a segment: some twenty tasks.
const SEGMENT: u64 = 32 * 1024;
/// Ended tasks that are kept, and as many of the last of them as have surely not gone.
const KEPT: usize = 100;
const SURE: usize = 25;
const KILLS: u64 = 40;
const CLIENTS: usize = 3;
/// Tasks that outlast all kills.
const KEEPERS: usize = 3;
/// A moment by which something has to have come, on a machine that is slow.
const LONG: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn role_segments() {
    let Some(folder) = std::env::var_os(ROLE) else { return };
    let folder = PathBuf::from(folder);
    let mut journal = config(&folder.join("journal"));
    journal.segment_bytes = SEGMENT;
    journal.retention.tasks = KEPT;
    let node = Node::builder().agent(AnyAgent::new(Echo)).agent(keeper(&folder)).journal(journal);
    let node = node.gateway("127.0.0.1:0".parse().expect("an address"));
    let node = node.start().await.expect("the node starts");
    let gateway = node.gateway().expect("a gateway");
    writeln!(std::io::stdout(), "{ANNOUNCED}{gateway}/").expect("somebody reads it");
    std::future::pending::<()>().await;
}

/// Says something now and then, so that its tasks lie in many segments.
fn keeper(folder: &Path) -> AnyAgent {
    let open = folder.join(OPEN);
    let keeper = AgentBuilder::new("keeper", "Goes on.").profile(|profile| {
        profile.resumable = true;
        // Its nodes are killed from outside.
        profile.fruitless_runs = u32::MAX;
    });
    keeper.on_ask(move |_, context| {
        let open = open.clone();
        async move {
            let mut said = 0;
            while !open.exists() {
                if said < 1_000 {
                    context.say(format!("{said}")).await?;
                    said += 1;
                }
                context.clock().sleep(Duration::from_millis(10)).await;
            }
            Ok(Answer::text("kept"))
        }
    })
}

/// Lets clients ask for a moment, and kills the node.
fn ask_and_kill(node: Killable, told: &Told, moment: Duration) {
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (told, over, gateway) = (Arc::clone(told), Arc::clone(&over), node.gateway);
            let ask = move || ask_until_killed(gateway, client, &told, &over);
            std::thread::Builder::new().spawn(ask).expect("a thread")
        })
        .collect();
    std::thread::sleep(moment);
    over.store(true, Ordering::SeqCst);
    node.kill();
    for client in clients {
        client.join().expect("no client panics");
    }
}

/// A different one for each kill.
fn moment(round: u64) -> Duration {
    Duration::from_micros(40_000 + (round * 7_919) % 80_000)
}

/// The tasks that clients were told of, the last changed first.
fn latest(told: &Told) -> Vec<Value> {
    let told = told.lock().expect("no client panicked");
    let mut tasks: Vec<Value> = told.values().cloned().collect();
    let at = |task: &Value| task["status"]["timestamp"].as_str().unwrap_or_default().to_owned();
    tasks.sort_by_key(|task| std::cmp::Reverse(at(task)));
    tasks
}

/// Says whether a task that a client was told of is there, as it has to be then.
fn is_there(line: &mut Line, told: &Value) -> bool {
    let mut answer = line.call("/", "GetTask", &json!({ "id": told["id"] })).expect("an answer");
    let found = answer["result"].take();
    if !found.is_object() {
        return false;
    }
    if told["status"]["state"] == "TASK_STATE_COMPLETED" {
        assert_eq!(found, *told, "it has changed");
    }
    let state = found["status"]["state"].as_str().expect("a state");
    assert!(["TASK_STATE_COMPLETED", "TASK_STATE_FAILED"].contains(&state), "{found}");
    true
}

#[test]
fn kills_while_old_segments_go_lose_nothing_that_is_kept() {
    let (folder, told) = (Folder::new(), Told::default());
    let start = || Killable::role("segments::role_segments", ROLE, folder.path());
    let keep = |node: &Killable, method: &str, params: &Value| {
        let mut line = Line::open(node.gateway).expect("a connection");
        line.call("/agents/keeper", method, params).expect("an answer")
    };
    let node = start();
    let request = json!({
        "message": { "messageId": "1", "role": "ROLE_USER", "parts": [{ "text": "go" }] },
        "configuration": { "returnImmediately": true },
    });
    let keepers = [(); KEEPERS].map(|()| {
        let begun = keep(&node, "SendMessage", &request);
        begun["result"]["task"]["id"].as_str().expect("an id").to_owned()
    });
    node.kill();
    for round in 0..KILLS {
        ask_and_kill(start(), &told, moment(round));
        if round % 10 == 9 {
            // Without an index everything is read.
            let _without = std::fs::remove_file(folder.path().join("journal/index"));
        }
    }
    let node = start();
    let tasks = latest(&told);
    let mut line = Line::open(node.gateway).expect("a connection");
    println!("{} were acknowledged", tasks.len());
    let there: Vec<bool> = tasks.iter().map(|task| is_there(&mut line, task)).collect();
    assert!(tasks.len() > SURE, "{} are too few", tasks.len());
    assert_eq!(there.iter().position(|there| !there).filter(|at| *at < SURE), None, "lost");
    std::fs::write(folder.path().join(OPEN), "").expect("it's opened");
    for task in &keepers {
        let begun = now();
        loop {
            let found = keep(&node, "GetTask", &json!({ "id": task }));
            if found["result"]["status"]["state"] == "TASK_STATE_COMPLETED" {
                break;
            }
            assert!(begun.elapsed() < LONG, "{found}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    node.kill();
    runtime().block_on(whole(&folder.path().join("journal"), &keepers));
}

/// Segments have come and gone, and nothing but the end of one was ever torn.
async fn whole(journal: &Path, keepers: &[String]) {
    let names = std::fs::read_dir(journal).expect("read").map(|entry| {
        let name = entry.expect("an entry").file_name();
        name.to_string_lossy().into_owned()
    });
    let number = |name: String| name.strip_suffix(".segment").and_then(|it| it.parse().ok());
    let mut segments: Vec<u32> = names.filter_map(number).collect();
    segments.sort_unstable();
    let (first, last) = (segments[0], segments[segments.len() - 1]);
    assert!(first > 3 && last > 10, "too few have gone: {first} to {last}");
    println!("segments {first} to {last} are left");
    for _ in 0..2 {
        let scene = Scene::at(journal).await;
        let damage = scene.report.damage.iter();
        let others: Vec<_> = damage.filter(|it| it.kind != DamageKind::TornTail).collect();
        assert!(others.is_empty(), "{others:?}");
        for task in keepers {
            let log = scene.journal.read("keeper", task).await.expect("read").expect("it's there");
            assert!(log.damage.is_empty(), "{:?}", log.damage);
        }
        scene.stop().await;
        // The second time everything is read.
        std::fs::remove_file(journal.join("index")).expect("it's written at a stop");
    }
}

#[test]
fn kills_of_a_node_under_load_on_a_database_lose_no_task_that_was_acknowledged() {
    let (cluster, told) = (Cluster::start(), Told::default());
    for round in 0..KILLS / 2 {
        ask_and_kill(Killable::start_at(&cluster.url(), "off"), &told, moment(round));
    }
    let node = Killable::start_at(&cluster.url(), "off");
    let mut line = Line::open(node.gateway).expect("a connection");
    let tasks = latest(&told);
    assert!(tasks.len() > SURE, "{} are too few", tasks.len());
    for task in &tasks {
        assert!(is_there(&mut line, task), "{} is lost", task["id"]);
    }
    // Nobody was told of more than there is, and what is left of kills has ended.
    let listed = call(node.gateway, "ListTasks", &json!({ "status": "TASK_STATE_WORKING" }));
    assert_eq!(listed.expect("an answer")["result"]["totalSize"], 0);
    node.kill();
}

fn runtime() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().expect("a runtime starts")
}
