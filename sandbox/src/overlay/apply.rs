//! Makes changes in a real directory, by descriptors and without following a link.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::Read,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use super::{Change, ChangeKind, Changes, Node, conflict, read::open_project};
use crate::{
    errno::Errno,
    limits,
    linux::sys::tree::{self, Kind, Owner},
};

/// Why changes could not be applied. Those before the named path are done.
///
/// ```
/// use neuroflow_sandbox::ApplyError;
///
/// let error = ApplyError::TooManyDeletions { path: "vendor".into(), limit: 5 };
/// assert_eq!(error.to_string(), "vendor: more than 5 entries would be deleted");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The project isn't a directory that can be opened.
    #[error("{} can't be opened", .path.display())]
    Project {
        /// The project's path.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: Errno,
    },
    /// Somebody else has changed since the cell began what would be replaced or deleted. Nothing was done.
    #[error("changed by somebody else meanwhile, so that nothing was applied: {}", some(.paths))]
    Conflict {
        /// All such paths, relative to the project: `.` if another directory stands in its place, and those of
        /// directories that were moved to where they are.
        paths: Vec<PathBuf>,
    },
    /// The directory of a change isn't there, or a link stands in its place (`ENOTDIR`) or above
    /// it (`ELOOP`), or another file system is mounted there (`EXDEV`).
    #[error("{}: no way to its directory", .path.display())]
    Parent {
        /// The change's path, relative to the project.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: Errno,
    },
    /// The new contents can't be read.
    #[error("{}: can't read the new contents", .path.display())]
    Contents {
        /// The change's path, relative to the project.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// The change can't be written.
    #[error("{}: can't write", .path.display())]
    Write {
        /// The change's path, relative to the project.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// What is to go can't be deleted.
    #[error("{}: can't delete", .path.display())]
    Delete {
        /// The change's path, relative to the project.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: Errno,
    },
    /// A deletion goes too deep to follow.
    #[error("{}: more than {limit} directories deep", .path.display())]
    TooDeep {
        /// The change's path, relative to the project.
        path: PathBuf,
        /// The bound, [`limits::DELETION_DEPTH`].
        limit: usize,
    },
    /// All deletions together are too many.
    #[error("{}: more than {limit} entries would be deleted", .path.display())]
    TooManyDeletions {
        /// The path of the change that was one too many, relative to the project.
        path: PathBuf,
        /// The bound, [`limits::DELETIONS`].
        limit: usize,
    },
}

/// The first of them. Names in a project may be anything.
fn some(paths: &[PathBuf]) -> String {
    let named: Vec<_> = paths
        .iter()
        .take(limits::CONFLICTS_NAMED)
        .map(|path| path.to_string_lossy().escape_debug().to_string())
        .collect();
    let named = named.join(", ");
    match paths.len().checked_sub(limits::CONFLICTS_NAMED) {
        None | Some(0) => named,
        Some(more) => format!("{named} and {more} more"),
    }
}

pub(super) fn apply(changes: &Changes, project: &Path) -> Result<(), ApplyError> {
    let failed = |source| ApplyError::Project { path: project.to_owned(), source };
    let root = open_project(project).map_err(failed)?;
    let place = tree::look(root.as_fd()).map_err(failed)?.stamp.place;
    let paths = conflict::find(changes, root.as_fd(), project, place)?;
    if !paths.is_empty() {
        return Err(ApplyError::Conflict { paths });
    }
    let mut deletions = Deletions { left: limits::DELETIONS };
    for change in changes {
        let (parent, name) = open_parent(root.as_fd(), &change.path)?;
        make(changes, change, parent.as_fd(), name, &mut deletions)?;
    }
    // Last and from below, because a directory may be closed to its owner.
    for change in changes.iter().rev() {
        if let Some(Node::Directory { mode }) = change.node {
            set_mode(root.as_fd(), change.path.as_os_str(), mode)
                .map_err(|source| write_error(change, source))?;
        }
    }
    Ok(())
}

fn make(
    changes: &Changes,
    change: &Change,
    parent: BorrowedFd<'_>,
    name: &OsStr,
    deletions: &mut Deletions,
) -> Result<(), ApplyError> {
    let Some(node) = &change.node else { return deletions.delete(parent, name, &change.path, 0) };
    if change.kind == ChangeKind::TypeChanged {
        deletions.delete(parent, name, &change.path, 0)?;
    }
    let heir = Heir::of(parent, name).map_err(|source| write_error(change, source))?;
    match node {
        Node::Directory { mode } => {
            let made = match tree::make_directory(parent, name) {
                Err(errno) if errno.raw() == libc::EEXIST => Ok(()),
                made => made.and_then(|()| heir.give_at(parent, name, Kind::Directory)),
            };
            // Open to us until all that is in it has been made.
            made.and_then(|()| set_mode(parent, name, *mode | 0o700))
                .map_err(|source| write_error(change, source))?;
        }
        Node::Symlink { target } => {
            let ((), beside) =
                Beside::new(parent, |name| tree::make_link(target.as_os_str(), parent, name))
                    .map_err(|source| write_error(change, source))?;
            beside.give(heir).map_err(|source| write_error(change, source))?;
            beside.take(name).map_err(|source| write_error(change, source))?;
        }
        Node::File { mode, bytes } => {
            let contents = changes.contents(change).map_err(|source| ApplyError::Contents {
                path: change.path.clone(),
                source: source.into(),
            })?;
            let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
            let (file, beside) =
                Beside::new(parent, |name| tree::open_beneath(parent, name, flags, 0o600))
                    .map_err(|source| write_error(change, source))?;
            // Before its mode, which a new owner makes the kernel look at.
            heir.give(file.as_fd()).map_err(|source| write_error(change, source))?;
            copy(contents, file, *mode, *bytes, &change.path)?;
            beside.take(name).map_err(|source| write_error(change, source))?;
        }
    }
    Ok(())
}

/// Whom what is made at a place shall belong to.
#[derive(Debug, Clone, Copy)]
enum Heir {
    /// As what it replaces.
    Same(Owner),
    /// As its directory.
    Directory(Owner),
}

impl Heir {
    fn of(parent: BorrowedFd<'_>, name: &OsStr) -> Result<Self, Errno> {
        match tree::find(parent, name)? {
            Some(before) if before.kind != Kind::Directory => Ok(Self::Same(before.owner)),
            _ => Ok(Self::Directory(tree::look(parent)?.owner)),
        }
    }

    /// Gives what was just made away, as far as its maker may.
    fn give(self, made: BorrowedFd<'_>) -> Result<(), Errno> {
        let now = tree::look(made)?.owner;
        let owner = match self {
            // It has the group that everything has which its maker makes.
            Self::Directory(owner) if owner.user == now.user => return Ok(()),
            Self::Same(owner) | Self::Directory(owner) => owner,
        };
        if owner == now {
            return Ok(());
        }
        match tree::set_owner(made, owner) {
            // To give away takes a right that only root has, and an id that there is.
            Err(errno) if [libc::EPERM, libc::EINVAL].contains(&errno.raw()) => Ok(()),
            given => given,
        }
    }

    /// The same by a name, which may have become another's meanwhile: only what does no harm is given.
    fn give_at(self, parent: BorrowedFd<'_>, name: &OsStr, kind: Kind) -> Result<(), Errno> {
        let flags = if kind == Kind::Directory { libc::O_DIRECTORY } else { libc::O_PATH };
        let made = tree::open_beneath(parent, name, flags, 0)?;
        let is_plain = match kind {
            Kind::Directory => {
                tree::names(made.as_fd(), 0)?.is_some_and(|names: Vec<OsString>| names.is_empty())
            }
            kind => tree::look(made.as_fd())?.kind == kind,
        };
        if is_plain { self.give(made.as_fd()) } else { Ok(()) }
    }
}

/// Copies no more than the length that was counted when the changes were read.
fn copy(from: File, to: OwnedFd, mode: u32, bytes: u64, path: &Path) -> Result<(), ApplyError> {
    let mut from = from.take(bytes);
    let mut to = File::from(to);
    std::io::copy(&mut from, &mut to)
        .and_then(|_copied| Ok(tree::set_mode(to.as_fd(), mode)?))
        .map_err(|source| ApplyError::Write { path: path.to_owned(), source })
}

/// Something under a name of its own in the directory that it's meant for; gone with the value
/// unless it took its place.
struct Beside<'a> {
    directory: BorrowedFd<'a>,
    name: Option<OsString>,
}

