//! Level `minimal` as other systems have it, on this one.

use std::{future::Future, path::PathBuf, time::Duration};

use super::{Launcher, Running, Warm};
use crate::{
    diagnosis::{Reason, Remedy},
    doctor::Verdict,
    error::LaunchError,
    interpreter::Interpreter,
    level::{Layer, Level},
    output::Output,
    profile::{Profile, ProfileBuilder},
    program::Program,
    report::{End, Truncated},
};

fn minimal() -> ProfileBuilder {
    Profile::builder(Level::Minimal).allow_degraded(true).wall_time(PATIENCE)
}

async fn launched(profile: ProfileBuilder, program: Program) -> Running {
    let profile = profile.build().unwrap();
    Launcher::start().unwrap().launch(&profile, &program).await.unwrap()
}

fn shell(text: &str) -> Program {
    Program::new("sh").args(["-c", text])
}

#[tokio::test]
async fn a_program_runs_and_its_report_says_what_it_did_without() {
    let program = shell("cat; echo to stderr >&2; pwd; exit 7").stdin("to stdout\n");
    let collected = launched(minimal(), program).await.collect().await;
    assert_eq!(collected.stdout, b"to stdout\n/\n");
    assert_eq!(collected.stderr, b"to stderr\n");
    let report = collected.report;
    assert_eq!((report.end, report.level), (End::Exited(7), Level::Minimal));
    assert_eq!(report.truncated, Truncated::default());
    assert!(report.usage.peak_resident_bytes > 100 << 10, "{:?}", report.usage);
    assert_eq!(
        report.degraded,
        [Layer::ResourceLimits, Layer::NoNewPrivileges, Layer::ProcessTree]
    );
    assert_eq!(report.layers(), [Layer::CleanEnvironment, Layer::Session]);
}

#[tokio::test]
async fn what_the_system_cannot_give_is_refused_by_name() {
    let launcher = Launcher::start_async().await.unwrap();
    for (level, degraded, layer, remedy) in [
        (Level::Minimal, false, Layer::ResourceLimits, Remedy::DoWithout),
        (Level::Standard, true, Layer::UserNamespace, Remedy::AnotherHost),
        (Level::Strict, true, Layer::UserNamespace, Remedy::AnotherHost),
        (Level::Paranoid, false, Layer::UserNamespace, Remedy::AnotherHost),
    ] {
        let profile = Profile::builder(level).allow_degraded(degraded).build().unwrap();
        let program = Program::new("true");
        let launch = launcher.launch(&profile, &program).await.map(drop);
        let warm = Warm { least: 1, most: 1 };
        let python = Interpreter::python();
        for refused in [
            launch,
            launcher.rehearse(&profile).await,
            launcher.keep_warm(&profile, warm),
            launcher.keep_interpreter_warm(&profile, &python, warm),
        ] {
            assert!(
                matches!(
                    refused,
                    Err(LaunchError::Unavailable { layer: missing, reason: Reason::NotLinux, remedy: helps })
                        if missing == layer && helps == remedy
                ),
                "{level}: {refused:?}"
            );
        }
    }
    for finding in launcher.examine(Level::Standard).await.unwrap() {
        let is_given = matches!(finding.layer, Layer::CleanEnvironment | Layer::Session);
        assert_eq!(finding.verdict == Verdict::Available, is_given, "{finding:?}");
    }
    let profile = minimal().build().unwrap();
    assert!(launcher.rehearse(&profile).await.is_ok());
    let refused = launcher.keep_warm(&profile, Warm { least: 1, most: 1 });
    assert!(matches!(refused, Err(LaunchError::NotPreparable { .. })));
}

#[tokio::test]
async fn the_environment_and_the_directory_are_those_of_the_profile() {
    let program = Program::new("env").directory("/usr");
    let profile = minimal().env("GREETING", "hello").env("LANG", "C");
    let collected = launched(profile, program).await.collect().await;
    let text = String::from_utf8(collected.stdout).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    let path = "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";
    assert_eq!(lines, ["GREETING=hello", "HOME=/", "LANG=C", path]);
    let here = launched(minimal(), Program::new("pwd").directory("/usr")).await.collect().await;
    assert_eq!(here.stdout, b"/usr\n");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let launcher = Launcher::start().unwrap();
    let profile = minimal().build().unwrap();
    let launch = async |program: Program| launcher.launch(&profile, &program).await.unwrap_err();
    for name in ["no-such-program", "/no/such/program", "/etc/passwd"] {
        let refused = launch(Program::new(name)).await;
        assert!(matches!(refused, LaunchError::Program { .. }), "{name}: {refused:?}");
    }
    let refused = launch(Program::new("true").directory("/no/such/place")).await;
    assert!(
        matches!(refused, LaunchError::Directory { source, .. } if source.raw() == libc::ENOENT)
    );
    let refused = launch(Program::new("a\0b")).await;
    assert!(matches!(refused, LaunchError::Malformed(_)));
}

#[tokio::test]
async fn limits_hold_as_far_as_the_system_has_them() {
    let text = "test $(ulimit -n) = 9 && test $(ulimit -H -n) = 9 && test $(ulimit -c) = 0 && \
                test $(ps -o sid= -p $$) = $$ && dd if=/dev/zero of=\"$FILE\" bs=4096 count=3; exit $?";
    let file = std::env::temp_dir().join(format!("portable-{}", std::process::id()));
    let profile = minimal().open_files(9).file_size(8192).env("FILE", &file);
    let collected = launched(profile, Program::new("sh").args(["-c", text])).await.collect().await;
    let size = std::fs::metadata(&file).map(|file| file.len());
    std::fs::remove_file(&file).ok();
    assert_eq!(size.ok(), Some(8192), "{}", String::from_utf8_lossy(&collected.stderr));
    // The shell says what became of its last command, which a signal has ended.
    assert_eq!(collected.report.end, End::Exited(128 + libc::SIGXFSZ));
    let report = launched(minimal(), shell("kill -XFSZ $$")).await.finish().await;
    assert_eq!(report.end, End::FileSize);
}

