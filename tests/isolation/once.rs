//! A program runs once or not at all, whatever dies or stands still meanwhile, and no longer than it may.

use std::{fs, future::poll_fn, pin::pin, task::Poll, time::Duration};

use neuroflow_sandbox::{
    End, LaunchError, Launcher, Level, Profile, ProfileBuilder, Program, Running, SeccompProfile,
    Warm,
};

use crate::{
    host::own_zygote,
    lifecycle::{kill, signal},
    support::{
        Directory, children_of, eventually, is_root, marker, passes_elsewhere, pause, perl, plays,
        processes_with, sh, standard,
    },
    untried::{not_here, untried},
};

const FEW: Warm = Warm { least: 4, most: 4 };

/// A launch, after it has asked for what it needs.
async fn asked<L: Future<Output = Result<Running, LaunchError>>>(
    launch: &mut std::pin::Pin<&mut L>,
) {
    let asked = poll_fn(|context| Poll::Ready(launch.as_mut().poll(context).is_pending())).await;
    assert!(asked, "a program can't have begun yet");
}

/// A place where each run of a program leaves a line.
struct Tally(Directory);

impl Tally {
    fn new() -> Self {
        let place = Directory::new();
        place.give_to(1000);
        open_to_all(&place);
        Self(place)
    }

    fn profile(&self, profile: ProfileBuilder) -> Profile {
        profile.bind_rw(&self.0.0, "/tally").build().expect("a profile")
    }

    fn program(number: u32) -> Program {
        sh(format!("echo x >> /tally/{number}"))
    }

    fn runs(&self, number: u32) -> usize {
        let lines = fs::read_to_string(self.0.0.join(number.to_string())).unwrap_or_default();
        lines.lines().count()
    }
}

fn open_to_all(place: &Directory) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&place.0, fs::Permissions::from_mode(0o777)).expect("a mode");
}

/// First processes that wait with their program's, each with the latter.
fn waiting(zygote: i32) -> Vec<(i32, i32)> {
    let firsts = children_of(zygote.unsigned_abs()).into_iter().map(|(first, _)| first);
    let programs = |first: i32| children_of(first.unsigned_abs()).into_iter();
    firsts.flat_map(|first| programs(first).map(move |(program, _)| (first, program))).collect()
}

const STOPPED: &str = "once::role_stopped_zygote";

#[test]
fn a_launch_whose_zygote_dies_runs_once() {
    passes_elsewhere(&["env"], STOPPED);
}

#[tokio::test]
async fn role_stopped_zygote() {
    if !plays(STOPPED) {
        return;
    }
    let launcher = Launcher::start().expect("a zygote");
    let tally = Tally::new();
    let profile = tally.profile(standard());
    for number in 0..10 {
        let zygote = own_zygote("cells");
        signal(zygote, "STOP");
        let program = Tally::program(number);
        let mut launch = pin!(launcher.launch(&profile, &program));
        asked(&mut launch).await;
        kill(zygote);
        // It never read the request, so another one serves it.
        let cell = launch.await.expect("a cell of another zygote");
        assert_eq!(cell.finish().await.end, End::Exited(0));
        assert_eq!(tally.runs(number), 1);
        assert_ne!(own_zygote("cells"), zygote);
    }
}

const ANY_MOMENT: &str = "once::role_any_moment";

#[test]
fn a_zygote_that_dies_at_any_moment_runs_nothing_twice() {
    passes_elsewhere(&["env"], ANY_MOMENT);
}

#[tokio::test]
async fn role_any_moment() {
    if !plays(ANY_MOMENT) {
        return;
    }
    let tally = Tally::new();
    let cold = tally.profile(standard());
    let warm = tally.profile(standard().env("WARM", "1"));
    let mut sound = Vec::new();
    for number in 0..60 {
        let launcher = Launcher::start().expect("a zygote");
        let zygote = own_zygote("cells");
        let profile = if number % 2 == 0 { &cold } else { &warm };
        if number % 2 == 1 {
            launcher.keep_warm(&warm, FEW).expect("a pool");
            eventually("a full pool", || waiting(zygote).len() == 4).await;
        }
        let program = Tally::program(number);
        let mut launch = pin!(launcher.launch(profile, &program));
        asked(&mut launch).await;
        // From before the request is read until after the program's end.
        let moment = Duration::from_micros(u64::from(number) * 100);
        let launched = tokio::select! {
            biased;
            launched = &mut launch => Some(launched),
            () = pause_exactly(moment) => None,
        };
        kill(zygote);
        let launched = match launched {
            Some(launched) => launched,
            None => launch.await,
        };
        match launched {
            Ok(cell) => {
                if cell.finish().await.end == End::Exited(0) {
                    sound.push(number);
                }
            }
            Err(LaunchError::LauncherGone) => assert_eq!(tally.runs(number), 0),
            Err(error) => assert!(matches!(error, LaunchError::LauncherLost), "{error:?}"),
        }
    }
    for number in 0..60 {
        let runs = tally.runs(number);
        assert!(runs <= 1, "{number} has run {runs} times");
        assert!(runs == 1 || !sound.contains(&number), "{number} hasn't run");
    }
}

