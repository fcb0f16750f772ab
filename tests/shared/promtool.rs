//! Another program's opinion of a page of metrics.
//!
//! Included by the test programs of several crates.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use crate::untried::untried;

/// Lets Prometheus's own tool check a page, which has to please it without a word.
pub(crate) fn check(page: &str) {
    #[expect(clippy::disallowed_methods, reason = "a test asks another program for its opinion")]
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match promtool {
        Ok(promtool) => promtool,
        Err(missing) => {
            let why =
                format!("promtool can't be run ({missing}); run `make test`, which installs it");
            return untried("metrics, by Prometheus's own tool", why);
        }
    };
    let mut input = promtool.stdin.take().expect("a pipe");
    input.write_all(page.as_bytes()).expect("it reads");
    drop(input);
    let said = promtool.wait_with_output().expect("its end");
    let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert!(said.status.success() && out.is_empty() && err.is_empty(), "{out}{err}\n{page}");
}