#[tokio::test]
async fn output_past_the_limit_ends_the_program() {
    let collected = launched(minimal().output(1000), Program::new("yes")).await.collect().await;
    assert_eq!(collected.report.end, End::OutputLimit);
    assert_eq!(collected.report.truncated, Truncated { stdout: true, stderr: false });
    assert_eq!(collected.stdout.len(), 1000);
}

#[tokio::test]
async fn input_is_written_while_the_program_runs_or_ahead() {
    let mut cell = launched(minimal(), Program::new("cat").interactive()).await;
    let mut stdin = cell.take_stdin().unwrap();
    assert!(cell.take_stdin().is_none());
    stdin.write(b"one\n").await.unwrap();
    assert_eq!(cell.next().await, Some(Output::Stdout(b"one\n".to_vec())));
    drop(stdin);
    assert_eq!(cell.exit().await, Some(End::Exited(0)));
    // More than a pipe holds, both ways at once.
    let bytes = vec![b'x'; 1 << 20];
    let sealed = crate::input::SealedInput::new(&bytes).unwrap();
    for program in [Program::new("cat").stdin(bytes.clone()), Program::new("cat").input(&sealed)] {
        let collected = launched(minimal(), program).await.collect().await;
        assert!(collected.stdout == bytes && collected.report.is_success());
    }
}

/// A program that leaves a process in its group behind, and says which.
const LEAVES: &str = "sleep 1000 & echo $!; ";

#[tokio::test]
async fn the_group_ends_with_its_program_however_that_ends() {
    let by_itself = launched(minimal(), shell(&format!("{LEAVES} exec true"))).await;
    let collected = in_time(by_itself.collect()).await;
    assert_eq!(collected.report.end, End::Exited(0));
    gone(&collected.stdout).await;

    let timed = minimal().wall_time(Duration::from_millis(300));
    let mut cell = launched(timed, shell(&format!("{LEAVES} exec sleep 1000"))).await;
    let left = line(&mut cell).await;
    assert_eq!(in_time(cell.finish()).await.end, End::WallTime);
    gone(&left).await;

    let mut cell = launched(minimal(), shell(&format!("{LEAVES} exec sleep 1000"))).await;
    let left = line(&mut cell).await;
    cell.kill();
    assert_eq!(in_time(cell.finish()).await.end, End::Cancelled);
    gone(&left).await;

    let mut cell = launched(minimal(), shell(&format!("{LEAVES} exec sleep 1000"))).await;
    let left = line(&mut cell).await;
    assert_eq!(in_time(cell.finish_by(async {})).await.end, End::WallTime);
    gone(&left).await;

    let mut cell = launched(minimal(), shell(&format!("{LEAVES} exec sleep 1000"))).await;
    let left = line(&mut cell).await;
    drop(cell);
    gone(&left).await;
}

#[test]
fn a_runtime_that_ends_takes_its_programs_along() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().unwrap();
    let (cell, left) = runtime.block_on(async {
        let mut cell = launched(minimal(), shell(&format!("{LEAVES} exec sleep 1000"))).await;
        let left = line(&mut cell).await;
        (cell, left)
    });
    drop(runtime);
    drop(cell);
    let mut other = tokio::runtime::Builder::new_current_thread();
    other.enable_all().build().unwrap().block_on(gone(&left));
}

#[tokio::test]
async fn what_has_left_the_group_holds_nobody_up_and_is_not_ended() {
    // The known hole, which the documentation tells of: this is to fail when it is closed.
    let text = "setsid sh -c 'echo $$; exec sleep 1000' & exec cat";
    let mut cell = launched(minimal(), shell(text).interactive()).await;
    let left = line(&mut cell).await;
    drop(cell.take_stdin());
    assert_eq!(in_time(cell.finish()).await.end, End::Exited(0));
    let pid = std::str::from_utf8(&left).unwrap().trim();
    assert!(proc_of(pid).exists());
    crate::linux::sys::process::kill(pid.parse().unwrap(), libc::SIGKILL).unwrap();
    gone(&left).await;
}

/// The first line of output.
async fn line(cell: &mut Running) -> Vec<u8> {
    match in_time(cell.next()).await {
        Some(Output::Stdout(line)) => line,
        other => panic!("{other:?}"),
    }
}

fn proc_of(pid: &str) -> PathBuf {
    PathBuf::from("/proc").join(pid)
}

/// Waits until the process of this number has ended; whoever inherits it reaps it in time.
async fn gone(pid: &[u8]) {
    let pid = std::str::from_utf8(pid).unwrap().trim();
    in_time(async {
        loop {
            let state = std::fs::read_to_string(proc_of(pid).join("stat")).unwrap_or_default();
            let state = state.rsplit(") ").next().unwrap_or_default();
            if state.is_empty() || state.starts_with(['Z', 'X']) {
                return;
            }
            neuroflow_kernel::Clock::system().sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    let clock = neuroflow_kernel::Clock::system();
    clock.before(clock.now() + PATIENCE, future).await.expect("it takes too long")
}

/// Far more than any of it takes.
const PATIENCE: Duration = Duration::from_mins(1);
