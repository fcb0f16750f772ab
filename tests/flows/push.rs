//! Push notifications: in order, with what the receiver knows them by, again if they weren't taken,
//! and only to where this node may connect.
//!
//! Long, because all of them share the receiver, which others use as well.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use neuroflow::actors::{
    AuditConfig, JournalConfig, JournalPlace, PushOptions, PushRecord, PushStore, PushStoreError,
    PushTask,
};
use neuroflow::{AgentBuilder, Answer, AnyAgent, Echo, ManualClock, Node, NodeBuilder, Turn};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::access::Files;
use crate::audit::audited;
use crate::client::{Connection, message, request, rpc, send_text, task_of};
use crate::protocol::{Binding, Peer};
use crate::support::{eventually, loopback, marker, pause, start};

/// What a receiver does with a notification; past its script it takes each.
#[derive(Clone, Debug)]
pub(crate) enum Receive {
    Status(u16),
    Redirect(SocketAddr),
    HangUp,
    Hold,
}

/// A notification as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Notification {
    head: String,
    body: Value,
}

impl Notification {
    fn header(&self, name: &str) -> Option<&str> {
        let line = self.head.lines().find(|line| {
            line.split(':').next().is_some_and(|found| found.eq_ignore_ascii_case(name))
        })?;
        line.split_once(':').map(|(_, value)| value.trim())
    }

    /// In a word.
    fn told(&self) -> String {
        let state = self.body["statusUpdate"]["status"]["state"].as_str();
        let said = &self.body["statusUpdate"]["status"]["message"]["parts"][0]["text"];
        let artifact = &self.body["artifactUpdate"]["artifact"]["parts"][0]["text"];
        match (state, said.as_str(), artifact.as_str()) {
            (Some(_), Some(said), _) => said.to_owned(),
            (Some(state), ..) => state.to_owned(),
            (_, _, Some(artifact)) => format!("artifact {artifact}"),
            _ => panic!("{}", self.body),
        }
    }
}

/// A webhook on loopback.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    received: Arc<Mutex<Vec<Notification>>>,
    task: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Receiver {
    pub(crate) async fn start(script: &[Receive]) -> Self {
        Self::on(TcpListener::bind(loopback()).await.expect("a port"), script)
    }

    #[expect(clippy::disallowed_methods, reason = "a receiver has no supervisor")]
    fn on(listener: TcpListener, script: &[Receive]) -> Self {
        let address = listener.local_addr().expect("an address");
        let received = Arc::new(Mutex::new(Vec::new()));
        let (kept, mut script) = (Arc::clone(&received), VecDeque::from(script.to_vec()));
        let task = tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let Some(notification) = read(&mut stream).await else { continue };
                kept.lock().expect("a lock").push(notification);
                let answer = match script.pop_front().unwrap_or(Receive::Status(200)) {
                    Receive::Status(status) => format!("HTTP/1.1 {status} X\r\n"),
                    Receive::Redirect(to) => {
                        format!("HTTP/1.1 307 X\r\nlocation: http://{to}/elsewhere\r\n")
                    }
                    Receive::HangUp => continue,
                    Receive::Hold => {
                        held.push(stream);
                        continue;
                    }
                };
                let answer = format!("{answer}content-length: 0\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.expect("the answer is sent");
            }
        });
        Self { address, received, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook?a=b", self.address)
    }

    fn received(&self) -> Vec<Notification> {
        self.received.lock().expect("a lock").clone()
    }

    pub(crate) fn told(&self) -> Vec<String> {
        self.received().iter().map(Notification::told).collect()
    }

    pub(crate) async fn has_been_told(&self, last: &str) {
        eventually(format!("{last} at the receiver"), || {
            self.told().last().is_some_and(|told| told == last)
        })
        .await;
    }
}

async fn read(stream: &mut TcpStream) -> Option<Notification> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let Some(end) = bytes.windows(4).position(|it| it == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let notification = Notification { head, body: Value::Null };
        let length: usize = notification.header("content-length")?.parse().ok()?;
        if bytes.len() >= end + 4 + length {
            let body = serde_json::from_slice(&bytes[end + 4..]).expect("JSON");
            return Some(Notification { body, ..notification });
        }
    }
}

/// An agent that says three things and then answers.
fn talker() -> AnyAgent {
    AgentBuilder::new("talker", "Talks.").on_ask(|_, context| async move {
        for word in ["one", "two", "three"] {
            context.say(word).await?;
        }
        Ok(Answer::text("done"))
    })
}

