//! HTTP/1.1 over a TCP stream, by hand: what a library would put right can be sent wrong.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use neuroflow::Clock;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One connection, kept alive as long as the server wants.
pub(crate) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(to: SocketAddr) -> Self {
        Self::try_open(to).await.expect("a connection")
    }

    pub(crate) async fn try_open(to: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: Vec::new() })
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        within(self.stream.write_all(bytes)).await
    }

    /// Nothing more will be sent.
    pub(crate) async fn finish_sending(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// The next answer. An end of the stream before it is `UnexpectedEof`.
    pub(crate) async fn receive(&mut self) -> io::Result<Response> {
        within(async {
            let (status, headers) = self.receive_head().await?;
            if header(&headers, "transfer-encoding") == Some("chunked") {
                let mut body = Vec::new();
                while let Some(chunk) = self.next_chunk().await? {
                    body.extend(chunk);
                }
                return Ok(Response { status, headers, body });
            }
            let length = header(&headers, "content-length").map(str::parse::<usize>);
            let body = match length {
                Some(length) => {
                    let length = length.expect("a content-length is a number");
                    while self.received.len() < length {
                        self.read_more().await?;
                    }
                    self.received.drain(..length).collect()
                }
                None => Vec::new(),
            };
            Ok(Response { status, headers, body })
        })
        .await
    }

    /// The head of the next answer, whose body is left where it is.
    pub(crate) async fn receive_head(&mut self) -> io::Result<(u16, Vec<(String, String)>)> {
        let end = self.find(b"\r\n\r\n").await?;
        let head = String::from_utf8_lossy(&self.received[..end]).into_owned();
        self.received.drain(..end + 4);
        Ok(read_head(&head))
    }

    /// The next chunk of a body; none after the last.
    pub(crate) async fn next_chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let end = self.find(b"\r\n").await?;
        let size = String::from_utf8_lossy(&self.received[..end]).into_owned();
        let size = usize::from_str_radix(&size, 16).expect("a chunk has a size");
        self.received.drain(..end + 2);
        while self.received.len() < size + 2 {
            self.read_more().await?;
        }
        let chunk: Vec<u8> = self.received.drain(..size).collect();
        self.received.drain(..2);
        Ok((size > 0).then_some(chunk))
    }

    async fn find(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let found = self.received.windows(bytes.len()).position(|window| window == bytes);
            match found {
                Some(at) => return Ok(at),
                None => self.read_more().await?,
            }
        }
    }

    /// Sends a request that is answered with a stream of events, and reads the head of the answer.
    pub(crate) async fn events(mut self, request: &[u8]) -> Result<Events, Response> {
        self.send(request).await.expect("the request is sent");
        let (status, headers) = within(self.receive_head()).await.expect("an answer");
        if header(&headers, "content-type") == Some("text/event-stream") {
            return Ok(Events { connection: self, status, headers, received: String::new() });
        }
        let length = header(&headers, "content-length").map_or(0, |text| text.parse().unwrap_or(0));
        while self.received.len() < length {
            within(self.read_more()).await.expect("the rest of the answer");
        }
        let body = self.received.drain(..length).collect();
        Err(Response { status, headers, body })
    }

    /// Waits until the server has closed the connection; gives what else it had sent.
    pub(crate) async fn ended(mut self) -> Vec<u8> {
        let end = within(async { loop_until_end(&mut self).await }).await;
        // A reset is an end as well: the server has thrown away what it didn't want to read.
        if let Err(error) = end {
            let known = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
            assert!(known.contains(&error.kind()), "{error:?}");
        }
        self.received
    }

    async fn read_more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.received).await? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    pub(crate) async fn get(&mut self, path: &str) -> Response {
        self.send(get(path).as_bytes()).await.expect("the request is sent");
        self.receive().await.expect("an answer")
    }

    pub(crate) async fn post(&mut self, path: &str, body: &[u8]) -> Response {
        self.post_with(path, &[], body).await
    }

    pub(crate) async fn post_with(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        let request = post(path, headers, body);
        self.send(&request).await.expect("the request is sent");
        self.receive().await.expect("an answer")
    }

    /// Calls a method and gives the whole JSON-RPC response.
    pub(crate) async fn rpc(&mut self, path: &str, method: &str, params: Value) -> Value {
        let response = self.post(path, &request(method, params)).await;
        assert_eq!(response.status, 200, "{}", response.text());
        response.json()
    }
}

