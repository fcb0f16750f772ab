//! What a delivery says whose configuration was replaced meanwhile is nothing to its successor.

use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use neuroflow::actors::{PushOptions, PushRecord, PushStore, PushStoreError, PushTask};
use neuroflow::{Node, NodeBuilder};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::client::message;
use crate::protocol::{Binding, Peer};
use crate::push::{Receive, Receiver};
use crate::push_rights::{begin, gated, until_configs};
use crate::support::{actors, eventually, loopback, pause, start};

/// Keeps a configuration when it's let.
#[derive(Debug)]
struct Slow {
    gate: Semaphore,
    records: Mutex<Vec<PushRecord>>,
}

type Stored<'a, T> = BoxFuture<'a, Result<T, PushStoreError>>;

impl PushStore for Slow {
    fn append<'a>(&'a self, _: &'a PushTask, record: &'a PushRecord) -> Stored<'a, ()> {
        Box::pin(async move {
            self.records.lock().expect("a lock").push(record.clone());
            if matches!(record, PushRecord::Config { .. }) {
                self.gate.acquire().await.expect("a gate").forget();
            }
            Ok(())
        })
    }

    fn load(&self) -> Stored<'_, Vec<(PushTask, Vec<PushRecord>)>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
}

impl Slow {
    fn new() -> Arc<Self> {
        Arc::new(Self { gate: Semaphore::new(1), records: Mutex::default() })
    }

    /// What was kept, in a word each.
    fn kept(&self) -> Vec<&'static str> {
        let records = self.records.lock().expect("a lock");
        let word = |record: &PushRecord| match record {
            PushRecord::Config { .. } => "config",
            PushRecord::Reached { .. } => "reached",
            PushRecord::Ended { .. } => "ended",
        };
        records.iter().map(word).collect()
    }
}

fn node(gate: &Arc<Semaphore>, store: &Arc<Slow>) -> NodeBuilder {
    let mut options = PushOptions::default();
    options.allow_private = true;
    options.store = Some(Arc::clone(store) as _);
    Node::builder().agent(gated(gate)).gateway(loopback()).push_notifications(options)
}

/// Sets a webhook, and replaces it by another. While that is being kept, the task has its one event, which
/// the first webhook is told, and answers like this.
async fn replaced_while_told(
    (node, peer): (&Node, &Peer),
    (gate, store): (&Semaphore, &Slow),
    (answer, is_over): (u16, bool),
    second: &Receiver,
) -> String {
    let first = Receiver::start(&[Receive::Status(answer)]).await;
    let task = begin(peer, message(json!([{ "text": "go" }]))).await;
    let set = async |receiver: &Receiver| {
        let config = json!({ "taskId": task, "id": "c", "url": receiver.url() });
        peer.call("CreateTaskPushNotificationConfig", config).await.expect("it's kept")
    };
    set(&first).await;
    let delivers = || actors(node).iter().any(|path| path.contains("/delivery-"));
    assert!(delivers(), "{:?}", actors(node));
    let meanwhile = async {
        eventually("the second configuration at the store", || store.kept().len() == 2).await;
        gate.add_permits(1);
        first.has_been_told("late").await;
        if is_over {
            eventually("the end of the first delivery", || !delivers()).await;
        } else {
            // It says how far it has come as soon as it has the answer, which nothing shows.
            pause(300).await;
        }
        store.gate.add_permits(1);
    };
    tokio::join!(set(second), meanwhile);
    second.has_been_told("late").await;
    task
}

#[tokio::test]
async fn the_end_of_a_replaced_configuration_is_not_that_of_its_successor() {
    let (gate, store) = (Arc::new(Semaphore::new(0)), Slow::new());
    let (node, to) = start(node(&gate, &store)).await;
    let peer = Peer::new(Binding::Rest, to, None);
    let second = Receiver::start(&[]).await;
    let task = replaced_while_told((&node, &peer), (&gate, &store), (410, true), &second).await;
    until_configs(&peer, &task, &["c"]).await;
    let one = json!({ "taskId": task, "id": "c" });
    let found = peer.call("GetTaskPushNotificationConfig", one.clone()).await.expect("it's there");
    assert_eq!(found["url"], second.url());
    peer.call("DeleteTaskPushNotificationConfig", one).await.expect("it's deleted");
    let delivers = || actors(&node).iter().any(|path| path.contains("/delivery-"));
    eventually("the end of the second delivery", || !delivers()).await;
    node.stop().await;
}

#[tokio::test]
async fn how_far_a_replaced_configuration_has_come_is_nothing_to_its_successor() {
    let (gate, store) = (Arc::new(Semaphore::new(0)), Slow::new());
    let (node, to) = start(node(&gate, &store)).await;
    let peer = Peer::new(Binding::Rest, to, None);
    let second = Receiver::start(&[Receive::Hold]).await;
    let task = replaced_while_told((&node, &peer), (&gate, &store), (200, false), &second).await;
    until_configs(&peer, &task, &["c"]).await;
    // The second one hasn't answered yet: it would be told again after a restart.
    assert_eq!(store.kept(), ["config", "config"]);
    node.stop().await;
}
