//! Streams of replies: bounded, cancelled by dropping, ended with a typed reason.

use std::convert::Infallible;

use neuroflow_kernel::{
    Actor, Address, ChildSpec, Context, Header, Message, ReplySink, ReplyStream, SinkError,
    StreamError, limits,
};

use crate::probe::{Gate, Log, World, hangs, settle, soon, until};

enum Produce {
    /// Counts up to here and finishes.
    Count(usize, ReplySink<usize>),
    /// Sends one and panics.
    Panic(ReplySink<usize>),
    /// Sends one and drops the sink.
    Drop(ReplySink<usize>),
    /// Sends what fits, and cuts the consumer off.
    CutOff(ReplySink<usize>),
    /// Keeps the sink and panics at the next message.
    Keep(ReplySink<usize>),
    /// Waits until the consumer has gone.
    UntilClosed(Gate, ReplySink<usize>),
    Boom,
}

impl Message for Produce {
    fn name(&self) -> &'static str {
        "produce"
    }
}

struct Producer {
    log: Log,
    kept: Option<ReplySink<usize>>,
}

impl Actor for Producer {
    type Message = Produce;
    type Error = Infallible;
    const KIND: &'static str = "producer";

    async fn handle(&mut self, what: Produce, _: &mut Context<Produce>) -> Result<(), Infallible> {
        match what {
            Produce::Count(count, sink) => {
                for item in 0..count {
                    if sink.send(item).await.is_err() {
                        self.log.note(format!("gone at {item}"));
                        return Ok(());
                    }
                    self.log.note("sent");
                }
                sink.finish();
            }
            Produce::Panic(sink) => {
                sink.send(0).await.unwrap();
                panic!("told to panic");
            }
            Produce::Drop(sink) => sink.send(0).await.unwrap(),
            Produce::CutOff(sink) => {
                while sink.try_send(0).is_ok() {}
                assert!(matches!(sink.try_send(7), Err(SinkError::Full(7))));
                sink.cut_off();
            }
            Produce::Keep(sink) => self.kept = Some(sink),
            Produce::UntilClosed(gate, sink) => {
                gate.pass().await;
                sink.closed().await;
                assert!(sink.is_closed());
                self.log.note("saw the consumer go");
            }
            Produce::Boom => panic!("told to panic"),
        }
        Ok(())
    }
}

async fn producer(world: &World) -> Address<Produce> {
    let log = world.log.clone();
    let make = move || Producer { log: log.clone(), kept: None };
    let (spec, address) = ChildSpec::new("producer", make).unwrap();
    world.kernel.root().start(spec).await.unwrap();
    address
}

async fn open<F>(producer: &Address<Produce>, what: F) -> ReplyStream<usize>
where
    F: FnOnce(ReplySink<usize>) -> Produce,
{
    soon(producer.stream(Header::new(), what)).await.unwrap()
}

#[tokio::test]
async fn a_stream_brings_all_items_in_order_and_ends() {
    let world = World::new().await;
    let producer = producer(&world).await;
    let mut stream = open(&producer, |sink| Produce::Count(200, sink)).await;
    for item in 0..200 {
        assert_eq!(soon(stream.next()).await, Some(Ok(item)));
    }
    assert_eq!(soon(stream.next()).await, None);
    assert_eq!(soon(stream.next()).await, None);
}

#[tokio::test]
async fn a_slow_consumer_slows_its_producer_down() {
    let world = World::new().await;
    let producer = producer(&world).await;
    let mut stream = open(&producer, |sink| Produce::Count(1_000, sink)).await;
    settle().await;
    assert_eq!(world.log.take().len(), limits::STREAM_CAPACITY);
    assert_eq!(soon(stream.next()).await, Some(Ok(0)));
    settle().await;
    assert_eq!(world.log.take().len(), 1);
}

#[tokio::test]
async fn dropping_the_stream_cancels_a_producer_that_waits_for_room() {
    let world = World::new().await;
    let producer = producer(&world).await;
    let stream = open(&producer, |sink| Produce::Count(1_000, sink)).await;
    settle().await;
    drop(stream);
    until(|| world.log.has("gone at 64")).await;
}

#[tokio::test]
async fn dropping_the_stream_is_seen_by_a_producer_that_works() {
    let world = World::new().await;
    let producer = producer(&world).await;
    let gate = Gate::new();
    let at = gate.clone();
    let stream = open(&producer, |sink| Produce::UntilClosed(at, sink)).await;
    gate.arrived().await;
    gate.open();
    settle().await;
    assert!(!world.log.has("saw the consumer go"));
    drop(stream);
    until(|| world.log.has("saw the consumer go")).await;
}

#[tokio::test]
async fn every_early_end_has_its_reason_after_what_was_sent() {
    let world = World::new().await;
    let producer = producer(&world).await;
    let mut stream = open(&producer, Produce::Drop).await;
    assert_eq!(soon(stream.next()).await, Some(Ok(0)));
    assert_eq!(soon(stream.next()).await, Some(Err(StreamError::Interrupted)));
    assert_eq!(soon(stream.next()).await, None);

    let mut stream = open(&producer, Produce::CutOff).await;
    for _ in 0..limits::STREAM_CAPACITY {
        assert_eq!(soon(stream.next()).await, Some(Ok(0)));
    }
    assert_eq!(soon(stream.next()).await, Some(Err(StreamError::Lagged)));

    let mut stream = open(&producer, Produce::Panic).await;
    assert_eq!(soon(stream.next()).await, Some(Ok(0)));
    assert_eq!(soon(stream.next()).await, Some(Err(StreamError::Panicked)));
}

#[tokio::test]
async fn a_sink_kept_by_an_actor_that_panics_tells_the_consumer() {
    let world = World::new().await;
    let producer = producer(&world).await;
    let mut stream = open(&producer, Produce::Keep).await;
    producer.tell(Header::new(), Produce::Boom).await.unwrap();
    assert_eq!(soon(stream.next()).await, Some(Err(StreamError::Panicked)));
}

#[tokio::test]
async fn a_stream_request_in_the_mailbox_of_a_dead_actor_ends_at_once() {
    let world = World::new().await;
    let producer = producer(&world).await;
    producer.try_tell(Header::new(), Produce::Boom).unwrap();
    let (sink, mut stream) = neuroflow_kernel::reply_stream();
    producer.try_tell(Header::new(), Produce::Count(1, sink)).unwrap();
    let mut next = Box::pin(stream.next());
    assert!(!hangs(&mut next).await);
}
