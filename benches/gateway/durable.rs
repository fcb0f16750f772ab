//! The built binary with all that production has: a journal that is on its device before anybody hears
//! of it, bearer tokens under a Cedar policy, and a trace of every request that a collector takes.
//! Beside it the servers of the official SDKs, which keep tasks in memory and have nothing of that.
//!
//! The journal lies in memory (`/dev/shm`) for the figures that an aim goes by, so that they are the
//! program's own, and where temporary files lie for those of the disk.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use neuroflow::actors::{FreshToken, TokenName};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use super::client::Clients;
use super::official::python::Python;
use super::{At, CONNECTIONS, MANY_REQUESTS, ONE_REQUESTS, RATE_LEAST, official, rounds};
use crate::process::Node;
use crate::support::{Aim, Arguments, Figure, Samples, Unit, WORKERS};

pub(super) const ONE: &str = "gateway/durable-latency-1";
pub(super) const MANY: &str = "gateway/durable-latency-64";
pub(super) const RATE: &str = "gateway/durable-rate-64";
pub(super) const DISK_ONE: &str = "gateway/disk-latency-1";
pub(super) const DISK_RATE: &str = "gateway/disk-rate-64";
pub(super) const MEMORY: &str = "gateway/durable-memory";

const ONE_AIM: Aim = Aim::AtMost(250_000.0);
const RUST: &str = "official Rust SDK, in memory";
const PYTHON: &str = "official Python SDK, in memory";
/// Rounds of the server in Python, which takes its time.
const PYTHON_ROUNDS: usize = 10;

pub(super) fn measure(arguments: &Arguments) -> Vec<Figure> {
    let quick = [ONE, MANY, RATE, DISK_ONE, DISK_RATE];
    if !quick.iter().any(|figure| arguments.wants(figure)) && !arguments.names(MEMORY) {
        return Vec::new();
    }
    if !cfg!(feature = "server") {
        println!("the durable node isn't measured: this build is without the feature server");
        return Vec::new();
    }
    let mut figures = Vec::new();
    let memory = Path::new("/dev/shm");
    if [ONE, MANY, RATE].iter().any(|figure| arguments.wants(figure)) {
        let names = Names { one: ONE, many: Some(MANY), rate: RATE };
        figures.extend(beside_the_sdks(memory, &names, true, arguments.iterations));
    }
    if [DISK_ONE, DISK_RATE].iter().any(|figure| arguments.wants(figure)) {
        let names = Names { one: DISK_ONE, many: None, rate: DISK_RATE };
        figures.extend(beside_the_sdks(&std::env::temp_dir(), &names, false, arguments.iterations));
    }
    if arguments.names(MEMORY) {
        let smoke = arguments.iterations == 1;
        figures.push(flat(memory, if smoke { SMOKE_TASKS } else { arguments.tasks }));
    }
    figures.retain(|figure| arguments.wants(&figure.name));
    figures
}

struct Names {
    one: &'static str,
    many: Option<&'static str>,
    rate: &'static str,
}

fn beside_the_sdks(place: &Path, names: &Names, aims: bool, iterations: usize) -> Vec<Figure> {
    let node = Durable::start(place, "echo", &[]);
    let runtime = runtime();
    let rust = At { address: runtime.block_on(official::rust::serve()), token: None };
    let python = if aims { Python::start() } else { None };
    let reached = |connections, requests| {
        let both = rounds([node.at(), rust], connections, requests, iterations);
        let third = python.as_ref().map(|python| {
            let at = At { address: python.address(), token: None };
            let [third] = rounds([at], connections, requests, iterations.min(PYTHON_ROUNDS));
            third
        });
        (both, third)
    };
    let beside = |figure: Figure, rust: &Samples, python: Option<&Samples>| {
        let figure = figure.beside(RUST, rust);
        match python {
            Some(python) => figure.beside(PYTHON, python),
            None => figure,
        }
    };
    let aim = |aim| if aims { aim } else { Aim::None };
    let ([ours, rust], python) = reached(1, ONE_REQUESTS);
    let one = Figure::new(names.one, aim(ONE_AIM), &ours.latencies);
    let python = python.as_ref();
    let mut figures = vec![beside(one, &rust.latencies, python.map(|python| &python.latencies))];
    let ([ours, rust], python) = reached(CONNECTIONS, MANY_REQUESTS);
    let python = python.as_ref();
    if let Some(name) = names.many {
        let many = Figure::new(name, Aim::None, &ours.latencies);
        let python = python.map(|python| &python.latencies);
        figures.push(beside(many, &rust.latencies, python));
    }
    let rate = Figure::new(names.rate, aim(Aim::Ahead(RATE_LEAST)), &ours.rates);
    figures.push(beside(rate, &rust.rates, python.map(|python| &python.rates)));
    node.stop();
    runtime.shutdown_background();
    figures
}

