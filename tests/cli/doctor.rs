//! `doctor`: the exit code follows the configured level, and nothing is called available that isn't.

use crate::scene::Scratch;
use crate::untried::untried;

#[test]
fn the_exit_code_is_that_of_the_configured_level() {
    let scratch = Scratch::new();
    let ran = scratch.output(&["doctor", "--json", "--quick"]);
    let found: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(found["configured"], "strict");
    assert_eq!(ran.code == 0, found["available"] == true && found["holds"] == true);
    let levels = found["levels"].as_array().unwrap();
    let names: Vec<&str> = levels.iter().filter_map(|level| level["level"].as_str()).collect();
    assert_eq!(names, ["minimal", "standard", "strict", "paranoid"]);
}

#[test]
fn a_level_is_available_exactly_if_a_program_runs_at_it() {
    let scratch = Scratch::new();
    for level in ["minimal", "standard", "strict", "paranoid"] {
        let doctor = scratch.output(&["doctor", "--quick", "--level", level]);
        let exec = scratch.output(&["exec", "--level", level, "--", "true"]);
        assert_eq!(doctor.code == 0, exec.code == 0, "{level}: {doctor:?} {exec:?}");
        if doctor.code != 0 {
            for text in ["missing", "remedy", "sandbox.level"] {
                assert!(doctor.stdout.contains(text), "{text:?} isn't in {}", doctor.stdout);
            }
        }
    }
}

#[test]
fn every_attack_is_listed_with_what_stopped_it() {
    let scratch = Scratch::new();
    let ran = scratch.output(&["doctor", "--quick", "--attempts", "--level", "standard"]);
    // Whether it can be had at all: nothing else may excuse another code.
    let exec = scratch.output(&["exec", "--level", "standard", "--", "true"]);
    if exec.code != 0 {
        assert!(ran.code != 0 && ran.stdout.contains("missing"), "{ran:?}");
        return untried("attacks on level standard", exec.stderr);
    }
    assert_eq!(ran.code, 0, "{}", ran.stdout);
    let line = ran.stdout.lines().find(|line| line.contains("read-host-file"));
    let line = line.unwrap_or_else(|| panic!("{}", ran.stdout));
    assert!(line.contains("held") && line.contains("private root (openat: ENOENT)"), "{line}");
    assert!(ran.stdout.contains(" 0 got through"), "{}", ran.stdout);
    assert!(ran.stdout.contains("works here and holds"), "{}", ran.stdout);
}
