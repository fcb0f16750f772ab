//! `/mcp` behind the gateway's door: who may list, call, read and cancel there, whose sessions are
//! whose, and one rule for hosts and origins.

use std::net::SocketAddr;

use neuroflow::actors::limits::{BODY_VALUES, MCP_PRINCIPAL_SESSIONS};
use neuroflow::actors::{AccessConfig, FreshToken, RulesSource};
use neuroflow::{
    AgentBuilder, Answer, AnyAgent, Echo, GatewayConfig, McpServer, Node, NodeBuilder,
};
use serde_json::{Value, json};

use crate::access::{Files, token};
use crate::client::{Connection, Events, Response, post};
use crate::support::{
    eventually, loopback, marker, pause, processes_with, profile, standard, start,
};

/// A client of the endpoint, with or without a credential.
#[derive(Clone)]
pub(crate) struct Client {
    to: SocketAddr,
    headers: Vec<(&'static str, String)>,
}

impl Client {
    pub(crate) fn new(to: SocketAddr, token: Option<&FreshToken>) -> Self {
        let bearer = token.map(|token| ("authorization", format!("Bearer {}", token.secret())));
        let accept = ("accept", "application/json, text/event-stream".to_owned());
        Self { to, headers: bearer.into_iter().chain([accept]).collect() }
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.retain(|(other, _)| *other != name);
        self.headers.push((name, value.to_owned()));
        self
    }

    fn request(&self, more: &[(&str, &str)], body: &Value) -> Vec<u8> {
        let headers = self.headers.iter().map(|(name, value)| (*name, value.as_str()));
        let headers: Vec<(&str, &str)> = headers.chain(more.iter().copied()).collect();
        post("/mcp", &headers, body.to_string().as_bytes())
    }

    async fn post(&self, more: &[(&str, &str)], body: &Value) -> Response {
        let mut connection = Connection::open(self.to).await;
        connection.send(&self.request(more, body)).await.expect("it is sent");
        connection.receive().await.expect("an answer")
    }

    /// A call of a tool that tells how far it has come, in a session of the earlier version or without
    /// one in the later.
    pub(crate) async fn calling(
        &self,
        session: Option<&str>,
        id: u32,
        tool: &str,
        arguments: &Value,
    ) -> Streamed {
        let mut params = json!({
            "name": tool, "arguments": arguments, "_meta": { "progressToken": "p" },
        });
        if session.is_none() {
            params["_meta"] = json!({
                "progressToken": "p",
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "1" },
                "io.modelcontextprotocol/clientCapabilities": {},
            });
        }
        let body = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params });
        let headers = match session {
            Some(session) => {
                vec![("mcp-session-id", session), ("mcp-protocol-version", "2025-11-25")]
            }
            None => vec![
                ("mcp-protocol-version", "2026-07-28"),
                ("mcp-method", "tools/call"),
                ("mcp-name", tool),
            ],
        };
        Streamed::open(self.to, &self.request(&headers, &body)).await
    }

    /// The stream of a session for whatever the server has to say.
    async fn listening(&self, session: &str) -> Streamed {
        let headers = self.headers.iter().map(|(name, value)| (*name, value.as_str()));
        let more = [("mcp-session-id", session), ("mcp-protocol-version", "2025-11-25")];
        let mut head = "GET /mcp HTTP/1.1\r\nhost: localhost\r\n".to_owned();
        for (name, value) in headers.chain(more) {
            head.extend([name, ": ", value, "\r\n"]);
        }
        head.push_str("\r\n");
        Streamed::open(self.to, head.as_bytes()).await
    }

    /// Of the later version, which has no sessions.
    pub(crate) async fn call(&self, method: &str, params: Value) -> Value {
        let response = self.stateless(method, params).await;
        assert!(response.status < 500, "{} {}", response.status, response.text());
        answer(&response)
    }

    async fn stateless(&self, method: &str, mut params: Value) -> Response {
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "1" },
            "io.modelcontextprotocol/clientCapabilities": {
                "extensions": { "io.modelcontextprotocol/tasks": {} },
            },
        });
        let name = params["name"].as_str().or(params["taskId"].as_str()).map(str::to_owned);
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let mut headers = vec![("mcp-protocol-version", "2026-07-28"), ("mcp-method", method)];
        headers.extend(name.as_deref().map(|name| ("mcp-name", name)));
        self.post(&headers, &body).await
    }

    /// Begins a session of the earlier version.
    pub(crate) async fn begin(&self) -> Response {
        self.begin_as("2025-11-25").await
    }

    async fn begin_as(&self, version: &str) -> Response {
        let params = json!({
            "protocolVersion": version, "capabilities": {},
            "clientInfo": { "name": "test", "version": "1" },
        });
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params });
        self.post(&[], &body).await
    }

    async fn in_session(&self, session: &str) -> u16 {
        let body = json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {} });
        let headers = [("mcp-session-id", session), ("mcp-protocol-version", "2025-11-25")];
        self.post(&headers, &body).await.status
    }

    /// Says something in a session that isn't answered; the status.
    pub(crate) async fn tell(&self, session: &str, body: &Value) -> u16 {
        let headers = [("mcp-session-id", session), ("mcp-protocol-version", "2025-11-25")];
        self.post(&headers, body).await.status
    }

    pub(crate) async fn end(&self, session: &str) -> u16 {
        let mut head = "DELETE /mcp HTTP/1.1\r\nhost: localhost\r\n".to_owned();
        for (name, value) in &self.headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        head.extend(["mcp-session-id: ", session, "\r\nmcp-protocol-version: 2025-11-25\r\n\r\n"]);
        let mut connection = Connection::open(self.to).await;
        connection.send(head.as_bytes()).await.expect("it is sent");
        connection.receive().await.expect("an answer").status
    }

    pub(crate) async fn tools(&self) -> Vec<String> {
        let listed = self.call("tools/list", json!({})).await;
        let tools = listed["result"]["tools"].as_array().unwrap_or_else(|| panic!("{listed}"));
        tools.iter().map(|tool| tool["name"].as_str().expect("a name").to_owned()).collect()
    }
}

