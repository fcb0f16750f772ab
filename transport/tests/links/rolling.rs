//! Nodes that are restarted one after another, in good order, while others ask on and on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use neuroflow_kernel::{AskError, Header, Refusal};
use neuroflow_transport::{CallKey, Credential, LinksConfig};
use tokio::task::JoinSet;

use crate::world::{Ledger, Node, Work, World, soon, until};

/// What became of each call, by its number.
#[derive(Clone, Default)]
struct Book {
    next: Arc<AtomicU32>,
    answered: Arc<Mutex<Vec<u32>>>,
    refused: Arc<Mutex<Vec<u32>>>,
    stop: Arc<AtomicBool>,
}

impl Book {
    fn is_open(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn work(&self) -> Work {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Work { number, replies: 3, bytes: 2_000, ..Work::default() }
    }

    fn answered(&self) -> usize {
        self.answered.lock().unwrap().len()
    }
}

/// Long enough for any machine, and shorter than a test's patience.
const DEADLINE: Duration = Duration::from_secs(15);

const PLACED: &str = "agent://*/worker";

/// Asks wherever it's placed. Nothing is lost: a call is answered, or wasn't taken.
async fn asks(links: neuroflow_transport::Links, clock: neuroflow_kernel::Clock, book: Book) {
    let address = links.resolve::<Work>(PLACED).unwrap();
    while book.is_open() {
        let work = book.work();
        let number = work.number;
        let work = Work { of: Some(format!("conversation {}", number % 32)), ..work };
        match soon(address.ask(Header::new().within(&clock, DEADLINE), &work)).await {
            Ok(mut replies) => {
                for _ in 0..3 {
                    soon(replies.next()).await.unwrap().unwrap();
                }
                assert!(soon(replies.next()).await.is_none());
                book.answered.lock().unwrap().push(number);
            }
            Err(AskError::Refused(Refusal::Unreachable(_))) => {
                book.refused.lock().unwrap().push(number);
                clock.sleep(Duration::from_millis(5)).await;
            }
            Err(other) => panic!("{other}"),
        }
    }
}

/// The same with keys: all are answered.
async fn calls(links: neuroflow_transport::Links, clock: neuroflow_kernel::Clock, book: Book) {
    while book.is_open() {
        let work = book.work();
        let header = Header::new().within(&clock, DEADLINE);
        let key = CallKey::random().unwrap();
        let answer = soon(links.call(PLACED, header, key, &work)).await;
        assert_eq!(answer.unwrap().len(), 3);
        book.answered.lock().unwrap().push(work.number);
    }
}

async fn start(world: &World, who: &Credential, a: &Node) -> Node {
    let listen = "127.0.0.1:0".parse().unwrap();
    let config = LinksConfig::new(listen, who.clone(), world.trust());
    // However long it takes what was asked to be answered.
    let config = config.leave_within(Duration::from_mins(1)).seed(a.address());
    let node = Node::start(config, 1_024).await;
    node.has_link_to("a").await;
    node
}

/// How often each call has run, over all lives of all nodes.
fn runs(ledgers: &[Ledger]) -> HashMap<u32, u32> {
    let mut runs = HashMap::new();
    for ledger in ledgers {
        for number in ledger.numbers.lock().unwrap().iter() {
            *runs.entry(*number).or_default() += 1;
        }
    }
    runs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_are_restarted_one_after_another_lose_no_call_and_run_none_twice() {
    let world = World::new();
    let a = world.node_with("a", 8, |config| config.capacity(0)).await;
    let who = ["b", "c", "d"].map(|name| world.credential(name, &[]));
    let mut nodes = Vec::new();
    for credential in &who {
        nodes.push(start(&world, credential, &a).await);
    }
    let offers = |ids: usize| a.links.placement("worker", b"any").len() == ids;
    until(|| offers(3)).await;
    let mut ledgers: Vec<Ledger> = nodes.iter().map(|node| node.ledger.clone()).collect();

    let (plain, keyed) = (Book::default(), Book::default());
    // Numbers of the two don't meet.
    keyed.next.store(1 << 30, Ordering::Relaxed);
    let mut load = JoinSet::new();
    for _ in 0..3 {
        load.spawn(asks(a.links.clone(), a.clock().clone(), plain.clone()));
        load.spawn(calls(a.links.clone(), a.clock().clone(), keyed.clone()));
    }
    let goes_on = async || {
        let (asked, called) = (plain.answered() + 50, keyed.answered() + 50);
        until(|| plain.answered() >= asked && keyed.answered() >= called).await;
    };
    for credential in &who {
        goes_on().await;
        let old = nodes.remove(0);
        soon(old.kernel.stop()).await;
        goes_on().await;
        let new = start(&world, credential, &a).await;
        until(|| offers(3)).await;
        ledgers.push(new.ledger.clone());
        nodes.push(new);
    }
    goes_on().await;
    plain.stop.store(true, Ordering::Relaxed);
    keyed.stop.store(true, Ordering::Relaxed);
    while let Some(ended) = soon(load.join_next()).await {
        ended.unwrap();
    }

    let runs = runs(&ledgers);
    let times = |number: &u32| runs.get(number).copied().unwrap_or_default();
    assert!(keyed.answered.lock().unwrap().iter().all(|number| times(number) == 1));
    assert!(plain.answered.lock().unwrap().iter().all(|number| times(number) == 1));
    assert!(plain.refused.lock().unwrap().iter().all(|number| times(number) == 0));
    let answered = plain.answered() + keyed.answered();
    assert_eq!(runs.len(), answered, "nothing else ran");
    assert!(nodes.iter().all(|node| node.ledger.begun() > 0), "each new life has its share");
}
