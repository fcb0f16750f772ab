//! Starting, replacing, awaiting and ending processes.

#![expect(unsafe_code, reason = "system calls; see each block")]

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    marker::PhantomData,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    ptr,
    time::Duration,
};

use super::{Result, check, event, file::own, last};
use crate::{errno::Errno, report::Usage};

/// Which side of a fork runs.
#[derive(Debug)]
pub(crate) enum Forked {
    Child,
    Parent { pid: i32, pidfd: OwnedFd },
}

/// Forks, with the child in new namespaces, in `group` if there is one (a directory of cgroup v2),
/// and without the parent's signal handlers.
///
/// # Safety
///
/// The calling process has one thread. (The child of a threaded process may meet locks that nobody
/// opens.)
pub(crate) unsafe fn fork(namespaces: u64, group: Option<BorrowedFd<'_>>) -> Result<Forked> {
    let mut pidfd: c_int = -1;
    // SAFETY: all fields are integers, for which zero is valid.
    let mut request: libc::clone_args = unsafe { MaybeUninit::zeroed().assume_init() };
    request.flags = namespaces | PIDFD | CLEAR_SIGHAND;
    if let Some(group) = group {
        request.flags |= INTO_CGROUP;
        request.cgroup = u64::from(group.as_raw_fd().unsigned_abs());
    }
    request.pidfd = (&raw mut pidfd).expose_provenance() as u64;
    request.exit_signal = u64::from(libc::SIGCHLD.cast_unsigned());
    // SAFETY: without CLONE_VM the child gets a copy of everything, its stack included; the caller
    // promises that there is one thread; the size is that of the struct, and `pidfd` is live.
    let pid = unsafe {
        libc::syscall(libc::SYS_clone3, &raw const request, size_of::<libc::clone_args>())
    };
    match i32::try_from(check(pid)?) {
        Ok(0) => Ok(Forked::Child),
        Ok(pid) => Ok(Forked::Parent { pid, pidfd: own(pidfd) }),
        Err(_overflow) => Err(Errno::from_raw(libc::EIO)),
    }
}

/// Gives the calling process namespaces of its own.
pub(crate) fn unshare(namespaces: u64) -> Result<()> {
    // SAFETY: takes integers only; all the flags in use concern the calling process alone.
    check(unsafe { libc::syscall(libc::SYS_unshare, namespaces) })?;
    Ok(())
}

/// Enters another namespace.
pub(crate) fn enter_namespace(namespace: BorrowedFd<'_>, kind: u64) -> Result<()> {
    // SAFETY: takes integers only.
    check(unsafe { libc::syscall(libc::SYS_setns, namespace.as_raw_fd(), kind) })?;
    Ok(())
}

/// The namespaces that a cell's first process is born into. The network's is taken from a stock
/// before, the cgroup's made after the process has entered its groups.
pub(crate) const CELL_NAMESPACES: u64 = NEW_USER | NEW_PID | NEW_NS | NEW_IPC | NEW_UTS;
/// All namespaces that a cell has.
pub(crate) const ALL_NAMESPACES: u64 = CELL_NAMESPACES | NEW_NET | NEW_CGROUP;
pub(crate) const NEW_USER: u64 = libc::CLONE_NEWUSER.cast_unsigned() as u64;
pub(crate) const NEW_PID: u64 = libc::CLONE_NEWPID.cast_unsigned() as u64;
pub(crate) const NEW_NS: u64 = libc::CLONE_NEWNS.cast_unsigned() as u64;
pub(crate) const NEW_NET: u64 = libc::CLONE_NEWNET.cast_unsigned() as u64;
pub(crate) const NEW_IPC: u64 = libc::CLONE_NEWIPC.cast_unsigned() as u64;
pub(crate) const NEW_UTS: u64 = libc::CLONE_NEWUTS.cast_unsigned() as u64;
pub(crate) const NEW_CGROUP: u64 = libc::CLONE_NEWCGROUP.cast_unsigned() as u64;
const PIDFD: u64 = libc::CLONE_PIDFD.cast_unsigned() as u64;
const CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const INTO_CGROUP: u64 = 0x2_0000_0000;

/// Memory for the stack of a process that shares its parent's memory until it executes a program.
#[derive(Debug)]
#[repr(C, align(16))]
pub(crate) struct Stack([MaybeUninit<u8>; STACK]);

