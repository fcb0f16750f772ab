//! Our part of each hierarchy: one group with the zygote's name, and a group per cell in it.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    ffi::CString,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    thread,
};

use crate::{
    diagnosis::Controller,
    errno::Errno,
    limits,
    linux::sys::{
        self, directory,
        event::{self, signal},
        file, process,
    },
};

/// Which interface the files of a hierarchy have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    Unified,
    Legacy,
}

/// One hierarchy and our group in it.
#[derive(Debug)]
pub(super) struct Hierarchy {
    pub(super) version: Version,
    pub(super) holds: Vec<Controller>,
    /// Whether groups count processor time.
    pub(super) accounts_cpu: bool,
    /// The group that ours is in.
    pub(super) home: OwnedFd,
    pub(super) subtree: Subtree,
}

impl Hierarchy {
    pub(super) fn holds(&self, controller: Controller) -> bool {
        self.holds.contains(&controller)
    }
}

/// Our group, marked so that whoever else finds it knows that we live.
#[derive(Debug)]
pub(super) struct Subtree {
    directory: OwnedFd,
    /// A file that nobody else in this process opens, which would take the mark away.
    _mark: OwnedFd,
}

/// The file of a group that bears the mark.
pub(super) const MARKED: &[u8] = b"/cgroup.procs";

impl Subtree {
    /// Makes our group in `home`.
    pub(super) fn make(home: BorrowedFd<'_>, name: &CString) -> sys::Result<Self> {
        Self::make_beside(home, name, || ())
    }

    /// The same, while somebody else does something between the group's making and its marking: to a
    /// zygote in another pid namespace, a group without a mark is a dead one's, and is removed.
    pub(super) fn make_beside(
        home: BorrowedFd<'_>,
        name: &CString,
        mut meanwhile: impl FnMut(),
    ) -> sys::Result<Self> {
        let mut result = Err(Errno::from_raw(libc::ENOENT));
        for _ in 0..limits::CLEAR_ATTEMPTS {
            result = Self::try_to_make(home, name, &mut meanwhile);
            match &result {
                Err(errno) if LOST.contains(&errno.raw()) => thread::sleep(limits::CLEAR_PAUSE),
                _ => break,
            }
        }
        result
    }

    fn try_to_make(
        home: BorrowedFd<'_>,
        name: &CString,
        meanwhile: &mut impl FnMut(),
    ) -> sys::Result<Self> {
        match directory::make_at(home, name) {
            // A name is never used by two processes; by one, again after `end`.
            Err(errno) if errno.raw() != libc::EEXIST => return Err(errno),
            _ => {}
        }
        meanwhile();
        let directory = directory::open_at(home, name, libc::O_RDONLY | libc::O_DIRECTORY)?;
        let file = path(&[name.as_bytes(), MARKED])?;
        let mark = directory::open_at(home, &file, libc::O_RDONLY)?;
        directory::hold(mark.as_fd())?;
        // Whoever removes a group marks it before. So one that is there now stays.
        let is_same =
            directory::inode_at(home, name)? == directory::inode_at(directory.as_fd(), c".")?;
        if is_same {
            Ok(Self { directory, _mark: mark })
        } else {
            Err(Errno::from_raw(libc::ENOENT))
        }
    }
}

/// What those meet whose group is being removed: it's gone, it's about to go, or somebody has marked it.
const LOST: [i32; 3] = [libc::ENOENT, libc::ENODEV, libc::EAGAIN];

impl AsFd for Subtree {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// Everything of ours in all hierarchies.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) name: CString,
    pub(super) hierarchies: Vec<Hierarchy>,
    /// Groups that are to be removed.
    dying: RefCell<VecDeque<CString>>,
    /// Groups made and not yet removed.
    existing: Cell<usize>,
    made: Cell<u64>,
}

impl Tree {
    pub(super) fn new(name: CString, hierarchies: Vec<Hierarchy>) -> Self {
        Self {
            name,
            hierarchies,
            dying: RefCell::default(),
            existing: Cell::new(0),
            made: Cell::new(0),
        }
    }

