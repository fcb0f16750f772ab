//! Agents that a caller's policies don't let it see: no list, card or error of any binding tells of
//! them.

use std::net::SocketAddr;

use neuroflow::actors::{AccessConfig, ExtendedProfile, FreshToken, RulesSource};
use neuroflow::{AgentBuilder, Answer, AnyAgent, Echo, Node};
use serde_json::{Value, json};

use crate::access::{Files, token};
use crate::client::{Connection, Response, message, request};
use crate::protocol::{Binding, Fault, Peer};
use crate::support::{loopback, start};

/// A node with the agents `echo`, `quiet` and `other`, of which the token `dev` may use `echo` alone,
/// `boss` all, and `nobody` none.
struct Scene {
    node: Node,
    to: SocketAddr,
    dev: FreshToken,
    boss: FreshToken,
    nobody: FreshToken,
    _files: Files,
}

async fn scene() -> Scene {
    let files = Files::fresh();
    let (dev, boss) = (token("dev", &["dev"]), token("boss", &["boss"]));
    let nobody = token("nobody", &[]);
    let lines = [dev.line(), boss.line(), nobody.line()].join("\n");
    let mut access = AccessConfig::default();
    access.tokens = Some(files.write("tokens", &lines));
    access.rules = RulesSource::File(files.write(
        "policy",
        r#"
        permit(principal in Group::"dev", action in [Action::"ask", Action::"read"],
               resource in Agent::"echo");
        permit(principal in Group::"boss", action, resource);
        "#,
    ));
    let secret = |name: &str| {
        AgentBuilder::new(name, "Nobody knows it.")
            .profile(|profile| profile.extended = Some(ExtendedProfile::default()))
            .on_ask(|_, _| async { Ok(Answer::text("psst")) })
    };
    let builder = Node::builder().agent(AnyAgent::new(Echo));
    let builder = builder.agent(secret("quiet")).agent(secret("other")).gateway(loopback());
    let (node, to) = start(builder.access(access)).await;
    Scene { node, to, dev, boss, nobody, _files: files }
}

impl Scene {
    async fn get(&self, path: &str, who: Option<&FreshToken>, more: &str) -> Response {
        let bearer = who.map(|token| format!("authorization: Bearer {}\r\n", token.secret()));
        let bearer = bearer.unwrap_or_default();
        let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{bearer}{more}\r\n");
        let mut connection = Connection::open(self.to).await;
        connection.send(head.as_bytes()).await.expect("it is sent");
        connection.receive().await.expect("an answer")
    }

    async fn names(&self, who: &FreshToken) -> Vec<String> {
        let listed = self.get("/agents", Some(who), "").await;
        assert_eq!(listed.status, 200, "{}", listed.text());
        assert_eq!(listed.header("cache-control"), Some("private, no-cache"));
        assert_eq!(listed.header("last-modified"), None, "it changes with the policies");
        let listed = listed.json();
        let cards = listed["agents"].as_array().expect("agents").iter();
        cards.map(|card| card["name"].as_str().expect("a name").to_owned()).collect()
    }
}

