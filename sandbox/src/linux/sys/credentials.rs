//! Rights: ids, groups, capabilities, resource limits, and the switches of `prctl`.

#![expect(unsafe_code, reason = "system calls; see each block")]

use std::{ffi::c_int, ptr};

use super::{Result, check};
use crate::{errno::Errno, plan::Resource};

/// Effective user and group id.
pub(crate) fn effective_ids() -> (u32, u32) {
    // SAFETY: can't fail and touches no memory.
    let user = unsafe { libc::geteuid() };
    // SAFETY: as above.
    let group = unsafe { libc::getegid() };
    (user, group)
}

/// Takes real, effective and saved ids. The raw calls, because libc's would signal threads that
/// aren't there.
pub(crate) fn set_ids(user: u32, group: u32) -> Result<()> {
    // SAFETY: takes integers only.
    check(unsafe { libc::syscall(libc::SYS_setresgid, group, group, group) })?;
    // SAFETY: takes integers only.
    check(unsafe { libc::syscall(libc::SYS_setresuid, user, user, user) })?;
    Ok(())
}

/// Takes other effective ids and keeps the real ones.
pub(crate) fn set_effective_ids(user: u32, group: u32) -> Result<()> {
    // SAFETY: takes integers only; -1 leaves an id as it is.
    check(unsafe { libc::syscall(libc::SYS_setresgid, -1, group, -1) })?;
    // SAFETY: as above.
    check(unsafe { libc::syscall(libc::SYS_setresuid, -1, user, -1) })?;
    Ok(())
}

/// From here on a change of ids leaves the calling process's capabilities alone.
pub(crate) fn keep_capabilities_over_ids() -> Result<()> {
    switch(libc::PR_SET_SECUREBITS, NO_SETUID_FIXUP)
}

pub(crate) fn clear_groups() -> Result<()> {
    let none = ptr::null::<libc::gid_t>();
    // SAFETY: a list of no groups isn't read.
    check(unsafe { libc::syscall(libc::SYS_setgroups, 0, none) })?;
    Ok(())
}

/// The calling process gets `signal` when the thread that forked it ends. Read back.
pub(crate) fn on_parent_death(signal: c_int) -> Result<()> {
    switch(libc::PR_SET_PDEATHSIG, signal.cast_unsigned().into())?;
    let (mut set, none): (c_int, u64) = (0, 0);
    // SAFETY: the word that the kernel writes is live and ours.
    check(unsafe { libc::prctl(libc::PR_GET_PDEATHSIG, &raw mut set, none, none, none) })?;
    if set == signal { Ok(()) } else { Err(NOT_AS_SET) }
}

/// Whether others with the same id may look into the calling process.
pub(crate) fn set_dumpable(dumpable: bool) -> Result<()> {
    switch(libc::PR_SET_DUMPABLE, dumpable.into())
}

/// Orphans below the calling process become its children.
pub(crate) fn adopt_orphans() -> Result<()> {
    switch(libc::PR_SET_CHILD_SUBREAPER, 1)
}

pub(crate) fn forbid_privileges() -> Result<()> {
    switch(libc::PR_SET_NO_NEW_PRIVS, 1)
}

pub(crate) fn privileges_forbidden() -> Result<bool> {
    Ok(ask(libc::PR_GET_NO_NEW_PRIVS, 0, 0)? == 1)
}

/// How many capabilities the kernel knows.
pub(crate) fn capability_count() -> u64 {
    (0..MAX_CAPABILITIES)
        .find(|number| in_bounding_set(*number).is_err())
        .unwrap_or(MAX_CAPABILITIES)
}

pub(crate) fn drop_from_bounding_set(capability: u64) -> Result<()> {
    switch(libc::PR_CAPBSET_DROP, capability)
}

pub(crate) fn in_bounding_set(capability: u64) -> Result<bool> {
    Ok(ask(libc::PR_CAPBSET_READ, capability, 0)? == 1)
}

pub(crate) fn clear_ambient_set() -> Result<()> {
    ask(libc::PR_CAP_AMBIENT, AMBIENT_CLEAR_ALL, 0)?;
    Ok(())
}

