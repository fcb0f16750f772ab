//! A node as a process: what it's told on standard input, it does.

use std::convert::Infallible;
use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::time::Duration;

use neuroflow_kernel::{
    Actor, ChildSpec, Context, Kernel, Parcel, ReplySink, Request, WireMessage, WireRequest,
};
use neuroflow_transport::{Allowed, Credential, LinkState, Links, LinksConfig, Trust};

use crate::load::{Loads, Stall};
use crate::observer::Observer;

/// A call with a number that no other has.
#[derive(rkyv::Archive, rkyv::Serialize)]
pub(crate) struct Work {
    pub(crate) id: u64,
    pub(crate) payload: Vec<u8>,
}

#[derive(rkyv::Archive, rkyv::Serialize)]
pub(crate) struct Done {
    pub(crate) id: u64,
}

impl WireMessage for Work {
    const NAME: &'static str = "faults.work";
    const VERSION: u16 = 1;
}

impl WireMessage for Done {
    const NAME: &'static str = "faults.done";
    const VERSION: u16 = 1;
}

impl WireRequest for Work {
    type Reply = Done;
}

/// Writes down what it was asked, and answers.
struct Echo(std::fs::File);

impl Actor for Echo {
    type Message = Request<Work>;
    type Error = Infallible;
    const KIND: &'static str = "echo";

    async fn handle(
        &mut self,
        Request { parcel, replies }: Request<Work>,
        _: &mut Context<Request<Work>>,
    ) -> Result<(), Infallible> {
        let id = parcel.get().id.to_native();
        self.0.write_all(&id.to_le_bytes()).expect("the ledger can be written");
        let _gone = replies.try_send(Parcel::archive(&Done { id }).expect("small"));
        replies.finish();
        Ok(())
    }
}

/// Keeps every call and answers none.
#[derive(Default)]
struct Silent(Vec<ReplySink<Parcel<Done>>>);

impl Actor for Silent {
    type Message = Request<Work>;
    type Error = Infallible;
    const KIND: &'static str = "silent";

    async fn handle(
        &mut self,
        Request { replies, .. }: Request<Work>,
        _: &mut Context<Request<Work>>,
    ) -> Result<(), Infallible> {
        self.0.retain(|caller| !caller.is_closed());
        self.0.push(replies);
        Ok(())
    }
}

/// Whatever becomes of the tests, none of their processes outlives them by more.
const LIFE: Duration = Duration::from_mins(4);

pub(crate) async fn run() {
    let text = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} isn't set"));
    let kernel = Kernel::builder().start().await.expect("a kernel");
    let clock = kernel.clock().clone();
    let (spec, echo) = ChildSpec::new("echo", move || {
        let mut ledger = std::fs::OpenOptions::new();
        let ledger = ledger.create(true).append(true).open(text("FAULTS_LEDGER"));
        Echo(ledger.expect("the ledger can be opened"))
    })
    .expect("a name");
    kernel.root().start(spec.mailbox(1_024)).await.expect("an actor");
    let (spec, silent) = ChildSpec::new("silent", Silent::default).expect("a name");
    kernel.root().start(spec.mailbox(1_024)).await.expect("an actor");

    let listen: SocketAddr = text("FAULTS_LISTEN").parse().expect("an address");
    let who = Credential::from_pem(&text("FAULTS_CERTIFICATE"), &text("FAULTS_KEY"));
    let trust = Trust::from_pem(&text("FAULTS_AUTHORITY")).expect("an authority");
    let config = LinksConfig::new(listen, who.expect("a credential"), trust);
    let (spec, links) = config.child(clock.clone()).expect("links");
    links.export("echo", echo, Allowed::Everyone).expect("a name");
    links.export("silent", silent, Allowed::Everyone).expect("a name");
    kernel.root().start(spec).await.expect("a socket");
    say("up");
    let stall = Stall::watch();
    let observer = Observer::start(&kernel, links.clone()).await;
    let mut loads = Loads::new(clock.clone(), links.clone(), stall.clone());
    let ends = clock.now() + LIFE;
    while let Ok(Some(line)) = clock.before(ends, line()).await {
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = match words.as_slice() {
            ["dial", address] => {
                links.dial(address.parse().expect("an address")).await;
                "done".to_owned()
            }
            ["state", node] => state(&links, node),
            ["member", node] => observer.member(node),
            ["stall"] => format!("ms={}", stall.worst().as_millis()),
            ["membership", node] => observer.state(node).to_owned(),
            ["watch", target] => observer.watch(target).await,
            ["falls", target] => observer.falls(target),
            ["memory"] => format!("kib={}", resident_kib()),
            ["ask", load, target, callers, deadline] => {
                let callers = callers.parse().expect("a number");
                let deadline = Duration::from_millis(deadline.parse().expect("milliseconds"));
                loads.start(load, target, callers, deadline);
                "done".to_owned()
            }
            ["so-far", load] => loads.so_far(load),
            ["stop", load] => loads.stop(load).await,
            ["try", target, times] => {
                loads.try_a_few(target, times.parse().expect("a number")).await
            }
            other => panic!("{other:?} isn't a command"),
        };
        say(&answer);
    }
    kernel.stop().await;
}

fn state(links: &Links, node: &str) -> String {
    let status = links.status();
    let link = status.iter().find(|link| link.name.as_str() == node);
    let up = link.is_some_and(|link| link.state == LinkState::Up);
    format!("up={} reconnects={}", u8::from(up), link.map_or(0, |link| link.reconnects))
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc can be read");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    number.expect("VmRSS is a number")
}

/// Says a line to the tests.
pub(crate) fn say(line: &str) {
    println!("= {line}");
}

/// The next line of the tests, while they are there.
pub(crate) async fn line() -> Option<String> {
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map(|bytes| (bytes > 0).then_some(line))
    });
    let line = read.await.expect("reading doesn't panic").expect("text")?;
    Some(line.trim().to_owned())
}

pub(crate) fn number(name: &str) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).expect("a number")
}
