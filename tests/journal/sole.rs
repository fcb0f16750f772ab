//! Agents of which there's one in the cluster, or one per conversation, whatever becomes of their nodes.
//!
//! Long, because all share the cluster with a database that the first part makes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use neuroflow::actors::limits::SOLE_IDLE;
use neuroflow::actors::{
    ArchivedChange, ArchivedContent, BoundedAsk, LeaseError, Shard, TaskContext, ToolBounds,
};
use neuroflow::kernel::{Address, Down, Fall, Request};
use neuroflow::transport::{Authority, Links, LinksConfig, Trust};
use neuroflow::{
    Agent, AgentBuilder, AgentError, AgentProfile, Answer, AnyAgent, Ask, BootError, Clock, Header,
    Incoming, LeasesConfig, Node, NodeBuilder, ProxyAgent, SoleAgent, ToolError, Turn, tool,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::cluster::Cluster;
use crate::eventually::until;

/// How many instances of each conversation live, and how many ever have at once.
#[derive(Clone)]
struct Census {
    counts: Arc<Mutex<HashMap<String, (i64, i64)>>>,
    /// What a task waits for that was asked to.
    gate: Arc<tokio::sync::Semaphore>,
}

impl Default for Census {
    fn default() -> Self {
        Self { counts: Arc::default(), gate: Arc::new(tokio::sync::Semaphore::new(0)) }
    }
}

impl Census {
    fn add(&self, conversation: &str, change: i64) {
        let mut counts = self.counts.lock().expect("nobody panics here");
        let (living, most) = counts.entry(conversation.to_owned()).or_default();
        *living += change;
        *most = (*most).max(*living);
    }

    fn of(&self, conversation: &str) -> (i64, i64) {
        let counts = self.counts.lock().expect("nobody panics here");
        counts.get(conversation).copied().unwrap_or_default()
    }
}

/// Says on which node it lives, and how often it has been asked.
struct Counter {
    node: &'static str,
    name: &'static str,
    asked: AtomicU32,
    alive: Option<(Census, String)>,
}

impl Counter {
    fn new(node: &'static str, name: &'static str) -> Self {
        Self { node, name, asked: AtomicU32::new(0), alive: None }
    }

    fn of(node: &'static str, census: &Census, conversation: &str) -> Self {
        census.add(conversation, 1);
        let mut counter = Self::new(node, "counter");
        counter.alive = Some((census.clone(), conversation.to_owned()));
        counter
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        if let Some((census, conversation)) = &self.alive {
            census.add(conversation, -1);
        }
    }
}

impl Agent for Counter {
    fn profile(&self) -> AgentProfile {
        AgentProfile::new(self.name, "Counts.")
    }

    async fn run(&self, incoming: Incoming, _: TaskContext) -> Result<Answer, AgentError> {
        if let Some((census, _)) = self.alive.as_ref().filter(|_| incoming.text() == WAIT) {
            census.add(WAIT, 1);
            let _open = census.gate.acquire().await;
        }
        let asked = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        Ok(Answer::text(format!("{} {asked}", self.node)))
    }
}

/// What a task says that is to wait for the gate, and what those are counted by that do.
const WAIT: &str = "wait";

/// Long enough that a busy machine renews in time.
const TERM: Duration = Duration::from_secs(10);

struct World {
    authority: Authority,
    census: Census,
    /// Asks without an answer that were asked again: each may have been counted by an instance.
    again: AtomicU32,
}

impl World {
    fn new() -> Self {
        let authority = Authority::create("test", Clock::system().wall()).expect("an authority");
        Self { authority, census: Census::default(), again: AtomicU32::new(0) }
    }

    fn links(&self, name: &str) -> LinksConfig {
        let (hour, now) = (Duration::from_hours(1), Clock::system().wall());
        let credential = self.authority.issue(name, &[], hour, now).expect("a certificate");
        let trust = Trust::from_pem(self.authority.certificate_pem()).expect("an authority");
        LinksConfig::new("127.0.0.1:0".parse().expect("an address"), credential, trust)
    }

    /// A node that may have the ledger, and counters.
    async fn node(&self, name: &'static str, url: &str, seed: Option<&Node>) -> Node {
        self.node_idle(name, url, seed, SOLE_IDLE).await
    }

    /// The same, whose counters end when they have been idle for this time.
    async fn node_idle(
        &self,
        name: &'static str,
        url: &str,
        seed: Option<&Node>,
        idle: Duration,
    ) -> Node {
        self.builder(name, url, seed, idle).start().await.expect("it starts")
    }

    fn builder(
        &self,
        name: &'static str,
        url: &str,
        seed: Option<&Node>,
        idle: Duration,
    ) -> NodeBuilder {
        let census = self.census.clone();
        let counters = SoleAgent::sharded(AnyAgent::new(Counter::new(name, "counter"))).idle(idle);
        let counters =
            counters.made_by(move |shard| AnyAgent::new(Counter::of(name, &census, talk(shard))));
        let seed = seed.and_then(|seed| seed.links()?.local_address());
        let links = seed.into_iter().fold(self.links(name), LinksConfig::seed);
        Node::builder()
            .cluster(links)
            .leases(LeasesConfig::new(url).term(TERM))
            .sole(SoleAgent::singleton(AnyAgent::new(Counter::new(name, "ledger"))))
            .sole(counters)
    }

    async fn three(&self, url: &str) -> [Node; 3] {
        let a = self.node("a", url, None).await;
        let b = self.node("b", url, Some(&a)).await;
        let c = self.node("c", url, Some(&a)).await;
        for node in [&a, &b, &c] {
            until(|| links_up(node) == 2).await;
        }
        [a, b, c]
    }

    /// The node that answers, and the how manieth request this is to the instance there.
    async fn ask(&self, node: &Node, target: &str, conversation: Option<&str>) -> (String, u32) {
        let clock = node.kernel().clock().clone();
        let at = clock.now() + Duration::from_mins(2);
        loop {
            let ask = Ask::new(Turn::user("?"));
            let ask = conversation.into_iter().fold(ask, Ask::in_context);
            // What was lost with a node is asked again: this test is about who answers.
            if let Ok(outcome) = node.ask_with(target, ask, Header::new().until(at)).await
                && let Some((node, number)) = outcome.text().split_once(' ')
            {
                return (node.to_owned(), number.parse().expect("a number"));
            }
            self.again.fetch_add(1, Ordering::SeqCst);
            assert!(clock.now() < at, "nobody answers");
            clock.sleep(Duration::from_millis(50)).await;
        }
    }

    /// The node that answers, when this is the how manieth request to the instance there.
    async fn ask_nth(
        &self,
        nth: u32,
        node: &Node,
        target: &str,
        conversation: Option<&str>,
    ) -> String {
        let (at, told) = self.ask(node, target, conversation).await;
        let most = nth + self.again.load(Ordering::SeqCst);
        assert!((nth..=most).contains(&told), "{told} instead of {nth}: {target} {conversation:?}");
        at
    }
}

fn talk(shard: &Shard) -> &str {
    shard.conversation.as_deref().expect("there is one for each")
}

fn links_up(node: &Node) -> usize {
    let status = node.links().map(Links::status).unwrap_or_default();
    status.iter().filter(|link| link.state == neuroflow::transport::LinkState::Up).count()
}

/// Watches over the ledger from these nodes, by every name that it has there: once all of them stand, which is a
/// call to the node that has it for each.
async fn watch(nodes: &[Node], holder: &Node) -> JoinSet<Down> {
    let mut watches = JoinSet::new();
    for node in nodes {
        let links = node.links().expect("links");
        let own = format!("agent://{}/ledger", links.name());
        let holders = format!("agent://{}/ledger", holder.links().expect("links").name());
        for target in ["agent://*/ledger", &own, &holders] {
            watches.spawn(node.resolve(target).expect("it's offered").down());
        }
    }
    let holder = holder.links().expect("links").id();
    let stand = |node: &Node| {
        let status = node.links().map(Links::status).unwrap_or_default();
        status.iter().find(|link| link.node == holder).map_or(0, |link| link.open_calls)
    };
    until(|| nodes.iter().map(stand).sum::<usize>() == watches.len()).await;
    watches
}

/// What `future` gives, within a time that no quiet machine needs.
async fn soon<F: Future>(future: F) -> F::Output {
    let clock = Clock::system();
    clock.before(clock.now() + Duration::from_mins(1), future).await.expect("it didn't happen")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_singleton_is_found_from_everywhere_and_lives_on_when_its_node_dies() {
    let database = Cluster::start();
    let world = World::new();
    let mut nodes: Vec<Node> = world.three(&database.url()).await.into();
    let mut number = 0;
    let (first, _) = world.ask(&nodes[0], "ledger", None).await;
    for node in &nodes {
        for target in ["ledger", "agent://*/ledger", "agent://b/ledger"] {
            let (at, told) = world.ask(node, target, Some("any")).await;
            assert_eq!(at, first, "{target}");
            assert!(told > number, "one instance counts");
            number = told;
        }
    }
    // Who watches it is told of the instance's end, by whatever name and through whatever node.
    let name = |node: &Node| node.links().map(|links| links.name().to_string());
    let at = nodes.iter().position(|node| name(node).as_ref() == Some(&first));
    let holder = nodes.remove(at.expect("it's one of them"));
    let mut watches = watch(&nodes, &holder).await;
    world.ask(&nodes[0], "ledger", None).await;
    assert!(watches.try_join_next().is_none(), "it lives");
    // Killed, it gives nothing back: its term has to end.
    drop(holder);
    while let Some(down) = soon(watches.join_next()).await {
        // Its node may say so in its last moment.
        let fall = down.expect("it waits").fall;
        assert!(matches!(fall, Fall::Killed | Fall::Lost), "{fall:?}");
    }
    let second = world.ask_nth(1, &nodes[0], "ledger", None).await;
    assert_ne!(second, first);
    let at = nodes.iter().position(|node| name(node).as_ref() == Some(&second));
    let holder = nodes.remove(at.expect("it's one of them"));
    let mut watches = watch(&nodes, &holder).await;
    assert_eq!(world.ask_nth(2, &nodes[0], "ledger", None).await, second);
    assert!(watches.try_join_next().is_none(), "it lives");
    // Stopped, it does.
    holder.stop().await;
    while let Some(down) = soon(watches.join_next()).await {
        let fall = down.expect("it waits").fall;
        assert!(matches!(fall, Fall::Stopped | Fall::Killed | Fall::Lost), "{fall:?}");
    }
    let third = world.ask_nth(1, &nodes[0], "agent://*/ledger", None).await;
    assert_ne!(third, second);
    nodes.remove(0).stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_has_one_instance_wherever_it_is_asked_from() {
    let database = Cluster::start();
    let world = World::new();
    let mut nodes: Vec<Node> = world.three(&database.url()).await.into();
    let conversations: Vec<String> = (0..8).map(|number| format!("talk / {number}")).collect();
    let mut lives: HashMap<String, Vec<&String>> = HashMap::new();
    for conversation in &conversations {
        let talk = Some(conversation.as_str());
        let first = world.ask_nth(1, &nodes[0], "agent://*/counter", talk).await;
        // By the placement, by the own node, and by one that it may not live on.
        let ways = [(1, "agent://*/counter"), (2, "counter"), (0, "agent://b/counter")];
        for (number, (node, target)) in ways.into_iter().enumerate() {
            let expected = u32::try_from(number).expect("a few") + 2;
            let at = world.ask_nth(expected, &nodes[node], target, talk).await;
            assert_eq!(at, first, "{target} {conversation}");
        }
        lives.entry(first).or_default().push(conversation);
    }
    assert!(lives.len() > 1, "8 conversations live on more nodes than one: {lives:?}");
    // One without a name has one from its first request on, and so an instance.
    world.ask_nth(1, &nodes[0], "agent://*/counter", None).await;
    // The conversations of a node that dies begin anew elsewhere when they are asked; the others don't.
    let victim = nodes.remove(1);
    let gone = lives.remove("b").unwrap_or_default();
    drop(victim);
    // Until then it may still answer.
    for node in &nodes {
        until(|| links_up(node) == 1).await;
    }
    for conversation in gone {
        let talk = Some(conversation.as_str());
        let next = world.ask_nth(1, &nodes[0], "agent://*/counter", talk).await;
        assert_ne!(next, "b", "{conversation}");
        assert_eq!(world.ask_nth(2, &nodes[1], "counter", talk).await, next);
    }
    for (node, conversations) in lives {
        for conversation in conversations {
            let at = world.ask_nth(5, &nodes[0], "agent://*/counter", Some(conversation)).await;
            assert_eq!(at, node, "{conversation}");
        }
    }
    for conversation in &conversations {
        assert_eq!(world.census.of(conversation).1, 1, "never two of {conversation}");
    }
    for node in nodes {
        node.stop().await;
    }
    until(|| conversations.iter().all(|it| world.census.of(it).0 == 0)).await;
}

/// A node that may have none of them offers them under names of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_offers_them_as_its_own_and_finds_them_again_when_a_node_dies() {
    let database = Cluster::start();
    let world = World::new();
    let mut nodes: Vec<Node> = world.three(&database.url()).await.into();
    let seed = nodes[0].links().and_then(Links::local_address).expect("an address");
    let gateway = Node::builder()
        .cluster(world.links("gateway").seed(seed))
        .proxy(ProxyAgent::new("books", "agent://*/ledger"))
        .proxy(ProxyAgent::new("talks", "agent://*/counter"));
    let gateway = gateway.start().await.expect("it starts");
    until(|| links_up(&gateway) == 3).await;
    let first = world.ask_nth(1, &gateway, "books", None).await;
    let conversations: Vec<String> = (0..6).map(|number| format!("talk / {number}")).collect();
    let mut lives = HashMap::new();
    for (nth, conversation) in (2..).zip(&conversations) {
        let talk = Some(conversation.as_str());
        // Each conversation leads to a node of its own, and from there to the only instance.
        assert_eq!(world.ask_nth(nth, &gateway, "books", talk).await, first);
        let at = world.ask_nth(1, &gateway, "talks", talk).await;
        assert_eq!(world.ask_nth(2, &nodes[0], "agent://*/counter", talk).await, at);
        assert_eq!(world.ask_nth(3, &gateway, "talks", talk).await, at);
        lives.insert(conversation, at);
    }
    let name = |node: &Node| node.links().map(|links| links.name().to_string());
    let at = nodes.iter().position(|node| name(node).as_ref() == Some(&first));
    drop(nodes.remove(at.expect("it's one of them")));
    until(|| links_up(&gateway) == 2).await;
    for (nth, conversation) in (1..).zip(&conversations) {
        let talk = Some(conversation.as_str());
        assert_ne!(world.ask_nth(nth, &gateway, "books", talk).await, first);
        let lived_there = lives[conversation] == first;
        let nth = if lived_there { 1 } else { 4 };
        let at = world.ask_nth(nth, &gateway, "talks", talk).await;
        assert_eq!(at == lives[conversation], !lived_there, "{conversation}");
        assert_eq!(world.census.of(conversation).1, 1, "never two of {conversation}");
    }
    gateway.stop().await;
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_shut_out_loses_what_it_holds_though_it_runs_on() {
    let database = Cluster::start();
    let world = World::new();
    let mut nodes: Vec<Node> = world.three(&database.url()).await.into();
    let (first, _) = world.ask(&nodes[0], "agent://*/ledger", None).await;
    let conversation = {
        let mut found = None;
        for number in 0..64 {
            let talk = format!("talk {number}");
            if world.ask(&nodes[0], "agent://*/counter", Some(&talk)).await.0 == first {
                found = Some(talk);
                break;
            }
        }
        found.expect("the node has one of 64")
    };
    let name = |node: &Node| node.links().map(|links| links.name().to_string());
    let at = nodes.iter().position(|node| name(node).as_ref() == Some(&first));
    let bad = nodes.remove(at.expect("it's one of them"));
    let id = bad.links().expect("links").id();
    for node in &nodes {
        node.links().expect("links").revoke(id);
    }
    for (target, talk) in
        [("agent://*/ledger", None), ("agent://*/counter", Some(conversation.as_str()))]
    {
        let (now, told) = world.ask(&nodes[0], target, talk).await;
        assert_ne!(now, first, "{target} is answered by who may");
        assert!(told >= 1);
        assert_eq!(world.ask(&nodes[1], target, talk).await.0, now, "and found there");
    }
    // It hears of that at its next try to keep the key.
    until(|| world.census.of(&conversation).0 == 1).await;
    bad.stop().await;
    for node in nodes {
        node.stop().await;
    }
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Nothing {}

/// Answers.
#[tool]
async fn one(_: Nothing) -> Result<(), ToolError> {
    Ok(())
}

/// Answers, too.
#[tool]
async fn other(_: Nothing) -> Result<(), ToolError> {
    Ok(())
}

/// Which of its tools it may use.
fn handy() -> AnyAgent {
    let agent = AgentBuilder::new("handy", "Uses tools.").tool(one).tool(other);
    agent.on_ask(|_, context| async move {
        let mut may = Vec::new();
        for tool in ["one", "other"] {
            may.extend(context.call(tool, serde_json::json!({})).await.is_ok().then_some(tool));
        }
        Ok(Answer::text(may.join(" and ")))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_be_used_for_a_request_is_known_wherever_the_instance_lives() {
    let database = Cluster::start();
    let world = World::new();
    let start = async |name: &str, agent: SoleAgent, seed: Option<&Node>| {
        let seed = seed.and_then(|seed| seed.links()?.local_address());
        let links = seed.into_iter().fold(world.links(name), LinksConfig::seed);
        let leases = LeasesConfig::new(database.url()).term(TERM);
        Node::builder().cluster(links).leases(leases).sole(agent).start().await.expect("it starts")
    };
    for agent in [SoleAgent::singleton(handy()), SoleAgent::sharded(handy())] {
        let a = start("a", agent.clone(), None).await;
        let b = start("b", agent, Some(&a)).await;
        until(|| links_up(&a) == 1 && links_up(&b) == 1).await;
        for (nth, node) in [&a, &b, &a, &b].into_iter().enumerate() {
            let bounds = ToolBounds { tools: vec!["other".into()], levels: Vec::new() };
            let ask = Ask::new(Turn::user("go")).in_context(format!("talk {}", nth / 2));
            assert_eq!(
                bounded(node, "agent://a/handy", &BoundedAsk { ask, bounds }).await,
                "other"
            );
            let whole = node.ask("agent://b/handy", "go").await.expect("it answers");
            assert_eq!(whole.text(), "one and other");
        }
        a.stop().await;
        b.stop().await;
    }
}

async fn bounded(node: &Node, target: &str, asked: &BoundedAsk) -> String {
    let links = node.links().expect("it has links");
    let far: Address<Request<BoundedAsk>> = links.resolve(target).expect("an address");
    let mut events = far.ask(Header::new(), asked).await.expect("it's taken");
    let mut text = String::new();
    while let Some(event) = events.next().await {
        let event = event.expect("it's whole");
        let ArchivedChange::Artifact { artifact, .. } = &event.get().change else { continue };
        for part in artifact.parts.iter() {
            if let ArchivedContent::Text(told) = &part.content {
                text.push_str(told);
            }
        }
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_whose_lease_cannot_be_kept_ends_and_comes_back() {
    let mut database = Cluster::start();
    let world = World::new();
    let node = world.node("a", &database.url(), None).await;
    world.ask_nth(1, &node, "counter", Some("one")).await;
    assert_eq!(world.census.of("one"), (1, 1));
    database.halt();
    until(|| world.census.of("one").0 == 0).await;
    let header = Header::new().within(node.kernel().clock(), Duration::from_secs(1));
    let ask_now = Ask::new(Turn::user("?")).in_context("one");
    let refused = node.ask_with("counter", ask_now, header).await;
    assert!(refused.is_err(), "nobody may answer: {refused:?}");
    database.resume();
    // Another instance, which counts anew.
    world.ask_nth(1, &node, "counter", Some("one")).await;
    assert_eq!(world.census.of("one"), (1, 1));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_nobody_asks_ends_unless_it_has_a_task_and_begins_anew() {
    let database = Cluster::start();
    let world = World::new();
    let idle = Duration::from_millis(500);
    let node = world.node_idle("a", &database.url(), None, idle).await;
    let held = || {
        let held = "SELECT count(*) FROM neuroflow_lease
                    WHERE key LIKE 'agent/counter/%' AND expires > now()";
        database.query(held).expect("asked")
    };
    let busy = async {
        let header = Header::new().within(node.kernel().clock(), Duration::from_mins(3));
        let ask = Ask::new(Turn::user(WAIT)).in_context("busy");
        node.ask_with("counter", ask, header).await
    };
    let others = async {
        until(|| world.census.of("busy").0 == 1).await;
        world.ask_nth(1, &node, "counter", Some("quiet")).await;
        assert_eq!(world.census.of("quiet"), (1, 1));
        // It's looked for once in a term; its key is given back, and the other one's isn't.
        until(|| world.census.of("quiet").0 == 0).await;
        until(|| held() == "1").await;
        assert_eq!(world.census.of("busy"), (1, 1));
        // Another one, which counts anew.
        world.ask_nth(1, &node, "counter", Some("quiet")).await;
        assert_eq!(world.census.of("quiet"), (1, 1));
        world.census.gate.close();
    };
    let (answer, ()) = tokio::join!(busy, others);
    assert_eq!(answer.expect("the task wasn't ended").text(), "a 1");
    until(|| world.census.of("busy").0 == 0 && world.census.of("quiet").0 == 0).await;
    until(|| held() == "0").await;
    node.stop().await;
}

/// Takes no key back as long as there is a row in this table.
const SLOW_RETURNS: &str = "
    CREATE TABLE closed (since timestamptz);
    INSERT INTO closed VALUES (now());
    CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        WHILE NEW.expires <= now() AND EXISTS (SELECT FROM closed) LOOP
            PERFORM pg_sleep(0.02);
        END LOOP;
        RETURN NEW;
    END $$;
    CREATE TRIGGER slow BEFORE UPDATE ON neuroflow_lease FOR EACH ROW EXECUTE FUNCTION slow()";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conversations_that_ended_while_keys_were_given_back_slowly_live_again_when_they_are_asked()
{
    let database = Cluster::start();
    let world = World::new();
    let idle = Duration::from_millis(500);
    let node = world.node_idle("a", &database.url(), None, idle).await;
    database.query(SLOW_RETURNS).expect("it's slow from now on");
    // More than end one after another while a supervisor is waited for.
    let talks: Vec<String> = (0..10).map(|number| format!("talk / {number}")).collect();
    let within = |time| Header::new().within(node.kernel().clock(), time);
    let busy = async {
        let ask = Ask::new(Turn::user(WAIT)).in_context("live");
        node.ask_with("counter", ask, within(Duration::from_mins(5))).await
    };
    let others = async {
        until(|| world.census.of("live").0 == 1).await;
        let asks = talks.iter().map(|talk| world.ask_nth(1, &node, "counter", Some(talk)));
        futures_util::future::join_all(asks).await;
        until(|| talks.iter().all(|talk| world.census.of(talk).0 == 0)).await;
        let again = async {
            let asks = talks.iter().map(|talk| world.ask_nth(1, &node, "counter", Some(talk)));
            futures_util::future::join_all(asks).await;
        };
        let meanwhile = async {
            // One that lives doesn't wait for those that end.
            let ask = Ask::new(Turn::user("?")).in_context("live");
            let answer = node.ask_with("counter", ask, within(Duration::from_secs(10))).await;
            assert_eq!(answer.expect("it answers").text(), "a 1");
            database.query("DELETE FROM closed").expect("it's quick again");
        };
        tokio::join!(again, meanwhile);
        for talk in &talks {
            assert_eq!(world.census.of(talk).1, 1, "never two of {talk}");
        }
        world.census.gate.close();
    };
    let (answer, ()) = tokio::join!(busy, others);
    assert_eq!(answer.expect("its lease was kept").text(), "a 2");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_that_fails_takes_no_other_with_it_and_is_tried_until_it_lives() {
    let database = Cluster::start();
    let world = World::new();
    // More often than a supervisor restarts.
    let failures = Arc::new(AtomicU32::new(6));
    let (left, census) = (Arc::clone(&failures), world.census.clone());
    let counters = SoleAgent::sharded(AnyAgent::new(Counter::new("a", "counter")));
    let counters = counters.made_by(move |shard| {
        let conversation = talk(shard);
        let less = |failures: u32| failures.checked_sub(1);
        let fails = conversation == "bad"
            && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok();
        assert!(!fails, "it's told to fail");
        AnyAgent::new(Counter::of("a", &census, conversation))
    });
    let leases = LeasesConfig::new(database.url()).term(TERM);
    let node = Node::builder().cluster(world.links("a")).leases(leases).sole(counters);
    let node = node.start().await.expect("it starts");
    world.ask_nth(1, &node, "counter", Some("good")).await;
    world.ask_nth(1, &node, "counter", Some("bad")).await;
    assert_eq!(failures.load(Ordering::SeqCst), 0);
    world.ask_nth(2, &node, "counter", Some("good")).await;
    for conversation in ["good", "bad"] {
        assert_eq!(world.census.of(conversation), (1, 1), "{conversation}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_of_one_caller_is_no_other_ones() {
    let database = Cluster::start();
    let world = World::new();
    let node = world.node("a", &database.url(), None).await;
    let asked = async |caller: &str| {
        let mut ask = Ask::new(Turn::user("?")).in_context("planning");
        ask.caller = Some(caller.to_owned());
        let outcome = node.ask_with("counter", ask, Header::new()).await.expect("it's answered");
        assert_eq!(outcome.context(), "planning", "it's called as its caller calls it");
        outcome.text()
    };
    assert_eq!(asked("alice").await, "a 1");
    assert_eq!(asked("bob").await, "a 1");
    assert_eq!(asked("alice").await, "a 2");
    assert_eq!(world.census.of("planning"), (2, 2));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_conversations_make_room_for_new_ones() {
    const MOST: usize = 3;
    let database = Cluster::start();
    let world = World::new();
    let census = world.census.clone();
    let counters = SoleAgent::sharded(AnyAgent::new(Counter::new("a", "counter"))).most(MOST);
    let counters =
        counters.made_by(move |shard| AnyAgent::new(Counter::of("a", &census, talk(shard))));
    let leases = LeasesConfig::new(database.url()).term(TERM);
    let node = Node::builder().cluster(world.links("a")).leases(leases).sole(counters);
    let node = node.start().await.expect("it starts");
    let busy = async {
        let ask = Ask::new(Turn::user(WAIT)).in_context("busy");
        node.ask_with("counter", ask, Header::new()).await.expect("it's answered").text()
    };
    let others = async {
        until(|| world.census.of(WAIT).0 == 1).await;
        let names: Vec<String> = (0..MOST * 2).map(|nth| format!("talk {nth}")).collect();
        for name in &names {
            world.ask_nth(1, &node, "counter", Some(name)).await;
            let living = names.iter().map(|name| world.census.of(name).0).sum::<i64>();
            assert!(living < i64::try_from(MOST).expect("a few"), "{living} beside the busy one");
        }
        world.census.gate.close();
    };
    assert_eq!(tokio::join!(busy, others).0, "a 1", "what is at work stays");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_singleton_whose_journal_cannot_be_read_for_a_while_comes_back() {
    let database = Cluster::start();
    let world = World::new();
    let node = Node::builder()
        .cluster(world.links("a"))
        .journal(database.config("a"))
        .leases(LeasesConfig::new(database.url()).term(TERM))
        .sole(SoleAgent::singleton(AnyAgent::new(Counter::new("a", "ledger"))));
    let node = node.start().await.expect("it starts");
    world.ask_nth(1, &node, "ledger", None).await;
    database.query("ALTER TABLE neuroflow_task RENAME TO elsewhere").expect("renamed");
    database.query("UPDATE neuroflow_lease SET expires = now()").expect("taken away");
    let failed = || {
        let dead = node.kernel().post_mortems();
        dead.iter().filter(|dead| dead.path.as_str().ends_with("/instance")).count()
    };
    // More often than a supervisor restarts.
    until(|| failed() > 5).await;
    let held = "SELECT count(*) FROM neuroflow_lease WHERE expires > now()";
    until(|| database.query(held).as_deref() == Some("0")).await;
    database.query("ALTER TABLE elsewhere RENAME TO neuroflow_task").expect("renamed");
    // Another instance, of the same agent.
    world.ask_nth(2, &node, "ledger", None).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_drains_takes_no_key_and_leads_to_one_that_does() {
    let database = Cluster::start();
    let world = World::new();
    let a = world.node("a", &database.url(), None).await;
    world.ask_nth(1, &a, "ledger", None).await;
    let b = world.node("b", &database.url(), Some(&a)).await;
    until(|| links_up(&b) == 1).await;
    let drains = |on| b.links().expect("links").set_draining(on);
    drains(true);
    drop(a);
    // For longer than it takes to get a key that could be had.
    let free = "SELECT count(*) FROM neuroflow_lease WHERE expires < now() - interval '5 s'";
    until(|| database.query(free).as_deref() == Some("1")).await;
    let asks = async {
        let ledger = world.ask_nth(1, &b, "ledger", None).await;
        (ledger, world.ask_nth(1, &b, "counter", Some("talk")).await)
    };
    let (url, next) = (database.url(), "c");
    let ((ledger, talk), c) = tokio::join!(asks, world.node(next, &url, Some(&b)));
    assert_eq!((ledger.as_str(), talk.as_str()), (next, next));
    assert_eq!(world.ask_nth(2, &b, "agent://b/counter", Some("talk")).await, next);
    drains(false);
    c.stop().await;
    assert_eq!(world.ask_nth(1, &b, "ledger", None).await, "b");
    b.stop().await;
}

/// One request, and what comes of it until the connection is closed.
async fn post(to: std::net::SocketAddr, path: &str) -> String {
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":{"message":
        {"messageId":"m","role":"ROLE_USER","parts":[{"text":"go"}]}}}"#;
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: {to}\r\ncontent-type: application/json\r\na2a-version: 1.0\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(to).await.expect("a connection");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_lets_go_of_what_is_idle_while_it_brings_the_rest_to_its_end() {
    let database = Cluster::start();
    let (url, world) = (database.url(), World::new());
    let census = world.census.clone();
    let slow = AgentBuilder::new("slow", "Takes its time.").on_ask(move |_, _| {
        let census = census.clone();
        async move {
            census.add("slow", 1);
            let _open = census.gate.acquire().await;
            Ok(Answer::text("at last"))
        }
    });
    let a = world.builder("a", &url, None, SOLE_IDLE).agent(slow);
    let a = a.gateway(std::net::SocketAddr::from(([127, 0, 0, 1], 0)));
    let a = a.drain_within(Duration::from_mins(5)).start().await.expect("it starts");
    world.ask_nth(1, &a, "ledger", None).await;
    for talk in ["idle", "busy"] {
        world.ask_nth(1, &a, "counter", Some(talk)).await;
    }
    let b = world.node("b", &url, Some(&a)).await;
    let c = world.node("c", &url, Some(&a)).await;
    until(|| links_up(&b) == 2 && links_up(&c) == 2).await;
    let gateway = a.gateway().expect("a gateway");
    let request = post(gateway, "/agents/slow");
    let busy = async {
        let header = Header::new().within(b.kernel().clock(), Duration::from_mins(5));
        let ask = Ask::new(Turn::user(WAIT)).in_context("busy");
        b.ask_with("counter", ask, header).await
    };
    let begun = async || {
        until(|| world.census.of("slow").0 == 1 && world.census.of(WAIT).0 == 1).await;
    };
    let stop = async {
        begun().await;
        a.stop().await;
    };
    let others = async {
        begun().await;
        // As long as others haven't heard of its farewell, it may still answer.
        while world.ask(&b, "ledger", None).await.0 == "a" {}
        while world.ask(&c, "counter", Some("idle")).await.0 == "a" {}
        assert_eq!(world.census.of("busy").0, 1, "a task isn't ended for it");
        // Until now it couldn't stop.
        world.census.gate.close();
    };
    let (answer, told, (), ()) = tokio::join!(request, busy, stop, others);
    assert!(answer.contains("at last"), "{answer}");
    assert_eq!(told.expect("it's answered").text(), "a 2");
    assert_eq!(world.census.of("idle").1, 1, "never two");
    b.stop().await;
    c.stop().await;
}

#[tokio::test]
async fn without_leases_or_a_cluster_it_says_so() {
    let world = World::new();
    let ledger = || SoleAgent::singleton(AnyAgent::new(Counter::new("a", "ledger")));
    let unconfigured = Node::builder().cluster(world.links("a")).sole(ledger()).start().await;
    assert!(
        matches!(unconfigured, Err(BootError::Leases(LeaseError::Unconfigured))),
        "{unconfigured:?}"
    );
    let alone = Node::builder().leases(LeasesConfig::new("postgres:///none")).sole(ledger());
    let alone = alone.start().await;
    assert!(matches!(alone, Err(BootError::Alone { ref agent }) if agent == "ledger"), "{alone:?}");
}
