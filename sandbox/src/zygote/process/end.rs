//! How cells end, each and all of them.

use std::os::fd::AsFd;

use super::{Zygote, tell};
use crate::{
    account::GroupUsage,
    limits,
    linux::{
        cgroup::Group,
        child, end_below, sweep,
        sys::{
            self, event, file,
            process::{self, Ending},
        },
    },
    zygote::{
        cells::Cell,
        protocol::{Cause, Record},
    },
};

impl Zygote {
    /// Reports every cell that ended.
    pub(super) fn reap(&mut self) -> sys::Result<()> {
        let mut drained = [0; 128];
        while file::read(self.signals.as_fd(), &mut drained).is_ok() {}
        let mut orphans = false;
        // Without a minimal cell, a child that is nobody's first process is a short-lived helper of
        // ours.
        loop {
            let ended = match process::reap(false) {
                Ok(Some(ended)) => ended,
                Ok(None) => break,
                Err(errno) if errno.raw() == libc::ECHILD => return Ok(()),
                Err(errno) => return Err(errno),
            };
            // One that was used isn't stillborn.
            self.hear_claims();
            let Some(mut cell) = self.cells.remove(ended.pid) else {
                self.interpreters.ended(ended.pid, event::now());
                orphans = true;
                continue;
            };
            if cell.minimal {
                orphans = true;
                self.sweep();
            }
            if let Some(key) = cell.pool {
                self.pools.lost(key);
            }
            if cell.seedling.is_some() {
                self.stock.withered();
            }
            let group = cell.group.take();
            if let Some(alarm) = group.as_ref().and_then(Group::alarm) {
                self.poller.remove(alarm).ok();
            }
            let groups = group.as_ref().map_or_else(GroupUsage::default, Group::usage);
            let cause = match cell.cause {
                Cause::None if groups.oom_kills.is_some_and(|kills| kills > 0) => Cause::Memory,
                Cause::None
                    if !cell.minimal
                        && process::ending(ended.status) == Ending::Exited(child::OVERDUE) =>
                {
                    Cause::WallTime
                }
                known => known,
            };
            if let Some(report) = &cell.report {
                tell(report.as_fd(), Record::Reaped { cause, usage: ended.usage, groups });
                // It isn't watched any more if it was abandoned.
                self.poller.remove(report.as_fd()).ok();
            }
            self.retire(cell, group);
        }
        if orphans && self.adopts {
            self.sweep();
        }
        Ok(())
    }

    /// Takes back what the nursery gave to a cell that is gone.
    pub(super) fn retire(&mut self, mut cell: Cell, group: Option<Group>) {
        self.ruins.extend(cell.mounts.take());
        // What waits for a quiet moment is bounded: when none comes, it's taken away now.
        if self.ruins.len() > limits::MOST_RUINS {
            self.ruins.truncate(limits::MOST_RUINS / 2);
        }
        // There is something to put in order, even if nothing starts any more.
        self.unrested = self.unrested.max(1);
        self.last_event = event::now();
        let Some(Ok(nursery)) = &mut self.nursery else { return };
        if let Some(network) = cell.network.take() {
            nursery.networks.give_back(network);
        }
        if let Some(group) = group {
            nursery.retire(group, cell.group_limits);
        }
        if nursery.dying_groups() > limits::MOST_DYING_GROUPS {
            self.untidy = !nursery.tidy();
        }
    }

    /// Ends children that are nobody's first process.
    pub(super) fn sweep(&self) {
        // Without a readable /proc the sweep can't be done; the keeper has done its own or died
        // with its cell.
        sweep(|pid| self.cells.contains(pid)).ok();
    }

    /// The cell is out of memory, or a group above it is; the kernel ends a process of one of them, or is
    /// about to.
    pub(super) fn rang(&mut self, pid: u64) {
        let pid = i32::try_from(pid).unwrap_or_default();
        let Some(cell) = self.cells.get_mut(pid) else { return };
        let Some(group) = &cell.group else { return };
        // So that it can ring again.
        group.hush();
        if group.was_starved() {
            self.starved(pid);
        } else {
            self.cells.rang(pid, event::now());
        }
    }

