//! Starts in order, stops in reverse, nothing left behind, whatever happens on the way.

use std::sync::Arc;

use neuroflow_kernel::{
    Actor, ActorState, Address, ChildSpec, Context, Ended, Generation, Header, Kernel, Name, Spawn,
    StartError, Strategy, Supervisor, limits,
};

use crate::probe::{
    Broken, Do, Dropped, Gate, Log, Probe, SECOND, World, hangs, policy, settle, soon, until,
};

fn nobody_left(world: &World) -> bool {
    world.kernel.tree().is_empty() && world.kernel.census().count() == 0
}

/// A supervisor below the root with these children of its own.
async fn team(world: &World, names: &[&'static str]) -> Supervisor {
    let children = names.iter().map(|name| world.spec(name).0).collect();
    let (supervisor, spec) =
        Supervisor::spec("team", policy(Strategy::OneForOne), children).unwrap();
    world.kernel.root().start(spec).await.unwrap();
    supervisor
}

async fn child_of(parent: &Address<Do>, probe: Probe, options: Spawn) -> Address<Do> {
    let spawn = |reply| Do::Spawn(Box::new(probe), options, reply);
    soon(parent.call(Header::new(), spawn)).await.unwrap().unwrap()
}

#[tokio::test]
async fn children_start_in_order_and_stop_in_reverse() {
    let world = World::new().await;
    let supervisor = team(&world, &["a", "b"]).await;
    supervisor.start(world.spec("c").0).await.unwrap();
    world.start("d").await;
    assert_eq!(world.log.take(), ["a started", "b started", "c started", "d started"]);
    let paths: Vec<String> = world.kernel.tree().iter().map(|a| a.path.to_string()).collect();
    assert_eq!(paths, ["/", "/d", "/team", "/team/a", "/team/b", "/team/c"]);
    soon(world.kernel.stop()).await;
    let stopped =
        ["d", "c", "b", "a"].map(|name| [format!("{name} stopping"), format!("{name} dropped")]);
    assert_eq!(world.log.take(), stopped.concat());
    assert!(nobody_left(&world));
    soon(world.kernel.ended()).await;
    soon(world.kernel.stop()).await;
}

#[tokio::test]
async fn each_child_has_its_own_deadline_to_stop_and_is_killed_past_it() {
    let world = World::new().await;
    let forever = Gate::new();
    for (name, deadline) in [("a", 3), ("b", 2)] {
        let gate = forever.clone();
        let (spec, _) = world.spec_of(name, move |probe| probe.at_stop = Some(gate.clone()));
        world.kernel.root().start(spec.stop_within(SECOND * deadline)).await.unwrap();
    }
    let mut stop = Box::pin(world.kernel.stop());
    assert!(hangs(&mut stop).await);
    world.time.advance(SECOND);
    assert!(hangs(&mut stop).await);
    assert_eq!(world.log.take(), ["a started", "b started", "b stopping"]);
    world.time.advance(SECOND);
    assert!(hangs(&mut stop).await);
    assert_eq!(world.log.take(), ["b dropped", "a stopping"]);
    world.time.advance(SECOND * 2);
    assert!(hangs(&mut stop).await);
    world.time.advance(SECOND);
    soon(stop).await;
    assert_eq!(world.log.take(), ["a dropped"]);
    assert!(nobody_left(&world));
}

/// Each of them stops within its own deadline; together they need more than one.
#[tokio::test]
async fn a_supervisor_gets_the_time_that_its_children_need() {
    let world = World::new().await;
    let gates = [Gate::new(), Gate::new()];
    let mut children = Vec::new();
    for (name, gate) in ["a", "b"].into_iter().zip(&gates) {
        let gate = gate.clone();
        children.push(world.spec_of(name, move |probe| probe.at_stop = Some(gate.clone())).0);
    }
    let (_, spec) = Supervisor::spec("team", policy(Strategy::OneForOne), children).unwrap();
    world.kernel.root().start(spec).await.unwrap();
    let mut stop = Box::pin(world.kernel.stop());
    for gate in gates.iter().rev() {
        assert!(hangs(&mut stop).await);
        gate.arrived().await;
        world.time.advance(SECOND * 4);
        assert!(hangs(&mut stop).await);
        gate.open();
    }
    soon(stop).await;
    assert!(nobody_left(&world));
}

#[tokio::test]
async fn a_handler_that_hangs_is_killed_at_the_stop_deadline_with_all_below_it() {
    let world = World::new().await;
    let parent = world.start("parent").await;
    let child = child_of(&parent, Probe::new("child", &world.log), Spawn::default()).await;
    child_of(&child, Probe::new("grandchild", &world.log), Spawn::default()).await;
    let forever = Gate::new();
    let waits = |reply| Do::Wait(forever.clone(), Some(reply));
    let mut call = Box::pin(parent.call(Header::new(), waits));
    assert!(hangs(&mut call).await);
    let name = Name::new("parent").unwrap();
    let mut stop = Box::pin(world.kernel.root().stop_child(&name));
    assert!(hangs(&mut stop).await);
    world.time.advance(limits::STOP_DEADLINE);
    assert_eq!(soon(stop).await, Ok(true));
    assert!(soon(call).await.is_err());
    until(|| world.kernel.census().count() == 1).await;
    for name in ["parent", "child", "grandchild"] {
        assert!(world.log.has(&format!("{name} dropped")), "{name}");
    }
}

/// What waits in a `stopping` hook is killed as well when its parent is.
#[tokio::test]
async fn a_kill_reaches_those_that_are_already_stopping() {
    let world = World::new().await;
    let parent = world.start("parent").await;
    let forever = Gate::new();
    let mut probe = Probe::new("child", &world.log);
    probe.at_stop = Some(forever.clone());
    child_of(&parent, probe, Spawn::default().stop_within(SECOND * 1_000)).await;
    let name = Name::new("parent").unwrap();
    let mut stop = Box::pin(world.kernel.root().stop_child(&name));
    assert!(hangs(&mut stop).await);
    forever.arrived().await;
    world.time.advance(limits::STOP_DEADLINE);
    assert_eq!(soon(stop).await, Ok(true));
    until(|| world.kernel.census().count() == 1).await;
    assert!(world.log.has("child dropped"));
}

#[tokio::test]
async fn stopping_the_kernel_within_a_deadline_kills_what_still_lives() {
    let world = World::new().await;
    let forever = Gate::new();
    let at_stop = forever.clone();
    let (spec, _) = world.spec_of("a", move |probe| probe.at_stop = Some(at_stop.clone()));
    world.kernel.root().start(spec.stop_within(SECOND * 1_000)).await.unwrap();
    let mut stop = Box::pin(world.kernel.stop_within(SECOND));
    assert!(hangs(&mut stop).await);
    world.time.advance(SECOND);
    assert!(!soon(stop).await);
    until(|| nobody_left(&world)).await;
    assert!(world.log.has("a dropped"));

    let world = World::new().await;
    world.start("a").await;
    assert!(soon(world.kernel.stop_within(SECOND)).await);
}

#[tokio::test]
async fn dropping_the_kernel_kills_everything() {
    let world = World::new().await;
    team(&world, &["a"]).await;
    let busy = world.start("busy").await;
    let forever = Gate::new();
    let child = child_of(&busy, Probe::new("child", &world.log), Spawn::default()).await;
    let waits = |reply| Do::Wait(forever.clone(), Some(reply));
    let mut call = Box::pin(child.call(Header::new(), waits));
    assert!(hangs(&mut call).await);
    let census = world.kernel.census();
    drop(world.kernel);
    assert!(soon(call).await.is_err());
    until(|| census.count() == 0).await;
    for name in ["a", "busy", "child"] {
        assert!(world.log.has(&format!("{name} dropped")), "{name}");
    }
    assert_eq!(
        busy.try_tell(Header::new(), Do::Note("x")).unwrap_err().reason,
        neuroflow_kernel::Refusal::Stopped
    );
}

#[tokio::test]
async fn children_of_a_failed_actor_are_stopped_and_its_own_value_is_dropped_first() {
    let world = World::new().await;
    let parent = world.start("parent").await;
    for name in ["first", "second"] {
        child_of(&parent, Probe::new(name, &world.log), Spawn::default()).await;
    }
    world.log.take();
    assert!(soon(parent.call(Header::new(), Do::Panic)).await.is_err());
    settle().await;
    assert_eq!(
        world.log.take(),
        ["parent dropped", "second stopping", "second dropped", "first stopping", "first dropped"]
    );
    world.pass_backoff();
    world.generation(&parent, 2).await;
    assert_eq!(world.kernel.census().count(), 2);
}

/// No two lives of an actor overlap: what the first held is free when the second starts.
#[tokio::test]
async fn a_life_is_over_before_the_next_begins() {
    let world = World::with(neuroflow_kernel::RestartPolicy {
        backoff: neuroflow_kernel::Backoff::NONE,
        ..policy(Strategy::OneForOne)
    })
    .await;
    let probe = world.start("a").await;
    let gate = Gate::new();
    let held = Dropped(world.log.clone(), "task".to_owned());
    probe.tell(Header::new(), Do::Task(gate.clone(), held)).await.unwrap();
    gate.arrived().await;
    assert!(soon(probe.call(Header::new(), Do::Panic)).await.is_err());
    world.generation(&probe, 2).await;
    assert_eq!(world.log.take(), ["a started", "a dropped", "task dropped", "a started"]);
    probe.tell(Header::new(), Do::Stop).await.unwrap();
    world.generation(&probe, 3).await;
    assert_eq!(world.log.take(), ["a stopping", "a dropped", "a started"]);
}

#[tokio::test]
async fn a_parent_hears_how_its_children_end() {
    let world = World::new().await;
    let parent = world.start("parent").await;
    for (name, end) in [("stops", Do::Stop), ("panics", Do::PanicInTask(opened()))] {
        let child = child_of(&parent, Probe::new(name, &world.log), Spawn::default()).await;
        child.tell(Header::new(), end).await.unwrap();
        settle().await;
    }
    assert!(world.log.has("parent saw that stops stopped"));
    assert!(world.log.has("parent saw that panics failed"));
    assert_eq!(world.kernel.census().count(), 2);

    let forever = Gate::new();
    let child = child_of(&parent, Probe::new("killed", &world.log), Spawn::default()).await;
    child.tell(Header::new(), Do::Wait(forever.clone(), None)).await.unwrap();
    forever.arrived().await;
    let kill = |name: &str| {
        let name = Name::new(name).unwrap();
        parent.call(Header::new(), |reply| Do::KillChild(name, reply))
    };
    assert_eq!(soon(kill("killed")).await, Ok(true));
    assert_eq!(soon(kill("killed")).await, Ok(false));
    assert!(world.log.has("killed dropped") && !world.log.has("killed stopping"));
    assert!(child.try_tell(Header::new(), Do::Note("x")).is_err());
    assert_eq!(world.kernel.census().count(), 2);
}

fn opened() -> Gate {
    let gate = Gate::new();
    gate.open();
    gate
}

#[tokio::test]
async fn a_task_that_panics_fails_its_actor_before_the_work_that_waits() {
    let world = World::new().await;
    let probe = world.start("a").await;
    let (task, busy) = (Gate::new(), Gate::new());
    probe.tell(Header::new(), Do::PanicInTask(task.clone())).await.unwrap();
    task.arrived().await;
    probe.tell(Header::new(), Do::Wait(busy.clone(), None)).await.unwrap();
    busy.arrived().await;
    probe.tell(Header::new(), Do::Note("work")).await.unwrap();
    task.open();
    settle().await;
    busy.open();
    settle().await;
    assert!(!world.log.has("a work"));
    let dead = &world.kernel.post_mortems()[0];
    assert_eq!(dead.cause.to_string(), "panicked: a task told to panic");
    world.pass_backoff();
    world.generation(&probe, 2).await;
}

#[tokio::test]
async fn siblings_have_different_names() {
    let world = World::new().await;
    let parent = world.start("parent").await;
    child_of(&parent, Probe::new("child", &world.log), Spawn::default()).await;
    let twin = Box::new(Probe::new("child", &world.log));
    let spawn = |reply| Do::Spawn(twin, Spawn::default(), reply);
    let refused = soon(parent.call(Header::new(), spawn)).await.unwrap();
    assert!(matches!(refused, Err(StartError::Taken { .. })));
    assert_eq!(world.kernel.census().count(), 3);
}

/// Its parent may be too busy to hear of the end before it starts another.
#[tokio::test]
async fn a_child_that_has_ended_frees_its_name_at_once() {
    let world = World::new().await;
    let parent = world.start("parent").await;
    let child = child_of(&parent, Probe::new("child", &world.log), Spawn::default()).await;
    let gate = Gate::new();
    let twin = Box::new(Probe::new("child", &world.log));
    let mut spawn =
        Box::pin(parent.call(Header::new(), |reply| Do::WaitAndSpawn(gate.clone(), twin, reply)));
    assert!(hangs(&mut spawn).await);
    child.tell(Header::new(), Do::Stop).await.unwrap();
    until(|| world.log.has("child dropped")).await;
    gate.open();
    let again = soon(spawn).await.unwrap().unwrap();
    settle().await;
    assert!(world.log.has("parent saw that child stopped"));
    assert_eq!(soon(again.call(Header::new(), |reply| Do::Echo(1, reply))).await, Ok(1));
    let kill = |reply| Do::KillChild(Name::new("child").unwrap(), reply);
    assert_eq!(soon(parent.call(Header::new(), kill)).await, Ok(true));
    assert_eq!(world.kernel.census().count(), 2);
}

#[tokio::test]
async fn a_start_that_fails_is_told_and_leaves_nothing() {
    let world = World::new().await;
    let failing = |probe: &mut Probe| probe.failing_starts = Arc::new(1.into());
    let (spec, never) = world.spec_of("a", failing);
    let refused = soon(world.kernel.root().start(spec)).await.unwrap_err();
    assert!(matches!(&refused, StartError::Failed { path, .. } if path.as_str() == "/a"));
    let (spec, _) = ChildSpec::new("b", || -> Probe { panic!("no probe") }).unwrap();
    let refused = soon(world.kernel.root().start(spec)).await.unwrap_err();
    assert!(matches!(refused, StartError::Failed { .. }));
    assert_eq!(world.kernel.post_mortems()[0].cause.to_string(), "panicked: no probe");
    assert_eq!(world.kernel.census().count(), 1);
    assert!(world.kernel.scope().names().is_empty());
    // Nobody will try again, and the name says so.
    let refused = soon(never.tell(Header::new(), Do::Note("x"))).await.unwrap_err();
    assert_eq!(refused.reason, neuroflow_kernel::Refusal::Stopped);
}

#[tokio::test]
async fn a_start_that_takes_too_long_is_given_up() {
    let world = World::new().await;
    let forever = Gate::new();
    let at_start = forever.clone();
    let (spec, _) = world.spec_of("slow", move |probe| probe.at_start = Some(at_start.clone()));
    let root = world.kernel.root().clone();
    let mut start = Box::pin(root.start(spec));
    assert!(hangs(&mut start).await);
    assert_eq!(world.kernel.tree()[1].state, ActorState::Starting);
    world.time.advance(limits::START_DEADLINE);
    assert!(matches!(soon(start).await, Err(StartError::TimedOut { .. })));
    assert_eq!(world.kernel.census().count(), 1);
    assert!(world.log.has("slow dropped"));
}

/// Has a child and a task before its start is over, which waits at a gate.
struct Nest {
    log: Log,
    gate: Gate,
    _dropped: Dropped,
}

impl Nest {
    fn new(log: &Log, gate: &Gate) -> Self {
        let dropped = Dropped(log.clone(), "nest".to_owned());
        Self { log: log.clone(), gate: gate.clone(), _dropped: dropped }
    }
}

impl Actor for Nest {
    type Message = Do;
    type Error = Broken;
    const KIND: &'static str = "nest";

    async fn started(&mut self, context: &mut Context<Do>) -> Result<(), Broken> {
        let egg = Probe::new("egg", &self.log);
        context.spawn(Name::new("egg").unwrap(), egg, Spawn::default()).await.unwrap();
        let dropped = Dropped(self.log.clone(), "task".to_owned());
        let work = async move {
            std::future::pending::<()>().await;
            drop(dropped);
        };
        assert!(context.task(work).is_ok());
        self.gate.pass().await;
        Ok(())
    }

    async fn handle(&mut self, _: Do, _: &mut Context<Do>) -> Result<(), Broken> {
        Ok(())
    }
}

/// Starts a nest when it's told something, and waits a second for it.
struct Impatient {
    log: Log,
    gate: Gate,
}

impl Actor for Impatient {
    type Message = Do;
    type Error = Broken;
    const KIND: &'static str = "impatient";

    async fn handle(&mut self, _: Do, context: &mut Context<Do>) -> Result<(), Broken> {
        let clock = context.clock().clone();
        let nest = Nest::new(&self.log, &self.gate);
        let start = context.spawn(Name::new("nest").unwrap(), nest, Spawn::default());
        let in_time = clock.before(clock.now() + SECOND, start).await;
        self.log.note(if in_time.is_ok() { "in time" } else { "given up" });
        Ok(())
    }

    async fn child_ended(&mut self, _: Ended, _: &mut Context<Do>) -> Result<(), Broken> {
        self.log.note("heard of an end");
        Ok(())
    }
}

#[tokio::test]
async fn a_start_that_is_given_up_midway_leaves_nothing() {
    let world = World::new().await;
    let gate = Gate::new();
    let (log, at_start) = (world.log.clone(), gate.clone());
    let make = move || Impatient { log: log.clone(), gate: at_start.clone() };
    let (spec, parent) = ChildSpec::new("parent", make).unwrap();
    world.kernel.root().start(spec).await.unwrap();
    parent.tell(Header::new(), Do::Note("start")).await.unwrap();
    gate.arrived().await;
    assert_eq!(world.kernel.census().count(), 4);
    world.time.advance(SECOND);
    until(|| world.log.has("given up")).await;
    until(|| ["nest", "egg", "task"].iter().all(|it| world.log.has(&format!("{it} dropped"))))
        .await;
    assert_eq!(world.kernel.census().count(), 2);
    // Its name is free, and of its end nobody hears.
    gate.open();
    parent.tell(Header::new(), Do::Note("start")).await.unwrap();
    until(|| world.log.has("in time")).await;
    settle().await;
    assert!(!world.log.has("heard of an end"));
    assert_eq!(world.kernel.census().count(), 4);
}

/// Starts a child that can't be made.
struct Unlucky;

impl Actor for Unlucky {
    type Message = Do;
    type Error = Broken;
    const KIND: &'static str = "unlucky";

    async fn handle(&mut self, told: Do, context: &mut Context<Do>) -> Result<(), Broken> {
        let Do::Echo(number, reply) = told else { return Ok(()) };
        let make = || -> Probe { panic!("no probe") };
        let made = context.spawn_made(Name::new("a").unwrap(), make, Spawn::default()).await;
        assert!(matches!(made, Err(StartError::Failed { .. })), "{made:?}");
        reply.send(number).unwrap();
        Ok(())
    }
}

#[tokio::test]
async fn a_child_that_cannot_be_made_fails_and_its_parent_goes_on() {
    let world = World::new().await;
    let (spec, parent) = ChildSpec::new("parent", || Unlucky).unwrap();
    world.kernel.root().start(spec).await.unwrap();
    for number in 0..2 {
        let echo = |reply| Do::Echo(number, reply);
        assert_eq!(soon(parent.call(Header::new(), echo)).await, Ok(number));
    }
    assert_eq!(world.kernel.census().count(), 2);
}

#[tokio::test]
async fn a_supervisor_whose_own_child_does_not_start_stops_those_that_did() {
    let world = World::new().await;
    let (good, _) = world.spec("good");
    let (bad, _) = world.spec_of("bad", |probe| probe.failing_starts = Arc::new(1.into()));
    let children = vec![good, bad];
    let (_, spec) = Supervisor::spec("team", policy(Strategy::OneForOne), children).unwrap();
    assert!(soon(world.kernel.root().start(spec)).await.is_err());
    assert!(world.log.has("good stopping") && world.log.has("good dropped"));
    assert_eq!(world.kernel.census().count(), 1);
    assert!(world.kernel.scope().names().is_empty());
}

/// A handler that blocks its thread can't be killed; its stop doesn't hang for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_never_awaits_does_not_hang_the_stop() {
    let kernel = Kernel::builder().start().await.unwrap();
    let log = Log::default();
    let (spec, probe) = ChildSpec::new("a", move || Probe::new("a", &log)).unwrap();
    kernel.root().start(spec.stop_within(SECOND / 100)).await.unwrap();
    let gate = Gate::new();
    probe.tell(Header::new(), Do::Block(gate.clone())).await.unwrap();
    gate.reached().await;
    let stopped = kernel.root().stop_child(&Name::new("a").unwrap()).await;
    let stuck = kernel.tree().iter().any(|actor| actor.state == ActorState::Ended);
    gate.open();
    assert_eq!((stopped, stuck), (Ok(true), true));
    while kernel.census().count() > 1 {
        kernel.clock().sleep(SECOND / 1_000).await;
    }
}

