//! What membership costs and how fast it is, with real links: `cargo bench -p neuroflow-transport --bench cluster`.
//!
//! All nodes but one are in this process, each with a kernel, a socket and a link to each other one; the last is a
//! process of its own, which joins by one seed and is killed. `NEUROFLOW_BENCH_NODES` says how many there are
//! (50), `NEUROFLOW_BENCH_SECONDS` for how long the idle cluster is watched (10). How long each change took is
//! printed once every node has been seen to agree on who is there.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::expect_used,
    reason = "a benchmark starts processes, reads the machine's clock, prints, and may fail"
)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use neuroflow_kernel::Kernel;
use neuroflow_transport::{Authority, Credential, LinkState, Links, LinksConfig, Trust};

/// Newcomers that come and are killed.
const ROUNDS: usize = 3;

/// Nothing takes this long.
const LONG: Duration = Duration::from_mins(2);

/// How often all nodes are looked at, which takes time of its own.
const LOOK: Duration = Duration::from_millis(25);

struct Node {
    kernel: Kernel,
    links: Links,
}

impl Node {
    async fn start(who: Credential, authority: &str, seed: Option<SocketAddr>) -> Self {
        let kernel = Kernel::builder().start().await.expect("a kernel");
        let trust = Trust::from_pem(authority).expect("PEM");
        let config = LinksConfig::new("127.0.0.1:0".parse().expect("an address"), who, trust);
        let config = seed.into_iter().fold(config, LinksConfig::seed);
        let (spec, links) = config.child(kernel.clock().clone()).expect("links");
        kernel.root().start(spec).await.expect("a socket");
        Self { kernel, links }
    }

    fn address(&self) -> SocketAddr {
        self.links.local_address().expect("it listens")
    }

    /// Whom it counts as there.
    fn there(&self) -> BTreeSet<String> {
        let members = self.links.members().into_iter();
        members.filter(|member| member.state.is_active()).map(|it| it.name.to_string()).collect()
    }

    fn links_up(&self) -> usize {
        self.links.status().iter().filter(|link| link.state == LinkState::Up).count()
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    match arguments.first().map(String::as_str) {
        Some("newcomer") => runtime.block_on(newcomer()),
        _ => runtime.block_on(measure()),
    }
}

fn number(name: &str, usual: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

async fn until(what: &str, done: impl Fn() -> bool) -> Duration {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < LONG, "never came: {what}");
        tokio::time::sleep(LOOK).await;
    }
    start.elapsed()
}

async fn measure() {
    let count = number("NEUROFLOW_BENCH_NODES", 50);
    assert!(count >= 3, "a newcomer needs a cluster");
    let authority = Authority::create("bench", SystemTime::now()).expect("an authority");
    let issue = |name: &str| {
        let day = Duration::from_hours(24);
        authority.issue(name, &[], day, SystemTime::now()).expect("a node")
    };
    let mut names = BTreeSet::new();
    let mut nodes: Vec<Node> = Vec::new();
    let begun = Instant::now();
    for nth in 1..count {
        let name = format!("node-{nth}");
        let seed = nodes.first().map(Node::address);
        nodes.push(Node::start(issue(&name), authority.certificate_pem(), seed).await);
        names.insert(name);
    }
    let agree = |names: &BTreeSet<String>| nodes.iter().all(|node| node.there() == *names);
    let linked = || nodes.iter().all(|node| node.links_up() == count - 2);
    until("a cluster", || agree(&names) && linked()).await;
    println!("{} nodes started and linked  {:.1} s", count - 1, begun.elapsed().as_secs_f64());

    for (round, seed) in nodes.iter().map(Node::address).enumerate().take(ROUNDS) {
        let name = format!("newcomer-{round}");
        let (mut child, up) = start(&issue(&name), &authority, seed, count);
        let mut with = names.clone();
        with.insert(name);
        until("that all know the newcomer", || agree(&with)).await;
        let all = up.elapsed();
        // It says so itself, once it knows as many.
        let mut said = String::new();
        let output = child.stdout.as_mut().expect("it's piped");
        BufReader::new(output.by_ref()).read_line(&mut said).expect("text");
        assert_eq!(said.trim(), "all");
        let both = up.elapsed();
        println!("join: known by all {:.2} s, knows all {:.2} s", s(all), s(both));

        child.kill().expect("it runs");
        let killed = Instant::now();
        child.wait().expect("it was started here");
        until("that all have lost it", || agree(&names)).await;
        println!("kill: lost by all {:.2} s", s(killed.elapsed()));
    }

    let watched = Duration::from_secs(number("NEUROFLOW_BENCH_SECONDS", 10) as u64);
    let (before, start) = (spent(), Instant::now());
    tokio::time::sleep(watched).await;
    let took = s(spent().saturating_sub(before)) / s(start.elapsed());
    let share = took / f64::from(u32::try_from(nodes.len()).expect("few nodes"));
    // On a machine with much else to do somebody may just be suspected.
    until("that the idle cluster is together", || agree(&names) && linked()).await;
    println!("idle: {:.2} % of a core per node, with {} links each", share * 100.0, count - 2);
    println!("idle: {} KiB per node", resident_kib() / nodes.len() as u64);
    for node in nodes {
        node.kernel.stop().await;
    }
}

fn s(time: Duration) -> f64 {
    time.as_secs_f64()
}

/// Starts the newcomer; says when it listened.
fn start(
    who: &Credential,
    authority: &Authority,
    seed: SocketAddr,
    count: usize,
) -> (Child, Instant) {
    let mut child = Command::new(std::env::current_exe().expect("a path"))
        .arg("newcomer")
        .env("BENCH_AUTHORITY", authority.certificate_pem())
        .env("BENCH_CERTIFICATE", who.certificate_pem())
        .env("BENCH_KEY", who.key_pem())
        .env("BENCH_SEED", seed.to_string())
        .env("BENCH_COUNT", count.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program runs");
    let mut up = [0; 3];
    child.stdout.as_mut().expect("it's piped").read_exact(&mut up).expect("it says that it's up");
    assert_eq!(&up, b"up\n");
    (child, Instant::now())
}

async fn newcomer() {
    let text = |name: &str| std::env::var(name).expect("its parent has set it");
    let who = Credential::from_pem(&text("BENCH_CERTIFICATE"), &text("BENCH_KEY"));
    let seed = text("BENCH_SEED").parse().expect("an address");
    let count = text("BENCH_COUNT").parse().expect("a number");
    let node = Node::start(who.expect("PEM"), &text("BENCH_AUTHORITY"), Some(seed)).await;
    println!("up");
    until("all", || node.there().len() == count).await;
    println!("all");
    // Until it's killed, or its parent is.
    let parent = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    let _gone = parent.await;
}

/// Processor time of this process.
fn spent() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("/proc can be read");
    let after = stat.rsplit_once(')').expect("it has a name").1;
    let ticks = after.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    Duration::from_millis(ticks.map(|ticks| ticks.expect("a number") * 10).sum())
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default()
}
