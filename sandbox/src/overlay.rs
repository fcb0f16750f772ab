//! What a cell has changed in its copy-on-write view of a project: to be looked at, thrown away, or
//! applied.
//!
//! The changes are a tree that a hostile program has made. It is read when the cell has ended, by
//! descriptors, through no link, and within bounds; see `limits`. Nothing of it is ever opened that
//! isn't a file or a directory.

mod apply;
mod conflict;
mod read;
#[cfg(test)]
mod tests;

use std::{
    ffi::OsStr,
    fmt,
    fs::File,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

pub use apply::ApplyError;
use read::Bounds;
pub use read::ChangesError;

use crate::{
    errno::Errno,
    linux::sys::{
        Result as SysResult,
        tree::{self, Kind, Place, Stamp},
    },
};

/// The changes of one cell, in the order of their paths: a directory before what is in it.
///
/// They live in memory of the host until this value is dropped; dropping it throws them away.
///
/// ```no_run
/// # fn doc(changes: neuroflow_sandbox::Changes) -> Result<(), neuroflow_sandbox::ApplyError> {
/// for change in &changes {
///     println!("{:?} {}", change.kind(), change.path().display());
/// }
/// if changes.refused().is_empty() {
///     changes.apply("/home/me/project".as_ref())?;
/// }
/// # Ok(())
/// # }
/// ```
pub struct Changes {
    upper: OwnedFd,
    list: Vec<Change>,
    refused: Vec<Refused>,
    project: PathBuf,
    /// The very directory that they were read beside.
    beside: Place,
    /// The one that the cell saw.
    seen: Place,
    /// When the cell began, in nanoseconds of the calendar.
    since: Option<i128>,
}

impl Changes {
    /// Reads what is in `upper`, the directory that an overlay's changes went to, beside `project`,
    /// the directory below it. What was changed in the project before isn't known then; [`Overlay::read`]
    /// knows what was since its cell began.
    ///
    /// # Errors
    ///
    /// [`ChangesError`] if the tree is beyond a bound or can't be read.
    pub fn read(upper: OwnedFd, project: &Path) -> Result<Self, ChangesError> {
        Self::read_without(upper, project, &[])
    }

    /// Leaves out what was made to mount on at these `places` of the project.
    fn read_without(
        upper: OwnedFd,
        project: &Path,
        places: &[PathBuf],
    ) -> Result<Self, ChangesError> {
        let (mut reading, beside) = read::read(&upper, project, Bounds::OURS)?;
        reading.leave_out(places);
        let (read::Reading { list, refused }, project) = (reading, project.to_owned());
        Ok(Self { upper, list, refused, project, beside, seen: beside, since: None })
    }

    /// Whether nothing has changed, and nothing was refused.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty() && self.refused.is_empty()
    }

    /// The changes in the order of their paths.
    pub fn iter(&self) -> std::slice::Iter<'_, Change> {
        self.list.iter()
    }

    /// What the cell has made that is never applied.
    pub fn refused(&self) -> &[Refused] {
        &self.refused
    }

    /// The contents of the file that a change has made, to be read.
    ///
    /// # Errors
    ///
    /// `EISDIR` where the change made no file; otherwise the kernel's answer.
    pub fn contents(&self, change: &Change) -> Result<File, Errno> {
        let Some(Node::File { .. }) = change.node else {
            return Err(Errno::from_raw(libc::EISDIR));
        };
        let file = open_readable(self.upper.as_fd(), change.path.as_os_str(), 0)?;
        // The cell has ended, so it's still what it was; looking once more costs nothing.
        if tree::look(file.as_fd())?.kind == Kind::File {
            Ok(File::from(file))
        } else {
            Err(Errno::from_raw(libc::EINVAL))
        }
    }

    /// Makes the same changes in `project`, which usually is the directory that the cell saw.
    ///
    /// A file is written beside its place and then moved there, so a reader sees the old one or the
    /// whole new one. No link is followed, neither one that the project has had nor one that these
    /// changes make; owners, set-user-id bits and extended attributes are never taken over. A file that is
    /// replaced keeps its owner, and what is new gets that of its directory, where the caller may give
    /// things away. What was done before an error stays done.
    ///
    /// In the directory that the cell saw, nothing is done at all if something that would be replaced or
    /// deleted was changed by somebody else since the cell began, or a directory above it was moved there; nor
    /// where that directory was, if another has taken its place.
    ///
    /// # Errors
    ///
    /// [`ApplyError`] with the path of the change that could not be made; [`ApplyError::Conflict`] with those
    /// of everything that was changed meanwhile.
    pub fn apply(&self, project: &Path) -> Result<(), ApplyError> {
        apply::apply(self, project)
    }
}

/// Where the changes of one cell lie. Dropped unread, they are thrown away.
///
/// ```no_run
/// # async fn doc(cell: neuroflow_sandbox::Running) -> Result<(), neuroflow_sandbox::ChangesError> {
/// if let Some(overlay) = cell.collect().await.overlay {
///     println!("{} changes", overlay.read()?.iter().count());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Overlay {
    upper: OwnedFd,
    project: PathBuf,
    below: Place,
    places: Vec<PathBuf>,
    since: Option<i128>,
}

