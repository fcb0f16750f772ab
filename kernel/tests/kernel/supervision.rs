//! Who is restarted, with whom, after how long, how often, and what is known of the dead.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use neuroflow_kernel::{
    Address, Backoff, CallError, Cause, ChildSpec, Generation, Header, Intensity, Name, Refusal,
    Restart, RestartPolicy, StartError, Strategy, Supervisor, limits,
};

use crate::probe::{Do, Gate, Probe, SECOND, World, hangs, policy, settle, soon, until};

async fn panic(probe: &Address<Do>) {
    assert_eq!(soon(probe.call(Header::new(), Do::Panic)).await, Err(CallError::Panicked));
    settle().await;
}

async fn stop(probe: &Address<Do>) {
    probe.tell(Header::new(), Do::Stop).await.unwrap();
    settle().await;
}

fn gone(probe: &Address<Do>) -> bool {
    let refused = probe.try_tell(Header::new(), Do::Note("x"));
    refused.is_err_and(|refused| refused.reason == Refusal::Stopped)
}

fn at(probe: &Address<Do>) -> Option<u32> {
    probe.generation().map(Generation::get)
}

#[tokio::test]
async fn permanent_always_transient_after_a_failure_temporary_never() {
    let world = World::new().await;
    let mut probes = Vec::new();
    for (name, restart) in [
        ("permanent", Restart::Permanent),
        ("transient", Restart::Transient),
        ("temporary", Restart::Temporary),
    ] {
        let (spec, probe) = world.spec(name);
        world.kernel.root().start(spec.restart(restart)).await.unwrap();
        probes.push(probe);
    }
    for probe in &probes {
        panic(probe).await;
    }
    world.pass_backoff();
    settle().await;
    let [permanent, transient, temporary] = &probes[..] else { unreachable!() };
    assert_eq!((at(permanent), at(transient), at(temporary)), (Some(2), Some(2), None));
    assert!(gone(temporary));
    for probe in [permanent, transient] {
        stop(probe).await;
    }
    world.pass_backoff();
    settle().await;
    assert_eq!((at(permanent), at(transient)), (Some(3), None));
    assert!(gone(transient));
    assert_eq!(world.kernel.census().count(), 2);
    assert_eq!(world.kernel.scope().names().len(), 1);
}

/// A team of three with this strategy.
async fn team(world: &World, strategy: Strategy, middle: Restart) -> Vec<Address<Do>> {
    let (specs, probes): (Vec<_>, Vec<_>) =
        ["a", "b", "c"].map(|name| world.spec(name)).into_iter().unzip();
    let restarts = [Restart::Permanent, middle, Restart::Permanent];
    let specs: Vec<ChildSpec> = specs
        .into_iter()
        .zip(restarts)
        .map(|(spec, restart): (ChildSpec, _)| spec.restart(restart))
        .collect();
    let (_, spec) = Supervisor::spec("team", policy(strategy), specs).unwrap();
    world.kernel.root().start(spec).await.unwrap();
    world.log.take();
    probes
}

#[tokio::test]
async fn one_for_one_restarts_the_one() {
    let world = World::new().await;
    let probes = team(&world, Strategy::OneForOne, Restart::Permanent).await;
    panic(&probes[1]).await;
    world.pass_backoff();
    world.generation(&probes[1], 2).await;
    assert_eq!(world.log.take(), ["b dropped", "b started"]);
    assert_eq!((at(&probes[0]), at(&probes[2])), (Some(1), Some(1)));
}

#[tokio::test]
async fn one_for_all_stops_the_others_in_reverse_and_starts_all_in_order() {
    let world = World::new().await;
    let probes = team(&world, Strategy::OneForAll, Restart::Permanent).await;
    panic(&probes[1]).await;
    assert_eq!(
        world.log.take(),
        ["b dropped", "c stopping", "c dropped", "a stopping", "a dropped"]
    );
    world.pass_backoff();
    world.generation(&probes[2], 2).await;
    assert_eq!(world.log.take(), ["a started", "b started", "c started"]);
}

