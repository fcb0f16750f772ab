//! A host that gives up rights after it has started a launcher.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    launcher::Launcher, level::Level, linux::sys::credentials, profile::Profile, program::Program,
    report::End,
};

/// Tells a copy of the test program that it is to play [`role_gives_rights_up`].
const ROLE: &str = "NEUROFLOW_TEST_RIGHTS";

#[test]
fn a_host_that_may_signal_nobody_any_more_ends_its_cells_all_the_same() {
    if credentials::effective_ids().0 != 0 {
        return;
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "the rights of this process are other tests' too"
    )]
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "running::tests::role_gives_rights_up", "--nocapture"])
        .env(ROLE, "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn role_gives_rights_up() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    let launcher = Launcher::start().unwrap();
    let profile =
        Profile::builder(Level::Standard).wall_time(Duration::from_secs(1000)).build().unwrap();
    let sleep = Program::new("sleep").arg("1000");
    let mut ended = launcher.launch(&profile, &sleep).await.unwrap();
    let other = launcher.launch(&profile, &sleep).await.unwrap();
    // Of this thread, which is the one that sends signals.
    credentials::keep_only(credentials::ADMINISTER, 41).unwrap();
    ended.kill();
    assert_eq!(ended.gone().await, End::Cancelled);
    assert!(ended.process.has_ended());
    let process = other.process.watched().unwrap();
    drop(other);
    let _ended = process.readable().await.unwrap();
}
