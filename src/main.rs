//! The `neuroflow` binary: arguments in, exit code out.

mod cli;
mod config;
mod control;
mod limits;
mod owner;
mod plain;
mod task_text;

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// What a request allocates one thread gives back to another, and the system's allocator has those
/// threads wait for each other: a third of the time that a busy gateway takes.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    cli::main()
}
