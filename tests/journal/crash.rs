//! A node under load, killed at any moment: what was acknowledged is there afterwards, nothing that was
//! journaled as done is done again, and whoever listens hears each event in order.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use neuroflow::actors::{ArchivedChange, EffectResult, EntryKind, TaskEvent, TaskLog};
use serde_json::{Value, json};

use crate::cluster::now;
use crate::folder::Folder;
use crate::killable::{Killable, Line, call};
use crate::scene::Scene;
use crate::shop::{self, Book, DEEDS};
use crate::tasks::told;
use crate::watchers::{Followers, Heard, Hook};

/// Kills, at least.
const KILLS: usize = 200;
/// Asks of a client, at most: fewer than memory keeps tasks.
const ASKS: usize = 5_000;
/// Clients that ask without a pause.
const CLIENTS: usize = 3;
/// Orders to the shop in one life of the node: enough that some are always under way.
const ORDERS: usize = 4;
/// Subscribers that follow at once.
const SUBSCRIBERS: usize = 2;
/// Time in which the last life has to finish what there is.
const FINISH: Duration = Duration::from_mins(1);

/// What clients were told: each task as it was then.
pub(crate) type Told = Arc<Mutex<HashMap<String, Value>>>;

/// All that is known outside of the node.
#[derive(Clone)]
struct World {
    /// Tasks of `echo`.
    echoes: Told,
    /// Tasks of `shop`, and whether a webhook hears of each.
    orders: Arc<Mutex<HashMap<String, bool>>>,
    hook: Arc<Hook>,
    followers: Arc<Followers>,
}

#[test]
fn two_hundred_kills_lose_no_task_that_was_acknowledged() {
    let folder = Folder::new();
    let world = World {
        echoes: Told::default(),
        orders: Arc::default(),
        hook: Arc::new(Hook::start()),
        followers: Arc::default(),
    };
    let begun = now();
    for round in 0..KILLS {
        world.hook.life.store(round, Ordering::SeqCst);
        // Now and then it's the built binary, which has no shop: its tasks lie there meanwhile.
        let is_shop = round % 10 != 9;
        let start = if is_shop { shop::open } else { Killable::start };
        let node = start(folder.path());
        let over = Arc::new(AtomicBool::new(false));
        let threads = load(&world, &node, round, is_shop, &over);
        // At a different moment of the work each time.
        std::thread::sleep(Duration::from_micros(20_000 + (round as u64 * 7_919) % 60_000));
        over.store(true, Ordering::SeqCst);
        node.kill();
        for thread in threads {
            thread.join().expect("no client panics");
        }
        if round % 20 == 19 {
            account_for(&folder, &world);
        }
    }
    finish(&folder, &world);
    account_for(&folder, &world);
    runtime().block_on(compare(folder.path(), &world));
    let acknowledged = world.echoes.lock().expect("no panic").len();
    println!("{acknowledged} echoes acknowledged in {:?}", begun.elapsed());
    assert!(acknowledged > KILLS, "{acknowledged} are too few");
}

/// Everybody who wants something of a node, until it's over.
fn load(
    world: &World,
    node: &Killable,
    round: usize,
    is_shop: bool,
    over: &Arc<AtomicBool>,
) -> Vec<JoinHandle<()>> {
    let (gateway, mut threads) = (node.gateway, Vec::new());
    let mut run = |work: Box<dyn FnOnce(World, Arc<AtomicBool>) + Send>| {
        let (world, over) = (world.clone(), Arc::clone(over));
        let thread = std::thread::Builder::new().spawn(move || work(world, over));
        threads.push(thread.expect("a thread"));
    };
    for client in 0..CLIENTS {
        run(Box::new(move |world, over| {
            ask_until_killed(gateway, client, &world.echoes, &over);
        }));
    }
    if is_shop {
        run(Box::new(move |world, over| order_until_killed(gateway, &world, &over)));
        for _ in 0..SUBSCRIBERS {
            run(Box::new(move |world, over| {
                world.followers.follow_until_killed(gateway, round, &over);
            }));
        }
    }
    threads
}

pub(crate) fn ask_until_killed(gateway: SocketAddr, client: usize, told: &Told, over: &AtomicBool) {
    let mut number = 0;
    while !over.load(Ordering::SeqCst) && number < ASKS {
        number += 1;
        // Some don't wait for the end.
        let at_once = number % 3 == 0;
        let mut request = said(&format!("{client}-{number}"));
        request["configuration"] = json!({ "returnImmediately": at_once });
        let Some(mut answer) = call(gateway, "SendMessage", &request) else { continue };
        let task = answer["result"]["task"].take();
        if let Some(id) = task["id"].as_str() {
            told.lock().expect("no client panicked").insert(id.to_owned(), task);
        }
    }
}