/// A stream of events as it comes.
pub(crate) struct Streamed {
    events: Events,
    text: String,
}

impl Streamed {
    async fn open(to: SocketAddr, request: &[u8]) -> Self {
        let events = Connection::open(to).await.events(request).await;
        let events = events.unwrap_or_else(|refused| panic!("{}", refused.text()));
        Self { events, text: String::new() }
    }

    /// Waits until it has said that.
    pub(crate) async fn until(&mut self, wanted: &str) {
        while !self.text.contains(wanted) {
            let more = self.events.chunk().await;
            let more = more.unwrap_or_else(|| panic!("no {wanted} in {}", self.text));
            self.text.push_str(&String::from_utf8_lossy(&more));
        }
    }

    /// What it has told of progress so far: how far, and in which words.
    pub(crate) fn progress(&self) -> Vec<(f64, String)> {
        let whole = self.text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let data = whole.lines().filter_map(|line| line.strip_prefix("data: "));
        let messages = data.filter_map(|data| serde_json::from_str::<Value>(data).ok());
        let told = messages.filter(|it| it["method"] == "notifications/progress");
        told.map(|it| {
            let params = &it["params"];
            assert_eq!(params["progressToken"], "p", "{it}");
            let words = params["message"].as_str().expect("words").to_owned();
            (params["progress"].as_f64().expect("a number"), words)
        })
        .collect()
    }

