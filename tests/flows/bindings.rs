//! Every operation does the same whatever binding it came by.

use neuroflow::actors::{Chunk, Extension};
use neuroflow::{AgentBuilder, Answer, AnyAgent, Artifact, Echo, Node, Turn};
use serde_json::{Value, json};

use crate::client::{Connection, message, post};
use crate::protocol::{Binding, Fault, Peer};
use crate::support::{loopback, start};
use crate::turns::curious;

/// Says a word, hands out an artifact in two pieces, and ends.
fn narrator() -> AnyAgent {
    AgentBuilder::new("narrator", "Tells as it goes.").on_ask(|ask, context| async move {
        context.say("listen").await?;
        let one = Artifact::text("story", "once ");
        let two = Artifact { id: one.id.clone(), ..Artifact::text("story", "upon") };
        context.artifact_chunk(one, Chunk::First).await?;
        context.artifact_chunk(two, Chunk::Last).await?;
        match ask.text().as_str() {
            "no" => Ok(Answer::rejected(Turn::agent("not that"))),
            _ => Ok(Answer::done().saying(Turn::agent("the end"))),
        }
    })
}

/// Waits until it's cancelled.
fn sleeper() -> AnyAgent {
    AgentBuilder::new("sleeper", "Waits.").on_ask(|_, _| async move {
        std::future::pending::<()>().await;
        Ok(Answer::done())
    })
}

fn strict() -> AnyAgent {
    AgentBuilder::new("strict", "Speaks an extension.")
        .profile(|profile| {
            profile.extensions = vec![
                Extension::new("https://example.org/ext/needed").required(),
                Extension::new("https://example.org/ext/wished"),
            ];
            profile.streaming = false;
        })
        .on_ask(|ask, _| async move {
            let extensions = ask.get().extensions.iter().map(ToString::to_string);
            Ok(Answer::text(extensions.collect::<Vec<_>>().join(" ")))
        })
}

fn node() -> neuroflow::NodeBuilder {
    let agents = [AnyAgent::new(Echo), narrator(), sleeper(), strict(), curious()];
    let node = agents.into_iter().fold(Node::builder(), neuroflow::NodeBuilder::agent);
    // Some of their tasks are left alone.
    node.gateway(loopback()).drain_within(std::time::Duration::ZERO)
}

fn text(text: &str) -> Value {
    message(json!([{ "text": text }]))
}

/// Without what differs from one task to the next, and with all numbers alike.
fn alike(mut value: Value) -> Value {
    match &mut value {
        Value::Object(members) => {
            for own in ["id", "taskId", "contextId", "messageId", "artifactId", "timestamp"] {
                members.remove(own);
            }
            for member in members.values_mut() {
                *member = alike(member.take());
            }
            // The generated code leaves required fields out if they're empty, and ours doesn't.
            members.retain(|_, member| *member != json!("") && *member != json!([]));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = alike(item.take())),
        Value::Number(number) => *number = json!(number.as_f64()).as_number().expect("one").clone(),
        _ => {}
    }
    value
}

fn id(answer: &Value) -> String {
    answer["task"]["id"].as_str().unwrap_or_else(|| panic!("no task in {answer}")).to_owned()
}

