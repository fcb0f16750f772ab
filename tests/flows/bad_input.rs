//! Whatever is wrong with a request, its answer says so with the right code and names the field.
//!
//! Long, because it is tables: what is wrong, and what the answer to it is.

use std::net::SocketAddr;

use neuroflow::actors::limits::{BODY_BYTES, BODY_DEADLINE, BODY_VALUES, HEAD_BYTES, PARTS};
use neuroflow::{AnyAgent, Echo, ManualClock, McpServer, Node};
use serde_json::{Value, json};

use crate::client::{Connection, message, post, request, rpc, send_text};
use crate::mcp_access::Client;
use crate::support::{eventually, loopback, output, start, state};

async fn echo() -> (Node, SocketAddr) {
    start(Node::builder().agent(AnyAgent::new(Echo)).gateway(loopback())).await
}

/// The field that the error's `BadRequest` names.
fn field(error: &Value) -> Option<&str> {
    let details = error["data"].as_array().expect("details are a list");
    let bad_request = details
        .iter()
        .find(|detail| detail["@type"] == "type.googleapis.com/google.rpc.BadRequest")?;
    bad_request["fieldViolations"][0]["field"].as_str()
}

/// A call as it should be, with other members put in.
fn call(members: Value) -> Vec<u8> {
    let mut call = json!({
        "jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": { "id": "none" },
    });
    for (name, value) in members.as_object().expect("members") {
        call[name] = value.clone();
    }
    call.to_string().into_bytes()
}

fn without(member: &str) -> Vec<u8> {
    let mut call: Value = serde_json::from_slice(&call(json!({}))).expect("JSON");
    call.as_object_mut().expect("an object").remove(member);
    call.to_string().into_bytes()
}

