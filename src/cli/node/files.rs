//! The files of an identity: their names, and how they are read and written.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use neuroflow::transport::limits::{MAX_PEM_BYTES, MAX_REVOCATION_BYTES};

/// The certificate of the cluster's authority.
pub(in crate::cli) const AUTHORITY: &str = "authority.pem";
/// Its key, which nodes don't have.
pub(in crate::cli) const AUTHORITY_KEY: &str = "authority-key.pem";
/// The node's certificate.
pub(in crate::cli) const CERTIFICATE: &str = "node.pem";
/// The node's key.
pub(in crate::cli) const KEY: &str = "node-key.pem";

/// The nodes that the authority has shut out, signed by it.
pub(in crate::cli) const REVOCATIONS: &str = "revocations.txt";

/// Why a file isn't read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(in crate::cli) enum FileError {
    /// It can't be read.
    #[error("{} can't be read", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// It can't be written, or is there already.
    #[error("{} can't be written; what is there is never overwritten", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// It can't be put in place of the one that is there.
    #[error("{} can't be replaced", path.display())]
    Replace {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

pub(in crate::cli) fn read(path: &Path) -> Result<String, FileError> {
    let unreadable = |source| FileError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let file = fs::File::open(path).map_err(unreadable)?;
    let most =
        if path.ends_with(REVOCATIONS) { MAX_REVOCATION_BYTES as u64 } else { MAX_PEM_BYTES };
    file.take(most).read_to_string(&mut text).map_err(unreadable)?;
    Ok(text)
}

/// Writes a file in place of the one that is there: all of it, or nothing.
pub(in crate::cli) fn replace(path: &Path, text: &str) -> Result<(), FileError> {
    let next = path.with_extension("next");
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&next)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&next, path)
    };
    write().map_err(|source| FileError::Replace { path: path.to_owned(), source })
}

/// Writes a file that isn't there yet, a secret one for its owner's eyes only.
pub(in crate::cli) fn write_new(
    folder: &Path,
    name: &str,
    text: &str,
    secret: bool,
) -> Result<(), FileError> {
    let path = folder.join(name);
    let write = || {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mode = if secret { 0o600 } else { 0o644 };
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|source| FileError::Write { path: path.clone(), source })
}
