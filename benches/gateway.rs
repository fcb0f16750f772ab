//! `SendMessage` to the agent `echo` through a real node, beside a bare axum handler of the same
//! shape: it parses the same JSON and answers a task of the same size, and does nothing else. Then
//! streams, a node with all that production has, and one that is started anew with many tasks.
//!
//! All servers and the clients share this machine's cores; each server has a runtime of its own,
//! and the clients a thread of their own.

mod bare;
mod client;
mod durable;
mod official;
mod restart;
mod streams;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use neuroflow::{AnyAgent, Echo, Node};
use tokio::runtime::{Builder, Runtime};

use self::client::Clients;
use crate::counting::Counting;
use crate::support::{Aim, Arguments, Figure, Samples, Unit, WORKERS};

pub(crate) const FIGURES: &[&str] = &[
    ONE,
    MANY,
    RATE,
    streams::FIRST,
    streams::OPEN,
    streams::ALL,
    durable::ONE,
    durable::MANY,
    durable::RATE,
    durable::DISK_ONE,
    durable::DISK_RATE,
    durable::MEMORY,
    restart::CLEAN,
    restart::KILLED,
];

const ONE: &str = "gateway/latency-1";
const MANY: &str = "gateway/latency-64";
const RATE: &str = "gateway/rate-64";

/// Connections of the second and third figure.
const CONNECTIONS: usize = 64;
/// Requests of one round over one connection.
const ONE_REQUESTS: usize = 20;
/// Requests of one round over each of the many connections.
const MANY_REQUESTS: usize = 10;

const ONE_AIM: Aim = Aim::AtMost(200_000.0);
const RATE_LEAST: f64 = 8_000.0;
const BARE: &str = "bare axum";

pub(crate) fn measure(arguments: &Arguments) -> Vec<Figure> {
    let wants = |figures: &[&str]| figures.iter().any(|figure| arguments.wants(figure));
    let mut figures = streams::measure(arguments);
    figures.extend(durable::measure(arguments));
    figures.extend(restart::measure(arguments));
    if !wants(&[ONE, MANY, RATE]) {
        return figures;
    }
    let servers = Servers::start();
    if wants(&[ONE]) {
        let [ours, bare] = rounds(servers.all(), 1, ONE_REQUESTS, arguments.iterations);
        let figure = Figure::new(ONE, ONE_AIM, &ours.latencies);
        figures.push(figure.beside(BARE, &bare.latencies));
    }
    if wants(&[MANY, RATE]) {
        let [ours, bare] = rounds(servers.all(), CONNECTIONS, MANY_REQUESTS, arguments.iterations);
        if wants(&[MANY]) {
            let figure = Figure::new(MANY, Aim::None, &ours.latencies);
            figures.push(figure.beside(BARE, &bare.latencies));
        }
        if wants(&[RATE]) {
            let figure = Figure::new(RATE, Aim::AtLeast(RATE_LEAST), &ours.rates);
            figures.push(figure.beside(BARE, &bare.rates));
        }
    }
    servers.stop();
    figures
}

/// What one server reached.
struct Reached {
    latencies: Samples,
    rates: Samples,
}

/// A server, and the token that it wants.
#[derive(Clone, Copy)]
struct At<'a> {
    address: SocketAddr,
    token: Option<&'a str>,
}

/// Rounds of requests to all servers in turn; the first round warms up and isn't counted.
fn rounds<const SERVERS: usize>(
    servers: [At<'_>; SERVERS],
    connections: usize,
    requests: usize,
    iterations: usize,
) -> [Reached; SERVERS] {
    let mut reached = std::array::from_fn(|_| Reached {
        latencies: Samples::new(Unit::Nanoseconds),
        rates: Samples::new(Unit::PerSecond),
    });
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    runtime.block_on(async {
        let mut clients = Vec::new();
        for At { address, token } in servers {
            clients.push(Clients::connect(address, connections, token).await);
        }
        for round in 0..=iterations {
            for turn in 0..clients.len() {
                let at = (round + turn) % clients.len();
                let (took, latencies) = clients[at].ask(requests).await;
                if round > 0 {
                    reached[at].rates.took(took, latencies.len());
                    for one in latencies {
                        reached[at].latencies.took(one, 1);
                    }
                }
            }
        }
    });
    reached
}

struct Servers {
    ours: SocketAddr,
    bare: SocketAddr,
    node: Node,
    node_runtime: Runtime,
    bare_runtime: Runtime,
    observer: Arc<Counting>,
}

impl Servers {
    fn start() -> Self {
        let runtime = || {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(WORKERS).enable_all().build().expect("a runtime starts")
        };
        let (node_runtime, bare_runtime) = (runtime(), runtime());
        let observer = Arc::new(Counting::default());
        let builder = Node::builder()
            .agent(AnyAgent::new(Echo))
            .observer(Arc::clone(&observer) as _)
            .gateway(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let node = node_runtime.block_on(builder.start()).expect("the node starts");
        let ours = node.gateway().expect("the node has a gateway");
        let bare = bare_runtime.block_on(bare::serve());
        Self { ours, bare, node, node_runtime, bare_runtime, observer }
    }

    fn all(&self) -> [At<'static>; 2] {
        [self.ours, self.bare].map(|address| At { address, token: None })
    }

    fn stop(self) {
        assert_ne!(self.observer.handled(), 0, "the observer has counted");
        assert!(self.node_runtime.block_on(self.node.stop_within(STOP)), "the node stops");
        self.bare_runtime.shutdown_background();
    }
}

/// Time that the node gets to drain.
const STOP: Duration = Duration::from_secs(30);
