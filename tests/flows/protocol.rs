//! One client for all bindings of A2A: an operation and its parameters as JSON-RPC has them, sent in
//! whichever way, and the answer in one form.

use std::net::SocketAddr;

use a2a_pb::protojson as pb;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tonic::codec::Codec;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt;

use crate::client::{Connection, Events, Response, post, within};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binding {
    Rpc,
    Rest,
    Grpc,
}

impl Binding {
    pub(crate) const ALL: [Self; 3] = [Self::Rpc, Self::Rest, Self::Grpc];
}

/// An error as every binding says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The code of JSON-RPC, the status of HTTP, or the code of gRPC.
    pub(crate) code: i64,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) field: Option<String>,
}

/// A client of one agent by one binding.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) binding: Binding,
    to: SocketAddr,
    /// None for the one at the root.
    agent: Option<&'static str>,
    headers: Vec<(&'static str, String)>,
}

/// A stream of updates.
pub(crate) enum Updates {
    Sse(Binding, Box<Events>),
    Grpc(Box<tonic::Streaming<pb::StreamResponse>>),
}

impl Peer {
    pub(crate) fn new(binding: Binding, to: SocketAddr, agent: Option<&'static str>) -> Self {
        Self { binding, to, agent, headers: vec![("a2a-version", "1.0".to_owned())] }
    }

