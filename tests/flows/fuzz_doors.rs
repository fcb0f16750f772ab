//! Broken requests to the doors beside A2A over JSON: the endpoints of the `OpenAI` API, made from a
//! request that has every field of their schema, and gRPC, made from the bytes of right messages.

use a2a_pb::protojson as pb;
use bytes::{Buf, BufMut, Bytes};
use neuroflow::{AgentBuilder, AnyAgent, Echo, Node};
use serde_json::{Value, json};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use crate::client::{Connection, Response, get, post, send_text, within};
use crate::fuzz::{Dice, mutate, mutate_bytes, seed};
use crate::support::{actors, caller, eventually, loopback, output, start};

/// Requests to each door: enough that every field meets every sort of value.
const REQUESTS: usize = 2_000;

fn node() -> neuroflow::NodeBuilder {
    let caller = caller(AgentBuilder::new("caller", "Calls tools that it doesn't have."));
    Node::builder().agent(AnyAgent::new(Echo)).agent(caller).gateway(loopback())
}

/// A node that has seen enough is as it was.
pub(crate) async fn is_as_it_was(node: &Node, before: &[String]) {
    eventually("the end of all tasks", || actors(node) == before).await;
    assert!(node.kernel().post_mortems().is_empty(), "{:?}", node.kernel().post_mortems());
    let to = node.gateway().expect("a gateway");
    assert_eq!(output(&send_text(to, "/", "still here").await), "still here");
}

/// A chat completion that has every field that is read, each of every sort.
fn completions() -> [Value; 3] {
    let text = json!({ "role": "user", "content": "hello" });
    let parts = json!({ "role": "user", "content": [
        { "type": "text", "text": "what is it?" },
        { "type": "image_url", "image_url": { "url": "https://example.org/a.png" } },
    ] });
    let tool = json!({ "type": "function", "function": {
        "name": "add", "description": "Adds.", "parameters": { "type": "object", "properties": {} },
    } });
    let called = json!({ "role": "assistant", "content": null, "tool_calls": [
        { "id": "c1", "type": "function", "function": { "name": "add", "arguments": "{}" } },
    ] });
    let result = json!({ "role": "tool", "tool_call_id": "c1", "content": "3" });
    [
        json!({ "model": "echo", "messages": [text], "n": 1, "temperature": 0.5, "user": "u" }),
        json!({ "model": "echo", "messages": [{ "role": "system", "content": "be brief" }, parts],
            "stream": true, "stream_options": { "include_usage": true }, "max_tokens": 9,
            "response_format": { "type": "json_object" } }),
        json!({ "model": "caller", "messages": [text, called, result], "tools": [tool],
            "tool_choice": { "type": "function", "function": { "name": "add" } } }),
    ]
}

#[tokio::test]
async fn broken_completions_are_refused_in_the_apis_own_words() {
    let seed = seed();
    let mut dice = Dice(seed);
    let (node, to) = start(node()).await;
    let before = actors(&node);
    let corpus = completions();
    let mut line = Connection::open(to).await;
    let (mut served, mut refused) = (0, 0);
    for _ in 0..REQUESTS {
        let mut body = corpus[dice.below(corpus.len())].clone();
        let request = match dice.below(10) {
            0 => get(&format!("/v1/models/{}", dice.path())).into_bytes(),
            1 => get("/v1/models").into_bytes(),
            2..=6 => {
                for _ in 0..=dice.below(3) {
                    mutate(&mut dice, &mut body, 0);
                }
                post("/v1/chat/completions", &[], body.to_string().as_bytes())
            }
            7 | 8 => {
                let mut bytes = body.to_string().into_bytes();
                for _ in 0..=dice.below(6) {
                    mutate_bytes(&mut dice, &mut bytes, &corpus);
                }
                post("/v1/chat/completions", &[], &bytes)
            }
            _ => post("/v1/chat/completions", &[], body.to_string().as_bytes()),
        };
        let shown = || format!("seed {seed}: {}", String::from_utf8_lossy(&request));
        let mut answer = exchange(&mut line, &request).await;
        if answer.is_none() {
            // The server may end a connection after an answer, but never instead of one.
            line = Connection::open(to).await;
            answer = exchange(&mut line, &request).await;
        }
        let answer = answer.unwrap_or_else(|| panic!("no answer to {}", shown()));
        if is_served(&answer, &shown) { served += 1 } else { refused += 1 }
    }
    assert!(
        served > REQUESTS / 20 && refused > REQUESTS / 4,
        "{seed}: {served} served, {refused} refused"
    );
    is_as_it_was(&node, &before).await;
    node.stop().await;
}

pub(crate) async fn exchange(line: &mut Connection, request: &[u8]) -> Option<Response> {
    line.send(request).await.ok()?;
    line.receive().await.ok()
}

/// Whether it was served. Fails if the answer isn't one of this API.
pub(crate) fn is_served(answer: &Response, shown: &impl Fn() -> String) -> bool {
    if answer.header("content-type") == Some("text/event-stream") {
        // A stream that has begun ends with its last word, or with an error.
        let text = answer.text();
        let ended = text.ends_with("data: [DONE]\n\n") || text.contains("data: {\"error\":");
        assert!(answer.status == 200 && ended, "{}: {text}", shown());
        return true;
    }
    if answer.status == 200 {
        let known = ["chat.completion", "list", "model"];
        assert!(known.iter().any(|kind| answer.json()["object"] == *kind), "{}", shown());
        return true;
    }
    let known = [400, 404, 405, 413, 422];
    assert!(known.contains(&answer.status), "{} {}: {}", answer.status, shown(), answer.text());
    let is_own = answer.header("content-type") == Some("application/json");
    if is_own && !shown().contains("GET /v1/models/") {
        let error = &answer.json()["error"];
        assert!(error["message"].as_str().is_some_and(|it| !it.is_empty()), "{}: {error}", shown());
        let kinds = ["invalid_request_error", "agent_error"];
        assert!(kinds.iter().any(|kind| error["type"] == *kind), "{}: {error}", shown());
    }
    false
}

