//! Many nodes on one database: what a client finds at another node than its task's, and what becomes of the
//! configurations of webhooks that were set there.

use std::net::SocketAddr;
use std::sync::mpsc;

use a2a_pb::protojson as pb;
use neuroflow::actors::{Append, EffectResult, Entry, EntryKind, PushOptions};
use neuroflow::kernel::Parcel;
use neuroflow::{AgentBuilder, Answer, AnyAgent, Node, TaskState, Turn};
use serde_json::{Value, json};
use tonic_types::StatusExt;

use crate::cluster::Cluster;
use crate::eventually::{eventually, eventually_blocking};
use crate::killable::{Killable, Line, Told, call};
use crate::postgres::{free_port, receive};
use crate::scene::{Scene, head, say};
use crate::watchers::{Hook, said};

/// Says what it's told, until that is the end.
fn teller() -> AnyAgent {
    AgentBuilder::new("teller", "Tells.").on_ask(|_, context| async move {
        loop {
            let told = context.ask_user(Turn::agent("what?")).await?;
            if told.text() == "end" {
                return Ok(Answer::text("over"));
            }
            context.say(told.text()).await?;
        }
    })
}

/// A node of this name, and its gateway.
async fn start(cluster: &Cluster, name: &str) -> (Node, SocketAddr) {
    let mut push = PushOptions::default();
    push.allow_private = true;
    let node = Node::builder().agent(teller()).journal(cluster.config(name));
    let node = node.push_notifications(push).gateway("127.0.0.1:0".parse().expect("an address"));
    let node = node.start().await.expect("the node starts");
    let gateway = node.gateway().expect("a gateway");
    (node, gateway)
}

fn rpc(gateway: SocketAddr, method: &str, params: &Value) -> Value {
    let answer = call(gateway, method, params).expect("an answer");
    assert!(answer["error"].is_null(), "{method}: {answer}");
    answer["result"].clone()
}

fn message(task: Option<&str>, text: &str) -> Value {
    let parts = json!([{ "text": text }]);
    json!({ "message": { "messageId": "1", "role": "ROLE_USER", "parts": parts, "taskId": task } })
}

/// Says something, and waits until the task asks for more or has ended; gives its id.
fn tell(gateway: SocketAddr, task: Option<&str>, text: &str) -> String {
    let answer = rpc(gateway, "SendMessage", &message(task, text));
    answer["task"]["id"].as_str().expect("an id").to_owned()
}

fn set(gateway: SocketAddr, task: &str, id: &str, url: &str) {
    let config = json!({ "taskId": task, "id": id, "url": url });
    rpc(gateway, "CreateTaskPushNotificationConfig", &config);
}

/// The ids and webhooks of a task's configurations.
fn configs(gateway: SocketAddr, task: &str) -> Vec<(String, String)> {
    let listed = rpc(gateway, "ListTaskPushNotificationConfigs", &json!({ "taskId": task }));
    let configs = listed["configs"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    configs.map(|config| (text(&config["id"]), text(&config["url"]))).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(id, url)| ((*id).to_owned(), (*url).to_owned())).collect()
}

