//! The mount table of the calling process.

#![expect(unsafe_code, reason = "system calls; see each block")]

use std::{
    ffi::CStr,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
    ptr,
};

use super::{Result, check, directory, file::own};
use crate::errno::Errno;

/// What a mount forbids.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Forbid {
    pub(crate) write: bool,
    pub(crate) device: bool,
    pub(crate) execute: bool,
}

/// A detached copy of what is mounted at `path`, with everything below it.
pub(crate) fn copy(path: &CStr) -> Result<OwnedFd> {
    copy_at(libc::AT_FDCWD, path, 0)
}

/// The same, of a path without a link on its way. Whoever can swap a part of the path for a link
/// while a cell is built would have another directory shown; so that is an error (`ELOOP`).
pub(crate) fn copy_straight(path: &CStr) -> Result<OwnedFd> {
    let place = directory::open_straight_path(path, libc::O_PATH)?;
    copy_at(place.as_raw_fd(), c"", libc::AT_EMPTY_PATH.cast_unsigned())
}

fn copy_at(directory: RawFd, path: &CStr, flags: u32) -> Result<OwnedFd> {
    let flags = flags | OPEN_TREE_CLONE | AT_RECURSIVE | libc::O_CLOEXEC.cast_unsigned();
    // SAFETY: `path` is NUL-terminated and lives through the call.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, directory, path.as_ptr(), flags) };
    Ok(own(number(check(fd)?)))
}

/// Restricts a detached mount and everything below it. Set-user-id bits never work, and what the host
/// mounts below it later stays the host's.
pub(crate) fn restrict(mount: BorrowedFd<'_>, forbid: Forbid) -> Result<()> {
    let attributes = libc::mount_attr {
        attr_set: attributes(forbid),
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    set_attributes(
        mount.as_raw_fd(),
        c"",
        libc::AT_EMPTY_PATH.cast_unsigned() | AT_RECURSIVE,
        &attributes,
    )
}

/// Makes a detached mount show the ids of `users`, a user namespace.
pub(crate) fn map_owners(mount: BorrowedFd<'_>, users: BorrowedFd<'_>) -> Result<()> {
    let attributes = libc::mount_attr {
        attr_set: MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::try_from(users.as_raw_fd()).unwrap_or_default(),
    };
    set_attributes(
        mount.as_raw_fd(),
        c"",
        libc::AT_EMPTY_PATH.cast_unsigned() | AT_RECURSIVE,
        &attributes,
    )
}

/// Makes what is mounted at `path` read-only, but nothing that is mounted below it.
pub(crate) fn seal(path: &CStr) -> Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    set_attributes(libc::AT_FDCWD, path, 0, &attributes)
}

/// Puts a detached mount to a path. Links on its way are followed, so they have to be ours.
pub(crate) fn attach(mount: BorrowedFd<'_>, target: &CStr) -> Result<()> {
    move_mount(mount, libc::AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH)
}

/// Puts a detached mount onto what is open, whatever leads there.
pub(crate) fn attach_to(mount: BorrowedFd<'_>, place: BorrowedFd<'_>) -> Result<()> {
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, place.as_raw_fd(), c"", flags)
}

fn move_mount(mount: BorrowedFd<'_>, at: RawFd, target: &CStr, flags: u32) -> Result<()> {
    let itself = c"";
    // SAFETY: both strings are NUL-terminated and live through the call.
    let moved = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            itself.as_ptr(),
            at,
            target.as_ptr(),
            flags,
        )
    };
    check(moved)?;
    Ok(())
}

/// How much a cell's `/proc` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProcView {
    /// Everything the kernel lets the caller's ids see, but not the processes it may not look into.
    Whole,
    /// Processes only: nothing of the kernel's own (`subset=pid`).
    Processes,
}

/// A detached `/proc` for the caller's process ids, without those that the caller may not look into
/// (`hidepid=ptraceable`). The kernel makes one only while the caller's mount table has another
/// `/proc` that nothing is hidden in.
pub(crate) fn new_proc(view: ProcView) -> Result<OwnedFd> {
    let context = open_context(c"proc")?;
    configure(&context, c"hidepid", c"ptraceable")?;
    if view == ProcView::Processes {
        configure(&context, c"subset", c"pid")?;
    }
    finish(&context, Forbid { write: false, device: true, execute: true })
}

/// A detached tmpfs. Options are those of `mount`, separated by commas, each with a value.
pub(crate) fn tmpfs_detached(options: &CStr) -> Result<OwnedFd> {
    let context = open_context(c"tmpfs")?;
    for option in options.to_bytes().split(|byte| *byte == b',') {
        let (mut key, mut value) = ([0; OPTION_BYTES], [0; OPTION_BYTES]);
        let mut halves = option.splitn(2, |byte| *byte == b'=');
        let (Some(name), Some(text)) = (halves.next(), halves.next()) else {
            return Err(Errno::from_raw(libc::EINVAL));
        };
        configure(&context, terminated(name, &mut key)?, terminated(text, &mut value)?)?;
    }
    finish(&context, Forbid { write: false, device: true, execute: false })
}

