//! What a link costs between two processes on loopback, beside UDP, TLS over TCP, gRPC, `ractor_cluster`
//! and Erlang, in one run: `cargo bench -p neuroflow-transport --bench link`.
//!
//! Both ends are pinned with `taskset`, once to one core and once to two, and have a runtime of one
//! thread. `NEUROFLOW_BENCH_SECONDS` sets the time of each measurement (2), `NEUROFLOW_BENCH_LINKS` the number
//! of idle links (64), `NEUROFLOW_BENCH_PEERS` and `NEUROFLOW_BENCH_ONLY` choose peers
//! (`udp,tls,grpc,link,ractor,erl`) and a link's measurements (`one,many,small,large,behind,idle`),
//! `NEUROFLOW_BENCH_CORES` the placement (`one,two`).
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::expect_used,
    reason = "a benchmark starts processes, reads the machine's clock, prints, and may fail"
)]

#[path = "link/actors.rs"]
mod actors;
#[path = "link/grpc.rs"]
mod grpc;

use std::convert::Infallible;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::BoxFuture;
use neuroflow_kernel::{
    Actor, Address, ChildSpec, Clock, Context, Header, Kernel, Parcel, Request, WireMessage,
    WireRequest,
};
use neuroflow_transport::{Allowed, Authority, Credential, LinkState, Links, LinksConfig, Trust};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const SIZE: usize = 256;
const MIB: usize = 1024 * 1024;

/// Rounds that aren't measured, for no longer than the measurement.
const WARM_UP: u32 = 1_000;

#[derive(rkyv::Archive, rkyv::Serialize)]
struct Ping {
    payload: Vec<u8>,
}

#[derive(rkyv::Archive, rkyv::Serialize)]
struct Pong {
    payload: Vec<u8>,
    bytes: u64,
    messages: u64,
    resident_kib: u64,
    /// Bytes of archives that have arrived, and that were copied for that.
    arrived: u64,
    moved: u64,
}

impl WireMessage for Ping {
    const NAME: &'static str = "bench.ping";
    const VERSION: u16 = 1;
    const SIZE_LIMIT: usize = 20 * MIB;
}

impl WireMessage for Pong {
    const NAME: &'static str = "bench.pong";
    const VERSION: u16 = 1;
}

impl WireRequest for Ping {
    type Reply = Pong;
}

/// Answers with as much as it's asked, up to 256 bytes, and with what it has counted.
#[derive(Default)]
struct Echo {
    bytes: u64,
    messages: u64,
}

impl Actor for Echo {
    type Message = Request<Ping>;
    type Error = Infallible;
    const KIND: &'static str = "echo";

    async fn handle(
        &mut self,
        request: Request<Ping>,
        _: &mut Context<Request<Ping>>,
    ) -> Result<(), Infallible> {
        let payload = &request.parcel.get().payload;
        self.bytes += payload.len() as u64;
        self.messages += 1;
        if request.replies.is_heard() {
            let asks = payload.is_empty();
            let resident_kib = if asks { resident_kib() } else { 0 };
            let links = LINKS.get().filter(|_| asks).map(Links::status).unwrap_or_default();
            let pong = Pong {
                payload: payload[..payload.len().min(SIZE)].to_vec(),
                bytes: self.bytes,
                messages: self.messages,
                resident_kib,
                arrived: links.iter().map(|link| link.received_bytes).sum(),
                moved: links.iter().map(|link| link.received_copied_bytes).sum(),
            };
            let _gone = request.replies.try_send(Parcel::archive(&pong).expect("small"));
            request.replies.finish();
        }
        Ok(())
    }
}

/// The links of this process, for its actor.
static LINKS: std::sync::OnceLock<Links> = std::sync::OnceLock::new();

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    match arguments.as_slice() {
        ["serve", kind] => runtime.block_on(serve(kind)),
        ["measure", kind, address] => {
            runtime.block_on(measure(kind, address.parse().expect("an address")));
        }
        _ => compare(),
    }
}

