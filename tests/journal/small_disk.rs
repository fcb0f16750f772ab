//! A small disk of a test's own: one in memory, in a mount namespace, in which the test program is started once more.

use std::path::Path;
use std::process::Command;

use crate::untried::untried;

/// Says to this program, started once more, that it's inside, and where.
const INSIDE: &str = "NEUROFLOW_TEST_SMALL_DISK";

/// Runs this test with a small disk at `folder`: what `inside` does there.
pub(crate) fn run(test: &str, folder: &Path, inside: impl AsyncFnOnce(&Path)) {
    if let Some(disk) = std::env::var_os(INSIDE) {
        return runtime().block_on(inside(Path::new(&disk)));
    }
    let script = "mount -t tmpfs -o size=2m tmpfs \"$1\" && exec \"$0\" --exact \"$2\" --nocapture";
    let program = std::env::current_exe().expect("this program has a path");
    let mut command = command("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]).arg(program);
    command.arg(folder).arg(test).env(INSIDE, folder);
    let output = command.output().expect("unshare runs");
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("unshare failed") || said.contains("mount:") {
        return untried(test, format!("no namespace with a small disk can be made here: {said}"));
    }
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("1 passed"), "{told}\n{said}");
}

#[expect(clippy::disallowed_methods, reason = "the test starts itself in a namespace")]
fn command(program: &str) -> Command {
    Command::new(program)
}

fn runtime() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().build().expect("a runtime starts")
}
