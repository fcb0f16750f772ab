//! Programs that don't start say why.

use neuroflow_sandbox::{Errno, LaunchError, LauncherError, Program, ProgramError};

use crate::support::{Directory, standard, try_launch};

async fn refused(program: Program) -> (String, i32) {
    match try_launch(standard(), program).await {
        Err(LaunchError::Program { path, source }) => {
            (path.to_str().expect("text").to_owned(), source.raw())
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_missing_program_is_named() {
    assert_eq!(
        refused(Program::new("no-such-program")).await,
        ("no-such-program".into(), libc::ENOENT)
    );
    assert_eq!(refused(Program::new("/bin/no-such")).await, ("/bin/no-such".into(), libc::ENOENT));
}

#[tokio::test]
async fn what_is_no_program_is_told_apart() {
    assert_eq!(refused(Program::new("/etc/passwd")).await.1, libc::EACCES);
    assert_eq!(refused(Program::new("/usr")).await.1, libc::EACCES);
    assert_eq!(refused(Program::new("/etc/passwd/x")).await.1, libc::ENOENT);
}

#[tokio::test]
async fn a_foreign_format_is_told_apart() {
    let host = Directory::new();
    host.file("noise", b"\x01\x02\x03\x04 not a program", 0o755);
    host.file("lost", b"#!/no/such/interpreter\n", 0o755);
    let profile = || standard().bind_ro(&host.0, "/data");
    for (path, errno) in [("/data/noise", libc::ENOEXEC), ("/data/lost", libc::ENOENT)] {
        match try_launch(profile(), Program::new(path)).await {
            Err(LaunchError::Program { source, .. }) => assert_eq!(source, Errno::from_raw(errno)),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_missing_directory_is_named() {
    match try_launch(standard(), Program::new("true").directory("/nowhere")).await {
        Err(LaunchError::Directory { path, source }) => {
            assert_eq!((path.to_str(), source.raw()), (Some("/nowhere"), libc::ENOENT));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn malformed_programs_do_not_reach_the_zygote() {
    let refused = try_launch(standard(), Program::new("true").arg("a\0b")).await;
    assert!(matches!(
        refused,
        Err(LaunchError::Malformed(ProgramError::ArgumentHasNul { index: 0 }))
    ));
}

#[test]
fn errors_keep_their_source() {
    use std::error::Error;
    let error = LaunchError::Launcher(LauncherError::Spawn {
        source: std::io::Error::from_raw_os_error(12),
    });
    assert!(error.source().and_then(Error::source).is_some());
}
