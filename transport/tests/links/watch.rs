//! The end of an actor on another node, told as if it had been here.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use neuroflow_kernel::{
    Actor, Address, AskError, Cause, ChildSpec, Context, Down, Fall, Generation, Header, Message,
    Monitor, Name, Refusal, Reply, Request, Restart, StreamError,
};
use neuroflow_transport::{Allowed, LifeError};

use crate::world::{Node, Work, World, all, soon, until};

/// Watches an actor of another node, and keeps what it hears.
struct Watcher {
    heard: Arc<Mutex<Vec<Down>>>,
    watch: Option<Monitor>,
}

enum Watch {
    Over(Address<Request<Work>>, Reply<()>),
    Tied(Address<Request<Work>>, Reply<()>),
    NoLonger(Reply<()>),
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
            Watch::Down(down) => {
                self.heard.lock().unwrap().push(down);
                return Ok(());
            }
        };
        reply.send(()).unwrap();
        Ok(())
    }
}

type Heard = Arc<Mutex<Vec<Down>>>;

async fn watcher(node: &Node) -> (Address<Watch>, Heard) {
    let heard = Heard::default();
    let own = Arc::clone(&heard);
    let make = move || Watcher { heard: Arc::clone(&own), watch: None };
    let (spec, watcher) = ChildSpec::new("watcher", make).unwrap();
    node.kernel.root().start(spec.restart(Restart::Temporary)).await.unwrap();
    (watcher, heard)
}

async fn watch(watcher: &Address<Watch>, far: &Address<Request<Work>>) {
    soon(watcher.call(Header::new(), |reply| Watch::Over(far.clone(), reply))).await.unwrap();
}

/// Asks the node for what comes behind the watch on the same link, so that the watch is there.
async fn is_watched(a: &Node, far: &str) {
    soon(a.links.this_life::<Work>(far)).await.unwrap();
}

async fn panics(node: &Node) {
    let panic = Work { panic: true, ..Work::default() };
    let life = node.worker.generation().unwrap();
    assert_eq!(all(&node.worker, &panic).await, Err(StreamError::Panicked));
    until(|| node.worker.generation() == Some(life.next())).await;
}

