//! The running cells, as the zygote knows them. No system calls.

use std::{collections::BTreeMap, os::fd::OwnedFd};

use super::protocol::Cause;

/// One running cell.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) report: OwnedFd,
    /// When the wall time is over, on the monotonic clock.
    pub(super) deadline: u64,
    pub(super) minimal: bool,
    pub(super) cause: Cause,
}

/// Cells by the process id of their first process, which stays theirs until it is reaped.
#[derive(Debug, Default)]
pub(super) struct Cells {
    cells: BTreeMap<i32, Cell>,
}

impl Cells {
    pub(super) fn len(&self) -> usize {
        self.cells.len()
    }

    pub(super) fn insert(&mut self, pid: i32, cell: Cell) {
        self.cells.insert(pid, cell);
    }

    pub(super) fn remove(&mut self, pid: i32) -> Option<Cell> {
        self.cells.remove(&pid)
    }

    pub(super) fn get_mut(&mut self, pid: i32) -> Option<&mut Cell> {
        self.cells.get_mut(&pid)
    }

    pub(super) fn contains(&self, pid: i32) -> bool {
        self.cells.contains_key(&pid)
    }

    pub(super) fn pids(&self) -> impl Iterator<Item = i32> + '_ {
        self.cells.keys().copied()
    }

    /// Nanoseconds until the next cell's wall time is over. `None` if nobody is waited for.
    pub(super) fn until_next_deadline(&self, now: u64) -> Option<u64> {
        let running = self.cells.values().filter(|cell| cell.cause == Cause::None);
        running.map(|cell| cell.deadline.saturating_sub(now)).min()
    }

    /// Marks the cells whose wall time is over; each is returned once.
    pub(super) fn take_overdue(&mut self, now: u64) -> Vec<i32> {
        let mut overdue = Vec::new();
        for (pid, cell) in &mut self.cells {
            if cell.cause == Cause::None && cell.deadline <= now {
                cell.cause = Cause::WallTime;
                overdue.push(*pid);
            }
        }
        overdue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(deadline: u64) -> Cell {
        let (report, _) = crate::linux::sys::file::pipe().unwrap();
        Cell { report, deadline, minimal: false, cause: Cause::None }
    }

    #[test]
    fn deadlines_fire_once() {
        let mut cells = Cells::default();
        assert_eq!(cells.until_next_deadline(0), None);
        cells.insert(1, cell(10));
        cells.insert(2, cell(20));
        assert_eq!(cells.until_next_deadline(4), Some(6));
        assert_eq!(cells.take_overdue(10), [1]);
        assert_eq!(cells.take_overdue(15), [0; 0]);
        assert_eq!(cells.until_next_deadline(15), Some(5));
        assert_eq!(cells.take_overdue(99), [2]);
        assert_eq!(cells.until_next_deadline(99), None);
    }
}
