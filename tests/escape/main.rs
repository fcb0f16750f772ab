//! Attacks each level on this host: every attempt has to be stopped by the wall that the level
//! promises. Prints a table.

#![cfg(target_os = "linux")]
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and its table is for people"
)]

mod documented;
mod levels;
mod unprivileged;
#[path = "../shared/untried.rs"]
mod untried;
