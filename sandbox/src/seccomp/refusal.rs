//! What a refused call is told.

/// The error number for a call that the profile doesn't name. Allocates nothing.
///
/// Programs probe for what is newer than they need, and fall back on `ENOSYS` only; they take a
/// missing address family as it is, and `EPERM` as a failure.
pub(crate) fn refusal(number: i32) -> i32 {
    let number = libc::c_long::from(number);
    if number == libc::SYS_socket || number == libc::SYS_socketpair {
        libc::EAFNOSUPPORT
    } else if number > NEWEST_COMMON {
        libc::ENOSYS
    } else {
        libc::EPERM
    }
}

/// Of Linux 5.11: C libraries that expect more are rare, and they all fall back.
const NEWEST_COMMON: libc::c_long = libc::SYS_epoll_pwait2;