/// Root gets nothing by being root, ids don't change capabilities, nothing becomes ambient; all
/// locked.
pub(crate) fn lock_secure_bits() -> Result<()> {
    switch(libc::PR_SET_SECUREBITS, LOCKED_SECURE_BITS)
}

pub(crate) fn secure_bits_locked() -> Result<bool> {
    Ok(u64::try_from(ask(libc::PR_GET_SECUREBITS, 0, 0)?) == Ok(LOCKED_SECURE_BITS))
}

/// Empties the effective, permitted and inheritable sets.
pub(crate) fn drop_capabilities() -> Result<()> {
    let header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let none = [CapabilityData::default(); 2];
    // SAFETY: header and two data structs are what version 3 announces; the kernel reads them.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) })?;
    Ok(())
}

/// Keeps one capability, over exec too, and no way to another. The bounding set comes first, while
/// there still is a right to change it.
pub(crate) fn keep_only(capability: u64, known: u64) -> Result<()> {
    for other in (0..known).filter(|other| *other != capability) {
        drop_from_bounding_set(other)?;
    }
    let header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let bit = 1_u32.checked_shl(u32::try_from(capability).unwrap_or(u32::MAX)).unwrap_or_default();
    let kept = CapabilityData { effective: bit, permitted: bit, inheritable: bit };
    let data = [kept, CapabilityData::default()];
    // SAFETY: header and two data structs are what version 3 announces; the kernel reads them.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) })?;
    ask(libc::PR_CAP_AMBIENT, AMBIENT_RAISE, capability)?;
    Ok(())
}

/// The right to enter namespaces, among much else.
pub(crate) const ADMINISTER: u64 = 21;

/// Whether the effective, permitted and inheritable sets are empty.
pub(crate) fn has_no_capabilities() -> Result<bool> {
    let mut header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let mut data = [CapabilityData { effective: 1, permitted: 1, inheritable: 1 }; 2];
    // SAFETY: header and two data structs are what version 3 announces; the kernel writes them.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    Ok(data == [CapabilityData::default(); 2])
}

/// The hard limit of a resource.
pub(crate) fn hard_limit(resource: Resource) -> Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the struct is live and ours.
    check(unsafe { libc::getrlimit(number(resource), &raw mut limit) })?;
    Ok(limit.rlim_max)
}

/// Sets soft and hard limit, and reads them back.
pub(crate) fn set_limit(resource: Resource, value: u64) -> Result<()> {
    let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
    // SAFETY: the struct is live; the kernel reads it.
    check(unsafe { libc::setrlimit(number(resource), &raw const limit) })?;
    let mut set = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the struct is live and ours.
    check(unsafe { libc::getrlimit(number(resource), &raw mut set) })?;
    if (set.rlim_cur, set.rlim_max) == (value, value) { Ok(()) } else { Err(NOT_AS_SET) }
}

/// Whether the calling process is the first of its pid namespace, with these ids and no others.
pub(crate) fn is_first_with(user: u32, group: u32) -> Result<bool> {
    let (mut users, mut groups) = ([u32::MAX; 3], [u32::MAX; 3]);
    let [real, effective, saved] = &mut users;
    // SAFETY: the three words are live and ours.
    check(unsafe { libc::getresuid(real, effective, saved) })?;
    let [real, effective, saved] = &mut groups;
    // SAFETY: the three words are live and ours.
    check(unsafe { libc::getresgid(real, effective, saved) })?;
    // SAFETY: can't fail and touches no memory.
    let pid = unsafe { libc::getpid() };
    Ok(pid == 1 && users == [user; 3] && groups == [group; 3])
}

/// Whether the calling process has no supplementary groups.
pub(crate) fn has_no_groups() -> Result<bool> {
    // SAFETY: asks for a number only.
    Ok(check(unsafe { libc::getgroups(0, ptr::null_mut()) })? == 0)
}

