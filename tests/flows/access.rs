//! Who asks and what they may: tokens, JWTs of an issuer, policies that change, limits.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use neuroflow::actors::{
    AccessConfig, Action, CedarPolicies, FreshToken, Limits, Principal, Rules, RulesSource, Target,
    TokenName, access_child,
};
use neuroflow::{
    AgentBuilder, Answer, AnyAgent, AnyTool, BootError, Echo, GatewayConfig, Kernel, McpServer,
    Node, NodeBuilder,
};
use serde_json::{Value, json};

use crate::client::{Connection, Response, message, request, task_of};
use crate::protocol::{Binding, Peer};
use crate::support::{Nothing, caller, loopback, output, start, state};
use crate::token_issuer::{TestIssuer, base64url};

/// A directory of its own, gone with the test.
pub(crate) struct Files(PathBuf);

impl Files {
    pub(crate) fn fresh() -> Self {
        let path =
            std::env::temp_dir().join(format!("neuroflow-access-{}", crate::support::marker()));
        std::fs::create_dir(&path).expect("a directory");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        // Renamed into place, as whoever changes such a file should.
        let fresh = self.0.join(format!("{name}.fresh"));
        std::fs::write(&fresh, text).expect("a file");
        std::fs::rename(&fresh, &path).expect("a file");
        path
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _left = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn token(name: &str, groups: &[&str]) -> FreshToken {
    let groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
    let name = TokenName::new(name).expect("a name");
    FreshToken::generate(&name, &groups, None).expect("randomness")
}

pub(crate) fn config(tokens: &Path, policy: &Path) -> AccessConfig {
    let mut config = AccessConfig::default();
    config.tokens = Some(tokens.to_owned());
    config.rules = RulesSource::File(policy.to_owned());
    config
}

pub(crate) fn node(access: AccessConfig) -> NodeBuilder {
    let quiet = AgentBuilder::new("quiet", "Nobody knows it.")
        .on_ask(|_, _| async { Ok(neuroflow::Answer::text("psst")) });
    Node::builder().agent(AnyAgent::new(Echo)).agent(quiet).gateway(loopback()).access(access)
}

pub(crate) const ALL: &str = "permit(principal, action, resource);";

pub(crate) async fn ask(to: SocketAddr, path: &str, credential: Option<&str>) -> Response {
    call(to, path, credential, "SendMessage", message(json!([{ "text": "hello" }]))).await
}

pub(crate) async fn call(
    to: SocketAddr,
    path: &str,
    credential: Option<&str>,
    method: &str,
    params: Value,
) -> Response {
    let bearer = credential.map(|token| format!("Bearer {token}"));
    let headers: Vec<(&str, &str)> =
        bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
    let mut connection = Connection::open(to).await;
    connection.post_with(path, &headers, &request(method, params)).await
}

#[track_caller]
fn unauthenticated(response: &Response, challenge: &str, code: &str) {
    assert_eq!(response.status, 401, "{}", response.text());
    assert_eq!(response.header("www-authenticate"), Some(challenge));
    let answer = response.json();
    assert_eq!((&answer["jsonrpc"], &answer["id"]), (&json!("2.0"), &Value::Null), "{answer}");
    assert_eq!(answer["error"]["data"][0]["reason"], "UNAUTHENTICATED", "{answer}");
    assert_eq!(answer["error"]["data"][0]["metadata"]["code"], code, "{answer}");
}

fn invalid(text: &str) -> String {
    format!("Bearer realm=\"neuroflow\", error=\"invalid_token\", error_description=\"{text}\"")
}

#[tokio::test]
async fn a_token_says_who_asks_and_without_one_nothing_is_told() {
    let files = Files::fresh();
    let (ci, other) = (token("ci", &[]), token("other", &[]));
    let (tokens, policy) = (files.write("tokens", ci.line()), files.write("policy", ALL));
    let (node, to) = start(node(config(&tokens, &policy))).await;

    let response = ask(to, "/", Some(ci.secret())).await;
    assert_eq!(output(&task_of(response.json())), "hello");
    unauthenticated(&ask(to, "/", None).await, "Bearer realm=\"neuroflow\"", "missing");
    let unknown = ask(to, "/", Some(other.secret())).await;
    unauthenticated(&unknown, &invalid("the token isn't known"), "unknown_token");
    let hash = ci.line().split("sha256:").nth(1).expect("a hash");
    assert_eq!(ask(to, "/", Some(hash)).await.status, 401);
    let long = "a".repeat(16 * 1024 + 1);
    let too_long = ask(to, "/", Some(&long)).await;
    assert_eq!((too_long.status, too_long.header("www-authenticate").is_some()), (401, true));
    // What is for everybody stays so, and the card says how to prove who one is.
    let mut open = Connection::open(to).await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(open.get(path).await.status, 200, "{path}");
    }
    let card = open.get("/.well-known/agent-card.json").await.json();
    let scheme = &card["securitySchemes"]["bearer"]["httpAuthSecurityScheme"];
    assert_eq!(scheme["scheme"], "Bearer", "{card}");
    assert_eq!(open.get("/agents").await.status, 401);
    node.stop().await;
}

#[tokio::test]
async fn each_binding_is_refused_in_its_own_words() {
    let files = Files::fresh();
    let (tokens, policy) = (files.write("tokens", ""), files.write("policy", ALL));
    let (node, to) = start(node(config(&tokens, &policy))).await;
    let mut connection = Connection::open(to).await;
    let rest = connection.post("/message:send", b"{}").await;
    assert_eq!((rest.status, &rest.json()["error"]["status"]), (401, &json!("UNAUTHENTICATED")));
    let openai = connection.post("/v1/chat/completions", b"{}").await;
    let kind = &openai.json()["error"]["type"];
    assert_eq!((openai.status, kind), (401, &json!("authentication_error")));
    let path = "/lf.a2a.v1.A2AService/SendMessage";
    let grpc = connection.post_with(path, &[("content-type", "application/grpc")], b"").await;
    assert_eq!((grpc.status, grpc.header("grpc-status")), (200, Some("16")));
    assert_eq!(grpc.header("content-type"), Some("application/grpc"));
    node.stop().await;
}

#[tokio::test]
async fn what_no_policy_permits_is_denied_and_what_may_not_be_seen_is_not_there() {
    let files = Files::fresh();
    let (dev, boss) = (token("dev", &["dev"]), token("boss", &["boss"]));
    let tokens = files.write("tokens", &format!("{}\n{}\n", dev.line(), boss.line()));
    let policy = files.write(
        "policy",
        r#"
        permit(principal in Group::"dev", action in [Action::"ask", Action::"read"],
               resource in Agent::"echo");
        permit(principal in Group::"boss", action, resource);
        "#,
    );
    let (node, to) = start(node(config(&tokens, &policy))).await;
    let task = task_of(ask(to, "/agents/echo", Some(dev.secret())).await.json());
    let id = json!({ "id": task["id"] });
    // It may read its task and not cancel it.
    let read = call(to, "/agents/echo", Some(dev.secret()), "GetTask", id.clone()).await;
    assert_eq!(read.json()["result"]["id"], task["id"]);
    let cancel = call(to, "/agents/echo", Some(dev.secret()), "CancelTask", id.clone()).await;
    let error = &cancel.json()["error"];
    assert_eq!((cancel.status, &error["code"]), (403, &json!(-32600)), "{error}");
    // An agent that it may do nothing with isn't there for it, nor named.
    let hidden = ask(to, "/agents/quiet", Some(dev.secret())).await;
    let missing = ask(to, "/agents/none", Some(dev.secret())).await;
    let told = |response: &Response, name: &str| {
        assert_eq!(response.status, 404, "{}", response.text());
        response.json()["error"]["message"].as_str().expect("a text").replace(name, "NAME")
    };
    assert_eq!(told(&hidden, "quiet"), told(&missing, "none"));
    let shown = ask(to, "/agents/quiet", Some(boss.secret())).await;
    assert_eq!(output(&task_of(shown.json())), "psst");
    // Tasks of others are seen by who may supervise.
    let seen = call(to, "/agents/echo", Some(boss.secret()), "GetTask", id).await;
    assert_eq!(seen.json()["result"]["id"], task["id"]);
    let own = task_of(ask(to, "/agents/echo", Some(boss.secret())).await.json());
    let id = json!({ "id": own["id"] });
    let unseen = call(to, "/agents/echo", Some(dev.secret()), "GetTask", id).await;
    assert_eq!(unseen.json()["error"]["code"], -32001);
    // The same in the other bindings.
    let models = |secret: String| async move {
        let mut connection = Connection::open(to).await;
        let head = format!(
            "GET /v1/models HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {secret}\r\n\r\n"
        );
        connection.send(head.as_bytes()).await.expect("it is sent");
        connection.receive().await.expect("an answer").json()["data"].as_array().map(Vec::len)
    };
    assert_eq!(models(dev.secret().to_owned()).await, Some(1));
    assert_eq!(models(boss.secret().to_owned()).await, Some(2));
    node.stop().await;
}

#[tokio::test]
async fn a_skill_is_asked_for_by_name() {
    let files = Files::fresh();
    let dev = token("dev", &[]);
    let tokens = files.write("tokens", dev.line());
    let policy = files.write(
        "policy",
        r#"permit(principal, action == Action::"ask", resource == Skill::"echo");"#,
    );
    let (node, to) = start(node(config(&tokens, &policy))).await;
    let with = |skill: Option<&str>| {
        let mut params = message(json!([{ "text": "hello" }]));
        if let Some(skill) = skill {
            params["message"]["metadata"] = json!({ "skill": skill });
        }
        params
    };
    for (skill, status) in [(Some("echo"), 200), (Some("other"), 403), (None, 403)] {
        let response = call(to, "/", Some(dev.secret()), "SendMessage", with(skill)).await;
        assert_eq!(response.status, status, "{skill:?} {}", response.text());
    }
    node.stop().await;
}

/// Whom policies let watch over others, whom of those they forbid something, and a skill for nobody.
const OVERSEERS: &str = r#"
    permit(principal == Token::"alice", action, resource);
    permit(principal in Group::"ops", action in [Action::"ask", Action::"supervise"],
           resource == Agent::"slow");
    forbid(principal == Token::"eyes", action == Action::"cancel", resource);
    forbid(principal == Token::"blind", action in [Action::"read", Action::"cancel"], resource);
    forbid(principal, action == Action::"ask", resource == Skill::"zzz");
"#;

/// What `explain` says of a token of the overseers.
fn explained(name: &str, action: Action, target: &Target<'_>) -> bool {
    let policies = CedarPolicies::parse("overseers".as_ref(), OVERSEERS).expect("policies");
    let rules: &dyn Rules = &policies;
    rules.ruling(&Principal::token(name, ["ops"]), action, target).allowed
}

/// Whether that is let through, and not for want of a right.
#[track_caller]
fn permitted<T>(answer: Result<T, crate::protocol::Fault>) -> bool {
    let Err(fault) = answer else { return true };
    assert_eq!(fault.reason, "PERMISSION_DENIED", "{fault:?}");
    false
}

#[tokio::test]
async fn a_forbid_wins_over_supervise_and_for_skills_that_are_not_listed() {
    let files = Files::fresh();
    let tokens = ["alice", "blind", "eyes", "boss"].map(|name| (name, token(name, &["ops"])));
    let lines = tokens.each_ref().map(|(_, token)| token.line()).join("\n");
    let access = config(&files.write("tokens", &lines), &files.write("policy", OVERSEERS));
    let slow = AgentBuilder::new("slow", "Never ends.").on_ask(|_, _| std::future::pending());
    let builder = Node::builder().agent(slow).gateway(loopback()).access(access);
    let (node, to) = start(builder.mcp_server(McpServer { http: true, exec: false })).await;
    let agent = Target::Agent("slow");
    let bearer = |token: &FreshToken| format!("Bearer {}", token.secret());
    let ask = |skill: &str| {
        let mut params = message(json!([{ "text": "go" }]));
        params["configuration"]["returnImmediately"] = json!(true);
        params["message"]["metadata"] = json!({ "skill": skill });
        params
    };
    let [(_, alice), overseers @ ..] = &tokens;
    for binding in Binding::ALL {
        let peer = |token| Peer::new(binding, to, None).with("authorization", &bearer(token));
        let begun = peer(alice).call("SendMessage", ask("slow")).await.expect("a task");
        let id = json!({ "id": task_of(json!({ "result": begun }))["id"] });
        // Who may end it comes last.
        for (name, token) in overseers {
            let (peer, case) = (peer(token), format!("{binding:?} {name}"));
            let reads = explained(name, Action::Read, &agent);
            assert_eq!(permitted(peer.call("GetTask", id.clone()).await), reads, "{case}");
            assert_eq!(permitted(peer.call("ListTasks", json!({})).await), reads, "{case}");
            assert_eq!(
                permitted(peer.stream("SubscribeToTask", id.clone()).await),
                reads,
                "{case}"
            );
            let cancels = explained(name, Action::Cancel, &agent);
            assert_eq!(permitted(peer.call("CancelTask", id.clone()).await), cancels, "{case}");
            assert_eq!((reads, cancels), (*name != "blind", *name == "boss"), "{case}");
        }
        for (name, token) in &tokens {
            let zzz = Target::Skill { agent: "slow", skill: "zzz" };
            assert!(!explained(name, Action::Ask, &zzz));
            assert!(!permitted(peer(token).call("SendMessage", ask("zzz")).await), "{name}");
            assert!(permitted(peer(token).call("SendMessage", ask("yyy")).await), "{name}");
        }
    }
    // Over MCP tasks are one's own, and what may be done with them is the same.
    for (name, token) in overseers {
        let peer = Peer::new(Binding::Rpc, to, None).with("authorization", &bearer(token));
        let begun = peer.call("SendMessage", ask("yyy")).await.expect("a task");
        let task = task_of(json!({ "result": begun }))["id"].as_str().expect("an id").to_owned();
        let own = json!({ "taskId": format!("slow/{task}") });
        let client = crate::mcp_access::Client::new(to, Some(token));
        for (method, action) in [("tasks/get", Action::Read), ("tasks/cancel", Action::Cancel)] {
            let answer = client.call(method, own.clone()).await;
            let is_permitted = answer["error"].is_null();
            assert_eq!(is_permitted, explained(name, action, &agent), "{name} {method} {answer}");
        }
    }
    node.stop().await;
}

#[tokio::test]
async fn tools_are_called_for_those_who_may_have_them_called() {
    let files = Files::fresh();
    let (dev, guest) = (token("dev", &["dev"]), token("guest", &[]));
    let tokens = files.write("tokens", &format!("{}\n{}", dev.line(), guest.line()));
    let policy = files.write(
        "policy",
        r#"
        permit(principal, action == Action::"ask", resource);
        permit(principal in Group::"dev", action == Action::"call_tool", resource);
        "#,
    );
    let agent = caller(AgentBuilder::new("caller", "Calls.").tool(Ping));
    let lists = AgentBuilder::new("lists", "Says what it could call.").tool(Ping);
    let lists = lists.on_ask(|_, context| async move {
        let tools =
            context.tools().await?.into_iter().map(|it| format!("{} {}", it.name, it.origin));
        Ok(Answer::text(format!("{:?}", tools.collect::<Vec<_>>())))
    });
    let builder = Node::builder().agent(agent).agent(lists).gateway(loopback());
    let builder = builder.tool(AnyTool::new(Ping));
    let (node, to) = start(builder.access(config(&tokens, &policy))).await;
    // Its own, and not the one of the same name that's shared with whoever names it.
    for (who, listed) in [(&dev, r#"["ping agent"]"#), (&guest, "[]")] {
        let params = message(json!([{ "text": "tools?" }]));
        let response = call(to, "/agents/lists", Some(who.secret()), "SendMessage", params).await;
        assert_eq!(output(&task_of(response.json())), listed);
    }
    let called = |secret: String| async move {
        let params = message(json!([{ "data": { "tool": "ping", "arguments": {} } }]));
        let response = call(to, "/", Some(&secret), "SendMessage", params).await;
        output(&task_of(response.json())).to_owned()
    };
    assert_eq!(called(dev.secret().to_owned()).await, "done: \"pong\"");
    let refused = called(guest.secret().to_owned()).await;
    assert!(refused.starts_with("unknown_tool"), "{refused}");
    node.stop().await;
}

/// A tool that answers.
pub(crate) struct Ping;

impl neuroflow::Tool for Ping {
    type Arguments = Nothing;
    type Output = &'static str;

    fn name(&self) -> &'static str {
        "ping"
    }

    fn description(&self) -> &'static str {
        "Answers."
    }