fn seconds() -> Duration {
    let seconds = std::env::var("NEUROFLOW_BENCH_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs_f64(seconds.unwrap_or(2.0))
}

/// Runs every peer in both placements, one after another.
fn compare() {
    let authority = Authority::create("bench", SystemTime::now()).expect("an authority");
    let day = Duration::from_hours(24);
    let issue = |name| authority.issue(name, &[], day, SystemTime::now()).expect("a node");
    let (server, client) = (issue("server"), issue("client"));
    for (placement, cores) in [("one", ["0", "0"]), ("two", ["0", "1"])] {
        if !listed("NEUROFLOW_BENCH_CORES", placement) {
            continue;
        }
        println!("{placement} {}:", if placement == "one" { "core" } else { "cores" });
        for kind in ["udp", "tls", "grpc", "link"].into_iter().filter(|kind| is_peer(kind)) {
            let start = |core: &str, who: &Credential, arguments: &[&str]| {
                Command::new("taskset")
                    .args(["-c", core])
                    .arg(std::env::current_exe().expect("a path"))
                    .args(arguments)
                    .env("BENCH_AUTHORITY", authority.certificate_pem())
                    .env("BENCH_AUTHORITY_KEY", authority.key_pem())
                    .env("BENCH_CERTIFICATE", who.certificate_pem())
                    .env("BENCH_KEY", who.key_pem())
                    .stdout(Stdio::piped())
                    .spawn()
                    .expect("taskset is there")
            };
            let mut serving = start(cores[1], &server, &["serve", kind]);
            let address = lines(&mut serving).next().expect("the server says where it is");
            let mut measuring = start(cores[0], &client, &["measure", kind, &address]);
            for line in lines(&mut measuring) {
                println!("  {kind:5} {line}");
            }
            ended(kind, serving, measuring);
        }
        if is_peer("ractor") {
            actors::ractor_cluster(cores);
        }
        if is_peer("erl") {
            actors::erlang(cores);
        }
    }
}

fn is_peer(kind: &str) -> bool {
    listed("NEUROFLOW_BENCH_PEERS", kind)
}

/// Whether this variable isn't set, or names this.
fn listed(variable: &str, what: &str) -> bool {
    std::env::var(variable).map_or(true, |list| list.split(',').any(|name| name == what))
}

fn lines(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    let output = child.stdout.take().expect("it's piped");
    BufReader::new(output).lines().map_while(Result::ok)
}

/// Ends the server of one kind, whose measurements must have come to their end.
fn ended(kind: &str, mut serving: Child, mut measuring: Child) {
    let status = measuring.wait().expect("it's a child");
    let _killed = serving.kill();
    let _ended = serving.wait();
    assert!(status.success(), "{kind}: {status}");
}

fn environment(name: &str) -> String {
    std::env::var(name).expect("the benchmark starts its own ends")
}

fn credential() -> Credential {
    let (certificate, key) = (environment("BENCH_CERTIFICATE"), environment("BENCH_KEY"));
    Credential::from_pem(&certificate, &key).expect("a credential")
}

fn chain() -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let (certificate, key) = (environment("BENCH_CERTIFICATE"), environment("BENCH_KEY"));
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes());
    let chain = chain.collect::<Result<_, _>>().expect("certificates");
    (chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key"))
}

fn say(address: SocketAddr) {
    println!("{address}");
    let _flushed = std::io::stdout().flush();
}

async fn node(who: Credential, mailbox: usize) -> (Kernel, Links) {
    let trust = Trust::from_pem(&environment("BENCH_AUTHORITY")).expect("an authority");
    let kernel = Kernel::builder().start().await.expect("a kernel");
    let (spec, echo) = ChildSpec::new("echo", Echo::default).expect("a name");
    kernel.root().start(spec.mailbox(mailbox)).await.expect("an actor");
    let config = LinksConfig::new("127.0.0.1:0".parse().expect("an address"), who, trust);
    let (spec, links) = config.child(kernel.clock().clone()).expect("links");
    links.export("echo", echo, Allowed::Everyone).expect("a name");
    let _first = LINKS.set(links.clone()).is_ok();
    kernel.root().start(spec).await.expect("a socket");
    (kernel, links)
}

