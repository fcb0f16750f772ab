//! A short Python program in a fork of a warm interpreter, beside the system's `python3` without any cell. Once with
//! nothing imported and once with what agents' programs import most; each from the request to the program's end, as
//! the peer is, and until its cell is gone too.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use neuroflow::sandbox::{End, Interpreter, Launcher, Level, Output, Profile, Program, Warm};

use crate::support::{Aim, Arguments, Figure, Samples, Unit, on_workers};

pub(crate) const FIGURES: &[&str] = &[PRINT, PRINT_GONE, IMPORTS, IMPORTS_GONE];

const PRINT: &str = "python/print";
const PRINT_GONE: &str = "python/print-gone";
const IMPORTS: &str = "python/imports";
const IMPORTS_GONE: &str = "python/imports-gone";
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
    let programs = [
        ([PRINT, PRINT_GONE], SHORT, Interpreter::bare_python(), 0.2),
        ([IMPORTS, IMPORTS_GONE], LONG, Interpreter::python(), 0.05),
    ];
    let mut figures = Vec::new();
    for ([exit, gone], text, interpreter, aim) in programs {
        if arguments.wants(exit) || arguments.wants(gone) {
            let of = on_workers(rounds(arguments.iterations, text, interpreter));
            figures.push(Figure::new(exit, Aim::Ratio(aim), &of.exit).beside(PEER, &of.peer));
            figures.push(Figure::new(gone, Aim::None, &of.gone).beside(PEER, &of.peer));
        }
    }
    figures.retain(|figure| arguments.wants(&figure.name));
    figures
}

struct Samplings {
    exit: Samples,
    gone: Samples,
    peer: Samples,
}

async fn rounds(iterations: usize, text: &str, interpreter: Interpreter) -> Samplings {
    let profile = Profile::builder(Level::Strict).build().expect("a profile of defaults");
    let launcher = Launcher::start().expect("the zygote starts");
    let warm = Warm { least: 2, most: 4 };
    launcher.keep_interpreter_warm(&profile, &interpreter, warm).expect("the host gives strict");
    let samples = || Samples::new(Unit::Nanoseconds);
    let mut all = Samplings { exit: samples(), gone: samples(), peer: samples() };
    let mut round = 0;
    while round < iterations {
        // The pool fills up while the peer runs.
        let alone = bare(text);
        let ((exit, gone), forked) = fork(&launcher, &profile, text).await;
        // Until the first fork is there.
        if forked {
            all.exit.took(exit, 1);
            all.gone.took(gone, 1);
            all.peer.took(alone, 1);
            round += 1;
        }
    }
    all
}

/// How long it took until the program's end and until its cell was gone, and whether it was a fork.
async fn fork(launcher: &Launcher, profile: &Profile, text: &str) -> ((Duration, Duration), bool) {
    let program = Program::python(text);
    let begun = Instant::now();
    let mut cell = launcher.launch(profile, &program).await.expect("the host gives strict");
    let mut said = Vec::new();
    while let Some(output) = cell.next().await {
        if let Output::Stdout(bytes) = output {
            said.extend_from_slice(&bytes);
        }
    }
    let end = cell.exit().await;
    let exit = begun.elapsed();
    assert!(end == Some(End::Exited(0)) && said == b"1\n", "the program ran");
    let report = cell.finish().await;
    let gone = begun.elapsed();
    assert!(report.is_success(), "and its cell is gone");
    ((exit, gone), report.forked)
}

fn bare(text: &str) -> Duration {
    let mut command = Command::new(PYTHON);
    let begun = Instant::now();
    let output = command.args(["-c", text]).stdin(Stdio::null()).output();
    let took = begun.elapsed();
    assert_eq!(output.expect("the interpreter is there").stdout, b"1\n", "the program ran");
    took
}
