//! A node that stops, or is dropped, leaves no process, no connection and no port behind.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use neuroflow::actors::{AgentCommand, ArchivedChange, ArchivedContent, follow};
use neuroflow::kernel::Address;
use neuroflow::{
    AgentBuilder, Answer, AnyAgent, BootError, Clock, Echo, Header, ManualClock, Node, TaskState,
    Turn,
};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::client::{Connection, begin_text, message, post, request, send_text, task_of, within};
use crate::support::{
    eventually, is_child, loopback, marker, output, pause, processes_with, shell_node, start,
    state, zygote_above,
};

/// The request of a blocking `SendMessage` with one text part.
fn ask(text: &str) -> Vec<u8> {
    post("/", &[], &request("SendMessage", message(json!([{ "text": text }]))))
}

#[tokio::test]
async fn what_was_begun_is_answered_and_nothing_is_left() {
    let (node, to) = start(shell_node()).await;
    let marker = marker();
    let mut asking = Connection::open(to).await;
    let line = format!("timeout 1 sleep {marker}; echo done");
    asking.send(&ask(&line)).await.expect("the request is sent");
    eventually("the process", || !processes_with(&marker).is_empty()).await;
    let zygote = zygote_above(processes_with(&marker)[0]);
    assert!(is_child(zygote));
    // The answer to a request that has begun to arrive tells the draining node from the ready one.
    let mut watching = Connection::open(to).await;
    watching.send(b"GET /readyz HTTP/1.1\r\nhost: ").await.expect("half a request is sent");
    let mut ready = Connection::open(to).await;
    assert_eq!(ready.get("/readyz").await.status, 200);

    let ((), ()) = tokio::join!(within(node.stop()), async {
        eventually("the end of listening", || std::net::TcpStream::connect(to).is_err()).await;
        watching.send(b"localhost\r\n\r\n").await.expect("the other half is sent");
        let response = watching.receive().await.expect("an answer");
        assert_eq!((response.status, response.text().as_str()), (503, "draining\n"));
        let task = task_of(asking.receive().await.expect("an answer").json());
        assert_eq!((state(&task), output(&task)), ("TASK_STATE_COMPLETED", "done\n"));
        assert_eq!(asking.ended().await, b"");
        assert_eq!(ready.ended().await, b"");
    });
    assert_eq!(processes_with(&marker), [0; 0]);
    assert!(!is_child(zygote), "the zygote lives");
    assert_eq!(node.census().count(), 0, "{:?}", node.census().tree());
    drop(TcpListener::bind(to).expect("the port is free"));
}

/// An agent that answers once it's let through the gate.
fn gated(gate: &Arc<Semaphore>) -> AnyAgent {
    let gate = Arc::clone(gate);
    AgentBuilder::new("gated", "Waits.").on_ask(move |ask, context| {
        let gate = Arc::clone(&gate);
        async move {
            if ask.text() == "ask" {
                context.ask_user(Turn::agent("who?")).await?;
            }
            let _open = gate.acquire().await;
            Ok(Answer::text("finished"))
        }
    })
}

fn gated_address(node: &Node) -> Address<AgentCommand> {
    node.address("gated").expect("the agent is there").clone()
}

/// The last that a task tells: the state that it's in then, and what is said with it.
async fn last_told(agent: &Address<AgentCommand>, task: &str) -> (TaskState, String) {
    let followed = follow(agent, Header::new(), task, None, None).await.expect("answered");
    let (mut told, mut to_come) = followed.expect("there is such a task");
    while let Some(Ok(event)) = to_come.next().await {
        told.push(event);
    }
    let last = told.last().expect("an event").get();
    let ArchivedChange::Status { state, turn } = &last.change else { panic!("no status") };
    let content = turn.as_ref().and_then(|turn| Some(&turn.parts.first()?.content));
    let said = match content {
        Some(ArchivedContent::Text(text)) => text.to_string(),
        _ => String::new(),
    };
    (TaskState::from(*state), said)
}

/// Neither those that were begun without waiting, nor those of the host, for which no connection is open.
#[tokio::test]
async fn tasks_that_no_connection_waits_for_come_to_their_end() {
    let gate = Arc::new(Semaphore::new(0));
    let (node, to) = start(Node::builder().agent(gated(&gate)).gateway(loopback())).await;
    let agent = gated_address(&node);
    let task = begin_text(to, "/", "go").await;
    let (asked, told, (), ()) = within(async {
        tokio::join!(node.ask("gated", "go"), last_told(&agent, &task), node.stop(), async {
            eventually("the end of listening", || std::net::TcpStream::connect(to).is_err()).await;
            gate.add_permits(2);
        })
    })
    .await;
    assert_eq!(asked.expect("answered").completed().expect("completed").text(), "finished");
    assert_eq!(told, (TaskState::Completed, String::new()));
    assert_eq!(node.census().count(), 0);
}

