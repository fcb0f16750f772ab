//! Host paths that the profile shows to a cell.

use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use neuroflow_sandbox::{LaunchError, Launcher, Level, Profile, ProfileBuilder};

use crate::support::{Directory, collect, is_root, launch, output_of, sh, standard, try_launch};
use crate::untried::untried;

/// Somebody who is neither root nor the one the tests run as.
const OWNER: u32 = 4321;

#[tokio::test]
async fn a_read_only_bind_can_be_read_and_not_written() {
    let host = Directory::new();
    host.file("a", b"hello", 0o644);
    let script = "cat /data/a; echo x 2>&1 >/data/b || true";
    let text = output_of(standard().bind_ro(&host.0, "/data"), sh(script)).await;
    assert!(text.starts_with("hello") && text.contains("Read-only file system"), "{text}");
    assert!(!host.0.join("b").exists());
}

#[tokio::test]
async fn a_writable_bind_keeps_its_owner() {
    let host = Directory::new();
    host.give_to(OWNER);
    let profile = standard().bind_rw(&host.0, "/work");
    let text = output_of(profile, sh("echo hello >/work/a; stat -c %u /work /work/a")).await;
    assert_eq!(text, "1000\n1000\n");
    let made = fs::metadata(host.0.join("a")).expect("the file");
    assert_eq!(made.uid(), fs::metadata(&host.0).expect("the directory").uid());
}

#[tokio::test]
async fn a_bind_of_root_is_not_mapped() {
    if !is_root() {
        return untried("a bind of root", "only root has one");
    }
    let host = Directory::new();
    let profile = standard().bind_rw(&host.0, "/work/shared");
    let collected = collect(profile, sh("echo x >/work/shared/a")).await;
    assert!(!collected.report.is_success());
    assert!(String::from_utf8_lossy(&collected.stderr).contains("Permission denied"));
}

#[tokio::test]
async fn files_and_nested_places_can_be_bound() {
    let host = Directory::new();
    let file = host.file("f", b"inner", 0o644);
    let profile = standard().bind_ro(&file, "/work/deep/er/file").bind_ro(&host.0, "/opt/x");
    assert_eq!(output_of(profile, sh("cat /work/deep/er/file /opt/x/f")).await, "innerinner");
}

#[tokio::test]
async fn links_on_either_side_lead_nowhere_else() {
    let host = Directory::new();
    symlink("/etc/shadow", host.0.join("secret")).expect("a link");
    symlink(&host.0, host.0.join("self")).expect("a link");
    let profile = standard().bind_ro(host.0.join("self"), "/data");
    let text = output_of(profile, sh("cat /data/secret 2>&1 || true")).await;
    assert!(text.contains("No such file"), "{text}");
}

/// The ways to show a directory that may have links in it.
type Show = fn(ProfileBuilder, &Path, &str) -> ProfileBuilder;
const SHOWN: [Show; 3] = [
    |profile, host, inside| profile.bind_ro(host, inside),
    |profile, host, inside| profile.bind_rw(host, inside),
    |profile, host, inside| profile.copy_on_write(host, inside),
];

#[tokio::test]
async fn a_link_in_an_outer_bind_leads_no_inner_one_away() {
    let inner = Directory::new();
    inner.give_to(OWNER);
    let file = inner.file("null", b"mine", 0o666);
    let launcher = Launcher::start().expect("a zygote");
    for (leads_to, is_file, below) in [
        ("/usr", false, "bin"),
        ("/dev", true, "null"),
        ("../dev", true, "null"),
        ("/tmp", false, "deep/er/place"),
        // In the place of the directory itself.
        ("/usr/bin", false, ""),
    ] {
        let outer = Directory::new();
        outer.give_to(OWNER);
        symlink(leads_to, outer.0.join("x")).expect("a link");
        let source = if is_file { &file } else { &inner.0 };
        for (level, around) in
            [(Level::Standard, "/work"), (Level::Standard, "/data"), (Level::Strict, "/work")]
        {
            let inside = Path::new(around).join("x").join(below);
            let inside = inside.to_str().expect("text").trim_end_matches('/');
            for show in SHOWN {
                let profile = Profile::builder(level).allow_degraded(true);
                let profile = show(profile, &outer.0, around).bind_rw(source, inside);
                let profile = profile.build().expect("a profile");
                // The first process is made for the first, and may be from the stock for the second.
                for _ in 0..2 {
                    match launcher.launch(&profile, &sh("echo x > /dev/null")).await {
                        Err(LaunchError::Bind { path, source: errno }) => {
                            assert_eq!((&path, errno.raw()), (source, libc::ELOOP), "{inside}");
                        }
                        other => panic!("{inside} by {leads_to}: {other:?}"),
                    }
                }
            }
        }
        assert_eq!(fs::read_dir(&outer.0).expect("a directory").count(), 1);
    }
    assert_eq!(fs::read(&file).expect("a file"), b"mine");
    assert_eq!(fs::read_dir(&inner.0).expect("a directory").count(), 1);
}

