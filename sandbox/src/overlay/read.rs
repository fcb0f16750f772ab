//! From the two trees of an overlay to a list of changes.

use std::{
    collections::HashSet,
    ffi::{OsStr, OsString},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use super::{Change, ChangeKind, Node, Refused, RefusedReason, open_readable};
use crate::{
    errno::Errno,
    limits,
    linux::sys::{
        Result as SysResult, file,
        tree::{self, Found, Kind, Place},
    },
};

/// Why the changes of a cell can't be listed. They are thrown away.
///
/// ```
/// use neuroflow_sandbox::ChangesError;
///
/// let error = ChangesError::TooManyEntries { limit: 10 };
/// assert_eq!(error.to_string(), "more than 10 entries have changed");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangesError {
    /// The project isn't a directory that can be opened.
    #[error("{} can't be opened", .path.display())]
    Project {
        /// The project's path.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: Errno,
    },
    /// Directories are nested too deeply.
    #[error("{} is below more than {limit} directories", .path.display())]
    TooDeep {
        /// Where it was noticed, relative to the project.
        path: PathBuf,
        /// The bound, [`limits::CHANGES_DEPTH`].
        limit: usize,
    },
    /// A path is longer than the kernel takes.
    #[error("a path has more than {limit} bytes")]
    LongPath {
        /// The bound, [`limits::MAX_PATH_BYTES`].
        limit: usize,
    },
    /// Too much has changed.
    #[error("more than {limit} entries have changed")]
    TooManyEntries {
        /// The bound, [`limits::CHANGES_ENTRIES`].
        limit: usize,
    },
    /// The paths and the targets of links are too long together.
    #[error("paths and links have more than {limit} bytes together")]
    LongPaths {
        /// The bound, [`limits::CHANGES_PATH_BYTES`].
        limit: usize,
    },
    /// The files are too large together. Holes count, because a copy would fill them.
    #[error("changed files have more than {limit} bytes together")]
    TooLarge {
        /// The bound, [`limits::CHANGES_BYTES`].
        limit: u64,
    },
    /// Something can't be read.
    #[error("{} can't be read", .path.display())]
    Unreadable {
        /// Its path relative to the project.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: Errno,
    },
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) list: Vec<Change>,
    pub(super) refused: Vec<Refused>,
}

impl Reading {
    /// Leaves out what the launcher has made to mount on at these places, with the directories around
    /// them that nothing else is in. The cell itself saw none of it, or nothing in it.
    pub(super) fn leave_out(&mut self, places: &[PathBuf]) {
        let mut made: HashSet<&Path> = places.iter().flat_map(|place| place.ancestors()).collect();
        for refused in &self.refused {
            for around in refused.path.ancestors() {
                made.remove(around);
            }
        }
        // What is in a directory comes right behind it.
        let mut behind: Option<Change> = None;
        let mut kept = Vec::with_capacity(self.list.len());
        for change in std::mem::take(&mut self.list).into_iter().rev() {
            let is_made = match &change.node {
                Some(Node::Directory { .. }) => made.contains(change.path()),
                Some(Node::File { bytes: 0, .. }) => places.contains(&change.path),
                _ => false,
            };
            let is_empty = behind.as_ref().is_none_or(|next| !next.path.starts_with(&change.path));
            if change.kind == ChangeKind::Added && is_made && is_empty {
                continue;
            }
            kept.extend(behind.replace(change));
        }
        kept.extend(behind);
        kept.reverse();
        self.list = kept;
    }
}

/// What a tree may have at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) entries: usize,
    pub(super) path_bytes: usize,
}

impl Bounds {
    pub(super) const OURS: Self =
        Self { entries: limits::CHANGES_ENTRIES, path_bytes: limits::CHANGES_PATH_BYTES };
}

/// Returns the project's very directory too.
pub(super) fn read(
    upper: &OwnedFd,
    project: &Path,
    bounds: Bounds,
) -> Result<(Reading, Place), ChangesError> {
    let failed = |source| ChangesError::Project { path: project.to_owned(), source };
    let lower = open_project(project).map_err(failed)?;
    let place = tree::look(lower.as_fd()).map_err(failed)?.stamp.place;
    let mut walk =
        Walk { bounds, reading: Reading::default(), entries: 0, path_bytes: 0, bytes: 0 };
    walk.directory(upper.as_fd(), Some(lower.as_fd()), false, Path::new(""), 0)?;
    let mut reading = walk.reading;
    reading.list.sort_by(|one, other| one.path.cmp(&other.path));
    reading.refused.sort_by(|one, other| one.path.cmp(&other.path));
    Ok((reading, place))
}

