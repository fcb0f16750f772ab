//! Targets of attacks that the standard library can't make: terminals, and what processes share by
//! key or name.

#![expect(unsafe_code, reason = "system calls; see each block")]

use std::{
    ffi::{CStr, CString, c_int},
    fs::File,
    os::fd::{AsRawFd, OwnedFd},
};

use super::super::{Result, check, file::own};

/// A terminal of nobody's.
#[derive(Debug)]
pub(crate) struct Terminal {
    /// It's there as long as this is open.
    _master: File,
    pub(crate) number: u32,
}

impl Terminal {
    /// Makes one that programs can open.
    pub(crate) fn new(master: File) -> Result<Self> {
        let (mut number, mut unlocked): (u32, c_int) = (0, 0);
        let descriptor = master.as_raw_fd();
        // SAFETY: the kernel reads one integer, which is live.
        check(unsafe { libc::ioctl(descriptor, libc::TIOCSPTLCK, &raw mut unlocked) })?;
        // SAFETY: the kernel writes one integer, which is live.
        check(unsafe { libc::ioctl(descriptor, libc::TIOCGPTN, &raw mut number) })?;
        Ok(Self { _master: master, number })
    }
}

/// Shared memory, semaphores and a message queue with the same key, gone with the value.
#[derive(Debug)]
pub(crate) struct Keyed {
    memory: c_int,
    semaphores: c_int,
    messages: c_int,
}

impl Keyed {
    /// Fails if one of them exists already.
    pub(crate) fn new(key: i32) -> Result<Self> {
        const PAGE: usize = 4096;
        let flags = libc::IPC_CREAT | libc::IPC_EXCL | 0o666;
        let mut this = Self { memory: -1, semaphores: -1, messages: -1 };
        // SAFETY: takes integers only.
        this.memory = check(unsafe { libc::shmget(key, PAGE, flags) })?;
        // SAFETY: takes integers only.
        this.semaphores = check(unsafe { libc::semget(key, 1, flags) })?;
        // SAFETY: takes integers only.
        this.messages = check(unsafe { libc::msgget(key, flags) })?;
        Ok(this)
    }

    /// What there is of this key, whoever has made it.
    pub(crate) fn left(key: i32) -> Self {
        Self {
            // SAFETY: takes integers only, and makes nothing without a flag.
            memory: unsafe { libc::shmget(key, 0, 0) },
            // SAFETY: as above.
            semaphores: unsafe { libc::semget(key, 0, 0) },
            // SAFETY: as above.
            messages: unsafe { libc::msgget(key, 0) },
        }
    }
}

impl Drop for Keyed {
    fn drop(&mut self) {
        let none = std::ptr::null_mut();
        // SAFETY: removing takes no argument; -1 is nobody's number.
        unsafe { libc::shmctl(self.memory, libc::IPC_RMID, none) };
        // SAFETY: as above.
        unsafe { libc::semctl(self.semaphores, 0, libc::IPC_RMID) };
        // SAFETY: as above.
        unsafe { libc::msgctl(self.messages, libc::IPC_RMID, std::ptr::null_mut()) };
    }
}

/// A POSIX message queue, gone with the value.
#[derive(Debug)]
pub(crate) struct Queue {
    name: CString,
    _queue: OwnedFd,
}

impl Queue {
    /// `name` has no slash. Fails if it exists already.
    pub(crate) fn new(name: &CStr) -> Result<Self> {
        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDWR | libc::O_CLOEXEC;
        // SAFETY: the name is NUL-terminated; without attributes the queue has the usual ones.
        let queue = unsafe {
            libc::syscall(
                libc::SYS_mq_open,
                name.as_ptr(),
                flags,
                0o666,
                std::ptr::null::<libc::mq_attr>(),
            )
        };
        let queue = own(i32::try_from(check(queue)?).unwrap_or(-1));
        Ok(Self { name: name.to_owned(), _queue: queue })
    }

    /// Takes the name from the queue that has it, if there is one.
    pub(crate) fn unlink(name: &CStr) {
        // SAFETY: the name is NUL-terminated and lives through the call.
        unsafe { libc::syscall(libc::SYS_mq_unlink, name.as_ptr()) };
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        Self::unlink(&self.name);
    }
}
