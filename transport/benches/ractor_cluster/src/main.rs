//! `ractor_cluster` as a peer of the benchmark of links: `serve` prints where it listens, `measure` takes
//! that address and prints what `benches/link.rs` prints of a link.
//!
//! Its links are TCP without TLS, the fastest that it has; ours have TLS in the same table.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, pg};
use ractor_cluster::{NodeServer, NodeServerMessage, RactorClusterMessage, client_connect};

const SIZE: usize = 256;
const MIB: usize = 1024 * 1024;
const GROUP: &str = "echo";

#[derive(RactorClusterMessage)]
enum Message {
    Take(Vec<u8>),
    #[rpc]
    Ask(Vec<u8>, RpcReplyPort<Vec<u8>>),
    #[rpc]
    Taken(RpcReplyPort<u64>),
}

/// Answers with what it's asked, and counts what it's told.
struct Echo;

impl Actor for Echo {
    type Msg = Message;
    type State = u64;
    type Arguments = ();

    async fn pre_start(&self, own: ActorRef<Message>, (): ()) -> Result<u64, ActorProcessingErr> {
        pg::join(GROUP.to_owned(), vec![own.get_cell()]);
        Ok(0)
    }

    async fn handle(
        &self,
        _: ActorRef<Message>,
        message: Message,
        taken: &mut u64,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Take(_) => *taken += 1,
            Message::Ask(payload, reply) => reply.send(payload)?,
            Message::Taken(reply) => reply.send(*taken)?,
        }
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["serve"] => serve().await,
        ["measure", address] => measure(address.parse().expect("an address")).await,
        _ => panic!("usage: ractor-cluster-peer serve | measure ADDRESS"),
    }
}

async fn node(name: &str, port: u16) -> ActorRef<NodeServerMessage> {
    let (cookie, host) = ("bench".to_owned(), "localhost".to_owned());
    let server = NodeServer::new(port, cookie, name.to_owned(), host, None, None)
        .with_listen_addr(IpAddr::V4(Ipv4Addr::LOCALHOST))
        .with_max_inbound_frame_size(64 * MIB as u64);
    Actor::spawn(None, server, ()).await.expect("a node").0
}

async fn serve() {
    // It doesn't tell the port that it was given, so one is asked for and given back.
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    let address = free.local_addr().expect("an address");
    drop(free);
    let _node = node("server", address.port()).await;
    let _echo = Actor::spawn(None, Echo, ()).await.expect("an actor");
    println!("{address}");
    std::future::pending::<()>().await;
}

async fn measure(address: SocketAddr) {
    let node = node("client", 0).await;
    client_connect(&node, address).await.expect("a connection");
    let echo = loop {
        let members = pg::get_members(&GROUP.to_owned());
        match members.into_iter().next() {
            Some(member) => break ActorRef::<Message>::from(member),
            None => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    };
    percentiles("ask 256 B, one in flight", asks(&echo, 1_000).await);
    many_in_flight(&echo).await;
    one_way(&echo, SIZE, |count, took| format!("one way 256 B  {:.0}/s", count / took)).await;
    one_way(&echo, MIB, |count, took| format!("one way 1 MiB  {:.0} MiB/s", count / took)).await;
    behind_a_transfer(&echo).await;
}

fn seconds() -> Duration {
    let seconds = std::env::var("NEUROFLOW_BENCH_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs_f64(seconds.unwrap_or(2.0))
}

async fn ask(echo: &ActorRef<Message>) {
    let answer = echo.call(|reply| Message::Ask(vec![7; SIZE], reply), None);
    assert_eq!(answer.await.expect("taken").expect("an answer").len(), SIZE);
}

async fn taken(echo: &ActorRef<Message>) -> u64 {
    echo.call(Message::Taken, None).await.expect("taken").expect("an answer")
}

/// How long each of many asks takes after some that don't count, in a task of its own, as callers are.
async fn asks(echo: &ActorRef<Message>, warm_up: usize) -> Vec<Duration> {
    let echo = echo.clone();
    let asking = tokio::spawn(async move {
        for _ in 0..warm_up {
            ask(&echo).await;
        }
        let (until, mut times) = (Instant::now() + seconds(), Vec::new());
        while Instant::now() < until {
            let start = Instant::now();
            ask(&echo).await;
            times.push(start.elapsed());
        }
        times
    });
    asking.await.expect("it ends")
}

fn percentiles(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: usize| times[(times.len() * share / 1_000).min(times.len() - 1)];
    println!("{what}  p50 {:.1?}  p99 {:.1?}  ({})", at(500), at(990), times.len());
}

async fn many_in_flight(echo: &ActorRef<Message>) {
    let (start, until) = (Instant::now(), Instant::now() + seconds());
    let asking = (0..64).map(|_| {
        let echo = echo.clone();
        tokio::spawn(async move {
            let mut asked = 0_u32;
            while Instant::now() < until {
                ask(&echo).await;
                asked += 1;
            }
            asked
        })
    });
    let mut asked = 0;
    for task in asking.collect::<Vec<_>>() {
        asked += task.await.expect("it ends");
    }
    println!("ask 256 B, 64 in flight  {:.0}/s", f64::from(asked) / start.elapsed().as_secs_f64());
}

/// Its queue has no bound, so each batch is waited for: the count comes after what was sent before.
async fn one_way(echo: &ActorRef<Message>, size: usize, line: impl Fn(f64, f64) -> String) {
    let batch = if size == SIZE { 1_000 } else { 8 };
    let before = taken(echo).await;
    let (start, mut sent) = (Instant::now(), 0_u64);
    while start.elapsed() < seconds() {
        for _ in 0..batch {
            echo.cast(Message::Take(vec![7; size])).expect("taken");
        }
        sent += batch;
        assert_eq!(taken(echo).await, before + sent);
    }
    let count = f64::from(u32::try_from(sent).expect("seconds"));
    println!("{}", line(count, start.elapsed().as_secs_f64()));
}

/// Small asks while 16 MiB messages follow one another.
async fn behind_a_transfer(echo: &ActorRef<Message>) {
    let sending = {
        let echo = echo.clone();
        tokio::spawn(async move {
            loop {
                echo.cast(Message::Take(vec![7; 16 * MIB])).expect("taken");
                taken(&echo).await;
            }
        })
    };
    let times = asks(echo, 10).await;
    sending.abort();
    percentiles("ask 256 B behind 16 MiB", times);
}
