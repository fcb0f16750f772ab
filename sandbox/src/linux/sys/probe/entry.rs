//! Doors into the kernel beside the usual one.

#![expect(unsafe_code, reason = "machine instructions; see each block")]

use super::super::Result;
use crate::errno::Errno;

/// A system call with one argument by the 32 bit door, whose numbers are other ones.
#[cfg(target_arch = "x86_64")]
pub(crate) fn by_interrupt(number: u32, argument: u32) -> Result<i32> {
    let result: i32;
    // SAFETY: the callers' calls take integers only. The kernel keeps all registers but the result
    // and, by this door, r8 to r11; rbx can't be named, so it is exchanged and put back.
    unsafe {
        std::arch::asm!(
            "xchg {argument:r}, rbx",
            "int 0x80",
            "xchg {argument:r}, rbx",
            argument = inout(reg) u64::from(argument) => _,
            inlateout("eax") number.cast_signed() => result,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    };
    answer(result)
}

/// There is no such door on this architecture.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn by_interrupt(_number: u32, _argument: u32) -> Result<i32> {
    Err(Errno::from_raw(libc::ENOSYS))
}

/// Asks for the process id by the x32 numbers of the usual door.
#[cfg(target_arch = "x86_64")]
pub(crate) fn by_x32() -> Result<i32> {
    const X32: libc::c_long = 0x4000_0000;
    // SAFETY: the call takes nothing.
    let pid = super::super::check(unsafe { libc::syscall(X32 | libc::SYS_getpid) })?;
    Ok(i32::try_from(pid).unwrap_or_default())
}

/// There are no such numbers on this architecture.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn by_x32() -> Result<i32> {
    Err(Errno::from_raw(libc::ENOSYS))
}

/// Starts a child with `clone3`, or with the older `clone`, and has it end at once. The child's id.
pub(crate) fn clone_with(_alone: &super::Alone, flags: u64, newest: bool) -> Result<i32> {
    let signal = u64::from(libc::SIGCHLD.cast_unsigned());
    let pid = if newest {
        // SAFETY: all fields are integers, for which zero is valid.
        let mut request: libc::clone_args =
            unsafe { std::mem::MaybeUninit::zeroed().assume_init() };
        request.flags = flags;
        request.exit_signal = signal;
        // SAFETY: without CLONE_VM the child gets a copy of everything, its stack included; there
        // is one thread; the size is that of the struct.
        unsafe {
            libc::syscall(libc::SYS_clone3, &raw const request, size_of::<libc::clone_args>())
        }
    } else {
        // SAFETY: as above; no stack is named, so the child uses its copy of this one.
        unsafe { libc::syscall(libc::SYS_clone, flags | signal, 0, 0, 0, 0) }
    };
    match super::super::check(pid)? {
        0 => crate::linux::sys::process::exit(0),
        pid => Ok(i32::try_from(pid).unwrap_or_default()),
    }
}

#[cfg(target_arch = "x86_64")]
fn answer(result: i32) -> Result<i32> {
    if (-4095..0).contains(&result) { Err(Errno::from_raw(-result)) } else { Ok(result) }
}
