//! The sandbox actor: what it runs, in which order, and when it runs nothing.

use std::time::Duration;

use neuroflow_kernel::limits::MAX_HOPS;
use neuroflow_kernel::{
    ActorId, Address, ChildSpec, Header, Kernel, Parcel, ReplyStream, Request, Restriction,
};
use neuroflow_sandbox::{
    ArchivedExecEvent, Cell, EXEC, End, Exec, ExecEvent, ExecRefused, How, LaunchError, Launcher,
    Level, Profile, SandboxCommand, SandboxServer, Stage, Warm,
};

use crate::lies;
use crate::support::{passes_elsewhere, plays, sh, standard, try_launch};

pub(crate) type Events = ReplyStream<Parcel<ExecEvent>>;

pub(crate) async fn ask(sandbox: &Address<SandboxCommand>, exec: Exec) -> Events {
    ask_with(Header::new(), sandbox, exec).await
}

async fn ask_with(header: Header, sandbox: &Address<SandboxCommand>, exec: Exec) -> Events {
    let parcel = Parcel::archive(&exec).expect("a short request");
    let exec = |replies| SandboxCommand::Exec(Request { parcel, replies });
    sandbox.stream(header, exec).await.expect("the sandbox takes it")
}

/// How a program ended, and what its cell did without; refused, if it was.
pub(crate) async fn end_of(mut events: Events) -> Result<(How, Vec<String>), ExecRefused> {
    while let Some(event) = events.next().await {
        match event.expect("the stream is whole").get() {
            ArchivedExecEvent::Output { .. } => {}
            ArchivedExecEvent::Ended(ended) => {
                assert_eq!(ended.stages_ns.len(), Stage::ALL.len());
                let degraded = ended.degraded.iter().map(ToString::to_string).collect();
                return Ok((How::from(&ended.how), degraded));
            }
            ArchivedExecEvent::Refused(refused) => return Err(ExecRefused::from(refused)),
        }
    }
    panic!("no last event")
}

async fn run(sandbox: &Address<SandboxCommand>) -> Result<(How, Vec<String>), ExecRefused> {
    end_of(ask(sandbox, Exec::new(["true"])).await).await
}

pub(crate) async fn sandbox_of(server: SandboxServer) -> (Kernel, Address<SandboxCommand>) {
    let kernel = Kernel::builder().start().await.expect("a kernel");
    let (spec, sandbox) =
        ChildSpec::new("sandbox", move || server.clone().actor()).expect("a name");
    kernel.root().start(spec).await.expect("a sandbox");
    (kernel, sandbox)
}

/// A place for one cell, and so many to wait; and one more holder for each of `HOLDERS`.
async fn narrow_sandbox<const HOLDERS: usize>(
    waiting: usize,
) -> (Kernel, [Address<SandboxCommand>; HOLDERS]) {
    let profile = standard().build().expect("a profile");
    let (kernel, sandbox) = sandbox_of(SandboxServer::new(profile).cells(1, waiting)).await;
    let holder =
        |_| sandbox.attenuate(Restriction::new().rights(EXEC)).expect("a capability of its own");
    (kernel, std::array::from_fn(holder))
}

/// A program that says that it runs, and goes on until it's given up.
async fn lasting(sandbox: &Address<SandboxCommand>) -> Events {
    let mut events = ask(sandbox, Exec::new(["sh", "-c", "echo here; exec sleep 100"])).await;
    let first = events.next().await.expect("a word").expect("a whole one");
    assert!(matches!(first.get(), ArchivedExecEvent::Output { .. }));
    events
}

/// Mostly nobody as a host has no control groups, which root has.
#[tokio::test]
async fn a_level_with_layers_missing_is_attacked_without_them_and_serves() {
    let missing = match try_launch(Profile::builder(Level::Strict), sh("true")).await {
        Ok(_cell) => Vec::new(),
        Err(LaunchError::Unavailable { layer, .. }) => vec![layer.to_string()],
        Err(other) => panic!("{other:?}"),
    };
    let profile = Profile::builder(Level::Strict).allow_degraded(true).build().expect("a profile");
    let (kernel, sandbox) = sandbox_of(SandboxServer::new(profile).attack_first(true)).await;
    let (how, degraded) = run(&sandbox).await.expect("the program ran");
    assert_eq!(how, How::Exited(0));
    assert_eq!(degraded, missing);
    kernel.stop().await;
}

