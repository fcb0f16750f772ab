//! Descriptors, pipes, small files.

#![expect(unsafe_code, reason = "system calls; see each block")]

use std::{
    ffi::CStr,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use super::{Result, check, last, tree};
use crate::errno::Errno;

/// A pipe, both ends close-on-exec: (to read, to write).
pub(crate) fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let mut ends = [-1; 2];
    // SAFETY: `ends` has room for the two descriptors that the kernel writes.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    Ok((own(ends[0]), own(ends[1])))
}

/// Makes reads and writes return instead of waiting, for everybody who shares this open file.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: F_SETFL takes an integer and touches no memory of ours.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) })?;
    Ok(())
}

pub(crate) fn read(fd: BorrowedFd<'_>, into: &mut [u8]) -> Result<usize> {
    // SAFETY: the pointer and the length are those of a buffer that is ours alone for the call.
    let count = unsafe { libc::read(fd.as_raw_fd(), into.as_mut_ptr().cast(), into.len()) };
    usize::try_from(count).map_err(|_negative| last())
}

/// How many bytes of a pipe can be read without waiting.
pub(crate) fn waiting_bytes(fd: BorrowedFd<'_>) -> Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: the kernel writes one integer, which is live and ours.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut count) })?;
    Ok(usize::try_from(count).unwrap_or_default())
}

/// Reads from the start, wherever the descriptor's position is.
pub(crate) fn read_at_start(fd: BorrowedFd<'_>, into: &mut [u8]) -> Result<usize> {
    // SAFETY: the pointer and the length are those of a buffer that is ours alone for the call.
    let count = unsafe { libc::pread(fd.as_raw_fd(), into.as_mut_ptr().cast(), into.len(), 0) };
    usize::try_from(count).map_err(|_negative| last())
}

pub(crate) fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize> {
    // SAFETY: the pointer and the length are those of a live buffer, which the kernel only reads.
    let count = unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
    usize::try_from(count).map_err(|_negative| last())
}

/// Writes `bytes` with one call, as files below `/proc` demand.
pub(crate) fn write_once(path: &CStr, bytes: &[u8]) -> Result<()> {
    let file = open(path, libc::O_WRONLY | libc::O_CLOEXEC)?;
    let written = write(borrow(&file), bytes)?;
    if written == bytes.len() { Ok(()) } else { Err(Errno::from_raw(libc::EIO)) }
}

/// Writes a value with one call and reads back what the file says then.
pub(crate) fn exchange(path: &CStr, bytes: &[u8], into: &mut [u8]) -> Result<usize> {
    let file = open(path, libc::O_RDWR | libc::O_CLOEXEC)?;
    let written = write(borrow(&file), bytes)?;
    if written == bytes.len() {
        read_at_start(borrow(&file), into)
    } else {
        Err(Errno::from_raw(libc::EIO))
    }
}

/// Makes a file that is not there yet and fills it.
pub(crate) fn create(path: &CStr, contents: &[u8]) -> Result<()> {
    let file = open(
        path,
        libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC | libc::O_NOFOLLOW,
    )?;
    let mut rest = contents;
    while !rest.is_empty() {
        let written = write(borrow(&file), rest)?;
        rest = rest.get(written..).unwrap_or_default();
    }
    Ok(())
}

pub(crate) fn open(path: &CStr, flags: i32) -> Result<OwnedFd> {
    let mode: libc::c_uint = 0o644;
    // SAFETY: `path` is NUL-terminated and lives through the call; the mode is the variadic
    // argument of O_CREAT.
    let fd = check(unsafe { libc::open(path.as_ptr(), flags, mode) })?;
    Ok(own(fd))
}

/// Makes a directory; one that exists is as good.
pub(crate) fn make_directory(path: &CStr) -> Result<()> {
    // SAFETY: `path` is NUL-terminated and lives through the call.
    match check(unsafe { libc::mkdir(path.as_ptr(), 0o755) }) {
        Err(errno) if errno.raw() != libc::EEXIST => Err(errno),
        _ => Ok(()),
    }
}

pub(crate) fn symlink(target: &CStr, path: &CStr) -> Result<()> {
    // SAFETY: both strings are NUL-terminated and live through the call.
    check(unsafe { libc::symlink(target.as_ptr(), path.as_ptr()) })?;
    Ok(())
}

pub(crate) fn enter(directory: &CStr) -> Result<()> {
    // SAFETY: `directory` is NUL-terminated and lives through the call.
    check(unsafe { libc::chdir(directory.as_ptr()) })?;
    Ok(())
}

/// The same, of one that is open.
pub(crate) fn enter_open(directory: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: takes a number and touches no memory.
    check(unsafe { libc::fchdir(directory.as_raw_fd()) })?;
    Ok(())
}

/// What a descriptor refers to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Status {
    pub(crate) is_directory: bool,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) place: tree::Place,
}

/// What a path refers to, and how it is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) is_read_only: bool,
}