/// Tasks of which a node keeps so many, and what it has then of memory and of the disk: the least of each
/// part is a sample, and past the warm-up none may grow beyond its bound.
fn flat(place: &Path, tasks: usize) -> Figure {
    let kept = tasks / 20;
    let node = Durable::start(place, "echo", &["--journal-retain-tasks", &kept.to_string()]);
    let clients = Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let mut samples = Samples::new(Unit::Bytes);
    let (mut warm, mut done) = (0_u64, 0);
    clients.block_on(async {
        let mut clients = Clients::connect(node.address(), CONNECTIONS, Some(&node.token)).await;
        let begun = Instant::now();
        for part in 1..=PARTS {
            let each = tasks.div_ceil(PARTS * CONNECTIONS * ROUNDS_OF_A_PART);
            let (mut memory, mut peak) = (u64::MAX, 0);
            for _ in 0..ROUNDS_OF_A_PART {
                done += clients.ask(each).await.1.len();
                let resident = node.resident_bytes();
                (memory, peak) = (memory.min(resident), peak.max(resident));
            }
            let disk = node.journal_bytes();
            println!(
                "{MEMORY}: {done} tasks after {:.1?}: {} to {} of memory, {} of the journal",
                begun.elapsed(),
                Unit::Bytes.show(count_of(memory)),
                Unit::Bytes.show(count_of(peak)),
                Unit::Bytes.show(count_of(disk)),
            );
            if part <= WARM_PARTS {
                warm = warm.max(memory);
                continue;
            }
            samples.push(count_of(memory));
            assert!(memory <= warm + GROWTH_BYTES, "{memory} bytes of memory, {warm} when warm");
            assert!(peak <= warm + PEAK_BYTES, "{peak} bytes of memory, {warm} when warm");
            let bound = kept as u64 * TASK_DISK_BYTES + SEGMENTS_BYTES;
            assert!(disk <= bound, "{disk} bytes of the journal, for {kept} tasks that are kept");
        }
    });
    assert!(done >= tasks, "as many tasks as were meant");
    node.stop();
    Figure::new(MEMORY, Aim::None, &samples)
}

/// The index of the tasks that are kept is complete after these.
const WARM_PARTS: usize = 2;
/// What comes and goes within a part.
const PEAK_BYTES: u64 = 64 * 1024 * 1024;
/// What an allocator may scatter.
const GROWTH_BYTES: u64 = 12 * 1024 * 1024;
/// A task on the disk: its four events with their heads, and half as much again.
const TASK_DISK_BYTES: u64 = 2_048;
/// What isn't given back yet: the segment that is written, and those that wait for the next look.
const SEGMENTS_BYTES: u64 = 6 * 64 * 1024 * 1024;

fn count_of(bytes: u64) -> f64 {
    u32::try_from(bytes).map(f64::from).expect("less than 4 GiB")
}

const SMOKE_TASKS: usize = 12_800;
const PARTS: usize = 10;
/// So that no round takes longer than a client's patience.
const ROUNDS_OF_A_PART: usize = 10;

/// The binary, its collector, and its files.
pub(super) struct Durable {
    node: Node,
    token: String,
    collector: Collector,
    folder: PathBuf,
}

impl Durable {
    /// With one agent, and more settings as options.
    pub(super) fn start(place: &Path, agent: &str, more: &[&str]) -> Self {
        let folder = place.join(format!("neuroflow-gateway-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a directory can be made");
        let name = TokenName::new("bench").expect("a name");
        let token = FreshToken::generate(&name, &[], None).expect("there is randomness");
        let file = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).expect("a file can be written");
            path.to_str().expect("a path of letters").to_owned()
        };
        let tokens = file("tokens", &format!("{}\n", token.line()));
        let policies = file("policies.cedar", POLICIES);
        let journal = format!("file://{}", folder.join("journal").display());
        let collector = Collector::start();
        let endpoint = format!("http://{}", collector.address);
        let mut settings = vec!["--journal-url", &journal, "--agents-enabled", agent];
        settings.extend(["--auth-tokens", &tokens, "--policy-file", &policies]);
        settings.extend(["--telemetry-otlp-endpoint", &endpoint]);
        settings.extend(more);
        let (node, _took) = Node::start_with(env!("CARGO_BIN_EXE_neuroflow"), &settings);
        let token = token.secret().to_owned();
        Self { node, token, collector, folder }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.node.gateway()
    }

    pub(super) fn token(&self) -> &str {
        &self.token
    }

    pub(super) fn resident_bytes(&self) -> u64 {
        self.node.resident_bytes()
    }

    fn at(&self) -> At<'_> {
        At { address: self.address(), token: Some(&self.token) }
    }

    /// Bytes of the journal's files.
    fn journal_bytes(&self) -> u64 {
        journal_bytes(&self.folder)
    }

    /// Says whether the journal and the traces were really there.
    pub(super) fn stop(self) {
        let Self { node, collector, folder, .. } = self;
        node.stop();
        assert_ne!(collector.bytes.load(Ordering::Relaxed), 0, "the collector got traces");
        let bytes = journal_bytes(&folder);
        assert_ne!(bytes, 0, "the journal has something");
        std::fs::remove_dir_all(&folder).expect("a directory can be removed");
        collector.runtime.shutdown_timeout(Duration::from_secs(1));
    }
}

fn journal_bytes(folder: &Path) -> u64 {
    let journal = std::fs::read_dir(folder.join("journal")).expect("there is a journal");
    journal.flatten().filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
}

/// Of three, so that there is something to decide.
const POLICIES: &str = r#"
@id("bench")
permit(principal == Token::"bench", action in [Action::"ask", Action::"read", Action::"cancel"],
    resource is Agent);
@id("tools")
permit(principal == Token::"bench", action in [Action::"call_tool", Action::"run_level"], resource);
@id("nobody")
forbid(principal == Token::"nobody", action, resource);
"#;

/// Takes whatever an exporter of spans sends.
struct Collector {
    address: SocketAddr,
    bytes: Arc<AtomicU64>,
    runtime: Runtime,
}

impl Collector {
    fn start() -> Self {
        let runtime = runtime();
        let bytes = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&bytes);
        let address = runtime.block_on(async {
            let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let listener = TcpListener::bind(anywhere).await.expect("a free port");
            let address = listener.local_addr().expect("a bound socket has an address");
            let take = post(move |body: Bytes| async move {
                counted.fetch_add(body.len() as u64, Ordering::Relaxed);
            });
            let router = Router::new().route("/v1/traces", take);
            tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
            address
        });
        Self { address, bytes, runtime }
    }
}

fn runtime() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(WORKERS).enable_all().build().expect("a runtime starts")
}