#[tokio::test]
async fn the_directory_and_the_cards_are_those_that_the_caller_may_see() {
    let scene = scene().await;
    assert_eq!(scene.names(&scene.dev).await, ["echo"]);
    assert_eq!(scene.names(&scene.boss).await, ["echo", "quiet", "other"]);
    assert!(scene.names(&scene.nobody).await.is_empty());
    // What one has isn't sent again, and another's list is another document.
    let tag = |response: &Response| response.header("etag").expect("a tag").to_owned();
    let own = tag(&scene.get("/agents", Some(&scene.dev), "").await);
    let known = format!("if-none-match: {own}\r\n");
    assert_eq!(scene.get("/agents", Some(&scene.dev), &known).await.status, 304);
    assert_eq!(scene.get("/agents", Some(&scene.boss), &known).await.status, 200);

    let card = |name: &str| format!("/agents/{name}/.well-known/agent-card.json");
    let own = scene.get(&card("echo"), Some(&scene.dev), "").await;
    assert_eq!((own.status, own.header("cache-control")), (200, Some("private, no-cache")));
    assert_eq!(scene.get(&card("quiet"), Some(&scene.boss), "").await.status, 200);
    let told = |response: Response, name: &str| {
        assert_eq!(response.status, 404, "{}", response.text());
        response.text().replace(name, "NAME")
    };
    let hidden = told(scene.get(&card("quiet"), Some(&scene.dev), "").await, "quiet");
    let missing = told(scene.get(&card("none"), Some(&scene.dev), "").await, "none");
    assert_eq!(hidden, missing);
    assert!(hidden.contains("there are: echo\""), "{hidden}");
    // Without a credential none of them is told of, there or not.
    for name in ["echo", "quiet", "none"] {
        let asked = scene.get(&card(name), None, "").await;
        assert_eq!(asked.status, 401, "{name}");
        assert_eq!(asked.header("www-authenticate"), Some("Bearer realm=\"neuroflow\""));
    }
    // That of the node itself says how to prove who one is, and stays for everybody.
    assert_eq!(scene.get("/.well-known/agent-card.json", None, "").await.status, 200);
    scene.node.stop().await;
}

/// What a binding says of an agent that is named by the path, where it has one, or by the tenant.
async fn refused(peer: &Peer, operation: &str, tenant: Option<&str>) -> Fault {
    let mut params = match operation {
        "SendMessage" => message(json!([{ "text": "hello" }])),
        "GetTask" | "CancelTask" => json!({ "id": "t" }),
        "GetExtendedAgentCard" | "ListTasks" => json!({}),
        _ => json!({ "taskId": "t", "id": "c", "url": "https://example.org/" }),
    };
    if let Some(tenant) = tenant {
        params["tenant"] = json!(tenant);
    }
    peer.call(operation, params).await.expect_err("it's refused")
}

#[tokio::test]
async fn no_error_of_any_binding_tells_a_hidden_agent_from_one_that_is_not_there() {
    let scene = scene().await;
    let bearer = format!("Bearer {}", scene.dev.secret());
    let operations = [
        "SendMessage",
        "GetTask",
        "ListTasks",
        "CancelTask",
        "GetExtendedAgentCard",
        "CreateTaskPushNotificationConfig",
    ];
    for binding in Binding::ALL {
        for operation in operations {
            // By the path; gRPC has none and names the agent by the tenant.
            let at =
                |agent| Peer::new(binding, scene.to, Some(agent)).with("authorization", &bearer);
            let hidden = refused(&at("quiet"), operation, None).await;
            let missing = refused(&at("none0"), operation, None).await;
            same(binding, operation, hidden, missing);
            // By the tenant of the agent at the root.
            if binding == Binding::Rest && operation == "GetExtendedAgentCard" {
                continue;
            }
            let root = Peer::new(binding, scene.to, None).with("authorization", &bearer);
            let hidden = refused(&root, operation, Some("quiet")).await;
            let missing = refused(&root, operation, Some("none0")).await;
            same(binding, operation, hidden, missing);
        }
    }
    scene.node.stop().await;
}

#[track_caller]
fn same(binding: Binding, operation: &str, mut hidden: Fault, mut missing: Fault) {
    for fault in [&hidden, &missing] {
        // The one that is asked for is the client's own word.
        let others = fault.message.contains("other") || fault.message.matches("quiet").count() > 1;
        assert!(!others, "{binding:?} {operation}: {fault:?}");
    }
    hidden.message = hidden.message.replace("quiet", "NAME");
    missing.message = missing.message.replace("none0", "NAME");
    assert_eq!(hidden, missing, "{binding:?} {operation}");
}

#[tokio::test]
async fn a_root_that_is_hidden_has_no_name() {
    let scene = scene().await;
    let bearer = format!("Bearer {}", scene.nobody.secret());
    for binding in Binding::ALL {
        let root = Peer::new(binding, scene.to, None).with("authorization", &bearer);
        let fault = refused(&root, "SendMessage", None).await;
        assert_eq!(fault.message, "there is no agent \"/\" here; there are: none", "{binding:?}");
    }
    scene.node.stop().await;
}