/// Whoever writes to the outer directory meanwhile has at most the inner one nowhere.
#[tokio::test]
async fn a_link_that_takes_a_directorys_place_meanwhile_leads_nowhere_either() {
    const LAUNCHES: usize = 60;
    let (outer, inner) = (Directory::new(), Directory::new());
    outer.give_to(OWNER);
    inner.give_to(OWNER);
    inner.file("mine", b"", 0o644);
    let place = outer.0.join("x");
    fs::create_dir_all(place.join("bin")).expect("a directory");
    let profile = standard().bind_rw(&outer.0, "/work").bind_ro(&inner.0, "/work/x/bin");
    let profile = profile.build().expect("a profile");
    let launcher = Launcher::start().expect("a zygote");
    let is_over = Arc::new(AtomicBool::new(false));
    let (around, until) = (outer.0.clone(), Arc::clone(&is_over));
    let swapping = tokio::task::spawn_blocking(move || {
        for number in 0_u64.. {
            if until.load(Ordering::Relaxed) {
                break;
            }
            let spare = around.join(format!("spare-{number}"));
            // The cell may make what is missing for a moment; the next round takes that.
            fs::rename(&place, &spare).ok();
            symlink("/usr", &place).ok();
            fs::remove_file(&place).ok();
            fs::rename(&spare, &place).ok();
        }
    });
    let program = sh("test ! -e /usr/bin/mine && ls /usr/bin/env");
    for _ in 0..LAUNCHES {
        match launcher.launch(&profile, &program).await {
            Err(LaunchError::Bind { .. }) => {}
            Ok(cell) => assert!(cell.finish().await.is_success()),
            other => panic!("{other:?}"),
        }
    }
    is_over.store(true, Ordering::Relaxed);
    swapping.await.expect("an end");
}

#[tokio::test]
async fn a_link_in_a_files_place_is_covered() {
    let (outer, inner) = (Directory::new(), Directory::new());
    symlink("/usr/bin/env", outer.0.join("x")).expect("a link");
    let file = inner.file("f", b"mine", 0o644);
    let profile = standard().bind_ro(&outer.0, "/work").bind_ro(&file, "/work/x");
    assert_eq!(output_of(profile, sh("cat /work/x; exec env -i printf !")).await, "mine!");
}

#[tokio::test]
async fn links_of_the_cells_own_root_are_followed() {
    let host = Directory::new();
    let file = host.file("f", b"mine", 0o644);
    let profile = standard().bind_ro(&file, "/bin/true").bind_ro(&host.0, "/var/tmp/deep/er");
    assert_eq!(output_of(profile, sh("cat /bin/true /tmp/deep/er/f")).await, "minemine");
}

#[tokio::test]
async fn a_missing_host_path_is_named() {
    let refused = try_launch(standard().bind_ro("/nowhere/at/all", "/data"), sh("true")).await;
    match refused {
        Err(LaunchError::Bind { path, source }) => {
            assert_eq!((path.to_str(), source.raw()), (Some("/nowhere/at/all"), libc::ENOENT));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn set_user_id_files_in_a_bind_are_powerless() {
    let host = Directory::new();
    let id = fs::read("/usr/bin/id").expect("id");
    host.file("id", &id, 0o4755);
    let text = output_of(standard().bind_ro(&host.0, "/data"), sh("/data/id -u")).await;
    assert_eq!(text, "1000\n");
}

/// What the host mounts below a bind after the cell has begun would be writable, with devices and
/// set-user-id bits, if it came along.
#[tokio::test]
async fn later_mounts_of_the_host_stay_outside() {
    if !is_root() {
        return untried("later mounts below a bind", "only root mounts for all");
    }
    let directory = Directory::new();
    std::fs::create_dir(directory.0.join("below")).expect("a directory");
    let mounted = |arguments: &[&std::ffi::OsStr]| {
        #[expect(clippy::disallowed_methods, reason = "the host's mounts are the test's subject")]
        let done = std::process::Command::new(arguments[0]).args(&arguments[1..]).status();
        assert!(done.is_ok_and(|status| status.success()), "{arguments:?}");
    };
    let place = directory.0.as_os_str();
    let below = directory.0.join("below");
    mounted(&["mount".as_ref(), "--bind".as_ref(), place, place]);
    mounted(&["mount".as_ref(), "--make-shared".as_ref(), place]);
    let profile = standard().bind_ro(&directory.0, "/shown");
    let script = "echo ready; while [ ! -e /shown/go ]; do :; done; ls /shown/below; \
                  grep -c /shown/below /proc/self/mountinfo";
    let mut waiting = launch(profile, sh(script)).await;
    assert!(waiting.next().await.is_some());
    mounted(&["mount".as_ref(), "-t".as_ref(), "tmpfs".as_ref(), "x".as_ref(), below.as_os_str()]);
    std::fs::write(below.join("secret"), b"x").expect("a file");
    std::fs::write(directory.0.join("go"), b"").expect("a file");
    let seen = waiting.collect().await;
    mounted(&["umount".as_ref(), below.as_os_str()]);
    mounted(&["umount".as_ref(), place]);
    assert_eq!(String::from_utf8_lossy(&seen.stdout), "0\n");
}
