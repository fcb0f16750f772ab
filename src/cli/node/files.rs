//! The files of an identity: their names, and how they are read and written.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use neuroflow::transport::limits::{MAX_PEM_BYTES, MAX_REVOCATION_BYTES};

use crate::owner::{self, CareError};

pub(in crate::cli) use crate::owner::Care;

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
    /// Others could write it, or read it.
    #[error(transparent)]
    Care(#[from] CareError),
    /// It can't be put in place of the one that is there.
    #[error("{} can't be replaced", path.display())]
    Replace {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Whether a file is kept from others.
pub(in crate::cli) fn check(path: &Path, care: Care) -> Result<(), FileError> {
    let unreadable = |source| FileError::Read { path: path.to_owned(), source };
    Ok(owner::check(path, &fs::File::open(path).map_err(unreadable)?, care)?)
}

pub(in crate::cli) fn read(path: &Path) -> Result<String, FileError> {
    let unreadable = |source| FileError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let file = fs::File::open(path).map_err(unreadable)?;
    let is_secret = path.ends_with(KEY) || path.ends_with(AUTHORITY_KEY);
    let care = if is_secret {
        Care::Secret
    } else if path.ends_with(REVOCATIONS) {
        Care::Signed
    } else {
        Care::Trusted
    };
    owner::check(path, &file, care)?;
    let most =
        if path.ends_with(REVOCATIONS) { MAX_REVOCATION_BYTES as u64 } else { MAX_PEM_BYTES };
    file.take(most).read_to_string(&mut text).map_err(unreadable)?;
    Ok(text)
}

/// Writes a file in place of the one that is there: all of it, or nothing.
pub(in crate::cli) fn replace(path: &Path, text: &str) -> Result<(), FileError> {
    let next = path.with_extension("next");
    let write = || {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o644).open(&next)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&next, path)
    };
    write().map_err(|source| FileError::Replace { path: path.to_owned(), source })
}

/// Writes a file that isn't there yet, a secret one for its owner's eyes only: all of it, or nothing.
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
        // It has its name once it's whole: a full disk leaves none that can't be made again.
        let next = folder.join(format!("{name}.new"));
        let made = || {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(mode);
            let mut file = options.open(&next)?;
            file.set_permissions(fs::Permissions::from_mode(mode))?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            // Which fails if there is one by now.
            fs::hard_link(&next, &path)
        };
        let made = made();
        let removed = fs::remove_file(&next);
        made.and(removed)
    };
    write().map_err(|source| FileError::Write { path: path.clone(), source })
}
