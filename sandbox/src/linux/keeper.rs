//! The first process at level minimal: without own process ids the kernel doesn't end what a
//! program leaves behind, so the keeper does. Orphans become its children; it ends its children
//! until there are none.
//!
//! A program can end its keeper, having the same user id. Then the zygote, to which the orphans
//! pass, sweeps.

use std::{
    collections::BTreeSet,
    ffi::CStr,
    os::fd::{AsFd, BorrowedFd},
};

use super::{
    child::{LOST, send},
    sys::{Result, event, file, process},
};
use crate::zygote::protocol::Record;

/// Waits for the program's end, or for the signal that says "end everything", and sweeps.
pub(super) fn keep(program: i32, report: BorrowedFd<'_>) -> i32 {
    let mut code = 0;
    loop {
        match process::reap(false) {
            Ok(Some(ended)) if ended.pid == program => {
                sweep_all();
                return send(report, Record::Ended { status: ended.status, usage: ended.usage })
                    .max(code);
            }
            Ok(Some(_)) => continue,
            Ok(None) => {}
            Err(_no_children) => return LOST,
        }
        match event::next_signal() {
            Ok(libc::SIGTERM) => {
                sweep_all();
                return code;
            }
            Ok(_) => {}
            Err(errno) if errno.raw() == libc::EINTR => {}
            Err(_unexpected) => code = LOST,
        }
    }
}

/// Ends children, and the orphans that become children thereby, until none is left.
fn sweep_all() {
    loop {
        match process::reap(false) {
            Ok(Some(_)) => continue,
            Ok(None) => {}
            Err(_no_children) => return,
        }
        if sweep(|_| false).is_err() {
            return;
        }
        // Every child has been told to end, so this comes back.
        if process::reap(true).is_err() {
            return;
        }
    }
}

/// Sends SIGKILL to each child of the calling process that isn't `spared`.
pub(crate) fn sweep(spared: impl Fn(i32) -> bool) -> Result<usize> {
    let own = process::own_pid();
    let mut ended = 0;
    for_each_process(|pid, name| {
        if parent(name) == Some(own) && !spared(pid) {
            // It may have ended meanwhile.
            ended += usize::from(process::kill(pid, libc::SIGKILL).is_ok());
        }
    })?;
    Ok(ended)
}

/// Sends SIGKILL to all that a process has started, and to what those have, and not to itself.
pub(crate) fn end_below(first: i32) -> Result<()> {
    let mut families = Vec::new();
    for_each_process(|pid, name| families.extend(parent(name).map(|parent| (pid, parent))))?;
    let below = below(first, &families);
    for pid in below.iter().copied().filter(|pid| *pid != first) {
        let Ok(process) = event::pidfd(pid) else { continue };
        // Whose parent is still one of them is the process that the descriptor was opened for, and not a
        // stranger who got the number of one that has ended.
        if parent(pid.to_string().as_bytes()).is_some_and(|parent| below.contains(&parent)) {
            event::signal(process.as_fd(), libc::SIGKILL).ok();
        }
    }
    Ok(())
}

/// A process and all that come from it, among processes and their parents.
fn below(first: i32, families: &[(i32, i32)]) -> BTreeSet<i32> {
    let mut below = BTreeSet::from([first]);
    loop {
        let known = below.len();
        for (pid, parent) in families {
            if below.contains(parent) {
                below.insert(*pid);
            }
        }
        // A child may be listed before its parent, because numbers come round.
        if below.len() == known {
            return below;
        }
    }
}

/// Every process that `/proc` lists, with the name of its directory. Allocates nothing.
fn for_each_process(mut each: impl FnMut(i32, &[u8])) -> Result<()> {
    let proc = file::open(c"/proc", libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC)?;
    let mut names = Names { bytes: [0; 4096] };
    loop {
        let length = process::directory_entries(proc.as_fd(), &mut names.bytes)?;
        if length == 0 {
            return Ok(());
        }
        let mut rest = names.bytes.get(..length).unwrap_or_default();
        while let Some((name, tail)) = split_entry(rest) {
            rest = tail;
            if let Some(pid) = number(name) {
                each(pid, name);
            }
        }
    }
}

/// The kernel aligns its records to 8.
#[repr(align(8))]
struct Names {
    bytes: [u8; 4096],
}

/// The name in the first record of a directory, and the records after it.
pub(super) fn split_entry(records: &[u8]) -> Option<(&[u8], &[u8])> {
    const LENGTH_AT: usize = 16;
    const NAME_AT: usize = 19;
    let length = records.get(LENGTH_AT..)?.first_chunk::<2>()?;
    let (record, rest) = records.split_at_checked(u16::from_ne_bytes(*length).into())?;
    let name = CStr::from_bytes_until_nul(record.get(NAME_AT..)?).ok()?;
    Some((name.to_bytes(), rest))
}

/// The parent of a process, by the name of its directory in `/proc`.
fn parent(name: &[u8]) -> Option<i32> {
    let mut path = [0; 32];
    let mut room = path.iter_mut();
    for part in [b"/proc/".as_slice(), name, b"/stat\0"] {
        for byte in part {
            *room.next()? = *byte;
        }
    }
    let file =
        file::open(CStr::from_bytes_until_nul(&path).ok()?, libc::O_RDONLY | libc::O_CLOEXEC)
            .ok()?;
    let mut contents = [0; 512];
    let length = file::read(file.as_fd(), &mut contents).ok()?;
    parent_in(contents.get(..length)?)
}

/// The fourth field. The second, the program's name, may hold anything; it ends at the last
/// parenthesis.
fn parent_in(stat: &[u8]) -> Option<i32> {
    let after = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let mut fields =
        stat.get(after..)?.split(|byte| *byte == b' ').filter(|field| !field.is_empty());
    number(fields.nth(1)?)
}

fn number(digits: &[u8]) -> Option<i32> {
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|number| *number > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_hide_nothing() {
        assert_eq!(parent_in(b"12 (sh) S 7 12 12 0"), Some(7));
        assert_eq!(parent_in(b"12 (a) S 1 (b) R 9 1"), Some(9));
        for damaged in [&b""[..], b"12 (sh", b"12 (sh) S", b"12 (sh) S x", b")"] {
            assert_eq!(parent_in(damaged), None);
        }
    }

    #[test]
    fn a_family_is_found_in_any_order() {
        let families = [(3, 9), (9, 8), (8, 5), (5, 1), (6, 1), (7, 6), (5, 5)];
        assert_eq!(below(8, &families), BTreeSet::from([3, 8, 9]));
        assert_eq!(below(7, &families), BTreeSet::from([7]));
    }

    #[test]
    fn directory_records_are_bounded() {
        let mut record = [0_u8; 24];
        record[16..18].copy_from_slice(&24_u16.to_ne_bytes());
        record[19..22].copy_from_slice(b"123");
        assert_eq!(split_entry(&record), Some((&b"123"[..], &b""[..])));
        assert_eq!(number(b"123"), Some(123));
        assert_eq!(number(b"self"), None);
        for length in 0..24 {
            assert_eq!(split_entry(&record[..length]), None);
        }
        record[16..18].copy_from_slice(&0_u16.to_ne_bytes());
        assert_eq!(split_entry(&record), None);
    }

    #[test]
    fn our_own_parent_is_found() {
        let own = process::own_pid().to_string();
        assert_eq!(parent(own.as_bytes()), Some(std::os::unix::process::parent_id().cast_signed()));
    }
}