/// Orders, and a webhook for every other one.
fn order_until_killed(gateway: SocketAddr, world: &World, over: &AtomicBool) {
    for number in 0..ORDERS {
        if over.load(Ordering::SeqCst) {
            return;
        }
        let has_hook = number % 2 == 0;
        let mut request = said("order");
        request["configuration"] = json!({ "returnImmediately": true });
        if has_hook {
            let config = json!({ "url": world.hook.url() });
            request["configuration"]["taskPushNotificationConfig"] = config;
        }
        let line = Line::open(gateway);
        let answer = line.and_then(|mut line| line.call("/agents/shop", "SendMessage", &request));
        if let Some(task) = answer.as_ref().and_then(|it| it["result"]["task"]["id"].as_str()) {
            world.followers.hear_of(task);
            world.orders.lock().expect("no panic").insert(task.to_owned(), has_hook);
        }
        std::thread::sleep(Duration::from_millis(8));
    }
}

fn said(id: &str) -> Value {
    json!({ "message": { "messageId": id, "role": "ROLE_USER", "parts": [{ "text": "hello" }] } })
}

/// Every task that a client was told of is there; what had ended is as it was, and nothing is still
/// at work that isn't to go on.
fn account_for(folder: &Folder, world: &World) {
    let node = shop::open(folder.path());
    let mut line = Line::open(node.gateway).expect("a connection");
    let mut get = |path: &str, task: &str| {
        let answer = line.call(path, "GetTask", &json!({ "id": task }));
        let mut answer = answer.unwrap_or_else(|| panic!("the node doesn't answer for {task}"));
        let found = answer["result"].take();
        assert!(found.is_object(), "{task} is lost: {answer}");
        found
    };
    for (task, told) in world.echoes.lock().expect("no panic").iter() {
        let found = get("/", task);
        let state = found["status"]["state"].as_str().expect("a state");
        if told["status"]["state"] == "TASK_STATE_COMPLETED" {
            assert_eq!(found, *told, "{task} has changed");
        }
        // It was running when the node was killed, and the agent isn't resumable.
        assert!(["TASK_STATE_COMPLETED", "TASK_STATE_FAILED"].contains(&state), "{found}");
        let artifacts = found["artifacts"].as_array().map_or(0, Vec::len);
        assert_eq!(artifacts, usize::from(state == "TASK_STATE_COMPLETED"), "{task}: {found}");
    }
    for task in world.orders.lock().expect("no panic").keys() {
        let found = get("/agents/shop", task);
        let states = ["TASK_STATE_SUBMITTED", "TASK_STATE_WORKING", "TASK_STATE_COMPLETED"];
        let goes_on = states.iter().any(|state| found["status"]["state"] == *state);
        assert!(goes_on, "{task} should go on: {found}");
    }
    node.kill();
}

