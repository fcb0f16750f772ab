//! Bad input by HTTP+JSON and gRPC: the exact answer to each.

use a2a_pb::protojson as pb;
use neuroflow::{AnyAgent, Echo, Node};
use serde_json::{Value, json};
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;

use crate::client::{Connection, message, post, within};
use crate::protocol::{Binding, Peer};
use crate::support::{loopback, start};

fn node() -> neuroflow::NodeBuilder {
    Node::builder().agent(AnyAgent::new(Echo)).gateway(loopback())
}

const JSON: (&str, &str) = ("content-type", "application/a2a+json");

#[tokio::test]
async fn a_body_that_cannot_be_read_says_where() {
    let (node, to) = start(node()).await;
    let deep = format!(
        r#"{{"message":{{"messageId":"m","role":"ROLE_USER","parts":[{{"data":{}1{}}}]}}}}"#,
        "[".repeat(200),
        "]".repeat(200)
    );
    let cases: &[(&[u8], &str, Option<&str>)] = &[
        (b"", "INVALID_REQUEST", None),
        (b"{", "INVALID_REQUEST", None),
        (b"\xff\xfe", "INVALID_REQUEST", None),
        (br#"{"message":{"messageId":"\ud800"}}"#, "INVALID_PARAMS", Some("message.messageId")),
        (b"[]", "INVALID_PARAMS", Some("body")),
        (b"null", "INVALID_PARAMS", Some("body")),
        (br#"{"message":{},"message":{}}"#, "INVALID_PARAMS", Some("body")),
        (br#"{"message":{"role":"ROLE_KING"}}"#, "INVALID_PARAMS", Some("message.role")),
        (br#"{"message":{"parts":[{"text":7}]}}"#, "INVALID_PARAMS", Some("message.parts[0].text")),
        (br#"{"message":{"parts":{}}}"#, "INVALID_PARAMS", Some("message.parts")),
        (
            br#"{"configuration":{"historyLength":1e99}}"#,
            "INVALID_PARAMS",
            Some("configuration.historyLength"),
        ),
    ];
    let mut connection = Connection::open(to).await;
    for (body, reason, field) in cases {
        let text = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        let response = connection.post_with("/message:send", &[JSON], body).await;
        let error = response.json()["error"].take();
        assert_eq!((response.status, &error["code"]), (400, &json!(400)), "{text}: {error}");
        assert_eq!(error["status"], "INVALID_ARGUMENT", "{text}");
        assert_eq!(error["details"][0]["reason"], *reason, "{text}: {error}");
        let found = error["details"][1]["fieldViolations"][0]["field"].as_str();
        assert_eq!(found, *field, "{text}: {error}");
        assert_eq!(response.header("content-type"), Some("application/a2a+json"));
    }
    let response = connection.post_with("/message:send", &[JSON], deep.as_bytes()).await;
    let message = response.json()["error"]["message"].take();
    let said = message.as_str().unwrap_or_default();
    assert!(response.status == 400 && said.contains("recursion limit"), "{said}");
    node.stop().await;
}

#[tokio::test]
async fn content_types_are_checked_and_the_answer_speaks_the_clients() {
    let (node, to) = start(node()).await;
    let mut connection = Connection::open(to).await;
    let body = message(json!([{ "text": "hi" }])).to_string();
    for (sent, accept, status, answered) in [
        ("application/a2a+json", "", 200, "application/a2a+json"),
        ("application/a2a+json; charset=utf-8", "*/*", 200, "application/a2a+json"),
        ("application/json", "", 200, "application/json"),
        ("application/a2a+json", "application/json", 200, "application/json"),
        ("text/plain", "", 400, "application/a2a+json"),
        ("", "", 400, "application/a2a+json"),
    ] {
        let headers = [("content-type", sent), ("accept", accept)];
        let headers: Vec<_> = headers
            .into_iter()
            .filter(|(name, value)| *name != "accept" || !value.is_empty())
            .collect();
        let response = connection.post_with("/message:send", &headers, body.as_bytes()).await;
        assert_eq!(
            (response.status, response.header("content-type")),
            (status, Some(answered)),
            "{sent}"
        );
        if status != 200 {
            let error = response.json()["error"].take();
            assert_eq!(error["details"][0]["reason"], "CONTENT_TYPE_NOT_SUPPORTED");
        }
    }
    node.stop().await;
}

#[tokio::test]
async fn paths_and_methods_that_are_not_there_say_so() {
    let (node, to) = start(node()).await;
    let mut connection = Connection::open(to).await;
    let mut ask = async |method: &str, path: &str| {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\na2a-version: 1.0\r\ncontent-length: 0\r\n\r\n"
        );
        connection.send(request.as_bytes()).await.expect("it is sent");
        connection.receive().await.expect("an answer")
    };
    for path in ["/x", "/tasks/a/b", "/x/y/tasks", "/tasks/%ff", "/agents/echo/nothing"] {
        let response = ask("GET", path).await;
        let error = response.json()["error"].take();
        assert_eq!((response.status, &error["status"]), (404, &json!("NOT_FOUND")), "{path}");
    }
    for (method, path, allow) in [
        ("GET", "/message:send", "POST"),
        ("DELETE", "/tasks", "GET"),
        ("GET", "/tasks/a:cancel", "POST"),
        ("PUT", "/tasks/a:subscribe", "GET, POST"),
        ("POST", "/extendedAgentCard", "GET"),
    ] {
        let response = ask(method, path).await;
        assert_eq!((response.status, response.header("allow")), (405, Some(allow)), "{path}");
    }
    for path in ["/nobody/tasks", "/agents/nobody/tasks"] {
        let response = ask("GET", path).await;
        let message = response.json()["error"]["message"].take();
        let said = message.as_str().unwrap_or_default();
        assert!(
            response.status == 404 && said.contains("nobody") && said.contains("echo"),
            "{said}"
        );
    }
    for (query, field) in [
        ("pageSize=x", "pageSize"),
        ("pageSize=1&pageSize=2", "pageSize"),
        ("status=TASK_STATE_ASLEEP", "status"),
        ("status=99", "status"),
        ("includeArtifacts=yes", "includeArtifacts"),
        ("statusTimestampAfter=yesterday", "statusTimestampAfter"),
        ("historyLength=99999999999", "historyLength"),
    ] {
        let response = ask("GET", &format!("/tasks?{query}")).await;
        let error = response.json()["error"].take();
        let found = &error["details"][1]["fieldViolations"][0]["field"];
        assert_eq!((response.status, found), (400, &json!(field)), "{query}: {error}");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_body_and_a_path_that_contradict_each_other_are_refused() {
    let (node, to) = start(node()).await;
    let mut connection = Connection::open(to).await;
    let response = connection.post("/tasks/a:cancel", br#"{"id":"b"}"#).await;
    let error = response.json()["error"].take();
    assert_eq!(error["details"][1]["fieldViolations"][0]["field"], "id", "{error}");
    let body = message(json!([{ "text": "x" }]));
    let mut body: Value = body;
    body["tenant"] = json!("other");
    let response = connection.post("/echo/message:send", body.to_string().as_bytes()).await;
    let error = response.json()["error"].take();
    assert_eq!(error["details"][1]["fieldViolations"][0]["field"], "tenant", "{error}");
    node.stop().await;
}

#[tokio::test]
async fn a_cursor_is_good_for_its_own_list_only() {
    let (node, to) = start(node()).await;
    let peer = Peer::new(Binding::Rpc, to, None);
    for _ in 0..3 {
        let mut ask = message(json!([{ "text": "x" }]));
        ask["message"]["contextId"] = json!("c");
        peer.call("SendMessage", ask).await.expect("a task");
    }
    let query = json!({ "contextId": "c", "pageSize": 1 });
    let page = peer.call("ListTasks", query.clone()).await.expect("a page");
    let token = page["nextPageToken"].as_str().expect("a token").to_owned();
    let with = |token: &str, context: &str| json!({ "contextId": context, "pageSize": 1, "pageToken": token });
    peer.call("ListTasks", with(&token, "c")).await.expect("the next page");
    let mut flipped = token.clone().into_bytes();
    flipped[3] = if flipped[3] == b'A' { b'B' } else { b'A' };
    let flipped = String::from_utf8(flipped).expect("text");
    let long = "A".repeat(10_000);
    for (token, context) in
        [(flipped.as_str(), "c"), (&token[1..], "c"), (token.as_str(), "d"), (long.as_str(), "c")]
    {
        let fault = peer.call("ListTasks", with(token, context)).await.expect_err("it's forged");
        assert_eq!((fault.code, fault.field.as_deref()), (-32602, Some("pageToken")));
    }
    node.stop().await;
}

#[tokio::test]
async fn grpc_that_is_broken_is_answered_and_leaves_the_node_as_it_was() {
    let (node, to) = start(node()).await;
    // Not over HTTP/1.1, and not another type.
    let mut connection = Connection::open(to).await;
    let path = "/lf.a2a.v1.A2AService/SendMessage";
    let grpc = [("content-type", "application/grpc")];
    assert_eq!(connection.post_with(path, &grpc, b"\0\0\0\0\0").await.status, 505);

    let endpoint = Endpoint::from_shared(format!("http://{to}")).expect("a URL");
    let channel = within(endpoint.connect()).await.expect("a connection");
    let call = async |method: &str, bytes: Vec<u8>| {
        let mut grpc = tonic::client::Grpc::new(channel.clone());
        grpc.ready().await.expect("the connection is ready");
        // A text has the tag of `SendMessageRequest.tenant`, so these bytes are a message's field.
        let request = pb::GetTaskRequest {
            tenant: String::from_utf8_lossy(&bytes).into_owned(),
            ..Default::default()
        };
        let mut request = tonic::Request::new(request);
        request.metadata_mut().insert("a2a-version", "1.0".parse().expect("a value"));
        let path = format!("/lf.a2a.v1.A2AService/{method}").parse().expect("a path");
        let codec = ProstCodec::<pb::GetTaskRequest, pb::Task>::default();
        within(grpc.unary(request, path, codec)).await.expect_err("it's refused")
    };
    assert_eq!(call("Nonsense", Vec::new()).await.code(), tonic::Code::Unimplemented);
    assert_eq!(call("GetTask", Vec::new()).await.code(), tonic::Code::InvalidArgument);
    let large = call("GetTask", vec![b'x'; 5 * 1024 * 1024]).await;
    assert_eq!(large.code(), tonic::Code::ResourceExhausted, "{large:?}");
    assert_eq!(call("GetTask", vec![b'x'; 1_000]).await.code(), tonic::Code::InvalidArgument);

    // A frame that says it's longer than it is, one that is compressed, one that is so in no known way,
    // one that is too long, and none. Those are inner errors by gRPC's own rules, but the fourth.
    let (internal, out_of_range) = ("13", "11");
    for (body, status) in [
        (&b"\0\0\0\0\x09abc"[..], internal),
        (b"\x01\0\0\0\0", internal),
        (b"\x09\0\0\0\0", internal),
        (b"\0\xff\xff\xff\xff", out_of_range),
        (b"", internal),
    ] {
        assert_eq!(raw_grpc(to, "identity", body).await, status, "{body:?}");
    }
    // One that is compressed in a way that isn't taken, which gRPC has a word for.
    assert_eq!(raw_grpc(to, "gzip", b"\x01\0\0\0\0").await, "12");
    let peer = Peer::new(Binding::Grpc, to, None);
    peer.call("SendMessage", message(json!([{ "text": "still here" }]))).await.expect("a task");
    node.stop().await;
}

/// The status that a body of any bytes is answered with.
async fn raw_grpc(to: std::net::SocketAddr, encoding: &str, body: &[u8]) -> String {
    let body = body.to_vec();
    let encoding = format!("grpc-encoding: {encoding}");
    let run = move || {
        let url = format!("http://{to}/lf.a2a.v1.A2AService/GetTask");
        let file = std::env::temp_dir().join(format!("grpc-{}-{}", std::process::id(), body.len()));
        std::fs::write(&file, &body).expect("a file");
        let data = format!("@{}", file.display());
        let curl = [
            "curl",
            "--silent",
            "--http2-prior-knowledge",
            "--include",
            "--noproxy",
            "*",
            "--header",
            "content-type: application/grpc",
            "--header",
            "te: trailers",
            "--header",
            "a2a-version: 1.0",
            "--header",
            &encoding,
            "--data-binary",
            &data,
            &url,
        ];
        let said = crate::support::run_program(&curl, &[]);
        std::fs::remove_file(&file).ok();
        said.unwrap_or_else(|complaint| panic!("{complaint}"))
    };
    let said = tokio::task::spawn_blocking(run).await.expect("it doesn't panic");
    let status = said.lines().find_map(|line| line.strip_prefix("grpc-status: "));
    status.unwrap_or_else(|| panic!("no status in {said:?}")).trim().to_owned()
}

#[tokio::test]
async fn oversize_bodies_are_refused_by_every_binding_before_they_are_read() {
    let (node, to) = start(node()).await;
    for path in ["/message:send", "/agents/echo/message:stream"] {
        let mut connection = Connection::open(to).await;
        let request = post(path, &[JSON, ("content-length", "99999999")], b"");
        connection.send(&request).await.expect("it is sent");
        let response = connection.receive().await.expect("an answer");
        assert_eq!((response.status, &response.json()["error"]["code"]), (413, &json!(413)));
    }
    node.stop().await;
}
