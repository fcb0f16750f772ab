//! The kernel from outside: one module per topic, on a clock that only tests move.
#![cfg(test)]

mod calls;
mod capability;
mod clock;
mod headers;
mod lifecycle;
mod monitor;
mod observer;
mod overload;
mod probe;
mod queue;
mod registry;
mod remote;
mod streams;
mod stress;
mod supervision;
