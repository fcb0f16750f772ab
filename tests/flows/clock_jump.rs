//! The wall clock is set forward and back under a node, and over its restart: no task is lost, what waits
//! goes by moments, what ends by the wall ends, and events keep their order.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use neuroflow::actors::limits::{CREDENTIAL_LOOK, RETENTION_SWEEP};
use neuroflow::actors::{
    AccessConfig, FreshToken, JournalConfig, JournalPlace, RulesSource, TokenName,
};
use neuroflow::{AgentBuilder, Answer, ManualClock, Node, NodeBuilder, Turn};
use serde_json::{Value, json};

use crate::access::{Files, call, token};
use crate::client::{Connection, Events, message, post, request, task_of};
use crate::protocol::{Binding, Peer};
use crate::support::{loopback, pause, start, state};

const HOUR: Duration = Duration::from_hours(1);

/// An agent that asks its client back, and one that takes its time.
fn node(time: &ManualClock, files: &Files, access: AccessConfig) -> NodeBuilder {
    let curious = AgentBuilder::new("curious", "Asks back.")
        .profile(|profile| profile.resumable = true)
        .on_ask(|ask, context| async move {
            let colour = context.ask_user(Turn::agent("Which colour?")).await?;
            Ok(Answer::text(format!("{} {}", ask.text(), colour.text())))
        });
    let slow = AgentBuilder::new("slow", "Is at it.")
        .profile(|profile| profile.task_deadline = 2 * HOUR)
        .on_ask(|_, context| async move {
            context.say("at it").await?;
            std::future::pending::<()>().await;
            Ok(Answer::text("never"))
        });
    let journal = JournalConfig::new(JournalPlace::Directory(files.path().join("journal")));
    let node = Node::builder().agent(curious).agent(slow).gateway(loopback());
    node.access(access).journal(journal).clock(time.clock())
}

fn access(files: &Files, tokens: &[&FreshToken]) -> AccessConfig {
    let lines: Vec<&str> = tokens.iter().map(|token| token.line()).collect();
    let mut access = AccessConfig::default();
    access.tokens = Some(files.write("tokens", &lines.join("\n")));
    let all = "permit(principal, action, resource);";
    access.rules = RulesSource::File(files.write("policy", all));
    access
}

/// A client by a token.
#[derive(Clone, Copy)]
struct Client<'a> {
    to: SocketAddr,
    token: &'a FreshToken,
}

impl Client<'_> {
    async fn call(&self, method: &str, params: Value) -> Value {
        call(self.to, "/", Some(self.token.secret()), method, params).await.json()
    }

    /// Begins a task, or goes on with one.
    async fn say(&self, task: Option<&str>, text: &str) -> Value {
        let mut params = message(json!([{ "text": text }]));
        if let Some(task) = task {
            params["message"]["taskId"] = json!(task);
        }
        task_of(self.call("SendMessage", params).await)
    }

    async fn get(&self, task: &str) -> Value {
        let mut answer = self.call("GetTask", json!({ "id": task })).await;
        assert!(answer.get("error").is_none(), "{answer}");
        answer["result"].take()
    }

    /// The updates of a task after one of them.
    async fn follow(&self, task: &str, after: Option<u64>) -> Events {
        let bearer = format!("Bearer {}", self.token.secret());
        let after = after.map(|after| after.to_string());
        let mut headers = vec![("authorization", bearer.as_str())];
        headers.extend(after.as_deref().map(|after| ("last-event-id", after)));
        let request = post("/", &headers, &request("SubscribeToTask", json!({ "id": task })));
        let events = Connection::open(self.to).await.events(&request).await;
        events.unwrap_or_else(|refused| panic!("{}", refused.text()))
    }

    /// The ids of all tasks, one page with one of them after the other.
    async fn listed(&self) -> Vec<String> {
        let (mut ids, mut page) = (Vec::new(), String::new());
        loop {
            let params = json!({ "pageSize": 1, "pageToken": page });
            let answer = self.call("ListTasks", params).await;
            let tasks = answer["result"]["tasks"].as_array().unwrap_or_else(|| panic!("{answer}"));
            ids.extend(tasks.iter().map(id));
            answer["result"]["nextPageToken"].as_str().unwrap_or_default().clone_into(&mut page);
            if page.is_empty() {
                return ids;
            }
        }
    }
}