#[tokio::test]
async fn the_end_of_an_actor_elsewhere_is_told_once_and_says_how() {
    let (a, b) = World::new().pair().await;
    let far = a.far("agent://b/worker");
    let (watcher, heard) = watcher(&a).await;
    watch(&watcher, &far).await;
    is_watched(&a, "agent://b/worker").await;
    panics(&b).await;
    until(|| !heard.lock().unwrap().is_empty()).await;
    assert_eq!(*heard.lock().unwrap(), [Down::new(Some(Generation::FIRST), Fall::Failed)]);
    // The one that was watched isn't there any more, and the others' ends aren't told.
    watch(&watcher, &far).await;
    is_watched(&a, "agent://b/worker").await;
    b.kernel.root().stop_child(&Name::new("worker").unwrap()).await.unwrap();
    until(|| heard.lock().unwrap().len() == 2).await;
    let second = Down::new(Some(Generation::FIRST.next()), Fall::Stopped);
    assert_eq!(heard.lock().unwrap()[1], second);
    b.kernel.stop().await;
    a.has_lost("b").await;
    assert_eq!(heard.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn the_loss_of_a_node_or_of_the_link_is_told_once() {
    let world = World::new();
    let (a, b) = world.pair().await;
    let (watcher, heard) = watcher(&a).await;
    watch(&watcher, &a.far("agent://b/worker")).await;
    is_watched(&a, "agent://b/worker").await;
    let end = a.far("agent://b/worker").down();
    drop(b.kernel);
    until(|| !heard.lock().unwrap().is_empty()).await;
    assert_eq!(*heard.lock().unwrap(), [Down::new(Some(Generation::FIRST), Fall::Lost)]);
    assert_eq!(soon(end).await.fall, Fall::Lost);

    let b = world.node("c").await;
    a.links.try_dial(b.address()).await.unwrap();
    b.has_link_to("a").await;
    watch(&watcher, &a.far("agent://c/worker")).await;
    is_watched(&a, "agent://c/worker").await;
    b.links.revoke(a.links.id());
    until(|| heard.lock().unwrap().len() == 2).await;
    assert_eq!(heard.lock().unwrap()[1].fall, Fall::Lost);
    panics(&b).await;
    assert_eq!(heard.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_watch_that_was_ended_tells_nothing() {
    let (a, b) = World::new().pair().await;
    let (watcher, heard) = watcher(&a).await;
    watch(&watcher, &a.far("agent://b/worker")).await;
    is_watched(&a, "agent://b/worker").await;
    soon(watcher.call(Header::new(), Watch::NoLonger)).await.unwrap();
    let other = a.far("agent://b/worker").down();
    let other = tokio::join!(other, async {
        is_watched(&a, "agent://b/worker").await;
        panics(&b).await;
    });
    assert_eq!(other.0.fall, Fall::Failed);
    assert!(heard.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_isnt_offered_or_isnt_linked_is_told_at_once() {
    let (a, b) = World::new().pair().await;
    assert_eq!(soon(a.far("agent://b/nobody").down()).await, Down::new(None, Fall::Absent));
    assert_eq!(soon(a.far("agent://z/worker").down()).await, Down::new(None, Fall::Lost));
    let only = Allowed::Role("boss".into());
    b.links.export("secret", b.worker.clone(), only).unwrap();
    assert_eq!(soon(a.far("agent://b/secret").down()).await.fall, Fall::Absent);
    let later = a.far("agent://b/worker#7");
    assert_eq!(soon(later.down()).await, Down::new(later_life(7), Fall::Absent));
    let refused = b.links.export("neuroflow.watch", b.worker.clone(), Allowed::Everyone);
    assert_eq!(refused, Err(neuroflow_transport::ExportError::Reserved));
}

fn later_life(number: u32) -> Option<Generation> {
    Generation::new(number)
}

#[tokio::test]
async fn who_is_linked_to_an_actor_elsewhere_goes_down_with_it() {
    let (a, b) = World::new().pair().await;
    let far = a.far("agent://b/worker");
    let (watcher, _) = watcher(&a).await;
    soon(watcher.call(Header::new(), |reply| Watch::Tied(far.clone(), reply))).await.unwrap();
    is_watched(&a, "agent://b/worker").await;
    let end = watcher.down();
    panics(&b).await;
    assert_eq!(soon(end).await.fall, Fall::Failed);
    let dead = a.kernel.post_mortems();
    let linked = dead.iter().find(|dead| dead.path.to_string() == "/watcher").unwrap();
    assert!(matches!(linked.cause, Cause::Linked { down } if down.fall == Fall::Failed));
}

#[tokio::test]
async fn the_address_of_a_life_is_stale_after_a_restart() {
    let (a, b) = World::new().pair().await;
    let life = soon(a.links.this_life::<Work>("agent://b/worker")).await.unwrap();
    assert_eq!(all(&life, &Work::default()).await, Ok(vec![]));
    panics(&b).await;
    assert_eq!(all(&life, &Work::default()).await, Err(StreamError::Stale));
    assert_eq!(soon(life.down()).await, Down::new(Some(Generation::FIRST), Fall::Absent));
    let next = soon(a.links.this_life::<Work>("agent://b/worker")).await.unwrap();
    assert_eq!(all(&next, &Work::default()).await, Ok(vec![]));
    assert_eq!(all(&a.far("agent://b/worker"), &Work::default()).await, Ok(vec![]));
    let none = soon(a.links.this_life::<Work>("agent://b/nobody")).await.unwrap_err();
    assert!(matches!(none, LifeError::Absent { .. }));
    let none = soon(a.links.this_life::<Work>("agent://z/worker")).await.unwrap_err();
    assert!(matches!(none, LifeError::Remote(_)));
    let own = soon(b.links.this_life::<Work>("agent://b/worker")).await.unwrap();
    assert_eq!(own.generation(), Some(Generation::FIRST.next()));
}

#[tokio::test]
async fn the_address_of_a_life_is_stale_after_its_node_began_anew() {
    let world = World::new();
    let a = world.node("a").await;
    let credential = world.credential("b", &[]);
    let b = world.node_as(&credential).await;
    a.links.dial(b.address()).await;
    a.has_link_to("b").await;
    let life = soon(a.links.this_life::<Work>("agent://b/worker")).await.unwrap();
    assert_eq!(all(&life, &Work::default()).await, Ok(vec![]));
    b.kernel.stop().await;
    a.has_lost("b").await;
    // Another port: the old one may be somebody else's by now.
    let b = world.node_as(&credential).await;
    b.links.dial(a.address()).await;
    a.has_link_to("b").await;
    // The first life there as well, of another start of the node.
    let refused = soon(life.ask(Header::new(), &Work::default())).await.unwrap_err();
    let stale = Refusal::Stale { generation: Generation::FIRST };
    assert!(matches!(refused, AskError::Refused(ref why) if *why == stale), "{refused}");
    assert_eq!(soon(life.down()).await.fall, Fall::Absent);
    assert_eq!(b.ledger.begun(), 0);
}