#[tokio::test]
async fn rest_for_one_takes_those_along_that_started_later() {
    let world = World::new().await;
    let probes = team(&world, Strategy::RestForOne, Restart::Permanent).await;
    panic(&probes[1]).await;
    assert_eq!(world.log.take(), ["b dropped", "c stopping", "c dropped"]);
    world.pass_backoff();
    world.generation(&probes[2], 2).await;
    assert_eq!(world.log.take(), ["b started", "c started"]);
    assert_eq!(at(&probes[0]), Some(1));
}

/// The group's restart is one restart: while it waits, a name of any of them waits with it.
#[tokio::test]
async fn those_taken_along_are_restarting_and_not_gone() {
    let world = World::new().await;
    let probes = team(&world, Strategy::OneForAll, Restart::Permanent).await;
    panic(&probes[1]).await;
    let mut call = Box::pin(probes[0].call(Header::new(), Do::Generation));
    assert!(hangs(&mut call).await);
    world.pass_backoff();
    assert_eq!(soon(call).await, Ok(2));
}

#[tokio::test]
async fn a_temporary_sibling_in_a_one_for_all_group_is_not_restarted() {
    let world = World::new().await;
    let probes = team(&world, Strategy::OneForAll, Restart::Temporary).await;
    panic(&probes[2]).await;
    world.pass_backoff();
    world.generation(&probes[2], 2).await;
    assert_eq!(at(&probes[0]), Some(2));
    assert!(gone(&probes[1]));
    // Its own failure takes nobody along.
    let world = World::new().await;
    let probes = team(&world, Strategy::OneForAll, Restart::Temporary).await;
    panic(&probes[1]).await;
    assert_eq!((at(&probes[0]), at(&probes[2])), (Some(1), Some(1)));
}

/// A supervisor that is taken down and comes back has lost nothing but what was added later.
#[tokio::test]
async fn the_children_of_a_supervisor_that_is_taken_along_come_back_with_it() {
    let world = World::new().await;
    let (inner_child, below) = world.spec("below");
    let (first, probe) = world.spec("first");
    let (_, inner) =
        Supervisor::spec("inner", policy(Strategy::OneForOne), vec![inner_child]).unwrap();
    let (_, outer) =
        Supervisor::spec("outer", policy(Strategy::RestForOne), vec![first, inner]).unwrap();
    world.kernel.root().start(outer).await.unwrap();
    panic(&probe).await;
    let mut call = Box::pin(below.call(Header::new(), Do::Generation));
    assert!(hangs(&mut call).await);
    world.pass_backoff();
    assert_eq!(soon(call).await, Ok(2));
}

#[tokio::test]
async fn the_back_off_doubles_and_is_spread_by_jitter() {
    let backoff = Backoff { first: SECOND, max: SECOND * 5 };
    let world = World::with(RestartPolicy { backoff, ..policy(Strategy::OneForOne) }).await;
    let probe = world.start("a").await;
    for (generation, longest) in [(2, 1), (3, 2), (4, 4), (5, 5), (6, 5)] {
        panic(&probe).await;
        // Jitter takes away up to half.
        world.time.advance(SECOND * longest * 49 / 100);
        settle().await;
        assert_eq!(at(&probe), None, "too early for generation {generation}");
        world.time.advance(SECOND * longest * 51 / 100);
        world.generation(&probe, generation).await;
    }
    let delays: std::collections::HashSet<_> =
        [0.0, 0.3, 0.7, 1.0].map(|jitter| backoff.delay(2, jitter)).into_iter().collect();
    assert_eq!(delays.len(), 4);
}

