//! Seeds by service records, which a name server of the test's own gives: right ones, none, broken ones.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use neuroflow_kernel::ManualClock;
use neuroflow_transport::limits::SEED_ROUND;
use neuroflow_transport::{LinkState, LinksConfig, SeedError, ServiceName};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use crate::world::{Node, World, soon, until};

/// What is answered to who asks for service records.
#[derive(Clone)]
enum Answer {
    /// Priority, port and host of each.
    Records(Vec<(u16, u16, &'static str)>),
    /// A code of failure.
    Code(u8),
    /// These bytes behind the question's id.
    Bytes(Vec<u8>),
    Silence,
}

/// A name server that says one thing of all services, and that each host but `nowhere` is this machine.
struct NameServer {
    address: SocketAddr,
    answer: Arc<Mutex<Answer>>,
    _serving: JoinSet<()>,
}

const SERVICE_RECORD: u16 = 33;
const ADDRESS_RECORD: u16 = 1;
const ABSENT: u8 = 3;
const FAILED: u8 = 2;
const REFUSED: u8 = 5;

impl NameServer {
    async fn start(answer: Answer) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let answer = Arc::new(Mutex::new(answer));
        let said = Arc::clone(&answer);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut question = [0; 1_500];
            loop {
                let (bytes, from) = socket.recv_from(&mut question).await.unwrap();
                let answer = said.lock().unwrap().clone();
                if let Some(reply) = reply(&question[..bytes], &answer) {
                    socket.send_to(&reply, from).await.unwrap();
                }
            }
        });
        Self { address, answer, _serving: serving }
    }

    fn says(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }
}

fn reply(question: &[u8], answer: &Answer) -> Option<Vec<u8>> {
    let (id, rest) = (&question[..2], &question[12..]);
    let name = rest.iter().position(|byte| *byte == 0).unwrap() + 1;
    let kind = u16::from_be_bytes([rest[name], rest[name + 1]]);
    let asked = &rest[..name + 4];
    let whole = |code: u8, records: &[Vec<u8>]| {
        let count = u8::try_from(records.len()).unwrap();
        let header = [0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0];
        [id, &header, asked, &records.concat()].concat()
    };
    match answer {
        Answer::Records(_) if kind == ADDRESS_RECORD => {
            let is_nowhere = asked.starts_with(b"\x07nowhere");
            let here = record(kind, &Ipv4Addr::LOCALHOST.octets());
            Some(if is_nowhere { whole(ABSENT, &[]) } else { whole(0, &[here]) })
        }
        Answer::Records(records) if kind == SERVICE_RECORD => {
            let records = records.iter().map(|(priority, port, host)| {
                let numbers = [*priority, 0, *port].map(u16::to_be_bytes).concat();
                record(kind, &[numbers, labels(host)].concat())
            });
            Some(whole(0, &records.collect::<Vec<_>>()))
        }
        Answer::Records(_) => Some(whole(0, &[])),
        Answer::Code(code) => Some(whole(*code, &[])),
        Answer::Bytes(bytes) => Some([id, bytes].concat()),
        Answer::Silence => None,
    }
}

/// A record of what was asked, which isn't to be kept.
fn record(kind: u16, data: &[u8]) -> Vec<u8> {
    let bytes = u16::try_from(data.len()).unwrap().to_be_bytes();
    [&[0xc0, 12], &kind.to_be_bytes()[..], &[0, 1, 0, 0, 0, 0], &bytes, data].concat()
}

fn labels(host: &str) -> Vec<u8> {
    let mut labels = Vec::new();
    for label in host.split('.').filter(|label| !label.is_empty()) {
        labels.push(u8::try_from(label.len()).unwrap());
        labels.extend(label.as_bytes());
    }
    labels.push(0);
    labels
}

fn by_service(config: LinksConfig, server: &NameServer) -> LinksConfig {
    let service: ServiceName = "agents.example".parse().unwrap();
    config.seed_service(service).name_servers([server.address])
}

