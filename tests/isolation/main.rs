//! Attacks cells from inside and launchers from outside. One module per promise.
//!
//! Inside cells only `sh`, coreutils and perl-base are used, as a bare Debian 12 has them. Where
//! something is refused the error number is checked too, because it tells which layer refused.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod binds;
mod cell;
mod egress;
mod ends;
mod errors;
#[path = "../shared/eventually.rs"]
mod eventually;
mod files;
mod host;
mod identity;
mod levels;
mod lies;
mod lifecycle;
mod limits;
mod memory;
mod network;
mod once;
mod overlay;
mod pool;
mod privileges;
mod processes;
mod python;
mod server;
mod starved;
mod streams;
mod strict;
mod support;
mod unprivileged;
#[path = "../shared/untried.rs"]
mod untried;
