//! Thousands of broken requests leave a node as it was.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::SocketAddr;

use neuroflow::{AgentBuilder, AnyAgent, Echo, Node};
use serde_json::{Map, Value, json};

use crate::client::{Connection, Response, message, post, rpc, send_text, task_of};
use crate::support::{actors, caller, eventually, loopback, output, run_program, start};

/// Broken requests that are sent.
const REQUESTS: usize = 12_000;

/// How much resident memory may grow by: what the node keeps of the tasks that some of the requests
/// still begin, and what the allocator holds back.
const GROWTH_KIB: u64 = 32 * 1024;

/// Says to a process of this binary that it's the one with nothing else to do: other tests beside
/// it would be measured with it. Its value is the seed.
const SEED: &str = "FLOWS_FUZZ_SEED";

#[test]
fn broken_requests_leave_a_node_as_it_was() {
    if let Ok(seed) = std::env::var(SEED) {
        let seed = seed.parse().expect("a seed is a number");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        println!("{}", runtime.block_on(throw(seed)));
        return;
    }
    let seed = RandomState::new().build_hasher().finish().to_string();
    println!("to run it again: {SEED}={seed}");
    let own = std::env::current_exe().expect("this binary has a path");
    let name = "fuzz::broken_requests_leave_a_node_as_it_was";
    let command = [own.to_str().expect("text"), "--exact", name, "--nocapture"];
    let said = run_program(&command, &[(SEED, &seed)]).unwrap_or_else(|said| panic!("{said}"));
    assert!(said.contains("1 passed"), "{said}");
    print!("{said}");
}

async fn throw(seed: u64) -> String {
    let caller = caller(AgentBuilder::new("caller", "Calls tools that it doesn't have."));
    let node = Node::builder().agent(AnyAgent::new(Echo)).agent(caller).gateway(loopback());
    let (node, to) = start(node).await;
    let before = actors(&node);
    let corpus = corpus(to).await;
    let mut dice = Dice(seed);
    let mut lines: Vec<Connection> = Vec::new();
    for _ in 0..4 {
        lines.push(Connection::open(to).await);
    }
    let mut resident = 0;
    let (mut refused, mut served) = (0, 0);
    for number in 0..REQUESTS {
        if number == REQUESTS / 10 {
            // Allocator, runtime and code are warm now.
            resident = resident_kib();
        }
        let call = &corpus[dice.below(corpus.len())];
        if dice.below(10) == 0 {
            throw_bytes(to, &mut dice, call).await;
            continue;
        }
        let request = broken(&mut dice, call, &corpus);
        let line = &mut lines[number % 4];
        let mut response = exchange(line, &request).await;
        if response.is_none() {
            // The server may end a connection after an answer, but never instead of one.
            *line = Connection::open(to).await;
            response = exchange(line, &request).await;
        }
        let Some(response) = response else {
            panic!("no answer to {:?}", String::from_utf8_lossy(&request))
        };
        if check(&response, &request) { served += 1 } else { refused += 1 }
    }
    assert!(refused > REQUESTS / 4 && served > REQUESTS / 50, "{refused} refused, {served} served");

    eventually("the end of all tasks", || actors(&node) == before).await;
    assert!(node.kernel().post_mortems().is_empty(), "{:?}", node.kernel().post_mortems());
    assert_eq!(output(&send_text(to, "/", "still here").await), "still here");
    let grown = resident_kib().saturating_sub(resident);
    assert!(grown < GROWTH_KIB, "{resident} KiB grew by {grown}");
    node.stop().await;
    format!("{refused} refused, {served} served, {grown} KiB grown")
}

/// The seed of this run, which `FLOWS_FUZZ_SEED` repeats.
pub(crate) fn seed() -> u64 {
    let given = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| RandomState::new().build_hasher().finish())
}

/// Calls as they should be.
async fn corpus(to: SocketAddr) -> Vec<Value> {
    let task = task_of(rpc(to, "/", "SendMessage", message(json!([{ "text": "x" }]))).await);
    let mut configured = message(json!([{ "text": "hi", "metadata": { "a": [1, 2.5] } }]));
    configured["message"]["contextId"] = json!("c");
    configured["message"]["metadata"] = json!({ "deep": { "er": [null, true] } });
    configured["configuration"] =
        json!({ "historyLength": 3, "returnImmediately": true, "acceptedOutputModes": ["a/b"] });
    let calls = [
        ("SendMessage", message(json!([{ "text": "hello" }]))),
        ("SendMessage", configured),
        (
            "SendMessage",
            message(json!([
                { "data": { "tool": "none", "arguments": { "a": [1, "x", { "b": null }] } } },
                { "raw": "AAECAw==", "filename": "f", "mediaType": "m/t" },
                { "url": "https://example.com" },
            ])),
        ),
        ("GetTask", json!({ "id": task["id"], "historyLength": 2 })),
        ("CancelTask", json!({ "id": task["id"] })),
        ("ListTasks", json!({ "pageSize": 5 })),
        ("SendStreamingMessage", message(json!([{ "text": "hello" }]))),
        ("SubscribeToTask", json!({ "id": task["id"] })),
        (
            "CreateTaskPushNotificationConfig",
            json!({ "taskId": task["id"], "id": "c", "url": "http://127.0.0.1/", "token": "t",
                "authentication": { "scheme": "Bearer", "credentials": "x" } }),
        ),
        ("GetTaskPushNotificationConfig", json!({ "taskId": task["id"], "id": "c" })),
        ("ListTaskPushNotificationConfigs", json!({ "taskId": task["id"], "pageSize": 3 })),
        ("DeleteTaskPushNotificationConfig", json!({ "taskId": task["id"], "id": "c" })),
    ];
    let call = |(method, params)| json!({ "jsonrpc": "2.0", "id": "i", "method": method, "params": params });
    calls.into_iter().map(call).collect()
}

