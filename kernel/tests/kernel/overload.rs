//! Bounded mailboxes: back-pressure, messages given back, no place lost.

use neuroflow_kernel::{Address, Header, Name, Refusal, SendError, Spawn, Strategy, Supervisor};

use crate::probe::{Do, Gate, SECOND, World, hangs, policy, settle, soon, until};

/// A probe that waits at a gate, with `room` messages in its mailbox, which is full.
async fn full(world: &World, room: usize) -> (Address<Do>, Gate) {
    let (spec, probe) = world.spec("a");
    world.kernel.root().start(spec.mailbox(room)).await.unwrap();
    let gate = Gate::new();
    probe.tell(Header::new(), Do::Wait(gate.clone(), None)).await.unwrap();
    gate.arrived().await;
    for _ in 0..room {
        probe.try_tell(Header::new(), Do::Note("queued")).unwrap();
    }
    assert_eq!(probe.mailbox_depth(), room);
    (probe, gate)
}

fn is_overload(refused: &SendError<Do>) -> bool {
    matches!(refused.reason, Refusal::Overloaded { capacity: 2 })
        && matches!(refused.message, Do::Note("more"))
}

#[tokio::test]
async fn a_full_mailbox_refuses_at_once_or_at_the_deadline_and_gives_the_message_back() {
    let world = World::new().await;
    let (probe, gate) = full(&world, 2).await;
    assert!(is_overload(&probe.try_tell(Header::new(), Do::Note("more")).unwrap_err()));
    let header = world.within(SECOND);
    let mut waits = Box::pin(probe.tell(header, Do::Note("more")));
    assert!(hangs(&mut waits).await);
    world.time.advance(SECOND);
    assert!(is_overload(&soon(waits).await.unwrap_err()));
    gate.open();
    until(|| probe.mailbox_depth() == 0).await;
    probe.try_tell(Header::new(), Do::Note("more")).unwrap();
}

#[tokio::test]
async fn room_wakes_those_who_wait_in_the_order_in_which_they_came() {
    let world = World::new().await;
    let (probe, gate) = full(&world, 2).await;
    let mut first = Box::pin(probe.tell(Header::new(), Do::Note("first")));
    let mut second = Box::pin(probe.tell(Header::new(), Do::Note("second")));
    assert!(hangs(&mut first).await && hangs(&mut second).await);
    gate.open();
    soon(async { tokio::try_join!(second, first) }).await.unwrap();
    until(|| world.log.has("a second")).await;
    let log = world.log.take();
    assert_eq!(log, ["a started", "a queued", "a queued", "a first", "a second"]);
    assert_eq!(probe.mailbox_depth(), 0);
}

#[tokio::test]
async fn the_end_of_the_life_wakes_those_who_wait_for_room_in_it() {
    let world = World::new().await;
    let (spec, probe) = world.spec("a");
    world.kernel.root().start(spec.mailbox(1)).await.unwrap();
    let life = probe.this_life().unwrap();
    let gate = Gate::new();
    life.tell(Header::new(), Do::Wait(gate.clone(), None)).await.unwrap();
    gate.arrived().await;
    let mut panics = Box::pin(life.call(Header::new(), Do::Panic));
    assert!(hangs(&mut panics).await);
    let mut waits = Box::pin(life.tell(Header::new(), Do::Note("more")));
    let mut waits_too = Box::pin(life.tell(Header::new(), Do::Note("more")));
    assert!(hangs(&mut waits).await && hangs(&mut waits_too).await);
    gate.open();
    for waits in [waits, waits_too] {
        let refused = soon(waits).await.unwrap_err();
        assert!(matches!(refused.reason, Refusal::Stale { .. }));
        assert!(matches!(refused.message, Do::Note("more")));
    }
    assert!(soon(panics).await.is_err());
    assert_eq!(life.mailbox_depth(), 0);
}

/// The name outlives the life whose mailbox was full.
#[tokio::test]
async fn who_waits_for_room_by_name_is_taken_by_the_next_life() {
    let world = World::new().await;
    let (spec, probe) = world.spec("a");
    world.kernel.root().start(spec.mailbox(1)).await.unwrap();
    let gate = Gate::new();
    probe.tell(Header::new(), Do::Wait(gate.clone(), None)).await.unwrap();
    gate.arrived().await;
    let mut panics = Box::pin(probe.call(Header::new(), Do::Panic));
    assert!(hangs(&mut panics).await);
    let mut first = Box::pin(probe.tell(Header::new(), Do::Note("first")));
    let mut second = Box::pin(probe.tell(Header::new(), Do::Note("second")));
    assert!(hangs(&mut first).await && hangs(&mut second).await);
    gate.open();
    assert!(soon(panics).await.is_err());
    assert!(hangs(&mut first).await && hangs(&mut second).await);
    assert!(!world.log.has("a first"));
    world.pass_backoff();
    soon(async { tokio::try_join!(first, second) }).await.unwrap();
    until(|| world.log.has("a first") && world.log.has("a second")).await;
}

#[tokio::test]
async fn a_cancelled_wait_for_room_leaves_no_trace() {
    let world = World::new().await;
    let (probe, gate) = full(&world, 2).await;
    let mut waits = Box::pin(probe.tell(Header::new(), Do::Note("cancelled")));
    assert!(hangs(&mut waits).await);
    drop(waits);
    gate.open();
    until(|| probe.mailbox_depth() == 0).await;
    for _ in 0..2 {
        probe.try_tell(Header::new(), Do::Note("more")).unwrap();
    }
    settle().await;
    assert!(!world.log.has("a cancelled"));
}

#[tokio::test]
async fn any_capacity_is_lawful() {
    let world = World::new().await;
    for (name, room) in [("none", 0), ("all", usize::MAX)] {
        let (spec, probe) = world.spec(name);
        world.kernel.root().start(spec.mailbox(room)).await.unwrap();
        assert_eq!(soon(probe.call(Header::new(), |reply| Do::Echo(1, reply))).await, Ok(1));
        assert_eq!(probe.mailbox_depth(), 0);
    }
    assert!(format!("{:?}", Spawn::default().mailbox(0)).contains("mailbox: 1"));
}

/// A supervisor's own reminder needs no place in its mailbox, which others may keep full.
#[tokio::test]
async fn a_busy_supervisor_restarts_all_the_same() {
    let world = World::new().await;
    let (supervisor, spec) = Supervisor::spec("s", policy(Strategy::OneForOne), vec![]).unwrap();
    world.kernel.root().start(spec.mailbox(1)).await.unwrap();
    let (spec, probe) = world.spec("a");
    supervisor.start(spec).await.unwrap();
    let slow = Gate::new();
    let at_start = slow.clone();
    let (spec, _) = world.spec_of("slow", move |probe| probe.at_start = Some(at_start.clone()));
    assert!(soon(probe.call(Header::new(), Do::Panic)).await.is_err());
    settle().await;
    // Busy with a start that hangs, and with a mailbox that is full, when the back-off is over.
    let mut busy = Box::pin(supervisor.start(spec));
    assert!(hangs(&mut busy).await);
    slow.arrived().await;
    let name = Name::new("nobody").unwrap();
    let mut fills = Box::pin(supervisor.stop_child(&name));
    assert!(hangs(&mut fills).await);
    world.pass_backoff();
    settle().await;
    slow.open();
    soon(busy).await.unwrap();
    assert_eq!(soon(fills).await, Ok(false));
    world.generation(&probe, 2).await;
}