/// A life in which all that was ordered comes to its end, and everybody who listens hears of it.
fn finish(folder: &Folder, world: &World) {
    let node = shop::open(folder.path());
    world.hook.life.store(KILLS, Ordering::SeqCst);
    let over = Arc::new(AtomicBool::new(false));
    let followers: Vec<_> = (0..SUBSCRIBERS)
        .map(|_| {
            let (world, over, gateway) = (world.clone(), Arc::clone(&over), node.gateway);
            let follow = move || world.followers.follow_until_killed(gateway, KILLS, &over);
            std::thread::Builder::new().spawn(follow).expect("a thread")
        })
        .collect();
    let begun = now();
    let orders = world.orders.lock().expect("no panic").clone();
    loop {
        let mut line = Line::open(node.gateway).expect("a connection");
        let mut is_open = |(task, has_hook): (&String, &bool)| {
            let answer = line.call("/agents/shop", "GetTask", &json!({ "id": task }));
            let answer = answer.expect("an answer");
            let ended = answer["result"]["status"]["state"] == "TASK_STATE_COMPLETED";
            let heard = world.hook.heard(task);
            let heard = heard.last().is_some_and(|heard| heard.said == "completed");
            !ended || (*has_hook && !heard)
        };
        let open = orders.iter().find(|order| is_open(*order));
        let following = world.followers.open();
        if open.is_none() && following == 0 {
            break;
        }
        assert!(
            begun.elapsed() < FINISH,
            "{open:?} isn't over, {following} follow: {:?}",
            open.map(|(task, _)| world.hook.heard(task))
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    over.store(true, Ordering::SeqCst);
    node.kill();
    for follower in followers {
        follower.join().expect("no follower panics");
    }
}

/// What the journal has of each order against what the world, webhooks and subscribers know.
async fn compare(folder: &Path, world: &World) {
    let scene = Scene::at(&folder.join("journal")).await;
    let book = Book::of(folder).read();
    let orders = world.orders.lock().expect("no panic").clone();
    let followed = world.followers.take_done();
    let (mut redone, mut delivered, mut resumed) = (0, 0, 0);
    let mut truths = HashMap::new();
    for (task, has_hook) in &orders {
        let log = scene.journal.read("shop", task).await.expect("readable").expect("it's there");
        assert!(log.damage.is_empty(), "{:?}", log.damage);
        let receipts = receipts(&log);
        for deed in DEEDS {
            let times = &book[&(task.clone(), deed.to_owned())];
            // Nothing was done once that it was done was in the journal.
            assert_eq!(times.receipts.last(), receipts.get(deed), "{task}: {deed} was done again");
        }
        let by = DEEDS.iter().flat_map(|deed| &book[&(task.clone(), (*deed).to_owned())].by);
        redone += usize::from(by.collect::<HashSet<_>>().len() > 1);
        let truth = updates(&log);
        let expected = DEEDS.map(|deed| receipts[deed].as_str()).join(" ");
        let (_, answer) = &truth[truth.len() - 2];
        assert_eq!(*answer, format!("artifact {expected}"), "{task}");
        if *has_hook {
            let mut heard = world.hook.heard(task);
            delivered += usize::from(lives(&heard) > 1);
            // One that was taken just before a kill may come again, before what follows.
            heard.dedup_by_key(|heard| heard.event);
            assert_eq!(pairs(&heard), truth, "{task} at its webhook");
        }
        truths.insert(task.clone(), truth);
    }
    for follower in &followed {
        assert_eq!(pairs(&follower.heard), truths[&follower.task], "{}", follower.task);
        resumed += usize::from(lives(&follower.heard) > 1);
    }
    scene.stop().await;
    let few = KILLS / 10;
    let all = format!(
        "{} orders, {redone} worked on in several lives, {delivered} told to a webhook in several; \
         {} followed, {resumed} of them over a kill",
        orders.len(),
        followed.len()
    );
    println!("{all}");
    assert!(redone > few && delivered > few && resumed > few, "too little was cut off: {all}");
}

/// The results of effects that the journal has, by deed.
fn receipts(log: &TaskLog) -> HashMap<String, String> {
    let effects = log.entries.iter().filter(|entry| entry.kind == EntryKind::Effect);
    let mut all = HashMap::new();
    for entry in effects {
        let result = entry.parcel.clone().open::<EffectResult>().expect("a result");
        let receipt = serde_json::from_str(&result.get().json).expect("a text");
        let former = all.insert(entry.key.clone(), receipt);
        assert_eq!(former, None, "{} is in the journal twice", entry.key);
    }
    all
}

/// The updates that the journal has of a task: number, and what it says.
fn updates(log: &TaskLog) -> Vec<(u64, String)> {
    let events = log.entries.iter().filter(|entry| entry.kind == EntryKind::Event);
    let events = events.map(|entry| entry.parcel.clone().open::<TaskEvent>().expect("an event"));
    let mut updates = Vec::new();
    for (at, event) in events.enumerate() {
        let event = event.get();
        let generation = event.generation.to_native();
        assert_eq!(generation, at as u64 + 1, "the events are numbered without a gap");
        let said = match &event.change {
            ArchivedChange::Artifact { artifact, .. } => {
                let part = artifact.parts.first().map(|part| &part.content);
                let Some(neuroflow::actors::ArchivedContent::Text(text)) = part else {
                    panic!("no text")
                };
                format!("artifact {text}")
            }
            ArchivedChange::Status { .. } => {
                let told = told(event);
                told.split_once(' ').expect("a number first").1.to_owned()
            }
            _ => continue,
        };
        updates.push((generation, said));
    }
    updates
}

fn pairs(heard: &[Heard]) -> Vec<(u64, String)> {
    heard.iter().map(|heard| (heard.event, heard.said.clone())).collect()
}

fn lives(heard: &[Heard]) -> usize {
    heard.iter().map(|heard| heard.life).collect::<HashSet<_>>().len()
}

fn runtime() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().expect("a runtime starts")
}
