//! Streams: how soon the first event is there, and what an open stream costs.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use neuroflow::{AgentBuilder, Answer, AnyAgent, Echo, Node};
use tokio::runtime::Builder;
use tokio::sync::watch;

use crate::support::{Aim, Arguments, Figure, Samples, Unit, WORKERS, resident_bytes};

pub(super) const FIRST: &str = "gateway/first-event";
pub(super) const OPEN: &str = "gateway/stream-memory";
pub(super) const ALL: &str = "gateway/event-to-all";

const FIRST_AIM: Aim = Aim::AtMost(1_000_000.0);
const OPEN_AIM: Aim = Aim::AtMost(20.0 * 1024.0);

/// Streams that are open at once, in a run that isn't a smoke test.
const STREAMS: usize = 10_000;
const SMOKE_STREAMS: usize = 1_000;
/// Descriptors that everything else needs.
const SPARE: usize = 1_000;

pub(super) fn measure(arguments: &Arguments) -> Vec<Figure> {
    let many = arguments.wants(OPEN) || arguments.wants(ALL);
    if !arguments.wants(FIRST) && !many {
        return Vec::new();
    }
    let (word, words) = watch::channel(0_usize);
    let waits = AgentBuilder::new("waits", "Says what it hears.").on_ask(move |_, context| {
        let mut words = words.clone();
        async move {
            while words.changed().await.is_ok() {
                let word = *words.borrow_and_update();
                context.say(format!("word {word}")).await?;
            }
            Ok(Answer::done())
        }
    });
    let mut builder = Builder::new_multi_thread();
    let runtime = builder.worker_threads(WORKERS).enable_all().build().expect("a runtime starts");
    let gateway = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let node = Node::builder().agent(AnyAgent::new(Echo)).agent(waits).gateway(gateway);
    let node = runtime.block_on(node.start()).expect("the node starts");
    let to = node.gateway().expect("the node has a gateway");
    let mut figures = Vec::new();
    if arguments.wants(FIRST) {
        figures.push(Figure::new(FIRST, FIRST_AIM, &first_events(to, arguments.iterations)));
    }
    if many {
        let (open, all) = open_streams(to, arguments.iterations, &word);
        if arguments.wants(OPEN) {
            figures.push(Figure::new(OPEN, OPEN_AIM, &open));
        }
        if arguments.wants(ALL) {
            figures.push(Figure::new(ALL, Aim::None, &all));
        }
    }
    // Open streams are cut off.
    runtime.block_on(node.stop_within(Duration::from_secs(1)));
    runtime.shutdown_background();
    figures
}

/// From the request's first byte to the last one of the first event, over a kept connection.
fn first_events(to: SocketAddr, iterations: usize) -> Samples {
    let mut samples = Samples::new(Unit::Nanoseconds);
    let mut stream = connect(to);
    let ask = request(
        "/",
        r#"{"jsonrpc":"2.0","id":1,"method":"SendStreamingMessage","params":{"message":{"messageId":"m","role":"ROLE_USER","parts":[{"text":"hello"}]}}}"#,
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
            read_until(&mut stream, &mut received, b"\r\n0\r\n\r\n");
            if round > 0 {
                samples.took(took, 1);
            }
        }
    }
    samples
}

const REQUESTS: usize = 10;

/// Resident memory of one more stream, all of them open at once, and the time until all of them have
/// the next event. The clients are plain sockets of this process, which have no memory of their own.
fn open_streams(
    to: SocketAddr,
    iterations: usize,
    word: &watch::Sender<usize>,
) -> (Samples, Samples) {
    let begin = request(
        "/agents/waits",
        r#"{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":{"message":{"messageId":"m","role":"ROLE_USER","parts":[{"text":"wait"}]},"configuration":{"returnImmediately":true}}}"#,
    );
    let mut first = connect(to);
    first.write_all(&begin).expect("the server reads");
    let mut received = Vec::new();
    read_until(&mut first, &mut received, b"}}}");
    let text = String::from_utf8_lossy(&received).into_owned();
    let id = text.split("\"id\":\"").nth(1).and_then(|rest| rest.split('"').next());
    let id = id.unwrap_or_else(|| panic!("no task in {text}"));
    let follow = request(
        "/agents/waits",
        &format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"SubscribeToTask","params":{{"id":"{id}"}}}}"#
        ),
    );
    let wanted = if iterations == 1 { SMOKE_STREAMS } else { STREAMS };
    let count = wanted.min(descriptors().saturating_sub(SPARE) / 2);
    let mut open = Vec::with_capacity(count + WARM);
    // What the first ones cost is the allocator's and the runtime's own.
    for _ in 0..WARM {
        open.push(opened(to, &follow));
    }
    let before = resident_bytes("self");
    for _ in 0..count {
        open.push(opened(to, &follow));
    }
    let grown = resident_bytes("self").saturating_sub(before);
    let each = u32::try_from(grown).map(f64::from).expect("less than 4 GiB")
        / f64::from(u32::try_from(count).expect("a small count"));
    let mut memory = Samples::new(Unit::Bytes);
    memory.push(each);
    println!("{OPEN}: {count} streams are open");
    let mut all = Samples::new(Unit::Nanoseconds);
    for round in 1..=WORDS {
        let end = format!("\"word {round}\"");
        let begun = Instant::now();
        word.send_replace(round);
        // Each of them, or the run ends here.
        for stream in &mut open {
            read_until(stream, &mut Vec::new(), end.as_bytes());
        }
        all.took(begun.elapsed(), 1);
    }
    (memory, all)
}

/// Events that go to all streams.
const WORDS: usize = 5;
const WARM: usize = 100;

/// A stream whose first event has come.
fn opened(to: SocketAddr, follow: &[u8]) -> TcpStream {
    let mut stream = connect(to);
    stream.write_all(follow).expect("the server reads");
    let mut received = Vec::new();
    read_until(&mut stream, &mut received, b"}\n\n");
    let text = String::from_utf8_lossy(&received).into_owned();
    assert!(text.contains("text/event-stream") && text.contains("\"task\""), "{text}");
    stream
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("the server accepts");
    stream.set_nodelay(true).expect("a TCP socket");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a TCP socket");
    stream
}

fn read_until(stream: &mut TcpStream, received: &mut Vec<u8>, end: &[u8]) {
    let mut chunk = [0; 4_096];
    while !received.windows(end.len()).any(|bytes| bytes == end) {
        let read = stream.read(&mut chunk).expect("the server answers");
        assert_ne!(read, 0, "the server closed the connection");
        received.extend_from_slice(&chunk[..read]);
    }
}

fn request(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n\
         a2a-version: 1.0\r\ncontent-length: {length}\r\n\r\n{body}"
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
