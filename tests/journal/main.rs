//! The journal: one contract over all of its stores, damage, faults, and what a crash may cost.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod cluster;
mod contract;
mod crash;
mod damage;
mod database;
mod disk;
mod folder;
mod lease;
mod postgres;
mod room;
mod scene;
mod sole;
mod tasks;
mod unsure;
