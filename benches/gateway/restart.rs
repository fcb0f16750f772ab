//! The built binary with many tasks in its journal: from its execution until `/readyz` says yes, after a
//! stop in good order and after a kill that leaves no index of its last run.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::runtime::Builder;

use super::client::Clients;
use super::{CONNECTIONS, MANY_REQUESTS};
use crate::process::Node;
use crate::support::{Aim, Arguments, Figure, Samples, Unit};

pub(super) const CLEAN: &str = "gateway/restart";
pub(super) const KILLED: &str = "gateway/restart-after-kill";

const AIM: Aim = Aim::AtMost(2_000_000_000.0);
/// Tasks that a start finds.
const TASKS: usize = 100_000;
/// A start is slow and hardly varies.
const STARTS: usize = 5;

pub(super) fn measure(arguments: &Arguments) -> Vec<Figure> {
    if ![CLEAN, KILLED].iter().any(|figure| arguments.wants(figure)) {
        return Vec::new();
    }
    if !cfg!(feature = "server") {
        println!("restarts aren't measured: this build is without the feature server");
        return Vec::new();
    }
    let folder = Folder::new();
    let tasks = if arguments.iterations == 1 { TASKS / 100 } else { TASKS };
    let node = folder.start().0;
    let tasks = fill(&node, tasks);
    let starts = arguments.iterations.min(STARTS);
    let mut killed = Samples::new(Unit::Nanoseconds);
    node.kill();
    for _ in 0..starts {
        let (node, took) = folder.start();
        assert_eq!(tasks_of(node.gateway()), tasks, "every task is there after a kill");
        killed.took(took, 1);
        // Soon enough that no index was written meanwhile: the next start reads as much.
        node.kill();
    }
    folder.start().0.stop();
    let mut clean = Samples::new(Unit::Nanoseconds);
    for _ in 0..starts {
        let (node, took) = folder.start();
        assert_eq!(tasks_of(node.gateway()), tasks, "every task is there after a stop");
        clean.took(took, 1);
        node.stop();
    }
    let mut figures = vec![Figure::new(CLEAN, AIM, &clean), Figure::new(KILLED, AIM, &killed)];
    figures.retain(|figure| arguments.wants(&figure.name));
    figures
}

/// As many tasks as were meant, or a few more; says how many.
fn fill(node: &Node, tasks: usize) -> usize {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    runtime.block_on(async {
        let mut clients = Clients::connect(node.gateway(), CONNECTIONS, None).await;
        let mut done = 0;
        while done < tasks {
            let left = (tasks - done).div_ceil(CONNECTIONS);
            done += clients.ask(left.min(10 * MANY_REQUESTS)).await.1.len();
        }
        done
    })
}

/// How many tasks the node lists.
fn tasks_of(gateway: SocketAddr) -> usize {
    let mut stream = TcpStream::connect(gateway).expect("the node accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a TCP socket");
    let request = "GET /tasks?pageSize=1 HTTP/1.1\r\nhost: 127.0.0.1\r\na2a-version: 1.0\r\n\
                   connection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("the node reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the node answers");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let page: Page = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"));
    page.total
}

/// Time in which a list of tasks has to be answered.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(serde::Deserialize)]
struct Page {
    #[serde(rename = "totalSize")]
    total: usize,
}

/// A directory on the disk of the system's temporary files.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let name = format!("neuroflow-restart-of-binary-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a directory can be made");
        Self(path)
    }

    /// The binary on the journal in it, and how long it took until it was ready.
    fn start(&self) -> (Node, Duration) {
        let journal = format!("file://{}", Path::new(&self.0).join("journal").display());
        let settings = ["--journal-url", &journal, "--agents-enabled", "echo"];
        Node::start_with(env!("CARGO_BIN_EXE_neuroflow"), &settings)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).expect("a directory can be removed");
    }
}