/// An agent that waits for its client.
pub(crate) fn waiter() -> AnyAgent {
    let waiter = AgentBuilder::new("waiter", "Waits.").profile(|profile| profile.resumable = true);
    waiter.on_ask(|_, context| async move {
        let said = context.ask_user(Turn::agent("what now?")).await?;
        Ok(Answer::text(said.text()))
    })
}

fn pushing(allow_private: bool) -> NodeBuilder {
    let mut options = PushOptions::default();
    options.allow_private = allow_private;
    let node = Node::builder().agent(talker()).agent(waiter()).agent(AnyAgent::new(Echo));
    node.gateway(loopback()).push_notifications(options)
}

pub(crate) fn send_to(url: &str, more: Value) -> Value {
    let mut config = json!({ "url": url });
    for (name, value) in more.as_object().into_iter().flatten() {
        config[name] = value.clone();
    }
    let mut params = message(json!([{ "text": "go" }]));
    params["configuration"] = json!({ "taskPushNotificationConfig": config });
    params
}

const ALL: [&str; 6] =
    ["TASK_STATE_WORKING", "one", "two", "three", "artifact done", "TASK_STATE_COMPLETED"];

#[tokio::test]
async fn every_event_arrives_once_in_order_with_token_and_credentials() {
    let files = Files::fresh();
    let log = files.path().join("audit.log");
    let (node, gateway) = start(pushing(true).audit(AuditConfig::new(&log))).await;
    let receiver = Receiver::start(&[]).await;
    let more = json!({
        "token": "tok-1",
        "authentication": { "scheme": "Bearer", "credentials": "cred-1" },
    });
    let sent = rpc(gateway, "/", "SendMessage", send_to(&receiver.url(), more)).await;
    let task = task_of(sent)["id"].as_str().expect("an id").to_owned();
    receiver.has_been_told("TASK_STATE_COMPLETED").await;
    assert_eq!(receiver.told(), ALL);
    let mut last = 0;
    for notification in receiver.received() {
        assert!(notification.head.starts_with("POST /hook?a=b HTTP/1.1"), "{}", notification.head);
        for (name, value) in [
            ("host", receiver.address.to_string().as_str()),
            ("content-type", "application/a2a+json"),
            ("authorization", "Bearer cred-1"),
            ("x-a2a-notification-token", "tok-1"),
        ] {
            assert_eq!(notification.header(name), Some(value), "{name}");
        }
        let id = notification.header("x-a2a-notification-id").expect("an id");
        let (of, generation) = id.rsplit_once('/').expect("a task and a number");
        let generation: u64 = generation.parse().expect("a number");
        assert!(of == task && generation > last, "{id}");
        last = generation;
        let update = notification.body.as_object().expect("an object");
        let update = update.values().next().expect("a member");
        assert_eq!(update["taskId"], task.as_str());
    }
    // It has ended with its task.
    let list = || rpc(gateway, "/", "ListTaskPushNotificationConfigs", json!({ "taskId": task }));
    for _ in 0..500 {
        let configs = list().await["result"]["configs"].as_array().map_or(0, Vec::len);
        if configs == 0 {
            node.stop().await;
            // Each use of what was sent along is in the audit log, and nothing of what it is.
            let uses = audited(&log, "credential_use");
            assert!(!uses.is_empty() && uses.len() <= ALL.len(), "{uses:?}");
            assert!(!audited(&log, "egress").is_empty(), "whom it was sent to is there, too");
            let text = std::fs::read_to_string(&log).expect("a log");
            assert!(!text.contains("cred-1") && !text.contains("tok-1"), "{text}");
            return;
        }
        pause(10).await;
    }
    panic!("{}", list().await);
}