    /// The hierarchy whose groups limit this.
    pub(super) fn holder(&self, controller: Controller) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|hierarchy| hierarchy.holds(controller))
    }

    pub(super) fn unified(&self) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|hierarchy| hierarchy.version == Version::Unified)
    }

    pub(super) fn legacy(&self) -> impl Iterator<Item = &Hierarchy> {
        self.hierarchies.iter().filter(|hierarchy| hierarchy.version == Version::Legacy)
    }

    /// Makes an empty group everywhere and returns its name.
    pub(super) fn make(&self) -> sys::Result<CString> {
        if self.hierarchies.is_empty() {
            return Err(Errno::from_raw(libc::ENODEV));
        }
        if self.existing.get() >= limits::MAX_GROUPS {
            return Err(Errno::from_raw(libc::EAGAIN));
        }
        loop {
            let name = path(&[CELL.as_bytes(), self.made.get().to_string().as_bytes()])?;
            self.made.set(self.made.get().wrapping_add(1));
            match self.make_everywhere(&name) {
                Ok(()) => {
                    self.existing.set(self.existing.get() + 1);
                    return Ok(name);
                }
                // Left from a set of groups that could not be ended.
                Err(errno) if errno.raw() == libc::EEXIST => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    fn make_everywhere(&self, name: &CString) -> sys::Result<()> {
        for (made, hierarchy) in self.hierarchies.iter().enumerate() {
            if let Err(errno) = directory::make_at(hierarchy.subtree.as_fd(), name) {
                for hierarchy in self.hierarchies.iter().take(made) {
                    // An empty group that stays is removed at the end.
                    directory::remove_at(hierarchy.subtree.as_fd(), name).ok();
                }
                return Err(errno);
            }
        }
        Ok(())
    }

    /// Kills what is in a group, in whichever hierarchy it is. `rounds`: how often to look again
    /// where the kernel can't kill a group as a whole.
    pub(super) fn kill(&self, group: &CString, rounds: usize) -> sys::Result<()> {
        if let Some(unified) = self.unified() {
            let file = path(&[group.as_bytes(), b"/cgroup.kill"])?;
            match directory::write_at(unified.subtree.as_fd(), &file, b"1") {
                Ok(()) => return Ok(()),
                // A kernel before 5.14.
                Err(errno) if errno.raw() == libc::ENOENT => {}
                Err(errno) => return Err(errno),
            }
        }
        let Some(hierarchy) = self.holder(Controller::Pids).or(self.hierarchies.first()) else {
            return Ok(());
        };
        kill_one_by_one(hierarchy.subtree.as_fd(), group, rounds)
    }

    /// Hands a group over for removal.
    pub(super) fn let_go(&self, group: CString) {
        self.dying.borrow_mut().push_back(group);
    }

    /// Removes some of the groups that are to go. True when none is left.
    pub(super) fn tidy(&self, most: usize) -> bool {
        let waiting = self.dying.borrow().len().min(most);
        for _ in 0..waiting {
            let Some(group) = self.dying.borrow_mut().pop_front() else { break };
            match self.remove(&group) {
                Ok(()) => self.existing.set(self.existing.get().saturating_sub(1)),
                Err(_in_use) => {
                    self.kill(&group, 1).ok();
                    self.let_go(group);
                }
            }
        }
        self.dying.borrow().is_empty()
    }

    pub(super) fn dying(&self) -> usize {
        self.dying.borrow().len()
    }

    /// Removes an empty group everywhere.
    fn remove(&self, group: &CString) -> sys::Result<()> {
        let mut result = Ok(());
        for hierarchy in &self.hierarchies {
            match remove_with_children(hierarchy.subtree.as_fd(), group, limits::GROUP_DEPTH) {
                Err(errno) if errno.raw() != libc::ENOENT => result = Err(errno),
                _ => {}
            }
        }
        result
    }

    /// Ends and removes everything of ours.
    pub(super) fn end(&self) -> sys::Result<()> {
        let mut result = Ok(());
        for hierarchy in &self.hierarchies {
            let removed = clear(hierarchy.home.as_fd(), &self.name);
            result = result.and(removed);
        }
        result
    }
}

/// Kills everything in a group and those below it, and removes them; waits a moment for the dead to
/// leave.
pub(super) fn clear(home: BorrowedFd<'_>, group: &CString) -> sys::Result<()> {
    let mut result = Ok(());
    for _ in 0..limits::CLEAR_ATTEMPTS {
        result = match remove_with_children(home, group, limits::GROUP_DEPTH) {
            Err(errno) if errno.raw() == libc::ENOENT => Ok(()),
            other => other,
        };
        if !matches!(result, Err(errno) if errno.raw() == libc::EBUSY) {
            return result;
        }
        kill_below(home, group, limits::GROUP_DEPTH).ok();
        thread::sleep(limits::CLEAR_PAUSE);
    }
    result
}

/// Removes a group and the groups in it, all empty.
fn remove_with_children(home: BorrowedFd<'_>, group: &CString, depth: usize) -> sys::Result<()> {
    match directory::remove_at(home, group) {
        Err(errno) if errno.raw() == libc::EBUSY && depth > 0 => {}
        other => return other,
    }
    let directory = directory::open_at(home, group, libc::O_RDONLY | libc::O_DIRECTORY)?;
    for child in children(directory.as_fd())? {
        remove_with_children(directory.as_fd(), &child, depth - 1)?;
    }
    directory::remove_at(home, group)
}

fn kill_below(home: BorrowedFd<'_>, group: &CString, depth: usize) -> sys::Result<()> {
    let file = path(&[group.as_bytes(), b"/cgroup.kill"])?;
    if directory::write_at(home, &file, b"1").is_ok() {
        return Ok(());
    }
    let directory = directory::open_at(home, group, libc::O_RDONLY | libc::O_DIRECTORY)?;
    if depth > 0 {
        for child in children(directory.as_fd())? {
            kill_below(directory.as_fd(), &child, depth - 1)?;
        }
    }
    kill_one_by_one(home, group, 1)
}

/// Kills without the kernel's own means for it. What forks faster than it dies is stopped from
/// forking first, where the group can do that.
pub(super) fn kill_one_by_one(
    home: BorrowedFd<'_>,
    group: &CString,
    rounds: usize,
) -> sys::Result<()> {
    let most = path(&[group.as_bytes(), b"/pids.max"])?;
    // Not there in other hierarchies.
    directory::write_at(home, &most, b"0").ok();
    let file = path(&[group.as_bytes(), b"/cgroup.procs"])?;
    for _ in 0..rounds {
        let members = members(home, &file)?;
        if members.is_empty() {
            return Ok(());
        }
        let held: Vec<_> =
            members.iter().filter_map(|pid| Some((*pid, event::pidfd(*pid).ok()?))).collect();
        // Whoever is still listed is the process that the descriptor was opened for, and not a
        // stranger who got the number of one that has ended.
        let still = self::members(home, &file)?;
        for (pid, pidfd) in &held {
            if still.contains(pid) {
                signal(pidfd.as_fd(), libc::SIGKILL).ok();
            }
        }
        thread::sleep(limits::CLEAR_PAUSE);
    }
    Err(Errno::from_raw(libc::EBUSY))
}

/// The processes in a group that this process can see.
pub(super) fn members(home: BorrowedFd<'_>, file: &CString) -> sys::Result<Vec<i32>> {
    let text = read(home, file)?;
    Ok(text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect())
}

/// The groups in a group.
pub(super) fn children(directory: BorrowedFd<'_>) -> sys::Result<Vec<CString>> {
    // An own descriptor: the position in the directory belongs to the open file.
    let directory = directory::open_at(directory, c".", libc::O_RDONLY | libc::O_DIRECTORY)?;
    let mut found = Vec::new();
    let mut records = Box::new(Records([0; RECORDS]));
    loop {
        let length = process::directory_entries(directory.as_fd(), &mut records.0)?;
        if length == 0 {
            return Ok(found);
        }
        let mut rest = records.0.get(..length).unwrap_or_default();
        while let Some((name, tail)) = crate::linux::keeper::split_entry(rest) {
            let is_directory = rest.get(TYPE_AT) == Some(&libc::DT_DIR);
            rest = tail;
            if is_directory
                && ![&b"."[..], b".."].contains(&name)
                && found.len() < limits::MAX_GROUPS
            {
                found.push(path(&[name])?);
            }
        }
    }
}

/// Room for directory records, which the kernel aligns to 8.
#[repr(align(8))]
struct Records([u8; RECORDS]);

const RECORDS: usize = 8192;
/// Where a directory record says what it names.
const TYPE_AT: usize = 18;

/// Reads a control file as text, up to the bound.
pub(super) fn read(directory: BorrowedFd<'_>, path: &CString) -> sys::Result<String> {
    let file = directory::open_at(directory, path, libc::O_RDONLY)?;
    let mut bytes = Vec::new();
    let mut piece = [0; PIECE];
    while bytes.len() < limits::CONTROL_FILE_BYTES {
        let length = file::read(file.as_fd(), &mut piece)?;
        bytes.extend_from_slice(piece.get(..length).unwrap_or_default());
        // The kernel fills what it is given as long as it has something.
        if length + LONGEST_RECORD < PIECE {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Nearly all control files come with one call.
const PIECE: usize = 4096;
/// What doesn't fit any more is kept for the next call: a line about one device at most.
const LONGEST_RECORD: usize = 512;

/// One path of several parts.
pub(super) fn path(parts: &[&[u8]]) -> sys::Result<CString> {
    CString::new(parts.concat()).map_err(|_has_nul| Errno::from_raw(libc::EINVAL))
}

/// What the groups of cells are called, before their number.
const CELL: &str = "cell-";
