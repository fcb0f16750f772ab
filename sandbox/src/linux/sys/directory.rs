//! Files and directories below a descriptor.

#![expect(unsafe_code, reason = "system calls; see each block")]

use std::{
    ffi::CStr,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use super::{
    Result, check,
    file::{self, own},
    last,
};
use crate::errno::Errno;

/// Opens `path` below `directory`. Never creates.
pub(crate) fn open_at(directory: BorrowedFd<'_>, path: &CStr, flags: i32) -> Result<OwnedFd> {
    let flags = flags | libc::O_CLOEXEC;
    // SAFETY: `path` is NUL-terminated and lives through the call; without O_CREAT there is no
    // further argument.
    let fd = check(unsafe { libc::openat(directory.as_raw_fd(), path.as_ptr(), flags) })?;
    Ok(own(fd))
}

/// Opens `path` below `directory`, through no link (`ELOOP`). Never creates.
pub(crate) fn open_straight(directory: BorrowedFd<'_>, path: &CStr, flags: i32) -> Result<OwnedFd> {
    open_straight_from(directory.as_raw_fd(), path, flags)
}

/// The same of a path from the root.
pub(crate) fn open_straight_path(path: &CStr, flags: i32) -> Result<OwnedFd> {
    open_straight_from(libc::AT_FDCWD, path, flags)
}

fn open_straight_from(directory: RawFd, path: &CStr, flags: i32) -> Result<OwnedFd> {
    // SAFETY: the struct is made of integers, for which zero is valid.
    let mut how: libc::open_how = unsafe { MaybeUninit::zeroed().assume_init() };
    how.flags = u64::from((flags | libc::O_CLOEXEC).cast_unsigned());
    how.resolve = libc::RESOLVE_NO_SYMLINKS;
    // SAFETY: `path` is NUL-terminated, and the size announced is that of the struct pointed to.
    let opened = unsafe {
        libc::syscall(
            libc::SYS_openat2,
            directory,
            path.as_ptr(),
            &raw const how,
            size_of::<libc::open_how>(),
        )
    };
    Ok(own(RawFd::try_from(check(opened)?).unwrap_or(-1)))
}

/// Where the link `name` leads to, as it is written.
pub(crate) fn link_at<'a>(
    directory: BorrowedFd<'_>,
    name: &CStr,
    room: &'a mut [u8],
) -> Result<&'a CStr> {
    // SAFETY: `name` is NUL-terminated; pointer and length are those of a buffer that is ours alone for
    // the call.
    let count = unsafe {
        libc::readlinkat(directory.as_raw_fd(), name.as_ptr(), room.as_mut_ptr().cast(), room.len())
    };
    let count = usize::try_from(count).map_err(|_negative| last())?;
    let too_long = Errno::from_raw(libc::ENAMETOOLONG);
    *room.get_mut(count).ok_or(too_long)? = 0;
    CStr::from_bytes_until_nul(room).map_err(|_no_end| too_long)
}

/// Makes an empty file; one that exists is an error (`EEXIST`).
pub(crate) fn create_at(directory: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC;
    let mode: libc::c_uint = 0o644;
    // SAFETY: `name` is NUL-terminated and lives through the call; the mode is the variadic argument of
    // O_CREAT.
    let file = unsafe { libc::openat(directory.as_raw_fd(), name.as_ptr(), flags, mode) };
    drop(own(check(file)?));
    Ok(())
}

/// Makes a directory; one that exists is an error (`EEXIST`).
pub(crate) fn make_at(directory: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    // SAFETY: `name` is NUL-terminated and lives through the call.
    check(unsafe { libc::mkdirat(directory.as_raw_fd(), name.as_ptr(), 0o755) })?;
    Ok(())
}

/// Removes a directory.
pub(crate) fn remove_at(directory: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    // SAFETY: `name` is NUL-terminated and lives through the call.
    check(unsafe { libc::unlinkat(directory.as_raw_fd(), name.as_ptr(), libc::AT_REMOVEDIR) })?;
    Ok(())
}

/// Whether the effective ids may do this (`libc::W_OK` and the like).
pub(crate) fn may_at(directory: BorrowedFd<'_>, path: &CStr, access: i32) -> Result<()> {
    // SAFETY: `path` is NUL-terminated and lives through the call.
    check(unsafe {
        libc::faccessat(directory.as_raw_fd(), path.as_ptr(), access, libc::AT_EACCESS)
    })?;
    Ok(())
}

