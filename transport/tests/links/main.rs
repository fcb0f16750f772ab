//! Links from outside: nodes with kernels of their own, in one process, over QUIC on loopback.
#![cfg(test)]

mod backlog;
mod calls;
mod capability;
mod cluster;
#[path = "../../../tests/shared/eventually.rs"]
mod eventually;
mod hostile;
mod join;
mod keyed;
mod loss;
mod narrow;
mod rolling;
mod service;
mod strangers;
mod trace;
mod versions;
mod watch;
mod world;