impl<'a> Beside<'a> {
    fn new<T>(
        directory: BorrowedFd<'a>,
        make: impl Fn(&OsStr) -> Result<T, Errno>,
    ) -> Result<(T, Self), Errno> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mut refused = Errno::from_raw(libc::EEXIST);
        for _ in 0..limits::NAMES_TRIED {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = OsString::from(format!(".neuroflow-{}-{number}", std::process::id()));
            match make(&name) {
                Ok(made) => return Ok((made, Self { directory, name: Some(name) })),
                Err(errno) if errno.raw() == libc::EEXIST => refused = errno,
                Err(errno) => return Err(errno),
            }
        }
        Err(refused)
    }

    /// Gives a link away.
    fn give(&self, heir: Heir) -> Result<(), Errno> {
        let Some(name) = &self.name else { return Ok(()) };
        heir.give_at(self.directory, name, Kind::Symlink)
    }

    /// Takes the place of what has that name, if anything has.
    fn take(mut self, name: &OsStr) -> Result<(), Errno> {
        if let Some(own) = &self.name {
            tree::rename(self.directory, own, name)?;
        }
        self.name = None;
        Ok(())
    }
}

impl Drop for Beside<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // There is nothing better to do than to leave it.
            tree::remove(self.directory, name, false).ok();
        }
    }
}