/// Official clients send their configuration with each message.
#[tokio::test]
async fn a_configuration_that_comes_with_each_message_of_a_task_is_one() {
    const QUESTIONS: usize = 20;
    let curious = AgentBuilder::new("curious", "Asks back.").on_ask(|_, context| async move {
        for number in 0..QUESTIONS {
            context.ask_user(Turn::agent(format!("question {number}"))).await?;
        }
        Ok(Answer::text("done"))
    });
    let mut options = PushOptions::default();
    options.allow_private = true;
    let node = Node::builder().agent(curious).gateway(loopback()).push_notifications(options);
    let (node, gateway) = start(node).await;
    for id in [None, Some("mine")] {
        let receiver = Receiver::start(&[]).await;
        let config = id.map_or(json!({}), |id| json!({ "id": id }));
        let mut params = send_to(&receiver.url(), config);
        let mut expected = Vec::new();
        let mut task = String::new();
        for number in 0..QUESTIONS {
            let asked = task_of(rpc(gateway, "/", "SendMessage", params.clone()).await);
            asked["id"].as_str().expect("an id").clone_into(&mut task);
            params["message"]["taskId"] = json!(task);
            expected.extend(["TASK_STATE_WORKING".to_owned(), format!("question {number}")]);
            if number % 2 == 0 {
                receiver.has_been_told(&format!("question {number}")).await;
            }
            let list = json!({ "taskId": task });
            let list = rpc(gateway, "/", "ListTaskPushNotificationConfigs", list).await;
            let configs = list["result"]["configs"].as_array().cloned().unwrap_or_default();
            assert_eq!(configs.len(), 1, "{list}");
            assert_eq!(configs[0]["id"], id.unwrap_or(&task));
        }
        rpc(gateway, "/", "SendMessage", params).await;
        receiver.has_been_told("TASK_STATE_COMPLETED").await;
        let last = ["TASK_STATE_WORKING", "artifact done", "TASK_STATE_COMPLETED"];
        expected.extend(last.map(str::to_owned));
        assert_eq!(receiver.told(), expected);
    }
    node.stop().await;
}

#[tokio::test]
async fn what_is_not_taken_is_sent_again_before_what_follows() {
    let (node, gateway) = start(pushing(true)).await;
    let receiver = Receiver::start(&[Receive::Status(500), Receive::HangUp]).await;
    rpc(gateway, "/", "SendMessage", send_to(&receiver.url(), json!({}))).await;
    receiver.has_been_told("TASK_STATE_COMPLETED").await;
    let first = ["TASK_STATE_WORKING", "TASK_STATE_WORKING"];
    assert_eq!(receiver.told(), [&first[..], &ALL[..]].concat());
    let ids = receiver.received();
    assert_eq!(ids[0].header("x-a2a-notification-id"), ids[2].header("x-a2a-notification-id"));
    node.stop().await;
}

#[tokio::test]
async fn a_receiver_that_fails_twice_is_given_longer_each_time() {
    let time = ManualClock::new();
    let (node, gateway) = start(pushing(true).clock(time.clock())).await;
    let receiver = Receiver::start(&[Receive::Status(500), Receive::Status(503)]).await;
    rpc(gateway, "/", "SendMessage", send_to(&receiver.url(), json!({}))).await;
    let step = Duration::from_millis(10);
    // At least half of what the back-off says, which jitter takes off.
    for (attempts, pause_at_least) in [(1, Duration::ZERO), (2, 250 * MS), (3, 500 * MS)] {
        let mut waited = Duration::ZERO;
        while receiver.received().len() < attempts {
            assert!(waited < Duration::from_mins(1), "attempt {attempts} doesn't come");
            if attempts > 1 {
                time.advance(step);
                waited += step;
            }
            pause(5).await;
        }
        assert!(waited >= pause_at_least, "attempt {attempts} came after {waited:?}");
    }
    // Taken at the third attempt, it's followed by the others without a pause.
    receiver.has_been_told("TASK_STATE_COMPLETED").await;
    assert_eq!(receiver.told(), [&[ALL[0], ALL[0]][..], &ALL[..]].concat());
    let ids = receiver.received();
    let id = |at: usize| ids[at].header("x-a2a-notification-id").expect("an id");
    assert_eq!((id(0), id(1)), (id(1), id(2)));
    node.stop().await;
}

const MS: Duration = Duration::from_millis(1);

#[tokio::test]
async fn a_receiver_that_is_not_there_yet_is_waited_for() {
    let (node, gateway) = start(pushing(true)).await;
    let listener = TcpListener::bind(loopback()).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let url = format!("http://{address}/");
    let sent = rpc(gateway, "/", "SendMessage", send_to(&url, json!({}))).await;
    assert_eq!(task_of(sent)["status"]["state"], "TASK_STATE_COMPLETED");
    let receiver = Receiver::on(TcpListener::bind(address).await.expect("the same port"), &[]);
    receiver.has_been_told("TASK_STATE_COMPLETED").await;
    assert_eq!(receiver.told(), ALL);
    node.stop().await;
}