#[tokio::test]
async fn too_many_restarts_in_the_window_end_the_supervisor() {
    let intensity = Intensity { restarts: 2, within: SECOND * 10 };
    let strict = RestartPolicy { intensity, ..policy(Strategy::OneForOne) };
    let world = World::new().await;
    let (spec, probe) = world.spec("a");
    let (_, spec) = Supervisor::spec("strict", strict, vec![spec]).unwrap();
    world.kernel.root().start(spec).await.unwrap();
    for generation in 2..=3 {
        panic(&probe).await;
        world.pass_backoff();
        world.generation(&probe, generation).await;
    }
    panic(&probe).await;
    // The supervisor has failed, and is itself restarted by the root.
    let dead = world.kernel.post_mortems();
    assert_eq!(dead[0].path.as_str(), "/strict");
    let Cause::Error(error) = &dead[0].cause else { panic!("{:?}", dead[0].cause) };
    assert!(error.to_string().starts_with("a was to be restarted more than 2 times"));
    world.pass_backoff();
    world.generation(&probe, 4).await;
}

#[tokio::test]
async fn a_window_that_has_passed_is_forgotten() {
    let intensity = Intensity { restarts: 1, within: SECOND * 10 };
    let world = World::with(RestartPolicy { intensity, ..policy(Strategy::OneForOne) }).await;
    let probe = world.start("a").await;
    for generation in 2..=5 {
        panic(&probe).await;
        world.time.advance(SECOND * 10);
        world.generation(&probe, generation).await;
    }
}

#[tokio::test]
async fn an_escalation_to_the_root_ends_the_kernel_and_tells_everyone_at_once() {
    let intensity = Intensity { restarts: 0, within: SECOND };
    let strict = RestartPolicy { intensity, ..RestartPolicy::default() };
    let world = World::with(strict).await;
    let bystander = world.start("bystander").await;
    let (spec, probe) = world.spec("a");
    let (_, spec) = Supervisor::spec("strict", strict, vec![spec]).unwrap();
    world.kernel.root().start(spec).await.unwrap();
    let mut kept = Box::pin(bystander.call(Header::new(), Do::Keep));
    assert!(hangs(&mut kept).await);
    let mut ended = Box::pin(world.kernel.ended());
    assert!(hangs(&mut ended).await);
    panic(&probe).await;
    soon(ended).await;
    assert!(soon(kept).await.is_err());
    until(|| world.kernel.census().count() == 0).await;
    assert!(gone(&probe) && gone(&bystander));
    let refused = soon(probe.call(Header::new(), Do::Generation)).await;
    assert_eq!(refused, Err(CallError::Refused(Refusal::Stopped)));
    assert!(world.kernel.scope().names().is_empty());
}

#[tokio::test]
async fn a_start_that_fails_during_a_restart_counts_towards_the_intensity() {
    let intensity = Intensity { restarts: 3, within: SECOND * 100 };
    let strict = RestartPolicy { intensity, ..policy(Strategy::OneForOne) };
    let world = World::new().await;
    let failing = Arc::new(AtomicUsize::new(0));
    let starts = Arc::clone(&failing);
    let adjust = move |probe: &mut Probe| probe.failing_starts = Arc::clone(&starts);
    let (spec, probe) = world.spec_of("a", adjust);
    let (_, spec) = Supervisor::spec("strict", strict, vec![spec]).unwrap();
    world.kernel.root().start(spec).await.unwrap();
    // One restart that works, after two that don't: all three count.
    failing.store(2, Ordering::SeqCst);
    panic(&probe).await;
    for _ in 0..3 {
        world.pass_backoff();
        settle().await;
    }
    assert_eq!(at(&probe), Some(4));
    panic(&probe).await;
    assert_eq!(world.kernel.post_mortems()[0].path.as_str(), "/strict");
}

/// One that doesn't start doesn't hold up those that do.
#[tokio::test]
async fn a_restart_that_fails_does_not_delay_unrelated_ones() {
    let world = World::new().await;
    let failing = Arc::new(AtomicUsize::new(0));
    let starts = Arc::clone(&failing);
    let adjust = move |probe: &mut Probe| probe.failing_starts = Arc::clone(&starts);
    let (spec, bad) = world.spec_of("bad", adjust);
    world.kernel.root().start(spec).await.unwrap();
    let good = world.start("good").await;
    failing.store(1, Ordering::SeqCst);
    panic(&bad).await;
    panic(&good).await;
    world.pass_backoff();
    world.generation(&good, 2).await;
    assert_eq!(at(&bad), None);
    world.pass_backoff();
    world.generation(&bad, 3).await;
}