#[tokio::test]
async fn what_is_not_a_call_is_refused_by_what_is_wrong() {
    let (node, to) = echo().await;
    let mut connection = Connection::open(to).await;
    let parse: &[&[u8]] = &[
        b"",
        b" ",
        b"{",
        b"nul",
        b"{\"jsonrpc\":\"2.0\",",
        b"{} {}",
        b"{\"jsonrpc\":\"2.0\"} x",
        b"\xef\xbb\xbf{}",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\xfe\"}",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\nb\"}",
        b"{'jsonrpc':'2.0'}",
        b"{\"jsonrpc\":\"2.0\",\"id\":01}",
        b"\x00",
    ];
    let deep = ["[".repeat(1_000_000), "{\"a\":".repeat(500_000), "[".repeat(500_000) + "{"];
    for body in parse.iter().copied().chain(deep.iter().map(String::as_bytes)) {
        let response = connection.post("/", body).await;
        let answer = response.json();
        let text = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        assert_eq!((response.status, &answer["error"]["code"]), (200, &json!(-32700)), "{text}");
        assert_eq!((&answer["jsonrpc"], &answer["id"]), (&json!("2.0"), &Value::Null), "{text}");
    }

    let one = json!(1);
    for (body, id, named) in [
        (b"null".to_vec(), &Value::Null, "request"),
        (b"true".to_vec(), &Value::Null, "request"),
        (b"7".to_vec(), &Value::Null, "request"),
        (b"\"text\"".to_vec(), &Value::Null, "request"),
        (b"[]".to_vec(), &Value::Null, "request"),
        ([b"[", &call(json!({}))[..], b"]"].concat(), &Value::Null, "request"),
        (b"[\"2.0\",1,\"GetTask\",{\"id\":\"none\"}]".to_vec(), &Value::Null, "request"),
        (
            b"{\"jsonrpc\":\"2.0\",\"id\":1,\"id\":2,\"method\":\"x\"}".to_vec(),
            &Value::Null,
            "request",
        ),
        (b"{}".to_vec(), &Value::Null, "id"),
        (without("id"), &Value::Null, "id"),
        (call(json!({ "id": null })), &Value::Null, "id"),
        (call(json!({ "id": true })), &Value::Null, "id"),
        (call(json!({ "id": {} })), &Value::Null, "id"),
        (call(json!({ "id": [1] })), &Value::Null, "id"),
        (call(json!({ "id": "x".repeat(100_000) })), &Value::Null, "id"),
        (br#"{"jsonrpc":"2.0","id":"\ud800","method":"x"}"#.to_vec(), &Value::Null, "id"),
        (br#"{"jsonrpc":"2.0","id":1e999,"method":"x"}"#.to_vec(), &Value::Null, "id"),
        (without("jsonrpc"), &one, "jsonrpc"),
        (call(json!({ "jsonrpc": "1.0" })), &one, "jsonrpc"),
        (call(json!({ "jsonrpc": 2.0 })), &one, "jsonrpc"),
        (without("method"), &one, "method"),
        (call(json!({ "method": 7 })), &one, "method"),
        (call(json!({ "method": ["GetTask"] })), &one, "method"),
    ] {
        let response = connection.post("/", &body).await;
        let answer = response.json();
        let text = String::from_utf8_lossy(&body[..body.len().min(90)]).into_owned();
        assert_eq!((response.status, &answer["error"]["code"]), (200, &json!(-32600)), "{text}");
        assert_eq!((&answer["id"], field(&answer["error"])), (id, Some(named)), "{text}: {answer}");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_method_that_is_not_there_is_told_from_one_that_is_not_offered() {
    let (node, to) = echo().await;
    for (method, code, reason) in [
        ("Nonsense", -32601, None),
        ("", -32601, None),
        ("sendmessage", -32601, None),
        ("message/send", -32601, None),
        ("GetExtendedAgentCard", -32004, Some("UNSUPPORTED_OPERATION")),
        ("CreateTaskPushNotificationConfig", -32003, Some("PUSH_NOTIFICATION_NOT_SUPPORTED")),
        ("ListTaskPushNotificationConfigs", -32003, Some("PUSH_NOTIFICATION_NOT_SUPPORTED")),
    ] {
        let error = rpc(to, "/", method, json!({})).await["error"].take();
        assert_eq!(error["code"], code, "{method}");
        assert_eq!(error["data"][0]["reason"].as_str(), reason, "{method}");
        assert_eq!(field(&error), reason.is_none().then_some("method"), "{method}");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_parameter_that_is_missing_or_does_not_fit_is_named() {
    let (node, to) = echo().await;
    let mut connection = Connection::open(to).await;
    for (params, named) in [(Value::Null, "params"), (json!([]), "params"), (json!("x"), "params")]
    {
        let answer = connection.rpc("/", "GetTask", params).await;
        assert_eq!(answer["error"]["code"], -32602);
        assert_eq!(field(&answer["error"]), Some(named));
    }
    let answer: Value = connection.post("/", &without("params")).await.json();
    assert_eq!(
        (answer["error"]["code"].as_i64(), field(&answer["error"])),
        (Some(-32602), Some("params"))
    );

    let text = json!([{ "text": "hi" }]);
    let whole = json!({ "messageId": "m", "role": "ROLE_USER", "parts": text });
    let with = |name: &str, value: Value| {
        let mut message = whole.clone();
        message[name] = value;
        json!({ "message": message })
    };
    let lacking = |name: &str| {
        let mut message = whole.clone();
        message.as_object_mut().expect("an object").remove(name);
        json!({ "message": message })
    };
    let configured =
        |name: &str, value: Value| json!({ "message": whole, "configuration": { name: value } });
    let long = "x".repeat(1_000);
    for (method, params, named) in [
        ("SendMessage", json!({}), "message"),
        ("SendMessage", json!({ "message": null }), "message"),
        ("SendMessage", json!({ "message": "hi" }), "message"),
        ("SendMessage", json!({ "message": {} }), "message.messageId"),
        ("SendMessage", lacking("messageId"), "message.messageId"),
        ("SendMessage", with("messageId", json!("")), "message.messageId"),
        ("SendMessage", with("messageId", json!(7)), "message.messageId"),
        ("SendMessage", with("messageId", json!(long)), "message.messageId"),
        ("SendMessage", lacking("role"), "message.role"),
        ("SendMessage", with("role", json!("ROLE_UNSPECIFIED")), "message.role"),
        ("SendMessage", with("role", json!("ROLE_ROBOT")), "message.role"),
        ("SendMessage", with("role", json!({})), "message.role"),
        ("SendMessage", lacking("parts"), "message.parts"),
        ("SendMessage", with("parts", json!([])), "message.parts"),
        ("SendMessage", with("parts", json!("hi")), "message.parts"),
        (
            "SendMessage",
            with("parts", json!(vec![json!({ "text": "" }); PARTS + 1])),
            "message.parts",
        ),
        ("SendMessage", with("parts", json!([{ "text": "a" }, {}])), "message.parts[1]"),
        ("SendMessage", with("parts", json!([{ "text": 5 }])), "message.parts[0].text"),
        ("SendMessage", with("parts", json!([{ "raw": "%%%" }])), "message.parts[0].raw"),
        ("SendMessage", with("parts", json!([{ "text": "a", "url": "b" }])), "message.parts[0]"),
        ("SendMessage", with("contextId", json!(long)), "message.contextId"),
        ("SendMessage", with("taskId", json!(long)), "message.taskId"),
        ("SendMessage", with("metadata", json!([])), "message.metadata"),
        ("SendMessage", configured("historyLength", json!(-1)), "configuration.historyLength"),
        (
            "SendMessage",
            configured("historyLength", json!(1_u64 << 40)),
            "configuration.historyLength",
        ),
        ("SendMessage", configured("historyLength", json!("many")), "configuration.historyLength"),
        (
            "SendMessage",
            configured("returnImmediately", json!("yes")),
            "configuration.returnImmediately",
        ),
        ("SendMessage", json!({ "message": whole, "tenant": "t" }), "tenant"),
        ("GetTask", json!({}), "id"),
        ("GetTask", json!({ "id": "" }), "id"),
        ("GetTask", json!({ "id": 7 }), "id"),
        ("GetTask", json!({ "id": long }), "id"),
        ("GetTask", json!({ "id": "x", "historyLength": -5 }), "historyLength"),
        ("GetTask", json!({ "id": "x", "tenant": "t" }), "tenant"),
        ("CancelTask", json!({}), "id"),
        ("CancelTask", json!({ "id": long }), "id"),
    ] {
        let answer = connection.rpc("/", method, params.clone()).await;
        let error = &answer["error"];
        let text: String = params.to_string().chars().take(120).collect();
        assert_eq!(error["code"], -32602, "{method} {text}: {answer}");
        assert_eq!(field(error), Some(named), "{method} {text}: {answer}");
        let told = error["data"][0]["fieldViolations"][0]["description"].as_str();
        assert!(told.is_some_and(|told| told.starts_with(named)), "{method} {text}: {answer}");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_parameter_that_no_json_value_can_hold_is_named_as_well() {
    let (node, to) = echo().await;
    let mut connection = Connection::open(to).await;
    let data = |data: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":{{"message":{{
                "messageId":"m","role":"ROLE_USER","parts":[{{"data":{data}}}]}}}}}}"#
        )
    };
    for params in [data("1e999"), data(r#""\ud800""#), data(&("[".repeat(200) + &"]".repeat(200)))]
    {
        let answer = connection.post("/", params.as_bytes()).await.json();
        assert_eq!(answer["error"]["code"], -32602, "{answer}");
        let named = field(&answer["error"]).expect("a field");
        assert!(named.starts_with("message.parts[0].data"), "{answer}");
    }
    let twice = br#"{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{"id":"a","id":"b"}}"#;
    let answer = connection.post("/", twice).await.json();
    assert_eq!(
        (answer["error"]["code"].as_i64(), field(&answer["error"])),
        (Some(-32602), Some("params"))
    );
    assert!(answer.to_string().contains("duplicate field `id`"), "{answer}");

    // At the limits all is well: depth, and fields of a later version.
    let nested = |depth: usize| {
        let brackets = "[".repeat(depth) + &"]".repeat(depth);
        serde_json::from_str::<Value>(&brackets).expect("JSON")
    };
    let mut later = message(json!([{ "data": nested(100), "later": true }]));
    later["message"]["later"] = json!({ "a": 1 });
    let answer = connection.rpc("/", "SendMessage", later).await;
    assert_eq!(answer["result"]["task"]["artifacts"][0]["parts"][0]["data"], nested(100));
    node.stop().await;
}

#[tokio::test]
async fn a_message_to_a_task_says_what_became_of_that() {
    let (node, to) = echo().await;
    let with_task = |task: &str| {
        let mut params = message(json!([{ "text": "more" }]));
        params["message"]["taskId"] = json!(task);
        params
    };
    let error = rpc(to, "/", "SendMessage", with_task("never-was")).await["error"].take();
    assert_eq!(error["code"], -32001, "a task is never made up: {error}");
    let task = send_text(to, "/", "hi").await;
    let error = rpc(to, "/", "SendMessage", with_task(task["id"].as_str().expect("an id"))).await;
    assert_eq!(error["error"]["code"], -32004, "{error}");

    let mut push = message(json!([{ "text": "hi" }]));
    push["configuration"] = json!({ "taskPushNotificationConfig": { "url": "http://127.0.0.1/" } });
    let answer = rpc(to, "/", "SendMessage", push).await;
    assert_eq!(answer["error"]["code"], -32003, "{answer}");
    // A context of the client's is kept; an id of a message may be used again.
    let mut params = message(json!([{ "text": "hi" }]));
    params["message"]["contextId"] = json!("my-context");
    for _ in 0..2 {
        let answer = rpc(to, "/", "SendMessage", params.clone()).await;
        assert_eq!(answer["result"]["task"]["contextId"], "my-context");
    }
    node.stop().await;
}

#[tokio::test]
async fn ids_come_back_as_they_were_sent() {
    let (node, to) = echo().await;
    let mut connection = Connection::open(to).await;
    for id in [
        "0",
        "-1",
        "9007199254740993",
        "123456789012345678901234567890",
        "1.25",
        "\"\"",
        "\"a\\u0000\\\"b\"",
        "\"\u{1F600}\"",
    ] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"GetTask","params":{{}}}}"#);
        let text = connection.post("/", body.as_bytes()).await.text();
        assert!(text.starts_with(&format!(r#"{{"jsonrpc":"2.0","id":{id},"error":"#)), "{text}");
    }
    node.stop().await;
}

#[tokio::test]
async fn an_agent_that_is_not_there_is_named_with_those_that_are() {
    let (node, to) = echo().await;
    let response = Connection::open(to).await.post("/agents/ecko", &call(json!({}))).await;
    let answer = response.json();
    assert_eq!((response.status, &answer["id"]), (404, &json!(1)));
    assert_eq!(answer["error"]["code"], -32602);
    assert_eq!(field(&answer["error"]), Some("agent"));
    let message = answer["error"]["message"].as_str().expect("a message");
    assert!(message.contains("ecko") && message.ends_with("there are: echo"), "{message}");
    node.stop().await;
}

#[tokio::test]
async fn content_type_and_version_are_checked() {
    let (node, to) = echo().await;
    let body = call(json!({}));
    let code = async |path: &str, headers: &[(&str, &str)]| {
        let response = Connection::open(to).await.post_with(path, headers, &body).await;
        let answer = response.json();
        (response.status, answer["error"]["code"].as_i64().expect("an error"))
    };
    for wrong in
        ["text/plain", "", "application/jsonx", "json", "application/x-www-form-urlencoded"]
    {
        assert_eq!(code("/", &[("content-type", wrong)]).await, (415, -32005), "{wrong:?}");
    }
    // The content type counts before the body is looked at.
    let request = post("/", &[("content-type", "text/plain")], b"{");
    let mut connection = Connection::open(to).await;
    connection.send(&request).await.expect("it is sent");
    let answer = connection.receive().await.expect("an answer").json();
    assert_eq!(answer["error"]["data"][0]["reason"], "CONTENT_TYPE_NOT_SUPPORTED");
    for right in ["application/json; charset=utf-8", "Application/JSON", "application/json;x"] {
        assert_eq!(code("/", &[("content-type", right)]).await, (200, -32001), "{right:?}");
    }
    for wrong in ["", "0.3", "0.3.0", "1", "1.1", "2.0", "one", "1.0x", "11.0"] {
        assert_eq!(code("/", &[("a2a-version", wrong)]).await, (200, -32009), "{wrong:?}");
    }
    for right in ["1.0", "1.0.1", " 1.0 ", "1.0.99"] {
        assert_eq!(code("/", &[("a2a-version", right)]).await, (200, -32001), "{right:?}");
    }

    // Without the header the query counts, and without both it's version 0.3.
    let bare = |path: &str| {
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n"
        );
        [head.as_bytes(), &body].concat()
    };
    for (path, code) in [
        ("/", -32009),
        ("/?A2A-Version=1.0", -32001),
        ("/agents/echo?x=1&A2A-Version=1.0.1", -32001),
        ("/?A2A-Version=0.3", -32009),
        ("/?A2A-Version", -32009),
    ] {
        connection.send(&bare(path)).await.expect("it is sent");
        let answer = connection.receive().await.expect("an answer").json();
        assert_eq!(answer["error"]["code"], code, "{path}");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let (node, to) = echo().await;
    let refused = async |mut connection: Connection| {
        let response = connection.receive().await.expect("an answer");
        let answer = response.json();
        assert_eq!((response.status, &answer["error"]["code"]), (413, &json!(-32600)));
        let message = answer["error"]["message"].as_str().expect("a message");
        assert!(message.contains(&BODY_BYTES.to_string()), "{message}");
        connection.ended().await;
    };
    // Announced, and not sent.
    let mut connection = Connection::open(to).await;
    let large = (BODY_BYTES + 1).to_string();
    let head = post("/", &[("content-length", &large), ("expect", "100-continue")], b"");
    connection.send(&head).await.expect("the head is sent");
    refused(connection).await;
    // Not announced, and sent for as long as it's taken.
    let mut connection = Connection::open(to).await;
    let head = post("/", &[("content-length", ""), ("transfer-encoding", "chunked")], b"");
    let head = String::from_utf8(head).expect("text").replace("content-length: \r\n", "");
    connection.send(head.as_bytes()).await.expect("the head is sent");
    let chunk = [b"10000\r\n".to_vec(), vec![b' '; 0x10000], b"\r\n".to_vec()].concat();
    for _ in 0..80 {
        if connection.send(&chunk).await.is_err() {
            break;
        }
    }
    refused(connection).await;

    // As much as is allowed is allowed, in one piece or in many.
    let mut padded = call(json!({}));
    padded.resize(BODY_BYTES, b' ');
    let mut connection = Connection::open(to).await;
    assert_eq!(connection.post("/", &padded).await.json()["error"]["code"], -32001);
    connection.send(head.as_bytes()).await.expect("the head is sent");
    for byte in call(json!({})) {
        let chunk = [b"1\r\n", &[byte][..], b"\r\n"].concat();
        connection.send(&chunk).await.expect("a chunk is sent");
    }
    connection.send(b"0\r\n\r\n").await.expect("the end is sent");
    assert_eq!(connection.receive().await.expect("an answer").json()["error"]["code"], -32001);
    node.stop().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let time = ManualClock::new();
    let node = Node::builder().agent(AnyAgent::new(Echo)).gateway(loopback());
    let (node, to) = start(node.clock(time.clock())).await;
    let mut slow = Connection::open(to).await;
    slow.send(&post("/", &[("content-length", "100")], b"{")).await.expect("it is sent");
    // A body that stops short of its announced length is no call, whatever it looks like.
    let mut short = Connection::open(to).await;
    let body = call(json!({}));
    let length = (body.len() + 1).to_string();
    short.send(&post("/", &[("content-length", &length)], &body)).await.expect("it is sent");
    short.finish_sending().await.expect("the end is sent");
    let response = short.receive().await.expect("an answer");
    let error = response.json()["error"].take();
    assert_eq!((response.status, &error["code"]), (400, &json!(-32600)));
    assert_eq!(error["message"], "the body couldn't be read");
    assert_eq!(short.ended().await, b"");

    let mut answered = std::pin::pin!(slow.receive());
    let response = loop {
        time.advance(BODY_DEADLINE / 4);
        tokio::select! {
            response = &mut answered => break response.expect("an answer"),
            () = crate::support::pause(20) => {}
        }
    };
    assert_eq!(response.status, 408);
    assert_eq!(response.json()["error"]["message"], "the body didn't arrive in time");
    node.stop().await;
}

/// Ten seconds of real time, in which nothing has to be done: the limit is the protocol library's.
#[tokio::test]
async fn a_head_that_does_not_come_is_not_waited_for() {
    let (node, to) = echo().await;
    let mut connections = Vec::new();
    for sent in [&b""[..], b"P", b"POST / HTTP/1.1\r\nhost: localhost\r\n"] {
        let mut connection = Connection::open(to).await;
        connection.send(sent).await.expect("it is sent");
        connections.push(connection);
    }
    for connection in connections {
        // What hasn't asked anything isn't answered.
        assert_eq!(connection.ended().await, b"");
    }
    assert_eq!(output(&send_text(to, "/", "hi").await), "hi");
    node.stop().await;
}

#[tokio::test]
async fn what_is_not_http_gets_an_error_and_the_end_of_its_connection() {
    let (node, to) = echo().await;
    let long = format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "x".repeat(2 * HEAD_BYTES));
    let large = format!("GET /healthz HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(2 * HEAD_BYTES));
    let many = format!("GET /healthz HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(1_000));
    let cases: [(&[u8], u16); 17] = [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"\x00\x00\x00\x00\r\n\r\n", 400),
        (b"hello\r\n\r\n", 400),
        (b"GET /healthz HTTP/9.9\r\nhost: localhost\r\n\r\n", 400),
        (b"GET  /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n", 400),
        (b"GET /health z HTTP/1.1\r\nhost: localhost\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nho st: n\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nhost: n\x00\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n folded: x\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\n: n\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: many\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}", 400),
        (b"POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: rot13\r\n\r\n", 400),
        (long.as_bytes(), 431),
        (large.as_bytes(), 431),
        (many.as_bytes(), 431),
    ];
    for (bytes, expected) in cases {
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(70)]).into_owned();
        let mut connection = Connection::open(to).await;
        connection.send(bytes).await.expect("it is sent");
        let response = connection.receive().await;
        let status = response.unwrap_or_else(|error| panic!("{text:?}: {error}")).status;
        assert_eq!(status, expected, "{text:?}");
        assert_eq!(connection.ended().await, b"", "{text:?}");
    }
    // Whoever begins as HTTP/2 does is answered in HTTP/2: settings, then why it was the end, which is
    // the length that the first frame says it has.
    let mut connection = Connection::open(to).await;
    connection.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnonsense of nine").await.expect("sent");
    let said = connection.ended().await;
    let frame = |kind: u8, length: u8| [0, 0, length, kind, 0, 0, 0, 0, 0];
    let (settings, goodbye) = said.split_at(said.len() - 17);
    assert_eq!((settings[..9].to_vec(), settings.len()), (frame(4, 24).to_vec(), 9 + 24));
    let frame_size_error = [0, 0, 0, 0, 0, 0, 0, 6];
    assert_eq!(goodbye, [&frame(7, 8)[..], &frame_size_error].concat());

    // Two lengths for one body: what one reader takes for its end, another takes for a new request.
    let smuggled = b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
        content-length: 60\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n\
        GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut connection = Connection::open(to).await;
    connection.send(smuggled).await.expect("it is sent");
    let first = connection.receive().await.expect("an answer");
    assert_eq!((first.status, &first.json()["error"]["code"]), (200, &json!(-32700)));
    assert_eq!(first.header("connection"), Some("close"));
    connection.finish_sending().await.expect("the end is sent");
    assert_eq!(connection.ended().await, b"", "the connection was kept");

    assert_eq!(output(&send_text(to, "/", "hi").await), "hi");
    node.stop().await;
}

