//! Tool calls in a task's log: what was called and what came of it, and that a second run doesn't call it again.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use neuroflow::actors::{
    ArchivedCallEnd, ArchivedRecordedJson, CallRecord, EntryKind, JournalConfig, OutcomeRecord,
    TaskEvent, TaskLog, TaskQuery, limits::CALL_RESULT_BYTES,
};
use neuroflow::kernel::{Address, Parcel, ReplyStream, Request};
use neuroflow::{
    AgentBuilder, Answer, AnyAgent, Ask, Header, Node, Tool, ToolContext, ToolError, Turn,
};
use serde_json::{Value, json};

use crate::cluster::{Cluster, now};
use crate::folder::Folder;
use crate::killable::{ANNOUNCED, Killable, Line, neuroflow};
use crate::scene::{Scene, config};

/// Says to this program, started once more, that it's the node, and where.
const ROLE: &str = "NEUROFLOW_TEST_CALLS";
/// What lets the agent come to its end.
const OPEN: &str = "open";
/// What the agent leaves behind when its calls have returned, each life one of its own.
const RETURNED: &str = "returned";
/// What the tool was called for, a line for each time.
const BOOK: &str = "book";
/// A moment by which something has to have come, on a machine that is slow.
const LONG: Duration = Duration::from_mins(1);

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Word {
    word: String,
}

/// Writes words down, and says how many there are by then.
struct Note(PathBuf);

impl Note {
    fn words(folder: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(folder.join(BOOK)).unwrap_or_default();
        text.lines().map(ToOwned::to_owned).collect()
    }
}

impl Tool for Note {
    type Arguments = Word;
    type Output = Value;

    fn name(&self) -> &'static str {
        "note"
    }

    fn description(&self) -> &'static str {
        "Writes a word down."
    }

    async fn call(&self, word: Word, _: ToolContext) -> Result<Value, ToolError> {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(self.0.join(BOOK));
        let written = file.and_then(|mut file| writeln!(file, "{}", word.word));
        written.map_err(|error| ToolError::new("book", "not written").caused_by(error))?;
        match word.word.as_str() {
            "large" => Ok("x".repeat(CALL_RESULT_BYTES).into()),
            "bad" => Err(ToolError::new("bad_word", "no such word")),
            _ => Ok(Self::words(&self.0).len().into()),
        }
    }
}

