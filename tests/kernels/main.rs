//! Boots other kernels and runs tests of other test programs inside them: user-mode Linux for cgroup
//! v2 limits, an emulated machine where Landlock has to be there as well.
//!
//! A guest sees the host's own file tree, read-only, so it runs the very test programs that the host
//! has built. `tools/setup test` installs what is needed.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod archive;
#[path = "../shared/eventually.rs"]
mod eventually;
mod guest;
mod programs;
mod qemu;
mod uml;
#[path = "../shared/untried.rs"]
mod untried;