#[tokio::test]
async fn sending_getting_listing_and_cancelling_give_the_same_everywhere() {
    let (node, to) = start(node()).await;
    let mut seen: Vec<Vec<Value>> = Vec::new();
    for binding in Binding::ALL {
        let root = Peer::new(binding, to, None);
        let mut answers = Vec::new();
        let mut ask = text("hello");
        ask["message"]["contextId"] = json!(format!("{binding:?}"));
        ask["message"]["metadata"] = json!({ "n": [1, 2.5] });
        ask["message"]["extensions"] = json!(["e"]);
        ask["message"]["referenceTaskIds"] = json!(["r"]);
        let done = root.call("SendMessage", ask.clone()).await.expect("a task");
        let task = id(&done);
        answers.push(done);
        ask["configuration"] = json!({ "historyLength": 0 });
        answers.push(root.call("SendMessage", ask).await.expect("a task"));
        answers.push(root.call("GetTask", json!({ "id": task })).await.expect("the task"));
        let cut = json!({ "id": task, "historyLength": 0 });
        answers.push(root.call("GetTask", cut).await.expect("the task"));
        let query = json!({
            "contextId": format!("{binding:?}"), "pageSize": 1, "includeArtifacts": true,
            "status": "TASK_STATE_COMPLETED", "statusTimestampAfter": "2020-01-01T00:00:00Z",
        });
        let mut page = root.call("ListTasks", query.clone()).await.expect("a page");
        let mut next = query;
        next["pageToken"] = page["nextPageToken"].take();
        answers.push(page);
        answers.push(root.call("ListTasks", next).await.expect("the last page"));

        let sleeper = Peer::new(binding, to, Some("sleeper"));
        let mut ask = text("go");
        ask["configuration"] = json!({ "returnImmediately": true });
        let task = id(&sleeper.call("SendMessage", ask).await.expect("a task"));
        answers.push(sleeper.call("CancelTask", json!({ "id": task })).await.expect("the task"));
        let narrator = Peer::new(binding, to, Some("narrator"));
        answers.push(narrator.call("SendMessage", text("no")).await.expect("a task"));
        seen.push(answers.into_iter().map(alike).collect());
    }
    assert_eq!(seen[0], seen[1], "JSON-RPC and HTTP+JSON");
    assert_eq!(seen[0], seen[2], "JSON-RPC and gRPC");
    let state = |at: usize| seen[0][at]["status"]["state"].clone();
    assert_eq!(state(2), "TASK_STATE_COMPLETED");
    assert_eq!(seen[0][0]["task"]["history"][0]["metadata"]["n"][0], 1.0);
    assert_eq!(seen[0][1]["task"].get("history"), None);
    assert_eq!((&seen[0][4]["totalSize"], &seen[0][4]["pageSize"]), (&json!(2.0), &json!(1.0)));
    assert_eq!(seen[0][5].get("nextPageToken"), None);
    assert_eq!(state(6), "TASK_STATE_CANCELED");
    assert_eq!(seen[0][7]["task"]["status"]["state"], "TASK_STATE_REJECTED");
    assert_eq!(seen[0][7]["task"]["status"]["message"]["parts"][0]["text"], "not that");
    node.stop().await;
}

#[tokio::test]
async fn streams_give_the_same_everywhere() {
    let (node, to) = start(node()).await;
    let mut seen = Vec::new();
    for binding in Binding::ALL {
        let narrator = Peer::new(binding, to, Some("narrator"));
        let stream = narrator.stream("SendStreamingMessage", text("go")).await;
        let updates = stream.unwrap_or_else(|fault| panic!("{fault:?}")).rest().await;
        seen.push(updates.into_iter().map(alike).collect::<Vec<_>>());
    }
    assert_eq!(seen[0], seen[1], "JSON-RPC and HTTP+JSON");
    assert_eq!(seen[0], seen[2], "JSON-RPC and gRPC");
    let kinds = seen[0].iter().map(|update| {
        update.as_object().expect("an object").keys().next().expect("one member").as_str()
    });
    let kinds: Vec<_> = kinds.collect();
    let status = "statusUpdate";
    let artifact = "artifactUpdate";
    assert_eq!(kinds, ["task", status, status, artifact, artifact, status]);
    assert_eq!(seen[0][4]["artifactUpdate"]["append"], true);
    assert_eq!(seen[0][4]["artifactUpdate"]["lastChunk"], true);
    assert_eq!(seen[0][5]["statusUpdate"]["status"]["message"]["parts"][0]["text"], "the end");
    node.stop().await;
}

/// What goes wrong: its reason and field, and the code of each binding.
struct Wrong {
    agent: Option<&'static str>,
    operation: &'static str,
    params: Value,
    reason: &'static str,
    field: Option<&'static str>,
    codes: [i64; 3],
}

fn wrong(operation: &'static str, params: Value, reason: &'static str, codes: [i64; 3]) -> Wrong {
    Wrong { agent: None, operation, params, reason, field: None, codes }
}

fn invalid(operation: &'static str, params: Value, field: &'static str) -> Wrong {
    let (reason, codes) = ("INVALID_PARAMS", [-32602, 400, 3]);
    Wrong { field: Some(field), ..wrong(operation, params, reason, codes) }
}

/// The task of a blocking request.
async fn ended(to: std::net::SocketAddr, agent: Option<&'static str>) -> String {
    let peer = Peer::new(Binding::Rpc, to, agent);
    id(&peer.call("SendMessage", text("hello")).await.expect("a task"))
}

