//! The mount table of the calling process.

#![expect(unsafe_code, reason = "system calls; see each block")]

use std::{
    ffi::CStr,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
    ptr,
};

use super::{Result, check, file::own};

/// What a mount forbids.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Forbid {
    pub(crate) write: bool,
    pub(crate) device: bool,
    pub(crate) execute: bool,
}

/// A detached copy of what is mounted at `path`, with everything below it.
pub(crate) fn copy(path: &CStr) -> Result<OwnedFd> {
    let flags = OPEN_TREE_CLONE | AT_RECURSIVE | libc::O_CLOEXEC.cast_unsigned();
    // SAFETY: `path` is NUL-terminated and lives through the call.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    Ok(own(number(check(fd)?)))
}

/// Restricts a detached mount and everything below it. Set-user-id bits never work.
pub(crate) fn restrict(mount: BorrowedFd<'_>, forbid: Forbid) -> Result<()> {
    let attributes = libc::mount_attr {
        attr_set: attributes(forbid),
        attr_clr: 0,
        propagation: 0,
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

/// Makes the root read-only, but nothing that is mounted below it.
pub(crate) fn seal_root() -> Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    set_attributes(libc::AT_FDCWD, c"/", 0, &attributes)
}

/// Puts a detached mount to its place.
pub(crate) fn attach(mount: BorrowedFd<'_>, target: &CStr) -> Result<()> {
    // SAFETY: both strings are NUL-terminated and live through the call.
    let moved = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    check(moved)?;
    Ok(())
}

/// A detached `/proc` for the caller's process ids. The kernel makes one only while the caller's
/// mount table has another `/proc` that nothing is hidden in.
pub(crate) fn new_proc() -> Result<OwnedFd> {
    // SAFETY: the name is a NUL-terminated literal.
    let context = unsafe { libc::syscall(libc::SYS_fsopen, c"proc".as_ptr(), FSOPEN_CLOEXEC) };
    let context = own(number(check(context)?));
    let none = ptr::null::<libc::c_char>();
    // SAFETY: FSCONFIG_CMD_CREATE takes neither key nor value.
    let created = unsafe {
        libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, none, none, 0)
    };
    check(created)?;
    let flags = attributes(Forbid { write: false, device: true, execute: true });
    // SAFETY: takes integers only.
    let mount =
        unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, flags) };
    Ok(own(number(check(mount)?)))
}

/// Mounts a tmpfs over `target`.
pub(crate) fn tmpfs(target: &CStr, options: &CStr) -> Result<()> {
    let flags = libc::MS_NOSUID | libc::MS_NODEV;
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
const FSOPEN_CLOEXEC: u32 = 1;
const FSMOUNT_CLOEXEC: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;
const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
