//! Places for webhooks: nobody takes all of them, and so many notifications are posted at once.

use std::sync::Arc;
use std::time::Duration;

use neuroflow::actors::limits::PUSH_TIMEOUT;
use neuroflow::actors::{AccessConfig, PushOptions};
use neuroflow::{ManualClock, Node, NodeBuilder};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::access::{ALL, Files, config, token};
use crate::client::message;
use crate::protocol::{Binding, Peer};
use crate::push::{Receive, Receiver, send_to};
use crate::push_rights::{begin, gated, peer, until_configs};
use crate::support::{eventually, loopback, pause, start};

fn node(bound: impl FnOnce(&mut PushOptions)) -> NodeBuilder {
    let mut options = PushOptions::default();
    options.allow_private = true;
    bound(&mut options);
    let gate = Arc::new(Semaphore::new(0));
    Node::builder().agent(gated(&gate)).gateway(loopback()).push_notifications(options)
}

/// Two who may do everything.
fn greedy_and_modest(files: &Files) -> (AccessConfig, [neuroflow::actors::FreshToken; 2]) {
    let both = ["greedy", "modest"].map(|name| token(name, &[]));
    let lines = [both[0].line(), both[1].line()].join("\n");
    (config(&files.write("tokens", &lines), &files.write("policy", ALL)), both)
}

/// Stops a node whose deliveries are given a moment by a clock that stands still.
async fn stop(node: &Node, time: &ManualClock) {
    let mut stopping = std::pin::pin!(node.stop());
    loop {
        tokio::select! {
            () = &mut stopping => return,
            () = pause(10) => time.advance(Duration::from_millis(100)),
        }
    }
}

#[tokio::test]
async fn who_has_as_many_webhooks_as_are_free_sets_no_more_and_others_do() {
    let files = Files::fresh();
    let (access, both) = greedy_and_modest(&files);
    let (node, to) = start(node(|options| options.deliveries = 8).access(access)).await;
    let [greedy, modest] = [&both[0], &both[1]].map(|token| peer(to, token));
    let task = begin(&greedy, message(json!([{ "text": "go" }]))).await;
    let receiver = Receiver::start(&[]).await;
    // Both may see the task, so that it's the one who asks that counts.
    let set = async |who: &Peer, id: &str| {
        let config = json!({ "taskId": task, "id": id, "url": receiver.url() });
        let created = who.call("CreateTaskPushNotificationConfig", config).await;
        created.map_or_else(|fault| fault.code, |_config| 200)
    };
    for id in ["1", "2", "3", "4"] {
        assert_eq!(set(&greedy, id).await, 200);
    }
    assert_eq!(set(&greedy, "5").await, 503, "that is as many as are free");
    assert_eq!(set(&greedy, "4").await, 200, "one that takes the place of another needs none");
    let inline = greedy.call("SendMessage", send_to(&receiver.url(), json!({}))).await;
    assert_eq!(inline.expect_err("no place").code, 503);
    for id in ["6", "7"] {
        assert_eq!(set(&modest, id).await, 200);
    }
    assert_eq!(set(&modest, "8").await, 503, "so is that");
    for id in ["1", "2", "3"] {
        let delete = json!({ "taskId": task, "id": id });
        greedy.call("DeleteTaskPushNotificationConfig", delete).await.expect("it's deleted");
    }
    assert_eq!(set(&modest, "8").await, 200, "what was deleted has no place");
    assert_eq!(set(&greedy, "5").await, 200);
    node.stop().await;
}

#[tokio::test]
async fn who_waits_for_a_place_to_post_has_not_failed_and_can_be_deleted() {
    let time = ManualClock::new();
    let (node, to) = start(node(|options| options.posts = 1).clock(time.clock())).await;
    let peer = Peer::new(Binding::Rest, to, None);
    let [slow, slow_too] =
        [Receiver::start(&[Receive::Hold]).await, Receiver::start(&[Receive::Hold]).await];
    let [fast, gone] = [Receiver::start(&[]).await, Receiver::start(&[]).await];
    begin(&peer, send_to(&slow.url(), json!({}))).await;
    eventually("the first post", || slow.told().len() == 1).await;
    begin(&peer, send_to(&slow_too.url(), json!({}))).await;
    pause(200).await;
    begin(&peer, send_to(&fast.url(), json!({}))).await;
    pause(200).await;
    let task = begin(&peer, send_to(&gone.url(), json!({ "id": "gone" }))).await;
    pause(200).await;
    let told = || [&slow, &slow_too, &fast, &gone].map(|receiver| receiver.told().len());
    assert_eq!(told(), [1, 0, 0, 0], "one at once");
    let delete = json!({ "taskId": task, "id": "gone" });
    peer.call("DeleteTaskPushNotificationConfig", delete).await.expect("it's deleted");
    until_configs(&peer, &task, &[]).await;
    // What both slow ones take is more than a receiver is given.
    let step = Duration::from_secs(1);
    let mut waited = Duration::ZERO;
    while told()[2] == 0 {
        assert!(waited < PUSH_TIMEOUT * 4, "its turn doesn't come: {:?}", told());
        time.advance(step);
        waited += step;
        pause(20).await;
    }
    assert!(waited >= PUSH_TIMEOUT * 2, "it came after {waited:?}");
    assert_eq!(fast.told(), ["TASK_STATE_WORKING"]);
    for receiver in [&slow, &slow_too] {
        // Both are tried again, when what has waited longer was posted.
        while receiver.told().len() < 2 {
            assert!(waited < PUSH_TIMEOUT * 8, "it isn't tried again: {:?}", told());
            time.advance(step);
            waited += step;
            pause(20).await;
        }
    }
    assert_eq!((fast.told().len(), gone.told().len()), (1, 0));
    stop(&node, &time).await;
}

#[tokio::test]
async fn who_posts_as_much_as_is_free_waits_and_others_do_not() {
    let files = Files::fresh();
    let (access, both) = greedy_and_modest(&files);
    // Nothing is given up: the clock stands still.
    let time = ManualClock::new();
    let builder = node(|options| options.posts = 2).access(access).clock(time.clock());
    let (node, to) = start(builder).await;
    let [greedy, modest] = [&both[0], &both[1]].map(|token| peer(to, token));
    let [slow, second] = [Receiver::start(&[Receive::Hold]).await, Receiver::start(&[]).await];
    let fast = Receiver::start(&[]).await;
    begin(&greedy, send_to(&slow.url(), json!({}))).await;
    eventually("the first post", || slow.told().len() == 1).await;
    begin(&greedy, send_to(&second.url(), json!({}))).await;
    pause(200).await;
    begin(&modest, send_to(&fast.url(), json!({}))).await;
    fast.has_been_told("TASK_STATE_WORKING").await;
    assert!(second.told().is_empty(), "it has one, and one was free");
    stop(&node, &time).await;
}
