//! Standard input as a file in memory that nobody can change any more: written once, read by any
//! number of cells.

use std::{
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::Arc,
};

use crate::{
    errno::Errno,
    linux::sys::{self, file},
};

/// Bytes for the standard input of any number of programs. Clones share the bytes.
///
/// A pipe would copy them once per program, 64 KiB at a time; a program finds a regular file that it
/// can also seek in or map. The file is a sealed `memfd` (`memfd_create(2)`).
///
/// ```
/// use neuroflow_sandbox::SealedInput;
///
/// let input = SealedInput::new(b"hello")?;
/// assert_eq!(input.len(), 5);
/// # Ok::<(), neuroflow_sandbox::InputError>(())
/// ```
#[derive(Debug, Clone)]
pub struct SealedInput {
    file: Arc<OwnedFd>,
    length: usize,
}

/// Why bytes didn't become an input.
///
/// ```
/// let error = neuroflow_sandbox::InputError { source: neuroflow_sandbox::Errno::from_raw(12) };
/// assert_eq!(error.to_string(), "the host has no room for the input");
/// ```
#[derive(Debug, thiserror::Error)]
#[error("the host has no room for the input")]
pub struct InputError {
    /// The kernel's answer.
    #[source]
    pub source: Errno,
}

impl SealedInput {
    /// Copies the bytes into the file, once.
    ///
    /// # Errors
    ///
    /// When the host is out of memory or descriptors.
    pub fn new(bytes: &[u8]) -> Result<Self, InputError> {
        let file = file::sealed(bytes).map_err(|source| InputError { source })?;
        Ok(Self { file: Arc::new(file), length: bytes.len() })
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// A descriptor with a position of its own, at the start.
    pub(crate) fn reader(&self) -> sys::Result<OwnedFd> {
        let path = format!("/proc/self/fd/{}\0", self.file.as_fd().as_raw_fd());
        let path = std::ffi::CStr::from_bytes_with_nul(path.as_bytes())
            .map_err(|_nul| Errno::from_raw(libc::EINVAL))?;
        file::open(path, libc::O_RDONLY | libc::O_CLOEXEC)
    }
}

impl PartialEq for SealedInput {
    /// The same file, not only the same bytes.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.file, &other.file)
    }
}

impl Eq for SealedInput {}
