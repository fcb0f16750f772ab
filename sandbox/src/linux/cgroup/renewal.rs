//! Groups of cells that are gone, made as good as fresh ones for the next.
//!
//! Making a group in five hierarchies, opening its files and removing it again is a sixth of what a cell
//! costs. What a cell leaves in a group is its counters and what memory is charged to it. Counters that only
//! grow are counted on from where they are. Memory, and a peak that can't be set back, aren't: there the
//! group itself is made anew. Limits are set and read back again, as for any cell.

use std::{
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
};

use super::{
    Door, Group, alarm,
    tree::{self, Hierarchy, Version},
    usage,
};
use crate::{
    diagnosis::Controller,
    errno::Errno,
    linux::sys::{self, directory, file},
};

impl Group {
    /// Whether no process is in it, by the word of version 2, in which every process of a cell is born. False
    /// where nobody can say. Nobody comes in any more then: the only way is through descriptors that ended
    /// with the cell.
    pub(super) fn is_deserted(&mut self) -> bool {
        if self.census.is_none() {
            self.census = self.open_census().ok();
        }
        let Some(census) = &self.census else { return false };
        let mut text = [0; LONGEST];
        let length = file::read_at_start(census.as_fd(), &mut text).unwrap_or_default();
        let text = text.get(..length).unwrap_or_default();
        text.split(|byte| *byte == b'\n').any(|line| line == b"populated 0")
    }

    fn open_census(&self) -> sys::Result<OwnedFd> {
        let unified = self.tree.unified().ok_or(Errno::from_raw(libc::ENODEV))?;
        let path = tree::path(&[self.name.as_bytes(), b"/cgroup.events"])?;
        directory::open_at(unified.subtree.as_fd(), &path, libc::O_RDONLY)
    }

    /// Whether making it as good as fresh saves anything.
    pub(super) fn is_renewable(&self) -> bool {
        self.tree.hierarchies.iter().any(keeps_no_state)
    }

    /// Makes it as good as a fresh one, without limits.
    pub(super) fn renew(&mut self) -> sys::Result<()> {
        let tree = Rc::clone(&self.tree);
        let was_crowded = usage::most_processes(&tree, &self.name, &self.ledger)
            .is_some_and(|peak| peak > LEAST_PEAK);
        for (at, hierarchy) in tree.hierarchies.iter().enumerate() {
            let peaked = was_crowded && hierarchy.holds(Controller::Pids);
            if keeps_no_state(hierarchy) && !peaked {
                continue;
            }
            // It fails if anybody is in it.
            directory::remove_at(hierarchy.subtree.as_fd(), &self.name)?;
            directory::make_at(hierarchy.subtree.as_fd(), &self.name)?;
            self.ledger.reopen(&tree, &self.name, at);
            if hierarchy.version == Version::Unified {
                self.census = None;
            }
            if hierarchy.holds(Controller::Memory) {
                self.alarm = alarm::set(&tree, &self.name, &self.ledger);
            }
        }
        self.door = Some(Door::open(self)?);
        self.before = usage::read(&tree, &self.name, &self.ledger);
        Ok(())
    }
}

/// Whether a group there has nothing of its cells but numbers that grow, and what setting a limit again
/// sets back. Version 2 says a group's peaks, which don't grow only, wherever it has a controller.
fn keeps_no_state(hierarchy: &Hierarchy) -> bool {
    match hierarchy.version {
        Version::Unified => hierarchy.holds.is_empty(),
        Version::Legacy => !hierarchy.holds(Controller::Memory),
    }
}

/// As many processes are in every cell at some time: the first one, and the program. So a greatest number
/// that is no greater says nothing about who was there before.
const LEAST_PEAK: u64 = 2;
/// A few short lines.
const LONGEST: usize = 256;
