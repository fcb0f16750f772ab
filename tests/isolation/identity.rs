//! A host that is root, or seems to be, and may less than root may: no cell of it is root outside.

use neuroflow_sandbox::{
    LaunchError, Launcher, Layer, Level, Profile, Reason, Remedy, Running, Verdict,
};

use crate::support::{
    Directory, NOBODY, is_root, passes_as_another, passes_elsewhere, plays, sh, standard,
};
use crate::untried::untried;

const UNABLE: &str = "identity::role_unable";
const LONELY: &str = "identity::role_lonely";
const POWERLESS: &str = "identity::role_powerless";
const ORDINARY: &str = "identity::role_ordinary";

/// Reads a file that root alone may read, and opens a setting of the kernel's that root alone may write.
async fn attack(
    launcher: &Launcher,
    place: &Directory,
    level: Level,
) -> Result<Running, LaunchError> {
    place.file("key", b"secret", 0o600);
    let profile = Profile::builder(level).allow_degraded(true).bind_ro(&place.0, "/work/place");
    let profile = profile.build().expect("a profile");
    let script = "echo ran; cat /work/place/key; : >>/proc/sys/kernel/core_pattern && echo open";
    launcher.launch(&profile, &sh(format!("({script}) 2>/dev/null; true"))).await
}

#[test]
fn a_root_that_may_not_mount_has_cells_that_are_nobody() {
    if !is_root() {
        return untried("a root that may not mount", "only root can become one");
    }
    passes_elsewhere(&["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-all"], UNABLE);
}

#[tokio::test]
async fn role_unable() {
    if !plays(UNABLE) {
        return;
    }
    let (launcher, place) = (Launcher::start().expect("a zygote"), Directory::new());
    for level in [Level::Standard, Level::Strict] {
        let cell = attack(&launcher, &place, level).await.expect("a cell");
        let collected = cell.collect().await;
        assert_eq!(String::from_utf8_lossy(&collected.stdout), "ran\n", "{level}");
    }
}

#[test]
fn a_root_that_has_no_other_id_has_no_cells() {
    if !is_root() {
        return untried("a root that has no other id", "only root can become one");
    }
    passes_elsewhere(&["unshare", "--user", "--map-root-user"], LONELY);
    let unable = ["setpriv", "--bounding-set=-sys_admin,-setuid", "--inh-caps=-all"];
    passes_elsewhere(&unable, LONELY);
}

#[tokio::test]
async fn role_lonely() {
    if !plays(LONELY) {
        return;
    }
    let (launcher, place) = (Launcher::start().expect("a zygote"), Directory::new());
    for level in [Level::Standard, Level::Strict] {
        match attack(&launcher, &place, level).await {
            Err(LaunchError::Unavailable { layer, reason, remedy }) => {
                let expected = (Layer::IdentityMap, Reason::NoIdRange, Remedy::LeaveRoot);
                assert_eq!((layer, reason, remedy), expected, "{level}");
            }
            other => panic!("{level}: {other:?}"),
        }
    }
}

#[test]
fn a_root_that_could_not_end_its_cells_has_none() {
    if !is_root() {
        return untried("a root that may not end others", "only root can become one");
    }
    for without in ["-kill", "-kill,-sys_admin"] {
        let wrapper = ["setpriv", &format!("--bounding-set={without}"), "--inh-caps=-all"];
        passes_elsewhere(&wrapper, POWERLESS);
    }
}

#[tokio::test]
async fn role_powerless() {
    if !plays(POWERLESS) {
        return;
    }
    let launcher = Launcher::start().expect("a zygote");
    for level in [Level::Minimal, Level::Standard, Level::Strict] {
        let profile = Profile::builder(level).allow_degraded(true).build().expect("a profile");
        let refused = launcher.launch(&profile, &sh("sleep 1000")).await;
        let Err(LaunchError::Unavailable { layer, reason, remedy }) = refused else {
            panic!("{level}: {refused:?}");
        };
        assert_eq!((layer, remedy), (Layer::ProcessTree, Remedy::LeaveKill), "{level}");
        assert!(matches!(reason, Reason::Refused(_)), "{level}: {reason}");
        let findings = launcher.examine(level).await.expect("findings");
        let finding = findings.iter().find(|finding| finding.layer == layer).expect("the layer");
        assert_eq!(finding.verdict, Verdict::Missing { reason, remedy }, "{level}");
    }
}

#[test]
fn who_only_seems_to_be_root_has_cells() {
    let seeming = ["unshare", "--user", "--map-root-user"];
    if is_root() {
        let nobody = [&NOBODY[..], &seeming].concat();
        passes_as_another(&nobody, ORDINARY);
        // However often.
        passes_as_another(&[&nobody[..], &seeming].concat(), ORDINARY);
    } else {
        passes_elsewhere(&seeming, ORDINARY);
    }
}

#[tokio::test]
async fn role_ordinary() {
    if !plays(ORDINARY) {
        return;
    }
    let launcher = Launcher::start().expect("a zygote");
    let profile = standard().build().expect("a profile");
    let cell = launcher.launch(&profile, &sh("id -u")).await.expect("a cell");
    assert_eq!(cell.collect().await.stdout, b"1000\n");
}
