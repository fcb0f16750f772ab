//! A gateway offers agents of other nodes as its own: their card, their streams, their questions, their ends.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use neuroflow::actors::{AccessConfig, JournalConfig, JournalPlace, RulesSource};
use neuroflow::kernel::StartError;
use neuroflow::transport::{Authority, LinksConfig, Trust};
use neuroflow::{
    AgentBuilder, Answer, AnyAgent, Artifact, BootError, Clock, Echo, McpServer, Node, NodeBuilder,
    ProxyAgent, Skill, Turn,
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use crate::access::{Files, token};
use crate::client::{
    Connection, begin_text, get_task, message, post, request, rpc, send_text, task_of,
};
use crate::mcp_access::Client;
use crate::mcp_tasks::until;
use crate::support::{eventually, loopback, output, said, start, state};

/// Nodes of one cluster, each in a runtime of its own, so that it can die without a word.
pub(crate) struct Cluster {
    authority: Authority,
}

/// A node that can be killed.
pub(crate) struct Other {
    runtime: Runtime,
    pub(crate) node: Node,
}

impl Other {
    /// It's gone at once: nobody is told.
    fn kill(self) {
        self.runtime.shutdown_background();
    }

    pub(crate) async fn stop(self) {
        self.node.stop().await;
        self.runtime.shutdown_background();
    }
}

impl Cluster {
    pub(crate) fn new() -> Self {
        Self { authority: Authority::create("test", Clock::system().wall()).expect("an authority") }
    }

    fn links(&self, name: &str, seeds: &[&Other]) -> LinksConfig {
        let (hour, now) = (Duration::from_hours(1), Clock::system().wall());
        let credential = self.authority.issue(name, &[], hour, now).expect("a certificate");
        let trust = Trust::from_pem(self.authority.certificate_pem()).expect("an authority");
        let seeds = seeds.iter().filter_map(|other| other.node.links()?.local_address());
        seeds.fold(LinksConfig::new(loopback(), credential, trust), LinksConfig::seed)
    }

    async fn other(&self, name: &str, agent: AnyAgent, seeds: &[&Other]) -> Other {
        self.other_of(name, Node::builder().agent(agent), seeds).await
    }

    pub(crate) async fn other_of(&self, name: &str, node: NodeBuilder, seeds: &[&Other]) -> Other {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().expect("a runtime");
        let node = node.cluster(self.links(name, seeds));
        let node = runtime.spawn(node.start()).await.expect("it isn't dropped");
        Other { runtime, node: node.expect("the other node starts") }
    }

    /// The gateway's node.
    pub(crate) fn gateway(&self, seeds: &[&Other]) -> NodeBuilder {
        let node = Node::builder().agent(AnyAgent::new(Echo)).gateway(loopback());
        node.cluster(self.links("gateway", seeds))
    }
}

fn in_conversation(mut params: Value, conversation: &str) -> Value {
    params["message"]["contextId"] = json!(conversation);
    params
}

fn text(text: &str) -> Value {
    message(json!([{ "text": text }]))
}

/// How a task failed, for programs.
pub(crate) fn reason(task: &Value) -> &str {
    let reason = task["status"]["message"]["metadata"]["neuroflow"]["reason"].as_str();
    reason.unwrap_or_else(|| panic!("no reason in {task}"))
}

/// The state of a task once it has ended.
async fn ended(to: std::net::SocketAddr, path: &str, id: &str) -> Value {
    for _ in 0..1_500 {
        let task = get_task(to, path, id).await;
        if !["TASK_STATE_WORKING", "TASK_STATE_SUBMITTED"].contains(&state(&task)) {
            return task;
        }
        crate::support::pause(20).await;
    }
    panic!("task {id} doesn't end");
}

const FAR: &str = "/agents/far";

/// Says much at once, more than a stream holds, and hands an artifact out in pieces.
fn talker() -> AnyAgent {
    let skill = |profile: &mut neuroflow::AgentProfile| {
        profile.skills = vec![Skill::named("talk", "Talks.")];
    };
    AgentBuilder::new("talker", "Talks.").profile(skill).on_ask(|ask, context| async move {
        for number in 0..MANY {
            context.say(number.to_string()).await?;
        }
        Ok(Answer::artifact(Artifact::text("all", format!("that was {}", ask.text()))))
    })
}

/// Several times as much as waits in one stream.
const MANY: usize = 1_000;

#[tokio::test]
async fn an_agent_of_another_node_is_offered_and_streams_through_every_door() {
    let cluster = Cluster::new();
    let b = cluster.other("b", talker(), &[]).await;
    let far = ProxyAgent::new("far", "agent://b/talker");
    let (node, to) = start(cluster.gateway(&[&b]).proxy(far)).await;

    let mut connection = Connection::open(to).await;
    let card = connection.get("/agents/far/.well-known/agent-card.json").await.json();
    assert_eq!((&card["name"], &card["skills"][0]["id"]), (&json!("far"), &json!("talk")));
    let agents = connection.get("/agents").await.json();
    let names = agents["agents"].as_array().expect("agents").iter().map(|card| &card["name"]);
    assert_eq!(names.collect::<Vec<_>>(), ["echo", "far"]);

    let streaming = post(FAR, &[], &request("SendStreamingMessage", text("all")));
    let mut events = Connection::open(to).await.events(&streaming).await.expect("a stream");
    let (mut told, mut task, mut last) = (Vec::new(), String::new(), Value::Null);
    while let Some((_, event)) = events.next().await {
        let result = &event["result"];
        if let Some(id) = result["task"]["id"].as_str() {
            id.clone_into(&mut task);
        }
        let said = &result["statusUpdate"]["status"]["message"]["parts"][0]["text"];
        told.extend(said.as_str().map(str::to_owned));
        last = result.clone();
    }
    let wanted: Vec<String> = (0..MANY).map(|number| number.to_string()).collect();
    assert!(told == wanted, "{} of {MANY} came, or in another order", told.len());
    assert_eq!(last["statusUpdate"]["status"]["state"], "TASK_STATE_COMPLETED");

    // The task is this node's own, in its journal, and there is one of the other's behind it.
    let kept = node.journal().read("far", &task).await.expect("the journal answers");
    assert!(kept.is_some_and(|log| log.head.state.is_terminal()));
    assert!(b.node.journal().read("talker", &task).await.expect("an answer").is_none());

    let models = connection.get("/v1/models").await.text();
    assert!(models.contains("\"far\""), "{models}");
    let chat = json!({ "model": "far", "messages": [{ "role": "user", "content": "chat" }] });
    let chat = connection.post("/v1/chat/completions", chat.to_string().as_bytes()).await.json();
    let content = chat["choices"][0]["message"]["content"].as_str();
    assert!(content.is_some_and(|text| text.ends_with("that was chat")), "{chat}");

    // Who asks this node for it by a link asks the wrong one: a proxy is for this gateway.
    let looped = b.node.ask("agent://gateway/far", "?").await;
    assert!(matches!(looped, Err(neuroflow::AskError::Interrupted(_))), "{looped:?}");
    node.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn who_may_use_it_is_said_here() {
    let cluster = Cluster::new();
    let b = cluster.other("b", talker(), &[]).await;
    let files = Files::fresh();
    let (dev, other) = (token("dev", &["dev"]), token("other", &[]));
    let mut access = AccessConfig::default();
    access.tokens = Some(files.write("tokens", &[dev.line(), other.line()].join("\n")));
    let rule = r#"permit(principal in Group::"dev", action, resource in Agent::"far");"#;
    access.rules = RulesSource::File(files.write("policy", rule));
    let far = ProxyAgent::new("far", "agent://*/talker");
    let (node, to) = start(cluster.gateway(&[&b]).proxy(far).access(access)).await;
    let mut answers = Vec::new();
    for token in [&dev, &other] {
        let bearer = format!("Bearer {}", token.secret());
        let asked = request("SendMessage", text("hello"));
        let headers = [("authorization", bearer.as_str())];
        let answer = Connection::open(to).await.post_with(FAR, &headers, &asked).await;
        answers.push(answer.json());
    }
    let task = task_of(answers.remove(0));
    assert_eq!(output(&task), "that was hello");
    assert!(answers[0]["error"].is_object(), "{}", answers[0]);
    // The other node knows for whom it worked.
    let far = b.node.journal().heads("talker", neuroflow::actors::TaskQuery::first(9)).await;
    let callers: Vec<_> = far.expect("heads").heads.into_iter().map(|head| head.caller).collect();
    assert!(matches!(&callers[..], [Some(caller)] if caller.contains("dev")), "{callers:?}");
    node.stop().await;
    b.stop().await;
}

/// Asks two questions, speaks while it waits, and answers with the name of its node and all that it has heard.
fn curious(node: &'static str) -> AnyAgent {
    AgentBuilder::new("curious", "Asks back.").on_ask(move |ask, context| async move {
        let asked = context.ask_user(Turn::agent("Which colour?"));
        let (colour, ()) = tokio::try_join!(asked, context.say("waiting"))?;
        let leave = context.require_auth(Turn::agent("May I?")).await?;
        context.say("listening").await?;
        let mut heard = context.said_meanwhile().await?;
        while heard.is_empty() {
            context.clock().sleep(Duration::from_millis(20)).await;
            heard = context.said_meanwhile().await?;
        }
        let (ask, colour, leave) = (ask.text(), colour.text(), leave.text());
        Ok(Answer::text(format!("{node}: {ask} {colour} {leave} {}", heard[0].text())))
    })
}

#[tokio::test]
async fn it_asks_back_and_a_conversation_stays_with_its_node() {
    let cluster = Cluster::new();
    let b = cluster.other("b", curious("b"), &[]).await;
    let c = cluster.other("c", curious("c"), &[&b]).await;
    let far = ProxyAgent::new("far", "agent://*/curious");
    let (node, to) = start(cluster.gateway(&[&b, &c]).proxy(far)).await;
    eventually("both are there", || {
        let members = node.links().map(neuroflow::transport::Links::members).unwrap_or_default();
        members.iter().filter(|member| member.offers("curious")).count() == 2
    })
    .await;
    for talk in 0..3 {
        let talk = format!("talk {talk}");
        let mut nodes = Vec::new();
        for _ in 0..2 {
            let first = in_conversation(text("tea"), &talk);
            let mut task = task_of(rpc(to, FAR, "SendMessage", first).await);
            for (wanted, question, answer) in [
                ("TASK_STATE_INPUT_REQUIRED", "Which colour?", "green"),
                ("TASK_STATE_AUTH_REQUIRED", "May I?", "yes"),
            ] {
                assert_eq!((state(&task), said(&task)), (wanted, question));
                let mut more = in_conversation(text(answer), &talk);
                more["message"]["taskId"] = task["id"].clone();
                more["configuration"] = json!({ "returnImmediately": answer == "yes" });
                task = task_of(rpc(to, FAR, "SendMessage", more).await);
            }
            // It works by now, and is told something that it hasn't asked for.
            let mut more = in_conversation(text("please"), &talk);
            more["message"]["taskId"] = task["id"].clone();
            let task = task_of(rpc(to, FAR, "SendMessage", more).await);
            let answer = output(&task).to_owned();
            let (node, heard) = answer.split_once(": ").expect("a node");
            assert_eq!(heard, "tea green yes please");
            nodes.push(node.to_owned());
        }
        assert_eq!(nodes[0], nodes[1], "{talk}");
    }
    node.stop().await;
    b.stop().await;
    c.stop().await;
}

/// Runs until it's let go, and counts who runs.
#[derive(Clone)]
struct Work {
    begun: Arc<Mutex<Vec<&'static str>>>,
    running: Arc<AtomicU32>,
    gate: Arc<Semaphore>,
}

struct Running(Arc<AtomicU32>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Work {
    fn new() -> Self {
        let gate = Arc::new(Semaphore::new(0));
        Self { begun: Arc::default(), running: Arc::default(), gate }
    }

    fn agent(&self, node: &'static str) -> AnyAgent {
        let work = self.clone();
        AgentBuilder::new("worker", "Works.").on_ask(move |_, context| {
            let work = work.clone();
            async move {
                work.begun.lock().expect("nobody panics here").push(node);
                work.running.fetch_add(1, Ordering::SeqCst);
                let _running = Running(Arc::clone(&work.running));
                context.say("begun").await?;
                let _open = work.gate.acquire().await;
                Ok(Answer::text("done"))
            }
        })
    }

    fn begun(&self) -> Vec<&'static str> {
        self.begun.lock().expect("nobody panics here").clone()
    }

    fn running(&self) -> u32 {
        self.running.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn its_task_ends_there_when_it_is_cancelled_here_or_its_time_is_up() {
    let cluster = Cluster::new();
    let work = Work::new();
    let b = cluster.other("b", work.agent("b"), &[]).await;
    let hasty = |profile: &mut neuroflow::AgentProfile| {
        profile.task_deadline = Duration::from_millis(1_500);
    };
    let node = cluster.gateway(&[&b]).proxy(ProxyAgent::new("far", "agent://b/worker"));
    let node = node.proxy(ProxyAgent::new("hasty", "agent://b/worker").profile(hasty));
    let (node, to) = start(node).await;

    let task = begin_text(to, FAR, "go").await;
    eventually("it works", || work.running() == 1).await;
    let cancelled = rpc(to, FAR, "CancelTask", json!({ "id": task })).await;
    assert_eq!(state(&cancelled["result"]), "TASK_STATE_CANCELED");
    eventually("it's cancelled there", || work.running() == 0).await;

    let task = begin_text(to, "/agents/hasty", "go").await;
    eventually("it works again", || work.begun().len() == 2).await;
    let late = ended(to, "/agents/hasty", &task).await;
    assert_eq!((state(&late), said(&late)), ("TASK_STATE_FAILED", "the task's time is up"));
    eventually("its time is up there", || work.running() == 0).await;
    node.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn it_is_a_tool_over_mcp_and_a_call_that_is_given_up_ends_the_task_there() {
    let cluster = Cluster::new();
    let work = Work::new();
    let b = cluster.other("b", work.agent("b"), &[]).await;
    let node = cluster.gateway(&[&b]).proxy(ProxyAgent::new("far", "agent://b/worker"));
    let (node, to) = start(node.mcp_server(McpServer { http: true, exec: false })).await;
    let client = Client::new(to, None);
    let listed = client.call("tools/list", json!({})).await;
    let tools = listed["result"]["tools"].as_array().expect("tools");
    assert!(tools.iter().any(|tool| tool["name"] == "far"), "{listed}");

    let arguments = json!({ "message": "go" });
    let call = json!({ "name": "far", "arguments": arguments });
    // Who hangs up, and who knows tasks and cancels one.
    let calling = client.calling(None, 1, "far", &arguments).await;
    eventually("it works", || work.running() == 1).await;
    drop(calling);
    eventually("it's cancelled there", || work.running() == 0).await;
    let begun = client.call("tools/call", call.clone()).await;
    let id = begun["result"]["taskId"].as_str().unwrap_or_else(|| panic!("no task in {begun}"));
    eventually("it works again", || work.running() == 1).await;
    client.call("tasks/cancel", json!({ "taskId": id })).await;
    until(&client, id, "cancelled").await;
    eventually("that is cancelled there", || work.running() == 0).await;

    work.gate.add_permits(1);
    let answer = client.call("tools/call", call).await;
    assert_eq!(answer["result"]["content"][0]["text"], "done", "{answer}");
    assert_eq!(work.begun(), ["b"; 3]);
    node.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_lost_node_fails_its_task_or_it_begins_again_elsewhere_and_later_nodes_are_found() {
    let cluster = Cluster::new();
    let work = Work::new();
    let again = |profile: &mut neuroflow::AgentProfile| profile.resumable = true;
    let b = cluster.other("b", work.agent("b"), &[]).await;
    let node = cluster.gateway(&[&b]).proxy(ProxyAgent::new("far", "agent://*/worker"));
    let node = node.proxy(ProxyAgent::new("again", "agent://*/worker").profile(again));
    let (node, to) = start(node).await;

    let once = begin_text(to, FAR, "go").await;
    let twice = begin_text(to, "/agents/again", "go").await;
    eventually("both work", || work.running() == 2).await;
    let c = cluster.other("c", work.agent("c"), &[&b]).await;
    let links = node.links().expect("links").clone();
    let knows = |name: &str, is_up: bool| {
        let status = links.status();
        let up = |link: &neuroflow::transport::LinkStatus| {
            link.name.as_str() == name && link.state == neuroflow::transport::LinkState::Up
        };
        status.iter().any(up) == is_up
    };
    eventually("c is there", || knows("c", true)).await;
    b.kill();
    // What may have run isn't run twice, unless its agent may be.
    let failed = ended(to, FAR, &once).await;
    assert_eq!((state(&failed), reason(&failed)), ("TASK_STATE_FAILED", "node_lost"));
    eventually("the other one is begun again", || work.begun() == ["b", "b", "c"]).await;
    work.gate.add_permits(8);
    let done = ended(to, "/agents/again", &twice).await;
    assert_eq!((state(&done), output(&done)), ("TASK_STATE_COMPLETED", "done"));
    let kept = node.journal().read("again", &twice).await.expect("the journal answers");
    let log = kept.expect("the task");
    let said = log
        .entries
        .iter()
        .filter(|entry| entry.parcel.as_bytes().windows(5).any(|bytes| bytes == b"begun"));
    assert_eq!(said.count(), 1, "what was told isn't told again");

    c.kill();
    eventually("nobody is left", || knows("c", false)).await;
    let refused = send_text(to, FAR, "go").await;
    assert_eq!((state(&refused), reason(&refused)), ("TASK_STATE_FAILED", "unreachable"));
    // Without a restart of the gateway.
    let d = cluster.other("d", work.agent("d"), &[]).await;
    let at = d.node.links().and_then(neuroflow::transport::Links::local_address);
    links.try_dial(at.expect("it listens")).await.expect("a link");
    eventually("d is there", || {
        links.members().iter().any(|member| member.name.as_str() == "d" && member.offers("worker"))
    })
    .await;
    assert_eq!(output(&send_text(to, FAR, "go").await), "done");
    node.stop().await;
    d.stop().await;
}

#[tokio::test]
async fn a_gateway_that_begins_anew_goes_on_with_the_task_that_it_has_there() {
    let cluster = Cluster::new();
    let work = Work::new();
    let b = cluster.other("b", work.agent("b"), &[]).await;
    let files = Files::fresh();
    let place = files.path().join("journal");
    let again = |profile: &mut neuroflow::AgentProfile| profile.resumable = true;
    let gateway = || {
        let far = ProxyAgent::new("far", "agent://*/worker").profile(again);
        let journal = JournalConfig::new(JournalPlace::Directory(place.clone()));
        start(cluster.gateway(&[&b]).proxy(far).journal(journal))
    };
    let (node, to) = gateway().await;
    let task = begin_text(to, FAR, "go").await;
    eventually("it works", || work.running() == 1).await;
    eventually("the gateway has heard of it", || node.agents().count() == 2).await;
    while get_task(to, FAR, &task).await["status"]["message"].is_null() {
        crate::support::pause(20).await;
    }
    node.stop().await;
    let (node, to) = gateway().await;
    assert_eq!(state(&get_task(to, FAR, &task).await), "TASK_STATE_WORKING");
    work.gate.add_permits(1);
    let done = ended(to, FAR, &task).await;
    assert_eq!((state(&done), output(&done)), ("TASK_STATE_COMPLETED", "done"));
    assert_eq!(work.begun(), ["b"], "it isn't begun a second time");
    node.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_gateway_that_stops_ends_what_it_has_there_unless_it_will_go_on_with_it() {
    let cluster = Cluster::new();
    let work = Work::new();
    let b = cluster.other("b", work.agent("b"), &[]).await;
    let gateway = |at: &Other| cluster.gateway(&[at]).drain_within(Duration::ZERO);
    let node = gateway(&b).proxy(ProxyAgent::new("far", "agent://b/worker"));
    let (node, to) = start(node).await;
    begin_text(to, FAR, "go").await;
    eventually("it works", || work.running() == 1).await;
    node.stop().await;
    eventually("it's cancelled there", || work.running() == 0).await;

    let again = |profile: &mut neuroflow::AgentProfile| profile.resumable = true;
    let far = ProxyAgent::new("far", "agent://b/worker").profile(again);
    let (node, to) = start(gateway(&b).proxy(far)).await;
    begin_text(to, FAR, "go").await;
    eventually("it works again", || work.begun().len() == 2).await;
    node.stop().await;
    assert_eq!(work.running(), 1, "it's left as it is");
    b.stop().await;

    // A node that is gone can't be told, and nobody waits for it longer than for one that is slow.
    let c = cluster.other("c", work.agent("c"), &[]).await;
    let node = cluster.gateway(&[&c]).proxy(ProxyAgent::new("far", "agent://c/worker"));
    let (node, to) = start(node).await;
    begin_text(to, FAR, "go").await;
    eventually("it works there", || work.begun().len() == 3).await;
    c.kill();
    crate::client::within(node.stop()).await;
}

#[tokio::test]
async fn what_cannot_be_offered_is_said_at_the_start() {
    let lonely = Node::builder().proxy(ProxyAgent::new("far", "agent://*/worker")).start().await;
    assert!(matches!(lonely, Err(BootError::Unlinked { agent }) if agent == "far"));
    let cluster = Cluster::new();
    let twice = cluster.gateway(&[]).proxy(ProxyAgent::new("echo", "agent://*/worker"));
    let twice = twice.start().await;
    assert!(matches!(twice, Err(BootError::Start(StartError::Taken { .. }))), "{twice:?}");
    let wrong = cluster.gateway(&[]).proxy(ProxyAgent::new("far", "worker")).start().await;
    assert!(matches!(wrong, Err(BootError::Target(_))));
}