    /// With another header, or another value of one.
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.retain(|(other, _)| *other != name);
        if !value.is_empty() {
            self.headers.push((name, value.to_owned()));
        }
        self
    }

    /// The result, in `ProtoJSON`, or the error.
    pub(crate) async fn call(&self, operation: &str, params: Value) -> Result<Value, Fault> {
        match self.binding {
            Binding::Rpc => {
                let request = self.rpc_request(operation, &params);
                rpc_result(&self.exchange(&request).await)
            }
            Binding::Rest => {
                let response = self.exchange(&self.rest_request(operation, params)).await;
                rest_result(&response)
            }
            Binding::Grpc => self.grpc(operation, params).await,
        }
    }

    /// The updates of an operation that has such, or the error that comes in their place.
    pub(crate) async fn stream(&self, operation: &str, params: Value) -> Result<Updates, Fault> {
        let connection = Connection::open(self.to).await;
        match self.binding {
            Binding::Rpc => {
                let events = connection.events(&self.rpc_request(operation, &params)).await;
                match events {
                    Ok(events) => Ok(Updates::Sse(Binding::Rpc, Box::new(events))),
                    Err(response) => {
                        Err(rpc_result(&response).expect_err("no stream, so an error"))
                    }
                }
            }
            Binding::Rest => {
                let events = connection.events(&self.rest_request(operation, params)).await;
                match events {
                    Ok(events) => Ok(Updates::Sse(Binding::Rest, Box::new(events))),
                    Err(response) => {
                        Err(rest_result(&response).expect_err("no stream, so an error"))
                    }
                }
            }
            Binding::Grpc => {
                let answer = match operation {
                    "SendStreamingMessage" => {
                        self.grpc_stream::<pb::SendMessageRequest>(operation, params).await
                    }
                    _ => self.grpc_stream::<pb::SubscribeToTaskRequest>(operation, params).await,
                };
                answer
                    .map(|stream| Updates::Grpc(Box::new(stream)))
                    .map_err(|status| fault(&status))
            }
        }
    }

    /// What the answer to a message says of the extensions that are in force: a header of HTTP, or
    /// metadata of gRPC.
    pub(crate) async fn activated(&self, params: Value) -> Option<String> {
        let operation = "SendMessage";
        let request = match self.binding {
            Binding::Rpc => self.rpc_request(operation, &params),
            Binding::Rest => self.rest_request(operation, params),
            Binding::Grpc => {
                type Codec = ProstCodec<pb::SendMessageRequest, pb::SendMessageResponse>;
                let mut grpc = self.channel().await;
                let path = format!("/lf.a2a.v1.A2AService/{operation}").parse().expect("a path");
                let request = self.grpc_request::<pb::SendMessageRequest>(params);
                let answer = within(grpc.unary(request, path, Codec::default())).await;
                let answer = answer.expect("an answer");
                let value = answer.metadata().get("a2a-extensions");
                return value.map(|value| value.to_str().expect("text").to_owned());
            }
        };
        self.exchange(&request).await.header("a2a-extensions").map(str::to_owned)
    }

    async fn exchange(&self, request: &[u8]) -> Response {
        let mut connection = Connection::open(self.to).await;
        connection.send(request).await.expect("the request is sent");
        connection.receive().await.expect("an answer")
    }

    fn prefix(&self) -> String {
        self.agent.map(|agent| format!("/agents/{agent}")).unwrap_or_default()
    }

    fn headers(&self) -> Vec<(&str, &str)> {
        let mut headers: Vec<_> =
            self.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        if !self.headers.iter().any(|(name, _)| *name == "a2a-version") {
            // Otherwise it would be sent as usual.
            headers.push(("a2a-version", ""));
        }
        headers
    }

    /// The bytes of a POST, without the version if that isn't to be sent.
    fn post(&self, path: &str, body: &Value) -> Vec<u8> {
        let mut request = post(path, &self.headers(), body.to_string().as_bytes());
        let line = b"a2a-version: \r\n";
        if let Some(at) = request.windows(line.len()).position(|bytes| bytes == line) {
            request.drain(at..at + line.len());
        }
        request
    }

    fn rpc_request(&self, operation: &str, params: &Value) -> Vec<u8> {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": operation, "params": params });
        let path = self.agent.map_or("/".to_owned(), |agent| format!("/agents/{agent}"));
        self.post(&path, &body)
    }

    fn rest_request(&self, operation: &str, mut params: Value) -> Vec<u8> {
        let mut take = |name: &str| params[name].take().as_str().unwrap_or_default().to_owned();
        let tenant = take("tenant");
        let tenant = if tenant.is_empty() { tenant } else { format!("/{tenant}") };
        let (id, task) = match operation {
            "GetTask" | "CancelTask" | "SubscribeToTask" => (take("id"), String::new()),
            "SendMessage" | "SendStreamingMessage" | "ListTasks" => Default::default(),
            // Its own id is a part of the configuration.
            "CreateTaskPushNotificationConfig" => (String::new(), take("taskId")),
            _ => (take("id"), take("taskId")),
        };
        let configs = format!("/tasks/{task}/pushNotificationConfigs");
        let (method, path) = match operation {
            "SendMessage" => ("POST", "/message:send".to_owned()),
            "SendStreamingMessage" => ("POST", "/message:stream".to_owned()),
            "GetTask" => ("GET", format!("/tasks/{id}")),
            "ListTasks" => ("GET", "/tasks".to_owned()),
            "CancelTask" => ("POST", format!("/tasks/{id}:cancel")),
            "SubscribeToTask" => ("GET", format!("/tasks/{id}:subscribe")),
            "GetExtendedAgentCard" => ("GET", "/extendedAgentCard".to_owned()),
            "CreateTaskPushNotificationConfig" => ("POST", configs),
            "ListTaskPushNotificationConfigs" => ("GET", configs),
            "GetTaskPushNotificationConfig" => ("GET", format!("{configs}/{id}")),
            "DeleteTaskPushNotificationConfig" => ("DELETE", format!("{configs}/{id}")),
            other => panic!("no path for {other}"),
        };
        if let Value::Object(members) = &mut params {
            members.retain(|_, value| !value.is_null());
        }
        let path = format!("{}{tenant}{path}", self.prefix());
        if method == "POST" {
            return self.post(&path, &params);
        }
        let empty = Map::new();
        let query: Vec<String> = params
            .as_object()
            .unwrap_or(&empty)
            .iter()
            .map(|(name, value)| {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let byte = |byte: u8| match byte {
                    b' ' => "+".to_owned(),
                    b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
                    _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
                    _ => format!("%{byte:02X}"),
                };
                format!("{name}={}", text.bytes().map(byte).collect::<String>())
            })
            .collect();
        let mut head =
            format!("{method} {path}?{} HTTP/1.1\r\nhost: localhost\r\n", query.join("&"));
        for (name, value) in self.headers().into_iter().filter(|(_, value)| !value.is_empty()) {
            head.extend([name, ": ", value, "\r\n"]);
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    async fn grpc(&self, operation: &str, params: Value) -> Result<Value, Fault> {
        let done = match operation {
            "SendMessage" => {
                let answer = self
                    .unary::<pb::SendMessageRequest, pb::SendMessageResponse>(operation, params);
                answer.await
            }
            "GetTask" => self.unary::<pb::GetTaskRequest, pb::Task>(operation, params).await,
            "ListTasks" => {
                self.unary::<pb::ListTasksRequest, pb::ListTasksResponse>(operation, params).await
            }
            "CancelTask" => self.unary::<pb::CancelTaskRequest, pb::Task>(operation, params).await,
            "GetExtendedAgentCard" => {
                let answer =
                    self.unary::<pb::GetExtendedAgentCardRequest, pb::AgentCard>(operation, params);
                answer.await
            }
            "CreateTaskPushNotificationConfig" => {
                type Config = pb::TaskPushNotificationConfig;
                self.unary::<Config, Config>(operation, params).await
            }
            "GetTaskPushNotificationConfig" => {
                type Get = pb::GetTaskPushNotificationConfigRequest;
                self.unary::<Get, pb::TaskPushNotificationConfig>(operation, params).await
            }
            "ListTaskPushNotificationConfigs" => {
                type List = pb::ListTaskPushNotificationConfigsRequest;
                type Listed = pb::ListTaskPushNotificationConfigsResponse;
                self.unary::<List, Listed>(operation, params).await
            }
            "DeleteTaskPushNotificationConfig" => {
                type Delete = pb::DeleteTaskPushNotificationConfigRequest;
                self.unary::<Delete, ()>(operation, params).await
            }
            other => panic!("no message for {other}"),
        };
        done.map_err(|status| fault(&status))
    }

    async fn channel(&self) -> tonic::client::Grpc<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.to)).expect("a URL");
        let channel = within(endpoint.connect()).await.expect("a connection");
        let mut grpc = tonic::client::Grpc::new(channel);
        grpc.ready().await.expect("the connection is ready");
        grpc
    }

    fn grpc_request<Q: DeserializeOwned>(&self, mut params: Value) -> tonic::Request<Q> {
        if let (Some(agent), Value::Object(members)) = (self.agent, &mut params) {
            members.entry("tenant").or_insert_with(|| json!(agent));
        }
        let message = serde_json::from_value(params).expect("the parameters are a message");
        let mut request = tonic::Request::new(message);
        for (name, value) in &self.headers {
            let value = value.parse().expect("a header's value");
            request.metadata_mut().insert(*name, value);
        }
        request
    }

    async fn unary<Q, A>(&self, operation: &str, params: Value) -> Result<Value, tonic::Status>
    where
        ProstCodec<Q, A>: Codec<Encode = Q, Decode = A>,
        Q: DeserializeOwned + Send + Sync + 'static,
        A: Serialize + Send + Sync + 'static,
    {
        let mut grpc = self.channel().await;
        let path = format!("/lf.a2a.v1.A2AService/{operation}").parse().expect("a path");
        let call = grpc.unary(self.grpc_request::<Q>(params), path, ProstCodec::<Q, A>::default());
        let answer = within(call).await?.into_inner();
        Ok(serde_json::to_value(answer).expect("a message is JSON"))
    }

    async fn grpc_stream<Q>(
        &self,
        operation: &str,
        params: Value,
    ) -> Result<tonic::Streaming<pb::StreamResponse>, tonic::Status>
    where
        ProstCodec<Q, pb::StreamResponse>: Codec<Encode = Q, Decode = pb::StreamResponse>,
        Q: DeserializeOwned + Send + Sync + 'static,
    {
        let mut grpc = self.channel().await;
        let path = format!("/lf.a2a.v1.A2AService/{operation}").parse().expect("a path");
        let codec = ProstCodec::<Q, pb::StreamResponse>::default();
        let call = grpc.server_streaming(self.grpc_request::<Q>(params), path, codec);
        Ok(within(call).await?.into_inner())
    }
}

