//! Which id outside a cell's id stands for.

use std::{ffi::CStr, os::fd::AsFd};

use super::sys::{Result, credentials, file};
use crate::limits;

/// How cells of this zygote get their ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    /// A privileged zygote: each cell gets an unprivileged id of its own from this range.
    Range { first: u32, count: u32 },
    /// An unprivileged zygote: the kernel lets it map its own id and no other.
    Own { user: u32, group: u32 },
}

impl Identity {
    /// What cells of a zygote of this process get.
    pub(crate) fn of_caller() -> Result<Self> {
        let (user, group) = credentials::effective_ids();
        let (users, groups) = (read_map(c"/proc/self/uid_map")?, read_map(c"/proc/self/gid_map")?);
        Ok(Self::choose(user, group, &users, &groups))
    }

    /// Decides by the caller's id and by the ids that exist in its own user namespace
    /// (`/proc/self/uid_map`).
    fn choose(user: u32, group: u32, uid_map: &[u8], gid_map: &[u8]) -> Self {
        if user != 0 {
            return Self::Own { user, group };
        }
        match range(uid_map).filter(|chosen| range(gid_map) == Some(*chosen)) {
            Some((first, count)) => Self::Range { first, count },
            None => Self::Own { user, group },
        }
    }

    /// Whether there are more ids than cells can be.
    pub(crate) fn gives_each_its_own(self) -> bool {
        let most = u32::try_from(limits::MAX_CELLS).unwrap_or(u32::MAX);
        matches!(self, Self::Range { count, .. } if count > most)
    }

    /// The id of the `number`th cell outside of it, as the zygote's user namespace has it.
    pub(crate) fn host_id(self, number: u64) -> u32 {
        match self {
            Self::Range { first, count } => {
                let offset = u32::try_from(number % u64::from(count.max(1))).unwrap_or_default();
                // The range was made to end before the largest id.
                first.saturating_add(offset)
            }
            Self::Own { user, .. } => user,
        }
    }
}

/// Whether `user`, an id in the caller's user namespace, is the host's root, however many namespaces are
/// between. The host's settings belong to that root, and the kernel shows whom they belong to as the caller
/// sees him: what `/proc/self/uid_map` says of an id goes only as far as the next namespace.
pub(crate) fn is_root_outside(user: u32) -> Result<bool> {
    let settings = file::open(SETTINGS, libc::O_PATH | libc::O_CLOEXEC)?;
    Ok(file::status(settings.as_fd())?.uid == user)
}

const SETTINGS: &CStr = c"/proc/sys/kernel";

/// A map has 340 lines at most; of those past the first page no range is taken.
fn read_map(path: &CStr) -> Result<Vec<u8>> {
    let file = file::open(path, libc::O_RDONLY | libc::O_CLOEXEC)?;
    let mut bytes = vec![0; 4096];
    let length = file::read(file.as_fd(), &mut bytes)?;
    bytes.truncate(length);
    Ok(bytes)
}

/// The range to take cells' ids from. In a container with few ids it is the upper half of the last
/// extent, away from the accounts at its start and from `nobody` at its end.
fn range(map: &[u8]) -> Option<(u32, u32)> {
    let extents = || map.split(|byte| *byte == b'\n').filter_map(extent);
    let preferred = (limits::FIRST_CELL_ID, limits::CELL_IDS);
    let holds = |(first, count): (u32, u32)| {
        first <= preferred.0
            && preferred.0 - first < count
            && count - (preferred.0 - first) >= preferred.1
    };
    if extents().any(holds) {
        return Some(preferred);
    }
    let (first, count) = extents().max_by_key(|(first, _)| *first)?;
    let half = count / 2;
    let last_kept = 2;
    let size = half.checked_sub(last_kept)?.min(limits::CELL_IDS);
    (size > 0).then_some((first.checked_add(half)?, size))
}

/// Start and length of one line of a map, seen from inside.
fn extent(line: &[u8]) -> Option<(u32, u32)> {
    let mut fields = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let first = fields.next()?.parse().ok()?;
    let count = fields.nth(1)?.parse().ok()?;
    Some((first, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &[u8] = b"         0          0 4294967295\n";

    #[test]
    fn root_of_the_host_takes_the_high_range() {
        let expected = Identity::Range { first: limits::FIRST_CELL_ID, count: limits::CELL_IDS };
        assert_eq!(Identity::choose(0, 0, ALL, ALL), expected);
        assert_eq!(expected.host_id(0), limits::FIRST_CELL_ID);
        assert_eq!(expected.host_id(u64::from(limits::CELL_IDS)), limits::FIRST_CELL_ID);
    }

    #[test]
    fn the_settings_of_the_host_tell_who_is_its_root() {
        let user = super::super::sys::credentials::effective_ids().0;
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
        if map.split_ascii_whitespace().eq(["0", "0", "4294967295"]) {
            assert_eq!(is_root_outside(user), Ok(user == 0));
            assert_eq!(is_root_outside(limits::FIRST_CELL_ID), Ok(false));
        }
    }

    #[test]
    fn root_of_a_container_takes_the_upper_half() {
        let map = b"0 100000 65536\n";
        assert_eq!(
            Identity::choose(0, 0, map, map),
            Identity::Range { first: 32768, count: 32766 }
        );
        let rootless = b"0 1000 1\n1 100000 65536\n";
        assert_eq!(
            Identity::choose(0, 0, rootless, rootless),
            Identity::Range { first: 32769, count: 32766 }
        );
    }

    #[test]
    fn others_and_lonely_roots_are_themselves() {
        assert_eq!(Identity::choose(1000, 100, ALL, ALL), Identity::Own { user: 1000, group: 100 });
        for map in [&b"0 1000 1\n"[..], b"", b"garbage", b"0 0", b"\xFF 0 9"] {
            assert_eq!(Identity::choose(0, 0, map, map), Identity::Own { user: 0, group: 0 });
        }
        assert_eq!(Identity::choose(0, 0, ALL, b"0 1000 1\n"), Identity::Own { user: 0, group: 0 });
    }
}
