//! A push configuration is its creator's: nobody else sees it, replaces it or deletes it, whoever may see
//! the task.

use neuroflow::Node;
use neuroflow::actors::{FreshToken, JournalConfig, JournalPlace, PushOptions};
use serde_json::{Value, json};

use crate::access::{Files, config, token};
use crate::client::message;
use crate::protocol::{Binding, Fault, Peer};
use crate::push::{send_to, waiter};
use crate::push_rights::{begin, until_configs};
use crate::support::{loopback, start};

const RULES: &str = r#"
    permit(principal in Group::"dev", action in [Action::"ask", Action::"read"], resource);
    permit(principal == Token::"boss", action, resource);
"#;

/// Where nobody is.
const URL: &str = "http://127.0.0.1:9/";

async fn create(peer: &Peer, task: &str, id: &str) -> Result<Value, Fault> {
    let config = json!({
        "taskId": task, "id": id, "url": URL, "token": format!("token-{id}"),
        "authentication": { "scheme": "Bearer", "credentials": format!("secret-{id}") },
    });
    peer.call("CreateTaskPushNotificationConfig", config).await
}

async fn get(peer: &Peer, task: &str, id: &str) -> Result<Value, Fault> {
    peer.call("GetTaskPushNotificationConfig", json!({ "taskId": task, "id": id })).await
}

/// That one has a configuration, and the other finds nothing by its id.
async fn is_only_of(owner: &Peer, other: &Peer, task: &str, id: &str) {
    let found = get(owner, task, id).await.expect("its own");
    assert_eq!(found["token"], json!(format!("token-{id}")));
    assert_eq!(found["authentication"]["credentials"], json!(format!("secret-{id}")));
    until_configs(owner, task, &[id]).await;
    let hidden = get(other, task, id).await.expect_err("another's");
    let unknown = get(other, task, "unknown").await.expect_err("nobody's");
    assert_eq!((hidden.code, &hidden.reason), (unknown.code, &unknown.reason));
}

fn field(refused: Result<Value, Fault>) -> (String, Option<String>) {
    let fault = refused.expect_err("it's refused");
    (fault.reason, fault.field)
}

#[tokio::test]
async fn who_sees_a_task_has_no_part_in_what_others_are_told_of_it() {
    let files = Files::fresh();
    let [alice, carol] = ["alice", "carol"].map(|name| token(name, &["dev"]));
    let boss = token("boss", &[]);
    let tokens = [&alice, &carol, &boss].map(FreshToken::line).join("\n");
    let access = config(&files.write("tokens", &tokens), &files.write("policy", RULES));
    let place = JournalPlace::Directory(files.path().join("journal"));
    let builder = || {
        let mut options = PushOptions::default();
        options.allow_private = true;
        let node = Node::builder().agent(waiter()).gateway(loopback()).access(access.clone());
        node.push_notifications(options).journal(JournalConfig::new(place.clone()))
    };
    let (node, to) = start(builder()).await;
    let mut tasks = Vec::new();
    for binding in Binding::ALL {
        let [alice, boss, carol] = [&alice, &boss, &carol].map(|token| {
            let bearer = format!("Bearer {}", token.secret());
            Peer::new(binding, to, None).with("authorization", &bearer)
        });
        let task = begin(&alice, message(json!([{ "text": "go" }]))).await;
        for (peer, id) in [(&boss, "boss"), (&alice, "alice")] {
            create(peer, &task, id).await.expect("it's kept");
        }
        is_only_of(&boss, &alice, &task, "boss").await;
        is_only_of(&alice, &boss, &task, "alice").await;
        for (peer, id) in [(&alice, "boss"), (&boss, "alice")] {
            let invalid = |field: &str| ("INVALID_PARAMS".to_owned(), Some(field.to_owned()));
            assert_eq!(field(create(peer, &task, id).await), invalid("id"), "{binding:?}");
            let delete = json!({ "taskId": task, "id": id });
            let deleted = peer.call("DeleteTaskPushNotificationConfig", delete).await;
            deleted.expect("as for what isn't there");
            let mut inline = send_to(URL, json!({ "id": id }));
            inline["message"]["taskId"] = json!(task);
            let root = "configuration.taskPushNotificationConfig.id";
            let refused = peer.call("SendMessage", inline.clone()).await;
            assert_eq!(field(refused), invalid(root), "{binding:?}");
            // Who may not see the task isn't told that there is one.
            let refused = field(carol.call("SendMessage", inline).await);
            assert_eq!(refused, ("TASK_NOT_FOUND".to_owned(), None), "{binding:?}");
        }
        is_only_of(&boss, &alice, &task, "boss").await;
        is_only_of(&alice, &boss, &task, "alice").await;
        tasks.push(task);
    }
    node.stop().await;
    drop(node);

    let (node, to) = start(builder()).await;
    let [alice, boss] = [&alice, &boss].map(|token| crate::push_rights::peer(to, token));
    for task in &tasks {
        is_only_of(&boss, &alice, task, "boss").await;
        is_only_of(&alice, &boss, task, "alice").await;
    }
    // So many of one's own, whatever others have.
    for number in 1..17 {
        let created = create(&alice, &tasks[0], &number.to_string()).await;
        assert_eq!(created.is_err(), number == 16, "{number}: {created:?}");
    }
    create(&boss, &tasks[0], "more").await.expect("it has one");
    node.stop().await;
}