    async fn call(
        &self,
        _: Nothing,
        _: neuroflow::ToolContext,
    ) -> Result<&'static str, neuroflow::ToolError> {
        Ok("pong")
    }
}

#[tokio::test]
async fn changed_policies_and_tokens_count_and_broken_ones_do_not() {
    let files = Files::fresh();
    let (ci, late) = (token("ci", &[]), token("late", &[]));
    let (tokens, policy) = (files.write("tokens", ci.line()), files.write("policy", ""));
    let log = files.0.join("audit.log");
    let audit = neuroflow::actors::AuditConfig::new(&log);
    let (node, to) = start(node(config(&tokens, &policy)).audit(audit)).await;
    let status = |secret: String| async move { ask(to, "/", Some(&secret)).await.status };
    let becomes = |secret: &str, wanted: u16| {
        let secret = secret.to_owned();
        async move {
            for _ in 0..600 {
                if status(secret.clone()).await == wanted {
                    return;
                }
                crate::support::pause(50).await;
            }
            panic!("it never became {wanted}");
        }
    };
    assert_eq!(status(ci.secret().to_owned()).await, 404, "nothing is permitted");
    files.write("policy", ALL);
    becomes(ci.secret(), 200).await;
    // A broken file changes nothing. The tokens are read after it, so once a change of theirs is
    // seen, the broken file has been looked at.
    files.write("policy", "permit(principal");
    for (text, wanted) in
        [(format!("{}\n{}", ci.line(), late.line()), 200), (ci.line().into(), 401)]
    {
        files.write("tokens", &text);
        becomes(late.secret(), wanted).await;
    }
    assert_eq!(status(ci.secret().to_owned()).await, 200);
    files.write("policy", "forbid(principal, action, resource);");
    becomes(ci.secret(), 404).await;
    node.stop().await;
    let log = std::fs::read_to_string(&log).expect("an audit log");
    let verdicts = |part: &str| -> Vec<&str> {
        let changes = log.lines().filter(|line| line.contains("\"config_changed\""));
        let changes = changes.filter(|line| line.contains(&format!("\"part\":\"{part}\"")));
        changes.map(|line| if line.contains("\"denied\"") { "denied" } else { "allowed" }).collect()
    };
    assert_eq!(verdicts("policies"), ["allowed", "allowed", "denied", "allowed"]);
    assert_eq!(verdicts("tokens"), ["allowed"; 3]);
}