/// In a group the order is kept: who comes after the one that failed again waits with it.
#[tokio::test]
async fn a_restart_that_fails_holds_up_the_rest_of_its_group() {
    for backoff in [policy(Strategy::RestForOne).backoff, Backoff::NONE] {
        let world = World::new().await;
        let failing = Arc::new(AtomicUsize::new(0));
        let starts = Arc::clone(&failing);
        let adjust = move |probe: &mut Probe| probe.failing_starts = Arc::clone(&starts);
        let (first, bad) = world.spec_of("first", adjust);
        let (second, good) = world.spec("second");
        let group = RestartPolicy { backoff, ..policy(Strategy::RestForOne) };
        let (_, spec) = Supervisor::spec("group", group, vec![first, second]).unwrap();
        world.kernel.root().start(spec).await.unwrap();
        failing.store(1, Ordering::SeqCst);
        panic(&bad).await;
        world.pass_backoff();
        settle().await;
        world.pass_backoff();
        world.generation(&good, 2).await;
        world.log.take();
        assert_eq!(at(&bad), Some(3));
    }
}

#[tokio::test]
async fn a_hundred_restarts_at_once() {
    let world = World::new().await;
    let mut probes = Vec::new();
    for number in 0..100 {
        let log = world.log.clone();
        let make = move || Probe::new("p", &log);
        let (spec, probe) = ChildSpec::new(&format!("p{number}"), make).unwrap();
        world.kernel.root().start(spec).await.unwrap();
        probes.push(probe);
    }
    let gate = Gate::new();
    for probe in &probes {
        probe.tell(Header::new(), Do::PanicInTask(gate.clone())).await.unwrap();
    }
    for _ in &probes {
        gate.arrived().await;
    }
    gate.open();
    until(|| probes.iter().all(|probe| at(probe).is_none())).await;
    settle().await;
    world.pass_backoff();
    for probe in &probes {
        assert_eq!(soon(probe.call(Header::new(), Do::Generation)).await, Ok(2));
    }
    assert_eq!(world.kernel.census().count(), 101);
    assert_eq!(world.kernel.post_mortems().len(), limits::POST_MORTEMS);
}

#[tokio::test]
async fn the_failing_message_and_the_last_ones_before_it_are_kept() {
    let world = World::new().await;
    let probe = world.start("a").await;
    for _ in 0..20 {
        probe.tell(Header::new(), Do::Note("x")).await.unwrap();
    }
    let header = world.within(SECOND * 7);
    assert!(soon(probe.call(header.clone(), Do::Panic)).await.is_err());
    settle().await;
    let dead = &world.kernel.post_mortems()[0];
    assert_eq!(
        (dead.path.as_str(), dead.kind, dead.generation),
        ("/a", "probe", Generation::FIRST)
    );
    assert_eq!(dead.cause.to_string(), "panicked: told to panic");
    let message = dead.message.as_ref().unwrap();
    assert_eq!((message.name, message.header.deadline()), ("panic", header.deadline()));
    assert_eq!(dead.trail.len(), limits::TRAIL_LENGTH);
    assert_eq!(dead.trail.first().map(|entry| (entry.number, entry.name)), Some((13, "note")));
    assert_eq!(dead.trail.last().map(|entry| (entry.number, entry.name)), Some((20, "note")));
    assert_eq!(world.kernel.census().post_mortems().len(), 1);
}