#[tokio::test]
async fn a_receiver_that_does_not_answer_is_given_up_and_tried_again() {
    let time = ManualClock::new();
    let (node, gateway) = start(pushing(true).clock(time.clock())).await;
    let receiver = Receiver::start(&[Receive::Hold]).await;
    rpc(gateway, "/", "SendMessage", send_to(&receiver.url(), json!({}))).await;
    eventually("the first notification", || !receiver.received().is_empty()).await;
    for _ in 0..500 {
        // The time-out, and the pause after it.
        time.advance(Duration::from_secs(4));
        pause(10).await;
        if receiver.received().len() > ALL.len() {
            break;
        }
    }
    receiver.has_been_told("TASK_STATE_COMPLETED").await;
    assert_eq!(receiver.told(), [&ALL[..1], &ALL[..]].concat());
    node.stop().await;
}

#[tokio::test]
async fn a_redirection_is_not_followed() {
    let (node, gateway) = start(pushing(true)).await;
    let elsewhere = Receiver::start(&[]).await;
    let receiver = Receiver::start(&[Receive::Redirect(elsewhere.address)]).await;
    rpc(gateway, "/", "SendMessage", send_to(&receiver.url(), json!({}))).await;
    receiver.has_been_told("TASK_STATE_COMPLETED").await;
    assert_eq!(receiver.told(), ALL);
    assert!(elsewhere.received().is_empty());
    node.stop().await;
}

#[tokio::test]
async fn private_addresses_are_refused_unless_they_are_allowed() {
    let (node, gateway) = start(pushing(false)).await;
    let receiver = Receiver::start(&[]).await;
    let port = receiver.address.port();
    let field = "configuration.taskPushNotificationConfig.url";
    for host in ["127.0.0.1", "10.1.2.3", "169.254.169.254", "[::1]", "[::ffff:127.0.0.1]"] {
        let url = format!("http://{host}:{port}/");
        let answer = rpc(gateway, "/", "SendMessage", send_to(&url, json!({}))).await;
        assert_eq!(answer["error"]["code"], -32602, "{answer}");
        let text = answer["error"]["message"].as_str().expect("a message");
        assert!(
            text.starts_with(&format!("{field} leads where this node doesn't connect to")),
            "{text}"
        );
        assert_eq!(total(gateway, "/").await, 0, "nothing has begun");
    }
    // What a name leads to is known when it's connected to, and looked at then.
    let url = format!("http://localhost:{port}/");
    let mut params = send_to(&url, json!({ "id": "c-1" }));
    params["configuration"]["returnImmediately"] = json!(true);
    let sent = rpc(gateway, "/agents/waiter", "SendMessage", params).await;
    let task = task_of(sent)["id"].as_str().expect("an id").to_owned();
    let list = json!({ "taskId": task });
    for turn in 0.. {
        let listed =
            rpc(gateway, "/agents/waiter", "ListTaskPushNotificationConfigs", list.clone()).await;
        if listed["result"]["configs"].as_array().is_none_or(Vec::is_empty) {
            break;
        }
        assert!(turn < 500, "it's still there: {listed}");
        pause(10).await;
    }
    assert!(receiver.received().is_empty());
    node.stop().await;
}

/// How many tasks there are.
async fn total(to: SocketAddr, path: &str) -> i64 {
    let listed = rpc(to, path, "ListTasks", json!({})).await;
    listed["result"]["totalSize"].as_i64().unwrap_or_else(|| panic!("{listed}"))
}

#[tokio::test]
async fn a_message_whose_webhook_is_refused_begins_nothing_in_any_binding() {
    let (node, gateway) = start(pushing(false)).await;
    let fine = "https://example.org/";
    let root = "configuration.taskPushNotificationConfig.";
    for (url, more, field) in [
        ("", json!({}), "url"),
        ("http://127.0.0.1/", json!({}), "url"),
        ("ftp://example.org/", json!({}), "url"),
        ("https://user:secret@example.org/", json!({}), "url"),
        (fine, json!({ "token": "a\nb" }), "token"),
        (fine, json!({ "id": "a\u{0}b" }), "id"),
        (
            fine,
            json!({ "authentication": { "scheme": "Bea rer", "credentials": "x" } }),
            "authentication.scheme",
        ),
        (
            fine,
            json!({ "authentication": { "scheme": "Bearer", "credentials": "x\ry" } }),
            "authentication.credentials",
        ),
    ] {
        for binding in Binding::ALL {
            let peer = Peer::new(binding, gateway, None);
            for operation in ["SendMessage", "SendStreamingMessage"] {
                let params = send_to(url, more.clone());
                let fault = match operation {
                    "SendMessage" => peer.call(operation, params).await.err(),
                    _ => peer.stream(operation, params).await.err(),
                };
                let fault = fault.unwrap_or_else(|| panic!("{binding:?} {field} isn't refused"));
                assert_eq!(fault.reason, "INVALID_PARAMS", "{fault:?}");
                assert_eq!(fault.field, Some(format!("{root}{field}")), "{fault:?}");
            }
        }
    }
    assert_eq!(total(gateway, "/").await, 0, "nothing has begun");
    node.stop().await;
}

