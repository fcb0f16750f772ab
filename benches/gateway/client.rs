//! The clients: kept-alive connections that send, wait for the whole answer, and check it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Connections to one server.
pub(super) struct Clients {
    clients: Vec<Client>,
}

impl Clients {
    pub(super) async fn connect(address: SocketAddr, count: usize, token: Option<&str>) -> Self {
        let authorization =
            token.map_or_else(String::new, |token| format!("authorization: Bearer {token}\r\n"));
        let mut clients = Vec::with_capacity(count);
        for number in 0..count {
            let stream = TcpStream::connect(address).await.expect("the server accepts");
            stream.set_nodelay(true).expect("a TCP socket");
            let authorization = authorization.clone();
            clients.push(Client { stream, number, authorization, sent: 0, answer: Vec::new() });
        }
        Self { clients }
    }

    /// Sends `count` requests over each connection, one after another, over all at once. Gives the
    /// time that all took together and that each took.
    pub(super) async fn ask(&mut self, count: usize) -> (Duration, Vec<Duration>) {
        let mut asking = JoinSet::new();
        let begun = Instant::now();
        for mut client in self.clients.drain(..) {
            asking.spawn(async move {
                let asked = tokio::time::timeout(PATIENCE, client.ask(count)).await;
                (asked.expect("the server answers in time"), client)
            });
        }
        let mut all = Vec::new();
        while let Some(asked) = asking.join_next().await {
            let (latencies, client) = asked.expect("every answer is right");
            all.extend(latencies);
            self.clients.push(client);
        }
        let took = begun.elapsed();
        assert_eq!(all.len(), count * self.clients.len(), "every request was answered");
        (took, all)
    }
}

/// Time that one client's round may take before the server counts as hung.
const PATIENCE: Duration = Duration::from_secs(30);

struct Client {
    stream: TcpStream,
    number: usize,
    /// The header with the token, or nothing.
    authorization: String,
    sent: usize,
    answer: Vec<u8>,
}

impl Client {
    async fn ask(&mut self, count: usize) -> Vec<Duration> {
        let mut latencies = Vec::with_capacity(count);
        for _ in 0..count {
            self.sent += 1;
            let text = format!("message {} of client {}", self.sent, self.number);
            let request = request(self.sent, &text, &self.authorization);
            let begun = Instant::now();
            self.stream.write_all(&request).await.expect("the server reads");
            let body = self.read().await;
            latencies.push(begun.elapsed());
            check(&self.answer[body..], self.sent, &text);
        }
        latencies
    }

    /// Reads one whole answer, and says where its body begins.
    async fn read(&mut self) -> usize {
        self.answer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.answer).await.expect("the server answers");
            assert_ne!(read, 0, "the server closed the connection");
            let Some(end) = self.answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
                continue;
            };
            let head = std::str::from_utf8(&self.answer[..end]).expect("a head is text");
            assert!(head.starts_with("HTTP/1.1 200 "), "not a success: {head}");
            if self.answer.len() - (end + 4) >= content_length(head) {
                return end + 4;
            }
        }
    }
}

fn content_length(head: &str) -> usize {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    let mut lengths = lines.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = lengths.next().and_then(|(_, value)| value.trim().parse().ok());
    length.expect("the answer says how long it is")
}

fn request(id: usize, text: &str, authorization: &str) -> Vec<u8> {
    let body = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"SendMessage\",\"params\":{{\"message\":\
         {{\"messageId\":\"message-{id}\",\"role\":\"ROLE_USER\",\"parts\":[{{\"text\":\"{text}\"}}]\
         }}}}}}"
    );
    let head = format!(
        "POST / HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n\
         a2a-version: 1.0\r\n{authorization}content-length: {}\r\n\r\n",
        body.len(),
    );
    [head, body].concat().into_bytes()
}

/// A completed task with the text that was sent, in answer to this very request.
fn check(body: &[u8], id: usize, text: &str) {
    let answer: Answer<'_> = serde_json::from_slice(body).unwrap_or_else(|error| {
        panic!("not a task: {error}: {}", String::from_utf8_lossy(body));
    });
    let task = answer.result.task;
    assert_eq!(answer.id, id, "another request's answer");
    assert_eq!(task.status.state, "TASK_STATE_COMPLETED");
    assert_eq!(task.artifacts[0].parts[0].text, text);
    assert_eq!(task.history[0].parts[0].text, text);
}

#[derive(Deserialize)]
struct Answer<'a> {
    id: usize,
    #[serde(borrow)]
    result: Outcome<'a>,
}

#[derive(Deserialize)]
struct Outcome<'a> {
    #[serde(borrow)]
    task: Task<'a>,
}

#[derive(Deserialize)]
struct Task<'a> {
    #[serde(borrow)]
    status: Status<'a>,
    #[serde(borrow)]
    artifacts: Vec<Parts<'a>>,
    #[serde(borrow)]
    history: Vec<Parts<'a>>,
}

#[derive(Deserialize)]
struct Status<'a> {
    state: &'a str,
}

#[derive(Deserialize)]
struct Parts<'a> {
    #[serde(borrow)]
    parts: Vec<Part<'a>>,
}

#[derive(Deserialize)]
struct Part<'a> {
    text: &'a str,
}