#[tokio::test]
async fn requests_that_follow_each_other_closely_are_answered_in_order() {
    let (node, to) = echo().await;
    let mut connection = Connection::open(to).await;
    let calls = (0..50).flat_map(|id| post("/", &[], &call(json!({ "id": id }))));
    connection.send(&calls.collect::<Vec<u8>>()).await.expect("they are sent");
    for id in 0..50 {
        let answer = connection.receive().await.expect("an answer").json();
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(id), &json!(-32001)));
    }
    // The older protocol has one request per connection.
    connection.send(b"GET /healthz HTTP/1.0\r\n\r\n").await.expect("it is sent");
    assert_eq!(connection.receive().await.expect("an answer").status, 200);
    assert_eq!(connection.ended().await, b"");
    node.stop().await;
}

/// A client that is gone before its answer is written takes nothing with it.
#[tokio::test]
async fn connections_may_end_at_any_byte() {
    let (node, to) = echo().await;
    let request = post("/", &[], &request("SendMessage", message(json!([{ "text": "hi" }]))));
    for end in (0..=request.len()).step_by(7) {
        let mut connection = Connection::open(to).await;
        connection.send(&request[..end]).await.expect("it is sent");
        drop(connection);
    }
    let task = send_text(to, "/", "hi").await;
    assert_eq!(state(&task), "TASK_STATE_COMPLETED");
    let busy = || node.census().tree().iter().any(|actor| actor.kind == "task");
    eventually("the end of all tasks", || !busy()).await;
    assert_eq!(node.kernel().post_mortems().len(), 0);
    node.stop().await;
}