/// The number that the kernel gave to what a path leads to.
pub(crate) fn inode_at(directory: BorrowedFd<'_>, path: &CStr) -> Result<u64> {
    let mut stat = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the path is NUL-terminated; the kernel fills the struct, which is ours.
    check(unsafe { libc::fstatat(directory.as_raw_fd(), path.as_ptr(), stat.as_mut_ptr(), 0) })?;
    // SAFETY: every bit pattern of its integer fields is valid.
    Ok(unsafe { stat.assume_init() }.st_ino)
}

/// Writes a file below a directory with one call, as control files demand.
pub(crate) fn write_at(directory: BorrowedFd<'_>, path: &CStr, bytes: &[u8]) -> Result<()> {
    let file = open_at(directory, path, libc::O_WRONLY)?;
    let written = file::write(file.as_fd(), bytes)?;
    if written == bytes.len() { Ok(()) } else { Err(Errno::from_raw(libc::EIO)) }
}

/// Reads a small file below a directory: as much as one call gives.
pub(crate) fn read_at(directory: BorrowedFd<'_>, path: &CStr, into: &mut [u8]) -> Result<usize> {
    let file = open_at(directory, path, libc::O_RDONLY)?;
    file::read(file.as_fd(), into)
}

/// Writes a value and reads it back through the same descriptor: what the kernel took, which may
/// be rounded.
pub(crate) fn exchange_at(
    directory: BorrowedFd<'_>,
    path: &CStr,
    bytes: &[u8],
    into: &mut [u8],
) -> Result<usize> {
    let file = open_at(directory, path, libc::O_RDWR)?;
    let written = file::write(file.as_fd(), bytes)?;
    if written != bytes.len() {
        return Err(Errno::from_raw(libc::EIO));
    }
    // SAFETY: the pointer and the length are those of a buffer that is ours alone for the call.
    let count = unsafe { libc::pread(file.as_raw_fd(), into.as_mut_ptr().cast(), into.len(), 0) };
    usize::try_from(count).map_err(|_negative| last())
}

/// Which kind of file system a descriptor is on.
pub(crate) fn file_system(fd: BorrowedFd<'_>) -> Result<i64> {
    let mut found = MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the kernel fills the struct, whose size it knows from the architecture.
    check(unsafe { libc::fstatfs(fd.as_raw_fd(), found.as_mut_ptr()) })?;
    // SAFETY: `fstatfs` succeeded, and every bit pattern of its integer fields is valid anyway.
    let found = unsafe { found.assume_init() };
    // The field's type differs between C libraries.
    #[allow(clippy::unnecessary_cast, reason = "the field isn't `i64` everywhere")]
    Ok(found.f_type as i64)
}

/// The first bytes of an extended attribute, as many as fit.
pub(crate) fn attribute(fd: BorrowedFd<'_>, name: &CStr, into: &mut [u8]) -> Result<usize> {
    // SAFETY: `name` is NUL-terminated; the pointer and the length are those of a buffer that is
    // ours alone for the call.
    let count = unsafe {
        libc::fgetxattr(fd.as_raw_fd(), name.as_ptr(), into.as_mut_ptr().cast(), into.len())
    };
    usize::try_from(count).map_err(|_negative| last())
}

/// Marks a file as in use by this process, until it ends or closes any descriptor of the file. Not
/// inherited by children.
pub(crate) fn hold(fd: BorrowedFd<'_>) -> Result<()> {
    let request = whole_file(libc::F_RDLCK);
    // SAFETY: the kernel only reads the request.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETLK, &raw const request) })?;
    Ok(())
}

/// Marks a file that is open for writing as in nobody else's use, as long as this descriptor is open;
/// others of the same file make no difference. False if another process [holds](hold) it.
pub(crate) fn seize(fd: BorrowedFd<'_>) -> Result<bool> {
    let request = whole_file(libc::F_WRLCK);
    // SAFETY: the kernel only reads the request, whose process id is zero, as it has to be.
    match check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &raw const request) }) {
        Ok(_) => Ok(true),
        Err(errno) if [libc::EAGAIN, libc::EACCES].contains(&errno.raw()) => Ok(false),
        Err(errno) => Err(errno),
    }
}

fn whole_file(kind: i32) -> libc::flock {
    // SAFETY: all fields are integers, for which zero is valid; zero is the start of the file, and
    // as a length its end.
    let mut request: libc::flock = unsafe { MaybeUninit::zeroed().assume_init() };
    request.l_type = i16::try_from(kind).unwrap_or_default();
    request
}

/// Bytes of a page of memory.
pub(crate) fn page_size() -> u64 {
    // SAFETY: asking for a constant of the system touches no memory.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).unwrap_or(4096)
}
