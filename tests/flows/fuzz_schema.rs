//! Requests made from the schemas of what each door takes: whole ones are served, and whatever is wrong
//! with one field is answered by its name, in the words of that door.

use a2a_pb::protojson as pb;
use neuroflow::actors::PushOptions;
use neuroflow::actors::limits::{CLIENT_ID_BYTES, PARTS};
use neuroflow::{AnyAgent, Echo, McpServer, Node, NodeBuilder};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::client::{Connection, Response, message, post, rpc, task_of};
use crate::fuzz::{Dice, mutate_bytes, seed};
use crate::fuzz_doors::{exchange, is_as_it_was, is_served};
use crate::protocol::{Binding, Fault, Peer};
use crate::push::Receiver;
use crate::schema::{Flaw, FlawKind, flaws, whole};
use crate::support::{actors, eventually, loopback, start};

/// Whole requests to each operation.
const WHOLE: usize = 12;
/// Damaged requests to the door of the Model Context Protocol.
const DAMAGED: usize = 400;

fn node() -> NodeBuilder {
    let mut push = PushOptions::default();
    push.allow_private = true;
    let node = Node::builder().agent(AnyAgent::new(Echo)).gateway(loopback());
    node.push_notifications(push).mcp_server(McpServer { http: true, exec: false })
}

fn id() -> Value {
    json!({ "type": "string", "maxLength": CLIENT_ID_BYTES })
}

fn known(id: &str) -> Value {
    json!({ "type": "string", "examples": [id], "minLength": 1 })
}

/// A field that has a place in the messages and nothing to say here.
fn unsaid() -> Value {
    json!({ "type": "string", "examples": [""] })
}

fn push_config(url: &str, task: Value) -> Value {
    json!({ "type": "object", "required": ["url"], "properties": {
        "tenant": unsaid(), "id": id(), "taskId": task, "url": known(url),
        "token": { "type": "string" },
        "authentication": { "type": "object", "required": ["scheme"], "properties": {
            "scheme": known("Bearer"), "credentials": { "type": "string" },
        } },
    } })
}

/// `SendMessageRequest`, as `a2a.proto` has it.
fn send(url: &str) -> Value {
    let texts = json!({ "type": "array", "items": { "type": "string" } });
    let metadata = json!({ "type": "object" });
    let part = json!({ "type": "object",
        "oneOf": [
            { "required": ["text"] }, { "required": ["raw"] }, { "required": ["url"] },
            { "required": ["data"] },
        ],
        "properties": {
            "text": { "type": "string" }, "raw": { "type": "string", "format": "byte" },
            "url": { "type": "string" }, "data": {}, "metadata": metadata,
            "filename": { "type": "string" },
            "mediaType": { "type": "string", "examples": ["text/plain"] },
        },
    });
    json!({ "type": "object", "required": ["message"], "properties": {
        "tenant": unsaid(),
        "message": {
            "type": "object", "required": ["messageId", "role", "parts"],
            "properties": {
                "messageId": { "type": "string", "maxLength": CLIENT_ID_BYTES, "minLength": 1 },
                "contextId": id(), "taskId": unsaid(),
                "role": { "type": ["string", "integer"], "enum": ["ROLE_USER", "ROLE_AGENT"] },
                "parts": { "type": "array", "minItems": 1, "maxItems": PARTS, "items": part },
                "metadata": metadata, "extensions": texts, "referenceTaskIds": texts,
            },
        },
        "configuration": { "type": "object", "properties": {
            "acceptedOutputModes": {
                "type": "array", "items": { "type": "string", "examples": ["text/plain"] },
            },
            "taskPushNotificationConfig": push_config(url, unsaid()),
            "historyLength": { "type": "integer", "minimum": 0 },
            "returnImmediately": { "type": "boolean" },
        } },
        "metadata": metadata,
    } })
}