fn about(task: &str, context: &str) -> Value {
    let mut ask = text("more");
    ask["message"]["taskId"] = json!(task);
    ask["message"]["contextId"] = json!(context);
    ask
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table of errors")]
async fn errors_are_the_same_everywhere_with_the_code_of_each_binding() {
    let (node, to) = start(node()).await;
    let done = ended(to, None).await;
    let asked = ended(to, Some("curious")).await;
    let precondition = |code| [code, 400, 9];
    let config = json!({ "taskId": done, "url": "https://example.org" });
    let cases = vec![
        wrong("GetTask", json!({ "id": "none" }), "TASK_NOT_FOUND", [-32001, 404, 5]),
        wrong("CancelTask", json!({ "id": "none" }), "TASK_NOT_FOUND", [-32001, 404, 5]),
        wrong("SubscribeToTask", json!({ "id": "none" }), "TASK_NOT_FOUND", [-32001, 404, 5]),
        wrong("SendMessage", about("none", ""), "TASK_NOT_FOUND", [-32001, 404, 5]),
        wrong("CancelTask", json!({ "id": done }), "TASK_NOT_CANCELABLE", precondition(-32002)),
        wrong(
            "SubscribeToTask",
            json!({ "id": done }),
            "UNSUPPORTED_OPERATION",
            precondition(-32004),
        ),
        wrong("SendMessage", about(&done, ""), "UNSUPPORTED_OPERATION", precondition(-32004)),
        wrong(
            "SendStreamingMessage",
            about(&done, ""),
            "UNSUPPORTED_OPERATION",
            precondition(-32004),
        ),
        wrong("GetExtendedAgentCard", json!({}), "UNSUPPORTED_OPERATION", precondition(-32004)),
        wrong(
            "CreateTaskPushNotificationConfig",
            config,
            "PUSH_NOTIFICATION_NOT_SUPPORTED",
            precondition(-32003),
        ),
        wrong(
            "ListTaskPushNotificationConfigs",
            json!({ "taskId": done }),
            "PUSH_NOTIFICATION_NOT_SUPPORTED",
            precondition(-32003),
        ),
        wrong(
            "GetTaskPushNotificationConfig",
            json!({ "taskId": done, "id": "x" }),
            "PUSH_NOTIFICATION_NOT_SUPPORTED",
            precondition(-32003),
        ),
        wrong(
            "DeleteTaskPushNotificationConfig",
            json!({ "taskId": done, "id": "x" }),
            "PUSH_NOTIFICATION_NOT_SUPPORTED",
            precondition(-32003),
        ),
        Wrong {
            agent: Some("strict"),
            ..wrong("SendMessage", text("hi"), "EXTENSION_SUPPORT_REQUIRED", precondition(-32008))
        },
        Wrong {
            agent: Some("narrator"),
            field: Some("message.parts[0].mediaType"),
            ..wrong(
                "SendMessage",
                message(json!([{ "text": "x", "mediaType": "image/png" }])),
                "CONTENT_TYPE_NOT_SUPPORTED",
                [-32005, 400, 3],
            )
        },
        Wrong {
            agent: Some("curious"),
            ..invalid("SendMessage", about(&asked, "other"), "message.contextId")
        },
        invalid("SendMessage", json!({}), "message"),
        invalid(
            "SendMessage",
            json!({ "message": { "role": "ROLE_USER", "parts": [{ "text": "x" }] } }),
            "message.messageId",
        ),
        invalid(
            "SendMessage",
            json!({ "message": { "messageId": "m", "parts": [{ "text": "x" }] } }),
            "message.role",
        ),
        invalid(
            "SendMessage",
            json!({ "message": { "messageId": "m", "role": "ROLE_USER" } }),
            "message.parts",
        ),
        invalid("SendMessage", message(json!([{}])), "message.parts[0]"),
        invalid("ListTasks", json!({ "pageSize": 0 }), "pageSize"),
        invalid("ListTasks", json!({ "pageSize": 101 }), "pageSize"),
        invalid("ListTasks", json!({ "historyLength": -1 }), "historyLength"),
        invalid("ListTasks", json!({ "pageToken": "forged" }), "pageToken"),
        invalid("GetTask", json!({ "id": done, "historyLength": -1 }), "historyLength"),
    ];
    for case in cases {
        let mut said: Vec<Fault> = Vec::new();
        for (binding, code) in Binding::ALL.into_iter().zip(case.codes) {
            let peer = Peer::new(binding, to, case.agent);
            let name = format!("{binding:?} {} {}", case.operation, case.params);
            let fault = match case.operation {
                "SubscribeToTask" | "SendStreamingMessage" => {
                    peer.stream(case.operation, case.params.clone()).await.err()
                }
                _ => peer.call(case.operation, case.params.clone()).await.err(),
            };
            let fault = fault.unwrap_or_else(|| panic!("{name} isn't refused"));
            assert_eq!(
                (fault.code, fault.reason.as_str()),
                (code, case.reason),
                "{name}: {fault:?}"
            );
            assert_eq!(fault.field.as_deref(), case.field, "{name}: {fault:?}");
            said.push(fault);
        }
        assert!(said.iter().all(|fault| fault.message == said[0].message), "{said:?}");
    }
    // The first time that there is, which clients send for none.
    let first = json!({ "statusTimestampAfter": "0001-01-01T00:00:00Z" });
    for binding in Binding::ALL {
        let listed = Peer::new(binding, to, None).call("ListTasks", first.clone()).await;
        assert!(listed.is_ok(), "{binding:?}: {listed:?}");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_version_that_is_not_spoken_is_refused_everywhere() {
    let (node, to) = start(node()).await;
    for (version, spoken) in [
        ("1.0", true),
        ("1.0.7", true),
        ("1", false),
        ("", false),
        ("0.3", false),
        ("1.1", false),
        ("2.0", false),
        ("x", false),
    ] {
        for (binding, code) in Binding::ALL.into_iter().zip([-32009, 400, 9]) {
            let peer = Peer::new(binding, to, None).with("a2a-version", version);
            let answer = peer.call("ListTasks", json!({})).await;
            match answer {
                Ok(_) => assert!(spoken, "{binding:?} speaks {version:?}"),
                Err(fault) => {
                    let found = (fault.code, fault.reason.as_str());
                    assert_eq!(found, (code, "VERSION_NOT_SUPPORTED"), "{binding:?} {version:?}");
                    assert!(!spoken);
                }
            }
        }
    }
    node.stop().await;
}

#[tokio::test]
async fn extensions_that_both_speak_are_in_force() {
    let (node, to) = start(node()).await;
    let known = "https://example.org/ext/other, https://example.org/ext/needed";
    for binding in Binding::ALL {
        let peer = Peer::new(binding, to, Some("strict")).with("a2a-extensions", known);
        let done = peer.call("SendMessage", text("hi")).await.expect("a task");
        let text = &done["task"]["artifacts"][0]["parts"][0]["text"];
        assert_eq!(text, "https://example.org/ext/needed", "{binding:?}");
        let said = peer.activated(crate::bindings::text("hi")).await;
        assert_eq!(said.as_deref(), Some("https://example.org/ext/needed"), "{binding:?}");
        let plain = Peer::new(binding, to, None).with("a2a-extensions", known);
        assert_eq!(plain.activated(crate::bindings::text("hi")).await, None, "{binding:?}");
        let refused = peer.stream("SendStreamingMessage", crate::bindings::text("hi")).await;
        let fault = refused.err().expect("it doesn't stream");
        assert_eq!(fault.reason, "UNSUPPORTED_OPERATION");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_tenant_names_an_agent_and_anything_else_is_refused() {
    let (node, to) = start(node()).await;
    for binding in Binding::ALL {
        let root = Peer::new(binding, to, None);
        let mut ask = text("go");
        ask["tenant"] = json!("narrator");
        let done = root.call("SendMessage", ask.clone()).await.expect("a task");
        let task = id(&done);
        assert_eq!(done["task"]["artifacts"][0]["name"], "story", "{binding:?}");
        let by_tenant = json!({ "tenant": "narrator", "id": task });
        root.call("GetTask", by_tenant).await.expect("the task is the tenant's");
        let fault = root.call("GetTask", json!({ "id": task })).await.expect_err("it's another's");
        assert_eq!(fault.reason, "TASK_NOT_FOUND");
        ask["tenant"] = json!("nobody");
        let fault = root.call("SendMessage", ask).await.expect_err("there is no such tenant");
        assert_eq!(fault.reason, "INVALID_PARAMS", "{fault:?}");
        assert!(fault.message.contains("nobody"), "{fault:?}");
        if binding != Binding::Grpc {
            let echo = Peer::new(binding, to, Some("echo"));
            let fault = echo.call("ListTasks", json!({ "tenant": "narrator" })).await;
            let fault = fault.expect_err("the path names another");
            assert_eq!(fault.field.as_deref(), Some("tenant"), "{fault:?}");
        }
    }
    node.stop().await;
}

#[tokio::test]
async fn an_id_with_a_control_character_is_refused_by_its_name() {
    let (node, to) = start(node()).await;
    for binding in Binding::ALL {
        let root = Peer::new(binding, to, None);
        for control in ["\0", "\n", "\u{7f}", "\u{85}"] {
            let id = format!("a{control}b");
            for field in ["contextId", "taskId", "messageId"] {
                let mut ask = text("hello");
                ask["message"][field] = json!(id);
                let fault = root.call("SendMessage", ask).await.expect_err("it's refused");
                assert_eq!(fault.reason, "INVALID_PARAMS", "{binding:?} {fault:?}");
                assert_eq!(fault.field, Some(format!("message.{field}")), "{binding:?}");
            }
        }
        let listed = root.call("ListTasks", json!({})).await.expect("a page");
        assert_eq!(listed.get("tasks").map_or(0, |tasks| tasks.as_array().map_or(0, Vec::len)), 0);
    }
    node.stop().await;
}

#[tokio::test]
async fn a_tenant_of_the_query_or_of_an_optional_body_counts_as_well() {
    let (node, to) = start(node()).await;
    let narrator = Peer::new(Binding::Rest, to, Some("narrator"));
    let task = id(&narrator.call("SendMessage", text("go")).await.expect("a task"));
    let mut connection = Connection::open(to).await;
    let version = "A2A-Version=1.0";
    for (path, status) in [
        (format!("/tasks/{task}?{version}&tenant=narrator"), 200),
        (format!("/tasks/{task}?{version}"), 404),
        (format!("/tasks/{task}?{version}&tenant=echo"), 404),
        (format!("/narrator/tasks/{task}?{version}&tenant=narrator"), 200),
        (format!("/narrator/tasks/{task}?{version}&tenant=echo"), 400),
        (format!("/agents/narrator/tasks/{task}?{version}&tenant=narrator"), 200),
        (format!("/agents/narrator/tasks/{task}?{version}&tenant=echo"), 400),
        (format!("/tasks/{task}?{version}&tenant=narrator&tenant=narrator"), 400),
        (format!("/tasks/{task}?{version}&tenant=nobody"), 400),
    ] {
        let answer = connection.get(&path).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
    }
    let listed = connection.get(&format!("/tasks?{version}&tenant=narrator")).await.json();
    assert_eq!((&listed["totalSize"], &listed["tasks"][0]["id"]), (&json!(1), &json!(task)));
    assert_eq!(connection.get(&format!("/tasks?{version}")).await.json()["totalSize"], 0);

    // A message has its tenant in its body; one in the query must be the same.
    let mut ask = text("go");
    let send = |ask: &Value, query: &str| {
        post(&format!("/message:send?{query}"), &[], ask.to_string().as_bytes())
    };
    for (body, query, status) in [
        ("", "tenant=narrator", 200),
        ("narrator", "tenant=narrator", 200),
        ("narrator", "tenant=echo", 400),
    ] {
        ask["tenant"] = json!(body);
        connection.send(&send(&ask, query)).await.expect("it's sent");
        let answer = connection.receive().await.expect("an answer");
        assert_eq!(answer.status, status, "{body:?} {query}: {}", answer.text());
        if status == 200 {
            assert_eq!(answer.json()["task"]["artifacts"][0]["name"], "story");
        }
    }

    // A subscription may have a body, and what that says counts.
    let mut ask = text("go");
    ask["configuration"] = json!({ "returnImmediately": true });
    let sleeper = Peer::new(Binding::Rest, to, Some("sleeper"));
    let task = id(&sleeper.call("SendMessage", ask).await.expect("a task"));
    let subscribe = |query: &str, body: Value| {
        let path = format!("/tasks/{task}:subscribe?{query}");
        let body = if body.is_null() { String::new() } else { body.to_string() };
        post(&path, &[], body.as_bytes())
    };
    for request in [
        subscribe("", json!({ "tenant": "sleeper" })),
        subscribe("", json!({ "tenant": "sleeper", "id": task })),
        subscribe("tenant=sleeper", Value::Null),
        subscribe("tenant=sleeper", json!({ "tenant": "sleeper" })),
    ] {
        let stream = Connection::open(to).await.events(&request).await;
        let mut stream = stream.unwrap_or_else(|answer| panic!("{}", answer.text()));
        let (_, first) = stream.next().await.expect("the task");
        assert_eq!(first["task"]["id"], task);
    }
    for (request, status) in [
        (subscribe("", Value::Null), 404),
        (subscribe("", json!({ "tenant": "sleeper", "id": "other" })), 400),
        (subscribe("tenant=echo", json!({ "tenant": "sleeper" })), 400),
        (subscribe("", json!({ "tenant": 7 })), 400),
    ] {
        let refused = Connection::open(to).await.events(&request).await.err().expect("refused");
        assert_eq!(refused.status, status, "{}", refused.text());
    }
    node.stop().await;
}
