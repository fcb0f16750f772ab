//! Control groups: limits and accounts of a cell as a whole.
//!
//! A controller is either with the one hierarchy of version 2 or with a hierarchy of its own of
//! version 1; each is used where it is. The zygote makes one group in each hierarchy, and in it a
//! group per cell. The cell's first process is in its groups before it does anything else: in
//! version 2 it is born there ([`Entry::unified`]), in version 1 it moves itself by
//! [`Entry::enter`] through files that the zygote opened. It should take its cgroup namespace only
//! after that (`unshare`), because the namespace begins at the groups that the process is in.

mod alarm;
mod detect;
mod devices;
mod legacy;
mod limits;
pub(crate) mod missing;
mod renewal;
mod stale;
mod tree;
#[cfg(test)]
mod trials;
mod unified;
mod usage;

use std::{
    ffi::CString,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    rc::Rc,
};

use self::{
    detect::{Place, Spot},
    devices::Device,
    tree::Tree,
    usage::Ledger,
};
pub(crate) use self::{
    limits::{IoLimits, LimitError, Limits},
    missing::{Absence, Missing},
};
use crate::{
    account::GroupUsage,
    diagnosis::Controller,
    limits::{CONTROL_FILE_BYTES, KILL_ROUNDS, TIDY_BATCH},
    linux::sys::{self, directory, file},
};

/// The groups of one zygote.
#[derive(Debug)]
pub(crate) struct Cgroups {
    tree: Rc<Tree>,
    devices: Rc<[Device]>,
    missing: Vec<Missing>,
}

/// Which interface limits the cells.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Version 2 has every controller that can be had.
    Unified,
    /// Version 1 has one at least.
    Legacy,
    /// No controller can be had. There may be groups all the same, which can be killed and count.
    None,
}

impl Cgroups {
    /// Finds out what this host gives, removes what dead zygotes have left, and makes our groups.
    pub(crate) fn detect() -> Self {
        let text = |path: &str| {
            let bytes = std::fs::read(path).unwrap_or_default();
            String::from_utf8_lossy(bytes.get(..CONTROL_FILE_BYTES).unwrap_or(&bytes)).into_owned()
        };
        let layout = detect::layout(&text("/proc/self/mountinfo"), &text("/proc/self/cgroup"));
        match stale::own_name() {
            Ok(name) => Self::settle(&layout, name),
            Err(errno) => Self::nothing(Absence::Refused(errno)),
        }
    }

    fn settle(layout: &detect::Layout, name: CString) -> Self {
        let mut hierarchies = Vec::new();
        let mut absences: Vec<(Controller, Absence)> = Vec::new();
        let unified = layout.unified.as_ref().map_err(|absence| *absence);
        let unified = match unified.and_then(|place| unified::settle(place, &name)) {
            Ok(settled) => {
                absences.extend(settled.absent);
                hierarchies.push(settled.hierarchy);
                None
            }
            Err(absence) => Some(absence),
        };
        for bound in &layout.legacy {
            let limits = bound.holds.iter().any(|held| legacy::controller(*held).is_some());
            // Version 2 counts processor time without a controller.
            if !limits && unified.is_none() {
                continue;
            }
            match legacy::settle(bound, &name) {
                Ok(hierarchy) => hierarchies.push(hierarchy),
                Err(absence) => {
                    let held = bound.holds.iter().filter_map(|held| legacy::controller(*held));
                    absences.extend(held.map(|controller| (controller, absence)));
                }
            }
        }
        let tree = Tree::new(name, hierarchies);
        let why = |controller| {
            // A hierarchy of version 1 knows better than version 2 without the controller.
            let found = absences.iter().rfind(|(absent, _)| *absent == controller);
            found.map_or(unified.unwrap_or(Absence::NotOffered), |(_, absence)| *absence)
        };
        let missing = Controller::ALL
            .into_iter()
            .filter(|controller| tree.holder(*controller).is_none())
            .map(|controller| {
                // Swap is a part of memory: with both away, memory's reason is the true one.
                let part_of_memory =
                    controller == Controller::Swap && tree.holder(Controller::Memory).is_none();
                let cause = if part_of_memory { Controller::Memory } else { controller };
                Missing { controller, absence: why(cause) }
            })
            .collect();
        Self { tree: Rc::new(tree), devices: devices::find().into(), missing }
    }

    fn nothing(absence: Absence) -> Self {
        let missing = Controller::ALL.map(|controller| Missing { controller, absence }).to_vec();
        let tree = Rc::new(Tree::new(CString::default(), Vec::new()));
        Self { tree, devices: Rc::default(), missing }
    }