/// A detached overlay of `upper` over `lower`. All three have to be in the caller's mount table,
/// because as late as Linux 6.12 an overlay takes nothing that is detached; once it is made, it needs
/// them no longer.
pub(crate) fn overlay(lower: &CStr, upper: &CStr, work: &CStr, forbid: Forbid) -> Result<OwnedFd> {
    let context = open_context(c"overlay")?;
    for (key, value) in [(c"lowerdir", lower), (c"upperdir", upper), (c"workdir", work)] {
        configure(&context, key, value)?;
    }
    // Without this flag it keeps its notes in attributes that only a privileged user may write.
    // SAFETY: FSCONFIG_SET_FLAG takes a NUL-terminated key and no value.
    let set = unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            FSCONFIG_SET_FLAG,
            c"userxattr".as_ptr(),
            ptr::null::<libc::c_char>(),
            0,
        )
    };
    check(set)?;
    finish(&context, forbid)
}

/// Takes what is mounted at `path` out of the mount table.
pub(crate) fn detach(path: &CStr) -> Result<()> {
    // SAFETY: `path` is NUL-terminated and lives through the call.
    check(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) })?;
    Ok(())
}

/// Stops mounts and unmounts of the host from arriving in the calling process's table, and the
/// other way round.
pub(crate) fn make_private() -> Result<()> {
    let none = ptr::null::<libc::c_char>();
    let flags = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: the target is a NUL-terminated literal; the others are not read with these flags.
    check(unsafe { libc::mount(none, c"/".as_ptr(), none, flags, ptr::null()) })?;
    Ok(())
}

/// Mounts a tmpfs over `target`.
pub(crate) fn tmpfs(target: &CStr, options: &CStr, no_execute: bool) -> Result<()> {
    let execute = if no_execute { libc::MS_NOEXEC } else { 0 };
    let flags = libc::MS_NOSUID | libc::MS_NODEV | execute;
    // SAFETY: all four strings are NUL-terminated and live through the call.
    let mounted = unsafe {
        libc::mount(
            c"cell".as_ptr(),
            target.as_ptr(),
            c"tmpfs".as_ptr(),
            flags,
            options.as_ptr().cast(),
        )
    };
    check(mounted)?;
    Ok(())
}

/// Makes the current directory the root, with the old root mounted over it.
pub(crate) fn pivot_here() -> Result<()> {
    // SAFETY: both strings are NUL-terminated literals.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) })?;
    Ok(())
}

/// Lets go of what is mounted over the current directory.
pub(crate) fn detach_here() -> Result<()> {
    // SAFETY: the string is a NUL-terminated literal.
    check(unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) })?;
    Ok(())
}

fn open_context(kind: &CStr) -> Result<OwnedFd> {
    // SAFETY: the name is NUL-terminated and lives through the call.
    let context = unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) };
    Ok(own(number(check(context)?)))
}

fn configure(context: &OwnedFd, key: &CStr, value: &CStr) -> Result<()> {
    // SAFETY: FSCONFIG_SET_STRING takes two NUL-terminated strings, which live through the call.
    let set = unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            FSCONFIG_SET_STRING,
            key.as_ptr(),
            value.as_ptr(),
            0,
        )
    };
    check(set)?;
    Ok(())
}

/// Makes the file system that `context` describes, and a detached mount of it.
fn finish(context: &OwnedFd, forbid: Forbid) -> Result<OwnedFd> {
    let none = ptr::null::<libc::c_char>();
    // SAFETY: FSCONFIG_CMD_CREATE takes neither key nor value.
    let created = unsafe {
        libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, none, none, 0)
    };
    check(created)?;
    let flags = attributes(forbid);
    // SAFETY: takes integers only.
    let mount =
        unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, flags) };
    Ok(own(number(check(mount)?)))
}

/// `bytes` as a C string in `room`.
fn terminated<'a>(bytes: &[u8], room: &'a mut [u8; OPTION_BYTES]) -> Result<&'a CStr> {
    let invalid = Errno::from_raw(libc::EINVAL);
    room.get_mut(..bytes.len()).ok_or(invalid)?.copy_from_slice(bytes);
    CStr::from_bytes_until_nul(room).map_err(|_no_room_for_the_end| invalid)
}

fn set_attributes(at: RawFd, path: &CStr, flags: u32, attributes: &libc::mount_attr) -> Result<()> {
    // SAFETY: `path` is NUL-terminated, and the size announced is that of the struct pointed to.
    let set = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            at,
            path.as_ptr(),
            flags,
            ptr::from_ref(attributes),
            size_of::<libc::mount_attr>(),
        )
    };
    check(set)?;
    Ok(())
}

fn attributes(forbid: Forbid) -> u64 {
    let mut set = libc::MOUNT_ATTR_NOSUID;
    if forbid.write {
        set |= libc::MOUNT_ATTR_RDONLY;
    }
    if forbid.device {
        set |= libc::MOUNT_ATTR_NODEV;
    }
    if forbid.execute {
        set |= libc::MOUNT_ATTR_NOEXEC;
    }
    set
}

/// A descriptor from a call that returns `long`; the kernel never makes one that doesn't fit.
fn number(fd: libc::c_long) -> RawFd {
    RawFd::try_from(fd).unwrap_or(-1)
}

const OPEN_TREE_CLONE: u32 = 1;
const AT_RECURSIVE: u32 = 0x8000;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 4;
const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;
const FSOPEN_CLOEXEC: u32 = 1;
const FSMOUNT_CLOEXEC: u32 = 1;
const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;
const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
/// Longest name or value of an option: names are words, values are numbers.
const OPTION_BYTES: usize = 32;