#[tokio::test]
async fn where_there_is_no_place_left_the_message_is_not_taken() {
    let mut options = PushOptions::default();
    options.allow_private = true;
    options.deliveries = 1;
    let node = Node::builder().agent(waiter()).gateway(loopback());
    let (node, gateway) = start(node.push_notifications(options)).await;
    let receiver = Receiver::start(&[]).await;
    let sent = rpc(gateway, "/", "SendMessage", send_to(&receiver.url(), json!({ "id": "a" })));
    let task = task_of(sent.await)["id"].as_str().expect("an id").to_owned();
    for _again in 0..3 {
        let mut connection = Connection::open(gateway).await;
        let params = send_to(&receiver.url(), json!({}));
        let full = connection.post("/", &request("SendMessage", params)).await;
        assert_eq!((full.status, full.header("retry-after")), (503, Some("1")), "{}", full.text());
    }
    assert_eq!(total(gateway, "/").await, 1, "a client that obeys doesn't run it twice");
    // One that takes the place of another needs none.
    let config = json!({ "taskId": task, "id": "a", "url": receiver.url() });
    let replaced = rpc(gateway, "/", "CreateTaskPushNotificationConfig", config).await;
    assert!(replaced.get("error").is_none(), "{replaced}");
    // With the task its place is free again, and so is that of a message that was refused.
    let mut more = message(json!([{ "text": "on" }]));
    more["message"]["taskId"] = json!(task);
    rpc(gateway, "/", "SendMessage", more).await;
    let mut refused = send_to(&receiver.url(), json!({}));
    refused["message"]["taskId"] = json!(task);
    for turn in 0.. {
        let answer = rpc_of(gateway, refused.clone()).await;
        if answer["error"]["code"] == -32004 {
            break;
        }
        assert!(turn < 500, "the place isn't free again: {answer}");
        pause(10).await;
    }
    for turn in 0.. {
        let sent = rpc_of(gateway, send_to(&receiver.url(), json!({}))).await;
        if sent.get("result").is_some() {
            break;
        }
        assert!(turn < 500, "the place isn't free again: {sent}");
        pause(10).await;
    }
    assert_eq!(total(gateway, "/").await, 2);
    node.stop().await;
}

/// A `SendMessage` that may be refused with a status of its own.
async fn rpc_of(to: SocketAddr, params: Value) -> Value {
    Connection::open(to).await.post("/", &request("SendMessage", params)).await.json()
}

/// Keeps nothing.
#[derive(Debug)]
struct NoStore;

type Stored<'a, T> = BoxFuture<'a, Result<T, PushStoreError>>;

impl PushStore for NoStore {
    fn append<'a>(&'a self, _: &'a PushTask, _: &'a PushRecord) -> Stored<'a, ()> {
        let full = std::io::Error::other("full");
        Box::pin(std::future::ready(Err(PushStoreError::Failed(full.into()))))
    }

    fn load(&self) -> Stored<'_, Vec<(PushTask, Vec<PushRecord>)>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
}

#[tokio::test]
async fn a_task_that_has_begun_is_answered_though_its_webhook_is_not_kept() {
    let mut options = PushOptions::default();
    options.allow_private = true;
    options.store = Some(Arc::new(NoStore));
    let node = Node::builder().agent(AnyAgent::new(Echo)).gateway(loopback());
    let (node, gateway) = start(node.push_notifications(options)).await;
    let receiver = Receiver::start(&[]).await;
    let note = json!({ "neuroflow": { "pushNotification": "not_kept" } });
    for binding in Binding::ALL {
        let peer = Peer::new(binding, gateway, None);
        let sent = peer.call("SendMessage", send_to(&receiver.url(), json!({}))).await;
        let task = sent.expect("a task")["task"].take();
        assert_eq!(task["status"]["state"], "TASK_STATE_COMPLETED", "{task}");
        assert_eq!(task["metadata"], note, "{binding:?}");
        let streamed = peer.stream("SendStreamingMessage", send_to(&receiver.url(), json!({})));
        let mut streamed = streamed.await.unwrap_or_else(|fault| panic!("{fault:?}"));
        let first = streamed.next().await.expect("the task");
        assert_eq!(first["task"]["metadata"], note, "{binding:?}");
        streamed.rest().await;
        let sent = peer.call("SendMessage", message(json!([{ "text": "go" }]))).await;
        assert_eq!(sent.expect("a task")["task"].get("metadata"), None);
    }
    assert_eq!(total(gateway, "/").await, 9);
    assert!(receiver.received().is_empty());
    node.stop().await;
}

