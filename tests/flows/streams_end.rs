//! A stream doesn't outlive the credential that it was opened with, nor the policy that allowed it; its
//! task does, unless nobody could ever ask for it again.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use neuroflow::actors::limits::UNKNOWN_KEY_PAUSE;
use neuroflow::actors::{AccessConfig, FreshToken, RulesSource, TokenName};
use neuroflow::{AgentBuilder, Answer, ManualClock, Node, NodeBuilder};
use serde_json::{Value, json};

use crate::access::{Files, call, token};
use crate::client::{Connection, Events, message, post};
use crate::protocol::{Binding, Fault, Peer, Updates};
use crate::support::{eventually, loopback, start};
use crate::token_issuer::TestIssuer;

/// An agent whose tasks don't end by themselves.
fn node(access: AccessConfig) -> NodeBuilder {
    let slow = AgentBuilder::new("slow", "Is at it.").on_ask(|_, context| async move {
        context.say("at it").await?;
        std::future::pending::<()>().await;
        Ok(Answer::text("never"))
    });
    // Its tasks are never done.
    Node::builder().agent(slow).gateway(loopback()).access(access).drain_within(Duration::ZERO)
}

fn access(files: &Files, tokens: &str, policy: &str) -> AccessConfig {
    let mut access = AccessConfig::default();
    access.tokens = Some(files.write("tokens", tokens));
    access.rules = RulesSource::File(files.write("policy", policy));
    access
}

