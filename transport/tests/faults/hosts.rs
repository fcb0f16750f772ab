//! Hosts made of network namespaces, what joins them, and the processes on them.
//!
//! A namespace lives as long as a process in it, and each process ends when its standard input
//! does: whatever becomes of the tests, nothing is left behind.
#![expect(
    clippy::disallowed_methods,
    reason = "the tests start processes of their own, and check certificates by the machine's time"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use neuroflow_transport::{Authority, Credential};

pub(crate) use crate::eventually::eventually_blocking as until;
use crate::untried::untried;

/// Where nodes listen on their hosts.
pub(crate) const PORT: u16 = 7_946;

/// Doors of the wire are at this port and the number of the host behind it.
pub(crate) const DOORS: u16 = 7_000;

/// Who is kept from running for longer may be taken for dead.
const STALLED_MS: u64 = 500;

/// Memory that a node may grow by, whatever happens to it.
const GROWTH_KIB: u64 = 96 * 1024;

/// A process that takes lines and answers each with one.
pub(crate) struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    name: String,
}

/// What a line says: names and numbers.
pub(crate) type Said = BTreeMap<String, u64>;

impl Program {
    fn start(name: &str, command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().expect("it's piped"));
        let mut program = Self { child, stdin, stdout, name: name.to_owned() };
        program.line();
        program
    }

    /// Its next line of ours: the test harness around it says something too.
    fn line(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            let read = self.stdout.read_line(&mut line).expect("text");
            assert!(read > 0, "{} has ended", self.name);
            if let Some((_, said)) = line.split_once("= ") {
                return said.trim().to_owned();
            }
        }
    }

    pub(crate) fn tell(&mut self, line: &str) -> String {
        let stdin = self.stdin.as_mut().expect("it runs");
        writeln!(stdin, "{line}").unwrap_or_else(|error| panic!("{}: {error}", self.name));
        self.line()
    }

    pub(crate) fn numbers(&mut self, line: &str) -> Said {
        let said = self.tell(line);
        let pairs = said.split_whitespace().filter_map(|pair| pair.split_once('='));
        pairs.map(|(name, number)| (name.to_owned(), number.parse().expect("a number"))).collect()
    }

    pub(crate) fn signal(&self, signal: &str) {
        let kill = format!("kill -{signal} {}", self.child.id());
        let done = Command::new("sh").args(["-c", &kill]).status().expect("there is a shell");
        assert!(done.success(), "{kill}");
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it was started here");
    }

    /// Ends in good order.
    pub(crate) fn finish(mut self) {
        drop(self.stdin.take());
        self.child.wait().expect("it was started here");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// A namespace, as the process that keeps it.
struct Namespace(Program);

impl Namespace {
    fn create(name: &str) -> Self {
        let script = "ip link set lo up && echo '= up' && exec cat";
        let mut command = Command::new("unshare");
        Self(Program::start(name, command.args(["--net", "sh", "-c", script])))
    }

    fn path(&self) -> String {
        format!("--net=/proc/{}/ns/net", self.0.child.id())
    }

    fn run(&self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let done = Command::new("nsenter").arg(self.path()).args(words).output().expect("nsenter");
        assert!(done.status.success(), "{line}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

/// Hosts, numbered from 1, and the wire between them.
pub(crate) struct Hosts {
    hosts: Vec<Namespace>,
    wire: Program,
    middle: Namespace,
    authority: Authority,
    folder: PathBuf,
}

impl Hosts {
    /// Nothing where there can be none.
    pub(crate) fn create(count: u8, seed: u64) -> Option<Self> {
        static TESTS: AtomicU32 = AtomicU32::new(0);
        let can = Command::new("unshare").args(["--net", "ip", "link", "set", "lo", "up"]).output();
        if !can.as_ref().is_ok_and(|output| output.status.success()) {
            untried("faults of links", "needs root, network namespaces and iproute2");
            return None;
        }
        let middle = Namespace::create("the middle");
        let hosts = (1..=count).map(|number| {
            let host = Namespace::create(&format!("host {number}"));
            let peer = host.0.child.id();
            middle.run(&format!("ip link add h{number} type veth peer name eth0 netns {peer}"));
            middle.run(&format!("ip address add 10.77.{number}.1/24 dev h{number}"));
            middle.run(&format!("ip link set h{number} up"));
            host.run(&format!("ip address add 10.77.{number}.2/24 dev eth0"));
            host.run("ip link set eth0 up");
            host
        });
        let hosts: Vec<Namespace> = hosts.collect();
        let mut command = in_namespace(&middle, &[]);
        command.env("FAULTS_ROLE", "wire").env("FAULTS_SEED", seed.to_string());
        let wire = Program::start("the wire", command.env("FAULTS_HOSTS", count.to_string()));
        let own = format!("{}-{}", std::process::id(), TESTS.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(format!("neuroflow-faults-{own}"));
        std::fs::create_dir_all(&folder).expect("a folder");
        let authority = Authority::create("faults", SystemTime::now()).expect("an authority");
        Some(Self { hosts, wire, middle, authority, folder })
    }

    pub(crate) fn credential(&self, name: &str) -> Credential {
        let hour = Duration::from_hours(1);
        self.authority.issue(name, &[], hour, SystemTime::now()).expect("a node")
    }

    /// Starts a node on a host. `before` are programs that start it in their turn.
    pub(crate) fn node(&self, host: usize, who: &Credential, before: &[&str]) -> Node {
        let mut command = in_namespace(&self.hosts[host - 1], before);
        command
            .env("FAULTS_ROLE", "node")
            .env("FAULTS_LISTEN", format!("10.77.{host}.2:{PORT}"))
            .env("FAULTS_AUTHORITY", self.authority.certificate_pem())
            .env("FAULTS_CERTIFICATE", who.certificate_pem())
            .env("FAULTS_KEY", who.key_pem())
            .env("FAULTS_LEDGER", self.folder.join(format!("host-{host}")));
        let name = format!("node {} on host {host}", who.name());
        let mut program = Program::start(&name, &mut command);
        let kib = program.numbers("memory")["kib"];
        Node { program, host, kib }
    }

    /// What happens to packets from one host to another from now on: `loss=100 delay=20`, in
    /// thousandths, milliseconds and bytes; nothing for a clean wire. Says how many it has spoilt
    /// since the last time.
    pub(crate) fn path(&mut self, from: usize, to: usize, rules: &str) -> u64 {
        self.wire.numbers(&format!("{from} {to} {rules}"))["spoilt"]
    }

    pub(crate) fn both_ways(&mut self, one: usize, other: usize, rules: &str) -> u64 {
        self.path(one, other, rules) + self.path(other, one, rules)
    }

    /// Does something with a host's network card.
    pub(crate) fn card(&self, host: usize, what: &str) {
        self.hosts[host - 1].run(&format!("ip link set eth0 {what}"));
    }

    /// The same with the wire's end of the cable.
    pub(crate) fn cable(&self, host: usize, what: &str) {
        self.middle.run(&format!("ip link set h{host} {what}"));
    }

    /// How many calls the nodes of a host have handled over all their lives, none of them twice.
    pub(crate) fn handled(&self, host: usize) -> u64 {
        self.ids(host).len() as u64
    }

    /// How many calls the nodes of two hosts have both handled.
    pub(crate) fn handled_by_both(&self, one: usize, other: usize) -> usize {
        self.ids(one).intersection(&self.ids(other)).count()
    }

    fn ids(&self, host: usize) -> BTreeSet<u64> {
        let ledger = self.folder.join(format!("host-{host}"));
        let ledger = std::fs::read(ledger).unwrap_or_default();
        let (ids, _) = ledger.as_chunks::<8>();
        let distinct: BTreeSet<u64> = ids.iter().map(|id| u64::from_le_bytes(*id)).collect();
        assert_eq!(distinct.len(), ids.len(), "calls that were delivered twice");
        distinct
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let _left = std::fs::remove_dir_all(&self.folder);
    }
}

/// This binary, as a process of a namespace.
fn in_namespace(namespace: &Namespace, before: &[&str]) -> Command {
    let own = std::env::current_exe().expect("this program has a path");
    let mut command = Command::new("nsenter");
    command.arg(namespace.path()).args(before).arg(own);
    command.args(["--exact", crate::STAGE, "--nocapture"]);
    command
}

/// A node as a process.
pub(crate) struct Node {
    pub(crate) program: Program,
    host: usize,
    kib: u64,
}

impl Node {
    /// Dials a host through the wire.
    pub(crate) fn dial(&mut self, host: usize) {
        let door = DOORS + u16::try_from(host).expect("few hosts");
        self.program.tell(&format!("dial 10.77.{}.1:{door}", self.host));
    }

    pub(crate) fn is_up(&mut self, node: &str) -> bool {
        self.program.numbers(&format!("state {node}"))["up"] == 1
    }

    pub(crate) fn reconnects(&mut self, node: &str) -> u64 {
        self.program.numbers(&format!("state {node}"))["reconnects"]
    }

    pub(crate) fn has_link_to(&mut self, node: &str) {
        until(format!("a link to {node}"), || self.is_up(node));
    }

    pub(crate) fn has_lost(&mut self, node: &str) {
        until(format!("the loss of {node}"), || !self.is_up(node));
    }

    /// Whether it counts this one as there.
    pub(crate) fn counts(&mut self, node: &str) -> bool {
        self.program.numbers(&format!("member {node}"))["active"] == 1
    }

    /// What it says of this one's membership, in lower case.
    pub(crate) fn state_of(&mut self, node: &str) -> String {
        self.program.tell(&format!("membership {node}"))
    }

    /// How often this one was there and then wasn't.
    pub(crate) fn went(&mut self, node: &str) -> u64 {
        self.program.numbers(&format!("member {node}"))["went"]
    }

    /// Whether the machine has kept it from running for so long that it may be taken for dead.
    pub(crate) fn was_stalled(&mut self) -> bool {
        self.program.numbers("stall")["ms"] > STALLED_MS
    }

    /// An actor of this node watches that one, each time by a watch of its own.
    pub(crate) fn watch(&mut self, target: &str) {
        self.program.tell(&format!("watch {target}"));
    }

    /// How the watches of this one have ended, as a number for each reason, and how many there were.
    pub(crate) fn falls(&mut self, target: &str) -> Said {
        self.program.numbers(&format!("falls {target}"))
    }

    /// So many callers that ask an actor again and again.
    pub(crate) fn ask(&mut self, load: &str, target: &str, callers: u32, deadline: Duration) {
        let deadline = deadline.as_millis();
        self.program.tell(&format!("ask {load} {target} {callers} {deadline}"));
    }

    /// What they have seen so far.
    pub(crate) fn so_far(&mut self, load: &str) -> Said {
        self.program.numbers(&format!("so-far {load}"))
    }

    pub(crate) fn answers(&mut self, load: &str, more: u64) {
        let before = self.so_far(load)["answered"];
        until("answers", || self.so_far(load)["answered"] >= before + more);
    }

    /// Ends the load, when each of its callers has what it has waited for: an answer, or an error
    /// in time.
    pub(crate) fn stop_asking(&mut self, load: &str) -> Said {
        let said = self.program.numbers(&format!("stop {load}"));
        println!("{load}: {said:?}");
        assert_eq!((said["late"], said["wrong"]), (0, 0), "{said:?}");
        let ended: u64 =
            said.iter().filter(|(name, _)| !NO_ENDS.contains(&name.as_str())).map(|(_, n)| n).sum();
        assert_eq!(ended, said["asked"], "callers without an end: {said:?}");
        said
    }

    /// Every call is answered again, and nothing has piled up.
    pub(crate) fn is_well_with(&mut self, node: &str) {
        self.has_link_to(node);
        let target = format!("agent://{node}/echo");
        until("calls that are all answered", || {
            let said = self.program.numbers(&format!("try {target} 20"));
            said["answered"] == said["asked"]
        });
        let kib = self.program.numbers("memory")["kib"];
        assert!(kib < self.kib + GROWTH_KIB, "{} KiB grew to {kib}", self.kib);
    }
}

/// What a load counts beside the ends of its calls.
const NO_ENDS: [&str; 4] = ["asked", "late", "wrong", "worst_ms"];

/// Lets what was broken work for a while. Nothing depends on how long it is.
pub(crate) fn for_a_while(time: Duration) {
    std::thread::sleep(time);
}