    #[cfg(test)]
    pub(crate) fn mode(&self) -> Mode {
        let mut holders = self.tree.hierarchies.iter().filter(|held| !held.holds.is_empty());
        match holders.next() {
            None => Mode::None,
            Some(_) if self.tree.legacy().any(|legacy| !legacy.holds.is_empty()) => Mode::Legacy,
            Some(_) => Mode::Unified,
        }
    }

    /// The controllers that can't be had, and why.
    pub(crate) fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// Limits without those that no controller here can keep; [`missing`](Self::missing) names
    /// them. For callers that were told to do with less.
    #[cfg(test)]
    pub(crate) fn narrowed(&self, limits: &Limits) -> Limits {
        self.missing.iter().fold(*limits, |limits, missing| limits.without(missing.controller))
    }

    /// A group for a new cell.
    ///
    /// # Errors
    ///
    /// `ENODEV` without any hierarchy, `EAGAIN` with too many groups waiting for their removal.
    pub(crate) fn take(&mut self) -> sys::Result<Group> {
        self.make()
    }

    fn make(&self) -> sys::Result<Group> {
        let name = self.tree.make()?;
        let (tree, devices) = (Rc::clone(&self.tree), Rc::clone(&self.devices));
        let ledger = Ledger::open(&tree, &name);
        let alarm = alarm::set(&tree, &name, &ledger);
        let before = GroupUsage::default();
        let mut group =
            Group { tree, devices, name, door: None, census: None, ledger, before, alarm };
        group.door = Some(Door::open(&group)?);
        Ok(group)
    }

    /// Kills what is left in a group; [`tidy`](Self::tidy) removes it.
    pub(crate) fn retire(&mut self, group: Group) {
        // What can't be killed now is killed by `tidy`.
        self.tree.kill(&group.name, KILL_ROUNDS).ok();
        drop(group);
    }

    /// A group that is as good as a fresh one, made of one whose cell is gone. `None` if it can't be had:
    /// then that one is retired.
    pub(crate) fn renew(&mut self, mut group: Group) -> Option<Group> {
        if group.renew().is_ok() {
            return Some(group);
        }
        self.retire(group);
        None
    }

    /// How many retired groups there are.
    pub(crate) fn dying(&self) -> usize {
        self.tree.dying()
    }

    /// Removes some retired groups. True when none is left; else it is to be called again, when
    /// there is nothing better to do.
    pub(crate) fn tidy(&mut self) -> bool {
        self.tree.tidy(TIDY_BATCH)
    }

    /// Kills and removes everything.
    ///
    /// # Errors
    ///
    /// `EBUSY` if something can't be killed; the next start tries again.
    pub(crate) fn end(self) -> sys::Result<()> {
        self.tree.end()
    }
}

/// The groups of one cell: one in each hierarchy, all of the same name.
///
/// Dropped, it is handed over to [`Cgroups::tidy`].
#[derive(Debug)]
pub(crate) struct Group {
    tree: Rc<Tree>,
    devices: Rc<[Device]>,
    name: CString,
    door: Option<Door>,
    /// What says whether somebody is in it.
    census: Option<OwnedFd>,
    ledger: Ledger,
    /// What was counted before it was this cell's.
    before: GroupUsage,
    alarm: Option<OwnedFd>,
}

impl Group {
    /// Whether [`Cgroups::renew`] is worth while, and possible as far as one can see.
    pub(crate) fn may_be_renewed(&mut self) -> bool {
        self.is_renewable() && self.is_deserted()
    }

