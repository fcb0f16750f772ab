//! `tell` and `call`: answers, typed errors at once, deadlines, cancellation.

use neuroflow_kernel::{CallError, Generation, Header, Name, Refusal, Spawn, limits};

use crate::probe::{Do, Gate, Probe, SECOND, World, hangs, settle, soon, until};

#[tokio::test]
async fn a_call_is_answered_and_a_tell_is_handled_in_order() {
    let world = World::new().await;
    let probe = world.start("a").await;
    probe.tell(Header::new(), Do::Note("first")).await.unwrap();
    probe.try_tell(Header::new(), Do::Note("second")).unwrap();
    assert_eq!(soon(probe.call(Header::new(), |reply| Do::Echo(7, reply))).await, Ok(7));
    assert_eq!(world.log.take(), ["a started", "a first", "a second"]);
}

#[tokio::test]
async fn the_caller_of_a_panicking_handler_is_told_at_once() {
    let world = World::new().await;
    let probe = world.start("a").await;
    assert_eq!(soon(probe.call(Header::new(), Do::Panic)).await, Err(CallError::Panicked));
}

#[tokio::test]
async fn the_caller_of_a_failing_handler_is_told_at_once() {
    let world = World::new().await;
    let probe = world.start("a").await;
    assert_eq!(soon(probe.call(Header::new(), Do::Fail)).await, Err(CallError::Unanswered));
}

#[tokio::test]
async fn a_reply_that_is_let_go_of_tells_the_caller() {
    let world = World::new().await;
    let probe = world.start("a").await;
    assert_eq!(soon(probe.call(Header::new(), Do::LetGo)).await, Err(CallError::Unanswered));
}

#[tokio::test]
async fn a_reply_kept_by_an_actor_that_panics_tells_the_caller() {
    let world = World::new().await;
    let probe = world.start("a").await;
    let (kept, panicked) = soon(async {
        tokio::join!(probe.call(Header::new(), Do::Keep), probe.call(Header::new(), Do::Panic),)
    })
    .await;
    assert_eq!(kept, Err(CallError::Panicked));
    assert_eq!(panicked, Err(CallError::Panicked));
}

#[tokio::test]
async fn a_reply_kept_by_an_actor_that_stops_tells_the_caller() {
    let world = World::new().await;
    let probe = world.start("a").await;
    let (kept, _) = soon(async {
        tokio::join!(probe.call(Header::new(), Do::Keep), probe.tell(Header::new(), Do::Stop),)
    })
    .await;
    assert_eq!(kept, Err(CallError::Unanswered));
}

#[tokio::test]
async fn those_who_wait_in_the_mailbox_of_a_panicking_actor_are_refused_at_once() {
    let world = World::new().await;
    let probe = world.start("a").await;
    let gate = Gate::new();
    probe.tell(Header::new(), Do::Wait(gate.clone(), None)).await.unwrap();
    gate.arrived().await;
    let mut panics = Box::pin(probe.call(Header::new(), Do::Panic));
    let mut waits = Box::pin(probe.call(Header::new(), |reply| Do::Echo(1, reply)));
    assert!(hangs(&mut panics).await);
    assert!(hangs(&mut waits).await);
    gate.open();
    assert_eq!(soon(panics).await, Err(CallError::Panicked));
    let stale = Refusal::Stale { generation: Generation::FIRST };
    assert_eq!(soon(waits).await, Err(CallError::Refused(stale)));
}

/// A failing actor lets its children stop in order, which may take long; its callers don't wait.
#[tokio::test]
async fn those_who_wait_are_refused_before_the_children_of_the_failed_actor_have_stopped() {
    let world = World::new().await;
    let parent = world.start("parent").await;
    let slow = Gate::new();
    let mut child = Probe::new("child", &world.log);
    child.at_stop = Some(slow.clone());
    let spawn = |reply| Do::Spawn(Box::new(child), Spawn::default(), reply);
    soon(parent.call(Header::new(), spawn)).await.unwrap().unwrap();

    let gate = Gate::new();
    parent.tell(Header::new(), Do::Wait(gate.clone(), None)).await.unwrap();
    gate.arrived().await;
    let mut kept = Box::pin(parent.call(Header::new(), Do::Keep));
    let mut panics = Box::pin(parent.call(Header::new(), Do::Panic));
    let mut waits = Box::pin(parent.call(Header::new(), |reply| Do::Echo(1, reply)));
    assert!(hangs(&mut kept).await && hangs(&mut panics).await && hangs(&mut waits).await);
    gate.open();
    slow.arrived().await;
    assert_eq!(soon(panics).await, Err(CallError::Panicked));
    assert_eq!(soon(kept).await, Err(CallError::Panicked));
    assert!(matches!(soon(waits).await, Err(CallError::Refused(Refusal::Stale { .. }))));
    slow.open();
}

