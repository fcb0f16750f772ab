//! A program that takes all processor time from its cell's first process, which is to end it.

use std::time::Duration;

use neuroflow_sandbox::{
    End, LaunchError, Launcher, Level, Profile, ProfileBuilder, SeccompProfile,
};

use crate::host::own_zygote;
use crate::processes::slow_down;
use crate::support::{
    is_root, marker, minimal, now, passes_elsewhere, perl, plays, processes_with, sh, standard,
};
use crate::untried::untried;

/// A level's list of calls, without the care for the first process.
fn careless(level: Level) -> SeccompProfile {
    let text = SeccompProfile::builtin(level).expect("a list").text().to_owned();
    let careless = text.replace("op = \"ne\", value = 1 ", "op = \"ne\", value = 0xFFFFFFFF ");
    assert_ne!(careless, text);
    SeccompProfile::parse(&careless).expect("a list")
}

const STARVED: &str = "starved::role_starved";

#[test]
fn who_takes_all_processor_time_ends_in_time_and_leaves_the_zygote_to_others() {
    passes_elsewhere(&["env"], STARVED);
}

#[tokio::test]
async fn role_starved() {
    if !plays(STARVED) {
        return;
    }
    let strict = || Profile::builder(Level::Strict);
    let launcher = Launcher::start().expect("a zygote");
    starve(&launcher, strict(), "-1 -1 -1", "cells").await;
    // With its group, without one, and without process ids of its own.
    starve(&launcher, strict().seccomp(careless(Level::Strict)), "0 0 0", "cells").await;
    starve(&launcher, standard().seccomp(careless(Level::Standard)), "0 0 0", "cells").await;
    starve(&launcher, minimal(), "0 0 0", "minimal").await;
}

/// All that the program leaves spins on one processor, where the first process is too, and gets hardly any
/// time if the program may see to that: `slowed` is what it's answered.
async fn starve(launcher: &Launcher, profile: ProfileBuilder, slowed: &str, kind: &str) {
    const WALL: Duration = Duration::from_secs(1);
    // Far less than how long a zygote may be silent, after which it would be given up.
    const PROMPT: Duration = Duration::from_secs(8);
    let next = profile.clone().build().expect("a profile");
    let profile = profile.wall_time(WALL).build().expect("a profile");
    let marker = marker();
    let script = format!(
        "my $p = getppid(); {} syscall({}, 0, 8, $one); print \"@slowed\"; \
         for (1 .. 60) {{ my $c = fork; if (defined $c and $c == 0) \
         {{ close STDOUT; close STDERR; while (1) {{}} }} }}",
        slow_down(),
        libc::SYS_sched_setaffinity,
    );
    let began = now();
    let cell = match launcher.launch(&profile, &perl(script).arg(&marker)).await {
        Ok(cell) => cell,
        Err(unavailable @ LaunchError::Unavailable { .. }) if !is_root() => {
            return untried("processor time that is taken from a first process", unavailable);
        }
        Err(other) => panic!("{other:?}"),
    };
    let zygote = own_zygote(kind);
    let done = cell.collect().await;
    let took = began.elapsed();
    assert_eq!(processes_with(&marker), [0; 0], "an end is an end");
    assert!(took < WALL + PROMPT, "{kind}: {took:?}");
    let end = done.report.end;
    assert!(matches!(end, End::WallTime | End::Exited(0)), "{kind}: {end:?}");
    assert_eq!(String::from_utf8_lossy(&done.stdout), slowed, "{kind}");
    let next = launcher.launch(&next, &sh("exit 9")).await.expect("the next cell");
    assert_eq!(next.finish().await.end, End::Exited(9));
    assert_eq!(own_zygote(kind), zygote);
}
