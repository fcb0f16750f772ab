//! Says that something couldn't be tried here: past the harness, which keeps to itself what passing tests say.
//! Where everything has to be tried, that is a failure.
//!
//! Included by the test programs of all crates, so that there's one meaning of it.
#![allow(dead_code, reason = "not every test program needs all of it")]

use std::{fmt::Display, io::Write as _};

/// Set, to the reason, for tests that are run once more by somebody who can't try everything, where others have:
/// as nobody. They still say what they don't try.
pub(crate) const LACKING: &str = "NEUROFLOW_TEST_LACKING";

/// Set on machines that are there to try everything.
pub(crate) const EVERYTHING: &str = "CI";

/// How a line begins that says so.
const MARK: &str = "NOT TRIED";

/// Says that `what` wasn't tried, and why; fails where everything has to be.
pub(crate) fn untried(what: &str, why: impl Display) {
    let lacking = std::env::var(LACKING).ok();
    let text = line(what, &why, lacking.as_deref());
    say(&text);
    assert!(lacking.is_some() || !everything_is_tried(), "{text}");
}

/// The same of what this host can't have by design, such as one version of control groups where there's the other:
/// no failure anywhere.
pub(crate) fn not_here(what: &str, why: impl Display) {
    say(&line(what, &why, Some("by design")));
}

/// Whether this is a machine that is there to try everything: the variable is set, and to anything but `false`.
pub(crate) fn everything_is_tried() -> bool {
    std::env::var(EVERYTHING).is_ok_and(|value| !value.is_empty() && value != "false")
}

/// Says on what another process of these tests has said that wasn't tried there.
pub(crate) fn say_on(output: &[u8]) {
    String::from_utf8_lossy(output).lines().filter(|line| line.starts_with(MARK)).for_each(say);
}

/// One line, so that whoever has started this program can say it on.
fn line(what: &str, why: &dyn Display, leave: Option<&str>) -> String {
    let leave = leave.map(|leave| format!(" ({leave})")).unwrap_or_default();
    let why = why.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    format!("{MARK}{leave}: {what}: {why}")
}

fn say(text: &str) {
    // The harness may have begun the line.
    std::io::stderr().write_all(format!("\n{text}\n").as_bytes()).ok();
}
