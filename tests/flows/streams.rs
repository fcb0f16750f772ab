//! Streams of a task: all see the same, none holds the task or another stream up, and one that was cut
//! off goes on where it was.

use std::time::Duration;

use neuroflow::actors::limits::WRITE_STALL;
use neuroflow::{AgentBuilder, Answer, AnyAgent, Node, Turn};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{Connection, Events, get_task, message, post, request, rpc, send_text};
use crate::door::frame;
use crate::protocol::{Binding, Peer};
use crate::support::{eventually, loopback, start, state};
use crate::turns::curious;

/// Counts aloud to the number that it's told, once somebody says "go".
fn counter() -> AnyAgent {
    AgentBuilder::new("counter", "Counts.").on_ask(|ask, context| async move {
        let most = ask.text().parse().unwrap_or(3);
        context.ask_user(Turn::agent("ready")).await?;
        for number in 1..=most {
            context.say(number.to_string()).await?;
        }
        Ok(Answer::text("done"))
    })
}

fn text(text: &str) -> Value {
    message(json!([{ "text": text }]))
}

/// The texts of the status updates.
fn said(updates: &[Value]) -> Vec<String> {
    let texts = updates.iter().filter_map(|update| {
        let update = update.get("result").unwrap_or(update);
        update["statusUpdate"]["status"]["message"]["parts"][0]["text"].as_str()
    });
    texts.map(str::to_owned).collect()
}

fn answer(task: &str) -> Value {
    let mut more = text("go");
    more["message"]["taskId"] = json!(task);
    more
}

/// A task that waits to be told to go, and counts then.
async fn waiting(to: std::net::SocketAddr, count: usize) -> String {
    let task = send_text(to, "/", &count.to_string()).await;
    assert_eq!(state(&task), "TASK_STATE_INPUT_REQUIRED");
    task["id"].as_str().expect("an id").to_owned()
}

fn node() -> neuroflow::NodeBuilder {
    Node::builder().agent(counter()).agent(curious()).gateway(loopback())
}

#[tokio::test]
async fn every_stream_of_a_task_sees_the_same_events_in_the_same_order() {
    let (node, to) = start(node()).await;
    let task = waiting(to, 200).await;
    let mut streams = Vec::new();
    for number in 0..12 {
        let peer = Peer::new(Binding::ALL[number % 3], to, None);
        let stream = peer.stream("SubscribeToTask", json!({ "id": task })).await;
        let mut stream = stream.unwrap_or_else(|fault| panic!("{fault:?}"));
        let first = stream.next().await.expect("the task");
        assert_eq!(first["task"]["status"]["state"], "TASK_STATE_INPUT_REQUIRED");
        streams.push(stream);
    }
    // One goes away, and the others don't notice.
    drop(streams.pop());
    let sent = rpc(to, "/", "SendMessage", answer(&task)).await;
    assert_eq!(state(&sent["result"]["task"]), "TASK_STATE_COMPLETED");
    let expected: Vec<String> = (1..=200).map(|number: u32| number.to_string()).collect();
    for mut stream in streams {
        let updates = stream.rest().await;
        assert_eq!(said(&updates), expected);
        let last = updates.last().expect("an end");
        assert_eq!(last["statusUpdate"]["status"]["state"], "TASK_STATE_COMPLETED");
    }
    node.stop().await;
}

async fn subscribe(to: std::net::SocketAddr, task: &str, last: Option<&str>) -> Events {
    let body = request("SubscribeToTask", json!({ "id": task }));
    let headers: Vec<_> = last.map(|last| ("last-event-id", last)).into_iter().collect();
    let events = Connection::open(to).await.events(&post("/", &headers, &body)).await;
    events.unwrap_or_else(|response| panic!("{}", response.text()))
}

