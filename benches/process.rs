//! The built binary: from its start until it's ready, and the memory that it has when idle.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Aim, Arguments, Figure, Samples, Unit, resident_bytes};

pub(crate) const FIGURES: &[&str] = &[START, IDLE];

const START: &str = "process/start";
const IDLE: &str = "process/idle-memory";

const START_AIM: Aim = Aim::AtMost(100_000_000.0);
const IDLE_AIM: Aim = Aim::AtMost(30_000_000.0);

/// Starts are slow and hardly vary.
const STARTS: usize = 20;
/// Each waits for [`SETTLED`].
const IDLES: usize = 3;
/// How long after its start a process counts as idle.
const SETTLED: Duration = Duration::from_secs(2);
/// A process that isn't ready by then won't be.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks whether it's ready: a thousandth of the aim.
const PAUSE: Duration = Duration::from_micros(100);

pub(crate) fn measure(arguments: &Arguments) -> Vec<Figure> {
    if !FIGURES.iter().any(|figure| arguments.wants(figure)) {
        return Vec::new();
    }
    let binary = env!("CARGO_BIN_EXE_neuroflow");
    if !cfg!(feature = "server") {
        println!("the process isn't measured: this build is without the feature server");
        return Vec::new();
    }
    let mut figures = Vec::new();
    if arguments.wants(START) {
        let mut starts = Samples::new(Unit::Nanoseconds);
        for _ in 0..arguments.iterations.min(STARTS) {
            let (node, took) = Node::start(binary);
            starts.took(took, 1);
            node.stop();
        }
        figures.push(Figure::new(START, START_AIM, &starts));
    }
    if arguments.wants(IDLE) {
        let mut idle = Samples::new(Unit::Bytes);
        for _ in 0..arguments.iterations.min(IDLES) {
            let (node, _took) = Node::start(binary);
            std::thread::sleep(SETTLED);
            let bytes = node.resident_bytes();
            idle.push(u32::try_from(bytes).map(f64::from).expect("less than 4 GiB"));
            node.stop();
        }
        figures.push(Figure::new(IDLE, IDLE_AIM, &idle));
    }
    figures
}

/// `neuroflow serve` with everything that's on by default.
pub(crate) struct Node {
    process: Child,
    gateway: SocketAddr,
}

impl Node {
    fn start(binary: &str) -> (Self, Duration) {
        Self::start_with(binary, &["--journal-url", "memory"])
    }

    /// With more settings, as options.
    pub(crate) fn start_with(binary: &str, settings: &[&str]) -> (Self, Duration) {
        let [gateway, metrics] = free_ports();
        let mut command = Command::new(binary);
        command.arg("serve").env_clear();
        command.args(["--gateway-listen", &gateway.to_string()]);
        command.args(["--telemetry-metrics-listen", &metrics.to_string()]);
        command.args(["--control-socket", "off", "--log-filter", "error"]);
        command.args(settings);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let begun = Instant::now();
        let mut node = Self { process: command.spawn().expect("the binary starts"), gateway };
        while !is_ready(gateway) {
            let ended = node.process.try_wait().expect("a child can be waited for");
            assert!(ended.is_none(), "the node ended before it was ready: {ended:?}");
            assert!(begun.elapsed() < PATIENCE, "the node isn't ready after {PATIENCE:?}");
            std::thread::sleep(PAUSE);
        }
        (node, begun.elapsed())
    }

    /// Where its gateway listens.
    pub(crate) fn gateway(&self) -> SocketAddr {
        self.gateway
    }

    /// Its resident memory.
    pub(crate) fn resident_bytes(&self) -> u64 {
        resident_bytes(&self.process.id().to_string())
    }

    /// Ends it at once.
    pub(crate) fn kill(mut self) {
        self.process.kill().expect("a child can be killed");
        self.process.wait().expect("a child can be waited for");
    }

    pub(crate) fn stop(mut self) {
        let process = self.process.id().to_string();
        let asked = Command::new("kill").args(["-TERM", &process]).status();
        assert!(asked.expect("kill is there").success(), "the node is asked to stop");
        let ended = self.process.wait().expect("a child can be waited for");
        assert!(ended.success(), "the node stopped in good order: {ended}");
    }
}

impl Drop for Node {
    /// A failed assertion must not leave a node behind.
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            self.process.kill().expect("a child can be killed");
        }
    }
}

/// Both are free at once, so they differ; another process may still be faster, and then the node
/// doesn't start and the run ends.
fn free_ports() -> [SocketAddr; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    listeners.map(|listener| {
        let listener = listener.expect("there is a free port");
        listener.local_addr().expect("a bound socket has an address")
    })
}

fn is_ready(gateway: SocketAddr) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(gateway)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let request = "GET /readyz HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
}
