//! What somebody has changed in a project beside its cell, where applying the cell's changes would destroy it.
//!
//! The cell never saw it, or may not have: an overlay shows what lies below as it was when it was looked at.
//! That something was changed, the kernel says itself: no program sets the time of a change.

use std::{
    collections::HashSet,
    ffi::OsStr,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

use super::{
    ApplyError, Change, ChangeKind, Changes, Node,
    apply::{open_parent, too_many},
};
use crate::{
    limits,
    linux::sys::tree::{self, Kind, Place},
};

/// The paths of everything that the changes would replace or delete in `root` and that isn't what it was.
/// Changes nothing. `project` led to `root`, which is this `place`.
pub(super) fn find(
    changes: &Changes,
    root: BorrowedFd<'_>,
    project: &Path,
    place: Place,
) -> Result<Vec<PathBuf>, ApplyError> {
    let is_where_it_was = place == changes.beside || project == changes.project;
    if place != changes.seen && !is_where_it_was {
        // Of any other directory than the one that the cell saw nothing is known.
        return Ok(Vec::new());
    }
    if [place, changes.beside] != [changes.seen; 2] {
        return Ok(vec![PathBuf::from(".")]);
    }
    let mut search = Search { since: changes.since, left: limits::DELETIONS, found: Vec::new() };
    let mut above = HashSet::new();
    // What is below it is all new, or looked at with it.
    let mut replaced: Option<&Path> = None;
    for change in changes {
        if replaced.is_some_and(|replaced| change.path.starts_with(replaced)) {
            continue;
        }
        for parent in change.path.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()) {
            if above.insert(parent) {
                search.directory(parent, root)?;
            }
        }
        search.change(change, root)?;
        let is_new = matches!(change.kind, ChangeKind::Added | ChangeKind::TypeChanged);
        if is_new && matches!(change.node, Some(Node::Directory { .. })) {
            replaced = Some(&change.path);
        }
    }
    Ok(search.found)
}

struct Search {
    /// When the cell began, in nanoseconds; nothing is known of before.
    since: Option<i128>,
    /// How many entries may still be looked at.
    left: usize,
    found: Vec<PathBuf>,
}

impl Search {
    /// Looks at a directory above a change. What is made or removed in it changes both of its times, and to
    /// move it changes one.
    fn directory(&mut self, path: &Path, root: BorrowedFd<'_>) -> Result<(), ApplyError> {
        let (parent, name) = match open_parent(root, path) {
            Err(ApplyError::Parent { source, .. }) if source.raw() == libc::ENOENT => return Ok(()),
            opened => opened?,
        };
        let failed = |source| ApplyError::Parent { path: path.to_owned(), source };
        if let Some(now) = tree::find(parent.as_fd(), name).map_err(failed)?
            && self.is_late(now.stamp.changed)
            && now.stamp.changed != now.stamp.modified
        {
            self.found.push(path.to_owned());
        }
        Ok(())
    }

    fn change(&mut self, change: &Change, root: BorrowedFd<'_>) -> Result<(), ApplyError> {
        let (parent, name) = match open_parent(root, &change.path) {
            // Gone, with all that was in it.
            Err(ApplyError::Parent { source, .. }) if source.raw() == libc::ENOENT => {
                if change.kind == ChangeKind::Modified {
                    self.found.push(change.path.clone());
                }
                return Ok(());
            }
            opened => opened?,
        };
        let failed = |source| ApplyError::Parent { path: change.path.clone(), source };
        let now = tree::find(parent.as_fd(), name).map_err(failed)?;
        let is_directory = matches!(change.node, Some(Node::Directory { .. }));
        match (change.kind, now) {
            (ChangeKind::Added | ChangeKind::Deleted | ChangeKind::TypeChanged, None) => {}
            (ChangeKind::Modified, Some(now)) if is_directory => {
                // Its mode alone was changed, and what is in it stays.
                if now.kind != Kind::Directory {
                    self.found.push(change.path.clone());
                }
            }
            (ChangeKind::Added, Some(_)) | (ChangeKind::Modified, None) => {
                self.found.push(change.path.clone());
            }
            (_, Some(now)) => {
                if change.before.is_some_and(|before| before != now.stamp)
                    || self.is_late(now.stamp.changed)
                {
                    self.found.push(change.path.clone());
                }
                if now.kind == Kind::Directory {
                    self.below(parent.as_fd(), name, &change.path, 0)?;
                }
            }
        }
        Ok(())
    }

    /// Looks at all that is in a directory which is to go.
    fn below(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
        depth: usize,
    ) -> Result<(), ApplyError> {
        let failed = |source| ApplyError::Delete { path: path.to_owned(), source };
        if depth == limits::DELETION_DEPTH {
            return Err(ApplyError::TooDeep { path: path.to_owned(), limit: depth });
        }
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        let directory = match tree::open_beneath(parent, name, flags, 0) {
            // Whoever has closed it, or opened it meanwhile, has changed the directory itself.
            Err(errno) if errno.raw() == libc::EACCES => return Ok(()),
            opened => opened.map_err(failed)?,
        };
        let names = tree::names(directory.as_fd(), self.left).map_err(failed)?;
        for name in names.ok_or_else(|| too_many(path))? {
            self.left = self.left.checked_sub(1).ok_or_else(|| too_many(path))?;
            let path = path.join(&name);
            let Some(now) = tree::find(directory.as_fd(), &name).map_err(failed)? else { continue };
            if self.is_late(now.stamp.changed) {
                self.found.push(path.clone());
            }
            if now.kind == Kind::Directory {
                self.below(directory.as_fd(), &name, &path, depth.saturating_add(1))?;
            }
        }
        Ok(())
    }

    fn is_late(&self, at: i128) -> bool {
        self.since.is_some_and(|since| is_late(at, since))
    }
}

/// Whether what has this time may have been changed since then. The kernel takes such times from a clock
/// that stands still between two ticks, and a file system may round them down to the second.
fn is_late(changed: i128, since: i128) -> bool {
    let tick = i128::try_from(limits::CLOCK_TICK.as_nanos()).unwrap_or_default();
    let since = since.saturating_sub(tick);
    let is_whole = changed.rem_euclid(SECOND) == 0;
    changed >= if is_whole { since.saturating_sub(since.rem_euclid(SECOND)) } else { since }
}

/// In nanoseconds.
const SECOND: i128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_coarse_clocks_are_late_too() {
        let (second, tick) = (SECOND, 10_000_000);
        let since = 7 * second + 500_000_000;
        for late in [since + 1, since, since - tick, 7 * second, 8 * second] {
            assert!(is_late(late, since), "{late}");
        }
        for early in [since - tick - 1, 7 * second + 1, 7 * second - 1, 6 * second] {
            assert!(!is_late(early, since), "{early}");
        }
        // The second had just begun, by a clock that hadn't heard of it.
        assert!(is_late(6 * second, 7 * second + tick - 1));
        assert!(!is_late(6 * second, 7 * second + tick));
        assert!(is_late(-second, -second / 2), "before the calendar's first second too");
    }
}