/// Calls the tool twice alike and once with what is another in each process, and waits.
fn caller(folder: &Path) -> AnyAgent {
    let of = folder.to_owned();
    let caller = AgentBuilder::new("caller", "Calls.").tool(Note(folder.to_owned()));
    caller.profile(|profile| profile.resumable = true).on_ask(move |_, context| {
        let folder = of.clone();
        async move {
            let secret = json!({ "word": "secret" });
            let one = context.call("note", &secret).await?;
            let two = context.call("note", &secret).await?;
            let life = Note::words(&folder).len().to_string();
            let life = context.call("note", json!({ "word": life })).await?;
            // Nothing was said since, so that no event has brought the calls along.
            std::fs::write(folder.join(format!("{RETURNED}-{}", life.text())), "").ok();
            while !folder.join(OPEN).exists() {
                context.clock().sleep(Duration::from_millis(4)).await;
            }
            Ok(Answer::text(format!("{} {} {}", one.text(), two.text(), life.text())))
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn role_calls() {
    let Some(folder) = std::env::var_os(ROLE) else { return };
    let folder = PathBuf::from(folder);
    let node = Node::builder().agent(caller(&folder)).journal(config(&folder.join("journal")));
    let node = node.gateway("127.0.0.1:0".parse().expect("an address"));
    let node = node.start().await.expect("the node starts");
    let gateway = node.gateway().expect("a gateway");
    writeln!(std::io::stdout(), "{ANNOUNCED}{gateway}/").expect("somebody reads it");
    std::future::pending::<()>().await;
}

fn start(folder: &Path) -> Killable {
    Killable::role("calls::role_calls", ROLE, folder)
}

fn until(wanted: &str, mut is_there: impl FnMut() -> bool) {
    let begun = now();
    while !is_there() {
        assert!(begun.elapsed() < LONG, "no {wanted}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn call(node: &Killable, method: &str, params: &Value) -> Value {
    let mut line = Line::open(node.gateway).expect("a connection");
    line.call("/agents/caller", method, params).expect("an answer")
}

#[test]
fn a_call_that_has_returned_is_not_made_again_after_a_kill_and_one_with_other_arguments_is() {
    let folder = Folder::new();
    let node = start(folder.path());
    let request = json!({
        "message": { "messageId": "1", "role": "ROLE_USER", "parts": [{ "text": "go" }] },
        "configuration": { "returnImmediately": true },
    });
    let begun = call(&node, "SendMessage", &request);
    let id = begun["result"]["task"]["id"].as_str().expect("an id").to_owned();
    until("return", || folder.path().join(format!("{RETURNED}-3")).exists());
    node.kill();
    assert_eq!(Note::words(folder.path()), ["secret", "secret", "2"]);

    let node = start(folder.path());
    until("second return", || folder.path().join(format!("{RETURNED}-4")).exists());
    std::fs::write(folder.path().join(OPEN), "").expect("it's opened");
    let get = || call(&node, "GetTask", &json!({ "id": id }))["result"].take();
    until("end", || get()["status"]["state"] == "TASK_STATE_COMPLETED");
    let told = get();
    assert_eq!(told["artifacts"][0]["parts"][0]["text"], "1 2 4", "{told}");
    assert!(!told.to_string().contains("secret"), "clients aren't told: {told}");
    node.kill();
    assert_eq!(Note::words(folder.path()), ["secret", "secret", "2", "3"]);

    let journal = format!("--journal-url=file://{}", folder.path().join("journal").display());
    let look = |action: &[&str]| {
        let output = neuroflow(&["tasks", &journal]).args(action).output().expect("it runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let lines = look(&["export"]);
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let lines: Vec<Value> = lines.collect();
    let of = |kind: &str, what: &str| -> Vec<Value> {
        lines.iter().filter(|line| line["kind"] == kind).map(|line| line[what].clone()).collect()
    };
    let words = ["secret", "secret", "2", "3"].map(|word| json!({ "word": word }));
    assert_eq!(of("call", "arguments"), words);
    assert_eq!(of("call", "tool"), ["note"; 4]);
    assert_eq!(of("outcome", "result"), [1, 2, 3, 4]);
    assert_eq!(of("outcome", "key"), of("call", "key"));
    let shown = look(&["show", &id]);
    assert!(shown.contains("call \"note#") && shown.contains("secret"), "{shown}");
}

type Agent = Address<neuroflow::actors::AgentCommand>;

async fn ask(agent: &Agent) -> ReplyStream<Parcel<TaskEvent>> {
    let parcel = Parcel::archive(&Ask::new(Turn::user("go"))).expect("archived");
    let ask = |replies| neuroflow::actors::AgentCommand::Ask(Request { parcel, replies });
    let mut events = agent.stream(Header::new(), ask).await.expect("taken");
    events.next().await.expect("an event").expect("no interruption");
    events
}

async fn returned(folder: &Path, life: u8) {
    let clock = neuroflow::Clock::system();
    let waits = async {
        while !folder.join(format!("{RETURNED}-{life}")).exists() {
            clock.sleep(Duration::from_millis(5)).await;
        }
    };
    clock.before(clock.now() + LONG, waits).await.expect("the calls return");
}

/// The log of an agent's only task.
async fn log(config: JournalConfig, agent: &str) -> TaskLog {
    let scene = Scene::open(config).await.expect("it opens");
    let page = scene.journal.heads(agent, TaskQuery::first(9)).await.expect("readable");
    let [head] = &page.heads[..] else { panic!("{:?}", page.heads) };
    let log = scene.journal.read(agent, &head.task).await.expect("readable").expect("it's there");
    scene.stop().await;
    assert!(log.damage.is_empty(), "{:?}", log.damage);
    log
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_database_calls_are_not_made_again_either() {
    let (cluster, folder) = (Cluster::start(), Folder::new());
    let node = || async {
        let node = Node::builder().agent(caller(folder.path())).journal(cluster.config("one"));
        node.start().await.expect("the node starts")
    };
    let first = node().await;
    let agent = first.address("caller").expect("it's there").clone();
    let _events = ask(&agent).await;
    returned(folder.path(), 3).await;
    first.stop().await;
    let second = node().await;
    returned(folder.path(), 4).await;
    second.stop().await;
    assert_eq!(Note::words(folder.path()), ["secret", "secret", "2", "3"]);
    let kinds = log(cluster.config("one"), "caller").await.entries;
    for kind in [EntryKind::Call, EntryKind::Outcome] {
        assert_eq!(kinds.iter().filter(|entry| entry.kind == kind).count(), 4, "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_is_not_run_again_has_its_calls_in_their_place_and_digests_of_what_is_large() {
    let folder = Folder::new();
    let tool = Note(folder.path().to_owned());
    let agent = AgentBuilder::new("caller", "Calls.").tool(tool).on_ask(|_, context| async move {
        context.say("before").await?;
        let large = context.call("note", json!({ "word": "large" })).await?;
        context.say("between").await?;
        let bad = context.call("note", json!({ "word": "bad" })).await;
        Ok(Answer::text(format!("{} {}", large.text().len(), bad.is_err())))
    });
    let config = config(&folder.path().join("journal"));
    let node = Node::builder().agent(agent).journal(config.clone());
    let node = node.start().await.expect("the node starts");
    let mut events = ask(&node.address("caller").expect("it's there").clone()).await;
    while let Some(event) = events.next().await {
        event.expect("it isn't cut off");
    }
    node.stop().await;
    let entries = log(config, "caller").await.entries;
    let kinds: Vec<EntryKind> = entries.iter().map(|entry| entry.kind).collect();
    let (event, call, outcome) = (EntryKind::Event, EntryKind::Call, EntryKind::Outcome);
    // Accepted, working, said; said; an artifact and the end.
    let expected = [event, event, event, call, outcome, event, call, outcome, event, event];
    assert_eq!(kinds, expected);
    let called = entries[3].parcel.clone().open::<CallRecord>().expect("a call");
    let ArchivedRecordedJson::Whole(arguments) = &called.get().arguments else {
        panic!("a digest")
    };
    assert_eq!((called.get().tool.as_str(), arguments.as_str()), ("note", r#"{"word":"large"}"#));
    let ends = [4, 7].map(|at: usize| entries[at].parcel.clone().open::<OutcomeRecord>());
    let [Ok(large), Ok(bad)] = ends else { panic!("{ends:?}") };
    let ArchivedCallEnd::Done(ArchivedRecordedJson::Digest { bytes, .. }) = &large.get().end else {
        panic!("no digest")
    };
    // With its quotation marks.
    assert_eq!(bytes.to_native(), CALL_RESULT_BYTES as u64 + 2);
    let ArchivedCallEnd::Failed { code, .. } = &bad.get().end else { panic!("it hasn't failed") };
    assert_eq!(code.as_str(), "tool_error");
}
