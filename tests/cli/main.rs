//! The built binary from the outside: its output, its exit codes, its errors. One module per command.
//!
//! Every test has a directory of its own and ports that the system chooses, so that all of them run
//! beside each other.

#![cfg(target_os = "linux")]
#![expect(clippy::disallowed_methods, reason = "tests start the built binary")]
#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod access;
mod audit;
#[path = "../shared/ca.rs"]
mod ca;
mod cluster;
mod config;
mod doctor;
mod exec;
#[path = "../shared/promtool.rs"]
mod promtool;
mod run;
mod scene;
mod serve;
mod tasks;
mod tls;
mod tree;
#[path = "../shared/untried.rs"]
mod untried;