    /// Its last message, once it has ended; none if there was never one.
    pub(crate) async fn last(mut self) -> Option<Value> {
        while let Some(more) = self.events.chunk().await {
            self.text.push_str(&String::from_utf8_lossy(&more));
        }
        let mut lines = self.text.lines().rev();
        let last =
            lines.find_map(|line| line.strip_prefix("data: ").filter(|it| !it.is_empty()))?;
        Some(serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {last}")))
    }
}

/// The message of an answer, be it JSON or the last event of a stream.
fn answer(response: &Response) -> Value {
    let text = response.text();
    let data = text.lines().rev().find_map(|line| line.strip_prefix("data: {"));
    let text = data.map_or(text.clone(), |rest| format!("{{{rest}"));
    serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {} {}", response.status, response.text()))
}

pub(crate) fn error(answer: &Value) -> (i64, &str) {
    let error = &answer["error"];
    let code = error["code"].as_i64().unwrap_or_else(|| panic!("no error in {answer}"));
    (code, error["message"].as_str().expect("a message"))
}

fn node(access: AccessConfig) -> NodeBuilder {
    let quiet = AgentBuilder::new("quiet", "Nobody knows it.")
        .on_ask(|_, _| async { Ok(Answer::text("psst")) });
    Node::builder()
        .agent(AnyAgent::new(Echo))
        .agent(quiet)
        .sandbox(profile(standard()))
        .gateway(loopback())
        .access(access)
        .mcp_server(McpServer { http: true, exec: true })
}

fn access(files: &Files, tokens: &[&FreshToken], policy: &str) -> AccessConfig {
    let lines: Vec<&str> = tokens.iter().map(|token| token.line()).collect();
    let mut access = AccessConfig::default();
    access.tokens = Some(files.write("tokens", &lines.join("\n")));
    access.rules = RulesSource::File(files.write("policy", policy));
    access
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_are_those_that_policies_permit() {
    let files = Files::fresh();
    let (dev, ops, boss) = (token("dev", &[]), token("ops", &[]), token("boss", &[]));
    let policy = r#"
        permit(principal == Token::"dev", action == Action::"ask", resource in Agent::"echo");
        permit(principal == Token::"ops", action == Action::"call_tool", resource == Tool::"exec");
        permit(principal == Token::"boss", action, resource);
    "#;
    let (node, to) = start(node(access(&files, &[&dev, &ops, &boss], policy))).await;
    let [dev, ops, boss] = [&dev, &ops, &boss].map(|token| Client::new(to, Some(token)));
    assert_eq!(dev.tools().await, ["echo"]);
    assert_eq!(boss.tools().await, ["echo", "quiet", "exec"]);
    // A tool without a level to run it at is none.
    assert!(ops.tools().await.is_empty());

    let call = |name: &str| json!({ "name": name, "arguments": { "message": "hello" } });
    let said = dev.call("tools/call", call("echo")).await;
    assert_eq!(said["result"]["content"][0]["text"], "hello", "{said}");
    let said = boss.call("tools/call", call("quiet")).await;
    assert_eq!(said["result"]["content"][0]["text"], "psst", "{said}");
    // What isn't listed isn't there, and isn't told from what really isn't.
    for (who, name) in [(&dev, "quiet"), (&dev, "exec"), (&ops, "exec"), (&ops, "echo")] {
        let refused = who.call("tools/call", call(name)).await;
        let missing = who.call("tools/call", call("none")).await;
        let words = error(&missing).1.replace("none", name);
        assert_eq!(error(&refused), (-32602, words.as_str()), "{name}");
    }
    // A program in a cell, for who may have one.
    let program = json!({ "name": "exec", "arguments": { "command": ["echo", "out"] } });
    let ran = boss.call("tools/call", program).await;
    assert_eq!(ran["result"]["structuredContent"]["exit_code"], 0, "{ran}");
    // Without a credential there is nothing.
    let nobody = Client::new(to, None).stateless("tools/list", json!({})).await;
    assert_eq!(nobody.status, 401, "{}", nobody.text());
    assert_eq!(nobody.header("www-authenticate"), Some("Bearer realm=\"neuroflow\""));
    node.stop().await;
}

/// The list has one page, in both versions.
#[tokio::test]
async fn a_page_that_nobody_was_shown_the_way_to_is_none() {
    let files = Files::fresh();
    let one = token("one", &[]);
    let policy = r#"permit(principal == Token::"one", action == Action::"ask", resource);"#;
    let (node, to) = start(node(access(&files, &[&one], policy))).await;
    let client = Client::new(to, Some(&one));
    assert_eq!(client.tools().await, ["echo", "quiet"]);
    let refused = client.call("tools/list", json!({ "cursor": "2" })).await;
    assert_eq!(error(&refused), (-32602, "there is no such cursor"));
    let begun = client.begin().await;
    let session = begun.header("mcp-session-id").expect("a session");
    let headers = [("mcp-session-id", session), ("mcp-protocol-version", "2025-11-25")];
    let params = json!({ "cursor": "2" });
    let body = json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": params });
    let refused = answer(&client.post(&headers, &body).await);
    assert_eq!(error(&refused), (-32602, "there is no such cursor"));
    node.stop().await;
}

#[tokio::test]
async fn tasks_are_those_of_who_asked_for_them() {
    let files = Files::fresh();
    let (one, two) = (token("one", &["users"]), token("two", &["users"]));
    let asker = token("asker", &[]);
    let policy = r#"
        permit(principal in Group::"users",
               action in [Action::"ask", Action::"read", Action::"cancel"],
               resource in Agent::"echo");
        permit(principal == Token::"asker", action == Action::"ask", resource in Agent::"echo");
    "#;
    let (node, to) = start(node(access(&files, &[&one, &two, &asker], policy))).await;
    let [one, two, asker] = [&one, &two, &asker].map(|token| Client::new(to, Some(token)));
    let call = json!({ "name": "echo", "arguments": { "message": "hello" } });
    let said = one.call("tools/call", call).await;
    let id = said["result"]["structuredContent"]["taskId"].as_str().expect("an id");
    let own = json!({ "taskId": format!("echo/{id}") });
    let seen = one.call("tasks/get", own.clone()).await;
    assert_eq!(seen["result"]["status"], "completed", "{seen}");
    // To others it isn't there, as one of a hidden agent isn't, nor one that never was.
    let missing = one.call("tasks/get", json!({ "taskId": "echo/none" })).await;
    assert_eq!(error(&missing), (-32602, "there is no such task"));
    for id in [own.clone(), json!({ "taskId": format!("quiet/{id}") })] {
        for method in ["tasks/get", "tasks/cancel"] {
            let answer = two.call(method, id.clone()).await;
            assert_eq!(error(&answer), error(&missing), "{method} {id}");
        }
    }
    // Who may ask only is told of its tasks by the answer, and not later.
    let answer = asker.call("tasks/get", own).await;
    assert_eq!(error(&answer), (-32600, "this isn't allowed"));
    node.stop().await;
}

#[tokio::test]
async fn nobody_takes_all_sessions_nor_somebody_elses() {
    let files = Files::fresh();
    let (greedy, other) = (token("greedy", &[]), token("other", &[]));
    let all = "permit(principal, action, resource);";
    let (node, to) = start(node(access(&files, &[&greedy, &other], all))).await;
    let [greedy, other] = [&greedy, &other].map(|token| Client::new(to, Some(token)));
    let session = |response: &Response| {
        assert_eq!(response.status, 200, "{}", response.text());
        response.header("mcp-session-id").expect("a session").to_owned()
    };
    let mut sessions = Vec::new();
    for _ in 0..MCP_PRINCIPAL_SESSIONS {
        sessions.push(session(&greedy.begin().await));
    }
    let refused = greedy.begin().await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("60")));
    assert!(refused.text().starts_with("you have 64 sessions already"), "{}", refused.text());
    // A request that needs none isn't counted.
    assert_eq!(greedy.tools().await, ["echo", "quiet", "exec"]);
    // Others have theirs, and none of anybody else's.
    let own = session(&other.begin().await);
    assert_eq!(other.in_session(&own).await, 200);
    assert_eq!(greedy.in_session(&own).await, 404);
    assert_eq!(greedy.end(&own).await, 404);
    assert_eq!(other.in_session(&own).await, 200);
    // One that is ended makes room.
    assert_eq!(greedy.end(&sessions[0]).await, 202);
    assert_eq!(greedy.in_session(&sessions[0]).await, 404);
    session(&greedy.begin().await);
    assert_eq!(greedy.begin().await.status, 429);
    node.stop().await;
}