/// A body can't be made to take much more memory than it has bytes.
#[tokio::test]
async fn a_body_of_too_many_values_is_refused_by_every_door() {
    let (node, to) = echo().await;
    let filled = |values: usize| vec!["0"; values].join(",");
    let send = |values: usize| {
        let filled = filled(values);
        let parts = r#"[{"text":"hi"}]"#;
        format!(
            r#"{{"message":{{"messageId":"m","role":"ROLE_USER","parts":{parts},"metadata":{{"x":[{filled}]}}}}}}"#
        )
    };
    let rpc = |values| {
        let params = send(values);
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":{params}}}"#)
    };
    let chat = |values| {
        let filled = filled(values);
        format!(
            r#"{{"model":"echo","messages":[{{"role":"user","content":"hi","x":[{filled}]}}]}}"#
        )
    };
    let doors: [(&str, &dyn Fn(usize) -> String); 3] =
        [("/", &rpc), ("/message:send", &send), ("/v1/chat/completions", &chat)];
    for (path, body) in doors {
        let mut connection = Connection::open(to).await;
        let most = connection.post(path, body(BODY_VALUES - 32).as_bytes()).await;
        assert!(most.status == 200 && most.json().get("error").is_none(), "{path}");
        let more = connection.post(path, body(BODY_VALUES).as_bytes()).await;
        let message = more.json()["error"]["message"].as_str().map(str::to_owned);
        let expected = format!("has more than {BODY_VALUES} values");
        assert!(message.is_some_and(|message| message.ends_with(&expected)), "{}", more.text());
    }
    node.stop().await;
}

