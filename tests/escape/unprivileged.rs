//! The same for a host that isn't root: its cells have its own id, so other walls speak.

use std::process::{Command, Stdio};

use neuroflow_sandbox::Level;

use crate::levels::{attack, is_root};
use crate::untried::{LACKING, say_on, untried};

/// Tells the test which part it plays.
const ROLE: &str = "ESCAPE_ROLE";
const NOBODY: &str = "unprivileged::role_nobody";

/// From a copy, because nobody can't look into every checkout.
#[test]
fn nothing_gets_through_when_nobody_is_the_host() {
    if !is_root() {
        return untried("attacks by nobody's cells", "only root can become nobody");
    }
    let own = std::env::temp_dir().join(format!("escape-{}", std::process::id()));
    std::fs::copy(std::env::current_exe().expect("a path"), &own).expect("a copy");
    #[expect(clippy::disallowed_methods, reason = "another host is another process")]
    let ran = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&own)
        .args(["--exact", NOBODY, "--nocapture"])
        .env(ROLE, NOBODY)
        .env(LACKING, "as nobody, who may have been given no group")
        .stdin(Stdio::null())
        .current_dir("/")
        .output();
    std::fs::remove_file(&own).ok();
    let ran = ran.expect("another host");
    say_on(&ran.stderr);
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    println!("{out}");
    assert!(ran.status.success() && out.contains("1 passed"), "{out}\n{err}");
}

#[tokio::test]
async fn role_nobody() {
    if std::env::var(ROLE).as_deref() != Ok(NOBODY) {
        return;
    }
    for level in [Level::Minimal, Level::Standard, Level::Strict, Level::Paranoid] {
        attack(level).await;
    }
}