async fn serve(kind: &str) {
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    match kind {
        "udp" => {
            let socket = tokio::net::UdpSocket::bind(any).await.expect("a socket");
            say(socket.local_addr().expect("an address"));
            let mut buffer = [0; 2_048];
            loop {
                let (bytes, from) = socket.recv_from(&mut buffer).await.expect("a datagram");
                let _sent = socket.send_to(&buffer[..bytes], from).await;
            }
        }
        "tls" => {
            let (chain, key) = chain();
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = rustls::ServerConfig::builder_with_provider(provider)
                .with_protocol_versions(&[&rustls::version::TLS13])
                .expect("TLS 1.3")
                .with_no_client_auth()
                .with_single_cert(chain, key)
                .expect("a certificate");
            let acceptor = TlsAcceptor::from(Arc::new(config));
            let listener = tokio::net::TcpListener::bind(any).await.expect("a socket");
            say(listener.local_addr().expect("an address"));
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                stream.set_nodelay(true).expect("an option");
                let acceptor = acceptor.clone();
                connections.spawn(async move {
                    let mut stream = acceptor.accept(stream).await.expect("a handshake");
                    let mut buffer = vec![0; 64 * 1024];
                    while let Ok(bytes @ 1..) = stream.read(&mut buffer).await {
                        if stream.write_all(&buffer[..bytes]).await.is_err() {
                            return;
                        }
                        let _flushed = stream.flush().await;
                    }
                });
            }
        }
        "grpc" => grpc::serve().await,
        _ => {
            let (_kernel, links) = node(credential(), 1_024).await;
            say(links.local_address().expect("it listens"));
            std::future::pending::<()>().await;
        }
    }
}

async fn measure(kind: &str, address: SocketAddr) {
    match kind {
        "udp" => {
            let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
            socket.connect(address).await.expect("an address");
            let (payload, mut buffer) = ([7; SIZE], [0; 2_048]);
            let times = timed(async || {
                socket.send(&payload).await.expect("sent");
                socket.recv(&mut buffer).await.expect("received");
            });
            percentiles("echo 256 B, one in flight", times.await);
        }
        "tls" => {
            let mut roots = rustls::RootCertStore::empty();
            let authority = environment("BENCH_AUTHORITY");
            let authority = CertificateDer::from_pem_slice(authority.as_bytes()).expect("PEM");
            roots.add(authority).expect("an authority");
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = rustls::ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&[&rustls::version::TLS13])
                .expect("TLS 1.3")
                .with_root_certificates(roots)
                .with_no_client_auth();
            let stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
            stream.set_nodelay(true).expect("an option");
            let name = ServerName::try_from("server").expect("a name");
            let connector = TlsConnector::from(Arc::new(config));
            let mut stream = connector.connect(name, stream).await.expect("a handshake");
            let mut buffer = [7; SIZE];
            let times = timed(async || {
                stream.write_all(&buffer).await.expect("sent");
                stream.flush().await.expect("sent");
                stream.read_exact(&mut buffer).await.expect("received");
            });
            percentiles("echo 256 B, one in flight", times.await);
        }
        "grpc" => grpc::measure(address).await,
        _ => measure_link(address).await,
    }
}

/// How long each of many rounds takes, once it has run warm.
async fn timed(mut round: impl AsyncFnMut()) -> Vec<Duration> {
    let warm = Instant::now() + seconds();
    for _ in 0..WARM_UP {
        round().await;
        if Instant::now() > warm {
            break;
        }
    }
    let (until, mut times) = (Instant::now() + seconds(), Vec::new());
    while Instant::now() < until {
        let start = Instant::now();
        round().await;
        times.push(start.elapsed());
    }
    times
}

