//! Files that decide over access: read whole, with a bound, and only if nobody else can write them.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};

use crate::limits::ACCESS_FILE_BYTES;

/// Why a file can't be read.
///
/// ```
/// use neuroflow_actors::FileError;
/// let error = FileError::Writable { path: "tokens".into(), mode: 0o666 };
/// assert!(error.to_string().contains("chmod"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The system says no.
    #[error("{} can't be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It's larger than such a file can be.
    #[error("{} has more than {ACCESS_FILE_BYTES} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Others can write it, and so decide in our place.
    #[error("{} can be written by others (mode {mode:o}); take that away with chmod go-w", path.display())]
    Writable {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

/// A file as it was at one moment.
pub(crate) struct Contents {
    pub(crate) bytes: Vec<u8>,
    /// SHA-256 of the bytes.
    pub(crate) digest: [u8; 32],
}

/// Reads a file; blocks.
pub(crate) fn read(path: &Path) -> Result<Contents, FileError> {
    let unreadable = |source| FileError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o7777;
        if mode & 0o022 != 0 {
            return Err(FileError::Writable { path: path.to_owned(), mode });
        }
    }
    let mut bytes = Vec::new();
    file.take(ACCESS_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > ACCESS_FILE_BYTES {
        return Err(FileError::TooLarge { path: path.to_owned() });
    }
    let digest = sha256(&bytes);
    Ok(Contents { bytes, digest })
}

/// SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_others_can_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let path = std::env::temp_dir().join(format!("neuroflow-access-{}", std::process::id()));
        std::fs::write(&path, "x").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(read(&path).unwrap().bytes, b"x");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o602)).unwrap();
        assert!(matches!(read(&path), Err(FileError::Writable { mode: 0o602, .. })));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(read(&path), Err(FileError::Read { .. })));
    }
}
