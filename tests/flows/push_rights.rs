//! Push notifications end with the right to be told, and are set up the same in every binding.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use neuroflow::actors::{AccessConfig, AuditConfig, FreshToken, PushOptions, RulesSource};
use neuroflow::{AgentBuilder, Answer, AnyAgent, Node, NodeBuilder, Turn};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::access::{Files, token};
use crate::audit::audited;
use crate::client::{message, task_of};
use crate::protocol::{Binding, Peer};
use crate::push::{Receiver, send_to};
use crate::support::{eventually, loopback, pause, start};

/// An agent that goes on when it's let, and then never ends.
pub(crate) fn gated(gate: &Arc<Semaphore>) -> AnyAgent {
    let gate = Arc::clone(gate);
    AgentBuilder::new("gated", "Waits at a gate.").on_ask(move |_, context| {
        let gate = Arc::clone(&gate);
        async move {
            gate.acquire().await.expect("a gate").forget();
            context.say("late").await?;
            std::future::pending::<()>().await;
            Ok(Answer::done())
        }
    })
}

fn node(gate: &Arc<Semaphore>, access: AccessConfig) -> NodeBuilder {
    let mut options = PushOptions::default();
    options.allow_private = true;
    let node = Node::builder().agent(gated(gate)).gateway(loopback()).access(access);
    node.push_notifications(options)
}

pub(crate) fn peer(to: SocketAddr, token: &FreshToken) -> Peer {
    let bearer = format!("Bearer {}", token.secret());
    Peer::new(Binding::Rest, to, None).with("authorization", &bearer)
}

/// A task that waits at the gate.
pub(crate) async fn begin(peer: &Peer, mut params: Value) -> String {
    params["configuration"]["returnImmediately"] = json!(true);
    let sent = peer.call("SendMessage", params).await.expect("a task");
    task_of(json!({ "result": sent }))["id"].as_str().expect("an id").to_owned()
}

/// Waits until a caller is refused with this status.
async fn until_refused(peer: &Peer, task: &str, status: i64) {
    for _ in 0..600 {
        match peer.call("GetTask", json!({ "id": task })).await {
            Err(fault) if fault.code == status => return,
            _ => pause(50).await,
        }
    }
    panic!("it was never refused with {status}");
}

/// Waits until the audit log says that a configuration's creator may not be told any more.
async fn until_withdrawn(log: &Path) {
    let withdrawn = |event: &Value| event["reason"] == "withdrawn";
    eventually("the withdrawal", || audited(log, "authorisation").iter().any(withdrawn)).await;
}

/// Waits until a task has these configurations for who asks.
pub(crate) async fn until_configs(peer: &Peer, task: &str, wanted: &[&str]) {
    let mut ids = Vec::new();
    for _ in 0..1_000 {
        let listed = peer.call("ListTaskPushNotificationConfigs", json!({ "taskId": task })).await;
        // Who comes back into a file is let in when that was read.
        let Ok(listed) = listed else {
            pause(20).await;
            continue;
        };
        let configs = listed["configs"].as_array().into_iter().flatten();
        ids = configs.map(|one| one["id"].as_str().expect("an id").to_owned()).collect();
        if ids == wanted {
            return;
        }
        pause(20).await;
    }
    panic!("{ids:?} and not {wanted:?}");
}

