//! The cells that exist, as the zygote knows them. No system calls.

use std::{collections::BTreeMap, os::fd::OwnedFd};

use super::protocol::Cause;
use crate::{
    limits,
    linux::{cgroup::Group, seedling::Sort},
    plan::GroupLimits,
};

/// One cell.
#[derive(Debug)]
pub(super) struct Cell {
    /// Its socket to the host.
    pub(super) report: Option<OwnedFd>,
    /// When the wall time is over, on the monotonic clock. A cell without an order has none.
    pub(super) deadline: Option<u64>,
    pub(super) minimal: bool,
    pub(super) cause: Cause,
    /// It was told to end.
    pub(super) ending: Option<Ending>,
    /// Its alarm for memory has rung.
    pub(super) alarm: Option<Alarm>,
    /// Its network namespace, if another cell may have it afterwards.
    pub(super) network: Option<OwnedFd>,
    pub(super) group: Option<Group>,
    /// The limits with which another cell may have that group afterwards.
    pub(super) group_limits: Option<GroupLimits>,
    /// Its mount table, held so that taking it apart isn't part of the cell's end.
    pub(super) mounts: Option<OwnedFd>,
    /// Its id outside.
    pub(super) host_id: Option<u32>,
    /// The pool that it waits in.
    pub(super) pool: Option<u16>,
    /// What makes a cell of it, as long as it is none.
    pub(super) seedling: Option<Desk>,
}

/// How long a cell that was told to end is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ending {
    /// When more is done about it, on the monotonic clock.
    until: u64,
    /// How long the wait is.
    wait: u64,
    /// It isn't the first wait.
    again: bool,
}

impl Ending {
    fn new(now: u64) -> Self {
        let wait = u64::try_from(limits::END_WAIT.as_nanos()).unwrap_or(u64::MAX);
        Self { until: now.saturating_add(wait), wait, again: false }
    }

    fn later(self, now: u64) -> Self {
        let wait = self.wait.saturating_mul(2);
        Self { until: now.saturating_add(wait), wait, again: true }
    }
}

/// An alarm of which nobody knows yet whether it is for this cell.
#[derive(Debug, Clone, Copy)]
pub(super) struct Alarm {
    /// When the cell is looked at again, on the monotonic clock.
    until: u64,
    /// How long that wait is.
    wait: u64,
    looks: u32,
    /// It has rung again since the last look.
    rang: bool,
}

impl Alarm {
    fn new(now: u64) -> Self {
        let wait = u64::try_from(limits::ALARM_PAUSE.as_nanos()).unwrap_or(u64::MAX);
        Self { until: now.saturating_add(wait), wait, looks: 0, rang: false }
    }

    /// `None` when it was looked at often enough.
    fn later(self, now: u64) -> Option<Self> {
        let (wait, looks) = (self.wait.saturating_mul(2), self.looks.saturating_add(1));
        let until = now.saturating_add(wait);
        (looks < limits::ALARM_LOOKS).then_some(Self { until, wait, looks, rang: false })
    }
}

/// Where a first process waits for its plan.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) sort: Sort,
    pub(super) socket: OwnedFd,
    pub(super) pidfd: OwnedFd,
}

impl Cell {
    pub(super) fn new(minimal: bool) -> Self {
        Self {
            report: None,
            deadline: None,
            minimal,
            cause: Cause::None,
            ending: None,
            alarm: None,
            network: None,
            group: None,
            group_limits: None,
            mounts: None,
            host_id: None,
            pool: None,
            seedling: None,
        }
    }
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

    /// Whether a cell of that pool still waits under this process id; it doesn't any more then.
    pub(super) fn claim(&mut self, pid: i32, deadline: u64) -> Option<u16> {
        let cell = self.cells.get_mut(&pid)?;
        let pool = cell.pool.take()?;
        cell.deadline = Some(deadline);
        Some(pool)
    }

    /// Whether a cell waits under this process id; it belongs to no pool any more then.
    pub(super) fn give_up(&mut self, pid: i32) -> bool {
        self.cells.get_mut(&pid).is_some_and(|cell| cell.pool.take().is_some())
    }

    /// Whether a cell has this id outside. There are more ids than there can be cells.
    pub(super) fn has_id(&self, id: u32) -> bool {
        self.cells.values().any(|cell| cell.host_id == Some(id))
    }

    /// Whether a cell runs, or is about to.
    pub(super) fn any_busy(&self) -> bool {
        self.cells.values().any(|cell| cell.pool.is_none() && cell.seedling.is_none())
    }

    pub(super) fn contains(&self, pid: i32) -> bool {
        self.cells.contains_key(&pid)
    }