#[tokio::test]
async fn a_stream_that_was_cut_off_goes_on_after_the_last_event_it_has() {
    let (node, to) = start(node()).await;
    let task = waiting(to, 100).await;
    let mut events = subscribe(to, &task, None).await;
    assert_eq!(events.status, 200);
    assert_eq!(events.header("cache-control"), Some("no-cache"));
    assert_eq!(events.header("x-accel-buffering"), Some("no"));
    let (id, snapshot) = events.next().await.expect("the task");
    assert!(snapshot["result"]["task"].is_object(), "{snapshot}");
    assert_eq!(id, Some(3), "accepted, working, waiting");
    let sent = rpc(to, "/", "SendMessage", answer(&task)).await;
    assert_eq!(state(&sent["result"]["task"]), "TASK_STATE_COMPLETED");
    let whole = events.rest().await;
    let ids: Vec<_> = whole.iter().map(|(id, _)| id.expect("each has one")).collect();
    // The message itself is the fourth event, and no update.
    assert_eq!(ids, (5..=107).collect::<Vec<u64>>());

    // The task has ended, but what was missed is still there, in either way of asking for it.
    for last in [3, 50, 106] {
        let rest = subscribe(to, &task, Some(&last.to_string())).await.rest().await;
        let skipped = ids.iter().position(|id| *id > last).expect("some are left");
        assert_eq!(rest, whole[skipped..], "after {last}");
        let path = format!("/tasks/{task}:subscribe");
        let bare = format!(
            "GET {path} HTTP/1.1\r\nhost: localhost\r\na2a-version: 1.0\r\nlast-event-id: {last}\r\n\r\n"
        );
        let events = Connection::open(to).await.events(bare.as_bytes()).await;
        let mut events = events.unwrap_or_else(|response| panic!("{}", response.text()));
        let unwrapped = whole[skipped..].iter().map(|(id, data)| (*id, data["result"].clone()));
        assert_eq!(events.rest().await, unwrapped.collect::<Vec<_>>());
    }
    for (last, code) in [("107", -32004), ("108", -32602), ("x", -32602), ("-1", -32602)] {
        let body = request("SubscribeToTask", json!({ "id": task }));
        let headers = [("last-event-id", last)];
        let refused = Connection::open(to).await.events(&post("/", &headers, &body)).await;
        let Err(refused) = refused else { panic!("{last} is taken") };
        assert_eq!(refused.json()["error"]["code"], code, "{last}");
    }
    node.stop().await;
}

