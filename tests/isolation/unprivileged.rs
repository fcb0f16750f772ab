//! The same promises hold for a host that isn't root.

use std::process::Command;

use crate::support::{NOBODY, is_root, reachable_copy};
use crate::untried::{LACKING, say_on, untried};

/// Runs the whole suite again as nobody, from a copy that nobody can reach.
#[test]
#[expect(clippy::disallowed_methods, reason = "another user is another process")]
fn the_whole_suite_passes_as_nobody() {
    if !is_root() {
        return untried("the whole suite as nobody", "only root can become somebody else");
    }
    let (_place, copy) = reachable_copy();
    let output = Command::new(NOBODY[0])
        .args(&NOBODY[1..])
        .arg(&copy)
        .env(LACKING, "as nobody")
        .current_dir("/")
        .output()
        .expect("an end");
    say_on(&output.stderr);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
}