#[tokio::test]
async fn hosts_and_origins_are_those_of_the_gateway() {
    let mut gateway = GatewayConfig::new(loopback());
    gateway.door.hosts = vec!["agents.local".to_owned()];
    gateway.door.origins = vec!["https://app.example".to_owned()];
    let builder = Node::builder().agent(AnyAgent::new(Echo)).gateway_with(gateway);
    let (node, to) = start(builder.mcp_server(McpServer { http: true, exec: false })).await;
    let page = format!("http://localhost:{}", to.port());
    let host = format!("localhost:{}", to.port());
    for (host, origin, status) in [
        ("localhost", None, 200),
        ("agents.local", None, 200),
        ("evil.example", None, 421),
        ("agents.local", Some("https://app.example"), 200),
        (host.as_str(), Some(page.as_str()), 200),
        (host.as_str(), Some("http://evil.example"), 403),
        (host.as_str(), Some("null"), 403),
    ] {
        let mut client = Client::new(to, None).with("host", host);
        if let Some(origin) = origin {
            client = client.with("origin", origin);
        }
        let response = client.stateless("tools/list", json!({})).await;
        assert_eq!(response.status, status, "{host} {origin:?} {}", response.text());
    }
    node.stop().await;
}

#[tokio::test]
async fn a_body_that_is_no_message_is_called_that() {
    let builder = Node::builder().agent(AnyAgent::new(Echo)).gateway(loopback());
    let (node, to) = start(builder.mcp_server(McpServer { http: true, exec: false })).await;
    let accept = ("accept", "application/json, text/event-stream");
    for body in ["{\"jsonrpc\": \"2.0\", ", "[]", "17", "", "\u{feff}{}"] {
        let mut connection = Connection::open(to).await;
        connection.send(&post("/mcp", &[accept], body.as_bytes())).await.expect("it is sent");
        let answer = connection.receive().await.expect("an answer");
        assert_eq!(answer.status, 400, "{body:?} {}", answer.text());
        let error = &answer.json()["error"];
        assert_eq!(error["code"], -32_700, "{body:?} {error}");
    }
    node.stop().await;
}

