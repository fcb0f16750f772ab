//! The short way: a description that runs programs.

use neuroflow_sandbox::{Cell, End, InputError, Level, Program, RunError, SealedInput};

use crate::support::{Directory, sh};

fn standard() -> Cell {
    Cell::builder(Level::Standard).build().expect("a profile of defaults")
}

#[tokio::test]
async fn every_run_has_a_fresh_cell() {
    let cell = standard();
    let first = cell.run(sh("echo left > /work/behind; cat /work/behind")).await.expect("a cell");
    assert_eq!(first.stdout, b"left\n");
    let second = cell.clone().run(sh("ls /work")).await.expect("a cell");
    assert_eq!(second.stdout, b"");
}

#[test]
fn a_thread_may_wait() {
    let done = standard().run_blocking(Program::new("cat").stdin("through")).expect("a cell");
    assert_eq!((done.stdout.as_slice(), done.report.end), (&b"through"[..], End::Exited(0)));
}

#[tokio::test]
async fn a_thread_of_a_runtime_may_not() {
    let refused = standard().run_blocking(Program::new("true"));
    assert!(matches!(refused, Err(RunError::Asynchronous)));
}

#[tokio::test]
async fn output_comes_as_it_is_written() {
    let mut running = standard().start(sh("echo one; sleep 600")).await.expect("a cell");
    assert!(running.next().await.is_some());
    running.kill();
    assert_eq!(running.finish().await.end, End::Cancelled);
}

#[tokio::test]
async fn the_exit_is_known_before_the_rest_is_gone() {
    let mut running = standard().start(sh("sleep 600 >&- 2>&- & exit 4")).await.expect("a cell");
    assert_eq!(running.exit().await, Some(End::Exited(4)));
    assert_eq!(running.finish().await.end, End::Exited(4));
}

#[tokio::test]
async fn a_sealed_input_is_read_by_many_and_written_by_none() -> Result<(), InputError> {
    let bytes = b"line\n".repeat(1 << 20);
    let input = SealedInput::new(&bytes)?;
    let cell = standard();
    for _ in 0..3 {
        let count = cell.run(Program::new("wc").arg("-c").input(&input)).await.expect("a cell");
        assert_eq!(String::from_utf8_lossy(&count.stdout).trim(), bytes.len().to_string());
    }
    let script = "echo x >> /dev/stdin || echo x >> /proc/self/fd/0; wc -c";
    let count = cell.run(sh(script).input(&input)).await.expect("a cell");
    assert_eq!(String::from_utf8_lossy(&count.stdout).trim(), bytes.len().to_string());
    Ok(())
}

#[tokio::test]
async fn a_program_keeps_a_sealed_input_from_nobody_else() -> Result<(), InputError> {
    let input = SealedInput::new(b"through")?;
    let cell = standard();
    let read = || sh("cat; cat /proc/self/fd/0; stat -L -c ' %a %Y' /proc/self/fd/0").input(&input);
    let spoil = "chmod 0 /proc/self/fd/0; touch -d @1 /proc/self/fd/0";
    for program in [read(), sh(spoil).input(&input), read()] {
        let is_reader = program == read();
        let done = cell.run(program).await.expect("a cell");
        let told = String::from_utf8_lossy(&done.stdout);
        let is_whole = told.starts_with("throughthrough 444 ") && !told.ends_with(" 1\n");
        assert!(is_whole || !is_reader, "{told}");
    }
    Ok(())
}

#[tokio::test]
async fn a_signal_that_says_a_limit_was_met_is_not_taken_for_one() {
    let done = standard().run(sh("kill -XCPU $$")).await.expect("a cell");
    assert_eq!(done.report.end, End::Signalled(libc::SIGXCPU));
}

#[tokio::test]
async fn a_host_directory_can_be_the_working_directory() {
    let directory = Directory::new();
    directory.give_to(4711);
    let cell = Cell::builder(Level::Standard).workdir(&directory.0).build().expect("a profile");
    let done = cell.run(sh("pwd; echo made > here")).await.expect("a cell");
    assert_eq!(done.stdout, b"/work\n");
    assert_eq!(std::fs::read(directory.0.join("here")).expect("a file"), b"made\n");
}