#[expect(clippy::disallowed_methods, reason = "these tests wait for real processes")]
async fn pause_exactly(duration: Duration) {
    tokio::time::sleep(duration).await;
}

const UNUSED: &str = "once::role_unused";

#[test]
fn a_waiting_process_that_dies_costs_no_launch() {
    passes_elsewhere(&["env"], UNUSED);
}

#[tokio::test]
async fn role_unused() {
    if !plays(UNUSED) {
        return;
    }
    let launcher = Launcher::start().expect("a zygote");
    let tally = Tally::new();
    let profile = tally.profile(standard());
    let zygote = own_zygote("cells");
    for number in 0..10 {
        // A pool whose cells die unused is given up after a few, unless somebody asks for it again.
        launcher.keep_warm(&profile, FEW).expect("a pool");
        eventually("a full pool", || waiting(zygote).len() == 4).await;
        // The order comes to a process that can't take it, and dies.
        let stopped = waiting(zygote);
        for (_, program) in &stopped {
            signal(*program, "STOP");
        }
        let program = Tally::program(number);
        let mut launch = pin!(launcher.launch(&profile, &program));
        asked(&mut launch).await;
        for (_, program) in &stopped {
            kill(*program);
        }
        let cell = launch.await.expect("another cell");
        assert_eq!(cell.finish().await.end, End::Exited(0));
        assert_eq!(tally.runs(number), 1);
        for (first, _) in stopped {
            eventually("its cell's end", || {
                children_of(zygote.unsigned_abs()).iter().all(|(pid, _)| *pid != first)
            })
            .await;
        }
    }
    drop(launcher);
    assert_eq!(children_of(std::process::id()), [], "nothing is left");
}

const ALONE: &str = "once::role_alone";

#[test]
fn a_prepared_cell_counts_its_wall_time_itself() {
    passes_elsewhere(&["env"], ALONE);
}

#[tokio::test]
async fn role_alone() {
    if !plays(ALONE) {
        return;
    }
    // Nothing but a loop of refused calls, which the first process answers, one by one.
    let busy = "$0 = shift; 1 while syscall(101, 0) || 1";
    let own = SeccompProfile::parse(&without_ahead()).expect("a list");
    let lists = [None, Some(own)];
    for list in lists {
        let profile = standard().wall_time(Duration::from_millis(600));
        let profile = match list {
            Some(list) => profile.seccomp(list),
            None => profile,
        };
        let profile = profile.build().expect("a profile");
        let launcher = Launcher::start().expect("a zygote");
        launcher.keep_warm(&profile, FEW).expect("a pool");
        let zygote = own_zygote("cells");
        eventually("a pool", || children_of(zygote.unsigned_abs()).len() >= 4).await;
        prepared(&launcher, &profile, &sh("true")).await;
        eventually("a pool", || children_of(zygote.unsigned_abs()).len() >= 4).await;
        // The zygote counts nothing now, and nobody looks after the cells.
        signal(zygote, "STOP");
        let (idle, loud) = (marker(), marker());
        let first = launcher.launch(&profile, &sh(format!("sleep {idle}; true"))).await;
        let second = launcher.launch(&profile, &perl(busy).arg(&loud)).await;
        let (first, second) = (first.expect("a cell"), second.expect("a cell"));
        assert!(first.is_prepared() && second.is_prepared());
        eventually("the ends", || {
            processes_with(&idle).is_empty() && processes_with(&loud).is_empty()
        })
        .await;
        signal(zygote, "CONT");
        assert_eq!(first.finish().await.end, End::WallTime);
        assert_eq!(second.finish().await.end, End::WallTime);
    }
}

/// A program in a prepared cell, once there is one.
async fn prepared(launcher: &Launcher, profile: &Profile, program: &Program) -> Vec<u8> {
    for _ in 0..500 {
        let cell = launcher.launch(profile, program).await.expect("a cell");
        let is_prepared = cell.is_prepared();
        let done = cell.collect().await;
        if is_prepared {
            return done.stdout;
        }
        pause(20).await;
    }
    panic!("no cell was ever prepared");
}

