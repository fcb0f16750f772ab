//! The standard input of a running program, written piece by piece.

use std::{
    future::poll_fn,
    io,
    os::fd::{BorrowedFd, OwnedFd},
};

use tokio::io::{Interest, unix::AsyncFd};

use super::poll_with;
use crate::linux::sys::{self, file, watch::watch};

/// The standard input of a program that runs; see [`Running::take_stdin`](crate::Running::take_stdin).
///
/// ```no_run
/// async fn greet(mut stdin: neuroflow_sandbox::CellInput) -> std::io::Result<()> {
///     stdin.write(b"hello\n").await
/// }
/// ```
#[derive(Debug)]
pub struct CellInput {
    pipe: AsyncFd<OwnedFd>,
}

impl CellInput {
    pub(super) fn new(pipe: OwnedFd) -> sys::Result<Self> {
        Ok(Self { pipe: watch(pipe, Interest::WRITABLE)? })
    }

    /// Writes all of it, as fast as the program reads. Dropping the future may leave a part written.
    ///
    /// # Errors
    ///
    /// `BrokenPipe` when the program has closed its input, or ended.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let mut write = |pipe: BorrowedFd<'_>| file::write(pipe, rest);
            let written = poll_fn(|context| {
                poll_with(&mut self.pipe, Interest::WRITABLE, context, &mut write)
            })
            .await?;
            rest = rest.get(written..).unwrap_or_default();
        }
        Ok(())
    }
}
