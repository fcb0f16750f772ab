//! A stream doesn't outlive the credential that it was opened with, nor the policy that allowed it; its
//! task does.

use std::time::{Duration, SystemTime};

use neuroflow::actors::{AccessConfig, FreshToken, RulesSource, TokenName};
use neuroflow::{AgentBuilder, Answer, ManualClock, Node, NodeBuilder};
use serde_json::{Value, json};

use crate::access::{Files, TestIssuer, token};
use crate::client::message;
use crate::protocol::{Binding, Fault, Peer, Updates};
use crate::support::{loopback, start};

/// An agent whose tasks don't end by themselves.
fn node(access: AccessConfig) -> NodeBuilder {
    let slow = AgentBuilder::new("slow", "Is at it.").on_ask(|_, context| async move {
        context.say("at it").await?;
        std::future::pending::<()>().await;
        Ok(Answer::text("never"))
    });
    Node::builder().agent(slow).gateway(loopback()).access(access)
}

fn access(files: &Files, tokens: &str, policy: &str) -> AccessConfig {
    let mut access = AccessConfig::default();
    access.tokens = Some(files.write("tokens", tokens));
    access.rules = RulesSource::File(files.write("policy", policy));
    access
}

const ALL: &str = "permit(principal, action, resource);";

/// A stream of a fresh task, and another one of the same task.
async fn open(peer: &Peer) -> (String, Updates, Updates) {
    let params = message(json!([{ "text": "begin" }]));
    let mut stream = peer.stream("SendStreamingMessage", params).await.expect("a stream");
    let first = stream.next().await.expect("the task");
    let task = first["task"]["id"].as_str().expect("an id").to_owned();
    let more = peer.stream("SubscribeToTask", json!({ "id": task })).await.expect("a stream");
    (task, stream, more)
}

fn code(binding: Binding, [rpc, rest, grpc]: [i64; 3]) -> i64 {
    match binding {
        Binding::Rpc => rpc,
        Binding::Rest => rest,
        Binding::Grpc => grpc,
    }
}

#[track_caller]
fn unauthenticated(binding: Binding, fault: &Fault) {
    let expected = (code(binding, [-32600, 401, 16]), "UNAUTHENTICATED");
    assert_eq!((fault.code, fault.reason.as_str()), expected, "{binding:?} {fault:?}");
    assert_eq!(
        fault.message,
        "the credential that this was opened with isn't good any more; bring a fresh one"
    );
}

async fn state(peer: &Peer, task: &str) -> Value {
    peer.call("GetTask", json!({ "id": task })).await.expect("the task")["status"]["state"].clone()
}

#[tokio::test]
async fn streams_end_with_the_bearer_token_and_others_go_on() {
    let files = Files::fresh();
    let (ci, other) = (token("ci", &[]), token("other", &[]));
    let both = format!("{}\n{}", ci.line(), other.line());
    let (node, to) = start(node(access(&files, &both, ALL))).await;
    let mut open_streams = Vec::new();
    for binding in Binding::ALL {
        let bearer = format!("Bearer {}", ci.secret());
        let peer = Peer::new(binding, to, None).with("authorization", &bearer);
        open_streams.push((binding, open(&peer).await));
    }
    let bearer = format!("Bearer {}", other.secret());
    let others = Peer::new(Binding::Rpc, to, None).with("authorization", &bearer);
    let (kept, _stream, mut more) = open(&others).await;

    files.write("tokens", other.line());
    for (binding, (_, stream, more)) in &mut open_streams {
        unauthenticated(*binding, &stream.fault().await);
        unauthenticated(*binding, &more.fault().await);
    }
    // Who was not meant hears on, and of the task's own end.
    others.call("CancelTask", json!({ "id": kept })).await.expect("canceled");
    let rest = more.rest().await;
    let last = rest.last().expect("an update");
    assert_eq!(last["statusUpdate"]["status"]["state"], "TASK_STATE_CANCELED", "{rest:?}");
    node.stop().await;
}

#[tokio::test]
async fn streams_end_when_a_tokens_time_is_over_and_the_task_goes_on() {
    let files = Files::fresh();
    let issuer = TestIssuer::start().await;
    let (time, life) = (ManualClock::new(), Duration::from_mins(10));
    let name = TokenName::new("brief").expect("a name");
    let ends = SystemTime::UNIX_EPOCH + ManualClock::WALL_ORIGIN + life;
    let brief = FreshToken::generate(&name, &[], Some(ends)).expect("randomness");
    let other = token("other", &[]);
    let mut access = access(&files, &format!("{}\n{}", brief.line(), other.line()), ALL);
    access.issuer = issuer.config(&files.path().join("policy")).issuer;
    let (node, to) = start(node(access).clock(time.clock())).await;
    let bearer = |secret: &str| format!("Bearer {secret}");
    let supervisor =
        Peer::new(Binding::Rpc, to, None).with("authorization", &bearer(other.secret()));

    // The issuer's clock is the machine's, and the node's stands still long ago.
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("a time");
    let ago = now.checked_sub(ManualClock::WALL_ORIGIN).expect("it is later").as_secs();
    let ago = i64::try_from(ago).expect("it fits");
    let claims = json!({ "iat": -ago, "exp": 600 - ago });
    let jwt = issuer.sign(Some("k1"), &claims);
    let mut open_streams = Vec::new();
    for binding in Binding::ALL {
        for secret in [brief.secret(), &jwt] {
            let peer = Peer::new(binding, to, None).with("authorization", &bearer(secret));
            open_streams.push((binding, open(&peer).await));
        }
    }
    // With the issuer's skew, which is a minute.
    time.advance(life + Duration::from_secs(62));
    for (binding, (task, stream, more)) in &mut open_streams {
        unauthenticated(*binding, &stream.fault().await);
        unauthenticated(*binding, &more.fault().await);
        assert_eq!(state(&supervisor, task).await, "TASK_STATE_WORKING");
        supervisor.call("CancelTask", json!({ "id": task })).await.expect("canceled");
    }
    node.stop().await;
}

#[tokio::test]
async fn streams_end_when_the_policy_takes_their_right_away() {
    let files = Files::fresh();
    let ci = token("ci", &[]);
    let (node, to) = start(node(access(&files, ci.line(), ALL))).await;
    let mut open_streams = Vec::new();
    for binding in Binding::ALL {
        let bearer = format!("Bearer {}", ci.secret());
        let peer = Peer::new(binding, to, None).with("authorization", &bearer);
        open_streams.push((binding, open(&peer).await));
    }
    // One may ask still, and read no more.
    files.write("policy", "permit(principal, action == Action::\"ask\", resource);");
    for (binding, (_, stream, more)) in &mut open_streams {
        let fault = more.fault().await;
        let expected = code(*binding, [-32600, 403, 7]);
        assert_eq!(fault.code, expected, "{binding:?} {fault:?}");
        assert!(fault.message.starts_with("you may not read"), "{fault:?}");
        // It needs no more than the right to ask.
        let told = stream.next().await.expect("an update");
        assert!(told.get("statusUpdate").is_some(), "{told}");
    }
    node.stop().await;
}