/// The same as a task, as callers are: what the runtime itself waits for is woken by way of the system
/// if a task of its own wakes it.
async fn timed_task<F>(mut round: impl FnMut() -> F + Send + 'static) -> Vec<Duration>
where
    F: Future<Output = ()> + Send,
{
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let warm = Instant::now() + seconds();
        for _ in 0..WARM_UP {
            round().await;
            if Instant::now() > warm {
                break;
            }
        }
        let (until, mut times) = (Instant::now() + seconds(), Vec::new());
        while Instant::now() < until {
            let start = Instant::now();
            round().await;
            times.push(start.elapsed());
        }
        times
    });
    tasks.join_all().await.pop().unwrap_or_default()
}

fn percentiles(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: usize| times[(times.len() * share / 1_000).min(times.len() - 1)];
    println!("{what}  p50 {:.1?}  p99 {:.1?}  ({})", at(500), at(990), times.len());
}

async fn ask(echo: &Address<Request<Ping>>, ping: &Ping) -> Parcel<Pong> {
    let mut stream = echo.ask(Header::new(), ping).await.expect("taken");
    stream.next().await.expect("an answer").expect("an answer")
}

/// Asks of 256 bytes, one at a time.
fn asks(echo: &Address<Request<Ping>>) -> impl FnMut() -> BoxFuture<'static, ()> + Send + 'static {
    let (echo, small) = (echo.clone(), Arc::new(Ping { payload: vec![7; SIZE] }));
    move || {
        let (echo, small) = (echo.clone(), Arc::clone(&small));
        Box::pin(async move { drop(ask(&echo, &small).await) })
    }
}

async fn measure_link(address: SocketAddr) {
    let (kernel, links) = node(credential(), 1_024).await;
    let clock = kernel.clock().clone();
    links.try_dial(address).await.expect("a link");
    while links.status().iter().all(|link| link.state != LinkState::Up) {
        clock.sleep(Duration::from_millis(1)).await;
    }
    // Path discovery has found the largest packet by then.
    clock.sleep(Duration::from_millis(300)).await;
    let echo = links.resolve::<Ping>("agent://server/echo").expect("a name");
    if wanted("one") {
        percentiles("ask 256 B, one in flight", timed_task(asks(&echo)).await);
    }
    if wanted("many") {
        many_in_flight(&echo).await;
    }
    if wanted("small") {
        one_way_small(&echo).await;
    }
    if wanted("large") {
        one_way_large(&echo, &links, &clock).await;
    }
    if wanted("behind") {
        behind_a_transfer(&echo, &links).await;
    }
    if wanted("idle") {
        idle_links(&echo, address).await;
    }
    kernel.stop().await;
}

fn wanted(measurement: &str) -> bool {
    listed("NEUROFLOW_BENCH_ONLY", measurement)
}

async fn many_in_flight(echo: &Address<Request<Ping>>) {
    let mut tasks = tokio::task::JoinSet::new();
    let (start, until) = (Instant::now(), Instant::now() + seconds());
    for _ in 0..64 {
        let echo = echo.clone();
        tasks.spawn(async move {
            let (small, mut asked) = (Ping { payload: vec![7; SIZE] }, 0_u32);
            while Instant::now() < until {
                ask(&echo, &small).await;
                asked += 1;
            }
            asked
        });
    }
    let asked: u32 = tasks.join_all().await.into_iter().sum();
    let rate = f64::from(asked) / start.elapsed().as_secs_f64();
    println!("ask 256 B, 64 in flight  {rate:.0}/s");
}

async fn one_way_small(echo: &Address<Request<Ping>>) {
    let (small, nothing) = (Ping { payload: vec![7; SIZE] }, Ping { payload: Vec::new() });
    let before = ask(echo, &nothing).await.get().messages.to_native();
    let (start, mut sent) = (Instant::now(), 0_u64);
    while start.elapsed() < seconds() {
        for _ in 0..1_000 {
            echo.notify(Header::new(), &small).await.expect("taken");
        }
        sent += 1_000;
    }
    while ask(echo, &nothing).await.get().messages.to_native() < before + sent {}
    println!("one way 256 B  {:.0}/s", rate_of(sent, start));
}

