//! The zygote: a small process with one thread that starts cells, so that the host never forks.
//!
//! A host with many threads and much memory must not fork: the child could meet locks that nobody
//! opens, and copying page tables costs 5 ms per 100 MiB. So the host executes itself once;
//! [`entry`] notices before `main` and turns that process into the zygote. It lives as long as the
//! host holds the other end of its socket.

pub(crate) mod protocol;
pub(crate) mod wire;

#[cfg(target_os = "linux")]
mod cells;
#[cfg(target_os = "linux")]
pub(crate) mod entry;
#[cfg(target_os = "linux")]
mod interpreters;
#[cfg(target_os = "linux")]
mod nursery;
#[cfg(target_os = "linux")]
mod owner;
#[cfg(target_os = "linux")]
mod pools;
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
mod seedlings;
#[cfg(target_os = "linux")]
mod start;
#[cfg(target_os = "linux")]
mod stock;
#[cfg(target_os = "linux")]
pub(crate) mod stranger;
