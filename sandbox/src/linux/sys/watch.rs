//! Descriptors under tokio's eyes.

#![expect(unsafe_code, reason = "tokio wants a promise about the descriptor's life")]

use std::os::fd::OwnedFd;

use tokio::io::{Interest, unix::AsyncFd};

use super::Result;
use crate::errno::Errno;

/// Registers a descriptor with the current runtime.
pub(crate) fn watch(fd: OwnedFd, interest: Interest) -> Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open and keeps its number until it is dropped, which the `AsyncFd`
    // does.
    let watched = unsafe { AsyncFd::register_with_interest(fd, interest) };
    watched.map_err(|refused| {
        let (_fd, error) = refused.into_parts();
        Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
    })
}