pub(crate) fn status_at(path: &CStr) -> Result<Place> {
    let file = open(path, libc::O_PATH | libc::O_CLOEXEC)?;
    let mut stat = std::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the kernel fills the struct, whose size it knows from the architecture.
    check(unsafe { libc::fstat(file.as_raw_fd(), stat.as_mut_ptr()) })?;
    // SAFETY: every bit pattern of its integer fields is valid.
    let stat = unsafe { stat.assume_init() };
    let mut system = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: the C library fills the struct.
    check(unsafe { libc::fstatvfs(file.as_raw_fd(), system.as_mut_ptr()) })?;
    // SAFETY: every bit pattern of its integer fields is valid.
    let system = unsafe { system.assume_init() };
    Ok(Place {
        device: stat.st_dev,
        inode: stat.st_ino,
        is_read_only: system.f_flag & libc::ST_RDONLY != 0,
    })
}

/// The number of the character device at a path, if one is there.
pub(crate) fn character_device(path: &CStr) -> Result<Option<(u32, u32)>> {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the path is NUL-terminated; the kernel fills the struct, which is ours.
    check(unsafe { libc::stat(path.as_ptr(), stat.as_mut_ptr()) })?;
    // SAFETY: every bit pattern of its integer fields is valid.
    let stat = unsafe { stat.assume_init() };
    let is_device = stat.st_mode & libc::S_IFMT == libc::S_IFCHR;
    Ok(is_device.then(|| (libc::major(stat.st_rdev), libc::minor(stat.st_rdev))))
}

/// Whether a path leads to a symbolic link itself.
pub(crate) fn is_link(path: &CStr) -> Result<bool> {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the path is NUL-terminated; the kernel fills the struct, which is ours.
    check(unsafe { libc::lstat(path.as_ptr(), stat.as_mut_ptr()) })?;
    // SAFETY: every bit pattern of its integer fields is valid.
    let stat = unsafe { stat.assume_init() };
    Ok(stat.st_mode & libc::S_IFMT == libc::S_IFLNK)
}

/// Where a symbolic link leads, as far as there is room.
pub(crate) fn link_target<'a>(path: &CStr, room: &'a mut [u8]) -> Result<&'a [u8]> {
    // SAFETY: the path is NUL-terminated; pointer and length are those of a buffer that is ours alone
    // for the call.
    let count = unsafe { libc::readlink(path.as_ptr(), room.as_mut_ptr().cast(), room.len()) };
    let count = usize::try_from(count).map_err(|_negative| last())?;
    Ok(room.get(..count).unwrap_or_default())
}

/// A file system, and how it is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the kernel's")]
pub(crate) struct Mounted {
    pub(crate) kind: i64,
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
    pub(crate) is_read_only: bool,
    pub(crate) no_set_id: bool,
    pub(crate) no_device: bool,
    pub(crate) no_execute: bool,
}

pub(crate) fn mounted_at(path: &CStr) -> Result<Mounted> {
    let mut found = std::mem::MaybeUninit::<libc::statfs64>::zeroed();
    // SAFETY: the path is NUL-terminated; the kernel fills the struct, which is ours.
    check(unsafe { libc::statfs64(path.as_ptr(), found.as_mut_ptr()) })?;
    // SAFETY: every bit pattern of its integer fields is valid.
    Ok(unsafe { found.assume_init() }.into())
}

/// What a descriptor is on.
pub(crate) fn mounted(fd: BorrowedFd<'_>) -> Result<Mounted> {
    let mut found = std::mem::MaybeUninit::<libc::statfs64>::zeroed();
    // SAFETY: the kernel fills the struct, which is ours.
    check(unsafe { libc::fstatfs64(fd.as_raw_fd(), found.as_mut_ptr()) })?;
    // SAFETY: every bit pattern of its integer fields is valid.
    Ok(unsafe { found.assume_init() }.into())
}

impl From<libc::statfs64> for Mounted {
    fn from(found: libc::statfs64) -> Self {
        let has = |flag: u64| found.f_flags.cast_unsigned() & flag != 0;
        Self {
            kind: found.f_type,
            bytes: found.f_blocks.saturating_mul(found.f_bsize.cast_unsigned()),
            inodes: found.f_files,
            is_read_only: has(libc::ST_RDONLY),
            no_set_id: has(libc::ST_NOSUID),
            no_device: has(libc::ST_NODEV),
            no_execute: has(libc::ST_NOEXEC),
        }
    }
}

pub(crate) fn status(fd: BorrowedFd<'_>) -> Result<Status> {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the kernel fills the struct, whose size it knows from the architecture.
    check(unsafe { libc::fstat(fd.as_raw_fd(), stat.as_mut_ptr()) })?;
    // SAFETY: `fstat` succeeded, and every bit pattern of its integer fields is valid anyway.
    let stat = unsafe { stat.assume_init() };
    Ok(Status {
        is_directory: stat.st_mode & libc::S_IFMT == libc::S_IFDIR,
        uid: stat.st_uid,
        gid: stat.st_gid,
        place: tree::Place { device: stat.st_dev, inode: stat.st_ino },
    })
}

/// An empty memory file; the name is for people who look.
pub(crate) fn memory(name: &CStr) -> Result<OwnedFd> {
    // SAFETY: `name` is NUL-terminated and lives through the call.
    Ok(own(check(unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) })?))
}

