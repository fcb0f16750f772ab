//! `doctor`: the exit code follows the configured level, and nothing is called available that isn't.

use crate::scene::Scratch;

#[test]
fn the_exit_code_is_that_of_the_configured_level() {
    let scratch = Scratch::new();
    let ran = scratch.output(&["doctor", "--json"]);
    let found: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(found["configured"], "standard");
    assert_eq!(ran.code == 0, found["available"] == true);
    let levels = found["levels"].as_array().unwrap();
    let names: Vec<&str> = levels.iter().filter_map(|level| level["level"].as_str()).collect();
    assert_eq!(names, ["minimal", "standard", "strict", "paranoid"]);
}

#[test]
fn a_level_is_available_exactly_if_a_program_runs_at_it() {
    let scratch = Scratch::new();
    for level in ["minimal", "standard", "strict", "paranoid"] {
        let doctor = scratch.output(&["doctor", &format!("--sandbox-level={level}")]);
        let exec = scratch.output(&["exec", "--level", level, "--", "true"]);
        assert_eq!(doctor.code == 0, exec.code == 0, "{level}: {doctor:?} {exec:?}");
        if doctor.code != 0 {
            for text in ["missing", "remedy", "sandbox.level"] {
                assert!(doctor.stdout.contains(text), "{text:?} isn't in {}", doctor.stdout);
            }
        }
    }
}