#[tokio::test]
async fn who_finds_no_place_to_wait_is_refused_as_busy() {
    // A holder has a quarter of the places.
    let (kernel, [one, two, third]) = narrow_sandbox(8).await;
    let running = lasting(&one).await;
    let mut waiting = Vec::new();
    for holder in [&one, &one, &two, &two] {
        waiting.push(ask(holder, Exec::new(["true"])).await);
    }
    for holder in [&one, &two] {
        assert_eq!(run(holder).await, Err(ExecRefused::Busy { cells: 1 }));
    }
    // Others have theirs.
    waiting.push(ask(&third, Exec::new(["true"])).await);
    drop(running);
    for events in waiting {
        assert_eq!(end_of(events).await.expect("its turn came").0, How::Exited(0));
    }
    assert_eq!(run(&one).await.expect("there is room again").0, How::Exited(0));
    kernel.stop().await;
}

#[tokio::test]
async fn places_to_wait_are_bounded_for_all_holders_together() {
    let (kernel, [one, two, third]) = narrow_sandbox(2).await;
    let running = lasting(&one).await;
    let waiting = [ask(&one, Exec::new(["true"])).await, ask(&two, Exec::new(["true"])).await];
    assert_eq!(run(&third).await, Err(ExecRefused::Busy { cells: 1 }));
    // Who gives up makes room, whether it runs or waits.
    let [first, second] = waiting;
    drop(second);
    let third_waits = ask(&third, Exec::new(["true"])).await;
    drop(running);
    for events in [first, third_waits] {
        assert_eq!(end_of(events).await.expect("its turn came").0, How::Exited(0));
    }
    kernel.stop().await;
}

