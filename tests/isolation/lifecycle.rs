//! However a cell ends, nothing of it is left.

use std::time::Duration;

use neuroflow_sandbox::{End, Launcher};

use crate::support::{
    children_of, collect, eventually, launch, marker, now, pause, perl, processes_with, sh,
    standard,
};

/// A program that leaves a daemon behind: own session, no parent, deaf to polite signals.
fn daemonise(marker: &str, then: &str) -> String {
    format!(
        r#"use POSIX (); if (!fork) {{ POSIX::setsid(); exit if fork; $SIG{{TERM}} = $SIG{{HUP}} = "IGNORE"; exec "sleep", "{marker}" }}
           select undef, undef, undef, 0.2; print "ready"; {then}"#
    )
}

#[tokio::test]
async fn daemons_end_with_the_program() {
    let marker = marker();
    let begun = now();
    // The daemon holds standard output open, which must not delay the end.
    let collected = collect(standard(), perl(daemonise(&marker, ""))).await;
    assert_eq!((collected.report.end, collected.stdout), (End::Exited(0), b"ready".to_vec()));
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(processes_with(&marker), [0; 0]);
}

#[tokio::test]
async fn deaf_and_stopped_processes_end_too() {
    for script in ["trap '' TERM INT HUP; sleep M & wait", "sleep M & sleep 0.3; kill -STOP $! $$"]
    {
        let marker = marker();
        let cell = launch(
            standard().wall_time(Duration::from_millis(900)),
            sh(script.replace('M', &marker)),
        )
        .await;
        eventually("the start", || !processes_with(&marker).is_empty()).await;
        assert_eq!(cell.finish().await.end, End::WallTime);
        assert_eq!(processes_with(&marker), [0; 0]);
    }
}

#[tokio::test]
async fn dropping_the_cell_ends_everything() {
    let marker = marker();
    let mut cell = launch(standard(), perl(daemonise(&marker, "$| = 1; print 1; sleep 100"))).await;
    assert!(cell.next().await.is_some());
    assert_eq!(processes_with(&marker).len(), 1);
    drop(cell);
    eventually("the end", || processes_with(&marker).is_empty()).await;
}

#[tokio::test]
async fn a_cancelled_cell_says_so() {
    let mut cell = launch(standard(), sh("sleep 100")).await;
    cell.kill();
    assert_eq!(cell.finish().await.end, End::Cancelled);
}

#[tokio::test]
async fn the_callers_deadline_counts_as_well() {
    let cell = launch(standard(), sh("echo a; sleep 100")).await;
    assert_eq!(cell.finish_by(pause(100)).await.end, End::WallTime);
    let cell = launch(standard(), sh("exit 4")).await;
    assert_eq!(cell.finish_by(pause(10_000)).await.end, End::Exited(4));
}

#[tokio::test]
async fn an_abandoned_launch_leaves_nothing() {
    let launcher = Launcher::start().expect("a zygote");
    let profile = standard().build().expect("a profile");
    let marker = marker();
    let program = sh(format!("sleep {marker}"));
    for wait in 0..20 {
        tokio::select! {
            biased;
            () = pause(wait / 4) => {}
            cell = launcher.launch(&profile, &program) => drop(cell),
        }
    }
    eventually("the end", || processes_with(&marker).is_empty()).await;
}

#[tokio::test]
async fn a_closed_stdout_does_not_end_a_program() {
    let text = collect(standard(), sh("exec >&- 2>&-; sleep 0.3; exit 5")).await;
    assert_eq!(text.report.end, End::Exited(5));
}

#[tokio::test]
async fn a_kill_from_outside_is_told_apart() {
    let marker = marker();
    let launcher = Launcher::start().expect("a zygote");
    let cell = launcher
        .launch(&standard().build().expect("a profile"), &sh(format!("sleep {marker}; true")))
        .await;
    let cell = cell.expect("a cell");
    eventually("the start", || !processes_with(&marker).is_empty()).await;
    let zygotes = children_of(std::process::id());
    let first = zygotes.iter().flat_map(|(zygote, _)| children_of(zygote.unsigned_abs()));
    let first = first.map(|(pid, _)| pid).find(|pid| {
        children_of(pid.unsigned_abs()).iter().any(|(program, _)| {
            children_of(program.unsigned_abs())
                .iter()
                .any(|(sleep, _)| processes_with(&marker).contains(sleep))
        })
    });
    kill(first.expect("the first process"));
    assert_eq!(cell.finish().await.end, End::Killed);
    assert_eq!(processes_with(&marker), [0; 0]);
}

#[tokio::test]
async fn many_cells_at_once() {
    let launcher = Launcher::start().expect("a zygote");
    let profile = standard().build().expect("a profile");
    let program = sh("echo $((6 * 7)); exit 7");
    let mut cells = Vec::new();
    for _ in 0..40 {
        cells.push(launcher.launch(&profile, &program).await.expect("a cell"));
    }
    for cell in cells {
        let collected = cell.collect().await;
        assert_eq!(
            (collected.stdout.as_slice(), collected.report.end),
            (&b"42\n"[..], End::Exited(7))
        );
    }
}

pub(crate) fn kill(pid: i32) {
    signal(pid, "KILL");
}

#[expect(
    clippy::disallowed_methods,
    reason = "the tests' way to send a signal without unsafe code"
)]
pub(crate) fn signal(pid: i32, name: &str) {
    let status =
        std::process::Command::new("kill").args(["-s", name]).arg(pid.to_string()).status();
    assert!(status.expect("kill").success());
}