#[tokio::test]
async fn ten_thousand_actors_come_and_go_and_leave_an_empty_census() {
    const COUNT: usize = 10_000;
    let world = World::new().await;
    let log = Log::default();
    for number in 0..COUNT {
        let (name, log) = (format!("p{number}"), log.clone());
        let make = move || Probe::new("p", &log);
        let (spec, _) = ChildSpec::new(&name, make).unwrap();
        world
            .kernel
            .root()
            .start(spec.restart(neuroflow_kernel::Restart::Temporary))
            .await
            .unwrap();
    }
    assert_eq!(world.kernel.census().count(), COUNT + 1);
    assert_eq!(world.kernel.scope().names().len(), COUNT);
    // Half of them end by themselves, half with the kernel.
    for number in (0..COUNT).step_by(2) {
        let address = world.kernel.scope().lookup::<Do>(&format!("p{number}")).unwrap();
        address.try_tell(Header::new(), Do::Stop).unwrap();
    }
    until(|| world.kernel.census().count() == COUNT / 2 + 1).await;
    until(|| world.kernel.scope().names().len() == COUNT / 2).await;
    world.kernel.stop().await;
    assert!(nobody_left(&world));
    assert!(world.kernel.scope().names().is_empty());
    let dropped = log.take().iter().filter(|line| *line == "p dropped").count();
    assert_eq!(dropped, COUNT);
}

#[tokio::test]
async fn kernels_share_nothing() {
    let (one, other) = (World::new().await, World::new().await);
    one.start("a").await;
    assert_eq!(other.kernel.census().count(), 1);
    assert!(other.kernel.scope().lookup::<Do>("a").is_err());
    let third = Kernel::builder().start().await.unwrap();
    drop(one);
    assert_eq!(other.start("a").await.generation().map(Generation::get), Some(1));
    third.stop().await;
}