/// A follower that doesn't read falls behind what the agent keeps for it, and still misses nothing.
#[tokio::test]
async fn a_slow_stream_misses_nothing_and_holds_nobody_up() {
    let (node, to) = start(node()).await;
    let task = waiting(to, 3_000).await;
    let mut slow = subscribe(to, &task, None).await;
    let sent = rpc(to, "/", "SendMessage", answer(&task)).await;
    assert_eq!(state(&sent["result"]["task"]), "TASK_STATE_COMPLETED");
    let events = slow.rest().await;
    let ids: Vec<_> = events.iter().map(|(id, _)| id.expect("each has one")).collect();
    assert_eq!(ids.first(), Some(&3));
    assert_eq!(ids[1..], (5..=3_007).collect::<Vec<u64>>());
    node.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_a_stream_leaves_its_task_running() {
    let (node, to) = start(node()).await;
    for binding in Binding::ALL {
        let peer = Peer::new(binding, to, None);
        let stream = peer.stream("SendStreamingMessage", text("3")).await;
        let mut stream = stream.unwrap_or_else(|fault| panic!("{fault:?}"));
        let first = stream.next().await.expect("the task");
        let task = first["task"]["id"].as_str().expect("an id").to_owned();
        // The agent asks back, which is the end of this kind of stream.
        let updates = stream.rest().await;
        let last = &updates.last().expect("the question")["statusUpdate"]["status"];
        assert_eq!(last["state"], "TASK_STATE_INPUT_REQUIRED", "{binding:?}");

        let going = peer.stream("SendStreamingMessage", answer(&task)).await;
        drop(going.unwrap_or_else(|fault| panic!("{fault:?}")));
        let mut shown = get_task(to, "/", &task).await;
        for _ in 0..500 {
            if state(&shown) == "TASK_STATE_COMPLETED" {
                break;
            }
            crate::support::pause(10).await;
            shown = get_task(to, "/", &task).await;
        }
        assert_eq!(state(&shown), "TASK_STATE_COMPLETED", "{binding:?}");
        assert_eq!(shown["history"].as_array().map(Vec::len), Some(6));
    }
    node.stop().await;
}

/// The agent's own list of followers doesn't grow with those who come and go.
#[tokio::test]
async fn followers_that_have_gone_are_let_go_of() {
    let (node, to) = start(node()).await;
    let task = waiting(to, 1).await;
    for _ in 0..200 {
        drop(subscribe(to, &task, None).await);
    }
    let sent = rpc(to, "/", "SendMessage", answer(&task)).await;
    assert_eq!(state(&sent["result"]["task"]), "TASK_STATE_COMPLETED");
    eventually("the end of the task", || {
        !node.census().tree().iter().any(|actor| actor.kind == "task")
    })
    .await;
    node.stop().await;
}

#[tokio::test]
async fn a_silent_stream_says_that_it_lives() {
    let time = neuroflow::ManualClock::new();
    let (node, to) = start(node().clock(time.clock())).await;
    let ask = post("/", &[], &request("SendStreamingMessage", text("1")));
    let events = Connection::open(to).await.events(&ask).await;
    let mut events = events.unwrap_or_else(|response| panic!("{}", response.text()));
    let (_, first) = events.next().await.expect("the task");
    let task = first["result"]["task"]["id"].as_str().expect("an id").to_owned();
    let mut silent = subscribe(to, &task, None).await;
    silent.next().await.expect("the task");
    crate::support::pause(50).await;
    let chunk = async {
        let chunk = silent.chunk().await;
        assert_eq!(chunk.as_deref(), Some(b": \n\n".as_slice()));
    };
    tokio::join!(chunk, async {
        for _ in 0..20 {
            time.advance(Duration::from_secs(4));
            crate::support::pause(10).await;
        }
    });
    // The time to drain would stand still as well.
    drop((silent, events));
    node.stop().await;
}

/// Fields of a request in HTTP/2, none from a table and none compressed.
pub(crate) fn fields(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let method = if more.is_empty() { "GET" } else { "POST" };
    let pseudo =
        [(":method", method), (":scheme", "http"), (":path", path), (":authority", "localhost")];
    let mut bytes = Vec::new();
    for (name, value) in pseudo.iter().chain(more) {
        bytes.push(0);
        for text in [name, value] {
            bytes.push(
                u8::try_from(text.len()).ok().filter(|len| *len < 127).expect("a short text"),
            );
            bytes.extend(text.as_bytes());
        }
    }
    bytes
}

/// The frames that have come as a whole: kind, stream, payload.
fn frames(mut received: &[u8]) -> Vec<(u8, u32, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some(head) = received.first_chunk::<9>() {
        let length =
            usize::try_from(u32::from_be_bytes([0, head[0], head[1], head[2]])).expect("short");
        let Some(payload) = received.get(9..9 + length) else { break };
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        frames.push((head[3], stream, payload.to_vec()));
        received = &received[9 + length..];
    }
    frames
}

/// A client of HTTP/2 that gives the answers of its streams no room, and then a little.
#[tokio::test]
async fn a_stream_without_room_is_reset_in_time_and_nothing_else_is() {
    const HEADERS: u8 = 1;
    const DATA: u8 = 0;
    const RESET: u8 = 3;
    const CANCEL: [u8; 4] = [0, 0, 0, 8];
    let time = neuroflow::ManualClock::new();
    let (node, to) = start(node().clock(time.clock())).await;
    let task = waiting(to, 3_000).await;
    let mut stream = tokio::net::TcpStream::connect(to).await.expect("a connection");
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // The first window of every stream is 0.
    sent.extend(frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]));
    let sse = [("content-type", "application/json"), ("a2a-version", "1.0")];
    let body = request("SubscribeToTask", json!({ "id": task }));
    sent.extend(frame(HEADERS, 4, 1, &fields("/", &sse)));
    sent.extend(frame(DATA, 1, 1, &body));
    // A `SubscribeToTaskRequest`, whose second field is the id.
    let id = [&[0x12, u8::try_from(task.len()).expect("short")], task.as_bytes()].concat();
    let call = [&[0, 0, 0, 0, u8::try_from(id.len()).expect("short")], id.as_slice()].concat();
    let grpc = [("content-type", "application/grpc"), ("te", "trailers"), ("a2a-version", "1.0")];
    sent.extend(frame(HEADERS, 4, 3, &fields("/lf.a2a.v1.A2AService/SubscribeToTask", &grpc)));
    sent.extend(frame(DATA, 1, 3, &call));
    // One that gets room for a byte from time to time.
    sent.extend(frame(HEADERS, 5, 5, &fields("/.well-known/agent-card.json", &[])));
    stream.write_all(&sent).await.expect("it is sent");
    let (mut reader, mut writer) = stream.into_split();
    let received = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let heard = std::sync::Arc::clone(&received);
    let reading = async move {
        let mut more = [0; 4_096];
        while let Ok(read @ 1..) = reader.read(&mut more).await {
            heard.lock().expect("no panic").extend_from_slice(&more[..read]);
        }
    };
    let seen = |kind, of: u32| {
        let all = frames(&received.lock().expect("no panic"));
        all.into_iter()
            .filter(|(k, s, _)| *k == kind && *s == of)
            .map(|it| it.2)
            .collect::<Vec<_>>()
    };
    let acting = async {
        eventually("all heads", || [1, 3, 5].iter().all(|of| !seen(HEADERS, *of).is_empty())).await;
        // The task goes on and ends, whoever doesn't read of it.
        let done = rpc(to, "/", "SendMessage", answer(&task)).await;
        assert_eq!(state(&done["result"]["task"]), "TASK_STATE_COMPLETED");
        time.advance(WRITE_STALL.saturating_sub(Duration::from_millis(1)));
        crate::support::pause(200).await;
        assert_eq!([1, 3, 5].map(|of| seen(RESET, of).len()), [0; 3]);
        let one = 1_u32.to_be_bytes();
        writer.write_all(&frame(8, 0, 5, &one)).await.expect("a byte of room");
        eventually("the byte", || seen(DATA, 5).concat().len() == 1).await;
        // What is waited for begins when the connection's own task has looked.
        for _ in 0..10 {
            time.advance(WRITE_STALL / 10);
            crate::support::pause(20).await;
        }
        eventually("the resets", || [1, 3].iter().all(|of| !seen(RESET, *of).is_empty())).await;
        assert_eq!([1, 3].map(|of| seen(RESET, of)), [[CANCEL.to_vec()], [CANCEL.to_vec()]]);
        assert!([1, 3].iter().all(|of| seen(DATA, *of).is_empty()), "there was no room for any");
        assert!(seen(RESET, 5).is_empty(), "it has taken a byte");
        // The connection serves on.
        writer
            .write_all(&frame(HEADERS, 5, 7, &fields("/healthz", &[])))
            .await
            .expect("it is sent");
        eventually("another head", || !seen(HEADERS, 7).is_empty()).await;
    };
    tokio::select! {
        () = reading => panic!("the connection has ended: {:?}", frames(&received.lock().expect("no panic"))),
        () = acting => {}
    }
    assert_eq!(
        said(
            &subscribe(to, &task, Some("3"))
                .await
                .rest()
                .await
                .into_iter()
                .map(|(_, it)| it)
                .collect::<Vec<_>>()
        )
        .len(),
        3_000
    );
    node.stop().await;
}