#[tokio::test]
async fn a_model_that_is_hidden_is_not_there() {
    let scene = scene().await;
    let ask = |model: &'static str| {
        let body = json!({ "model": model, "messages": [{ "role": "user", "content": "hi" }] });
        let bearer = format!("Bearer {}", scene.dev.secret());
        async move {
            let mut connection = Connection::open(scene.to).await;
            let headers = [("authorization", bearer.as_str())];
            let path = "/v1/chat/completions";
            connection.post_with(path, &headers, body.to_string().as_bytes()).await
        }
    };
    assert_eq!(ask("echo").await.status, 200);
    let told = |response: Response, name: &str| {
        assert_eq!(response.status, 404, "{}", response.text());
        response.text().replace(name, "NAME")
    };
    let hidden = told(ask("quiet").await, "quiet");
    assert_eq!(hidden, told(ask("none0").await, "none0"));
    assert!(hidden.contains("model_not_found"), "{hidden}");
    for (name, status) in [("echo", 200), ("quiet", 404), ("none0", 404)] {
        let model = scene.get(&format!("/v1/models/{name}"), Some(&scene.dev), "").await;
        assert_eq!(model.status, status, "{name}");
    }
    scene.node.stop().await;
}

/// Granted to who has the right, refused in each binding's words to who hasn't and to who says nothing.
#[tokio::test]
async fn the_extended_card_is_for_who_may_describe() {
    let files = Files::fresh();
    let (reader, asker) = (token("reader", &[]), token("asker", &[]));
    let mut access = AccessConfig::default();
    access.tokens = Some(files.write("tokens", &[reader.line(), asker.line()].join("\n")));
    access.rules = RulesSource::File(files.write(
        "policy",
        r#"
        permit(principal == Token::"reader", action == Action::"describe", resource);
        permit(principal == Token::"asker", action == Action::"ask", resource);
        "#,
    ));
    let discreet = AgentBuilder::new("discreet", "Has secrets.")
        .profile(|profile| {
            let description = Some("Has told its secrets.".to_owned());
            profile.extended = Some(ExtendedProfile { description, ..Default::default() });
        })
        .on_ask(|_, _| async { Ok(Answer::done()) });
    let builder = Node::builder().agent(discreet).gateway(loopback()).access(access);
    let (node, to) = start(builder).await;
    let codes = [-32600, 403, 7];
    for (binding, forbidden) in Binding::ALL.into_iter().zip(codes) {
        let who = |token: &FreshToken| {
            let bearer = format!("Bearer {}", token.secret());
            Peer::new(binding, to, None).with("authorization", &bearer)
        };
        let card = who(&reader).call("GetExtendedAgentCard", json!({})).await.expect("a card");
        assert_eq!(card["description"], "Has told its secrets.", "{binding:?}");
        let denied = who(&asker).call("GetExtendedAgentCard", json!({})).await;
        let denied = denied.expect_err("it's refused");
        assert_eq!(denied.code, forbidden, "{binding:?}: {denied:?}");
        assert!(denied.message.starts_with("you may not describe"), "{denied:?}");
        // Who may describe may do nothing else.
        let message = message(json!([{ "text": "hello" }]));
        let denied = who(&reader).call("SendMessage", message).await.expect_err("it's refused");
        assert_eq!(denied.code, forbidden, "{binding:?}: {denied:?}");
    }
    let body = request("GetExtendedAgentCard", Value::Null);
    assert_eq!(Connection::open(to).await.post("/", &body).await.status, 401);
    let rest = Connection::open(to).await.get("/extendedAgentCard").await;
    assert_eq!((rest.status, &rest.json()["error"]["status"]), (401, &json!("UNAUTHENTICATED")));
    let path = "/lf.a2a.v1.A2AService/GetExtendedAgentCard";
    let headers = [("content-type", "application/grpc")];
    let grpc = Connection::open(to).await.post_with(path, &headers, b"").await;
    assert_eq!(grpc.header("grpc-status"), Some("16"));
    node.stop().await;
}
