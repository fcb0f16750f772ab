//! A copy-on-write view of a project, and its changes.

use std::fs;

use neuroflow_sandbox::{ApplyError, Launcher, Output, Program, Running, Warm};

use crate::support::{Directory, launch, pause, sh, standard};

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
async fn places_for_binds_in_a_project_are_no_changes_of_it() {
    for (script, changed) in [
        ("true", &[][..]),
        ("echo x > cache/beside", &["cache", "cache/beside"][..]),
        ("echo x > cache/bin/shown", &[][..]),
    ] {
        let (project, shown) = (project(), Directory::new());
        shown.give_to(OWNER);
        let file = project.0.join("kept");
        let profile = standard()
            .copy_on_write(&project.0, INSIDE)
            .bind_rw(&shown.0, format!("{INSIDE}/cache/bin"))
            .bind_ro(file, format!("{INSIDE}/cache/file"));
        let collected = launch(profile, sh(script).directory(INSIDE)).await.collect().await;
        let errors = String::from_utf8_lossy(&collected.stderr);
        assert!(collected.report.is_success(), "{errors}");
        let changes = collected.overlay.expect("an overlay").read().expect("changes");
        let paths: Vec<String> =
            changes.iter().map(|change| change.path().display().to_string()).collect();
        assert_eq!(paths, changed, "{script}");
        changes.apply(&project.0).expect("an applied change");
        assert_eq!(project.0.join("cache").exists(), !changed.is_empty());
        assert!(!project.0.join("cache/bin").exists());
    }
}

/// A project, and another one that can take its place, with what each says in `deep/text`.
fn two_projects() -> Directory {
    let place = Directory::new();
    for (project, says) in [("project", "ours\n"), ("next", "theirs\n")] {
        let deep = place.0.join(project).join("deep");
        fs::create_dir_all(&deep).expect("a folder");
        fs::write(deep.join("text"), says).expect("a file");
        for path in [&place.0.join(project), &deep, &deep.join("text")] {
            if crate::support::is_root() {
                std::os::unix::fs::chown(path, Some(OWNER), Some(OWNER)).expect("a new owner");
            }
        }
    }
    place
}

impl Directory {
    /// Puts the other project, or a part of it, into the place of the first.
    fn swap(&self, part: &str) {
        let [project, next] = ["project", "next"].map(|name| self.0.join(name).join(part));
        let between = self.0.join("between");
        fs::rename(&project, &between).expect("a new name");
        fs::rename(&next, &project).expect("a new name");
        fs::rename(&between, &next).expect("a new name");
    }
}

const INSIDE: &str = "/work/project";

/// Says what it sees, and overwrites it when its input ends.
fn overwriter() -> Program {
    let script = "cat deep/text; cat >/dev/null; rm deep/text; echo cell > deep/text";
    sh(script).directory(INSIDE).interactive()
}

async fn seen_by(cell: &mut Running) -> Vec<u8> {
    let Some(Output::Stdout(said)) = cell.next().await else { panic!("silence") };
    said
}

/// Nothing of what it did is done, because of this path.
async fn is_refused(mut cell: Running, place: &Directory, path: &str) {
    drop(cell.take_stdin());
    let collected = cell.collect().await;
    let errors = String::from_utf8_lossy(&collected.stderr);
    assert!(collected.report.is_success(), "{errors}");
    let changes = collected.overlay.expect("an overlay").read().expect("changes");
    let refused = changes.apply(&place.0.join("project"));
    let Err(ApplyError::Conflict { paths }) = refused else { panic!("{path}: {changes:?}") };
    assert_eq!(paths, [std::path::PathBuf::from(path)]);
    assert_eq!(fs::read(place.0.join("project/deep/text")).expect("a file"), b"theirs\n");
}

#[tokio::test]
async fn what_is_put_into_the_projects_place_is_left_alone() {
    for (part, path) in [("", "."), ("deep", "deep")] {
        let place = two_projects();
        let profile = standard().copy_on_write(place.0.join("project"), INSIDE);
        let mut cell = launch(profile, overwriter()).await;
        assert_eq!(seen_by(&mut cell).await, b"ours\n");
        place.swap(part);
        is_refused(cell, &place, path).await;
    }
}

#[tokio::test]
async fn what_was_put_into_the_projects_place_while_a_cell_waited_is_left_alone() {
    let place = two_projects();
    let profile = standard().copy_on_write(place.0.join("project"), INSIDE);
    let profile = profile.build().expect("a profile");
    let launcher = Launcher::start().expect("a zygote");
    launcher.keep_warm(&profile, Warm { least: 1, most: 1 }).expect("a pool");
    for _ in 0..500 {
        pause(20).await;
        place.swap("");
        let mut cell = launcher.launch(&profile, &overwriter()).await.expect("a cell");
        if seen_by(&mut cell).await == b"ours\n" {
            assert!(cell.is_prepared());
            return is_refused(cell, &place, ".").await;
        }
        // It was made after that.
        place.swap("");
    }
    panic!("no cell waited");
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
