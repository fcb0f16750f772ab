//! Groups of zygotes that died without removing them.

use std::{
    ffi::{CStr, CString},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use super::tree;
use crate::{
    errno::Errno,
    linux::sys::{self, directory, process},
};

/// A process that no other is mistaken for: process ids come again, start times don't.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Owner {
    pid: i32,
    /// Clock ticks since the machine started.
    started: u64,
}

/// What the group of this process is called.
pub(super) fn own_name() -> sys::Result<CString> {
    let owner = Owner { pid: process::own_pid(), started: started(process::own_pid())? };
    tree::path(&[owner.name().as_bytes()])
}

/// Ends and removes what dead zygotes have left in `home`. Nobody else's groups are touched.
pub(super) fn sweep(home: BorrowedFd<'_>) {
    for name in tree::children(home).unwrap_or_default() {
        if Owner::parse(&name).is_some_and(is_gone) {
            remove(home, &name);
        }
    }
}

/// Ends and removes a group, unless somebody has a mark on it.
pub(super) fn remove(home: BorrowedFd<'_>, name: &CString) {
    if let Ok(Some(_ours)) = mark(home, name) {
        // What can't be removed now is found again at the next start.
        tree::clear(home, name).ok();
    }
}

impl Owner {
    fn name(self) -> String {
        let Self { pid, started } = self;
        format!("{PREFIX}{pid}-{started}")
    }

    /// `None` for every name that this crate wouldn't write exactly like this.
    fn parse(name: &CStr) -> Option<Self> {
        let name = name.to_str().ok()?;
        let (pid, started) = name.strip_prefix(PREFIX)?.split_once('-')?;
        let owner = Self { pid: pid.parse().ok()?, started: started.parse().ok()? };
        (owner.pid > 0 && owner.name() == name).then_some(owner)
    }
}

fn is_gone(owner: Owner) -> bool {
    started(owner.pid) != Ok(owner.started)
}

/// A living zygote has a mark on its group. It may be in another pid namespace, or hidden, so that
/// its process can't be seen from here. Where there is none, this puts one there that nobody else's goes
/// with, so that a zygote which is about to mark its new group sees that it's being removed.
pub(super) fn mark(home: BorrowedFd<'_>, name: &CStr) -> sys::Result<Option<OwnedFd>> {
    let file = tree::path(&[name.to_bytes(), tree::MARKED])?;
    let file = directory::open_at(home, &file, libc::O_RDWR)?;
    Ok(directory::seize(file.as_fd())?.then_some(file))
}

/// When a process started.
fn started(pid: i32) -> sys::Result<u64> {
    let stat = std::fs::read(format!("/proc/{pid}/stat"))
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
    started_in(&stat).ok_or(Errno::from_raw(libc::EIO))
}

/// The 22nd field. The second, the program's name, may hold anything; it ends at the last
/// parenthesis.
fn started_in(stat: &[u8]) -> Option<u64> {
    let after = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let text = std::str::from_utf8(stat.get(after..)?).ok()?;
    text.split_ascii_whitespace().nth(19)?.parse().ok()
}

const PREFIX: &str = "neuroflow-";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_names_are_ours() {
        let owner = Owner { pid: 12, started: 345 };
        assert_eq!(owner.name(), "neuroflow-12-345");
        assert_eq!(Owner::parse(c"neuroflow-12-345"), Some(owner));
        for foreign in [
            c"neuroflow-12",
            c"neuroflow-012-345",
            c"neuroflow-12-0345",
            c"neuroflow-+12-345",
            c"neuroflow-12-345-6",
            c"neuroflow--12-345",
            c"neuroflow-0-345",
            c"neuroflow-host",
            c"neuroflow-12-345 ",
            c"xneuroflow-12-345",
            c"neuroflow-99999999999-1",
            c"user.slice",
            c"",
        ] {
            assert_eq!(Owner::parse(foreign), None, "{foreign:?}");
        }
    }

    #[test]
    fn start_times_are_found_behind_any_name() {
        let fields = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21";
        for name in ["sh", "a) S 9 (b", "new\nline", ""] {
            assert_eq!(started_in(format!("7 ({name}) {fields}").as_bytes()), Some(4711));
        }
        for damaged in
            ["", "7 (sh", "7 (sh) S 1 2", "7 (sh) S x x x x x x x x x x x x x x x x x x x"]
        {
            assert_eq!(started_in(damaged.as_bytes()), None);
        }
    }

    #[test]
    fn we_are_not_gone() {
        let pid = process::own_pid();
        let started = started(pid).unwrap();
        assert!(!is_gone(Owner { pid, started }));
        assert!(is_gone(Owner { pid, started: started + 1 }));
    }
}