#[tokio::test]
async fn a_node_does_not_start_with_policies_that_are_not_valid() {
    let files = Files::fresh();
    let policy = files.write("policy", "permit(principal, action == Action::\"fly\", resource);");
    let tokens = files.write("tokens", "");
    let error = node(config(&tokens, &policy)).start().await.expect_err("it doesn't start");
    let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |it| it.source());
    let said: Vec<String> = causes.map(ToString::to_string).collect();
    assert!(said.iter().any(|text| text.contains("policy:1:29")), "{said:?}");
}

#[tokio::test]
async fn who_asks_too_much_is_told_when_to_come_back() {
    let files = Files::fresh();
    let (ci, other) = (token("ci", &[]), token("other", &[]));
    let tokens = files.write("tokens", &format!("{}\n{}", ci.line(), other.line()));
    let mut access = config(&tokens, &files.write("policy", ALL));
    access.limits =
        Limits { per_second: NonZeroU32::new(1), burst: NonZeroU32::new(2), concurrent: None };
    let time = neuroflow::ManualClock::new();
    let (node, to) = start(node(access).clock(time.clock())).await;
    for _ in 0..2 {
        assert_eq!(ask(to, "/", Some(ci.secret())).await.status, 200);
    }
    let throttled = ask(to, "/", Some(ci.secret())).await;
    assert_eq!((throttled.status, throttled.header("retry-after")), (429, Some("1")));
    assert_eq!(throttled.json()["error"]["data"][0]["reason"], "RESOURCE_EXHAUSTED");
    assert_eq!(ask(to, "/", Some(other.secret())).await.status, 200);
    time.advance(Duration::from_secs(1));
    assert_eq!(ask(to, "/", Some(ci.secret())).await.status, 200);
    node.stop().await;
}

