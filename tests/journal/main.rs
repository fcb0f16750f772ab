//! The journal: one contract over all of its stores, damage, faults, and what a crash may cost.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "what a run of random moments has met is worth knowing")]

mod again;
mod calls;
mod cluster;
mod contract;
mod crash;
mod damage;
mod database;
mod disk;
#[path = "../shared/eventually.rs"]
mod eventually;
mod folder;
mod killable;
mod lease;
mod listing;
mod nodes;
mod postgres;
mod room;
mod scene;
mod segments;
mod shop;
mod small_disk;
mod sole;
mod tasks;
mod unsure;
#[path = "../shared/untried.rs"]
mod untried;
mod watchers;