/// The same, and an agent whose tasks don't end by themselves.
fn slow_node(access: AccessConfig) -> NodeBuilder {
    let slow = AgentBuilder::new("slow", "Takes its time.").on_ask(|_, context| async move {
        context.say("at it").await?;
        std::future::pending::<()>().await;
        Ok(Answer::done())
    });
    // Its tasks are never done.
    node(access).agent(slow).drain_within(std::time::Duration::ZERO)
}

const ENDED: &str =
    "the credential that this was opened with isn't good any more; bring a fresh one";

#[tokio::test]
async fn a_message_has_as_many_values_as_elsewhere() {
    let builder = Node::builder().agent(AnyAgent::new(Echo)).gateway(loopback());
    let (node, to) = start(builder.mcp_server(McpServer { http: true, exec: false })).await;
    let client = Client::new(to, None);
    let call = |values: usize| {
        let arguments = json!({ "message": "hi", "more": vec![0; values] });
        client.stateless("tools/call", json!({ "name": "nobody", "arguments": arguments }))
    };
    let most = call(BODY_VALUES - 64).await;
    assert!(!most.text().contains("values"), "{}", most.text());
    let more = call(BODY_VALUES).await;
    assert_eq!((more.status, &more.json()["error"]["code"]), (400, &json!(-32600)));
    assert!(more.text().contains(&format!("more than {BODY_VALUES} values")), "{}", more.text());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_and_streams_end_with_the_credential_and_tasks_go_on() {
    let files = Files::fresh();
    let (ci, other) = (token("ci", &[]), token("other", &[]));
    let all = "permit(principal, action, resource);";
    let (node, to) = start(slow_node(access(&files, &[&ci, &other], all))).await;
    let [mine, others] = [&ci, &other].map(|token| Client::new(to, Some(token)));
    let session = |response: Response| response.header("mcp-session-id").expect("one").to_owned();
    let (own, foreign) = (session(mine.begin().await), session(others.begin().await));
    let arguments = json!({ "message": "begin" });
    let mut calls = vec![
        mine.calling(Some(&own), 5, "slow", &arguments).await,
        mine.calling(None, 6, "slow", &arguments).await,
    ];
    for call in &mut calls {
        call.until("at it").await;
    }
    let listening = mine.listening(&own).await;
    let program = marker();
    let command = json!({ "command": ["sleep", program] });
    let running = mine.calling(Some(&own), 7, "exec", &command).await;
    eventually("the program", || !processes_with(&program).is_empty()).await;
    let mut kept = others.calling(Some(&foreign), 5, "slow", &arguments).await;
    kept.until("at it").await;

    let fresh = token("ci", &[]);
    files.write("tokens", &format!("{}\n{}", other.line(), fresh.line()));
    let again = Client::new(to, Some(&fresh));
    for (id, call) in [5, 6].into_iter().zip(calls) {
        let last = call.last().await.expect("an answer");
        assert_eq!((&last["id"], error(&last)), (&json!(id), (-32600, ENDED)), "{last}");
        let id = last["error"]["data"]["taskId"].as_str().expect("the task's id");
        // Who asked for it comes again with another token.
        let task = again.call("tasks/get", json!({ "taskId": id })).await;
        assert_eq!(task["result"]["status"], "working", "{task}");
    }
    assert_eq!(error(&running.last().await.expect("an answer")), (-32600, ENDED));
    eventually("the program's end", || processes_with(&program).is_empty()).await;
    assert_eq!(listening.last().await, None);
    // Who was not meant goes on, and all tasks do.
    assert_eq!(others.in_session(&foreign).await, 200);
    let tree = node.census().tree();
    let paths = tree.iter().map(|actor| actor.path.to_string());
    assert_eq!(paths.filter(|path| path.starts_with("/agents/slow/")).count(), 3);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_ends_when_the_policy_takes_its_right_away() {
    let files = Files::fresh();
    let ci = token("ci", &[]);
    let all = "permit(principal, action, resource);";
    let (node, to) = start(slow_node(access(&files, &[&ci], all))).await;
    let client = Client::new(to, Some(&ci));
    let begun = client.begin().await;
    let session = begun.header("mcp-session-id").expect("a session");
    let mut call = client.calling(Some(session), 5, "slow", &json!({ "message": "begin" })).await;
    call.until("at it").await;
    // Another tool's change is none of this one's.
    let less = r#"permit(principal, action, resource in Agent::"slow");"#;
    files.write("policy", less);
    let mut listed = client.tools().await;
    while listed != ["slow"] {
        pause(50).await;
        listed = client.tools().await;
    }
    files.write("policy", r#"permit(principal, action == Action::"read", resource);"#);
    let last = call.last().await.expect("an answer");
    assert_eq!(error(&last), (-32600, "this isn't allowed"), "{last}");
    node.stop().await;
}

/// Clients that are in use speak versions from before tasks too; each is answered in its own.
#[tokio::test]
async fn a_client_of_an_older_version_is_served_in_that() {
    let builder = Node::builder().agent(AnyAgent::new(Echo)).gateway(loopback());
    let (node, to) = start(builder.mcp_server(McpServer { http: true, exec: false })).await;
    let client = Client::new(to, None);
    for (asked, spoken) in [
        ("2024-11-05", "2024-11-05"),
        ("2025-03-26", "2025-03-26"),
        ("2025-06-18", "2025-06-18"),
        ("2025-11-25", "2025-11-25"),
        // Those that have no such beginning, or that nobody has ever heard of.
        ("2026-07-28", "2025-11-25"),
        ("1999-01-01", "2025-11-25"),
    ] {
        let begun = client.begin_as(asked).await;
        let session = begun.header("mcp-session-id").expect("a session").to_owned();
        assert_eq!(answer(&begun)["result"]["protocolVersion"], spoken, "{asked}");
        let headers = [("mcp-session-id", session.as_str()), ("mcp-protocol-version", spoken)];
        let ready = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        assert_eq!(client.post(&headers, &ready).await.status, 202, "{asked}");
        let params = json!({ "name": "echo", "arguments": { "message": "hello" } });
        let call = json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params });
        let called = answer(&client.post(&headers, &call).await);
        assert_eq!(called["result"]["content"][0]["text"], "hello", "{asked}: {called}");
        // Over HTTP a session that was ended isn't there any more.
        assert_eq!(client.end(&session).await, 202, "{asked}");
        assert_eq!(client.post(&headers, &call).await.status, 404, "{asked}");
    }
    node.stop().await;
}