/// A stream of server-sent events.
pub(crate) struct Events {
    connection: Connection,
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    received: String,
}

impl Events {
    /// The id and the data of the next event; none at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<(Option<u64>, Value)> {
        loop {
            while let Some(end) = self.received.find("\n\n") {
                let event: String = self.received.drain(..end + 2).collect();
                let field = |name: &str| {
                    event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                };
                let id = field("id").map(|id| id.parse().expect("an id is a number"));
                let data = field("data").map(|data| serde_json::from_str(data).expect("JSON"));
                if let Some(data) = data {
                    return Some((id, data));
                }
            }
            let chunk = within(self.connection.next_chunk()).await.expect("the stream goes on")?;
            self.received.push_str(std::str::from_utf8(&chunk).expect("UTF-8"));
        }
    }

    /// The next bytes, whatever they are; none at the end of the stream.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        assert!(self.received.is_empty(), "{:?} was received already", self.received);
        within(self.connection.next_chunk()).await.expect("the stream goes on")
    }

    /// All that is left of it.
    pub(crate) async fn rest(&mut self) -> Vec<(Option<u64>, Value)> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }
}

async fn loop_until_end(connection: &mut Connection) -> io::Result<()> {
    loop {
        connection.read_more().await?;
    }
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        match serde_json::from_slice(&self.body) {
            Ok(json) => json,
            Err(error) => panic!("{error}: {}", self.text()),
        }
    }
}

/// Connects, calls one method and gives the whole JSON-RPC response.
pub(crate) async fn rpc(to: SocketAddr, path: &str, method: &str, params: Value) -> Value {
    Connection::open(to).await.rpc(path, method, params).await
}

/// The task that a blocking `SendMessage` with one text part ends with.
pub(crate) async fn send_text(to: SocketAddr, path: &str, text: &str) -> Value {
    task_of(rpc(to, path, "SendMessage", message(json!([{ "text": text }]))).await)
}

/// The task that a blocking `SendMessage` with one data part ends with.
pub(crate) async fn send_data(to: SocketAddr, path: &str, data: Value) -> Value {
    task_of(rpc(to, path, "SendMessage", message(json!([{ "data": data }]))).await)
}

/// The id of a task that has just begun.
pub(crate) async fn begin_text(to: SocketAddr, path: &str, text: &str) -> String {
    let mut params = message(json!([{ "text": text }]));
    params["configuration"] = json!({ "returnImmediately": true });
    let task = task_of(rpc(to, path, "SendMessage", params).await);
    task["id"].as_str().expect("a task has an id").to_owned()
}

pub(crate) async fn get_task(to: SocketAddr, path: &str, task: &str) -> Value {
    let mut answer = rpc(to, path, "GetTask", json!({ "id": task })).await;
    assert!(answer.get("error").is_none(), "{answer}");
    answer["result"].take()
}

pub(crate) fn task_of(mut answer: Value) -> Value {
    let task = answer["result"]["task"].take();
    assert!(task.is_object(), "{answer}");
    task
}

/// The parameters of a `SendMessage` with these parts.
pub(crate) fn message(parts: Value) -> Value {
    json!({ "message": { "messageId": "m-1", "role": "ROLE_USER", "parts": parts } })
}

/// The body of a call.
pub(crate) fn request(method: &str, params: Value) -> Vec<u8> {
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    call.to_string().into_bytes()
}

/// The bytes of a GET.
pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")
}

/// The bytes of a POST. A header of the caller's takes the place of one of the same name.
pub(crate) fn post(path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let length = body.len().to_string();
    let usual = [
        ("host", "localhost"),
        ("content-type", "application/json"),
        ("a2a-version", "1.0"),
        ("content-length", length.as_str()),
    ];
    let mut head = format!("POST {path} HTTP/1.1\r\n");
    let replaced = |name: &str| headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
    let usual = usual.iter().filter(|(name, _)| !replaced(name));
    for (name, value) in usual.chain(headers) {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.push_str("\r\n");
    let mut request = head.into_bytes();
    request.extend_from_slice(body);
    request
}

fn read_head(head: &str) -> (u16, Vec<(String, String)>) {
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()));
    (status.unwrap_or_else(|| panic!("no status in {head:?}")), headers.collect())
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
}

/// Turns a hang into a failure.
pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    let clock = Clock::system();
    let deadline = clock.now() + Duration::from_mins(1);
    clock.before(deadline, work).await.expect("it hangs")
}
