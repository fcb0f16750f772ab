//! The same promises hold for a host that isn't root.

use std::process::Command;

use crate::support::{ROLE, is_root, reachable_copy};

/// Runs the whole suite again as nobody, from a copy that nobody can reach.
#[test]
#[expect(clippy::disallowed_methods, reason = "another user is another process")]
fn the_whole_suite_passes_as_nobody() {
    if !is_root() || std::env::var_os(ROLE).is_some() {
        return;
    }
    let (_place, copy) = reachable_copy();
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"])
        .arg(&copy)
        .current_dir("/")
        .output()
        .expect("an end");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
}
