//! Whose a file is, and who else could write or read it.
//!
//! What decides over this node, or is its secret, is refused if others could have changed or seen it.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The user that this process acts as. A pipe is its maker's, which needs neither a runtime nor `/proc`.
pub(crate) fn own_user() -> io::Result<u32> {
    let (one, _other) = io::pipe()?;
    Ok(File::from(OwnedFd::from(one)).metadata()?.uid())
}

/// What a file is, and so whom it's to be kept from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Care {
    /// From others who can write it, or own it and so may let themselves: it's what we do.
    Obeyed,
    /// From others who can write it: it's what we trust.
    Trusted,
    /// From the writing of all users: it's signed, and a node that replaces it does so by its own mask.
    Signed,
    /// From others who can do anything with it: it's a secret.
    Secret,
}

/// Why a file isn't used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CareError {
    /// It can't be looked at.
    #[error("{} can't be read", path.display())]
    Inspect {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// It's somebody else's, who decides in our place.
    #[error(
        "{} belongs to user {owner}, who is neither root nor you and can change it; take it over with \
         chown, or use a copy of your own",
        path.display()
    )]
    Foreign { path: PathBuf, owner: u32 },
    /// Others can write it, and so decide in our place.
    #[error(
        "{} can be written by others (mode {mode:o}); take that away with chmod go-w", path.display()
    )]
    Writable { path: PathBuf, mode: u32 },
    /// Others can read it, and it's a secret.
    #[error(
        "{} can be read by others (mode {mode:o}); take that away with chmod go-rwx, and make a new key \
         if they have",
        path.display()
    )]
    Readable { path: PathBuf, mode: u32 },
}

/// Whether an open file is kept from others; its path is for the error.
pub(crate) fn check(path: &Path, file: &File, care: Care) -> Result<(), CareError> {
    let unseen = |source| CareError::Inspect { path: path.to_owned(), source };
    let metadata = file.metadata().map_err(unseen)?;
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    // A secret that is mounted for a program without root's rights is root's, and its group may read it.
    let forbidden = if owner == 0 { 0o037 } else { 0o077 };
    match care {
        Care::Obeyed if owner != 0 && owner != own_user().map_err(unseen)? => {
            Err(CareError::Foreign { path: path.to_owned(), owner })
        }
        Care::Secret if mode & forbidden != 0 => {
            Err(CareError::Readable { path: path.to_owned(), mode })
        }
        Care::Obeyed | Care::Trusted if mode & 0o022 != 0 => {
            Err(CareError::Writable { path: path.to_owned(), mode })
        }
        Care::Signed if mode & 0o002 != 0 => {
            Err(CareError::Writable { path: path.to_owned(), mode })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_user_is_the_owner_of_what_is_made() {
        let path = std::env::temp_dir().join(format!("neuroflow-owner-{}", std::process::id()));
        let made = File::create(&path).unwrap().metadata().unwrap().uid();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(own_user().unwrap(), made);
    }
}