/// All operations, each with the schema of its request.
fn operations(task: &str, url: &str) -> Vec<(&'static str, Value)> {
    let object = |required: &[&str], properties: Value| json!({ "type": "object", "required": required, "properties": properties });
    let of_task = || {
        object(&["taskId", "id"], json!({ "tenant": unsaid(), "taskId": known(task), "id": id() }))
    };
    let mut create = push_config(url, known(task));
    create["required"] = json!(["taskId", "url"]);
    let states = ["SUBMITTED", "WORKING", "COMPLETED", "FAILED", "CANCELED", "INPUT_REQUIRED"];
    let states = states.map(|state| format!("TASK_STATE_{state}"));
    let history = json!({ "type": "integer", "minimum": 0 });
    vec![
        ("SendMessage", send(url)),
        ("SendStreamingMessage", send(url)),
        (
            "GetTask",
            object(
                &["id"],
                json!({ "tenant": unsaid(), "id": known(task), "historyLength": history }),
            ),
        ),
        (
            "ListTasks",
            object(
                &[],
                json!({
                    "tenant": unsaid(), "contextId": id(),
                    "status": { "type": ["string", "integer"], "enum": states },
                    "pageSize": { "type": "integer", "minimum": 1, "maximum": 100 },
                    "pageToken": unsaid(), "historyLength": history,
                    "statusTimestampAfter": { "type": "string", "format": "date-time" },
                    "includeArtifacts": { "type": "boolean" },
                }),
            ),
        ),
        (
            "CancelTask",
            object(
                &["id"],
                json!({ "tenant": unsaid(), "id": known(task), "metadata": { "type": "object" } }),
            ),
        ),
        ("SubscribeToTask", object(&["id"], json!({ "tenant": unsaid(), "id": known(task) }))),
        ("CreateTaskPushNotificationConfig", create),
        ("GetTaskPushNotificationConfig", of_task()),
        (
            "ListTaskPushNotificationConfigs",
            object(&["taskId"], json!({ "tenant": unsaid(), "taskId": known(task) })),
        ),
        ("DeleteTaskPushNotificationConfig", of_task()),
        ("GetExtendedAgentCard", object(&[], json!({ "tenant": unsaid() }))),
    ]
}

/// Whether a typed client can send it at all.
fn can_be_sent(operation: &str, params: &Value) -> bool {
    fn is<T: DeserializeOwned>(params: &Value) -> bool {
        serde_json::from_value::<T>(params.clone()).is_ok()
    }
    match operation {
        "SendMessage" | "SendStreamingMessage" => is::<pb::SendMessageRequest>(params),
        "GetTask" => is::<pb::GetTaskRequest>(params),
        "ListTasks" => is::<pb::ListTasksRequest>(params),
        "CancelTask" => is::<pb::CancelTaskRequest>(params),
        "SubscribeToTask" => is::<pb::SubscribeToTaskRequest>(params),
        "CreateTaskPushNotificationConfig" => is::<pb::TaskPushNotificationConfig>(params),
        "GetTaskPushNotificationConfig" => is::<pb::GetTaskPushNotificationConfigRequest>(params),
        "ListTaskPushNotificationConfigs" => {
            is::<pb::ListTaskPushNotificationConfigsRequest>(params)
        }
        "DeleteTaskPushNotificationConfig" => {
            is::<pb::DeleteTaskPushNotificationConfigRequest>(params)
        }
        _ => is::<pb::GetExtendedAgentCardRequest>(params),
    }
}

/// Whether REST has the operation's parameters in a body, as JSON.
fn has_body(operation: &str) -> bool {
    matches!(
        operation,
        "SendMessage" | "SendStreamingMessage" | "CreateTaskPushNotificationConfig" | "CancelTask"
    )
}

async fn ask(peer: &Peer, operation: &str, params: Value) -> Result<(), Fault> {
    if matches!(operation, "SendStreamingMessage" | "SubscribeToTask") {
        peer.stream(operation, params).await?.rest().await;
        return Ok(());
    }
    peer.call(operation, params).await.map(drop)
}