/// Whoever names a project may name it by a link; what is below may not.
pub(super) fn open_project(path: &Path) -> SysResult<OwnedFd> {
    use std::os::unix::ffi::OsStrExt;
    let invalid = |_has_a_nul| Errno::from_raw(libc::EINVAL);
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(invalid)?;
    file::open(&path, libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC)
}

struct Walk {
    bounds: Bounds,
    reading: Reading,
    entries: usize,
    path_bytes: usize,
    bytes: u64,
}

impl Walk {
    /// Adds what has changed in one directory. `hides` says that nothing of `lower` shines through.
    /// It calls itself for each level, of which there are few.
    fn directory(
        &mut self,
        upper: BorrowedFd<'_>,
        lower: Option<BorrowedFd<'_>>,
        hides: bool,
        path: &Path,
        depth: usize,
    ) -> Result<(), ChangesError> {
        if depth > limits::CHANGES_DEPTH {
            return Err(ChangesError::TooDeep {
                path: path.to_owned(),
                limit: limits::CHANGES_DEPTH,
            });
        }
        let names = self.names(upper, path)?;
        for name in &names {
            let path = path.join(name);
            if path.as_os_str().len() > limits::MAX_PATH_BYTES {
                return Err(ChangesError::LongPath { limit: limits::MAX_PATH_BYTES });
            }
            self.count(path.as_os_str())?;
            self.entry(Entry { upper, lower, hides, name, path: &path, depth })?;
        }
        if let (true, Some(lower)) = (hides, lower) {
            let kept: HashSet<&OsString> = names.iter().collect();
            for name in self.names(lower, path)? {
                if !kept.contains(&name) {
                    let path = path.join(&name);
                    self.count(path.as_os_str())?;
                    let unreadable =
                        |source| ChangesError::Unreadable { path: path.clone(), source };
                    let before = tree::find(lower, &name).map_err(unreadable)?;
                    self.add(path, ChangeKind::Deleted, None, before);
                }
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: Entry<'_>) -> Result<(), ChangesError> {
        let Entry { upper, lower, name, path, .. } = entry;
        let unreadable = |source| ChangesError::Unreadable { path: path.to_owned(), source };
        let Some(found) = tree::find(upper, name).map_err(unreadable)? else { return Ok(()) };
        let before = match lower {
            Some(lower) => tree::find(lower, name).map_err(unreadable)?,
            None => None,
        };
        match found.kind {
            Kind::Whiteout => self.deleted(path, before),
            Kind::Device => self.refuse(path, RefusedReason::Device),
            Kind::Fifo => self.refuse(path, RefusedReason::Fifo),
            Kind::Socket => self.refuse(path, RefusedReason::Socket),
            Kind::Symlink => {
                let target = tree::read_link(upper, name).map_err(unreadable)?;
                self.count_text(&target)?;
                let target = PathBuf::from(target);
                if stays_inside(path, &target) {
                    self.made(path, before, Kind::Symlink, Node::Symlink { target });
                } else {
                    self.refuse(path, RefusedReason::LeavingLink);
                }
            }
            Kind::File => {
                let file = open_readable(upper, name, 0).map_err(unreadable)?;
                let has = |attribute| {
                    tree::has_attribute(file.as_fd(), attribute, None).map_err(unreadable)
                };
                if found.bytes == 0 && has(WHITEOUT)? {
                    self.deleted(path, before);
                } else if has(METACOPY)? {
                    self.refuse(path, RefusedReason::Indirect);
                } else {
                    self.weigh(found.bytes)?;
                    let node = Node::File { mode: found.mode, bytes: found.bytes };
                    self.made(path, before, Kind::File, node);
                }
            }
            Kind::Directory => self.subdirectory(entry, found, before)?,
        }
        Ok(())
    }

    fn subdirectory(
        &mut self,
        Entry { upper, lower, hides, name, path, depth }: Entry<'_>,
        found: Found,
        before: Option<Found>,
    ) -> Result<(), ChangesError> {
        let unreadable = |source| ChangesError::Unreadable { path: path.to_owned(), source };
        let directory = open_readable(upper, name, libc::O_DIRECTORY).map_err(unreadable)?;
        let has = |attribute, value| {
            tree::has_attribute(directory.as_fd(), attribute, value).map_err(unreadable)
        };
        if has(REDIRECT, None)? {
            self.refuse(path, RefusedReason::Indirect);
            return Ok(());
        }
        let hides = hides || has(OPAQUE, Some(b"y"))?;
        let below = match (lower, before.map(|before| before.kind)) {
            (Some(lower), Some(Kind::Directory)) => {
                let flags = libc::O_RDONLY | libc::O_DIRECTORY;
                Some(tree::open_beneath(lower, name, flags, 0).map_err(unreadable)?)
            }
            _ => None,
        };
        // A directory is in the upper tree as soon as anything in it has changed.
        if below.is_none() || before.is_some_and(|before| before.mode != found.mode) {
            self.made(path, before, Kind::Directory, Node::Directory { mode: found.mode });
        }
        let below = below.as_ref().map(AsFd::as_fd);
        self.directory(directory.as_fd(), below, hides, path, depth.saturating_add(1))
    }

    fn made(&mut self, path: &Path, before: Option<Found>, kind: Kind, node: Node) {
        let what = match before {
            None => ChangeKind::Added,
            Some(before) if before.kind == kind => ChangeKind::Modified,
            Some(_) => ChangeKind::TypeChanged,
        };
        self.add(path.to_owned(), what, Some(node), before);
    }

    /// What was made and deleted again has never been there.
    fn deleted(&mut self, path: &Path, before: Option<Found>) {
        if before.is_some() {
            self.add(path.to_owned(), ChangeKind::Deleted, None, before);
        }
    }

    fn add(&mut self, path: PathBuf, kind: ChangeKind, node: Option<Node>, before: Option<Found>) {
        let before = before.map(|before| before.stamp);
        self.reading.list.push(Change { path, kind, node, before });
    }

    fn refuse(&mut self, path: &Path, reason: RefusedReason) {
        self.reading.refused.push(Refused { path: path.to_owned(), reason });
    }

    fn names(&self, directory: BorrowedFd<'_>, path: &Path) -> Result<Vec<OsString>, ChangesError> {
        let left = self.bounds.entries.saturating_sub(self.entries);
        tree::names(directory, left)
            .map_err(|source| ChangesError::Unreadable { path: path.to_owned(), source })?
            .ok_or(ChangesError::TooManyEntries { limit: self.bounds.entries })
    }

    fn count(&mut self, path: &OsStr) -> Result<(), ChangesError> {
        self.entries = self.entries.saturating_add(1);
        if self.entries > self.bounds.entries {
            return Err(ChangesError::TooManyEntries { limit: self.bounds.entries });
        }
        self.count_text(path)
    }

    fn count_text(&mut self, text: &OsStr) -> Result<(), ChangesError> {
        self.path_bytes = self.path_bytes.saturating_add(text.len());
        if self.path_bytes > self.bounds.path_bytes {
            return Err(ChangesError::LongPaths { limit: self.bounds.path_bytes });
        }
        Ok(())
    }

    fn weigh(&mut self, bytes: u64) -> Result<(), ChangesError> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > limits::CHANGES_BYTES {
            return Err(ChangesError::TooLarge { limit: limits::CHANGES_BYTES });
        }
        Ok(())
    }
}

/// A name in both trees.
#[derive(Clone, Copy)]
struct Entry<'a> {
    upper: BorrowedFd<'a>,
    lower: Option<BorrowedFd<'a>>,
    hides: bool,
    name: &'a OsStr,
    path: &'a Path,
    depth: usize,
}

/// Whether a link at `path` can't lead out of the project. A `..` is exact only in front of all
/// names: behind one, it starts from wherever a link of that name leads.
fn stays_inside(path: &Path, target: &Path) -> bool {
    let above = path.components().count().saturating_sub(1);
    let mut ups = 0_usize;
    let mut named = false;
    for component in target.components() {
        match component {
            Component::ParentDir if named => return false,
            Component::ParentDir => ups = ups.saturating_add(1),
            Component::Normal(_) => named = true,
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    ups <= above
}

const OPAQUE: &std::ffi::CStr = c"user.overlay.opaque";
const WHITEOUT: &std::ffi::CStr = c"user.overlay.whiteout";
const METACOPY: &std::ffi::CStr = c"user.overlay.metacopy";
const REDIRECT: &std::ffi::CStr = c"user.overlay.redirect";