/// A memory file whose bytes nobody, not even its writer, can change any more.
pub(crate) fn sealed(contents: &[u8]) -> Result<OwnedFd> {
    let file = sealable()?;
    let mut rest = contents;
    while !rest.is_empty() {
        let written = write(borrow(&file), rest)?;
        rest = rest.get(written..).unwrap_or_default();
    }
    seal(borrow(&file))?;
    Ok(file)
}

/// Another such file with the same bytes.
pub(crate) fn sealed_copy(of: BorrowedFd<'_>, length: usize) -> Result<OwnedFd> {
    let file = sealable()?;
    let mut from: libc::off_t = 0;
    let mut rest = length;
    while rest > 0 {
        // SAFETY: the offset is live and ours; the bytes stay in the kernel.
        let sent = unsafe { libc::sendfile(file.as_raw_fd(), of.as_raw_fd(), &raw mut from, rest) };
        match usize::try_from(sent).map_err(|_negative| last())? {
            0 => return Err(Errno::from_raw(libc::EIO)),
            sent => rest = rest.saturating_sub(sent),
        }
    }
    seal(borrow(&file))?;
    Ok(file)
}

fn sealable() -> Result<OwnedFd> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name is a NUL-terminated literal.
    Ok(own(check(unsafe { libc::memfd_create(c"plan".as_ptr(), flags) })?))
}

/// For good. The seals keep the bytes; that others may only read keeps its times and attributes, from all
/// but its owner.
fn seal(file: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: takes integers only.
    check(unsafe { libc::fchmod(file.as_raw_fd(), 0o444) })?;
    // SAFETY: F_ADD_SEALS takes an integer and touches no memory of ours.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, SEALS) })?;
    Ok(())
}

/// The same file opened once more, for reading from its start.
pub(crate) fn reopened(file: BorrowedFd<'_>) -> Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}\0", file.as_raw_fd());
    let path =
        CStr::from_bytes_with_nul(path.as_bytes()).map_err(|_nul| Errno::from_raw(libc::EINVAL))?;
    open(path, libc::O_RDONLY | libc::O_CLOEXEC)
}

/// As [`sealed`], to be read from its start.
pub(crate) fn sealed_text(contents: &[u8]) -> Result<OwnedFd> {
    let file = sealed(contents)?;
    // SAFETY: takes integers only.
    check(unsafe { libc::lseek(file.as_raw_fd(), 0, libc::SEEK_SET) })?;
    Ok(file)
}

/// Reads a sealed memory file from its start; one without its seals is refused (`EINVAL`).
pub(crate) fn read_sealed(file: BorrowedFd<'_>, into: &mut [u8]) -> Result<()> {
    // SAFETY: F_GET_SEALS takes no argument.
    let seals = check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) })?;
    if seals & SEALS != SEALS {
        return Err(Errno::from_raw(libc::EINVAL));
    }
    // SAFETY: the pointer and the length are those of a buffer that is ours alone for the call.
    let count = unsafe { libc::pread(file.as_raw_fd(), into.as_mut_ptr().cast(), into.len(), 0) };
    match usize::try_from(count) {
        Ok(count) if count == into.len() => Ok(()),
        Ok(_) => Err(Errno::from_raw(libc::EINVAL)),
        Err(_negative) => Err(last()),
    }
}

/// Puts `from` at the place of descriptor `to`, where it survives exec.
pub(crate) fn place(from: BorrowedFd<'_>, to: RawFd) -> Result<()> {
    // SAFETY: duplicating a descriptor touches no memory; the callers own the numbers, 0 to 4,
    // which are `to`.
    check(unsafe { libc::dup2(from.as_raw_fd(), to) })?;
    Ok(())
}

/// A copy of a descriptor, with a number that isn't below `least`.
pub(crate) fn copy_from(fd: BorrowedFd<'_>, least: RawFd) -> Result<OwnedFd> {
    // SAFETY: duplicating a descriptor touches no memory.
    Ok(own(check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least) })?))
}

/// Closes the descriptors `first..=last`.
pub(crate) fn close_range(first: u32, last: u32) -> Result<()> {
    // SAFETY: only the cell's first process and the new zygote call this, on numbers that no owner
    // in them has.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })?;
    Ok(())
}

/// Marks all descriptors from `first` on to be closed by exec.
pub(crate) fn close_on_exec(first: u32) -> Result<()> {
    // SAFETY: this sets a flag of descriptors and touches no memory.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) })?;
    Ok(())
}

/// Takes over a descriptor that the process was started with.
pub(crate) fn inherited(fd: RawFd) -> Result<OwnedFd> {
    // SAFETY: sets a flag of the descriptor, and touches no memory.
    check(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    Ok(own(fd))
}

/// Takes over a descriptor that the kernel just made for us.
pub(super) fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: every caller passes a number that a successful system call returned and that nobody
    // else knows.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

pub(crate) fn borrow(fd: &OwnedFd) -> BorrowedFd<'_> {
    std::os::fd::AsFd::as_fd(fd)
}

const SEALS: i32 = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