/// There is one place, and whoever kept it would keep all others out.
#[tokio::test]
async fn who_is_too_late_when_its_turn_comes_is_told_and_keeps_no_place() {
    let (kernel, [one, two]) = narrow_sandbox(8).await;
    let running = lasting(&one).await;
    let soon = Header::new().within(kernel.clock(), Duration::from_millis(100));
    let deadline = soon.deadline().expect("a deadline");
    let late = ask_with(soon, &two, Exec::new(["true"])).await;
    kernel.clock().sleep_until(deadline).await;
    drop(running);
    match end_of(late).await {
        Err(ExecRefused::Launch { code, message }) => assert_eq!(code, "timeout", "{message}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(run(&two).await.expect("there is a place").0, How::Exited(0));
    kernel.stop().await;
}

/// The cell's own actor is one hop further, and may not be where its only message is refused.
#[tokio::test]
async fn who_has_come_as_far_as_it_may_runs_and_keeps_no_place() {
    let (kernel, [one]) = narrow_sandbox(8).await;
    let far = (0..MAX_HOPS).fold(Header::new(), |header, _| header.forward(ActorId::NOBODY));
    let events = ask_with(far, &one, Exec::new(["true"])).await;
    assert_eq!(end_of(events).await.expect("it runs").0, How::Exited(0));
    assert_eq!(run(&one).await.expect("there is a place").0, How::Exited(0));
    kernel.stop().await;
}

#[tokio::test]
async fn who_floods_does_not_keep_others_waiting() {
    let (kernel, [flood, other]) = narrow_sandbox(64).await;
    let running = lasting(&flood).await;
    // Each says when it began, by a clock that all cells share.
    let stamp = || Exec::new(["sh", "-c", "cut -d' ' -f1 /proc/uptime; exec sleep 0.05"]);
    let mut flooded = Vec::new();
    for _ in 0..16 {
        flooded.push(ask(&flood, stamp()).await);
    }
    assert_eq!(run(&flood).await, Err(ExecRefused::Busy { cells: 1 }));
    let others = ask(&other, stamp()).await;
    drop(running);
    let began = stamped(others).await;
    let mut before = 0;
    for events in flooded {
        before += usize::from(stamped(events).await < began);
    }
    // Whose turn was before it may be a first one of the others'.
    assert!(before <= 1, "{before} of those who flood came first");
    kernel.stop().await;
}

/// Hundredths of a second at which the program says that it began.
async fn stamped(mut events: Events) -> u64 {
    let mut text = Vec::new();
    while let Some(event) = events.next().await {
        match event.expect("the stream is whole").get() {
            ArchivedExecEvent::Output { bytes, .. } => text.extend_from_slice(bytes),
            ArchivedExecEvent::Ended(_) => break,
            ArchivedExecEvent::Refused(refused) => panic!("{:?}", ExecRefused::from(refused)),
        }
    }
    let digits: Vec<u8> = text.into_iter().filter(u8::is_ascii_digit).collect();
    String::from_utf8(digits).expect("digits").parse().expect("a number")
}

#[tokio::test]
async fn who_still_waits_when_it_stops_is_told_and_who_runs_is_ended() {
    let (kernel, [one, two]) = narrow_sandbox(8).await;
    let mut running = lasting(&one).await;
    let waiting = ask(&two, Exec::new(["true"])).await;
    let (told, ()) = tokio::join!(end_of(waiting), async {
        kernel.stop().await;
    });
    assert_eq!(told, Err(ExecRefused::Stopping));
    // Its last word is that there is none: the stream breaks off, or ends without one.
    while let Some(event) = running.next().await {
        let Ok(event) = event else { break };
        assert!(matches!(event.get(), ArchivedExecEvent::Output { .. }));
    }
}

/// Who can't wait for the verdict runs nothing, either.
#[tokio::test]
async fn a_level_that_is_still_attacked_at_the_deadline_runs_nothing() {
    let profile = Profile::builder(Level::Strict).allow_degraded(true).build().expect("a profile");
    let (kernel, sandbox) = sandbox_of(SandboxServer::new(profile).attack_first(true)).await;
    let parcel = Parcel::archive(&Exec::new(["true"])).expect("a short request");
    let exec = |replies| SandboxCommand::Exec(Request { parcel, replies });
    // Enough for its turn to come, and not for some two hundred attempts.
    let soon = Header::new().within(kernel.clock(), Duration::from_millis(250));
    let events = sandbox.stream(soon, exec).await;
    match end_of(events.expect("the sandbox takes it")).await {
        Err(ExecRefused::Launch { code, message }) => {
            assert_eq!(code, "timeout");
            assert!(message.contains("attacks"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    // Who can, runs.
    assert_eq!(run(&sandbox).await.expect("the program ran").0, How::Exited(0));
    kernel.stop().await;
}

const BREACHED: &str = "server::role_breached";

#[test]
fn a_level_that_does_not_hold_runs_nothing() {
    passes_elsewhere(&["env"], BREACHED);
}

#[tokio::test]
async fn role_breached() {
    if !plays(BREACHED) {
        return;
    }
    // On this host tracing another process succeeds, whatever walls there are.
    lies::tell("ptrace", None, false);
    let profile = Profile::builder(Level::Strict).allow_degraded(true).build().expect("a profile");
    let (kernel, sandbox) = sandbox_of(SandboxServer::new(profile).attack_first(true)).await;
    for _ in 0..2 {
        match run(&sandbox).await {
            Err(ExecRefused::Launch { code, message }) => {
                assert_eq!(code, "breached", "{message}");
                assert!(message.contains("ptrace"), "{message}");
            }
            other => panic!("{other:?}"),
        }
    }
    kernel.stop().await;
}

/// Runs it on a runtime with one thread for what blocks, which is there before: another one would begin with the
/// lies that this one is told.
fn with_one_thread_beside(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().max_blocking_threads(1).build().expect("a runtime");
    runtime.block_on(async {
        tokio::task::spawn_blocking(|| ()).await.expect("a thread for what blocks");
        test.await;
    });
}

/// A filter is compiled, and its file written, on another thread than the one that tasks run on: this one's
/// files get no name.
#[test]
fn tasks_compile_no_filter() {
    with_one_thread_beside(compile_no_filter());
}

async fn compile_no_filter() {
    let place = std::env::temp_dir().join(format!("filters-of-tasks-{}", std::process::id()));
    let launcher = Launcher::start_with_cache(&place).expect("a launcher");
    for call in ["rename", "renameat", "renameat2"] {
        lies::tell(call, None, false);
    }
    let profile = standard().build().expect("a profile");
    let done = launcher.launch(&profile, &sh("exit 4")).await.expect("a cell").finish().await;
    let is_named =
        |file: std::fs::DirEntry| file.path().extension().is_some_and(|end| end == "bpf");
    let files = std::fs::read_dir(&place).expect("the directory");
    let named = files.map(|file| is_named(file.expect("an entry"))).collect::<Vec<_>>();
    std::fs::remove_dir_all(&place).ok();
    assert_eq!((done.end, named), (End::Exited(4), vec![true]));
}

/// Where tasks run nothing waits for a zygote: it starts on another thread, or, as that can't be seen in
/// time, not on this one.
#[test]
fn tasks_wait_for_no_zygote() {
    with_one_thread_beside(wait_for_no_zygote());
}

async fn wait_for_no_zygote() {
    lies::start_nothing();
    assert!(Launcher::start().is_err(), "this thread can start one");
    let profile = standard().build().expect("a profile");
    let server = SandboxServer::new(profile.clone()).warm(Warm { least: 1, most: 1 });
    let (kernel, sandbox) = sandbox_of(server).await;
    assert_eq!(run(&sandbox).await.expect("the program ran").0, How::Exited(0));
    kernel.stop().await;
    let cell = Cell::from(profile);
    let done = cell.run(sh("exit 4")).await.expect("a cell");
    assert_eq!(done.report.end, End::Exited(4));
}
