//! What a cell sees of processes.

use std::time::Duration;

use neuroflow_sandbox::{
    End, LaunchError, Launcher, Level, Profile, ProfileBuilder, SeccompProfile,
};

use crate::host::own_zygote;
use crate::support::{
    collect, is_root, marker, minimal, now, output_of, passes_elsewhere, perl, plays,
    processes_with, sh, standard,
};

#[tokio::test]
async fn only_the_cells_own_processes_are_listed() {
    let list = r#"opendir(my $d, "/proc"); print join " ", sort { $a <=> $b } grep { /^\d+$/ } readdir $d"#;
    // The first process can't be looked into, so it isn't listed.
    assert_eq!(output_of(standard(), perl(list)).await, "2");
}

#[tokio::test]
async fn the_first_process_shrugs_signals_off() {
    let text = output_of(
        standard(),
        sh("for s in KILL STOP TERM INT SEGV; do kill -$s 1; done; echo alive"),
    )
    .await;
    assert_eq!(text, "alive\n");
}

#[tokio::test]
async fn the_first_process_can_not_be_traced() {
    let seize = format!("print syscall({}, 0x4206, 1, 0, 0), ' ', 0 + $!", libc::SYS_ptrace);
    assert_eq!(output_of(standard(), perl(seize)).await, format!("-1 {}", libc::EPERM));
    let steal = format!(
        "my $p = syscall({}, 1, 0); print syscall({}, $p, 3, 0), ' ', 0 + $!",
        libc::SYS_pidfd_open,
        libc::SYS_pidfd_getfd
    );
    assert_eq!(output_of(standard(), perl(steal)).await, format!("-1 {}", libc::EPERM));
}

/// Calls that take processor time from a process, with what they answer: for the process `$p`.
fn slow_down() -> String {
    format!(
        r#"my $one = pack("Q", 1); my $none = pack("L", 0);
        my @slowed = map {{ 0 + $_ }} (syscall({}, $p, 8, $one), syscall({}, 0, $p, 19),
            syscall({}, $p, 5, $none));"#,
        libc::SYS_sched_setaffinity,
        libc::SYS_setpriority,
        libc::SYS_sched_setscheduler
    )
}

#[tokio::test]
async fn the_first_process_can_not_be_slowed_down_and_others_can() {
    let try_both = |of: &str| perl(format!("my $p = {of}; {} print \"@slowed\"", slow_down()));
    assert_eq!(output_of(standard(), try_both("1")).await, "-1 -1 -1");
    assert_eq!(output_of(standard(), try_both("(1 << 32) + 1")).await, "-1 -1 -1");
    // A thread's own number is what libc gives for it.
    assert_eq!(output_of(standard(), try_both("$$")).await, "0 0 0");
    assert_eq!(output_of(standard(), try_both("0")).await, "0 0 0");
    // Those of the user, and those of the group of processes that the first one may be in.
    let many =
        format!("print join ' ', map {{ syscall({}, $_, 0, 19) }} (1, 2)", libc::SYS_setpriority);
    assert_eq!(output_of(standard(), perl(many)).await, "-1 -1");
}

/// A level's list of calls, without the care for the first process.
fn careless(level: Level) -> SeccompProfile {
    let text = SeccompProfile::builtin(level).expect("a list").text().to_owned();
    let careless = text.replace("op = \"ne\", value = 1 ", "op = \"ne\", value = 0xFFFFFFFF ");
    assert_ne!(careless, text);
    SeccompProfile::parse(&careless).expect("a list")
}

const STARVED: &str = "processes::role_starved";

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
        Err(LaunchError::Unavailable { .. }) if !is_root() => return,
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

#[tokio::test]
async fn orphans_are_reaped_inside() {
    let script = "for i in 1 2 3 4 5; do (true & ) ; done; sleep 0.3; grep -l '^State:.Z' /proc/[0-9]*/status | wc -l";
    assert_eq!(output_of(standard(), sh(script)).await, "0\n");
}

#[tokio::test]
async fn status_and_signal_are_told_apart() {
    assert_eq!(collect(standard(), sh("exit 3")).await.report.end, End::Exited(3));
    assert_eq!(collect(standard(), sh("exit 137")).await.report.end, End::Exited(137));
    assert_eq!(
        collect(standard(), sh("kill -KILL $$")).await.report.end,
        End::Signalled(libc::SIGKILL)
    );
}

#[tokio::test]
async fn signals_have_their_standard_meaning() {
    let text = output_of(
        standard(),
        sh("cat /proc/self/status | grep -E '^Sig(Blk|Ign|Cgt)' | tr -d '[:space:]'"),
    )
    .await;
    assert_eq!(text, "SigBlk:0000000000000000SigIgn:0000000000000000SigCgt:0000000000000000");
}

#[tokio::test]
async fn the_session_is_new_and_has_no_terminal() {
    let text = output_of(
        standard(),
        perl(r#"print getppid(), " ", getpgrp(), " ", open(my $t, "<", "/dev/tty") ? 1 : 0"#),
    )
    .await;
    assert_eq!(text, "1 2 0");
}