/// What will never end is killed when the time for it is over, and what waits for its client at once.
#[tokio::test]
async fn tasks_that_work_have_their_share_of_the_time_and_those_that_wait_have_none() {
    for (text, deadline) in [("go", None), ("go", Some(3)), ("ask", None)] {
        let (time, gate) = (ManualClock::new(), Arc::new(Semaphore::new(0)));
        let node = Node::builder().agent(gated(&gate)).clock(time.clock()).gateway(loopback());
        let (node, to) = start(node.drain_within(Duration::from_secs(2))).await;
        let agent = gated_address(&node);
        let task = begin_text(to, "/", text).await;
        let stop = async {
            match deadline {
                Some(seconds) => assert!(node.stop_within(Duration::from_secs(seconds)).await),
                None => node.stop().await,
            }
        };
        let alone = || !node.census().tree().iter().any(|it| it.path.as_str() == "/gateway");
        let (told, (), ()) = within(async {
            tokio::join!(last_told(&agent, &task), stop, async {
                if text == "go" {
                    eventually("the end of the gateway", alone).await;
                    time.advance(Duration::from_millis(1_900));
                    // Nothing tells that it's waited for but that it's there.
                    pause(100).await;
                    assert!(node.census().tree().iter().any(|it| it.kind == "task"));
                    time.advance(Duration::from_millis(200));
                }
            })
        })
        .await;
        let stopped = (TaskState::Failed, "the agent was stopped".to_owned());
        assert_eq!(told, stopped, "{text} {deadline:?}");
    }
}

/// Whatever still runs when the drain is over is ended, and its client sees a clean close.
#[tokio::test]
async fn what_takes_longer_than_the_drain_is_ended() {
    let time = ManualClock::new();
    let (node, to) = start(shell_node().clock(time.clock())).await;
    let marker = marker();
    let mut asking = Connection::open(to).await;
    asking.send(&ask(&format!("trap '' TERM; sleep {marker}"))).await.expect("it is sent");
    eventually("the process", || !processes_with(&marker).is_empty()).await;
    let zygote = zygote_above(processes_with(&marker)[0]);
    let ((), ()) = tokio::join!(within(node.stop()), async {
        eventually("the end of listening", || std::net::TcpStream::connect(to).is_err()).await;
        // Each server that waits for something gets its time and no more.
        eventually("the end", || {
            time.advance(Duration::from_secs(1));
            node.census().count() == 0
        })
        .await;
    });
    assert_eq!(asking.ended().await, b"");
    eventually("the end of the process", || processes_with(&marker).is_empty()).await;
    eventually("the end of the zygote", || !is_child(zygote)).await;
}

#[tokio::test]
async fn a_stop_with_a_deadline_keeps_it() {
    let (node, to) = start(shell_node()).await;
    let marker = marker();
    let mut asking = Connection::open(to).await;
    asking.send(&ask(&format!("sleep {marker}"))).await.expect("the request is sent");
    eventually("the process", || !processes_with(&marker).is_empty()).await;
    let zygote = zygote_above(processes_with(&marker)[0]);
    assert!(!within(node.stop_within(Duration::from_millis(200))).await);
    closed_cleanly(asking).await;
    eventually("the end of the process", || processes_with(&marker).is_empty()).await;
    eventually("the end of the zygote", || !is_child(zygote)).await;
    eventually("the end of all actors", || node.census().count() == 0).await;
}

/// The agent may be gone a moment before the gateway is, and then there is still an answer.
async fn closed_cleanly(mut connection: Connection) {
    if let Ok(response) = connection.receive().await {
        assert_eq!(response.status, 503, "{}", response.text());
    }
    assert_eq!(connection.ended().await, b"");
}

/// An idle connection has nothing to be waited for.
#[tokio::test]
async fn idle_connections_do_not_hold_a_stop_up() {
    let (node, to) = start(Node::builder().agent(AnyAgent::new(Echo)).gateway(loopback())).await;
    let mut idle = Vec::new();
    for number in 0..40 {
        let mut connection = Connection::open(to).await;
        if number % 2 == 0 {
            assert_eq!(connection.get("/healthz").await.status, 200);
        }
        idle.push(connection);
    }
    let clock = Clock::system();
    let begun = clock.now();
    within(node.stop()).await;
    // The gateway would be given ten seconds.
    assert!(clock.now().since(begun) < Duration::from_secs(5), "{:?}", clock.now().since(begun));
    for connection in idle {
        assert_eq!(connection.ended().await, b"");
    }
}

