//! Cells that are made ahead.

use neuroflow_sandbox::{End, LaunchError, Launcher, Level, Profile, Program, Warm};

use crate::host::{found_zygote, own_zygote};
use crate::lifecycle::kill;
use crate::support::{
    children_of, eventually, minimal, passes_elsewhere, pause, plays, sh, standard,
};

const FEW: Warm = Warm { least: 2, most: 4 };

/// A program in a prepared cell, once there is one.
async fn prepared(launcher: &Launcher, profile: &Profile, program: &Program) -> Vec<u8> {
    for _ in 0..200 {
        let cell = match launcher.launch(profile, program).await {
            // Its cell or its zygote was killed by the test.
            Err(error) if error.is_retryable() => continue,
            cell => cell.expect("a cell"),
        };
        let done = cell.collect().await;
        if done.report.end == End::LauncherLost {
            continue;
        }
        assert_eq!(done.report.end, End::Exited(0));
        if done.report.prepared {
            return done.stdout;
        }
        pause(20).await;
    }
    panic!("no cell was ever prepared");
}

#[tokio::test]
async fn a_prepared_cell_is_as_good_as_another_and_used_once() {
    let launcher = Launcher::start().expect("a zygote");
    let profile = standard().env("A", "b").build().expect("a profile");
    let probe =
        sh("echo $A; ls -A /work /tmp; touch /work/left /tmp/left; grep -c . /proc/self/status; \
                    grep -E 'Cap|NoNew|Seccomp' /proc/self/status; id; pwd");
    let cold = launcher.launch(&profile, &probe).await.expect("a cell").collect().await;
    assert!(!cold.report.prepared);
    launcher.keep_warm(&profile, FEW).expect("a pool");
    for _ in 0..10 {
        assert_eq!(prepared(&launcher, &profile, &probe).await, cold.stdout);
    }
    let other = standard().env("A", "c").build().expect("a profile");
    let cell = launcher.launch(&other, &probe).await.expect("a cell");
    assert!(!cell.collect().await.report.prepared, "another profile has no pool");
}

const HEALED: &str = "pool::role_healed";

#[test]
fn a_pool_refills_and_heals() {
    passes_elsewhere(&["env"], HEALED);
}

#[tokio::test]
async fn role_healed() {
    if !plays(HEALED) {
        return;
    }
    let launcher = Launcher::start().expect("a zygote");
    let profile = standard().build().expect("a profile");
    launcher.keep_warm(&profile, FEW).expect("a pool");
    let zygote = own_zygote("cells").cast_unsigned();
    eventually("a full pool", || children_of(zygote).len() >= 2).await;
    for (cell, _) in children_of(zygote) {
        kill(cell);
    }
    prepared(&launcher, &profile, &sh("echo healed")).await;
    eventually("a full pool", || children_of(zygote).len() >= 2).await;
    drop(launcher);
    eventually("the end", || children_of(zygote).is_empty()).await;
}

#[tokio::test]
async fn a_failed_program_is_told_by_a_prepared_cell_too() {
    let launcher = Launcher::start().expect("a zygote");
    let profile = standard().build().expect("a profile");
    launcher.keep_warm(&profile, FEW).expect("a pool");
    prepared(&launcher, &profile, &sh("true")).await;
    for _ in 0..5 {
        let refused = launcher.launch(&profile, &Program::new("/no/such/program")).await;
        assert!(matches!(refused, Err(LaunchError::Program { .. })), "{refused:?}");
    }
}

const TOLD_AGAIN: &str = "pool::role_told_again";

#[test]
fn a_new_zygote_learns_of_the_pools() {
    passes_elsewhere(&["env"], TOLD_AGAIN);
}

#[tokio::test]
async fn role_told_again() {
    if !plays(TOLD_AGAIN) {
        return;
    }
    let launcher = Launcher::start().expect("a zygote");
    let profile = standard().build().expect("a profile");
    launcher.keep_warm(&profile, FEW).expect("a pool");
    prepared(&launcher, &profile, &sh("true")).await;
    let zygote = own_zygote("cells");
    kill(zygote);
    // A cell of the lost zygote may still have time to run a program to its end.
    for _ in 0..100 {
        prepared(&launcher, &profile, &sh("true")).await;
        if found_zygote("cells").is_some_and(|found| found != zygote) {
            return;
        }
    }
    panic!("no new zygote");
}

#[tokio::test]
async fn the_wall_time_counts_from_the_claim() {
    let launcher = Launcher::start().expect("a zygote");
    let short = std::time::Duration::from_millis(600);
    let profile = standard().wall_time(short).build().expect("a profile");
    launcher.keep_warm(&profile, FEW).expect("a pool");
    prepared(&launcher, &profile, &sh("true")).await;
    pause(900).await;
    let cell = launcher.launch(&profile, &sh("sleep 60")).await.expect("a cell");
    assert!(cell.is_prepared(), "waiting costs it nothing");
    assert_eq!(cell.finish().await.end, End::WallTime);
}

#[tokio::test]
async fn what_can_not_be_prepared_is_refused() {
    let launcher = Launcher::start().expect("a zygote");
    let refused = launcher.keep_warm(&minimal().build().expect("a profile"), FEW);
    assert!(matches!(refused, Err(LaunchError::NotPreparable { level: Level::Minimal })));
}
