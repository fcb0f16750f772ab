//! One test per level: nothing gets through, and nothing is stopped by chance.

use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt;

use neuroflow_sandbox::{
    LaunchError, Launcher, Level,
    escape::{Attack, Attempt, Class, Judgement, Outcome, Suite, SuiteError},
};

use crate::untried::untried;

#[tokio::test]
async fn nothing_gets_through_minimal() {
    attack(Level::Minimal).await;
}

#[tokio::test]
async fn nothing_gets_through_standard() {
    attack(Level::Standard).await;
}

#[tokio::test]
async fn nothing_gets_through_strict() {
    attack(Level::Strict).await;
}

#[tokio::test]
async fn nothing_gets_through_paranoid() {
    attack(Level::Paranoid).await;
}

/// A part of the above, for guests with another kernel, in which everything takes ten times as long: what
/// control groups have to stop, what Landlock stands behind, and the quick attempts of the other classes.
#[tokio::test]
async fn nothing_gets_through_strict_on_another_kernel() {
    if std::env::var_os(GUEST).is_some() {
        let whole = [Class::HostFiles, Class::Processes, Class::Network, Class::Resources];
        let wanted = |attempt: &Attempt| attempt.quick || whole.contains(&attempt.class);
        attack_with(Level::Strict, wanted).await;
    }
}

/// Set where only a part is wanted.
const GUEST: &str = "ESCAPE_GUEST";

pub(crate) async fn attack(level: Level) {
    attack_with(level, |_| true).await;
}

async fn attack_with(level: Level, wanted: impl Fn(&Attempt) -> bool) {
    let launcher = Launcher::start().expect("a zygote");
    let mut suite = Suite::prepare(&launcher).expect("targets");
    let attacks = match suite.run(level, wanted, |_| ()).await {
        // What the host can't give can't be attacked; `doctor` says it, and so do we.
        Err(SuiteError::Launch { source, .. })
            if matches!(*source, LaunchError::Unavailable { .. }) =>
        {
            return untried(&format!("attacks on level {level}"), source);
        }
        other => other.expect("attacks"),
    };
    println!("{}", table(level, &attacks));
    let failures: Vec<String> =
        attacks.iter().filter(|attack| attack.judgement().is_failure()).map(line).collect();
    assert!(failures.is_empty(), "level {level}:\n{}", failures.join("\n"));
}

pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

fn line(attack: &Attack) -> String {
    let Attack { attempt, outcome, control, .. } = attack;
    let (judgement, expected) = (attack.judgement(), attack.expected());
    let took = attack.took.as_millis();
    format!(
        "{judgement:?} {}: {outcome:?}, expected {expected:?}, control {control:?}, {took} ms",
        attempt.name
    )
}

fn table(level: Level, attacks: &[Attack]) -> String {
    let mut text = format!("level {level}\n");
    for class in Class::ALL {
        let of_class = || attacks.iter().filter(|attack| attack.attempt.class == class);
        let count = |judgement| of_class().filter(|a| a.judgement() == judgement).count();
        writeln!(
            text,
            "{class:<16} {:>3} attempts, {:>3} held, {:>3} open, {:>3} void",
            of_class().count(),
            count(Judgement::Held),
            count(Judgement::Open),
            count(Judgement::Void),
        )
        .expect("text");
        for attack in of_class() {
            let stopped = match &attack.outcome {
                Outcome::Stopped(stopped) => stopped.to_string(),
                other => format!("{other:?}"),
            };
            writeln!(text, "  {:<28} {stopped}", attack.attempt.name).expect("text");
        }
    }
    text
}
