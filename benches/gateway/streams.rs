//! Streams: how soon the first event is there, and what an open stream costs the built binary with all
//! that production has.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use neuroflow::{AnyAgent, Echo, Node};
use tokio::runtime::Builder;

use super::durable::Durable;
use crate::support::{Aim, Arguments, Figure, Samples, Unit, WORKERS};

pub(super) const FIRST: &str = "gateway/first-event";
pub(super) const OPEN: &str = "gateway/stream-memory";
pub(super) const ALL: &str = "gateway/event-to-all";

const FIRST_AIM: Aim = Aim::AtMost(1_000_000.0);
const OPEN_AIM: Aim = Aim::AtMost(20.0 * 1024.0);

/// Streams that are open at once, in a run that isn't a smoke test.
const STREAMS: usize = 10_000;
const SMOKE_STREAMS: usize = 500;
/// Tasks that all streams follow, one after another.
const TASKS: usize = 5;
/// Open before the memory is looked at: what the first ones cost is the allocator's and the runtime's own.
const WARM: usize = 100;

pub(super) fn measure(arguments: &Arguments) -> Vec<Figure> {
    let mut figures = Vec::new();
    if arguments.wants(FIRST) {
        figures.push(Figure::new(FIRST, FIRST_AIM, &first_events(arguments.iterations)));
    }
    if !arguments.wants(OPEN) && !arguments.wants(ALL) {
        return figures;
    }
    if !cfg!(feature = "server") {
        println!("open streams aren't measured: this build is without the feature server");
        return figures;
    }
    let node = Durable::start(Path::new("/dev/shm"), "shell", &[]);
    let (open, all) = open_streams(&node, arguments.iterations == 1);
    node.stop();
    figures.push(Figure::new(OPEN, OPEN_AIM, &open));
    figures.push(Figure::new(ALL, Aim::None, &all));
    figures.retain(|figure| arguments.wants(&figure.name));
    figures
}

/// From the request's first byte to the last one of the first event, over a kept connection to a node of
/// this process.
fn first_events(iterations: usize) -> Samples {
    let mut builder = Builder::new_multi_thread();
    let runtime = builder.worker_threads(WORKERS).enable_all().build().expect("a runtime starts");
    let gateway = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let node = Node::builder().agent(AnyAgent::new(Echo)).gateway(gateway);
    let node = runtime.block_on(node.start()).expect("the node starts");
    let to = node.gateway().expect("the node has a gateway");
    let mut samples = Samples::new(Unit::Nanoseconds);
    let mut stream = connect(to);
    let ask = request(
        r#"{"jsonrpc":"2.0","id":1,"method":"SendStreamingMessage","params":{"message":{"messageId":"m","role":"ROLE_USER","parts":[{"text":"hello"}]}}}"#,
        "",
    );
    for round in 0..=iterations {
        for _ in 0..REQUESTS {
            let begun = Instant::now();
            stream.write_all(&ask).expect("the server reads");
            let mut received = Vec::new();
            read_until(&mut stream, &mut received, b"}\n\n");
            let took = begun.elapsed();
            let text = String::from_utf8_lossy(&received).into_owned();
            assert!(text.contains("id: 1\ndata: ") && text.contains("\"task\""), "{text}");
            read_until(&mut stream, &mut received, LAST_CHUNK);
            if round > 0 {
                samples.took(took, 1);
            }
        }
    }
    drop(stream);
    runtime.block_on(node.stop_within(Duration::from_secs(1)));
    runtime.shutdown_background();
    samples
}

const REQUESTS: usize = 10;