/// A request with well-formed framing and anything else wrong with it.
fn broken(dice: &mut Dice, call: &Value, corpus: &[Value]) -> Vec<u8> {
    let mut call = call.clone();
    let mut headers = Vec::new();
    let mut path = dice.one_of(&["/", "/agents/echo", "/agents/caller"]).to_owned();
    let mut body = None;
    match dice.below(14) {
        10..=12 => {
            // The other binding: the same parameters are the whole body.
            path = String::from(dice.one_of(&[
                "/message:send",
                "/message:stream",
                "/caller/message:send",
                "/agents/caller/message:send",
                "/tasks/x:cancel",
                "/tasks/x:subscribe",
                "/tasks/x/pushNotificationConfigs",
            ]));
            let mut params = call["params"].take();
            for _ in 0..dice.below(3) {
                mutate(dice, &mut params, 0);
            }
            let mut bytes = params.to_string().into_bytes();
            if dice.below(2) == 0 {
                mutate_bytes(dice, &mut bytes, corpus);
            }
            body = Some(bytes);
        }
        13 => {
            let query = format!("{}={}&pageSize={}", dice.path(), dice.path(), dice.below(200));
            let head = format!(
                "GET /tasks?{query} HTTP/1.1\r\nhost: localhost\r\na2a-version: 1.0\r\n\r\n"
            );
            return head.into_bytes();
        }
        0..=3 => {
            for _ in 0..=dice.below(3) {
                mutate(dice, &mut call, 0);
            }
        }
        4..=7 => {
            let mut bytes = call.to_string().into_bytes();
            for _ in 0..=dice.below(8) {
                mutate_bytes(dice, &mut bytes, corpus);
            }
            body = Some(bytes);
        }
        8 => {
            for _ in 0..=dice.below(4) {
                headers.push((dice.header_name(), dice.visible(40)));
            }
        }
        _ => path = format!("/{}", dice.path()),
    }
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    post(&path, &headers, &body.unwrap_or_else(|| call.to_string().into_bytes()))
}

/// Puts something else somewhere into a JSON value.
pub(crate) fn mutate(dice: &mut Dice, value: &mut Value, depth: usize) {
    let deeper = depth < 8 && dice.below(4) != 0;
    match value {
        Value::Object(members) if deeper && !members.is_empty() => {
            let at = dice.below(members.len());
            let name = members.keys().nth(at).cloned().unwrap_or_default();
            match dice.below(6) {
                0 => drop(members.remove(&name)),
                1 => {
                    let moved = members.remove(&name).unwrap_or_default();
                    members.insert(dice.visible(12), moved);
                }
                2 => drop(members.insert(dice.visible(12), dice.value())),
                _ => mutate(dice, members.entry(name).or_insert(Value::Null), depth + 1),
            }
        }
        Value::Array(items) if deeper && !items.is_empty() => {
            let at = dice.below(items.len());
            match dice.below(4) {
                0 => drop(items.remove(at)),
                1 => items.push(items[at].clone()),
                _ => mutate(dice, &mut items[at], depth + 1),
            }
        }
        other => *other = dice.value(),
    }
}

pub(crate) fn mutate_bytes(dice: &mut Dice, bytes: &mut Vec<u8>, corpus: &[Value]) {
    let at = dice.below(bytes.len() + 1);
    let end = (at + dice.below(20)).min(bytes.len());
    match dice.below(7) {
        0 => bytes.truncate(at),
        1 => drop(bytes.drain(at..end)),
        2 => bytes.insert(at, dice.byte()),
        3 => {
            let copy = bytes[at..end].to_vec();
            drop(bytes.splice(at..at, copy));
        }
        4 if !corpus.is_empty() => {
            let other = corpus[dice.below(corpus.len())].to_string().into_bytes();
            let from = dice.below(other.len());
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        5 => {
            let token = dice.one_of(&[
                "[", "]", "{", "}", "\"", "\\", "\\u", "\\ud800", ",", ":", "null", "1e999", "-",
                "0x1", "\u{feff}", "\0",
            ]);
            drop(bytes.splice(at..at, token.bytes()));
        }
        _ => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << dice.below(8);
            }
        }
    }
}

