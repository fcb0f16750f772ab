//! Large answers that nobody reads: they're held in memory within a bound, and everything else goes on.

use neuroflow::actors::FreshToken;
use neuroflow::actors::limits::UNSENT_BYTES;
use neuroflow::{AgentBuilder, Answer, AnyAgent, Artifact, Node};
use serde_json::json;

use crate::access::{ALL, Files, config, token};
use crate::client::{Connection, message, post, request, task_of};
use crate::support::{loopback, pause, start};

/// Bytes of one piece of a large answer, and how many pieces it has.
const PIECE: usize = 4_000_000;
const PIECES: usize = 5;

/// Says much, or a little.
fn talks() -> AnyAgent {
    AgentBuilder::new("talks", "Says as much as it's asked for.").on_ask(
        |asked, context| async move {
            if asked.text() == "much" {
                for number in 0..PIECES {
                    let piece = Artifact::text(number.to_string(), "x".repeat(PIECE));
                    context.produce(piece).await?;
                }
            }
            Ok(Answer::text("that is all"))
        },
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_no_answer_gets_no_more_large_ones_and_others_do() {
    let files = Files::fresh();
    let [greedy, modest] = ["greedy", "modest"].map(|name| token(name, &[]));
    let tokens = files.write("tokens", &[&greedy, &modest].map(FreshToken::line).join("\n"));
    let access = config(&tokens, &files.write("policy", ALL));
    let node = Node::builder().agent(talks()).access(access).gateway(loopback());
    let (node, to) = start(node).await;
    let [greedy, modest] = [greedy, modest].map(|token| format!("Bearer {}", token.secret()));
    let sent = |who: &str, body: &[u8], more: &[(&str, &str)]| {
        let headers = [&[("authorization", who)], more].concat();
        post("/", &headers, body)
    };
    // The status of an answer whose body isn't read, and where it waits.
    let ask = async |who: &str, body: Vec<u8>, more: &[(&str, &str)]| {
        let mut connection = Connection::open(to).await;
        connection.send(&sent(who, &body, more)).await.expect("the request is sent");
        let (status, _headers) = connection.receive_head().await.expect("the head of an answer");
        (status, connection)
    };
    let begun = async |who: &str, text: &str| {
        let mut connection = Connection::open(to).await;
        let body = request("SendMessage", message(json!([{ "text": text }])));
        connection.send(&sent(who, &body, &[])).await.expect("the request is sent");
        let task = task_of(connection.receive().await.expect("an answer").json());
        task["id"].as_str().expect("an id").to_owned()
    };
    let read = |task: &str| request("GetTask", json!({ "id": task }));

    let (small, large) = (begun(&greedy, "a little").await, begun(&greedy, "much").await);
    let mut unread = Vec::new();
    for number in 0..=UNSENT_BYTES / 2 / (PIECE * PIECES) {
        let (status, connection) = ask(&greedy, read(&large), &[]).await;
        assert_eq!(status, 200, "after {number} answers");
        unread.push(connection);
    }
    assert_eq!(ask(&greedy, read(&large), &[]).await.0, 503, "that is as many as are free");
    let list = request("ListTasks", json!({ "includeArtifacts": true }));
    assert_eq!(ask(&greedy, list, &[]).await.0, 503);
    let follow = request("SubscribeToTask", json!({ "id": large }));
    assert_eq!(ask(&greedy, follow.clone(), &[("last-event-id", "1")]).await.0, 503);
    assert_eq!(ask(&greedy, read(&small), &[]).await.0, 200, "a small one finds room");
    let other = begun(&modest, "much").await;
    assert_eq!(ask(&modest, read(&other), &[]).await.0, 200, "so do others");

    // Whose connection ends gives it back, and who reads does.
    unread.truncate(1);
    for attempt in 0_u32.. {
        if ask(&greedy, read(&large), &[]).await.0 == 200 {
            break;
        }
        assert!(attempt < 1_000, "there is no room for a large answer");
        pause(20).await;
    }
    for _ in 0..UNSENT_BYTES / 2 / (PIECE * PIECES) {
        let (status, mut connection) =
            ask(&greedy, follow.clone(), &[("last-event-id", "1")]).await;
        assert_eq!(status, 200);
        while connection.next_chunk().await.expect("a stream").is_some() {}
    }
    node.stop().await;
}
