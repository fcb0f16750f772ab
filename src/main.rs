//! The `neuroflow` binary: arguments in, exit code out.

mod cli;
mod config;
mod control;
mod limits;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
