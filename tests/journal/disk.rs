//! A disk that is full: new work is refused, what is there stays readable, and room is enough to go
//! on. The disk is a small one in memory, in a mount namespace of the test's own.

use std::path::Path;
use std::process::Command;

use neuroflow::TaskState;
use neuroflow::actors::{Append, AppendError, AskRefusal};
use neuroflow::{AgentBuilder, Answer, AskError, Node};

use crate::folder::Folder;
use crate::scene::{Scene, config, event, head, say, texts};

/// Says to this program, started once more, that it's inside, and where.
const INSIDE: &str = "NEUROFLOW_TEST_SMALL_DISK";

/// Runs the test of this name in a namespace with a small disk, and checks its end.
#[expect(clippy::print_stderr, reason = "a test that doesn't run says so")]
fn on_a_small_disk(test: &str) {
    let folder = Folder::new();
    let script = "mount -t tmpfs -o size=2m tmpfs \"$1\" && exec \"$0\" --exact \"$2\" --nocapture";
    let program = std::env::current_exe().expect("this program has a path");
    let mut command = command("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]).arg(program);
    command.arg(folder.path()).arg(test).env(INSIDE, folder.path());
    let output = command.output().expect("unshare runs");
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("unshare failed") || said.contains("mount:") {
        let ci = std::env::var_os("CI").is_some();
        assert!(!ci, "no namespace with a small disk can be made here: {said}");
        eprintln!("SKIPPED {test}: no namespace with a small disk can be made here: {said}");
        return;
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

#[test]
fn a_full_disk_refuses_and_keeps() {
    match std::env::var_os(INSIDE) {
        None => on_a_small_disk("disk::a_full_disk_refuses_and_keeps"),
        Some(folder) => runtime().block_on(refuses_and_keeps(Path::new(&folder))),
    }
}

async fn refuses_and_keeps(folder: &Path) {
    let ballast = folder.join("ballast");
    let journal = folder.join("journal");
    let scene = Scene::at(&journal).await;
    say(&scene.journal, "a", 0, TaskState::Working).await.expect("appended");
    std::fs::write(&ballast, vec![1; 1024 * 1024]).expect("there is room");
    // Until there is none left.
    let large = "x".repeat(64 * 1024);
    let mut kept = 0;
    let refused = loop {
        let entries = vec![event("b", kept + 1, &large)];
        match scene
            .journal
            .append(Append { head: head("b", TaskState::Working, kept), entries })
            .await
        {
            Ok(()) => kept += 1,
            Err(error) => break error,
        }
        assert!(kept < 100, "the disk has no end");
    };
    assert!(matches!(refused, AppendError::DiskFull { .. }), "{refused:?}");
    assert!(refused.is_retryable());
    assert!(kept > 3);
    assert_eq!(texts(&scene.journal, "a").await, ["1"]);
    assert_eq!(texts(&scene.journal, "b").await.len() as u64, kept);
    // With room it goes on where it was.
    std::fs::remove_file(&ballast).expect("removed");
    say(&scene.journal, "b", kept, TaskState::Completed).await.expect("appended");
    scene.stop().await;
    let scene = Scene::at(&journal).await;
    assert_eq!(scene.report.damages, 0, "{:?}", scene.report.damage);
    assert_eq!(texts(&scene.journal, "b").await.len() as u64, kept + 1);
    scene.stop().await;
}

#[test]
fn a_node_on_a_full_disk_refuses_new_tasks() {
    match std::env::var_os(INSIDE) {
        None => on_a_small_disk("disk::a_node_on_a_full_disk_refuses_new_tasks"),
        Some(folder) => runtime().block_on(refuses_tasks(Path::new(&folder))),
    }
}

async fn refuses_tasks(folder: &Path) {
    let agent = AgentBuilder::new("echo", "Says what it hears.")
        .on_ask(|ask, _| async move { Ok(Answer::text(ask.text())) });
    let config = config(&folder.join("journal"));
    let node = Node::builder().agent(agent).journal(config).start().await.expect("it starts");
    let first = node.ask("echo", "hello").await.expect("answered");
    let ballast = folder.join("ballast");
    // The system gives what there is, and then no more.
    let _full = std::fs::write(&ballast, vec![1; 4 * 1024 * 1024]);
    let large = "x".repeat(64 * 1024);
    let refused = node.ask("echo", &large).await.expect_err("there is no room");
    assert!(matches!(refused, AskError::Declined(AskRefusal::Unkept)), "{refused:?}");
    let agent = node.address("echo").expect("the agent is there");
    let task = first.task().to_owned();
    let read = |reply| neuroflow::actors::AgentCommand::Read { task, caller: None, reply };
    let events = agent.call(neuroflow::Header::new(), read).await.expect("answered");
    assert_eq!(events.expect("it's still there").len(), 4);
    std::fs::remove_file(&ballast).expect("removed");
    assert_eq!(node.ask("echo", &large).await.expect("answered").text(), large);
    node.stop().await;
}