/// A request with something else in the place of one of its fields.
fn with(mut whole: Value, pointer: &str, other: &Value) -> Value {
    *whole.pointer_mut(pointer).expect("a place") = other.clone();
    whole
}

/// Requests, their paths, and which of their fields is this value, which none may have.
fn with_one_field(long: &Value) -> Vec<(&'static str, String, Value)> {
    let with = |whole, pointer: &str| with(whole, pointer, long);
    let message = json!({ "messageId": "m", "role": "ROLE_USER", "parts": [{ "text": "hi" }] });
    let send = |pointer: &str| {
        let mut whole = json!({
            "tenant": "", "message": message,
            "configuration": { "acceptedOutputModes": [""], "historyLength": 1 },
        });
        for (name, value) in
            [("contextId", json!("")), ("taskId", json!("")), ("metadata", json!({}))]
        {
            whole["message"][name] = value;
        }
        whole["message"]["parts"][0]["mediaType"] = json!("");
        with(whole, pointer)
    };
    let of_message = [
        "/tenant",
        "/message",
        "/message/messageId",
        "/message/role",
        "/message/parts",
        "/message/parts/0",
        "/message/contextId",
        "/message/taskId",
        "/message/metadata",
        "/configuration",
        "/configuration/acceptedOutputModes/0",
        "/configuration/historyLength",
    ];
    let mut requests = Vec::new();
    for pointer in of_message {
        let (rest, params) = (send(pointer), send(pointer));
        requests.push(("/message:send", pointer.to_owned(), rest));
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": params });
        requests.push(("/", pointer.to_owned(), call));
    }
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": { "id": "t" } });
    for pointer in ["/jsonrpc", "/id", "/method", "/params", "/params/id"] {
        requests.push(("/", pointer.to_owned(), with(call.clone(), pointer)));
    }
    let list =
        json!({ "status": "TASK_STATE_WORKING", "pageSize": 1, "pageToken": "", "contextId": "" });
    for pointer in ["/status", "/pageSize", "/pageToken", "/contextId"] {
        let params = with(list.clone(), pointer);
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "ListTasks", "params": params });
        requests.push(("/", pointer.to_owned(), call));
    }
    let chat = json!({
        "model": "echo", "stream": false, "n": 1, "tools": [], "response_format": { "type": "text" },
        "stream_options": { "include_usage": false }, "tool_choice": "auto",
        "messages": [{ "role": "user", "content": [
            { "type": "text", "text": "x", "image_url": null },
        ] }],
    });
    for pointer in [
        "/model",
        "/stream",
        "/n",
        "/tools",
        "/response_format",
        "/stream_options",
        "/stream_options/include_usage",
        "/messages",
        "/messages/0",
        "/messages/0/role",
        "/messages/0/content/0",
        "/messages/0/content/0/type",
        "/messages/0/content/0/image_url",
    ] {
        let whole = with(chat.clone(), pointer);
        requests.push(("/v1/chat/completions", pointer.to_owned(), whole));
    }
    requests
}

