//! What the benchmarks share: arguments, samples and their quantiles, figures, the table, the file.

mod args;
mod compare;
mod figure;
mod json;
mod machine;
mod quantile;
mod table;

pub(crate) use args::{Arguments, Order, USAGE, child_arguments};
pub(crate) use compare::{Baseline, compare};
pub(crate) use figure::{Aim, Figure};
pub(crate) use json::{read, write};
pub(crate) use machine::{Run, resident_bytes};
pub(crate) use quantile::{Samples, Unit};
pub(crate) use table::print;

use std::future::Future;

/// The workers of every runtime that is measured.
pub(crate) const WORKERS: usize = 2;

/// Runs `work` on a worker of a fresh runtime with [`WORKERS`] workers. The thread that waits for
/// it isn't one of them, so that no wake-up of it is measured.
pub(crate) fn on_workers<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .expect("a runtime starts");
    let work = runtime.spawn(work);
    runtime.block_on(work).expect("the benchmark ends without a panic")
}