    /// Becomes readable when version 1 of the memory controller is about to end a process for want of
    /// memory in this group or in one above: it ends one, and leaves the rest of the cell to us. Version 2
    /// ends the whole group itself.
    pub(crate) fn alarm(&self) -> Option<BorrowedFd<'_>> {
        self.alarm.as_ref().map(AsFd::as_fd)
    }

    /// Makes the alarm silent until it rings again.
    pub(crate) fn hush(&self) {
        if let Some(alarm) = self.alarm() {
            alarm::hush(alarm);
        }
    }

    /// Whether the kernel has ended a process of this group for want of memory.
    pub(crate) fn was_starved(&self) -> bool {
        usage::was_starved(&self.tree, &self.name, &self.ledger)
    }

    /// Whether it has all the memory that it may have.
    pub(crate) fn is_full(&self) -> bool {
        usage::is_full(&self.tree, &self.name, &self.ledger)
    }

    /// Sets the limits of a fresh group, and reads back each.
    ///
    /// # Errors
    ///
    /// A limit that isn't in force then.
    pub(crate) fn apply(&self, limits: &Limits) -> Result<(), LimitError> {
        limits::apply(&self.tree, &self.name, &self.devices, limits)
    }

    /// What the first process needs to come in.
    pub(crate) fn entry(&self) -> Entry<'_> {
        Entry { door: self.door.as_ref() }
    }

    /// Closes the door behind the first process; its descriptors are no longer needed.
    pub(crate) fn entered(&mut self) {
        self.door = None;
    }

    /// What was counted until now.
    pub(crate) fn usage(&self) -> GroupUsage {
        usage::read(&self.tree, &self.name, &self.ledger).since(&self.before)
    }

    /// Kills all processes that are in it now, and doesn't wait for their ends.
    ///
    /// # Errors
    ///
    /// What the kernel says when it can't be asked for that.
    pub(crate) fn strike(&self) -> sys::Result<()> {
        match self.tree.kill(&self.name, 1) {
            // They were there to be killed.
            Err(errno) if errno.raw() == libc::EBUSY => Ok(()),
            other => other,
        }
    }

    /// Kills all processes in it.
    ///
    /// # Errors
    ///
    /// `EBUSY` if some are still there.
    #[cfg(test)]
    pub(crate) fn kill(&self) -> sys::Result<()> {
        self.tree.kill(&self.name, KILL_ROUNDS)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.tree.let_go(std::mem::take(&mut self.name));
    }
}

/// The descriptors through which a process comes into a group.
#[derive(Debug)]
struct Door {
    unified: Option<OwnedFd>,
    legacy: Vec<OwnedFd>,
}

impl Door {
    fn open(group: &Group) -> sys::Result<Self> {
        let unified = group.tree.unified().map(|hierarchy| {
            let flags = libc::O_RDONLY | libc::O_DIRECTORY;
            directory::open_at(hierarchy.subtree.as_fd(), &group.name, flags)
        });
        let file = tree::path(&[group.name.as_bytes(), b"/tasks"])?;
        let legacy = group
            .tree
            .legacy()
            .map(|hierarchy| directory::open_at(hierarchy.subtree.as_fd(), &file, libc::O_WRONLY));
        Ok(Self { unified: unified.transpose()?, legacy: legacy.collect::<Result<_, _>>()? })
    }
}

/// How the first process of a cell comes into its group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'a> {
    door: Option<&'a Door>,
}

impl<'a> Entry<'a> {
    /// The group of version 2, for `CLONE_INTO_CGROUP`.
    pub(crate) fn unified(self) -> Option<BorrowedFd<'a>> {
        self.door.and_then(|door| door.unified.as_ref()).map(AsFd::as_fd)
    }

    /// The `tasks` files of version 1.
    pub(crate) fn legacy(self) -> impl Iterator<Item = BorrowedFd<'a>> {
        self.door.into_iter().flat_map(|door| door.legacy.iter().map(AsFd::as_fd))
    }

    /// The file of version 2's group that a process enters by writing to it, for one that isn't born
    /// there.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub(crate) fn unified_file(self) -> sys::Result<Option<OwnedFd>> {
        let open = |group| directory::open_at(group, c"cgroup.procs", libc::O_WRONLY);
        self.unified().map(open).transpose()
    }

    /// Moves the calling process, which has one thread, into the groups of version 1. Allocates
    /// nothing.
    ///
    /// A thread that moves itself (`0`) does so without the lock that stops all forks and exits of
    /// the machine for milliseconds. Whether it may was decided when the zygote opened the files.
    ///
    /// # Errors
    ///
    /// `EBADF` after [`Group::entered`]; else what the kernel says.
    #[cfg(test)]
    pub(crate) fn enter(self) -> sys::Result<()> {
        if self.door.is_none() {
            return Err(crate::errno::Errno::from_raw(libc::EBADF));
        }
        for tasks in self.legacy() {
            file::write(tasks, b"0")?;
        }
        Ok(())
    }
}

/// Opens our own group's directory, if it is on a file system of the right kind.
fn open(place: &Place, magic: i64) -> Result<(&Spot, OwnedFd), Absence> {
    let mut absence = Absence::OutOfSight;
    for spot in &place.spots {
        let directory = spot.mount.join(&spot.below);
        let path = tree::path(&[directory.as_os_str().as_encoded_bytes()]);
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
        match path.and_then(|path| file::open(&path, flags)) {
            // Something else may be mounted above it.
            Ok(fd) if directory::file_system(fd.as_fd()) == Ok(magic) => return Ok((spot, fd)),
            Err(errno) if errno.raw() == libc::EACCES => absence = Absence::NotDelegated,
            _ => {}
        }
    }
    Err(absence)
}