async fn fails(node: &Node, expected: impl Fn(&SeedError) -> bool) {
    let failure = || node.links.seeds()[0].failure.clone();
    until(|| failure().is_some_and(|error| expected(&error))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seed_may_be_a_service_and_its_priorities_are_turns() {
    let (world, elsewhere) = (World::new(), World::new());
    let (a, stranger) = (world.node("a").await, elsewhere.node("x").await);
    let server = NameServer::start(Answer::Records(vec![
        (20, a.address().port(), "a.agents.example"),
        (10, stranger.address().port(), "x.agents.example"),
        (10, 1, "nowhere.agents.example"),
    ]))
    .await;
    let b = world.node_with("b", 64, |config| by_service(config, &server)).await;
    b.has_link_to("a").await;
    a.has_link_to("b").await;
    assert_eq!(b.links.seeds()[0].name, "srv:_neuroflow._udp.agents.example");
    until(|| b.links.seeds()[0].failure.is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_keeps_a_service_from_being_found_is_said_until_it_is_there() {
    let world = World::new();
    let a = world.node("a").await;
    let server = NameServer::start(Answer::Code(ABSENT)).await;
    let b = world.node_with("b", 64, |config| by_service(config, &server)).await;
    fails(&b, |error| matches!(error, SeedError::Absent)).await;
    for code in [FAILED, REFUSED] {
        server.says(Answer::Code(code));
        fails(&b, |error| matches!(error, SeedError::Service(_))).await;
        server.says(Answer::Code(ABSENT));
        fails(&b, |error| matches!(error, SeedError::Absent)).await;
    }
    server.says(Answer::Records(vec![(0, 1, ".")]));
    fails(&b, |error| matches!(error, SeedError::Withheld)).await;
    server.says(Answer::Records(vec![(0, 1, "nowhere.example")]));
    fails(&b, |error| matches!(error, SeedError::Hosts)).await;
    let other = World::new().node("x").await;
    server.says(Answer::Records(vec![(0, other.address().port(), "x.example")]));
    fails(&b, |error| matches!(error, SeedError::Unanswered { addresses: 1, .. })).await;
    server.says(Answer::Silence);
    fails(&b, |error| matches!(error, SeedError::TimedOut | SeedError::Service(_))).await;
    // A node that stops meanwhile doesn't wait for an answer.
    let c = world.node_with("c", 64, |config| by_service(config, &server)).await;
    soon(c.kernel.stop()).await;
    server.says(Answer::Records(vec![(0, a.address().port(), "a.example")]));
    b.has_link_to("a").await;
    until(|| b.links.seeds()[0].failure.is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_began_in_two_groups_are_one_cluster_once_the_name_has_all() {
    let world = World::new();
    let time = ManualClock::new();
    let servers =
        [NameServer::start(Answer::Silence).await, NameServer::start(Answer::Silence).await];
    let mut nodes = Vec::new();
    for (nth, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
        let credential = world.credential(name, &[]);
        let config = LinksConfig::new("127.0.0.1:0".parse().unwrap(), credential, world.trust());
        let config = by_service(config, &servers[nth / 2]);
        nodes.push(Node::start_by(time.clock(), config, 64).await);
    }
    let names_of = |nodes: &[Node]| {
        let record = |node: &Node| (0, node.address().port(), "node.agents.example");
        Answer::Records(nodes.iter().map(record).collect())
    };
    let counts = |node: &Node, others: usize| {
        let up = |link: &&neuroflow_transport::LinkStatus| link.state == LinkState::Up;
        let active = node.links.members().iter().filter(|it| it.state.is_active()).count();
        node.links.status().iter().filter(up).count() == others && active == others + 1
    };
    // As much as it takes to look once more.
    let goes_on = || time.advance(Duration::from_millis(10));
    for (server, pair) in servers.iter().zip(nodes.chunks(2)) {
        server.says(names_of(pair));
        until(|| {
            goes_on();
            pair.iter().all(|node| counts(node, 1))
        })
        .await;
    }
    let all = names_of(&nodes);
    for server in &servers {
        server.says(all.clone());
    }
    time.advance(SEED_ROUND);
    until(|| {
        goes_on();
        nodes.iter().all(|node| counts(node, 3) && node.links.seeds()[0].failure.is_none())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_none_do_no_harm() {
    let world = World::new();
    let a = world.node("a").await;
    let question = [labels("_neuroflow._udp.agents.example"), vec![0, 33, 0, 1]].concat();
    let header = |answers| vec![0x81, 0x80, 0, 1, 0, answers, 0, 0, 0, 0];
    let with = |records: &[u8]| [&header(1)[..], &question, records].concat();
    let loops = with(&[0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 1, 0xc0, 66]);
    let longer = with(&record(33, &[0; 4])[..14]);
    let short = with(&record(33, &[0, 0, 0]));
    let promised = [header(255), question.clone()].concat();
    let asked_else = [header(0), labels("other.example"), vec![0, 33, 0, 1]].concat();
    // Each by a node of its own, for one that isn't answered takes its time.
    let mut nodes = Vec::new();
    for (nth, bytes) in [vec![], vec![0xff; 900], loops, longer, short, promised, asked_else]
        .into_iter()
        .enumerate()
    {
        let broken = NameServer::start(Answer::Bytes(bytes)).await;
        let name = format!("b{nth}");
        let b = world.node_with(&name, 64, |config| by_service(config, &broken)).await;
        nodes.push((b, broken));
    }
    for (b, broken) in &nodes {
        fails(b, |error| matches!(error, SeedError::TimedOut | SeedError::Service(_))).await;
        broken.says(Answer::Records(vec![(0, a.address().port(), "a.example")]));
    }
    for (b, _) in &nodes {
        b.has_link_to("a").await;
    }
}