    /// Looks whether an alarm was for this cell. One that rings on is, if the cell has all its memory: then
    /// there is nothing in it that the kernel could end.
    pub(super) fn look(&mut self, pid: i32, rings_on: bool) {
        let Some(group) = self.cells.get_mut(pid).and_then(|cell| cell.group.as_ref()) else {
            return;
        };
        if group.was_starved() || (rings_on && group.is_full()) {
            self.starved(pid);
        }
    }

    fn starved(&mut self, pid: i32) {
        let Some(cell) = self.cells.get_mut(pid) else { return };
        if let Some(alarm) = cell.group.as_ref().and_then(Group::alarm) {
            self.poller.remove(alarm).ok();
        }
        cell.alarm = None;
        if cell.cause == Cause::None {
            cell.cause = Cause::Memory;
            self.end(pid);
        }
    }

    /// The host has let go of the cell without waiting for its end.
    pub(super) fn abandon(&mut self, pid: i32) {
        let Some(cell) = self.cells.get_mut(pid) else { return };
        if let Some(report) = &cell.report {
            self.poller.remove(report.as_fd()).ok();
        }
        if cell.cause == Cause::None {
            cell.cause = Cause::Abandoned;
        }
        self.end(pid);
    }

    pub(super) fn end(&mut self, pid: i32) {
        let minimal = self.cells.get_mut(pid).is_some_and(|cell| cell.minimal);
        // A keeper that its program has stopped goes on, to hear that it shall end.
        let signals: &[i32] =
            if minimal { &[libc::SIGTERM, libc::SIGCONT] } else { &[libc::SIGKILL] };
        for signal in signals {
            // The process is ours and not reaped, so the number is still its own; it may have ended
            // already.
            process::kill(pid, *signal).ok();
        }
        self.cells.told(pid, event::now());
    }

    /// Ends everything in a cell that should have ended with its first process. That one may get no
    /// processor time to end in as long as the others take all of it.
    pub(super) fn strike(&mut self, pid: i32, again: bool) {
        let Some(cell) = self.cells.get_mut(pid) else { return };
        // To kill one by one takes the right to start processes away first.
        cell.group_limits = None;
        let struck = cell.group.as_ref().is_some_and(|group| group.strike().is_ok());
        if !struck {
            // Without a readable /proc nothing can be done but to wait.
            end_below(pid).ok();
        }
        if again && cell.minimal {
            // It had the time to end the others itself. What is left of them is this process's then.
            process::kill(pid, libc::SIGKILL).ok();
        }
        if let Some(report) = &cell.report {
            tell(report.as_fd(), Record::Lasting);
        }
    }

    /// Ends all cells, waits for their ends, and takes away what was made for them. What doesn't end is
    /// waited for as long as a host waits for this; the kernel kills it once more with this process.
    pub(super) fn leave(mut self) {
        self.end_all();
        let patience = u64::try_from(limits::GOODBYE_WAIT.as_nanos()).unwrap_or(u64::MAX);
        let until = event::now().saturating_add(patience);
        while self.cells.len() > 0 && event::now() < until {
            let mut drained = [0; 128];
            while file::read(self.signals.as_fd(), &mut drained).is_ok() {}
            match process::reap(false) {
                Ok(Some(ended)) => {
                    drop(self.cells.remove(ended.pid));
                    continue;
                }
                Ok(None) => {}
                Err(errno) if errno.raw() == libc::EINTR => continue,
                Err(_no_children) => break,
            }
            let now = event::now();
            for (pid, again) in self.cells.take_lasting(now) {
                self.strike(pid, again);
            }
            let rest = self.cells.until_next_lasting(now).unwrap_or_default();
            let rest = rest.min(until.saturating_sub(now));
            let rest = i32::try_from(rest.div_ceil(1_000_000)).unwrap_or(i32::MAX);
            if event::is_readable(self.signals.as_fd(), rest).is_err() {
                break;
            }
        }
        if let Some(Ok(nursery)) = self.nursery {
            nursery.leave();
        }
    }

    pub(super) fn end_all(&mut self) {
        let pids: Vec<i32> = self.cells.pids().collect();
        for pid in pids {
            self.end(pid);
        }
    }
}