/// Sends a request that is damaged as a whole, and goes away: whether there is an answer depends on
/// what the damage is.
async fn throw_bytes(to: SocketAddr, dice: &mut Dice, call: &Value) {
    let mut bytes = post("/", &[], call.to_string().as_bytes());
    for _ in 0..=dice.below(12) {
        mutate_bytes(dice, &mut bytes, std::slice::from_ref(call));
    }
    let mut connection = Connection::open(to).await;
    // The server may have seen enough before all is sent.
    let sent = connection.send(&bytes).await;
    if sent.is_ok() && connection.finish_sending().await.is_ok() {
        connection.ended().await;
    }
}

async fn exchange(line: &mut Connection, request: &[u8]) -> Option<Response> {
    line.send(request).await.ok()?;
    line.receive().await.ok()
}

/// Whether it was served. Fails if the answer isn't one that the gateway should give.
fn check(response: &Response, request: &[u8]) -> bool {
    let shown = || format!("{}\n{}", String::from_utf8_lossy(request), response.text());
    let statuses = [200, 400, 403, 404, 405, 413, 415, 421, 431];
    assert!(statuses.contains(&response.status), "{}: {}", response.status, shown());
    if response.header("content-type") == Some("text/event-stream") {
        assert_eq!(response.status, 200, "{}", shown());
        return true;
    }
    let kinds = ["application/json", "application/a2a+json"];
    if !response.header("content-type").is_some_and(|kind| kinds.contains(&kind)) {
        assert_ne!(response.status, 200, "{}", shown());
        return false;
    }
    let answer = response.json();
    let empty = Map::new();
    let members = answer.as_object().unwrap_or(&empty);
    if members.get("jsonrpc").is_none() {
        // The other binding, whose results have no envelope.
        if response.status == 200 {
            return true;
        }
        let status = answer["error"]["code"].as_u64();
        assert_eq!(status, Some(u64::from(response.status)), "{}", shown());
        return false;
    }
    assert_eq!(members.get("jsonrpc"), Some(&json!("2.0")), "{}", shown());
    match (members.get("result"), members.get("error")) {
        (Some(_), None) => true,
        (None, Some(error)) => {
            let code = error["code"].as_i64().unwrap_or_default();
            let known =
                [-32700, -32600, -32601, -32602, -32001, -32002, -32003, -32004, -32005, -32009];
            assert!(known.contains(&code), "{}", shown());
            assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{}", shown());
            false
        }
        _ => panic!("{}", shown()),
    }
}

/// Resident memory of this process.
fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("/proc can be read");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    number.expect("VmRSS is a number")
}

/// Random numbers that a seed repeats (`SplitMix64`).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.roll() % bound.max(1) as u64).unwrap_or_default()
    }

    fn byte(&mut self) -> u8 {
        self.roll().to_le_bytes()[0]
    }

    fn one_of(&mut self, choices: &[&'static str]) -> &'static str {
        choices[self.below(choices.len())]
    }

    /// Visible ASCII, up to so many characters.
    fn visible(&mut self, most: usize) -> String {
        (0..self.below(most)).map(|_| char::from(b'!' + self.byte() % 94)).collect()
    }

    /// A header that doesn't say where the body ends.
    fn header_name(&mut self) -> &'static str {
        self.one_of(&[
            "content-type",
            "a2a-version",
            "a2a-extensions",
            "traceparent",
            "tracestate",
            "accept",
            "authorization",
            "cookie",
            "range",
            "origin",
            "x-forwarded-for",
            "accept-encoding",
        ])
    }

    pub(crate) fn path(&mut self) -> String {
        let pieces =
            ["agents", "echo", "..", ".", "%2e", "%00", "%ff", "", "?", ".well-known", "a:b"];
        let pieces = (0..self.below(5)).map(|_| self.one_of(&pieces)).collect::<Vec<_>>();
        pieces.join("/")
    }

    fn value(&mut self) -> Value {
        match self.below(14) {
            0 => Value::Null,
            1 => json!(self.below(2) == 0),
            2 => json!(-1),
            3 => json!(u64::MAX),
            4 => json!(f64::MIN_POSITIVE),
            5 => json!(self.roll().cast_signed()),
            6 => json!(""),
            7 => json!(self.visible(30)),
            8 => json!("x".repeat(self.below(20_000))),
            9 => json!("\u{0}\u{1F600}\u{202e}\u{ffff}"),
            10 => json!([]),
            11 => json!({}),
            12 => {
                let depth = self.below(160);
                (0..depth).fold(Value::Null, |inner, _| json!([inner]))
            }
            _ => json!({ self.visible(8): self.visible(8), "text": self.below(9) }),
        }
    }
}