#[tokio::test]
async fn delivery_goes_on_after_a_restart() {
    let folder = std::env::temp_dir().join(format!("neuroflow-push-{}", marker()));
    let place = JournalPlace::Directory(folder.clone());
    let journaled = || pushing(true).journal(JournalConfig::new(place.clone()));
    let listener = TcpListener::bind(loopback()).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let receiver = Receiver::on(listener, &[]);

    let (node, gateway) = start(journaled()).await;
    let mut params = send_to(&receiver.url(), json!({ "token": "tok-1" }));
    params["configuration"]["returnImmediately"] = json!(true);
    let sent = rpc(gateway, "/agents/waiter", "SendMessage", params).await;
    let task = task_of(sent)["id"].as_str().expect("an id").to_owned();
    receiver.has_been_told("what now?").await;
    let before = receiver.told();
    assert_eq!(before, ["TASK_STATE_WORKING", "what now?"]);
    // The receiver is away when the node ends, and back when another has begun. What it has had is
    // not told again, and what comes then is.
    drop(receiver);
    node.stop().await;
    drop(node);

    let (node, gateway) = start(journaled()).await;
    let list = json!({ "taskId": task });
    let listed = rpc(gateway, "/agents/waiter", "ListTaskPushNotificationConfigs", list).await;
    assert_eq!(listed["result"]["configs"][0]["token"], "tok-1", "{listed}");
    let mut more = message(json!([{ "text": "on" }]));
    more["message"]["taskId"] = json!(task);
    let sent = rpc(gateway, "/agents/waiter", "SendMessage", more).await;
    let receiver = Receiver::on(TcpListener::bind(address).await.expect("the same port"), &[]);
    eventually("the end at the receiver", || {
        receiver.told().iter().any(|told| told.contains("STATE_COMPLETED") || told.contains("fail"))
    })
    .await;
    let told = receiver.told();
    assert!(!told.contains(&"what now?".to_owned()), "{told:?} after {sent}");
    assert_eq!(told.last().map(String::as_str), Some("TASK_STATE_COMPLETED"), "{told:?}");
    let last = receiver.received().pop().expect("one");
    assert_eq!(last.header("x-a2a-notification-token"), Some("tok-1"));
    node.stop().await;
    std::fs::remove_dir_all(folder).expect("the journal's folder");
}

#[tokio::test]
async fn a_task_has_a_bounded_number_and_cards_say_who_pushes() {
    let (node, gateway) = start(pushing(true)).await;
    let mut connection = Connection::open(gateway).await;
    let mut params = message(json!([{ "text": "go" }]));
    params["configuration"] = json!({ "returnImmediately": true });
    let sent = connection.rpc("/agents/waiter", "SendMessage", params).await;
    let task = task_of(sent)["id"].as_str().expect("an id").to_owned();
    for number in 0..17 {
        let config = json!({ "taskId": task, "url": format!("http://127.0.0.1:9/{number}") });
        let created =
            connection.rpc("/agents/waiter", "CreateTaskPushNotificationConfig", config).await;
        assert_eq!(created.get("error").is_some(), number == 16, "{number}: {created}");
    }
    let card = connection.get("/.well-known/agent-card.json").await.json();
    assert_eq!(card["capabilities"]["pushNotifications"], true);
    node.stop().await;

    let (node, gateway) =
        start(Node::builder().agent(AnyAgent::new(Echo)).gateway(loopback())).await;
    let card = Connection::open(gateway).await.get("/.well-known/agent-card.json").await.json();
    assert_eq!(card["capabilities"]["pushNotifications"], false);
    let task = send_text(gateway, "/", "x").await;
    let list = json!({ "taskId": task["id"] });
    let refused = rpc(gateway, "/", "ListTaskPushNotificationConfigs", list).await;
    assert_eq!(refused["error"]["code"], -32003, "{refused}");
    node.stop().await;
}
