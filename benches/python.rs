//! A short Python program in a fork of a warm interpreter, from the request to the reaped end of its
//! cell, beside the system's `python3` without any cell. Once with nothing imported and once with
//! what agents' programs import most.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use neuroflow::sandbox::{Interpreter, Launcher, Level, Profile, Program, Warm};

use crate::support::{Aim, Arguments, Figure, Samples, Unit, on_workers};

pub(crate) const FIGURES: &[&str] = &[PRINT, IMPORTS];

const PRINT: &str = "python/print";
const IMPORTS: &str = "python/imports";
const PEER: &str = "python3 -c, no cell";
/// The system's own; a wrapper that chooses among several would cost more than it.
const PYTHON: &str = "/usr/bin/python3";
const SHORT: &str = "print(1)";
const LONG: &str = "import json, re, asyncio, urllib.request; print(1)";

pub(crate) fn measure(arguments: &Arguments) -> Vec<Figure> {
    if !FIGURES.iter().any(|figure| arguments.wants(figure)) {
        return Vec::new();
    }
    let there = Command::new(PYTHON).arg("--version").stdout(Stdio::null()).status().is_ok();
    if !there {
        println!("{PYTHON} isn't there, so Python isn't measured");
        return Vec::new();
    }
    let iterations = arguments.iterations;
    let wanted = FIGURES.iter().filter(|name| arguments.wants(name)).copied();
    let figures = wanted.map(|name| {
        let (text, interpreter, aim) = if name == PRINT {
            (SHORT, Interpreter::bare_python(), Aim::Ratio(0.2))
        } else {
            (LONG, Interpreter::python(), Aim::Ratio(0.05))
        };
        let (ours, peer) = on_workers(rounds(iterations, text, interpreter));
        Figure::new(name, aim, &ours).beside(PEER, &peer)
    });
    figures.collect()
}

async fn rounds(iterations: usize, text: &str, interpreter: Interpreter) -> (Samples, Samples) {
    let profile = Profile::builder(Level::Strict).build().expect("a profile of defaults");
    let launcher = Launcher::start().expect("the zygote starts");
    let warm = Warm { least: 2, most: 4 };
    launcher.keep_interpreter_warm(&profile, &interpreter, warm).expect("the host gives strict");
    let (mut ours, mut peer) = (Samples::new(Unit::Nanoseconds), Samples::new(Unit::Nanoseconds));
    let mut round = 0;
    while round < iterations {
        // The pool fills up while the peer runs.
        let alone = bare(text);
        let (took, forked) = fork(&launcher, &profile, text).await;
        // Until the first fork is there.
        if forked {
            ours.took(took, 1);
            peer.took(alone, 1);
            round += 1;
        }
    }
    (ours, peer)
}

async fn fork(launcher: &Launcher, profile: &Profile, text: &str) -> (Duration, bool) {
    let program = Program::python(text);
    let begun = Instant::now();
    let cell = launcher.launch(profile, &program).await.expect("the host gives strict");
    let collected = cell.collect().await;
    let took = begun.elapsed();
    assert!(collected.report.is_success() && collected.stdout == b"1\n", "the program ran");
    (took, collected.report.forked)
}

fn bare(text: &str) -> Duration {
    let mut command = Command::new(PYTHON);
    let begun = Instant::now();
    let output = command.args(["-c", text]).stdin(Stdio::null()).output();
    let took = begun.elapsed();
    assert_eq!(output.expect("the interpreter is there").stdout, b"1\n", "the program ran");
    took
}