fn id(task: &Value) -> String {
    task["id"].as_str().expect("an id").to_owned()
}

fn sorted<const N: usize>(ids: [&str; N]) -> Vec<String> {
    let mut ids = ids.map(str::to_owned).to_vec();
    ids.sort();
    ids
}

/// The numbers of events, and the times that they say.
fn numbers_and_times(events: &[(Option<u64>, Value)]) -> (Vec<u64>, Vec<String>) {
    let numbers = events.iter().map(|(number, _)| number.expect("a number")).collect();
    let times = events.iter().filter_map(|(_, event)| {
        let mut kinds = ["task", "statusUpdate"].iter();
        kinds.find_map(|kind| event["result"][kind]["status"]["timestamp"].as_str())
    });
    let times = times.map(str::to_owned);
    (numbers, times.collect())
}

#[tokio::test]
async fn a_clock_set_forward_ends_credentials_and_nothing_else() {
    let (files, time) = (Files::fresh(), ManualClock::new());
    let name = TokenName::new("brief").expect("a name");
    let ends = SystemTime::UNIX_EPOCH + ManualClock::WALL_ORIGIN + HOUR;
    let brief = FreshToken::generate(&name, &[], Some(ends)).expect("randomness");
    let lasting = token("lasting", &[]);
    let node = node(&time, &files, access(&files, &[&brief, &lasting]));
    let (node, to) = start(node).await;
    let client = Client { to, token: &lasting };
    let done = id(&client.say(None, "tea").await);
    client.say(Some(&done), "green").await;
    let done = client.get(&done).await;
    assert_eq!(state(&done), "TASK_STATE_COMPLETED");
    let waiting = id(&client.say(None, "coffee").await);
    let mut others = client.follow(&waiting, None).await;
    let mut streams = Vec::new();
    for binding in Binding::ALL {
        let bearer = format!("Bearer {}", brief.secret());
        let peer = Peer::new(binding, to, Some("slow")).with("authorization", &bearer);
        let params = message(json!([{ "text": "begin" }]));
        let mut stream = peer.stream("SendStreamingMessage", params).await.expect("a stream");
        let first = stream.next().await.expect("the task");
        let at_it = stream.next().await.expect("an update");
        assert_eq!(at_it["statusUpdate"]["status"]["state"], "TASK_STATE_WORKING", "{at_it}");
        streams.push((id(&first["task"]), stream));
    }

    time.set_wall(time.clock().wall() + 6 * HOUR);
    // A request with a token that has ended by the wall isn't taken, and a stream with one ends.
    let refused = call(to, "/", Some(brief.secret()), "ListTasks", json!({})).await;
    assert_eq!(refused.status, 401, "{}", refused.text());
    time.advance(CREDENTIAL_LOOK);
    let supervisor = Peer::new(Binding::Rpc, to, Some("slow"))
        .with("authorization", &format!("Bearer {}", lasting.secret()));
    let at = |task: &str| json!({ "id": task });
    for (task, stream) in &mut streams {
        assert_eq!(stream.fault().await.reason, "UNAUTHENTICATED");
        // Six hours have passed by the wall, and the deadline of two isn't there.
        let task = supervisor.call("GetTask", at(task)).await.expect("the task");
        assert_eq!(state(&task), "TASK_STATE_WORKING", "{task}");
    }
    // What has ended stays, what waits goes on.
    for _ in 0..3 {
        time.advance(RETENTION_SWEEP);
        assert_eq!(client.get(id(&done).as_str()).await, done);
    }
    let ended = client.say(Some(&waiting), "black").await;
    assert_eq!(state(&ended), "TASK_STATE_COMPLETED", "{ended}");
    let (numbers, times) = numbers_and_times(&others.rest().await);
    assert!(numbers.is_sorted_by(|one, next| one < next) && numbers.len() > 2, "{numbers:?}");
    assert!(times.is_sorted() && times.first() != times.last(), "{times:?}");

    time.advance(2 * HOUR);
    for (task, _) in &streams {
        let mut found = json!({});
        for _ in 0..1_000 {
            found = supervisor.call("GetTask", at(task)).await.expect("the task");
            if found["status"]["state"] == "TASK_STATE_FAILED" {
                break;
            }
            pause(20).await;
        }
        assert_eq!(state(&found), "TASK_STATE_FAILED", "{found}");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_clock_set_back_loses_no_task_and_no_order_over_a_restart_too() {
    let files = Files::fresh();
    let lasting = token("lasting", &[]);
    let time = ManualClock::new();
    let (first, to) = start(node(&time, &files, access(&files, &[&lasting]))).await;
    let client = Client { to, token: &lasting };
    let before = id(&client.say(None, "tea").await);
    let mut stream = client.follow(&before, None).await;

    time.set_wall(time.clock().wall() - 6 * HOUR);
    let done = client.say(Some(&before), "green").await;
    assert_eq!(state(&done), "TASK_STATE_COMPLETED", "{done}");
    let (seen, times) = {
        let events = stream.rest().await;
        // In the order in which they happened, whatever the clock says of them.
        let (numbers, times) = numbers_and_times(&events);
        assert!(numbers.is_sorted_by(|one, next| one < next) && numbers.len() > 2, "{numbers:?}");
        (numbers, times)
    };
    let begun = "2020-01-01T00:00:00";
    let spans = |first: &String, last: &String| first.as_str() >= begun && last.as_str() < begun;
    assert!(times.first().zip(times.last()).is_some_and(|(a, b)| spans(a, b)), "{times:?}");
    // So do they to who reads them again, from any of them on.
    let (again, _) = numbers_and_times(&client.follow(&before, Some(1)).await.rest().await);
    assert!(again.ends_with(&seen[1..]), "{again:?} {seen:?}");
    let after = id(&client.say(None, "coffee").await);
    let third = id(&client.say(None, "water").await);
    time.advance(RETENTION_SWEEP);
    let all = sorted([&before, &after, &third]);
    let mut listed = client.listed().await;
    listed.sort();
    assert_eq!(listed, all);
    let (done, waiting) = (client.get(&before).await, client.get(&after).await);
    first.stop().await;

    // The next life begins a day before the first one.
    let time = ManualClock::new();
    time.set_wall(time.clock().wall() - 24 * HOUR);
    let (second, to) = start(node(&time, &files, access(&files, &[&lasting]))).await;
    let client = Client { to, token: &lasting };
    let mut listed = client.listed().await;
    listed.sort();
    assert_eq!(listed, all);
    assert_eq!(client.get(&before).await, done);
    assert_eq!(client.get(&after).await["status"]["state"], waiting["status"]["state"]);
    // Its numbers go on where they were.
    let known = client.follow(&after, None).await.next().await.expect("the task").0;
    let mut stream = client.follow(&after, known).await;
    let ended = client.say(Some(&after), "black").await;
    assert_eq!(state(&ended), "TASK_STATE_COMPLETED", "{ended}");
    let (numbers, _) = numbers_and_times(&stream.rest().await);
    let known = known.expect("a number");
    assert!(numbers.first().is_some_and(|first| *first > known), "{known} {numbers:?}");
    assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
    let fresh = id(&client.say(None, "juice").await);
    let mut listed = client.listed().await;
    listed.sort();
    assert_eq!(listed, sorted([&before, &after, &third, &fresh]));
    second.stop().await;

    // Once more, with the clock where it belongs.
    let time = ManualClock::new();
    let (third_life, to) = start(node(&time, &files, access(&files, &[&lasting]))).await;
    let client = Client { to, token: &lasting };
    assert_eq!(client.get(&before).await, done);
    assert_eq!(client.get(&after).await["artifacts"], ended["artifacts"]);
    let last = client.say(Some(&third), "still").await;
    assert_eq!(state(&last), "TASK_STATE_COMPLETED", "{last}");
    third_life.stop().await;
}