impl Overlay {
    /// `below` is what the project was when the cell was made; at `places` in it, something else was
    /// mounted.
    pub(crate) fn new(upper: OwnedFd, project: &Path, below: Place, places: Vec<PathBuf>) -> Self {
        Self { upper, project: project.to_owned(), below, places, since: None }
    }

    /// Its cell was asked for at this moment, in nanoseconds of the calendar.
    pub(crate) fn began(&mut self, at: i128) {
        self.since = Some(at);
    }

    /// Reads the changes. To be called when the cell is gone: before, it may still make some. Directories
    /// that were only made for other binds of the profile to lie in are none.
    ///
    /// # Errors
    ///
    /// [`ChangesError`] if the tree is beyond a bound or can't be read.
    pub fn read(self) -> Result<Changes, ChangesError> {
        let Self { upper, project, below, places, since } = self;
        Ok(Changes { seen: below, since, ..Changes::read_without(upper, &project, &places)? })
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes")
            .field("upper", &self.upper.as_raw_fd())
            .field("list", &self.list)
            .field("refused", &self.refused)
            .finish_non_exhaustive()
    }
}

impl<'a> IntoIterator for &'a Changes {
    type Item = &'a Change;
    type IntoIter = std::slice::Iter<'a, Change>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.iter()
    }
}

/// One change.
///
/// ```no_run
/// # fn doc(change: &neuroflow_sandbox::Change) {
/// use neuroflow_sandbox::{ChangeKind, Node};
///
/// if let (ChangeKind::Added, Some(Node::File { bytes, .. })) = (change.kind(), change.node()) {
///     println!("{} is new and has {bytes} bytes", change.path().display());
/// }
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    path: PathBuf,
    kind: ChangeKind,
    node: Option<Node>,
    /// What was at the path when the change was read.
    before: Option<Stamp>,
}

impl Change {
    /// The path relative to the project. It has no `..` and may be anything but text.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What happened at the path.
    pub fn kind(&self) -> ChangeKind {
        self.kind
    }

    /// What is there now; `None` if it was deleted.
    pub fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }
}

/// What happened at a path.
///
/// ```
/// use neuroflow_sandbox::ChangeKind;
///
/// assert_ne!(ChangeKind::Added, ChangeKind::Deleted);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChangeKind {
    /// There was nothing before.
    Added,
    /// The same kind of thing was there before. A file counts as modified once it was opened for
    /// writing, even if it has the same contents.
    Modified,
    /// Another kind of thing was there before, with all that was in it.
    TypeChanged,
    /// It's gone, with all that was in it.
    Deleted,
}

/// What a change has made. Modes are the nine permission bits.
///
/// ```
/// use neuroflow_sandbox::Node;
///
/// let script = Node::File { mode: 0o755, bytes: 20 };
/// assert_ne!(script, Node::Directory { mode: 0o755 });
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Node {
    /// A file; [`Changes::contents`] reads it.
    File {
        /// Permission bits.
        mode: u32,
        /// Its length.
        bytes: u64,
    },
    /// A directory; what is in it has changes of its own.
    Directory {
        /// Permission bits.
        mode: u32,
    },
    /// A symbolic link that stays within the project.
    Symlink {
        /// Where it leads to, as it is written.
        target: PathBuf,
    },
}

/// Something that the cell has made and that is never applied. What was at the path before stays.
///
/// ```
/// use neuroflow_sandbox::RefusedReason;
///
/// # fn doc(changes: &neuroflow_sandbox::Changes) {
/// for refused in changes.refused() {
///     assert_ne!(refused.reason, RefusedReason::Fifo);
/// }
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refused {
    /// The path relative to the project.
    pub path: PathBuf,
    /// Why.
    pub reason: RefusedReason,
}

/// Why something isn't applied.
///
/// ```
/// use neuroflow_sandbox::RefusedReason;
///
/// assert_ne!(RefusedReason::Device, RefusedReason::Socket);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusedReason {
    /// A device.
    Device,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A symbolic link that leads out of the project, or that could: its target is absolute, or has
    /// more `..` than there are directories above it, or a `..` behind a name. Whoever follows it
    /// later would leave the project without knowing.
    LeavingLink,
    /// Contents that lie elsewhere, which no overlay of ours writes.
    Indirect,
}

/// Opens a file or directory for reading, also if its maker has left nobody the right to.
fn open_readable(
    directory: std::os::fd::BorrowedFd<'_>,
    name: &OsStr,
    flags: i32,
) -> SysResult<OwnedFd> {
    let flags = flags | libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
    match tree::open_beneath(directory, name, flags, 0) {
        Err(errno) if errno.raw() == libc::EACCES => {
            let place = tree::open_beneath(directory, name, libc::O_PATH, 0)?;
            let found = tree::look(place.as_fd())?;
            if !matches!(found.kind, Kind::File | Kind::Directory) {
                return Err(errno);
            }
            tree::set_mode_of_place(place.as_fd(), found.mode | 0o700)?;
            tree::open_beneath(directory, name, flags, 0)
        }
        opened => opened,
    }
}