/// Whose configurations are in force, and in which logs.
fn logs(cluster: &Cluster) -> String {
    let logs = "SELECT string_agg(node || ':' || task, ' ' ORDER BY node) FROM neuroflow_task
                WHERE agent = '/push' AND NOT ended";
    cluster.query(logs).expect("asked")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_that_is_deleted_at_another_node_is_told_nothing_more() {
    let cluster = Cluster::start();
    let ((node_a, a), (node_b, b)) = (start(&cluster, "a").await, start(&cluster, "b").await);
    let task = tell(a, None, "go");
    let [deleted, replaced, moved] = [(); 3].map(|()| Hook::start());
    set(a, &task, "c1", &deleted.url());
    set(a, &task, "c2", &replaced.url());
    tell(a, Some(&task), "one");
    let hears = |hook: &Hook, what: &str| hook.heard(&task).iter().any(|heard| heard.said == what);
    eventually("both are told", || {
        hears(&deleted, "working one") && hears(&replaced, "working one")
    })
    .await;
    let both = pairs(&[("c1", &deleted.url()), ("c2", &replaced.url())]);
    assert_eq!((configs(a, &task), configs(b, &task)), (both.clone(), both));
    let named = |id| json!({ "taskId": task, "id": id });
    let got = rpc(b, "GetTaskPushNotificationConfig", &named("c1"));
    assert_eq!(got["url"], json!(deleted.url()));

    rpc(b, "DeleteTaskPushNotificationConfig", &named("c1"));
    let left = pairs(&[("c2", &replaced.url())]);
    assert_eq!((configs(a, &task), configs(b, &task)), (left.clone(), left));
    assert_eq!(logs(&cluster), format!("a:a/teller/{task}"), "it's a's still");
    // What is set at one node again isn't told by the other as well.
    set(b, &task, "c2", &moved.url());
    let left = pairs(&[("c2", &moved.url())]);
    assert_eq!((configs(a, &task), configs(b, &task)), (left.clone(), left));
    assert_eq!(logs(&cluster), format!("b:b/teller/{task}"));
    // Nor is what is deleted at one forgotten at the other when it's set there once more.
    set(a, &task, "c1", &moved.url());
    rpc(b, "DeleteTaskPushNotificationConfig", &named("c1"));
    set(a, &task, "c1", &moved.url());
    assert_eq!(logs(&cluster), format!("a:a/teller/{task} b:b/teller/{task}"));

    for text in ["two", "end"] {
        tell(a, Some(&task), text);
    }
    eventually("all is told", || logs(&cluster).is_empty()).await;
    let twice = moved.heard(&task).iter().filter(|heard| heard.said == "working two").count();
    assert_eq!(twice, 2, "{:?}", moved.heard(&task));
    for hook in [&deleted, &replaced] {
        assert!(!hears(hook, "working two") && !hears(hook, "completed"));
    }
    node_a.stop().await;
    node_b.stop().await;
}

#[test]
fn each_nodes_configurations_outlive_it_whoever_else_has_some_of_the_task() {
    let cluster = Cluster::start();
    let begin = |name| Killable::start_as(name, &cluster.url(), "off");
    let (a, b) = (begin("a"), begin("b"));
    let task = tell(a.gateway, None, "hello");
    // Nobody is there yet.
    let (of_a, of_b) = (free_port(), free_port());
    let [url_a, url_b] = [of_a, of_b].map(|hook| format!("http://{hook}/"));
    set(a.gateway, &task, "c1", &url_a);
    set(b.gateway, &task, "c2", &url_b);
    a.kill();
    b.kill();
    let a = begin("a");
    assert_eq!(configs(a.gateway, &task), pairs(&[("c1", &url_a), ("c2", &url_b)]));
    receive(of_a);
    let left = format!("b:b/echo/{task}");
    eventually_blocking("a's is told", || logs(&cluster) == left);
    assert_eq!(configs(a.gateway, &task), pairs(&[("c2", &url_b)]));
    let b = begin("b");
    receive(of_b);
    eventually_blocking("b's is told", || logs(&cluster).is_empty());
    a.kill();
    b.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_lost_node_was_to_tell_of_a_task_goes_with_the_task() {
    let cluster = Cluster::start();
    let scene = Scene::open(cluster.config("lost")).await.expect("it opens");
    // As this build names them, as an earlier one did, and of another task.
    let named = [("lost/echo/a", "echo/a"), ("echo/a", ""), ("lost/echo/b", "echo/b")];
    for (name, context) in named {
        let mut head = head(name, TaskState::Working, 0);
        "/push".clone_into(&mut head.agent);
        context.clone_into(&mut head.context);
        let told = Parcel::archive(&EffectResult { json: "1".to_owned() }).expect("archived");
        let entry = Entry::new(EntryKind::PushConfig, told.as_raw().clone());
        scene.journal.append(Append { head, entries: vec![entry] }).await.expect("appended");
    }
    scene.stop().await;
    let scene = Scene::open(cluster.config("other")).await.expect("it opens");
    for task in ["a", "b"] {
        say(&scene.journal, task, 0, TaskState::Completed).await.expect("appended");
    }
    assert!(scene.journal.remove("echo", "a").await.expect("removed"));
    assert_eq!(logs(&cluster), "lost:lost/echo/b");
    let entries = "SELECT count(*) FROM neuroflow_entry WHERE agent = '/push'";
    assert_eq!(cluster.query(entries).as_deref(), Some("1"));
    scene.stop().await;
}

/// What a stream says of a task from its beginning, as it comes, and at last whether it ended in good order.
fn follow(gateway: SocketAddr, task: &str, mut hear: impl FnMut((u64, String))) -> bool {
    let line = Line::open(gateway).expect("a connection");
    let params = json!({ "id": task });
    let mut events = line.events("/", "SubscribeToTask", &params, 0).expect("a stream");
    loop {
        match events.next() {
            Told::Event { id, data } => hear((id, said(&data["result"]))),
            end => return matches!(end, Told::End),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_at_another_node_sees_every_event_of_a_task() {
    let cluster = Cluster::start();
    let ((node_a, a), (node_b, b)) = (start(&cluster, "a").await, start(&cluster, "b").await);
    let task = tell(a, None, "go");
    // More than the task has events.
    let (tells, told) = mpsc::sync_channel(64);
    let heard = std::thread::scope(|threads| {
        let task = &task;
        let stream = threads.spawn(move || {
            let mut heard = Vec::new();
            let ended = follow(b, task, |event| {
                let _over = tells.send(event.clone());
                heard.push(event);
            });
            assert!(ended, "it was cut off after {heard:?}");
            heard
        });
        let asked = "input_required what?";
        let until = |what: &str| while told.recv().expect("an event").1 != what {};
        // Each is heard before there is more, so that the other node has to look again.
        until(asked);
        tell(a, Some(task), "one");
        until("working one");
        until(asked);
        tell(a, Some(task), "end");
        stream.join().expect("no panic")
    });
    let mut there = Vec::new();
    assert!(follow(a, &task, |event| there.push(event)));
    assert_eq!(heard, there);
    assert_eq!(heard.last().map(|(_, said)| said.as_str()), Some("completed"));
    node_a.stop().await;
    node_b.stop().await;
}

/// The word that tells it from other errors.
const ELSEWHERE: &str = "elsewhere";

/// What gRPC says to the end of a task.
async fn cancel(gateway: SocketAddr, task: &str) -> tonic::Status {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{gateway}"));
    let channel = endpoint.expect("a URL").connect().await.expect("a connection");
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.expect("the connection is ready");
    let request = serde_json::from_value(json!({ "id": task })).expect("a message");
    let mut request = tonic::Request::new(request);
    request.metadata_mut().insert("a2a-version", "1.0".parse().expect("a value"));
    let path = "/lf.a2a.v1.A2AService/CancelTask".parse().expect("a path");
    let codec = tonic_prost::ProstCodec::<pb::CancelTaskRequest, pb::Task>::default();
    grpc.unary(request, path, codec).await.expect_err("another node has it")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_a_tasks_own_node_can_do_is_refused_for_good_at_another() {
    let cluster = Cluster::start();
    let ((node_a, a), (node_b, b)) = (start(&cluster, "a").await, start(&cluster, "b").await);
    let task = tell(a, None, "go");
    let says = |error: &Value| error.as_str().is_some_and(|said| said.contains("another node"));
    let named = json!({ "id": task });
    for (method, params) in
        [("CancelTask", named.clone()), ("SendMessage", message(Some(&task), "one"))]
    {
        let error = call(b, method, &params).expect("an answer")["error"].clone();
        assert_eq!(error["code"], -32_004, "{error}");
        assert!(says(&error["message"]), "{error}");
        assert_eq!(error["data"][0]["metadata"]["code"], ELSEWHERE, "{error}");
        let path = match method {
            "CancelTask" => format!("/tasks/{task}:cancel"),
            _ => "/message:send".to_owned(),
        };
        let mut line = Line::open(b).expect("a connection");
        let error = line.rest(&path, &params).expect("an answer")["error"].clone();
        assert_eq!((&error["code"], says(&error["message"])), (&json!(400), true), "{error}");
        assert_eq!(error["details"][0]["metadata"]["code"], ELSEWHERE, "{error}");
    }
    let status = cancel(b, &task).await;
    assert_eq!(status.code(), tonic::Code::FailedPrecondition, "{status}");
    let info = status.get_details_error_info().expect("details");
    assert_eq!(info.metadata["code"], ELSEWHERE);
    // Where the task is, it's done.
    let over = rpc(a, "CancelTask", &named);
    assert_eq!(over["status"]["state"], "TASK_STATE_CANCELED");
    node_a.stop().await;
    node_b.stop().await;
}
