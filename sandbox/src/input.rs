//! Standard input as a file in memory that nobody can change any more: written once, read by any
//! number of cells.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use crate::{
    errno::Errno,
    level::Level,
    linux::{
        Identity,
        sys::{self, file},
    },
};

/// Bytes for the standard input of any number of programs. Clones share the bytes.
///
/// A pipe would copy them once per program, 64 KiB at a time; a program finds a regular file that it
/// can also seek in or map. The file is a sealed `memfd` (`memfd_create(2)`).
///
/// Where cells have the host's own id (without root, or at [`Level::Minimal`]), the file would be theirs, and
/// they could change its mode, times and attributes for all others. There each program gets a copy.
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
    /// Whether cells with an id of their own are another user than the file's.
    is_foreign: bool,
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
        let made = file::sealed(bytes).and_then(|file| Ok((file, Identity::of_caller()?)));
        let (file, identity) = made.map_err(|source| InputError { source })?;
        let is_foreign = matches!(identity, Identity::Range { .. });
        Ok(Self { file: Arc::new(file), length: bytes.len(), is_foreign })
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
        file::reopened(self.file.as_fd())
    }

    /// The same for a cell of this level, which may not disturb others that read the bytes.
    pub(crate) async fn reader_for(&self, level: Level) -> sys::Result<OwnedFd> {
        if self.is_foreign && level > Level::Minimal {
            return self.reader();
        }
        let (file, length) = (Arc::clone(&self.file), self.length);
        // Inputs may be large, and whoever starts cells serves others meanwhile.
        let copied = tokio::task::spawn_blocking(move || {
            let copy = file::sealed_copy(file.as_fd(), length)?;
            file::reopened(copy.as_fd())
        });
        copied.await.map_err(|_stopped| Errno::from_raw(libc::ECANCELED))?
    }
}

impl PartialEq for SealedInput {
    /// The same file, not only the same bytes.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.file, &other.file)
    }
}

impl Eq for SealedInput {}
