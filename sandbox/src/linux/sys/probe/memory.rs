//! Memory of others, and more memory than was granted.

#![expect(unsafe_code, reason = "system calls; see each block")]

use std::{ffi::c_void, ptr};

use super::super::{Result, check};

/// A mapping that is never given back.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: *mut u8,
    length: usize,
}

impl Mapping {
    /// Private memory without content; `protection` as `mmap` has it.
    pub(crate) fn new(length: usize, protection: i32) -> Result<Self> {
        Self::with(length, protection, 0)
    }

    /// Private memory of the host's pool of huge pages.
    pub(crate) fn huge(length: usize) -> Result<Self> {
        Self::with(length, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_HUGETLB)
    }

    fn with(length: usize, protection: i32, more: i32) -> Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | more;
        // SAFETY: a fresh mapping at a place of the kernel's choice touches nothing that is there.
        let start = unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(super::super::last());
        }
        Ok(Self { start: start.cast(), length })
    }

    /// Writes one byte to each page, so that all of it exists.
    pub(crate) fn touch(&mut self) {
        for offset in (0..self.length).step_by(PAGE) {
            // SAFETY: the offset is inside the mapping.
            let byte = unsafe { self.start.add(offset) };
            // SAFETY: the mapping is ours alone; one that can't be written ends the process.
            unsafe { byte.write_volatile(1) };
        }
    }

    /// The whole of it, readable.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is readable, zeroed by the kernel, and never given back.
        unsafe { std::slice::from_raw_parts(self.start, self.length) }
    }

    /// Changes what the mapping may be used for.
    pub(crate) fn protect(&self, protection: i32) -> Result<()> {
        // SAFETY: nothing of Rust's lives in the mapping.
        check(unsafe { libc::mprotect(self.start.cast(), self.length, protection) })?;
        Ok(())
    }

    /// Keeps it out of swap.
    pub(crate) fn lock(&self) -> Result<()> {
        // SAFETY: changes how the pages are kept, not what is in them.
        check(unsafe { libc::mlock(self.start.cast(), self.length) })?;
        Ok(())
    }

    /// Starts a thread of this process that waits for ever, on a stack at the mapping's `index`th
    /// piece. It runs no Rust code that could meet another thread.
    pub(crate) fn start_thread(&self, index: usize) -> Result<()> {
        let end = index.saturating_add(1).saturating_mul(STACK);
        if end > self.length {
            return Err(crate::errno::Errno::from_raw(libc::EINVAL));
        }
        // SAFETY: the end is inside the mapping or directly behind it.
        let top = unsafe { self.start.add(end) };
        let flags = libc::CLONE_VM
            | libc::CLONE_FS
            | libc::CLONE_FILES
            | libc::CLONE_SIGHAND
            | libc::CLONE_THREAD
            | libc::CLONE_SYSVSEM;
        // SAFETY: the stack is the mapping's, and no other thread has this piece of it; the thread
        // only waits in the kernel.
        check(unsafe { libc::clone(idle, top.cast(), flags, ptr::null_mut()) })?;
        Ok(())
    }
}

/// Bytes of stack per idle thread.
pub(crate) const STACK: usize = 16 << 10;
const PAGE: usize = 4096;

extern "C" fn idle(_argument: *mut c_void) -> libc::c_int {
    loop {
        // SAFETY: takes nothing. It doesn't return, so it doesn't touch the error number, which all
        // threads of this kind share.
        unsafe { libc::syscall(libc::SYS_pause) };
    }
}

/// Whether one byte of another process's memory can be read, or written over itself.
pub(crate) fn reach_into(pid: i32, address: usize, write: bool) -> Result<()> {
    let mut byte = 0_u8;
    let ours = libc::iovec { iov_base: ptr::from_mut(&mut byte).cast(), iov_len: 1 };
    let theirs = libc::iovec { iov_base: ptr::without_provenance_mut(address), iov_len: 1 };
    let done = if write {
        // SAFETY: one live byte of ours is read; the other address is of another process.
        unsafe { libc::process_vm_writev(pid, &raw const ours, 1, &raw const theirs, 1, 0) }
    } else {
        // SAFETY: one live byte of ours is written; the other address is of another process.
        unsafe { libc::process_vm_readv(pid, &raw const ours, 1, &raw const theirs, 1, 0) }
    };
    check(done)?;
    Ok(())
}