/// Also what isn't the handler: a message's own code must not end an actor unreported.
#[tokio::test]
async fn a_panic_in_the_code_of_a_message_is_reported_like_any_other() {
    use neuroflow_kernel::{Actor, Context, Message, Reply};
    struct Odd {
        _reply: Reply<u64>,
    }
    impl Message for Odd {
        fn name(&self) -> &'static str {
            panic!("no name")
        }
    }
    struct Takes;
    impl Actor for Takes {
        type Message = Odd;
        type Error = std::convert::Infallible;
        const KIND: &'static str = "takes";
        async fn handle(&mut self, _: Odd, _: &mut Context<Odd>) -> Result<(), Self::Error> {
            Ok(())
        }
    }
    let world = World::new().await;
    let (spec, address) = ChildSpec::new("takes", || Takes).unwrap();
    world.kernel.root().start(spec).await.unwrap();
    assert_eq!(
        soon(address.call(Header::new(), |reply| Odd { _reply: reply })).await,
        Err(CallError::Panicked)
    );
    settle().await;
    assert_eq!(world.kernel.post_mortems()[0].cause.to_string(), "panicked: no name");
    assert_eq!(address.mailbox_depth(), 0);
    world.pass_backoff();
    until(|| address.generation().is_some_and(|now| now.get() == 2)).await;
}

#[tokio::test]
async fn a_panic_in_a_hook_is_a_failure() {
    let world = World::new().await;
    let (spec, probe) = ChildSpec::new("a", {
        struct Fragile(Probe);
        impl neuroflow_kernel::Actor for Fragile {
            type Message = Do;
            type Error = crate::probe::Broken;
            const KIND: &'static str = "fragile";
            async fn handle(
                &mut self,
                what: Do,
                context: &mut neuroflow_kernel::Context<Do>,
            ) -> Result<(), Self::Error> {
                self.0.handle(what, context).await
            }
            async fn stopping(&mut self, _: &mut neuroflow_kernel::Context<Do>) {
                panic!("can't stop");
            }
        }
        impl Drop for Fragile {
            fn drop(&mut self) {
                assert_ne!(self.0.name, "worse", "can't even drop");
            }
        }
        let log = world.log.clone();
        move || Fragile(Probe::new("worse", &log))
    })
    .unwrap();
    world.kernel.root().start(spec.restart(Restart::Transient)).await.unwrap();
    stop(&probe).await;
    assert_eq!(world.kernel.post_mortems()[0].cause.to_string(), "panicked: can't stop");
    world.pass_backoff();
    world.generation(&probe, 2).await;
}

/// A supervisor of these children below the probe `a`.
async fn supervised(world: &World, own: Vec<ChildSpec>) -> Result<Supervisor, StartError> {
    let mut policy = policy(Strategy::OneForOne);
    policy.intensity.restarts = 0;
    let team = Box::new((Name::new("team").unwrap(), policy, own));
    let a = world.kernel.scope().lookup::<Do>("a").unwrap();
    soon(a.call(Header::new(), |reply| Do::Supervise(team, reply))).await.unwrap()
}

fn names(world: &World) -> Vec<String> {
    world.kernel.scope().names().iter().map(ToString::to_string).collect()
}

/// Whoever holds an address is told at once, and doesn't wait for a restart that never comes.
#[tokio::test]
async fn with_a_supervisor_below_an_actor_end_its_children_and_their_names() {
    let world = World::new().await;
    let a = world.start("a").await;
    for killed in [true, false] {
        let ((own, first), (dynamic, second)) = (world.spec("own"), world.spec("dynamic"));
        let team = supervised(&world, vec![own]).await.unwrap();
        soon(team.start(dynamic)).await.unwrap();
        assert_eq!(names(&world), ["/a", "/a/team/dynamic", "/a/team/own"]);
        if killed {
            let name = Name::new("team").unwrap();
            assert_eq!(
                soon(a.call(Header::new(), |reply| Do::KillChild(name, reply))).await,
                Ok(true)
            );
        } else {
            // It gives up.
            panic(&first).await;
        }
        until(|| world.kernel.census().count() == 2).await;
        assert_eq!(names(&world), ["/a"], "killed: {killed}");
        assert!(gone(&first) && gone(&second), "killed: {killed}");
    }
}

#[tokio::test]
async fn a_supervisor_below_an_actor_that_does_not_start_leaves_no_name_to_wait_for() {
    let world = World::new().await;
    world.start("a").await;
    let (before, first) = world.spec("before");
    let failing = |probe: &mut Probe| probe.failing_starts = Arc::new(AtomicUsize::new(1));
    let (fails, second) = world.spec_of("fails", failing);
    let (never, third) = world.spec("never");
    assert!(supervised(&world, vec![before, fails, never]).await.is_err());
    until(|| world.kernel.census().count() == 2).await;
    assert_eq!(names(&world), ["/a"]);
    for probe in [first, second, third] {
        assert!(gone(&probe));
    }
}