async fn one_way_large(echo: &Address<Request<Ping>>, links: &Links, clock: &Clock) {
    let nothing = Ping { payload: Vec::new() };
    let large = Ping { payload: vec![7; MIB] };
    let parcel = Parcel::archive(&large).expect("small enough");
    let there = ask(echo, &nothing).await;
    let (before, there) = (there.get().bytes.to_native(), excess(&there));
    let copied = links.status()[0].copied_bytes;
    let (start, mut sent) = (Instant::now(), 0_u64);
    while start.elapsed() < seconds() {
        let replies = neuroflow_kernel::ReplySink::unheard();
        let request = Request { parcel: parcel.clone(), replies };
        echo.tell(Header::new(), request).await.expect("taken");
        sent += 1;
    }
    while ask(echo, &nothing).await.get().bytes.to_native() < before + sent * MIB as u64 {
        clock.sleep(Duration::from_millis(1)).await;
    }
    let copied = links.status()[0].copied_bytes - copied;
    println!("one way 1 MiB  {:.0} MiB/s  ({copied} bytes copied)", rate_of(sent, start));
    // None of the large ones: what asked how far the other end is, is small. There each is copied once, out of
    // its packets.
    assert!(copied < MIB as u64, "the sender has copied {copied} bytes");
    let more = excess(&ask(echo, &nothing).await) - there;
    assert!(more < MIB as u64, "the receiver has copied {more} bytes more than once");
}

/// Bytes that the other end has copied more often than once.
fn excess(pong: &Parcel<Pong>) -> u64 {
    pong.get().moved.to_native().saturating_sub(pong.get().arrived.to_native())
}

fn rate_of(count: u64, since: Instant) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / since.elapsed().as_secs_f64()
}

/// Small asks while 16 MiB messages follow one another.
async fn behind_a_transfer(echo: &Address<Request<Ping>>, links: &Links) {
    let lost = links.status()[0].lost_packets;
    let huge = Parcel::archive(&Ping { payload: vec![7; 16 * MIB] }).expect("small enough");
    let transfer = {
        let echo = echo.clone();
        async move {
            loop {
                let replies = neuroflow_kernel::ReplySink::unheard();
                let request = Request { parcel: huge.clone(), replies };
                echo.tell(Header::new(), request).await.expect("taken");
            }
        }
    };
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(transfer);
    let times = timed_task(asks(echo)).await;
    tasks.shutdown().await;
    percentiles("ask 256 B behind 16 MiB  ", times);
    println!("  packets lost meanwhile  {}", links.status()[0].lost_packets - lost);
}

/// What the server grows by for each of many links that do nothing.
async fn idle_links(echo: &Address<Request<Ping>>, address: SocketAddr) {
    let count = std::env::var("NEUROFLOW_BENCH_LINKS").ok().and_then(|text| text.parse().ok());
    let count: u64 = count.unwrap_or(64);
    let key = environment("BENCH_AUTHORITY_KEY");
    let authority = Authority::from_pem(&environment("BENCH_AUTHORITY"), &key).expect("PEM");
    let nothing = Ping { payload: Vec::new() };
    // What earlier measurements have sent is gone by then.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let resident = async || ask(echo, &nothing).await.get().resident_kib.to_native();
    let before = resident().await;
    let mut nodes = Vec::new();
    for at in 0..count {
        let name = format!("idle-{at}");
        let day = Duration::from_hours(24);
        let who = authority.issue(&name, &[], day, SystemTime::now()).expect("a node");
        let (kernel, links) = node(who, 1).await;
        links.try_dial(address).await.expect("a link");
        nodes.push((kernel, links));
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let grown = resident().await.saturating_sub(before);
    println!("idle link  {} KiB at the node that was dialled", grown / count);
}
