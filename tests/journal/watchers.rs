//! Who hears of a task over the lives of its node: a webhook, and subscribers that come back.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use crate::killable::{Line, Told};

/// What was heard of a task: number of the event and what it says, and in which life of the node.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) event: u64,
    pub(crate) said: String,
    pub(crate) life: usize,
}

/// An update of a task in a few words.
pub(crate) fn said(update: &Value) -> String {
    let artifact = &update["artifactUpdate"]["artifact"]["parts"][0]["text"];
    if let Some(text) = artifact.as_str() {
        return format!("artifact {text}");
    }
    let status = &update["statusUpdate"]["status"];
    let state = status["state"].as_str().unwrap_or_else(|| panic!("no update: {update}"));
    let state = state.trim_start_matches("TASK_STATE_").to_ascii_lowercase();
    match status["message"]["parts"][0]["text"].as_str() {
        Some(text) => format!("{state} {text}"),
        None => state,
    }
}

/// A webhook that takes everything, and outlives the node.
pub(crate) struct Hook {
    address: SocketAddr,
    heard: Arc<Mutex<HashMap<String, Vec<Heard>>>>,
    pub(crate) life: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Hook {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let heard = Arc::new(Mutex::new(HashMap::<_, Vec<_>>::new()));
        let (life, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (book, now, end) = (Arc::clone(&heard), Arc::clone(&life), Arc::clone(&over));
        let listen = move || {
            for stream in listener.incoming() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                // Of a node that is killed while it posts nothing is heard.
                let stream = stream.expect("a connection");
                let Some((task, event, said)) = take(&stream) else { continue };
                let heard = Heard { event, said, life: now.load(Ordering::SeqCst) };
                book.lock().expect("no panic").entry(task).or_default().push(heard);
                let _gone = (&stream).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
            }
        };
        let thread = std::thread::Builder::new().spawn(listen).expect("a thread");
        Self { address, heard, life, over, thread: Some(thread) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    pub(crate) fn heard(&self, task: &str) -> Vec<Heard> {
        self.heard.lock().expect("no panic").get(task).cloned().unwrap_or_default()
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let woken = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take()
            && woken.is_ok()
        {
            let _ended = thread.join();
        }
    }
}

/// Task, event and what it says.
fn take(stream: &TcpStream) -> Option<(String, u64, String)> {
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    let mut reader = BufReader::new(stream);
    let (mut length, mut id) = (None, None);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            if line.trim_end().is_empty() {
                break;
            }
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok(),
            "x-a2a-notification-id" => id = Some(value.to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; length?];
    reader.read_exact(&mut body).ok()?;
    let id = id.expect("a notification has an id");
    let (task, event) = id.rsplit_once('/').expect("a task and a number");
    let body = serde_json::from_slice(&body).expect("JSON");
    Some((task.to_owned(), event.parse().expect("a number"), said(&body)))
}

/// A subscriber of one task, which comes back with the last event that it has.
#[derive(Debug, Default)]
pub(crate) struct Follower {
    pub(crate) task: String,
    pub(crate) heard: Vec<Heard>,
    over: bool,
}

impl Follower {
    /// Follows until the task ends or the node does.
    fn follow(&mut self, gateway: SocketAddr, life: usize) {
        let last = self.heard.last().map_or(0, |heard| heard.event);
        let Some(line) = Line::open(gateway) else { return };
        let params = json!({ "id": self.task });
        let events = line.events("/agents/shop", "SubscribeToTask", &params, last);
        let Some(mut events) = events else { return };
        loop {
            match events.next() {
                Told::Event { id, data } => {
                    let said = said(&data["result"]);
                    self.heard.push(Heard { event: id, said, life });
                }
                Told::End => {
                    self.over = true;
                    return;
                }
                Told::CutOff => return,
            }
        }
    }
}

/// All subscribers.
#[derive(Default)]
pub(crate) struct Followers(Mutex<Taken>);

#[derive(Default)]
struct Taken {
    fresh: Vec<String>,
    open: VecDeque<Follower>,
    done: Vec<Follower>,
}

impl Followers {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().expect("no follower panics")
    }

    /// A task that has just begun.
    pub(crate) fn hear_of(&self, task: &str) {
        self.lock().fresh.push(task.to_owned());
    }

    /// How many subscribers follow a task that hasn't ended for them.
    pub(crate) fn open(&self) -> usize {
        self.lock().open.len()
    }

    /// Those whose task has ended for them.
    pub(crate) fn take_done(&self) -> Vec<Follower> {
        std::mem::take(&mut self.lock().done)
    }

    /// Follows one task after the other: first those that were cut off, then the newest.
    pub(crate) fn follow_until_killed(&self, gateway: SocketAddr, life: usize, over: &AtomicBool) {
        while !over.load(Ordering::SeqCst) {
            let mut taken = self.lock();
            let follower = taken.open.pop_front().or_else(|| {
                let task = taken.fresh.pop()?;
                // Those before it are somebody's who wasn't interested.
                taken.fresh.clear();
                Some(Follower { task, ..Follower::default() })
            });
            drop(taken);
            let Some(mut follower) = follower else {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            };
            follower.follow(gateway, life);
            let mut taken = self.lock();
            if follower.over { taken.done.push(follower) } else { taken.open.push_back(follower) }
        }
    }
}