#[tokio::test]
async fn only_valid_tokens_of_the_issuer_are_believed() {
    let files = Files::fresh();
    let issuer = TestIssuer::start().await;
    let (node, to) = start(node(issuer.config(&files.write("policy", ALL)))).await;

    let good = issuer.sign(Some("k1"), &json!({}));
    let task = task_of(ask(to, "/", Some(&good)).await.json());
    assert_eq!(state(&task), "TASK_STATE_COMPLETED");

    let other = TestIssuer::start().await;
    let (head, rest) = good.split_once('.').expect("a token");
    let (claims, signature) = rest.split_once('.').expect("a token");
    let none = base64url(br#"{"alg":"none","kid":"k1"}"#);
    // The public key of the issuer as the secret of an HMAC.
    let hmac = {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some("k1".to_owned());
        let key = EncodingKey::from_secret(&issuer.public);
        jsonwebtoken::encode(&header, &issuer.claims(&json!({})), &key).expect("a token")
    };
    let forged = issuer.sign_with(&other, "k1", &json!({}));
    let algorithm = "the token's algorithm isn't taken; sign it with RS, PS, ES or EdDSA";
    for (token, code, text) in [
        (format!("{none}.{claims}."), "algorithm", algorithm),
        (format!("{none}.{claims}.{signature}"), "algorithm", algorithm),
        (hmac, "algorithm", algorithm),
        (forged, "signature", "the token's signature isn't valid"),
        (format!("{head}.{claims}.AAAA"), "signature", "the token's signature isn't valid"),
        (issuer.sign(Some("k1"), &json!({ "exp": -61 })), "expired", "the token has expired"),
        (issuer.sign(Some("k1"), &json!({ "nbf": 90 })), "not_yet", "the token isn't valid yet"),
        (
            issuer.sign(Some("k1"), &json!({ "aud": "others" })),
            "audience",
            "the token is for another audience",
        ),
        (
            issuer.sign(Some("k1"), &json!({ "iss": other.url })),
            "issuer",
            "the token is from another issuer",
        ),
        (issuer.sign(None, &json!({})), "no_key_id", "the token names no key (kid)"),
        (
            issuer.sign(Some("k2"), &json!({})),
            "unknown_key",
            "the token's key isn't among its issuer's",
        ),
        ("a.b.c".to_owned(), "malformed", "the token isn't a JWT"),
    ] {
        let response = ask(to, "/", Some(&token)).await;
        unauthenticated(&response, &invalid(text), code);
    }
    // They were refused for what they are, not for how many they were.
    assert_eq!(ask(to, "/", Some(&good)).await.status, 200);
    // Clocks may differ by a minute.
    for claims in [json!({ "exp": -10 }), json!({ "nbf": 10 })] {
        let skewed = issuer.sign(Some("k1"), &claims);
        assert_eq!(ask(to, "/", Some(&skewed)).await.status, 200, "{claims}");
    }
    node.stop().await;
}

#[tokio::test]
async fn an_issuer_that_is_away_leaves_other_credentials_as_they_are() {
    let files = Files::fresh();
    let issuer = TestIssuer::start().await;
    let mut access = issuer.config(&files.write("policy", ALL));
    let ci = token("ci", &[]);
    access.tokens = Some(files.write("tokens", ci.line()));
    let closed = std::net::TcpListener::bind(loopback()).expect("a port");
    let nobody = closed.local_addr().expect("an address");
    drop(closed);
    if let Some(issuer) = &mut access.issuer {
        issuer.keys_url = Some(format!("http://{nobody}/"));
    }
    let (node, to) = start(node(access)).await;
    assert_eq!(ask(to, "/", Some(ci.secret())).await.status, 200);
    let response = ask(to, "/", Some(&issuer.sign(Some("k1"), &json!({})))).await;
    unauthenticated(&response, &invalid("the token's key isn't among its issuer's"), "unknown_key");
    node.stop().await;
}

#[tokio::test]
async fn who_is_not_let_in_is_told_the_same_in_every_binding() {
    let files = Files::fresh();
    let reader = token("reader", &[]);
    let policy = r#"permit(principal, action == Action::"read", resource);"#;
    let mut access = config(&files.write("tokens", reader.line()), &files.write("policy", policy));
    access.limits =
        Limits { per_second: NonZeroU32::new(1), burst: NonZeroU32::new(6), concurrent: None };
    let time = neuroflow::ManualClock::new();
    let (node, to) = start(node(access).clock(time.clock())).await;
    let bearer = format!("Bearer {}", reader.secret());
    let hello = || message(json!([{ "text": "hello" }]));
    for (binding, code) in Binding::ALL.into_iter().zip([-32600, 401, 16]) {
        let nobody = Peer::new(binding, to, None);
        let fault = nobody.call("ListTasks", json!({})).await.expect_err("refused");
        assert_eq!((fault.code, fault.reason.as_str()), (code, "UNAUTHENTICATED"), "{binding:?}");
        let page = nobody.with("origin", "http://evil.example");
        let fault = page.call("ListTasks", json!({})).await.expect_err("refused");
        assert_eq!(fault.reason, "PERMISSION_DENIED", "{binding:?}");
    }
    let peer = |binding| Peer::new(binding, to, None).with("authorization", &bearer);
    for (binding, code) in Binding::ALL.into_iter().zip([-32600, 403, 7]) {
        let fault = peer(binding).call("SendMessage", hello()).await.expect_err("refused");
        assert_eq!((fault.code, fault.reason.as_str()), (code, "PERMISSION_DENIED"), "{binding:?}");
        peer(binding).call("ListTasks", json!({})).await.expect("it may read");
    }
    for (binding, code) in Binding::ALL.into_iter().zip([-32600, 429, 8]) {
        let fault = peer(binding).call("ListTasks", json!({})).await.expect_err("refused");
        assert_eq!(
            (fault.code, fault.reason.as_str()),
            (code, "RESOURCE_EXHAUSTED"),
            "{binding:?}"
        );
    }
    node.stop().await;
}

/// A host that shares one admission between several gateways gives it to each.
#[tokio::test]
async fn a_gateway_that_is_given_who_is_let_in_asks_and_is_not_given_it_twice() {
    let (files, ci) = (Files::fresh(), token("ci", &[]));
    let config = config(&files.write("tokens", ci.line()), &files.write("policy", ALL));
    let kernel = Kernel::builder().start().await.expect("a kernel");
    let (spec, access) = access_child(config.clone(), kernel.clock()).expect("a name");
    kernel.root().start(spec).await.expect("it starts");
    let given = || {
        let mut gateway = GatewayConfig::new(loopback());
        gateway.door.access = Some(access.clone());
        Node::builder().agent(AnyAgent::new(Echo)).gateway_with(gateway)
    };
    let (node, to) = start(given()).await;
    assert_eq!(ask(to, "/", None).await.status, 401);
    assert_eq!(ask(to, "/", Some(ci.secret())).await.status, 200);
    node.stop().await;
    let twice = given().access(config).start().await.expect_err("refused");
    assert!(matches!(twice, BootError::Twice { setting: "door.access" }), "{twice}");
    kernel.stop().await;
}
