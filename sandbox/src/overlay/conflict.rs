//! What somebody has changed in a project beside its cell, where applying the cell's changes would destroy it.
//!
//! The cell never saw it, or may not have: an overlay shows what lies below as it was when it was looked at.
//! That something was changed, the kernel says itself: no program sets the time of a change.

use std::{
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
    linux::sys::tree::{self, Found, Kind},
};

/// The paths of everything that the changes would replace or delete and that isn't what it was. Changes
/// nothing.
pub(super) fn find(changes: &Changes, root: BorrowedFd<'_>) -> Result<Vec<PathBuf>, ApplyError> {
    let mut search = Search { since: changes.since, left: limits::DELETIONS, found: Vec::new() };
    // What is below it is all new, or looked at with it.
    let mut replaced: Option<&Path> = None;
    for change in changes {
        if replaced.is_some_and(|replaced| change.path.starts_with(replaced)) {
            continue;
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
                if change.before.is_some_and(|before| before != now.stamp) || self.is_late(&now) {
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
            if self.is_late(&now) {
                self.found.push(path.clone());
            }
            if now.kind == Kind::Directory {
                self.below(directory.as_fd(), &name, &path, depth.saturating_add(1))?;
            }
        }
        Ok(())
    }

    fn is_late(&self, now: &Found) -> bool {
        self.since.is_some_and(|since| now.stamp.changed > since)
    }
}