#[tokio::test]
async fn those_who_wait_are_refused_as_soon_as_the_actor_begins_to_stop() {
    let world = World::new().await;
    let hook = Gate::new();
    let at_stop = hook.clone();
    let (spec, probe) = world.spec_of("a", move |probe| probe.at_stop = Some(at_stop.clone()));
    world.kernel.root().start(spec).await.unwrap();
    let gate = Gate::new();
    probe.tell(Header::new(), Do::Wait(gate.clone(), None)).await.unwrap();
    gate.arrived().await;
    let mut waits = Box::pin(probe.call(Header::new(), |reply| Do::Echo(1, reply)));
    assert!(hangs(&mut waits).await);
    let life = probe.this_life().unwrap();
    let name = Name::new("a").unwrap();
    let mut stop = Box::pin(world.kernel.root().stop_child(&name));
    assert!(hangs(&mut stop).await);
    gate.open();
    hook.arrived().await;
    assert_eq!(soon(waits).await, Err(CallError::Refused(Refusal::Stopped)));
    let late = soon(life.call(Header::new(), |reply| Do::Echo(1, reply))).await;
    assert_eq!(late, Err(CallError::Refused(Refusal::Stopped)));
    assert_eq!(life.mailbox_depth(), 0);
    hook.open();
    assert_eq!(soon(stop).await, Ok(true));
}

#[tokio::test]
async fn a_call_ends_at_its_deadline_and_not_before() {
    let world = World::new().await;
    let probe = world.start("a").await;
    let mut call = Box::pin(probe.call(world.within(5 * SECOND), Do::Keep));
    assert!(hangs(&mut call).await);
    world.time.advance(4 * SECOND);
    assert!(hangs(&mut call).await);
    world.time.advance(SECOND);
    assert_eq!(soon(call).await, Err(CallError::DeadlineExceeded));
}

#[tokio::test]
async fn a_call_without_a_deadline_has_the_default_one() {
    let world = World::new().await;
    let probe = world.start("a").await;
    let mut call = Box::pin(probe.call(Header::new(), Do::Keep));
    assert!(hangs(&mut call).await);
    world.time.advance(limits::CALL_DEADLINE);
    assert_eq!(soon(call).await, Err(CallError::DeadlineExceeded));
}

/// Only one message waits: the shortest backlog there is.
#[tokio::test]
async fn a_message_whose_deadline_has_passed_in_the_backlog_is_not_handled() {
    let world = World::new().await;
    let probe = world.start("a").await;
    let gate = Gate::new();
    probe.tell(Header::new(), Do::Wait(gate.clone(), None)).await.unwrap();
    gate.arrived().await;
    probe.tell(world.within(SECOND), Do::Note("too late")).await.unwrap();
    world.time.advance(2 * SECOND);
    gate.open();
    assert_eq!(soon(probe.call(Header::new(), |reply| Do::Echo(1, reply))).await, Ok(1));
    assert!(!world.log.has("a too late"));
}

/// Only a call has a deadline that it didn't ask for: its caller hears that it has passed.
#[tokio::test]
async fn what_was_told_without_a_deadline_is_handled_however_long_it_lies_in_the_mailbox() {
    let world = World::new().await;
    let probe = world.start("a").await;
    let gate = Gate::new();
    probe.tell(Header::new(), Do::Wait(gate.clone(), None)).await.unwrap();
    gate.arrived().await;
    probe.tell(Header::new(), Do::Note("told")).await.unwrap();
    let mut called = Box::pin(probe.call(Header::new(), |reply| Do::Echo(1, reply)));
    assert!(hangs(&mut called).await);
    world.time.advance(2 * limits::CALL_DEADLINE);
    assert_eq!(soon(called).await, Err(CallError::DeadlineExceeded));
    gate.open();
    assert_eq!(soon(probe.call(Header::new(), |reply| Do::Echo(1, reply))).await, Ok(1));
    assert!(world.log.has("a told"));
}

#[tokio::test]
async fn a_message_whose_deadline_has_passed_is_not_taken_and_comes_back() {
    let world = World::new().await;
    let probe = world.start("a").await;
    let late = world.within(SECOND);
    world.time.advance(SECOND);
    let refused = probe.tell(late.clone(), Do::Note("too late")).await.unwrap_err();
    assert_eq!(refused.reason, Refusal::Expired);
    assert!(matches!(refused.message, Do::Note("too late")));
    let refused = probe.try_tell(late.clone(), Do::Note("too late")).unwrap_err();
    assert_eq!(refused.reason, Refusal::Expired);
    let refused = soon(probe.call(late, |reply| Do::Echo(1, reply))).await;
    assert_eq!(refused, Err(CallError::DeadlineExceeded));
    settle().await;
    assert_eq!(world.log.take(), ["a started"]);
}