/// Whether it's an answer that the gateway should give; where something `is_wrong`, one that names it.
fn is_right(binding: Binding, answer: &Result<(), Fault>, is_wrong: bool) -> bool {
    let Err(fault) = answer else { return !is_wrong };
    let (invalid, known): (i64, &[i64]) = match binding {
        Binding::Rpc => (-32602, &[-32600, -32602, -32001, -32002, -32004, -32005, -32007]),
        Binding::Rest => (400, &[400, 404]),
        // Invalid argument; not found, failed precondition.
        Binding::Grpc => (3, &[3, 5, 9]),
    };
    let is_named = fault.field.as_ref().is_some_and(|field| !field.is_empty());
    let is_invalid = (fault.code, fault.reason.as_str()) == (invalid, "INVALID_PARAMS");
    let is_told = !fault.message.is_empty() && !fault.reason.is_empty();
    is_told && known.contains(&fault.code) && (!is_wrong || (is_invalid && is_named))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_field_of_every_operation_is_checked_in_every_binding() {
    let seed = seed();
    let mut dice = Dice(seed);
    let (node, to) = start(node()).await;
    let before = actors(&node);
    let receiver = Receiver::start(&[]).await;
    let task = task_of(rpc(to, "/", "SendMessage", message(json!([{ "text": "x" }]))).await);
    let task = task["id"].as_str().expect("an id");
    let peers = Binding::ALL.map(|binding| Peer::new(binding, to, None));
    let (mut asked, mut wrong) = (0, Vec::new());
    for (operation, schema) in operations(task, &receiver.url()) {
        for peer in &peers {
            for _ in 0..WHOLE {
                let params = whole(&mut dice, &schema, &[]);
                let shown = format!("seed {seed}: {:?} {operation} {params}", peer.binding);
                let answer = ask(peer, operation, params).await;
                // What is asked of a task that has ended, or isn't configured, is refused as such.
                let served = ["SendMessage", "SendStreamingMessage", "GetTask", "ListTasks"];
                let is_served = answer.is_ok() || !served.contains(&operation);
                if !is_served || !is_right(peer.binding, &answer, false) {
                    wrong.push(format!("{answer:?} {shown}"));
                }
            }
        }
        for flaw in flaws(&schema) {
            let params = flaw.value(&mut dice, &schema);
            for peer in &peers {
                if !applies(peer.binding, operation, &flaw, &params) {
                    continue;
                }
                let shown = format!("seed {seed}: {:?} {operation} {flaw:?}", peer.binding);
                // In a path or a query everything is text.
                let is_text = peer.binding == Binding::Rest && !has_body(operation);
                let is_wrong = match flaw.kind {
                    FlawKind::Absent | FlawKind::Range => true,
                    FlawKind::Type => !is_text,
                    FlawKind::Odd => false,
                };
                let answer = ask(peer, operation, params.clone()).await;
                if !is_right(peer.binding, &answer, is_wrong) {
                    wrong.push(format!("{answer:?} {shown}"));
                }
                asked += 1;
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {asked}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(asked > 500, "{asked} are too few");
    eventually("the end of all deliveries", || actors(&node) == before).await;
    is_as_it_was(&node, &before).await;
    node.stop().await;
}

/// Whether this binding can carry that flaw.
fn applies(binding: Binding, operation: &str, flaw: &Flaw, params: &Value) -> bool {
    match binding {
        Binding::Rpc => true,
        // What stands in the path can't be left out or be of another type.
        Binding::Rest => {
            !flaw.at.is_empty() && !["id", "taskId", "tenant"].iter().any(|name| flaw.is_at(name))
        }
        Binding::Grpc => params.is_object() && can_be_sent(operation, params),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_field_of_a_completion_is_checked_as_its_description_says() {
    let seed = seed();
    let mut dice = Dice(seed);
    let (node, to) = start(node()).await;
    let before = actors(&node);
    let mut line = Connection::open(to).await;
    let document = line.get("/openapi.json").await.json();
    let mut schema = document["components"]["schemas"]["ChatRequest"].clone();
    assert!(schema["required"].is_array(), "{schema}");
    let properties = schema["properties"].as_object_mut().expect("properties");
    properties["model"]["examples"] = json!(["echo"]);
    // The description leaves open what the API itself says. Of several messages the last one counts.
    properties["messages"]["maxItems"] = json!(1);
    properties["messages"]["items"] = json!({ "type": "object", "required": ["role", "content"],
        "properties": { "role": { "type": "string", "examples": ["user"] },
            "content": { "type": ["string", "array"] } } });
    // With tools a message may be without content: what it says is in the part with them.
    properties["tools"]["examples"] = json!([null]);
    assert!(properties.remove("tool_choice").is_some(), "{document}");
    let send = |body: &Value| post("/v1/chat/completions", &[], body.to_string().as_bytes());
    for _ in 0..WHOLE {
        let request = send(&whole(&mut dice, &schema, &[]));
        let shown = || format!("seed {seed}: {}", String::from_utf8_lossy(&request));
        let answer = exchange(&mut line, &request).await.expect("an answer");
        assert!(is_served(&answer, &shown), "{}: {}", shown(), answer.text());
    }
    let mut wrong = Vec::new();
    for flaw in flaws(&schema) {
        let request = send(&flaw.value(&mut dice, &schema));
        let shown = || format!("seed {seed} {flaw:?}: {}", String::from_utf8_lossy(&request));
        let answer = exchange(&mut line, &request).await.unwrap_or_else(|| panic!("{}", shown()));
        let is_served = is_served(&answer, &shown);
        let is_wrong = matches!(flaw.kind, FlawKind::Absent | FlawKind::Type);
        if is_wrong && is_served {
            wrong.push(format!("{}: {}", shown(), answer.text()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    is_as_it_was(&node, &before).await;
    node.stop().await;
}

/// A request to `/mcp` in the later version.
fn mcp(method: &str, name: Option<&str>, body: &[u8]) -> Vec<u8> {
    let mut headers = vec![
        ("accept", "application/json, text/event-stream"),
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", method),
    ];
    headers.extend(name.map(|name| ("mcp-name", name)));
    post("/mcp", &headers, body)
}

/// What a request of that protocol is answered with; none if it's no message. Fails if it's nothing that
/// the door should say.
fn mcp_answer(answer: &Response, shown: &str) -> Option<Value> {
    let known = [200, 202, 400, 404, 405, 406, 413, 415, 422];
    assert!(known.contains(&answer.status), "{} {shown}: {}", answer.status, answer.text());
    let text = answer.text();
    let kind = answer.header("content-type").unwrap_or_default();
    let message: Value = if kind.starts_with("text/event-stream") {
        let data = text.lines().rev().find_map(|line| line.strip_prefix("data: {"));
        let data = data.unwrap_or_else(|| panic!("{shown}: {text}"));
        serde_json::from_str(&format!("{{{data}")).expect("JSON")
    } else if kind.starts_with("application/json") {
        answer.json()
    } else {
        // HTTP's own words for what isn't that protocol.
        assert!(answer.status != 200 && (answer.status == 202 || !text.is_empty()), "{shown}");
        return None;
    };
    assert_eq!(message["jsonrpc"], "2.0", "{shown}: {message}");
    match (message.get("result"), message.get("error")) {
        (Some(_), None) => {}
        (None, Some(error)) => {
            let code = error["code"].as_i64().unwrap_or_default();
            assert!((-32_768..=-32_000).contains(&code), "{shown}: {message}");
            assert_ne!(code, -32603, "{shown}: {message}");
            assert!(error["message"].as_str().is_some_and(|it| !it.is_empty()), "{shown}");
        }
        _ => panic!("{shown}: {message}"),
    }
    Some(message)
}

/// The schema of a request to `/mcp`.
fn mcp_call(meta: &Value, method: &str, required: &[&str], mut properties: Value) -> Value {
    properties["_meta"] = meta.clone();
    let required: Vec<_> = required.iter().chain(&["_meta"]).collect();
    json!({ "type": "object", "required": ["jsonrpc", "id", "method", "params"], "properties": {
        "jsonrpc": { "const": "2.0", "type": "string" },
        "id": { "type": ["string", "integer"], "examples": [1, "a"] },
        "method": { "type": "string", "examples": [method] },
        "params": { "type": "object", "required": required, "properties": properties },
    } })
}

/// Methods, the name that a header says, and the schema of each request.
type McpCalls = Vec<(&'static str, Option<&'static str>, Value)>;

fn mcp_calls(meta: &Value, arguments: &Value) -> McpCalls {
    let call = |method, required: &[&str], properties| mcp_call(meta, method, required, properties);
    let task = json!({ "taskId": { "type": "string", "examples": ["echo/none"] } });
    let named = json!({
        "name": { "type": "string", "examples": ["echo"] }, "arguments": arguments,
    });
    let begin = json!({
        "protocolVersion": { "type": "string", "examples": ["2025-11-25"] },
        "capabilities": { "type": "object", "examples": [{}] },
        "clientInfo": { "type": "object", "required": ["name", "version"], "properties": {
            "name": { "type": "string" }, "version": { "type": "string" },
        } },
    });
    let begins = ["protocolVersion", "capabilities", "clientInfo"];
    vec![
        ("tools/list", None, call("tools/list", &[], json!({ "cursor": { "type": "string" } }))),
        ("tools/call", Some("echo"), call("tools/call", &["name", "arguments"], named)),
        ("tasks/get", Some("echo/none"), call("tasks/get", &["taskId"], task.clone())),
        ("tasks/cancel", Some("echo/none"), call("tasks/cancel", &["taskId"], task)),
        ("server/discover", None, call("server/discover", &[], json!({}))),
        ("initialize", None, call("initialize", &begins, begin)),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_field_of_the_context_protocol_is_answered_in_its_own_words() {
    let seed = seed();
    let mut dice = Dice(seed);
    let (node, to) = start(node()).await;
    let before = actors(&node);
    let mut line = Connection::open(to).await;
    let meta = json!({ "type": "object", "examples": [{
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "1" },
        "io.modelcontextprotocol/clientCapabilities": {
            "extensions": { "io.modelcontextprotocol/tasks": {} },
        },
    }] });
    // What a tool takes, the door itself says.
    let listing = whole(&mut dice, &mcp_call(&meta, "tools/list", &[], json!({})), &[]);
    let listing = mcp("tools/list", None, listing.to_string().as_bytes());
    let listed = exchange(&mut line, &listing).await.expect("an answer");
    let listed = mcp_answer(&listed, "tools/list").expect("a list");
    let mut arguments = listed["result"]["tools"][0]["inputSchema"].clone();
    assert_eq!(arguments["type"], "object", "{listed}");
    arguments["required"] = json!(["message"]);
    for id in ["taskId", "contextId"] {
        arguments["properties"][id]["minLength"] = json!(1);
        arguments["properties"][id]["maxLength"] = json!(CLIENT_ID_BYTES);
    }
    // A task that isn't there is another thing, and so are data in place of a message.
    let properties = arguments["properties"].as_object_mut().expect("properties");
    for name in ["taskId", "data"] {
        assert!(properties.remove(name).is_some(), "{listed}");
    }
    let calls = mcp_calls(&meta, &arguments);
    let (mut served, mut refused, mut wrong) = (0, 0, Vec::new());
    for (method, name, schema) in &calls {
        for flaw in flaws(schema) {
            let body = flaw.value(&mut dice, schema).to_string();
            let shown = format!("seed {seed} {flaw:?}: {body}");
            let answer = again(&mut line, to, &mcp(method, *name, body.as_bytes()), &shown).await;
            let message = mcp_answer(&answer, &shown);
            let error = message.as_ref().and_then(|message| message.get("error"));
            // Whoever has written arguments that don't fit sees that as a result.
            let result = message.as_ref().and_then(|message| message.get("result"));
            let is_unfit = result.is_some_and(|result| result["isError"] == true);
            let is_served = message.is_some() && error.is_none() && !is_unfit;
            // The node's own part: what an agent is told.
            let is_argument = flaw
                .at
                .iter()
                .any(|step| *step == crate::schema::Step::Member("arguments".to_owned()));
            if is_argument && flaw.kind != FlawKind::Odd {
                let code = error.and_then(|error| error["code"].as_i64());
                if code != Some(-32602) && !is_unfit {
                    wrong.push(format!("{shown}: {}", answer.text()));
                }
            }
            if is_served { served += 1 } else { refused += 1 }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for _ in 0..DAMAGED {
        let (method, name, schema) = &calls[dice.below(calls.len())];
        let mut body = whole(&mut dice, schema, &[]).to_string().into_bytes();
        for _ in 0..=dice.below(4) {
            mutate_bytes(&mut dice, &mut body, &[]);
        }
        let shown = format!("seed {seed}: {}", String::from_utf8_lossy(&body));
        let answer = again(&mut line, to, &mcp(method, *name, &body), &shown).await;
        mcp_answer(&answer, &shown);
    }
    assert!(served > 10 && refused > 100, "{served} served, {refused} refused");
    is_as_it_was(&node, &before).await;
    node.stop().await;
}

/// The server may end a connection after an answer, but never instead of one.
async fn again(
    line: &mut Connection,
    to: std::net::SocketAddr,
    request: &[u8],
    shown: &str,
) -> Response {
    if let Some(answer) = exchange(line, request).await {
        return answer;
    }
    *line = Connection::open(to).await;
    exchange(line, request).await.unwrap_or_else(|| panic!("no answer to {shown}"))
}
