//! What a principal may have at once, and at which level programs run for it, asked from outside.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use neuroflow::actors::{AccessConfig, FreshToken, Limits, RulesSource};
use neuroflow::{AgentBuilder, Answer, Node};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::access::{Files, token};
use crate::client::{Connection, Events, Response, message, post, request, task_of};
use crate::support::{caller, loopback, output, pause, profile, standard, start};

fn bytes(token: &FreshToken, method: &str, params: Value) -> Vec<u8> {
    let bearer = format!("Bearer {}", token.secret());
    post("/", &[("authorization", &bearer)], &request(method, params))
}

async fn ask(to: SocketAddr, token: &FreshToken, method: &str, params: Value) -> Response {
    let mut connection = Connection::open(to).await;
    connection.send(&bytes(token, method, params)).await.expect("it is sent");
    connection.receive().await.expect("an answer")
}

async fn stream(to: SocketAddr, token: &FreshToken) -> Result<Events, Response> {
    let params = message(json!([{ "text": "go" }]));
    Connection::open(to).await.events(&bytes(token, "SendStreamingMessage", params)).await
}

#[tokio::test]
async fn a_principal_has_so_many_requests_at_a_time_and_streams_count_while_they_last() {
    let files = Files::fresh();
    let (busy, other) = (token("busy", &[]), token("other", &[]));
    let mut access = AccessConfig::default();
    access.tokens = Some(files.write("tokens", &[busy.line(), other.line()].join("\n")));
    let all = "permit(principal, action, resource);";
    access.rules = RulesSource::File(files.write("policy", all));
    access.limits = Limits { concurrent: NonZeroU32::new(2), ..Limits::default() };
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let agent = AgentBuilder::new("gated", "Waits at a gate.").on_ask(move |_, _| {
        let gate = Arc::clone(&held);
        async move {
            gate.acquire().await.expect("a gate").forget();
            Ok(Answer::text("through"))
        }
    });
    let builder = Node::builder().agent(agent).gateway(loopback()).access(access);
    let (node, to) = start(builder).await;
    let mut first = stream(to, &busy).await.expect("a stream");
    let second = stream(to, &busy).await.expect("a stream");
    // A third one isn't let in, whatever it asks for and by whatever binding.
    let refused = ask(to, &busy, "ListTasks", json!({})).await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    let answer = refused.json();
    assert_eq!(answer["error"]["data"][0]["metadata"]["code"], "throttled", "{answer}");
    let bearer = format!("Bearer {}", busy.secret());
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/grpc")];
    let path = "/lf.a2a.v1.A2AService/ListTasks";
    let grpc = Connection::open(to).await.post_with(path, &headers, b"").await;
    assert_eq!((grpc.status, grpc.header("grpc-status")), (200, Some("8")));
    // Others have places of their own, and what is open to all costs none.
    assert_eq!(ask(to, &other, "ListTasks", json!({})).await.status, 200);
    assert_eq!(Connection::open(to).await.get("/healthz").await.status, 200);
    // A stream that is given up gives its place back, and so does one that comes to its end.
    drop(second);
    until_let_in(to, &busy).await;
    let third = stream(to, &busy).await.expect("a stream");
    assert_eq!(ask(to, &busy, "ListTasks", json!({})).await.status, 429);
    gate.add_permits(3);
    while first.next().await.is_some() {}
    until_let_in(to, &busy).await;
    drop(third);
    node.stop().await;
}

async fn until_let_in(to: SocketAddr, token: &FreshToken) {
    for _ in 0..1_000 {
        if ask(to, token, "ListTasks", json!({})).await.status == 200 {
            return;
        }
        pause(20).await;
    }
    panic!("its place isn't given back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_run_for_who_may_run_them_at_the_level_that_there_is() {
    let files = Files::fresh();
    let (any, strict, none) = (token("any", &[]), token("strict", &[]), token("none", &[]));
    let mut access = AccessConfig::default();
    let lines = [any.line(), strict.line(), none.line()].join("\n");
    access.tokens = Some(files.write("tokens", &lines));
    access.rules = RulesSource::File(files.write(
        "policy",
        r#"
        permit(principal, action == Action::"ask", resource);
        permit(principal, action == Action::"call_tool", resource == Tool::"exec");
        permit(principal == Token::"any", action == Action::"run_level", resource);
        permit(principal == Token::"strict", action == Action::"run_level", resource)
        when { resource.rank >= 2 };
        "#,
    ));
    // Its cells are of the level `standard`, which has the rank 1.
    let agent = caller(AgentBuilder::new("caller", "Calls.").shared_tool("exec"));
    let builder = Node::builder().agent(agent).sandbox(profile(standard()));
    let (node, to) = start(builder.gateway(loopback()).access(access)).await;
    let command = json!({ "tool": "exec", "arguments": { "command": ["echo", "in a cell"] } });
    let run = async |token: &FreshToken| {
        let params = message(json!([{ "data": command }]));
        let answer = ask(to, token, "SendMessage", params).await;
        output(&task_of(answer.json())).to_owned()
    };
    let ran = run(&any).await;
    assert!(ran.starts_with("done: ") && ran.contains("in a cell"), "{ran}");
    for token in [&strict, &none] {
        let refused = run(token).await;
        assert!(refused.starts_with("unknown_tool: "), "{refused}");
    }
    node.stop().await;
}