    pub(super) fn pids(&self) -> impl Iterator<Item = i32> + '_ {
        self.cells.keys().copied()
    }

    /// The cells that wait in a pool.
    pub(super) fn waiting_in(&self, pool: u16) -> impl Iterator<Item = i32> + '_ {
        self.cells.iter().filter(move |(_, cell)| cell.pool == Some(pool)).map(|(pid, _)| *pid)
    }

    /// The first processes that wait for a plan.
    pub(super) fn seedlings(&self) -> impl Iterator<Item = (i32, &Sort)> + Clone + '_ {
        self.cells.iter().filter_map(|(pid, cell)| Some((*pid, &cell.seedling.as_ref()?.sort)))
    }

    /// Nanoseconds until the next cell's wall time is over. `None` if nobody is waited for.
    pub(super) fn until_next_deadline(&self, now: u64) -> Option<u64> {
        let running = self.cells.values().filter(|cell| cell.cause == Cause::None);
        running.filter_map(|cell| cell.deadline).map(|deadline| deadline.saturating_sub(now)).min()
    }

    /// A cell was told to end.
    pub(super) fn told(&mut self, pid: i32, now: u64) {
        if let Some(cell) = self.cells.get_mut(&pid) {
            cell.ending.get_or_insert(Ending::new(now));
        }
    }

    /// Nanoseconds until more is to be done about a cell that was told to end.
    pub(super) fn until_next_lasting(&self, now: u64) -> Option<u64> {
        let ending = self.cells.values().filter_map(|cell| cell.ending);
        ending.map(|ending| ending.until.saturating_sub(now)).min()
    }

    /// The cells that should have ended by now, and whether it's not the first time. Each comes again, after a
    /// longer while.
    pub(super) fn take_lasting(&mut self, now: u64) -> Vec<(i32, bool)> {
        let mut lasting = Vec::new();
        for (pid, cell) in &mut self.cells {
            if let Some(ending) = &mut cell.ending
                && ending.until <= now
            {
                lasting.push((*pid, ending.again));
                *ending = ending.later(now);
            }
        }
        lasting
    }

    /// A cell's alarm has rung, for it or for others.
    pub(super) fn rang(&mut self, pid: i32, now: u64) {
        let Some(cell) = self.cells.get_mut(&pid) else { return };
        match &mut cell.alarm {
            Some(alarm) => alarm.rang = true,
            none => *none = Some(Alarm::new(now)),
        }
    }

    /// Nanoseconds until a cell is to be looked at whose alarm has rung.
    pub(super) fn until_next_look(&self, now: u64) -> Option<u64> {
        let alarms = self.cells.values().filter_map(|cell| cell.alarm);
        alarms.map(|alarm| alarm.until.saturating_sub(now)).min()
    }

    /// The cells that are to be looked at now, and whether it's the last time for an alarm that still rings.
    pub(super) fn take_looks(&mut self, now: u64) -> Vec<(i32, bool)> {
        let mut looks = Vec::new();
        for (pid, cell) in &mut self.cells {
            if let Some(alarm) = cell.alarm.filter(|alarm| alarm.until <= now) {
                cell.alarm = alarm.later(now);
                looks.push((*pid, cell.alarm.is_none() && alarm.rang));
            }
        }
        looks
    }

    /// Marks the cells whose wall time is over; each is returned once.
    pub(super) fn take_overdue(&mut self, now: u64) -> Vec<i32> {
        let mut overdue = Vec::new();
        for (pid, cell) in &mut self.cells {
            let is_over = cell.deadline.is_some_and(|deadline| deadline <= now);
            if cell.cause == Cause::None && is_over {
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
        Cell { deadline: Some(deadline), ..Cell::new(false) }
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

    #[test]
    fn a_cell_that_does_not_end_comes_again_and_more_rarely() {
        let mut cells = Cells::default();
        cells.insert(1, Cell::new(false));
        assert_eq!(cells.until_next_lasting(0), None);
        cells.told(1, 0);
        let wait = cells.until_next_lasting(0).unwrap();
        // Once more is not later.
        cells.told(1, 7);
        assert_eq!(cells.until_next_lasting(0), Some(wait));
        assert_eq!(cells.take_lasting(wait - 1), []);
        assert_eq!(cells.take_lasting(wait), [(1, false)]);
        assert_eq!(cells.until_next_lasting(wait), Some(2 * wait));
        assert_eq!(cells.take_lasting(3 * wait), [(1, true)]);
        assert_eq!(cells.until_next_lasting(3 * wait), Some(4 * wait));
        cells.remove(1);
        assert_eq!(cells.until_next_lasting(0), None);
    }

    #[test]
    fn an_alarm_is_looked_after_more_and_more_rarely_and_not_for_ever() {
        let mut cells = Cells::default();
        cells.insert(1, Cell::new(false));
        assert_eq!(cells.until_next_look(0), None);
        cells.rang(1, 0);
        let pause = cells.until_next_look(0).unwrap();
        // Once more is not later.
        cells.rang(1, 1);
        assert_eq!(cells.until_next_look(0), Some(pause));
        assert_eq!(cells.take_looks(pause - 1), []);
        let (mut now, mut looks) = (0, 0);
        while let Some(rest) = cells.until_next_look(now) {
            now += rest;
            looks += 1;
            cells.rang(1, now);
            assert_eq!(cells.take_looks(now), [(1, looks == limits::ALARM_LOOKS)]);
        }
        assert!(now < 3_000_000_000, "{now}");
        cells.rang(1, now);
        assert_eq!(cells.until_next_look(now), Some(pause));
    }

    #[test]
    fn a_waiting_cell_has_no_deadline_and_is_claimed_once() {
        let mut cells = Cells::default();
        cells.insert(1, Cell { pool: Some(4), ..Cell::new(false) });
        assert_eq!(cells.until_next_deadline(0), None);
        assert!(!cells.any_busy());
        assert_eq!(cells.claim(1, 7), Some(4));
        assert!(cells.any_busy());
        assert_eq!(cells.claim(1, 8), None);
        assert_eq!(cells.take_overdue(7), [1]);
        assert!(!cells.give_up(1), "it is used");
        cells.insert(2, Cell { pool: Some(4), ..Cell::new(false) });
        assert!(cells.give_up(2));
        assert_eq!(cells.claim(2, 7), None);
    }
}
