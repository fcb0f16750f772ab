//! System calls with Rust types. All `unsafe` of the crate is below this module, in
//! `zygote/entry.rs`, and where the zygote promises that it has one thread: `zygote/start.rs` and
//! `zygote/owner.rs`.
//!
//! The functions allocate nothing, so they may be used between clone and exec; only `tree`, which is
//! for the host, does.

pub(crate) mod credentials;
pub(crate) mod directory;
pub(crate) mod event;
pub(crate) mod file;
pub(crate) mod landlock;
pub(crate) mod mount;
pub(crate) mod probe;
pub(crate) mod process;
pub(crate) mod seccomp;
pub(crate) mod socket;
pub(crate) mod tree;
#[cfg(test)]
pub(crate) mod trial;
pub(crate) mod watch;

use crate::errno::Errno;

pub(crate) type Result<T> = std::result::Result<T, Errno>;

/// Turns the C convention, -1 and `errno`, into a result.
fn check<T: From<i8> + PartialEq>(returned: T) -> Result<T> {
    if returned == T::from(-1) { Err(last()) } else { Ok(returned) }
}

fn last() -> Errno {
    // `last_os_error` only reads the thread's `errno`; it doesn't allocate.
    Errno::from_raw(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}