/// A session of the calling process's own, read back.
pub(crate) fn start_session() -> Result<()> {
    // SAFETY: takes nothing.
    check(unsafe { libc::setsid() })?;
    // SAFETY: takes an integer only.
    let session = check(unsafe { libc::getsid(0) })?;
    // SAFETY: can't fail and touches no memory.
    let pid = unsafe { libc::getpid() };
    if session == pid { Ok(()) } else { Err(NOT_AS_SET) }
}

pub(crate) fn set_host_name(name: &[u8]) -> Result<()> {
    // SAFETY: pointer and length are those of a live string.
    check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) })?;
    Ok(())
}

/// Files are made with the modes that the plan names, minus what others could write.
pub(crate) fn set_file_mask() {
    // SAFETY: can't fail and touches no memory.
    unsafe { libc::umask(0o022) };
}

/// Leaves the host's session keyring for one that is revoked at once: cells inherit it, and a
/// keyring that can't be used can't pass secrets from one to the next.
pub(crate) fn leave_keyring() -> Result<()> {
    let none = ptr::null::<libc::c_char>();
    // SAFETY: no name asks for a new keyring.
    let joined =
        check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, none) });
    match joined {
        // A kernel without keyrings has nothing to leave.
        Err(errno) if errno.raw() == libc::ENOSYS => return Ok(()),
        other => other?,
    };
    // SAFETY: takes integers only.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_REVOKE, SESSION_KEYRING) })?;
    Ok(())
}

/// Whether the loader gave this process more rights than its caller has.
pub(crate) fn is_set_user_id() -> bool {
    // SAFETY: reads a value that the kernel put beside the stack.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

fn switch(option: c_int, value: u64) -> Result<()> {
    ask(option, value, 0)?;
    Ok(())
}

fn ask(option: c_int, first: u64, second: u64) -> Result<c_int> {
    let none: u64 = 0;
    // SAFETY: the options used in this file take integers only; unused arguments are zero, as newer
    // ones demand.
    check(unsafe { libc::prctl(option, first, second, none, none) })
}

/// The kernel's number of a resource.
pub(crate) fn number(resource: Resource) -> libc::__rlimit_resource_t {
    match resource {
        Resource::CpuSeconds => libc::RLIMIT_CPU,
        Resource::FileSize => libc::RLIMIT_FSIZE,
        Resource::Data => libc::RLIMIT_DATA,
        Resource::Stack => libc::RLIMIT_STACK,
        Resource::Core => libc::RLIMIT_CORE,
        Resource::Resident => libc::RLIMIT_RSS,
        Resource::Processes => libc::RLIMIT_NPROC,
        Resource::OpenFiles => libc::RLIMIT_NOFILE,
        Resource::LockedMemory => libc::RLIMIT_MEMLOCK,
        Resource::AddressSpace => libc::RLIMIT_AS,
        Resource::FileLocks => libc::RLIMIT_LOCKS,
        Resource::PendingSignals => libc::RLIMIT_SIGPENDING,
        Resource::MessageQueues => libc::RLIMIT_MSGQUEUE,
        Resource::Nice => libc::RLIMIT_NICE,
        Resource::RealTimePriority => libc::RLIMIT_RTPRIO,
        Resource::RealTimeMicroseconds => libc::RLIMIT_RTTIME,
    }
}

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct CapabilityData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// A mismatch that a read-back found: the kernel said yes and did something else.
pub(crate) const NOT_AS_SET: Errno = Errno::from_raw(libc::EBADE);

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
/// Two words of 32 bits.
const MAX_CAPABILITIES: u64 = 64;
const AMBIENT_RAISE: u64 = 2;
const AMBIENT_CLEAR_ALL: u64 = 4;
/// `NOROOT`, `NO_SETUID_FIXUP` and `NO_CAP_AMBIENT_RAISE` set, `KEEP_CAPS` clear, all four locked.
const LOCKED_SECURE_BITS: u64 = 0xEF;
const NO_SETUID_FIXUP: u64 = 1 << 2;
const KEYCTL_JOIN_SESSION_KEYRING: c_int = 1;
const KEYCTL_REVOKE: c_int = 3;
const SESSION_KEYRING: c_int = -3;