/// Resident memory of one more stream on a fresh connection, all of them open at once, and the time until all of them have
/// heard of the end of the task that they follow.
fn open_streams(node: &Durable, smoke: bool) -> (Samples, Samples) {
    let to = node.address();
    let authorization = format!("authorization: Bearer {}\r\n", node.token());
    let count = if smoke { SMOKE_STREAMS } else { STREAMS };
    let needed = count + WARM + SPARE;
    assert!(descriptors() >= needed, "{needed} descriptors are needed: see `ulimit -n`");
    let mut open: Vec<TcpStream> = Vec::with_capacity(count + WARM);
    let (mut memory, mut all) = (Samples::new(Unit::Bytes), Samples::new(Unit::Nanoseconds));
    let mut before = 0;
    for round in 0..if smoke { 1 } else { TASKS } {
        let task = begin(to, &authorization);
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"SubscribeToTask","params":{{"id":"{task}"}}}}"#
        );
        let follow = request(&body, &authorization);
        for stream in &mut open {
            subscribe(stream, &follow);
        }
        while open.len() < count + WARM {
            let mut stream = connect(to);
            subscribe(&mut stream, &follow);
            open.push(stream);
            if open.len() == WARM {
                before = node.resident_bytes();
            }
        }
        let grown = node.resident_bytes().saturating_sub(before);
        let of = |count| u32::try_from(count).map(f64::from).expect("less than 4 GiB");
        let each = of(grown) / of(count as u64);
        // Later ones have connections that have served others before, which is told and is another figure.
        if round == 0 {
            memory.push(each);
        }
        println!("{OPEN}: {count} streams, round {round}: {} each", memory.unit().show(each));
        let cancel = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"CancelTask","params":{{"id":"{task}"}}}}"#
        );
        let cancel = request(&cancel, &authorization);
        let mut client = connect(to);
        let begun = Instant::now();
        client.write_all(&cancel).expect("the server reads");
        // Each of them, or the run ends here.
        let rest: Vec<_> = open.iter_mut().map(|stream| received(stream, CANCELED)).collect();
        all.took(begun.elapsed(), 1);
        for (stream, mut received) in open.iter_mut().zip(rest) {
            read_until(stream, &mut received, LAST_CHUNK);
        }
    }
    (memory, all)
}

/// Descriptors of this process that everything else needs.
const SPARE: usize = 500;
const CANCELED: &[u8] = b"TASK_STATE_CANCELED";
const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

/// A task that goes on until somebody ends it.
fn begin(to: SocketAddr, authorization: &str) -> String {
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":{"message":{"messageId":"m","role":"ROLE_USER","parts":[{"text":"sleep 600"}]},"configuration":{"returnImmediately":true}}}"#;
    let mut client = connect(to);
    client.write_all(&request(body, authorization)).expect("the server reads");
    let answer = String::from_utf8_lossy(&received(&mut client, b"}}}")).into_owned();
    let id = answer.split("\"task\":{\"id\":\"").nth(1).and_then(|rest| rest.split('"').next());
    id.unwrap_or_else(|| panic!("no task in {answer}")).to_owned()
}

/// Asks for a task's events, and waits for the first one.
fn subscribe(stream: &mut TcpStream, follow: &[u8]) {
    stream.write_all(follow).expect("the server reads");
    let text = String::from_utf8_lossy(&received(stream, b"}\n\n")).into_owned();
    assert!(text.contains("text/event-stream") && text.contains("\"task\""), "{text}");
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("the server accepts");
    stream.set_nodelay(true).expect("a TCP socket");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a TCP socket");
    stream
}

fn received(stream: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut received = Vec::new();
    read_until(stream, &mut received, end);
    received
}

fn read_until(stream: &mut TcpStream, received: &mut Vec<u8>, end: &[u8]) {
    let mut chunk = [0; 4_096];
    while !received.windows(end.len()).any(|bytes| bytes == end) {
        let read = stream.read(&mut chunk).expect("the server answers");
        assert_ne!(read, 0, "the server closed the connection");
        received.extend_from_slice(&chunk[..read]);
    }
}

fn request(body: &str, authorization: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST / HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n\
         a2a-version: 1.0\r\n{authorization}content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Descriptors that this process may have.
fn descriptors() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").expect("/proc can be read");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    soft.expect("a limit is a number")
}
