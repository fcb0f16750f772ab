//! An actor without children stays at its queue: it shares its thread all the same, hears of a
//! stop, a kill and a first child there, and an address finds the next life behind its name.

use std::convert::Infallible;

use neuroflow_kernel::{Actor, ChildSpec, Context, Header, Kernel, Message, Name, Reply, Spawn};

use crate::probe::{Do, Probe, World, settle, soon, until};

enum Turn {
    /// Gives itself the next one, so that its mailbox is never empty.
    Again,
    Count(Reply<u64>),
    Stop,
}

impl Message for Turn {
    fn name(&self) -> &'static str {
        "turn"
    }
}

#[derive(Default)]
struct Restless {
    turns: u64,
}

impl Actor for Restless {
    type Message = Turn;
    type Error = Infallible;
    const KIND: &'static str = "restless";

    async fn handle(&mut self, turn: Turn, context: &mut Context<Turn>) -> Result<(), Infallible> {
        match turn {
            Turn::Again => {
                self.turns += 1;
                context.address().try_tell(Header::new(), Turn::Again).ok();
            }
            Turn::Count(reply) => reply.send(self.turns).unwrap(),
            Turn::Stop => context.stop(),
        }
        Ok(())
    }
}

/// The tests' runtime has one thread: an actor that doesn't yield would end none of them.
#[tokio::test]
async fn a_mailbox_that_is_never_empty_leaves_the_thread_to_others() {
    let kernel = Kernel::builder().start().await.unwrap();
    let (spec, restless) = ChildSpec::new("restless", Restless::default).unwrap();
    kernel.root().start(spec).await.unwrap();
    restless.tell(Header::new(), Turn::Again).await.unwrap();
    let first = restless.call(Header::new(), Turn::Count).await.unwrap();
    let second = restless.call(Header::new(), Turn::Count).await.unwrap();
    assert!(first < second);
    let name = Name::new("restless").unwrap();
    assert_eq!(kernel.root().stop_child(&name).await, Ok(true));
    kernel.stop().await;
}

#[tokio::test]
async fn it_stops_itself_before_what_still_waits() {
    let kernel = Kernel::builder().start().await.unwrap();
    let (spec, restless) = ChildSpec::new("restless", Restless::default).unwrap();
    kernel.root().start(spec).await.unwrap();
    let life = restless.this_life().unwrap();
    life.try_tell(Header::new(), Turn::Stop).unwrap();
    let waits = life.call(Header::new(), Turn::Count).await;
    assert!(waits.is_err(), "the actor went on: {waits:?}");
    kernel.stop().await;
}

#[tokio::test]
async fn an_idle_actor_is_killed_where_it_waits() {
    let world = World::new().await;
    let parent = world.start("parent").await;
    let spawn =
        |reply| Do::Spawn(Box::new(Probe::new("child", &world.log)), Spawn::default(), reply);
    let child = soon(parent.call(Header::new(), spawn)).await.unwrap().unwrap();
    assert_eq!(soon(child.call(Header::new(), |reply| Do::Echo(1, reply))).await, Ok(1));
    settle().await;
    let name = Name::new("child").unwrap();
    assert_eq!(
        soon(parent.call(Header::new(), |reply| Do::KillChild(name, reply))).await,
        Ok(true)
    );
    assert!(world.log.has("child dropped"));
}

#[tokio::test]
async fn an_actor_that_has_stayed_hears_of_the_end_of_its_first_child() {
    let world = World::new().await;
    let parent = world.start("parent").await;
    for number in 0..3 {
        let echoed = soon(parent.call(Header::new(), |reply| Do::Echo(number, reply))).await;
        assert_eq!(echoed, Ok(number));
        settle().await;
    }
    let spawn =
        |reply| Do::Spawn(Box::new(Probe::new("child", &world.log)), Spawn::default(), reply);
    let child = soon(parent.call(Header::new(), spawn)).await.unwrap().unwrap();
    child.tell(Header::new(), Do::Stop).await.unwrap();
    until(|| world.log.has("parent saw that child stopped")).await;
    assert_eq!(soon(parent.call(Header::new(), |reply| Do::Echo(9, reply))).await, Ok(9));
}

#[tokio::test]
async fn an_address_that_has_found_one_life_finds_the_next() {
    let world = World::new().await;
    let probe = world.start("a").await;
    let generation = || probe.call(Header::new(), Do::Generation);
    assert_eq!(soon(generation()).await, Ok(1));
    for next in 2..4 {
        let panicked = soon(probe.call(Header::new(), Do::Panic)).await;
        assert!(panicked.is_err(), "the actor lives on: {panicked:?}");
        world.pass_backoff();
        world.generation(&probe, next).await;
        assert_eq!(soon(generation()).await, Ok(next));
        assert_eq!(soon(probe.clone().call(Header::new(), Do::Generation)).await, Ok(next));
    }
}