#[tokio::test]
async fn who_may_read_no_more_is_told_no_more() {
    let files = Files::fresh();
    let (dev, boss) = (token("dev", &["dev"]), token("boss", &[]));
    let policy = |dev: &str| {
        let boss = r#"permit(principal == Token::"boss", action, resource);"#;
        format!(r#"permit(principal in Group::"dev", action in [{dev}], resource); {boss}"#)
    };
    let mut access = AccessConfig::default();
    access.tokens = Some(files.write("tokens", &[dev.line(), boss.line()].join("\n")));
    let both = policy(r#"Action::"ask", Action::"read""#);
    access.rules = RulesSource::File(files.write("policy", &both));
    let log = files.write("audit.log", "");
    std::fs::remove_file(&log).expect("it was there");
    let gate = Arc::new(Semaphore::new(0));
    let builder = node(&gate, access).audit(AuditConfig::new(&log));
    let (node, to) = start(builder).await;
    let (dev, boss) = (peer(to, &dev), peer(to, &boss));
    let task = begin(&dev, message(json!([{ "text": "go" }]))).await;
    let [read, seen] = [Receiver::start(&[]).await, Receiver::start(&[]).await];
    for (peer, id, receiver) in [(&dev, "read", &read), (&boss, "seen", &seen)] {
        let config = json!({ "taskId": task, "id": id, "url": receiver.url() });
        peer.call("CreateTaskPushNotificationConfig", config).await.expect("it's kept");
    }
    until_configs(&dev, &task, &["read"]).await;
    until_configs(&boss, &task, &["seen"]).await;
    files.write("policy", &policy(r#"Action::"ask""#));
    until_refused(&dev, &task, 403).await;
    gate.add_permits(1);
    // The other one is told, so that the event was there to be told.
    seen.has_been_told("late").await;
    until_withdrawn(&log).await;
    files.write("policy", &both);
    until_configs(&dev, &task, &[]).await;
    until_configs(&boss, &task, &["seen"]).await;
    assert!(read.told().is_empty(), "{:?}", read.told());
    let delete = json!({ "taskId": task, "id": "seen" });
    boss.call("DeleteTaskPushNotificationConfig", delete).await.expect("it's deleted");
    node.stop().await;
    let parts = |part: &str| {
        let changes = audited(&log, "config_changed").into_iter();
        changes.filter(|event| event["part"] == part).count()
    };
    assert_eq!((parts("push"), parts("push_deleted")), (2, 1));
    let log = std::fs::read_to_string(&log).expect("an audit log");
    let noted: Vec<&str> = log.lines().filter(|line| line.contains("\"withdrawn\"")).collect();
    assert_eq!(noted.len(), 1, "{noted:?}");
    assert!(noted[0].contains("token:dev") && noted[0].contains(&format!("push:{task}:read")));
}

#[tokio::test]
async fn who_is_known_no_more_is_told_no_more() {
    let files = Files::fresh();
    let (gone, boss) = (token("gone", &[]), token("boss", &[]));
    let tokens = files.write("tokens", &[gone.line(), boss.line()].join("\n"));
    let mut access = AccessConfig::default();
    access.tokens = Some(tokens);
    let all = "permit(principal, action, resource);";
    access.rules = RulesSource::File(files.write("policy", all));
    let log = files.path().join("audit.log");
    let gate = Arc::new(Semaphore::new(0));
    let (node, to) = start(node(&gate, access).audit(AuditConfig::new(&log))).await;
    let line = gone.line().to_owned();
    let gone = peer(to, &gone);
    // It comes with the message, which is a right of its own.
    let receiver = Receiver::start(&[]).await;
    let task = begin(&gone, send_to(&receiver.url(), json!({ "id": "inline" }))).await;
    receiver.has_been_told("TASK_STATE_WORKING").await;
    until_configs(&gone, &task, &["inline"]).await;
    files.write("tokens", boss.line());
    until_refused(&gone, &task, 401).await;
    gate.add_permits(1);
    until_withdrawn(&log).await;
    files.write("tokens", &[&line, boss.line()].join("\n"));
    until_configs(&gone, &task, &[]).await;
    assert_eq!(receiver.told(), ["TASK_STATE_WORKING"]);
    node.stop().await;
}

/// An agent that waits for its client.
fn waiter() -> AnyAgent {
    AgentBuilder::new("waiter", "Waits.").on_ask(|_, context| async move {
        let said = context.ask_user(Turn::agent("what now?")).await?;
        Ok(Answer::text(said.text()))
    })
}

#[tokio::test]
async fn configurations_are_kept_read_listed_and_deleted_in_every_binding() {
    let mut options = PushOptions::default();
    options.allow_private = true;
    let builder = Node::builder().agent(waiter()).gateway(loopback());
    let (node, to) = start(builder.push_notifications(options)).await;
    let receiver = Receiver::start(&[]).await;
    for binding in Binding::ALL {
        let peer = Peer::new(binding, to, Some("waiter"));
        let task = begin(&peer, message(json!([{ "text": "go" }]))).await;
        for id in ["b", "a", "c"] {
            let config = json!({
                "taskId": task, "id": id, "url": receiver.url(), "token": format!("token-{id}"),
                "authentication": { "scheme": "Basic", "credentials": "eA==" },
            });
            let created = peer.call("CreateTaskPushNotificationConfig", config.clone()).await;
            let mut created = created.expect("it's kept");
            // Where the tenant says which agent is meant, it's said again.
            if let Some(created) = created.as_object_mut() {
                created.remove("tenant");
            }
            assert_eq!(created, config, "{binding:?}");
        }
        let one = json!({ "taskId": task, "id": "a" });
        let got =
            peer.call("GetTaskPushNotificationConfig", one.clone()).await.expect("it's there");
        assert_eq!(
            (&got["token"], &got["authentication"]["scheme"]),
            (&json!("token-a"), &json!("Basic"))
        );
        let ids = |listed: &Value| -> Vec<String> {
            let configs = listed["configs"].as_array().expect("a list").iter();
            configs.map(|config| config["id"].as_str().expect("an id").to_owned()).collect()
        };
        let list = json!({ "taskId": task, "pageSize": 2 });
        let listed = peer.call("ListTaskPushNotificationConfigs", list).await.expect("a list");
        assert_eq!(ids(&listed), ["a", "b"], "{binding:?}");
        let next = json!({ "taskId": task, "pageToken": listed["nextPageToken"] });
        let listed = peer.call("ListTaskPushNotificationConfigs", next).await.expect("a list");
        assert_eq!(ids(&listed), ["c"], "{binding:?}");
        for _twice in 0..2 {
            let deleted = peer.call("DeleteTaskPushNotificationConfig", one.clone()).await;
            deleted.expect("it's gone");
        }
        let fault = peer.call("GetTaskPushNotificationConfig", one).await.expect_err("it's gone");
        assert_eq!(fault.reason, "TASK_NOT_FOUND", "{binding:?}");
        // The other bindings have the same ones.
        for other in Binding::ALL {
            let list = json!({ "taskId": task });
            let listed = Peer::new(other, to, Some("waiter"))
                .call("ListTaskPushNotificationConfigs", list)
                .await;
            assert_eq!(ids(&listed.expect("a list")), ["b", "c"], "{binding:?} {other:?}");
        }
        // An unknown task, and what isn't a configuration.
        let url = receiver.url();
        for (params, reason, field) in [
            (json!({ "taskId": "none", "url": url }), "TASK_NOT_FOUND", None),
            (json!({ "taskId": task }), "INVALID_PARAMS", Some("url")),
            (json!({ "taskId": task, "url": "ftp://a.b/" }), "INVALID_PARAMS", Some("url")),
            (
                json!({ "taskId": task, "url": url, "token": "a\nb" }),
                "INVALID_PARAMS",
                Some("token"),
            ),
        ] {
            let refused = peer.call("CreateTaskPushNotificationConfig", params).await;
            let fault = refused.expect_err("it's refused");
            assert_eq!((fault.reason.as_str(), fault.field.as_deref()), (reason, field));
        }
        // What is left is told of the end, whoever set it.
        let before = receiver.told().iter().filter(|told| told.ends_with("_COMPLETED")).count();
        let mut more = message(json!([{ "text": "on" }]));
        more["message"]["taskId"] = json!(task);
        peer.call("SendMessage", more).await.expect("it goes on");
        eventually("both are told of the end", || {
            let told = receiver.told();
            told.iter().filter(|told| told.ends_with("_COMPLETED")).count() == before + 2
        })
        .await;
    }
    node.stop().await;
}