/// What [`spawn_sharing`]'s body needs is a few hundred bytes; a system call wrapper in a debug
/// build, some KiB.
const STACK: usize = 64 << 10;

impl Stack {
    /// Fresh memory; the kernel gives it pages only when they are used.
    pub(crate) fn new() -> Box<Self> {
        let stack = Box::<Self>::new_uninit();
        // SAFETY: every byte of the array may be uninitialised.
        unsafe { stack.assume_init() }
    }

    /// Touches what will be written to: this stack, the caller's own, and the heap. The first touch of
    /// a page after a fork copies it, which takes as long as several system calls, and a process that
    /// waits has the time.
    pub(crate) fn warm_up(&mut self) {
        for page in self.0.rchunks_mut(PAGE).take(WARM_PAGES) {
            if let Some(byte) = page.last_mut() {
                byte.write(0);
            }
        }
        std::hint::black_box([0_u8; WARM_PAGES * PAGE]);
        for size in [64, 256, 1024] {
            std::hint::black_box(vec![1_u8; size]);
        }
    }
}

/// Bytes of the smallest page.
const PAGE: usize = 4096;
/// Pages of a stack that starting a program needs.
const WARM_PAGES: usize = 3;

/// What a process has in common with its parent until it executes a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    Memory,
    MemoryAndFiles,
}

/// Starts a process that shares this one's memory, and waits until it has executed a program or
/// ended.
///
/// `body` runs on `stack` and returns an exit status.
pub(crate) fn spawn_sharing<A: Sync>(
    stack: &mut Stack,
    body: extern "C" fn(&A) -> c_int,
    argument: &A,
    sharing: Sharing,
) -> Result<i32> {
    let files = if sharing == Sharing::MemoryAndFiles { libc::CLONE_FILES } else { 0 };
    // SAFETY: with CLONE_VFORK this process stands still until the other one has left its memory.
    unsafe { clone_sharing(stack, body, argument, libc::CLONE_VFORK | files) }
}

/// A child that has ended and waits to be reaped: it does nothing and holds nothing, but has a number.
pub(crate) fn spawn_ended(stack: &mut Stack) -> Result<i32> {
    extern "C" fn nothing(&(): &()) -> c_int {
        0
    }
    spawn_sharing(stack, nothing, &(), Sharing::Memory)
}

/// As [`spawn_sharing`], for a process that has to wait before it executes anything. The kernel counts
/// who stands still for a vfork as busy, so this process waits for the end of a `lifeline`, a pipe: no
/// other process may have its ends. If the `timer` is over first, it exits with the status beside it.
///
/// `body` may allocate: nobody else uses the memory.
pub(crate) fn spawn_waiting<A: Sync>(
    stack: &mut Stack,
    body: extern "C" fn(&A) -> c_int,
    argument: &A,
    lifeline: (OwnedFd, OwnedFd),
    (timer, status): (BorrowedFd<'_>, c_int),
) -> Result<i32> {
    let (end, held) = lifeline;
    // SAFETY: from here until the lifeline's end this process only closes, waits and exits, and touches
    // nothing but its own stack below the argument; the other process holds the lifeline until it
    // executes a program or ends, as the pipe's ends close at exec.
    let pid = unsafe { clone_sharing(stack, body, argument, 0) }?;
    drop(held);
    loop {
        match event::wait_for_either(end.as_fd(), Some(timer), -1) {
            Ok((true, _)) => return Ok(pid),
            Ok((false, true)) => exit(status),
            // An interrupted wait begins anew.
            _ => {}
        }
    }
}

/// Starts a process in this one's memory.
///
/// # Safety
///
/// Until the process has executed a program or ended, the caller touches nothing of that memory but the
/// part of its own stack that `argument` isn't in.
unsafe fn clone_sharing<A: Sync>(
    stack: &mut Stack,
    body: extern "C" fn(&A) -> c_int,
    argument: &A,
    flags: c_int,
) -> Result<i32> {
    let top = stack.0.as_mut_ptr_range().end;
    // SAFETY: only the argument's type changes, from a reference to the `void *` that C passes on;
    // both are one thin pointer, as `A` is sized.
    let entry = unsafe {
        std::mem::transmute::<extern "C" fn(&A) -> c_int, extern "C" fn(*mut c_void) -> c_int>(body)
    };
    let flags = libc::CLONE_VM | libc::SIGCHLD | flags;
    // SAFETY: the stack is exclusively borrowed and aligned to 16; the caller promises that nobody else
    // touches the shared memory, and waits, so that the argument outlives its use.
    check(unsafe {
        libc::clone(entry, top.cast(), flags, ptr::from_ref(argument).cast_mut().cast())
    })
}

/// A list of C strings as exec wants it: pointers, the last one null.
#[derive(Debug)]
pub(crate) struct StringList<'a> {
    pointers: Vec<*const c_char>,
    strings: PhantomData<&'a CStr>,
}