impl Updates {
    /// The next update; none at the end.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        match self {
            Self::Sse(Binding::Rpc, events) => {
                let (_, mut data) = events.next().await?;
                assert!(data.get("error").is_none(), "{data}");
                Some(data["result"].take())
            }
            Self::Sse(_, events) => {
                let (_, data) = events.next().await?;
                assert!(data.get("error").is_none(), "{data}");
                Some(data)
            }
            Self::Grpc(stream) => {
                let update = within(stream.message()).await.expect("the stream goes on")?;
                Some(serde_json::to_value(update).expect("a message is JSON"))
            }
        }
    }

    /// The error that it ends with, after whatever comes before.
    pub(crate) async fn fault(&mut self) -> Fault {
        let mut error = match self {
            Self::Sse(binding, events) => loop {
                let (_, data) = events.next().await.expect("an error");
                if data.get("error").is_none() {
                    continue;
                }
                let code = data["error"]["code"].as_u64().and_then(|code| code.try_into().ok());
                let (status, headers) = (code.unwrap_or(200), Vec::new());
                let response = Response { status, headers, body: data.to_string().into_bytes() };
                let read = if *binding == Binding::Rpc { rpc_result } else { rest_result };
                break read(&response).expect_err("an error");
            },
            Self::Grpc(stream) => loop {
                match within(stream.message()).await {
                    Ok(update) => drop(update.expect("an error")),
                    Err(status) => break fault(&status),
                }
            },
        };
        let field = error.field.take();
        assert_eq!(field, None, "an end is no field's fault");
        error
    }

    /// All that is left.
    pub(crate) async fn rest(&mut self) -> Vec<Value> {
        let mut updates = Vec::new();
        while let Some(update) = self.next().await {
            updates.push(update);
        }
        updates
    }
}

