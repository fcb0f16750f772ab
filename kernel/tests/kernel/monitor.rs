//! Who watches an actor hears of its end once; who is linked to one goes down with it.

use std::convert::Infallible;

use neuroflow_kernel::{
    Actor, Address, Cause, ChildSpec, Context, Down, Fall, Generation, Header, Message, Monitor,
    Reply, Restart,
};

use crate::probe::{Do, SECOND, World, settle, soon, until};

/// Watches others, and keeps what it hears.
#[derive(Default)]
struct Watcher {
    heard: Vec<Down>,
    watch: Option<Monitor>,
}

enum Watch {
    Over(Address<Do>, Reply<()>),
    Tied(Address<Do>, Reply<()>),
    NoLonger(Reply<()>),
    Heard(Reply<Vec<Down>>),
    Down(Down),
}

impl Message for Watch {
    fn name(&self) -> &'static str {
        "watch"
    }
}

impl Actor for Watcher {
    type Message = Watch;
    type Error = Infallible;
    const KIND: &'static str = "watcher";

    async fn handle(
        &mut self,
        watch: Watch,
        context: &mut Context<Watch>,
    ) -> Result<(), Infallible> {
        let reply = match watch {
            Watch::Over(other, reply) => {
                self.watch = Some(context.monitor(&other, Watch::Down).unwrap());
                reply
            }
            Watch::Tied(other, reply) => {
                self.watch = Some(context.link(&other).unwrap());
                reply
            }
            Watch::NoLonger(reply) => {
                self.watch.take().unwrap().end();
                reply
            }
            Watch::Heard(reply) => {
                reply.send(self.heard.clone()).unwrap();
                return Ok(());
            }
            Watch::Down(down) => {
                self.heard.push(down);
                return Ok(());
            }
        };
        reply.send(()).unwrap();
        Ok(())
    }
}

async fn watcher(world: &World) -> Address<Watch> {
    let (spec, watcher) = ChildSpec::new("watcher", Watcher::default).unwrap();
    world.kernel.root().start(spec.restart(Restart::Temporary)).await.unwrap();
    watcher
}

async fn heard(watcher: &Address<Watch>) -> Vec<Down> {
    soon(watcher.call(Header::new(), Watch::Heard)).await.unwrap()
}

#[tokio::test]
async fn the_end_of_a_life_is_told_once_and_says_how() {
    let world = World::new().await;
    let (probe, watcher) = (world.start("probe").await, watcher(&world).await);
    soon(watcher.call(Header::new(), |reply| Watch::Over(probe.clone(), reply))).await.unwrap();
    settle().await;
    assert_eq!(heard(&watcher).await, []);
    assert!(soon(probe.call(Header::new(), Do::Panic)).await.is_err());
    settle().await;
    let down = heard(&watcher).await;
    assert_eq!(down, [Down::new(Some(Generation::FIRST), Fall::Failed)]);
    // The next life isn't the one that was watched.
    world.time.advance(SECOND);
    until(|| probe.generation() == Some(Generation::FIRST.next())).await;
    probe.tell(Header::new(), Do::Stop).await.unwrap();
    settle().await;
    assert_eq!(heard(&watcher).await.len(), 1);
}

#[tokio::test]
async fn what_was_over_before_is_told_too() {
    let world = World::new().await;
    let (probe, watcher) = (world.start("probe").await, watcher(&world).await);
    let life = probe.this_life().unwrap();
    assert!(soon(probe.call(Header::new(), Do::Panic)).await.is_err());
    world.time.advance(SECOND);
    until(|| probe.generation() == Some(Generation::FIRST.next())).await;
    assert_eq!(soon(life.down()).await.fall, Fall::Failed);
    soon(watcher.call(Header::new(), |reply| Watch::Over(life, reply))).await.unwrap();
    settle().await;
    assert_eq!(heard(&watcher).await[0].generation, Some(Generation::FIRST));
    let (_spec, never) = ChildSpec::new("never", Watcher::default).unwrap();
    assert_eq!(soon(never.down()).await, Down::new(None, Fall::Absent));
}

#[tokio::test]
async fn a_watch_that_was_ended_tells_nothing() {
    let world = World::new().await;
    let (probe, watcher) = (world.start("probe").await, watcher(&world).await);
    soon(watcher.call(Header::new(), |reply| Watch::Over(probe.clone(), reply))).await.unwrap();
    soon(watcher.call(Header::new(), Watch::NoLonger)).await.unwrap();
    assert!(soon(probe.call(Header::new(), Do::Panic)).await.is_err());
    settle().await;
    assert_eq!(heard(&watcher).await, []);
}

#[tokio::test]
async fn who_is_linked_goes_down_with_the_other_but_not_if_that_stops_in_good_order() {
    let world = World::new().await;
    let (probe, watcher) = (world.start("probe").await, watcher(&world).await);
    soon(watcher.call(Header::new(), |reply| Watch::Tied(probe.clone(), reply))).await.unwrap();
    let end = watcher.down();
    assert!(soon(probe.call(Header::new(), Do::Panic)).await.is_err());
    assert_eq!(soon(end).await.fall, Fall::Failed);
    let dead = world.kernel.post_mortems();
    let linked = dead.iter().find(|dead| dead.path.to_string() == "/watcher").unwrap();
    assert!(matches!(linked.cause, Cause::Linked { down } if down.fall == Fall::Failed));
    assert!(linked.cause.to_string().contains("has failed"), "{}", linked.cause);

    let world = World::new().await;
    let (probe, watcher) = (world.start("probe").await, self::watcher(&world).await);
    soon(watcher.call(Header::new(), |reply| Watch::Tied(probe.clone(), reply))).await.unwrap();
    let end = probe.down();
    probe.tell(Header::new(), Do::Stop).await.unwrap();
    assert_eq!(soon(end).await.fall, Fall::Stopped);
    settle().await;
    assert_eq!(heard(&watcher).await, []);
}