// SAFETY: the pointers are borrowed from `&'a CStr`s, which any thread may read.
unsafe impl Sync for StringList<'_> {}

impl<'a> StringList<'a> {
    /// Allocates, so it belongs before the fork.
    pub(crate) fn new(strings: impl Iterator<Item = &'a CStr>) -> Self {
        let pointers = strings.map(CStr::as_ptr).chain([ptr::null()]).collect();
        Self { pointers, strings: PhantomData }
    }
}

/// Replaces the calling process; returns only why it could not.
pub(crate) fn execute(
    path: &CStr,
    arguments: &StringList<'_>,
    environment: &StringList<'_>,
) -> Errno {
    // SAFETY: `path` is NUL-terminated; both lists end with null and borrow strings that live
    // through the call.
    unsafe {
        libc::execve(path.as_ptr(), arguments.pointers.as_ptr(), environment.pointers.as_ptr())
    };
    last()
}

/// A child that ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reaped {
    pub(crate) pid: i32,
    pub(crate) status: i32,
    pub(crate) usage: Usage,
}

/// The next child that ended. `None`: none yet (without waiting). An error of `ECHILD`: there are
/// no children.
pub(crate) fn reap(wait: bool) -> Result<Option<Reaped>> {
    let mut status = 0;
    // SAFETY: all fields are integers, for which zero is valid.
    let mut resources: libc::rusage = unsafe { MaybeUninit::zeroed().assume_init() };
    let flags = if wait { 0 } else { libc::WNOHANG };
    // SAFETY: both results are live and ours.
    let pid = check(unsafe { libc::wait4(-1, &raw mut status, flags, &raw mut resources) })?;
    Ok((pid > 0).then(|| Reaped { pid, status, usage: usage(&resources) }))
}

/// What a wait status says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Exited(i32),
    Signalled(i32),
}

pub(crate) fn ending(status: i32) -> Ending {
    if libc::WIFSIGNALED(status) {
        Ending::Signalled(libc::WTERMSIG(status))
    } else {
        Ending::Exited(libc::WEXITSTATUS(status))
    }
}

pub(crate) fn kill(pid: i32, signal: c_int) -> Result<()> {
    // SAFETY: sending a signal touches no memory.
    check(unsafe { libc::kill(pid, signal) })?;
    Ok(())
}

/// Lets whoever else wants this processor have it first.
pub(crate) fn yield_processor() {
    // SAFETY: touches no memory, and can't fail.
    unsafe { libc::sched_yield() };
}

/// Ends the process at once: no destructor, no handler of the host program runs.
pub(crate) fn exit(status: c_int) -> ! {
    // SAFETY: the call doesn't return.
    unsafe { libc::_exit(status) }
}

pub(crate) fn own_pid() -> i32 {
    std::process::id().cast_signed()
}

/// Reads names from a directory, as many as fit.
pub(crate) fn directory_entries(directory: BorrowedFd<'_>, into: &mut [u8]) -> Result<usize> {
    // SAFETY: the pointer and the length are those of a buffer that is ours alone for the call.
    let count = unsafe {
        libc::syscall(libc::SYS_getdents64, directory.as_raw_fd(), into.as_mut_ptr(), into.len())
    };
    Ok(usize::try_from(check(count)?).unwrap_or_default())
}

fn usage(resources: &libc::rusage) -> Usage {
    let time = |time: libc::timeval| {
        let seconds = Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or_default());
        seconds + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or_default())
    };
    Usage {
        user: time(resources.ru_utime),
        system: time(resources.ru_stime),
        peak_resident_bytes: u64::try_from(resources.ru_maxrss)
            .unwrap_or_default()
            .saturating_mul(1024),
    }
}