/// Whatever field is long, and however long its text is when it's escaped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_repeats_little_of_what_was_sent() {
    const LONG: usize = 100_000;
    const LONGEST: usize = 4_096;
    let builder = Node::builder().agent(AnyAgent::new(Echo)).gateway(loopback());
    let (node, to) = start(builder.mcp_server(McpServer { http: true, exec: false })).await;
    for long in ["x".repeat(LONG), "\u{80}".repeat(LONG)] {
        let long = json!(long);
        for (path, pointer, body) in with_one_field(&long) {
            let answer = Connection::open(to).await.post(path, body.to_string().as_bytes()).await;
            let what = format!("{path} {pointer}");
            assert!(answer.json().get("error").is_some(), "{what}: {}", answer.text());
            assert!(answer.body.len() < LONGEST, "{what}: {} bytes", answer.body.len());
        }
        let begun = Client::new(to, None).begin().await;
        let session = begun.header("mcp-session-id").expect("a session").to_owned();
        let call = json!({ "name": "echo", "arguments": { "message": "hi", "taskId": "t" } });
        let with = |whole, pointer| with(whole, pointer, &long);
        for (method, params) in [
            ("tools/call", with(call.clone(), "/name")),
            ("tools/call", with(call.clone(), "/arguments")),
            ("tools/call", with(call, "/arguments/taskId")),
            ("tasks/get", json!({ "taskId": long })),
            ("tasks/cancel", json!({ "taskId": [long] })),
            ("tools/list", json!({ "cursor": long })),
            (long.as_str().expect("a text"), json!({})),
        ] {
            let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
            let headers = [
                ("accept", "application/json, text/event-stream"),
                ("mcp-session-id", session.as_str()),
                ("mcp-protocol-version", "2025-11-25"),
            ];
            let mut connection = Connection::open(to).await;
            let answer = connection.post_with("/mcp", &headers, body.to_string().as_bytes()).await;
            let what: String = method.chars().take(20).collect();
            assert!(answer.body.len() < LONGEST, "{what}: {} bytes", answer.body.len());
        }
    }
    node.stop().await;
}
