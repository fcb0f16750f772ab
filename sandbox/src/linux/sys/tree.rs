//! Trees that somebody hostile has made, walked by descriptors only: every name is looked up in a
//! directory that is open already, and no link is followed. For the host, so it may allocate.

#![expect(unsafe_code, reason = "system calls; see each block")]

use std::{
    ffi::{CStr, CString, OsStr, OsString},
    os::{
        fd::{AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
};

use super::{Result, check, file::own, last};
use crate::errno::Errno;

/// What a name refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    /// A character device with the number 0/0, which overlays mark a deletion with.
    Whiteout,
    Device,
    Fifo,
    Socket,
}

/// What there is to know about a name without opening it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) kind: Kind,
    /// Permission bits alone: no set-user-id, no set-group-id, not sticky.
    pub(crate) mode: u32,
    pub(crate) bytes: u64,
    pub(crate) owner: Owner,
    pub(crate) stamp: Stamp,
}

/// Whom something belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) user: u32,
    pub(crate) group: u32,
}

/// By what is seen that something is still the same. Times are nanoseconds of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) place: Place,
    bytes: i64,
    pub(crate) modified: i128,
    /// Which no program can set.
    pub(crate) changed: i128,
}

/// The very file or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

/// Opens `name` below `directory`: through no link of any kind, into no other mount. `name` may have
/// several parts.
pub(crate) fn open_beneath(
    directory: BorrowedFd<'_>,
    name: &OsStr,
    flags: i32,
    mode: u32,
) -> Result<OwnedFd> {
    let name = c_string(name)?;
    let flags = flags | libc::O_CLOEXEC | libc::O_NOFOLLOW;
    // SAFETY: the struct is made of integers, for which zero is valid.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = u64::from(flags.cast_unsigned());
    how.mode = u64::from(mode);
    how.resolve = libc::RESOLVE_BENEATH
        | libc::RESOLVE_NO_SYMLINKS
        | libc::RESOLVE_NO_MAGICLINKS
        | libc::RESOLVE_NO_XDEV;
    loop {
        // SAFETY: the string is NUL-terminated, and the size announced is that of the struct.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_openat2,
                directory.as_raw_fd(),
                name.as_ptr(),
                std::ptr::from_ref(&how),
                size_of::<libc::open_how>(),
            )
        };
        match check(fd) {
            // Somebody renames directories meanwhile, and the kernel can't be sure.
            Err(errno) if errno.raw() == libc::EAGAIN => {}
            Err(errno) => return Err(errno),
            Ok(fd) => return Ok(own(i32::try_from(fd).unwrap_or(-1))),
        }
    }
}