/// Sends bytes as they are and takes whatever comes.
#[derive(Clone, Copy, Debug, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// A field of protobuf whose content has a length.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).expect("a short field");
    assert!(length < 128 && number < 16, "one byte each");
    [&[number << 3 | 2, length], content].concat()
}

/// The bytes of right messages, by operation.
fn messages(task: &str) -> Vec<(&'static str, Vec<u8>)> {
    // Field numbers of `a2a.proto`: Message 1 message_id, 4 role, 5 parts; Part 1 text.
    let part = field(5, &field(1, b"hello"));
    let message = [field(1, b"m-1"), vec![4 << 3, 1], part].concat();
    let send = field(2, &message);
    let id = field(2, task.as_bytes());
    let of_task = field(2, task.as_bytes());
    vec![
        ("SendMessage", send.clone()),
        ("SendStreamingMessage", send),
        ("GetTask", id.clone()),
        ("CancelTask", id.clone()),
        ("SubscribeToTask", id),
        ("ListTasks", field(1, b"echo")),
        ("GetExtendedAgentCard", field(1, b"echo")),
        (
            "CreateTaskPushNotificationConfig",
            [field(3, task.as_bytes()), field(4, b"http://h/")].concat(),
        ),
        ("GetTaskPushNotificationConfig", [of_task.clone(), field(3, b"c")].concat()),
        ("DeleteTaskPushNotificationConfig", [of_task, field(3, b"c")].concat()),
        ("ListTaskPushNotificationConfigs", field(1, task.as_bytes())),
    ]
}

#[tokio::test]
async fn broken_messages_of_grpc_are_refused_with_a_status() {
    let seed = seed();
    let mut dice = Dice(seed);
    let (node, to) = start(node()).await;
    let before = actors(&node);
    let task = send_text(to, "/", "x").await;
    let task = task["id"].as_str().expect("an id");
    let corpus = messages(task);
    let endpoint = Endpoint::from_shared(format!("http://{to}")).expect("a URL");
    let channel = within(endpoint.connect()).await.expect("a connection");
    // The corpus is right: what is broken later is broken by us.
    let right = call(&channel, "GetTask", corpus[2].1.clone()).await.expect("a task");
    assert!(right.windows(task.len()).any(|it| it == task.as_bytes()));
    let said = call(&channel, "SendMessage", corpus[0].1.clone()).await.expect("a task");
    assert!(said.windows(5).any(|it| it == b"hello"));
    let (mut served, mut refused) = (0, 0);
    for _ in 0..REQUESTS {
        let (operation, mut bytes) = corpus[dice.below(corpus.len())].clone();
        let operation = if dice.below(40) == 0 { "NoSuchMethod" } else { operation };
        for _ in 0..dice.below(6) {
            mutate_bytes(&mut dice, &mut bytes, &[]);
        }
        // The one connection carries all of them: none ends it.
        match call(&channel, operation, bytes.clone()).await {
            Ok(_) => served += 1,
            Err(status) => {
                let known = [
                    Code::InvalidArgument,
                    Code::NotFound,
                    Code::FailedPrecondition,
                    Code::Unimplemented,
                    Code::Internal,
                ];
                let code = status.code();
                assert!(known.contains(&code), "seed {seed}: {operation} {bytes:?}: {status:?}");
                // A message that can't be read is tonic's to refuse; nothing else is an inner error.
                let unread = status.message().contains("decode");
                assert!(code != Code::Internal || unread, "seed {seed}: {operation}: {status:?}");
                refused += 1;
            }
        }
    }
    assert!(
        served > REQUESTS / 20 && refused > REQUESTS / 4,
        "{seed}: {served} served, {refused} refused"
    );
    // It still speaks.
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.expect("the connection is ready");
    let request = tonic::Request::new(pb::ListTasksRequest::default());
    let path = "/lf.a2a.v1.A2AService/ListTasks".parse().expect("a path");
    let codec = ProstCodec::<pb::ListTasksRequest, pb::ListTasksResponse>::default();
    let mut request = request;
    request.metadata_mut().insert("a2a-version", "1.0".parse().expect("a value"));
    within(grpc.unary(request, path, codec)).await.expect("a list");
    is_as_it_was(&node, &before).await;
    node.stop().await;
}

/// All bytes of the answer's messages, or its status.
async fn call(channel: &Channel, operation: &str, bytes: Vec<u8>) -> Result<Vec<u8>, Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.expect("the connection is ready");
    let path = format!("/lf.a2a.v1.A2AService/{operation}").parse().expect("a path");
    let mut request = tonic::Request::new(Bytes::from(bytes));
    request.metadata_mut().insert("a2a-version", "1.0".parse().expect("a value"));
    within(async {
        let mut stream = grpc.server_streaming(request, path, Raw).await?.into_inner();
        let mut received = Vec::new();
        while let Some(message) = stream.message().await? {
            received.extend_from_slice(&message);
        }
        Ok(received)
    })
    .await
}