#[tokio::test]
async fn an_adopted_child_comes_back_with_its_supervisor_and_another_does_not() {
    let world = World::new().await;
    let mut impatient = policy(Strategy::OneForOne);
    impatient.intensity.restarts = 0;
    let (own, first) = world.spec("own");
    let (team, spec) = Supervisor::spec("team", impatient, vec![own]).unwrap();
    world.kernel.root().start(spec).await.unwrap();
    let ((adopted, second), (passing, third)) = (world.spec("adopted"), world.spec("passing"));
    team.adopt(adopted).await.unwrap();
    team.start(passing).await.unwrap();
    let failing = |probe: &mut Probe| probe.failing_starts = Arc::new(AtomicUsize::new(1));
    let (fails, fourth) = world.spec_of("fails", failing);
    assert!(team.adopt(fails).await.is_err());
    world.log.take();
    panic(&second).await;
    assert!(gone(&third) && gone(&fourth));
    world.pass_backoff();
    world.generation(&second, 2).await;
    assert_eq!((at(&first), at(&second)), (Some(2), Some(2)));
    let started = |line: &String| line.ends_with(" started");
    let log: Vec<String> = world.log.take().into_iter().filter(started).collect();
    assert_eq!(log, ["own started", "adopted started"]);
}

#[tokio::test]
async fn an_adopted_child_that_was_stopped_stays_so_and_its_name_may_be_adopted_anew() {
    let world = World::new().await;
    let mut impatient = policy(Strategy::OneForOne);
    impatient.intensity.restarts = 0;
    let (team, spec) = Supervisor::spec("team", impatient, vec![]).unwrap();
    world.kernel.root().start(spec).await.unwrap();
    let ((first, _), (second, again)) = (world.spec("stopped"), world.spec("stopped"));
    let ((ended, by_itself), (after, anew)) = (world.spec("ended"), world.spec("ended"));
    let (forgotten, last) = world.spec("forgotten");
    let stopped = first.name().clone();
    team.adopt(first).await.unwrap();
    assert!(team.stop_child(&stopped).await.unwrap());
    team.adopt(second).await.unwrap();
    team.adopt(ended.restart(Restart::Transient)).await.unwrap();
    stop(&by_itself).await;
    team.adopt(after).await.unwrap();
    let name = forgotten.name().clone();
    team.adopt(forgotten).await.unwrap();
    assert!(team.stop_child(&name).await.unwrap());
    world.log.take();
    panic(&again).await;
    world.pass_backoff();
    world.generation(&anew, 2).await;
    let started = |line: &String| line.ends_with(" started");
    let log: Vec<String> = world.log.take().into_iter().filter(started).collect();
    assert_eq!(log, ["stopped started", "ended started"]);
    assert!(at(&again) == Some(2) && gone(&last));
}

#[tokio::test]
async fn a_supervisor_may_take_as_long_to_start_as_its_children_together() {
    let world = World::new().await;
    let (gates, specs): (Vec<Gate>, Vec<ChildSpec>) = ["a", "b"]
        .map(|name| {
            let gate = Gate::new();
            let at_start = gate.clone();
            let wait = move |probe: &mut Probe| probe.at_start = Some(at_start.clone());
            (gate, world.spec_of(name, wait).0)
        })
        .into_iter()
        .unzip();
    let (_, spec) = Supervisor::spec("team", policy(Strategy::OneForOne), specs).unwrap();
    let mut start = Box::pin(world.kernel.root().start(spec));
    for gate in gates {
        assert!(hangs(&mut start).await);
        gate.arrived().await;
        world.time.advance(limits::START_DEADLINE * 2 / 3);
        assert!(hangs(&mut start).await);
        gate.open();
    }
    assert!(soon(start).await.is_ok());
}