/// The times of a token that is good for the first ten minutes of a manual clock: the issuer's clock is
/// the machine's, and the node's stands still long ago.
pub(crate) fn ten_minutes() -> Value {
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("a time");
    let ago = now.checked_sub(ManualClock::WALL_ORIGIN).expect("it is later").as_secs();
    let ago = i64::try_from(ago).expect("it fits");
    json!({ "iat": -ago, "exp": 600 - ago })
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

    let jwt = issuer.sign(Some("k1"), &ten_minutes());
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

#[tokio::test]
async fn streams_end_when_the_policy_leaves_the_right_to_another_skill_alone() {
    let files = Files::fresh();
    let ci = token("ci", &[]);
    let asks = r#"permit(principal, action == Action::"ask", resource);"#;
    let (node, to) = start(node(access(&files, ci.line(), asks))).await;
    let bearer = format!("Bearer {}", ci.secret());
    let mut open_streams = Vec::new();
    for binding in Binding::ALL {
        let peer = Peer::new(binding, to, None).with("authorization", &bearer);
        let mut asked = message(json!([{ "text": "begin" }]));
        let whole = peer.stream("SendStreamingMessage", asked.clone()).await.expect("a stream");
        asked["message"]["metadata"] = json!({ "skill": "slow" });
        let part = peer.stream("SendStreamingMessage", asked).await.expect("a stream");
        open_streams.push((binding, whole, part));
    }
    let mut chat = Chat::open(to, ci.secret()).await;
    let policy = r#"permit(principal, action == Action::"ask", resource == Skill::"slow");"#;
    files.write("policy", policy);
    for (binding, whole, part) in &mut open_streams {
        let fault = whole.fault().await;
        assert_eq!(fault.code, code(*binding, [-32600, 403, 7]), "{binding:?} {fault:?}");
        assert!(fault.message.starts_with("you may not ask"), "{fault:?}");
        while !part.next().await.expect("an update").to_string().contains("at it") {}
    }
    let last = chat.last().await;
    let said = last["error"]["message"].as_str().unwrap_or_default();
    assert!(said.starts_with("you may not ask"), "{last}");
    // Those that asked for the skill hear on.
    eventually("the end of the chat's task alone", || running(&node) == 6).await;
    for (_, _, part) in &mut open_streams {
        let clock = neuroflow::Clock::system();
        let more = clock.before(clock.now() + Duration::from_millis(50), part.next()).await;
        assert!(more.is_err(), "nothing is said, and it goes on: {more:?}");
    }
    node.stop().await;
}

#[tokio::test]
async fn streams_end_when_the_issuer_withdraws_the_key_of_their_token() {
    let files = Files::fresh();
    let (issuer, fresh) = (TestIssuer::start().await, TestIssuer::start().await);
    let time = ManualClock::new();
    let access = issuer.config(&files.write("policy", ALL));
    let (node, to) = start(node(access).clock(time.clock())).await;
    let old = issuer.sign(Some("k1"), &ten_minutes());
    let mut open_streams = Vec::new();
    for binding in Binding::ALL {
        let peer = Peer::new(binding, to, None).with("authorization", &format!("Bearer {old}"));
        open_streams.push((binding, open(&peer).await));
    }
    let mut chat = Chat::open(to, &old).await;

    // The id is the same, the key isn't. The node hears of it when it looks, and a key that it doesn't
    // know is a reason to look.
    issuer.replace_key("k1", &fresh);
    time.advance(UNKNOWN_KEY_PAUSE);
    let unknown = issuer.sign_with(&fresh, "k2", &ten_minutes());
    let refused = call(to, "/", Some(&unknown), "ListTasks", json!({})).await;
    assert_eq!(refused.status, 401, "{}", refused.text());
    for (binding, (_, stream, more)) in &mut open_streams {
        unauthenticated(*binding, &stream.fault().await);
        unauthenticated(*binding, &more.fault().await);
    }
    assert_eq!(chat.last().await["error"]["code"], "credential_ended");
    // Nor is a request with such a token taken; one that is signed with the new key is.
    let new = issuer.sign_with(&fresh, "k1", &ten_minutes());
    for (token, status) in [(&old, 401), (&new, 200)] {
        let answer = call(to, "/", Some(token), "ListTasks", json!({})).await;
        assert_eq!(answer.status, status, "{}", answer.text());
    }
    node.stop().await;
}

/// A completion that has begun and doesn't end.
struct Chat(Events);

impl Chat {
    fn request(secret: &str, stream: bool) -> Vec<u8> {
        let body = json!({
            "model": "slow", "stream": stream,
            "messages": [{ "role": "user", "content": "begin" }],
        });
        let bearer = format!("Bearer {secret}");
        let headers = [("authorization", bearer.as_str())];
        post("/v1/chat/completions", &headers, body.to_string().as_bytes())
    }

    async fn open(to: SocketAddr, secret: &str) -> Self {
        let events = Connection::open(to).await.events(&Self::request(secret, true)).await;
        let mut events = events.unwrap_or_else(|refused| panic!("{}", refused.text()));
        let (_, first) = events.next().await.expect("a chunk");
        assert_eq!(first["choices"][0]["delta"]["role"], "assistant", "{first}");
        Self(events)
    }

    /// The last event of the stream, which has ended.
    async fn last(&mut self) -> Value {
        let rest = self.0.rest().await;
        rest.last().expect("a last word").1.clone()
    }
}

fn running(node: &Node) -> usize {
    let tree = node.census().tree();
    tree.iter().filter(|actor| actor.path.to_string().starts_with("/agents/slow/")).count()
}

#[tokio::test]
async fn completions_end_with_the_bearer_token_and_so_do_their_tasks() {
    let files = Files::fresh();
    let (ci, other) = (token("ci", &[]), token("other", &[]));
    let both = format!("{}\n{}", ci.line(), other.line());
    let (node, to) = start(node(access(&files, &both, ALL))).await;
    let mut stream = Chat::open(to, ci.secret()).await;
    let _kept = Chat::open(to, other.secret()).await;
    let mut whole = Connection::open(to).await;
    whole.send(&Chat::request(ci.secret(), false)).await.expect("it is sent");
    eventually("all tasks", || running(&node) == 3).await;

    files.write("tokens", other.line());
    let ended = json!({ "error": {
        "message": "the credential that this was opened with isn't good any more; bring a fresh one",
        "type": "authentication_error", "param": null, "code": "credential_ended",
    } });
    assert_eq!(stream.last().await, ended);
    let answer = whole.receive().await.expect("an answer");
    assert_eq!((answer.status, answer.json()), (401, ended));
    // Nobody could ask for them again, as for one whose client has gone away. Who was not meant goes on.
    eventually("the end of two tasks", || running(&node) == 1).await;
    node.stop().await;
}

#[tokio::test]
async fn completions_end_when_the_policy_takes_their_right_away() {
    let files = Files::fresh();
    let ci = token("ci", &[]);
    let (node, to) = start(node(access(&files, ci.line(), ALL))).await;
    let mut stream = Chat::open(to, ci.secret()).await;
    files.write("policy", "permit(principal, action == Action::\"read\", resource);");
    let last = stream.last().await;
    let message = last["error"]["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("you may not ask"), "{last}");
    node.stop().await;
}