/// The list of level strict, without what only the making of a process ahead takes.
fn without_ahead() -> String {
    let strict = SeccompProfile::builtin(Level::Strict).expect("a list");
    let flags =
        "when = [{ argument = 0, op = \"masked-eq\", mask = \"CLONE_NEW_NAMESPACES\", value = 0 }]";
    let copying = "when = [{ argument = 0, op = \"masked-eq\", mask = 0x100, value = 0 }]";
    let text = strict.text().replacen(flags, copying, 1);
    let text = text.replacen(" \"sched_yield\",", "", 1).replacen(", \"pipe2\"", "", 1);
    assert_eq!(text.matches("sched_yield").count() + text.matches("pipe2").count(), 0);
    assert!(text.contains(copying));
    text
}

#[tokio::test]
async fn no_list_is_widened_for_a_prepared_cell() {
    let what = "the list of a prepared cell";
    if !cfg!(target_arch = "x86_64") {
        return not_here(what, "it's probed with the numbers of x86-64");
    }
    if !is_root() {
        return untried(what, "level paranoid is for root");
    }
    // Sharing memory without standing still, yielding, making a pipe: what a list leaves out stays out.
    let probe = "my $p = pack('i2', 0, 0); for ([56, 0x111, 0, 0, 0, 0], [24], [293, $p, 0]) { \
                 $! = 0; my $r = syscall($_->[0], @$_[1 .. $#$_]); print \"$r \", $! + 0, \"\\n\" }";
    let refused = "-1 1\n".repeat(3);
    let own = SeccompProfile::parse(&without_ahead()).expect("a list");
    let launcher = Launcher::start().expect("a zygote");
    for level in [Level::Standard, Level::Strict, Level::Paranoid] {
        let profile = Profile::builder(level).seccomp(own.clone()).build().expect("a profile");
        let cold = launcher.launch(&profile, &perl(probe)).await.expect("a cell").collect().await;
        assert_eq!(String::from_utf8_lossy(&cold.stdout), refused, "{level}");
        let denied: Vec<&str> =
            cold.report.denials.iter().map(|denial| denial.call.as_str()).collect();
        for call in ["clone", "sched_yield", "pipe2"] {
            assert!(denied.contains(&call), "{level}: {denied:?}");
        }
        launcher.keep_warm(&profile, FEW).expect("a pool");
        let warm = prepared(&launcher, &profile, &perl(probe)).await;
        assert_eq!(String::from_utf8_lossy(&warm), refused, "{level}");
    }
}

#[tokio::test]
async fn cells_that_are_used_and_dropped_do_not_starve_their_pool() {
    let launcher = Launcher::start().expect("a zygote");
    let profile = standard().build().expect("a profile");
    launcher.keep_warm(&profile, FEW).expect("a pool");
    for _ in 0..10 {
        prepared(&launcher, &profile, &sh("true")).await;
        for _ in 0..4 {
            drop(launcher.launch(&profile, &sh("sleep 60")).await.expect("a cell"));
        }
    }
    assert!(prepared(&launcher, &profile, &sh("echo on")).await.starts_with(b"on"));
}

const SHRINKING: &str = "once::role_shrinking";

#[test]
fn a_pool_that_shrinks_leaves_used_cells_alone() {
    passes_elsewhere(&["env"], SHRINKING);
}

#[tokio::test]
async fn role_shrinking() {
    if !plays(SHRINKING) {
        return;
    }
    let launcher = Launcher::start().expect("a zygote");
    let profile = standard().wall_time(Duration::from_mins(1)).build().expect("a profile");
    launcher.keep_warm(&profile, Warm { least: 4, most: 8 }).expect("a pool");
    let zygote = own_zygote("cells");
    // It grows as it is drained.
    for _ in 0..100 {
        let mut drained = Vec::new();
        for _ in 0..8 {
            drained.push(launcher.launch(&profile, &sh("sleep 60")).await.expect("a cell"));
        }
        drop(drained);
        pause(50).await;
        if waiting(zygote).len() == 8 {
            break;
        }
    }
    eventually("a pool that has grown", || waiting(zygote).len() == 8).await;
    // The oldest waiting cell, which would be the first to be given up; nobody looks after it.
    let marker = marker();
    let cell = launcher.launch(&profile, &sh(format!("sleep {marker}; true"))).await;
    let cell = cell.expect("a cell");
    assert!(cell.is_prepared());
    // The one that runs among them.
    let shrunk = || waiting(zygote).len() <= 5;
    for _ in 0..10 {
        if shrunk() {
            break;
        }
        pause(5_000).await;
    }
    eventually("a pool that has shrunk", shrunk).await;
    assert_eq!(processes_with(&marker).len(), 1, "it runs on");
    drop(cell);
    eventually("the end", || processes_with(&marker).is_empty()).await;
}
