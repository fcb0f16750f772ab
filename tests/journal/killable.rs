//! Nodes that are killed, never stopped, and one connection to them: HTTP/1.1 by hand, so that the end
//! of a node is the end of a read.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

/// How a node says where it is.
pub(crate) const ANNOUNCED: &str = "gateway     http://";

/// A node that is killed, never stopped.
pub(crate) struct Killable {
    process: Child,
    pub(crate) gateway: SocketAddr,
}

impl Killable {
    /// The built binary, with the agent `echo`.
    pub(crate) fn start(folder: &Path) -> Self {
        Self::start_with(folder, "off")
    }

    pub(crate) fn start_with(folder: &Path, socket: &str) -> Self {
        Self::start_at(&format!("file://{}", folder.join("journal").display()), socket)
    }

    pub(crate) fn start_at(journal: &str, socket: &str) -> Self {
        Self::start_as("node", journal, socket)
    }

    /// The one of this name, of those that have the journal.
    pub(crate) fn start_as(node: &str, journal: &str, socket: &str) -> Self {
        let mut process = neuroflow(&["serve", "--gateway-listen", "127.0.0.1:0"]);
        process.args(["--telemetry-metrics-listen", "off", "--control-socket", socket]);
        process.args(["--agents-enabled", "echo", "--log-filter", "error"]);
        process.args(["--journal-url", journal, "--journal-node", node]);
        process.env("NEUROFLOW_GATEWAY_PUSH_ALLOW_PRIVATE", "true");
        Self::of(process)
    }

    /// This program once more, for the test of this name alone, which finds `value` in `role`.
    pub(crate) fn role(test: &str, role: &str, value: impl AsRef<OsStr>) -> Self {
        let own = std::env::current_exe().expect("this program has a path");
        let mut process = command(own);
        process.args(["--exact", test, "--nocapture"]).env(role, value);
        Self::of(process)
    }

    fn of(mut process: Command) -> Self {
        process.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = process.spawn().expect("the node starts");
        let mut lines = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        let gateway = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, url) = line.split_once(ANNOUNCED)?;
            url.trim_end_matches('/').parse().ok()
        });
        let gateway = gateway.expect("the node says where its gateway is");
        Self { process, gateway }
    }

    pub(crate) fn kill(mut self) {
        self.process.kill().expect("it still runs");
        self.process.wait().expect("a child can be waited for");
    }
}

impl Drop for Killable {
    fn drop(&mut self) {
        // Of a test that has failed; one that was killed has been waited for.
        let _over = self.process.kill();
        let _code = self.process.wait();
    }
}

pub(crate) fn neuroflow(arguments: &[&str]) -> Command {
    let mut command = command(env!("CARGO_BIN_EXE_neuroflow"));
    command.args(arguments).stdin(Stdio::null()).current_dir("/");
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("NEUROFLOW_") || name.starts_with("OTEL_") {
            command.env_remove(&*name);
        }
    }
    command
}

#[expect(clippy::disallowed_methods, reason = "a node of its own is what is killed")]
fn command(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

/// One JSON-RPC call on a connection of its own; nothing if the node goes away meanwhile.
pub(crate) fn call(gateway: SocketAddr, method: &str, params: &Value) -> Option<Value> {
    Line::open(gateway)?.call("/", method, params)
}

/// A connection that is kept.
pub(crate) struct Line {
    gateway: SocketAddr,
    stream: BufReader<TcpStream>,
}

impl Line {
    pub(crate) fn open(gateway: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(gateway).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
        Some(Self { gateway, stream: BufReader::new(stream) })
    }

    /// One JSON-RPC call. A body that was cut off isn't an answer.
    pub(crate) fn call(&mut self, path: &str, method: &str, params: &Value) -> Option<Value> {
        self.send(path, "", method, params)?;
        self.answer()
    }

    /// One call of HTTP+JSON.
    pub(crate) fn rest(&mut self, path: &str, body: &Value) -> Option<Value> {
        self.write(path, "", body)?;
        self.answer()
    }

    fn answer(&mut self) -> Option<Value> {
        let length = self.header("content-length")?.parse().ok()?;
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).ok()?;
        serde_json::from_slice(&body).ok()
    }

    /// A call that is answered with events, for whoever has them up to `last`.
    pub(crate) fn events(
        mut self,
        path: &str,
        method: &str,
        params: &Value,
        last: u64,
    ) -> Option<Events> {
        self.send(path, &format!("last-event-id: {last}\r\n"), method, params)?;
        let kind = self.header("content-type")?;
        assert_eq!(kind, "text/event-stream", "{method} of {params} isn't answered with a stream");
        Some(Events { stream: self.stream, text: String::new() })
    }

    fn send(&mut self, path: &str, more: &str, method: &str, params: &Value) -> Option<()> {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        self.write(path, more, &body)
    }

    fn write(&mut self, path: &str, more: &str, body: &Value) -> Option<()> {
        let body = body.to_string();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
             a2a-version: 1.0\r\n{more}content-length: {}\r\n\r\n{body}",
            self.gateway,
            body.len()
        );
        self.stream.get_mut().write_all(request.as_bytes()).ok()
    }

    /// Reads the head of an answer, and gives one of its headers.
    fn header(&mut self, wanted: &str) -> Option<String> {
        let mut found = None;
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if line.trim_end().is_empty() {
                return found;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case(wanted)
            {
                found = Some(value.trim().to_owned());
            }
        }
    }
}

/// A stream of server-sent events.
pub(crate) struct Events {
    stream: BufReader<TcpStream>,
    text: String,
}

/// What comes of a read of a stream.
pub(crate) enum Told {
    Event {
        id: u64,
        data: Value,
    },
    /// It has ended in good order.
    End,
    CutOff,
}

impl Events {
    pub(crate) fn next(&mut self) -> Told {
        loop {
            while let Some(end) = self.text.find("\n\n") {
                let event: String = self.text.drain(..end + 2).collect();
                let field = |name| event.lines().find_map(|line| line.strip_prefix(name));
                if let Some(data) = field("data: ") {
                    let id = field("id: ").and_then(|id| id.parse().ok()).expect("a number");
                    return Told::Event { id, data: serde_json::from_str(data).expect("JSON") };
                }
            }
            match self.chunk() {
                Some(chunk) if chunk.is_empty() => return Told::End,
                Some(chunk) => self.text.push_str(std::str::from_utf8(&chunk).expect("UTF-8")),
                None => return Told::CutOff,
            }
        }
    }

    fn chunk(&mut self) -> Option<Vec<u8>> {
        let mut size = String::new();
        self.stream.read_line(&mut size).ok()?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        let mut chunk = vec![0; size + 2];
        self.stream.read_exact(&mut chunk).ok()?;
        chunk.truncate(size);
        Some(chunk)
    }
}