/// Tasks that nobody waits for don't each cost the stop a time of their own.
#[tokio::test]
async fn many_running_tasks_do_not_hold_a_stop_up() {
    let agent = AgentBuilder::new("waits", "Waits for ever.").on_ask(|_, _| async {
        std::future::pending::<()>().await;
        Ok(Answer::done())
    });
    let node = Node::builder().agent(agent).gateway(loopback());
    // They aren't given any.
    let (node, to) = start(node.drain_within(Duration::ZERO)).await;
    for _ in 0..30 {
        begin_text(to, "/", "go").await;
    }
    let clock = Clock::system();
    let begun = clock.now();
    within(node.stop()).await;
    assert!(clock.now().since(begun) < Duration::from_secs(3), "{:?}", clock.now().since(begun));
    assert_eq!(node.census().count(), 0);
}

#[tokio::test]
async fn a_node_that_is_dropped_takes_everything_with_it() {
    let (node, to) = start(shell_node()).await;
    let marker = marker();
    let mut asking = Connection::open(to).await;
    asking.send(&ask(&format!("sleep {marker}"))).await.expect("the request is sent");
    eventually("the process", || !processes_with(&marker).is_empty()).await;
    let zygote = zygote_above(processes_with(&marker)[0]);
    drop(node);
    closed_cleanly(asking).await;
    eventually("the end of the process", || processes_with(&marker).is_empty()).await;
    eventually("the end of the zygote", || !is_child(zygote)).await;
    eventually("the end of listening", || TcpListener::bind(to).is_ok()).await;
}

/// The runtime may go first: then its tasks are dropped wherever they are.
#[test]
fn a_runtime_that_is_dropped_takes_everything_with_it() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let marker = marker();
    let (node, zygote) = runtime.block_on(async {
        let (node, to) = start(shell_node()).await;
        begin_text(to, "/", &format!("sleep {marker}")).await;
        eventually("the process", || !processes_with(&marker).is_empty()).await;
        (node, zygote_above(processes_with(&marker)[0]))
    });
    drop(runtime);
    assert!(!is_child(zygote), "the zygote lives");
    let wait = tokio::runtime::Runtime::new().expect("a runtime");
    wait.block_on(eventually("the end of the process", || processes_with(&marker).is_empty()));
    drop(node);
}

#[tokio::test]
async fn a_stopped_node_can_be_started_again_on_its_port() {
    let (node, to) = start(shell_node()).await;
    assert_eq!(output(&send_text(to, "/", "echo 1").await), "1\n");
    node.stop().await;
    let (node, again) = start(shell_node().gateway(to)).await;
    assert_eq!(again, to);
    assert_eq!(output(&send_text(to, "/", "echo 2").await), "2\n");
    // Stopping twice is stopping.
    node.stop().await;
    node.stop().await;
}

#[tokio::test]
async fn a_node_that_cannot_start_says_why() {
    let taken = TcpListener::bind(loopback()).expect("a port");
    let address = taken.local_addr().expect("it has an address");
    let refused = Node::builder().agent(AnyAgent::new(Echo)).gateway(address).start().await;
    let Err(error) = refused else { panic!("two listeners on {address}") };
    assert!(chain(&error).contains(&format!("can't listen on {address}")), "{}", chain(&error));

    let refused = Node::builder().gateway(loopback()).start().await;
    let Err(error) = refused else { panic!("a gateway without agents") };
    assert!(chain(&error).contains("no agent to serve"), "{}", chain(&error));

    for name in ["", "a/b", "..", "a b"] {
        let agent =
            AgentBuilder::new(name, "Has no name.").on_ask(|_, _| async { Ok(Answer::done()) });
        let refused = Node::builder().agent(agent).start().await;
        assert!(matches!(refused, Err(BootError::Name(_))), "{name:?}: {refused:?}");
    }
    let twice = Node::builder().agent(AnyAgent::new(Echo)).agent(AnyAgent::new(Echo));
    let Err(error) = twice.start().await else { panic!("two agents of one name") };
    assert!(chain(&error).contains("echo"), "{}", chain(&error));
}

/// An error and its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
