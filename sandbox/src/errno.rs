//! The kernel's own reason for a refusal, as a value that compares.

use std::{fmt, io};

/// An operating system error number.
///
/// Unlike [`io::Error`] it is `Copy` and compares, so a test or a caller can ask *which layer* said
/// no.
///
/// ```
/// use neuroflow_sandbox::Errno;
///
/// let missing = Errno::from_raw(2);
/// assert_eq!(missing.raw(), 2);
/// assert_eq!(std::io::Error::from(missing).kind(), std::io::ErrorKind::NotFound);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(i32);

impl Errno {
    /// Wraps a raw error number.
    pub const fn from_raw(raw: i32) -> Self {
        Self(raw)
    }

    /// The raw error number, for comparing with the constants of `libc`.
    pub const fn raw(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Errno({}: {self})", self.0)
    }
}

impl std::error::Error for Errno {}

impl From<Errno> for io::Error {
    fn from(errno: Errno) -> Self {
        Self::from_raw_os_error(errno.0)
    }
}
