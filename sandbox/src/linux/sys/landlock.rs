//! Landlock: rules about files, TCP, abstract sockets and signals that hold whatever the mount table
//! says (`landlock(7)`).

#![expect(unsafe_code, reason = "system calls; see each block")]

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::{Result, check, file::own};

/// The version of Landlock's interface that the kernel has. An error of `ENOSYS` or `EOPNOTSUPP`: it
/// has none, or it is switched off.
pub(crate) fn version() -> Result<u32> {
    let none = std::ptr::null::<Ruleset>();
    // SAFETY: asking for the version reads no attributes.
    let version = check(unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, none, 0, CREATE_VERSION)
    })?;
    Ok(u32::try_from(version).unwrap_or_default())
}

/// What a set of rules covers: everything covered is forbidden unless a rule allows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub(crate) struct Ruleset {
    pub(crate) files: u64,
    pub(crate) network: u64,
    pub(crate) scopes: u64,
}

impl Ruleset {
    pub(crate) fn create(self) -> Result<OwnedFd> {
        let length = size_of::<Self>();
        // SAFETY: the size announced is that of the live struct, which the kernel reads. Older
        // kernels accept the longer struct as long as what they don't know is zero.
        let fd = check(unsafe {
            libc::syscall(libc::SYS_landlock_create_ruleset, &raw const self, length, 0)
        })?;
        Ok(own(i32::try_from(fd).unwrap_or(-1)))
    }
}

/// Allows `files` for everything at and below what `parent` refers to.
pub(crate) fn allow_below(rules: BorrowedFd<'_>, files: u64, parent: BorrowedFd<'_>) -> Result<()> {
    let rule = PathBeneath { files, parent: parent.as_raw_fd() };
    // SAFETY: the struct is live and of the kind that is announced; the kernel reads it.
    check(unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            rules.as_raw_fd(),
            RULE_PATH_BENEATH,
            &raw const rule,
            0,
        )
    })?;
    Ok(())
}

/// Allows `network` for one TCP port.
pub(crate) fn allow_port(rules: BorrowedFd<'_>, network: u64, port: u16) -> Result<()> {
    let rule = NetPort { network, port: port.into() };
    // SAFETY: the struct is live and of the kind that is announced; the kernel reads it.
    check(unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            rules.as_raw_fd(),
            RULE_NET_PORT,
            &raw const rule,
            0,
        )
    })?;
    Ok(())
}

/// Puts the calling process, and all that it will start, under the rules for good.
pub(crate) fn restrict_self(rules: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: takes integers only.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0) })?;
    Ok(())
}

#[repr(C, packed)]
struct PathBeneath {
    files: u64,
    parent: i32,
}

#[repr(C)]
struct NetPort {
    network: u64,
    port: u64,
}

/// The number of the call that puts a process under rules, for a program that has no name for it.
#[expect(clippy::cast_possible_truncation, reason = "below 1000")]
pub(crate) const RESTRICT_NUMBER: u32 = libc::SYS_landlock_restrict_self as u32;

const CREATE_VERSION: u32 = 1;
const RULE_PATH_BENEATH: u32 = 1;
const RULE_NET_PORT: u32 = 2;

pub(crate) const EXECUTE: u64 = 1;
pub(crate) const WRITE_FILE: u64 = 1 << 1;
pub(crate) const READ_FILE: u64 = 1 << 2;
pub(crate) const READ_DIRECTORY: u64 = 1 << 3;
pub(crate) const REMOVE_DIRECTORY: u64 = 1 << 4;
pub(crate) const REMOVE_FILE: u64 = 1 << 5;
pub(crate) const MAKE_CHARACTER_DEVICE: u64 = 1 << 6;
pub(crate) const MAKE_DIRECTORY: u64 = 1 << 7;
pub(crate) const MAKE_FILE: u64 = 1 << 8;
pub(crate) const MAKE_SOCKET: u64 = 1 << 9;
pub(crate) const MAKE_FIFO: u64 = 1 << 10;
pub(crate) const MAKE_BLOCK_DEVICE: u64 = 1 << 11;
pub(crate) const MAKE_LINK: u64 = 1 << 12;
/// Moving and linking across directories; from version 2 on.
pub(crate) const REFER: u64 = 1 << 13;
/// From version 3 on.
pub(crate) const TRUNCATE: u64 = 1 << 14;
/// From version 5 on.
pub(crate) const DEVICE_IOCTL: u64 = 1 << 15;

/// From version 4 on.
pub(crate) const BIND_TCP: u64 = 1;
pub(crate) const CONNECT_TCP: u64 = 1 << 1;

/// From version 6 on.
pub(crate) const SCOPE_ABSTRACT_SOCKETS: u64 = 1;
pub(crate) const SCOPE_SIGNALS: u64 = 1 << 1;