/// What `name`, of one part, is in `directory`; `None` if there is nothing.
pub(crate) fn find(directory: BorrowedFd<'_>, name: &OsStr) -> Result<Option<Found>> {
    let name = c_string(name)?;
    match stat(directory, &name, libc::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(found(&stat))),
        Err(errno) if errno.raw() == libc::ENOENT => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// What an open descriptor is.
pub(crate) fn look(fd: BorrowedFd<'_>) -> Result<Found> {
    Ok(found(&stat(fd, c"", libc::AT_EMPTY_PATH)?))
}

/// The names in a directory, without `.` and `..`; `None` if they are more than `most`.
pub(crate) fn names(directory: BorrowedFd<'_>, most: usize) -> Result<Option<Vec<OsString>>> {
    // Another open file of the directory, so that the position is ours.
    let again = open_beneath(directory, OsStr::new("."), libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
    let mut names = Vec::new();
    let mut buffer = vec![0_u8; 32 << 10];
    loop {
        // SAFETY: the pointer and the length are those of a buffer that is ours alone for the call.
        let count = unsafe {
            libc::syscall(
                libc::SYS_getdents64,
                again.as_raw_fd(),
                buffer.as_mut_ptr(),
                buffer.len(),
            )
        };
        let Ok(count) = usize::try_from(count) else { return Err(last()) };
        let mut rest = buffer.get(..count).unwrap_or_default();
        if rest.is_empty() {
            return Ok(Some(names));
        }
        while let Some((entry, behind)) = first_entry(rest) {
            rest = behind;
            if !matches!(entry, b"." | b"..") {
                if names.len() == most {
                    return Ok(None);
                }
                names.push(OsString::from_vec(entry.to_vec()));
            }
        }
    }
}

/// The name of the first directory entry in `bytes`, and what is behind it. An entry is inode and
/// offset of 8 bytes each, its own length of 2, a type, and the name with its end.
fn first_entry(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u16::from_ne_bytes(bytes.get(16..18)?.try_into().ok()?);
    let (entry, behind) = bytes.split_at_checked(usize::from(length))?;
    let name = CStr::from_bytes_until_nul(entry.get(19..)?).ok()?;
    Some((name.to_bytes(), behind))
}

/// Where the link `name` leads to, as it is written.
pub(crate) fn read_link(directory: BorrowedFd<'_>, name: &OsStr) -> Result<OsString> {
    let name = c_string(name)?;
    let mut buffer = vec![0_u8; libc::PATH_MAX as usize];
    // SAFETY: the string is NUL-terminated; pointer and length are those of a buffer of ours.
    let count = unsafe {
        libc::readlinkat(
            directory.as_raw_fd(),
            name.as_ptr(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
        )
    };
    let Ok(count) = usize::try_from(count) else { return Err(last()) };
    buffer.truncate(count);
    Ok(OsString::from_vec(buffer))
}

/// Whether an open file or directory has the attribute; with this value, if one is named.
pub(crate) fn has_attribute(
    fd: BorrowedFd<'_>,
    name: &CStr,
    expected: Option<&[u8]>,
) -> Result<bool> {
    let mut value = [0_u8; 8];
    // SAFETY: the name is NUL-terminated; pointer and length are those of a buffer of ours.
    let count = unsafe {
        libc::fgetxattr(fd.as_raw_fd(), name.as_ptr(), value.as_mut_ptr().cast(), value.len())
    };
    match usize::try_from(count) {
        Ok(count) => Ok(expected.is_none_or(|expected| value.get(..count) == Some(expected))),
        Err(_negative) => match last() {
            errno if errno.raw() == libc::ERANGE => Ok(expected.is_none()),
            errno if [libc::ENODATA, libc::EOPNOTSUPP].contains(&errno.raw()) => Ok(false),
            errno => Err(errno),
        },
    }
}

pub(crate) fn make_directory(directory: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    let name = c_string(name)?;
    // SAFETY: the string is NUL-terminated and lives through the call.
    check(unsafe { libc::mkdirat(directory.as_raw_fd(), name.as_ptr(), 0o700) })?;
    Ok(())
}

pub(crate) fn make_link(target: &OsStr, directory: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    let (target, name) = (c_string(target)?, c_string(name)?);
    // SAFETY: both strings are NUL-terminated and live through the call.
    check(unsafe { libc::symlinkat(target.as_ptr(), directory.as_raw_fd(), name.as_ptr()) })?;
    Ok(())
}

/// Gives a file or link another name in the same directory, in place of what has that name.
pub(crate) fn rename(directory: BorrowedFd<'_>, from: &OsStr, to: &OsStr) -> Result<()> {
    let (from, to) = (c_string(from)?, c_string(to)?);
    let fd = directory.as_raw_fd();
    // SAFETY: both strings are NUL-terminated and live through the call.
    check(unsafe { libc::renameat(fd, from.as_ptr(), fd, to.as_ptr()) })?;
    Ok(())
}

/// Removes a file, a link or an empty directory.
pub(crate) fn remove(directory: BorrowedFd<'_>, name: &OsStr, is_directory: bool) -> Result<()> {
    let name = c_string(name)?;
    let flags = if is_directory { libc::AT_REMOVEDIR } else { 0 };
    // SAFETY: the string is NUL-terminated and lives through the call.
    check(unsafe { libc::unlinkat(directory.as_raw_fd(), name.as_ptr(), flags) })?;
    Ok(())
}

/// Sets the permission bits of an open file or directory.
pub(crate) fn set_mode(fd: BorrowedFd<'_>, mode: u32) -> Result<()> {
    // SAFETY: takes integers only.
    check(unsafe { libc::fchmod(fd.as_raw_fd(), mode & PERMISSIONS) })?;
    Ok(())
}

/// Sets the permission bits of what a descriptor refers to that may not even be read.
pub(crate) fn set_mode_of_place(fd: BorrowedFd<'_>, mode: u32) -> Result<()> {
    // Leads to the very file of the descriptor, whatever its name leads to by now.
    let path = c_string(OsStr::new(&format!("/proc/self/fd/{}", fd.as_raw_fd())))?;
    // SAFETY: the string is NUL-terminated and lives through the call.
    check(unsafe { libc::chmod(path.as_ptr(), mode & PERMISSIONS) })?;
    Ok(())
}

/// Gives what a descriptor refers to, a link itself, to somebody.
pub(crate) fn set_owner(fd: BorrowedFd<'_>, owner: Owner) -> Result<()> {
    let (fd, itself, flags) = (fd.as_raw_fd(), c"", libc::AT_EMPTY_PATH);
    // SAFETY: the string is NUL-terminated and lives through the call.
    check(unsafe { libc::fchownat(fd, itself.as_ptr(), owner.user, owner.group, flags) })?;
    Ok(())
}

fn stat(directory: BorrowedFd<'_>, name: &CStr, flags: i32) -> Result<libc::stat> {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the string is NUL-terminated, and the kernel fills the struct, whose size it knows.
    check(unsafe {
        libc::fstatat(directory.as_raw_fd(), name.as_ptr(), stat.as_mut_ptr(), flags)
    })?;
    // SAFETY: the call succeeded, and every bit pattern of the integer fields is valid anyway.
    Ok(unsafe { stat.assume_init() })
}

fn found(stat: &libc::stat) -> Found {
    let kind = match stat.st_mode & libc::S_IFMT {
        libc::S_IFREG => Kind::File,
        libc::S_IFDIR => Kind::Directory,
        libc::S_IFLNK => Kind::Symlink,
        libc::S_IFCHR if stat.st_rdev == 0 => Kind::Whiteout,
        libc::S_IFIFO => Kind::Fifo,
        libc::S_IFSOCK => Kind::Socket,
        _ => Kind::Device,
    };
    Found {
        kind,
        mode: stat.st_mode & PERMISSIONS,
        bytes: u64::try_from(stat.st_size).unwrap_or_default(),
        owner: Owner { user: stat.st_uid, group: stat.st_gid },
        stamp: Stamp {
            place: Place { device: stat.st_dev, inode: stat.st_ino },
            bytes: stat.st_size,
            modified: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
            changed: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
        },
    }
}

fn nanoseconds(seconds: i64, rest: i64) -> i128 {
    i128::from(seconds) * 1_000_000_000 + i128::from(rest)
}

fn c_string(name: &OsStr) -> Result<CString> {
    CString::new(name.as_bytes()).map_err(|_has_a_nul| Errno::from_raw(libc::EINVAL))
}

const PERMISSIONS: u32 = 0o777;
