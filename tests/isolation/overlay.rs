//! A copy-on-write view of a project, and its changes.

use std::fs;

use crate::support::{Directory, launch, sh, standard};

const OWNER: u32 = 4711;

fn project() -> Directory {
    let project = Directory::new();
    project.file("kept", b"kept\n", 0o644);
    project.file("changed", b"old\n", 0o644);
    project.file("removed", b"gone\n", 0o644);
    for path in [&project.0, &project.0.join("changed"), &project.0.join("removed")] {
        if crate::support::is_root() {
            std::os::unix::fs::chown(path, Some(OWNER), Some(OWNER)).expect("a new owner");
        }
    }
    project
}

#[tokio::test]
async fn a_project_is_changed_apart_and_then_on_purpose() {
    let project = project();
    let script = "cat kept; echo new > changed; rm removed; mkdir -p deep; echo x > deep/added";
    for inside in ["/work/project", "/project"] {
        let profile = standard().copy_on_write(&project.0, inside);
        let cell = launch(profile, sh(script).directory(inside)).await;
        let collected = cell.collect().await;
        let errors = String::from_utf8_lossy(&collected.stderr);
        assert!(collected.report.is_success(), "{errors}");
        assert_eq!(collected.stdout, b"kept\n");
        assert_eq!(fs::read(project.0.join("changed")).expect("a file"), b"old\n", "untouched");
        assert!(project.0.join("removed").exists() && !project.0.join("deep").exists());

        let changes = collected.overlay.expect("an overlay").read().expect("changes");
        let paths: Vec<String> =
            changes.iter().map(|change| change.path().display().to_string()).collect();
        assert_eq!(paths, ["changed", "deep", "deep/added", "removed"]);
        let copy = Directory::new();
        copy.file("changed", b"old\n", 0o644);
        copy.file("removed", b"gone\n", 0o644);
        changes.apply(&copy.0).expect("an applied change");
        assert_eq!(fs::read(copy.0.join("changed")).expect("a file"), b"new\n");
        assert_eq!(fs::read(copy.0.join("deep/added")).expect("a file"), b"x\n");
        assert!(!copy.0.join("removed").exists());
    }
}

#[tokio::test]
async fn what_is_not_read_is_thrown_away_and_size_is_bounded() {
    let project = project();
    let profile = standard().copy_on_write(&project.0, "/work/project").copy_on_write_size(65536);
    let program = sh("head -c 1000000 /dev/zero > big").directory("/work/project");
    let collected = launch(profile, program).await.collect().await;
    assert!(!collected.report.is_success());
    assert!(String::from_utf8_lossy(&collected.stderr).contains("No space left"));
    drop(collected.overlay);
    assert!(!project.0.join("big").exists());
}
