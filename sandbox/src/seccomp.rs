//! The system call filter: lists of allowed calls as data, compiled once to a program that the
//! kernel runs at every call.
//!
//! A profile is an allow-list in TOML. What it doesn't name is refused, and the refusal is reported
//! with the call's name. Arguments are compared where they decide (flags of `clone`, families of
//! sockets, requests of `ioctl`). Entries by another architecture's numbers kill the process.

pub(crate) mod cache;
pub(crate) mod compile;
mod error;
#[cfg(test)]
mod evaluate;
pub(crate) mod learn;
pub(crate) mod names;
mod profile;
pub(crate) mod refusal;
mod shorten;
mod symbols;
#[cfg(test)]
mod tests;

pub(crate) use cache::Cache;
pub use cache::CacheError;
pub use compile::FilterError;
pub(crate) use compile::{Deny, Filter, FilterOptions};
pub use error::{ConditionProblem, Counted, Place, SeccompError, Section};
pub(crate) use learn::Observed;
pub use profile::SeccompProfile;
pub(crate) use refusal::refusal;
