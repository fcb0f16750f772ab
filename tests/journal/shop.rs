//! A host program whose agents go on after a kill: one does things in the world, with the book in which
//! the world writes down what was done to it, and one hands out an artifact in pieces.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use neuroflow::actors::{Chunk, PushOptions};
use neuroflow::{AgentBuilder, AgentError, Answer, AnyAgent, Artifact, Echo, Node};
use serde_json::{Value, json};

use crate::cluster::now;
use crate::folder::Folder;
use crate::killable::{ANNOUNCED, Killable, Line};
use crate::scene::config;

/// Says to this program, started once more, that it's the shop, and where.
const ROLE: &str = "NEUROFLOW_TEST_SHOP";

/// What a task does in the world, in this order.
pub(crate) const DEEDS: [&str; 3] = ["reserve", "charge", "ship"];

/// A node with the agents `echo` and `shop`, in a process of its own.
pub(crate) fn open(folder: &Path) -> Killable {
    Killable::role("shop::role_shop", ROLE, folder)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn role_shop() {
    let Some(folder) = std::env::var_os(ROLE) else { return };
    let folder = PathBuf::from(folder);
    let mut push = PushOptions::default();
    push.allow_private = true;
    let node = Node::builder().agent(AnyAgent::new(Echo)).agent(shop(Book::of(&folder)));
    let node = node.agent(writer(&folder));
    let node = node.journal(config(&folder.join("journal"))).push_notifications(push);
    let node = node.gateway("127.0.0.1:0".parse().expect("an address"));
    let node = node.start().await.expect("the node starts");
    let gateway = node.gateway().expect("a gateway");
    writeln!(std::io::stdout(), "{ANNOUNCED}{gateway}/").expect("somebody reads it");
    std::future::pending::<()>().await;
}

/// Says what it will do, does it, and leaves a moment in which it may be killed.
fn shop(book: Book) -> AnyAgent {
    let shop = AgentBuilder::new("shop", "Takes orders.").profile(|profile| {
        profile.resumable = true;
        // Its nodes are killed from outside, time and again before it has come to anything.
        profile.fruitless_runs = u32::MAX;
    });
    shop.on_ask(move |_, context| {
        let book = book.clone();
        async move {
            let mut receipts = Vec::new();
            for deed in DEEDS {
                context.say(deed).await?;
                let done = async { book.done(context.task(), deed) };
                let receipt: String = context.effect(deed, done).await?;
                receipts.push(receipt);
                context.clock().sleep(Duration::from_millis(4)).await;
            }
            Ok(Answer::text(receipts.join(" ")))
        }
    })
}

/// What lets the agent `writer` hand out the last piece of what it writes.
const OPEN: &str = "open";

/// Hands out an artifact in pieces, and stands still before the last one.
fn writer(folder: &Path) -> AnyAgent {
    let open = folder.join(OPEN);
    let writer = AgentBuilder::new("writer", "Writes.").profile(|profile| {
        profile.resumable = true;
    });
    writer.on_ask(move |_, context| {
        let open = open.clone();
        async move {
            let one = Artifact::text("count", "one ");
            let more = |text| Artifact { id: one.id.clone(), ..Artifact::text("count", text) };
            let (two, three) = (more("two "), more("three"));
            context.artifact_chunk(one, Chunk::First).await?;
            context.artifact_chunk(two, Chunk::Next).await?;
            while !open.exists() {
                context.clock().sleep(Duration::from_millis(4)).await;
            }
            context.artifact_chunk(three, Chunk::Last).await?;
            Ok(Answer::done())
        }
    })
}

#[test]
fn an_artifact_in_pieces_stays_one_when_the_node_is_killed_between_them() {
    let folder = Folder::new();
    let get = |node: &Killable, task: &str| {
        let answer = call_at(node.gateway, "GetTask", &json!({ "id": task }));
        answer["result"].clone()
    };
    let until = |node: &Killable, task: &str, is: &dyn Fn(&Value) -> bool| {
        let begun = now();
        loop {
            let found = get(node, task);
            if is(&found) {
                return found;
            }
            assert!(begun.elapsed() < Duration::from_mins(1), "{found}");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    let pieces = |task: &Value| task["artifacts"][0]["parts"].as_array().map_or(0, Vec::len);
    let node = open(folder.path());
    let request = json!({
        "message": { "messageId": "1", "role": "ROLE_USER", "parts": [{ "text": "go" }] },
        "configuration": { "returnImmediately": true },
    });
    let begun = call_at(node.gateway, "SendMessage", &request);
    let id = begun["result"]["task"]["id"].as_str().expect("an id").to_owned();
    let before = until(&node, &id, &|task| pieces(task) == 2);
    node.kill();
    // Once more, so that a third run follows a second one that has added nothing.
    open(folder.path()).kill();
    std::fs::write(folder.path().join(OPEN), "").expect("it's opened");
    let node = open(folder.path());
    let over = until(&node, &id, &|task| task["status"]["state"] == "TASK_STATE_COMPLETED");
    let artifacts = over["artifacts"].as_array().expect("artifacts");
    assert_eq!(artifacts.len(), 1, "{over}");
    assert_eq!(artifacts[0]["artifactId"], before["artifacts"][0]["artifactId"]);
    let parts: Vec<_> = artifacts[0]["parts"].as_array().into_iter().flatten().collect();
    let texts: Vec<_> = parts.iter().filter_map(|part| part["text"].as_str()).collect();
    assert_eq!(texts, ["one ", "two ", "three"]);
    node.kill();
}

/// A call to the agent `writer`.
fn call_at(gateway: SocketAddr, method: &str, params: &Value) -> Value {
    let mut line = Line::open(gateway).expect("a connection");
    line.call("/agents/writer", method, params).expect("an answer")
}

/// What was done, a line for each time.
#[derive(Clone)]
pub(crate) struct Book(PathBuf);

/// The times that something was done.
#[derive(Default)]
pub(crate) struct Times {
    /// What each time came to, in order.
    pub(crate) receipts: Vec<String>,
    /// Which processes did it.
    pub(crate) by: Vec<u32>,
}

impl Book {
    pub(crate) fn of(folder: &Path) -> Self {
        Self(folder.join("book"))
    }

    /// Does it once more: every time has a receipt of its own.
    fn done(&self, task: &str, deed: &str) -> Result<String, AgentError> {
        let receipt = format!("{:016x}", RandomState::new().build_hasher().finish());
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&self.0);
        let line = format!("{task} {deed} {receipt} {}\n", std::process::id());
        // In one piece: the system has it whole or not at all.
        let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
        written.map_err(AgentError::failed)?;
        Ok(receipt)
    }

    /// All that was done, by task and deed.
    pub(crate) fn read(&self) -> HashMap<(String, String), Times> {
        let text = std::fs::read_to_string(&self.0).expect("the book is there");
        let mut all: HashMap<_, Times> = HashMap::new();
        for line in text.lines() {
            let [task, deed, receipt, by] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("not a line of the book: {line:?}")
            };
            let times = all.entry((task.to_owned(), deed.to_owned())).or_default();
            times.receipts.push(receipt.to_owned());
            times.by.push(by.parse().expect("a process"));
        }
        all
    }
}