fn rpc_result(response: &Response) -> Result<Value, Fault> {
    let mut answer = response.json();
    let Some(error) = answer.get("error") else { return Ok(answer["result"].take()) };
    let code = error["code"].as_i64().expect("a code");
    let (reason, field) = details(&error["data"]);
    let by_code = match code {
        -32700 | -32600 => "INVALID_REQUEST",
        -32601 => "METHOD_NOT_FOUND",
        -32602 => "INVALID_PARAMS",
        _ => "INTERNAL_ERROR",
    };
    let message = error["message"].as_str().expect("a message").to_owned();
    Err(Fault { code, reason: reason.unwrap_or_else(|| by_code.to_owned()), message, field })
}

fn rest_result(response: &Response) -> Result<Value, Fault> {
    let answer = response.json();
    let Some(error) = answer.get("error") else {
        assert_eq!(response.status, 200, "{answer}");
        return Ok(answer);
    };
    let code = error["code"].as_i64().expect("a code");
    assert_eq!(code, i64::from(response.status), "{answer}");
    let (reason, field) = details(&error["details"]);
    let message = error["message"].as_str().expect("a message").to_owned();
    Err(Fault { code, reason: reason.unwrap_or_default(), message, field })
}

fn details(details: &Value) -> (Option<String>, Option<String>) {
    let of = |name: &str| {
        let details = details.as_array().expect("details are a list");
        details.iter().find(|one| one["@type"] == format!("type.googleapis.com/google.rpc.{name}"))
    };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let info = of("ErrorInfo");
    // The protocol's own, or the door's, which is in front of it.
    let known = ["a2a-protocol.org", "neuroflow"];
    let is_known = |info: &Value| known.iter().any(|domain| info["domain"] == *domain);
    assert!(info.is_none_or(is_known), "{details}");
    let field = of("BadRequest").and_then(|bad| text(&bad["fieldViolations"][0]["field"]));
    (info.and_then(|info| text(&info["reason"])), field)
}

fn fault(status: &tonic::Status) -> Fault {
    let details = status.get_error_details();
    let info = details.error_info().expect("an ErrorInfo");
    // The protocol's own, or the door's, which is in front of it.
    assert!(["a2a-protocol.org", "neuroflow"].contains(&info.domain.as_str()), "{info:?}");
    let violations = details.bad_request().map(|bad| &bad.field_violations);
    let field = violations.and_then(|all| all.first()).map(|first| first.field.clone());
    let code = i64::from(i32::from(status.code()));
    Fault { code, reason: info.reason.clone(), message: status.message().to_owned(), field }
}