/// How much may still be deleted.
struct Deletions {
    left: usize,
}

impl Deletions {
    /// Deletes `name` and all that is in it; what is gone already is as good.
    fn delete(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
        depth: usize,
    ) -> Result<(), ApplyError> {
        let failed = |source| ApplyError::Delete { path: path.to_owned(), source };
        let Some(found) = tree::find(parent, name).map_err(failed)? else { return Ok(()) };
        let is_directory = found.kind == Kind::Directory;
        if is_directory {
            if depth == limits::DELETION_DEPTH {
                return Err(ApplyError::TooDeep { path: path.to_owned(), limit: depth });
            }
            if found.mode & 0o700 != 0o700 {
                set_mode(parent, name, found.mode | 0o700).map_err(failed)?;
            }
            let flags = libc::O_RDONLY | libc::O_DIRECTORY;
            let directory = tree::open_beneath(parent, name, flags, 0).map_err(failed)?;
            let names = tree::names(directory.as_fd(), self.left).map_err(failed)?;
            for name in names.ok_or_else(|| too_many(path))? {
                self.delete(directory.as_fd(), &name, path, depth.saturating_add(1))?;
            }
        }
        self.left = self.left.checked_sub(1).ok_or_else(|| too_many(path))?;
        tree::remove(parent, name, is_directory).map_err(failed)
    }
}

fn set_mode(directory: BorrowedFd<'_>, name: &OsStr, mode: u32) -> Result<(), Errno> {
    let place = tree::open_beneath(directory, name, libc::O_PATH | libc::O_DIRECTORY, 0)?;
    tree::set_mode_of_place(place.as_fd(), mode)
}

pub(super) fn too_many(path: &Path) -> ApplyError {
    ApplyError::TooManyDeletions { path: path.to_owned(), limit: limits::DELETIONS }
}

pub(super) fn open_parent<'a>(
    root: BorrowedFd<'_>,
    path: &'a Path,
) -> Result<(OwnedFd, &'a OsStr), ApplyError> {
    let failed = |source| ApplyError::Parent { path: path.to_owned(), source };
    let name = path.file_name().ok_or(Errno::from_raw(libc::EINVAL)).map_err(failed)?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.as_os_str(),
        _ => OsStr::new("."),
    };
    let flags = libc::O_RDONLY | libc::O_DIRECTORY;
    Ok((tree::open_beneath(root, parent, flags, 0).map_err(failed)?, name))
}

fn write_error(change: &Change, source: Errno) -> ApplyError {
    ApplyError::Write { path: change.path.clone(), source: source.into() }
}
