//! Through a real listener to real servers on loopback; only names are looked up in a script.

mod addresses;
mod bounds;
mod plain;
mod secrets;
mod smuggling;
#[cfg(feature = "egress-tls")]
mod tls;
mod tunnels;

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use neuroflow_kernel::Clock;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinSet,
};

use super::{
    Decision, Egress, EgressReason, EgressReport, Tally,
    resolver::{Lookup, Resolve},
};
use crate::network::{EgressLimits, Network, Rule};

/// The name that the script knows unless a test says otherwise.
const NAME: &str = "api.test.example";
const LOCAL: &str = "127.0.0.1";

/// Answers from a script. A name with several answers gives each in turn, and the last for ever.
#[derive(Debug, Default)]
struct Script {
    answers: Mutex<HashMap<String, Vec<Vec<IpAddr>>>>,
    asked: AtomicUsize,
}

impl Script {
    fn answer(&self, name: &str, answers: &[&[&str]]) {
        let parse = |texts: &&[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let answers = answers.iter().map(parse).collect();
        self.answers.lock().unwrap().insert(name.to_owned(), answers);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Resolve for Script {
    fn resolve(&self, name: String) -> Lookup {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.lock().unwrap();
        let answer = match answers.get_mut(&name) {
            Some(list) if list.len() > 1 => Ok(list.remove(0)),
            Some(list) => Ok(list.first().cloned().unwrap_or_default()),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        Box::pin(async { answer })
    }
}

/// A running proxy, and servers around it. Everything ends when it's dropped.
struct Scene {
    address: SocketAddr,
    script: Arc<Script>,
    tally: Arc<Tally>,
    clock: Clock,
    stop: Option<oneshot::Sender<()>>,
    tasks: JoinSet<()>,
}

impl Scene {
    async fn with(rules: impl IntoIterator<Item = Rule>) -> Self {
        Self::bounded(rules, EgressLimits::default()).await
    }

    async fn bounded(rules: impl IntoIterator<Item = Rule>, bounds: EgressLimits) -> Self {
        let network = Network::allow(rules).limits(bounds);
        let policy = network.policy().unwrap().unwrap();
        let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Script::default());
        script.answer(NAME, &[&[LOCAL]]);
        let clock = Clock::system();
        let resolver = Arc::clone(&script) as Arc<dyn Resolve>;
        let Egress { proxy, tally } =
            Egress::of(listener, policy, "cell-1".to_owned(), clock.clone(), resolver);
        let (stop, stopped) = oneshot::channel::<()>();
        let mut tasks = JoinSet::new();
        tasks.spawn(proxy.run(async {
            let _either = stopped.await;
        }));
        Self { address, script, tally, clock, stop: Some(stop), tasks }
    }

    async fn client(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends the bytes and reads until the proxy closes.
    async fn say(&self, request: &str) -> String {
        let mut client = self.client().await;
        client.write_all(request.as_bytes()).await.unwrap();
        rest(&mut client).await
    }

    /// A plain request without a body.
    async fn ask(&self, method: &str, host: &str, path: &str) -> String {
        self.say(&format!("{method} http://{host}{path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await
    }

    /// Asks for a tunnel, and returns the connection with the answer's head.
    async fn tunnel(&self, target: &str) -> (TcpStream, String) {
        let mut client = self.client().await;
        let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let head = head(&mut client).await;
        (client, head)
    }

    /// Waits until this many decisions are recorded.
    async fn report(&self, decisions: usize) -> EgressReport {
        for _ in 0..1000 {
            let report = self.tally.report();
            if report.decisions.len() >= decisions {
                return report;
            }
            self.clock.sleep(Duration::from_millis(5)).await;
        }
        panic!("{:?}", self.tally.report());
    }

    /// The only decision.
    async fn decision(&self) -> Decision {
        let mut report = self.report(1).await;
        assert_eq!(report.decisions.len(), 1, "{report:?}");
        report.decisions.remove(0)
    }

    /// Ends the proxy and waits for its end.
    async fn end(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.tasks.join_next().await.unwrap().unwrap();
    }
}

/// A server that answers every connection with fixed bytes, and keeps what it was sent.
struct Server {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn saying(response: &str) -> Self {
        Self::at(LOCAL, 0, response).await
    }

    /// Answers once the head has come, and whatever body its `Content-Length` announces.
    async fn at(address: &str, port: u16, response: &str) -> Self {
        let listener = TcpListener::bind((address, port)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (response, kept) = (response.to_owned(), Arc::clone(&heard));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut clients = JoinSet::new();
            loop {
                let (mut stream, _peer) = listener.accept().await.unwrap();
                let (response, kept) = (response.clone(), Arc::clone(&kept));
                clients.spawn(async move {
                    let mut request = String::new();
                    while !is_whole(&request) {
                        let mut piece = [0; 4096];
                        match stream.read(&mut piece).await {
                            Ok(count) if count > 0 => {
                                request.push_str(&String::from_utf8_lossy(&piece[..count]));
                            }
                            _ => break,
                        }
                    }
                    kept.lock().unwrap().push(request);
                    let _sent = stream.write_all(response.as_bytes()).await;
                    let _closed = stream.shutdown().await;
                });
            }
        });
        Self { address, heard, _tasks: tasks }
    }

    fn port(&self) -> u16 {
        self.address.port()
    }

    /// `name:port`.
    fn host(&self) -> String {
        format!("{NAME}:{}", self.port())
    }

    /// A rule for this server.
    fn rule(&self) -> Rule {
        Rule::host(NAME).port(self.port()).allow_private(LOCAL)
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

/// A server that sends back what it gets, and closes after the client has.
async fn echo(tasks: &mut JoinSet<()>) -> u16 {
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tasks.spawn(async move {
        let mut clients = JoinSet::new();
        loop {
            let (mut stream, _peer) = listener.accept().await.unwrap();
            clients.spawn(async move {
                let (mut read, mut write) = stream.split();
                let _copied = tokio::io::copy(&mut read, &mut write).await;
                let _closed = write.shutdown().await;
            });
        }
    });
    port
}

fn is_whole(request: &str) -> bool {
    let Some((head, body)) = request.split_once("\r\n\r\n") else { return false };
    let head = head.to_ascii_lowercase();
    if head.contains("transfer-encoding: chunked") {
        return body.ends_with("0\r\n\r\n");
    }
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
    body.len() >= length.map_or(0, |length| length.parse().unwrap())
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    // A reset after the answer is an end like another.
    let _ended = stream.read_to_end(&mut all).await;
    String::from_utf8_lossy(&all).into_owned()
}

async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_closed) => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// The whole of a refusal, to the byte.
fn refusal(reason: EgressReason) -> String {
    let body = format!(
        "{{\"error\":\"egress_denied\",\"reason\":\"{}\",\"message\":\"{reason}\"}}\n",
        reason.code()
    );
    format!(
        "HTTP/1.1 403 Forbidden: {reason}\r\ncontent-type: application/json\r\nx-neuroflow-egress: denied; \
         reason={}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        reason.code(),
        body.len()
    )
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn the_proxy_is_one_future_that_may_move_between_threads() {
    fn is_send<T: Send>(_: &T) {}
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let listener = std::net::TcpListener::bind((LOCAL, 0)).unwrap();
    let policy = Network::allow([Rule::host("a.example")]).policy().unwrap().unwrap();
    let egress = super::serve(listener.into(), policy, "c".to_owned(), Clock::system()).unwrap();
    is_send(&egress.proxy.run(std::future::pending()));
    assert_eq!(egress.tally.report(), EgressReport::default());
}

#[tokio::test]
async fn what_is_no_listener_is_refused_with_the_kernels_reason() {
    let policy = Network::allow([Rule::host("a.example")]).policy().unwrap().unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    let refused = super::serve(file.into(), policy, "c".to_owned(), Clock::system());
    assert!(refused.is_err(), "{refused:?}");
}
