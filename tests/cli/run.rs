//! `run`: one request, no server.

use std::process::Stdio;
use std::time::Duration;

use crate::scene::{Running, Scratch};

#[test]
fn the_answer_is_printed() {
    let scratch = Scratch::new();
    let ran = scratch.output(&["run", "--agent", "echo", "hello"]);
    assert_eq!((ran.stdout.as_str(), ran.code), ("hello\n", 0), "{}", ran.stderr);
    let ran = scratch.output_with(b"from a pipe", &["run", "--agent", "echo"]);
    assert_eq!((ran.stdout.as_str(), ran.code), ("from a pipe\n", 0), "{}", ran.stderr);
    // Without a name it's the first of agents.enabled, which is the shell.
    let ran = scratch.output(&["run", "echo $((6*7))"]);
    assert_eq!((ran.stdout.as_str(), ran.code), ("42\n", 0), "{}", ran.stderr);
}

#[test]
fn a_task_that_fails_says_why() {
    let scratch = Scratch::new();
    let ran = scratch.output_without_namespaces(&["run", "true"]);
    ran.failed_with(1, &["user namespace", "max_user_namespaces"]);
}

#[test]
fn wrong_usage_is_told() {
    let scratch = Scratch::new();
    scratch.output(&["run", "--agent", "ecko", "x"]).failed_with(2, &["ecko", "echo"]);
    scratch.output(&["run", "--agent", "echo"]).failed_with(2, &["nothing to say"]);
}

#[test]
fn a_signal_cancels_the_task() {
    let scratch = Scratch::new();
    let mark = scratch.path("begun");
    // At level minimal the cell sees the host's files, so it can say that it has begun.
    let line = format!("touch {}; sleep 600", mark.display());
    let mut command = scratch.neuroflow(&["run", "--sandbox-level=minimal", &line]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut running = Running(child.unwrap());
    for _ in 0..500 {
        if mark.exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(mark.exists(), "the task didn't begin");
    running.signal("INT");
    assert_eq!(running.exit_code(), 130, "{}", running.stderr());
}

#[test]
fn python_code_runs_in_a_cell() {
    let scratch = Scratch::new();
    let code = "import os; print(6 * 7, os.getuid(), os.getcwd())";
    let ran = scratch.output(&["run", "--agent", "python", code]);
    assert_eq!((ran.stdout.as_str(), ran.code), ("42 1000 /work\n", 0), "{}", ran.stderr);
}

#[test]
fn what_is_allowed_is_all_that_a_cell_reaches() {
    let scratch = Scratch::new();
    let code = "import http.client\n\
        for host in ['other.example:443', 'localhost:443']:\n\
        \x20   proxy = http.client.HTTPConnection('127.0.0.1', 3128, timeout=10)\n\
        \x20   proxy.request('CONNECT', host, headers={'Host': host})\n\
        \x20   answer = proxy.getresponse()\n\
        \x20   print(answer.status, answer.getheader('x-neuroflow-egress'))\n";
    let allowed = "--sandbox-allow=allowed.example,localhost";
    let ran = scratch.output(&["run", "--agent", "python", allowed, code]);
    let expected = "403 denied; reason=host\n403 denied; reason=address_loopback\n";
    assert_eq!((ran.stdout.as_str(), ran.code), (expected, 0), "{}", ran.stderr);
    // Without a list there is no proxy either.
    let ran = scratch.output(&["run", "--agent", "python", code]);
    assert!(ran.stdout.contains("Traceback"), "{} {}", ran.stdout, ran.stderr);
}