#[tokio::test]
async fn dropping_the_call_closes_the_reply() {
    let world = World::new().await;
    let probe = world.start("a").await;
    let gate = Gate::new();
    let mut call =
        Box::pin(probe.call(Header::new(), |reply| Do::UntilClosed(gate.clone(), reply)));
    assert!(hangs(&mut call).await);
    gate.arrived().await;
    assert!(!world.log.has("a saw the caller go"));
    drop(call);
    until(|| world.log.has("a saw the caller go")).await;
}

#[tokio::test]
async fn a_deadline_closes_the_reply_too() {
    let world = World::new().await;
    let probe = world.start("a").await;
    let gate = Gate::new();
    let header = world.within(SECOND);
    let mut call = Box::pin(probe.call(header, |reply| Do::UntilClosed(gate.clone(), reply)));
    assert!(hangs(&mut call).await);
    world.time.advance(SECOND);
    assert_eq!(soon(call).await, Err(CallError::DeadlineExceeded));
    until(|| world.log.has("a saw the caller go")).await;
}

#[tokio::test]
async fn an_address_of_one_life_is_stale_after_a_restart_while_the_name_works() {
    let world = World::new().await;
    let named = world.start("a").await;
    let life = named.this_life().unwrap();
    assert_eq!(soon(named.call(Header::new(), Do::Panic)).await, Err(CallError::Panicked));
    settle().await;
    world.pass_backoff();
    assert_eq!(soon(named.call(Header::new(), Do::Generation)).await, Ok(2));
    let stale = Refusal::Stale { generation: Generation::FIRST };
    let refused = soon(life.call(Header::new(), Do::Generation)).await;
    assert_eq!(refused, Err(CallError::Refused(stale.clone())));
    assert_eq!(life.try_tell(Header::new(), Do::Note("x")).unwrap_err().reason, stale);
    assert_eq!(named.this_life().unwrap().generation().map(Generation::get), Some(2));
}

#[tokio::test]
async fn a_call_by_name_waits_for_the_restart() {
    let world = World::new().await;
    let named = world.start("a").await;
    assert_eq!(soon(named.call(Header::new(), Do::Panic)).await, Err(CallError::Panicked));
    settle().await;
    let refused = named.try_tell(Header::new(), Do::Note("x")).unwrap_err();
    assert_eq!(refused.reason, Refusal::Restarting);
    let mut call = Box::pin(named.call(Header::new(), Do::Generation));
    assert!(hangs(&mut call).await);
    world.pass_backoff();
    assert_eq!(soon(call).await, Ok(2));
}

#[tokio::test]
async fn an_actor_that_was_never_started_is_named_so() {
    let world = World::new().await;
    let (_spec, never) = world.spec("never");
    let refused = never.tell(Header::new(), Do::Note("x")).await.unwrap_err();
    assert_eq!(refused.reason, Refusal::Restarting);
    assert!(matches!(refused.message, Do::Note("x")));
}

#[tokio::test]
async fn a_stop_overtakes_the_work_that_waits() {
    let world = World::new().await;
    let probe = world.start("a").await;
    let life = probe.this_life().unwrap();
    let gate = Gate::new();
    life.tell(Header::new(), Do::Wait(gate.clone(), None)).await.unwrap();
    gate.arrived().await;
    for _ in 0..10 {
        life.tell(Header::new(), Do::Note("work")).await.unwrap();
    }
    let name = Name::new("a").unwrap();
    let mut stop = Box::pin(world.kernel.root().stop_child(&name));
    assert!(hangs(&mut stop).await);
    gate.open();
    assert_eq!(soon(stop).await, Ok(true));
    assert_eq!(world.log.take(), ["a started", "a stopping", "a dropped"]);
    assert_eq!(life.mailbox_depth(), 0);
}

/// The two wait for one another, until the child's stop deadline.
#[tokio::test]
async fn a_child_that_calls_the_supervisor_that_stops_it_is_killed_at_its_deadline() {
    let world = World::new().await;
    let probe = world.start("a").await;
    let (other, _) = world.spec("b");
    let gate = Gate::new();
    let below = Box::new((world.kernel.root().clone(), other));
    probe.tell(Header::new(), Do::StartBelow(gate.clone(), below)).await.unwrap();
    gate.arrived().await;
    let name = Name::new("a").unwrap();
    let mut stop = Box::pin(world.kernel.root().stop_child(&name));
    assert!(hangs(&mut stop).await);
    gate.open();
    assert!(hangs(&mut stop).await);
    world.time.advance(limits::STOP_DEADLINE);
    assert_eq!(soon(stop).await, Ok(true));
    assert!(world.log.has("a dropped"));
}
