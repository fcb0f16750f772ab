//! The list of revoked nodes as a file: what is read from it is checked, and it's replaced as a whole.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::path::PathBuf;

use tokio::sync::Notify;

use super::revocation::{RevocationError, Revocations};
use super::{NodeId, Trust};
use crate::limits::MAX_REVOCATION_BYTES;
use crate::observer::Told;

/// Where the list is kept, and who is told that there is a newer one.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) file: ListFile,
    pub(crate) changed: Notify,
}

impl Kept {
    /// Takes what is in the file, if there is one.
    pub(crate) fn open(path: PathBuf, trust: &Trust, told: &Told) -> Result<Self, ListFileError> {
        let file = ListFile { path };
        if let Some(text) = file.read()? {
            let list = |source| ListFileError::List { path: file.path.clone(), source };
            if let Some(nodes) = trust.take_revocations(&text).map_err(list)? {
                told.began_with(&text, &nodes);
            }
        }
        Ok(Self { file, changed: Notify::new() })
    }
}

/// A file for the list.
#[derive(Clone, Debug)]
pub(crate) struct ListFile {
    path: PathBuf,
}

/// Why a file of revoked nodes can't be used.
///
/// ```
/// use neuroflow_transport::{ListFileError, RevocationError};
/// let unsigned = ListFileError::List { path: "revocations.txt".into(), source: RevocationError::Unsigned };
/// assert!(unsigned.to_string().contains("revocations.txt"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListFileError {
    /// It can't be read.
    #[error("{} can't be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It can't be written.
    #[error("{} can't be written", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It isn't a list that the cluster's authority has signed.
    #[error("{} isn't a list of this cluster; copy it anew, or remove it", path.display())]
    List {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: RevocationError,
    },
}

/// What is to be done about the file.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    Take,
    Write,
}

/// The newer of both counts. A file that isn't a list is left alone: somebody may be writing it.
fn step(file: Option<&str>, known: Option<&str>, trust: &Trust) -> Result<Step, RevocationError> {
    match (file, known) {
        (None, None) => Ok(Step::Nothing),
        (None, Some(_)) => Ok(Step::Write),
        (Some(file), Some(known)) if file == known => Ok(Step::Nothing),
        (Some(file), None) => Revocations::verify(file, trust).map(|_list| Step::Take),
        (Some(file), Some(known)) => {
            let serial = |text| Revocations::verify(text, trust).map(|list| list.serial());
            Ok(match serial(file)?.cmp(&serial(known)?) {
                std::cmp::Ordering::Less => Step::Write,
                std::cmp::Ordering::Equal => Step::Nothing,
                std::cmp::Ordering::Greater => Step::Take,
            })
        }
    }
}

impl ListFile {
    /// Takes what the file has, or writes what is known, whichever is newer. Gives the nodes that are newly
    /// known.
    pub(crate) fn reconcile(&self, trust: &Trust) -> Result<Vec<NodeId>, ListFileError> {
        let list = |source| ListFileError::List { path: self.path.clone(), source };
        let (file, known) = (self.read()?, trust.revocations());
        match step(file.as_deref(), known.as_deref(), trust).map_err(list)? {
            Step::Nothing => Ok(Vec::new()),
            Step::Take => {
                let taken = trust.take_revocations(file.as_deref().unwrap_or_default());
                Ok(taken.map_err(list)?.unwrap_or_default())
            }
            Step::Write => {
                self.write(known.as_deref().unwrap_or_default())?;
                Ok(Vec::new())
            }
        }
    }

    /// The file's text, if there is one. One byte more than a list may have tells that it's too long.
    fn read(&self) -> Result<Option<String>, ListFileError> {
        let unreadable = |source| ListFileError::Read { path: self.path.clone(), source };
        let file = match fs::File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error)),
        };
        let mut text = String::new();
        let most = u64::try_from(MAX_REVOCATION_BYTES).unwrap_or(u64::MAX).saturating_add(1);
        file.take(most).read_to_string(&mut text).map_err(unreadable)?;
        Ok(Some(text))
    }

    /// All of it or nothing, and on disk before it takes the old one's place.
    fn write(&self, text: &str) -> Result<(), ListFileError> {
        let next = self.path.with_extension("new");
        let write = || {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).open(&next)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&next, &self.path)
        };
        write().map_err(|source| ListFileError::Write { path: self.path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Authority;

    #[expect(clippy::disallowed_methods, reason = "certificates have times of the machine's")]
    fn authority() -> Authority {
        Authority::create("test", std::time::SystemTime::now()).unwrap()
    }

    #[test]
    fn the_newer_list_counts_and_what_is_none_is_left_alone() {
        let (ours, theirs) = (authority(), authority());
        let trust = Trust::from_pem(ours.certificate_pem()).unwrap();
        let one = Revocations::default().with(NodeId::from([1; 32]));
        let two = one.clone().with(NodeId::from([2; 32]));
        let [one, two] = [one, two].map(|list| list.sign(&ours).unwrap());
        let step = |file, known| step(file, known, &trust);
        assert_eq!(step(None, None), Ok(Step::Nothing));
        assert_eq!(step(None, Some(&one)), Ok(Step::Write));
        assert_eq!(step(Some(&one), None), Ok(Step::Take));
        assert_eq!(step(Some(&one), Some(&one)), Ok(Step::Nothing));
        assert_eq!(step(Some(&two), Some(&one)), Ok(Step::Take));
        assert_eq!(step(Some(&one), Some(&two)), Ok(Step::Write));
        let half = &two[..two.len() / 2];
        assert!(step(Some(half), Some(&one)).is_err() && step(Some(half), None).is_err());
        let strange = Revocations::default().with(NodeId::from([3; 32])).sign(&theirs).unwrap();
        assert_eq!(step(Some(&strange), Some(&one)), Err(RevocationError::Stranger));
    }
}
